"""Extents of memory: against sets of the pages that a test wrote, and against /proc/self/smaps."""

import ctypes
import mmap
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sparsearray import ClosedError, OutOfBoundsError, SparseBuffer, UnsupportedError
from sparsearray import extents as extents_module
from sparsearray.extents import METHODS, find_extents

from .sparse_files import runs

P = mmap.PAGESIZE
R, W = mmap.PROT_READ, mmap.PROT_WRITE
TIB = 1 << 40

Find = Callable[..., list[list[int]]]


def clip(pairs: list[list[int]], start: int, stop: int) -> list[list[int]]:
    """Keep what lies in a range."""
    cut = [[max(a, start), min(b, stop)] for a, b in pairs]
    return [[a, b] for a, b in cut if a < b]


def alloc(buffer: SparseBuffer, offset: int, nbytes: int) -> None:
    """Put private memory there that is taken in base pages, whatever the system prefers."""
    buffer.alloc(offset, nbytes)
    with suppress(OSError, UnsupportedError):
        buffer.advise(offset, nbytes, "nohugepage")


def touch(buffer: SparseBuffer, pages: Iterable[int], value: int = 1) -> None:
    """Write a byte into each page."""
    offsets = np.fromiter(pages, np.int64) * P + 17
    buffer.scatter(offsets, np.full(len(offsets), value, "u1"))


@pytest.fixture(params=METHODS)
def find(request: pytest.FixtureRequest, linux_core: bool) -> Find:
    """Call it with a buffer, and a range: its extents by one of the methods."""
    if not linux_core:
        pytest.skip("on POSIX alone all private memory is one extent")

    def ask(buffer: SparseBuffer, offset: int = 0, nbytes: int | None = None) -> list[list[int]]:
        count = buffer.nbytes - offset if nbytes is None else nbytes
        found = find_extents(buffer._reservation, buffer.nbytes, offset, count, request.param)
        assert found.dtype == np.int64
        assert found.shape == (len(found), 2)
        return found.tolist()

    with SparseBuffer(P) as probe:
        probe.alloc(0, P)
        try:
            ask(probe)
        except UnsupportedError:
            pytest.skip("this kernel has no PAGEMAP_SCAN")
    return ask


# ------------------------------------------------------------------------------ what counts


def test_nothing_mapped_nothing_stored():
    """A buffer of holes has no extents."""
    with SparseBuffer(8 * P) as buffer:
        found = buffer.extents()
        assert (found.shape, found.dtype) == ((0, 2), np.int64)
        assert buffer.nbytes_stored == 0
        assert isinstance(buffer.nbytes_stored, int)


def test_private_memory_on_posix_alone(linux_core):
    """Where nobody tells, private memory is one extent, and a method cannot be chosen."""
    if linux_core:
        pytest.skip("Linux tells")
    with SparseBuffer(8 * P) as buffer:
        buffer.alloc(P, 2 * P)
        buffer.map_zero(3 * P, P)
        buffer.alloc(5 * P, 2 * P)
        assert buffer.extents().tolist() == [[P, 3 * P], [5 * P, 7 * P]]
        assert buffer.nbytes_stored == 4 * P
        for method in ("scan", "pagemap"):
            with pytest.raises(UnsupportedError):
                find_extents(buffer._reservation, 8 * P, 0, 8 * P, method)


