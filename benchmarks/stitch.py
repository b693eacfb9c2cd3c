"""
What many files as one array cost, beside np.concatenate of memmaps and dask.array.

    python benchmarks/stitch.py [-k SUBSTRING] [--dir FOLDER]

Run it with the package and the `bench` dependency group installed, and 2 GiB free in FOLDER: there
are 2,000 files of 1 MiB, just written, so that they are in the system's cache. Rows are ours and
theirs in turn, opening the files included; the median of the ratios of the pairs is what counts,
and results are compared before they are timed. Rows of sums say theirs / ours, which is to be
large; the one of opening ours / theirs. Of dask, the better of two ways is measured. The rows of
memory are in processes of their own: the peak of what is the process's alone, without the pages of
files that it shares with the system's cache; and of all of it, beside the 2,000 MiB of the files.
"""

import argparse
import functools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from side_by_side import pairs, seconds

import sparsearray

MIB = 1 << 20
FILES = 2000
ITEMS = MIB // 8  # float64 in each


class Row(NamedTuple):
    """One line of the table."""

    work: str
    against: str
    limit: str
    measure: Callable[[list[str]], list[float]]


def make_files(folder: Path) -> list[str]:
    """Write the files: whole numbers, so that sums are exact in any order."""
    paths = []
    for n in range(FILES):
        paths.append(str(folder / f"{n:04}.raw"))
        np.full(ITEMS, n % 100, "f8").tofile(paths[-1])
    return paths


EXPECTED = float(sum(n % 100 for n in range(FILES)) * ITEMS)


# Ways to sum all of it


def stitched(paths: list[str]) -> float:
    """Ours."""
    with sparsearray.stitch(paths, "f8") as array:
        return float(array.sum())


def stitched_window(paths: list[str]) -> float:
    """Ours, as a plain ndarray."""
    array = sparsearray.stitch(paths, "f8")
    return float(array[...].sum())


def memmaps(paths: list[str]) -> list[np.ndarray]:
    """What people open many files with."""
    return [np.memmap(path, "f8", "r") for path in paths]


def concatenated(paths: list[str]) -> float:
    """One array in memory."""
    return float(np.concatenate(memmaps(paths)).sum())


def dask_of_memmaps(paths: list[str]) -> float:
    """A chunk for each memmap."""
    import dask.array as da

    parts = [da.from_array(part, chunks=-1, name=False) for part in memmaps(paths)]
    return float(da.concatenate(parts).sum().compute())


def dask_of_files(paths: list[str]) -> float:
    """A chunk for each file, opened when its turn comes."""
    import dask.array as da
    from dask import delayed

    read = delayed(np.memmap, pure=False)
    parts = [da.from_delayed(read(path, "f8", "r"), (ITEMS,), "f8") for path in paths]
    return float(da.concatenate(parts).sum().compute())


def better_dask(paths: list[str]) -> Callable[[list[str]], float]:
    """Find which of the two is faster here."""
    return min(
        (dask_of_memmaps, dask_of_files),
        key=lambda way: min(seconds(lambda: way(paths)) for _ in "12"),
    )


def faster(
    paths: list[str], ours: Callable[[list[str]], float], theirs: Any, count: int
) -> list[float]:
    """Theirs / ours."""
    assert ours(paths) == theirs(paths) == EXPECTED
    found = pairs(lambda: ours(paths), lambda: theirs(paths), count)
    return [other / own for own, other in found]


def against_dask(paths: list[str]) -> list[float]:
    """Theirs / ours, with the better of two ways."""
    way = better_dask(paths)
    print(f"    (the better of two ways: {way.__name__})")
    return faster(paths, stitched, way, 5)


def opening(paths: list[str]) -> list[float]:
    """Ours / theirs: nothing is read."""
    array, parts = sparsearray.stitch(paths, "f8"), memmaps(paths)
    assert array.nbytes_copied == 0
    assert (array[::ITEMS] == [part[0] for part in parts]).all()
    del array, parts
    found = []
    for i in range(25):
        times = []
        for way in (0, 1) if i % 2 else (1, 0):
            start = time.perf_counter()
            held: Any = memmaps(paths) if way else sparsearray.stitch(paths, "f8")
            times.append((way, time.perf_counter() - start))
            del held  # is not what is measured
        own, other = (dict(times)[way] for way in (0, 1))
        found.append(own / other)
    return found


