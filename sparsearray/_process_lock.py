"""A lock that a forked child finds free."""

import os
from threading import Lock

__all__ = ["ProcessLock"]


class ProcessLock:
    """
    A `threading.Lock` that a thread of the parent does not hold for ever in a forked child.

    There that thread is gone, and what it was about to do it does in the parent alone.

    Notes
    -----
    It is called for the lock, ``with lock():``. Were it a context manager itself, a Ctrl-C between
    the last step of its ``__enter__`` and the block would leave it locked for ever: only those
    written in C are entered and left at once.
    """

    __slots__ = ("_lock", "_process")

    def __init__(self) -> None:
        self._lock, self._process = Lock(), os.getpid()

    def __call__(self) -> Lock:
        """Return the lock of this process."""
        if self._process != os.getpid():  # then this thread is the only one
            self._lock, self._process = Lock(), os.getpid()
        return self._lock
