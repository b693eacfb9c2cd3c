r"""
What notebooks show of a buffer: a table of what is mapped, and a map of where.

The upper bar of the map is to scale, the lower one is not::

    +------|#|----------------|===|--------------+
           / \_____        __/    \_
          [########]      [=========]
"""

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple, Protocol

from ._svg import BAR, COLOURS, EDGE, FAINT, drawing, facts, named, outline, swatch, units
from ._text import count, size
from .errors import ClosedError
from .region import Region

__all__ = ["buffer_html"]

_SLOT = 4  # width of the narrowest mark in the upper bar, in the map's own units
_SLOTS = 179  # in the upper bar
_WIDTH = 2 * EDGE + _SLOT * _SLOTS
_TOP, _BOTTOM = 16, 62  # where the bars are
_HEIGHT = 102
_TOUCH, _HOLE = 1, 7  # gaps of the lower bar: between regions that touch, and for holes
_GROUPS = 48  # marks of the lower bar, at most
_NARROWEST = 6  # of them
_DIGIT = 6.2  # width of a character in a label, rather too wide
_ROWS = 40  # of the table of regions


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
        title += f" {named(buffer.name)}"
    try:
        regions = buffer.regions
    except ClosedError:
        return f"<div>{title}, closed</div>"
    table = _facts(regions, buffer.nbytes, buffer.address)
    svg = _svg(regions, buffer.nbytes)
    return f"<div><div>{title}</div>{table}{svg}{_table(regions)}</div>"


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
    return f"{named(region.file)} from {region.file_offset:#x}"


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
    return drawing(_WIDTH, height, f"Map: {what}", drawn)


def _outline(nbytes: int) -> Iterator[str]:
    """Draw what bounds the upper bar, and write its ends above it."""
    yield f"<text x='{EDGE}' y='{_TOP - 5}' {FAINT}>0x0: the whole range, to scale</text>"
    yield (
        f"<text x='{_WIDTH - EDGE:g}' y='{_TOP - 5}' {FAINT} text-anchor='end'>{nbytes:#x}</text>"
    )
    yield outline(EDGE, _TOP, _WIDTH - 2 * EDGE, BAR)


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
    x = EDGE
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
    room = _WIDTH - 2 * EDGE - sum(gaps) - _NARROWEST * len(groups)
    # By the fourth root: a page stays visible beside a gigabyte, which is still the larger.
    weights = [sum(region.nbytes for region in group) ** 0.25 for group in groups]
    unit = room / sum(weights)
    x = EDGE
    for group, weight, gap in zip(groups, weights, [*gaps, 0], strict=True):
        width = _NARROWEST + unit * weight
        yield _Mark(x, width, group)
        x += width + gap


def _draw(mark: _Mark, top: int) -> str:
    """Draw a mark, in one band for each kind that is in it."""
    found = {region.kind for region in mark.regions}
    kinds = [kind for kind in COLOURS if kind in found]
    height = BAR / len(kinds)
    bands = "".join(
        f"<rect x='{units(mark.x)}' y='{units(top + i * height)}' "
        f"width='{units(mark.width)}' height='{units(height)}' fill='{COLOURS[kind]}'/>"
        for i, kind in enumerate(kinds)
    )
    return f"<g><title>{_hover(mark.regions)}</title>{bands}</g>"


def _link(mark: _Mark, nbytes: int) -> str:
    """Draw the shadow of a mark of the lower bar, from where it lies in the upper one."""
    scale = _SLOT * _SLOTS / nbytes
    last = mark.regions[-1]
    left = EDGE + mark.regions[0].offset * scale
    right = max(EDGE + (last.offset + last.nbytes) * scale, left + 1)
    points = (
        f"{units(left)},{_TOP + BAR} {units(right)},{_TOP + BAR} "
        f"{units(mark.x + mark.width)},{_BOTTOM} {units(mark.x)},{_BOTTOM}"
    )
    return f"<polygon points='{points}' fill='currentColor' fill-opacity='.1'/>"


def _label(mark: _Mark) -> str:
    """Write how large a mark of the lower bar is, where there is room."""
    text = size(sum(region.nbytes for region in mark.regions))
    if len(text) * _DIGIT > mark.width:
        return ""
    return (
        f"<text x='{units(mark.x + mark.width / 2)}' y='{_BOTTOM + 15}' text-anchor='middle' "
        f"fill='#fff' pointer-events='none'>{text}</text>"
    )


def _caption(x: float, first: Region) -> str:
    text = f"{first.offset:#x}: regions only, holes squeezed"
    return f"<text x='{units(x)}' y='{_BOTTOM + BAR + 13}' {FAINT}>{text}</text>"


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
