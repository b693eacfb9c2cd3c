"""The tiles of an array, as an array of records: where they lie, and what moves boxes of items."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ._boxes import Index
from ._mover import Mover
from ._tiling import Tiling
from .array import SparseArray

__all__ = ["Records"]


class Records(SparseArray):
    """
    The tiles of an array, each a record of a `SparseArray`.

    All that knows no items is as of any other array: memory or a file, its length, what is stored.
    """

    __slots__ = ("_seen",)

    _seen: tuple[Tiling, Mover]

    def _set_shape(self, shape: tuple[int, ...], dtype: np.dtype | None = None) -> None:
        tiling = Tiling.of_record(self._dtype if dtype is None else dtype, shape)
        if tiling is None:
            msg = f"{dtype} is no tile of an array"
            raise ValueError(msg)
        axes = [place[1:] for place in tiling.places]
        self._seen = tiling, Mover(self._buffer, self._offset, tiling.dtype, axes)
        super()._set_shape(shape, dtype)

    @property
    def tiling(self) -> Tiling:
        """How the array lies."""
        return self._seen[0]

    @property
    def mover(self) -> Mover:
        """What moves boxes of items."""
        return self._seen[1]

    def place(self, tile: Sequence[int]) -> int:
        """Find where a tile begins, in bytes from the start of the buffer."""
        steps = self.tiling.tile_steps
        return self._offset + sum(i * step for i, step in zip(tile, steps, strict=True))

    def forget(self, index: Index) -> None:
        """Leave to the system's cache what was read of a file."""
        tiles = self.tiling.tiles
        first = [side.start // tile for side, tile in zip(index, tiles, strict=True)]
        last = [(side.stop - 1) // tile for side, tile in zip(index, tiles, strict=True)]
        start, stop = self.place(first), self.place(last) + self.tiling.tile_nbytes
        self._buffer._forget(start, stop - start)
