"""Time two pieces of work in turn, and the bare calls in C."""

import ctypes
import itertools
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

Work = Callable[[], Any]
Timed = Callable[[int], float]  # takes a number of calls, gives seconds for one

_PIECE = 0.0005  # seconds of one side at a time
_FEWEST, _MOST = 15, 1001  # pairs


class Figures(NamedTuple):
    """Ratios of the pairs, and the median seconds of each side."""

    ratios: list[float]
    ours: float
    theirs: float

    @classmethod
    def of(cls, pairs: list[tuple[float, float]]) -> "Figures":
        """Sum up pairs of ours and theirs."""
        ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
        return cls([a / b for a, b in pairs], ours, theirs)


def timed(work: Work) -> Timed:
    """Time a Python function, the call included."""

    def run(count: int) -> float:
        start = time.perf_counter()
        for _ in itertools.repeat(None, count):
            work()
        return (time.perf_counter() - start) / count

    return run


def side_by_side(ours: Timed, theirs: Timed, seconds: float) -> Figures:
    """
    Time both in turn, for about `seconds` in all.

    The pieces are shorter than what a scheduler gives a process at once: on a busy machine most
    pairs then run undisturbed, and the median is one of those.
    """
    slower = max(min(side(1) for _ in range(3)) for side in (ours, theirs))
    count = max(1, int(_PIECE / max(slower, 1e-7)))
    pairs = []
    for i in range(max(_FEWEST, min(_MOST, int(seconds / (2 * count * slower))))):
        if i % 2:
            second, first = theirs(count), ours(count)
        else:
            first, second = ours(count), theirs(count)
        pairs.append((first, second))
    return Figures.of(pairs)


def seconds(work: Work) -> float:
    """Time one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def pairs(ours: Work, theirs: Work, count: int = 9) -> list[tuple[float, float]]:
    """Time both in turn, after one round that does not count."""
    ours(), theirs()
    found = []
    for i in range(count):
        first = seconds(ours) if i % 2 else None
        other = seconds(theirs)
        found.append((seconds(ours) if first is None else first, other))
    return found


class SkipError(Exception):
    """A row cannot be measured here."""


def compile_bare(library: Path) -> ctypes.CDLL:
    """Compile the calls in bare.c."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise SkipError("no C compiler, cc")
    source = Path(__file__).with_name("bare.c")
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", library, source]
    subprocess.run(command, check=True)
    return load_bare(library)


def load_bare(library: Path) -> ctypes.CDLL:
    """Load the compiled calls."""
    bare = ctypes.CDLL(str(library))
    bare.reserve_and_alloc.restype = ctypes.c_double
    bare.reserve_and_alloc.argtypes = [ctypes.c_uint64, ctypes.c_int, ctypes.c_int]
    bare.single_pages.restype = ctypes.c_uint64
    pointers = ctypes.c_void_p, ctypes.c_void_p
    bare.single_pages.argtypes = [pointers[0], ctypes.c_int, ctypes.c_uint64, pointers[1]]
    return bare


def mappings_in(start: int, stop: int) -> int:
    """Count the kernel's mappings that lie in a range of addresses, or reach into it."""
    count = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(text, 16) for text in line.split()[0].split("-"))
        count += low < stop and high > start
    return count
