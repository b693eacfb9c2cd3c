"""The tiles of an array, as an array of records: where they lie, and what moves boxes of items."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._boxes import Index
from ._mover import Mover
from ._new_file import PIECE
from ._tiling import Tiling
from .array import SparseArray
from .blocks import Blocks, item_ranges

__all__ = ["Records"]


class Records(SparseArray):
    """
    The tiles of an array, each a record of a `SparseArray`, in the order of their numbers.

    All that knows no items is as of any other array: memory or a file, its length, what is stored.
    Tiles are numbered in C order; a *place* is in bytes from the first tile, as if all were there.
    """

    __slots__ = ("_seen",)

    _seen: tuple[Tiling, Mover]

    def _set_shape(self, shape: tuple[int, ...], dtype: np.dtype | None = None) -> None:
        tiling = Tiling.of_record(self._dtype if dtype is None else dtype, shape)
        if tiling is None:
            msg = f"{dtype} is no tile of an array"
            raise ValueError(msg)
        axes = [place[1:] for place in tiling.places]
        self._seen = tiling, Mover(self._buffer, self._start, tiling.dtype, axes)
        super()._set_shape(shape, dtype)

    @property
    def _start(self) -> int:
        """What boxes are moved from: an offset in the buffer."""
        return self._offset

    @property
    def tiling(self) -> Tiling:
        """How the array lies."""
        return self._seen[0]

    @property
    def mover(self) -> Mover:
        """What moves boxes of items."""
        return self._seen[1]

    def tile_ranges(self, start: int, stop: int) -> NDArray[np.int64]:
        """Find the runs of tiles that may hold something, between two numbers: shape (n, 2)."""
        nbytes = self.tiling.tile_nbytes
        found = self._buffer.extents(self._offset + start * nbytes, (stop - start) * nbytes)
        return item_ranges(found - self._offset, nbytes)

    def window_of(self, number: int, shape: tuple[int, ...]) -> NDArray[Any]:
        """Make a window of the first items of a tile along each axis."""
        tiling = self.tiling
        offset = self._offset + number * tiling.tile_nbytes
        return self._buffer.window(offset, shape, tiling.dtype, strides=tiling.item_steps)

    def read_item(self, place: int) -> Any:
        """Read one item."""
        return self._buffer.read_plain(self._offset + place, self.tiling.dtype)

    def write_item(self, place: int, value: Any) -> None:
        """Write one item."""
        self._buffer.write_plain(self._offset + place, value, self.tiling.dtype)

    def gather(self, places: NDArray[np.int64], dtype: Any) -> NDArray[Any]:
        """Copy items."""
        return self._buffer.gather(places + self._offset, dtype)

    def scatter(self, places: NDArray[np.int64], items: NDArray[Any]) -> None:
        """Write items."""
        self._buffer.scatter(places + self._offset, items)

    def drop(self, sides: Sequence[range]) -> None:
        """Set a box of tiles to zero, and give back what they took."""
        steps = self.tiling.tile_steps
        rows, row = sides[:-1], sides[-1] if sides else range(1)
        for outer in product(*rows):
            first = sum(i * step for i, step in zip((*outer, row.start), steps, strict=False))
            self._buffer._clear(self._offset + first, len(row) * self.tiling.tile_nbytes)

    def check_unpinned(self, start: int, stop: int, inside: int, nbytes: int) -> None:
        """Raise BufferError if a window shows some bytes of each of some tiles."""
        tile = self.tiling.tile_nbytes
        try:
            self._buffer._check_unpinned(self._offset + start * tile, (stop - start) * tile)
        except BufferError:
            # Tile by tile: a window of other bytes of them is no hindrance.
            for number in range(start, stop):
                self._buffer._check_unpinned(self._offset + number * tile + inside, nbytes)

    def forget(self, index: Index) -> None:
        """Leave to the system's cache what was read of a file."""
        if self._is_own_memory():
            return
        steps, tiles = self.tiling.tile_steps, self.tiling.tiles
        first = sum(
            side.start // n * step for side, n, step in zip(index, tiles, steps, strict=True)
        )
        last = sum(
            (side.stop - 1) // n * step for side, n, step in zip(index, tiles, steps, strict=True)
        )
        nbytes = last - first + self.tiling.tile_nbytes
        self._buffer._forget(self._offset + first, nbytes)

    def chunks(self, most: int) -> Iterator[NDArray[Any]]:
        """Go through all that is stored of an array whose tiles hold nothing but its items."""
        tiling = self.tiling
        size = prod(tiling.grid) * prod(tiling.tiles)
        own = self._is_own_memory()
        flat = Blocks(
            self._buffer, self._offset, (size,), tiling.dtype, "C", most, in_files=not own
        )
        return flat.chunks()

    def pieces(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Go through the bytes of what is stored, by place; an array may be used again."""
        scratch = np.empty(PIECE, "u1")
        for start, stop in self.extents().tolist():
            for at in range(start, stop, PIECE):
                piece = scratch[: min(PIECE, stop - at)]
                self._buffer.read_into(self._offset + at, piece)
                yield at, piece

    def read_tiles(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """Copy whole tiles as items of so many bytes."""
        nbytes = self.tiling.tile_nbytes
        return self.gather(numbers * nbytes, f"V{nbytes}")

    def put(self, other: Records) -> None:
        """Copy all that is stored of an array that lies in tiles alike, and drop all else."""
        for at, piece in other.pieces():
            self._buffer.write_at(self._offset + at, piece)
        held = other.extents() + self._offset
        self._clear_gaps(self._offset, self.nbytes, held)
