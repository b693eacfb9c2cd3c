"""Where Python meets C: the import of the native module, and codes turned into exceptions."""

import errno
import os
from operator import index

import numpy as np

from ._native import ffi, lib
from .errors import AccessError, ClosedError, OutOfBoundsError, UnsupportedError

__all__ = ["BYTES", "Frame", "describe", "ffi", "frames", "index", "lib", "place", "pointer", "take"]

BYTES = ffi.typeof("char[]")

_REASONS = {
    lib.SA_UNMAPPED: "unmapped",
    lib.SA_READ_ONLY: "read-only",
    lib.SA_FILE_TRUNCATED: "file-truncated",
    lib.SA_NO_SPACE: "no-space",
    lib.SA_IO_ERROR: "io-error",
    lib.SA_NO_MEMORY: "no-memory",
}
_EXPLANATIONS = {
    "unmapped": "is not mapped",
    "read-only": "is read-only",
    "file-truncated": "lies past the end of its file",
    "no-space": "has no room on the disk",
    "io-error": "could not be transferred",
    "no-memory": "has no memory",
}
_MANY_MAPPINGS = 0.9  # of vm.max_map_count: a failure for want of memory is then one of these


class Frame:
    """
    What one native call needs besides its arguments: a report, and scratch space for a record.

    A frame is in use by one call at a time: `take` removes it from the list of idle ones.
    """

    __slots__ = ("data", "records", "report")

    def __init__(self) -> None:
        self.report = ffi.new("sa_report *")
        self.data = self.report.data
        self.records: dict[object, tuple[np.ndarray, int, bool]] = {}

    def record(self, key: object) -> tuple[np.ndarray, int, bool]:
        """
        The scratch space as a 0-d array of the dtype that `key` stands for.

        Returns
        -------
        (ndarray, int, bool)
            The array, its size in bytes and whether an item of it is a view of the array's memory.
            The array is empty where the record does not fit: its size is then all there is.
        """
        dtype = plain_dtype(key)
        if dtype.itemsize > len(self.data) or dtype.subdtype:
            return np.empty(0, "u1"), -1, True
        view = np.ndarray((), dtype, np.frombuffer(ffi.buffer(self.data), "u1"))
        found = (view, dtype.itemsize, dtype.kind == "V")
        if len(self.records) < 64:
            self.records[key if type(key) in (str, type) else dtype] = found
        return found


frames: list[Frame] = []


def take() -> Frame:
    """Take an idle frame, or make one; append it to `frames` after use."""
    try:
        return frames.pop()
    except IndexError:
        return Frame()


def plain_dtype(dtype: object) -> np.dtype:
    """Return `dtype` as one that bytes can be read as: no Python objects in it."""
    found = np.dtype(dtype)  # type: ignore[call-overload]
    if found.hasobject:
        msg = f"dtype {found} holds Python objects, which cannot live in mapped memory"
        raise TypeError(msg)
    return found


def pointer(array: np.ndarray, *, writable: bool) -> object:
    """Return a C pointer to the bytes of a C-contiguous array, which it keeps alive."""
    try:
        return ffi.from_buffer(BYTES, array, writable)
    except (ValueError, BufferError):  # what has no buffer format, datetime64 among them
        return ffi.from_buffer(BYTES, array.reshape(-1).view("u1"), writable)


def describe(number: int) -> str:
    """Write a number of bytes in hex and in decimal."""
    return f"{number:#x} ({number})" if number >= 0 else str(number)


def place(operation: str, offset: int, nbytes: int) -> str:
    """Say which call it was."""
    return f"{operation} of {describe(nbytes) if nbytes > 9999 else nbytes} bytes at {describe(offset)}"


def failure(
    code: int, frame: Frame, operation: str, offset: int, nbytes: int, total: int
) -> Exception:
    """
    Turn what a native function returned into the exception to raise.

    Parameters
    ----------
    code : int
        One of ``sa_code`` in `native/api.h`.
    frame : Frame
        Its report, which goes back to the idle ones.
    operation : str
        The verb for messages.
    offset, nbytes : int
        The range asked for, in bytes.
    total : int
        Length of the buffer in bytes.
    """
    report = frame.report
    what = place(operation, offset, nbytes)
    try:
        if code == lib.SA_ACCESS:
            return _access_error(report, what)
        maker = _MAKERS.get(code)
        if maker:
            return maker(report, what)
        if code == lib.SA_BOUNDS:
            return out_of_bounds(what, total)
        if code == lib.SA_MISALIGNED:
            page = lib.sa_page_size()
            rest = "nothing to do" if nbytes == 0 else f"not in whole pages of {describe(page)} bytes"
            return ValueError(f"{what}: {rest}")
        return RuntimeError(f"{what}: native code {code}")
    finally:
        frames.append(frame)


