r"""
What notebooks show of a buffer: a table of what is mapped, and a map of where.

The map takes the colour of text from its surroundings and has no background of its own, so that it
can be read in light and in dark notebooks. The upper bar is to scale, the lower one is not::

    +------|#|----------------|===|--------------+
           / \_____        __/    \_
          [########]      [=========]
"""

from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby, pairwise
from typing import NamedTuple, Protocol

from ._text import count, size
from .errors import ClosedError
from .region import Region

__all__ = ["buffer_html"]

# Mid-tones: white text is readable on them, and they are on white and on black.
_COLOURS = {"private": "#3d7bd0", "zero": "#7e868f", "file": "#2b9164", "raw": "#bd7a12"}
_SLOT = 4  # width of the narrowest mark in the upper bar, in the map's own units
_SLOTS = 179  # in the upper bar
_EDGE = 1.5  # left and right of the bars
_WIDTH = 2 * _EDGE + _SLOT * _SLOTS
_BAR = 22  # height of a bar
_TOP, _BOTTOM = 16, 62  # where the bars are
_HEIGHT = 102
_TOUCH, _HOLE = 1, 7  # gaps of the lower bar: between regions that touch, and for holes
_GROUPS = 48  # marks of the lower bar, at most
_NARROWEST = 6  # of them
_DIGIT = 6.2  # width of a character in a label, rather too wide
_ROWS = 40  # of the table of regions
_NAME = 60  # characters of a name, before it is shortened


class _Buffer(Protocol):
    name: str | None

    @property
    def nbytes(self) -> int: ...
    @property
    def address(self) -> int: ...
    @property
    def regions(self) -> tuple[Region, ...]: ...


class _Mark(NamedTuple):
    """A piece of a bar: one region, or several that share it."""

    x: float
    width: float
    regions: Sequence[Region]


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
        title += f" {_name(buffer.name)}"
    try:
        regions = buffer.regions
    except ClosedError:
        return f"<div>{title}, closed</div>"
    facts = _facts(regions, buffer.nbytes, buffer.address)
    svg = _svg(regions, buffer.nbytes)
    return f"<div><div>{title}</div>{facts}{svg}{_table(regions)}</div>"


# The tables


def _facts(regions: Sequence[Region], nbytes: int, address: int) -> str:
    """Say how large the buffer is, and what is mapped: the map's legend too."""
    rows = [("", "nbytes", size(nbytes), _both(nbytes)), ("", "address", f"{address:#x}", "")]
    for kind, colour in _COLOURS.items():
        found = [region.nbytes for region in regions if region.kind == kind]
        if found:
            swatch = f"<span style='color:{colour}'>&#9632;</span>"
            text = f"{_both(sum(found))} in {count(len(found), 'region')}"
            rows.append((swatch, kind, size(sum(found)), text))
    left = nbytes - sum(region.nbytes for region in regions)
    if left:
        rows.append(("<span style='opacity:.6'>&#9633;</span>", "holes", size(left), _both(left)))
    style = "text-align:left;padding:.1em .6em .1em 0"
    cells = "".join(
        f"<tr><td style='{style}'>{swatch} {what}</td><td style='{style}'>{short}</td>"
        f"<td style='{style}'>{long}</td></tr>"
        for swatch, what, short, long in rows
    )
    return f"<table style='margin:.3em 0 .6em'>{cells}</table>"


def _both(number: int) -> str:
    return f"{number:#x} ({number:,})"


def _table(regions: Sequence[Region]) -> str:
    if not regions:
        return ""
    head = "".join(f"<th>{text}</th>" for text in ("offset", "nbytes", "kind", "writable", "file"))
    rows = "".join(
        f"<tr><td>{region.offset:#x}</td><td>{region.nbytes:#x}</td><td>{region.kind}</td>"
        f"<td>{'yes' if region.writable else 'no'}</td>"
        f"<td style='text-align:left'>{_source(region)}</td></tr>"
        for region in regions[:_ROWS]
    )
    if len(regions) > _ROWS:
        more = f"and {len(regions) - _ROWS:,} more: see buffer.regions"
        rows += f"<tr><td colspan='5' style='text-align:left'>{more}</td></tr>"
    title = f"<summary>{count(len(regions), 'region')}</summary>"
    return f"<details>{title}<table><tr>{head}</tr>{rows}</table></details>"


def _source(region: Region) -> str:
    if region.file is None:
        return ""
    return f"{_name(region.file)} from {region.file_offset:#x}"


def _name(name: str) -> str:
    """Escape a name, for people and for HTML, and shorten it in the middle."""
    shown = repr(name)
    if len(shown) > _NAME:
        shown = f"{shown[: _NAME // 4]}…{shown[-3 * _NAME // 4 :]}"
    return escape(shown)


# The map


