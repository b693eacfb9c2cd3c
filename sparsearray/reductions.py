"""
numpy's reductions over what is populated: holes count as zeros, and cost nothing.

Each function is numpy's of the same name, takes the same arguments and gives what numpy gives for
the dense array: dtype, exceptions and warnings included. Their first argument is an array with
``shape``, ``dtype`` and ``blocks()``; `FUNCTIONS` is what ``__array_function__`` looks them up in.

Examples
--------
>>> import numpy as np
>>> import sparsearray
>>> a = sparsearray.zeros((1 << 20, 1 << 17))  # a terabyte
>>> a[5, 7:10] = -1, -2, 4
>>> np.sum(a), np.mean(a) * a.size, np.min(a), np.argmax(a)
(np.float64(1.0), np.float64(1.0), np.float64(-2.0), np.int64(655369))
>>> np.max(a[5]), np.max(a, axis=0)[7:10]  # a zero of a hole is larger than -1
(np.float64(4.0), array([0., 0., 4.]))

Notes
-----
Sums of floats are kept in double precision (at least) from box to box, and agree with numpy's to
rounding; sums of integers agree exactly. A result is dense: where it would not fit into memory,
that is said at once, and ``out=`` may be a sparse array.
"""
# ruff: noqa: A001, A002 - the names are numpy's

from __future__ import annotations

import builtins
import operator
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple
from numpy.typing import DTypeLike, NDArray

from . import functions, moments, products
from ._boxes import Blocked, is_blocked, stand_in
from ._lanes import (
    SUPPORTED,
    Lanes,
    Mapped,
    Mask,
    as_dtype,
    check_out,
    chunks,
    deliver,
    given,
    implements,
    probe,
    reduce_lanes,
    without_nan,
)
from ._refusals import WAY
from .functions import (
    allclose,
    argmax,
    argmin,
    argwhere,
    array_equal,
    array_equiv,
    bincount,
    flatnonzero,
    histogram,
    iscomplexobj,
    isrealobj,
    nanargmax,
    nanargmin,
    ndim,
    nonzero,
    shape,
    size,
    unique,
)
from .moments import average, mean, nanmean, nanstd, nanvar, squared, std, var
from .products import dot, inner, matmul, tensordot, vdot

__all__ = [
    "FUNCTIONS",
    "all",
    "allclose",
    "amax",
    "amin",
    "any",
    "argmax",
    "argmin",
    "argwhere",
    "array_equal",
    "array_equiv",
    "average",
    "bincount",
    "count_nonzero",
    "dot",
    "flatnonzero",
    "histogram",
    "inner",
    "iscomplexobj",
    "isrealobj",
    "matmul",
    "max",
    "mean",
    "min",
    "nanargmax",
    "nanargmin",
    "nanmax",
    "nanmean",
    "nanmin",
    "nanprod",
    "nanstd",
    "nansum",
    "nanvar",
    "ndim",
    "nonzero",
    "norm",
    "prod",
    "ptp",
    "reduce_ufunc",
    "shape",
    "size",
    "std",
    "sum",
    "tensordot",
    "trace",
    "unique",
    "var",
    "vdot",
]

Array = NDArray[Any]

FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    **functions.FUNCTIONS,
    **moments.FUNCTIONS,
    **products.FUNCTIONS,
}

_NONE = np._NoValue


# What is one ufunc


