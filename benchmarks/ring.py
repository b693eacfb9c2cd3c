"""
What a ring costs beside rings made with numpy, and what pickled arrays weigh.

    python benchmarks/ring.py [-k SUBSTRING]

Run it with the package installed. Each ring keeps 64 KiB; blocks of 4 KiB are pushed, and after
each all 64 KiB are read as one contiguous array. Rows are theirs and ours in turn; the median of
the ratios of the pairs is what counts. What is read is compared before it is timed.
"""

import argparse
import os
import pickle
import statistics
import tempfile
from pathlib import Path
from typing import Protocol

import numpy as np
from side_by_side import side_by_side, timed

import sparsearray

KEPT, BLOCK = (64 << 10) // 8, (4 << 10) // 8  # items of 8 bytes
SECONDS = 2.0  # for each row


class Ring(Protocol):
    """What is compared."""

    def push(self, block: np.ndarray) -> None:
        """Add items."""

    def last(self, n: int) -> np.ndarray:
        """Give the newest as one contiguous array."""


class Rolled:
    """`numpy.roll` for each block, and the block at the end."""

    def __init__(self, count: int) -> None:
        self.items = np.zeros(count)

    def push(self, block: np.ndarray) -> None:
        """Add items."""
        self.items = np.roll(self.items, -len(block))
        self.items[-len(block) :] = block

    def last(self, n: int) -> np.ndarray:
        """Give the newest as one contiguous array."""
        return self.items[-n:]


class Shifted:
    """What `numpy.roll` does, without its search for axes and without a new array."""

    def __init__(self, count: int) -> None:
        self.items = np.zeros(count)

    def push(self, block: np.ndarray) -> None:
        """Add items."""
        items, n = self.items, len(block)
        items[:-n] = items[n:]
        items[-n:] = block

    def last(self, n: int) -> np.ndarray:
        """Give the newest as one contiguous array."""
        return self.items[-n:]


class TwoPieces:
    """Written around the end; what is read is copied in two pieces, into an array made before."""

    def __init__(self, count: int) -> None:
        self.items, self.copy, self.end = np.zeros(count), np.empty(count), 0

    def push(self, block: np.ndarray) -> None:
        """Add items."""
        items, start, n = self.items, self.end, len(block)
        stop = start + n
        if stop <= len(items):
            items[start:stop] = block
        else:
            first = len(items) - start
            items[start:] = block[:first]
            items[: n - first] = block[first:]
        self.end = stop % len(items)

    def last(self, n: int) -> np.ndarray:
        """Give the newest as one contiguous array."""
        items, copy, start = self.items, self.copy, self.end - n
        if start >= 0:
            copy[:n] = items[start : self.end]
        else:
            copy[:-start] = items[start:]
            copy[-start:n] = items[: self.end]
        return copy[:n]


class WrittenTwice:
    """Each block is written to both halves of twice the memory: what is read is a view."""

    def __init__(self, count: int) -> None:
        self.items, self.count, self.end = np.zeros(2 * count), count, 0

    def push(self, block: np.ndarray) -> None:
        """Add items."""
        items, count, start, n = self.items, self.count, self.end, len(block)
        stop = start + n
        if stop <= count:
            items[start:stop] = items[start + count : stop + count] = block
        else:
            first = count - start
            items[start:count] = items[start + count :] = block[:first]
            items[: n - first] = items[count : count + n - first] = block[first:]
        self.end = stop % count

    def last(self, n: int) -> np.ndarray:
        """Give the newest as one contiguous array."""
        stop = self.end + self.count
        return self.items[stop - n : stop]


PEERS = {
    "numpy.roll": Rolled,
    "two-piece copy": TwoPieces,
    "shift in place": Shifted,
    "write twice": WrittenTwice,
}


def step(ring: Ring, block: np.ndarray) -> np.ndarray:
    """Push a block and read all."""
    ring.push(block)
    return ring.last(KEPT)


def check(ours: Ring, theirs: Ring) -> None:
    """Find that both give the same, around the end too."""
    random = np.random.default_rng(1)
    for _ in range(40):
        block = random.random(BLOCK)
        assert np.array_equal(step(ours, block), step(theirs, block))
    for n in (1, 100, BLOCK - 1):
        block = random.random(n)
        assert np.array_equal(step(ours, block), step(theirs, block))


def measure_rings(wanted: str) -> None:
    """Print a row for each peer."""
    print(f"{'push 4 KiB, read 64 KiB':<28}{'theirs / ours':>16}{'theirs':>12}{'ours':>12}")
    block = np.random.default_rng(2).random(BLOCK)
    for name, kind in PEERS.items():
        if wanted not in name:
            continue
        with sparsearray.ring(KEPT) as ours:
            theirs = kind(KEPT)
            ours.push(np.zeros(KEPT))
            check(ours, theirs)
            one, two = timed(lambda o=ours: step(o, block)), timed(lambda t=theirs: step(t, block))
            found = side_by_side(two, one, SECONDS)
        ratio = statistics.median(found.ratios)
        print(f"{name:<28}{ratio:>14.2f} x{found.ours * 1e6:>9.2f} us{found.theirs * 1e6:>9.2f} us")


def weigh_pickles() -> None:
    """Print how many bytes arrays of a terabyte take as pickles."""
    shape = 1 << 18, 1 << 19
    with tempfile.TemporaryDirectory() as folder, sparsearray.shared_memory(1 << 40) as memory:
        arrays = {
            "in a file": sparsearray.open(Path(folder, "a.npy"), "w+", shape=shape),
            "in a file, in tiles": sparsearray.open(
                Path(folder, "b.npy"), "w+", shape=shape, tiles="auto"
            ),
            "in shared memory": sparsearray.open(memory, "r+", dtype="f8", shape=shape),
            "in memory, 100 pages written": sparsearray.zeros(shape),
        }
        print(f"\n{'a terabyte':<36}{'pickled':>12}{'stored':>12}")
        for name, array in arrays.items():
            for i in range(100):
                array[i * 2000, i * 3000] = i + 1
            data = pickle.dumps(array)
            with pickle.loads(data) as again:  # noqa: S301 - our own
                assert again.sum() == 5050
            print(f"{name:<36}{len(data):>12,}{array.nbytes_stored:>12,}")
            array.close()


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("-k", default="", help="rows whose name has this")
    arguments = parser.parse_args()
    print(f"numpy {np.__version__}, {os.cpu_count()} processors")
    measure_rings(arguments.k)
    if arguments.k in "pickles":
        weigh_pickles()


if __name__ == "__main__":
    main()
