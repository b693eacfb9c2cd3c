"""Atomic slices: what each operation does, and that no step of another thread is lost."""

import mmap
import sys
import threading

import numpy as np
import pytest

from sparsearray import AccessError, AtomicSlice, OutOfBoundsError, SparseBuffer

P = mmap.PAGESIZE
DTYPES = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]


@pytest.fixture
def page():
    """Make a buffer of two pages of memory."""
    with SparseBuffer(2 * P) as buffer:
        buffer.alloc(0, 2 * P)
        yield buffer


def wrap(value: int, dtype: str) -> int:
    """Wrap a value around as a C integer does."""
    bits = 8 * np.dtype(dtype).itemsize
    value %= 1 << bits
    signed = np.dtype(dtype).kind == "i"
    return value - (1 << bits) if signed and value >> (bits - 1) else value


@pytest.mark.parametrize("dtype", DTYPES)
def test_load_and_store(dtype, page):
    """Items lie in memory as numpy's of that dtype do, and values are Python ints."""
    items = page.atomic_slice(16, 8, dtype)
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    for i, value in enumerate([0, 1, high, low, high - 1, low + 1, 5, 100]):
        assert items.store(i, value) is None
        found = items.load(i)
        assert type(found) is int
        assert found == value
        assert page.read_plain(16 + i * items.dtype.itemsize, dtype) == value


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["add", "sub", "and", "or", "xor"])
def test_fetch_operations(name, dtype, page):
    """Fetch operations return what was there, and wrap around."""
    work = {
        "add": lambda a, b: a + b,
        "sub": lambda a, b: a - b,
        "and": lambda a, b: a & b,
        "or": lambda a, b: a | b,
        "xor": lambda a, b: a ^ b,
    }[name]
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    items = page.atomic_slice(P, 4, dtype)
    for old in (0, 1, 77, high, low):
        for value in (0, 1, 85, high, low):
            items.store(2, old)
            assert getattr(items, f"fetch_{name}")(2, value) == old
            assert items.load(2) == wrap(work(old, value), dtype)
            assert items.load(1) == items.load(3) == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_exchange(dtype, page):
    """Exchange returns what was there."""
    items = page.atomic_slice(0, 2, dtype)
    assert items.exchange(1, 9) == 0
    assert items.exchange(1, int(np.iinfo(dtype).min)) == 9
    assert items.load(1) == int(np.iinfo(dtype).min)


@pytest.mark.parametrize("dtype", DTYPES)
def test_compare_exchange(dtype, page):
    """Compare-exchange sets the item only if it was as expected, and tells what it was."""
    items = page.atomic_slice(0, 2, dtype)
    high = int(np.iinfo(dtype).max)
    assert items.compare_exchange(0, 0, high) == (True, 0)
    assert items.compare_exchange(0, 0, 3) == (False, high)
    assert items.load(0) == high
    assert items.compare_exchange(0, high, 3) == (True, high)
    assert items.load(0) == 3
    assert type(items.compare_exchange(0, 3, 3)[0]) is bool


def test_facts(page):
    """A slice tells its length, dtype and offset."""
    items = page.atomic_slice(24, 3, "u8")
    assert isinstance(items, AtomicSlice)
    assert (len(items), items.dtype, items.offset) == (3, np.dtype("u8"), 24)
    assert "24" in repr(items)
    assert len(page.atomic_slice(5, 7)) == 7
    assert page.atomic_slice(0, 0, "u8").dtype.itemsize == 8


