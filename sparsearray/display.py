r"""
What notebooks show of a buffer: a table of what is mapped, and a map of where.

The upper bar of the map is to scale, the lower one is not::

    +------|#|----------------|===|--------------+
           / \_____        __/    \_
          [########]      [=========]
"""

from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Protocol

from ._bars import Mark, marks_squeezed, marks_to_scale
from ._svg import (
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
    outline,
    swatch,
    units,
    used,
)
from ._text import count, size
from .errors import ClosedError
from .region import Region

__all__ = ["buffer_html", "region_html"]

_WIDTH = 2 * EDGE + LENGTH
_BOTTOM = 62  # where the lower bar is
_HEIGHT = 102


class _Buffer(Protocol):
    name: str | None

    @property
    def nbytes(self) -> int: ...
    @property
    def address(self) -> int: ...
    @property
    def regions(self) -> tuple[Region, ...]: ...


def buffer_html(buffer: _Buffer) -> str:
    """
    Describe a buffer as HTML.

    Parameters
    ----------
    buffer : SparseBuffer
        Open or closed.

    Returns
    -------
    str
        A fragment that needs nothing else and is well-formed XML, of at most some 100 KiB however
        many regions there are.
    """
    title = "<b>SparseBuffer</b>"
    if buffer.name is not None:
        title += f" {named(buffer.name)}"
    try:
        regions = buffer.regions
    except ClosedError:
        return f"<div>{title}, closed</div>"
    table = _facts(regions, buffer.nbytes, buffer.address)
    return framed(title, table, _svg(regions, buffer.nbytes), _list(regions) if regions else "")


def region_html(region: Region) -> str:
    """
    Describe a region as HTML: what its mark on the map says.

    Parameters
    ----------
    region : Region
        Of any buffer.

    Returns
    -------
    str
        A fragment that needs nothing else and is well-formed XML.
    """
    access = "writable" if region.writable else "read-only"
    rows = [
        ("offset", f"{region.offset:#x}", f"{region.offset:,}"),
        ("nbytes", size(region.nbytes), _both(region.nbytes)),
        ("kind", f"{swatch(COLOURS[region.kind])} {region.kind}", access),
    ]
    if region.file is not None:
        rows.append(("file", named(region.file), f"from {_both(region.file_offset or 0)}"))
    return framed("<b>Region</b>", facts(rows))


# The tables


def _facts(regions: Sequence[Region], nbytes: int, address: int) -> str:
    """Say how large the buffer is, and what is mapped: the map's legend too."""
    rows = [("", "nbytes", size(nbytes), _both(nbytes)), ("", "address", f"{address:#x}", "")]
    for kind, colour in COLOURS.items():
        found = [region.nbytes for region in regions if region.kind == kind]
        if found:
            text = f"{_both(sum(found))} in {count(len(found), 'region')}"
            rows.append((swatch(colour), kind, size(sum(found)), text))
    left = nbytes - sum(region.nbytes for region in regions)
    if left:
        rows.append(("<span style='opacity:.6'>&#9633;</span>", "holes", size(left), _both(left)))
    return facts((f"{square} {what}", short, long) for square, what, short, long in rows)


def _both(number: int) -> str:
    return f"{number:#x} ({number:,})"


def _list(regions: Sequence[Region]) -> str:
    return listing(
        regions,
        "region",
        "buffer.regions",
        ("offset", "nbytes", "kind", "writable", "file"),
        lambda region: (
            f"{region.offset:#x}",
            f"{region.nbytes:#x}",
            region.kind,
            "yes" if region.writable else "no",
            _source(region),
        ),
    )


def _source(region: Region) -> str:
    if region.file is None:
        return ""
    return f"{named(region.file)} from {region.file_offset:#x}"


# The map


def _svg(regions: Sequence[Region], nbytes: int) -> str:
    drawn = [*(_draw(mark, TOP) for mark in marks_to_scale(regions, nbytes)), *_outline(nbytes)]
    height = _BOTTOM - 16
    if regions:
        height = _HEIGHT
        squeezed = list(marks_squeezed(regions, attrgetter("offset")))
        drawn += [_link(mark, nbytes) for mark in squeezed]
        for mark in squeezed:
            length = size(sum(region.nbytes for region in mark.items))
            drawn += [_draw(mark, _BOTTOM), label(EDGE + mark.x, _BOTTOM, mark.width, length)]
        drawn.append(_caption(regions[0]))
    what = f"{count(len(regions), 'region')} in {size(nbytes)}"
    return drawing(_WIDTH, height, f"Map: {what}", drawn)


def _outline(nbytes: int) -> Iterator[str]:
    """Draw what bounds the upper bar, and write its ends above it."""
    yield f"<text x='{EDGE}' y='{TOP - 5}' {FAINT}>0x0: the whole range, to scale</text>"
    yield (
        f"<text x='{_WIDTH - EDGE:g}' y='{TOP - 5}' {FAINT} text-anchor='end'>{nbytes:#x}</text>"
    )
    yield outline(EDGE, TOP, LENGTH, BAR)


def _draw(mark: Mark[Region], top: int) -> str:
    colours = used(COLOURS, (region.kind for region in mark.items)).values()
    return draw_mark(EDGE + mark.x, top, mark.width, [*colours], _hover(mark.items))


def _link(mark: Mark[Region], nbytes: int) -> str:
    """Draw the shadow of a mark of the lower bar, from where it lies in the upper one."""
    scale = LENGTH / nbytes
    first, last = mark.items[0], mark.items[-1]
    left = EDGE + first.offset * scale
    right = max(EDGE + (last.offset + last.nbytes) * scale, left + 1)
    points = (
        f"{units(left)},{TOP + BAR} {units(right)},{TOP + BAR} "
        f"{units(EDGE + mark.x + mark.width)},{_BOTTOM} {units(EDGE + mark.x)},{_BOTTOM}"
    )
    return f"<polygon points='{points}' fill='currentColor' fill-opacity='.1'/>"


def _caption(first: Region) -> str:
    text = f"{first.offset:#x}: regions only, holes squeezed"
    return f"<text x='{EDGE}' y='{_BOTTOM + BAR + 13}' {FAINT}>{text}</text>"


def _hover(regions: Sequence[Region]) -> str:
    first, last = regions[0], regions[-1]
    if len(regions) == 1:
        access = "writable" if first.writable else "read-only"
        return "\n".join(
            (
                f"{first.kind}, {access}, {size(first.nbytes)}",
                f"offset {_both(first.offset)}",
                f"nbytes {_both(first.nbytes)}",
                *([_source(first)] if first.file is not None else []),
            )
        )
    total, stop = sum(region.nbytes for region in regions), last.offset + last.nbytes
    return "\n".join(
        (
            f"{len(regions):,} regions, {size(total)}",
            f"from {_both(first.offset)}",
            f"to {_both(stop)}",
        )
    )
