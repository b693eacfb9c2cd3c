"""
Steps of all kinds in any order, taken by a buffer and by its model in plain Python.

Every example is taken in a forked child first: a crash or a hang there is a failing example, which names
its steps. What ends well there is taken again in the test's own process, where hypothesis can make a
failure small.
"""

import os
import random
import signal
import sys
import threading
import time
import traceback
import warnings
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from sparsearray import AccessError, ClosedError, OutOfBoundsError
from sparsearray.testing import SparseBufferMachine

_HANGS = 120  # seconds


class ForkedMachine(SparseBufferMachine):
    """Takes its steps in a child first, beside threads that read."""

    readers = 0

    def __init__(self) -> None:
        self._failure = ""
        self._is_child = False
        read_end, self._say_to = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of fork with threads
            pid = os.fork()
        if pid == 0:
            self._is_child = True
            signal.alarm(_HANGS)
            super().__init__()
            self._start_readers()
            return
        os.close(self._say_to)
        with os.fdopen(read_end, errors="replace") as pipe:
            said = pipe.read()
        status = os.waitpid(pid, 0)[1]
        if os.WIFSIGNALED(status):
            name = signal.Signals(os.WTERMSIG(status)).name
            msg = f"the child was ended by {name} after these steps: {said}"
            raise AssertionError(msg)
        if os.WEXITSTATUS(status):
            self._failure = said
        super().__init__()

    def _start_readers(self) -> None:
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._read, args=(i,), daemon=True) for i in range(self.readers)
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, seed: int) -> None:
        """Read here and there; each call sees the pages before or after a change."""
        rng = random.Random(seed)
        while not self._stop.is_set():
            buffer: Any = getattr(self, "real", None)
            if buffer is None:
                continue
            offset, nbytes = rng.randrange(buffer.nbytes), rng.randrange(1, 9000)
            time.sleep(0.0005)  # the steps are to come between
            try:
                with suppress(AccessError, ClosedError, OutOfBoundsError):
                    buffer.read_at(offset, nbytes)
                with suppress(AccessError, ClosedError, OutOfBoundsError):
                    buffer.gather([offset], "u2")
                with suppress(AccessError, ClosedError):
                    buffer.extents()
                with suppress(ClosedError):
                    _ = buffer.regions, buffer.damage
            except BaseException:  # noqa: BLE001 - whatever it is, the example fails
                self._failure = traceback.format_exc()
                return

    def check_invariants(self, *arguments: Any, **options: Any) -> None:
        """Tell the parent how far it came, too."""
        if self._is_child:
            os.write(self._say_to, b".")
        super().check_invariants(*arguments, **options)

    def teardown(self) -> None:
        """End the child; fail where it failed alone."""
        error = sys.exc_info()[1]
        if self._is_child:
            self._stop.set()
            for thread in self._threads:
                thread.join()
            # Exceptions of hypothesis only end an example.
            if isinstance(error, Exception) and not type(error).__module__.startswith("hypothesis"):
                self._failure = "".join(traceback.format_exception(error))
            os.write(self._say_to, self._failure[-60_000:].encode())
            os._exit(bool(self._failure))
        super().teardown()
        assert error is not None or not self._failure, self._failure


class MachineBesideReaders(ForkedMachine):
    """The same with two threads that read meanwhile."""

    readers = 2


# A step reads all bytes there are, so examples are slow to draw and no deadline fits all.
_SETTINGS = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestSparseBuffer = ForkedMachine.TestCase
TestSparseBuffer.settings = _SETTINGS
TestSparseBufferBesideReaders = MachineBesideReaders.TestCase
TestSparseBufferBesideReaders.settings = _SETTINGS


def test_a_crash_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the child alone, and so is a wrong value."""

    def crash(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(ForkedMachine, "_start_readers", crash)
    with pytest.raises(AssertionError, match="ended by SIGKILL"):
        ForkedMachine()
    monkeypatch.undo()

    def fail(machine: ForkedMachine) -> None:
        machine._stop, machine._threads = threading.Event(), []
        try:
            raise ZeroDivisionError
        finally:
            machine.teardown()

    monkeypatch.setattr(ForkedMachine, "_start_readers", fail)
    machine = ForkedMachine()
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        machine.teardown()
