"""What became of a call, and what the kernel says about it: to compare buffers with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparsearray.errors import AccessError

__all__ = ["KernelMapping", "Outcome", "agree", "kernel_mappings", "outcome"]


class Outcome(NamedTuple):
    """What became of a call, in a form that can be compared."""

    value: object = None
    error: type[Exception] | None = None
    details: tuple[object, ...] = ()


def outcome(call: Callable[[], object]) -> Outcome:
    """
    Run `call` and say what became of it.

    Parameters
    ----------
    call
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
        details = (error.reason, error.operation, error.offset, error.transferred, file)
        return Outcome(error=type(error), details=details)
    except Exception as error:  # noqa: BLE001 -- whatever it is, the other must raise it too
        return Outcome(error=type(error))
    if isinstance(value, np.ndarray | np.generic):
        value = (type(value), value.dtype, value.shape, value.tobytes())
    return Outcome(value)


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
    if actual != expected:
        msg = f"{what}: the buffer says {actual!r}, the model {expected!r}"
        raise AssertionError(msg)