def _reduce(
    ufunc: Any,
    function: Callable[..., Any],
    a: Any,
    axis: Any,
    dtype: DTypeLike | None,
    out: Any,
    keepdims: Any,
    initial: Any,
    where: Any,
) -> Any:
    """Reduce with a ufunc; `function` is what numpy calls it, and knows errors and dtypes."""
    kwargs = {"keepdims": keepdims, "initial": initial, "dtype": dtype}
    kwargs = {name: value for name, value in kwargs.items() if given(value, None) is not None}
    found = np.asarray(probe(function, a, axis, out=out, where=where, **kwargs)).dtype
    lanes = Lanes(a.shape, axis)
    check_out(out, lanes.kept if given(keepdims, False) else lanes.dropped)
    work = found
    if out is not None:
        work = as_dtype(dtype) or (
            np.result_type(out.dtype, a.dtype) if ufunc in (np.add, np.multiply) else a.dtype
        )
    mask = Mask.of(where, a.shape)
    plain = mask is None and given(initial, None) is None and ufunc in _INTO_SPARSE
    if plain and is_blocked(out) and out.ndim and out.dtype == work and work.kind in "biufc":
        return _reduce_into(ufunc, a, lanes, out, bool(given(keepdims, False)))
    return deliver(reduce_lanes(ufunc, a, lanes, work, mask, initial), lanes, keepdims, out, found)


_INTO_SPARSE = frozenset({np.add, np.bitwise_or, np.bitwise_xor, np.logical_or})


def _reduce_into(ufunc: Any, a: Any, lanes: Lanes, out: Any, keepdims: bool) -> Any:
    """Reduce into a sparse array, which stays empty where nothing is."""
    place = lanes.place if keepdims else lanes.place_dropped
    dtype = None if ufunc is np.logical_or else out.dtype.newbyteorder("=")
    made = np.zeros_like(out)  # what is read can be what is written
    for index, block in a.blocks():
        part = ufunc.reduce(block, lanes.axes, dtype, None, keepdims)
        key = place(index)
        made[key] = ufunc(made[key], part)
    out[...] = made
    return out


@implements(FUNCTIONS, np.sum)
def sum(
    a: Any,
    axis: Any = None,
    dtype: DTypeLike | None = None,
    out: Any = None,
    keepdims: Any = _NONE,
    initial: Any = _NONE,
    where: Any = _NONE,
) -> Any:
    """
    Add items up, as `numpy.sum`.

    Parameters
    ----------
    a : Blocked
        The array.
    axis : None, int or tuple of int
        What to add along; everything by default.
    dtype : dtype, optional
        To add in, and of the result.
    out : ndarray or sparse array, optional
        Where the result goes; a sparse one is filled only where there is something.
    keepdims : bool
        Keep reduced axes with length 1.
    initial : scalar
        To start with.
    where : array of bool, ndarray or sparse
        Which items to take.

    Returns
    -------
    scalar or ndarray
        Or `out`.

    Raises
    ------
    AxisError, TypeError, ValueError
        As numpy.
    MemoryError
        The dense result would not fit.

    Examples
    --------
    >>> import sparsearray
    >>> a = sparsearray.zeros((1 << 20, 3), "i1")
    >>> a[9] = 1, 2, 100
    >>> sum(a), sum(a, axis=0), sum(a, axis=0, dtype="i1")
    (np.int64(103), array([  1,   2, 100]), array([  1,   2, 100], dtype=int8))
    """
    return _reduce(np.add, np.sum, a, axis, dtype, out, keepdims, initial, where)


@implements(FUNCTIONS, np.prod)
def prod(
    a: Any,
    axis: Any = None,
    dtype: DTypeLike | None = None,
    out: Any = None,
    keepdims: Any = _NONE,
    initial: Any = _NONE,
    where: Any = _NONE,
) -> Any:
    """Multiply items, as `numpy.prod`: a hole makes it 0 (NaN with an infinity)."""
    return _reduce(np.multiply, np.prod, a, axis, dtype, out, keepdims, initial, where)


@implements(FUNCTIONS, np.max, np.amax)
def max(
    a: Any,
    axis: Any = None,
    out: Any = None,
    keepdims: Any = _NONE,
    initial: Any = _NONE,
    where: Any = _NONE,
) -> Any:
    """Find the greatest item, as `numpy.max`: at least 0 where there is a hole."""
    return _reduce(np.maximum, np.max, a, axis, None, out, keepdims, initial, where)


