"""Calls that map pages: what they put there, and that a failed one has changed nothing."""

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
    UnsupportedError,
)

P = mmap.PAGESIZE
MIB, GIB, TIB = 1 << 20, 1 << 30, 1 << 40
FILE_PAGES = 16


@pytest.fixture
def data_file(make_file):
    """Make a file of 16 pages, and tell what is in it."""
    return make_file(FILE_PAGES * P)


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


@pytest.fixture
def filled():
    """Make a buffer of 8 pages, all private and written to."""
    with SparseBuffer(8 * P) as buffer:
        buffer.alloc(0, 8 * P)
        buffer.fill_at(0, 0xAB, 8 * P)
        yield buffer
        assert buffer.regions == (Region(0, 8 * P, "private", True, None, None),)
        assert buffer.read_at(0, 8 * P) == b"\xab" * (8 * P)


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


# ------------------------------------------------------------------------------ failed calls


@pytest.fixture
def unchanged(data_file, mappings):
    """Make a buffer with something of everything; at the end all of it must still be there."""
    path, data = data_file
    with SparseBuffer(64 * MIB) as buffer:
        buffer.alloc(0, 4 * P)
        buffer.write_at(0, data[: 4 * P])
        buffer.map_file(4 * P, 4 * P, path, 4 * P, copy_on_write=True)
        buffer.write_at(5 * P, b"mine")
        buffer.map_zero(8 * P, P)
        buffer.alloc(2 * MIB, 4 * MIB)
        buffer.fill_at(2 * MIB, 7, 4 * MIB)
        before = buffer.regions, buffer.read_at(0, 9 * P)
        yield buffer
        assert (buffer.regions, buffer.read_at(0, 9 * P)) == before
        assert buffer.read_at(2 * MIB, 4 * MIB) == b"\7" * 4 * MIB
        found = mappings(buffer, "maps")
        assert sum(one.stop - one.start for one in found) == 64 * MIB  # no gap
        assert {one.path for one in found} <= {"", str(path)} | {
            one.path for one in found if one.path.startswith("[anon")
        }


def test_missing_file_changes_nothing(unchanged, tmp_path):
    """A file that is not there leaves the old mapping."""
    with pytest.raises(FileNotFoundError):
        unchanged.map_file(0, 4 * P, tmp_path / "none")


def test_directory_changes_nothing(unchanged, tmp_path):
    """A directory leaves the old mapping."""
    with pytest.raises(IsADirectoryError):
        unchanged.map_file(0, 4 * P, tmp_path)


