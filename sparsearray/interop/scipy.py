"""From and to scipy's sparse arrays: what is zero stays out, block by block."""

from __future__ import annotations

from math import gcd, prod
from operator import index
from sys import modules
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsearray._memory import UNCHECKED, available_memory
from sparsearray._optional import needed
from sparsearray._text import size as written
from sparsearray.array import SparseArray
from sparsearray.creation import zeros
from sparsearray.tiled import TiledArray

from ._cells import grid_of, touched_cells
from ._coordinates import check_numbers, collect, fill_by_coordinates

__all__ = ["from_scipy", "to_bsr", "to_coo", "to_csr"]

_PIECE = 4 << 20  # bytes of a box put into blocks at a time
_COLUMNS = 8  # vectors that a matrix in blocks is multiplied with
_MERGED = 4  # tiles side by side, on average, that are quicker as a box
_IMPORTED = 4096  # tiles for whose product it is worth to import scipy


def to_coo(array: Any) -> Any:
    """
    Make a ``scipy.sparse.coo_array`` of what is not zero.

    Parameters
    ----------
    array : SparseArray or TiledArray
        With at least one axis.

    Returns
    -------
    scipy.sparse.coo_array
        In canonical format: in C order, each place once. As ``coo_array(dense)``, it has no entry
        for a -0.0, which is equal to zero; NaN is an entry.

    Raises
    ------
    TypeError
        It is no such array, or scipy has no such items: float16, records, strings, times, or
        another byte order.
    ValueError
        It has no axes.
    MemoryError
        What is not zero does not fit.
    ClosedError, AccessError, OSError
        As `SparseArray.extents`.

    Examples
    --------
    >>> import sparsearray
    >>> a = sparsearray.zeros((1 << 20, 1 << 17))
    >>> a[70, 5], a[6, 1000] = 1, 2
    >>> m = to_coo(a)
    >>> m.nnz, m.row, m.col, m.data
    (2, array([ 6, 70], dtype=int32), array([1000,    5], dtype=int32), array([2., 1.]))
    """
    sparse = _scipy("to_coo", array)
    data, coords = collect(array, "to_coo")
    made = sparse.coo_array((data, coords), shape=array.shape)
    made.has_canonical_format = True
    return made


def to_csr(array: Any) -> Any:
    """
    Make a ``scipy.sparse.csr_array`` of what is not zero.

    Parameters
    ----------
    array : SparseArray or TiledArray
        Of two axes.

    Returns
    -------
    scipy.sparse.csr_array
        In canonical format, with the entries of `to_coo`.

    Raises
    ------
    TypeError, ValueError, MemoryError, ClosedError, AccessError, OSError
        As `to_coo`. A row takes 4 or 8 bytes, whether it holds something or not.

    Examples
    --------
    >>> import sparsearray
    >>> a = sparsearray.zeros((4, 1 << 17))
    >>> a[3, 5], a[1, 1000] = 1, 2
    >>> m = to_csr(a)
    >>> m.indptr, m.indices, m.data
    (array([0, 0, 1, 1, 2], dtype=int32), array([1000,    5], dtype=int32), array([2., 1.]))
    """
    sparse = _scipy("to_csr", array, ndim=2)
    _check_rows("to_csr", array.shape[0])
    data, (rows, columns) = collect(array, "to_csr")
    parts = data, *_compressed(rows, columns, array.shape)
    made = sparse.csr_array(parts, shape=array.shape)
    made.has_canonical_format = True
    return made


