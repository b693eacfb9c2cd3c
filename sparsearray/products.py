"""
Products of a sparse array with dense vectors and matrices: dot, matmul, tensordot and their kin.

A product is told by labels, as in Einstein's sum: each axis of both operands has one, and what is
not in the result is summed over. So a box knows which part of the other operand it meets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._boxes import dense, is_blocked, reader
from ._lanes import (
    Mapped,
    check_out,
    check_room,
    wide,
)
from ._refusals import WAY

__all__ = ["FUNCTIONS", "dot", "inner", "matmul", "tensordot", "vdot"]

Array = NDArray[Any]
Index = tuple[slice, ...]

FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {}


class _Product:
    """
    Which axes of two operands meet: one label for each, and those not in the result are summed.

    Parameters
    ----------
    a, b : Blocked or ndarray
        `a` has holes.
    of_a, of_b, of_result : sequence of int
        Labels.
    """

    def __init__(
        self, a: Any, b: Any, of_a: Sequence[int], of_b: Sequence[int], of_result: Sequence[int]
    ) -> None:
        self.a, self.b = a, b
        self._of_a, self._of_b, self._of_result = list(of_a), list(of_b), list(of_result)
        sizes = dict(zip(of_a, a.shape, strict=True))
        for label, n in zip(of_b, b.shape, strict=True):
            # matmul repeats an axis of length 1.
            sizes[label] = n if sizes.get(label, 1) == 1 else sizes[label]
        self.shape = tuple(sizes[label] for label in of_result)
        self._part = [self._axis(label, n) for label, n in zip(of_b, b.shape, strict=True)]
        self._place = [self._axis(label, n) for label, n in zip(of_result, self.shape, strict=True)]
        summed = [label for label in of_a if label in of_b and label not in of_result]
        self._axes = (
            [self._of_a.index(label) for label in summed],
            [self._of_b.index(label) for label in summed],
        )
        free = [label for label in (*of_a, *of_b) if label not in summed]
        self._repeated = len(set(free)) < len(free)
        self._order = [free.index(label) for label in of_result]
        self._is_matrix_first = (
            self._axes == ([1], [0])
            and (len(of_a), len(of_b)) in ((2, 1), (2, 2))
            and self._order == sorted(self._order)
        )

    def _axis(self, label: int, n: int) -> int | None:
        """Find the axis of `a` that tells where along an axis of length n a box goes."""
        if label in self._of_a and self.a.shape[self._of_a.index(label)] == n:
            return self._of_a.index(label)
        return None

    @staticmethod
    def _select(axes: list[int | None], index: Index) -> Index:
        return tuple([slice(None) if k is None else index[k] for k in axes])

    def _times(self, block: Array, part: Array) -> Array:
        # BLAS, asked to multiply by a single zero, skips it, and so loses NaN of an infinity.
        numbers = block.dtype.kind in "fc" or part.dtype.kind in "fc"
        single = numbers and prod([block.shape[k] for k in self._axes[0]]) == 1
        if self._repeated or single:
            found: Array = np.einsum(block, self._of_a, part, self._of_b, self._of_result)
            return found
        return np.tensordot(block, part, self._axes).transpose(self._order)

    def _sum(self, a: Any, b: Any, dtype: np.dtype) -> Array:
        """Add up what all boxes give."""
        check_room(self.shape, dtype)
        if self._is_matrix_first and hasattr(a, "_times") and not is_blocked(b):
            quick: Array | None = a._times(b, dtype)
            if quick is not None:
                return quick
        found = np.zeros(self.shape, dtype)
        other = reader(b, b.shape)
        for index, block in a.blocks():
            key: Any = (*self._select(self._place, index), ...)  # a view where no axis is left, too
            target = found[key]
            np.add(target, self._times(block, other(self._select(self._part, index))), out=target)
        return found

    def compute(self, dtype: np.dtype) -> Array:
        """Work it out, for a result of `dtype`."""
        found = self._sum(self.a, self.b, wide(dtype))
        if np.issubdtype(self.b.dtype, np.inexact):
            self._spoil(found)
        return found.astype(dtype)

    def _spoil(self, found: Array) -> None:
        """Make NaN of what a zero and an infinity or NaN of the other operand give."""

        def is_bad(block: Array) -> Array:
            return (~np.isfinite(block)).astype(float)

        if is_blocked(self.b):
            bad: Any = Mapped(self.b, is_bad)
            total = sum(block.sum() for _, block in bad.blocks())
        elif np.isfinite(self.b).all():
            return
        else:
            bad = is_bad(self.b)
            kept = [label for label in self._of_b if label in self._of_result]
            total = np.einsum(bad, self._of_b, kept)
            total = total.transpose(sorted(range(len(kept)), key=lambda k: self._rank(kept[k])))
            total = total.reshape(
                [
                    self.b.shape[self._of_b.index(label)] if label in kept else 1
                    for label in self._of_result
                ]
            )
        if np.any(total):
            met = self._sum(
                Mapped(self.a, lambda block: np.ones(block.shape)), bad, np.dtype(float)
            )
            np.copyto(found, np.nan, where=total - met > 0.5)

    def _rank(self, label: int) -> int:
        return self._of_result.index(label)


def _multiply(
    name: str, dtype: np.dtype, a: Any, b: Any, labels: tuple[Sequence[int], ...], out: Any
) -> Any:
    """Multiply two operands of which at least one has holes."""
    of_a, of_b, of_result = labels
    sizes = dict(zip(of_a, a.shape, strict=True))
    for label, n in zip(of_b, b.shape, strict=True):
        if sizes.get(label, n) != n and (label not in of_result or 1 not in (n, sizes[label])):
            msg = f"{name}: shapes {a.shape} and {b.shape} do not fit: {sizes[label]} is not {n}"
            raise ValueError(msg)
    if not is_blocked(a) or (is_blocked(b) and set(of_a) <= set(of_b) - set(of_result)):
        a, b, of_a, of_b = b, a, of_b, of_a
    if is_blocked(b) and not set(of_b) <= set(of_a) - set(of_result):
        msg = f"{name} of two sparse arrays needs one that is summed over whole; {WAY}"
        raise TypeError(msg)
    product = _Product(a, b, of_a, of_b, of_result)
    check_out(out, product.shape)
    found = product.compute(dtype)
    if out is not None:
        out[...] = found
        return out
    return found if found.ndim else found[()]


def _operands(*arrays: Any) -> tuple[list[Any], bool]:
    """Return operands, and whether numpy can have them: they have no items, or no axes."""
    made = [array if is_blocked(array) else _as_dense(array) for array in arrays]
    sparse = [array for array in made if is_blocked(array)]
    if all(array.size and array.ndim for array in sparse):
        return made, False
    return [dense(array) if is_blocked(array) else array for array in made], True


def _as_dense(array: Any) -> Array:
    """Make an ndarray of the other operand; TypeError if it is sparse in another way."""
    if hasattr(array, "todense"):
        library = type(array).__module__.partition(".")[0]
        way = "a.to_csr()" if library == "scipy" else f"a.to_{library}()"
        msg = f"products with a {type(array).__name__} are for {library} to make: {way} goes there"
        raise TypeError(msg)
    return np.asarray(array)


def _dtype_of(found: Any) -> np.dtype:
    """Tell the dtype of a product by that of a sample: without items' own, they are objects."""
    return found.dtype if isinstance(found, np.ndarray | np.generic) else np.dtype(object)


