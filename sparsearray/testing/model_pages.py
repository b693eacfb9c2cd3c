"""What a `ModelBuffer` consists of: files and pages."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["ModelFile", "ModelPage"]


@dataclass(eq=False)
class ModelFile:
    """A file: what `Region.file` calls it, and its bytes.

    Parameters
    ----------
    name : str
        The name that regions of the file carry.
    data : bytearray
        Its contents. Write into them as you like, but let `ModelBuffer.truncate` change their
        number.
    """

    name: str
    data: bytearray = field(default_factory=bytearray)


@dataclass
class ModelPage:
    """A page that is mapped, and how."""

    kind: str
    writable: bool
    readable: bool = True
    shared: bool = False
    """Whether others see what is written to it."""
    file: ModelFile | None = None
    file_offset: int = 0
    file_size: int = 0
    """Bytes in the file when the page was mapped."""
    may_write: bool = True
    """Whether `set_writable` can make it writable."""
    piece: int = 0
    """Of raw mappings, which are never joined."""
    memory: bytearray | None = None
    """Its own bytes, once it has any."""
    damaged: bool = False
    """Whether a window met it when its file had lost it: it then has zeros of its own."""

    def continues(self, before: ModelPage, page_size: int) -> bool:
        """Whether this page, right behind `before`, is of the same region."""
        return (
            (self.kind, self.piece, self.writable, self.readable)
            == (before.kind, before.piece, before.writable, before.readable)
            and (self.file, self.shared) == (before.file, before.shared)
            and (self.file is None or self.file_offset == before.file_offset + page_size)
        )
