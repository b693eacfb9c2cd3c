"""
Functions that say where items are, which there are, or multiply them with something.

Like `reductions`, which gives them to the public, they know arrays by ``shape``, ``dtype`` and
``blocks()`` alone; what is in no block is zero.
"""

from __future__ import annotations

import builtins
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._boxes import (
    corners,
    dense,
    first_hole,
    flat_numbers,
    is_blocked,
    reader,
    stand_in,
    strides_of,
)
from ._lanes import (
    Lanes,
    Mapped,
    check_out,
    check_room,
    chunks,
    deliver,
    given,
    implements,
    probe,
    reduce_lanes,
    without_nan,
)
from ._refusals import WAY

__all__ = [
    "FUNCTIONS",
    "allclose",
    "argmax",
    "argmin",
    "argwhere",
    "array_equal",
    "array_equiv",
    "bincount",
    "can_cast",
    "flatnonzero",
    "histogram",
    "iscomplexobj",
    "isrealobj",
    "nanargmax",
    "nanargmin",
    "ndim",
    "nonzero",
    "result_type",
    "shape",
    "size",
    "unique",
]

Array = NDArray[Any]

FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {}

_NONE = np._NoValue


# What it is


@implements(FUNCTIONS, np.shape)
def shape(a: Any) -> tuple[int, ...]:
    """Items along each axis, as `numpy.shape`."""
    return tuple(a.shape)


@implements(FUNCTIONS, np.ndim)
def ndim(a: Any) -> int:
    """Number of axes, as `numpy.ndim`."""
    return len(a.shape)


@implements(FUNCTIONS, np.size)
def size(a: Any, axis: Any = None) -> int:
    """Number of items, of all or along an axis, as `numpy.size`."""
    return int(np.size(stand_in(a), axis))


@implements(FUNCTIONS, np.iscomplexobj)
def iscomplexobj(x: Any) -> bool:
    """Tell whether items are complex, as `numpy.iscomplexobj`."""
    return bool(x.dtype.kind == "c")


@implements(FUNCTIONS, np.isrealobj)
def isrealobj(x: Any) -> bool:
    """Tell whether items are not complex, as `numpy.isrealobj`."""
    return bool(x.dtype.kind != "c")


def result_type(*arrays_and_dtypes: Any) -> np.dtype:
    """Tell the dtype that items of several arrays have together, as `numpy.result_type`."""
    return np.result_type(*map(_dtype_of, arrays_and_dtypes))


def can_cast(from_: Any, to: Any, casting: Any = "safe") -> bool:
    """Tell whether items can be converted, as `numpy.can_cast`."""
    return np.can_cast(_dtype_of(from_), _dtype_of(to), casting)


def _dtype_of(thing: Any) -> Any:
    return thing.dtype if is_blocked(thing) else thing


# Where items are


@implements(FUNCTIONS, np.nonzero)
def nonzero(a: Any) -> tuple[NDArray[np.int64], ...]:
    """
    Find where items are not zero, as `numpy.nonzero`.

    Returns
    -------
    tuple of ndarrays of int64
        The places along each axis, in C order.

    Examples
    --------
    >>> import sparsearray
    >>> a = sparsearray.zeros((1 << 20, 1 << 17))
    >>> a[70, 5] = a[6, 1000] = 1
    >>> nonzero(a)
    (array([ 6, 70]), array([1000,    5]))
    """
    columns: list[list[NDArray[np.int64]]] = [[] for _ in range(a.ndim)]
    for index, block in a.blocks():
        for column, found, along in zip(columns, block.nonzero(), index, strict=True):
            column.append(found + along.start)
    empty = np.zeros(0, np.int64)
    places = [np.concatenate([empty, *column]) for column in columns]
    if len(places[0]) > 1:
        flat = flat_numbers(places, a.shape)
        if not (flat[1:] > flat[:-1]).all():
            # Boxes that span only part of a row interleave.
            order = np.argsort(flat)
            places = [column[order] for column in places]
    return tuple(places)


