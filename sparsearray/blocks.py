"""Blocks: the populated boxes of an array, which all hole-aware work stands on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from itertools import islice, repeat
from math import prod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .buffer import SparseBuffer

__all__ = ["DEFAULT_NBYTES", "Blocks", "boxes", "item_ranges", "items_in", "join"]

DEFAULT_NBYTES = 16 << 20
_LARGE = 256 << 10  # bytes: a piece of a file that is worth a call to leave it to the system
_SMALL = 64 << 10  # bytes: an extent that costs less to copy with others than to look at alone
_AHEAD = 16 << 20  # bytes of files that are read ahead, as far as they lie in many places
_BEGINNING = 2 << 20  # bytes of each of them
_COPIED = 1 << 20  # bytes of small extents that are copied at once
_FEW = 8  # such copies that are not worth a thread
_READERS = 2  # threads that make them
_SEVERAL = 4  # large blocks of files that are worth a thread which fetches the next one
Index = tuple[slice, ...]


class Blocks(Iterator[tuple[Index, NDArray[Any]]]):
    """
    The populated boxes of an array in a buffer: an iterator of (index, ndarray).

    What lies in files is fetched before it is given out, so that a file which was cut short is an
    error and not the end of the process; and taken out of the process again afterwards.

    Parameters
    ----------
    buffer : SparseBuffer
        Where the array lies.
    offset : int
        Of its first item, in bytes.
    shape, dtype, order
        Of the array.
    most : int
        Items in a box, at most.
    in_files : bool
        Whether some of it may lie in files.
    writable : bool or None
        Of the windows; None: as the pages allow.
    extents : ndarray of int64, shape (n, 2), optional
        What may hold something, in bytes from the first item, for who knows.
    """

    def __init__(
        self,
        buffer: SparseBuffer,
        offset: int,
        shape: tuple[int, ...],
        dtype: np.dtype,
        order: Literal["C", "F"],
        most: int,
        *,
        in_files: bool,
        writable: bool | None = None,
        extents: NDArray[np.int64] | None = None,
    ) -> None:
        self._buffer = buffer
        self._offset = offset
        self._shape = shape
        self._dtype = dtype
        self._order: Literal["C", "F"] = order
        self._most = most
        self._in_files = in_files
        self._writable = writable
        nbytes = prod(shape) * dtype.itemsize
        self._extents = buffer.extents(offset, nbytes) - offset if extents is None else extents
        self._walk: Iterator[tuple[Index, NDArray[Any]]] | None = None

    def __iter__(self) -> Iterator[tuple[Index, NDArray[Any]]]:  # noqa: PYI034 - half the time
        if self._walk is None:
            # Of a copy: a generator that this held, and that held this, would keep the buffer
            # until Python looks for such cycles, and it does not count what is mapped.
            self._walk = copy(self)._find()
        return self._walk

    def __next__(self) -> tuple[Index, NDArray[Any]]:
        return next(iter(self))

    def _find(self) -> Iterator[tuple[Index, NDArray[Any]]]:
        shape, in_c = self._shape, self._order == "C"
        window = self._buffer.window(
            self._offset, shape, self._dtype, writable=self._writable, order=self._order
        )
        for ranges in self._prefetched(item_ranges(self._extents, self._dtype.itemsize)):
            for found in boxes(shape if in_c else shape[::-1], ranges, self._most):
                index = found if in_c else found[::-1]
                block = window[index] if index else window
                if self._in_files:
                    yield from self._fetched(index, block)
                else:
                    yield index, block

    def _prefetched(self, ranges: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Cut ranges of items into parts, and have each part read while the one before is used."""
        if not self._in_files:
            yield ranges
            return
        places = ranges * self._dtype.itemsize + self._offset
        sizes = places[:, 1] - places[:, 0]
        ends = np.cumsum(sizes)
        cuts = np.flatnonzero(np.diff(ends // _AHEAD)) + 1
        # Of a long range the system itself reads ahead.
        places[:, 1] = places[:, 0] + np.minimum(sizes, _BEGINNING)
        ahead = np.split(places, cuts)
        for i, part in enumerate(np.split(ranges, cuts)):
            for near in ahead[i : i + 2] if i == 0 else ahead[i + 1 : i + 2]:
                self._buffer._prefetch(near)
            yield part

    def _fetched(self, index: Index, block: NDArray[Any]) -> Iterator[tuple[Index, NDArray[Any]]]:
        self._fetch_block(block)
        yield index, block
        # It may have been looked at with zeros in it.
        self._buffer._raise_untold(self._place(block), block.nbytes, lost_only=True)
        self._leave_block(block)

    def _fetched_ahead(self, blocks: Iterator[NDArray[Any]]) -> Iterator[NDArray[Any]]:
        """Fetch each block, where there are some while the one before is used."""
        first = list(islice(blocks, _SEVERAL))
        if len(first) < _SEVERAL:
            for block in first:
                yield from (piece for _, piece in self._fetched((), block))
            return
        waiting = deque(first)
        pool = ThreadPoolExecutor(1, "sparsearray")
        try:
            fetched = pool.submit(self._fetch_block, waiting[0])
            while waiting:
                fetched.result()
                block = waiting.popleft()
                waiting.extend(islice(blocks, 1))
                if waiting:
                    fetched = pool.submit(self._fetch_block, waiting[0])
                yield block
                left = pool.submit(self._leave_block, block)
                self._buffer._raise_untold(self._place(block), block.nbytes, lost_only=True)
            left.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _place(self, block: NDArray[Any]) -> int:
        place: int = block.__array_interface__["data"][0] - self._buffer.address
        return place

    def _fetch_block(self, block: NDArray[Any]) -> None:
        self._buffer._fetch(self._place(block), block.nbytes)

    def _leave_block(self, block: NDArray[Any]) -> None:
        if block.nbytes >= _LARGE:
            self._buffer._forget(self._place(block), block.nbytes)

    def chunks(self) -> Iterator[NDArray[Any]]:
        """
        Go through the same items without their places: in arrays of any shape, in any order.

        Small extents are copied together: to call numpy for each costs more than its work on it.
        """
        extents, itemsize, page = self._extents, self._dtype.itemsize, self._buffer.page_size
        places = extents + self._offset
        small = (extents[:, 1] - extents[:, 0] <= _SMALL) & ~(places % page).any(axis=1)
        if page % itemsize:
            small[:] = False
        else:
            small &= extents[:, 0] % itemsize == 0
        window = self._buffer.window(
            self._offset, prod(self._shape), self._dtype, writable=self._writable
        )
        large = (
            window[at : min(at + self._most, stop)]
            for ranges in self._prefetched(item_ranges(extents[~small], itemsize))
            for start, stop in ranges.tolist()
            for at in range(start, stop, self._most)
        )
        yield from self._fetched_ahead(large) if self._in_files else large
        count = max(min(_COPIED, self._most * itemsize) // page, 1)
        for ranges in self._prefetched(extents[small] // itemsize):
            pages = _pages(ranges * itemsize + self._offset, page)
            parts = [pages[at : at + count] for at in range(0, len(pages), count)]
            for part in _ahead(lambda part: self._buffer.gather(part, f"V{page}"), parts):
                yield part.view(self._dtype)


def _ahead(
    work: Callable[[NDArray[np.int64]], NDArray[Any]], parts: list[NDArray[np.int64]]
) -> Iterator[NDArray[Any]]:
    """Do the work for each part, while what came of those before is used."""
    if len(parts) < _FEW:
        yield from map(work, parts)
        return
    pool = ThreadPoolExecutor(_READERS, "sparsearray")
    try:
        waiting = deque([pool.submit(work, part) for part in parts[: 2 * _READERS]])
        for part in parts[2 * _READERS :]:
            found = waiting.popleft().result()
            waiting.append(pool.submit(work, part))
            yield found
        for future in waiting:
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _pages(ranges: NDArray[np.int64], page: int) -> NDArray[np.int64]:
    """Cut ranges of whole pages into the places of single ones."""
    counts = (ranges[:, 1] - ranges[:, 0]) // page
    ends = np.cumsum(counts)
    steps = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
    places: NDArray[np.int64] = np.repeat(ranges[:, 0], counts) + steps * page
    return places


def join(ranges: NDArray[np.int64]) -> NDArray[np.int64]:
    """
    Join ranges that touch or overlap.

    Parameters
    ----------
    ranges : ndarray of int64, shape (n, 2)
        Start and stop, sorted by start.

    Examples
    --------
    >>> import numpy as np
    >>> join(np.array([[0, 2], [2, 4], [3, 9], [7, 8], [10, 11]]))
    array([[ 0,  9],
           [10, 11]])
    """
    if len(ranges) < 2:
        return ranges
    reach = np.maximum.accumulate(ranges[:, 1])
    first = np.concatenate([[True], ranges[1:, 0] > reach[:-1]])
    last = np.concatenate([first[1:], [True]])
    return np.stack([ranges[first, 0], reach[last]], axis=1)


def item_ranges(extents: NDArray[np.int64], itemsize: int) -> NDArray[np.int64]:
    """
    Turn ranges of bytes into ranges of items: of all that lie in them with at least one byte.

    Parameters
    ----------
    extents : ndarray of int64, shape (n, 2)
        Start and stop in bytes from the first item, sorted.
    itemsize : int
        In bytes.
    """
    ranges = extents // itemsize
    ranges[:, 1] = -(-extents[:, 1] // itemsize)
    return join(ranges)


def boxes(shape: tuple[int, ...], ranges: NDArray[np.int64], most: int) -> Iterator[Index]:
    """
    Cut ranges of items, in C order, into boxes.

    Parameters
    ----------
    shape : tuple of int
        Of the array, without axes of length 0.
    ranges : ndarray of int64, shape (n, 2)
        Start and stop in items, sorted and disjoint.
    most : int
        Items in a box, at most.

    Yields
    ------
    tuple of slices
        One for each axis.

    Examples
    --------
    >>> import numpy as np
    >>> for box in boxes((4, 5), np.array([[3, 16]]), 100):
    ...     print(box)
    (slice(0, 1, None), slice(3, 5, None))
    (slice(1, 3, None), slice(0, 5, None))
    (slice(3, 4, None), slice(0, 1, None))
    """
    if not shape:
        yield from repeat((), len(ranges))
        return
    row = shape[-1]
    rows, starts = np.divmod(ranges[:, 0], row)
    stops = ranges[:, 1] - rows * row
    simple = (stops <= row) & (stops - starts <= most)
    outer = np.unravel_index(rows, shape[:-1]) if len(shape) > 1 else ()
    sides = [(axis.tolist(), (axis + 1).tolist()) for axis in outer]
    sides.append((starts.tolist(), stops.tolist()))
    # The usual case, a few pages somewhere in a long row, takes no step of Python for each.
    usual = zip(*(map(slice, low, high) for low, high in sides), strict=True)
    at = 0
    for other in np.flatnonzero(~simple).tolist():
        yield from islice(usual, other - at)
        next(usual)
        at = other + 1
        start, stop = ranges[other].tolist()
        yield from _cut((), shape, start, stop, most)
    yield from usual


def _cut(
    prefix: Index, shape: tuple[int, ...], start: int, stop: int, most: int
) -> Iterator[Index]:
    r"""
    Cut one range of items into boxes.

    They are what is left of a row, whole rows, and the start of a row::

        . . . # #
        # # # # #
        # . . . .
    """
    items = prod(shape[1:])
    first, head = divmod(start, items)
    last, tail = divmod(stop, items)
    if len(shape) == 1:
        for i in range(start, stop, most):
            yield (*prefix, slice(i, min(i + most, stop)))
        return
    if head:
        end = items if first < last else tail
        yield from _cut((*prefix, slice(first, first + 1)), shape[1:], head, end, most)
        if first == last:
            return
        first += 1
    if items <= most:
        rest = tuple(slice(0, size) for size in shape[1:])
        step = most // items
        for i in range(first, last, step):
            yield (*prefix, slice(i, min(i + step, last)), *rest)
    else:
        for i in range(first, last):
            yield from _cut((*prefix, slice(i, i + 1)), shape[1:], 0, items, most)
    if tail:
        yield from _cut((*prefix, slice(last, last + 1)), shape[1:], 0, tail, most)


def items_in(max_nbytes: int | None, itemsize: int) -> int:
    """Find how many items a box may have; ValueError where not even one fits."""
    limit = DEFAULT_NBYTES if max_nbytes is None else max_nbytes
    if max_nbytes is not None and limit < max(itemsize, 1):
        msg = f"max_nbytes must be at least the item size of {itemsize} bytes, not {limit}"
        raise ValueError(msg)
    return max(limit // max(itemsize, 1), 1)
