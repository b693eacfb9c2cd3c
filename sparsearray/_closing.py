"""The end of a ``with`` block."""

from types import TracebackType
from typing import Self

__all__ = ["Closing"]


class Closing:
    """What is closed at the end of a ``with`` block."""

    __slots__ = ()

    def close(self) -> None:
        """Give back what it holds."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except BufferError:
            # An exception in the block says more; the memory goes with the last window.
            if kind is None:
                raise
