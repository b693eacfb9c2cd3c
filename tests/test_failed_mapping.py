"""Mapping calls that fail leave what was there, with its bytes."""

import errno
import mmap
import os
from pathlib import Path

import pytest

from sparsearray import (
    SparseBuffer,
)

P = mmap.PAGESIZE
MIB = 1 << 20
FILE_PAGES = 16


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
