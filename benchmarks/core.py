"""
What SparseBuffer costs beside the bare calls under it, numpy and np.memmap.

    python benchmarks/core.py [-k SUBSTRING] [--quick] [--dir FOLDER]

Run it with the package installed. A row is one piece of work: ours and theirs in turn, half a
millisecond each or one operation, with the order within a pair changing from pair to pair. It
prints the median of the ratios ours / theirs of the pairs, the smallest and the largest, the ratio
to reach, and the median time of each side for one operation.

What makes the sides comparable:

* Both are warm, and both are called from Python as users call them, but for the bare system calls:
  those are timed inside a little C program, which needs ``cc``; without it their rows are skipped.
* Both touch the same memory, the user's array included, where theirs is no np.memmap. That array
  lies 1024 bytes past the start of a page. At 16 bytes past it, where malloc often puts arrays,
  memmove has a slow path on some processors that read_into avoids and numpy.copyto does not: the
  ratio would tell of that alone (0.1 on an AMD EPYC).
* Results of both sides are checked before and after the timing, each time over memory that held
  something else. A wrong one ends the run with a traceback; a ratio that was missed does not.
"""

import argparse
import ctypes
import functools
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from side_by_side import (
    Figures,
    SkipError,
    Work,
    compile_bare,
    mappings_in,
    side_by_side,
    timed,
)
from single_pages import PAGE, PAGES

from sparsearray import AccessError, SparseBuffer

KIB, MIB, TIB = 1 << 10, 1 << 20, 1 << 40
SIZE = 256 * MIB  # of the private memory and of the file in the common buffer
PLACES = {"private": 0, "file": 512 * MIB}
HOLE = 900 * MIB
SIZES = {"64 KiB": 64 * KIB, "1 MiB": MIB, "64 MiB": 64 * MIB}
RECORD = np.dtype([("kind", "u1"), ("size", "<u4"), ("name", "V9")])  # 14 bytes
WORD = np.dtype("u8")
PAIR = np.dtype([("a", "u8"), ("b", "u8")])


class Row(NamedTuple):
    """One line of the table."""

    work: str
    against: str
    limit: float
    measure: Callable[["Bench"], Figures]


