"""Basic indices: what they are, and what they select."""

from types import EllipsisType
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "contiguous_run",
    "has_field",
    "is_basic",
    "is_scalar",
    "select",
    "with_ellipsis",
    "within",
]


def select(key: Any, shape: tuple[int, ...]) -> tuple[range, ...]:
    """
    Turn a basic index, which numpy has accepted, into a range for each axis, all going up.

    Examples
    --------
    >>> select((2, ..., slice(None, None, -2)), (5, 6, 7))
    (range(2, 3), range(0, 6), range(0, 8, 2))
    """
    parts = [part for part in (key if isinstance(key, tuple) else (key,)) if part is not None]
    missing = len(shape) - sum(part is not Ellipsis for part in parts)
    if Ellipsis in parts:
        at = parts.index(Ellipsis)
        parts[at : at + 1] = [slice(None)] * missing
    else:
        parts += [slice(None)] * missing
    return tuple(_axis(part, size) for part, size in zip(parts, shape, strict=True))


def _axis(part: Any, size: int) -> range:
    if not isinstance(part, slice):
        return range(size)[part : part + 1] if part != -1 else range(size - 1, size)
    found = range(size)[part]
    return found if found.step > 0 else found[::-1]


def within(ranges: tuple[range, ...], box: tuple[slice, ...]) -> tuple[slice, ...] | None:
    """
    Find what of a box is selected, as an index into the box; None where nothing is.

    Examples
    --------
    >>> within((range(0, 7, 2),), (slice(3, 7),)), within((range(0, 3),), (slice(3, 7),))
    ((slice(1, 4, 2),), None)
    """
    parts = []
    for wanted, side in zip(ranges, box, strict=True):
        skipped = max(0, -(-(side.start - wanted.start) // wanted.step))
        first = wanted.start + skipped * wanted.step
        last = min(wanted.stop, side.stop)
        if first >= last:
            return None
        parts.append(slice(first - side.start, last - side.start, wanted.step))
    return tuple(parts)


def is_basic(key: Any) -> bool:
    """Tell whether an index gives a view in numpy."""
    parts = key if isinstance(key, tuple) else (key,)
    if isinstance(key, list) and key and all(isinstance(part, str) for part in key):
        return True
    return all(
        part is None
        or isinstance(part, slice | EllipsisType | str | np.integer)
        or (isinstance(part, int) and not isinstance(part, bool))
        for part in parts
    )


def has_field(key: Any) -> bool:
    return isinstance(key, str | list)


def with_ellipsis(key: Any) -> Any:
    """Have an index of integers alone give a 0-d view, not the item."""
    if has_field(key):
        return key
    parts = key if isinstance(key, tuple) else (key,)
    return parts if any(part is Ellipsis for part in parts) else (*parts, Ellipsis)


def is_scalar(key: Any) -> bool:
    """Tell whether an index that leaves no axis gives an item, not a 0-d array."""
    if has_field(key):
        return False
    parts = key if isinstance(key, tuple) else (key,)
    return not any(part is Ellipsis for part in parts)


def contiguous_run(view: NDArray[Any]) -> tuple[int, list[tuple[int, int]]]:
    """Find the longest contiguous run of a view, in bytes, and the (size, step) of other axes."""
    axes = sorted(
        ((n, step) for n, step in zip(view.shape, view.strides, strict=True) if n > 1),
        key=lambda axis: abs(axis[1]),
    )
    run = view.itemsize
    while axes and abs(axes[0][1]) == run:
        run *= axes.pop(0)[0]
    return run, axes[::-1]