@implements(FUNCTIONS, np.flatnonzero)
def flatnonzero(a: Any) -> NDArray[np.int64]:
    """Find where items are not zero, counting in C order, as `numpy.flatnonzero`."""
    return flat_numbers(nonzero(a), a.shape)


@implements(FUNCTIONS, np.argwhere)
def argwhere(a: Any) -> NDArray[np.int64]:
    """Find where items are not zero, a row for each, as `numpy.argwhere`."""
    return np.transpose(nonzero(a))


def _arg_all(function: Callable[..., Any], a: Any) -> int:
    """Find the first greatest (or least) item of all, counting in C order."""
    indices, places, values = [], [], []
    for index, block in a.blocks():
        place = int(function(block))
        indices.append(index)
        places.append(place)
        values.append(block.flat[place])
    starts, stops = corners(indices, a.ndim)
    flat = np.zeros(len(indices), np.int64)
    rest = np.array(places, np.int64)
    for k in range(a.ndim - 1, -1, -1):
        rest, at = np.divmod(rest, stops[:, k] - starts[:, k])
        flat += (starts[:, k] + at) * int(strides_of(a.shape)[k])
    found = np.array(values, a.dtype)
    hole = first_hole(starts, stops, a.shape)
    if hole is not None:
        flat = np.append(flat, hole)
        found = np.append(found, np.zeros(1, a.dtype))
    # In order of place, numpy finds the first, NaN before all.
    order = np.argsort(flat)
    return int(flat[order[function(found[order])]])


class _Best:
    """The greatest (or least) item of each lane so far, and where it is."""

    def __init__(self, lanes: Lanes, dtype: np.dtype, better: Any) -> None:
        self._better = better
        self.values = np.zeros(lanes.kept, dtype.newbyteorder("="))
        self.places = np.full(lanes.kept, lanes.shape[lanes.axes[0]], np.int64)
        self._none = lanes.shape[lanes.axes[0]]

    def offer(self, key: Any, values: Array, places: Array) -> None:
        """Take what is better, or as good and earlier."""
        old, at = self.values[key], self.places[key]
        earlier = places < at
        with np.errstate(invalid="ignore"):
            take = self._better(values, old) | ((values == old) & earlier)
        if values.dtype.kind in "fcmM":
            nan, old_nan = np.isnan(values), np.isnan(old)
            take = np.where(nan | old_nan, nan & (~old_nan | earlier), take)
        take |= at == self._none
        # No place is later than the end: lanes that offer nothing.
        take &= places < self._none
        np.copyto(old, values, where=take)
        np.copyto(at, places, where=take)


def _arg_lanes(function: Callable[..., Any], a: Any, lanes: Lanes) -> NDArray[np.int64]:
    """Find the first greatest (or least) item along one axis."""
    check_room(lanes.kept, np.dtype([("value", a.dtype), ("place", "i8"), ("hole", "i8")]))
    (axis,) = lanes.axes
    best = _Best(lanes, a.dtype, np.greater if function is np.argmax else np.less)
    indices = []
    for index, block in a.blocks():
        if block.shape[axis] == 1:
            places, values = np.zeros(block.shape, np.int64), block
        else:
            places = function(block, axis, keepdims=True)
            values = np.take_along_axis(block, places, axis)
        best.offer(lanes.place(index), values, places + index[axis].start)
        indices.append(index)
    holes = np.zeros(lanes.kept, np.int64)
    for index in sorted(indices, key=lambda index: index[axis].start):
        part = holes[lanes.place(index)]
        part[part == index[axis].start] = index[axis].stop
    best.offer(..., np.zeros_like(best.values), holes)
    return best.places


def _arg(function: Callable[..., Any], a: Any, axis: Any, out: Any, keepdims: Any) -> Any:
    keep = given(keepdims, False)
    probe(function, a, axis, out=out, keepdims=keep)
    lanes = Lanes(a.shape, axis)
    check_out(out, lanes.kept if keep else lanes.dropped)
    if axis is None:
        found = np.full(lanes.kept, _arg_all(function, a), np.int64)
    else:
        found = _arg_lanes(function, a, lanes)
    return deliver(found, lanes, keep, out, np.dtype(np.intp))


