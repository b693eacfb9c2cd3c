"""Disks that fail, fill up, or cannot map; and a pool of huge pages that is empty."""

import errno
import mmap
import os
from pathlib import Path

import numpy as np
import pytest

from sparsearray import AccessError, SparseBuffer

P = mmap.PAGESIZE
MIB = 1 << 20


def test_io_errors(misbehaving):
    """A page that the disk cannot read is 'io-error', with the bytes before it; others are read."""
    path = misbehaving.folder / "broken"
    with SparseBuffer(16 * P) as buffer:
        buffer.map_file(2 * P, 8 * P, path)
        bad = 7 * P
        assert buffer.read_at(2 * P, 5 * P) == b"".join(bytes([i]) * P for i in range(1, 6))
        assert buffer.read_at(8 * P, 2 * P) == b"\7" * P + b"\x08" * P
        out = bytearray(4 * P)
        for call, done in [
            (lambda: buffer.read_into(5 * P + 10, out), 2 * P - 10),
            (lambda: buffer.read_at(bad + 5, 1), 0),
            (lambda: buffer.read_plain(bad - 3, "V10"), 3),
            (lambda: buffer.gather([3 * P, bad - 2, 8 * P], "u4"), 0),
            (lambda: buffer.atomic_slice(bad, 4).load(0), 0),
        ]:
            with pytest.raises(AccessError) as caught:
                call()
            error = caught.value
            assert (error.reason, error.operation) == ("io-error", "read")
            assert error.errno == errno.EIO
            assert error.filename == str(path)
            assert error.transferred == done
            assert bad <= error.offset < bad + P
        assert out[: 2 * P - 10] == b"\4" * (P - 10) + b"\5" * P
        with pytest.raises(AccessError) as caught:
            buffer.commit(2 * P, 8 * P)
        assert (caught.value.reason, caught.value.offset) == ("io-error", bad)
        assert caught.value.transferred == 5 * P


def test_io_errors_whoever_has_the_handlers(misbehaving, run_ok):
    """An I/O error is one with the signal ignored, too."""
    run_ok(f"""
        signal.signal(signal.SIGBUS, signal.SIG_IGN)
        buffer = SparseBuffer(8 * P)
        buffer.map_file(0, 8 * P, {str(misbehaving.folder / "broken")!r})
        signal.signal(signal.SIGBUS, signal.SIG_IGN)
        error = failure(buffer.read_at, 0, 8 * P)
        assert (error.reason, error.offset, error.transferred) == ("io-error", 5 * P, 5 * P), error
        assert failure(buffer.atomic_slice(0, 8 * P).load, 5 * P).reason == "io-error"
    """)


@pytest.mark.parametrize("options", [{}, {"writable": True}])
def test_file_system_that_cannot_map(options, misbehaving, mappings):
    """A file whose mapping fails late, in its own driver, leaves the old mapping and no gap."""
    with SparseBuffer(16 * P) as buffer:
        buffer.alloc(0, 16 * P)
        buffer.fill_at(0, 7, 16 * P)
        before = buffer.regions
        with pytest.raises(OSError) as caught:
            buffer.map_file(4 * P, 8 * P, misbehaving.folder / "direct", **options)
        assert caught.value.errno == errno.ENODEV
        assert buffer.regions == before
        assert buffer.read_at(0, 16 * P) == b"\7" * 16 * P
        found = mappings(buffer)
        assert sum(one.stop - one.start for one in found) == 16 * P
        assert {one.perms for one in found} == {"rw-p"}


def test_flush_errors_are_kept(misbehaving):
    """A failed flush is told again and again, not once as the system does, until mapped anew."""
    path = misbehaving.folder / "full"
    with SparseBuffer(16 * P) as buffer:
        buffer.map_file(0, 8 * P, path, writable=True)
        buffer.flush()
        buffer.write_at(3 * P, b"lost")
        for _ in range(3):
            with pytest.raises(OSError) as caught:
                buffer.flush()
            assert caught.value.errno == errno.ENOSPC
            assert caught.value.filename == str(path)
        with pytest.raises(OSError):
            buffer.flush(3 * P, P)
        assert buffer.read_at(3 * P, 4) == b"lost"  # memory still holds it
        buffer.unmap(0, 8 * P)
        buffer.flush()
        buffer.map_file(0, 8 * P, path, writable=True)
        buffer.flush()


@pytest.fixture
def no_space(linux_core):
    """Tell what a full disk can be called: why something failed, only Linux's core can always ask."""
    return {"no-space"} if linux_core else {"no-space", "io-error"}


