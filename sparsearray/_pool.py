"""The tiles of an array in memory, packed in the order in which they are first written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import prod
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ._binding import box_failure, ffi, lib, pointer, put_back, take
from ._layout import allocate, make_ghost, reserve
from ._new_file import PIECE
from ._progress import progress_bar
from ._quota import Quota
from ._records import Records
from ._storage import Memory
from ._tiling import Tiling
from .access import Place, make_place
from .array import SparseArray
from .blocks import join
from .buffer import SparseBuffer

__all__ = ["Pool", "is_packed", "tiles_in_memory"]

_ALL = 1 << 62  # tiles
_FEW = 1 << 12  # places that are asked for at first


def tiles_in_memory(
    tiling: Tiling,
    most: tuple[int, ...] | None = None,
    *,
    quota: int | None = None,
    name: str | None = None,
) -> Records:
    """
    Make tiles of zeros.

    Those of one page are packed. Smaller ones share pages, and of larger ones the pages are stored
    that were written: they lie in their order.

    Parameters
    ----------
    tiling : Tiling
        How they lie.
    most : tuple of int, optional
        Shape of the array at its longest.
    quota : int, optional
        Bytes that may be stored.
    name : str, optional
        What the system calls the memory.
    """
    kind = Pool if tiling.tile_nbytes == lib.sa_page_size() else Records
    return kind._zeros(
        tiling.grid,
        tiling.record(),
        maxshape=tiling.grid if most is None else tiling.resized(most).grid,
        quota=quota,
        name=name,
    )


def is_packed(buffer: SparseBuffer) -> bool:
    """Tell whether a buffer has the tiles of an array in the order in which they were written."""
    report = take()
    code = lib.sa_list_slots(buffer._reservation, ffi.NULL, 0, report)
    put_back(report)
    return bool(code == lib.SA_OK)


class PoolMemory(Memory):
    """Private memory for all tiles there may ever be: with the length only their number changes."""

    def _take(self, array: SparseArray, old: int, new: int) -> None:
        """Let more tiles be stored."""
        self._cut(array, old, new)

    def _cut(self, array: SparseArray, old: int, new: int) -> None:
        """Drop the tiles that go; BufferError if one is shown."""
        place = ("resize", min(old, new), abs(new - old))
        cast("Pool", array)._call(lib.sa_resize_pool, new // array.itemsize, place=place)


class Pool(Records):
    """
    The tiles of an array in memory, packed in the order in which they are first written.

    What is stored is known, tile by tile, and lies in huge pages; `native/pool.h` says why.
    """

    __slots__ = ("_idle",)

    _idle: list[Place]

    @classmethod
    def _zeros(
        cls,
        shape: tuple[int, ...],
        dtype: np.dtype,
        *,
        maxshape: tuple[int, ...] | None = None,
        quota: int | None = None,
        name: str | None = None,
    ) -> Pool:
        """Make tiles of which none is stored."""
        most = shape if maxshape is None else maxshape
        slots = max(prod(most), prod(shape), 1)
        buffer = reserve(slots * dtype.itemsize, name)
        made = cls._of(buffer, shape, dtype, maxshape=most, storage=PoolMemory())
        made._idle = []
        if quota is not None:
            made._quota = Quota(quota, made.tiling.tile_nbytes)
        page = buffer.page_size
        allocate(buffer, 0, -(-slots * dtype.itemsize // page) * page)
        made._call(lib.sa_make_pool, 0, dtype.itemsize, slots)
        made._call(lib.sa_resize_pool, prod(shape))
        return made

    def _set_shape(self, shape: tuple[int, ...], dtype: np.dtype | None = None) -> None:
        super()._set_shape(shape, dtype)
        # Any of it may be in any part of the buffer.
        self._ghost = make_ghost((self._buffer.nbytes,), np.dtype("u1"), "C", self._buffer.address)

    @property
    def _start(self) -> int:
        start: int = lib.SA_POOL
        return start

    def _call(
        self, function: Any, *arguments: Any, place: tuple[str, int, int] | None = None
    ) -> int:
        """Call a native function of the pool; what it counts. `place` is what errors name."""
        report = take()
        code = function(self._buffer._reservation, *arguments, report)
        if code:
            raise self._failure(code, report, place)
        count: int = report.count
        put_back(report)
        return count

    def _failure(
        self, code: int, report: Any, place: tuple[str, int, int] | None = None
    ) -> Exception:
        what = place or ("tiles", 0, self.nbytes)
        return box_failure(code, report, *what, self._buffer.nbytes)

    # What is stored

    def _list(
        self, start: int = 0, stop: int | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """List what is stored, by number: the numbers of tiles, and their offsets."""
        stop = prod(self._shape) if stop is None else stop
        count = min(stop - start, _FEW)
        while True:
            numbers, offsets = np.empty(count, np.int64), np.empty(count, np.int64)
            cells = _numbers(numbers), _numbers(offsets)
            found = self._call(lib.sa_list_tiles, start, stop, *cells, count)
            if found <= count:
                return numbers[:found], offsets[:found]
            count = found  # another thread may make some more meanwhile

    def _held(self) -> NDArray[np.int64]:
        # Also those that are being appended, and no part of the array yet.
        return self.tile_ranges(0, _ALL) * self.tiling.tile_nbytes

    def tile_ranges(self, start: int, stop: int) -> NDArray[np.int64]:
        """Find the runs of tiles that may hold something, between two numbers: shape (n, 2)."""
        numbers, _ = self._list(start, stop)
        return join(np.stack([numbers, numbers + 1], axis=1))

    def check_unpinned(self, start: int, stop: int, inside: int, nbytes: int) -> None:
        """Raise BufferError if a window shows some bytes of each of some tiles."""
        _, offsets = self._list(start, stop)
        for offset in offsets.tolist():
            self._buffer._check_unpinned(offset + inside, nbytes)

    def window_of(self, number: int, shape: tuple[int, ...]) -> NDArray[Any]:
        """Make a window of the first items of a tile along each axis."""
        tiling, cell = self.tiling, ffi.new("int64_t *")
        if self._quota is not None:
            place = number * tiling.tile_nbytes
            self._quota.take(self, [np.array([[place, place + tiling.tile_nbytes]])])
        while True:
            self._call(lib.sa_find_tile, number, 1, cell)
            offset: int = cell[0]
            window = self._buffer.window(offset, shape, tiling.dtype, strides=tiling.item_steps)
            # From now on it stays; another thread may have dropped it before.
            self._call(lib.sa_find_tile, number, 0, cell)
            if cell[0] == offset:
                return window

    # Items

    def read_item(self, place: int) -> Any:
        """Read one item."""
        try:
            where = self._idle.pop()
        except IndexError:
            made = make_place(self.tiling.dtype)
            if made is None:
                return self.gather(np.array([place]), self.tiling.dtype)[0]
            where = made
        report, nbytes, view, raw = where
        code = lib.sa_read_item(self._buffer._reservation, place, nbytes, report)
        if code:
            raise self._failure(code, report)
        value = view[()]
        if raw is not None:  # numpy's records are views, of memory of their own here
            value = np.ndarray((), view.dtype, memoryview(bytearray(raw)))[()]
        self._idle.append(where)
        return value

    def write_item(self, place: int, value: Any) -> None:
        """Write one item."""
        item = np.asarray(value, self.tiling.dtype)
        data = pointer(item, writable=False)
        self._call(lib.sa_write_item, place, item.itemsize, data)

    def gather(self, places: NDArray[np.int64], dtype: Any) -> NDArray[Any]:
        """Copy items."""
        found: NDArray[Any] = np.empty(places.shape, dtype)
        if found.nbytes:
            cells = _numbers(np.ascontiguousarray(places, np.int64).reshape(-1))
            data = pointer(found, writable=True)
            self._call(lib.sa_gather_items, cells, found.size, found.itemsize, data)
        return found

    def scatter(self, places: NDArray[np.int64], items: NDArray[Any]) -> None:
        """Write items."""
        if items.nbytes:
            cells = _numbers(np.ascontiguousarray(places, np.int64).reshape(-1))
            # As bytes: numpy's copy of a record leaves what lies between its fields to chance.
            data = pointer(np.ascontiguousarray(items.view(f"V{items.itemsize}")), writable=False)
            self._call(lib.sa_scatter_items, cells, items.size, items.itemsize, data)

    # Tiles

    def drop(self, sides: Sequence[range]) -> None:
        """Set a box of tiles to zero, and give back what they took."""
        numbers = np.zeros((), np.int64)
        for side, n in zip(sides, self._shape, strict=True):
            numbers = numbers[..., np.newaxis] * n + np.arange(side.start, side.stop)
        self._drop(numbers.reshape(-1))

    def _drop(self, numbers: NDArray[np.int64]) -> int:
        return self._call(lib.sa_drop_tiles, _numbers(np.ascontiguousarray(numbers)), len(numbers))

    def read_tiles(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """Copy whole tiles as items of so many bytes."""
        nbytes = self.tiling.tile_nbytes
        return self.gather(numbers * nbytes, f"V{nbytes}")

    def chunks(self, most: int) -> Iterator[NDArray[Any]]:
        """Go through all that is stored of an array whose tiles hold nothing but its items."""
        dtype, count = self.tiling.dtype, _FEW
        while True:
            pairs = np.empty((count, 2), np.int64)
            found = self._call(lib.sa_list_slots, _numbers(pairs), count)
            if found <= count:
                break
            count = found
        for start, stop in pairs[:found].tolist():
            run = self._buffer.window(
                start, (stop - start) // dtype.itemsize, dtype, writable=False
            )
            for at in range(0, run.size, most):
                yield run[at : at + most]

    def pieces(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Go through the bytes of what is stored, by place."""
        nbytes = self.tiling.tile_nbytes
        for batch in self._batches(self._list()[0]):
            tiles = self.read_tiles(batch).view("u1")
            for first, last in _runs(np.diff(batch) == 1, len(batch)):
                yield int(batch[first]) * nbytes, tiles[first * nbytes : last * nbytes]

    def put(self, other: Records) -> None:
        """Copy all that is stored of an array that lies in tiles alike, and drop all else."""
        held = other.tile_ranges(0, prod(other.shape))
        mine, _ = self._list()
        at = np.searchsorted(held[:, 0], mine, "right")
        self._drop(mine[mine >= np.append(0, held[:, 1])[at]])
        for start, stop in held.tolist():
            for batch in self._batches(range(start, stop)):
                self.scatter(batch * self.tiling.tile_nbytes, other.read_tiles(batch))

    def _batches(self, numbers: Any) -> Iterator[NDArray[np.int64]]:
        """Cut numbers of tiles into parts that are copied at once."""
        many = max(PIECE // self.tiling.tile_nbytes, 1)
        for at in range(0, len(numbers), many):
            yield np.asarray(numbers[at : at + many], np.int64)

    def trim(self, *, progress: bool = False) -> int:
        """Give back tiles that hold only zeros."""
        nbytes = self.tiling.tile_nbytes
        numbers, _ = self._list()
        freed = 0
        with progress_bar("trim", len(numbers) * nbytes, shown=progress) as done:
            for batch in self._batches(numbers):
                tiles = self.read_tiles(batch).view("u8").reshape(len(batch), -1)
                freed += self._drop(batch[~tiles.any(axis=1)]) * nbytes
                done(len(batch) * nbytes)
        return freed


def _numbers(array: NDArray[np.int64]) -> Any:
    """Point a native function at numbers, which live as long as that."""
    return ffi.from_buffer("int64_t[]", array)


def _runs(joined: NDArray[np.bool_], count: int) -> Iterator[tuple[int, int]]:
    """Cut a list where neighbours are not joined: first and last of each part."""
    cuts = [0, *(np.flatnonzero(~joined) + 1).tolist(), count]
    return ((first, last) for first, last in pairwise(cuts) if first < last)
