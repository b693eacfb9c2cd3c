"""Guarded access to the bytes of a buffer: what cannot be read or written is an exception."""

from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ._binding import (
    BYTES,
    box_failure,
    failure,
    ffi,
    from_buffer,
    idle,
    index,
    lib,
    out_of_bounds,
    place,
    plain_dtype,
    pointer,
    put_back,
    refuse_objects,
    take,
    take_idle,
)
from .atomics import AtomicSlice
from .window import as_shape

__all__ = ["GuardedAccess", "Place", "make_place"]

_GATHER_PIECE = 1 << 20  # records between two chances for a Ctrl-C
_MORE = lib.SA_MORE

# Names of the module are found faster than attributes of the library.
_read, _write, _fill = lib.sa_read, lib.sa_write, lib.sa_fill
_box = lib.sa_move_box
_read_record, _write_record = lib.sa_read_record, lib.sa_write_record

# Where a record is read to: (report, bytes, the report's record as an array, and as a buffer where
# numpy's scalar of it would be a view).
Place = tuple[Any, int, NDArray[Any], Any]

_idle_places: dict[object, list[Place]] = {}  # by what users write for the dtype
_DTYPES_LIMIT = 256  # remembered
_RECORD_LIMIT = 64  # bytes: sa_report.record


def make_place(dtype: np.dtype) -> Place | None:
    """Make a place for records of a dtype; None for those that are too large."""
    if dtype.itemsize > _RECORD_LIMIT or dtype.subdtype:
        return None
    report = ffi.new("sa_report *")
    raw = ffi.buffer(report.record, dtype.itemsize)
    view: NDArray[Any] = np.ndarray((), dtype, np.frombuffer(raw, "u1") if len(raw) else b"")
    return report, dtype.itemsize, view, raw if dtype.kind == "V" else None


def _find_place(key: object) -> tuple[Place, list[Place]] | None:
    """Make a place for records of the dtype that `key` stands for, and find the idle ones."""
    dtype = plain_dtype(key)
    made = make_place(dtype)
    if made is None:
        return None
    if not isinstance(key, str | type):
        key = dtype
    if len(_idle_places) >= _DTYPES_LIMIT:
        return made, _idle_places.get(key, [])
    return made, _idle_places.setdefault(key, [])


