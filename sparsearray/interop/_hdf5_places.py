"""Where the chunks of a dataset go that are mapped from the file, and which cannot be."""

from __future__ import annotations

import os
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsearray._binding import count_mappings, describe
from sparsearray._tiling import LARGEST_TILE, Tiling

from ._hdf5_source import Chunks

__all__ = ["Plan", "put", "read_chunk"]

_SPARE = 512  # mappings that are left to others


class Plan:
    """
    Where chunks go that are mapped.

    Tiles follow each other in whole pages, and all begin at the same byte of one: that of most
    chunks. What a page has before a chunk, or behind it, is nobody's::

        file     ...|######|######|...          buffer  ..|######|.  ..|######|.  (zero pages)
                  ^ the same byte of a page               ^ tile 0     ^ tile 1
    """

    def __init__(self, tiling: Tiling, chunks: Chunks) -> None:
        page = os.sysconf("SC_PAGESIZE")
        nbytes = prod(tiling.tiles) * tiling.dtype.itemsize
        shifts, counts = np.unique(chunks.offsets[chunks.is_plain] % page, return_counts=True)
        self.shift = int(shifts[np.argmax(counts)]) if len(shifts) else 0
        step = -(-(self.shift + nbytes) // page) * page
        mapped = chunks.is_plain & (chunks.offsets % page == self.shift)
        self.nbytes = prod(tiling.grid) * step + (page if self.shift else 0)
        is_tight = step <= min(2 * nbytes, LARGEST_TILE)
        self.is_worth_it = is_tight and mapped.sum() * 2 >= max(len(mapped), 1)
        if not self.is_worth_it:
            return
        self.tiling = Tiling(tiling.shape, tiling.tiles, tiling.dtype, step)
        self.copied = Chunks(*(part[~mapped] for part in chunks))
        self.windows = _join(chunks.numbers[mapped] * step, chunks.offsets[mapped], step, nbytes)
        mappings = count_mappings() if len(self.windows) > _SPARE else None
        if mappings is not None:
            used, limit = mappings
            pieces = 2 * (len(self.windows) + len(self.copied.numbers))
            self.is_worth_it = used + pieces + _SPARE <= limit


def _join(
    starts: NDArray[np.int64], offsets: NDArray[np.int64], step: int, nbytes: int
) -> list[tuple[int, int, int]]:
    """Make windows (offset, nbytes, file offset) of tiles; one of those that go on in the file."""
    if not len(starts):
        return []
    page = os.sysconf("SC_PAGESIZE")
    goes_on = (np.diff(starts) == step) & (np.diff(offsets) == step)
    if step != nbytes:
        goes_on[:] = False
    first = np.flatnonzero(np.append(True, ~goes_on))
    counts = np.diff(np.append(first, len(starts)))
    places = offsets[first] // page * page
    found = np.stack([starts[first], counts * step, places], axis=1).tolist()
    return [(start, length, place) for start, length, place in found]


def read_chunk(fd: int, offset: int, tiling: Tiling, name: str) -> NDArray[Any]:
    """Read a chunk that no filter has changed."""
    block: NDArray[Any] = np.empty(tiling.tiles, tiling.dtype)
    rest = block.reshape(-1).view(np.uint8).data
    while rest:
        done = os.preadv(fd, [rest], offset)
        if not done:
            msg = f"{name} is cut short: its chunk at byte {describe(offset)} ends past the file"
            raise ValueError(msg)
        rest, offset = rest[done:], offset + done
    return block


def put(tile: NDArray[Any], block: NDArray[Any]) -> NDArray[Any]:
    """Put a block into a tile, and zero bytes behind it."""
    if block.shape != tile.shape:
        tile.reshape(-1).view("u1")[:] = 0
    tile[tuple(slice(0, n) for n in block.shape)] = block
    return tile
