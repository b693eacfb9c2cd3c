"""Which cells of a regular grid, such as chunks of a file, hold something of an array."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from math import prod

import numpy as np
from numpy.typing import NDArray

from sparsearray._boxes import Index, corners, strides_of

__all__ = ["boxes_of_cells", "count_cells", "grid_of", "touched_cells", "unique"]

_MANY = 1 << 16  # boxes looked at together
_LISTED = 1 << 21  # cells that are listed to be counted


def grid_of(shape: tuple[int, ...], cell: tuple[int, ...]) -> tuple[int, ...]:
    """Tell how many cells there are along each axis, those at the end that are cut short too."""
    return tuple(-(-n // side) for n, side in zip(shape, cell, strict=True))


def touched_cells(
    boxes: Iterator[Index], shape: tuple[int, ...], cell: tuple[int, ...]
) -> NDArray[np.int64]:
    """
    Find the cells that boxes touch.

    Parameters
    ----------
    boxes : iterator of tuples of slices
        In the array.
    shape, cell : tuple of int
        Of the array, and of a cell.

    Returns
    -------
    ndarray of int64
        Their numbers in C order of the grid; sorted, each once.

    Examples
    --------
    >>> boxes = [(slice(0, 1), slice(3, 9)), (slice(5, 6), slice(0, 1))]
    >>> touched_cells(iter(boxes), (6, 10), (2, 4))
    array([0, 1, 2, 6])
    """
    grid, sides = grid_of(shape, cell), np.array(cell, np.int64)
    found = [np.empty(0, np.int64)]
    while some := list(islice(boxes, _MANY)):
        starts, stops = corners(some, len(shape))
        found.append(unique(_expand(starts // sides, -(-stops // sides), grid)))
    return unique(np.concatenate(found))


def count_cells(
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    shape: tuple[int, ...],
    cell: tuple[int, ...],
) -> int:
    """
    Count the cells that boxes touch: where those are millions, those that boxes share repeatedly.

    Parameters
    ----------
    starts, stops : ndarray of int64, shape (boxes, axes)
        Where boxes begin and end.
    shape, cell : tuple of int
        Of the array, and of a cell.

    Examples
    --------
    >>> count_cells(np.array([[0, 3], [5, 0]]), np.array([[1, 9], [6, 1]]), (6, 10), (2, 4))
    4
    """
    if not len(starts):
        return 0
    sides = np.array(cell, np.int64)
    first, last = starts // sides, -(-stops // sides)
    total = int((last - first).prod(axis=1).sum())
    return total if total > _LISTED else len(unique(_expand(first, last, grid_of(shape, cell))))


def unique(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sort numbers, and keep one of each; `numpy.unique` hashes them, which takes longer."""
    ordered = np.sort(numbers)
    found: NDArray[np.int64] = ordered[
        np.append(ordered[:1] == ordered[:1], ordered[1:] != ordered[:-1])
    ]
    return found


def _expand(
    starts: NDArray[np.int64], stops: NDArray[np.int64], grid: tuple[int, ...]
) -> NDArray[np.int64]:
    """Number all cells of boxes of cells."""
    extents = stops - starts
    counts = extents.prod(axis=1)
    ends = np.cumsum(counts)
    which = np.repeat(np.arange(len(counts)), counts)
    rank = np.arange(ends[-1]) - np.repeat(ends - counts, counts)
    numbers = np.zeros(len(rank), np.int64)
    for axis, step in reversed(list(enumerate(strides_of(grid).tolist()))):
        rank, place = np.divmod(rank, extents[which, axis])
        numbers += (place + starts[which, axis]) * step
    return numbers


def boxes_of_cells(
    numbers: NDArray[np.int64], shape: Sequence[int], cell: Sequence[int]
) -> Iterator[Index]:
    """
    Make the box of each cell, cut short where the array ends.

    Examples
    --------
    >>> list(boxes_of_cells(np.array([2]), (6, 10), (2, 4)))
    [(slice(0, 2, None), slice(8, 10, None))]
    """
    grid = grid_of(tuple(shape), tuple(cell))
    if not prod(grid):
        return
    if not grid:
        yield from (() for _ in numbers)
        return
    starts = np.stack(np.unravel_index(numbers, grid), axis=1) * np.array(cell, np.int64)
    stops = np.minimum(starts + np.array(cell, np.int64), np.array(shape, np.int64))
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        yield tuple(map(slice, start, stop))