def _say_how_far(error: KeyboardInterrupt, what: str, done: int) -> None:
    if not hasattr(error, "__notes__"):  # else it came between two later pieces
        error.add_note(f"{what}: interrupted when at most {done} bytes were done")


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
        """Run a native copy."""
        if type(offset) is not int:
            offset = index(offset)
        report = take()
        try:
            code = function(self._reservation, offset, nbytes, payload, report)
            if code:
                self._finish(code, report, operation, function, offset, nbytes, payload)
        except OverflowError:
            raise self._overflow(operation, offset, nbytes) from None
        except KeyboardInterrupt as error:
            _say_how_far(error, place(operation, offset, nbytes), report.transferred)
            raise
        put_back(report)

    def _finish(
        self,
        code: int,
        report: Any,
        operation: str,
        function: Any,
        offset: int,
        nbytes: int,
        payload: Any,
    ) -> None:
        """Go on with a copy in pieces, between which Python takes a Ctrl-C, or raise its error."""
        done = 0
        try:
            while code == _MORE:
                done += report.transferred
                report.transferred = 0
                rest = payload if function is _fill else payload + done
                code = function(self._reservation, offset + done, nbytes - done, rest, report)
        except KeyboardInterrupt as error:
            _say_how_far(error, place(operation, offset, nbytes), done + report.transferred)
            raise
        if code:
            if code == lib.SA_ACCESS:
                report.transferred += done
            raise failure(code, report, operation, offset, nbytes, self._nbytes)

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
            self._move("read", _read, offset, nbytes, from_buffer(BYTES, small))
            return bytes(small)
        # Written to while nobody else can have seen it: the one way to make bytes with one copy.
        result = bytes(nbytes)
        self._move("read", _read, offset, nbytes, from_buffer(BYTES, result))
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
        if type(out) is not np.ndarray or out.dtype.hasobject:
            refuse_objects(out)
        try:
            payload = from_buffer(BYTES, out, True)
        except _NO_BUFFER as error:
            payload = _payload(out, "read_into", error, writable=True)
        # As _move does it, without the call: a fifth of the time of a small copy.
        if type(offset) is not int:
            offset = index(offset)
        report = take_idle() if idle else take()
        try:
            code = _read(self._reservation, offset, len(payload), payload, report)
            if code:
                self._finish(code, report, "read", _read, offset, len(payload), payload)
        except OverflowError:
            raise self._overflow("read", offset, len(payload)) from None
        except KeyboardInterrupt as error:
            _say_how_far(error, place("read", offset, len(payload)), report.transferred)
            raise
        put_back(report)

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
        if type(data) is not np.ndarray or data.dtype.hasobject:
            refuse_objects(data)
        try:
            payload = from_buffer(BYTES, data)
        except _NO_BUFFER as error:
            payload = _payload(data, "write_at", error, writable=False)
        if type(offset) is not int:
            offset = index(offset)
        report = take_idle() if idle else take()
        try:
            code = _write(self._reservation, offset, len(payload), payload, report)
            if code:
                self._finish(code, report, "write", _write, offset, len(payload), payload)
        except OverflowError:
            raise self._overflow("write", offset, len(payload)) from None
        except KeyboardInterrupt as error:
            _say_how_far(error, place("write", offset, len(payload)), report.transferred)
            raise
        put_back(report)

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
        self._move("fill", _fill, offset, index(nbytes), value)

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
            return self._read_array(offset, plain_dtype(dtype), as_shape(shape))
        try:
            idle = _idle_places[dtype]
            where = idle.pop()
        except (KeyError, IndexError, TypeError):
            made = _find_place(dtype)
            if made is None:
                return self._read_array(offset, plain_dtype(dtype), ())[()]
            where, idle = made
        report, nbytes, view, raw = where
        if type(offset) is not int:
            offset = index(offset)
        try:
            code = _read_record(self._reservation, offset, nbytes, report)
        except OverflowError:
            raise self._overflow("read", offset, nbytes) from None
        if code:
            raise failure(code, report, "read", offset, nbytes, self._nbytes)
        if raw is None:
            value = view[()]
        else:  # numpy's records are views, of memory of their own here
            value = np.ndarray((), view.dtype, memoryview(bytearray(raw)))[()]
        idle.append(where)
        return value

    def _read_array(self, offset: int, dtype: np.dtype, shape: tuple[int, ...]) -> NDArray[Any]:
        nbytes = prod(shape) * dtype.itemsize
        start = index(offset)
        if start >= 0 and start + nbytes > self._nbytes:
            raise self._overflow("read", start, nbytes)
        out = _new_array(shape, dtype)
        self._move("read", _read, start, nbytes, pointer(out, writable=True))
        return out

    def write_plain(self, offset: int, value: ArrayLike, dtype: DTypeLike | None = None) -> None:
        r"""
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
        b'\x01\x02'
        """
        array = np.asarray(value, None if dtype is None else plain_dtype(dtype))
        plain_dtype(array.dtype)
        # As bytes: numpy's copy of a record leaves what lies between its fields to chance.
        array = (
            np.ascontiguousarray(array.view(f"V{array.dtype.itemsize}")) if array.nbytes else array
        )
        payload = pointer(array, writable=False)
        if array.nbytes > 8:
            self._move("write", _write, offset, array.nbytes, payload)
            return
        self._move("write", _write_record, offset, array.nbytes, payload)

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
        places = _offsets(offsets, "gather", found.itemsize, self._nbytes)
        out = _new_array(places.shape, found)
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
        array = np.asarray(values)
        plain_dtype(array.dtype)
        places = _offsets(offsets, "scatter", array.dtype.itemsize, self._nbytes)
        if array.nbytes:  # as in write_plain
            array = array.view(f"V{array.dtype.itemsize}")
        records = np.ascontiguousarray(np.broadcast_to(array, places.shape))
        payload = pointer(records, writable=False)
        self._each_record("scatter", lib.sa_scatter, places, records.dtype.itemsize, payload)

    def _each_record(
        self, operation: str, function: Any, places: NDArray[Any], nbytes: int, payload: Any
    ) -> None:
        flat = places.reshape(-1)
        where = ffi.cast("int64_t *", from_buffer(BYTES, flat))
        payload = ffi.cast("char *", payload)
        # All at once where it is checked beforehand: a scatter is refused before it writes.
        piece = _GATHER_PIECE if operation == "gather" else max(flat.size, 1)
        report = take()
        for start in range(0, max(flat.size, 1), piece):
            count = min(piece, flat.size - start)
            code = function(
                self._reservation,
                where + start,
                count,
                nbytes,
                payload + start * nbytes,
                report,
            )
            if code:
                bad = start + report.value if code != lib.SA_CLOSED else 0
                raise failure(
                    code,
                    report,
                    operation,
                    int(flat[bad]) if flat.size else 0,
                    nbytes,
                    self._nbytes,
                )
        put_back(report)

    def _move_box(
        self, how: int, offset: int, axes: Any, ndim: int, itemsize: int, data: Any, nbytes: int
    ) -> None:
        """Move a selection of an array that lies tile by tile: `native/api.h` says how."""
        report = take_idle() if idle else take()
        code = _box(self._reservation, offset, axes, ndim, itemsize, data, how, report)
        if code:
            operation = "read" if how == lib.SA_BOX_READ else "write"
            raise box_failure(code, report, operation, offset, nbytes, self._nbytes)
        put_back(report)

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
        report = take()
        code = lib.sa_atomic(
            self._reservation, offset, nbytes, operation, operand, expected, report
        )
        if code:
            raise failure(code, report, "atomic operation", offset, nbytes, self._nbytes)
        found: int = report.value
        put_back(report)
        return found


