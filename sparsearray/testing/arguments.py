"""The arguments that `SparseBufferMachine` draws for its steps.

Each is a strategy, or what one is made of. Most draw what succeeds, and now and then what must not.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from sparsearray.testing.strategies import LAYOUTS, layouts, lengths, mostly, offsets, page_ranges

if TYPE_CHECKING:
    from sparsearray.testing.stateful import SparseBufferMachine

__all__ = [
    "ACCESSES",
    "ATOMICS",
    "ATOMIC_DTYPES",
    "BAD_FLAGS",
    "CONTENTS",
    "DATA",
    "FILE_OFFSETS",
    "FILE_RANGES",
    "FILE_SIZES",
    "FLAGS",
    "HANDLES",
    "MAPPED_RANGES",
    "OFFSETS",
    "OPERANDS",
    "PAGE",
    "PLACES",
    "PLANS",
    "PROTECTIONS",
    "RANGES",
    "SHAPES",
    "SOME",
    "STRIDES",
    "WRITABLE",
]

PROTECTIONS = (
    mmap.PROT_READ,
    mmap.PROT_READ | mmap.PROT_WRITE,
    mmap.PROT_WRITE,
    0,  # PROT_NONE
)
FLAGS = (
    mmap.MAP_SHARED,
    mmap.MAP_PRIVATE,
    mmap.MAP_PRIVATE | mmap.MAP_STACK,
)
BAD_FLAGS = (
    mmap.MAP_SHARED | mmap.MAP_PRIVATE,  # both
    0,  # neither
    mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
    mmap.MAP_PRIVATE | 0x10,  # MAP_FIXED
    mmap.MAP_PRIVATE | 1 << 30,
    mmap.MAP_PRIVATE | 1 << 40,
)
HANDLES = st.sampled_from(["path", "descriptor", "object", "read-only"])

PAGE = mmap.PAGESIZE
SOME = st.integers(0, 99)  # taken modulo the number of things there are
WRITABLE = st.sampled_from([None, None, True, False])


def _machine(make: Callable[[SparseBufferMachine], st.SearchStrategy[Any]]) -> Any:
    """A strategy that depends on the machine that draws from it."""
    return st.runner().flatmap(make)


def _near_mapped(
    make: Callable[[int], st.SearchStrategy[tuple[int, int]]],
) -> Callable[[SparseBufferMachine], st.SearchStrategy[tuple[int, int]]]:
    """Ranges that `make` draws for so many bytes, mostly put where something is mapped."""

    def draw_from(machine: SparseBufferMachine) -> st.SearchStrategy[tuple[int, int]]:
        anywhere, runs = make(machine.model.nbytes), machine.model.mapped_runs()
        if not runs:
            return anywhere
        somewhere = st.sampled_from(runs).flatmap(
            lambda run: make(run[1]).map(lambda span: (run[0] + span[0], span[1]))
        )
        return mostly(somewhere, anywhere)

    return draw_from


@st.composite
def _spans(draw: st.DrawFn, nbytes: int) -> tuple[int, int]:
    """An offset and a length that mostly fit."""
    offset = draw(offsets(nbytes, page_size=PAGE, wild=True))
    length = draw(lengths(nbytes, page_size=PAGE, wild=True))
    return offset, length if draw(st.integers(0, 7)) == 7 else min(length, max(nbytes - offset, 0))


def _pages(nbytes: int) -> st.SearchStrategy[tuple[int, int]]:
    return page_ranges(nbytes // PAGE, page_size=PAGE, wild=True)


RANGES = _machine(lambda machine: _pages(machine.model.nbytes))
MAPPED_RANGES = _machine(_near_mapped(_pages))
ACCESSES = _machine(_near_mapped(_spans))
OFFSETS = ACCESSES.map(lambda access: access[0])
_INT64_OFFSETS = OFFSETS.filter(lambda offset: -(2**63) <= offset < 2**63)
PLACES = st.lists(_INT64_OFFSETS, max_size=6)
FILE_RANGES = RANGES.map(lambda span: (span[0], min(span[1], 3 * PAGE)))
FILE_SIZES = st.builds(
    lambda pages, more: pages * PAGE + more,
    mostly(st.integers(1, 7), st.just(0)),
    st.sampled_from([0, 0, 1, 5, PAGE - 5, PAGE - 1]),
)
FILE_OFFSETS = mostly(
    st.integers(0, 4).map(lambda page: page * PAGE), st.sampled_from([-PAGE, 1, 2**62, 2**70])
)
SHAPES = st.one_of(
    st.lists(st.integers(0, 5), max_size=3).map(tuple),
    st.sampled_from([PAGE - 1, 2 * PAGE, 5 * PAGE]),
    st.tuples(st.integers(0, 9), st.integers(-1, 700)),
)
STRIDES = mostly(
    st.none(),
    st.lists(
        st.sampled_from([0, 1, 2, 8, -1, -8, 100, PAGE, -PAGE, 3 * PAGE]),
        min_size=1,
        max_size=3,
    ).map(tuple),
)
_FULL = ("single", "single-full", "multi-full", "middle", "ends", "random-pages")
PLANS = layouts(mostly(st.sampled_from(_FULL), st.sampled_from(LAYOUTS)), page_size=PAGE)
CONTENTS = st.lists(
    st.sampled_from(["private", "zero", "file", "shared", "shared", "copy"]),
    min_size=1,
    max_size=4,
)


DATA = st.binary(min_size=1, max_size=40)


ATOMICS = {
    "load": 0, "store": 1, "exchange": 1, "compare_exchange": 2,
    "fetch_add": 1, "fetch_sub": 1, "fetch_and": 1, "fetch_or": 1, "fetch_xor": 1,
}  # fmt: skip
ATOMIC_DTYPES = mostly(
    st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"]),
    st.sampled_from([">u2", "<u2", ">i8", "f4", "?"]),
)
OPERANDS = st.integers(0, 127) | st.sampled_from(
    [
        sign * 2**bits - down
        for bits in (7, 8, 15, 16, 31, 32, 63, 64)
        for sign in (1, -1)
        for down in (0, 1)
    ]
)
