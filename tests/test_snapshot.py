"""Snapshots: what buffers and arrays held when one was made, whatever is done to them afterwards."""

import gc
import mmap
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sparsearray
from sparsearray import (
    AccessError,
    ClosedError,
    SparseArray,
    SparseBuffer,
    TiledArray,
    shared_memory,
)

P = mmap.PAGESIZE
N = 16 * P


def own_pages(buffer: SparseBuffer) -> int:
    """Count the pages that a buffer has copies of, by what the kernel says of its mappings."""
    found = 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        key, *rest = line.split()
        if "-" in key:
            start, stop = (int(part, 16) for part in key.split("-"))
            inside = buffer.address <= start and stop <= buffer.address + buffer.reserved
        elif key == "Anonymous:" and inside:
            found += int(rest[0]) << 10
    return found // P


@pytest.fixture(params=["file", "memory"])
def mapped(
    request: pytest.FixtureRequest, tmp_path: Path, pattern: Callable[..., bytes]
) -> tuple[SparseBuffer, bytes]:
    """Make a buffer that shows all of a file, or of shared memory, and can write to it."""
    data = pattern(N)
    buffer = SparseBuffer(N)
    if request.param == "file":
        (tmp_path / "data").write_bytes(data)
        buffer.map_file(0, N, tmp_path / "data", writable=True)
    else:
        with shared_memory(N) as memory:
            os.pwrite(memory.fileno(), data, 0)
            buffer.map_file(0, N, memory, writable=True)
    return buffer, data


