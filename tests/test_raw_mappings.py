"""`mmap` and `mmap_anonymous`: mappings with flags of the user's own."""

import mmap
import os

import numpy as np
import pytest

from sparsearray import AccessError, Region, SharedMemory, SparseBuffer

P = mmap.PAGESIZE
R, W, X = mmap.PROT_READ, mmap.PROT_WRITE, mmap.PROT_EXEC


def test_raw_file_mapping(make_file):
    """A raw mapping shows the file with the protection asked for."""
    path, data = make_file(4 * P)
    with SparseBuffer(4 * P) as buffer:
        buffer.mmap(0, 2 * P, R, mmap.MAP_SHARED, path, P)
        buffer.mmap(2 * P, P, R | W, mmap.MAP_PRIVATE, path)
        buffer.mmap(3 * P, P, R | W, mmap.MAP_SHARED, path)
        assert buffer.regions == (
            Region(0, 2 * P, "raw", False, str(path), P),
            Region(2 * P, P, "raw", True, str(path), 0),
            Region(3 * P, P, "raw", True, str(path), 0),
        )
        assert buffer.read_at(0, 2 * P) == data[P : 3 * P]
        buffer.write_at(2 * P, b"private")
        buffer.write_at(3 * P + 7, b"shared")
        assert path.read_bytes() == data[:7] + b"shared" + data[13:]
        with pytest.raises(AccessError, match="read-only"):
            buffer.write_at(0, b"x")


