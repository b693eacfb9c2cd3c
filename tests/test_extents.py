"""Extents: what may hold something other than zero; against sets of pages that the tests wrote."""

import ctypes
import mmap
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparsearray import ClosedError, OutOfBoundsError, SparseBuffer, UnsupportedError, shared_memory
from sparsearray.extents import METHODS, find_extents

from .sparse_files import runs

P = mmap.PAGESIZE


def told(method: str = "best") -> bool:
    """Whether this build of the core can tell which pages of memory were touched."""
    with SparseBuffer(2 * P) as buffer:
        buffer.alloc(0, 2 * P)
        try:
            return len(find_extents(buffer._reservation, 2 * P, 0, 2 * P, method)) == 0
        except UnsupportedError:
            return False


HOW = [
    pytest.param(method, marks=pytest.mark.skipif(not told(method), reason="the core cannot ask"))
    for method in METHODS
]
needs_touched = pytest.mark.skipif(not told(), reason="on POSIX alone all memory is one extent")


@pytest.fixture
def sparse_file(tmp_path: Path) -> Iterator[tuple[int, list[int]]]:
    """A file of 64 pages with data in some of them, and a last page that is not whole."""
    pages = [0, 3, 4, 9, 30, 62]
    fd = os.open(tmp_path / "holes.bin", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 64 * P - 100)
    for page in pages:
        os.pwrite(fd, bytes([page + 1]) * 10, page * P + 7)
    yield fd, pages
    os.close(fd)


