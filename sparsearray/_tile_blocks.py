"""The populated boxes of an array that lies tile by tile."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._boxes import corners
from .blocks import boxes

if TYPE_CHECKING:
    from ._records import Records

__all__ = ["TileBlocks", "merge", "stored_tiles"]

Index = tuple[slice, ...]
_LARGE = 256 << 10  # bytes: a piece of a file that is worth a call to leave it to the system


class TileBlocks(Iterator[tuple[Index, NDArray[Any]]]):
    """
    The populated boxes of an array that lies tile by tile: an iterator of (index, ndarray).

    Tiles that lie side by side are one box, which is copied when it is asked for.

    Parameters
    ----------
    records : Records
        The tiles.
    most : int
        Items in a box, at most.
    """

    def __init__(self, records: Records, most: int) -> None:
        self._records = records
        self._most = most
        self._walk: Iterator[tuple[Index, NDArray[Any]]] | None = None

    def __iter__(self) -> Iterator[tuple[Index, NDArray[Any]]]:  # noqa: PYI034 - as Blocks
        if self._walk is None:
            self._walk = copy(self)._find()  # for the reason that Blocks has
        return self._walk

    def __next__(self) -> tuple[Index, NDArray[Any]]:
        return next(iter(self))

    def indices(self) -> Iterator[Index]:
        """Go through the boxes without reading them."""
        tiling = self._records.tiling
        starts, stops = stored_tiles(self._records)
        starts = starts * tiling.tiles
        stops = np.minimum(stops * tiling.tiles, tiling.shape)
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            yield from _split(start, stop, tiling.tiles, self._most)

    def _find(self) -> Iterator[tuple[Index, NDArray[Any]]]:
        records = self._records
        for index in self.indices():
            block = records.mover.read([range(side.start, side.stop) for side in index])
            block.flags.writeable = False  # what is written to it would be lost
            yield index, block
            if block.nbytes >= _LARGE:
                records.forget(index)

    def chunks(self) -> Iterator[NDArray[Any]]:
        """Go through the same items without their places: in arrays of any shape, in any order."""
        if self._records.tiling.is_flat:
            yield from self._records.chunks(self._most)
        else:
            yield from (block for _, block in self)


def stored_tiles(
    records: Records, rows: slice = slice(None)
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """
    Find boxes of tiles that may hold something.

    Parameters
    ----------
    records : Records
        The tiles.
    rows : slice
        Of the first axis, in tiles: where to look.

    Returns
    -------
    starts, stops : ndarray of int64, shape (n, ndim)
        In tiles, in C order; disjoint.
    """
    grid = records.tiling.grid
    if not prod(grid):
        return np.empty((0, len(grid)), np.int64), np.empty((0, len(grid)), np.int64)
    start, stop, _ = rows.indices(grid[0]) if grid else (0, 1, 1)
    row = prod(grid[1:])
    ranges = records.tile_ranges(start * row, stop * row)
    starts, stops = corners(list(boxes(grid, ranges, prod(grid))), len(grid))
    for axis in range(len(grid) - 2, -1, -1):
        starts, stops = merge(starts, stops, axis)
    order = np.lexsort(starts.T[::-1]) if len(grid) else np.arange(len(starts))
    return starts[order], stops[order]


def merge(
    starts: NDArray[np.int64], stops: NDArray[np.int64], axis: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """
    Join disjoint boxes that follow each other along an axis, and are alike along all others.

    Examples
    --------
    >>> starts, stops = np.array([[0, 3], [1, 3], [3, 3]]), np.array([[1, 5], [2, 5], [4, 5]])
    >>> for corner in merge(starts, stops, 0):
    ...     print(corner.tolist())
    [[0, 3], [3, 3]]
    [[2, 5], [4, 5]]
    """
    if len(starts) < 2:
        return starts, stops
    others = np.delete(np.concatenate([starts, stops], axis=1), [axis, starts.shape[1] + axis], 1)
    order = np.lexsort((starts[:, axis], *others.T))
    starts, stops, others = starts[order], stops[order].copy(), others[order]
    alike = (others[1:] == others[:-1]).all(axis=1)
    first = np.flatnonzero(np.append(True, ~alike | (starts[1:, axis] != stops[:-1, axis])))
    last = np.append(first[1:], len(starts)) - 1
    ends = stops[last, axis]
    starts, stops = starts[first], stops[first]
    stops[:, axis] = ends
    return starts, stops


def _split(start: list[int], stop: list[int], tiles: tuple[int, ...], most: int) -> Iterator[Index]:
    """Cut a box in halves, between tiles as long as there is more than one, until it is small."""
    sides = [high - low for low, high in zip(start, stop, strict=True)]
    if prod(sides) <= most:
        yield tuple(map(slice, start, stop))
        return
    counts = [-(-side // tile) for side, tile in zip(sides, tiles, strict=True)]
    several = max(counts) > 1
    longest = counts if several else sides
    axis = longest.index(max(longest))
    half = counts[axis] // 2 * tiles[axis] if several else sides[axis] // 2
    middle = start[axis] + half
    yield from _split(start, [*stop[:axis], middle, *stop[axis + 1 :]], tiles, most)
    yield from _split([*start[:axis], middle, *start[axis + 1 :]], stop, tiles, most)
