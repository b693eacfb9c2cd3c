"""`Ring`: the newest items of a row without end, any of them in a row one contiguous window."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ._binding import (
    BYTES,
    describe,
    ffi,
    from_buffer,
    index,
    lib,
    pointer,
)
from ._closing import Closing
from ._layout import layout, reserve
from ._ring_memory import CLAIMED, PUBLISHED, RingMemory
from .errors import ClosedError, OutOfBoundsError, OverrunError
from .ring_reader import RingReader
from .shared import SharedMemory, shared_memory

__all__ = ["Ring", "ring"]

_push, _find_last = lib.sa_push_to_ring, lib.sa_find_last


class Ring(Closing):
    """
    The newest items of a row without end, made by `ring`.

    Items are numbered from 0 on, in the order in which they were pushed. The newest `count` of them
    stay, and any of these in a row are one plain, contiguous array, across the end of the memory
    too: it is mapped twice, side by side.

    One ring pushes, of one process; several threads take turns at it. Any number of others, which
    are attached to the same memory, read, in threads and processes.
    Nobody ever waits for a reader, so what is too old is gone: `last` and `window` show memory that
    will be written over, `read` and readers make copies and make sure that these are whole.

    Attributes
    ----------
    count : int
        How many items stay: what was asked for, rounded up so that they fill whole pages.
    dtype : numpy.dtype
        Of an item.

    Notes
    -----
    It pickles to a child of `multiprocessing`, which then has the same ring, and over a Unix socket
    `SharedMemory.send` takes `memory`. Attached is to be with the same dtype and count.

    A process that ends in the middle of a push leaves a whole ring behind, without these items.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsearray
    >>> ring = sparsearray.ring(1000, "f8")
    >>> ring
    <Ring of 1024 float64 (1000 asked for), 0 pushed>
    >>> for i in range(100):
    ...     ring.push(np.arange(50) + 50 * i)
    >>> ring.pushed, ring.oldest
    (5000, 3976)
    >>> ring.last(3)
    array([4997., 4998., 4999.])
    >>> ring.window(4094, 4)  # across the end of the memory
    array([4094., 4095., 4096., 4097.])
    >>> ring.window(3000, 10)
    Traceback (most recent call last):
        ...
    sparsearray.errors.OverrunError: items 3000 to 3010: the oldest that is left is 3976
    """

    __slots__ = (
        "__weakref__",
        "_asked",
        "_base",
        "_buffer",
        "_cell",
        "_inner",
        "_items",
        "_memory",
        "_reservation",
        "_start",
        "count",
        "dtype",
    )

    _items: NDArray[Any] | None

    def __init__(
        self, memory: SharedMemory, made: RingMemory, asked: int, name: str | None
    ) -> None:
        self._memory = memory
        self.count, self.dtype, self._asked = made.count, made.dtype, asked
        self._inner, self._base = layout((), made.dtype)
        size = made.nbytes
        self._buffer = reserve(made.stop + size, name)
        self._buffer.map_file(0, made.stop, memory, writable=True)
        self._buffer.map_file(made.stop, size, memory, made.start, writable=True)
        self._reservation = self._buffer._reservation
        self._start = made.start
        self._show()

    def _show(self) -> None:
        """
        Make the one window that all others are parts of: a slice costs less than a window.

        Native calls go by pointers. While one runs, its caller keeps `_items`, the pin of them all.
        """
        buffer, start, size = self._buffer, self._start, self.dtype.itemsize
        raw = buffer.window(0, buffer.nbytes, writable=False)
        address = buffer.address
        facts = {
            "claimed": ffi.cast("uint64_t *", address + CLAIMED),
            "published": ffi.cast("uint64_t *", address + PUBLISHED),
            "items": ffi.cast("char *", address + start),
            "itemsize": size,
            "count": self.count,
        }
        self._cell = ffi.new("sa_ring *", facts)
        shape = 2 * self.count, *self._inner
        self._items = np.ndarray(shape, self._base, raw, start)

    # What it is

    @property
    def memory(self) -> SharedMemory:
        """What the items and counters lie in, to be sent to other processes. The ring closes it."""
        return self._memory

    @property
    def name(self) -> str | None:
        """As given."""
        return self._buffer.name

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._buffer.closed

    @property
    def pushed(self) -> int:
        """
        How many items were ever pushed: the number of the next one.

        Raises
        ------
        ClosedError
            The ring is closed.
        """
        kept = self._pinned()
        pushed: int = lib.sa_count_pushed(self._cell)
        del kept
        return pushed

    @property
    def oldest(self) -> int:
        """
        The number of the oldest item that nobody has begun to write over.

        Asked after a window was worked on, it tells whether what was seen was whole: it is no more
        than the number of the first item.

        Raises
        ------
        ClosedError
            The ring is closed.
        """
        kept = self._pinned()
        oldest: int = lib.sa_find_oldest(self._cell)
        del kept
        return oldest

    def __len__(self) -> int:
        """How many items are there: from `oldest` on up to `pushed`."""
        return max(self.pushed - self.oldest, 0)

    def _pinned(self) -> NDArray[Any]:
        """Return what keeps the memory where it is, as long as the caller has it."""
        items = self._items
        if items is None:
            msg = "the ring is closed"
            raise ClosedError(msg)
        return items

    # Pushing

    def push(self, items: ArrayLike) -> None:
        """
        Add items; as many of the oldest go. Of more than `count` at once the last ones stay.

        Parameters
        ----------
        items : array_like
            One item, or a row of them. Converted to the ring's dtype as by an assignment.

        Raises
        ------
        ValueError, TypeError
            They cannot be converted, or their shape is not that of items.
        ClosedError
            The ring is closed.
        """
        found = items
        if (
            type(found) is not np.ndarray
            or found.dtype is not self._base
            or found.ndim != 1
            or self._inner
        ):
            found = self._as_items(items)
        try:
            data = from_buffer(BYTES, found)
        except (ValueError, BufferError):  # not contiguous, or of no buffer format
            found = np.ascontiguousarray(found)
            data = pointer(found, writable=False)
        kept = self._items
        if kept is None:
            kept = self._pinned()  # raises
        code = _push(self._reservation, self._cell, data, len(found))
        del kept  # which the traceback of an error would keep
        if code:
            msg = f"push: no memory for a copy of {len(found)} items of the ring itself"
            raise MemoryError(msg)

    def _as_items(self, items: ArrayLike) -> NDArray[Any]:
        """Make a row of items of what is pushed."""
        found = np.asarray(items, None if isinstance(items, np.ndarray) else self._base)
        if found.dtype != self._base:
            found = found.astype(self._base)
        if found.shape == self._inner:
            found = found[np.newaxis]
        if found.shape[1:] != self._inner or found.ndim != 1 + len(self._inner):
            each = f"each of shape {self._inner}" if self._inner else "which have no axes"
            msg = f"push: an array of shape {found.shape} is no row of items, {each}"
            raise ValueError(msg)
        return found

    # Looking

    def last(self, n: int | None = None) -> NDArray[Any]:
        """
        Show the newest items, without a copy.

        Parameters
        ----------
        n : int, optional
            How many; all that are there by default.

        Returns
        -------
        ndarray
            Read-only. It shows memory, not items: pushes write over what it shows when they come
            round. `oldest` tells.

        Raises
        ------
        OutOfBoundsError
            So many were not pushed yet.
        OverrunError
            More than `count`, or they are just being written over.
        ClosedError
            The ring is closed.
        """
        items = self._items
        if items is None:
            items = self._pinned()  # raises
        wanted = len(self) if n is None else n
        try:
            at = _find_last(self._cell, wanted)
            while at < 0 and n is None:  # a push came in between
                wanted = len(self)
                at = _find_last(self._cell, wanted)
        except OverflowError:
            at = -1
        if at < 0:
            del items  # which the traceback would keep
            raise self._missing(self.pushed - index(wanted), index(wanted))
        return items[at : at + wanted]

    def window(self, start: int, n: int) -> NDArray[Any]:
        """
        Show items by their numbers, without a copy.

        Parameters
        ----------
        start : int
            Number of the first one.
        n : int
            How many.

        Returns
        -------
        ndarray
            As of `last`.

        Raises
        ------
        OutOfBoundsError
            Some of them were not pushed yet.
        OverrunError
            Some of them are gone.
        ValueError
            A negative argument.
        ClosedError
            The ring is closed.
        """
        at = self._check(start, n) % self.count
        return self._pinned()[at : at + n]

    def read(self, start: int, n: int) -> NDArray[Any]:
        """
        Copy items by their numbers.

        Parameters
        ----------
        start, n : int
            As of `window`.

        Returns
        -------
        ndarray
            Owned, and whole: no push came in between.

        Raises
        ------
        OutOfBoundsError, OverrunError, ValueError, ClosedError
            As `window`; also where they were written over while they were copied.
        """
        made, oldest = self._copy(self._check(start, n), n)
        if start < oldest:
            raise _overrun(start, n, oldest)
        return made

    def _check(self, start: int, n: int) -> int:
        """Raise an error for items that are not there; return `start`."""
        start, n = index(start), index(n)
        if start < 0 or n < 0:
            msg = f"{n} items from {start} on: negative"
            raise ValueError(msg)
        if start + n > self.pushed or start < self.oldest:
            raise self._missing(start, n)
        return start

    def _copy(self, start: int, n: int) -> tuple[NDArray[Any], int]:
        """Copy items that are published; and the number of the first that is good."""
        made: NDArray[Any] = np.empty((n, *self._inner), self._base)
        kept = self._pinned()
        oldest: int = lib.sa_read_ring(self._cell, start, n, pointer(made, writable=True))
        del kept
        return made, oldest

    def _missing(self, start: int, n: int) -> Exception:
        """Make the error for items that are not there."""
        if n < 0:
            return ValueError(f"{n} items: negative")
        pushed = self.pushed
        if start < 0 or start + n > pushed:
            return OutOfBoundsError(f"{n} items up to number {start + n}: {pushed} were pushed")
        return _overrun(start, n, self.oldest)

    def reader(self, start: int | None = None) -> RingReader:
        """
        Make a reader, which has a place of its own.

        Parameters
        ----------
        start : int, optional
            Number of the first item that it will read: by default the oldest that is there.
            `pushed` is for what comes from now on.

        Raises
        ------
        ValueError
            `start` is negative.
        ClosedError
            The ring is closed.
        """
        return RingReader(self, self.oldest if start is None else index(start))

    # Life

    def close(self) -> None:
        """
        Give the memory back. More than once is fine.

        Raises
        ------
        BufferError
            Windows are alive; the ring stays open.
        """
        if self.closed:
            return
        self._items = None
        try:
            self._buffer.close()
        except BufferError:
            self._show()
            raise
        self._memory.close()

    def __copy__(self) -> NoReturn:
        msg = "a Ring cannot be copied: ring.read makes an array of what it holds"
        raise TypeError(msg)

    def __deepcopy__(self, _memo: object) -> NoReturn:
        self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        if self.closed:
            msg = "a closed ring cannot be pickled"
            raise ClosedError(msg)
        return _attach, (self._asked, self.dtype, self._memory, self.name)

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        asked = "" if self._asked == self.count else f" ({self._asked} asked for)"
        state = "closed" if self.closed else f"{self.pushed} pushed"
        return f"<Ring{name} of {self.count} {self.dtype}{asked}, {state}>"

    def _repr_html_(self) -> str:
        from .ring_display import ring_html

        return ring_html(self)


def _overrun(start: int, n: int, oldest: int) -> OverrunError:
    return OverrunError(f"items {start} to {start + n}: the oldest that is left is {oldest}")


def ring(
    count: int,
    dtype: DTypeLike = float,
    *,
    memory: SharedMemory | None = None,
    name: str | None = None,
) -> Ring:
    """
    Make a ring: of all items that are pushed the newest stay, and any in a row are contiguous.

    Parameters
    ----------
    count : int
        How many are to stay; rounded up so that they fill whole pages. Of 8 bytes each that is a
        multiple of 512 items on most machines, and of an odd number of bytes one of 4096.
    dtype : dtype
        Of an item; any without objects, with a shape too: ``("u1", (480, 640))``.
    memory : SharedMemory, optional
        Where it lies. If it holds a ring already, this is another view of that; if it is fresh, one
        is made there. It takes a page more than the items do. By default the ring has memory of its
        own: `Ring.memory`.
    name : str, optional
        A label for `repr` and messages.

    Returns
    -------
    Ring

    Raises
    ------
    ValueError
        `count` is not positive, or items have no bytes; `memory` is too small, or holds another
        ring, or something else: the message says what.
    TypeError
        The dtype holds objects.
    MemoryError
        There are not enough addresses: of the items, twice as many are taken.
    UnsupportedError
        The system has no ``memfd_create``.

    Examples
    --------
    >>> import sparsearray
    >>> samples = sparsearray.ring(10_000, "i2")
    >>> samples.push([1, 2, 3])
    >>> samples.push(4)
    >>> samples.last(2)
    array([3, 4], dtype=int16)
    >>> samples.count
    10240
    """
    asked = index(count)
    inner, base = layout((), dtype)
    found = np.dtype((base, inner)) if inner else base
    if asked <= 0 or not found.itemsize:
        msg = f"a ring of {asked} items of {found}: neither can be nothing"
        raise ValueError(msg)
    made = RingMemory.of(asked, found, lib.sa_page_size())
    if made.stop + made.nbytes >= 1 << 63:
        msg = f"a ring of {asked} items of {found.itemsize} bytes: more than any address space"
        raise ValueError(msg)
    if memory is None:
        own = shared_memory(made.stop, name)
    elif not isinstance(memory, SharedMemory):
        msg = (  # type: ignore[unreachable]
            f"memory must be what shared_memory makes, not {type(memory).__name__}"
        )
        raise TypeError(msg)
    elif memory.nbytes < made.stop:
        msg = (
            f"shared memory {memory.name!r} has {describe(memory.nbytes)} bytes: {made.count} "
            f"items of {found} and their counters take {describe(made.stop)}"
        )
        raise ValueError(msg)
    else:
        own = memory._duplicate()
    try:
        made.settle(own)
        return Ring(own, made, asked, name)
    except BaseException:
        own.close()
        raise


def _attach(count: int, dtype: np.dtype, memory: SharedMemory, name: str | None) -> Ring:
    """Load a pickled one."""
    with memory:
        return ring(count, dtype, memory=memory, name=name)
