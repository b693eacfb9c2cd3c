"""Where Python meets C: the import of the native module, and codes turned into exceptions."""

import errno
import os
import re
from collections.abc import Callable
from operator import index
from pathlib import Path
from typing import Any

import numpy as np

try:
    from ._native import ffi, lib
except ModuleNotFoundError as _error:
    _root = Path(__file__).parent.parent
    if _error.name != f"{__package__}._native" or not (_root / "pyproject.toml").exists():
        raise
    _message = (
        f"{_root} is the source tree of {__package__}, whose core is not compiled: 'pip install .' "
        "in it, and then start Python in another folder, or with -P"
    )
    raise ImportError(_message, name=_error.name) from _error
from .errors import AccessError, ClosedError, OutOfBoundsError, UnsupportedError

__all__ = [
    "BYTES",
    "FILE_COPY_ON_WRITE",
    "FILE_READ",
    "FILE_WRITE",
    "REASONS",
    "count_mappings",
    "describe",
    "failure",
    "ffi",
    "from_buffer",
    "idle",
    "index",
    "lib",
    "out_of_bounds",
    "place",
    "plain_dtype",
    "pointer",
    "put_back",
    "refuse_objects",
    "take",
    "take_idle",
]

BYTES = ffi.typeof("char[]")
from_buffer = ffi.from_buffer

# Every native call reports into a structure that no other call has meanwhile: taken off this list,
# which is one step for all threads and interrupts, and put back after use.
idle: list[Any] = []
put_back, take_idle = idle.append, idle.pop


def take() -> Any:
    """Take a report for one native call; `put_back` it afterwards."""
    try:
        return take_idle()
    except IndexError:
        return ffi.new("sa_report *")


