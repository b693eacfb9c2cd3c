"""What a `ModelBuffer` hands out: windows and slices of atomic integers."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sparsearray.errors import AccessError, OutOfBoundsError

if TYPE_CHECKING:
    from sparsearray.testing.model import ModelBuffer
    from sparsearray.testing.model_pages import ModelFile

__all__ = ["ModelAtomicSlice", "ModelWindow"]


@dataclass(eq=False)
class ModelWindow:
    """A window of a `ModelBuffer`: a pin, and a look at its bytes.

    `start` is the first byte it spans, `stop` the one behind the last. Call `release` when the
    last array made of the real window is gone.
    """

    buffer: ModelBuffer
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]
    writable: bool
    start: int
    stop: int

    @property
    def span(self) -> tuple[int, int]:
        """First byte and number of bytes from there to the last."""
        return self.start, self.stop - self.start

    def read(self) -> npt.NDArray[Any]:
        """The array that the window must show, in memory of its own."""
        return self._array(self._span())

    def write(self, change: Callable[[npt.NDArray[Any]], object]) -> None:
        """Let `change` write into the array, and the buffer have what it wrote.

        What it writes must not depend on what was there.
        """
        # Run it on other bytes as well: what comes out the same is what it wrote.
        after = self._span()
        other = bytearray(byte ^ 255 for byte in after)
        change(self._array(after))
        change(self._array(other))
        written = np.frombuffer(after, "u1") == np.frombuffer(other, "u1")
        for page, at, size, done in self.buffer._pieces(self.start, len(after)):
            if page.damaged and page.memory is not None:
                page.memory[at : at + size] = after[done : done + size]
            elif written[done : done + size].any():
                self.buffer._write(self.start + done, memoryview(after)[done : done + size])

    def release(self) -> None:
        """Forget the window: nothing holds it any more."""
        if self in self.buffer.windows:
            self.buffer.windows.remove(self)

    def _span(self) -> bytearray:
        span = bytearray(self.stop - self.start)
        for page, at, size, done in self.buffer._pieces(*self.span):
            span[done : done + size] = self.buffer._contents(page)[at : at + size]
        return span

    def _array(self, span: bytearray) -> npt.NDArray[Any]:
        return np.ndarray(self.shape, self.dtype, span, self.offset - self.start, self.strides)


@dataclass
class ModelAtomicSlice:
    """What `SparseBuffer.atomic_slice` must return."""

    buffer: ModelBuffer
    offset: int
    count: int
    dtype: np.dtype[Any]

    def __len__(self) -> int:
        return self.count

    def load(self, index: int) -> int:
        """Item `index`."""
        place = self._place(index)
        self.buffer._check_access(place, self.dtype.itemsize, "read")
        return self._found(place, "read")

    def store(self, index: int, value: int) -> None:
        """Write `value`."""
        self._update(index, lambda _: value, value)

    def exchange(self, index: int, value: int) -> int:
        """Write `value`; what was there."""
        return self._update(index, lambda _: value, value)

    def compare_exchange(self, index: int, expected: int, desired: int) -> tuple[bool, int]:
        """Write `desired` where `expected` is; whether it was, and what was there."""
        old = self._update(
            index, lambda old: desired if old == expected else old, expected, desired
        )
        return old == expected, old

    def fetch_add(self, index: int, value: int) -> int:
        """Add, wrapping around; what was there."""
        return self._update(index, lambda old: old + value, value)

    def fetch_sub(self, index: int, value: int) -> int:
        """Subtract, wrapping around; what was there."""
        return self._update(index, lambda old: old - value, value)

    def fetch_and(self, index: int, value: int) -> int:
        """Write the bits that both have; what was there."""
        return self._update(index, lambda old: old & value, value)

    def fetch_or(self, index: int, value: int) -> int:
        """Write the bits that any has; what was there."""
        return self._update(index, lambda old: old | value, value)

    def fetch_xor(self, index: int, value: int) -> int:
        """Write the bits that one has; what was there."""
        return self._update(index, lambda old: old ^ value, value)

    def _place(self, index: int) -> int:
        if not -self.count <= operator.index(index) < self.count:
            raise OutOfBoundsError(f"item {index} of {self.count}")
        return self.offset + index % self.count * self.dtype.itemsize

    def _found(self, place: int, operation: str) -> int:
        """The item there, if all its bytes are."""
        ((page, at, size, _),) = self.buffer._pieces(place, self.dtype.itemsize)
        good = self.buffer._readable(page, at, size)
        if operation == "write":
            good = self.buffer._storable(page, at, size)
        if good < size:
            raise refused("file-truncated", operation, place + good, 0, page.file)
        return int(np.frombuffer(self.buffer._contents(page), self.dtype, 1, at)[0])

    def _update(self, index: int, change: Callable[[int], int], *operands: int) -> int:
        place, limits = self._place(index), np.iinfo(self.dtype)
        if not all(limits.min <= value <= limits.max for value in operands):
            raise OverflowError(f"out of the range of {self.dtype}")
        self.buffer._check_access(place, self.dtype.itemsize, "write")
        old = self._found(place, "write")
        bits = change(old) % (1 << 8 * self.dtype.itemsize)
        self.buffer._write(place, memoryview(bits.to_bytes(self.dtype.itemsize, sys.byteorder)))
        return old


def refused(
    reason: str, operation: str, offset: int, transferred: int = 0, file: ModelFile | None = None
) -> AccessError:
    """Make the error for the byte at `offset`."""
    message = f"{operation} refused at {offset}: {reason}"
    name = file.name if file else None
    return AccessError(message, offset, operation, reason, transferred, name)