def _compressed(
    rows: NDArray[Any], columns: NDArray[Any], shape: tuple[int, int]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Make indices, and where each row begins among them, of sorted places; as scipy has them."""
    kind = np.dtype("i4" if max(*shape, len(rows)) < 1 << 31 else "i8")
    pointers = np.zeros(shape[0] + 1, kind)
    np.cumsum(np.bincount(rows, minlength=shape[0]), out=pointers[1:])
    return columns.astype(kind, copy=False), pointers


def to_bsr(array: Any, blocksize: tuple[int, int] | None = None) -> Any:
    """
    Make a ``scipy.sparse.bsr_array`` of the blocks that are not all zero.

    Parameters
    ----------
    array : SparseArray or TiledArray
        Of two axes.
    blocksize : (int, int), optional
        Rows and columns of a block, which must divide the shape. By default the tiles.

    Returns
    -------
    scipy.sparse.bsr_array
        In canonical format.

    Raises
    ------
    ValueError
        Blocks do not divide the shape; or there are no tiles, and no `blocksize`.
    RuntimeError
        Another thread has put data where there was none meanwhile.
    TypeError
        `blocksize` is not two integers; or as `to_coo`.
    MemoryError, ClosedError, AccessError, OSError
        As `to_coo`.

    Examples
    --------
    >>> import sparsearray
    >>> a = sparsearray.zeros((1 << 20, 1 << 17), tiles=(16, 32))
    >>> a[70, 5], a[6, 1000] = 1, 2
    >>> m = to_bsr(a)
    >>> m.blocksize, m.data.shape, m.indices
    ((16, 32), (2, 16, 32), array([31,  0], dtype=int32))
    """
    sparse = _scipy("to_bsr", array, ndim=2)
    sides = _block_sides(array, blocksize)
    numbers, data = collect_blocks(array, sides)
    kept = data.any(axis=(1, 2))
    if not kept.all():
        numbers, data = numbers[kept], data[kept]
    made = bsr_of(sparse, numbers, data, array.shape)
    made.has_canonical_format = True
    return made


def _block_sides(array: Any, blocksize: Any) -> tuple[int, int]:
    tiles = getattr(array, "tiles", None) if blocksize is None else blocksize
    if tiles is None:
        msg = "to_bsr: an array in C order has no tiles; blocksize=(rows, columns) says how large"
        raise ValueError(msg)
    try:
        rows, columns = map(index, tiles)
    except (TypeError, ValueError):
        msg = f"to_bsr: blocksize is (rows, columns), two integers, not {tiles!r}"
        raise TypeError(msg) from None
    if rows < 1 or columns < 1:
        msg = f"to_bsr: blocks of {(rows, columns)}: each side must be at least 1"
        raise ValueError(msg)
    if array.shape[0] % rows or array.shape[1] % columns:
        fits = gcd(array.shape[0], rows), gcd(array.shape[1], columns)
        msg = (
            f"to_bsr: blocks of {(rows, columns)} do not divide shape {array.shape}, as scipy has "
            f"it; blocksize={fits} does"
        )
        raise ValueError(msg)
    return rows, columns


def collect_blocks(array: Any, sides: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """
    Copy the blocks that are stored; those at the end are filled up with zeros.

    Returns
    -------
    numbers : ndarray of int64, shape (n,)
        In C order of the grid that all blocks make; sorted.
    data : ndarray, shape (n, rows, columns)
        They may hold zeros only.
    """
    if getattr(array, "tiles", None) == sides:
        return _collect_tiles(array)
    numbers = touched_cells(array._stored_boxes(), array.shape, sides)
    _check_room(f"to_bsr: {len(numbers)} blocks", len(numbers) * prod(sides) * array.itemsize)
    data: NDArray[Any] = np.zeros((len(numbers), *sides), array.dtype)
    across = grid_of(array.shape, sides)[1]
    for (down, along), block in array.blocks(max_nbytes=max(_PIECE, array.itemsize)):
        first = along.start // sides[1]
        count = -(-along.stop // sides[1]) - first
        for band in range(down.start // sides[0], -(-down.stop // sides[0])):
            top = band * sides[0]
            start, stop = max(top, down.start), min(top + sides[0], down.stop)
            at = int(np.searchsorted(numbers, band * across + first))
            if at + count > len(numbers) or numbers[at + count - 1] != (
                band * across + first + count - 1
            ):
                msg = "the array was written to while it was read"
                raise RuntimeError(msg)
            target = data[at : at + count, start - top : stop - top]
            _put(target, block[start - down.start : stop - down.start], along, first)
    return numbers, data


def _collect_tiles(array: TiledArray) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Copy tiles, which are the blocks, by one call."""
    records, tiles = array._records, array.tiles
    ranges = records.tile_ranges(0, prod(records.tiling.grid))
    numbers = np.concatenate([np.empty(0, np.int64), *(np.arange(*pair) for pair in ranges)])
    nbytes = prod(tiles) * array.itemsize
    shape = (len(numbers), records.tiling.tile_nbytes)
    _check_room(f"to_bsr: {len(numbers)} tiles", prod(shape))
    found = records.read_tiles(numbers).view("u1").reshape(shape)[:, :nbytes]
    return numbers, np.ascontiguousarray(found).view(array.dtype).reshape(-1, *tiles)


def _check_rows(what: str, count: int) -> None:
    """Raise MemoryError where it does not fit where each row begins."""
    _check_room(f"{what}: the index of {count} rows", (count + 1) * 8)


def _check_room(what: str, nbytes: int) -> None:
    """Raise MemoryError for what does not fit."""
    available = available_memory() if nbytes > UNCHECKED else None
    if available is not None and nbytes > available:
        msg = f"{what}: {written(nbytes)}, and {written(available)} of memory are left"
        raise MemoryError(msg)


def _put(target: NDArray[Any], strip: NDArray[Any], along: slice, first: int) -> None:
    """Put part of some rows into blocks side by side: those at its ends may take only a part."""
    width = target.shape[2]
    low, high = along.start - first * width, along.stop - first * width
    head = min(-low % width, high - low)
    if head:
        target[0, :, low : low + head] = strip[:, :head]
    whole = (high - low - head) // width
    if whole:
        at = (low + head) // width
        middle = strip[:, head : head + whole * width].reshape(len(strip), whole, width)
        target[at : at + whole] = middle.swapaxes(0, 1)
    done = head + whole * width
    if done < high - low:
        target[-1, :, : high - low - done] = strip[:, done:]


def bsr_of(
    sparse: Any, numbers: NDArray[np.int64], data: NDArray[Any], shape: tuple[int, ...]
) -> Any:
    """Make a bsr_array of blocks by their numbers; the shape is rounded up to whole blocks."""
    sides = data.shape[1], data.shape[2]
    down, across = grid_of(shape, sides)
    _check_rows("to_bsr", down)
    rows, columns = np.divmod(numbers, max(across, 1))
    whole = down * sides[0], across * sides[1]
    if not len(numbers):
        return sparse.bsr_array(whole, blocksize=sides, dtype=data.dtype)
    return sparse.bsr_array((data, *_compressed(rows, columns, (down, across))), shape=whole)


def multiply(array: TiledArray, other: NDArray[Any], dtype: np.dtype) -> NDArray[Any] | None:
    """
    Multiply a matrix in tiles with a vector, or a few of them, through a bsr_array.

    Parameters
    ----------
    array : TiledArray
        Of two axes.
    other : ndarray
        Of one axis or two, which fit.
    dtype : dtype
        That sums are kept in.

    Returns
    -------
    ndarray or None
        Of that dtype; None where another way is as good, or scipy is not there.

    Notes
    -----
    Here a tile costs no call of numpy's, but has no BLAS either, which is faster for tiles that
    make large boxes, and for many columns. To import scipy takes longer than a small product.
    """
    columns = other.shape[1] if other.ndim > 1 else 1
    if columns > _COLUMNS or dtype.kind not in "iufc" or not dtype.isnative:
        return None
    runs = array._records.tile_ranges(0, prod(array._records.tiling.grid))
    count = int((runs[:, 1] - runs[:, 0]).sum())
    if count >= _MERGED * len(runs) or (count < _IMPORTED and "scipy.sparse" not in modules):
        return None
    available = available_memory()
    # The tiles, and once more as the sums want them.
    wanted = count * array._records.tiling.tile_nbytes * (1 + dtype.itemsize / array.itemsize)
    if wanted > UNCHECKED and (available is None or wanted > available / 2):
        return None
    try:
        sparse = needed("scipy.sparse", "matmul", "scipy")
    except ImportError:
        return None
    numbers, data = collect_blocks(array, (array.tiles[0], array.tiles[1]))
    matrix = bsr_of(sparse, numbers, data.astype(dtype, copy=False), array.shape)
    vectors = np.zeros((matrix.shape[1], *other.shape[1:]), dtype)
    vectors[: len(other)] = other
    found: NDArray[Any] = (matrix @ vectors)[: array.shape[0]]
    return found


def from_scipy(matrix: Any, *, tiles: Any = None) -> SparseArray | TiledArray:
    """
    Make an array of what a sparse array of scipy stores.

    Parameters
    ----------
    matrix : scipy.sparse array or matrix
        In any format. Entries for the same place are added up, as ``sum_duplicates`` does it.
    tiles : int, tuple of ints or 'auto', optional
        As of `zeros`.

    Returns
    -------
    SparseArray
        Or `TiledArray`, with `tiles`; in memory. Entries of zero are left out, -0.0 is kept.

    Raises
    ------
    TypeError
        It is no such array, or holds objects.
    ValueError
        As `zeros`.
    MemoryError
        There are not enough addresses, or not enough memory for the pages that entries lie on.

    Examples
    --------
    >>> import scipy.sparse
    >>> a = from_scipy(scipy.sparse.eye_array(1 << 14), tiles="auto")
    >>> a
    <TiledArray (16384, 16384) float64 in tiles of (16, 32), 4 MiB stored of 2 GiB>
    >>> a[5, 4:7]
    array([0., 1., 0.])
    """
    sparse = needed("scipy.sparse", "from_scipy", "scipy")
    if not sparse.issparse(matrix):
        msg = f"from_scipy takes a sparse array of scipy, not {type(matrix).__name__}"
        raise TypeError(msg)
    made: SparseArray | TiledArray = zeros(matrix.shape, matrix.dtype, tiles=tiles)
    found = matrix.tocoo(copy=False)
    if not found.has_canonical_format:
        # Of its own: what it shares with the caller's is not changed by that.
        found = found.copy()
        found.sum_duplicates()
    fill_by_coordinates(made, found.coords, found.data)
    return made


def _scipy(what: str, array: Any, ndim: int | None = None) -> Any:
    """Import scipy, when it has such arrays."""
    sparse = needed("scipy.sparse", what, "scipy")
    check_numbers(array, what, "scipy")
    if array.dtype == np.float16:
        msg = f"{what}: scipy has no float16; a.astype('f4') is exact"
        raise TypeError(msg)
    if array.ndim == 0 or (ndim is not None and array.ndim != ndim):
        wanted = "at least one axis" if ndim is None else f"{ndim} axes"
        msg = f"{what}: an array of shape {array.shape}: it must have {wanted}"
        raise ValueError(msg)
    return sparse
