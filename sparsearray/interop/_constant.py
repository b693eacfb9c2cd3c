"""Chunks that hold one value everywhere: of any size, and worked on as one item."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["Constant", "constant"]

# What gives the value itself, however often it is taken.
_IDEMPOTENT = frozenset(
    {
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
    A plain array all of whose items are the same one in memory, which numpy works on as one.

    Ufuncs of such arrays and of numbers give another one; sums, products, least and greatest items
    take no walk. Everything else is as of any ndarray with strides of 0, and gives plain ones. It
    is read-only.

    Examples
    --------
    >>> a = constant((1 << 20, 1 << 17), np.dtype("i4"))
    >>> a.sum(), (a + 1).max(), (a + 1).nbytes >> 40
    (np.int64(0), np.int32(1), 0)
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
        if method == "reduce" and self._is_one:
            found = _reduce(ufunc, self, **kwargs)
            if found is not NotImplemented:
                return found
        if "out" in kwargs:
            kwargs["out"] = tuple(map(_plain, kwargs["out"]))
        if "where" in kwargs:
            kwargs["where"] = _plain(kwargs["where"])
        return getattr(ufunc, method)(*map(_plain, inputs), **kwargs)

    def __getitem__(self, key: Any) -> Any:
        found = _plain(self)[key]
        return _as_constant(found) if isinstance(found, np.ndarray) else found

    def astype(self, dtype: DTypeLike, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Convert the one item, as `numpy.ndarray.astype` does all of them."""
        if not self._is_one:
            return _plain(self).astype(dtype, *args, **kwargs)
        return _spread(_item(self).astype(dtype, *args, **kwargs), self.shape)

    def copy(self, order: Any = "C") -> Any:
        """Make a plain array, as large as it says."""
        if self._is_one and not _item(self).tobytes().strip(b"\0"):
            return np.zeros(self.shape, self.dtype, order)  # takes no memory yet
        return _plain(self).copy(order)

    def __reduce_ex__(self, protocol: Any) -> Any:
        if not self._is_one:
            return _plain(self).__reduce_ex__(protocol)
        return _spread, (np.array(_item(self)), self.shape)

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
    return _spread(np.zeros((1,) * len(shape), dtype), shape)


def _spread(item: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Make an array of any shape of one item."""
    return np.broadcast_to(item.reshape((1,) * len(shape)), shape).view(Constant)


def _plain(array: Any) -> Any:
    return array.view(np.ndarray) if isinstance(array, Constant) else array


def _as_constant(array: NDArray[Any]) -> NDArray[Any]:
    """Have a view work as one item, too, if it does."""
    if array.ndim and array.size and all(step == 0 for step in array.strides):
        return array.view(Constant)
    return array


def _item(array: Constant) -> NDArray[Any]:
    """Take one item, with as many axes."""
    found: NDArray[Any] = array.view(np.ndarray)[(slice(0, 1),) * array.ndim]
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
    found = ufunc(*(_item(one) if isinstance(one, Constant) else one for one in inputs), **kwargs)
    if isinstance(found, tuple):
        return tuple(_spread(one, shape) for one in found)
    return _spread(found, shape)


def _reduce(
    ufunc: np.ufunc,
    array: Constant,
    axis: Any = 0,
    dtype: DTypeLike | None = None,
    out: Any = None,
    keepdims: bool = False,
    **kwargs: Any,
) -> Any:
    """Reduce without a walk; NotImplemented for what needs one."""
    rest = kwargs.get("initial", np._NoValue), kwargs.get("where", True)
    if out not in (None, (None,)) or rest != (np._NoValue, True):
        return NotImplemented
    zero = not _item(array).tobytes().strip(b"\0")
    if not (ufunc in _IDEMPOTENT or (zero and ufunc in (np.add, np.multiply))):
        return NotImplemented
    # numpy itself has its say on axes and dtypes, of an array of two items along each.
    small = np.broadcast_to(_item(array), tuple(min(n, 2) for n in array.shape))
    found = ufunc.reduce(small, axis=axis, dtype=dtype, keepdims=True)
    axes = range(array.ndim) if axis is None else np.atleast_1d(axis) % array.ndim
    item = found[(slice(0, 1),) * array.ndim]
    if keepdims:
        shape = tuple(1 if k in axes else n for k, n in enumerate(array.shape))
    else:
        shape = tuple(n for k, n in enumerate(array.shape) if k not in axes)
    if prod(shape) == 1:
        return item.reshape(shape) if shape else item.reshape(())[()]
    return _spread(item, shape)
