"""What `SparseBuffer.regions` is made of."""

from typing import NamedTuple

__all__ = ["Region"]


class Region(NamedTuple):
    """
    A maximal run of pages that are mapped the same way.

    Examples
    --------
    >>> from sparsearray import SparseBuffer
    >>> buffer = SparseBuffer(1 << 40)
    >>> buffer.alloc(4096, 4096)
    >>> buffer.alloc(0, 4096)
    >>> buffer.regions
    (Region(offset=0, nbytes=8192, kind='private', writable=True, file=None, file_offset=None),)
    """

    offset: int
    """Of the first byte, in bytes from the start of the buffer."""
    nbytes: int
    """Length in bytes, whole pages."""
    kind: str
    """``'private'``, ``'zero'``, ``'file'`` or ``'raw'``."""
    writable: bool
    """Whether writes are allowed."""
    file: str | None
    """The file behind it, as it was called when it was first mapped; None for memory."""
    file_offset: int | None
    """Where in the file the region begins, in bytes; None for memory."""

    def _repr_html_(self) -> str:
        from .display import region_html

        return region_html(self)
