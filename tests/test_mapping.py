"""Calls that map pages: what they put there, and how neighbours join."""

import errno
import mmap
import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest

from sparsearray import (
    AccessError,
    ClosedError,
    OutOfBoundsError,
    Region,
    SparseBuffer,
)

P = mmap.PAGESIZE
MIB, GIB, TIB = 1 << 20, 1 << 30, 1 << 40
FILE_PAGES = 16


# What each kind of mapping call does: (call, bytes read afterwards, region without its place).
def map_kind(buffer, kind, offset, nbytes, path, file_offset):
    """Map a range in one of the ways there are."""
    if kind == "private":
        buffer.alloc(offset, nbytes)
    elif kind == "zero":
        buffer.map_zero(offset, nbytes)
    elif kind == "unmap":
        buffer.unmap(offset, nbytes)
    elif kind == "raw":
        buffer.mmap_anonymous(offset, nbytes, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE)
    else:
        buffer.map_file(
            offset,
            nbytes,
            path,
            file_offset,
            writable=kind == "file-shared",
            copy_on_write=kind == "file-cow",
        )


KINDS = ["private", "zero", "unmap", "raw", "file-read", "file-shared", "file-cow"]
WRITABLE = {"private", "raw", "file-shared", "file-cow"}


class Pages:
    """What must be there, page by page: (kind, bytes, page of the file)."""

    def __init__(self, count: int) -> None:
        self.pages: list[tuple[str, bytes, int, int] | None] = [None] * count
        self.calls = 0

    def map(self, kind: str, start: int, stop: int, data: bytes, file_page: int) -> None:
        """Note what a mapping call puts there."""
        self.calls += 1
        for i in range(start, stop):
            at = file_page + i - start
            content = data[at * P : (at + 1) * P] if kind.startswith("file") else bytes(P)
            self.pages[i] = None if kind == "unmap" else (kind, content, at, self.calls)

    def check(self, buffer: SparseBuffer) -> None:
        """Compare bytes and regions."""
        for i, page in enumerate(self.pages):
            if page is None:
                with pytest.raises(AccessError) as caught:
                    buffer.read_at(i * P + 5, 1)
                assert caught.value.offset == i * P + 5
            else:
                assert buffer.read_at(i * P, P) == page[1]
        assert [region[:4] for region in buffer.regions] == self.regions()

    def regions(self) -> list[tuple[int, int, str, bool]]:
        """Join pages that are mapped the same way."""
        found: list[tuple[int, int, str, bool]] = []
        last = None
        for i, page in enumerate(self.pages):
            if page is not None:
                kind, _, at, call = page
                joined = last is not None and last[0] == kind
                if kind.startswith("file"):
                    joined = joined and last[2] + 1 == at
                if kind == "raw":
                    joined = joined and last[3] == call
                if joined:
                    start, nbytes, *rest = found.pop()
                    found.append((start, nbytes + P, *rest))
                else:
                    found.append((i * P, P, kind.split("-")[0], kind in WRITABLE))
            last = page
        return found


