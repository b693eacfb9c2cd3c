"""The items of an array stored tile by tile: indexing by numpy's rules, with copies."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from operator import index
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from ._boxes import Index, stand_in
from ._coordinates import Coordinates, one_array, orthogonal
from ._memory import check_copy
from ._mover import Sides
from ._records import Records
from ._rows import keeps_holes
from ._selection import (
    Selected,
    Selection,
    as_arrays,
    has_field,
    is_basic,
    is_scalar,
    numbers_and_slices,
    slices_of,
    with_ellipsis,
    with_numbers,
)
from ._tile_blocks import TileBlocks
from ._tile_clearing import clear, tiles_of
from ._zero import is_zero
from .blocks import boxes, items_in
from .stored import StoredArray

if TYPE_CHECKING:
    pass

__all__ = ["OuterIndex", "TileItems"]

_PIECE = 4 << 20  # bytes converted at a time
_RECORDS = 1 << 20  # items of an advanced index that are moved at a time
_NUMBERS = frozenset({bool, int, float, complex})  # not those of numpy, which would be cast


class TileItems(StoredArray):
    """What a `TiledArray` is by its items: where they lie, how they are found and set."""

    __slots__ = ("_records",)

    _records: Records

    @property
    def shape(self) -> tuple[int, ...]:
        """Items along each axis."""
        return self._records.tiling.shape

    @property
    def dtype(self) -> np.dtype:
        """The type of an item."""
        return self._records.tiling.dtype

    @property
    def _store(self) -> Records:
        return self._records

    @property
    def tiles(self) -> tuple[int, ...]:
        """Items along each axis of a tile."""
        return self._records.tiling.tiles

    def tile(self, *numbers: int) -> NDArray[Any]:
        """
        Make a window of one tile: a plain ndarray, without a copy.

        A tile in memory is stored from then on, even if nothing is written to it.

        Parameters
        ----------
        *numbers : int
            Which, along each axis, in tiles; negative ones count from the end.

        Returns
        -------
        ndarray
            Of shape `tiles`; at the ends of the array what of it belongs to the array.

        Raises
        ------
        IndexError
            There is no such tile.
        AccessError
            As `SparseBuffer.window`.

        Examples
        --------
        >>> import sparsearray
        >>> a = sparsearray.zeros((100, 100), "u1", tiles=64)
        >>> a.tile(1, 1)[:] = 7
        >>> a.tile(1, 1).shape, a[63:66, 99]
        ((36, 36), array([0, 7, 7], dtype=uint8))
        """
        tiling = self._records.tiling
        if len(numbers) != self.ndim:
            msg = f"tile{numbers}: one number for each of the {self.ndim} axes"
            raise IndexError(msg)
        found = []
        for axis, (number, count) in enumerate(zip(numbers, tiling.grid, strict=True)):
            at = index(number)
            if not -count <= at < count:
                msg = f"tile {at} is out of bounds for axis {axis} with {count} tiles"
                raise IndexError(msg)
            found.append(at % count)
        sides = zip(found, tiling.tiles, tiling.shape, strict=True)
        shape = tuple(min(tile, n - at * tile) for at, tile, n in sides)
        place = sum(at * step for at, step in zip(found, tiling.tile_steps, strict=True))
        return self._records.window_of(place // tiling.tile_nbytes, shape)

    def __getitem__(self, key: Any) -> Any:
        """
        Copy part of the array, by numpy's rules.

        Returns
        -------
        ndarray or scalar
            Always a copy; a scalar for a single item. See `oindex` for rows and columns that are
            chosen apart.

        Raises
        ------
        IndexError
            As numpy.
        MemoryError
            There is no memory for the copy.
        AccessError
            A file has lost it, or cannot be read.
        """
        tiling, mover = self._records._seen
        parts = key if type(key) is tuple else (key,)
        sides = slices_of(parts, tiling.shape)
        if sides is not None:
            return mover.read(sides)
        at = self._item_place(parts)
        if at is not None:
            return self._records.read_item(at)
        if not is_basic(key):
            key = with_numbers(key)
            if not is_basic(key):
                return self._take(key)
        if has_field(key):
            return self._take_field(key)
        wanted = self._select(key)
        found = mover.read(wanted.sides).reshape(wanted.shape)
        return found if wanted.shape or not is_scalar(key) else found[()]

    def _item_place(self, parts: tuple[Any, ...]) -> int | None:
        """Find the place of one item; None for any other index, and a bad one."""
        places = self._records.tiling.places
        if len(parts) != len(places):
            return None
        at = 0
        for part, (n, tile, tile_step, item_step) in zip(parts, places, strict=False):
            if type(part) is not int:
                return None
            number = part + n if part < 0 else part
            if not 0 <= number < n:
                return None
            at += number // tile * tile_step + number % tile * item_step
        return at

    def _select(self, key: Any) -> Selected:
        """Find what a basic index selects; IndexError as numpy."""
        sizes = self.shape  # once: another thread may resize
        found = numbers_and_slices(key, sizes)
        if found is not None:
            return found
        dense = np.broadcast_to(np.zeros((), self.dtype), sizes)
        view = dense[with_ellipsis(key)]  # raises numpy's errors
        selection = Selection(key, sizes)
        return Selected(selection.sides, view.shape, selection.axes)

    def _take_field(self, key: Any) -> NDArray[Any]:
        """Copy fields of all items."""
        sample = stand_in(self)[key]
        check_copy(sample.shape, sample.dtype)
        found = np.zeros(sample.shape, sample.dtype)
        for box, block in self.blocks():
            found[box] = block[key]
        return found

    def _take(self, key: Any) -> Any:
        """Copy what an index with arrays selects."""
        sizes = self.shape  # once: another thread may resize
        parts = as_arrays(key, sizes, StoredArray)
        outer = one_array(parts, sizes)
        if outer is not None:
            return self._records.mover.read(outer.sides)
        wanted = Coordinates(parts, sizes)
        check_copy(wanted.shape, self.dtype)
        result = np.zeros(wanted.shape, self.dtype)
        for box, axes in wanted.pieces(_RECORDS):
            result[box] = self._records.gather(self._places(axes), self.dtype)
        return result[()] if wanted.is_item else result

    def _places(self, axes: list[NDArray[np.int64]]) -> NDArray[np.int64]:
        """Find the places of items by their numbers along each axis."""
        places: Any = np.zeros((), np.int64)
        for numbers, (_, tile, tile_step, item_step) in zip(
            axes, self._records.tiling.places, strict=True
        ):
            tiles, inside = np.divmod(numbers, tile)
            places = places + (tiles * tile_step + inside * item_step)
        found: NDArray[np.int64] = places
        return found

    @property
    def oindex(self) -> OuterIndex:
        """
        Index each axis by itself: ``a.oindex[rows, columns]``, as zarr's.

        Integers, slices, and arrays of integers or booleans of one axis; to read and to set. Every
        row is taken with every column, where ``a[rows, columns]`` takes pairs.

        Examples
        --------
        >>> import sparsearray
        >>> a = sparsearray.zeros((100, 100), "u1", tiles="auto")
        >>> a.oindex[[1, 99], ::50] = 1, 2
        >>> a.oindex[[99, 0, 1], [50, 0]]
        array([[2, 1],
               [0, 0],
               [2, 1]], dtype=uint8)
        """
        return OuterIndex(self)

    # Setting them

    def __setitem__(self, key: Any, value: Any) -> None:
        """
        Set part of the array by numpy's rules.

        Zero, and an array with holes of the same shape, leave holes where they have them.

        Raises
        ------
        IndexError, ValueError, TypeError
            As numpy; or the array is read-only. Nothing is changed.
        AccessError
            The disk is full or fails, or a file became shorter, after part of it was done.
        """
        tiling, mover = self._records._seen
        parts = key if type(key) is tuple else (key,)
        self._check_writable()
        sides = slices_of(parts, tiling.shape)
        if sides is not None:
            if self._records._quota is None and _is_ready(value, tiling.dtype, sides):
                mover.write(sides, value, value.strides)
                return
            shape = tuple(map(len, sides))
            self._set(Selected(sides, shape, list(range(len(shape)))), value)
            return
        if self._is_number(value):
            at = self._item_place(parts)
            if at is not None:
                self._set_item(at, value)
                return
        key = with_numbers(key)
        if not is_basic(key):
            self._put(key, value)
        elif has_field(key):
            self._put_field(key, value)
        else:
            wanted = self._select(key)
            if not wanted.shape and is_scalar(key):
                value = self._as_item(value)
            self._set(wanted, value)

    def _is_number(self, value: Any) -> bool:
        """Tell whether a value is a number that can be written as it is: the usual case."""
        dtype = self._records.tiling.dtype
        return dtype.kind in "biufc" and (
            type(value) in _NUMBERS or (isinstance(value, np.generic) and value.dtype == dtype)
        )

    def _set_item(self, at: int, value: Any) -> None:
        if self._records._quota is not None:
            nbytes = self._records.tiling.tile_nbytes
            tile = at // nbytes * nbytes
            self._records._quota.take(self._records, [np.array([[tile, tile + nbytes]])])
        self._records.write_item(at, value)

    def _set(self, wanted: Selected, value: Any) -> None:
        """Set what each axis selects by itself."""
        nbytes = prod(wanted.shape) * self.itemsize
        if isinstance(value, StoredArray):
            plain = all(isinstance(side, range) for side in wanted.sides)
            if plain and value.shape == wanted.shape and keeps_holes(value.dtype, self.dtype):
                if isinstance(value, TileItems) and self._lies_like(value, wanted):
                    self._copy_tiles(value)
                else:
                    self._take_over(wanted, value)
                return
            value = value[...]
        elif nbytes > self.buffer.page_size and is_zero(value, self.dtype):
            self._clear_sides(wanted.sides)
            return
        if isinstance(value, np.ndarray) and value.dtype != self.dtype and value.nbytes > _PIECE:
            self._set_converted(wanted, value)
            return
        items = _broadcast(self._as_items(value), wanted.shape)
        self._write_sides(wanted.sides, items, wanted.strides(items))

    def _set_converted(self, wanted: Selected, value: NDArray[Any]) -> None:
        """Set items to those of another dtype, a part at a time."""
        if self._records._overlaps(value):
            value = value.copy()
        source = _broadcast(value, wanted.shape)
        if not source.size:
            return
        most = max(_PIECE // max(self.itemsize, source.itemsize), 1)
        for box in boxes(wanted.shape, np.array([[0, source.size]]), most):
            items = self._as_items(source[box])
            self._write_sides(wanted.part(box), items, wanted.strides(items))

    def _as_item(self, value: Any) -> NDArray[Any]:
        """Convert a value to one item, as an assignment to one does it."""
        made = np.zeros(1, self.dtype)
        made[0] = value[...] if isinstance(value, StoredArray) else value
        return made[0:1].reshape(())

    def _as_items(self, value: Any) -> NDArray[Any]:
        """Convert a value as an assignment does it, to items that lie elsewhere."""
        dtype = self.dtype
        if not isinstance(value, np.ndarray):
            items = _converted(value, dtype)
        elif value.dtype != dtype:
            items = value.astype(dtype)
        elif self._records._overlaps(value):
            items = value.copy()
        else:
            items = value
        return items

    def _write_sides(
        self, sides: Sides, items: NDArray[Any], strides: list[int], *, filled: bool = False
    ) -> None:
        if self._records._quota is not None:
            self._take_quota(sides)
        self._records.mover.write(sides, items, strides, filled=filled)

    def _clear_sides(self, sides: Sides) -> None:
        clear(self._records, sides)

    def _write_box(self, box: Index, items: NDArray[Any]) -> None:
        self._write_sides(
            [range(side.start, side.stop) for side in box], items, list(items.strides)
        )

    def _read_box(self, box: Index) -> NDArray[Any]:
        """Copy the items of a box."""
        return self._records.mover.read([range(side.start, side.stop) for side in box])

    def _take_quota(self, sides: Sides) -> None:
        """See to it that what is about to be written is within the limit."""
        quota, tiling = self._records._quota, self._records.tiling
        if quota is None or not all(map(len, sides)):
            return
        spans = np.array([[0, tiling.tile_nbytes]])
        for side, (_, tile, step, _) in zip(sides[::-1], tiling.places[::-1], strict=True):
            runs = tiles_of(side, tile)
            if spans.tolist() == [[0, step]]:  # whole rows of tiles follow each other
                spans = runs * step
                continue
            counts = runs[:, 1] - runs[:, 0]
            skipped = np.cumsum(counts) - counts
            numbers = np.arange(counts.sum()) + np.repeat(runs[:, 0] - skipped, counts)
            spans = (numbers[:, np.newaxis, np.newaxis] * step + spans).reshape(-1, 2)
        quota.take(self._records, [spans])

    def _put(self, key: Any, value: Any) -> None:
        """Set what an index with arrays selects."""
        if isinstance(value, np.generic):
            value = np.asarray(value)  # cast as arrays are, unlike where a basic index is set
        if _is_mask(key, self.ndim):
            items = self._as_items(value) if isinstance(value, list | tuple) else value
            if np.ndim(items) > 1:
                msg = f"a boolean index takes values of 0 or 1 axes, not {np.ndim(items)}"
                raise TypeError(msg)
        sizes = self.shape  # once: another thread may resize
        parts = as_arrays(key, sizes, StoredArray)
        outer = one_array(parts, sizes)
        if outer is not None:
            self._set(outer, value)
            return
        wanted = Coordinates(parts, sizes)
        value = value[...] if isinstance(value, StoredArray) else value
        items = _broadcast(self._as_items(value), wanted.shape)
        if self._records._quota is not None:
            tile = self._records.tiling.tile_nbytes
            found = [np.unique(self._places(axes) // tile) for _, axes in wanted.pieces(_RECORDS)]
            first = np.unique(np.concatenate([np.empty(0, np.int64), *found])) * tile
            spans = np.stack([first, first + tile], axis=1)
            self._records._quota.take(self._records, [spans] if len(spans) else [])
        for box, axes in wanted.pieces(_RECORDS):
            part = items[cast("Any", (*box, Ellipsis))]  # an array, also of no axes
            self._records.scatter(np.broadcast_to(self._places(axes), part.shape), part)

    def _put_field(self, key: Any, value: Any) -> None:
        """Set fields of all items, box by box."""
        sample = stand_in(self)[key]
        if isinstance(value, StoredArray):
            value = value[...]
        if is_zero(value, sample.dtype):
            for box, block in self.blocks():
                changed = block.copy()
                changed[key] = np.zeros((), sample.dtype)
                self._write_box(box, changed)
            return
        if not isinstance(value, np.ndarray):
            value = _converted(value, sample.dtype)
        if self._records._overlaps(value):
            value = value.copy()
        items = _broadcast(value, sample.shape)
        if not self.size:
            return
        most = max(_PIECE // self.itemsize, 1)
        for box in boxes(self.shape, np.array([[0, self.size]]), most):
            part = self._read_box(box)
            part[key] = items[box]
            self._write_box(box, part)

    def _lies_like(self, other: TileItems, wanted: Selected) -> bool:
        """Tell whether all is set to an array that has the same bytes at the same places."""
        one, two = self._records.tiling, other._records.tiling
        alike = (one.dtype, one.tiles, one.tile_nbytes) == (two.dtype, two.tiles, two.tile_nbytes)
        whole = all(side == range(n) for side, n in zip(wanted.sides, one.shape, strict=True))
        return alike and whole and wanted.shape == one.shape and not self._overlaps(other)

    def _copy_tiles(self, other: TileItems) -> None:
        """Copy all that is stored of an array that lies alike, and give back all else."""
        held = other.extents()
        if self._records._quota is not None and len(held):
            self._records._quota.take(self._records, [held])
        self._records.put(other._records)

    def _stored_boxes(self) -> Iterator[Index]:
        return TileBlocks(self._records, items_in(None, self.itemsize)).indices()

    def trim(self, *, progress: bool = False) -> int:
        """
        Give back pages that hold only zeros.

        Parameters
        ----------
        progress : bool
            Show a progress bar (needs tqdm).

        Returns
        -------
        int
            Bytes given back.

        Raises
        ------
        ValueError, AccessError, ImportError
            As `SparseArray.trim`.
        """
        return self._records.trim(progress=progress)


class OuterIndex:
    """
    Indexes each axis by itself.

    Parameters
    ----------
    array : TiledArray
        Which one.
    """

    __slots__ = ("_array",)

    def __init__(self, array: TileItems) -> None:
        self._array = array

    def __getitem__(self, key: Any) -> Any:
        """
        Copy every item that is selected along each axis.

        Raises
        ------
        IndexError
            As numpy; or an array in the index has another number of axes than one.
        """
        wanted = orthogonal(key, self._array.shape)
        found = self._array._records.mover.read(wanted.sides).reshape(wanted.shape)
        return found if wanted.shape else found[()]

    def __setitem__(self, key: Any, value: Any) -> None:
        """
        Set every item that is selected along each axis; of two at one place the last wins.

        Raises
        ------
        IndexError, ValueError, TypeError, AccessError
            As ``a[key] = value``.
        """
        self._array._check_writable()
        self._array._set(orthogonal(key, self._array.shape), value)


def _is_ready(value: Any, dtype: np.dtype, sides: list[range]) -> bool:
    """Tell whether a value can be moved as it is, as most can: its memory is numpy's, not ours."""
    return (
        type(value) is np.ndarray
        and value.dtype == dtype
        and value.shape == tuple(map(len, sides))
        and (value.flags.owndata or (type(value.base) is np.ndarray and value.base.flags.owndata))
    )


