"""
How an array lies in tiles: their shape, where each is, and how a file says so.

Tiles follow each other in C order of the grid that they make, each in C order itself::

    a, 5 x 6 in tiles of 2 x 3       in memory, or in a file

      0  1  2 |  6  7  8              tile (0, 0)   tile (0, 1)   tile (1, 0) ...
      3  4  5 |  9 10 11             |0 1 2 3 4 5 . |6 7 8 9 10 11 . |12 13 ...
     ---------+---------              ^ each begins `tile_nbytes` after the one before
     12 13 14 | ...
"""

from __future__ import annotations

import os
from ast import literal_eval
from collections.abc import Iterable
from math import ceil, prod
from operator import index
from typing import Any

import numpy as np

__all__ = ["LARGEST_TILE", "Tiling", "as_tiles", "near_cube"]

_TITLE = "array of shape "
_FIELD = "tile"
LARGEST_TILE = (1 << 31) - 1  # bytes: what numpy has for one item


class Tiling:
    """
    How an array lies in tiles.

    Parameters
    ----------
    shape, tiles : tuple of int
        Items along each axis, of the array and of a tile.
    dtype : dtype
        Of an item.
    tile_nbytes : int, optional
        From the start of one tile to the next. By default whole pages, or for tiles smaller than
        one the next power of two: so no tile lies on more pages than it must.

    Examples
    --------
    >>> tiling = Tiling((100, 70), (64, 64), np.dtype("u1"))
    >>> tiling.grid, tiling.tile_nbytes, tiling.tile_steps, tiling.item_steps
    ((2, 2), 4096, (8192, 4096), (64, 1))
    """

    __slots__ = (
        "dtype",
        "grid",
        "item_steps",
        "places",
        "shape",
        "tile_nbytes",
        "tile_steps",
        "tiles",
    )

    def __init__(
        self,
        shape: tuple[int, ...],
        tiles: tuple[int, ...],
        dtype: np.dtype,
        tile_nbytes: int | None = None,
    ) -> None:
        natural = prod(tiles) * dtype.itemsize
        if not natural:
            msg = f"items of {dtype} have no bytes: they do not lie in tiles"
            raise ValueError(msg)
        if tile_nbytes is None:
            page = os.sysconf("SC_PAGESIZE")
            tile_nbytes = -(-natural // page) * page
            if natural < page:
                tile_nbytes = 1 << (natural - 1).bit_length()
        if tile_nbytes > LARGEST_TILE:
            msg = f"tiles {tiles} of {dtype} take {tile_nbytes} bytes each: 2 GiB is too much"
            raise ValueError(msg)
        self.shape = shape
        self.tiles = tiles
        self.dtype = dtype
        self.tile_nbytes = tile_nbytes
        self.grid = tuple(-(-n // tile) for n, tile in zip(shape, tiles, strict=True))
        axes = range(len(shape))
        self.tile_steps = tuple(tile_nbytes * prod(self.grid[k + 1 :]) for k in axes)
        self.item_steps = tuple(dtype.itemsize * prod(tiles[k + 1 :]) for k in axes)
        self.places = tuple(zip(shape, tiles, self.tile_steps, self.item_steps, strict=True))

    @property
    def is_flat(self) -> bool:
        """Whether tiles hold nothing but items of the array: memory is then a row of those."""
        whole = all(n % tile == 0 for n, tile in zip(self.shape, self.tiles, strict=True))
        return whole and self.tile_nbytes == prod(self.tiles) * self.dtype.itemsize

    def resized(self, shape: tuple[int, ...]) -> Tiling:
        """Make that of an array of another length."""
        return Tiling(shape, self.tiles, self.dtype, self.tile_nbytes)

    def record(self) -> np.dtype:
        """
        Make the dtype of a tile, which also knows the shape of the array.

        Examples
        --------
        >>> Tiling((100, 70), (64, 32), np.dtype("u2")).record()
        dtype([(('array of shape (100, 70)', 'tile'), '<u2', (64, 32))])
        """
        return np.dtype(
            {
                "names": [_FIELD],
                "titles": [f"{_TITLE}{self.shape}"],
                # Without metadata, which no file keeps.
                "formats": [
                    (np.dtype(self.dtype.str) if self.dtype.metadata else self.dtype, self.tiles)
                ],
                "offsets": [0],
                "itemsize": self.tile_nbytes,
            }
        )

    @classmethod
    def of_record(cls, record: np.dtype, grid: tuple[int, ...]) -> Tiling | None:
        """
        Read back what `record` wrote; None for the dtype of any other array.

        Raises
        ------
        ValueError
            It says one thing, and the array of tiles is of another shape.
        """
        if record.names != (_FIELD,) or record.fields is None:
            return None
        field = record.fields[_FIELD]
        title = field[2] if len(field) > 2 else None
        if not isinstance(title, str) or not title.startswith(_TITLE):
            return None
        dtype, tiles = field[0].subdtype or (field[0], ())
        try:
            shape = literal_eval(title[len(_TITLE) :])
            sizes = tuple(map(index, shape))
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            sizes = (-1,)
        if min(sizes, default=0) < 0 or len(sizes) != len(tiles) or field[1]:
            msg = f"tiles {tiles} of an {title}: damaged"
            raise ValueError(msg)
        found = cls(sizes, tiles, dtype, record.itemsize)
        if found.grid != grid:
            msg = f"{grid} tiles of shape {tiles} cannot be an {title}"
            raise ValueError(msg)
        return found


def as_tiles(tiles: Any, shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """
    Check the shape of tiles, or choose one.

    Parameters
    ----------
    tiles : int, tuple of ints or 'auto'
        Items along each axis, the same for all where it is one number. 'auto' is what fits into a
        page, as near a cube as the items allow.
    shape : tuple of ints
        Of the array.
    itemsize : int
        In bytes.

    Raises
    ------
    ValueError
        They do not fit the shape, or are less than 1.
    TypeError
        They are no integers.

    Examples
    --------
    >>> as_tiles("auto", (131072, 131072), 1), as_tiles("auto", (2048, 2048, 2048), 4)
    ((64, 64), (8, 8, 16))
    >>> as_tiles("auto", (3, 1000, 1000), 1), as_tiles(32, (100, 100), 8)
    ((3, 36, 37), (32, 32))
    """
    if isinstance(tiles, str):
        if tiles != "auto":
            msg = f"tiles must be 'auto', a number or one for each axis, not {tiles!r}"
            raise ValueError(msg)
        return near_cube(shape, max(os.sysconf("SC_PAGESIZE") // max(itemsize, 1), 1))
    if isinstance(tiles, Iterable):
        sizes = tuple(map(index, tiles))
    else:
        sizes = (index(tiles),) * len(shape)
    if len(sizes) != len(shape):
        msg = f"tiles {sizes} do not fit shape {shape}: one number for each axis"
        raise ValueError(msg)
    if min(sizes, default=1) < 1:
        msg = f"tiles {sizes}: each must be at least 1"
        raise ValueError(msg)
    return sizes


def near_cube(shape: tuple[int, ...], items: int) -> tuple[int, ...]:
    """Choose tiles of so many items at most, of sides as much alike as the shape allows."""
    sides = [1] * len(shape)
    # Short axes first, which a tile spans; what they leave is for the others.
    for done, k in enumerate(sorted(range(len(shape)), key=lambda k: shape[k])):
        side = _root(items, len(shape) - done)
        sides[k] = max(min(side, shape[k]), 1)
        items = max(items // sides[k], 1)
    # Of those, the last ones get more: their items are contiguous.
    free = [k for k, n in enumerate(shape) if sides[k] < n]
    for k, side in zip(free, sorted(sides[k] for k in free), strict=True):
        sides[k] = min(side, shape[k])
    return tuple(sides)


def _root(items: int, degree: int) -> int:
    """Find the side of a cube of so many items at most; in powers of two where they fill it."""
    if items & (items - 1) == 0:
        return 1 << (items.bit_length() - 1) // degree
    side: int = ceil(items ** (1 / degree))
    while side**degree > items:
        side -= 1
    return side