def test_indices_are_pythons(page):
    """Negative indices count from the end; others out of range are IndexErrors."""
    items = page.atomic_slice(0, 4, "u2")
    items.store(-1, 7)
    assert items.load(3) == items.load(np.int8(3)) == 7
    for bad in (4, -5, 1 << 40, -(1 << 70)):
        with pytest.raises(OutOfBoundsError, match="4 items") as caught:
            items.load(bad)
        assert isinstance(caught.value, IndexError)
    for bad in (1.0, "0", None, slice(0, 1)):
        with pytest.raises(TypeError):
            items.load(bad)
    with pytest.raises(IndexError):
        page.atomic_slice(0, 0).load(0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_out_of_range(dtype, page):
    """Values that the dtype cannot hold are OverflowErrors that show them; nothing changes."""
    items = page.atomic_slice(0, 1, dtype)
    for value in (int(np.iinfo(dtype).max) + 1, int(np.iinfo(dtype).min) - 1, 1 << 64, -(1 << 70)):
        for call in (
            lambda value=value: items.store(0, value),
            lambda value=value: items.exchange(0, value),
            lambda value=value: items.compare_exchange(0, value, 1),
            lambda value=value: items.compare_exchange(0, 0, value),
            lambda value=value: items.fetch_add(0, value),
            lambda value=value: items.fetch_sub(0, value),
            lambda value=value: items.fetch_and(0, value),
            lambda value=value: items.fetch_or(0, value),
            lambda value=value: items.fetch_xor(0, value),
        ):
            with pytest.raises(OverflowError, match=str(value)):
                call()
    assert items.load(0) == 0
    for bad in (1.5, "1", None):
        with pytest.raises(TypeError):
            items.store(0, bad)


OTHER_ORDER = ">" if sys.byteorder == "little" else "<"


@pytest.mark.parametrize(
    "dtype", ["f4", "f8", "?", "c8", "S1", "V8", "M8[s]", "m8[s]", f"{OTHER_ORDER}u4", f"{OTHER_ORDER}i8",
              [("a", "u4")], ("u4", 2), object, "U1"], ids=range(14)
)  # fmt: skip
def test_other_dtypes_are_refused(dtype, page):
    """Only integers in the machine's byte order have atomic operations."""
    with pytest.raises(TypeError):
        page.atomic_slice(0, 1, dtype)


@pytest.mark.parametrize("dtype", ["u2", "u4", "u8"])
def test_unaligned_is_refused(dtype, page):
    """An offset that is no multiple of the item's size is a ValueError."""
    for offset in range(1, np.dtype(dtype).itemsize):
        with pytest.raises(ValueError, match="aligned"):
            page.atomic_slice(offset, 1, dtype)


@pytest.mark.parametrize(("offset", "count"), [(-8, 1), (0, -1), (-(1 << 70), 0), (0, -(1 << 70))])
def test_negative_is_refused(offset, count, page):
    """A negative offset or count is a ValueError."""
    with pytest.raises(ValueError, match="negative"):
        page.atomic_slice(offset, count, "u8")


@pytest.mark.parametrize(
    ("offset", "count"),
    [(0, P // 4 + 1), (2 * P, 1), (2 * P + 8, 0), (1 << 70, 1), (0, 1 << 70), (0, 1 << 63)],
)
def test_past_the_end_is_refused(offset, count, page):
    """A slice past the end is an OutOfBoundsError with the buffer's length."""
    with pytest.raises(OutOfBoundsError, match=rf"{2 * P:#x} \({2 * P}\)"):
        page.atomic_slice(offset, count, "u8")


def test_pins_nothing():
    """A slice keeps no pages: they can be unmapped under it, and then it is refused."""
    with SparseBuffer(2 * P) as buffer:
        items = buffer.atomic_slice(0, P // 4, "u8")  # over holes, too
        with pytest.raises(AccessError) as caught:
            items.load(3)
        assert (caught.value.reason, caught.value.operation) == ("unmapped", "read")
        assert caught.value.offset == 24
        buffer.alloc(0, P)
        items.store(3, 5)
        buffer.set_writable(0, P, False)
        assert items.load(3) == 5
        for call in (
            lambda: items.store(3, 1),
            lambda: items.exchange(3, 1),
            lambda: items.compare_exchange(3, 6, 1),
            lambda: items.fetch_add(3, 0),
        ):
            with pytest.raises(AccessError) as caught:
                call()
            assert (caught.value.reason, caught.value.operation) == ("read-only", "write")
            assert caught.value.offset == 24
        buffer.unmap(0, P)
        with pytest.raises(AccessError):
            items.store(3, 1)


def test_slice_keeps_its_buffer():
    """A slice keeps the buffer object alive."""
    buffer = SparseBuffer(P)
    buffer.alloc(0, P)
    items = buffer.atomic_slice(0, 4, "u4")
    del buffer
    assert items.fetch_add(0, 3) == 0
    assert items.load(0) == 3


@pytest.mark.parametrize("kind", ["private", "file", "shared memory"])
def test_no_step_is_lost(kind, make_file):
    """Counts of several threads add up, in memory and in files."""
    count, threads = 3000, 4
    from sparsearray import shared_memory

    with SparseBuffer(P) as buffer:
        buffer.alloc(0, P)
        if kind == "file":
            path, _ = make_file(P)
            path.write_bytes(bytes(P))
            buffer.map_file(0, P, path, writable=True)
        elif kind == "shared memory":
            with shared_memory(P) as memory:
                buffer.map_file(0, P, memory, writable=True)
        items = buffer.atomic_slice(0, 8, "i8")

        def work() -> None:
            for _ in range(count):
                items.fetch_add(0, 1)
                items.fetch_sub(1, 1)
                items.fetch_xor(2, 1)
                while True:
                    old = items.load(3)
                    if items.compare_exchange(3, old, old + 2)[0]:
                        break

        running = [threading.Thread(target=work) for _ in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        total = count * threads
        assert [items.load(i) for i in range(4)] == [total, -total, 0, 2 * total]


def test_no_step_of_a_process_is_lost(run_ok):
    """Counts of several processes over shared memory add up."""
    run_ok("""
        with shared_memory(P) as memory:
            buffer = SparseBuffer(P)
            buffer.map_file(0, P, memory, writable=True)
        items = buffer.atomic_slice(0, 1, "u4")
        children = []
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                for _ in range(5000):
                    items.fetch_add(0, 1)
                os._exit(0)
            children.append(pid)
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
        assert items.load(0) == 15000, items.load(0)
    """)
