"""How items of arrays are written to a file in which holes, and pages of zeros, take no room."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._new_file import PIECE, cuts, write_all, write_filled
from ._pool import Pool
from ._progress import progress_bar
from .array import SparseArray
from .npy import make_header

__all__ = ["write_pool", "write_start", "writer"]

# Writes rows of an array: to which descriptor, where in the file, and which (first, stop).
Writer = Callable[[int, int, int, int], None]


def write_start(fd: int, shape: tuple[int, ...], order: str, dtype: np.dtype) -> int:
    """Write the header, and make the file as long as it will be. Returns where the data begins."""
    header = make_header(shape, order, dtype)
    stop = len(header) + prod(shape) * dtype.itemsize
    if stop >> 63:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    os.ftruncate(fd, stop)
    write_all(fd, header, 0)
    return len(header)


@contextmanager
def writer(source: SparseArray | NDArray[Any], order: str, *, progress: bool) -> Iterator[Writer]:
    """Make what writes rows of an array, and shows how far it is in all of them."""
    if isinstance(source, Pool):
        yield lambda fd, start, _first, _stop: write_pool(fd, start, source, progress=progress)
    elif isinstance(source, SparseArray):
        with _of_sparse(source, progress=progress) as writer:
            yield writer
    else:
        with progress_bar("save", source.nbytes, shown=progress) as done:

            def write(fd: int, start: int, first: int, stop: int) -> None:
                rows = source[first:stop] if source.ndim else source
                _write_dense(fd, start, rows.T if order == "F" else rows, done)

            yield write


@contextmanager
def _of_sparse(array: SparseArray, *, progress: bool) -> Iterator[Writer]:
    extents = array.extents()
    memory = all(region.kind == "private" for region in array.buffer.regions)
    scratch = np.empty(0 if memory else PIECE, "u1")
    window = array._bytes() if memory and array.nbytes else scratch
    total = int((extents[:, 1] - extents[:, 0]).sum())
    # One item, and an array in Fortran order, are written as a whole.
    row = array.nbytes // array.shape[0] if array.ndim and array.shape[0] else array.nbytes
    with progress_bar("save", total, shown=progress) as done:

        def write(fd: int, start: int, first_row: int, stop_row: int) -> None:
            begin, end = first_row * row, stop_row * row
            inside = extents[(extents[:, 1] > begin) & (extents[:, 0] < end)].clip(begin, end)
            shift = start - begin
            for first, last in inside.tolist():
                for at, stop in cuts(shift + first, shift + last):
                    nbytes, place = stop - at, at - shift
                    if memory:
                        piece = window[place : place + nbytes]
                    else:
                        # Guarded: somebody else may cut the file short.
                        piece = scratch[:nbytes]
                        array.buffer.read_into(array.offset + place, piece)
                        array.buffer._forget(array.offset + place, nbytes)
                    write_filled(fd, piece, at)
                    done(nbytes)

        yield write


def write_pool(fd: int, start: int, array: Pool, *, progress: bool) -> None:
    with progress_bar("save", array.nbytes_stored, shown=progress) as done:
        for place, piece in array.pieces():
            write_filled(fd, piece, start + place)
            done(len(piece))


def _write_dense(fd: int, start: int, array: NDArray[Any], done: Callable[[int], object]) -> None:
    place = start
    for piece in _pieces(array):
        raw = np.ascontiguousarray(piece).reshape(-1).view("u1")
        for at, stop in cuts(place, place + len(raw)):
            write_filled(fd, raw[at - place : stop - place], at)
            done(stop - at)
        place += len(raw)


def _pieces(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Cut an array into parts that follow each other in C order, and are copied if need be."""
    if not array.nbytes:
        return
    if array.flags.c_contiguous or array.nbytes <= PIECE:
        yield array
        return
    rows = max(1, PIECE // max(array[:1].nbytes, 1))
    for i in range(0, len(array), rows):
        part = array[i : i + rows]
        if rows == 1 and part.nbytes > PIECE:
            yield from _pieces(part[0])
        else:
            yield part