@implements(FUNCTIONS, np.min, np.amin)
def min(
    a: Any,
    axis: Any = None,
    out: Any = None,
    keepdims: Any = _NONE,
    initial: Any = _NONE,
    where: Any = _NONE,
) -> Any:
    """Find the least item, as `numpy.min`: at most 0 where there is a hole."""
    return _reduce(np.minimum, np.min, a, axis, None, out, keepdims, initial, where)


amax = max
amin = min


@implements(FUNCTIONS, np.any)
def any(
    a: Any, axis: Any = None, out: Any = None, keepdims: Any = _NONE, *, where: Any = _NONE
) -> Any:
    """Tell whether any item is true, as `numpy.any`."""
    return _reduce(np.logical_or, np.any, a, axis, None, out, keepdims, _NONE, where)


@implements(FUNCTIONS, np.all)
def all(
    a: Any, axis: Any = None, out: Any = None, keepdims: Any = _NONE, *, where: Any = _NONE
) -> Any:
    """Tell whether all items are true, as `numpy.all`: not where there is a hole."""
    return _reduce(np.logical_and, np.all, a, axis, None, out, keepdims, _NONE, where)


def reduce_ufunc(
    ufunc: np.ufunc,
    array: Any,
    axis: Any = 0,
    dtype: DTypeLike | None = None,
    out: Any = None,
    keepdims: Any = False,
    initial: Any = _NONE,
    where: Any = True,
) -> Any:
    """
    Work out ``ufunc.reduce(array, ...)``, as ``__array_ufunc__`` is asked to.

    Returns
    -------
    scalar or ndarray
        Or `out`; NotImplemented for ufuncs other than add, multiply, maximum, minimum, fmax, fmin,
        logical_or, logical_and, bitwise_or, bitwise_xor and bitwise_and.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsearray
    >>> a = sparsearray.zeros((1 << 40, 2), "u1")
    >>> a[77] = 4, 255
    >>> np.bitwise_or.reduce(a)
    array([  4, 255], dtype=uint8)
    """
    if ufunc not in SUPPORTED:
        return NotImplemented
    out = out[0] if isinstance(out, tuple) and len(out) == 1 else out
    return _reducer(ufunc)(array, axis, dtype, out, keepdims, initial, where)


@cache
def _reducer(ufunc: Any) -> Callable[..., Any]:
    @implements({}, ufunc.reduce)
    def reduce(
        array: Any, axis: Any, dtype: Any, out: Any, keepdims: Any, initial: Any, where: Any
    ) -> Any:
        return _reduce(ufunc, ufunc.reduce, array, axis, dtype, out, keepdims, initial, where)

    return reduce


@implements(FUNCTIONS, np.count_nonzero)
def count_nonzero(a: Any, axis: Any = None, *, keepdims: Any = False) -> Any:
    """Count the items that are not zero, as `numpy.count_nonzero`."""
    found = probe(np.count_nonzero, a, axis, out=None, keepdims=keepdims)
    lanes = Lanes(a.shape, axis)
    if axis is None and not keepdims:
        total = builtins.sum(int(np.count_nonzero(chunk)) for chunk in chunks(a))
        return type(found)(total)
    zero = np.zeros((), a.dtype)
    text = a.dtype.kind in "SU"
    filled = Mapped(a, lambda block: block != zero if text else block.astype(bool))
    dtype = np.dtype(np.intp)
    return deliver(reduce_lanes(np.add, filled, lanes, dtype), lanes, keepdims, None, dtype)


