"""
Where pieces of addresses are drawn: in a bar that is to scale, and in one that shows each.

Lengths are in units of the map; a bar begins at 0 and is `LENGTH` long.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, pairwise
from typing import Generic, NamedTuple, Protocol, TypeVar

from ._svg import LENGTH
from .region import Region

__all__ = ["Mark", "marks_squeezed", "marks_to_scale"]

_SLOT = 4  # width of the narrowest mark in the upper bar
_SLOTS = LENGTH // _SLOT
_TOUCH, _HOLE = 1, 7  # gaps of the lower bar: between pieces that touch, and for holes
_GROUPS = 48  # marks of the lower bar, at most
_NARROWEST = 6  # of them


class _Piece(Protocol):
    @property
    def nbytes(self) -> int: ...


_P = TypeVar("_P", bound=_Piece)


class Mark(NamedTuple, Generic[_P]):
    """What is drawn of one region or segment, or of several that share it."""

    x: float
    width: float
    items: Sequence[_P]


def marks_to_scale(regions: Sequence[Region], nbytes: int) -> Iterator[Mark[Region]]:
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


def marks_squeezed(items: Sequence[_P], start: Callable[[_P], int]) -> Iterator[Mark[_P]]:
    """
    Place regions or segments side by side: holes are small gaps, and larger ones are wider.

    Parameters
    ----------
    items : sequence of Region or Segment
        At least one, in the order of their places.
    start : callable
        Gives the place of one.
    """
    step = -(-len(items) // _GROUPS)
    groups = [items[i : i + step] for i in range(0, len(items), step)]
    gaps = [
        _TOUCH if start(a[-1]) + a[-1].nbytes == start(b[0]) else _HOLE for a, b in pairwise(groups)
    ]
    room = LENGTH - sum(gaps) - _NARROWEST * len(groups)
    # By the fourth root: a page stays visible beside a gigabyte, which is still the larger.
    weights = [sum(item.nbytes for item in group) ** 0.25 for group in groups]
    unit = room / (sum(weights) or 1)
    x = 0.0
    for group, weight, gap in zip(groups, weights, [*gaps, 0], strict=True):
        width = _NARROWEST + unit * weight
        yield Mark(x, width, group)
        x += width + gap
