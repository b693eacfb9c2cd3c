"""Chunks that hold zeros everywhere: of any size, with one item in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sparsearray._zero import is_zero_bytes

__all__ = ["Constant", "constant"]

# What gives zero of zeros, however many there are.
_KEEPING = frozenset(
    {
        np.add,
        np.multiply,
        np.maximum,
        np.minimum,
        np.fmax,
        np.fmin,
        np.logical_or,
        np.logical_and,
        np.bitwise_or,
        np.bitwise_and,
    }
)


class Constant(np.ndarray[Any, Any]):
    """
    A read-only array of zeros, all of them one item in memory, that numpy need not walk through.

    Reductions are known at once, and ufuncs of such arrays and of numbers are worked out for one
    item. What they give, and all else, are plain arrays as of any other.

    Examples
    --------
    >>> a = constant((1 << 20, 1 << 17), np.dtype("i4"))
    >>> a.sum(), a.max(axis=1).shape, type(a[:3, :2] + 1)
    (np.int64(0), (1048576,), <class 'numpy.ndarray'>)
    """

    __array_priority__ = -1.0  # numpy makes plain arrays of this and others

    @property
    def _is_one(self) -> bool:
        """Whether all items are one still: not so of copies, which keep the type."""
        pairs = zip(self.shape, self.strides, strict=True)
        return self.size > 0 and all(step == 0 or n == 1 for n, step in pairs)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method == "__call__" and _all_one(ufunc, inputs, kwargs):
            return _apply(ufunc, inputs, kwargs)
        if method == "reduce" and self._is_one and ufunc in _KEEPING and _is_usual(kwargs):
            return _reduce(ufunc, self, **kwargs)
        if "out" in kwargs:
            kwargs["out"] = tuple(map(_plain, kwargs["out"]))
        if "where" in kwargs:
            kwargs["where"] = _plain(kwargs["where"])
        return getattr(ufunc, method)(*map(_plain, inputs), **kwargs)

    def __getitem__(self, key: Any) -> Any:
        found = _plain(self)[key]
        if isinstance(found, np.ndarray) and found.base is not None and not any(found.strides):
            return found.view(Constant)
        return found

    def astype(self, dtype: DTypeLike, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Convert the one item, as `numpy.ndarray.astype` does all of them."""
        if not self._is_one:
            return _plain(self).astype(dtype, *args, **kwargs)
        return _filled(_item(self).astype(dtype, *args, **kwargs), self.shape)

    def copy(self, order: Any = "C") -> Any:
        """Make a plain array, as large as it says."""
        if self._is_one and order in ("C", "F"):
            return _filled(_item(self), self.shape, order)
        return _plain(self).copy(order)

    def view(self, *args: Any, **kwargs: Any) -> Any:
        """Show the items as others; of another size they are an array of its own."""
        try:
            return super().view(*args, **kwargs)
        except ValueError:
            return self.copy().view(*args, **kwargs)

    def __reduce_ex__(self, protocol: Any) -> Any:
        if not self._is_one:
            return _plain(self).__reduce_ex__(protocol)
        return constant, (self.shape, self.dtype)

    def __repr__(self) -> str:
        return repr(_plain(self))


def constant(shape: tuple[int, ...], dtype: np.dtype) -> NDArray[Any]:
    """
    Make an array of zeros that takes no memory.

    Parameters
    ----------
    shape : tuple of int
        Items along each axis.
    dtype : dtype
        Of an item.
    """
    return np.broadcast_to(np.zeros((1,) * len(shape), dtype), shape).view(Constant)


def _filled(item: NDArray[Any], shape: tuple[int, ...], order: Any = "C") -> NDArray[Any]:
    """Make a plain array of one item; of zeros it takes no memory before it is written to."""
    if is_zero_bytes(item):
        return np.zeros(shape, item.dtype, order)
    return np.full(shape, item.reshape(()), item.dtype, order)


def _plain(array: Any) -> Any:
    return array.view(np.ndarray) if isinstance(array, Constant) else array


def _item(array: Constant) -> NDArray[Any]:
    """Take one item, with as many axes."""
    found: NDArray[Any] = _plain(array)[(slice(0, 1),) * array.ndim + (...,)]
    return found


def _all_one(ufunc: np.ufunc, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Tell whether a ufunc gives the same item everywhere."""
    return (
        ufunc.signature is None
        and kwargs.keys() <= {"dtype", "casting"}
        and all(one._is_one if isinstance(one, Constant) else np.ndim(one) == 0 for one in inputs)
    )


def _apply(ufunc: np.ufunc, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    shape = np.broadcast_shapes(*(one.shape for one in inputs if isinstance(one, Constant)))
    if not shape:
        return ufunc(*map(_plain, inputs), **kwargs)
    found = ufunc(*(_item(one) if isinstance(one, Constant) else one for one in inputs), **kwargs)
    if isinstance(found, tuple):
        return tuple(_filled(one, shape) for one in found)
    return _filled(found, shape)


def _is_usual(kwargs: dict[str, Any]) -> bool:
    """Tell whether a reduction has no arguments that take a walk."""
    outs = kwargs.get("out")
    return (
        (outs is None or all(out is None for out in outs))
        and kwargs.get("initial", np._NoValue) in (None, np._NoValue)
        and kwargs.get("where", True) is True
    )


def _reduce(
    ufunc: np.ufunc,
    array: Constant,
    axis: Any = 0,
    dtype: DTypeLike | None = None,
    keepdims: bool = False,
    **_: Any,
) -> Any:
    """Reduce one item, of which numpy says what it becomes."""
    found = ufunc.reduce(_item(array), axis=axis, dtype=dtype, keepdims=True)
    axes = range(array.ndim) if axis is None else np.atleast_1d(axis) % array.ndim
    if keepdims:
        shape = tuple(1 if k in axes else n for k, n in enumerate(array.shape))
    else:
        shape = tuple(n for k, n in enumerate(array.shape) if k not in axes)
    return _filled(found, shape) if shape else found.reshape(())[()]
