"""
What notebooks show of a ring: a table, and where in its memory the newest items are.

The next item goes where the gap is::

    +------------+-------------------------+
    |  newer     ||        older           |
    +------------+-------------------------+
"""

from collections.abc import Iterable, Iterator
from html import escape
from typing import Any, Protocol

import numpy as np

from ._svg import (
    BAR,
    COLOURS,
    EDGE,
    FAINT,
    LENGTH,
    TOP,
    drawing,
    facts,
    framed,
    named,
    outline,
    shorten,
    swatch,
    tint,
    units,
)
from ._text import count, size
from .errors import ClosedError

__all__ = ["ring_html"]

_GAP = 2
_OPACITY = {"newer": 1.0, "older": 0.65}


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
    parts = list(_parts(ring.count, oldest, pushed))
    svg = _svg(ring.count, max(pushed - oldest, 0), parts)
    return framed(title, facts(rows), svg, _legend([what for *_, what in parts]))


def _svg(length: int, there: int, parts: Iterable[tuple[int, int, str]]) -> str:
    """Draw the memory of a ring, and in it what is there."""
    caption = f"memory of {count(length, 'item')}; the next goes behind the newest"
    drawn = [f"<text x='{EDGE}' y='{TOP - 5}' {FAINT}>{caption}</text>"]
    for start, stop, what in parts:
        left = EDGE + LENGTH * (start % length) / length
        right = left + LENGTH * (stop - start) / length
        gap = min(_GAP, (right - left) / 2) if what == "older" else 0
        drawn.append(
            f"<g><title>{what}: items {start:,} to {stop:,}</title>"
            f"<rect x='{units(left + gap)}' y='{TOP}' width='{units(right - left - gap)}' "
            f"height='{BAR}' fill='{COLOURS['file']}' style='fill:{tint(COLOURS['file'])}' "
            f"fill-opacity='{_OPACITY[what]:g}'/></g>"
        )
    drawn.append(outline(EDGE, TOP, LENGTH, BAR))
    label = f"Map: {there:,} of {count(length, 'item')}"
    return drawing(LENGTH + 2 * EDGE, TOP + BAR + EDGE, label, drawn)


def _legend(found: list[str]) -> str:
    """Say what the shades mean, where there are two."""
    if len(found) < 2:
        return ""
    shades = (f"{swatch(COLOURS['file'], _OPACITY[one], tinted=True)} {one}" for one in _OPACITY)
    return f"<div style='font-size:.9em'>{', '.join(shades)}</div>"


def _parts(length: int, oldest: int, pushed: int) -> Iterator[tuple[int, int, str]]:
    """Give what lies side by side: first, last, and what it is."""
    turn = pushed // length * length
    if oldest < turn < pushed:
        yield oldest, turn, "older"
    if oldest < pushed:
        yield (turn if oldest < turn < pushed else oldest), pushed, "newer"
