"""Pins: what a window, and anything made from it, holds on to."""

import ctypes
import gc
import itertools
import mmap
import pickle
import random
import sys
import threading
import weakref

import numpy as np
import pytest

from sparsearray import SparseBuffer

P = mmap.PAGESIZE


# ------------------------------------------------------------------------------ pins


class Wrapper(np.ndarray):
    """A subclass of ndarray, as users make them."""


def as_strided(window):
    """Make a strided view."""
    return np.lib.stride_tricks.as_strided(window, (2, 2), (1, 1))


def cffi_from_buffer(window):
    """Take the window's memory with cffi."""
    import cffi

    return cffi.FFI().from_buffer("char[]", window)


def pickled_out_of_band(window):
    """Pickle with the data out of band, and load it again: an array over the same memory."""
    buffers = []
    data = pickle.dumps(np.asarray(window), protocol=5, buffer_callback=buffers.append)
    return pickle.loads(data, buffers=buffers)


def pickle_buffers(window):
    """Pickle with the data out of band, and keep the buffers."""
    buffers = []
    pickle.dumps(np.asarray(window), protocol=5, buffer_callback=buffers.append)
    assert buffers
    return buffers


def raw_pickle_buffer(window):
    """Take the raw memory of an out-of-band buffer."""
    return pickle_buffers(window)[0].raw()