@pytest.mark.parametrize("new", KINDS)
@pytest.mark.parametrize("old", KINDS)
def test_replaces_at_any_overlap(old, new, data_file):
    """A mapping call replaces what was in its range, and leaves the rest with its bytes."""
    path, data = data_file
    for start, stop in [(0, 8), (0, 3), (3, 8), (2, 5), (4, 5), (0, 12), (6, 10), (8, 12), (9, 11)]:
        with SparseBuffer(12 * P) as buffer:
            expected = Pages(12)
            map_kind(buffer, old, 0, 8 * P, path, 2 * P)
            expected.map(old, 0, 8, data, 2)
            if old in WRITABLE - {"file-shared"}:
                written = bytes(range(1, 251)) * (8 * P // 250)
                buffer.write_at(0, written)
                for i in range(7):
                    kind, _, at, call = expected.pages[i]
                    expected.pages[i] = (kind, written[i * P : (i + 1) * P], at, call)
                tail = written[7 * P :]
                kind, was, at, call = expected.pages[7]
                expected.pages[7] = (kind, tail + was[len(tail) :], at, call)
            map_kind(buffer, new, start * P, (stop - start) * P, path, P)
            expected.map(new, start, stop, data, 1)
            expected.check(buffer)


def test_random_walk(data_file):
    """After a thousand random mapping calls bytes and regions are as a list of pages says."""
    path, data = data_file
    rng = random.Random(5)
    with SparseBuffer(24 * P) as buffer:
        expected = Pages(24)
        for step in range(1000):
            start = rng.randrange(24)
            stop = rng.randint(start + 1, min(24, start + 8))
            kind = rng.choice(KINDS)
            file_page = rng.randint(0, FILE_PAGES - (stop - start))
            map_kind(buffer, kind, start * P, (stop - start) * P, path, file_page * P)
            expected.map(kind, start, stop, data, file_page)
            if step % 10 == 0:
                expected.check(buffer)
        expected.check(buffer)


# ------------------------------------------------------------------------------ arguments

CALLS = {
    "alloc": lambda b, offset, nbytes: b.alloc(offset, nbytes),
    "alloc reserved": lambda b, offset, nbytes: b.alloc(offset, nbytes, reserve=True),
    "map_zero": lambda b, offset, nbytes: b.map_zero(offset, nbytes),
    "map_file": lambda b, offset, nbytes: b.map_file(offset, nbytes, sys.executable),
    "mmap": lambda b, offset, nbytes: b.mmap(
        offset, nbytes, mmap.PROT_READ, mmap.MAP_PRIVATE, sys.executable
    ),
    "mmap_anonymous": lambda b, offset, nbytes: b.mmap_anonymous(
        offset, nbytes, mmap.PROT_READ, mmap.MAP_PRIVATE
    ),
    "unmap": lambda b, offset, nbytes: b.unmap(offset, nbytes),
    "set_writable": lambda b, offset, nbytes: b.set_writable(offset, nbytes, False),
    "decommit": lambda b, offset, nbytes: b.decommit(offset, nbytes),
    "commit": lambda b, offset, nbytes: b.commit(offset, nbytes),
    "advise": lambda b, offset, nbytes: b.advise(offset, nbytes, "random"),
    "bind_numa": lambda b, offset, nbytes: b.bind_numa(offset, nbytes, 0),
    "set_name": lambda b, offset, nbytes: b.set_name(offset, nbytes, "label"),
}
NEEDS_PAGES = ["set_writable", "decommit", "commit", "advise", "bind_numa", "set_name"]


@pytest.mark.parametrize(
    ("offset", "nbytes"),
    [
        (1, P), (P - 1, P), (0, 1), (0, P - 1), (0, P + 1), (P, 0), (0, 0), (8 * P, 0),
        (-P, P), (P, -P), (-1, P), (0, -1), (-(1 << 63), P), (0, -(1 << 63)), (-(1 << 80), P),
        (0, -(1 << 80)), (7, 7),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", CALLS)
def test_not_whole_pages(name, offset, nbytes, filled):
    """Ranges that are negative, empty or not in whole pages are ValueErrors; nothing changes."""
    with pytest.raises(ValueError) as caught:
        CALLS[name](filled, offset, nbytes)
    assert not isinstance(caught.value, ClosedError)


@pytest.mark.parametrize(
    ("offset", "nbytes"),
    [
        (8 * P, P), (7 * P, 2 * P), (0, 9 * P), (1 << 40, P), (P, (1 << 63) - P), ((1 << 63) - P, P),
        ((1 << 63) - P, (1 << 63) - P), (1 << 63, P), (0, 1 << 63), (0, 1 << 64), (1 << 64, P),
        (1 << 90, 1 << 90),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", CALLS)
def test_past_the_end(name, offset, nbytes, filled):
    """Ranges past the end are OutOfBoundsErrors with the buffer's length; nothing changes."""
    with pytest.raises(OutOfBoundsError, match=rf"{8 * P:#x} \({8 * P}\)"):
        CALLS[name](filled, offset, nbytes)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("bad", [1.0, "0", None, b"bytes"])
def test_not_ints(name, bad, filled):
    """Offsets and lengths that are no integers are TypeErrors; nothing changes."""
    with pytest.raises(TypeError):
        CALLS[name](filled, bad, P)
    with pytest.raises(TypeError):
        CALLS[name](filled, 0, bad)


@pytest.mark.parametrize("name", NEEDS_PAGES)
@pytest.mark.parametrize("hole", [0, 3, 7])
def test_calls_that_need_pages_refuse_holes(name, hole, pattern):
    """Where a page of the range is a hole, the call names its first byte and changes nothing."""
    data = pattern(8 * P)
    with SparseBuffer(8 * P) as buffer:
        buffer.alloc(0, 8 * P)
        buffer.write_at(0, data)
        buffer.unmap(hole * P, P)
        before = buffer.regions
        with pytest.raises(AccessError) as caught:
            CALLS[name](buffer, 0, 8 * P)
        assert caught.value.reason == "unmapped"
        assert caught.value.offset == hole * P
        assert caught.value.transferred == 0
        assert buffer.regions == before
        for i in set(range(8)) - {hole}:
            assert buffer.read_at(i * P, P) == data[i * P : (i + 1) * P]


def test_first_hole_within_the_range_counts():
    """Holes before and behind the range do not matter."""
    with SparseBuffer(8 * P) as buffer:
        buffer.alloc(2 * P, 3 * P)
        buffer.set_writable(2 * P, 3 * P, False)
        with pytest.raises(AccessError) as caught:
            buffer.set_writable(3 * P, 5 * P, True)
        assert caught.value.offset == 5 * P
        assert buffer.regions == (Region(2 * P, 3 * P, "private", False, None, None),)


# ------------------------------------------------------------------------------ alloc, zero, unmap


def test_alloc_is_writable_zeros():
    """Fresh memory reads as zero, and keeps what is written."""
    with SparseBuffer(4 * P) as buffer:
        buffer.alloc(P, 2 * P)
        assert buffer.read_at(P, 2 * P) == bytes(2 * P)
        buffer.write_at(2 * P - 2, b"across")
        assert buffer.read_at(2 * P - 3, 8) == b"\0across\0"


def test_alloc_again_is_fresh():
    """Allocating over written memory gives zeros again."""
    with SparseBuffer(4 * P) as buffer:
        buffer.alloc(0, 4 * P)
        buffer.fill_at(0, 255, 4 * P)
        buffer.alloc(P, P)
        expected = b"\xff" * P + bytes(P) + b"\xff" * 2 * P
        assert buffer.read_at(0, 4 * P) == expected


def test_terabyte(resident):
    """A terabyte is allocated at once, and costs what is touched."""
    if Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "2":
        pytest.skip("vm.overcommit_memory is 2: this system promises no memory it does not have")
    with SparseBuffer(TIB + 2 * P) as buffer:
        buffer.alloc(P, TIB)
        offsets = [P, P + TIB // 2 + 3, TIB - 5]
        for offset in offsets:
            buffer.write_at(offset, offset.to_bytes(8, "little"))
        assert [int.from_bytes(buffer.read_at(at, 8), "little") for at in offsets] == offsets
        assert resident(buffer) <= 8 * P


def test_reserved_memory_is_promised_or_refused():
    """With reserve=True the kernel refuses at once what it cannot promise, and nothing changes."""
    with SparseBuffer(8 * TIB) as buffer:
        buffer.alloc(0, P)
        buffer.write_at(0, b"old")
        before = buffer.regions
        if Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "1":
            buffer.alloc(0, 8 * TIB, reserve=True)
            return
        with pytest.raises(OSError) as caught:
            buffer.alloc(0, 8 * TIB, reserve=True)
        assert caught.value.errno == errno.ENOMEM
        assert buffer.regions == before
        assert buffer.read_at(0, 3) == b"old"
        buffer.alloc(P, MIB, reserve=True)
        buffer.write_at(P, b"new")
        assert buffer.read_at(0, P + 3) == b"old" + bytes(P - 3) + b"new"


@pytest.mark.parametrize("nbytes", [n + step for n in (MIB, 2 * MIB) for step in (-P, 0, P)])
def test_sizes_around_large_pages(nbytes, pattern):
    """Memory of sizes around a large page holds every byte."""
    data = pattern(nbytes)
    with SparseBuffer(nbytes + 2 * P) as buffer:
        buffer.alloc(P, nbytes)
        buffer.write_at(P, data)
        assert buffer.read_at(P, nbytes) == data
        with pytest.raises(AccessError):
            buffer.read_at(P, nbytes + 1)
        with pytest.raises(AccessError):
            buffer.read_at(P - 1, nbytes)


@pytest.mark.parametrize("nbytes", [GIB - P, GIB, GIB + P])
def test_sizes_around_a_gibibyte(nbytes, resident):
    """Memory of sizes around 1 GiB ends where it should, and costs what is touched."""
    with SparseBuffer(nbytes + 2 * P) as buffer:
        buffer.alloc(P, nbytes)
        buffer.write_at(P + nbytes - 4, b"last")
        assert buffer.read_at(P + nbytes - 5, 5) == b"\0last"
        with pytest.raises(AccessError) as caught:
            buffer.write_at(P + nbytes - 3, b"over")
        assert caught.value.offset == P + nbytes
        assert resident(buffer) <= 4 * MIB


def test_zero_pages_are_read_only():
    """Zero pages read as zero and refuse writes."""
    with SparseBuffer(2 * P) as buffer:
        buffer.map_zero(0, 2 * P)
        assert buffer.read_at(0, 2 * P) == bytes(2 * P)
        with pytest.raises(AccessError, match="read-only"):
            buffer.write_at(P, b"x")


def test_zero_pages_cost_nothing(resident):
    """Reading half a gibibyte of zero pages takes no memory of one's own."""
    with SparseBuffer(GIB) as buffer:
        buffer.map_zero(2 * MIB, 512 * MIB)
        assert buffer.window(2 * MIB, 512 * MIB // 8, "u8").max() == 0
        assert buffer.read_at(3 * MIB, MIB) == bytes(MIB)
        assert resident(buffer) <= 4 * MIB


def test_unmapped_memory_is_given_back(resident):
    """Unmapping gives the pages back to the system, and leaves the neighbours."""
    with SparseBuffer(66 * MIB) as buffer:
        buffer.alloc(MIB, 64 * MIB)
        buffer.fill_at(MIB, 1, 64 * MIB)
        assert resident(buffer) >= 64 * MIB
        buffer.unmap(2 * MIB, 62 * MIB)
        assert resident(buffer) <= 3 * MIB
        assert buffer.read_at(MIB, MIB) == b"\1" * MIB
        assert buffer.read_at(64 * MIB, MIB) == b"\1" * MIB


def test_unmapping_holes_is_fine(mappings):
    """Unmapping what is not mapped does nothing, and the range stays reserved."""
    with SparseBuffer(8 * P) as buffer:
        buffer.unmap(0, 8 * P)
        buffer.alloc(3 * P, P)
        buffer.unmap(0, 8 * P)
        assert buffer.regions == ()
        assert {one.perms for one in mappings(buffer)} == {"---p"}
        assert sum(one.stop - one.start for one in mappings(buffer)) == 8 * P


# ------------------------------------------------------------------------------ joining


def in_order(order: str, count: int) -> list[int]:
    """Return page numbers in order, backwards, or shuffled."""
    pages = list(range(count))
    if order == "backwards":
        pages.reverse()
    if order == "random":
        random.Random(9).shuffle(pages)
    return pages


@pytest.mark.parametrize("order", ["forwards", "backwards", "random"])
@pytest.mark.parametrize("write", [False, True])
def test_60000_neighbours_are_one(order, write, mappings, linux_core):
    """60,000 pages allocated one by one end as one region and one kernel mapping."""
    count = 60_000
    if write and not linux_core:
        pytest.skip("on POSIX alone each page is mapped anew, and the kernel keeps them apart")
    if order == "random" and not linux_core:
        count = 10_000
    with SparseBuffer((count + 2) * P) as buffer:
        for page in in_order(order, count):
            buffer.alloc((page + 1) * P, P)
            if write:
                buffer.write_at((page + 1) * P, page.to_bytes(4, "little"))
        assert buffer.regions == (Region(P, count * P, "private", True, None, None),)
        readable = [one for one in mappings(buffer, "maps") if one.perms != "---p"]
        assert [one[:3] for one in readable] == [(P, (count + 1) * P, "rw-p")]
        if write:
            numbers = buffer.gather(np.arange(1, count + 1) * P, "u4")
            assert np.array_equal(numbers, np.arange(count))


@pytest.mark.parametrize("order", ["forwards", "backwards", "random"])
def test_zero_neighbours_are_one(order, mappings):
    """Zero pages mapped one by one join as private memory does."""
    count = 5000
    with SparseBuffer((count + 2) * P) as buffer:
        for page in in_order(order, count):
            buffer.map_zero((page + 1) * P, P)
        assert buffer.regions == (Region(P, count * P, "zero", False, None, None),)
        readable = [one for one in mappings(buffer, "maps") if one.perms != "---p"]
        assert [one[:3] for one in readable] == [(P, (count + 1) * P, "r--p")]


@pytest.mark.parametrize("order", ["forwards", "backwards", "random"])
@pytest.mark.parametrize("mode", ["read", "shared", "cow"])
def test_file_neighbours_are_one(order, mode, mappings, tmp_path):
    """Windows of a file that continue each other join, in the table and in the kernel."""
    count, path = 3000, tmp_path / "long"
    path.touch()
    os.truncate(path, (count + 3) * P)
    with SparseBuffer((count + 2) * P) as buffer:
        for page in in_order(order, count):
            map_kind(buffer, f"file-{mode}", (page + 1) * P, P, path, (page + 3) * P)
        writable = mode != "read"
        assert buffer.regions == (Region(P, count * P, "file", writable, str(path), 3 * P),)
        mapped = [one for one in mappings(buffer, "maps") if one.perms != "---p"]
        assert [(one.start, one.stop, one.file_offset) for one in mapped] == [
            (P, (count + 1) * P, 3 * P)
        ]


def test_holes_and_memory_take_two_mappings_each(mappings, linux_core):
    """Unmapping and allocating over and over leaves no more kernel mappings than regions."""
    if not linux_core:
        pytest.skip("on POSIX alone each page is mapped anew, and the kernel keeps them apart")
    rng = random.Random(3)
    with SparseBuffer(66 * P) as buffer:
        for _ in range(2000):
            start = rng.randint(1, 64)
            stop = rng.randint(start + 1, 65)
            if rng.random() < 0.5:
                buffer.unmap(start * P, (stop - start) * P)
            else:
                buffer.alloc(start * P, (stop - start) * P)
                buffer.fill_at(start * P, 1, (stop - start) * P)
        readable = [one for one in mappings(buffer, "maps") if one.perms != "---p"]
        assert [(one.start, one.stop - one.start) for one in readable] == [
            region[:2] for region in buffer.regions
        ]
