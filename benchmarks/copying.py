"""
What `sparsearray copy` costs, beside cp.

    python benchmarks/copying.py [-k SUBSTRING] [--dir FOLDER]

Run it with the package installed and 6 GiB free in FOLDER. Files are just written, so that they are
in the system's cache; each copy is of a new name, and what the disk still has to write of the one
before is waited for first. A row is a pair of commands in turn; the median of the ratios of the
pairs is what counts. Contents are compared, and what is stored of them.

"on disk" is until the copy is there after a power cut: `sparsearray copy`, and `cp` with
`sync FILE`. "in cache" is `sparsearray copy --no-sync`, and `cp` alone. "call" is the function in a
process that runs already: of a command, some 0.1 s are the start of Python and numpy.

cp of coreutils 9 and later seeks holes itself, and copies 64 MiB in less time than Python starts:
of what it does not do, "reading all" is what is left of a tool that reads holes as zeros, and
`dd conv=sparse` is one.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from side_by_side import seconds

from sparsearray.cli.copy import copy_file
from sparsearray.cli.regular import extents_of

GIB, MIB = 1 << 30, 1 << 20
COMMAND = [sys.executable, "-P", "-m", "sparsearray", "copy"]
COUNT = 7  # pairs

Copy = Callable[[Path, Path], object]


class Row(NamedTuple):
    """One line of the table."""

    work: str
    file: str
    against: str
    limit: str  # of ours / theirs
    ours: Copy
    theirs: Copy


# Files


def write_random(path: Path, nbytes: int, pieces: int, length: int) -> None:
    """Write a file of `length` bytes with `nbytes` of data in so many even places."""
    made = np.random.default_rng(1)
    each = nbytes // pieces
    with path.open("wb") as file:
        file.truncate(length)
        for n in range(pieces):
            os.pwrite(file.fileno(), made.bytes(each), n * (length // pieces))


def write_zeros(path: Path, nbytes: int, length: int) -> None:
    """Write the same with zeros on disk where there is no data."""
    with path.open("wb") as file:
        for _ in range(length // MIB):
            file.write(bytes(MIB))
    made = np.random.default_rng(1)
    with path.open("r+b") as file:
        for n in range(64):
            os.pwrite(file.fileno(), made.bytes(nbytes // 64), n * (length // 64))


FILES: dict[str, Callable[[Path], None]] = {
    "64 extents": lambda path: write_random(path, 64 * MIB, 64, 8 * GIB),
    "16,384 pages": lambda path: write_random(path, 64 * MIB, 16384, 8 * GIB),
    "zeros": lambda path: write_zeros(path, 64 * MIB, 2 * GIB),
    "dense": lambda path: write_random(path, 2 * GIB, 2048, 2 * GIB),
}


# Ways to copy


def run(*command: object) -> None:
    """Run a command that must end well."""
    subprocess.run(list(map(str, command)), check=True, stderr=subprocess.DEVNULL)


def ours(source: Path, target: Path) -> None:
    """Ours, until all is on disk."""
    run(*COMMAND, "--reflink=never", source, target)


def ours_in_cache(source: Path, target: Path) -> None:
    """Ours, as cp does it."""
    run(*COMMAND, "--reflink=never", "--no-sync", source, target)


def ours_called(source: Path, target: Path) -> None:
    """Ours, without the start of Python."""
    copy_file(str(source), str(target), reflink=False, sync=False)


def cp(source: Path, target: Path) -> None:
    """Digs holes, too."""
    run("cp", "--sparse=always", "--reflink=never", source, target)


def cp_on_disk(source: Path, target: Path) -> None:
    """Digs holes, and waits until all is on disk."""
    cp(source, target)
    run("sync", target)


def plain_cp(source: Path, target: Path) -> None:
    """Keeps holes, and digs none."""
    run("cp", "--reflink=never", source, target)


def plain_cp_on_disk(source: Path, target: Path) -> None:
    """Keeps holes, digs none, and waits."""
    plain_cp(source, target)
    run("sync", target)


def dd(source: Path, target: Path) -> None:
    """Reads all, and digs holes."""
    run("dd", "bs=1M", "conv=sparse", f"if={source}", f"of={target}")


ROWS = [
    Row("command, in cache", "64 extents", "cp --sparse=always", "<= 0.1", ours_in_cache, cp),
    Row("command, on disk", "64 extents", "cp --sparse=always", "<= 0.1", ours, cp_on_disk),
    Row("call, in cache", "64 extents", "cp --sparse=always", "<= 0.1", ours_called, cp),
    Row("command, in cache", "16,384 pages", "cp --sparse=always", "<= 0.1", ours_in_cache, cp),
    Row("command, on disk", "16,384 pages", "cp --sparse=always", "<= 0.1", ours, cp_on_disk),
    Row("call, in cache", "16,384 pages", "cp --sparse=always", "", ours_called, cp),
    Row("command, in cache", "64 extents", "reading all: dd", "<= 0.1", ours_in_cache, dd),
    Row("command, in cache", "zeros", "cp --sparse=always", "<= 1.1", ours_in_cache, cp),
    Row("command, on disk", "zeros", "cp --sparse=always", "<= 1.1", ours, cp_on_disk),
    Row("command, in cache", "dense", "cp --sparse=always", "<= 1.1", ours_in_cache, cp),
    Row("command, on disk", "dense", "cp --sparse=always", "<= 1.1", ours, cp_on_disk),
    Row("command, in cache", "dense", "cp", "<= 1.1", ours_in_cache, plain_cp),
    Row("command, on disk", "dense", "cp", "<= 1.1", ours, plain_cp_on_disk),
    Row("call, in cache", "dense", "cp", "<= 1.1", ours_called, plain_cp),
]


def timed(way: Copy, source: Path) -> float:
    """Time one copy to a new name, on a disk that has nothing else to write."""
    target = source.with_name("copy")
    target.unlink(missing_ok=True)
    os.sync()
    return seconds(lambda: way(source, target))


def compare(source: int, target: int) -> None:
    """Compare two files where either has data: to read their holes would fill the cache."""
    nbytes = os.fstat(source).st_size
    assert os.fstat(target).st_size == nbytes
    for fd in (source, target):
        for start, stop in extents_of(fd, nbytes) or [(0, nbytes)]:
            for at in range(start, stop, MIB):
                length = min(MIB, stop - at)
                assert os.pread(source, length, at) == os.pread(target, length, at), at


def check(row: Row, source: Path) -> None:
    """Compare what both write, and what they store of it."""
    found = []
    for way in (row.ours, row.theirs):
        timed(way, source)
        target = source.with_name("copy")
        with source.open("rb") as expected, target.open("rb") as made:
            compare(expected.fileno(), made.fileno())
            os.fsync(made.fileno())  # blocks are counted when they are written
        found.append(target.stat().st_blocks * 512)
    # What a file system adds to say where many extents are is no data.
    assert found[0] <= found[1] + MIB, found


def measure(row: Row, source: Path) -> tuple[list[float], float, float]:
    """Return ratios of ours / theirs, and the median seconds of each."""
    found = []
    for i in range(COUNT + 1):
        first = timed(row.ours, source) if i % 2 else None
        other = timed(row.theirs, source)
        found.append((timed(row.ours, source) if first is None else first, other))
    own, others = zip(*found[1:], strict=True)
    ratios = [a / b for a, b in zip(own, others, strict=True)]
    return ratios, statistics.median(own), statistics.median(others)


def met(ratio: float, limit: str) -> str:
    """Say whether a ratio is within its limit."""
    return "" if not limit else "ok" if ratio <= float(limit.split()[1]) else "MISSED"


def chosen(substring: str) -> Iterator[tuple[str, list[Row]]]:
    """Files, and the rows about them, with a substring."""
    for file in FILES:
        rows = [row for row in ROWS if row.file == file]
        rows = [row for row in rows if substring in f"{row.work} {row.file} {row.against}"]
        if rows:
            yield file, rows


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description="Measure copies of files.")
    parser.add_argument("-k", default="", help="rows that have this in their name only")
    parser.add_argument("--dir", default=None, help="where files are made")
    options = parser.parse_args()
    program = shutil.which("cp")
    if program is None:
        parser.error("there is no cp here")
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    print(said.stdout.partition("\n")[0] or "cp of an unknown version")
    columns = f"{'work':18} {'file':13} {'against':19} {'ours':>7} {'theirs':>7}"
    print(f"{columns} {'ratio':>6} {'min..max':>12} {'to reach':>8}")
    for file, rows in chosen(options.k):
        with tempfile.TemporaryDirectory(dir=options.dir) as folder:
            source = Path(folder) / "source"
            FILES[file](source)
            for row in rows:
                check(row, source)
                ratios, own, other = measure(row, source)
                middle = statistics.median(ratios)
                spread = f"{min(ratios):.2f}..{max(ratios):.2f}"
                line = f"{row.work:18} {file:13} {row.against:19} {own:6.3f}s {other:6.3f}s"
                verdict = met(middle, row.limit)
                print(f"{line} {middle:6.2f} {spread:>12} {row.limit:>8} {verdict}", flush=True)


if __name__ == "__main__":
    main()