def test_fifo_changes_nothing(unchanged, tmp_path):
    """A FIFO is refused without waiting for its other end, and leaves the old mapping."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError) as caught:
        unchanged.map_file(0, 4 * P, tmp_path / "fifo")
    assert caught.value.errno == errno.ENODEV


def test_pipe_changes_nothing(unchanged):
    """The descriptor of a pipe leaves the old mapping."""
    read, write = os.pipe()
    try:
        with pytest.raises(OSError) as caught:
            unchanged.map_file(0, 4 * P, read)
        assert caught.value.errno == errno.ENODEV
    finally:
        os.close(read)
        os.close(write)


def test_write_only_descriptor_changes_nothing(unchanged, data_file):
    """A descriptor that cannot read leaves the old mapping."""
    fd = os.open(data_file[0], os.O_WRONLY)
    try:
        with pytest.raises(PermissionError):
            unchanged.map_file(0, 4 * P, fd, writable=True)
        with pytest.raises(PermissionError):
            unchanged.map_file(0, 4 * P, fd)
    finally:
        os.close(fd)


def test_read_only_descriptor_changes_nothing(unchanged, data_file):
    """A writable window of a descriptor that cannot write leaves the old mapping."""
    with open(data_file[0], "rb") as file, pytest.raises(PermissionError) as caught:
        unchanged.map_file(0, 4 * P, file, writable=True)
    assert caught.value.errno == errno.EACCES
    assert caught.value.filename == str(data_file[0])


def test_closed_descriptor_changes_nothing(unchanged, data_file):
    """A descriptor that is not open leaves the old mapping."""
    fd = os.open(data_file[0], os.O_RDONLY)
    os.close(fd)
    with pytest.raises(OSError) as caught:
        unchanged.map_file(0, 4 * P, fd)
    assert caught.value.errno == errno.EBADF


def test_window_past_the_end_changes_nothing(unchanged, data_file):
    """A window past the end of its file leaves the old mapping."""
    with pytest.raises(ValueError, match="past the end"):
        unchanged.map_file(0, 4 * P, data_file[0], (FILE_PAGES - 3) * P)


def test_sysfs_file_changes_nothing(unchanged):
    """A file that says it has a page but cannot be mapped leaves the old mapping."""
    attribute = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not attribute.exists():
        pytest.skip("this kernel has no such file in /sys")
    for offset in (0, 4 * P):
        with pytest.raises(OSError) as caught:
            unchanged.map_file(offset, P, attribute)
        assert caught.value.errno == errno.ENODEV
        assert caught.value.filename == str(attribute)


def test_empty_huge_page_pool_changes_nothing(unchanged):
    """Huge pages that the pool does not have leave the old mapping."""
    pool = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
    if not pool.exists():
        pytest.skip("this kernel has no huge pages of 2 MiB")
    fd = os.memfd_create("huge", os.MFD_CLOEXEC | os.MFD_HUGETLB | os.MFD_HUGE_2MB)
    try:
        pages = int((pool / "free_hugepages").read_text()) + 1
        os.truncate(fd, max(pages, 2) * 2 * MIB)
        if pages > 30:
            pytest.skip("the pool of huge pages is larger than the buffer of this test")
        nbytes = max(pages, 2) * 2 * MIB
        with pytest.raises(OSError) as caught:
            unchanged.map_file(2 * MIB, nbytes, fd, writable=True)
        assert caught.value.errno == errno.ENOMEM
    finally:
        os.close(fd)


@pytest.mark.slow
def test_mapping_limit_changes_nothing(run_ok):
    """At vm.max_map_count the error says so with its value, and all that was there is still there."""
    limit = int(Path("/proc/sys/vm/max_map_count").read_text())
    if limit > 300_000:
        pytest.skip("vm.max_map_count is so high that reaching it takes minutes")
    out = run_ok("""
        with open("/proc/sys/vm/max_map_count") as file:
            limit = int(file.read())
        buffer = SparseBuffer(limit * 2 * P)
        buffer.alloc(0, 16 * P)
        buffer.fill_at(0, 9, 16 * P)
        page, error = 17, None
        while error is None:
            try:
                buffer.alloc(page * P, P)
                page += 2
            except OSError as caught:
                error = caught
        assert error.errno == errno.ENOMEM, error
        assert "vm.max_map_count" in str(error) and str(limit) in str(error), error
        calls = [
            (buffer.alloc, page * P, P), (buffer.map_zero, 3 * P, P), (buffer.unmap, 3 * P, P),
            (buffer.set_writable, 3 * P, P, False), (buffer.map_file, 3 * P, P, sys.executable),
            (buffer.mmap_anonymous, 3 * P, P, mmap.PROT_READ, mmap.MAP_SHARED),
        ]
        for call in calls:
            error = failure(*call)
            assert isinstance(error, OSError) and error.errno == errno.ENOMEM, (call, error)
            assert "max_map_count" in str(error), error
            assert buffer.read_at(0, 16 * P) == b"\\x09" * 16 * P, call
        assert all(buffer.read_at(start * P, P) == bytes(P) for start in range(17, page, 2))
        # At the limit Python has no memory for long lists either: make room.
        buffer.unmap((page - 1000) * P, 1000 * P)
        expected = [(start * P, P, "private", True, None, None) for start in range(17, page - 1000, 2)]
        assert list(buffer.regions) == [(0, 16 * P, "private", True, None, None), *expected]
        buffer.alloc(16 * P, (page - 16) * P)  # joins them all
        assert buffer.regions == (Region(0, page * P, "private", True, None, None),)
        assert buffer.read_at(0, 17 * P) == b"\\x09" * 16 * P + bytes(P)
        buffer.map_zero(3 * P, P)
        print("done")
    """)
    assert out == "done\n"


# ------------------------------------------------------------------------------ set_writable


def test_set_writable_keeps_bytes(pattern, mappings):
    """Forbidding writes refuses them, and allowing them again finds the bytes as they were."""
    data = pattern(4 * P)
    with SparseBuffer(4 * P) as buffer:
        buffer.alloc(0, 4 * P)
        buffer.write_at(0, data)
        buffer.set_writable(P, 2 * P, False)
        assert [region[:4] for region in buffer.regions] == [
            (0, P, "private", True),
            (P, 2 * P, "private", False),
            (3 * P, P, "private", True),
        ]
        assert [one.perms for one in mappings(buffer)] == ["rw-p", "r--p", "rw-p"]
        with pytest.raises(AccessError, match="read-only"):
            buffer.write_at(P, b"x")
        assert buffer.read_at(0, 4 * P) == data
        buffer.set_writable(P, 2 * P, True)
        buffer.write_at(P, b"x")
        assert buffer.read_at(0, 4 * P) == data[:P] + b"x" + data[P + 1 :]
        assert buffer.regions == (Region(0, 4 * P, "private", True, None, None),)


def test_writable_zero_pages_become_memory():
    """Zero pages that are made writable are private memory from then on."""
    with SparseBuffer(4 * P) as buffer:
        buffer.map_zero(0, 4 * P)
        buffer.set_writable(P, P, True)
        buffer.fill_at(P, 3, P)
        assert [(r.kind, r.writable) for r in buffer.regions] == [
            ("zero", False),
            ("private", True),
            ("zero", False),
        ]
        assert buffer.read_at(0, 3 * P) == bytes(P) + b"\3" * P + bytes(P)


def test_zero_pages_stay_read_only():
    """Forbidding writes to zero pages changes nothing."""
    with SparseBuffer(P) as buffer:
        buffer.map_zero(0, P)
        buffer.set_writable(0, P, False)
        assert buffer.regions == (Region(0, P, "zero", False, None, None),)


def test_file_window_made_writable(data_file):
    """A window of a file that was opened for writing can be made writable, and writes arrive."""
    path, data = data_file
    with SparseBuffer(4 * P) as buffer:
        with open(path, "r+b") as file:
            buffer.map_file(0, 4 * P, file)
        buffer.set_writable(0, 4 * P, True)
        buffer.write_at(5, b"hello")
        assert path.read_bytes() == data[:5] + b"hello" + data[10:]


def test_read_only_file_stays_read_only(data_file):
    """A window of a file that was opened for reading cannot be made writable."""
    path, data = data_file
    with SparseBuffer(8 * P) as buffer:
        buffer.map_file(0, 4 * P, path)
        buffer.alloc(4 * P, P)
        buffer.set_writable(4 * P, P, False)
        before = buffer.regions
        with pytest.raises(PermissionError) as caught:
            buffer.set_writable(0, 5 * P, True)
        assert caught.value.filename == str(path)
        with pytest.raises(PermissionError):
            buffer.set_writable(0, 4 * P, True)
        assert buffer.regions == before
        assert buffer.read_at(0, P) == data[:P]


def test_copy_on_write_made_read_only_and_back(data_file):
    """A copy-on-write window keeps its own bytes while it is read-only."""
    path, data = data_file
    with SparseBuffer(4 * P) as buffer:
        buffer.map_file(0, 4 * P, path, copy_on_write=True)
        buffer.write_at(0, b"mine")
        buffer.set_writable(0, 4 * P, False)
        with pytest.raises(AccessError):
            buffer.write_at(8, b"x")
        buffer.set_writable(0, 4 * P, True)
        buffer.write_at(4, b"!")
        assert buffer.read_at(0, P) == b"mine!" + data[5:P]
        assert path.read_bytes() == data


# ------------------------------------------------------------------------------ decommit


def test_decommitted_memory_reads_as_zero(resident):
    """Decommitting gives the memory back, and zeros are read in its place."""
    with SparseBuffer(66 * MIB) as buffer:
        buffer.alloc(MIB, 64 * MIB)
        buffer.fill_at(MIB, 5, 64 * MIB)
        before = buffer.regions
        buffer.decommit(2 * MIB, 62 * MIB)
        assert resident(buffer) <= 3 * MIB
        assert buffer.regions == before
        assert buffer.read_at(MIB, 2 * MIB) == b"\5" * MIB + bytes(MIB)
        assert not any(buffer.window(2 * MIB, 62 * MIB // 8, "u8"))
        buffer.write_at(2 * MIB, b"again")
        assert buffer.read_at(2 * MIB, 6) == b"again\0"


def test_decommitted_copy_on_write_is_the_file_again(data_file):
    """Decommitting a copy-on-write window shows the file again."""
    path, data = data_file
    with SparseBuffer(4 * P) as buffer:
        buffer.map_file(0, 4 * P, path, P, copy_on_write=True)
        buffer.fill_at(0, 0, 4 * P)
        buffer.decommit(P, 2 * P)
        assert buffer.read_at(0, 4 * P) == bytes(P) + data[2 * P : 4 * P] + bytes(P)


@pytest.mark.parametrize("writable", [False, True])
def test_decommitted_shared_window_keeps_its_bytes(writable, make_file):
    """Decommitting a shared window of a file changes neither it nor the file."""
    path, data = make_file(4 * P)
    with SparseBuffer(4 * P) as buffer:
        buffer.map_file(0, 4 * P, path, writable=writable)
        if writable:
            buffer.write_at(0, b"kept")
            data = b"kept" + data[4:]
        buffer.decommit(0, 4 * P)
        assert buffer.read_at(0, 4 * P) == data == path.read_bytes()


def test_decommitted_zero_pages_stay_zero():
    """Decommitting zero pages does nothing."""
    with SparseBuffer(4 * P) as buffer:
        buffer.map_zero(0, 4 * P)
        buffer.decommit(0, 4 * P)
        assert buffer.read_at(0, 4 * P) == bytes(4 * P)


def test_decommit_refuses_read_only_memory(pattern):
    """Private memory that is read-only is not thrown away, nor is what lies before it."""
    data = pattern(4 * P)
    with SparseBuffer(4 * P) as buffer:
        buffer.alloc(0, 4 * P)
        buffer.write_at(0, data)
        buffer.set_writable(2 * P, P, False)
        with pytest.raises(AccessError) as caught:
            buffer.decommit(0, 4 * P)
        assert (caught.value.reason, caught.value.operation) == ("read-only", "write")
        assert caught.value.offset == 2 * P
        assert buffer.read_at(0, 4 * P) == data


def test_windows_see_decommit():
    """A live window over decommitted pages reads zeros."""
    with SparseBuffer(4 * P) as buffer:
        buffer.alloc(0, 4 * P)
        window = buffer[:]
        window[:] = 1
        buffer.decommit(P, P)
        assert window.sum() == 3 * P
        window[P] = 9
        assert buffer.read_at(P, 2) == b"\x09\0"
        del window


# ------------------------------------------------------------------------------ commit


def test_commit_takes_the_memory_now(resident):
    """Committed memory is there before it is touched, and keeps its bytes."""
    with SparseBuffer(18 * MIB) as buffer:
        buffer.alloc(MIB, 16 * MIB)
        buffer.write_at(MIB, b"kept")
        assert resident(buffer) <= 4 * MIB
        buffer.commit(MIB, 16 * MIB)
        assert resident(buffer) >= 16 * MIB
        assert buffer.read_at(MIB, 5) == b"kept\0"


def test_commit_of_every_kind(make_file):
    """Commit changes no bytes, whatever is mapped."""
    path, data = make_file(8 * P - 100)
    with SparseBuffer(32 * P) as buffer:
        buffer.alloc(0, 4 * P)
        buffer.map_zero(4 * P, 4 * P)
        buffer.map_file(8 * P, 8 * P, path)
        buffer.map_file(16 * P, 8 * P, path, copy_on_write=True)
        buffer.map_file(24 * P, 8 * P, path, writable=True)
        buffer.set_writable(P, P, False)
        before = buffer.regions
        buffer.commit(0, 32 * P)
        assert buffer.regions == before
        assert buffer.read_at(0, 32 * P) == bytes(8 * P) + (data + bytes(100)) * 3
        assert path.read_bytes() == data


def test_commit_of_a_file_cut_short(make_file):
    """Commit tells the page that a file has lost, and how far it came."""
    path, _ = make_file(8 * P)
    for mode in ("file-read", "file-shared", "file-cow"):
        os.truncate(path, 8 * P)
        with SparseBuffer(16 * P) as buffer:
            buffer.alloc(0, 4 * P)
            map_kind(buffer, mode, 4 * P, 8 * P, path, 0)
            os.truncate(path, 3 * P)
            with pytest.raises(AccessError) as caught:
                buffer.commit(P, 11 * P)
            assert caught.value.reason == "file-truncated"
            assert caught.value.offset == 7 * P
            assert caught.value.transferred == 6 * P
            assert caught.value.filename == str(path)


def test_commit_refuses_what_memory_cannot_hold(run_python):
    """Committing more than the system has is an error, before it has taken what there is."""
    done = run_python("""
        def watch():
            with open("/proc/self/statm") as file:
                while True:
                    file.seek(0)
                    if int(file.read().split()[1]) * P > 2 << 30:
                        os._exit(99)  # or it would take all memory there is

        buffer = SparseBuffer(1 << 42)
        buffer.alloc(0, 1 << 42)
        threading.Thread(target=watch, daemon=True).start()
        error = failure(buffer.commit, 0, 1 << 42)
        assert isinstance(error, AccessError), error
        assert (error.reason, error.operation) == ("no-memory", "write"), error
        assert error.offset == error.transferred
        buffer.write_at(5, b"alive")
    """)
    assert done.returncode != 99, "2 GiB are taken, and no error yet"
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------------------ advice, NUMA, names

ADVICE = ["normal", "sequential", "random", "willneed"]
LINUX_ADVICE = ["hugepage", "nohugepage", "cold", "pageout"]


@pytest.mark.parametrize("advice", ADVICE + LINUX_ADVICE)
def test_advice_changes_no_bytes(advice, make_file, linux_core):
    """Advice is taken for memory and files, and every byte stays as it was."""
    if "huge" in advice and not Path("/sys/kernel/mm/transparent_hugepage").exists():
        pytest.skip("this kernel has no transparent huge pages")
    path, data = make_file(4 * MIB)
    with SparseBuffer(12 * MIB) as buffer:
        buffer.alloc(0, 4 * MIB)
        buffer.write_at(0, data)
        buffer.map_file(4 * MIB, 4 * MIB, path, copy_on_write=True)
        buffer.map_zero(8 * MIB, 4 * MIB)
        buffer.write_at(4 * MIB, b"mine")
        if advice in LINUX_ADVICE and not linux_core:
            with pytest.raises(UnsupportedError):
                buffer.advise(0, 12 * MIB, advice)
            return
        before = buffer.regions
        buffer.advise(0, 12 * MIB, advice)
        buffer.advise(P, 2 * P, advice)
        assert buffer.regions == before
        expected = data + b"mine" + data[4:] + bytes(4 * MIB)
        assert buffer.read_at(0, 12 * MIB) == expected


@pytest.mark.parametrize("advice", ["", "HUGEPAGE", "dontneed", "free"])
def test_unknown_advice(advice, filled):
    """Other advice is a ValueError that lists what there is."""
    with pytest.raises(ValueError, match="'?willneed"):
        filled.advise(0, P, advice)


def test_huge_page_advice_reaches_the_kernel(linux_core):
    """The kernel notes the advice for huge pages."""
    if not linux_core or not Path("/sys/kernel/mm/transparent_hugepage").exists():
        pytest.skip("no transparent huge pages here")
    with SparseBuffer(8 * MIB) as buffer:
        buffer.alloc(2 * MIB, 4 * MIB)
        buffer.advise(2 * MIB, 4 * MIB, "hugepage")
        lines = Path("/proc/self/smaps").read_text().splitlines()
        start = next(
            i for i, line in enumerate(lines) if line.startswith(f"{buffer.address + 2 * MIB:x}-")
        )
        flags = next(line for line in lines[start:] if line.startswith("VmFlags:"))
        assert " hg" in flags


def test_bound_to_a_node(filled, linux_core):
    """Memory can be bound to a NUMA node, which the kernel then shows."""
    if not linux_core:
        with pytest.raises(UnsupportedError):
            filled.bind_numa(0, 8 * P, 0)
        return
    try:
        filled.bind_numa(0, 8 * P, 0)
    except UnsupportedError:
        assert not Path("/proc/self/numa_maps").exists()
        return
    lines = Path("/proc/self/numa_maps").read_text().splitlines()
    assert any(line.startswith(f"{filled.address:08x} bind:0") for line in lines)


@pytest.mark.parametrize("node", [-1, -(1 << 70), 4000, 1 << 15, 1 << 16, 1 << 31, 1 << 70])
def test_no_such_node(node, filled):
    """A node that is not there is EINVAL, or the system has no nodes at all."""
    with pytest.raises((OSError, UnsupportedError)) as caught:
        filled.bind_numa(0, P, node)
    assert isinstance(caught.value, UnsupportedError) or caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("name", ["x", "heap of things", "a" * 79, "!~ "])
def test_named_memory(name, filled, mappings):
    """A name shows in /proc/self/maps, where the kernel has names."""
    try:
        filled.set_name(P, 2 * P, name)
    except UnsupportedError as error:
        assert isinstance(error, NotImplementedError)  # noqa: PT017 - as the kernel was built
        return
    named = [one for one in mappings(filled) if one.path == f"[anon:{name}]"]
    assert [(one.start, one.stop) for one in named] == [(P, 3 * P)]


@pytest.mark.parametrize("name", ["", "a" * 80, "new\nline", "tab\t", "\x7f", "ä", *"[]\\`$", "\0"])
def test_bad_names(name, filled):
    """Names that the kernel would not take are ValueErrors that show them."""
    with pytest.raises(ValueError, match="printable") as caught:
        filled.set_name(0, P, name)
    assert repr(name) in str(caught.value)


def test_file_windows_have_names_already(data_file):
    """A range with a window of a file in it cannot be named."""
    path, _ = data_file
    with SparseBuffer(4 * P) as buffer:
        buffer.alloc(0, 2 * P)
        buffer.map_file(2 * P, 2 * P, path)
        with pytest.raises(ValueError, match="data") as caught:
            buffer.set_name(0, 4 * P, "mixed")
        assert str(path) in str(caught.value)
        assert f"{2 * P:#x}" in str(caught.value)


# ------------------------------------------------------------------------------ flush


def test_flush_of_everything(make_file):
    """Flushing covers any range, whatever is mapped, and what was written is in the file."""
    path, data = make_file(4 * P)
    with SparseBuffer(16 * P) as buffer:
        buffer.flush()
        buffer.alloc(0, P)
        buffer.map_zero(P, P)
        buffer.map_file(4 * P, 4 * P, path, writable=True)
        buffer.map_file(8 * P, 4 * P, path)
        buffer.map_file(12 * P, 4 * P, path, copy_on_write=True)
        buffer.write_at(4 * P + 3, b"written")
        buffer.write_at(12 * P, b"not")
        buffer.flush()
        buffer.flush(4 * P)
        buffer.flush(4 * P + 5, 1)
        buffer.flush(3, 16 * P - 3)
        buffer.flush(0, 0)
        buffer.flush(16 * P, 0)
        buffer.flush(16 * P)
        fd = os.open(path, os.O_RDONLY)
        try:
            assert os.pread(fd, 4 * P, 0) == data[:3] + b"written" + data[10:]
        finally:
            os.close(fd)


@pytest.mark.parametrize(
    ("offset", "nbytes", "error"),
    [
        (-1, 1, ValueError), (0, -1, ValueError), (-P, None, ValueError),
        (0, 8 * P + 1, OutOfBoundsError), (8 * P, 1, OutOfBoundsError), (1 << 63, 1, OutOfBoundsError),
        (9 * P, None, ValueError), (0, 1 << 64, OutOfBoundsError), (0.0, 1, TypeError),
        (0, "1", TypeError),
    ],
)  # fmt: skip
def test_flush_arguments(offset, nbytes, error, filled):
    """A range that is negative or past the end is refused."""
    expected = (error, OutOfBoundsError) if offset == 9 * P else error
    with pytest.raises(expected):
        filled.flush(offset, nbytes)
