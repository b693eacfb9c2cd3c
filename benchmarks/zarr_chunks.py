"""
What zarr arrays cost as arrays of ours, beside zarr itself.

    python benchmarks/zarr_chunks.py [-k SUBSTRING] [--dir FOLDER]

Run it with the package and the `bench` dependency group installed, and 1 GiB free in FOLDER: there
are 10,000 uncompressed chunks of 64 KiB, just written, so that they are in the system's cache. Rows
are ours and theirs in turn, opening the array included where the row says so; the median of the
ratios theirs / ours is what counts, and results are compared before they are timed. Zarr's sums are
measured in three ways, of which the fastest stands beside ours: of all of it at once, of a row of
chunks at a time, and of ten rows.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from side_by_side import pairs, seconds

import sparsearray
from sparsearray.interop.zarr import from_zarr, to_zarr

CHUNK = (128, 64)  # items: 64 KiB of float64
SHAPE = (12800, 6400)  # items, in 100 x 100 chunks
BOXES = 500
BOX = 256  # items along each axis
DENSE = 16384  # items along each axis of the array that is written, float32
SIDE = 128  # of its chunks
POPULATED = 0.01


class Row(NamedTuple):
    """One line of the table."""

    work: str
    limit: str
    measure: Callable[[Path], list[tuple[float, float]]]


def make_chunks(folder: Path) -> str:
    """Write the array: whole numbers, so that sums are exact in any order."""
    path = str(folder / "dense.zarr")
    made = zarr.create_array(path, shape=SHAPE, chunks=CHUNK, dtype="f8", compressors=None)
    rng = np.random.default_rng(1)
    for i in range(0, SHAPE[0], CHUNK[0]):
        made[i : i + CHUNK[0]] = rng.integers(0, 4, (CHUNK[0], SHAPE[1])).astype("f8")
    return path


def corners() -> list[tuple[int, int]]:
    """Choose where the boxes are."""
    rng = np.random.default_rng(2)
    most = [n - BOX for n in SHAPE]
    found: list[tuple[int, int]] = rng.integers(0, most, (BOXES, 2)).tolist()
    return found


def read_boxes(array: Any) -> float:
    """Add a few items of each box up."""
    return float(sum(array[i : i + BOX, j : j + BOX][::17, ::19].sum() for i, j in corners()))


def rows_of_chunks(array: Any, count: int) -> float:
    """Sum so many rows of chunks at a time."""
    step = count * CHUNK[0]
    parts = range(0, array.shape[0], step)
    return float(sum(array[i : i + step].sum() for i in parts))


def check(ours: float, theirs: float) -> None:
    """Stop where results differ."""
    if ours != theirs:
        sys.exit(f"{ours} is not {theirs}")


def measure_boxes(folder: Path) -> list[tuple[float, float]]:
    """Open, and read boxes."""
    path = str(folder / "dense.zarr")

    def ours() -> float:
        with from_zarr(path) as array:
            return read_boxes(array)

    def theirs() -> float:
        return read_boxes(zarr.open_array(path, mode="r"))

    check(ours(), theirs())
    return pairs(ours, theirs)


def measure_sum(folder: Path, *, opens: bool) -> list[tuple[float, float]]:
    """Sum all of it."""
    path = str(folder / "dense.zarr")
    array, z = from_zarr(path), zarr.open_array(path, mode="r")

    def ours() -> float:
        if not opens:
            return float(array.sum())
        with from_zarr(path) as opened:
            return float(opened.sum())

    ways = {
        "z[...].sum()": lambda: float(z[...].sum()),
        "rows of chunks": lambda: rows_of_chunks(z, 1),
        "ten rows": lambda: rows_of_chunks(z, 10),
    }
    for way in ways.values():
        check(ours(), way())
    best = min(ways, key=lambda name: min(seconds(ways[name]) for _ in range(2)))
    print(f"  of zarr, the best is: {best}", file=sys.stderr)
    return pairs(ours, ways[best], 7)


def populated() -> sparsearray.TiledArray:
    """Make an array of which few chunks hold something."""
    array = sparsearray.zeros((DENSE, DENSE), "f4", tiles=SIDE)
    side = DENSE // SIDE
    rng = np.random.default_rng(3)
    for number in rng.choice(side * side, int(POPULATED * side * side), replace=False).tolist():
        i, j = divmod(number, side)
        array.tile(i, j)[...] = rng.random((SIDE, SIDE), "f4")
    return array


def measure_writing(folder: Path, **options: Any) -> list[tuple[float, float]]:
    """Write an array of which 1 % is populated."""
    array = populated()
    dense = np.asarray(array)
    paths = [str(folder / name) for name in ("ours.zarr", "theirs.zarr")]

    def ours() -> None:
        shutil.rmtree(paths[0], ignore_errors=True)
        to_zarr(array, paths[0], **options)

    def theirs() -> None:
        shutil.rmtree(paths[1], ignore_errors=True)
        made = zarr.create_array(
            paths[1],
            shape=dense.shape,
            chunks=array.tiles,
            dtype=dense.dtype,
            config={"write_empty_chunks": False},
            **options,
        )
        made[...] = dense

    ours(), theirs()
    found = [zarr.open_array(path, mode="r") for path in paths]
    if not all((z[...] == dense).all() for z in found):
        sys.exit("what was written is not the array")
    check(*(z.nchunks_initialized for z in found))
    return pairs(ours, theirs, 7)


ROWS = [
    Row("open, and 500 boxes of 256 x 256", ">= 5", measure_boxes),
    Row("sum", ">= 20", lambda folder: measure_sum(folder, opens=False)),
    Row("open, and sum", "", lambda folder: measure_sum(folder, opens=True)),
    Row("write 1 % of 1 GiB", ">= 10", lambda folder: measure_writing(folder, compressors=None)),
    Row("write 1 % of 1 GiB, compressed", ">= 10", measure_writing),
]


def report(folder: Path, wanted: str) -> Iterator[str]:
    """Measure each row."""
    yield "| work | ours, s | zarr, s | zarr / ours | wanted |"
    yield "|---|---|---|---|---|"
    for row in ROWS:
        if wanted not in row.work:
            continue
        found = row.measure(folder)
        ours, theirs = (statistics.median(side) for side in zip(*found, strict=True))
        ratio = statistics.median(b / a for a, b in found)
        yield f"| {row.work} | {ours:.4f} | {theirs:.3f} | {ratio:.1f} | {row.limit} |"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("-k", default="", help="only rows with this in them")
    parser.add_argument("--dir", help="where the files go")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
        make_chunks(Path(folder))
        for line in report(Path(folder), arguments.k):
            print(line, flush=True)


if __name__ == "__main__":
    main()