def _new_array(shape: tuple[int, ...], dtype: np.dtype) -> NDArray[Any]:
    """Make an array to read into. numpy gives an item of no bytes one, which nothing will fill."""
    return np.empty(shape, dtype) if dtype.itemsize else np.zeros(shape, dtype)


_NO_BUFFER = (ValueError, BufferError, TypeError)


def _payload(data: Any, method: str, error: Exception, *, writable: bool) -> Any:
    """Return `data` as a C array of bytes, or say better than `error` why it is none."""
    if not isinstance(data, np.ndarray):
        kind = TypeError if isinstance(error, TypeError) else ValueError
        msg = f"{method}: {error}"
        raise kind(msg) from None
    plain_dtype(data.dtype)
    if not data.flags.c_contiguous:
        msg = f"{method}: the array of shape {data.shape} is not C-contiguous"
        raise ValueError(msg)
    if writable and not data.flags.writeable:
        msg = f"{method}: the array is read-only"
        raise ValueError(msg)
    return pointer(data, writable=writable)


def _offsets(offsets: ArrayLike, operation: str, nbytes: int, total: int) -> NDArray[np.int64]:
    """Return offsets as an array of 64-bit integers, which holds all that can be good ones."""
    array = np.asarray(offsets)
    if not isinstance(offsets, np.ndarray):
        if array.size == 0:
            array = array.astype(np.int64)
        elif array.dtype.kind == "f":  # what numpy makes of integers beyond 2**63 among others
            array = np.asarray(offsets, object)
    if array.dtype.kind == "O" or (array.dtype.kind == "u" and array.size and array.max() >> 63):
        for offset in array.flat:  # some are integers too large, or no integers at all
            number = index(offset)
            if not -(1 << 63) <= number < 1 << 63:
                what = place(operation, number, nbytes)
                raise ValueError(f"{what}: negative") if number < 0 else out_of_bounds(what, total)
    elif array.dtype.kind not in "iu":
        msg = f"offsets must be integers, not {array.dtype}"
        raise TypeError(msg)
    return np.ascontiguousarray(array, np.int64).reshape(array.shape)