def test_full_disk(small_disk, no_space):
    """A write that the disk has no room for is 'no-space', after the bytes that had it."""
    path = small_disk / "sparse"
    path.touch()
    os.truncate(path, 64 * P)
    with SparseBuffer(64 * P) as buffer:
        buffer.map_file(0, 64 * P, path, writable=True)
        data = np.random.default_rng(0).integers(1, 256, 64 * P, "u1")
        with pytest.raises(AccessError) as caught:
            buffer.write_at(0, data)
        error = caught.value
        assert error.reason in no_space
        assert error.errno == (errno.ENOSPC if error.reason == "no-space" else errno.EIO)
        assert error.operation == "write"
        assert error.filename == str(path)
        assert error.offset == error.transferred
        assert 8 * P <= error.transferred <= 16 * P
        assert error.transferred % P == 0
        assert path.read_bytes()[: error.offset] == data[: error.offset].tobytes()
        for call in (
            lambda: buffer.fill_at(40 * P, 1, 1),
            lambda: buffer.write_plain(40 * P, np.uint64(1)),
            lambda: buffer.scatter([40 * P], np.uint64(1)),
            lambda: buffer.atomic_slice(40 * P, 1).store(0, 1),
        ):
            with pytest.raises(AccessError) as caught:
                call()
            assert caught.value.reason in no_space
            assert caught.value.offset == 40 * P
        with pytest.raises(AccessError) as caught:
            buffer.commit(0, 64 * P)
        assert caught.value.reason in no_space


def test_hole_on_a_full_disk(small_disk, no_space):
    """A hole that tmpfs has no page for, even to read zeros from, is 'no-space' too, or read."""
    path = small_disk / "sparse"
    path.touch()
    os.truncate(path, 64 * P)
    with SparseBuffer(64 * P) as buffer:
        buffer.map_file(0, 64 * P, path, writable=True)
        with pytest.raises(AccessError):
            buffer.fill_at(0, 1, 64 * P)
        try:
            assert buffer.read_at(50 * P, 8) == bytes(8)
        except AccessError as error:
            assert error.reason in no_space  # noqa: PT017
            assert error.operation == "read"  # noqa: PT017


def test_full_disk_whoever_has_the_handlers(small_disk, no_space, run_ok):
    """A full disk is an error with the signal ignored, too, with the same bytes done."""
    path = small_disk / "sparse"
    path.touch()
    os.truncate(path, 64 * P)
    run_ok(f"""
        buffer = SparseBuffer(64 * P)
        buffer.map_file(0, 64 * P, {str(path)!r}, writable=True)
        signal.signal(signal.SIGBUS, signal.SIG_IGN)
        for call in (lambda: buffer.write_at(0, bytes(64 * P)), lambda: buffer.fill_at(0, 1, 64 * P)):
            try:
                call()
            except AccessError as error:
                assert error.reason in {no_space!r}
                assert error.offset == error.transferred >= 8 * P
            else:
                raise AssertionError
    """)


def test_room_again(small_disk):
    """Once there is room on the disk, writes go on."""
    path, other = small_disk / "sparse", small_disk / "other"
    path.touch()
    os.truncate(path, 8 * P)
    with SparseBuffer(8 * P) as buffer:
        buffer.map_file(0, 8 * P, path, writable=True)
        try:
            other.write_bytes(bytes(100 * P))
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017 - as meant
        with pytest.raises(AccessError):
            buffer.fill_at(0, 1, 8 * P)
        other.unlink()
        buffer.fill_at(0, 1, 8 * P)
        assert path.read_bytes() == b"\1" * 8 * P


def test_no_huge_page_left(linux_core):
    """A huge page that the pool does not have when it is touched is 'no-memory', not death."""
    # Only Linux's core knows of huge pages.
    reasons = {"no-memory"} if linux_core else {"no-space", "io-error"}
    pool = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
    if not pool.exists():
        pytest.skip("this kernel has no huge pages of 2 MiB")
    free = int((pool / "free_hugepages").read_text())
    if free > 100:
        pytest.skip("the pool of huge pages is too large to use up")
    size = (free + 1) * 2 * MIB
    fd = os.memfd_create("huge", os.MFD_CLOEXEC | os.MFD_HUGETLB | os.MFD_HUGE_2MB)
    try:
        os.truncate(fd, size)
        with SparseBuffer(size) as buffer:
            flags = mmap.MAP_SHARED | 0x4000  # MAP_NORESERVE
            buffer.mmap(0, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, fd)
            for call in (
                lambda: buffer.fill_at(0, 1, size),
                lambda: buffer.write_at(0, np.ones(size, "u1")),
                lambda: buffer.commit(0, size),
            ):
                with pytest.raises(AccessError) as caught:
                    call()
                assert caught.value.reason in reasons
                assert caught.value.operation == "write"
                assert caught.value.offset % (2 * MIB) == 0
                assert caught.value.offset == caught.value.transferred
            assert buffer.regions[0].kind == "raw"
    finally:
        os.close(fd)