def _samples(a: Any, b: Any) -> tuple[Array, Array]:
    return np.zeros((1,) * a.ndim, a.dtype), np.zeros((1,) * b.ndim, b.dtype)


def _check_dot_out(out: Any, dtype: np.dtype) -> None:
    if out is not None and out.dtype != dtype:
        msg = f"output array is not acceptable: it must be of {dtype}, not {out.dtype}"
        raise ValueError(msg)


def _refuse_scalar(name: str, a: Any, b: Any) -> None:
    if not a.ndim or not b.ndim:
        msg = f"{name} with a scalar gives an array of the same size: a * b keeps its holes"
        raise TypeError(msg)


def dot(a: Any, b: Any, out: Any = None) -> Any:
    """
    Multiply with a dense vector or matrix, as `numpy.dot`.

    It goes over the last axis of `a`, and the last but one of `b`.

    Parameters
    ----------
    a, b : Blocked or array_like
        At least one has holes. If both have, one must be a vector.
    out : ndarray, optional
        For the result, of its shape and dtype.

    Returns
    -------
    scalar or ndarray

    Raises
    ------
    ValueError
        Shapes do not fit.
    TypeError
        There is no product of these dtypes, or one operand is a scalar.
    MemoryError
        The dense result would not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsearray
    >>> a = sparsearray.zeros((1 << 20, 1 << 17))
    >>> a[3, :2] = 5, 6
    >>> dot(a, np.ones(1 << 17))[2:5]
    array([ 0., 11.,  0.])

    Notes
    -----
    An infinity or NaN of the dense operand makes NaN of the zeros in holes, as everywhere.
    """
    (a, b), plain = _operands(a, b)
    if plain and is_blocked(out):
        found = np.asarray(np.dot(a, b))
        check_out(out, found.shape)
        _check_dot_out(out, found.dtype)
        out[...] = found
        return out
    if plain:
        return np.dot(a, b, out)
    _refuse_scalar("np.dot", a, b)
    dtype = _dtype_of(np.dot(*_samples(a, b)))
    _check_dot_out(out, dtype)
    of_a = list(range(a.ndim))
    of_b = list(range(a.ndim, a.ndim + b.ndim))
    at = max(b.ndim - 2, 0)
    of_b[at] = of_a[-1]
    labels = of_a, of_b, of_a[:-1] + of_b[:at] + of_b[at + 1 :]
    return _multiply("np.dot", dtype, a, b, labels, out)


