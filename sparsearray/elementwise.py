"""
Functions that work item by item, on what is populated.

One that turns zeros into zero gives an array with the same holes; any other would fill them, and is
refused. Like `reductions`, this knows arrays by ``shape``, ``dtype`` and ``blocks()``, and asks
them for a new one of their kind (``_like``) and for boxes (``_box_reader``, ``_box_writer``).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import wraps
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import DTypeLike

from ._binding import plain_dtype
from ._refusals import WAY, name_of
from .functions import nonzero
from .window import as_shape

__all__ = ["FUNCTIONS", "Layout", "apply", "astype"]


@runtime_checkable
class Layout(Protocol):
    """What an array offers for this module."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Items along each axis."""

    @property
    def dtype(self) -> np.dtype:
        """The type of an item."""

    def blocks(self, *, max_nbytes: int | None = None) -> Any:
        """Populated boxes."""

    def _like(self, dtype: DTypeLike, shape: tuple[int, ...] | None = None) -> Any:
        """Make an array of zeros of the same kind."""

    def _filling(self, source: Any) -> AbstractContextManager[None]:
        """Make ready to be written wherever another array of the same shape has something."""

    def _overlaps(self, other: Any) -> bool:
        """Tell whether it may hold some of the bytes of another array, in memory or in a file."""

    def _box_reader(self) -> Callable[[Any], np.ndarray]:
        """Return what gives the items of a box."""

    def _box_writer(self) -> tuple[Callable[[Any], np.ndarray], Callable[[Any, Any], None]]:
        """Return what gives an array to be filled for a box, and what then puts it there."""


_PIECE = 1 << 20  # bytes worked on at once: operands and results stay in the cache


def _zeros_of(operand: Any) -> Any:
    """Return what stands for an operand where its array has a hole."""
    # With an axis, for some functions give scalars of another dtype for arrays without.
    return np.zeros((1,), operand.dtype) if isinstance(operand, Layout) else operand


def _shape_of(operands: Sequence[Any], name: str) -> tuple[int, ...]:
    """Find the shape of the result, which all sparse operands must have already."""
    shape = np.broadcast_shapes(
        *(
            operand.shape if isinstance(operand, Layout) else np.shape(operand)
            for operand in operands
        )
    )
    for operand in operands:
        if isinstance(operand, Layout) and operand.shape != shape:
            msg = (
                f"{name}: a sparse array of shape {operand.shape} would have to be repeated to "
                f"{shape}; {WAY}"
            )
            raise TypeError(msg)
    return shape


def _always(operand: Any) -> Callable[[Any], Any]:
    return lambda _: operand


def _readers(operands: Sequence[Any], shape: tuple[int, ...]) -> list[Callable[[Any], Any]]:
    """Return, for each operand, what gives its part of a box."""
    readers: list[Callable[[Any], Any]] = []
    for operand in operands:
        if isinstance(operand, Layout):
            readers.append(operand._box_reader())
        elif np.ndim(operand) == 0:
            readers.append(_always(operand))
        else:
            readers.append(np.broadcast_to(operand, shape).__getitem__)
    return readers


def _outputs(
    function: Any, operands: Sequence[Any], name: str, **kwargs: Any
) -> tuple[np.ndarray, ...]:
    """Compute what holes give, and refuse what is not zero."""
    with np.errstate(all="ignore"):
        found = function(*map(_zeros_of, operands), **kwargs)
    outputs = found if isinstance(found, tuple) else (found,)
    for output in outputs:
        # NaN is true.
        if np.any(output):
            which = "would fill the holes"
            if any(np.ndim(operand) for operand in operands if not isinstance(operand, Layout)):
                which += ", or has an infinity or NaN beside one"
            filling = np.ravel(output)
            msg = f"{name} {which}, with {filling[filling != 0][0]} for a zero; {WAY}"
            raise TypeError(msg)
    return tuple(np.asarray(output) for output in outputs)


def _targets(
    operands: Sequence[Any],
    outputs: Sequence[np.ndarray],
    given: Sequence[Any],
    shape: tuple[int, ...],
) -> tuple[list[Any], list[Any]]:
    """Return where results go: the arrays, and for operands among them a copy in between."""
    first = next(operand for operand in operands if isinstance(operand, Layout))
    finals, works = [], []
    for output, out in zip(outputs, given, strict=True):
        if out is None:
            made = first._like(output.dtype, shape)
            finals.append(made)
            works.append(made)
            continue
        if out.shape != shape:
            msg = f"out has shape {out.shape}, the result {shape}"
            raise ValueError(msg)
        finals.append(out)
        works.append(out if _in_place(out, operands) else first._like(out.dtype, shape))
    return finals, works