def _is_mask(key: Any, ndim: int) -> bool:
    """Tell whether an index is one mask for all axes: numpy assigns to those by rules apart."""
    part = key[0] if isinstance(key, tuple) and len(key) == 1 else key
    return (
        isinstance(part, np.ndarray | StoredArray | list | bool | np.bool_)
        and (part if isinstance(part, StoredArray) else np.asarray(part)).dtype == bool
        and (np.ndim(part) == ndim)
    )


def _converted(value: Any, dtype: np.dtype) -> NDArray[Any]:
    """Make items of what is no array, with the errors of an assignment."""
    if not isinstance(value, np.generic):
        return np.asarray(value, dtype)
    made = np.zeros((), dtype)
    made[...] = value  # where `asarray` would wrap 300 into a byte
    return made


def _broadcast(items: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Repeat items to a shape, as an assignment does it; ValueError as numpy."""
    found = np.asarray(items)  # of a matrix, `found[0]` would have as many axes again
    while found.ndim > len(shape) and found.shape[0] == 1:
        found = found[0, ...]  # no scalar, whose dtype may be another one
    try:
        return np.broadcast_to(found, shape)
    except ValueError:
        msg = f"could not broadcast input array from shape {items.shape} into shape {shape}"
        raise ValueError(msg) from None
