"""Basic indices: what they are, and what they select."""

from collections.abc import Iterator, Sequence
from math import prod
from operator import index
from types import EllipsisType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Selected",
    "Selection",
    "as_arrays",
    "contiguous_run",
    "has_field",
    "is_basic",
    "is_scalar",
    "numbers_and_slices",
    "positions",
    "runs_of",
    "slices_of",
    "spans_of",
    "upwards",
    "with_ellipsis",
    "with_numbers",
]

_MANY = 1 << 16  # spans in one array


class Selection:
    """
    What a basic index, which numpy has accepted, selects of an array.

    Parameters
    ----------
    key : index
        Without names of fields.
    shape : tuple of int
        Of the array.

    Examples
    --------
    >>> Selection((2, ..., slice(None, None, -2)), (5, 6, 7)).ranges
    (range(2, 3), range(0, 6), range(0, 8, 2))
    """

    def __init__(self, key: Any, shape: tuple[int, ...]) -> None:
        everything = list(key) if isinstance(key, tuple) else [key]
        missing = len(shape) - sum(part is not Ellipsis and part is not None for part in everything)
        at = next((i for i, part in enumerate(everything) if part is Ellipsis), len(everything))
        everything[at : at + 1] = [slice(None)] * missing
        parts = [part for part in everything if part is not None]
        found = [
            range(n)[part] if isinstance(part, slice) else range(n)[index(part)]
            for part, n in zip(parts, shape, strict=True)
        ]
        self.sides = [one if isinstance(one, range) else range(one, one + 1) for one in found]
        """What is selected of each axis, one after the other."""
        self._kept = [isinstance(part, slice) for part in parts]
        self.ranges = tuple(one if one.step > 0 else one[::-1] for one in self.sides)
        """What is selected of each axis, going up."""
        left = [part for part in everything if part is None or isinstance(part, slice)]
        places = iter([k for k, part in enumerate(left) if part is not None])
        self.axes = [next(places) if kept else None for kept in self._kept]
        """Which one of the result each axis is, if any."""

    def within(self, box: tuple[slice, ...]) -> tuple[slice, ...] | None:
        """
        Find what of a box is selected, as an index into the box; None where nothing is.

        Examples
        --------
        >>> Selection(slice(None, None, 2), (7,)).within((slice(3, 7),))
        (slice(1, 4, 2),)
        >>> Selection(slice(3), (7,)).within((slice(3, 7),))
        """
        parts = []
        for wanted, side in zip(self.ranges, box, strict=True):
            skipped = max(0, -(-(side.start - wanted.start) // wanted.step))
            first = wanted.start + skipped * wanted.step
            last = min(wanted.stop, side.stop)
            if first >= last:
                return None
            parts.append(slice(first - side.start, last - side.start, wanted.step))
        return tuple(parts)

    def numbers(
        self, box: tuple[slice, ...], part: tuple[slice, ...], order: Literal["C", "F"]
    ) -> NDArray[np.int64]:
        """
        Number the items that `within` found in a box, as they follow each other in the selection.

        Examples
        --------
        >>> rows = Selection((slice(None, None, -1), 1), (3, 4))
        >>> box = slice(0, 2), slice(0, 4)
        >>> rows.numbers(box, rows.within(box), "C")
        array([[2],
               [1]])
        """
        found = np.zeros((1,) * len(box), np.int64)
        step = 1
        axes = range(len(box))
        for k in reversed(axes) if order == "C" else axes:
            if not self._kept[k]:
                continue
            wanted = self.sides[k]
            side = range(box[k].start, box[k].stop)[part[k]]
            places = (np.arange(side.start, side.stop, side.step) - wanted.start) // wanted.step
            found = found + (places * step).reshape([-1 if i == k else 1 for i in axes])
            step *= len(wanted)
        return found


class Selected(NamedTuple):
    """What an index selects, where each axis goes by itself."""

    sides: Sequence[Any]
    """For each axis of the array, a range or the number of each item."""
    shape: tuple[int, ...]
    """Of the result."""
    axes: list[int | None]
    """For each axis of the array, which one of the result it is, if any."""

    def part(self, box: tuple[slice, ...]) -> list[Any]:
        """Find what a box of the result selects."""
        return [
            side if k is None else side[box[k]]
            for side, k in zip(self.sides, self.axes, strict=True)
        ]

    def strides(self, items: NDArray[Any]) -> list[int]:
        """Find the strides of an array of that shape along the axes."""
        return [0 if k is None else items.strides[k] for k in self.axes]


def upwards(side: range) -> range:
    """Turn a range so that it goes up."""
    return side if side.step > 0 else side[::-1]


def positions(side: range, along: slice) -> slice:
    """
    Find which items of a range lie between two numbers: those follow each other.

    Examples
    --------
    >>> positions(range(0, 20, 5), slice(3, 11)), positions(range(15, -1, -5), slice(3, 11))
    (slice(1, 3, None), slice(1, 3, None))
    """
    up = upwards(side)
    low = max(0, -(-(along.start - up.start) // up.step))
    high = max(low, min(len(up), -(-(along.stop - up.start) // up.step)))
    return slice(low, high) if side.step > 0 else slice(len(side) - high, len(side) - low)


def slices_of(parts: tuple[Any, ...], shape: tuple[int, ...]) -> list[range] | None:
    """Find what slices of all axes select, the usual index; None for any other."""
    if len(parts) != len(shape) or not shape:
        return None
    sides = [range(n)[part] for part, n in zip(parts, shape, strict=False) if type(part) is slice]
    return sides if len(sides) == len(shape) else None


def numbers_and_slices(key: Any, shape: tuple[int, ...]) -> Selected | None:
    """Find what numbers and slices of all axes select; None for any other index, and a bad one."""
    parts = key if type(key) is tuple else (key,)
    if len(parts) != len(shape):
        return None
    sides: list[range] = []
    kept: list[int] = []
    axes: list[int | None] = []
    for part, n in zip(parts, shape, strict=True):
        if type(part) is slice:
            side = range(n)[part]
            axes.append(len(kept))
            kept.append(len(side))
        elif isinstance(part, int | np.integer) and -n <= part < n:
            side = range(int(part) % n, int(part) % n + 1)
            axes.append(None)
        else:
            return None
        sides.append(side)
    return Selected(sides, tuple(kept), axes)


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


def with_numbers(key: Any) -> Any:
    """Replace arrays of one integer and no axes by that, as numpy does."""
    parts = key if isinstance(key, tuple) else (key,)
    if not any(isinstance(part, np.ndarray) and _is_number(part) for part in parts):
        return key
    return tuple(
        int(part) if isinstance(part, np.ndarray) and _is_number(part) else part for part in parts
    )


def _is_number(part: NDArray[Any]) -> bool:
    return part.ndim == 0 and part.dtype.kind in "iu"


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


def as_arrays(key: Any, shape: tuple[int, ...], kind: type[Any]) -> tuple[Any, ...]:
    """
    Replace arrays with holes in an index by what numpy takes.

    Parameters
    ----------
    key : index
        As numpy's, with arrays of that kind among its parts.
    shape : tuple of ints
        Of the array that is indexed.
    kind : type
        Of arrays with holes.

    Raises
    ------
    IndexError
        A mask does not fit.
    """
    keys = key if isinstance(key, tuple) else (key,)
    parts: list[Any] = []
    for i, part in enumerate(keys):
        if not isinstance(part, kind):
            parts.append(part)
        elif part.dtype == bool and part.ndim:
            before = sum(_axes_of(one, kind) for one in keys[:i])
            after = sum(_axes_of(one, kind) for one in keys[i:])
            has_ellipsis = any(one is Ellipsis for one in keys[:i])
            _check_mask(part.shape, shape[len(shape) - after if has_ellipsis else before :])
            parts += part.nonzero()
        else:
            parts.append(part[...])
    return tuple(parts)


def _axes_of(part: Any, kind: type[Any]) -> int:
    """Count the axes that a part of an index takes."""
    if part is None or part is Ellipsis or isinstance(part, bool | np.bool_):
        return 0
    found: Any = part if isinstance(part, kind | np.ndarray) else None
    if isinstance(part, list):
        found = np.asarray(part)
    return found.ndim if found is not None and found.dtype == bool else 1


def _check_mask(mask: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    """Raise IndexError for a mask that does not fit the axes from which on it stands."""
    if len(mask) > len(sizes):
        msg = f"too many indices: a boolean index has {len(mask)} axes, and {len(sizes)} are left"
        raise IndexError(msg)
    for axis, (found, size) in enumerate(zip(mask, sizes, strict=False)):
        if found != size:
            msg = (
                f"boolean index did not match indexed array along axis {axis}; size of axis is "
                f"{size} but size of corresponding boolean axis is {found}"
            )
            raise IndexError(msg)


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


def _lowest(view: NDArray[Any], place: int) -> int:
    steps = zip(view.shape, view.strides, strict=True)
    lowest: int = place + sum(min(0, (n - 1) * step) for n, step in steps)
    return lowest


def runs_of(view: NDArray[Any], place: int) -> Iterator[tuple[int, int]]:
    """
    Go through the contiguous runs of a view, each as (place, length) in bytes.

    Parameters
    ----------
    view : ndarray
        With at least one item.
    place : int
        Of its first item, in bytes.

    Examples
    --------
    >>> list(runs_of(np.zeros((3, 8), "u1")[::-2, 2:5], 100))
    [(84, 3), (100, 3)]
    """
    run, outer = contiguous_run(view)
    low = _lowest(view, place)
    for position in np.ndindex(*[n for n, _ in outer]):
        steps = (i * abs(step) for i, (_, step) in zip(position, outer, strict=True))
        yield low + sum(steps), run


def spans_of(view: NDArray[Any], place: int, gap: int) -> Iterator[NDArray[np.int64]]:
    """
    Cover a view with spans between which there are more than `gap` bytes, many at a time.

    Parameters
    ----------
    view, place
        As of `runs_of`.
    gap : int
        In bytes.

    Yields
    ------
    ndarray of int64, shape (n, 2)
        Start and stop in bytes.

    Examples
    --------
    >>> list(spans_of(np.zeros((3, 8), "u1")[:, :5:2], 0, 1))
    [array([[ 0,  5],
           [ 8, 13],
           [16, 21]])]
    """
    run, outer = contiguous_run(view)
    while outer and abs(outer[-1][1]) - run <= gap:
        n, step = outer.pop()
        run += (n - 1) * abs(step)

    def walk(low: int, axes: list[tuple[int, int]]) -> Iterator[NDArray[np.int64]]:
        if len(axes) > 1 and prod(n for n, _ in axes) > _MANY:
            for i in range(axes[0][0]):
                yield from walk(low + i * abs(axes[0][1]), axes[1:])
            return
        first, rest = (axes[0], axes[1:]) if axes else ((1, 0), [])
        for i in range(0, first[0], _MANY):
            places = low + np.arange(i, min(i + _MANY, first[0])) * abs(first[1])
            for n, step in rest:
                places = (places[:, np.newaxis] + np.arange(n) * abs(step)).reshape(-1)
            yield np.stack([places, places + run], axis=1)

    yield from walk(_lowest(view, place), outer)
