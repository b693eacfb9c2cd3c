"""Where items of an array lie, worked out item by item: to compare with what the library does."""

from __future__ import annotations

import mmap
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "item_places",
    "items_in",
    "npy_items",
    "pages_of",
    "records_nbytes",
    "tile_mates",
    "tile_step",
]

PAGE = mmap.PAGESIZE


def tile_step(itemsize: int, tiles: tuple[int, ...]) -> int:
    """Tell how far apart tiles begin: whole pages, or a power of two below."""
    nbytes = prod(tiles) * itemsize
    if nbytes >= PAGE:
        return -(-nbytes // PAGE) * PAGE
    step = 1
    while step < nbytes:
        step *= 2
    return step


@lru_cache(64)
def item_places(
    shape: tuple[int, ...], itemsize: int, tiles: tuple[int, ...] | None
) -> NDArray[np.int64]:
    """
    Find where each item begins, in bytes from the first.

    Examples
    --------
    >>> item_places((3, 4), 2, (2, 2)).tolist()
    [[0, 2, 8, 10], [4, 6, 12, 14], [16, 18, 24, 26]]
    """
    if tiles is None:
        return np.arange(prod(shape)).reshape(shape) * itemsize
    numbers = np.indices(shape)
    outer = np.zeros(shape, np.int64)
    inner = np.zeros(shape, np.int64)
    for number, n, tile in zip(numbers, shape, tiles, strict=True):
        outer = outer * -(-n // tile) + number // tile
        inner = inner * tile + number % tile
    found: NDArray[np.int64] = outer * tile_step(itemsize, tiles) + inner * itemsize
    return found


def records_nbytes(shape: tuple[int, ...], itemsize: int, tiles: tuple[int, ...] | None) -> int:
    """Tell how many bytes an array takes, padding of its tiles included."""
    if tiles is None:
        return prod(shape) * itemsize
    count = prod(-(-n // tile) for n, tile in zip(shape, tiles, strict=True))
    return count * tile_step(itemsize, tiles)


def pages_of(
    shape: tuple[int, ...], itemsize: int, tiles: tuple[int, ...] | None, key: Any
) -> set[int]:
    """Find the pages that what an index selects lies in, by number from the first item."""
    places = np.asarray(item_places(shape, itemsize, tiles)[key])
    found: set[int] = set()
    for k in range(0, itemsize + PAGE - 1, PAGE):
        found.update(np.unique((places + min(k, itemsize - 1)) // PAGE).tolist())
    return found


def tile_mates(mask: NDArray[np.bool_], tiles: tuple[int, ...] | None) -> NDArray[np.bool_]:
    """Spread what is true to all items of the same tiles."""
    if tiles is None or not mask.size:
        return mask
    outer = np.zeros(mask.shape, np.int64)
    for number, n, tile in zip(np.indices(mask.shape), mask.shape, tiles, strict=True):
        outer = outer * -(-n // tile) + number // tile
    found: NDArray[np.bool_] = np.isin(outer, np.unique(outer[mask]))
    return found


def items_in(
    pages: set[int], shape: tuple[int, ...], itemsize: int, tiles: tuple[int, ...] | None
) -> NDArray[np.bool_]:
    """Tell which items lie in some pages, or in a tile that does."""
    places = item_places(shape, itemsize, tiles)
    numbers = np.fromiter(pages, np.int64, len(pages))
    first, last = places // PAGE, (places + itemsize - 1) // PAGE
    return tile_mates(np.isin(first, numbers) | np.isin(last, numbers), tiles)


def npy_items(path: Path, shape: tuple[int, ...], tiles: tuple[int, ...] | None) -> NDArray[Any]:
    """Read the items of a file as numpy does; those of tiles are put in their places here."""
    found: NDArray[Any] = np.load(path)
    if tiles is None:
        return found
    items = found["tile"].reshape(found.shape + tiles)
    ndim = len(shape)
    order = [axis for k in range(ndim) for axis in (k, k + ndim)]
    joined = items.transpose(order).reshape(
        [n * tile for n, tile in zip(found.shape, tiles, strict=True)]
    )
    inside: Any = (*map(slice, shape), Ellipsis)
    cut: NDArray[Any] = joined[inside]
    return cut
