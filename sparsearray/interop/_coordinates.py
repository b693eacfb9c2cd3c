"""What is not zero of an array, by its coordinates; and arrays filled by coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsearray._boxes import Index, flat_numbers
from sparsearray._memory import UNCHECKED, available_memory
from sparsearray._text import size as written
from sparsearray._zero import is_zero_bytes
from sparsearray.stored import StoredArray

from ._cells import unique

__all__ = ["check_numbers", "collect", "fill_by_coordinates", "is_stored", "is_zero"]

_PIECE = 1 << 20  # bytes looked at together: they stay in the cache
_MANY = 1 << 20  # items set together

Coords = tuple[NDArray[Any], ...]


def check_numbers(array: Any, what: str, library: str) -> None:
    """Raise TypeError for no array of ours, and for items that are no numbers of the machine."""
    if not isinstance(array, StoredArray):
        msg = f"{what} takes a SparseArray or a TiledArray, not {type(array).__name__}"
        raise TypeError(msg)
    dtype = array.dtype
    if dtype.kind not in "biufc":
        msg = f"{what}: {library} has no items of {dtype}"
        raise TypeError(msg)
    if not dtype.isnative:
        msg = f"{what}: {dtype} is not this machine's byte order; a.astype({dtype.char!r}) is"
        raise TypeError(msg)


def collect(array: Any, what: str) -> tuple[NDArray[Any], Coords]:
    """
    Copy what is not zero, in C order.

    Parameters
    ----------
    array : SparseArray or TiledArray
        Which.
    what : str
        Who wants it, for messages.

    Returns
    -------
    data : ndarray, shape (n,)
        Of the array's dtype.
    coords : tuple of ndarrays, shape (n,)
        Along each axis; int32 where the shape allows.

    Raises
    ------
    MemoryError
        They do not fit.

    Examples
    --------
    >>> import sparsearray
    >>> a = sparsearray.zeros((1 << 20, 1 << 17))
    >>> a[70, 5], a[6, 1000] = 1, 2
    >>> collect(a, "an example")  # doctest: +NORMALIZE_WHITESPACE
    (array([2., 1.]),
     (array([ 6, 70], dtype=int32), array([1000, 5], dtype=int32)))
    """
    kind = np.dtype("i4" if max(array.shape, default=0) < 1 << 31 else "i8")
    parts = _Parts(array.ndim, kind)
    unit, since = array.itemsize + array.ndim * kind.itemsize, 0
    for index, block in array.blocks(max_nbytes=max(_PIECE, array.itemsize)):
        since += unit * parts.add(index, block)
        if since > UNCHECKED:
            # Once more, when they are put together.
            _check(unit * parts.count, what)
            since = 0
    data, coords = parts.join(array.dtype)
    if array.ndim > 1 and len(data) > 1:
        order = _order(coords, array.shape)
        if order is not None:
            data, coords = data[order], tuple(axis[order] for axis in coords)
    return data, coords


def _check(nbytes: int, what: str) -> None:
    available = available_memory()
    if available is not None and nbytes > available:
        msg = (
            f"{what}: what is not zero takes more than {written(nbytes)}, and "
            f"{written(available)} are left; take parts, as a[index], or a denser format"
        )
        raise MemoryError(msg)


class _Parts:
    """What was found in each box."""

    def __init__(self, ndim: int, kind: np.dtype) -> None:
        self.count = 0
        self._kind = kind
        self._data: list[NDArray[Any]] = []
        self._columns: list[list[NDArray[Any]]] = [[] for _ in range(ndim)]

    def add(self, index: Index, block: NDArray[Any]) -> int:
        """Copy what is not zero in a box; how many items that is."""
        if block.size == prod(block.shape[-1:]):
            return self._add_row(index, block.reshape(-1))
        found = (block if block.dtype == bool else block != 0).nonzero()
        self._data.append(block[found])
        for column, places, side in zip(self._columns, found, index, strict=True):
            column.append(np.add(places, side.start, dtype=self._kind, casting="unsafe"))
        self.count += len(self._data[-1])
        return len(self._data[-1])

    def _add_row(self, index: Index, row: NDArray[Any]) -> int:
        """Part of a row, as most boxes are of a large array in C order."""
        (found,) = (row if row.dtype == bool else row != 0).nonzero()
        self._data.append(row[found])
        for column, side in zip(self._columns[:-1], index[:-1], strict=True):
            column.append(np.full(len(found), side.start, self._kind))
        if index:
            start = index[-1].start
            self._columns[-1].append(np.add(found, start, dtype=self._kind, casting="unsafe"))
        self.count += len(found)
        return len(found)

    def join(self, dtype: np.dtype) -> tuple[NDArray[Any], Coords]:
        """Put all parts together, and forget them."""
        data = np.concatenate([np.empty(0, dtype), *self._data])
        self._data.clear()
        coords = []
        for column in self._columns:
            coords.append(np.concatenate([np.empty(0, self._kind), *column]))
            column.clear()
        return data, tuple(coords)


def _order(coords: Coords, shape: tuple[int, ...]) -> NDArray[np.int64] | None:
    """Find what puts coordinates into C order; None where they are."""
    numbers = flat_numbers(coords, shape)
    if (numbers[1:] > numbers[:-1]).all():
        return None
    return np.argsort(numbers, kind="stable")  # which knows runs, such as rows of boxes


def fill_by_coordinates(array: Any, coords: Sequence[NDArray[Any]], data: NDArray[Any]) -> None:
    """
    Set items of an array of zeros.

    Parameters
    ----------
    array : SparseArray or TiledArray
        Of zeros.
    coords : sequence of ndarrays of integers, shape (n,)
        Along each axis; each place once.
    data : ndarray, shape (n,)
        Of its dtype. Zeros are left out, but for -0.0.

    Raises
    ------
    MemoryError
        The pages that they lie on do not fit.
    """
    if not prod(array.shape):
        return
    if not array.ndim:
        if len(data):
            array[()] = data[0]
        return
    for at in range(0, len(data), _MANY):
        part = slice(at, at + _MANY)
        kept = is_stored(data[part])
        if kept.any():
            places = tuple(axis[part][kept] for axis in coords)
            _check_pages(array, places)
            array[places] = data[part][kept]


def _check_pages(array: Any, places: Coords) -> None:
    """Raise MemoryError where the pages of items do not fit: one each, if they lie far apart."""
    page, available = array.buffer.page_size, available_memory()
    wanted = len(places[0]) * page
    if wanted <= UNCHECKED or available is None or wanted <= available:
        return
    unit, sides, shape = array.itemsize, (1,) * array.ndim, array.shape
    if hasattr(array, "tiles"):
        unit, sides, shape = array._records.tiling.tile_nbytes, array.tiles, array._records.shape
    cells = [axis.astype(np.int64) // side for axis, side in zip(places, sides, strict=True)]
    numbers = flat_numbers(cells, shape)
    # Of tiles of several pages there may be fewer.
    wanted = min(wanted, len(unique(numbers * unit // page)) * max(unit, page))
    if wanted > available:
        msg = (
            f"items that are not zero lie on pages of {written(wanted)} more, and "
            f"{written(available)} of memory are left; tiles=... may need fewer"
        )
        raise MemoryError(msg)


def is_stored(data: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell what is not all zero bytes, whatever else an item has."""
    found: NDArray[np.bool_] = data != 0
    if data.dtype.kind == "c":
        found |= np.signbit(data.real) | np.signbit(data.imag)
    elif data.dtype.kind == "f":
        found |= np.signbit(data)
    return found


def is_zero(fill: NDArray[Any]) -> bool:
    """Tell whether a fill value is what a hole holds, whatever a long double has behind it."""
    return not is_stored(fill).any() if fill.dtype.kind in "biufc" else is_zero_bytes(fill)
