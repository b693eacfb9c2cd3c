"""What notebooks show of an image: its segments side by side, and a table of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from operator import attrgetter
from typing import TYPE_CHECKING

from sparsearray._bars import Mark, marks_squeezed
from sparsearray._svg import (
    BAR,
    COLOURS,
    EDGE,
    FAINT,
    LENGTH,
    TOP,
    draw_mark,
    drawing,
    facts,
    framed,
    label,
    listing,
    named,
    swatch,
    used,
)
from sparsearray._text import count, size

from .segment import Segment

if TYPE_CHECKING:
    from .image import Image

__all__ = ["KINDS", "image_html", "kind_of", "segment_html"]

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
    return framed(title, _facts(image, segments), _svg(segments), _list(segments))


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
    return framed("<b>Segment</b>", facts(rows))


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
    rows.append(("nbytes", size(image.nbytes), f"{image.nbytes:#x} ({image.nbytes:,})"))
    for kind, colour in KINDS.items():
        found = [segment.nbytes for segment in segments if kind_of(segment) == kind]
        if found:
            text = count(len(found), "segment")
            rows.append((f"{swatch(colour)} {kind}", size(sum(found)), text))
    return facts(rows)


def _svg(segments: Sequence[Segment]) -> str:
    """Draw segments side by side, with the first and the last address above them."""
    marks = marks_squeezed(segments, attrgetter("address"))
    drawn = [part for mark in marks for part in _draw(mark)]
    first, last = segments[0], segments[-1]
    drawn.append(f"<text x='{EDGE}' y='{TOP - 5}' {FAINT}>{first.address:#x}</text>")
    drawn.append(
        f"<text x='{EDGE + LENGTH}' y='{TOP - 5}' {FAINT} text-anchor='end'>"
        f"{last.address + last.nbytes:#x}</text>"
    )
    what = f"Map: {count(len(segments), 'segment')}, gaps squeezed"
    return drawing(LENGTH + 2 * EDGE, TOP + BAR + 2, what, drawn)


def _draw(mark: Mark[Segment]) -> Iterator[str]:
    first, last = mark.items[0], mark.items[-1]
    nbytes = size(sum(segment.nbytes for segment in mark.items))
    lines = [
        f"{first.address:#x} to {last.address + last.nbytes:#x}",
        nbytes,
        *(f"{segment.permissions} {_name(segment)}" for segment in mark.items[:8]),
    ]
    colours = used(KINDS, map(kind_of, mark.items)).values()
    yield draw_mark(EDGE + mark.x, TOP, mark.width, [*colours], "\n".join(lines))
    yield label(EDGE + mark.x, TOP, mark.width, nbytes)


def _list(segments: Sequence[Segment]) -> str:
    return listing(
        segments,
        "segment",
        "image.segments",
        ("address", "nbytes", "in the file", "permissions", "name"),
        lambda segment: (
            f"{segment.address:#x}",
            f"{segment.nbytes:#x}",
            f"{segment.nbytes_in_file:#x}",
            segment.permissions,
            _name(segment),
        ),
    )
