"""The end of a ``with`` block."""

import warnings
from types import TracebackType
from typing import Self

from .errors import AccessError, SparseDamageWarning

__all__ = ["Closing", "warn_of"]


class Closing:
    """What is closed at the end of a ``with`` block."""

    __slots__ = ()

    def close(self) -> None:
        """Give back what it holds."""
        raise NotImplementedError

    def _settle(self) -> AccessError | None:
        """Make the error for what was lost and never told; raise that which can be mended."""
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        error = None
        try:
            error = self._settle()
            self.close()
        except (BufferError, AccessError) as open_still:
            # An exception in the block says more; the memory goes with the last window.
            if kind is None:
                raise open_still from error
            if isinstance(open_still, AccessError):
                warn_of(open_still, 2)
        if error is not None:
            if kind is None:
                raise error
            warn_of(error, 2)


def warn_of(error: AccessError, stacklevel: int) -> None:
    """Warn of what was lost, and nobody asked for."""
    message = f"{error.strerror}; see SparseBuffer.damage"
    warnings.warn(message, SparseDamageWarning, stacklevel=stacklevel + 1)
