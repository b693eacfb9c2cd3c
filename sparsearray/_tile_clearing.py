"""Part of an array of tiles set to zero, and the tiles given back that lie in it whole."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._mover import Sides
from ._selection import positions, upwards
from ._tile_blocks import stored_tiles

if TYPE_CHECKING:
    from ._records import Records

__all__ = ["clear", "tiles_of"]


def clear(records: Records, sides: Sides) -> None:
    """Set items to zero: of stored tiles only, and give back those that lie in it whole."""
    if not prod(map(len, sides)):
        return
    tiling = records.tiling
    rows = slice(None)
    sides = [side if isinstance(side, range) else np.unique(side) for side in sides]
    if tiling.grid:
        first, last = _bounds(sides[0])
        rows = slice(first // tiling.tiles[0], last // tiling.tiles[0] + 1)
    starts, stops = stored_tiles(records, rows)
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        cuts = [
            _cut(side, low, high, tile, n)
            for side, low, high, tile, n in zip(
                sides, start, stop, tiling.tiles, tiling.shape, strict=True
            )
        ]
        for parts in product(*cuts):
            found: list[Any] = [side for side, _ in parts]
            if all(whole for _, whole in parts):
                _give_back(records, found)
            else:
                records.mover.clear(found)


def _give_back(records: Records, sides: Sequence[range]) -> None:
    """Give back whole tiles."""
    tiling = records.tiling
    tiles = [
        range(side.start // tile, (side.stop - 1) // tile + 1)
        for side, tile in zip(sides, tiling.tiles, strict=True)
    ]
    records.drop(tiles)


def tiles_of(side: Any, tile: int) -> NDArray[np.int64]:
    """Find the runs of tiles along an axis in which something is selected: starts and stops."""
    if isinstance(side, range) and abs(side.step) <= tile:
        first, last = _bounds(side)
        return np.array([[first // tile, last // tile + 1]])
    found = np.unique(np.asarray(side, np.int64) // tile)
    edges = np.flatnonzero(np.diff(found) > 1)
    return np.stack([found[np.append(0, edges + 1)], found[np.append(edges, -1)] + 1], axis=1)


def _bounds(side: Any) -> tuple[int, int]:
    """Find the first and the last item that are selected of an axis."""
    if isinstance(side, range):  # which `min` would go through item by item
        up = upwards(side)
        return up[0], up[-1]
    return int(side[0]), int(side[-1])


def _cut(side: Any, low: int, high: int, tile: int, n: int) -> list[tuple[Any, bool]]:
    """
    Cut what is selected of some tiles into parts, and say which of them are whole tiles.

    Parameters
    ----------
    side : range or sorted array
        What is selected along the axis.
    low, high : int
        Which tiles.
    tile, n : int
        Items along a tile, and along the array.
    """
    start, stop = low * tile, min(high * tile, n)
    if not isinstance(side, range):
        found = side[slice(*np.searchsorted(side, (start, stop)).tolist())]
        return [(found, False)] if len(found) else []
    up = upwards(side)
    found = up[positions(up, slice(start, stop))]
    if not len(found):
        return []
    first, last = -(-found.start // tile) * tile, found.stop // tile * tile
    if found.stop == n:
        last = n
    if found.step > 1 or first >= last:
        return [(found, False)]
    parts = [
        (range(found.start, first), False),
        (range(first, last), True),
        (range(last, found.stop), False),
    ]
    return [(part, whole) for part, whole in parts if len(part)]
