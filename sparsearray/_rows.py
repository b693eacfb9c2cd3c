"""Rows put into a buffer, in pieces and by guarded calls, so that a full disk is an exception."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._layout import make_ghost
from ._selection import contiguous_run
from .blocks import boxes

if TYPE_CHECKING:
    from .array import SparseArray
    from .buffer import SparseBuffer

__all__ = ["as_rows", "keeps_holes", "write_rows"]

_PIECE = 4 << 20  # bytes converted, and written, at a time


def write_rows(
    buffer: SparseBuffer, offset: int, dtype: np.dtype, rows: NDArray[Any] | SparseArray
) -> None:
    """
    Write rows in C order, converted as an assignment does it.

    Parameters
    ----------
    buffer : SparseBuffer
        Where they go. What holes they have must read as zero there.
    offset : int
        Of the first, in bytes.
    dtype : dtype
        What they become.
    rows : ndarray or SparseArray
        Of any dtype and layout, but with an axis.

    Raises
    ------
    AccessError
        The disk is full or fails, or the file became shorter. Part of the rows may be written.
    TypeError, ValueError
        They cannot be converted.
    """
    if not dtype.itemsize or not rows.size:
        return
    if not isinstance(rows, np.ndarray) and not keeps_holes(rows.dtype, dtype):
        rows = rows[...]
    items = max(_PIECE // max(rows.dtype.itemsize, dtype.itemsize), 1)
    # Zeros: what lies between the fields of a record is not written by a conversion.
    scratch = np.zeros(min(items, rows.size), dtype)
    ghost = make_ghost(rows.shape, dtype, "C", buffer.address + offset)
    for index, block in _pieces(rows, items):
        data = block
        if block.dtype != dtype or not block.flags.c_contiguous:
            data = scratch[: block.size].reshape(block.shape)
            data[...] = block
        _write_box(buffer, ghost[index], data)


def keeps_holes(source: np.dtype, target: np.dtype) -> bool:
    """Tell whether zero bytes become zero bytes; an error is that of the conversion."""
    zero = np.zeros(1, target)
    zero[...] = np.zeros(1, source)
    return not zero.tobytes().strip(b"\0")


def _pieces(
    rows: NDArray[Any] | SparseArray, items: int
) -> Iterator[tuple[tuple[slice, ...], NDArray[Any]]]:
    """Cut rows into boxes of so many items at most; what is in none of them is zero."""
    if not isinstance(rows, np.ndarray):
        yield from rows.blocks(max_nbytes=max(items * rows.itemsize, 1))
        return
    for index in boxes(rows.shape, np.array([[0, rows.size]]), items):
        yield index, rows[index]


def _write_box(buffer: SparseBuffer, view: NDArray[Any], data: NDArray[Any]) -> None:
    """Write contiguous data where a view of a ghost says."""
    place = view.__array_interface__["data"][0] - buffer.address
    if view.flags.c_contiguous:
        buffer.write_at(place, data)
        return
    # What is one range of memory in Fortran order, but not in C order.
    run, outer = contiguous_run(view)
    places = np.array(place)
    for count, step in outer:
        places = places[..., np.newaxis] + np.arange(count) * step
    buffer.scatter(places.reshape(-1), data.reshape(-1).view(f"V{run}"))


def as_rows(rows: ArrayLike, dtype: np.dtype) -> NDArray[Any]:
    """Make an array of what is to become rows."""
    if dtype.names is not None and not hasattr(rows, "dtype"):
        return np.asarray(rows, dtype)  # tuples are records
    found = np.asarray(rows)
    if not found.dtype.hasobject:
        return found
    made = np.zeros(found.shape, dtype)
    made[...] = found  # Python code of the objects runs before anything is changed
    return made
