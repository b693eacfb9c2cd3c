"""
Boxes: what arrays with holes are made of, found by place and put together.

Arrays are known here, and in all modules that stand on this one, by ``shape``, ``dtype`` and
``blocks()`` alone: `Blocked`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Blocked",
    "Boxes",
    "corners",
    "dense",
    "first_hole",
    "flat_bounds",
    "flat_numbers",
    "is_blocked",
    "reader",
    "stand_in",
    "strides_of",
]

Index = tuple[slice, ...]
Array = NDArray[Any]


class Blocked(Protocol):
    """What an array offers for this module."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Items along each axis."""

    @property
    def dtype(self) -> np.dtype:
        """The type of an item."""

    @property
    def ndim(self) -> int:
        """Number of axes."""

    @property
    def size(self) -> int:
        """Number of items."""

    @property
    def nbytes(self) -> int:
        """Bytes of all items, stored or not."""

    def blocks(self, *, max_nbytes: int | None = None) -> Iterator[tuple[Index, Array]]:
        """Go through disjoint boxes; what is in none of them is zero."""


def is_blocked(array: object) -> bool:
    """Tell whether an argument has holes: a sparse array, no ndarray and no list."""
    return hasattr(array, "blocks")


def dense(array: Any) -> Array:
    """Make an ndarray of an array that is small, or has no items."""
    made = np.zeros(array.shape, array.dtype)
    for index, block in array.blocks():
        made[index] = block
    return made


def stand_in(array: Any) -> Array:
    """Make an ndarray of the same shape and dtype that takes no memory, and holds zeros."""
    return np.broadcast_to(np.zeros((), array.dtype), array.shape)


class Boxes:
    """
    The boxes of an array, to be found by where they lie.

    It holds views of all of them, not copies: some 300 bytes a box.

    Parameters
    ----------
    array : Blocked
        Any.
    """

    def __init__(self, array: Any) -> None:
        self._dtype, self._ndim = array.dtype, array.ndim
        found = list(array.blocks())
        starts, stops = corners([index for index, _ in found], array.ndim)
        lows, highs = flat_bounds(starts, stops, array.shape)
        order = np.argsort(lows, kind="stable")
        self._blocks = [found[k][1] for k in order.tolist()]
        self._starts, self._stops, self._lows = starts[order], stops[order], lows[order]
        # What comes before may still reach further, where boxes are no ranges of memory.
        self._reach = np.maximum.accumulate(highs[order]) if len(order) else highs
        self._shape = array.shape
        self._same: dict[tuple[int, ...], Array] = {
            tuple([s.start for s in index]): block for index, block in found
        }

    def __call__(self, index: Index) -> Array:
        """Put together the items of a box: a view where one box has them all, else a copy."""
        block = self._same.get(tuple([s.start for s in index]))
        if block is not None and block.shape == tuple([s.stop - s.start for s in index]):
            return block  # two arrays that were filled alike
        start, stop = corners([index], self._ndim)
        low, high = flat_bounds(start, stop, self._shape)
        first = int(np.searchsorted(self._reach, low[0], "right"))
        last = int(np.searchsorted(self._lows, high[0], "left"))
        touch = (self._starts[first:last] < stop) & (self._stops[first:last] > start)
        places = np.flatnonzero(touch.all(axis=1)) + first
        made = None
        for k in places.tolist():
            inner = np.maximum(self._starts[k], start[0])
            outer = np.minimum(self._stops[k], stop[0])
            part = self._blocks[k][_slices(inner - self._starts[k], outer - self._starts[k])]
            if len(places) == 1 and (inner == start[0]).all() and (outer == stop[0]).all():
                return part  # type: ignore[no-any-return]
            if made is None:
                made = np.zeros(tuple((stop - start)[0].tolist()), self._dtype)
            made[_slices(inner - start[0], outer - start[0])] = part
        if made is None:
            made = np.zeros(tuple((stop - start)[0].tolist()), self._dtype)
        return made


def _slices(starts: NDArray[np.int64], stops: NDArray[np.int64]) -> Index:
    return tuple(map(slice, starts.tolist(), stops.tolist()))


def corners(indices: Sequence[Index], ndim: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Turn indices of n boxes into starts and stops, each of shape (n, ndim)."""
    starts = np.array([[s.start for s in index] for index in indices], np.int64)
    stops = np.array([[s.stop for s in index] for index in indices], np.int64)
    return starts.reshape(len(indices), ndim), stops.reshape(len(indices), ndim)


def strides_of(shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the step of each axis in C order, in items."""
    return np.array([prod(shape[k + 1 :]) for k in range(len(shape))], np.int64)


def flat_numbers(places: Sequence[NDArray[Any]], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Number items in C order by their places along each axis, of any integer dtype."""
    found = np.zeros(len(places[0]), np.int64)
    for column, step in zip(places, strides_of(shape).tolist(), strict=True):
        found += column.astype(np.int64, copy=False) * step
    return found


def flat_bounds(
    starts: NDArray[np.int64], stops: NDArray[np.int64], shape: tuple[int, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the first item of each box in C order, and the one after its last."""
    steps = strides_of(shape)
    return starts @ steps, (stops - 1) @ steps + 1


def reader(array: Any, shape: tuple[int, ...]) -> Callable[[Index], Array]:
    """
    Return what gives the items of a box: of an ndarray that broadcasts, or of a Blocked.

    Raises
    ------
    ValueError
        The shapes do not fit.
    """
    if not is_blocked(array):
        return np.broadcast_to(array, shape).__getitem__
    if tuple(array.shape) != tuple(shape):
        msg = f"a sparse array of shape {array.shape} cannot be repeated to {shape}"
        raise ValueError(msg)
    return array._read_box if hasattr(array, "_read_box") else Boxes(array)


def first_hole(
    starts: NDArray[np.int64], stops: NDArray[np.int64], shape: tuple[int, ...]
) -> int | None:
    """
    Find the first item in C order that no box covers.

    Parameters
    ----------
    starts, stops : ndarray of int64, shape (n, ndim)
        Disjoint boxes in any order.
    shape : tuple of int
        Of the array.

    Returns
    -------
    int or None
        Its number in C order; None where boxes cover everything.

    Examples
    --------
    >>> first_hole(np.array([[0, 0], [1, 0]]), np.array([[1, 3], [2, 1]]), (4, 3))
    4

    Notes
    -----
    Between two edges of boxes along an axis all slices are covered alike, so that a slice is full
    when the boxes that meet it add up to its size. The first that is not is looked into.
    """
    place = 0
    for k, n in enumerate(shape):
        inner = prod(shape[k + 1 :])
        volumes = np.prod(stops[:, k + 1 :] - starts[:, k + 1 :], axis=1, dtype=np.int64)
        edges = np.concatenate([starts[:, k], stops[:, k]])
        points, which = np.unique(edges, return_inverse=True)
        change = np.zeros(len(points), np.int64)
        np.add.at(change, which.reshape(-1), np.concatenate([volumes, -volumes]))
        low = points[(np.cumsum(change) < inner) & (points < n)]
        at = 0 if not len(points) or points[0] > 0 else int(low[0]) if len(low) else None
        if at is None:
            # Only the outermost axis can be full: further in, a slice with a hole was chosen.
            return None
        place = place * n + at
        meet = (starts[:, k] <= at) & (stops[:, k] > at)
        starts, stops = starts[meet], stops[meet]
    return place
