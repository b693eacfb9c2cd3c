"""Atomic operations on integers in a buffer."""

from operator import index

import numpy as np

from .errors import OutOfBoundsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .access import GuardedAccess

__all__ = ["AtomicSlice"]

_LOAD, _STORE, _EXCHANGE, _COMPARE_EXCHANGE, _ADD, _SUB, _AND, _OR, _XOR = range(9)


class AtomicSlice:
    """
    A row of integers in a buffer, each read and changed as one indivisible step.

    Made by `SparseBuffer.atomic_slice`. The operations are sequentially consistent among all
    threads and, over shared memory, among all processes. It pins nothing: every operation is
    guarded like `SparseBuffer.read_at`, and raises the same errors. Values are Python ints.

    Attributes
    ----------
    offset : int
        Of the first item, in bytes from the start of the buffer.
    dtype : numpy.dtype
        An integer type of 1, 2, 4 or 8 bytes.

    Examples
    --------
    >>> from sparsearray import SparseBuffer
    >>> buffer = SparseBuffer(4096)
    >>> buffer.alloc(0, 4096)
    >>> counters = buffer.atomic_slice(0, 4, "u4")
    >>> counters.fetch_add(1, 5)
    0
    >>> counters.compare_exchange(1, 5, 7)
    (True, 5)
    >>> counters.load(1)
    7
    """

    __slots__ = ("_access", "_bits", "_count", "_max", "_min", "dtype", "offset")

    def __init__(self, access: "GuardedAccess", offset: int, count: int, dtype: np.dtype) -> None:
        self._access = access
        self.offset = offset
        self._count = count
        self.dtype = dtype
        self._bits = 8 * dtype.itemsize
        bounds = np.iinfo(dtype)
        self._min, self._max = int(bounds.min), int(bounds.max)

    def __len__(self) -> int:
        """Number of items."""
        return self._count

    def __repr__(self) -> str:
        return f"<AtomicSlice of {self._count} {self.dtype} at {self.offset:#x} ({self.offset})>"

    def _run(self, item: int, operation: int, operand: int = 0, expected: int = 0) -> int:
        at = index(item)
        if at < 0:
            at += self._count
        if not 0 <= at < self._count:
            msg = f"index {item} is out of bounds for an atomic slice of {self._count} items"
            raise OutOfBoundsError(msg)
        found = self._access._atomic(
            self.offset + at * self.dtype.itemsize,
            self.dtype.itemsize,
            operation,
            self._to_bits(operand),
            self._to_bits(expected),
        )
        return found if found <= self._max else found - (1 << self._bits)

    def _to_bits(self, value: int) -> int:
        number = index(value)
        if not self._min <= number <= self._max:
            msg = f"{number} is out of bounds for {self.dtype}"
            raise OverflowError(msg)
        return number & ((1 << self._bits) - 1)

    def load(self, item: int) -> int:
        """Return the item at index `item`."""
        return self._run(item, _LOAD)

    def store(self, item: int, value: int) -> None:
        """Set the item to `value`."""
        self._run(item, _STORE, value)

    def exchange(self, item: int, value: int) -> int:
        """Set the item to `value` and return what it was."""
        return self._run(item, _EXCHANGE, value)

    def compare_exchange(self, item: int, expected: int, desired: int) -> tuple[bool, int]:
        """
        Set the item to `desired` if it is `expected`.

        Returns
        -------
        (bool, int)
            Whether it was set, and what it was before.
        """
        found = self._run(item, _COMPARE_EXCHANGE, desired, expected)
        return found == expected, found

    def fetch_add(self, item: int, value: int) -> int:
        """Add `value`, wrapping around, and return what the item was."""
        return self._run(item, _ADD, value)

    def fetch_sub(self, item: int, value: int) -> int:
        """Subtract `value`, wrapping around, and return what the item was."""
        return self._run(item, _SUB, value)

    def fetch_and(self, item: int, value: int) -> int:
        """Keep the bits that are in `value` too, and return what the item was."""
        return self._run(item, _AND, value)

    def fetch_or(self, item: int, value: int) -> int:
        """Set the bits that are in `value`, and return what the item was."""
        return self._run(item, _OR, value)

    def fetch_xor(self, item: int, value: int) -> int:
        """Flip the bits that are in `value`, and return what the item was."""
        return self._run(item, _XOR, value)
