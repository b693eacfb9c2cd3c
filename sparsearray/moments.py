"""Mean, variance and their kin: numpy's functions that divide by how many items there are."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple
from numpy.typing import DTypeLike, NDArray

from ._boxes import reader
from ._lanes import (
    Lanes,
    Mapped,
    Mask,
    check_out,
    check_room,
    covered,
    deliver,
    given,
    implements,
    probe,
    reduce_lanes,
    wide,
    without_nan,
)

__all__ = ["FUNCTIONS", "average", "mean", "nanmean", "nanstd", "nanvar", "squared", "std", "var"]

Array = NDArray[Any]

FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {}

_NONE = np._NoValue
_INT = np.dtype(np.int64)


def _sum_dtype(a: Any, dtype: DTypeLike | None, result: np.dtype) -> np.dtype:
    """Return the dtype that a mean is summed in."""
    if dtype is not None:
        return wide(np.dtype(dtype))
    return wide(a.dtype if a.dtype.kind in "fcm" else result)


def _population(lanes: Lanes, mask: Mask | None, nans: Mapped | None) -> Any:
    """Count the items of each lane, holes included, but for what is masked or NaN."""
    total = lanes.count if mask is None else mask.total(lanes)
    return total if nans is None else total - reduce_lanes(np.add, nans, lanes, _INT, mask)


def _moments(
    a: Any,
    axis: Any,
    dtype: DTypeLike | None,
    where: Any,
    result: np.dtype,
    skip_nan: bool,
) -> tuple[Lanes, Mask | None, Array, Any]:
    """Find the mean of each lane, in a wide dtype, and how many items it is of."""
    lanes, mask = Lanes(a.shape, axis), Mask.of(where, a.shape)
    work = _sum_dtype(a, dtype, result)
    check_room(lanes.kept, work)
    nans = Mapped(a, np.isnan) if skip_nan else None
    count = _population(lanes, mask, nans)
    total = reduce_lanes(np.add, without_nan(a, 0) if skip_nan else a, lanes, work, mask)
    if skip_nan:
        with np.errstate(invalid="ignore", divide="ignore"):
            found = np.true_divide(total, count)
    else:
        found = np.true_divide(total, count)
    return lanes, mask, found.astype(work, copy=False), count


def _mean(
    function: Callable[..., Any],
    a: Any,
    axis: Any,
    dtype: DTypeLike | None,
    out: Any,
    keepdims: Any,
    where: Any,
) -> Any:
    skip_nan = function is np.nanmean and np.issubdtype(a.dtype, np.inexact)
    asked = np.asarray(
        probe(function, a, axis, out=out, dtype=dtype, keepdims=keepdims, where=where)
    ).dtype
    result = np.asarray(probe(function, a, axis, out=None, dtype=dtype)).dtype
    lanes = Lanes(a.shape, axis)
    check_out(out, lanes.kept if given(keepdims, False) else lanes.dropped)
    if not skip_nan and where is not _NONE and not np.all(Mask(where, a.shape).total(lanes)):
        _warn("Mean of empty slice.")
    lanes, _, found, count = _moments(a, axis, dtype, where, result, skip_nan)
    if skip_nan and not np.all(count):
        _warn("Mean of empty slice")
    return deliver(found, lanes, keepdims, out, asked)


def _warn(message: str) -> None:
    # For the caller of np.mean(a), through _mean, mean, its wrapper and the array's dispatch.
    warnings.warn(message, RuntimeWarning, stacklevel=6)


@implements(FUNCTIONS, np.mean)
def mean(
    a: Any,
    axis: Any = None,
    dtype: DTypeLike | None = None,
    out: Any = None,
    keepdims: Any = _NONE,
    *,
    where: Any = _NONE,
) -> Any:
    """Average items, holes included, as `numpy.mean`."""
    return _mean(np.mean, a, axis, dtype, out, keepdims, where)


@implements(FUNCTIONS, np.nanmean)
def nanmean(
    a: Any,
    axis: Any = None,
    dtype: DTypeLike | None = None,
    out: Any = None,
    keepdims: Any = _NONE,
    *,
    where: Any = _NONE,
) -> Any:
    """Average all items but NaN, holes included, as `numpy.nanmean`."""
    return _mean(np.nanmean, a, axis, dtype, out, keepdims, where)


def squared(distance: Array) -> Array:
    """Square items, or the lengths of complex ones."""
    if distance.dtype.kind == "c":
        found: Array = distance.real**2 + distance.imag**2
        return found
    return np.multiply(distance, distance)


def _squares(
    a: Any, lanes: Lanes, mask: Mask | None, center: Array, dtype: np.dtype, skip_nan: bool
) -> Array:
    """Add up the squared distances of all items from the mean of their lane."""

    def distances(block: Array, index: tuple[slice, ...] | None = None) -> Array:
        middle = center.reshape(()) if index is None else center[lanes.place(index)]
        found = squared(np.subtract(block, middle))
        if skip_nan:
            found[np.isnan(block)] = 0
        return found

    indexed = not (lanes.single and mask is None)
    found = reduce_lanes(np.add, Mapped(a, distances, indexed=indexed), lanes, dtype, mask)
    total = lanes.count if mask is None else mask.total(lanes)
    holes = np.asarray(total - covered(a, lanes, mask))
    # Where there is none, the mean may be infinite, and no NaN must come of it.
    squares = squared(center).astype(found.dtype, copy=False)
    np.add(found, squares * np.maximum(holes, 1), out=found, where=holes > 0)
    return found


def _center(mean: Any, lanes: Lanes) -> Array:
    """Check a mean that was given."""
    center = np.asarray(mean)
    if center.shape != lanes.kept:
        center = np.broadcast_to(center, lanes.kept)
    return center


def _var(
    function: Callable[..., Any],
    a: Any,
    axis: Any,
    dtype: DTypeLike | None,
    out: Any,
    ddof: Any,
    keepdims: Any,
    where: Any,
    mean: Any,
    correction: Any,
) -> Any:
    if correction is not _NONE:
        if ddof != 0:
            msg = "ddof and correction can't be provided simultaneously."
            raise ValueError(msg)
        ddof = correction
    nan_function = function in (np.nanvar, np.nanstd)
    skip_nan = nan_function and np.issubdtype(a.dtype, np.inexact)
    asked = np.asarray(
        probe(function, a, axis, out=out, dtype=dtype, keepdims=keepdims, where=where)
    ).dtype
    result = np.asarray(probe(np.mean, a, axis, out=None, dtype=dtype)).dtype
    lanes = Lanes(a.shape, axis)
    check_out(out, lanes.kept if given(keepdims, False) else lanes.dropped)
    if mean is _NONE:
        lanes, mask, center, count = _moments(a, axis, dtype, where, result, skip_nan)
    else:
        mask = Mask.of(where, a.shape)
        center = _center(mean, lanes)
        count = _population(lanes, mask, Mapped(a, np.isnan) if skip_nan else None)
    work = _sum_dtype(a, dtype, result)
    work = np.zeros((), work).real.dtype
    found = _squares(a, lanes, mask, center, work, skip_nan)
    freedom = np.asarray(count - ddof)
    if np.any(freedom <= 0):
        _warn("Degrees of freedom <= 0 for slice" + "." * skip_nan)
    if skip_nan:
        with np.errstate(invalid="ignore", divide="ignore"):
            found = np.true_divide(found, freedom)
        found = np.where(freedom <= 0, np.nan, found)
    else:
        found = np.true_divide(found, np.maximum(freedom, 0))
    if function in (np.std, np.nanstd):
        found = np.sqrt(found)
    return deliver(found, lanes, keepdims, out, asked)


@implements(FUNCTIONS, np.var)
def var(
    a: Any,
    axis: Any = None,
    dtype: DTypeLike | None = None,
    out: Any = None,
    ddof: Any = 0,
    keepdims: Any = _NONE,
    *,
    where: Any = _NONE,
    mean: Any = _NONE,
    correction: Any = _NONE,
) -> Any:
    """Find the variance, holes included, as `numpy.var`: in two passes, the mean first."""
    return _var(np.var, a, axis, dtype, out, ddof, keepdims, where, mean, correction)


@implements(FUNCTIONS, np.std)
def std(
    a: Any,
    axis: Any = None,
    dtype: DTypeLike | None = None,
    out: Any = None,
    ddof: Any = 0,
    keepdims: Any = _NONE,
    *,
    where: Any = _NONE,
    mean: Any = _NONE,
    correction: Any = _NONE,
) -> Any:
    """Find the standard deviation, holes included, as `numpy.std`."""
    return _var(np.std, a, axis, dtype, out, ddof, keepdims, where, mean, correction)


@implements(FUNCTIONS, np.nanvar)
def nanvar(
    a: Any,
    axis: Any = None,
    dtype: DTypeLike | None = None,
    out: Any = None,
    ddof: Any = 0,
    keepdims: Any = _NONE,
    *,
    where: Any = _NONE,
    mean: Any = _NONE,
    correction: Any = _NONE,
) -> Any:
    """Find the variance of all items but NaN, holes included, as `numpy.nanvar`."""
    return _var(np.nanvar, a, axis, dtype, out, ddof, keepdims, where, mean, correction)


@implements(FUNCTIONS, np.nanstd)
def nanstd(
    a: Any,
    axis: Any = None,
    dtype: DTypeLike | None = None,
    out: Any = None,
    ddof: Any = 0,
    keepdims: Any = _NONE,
    *,
    where: Any = _NONE,
    mean: Any = _NONE,
    correction: Any = _NONE,
) -> Any:
    """Find the standard deviation of all items but NaN, as `numpy.nanstd`."""
    return _var(np.nanstd, a, axis, dtype, out, ddof, keepdims, where, mean, correction)


def _weights(a: Any, weights: Any, axis: Any) -> Any:
    """Check weights, and give them the axes of the array."""
    if not hasattr(weights, "blocks"):
        weights = np.asarray(weights)
    if tuple(weights.shape) == tuple(a.shape):
        return weights
    if axis is None:
        msg = "Axis must be specified when shapes of a and weights differ."
        raise TypeError(msg)
    axes = normalize_axis_tuple(axis, a.ndim)
    if tuple(weights.shape) != tuple(a.shape[k] for k in axes) or hasattr(weights, "blocks"):
        msg = "Shape of weights must be consistent with shape of a along specified axis."
        raise ValueError(msg)
    weights = weights.transpose(np.argsort(axes))
    return weights.reshape(tuple(n if k in axes else 1 for k, n in enumerate(a.shape)))


@implements(FUNCTIONS, np.average)
def average(
    a: Any,
    axis: Any = None,
    weights: Any = None,
    returned: bool = False,
    *,
    keepdims: Any = _NONE,
) -> Any:
    """
    Average items with weights, holes included, as `numpy.average`.

    Weights are an ndarray of the array's shape or that of `axis`, or a sparse array of its shape.
    """
    keep = given(keepdims, False)
    if weights is None:
        found = mean(a, axis, keepdims=keep)
        scale = np.asarray(found).dtype.type(a.size // max(np.size(found), 1))
        return (found, np.broadcast_to(scale, np.shape(found)).copy()[()]) if returned else found
    probe(np.average, a, axis, out=None, weights=np.ones((1,) * a.ndim), keepdims=keep)
    weights = _weights(a, weights, axis)
    exact = a.dtype.kind in "biu"
    dtype = np.result_type(a.dtype, weights.dtype, *(["f8"] if exact else []))
    lanes = Lanes(a.shape, axis)
    if hasattr(weights, "blocks"):
        scale = reduce_lanes(np.add, weights, lanes, dtype).astype(dtype)
    else:
        scale = weights.sum(axis=lanes.axes, dtype=dtype, keepdims=True)
    if np.any(scale == 0):
        msg = "Weights sum to zero, can't be normalized"
        raise ZeroDivisionError(msg)
    part = reader(weights, a.shape)
    weighted = Mapped(
        a, lambda block, index: np.multiply(block, part(index), dtype=dtype), indexed=True
    )
    found = np.true_divide(reduce_lanes(np.add, weighted, lanes, dtype).astype(dtype), scale)
    # An infinite weight makes NaN of the zeros in holes, too.
    found = np.where(np.isfinite(scale), found, np.nan)
    result = deliver(found, lanes, keep, None, found.dtype)
    if not returned:
        return result
    return result, deliver(np.broadcast_to(scale, lanes.kept).copy(), lanes, keep, None, dtype)
