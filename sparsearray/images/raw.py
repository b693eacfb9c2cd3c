"""`open_raw`: parts of any files at addresses of your own."""

import os
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from sparsearray._binding import describe, index
from sparsearray._descriptor import Descriptor, opened

from ._assembly import Piece, assemble, check_disjoint
from .image import Image
from .segment import Segment

__all__ = ["as_pointer", "open_raw"]


def open_raw(
    parts: Iterable[tuple[int, Any, int, int]],
    *,
    pointer: DTypeLike | None = None,
    name: str | None = None,
) -> Image:
    """
    Open parts of files as an address space.

    Parameters
    ----------
    parts : iterable of (address, file, offset, nbytes)
        Which bytes of which file are at an address. A file is a path, a descriptor or an object
        with ``fileno()``; it may be closed at once.
    pointer : dtype, optional
        Of an address in that memory, such as ``'<u4'``: `Image.pointer`.
    name : str, optional
        Of the image; that of the first file by default.

    Returns
    -------
    Image
        With a segment for each part.

    Raises
    ------
    OSError
        A file cannot be opened or mapped, or the process may not have as many mappings
        (ENOMEM), which ``vm.max_map_count`` sets.
    MemoryError
        There is not enough memory for what must be copied.
    ValueError
        There are no parts, one is empty, negative, past the end of its file or wraps around 2**64,
        or two overlap: which.
    TypeError
        `pointer` is no unsigned integer type, or a part is no such thing.

    Notes
    -----
    A part whose offset is as far into a page as its address is a window of the file, but for the
    first and the last page, if they are not whole; others are copied.

    Examples
    --------
    >>> import tempfile
    >>> from sparsearray.images import open_raw
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(b"spam and eggs"), file.flush()
    ...     image = open_raw([(0x8000, file, 0, 4), (0xFFFF_0000, file, 9, 4)])
    >>> image.read_at(0x8000, 4), image.read_at(0xFFFF_0000, 4), 0x8004 in image
    (b'spam', b'eggs', False)
    """
    dtype = as_pointer(pointer)
    pieces: list[Piece] = []
    segments: list[Segment] = []
    with ExitStack() as kept:
        # One descriptor for each file, whose parts may be more than a process has descriptors.
        found: dict[Any, Descriptor] = {}
        for i, part in enumerate(parts):
            file, *numbers = _fields(i, part)
            path = os.fspath(file) if isinstance(file, str | bytes | os.PathLike) else None
            descriptor = found.get(path)
            if descriptor is None:
                descriptor = kept.enter_context(opened(file, writable=False))
            if path is not None:
                found[path] = descriptor
            piece = _piece(i, descriptor, *numbers)
            pieces.append(piece)
            sizes = piece.address, piece.nbytes, piece.nbytes
            name_of_file = os.fsdecode(descriptor.name)
            segments.append(Segment(*sizes, "", name_of_file, piece.file_offset, None))
        if not pieces:
            msg = "no parts: an image has at least one"
            raise ValueError(msg)
        what = segments[0].file if name is None else name
        check_disjoint(pieces, what)
        buffer, table = assemble(pieces, what)
    return Image(what, tuple(segments), buffer, table, dtype)


def as_pointer(pointer: DTypeLike | None) -> np.dtype | None:
    """Return what was given for the dtype of an address."""
    if pointer is None:
        return None
    dtype = np.dtype(pointer)
    if dtype.kind != "u":
        msg = f"pointer: {dtype} is no unsigned integer type"
        raise TypeError(msg)
    return dtype


def _fields(number: int, part: Any) -> tuple[Any, int, int, int]:
    """Return the file, the address, the offset and the length of what was given for a part."""
    try:
        address, file, offset, nbytes = part
        return file, index(address), index(offset), index(nbytes)
    except (TypeError, ValueError) as error:
        msg = f"part {number}: {part!r} is not (address, file, offset, nbytes): {error}"
        raise type(error)(msg) from None


def _piece(number: int, file: Descriptor, address: int, offset: int, nbytes: int) -> Piece:
    label = f"part {number}"
    what = (
        f"{label}, {describe(nbytes)} bytes of {os.fsdecode(file.name)!r} from {describe(offset)}"
    )
    if address < 0 or offset < 0 or nbytes < 0:
        msg = f"{what} at address {describe(address)}: negative"
        raise ValueError(msg)
    if not nbytes:
        msg = f"{what} at address {describe(address)}: empty"
        raise ValueError(msg)
    size = os.fstat(file.fd).st_size
    if offset + nbytes > size:
        msg = f"{what}: the file has {describe(size)} bytes"
        raise ValueError(msg)
    return Piece(address, nbytes, file, offset, label)