@pytest.mark.parametrize("method", HOW)
def test_scattered_pages(method: str) -> None:
    """A terabyte with 20,000 pages here and there, the first and the last among them."""
    nbytes = 1 << 40
    pages = {0, nbytes // P - 1, *random.Random(3).sample(range(nbytes // P), 20_000)}
    with SparseBuffer(nbytes) as buffer:
        buffer.alloc(0, nbytes)
        places = np.array(sorted(pages)) * P + 5
        buffer.scatter(places, np.ones(len(pages), "u1"))
        found = find_extents(buffer._reservation, nbytes, 0, nbytes, method)
        assert found.tolist() == runs(pages)
        assert buffer.nbytes_stored == len(pages) * P


@pytest.mark.parametrize("method", HOW)
def test_more_than_one_call_holds(method: str) -> None:
    """Every second page of 2**17, and then the pages between them too."""
    nbytes = P << 17
    with SparseBuffer(nbytes) as buffer:
        buffer.alloc(0, nbytes)
        window = buffer.window(0, (1 << 17, P))
        window[::2, 9] = 1
        found = find_extents(buffer._reservation, nbytes, 0, nbytes, method)
        starts = np.arange(0, nbytes, 2 * P)
        assert np.array_equal(found, np.stack([starts, starts + P], axis=1))
        window[1::2, 0] = 1
        found = find_extents(buffer._reservation, nbytes, 0, nbytes, method)
        assert found.tolist() == [[0, nbytes]]
        del window


@needs_touched
def test_what_was_only_read_is_no_extent() -> None:
    """Reading goes through the page of zeros, which does not count; nor do zero pages."""
    with SparseBuffer(1 << 22) as buffer:
        buffer.alloc(0, 1 << 21)
        buffer.map_zero(1 << 21, 1 << 21)
        assert not any(buffer.read_at(0, 1 << 22))
        assert buffer[:].sum() == 0
        assert buffer.extents().shape == (0, 2)
        assert buffer.extents().dtype == np.int64
        assert buffer.nbytes_stored == 0


@needs_touched
def test_after_changes() -> None:
    """Pages that are given back, unmapped or mapped anew hold nothing; write-protected ones do."""
    with SparseBuffer(8 * P) as buffer:
        buffer.alloc(0, 8 * P)
        buffer.fill_at(0, 1, 8 * P)
        buffer.decommit(0, P)
        buffer.unmap(2 * P, P)
        buffer.alloc(4 * P, P)
        buffer.set_writable(5 * P, P, False)
        assert buffer.extents().tolist() == runs([1, 3, 5, 6, 7])


@needs_touched
def test_ranges_are_clipped() -> None:
    """A range within a page gives that part of it; an empty one nothing."""
    with SparseBuffer(4 * P) as buffer:
        buffer.alloc(0, 4 * P)
        buffer.write_at(P, b"x")
        assert buffer.extents(P + 10, 20).tolist() == [[P + 10, P + 30]]
        assert buffer.extents(P - 1, P + 2).tolist() == [[P, 2 * P]]
        assert buffer.extents(P + 1).tolist() == [[P + 1, 2 * P]]
        assert buffer.extents(2 * P).tolist() == []
        assert buffer.extents(P, 0).tolist() == []
        assert buffer.extents(4 * P).tolist() == []


def test_bad_ranges() -> None:
    """As any other call on bytes."""
    buffer = SparseBuffer(P)
    with pytest.raises(OutOfBoundsError, match="extents"):
        buffer.extents(0, P + 1)
    with pytest.raises(OutOfBoundsError):
        buffer.extents(P + 1)
    for bad in (-1, 0), (0, -1):
        with pytest.raises(ValueError, match="negative"):
            buffer.extents(*bad)
    buffer.close()
    with pytest.raises(ClosedError):
        buffer.extents()
    with pytest.raises(ClosedError):
        _ = buffer.nbytes_stored


@needs_touched
@given(
    st.lists(
        st.tuples(st.integers(0, 63), st.integers(1, 8), st.sampled_from("wrcdu")), max_size=30
    )
)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_random_changes(steps: list[tuple[int, int, str]]) -> None:
    """Extents are just the pages that were written, by each method."""
    written: set[int] = set()
    with SparseBuffer(72 * P) as buffer:
        buffer.alloc(0, 72 * P)
        for page, count, what in steps:
            pages = range(page, page + count)
            if what == "w":
                buffer.fill_at(page * P + 1, 255, count * P - 1)
                written |= set(pages)
            elif what == "r":
                buffer.read_at(page * P, count * P)
            elif what == "c":
                buffer._clear(page * P, count * P)
                written -= set(pages)
            elif what == "d":
                buffer.decommit(page * P, count * P)
                written -= set(pages)
            else:
                buffer.alloc(page * P, count * P)
                written -= set(pages)
        for method in METHODS:
            if told(method):
                found = find_extents(buffer._reservation, 72 * P, 0, 72 * P, method)
                assert found.tolist() == runs(written)


@pytest.mark.parametrize("method", HOW)
def test_swapped_pages(run_python: Callable, tmp_path: Path, method: str) -> None:
    """Pages that were swapped out still count."""
    done = run_python(f"""
        import pathlib, subprocess
        from sparsearray.extents import find_extents
        path = {str(tmp_path / "swap")!r}
        fd = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.write(fd, bytes(64 << 20))
        os.close(fd)
        os.chmod(path, 0o600)
        if subprocess.run(["/sbin/mkswap", path], capture_output=True).returncode:
            raise SystemExit(77)
        if ctypes.CDLL(None).swapon(path.encode(), 0):
            raise SystemExit(77)
        try:
            buffer = SparseBuffer(1 << 24)
            buffer.alloc(0, 1 << 24)
            buffer.fill_at(1 << 20, 7, 1 << 20)
            buffer.advise(1 << 20, 1 << 20, "pageout")
            smaps = pathlib.Path("/proc/self/smaps").read_text()
            swapped = sum(int(line.split()[1]) for line in smaps.splitlines() if line.startswith("Swap:"))
            found = find_extents(buffer._reservation, 1 << 24, 0, 1 << 24, {method!r})
            assert found.tolist() == [[1 << 20, 2 << 20]], found
            print("swapped" if swapped else "kept")
        finally:
            ctypes.CDLL(None).swapoff(path.encode())
    """)
    if done.returncode == 77:
        pytest.skip("no swap file can be had here")
    assert (done.returncode, done.stdout.strip()) == (0, "swapped"), done.stderr


@pytest.mark.parametrize("kind", ["read-only", "writable", "copy-on-write"])
def test_files(kind: str, sparse_file: tuple[int, list[int]], tmp_path: Path) -> None:
    """The data of a file, and in a copy-on-write window what was written there too."""
    fd, pages = sparse_file
    with SparseBuffer(66 * P) as buffer:
        buffer.map_file(
            P,
            64 * P,
            tmp_path / "holes.bin",
            writable=kind == "writable",
            copy_on_write=kind == "copy-on-write",
        )
        expected = {page + 1 for page in pages}
        if kind == "copy-on-write" and not told():
            expected = set(range(1, 65))
        assert buffer.extents().tolist() == runs(expected)
        if kind == "read-only":
            os.pwrite(fd, b"later", 40 * P)
        else:
            buffer.write_at(P + 40 * P, b"later")
        assert buffer.extents().tolist() == runs(expected | {41})
        assert buffer.extents(P + 20 * P, 15 * P).tolist() == runs(
            {page for page in expected if 21 <= page < 36}
        )


def test_position_of_the_users_file_stays(sparse_file: tuple[int, list[int]]) -> None:
    """Asking for holes seeks, but not in the caller's descriptor."""
    fd, pages = sparse_file
    os.lseek(fd, 123, os.SEEK_SET)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with SparseBuffer(64 * P) as buffer:
        buffer.map_file(0, 64 * P, fd)
        found = buffer.extents().tolist()
        assert found in (runs(pages), [[0, 64 * P]])
        assert os.lseek(fd, 0, os.SEEK_CUR) == 123
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


@needs_touched
def test_shared_memory() -> None:
    """A memfd counts where it was written, by whomever."""
    with shared_memory(16 * P) as memory, SparseBuffer(32 * P) as buffer:
        buffer.map_file(0, 16 * P, memory, writable=True)
        buffer.map_file(16 * P, 16 * P, memory, writable=True)
        buffer.write_at(3 * P, b"x")
        os.pwrite(memory.fileno(), b"y", 5 * P)
        assert buffer.extents().tolist() == runs([3, 5, 19, 21])


def test_raw_mappings() -> None:
    """Shared memory without a file may hold anything; what cannot be read is asked for as well."""
    private, shared = mmap.MAP_PRIVATE, mmap.MAP_SHARED
    with SparseBuffer(8 * P) as buffer:
        buffer.mmap_anonymous(0, 2 * P, mmap.PROT_READ | mmap.PROT_WRITE, shared)
        buffer.mmap_anonymous(4 * P, 2 * P, 0, private)
        found = buffer.extents().tolist()
        assert found[0] == [0, 2 * P]
        if told():
            assert found == [[0, 2 * P]]
        for method in METHODS:
            if told(method):
                assert find_extents(buffer._reservation, 8 * P, 0, 8 * P, method).tolist() == found


def cached(fd: int, pages: int) -> set[int]:
    """Say which pages of a file the page cache holds: mincore(2) on a mapping of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    with mmap.mmap(fd, pages * P, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as view:
        found = (ctypes.c_ubyte * pages)()
        address = ctypes.addressof(ctypes.c_char.from_buffer(view))
        assert libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(pages * P), found) == 0
        return {i for i, flag in enumerate(found) if flag & 1}


def kinds(buffer: SparseBuffer) -> list[tuple[int, int, str]]:
    """Write regions in pages."""
    return [(r.offset // P, r.nbytes // P, r.kind) for r in buffer.regions]


@pytest.mark.parametrize("cow", [False, True])
def test_skip_holes(sparse_file: tuple[int, list[int]], tmp_path: Path, cow: bool) -> None:
    """Data is mapped from the file, and holes are zero pages, or memory."""
    fd, pages = sparse_file
    os.fsync(fd)
    content = os.pread(fd, 64 * P, 0).ljust(64 * P, b"\0")
    with SparseBuffer(64 * P) as buffer:
        buffer.map_file(0, 64 * P, tmp_path / "holes.bin", copy_on_write=cow, skip_holes=True)
        expected = []
        for page in range(64):
            kind = "file" if page in pages else ("private" if cow else "zero")
            if expected and expected[-1][2] == kind:
                expected[-1] = (expected[-1][0], expected[-1][1] + 1, kind)
            else:
                expected.append((page, 1, kind))
        assert kinds(buffer) == expected
        assert all(r.file_offset == r.offset for r in buffer.regions if r.kind == "file")
        assert buffer.read_at(0, 64 * P) == content
        if cow:
            buffer.write_at(20 * P, b"mine")
            assert os.pread(fd, 4, 20 * P) == bytes(4)


def test_skipped_holes_cost_nothing(tmp_path: Path) -> None:
    """Reading all of a file leaves its holes out of the page cache."""
    pages, data = 1 << 15, [5, 20_000]
    with (tmp_path / "large.bin").open("wb+") as file:
        file.truncate(pages * P)
        for page in data:
            os.pwrite(file.fileno(), b"x", page * P)
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with SparseBuffer(pages * P) as buffer:
            buffer.map_file(0, pages * P, file.name, skip_holes=True)
            assert np.flatnonzero(buffer[:]).tolist() == [page * P for page in data]
        # What the system reads ahead around the data is its own affair.
        assert len(cached(file.fileno(), pages)) < pages // 4


def test_skip_holes_of_a_writable_window(sparse_file: tuple[int, list[int]]) -> None:
    """Refused, and what was there stays."""
    with SparseBuffer(64 * P) as buffer:
        buffer.alloc(0, P)
        before = buffer.regions
        with pytest.raises(ValueError, match="skip_holes"):
            buffer.map_file(0, 64 * P, sparse_file[0], writable=True, skip_holes=True)
        assert buffer.regions == before


@pytest.mark.parametrize("window", [False, True])
def test_refresh(sparse_file: tuple[int, list[int]], tmp_path: Path, window: bool) -> None:
    """What others write into holes is found when asked for, under live windows too."""
    fd, pages = sparse_file
    with SparseBuffer(64 * P) as buffer:
        buffer.map_file(0, 64 * P, tmp_path / "holes.bin", skip_holes=True)
        live = buffer[:] if window else None
        assert buffer.refresh() == 0
        os.pwrite(fd, b"new", 40 * P)
        os.pwrite(fd, b"also", 50 * P)
        assert buffer.read_at(40 * P, 3) == bytes(3)
        assert buffer.refresh(0, 45 * P) == P
        assert buffer.read_at(40 * P, 3) == b"new"
        assert buffer.read_at(50 * P, 4) == bytes(4)
        assert buffer.refresh() == P
        assert buffer.refresh() == 0
        content = os.pread(fd, 64 * P, 0).ljust(64 * P, b"\0")
        assert buffer.read_at(0, 64 * P) == content
        if live is not None:
            assert live.tobytes() == content
        assert buffer.extents().tolist() == runs([*pages, 40, 50])
        del live


def test_refresh_of_a_file_that_became_shorter(tmp_path: Path) -> None:
    """There is no data past its end."""
    path = tmp_path / "short.bin"
    with path.open("wb") as file:
        file.truncate(16 * P)
        file.flush()
        with SparseBuffer(16 * P) as buffer:
            buffer.map_file(0, 16 * P, path, skip_holes=True)
            file.truncate(4 * P)
            os.pwrite(file.fileno(), b"x", P)
            assert buffer.refresh() == P
            assert buffer.read_at(P, 2) == b"x\0"
            assert buffer.read_at(8 * P, 2) == bytes(2)


@needs_touched
@pytest.mark.slow
def test_many_extents(run_python: Callable) -> None:
    """A file of 200,000 extents leaves the process most of its mappings, several times over."""
    done = run_python("""
        count = 200_000
        import pathlib
        limit = int(pathlib.Path("/proc/sys/vm/max_map_count").read_text())
        fd = os.memfd_create("many")
        os.ftruncate(fd, 2 * count * P)
        for page in range(0, 2 * count, 2):
            os.pwrite(fd, page.to_bytes(4, "little"), page * P)
        buffers = []
        for _ in range(3):
            buffer = SparseBuffer(2 * count * P)
            buffer.map_file(0, 2 * count * P, fd, skip_holes=True)
            assert len(buffer.regions) > 100
            pages = np.arange(2 * count)
            assert np.array_equal(buffer.gather(pages * P, "u4"), np.where(pages % 2, 0, pages))
            buffers.append(buffer)
            mappings = pathlib.Path("/proc/self/maps").read_text().count("\\n")
            assert mappings < 0.9 * limit, mappings
            print(mappings < limit / 2 + 1000)
    """)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "True"


@pytest.mark.parametrize("kind", ["private", "file", "copy-on-write"])
def test_clear(kind: str, tmp_path: Path) -> None:
    """Bytes become zero; whole pages give back what they took, on disk too."""
    path = tmp_path / "full.bin"
    path.write_bytes(b"\xff" * (32 * P))
    fd = os.open(path, os.O_RDWR)
    os.fsync(fd)
    blocks = os.fstat(fd).st_blocks
    with SparseBuffer(32 * P) as buffer:
        if kind == "private":
            buffer.alloc(0, 32 * P)
            buffer.fill_at(0, 255, 32 * P)
        else:
            buffer.map_file(
                0, 32 * P, fd, writable=kind == "file", copy_on_write=kind == "copy-on-write"
            )
        buffer._clear(P - 7, 20 * P)
        expected = b"\xff" * (P - 7) + bytes(20 * P) + b"\xff" * (11 * P + 7)
        assert buffer.read_at(0, 32 * P) == expected
        if kind == "file" and told():
            assert os.pread(fd, 32 * P, 0) == expected
            assert os.fstat(fd).st_blocks <= blocks - 18 * P // 512
        elif kind == "private" and told():
            assert buffer.nbytes_stored == 13 * P
        elif kind == "copy-on-write":
            assert os.pread(fd, 32 * P, 0) == b"\xff" * (32 * P)
    os.close(fd)
