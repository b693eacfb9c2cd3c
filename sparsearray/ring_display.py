"""
What notebooks show of a ring: a table, and where in its memory the newest items are.

The next item goes where the gap is::

    +------------+-------------------------+
    |  newer     ||        older           |
    +------------+-------------------------+
"""

from collections.abc import Iterator
from html import escape
from typing import Any, Protocol

import numpy as np

from ._svg import BAR, COLOURS, EDGE, FAINT, drawing, facts, named, outline, shorten, tint, units
from ._text import count, size
from .errors import ClosedError

__all__ = ["ring_html"]

_LENGTH = 716  # of the bar
_TOP = 16
_GAP = 2


class _Ring(Protocol):
    count: int
    dtype: np.dtype[Any]

    @property
    def name(self) -> str | None: ...
    @property
    def pushed(self) -> int: ...
    @property
    def oldest(self) -> int: ...


def ring_html(ring: _Ring) -> str:
    """
    Describe a ring as HTML.

    Parameters
    ----------
    ring : Ring
        Open or closed; others may push meanwhile.

    Returns
    -------
    str
        A fragment that needs nothing else and is well-formed XML.
    """
    dtype = escape(shorten(str(ring.dtype)))
    title = f"<b>Ring</b> of {ring.count:,} {dtype}"
    if ring.name is not None:
        title += f" {named(ring.name)}"
    try:
        pushed, oldest = ring.pushed, ring.oldest
    except ClosedError:
        return f"<div>{title}, closed</div>"
    there, nbytes = max(pushed - oldest, 0), ring.count * ring.dtype.itemsize
    rows = [
        ("count", f"{ring.count:,}", count(ring.dtype.itemsize, "byte") + " an item"),
        ("nbytes", size(nbytes), f"{nbytes:,}"),
        ("pushed", f"{pushed:,}", ""),
        ("there", f"{there:,}", f"{oldest:,} to {pushed:,}" if there else ""),
    ]
    svg = _svg(ring.count, oldest, pushed)
    return f"<div><div>{title}</div>{facts(rows)}{svg}</div>"


def _svg(length: int, oldest: int, pushed: int) -> str:
    """Draw the memory of a ring, and in it what is there."""
    caption = f"memory of {count(length, 'item')}; the next goes behind the newest"
    drawn = [f"<text x='{EDGE}' y='{_TOP - 5}' {FAINT}>{caption}</text>"]
    for start, stop, opacity, what in _parts(length, oldest, pushed):
        left = EDGE + _LENGTH * (start % length) / length
        right = left + _LENGTH * (stop - start) / length
        gap = min(_GAP, (right - left) / 2) if what == "older" else 0
        drawn.append(
            f"<g><title>{what}: items {start:,} to {stop:,}</title>"
            f"<rect x='{units(left + gap)}' y='{_TOP}' width='{units(right - left - gap)}' "
            f"height='{BAR}' fill='{COLOURS['file']}' style='fill:{tint(COLOURS['file'])}' "
            f"fill-opacity='{opacity:g}'/></g>"
        )
    drawn.append(outline(EDGE, _TOP, _LENGTH, BAR))
    label = f"Map: {max(pushed - oldest, 0):,} of {count(length, 'item')}"
    return drawing(_LENGTH + 2 * EDGE, _TOP + BAR + EDGE, label, drawn)


def _parts(length: int, oldest: int, pushed: int) -> Iterator[tuple[int, int, float, str]]:
    """Give what lies side by side: first, last, how opaque, and what it is."""
    turn = pushed // length * length
    if oldest < turn < pushed:
        yield oldest, turn, 0.65, "older"
    if oldest < pushed:
        yield (turn if oldest < turn < pushed else oldest), pushed, 1, "newer"
