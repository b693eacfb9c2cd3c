"""Signals that wait until what is being written is whole, or gone again."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType

__all__ = ["held_off"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def held_off() -> Iterator[Callable[[], None]]:
    """
    Have signals that Python code handles wait for the end of a block, also a second Ctrl-C.

    Yields
    ------
    callable
        Handles those that came so far: between two steps of long work. It raises what their
        handlers raise, as KeyboardInterrupt.

    References
    ----------
    signal(7)
    """
    came: list[int] = []
    held: dict[int, Callable[[int, FrameType | None], object]] = {}

    def handle() -> None:
        while came:
            number = came.pop(0)
            held[number](number, None)

    if current_thread() is main_thread():  # which alone signals interrupt
        for one in _SIGNALS:
            handler = signal.getsignal(one)
            if callable(handler):
                held[one] = handler
                signal.signal(one, lambda number, _frame: came.append(number))
    try:
        yield handle
    finally:
        for number, old in held.items():
            signal.signal(number, old)
        handle()
