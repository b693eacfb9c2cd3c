"""Chunks of a size that suits what is stored: of files, where nobody says how large."""

from __future__ import annotations

import os
from math import prod

from sparsearray._boxes import corners
from sparsearray._tiling import near_cube
from sparsearray.array import SparseArray
from sparsearray.stored import StoredArray

from ._cells import count_cells

__all__ = ["choose_chunks"]

_WASTE = 2  # times what the chunks take that take the least
_SPARE = 1 << 20  # bytes more than that, which nobody minds


def choose_chunks(array: StoredArray, most: int) -> tuple[int, ...]:
    """
    Choose the largest chunks that take about what those take that take the least.

    All of a chunk is written that holds anything, so that small ones take less where little is
    stored here and there; large ones are fewer, and read sooner.

    Parameters
    ----------
    array : SparseArray or TiledArray
        What is written. It has items.
    most : int
        Bytes of a chunk, about; of tiles that are larger, one tile.

    Returns
    -------
    tuple of int
        Some tiles; or as near a cube as the dtype allows, or a run of what follows
        each other in memory.

    Examples
    --------
    >>> import sparsearray
    >>> a = sparsearray.zeros((1 << 20, 1 << 20), "u1")
    >>> for i in range(256):
    ...     a[i << 12, i << 12] = 1
    >>> choose_chunks(a, 1 << 18)
    (1, 8192)
    >>> b = sparsearray.zeros((1000, 1000))
    >>> b[...] = 1
    >>> choose_chunks(b, 1 << 18)
    (128, 256)
    """
    starts, stops = corners(list(array._stored_boxes()), array.ndim)
    found = _candidates(array, most)
    sizes = [prod(cell) * array.itemsize for cell in found]
    counts = [count_cells(starts, stops, array.shape, cell) for cell in found]
    written = [count * size for count, size in zip(counts, sizes, strict=True)]
    limit = max(_WASTE * min(written), min(written) + _SPARE)
    return next(cell for cell, nbytes in zip(found, written, strict=True) if nbytes <= limit)


def _candidates(array: StoredArray, most: int) -> list[tuple[int, ...]]:
    """List chunks, large ones first, and of each size the cube first."""
    itemsize = array.itemsize
    if isinstance(array, SparseArray):
        axes = list(range(array.ndim))
        if array.order == "C":
            axes.reverse()
        halvings = (most // os.sysconf("SC_PAGESIZE")).bit_length()
        items = [max((most >> k) // itemsize, 1) for k in range(max(halvings, 1))]
        return [
            cell for n in items for cell in (near_cube(array.shape, n), _run(array.shape, axes, n))
        ]
    tiles: tuple[int, ...] = array.tiles
    sides = [min(tile, n) for tile, n in zip(tiles, array.shape, strict=True)]
    found = [tuple(sides)]
    while prod(sides) * itemsize < most:
        free = [k for k, n in enumerate(array.shape) if sides[k] < n]
        if not free:
            break
        axis = min(free, key=lambda k: sides[k])
        sides[axis] = min(2 * sides[axis], array.shape[axis])
        found.append(tuple(sides))
    return found[::-1]


def _run(shape: tuple[int, ...], axes: list[int], items: int) -> tuple[int, ...]:
    """Take so many items that follow each other in memory; the fastest axis comes first."""
    sides = [1] * len(shape)
    for k in axes:
        sides[k] = min(items, shape[k])
        items //= sides[k]
        if not items:
            break
    return tuple(sides)
