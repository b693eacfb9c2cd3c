"""Signals that end a command: it cleans up before."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

__all__ = ["EndedError", "cleaning_up"]

# A Ctrl-C is KeyboardInterrupt already.
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class EndedError(BaseException):
    """A signal came that ends the process: not an Exception, as KeyboardInterrupt is none."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    raise EndedError(number)


@contextmanager
def cleaning_up() -> Iterator[None]:
    """
    Have SIGTERM and SIGHUP raise `EndedError` where they would end the process at once.

    References
    ----------
    signal(7)
    """
    replaced = [number for number in _SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    try:
        for number in replaced:
            signal.signal(number, _end)
    except ValueError:  # not the main thread: then signals are somebody else's matter
        replaced = []
    try:
        yield
    finally:
        for number in replaced:
            signal.signal(number, signal.SIG_DFL)
