"""Rings: the newest items of a row without end, any of them in a row one window."""

import copy
import gc
import mmap
import multiprocessing
import os
import pickle
import threading
from math import lcm

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsearray
from sparsearray import (
    ClosedError,
    OutOfBoundsError,
    OverrunError,
    SparseArray,
    SparseBuffer,
    SparseError,
    shared_memory,
)

P = mmap.PAGESIZE
RECORD = np.dtype([("time", "<i8"), ("level", "<f4"), ("flag", "u1")])  # 13 bytes


def numbers(start: int, stop: int) -> np.ndarray:
    """Make items that say which they are."""
    return np.arange(start, stop, dtype="i8")


def claim(ring: sparsearray.Ring, number: int) -> None:
    """Do what a writer does first, and no more."""
    os.pwrite(ring.memory.fileno(), number.to_bytes(8, "little"), 128)


# --------------------------------------------------------------------------- how many items stay


@pytest.mark.parametrize("dtype", ["u1", "f8", "V3", "c16", RECORD, ("u1", (5, 7)), f"V{P + 1}"])
@pytest.mark.parametrize("count", [1, 100, P])
def test_count_is_rounded_up_to_whole_pages(dtype, count):
    """The items fill whole pages, as few as can be, and repr says so."""
    size = np.dtype(dtype).itemsize
    with sparsearray.ring(count, dtype) as ring:
        unit = lcm(size, P) // size
        assert ring.count == (count + unit - 1) // unit * unit
        assert ring.dtype == np.dtype(dtype)
        assert (f"({count} asked for)" in repr(ring)) == (ring.count != count)
        assert ring.memory.nbytes == ring.count * size + P


@given(
    pushes=st.lists(st.integers(0, 900), max_size=12),
    asked=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 600)), max_size=6),
    dtype=st.sampled_from(["i8", ">i4", "f4", "c16"]),
)
@settings(max_examples=60, deadline=None)
def test_any_items_in_a_row(pushes, asked, dtype):
    """`last`, `window` and `read` give what a list of all items has there, or say that it is gone."""
    with sparsearray.ring(256, dtype) as ring:
        everything = np.empty(0, dtype)
        for n in pushes:
            new = np.arange(len(everything), len(everything) + n).astype(dtype)
            ring.push(new)
            everything = np.concatenate([everything, new])
            assert ring.pushed == len(everything)
            assert ring.oldest == max(len(everything) - ring.count, 0)
            assert len(ring) == min(len(everything), ring.count)
            assert np.array_equal(ring.last(), everything[-ring.count :])
        for start, n in asked:
            if start >= ring.oldest and start + n <= ring.pushed:
                for found in (ring.window(start, n), ring.read(start, n)):
                    assert np.array_equal(found, everything[start : start + n])
                continue
            kind = OutOfBoundsError if start + n > ring.pushed else OverrunError
            for call in (ring.window, ring.read):
                with pytest.raises(kind):
                    call(start, n)


def test_windows_are_the_memory_itself():
    """Across the end of the memory too, a window is contiguous, read-only and no copy."""
    with sparsearray.ring(512, "i8") as ring:
        ring.push(numbers(0, 1000))
        window = ring.window(600, 400)
        assert window.flags.c_contiguous
        assert not window.flags.owndata
        with pytest.raises(ValueError, match="WRITEABLE|writeable"):
            window.flags.writeable = True
        ring.push(numbers(1000, 1200))  # over the first 88 of them
        assert window.tolist() == [*range(1112, 1200), *range(688, 1000)]
        copy = ring.read(1000, 200)
        assert copy.flags.owndata
        assert copy.flags.writeable
        del window


# ------------------------------------------------------------------------------------- what is pushed


@pytest.mark.parametrize(
    ("dtype", "pushed", "expected"),
    [
        ("f8", [1, 2, 3], [1.0, 2.0, 3.0]),
        ("i4", 7, [7]),
        ("i4", np.arange(10)[::3], [0, 3, 6, 9]),
        (">u2", np.array([1, 256], "<u2"), [1, 256]),
        ("i2", np.array([1.9, -1.9]), [1, -1]),
        ("M8[s]", ["2026-01-01", "2026-01-02"], np.array(["2026-01-01", "2026-01-02"], "M8[s]")),
        ("M8[s]", np.array([5], "M8[s]"), np.array([5], "M8[s]")),
        ("S3", ["abc", b"d"], [b"abc", b"d"]),
        (RECORD, [(1, 2.5, 3), (4, 5.5, 6)], np.array([(1, 2.5, 3), (4, 5.5, 6)], RECORD)),
        (RECORD, (1, 2.5, 3), np.array([(1, 2.5, 3)], RECORD)),
        (("u1", (2, 2)), [[1, 2], [3, 4]], [[[1, 2], [3, 4]]]),
        (("u1", (2, 2)), np.ones((3, 2, 2), "u1"), np.ones((3, 2, 2))),
        (("u1", (2, 2)), np.ones((2, 2, 3)).T, np.ones((3, 2, 2))),
        ("f8", [], []),
    ],
)  # fmt: skip
def test_what_is_pushed(dtype, pushed, expected):
    """Whatever an assignment takes: one item or a row, converted, of any layout."""
    with sparsearray.ring(10, dtype) as ring:
        ring.push(pushed)
        assert ring.pushed == len(expected)
        assert np.array_equal(ring.last(), np.asarray(expected))