# Everything here shares the window's memory, and so must hold its pages.
DERIVED = {
    "the window": lambda w: w,
    "view": lambda w: w.view(),
    "slice": lambda w: w[3:9],
    "strided slice": lambda w: w[::-2],
    "ellipsis": lambda w: w[...],
    "newaxis": lambda w: w[None],
    "item as array": lambda w: w[5, ...],
    "transpose": lambda w: w.reshape(4, -1).T,
    "reshape": lambda w: w.reshape(2, -1),
    "ravel": lambda w: w.ravel(),
    "swapaxes": lambda w: w.reshape(2, -1).swapaxes(0, 1),
    "moveaxis": lambda w: np.moveaxis(w.reshape(2, 2, -1), 0, -1),
    "squeeze": lambda w: w[None].squeeze(),
    "diagonal": lambda w: w[:16].reshape(4, 4).diagonal(),
    "view of another dtype": lambda w: w.view("<u8"),
    "astype without a copy": lambda w: w.astype("u1", copy=False),
    "byteswapped view": lambda w: w.view(">u4"),
    "structured view": lambda w: w.view([("a", "u1"), ("b", "u1")]),
    "structured field": lambda w: w.view([("a", "u1"), ("b", "<u2"), ("c", "u1")])["b"],
    "several fields": lambda w: w.view([("a", "u1"), ("b", "<u2"), ("c", "u1")])[["a", "c"]],
    "record": lambda w: w.view([("a", "u1"), ("b", "u1")])[3],
    "record array": lambda w: w.view([("a", "u1"), ("b", "u1")]).view(np.recarray),
    "record array field": lambda w: w.view([("a", "u1"), ("b", "u1")]).view(np.recarray).b,
    "real": lambda w: w.view("<c8").real,
    "imag": lambda w: w.view("<c8").imag,
    "subclass": lambda w: w.view(Wrapper),
    "matrix": lambda w: w.view(np.matrix),
    "memmap subclass": lambda w: w.view(np.memmap),
    "masked array": lambda w: np.ma.array(w, copy=False),
    "masked view": lambda w: w.view(np.ma.MaskedArray)[2:],
    "masked data": lambda w: np.ma.asarray(w).data,
    "asarray": lambda w: np.asarray(w),
    "asanyarray": lambda w: np.asanyarray(w),
    "asarray of a view": lambda w: np.asarray(w[1:], copy=False),
    "array without a copy": lambda w: np.array(w, copy=False),
    "ascontiguousarray": lambda w: np.ascontiguousarray(w),
    "atleast_3d": lambda w: np.atleast_3d(w),
    "ndarray over the window": lambda w: np.ndarray((4,), "<u2", w, 8),
    "broadcast_to": lambda w: np.broadcast_to(w, (3, *w.shape)),
    "broadcast_arrays": lambda w: np.broadcast_arrays(w, w[None])[0],
    "broadcast": lambda w: np.broadcast(w, w[:, None]),
    "as_strided": as_strided,
    "sliding_window_view": lambda w: np.lib.stride_tricks.sliding_window_view(w, 4),
    "split": lambda w: np.split(w, 4)[1],
    "flat": lambda w: w.flat,
    "iterator": iter,
    "rows": lambda w: next(iter(w.reshape(8, -1))),
    "nditer": lambda w: np.nditer(w, flags=["external_loop"]),
    "nditer block": lambda w: next(np.nditer(w, flags=["external_loop"])),
    "nditer operand": lambda w: np.nditer(w).operands[0],
    "ndenumerate": np.ndenumerate,
    "frombuffer": lambda w: np.frombuffer(w, "<u2"),
    "frombuffer of a memoryview": lambda w: np.frombuffer(memoryview(w)[8:], "u1"),
    "memoryview": memoryview,
    "memoryview slice": lambda w: memoryview(w)[4:8],
    "memoryview cast": lambda w: memoryview(w).cast("Q"),
    "memoryview reshaped": lambda w: memoryview(w).cast("B", (2, len(w) // 2)),
    "read-only memoryview": lambda w: memoryview(w).toreadonly(),
    "asarray of a memoryview": lambda w: np.asarray(memoryview(w)),
    "data": lambda w: w.data,
    "array interface struct": lambda w: w.__array_struct__,
    "from_dlpack": np.from_dlpack,
    "dlpack capsule": lambda w: w.__dlpack__(),
    "ctypes object": lambda w: w.ctypes,
    "ctypes pointer": lambda w: w.ctypes.data_as(ctypes.c_void_p),
    "as_ctypes": np.ctypeslib.as_ctypes,
    "as_array of as_ctypes": lambda w: np.ctypeslib.as_array(np.ctypeslib.as_ctypes(w)),
    "ctypes from_buffer": lambda w: (ctypes.c_ubyte * 8).from_buffer(w, 3),
    "ctypes structure": lambda w: (ctypes.c_uint32 * 2).from_buffer(memoryview(w)[4:]),
    "cffi from_buffer": cffi_from_buffer,
    "pickled out of band": pickled_out_of_band,
    "pickle buffers": pickle_buffers,
    "raw pickle buffer": raw_pickle_buffer,
    "PickleBuffer": pickle.PickleBuffer,
    "itertools": lambda w: itertools.islice(w, 3),
    "generator": lambda w: (item for item in w),
    "partial": lambda w: w.sum,
    "base chain": lambda w: w[2:].view("u1")[1:].reshape(-1, 1).T[0].view("S1"),
    "base": lambda w: w[2:].base,
}


CHANGES = {
    "unmap": lambda b: b.unmap(2 * P, P),
    "alloc": lambda b: b.alloc(0, 10 * P),
    "map_zero": lambda b: b.map_zero(2 * P, P),
    "map_file": lambda b: b.map_file(2 * P, P, sys.executable),
    "mmap": lambda b: b.mmap(P, 3 * P, 1, mmap.MAP_PRIVATE, sys.executable),
    "mmap_anonymous": lambda b: b.mmap_anonymous(2 * P, P, 1, mmap.MAP_PRIVATE),
    "set_writable": lambda b: b.set_writable(P, 8 * P, False),
    "close": lambda b: b.close(),
}


@pytest.mark.parametrize("name", DERIVED)
def test_derivations_pin(name, between_holes):
    """As long as anything made from a window lives, its pages stay; and not longer."""
    buffer, data = between_holes
    window = buffer.window(2 * P, 64)
    kept = DERIVED[name](window)
    del window
    gc.collect()
    before = buffer.regions
    for change in CHANGES.values():
        with pytest.raises(BufferError):
            change(buffer)
    assert buffer.regions == before
    assert buffer.read_at(P, 8 * P) == data[P:]
    del kept
    gc.collect()
    buffer.unmap(2 * P, P)
    buffer.close()


def look_at(thing):
    """Read what is in something made from a window."""
    try:
        return bytes(memoryview(thing).cast("B"))
    except (TypeError, ValueError, NotImplementedError, BufferError):
        if isinstance(thing, np.ndarray):
            return thing.tobytes()
        if hasattr(thing, "__next__"):
            return [str(item) for item in itertools.islice(thing, 9)]
        if isinstance(thing, list):
            return [bytes(one) for one in thing]
        if hasattr(thing, "__self__"):  # a bound method
            return thing()
        return [thing[i] for i in range(8)] if hasattr(thing, "__getitem__") else None


@pytest.mark.parametrize("name", [name for name in DERIVED if name != "ctypes pointer"])
def test_derivations_of_a_dead_buffer(name, pattern):
    """What was made from a window shows the same bytes after buffer and window are gone."""
    buffer = SparseBuffer(4 * P)
    buffer.alloc(P, P)
    buffer.write_at(P, pattern(P))
    window = buffer.window(P, 64)
    before = look_at(DERIVED[name](window))
    kept = DERIVED[name](window)
    del window, buffer
    gc.collect()
    assert look_at(kept) == before


# Copies and plain numbers: these must not pin.
FREE = {
    "copy": lambda w: w.copy(),
    "bytes": bytes,
    "tobytes": lambda w: w.tobytes(),
    "list": list,
    "tolist": lambda w: w.tolist(),
    "scalar": lambda w: w[3],
    "sum": lambda w: w + 1,
    "astype": lambda w: w.astype("u2"),
    "fancy indexing": lambda w: w[[1, 2]],
    "mask": lambda w: w[w > 3],
    "pickle": pickle.dumps,
    "pickled in band": lambda w: pickle.loads(pickle.dumps(w)),
    "interface": lambda w: w.__array_interface__["data"],
    "weak reference": weakref.ref,
    "shape": lambda w: (w.shape, w.dtype, w.strides),
    "flatten": lambda w: w.flatten(),
    "released memoryview": lambda w: memoryview(w).release(),
}


@pytest.mark.parametrize("name", FREE)
def test_copies_do_not_pin(name, between_holes):
    """Copies, scalars and facts of a window hold no pages."""
    buffer, _ = between_holes
    window = buffer.window(2 * P, 64)
    kept = FREE[name](window)
    del window
    gc.collect()
    buffer.close()
    del kept


@pytest.mark.parametrize("name", CHANGES)
def test_pinned_pages_cannot_be_changed(name, between_holes):
    """A change over pinned pages is a BufferError that tells how many windows, and where."""
    buffer, data = between_holes
    windows = [buffer.window(2 * P + 5, 1), buffer.window(2 * P + 100, P)]
    before = buffer.regions
    with pytest.raises(BufferError, match=r"[12] live windows? ") as caught:
        CHANGES[name](buffer)
    start, stop = 2 * P + 5, 3 * P + 100
    assert f"{start:#x} ({start})" in str(caught.value)
    assert f"{stop:#x} ({stop})" in str(caught.value) or "1 live" in str(caught.value)
    assert buffer.regions == before
    assert not buffer.closed
    assert buffer.read_at(P, 8 * P) == data[P:]
    del windows


def test_close_names_the_windows(between_holes):
    """close() tells how many windows live, and the range that they lie in."""
    buffer, _ = between_holes
    windows = [buffer.window(P, 1), buffer.window(3 * P, 1), buffer.window(7 * P + 9, 2)]
    with pytest.raises(BufferError) as caught:
        buffer.close()
    assert "3 live windows" in str(caught.value)
    assert f"between {P:#x} ({P}) and {7 * P + 11:#x} ({7 * P + 11})" in str(caught.value)
    del windows[1:]
    with pytest.raises(BufferError, match="1 live window is"):
        buffer.close()
    windows.clear()
    buffer.close()


def test_pins_are_whole_pages(between_holes):
    """A window pins the pages that it spans, and no others."""
    buffer, _ = between_holes
    window = buffer.window(4 * P - 1, 2)
    for page, pinned in [(2, False), (3, True), (4, True), (5, False)]:
        if pinned:
            with pytest.raises(BufferError):
                buffer.alloc(page * P, P)
        else:
            buffer.alloc(page * P, P)
    del window


def test_strided_window_pins_its_span(between_holes):
    """A strided window pins all that lies between its first and last byte, either way round."""
    buffer, _ = between_holes
    for offset, stride in [(2 * P, 2 * P), (6 * P, -2 * P)]:
        window = buffer.window(offset, 3, "u1", strides=(stride,))
        for page in (2, 3, 4, 5, 6):
            with pytest.raises(BufferError):
                buffer.unmap(page * P, P)
        buffer.alloc(P, P)
        buffer.alloc(7 * P, P)
        del window


def test_what_is_allowed_under_windows(between_holes, linux_core):
    """Calls that leave pages in place are allowed under live windows."""
    buffer, _ = between_holes
    window = buffer[P : 9 * P]
    buffer.set_writable(P, 8 * P, True)
    buffer.commit(P, 8 * P)
    buffer.advise(P, 8 * P, "random")
    buffer.flush()
    buffer.decommit(P, P)
    if linux_core:
        try:
            buffer.set_name(P, P, "under")
            buffer.bind_numa(P, P, 0)
        except NotImplementedError:  # by how the kernel was built
            pass
    assert not window[:P].any()
    window[:] = 1
    assert buffer.read_at(P, 8 * P) == b"\1" * 8 * P


def test_read_only_windows_allow_write_protection(between_holes):
    """Pages can be made read-only under read-only windows, and writable again under any."""
    buffer, data = between_holes
    window = buffer.window(P, 8 * P, writable=False)
    buffer.set_writable(P, 8 * P, False)
    buffer.set_writable(P, 8 * P, True)
    assert bytes(window) == data[P:]
    assert not window.flags.writeable
    writable = buffer.window(P, 1)
    with pytest.raises(BufferError, match="1 live window"):
        buffer.set_writable(P, 8 * P, False)
    buffer.set_writable(2 * P, P, False)
    del writable
    buffer.set_writable(P, 8 * P, False)


def test_zero_pages_made_writable_under_a_window():
    """A window over zero pages that become memory sees what is written there."""
    with SparseBuffer(4 * P) as buffer:
        buffer.map_zero(0, 4 * P)
        window = buffer[:]
        buffer.set_writable(P, P, True)
        buffer.fill_at(P, 7, P)
        assert window.sum() == 7 * P
        assert not window.flags.writeable
        del window


@pytest.mark.parametrize("seed", range(3))
def test_any_overlap_is_found(seed):
    """Of hundreds of windows of all sizes, exactly those that overlap a range stand in its way."""
    rng = random.Random(seed)
    pages = 1 << 12
    with SparseBuffer(pages * P) as buffer:
        buffer.alloc(0, pages * P)
        windows = {}
        for step in range(2500):
            if rng.random() < 0.55 or not windows:
                size = min(pages, 1 << rng.randint(0, 12)) - rng.randint(0, 1)
                start = rng.randint(0, pages - max(size, 1))
                stop = start + max(size, 1)
                windows[step] = (start, stop, buffer.window(start * P + 1, (stop - start) * P - 2))
            else:
                del windows[rng.choice(list(windows))]
            if rng.random() < 0.3:
                windows = {} if rng.random() < 0.05 else windows
                start = rng.randrange(pages)
                stop = rng.randint(start + 1, min(pages, start + (1 << rng.randint(0, 11))))
                count = sum(low < stop and start < high for low, high, _ in windows.values())
                try:
                    buffer.alloc(start * P, (stop - start) * P)
                except BufferError as error:
                    told = int(str(error).split(" live window")[0].split()[-1])
                    assert told == count
                else:
                    assert count == 0
        windows.clear()


# ------------------------------------------------------------------------------ life and death


def test_die_in_any_order(make_file):
    """Buffers and windows die in any order, and every byte is there until the last has gone."""
    path, data = make_file(4 * P)
    for order in itertools.permutations(range(4)):
        buffer = SparseBuffer(8 * P)
        buffer.map_file(0, 4 * P, path)
        buffer.alloc(4 * P, 4 * P)
        first = buffer.window(0, 4 * P)
        second = buffer.window(2 * P, 4 * P)
        third = second[::7].view(Wrapper)
        things = [buffer, first, second, third]
        del buffer, first, second, third
        for position in order:
            things[position] = None
            gc.collect(0)
            if things[1] is not None:
                assert bytes(things[1]) == data
            if things[2] is not None:
                assert bytes(things[2]) == data[2 * P :] + bytes(2 * P)
            if things[3] is not None:
                assert bytes(things[3]) == (data[2 * P :] + bytes(2 * P))[::7]


def test_windows_in_cycles(between_holes):
    """A window in a reference cycle holds its pages until the cycle is collected."""
    buffer, _ = between_holes
    gc.collect()
    gc.disable()
    try:
        window = buffer.window(P, 8).view(Wrapper)
        window.me = [window]
        del window
        with pytest.raises(BufferError):
            buffer.unmap(P, P)
    finally:
        gc.enable()
    gc.collect()
    buffer.unmap(P, P)


def test_windows_die_in_other_threads(between_holes):
    """Windows made in one thread may die in others, at the same time."""
    buffer, _ = between_holes
    for _ in range(20):
        piles = [[buffer.window(P + i % 100, 50) for i in range(100)] for _ in range(4)]
        threads = [threading.Thread(target=pile.clear) for pile in piles]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        buffer.alloc(P, 8 * P)


def test_finalizers_may_use_the_buffer(between_holes):
    """A finalizer that runs while a window dies may use the buffer, and make windows."""
    buffer, data = between_holes
    seen = []

    class Watcher:
        def __init__(self) -> None:
            self.window = buffer.window(P, 8)

        def __del__(self) -> None:
            seen.append(buffer.read_at(P, 8))
            seen.append(bytes(buffer[P : P + 8]))
            del self.window
            buffer.regions  # noqa: B018 - takes the lock

    watcher = Watcher()
    watcher.me = watcher
    del watcher
    gc.collect()
    assert seen == [data[P : P + 8]] * 2
    buffer.close()


def test_failed_window_pins_nothing(between_holes):
    """A window that could not be made has left no pin."""
    buffer, _ = between_holes
    for call in (
        lambda: buffer.window(P, 9 * P),
        lambda: buffer.window(0, 1),
        lambda: buffer.window(P, (1,) * 70),
        lambda: buffer.window(P, 1, writable=True, order="K"),
    ):
        with pytest.raises((ValueError, OSError)):
            call()
    gc.collect()
    buffer.close()


def test_thousands_of_windows(between_holes):
    """Thousands of windows at once are counted, and go without a trace."""
    buffer, _ = between_holes
    windows = [buffer.window(P + i % P, 8) for i in range(20_000)]
    with pytest.raises(BufferError, match="20000 live windows"):
        buffer.close()
    random.Random(1).shuffle(windows)
    del windows[1:]
    with pytest.raises(BufferError, match="1 live window"):
        buffer.close()
    windows.clear()
    buffer.close()


def test_numpy_functions_work(between_holes):
    """Windows are arrays like any other to numpy's functions."""
    buffer, data = between_holes
    window = buffer.window(P, 8 * P)
    dense = np.frombuffer(data, "u1", 8 * P, P)
    assert window.sum() == dense.sum()
    assert np.array_equal(np.bincount(window), np.bincount(dense))
    assert np.array_equal(window[::3] * 2, dense[::3] * 2)
    window.view("<u8").sort()
    assert np.array_equal(buffer.read_plain(P, "<u8", P), np.sort(np.frombuffer(data, "<u8", P, P)))
    np.add(window, 1, out=window)
    assert np.array_equal(window, np.sort(dense.view("<u8")).view("u1") + np.uint8(1))