@implements(FUNCTIONS, np.argmax)
def argmax(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = _NONE) -> Any:
    """Find the first greatest item, as `numpy.argmax`: in a hole, where all others are negative."""
    return _arg(np.argmax, a, axis, out, keepdims)


@implements(FUNCTIONS, np.argmin)
def argmin(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = _NONE) -> Any:
    """Find the first least item, as `numpy.argmin`: in a hole, where all others are positive."""
    return _arg(np.argmin, a, axis, out, keepdims)


def _nan_arg(
    function: Callable[..., Any], a: Any, axis: Any, out: Any, keepdims: Any, worst: float
) -> Any:
    if np.issubdtype(a.dtype, np.inexact):
        nans = Mapped(a, np.isnan)
        original = np.nanargmax if function is np.argmax else np.nanargmin
        probe(original, a, axis, out=out, keepdims=given(keepdims, False))
        if np.any(reduce_lanes(np.logical_and, nans, Lanes(a.shape, axis), np.dtype(bool))):
            msg = "All-NaN slice encountered"
            raise ValueError(msg)
        a = without_nan(a, worst)
    return _arg(function, a, axis, out, keepdims)


@implements(FUNCTIONS, np.nanargmax)
def nanargmax(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = _NONE) -> Any:
    """Find the first greatest item that is not NaN, as `numpy.nanargmax`."""
    return _nan_arg(np.argmax, a, axis, out, keepdims, -np.inf)


@implements(FUNCTIONS, np.nanargmin)
def nanargmin(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = _NONE) -> Any:
    """Find the first least item that is not NaN, as `numpy.nanargmin`."""
    return _nan_arg(np.argmin, a, axis, out, keepdims, np.inf)


# Which items there are


def _merged(values: list[Array], counts: list[Array], firsts: list[Array], equal_nan: bool) -> Any:
    """Join what parts found: values once each, with counts and first places added up."""
    flat, number, place = map(np.concatenate, (values, counts, firsts))
    order = np.argsort(place, kind="stable")
    found, first, inverse = np.unique(
        flat[order], return_index=True, return_inverse=True, equal_nan=equal_nan
    )
    total = np.zeros(len(found), np.int64)
    np.add.at(total, inverse.reshape(-1), number[order])
    return found, total, place[order][first]


def _unique_parts(a: Any, places: bool, equal_nan: bool) -> Any:
    """Go through what is unique in each part: values, counts, first places."""
    if not places:
        for chunk in chunks(a):
            found, number = np.unique(chunk, return_counts=True, equal_nan=equal_nan)
            yield found, number, np.zeros(len(found), np.int64), chunk.size
        return
    for index, block in a.blocks():
        found, first, number = np.unique(
            block, return_index=True, return_counts=True, equal_nan=equal_nan
        )
        inside = np.unravel_index(first, block.shape)
        where = [at + along.start for at, along in zip(inside, index, strict=True)]
        yield found, number, flat_numbers(where, a.shape), block.size


_MERGED = 1 << 16  # values that parts may come to before they are joined


