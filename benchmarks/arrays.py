"""
What large sparse arrays cost beside dense ones of what they hold, np.memmap, cp and tar.

    python benchmarks/arrays.py [-k SUBSTRING] [--dir FOLDER]

Run it with the package installed, and 10 GiB free in FOLDER, a disk with holes. Rows are ours and
theirs in turn; the median of the ratios of the pairs is what counts. Results are compared before
they are timed. Rows of first scans say theirs / ours, which is to be large; all others ours /
theirs. A fresh file was just written: its data is in the system's cache, its holes are not. From
disk, nothing is; there the disk sets how fast the data can come.
"""

import argparse
import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import sparsearray

MIB, GIB, TIB = 1 << 20, 1 << 30, 1 << 40
PAGE = os.sysconf("SC_PAGESIZE")
RUNS, RUN = 64, 16 * MIB  # of the array with 1 GiB in it
PAGES = 20_000
SHAPE = (1 << 18, 1 << 19)  # of float64: 1 TiB


class Row(NamedTuple):
    """One line of the table."""

    work: str
    against: str
    limit: str
    measure: Callable[["Bench"], list[float]]


def seconds(work: Callable[[], Any]) -> float:
    """Time one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def pairs(ours: Callable[[], Any], theirs: Callable[[], Any], count: int = 9) -> list[float]:
    """Time both in turn, after one round that does not count."""
    ours(), theirs()
    found = []
    for i in range(count):
        first = seconds(ours) if i % 2 else None
        other = seconds(theirs)
        found.append((seconds(ours) if first is None else first) / other)
    return found


def drop_cache(path: Path) -> None:
    """Have the system forget what it keeps of a file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cached(path: Path) -> int:
    """Count the bytes of a file that the page cache keeps."""
    command = ["fincore", "--bytes", "--noheadings", "--output", "RES", str(path)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


class Bench:
    """The arrays that rows share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @functools.cached_property
    def runs(self) -> tuple[sparsearray.SparseArray, np.ndarray]:
        """A terabyte with 1 GiB in runs, and that gigabyte dense."""
        array = sparsearray.zeros(SHAPE)
        dense = np.random.default_rng(1).random(RUNS * RUN // 8)
        for i, part in enumerate(dense.reshape(RUNS, -1, SHAPE[1])):
            array[i * 4000 : i * 4000 + len(part)] = part
        return array, dense

    @functools.cached_property
    def pages(self) -> tuple[sparsearray.SparseArray, np.ndarray]:
        """A terabyte with 20,000 pages here and there, and those pages dense."""
        array = sparsearray.zeros(SHAPE)
        random = np.random.default_rng(2)
        items = PAGE // 8
        dense = random.random(PAGES * items)
        places = random.choice(array.size // items // 2, PAGES, replace=False) * 2  # none touch
        places.sort()
        flat = array.buffer.window(0, array.size, "f8")
        for place, part in zip(places.tolist(), dense.reshape(PAGES, items), strict=True):
            flat[place * items : (place + 1) * items] = part
        return array, dense

    def write_file(self, *, cold: bool) -> Path:
        """Write a sparse file of 8 GiB, with 64 MiB of data in 64 places; or have it forgotten."""
        path = self.folder / "sparse.npy"
        if not cold or not path.exists():
            array = sparsearray.zeros(GIB)
            for i in range(64):
                start = i * (GIB // 64) + 12_288
                array[start : start + MIB // 8] = np.arange(i, i + MIB // 8)
            array.save(path)
        if cold:
            drop_cache(path)
        return path

    @functools.cached_property
    def saved(self) -> Path:
        """The terabyte with 1 GiB in runs, saved."""
        path = self.folder / "runs.npy"
        sparsearray.save(path, self.runs[0])
        return path


def first_scan(bench: Bench, ours: Callable[[Path], float], *, cold: bool) -> list[float]:
    """Theirs / ours of the first scan of a file, and what ours leaves in the page cache."""
    found = []
    for _ in range(3):
        path = bench.write_file(cold=cold)
        one = time.perf_counter()
        value = ours(path)
        one = time.perf_counter() - one
        kept = cached(path)
        path = bench.write_file(cold=cold)
        two = time.perf_counter()
        expected = np.load(path, mmap_mode="r").max()
        two = time.perf_counter() - two
        assert value == expected
        found.append(two / one)
        drop_cache(path)
    print(f"    (page cache after ours: {kept / MIB:.0f} MiB of 64 MiB of data in 8 GiB)")
    return found


def scan_window(path: Path) -> float:
    """As a plain ndarray."""
    return float(sparsearray.open(path)[...].max())


def scan_extents(path: Path) -> float:
    """With numpy's function on the array."""
    return float(np.max(sparsearray.open(path)))


def sum_runs(bench: Bench) -> list[float]:
    """Sum of what is stored."""
    array, dense = bench.runs
    assert np.isclose(np.sum(array), dense.sum())
    return pairs(lambda: np.sum(array), lambda: np.sum(dense))


def sum_pages(bench: Bench) -> list[float]:
    """Sum of many small extents."""
    array, dense = bench.pages
    assert np.isclose(np.sum(array), dense.sum())
    return pairs(lambda: np.sum(array), lambda: (np.sum(dense), array.extents()))


def save(bench: Bench, *command: str) -> list[float]:
    """Save, with what a command does to the same file; both until the disk has it."""
    array, path = bench.runs[0], bench.saved
    target = bench.folder / "copy"

    def theirs() -> None:
        subprocess.run([part.format(path, target) for part in command], check=True)
        with target.open("rb") as file:
            os.fsync(file.fileno())

    found = pairs(lambda: sparsearray.save(bench.folder / "again.npy", array), theirs, 5)
    (bench.folder / "again.npy").unlink()
    target.unlink()
    return found


def open_and_sum(bench: Bench) -> list[float]:
    """Open the saved file and sum it, in the page cache."""
    dense, path = bench.runs[1], bench.saved

    def ours() -> float:
        with sparsearray.open(path) as array:
            return float(np.sum(array))

    assert np.isclose(ours(), dense.sum())
    return pairs(ours, lambda: np.sum(dense))


def multiply(bench: Bench) -> list[float]:
    """An element-wise function."""
    array, dense = bench.runs
    made = array * 2
    assert np.isclose(np.sum(made), 2 * dense.sum())
    del made
    return pairs(lambda: array * 2, lambda: dense * 2)


def peak_memory(bench: Bench) -> list[float]:
    """Peak of a process that makes, sums, saves, opens and multiplies, beside what it writes."""
    script = """
import re, sys, numpy as np, sparsearray
def peak():  # of this process alone: getrusage starts with what its parent had
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) << 10
before = peak()
a = sparsearray.zeros((1 << 18, 1 << 19))
for i in range(64):
    a[4000 * i : 4000 * i + 4] = np.arange(1 << 19)
assert np.sum(a) == 256 * ((1 << 19) - 1) * (1 << 18)
a.save(sys.argv[1])
with sparsearray.open(sys.argv[1]) as b:
    assert b.max() == (1 << 19) - 1
c = a * 2
assert c.max() == 2 * ((1 << 19) - 1)
print(peak() - before)
"""
    command = [sys.executable, "-P", "-c", script, str(bench.folder / "peak.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [(int(done.stdout) - 64 * MIB) / (2 * GIB)]  # a, and a * 2


ROWS = [
    Row("first scan of a fresh file, window", "np.load(mmap_mode='r').max()", ">= 50",
        lambda bench: first_scan(bench, scan_window, cold=False)),
    Row("first scan of a fresh file, np.max", "np.load(mmap_mode='r').max()", ">= 1000",
        lambda bench: first_scan(bench, scan_extents, cold=False)),
    Row("first scan from disk, window", "np.load(mmap_mode='r').max()", ">= 50",
        lambda bench: first_scan(bench, scan_window, cold=True)),
    Row("first scan from disk, np.max", "np.load(mmap_mode='r').max()", ">= 1000",
        lambda bench: first_scan(bench, scan_extents, cold=True)),
    Row("sum, 1 TiB with 1 GiB in runs", "sum of 1 GiB", "<= 1.2", sum_runs),
    Row("sum, 1 TiB with 20,000 pages", "sum of 80 MB + extents", "<= 2", sum_pages),
    Row("save", "cp --sparse=always", "<= 1.2",
        lambda bench: save(bench, "cp", "--sparse=always", "{0}", "{1}")),
    Row("save", "tar --sparse", "<= 1.2",
        lambda bench: save(bench, "tar", "--sparse", "-Pcf", "{1}", "{0}")),
    Row("open + sum", "sum of 1 GiB", "<= 1.3", open_and_sum),
    Row("a * 2", "dense * 2", "<= 1.3", multiply),
    Row("peak memory - 64 MiB", "data written", "<= 1.3", peak_memory),
]  # fmt: skip


def met(ratio: float, limit: str) -> bool:
    """Whether a ratio is within its limit."""
    sign, number = limit.split()
    return ratio >= float(number) if sign == ">=" else ratio <= float(number)


def chosen(substring: str) -> Iterator[Row]:
    """Rows with a substring."""
    return (row for row in ROWS if substring in f"{row.work} {row.against}")


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description="Measure large sparse arrays.")
    parser.add_argument("-k", default="", help="rows that have this in their name only")
    parser.add_argument("--dir", default=None, help="where files are made")
    options = parser.parse_args()
    print(f"{'work':35} {'against':30} {'ratio':>9} {'min..max':>19} {'to reach':>8}")
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        bench = Bench(Path(folder))
        for row in chosen(options.k):
            found = row.measure(bench)
            middle = statistics.median(found)
            spread = f"{min(found):.2f}..{max(found):.2f}"
            verdict = "ok" if met(middle, row.limit) else "MISSED"
            print(
                f"{row.work:35} {row.against:30} {middle:9.2f} {spread:>19} {row.limit:>8}",
                verdict,
                flush=True,
            )


if __name__ == "__main__":
    main()