def out_of_bounds(what: str, total: int) -> OutOfBoundsError:
    """Make the error for a range past the end."""
    return OutOfBoundsError(f"{what}: the buffer has {describe(total)} bytes")


def _access_error(report: object, what: str) -> AccessError:
    reason = _REASONS[report.reason]  # type: ignore[attr-defined]
    offset: int = report.offset  # type: ignore[attr-defined]
    file = _file(report)
    tail = f" of {file!r}" if file else ""
    message = f"{what}: byte {describe(offset)}{tail} {_EXPLANATIONS[reason]}"
    done: int = report.transferred  # type: ignore[attr-defined]
    if done:
        message += f"; {done} bytes were done"
    operation = "write" if report.write else "read"  # type: ignore[attr-defined]
    return AccessError(message, offset, operation, reason, done, file)


def _file(report: object) -> str | None:
    name: str = os.fsdecode(ffi.string(report.file))  # type: ignore[attr-defined]
    return name or None


def _system_error(report: object, what: str) -> OSError:
    number: int = report.sys_errno  # type: ignore[attr-defined]
    message = f"{what}: {os.strerror(number)}"
    if number == _ENOMEM:
        message += _mapping_limit()
    file = _file(report)
    return OSError(number, message, file) if file else OSError(number, message)


def _mapping_limit() -> str:
    """If the process has about as many mappings as it may, say so."""
    try:
        with open("/proc/sys/vm/max_map_count", "rb") as file:
            limit = int(file.read())
        with open("/proc/self/maps", "rb") as file:
            count = file.read().count(b"\n")
    except OSError:  # no /proc: nothing to add
        return ""
    if count < _MANY_MAPPINGS * limit:
        return ""
    return (
        f"; the process has {count} mappings of the {limit} that vm.max_map_count allows "
        "(join neighbouring regions, or raise it with sysctl)"
    )


def _pinned(report: object, what: str) -> BufferError:
    count: int = report.count  # type: ignore[attr-defined]
    start: int = report.start  # type: ignore[attr-defined]
    stop: int = report.stop  # type: ignore[attr-defined]
    windows = "1 live window is" if count == 1 else f"{count} live windows are"
    return BufferError(
        f"{what}: {windows} over it, between {describe(start)} and {describe(stop)}; "
        "delete them and the arrays made from them first"
    )


def _file_end(report: object, what: str) -> ValueError:
    size: int = report.count  # type: ignore[attr-defined]
    return ValueError(f"{what}: past the end of {_file(report)!r}, which has {describe(size)} bytes")


def _huge_page(report: object, what: str) -> ValueError:
    size: int = report.count  # type: ignore[attr-defined]
    at: int = report.offset  # type: ignore[attr-defined]
    return ValueError(f"{what}: not in whole huge pages of {describe(size)} bytes at {describe(at)}")


_ENOMEM = errno.ENOMEM
_MAKERS = {
    lib.SA_CLOSED: lambda _, what: ClosedError(f"{what}: the buffer is closed"),
    lib.SA_NEGATIVE: lambda _, what: ValueError(f"{what}: negative"),
    lib.SA_PINNED: _pinned,
    lib.SA_SYSTEM: _system_error,
    lib.SA_UNSUPPORTED: lambda _, what: UnsupportedError(f"{what}: this system has no such thing"),
    lib.SA_FILE_END: _file_end,
    lib.SA_HUGE_PAGE: _huge_page,
    lib.SA_FILE_NAMED: lambda report, what: ValueError(
        f"{what}: byte {describe(report.offset)} lies in a window of {_file(report)!r}, "
        "which carries that name already"
    ),
    lib.SA_BAD_FLAG: lambda report, what: ValueError(
        f"{what}: a reservation cannot take {_file(report)}: what it maps must stay inside it "
        "and be given back page by page"
    ),
}