@implements(FUNCTIONS, np.unique)
def unique(
    ar: Any,
    return_index: bool = False,
    return_inverse: bool = False,
    return_counts: bool = False,
    axis: Any = None,
    *,
    equal_nan: bool = True,
    sorted: bool = True,  # noqa: A002 - numpy's name
) -> Any:
    """
    Find which items there are, as `numpy.unique`; zero is one of them where there is a hole.

    Raises
    ------
    TypeError
        `return_inverse`, which is as large as the array, or `axis`.
    """
    del sorted  # they are, as in any numpy that has the choice
    if return_inverse or axis is not None:
        name = "return_inverse" if return_inverse else "axis"
        msg = f"np.unique: {name}= is not made for a sparse array; {WAY}"
        raise TypeError(msg)
    values, counts, firsts, held, items, limit = [], [], [], 0, 0, _MERGED
    for found, number, first, many in _unique_parts(ar, return_index, equal_nan):
        values.append(found)
        counts.append(number)
        firsts.append(first)
        held += len(found)
        items += many
        if held > limit:
            merged = _merged(values, counts, firsts, equal_nan)
            values, counts, firsts = ([part] for part in merged)
            held = len(merged[0])
            limit = builtins.max(_MERGED, 2 * held)
    if items < ar.size:
        values.append(np.zeros(1, ar.dtype))
        counts.append(np.array([ar.size - items]))
        hole = first_hole(*corners([i for i, _ in ar.blocks()], ar.ndim), ar.shape)
        firsts.append(np.array([hole or 0]))
    found, total, first = _merged(values, counts, firsts, equal_nan)
    result = [found.astype(ar.dtype, copy=False)]
    result += [first] if return_index else []
    result += [total] if return_counts else []
    return result[0] if len(result) == 1 else tuple(result)


@implements(FUNCTIONS, np.bincount)
def bincount(x: Any, /, weights: Any = None, minlength: Any = 0) -> NDArray[np.int64]:
    """
    Count how often each number occurs, as `numpy.bincount`.

    Raises
    ------
    TypeError
        There are `weights`, or items are no integers.
    """
    if weights is not None:
        msg = f"np.bincount: weights= is not made for a sparse array; {WAY}"
        raise TypeError(msg)
    found = np.bincount(np.zeros((1,) * x.ndim, x.dtype), minlength=minlength)
    found[0] = x.size
    for chunk in chunks(x):
        part = np.bincount(chunk.reshape(-1), minlength=len(found))
        part[0] -= chunk.size
        part[: len(found)] += found
        found = part
    return found


@implements(FUNCTIONS, np.histogram)
def histogram(
    a: Any,
    bins: Any = 10,
    range: Any = None,  # noqa: A002 - numpy's name
    density: Any = None,
    weights: Any = None,
) -> tuple[Array, Array]:
    """
    Count items by size, holes as zeros, as `numpy.histogram`.

    Raises
    ------
    TypeError
        There are `weights`, or the number of bins is to be estimated.
    ValueError
        As numpy.
    """
    if weights is not None or isinstance(bins, str):
        name = f"bins={bins!r}" if weights is None else "weights="
        msg = f"np.histogram: {name} is not made for a sparse array; {WAY}"
        raise TypeError(msg)
    if a.dtype == bool:
        message = "Converting input from bool to <class 'numpy.uint8'> for compatibility."
        warnings.warn(message, RuntimeWarning, stacklevel=4)
        a = Mapped(a, lambda block: block.astype(np.uint8))
    if np.ndim(bins) == 0 and range is None:
        lanes = Lanes(a.shape, None)
        range = tuple(  # noqa: A001 - numpy's name
            reduce_lanes(ufunc, a, lanes, a.dtype).reshape(())[()]
            for ufunc in (np.minimum, np.maximum)
        )
    zero, edges = np.histogram(np.zeros(1, a.dtype), bins, range)
    found = np.zeros_like(zero)
    items = 0
    for chunk in chunks(a):
        found += np.histogram(chunk, bins, range)[0]
        items += chunk.size
    found += zero * (a.size - items)
    if density:
        return found / np.array(np.diff(edges), float) / found.sum(), edges
    return found, edges


# Whether two are alike


