"""
What SparseBuffer costs beside the bare calls under it, numpy and np.memmap.

    python benchmarks/core.py [-k SUBSTRING] [--quick] [--dir FOLDER]

Each row runs ours and theirs in turn, in one process, and prints the median of the ratios ours /
theirs of the pairs, the middle half of them, and the median time of each side for one operation.
Results are checked before anything is timed. The C side is compiled with ``cc``.
"""

import argparse
import ctypes
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparsearray import AccessError, SparseBuffer

MIB = 1 << 20
TIB = 1 << 40
PAGE = os.sysconf("SC_PAGESIZE")
FILE_AT = 512 * MIB  # where the file window begins in the common buffer
SIZE = 256 * MIB

BARE_CALLS = r"""
#define _GNU_SOURCE
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

#define NONE MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
#define FIXED NONE | MAP_FIXED

double reserve_and_alloc(uint64_t nbytes, int count, int give_back) {
    double sum = 0;
    for (int i = 0; i < count; i++) {
        double start = now();
        char *p = mmap(0, nbytes, PROT_NONE, NONE, -1, 0);
        if (p == MAP_FAILED || mmap(p, nbytes, PROT_READ | PROT_WRITE, FIXED, -1, 0) != p)
            return -1;
        if (!give_back) sum += now() - start;
        if (munmap(p, nbytes)) return -1;
        if (give_back) sum += now() - start;
    }
    return sum / count;
}

/* Seconds for each thousand. */
int single_pages(const int32_t *order, int count, int64_t page, double *thousands) {
    char *p = mmap(0, count * page, PROT_NONE, NONE, -1, 0);
    if (p == MAP_FAILED) return -1;
    for (int i = 0; i < count; i++) {
        if (i % 1000 == 0) thousands[i / 1000] = now();
        if (mmap(p + order[i] * page, page, PROT_READ | PROT_WRITE, FIXED, -1, 0) == MAP_FAILED)
            return -1;
    }
    thousands[count / 1000] = now();
    for (int i = 0; i < count / 1000; i++) thousands[i] = thousands[i + 1] - thousands[i];
    return munmap(p, count * page);
}
"""

Work = Callable[[], object]


class Row(NamedTuple):
    """One line of the table."""

    work: str
    against: str
    limit: float
    ratios: list[float]
    ours: float
    theirs: float


def time_of(work: Work, count: int) -> float:
    """Seconds for one call, over `count` of them."""
    start = time.perf_counter()
    for _ in range(count):
        work()
    return (time.perf_counter() - start) / count


def side_by_side(ours: Work, theirs: Work, rounds: int, seconds: float = 0.005) -> tuple:
    """Time both in turn: the ratios of the pairs, and the median of each side."""
    count = max(1, int(seconds / max(time_of(ours, 1), time_of(theirs, 1), 1e-7)))
    pairs = []
    for i in range(rounds):
        if i % 2:
            b, a = time_of(theirs, count), time_of(ours, count)
        else:
            a, b = time_of(ours, count), time_of(theirs, count)
        pairs.append((a, b))
    ratios = [a / b for a, b in pairs]
    return ratios, *(statistics.median(side) for side in zip(*pairs, strict=True))


