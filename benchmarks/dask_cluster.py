"""
What a sum costs on a cluster of two processes, beside the array's own.

    python benchmarks/dask_cluster.py [--dir FOLDER] [--pairs N]

Run it with the package and its extra `dask` installed, and 1 GiB free in FOLDER: there is a file of
a terabyte that holds 1 GiB, in 1024 rows far apart, just written, so that it is in the system's
cache. The cluster is started once, and that is timed by itself; then `da.sum` and `a.sum()` take
turns. Part of the start is also the first sum of anything, for which workers import dask. Rows say
da.sum / a.sum(), and what counts is the median; results are compared each time. Memory is what
workers have to themselves, without the pages of files that they share with the system's cache.
"""

import argparse
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
from distributed import Client, LocalCluster
from side_by_side import seconds

import sparsearray

GIB = 1 << 30
ROWS, ITEMS = 1 << 20, 1 << 17  # of a terabyte of float64
HELD = 1024  # rows, of 1 MiB each


def make_file(folder: Path, *, tiles: int | None) -> tuple[str, float]:
    """Write the file: whole numbers, so that sums are exact in any order."""
    path = folder / f"terabyte-{tiles}.npy"
    random = np.random.default_rng(0)
    with sparsearray.open(path, "w+", shape=(ROWS, ITEMS), tiles=tiles) as array:
        if tiles is None:
            for row in random.choice(ROWS, HELD, replace=False).tolist():
                array[row] = row % 100
            return str(path), float(array.sum())
        for row in random.choice(ROWS // 1024, HELD // 8, replace=False).tolist():
            column = int(random.integers(ITEMS // 1024)) * 1024
            array[row * 1024 : row * 1024 + 1024, column : column + 1024] = row % 100
        return str(path), float(array.sum())


def own_memory() -> int:
    """Tell how much memory this process has that it shares with nobody, in bytes."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition("RssAnon:")[2].split()[0]) << 10


def measure(path: str, expected: float, client: Any, pairs: int) -> None:
    """Measure one file, and print its rows."""
    array = sparsearray.open(path)
    kind = type(array).__name__

    def alone() -> None:
        assert array.sum() == expected

    def on_cluster() -> None:
        assert da.sum(array.to_dask(chunks="stored")).compute() == expected

    alone()
    first = seconds(on_cluster)
    before = client.run(own_memory)
    found = []
    for i in range(pairs):
        works: list[Callable[[], None]] = [on_cluster, alone] if i % 2 else [alone, on_cluster]
        times = {work: seconds(work) for work in works}
        found.append((times[on_cluster], times[alone]))
    after = client.run(own_memory)
    ours, own = (statistics.median(side) for side in zip(*found, strict=True))
    ratios = [a / b for a, b in found]
    middle = statistics.median(ratios)
    spread = f"{min(ratios):.2f}..{max(ratios):.2f}"
    verdict = "ok" if middle <= 2 else "MISSED"
    print(
        f"{kind:12} da.sum {ours:7.3f} s   a.sum() {own:7.3f} s   "
        f"ratio {middle:5.2f} {spread:>12}   <= 2 {verdict}"
    )
    print(f"{'':12} the first time: {first:.3f} s")
    growth = max(after[worker] - before[worker] for worker in before)
    x = array.to_dask(chunks="stored")
    print(
        f"{'':12} {x.npartitions} chunks, a graph of {len(pickle.dumps(x.dask))} bytes; "
        f"each worker's memory grew by {max(growth, 0) / (1 << 20):.0f} MiB"
    )


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description="Measure a sum on a cluster of two processes.")
    parser.add_argument("--dir", default=None, help="where files are made")
    parser.add_argument("--pairs", type=int, default=15, help="how often each is timed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        files = [make_file(Path(folder), tiles=tiles) for tiles in (None, 32)]
        start = time.perf_counter()
        with (
            LocalCluster(
                n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=folder
            ) as cluster,
            Client(cluster) as client,
        ):
            print(f"the cluster's own start: {time.perf_counter() - start:.2f} s")
            first = seconds(lambda: da.ones(8, chunks=1).sum().compute())
            print(f"and of da.sum there, of eight ones: {first:.2f} s")
            for path, expected in files:
                measure(path, expected, client, options.pairs)


if __name__ == "__main__":
    main()
