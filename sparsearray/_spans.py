"""Where the bytes of an address space lie in a buffer: a table, and what is found through it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._binding import BYTES, failure, ffi, from_buffer, lib, pointer, put_back, take

if TYPE_CHECKING:
    from .buffer import SparseBuffer

__all__ = ["Absent", "Span", "SpanTable", "search"]

_GATHER_PIECE = 1 << 20  # records between two chances for a Ctrl-C
_FOUND = 1 << 12  # places of one native call


class Span(NamedTuple):
    """A run of bytes: at which address, how many, and where in the buffer."""

    address: int
    nbytes: int
    offset: int


class Absent(Exception):  # noqa: N818 - it never reaches users
    """A byte is in no span."""

    def __init__(self, address: int, index: int = 0) -> None:
        super().__init__(address, index)
        self.address = address
        self.index = index


class SpanTable:
    """
    Where runs of an address space lie in a buffer.

    Parameters
    ----------
    spans : iterable of Span
        Sorted by address, and by offset; those that touch are joined, where they also do in the
        buffer.
    """

    __slots__ = ("_addresses", "_native", "_offsets", "_table", "spans")

    def __init__(self, spans: Iterable[Span]) -> None:
        joined: list[Span] = []
        for span in spans:
            if not span.nbytes:
                continue
            if joined:
                last = joined[-1]
                if (last.address + last.nbytes, last.offset + last.nbytes) == (span[0], span[2]):
                    joined[-1] = last._replace(nbytes=last.nbytes + span.nbytes)
                    continue
            joined.append(span)
        self.spans = tuple(joined)
        self._addresses = [span.address for span in joined]
        self._offsets = [span.offset for span in joined]
        self._table: NDArray[np.uint64] = np.array(joined, np.uint64).reshape(-1, 3)
        self._native = ffi.from_buffer("sa_span[]", self._table)

    @property
    def nbytes(self) -> int:
        """Bytes in all spans."""
        return sum(span.nbytes for span in self.spans)

    def find(self, address: int, nbytes: int) -> int:
        """
        Find the offset of bytes that are all there.

        Raises
        ------
        Absent
            One is not: the first such address.
        """
        i = bisect_right(self._addresses, address) - 1
        if i >= 0:
            span = self.spans[i]
            inside = address - span.address
            if inside < span.nbytes:
                if nbytes <= span.nbytes - inside:
                    return span.offset + inside
                raise Absent(span.address + span.nbytes)
        raise Absent(address)

    def between(self, start: int, stop: int) -> Iterator[Span]:
        """Go through what is there of a range of addresses."""
        for i in range(max(bisect_right(self._addresses, start) - 1, 0), len(self.spans)):
            span = self.spans[i]
            if span.address >= stop:
                return
            first, last = max(span.address, start), min(span.address + span.nbytes, stop)
            if first < last:
                yield Span(first, last - first, span.offset + first - span.address)

    def address_of(self, offset: int) -> int:
        """Find the address of a byte of the buffer, which is in a span or just behind one."""
        span = self.spans[max(bisect_right(self._offsets, offset) - 1, 0)]
        return span.address + offset - span.offset

    def gather(
        self, buffer: SparseBuffer, addresses: NDArray[np.uint64], nbytes: int, out: NDArray[Any]
    ) -> None:
        """
        Read records.

        Parameters
        ----------
        buffer : SparseBuffer
            Where they lie.
        addresses : ndarray of uint64
            C-contiguous.
        nbytes : int
            Of a record, not 0.
        out : ndarray
            C-contiguous, with room for them.

        Raises
        ------
        Absent
            A byte is not there: its address, and which record that is.
        AccessError
            The file has lost it.
        """
        flat = addresses.reshape(-1)
        where = ffi.cast("uint64_t *", from_buffer(BYTES, flat))
        payload = ffi.cast("char *", pointer(out, writable=True))
        report = take()
        for start in range(0, flat.size, _GATHER_PIECE):
            code = lib.sa_gather_spans(
                buffer._reservation,
                self._native,
                len(self.spans),
                where + start,
                min(_GATHER_PIECE, flat.size - start),
                nbytes,
                payload + start * nbytes,
                report,
            )
            if code == lib.SA_ACCESS and not report.reason:
                bad, index = report.offset, start + report.value
                put_back(report)
                raise Absent(bad if bad >= int(flat[index]) else bad + (1 << 64), index)
            if code:
                at = report.offset if code == lib.SA_ACCESS else 0
                raise failure(code, report, "gather", at, nbytes, buffer.nbytes)
        put_back(report)


def search(buffer: SparseBuffer, ranges: NDArray[np.int64], pattern: bytes) -> Iterator[int]:
    """
    Find where bytes begin, overlapping places included.

    Parameters
    ----------
    buffer : SparseBuffer
        Where to look.
    ranges : ndarray of int64, shape (n, 2)
        Start and stop of the offsets at which they may begin, sorted and disjoint.
    pattern : bytes
        At least one.

    Yields
    ------
    int
        Offsets, in order.

    Raises
    ------
    AccessError, ClosedError, OutOfBoundsError
        As `SparseBuffer.read_at`.
    """
    left: NDArray[np.int64] = np.array(ranges, np.int64, order="C")
    found: NDArray[np.int64] = np.empty(_FOUND, np.int64)
    cell = ffi.from_buffer("int64_t[]", found, require_writable=True)
    period = _period(pattern)
    code = lib.SA_MORE
    while code == lib.SA_MORE:
        report = take()
        code = lib.sa_search(
            buffer._reservation,
            ffi.from_buffer("int64_t[]", left),
            len(left),
            pattern,
            len(pattern),
            period,
            cell,
            _FOUND,
            report,
        )
        if code not in (lib.SA_OK, lib.SA_MORE):
            # What was found before the bad byte is not lost.
            at = report.offset if code in (lib.SA_ACCESS, lib.SA_BOUNDS) else 0
            error = failure(code, report, "search", at, len(pattern), buffer.nbytes)
            yield from found[: report.count].tolist()
            raise error
        if code == lib.SA_MORE:
            left = left[report.value :]
            left[0, 0] = report.start
        count = report.count
        put_back(report)  # others may use it before the next step
        yield from found[:count].tolist()


def _period(pattern: bytes) -> int:
    """
    Find the smallest distance at which bytes can lie over themselves.

    Examples
    --------
    >>> _period(b"abcabca"), _period(b"abc"), _period(bytes(4))
    (3, 3, 1)
    """
    # The failure function of Knuth, Morris and Pratt: the longest border of each beginning.
    borders = [0] * len(pattern)
    k = 0
    for i in range(1, len(pattern)):
        while k and pattern[i] != pattern[k]:
            k = borders[k - 1]
        k += pattern[i] == pattern[k]
        borders[i] = k
    return len(pattern) - borders[-1]