def test_a_sparse_array_is_pushed():
    """So does an array of ours, and a part of a shared one."""
    array = sparsearray.zeros(1000, "i8")
    array[5] = 7
    with sparsearray.ring(2000, "i8") as ring:
        ring.push(array)
        ring.push(array[3:10])
        assert ring.last(7).tolist() == [0, 0, 7, 0, 0, 0, 0]
        assert ring.pushed == 1007


@pytest.mark.parametrize(
    ("dtype", "pushed"),
    [
        ("f8", [[1, 2], [3, 4]]),
        ("f8", np.zeros((2, 2))),
        ("f8", "word"),
        ("i4", [1, [2]]),
        (("u1", (2, 2)), [1, 2]),
        (("u1", (2, 2)), np.zeros((1, 1, 2, 2))),
        (RECORD, [1, 2]),
    ],
)
def test_what_is_not_pushed(dtype, pushed):
    """What is no row of items is an error, and nothing is pushed."""
    with sparsearray.ring(10, dtype) as ring:
        ring.push(np.zeros((1, *np.dtype(dtype).shape), np.dtype(dtype).base))
        if dtype is RECORD:  # numpy makes records of numbers
            return
        with pytest.raises((ValueError, TypeError)):
            ring.push(pushed)
        assert ring.pushed == 1


def test_more_than_there_is_room_for():
    """Of more items than stay, the last ones do, and all are counted."""
    with sparsearray.ring(512, "i8") as ring:
        ring.push(numbers(0, 3))
        ring.push(numbers(3, 5000))
        assert (ring.pushed, ring.oldest) == (5000, 5000 - 512)
        assert np.array_equal(ring.last(), numbers(5000 - 512, 5000))


@pytest.mark.parametrize("n", [1, 200, 300, 511, 512])
def test_its_own_items_are_pushed(n):
    """A window of the ring can be pushed, also where it is written over meanwhile."""
    with sparsearray.ring(512, "i8") as ring:
        ring.push(numbers(0, 700))
        ring.push(ring.last(n))
        assert np.array_equal(ring.last(n), numbers(700 - n, 700))
        ring.push(ring.window(ring.oldest, n))
        expected = np.concatenate([numbers(0, 700), numbers(700 - n, 700)])[-512:][:n]
        assert np.array_equal(ring.last(n), expected)


# ----------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("count", "dtype", "error"),
    [
        (0, "f8", ValueError),
        (-1, "f8", ValueError),
        (1.5, "f8", TypeError),
        (10, [], ValueError),
        (10, object, TypeError),
        (10, [("a", "O")], TypeError),
        (1 << 62, "f8", ValueError),
        (10, ("u1", (1 << 40, 1 << 40)), ValueError),
    ],
)
def test_no_such_ring(count, dtype, error, descriptors):
    """What no ring can be is an error, and no descriptor stays."""
    before = descriptors()
    with pytest.raises(error):
        sparsearray.ring(count, dtype)
    assert descriptors() == before


def test_errors_say_which_items():
    """What is gone, what is not there yet, and what makes no sense, by number."""
    with sparsearray.ring(512, "i8") as ring:
        ring.push(numbers(0, 2000))
        with pytest.raises(
            OverrunError, match="1487 to 1490: the oldest that is left is 1488"
        ) as gone:
            ring.window(1487, 3)
        assert isinstance(gone.value, SparseError | LookupError)
        with pytest.raises(OverrunError, match="1487 to 2000"):
            ring.last(513)
        with pytest.raises(OutOfBoundsError, match="number 2001: 2000 were pushed"):
            ring.read(1999, 2)
        with pytest.raises(OutOfBoundsError, match="2001 items"):
            ring.last(2001)
        for call in (
            lambda: ring.last(-1),
            lambda: ring.window(-1, 2),
            lambda: ring.read(1500, -1),
        ):
            with pytest.raises(ValueError, match="negative"):
                call()
        for call in (
            lambda: ring.last(1.5),
            lambda: ring.window(1500.0, 2),
            lambda: ring.reader("a"),
        ):
            with pytest.raises(TypeError):
                call()
        with pytest.raises(OutOfBoundsError):
            ring.last(1 << 70)
        assert ring.window(2000, 0).shape == ring.read(2000, 0).shape == ring.last(0).shape == (0,)


