"""Reservations: size, place, alignment, life."""

import errno
import gc
import mmap
from pathlib import Path

import numpy as np
import pytest

from sparsearray import AccessError, ClosedError, SparseBuffer, SparseError

P = mmap.PAGESIZE
KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40

SIZES = sorted(
    {1, 2, P - 1, P, P + 1, 2 * P, 3 * P}
    | {base + step for base in (MIB, 2 * MIB, GIB) for step in (-P - 1, -P, -1, 0, 1, P, P + 1)}
)


def system_page_sizes() -> list[int]:
    """The sizes of pages that this system has, as it says itself."""
    sizes = [P]
    pools = Path("/sys/kernel/mm/hugepages").glob("hugepages-*")
    sizes += [int(pool.name.removeprefix("hugepages-").removesuffix("kB")) * KIB for pool in pools]
    transparent = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
    if transparent.exists():
        sizes.append(int(transparent.read_text()))
    return sizes


@pytest.mark.parametrize("nbytes", SIZES)
def test_length_is_in_whole_pages(nbytes):
    """A buffer has the bytes asked for, rounded up to whole pages."""
    with SparseBuffer(nbytes) as buffer:
        assert buffer.nbytes == -(-nbytes // P) * P
        assert len(buffer) == buffer.nbytes


@pytest.mark.parametrize("nbytes", SIZES)
def test_start_is_aligned_to_largest_page_that_fits(nbytes, linux_core):
    """The start, and what is taken, are multiples of the largest page size not above the length."""
    whole = -(-nbytes // P) * P
    unit = max(size for size in system_page_sizes() if size <= whole) if linux_core else P
    with SparseBuffer(nbytes) as buffer:
        assert buffer.address % unit == 0
        assert buffer.reserved == -(-whole // unit) * unit


@pytest.mark.parametrize("alignment", [P, 2 * P, 64 * KIB, MIB, 2 * MIB, GIB, 4 * GIB, TIB])
@pytest.mark.parametrize("nbytes", [P, 3 * MIB])
def test_larger_alignment_on_request(nbytes, alignment):
    """The start is aligned to a power of two on request, and the length stays what it was."""
    with SparseBuffer(nbytes, alignment=alignment) as buffer:
        assert buffer.address % alignment == 0
        assert buffer.nbytes == nbytes
        buffer.alloc(0, nbytes)
        buffer.write_at(nbytes - 1, b"x")


def test_alignment_is_a_minimum(linux_core):
    """Asking for pages does not take away the alignment that a length has anyway."""
    unit = max(size for size in system_page_sizes() if size <= 2 * GIB) if linux_core else P
    with SparseBuffer(2 * GIB, alignment=P) as buffer:
        assert buffer.address % unit == 0


@pytest.mark.parametrize("alignment", [0, 1, -P, P // 2, P + 1, 3 * P, 2 * MIB + 1])
def test_other_alignments_are_refused(alignment):
    """An alignment that is no power of two of at least a page is a ValueError that names it."""
    with pytest.raises(ValueError, match=str(alignment)):
        SparseBuffer(MIB, alignment=alignment)


@pytest.mark.parametrize("alignment", [1 << 62, 1 << 63, 1 << 64, 1 << 80])
def test_alignment_beyond_the_address_space(alignment):
    """An alignment larger than the address space is an error of the system."""
    with pytest.raises(OSError) as caught:
        SparseBuffer(P, alignment=alignment)
    assert caught.value.errno == errno.ENOMEM


@pytest.mark.parametrize("nbytes", [0, -1, -P, -(1 << 70)])
def test_no_bytes_are_refused(nbytes):
    """A length of zero or less is a ValueError."""
    with pytest.raises(ValueError, match="positive"):
        SparseBuffer(nbytes)


@pytest.mark.parametrize("nbytes", [1.0, "4096", None, b"1", [P]])
def test_length_is_an_int(nbytes):
    """A length that is no integer is a TypeError."""
    with pytest.raises(TypeError):
        SparseBuffer(nbytes)


def test_numpy_integers_are_ints():
    """Integers of numpy count as ints."""
    with SparseBuffer(np.uint32(P), alignment=np.int64(2 * P)) as buffer:
        buffer.alloc(np.int8(0), np.uint64(P))
        assert buffer.read_at(np.int16(1), np.uint8(2)) == b"\0\0"


@pytest.mark.parametrize(
    "nbytes", [1 << 60, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64, 1 << 99]
)
def test_more_than_the_address_space(nbytes):
    """A length that no address space has is ENOMEM, however many bits it has."""
    with pytest.raises(OSError) as caught:
        SparseBuffer(nbytes)
    assert caught.value.errno == errno.ENOMEM
    assert not isinstance(caught.value, SparseError)


def test_64_tib(run_ok):
    """64 TiB can be reserved and used at both ends: in a process whose addresses are all free."""
    run_ok(
        """
        with SparseBuffer(64 << 40) as buffer:
            assert buffer.nbytes == 64 << 40
            for offset in (0, (64 << 40) - P):
                buffer.alloc(offset, P)
                buffer.write_at(offset, b"end")
                assert buffer.read_at(offset, 4) == b"end\\0"
        """
    )


def test_large_ones_leave_room_for_large_ones(run_ok):
    """What is small and lives on after a large one was closed is not in the way of the next."""
    run_ok("""
        kept = []
        for _ in range(5):
            with SparseBuffer(60 << 40):
                pass
            kept.append(SparseBuffer(P))
            kept.append(SparseBuffer(1 << 30))
    """)


def test_nothing_is_mapped_at_first(mappings):
    """A new buffer is one hole, which the kernel has as inaccessible."""
    with SparseBuffer(20 * MIB) as buffer:
        assert buffer.regions == ()
        assert {one.perms for one in mappings(buffer)} == {"---p"}
        assert sum(one.stop - one.start for one in mappings(buffer)) == 20 * MIB
        with pytest.raises(AccessError, match="not mapped"):
            buffer.read_at(0, 1)


def test_page_size_is_the_systems():
    """The page size is what the system says."""
    with SparseBuffer(1) as buffer:
        assert buffer.page_size == P


def test_name_shows():
    """The name is kept, and repr tells name, length and what is mapped."""
    with SparseBuffer(MIB, name="volume") as buffer:
        buffer.alloc(0, P)
        assert buffer.name == "volume"
        assert "volume" in repr(buffer)
        assert f"{MIB:#x} ({MIB})" in repr(buffer)
        assert "1 region" in repr(buffer)
    assert "closed" in repr(buffer)
    assert SparseBuffer(P).name is None


@pytest.mark.parametrize(
    "name", ["nbytes", "reserved", "page_size", "address", "closed", "regions"]
)
def test_facts_cannot_be_set(name):
    """What a buffer is cannot be assigned to."""
    with SparseBuffer(P) as buffer, pytest.raises(AttributeError):
        setattr(buffer, name, 1)


def test_close_is_idempotent():
    """A buffer can be closed again."""
    buffer = SparseBuffer(P)
    assert not buffer.closed
    buffer.close()
    buffer.close()
    assert buffer.closed


def test_with_closes():
    """Leaving the with block closes the buffer."""
    with SparseBuffer(P) as buffer:
        pass
    assert buffer.closed


def test_with_tells_of_windows():
    """Leaving the with block while a window lives raises BufferError, and the window lives on."""
    buffer = SparseBuffer(P)
    with pytest.raises(BufferError, match="1 live window"), buffer:
        buffer.alloc(0, P)
        window = buffer[:]
    window[0] = 7
    assert buffer.read_at(0, 1) == b"\x07"
    del window
    buffer.close()


def test_with_does_not_hide_an_exception():
    """An exception in the with block is what arrives, though a window lives."""
    kept = []
    with pytest.raises(ZeroDivisionError), SparseBuffer(P) as buffer:
        buffer.alloc(0, P)
        kept.append(buffer[:])
        _ = 1 / 0
    assert kept[0].sum() == 0


CLOSED_CALLS = {
    "alloc": lambda b: b.alloc(0, P),
    "map_zero": lambda b: b.map_zero(0, P),
    "map_file": lambda b: b.map_file(0, P, "/proc/self/exe"),
    "mmap": lambda b: b.mmap(0, P, mmap.PROT_READ, mmap.MAP_PRIVATE, "/proc/self/exe"),
    "mmap_anonymous": lambda b: b.mmap_anonymous(0, P, mmap.PROT_READ, mmap.MAP_PRIVATE),
    "unmap": lambda b: b.unmap(0, P),
    "set_writable": lambda b: b.set_writable(0, P, True),
    "decommit": lambda b: b.decommit(0, P),
    "commit": lambda b: b.commit(0, P),
    "advise": lambda b: b.advise(0, P, "normal"),
    "bind_numa": lambda b: b.bind_numa(0, P, 0),
    "set_name": lambda b: b.set_name(0, P, "x"),
    "flush": lambda b: b.flush(),
    "read_at": lambda b: b.read_at(0, 1),
    "read_at of nothing": lambda b: b.read_at(0, 0),
    "read_into": lambda b: b.read_into(0, bytearray(1)),
    "write_at": lambda b: b.write_at(0, b"x"),
    "fill_at": lambda b: b.fill_at(0, 0, 1),
    "read_plain": lambda b: b.read_plain(0, "u1"),
    "read_plain of an array": lambda b: b.read_plain(0, "u1", 3),
    "write_plain": lambda b: b.write_plain(0, 1, "u1"),
    "write_plain of an array": lambda b: b.write_plain(0, np.zeros(9)),
    "gather": lambda b: b.gather([0], "u1"),
    "scatter": lambda b: b.scatter([0], np.uint8(1)),
    "atomic load": lambda b: b.atomic_slice(0, 1).load(0),
    "window": lambda b: b.window(0, 1),
    "slice": lambda b: b[:],
    "regions": lambda b: b.regions,
}


@pytest.mark.parametrize("name", CLOSED_CALLS)
def test_closed_buffer_refuses(name):
    """After close every call raises ClosedError, which is a ValueError as with files."""
    buffer = SparseBuffer(P)
    buffer.alloc(0, P)
    buffer.close()
    with pytest.raises(ClosedError, match="closed") as caught:
        CLOSED_CALLS[name](buffer)
    assert isinstance(caught.value, ValueError)


def test_atomics_of_a_closed_buffer():
    """An atomic slice made before close is refused after it."""
    buffer = SparseBuffer(P)
    buffer.alloc(0, P)
    items = buffer.atomic_slice(0, 4, "u8")
    buffer.close()
    with pytest.raises(ClosedError):
        items.fetch_add(0, 1)


def still_mapped(path: Path) -> bool:
    """Whether this process has a mapping of the file."""
    return str(path) in Path("/proc/self/maps").read_text()


def test_close_gives_the_range_back(make_file):
    """Nothing of the buffer stays mapped after close, though the object lives."""
    path, _ = make_file(P)
    buffer = SparseBuffer(4 * P)
    buffer.map_file(P, P, path)
    assert still_mapped(path)
    buffer.close()
    assert not still_mapped(path)


def test_collected_buffer_gives_the_range_back(make_file):
    """A buffer that nobody closed gives its memory back when it is collected."""
    path, _ = make_file(P)
    buffer = SparseBuffer(4 * P)
    buffer.map_file(P, P, path)
    del buffer
    gc.collect()
    assert not still_mapped(path)


def test_collected_in_a_cycle(make_file):
    """A buffer in a reference cycle with its own window is collected whole."""
    path, _ = make_file(P)
    buffer = SparseBuffer(4 * P)
    buffer.map_file(P, P, path)

    class Holder:
        pass

    holder = Holder()
    holder.me, holder.buffer, holder.window = holder, buffer, buffer.window(P, P)
    del holder, buffer
    gc.collect()
    assert not still_mapped(path)


def test_window_outlives_its_buffer(make_file):
    """The memory of a collected buffer stays until its last window is gone, and not longer."""
    path, data = make_file(2 * P)
    buffer = SparseBuffer(4 * P)
    buffer.map_file(P, 2 * P, path)
    first, second = buffer.window(P, P), buffer.window(2 * P, P)
    del buffer
    gc.collect()
    assert bytes(first) == data[:P]
    del first
    gc.collect()
    assert still_mapped(path)
    assert bytes(second) == data[P:]
    del second
    gc.collect()
    assert not still_mapped(path)


def test_descriptor_goes_with_the_buffer(make_file, descriptors):
    """A buffer's descriptor of a file is closed with it."""
    path, _ = make_file(P)
    before = descriptors()
    buffer = SparseBuffer(P)
    buffer.map_file(0, P, path)
    assert descriptors() == before + 1
    buffer.close()
    assert descriptors() == before


def test_many_buffers(descriptors):
    """Thousands of buffers made and dropped leave nothing behind."""

    def count() -> int:
        return len(Path("/proc/self/maps").read_text().splitlines())

    before, open_before = count(), descriptors()
    for _ in range(3000):
        buffer = SparseBuffer(GIB)
        buffer.alloc(0, P)
        window = buffer[:P]
        window[0] = 1
    del buffer, window
    gc.collect()
    assert count() < before + 50
    assert descriptors() == open_before


def test_address_space_limit(run_ok):
    """Under ulimit -v a reservation that does not fit is ENOMEM, and one that does works."""
    run_ok("""
        import resource
        used = int(open("/proc/self/statm").read().split()[0]) * P
        resource.setrlimit(resource.RLIMIT_AS, (used + (512 << 20),) * 2)
        error = failure(SparseBuffer, 1 << 30)
        assert isinstance(error, OSError) and error.errno == errno.ENOMEM, error
        with SparseBuffer(64 << 20) as buffer:
            buffer.alloc(0, 64 << 20)
            buffer.write_at(5, b"fits")
    """)


def test_exit_with_everything_alive(run_ok):
    """The interpreter ends well with buffers, windows, threads and a cycle still there."""
    run_ok("""
        buffer = SparseBuffer(1 << 30)
        buffer.alloc(0, 1 << 20)
        window = buffer[: 1 << 20]
        kept = {"window": window.T[::2], "view": memoryview(window), "buffer": buffer}
        kept["me"] = kept
        sys.modules["kept"] = kept
        def work():
            while True:
                try:
                    buffer.read_at(0, 4096)
                    buffer[:99].sum()
                except TypeError:  # names are gone at the end
                    return
        threading.Thread(target=work, daemon=True).start()
        print(buffer.read_at(0, 1))
    """)


def test_never_initialised():
    """An object that __init__ never saw is refused, and collected, like any other."""
    buffer = SparseBuffer.__new__(SparseBuffer)
    with pytest.raises(AttributeError):
        buffer.read_at(0, 1)
    del buffer
    gc.collect()


def test_failed_init_is_collected():
    """An object whose __init__ failed is closed, and collected."""
    buffer = SparseBuffer.__new__(SparseBuffer)
    with pytest.raises(ValueError, match="positive"):
        buffer.__init__(0)
    assert buffer.closed
    del buffer
    gc.collect()
