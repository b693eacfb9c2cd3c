"""One layout made of another, without filling the holes."""

from __future__ import annotations

from typing import Any

from ._progress import progress_bar
from .array import SparseArray
from .stored import StoredArray
from .tiled import TiledArray

__all__ = ["retile"]


def retile(array: StoredArray, tiles: Any, *, progress: bool = False) -> SparseArray | TiledArray:
    """
    Copy what is stored into an array of other tiles, in memory.

    Parameters
    ----------
    array : SparseArray or TiledArray
        Of which.
    tiles : int, tuple of ints, 'auto' or None
        As of `zeros`; None is C order.
    progress : bool
        Show a progress bar (needs tqdm).
    """
    made: SparseArray | TiledArray
    if tiles is None:
        made = SparseArray._zeros(array.shape, array.dtype)
    else:
        made = TiledArray._zeros(array.shape, array.dtype, tiles)
    with progress_bar("retile", array.nbytes_stored, shown=progress) as done:
        for box, block in array.blocks():
            made._write_filled(box, block)
            done(block.nbytes)
    return made
