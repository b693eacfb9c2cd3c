r"""
Pieces of files put together in one buffer, each where its address wants it.

Addresses may be anywhere below 2^64, and a process has no such range. What touches is a cluster,
and lies in the buffer as it does in its address space, page by page; clusters lie one behind
another::

    addresses - -[a][b] - ----------------------[c] - -----------------------------[d]
    buffer[a][b][c][d]

Nothing is kept between them: each access is looked up in the table first, to the byte, and never
reaches from one into the next. So the pages of a kernel's core, whose segments lie in its file in
the same order, are a single mapping, where a process may have no more than some 65,000.
"""

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from math import inf
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparsearray._binding import count_mappings, describe
from sparsearray._descriptor import Descriptor
from sparsearray._memory import UNCHECKED, available_memory
from sparsearray._spans import Span, SpanTable
from sparsearray._text import size
from sparsearray.buffer import SparseBuffer
from sparsearray.errors import ClosedError

from ._reading import read_part

__all__ = ["Piece", "assemble", "check_disjoint"]

_MOST = 1 << 46  # bytes of all pieces: about what a process has room for
_FEW = 1 << 16  # bytes that are not worth a look for holes in their file
_CHUNK = 1 << 20  # bytes copied at a time
_MANY = 4096  # pieces that are mapped without looking whether there can be as many mappings
_SPARE = 512  # mappings that are left to others


class Piece(NamedTuple):
    """Bytes for a range of addresses."""

    address: int
    nbytes: int
    source: Descriptor | bytes | None
    """A file, the bytes themselves, or None for zeros."""
    file_offset: int
    """Where in the file they begin."""
    label: str
    """What it is called in messages."""

    @property
    def stop(self) -> int:
        """The address behind the last byte."""
        return self.address + self.nbytes


def check_disjoint(pieces: Iterable[Piece], what: str, limit: int = 1 << 64) -> None:
    """
    Check that pieces fit in their address space.

    Raises
    ------
    ValueError
        One wraps around the end, `limit`, or two overlap.
    """
    before = None
    for piece in sorted((piece for piece in pieces if piece.nbytes), key=_address):
        if piece.stop > limit:
            msg = (
                f"{what}: {piece.label} at address {describe(piece.address)} has "
                f"{describe(piece.nbytes)} bytes, and wraps around the end of the address space, "
                f"{limit:#x}"
            )
            raise ValueError(msg)
        if before is not None and piece.address < before.stop:
            msg = (
                f"{what}: {piece.label} at address {describe(piece.address)} overlaps "
                f"{before.label} at address {describe(before.address)}, which has "
                f"{describe(before.nbytes)} bytes"
            )
            raise ValueError(msg)
        before = piece


def _check_room(pieces: Sequence[Piece], what: str) -> None:
    total = sum(piece.nbytes for piece in pieces)
    if total > _MOST:
        largest = max(pieces, key=lambda piece: piece.nbytes)
        msg = (
            f"{what}: {describe(total)} bytes are more than a process has room for: "
            f"{describe(largest.nbytes)} for {largest.label} at address "
            f"{describe(largest.address)}"
        )
        raise ValueError(msg)


def _address(piece: Piece) -> int:
    return piece.address


def assemble(pieces: Iterable[Piece], what: str) -> tuple[SparseBuffer, SpanTable]:
    """
    Put pieces in a new buffer, all of it read-only.

    Parameters
    ----------
    pieces : iterable of Piece
        Disjoint: see `check_disjoint`.
    what : str
        The image, for messages and the buffer's name.

    Returns
    -------
    buffer : SparseBuffer
        What lies on whole pages of a file is mapped, all else is copied.
    table : SpanTable
        Which bytes are there, and where.

    Raises
    ------
    OSError
        A file cannot be mapped or read, there is no room for the buffer, or a process may not have
        as many mappings.
    MemoryError
        What must be copied does not fit.
    ValueError
        A file is shorter than its piece, or all together are more than a process can map.
    """
    page = os.sysconf("SC_PAGESIZE")
    ordered = sorted((piece for piece in pieces if piece.nbytes), key=_address)
    _check_room(ordered, what)
    offsets, nbytes = _places(ordered, page)
    # To count the mappings of the process takes a while.
    if len(ordered) > _MANY and _mappings_left() <= _least_mappings(ordered, offsets, page):
        raise _too_many(ordered, what)
    buffer = SparseBuffer(max(nbytes, page), name=what)
    try:
        _fill(buffer, ordered, offsets, page)
    except BaseException as error:
        is_full = (
            isinstance(error, OSError) and error.errno == errno.ENOMEM and _mappings_left() <= 0
        )
        with suppress(ClosedError):  # the core may have closed it itself
            buffer.close()
        if is_full:
            raise _too_many(ordered, what) from error
        raise
    spans = (
        Span(piece.address, piece.nbytes, offset)
        for piece, offset in zip(ordered, offsets, strict=True)
    )
    return buffer, SpanTable(spans)