@implements(FUNCTIONS, np.ptp)
def ptp(a: Any, axis: Any = None, out: Any = None, keepdims: Any = _NONE) -> Any:
    """Find the range of items, greatest less least, as `numpy.ptp`."""
    found = np.asarray(probe(np.ptp, a, axis, out=out, keepdims=given(keepdims, False))).dtype
    lanes = Lanes(a.shape, axis)
    check_out(out, lanes.kept if given(keepdims, False) else lanes.dropped)
    most = reduce_lanes(np.maximum, a, lanes, a.dtype)
    if out is not None:
        # numpy puts it there before it subtracts, so that bytes do not overflow in a larger out.
        most = most.astype(out.dtype)
    least = reduce_lanes(np.minimum, a, lanes, a.dtype)
    return deliver(np.subtract(most, least), lanes, keepdims, out, found)


# Without NaN


@implements(FUNCTIONS, np.nansum)
def nansum(
    a: Any,
    axis: Any = None,
    dtype: DTypeLike | None = None,
    out: Any = None,
    keepdims: Any = _NONE,
    initial: Any = _NONE,
    where: Any = _NONE,
) -> Any:
    """Add up all items but NaN, as `numpy.nansum`."""
    filled = without_nan(a, 0)
    return _reduce(np.add, np.nansum, filled, axis, dtype, out, keepdims, initial, where)


@implements(FUNCTIONS, np.nanprod)
def nanprod(
    a: Any,
    axis: Any = None,
    dtype: DTypeLike | None = None,
    out: Any = None,
    keepdims: Any = _NONE,
    initial: Any = _NONE,
    where: Any = _NONE,
) -> Any:
    """Multiply all items but NaN, as `numpy.nanprod`."""
    filled = without_nan(a, 1)
    return _reduce(np.multiply, np.nanprod, filled, axis, dtype, out, keepdims, initial, where)


def _warn_of_nan(found: Any) -> Any:
    if any(Mapped(found, np.isnan)) if is_blocked(found) else np.any(np.isnan(found)):
        # To the caller of np.nanmax(a): through our function, its wrapper and the array's dispatch.
        warnings.warn("All-NaN slice encountered", RuntimeWarning, stacklevel=5)
    return found


@implements(FUNCTIONS, np.nanmax)
def nanmax(
    a: Any,
    axis: Any = None,
    out: Any = None,
    keepdims: Any = _NONE,
    initial: Any = _NONE,
    where: Any = _NONE,
) -> Any:
    """Find the greatest item that is not NaN, as `numpy.nanmax`."""
    args = (axis, None, out, keepdims, initial, where)
    return _warn_of_nan(_reduce(np.fmax, np.nanmax, a, *args))


@implements(FUNCTIONS, np.nanmin)
def nanmin(
    a: Any,
    axis: Any = None,
    out: Any = None,
    keepdims: Any = _NONE,
    initial: Any = _NONE,
    where: Any = _NONE,
) -> Any:
    """Find the least item that is not NaN, as `numpy.nanmin`."""
    args = (axis, None, out, keepdims, initial, where)
    return _warn_of_nan(_reduce(np.fmin, np.nanmin, a, *args))


# Along diagonals, and of lengths


class _Diagonals:
    """The diagonals of an array, along its last axis."""

    def __init__(self, array: Blocked, offset: int, axis1: int, axis2: int) -> None:
        self._array = array
        self._offset, self._axes = offset, (axis1, axis2)
        self.shape = np.diagonal(stand_in(array), offset, axis1, axis2).shape
        self.dtype, self.ndim = array.dtype, len(self.shape)
        self.size = np.prod(self.shape, dtype=object)
        self.nbytes = self.size * self.dtype.itemsize

    def blocks(self, *, max_nbytes: int | None = None) -> Iterator[tuple[tuple[slice, ...], Array]]:
        """Go through what boxes have of them."""
        one, two = self._axes
        for index, block in self._array.blocks(max_nbytes=max_nbytes):
            row, column = index[one].start, index[two].start
            found = block.diagonal(self._offset + row - column, one, two)
            if found.shape[-1]:
                # Item k lies in row k, or in column k below the main diagonal.
                start = builtins.max(row, column - self._offset) + builtins.min(self._offset, 0)
                rest = tuple(s for k, s in enumerate(index) if k not in self._axes)
                yield (*rest, slice(start, start + found.shape[-1])), found