WRITES: dict[str, Callable[[SparseBuffer], Any]] = {
    "write_at": lambda b: b.write_at(P - 3, b"other" * P),
    "fill_at": lambda b: b.fill_at(3 * P + 5, 0, 2 * P),
    "write_plain": lambda b: b.write_plain(5 * P - 4, 1.5, "f8"),
    "scatter": lambda b: b.scatter(np.arange(0, N, 512), np.arange(N // 512)),
    "scatter across pages": lambda b: b.scatter(np.arange(P - 2, N - P, P), np.arange(15)),
    "atomic add": lambda b: b.atomic_slice(8 * P, 4, "u4").fetch_add(2, 1),
    "atomic store": lambda b: b.atomic_slice(8 * P, 4, "u8").store(1, 1),
    "window": lambda b: b.window(2 * P, 3 * P).fill(9),
    "window across": lambda b: b.window(P // 2, 3, "f8", strides=(4 * P,)).fill(9),
    "clear": lambda b: b._clear(P // 2, 5 * P),
    "read into it": lambda b: b.read_into(0, b[8 * P : 9 * P]),
}


@pytest.mark.parametrize("name", WRITES)
def test_writes_through_the_original(name: str, mapped: tuple[SparseBuffer, bytes]) -> None:
    """Whatever way something is written, the snapshot has what was there, and the file what is new."""
    buffer, data = mapped
    kept = buffer.snapshot()
    twin = SparseBuffer(N)
    twin.alloc(0, N)
    twin.write_at(0, data)
    WRITES[name](buffer)
    WRITES[name](twin)
    assert kept.read_at(0, N) == data
    assert buffer.read_at(0, N) == twin.read_at(0, N) != data


def test_writes_to_the_snapshot(mapped: tuple[SparseBuffer, bytes]) -> None:
    """They stay in it: neither the original nor the file sees them."""
    buffer, data = mapped
    kept = buffer.snapshot("kept")
    assert kept.name == "kept"
    kept.write_at(100, b"mine")
    kept[3 * P : 4 * P][:] = 0
    assert buffer.read_at(0, N) == data
    assert kept.read_at(100, 4) == b"mine"
    assert kept.read_at(3 * P, P) == bytes(P)


def test_a_window_that_is_alive(mapped: tuple[SparseBuffer, bytes]) -> None:
    """What numpy writes to a window that was there before is not in the snapshot."""
    buffer, data = mapped
    window = buffer[P : 5 * P]
    kept = buffer.snapshot()
    assert own_pages(kept) == 4
    window[:] = 7
    assert kept.read_at(0, N) == data
    assert buffer.read_at(P, 4 * P) == bytes([7]) * 4 * P


def test_what_it_costs(mapped: tuple[SparseBuffer, bytes]) -> None:
    """Nothing at first and for reading; a page for each that is written, and no page twice."""
    buffer, data = mapped
    kept = buffer.snapshot()
    assert own_pages(kept) == 0
    assert buffer.window(0, N, writable=False).sum() == np.frombuffer(data, "u1").sum()
    buffer.read_at(0, N)
    assert kept.read_at(0, N) == data
    assert own_pages(kept) == 0
    for _ in range(3):
        buffer.write_at(2 * P - 1, b"ab")
        assert own_pages(kept) == 2
    kept.write_at(10 * P, b"c")
    assert own_pages(kept) == 3


def test_many_snapshots(mapped: tuple[SparseBuffer, bytes]) -> None:
    """Each keeps its own moment, also snapshots of snapshots, and those that go are no hindrance."""
    buffer, data = mapped
    model = bytearray(data)
    kept: list[tuple[SparseBuffer, bytes]] = []
    for i in range(6):
        kept.append((buffer.snapshot(), bytes(model)))
        buffer.write_at(i * P, bytes([i]) * 10)
        model[i * P : i * P + 10] = bytes([i]) * 10
        if i == 3:
            kept.pop(1)[0].close()
            del kept[0]
            gc.collect()
    second = kept[0][0].snapshot()
    expected = kept[0][1]
    kept[0][0].write_at(0, b"changed")
    buffer.fill_at(0, 77, N)
    assert second.read_at(0, N) == expected
    kept[0][0].close()
    third = second.snapshot()
    buffer.fill_at(0, 78, N)
    assert third.read_at(0, N) == second.read_at(0, N) == expected
    assert all(one.read_at(0, N) == was for one, was in kept[1:])


def test_the_original_goes_first(mapped: tuple[SparseBuffer, bytes]) -> None:
    """A snapshot outlives its original, and the other way round."""
    buffer, data = mapped
    kept = buffer.snapshot()
    buffer.write_at(0, b"x" * P)
    buffer.close()
    assert kept.read_at(0, N) == data
    other = kept.snapshot()
    kept.close()
    kept.close()
    assert other.read_at(0, N) == data
    with pytest.raises(ClosedError):
        kept.snapshot()


def test_the_same_bytes_twice(tmp_path: Path, pattern: Callable[..., bytes]) -> None:
    """Of a file that is mapped at two places, what is written at one is kept at the other, too."""
    data = pattern(4 * P)
    (tmp_path / "data").write_bytes(data)
    buffer = SparseBuffer(16 * P)
    buffer.map_file(0, 4 * P, tmp_path / "data", writable=True)
    buffer.map_file(8 * P, 2 * P, tmp_path / "data", P, writable=True)
    kept = buffer.snapshot()
    buffer.write_at(9 * P, b"y" * P)
    buffer.unmap(0, 4 * P)
    buffer.map_file(12 * P, P, tmp_path / "data", 3 * P, writable=True)
    buffer.write_at(12 * P, b"z" * P)
    assert kept.read_at(0, 4 * P) == data
    assert kept.read_at(8 * P, 2 * P) == data[P : 3 * P]


def test_kinds_of_regions(tmp_path: Path, pattern: Callable[..., bytes]) -> None:
    """Regions stay where they are: private memory copied, zeros zeros, files private, holes holes."""
    data = pattern(4 * P)
    (tmp_path / "data").write_bytes(data)
    buffer = SparseBuffer(64 * P)
    buffer.alloc(0, 4 * P)
    buffer.write_at(P, b"private")
    buffer.alloc(4 * P, P)
    buffer.write_at(4 * P, b"read-only")
    buffer.set_writable(4 * P, P, writable=False)
    buffer.map_zero(8 * P, 4 * P)
    buffer.map_file(16 * P, 4 * P, tmp_path / "data")
    buffer.map_file(24 * P, 4 * P, tmp_path / "data", copy_on_write=True)
    buffer.write_at(25 * P, b"copied")
    buffer.mmap_anonymous(32 * P, 2 * P, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED)
    buffer.write_at(33 * P, b"raw")
    kept = buffer.snapshot()
    before = {
        region.offset: buffer.read_at(region.offset, region.nbytes) for region in buffer.regions
    }
    assert [(one.offset, one.nbytes) for one in kept.regions] == [
        (one.offset, one.nbytes) for one in buffer.regions
    ]
    for offset in (0, 24 * P, 32 * P):
        buffer.fill_at(offset, 1, 2 * P)
    for offset, was in before.items():
        assert kept.read_at(offset, len(was)) == was
    writable = {one.offset: one.writable for one in kept.regions}
    assert writable == {
        0: True, 4 * P: False, 8 * P: False, 16 * P: True, 24 * P: True, 32 * P: True
    }  # fmt: skip
    with pytest.raises(AccessError):
        kept.read_at(12 * P, 1)
    assert (tmp_path / "data").read_bytes() == data


def test_a_file_that_is_cut(tmp_path: Path, pattern: Callable[..., bytes]) -> None:
    """What others have cut off is no snapshot's: an error says so, and nothing is made."""
    data = pattern(N)
    (tmp_path / "data").write_bytes(data)
    buffer = SparseBuffer(N)
    buffer.map_file(0, N, tmp_path / "data", writable=True)
    os.truncate(tmp_path / "data", 3 * P)
    with pytest.raises(AccessError) as caught:
        buffer.snapshot()
    assert (caught.value.reason, caught.value.offset) == ("file-truncated", 3 * P)
    os.truncate(tmp_path / "data", N)
    kept = buffer.snapshot()
    assert kept.read_at(0, N) == data[: 3 * P] + bytes(N - 3 * P)


@pytest.mark.filterwarnings("ignore::sparsearray.SparseDamageWarning")
def test_private_copies_are_lost_with_the_file(tmp_path: Path) -> None:
    """If others cut the file, the snapshot has lost that: it says so, and what is left stays right."""
    (tmp_path / "data").write_bytes(b"a" * 4 * P)
    buffer = SparseBuffer(4 * P)
    buffer.map_file(0, 4 * P, tmp_path / "data", writable=True)
    kept = buffer.snapshot()
    os.truncate(tmp_path / "data", P)
    assert kept.read_at(0, P) == b"a" * P
    with pytest.raises(AccessError, match="past the end of its file"):
        kept.read_at(0, 2 * P)


def test_holes_are_memory(tmp_path: Path, linux_core: bool) -> None:
    """A terabyte with a few pages is kept at once; what comes into its holes is not in it."""
    if not linux_core:
        pytest.skip("nobody tells which memory was touched: all of it is looked at")
    path = tmp_path / "a.npy"
    with sparsearray.open(path, "w+", shape=(1 << 37,)) as a:
        a[1000] = 1
        a[1 << 36] = 2
        kept = a.snapshot()
        a[1 << 30 : (1 << 30) + 5000] = 3
        a[1000] = 4
        assert (kept.sum(), kept[1000], kept[1 << 30]) == (3, 1, 0)
        assert a.sum() == 4 + 2 + 3 * 5000
        assert kept.nbytes_stored <= 4 * P
        del kept
        gc.collect()
    assert path.stat().st_blocks * 512 < 1 << 20


def make(kind: str, path: Path) -> SparseArray | TiledArray:
    """Make an array of (100, 200) float32 of each kind."""
    shape: tuple[int, ...] = (100, 200)
    if kind == "memory":
        return sparsearray.zeros(shape, "f4", maxshape=(None, 200))
    if kind == "tiles in memory":
        return sparsearray.zeros(shape, "f4", tiles=(16, 64))
    if kind == "shared memory":
        return sparsearray.open(shared_memory(80_000), "r+", dtype="f4", shape=shape)
    tiles = (16, 64) if "tiles" in kind else None
    made = sparsearray.open(path, "w+", shape=shape, dtype="f4", tiles=tiles)
    if kind != "copy on write":
        return made
    made.close()
    return sparsearray.open(path, "c")


KINDS = ["memory", "tiles in memory", "shared memory", "file", "tiles in a file", "copy on write"]
CHANGES: dict[str, Callable[[Any], Any]] = {
    "item": lambda a: a.__setitem__((3, 4), 5),
    "rows": lambda a: a.__setitem__(slice(10, 50), 5),
    "column": lambda a: a.__setitem__((slice(None), 7), 5),
    "steps": lambda a: a.__setitem__((slice(None, None, -3), slice(5, None, 7)), 2),
    "zero": lambda a: a.__setitem__(slice(None), 0),
    "arrays": lambda a: a.__setitem__(([3, 50, 99], [0, 100, 199]), [1, 2, 3]),
    "mask": lambda a: a.__setitem__(np.arange(20_000).reshape(100, 200) % 7 == 0, 8),
    "another array": lambda a: a.__setitem__(Ellipsis, sparsearray.zeros((100, 200), "f4")),
    "discard": lambda a: a.discard(slice(20, 90)),
    "in place": lambda a: np.multiply(a, 2, out=a),
    "copyto": lambda a: np.copyto(a, a * 3),
}


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (kind, change)
        for kind in KINDS
        for change in CHANGES
        if "tiles" not in kind or change != "in place"
    ],
)
def test_arrays(kind: str, change: str, tmp_path: Path) -> None:
    """An array's snapshot is what it was, of every kind and whatever is changed."""
    a = make(kind, tmp_path / "a.npy")
    dense = np.random.default_rng(1).random((100, 200), "f4")
    dense[30:60] = 0
    a[...] = dense
    kept = a.snapshot()
    assert type(kept) is type(a)
    assert (kept.shape, kept.dtype, kept.path) == (a.shape, a.dtype, None)
    CHANGES[change](a)
    np.testing.assert_array_equal(kept[...], dense)
    if change not in ("in place", "copyto", "another array"):
        CHANGES[change](dense) if change != "discard" else dense.__setitem__(slice(20, 90), 0)
        np.testing.assert_array_equal(a[...], dense)
    kept[5:7] = 1
    assert a[6, 199] != 1


@pytest.mark.parametrize("kind", ["file", "tiles in a file"])
def test_lengths(kind: str, tmp_path: Path) -> None:
    """What the original cuts off its file stays in the snapshot, which cannot change its length."""
    a = make(kind, tmp_path / "a.npy")
    dense = np.random.default_rng(1).random((100, 200), "f4")
    a[...] = dense
    kept = a.snapshot()
    a.resize((33, 200))
    np.testing.assert_array_equal(kept[...], dense)
    a.close()
    np.testing.assert_array_equal(kept[...], dense)
    kept[90] = 4
    dense[90] = 4
    np.testing.assert_array_equal(kept[...], dense)
    for shape in ((10, 200), (200, 200)):
        with pytest.raises(ValueError, match="snapshot|maxshape"):
            kept.resize(shape)


def test_rows_that_come_later(tmp_path: Path) -> None:
    """Appending changes nothing in the snapshot, also within its last page."""
    a = sparsearray.open(tmp_path / "a.npy", "w+", shape=(3, 5), maxshape=(None, 5))
    a[...] = 1
    kept = a.snapshot()
    a.append(np.full((1000, 5), 2))
    assert kept.shape == (3, 5)
    assert (kept.sum(), a.sum()) == (15, 15 + 10_000)
    tail = kept.buffer.read_at(kept.offset + kept.nbytes, P - kept.nbytes)
    assert tail == bytes(len(tail))


def test_reading_copies_nothing(tmp_path: Path) -> None:
    """Functions of the original, its blocks and its copies leave the snapshot's pages shared."""
    a = sparsearray.open(tmp_path / "a.npy", "w+", shape=(512, 512))
    a[...] = np.arange(512)
    kept = a.snapshot()
    assert a.sum() == np.mean(a) * 512 * 512
    assert (a.max(axis=0) == np.arange(512)).all()
    assert np.count_nonzero(a.copy() > 3) == 512 * 508
    assert (a[[1, 5]][:, 7] == 7).all()
    for _, block in a.blocks():
        assert not block.flags.writeable
    assert own_pages(kept.buffer) == 0
    kept.close()
    assert all(block.flags.writeable for _, block in a.blocks())


def test_stitched_arrays(tmp_path: Path) -> None:
    """Files that are known by their names are kept as well."""
    for i in range(3):
        np.full(1024, i, "f4").tofile(tmp_path / f"{i}.raw")
    a = sparsearray.stitch([tmp_path / f"{i}.raw" for i in range(3)], "f4", mode="r+")
    kept = a.snapshot()
    a[1000:1100] = 9
    assert kept.sum() == 1024 * 3
    assert a.sum() == 1024 * 3 + 9 * 100 - 76
    (tmp_path / "2.raw").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"2\.raw"):
        a.snapshot()


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_order(data: st.DataObject, tmp_path: Path) -> None:
    """Against byte arrays: writes of all kinds to an original and its snapshots, in any order."""
    path = tmp_path / "data"
    path.write_bytes(bytes(range(256)) * (4 * P // 256) + bytes(4 * P))
    n = 8 * P
    buffers = [SparseBuffer(n)]
    buffers[0].map_file(0, n, path, writable=True)
    models = [bytearray(path.read_bytes())]
    for step in range(data.draw(st.integers(1, 12))):
        which = data.draw(st.integers(0, len(buffers) - 1))
        buffer, model = buffers[which], models[which]
        kind = data.draw(st.sampled_from(["snapshot", "write", "window", "close", "clear"]))
        start = data.draw(st.integers(0, n - 1))
        length = data.draw(st.integers(1, min(n - start, 3 * P)))
        if kind == "snapshot" and len(buffers) < 5:
            buffers.append(buffer.snapshot())
            models.append(bytearray(model))
        elif kind == "write":
            buffer.write_at(start, bytes([step + 1]) * length)
            model[start : start + length] = bytes([step + 1]) * length
        elif kind == "window":
            buffer[start : start + length][:] = step
            model[start : start + length] = bytes([step]) * length
        elif kind == "clear":
            buffer._clear(start, length)
            model[start : start + length] = bytes(length)
        elif kind == "close" and which:
            buffers.pop(which).close()
            models.pop(which)
        for one, expected in zip(buffers, models, strict=True):
            assert one.read_at(0, n) == expected
    assert path.read_bytes() == models[0]


def test_beside_threads(tmp_path: Path) -> None:
    """Snapshots made and dropped while threads write are of one moment for each page, and no thread waits."""
    path = tmp_path / "data"
    path.write_bytes(bytes(64 * P))
    buffer = SparseBuffer(64 * P)
    buffer.map_file(0, 64 * P, path, writable=True)
    stop = threading.Event()
    failed: list[BaseException] = []

    def write() -> None:
        try:
            number = 0
            while not stop.is_set():
                number = (number + 1) % 256
                for page in range(64):
                    buffer.write_at(page * P, bytes([number]) * P)
        except BaseException as error:  # noqa: BLE001 - told below
            failed.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    for _ in range(30):
        kept = buffer.snapshot()
        first = kept.read_at(0, 64 * P)
        assert kept.read_at(0, 64 * P) == first
        pages = np.frombuffer(first, "u1").reshape(64, P)
        assert (pages == pages[:, :1]).all()
    stop.set()
    thread.join()
    assert not failed


def test_in_a_forked_child(run_ok: Callable[..., str]) -> None:
    """A child has the snapshot as it was, and its own writes to the original keep that so."""
    run_ok("""
        with open("data", "wb") as file:
            file.write(b"a" * 4 * P)
        buffer = SparseBuffer(4 * P)
        buffer.map_file(0, 4 * P, "data", writable=True)
        kept = buffer.snapshot()
        buffer.write_at(0, b"b" * P)
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            buffer.write_at(P, b"c" * P)
            good = kept.read_at(0, 2 * P) == b"a" * 2 * P
            os._exit(0 if good else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert buffer.read_at(0, 3 * P) == b"b" * P + b"c" * P + b"a" * P
        assert kept.read_at(0, P) == b"a" * P
    """)


@pytest.mark.slow  # the allocator of a sanitizer can hang in a child that is forked beside threads
def test_forks_beside_snapshots(run_ok: Callable[..., str]) -> None:
    """Forking while threads make, write and drop snapshots blocks nobody, in parent and child."""
    run_ok("""
        import time, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork with threads
        with open("data", "wb") as file:
            file.write(b"a" * 16 * P)
        buffer = SparseBuffer(16 * P)
        buffer.map_file(0, 16 * P, "data", writable=True)
        stop, failed = False, []
        def work(i):
            try:
                while not stop:
                    kept = buffer.snapshot()
                    buffer.write_at(i * P, bytes([i]) * P)
                    buffer[8 * P : 9 * P][:] = i
                    again = kept.snapshot()
                    kept.fill_at(0, 1, P)
                    again.read_at(0, 16 * P)
            except BaseException as error:
                failed.append(error)
        threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 3
        children = status = 0
        while time.monotonic() < end and not status:
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                kept = buffer.snapshot()
                was = kept.read_at(12 * P, P)  # where the parent writes nothing
                buffer.write_at(12 * P, os.urandom(P))
                os._exit(0 if kept.read_at(12 * P, P) == was else 1)
            status = os.waitpid(pid, 0)[1]
            children += 1
        stop = True
        for thread in threads:
            thread.join()
        assert not failed, failed
        assert status == 0, status
        assert children > 5, children
    """)


def test_nothing_stays(
    tmp_path: Path,
    descriptors: Callable[[], int],
    leaves_no_mapping: Callable[[Callable[[], object]], None],
) -> None:
    """Snapshots that go leave no descriptor and no mapping."""
    (tmp_path / "data").write_bytes(b"a" * N)
    buffer = SparseBuffer(N)
    buffer.map_file(0, N, tmp_path / "data", writable=True)
    buffer.snapshot().close()
    before = descriptors()

    def keep() -> None:
        kept = buffer.snapshot()
        buffer.write_at(0, b"b")
        del kept

    leaves_no_mapping(keep)
    assert descriptors() == before


def test_no_memory_for_it() -> None:
    """Private memory that does not fit a second time is refused before it is copied."""
    buffer = SparseBuffer(1 << 44)
    buffer.map_file(0, 1 << 30, shared_memory(1 << 30), writable=True)
    raw, no_reserve = mmap.PROT_READ | mmap.PROT_WRITE, 0x4000  # Python 3.13 has it
    buffer.mmap_anonymous(1 << 40, 1 << 40, raw, mmap.MAP_SHARED | no_reserve)
    with pytest.raises(MemoryError, match="to copy"):
        buffer.snapshot()


def test_in_a_cycle(run_ok: Callable[..., str]) -> None:
    """A buffer that the collector finds with all that belongs to it goes without a crash."""
    run_ok("""
        import gc
        with open("data", "wb") as file:
            file.write(b"a" * P)
        for _ in range(20):
            buffer = SparseBuffer(P)
            buffer.map_file(0, P, "data", writable=True)
            kept = buffer.snapshot()
            cell = kept._cell
            cycle = [cell, kept, buffer]
            cycle.append(cycle)
            gc.collect()  # into another generation
            del buffer, kept, cell, cycle
            gc.collect()
    """)


def test_snapshots_that_were_made_read_only(mapped: tuple[SparseBuffer, bytes]) -> None:
    """What is protected is kept as well, and stays protected."""
    buffer, data = mapped
    kept = buffer.snapshot()
    kept.set_writable(0, N, writable=False)
    buffer.fill_at(0, 5, N)
    assert kept.read_at(0, N) == data
    with pytest.raises(AccessError, match="read-only"):
        kept.write_at(0, b"x")


def test_copy_on_write_beside_writable(tmp_path: Path, pattern: Callable[..., bytes]) -> None:
    """A private window of what the original can write elsewhere is kept, too."""
    data = pattern(2 * P)
    (tmp_path / "data").write_bytes(data)
    buffer = SparseBuffer(4 * P)
    buffer.map_file(0, 2 * P, tmp_path / "data", writable=True)
    buffer.map_file(2 * P, 2 * P, tmp_path / "data", copy_on_write=True)
    kept = buffer.snapshot()
    buffer.write_at(0, b"other" * 1000)
    assert kept.read_at(2 * P, 2 * P) == data


def test_a_writable_window_of_the_snapshot_forbids_a_cut(tmp_path: Path) -> None:
    """What it writes meanwhile would be lost: the original keeps its length until the window is gone."""
    a = sparsearray.open(tmp_path / "a.npy", "w+", shape=(2000,))
    a[:] = 1
    kept = a.snapshot()
    window = kept[1000:]
    with pytest.raises(BufferError, match="1 live window"):
        a.resize(10)
    assert a.shape == (2000,)
    window[-1] = 5
    del window
    a.resize(10)
    assert kept.sum() == 2004


def test_scatter_keeps_each_page(tmp_path: Path) -> None:
    """Records in any order, across pages and regions, are all kept before they are written."""
    rng = np.random.default_rng(3)
    data = rng.bytes(64 * P)
    (tmp_path / "data").write_bytes(data)
    buffer = SparseBuffer(64 * P)
    buffer.map_file(0, 32 * P, tmp_path / "data", writable=True)
    buffer.map_file(32 * P, 32 * P, tmp_path / "data", 32 * P, writable=True)
    kept = buffer.snapshot()
    places = rng.integers(0, 64 * P - 12, 5000)
    buffer.scatter(places, np.zeros(5000, "V12"))
    assert kept.read_at(0, 64 * P) == data
    assert buffer.gather(places, "V12").tobytes() == bytes(60_000)
