"""What tests of tiles in files share: an array of 16 tiles of a page each, and where its items lie."""

import mmap
import os
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np

import sparsearray
from sparsearray import TiledArray

from .array_files import DISK_PAGE
from .script_places import CODE

P = mmap.PAGESIZE
WIDTH = P // 16
SHAPE, TILES = (64, 4 * WIDTH), (16, WIDTH)

# In scripts: the same array.
PRELUDE = f"""
import faulthandler, warnings
import sparsearray
warnings.simplefilter("ignore", DeprecationWarning)  # of fork with threads
WIDTH, SHAPE, TILES, DISK_PAGE = {WIDTH}, {SHAPE}, {TILES}, {DISK_PAGE}
EXPECTED = np.kron(np.arange(1, 17).reshape(4, 4), np.ones(TILES)).astype("u1")
row, column = np.indices(SHAPE)
PLACES = (row // 16 * 4 + column // WIDTH) * P + row % 16 * WIDTH + column % WIDTH

def make(mode="r+", path="a.npy"):
    with sparsearray.open(path, "w+", dtype="u1", shape=SHAPE, tiles=TILES) as array:
        array[...] = EXPECTED
    return sparsearray.open(path, mode)

def cut(nbytes, path="a.npy"):
    os.truncate(path, DISK_PAGE + nbytes)
"""


def script(body: str) -> str:
    """Put a script together."""
    return PRELUDE + CODE + dedent(body)


def expected() -> np.ndarray:
    """Make the items: each tile is filled with its number plus one."""
    return np.kron(np.arange(1, 17).reshape(4, 4), np.ones(TILES)).astype("u1")


def make(path: Path, mode: Any = "r+") -> TiledArray:
    """Make the file, and open it."""
    with sparsearray.open(path, "w+", dtype="u1", shape=SHAPE, tiles=TILES) as array:
        array[...] = expected()
    found = sparsearray.open(path, mode, maxshape=(99, SHAPE[1]))
    assert isinstance(found, TiledArray)
    return found


def cut(path: Path, nbytes: int) -> None:
    """Leave so many bytes of the tiles."""
    os.truncate(path, DISK_PAGE + nbytes)