def inner(a: Any, b: Any, /) -> Any:
    """Multiply over the last axes, as `numpy.inner`; arguments as of `dot`."""
    (a, b), plain = _operands(a, b)
    if plain:
        return np.inner(a, b)
    _refuse_scalar("np.inner", a, b)
    dtype = _dtype_of(np.inner(*_samples(a, b)))
    of_a = list(range(a.ndim))
    of_b = [*range(a.ndim, a.ndim + b.ndim - 1), of_a[-1]]
    return _multiply("np.inner", dtype, a, b, (of_a, of_b, of_a[:-1] + of_b[:-1]), None)


def tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    """Multiply over several axes, as `numpy.tensordot`; arguments as of `dot`."""
    (a, b), plain = _operands(a, b)
    if plain:
        return np.tensordot(a, b, axes)
    dtype = np.tensordot(*_samples(a, b), axes).dtype  # raises numpy's errors
    if np.iterable(axes):
        along_a, along_b = ([k] if np.ndim(k) == 0 else list(k) for k in axes)
    else:
        along_a, along_b = list(range(-axes, 0)), list(range(axes))
    of_a = list(range(a.ndim))
    of_b = list(range(a.ndim, a.ndim + b.ndim))
    for one, two in zip(along_a, along_b, strict=True):
        of_b[two] = of_a[one]
    result = [label for label in (*of_a, *of_b) if not (label in of_a and label in of_b)]
    found = _multiply("np.tensordot", dtype, a, b, (of_a, of_b, result), None)
    return np.asarray(found) if not result else found  # numpy gives no scalar here


def vdot(a: Any, b: Any, /) -> Any:
    """Multiply all items, those of `a` conjugated, and add them up, as `numpy.vdot`."""
    (a, b), plain = _operands(a, b)
    if plain:
        return np.vdot(a, b)
    if a.size != b.size:
        msg = f"np.vdot: shapes {a.shape} and {b.shape} do not fit"
        raise ValueError(msg)
    dtype = _dtype_of(np.vdot(*_samples(a, b)))
    if not is_blocked(a):
        a = a.reshape(b.shape)
    elif not is_blocked(b):
        b = b.reshape(a.shape)
    elif a.shape != b.shape:
        msg = f"np.vdot: two sparse arrays must have one shape, not {a.shape} and {b.shape}"
        raise TypeError(msg)
    if a.dtype.kind == "c":
        a = Mapped(a, np.conjugate) if is_blocked(a) else a.conj()
    labels = list(range(a.ndim))
    return _multiply("np.vdot", dtype, a, b, (labels, labels, []), None)


def matmul(x1: Any, x2: Any, /, out: Any = None, *, dtype: Any = None, **kwargs: Any) -> Any:
    """
    Multiply matrices, as `numpy.matmul` and ``@``: stacks of them as well.

    Raises
    ------
    TypeError
        Also for ``axes=`` and its kin, which are not made.
    """
    refused = set(kwargs) - {"casting", "order", "subok"}
    if refused:
        msg = f"np.matmul: {', '.join(sorted(refused))}= is not made for a sparse array; {WAY}"
        raise TypeError(msg)
    (a, b), plain = _operands(x1, x2)
    if plain:
        found = np.matmul(a, b, dtype=dtype, **kwargs)
        if out is None:
            return found
        check_out(out, found.shape)
        out[...] = found
        return out
    sample = {} if out is None else {"out": np.zeros((1,) * out.ndim, out.dtype)}
    multiply: Any = np.matmul
    multiply(*_samples(a, b), dtype=dtype, **sample, **kwargs)  # raises numpy's errors
    found_dtype = _dtype_of(multiply(*_samples(a, b), dtype=dtype, **kwargs))
    depth = max(a.ndim, b.ndim, 2) - 2
    row, middle, column = depth, depth + 1, depth + 2
    of_a = [*range(depth - max(a.ndim - 2, 0), depth), row, middle]
    of_b = [*range(depth - max(b.ndim - 2, 0), depth), middle, column]
    result = [*range(depth), row, column]
    if a.ndim == 1:
        of_a, result = [middle], [label for label in result if label != row]
    if b.ndim == 1:
        of_b, result = [*of_b[:-2], middle], [label for label in result if label != column]
    return _multiply("np.matmul", found_dtype, a, b, (of_a, of_b, result), out)


FUNCTIONS.update(
    {
        np.dot: dot,
        np.inner: inner,
        np.tensordot: tensordot,
        np.vdot: vdot,
        np.matmul: matmul,
    }
)