@implements(FUNCTIONS, np.trace)
def trace(
    a: Any,
    offset: int = 0,
    axis1: int = 0,
    axis2: int = 1,
    dtype: DTypeLike | None = None,
    out: Any = None,
) -> Any:
    """Add up along diagonals, as `numpy.trace`."""
    sample = np.zeros((1,) * a.ndim, a.dtype)
    np.trace(sample, axis1=axis1, axis2=axis2, dtype=dtype)  # raises numpy's errors
    diagonals = _Diagonals(a, operator.index(offset), axis1 % a.ndim, axis2 % a.ndim)
    return sum(diagonals, -1, dtype, out)


def _power_norm(x: Any, ord: Any, axis: Any, keepdims: Any) -> Any:
    """Find the norm of vectors, of any order for which a hole adds nothing."""
    if ord == np.inf:
        return max(Mapped(x, np.abs), axis, keepdims=keepdims)
    if ord == -np.inf:
        return min(Mapped(x, np.abs), axis, keepdims=keepdims)
    if ord == 0:
        counted = Mapped(x, lambda block: (block != 0).astype(block.real.dtype))
        return sum(counted, axis, keepdims=keepdims)
    if ord == 1:
        return sum(Mapped(x, np.abs), axis, keepdims=keepdims)
    if ord is None or ord == 2:
        squares = sum(Mapped(x, squared), axis, keepdims=keepdims)
        return np.sqrt(squares)
    if not ord > 0:
        msg = f"np.linalg.norm: holes make the norm of order {ord} zero or infinite; {WAY}"
        raise TypeError(msg)
    powers = sum(Mapped(x, lambda block: np.abs(block) ** ord), axis, keepdims=keepdims)
    return powers ** np.reciprocal(ord, dtype=powers.dtype)


def _matrix_norm(x: Any, ord: Any, axes: tuple[int, int], keepdims: Any) -> Any:
    """Find the norms of matrices that need no decomposition."""
    if ord in (None, "fro", "f"):
        return _power_norm(x, 2, axes, keepdims)
    if ord not in (1, -1, np.inf, -np.inf):
        msg = f"np.linalg.norm: order {ord!r} of matrices is not made for a sparse array; {WAY}"
        raise TypeError(msg)
    rows, columns = axes if abs(ord) == 1 else axes[::-1]
    sums = sum(Mapped(x, np.abs), rows, keepdims=True)
    found = (np.max if ord > 0 else np.min)(sums, axis=columns, keepdims=True)
    return found if keepdims else np.squeeze(found, axes)[()]


@implements(FUNCTIONS, np.linalg.norm)
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: Any = False) -> Any:
    """
    Find the norm of the whole, or of vectors and matrices, as `numpy.linalg.norm`.

    Raises
    ------
    TypeError
        It takes a decomposition (``'nuc'``, 2 and -2 of matrices), or the order is negative.
    AxisError, ValueError
        As numpy.
    """
    sample = np.zeros((1,) * x.ndim, x.dtype)
    # Raises numpy's errors; of negative orders zero would be warned of.
    np.linalg.norm(sample, 1 if isinstance(ord, int | float) else ord, axis)
    if not np.issubdtype(x.dtype, np.inexact):
        x = Mapped(x, lambda block: block.astype(float))
    if axis is None:
        if ord is None:
            return _power_norm(x, None, None, keepdims)
        axis = tuple(range(x.ndim))
    axes = normalize_axis_tuple(axis, x.ndim)
    if len(axes) == 1:
        return _power_norm(x, ord, axes[0], keepdims)
    np.linalg.norm(np.zeros((1, 1)), ord)  # raises numpy's error for an order that there is not
    return _matrix_norm(x, ord, axes, keepdims)  # type: ignore[arg-type]
