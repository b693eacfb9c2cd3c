"""Where something begins in what is there of an image."""

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsearray._binding import describe
from sparsearray._spans import Span, SpanTable, search
from sparsearray.buffer import SparseBuffer

__all__ = ["find_bytes", "find_matches", "of_bytes", "pattern_bytes"]

_MOST = 1 << 16  # matches between two looks at the file
_MOST_NBYTES = 1 << 20  # and about how many bytes may have matched


def pattern_bytes(pattern: object, dtype: np.dtype | None) -> bytes:
    r"""
    Return what to look for as bytes.

    Parameters
    ----------
    pattern : bytes-like or int
        At least one byte.
    dtype : dtype or None
        Of an int.

    Raises
    ------
    TypeError
        It is neither, or there is no integer type for an int.
    ValueError
        It is empty, or the type cannot hold it.

    Examples
    --------
    >>> pattern_bytes(258, np.dtype(">u4")), pattern_bytes(-2, np.dtype("i1"))
    (b'\x00\x00\x01\x02', b'\xfe')
    """
    if isinstance(pattern, bytes | bytearray | memoryview):
        found = bytes(pattern)
        if not found:
            msg = "nothing to search for: the pattern is empty"
            raise ValueError(msg)
        return found
    try:
        number = index(pattern)  # type: ignore[arg-type]
    except TypeError:
        msg = (
            f"search takes bytes, an int or a compiled regular expression, "
            f"not {type(pattern).__name__}"
        )
        raise TypeError(msg) from None
    if dtype is None:
        msg = (
            f"search of {describe(number)}: the file does not say how large ints are: give a dtype"
        )
        raise TypeError(msg)
    if dtype.kind not in "iu":
        msg = f"search of {describe(number)}: {dtype} is no integer type"
        raise TypeError(msg)
    limits = np.iinfo(dtype)
    if not limits.min <= number <= limits.max:
        msg = f"search of {describe(number)}: {dtype} holds {limits.min} to {limits.max}"
        raise ValueError(msg)
    return np.array(number, dtype).tobytes()


def of_bytes(pattern: re.Pattern[Any]) -> re.Pattern[bytes]:
    """Refuse an expression for str with TypeError: memory holds bytes."""
    if isinstance(pattern.pattern, str):
        msg = f"{pattern!r} is for str, and memory holds bytes: re.compile(b'...')"
        raise TypeError(msg)
    return pattern


def find_bytes(
    buffer: SparseBuffer, table: SpanTable, pattern: bytes, start: int, stop: int
) -> Iterator[int]:
    """
    Find where bytes begin, overlapping ones included.

    Parameters
    ----------
    buffer, table : SparseBuffer, SpanTable
        The image.
    pattern : bytes
        At least one.
    start, stop : int
        Addresses between which all of it lies.

    Yields
    ------
    int
        Addresses, in order.
    """
    spans = [span for span in table.between(start, stop) if span.nbytes >= len(pattern)]
    if not spans:
        return
    for offset in search(buffer, _places(buffer, spans, pattern), pattern):
        yield table.address_of(offset)


def _places(buffer: SparseBuffer, spans: Sequence[Span], pattern: bytes) -> NDArray[np.int64]:
    r"""
    Find the ranges of offsets at which a pattern may begin, sorted.

    All its bytes that are not zero lie in extents. So the first of them does::

        zeros               extent                  zeros
        ------------[=========================]---------------
           [00..x....y.0]               [00..x....y.0]
    """
    offsets = np.array([span.offset for span in spans], np.int64)
    stops = offsets + [span.nbytes for span in spans]
    lasts = stops - len(pattern) + 1
    if not any(pattern):
        return np.stack((offsets, lasts), axis=1)
    extents = buffer.extents(spans[0].offset, int(stops[-1]) - spans[0].offset)
    # Which of them reach into each span, and then all pairs of a span and an extent.
    firsts = np.searchsorted(extents[:, 1], offsets, "right")
    counts = np.maximum(np.searchsorted(extents[:, 0], stops, "left") - firsts, 0)
    numbers = np.repeat(firsts - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
    lead = len(pattern) - len(pattern.lstrip(b"\0"))
    ranges: NDArray[np.int64] = np.clip(
        extents[numbers] - lead,
        np.repeat(offsets, counts)[:, np.newaxis],
        np.repeat(lasts, counts)[:, np.newaxis],
    )
    return ranges


def find_matches(
    buffer: SparseBuffer, table: SpanTable, pattern: re.Pattern[bytes], start: int, stop: int
) -> Iterator[tuple[int, bytes]]:
    """
    Find the matches of a regular expression in each run of bytes between two addresses.

    Yields
    ------
    int
        The address of a match.
    bytes
        What matched.

    Raises
    ------
    AccessError
        The file has lost bytes of a run, whether somebody was told or not.
    """
    for span in table.between(start, stop):
        _check_there(buffer, span)
        memory: Any = buffer.window(span.offset, span.nbytes, writable=False)
        matches = pattern.finditer(memory)
        most = 1
        while True:
            found = _take(matches, most)
            # What the file has lost meanwhile shows as zeros, and what is made of them is no match.
            _check_there(buffer, span)
            if not found:
                break
            for at, data in found:
                yield span.address + at, data
            # A look at a file with many holes takes as long as thousands of matches, and the first
            # ones are not kept waiting for more.
            most = min(2 * most, _MOST)


def _take(matches: Iterator[re.Match[bytes]], most: int) -> list[tuple[int, bytes]]:
    """Take the next matches, up to a number, and copies of what matched: some MiB, or one."""
    found, nbytes = [], 0
    for match in islice(matches, most):
        data = match.group()
        found.append((match.start(), data))
        nbytes += len(data)
        if nbytes > _MOST_NBYTES:
            break
    return found


def _check_there(buffer: SparseBuffer, span: Span) -> None:
    """Raise AccessError where the file has lost bytes of a span, whoever was told of it."""
    buffer._raise_untold(span.offset, span.nbytes, lost_only=True)
    # Told damage as well, and a cut within a page, which is no fault.
    buffer.extents(span.offset, span.nbytes)