def _svg(regions: Sequence[Region], nbytes: int) -> str:
    drawn = [
        *(_draw(mark, _TOP) for mark in _marks_to_scale(regions, nbytes)),
        *_outline(nbytes),
    ]
    height = _BOTTOM - 16
    if regions:
        height = _HEIGHT
        squeezed = list(_marks_squeezed(regions))
        drawn += [_link(mark, nbytes) for mark in squeezed]
        drawn += [_draw(mark, _BOTTOM) + _label(mark) for mark in squeezed]
        drawn += [_caption(mark.x, mark.regions[0]) for mark in squeezed[:1]]
    what = f"{count(len(regions), 'region')} in {size(nbytes)}"
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH:g} {height}' "
        f"style='display:block;width:100%;max-width:{_WIDTH:g}px;color:inherit' role='img' "
        f"aria-label='Map: {what}' font-family='sans-serif' font-size='11'>{''.join(drawn)}</svg>"
    )


def _outline(nbytes: int) -> Iterator[str]:
    """Draw what bounds the upper bar, and write its ends above it."""
    text = f"y='{_TOP - 5}' fill='currentColor' fill-opacity='.75'"
    yield f"<text x='{_EDGE}' {text}>0x0: the whole range, to scale</text>"
    yield f"<text x='{_WIDTH - _EDGE:g}' {text} text-anchor='end'>{nbytes:#x}</text>"
    yield (
        f"<rect x='{_EDGE}' y='{_TOP}' width='{_WIDTH - 2 * _EDGE:g}' height='{_BAR}' fill='none' "
        f"stroke='currentColor' stroke-opacity='.45' pointer-events='none'/>"
    )


def _marks_to_scale(regions: Sequence[Region], nbytes: int) -> Iterator[_Mark]:
    """Place regions where they lie, in whole slots: at least one, however small the region."""
    slots: list[list[Region]] = [[] for _ in range(_SLOTS)]
    scale = _SLOTS / nbytes
    for region in regions:
        start = round(region.offset * scale)
        stop = round((region.offset + region.nbytes) * scale)
        if start == stop:
            start = min(int(region.offset * scale), _SLOTS - 1)
            stop = start + 1
        for slot in slots[start:stop]:
            slot.append(region)
    x = _EDGE
    for shared, run in groupby(slots):
        width = _SLOT * len(list(run))
        if shared:
            yield _Mark(x, width, shared)
        x += width


def _marks_squeezed(regions: Sequence[Region]) -> Iterator[_Mark]:
    """Place regions side by side: holes are small gaps, and larger regions are wider."""
    step = -(-len(regions) // _GROUPS)
    groups = [regions[i : i + step] for i in range(0, len(regions), step)]
    gaps = [
        _TOUCH if a[-1].offset + a[-1].nbytes == b[0].offset else _HOLE for a, b in pairwise(groups)
    ]
    room = _WIDTH - 2 * _EDGE - sum(gaps) - _NARROWEST * len(groups)
    # By the fourth root: a page stays visible beside a gigabyte, which is still the larger.
    weights = [sum(region.nbytes for region in group) ** 0.25 for group in groups]
    unit = room / sum(weights)
    x = _EDGE
    for group, weight, gap in zip(groups, weights, [*gaps, 0], strict=True):
        width = _NARROWEST + unit * weight
        yield _Mark(x, width, group)
        x += width + gap


def _draw(mark: _Mark, top: int) -> str:
    """Draw a mark, in one band for each kind that is in it."""
    found = {region.kind for region in mark.regions}
    kinds = [kind for kind in _COLOURS if kind in found]
    height = _BAR / len(kinds)
    bands = "".join(
        f"<rect x='{_units(mark.x)}' y='{_units(top + i * height)}' "
        f"width='{_units(mark.width)}' height='{_units(height)}' fill='{_COLOURS[kind]}'/>"
        for i, kind in enumerate(kinds)
    )
    return f"<g><title>{_hover(mark.regions)}</title>{bands}</g>"


def _units(number: float) -> str:
    return f"{round(number, 2):g}"


def _link(mark: _Mark, nbytes: int) -> str:
    """Draw the shadow of a mark of the lower bar, from where it lies in the upper one."""
    scale = _SLOT * _SLOTS / nbytes
    last = mark.regions[-1]
    left = _EDGE + mark.regions[0].offset * scale
    right = max(_EDGE + (last.offset + last.nbytes) * scale, left + 1)
    points = (
        f"{_units(left)},{_TOP + _BAR} {_units(right)},{_TOP + _BAR} "
        f"{_units(mark.x + mark.width)},{_BOTTOM} {_units(mark.x)},{_BOTTOM}"
    )
    return f"<polygon points='{points}' fill='currentColor' fill-opacity='.1'/>"


def _label(mark: _Mark) -> str:
    """Write how large a mark of the lower bar is, where there is room."""
    text = size(sum(region.nbytes for region in mark.regions))
    if len(text) * _DIGIT > mark.width:
        return ""
    return (
        f"<text x='{_units(mark.x + mark.width / 2)}' y='{_BOTTOM + 15}' text-anchor='middle' "
        f"fill='#fff' pointer-events='none'>{text}</text>"
    )


def _caption(x: float, first: Region) -> str:
    text = f"{first.offset:#x}: regions only, holes squeezed"
    return (
        f"<text x='{_units(x)}' y='{_BOTTOM + _BAR + 13}' fill='currentColor' "
        f"fill-opacity='.75'>{text}</text>"
    )


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
