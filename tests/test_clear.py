"""`_clear`: bytes of any range become zero, and whole pages of it holes."""

import fcntl
import mmap
import os

import numpy as np
import pytest

from sparsearray import AccessError, SparseBuffer, shared_memory

from .sparse_files import PAGES, data_pages

P = mmap.PAGESIZE
R, W = mmap.PROT_READ, mmap.PROT_WRITE
F_SEAL_FUTURE_WRITE = 0x10
RANGES = [
    (0, 16 * P), (P, P), (0, P), (15 * P, P), (3, 5), (P - 1, 2), (P // 2, 5 * P), (2 * P, 3 * P + 7),
    (P + 1, 2 * P - 1), (P + 1, 2 * P - 2), (5 * P - 1, P + 2), (0, 1), (16 * P - 1, 1), (7, 0),
    (P, 0), (3, 16 * P - 5),
]  # fmt: skip


@pytest.mark.parametrize(("offset", "nbytes"), RANGES)
@pytest.mark.parametrize(
    "kind", ["private", "shared", "cow", "cow-skip", "raw-shared", "raw-cow", "mixed"]
)
def test_clear(kind, offset, nbytes, make_file, pattern):
    """Bytes of the range become zero, and no other; live windows and other mappings see it."""
    path, data = make_file(16 * P)
    with SparseBuffer(32 * P) as buffer:
        expected = bytearray(data)
        if kind == "private":
            buffer.alloc(0, 16 * P)
        elif kind == "shared":
            buffer.map_file(0, 16 * P, path, writable=True)
        elif kind == "cow":
            buffer.map_file(0, 16 * P, path, copy_on_write=True)
            expected[2 * P : 5 * P] = pattern(3 * P, 9)
        elif kind == "cow-skip":
            buffer.map_file(0, 16 * P, path, copy_on_write=True, skip_holes=True)
        elif kind == "raw-shared":
            buffer.mmap_anonymous(0, 16 * P, R | W, mmap.MAP_SHARED)
        elif kind == "raw-cow":
            buffer.mmap(0, 16 * P, R | W, mmap.MAP_PRIVATE, path)
        else:
            buffer.alloc(0, 2 * P)
            buffer.map_file(2 * P, 2 * P, path, copy_on_write=True)
            buffer.map_file(4 * P, 6 * P, path, 4 * P, writable=True)
            buffer.alloc(10 * P, 6 * P, reserve=True)
        buffer.map_file(16 * P, 16 * P, path)
        buffer.write_at(0, expected)
        window, other = buffer[: 16 * P], buffer[16 * P :]
        buffer._clear(offset, nbytes)
        expected[offset : offset + nbytes] = bytes(nbytes)
        assert buffer.read_at(0, 16 * P) == expected
        assert window.tobytes() == expected
        now = path.read_bytes()
        assert other.tobytes() == now
        assert len(now) == 16 * P
        if kind == "shared":
            assert now == expected
        elif kind == "mixed":
            assert now == data[: 4 * P] + expected[4 * P : 10 * P] + data[10 * P :]
        else:
            assert now == data
        del window, other


def test_cleared_memory_is_given_back(resident, linux_core):
    """Whole pages of private memory that are cleared take none, and are no extents."""
    if not linux_core:
        pytest.skip("on POSIX alone all private memory is one extent")
    with SparseBuffer(66 * P) as buffer:
        buffer.alloc(P, 64 * P)
        buffer.fill_at(P, 1, 64 * P)
        buffer._clear(P + 5, 10 * P)
        assert resident(buffer) == 55 * P
        assert buffer.extents().tolist() == [[P, 2 * P], [11 * P, 65 * P]]
        buffer._clear(P, 64 * P)
        assert resident(buffer) == 0


def test_clearing_takes_no_memory(linux_core):
    """Clearing what was never touched touches nothing, whole pages or parts."""
    if not linux_core:
        pytest.skip("on POSIX alone all private memory is one extent")
    with SparseBuffer(1 << 40) as buffer:
        buffer.alloc(0, 1 << 40)
        buffer._clear(100, 200)
        buffer._clear(0, 1 << 40)
        buffer._clear(P + 1, (1 << 39) + 5)
        assert buffer.extents().tolist() == []


def test_clearing_makes_holes(storage, linux_core):
    """Whole pages of a file that are cleared take no room in it; its size stays."""
    if not linux_core:
        pytest.skip("there is no call on POSIX alone that makes a hole")
    os.pwrite(storage.fd, b"x" * PAGES * P, 0)
    os.fsync(storage.fd)
    before = os.fstat(storage.fd)
    with SparseBuffer(PAGES * P) as buffer:
        buffer.map_file(0, PAGES * P, storage.path, writable=True)
        buffer._clear(P // 2, 30 * P)
        os.fsync(storage.fd)
        after = os.fstat(storage.fd)
        assert after.st_size == before.st_size
        assert before.st_blocks - after.st_blocks >= 29 * P // 512
        assert data_pages(storage.fd) == {0, *range(30, PAGES)}
        assert [a for a, _ in buffer.extents().tolist()] == [0, 30 * P]
        expected = b"x" * (P // 2) + bytes(30 * P)
        assert storage.content() == expected.ljust(PAGES * P, b"x")


def test_cleared_part_of_a_file(storage):
    """A window of a part of the file clears just that part; the rest past its end is kept."""
    os.pwrite(storage.fd, b"x" * PAGES * P, 0)
    os.ftruncate(storage.fd, 50 * P + 100)
    with SparseBuffer(PAGES * P) as buffer:
        buffer.map_file(4 * P, 31 * P, storage.path, 20 * P, writable=True)
        buffer._clear(5 * P, 2 * P)
        buffer._clear(33 * P, P + 100)
        expected = bytearray(b"x" * (50 * P + 100))
        expected[21 * P : 23 * P] = bytes(2 * P)
        expected[49 * P :] = bytes(P + 100)
        assert os.pread(storage.fd, PAGES * P, 0) == expected


def test_clearing_keeps_copies_of_others(storage):
    """A hole made in the file leaves what a copy-on-write window had copied."""
    with SparseBuffer(2 * PAGES * P) as buffer:
        buffer.map_file(0, PAGES * P, storage.path, writable=True)
        buffer.map_file(PAGES * P, PAGES * P, storage.path, copy_on_write=True)
        buffer.write_at((PAGES + 3) * P, b"own")
        copied = buffer.read_at((PAGES + 3) * P, P)
        buffer._clear(0, PAGES * P)
        assert storage.content() == bytes(PAGES * P)
        assert buffer.read_at((PAGES + 3) * P, P) == copied
        assert buffer.read_at((PAGES + 4) * P, P) == bytes(P)


FORBIDDEN = {
    "read-only memory": lambda buffer, _: buffer.set_writable(2 * P, 2 * P, False),
    "read-only file": lambda buffer, path: buffer.map_file(2 * P, 2 * P, path),
    "hole of the buffer": lambda buffer, _: buffer.unmap(2 * P, 2 * P),
}


@pytest.mark.parametrize("what", FORBIDDEN)
@pytest.mark.parametrize(
    ("offset", "nbytes"),
    [
        (0, 6 * P),
        (2 * P, P),
        (P, 3 * P),
        (P // 2, 5 * P),
        (3 * P // 2, P),
        (P + 1, 2 * P),
        (7, 3 * P),
    ],
)
def test_clear_refused(what, offset, nbytes, make_file):
    """A range that may not be written is refused as a whole, and nothing in it has changed."""
    path, _ = make_file(6 * P)
    with SparseBuffer(6 * P) as buffer:
        buffer.alloc(0, 6 * P)
        buffer.fill_at(0, 7, 6 * P)
        FORBIDDEN[what](buffer, path)
        readable = [(0, 2 * P), (4 * P, 2 * P)]
        if what != "hole of the buffer":
            readable.append((2 * P, 2 * P))
        before = [buffer.read_at(*one) for one in readable]
        with pytest.raises(AccessError) as caught:
            buffer._clear(offset, nbytes)
        assert caught.value.operation == "write"
        assert caught.value.transferred == 0
        assert [buffer.read_at(*one) for one in readable] == before


def test_clear_of_a_sealed_file(linux_core):
    """A file that takes no new writers is cleared through the window that it has."""
    if not linux_core:
        pytest.skip("seals are Linux's")
    fd = os.memfd_create("sealed", os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, 4 * P)
        with SparseBuffer(4 * P) as buffer:
            buffer.map_file(0, 4 * P, fd, writable=True)
            buffer.fill_at(0, 7, 4 * P)
            try:
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, F_SEAL_FUTURE_WRITE)
            except OSError:
                pytest.skip("this kernel has no such seal")
            buffer.write_at(0, b"x")
            buffer._clear(5, 4 * P - 10)
            assert os.pread(fd, 4 * P, 0) == b"x" + b"\7" * 4 + bytes(4 * P - 10) + b"\7" * 5
    finally:
        os.close(fd)


@pytest.mark.parametrize("part", ["byte", "page", "pages", "huge page", "all"])
@pytest.mark.parametrize("mode", ["shared", "cow"])
def test_clear_in_huge_pages(mode, part, huge_pages):
    """Files in huge pages are cleared at any byte too."""
    size = huge_pages
    offset, nbytes = {
        "byte": (5, 1), "page": (P, P), "pages": (P // 2, 3 * P), "huge page": (size, size),
        "all": (0, 2 * size),
    }[part]  # fmt: skip
    with shared_memory(2 * size, hugepage_size=size) as memory, SparseBuffer(2 * size) as buffer:
        buffer.map_file(0, 2 * size, memory, writable=mode == "shared", copy_on_write=mode == "cow")
        buffer.fill_at(0, 7, 2 * size)
        buffer._clear(offset, nbytes)
        expected = np.full(2 * size, 7, "u1")
        expected[offset : offset + nbytes] = 0
        assert np.array_equal(buffer[:], expected)