def _fill(buffer: SparseBuffer, pieces: Sequence[Piece], offsets: Sequence[int], page: int) -> None:
    """Put pieces in place. OSError (ENOMEM) also where that leaves too few mappings to others."""
    with ExitStack() as kept:
        builder = _Builder(buffer, page, kept)
        builder.check_memory(pieces, offsets)
        for piece, offset in zip(pieces, offsets, strict=True):
            builder.put(piece, offset)
    for region in buffer.regions:
        if region.writable:
            buffer.set_writable(region.offset, region.nbytes, False)
    if len(pieces) > _MANY and _mappings_left() <= 0:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


def _places(pieces: Sequence[Piece], page: int) -> tuple[list[int], int]:
    """Find the offset of each piece, and the length of the buffer."""
    offsets: list[int] = []
    # Of the cluster: the address of its first page, its offset, the address behind its last page.
    first = start = stop = 0
    for piece in pieces:
        if not offsets or piece.address // page * page > stop:
            start += stop - first
            first = piece.address // page * page
        offsets.append(start + piece.address - first)
        stop = -(-piece.stop // page) * page
    return offsets, start + stop - first


def _mapped(piece: Piece, offset: int, page: int) -> tuple[int, int]:
    """Find the offsets between which a piece that lies at `offset` is mapped, not copied."""
    source = piece.source
    if source is None or (
        isinstance(source, Descriptor) and (piece.file_offset - offset) % page == 0
    ):
        first, last = -(-offset // page) * page, (offset + piece.nbytes) // page * page
        if first < last:
            return first, last
    return offset, offset


def _least_mappings(pieces: Sequence[Piece], offsets: Sequence[int], page: int) -> int:
    """Count windows of files, but for those that go on where the one before ends."""
    number = 0
    before = None
    for piece, offset in zip(pieces, offsets, strict=True):
        first, last = _mapped(piece, offset, page)
        if first < last and isinstance(piece.source, Descriptor):
            place = piece.source.fd, piece.file_offset - offset
            number += before != (*place, first)
            before = (*place, last)
    return number


def _mappings_left() -> float:
    """Count how many mappings the process may still have, but for some that are for others."""
    used, limit = count_mappings() or (0, inf)
    return limit - used - _SPARE


def _too_many(pieces: Sequence[Piece], what: str) -> OSError:
    msg = (
        f"{what}: its {len(pieces)} parts take more mappings than the "
        f"{max(_mappings_left(), 0)} that are left of those that vm.max_map_count allows "
        "(raise it with sysctl)"
    )
    return OSError(errno.ENOMEM, msg)


class _Builder:
    """Fills a buffer from its start to its end."""

    def __init__(self, buffer: SparseBuffer, page: int, kept: ExitStack) -> None:
        self._buffer = buffer
        self._page = page
        self._kept = kept  # buffers of whole files that are copied from
        self._sources: dict[int, SparseBuffer] = {}  # by descriptor
        self._private = 0  # pages before it are mapped

    def check_memory(self, pieces: Sequence[Piece], offsets: Sequence[int]) -> None:
        """Raise MemoryError for more copies than memory has room for."""
        copied = list(self._copies(pieces, offsets))
        nbytes = sum(length for _, length in copied)
        free = available_memory() if nbytes > UNCHECKED else None
        if free is None or nbytes <= free:
            return
        # Holes of files are not copied.
        nbytes = sum(min(length, self._stored(piece)) for piece, length in copied)
        if nbytes > free:
            msg = (
                f"{self._buffer.name}: {size(nbytes)} lie so that they must be copied, and "
                f"{size(free)} of memory are free"
            )
            raise MemoryError(msg)

    def _copies(
        self, pieces: Sequence[Piece], offsets: Sequence[int]
    ) -> Iterator[tuple[Piece, int]]:
        """Find how many bytes of memory each piece will take, in whole pages."""
        page, done = self._page, 0
        for piece, offset in zip(pieces, offsets, strict=True):
            first, last = _mapped(piece, offset, page)
            length = 0
            for start, stop in ((offset, first), (last, offset + piece.nbytes)):
                if start < stop and piece.source is not None:
                    end = -(-stop // page) * page
                    length += end - max(start // page * page, done)
                    done = end
            yield piece, length

    def _stored(self, piece: Piece) -> int:
        """Count the bytes of a piece that are in no hole of its file, in whole pages."""
        if isinstance(piece.source, Descriptor) and piece.nbytes > _FEW:
            found = self._source(piece.source).extents(piece.file_offset, piece.nbytes)
            # Pages here lie across those of the file.
            return int((found[:, 1] - found[:, 0]).sum()) + 2 * self._page * len(found)
        return piece.nbytes + 2 * self._page

    def put(self, piece: Piece, offset: int) -> None:
        """Map what can be mapped of a piece, whole pages, and copy what lies before and behind."""
        first, last = _mapped(piece, offset, self._page)
        self._copy(piece, offset, first, offset)
        if first < last:
            source = piece.source
            if isinstance(source, Descriptor):
                where = piece.file_offset + first - offset
                # A look for holes takes longer than mapping, and each may take one of its own.
                skip_holes = last - first > _FEW
                self._buffer.map_file(first, last - first, source, where, skip_holes=skip_holes)
            else:
                self._buffer.map_zero(first, last - first)
        self._copy(piece, last, offset + piece.nbytes, offset)

    def _copy(self, piece: Piece, start: int, stop: int, offset: int) -> None:
        """Put private memory under part of a piece that lies at `offset`, and fill it."""
        if start >= stop:
            return
        page = self._page
        # The piece before may lie on the first page, too.
        first, last = max(start // page * page, self._private), -(-stop // page) * page
        if first < last:
            self._buffer.alloc(first, last - first)
            self._private = last
        if isinstance(piece.source, bytes):
            self._buffer.write_at(start, piece.source[start - offset : stop - offset])
        elif piece.source is not None:
            where = piece.file_offset + start - offset
            self._copy_file(piece, piece.source, where, start, stop - start)

    def _copy_file(
        self, piece: Piece, file: Descriptor, file_offset: int, offset: int, nbytes: int
    ) -> None:
        if nbytes <= _FEW:
            data = read_part(file, file_offset, nbytes)
            if len(data) < nbytes:
                msg = (
                    f"{self._buffer.name}: {piece.label} at address {describe(piece.address)}: "
                    f"the file ends at {describe(file_offset + len(data))}, before it does"
                )
                raise ValueError(msg)
            self._buffer.write_at(offset, data)
            return
        source = self._source(file)
        scratch = np.empty(_CHUNK, "u1")
        for start, stop in source.extents(file_offset, nbytes).tolist():
            for at in range(start, stop, _CHUNK):
                data_part = scratch[: min(_CHUNK, stop - at)]
                source.read_into(at, data_part)
                # Pages of zeros take no memory, and no search looks at them.
                for first, last in self._filled(data_part, at - file_offset + offset):
                    self._buffer.write_at(at - file_offset + offset + first, data_part[first:last])

    def _source(self, file: Descriptor) -> SparseBuffer:
        """Map all of a file, without its holes, to copy from."""
        if file.fd not in self._sources:
            whole = -(-os.fstat(file.fd).st_size // self._page) * self._page
            source = self._kept.enter_context(SparseBuffer(whole))
            source.map_file(0, whole, file, skip_holes=True)
            self._sources[file.fd] = source
        return self._sources[file.fd]

    def _filled(self, data: NDArray[np.uint8], offset: int) -> Iterator[tuple[int, int]]:
        """Find runs of pages that are not all zeros in `data`, which is for an offset."""
        page = self._page
        lead = min(-offset % page, len(data))
        whole = (len(data) - lead) // page
        middle = data[lead : lead + whole * page].reshape(whole, page)
        filled = np.concatenate(
            ([data[:lead].any()], middle.any(axis=1), [data[lead + whole * page :].any()])
        )
        edges = np.flatnonzero(np.diff(filled, prepend=False, append=False))
        for first, last in edges.reshape(-1, 2).tolist():
            yield (
                lead + (first - 1) * page if first else 0,
                min(lead + (last - 1) * page, len(data)),
            )