def _in_place(out: Any, operands: Sequence[Any]) -> bool:
    """Tell whether each box of the operands can be read just before it is written."""
    sparse = [operand for operand in operands if isinstance(operand, Layout)]
    # Of two the boxes come twice.
    return (
        len(sparse) == 1
        and sparse[0] is out
        and not any(out._overlaps(operand) for operand in operands if operand is not out)
    )


def _check_casting(name: str, output: np.ndarray, out: Any, casting: Any = "same_kind") -> None:
    if out is not None and not np.can_cast(output.dtype, out.dtype, casting):
        msg = f"{name}: cannot cast the result from {output.dtype} to {out.dtype} ({casting})"
        raise TypeError(msg)


def _deliver(final: Any, work: Any) -> None:
    if final is not work:
        final[...] = work if isinstance(final, Layout) else np.asarray(work)


@contextmanager
def _filling(targets: Sequence[Any], source: Any) -> Iterator[None]:
    """Make the targets ready to be written wherever `source` has something."""
    with ExitStack() as stack:
        for target in targets:
            if isinstance(target, Layout):
                stack.enter_context(target._filling(source))
        yield


def apply(function: Any, operands: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """
    Work out a ufunc of sparse arrays, scalars and dense arrays that broadcast.

    Parameters
    ----------
    function : ufunc or callable
        Of as many arrays as there are operands.
    operands : sequence
        At least one is sparse.
    kwargs : dict
        As of the ufunc; ``where`` is refused.

    Returns
    -------
    array or tuple of arrays
        Of the same kind as the first sparse operand; what ``out`` gave where it did.

    Raises
    ------
    TypeError
        It would fill the holes, or numpy has no such function for these dtypes.
    ValueError
        Shapes do not fit.
    """
    name = name_of(function)
    rest = dict(kwargs)
    given = rest.pop("out", None)
    if rest.pop("where", True) is not True:
        msg = f"{name}: where= is not made for a sparse array; {WAY}"
        raise TypeError(msg)
    if not any(isinstance(operand, Layout) for operand in operands):
        msg = f"{name} of dense arrays into a sparse one: out[...] = {name}(...) does that"
        raise TypeError(msg)
    operands = [
        operand
        if isinstance(operand, Layout | bool | int | float | complex | np.generic)
        else np.asarray(operand)
        for operand in operands
    ]
    shape = _shape_of(operands, name)
    outputs = _outputs(function, operands, name, **rest)
    outs = (None,) * len(outputs) if given is None else given
    outs = outs if isinstance(outs, tuple) else (outs,)
    for output, out in zip(outputs, outs, strict=True):
        _check_casting(name, output, out, rest.get("casting", "same_kind"))
    finals, works = _targets(operands, outputs, outs, shape)
    readers = _readers(operands, shape)
    writers = [work._box_writer() for work in works]
    walked: list[Any] = []
    for operand in operands:
        if not isinstance(operand, Layout) or any(operand is one for one in walked):
            continue
        walked.append(operand)
        with _filling(works, operand):
            for index, block in operand.blocks(max_nbytes=max(_PIECE, operand.dtype.itemsize)):
                targets = tuple(make(index) for make, _ in writers)
                # Not from a generator: CPython 3.11 keeps `targets` for ever if that raises.
                parts = [
                    block if one is operand else reader(index)
                    for one, reader in zip(operands, readers, strict=True)
                ]
                function(*parts, out=targets, **rest)
                for (_, put), target in zip(writers, targets, strict=True):
                    put(index, target)
    for final, work in zip(finals, works, strict=True):
        _deliver(final, work)
    return finals[0] if len(finals) == 1 else tuple(finals)


def _by_block(name: str, function: Callable[[Any], Any], array: Any, out: Any = None) -> Any:
    """Work out a function of one array that knows no `out`."""
    (output,) = _outputs(function, [array], name)
    _check_casting(name, output, out)
    (final,), (work,) = _targets([array], [output], [out], array.shape)
    make, put = work._box_writer()
    with _filling([work], array):
        for index, block in array.blocks(max_nbytes=max(_PIECE, array.dtype.itemsize)):
            target = make(index)
            target[...] = function(block)
            put(index, target)
    _deliver(final, work)
    return final


def astype(array: Any, dtype: DTypeLike, *, casting: Any = "unsafe") -> Any:
    """
    Convert every item, keeping the holes.

    Raises
    ------
    TypeError
        `casting` does not allow it, zero becomes something else (text, say), or the dtype holds
        objects.
    """
    found = plain_dtype(dtype)
    made = np.zeros((), array.dtype).astype(found, casting=casting)
    if made.tobytes().strip(b"\0"):
        msg = f"astype: a zero of {array.dtype} becomes {made[()]!r} of {found}; {WAY}"
        raise TypeError(msg)
    result = array._like(made.dtype)
    make, put = result._box_writer()
    with _filling([result], array):
        for index, block in array.blocks():
            target = make(index)
            target[...] = block
            put(index, target)
    return result


# numpy's functions that are no ufuncs


def _round(a: Any, decimals: int = 0, out: Any = None) -> Any:
    return _by_block("np.round", lambda block: np.round(block, decimals), a, out)


def _clip(a: Any, a_min: Any = None, a_max: Any = None, out: Any = None, **kwargs: Any) -> Any:
    if kwargs.pop("where", True) is not True:
        msg = f"np.clip: where= is not made for a sparse array; {WAY}"
        raise TypeError(msg)
    low, high = kwargs.pop("min", a_min), kwargs.pop("max", a_max)
    low = None if low is np._NoValue else low
    high = None if high is np._NoValue else high
    if any(limit is not None and np.ndim(limit) for limit in (low, high)):
        msg = f"np.clip: limits must be scalars for a sparse array; {WAY}"
        raise TypeError(msg)
    return _by_block("np.clip", lambda block: np.clip(block, low, high, **kwargs), a, out)


def _real(val: Any) -> Any:
    return _by_block("np.real", np.real, val)


def _imag(val: Any) -> Any:
    return _by_block("np.imag", np.imag, val)


def _nan_to_num(
    x: Any, copy: bool = True, nan: Any = 0.0, posinf: Any = None, neginf: Any = None
) -> Any:
    def function(block: Any) -> Any:
        return np.nan_to_num(block, nan=nan, posinf=posinf, neginf=neginf)

    return _by_block("np.nan_to_num", function, x, None if copy else x)


def _zeros_like(
    a: Any,
    dtype: DTypeLike | None = None,
    order: str = "K",
    subok: bool = True,
    shape: Any = None,
    **_: Any,
) -> Any:
    del order, subok
    sizes = None if shape is None else as_shape(shape)
    return a._like(a.dtype if dtype is None else dtype, sizes)


def _full_like(
    a: Any,
    fill_value: Any,
    dtype: DTypeLike | None = None,
    order: str = "K",
    subok: bool = True,
    shape: Any = None,
    **_: Any,
) -> Any:
    made = np.full_like(np.zeros(1, a.dtype), fill_value, dtype)
    if made.tobytes().strip(b"\0"):
        msg = f"np.full_like would fill the holes, with {made[0]} for a zero; {WAY}"
        raise TypeError(msg)
    return _zeros_like(a, dtype, order, subok, shape)


def _where(condition: Any, *choices: Any) -> Any:
    """Take items of one array or the other; of a condition alone, say where it is true."""
    if not choices:
        return nonzero(condition) if isinstance(condition, Layout) else np.where(condition)

    @wraps(np.where)  # by whose name a refusal is known
    def choose(condition: Any, x: Any, y: Any, /, out: Any = None) -> Any:
        found = np.where(condition, x, y)
        if out is None:
            return found
        out[0][...] = found
        return out[0]

    condition, x, y = (condition, *choices)
    return apply(choose, (condition, x, y), {})


def _copy(a: Any, order: str = "K", subok: bool = False) -> Any:
    del order, subok
    return a.copy()


def _copyto(dst: Any, src: Any, casting: Any = "same_kind", where: Any = True) -> None:
    if where is not True:
        msg = f"np.copyto: where= is not made for a sparse array; {WAY}"
        raise TypeError(msg)
    # numpy says what cannot be; a number of Python's takes the dtype of the array.
    item = src
    if isinstance(src, Layout) or np.ndim(src):
        item = np.zeros((), src.dtype if isinstance(src, Layout) else np.asarray(src).dtype)
    np.copyto(np.zeros((), dst.dtype), item, casting=casting)
    if isinstance(dst, Layout) or dst.shape != src.shape or src._overlaps(dst):
        dst[...] = src if isinstance(dst, Layout) else np.array(src)
        return
    dst[...] = np.zeros((), src.dtype)
    for index, block in src.blocks():
        dst[(*index, ...)] = block


def _astype(x: Any, dtype: DTypeLike, /, *, copy: bool = True, device: Any = None) -> Any:
    del device
    return x if not copy and x.dtype == dtype else astype(x, dtype)


FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    np.around: _round,
    np.round: _round,
    np.clip: _clip,
    np.real: _real,
    np.imag: _imag,
    np.nan_to_num: _nan_to_num,
    np.zeros_like: _zeros_like,
    np.empty_like: _zeros_like,
    np.full_like: _full_like,
    np.where: _where,
    np.copy: _copy,
    np.copyto: _copyto,
    **({np.astype: _astype} if hasattr(np, "astype") else {}),
}
