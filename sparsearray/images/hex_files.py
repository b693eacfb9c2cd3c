"""`open_ihex` and `open_srec`: memory written as text, one record a line."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from numpy.typing import DTypeLike

from sparsearray._descriptor import opened
from sparsearray._optional import needed

from ._assembly import Piece, assemble, check_disjoint
from ._reading import read_all
from .image import Image
from .raw import as_pointer
from .segment import Segment

__all__ = ["open_ihex", "open_srec"]

_LIMIT = 1 << 32  # of the addresses that both formats can say


class _Record(NamedTuple):
    line: int
    address: int
    data: bytes


def open_ihex(file: Any, *, pointer: DTypeLike | None = None) -> Image:
    r"""
    Open a file in Intel's hexadecimal format.

    Parameters
    ----------
    file : path, int or object with ``fileno()``
        What to open. It may be closed at once.
    pointer : dtype, optional
        Of an address in that memory, such as ``'<u4'``: `Image.pointer`.

    Returns
    -------
    Image
        A segment for each run of bytes without a gap. They are copies.

    Raises
    ------
    ImportError
        bincopy is not installed.
    OSError
        The file cannot be opened, or is no regular file.
    ValueError
        A line is damaged, bytes are given twice, or the end-of-file record is missing.
    TypeError
        `pointer` is no unsigned integer type.

    References
    ----------
    Intel, Hexadecimal Object File Format Specification, revision A, 1988

    Examples
    --------
    >>> import tempfile
    >>> from sparsearray.images import open_ihex
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(b":040100007370616D4A\n:00000001FF\n"), file.flush()
    ...     image = open_ihex(file)
    >>> image.read_at(0x100, 4)
    b'spam'
    """
    return _open_text(file, _read_ihex, "open_ihex", pointer)


def open_srec(file: Any, *, pointer: DTypeLike | None = None) -> Image:
    r"""
    Open a file of Motorola's S-records.

    Parameters
    ----------
    file : path, int or object with ``fileno()``
        What to open. It may be closed at once.
    pointer : dtype, optional
        Of an address in that memory, such as ``'>u4'``: `Image.pointer`.

    Returns
    -------
    Image
        A segment for each run of bytes without a gap. They are copies.

    Raises
    ------
    ImportError
        bincopy is not installed.
    OSError
        The file cannot be opened, or is no regular file.
    ValueError
        A line is damaged, bytes are given twice, or there are not as many records as a record that
        counts them says.
    TypeError
        `pointer` is no unsigned integer type.

    References
    ----------
    Motorola, M68000 Family Programmer's Reference Manual, appendix C, 1992

    Examples
    --------
    >>> import tempfile
    >>> from sparsearray.images import open_srec
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(b"S10701007370616D46\n"), file.flush()
    ...     image = open_srec(file)
    >>> image.read_at(0x100, 4)
    b'spam'
    """
    return _open_text(file, _read_srec, "open_srec", pointer)


_Lines = Iterator[tuple[int, str]]


def _open_text(
    file: Any,
    read: Callable[[Any, str, _Lines], Iterator[_Record]],
    what: str,
    pointer: DTypeLike | None,
) -> Image:
    bincopy = needed("bincopy", what, "images")
    dtype = as_pointer(pointer)
    with opened(file, writable=False) as descriptor:
        name = os.fsdecode(descriptor.name)
        mode = os.fstat(descriptor.fd).st_mode
        # Devices may have no end; to read a folder fails with an error of its own.
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise OSError(errno.EINVAL, "not a regular file", name)
        data = read_all(descriptor)
    # Any byte becomes a character: those that no record has are damage, told with their line.
    lines = ((i, line.decode("latin-1").strip()) for i, line in enumerate(data.splitlines(), 1))
    records = list(read(bincopy, name, ((i, line) for i, line in lines if line)))
    if not records:
        msg = f"{name}: no data"
        raise ValueError(msg)
    pieces = [
        Piece(record.address, len(record.data), record.data, 0, f"line {record.line}")
        for record in records
    ]
    check_disjoint(pieces, name, _LIMIT)
    runs = list(_join(pieces))
    buffer, table = assemble(runs, name)
    segments = (Segment(run.address, run.nbytes, run.nbytes, "", name, None, None) for run in runs)
    return Image(name, tuple(segments), buffer, table, dtype)


def _join(pieces: list[Piece]) -> Iterator[Piece]:
    """Join pieces of bytes that touch."""
    ordered = sorted(pieces, key=lambda piece: piece.address)
    edges = [i for i in range(1, len(ordered)) if ordered[i - 1].stop != ordered[i].address]
    for first, last in zip([0, *edges], [*edges, len(ordered)], strict=True):
        data = b"".join(piece.source for piece in ordered[first:last])  # type: ignore[misc]
        yield ordered[first]._replace(nbytes=len(data), source=data)


def _unpack(bincopy: Any, unpack: Callable[[str], Any], name: str, line: int, text: str) -> Any:
    try:
        return unpack(text)
    except (bincopy.Error, ValueError, IndexError) as error:
        msg = f"{name}: line {line}: {error}"
        raise ValueError(msg) from error


def _read_ihex(bincopy: Any, name: str, lines: _Lines) -> Iterator[_Record]:
    """Read the data of Intel HEX records."""
    bases = {bincopy.IHEX_EXTENDED_SEGMENT_ADDRESS: 4, bincopy.IHEX_EXTENDED_LINEAR_ADDRESS: 16}
    base = dict.fromkeys(bases, 0)
    starts = bincopy.IHEX_START_SEGMENT_ADDRESS, bincopy.IHEX_START_LINEAR_ADDRESS
    ended = False
    for line, text in lines:
        if ended:
            msg = f"{name}: line {line}: more after the end-of-file record"
            raise ValueError(msg)
        kind, address, _, data = _unpack(bincopy, bincopy.unpack_ihex, name, line, text)
        if kind == bincopy.IHEX_DATA and data:
            yield _Record(line, sum(base.values()) + address, bytes(data))
        elif kind in bases:
            if len(data) != 2:
                msg = f"{name}: line {line}: an address of {len(data)} bytes, not 2"
                raise ValueError(msg)
            base[kind] = int.from_bytes(data, "big") << bases[kind]
        elif kind not in (bincopy.IHEX_DATA, bincopy.IHEX_END_OF_FILE, *starts):
            msg = f"{name}: line {line}: unknown type {kind} of record"
            raise ValueError(msg)
        ended = kind == bincopy.IHEX_END_OF_FILE
    if not ended:
        msg = f"{name}: the end-of-file record is missing: it was cut short"
        raise ValueError(msg)


def _read_srec(bincopy: Any, name: str, lines: _Lines) -> Iterator[_Record]:
    """Read the data of S-records."""
    number = 0
    for line, text in lines:
        kind, address, _, data = _unpack(bincopy, bincopy.unpack_srec, name, line, text)
        if kind in "123":
            number += 1
            if data:
                yield _Record(line, address, bytes(data))
        elif kind in "56":
            bits = 16 if kind == "5" else 24
            if number % (1 << bits) != address:
                msg = f"{name}: line {line}: {address} records are counted, and there are {number}"
                raise ValueError(msg)
