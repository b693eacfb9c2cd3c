"""
Where the regions of a buffer are drawn: in a bar that is to scale, and in one that shows each.

Lengths are in units of the map; a bar begins at 0 and is `LENGTH` long.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

from .region import Region

__all__ = ["LENGTH", "Mark", "marks_squeezed", "marks_to_scale"]

_SLOT = 4  # width of the narrowest mark in the upper bar
_SLOTS = 179  # in the upper bar
LENGTH = _SLOT * _SLOTS
_TOUCH, _HOLE = 1, 7  # gaps of the lower bar: between regions that touch, and for holes
_GROUPS = 48  # marks of the lower bar, at most
_NARROWEST = 6  # of them


class Mark(NamedTuple):
    """A piece of a bar: one region, or several that share it."""

    x: float
    width: float
    regions: Sequence[Region]


def marks_to_scale(regions: Sequence[Region], nbytes: int) -> Iterator[Mark]:
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
    x = 0.0
    for shared, run in groupby(slots):
        width = _SLOT * len(list(run))
        if shared:
            yield Mark(x, width, shared)
        x += width


def marks_squeezed(regions: Sequence[Region]) -> Iterator[Mark]:
    """Place regions side by side: holes are small gaps, and larger regions are wider."""
    step = -(-len(regions) // _GROUPS)
    groups = [regions[i : i + step] for i in range(0, len(regions), step)]
    gaps = [
        _TOUCH if a[-1].offset + a[-1].nbytes == b[0].offset else _HOLE for a, b in pairwise(groups)
    ]
    room = LENGTH - sum(gaps) - _NARROWEST * len(groups)
    # By the fourth root: a page stays visible beside a gigabyte, which is still the larger.
    weights = [sum(region.nbytes for region in group) ** 0.25 for group in groups]
    unit = room / sum(weights)
    x = 0.0
    for group, weight, gap in zip(groups, weights, [*gaps, 0], strict=True):
        width = _NARROWEST + unit * weight
        yield Mark(x, width, group)
        x += width + gap
