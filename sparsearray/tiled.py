"""`TiledArray`: an array of any size stored tile by tile, so that a small box lies on few pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ._boxes import is_blocked
from ._layout import layout
from ._memory import check_copy
from ._pool import is_packed, tiles_in_memory
from ._records import Records
from ._rows import as_rows, keeps_holes
from ._selection import Selected
from ._tile_blocks import TileBlocks, stored_tiles
from ._tiling import Tiling, as_tiles
from .blocks import items_in
from .errors import AccessError
from .stored import StoredArray
from .tile_items import TileItems
from .window import as_shape

if TYPE_CHECKING:
    from .buffer import SparseBuffer

__all__ = ["TiledArray"]

_PIECE = 4 << 20  # bytes of rows with holes that are appended at a time


class TiledArray(TileItems):
    """
    An array that lies in a `SparseBuffer` tile by tile, and costs the tiles that were written.

    A box of some rows and columns lies on few pages, where in C order each of its rows has pages of
    its own. In exchange a selection is a copy, as with zarr and h5py; `tile` gives a window of one
    tile. Functions of the whole array skip what holds nothing, as those of a `SparseArray`.

    ``zeros(..., tiles=...)`` and `open` make one. Made directly, it shows what is mapped in a
    buffer already.

    Parameters
    ----------
    buffer : SparseBuffer
        Where the tiles lie. Every page of them must be mapped.
    shape : int or tuple of ints
        As of any array.
    dtype : dtype
        Any without objects, and of at least a byte.
    tiles : int, tuple of ints or 'auto'
        Items along each axis of a tile; as of `zeros`.
    offset : int
        Of the first tile, in bytes from the start of the buffer.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsearray
    >>> a = sparsearray.zeros((1 << 20, 1 << 17), tiles="auto")  # a terabyte
    >>> a[1000:1016, 2000:2032] = np.arange(32)
    >>> a[1000:1003, 2000:2003]
    array([[0., 1., 2.],
           [0., 1., 2.],
           [0., 1., 2.]])
    >>> np.sum(a), a.oindex[[1015, 7], [2031, 2030]]
    (np.float64(7936.0), array([[31., 30.],
           [ 0.,  0.]]))
    >>> a
    <TiledArray (1048576, 131072) float64 in tiles of (16, 32), 16 KiB stored of 1 TiB>

    Notes
    -----
    Tiles are padded to whole pages, those of less than one to a power of two. A box is moved by one
    native call, without the GIL, and guarded where it lies in files.

    Tiles of one page, of arrays in memory of their own, are packed in the order in which they are
    first written; from 8 MiB on in huge pages, so that up to 2 MiB more is taken than is told of.
    All others lie in their order, and of large ones the pages are stored that were written.
    """

    __slots__ = ("_maxshape",)

    _maxshape: tuple[int, ...]

    def __init__(
        self,
        buffer: SparseBuffer,
        shape: Any,
        dtype: DTypeLike = float,
        *,
        tiles: Any = "auto",
        offset: int = 0,
    ) -> None:
        sizes, found = layout(shape, dtype)
        tiling = Tiling(sizes, as_tiles(tiles, sizes, found.itemsize), found)
        if is_packed(buffer):
            msg = (
                f"{buffer!r} packs the tiles of an array as they were written: a.copy(), or save it"
            )
            raise ValueError(msg)
        self._records = Records(buffer, tiling.grid, tiling.record(), offset=offset)
        self._maxshape = sizes

    @classmethod
    def _of(cls, records: Records, maxshape: tuple[int, ...]) -> Self:
        """Make an array of tiles that are there."""
        made = cls.__new__(cls)
        made._records = records
        made._maxshape = maxshape
        return made

    @classmethod
    def _zeros(
        cls,
        shape: tuple[int, ...],
        dtype: np.dtype,
        tiles: Any,
        *,
        maxshape: tuple[int, ...] | None = None,
        quota: int | None = None,
        name: str | None = None,
    ) -> Self:
        """Make an array in memory of its own."""
        most = shape if maxshape is None else maxshape
        tiling = Tiling(shape, as_tiles(tiles, most, dtype.itemsize), dtype)
        return cls._of(tiles_in_memory(tiling, most, quota=quota, name=name), most)

    # What it is

    @property
    def maxshape(self) -> tuple[int, ...]:
        """How large `resize` can make it."""
        return self._maxshape

    def blocks(
        self, *, max_nbytes: int | None = None
    ) -> Iterator[tuple[tuple[slice, ...], NDArray[Any]]]:
        """
        Go through what is populated, box by box.

        All functions that skip holes stand on this, and your own can as well.

        Parameters
        ----------
        max_nbytes : int, optional
            Of a box, at most, in bytes; 16 MiB by default.

        Returns
        -------
        iterator of (index, ndarray)
            ``index`` is a slice for each axis, and the array a copy of ``a[index]``, read-only.
            Boxes are disjoint, of whole tiles where they are not too large, and cover every extent:
            what is in none of them is zero. They may hold zeros too.

        Raises
        ------
        ClosedError, AccessError, OSError
            As `extents`; also from a step, for a file that fails or becomes shorter meanwhile.
        ValueError
            `max_nbytes` is less than an item.

        Examples
        --------
        >>> import sparsearray
        >>> a = sparsearray.zeros((1 << 20, 1 << 17), tiles="auto")
        >>> a[1000:1010, 2000] = 1
        >>> for index, block in a.blocks():
        ...     print(index, block.shape, block.sum())
        (slice(992, 1024, None), slice(1984, 2016, None)) (32, 32) 10.0
        """
        return TileBlocks(self._records, items_in(max_nbytes, self.itemsize))

    # numpy

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            msg = "a TiledArray cannot be made an ndarray without a copy: a.tile(i, j) is a window"
            raise ValueError(msg)
        wanted = self.dtype if dtype is None else np.dtype(dtype)
        check_copy(self.shape, wanted)
        if not keeps_holes(self.dtype, wanted):
            return self._records.mover.read([range(n) for n in self.shape]).astype(wanted)
        made = np.zeros(self.shape, wanted)
        for box, block in self.blocks():
            made[box] = block
        return made

    def _like(self, dtype: DTypeLike, shape: tuple[int, ...] | None = None) -> TiledArray:
        """Make an array of zeros with tiles of the same shape."""
        sizes, found = layout(self.shape if shape is None else shape, dtype)
        tiles: Any = self.tiles if len(sizes) == len(self.tiles) else "auto"
        return TiledArray._zeros(sizes, found, tiles)

    def _overlaps(self, other: Any) -> bool:
        """Tell whether it may hold some of the bytes of another array, in memory or in a file."""
        return self._records._overlaps(other._records if isinstance(other, TiledArray) else other)

    def _filling(self, source: Any) -> AbstractContextManager[None]:
        """Tiles have the pages that suit them, whatever is written."""
        del source
        return nullcontext()

    def _box_reader(self) -> Callable[[Any], NDArray[Any]]:
        """Return what gives the items of a box."""
        return self._read_box

    def _box_writer(self) -> tuple[Callable[[Any], NDArray[Any]], Callable[[Any, Any], None]]:
        """Return what gives an array to be filled, and what puts it into a box."""
        self._check_writable()
        dtype = self.dtype

        def take(box: Any) -> NDArray[Any]:
            return np.zeros([side.stop - side.start for side in box], dtype)

        return take, self._write_box

    def _times(self, other: NDArray[Any], dtype: np.dtype) -> NDArray[Any] | None:
        """Multiply with a dense vector or matrix through scipy, where that is the faster way."""
        from .interop.scipy import multiply

        return multiply(self, other, dtype)

    # Changes

    def copy(self) -> TiledArray:
        """
        Copy what is stored into an array of its own, in memory.

        Raises
        ------
        ClosedError, AccessError, OSError
            As `extents`.
        """
        records = tiles_in_memory(self._records.tiling)
        records.put(self._records)
        return TiledArray._of(records, self.shape)

    def snapshot(self) -> TiledArray:
        """
        Make an array of what this one holds now, whatever becomes of it later.

        Returns
        -------
        TiledArray
            Nothing written to it reaches a file. Its length cannot change.

        Raises
        ------
        ClosedError, AccessError, MemoryError, OSError
            As `SparseArray.snapshot`, which says what it costs: boxes that are set cost the pages
            that they touch, and only windows of `tile` that may write have more copied.
        """
        records = self._records
        if not records._lies_in_files():
            return self.copy()
        return TiledArray._of(records._snapshot(Records), self.shape)

    def resize(self, shape: Any) -> None:
        """
        Make it longer or shorter along the first axis. It never moves: live windows stay valid.

        Parameters
        ----------
        shape : int or tuple of ints
            The new shape; all axes but the first as they are.

        Raises
        ------
        ValueError, BufferError, OSError
            As `SparseArray.resize`.

        Examples
        --------
        >>> import sparsearray
        >>> a = sparsearray.zeros((0, 3), tiles="auto", maxshape=(None, 3))
        >>> a.append([[1, 2, 3], [4, 5, 6]])
        >>> a.resize((1_000_000_000, 3))
        >>> a[0], a.sum()
        (array([1., 2., 3.]), np.float64(21.0))
        """
        with self._records._length():
            self._resize(as_shape(shape), None)

    def append(self, rows: ArrayLike) -> None:
        """
        Add rows at the end of the first axis.

        Parameters
        ----------
        rows : array_like or array with holes, shape ``(n, *a.shape[1:])``
            Converted to the array's dtype. Holes stay holes.

        Raises
        ------
        ValueError, TypeError, AccessError, OSError
            As `SparseArray.append`. Nothing is changed.

        Notes
        -----
        If the process or the system crashes meanwhile, the file has the rows from before, or all.
        """
        found: Any = rows if isinstance(rows, StoredArray) else as_rows(rows, self.dtype)
        if not self.shape or found.ndim != self.ndim or found.shape[1:] != self.shape[1:]:
            msg = f"append: rows of shape {found.shape} do not fit an array of {self.shape}"
            raise ValueError(msg)
        try:
            with self._records._length():
                self._resize((self.shape[0] + found.shape[0], *self.shape[1:]), found)
        except AccessError as error:
            error.strerror, error.transferred = f"append undone: {error.strerror}", 0
            raise

    def _resize(self, sizes: tuple[int, ...], rows: Any) -> None:
        """Resize, with `rows` in what is new before it counts. The caller holds the lock."""
        self._check_resize(sizes)
        old = self.shape[0]
        if sizes[0] == old:
            return
        tiling = self._records.tiling.resized(sizes)
        storage, record = self._records._storage, tiling.record()
        if sizes[0] > old:
            fill = partial(self._fill_rows, old, sizes[0], rows)
            storage.resize(self._records, tiling.grid, fill, record)
            return
        self._check_no_window(sizes[0], old)
        storage.resize(self._records, tiling.grid, None, record)
        self._clear_rows(sizes[0])

    def _check_no_window(self, start: int, stop: int) -> None:
        """Raise BufferError if a window shows rows of the last tiles that are left."""
        tiling = self._records.tiling
        tile, (outer, *grid) = tiling.tiles[0], tiling.grid
        del outer
        inside = start % tile
        if not inside or not prod(grid):
            return
        row, size = prod(grid), tiling.item_steps[0]
        low, high = inside * size, min(stop - start + inside, tile) * size
        self._records.check_unpinned(
            start // tile * row, (start // tile + 1) * row, low, high - low
        )

    def _fill_rows(self, start: int, stop: int, rows: Any) -> None:
        """Put rows behind the last one, into tiles that hold nothing there."""
        self._clear_rows(start)
        if rows is None or not rows.size:
            return
        sides = [range(start, stop), *map(range, self.shape[1:])]
        if not is_blocked(rows):
            self._take_quota(sides)  # of all, before the first of them is written
        wanted = Selected(sides, rows.shape, list(range(self.ndim)))
        if is_blocked(rows) and not keeps_holes(rows.dtype, self.dtype):
            rows = rows[...]
        if not is_blocked(rows):
            self._set_converted(wanted, rows)
            return
        for box, block in rows.blocks(max_nbytes=max(_PIECE, rows.itemsize)):
            items = self._as_items(block)
            self._write_sides(wanted.part(box), items, wanted.strides(items), filled=True)

    def _clear_rows(self, start: int) -> None:
        """Set to zero what the last tiles hold behind the last row."""
        tiling = self._records.tiling
        tile = tiling.tiles[0]
        if not start % tile or not self._records.nbytes:
            return
        rows = range(start, (start // tile + 1) * tile)
        found = stored_tiles(self._records, slice(start // tile, start // tile + 1))
        for low, high in zip(*(corner.tolist() for corner in found), strict=True):
            tiles = zip(low[1:], high[1:], tiling.tiles[1:], strict=True)
            self._records.mover.clear([rows, *(range(a * n, b * n) for a, b, n in tiles)])
