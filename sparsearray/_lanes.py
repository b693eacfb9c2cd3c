"""
What all functions of whole arrays stand on: lanes, and the boxes that cover them.

A *lane* is what one item of a result comes from: all items for ``axis=None``, a column for
``axis=0``. Results are kept with the reduced axes at length 1 until they are delivered, so that a
box's part lies where the box does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from inspect import signature
from math import prod
from typing import Any, TypeVar

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple
from numpy.typing import DTypeLike, NDArray

from ._boxes import Blocked, dense, is_blocked, reader
from ._memory import available_memory
from ._sums import is_narrow, sum_narrow
from ._text import size as written

__all__ = [
    "Lanes",
    "Mapped",
    "Mask",
    "check_room",
    "chunks",
    "covered",
    "deliver",
    "given",
    "implements",
    "probe",
    "reduce_lanes",
    "wide",
    "without_nan",
]

Index = tuple[slice, ...]
Array = NDArray[Any]
F = TypeVar("F", bound=Callable[..., Any])

_PIECE = 1 << 20  # bytes worked on at once where temporaries are made: they stay in the cache
_UNCHECKED = 64 << 20  # bytes of a result that are not worth asking the system for


def given(value: Any, default: Any) -> Any:
    """Return an argument, or the default where numpy passes on that the user gave none."""
    return default if value is np._NoValue else value


class Mapped:
    """
    An array whose populated items go through a function, box by box; holes stay zero.

    Parameters
    ----------
    array : Blocked
        Where items come from.
    function : callable
        Of an array, giving one of the same shape; with `indexed`, of a box and its index.
    indexed : bool
        Whether the function wants to know where it is.
    """

    def __init__(
        self, array: Blocked, function: Callable[..., Array], *, indexed: bool = False
    ) -> None:
        self.array = array
        self.function = function
        self.indexed = indexed
        self.shape, self.ndim, self.size = array.shape, array.ndim, array.size
        start = (slice(0, 1),) * array.ndim
        sample = np.zeros((1,) * array.ndim, array.dtype)
        found = function(sample, start) if indexed else function(sample)
        self.dtype: np.dtype = found.dtype
        self.nbytes = self.size * self.dtype.itemsize

    def blocks(self, *, max_nbytes: int | None = None) -> Iterator[tuple[Index, Array]]:
        """Go through the boxes of the array behind it, a piece at a time."""
        most = max(max_nbytes or _PIECE, self.array.dtype.itemsize)
        function = self.function
        if self.indexed:
            for index, block in self.array.blocks(max_nbytes=most):
                yield index, function(block, index)
        else:
            for index, block in self.array.blocks(max_nbytes=most):
                yield index, function(block)


def without_nan(array: Blocked, instead: float) -> Any:
    """Replace NaN, where the dtype has it."""
    if not np.issubdtype(array.dtype, np.inexact):
        return array
    return Mapped(array, lambda block: np.where(np.isnan(block), block.dtype.type(instead), block))


def chunks(array: Any) -> Iterator[Array]:
    """
    Go through all populated items, in arrays of any shape and in any order.

    An iterator of blocks that has ``chunks()`` may know a faster way than box by box.
    """
    if isinstance(array, Mapped) and not array.indexed:
        most = max(_PIECE, array.array.dtype.itemsize)
        yield from map(array.function, _pieces(array.array.blocks(max_nbytes=most)))
    else:
        yield from _pieces(array.blocks())


def _pieces(blocks: Any) -> Iterator[Array]:
    if hasattr(blocks, "chunks"):
        return blocks.chunks()  # type: ignore[no-any-return]
    return (block for _, block in blocks)


class Lanes:
    """
    Which axes are reduced, and where the part of a box goes in the result.

    Parameters
    ----------
    shape : tuple of int
        Of the array.
    axis : None, int or tuple of int
        As numpy has it, checked already.

    Examples
    --------
    >>> lanes = Lanes((4, 5, 6), (0, -1))
    >>> lanes.kept, lanes.dropped, lanes.count
    ((1, 5, 1), (5,), 24)
    >>> lanes.place((slice(2, 3), slice(1, 4), slice(0, 6)))
    (slice(0, 1, None), slice(1, 4, None), slice(0, 1, None))
    """

    def __init__(self, shape: tuple[int, ...], axis: Any) -> None:
        ndim = len(shape)
        self.shape = shape
        self.axes: tuple[int, ...] = (
            tuple(range(ndim)) if axis is None else normalize_axis_tuple(axis, ndim)
        )
        self.kept = tuple(1 if k in self.axes else n for k, n in enumerate(shape))
        self.dropped = tuple(n for k, n in enumerate(shape) if k not in self.axes)
        self.count = prod(shape[k] for k in self.axes)
        self.single = len(self.axes) == ndim
        self._first = slice(0, 1)

    def place(self, index: Index) -> Index:
        """Find where the part of a box lies in a result that keeps its axes."""
        first, axes = self._first, self.axes
        return tuple([first if k in axes else s for k, s in enumerate(index)])

    def place_dropped(self, index: Index) -> Index:
        """Find where the part of a box lies in a result without the reduced axes."""
        axes = self.axes
        return tuple([s for k, s in enumerate(index) if k not in axes])


def as_where(where: Any) -> Any:
    """Make an array of a `where`; numpy takes numbers in lists for bools, but not in arrays."""
    return where if hasattr(where, "dtype") else np.asarray(where, bool)


class Mask:
    """
    What `where` selects, box by box.

    Parameters
    ----------
    where : array of bool, or Blocked of bool
        Broadcasts to `shape`; one with holes has that shape.
    shape : tuple of int
        Of the array.
    """

    def __init__(self, where: Any, shape: tuple[int, ...]) -> None:
        self._where = where = as_where(where)
        self.box: Callable[[Index], Array] = reader(where, shape)

    @classmethod
    def of(cls, where: Any, shape: tuple[int, ...]) -> Mask | None:
        """Make one, or None where everything is selected."""
        return None if where is True or where is np._NoValue else cls(where, shape)

    def total(self, lanes: Lanes) -> Array:
        """Count what is selected in each lane, holes included."""
        if is_blocked(self._where):
            return reduce_lanes(np.add, self._where, lanes, np.dtype(np.int64))
        where = self._where
        where = where.reshape((1,) * (len(lanes.shape) - where.ndim) + where.shape)
        found = np.add.reduce(where, lanes.axes, dtype=np.int64, keepdims=True)
        # Never the broadcast array: it can be as large as the sparse one.
        repeats = prod(lanes.shape[k] for k in lanes.axes if where.shape[k] == 1)
        return np.asarray(np.broadcast_to(found * repeats, lanes.kept))


def probe(
    function: Callable[..., Any],
    array: Any,
    axis: Any,
    *,
    out: Any,
    where: Any = True,
    **kwargs: Any,
) -> Any:
    """
    Ask numpy what it says to these arguments, of a zero: it raises errors and knows the dtype.

    Returns
    -------
    scalar or ndarray
        What `function` gives.
    """
    if out is not None:
        if not hasattr(out, "dtype"):
            msg = "return arrays must be of ArrayType"
            raise TypeError(msg)
        kwargs["out"] = np.zeros((1,) * out.ndim, out.dtype)
    if where is not True and where is not np._NoValue:
        where = as_where(where)
        kwargs["where"] = np.ones((1,) * where.ndim, where.dtype)
    return function(np.zeros((1,) * array.ndim, array.dtype), axis=axis, **kwargs)


def check_out(out: Any, shape: tuple[int, ...]) -> None:
    """Raise ValueError for an `out` of another shape, before any work is done."""
    if out is not None and tuple(out.shape) != shape:
        msg = f"out has shape {tuple(out.shape)}, the result {shape}"
        raise ValueError(msg)


def check_room(shape: tuple[int, ...], dtype: np.dtype) -> None:
    """
    Raise MemoryError for a dense result that memory cannot hold.

    It comes before numpy's own, which on Linux is often none at all until the process is killed.
    """
    nbytes = prod(shape) * dtype.itemsize
    if nbytes <= _UNCHECKED:
        return
    available = available_memory()
    if nbytes >= 1 << 62 or (available is not None and nbytes > available):
        msg = (
            f"a dense result of shape {shape} and dtype {dtype} takes {written(nbytes)}; reduce "
            "more axes, or give a sparse array as out= (of sum, any and count alike)"
        )
        raise MemoryError(msg)


def deliver(found: Array, lanes: Lanes, keepdims: Any, out: Any, dtype: np.dtype) -> Any:
    """Give a result its dtype and shape, and put it where it shall go."""
    shape = lanes.kept if given(keepdims, False) else lanes.dropped
    found = found.astype(dtype, copy=False).reshape(shape)
    if out is not None:
        out[...] = found
        return out
    return found if shape else found[()]


def wide(dtype: np.dtype) -> np.dtype:
    """
    Return the dtype that sums are kept in: they are rounded once, not once for each box.

    Examples
    --------
    >>> wide(np.dtype("f2")), wide(np.dtype("c8")), wide(np.dtype("i2"))
    (dtype('float64'), dtype('complex128'), dtype('int16'))
    """
    if dtype.kind == "f":
        return np.result_type(dtype, np.float64)
    return np.result_type(dtype, np.complex128) if dtype.kind == "c" else dtype


def lowest(dtype: np.dtype) -> Any:
    """Return what `np.maximum` changes nothing with: NaN apart, no item is less."""
    if dtype.kind in "iu":
        return np.iinfo(dtype).min
    if dtype.kind in "mM":
        return np.array(np.iinfo(np.int64).min + 1).view(dtype.newbyteorder("="))
    return {"b": False, "f": -np.inf, "c": complex(-np.inf, -np.inf)}[dtype.kind]


def highest(dtype: np.dtype) -> Any:
    """Return what `np.minimum` changes nothing with."""
    if dtype.kind in "iu":
        return np.iinfo(dtype).max
    if dtype.kind in "mM":
        return np.array(np.iinfo(np.int64).max).view(dtype.newbyteorder("="))
    return {"b": True, "f": np.inf, "c": complex(np.inf, np.inf)}[dtype.kind]


def _nothing(dtype: np.dtype, otherwise: Callable[[np.dtype], Any]) -> Any:
    """Return what `np.fmax` and `np.fmin` change nothing with."""
    if dtype.kind in "mM":
        return np.array("NaT", dtype.newbyteorder("="))
    return np.nan if dtype.kind in "fc" else otherwise(dtype)


_START: dict[Any, Callable[[np.dtype], Any]] = {
    np.add: lambda _: 0,
    np.multiply: lambda _: 1,
    np.maximum: lowest,
    np.minimum: highest,
    np.fmax: lambda dtype: _nothing(dtype, lowest),
    np.fmin: lambda dtype: _nothing(dtype, highest),
    np.logical_or: lambda _: False,
    np.logical_and: lambda _: True,
    np.bitwise_or: lambda _: 0,
    np.bitwise_xor: lambda _: 0,
    np.bitwise_and: lambda dtype: np.invert(np.zeros((), dtype.newbyteorder("="))),
}
# Where a zero changes nothing, holes need not be looked for.
_DEAF = frozenset({np.add, np.logical_or, np.bitwise_or, np.bitwise_xor})
_LOGICAL = frozenset({np.logical_or, np.logical_and})
SUPPORTED = frozenset(_START)


def reduce_lanes(
    ufunc: Any,
    array: Any,
    lanes: Lanes,
    dtype: np.dtype,
    mask: Mask | None = None,
    initial: Any = np._NoValue,
) -> Array:
    """
    Reduce all lanes, holes counting as zeros.

    Parameters
    ----------
    ufunc : ufunc
        One of `SUPPORTED`.
    array : Blocked
        With at least one item.
    lanes : Lanes
        What is reduced.
    dtype : dtype
        To work in. Sums and products of floats come out wider.
    mask : Mask, optional
        What to take.
    initial : scalar, optional
        To start with.

    Returns
    -------
    ndarray, shape ``lanes.kept``
    """
    dtype = dtype.newbyteorder("=")
    # numpy takes no unit of time there.
    inner, keep = None if dtype.kind in "mM" else dtype, dtype
    if ufunc in (np.add, np.multiply):
        keep = wide(dtype)
        # Of half precision not even a page can be added up.
        inner = keep if dtype == np.float16 else inner
    if ufunc in _LOGICAL:
        inner, keep = None, np.dtype(bool)
    check_room(lanes.kept, keep)
    start = None
    if initial is not np._NoValue and initial is not None:
        start = np.asarray(initial).astype(keep)

    def work(array: Any) -> Array:
        if lanes.single and mask is None:
            return _reduce_all(ufunc, array, inner, keep, start).reshape(lanes.kept)
        return _reduce_boxes(ufunc, array, lanes, inner, keep, start, mask)

    if ufunc is not np.multiply or keep.kind not in "fc":
        return work(array)
    total = lanes.count if mask is None else mask.total(lanes)
    holes = covered(array, lanes, mask) < total
    if not np.any(holes):
        return work(array)
    zeros = work(Mapped(array, _signs))
    if np.all(holes):
        return zeros
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(holes, zeros, work(array))


def _signs(block: Array) -> Array:
    """Keep of items what decides a product with zero, and cannot overflow on the way there."""
    size = np.abs(block)
    plain = np.isfinite(size) & (size > 0)
    found: Array = np.array(block, np.result_type(block, "f2"))
    return np.divide(found, size, out=found, where=plain)


def _reduce_all(ufunc: Any, array: Any, inner: Any, keep: np.dtype, start: Any) -> Array:
    """Reduce everything to one item."""
    parts = [] if start is None else [start[()]]
    reduce = ufunc.reduce
    if ufunc is np.add and is_narrow(array.dtype) and inner in (np.int64, np.uint64):
        reduce = sum_narrow
    size = 0
    # One true item decides `any`, one false item `all`.
    decided = {np.logical_or: True, np.logical_and: False}.get(ufunc)
    for chunk in chunks(array):
        part = reduce(chunk, None, inner)
        if decided is not None and bool(part) is decided:
            return np.array(decided)
        parts.append(part)
        size += chunk.size
    if size < array.size:
        parts.append(np.zeros((), keep)[()])
    total = ufunc.reduce(np.array(parts, keep), None, None if keep.kind in "mM" else keep)
    return np.asarray(total)


def _reduce_boxes(
    ufunc: Any,
    array: Any,
    lanes: Lanes,
    inner: Any,
    keep: np.dtype,
    start: Any,
    mask: Mask | None,
) -> Array:
    neutral = _START[ufunc](keep)
    # One times a complex infinity is NaN: the first part is copied, as numpy does it.
    copies = ufunc is np.multiply and keep.kind == "c" and start is None and mask is None
    start = neutral if start is None else start
    found = np.full(lanes.kept, start, keep) if np.any(start) else np.zeros(lanes.kept, keep)
    counts = None if ufunc in _DEAF else np.zeros(lanes.kept, np.int64)
    reduce, place, axes = ufunc.reduce, lanes.place, lanes.axes
    add: Any = np.add.reduce
    box = None if mask is None else mask.box
    for index, block in array.blocks():
        target = found[place(index)]
        if box is None:
            part = reduce(block, axes, inner, None, True)
        else:
            where = box(index)
            part = reduce(block, axes, inner, None, True, neutral, where)
        if copies and counts is not None:
            first = counts[place(index)] == 0
            np.copyto(target, part, where=first)
            ufunc(target, part, out=target, where=~first)
        else:
            ufunc(target, part, out=target)
        if counts is not None:
            # Counted as they are read: a page written meanwhile would count but not be seen.
            counts[place(index)] += (
                block.size // max(target.size, 1)
                if box is None
                else add(where, axes, np.int64, None, True)
            )
    if counts is not None:
        total = lanes.count if mask is None else mask.total(lanes)
        ufunc(found, np.zeros((), keep), out=found, where=counts < total)
    return found


def covered(array: Any, lanes: Lanes, mask: Mask | None = None) -> Array:
    """Count the items of each lane that lie in a box, and that `mask` takes."""
    counts = np.zeros(lanes.kept, np.int64)
    add: Any = np.add.reduce
    if lanes.single and mask is None:
        counts += sum(block.size for _, block in array.blocks())
        return counts
    for index, block in array.blocks():
        target = counts[lanes.place(index)]
        if mask is None:
            target += block.size // target.size
        else:
            target += add(mask.box(index), lanes.axes, np.int64, None, True)
    return counts


def implements(
    table: dict[Callable[..., Any], Callable[..., Any]], *functions: Callable[..., Any]
) -> Callable[[F], F]:
    """
    Enter a function into a table, and leave to numpy what has no holes.

    Those are arrays of no items, 0-d arrays, and ndarrays (with a sparse `out` or `where`).
    """

    def decorate(function: F) -> F:
        known = signature(function)
        first = next(iter(known.parameters))
        original = functions[0]

        @wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            array = args[0] if args else kwargs.get(first)
            if is_blocked(array) and array.size and array.ndim:  # type: ignore[union-attr]
                return function(*args, **kwargs)
            bound = known.bind(*args, **kwargs).arguments
            return _by_numpy(original, bound.pop(first), bound)

        for each in functions:
            table[each] = wrapper
        return wrapper  # type: ignore[return-value]

    return decorate


def _by_numpy(original: Callable[..., Any], array: Any, rest: dict[str, Any]) -> Any:
    """Call numpy with ndarrays in the place of sparse arrays."""
    out = rest.get("out")
    rest = {name: dense(value) if is_blocked(value) else value for name, value in rest.items()}
    found = original(dense(array) if is_blocked(array) else array, **rest)
    if is_blocked(out):
        out[...] = rest["out"]  # type: ignore[index]
        return out
    return found


def as_dtype(dtype: DTypeLike | None) -> np.dtype | None:
    """Return a dtype, or None where none was given."""
    return None if dtype is None else np.dtype(dtype)