class Bench:
    """The buffer, the file and the compiled calls that rows share, each made when first used."""

    def __init__(self, folder: Path, *, quick: bool) -> None:
        self.folder = folder
        self.seconds = 0.1 if quick else 1.0  # for a row
        self.processes = 3 if quick else 11
        self.library = folder / "bare.so"

    @functools.cached_property
    def data(self) -> np.ndarray:
        """What the private memory and the file hold."""
        return np.random.default_rng(1).integers(0, 256, SIZE, dtype="u1")

    @functools.cached_property
    def path(self) -> Path:
        """The file, in the page cache."""
        path = self.folder / "data.bin"
        self.data.tofile(path)
        return path

    @functools.cached_property
    def buffer(self) -> SparseBuffer:
        """Private memory, a hole, the file, and a hole; all pages have been touched."""
        buffer = SparseBuffer(1 << 30)
        buffer.alloc(PLACES["private"], SIZE)
        buffer.map_file(PLACES["file"], SIZE, self.path, writable=True)
        buffer.write_at(PLACES["private"], self.data)
        assert np.array_equal(buffer.window(PLACES["file"], SIZE), self.data)
        return buffer

    @functools.cached_property
    def bare(self) -> ctypes.CDLL:
        """The bare calls, compiled."""
        return compile_bare(self.library)

    @functools.cached_property
    def page_runs(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """single_pages.py of ours and theirs in turn, each in a process of its own."""
        assert self.bare  # compiles them
        script = Path(__file__).with_name("single_pages.py")
        runs = []
        for seed in range(self.processes):
            pair = []
            for side in ("ours", "theirs"):
                command = [sys.executable, script, side, str(seed), self.library]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
                pair.append(json.loads(done.stdout))
            runs.append((pair[0], pair[1]))
        return runs

    def compare(
        self, ours: Work, theirs: Work, right: Callable[[Any], object], spoil: Work = bool
    ) -> Figures:
        """Time both; before and after, run each on what `spoil` left and see what it did."""

        def check() -> None:
            for work in (ours, theirs):
                spoil()
                assert right(work()), "a wrong result"

        check()
        figures = side_by_side(timed(ours), timed(theirs), self.seconds)
        check()
        return figures


# The rows


def reserve_and_alloc(bench: Bench, *, give_back: bool) -> Figures:
    """Take a terabyte of writable memory, and give it back within or outside the time taken."""
    bare = bench.bare
    buffer = SparseBuffer(TIB)
    buffer.alloc(0, TIB)
    buffer.write_at(TIB - 1, b"x")
    assert buffer.read_at(TIB - 2, 2) == b"\0x"
    address = buffer.address
    buffer.close()
    assert mappings_in(address, address + TIB) == 0

    def with_close() -> None:
        buffer = SparseBuffer(TIB)
        buffer.alloc(0, TIB)
        buffer.close()

    def without_close(count: int) -> float:
        total = 0.0
        for _ in itertools.repeat(None, count):
            start = time.perf_counter()
            buffer = SparseBuffer(TIB)
            buffer.alloc(0, TIB)
            total += time.perf_counter() - start
            buffer.close()
            del buffer
        return total / count

    def theirs(count: int) -> float:
        seconds: float = bare.reserve_and_alloc(TIB, count, give_back)
        assert seconds > 0, "mmap or munmap failed"
        return seconds

    ours = timed(with_close) if give_back else without_close
    return side_by_side(ours, theirs, bench.seconds)


def copy(bench: Bench, *, method: str, kind: str, nbytes: int) -> Figures:
    """Copy between the buffer and an array of the user's."""
    buffer, at = bench.buffer, PLACES[kind]
    raw = np.empty(nbytes + 2 * PAGE, "u1")
    start = -raw.ctypes.data % PAGE + 1024
    array, window = raw[start : start + nbytes], buffer.window(at, nbytes)
    fresh = bench.data[:nbytes]

    if method == "read_into":

        def spoil() -> None:
            window[:] = fresh
            array.fill(0xAA)

        return bench.compare(
            lambda: buffer.read_into(at, array),
            lambda: np.copyto(array, window),
            lambda _: np.array_equal(array, fresh),
            spoil,
        )

    def spoil_window() -> None:
        array[:] = fresh
        window.fill(0xAA)

    return bench.compare(
        lambda: buffer.write_at(at, array),
        lambda: np.copyto(window, array),
        lambda _: np.array_equal(window, fresh),
        spoil_window,
    )


def fill(bench: Bench) -> Figures:
    """Set 64 MiB of private memory to one value."""
    buffer = SparseBuffer(64 * MIB)
    buffer.alloc(0, 64 * MIB)
    window = buffer[:]
    return bench.compare(
        lambda: buffer.fill_at(0, 9, 64 * MIB),
        lambda: window.fill(9),
        lambda _: (window == 9).all(),
        lambda: window.fill(1),
    )


def plain_record(bench: Bench, *, kind: str) -> Figures:
    """Read one record of 14 bytes, owned."""
    buffer, at = bench.buffer, PLACES[kind] + 5 * RECORD.itemsize
    records = np.memmap(bench.path, RECORD, "r", shape=1000)
    expected = bench.data[70:84].tobytes()
    return bench.compare(
        lambda: buffer.read_plain(at, RECORD),
        lambda: records[5].copy(),  # noqa: PLW0108 -- indexing is part of the work
        lambda got: got.dtype == RECORD and got.tobytes() == expected,
    )


def plain_word(bench: Bench, *, kind: str) -> Figures:
    """Read one uint64."""
    buffer, at = bench.buffer, PLACES[kind] + 5 * 8
    words = np.memmap(bench.path, WORD, "r", shape=1000)
    expected = int.from_bytes(bench.data[40:48].tobytes(), sys.byteorder)
    return bench.compare(
        lambda: buffer.read_plain(at, WORD), lambda: int(words[5]), lambda got: got == expected
    )


def gather(bench: Bench, *, dtype: np.dtype, kind: str, nbytes: int) -> Figures:
    """Read a million records in random order, of memory larger than the caches or within them."""
    buffer, at = bench.buffer, PLACES[kind]
    window = buffer.window(at, nbytes // dtype.itemsize, dtype)
    items = np.random.default_rng(2).integers(0, len(window), 1_000_000)
    offsets = at + items * dtype.itemsize
    expected = bench.data[:nbytes].view(dtype)[items]
    return bench.compare(
        lambda: buffer.gather(offsets, dtype),
        lambda: window[items],
        lambda got: got.dtype == dtype and np.array_equal(got, expected),
    )


def window_of(bench: Bench, *, kind: str, shape: Any, dtype: str) -> Figures:
    """Make an array over memory, and drop it."""
    buffer, at, path = bench.buffer, PLACES[kind], bench.path
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    expected = bench.data[:nbytes].tobytes()
    return bench.compare(
        lambda: buffer.window(at, shape, dtype),
        lambda: np.memmap(path, dtype, "r+", shape=shape),
        lambda got: got.dtype == dtype and got.tobytes() == expected,
    )


def pages(bench: Bench, *, growth: bool) -> Figures:
    """Sum up single_pages.py: against the bare calls, or the last thousand against the first."""
    for ours, theirs in bench.page_runs:
        assert ours["mappings"] <= max(2, theirs["mappings"]), "the kernel did not join the pages"
    seconds = [(ours["thousands"], theirs["thousands"]) for ours, theirs in bench.page_runs]
    if growth:
        return Figures.of([(ours[-1] / 1000, ours[0] / 1000) for ours, _ in seconds])
    return Figures.of([(sum(ours) / PAGES, sum(theirs) / PAGES) for ours, theirs in seconds])


def error(bench: Bench, *, method: str) -> Figures:
    """Be refused, and catch it."""
    buffer, array = bench.buffer, np.zeros(10)
    read, argument = (buffer.read_at, 8) if method == "read_at" else (buffer.read_plain, WORD)
    facts: tuple[Any, ...] = ()
    try:
        read(HOLE, argument)
    except AccessError as caught:
        facts = caught.reason, caught.offset, caught.transferred
    assert facts == ("unmapped", HOLE, 0)

    def ours() -> bool:
        try:
            read(HOLE, argument)
        except AccessError:
            return True
        return False

    def theirs() -> bool:
        try:
            array[20]
        except IndexError:
            return True
        return False

    return bench.compare(ours, theirs, bool)


def rows() -> Iterator[Row]:
    """List the table, with the ratios to reach."""
    bind = functools.partial
    run = bind(reserve_and_alloc, give_back=True)
    yield Row("reserve + alloc 1 TiB + close", "2 mmap + munmap in C", 3, run)
    run = bind(reserve_and_alloc, give_back=False)
    yield Row("reserve + alloc 1 TiB", "2 mmap in C", 3, run)
    for (name, nbytes), kind in itertools.product(SIZES.items(), PLACES):
        limit = 1.05 if nbytes > 64 * KIB else {"private": 1.1, "file": 1.3}[kind]
        for method in ("read_into", "write_at"):
            run = bind(copy, method=method, kind=kind, nbytes=nbytes)
            yield Row(f"{method} {name}, {kind}", "numpy.copyto", limit, run)
    yield Row("fill_at 64 MiB", "ndarray.fill", 1.05, fill)
    for kind in PLACES:
        run = bind(plain_record, kind=kind)
        yield Row(f"read_plain 14 bytes, {kind}", "memmap[i].copy()", 0.8, run)
        yield Row(f"read_plain uint64, {kind}", "int(memmap[i])", 2, bind(plain_word, kind=kind))
    areas = {"256 MiB": SIZE, "256 KiB": 256 * KIB}
    for (name, nbytes), dtype, kind in itertools.product(areas.items(), (WORD, PAIR), PLACES):
        run = bind(gather, dtype=dtype, kind=kind, nbytes=nbytes)
        yield Row(f"gather 10^6 x {dtype.itemsize} B of {name}, {kind}", "window[items]", 1, run)
    for kind in PLACES:
        run = bind(window_of, kind=kind, shape=4096, dtype="u1")
        yield Row(f"window 4096 u1, {kind}", "np.memmap", 0.2, run)
        run = bind(window_of, kind=kind, shape=(64, 64), dtype="f4")
        yield Row(f"window 64 x 64 f4, {kind}", "np.memmap", 0.2, run)
    yield Row("30,000 x alloc of a page", "mmap in C", 2, bind(pages, growth=False))
    yield Row("the last 1,000 of them", "the first 1,000", 2, bind(pages, growth=True))
    for method in ("read_at", "read_plain"):
        yield Row(f"{method} of a hole: the error", "IndexError", 10, bind(error, method=method))


LINE = "{:40} {:20} {:>6} {:>13} {:>8}  {:6} {:>19}"


def line_of(row: Row, bench: Bench) -> str:
    """Measure a row."""
    try:
        figures = row.measure(bench)
    except SkipError as reason:
        return f"{row.work:40} {row.against:20} skipped: {reason}"
    ratio = statistics.median(figures.ratios)
    return LINE.format(
        row.work,
        row.against,
        f"{ratio:.2f}",
        f"{min(figures.ratios):.2f}..{max(figures.ratios):.2f}",
        f"<= {row.limit}",
        "ok" if ratio <= row.limit else "MISSED",
        f"{figures.ours * 1e6:.5g} / {figures.theirs * 1e6:.5g}",
    )


def main() -> None:
    """Measure the rows that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("-k", metavar="SUBSTRING", default="", help="only rows with this in them")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--dir", type=Path, help="folder for the file (default: the system's)")
    arguments = parser.parse_args()
    header = ("work", "against", "ratio", "min..max", "to reach", "", "us, ours / theirs")
    print(LINE.format(*header))
    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
        bench = Bench(Path(folder), quick=arguments.quick)
        for row in rows():
            if arguments.k.lower() in f"{row.work} {row.against}".lower():
                print(line_of(row, bench), flush=True)


if __name__ == "__main__":
    main()
