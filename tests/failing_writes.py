"""The system calls that write, made to fail one by one."""

import errno
import os
from collections.abc import Callable
from typing import Any, Self

OPERATIONS = ("ftruncate", "pwrite", "fdatasync", "fsync", "replace", "open", "fchmod")


class Faults:
    """Has the n-th of the system calls that write fail, before or after it was made."""

    def __init__(self, at: int, error: BaseException, *, after: bool) -> None:
        self.at, self.error, self.after = at, error, after
        self.calls: list[str] = []

    def __enter__(self) -> Self:
        self.real = {name: getattr(os, name) for name in OPERATIONS}
        for name in OPERATIONS:
            setattr(os, name, self._wrap(name))
        return self

    def __exit__(self, *_: object) -> None:
        for name, function in self.real.items():
            setattr(os, name, function)

    def _wrap(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            self.calls.append(name)
            hit = len(self.calls) == self.at
            if hit and not self.after:
                raise self.error
            result = self.real[name](*arguments, **more)
            if hit:
                if name == "open":
                    os.close(result)
                raise self.error
            return result

        return call

    @property
    def hit(self) -> bool:
        """Whether the call was reached."""
        return len(self.calls) >= self.at


FAULTS = [
    (OSError(errno.EIO, "disk on fire"), False),
    (OSError(errno.ENOSPC, "no space"), False),
    (KeyboardInterrupt(), False),
    (KeyboardInterrupt(), True),
]
FAULT_IDS = ["EIO", "ENOSPC", "interrupt before", "interrupt after"]
