"""Shared memory: memory with a descriptor, sealed, and in huge pages on request."""

import errno
import fcntl
import mmap
import os
from contextlib import suppress
from pathlib import Path

import pytest

from sparsearray import (
    AccessError,
    ClosedError,
    Region,
    SharedMemory,
    SparseBuffer,
    shared_memory,
)

P = mmap.PAGESIZE
MIB = 1 << 20


@pytest.mark.parametrize("nbytes", [1, P - 1, P, P + 1, 3 * P, MIB + 1])
def test_length_is_in_whole_pages(nbytes):
    """Shared memory has the bytes asked for, rounded up to whole pages, all zero."""
    with shared_memory(nbytes) as memory:
        whole = -(-nbytes // P) * P
        assert isinstance(memory, SharedMemory)
        assert memory.nbytes == whole
        assert os.fstat(memory.fileno()).st_size == whole
        assert os.pread(memory.fileno(), whole, 0) == bytes(whole)


def test_mapped_twice_is_the_same_memory():
    """Windows of it, in one buffer or two, and its descriptor show the same bytes."""
    with shared_memory(2 * P) as memory, SparseBuffer(8 * P) as one, SparseBuffer(P) as two:
        one.map_file(0, 2 * P, memory, writable=True)
        one.map_file(4 * P, P, memory, P, writable=True)
        two.map_file(0, P, memory, P)
        one.write_at(P + 5, b"everywhere")
        assert one.read_at(4 * P + 5, 10) == two.read_at(5, 10) == b"everywhere"
        assert os.pread(memory.fileno(), 10, P + 5) == b"everywhere"
        one[4 * P : 4 * P + 3][:] = 9
        assert two.read_at(0, 4) == b"\x09\x09\x09\0"


def test_ring():
    """Mapped twice side by side, what wraps around is contiguous."""
    with shared_memory(P) as memory, SparseBuffer(2 * P) as buffer:
        buffer.map_file(0, P, memory, writable=True)
        buffer.map_file(P, P, memory, writable=True)
        buffer.write_at(P - 3, b"around")
        assert buffer.read_at(0, 3) == b"und"
        assert buffer.read_at(P - 3, 6) == b"around"
        assert len(buffer.regions) == 2


def test_memory_outlives_its_descriptor():
    """After close the windows stay."""
    with SparseBuffer(P) as buffer:
        with shared_memory(P) as memory:
            buffer.map_file(0, P, memory, writable=True)
            buffer.write_at(0, b"kept")
        assert memory.closed
        assert buffer.read_at(0, 4) == b"kept"


def test_closed_memory():
    """A closed one says so, again and again, and has no descriptor."""
    memory = shared_memory(P, "label")
    assert not memory.closed
    memory.close()
    memory.close()
    assert memory.closed
    assert "closed" in repr(memory)
    with pytest.raises(ClosedError, match="label"):
        memory.fileno()
    with SparseBuffer(P) as buffer, pytest.raises(ClosedError):
        buffer.map_file(0, P, memory)


def test_descriptor_goes_when_collected(descriptors):
    """One that nobody closed is closed when it is collected."""
    before = descriptors()
    memory = shared_memory(P)
    assert descriptors() == before + 1
    assert not os.get_inheritable(memory.fileno())
    del memory
    assert descriptors() == before


def test_sealed_against_shrinking():
    """It cannot be made shorter, so that no access to it can fault."""
    with shared_memory(2 * P) as memory:
        assert fcntl.fcntl(memory.fileno(), fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
        for nbytes in (0, P, 2 * P - 1):
            with pytest.raises(PermissionError):
                os.ftruncate(memory.fileno(), nbytes)
        os.ftruncate(memory.fileno(), 4 * P)


def test_name_shows_in_maps(mappings):
    """The kernel shows its name."""
    with shared_memory(P, "frames of a film") as memory, SparseBuffer(P) as buffer:
        assert memory.name == "frames of a film"
        assert "frames of a film" in repr(memory)
        buffer.map_file(0, P, memory)
        assert mappings(buffer)[0].path.startswith("/memfd:frames of a film")
        assert buffer.regions[0].file.startswith("/memfd:frames of a film")


@pytest.mark.parametrize("name", ["", "a" * 249, "ümläut", "with/slash"])
def test_names(name):
    """Any label of up to 249 bytes will do."""
    with shared_memory(P, name) as memory:
        assert memory.name == name


def test_long_name():
    """A label of more than 249 bytes is a ValueError."""
    with pytest.raises(ValueError, match="249|name"):
        shared_memory(P, "a" * 250)


@pytest.mark.parametrize("nbytes", [0, -1, -P])
def test_no_bytes(nbytes):
    """A length of zero or less is a ValueError."""
    with pytest.raises(ValueError, match="positive"):
        shared_memory(nbytes)


@pytest.mark.parametrize("nbytes", [1.0, "1", None])
def test_length_is_an_int(nbytes):
    """A length that is no integer is a TypeError."""
    with pytest.raises(TypeError):
        shared_memory(nbytes)


@pytest.mark.parametrize("nbytes", [1 << 62, (1 << 63) - 1, 1 << 63, 1 << 70])
def test_more_than_a_file_can_have(nbytes, descriptors):
    """A length that no file can have is an error, and no descriptor stays."""
    before = descriptors()
    with suppress(OSError, OverflowError, ValueError):
        shared_memory(nbytes).close()
    assert descriptors() == before


def test_memory_is_taken_when_touched():
    """Shared memory of a terabyte is had at once, and costs what is touched."""
    size = 1 << 40
    with shared_memory(size) as memory, SparseBuffer(size) as buffer:
        buffer.map_file(0, size, memory, writable=True)
        buffer.write_at(size - 5, b"last")
        assert buffer.read_at(size - 5, 5) == b"last\0"
        assert os.fstat(memory.fileno()).st_blocks * 512 <= 4 * MIB


# ------------------------------------------------------------------------------ huge pages


@pytest.mark.parametrize("size", [0, -1, 1, P, 3 * MIB, 2 * MIB + 1, 1 << 21 << 20, 1 << 62])
def test_no_such_huge_page(size):
    """A size that the system has no huge pages of is a ValueError that shows it."""
    with pytest.raises(ValueError, match="huge page"):
        shared_memory(MIB, hugepage_size=size)


def test_empty_pool(descriptors):
    """More huge pages than the pool has are ENOMEM at once, and no descriptor stays."""
    if not Path("/sys/kernel/mm/hugepages/hugepages-2048kB").exists():
        pytest.skip("this kernel has no huge pages of 2 MiB")
    before = descriptors()
    with pytest.raises(OSError, match="nr_hugepages") as caught:
        shared_memory(1 << 50, hugepage_size=2 * MIB)
    assert caught.value.errno in {errno.ENOMEM, errno.ENOSPC}
    assert descriptors() == before


def test_huge_pages(huge_pages):
    """Memory in huge pages is mapped in whole ones, and works as any other."""
    size = huge_pages
    with shared_memory(size + 1, hugepage_size=size) as memory, SparseBuffer(8 * size) as buffer:
        assert memory.nbytes == 2 * size
        buffer.map_file(2 * size, 2 * size, memory, writable=True)
        (region,) = buffer.regions
        assert region == Region(2 * size, 2 * size, "file", True, region.file, 0)
        buffer.write_at(3 * size - 2, b"across")
        assert buffer.read_at(3 * size - 3, 8) == b"\0across\0"
        window = buffer.window(2 * size, 2 * size // 8, "u8")
        window[0] = 5
        assert buffer.read_plain(2 * size, "u8") == 5
        assert buffer.gather([2 * size, 3 * size], "u1").tolist() == [5, ord("r")]
        del window
        buffer.commit(2 * size, 2 * size)
        buffer.set_writable(2 * size, size, False)
        with pytest.raises(AccessError):
            buffer.write_at(2 * size, b"x")
        buffer.unmap(2 * size, size)
        assert buffer.read_at(3 * size, 4) == b"ross"


def test_huge_pages_are_not_cut(huge_pages):
    """Windows and later calls that would cut a huge page are ValueErrors; nothing changes."""
    size = huge_pages
    with shared_memory(2 * size, hugepage_size=size) as memory, SparseBuffer(8 * size) as buffer:
        for offset, nbytes, file_offset in [
            (P, size, 0), (0, P, 0), (0, size + P, 0), (0, size, P), (size // 2, size, 0),
        ]:  # fmt: skip
            with pytest.raises(ValueError, match="huge page") as caught:
                buffer.map_file(offset, nbytes, memory, file_offset, writable=True)
            assert f"{size:#x} ({size})" in str(caught.value)
        buffer.map_file(2 * size, 2 * size, memory, writable=True)
        buffer.fill_at(2 * size, 7, 2 * size)
        before = buffer.regions
        for call in (
            lambda: buffer.unmap(2 * size, P),
            lambda: buffer.unmap(size, size + P),
            lambda: buffer.alloc(3 * size - P, P),
            lambda: buffer.alloc(4 * size - P, 2 * P),
            lambda: buffer.map_zero(2 * size + P, size),
            lambda: buffer.set_writable(2 * size, P, False),
            lambda: buffer.decommit(2 * size, P),
            lambda: buffer.map_file(2 * size + P, P, "/proc/self/exe"),
        ):
            with pytest.raises(ValueError, match="huge page"):
                call()
        assert buffer.regions == before
        assert buffer.read_at(2 * size, 2 * size) == b"\7" * 2 * size
        buffer.alloc(size, 2 * size)
        assert buffer.read_at(2 * size, 2 * size) == bytes(size) + b"\7" * size


def test_default_length_is_a_huge_page(huge_pages):
    """One byte takes a whole huge page."""
    with shared_memory(1, hugepage_size=huge_pages) as memory:
        assert memory.nbytes == huge_pages