class Bench:
    """The buffer, files and compiled calls that rows share."""

    def __init__(self, folder: Path, rounds: int) -> None:
        self.rounds = rounds
        self.folder = folder
        self.path = folder / "data.bin"
        rng = np.random.default_rng(1)
        data = rng.integers(0, 256, SIZE, dtype="u1")
        data.tofile(self.path)
        self.buffer = SparseBuffer(1 << 30)
        self.buffer.alloc(0, SIZE)
        self.buffer[:SIZE][:] = data
        self.buffer.map_file(FILE_AT, SIZE, self.path, writable=True)
        self.places = {"private": 0, "file": FILE_AT}
        self.data = data
        source = folder / "bare.c"
        source.write_text(BARE_CALLS)
        library = folder / "bare.so"
        compiler = shutil.which("cc") or sys.exit("a C compiler, cc, is needed for the bare calls")
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
        self.bare = ctypes.CDLL(str(library))
        self.bare.reserve_and_alloc.restype = ctypes.c_double

    def row(self, work: str, against: str, limit: float, ours: Work, theirs: Work) -> Row:
        """Time one row."""
        return Row(work, against, limit, *side_by_side(ours, theirs, self.rounds))

    def reserve_and_alloc(self) -> Iterator[Row]:
        """Take a terabyte of writable memory."""

        def with_close() -> None:
            buffer = SparseBuffer(TIB)
            buffer.alloc(0, TIB)
            buffer.close()

        buffer = SparseBuffer(TIB)
        buffer.alloc(0, TIB)
        buffer.write_at(TIB - 1, b"x")
        assert buffer.read_at(TIB - 1, 1) == b"x"
        buffer.close()
        pairs = []
        for _ in range(self.rounds):
            ours = time_of(with_close, 500)
            pairs.append((ours, self.bare.reserve_and_alloc(ctypes.c_uint64(TIB), 500, 1)))
        yield self._from_pairs("reserve + alloc 1 TiB, and close", "2 mmap, munmap in C", 3, pairs)
        pairs = []
        for _ in range(self.rounds):
            total = 0.0
            for _ in range(500):
                start = time.perf_counter()
                buffer = SparseBuffer(TIB)
                buffer.alloc(0, TIB)
                total += time.perf_counter() - start
                buffer.close()
            bare = self.bare.reserve_and_alloc(ctypes.c_uint64(TIB), 500, 0)
            pairs.append((total / 500, bare))
        yield self._from_pairs("reserve + alloc 1 TiB", "2 mmap in C", 3, pairs)

    @staticmethod
    def _from_pairs(work: str, against: str, limit: float, pairs: list) -> Row:
        assert all(theirs > 0 for _, theirs in pairs)
        ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
        return Row(work, against, limit, [a / b for a, b in pairs], ours, theirs)

    def copies(self) -> Iterator[Row]:
        """Copy between the buffer and an array of the user's."""
        limits = {64 << 10: {"private": 1.1, "file": 1.3}}
        for nbytes in (64 << 10, MIB, 64 * MIB):
            size = f"{nbytes >> 20} MiB" if nbytes >= MIB else f"{nbytes >> 10} KiB"
            for kind, at in self.places.items():
                limit = limits.get(nbytes, {}).get(kind, 1.05)
                window = self.buffer.window(at, nbytes)
                array = np.empty(nbytes, "u1")
                self.buffer.read_into(at, array)
                assert np.array_equal(array, window)
                yield self.row(
                    f"read_into, {kind}, {size}",
                    "numpy.copyto",
                    limit,
                    lambda at=at, array=array: self.buffer.read_into(at, array),
                    lambda window=window, array=array: np.copyto(array, window),
                )
                self.buffer.write_at(at, array)
                assert np.array_equal(array, window)
                yield self.row(
                    f"write_at, {kind}, {size}",
                    "numpy.copyto",
                    limit,
                    lambda at=at, array=array: self.buffer.write_at(at, array),
                    lambda window=window, array=array: np.copyto(window, array),
                )

    def fill(self) -> Iterator[Row]:
        """Set 64 MiB to one value."""
        spare = SparseBuffer(64 * MIB)
        spare.alloc(0, 64 * MIB)
        window = spare[:]
        spare.fill_at(0, 7, 64 * MIB)
        assert (window == 7).all()
        yield self.row(
            "fill_at, 64 MiB",
            "ndarray.fill",
            1.05,
            lambda: spare.fill_at(0, 9, 64 * MIB),
            lambda: window.fill(9),
        )

    def plain(self) -> Iterator[Row]:
        """Read one record."""
        record = np.dtype([("kind", "u1"), ("size", "<u4"), ("name", "V9")])
        word = np.dtype("u8")
        records = np.memmap(self.path, record, "r", shape=1000)
        words = np.memmap(self.path, word, "r", shape=1000)
        buffer = self.buffer
        for kind, at in self.places.items():
            assert buffer.read_plain(at + 5 * 14, record) == records[5]
            yield self.row(
                f"read_plain of 14 bytes, {kind}",
                "memmap[i].copy()",
                0.8,
                lambda at=at: buffer.read_plain(at + 5 * 14, record),
                lambda: records[5].copy(),  # noqa: PLW0108 -- indexing is part of it
            )
        for kind, at in self.places.items():
            assert buffer.read_plain(at + 5 * 8, word) == words[5]
            yield self.row(
                f"read_plain of a uint64, {kind}",
                "int(memmap[i])",
                2,
                lambda at=at: buffer.read_plain(at + 5 * 8, word),
                lambda: int(words[5]),
            )

    def gather(self) -> Iterator[Row]:
        """Read a million records in random order."""
        rng = np.random.default_rng(2)
        for dtype in (np.dtype("u8"), np.dtype([("a", "u8"), ("b", "u8")])):
            for kind, at in self.places.items():
                window = self.buffer.window(at, SIZE // dtype.itemsize, dtype)
                items = rng.integers(0, len(window), 1_000_000)
                offsets = at + items * dtype.itemsize
                assert np.array_equal(self.buffer.gather(offsets, dtype), window[items])
                yield self.row(
                    f"gather of 10^6 x {dtype.itemsize} bytes, {kind}",
                    "window[items]",
                    1,
                    lambda offsets=offsets, dtype=dtype: self.buffer.gather(offsets, dtype),
                    lambda window=window, items=items: window[items],
                )

    def window(self) -> Iterator[Row]:
        """Make an array over memory, and drop it."""
        assert np.array_equal(self.buffer.window(0, 4096), self.data[:4096])
        yield self.row(
            "window of 4096 bytes",
            "np.memmap",
            0.2,
            lambda: self.buffer.window(0, 4096),
            lambda: np.memmap(self.path, "u1", "r", shape=4096),
        )
        yield self.row(
            "window of 64 x 64 float32",
            "np.memmap",
            0.2,
            lambda: self.buffer.window(0, (64, 64), "f4"),
            lambda: np.memmap(self.path, "f4", "r", shape=(64, 64)),
        )

    def pages(self) -> Iterator[Row]:
        """Allocate 30,000 pages one by one in random order."""
        count = 30_000
        order = list(range(count))
        random.Random(3).shuffle(order)
        items = (ctypes.c_int32 * count)(*order)
        pairs, growth = [], []
        for _ in range(max(3, self.rounds // 8)):
            marks = (ctypes.c_double * (count // 1000 + 1))()
            code = self.bare.single_pages(items, count, ctypes.c_int64(PAGE), marks)
            assert code == 0
            buffer = SparseBuffer(count * PAGE)
            times = []
            for first in range(0, count, 1000):
                start = time.perf_counter()
                for page in order[first : first + 1000]:
                    buffer.alloc(page * PAGE, PAGE)
                times.append(time.perf_counter() - start)
            assert [region.nbytes for region in buffer.regions] == [count * PAGE]
            assert mappings_in(buffer) <= 2  # the pages, and what the reservation has beyond them
            buffer.close()
            pairs.append((sum(times) / count, sum(marks[: count // 1000]) / count))
            growth.append((times[-1] / 1000, times[0] / 1000))
        yield self._from_pairs("30,000 alloc of a page", "mmap in C", 2, pairs)
        yield self._from_pairs("the last 1,000 of them", "the first 1,000", 2, growth)

    def error(self) -> Iterator[Row]:
        """Be refused."""
        buffer, array = SparseBuffer(PAGE), np.zeros(10)

        def ours() -> bool:
            try:
                buffer.read_at(0, 8)
            except AccessError:
                return True
            return False

        def theirs() -> bool:
            try:
                array[20]
            except IndexError:
                return True
            return False

        assert ours()
        assert theirs()
        yield self.row("AccessError of a hole", "IndexError of an ndarray", 10, ours, theirs)


def mappings_in(buffer: SparseBuffer) -> int:
    """Count the kernel's mappings inside a buffer."""
    count = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, stop = (int(text, 16) for text in line.split()[0].split("-"))
        count += start >= buffer.address and stop <= buffer.address + buffer.reserved
    return count


def report(row: Row) -> None:
    """Print one line."""
    ratio = statistics.median(row.ratios)
    times = " / ".join(
        f"{seconds * 1e6:.2f}" if seconds < 1e-3 else f"{seconds * 1e6:.0f}"
        for seconds in (row.ours, row.theirs)
    )
    low, _, high = statistics.quantiles(row.ratios, n=4)
    spread = f"{low:.2f}..{high:.2f}"
    verdict = "ok" if ratio <= row.limit else "MISSED"
    print(
        f"{row.work:34} {row.against:25} {ratio:6.2f} {spread:>13} {row.limit:6.2f}  "
        f"{verdict:6} {times:>17}",
        flush=True,
    )


def main() -> None:
    """Run the rows that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("-k", metavar="SUBSTRING", default="", help="only groups of this name")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--dir", type=Path, help="folder for the file (default: the system's)")
    arguments = parser.parse_args()
    groups = ("reserve_and_alloc", "copies", "fill", "plain", "gather", "window", "pages", "error")
    header = ("work", "against", "ratio", "middle half", "limit", "", "us, ours / theirs")
    print("{:34} {:25} {:>6} {:>13} {:>6}  {:6} {:>17}".format(*header))
    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
        bench = Bench(Path(folder), 9 if arguments.quick else 61)
        for group in groups:
            if arguments.k in group:
                for row in getattr(bench, group)():
                    report(row)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
