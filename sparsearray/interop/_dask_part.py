"""Parts of arrays, with their holes: what the chunks of a dask array are that is cut by data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from functools import cache
from inspect import signature
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sparsearray._boxes import stand_in
from sparsearray._memory import check_copy
from sparsearray._optional import needed
from sparsearray._selection import has_field, is_basic, with_ellipsis
from sparsearray._text import size as written
from sparsearray.array import SparseArray
from sparsearray.stored import Flags, StoredArray
from sparsearray.tiled import TiledArray

from ._dask_boxes import Box, copy_of, picked, shown, view_of

__all__ = ["Part", "part_of", "register"]

Reference = Callable[[], tuple[Any, ...] | None]

_DENSE = 256 << 20  # bytes that may be filled without being asked for
_ASSEMBLING = frozenset({np.concatenate, np.stack, np.copy})
_CHANGING = frozenset(  # their first argument
    {np.copyto, np.put, np.place, np.putmask, np.put_along_axis, np.fill_diagonal}
)
_CHANGING_METHODS = frozenset(
    [
        "byteswap",
        "data",
        "fill",
        "flat",
        "itemset",
        "partition",
        "put",
        "resize",
        "setfield",
        "setflags",
        "sort",
    ]
)


class Part(StoredArray):
    """
    A chunk that has holes.

    Functions of the whole skip those, as of any array of ours. What would fill them is done on
    a plain ndarray where that is small, and refused where it is not. To other libraries, and to
    ``copy()`` with which dask finishes a result, it is a plain ndarray.

    What shows memory or a file of the user is read-only, as the plain chunks are. What was worked
    out in a task can be changed there.

    Parameters
    ----------
    array : SparseArray or TiledArray
        All of which it is.
    reference : function, optional
        Of nothing: what other processes make it from, as of ``__reduce__``, or None. By default
        they get what is stored. It is asked when the part travels, and not before.
    own : bool
        Whether nobody else has it, so that it can be changed.
    """

    __slots__ = ("_array", "_own", "_reference")

    __array_priority__ = 1.0  # dask asks which array knows how to multiply

    def __init__(
        self,
        array: StoredArray,
        reference: Reference | None = None,
        *,
        own: bool = False,
    ) -> None:
        self._array = array
        self._reference = reference
        self._own = own

    @property
    def shape(self) -> tuple[int, ...]:
        """Items along each axis."""
        return self._array.shape

    @property
    def dtype(self) -> np.dtype:
        """The type of an item."""
        return self._array.dtype

    @property
    def maxshape(self) -> tuple[int, ...]:
        """As its shape: it stays as it is."""
        return self._array.shape

    @property
    def _store(self) -> SparseArray:
        return self._array._store

    def blocks(self, *, max_nbytes: int | None = None) -> Iterator[tuple[Box, NDArray[Any]]]:
        """Go through what is populated, box by box."""
        for box, block in self._array.blocks(max_nbytes=max_nbytes):
            if not self._own:
                block.flags.writeable = False
            yield box, block

    @property
    def flags(self) -> Flags:
        """Whether it can be changed."""
        return Flags(self._own, owndata=True)

    def _check_writable(self, what: str = "output array") -> None:
        if not self._own:
            msg = f"{what} is read-only: {self!r}; block.copy() makes a plain one to change"
            raise ValueError(msg)

    def close(self) -> None:
        """Do nothing: others use the array that it is part of."""

    # What it becomes

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            msg = "a part with holes cannot be made an ndarray without a copy"
            raise ValueError(msg)
        _check_small("np.asarray would fill the holes", self.nbytes)
        made: NDArray[Any] = self.copy()
        return made if dtype is None else made.astype(dtype, copy=False)

    def copy(self) -> Any:  # of another type than those of other arrays: dask finishes with it
        """Make a plain ndarray, if memory can hold it."""
        made = np.zeros(check_copy(self.shape, self.dtype), self.dtype)
        self._copy_to(made)
        return made

    def _copy_to(self, zeros: NDArray[Any]) -> None:
        """Copy what is stored into an ndarray of zeros."""
        for box, block in self.blocks():
            zeros[box] = block

    def __copy__(self) -> Part:
        return Part(self._array.copy(), own=True)

    def __reduce__(self) -> tuple[Any, ...]:
        found = self._reference() if self._reference is not None else None
        return found or (_again, (self._array,))

    def __sizeof__(self) -> int:
        # What dask counts; pages of files are the system's.
        held = self.nbytes_stored if self._store._is_own_memory() else 0
        return object.__sizeof__(self) + held

    def __repr__(self) -> str:
        return f"<part of shape {self.shape} and dtype {self.dtype}, with holes>"

    def _repr_html_(self) -> str:
        return f"<code>{repr(self)[1:-1]}</code>"

    def __getitem__(self, key: Any) -> Any:
        """Take part of it: a plain ndarray, or where that would be large and can be, a `Part`."""
        sides = self._slices(key)
        if sides is not None:
            shape = [side.stop - side.start for side in sides]
            if prod(shape) * self.itemsize > _DENSE:
                return part_of(self._array, sides)
        if isinstance(key, StoredArray) and key.dtype == bool and key.shape == self.shape:
            key = np.nonzero(key)
        if is_basic(key) and not has_field(key):
            sizes = np.shape(stand_in(self)[key])  # raises numpy's errors
            if prod(sizes) * self.itemsize > _DENSE:
                return Part(picked(self._array, key, sizes), own=True)
        found = self._array[key]
        if not isinstance(found, np.ndarray):
            return found
        check_copy(found.shape, found.dtype)
        return found if isinstance(self._array, TiledArray) else found.copy()

    def __setitem__(self, key: Any, value: Any) -> None:
        """Change what was worked out here; ValueError for what is shown."""
        self._check_writable("assignment destination")
        array: Any = self._array
        array[key] = value

    def _slices(self, key: Any) -> Box | None:
        """Find the box that an index is, if it is one."""
        if not is_basic(key) or has_field(key):
            return None
        parts = [part for part in with_ellipsis(key) if part is not Ellipsis]
        if not all(isinstance(part, slice) for part in parts):
            return None
        parts += [slice(None)] * (self.ndim - len(parts))
        if len(parts) > self.ndim or (Ellipsis in (key if isinstance(key, tuple) else ())):
            return None
        sides = [range(n)[part] for n, part in zip(self.shape, parts, strict=True)]
        if any(side.step != 1 for side in sides):
            return None
        return tuple(slice(side.start, max(side.start, side.stop)) for side in sides)

    # numpy

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(np.ndarray, name):
            return super().__getattr__(name)
        if name in _CHANGING_METHODS:
            return getattr(stand_in(self), name)  # of which numpy says that it is read-only
        try:
            return getattr(_dense(self, TypeError(f"{name!r} is made for plain arrays")), name)
        except TypeError as error:
            raise AttributeError(str(error), name=name, obj=self) from None

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        outs = kwargs.get("out", ())
        changed = [one for one in outs if isinstance(one, Part)]
        if method == "at":
            changed += [one for one in inputs[:1] if isinstance(one, Part)]
        for one in changed:
            one._check_writable()
        try:
            return super().__array_ufunc__(ufunc, method, *inputs, **kwargs)
        except TypeError as refusal:
            if method == "at" and changed:
                raise
            plain, named = _dense((inputs, kwargs), refusal)
            found = getattr(ufunc, method)(*plain, **named)
            if not changed:
                return found
            for one, dense in zip(outs, named["out"], strict=True):
                if isinstance(one, Part):
                    one[...] = dense
            return outs[0] if len(outs) == 1 else outs

    def __array_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        changed = _changed(func, args, kwargs)
        for one in changed:
            one._check_writable()
        if func in _ASSEMBLING:
            return _assembled(func, args, dict(kwargs))
        try:
            return super().__array_function__(func, types, args, kwargs)
        except TypeError as refusal:
            if changed:  # in a copy it would be lost
                raise
            plain, named = _dense((args, dict(kwargs)), refusal)
            return func(*plain, **named)

    def astype(self, dtype: DTypeLike, *, casting: Any = "unsafe", **_: Any) -> Any:
        """Convert every item, keeping the holes."""
        try:
            return super().astype(dtype, casting=casting)
        except TypeError as refusal:
            return _dense(self, refusal).astype(dtype, casting=casting)

    def reshape(self, *shape: Any, **kwargs: Any) -> Any:
        """Give it another shape: without filling it, where it lies in C order."""
        array = self._array
        if not isinstance(array, SparseArray) or array.order != "C" or kwargs or not self.size:
            plain = _dense(self, TypeError(f"'reshape' is made for plain arrays, not {self!r}"))
            return plain.reshape(*shape, **kwargs)
        sizes = stand_in(self).reshape(*shape).shape  # numpy's errors; a view, as all is one item
        return Part(shown(array, sizes, array.offset), own=self._own)

    def ravel(self, order: Any = "C") -> Any:
        """Give it one axis."""
        return self.reshape(-1) if order == "C" else self.__getattr__("ravel")(order)

    def _like(self, dtype: DTypeLike, shape: tuple[int, ...] | None = None) -> Part:
        made: Any = self._array
        return Part(made._like(dtype, shape), own=True)

    def _overlaps(self, other: Any) -> bool:
        return self._array._overlaps(other._array if isinstance(other, Part) else other)

    def _filling(self, source: Any) -> AbstractContextManager[None]:
        made: Any = self._array
        found: AbstractContextManager[None] = made._filling(source)
        return found

    def _box_reader(self) -> Callable[[Any], NDArray[Any]]:
        made: Any = self._array
        found: Callable[[Any], NDArray[Any]] = made._box_reader()
        return found

    def _box_writer(self) -> tuple[Callable[[Any], NDArray[Any]], Callable[[Any, Any], None]]:
        made: Any = self._array
        found: tuple[Callable[[Any], NDArray[Any]], Callable[[Any, Any], None]]
        found = made._box_writer()
        return found

    def _read_box(self, box: Box) -> NDArray[Any]:
        return self._box_reader()(box)

    def _stored_boxes(self) -> Iterator[Box]:
        return self._array._stored_boxes()


def _again(array: StoredArray) -> Part:
    """Load what was pickled."""
    register()
    return Part(array)


@cache
def register() -> None:
    """Tell dask what it asks of tables, which know ndarrays only: in each process with parts."""
    tables: Any = needed("dask.array", "chunks='stored'", "dask").dispatch  # which it has filled
    tables.percentile_lookup.register(Part, tables.percentile_lookup.dispatch(np.ndarray))
    tables.to_numpy_dispatch.register(Part, Part.copy)


def _changed(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[Part]:
    """Find the parts that a function writes to."""
    out = kwargs.get("out")
    found = list(out) if isinstance(out, tuple) else [out]
    if func in _CHANGING:
        found += args[:1] or [kwargs.get(name) for name in ("dst", "a", "arr")]
    elif func is np.nan_to_num and not kwargs.get("copy", (*args, True, True)[1]):
        found += args[:1] or [kwargs.get("x")]
    elif func is np.dot or func is np.concatenate:  # of which Python knows no names
        found += args[2:3]
    else:
        with suppress(TypeError, ValueError):
            found.append(signature(func).bind(*args, **kwargs).arguments.get("out"))
    return [one for one in found if isinstance(one, Part)]


def _arrays(value: Any) -> Any:
    """Make plain ndarrays of all parts in arguments."""
    if isinstance(value, Part):
        return value.copy()
    if isinstance(value, list | tuple):
        return type(value)(map(_arrays, value))
    if isinstance(value, dict):
        return {name: _arrays(one) for name, one in value.items()}
    return value


def _dense(value: Any, refusal: TypeError) -> Any:
    """Make plain ndarrays of all parts in arguments, if they are small."""
    nbytes = _nbytes(value)
    if not nbytes:  # numpy's own error, of arguments
        raise refusal
    _check_small(str(refusal).partition("; on a part")[0], nbytes)
    return _arrays(value)


def _check_small(what: str, nbytes: int) -> None:
    """Raise TypeError where so much would be filled."""
    if nbytes > _DENSE:
        msg = (
            f"{what}, of {written(nbytes)} in a chunk; of a dask array with chunks='stored', "
            "x.rechunk('auto') has plain chunks"
        )
        raise TypeError(msg) from None


def _assembled(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Put parts together as a plain ndarray, or of one of them make a copy."""
    if func is not np.concatenate:
        _check_small(f"np.{func.__name__} would fill the holes", _nbytes((args, kwargs)))
    elif len(args) < 3 and not kwargs.keys() - {"axis"}:  # dask makes results so
        found = _concatenated(*args, **kwargs)
        if found is not None:
            return found
    return func(*_arrays(args), **_arrays(kwargs))


