"""Bytes for people to read, as ``hexdump -C`` shows them."""

from collections.abc import Callable, Iterator

from sparsearray._spans import Span

__all__ = ["hexdump"]

_ROW = 16
_CHUNK = 1 << 16  # bytes read at a time: whole rows


def hexdump(
    between: Callable[[int, int], Iterator[Span]],
    read: Callable[[int, int], bytes],
    start: int,
    stop: int,
) -> str:
    """
    Show a range of addresses.

    Parameters
    ----------
    between : callable
        What is there of a range, as of `SpanTable`.
    read : callable
        Reads bytes that are there.
    start, stop : int
        Addresses.
    """
    width = 8 if stop <= 1 << 32 else 16
    lines = []
    last = None
    for address, cells in _rows(between, read, start, stop):
        if cells == last:
            if lines[-1] != "*":
                lines.append("*")
            continue
        last = cells
        lines.append(f"{address:0{width}x}  {_line(cells)}")
    return "\n".join([*lines, f"{stop:0{width}x}"])


def _line(cells: list[int | None]) -> str:
    digits = ["--" if byte is None else f"{byte:02x}" for byte in cells]
    left, right = " ".join(digits[:8]), " ".join(digits[8:])
    text = "".join(
        " " if byte is None else chr(byte) if 32 <= byte < 127 else "." for byte in cells
    )
    return f"{left:23}  {right:23}  |{text}|"


def _rows(
    between: Callable[[int, int], Iterator[Span]],
    read: Callable[[int, int], bytes],
    start: int,
    stop: int,
) -> Iterator[tuple[int, list[int | None]]]:
    """Go through the bytes of each row. Of rows that are not there, a few are enough to tell."""
    at = start
    while at < stop:
        span = next(between(at, stop), None)
        first = stop if span is None else at + (span.address - at) // _ROW * _ROW
        absent = range(at, first, _ROW)
        for row in absent if len(absent) < 3 else (absent[0], absent[1], absent[-1]):
            yield row, [None] * min(_ROW, stop - row)
        if span is None:
            return
        rest = -(-(span.address + span.nbytes - first) // _ROW) * _ROW
        at = min(first + min(rest, _CHUNK), stop)
        cells: list[int | None] = [None] * (at - first)
        for part in between(first, at):
            where = part.address - first
            cells[where : where + part.nbytes] = read(part.address, part.nbytes)
        for i in range(0, len(cells), _ROW):
            yield first + i, cells[i : i + _ROW]
