"""What tests of stitched arrays share: parts of every kind, and a model of what must be copied."""

import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

import sparsearray
from sparsearray import SparseArray, SparseBuffer

P = mmap.PAGESIZE
HEADER = 4096  # bytes, of .npy files of ours


class Run(NamedTuple):
    """Bytes one after another in a file, or in no file; what a stitched array is made of."""

    path: Path | None
    offset: int
    nbytes: int


class Source(NamedTuple):
    """A part: what `stitch` is given, what it holds, and where in files that lies."""

    given: Any
    rows: np.ndarray
    runs: list[Run]


def copied(runs: Sequence[Run], first: int) -> int:
    """
    Count the bytes that cannot be mapped, looking at one page of the result after another.

    A page is mapped if all of the array in it is of one run, in a file, as far from a page's start
    there as here. `first` is where the array begins in its buffer.
    """
    places, at = [], first
    for run in runs:
        places.append((at, at + run.nbytes, run))
        at += run.nbytes
    count = 0
    for page in range(first // P * P, at, P):
        inside = [one for one in places if one[0] < page + P and one[1] > page]
        start, _, run = inside[0]
        if len(inside) > 1 or run.path is None or (run.offset - start) % P:
            count += sum(min(stop, page + P) - max(start, page) for start, stop, _ in inside)
    return count


def make_raw(folder: Path, name: str, rows: np.ndarray) -> Source:
    """Make a file without a header."""
    path = folder / f"{name}.raw"
    path.write_bytes(rows.tobytes())
    return Source(path, rows, [Run(path, 0, rows.nbytes)])


def make_ours(folder: Path, name: str, rows: np.ndarray) -> Source:
    """Make a .npy file of ours."""
    path = folder / f"{name}.npy"
    sparsearray.save(path, rows)
    return Source(path, rows, [Run(path, HEADER, rows.nbytes)])


def make_numpys(folder: Path, name: str, rows: np.ndarray) -> Source:
    """Make a .npy file of numpy's."""
    path = folder / f"{name}.npy"
    np.save(path, rows)
    return Source(path, rows, [Run(path, path.stat().st_size - rows.nbytes, rows.nbytes)])


def make_unnamed(folder: Path, name: str, rows: np.ndarray) -> Source:
    """Make a .npy file that is not named so."""
    made = make_numpys(folder, name, rows)
    path = folder / f"{name}.data"
    made.given.rename(path)
    return Source(str(path), rows, [made.runs[0]._replace(path=path)])


def make_triple(folder: Path, name: str, rows: np.ndarray, offset: int = P) -> Source:
    """Make a file with the rows in its middle."""
    path = folder / f"{name}.bin"
    path.write_bytes(b"\xee" * offset + rows.tobytes() + b"\xee" * 100)
    return Source((os.fsencode(path), offset, rows.nbytes), rows, [Run(path, offset, rows.nbytes)])


def make_crooked(folder: Path, name: str, rows: np.ndarray) -> Source:
    """Make one where they begin within a page."""
    return make_triple(folder, name, rows, 1000)


def make_memory(_folder: Path, _name: str, rows: np.ndarray) -> Source:
    """Make an array in memory."""
    array = sparsearray.zeros(rows.shape, rows.dtype)
    array[...] = rows
    return Source(array, rows, [Run(None, 0, rows.nbytes)])


def make_shown(_folder: Path, _name: str, rows: np.ndarray) -> Source:
    """Make one that shows part of a buffer that is not its own."""
    nbytes = -(-(rows.nbytes + 24) // P) * P
    buffer = SparseBuffer(nbytes)
    buffer.alloc(0, nbytes)
    buffer.write_at(16, rows.tobytes())
    array = SparseArray(buffer, rows.shape, rows.dtype, offset=16)
    return Source(array, rows, [Run(None, 0, rows.nbytes)])


def make_opened(mode: Any) -> Any:
    """Return what makes an array in a file of ours."""

    def make(folder: Path, name: str, rows: np.ndarray) -> Source:
        source = make_ours(folder, name, rows)
        array = sparsearray.open(source.given, mode)
        if mode == "c":  # what is written is in no file
            array[...] = np.zeros((), rows.dtype)
            return Source(array, np.zeros_like(rows), [Run(None, 0, rows.nbytes)])
        return source._replace(given=array)

    return make


def make_stitched(folder: Path, name: str, rows: np.ndarray) -> Source:
    """Make a stitched one, of two raw files."""
    half = len(rows) // 2
    parts = [
        make_raw(folder, f"{name}-{i}", part) for i, part in enumerate((rows[:half], rows[half:]))
    ]
    parts = [part for part in parts if part.rows.nbytes]
    array = sparsearray.stitch([part.given for part in parts], rows.dtype, (-1, *rows.shape[1:]))
    return Source(array, rows, [run for part in parts for run in part.runs])


KINDS = {
    "raw": make_raw,
    "npy": make_ours,
    "numpy's": make_numpys,
    "unnamed": make_unnamed,
    "triple": make_triple,
    "crooked": make_crooked,
    "memory": make_memory,
    "shown": make_shown,
    "r": make_opened("r"),
    "r+": make_opened("r+"),
    "c": make_opened("c"),
    "stitched": make_stitched,
}


@contextmanager
def new_folder(inside: Path) -> Iterator[Path]:
    """Make a folder for one example."""
    with TemporaryDirectory(dir=inside) as name:
        yield Path(name)


def snapshot(folder: Path) -> dict[str, bytes]:
    """Read all files of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
