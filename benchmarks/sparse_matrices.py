"""
Sparse matrices and HDF5 files of arrays with holes, beside what scipy and h5py make of dense ones.

    python benchmarks/sparse_matrices.py [--side 16384]

The matrix has a side of 16384 items of 8 bytes, of which one in a hundred is not zero: in boxes of
256 x 256, or scattered one by one, which leaves hardly a page without something. Wanted is 3 where
the data lies in boxes; where it is scattered there are no holes to skip.
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import h5py
import numpy as np
import scipy.sparse
from side_by_side import pairs

import sparsearray
from sparsearray.interop.hdf5 import from_hdf5
from sparsearray.interop.scipy import from_scipy

BOX = 256
WANTED = 3.0


def boxes(side: int) -> Any:
    """Fill boxes."""
    rng = np.random.default_rng(0)
    made = sparsearray.zeros((side, side))
    for _ in range(max(side * side // 100 // BOX**2, 1)):
        i, j = rng.integers(0, side - BOX, 2)
        made[i : i + BOX, j : j + BOX] = rng.integers(1, 1000, (BOX, BOX))
    return made


def scattered(side: int) -> Any:
    """Set items one by one."""
    rng = np.random.default_rng(0)
    made = sparsearray.zeros((side, side))
    count = side * side // 100
    places = rng.integers(0, side, count), rng.integers(0, side, count)
    made[places] = rng.integers(1, 1000, count)
    return made


def same(ours: Any, theirs: Any) -> bool:
    """Compare two sparse matrices, entry by entry."""
    one, other = (found.tocsr().copy() for found in (ours, theirs))
    for found in (one, other):
        found.eliminate_zeros()
        found.sum_duplicates()
    names = ("data", "indices", "indptr")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


def row(
    what: str,
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    check: Callable[[Any, Any], bool],
    wanted: float | None,
    count: int,
) -> None:
    """Time two ways, compare what they make, and print a line."""
    assert check(ours(), theirs()), what
    found = pairs(ours, theirs, count)
    first, second = (median(times) * 1000 for times in zip(*found, strict=True))
    ratios = sorted(b / a for a, b in found)
    goal = f">= {wanted:g}" if wanted else ""
    print(
        f"{what:44}{first:10.1f}{second:10.1f}{median(ratios):8.2f}  "
        f"({ratios[0]:.1f} to {ratios[-1]:.1f})  {goal}",
        flush=True,
    )


def matrices(name: str, made: Any, wanted: float | None, count: int) -> None:
    """Compare conversions of one matrix."""
    tiled = made.retile("auto")
    dense = made[...]
    rows, columns = tiled.tiles
    coo = partial(scipy.sparse.coo_array, dense)
    csr = partial(scipy.sparse.csr_array, dense)
    bsr = partial(scipy.sparse.bsr_array, dense, blocksize=(rows, columns))
    for layout, a in (("C order", made), (f"tiles {rows} x {columns}", tiled)):
        row(f"{name}, {layout}: to_coo", a.to_coo, coo, same, wanted, count)
        row(f"{name}, {layout}: to_csr", a.to_csr, csr, same, wanted, count)
        ours = partial(a.to_bsr, (rows, columns))
        row(f"{name}, {layout}: to_bsr", ours, bsr, same, wanted, count)
    matrix = tiled.to_csr()
    row(
        f"{name}: from_scipy of a csr_array",
        partial(from_scipy, matrix, tiles="auto"),
        matrix.toarray,
        lambda ours, theirs: np.array_equal(ours[...], theirs),
        None,
        count,
    )


def files(made: Any, folder: Path, count: int) -> None:
    """Compare files."""
    tiled = made.retile("auto")
    dense = np.asarray(made)

    def theirs() -> Path:
        with h5py.File(folder / "theirs.h5", "w") as file:
            file.create_dataset("data", data=dense, chunks=(256, 128))
        return folder / "theirs.h5"

    def ours() -> Path:
        tiled.to_hdf5(folder / "ours.h5", overwrite=True)
        return folder / "ours.h5"

    def read(path: Path) -> Any:
        with h5py.File(path) as file:
            return file["data"][...]

    def sums(path: Path) -> Any:
        with from_hdf5(path, "data") as a:
            return a.sum()

    row("HDF5: write", ours, theirs, lambda a, b: np.array_equal(read(a), read(b)), WANTED, count)
    path = ours()
    one, other = partial(sums, path), lambda: read(path).sum()
    row("HDF5: open and sum", one, other, lambda a, b: a == b, WANTED, count)


def products(side: int, count: int) -> None:
    """Compare products of many tiles that lie alone with those without scipy."""
    rng = np.random.default_rng(0)
    a = sparsearray.zeros((side, side), tiles="auto")
    some = side + 4000
    a[rng.integers(0, side, some), rng.integers(0, side, some)] = rng.integers(1, 9, some)
    kind = type(a)
    quick = kind._times
    for columns in (1, 8):
        x = rng.integers(0, 9, (side, columns)).astype(float)

        def without(x: Any = x) -> Any:
            kind._times = lambda *_: None  # type: ignore[method-assign]
            try:
                return a @ x
            finally:
                kind._times = quick  # type: ignore[method-assign]

        what = f"{some} tiles alone: a @ x, {columns} columns"
        row(what, lambda x=x: a @ x, without, np.array_equal, None, count)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("--side", type=int, default=16384, help="of the matrix")
    parser.add_argument("--count", type=int, default=5, help="pairs of each row")
    options = parser.parse_args()
    print(f"{'':44}{'ours, ms':>10}{'theirs':>10}{'ratio':>8}  (range)  wanted")
    made = boxes(options.side)
    matrices("boxes", made, WANTED, options.count)
    with tempfile.TemporaryDirectory() as folder:
        files(made, Path(folder), options.count)
    made.close()
    products(options.side, options.count)
    matrices("scattered", scattered(options.side), None, max(options.count // 2, 2))


if __name__ == "__main__":
    main()