def test_items_that_are_being_written_over():
    """From the claim on they count as gone, and copies of them as not whole."""
    with sparsearray.ring(512, "i8") as ring:
        ring.push(numbers(0, 1000))
        window = ring.last(500)
        assert ring.oldest <= 500
        claim(ring, 1100)  # a writer has begun with 100 more
        assert (ring.pushed, ring.oldest, len(ring)) == (1000, 588, 412)
        assert ring.oldest > 500  # so the window may be torn
        for call in (
            lambda: ring.last(500),
            lambda: ring.window(587, 1),
            lambda: ring.read(587, 1),
        ):
            with pytest.raises(OverrunError):
                call()
        assert np.array_equal(ring.last(), numbers(588, 1000))
        assert np.array_equal(ring.read(588, 10), numbers(588, 598))
        del window


def test_a_writer_that_died_leaves_a_whole_ring():
    """What it had begun with is no item, and those it may have written over are gone for good."""
    with sparsearray.ring(512, "i8") as ring:
        ring.push(numbers(0, 1000))
        claim(ring, 1400)
        ring.push(numbers(1000, 1010))
        assert (ring.pushed, ring.oldest) == (1010, 1400 - 512)
        assert np.array_equal(ring.last(), numbers(888, 1010))
        claim(ring, 9000)
        assert (len(ring), ring.last().size) == (0, 0)
        reader = ring.reader()
        assert (reader.read().size, reader.position) == (0, 9000 - 512)
        ring.push(numbers(0, 9000 - 1010))
        ring.push(numbers(0, 5))
        assert len(ring) == 512


# ---------------------------------------------------------------------------------------- readers


def test_readers_have_places_of_their_own():
    """Each reads on from where it is, all or so many, and counts what it lost."""
    with sparsearray.ring(512, "i8") as ring:
        ring.push(numbers(0, 100))
        one, two, late = ring.reader(), ring.reader(50), ring.reader(ring.pushed)
        assert np.array_equal(one.read(30), numbers(0, 30))
        assert np.array_equal(two.read(), numbers(50, 100))
        assert late.read().shape == one.read(0).shape == (0,)
        ring.push(numbers(100, 700))
        assert np.array_equal(one.read(10), numbers(188, 198))
        assert np.array_equal(two.read(), numbers(188, 700))
        assert np.array_equal(late.read(), numbers(188, 700))
        assert (one.lost, two.lost, late.lost) == (158, 88, 88)
        assert (one.position, two.position, late.position) == (198, 700, 700)
        assert "198" in repr(one)
        assert one.read().flags.owndata
        with pytest.raises(ValueError, match="negative"):
            one.read(-1)
        with pytest.raises(ValueError, match="negative"):
            ring.reader(-1)


def test_a_reader_drops_what_was_written_over_meanwhile(monkeypatch):
    """A claim between the look and the end of the copy costs the items that it is for, and no more."""
    with sparsearray.ring(512, "i8") as ring:
        ring.push(numbers(0, 512))
        reader = ring.reader()
        copy = sparsearray.Ring._copy

        def overtaken(self, start, n):
            claim(ring, 612)
            return copy(self, start, n)

        monkeypatch.setattr(sparsearray.Ring, "_copy", overtaken)
        assert np.array_equal(reader.read(300), numbers(100, 300))
        assert (reader.lost, reader.position) == (100, 300)
        with pytest.raises(OverrunError):
            ring.read(99, 10)


# ---------------------------------------------------------------------------- threads and processes


def test_threads_take_turns():
    """A push of one thread is not mixed with that of another."""
    with sparsearray.ring(1 << 16, "i8") as ring:

        def work(number):
            for _ in range(40):
                ring.push(np.full(100 + number, number))

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = ring.last()
        assert ring.pushed == len(found) == 40 * (400 + 6)
        starts = np.flatnonzero(np.diff(found, prepend=-1))
        for start, stop in zip(starts, [*starts[1:], len(found)], strict=True):
            assert (stop - start) % (100 + found[start]) == 0
        del found


