"""A file that nobody else has open, and nobody else can open meanwhile."""

import errno
import fcntl
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["held_alone"]

_REASONS = {
    errno.EAGAIN: "somebody else has it open",
    errno.EACCES: "only its owner can keep others from opening it",
}


@contextmanager
def held_alone(fd: int, path: str) -> Iterator[Callable[[], bool]]:
    """
    Keep others from opening a file.

    Parameters
    ----------
    fd : int
        Its descriptor, for reading and writing.
    path : str
        Its name, for errors.

    Yields
    ------
    callable
        Tells whether nobody waits to open it. Who does waits for 45 seconds by default, and then
        has it.

    Raises
    ------
    OSError
        Somebody has it open, whether to read or to write, or has it mapped; or the file system,
        or the system, cannot keep others out.

    References
    ----------
    fcntl(2) on ``F_SETLEASE``
    """
    try:
        # Of the signal that says somebody waits: one that does nothing by default.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except (OSError, AttributeError) as error:
        number = getattr(error, "errno", errno.ENOTSUP)
        reason = _REASONS.get(number, "its file system cannot keep others from opening it")
        raise OSError(number, f"{reason}, so that it may be written meanwhile", path) from error
    try:
        yield lambda: fcntl.fcntl(fd, fcntl.F_GETLEASE) == fcntl.F_WRLCK
    finally:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