# Memory

PEAK = """
import re, sys, threading, time
sys.path.insert(0, sys.argv[1])
import stitch
def status(*names):
    text = open("/proc/self/status").read()
    return sum(int(re.search(name + r":\\s+(\\d+) kB", text)[1]) << 10 for name in names)
way = getattr(stitch, sys.argv[2])
paths = sys.stdin.read().split("\\n")
way(paths[:3]) if "dask" in sys.argv[2] else None  # its imports
before, most, done = status("RssAnon"), 0, False
def watch():
    global most
    while not done:
        most = max(most, status("RssAnon"))
        time.sleep(0.002)
watcher = threading.Thread(target=watch)
watcher.start()
assert way(paths) == stitch.EXPECTED
done = True
watcher.join()
print(most - before, status("VmHWM"))
"""


@functools.cache
def peak(way: str, paths: tuple[str, ...]) -> tuple[int, int]:
    """Measure a way in a process of its own: what is its own, and all that it shows."""
    command = [sys.executable, "-P", "-c", PEAK, str(Path(__file__).parent), way]
    done = subprocess.run(
        command, input="\n".join(paths), capture_output=True, text=True, check=True
    )
    own, shown = map(int, done.stdout.split())
    return own, shown


def own_memory(paths: list[str], way: str) -> list[float]:
    """Tell the peak of what is the process's own, beside the files' length."""
    own, shown = peak(way, tuple(paths))
    print(
        f"    ({way}: {own / MIB:.1f} MiB of its own, "
        f"{shown / MIB:.0f} MiB with what it shows of files)"
    )
    return [own / (FILES * MIB)]


def shown_memory(paths: list[str], way: str) -> list[float]:
    """Tell the peak of all that the process shows, beside the files' length."""
    return [peak(way, tuple(paths))[1] / (FILES * MIB)]


ROWS = [
    Row("stitch and sum", "np.concatenate of memmaps", ">= 3",
        lambda paths: faster(paths, stitched, concatenated, 5)),
    Row("stitch and sum of a window", "np.concatenate of memmaps", ">= 3",
        lambda paths: faster(paths, stitched_window, concatenated, 5)),
    Row("stitch and sum", "dask.array", ">= 3", against_dask),
    Row("opening", "2,000 np.memmap", "<= 1", opening),
    Row("own memory, stitch and sum", "the files", "<= 0.02",
        lambda paths: own_memory(paths, "stitched")),
    Row("shown memory, stitch and sum", "the files", "<= 0.1",
        lambda paths: shown_memory(paths, "stitched")),
    Row("own memory, np.concatenate", "the files", "",
        lambda paths: own_memory(paths, "concatenated")),
    Row("own memory, dask of memmaps", "the files", "",
        lambda paths: own_memory(paths, "dask_of_memmaps")),
]  # fmt: skip


def met(ratio: float, limit: str) -> str:
    """Say whether a ratio is within its limit."""
    if not limit:
        return ""
    sign, number = limit.split()
    return (
        "ok" if (ratio >= float(number) if sign == ">=" else ratio <= float(number)) else "MISSED"
    )


def chosen(substring: str) -> Iterator[Row]:
    """Rows with a substring."""
    return (row for row in ROWS if substring in f"{row.work} {row.against}")


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description="Measure many files as one array.")
    parser.add_argument("-k", default="", help="rows that have this in their name only")
    parser.add_argument("--dir", default=None, help="where files are made")
    options = parser.parse_args()
    print(f"{'work':30} {'against':27} {'ratio':>9} {'min..max':>19} {'to reach':>8}")
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        paths = make_files(Path(folder))
        for row in chosen(options.k):
            found = row.measure(paths)
            middle = statistics.median(found)
            spread = f"{min(found):.3g}..{max(found):.3g}"
            verdict = met(middle, row.limit)
            print(
                f"{row.work:30} {row.against:27} {middle:9.3g} {spread:>19} {row.limit:>8}",
                verdict,
                flush=True,
            )


if __name__ == "__main__":
    main()
