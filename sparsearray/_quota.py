"""A limit of what an array may store."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ._process_lock import ProcessLock
from ._text import size as written

__all__ = ["Quota", "spans_of_items"]


class Stored(Protocol):
    """What the limit is for."""

    @property
    def nbytes_stored(self) -> int:
        """Bytes in extents."""

    def extents(self) -> NDArray[np.int64]:
        """Find them."""


class Quota:
    """
    Bytes that an array may store, and how many it does: at most so many, or exactly so many.

    Parameters
    ----------
    most : int
        The limit in bytes.
    page : int
        What is stored at least.
    """

    def __init__(self, most: int, page: int) -> None:
        self.most = most
        self._page = page
        self._used = 0  # at most
        self._lock = ProcessLock()

    def take(self, array: Stored, spans: Iterable[NDArray[np.int64]]) -> None:
        """
        Make sure of room for what is about to be written.

        Parameters
        ----------
        array : SparseArray
            Whose limit it is.
        spans : iterable of int64 arrays of shape (n, 2)
            Start and stop in bytes from the first item, sorted.

        Raises
        ------
        MemoryError
            It would store more than the limit.
        """
        with self._lock():
            self._take(array, spans)

    def recount(self, array: Stored) -> None:
        """Count what is stored, which was not asked for."""
        with self._lock():
            self._used = array.nbytes_stored

    def _take(self, array: Stored, spans: Iterable[NDArray[np.int64]]) -> None:
        pages = [self._pages(one) for one in spans]
        wanted = sum(int((one[:, 1] - one[:, 0]).sum()) for one in pages)
        if self._used + wanted > self.most:
            # What is given back, and what was there already, is counted only now.
            stored = self._pages(array.extents())
            self._used = int((stored[:, 1] - stored[:, 0]).sum())
            wanted -= sum(_overlap(one, stored) for one in pages)
            if self._used + wanted > self.most:
                msg = (
                    f"{written(wanted)} more would be stored than the {written(self._used)} that "
                    f"are, and max_nbytes is {written(self.most)}; trim() gives back what is zero"
                )
                raise MemoryError(msg)
        self._used += wanted

    def _pages(self, spans: NDArray[np.int64]) -> NDArray[np.int64]:
        """Round to whole pages, and join what touches."""
        if not len(spans):
            return spans
        page = self._page
        starts, stops = spans[:, 0] // page * page, -(-spans[:, 1] // page) * page
        first = np.append(True, starts[1:] > np.maximum.accumulate(stops)[:-1])
        at = np.flatnonzero(first)
        return np.stack([starts[at], np.maximum.reduceat(stops, at)], axis=1)


def _overlap(a: NDArray[np.int64], b: NDArray[np.int64]) -> int:
    """Count the bytes that lie in both of two lists of sorted, disjoint ranges."""
    if not len(b):
        return 0
    below = np.append(0, np.cumsum(b[:, 1] - b[:, 0]))

    def count(places: NDArray[np.int64]) -> NDArray[np.int64]:
        after = np.searchsorted(b[:, 0], places, "right")
        last = np.maximum(after - 1, 0)
        inside = np.clip(places - b[last, 0], 0, b[last, 1] - b[last, 0])
        found: NDArray[np.int64] = np.where(after > 0, below[last] + inside, 0)
        return found

    return int((count(a[:, 1]) - count(a[:, 0])).sum())


def spans_of_items(
    parts: tuple[Any, ...], shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int
) -> NDArray[np.int64]:
    """
    Find the bytes that an advanced index selects.

    Parameters
    ----------
    parts : tuple
        The index, with arrays, lists and numbers, slices, an ellipsis and newaxis.
    shape, strides, itemsize
        Of the array, in bytes.

    Returns
    -------
    ndarray of int64, shape (n, 2)
        Start and stop, sorted.

    Examples
    --------
    >>> spans_of_items(([3, 1], slice(0, 4, 2)), (5, 4), (4, 1), 1).tolist()
    [[4, 5], [6, 7], [12, 13], [14, 15]]
    >>> spans_of_items(([3, 1],), (5, 4), (4, 1), 1).tolist()
    [[4, 8], [12, 16]]
    """
    wanted: list[Any] = []
    for part in parts:
        if part is None:
            continue
        found = np.asarray(part) if isinstance(part, list | np.ndarray) else part
        is_mask = isinstance(found, np.ndarray) and found.dtype == bool and found.ndim
        wanted += np.nonzero(found) if is_mask else [found]
    if not any(part is Ellipsis for part in wanted):
        wanted.append(Ellipsis)
    at = next(i for i, part in enumerate(wanted) if part is Ellipsis)
    rest = len(shape) - sum(not isinstance(part, bool | np.bool_) for part in wanted) + 1
    wanted[at : at + 1] = [slice(None)] * rest
    wanted = [part for part in wanted if not isinstance(part, bool | np.bool_)]
    places: Any = np.zeros((), np.int64)
    outer: list[tuple[int, int, int]] = []
    for part, n, step in zip(wanted, shape, strides, strict=True):
        if isinstance(part, slice):
            side = range(n)[part]
            outer.append(
                (len(side), abs(side.step) * step, (min(side[0], side[-1]) if side else 0) * step)
            )
        else:
            places = places + np.asarray(part) % n * step
    run = itemsize
    while outer and outer[-1][1] == run:
        count, _, first = outer.pop()
        places = places + first
        run *= count
    starts = np.unique(places)
    for count, step, first in outer:
        starts = (starts[:, np.newaxis] + first + np.arange(count) * step).reshape(-1)
    starts = np.sort(starts)
    return np.stack([starts, starts + run], axis=1) if run else np.empty((0, 2), np.int64)