@pytest.mark.parametrize(
    ("prot", "perms"),
    [(0, "---p"), (R, "r--p"), (R | W, "rw-p"), (R | X, "r-xp"), (R | W | X, "rwxp")],
)
def test_raw_protection_is_the_kernels(prot, perms, mappings):
    """The kernel has a raw mapping with the protection asked for."""
    with SparseBuffer(3 * P) as buffer:
        try:
            buffer.mmap_anonymous(P, P, prot, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except PermissionError:
            assert prot & X
            return
        assert buffer.regions == (Region(P, P, "raw", bool(prot & W), None, None),)
        found = [one.perms for one in mappings(buffer) if one.start <= P < one.stop]
        assert found == [perms]


def test_raw_without_read_cannot_be_read():
    """Without PROT_READ reads are refused as of a hole, and nothing can be looked at."""
    with SparseBuffer(3 * P) as buffer:
        buffer.mmap_anonymous(P, P, 0, mmap.MAP_PRIVATE)
        with pytest.raises(AccessError) as caught:
            buffer.read_at(P + 3, 1)
        assert (caught.value.reason, caught.value.offset) == ("unmapped", P + 3)
        with pytest.raises(AccessError):
            buffer.window(P, 1)
        with pytest.raises(AccessError):
            buffer.write_at(P, b"x")


def test_raw_never_joins():
    """Raw mappings side by side stay regions of their own."""
    with SparseBuffer(4 * P) as buffer:
        for i in range(4):
            buffer.mmap_anonymous(i * P, P, R | W, mmap.MAP_PRIVATE)
        assert len(buffer.regions) == 4
        buffer.write_at(0, b"x" * 4 * P)
        assert buffer.read_at(0, 4 * P) == b"x" * 4 * P


def test_raw_populated(resident, linux_core):
    """MAP_POPULATE has the memory there at once."""
    if not linux_core:
        pytest.skip("MAP_POPULATE is Linux's")
    with SparseBuffer(18 * P) as buffer:
        buffer.mmap_anonymous(P, 16 * P, R | W, mmap.MAP_PRIVATE | mmap.MAP_POPULATE)
        assert resident(buffer) == 16 * P


def test_raw_shared_memory_is_shared_with_children(run_ok):
    """A forked child and its parent share MAP_SHARED memory."""
    run_ok("""
        buffer = SparseBuffer(2 * P)
        buffer.mmap_anonymous(0, P, 3, mmap.MAP_SHARED)
        buffer.alloc(P, P)
        pid = os.fork()
        if pid == 0:
            buffer.write_at(P - 3, b"shared")
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert buffer.read_at(P - 3, 6) == b"sha" + bytes(3)
    """)


REFUSED = {
    "MAP_FIXED": 0x10,
    "MAP_FIXED_NOREPLACE": 0x100000,
    "MAP_GROWSDOWN": 0x100,
    "MAP_HUGETLB": 0x40000,
    "MAP_LOCKED": 0x2000,
}
if os.uname().machine == "x86_64":
    REFUSED["MAP_32BIT"] = 0x40


@pytest.fixture
def old():
    """Make a buffer that must stay as it is."""
    with SparseBuffer(4 * P) as buffer:
        buffer.alloc(0, 4 * P)
        buffer.fill_at(0, 3, 4 * P)
        yield buffer
        assert buffer.regions == (Region(0, 4 * P, "private", True, None, None),)
        assert buffer.read_at(0, 4 * P) == b"\3" * 4 * P


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("kind", [mmap.MAP_SHARED, mmap.MAP_PRIVATE])
def test_flags_that_reach_outside(name, kind, old, make_file, linux_core):
    """Flags that could not be unmapped, or that reach outside, are refused by name."""
    match = name if linux_core or name == "MAP_FIXED" else "flags|MAP_"
    with pytest.raises(ValueError, match=match):
        old.mmap_anonymous(0, P, R | W, kind | REFUSED[name])
    with pytest.raises(ValueError, match=match):
        old.mmap(0, P, R, kind | REFUSED[name], make_file(P)[0])


@pytest.mark.parametrize("flags", [0, mmap.MAP_ANONYMOUS, 0x3 | 0xC, 0x4, 1 << 27, 1 << 30, -1])
def test_unknown_flags(flags, old, make_file):
    """Flags that say neither shared nor private, or that nobody knows, are ValueErrors."""
    with pytest.raises(ValueError, match="MAP_|flags"):
        old.mmap_anonymous(0, P, R, flags)
    with pytest.raises(ValueError, match="MAP_|flags"):
        old.mmap(0, P, R, flags, make_file(P)[0])


def test_unknown_flag_is_shown(old):
    """The bits that nobody knows are in the message."""
    with pytest.raises(ValueError, match="0x40000000"):
        old.mmap_anonymous(0, P, R, mmap.MAP_PRIVATE | 1 << 30)


def test_anonymous_file_is_refused(old, make_file):
    """A file mapped as anonymous memory would not be the file."""
    with pytest.raises(ValueError, match="MAP_ANONYMOUS"):
        old.mmap(0, P, R, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, make_file(P)[0])


@pytest.mark.parametrize("prot", [8, 1 << 24, 1 << 25, -1])
def test_unknown_protection(prot, old):
    """Protection bits that reach outside the range, or that nobody knows, are ValueErrors."""
    with pytest.raises(ValueError, match="prot"):
        old.mmap_anonymous(0, P, prot, mmap.MAP_PRIVATE)


@pytest.mark.parametrize(
    ("prot", "flags"), [(1 << 40, 2), (1, 1 << 40), (1 << 70, 2), (1, 1 << 70)]
)
def test_protection_and_flags_beyond_an_int(prot, flags, old, make_file):
    """Numbers of more bits than the system takes are refused for what they are."""
    with pytest.raises((ValueError, OverflowError)):
        old.mmap_anonymous(0, P, prot, flags)
    with pytest.raises((ValueError, OverflowError)):
        old.mmap(0, P, prot, flags, make_file(P)[0])


def test_writable_raw_needs_the_right_to_write(old, make_file):
    """A shared writable raw mapping of a descriptor that cannot write is a PermissionError."""
    with open(make_file(P)[0], "rb") as file, pytest.raises(PermissionError):
        old.mmap(0, P, R | W, mmap.MAP_SHARED, file)


def test_numpy_over_a_shared_memory_object():
    """A shared-memory object is taken wherever a file is."""
    from sparsearray import shared_memory

    with shared_memory(2 * P) as memory, SparseBuffer(4 * P) as buffer:
        assert isinstance(memory, SharedMemory)
        buffer.map_file(0, 2 * P, memory, writable=True)
        buffer.map_file(2 * P, 2 * P, memory.fileno())
        buffer.write_plain(8, np.arange(9, dtype="u4"))
        assert np.array_equal(buffer.read_plain(2 * P + 8, "u4", 9), np.arange(9))


def test_what_is_cut_off_stays_apart():
    """A part of a raw mapping whose protection is set is a region of its own, even if it had that."""
    with SparseBuffer(3 * P) as buffer:
        buffer.mmap_anonymous(0, 3 * P, R, mmap.MAP_SHARED)
        buffer.set_writable(P, P, False)
        assert [(one.offset, one.nbytes) for one in buffer.regions] == [
            (i * P, P) for i in range(3)
        ]