def _alike(test: Callable[[Any, Any], Any], a: Any, b: Any) -> bool:
    """
    Tell whether a test of items holds everywhere.

    Parameters
    ----------
    test : callable
        Of two arrays, giving an array of bools.
    a, b : Blocked or ndarray
        At least one has holes; ndarrays broadcast to its shape.
    """
    # It raises numpy's errors, and is False for a number and text.
    if not np.all(test(np.zeros(1, a.dtype), np.zeros(1, b.dtype))) and is_blocked(a) is is_blocked(
        b
    ):
        return False
    if not is_blocked(a):
        return _alike(lambda x, y: test(y, x), b, a)
    other = reader(b, a.shape)
    if is_blocked(b):
        back = reader(a, b.shape)
        return builtins.all(
            np.all(test(block, other(index))) for index, block in a.blocks()
        ) and builtins.all(np.all(test(back(index), block)) for index, block in b.blocks())
    zero = np.zeros((), a.dtype)
    alike, items = 0, 0
    for index, block in a.blocks():
        part = other(index)
        if not np.all(test(block, part)):
            return False
        alike += int(np.count_nonzero(test(zero, part)))
        items += block.size
    if items == a.size:
        return True
    # What is like zero in all of b, less what was so in boxes, is what is so in holes.
    everywhere = np.count_nonzero(test(zero, b)) * (a.size // builtins.max(np.size(b), 1))
    return bool(everywhere - alike == a.size - items)


def _operands(a: Any, b: Any) -> tuple[Any, Any, bool]:
    """Return operands, and whether both are dense: those of no items or no axes become so."""
    made = [
        (array if array.size and array.ndim else dense(array))
        if is_blocked(array)
        else np.asarray(array)
        for array in (a, b)
    ]
    return made[0], made[1], not builtins.any(map(is_blocked, made))


def _equal(x: Any, y: Any) -> Any:
    return np.asarray(x == y)


def _equal_or_nan(x: Any, y: Any) -> Any:
    return np.asarray(x == y) | (np.isnan(x) & np.isnan(y))


def array_equal(a1: Any, a2: Any, equal_nan: bool = False) -> bool:
    """Tell whether two arrays are the same, as `numpy.array_equal`; one may be dense."""
    a1, a2, plain = _operands(a1, a2)
    if plain:
        return np.array_equal(a1, a2, equal_nan)
    if tuple(a1.shape) != tuple(a2.shape):
        return False
    # As in numpy, there is no NaN to be looked for in text.
    exact = a1.dtype.kind in "biu" and a2.dtype.kind in "biu"
    return _alike(_equal_or_nan if equal_nan and not exact else _equal, a1, a2)


def array_equiv(a1: Any, a2: Any) -> bool:
    """
    Tell whether two arrays are the same after broadcasting, as `numpy.array_equiv`.

    Raises
    ------
    TypeError
        A sparse array would have to be repeated.
    """
    a1, a2, plain = _operands(a1, a2)
    if plain:
        return np.array_equiv(a1, a2)
    try:
        _check_shapes("np.array_equiv", a1, a2)
    except ValueError:
        return False
    return _alike(_equal, a1, a2)


def _check_shapes(name: str, a: Any, b: Any) -> None:
    wanted = np.broadcast_shapes(a.shape, b.shape)
    for array in (a, b):
        if is_blocked(array) and tuple(array.shape) != wanted:
            msg = (
                f"{name}: a sparse array of shape {array.shape} would have to be repeated to "
                f"{wanted}; {WAY}"
            )
            raise TypeError(msg)


def allclose(
    a: Any, b: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
) -> bool:
    """
    Tell whether two arrays agree within a tolerance, as `numpy.allclose`.

    Raises
    ------
    TypeError
        A sparse array would have to be repeated, or items cannot be compared so.
    """
    a, b, plain = _operands(a, b)
    if plain:
        return np.allclose(a, b, rtol, atol, equal_nan)

    def close(x: Any, y: Any) -> Any:
        return np.isclose(x, y, rtol, atol, equal_nan)

    close(np.zeros(1, a.dtype), np.zeros(1, b.dtype))  # raises numpy's errors
    _check_shapes("np.allclose", a, b)
    return _alike(close, a, b)


FUNCTIONS[np.result_type] = result_type
FUNCTIONS[np.can_cast] = can_cast
FUNCTIONS[np.array_equal] = array_equal
FUNCTIONS[np.array_equiv] = array_equiv
FUNCTIONS[np.allclose] = allclose
