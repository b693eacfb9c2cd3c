"""What numpy's functions and operators do with our arrays, whatever their layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import DTypeLike, NDArray

from . import elementwise, reductions
from ._refusals import WAY, missing_method, refusal

__all__ = ["FUNCTIONS", "NumpyFunctions"]

FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    **reductions.FUNCTIONS,
    **elementwise.FUNCTIONS,
}


class NumpyFunctions(NDArrayOperatorsMixin):
    """The part of an array that numpy's functions call, and the methods that are numpy's."""

    __slots__ = ()

    __hash__ = None  # type: ignore[assignment]

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method == "reduce":
            return reductions.reduce_ufunc(ufunc, *inputs, **_first_out(kwargs))
        if method != "__call__":
            msg = f"np.{ufunc.__name__}.{method} would fill the holes; {WAY}"
            raise TypeError(msg)
        if ufunc is np.matmul:
            return reductions.matmul(*inputs, **_first_out(kwargs))
        return elementwise.apply(ufunc, inputs, kwargs)

    def __array_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        if not all(issubclass(kind, NumpyFunctions | np.ndarray) for kind in types):
            return NotImplemented
        function = FUNCTIONS.get(func)
        if function is None:
            raise refusal(func, type(self).__name__)
        return function(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if hasattr(np.ndarray, name):
            raise AttributeError(missing_method(name, type(self).__name__), name=name, obj=self)
        msg = f"{type(self).__name__!r} object has no attribute {name!r}"
        raise AttributeError(msg, name=name, obj=self)

    def __eq__(self, other: object) -> Any:
        if _can_compare(self, other):
            return super().__eq__(other)
        if self.dtype.kind == "V" and getattr(getattr(other, "dtype", None), "kind", "") == "V":
            # Records can be equal, but numpy has no ufunc that says so.
            msg = f"np.equal is not made for {self.dtype} with holes; {WAY}"
            raise TypeError(msg)
        return np.zeros_like(self, dtype=bool)

    def __ne__(self, other: object) -> Any:
        if _can_compare(self, other):
            return super().__ne__(other)
        msg = f"np.not_equal would fill the holes, with True for a zero; {WAY}"
        raise TypeError(msg)

    def __pow__(self, other: Any) -> Any:
        # numpy's arrays square themselves where its version finds a plain 2: the dtype can differ.
        if np.ndim(other) == 0 and other == 2:
            one = np.ones(1, self.dtype)
            if (one**other).dtype == np.square(one).dtype:
                return np.square(self)
        return super().__pow__(other)

    def sum(
        self, axis: Any = None, dtype: DTypeLike | None = None, out: Any = None, **kwargs: Any
    ) -> Any:
        """Add items up, as `numpy.sum` with its further arguments."""
        return reductions.sum(self, axis, dtype, out, **kwargs)

    def prod(
        self, axis: Any = None, dtype: DTypeLike | None = None, out: Any = None, **kwargs: Any
    ) -> Any:
        """Multiply items, as `numpy.prod` with its further arguments."""
        return reductions.prod(self, axis, dtype, out, **kwargs)

    def mean(
        self, axis: Any = None, dtype: DTypeLike | None = None, out: Any = None, **kwargs: Any
    ) -> Any:
        """Average items, holes included, as `numpy.mean` with its further arguments."""
        return reductions.mean(self, axis, dtype, out, **kwargs)

    def var(
        self, axis: Any = None, dtype: DTypeLike | None = None, out: Any = None, **kwargs: Any
    ) -> Any:
        """Find the variance, as `numpy.var` with its further arguments."""
        return reductions.var(self, axis, dtype, out, **kwargs)

    def std(
        self, axis: Any = None, dtype: DTypeLike | None = None, out: Any = None, **kwargs: Any
    ) -> Any:
        """Find the standard deviation, as `numpy.std` with its further arguments."""
        return reductions.std(self, axis, dtype, out, **kwargs)

    def min(self, axis: Any = None, out: Any = None, **kwargs: Any) -> Any:
        """Find the least item, as `numpy.min` with its further arguments."""
        return reductions.min(self, axis, out, **kwargs)

    def max(self, axis: Any = None, out: Any = None, **kwargs: Any) -> Any:
        """Find the greatest item, as `numpy.max` with its further arguments."""
        return reductions.max(self, axis, out, **kwargs)

    def argmin(self, axis: Any = None, out: Any = None, **kwargs: Any) -> Any:
        """Find where the least item is, as `numpy.argmin`."""
        return reductions.argmin(self, axis, out, **kwargs)

    def argmax(self, axis: Any = None, out: Any = None, **kwargs: Any) -> Any:
        """Find where the greatest item is, as `numpy.argmax`."""
        return reductions.argmax(self, axis, out, **kwargs)

    def any(self, axis: Any = None, out: Any = None, **kwargs: Any) -> Any:
        """Tell whether any item is true, as `numpy.any`."""
        return reductions.any(self, axis, out, **kwargs)

    def all(self, axis: Any = None, out: Any = None, **kwargs: Any) -> Any:
        """Tell whether all items are true, as `numpy.all`: not where there is a hole."""
        return reductions.all(self, axis, out, **kwargs)

    def count_nonzero(self, axis: Any = None, **kwargs: Any) -> Any:
        """Count the items that are not zero, as `numpy.count_nonzero`."""
        return reductions.count_nonzero(self, axis, **kwargs)

    def nonzero(self) -> tuple[NDArray[np.int64], ...]:
        """Find where items are not zero, as `numpy.nonzero`."""
        found: tuple[NDArray[np.int64], ...] = reductions.nonzero(self)
        return found

    def dot(self, other: Any, out: Any = None) -> Any:
        """Multiply with a dense vector or matrix, as `numpy.dot`."""
        return reductions.dot(self, other, out)

    def round(self, decimals: int = 0, out: Any = None) -> Any:
        """Round every item, as `numpy.round`: holes stay."""
        return np.round(self, decimals, out)

    def clip(self, min: Any = None, max: Any = None, out: Any = None) -> Any:  # noqa: A002
        """Limit every item, as `numpy.clip`: holes stay, and limits must let zero be zero."""
        return np.clip(self, min, max, out)

    @property
    def real(self) -> Any:
        """The real parts, in an array of their own: unlike numpy's this is no window."""
        return np.real(self)

    @property
    def imag(self) -> Any:
        """The imaginary parts, in an array of their own: unlike numpy's this is no window."""
        return np.imag(self)

    def astype(self, dtype: DTypeLike, *, casting: Any = "unsafe", copy: bool = True) -> Self:
        """
        Convert every item, keeping the holes.

        Parameters
        ----------
        dtype : dtype
            Of the array that is made.
        casting : str
            What may be converted, as of `numpy.ndarray.astype`.
        copy : bool
            False gives the array itself where it has the dtype already.

        Raises
        ------
        TypeError
            `casting` does not allow it, or the dtype holds objects.
        """
        if not copy and self.dtype == np.dtype(dtype):
            return self
        made: Self = elementwise.astype(self, dtype, casting=casting)
        return made


def _first_out(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Take `out` out of the tuple that ufuncs put it into."""
    out = kwargs.get("out")
    return {**kwargs, "out": out[0]} if isinstance(out, tuple) and len(out) == 1 else kwargs


def _can_compare(array: Any, other: Any) -> bool:
    """Tell whether numpy can compare the items; those of another kind are never equal."""
    item = np.zeros((1,), other.dtype) if hasattr(other, "dtype") else other
    try:
        np.equal(np.zeros((1,), array.dtype), item)
    except TypeError:
        return False
    except ValueError:  # a list of another length, say: of which more is said later
        return True
    return True
