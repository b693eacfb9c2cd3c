"""
Allocate pages one by one in random order: a process of its own for each run of core.py's row.

    python benchmarks/single_pages.py ours|theirs SEED LIBRARY

Prints JSON: seconds for each thousand, and the mappings that the kernel is left with.
"""

import ctypes
import json
import os
import random
import sys
import time
from pathlib import Path

from side_by_side import load_bare, mappings_in

from sparsearray import SparseBuffer

PAGE = os.sysconf("SC_PAGESIZE")
PAGES = 30_000


def ours(offsets: list[int]) -> tuple[list[float], int, SparseBuffer]:
    """Allocate in a buffer."""
    buffer = SparseBuffer(len(offsets) * PAGE)
    thousands = []
    for first in range(0, len(offsets), 1000):
        part = offsets[first : first + 1000]
        start = time.perf_counter()
        for offset in part:
            buffer.alloc(offset, PAGE)
        thousands.append(time.perf_counter() - start)
    mappings = mappings_in(buffer.address, buffer.address + buffer.nbytes)
    return thousands, mappings, buffer


def theirs(bare: ctypes.CDLL, offsets: list[int]) -> tuple[list[float], int]:
    """Allocate with bare calls."""
    count = len(offsets)
    thousands = (ctypes.c_double * (count // 1000))()
    address = bare.single_pages((ctypes.c_int64 * count)(*offsets), count, PAGE, thousands)
    assert address, "mmap failed"
    return list(thousands), mappings_in(address, address + count * PAGE)


def main() -> None:
    """Warm up with a thousand pages elsewhere, and run one side."""
    side, seed, library = sys.argv[1:]
    offsets = [page * PAGE for page in range(PAGES)]
    random.Random(int(seed)).shuffle(offsets)
    warm_up = sorted(offsets)[:1000]
    if side == "ours":
        ours(warm_up)
        thousands, mappings, buffer = ours(offsets)
        assert [region[:3] for region in buffer.regions] == [(0, PAGES * PAGE, "private")]
        bytes_of_pages = buffer[::PAGE]
        bytes_of_pages += 1
        assert (bytes_of_pages == 1).all(), "not all pages are new memory"
    else:
        bare = load_bare(Path(library))
        theirs(bare, warm_up)
        thousands, mappings = theirs(bare, offsets)
    print(json.dumps({"thousands": thousands, "mappings": mappings}))


if __name__ == "__main__":
    main()