FILE_READ, FILE_WRITE = lib.SA_FILE_READ, lib.SA_FILE_WRITE
FILE_COPY_ON_WRITE = lib.SA_FILE_COPY_ON_WRITE
REASONS = {
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


def plain_dtype(dtype: object) -> np.dtype:
    """Return `dtype` as one that bytes can be read as: no Python objects in it."""
    found: np.dtype[Any] = np.dtype(dtype)  # type: ignore[call-overload]
    if found.hasobject:
        msg = f"dtype {found} holds Python objects, which cannot live in mapped memory"
        raise TypeError(msg)
    return found


def refuse_objects(data: object) -> None:
    """Refuse a buffer that holds Python objects, whose references would be overwritten."""
    if isinstance(data, bytes | bytearray):
        return
    if isinstance(data, np.ndarray):
        plain_dtype(data.dtype)
        return
    try:
        found = memoryview(data).format  # type: ignore[arg-type]
    except (TypeError, ValueError, BufferError):  # no buffer, or one without a format
        return
    # Names of fields stand between colons.
    if "O" in re.sub(":[^:]*:", "", found):
        msg = f"{type(data).__name__} of format {found!r} holds Python objects"
        raise TypeError(msg)


def pointer(array: np.ndarray, *, writable: bool) -> Any:
    """Return a C pointer to the bytes of a C-contiguous array, which it keeps alive."""
    try:
        return from_buffer(BYTES, array, writable)
    except (ValueError, BufferError):  # what has no buffer format, datetime64 among them
        return from_buffer(BYTES, array.reshape(-1).view("u1"), writable)


def describe(number: int) -> str:
    """Write a number of bytes in hex and in decimal."""
    return f"{number:#x} ({number})" if number >= 0 else str(number)


def place(operation: str, offset: int, nbytes: int) -> str:
    """Say which call it was."""
    length = describe(nbytes) if nbytes > 9999 else nbytes
    return f"{operation} of {length} bytes at {describe(offset)}"


def failure(
    code: int, report: Any, operation: str, offset: int, nbytes: int, total: int
) -> Exception:
    """
    Turn what a native function returned into the exception to raise.

    Parameters
    ----------
    code : int
        One of ``sa_code`` in `native/api.h`.
    report : cdata
        The call's ``sa_report``, which is not put back.
    operation : str
        The verb for messages.
    offset, nbytes : int
        The range asked for, in bytes.
    total : int
        Length of the buffer in bytes.
    """
    what = place(operation, offset, nbytes)
    if code == lib.SA_BOUNDS:
        return out_of_bounds(what, total)
    return _MAKERS[code](report, what)


def box_failure(
    code: int, report: Any, operation: str, offset: int, nbytes: int, total: int
) -> Exception:
    """Make the same of calls on tiles, whose lists can find no memory, and are at no offset."""
    if code == lib.SA_SYSTEM and report.sys_errno == errno.ENOMEM:
        return MemoryError(f"{operation} of {describe(nbytes)} bytes: no memory for it")
    return failure(code, report, operation, max(offset, 0), nbytes, total)


def out_of_bounds(what: str, total: int) -> OutOfBoundsError:
    """Make the error for a range past the end."""
    return OutOfBoundsError(f"{what}: the buffer has {describe(total)} bytes")


def _access_error(report: Any, what: str) -> AccessError:
    reason = REASONS[report.reason]
    offset: int = report.offset
    file = _file(report)
    tail = f" of {file!r}" if file else ""
    message = f"{what}: byte {describe(offset)}{tail} {_EXPLANATIONS[reason]}"
    done: int = report.transferred
    if done:
        message += f"; {done} bytes were done"
    operation = "write" if report.write else "read"
    return AccessError(message, offset, operation, reason, done, file)


def _file(report: Any) -> str | None:
    name: str = os.fsdecode(ffi.string(report.file))
    return name or None


def _system_error(report: Any, what: str) -> OSError:
    number: int = report.sys_errno
    message = f"{what}: {os.strerror(number)}"
    if number == errno.ENOMEM:
        message += _mapping_limit()
    file = _file(report)
    return OSError(number, message, file) if file else OSError(number, message)


def count_mappings() -> tuple[int, int] | None:
    """
    Count the mappings that the process has.

    Returns
    -------
    (int, int) or None
        How many, and how many it may have: ``vm.max_map_count``, proc_sys_vm(5). None where there
        is no ``/proc``, or no memory to look.
    """
    try:
        with open("/proc/sys/vm/max_map_count", "rb") as file:
            limit = int(file.read(32))
        count = 0
        with open("/proc/self/maps", "rb", buffering=0) as file:
            # In small pieces: at the limit there may be no memory for large ones.
            while piece := file.read(1 << 12):
                count += piece.count(b"\n")
    except (OSError, MemoryError):
        return None
    return count, limit


def _mapping_limit() -> str:
    """If the process has about as many mappings as it may, say so."""
    count, limit = count_mappings() or (0, 1)
    if count < _MANY_MAPPINGS * limit:
        return ""
    return (
        f"; the process has {count} mappings of the {limit} that vm.max_map_count allows "
        "(join neighbouring regions, or raise it with sysctl)"
    )


def _pinned(report: Any, what: str) -> BufferError:
    count: int = report.count
    start: int = report.start
    stop: int = report.stop
    windows = "1 live window is" if count == 1 else f"{count} live windows are"
    return BufferError(
        f"{what}: {windows} over it, between {describe(start)} and {describe(stop)}; "
        "delete them and the arrays made from them first"
    )


def _file_end(report: Any, what: str) -> ValueError:
    size: int = report.count
    return ValueError(
        f"{what}: past the end of {_file(report)!r}, which has {describe(size)} bytes"
    )


def _huge_page(report: Any, what: str) -> ValueError:
    size: int = report.count
    at: int = report.offset
    return ValueError(
        f"{what}: not in whole huge pages of {describe(size)} bytes at {describe(at)}"
    )


def _closed(_: Any, what: str) -> ClosedError:
    return ClosedError(f"{what}: the buffer is closed")


def _negative(_: Any, what: str) -> ValueError:
    return ValueError(f"{what}: negative")


def _misaligned(_: Any, what: str) -> ValueError:
    return ValueError(
        f"{what}: not in whole pages of {describe(lib.sa_page_size())} bytes, or empty"
    )


def _unsupported(_: Any, what: str) -> UnsupportedError:
    return UnsupportedError(f"{what}: this system has no such thing")


def _file_named(report: Any, what: str) -> ValueError:
    return ValueError(
        f"{what}: byte {describe(report.offset)} lies in a window of {_file(report)!r}, "
        "which carries that name already"
    )


def _bad_flag(report: Any, what: str) -> ValueError:
    return ValueError(
        f"{what}: a reservation cannot take {_file(report)}: what it maps must stay inside it "
        "and be given back page by page"
    )


_MAKERS: dict[int, Callable[[Any, str], Exception]] = {
    lib.SA_CLOSED: _closed,
    lib.SA_NEGATIVE: _negative,
    lib.SA_MISALIGNED: _misaligned,
    lib.SA_ACCESS: _access_error,
    lib.SA_PINNED: _pinned,
    lib.SA_SYSTEM: _system_error,
    lib.SA_UNSUPPORTED: _unsupported,
    lib.SA_FILE_END: _file_end,
    lib.SA_HUGE_PAGE: _huge_page,
    lib.SA_FILE_NAMED: _file_named,
    lib.SA_BAD_FLAG: _bad_flag,
}
