"""What became of a call, and what the kernel says about it: to compare buffers with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sparsearray.errors import AccessError

__all__ = ["KernelMapping", "Outcome", "agree", "kernel_mappings", "outcome", "raw_bytes"]


class Outcome(NamedTuple):
    """What became of a call, in a form that can be compared."""

    value: object = None
    error: type[Exception] | None = None
    details: tuple[object, ...] = ()
    transferred: int = 0


def outcome(call: Callable[[], object]) -> Outcome:
    """
    Run `call` and say what became of it.

    Parameters
    ----------
    call : callable
        Takes nothing, and returns or raises anything.

    Returns
    -------
    Outcome
        Arrays and numpy scalars as their type, dtype, shape and bytes. Of an `AccessError` also
        the reason, operation, offset, bytes transferred and, where a file was cut short, its name.

    Examples
    --------
    >>> outcome(lambda: [][0]).error
    <class 'IndexError'>
    """
    try:
        value = call()
    except AccessError as error:
        file = error.filename if error.reason == "file-truncated" else None
        details = (error.reason, error.operation, error.offset, file)
        return Outcome(None, type(error), details, error.transferred)
    except Exception as error:  # noqa: BLE001 -- whatever it is, the other must raise it too
        return Outcome(error=type(error))
    if isinstance(value, np.ndarray | np.generic):
        value = (type(value), value.dtype, value.shape, raw_bytes(value))
    return Outcome(value)


def raw_bytes(array: np.ndarray[Any, Any] | np.generic) -> bytes:
    """Copy the bytes of all items, also those that `tobytes` leaves out: the padding of records."""
    array = np.asarray(array)
    return array.view(f"V{array.dtype.itemsize}").tobytes()


class KernelMapping(NamedTuple):
    """A line of `/proc/self/maps`."""

    start: int
    stop: int
    permissions: str
    file_offset: int
    inode: int


def kernel_mappings(start: int, stop: int) -> list[KernelMapping]:
    """List what this process has mapped between two addresses, as the kernel tells it."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, permissions, file_offset, _, inode = line.split(maxsplit=5)[:5]
        first, last = (int(number, 16) for number in span.split("-"))
        if first < stop and last > start:
            found.append(KernelMapping(first, last, permissions, int(file_offset, 16), int(inode)))
    return found


def agree(what: str, actual: object, expected: object) -> None:
    """Raise AssertionError, naming `what`, if the two differ."""
    if actual == expected:
        return
    one, other = (side.value if isinstance(side, Outcome) else side for side in (actual, expected))
    first, second = repr(actual)[:999], repr(expected)[:999]
    if isinstance(one, bytes) and isinstance(other, bytes):
        differ = (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
        at = next(differ, min(len(one), len(other)))
        first, second = (
            f"{len(data)} bytes, from {at} on {data[at : at + 16]!r}" for data in (one, other)
        )
    msg = f"{what[:199]}: the buffer says {first}; the model says {second}"
    raise AssertionError(msg)
