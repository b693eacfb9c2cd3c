"""What notebooks show of an image: its segments side by side, and a table of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from sparsearray._svg import (
    BAR,
    COLOURS,
    EDGE,
    FAINT,
    drawing,
    facts,
    label,
    named,
    swatch,
    units,
)
from sparsearray._text import count, size

from .segment import Segment

if TYPE_CHECKING:
    from .image import Image

__all__ = ["KINDS", "LENGTH", "Mark", "image_html", "kind_of", "marks", "segment_html"]

LENGTH = 716  # of the bar
_TOP = 16
_TOUCH, _GAP = 1, 7  # between segments that touch, and others
_NARROWEST = 3
_GROUPS = 70  # marks, at most
_ROWS = 60  # of the table
# By what the process may do there.
KINDS = {
    "code": COLOURS["raw"],
    "writable": COLOURS["private"],
    "read-only": COLOURS["file"],
    "not in the file": COLOURS["zero"],
}


def image_html(image: Image) -> str:
    """
    Describe an image as HTML.

    Parameters
    ----------
    image : Image
        Open or closed.

    Returns
    -------
    str
        A fragment that needs nothing else and is well-formed XML.
    """
    title = f"<b>Image</b> {named(image.name)}"
    if image.closed:
        return f"<div>{title}, closed</div>"
    segments = sorted(image.segments)
    table = _table(segments)
    return f"<div><div>{title}</div>{_facts(image, segments)}{_svg(segments)}{table}</div>"


def segment_html(segment: Segment) -> str:
    """
    Describe a segment as HTML: a fragment that needs nothing else and is well-formed XML.

    Parameters
    ----------
    segment : Segment
        Of any image.
    """
    kind = kind_of(segment)
    inside, total = segment.nbytes_in_file, segment.nbytes
    place = "as text" if segment.file_offset is None else f"from {segment.file_offset:#x}"
    rows = [
        ("address", f"{segment.address:#x}", f"to {segment.address + total:#x}"),
        ("nbytes", size(total), f"{total:#x} ({total:,})"),
        ("in the file", size(inside), f"{named(segment.file)} {place}" if inside else ""),
        ("kind", f"{swatch(KINDS[kind])} {kind}", escape(segment.permissions)),
    ]
    if segment.name is not None:
        rows.append(("name", named(segment.name), ""))
    return f"<div><div><b>Segment</b></div>{facts(rows)}</div>"


def kind_of(segment: Segment) -> str:
    """Tell by which of `KINDS` a segment is drawn."""
    if not segment.nbytes_in_file:
        return "not in the file"
    if "x" in segment.permissions:
        return "code"
    return "writable" if "w" in segment.permissions else "read-only"


def _name(segment: Segment) -> str:
    return "" if segment.name is None else named(segment.name)


def _facts(image: Image, segments: Sequence[Segment]) -> str:
    rows = []
    if image.pointer is not None:
        bits = 8 * image.pointer.itemsize
        rows.append(("pointer", f"{bits} bits", f"{image.byteorder}-endian"))
    rows.append(("there", size(image.nbytes), f"{image.nbytes:#x} ({image.nbytes:,})"))
    for kind, colour in KINDS.items():
        found = [segment.nbytes for segment in segments if kind_of(segment) == kind]
        if found:
            text = count(len(found), "segment")
            rows.append((f"{swatch(colour)} {kind}", size(sum(found)), text))
    return facts(rows)


class Mark(NamedTuple):
    """A piece of the bar: one segment, or several that share it."""

    x: float
    width: float
    segments: Sequence[Segment]

    @property
    def kinds(self) -> list[str]:
        """What there is of it."""
        found = {kind_of(segment) for segment in self.segments}
        return [kind for kind in KINDS if kind in found]


def marks(segments: Sequence[Segment]) -> Iterator[Mark]:
    """Place segments side by side, in the order of their addresses; larger ones are wider."""
    step = -(-len(segments) // _GROUPS)
    groups = [segments[i : i + step] for i in range(0, len(segments), step)]
    gaps = [
        _TOUCH if a[-1].address + a[-1].nbytes == b[0].address else _GAP
        for a, b in pairwise(groups)
    ]
    room = LENGTH - sum(gaps) - _NARROWEST * len(groups)
    # By the fourth root: a page stays visible beside a gigabyte, which is still the larger.
    weights = [sum(segment.nbytes for segment in group) ** 0.25 for group in groups]
    unit = room / max(sum(weights), 1)
    x = 0.0
    for group, weight, gap in zip(groups, weights, [*gaps, 0], strict=True):
        width = _NARROWEST + unit * weight
        yield Mark(x, width, group)
        x += width + gap


def _svg(segments: Sequence[Segment]) -> str:
    """Draw segments side by side, with the first and the last address above them."""
    drawn = [part for mark in marks(segments) for part in _draw(mark)]
    first, last = segments[0], segments[-1]
    drawn.append(f"<text x='{EDGE}' y='{_TOP - 5}' {FAINT}>{first.address:#x}</text>")
    drawn.append(
        f"<text x='{EDGE + LENGTH}' y='{_TOP - 5}' {FAINT} text-anchor='end'>"
        f"{last.address + last.nbytes:#x}</text>"
    )
    what = f"Map: {count(len(segments), 'segment')}, gaps squeezed"
    return drawing(LENGTH + 2 * EDGE, _TOP + BAR + 2, what, drawn)


def _draw(mark: Mark) -> Iterator[str]:
    x, width, group = EDGE + mark.x, mark.width, mark.segments
    height = BAR / len(mark.kinds)
    bands = "".join(
        f"<rect x='{units(x)}' y='{units(_TOP + i * height)}' width='{units(width)}' "
        f"height='{units(height)}' fill='{KINDS[kind]}'/>"
        for i, kind in enumerate(mark.kinds)
    )
    first, last = group[0], group[-1]
    lines = [
        f"{first.address:#x} to {last.address + last.nbytes:#x}",
        size(sum(segment.nbytes for segment in group)),
        *(f"{segment.permissions} {_name(segment)}" for segment in group[:8]),
    ]
    yield f"<g><title>{'&#10;'.join(lines)}</title>{bands}</g>"
    yield label(x, _TOP, width, lines[1])


def _table(segments: Sequence[Segment]) -> str:
    columns = "address", "nbytes", "in the file", "permissions", "name"
    head = "".join(f"<th>{text}</th>" for text in columns)
    rows = "".join(
        f"<tr><td>{segment.address:#x}</td><td>{segment.nbytes:#x}</td>"
        f"<td>{segment.nbytes_in_file:#x}</td><td>{segment.permissions}</td>"
        f"<td style='text-align:left'>{_name(segment)}</td></tr>"
        for segment in segments[:_ROWS]
    )
    if len(segments) > _ROWS:
        more = f"and {len(segments) - _ROWS:,} more: see image.segments"
        rows += f"<tr><td colspan='5' style='text-align:left'>{more}</td></tr>"
    title = f"<summary>{count(len(segments), 'segment')}</summary>"
    return f"<details>{title}<table><tr>{head}</tr>{rows}</table></details>"
