"""Arrays of zeros, in either layout."""

from __future__ import annotations

from operator import index
from typing import Any, Literal, overload

from numpy.typing import DTypeLike

from ._layout import as_maxshape, layout
from .array import SparseArray
from .tiled import TiledArray

__all__ = ["zeros"]

Tiles = int | tuple[int, ...] | Literal["auto"]


@overload
def zeros(
    shape: Any,
    dtype: DTypeLike = ...,
    *,
    tiles: None = ...,
    maxshape: Any = ...,
    max_nbytes: int | None = ...,
    name: str | None = ...,
) -> SparseArray: ...


@overload
def zeros(
    shape: Any,
    dtype: DTypeLike = ...,
    *,
    tiles: Tiles,
    maxshape: Any = ...,
    max_nbytes: int | None = ...,
    name: str | None = ...,
) -> TiledArray: ...


def zeros(
    shape: Any,
    dtype: DTypeLike = float,
    *,
    tiles: Any = None,
    maxshape: Any = None,
    max_nbytes: int | None = None,
    name: str | None = None,
) -> SparseArray | TiledArray:
    """
    Make an array of zeros in which nothing is stored yet.

    Parameters
    ----------
    shape : int or tuple of ints
        Of any size that fits into the address space: 64 TiB are fine on x86-64.
    dtype : dtype
        Any without objects.
    tiles : int, tuple of ints or 'auto', optional
        Store it tile by tile: items along each axis of a tile. 'auto' is one page a tile, as near a
        cube as the dtype allows. By default it lies in C order.
    maxshape : tuple, optional
        How large ``resize`` may make it along the first axis; there, None is "as long as there are
        addresses for": at least a terabyte. By default it cannot grow.
    max_nbytes : int, optional
        How many bytes it may store, in whole pages, or tiles. An assignment, a result or rows that
        would store more are refused with MemoryError. What is written through windows, or through
        the array's buffer, is not; and threads that write at once can pass it by what they write.
    name : str, optional
        A label of the buffer.

    Returns
    -------
    SparseArray
        Or `TiledArray`, with `tiles`.

    Raises
    ------
    ValueError
        A negative size, one past 8 EiB, or a `maxshape` or `tiles` that do not fit.
    TypeError
        The dtype holds objects.
    MemoryError
        There are not enough addresses: a process has 128 TiB on most machines.

    Examples
    --------
    >>> import sparsearray
    >>> a = sparsearray.zeros((100_000, 100_000, 100), "u1")
    >>> a.nbytes, a.nbytes_stored
    (1000000000000, 0)
    >>> a[500:516, 600:616, 10:26] = 1
    >>> b = sparsearray.zeros(a.shape, "u1", tiles="auto")
    >>> b[500:516, 600:616, 10:26] = 1
    >>> a.nbytes_stored, b.nbytes_stored, b.tiles
    (90112, 32768, (16, 16, 16))
    """
    sizes, found = layout(shape, dtype)
    most = as_maxshape(sizes, maxshape, found.itemsize)
    quota = None if max_nbytes is None else index(max_nbytes)
    if quota is not None and quota < 0:
        msg = f"max_nbytes {quota}: negative"
        raise ValueError(msg)
    if tiles is not None:
        return TiledArray._zeros(sizes, found, tiles, maxshape=most, quota=quota, name=name)
    return SparseArray._zeros(sizes, found, maxshape=most, quota=quota, name=name)