def test_readers_beside_a_writer():
    """Every item that a thread reads is the right one, and none is missed without being counted."""
    with sparsearray.ring(4096, "i8") as ring:
        total, failed = 400_000, []

        def write():
            for at in range(0, total, 250):
                ring.push(numbers(at, at + 250))

        def read():
            reader, got = ring.reader(0), 0
            while reader.position < total:
                items = reader.read(1500)
                stop = reader.position
                if not np.array_equal(items, numbers(stop - len(items), stop)):
                    failed.append(stop)
                got += len(items)
            if got + reader.lost != total:
                failed.append((got, reader.lost))

        threads = [threading.Thread(target=job) for job in (read, read, write)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed


WORK = """
import numpy as np
import sparsearray

def numbers(start, stop):
    return np.arange(start, stop, dtype="i8")

def read(ring, total):
    reader, got, bad = ring.reader(0), 0, 0
    while reader.position < total:
        items = reader.read()
        stop = reader.position
        bad += not np.array_equal(items, numbers(stop - len(items), stop))
        got += len(items)
    return bad, got + reader.lost

def write(ring, total):
    for at in range(0, total, 500):
        ring.push(numbers(at, at + 500))
"""


def test_readers_in_other_processes(run_ok, tmp_path):
    """One process pushes, others read by a ring that was pickled to them: all items are right."""
    (tmp_path / "work.py").write_text(WORK)
    run_ok("""
        import multiprocessing
        sys.path.insert(0, "")
        import work
        if __name__ == "__main__":
            ring, total = ring(8192, "i8"), 300_000
            with multiprocessing.get_context("spawn").Pool(2) as pool:
                found = [pool.apply_async(work.read, (ring, total)) for _ in range(2)]
                work.write(ring, total)
                assert [one.get(60) for one in found] == [(0, total)] * 2
                pool.apply(work.write, (ring, 1000))  # now the other process is the one that writes
            assert ring.pushed == total + 1000
            assert ring.last(1000).tolist() == list(range(1000))
    """)


def test_a_forked_child_has_it(run_ok):
    """A forked child reads what the parent pushes, and the other way round."""
    run_ok("""
        one = ring(1000, "i4")
        one.push([1, 2, 3])
        child = os.fork()
        if not child:
            ok = one.last(3).tolist() == [1, 2, 3]
            one.push(4)
            os._exit(not ok)
        assert os.waitpid(child, 0)[1] == 0
        assert one.last(4).tolist() == [1, 2, 3, 4]
    """)


# ------------------------------------------------------------------------------------------ memory


def test_two_rings_in_one_memory():
    """The second one made in a memory is the first one again; it lies anywhere, with other memory."""
    with (
        shared_memory(20 * P, "pair") as memory,
        sparsearray.ring(1000, "i8", memory=memory) as one,
        sparsearray.ring(1000, "i8", memory=memory, name="other") as two,
    ):
        one.push([1, 2, 3])
        assert two.last(2).tolist() == [2, 3]
        two.push(4)
        assert one.last(2).tolist() == [3, 4]
        assert (one.name, two.name) == (None, "other")
        assert "other" in repr(two)
        memory.close()
        one.push(5)
        assert two.pushed == 5


@pytest.mark.parametrize(
    ("count", "dtype", "named"),
    [
        (2000, "i8", "1024 items, and not of 2048"),
        (1000, "u8", "dtype.'int64'.*uint64"),
        (1000, "i4", "8 bytes each"),
        (1000, [("a", "i8")], "'a'"),
        (1000, ("i4", 2), r"\(2,\)"),
        (100_000, "i8", "pair.*bytes"),
    ],
)
def test_another_ring_in_the_memory(count, dtype, named, descriptors):
    """Another number or kind of items than those there is a ValueError that names it."""
    with (
        shared_memory(20 * P, "pair") as memory,
        sparsearray.ring(1000, "i8", memory=memory) as ring,
    ):
        before = descriptors()
        with pytest.raises(ValueError, match=named):
            sparsearray.ring(count, dtype, memory=memory)
        gc.collect()
        assert descriptors() == before
        ring.push(1)
        assert ring.pushed == 1


def test_something_else_in_the_memory():
    """Memory that holds something else stays as it is."""
    with shared_memory(20 * P, "data") as memory:
        os.pwrite(memory.fileno(), b"my own bytes", 100)
        with pytest.raises(ValueError, match="data.*something else"):
            sparsearray.ring(10, "i8", memory=memory)
        assert os.pread(memory.fileno(), 200, 0).strip(b"\0") == b"my own bytes"
        with pytest.raises(TypeError):
            sparsearray.ring(10, "i8", memory=memory.fileno())


def test_long_dtypes():
    """A dtype of many fields finds its place behind the counters, and is compared in full."""
    one = np.dtype([(f"a long name of field number {i}", "i4") for i in range(300)])
    other = np.dtype([*one.descr[:-1], ("changed", "i4")])
    with shared_memory(8 << 20) as memory, sparsearray.ring(10, one, memory=memory) as ring:
        ring.push(np.ones(3, one))
        assert sparsearray.ring(10, one, memory=memory).pushed == 3
        with pytest.raises(ValueError, match="and not of"):
            sparsearray.ring(10, other, memory=memory)


def test_close():
    """Windows keep it open; then every call says that it is closed, and no descriptor stays."""
    ring = sparsearray.ring(10, "i8")
    reader, memory = ring.reader(), ring.memory
    ring.push([1, 2, 3])
    window = ring.last(2)
    with pytest.raises(BufferError, match="window"):
        ring.close()
    assert not ring.closed
    ring.push(4)
    assert ring.last(1).tolist() == [4]
    del window
    ring.close()
    ring.close()
    assert ring.closed
    assert memory.closed
    assert "closed" in repr(ring)
    for call in (
        lambda: ring.push(1),
        lambda: ring.push(np.zeros(3, "i8")),
        ring.last,
        lambda: ring.last(1),
        lambda: ring.window(0, 1),
        lambda: ring.read(0, 1),
        ring.reader,
        reader.read,
        lambda: ring.pushed,
        lambda: ring.oldest,
        lambda: len(ring),
        lambda: pickle.dumps(ring),
    ):
        with pytest.raises(ClosedError):
            call()


def test_nothing_stays_behind(descriptors):
    """A ring that nobody closed goes with its last reference; its windows outlive it."""
    before = descriptors()
    ring = sparsearray.ring(512, "i8")
    ring.push(numbers(0, 600))
    window = ring.last(512)
    del ring
    gc.collect()
    assert np.array_equal(window, numbers(88, 600))
    del window
    gc.collect()
    assert descriptors() == before


def test_pickles():
    """A pickled ring is the same one, in this process and, with its reader, in a child."""
    with sparsearray.ring(1000, RECORD, name="records") as ring:
        ring.push([(1, 2.5, 3), (4, 5.5, 6)])
        with pickle.loads(pickle.dumps(ring)) as again:
            assert (again.count, again.dtype, again.name) == (ring.count, RECORD, "records")
            assert repr(again) == repr(ring)
            again.push((7, 8.5, 9))
        assert ring.last(1)["time"] == 7
        reader = ring.reader()
        reader.read(1)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.apply(reader.read)["time"].tolist() == [4, 7]
            assert pool.apply(ring.read, (0, 1)).tolist() == [(1, 2.5, 3)]


def test_an_array_over_the_same_memory():
    """The items are found behind the first page, as anybody may map them."""
    with sparsearray.ring(512, "i8") as ring, SparseBuffer(P) as buffer:
        ring.push(numbers(0, 512))
        buffer.map_file(0, P, ring.memory, P)
        assert SparseArray(buffer, 512, "i8").sum() == 511 * 512 // 2


def test_rings_are_not_copied():
    """A copy would be the same memory under another lock; and the original stays open."""
    with sparsearray.ring(100) as ring:
        for function in (copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="cannot be copied"):
                function(ring)
        assert not ring.memory.closed


def test_memory_that_holds_something():
    """What others have written behind the place of the header is not taken for fresh memory."""
    with shared_memory(16 * P) as memory:
        array = sparsearray.open(memory, "r+", dtype="u1")
        assert array[2 * P :].sum() == 0
        array[3 * P] = 7
        with pytest.raises(ValueError, match="something else than a ring"):
            sparsearray.ring(100, "u1", memory=memory)
        array[3 * P] = 0
        with sparsearray.ring(100, "u1", memory=memory) as ring:
            ring.push(1)


def test_a_writer_that_dies_in_a_long_push(run_ok):
    """What is pushed afterwards is there, also where more than the ring holds was being pushed."""
    run_ok("""
        import time
        ring = ring(1 << 28, "u1")
        ring.push(np.zeros(100, "u1"))
        pid = os.fork()
        if pid == 0:
            ring.push(np.zeros(1 << 30, "u1"))
            os._exit(0)
        while ring.pushed == 100:
            time.sleep(0.0005)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        ring.push(np.arange(1, 6, dtype="u1"))
        assert ring.last(5).tolist() == [1, 2, 3, 4, 5], (ring.pushed, ring.oldest)
    """)
