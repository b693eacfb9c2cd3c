"""A lock that a forked child finds free."""

import os
from threading import Lock

__all__ = ["ProcessLock"]


class ProcessLock:
    """
    A `threading.Lock` that a thread of the parent does not hold for ever in a forked child.

    There that thread is gone, and what it was about to do it does in the parent alone.
    """

    __slots__ = ("_lock", "_process")

    def __init__(self) -> None:
        self._lock, self._process = Lock(), os.getpid()

    def __enter__(self) -> None:
        if self._process != os.getpid():  # then this thread is the only one
            self._lock, self._process = Lock(), os.getpid()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
