"""What `Image.segments` is made of."""

from typing import NamedTuple

__all__ = ["Segment"]


class Segment(NamedTuple):
    """
    A range of addresses, as the file names it.

    Examples
    --------
    >>> import sys
    >>> from sparsearray.images import open_elf
    >>> with open_elf(sys.executable) as image:
    ...     code = next(one for one in image.segments if "x" in one.permissions)
    >>> code.permissions, code.nbytes == code.nbytes_in_file
    ('r-x', True)
    """

    address: int
    """Of the first byte."""
    nbytes: int
    """Length in memory, in bytes."""
    nbytes_in_file: int
    """How many of them, from the first, the file has."""
    permissions: str
    """``'r'``, ``'w'`` and ``'x'``, or ``'-'`` in their place; ``''`` where the file has none."""
    file: str
    """The file that was opened."""
    file_offset: int | None
    """Where in it the bytes begin; None where it has them as text."""
    name: str | None
    """In core dumps: the file that the process had mapped there, if it is known."""

    def _repr_html_(self) -> str:
        from ._html import segment_html

        return segment_html(self)
