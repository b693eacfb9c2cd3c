"""Guarded access to the bytes of a buffer: what cannot be read or written is an exception."""

from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ._binding import (
    BYTES,
    failure,
    ffi,
    frames,
    index,
    lib,
    out_of_bounds,
    place,
    plain_dtype,
    pointer,
    take,
)
from .atomics import AtomicSlice
from .window import _shape_of

__all__ = ["GuardedAccess"]

_GATHER_PIECE = 1 << 20  # records between two chances for a Ctrl-C


class GuardedAccess:
    """
    The part of `SparseBuffer` that moves bytes, at any offset and across regions of any kind.

    The whole range is checked against the regions before anything is touched: an access to a hole,
    or a write to a read-only region, has changed nothing. What no check can foresee, such as a file
    that somebody else cuts short, is caught where it happens and raised with the bytes done so far.
    Each call sees the mapping before or after a change by another thread, never between. The GIL is
    released, and calls of several threads run side by side.
    """

    __slots__ = ("_nbytes", "_reservation")

    _reservation: Any
    _nbytes: int

    def _move(self, operation: str, function: Any, offset: int, nbytes: int, payload: Any) -> None:
        """Run a native copy to its end, in pieces."""
        frame = take()
        report = frame.report
        done = 0
        try:
            while True:
                code = function(self._reservation, offset, nbytes, payload, done, report)
                if code:
                    raise failure(code, frame, operation, offset, nbytes, self._nbytes)
                done = report.transferred
                if done == nbytes:
                    break
        except OverflowError:
            raise self._overflow(operation, offset, nbytes) from None
        frames.append(frame)

    def _overflow(self, operation: str, offset: int, nbytes: int) -> Exception:
        what = place(operation, offset, nbytes)
        if offset < 0 or nbytes < 0:
            return ValueError(f"{what}: negative")
        return out_of_bounds(what, self._nbytes)

    def read_at(self, offset: int, nbytes: int) -> bytes:
        """
        Read bytes.

        Parameters
        ----------
        offset, nbytes : int
            The range, in bytes.

        Raises
        ------
        AccessError
            A byte of it is not mapped, or its file has lost it.
        OutOfBoundsError
            The range reaches past the end.
        ValueError
            A negative argument.

        Examples
        --------
        >>> from sparsearray import SparseBuffer
        >>> buffer = SparseBuffer(1 << 40)
        >>> buffer.alloc(1 << 39, 4096)
        >>> buffer.write_at(1 << 39, b"hello")
        >>> buffer.read_at((1 << 39) + 1, 4)
        b'ello'
        """
        offset, nbytes = index(offset), index(nbytes)
        # Bounds first: a slip in nbytes must not make Python take memory for it.
        if nbytes < 2 or offset < 0 or offset + nbytes > self._nbytes:
            small = bytearray(max(nbytes, 0) if nbytes < 2 else 0)
            self._move("read", lib.sa_read, offset, nbytes, ffi.from_buffer(BYTES, small))
            return bytes(small)
        # Written to while nobody else can have seen it: the one way to make bytes with one copy.
        result = bytes(nbytes)
        self._move("read", lib.sa_read, offset, nbytes, ffi.from_buffer(BYTES, result))
        return result

    def read_into(self, offset: int, out: Any) -> None:
        """
        Read bytes into memory of the caller's: as many as `out` has.

        Parameters
        ----------
        offset : int
            Of the first byte.
        out : ndarray or writable buffer
            C-contiguous, of any dtype without objects.

        Raises
        ------
        AccessError
            As `read_at`; `out` then holds the first ``transferred`` bytes.
        OutOfBoundsError
            The range reaches past the end.
        ValueError
            `out` is not C-contiguous or not writable.
        TypeError
            `out` is no buffer, or holds objects.
        """
        payload = _payload(out, "read_into", writable=True)
        self._move("read", lib.sa_read, index(offset), len(payload), payload)

    def write_at(self, offset: int, data: Any) -> None:
        """
        Write bytes.

        Parameters
        ----------
        offset : int
            Of the first byte.
        data : bytes-like or ndarray
            C-contiguous, of any dtype without objects.

        Raises
        ------
        AccessError
            A byte is not mapped or read-only, and nothing was written; or its file has lost it, or
            the disk is full, after ``transferred`` bytes.
        OutOfBoundsError
            The range reaches past the end.
        ValueError
            `data` is not C-contiguous.
        """
        payload = _payload(data, "write_at", writable=False)
        self._move("write", lib.sa_write, index(offset), len(payload), payload)

    def fill_at(self, offset: int, value: int, nbytes: int) -> None:
        """
        Set bytes to one value.

        Parameters
        ----------
        offset : int
            Of the first byte.
        value : int
            0 to 255.
        nbytes : int
            How many.

        Raises
        ------
        AccessError, OutOfBoundsError
            As `write_at`.
        ValueError
            `value` is no byte, or a negative argument.
        """
        value = index(value)
        if not 0 <= value <= 255:
            msg = f"fill_at: value {value} is not in range(256)"
            raise ValueError(msg)
        self._move("fill", lib.sa_fill, index(offset), index(nbytes), value)

    def read_plain(self, offset: int, dtype: DTypeLike, shape: Any = ()) -> Any:
        """
        Read a value of a dtype, at any byte.

        Parameters
        ----------
        offset : int
            Of its first byte; it need not be aligned.
        dtype : dtype
            Any without objects: structured, nested, with sub-arrays, big-endian, datetime64.
        shape : int or tuple of ints, optional
            Read an array of this shape instead, in C order.

        Returns
        -------
        scalar, record or ndarray
            Owned: it shares nothing with the buffer. A value of 1, 2, 4 or 8 bytes is read by a
            single load, so that where it is aligned no concurrent write can tear it.

        Raises
        ------
        AccessError, OutOfBoundsError, ValueError
            As `read_at`.
        TypeError
            The dtype holds objects.

        Examples
        --------
        >>> from sparsearray import SparseBuffer
        >>> buffer = SparseBuffer(4096)
        >>> buffer.alloc(0, 4096)
        >>> buffer.write_at(3, bytes([1, 2, 0, 0, 0]))
        >>> buffer.read_plain(3, ">u2")
        np.uint16(258)
        >>> buffer.read_plain(3, [("a", "u1"), ("b", "<u4")])
        np.void((1, 2), dtype=[('a', 'u1'), ('b', '<u4')])
        """
        if shape != ():
            return self._read_array(offset, plain_dtype(dtype), _shape_of(shape))
        frame = take()
        try:
            view, nbytes, shares = frame.records[dtype]
        except (KeyError, TypeError):
            view, nbytes, shares = frame.record(dtype)
            if nbytes < 0:
                frames.append(frame)
                return self._read_array(offset, plain_dtype(dtype), ())[()]
        if type(offset) is not int:
            offset = index(offset)
        try:
            code = lib.sa_read_record(
                self._reservation, offset, nbytes, frame.data, frame.report
            )
        except OverflowError:
            raise self._overflow("read", offset, nbytes) from None
        if code:
            raise failure(code, frame, "read", offset, nbytes, self._nbytes)
        # A record of numpy's is a view of its array, other scalars are not.
        value = view.copy()[()] if shares else view[()]
        frames.append(frame)
        return value

    def _read_array(self, offset: int, dtype: np.dtype, shape: tuple[int, ...]) -> NDArray[Any]:
        nbytes = prod(shape) * dtype.itemsize
        start = index(offset)
        if 0 <= start and start + nbytes > self._nbytes:
            raise self._overflow("read", start, nbytes)
        out = np.empty(shape, dtype)
        self._move("read", lib.sa_read, start, nbytes, pointer(out, writable=True))
        return out

    def write_plain(self, offset: int, value: ArrayLike, dtype: DTypeLike = None) -> None:
        """
        Write a value, or an array of them, as its dtype's bytes.

        Parameters
        ----------
        offset : int
            Of the first byte; it need not be aligned.
        value : scalar, record or array
            What ``numpy.asarray(value, dtype)`` takes. 1, 2, 4 or 8 bytes are written by a single
            store.
        dtype : dtype, optional
            Without it, that of `value`; numpy's choice for Python numbers.

        Raises
        ------
        AccessError, OutOfBoundsError, ValueError
            As `write_at`.
        TypeError
            The dtype holds objects.

        Examples
        --------
        >>> from sparsearray import SparseBuffer
        >>> buffer = SparseBuffer(4096)
        >>> buffer.alloc(0, 4096)
        >>> buffer.write_plain(10, 258, ">u2")
        >>> buffer.read_at(10, 2)
        b'\\x01\\x02'
        """
        array = np.asarray(value, None if dtype is None else plain_dtype(dtype), order="C")
        plain_dtype(array.dtype)
        payload = pointer(array, writable=False)
        if array.nbytes > 8:
            self._move("write", lib.sa_write, index(offset), array.nbytes, payload)
            return
        frame = take()
        start = index(offset)
        try:
            code = lib.sa_write_record(
                self._reservation, start, array.nbytes, payload, frame.report
            )
        except OverflowError:
            raise self._overflow("write", start, array.nbytes) from None
        if code:
            raise failure(code, frame, "write", start, array.nbytes, self._nbytes)
        frames.append(frame)

    def gather(self, offsets: ArrayLike, dtype: DTypeLike) -> NDArray[Any]:
        """
        Read many records at once.

        Parameters
        ----------
        offsets : array of ints
            Byte offsets of the records, in any order, any shape.
        dtype : dtype
            Of a record; any without objects.

        Returns
        -------
        ndarray
            Of the shape of `offsets`, owned.

        Raises
        ------
        AccessError, OutOfBoundsError, ValueError
            For the first bad record, as `read_plain`.
        TypeError
            The dtype holds objects, or `offsets` are no ints.

        Examples
        --------
        >>> from sparsearray import SparseBuffer
        >>> buffer = SparseBuffer(4096)
        >>> buffer.alloc(0, 4096)
        >>> buffer.write_at(0, bytes(range(100)))
        >>> buffer.gather([50, 7, 50], "u1")
        array([50,  7, 50], dtype=uint8)
        """
        found = plain_dtype(dtype)
        places = _offsets(offsets)
        out: NDArray[Any] = np.empty(places.shape, found)
        payload = pointer(out, writable=True)
        self._each_record("gather", lib.sa_gather, places, found.itemsize, payload)
        return out

    def scatter(self, offsets: ArrayLike, values: ArrayLike) -> None:
        """
        Write many records at once.

        Parameters
        ----------
        offsets : array of ints
            Byte offsets of the records, in any order, any shape. Of two at one place the last wins.
        values : array
            One record each; broadcast to the shape of `offsets`. Their dtype holds no objects.

        Raises
        ------
        AccessError, OutOfBoundsError, ValueError
            As `write_plain`. All offsets are checked before the first record is written.
        TypeError
            The dtype holds objects, or `offsets` are no ints.
        """
        places = _offsets(offsets)
        array = np.asarray(values)
        plain_dtype(array.dtype)
        records = np.ascontiguousarray(np.broadcast_to(array, places.shape))
        payload = pointer(records, writable=False)
        self._each_record("scatter", lib.sa_scatter, places, records.dtype.itemsize, payload)

    def _each_record(
        self, operation: str, function: Any, places: NDArray[Any], nbytes: int, payload: Any
    ) -> None:
        flat = places.reshape(-1)
        where = ffi.cast("int64_t *", ffi.from_buffer(BYTES, flat))
        payload = ffi.cast("char *", payload)
        # All at once where it is checked beforehand: a scatter is refused before it writes.
        piece = _GATHER_PIECE if operation == "gather" else max(flat.size, 1)
        frame = take()
        for start in range(0, flat.size, piece):
            count = min(piece, flat.size - start)
            code = function(
                self._reservation,
                where + start,
                count,
                nbytes,
                payload + start * nbytes,
                frame.report,
            )
            if code:
                bad = start + frame.report.value if code != lib.SA_CLOSED else 0
                raise failure(code, frame, operation, int(flat[bad]), nbytes, self._nbytes)
        frames.append(frame)

    def atomic_slice(self, offset: int, count: int, dtype: DTypeLike = "u1") -> AtomicSlice:
        """
        Make a row of atomic integers over the buffer's bytes.

        Parameters
        ----------
        offset : int
            Of the first item, in bytes; a multiple of its size.
        count : int
            Number of items.
        dtype : dtype
            An integer type of 1, 2, 4 or 8 bytes in the machine's byte order.

        Raises
        ------
        OutOfBoundsError
            The range reaches past the end.
        ValueError
            A negative or unaligned argument.
        TypeError
            The dtype is no such integer.
        """
        found = np.dtype(dtype)
        if found.kind not in "iu" or not found.isnative:
            msg = f"atomic_slice: {found} is no integer type in the machine's byte order"
            raise TypeError(msg)
        start, items = index(offset), index(count)
        what = place("atomic_slice", start, items * found.itemsize)
        if start < 0 or items < 0:
            msg = f"{what}: negative"
            raise ValueError(msg)
        if start % found.itemsize:
            msg = f"{what}: not aligned to {found.itemsize} bytes"
            raise ValueError(msg)
        if start + items * found.itemsize > self._nbytes:
            raise out_of_bounds(what, self._nbytes)
        return AtomicSlice(self, start, items, found)

    def _atomic(self, offset: int, nbytes: int, operation: int, operand: int, expected: int) -> int:
        frame = take()
        code = lib.sa_atomic(
            self._reservation, offset, nbytes, operation, operand, expected, frame.report
        )
        if code:
            raise failure(code, frame, "atomic operation", offset, nbytes, self._nbytes)
        found: int = frame.report.value
        frames.append(frame)
        return found


def _payload(data: Any, method: str, *, writable: bool) -> Any:
    """Return `data` as a C array of bytes that keeps it alive."""
    try:
        return ffi.from_buffer(BYTES, data, writable)
    except (ValueError, BufferError, TypeError) as error:
        if not isinstance(data, np.ndarray):
            if isinstance(error, TypeError):
                raise
            msg = f"{method}: {error}"
            raise ValueError(msg) from None
    plain_dtype(data.dtype)
    if not data.flags.c_contiguous:
        msg = f"{method}: the array of shape {data.shape} is not C-contiguous"
        raise ValueError(msg)
    if writable and not data.flags.writeable:
        msg = f"{method}: the array is read-only"
        raise ValueError(msg)
    return pointer(data, writable=writable)


def _offsets(offsets: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(offsets)
    if array.size == 0 and not isinstance(offsets, np.ndarray):
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        msg = f"offsets must be integers, not {array.dtype}"
        raise TypeError(msg)
    if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
        msg = f"record at {array.max()}: past the end of any buffer"
        raise out_of_bounds(msg, np.iinfo(np.int64).max)
    return np.ascontiguousarray(array, np.int64).reshape(array.shape)
