"""
How arrays are pickled: as references to what others can open too, or as what is stored of them.

An array in a file travels by its path, one in shared memory by its descriptor; to both of these go
the pages that were copied on write. One in private memory travels as the bytes of its pages, but
for those that hold zeros only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._layout import filling, layout
from ._new_file import PIECE
from ._pool import Pool, tiles_in_memory
from ._quota import Quota
from ._records import Records
from ._tiling import Tiling
from ._zero import filled_runs
from .array import SparseArray
from .blocks import join
from .errors import ClosedError
from .stored import StoredArray
from .tiled import TiledArray

__all__ = ["pack"]

Piece = tuple[NDArray[np.int64], NDArray[np.uint8]]
"""Ranges, of shape (n, 2), in bytes from the first item or tile; and the bytes in all of them."""


def pack(array: StoredArray) -> tuple[Any, ...]:
    """
    Say how an array is pickled, as ``__reduce__`` does.

    Parameters
    ----------
    array : SparseArray or TiledArray
        Which one.

    Raises
    ------
    ClosedError
        It is closed.
    FileNotFoundError
        Its file is gone, or another one by now.
    AccessError
        A file has lost what is to be read, or has no room for what was written.
    """
    if array.closed:
        msg = f"a {type(array).__name__} that is closed cannot be pickled"
        raise ClosedError(msg)
    store = array._store
    found = store._storage.reference(array)
    if found is not None:
        opening, arguments = found
        if array.mode != "c":
            return opening, arguments
        return _open_and_fill, (opening, arguments, list(_own_pieces(store)))
    tiles = None
    if isinstance(store, Records):
        tiles = store.tiling.tiles, store.tiling.tile_nbytes
    quota = None if store._quota is None else store._quota.most
    facts = array.shape, array.dtype, tiles, store.order, array.maxshape, quota, store.buffer.name
    return _make_and_fill, (facts, list(_stored_pieces(store)))


def _stored_pieces(store: SparseArray) -> Iterator[Piece]:
    """Copy what is stored, without pages of zeros."""
    page = store.buffer.page_size
    if isinstance(store, Pool):
        stored: Iterable[tuple[int, NDArray[np.uint8]]] = store.pieces()
    else:
        stored = _read(store, store.extents())
    yield from _packed((place, piece, filled_runs(piece, page)) for place, piece in stored)


def _own_pieces(store: SparseArray) -> Iterator[Piece]:
    """Copy what was written to pages that are copied on write; zeros hide what the file has."""
    own = store.buffer._own_extents(store.offset, store.nbytes)
    parts = _read(store, own - store.offset)
    yield from _packed((place, piece, [(0, len(piece))]) for place, piece in parts)


def _read(store: SparseArray, ranges: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Read ranges in pieces, into an array that is used again."""
    scratch = np.empty(PIECE, "u1")
    for start, stop in ranges.tolist():
        for at in range(start, stop, PIECE):
            piece = scratch[: min(PIECE, stop - at)]
            store.buffer.read_into(store.offset + at, piece)
            yield at, piece


def _packed(
    parts: Iterable[tuple[int, NDArray[np.uint8], list[tuple[int, int]]]],
) -> Iterator[Piece]:
    """Put runs of bytes one behind the other, in pieces that are not too large."""
    ranges: list[tuple[int, int]] = []
    data: list[NDArray[np.uint8]] = []
    size = 0
    for place, piece, runs in parts:
        if size + len(piece) > PIECE and ranges:
            yield _piece(ranges, data)
            ranges, data, size = [], [], 0
        for start, stop in runs:
            ranges.append((place + start, place + stop))
            data.append(piece[start:stop].copy())
            size += stop - start
    if ranges:
        yield _piece(ranges, data)


def _piece(ranges: list[tuple[int, int]], data: list[NDArray[np.uint8]]) -> Piece:
    return join(np.array(ranges, np.int64)), data[0] if len(data) == 1 else np.concatenate(data)


def _refuse_objects(dtype: np.dtype) -> None:
    """Raise TypeError for objects, also where a damaged pickle says that there are none."""
    inner = (
        [dtype.base] if dtype.subdtype else [field[0] for field in (dtype.fields or {}).values()]
    )
    if dtype.kind == "O":
        msg = f"dtype {dtype} holds Python objects, which do not travel"
        raise TypeError(msg)
    for one in inner:
        _refuse_objects(one)


def _open_and_fill(opening: Any, arguments: tuple[Any, ...], pieces: list[Piece]) -> StoredArray:
    """Load what was opened with mode ``'c'``."""
    made: StoredArray = opening(*arguments)
    _write(made._store, pieces)
    return made


def _make_and_fill(facts: tuple[Any, ...], pieces: list[Piece]) -> StoredArray:
    """Load an array in memory."""
    given, kind, tiles, order, maxshape, quota, name = facts
    _refuse_objects(kind)
    shape, dtype = layout(given, kind)
    made: StoredArray
    if tiles is None:
        store = SparseArray._zeros(shape, dtype, maxshape=maxshape, name=name)
        if order == "F":
            store._order = "F"
            store._set_shape(shape)
        made = store
    else:
        sides, nbytes = tiles
        store = tiles_in_memory(Tiling(shape, sides, dtype, nbytes), maxshape, name=name)
        made = TiledArray._of(store, maxshape)
    _write(store, pieces)
    if quota is not None:  # what was written past it through windows travels all the same
        page = store.tiling.tile_nbytes if isinstance(store, Pool) else store.buffer.page_size
        store._quota = Quota(quota, page)
        store._quota.recount(store)
    return made


def _write(store: SparseArray, pieces: list[Piece]) -> None:
    """Put bytes where they were."""
    for ranges, data in pieces:
        places = ranges + store.offset if store._is_own_memory() else ranges[:0]
        with filling(store.buffer, places):
            at = 0
            for start, stop in ranges.tolist():
                part = data[at : at + stop - start]
                at += stop - start
                if isinstance(store, Pool):
                    # Whole tiles; or pages of them, from a system of smaller ones.
                    nbytes = gcd(start, stop, store.tiling.tile_nbytes)
                    store.scatter(np.arange(start, stop, nbytes), part.view(f"V{nbytes}"))
                else:
                    store.buffer.write_at(store.offset + start, part)
