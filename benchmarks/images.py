"""
What core dumps and sparse images cost beside struct and mmap.

    python benchmarks/images.py [-k SUBSTRING] [--dir FOLDER]

Run it with the package installed, and 2 GiB free in FOLDER, a disk with holes. Ours and theirs in
turn; the median of the ratios theirs / ours of the pairs is what counts. Results are compared
before they are timed. All files are in the system's cache.
"""

import argparse
import functools
import mmap
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from side_by_side import SkipError, pairs

from sparsearray.images import Image, open_elf, open_raw

MIB, GIB = 1 << 20, 1 << 30
RECORDS = 1_000_000
RECORD = np.dtype([("key", "<u8"), ("size", "<u4"), ("kind", "<u4")])
AREAS, AREA = 64, 100 * MIB // 64  # of the process that dumps core
RUNS, RUN = 64, MIB  # of data in the sparse image
NEEDLE = b"\x00needle\x00in the hay\x00"

# Memory of its own in many mappings, between which there are gaps.
PROCESS = """
import mmap, os, sys
kept = []
for i in range({areas}):
    kept.append(mmap.mmap(-1, {area}))
    kept[-1].write(os.urandom({area}))
    kept.append(mmap.mmap(-1, 65536, prot=mmap.PROT_READ))
os.abort()
"""


class Row(NamedTuple):
    """One line of the table."""

    work: str
    against: str
    limit: float
    measure: Callable[["Bench"], list[tuple[float, float]]]


class Bench:
    """The files that rows share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @functools.cached_property
    def core(self) -> Path:
        """The core of a process with 100 MiB of its own."""
        script = PROCESS.format(areas=AREAS, area=AREA)

        def allow() -> None:
            hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
            resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))

        subprocess.run(
            [sys.executable, "-P", "-c", script],
            cwd=self.folder,
            preexec_fn=allow,
            check=False,
        )
        found = sorted(self.folder.glob("core*"))
        if not found:
            raise SkipError("the system writes no core files here: see core(5)")
        return found[0]

    @functools.cached_property
    def sparse(self) -> Path:
        """A file of 1 GiB with 64 MiB of data, in which the needle is near the end."""
        path = self.folder / "sparse"
        random = np.random.default_rng(1)
        with path.open("wb") as file:
            file.truncate(GIB)
            for i in range(RUNS):
                file.seek(i * (GIB // RUNS) + 3 * MIB)
                file.write(random.bytes(RUN))
            for place in (5 * MIB, GIB - 5 * MIB):
                file.seek(place)
                file.write(NEEDLE)
        return path


def gather_by_loop(
    memory: mmap.mmap, segments: list[tuple[int, int, int]], addresses: list[int]
) -> list[tuple[int, int, int]]:
    """Read records with struct: (address, stop, file offset) of the segments, sorted."""
    starts = [one[0] for one in segments]
    unpack, size = struct.Struct("<QII").unpack_from, RECORD.itemsize
    found = []
    for address in addresses:
        start, stop, offset = segments[bisect_right(starts, address) - 1]
        if not start <= address <= stop - size:
            raise ValueError(hex(address))
        found.append(unpack(memory, address - start + offset))
    return found


def gather(bench: Bench, *, in_order: bool) -> list[tuple[float, float]]:
    """Records at random addresses of all that the core holds."""
    with open_elf(bench.core) as image, bench.core.open("rb") as file:
        segments = sorted(
            (one.address, one.address + one.nbytes_in_file, one.file_offset or 0)
            for one in image.segments
            if one.nbytes_in_file >= AREA
        )
        random = np.random.default_rng(2)
        chosen = np.array([one[:2] for one in segments], np.uint64)
        chosen = chosen[random.integers(0, len(chosen), RECORDS)]
        room = chosen[:, 1] - chosen[:, 0] - np.uint64(RECORD.itemsize)
        addresses = chosen[:, 0] + (random.random(RECORDS) * room).astype(np.uint64)
        if in_order:
            addresses.sort()
        numbers = addresses.tolist()
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
            theirs = functools.partial(gather_by_loop, memory, segments, numbers)
            ours = functools.partial(image.gather, addresses, RECORD)
            expected = np.array([struct.pack("<QII", *one) for one in theirs()], "V16")
            assert np.array_equal(ours().view("V16"), expected)
            return pairs(ours, theirs)


def find_all(memory: mmap.mmap, needle: bytes) -> list[int]:
    """Find all places with mmap.find."""
    found = [memory.find(needle)]
    while found[-1] >= 0:
        found.append(memory.find(needle, found[-1] + 1))
    return found[:-1]


def search(bench: Bench, needle: bytes) -> list[tuple[float, float]]:
    """Search the sparse image."""
    base = 0xFFFF_8000_0000_0000
    with bench.sparse.open("rb") as file, open_raw([(base, file, 0, GIB)]) as image:

        def ours(image: Image = image) -> list[int]:
            return [address - base for address in image.search(needle)]

        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
            assert ours() == find_all(memory, needle)
            return pairs(ours, lambda: find_all(memory, needle), 5)


ROWS = [
    Row("1,000,000 records of a core, any order", "struct.unpack_from in a loop", 20,
        lambda bench: gather(bench, in_order=False)),
    Row("1,000,000 records of a core, sorted", "struct.unpack_from in a loop", 20,
        lambda bench: gather(bench, in_order=True)),
    Row("search of 64 MiB in 1 GiB, 20 bytes", "mmap.find", 5,
        lambda bench: search(bench, NEEDLE)),
    Row("search of 64 MiB in 1 GiB, 8 bytes", "mmap.find", 5,
        lambda bench: search(bench, NEEDLE[:8])),
    Row("search of 64 MiB in 1 GiB, 4 bytes", "mmap.find", 5,
        lambda bench: search(bench, NEEDLE[1:5])),
]  # fmt: skip


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description="Measure images.")
    parser.add_argument("-k", default="", help="rows that have this in their name only")
    parser.add_argument("--dir", default=None, help="where files are made")
    options = parser.parse_args()
    print(
        f"{'work':39} {'against':29} {'ratio':>7} {'min..max':>15} {'to reach':>8} "
        f"{'ours':>8} {'theirs':>8}"
    )
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        bench = Bench(Path(folder))
        for row in ROWS:
            if options.k not in f"{row.work} {row.against}":
                continue
            try:
                found = row.measure(bench)
            except SkipError as error:
                print(f"{row.work:39} skipped: {error}")
                continue
            ratios = [theirs / ours for ours, theirs in found]
            middle = statistics.median(ratios)
            ours, theirs = (1000 * statistics.median(side) for side in zip(*found, strict=True))
            print(
                f"{row.work:39} {row.against:29} {middle:7.1f} "
                f"{f'{min(ratios):.1f}..{max(ratios):.1f}':>15} {f'>= {row.limit:g}':>8} "
                f"{ours:5.1f} ms {theirs:5.0f} ms",
                "ok" if middle >= row.limit else "MISSED",
                flush=True,
            )


if __name__ == "__main__":
    main()