def _concatenated(arrays: Any, axis: Any = 0) -> Any:
    """
    Concatenate arrays of one dtype, and keep it; None for what numpy has to say more of.

    Memory is taken for what is stored only: all else of the result is zeros as the system has them.
    """
    parts = list(arrays) if isinstance(arrays, list | tuple) else []
    if not parts or not all(isinstance(one, Part | np.ndarray) for one in parts):
        return None
    first = parts[0]
    if any(one.dtype != first.dtype for one in parts) or axis not in range(first.ndim):
        return None
    if any(
        one.ndim != first.ndim
        or one.shape[:axis] + one.shape[axis + 1 :] != first.shape[:axis] + first.shape[axis + 1 :]
        for one in parts
    ):
        return None
    if len(parts) == 1:
        return first
    if axis and not first.dtype.isnative:
        # numpy, of which dask asks the other axes, makes it native. It has another way, too.
        msg = f"np.concatenate makes another dtype of {first.dtype}"
        raise TypeError(msg)
    stops = list(accumulate(one.shape[axis] for one in parts))
    shape = (*first.shape[:axis], stops[-1], *first.shape[axis + 1 :])
    made = np.zeros(check_copy(shape, first.dtype), first.dtype)
    for one, stop in zip(parts, stops, strict=True):
        target = made[(*(slice(None),) * axis, slice(stop - one.shape[axis], stop))]
        if isinstance(one, Part):
            one._copy_to(target)
        else:
            target[...] = one
    return made


def _nbytes(value: Any) -> int:
    if isinstance(value, Part):
        return value.nbytes
    if isinstance(value, dict):
        return _nbytes(list(value.values()))
    return sum(map(_nbytes, value)) if isinstance(value, list | tuple) else 0


def part_of(array: StoredArray, box: Box, reference: Reference | None = None) -> Part:
    """
    Make a part of an array: without a copy where it lies in one piece, else of what is stored.

    Parameters
    ----------
    array : SparseArray or TiledArray
        Of which.
    box : tuple of slices
        Inside it.
    reference : function, optional
        As of `Part`.
    """
    found = view_of(array, box)
    return Part(copy_of(array, box) if found is None else found, reference)
