"""Boxes of arrays: shown without a copy where they lie in one piece, or copied with their holes."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsearray._boxes import corners
from sparsearray._pool import Pool
from sparsearray._records import Records
from sparsearray._selection import Selection, positions
from sparsearray._storage import Memory
from sparsearray._tile_blocks import stored_tiles
from sparsearray._tiling import Tiling
from sparsearray.array import SparseArray
from sparsearray.blocks import boxes, item_ranges
from sparsearray.stored import StoredArray
from sparsearray.tiled import TiledArray

__all__ = [
    "Box",
    "blocks_in",
    "copy_of",
    "picked",
    "shown",
    "slow_axis",
    "stored_corners",
    "view_of",
]

Box = tuple[slice, ...]

_PIECE = 16 << 20  # bytes of tiles that are copied at a time


def slow_axis(array: StoredArray) -> int:
    """Tell along which axis parts lie one behind the other."""
    return array.ndim - 1 if getattr(array, "order", "C") == "F" else 0


def view_of(array: StoredArray, box: Box) -> StoredArray | None:
    """Make an array of a range of rows that shows the same memory; None where that cannot be."""
    axis = slow_axis(array)
    shape = tuple(side.stop - side.start for side in box)
    if shape == array.shape:
        return array
    if not array.ndim or any(
        m != n for k, (m, n) in enumerate(zip(shape, array.shape, strict=True)) if k != axis
    ):
        return None
    start, store = box[axis].start, array._store
    if isinstance(array, SparseArray):
        step = array.nbytes // array.shape[axis]
        return shown(array, shape, array.offset + start * step)
    tiling = store.tiling if isinstance(store, Records) else None
    if tiling is None or isinstance(store, Pool) or start % tiling.tiles[0]:
        return None
    part = Tiling(shape, tiling.tiles, tiling.dtype, tiling.tile_nbytes)
    place = store.offset + start // tiling.tiles[0] * tiling.tile_steps[0]
    records = Records.__new__(Records)
    records._put(
        store.buffer,
        part.grid,
        part.record(),
        place,
        "C",
        part.grid,
        _same_file(store),
        owner=False,
    )
    return TiledArray._of(records, shape)


def shown(array: SparseArray, shape: tuple[int, ...], offset: int) -> SparseArray:
    """Make an array that shows some of the same memory, and does not own it."""
    made = SparseArray.__new__(SparseArray)
    storage = _same_file(array)
    made._put(array.buffer, shape, array.dtype, offset, array.order, shape, storage, owner=False)
    return made


def _same_file(array: SparseArray) -> Memory:
    """Say of which file something shows a part, so that others know what overlaps it."""
    storage = Memory()
    storage.identity = array._storage.identity
    return storage


def copy_of(array: StoredArray, box: Box) -> StoredArray:
    """Copy what is stored in a box into an array in memory that lies alike."""
    kind: Any = array
    made: StoredArray = kind._like(array.dtype, tuple(side.stop - side.start for side in box))
    for index, block in blocks_in(array, box):
        made._write_filled(index, block)
    return made


def picked(array: StoredArray, key: Any, shape: tuple[int, ...]) -> StoredArray:
    """Copy what is stored of what a basic index selects, in a result of a known shape."""
    kind: Any = array
    wanted, made = Selection(key, array.shape), kind._like(array.dtype, shape)
    for box, block in array.blocks():
        met = [positions(side, along) for side, along in zip(wanted.sides, box, strict=True)]
        if any(one.start >= one.stop for one in met):
            continue
        target = [slice(0, n) for n in shape]  # also of new axes
        for one, k in zip(met, wanted.axes, strict=True):
            if k is not None:
                target[k] = one
        sides = [side[one] for side, one in zip(wanted.sides, met, strict=True)]
        items = block[tuple(_index(side, along) for side, along in zip(sides, box, strict=True))]
        lengths = [one.stop - one.start for one in target]
        made._write_filled(tuple(target), np.ascontiguousarray(items.reshape(lengths)))
    found: StoredArray = made
    return found


def _index(side: range, along: slice) -> slice:
    """Write a range as an index into a box."""
    stop = side.stop - along.start
    return slice(side.start - along.start, None if stop < 0 else stop, side.step)


def blocks_in(array: StoredArray, box: Box) -> Iterator[tuple[Box, NDArray[Any]]]:
    """
    Go through what is populated of a box of an array.

    Yields
    ------
    index, block
        As of ``blocks()``, counted from the corner of the box.
    """
    low = [side.start for side in box]
    if isinstance(array, TiledArray):
        read = array._box_reader()
        for index in _tile_boxes(array, box):
            yield _moved(index, low), read(index)
        return
    axis = slow_axis(array)
    rows = tuple(
        side if k == axis else slice(0, n)
        for k, (side, n) in enumerate(zip(box, array.shape, strict=True))
    )
    found = view_of(array, rows)
    if found is None:  # of no axes
        found = array
    inside = [slice(0, side.stop - side.start) if k == axis else side for k, side in enumerate(box)]
    corner = [side.start for side in inside]
    for index, block in found.blocks():
        met = _met(index, inside)
        if met is not None:
            part = tuple(
                slice(m.start - side.start, m.stop - side.start)
                for m, side in zip(met, index, strict=True)
            )
            yield _moved(met, corner), block[part]


def _tile_boxes(array: TiledArray, box: Box) -> Iterator[Box]:
    """Find boxes of stored tiles, cut to a box, that are not too large."""
    tiles, records = array.tiles, array._records
    rows = slice(None)
    if box:
        rows = slice(box[0].start // tiles[0], -(-box[0].stop // tiles[0]))
    starts, stops = stored_tiles(records, rows)
    starts = np.maximum(starts * tiles, [side.start for side in box])
    stops = np.minimum(stops * tiles, [side.stop for side in box])
    met = (starts < stops).all(axis=1)
    most = max(_PIECE // array.itemsize, 1)
    for start, stop in zip(starts[met].tolist(), stops[met].tolist(), strict=True):
        shape = tuple(high - low for low, high in zip(start, stop, strict=True))
        for part in boxes(shape, np.array([[0, prod(shape)]]), most):
            yield _moved(part, [-low for low in start])


def _met(index: Box, inside: list[slice]) -> Box | None:
    met = tuple(
        slice(max(a.start, b.start), min(a.stop, b.stop))
        for a, b in zip(index, inside, strict=True)
    )
    return None if any(side.start >= side.stop for side in met) else met


def _moved(index: Box, corner: list[int]) -> Box:
    return tuple(
        slice(side.start - at, side.stop - at) for side, at in zip(index, corner, strict=True)
    )


def stored_corners(array: StoredArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """
    Find disjoint boxes that cover what is stored, without reading it.

    Returns
    -------
    starts, stops : ndarray of int64, shape (n, ndim)
        In items.
    """
    if isinstance(array, TiledArray):
        starts, stops = stored_tiles(array._records)
        return starts * array.tiles, np.minimum(stops * array.tiles, array.shape)
    in_f = slow_axis(array) > 0
    shape = array.shape[::-1] if in_f else array.shape
    ranges = item_ranges(array.extents(), array.itemsize)
    starts, stops = corners(list(boxes(shape, ranges, max(array.size, 1))), array.ndim)
    return (starts[:, ::-1], stops[:, ::-1]) if in_f else (starts, stops)