def test_methods_agree(linux_core):
    """The scan finds what was written; pagemap what of it is not zero."""
    if not linux_core:
        pytest.skip("on POSIX alone all private memory is one extent")
    rng = random.Random(5)
    count = 6000
    with SparseBuffer(count * P) as buffer:
        alloc(buffer, 0, count * P)
        filled = {page for page in range(count) if rng.random() < 0.3}
        zeros = {page for page in range(count) if rng.random() < 0.1} - filled
        for page in filled:
            buffer.write_at(page * P + rng.choice([0, 1, 7, P // 2, P - 1]), b"\1")
        touch(buffer, zeros, 0)

        def ask(method: str) -> list[list[int]]:
            return find_extents(buffer._reservation, count * P, 0, count * P, method).tolist()

        assert ask("pagemap") == runs(filled)
        assert ask("best") in (runs(filled | zeros), runs(filled))
        with suppress(UnsupportedError):
            assert ask("scan") == runs(filled | zeros)


def test_stored_is_what_smaps_counts(linux_core, resident):
    """nbytes_stored is the resident size that the kernel counts."""
    if not linux_core:
        pytest.skip("on POSIX alone all private memory is one extent")
    rng = random.Random(6)
    with SparseBuffer(5000 * P) as buffer:
        alloc(buffer, P, 4998 * P)
        touch(buffer, rng.sample(range(1, 4999), 1234))
        assert buffer.nbytes_stored == resident(buffer) == 1234 * P


def test_terabyte(linux_core):
    """20,000 pages scattered over a terabyte, the first and the last among them, are found fast."""
    if not linux_core:
        pytest.skip("on POSIX alone all private memory is one extent")
    rng = random.Random(7)
    last = TIB // P - 1
    pages = {0, last, *(rng.randrange(last) for _ in range(20_000))}
    with SparseBuffer(TIB) as buffer:
        alloc(buffer, 0, TIB)
        touch(buffer, pages)
        best = 9e9
        for _ in range(3):
            start = time.perf_counter()
            found = buffer.extents()
            best = min(best, time.perf_counter() - start)
        assert found.tolist() == runs(pages)
        assert buffer.nbytes_stored == len(pages) * P
        assert best < 0.5


@pytest.mark.parametrize("count", [1, 511, 512, 513, 1023, 1024, 1025, 2500])
def test_as_many_as_the_kernel_gives_at_once(count, find):
    """More ranges than one system call may give are neither lost, doubled nor left apart."""
    with SparseBuffer(3 * count * P) as buffer:
        alloc(buffer, 0, 3 * count * P)
        pages = set(range(0, 2 * count, 2)) | set(range(2 * count, 3 * count))
        touch(buffer, pages)
        assert find(buffer) == runs(pages)


def test_more_than_a_native_call_holds(find):
    """34,000 extents, more than one native call gives, and then the same pages as a single one."""
    count = 34_000
    assert count > extents_module._CAPACITY
    with SparseBuffer(2 * count * P) as buffer:
        alloc(buffer, 0, 2 * count * P)
        touch(buffer, range(0, 2 * count, 2))
        expected = np.arange(count)[:, None] * 2 * P + [0, P]
        assert np.array_equal(find(buffer), expected)
        assert np.array_equal(find(buffer, 3, 2 * count * P - 3)[1:], expected[1:])
        touch(buffer, range(1, 60_001, 2))
        assert find(buffer)[0] == [0, 60_001 * P]
        assert np.array_equal(find(buffer)[1:], expected[30_001:])


@pytest.mark.parametrize("capacity", [2, 3, 4, 5, 7, 16, 100])
def test_calls_are_joined(capacity, find, monkeypatch, tmp_path):
    """However little a native call holds, extents that touch across calls are one."""
    monkeypatch.setattr(extents_module, "_CAPACITY", capacity)
    rng = random.Random(capacity)
    path = tmp_path / "data"
    with open(path, "wb") as file:
        file.truncate(64 * P)
        for page in (data := sorted(rng.sample(range(64), 30))):
            os.pwrite(file.fileno(), b"x", page * P)
    with SparseBuffer(1024 * P) as buffer:
        pages = set()
        for start in range(0, 1024, 64):
            kind = rng.choice(["alloc", "reserve", "raw", "cow", "file", "hole", "zero"])
            at, written = start * P, {start + page for page in rng.sample(range(64), 40)}
            ways = {
                "alloc": lambda at=at: alloc(buffer, at, 64 * P),
                "reserve": lambda at=at: buffer.alloc(at, 64 * P, reserve=True),
                "raw": lambda at=at: buffer.mmap_anonymous(at, 64 * P, R | W, mmap.MAP_PRIVATE),
                "cow": lambda at=at: buffer.map_file(at, 64 * P, path, copy_on_write=True),
                "file": lambda at=at: buffer.map_file(at, 64 * P, path),
                "zero": lambda at=at: buffer.map_zero(at, 64 * P),
                "hole": lambda: None,
            }
            ways[kind]()
            if kind in {"cow", "file"}:
                pages |= {start + page for page in data}
            if kind in {"alloc", "reserve", "raw", "cow"}:
                touch(buffer, written)
                pages |= written
        assert find(buffer) == runs(pages)
        assert find(buffer, 5, 1000 * P) == clip(runs(pages), 5, 1000 * P + 5)


def test_pages_that_were_only_read(find):
    """The page of zeros does not count, however it came to be there."""
    with SparseBuffer(TIB) as buffer:
        alloc(buffer, 0, 256 * P)
        buffer.map_zero(256 * P, 256 * P)
        buffer.map_zero(1 << 30, 1 << 30)
        buffer.alloc(1 << 32, 1 << 24)
        with suppress(OSError):
            buffer.advise(1 << 32, 1 << 24, "hugepage")
        buffer.mmap_anonymous(1 << 33, 16 * P, R, mmap.MAP_PRIVATE | mmap.MAP_POPULATE)
        for offset, nbytes in [(0, 512 * P), (1 << 30, 1 << 30), (1 << 32, 1 << 24)]:
            assert not buffer[offset : offset + nbytes : P // 2].any()
        assert find(buffer, 0, 1 << 34) == []
        touch(buffer, [3])
        assert find(buffer, 0, 1 << 34) == runs([3])


def test_huge_pages_cover_what_was_written(find, mappings):
    """Memory in huge pages: every byte that is not zero is in an extent, and in memory."""
    with SparseBuffer(1 << 26) as buffer:
        buffer.alloc(1 << 21, 1 << 24)
        try:
            buffer.advise(1 << 21, 1 << 24, "hugepage")
        except OSError:
            pytest.skip("this kernel has no transparent huge pages")
        for offset in (written := [1 << 21, (1 << 21) + 5 * P, 1 << 23]):
            buffer.write_at(offset, b"x")
        found = find(buffer)
        for offset in written:
            assert any(start <= offset < stop for start, stop in found)
        taken = sum(one.rss for one in mappings(buffer))
        assert sum(stop - start for start, stop in found) <= taken


@pytest.mark.parametrize("reserve", [False, True])
def test_pages_given_back(reserve, find):
    """Pages that were decommitted, unmapped or mapped anew are no extents."""
    with SparseBuffer(64 * P) as buffer:
        buffer.alloc(0, 64 * P, reserve=reserve)
        buffer.fill_at(0, 1, 64 * P)
        buffer.decommit(2 * P, 3 * P)
        buffer.unmap(10 * P, 3 * P)
        buffer.alloc(20 * P, 3 * P, reserve=reserve)
        buffer.map_zero(30 * P, 3 * P)
        gone = {*range(2, 5), *range(10, 13), *range(20, 23), *range(30, 33)}
        assert find(buffer) == runs(set(range(64)) - gone)
        buffer.alloc(10 * P, 3 * P, reserve=reserve)
        touch(buffer, [3, 11, 21])
        assert find(buffer) == runs(set(range(64)) - gone | {3, 11, 21})


def test_write_protection_changes_nothing(find):
    """Read-only memory counts where it was written; zero pages count once written as memory."""
    with SparseBuffer(16 * P) as buffer:
        alloc(buffer, 0, 8 * P)
        buffer.map_zero(8 * P, 8 * P)
        touch(buffer, [1, 2])
        buffer.set_writable(0, 8 * P, False)
        assert find(buffer) == runs([1, 2])
        buffer.set_writable(0, 16 * P, True)
        assert find(buffer) == runs([1, 2])
        touch(buffer, [7, 8])
        assert find(buffer) == runs([1, 2, 7, 8])


def test_written_in_any_way(find):
    """Windows, fills, records, scattered records and atomics all make pages count."""
    with SparseBuffer(32 * P) as buffer:
        alloc(buffer, 0, 32 * P)
        buffer.window(P, 4, "u8")[1] = 1
        buffer.fill_at(3 * P, 1, 1)
        buffer.write_plain(6 * P - 4, np.uint64(-1 & (1 << 64) - 1))
        buffer.scatter([8 * P], np.array([1], "u4"))
        buffer.atomic_slice(10 * P, 1, "u4").fetch_add(0, 1)
        assert find(buffer) == runs([1, 3, 5, 6, 8, 10])


def test_raw_mappings(find):
    """Raw memory counts where it was written if it is private, and all of it if it is shared."""
    with SparseBuffer(40 * P) as buffer:
        buffer.mmap_anonymous(0, 8 * P, R | W, mmap.MAP_PRIVATE)
        buffer.mmap_anonymous(8 * P, 8 * P, 0, mmap.MAP_PRIVATE)
        buffer.mmap_anonymous(16 * P, 2 * P, R | W, mmap.MAP_SHARED)
        buffer.mmap_anonymous(24 * P, 2 * P, 0, mmap.MAP_SHARED)
        buffer.mmap_anonymous(32 * P, 4 * P, R | W, mmap.MAP_PRIVATE | mmap.MAP_POPULATE)
        touch(buffer, [3, 33])
        expected = {3, 16, 17, 24, 25, 33}
        assert find(buffer) in (runs(expected), runs(expected | {32, 34, 35}))


@pytest.mark.parametrize("capacity", [2, 3, 1 << 15])
@pytest.mark.parametrize("sharing", ["MAP_SHARED", "MAP_PRIVATE"])
def test_devices_end(capacity, sharing, run_ok):
    """A device that has no holes to tell of is one extent, found in finite time."""
    run_ok(f"""
        from sparsearray import extents
        extents._CAPACITY = {capacity}
        signal.alarm(5)
        buffer = SparseBuffer(16 * P)
        buffer.mmap(4 * P, 8 * P, 3, mmap.{sharing}, "/dev/zero")
        assert buffer.extents().tolist() == [[4 * P, 12 * P]], buffer.extents()
    """)


def test_device_behind_as_many_extents_as_a_call_holds(run_ok, linux_core):
    """It ends as well when only one more extent fits into a native call."""
    if not linux_core:
        pytest.skip("on POSIX alone all private memory is one extent")
    run_ok("""
        count = 32766
        signal.alarm(10)
        buffer = SparseBuffer((2 * count + 8) * P)
        buffer.alloc(0, 2 * count * P)
        buffer.advise(0, 2 * count * P, "nohugepage")
        buffer.scatter(np.arange(count) * 2 * P, np.ones(count, "u1"))
        buffer.mmap(2 * count * P, 4 * P, 3, mmap.MAP_SHARED, "/dev/zero")
        assert len(buffer.extents()) == count + 1
    """)


def test_without_a_descriptor_left(run_ok):
    """Where no descriptor can be had to ask with, extents still cover what was written."""
    run_ok("""
        import resource
        buffer = SparseBuffer(64 * P)
        buffer.alloc(0, 32 * P)
        fd = os.memfd_create("file")
        os.ftruncate(fd, 16 * P)
        buffer.map_file(32 * P, 16 * P, fd, writable=True)
        buffer.map_file(48 * P, 16 * P, fd, copy_on_write=True)
        for offset in (3 * P, 33 * P, 50 * P):
            buffer.write_at(offset, b"x")
        resource.setrlimit(resource.RLIMIT_NOFILE, (fd + 1, fd + 1))
        while True:
            try:
                os.dup(fd)
            except OSError:
                break
        signal.alarm(5)
        found = buffer.extents().tolist()
        for offset in (3 * P, 33 * P, 50 * P):
            assert any(start <= offset < stop for start, stop in found), found
    """)


def test_no_descriptor_is_kept(descriptors):
    """Asking leaves no descriptor open."""
    with SparseBuffer(64 * P) as buffer:
        buffer.alloc(0, 64 * P)
        before = descriptors()
        for method in ("best", "best", "scan", "pagemap"):
            with suppress(UnsupportedError):
                find_extents(buffer._reservation, 64 * P, 0, 64 * P, method)
        assert descriptors() == before


# ------------------------------------------------------------------------------ swap


@pytest.fixture
def swap(tmp_path: Path, linux_core: bool) -> Iterator[None]:
    """Have a little swap space."""
    if not linux_core:
        pytest.skip("on POSIX alone all private memory is one extent")
    path = tmp_path / "swap"
    with open(path, "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.writelines(bytes(1 << 20) for _ in range(32))
        os.fsync(file.fileno())
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        done = subprocess.run(["mkswap", path], capture_output=True, text=True, check=False)  # noqa: S607
    except FileNotFoundError:
        pytest.skip("there is no mkswap")
    if done.returncode:
        pytest.skip(f"no swap space can be made here: {done.stderr.strip()}")
    if libc.swapon(os.fsencode(path), 0) < 0:
        pytest.skip(f"no swap space can be had here: {os.strerror(ctypes.get_errno())}")
    try:
        yield
    finally:
        assert libc.swapoff(os.fsencode(path)) == 0


def swapped(buffer: SparseBuffer, pages: int) -> set[int]:
    """Say which pages of a buffer are on disk: bit 62 of /proc/self/pagemap, see pagemap.rst."""
    with open("/proc/self/pagemap", "rb", buffering=0) as file:
        entries = os.pread(file.fileno(), 8 * pages, buffer.address // P * 8)
    return set(
        np.flatnonzero(np.frombuffer(entries, "u8") >> np.uint64(62) & np.uint64(1)).tolist()
    )


@pytest.mark.usefixtures("swap")
def test_swapped_pages(find):
    """Pages that are on disk count, and join those that are in memory."""
    with SparseBuffer(4096 * P) as buffer:
        alloc(buffer, 0, 4096 * P)
        pages = {*range(2000), *range(2000, 4000, 2)}
        touch(buffer, pages)
        for page in range(0, 4000, 2):
            buffer.advise(page * P, P, "pageout")
        if len(swapped(buffer, 4096)) < 1000:
            pytest.skip("the system does not swap these pages out")
        assert find(buffer) == runs(pages)
        assert len(swapped(buffer, 4096)) >= 1000  # looking brings none back
        assert find(buffer, 5 * P + 1, 2 * P) == [[5 * P + 1, 7 * P + 1]]


@pytest.mark.usefixtures("swap")
def test_swapped_copies(find, tmp_path):
    """Pages copied on write that are on disk count too."""
    (tmp_path / "holes").touch()
    os.truncate(tmp_path / "holes", 64 * P)
    with SparseBuffer(64 * P) as buffer:
        buffer.map_file(0, 64 * P, tmp_path / "holes", copy_on_write=True)
        touch(buffer, [3, 4, 9])
        buffer.advise(3 * P, 2 * P, "pageout")
        if not swapped(buffer, 64):
            pytest.skip("the system does not swap these pages out")
        assert find(buffer) == runs([3, 4, 9])


# ------------------------------------------------------------------------------ the range asked for

CLIP_PAGES = [0, 1, 5, 9, 10, 11, 15]


@settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 16 * P), st.integers(0, 16 * P))
@example(0, 0)
@example(100, 100)
@example(5 * P + 1, 5 * P + 1)
@example(16 * P, 16 * P)
@example(5 * P, 6 * P)
@example(5 * P + 1, 6 * P - 1)
def test_any_range(linux_core, one, other):
    """A range that begins or ends within a page has just that part of it."""
    start, stop = min(one, other), max(one, other)
    with SparseBuffer(16 * P) as buffer:
        alloc(buffer, 0, 16 * P)
        touch(buffer, CLIP_PAGES)
        expected = clip(runs(CLIP_PAGES if linux_core else range(16)), start, stop)
        assert buffer.extents(start, stop - start).tolist() == expected
        if stop == 16 * P:
            assert buffer.extents(start).tolist() == expected


@pytest.mark.parametrize("offset", [0, 1, 100, P - 1, P, P + 1, 2 * P - 1, 4 * P - 1, 4 * P])
def test_no_bytes(offset):
    """A range of no bytes has no extents."""
    with SparseBuffer(4 * P) as buffer:
        buffer.alloc(0, 4 * P)
        buffer.fill_at(0, 1, 4 * P)
        found = buffer.extents(offset, 0)
        assert (found.shape, found.dtype) == ((0, 2), np.int64)


@pytest.mark.parametrize(
    ("offset", "nbytes", "error"),
    [
        (-1, None, ValueError), (-1, 0, ValueError), (0, -1, ValueError), (-P, P, ValueError),
        (0, 4 * P + 1, OutOfBoundsError), (4 * P + 1, None, OutOfBoundsError),
        (4 * P, 1, OutOfBoundsError), (P, (1 << 63) - 1, OutOfBoundsError),
        (1 << 62, 1 << 62, OutOfBoundsError), (1 << 63, 0, OutOfBoundsError),
        (1 << 70, None, OutOfBoundsError), (0, 1 << 70, OutOfBoundsError),
        (0.0, None, TypeError), ("0", None, TypeError), (0, 1.5, TypeError),
    ],
)  # fmt: skip
def test_bad_ranges(offset, nbytes, error):
    """A range that is no range of the buffer is refused as every other call does."""
    with SparseBuffer(4 * P) as buffer:
        buffer.alloc(0, 4 * P)
        for call in (buffer.extents, buffer.refresh):
            with pytest.raises(error):
                call(offset, nbytes)


def test_numpy_integers():
    """Numpy's integers are integers."""
    with SparseBuffer(4 * P) as buffer:
        buffer.alloc(0, 4 * P)
        buffer.fill_at(0, 1, 4 * P)
        assert buffer.extents(np.int64(P), np.uint16(P)).tolist() == [[P, 2 * P]]


def test_closed():
    """A closed buffer has no extents to ask for."""
    buffer = SparseBuffer(P)
    buffer.close()
    for ask in (buffer.extents, buffer.refresh, lambda: buffer.nbytes_stored):
        with pytest.raises(ClosedError):
            ask()
    for ask in (buffer.extents, buffer.refresh):
        with pytest.raises(ClosedError):
            ask(0, 0)


def test_result_is_the_callers():
    """The array may be changed, and is no view of something larger."""
    with SparseBuffer(4 * P) as buffer:
        buffer.alloc(0, 4 * P)
        buffer.fill_at(0, 1, 4 * P)
        found = buffer.extents()
        found[:] = 7
        assert found.base is None
        assert found.nbytes == 16
        assert buffer.extents().tolist() == [[0, 4 * P]]


# ------------------------------------------------------------------------------ processes and threads


def test_forked_child_has_its_own(run_ok, linux_core):
    """What a child writes counts for the child, what it shared counts for both."""
    run_ok(f"""
        buffer = SparseBuffer(64 * P)
        buffer.alloc(0, 16 * P)
        buffer.mmap_anonymous(32 * P, 2 * P, 3, mmap.MAP_SHARED)
        buffer.write_at(P, b"x")
        pid = os.fork()
        buffer.write_at((3 if pid else 5) * P, b"x")
        own = [[P, 2 * P], [3 * P, 4 * P]] if pid else [[P, 2 * P], [5 * P, 6 * P]]
        if not {linux_core}:
            own = [[0, 16 * P]]
        right = buffer.extents().tolist() == [*own, [32 * P, 34 * P]]
        if not pid:
            os._exit(0 if right else 1)
        assert right, buffer.extents()
        assert os.waitpid(pid, 0)[1] == 0
    """)


def test_while_others_map(linux_core):  # noqa: C901 -- a small function for each thread
    """Two threads ask while a third maps and unmaps: what never changes is always found."""
    pages = 2048
    stable = {page for page in range(pages) if page % 64 < 2}
    busy = [page for page in range(pages) if page % 64 == 5]
    with SparseBuffer(pages * P) as buffer:
        for page in range(0, pages, 64):
            alloc(buffer, page * P, 2 * P)
        touch(buffer, stable)
        stop = threading.Event()
        failures: list[BaseException] = []

        def change() -> None:
            rng = random.Random(1)
            while not stop.is_set():
                at = rng.choice(busy) * P
                buffer.alloc(at, 8 * P)
                buffer.fill_at(at, 1, 4 * P)
                if rng.random() < 0.5:
                    buffer.unmap(at, 8 * P)

        def ask(method: str) -> None:
            allowed = stable | {page + i for page in busy for i in range(4 if linux_core else 8)}
            try:
                for _ in range(150):
                    found = find_extents(buffer._reservation, pages * P, 0, pages * P, method)
                    ends = found.ravel()
                    assert (np.diff(ends) > 0).all()
                    covered = {p for a, b in found.tolist() for p in range(a // P, b // P)}
                    assert stable <= covered <= allowed
            except BaseException as error:  # noqa: BLE001 -- for the main thread to see
                failures.append(error)

        changer = threading.Thread(target=change)
        askers = [
            threading.Thread(target=ask, args=[method])
            for method in ("best", "pagemap" if linux_core else "best")
        ]
        for thread in [changer, *askers]:
            thread.start()
        for thread in askers:
            thread.join()
        stop.set()
        changer.join()
        if failures:
            raise failures[0]
