"""Windows: what they show, what they pin, and that everything made from them pins it too."""

import ctypes
import gc
import io
import itertools
import mmap
import pickle
import random
import sys
import threading
import weakref

import numpy as np
import pytest

from sparsearray import AccessError, OutOfBoundsError, SparseBuffer

P = mmap.PAGESIZE


@pytest.fixture
def filled(pattern):
    """Make a buffer of 8 pages of memory between two holes, and tell its bytes."""
    data = pattern(8 * P)
    buffer = SparseBuffer(10 * P)
    buffer.alloc(P, 8 * P)
    buffer.write_at(P, data)
    return buffer, bytes(P) + data


# ------------------------------------------------------------------------------ what they show


@pytest.mark.parametrize(
    "dtype",
    [
        "u1", "<i2", ">u4", "<f8", ">c16", "?", "S3", "<U2", "V7", "<M8[s]", ">m8[us]", "g",
        [("a", "u1"), ("b", ">u4"), ("c", "<f8", (2,))], np.dtype([("a", "u1"), ("b", "f8")], align=True),
    ],
    ids=range(14),
)  # fmt: skip
@pytest.mark.parametrize("shape", [(), 1, 5, (3, 4), (2, 3, 4), [2, 2]])
@pytest.mark.parametrize("order", ["C", "F"])
def test_shows_memory_as_numpy_would(dtype, shape, order, filled):
    """A window of any dtype, shape and order shows the bytes as an ndarray over them would."""
    buffer, data = filled
    for offset in (P, P + 1, 2 * P - 5):
        window = buffer.window(offset, shape, dtype, order=order)
        sizes = (shape,) if isinstance(shape, int) else tuple(shape)
        expected = np.ndarray(sizes, dtype, data, offset, order=order)
        assert type(window) is np.ndarray
        assert window.dtype == expected.dtype
        assert window.shape == expected.shape
        assert window.strides == expected.strides
        assert window.tobytes("A") == expected.tobytes("A")
        assert window.tobytes() == expected.tobytes()
        assert window.ctypes.data == buffer.address + offset


@pytest.mark.parametrize(
    ("offset", "shape", "dtype", "strides"),
    [
        (P, (4, 4), "u1", (P, 1)),
        (P, (5,), "<u4", (3,)),
        (P, (8,), "<u8", (P,)),
        (9 * P - 1, (100,), "u1", (-1,)),
        (9 * P - 8, (8 * P // 8,), "<u8", (-8,)),
        (3 * P, (3, 5), "<i2", (-2 * 5, 2)),
        (4 * P, (3, 5), "<i2", (-P, -2)),
        (5 * P, (2, 3, 4), ">u2", (P, -P, 2)),
        (P, (1000, 1000), "u1", (0, 0)),
        (P + 7, (3, 1000), "<f8", (0, 8)),
        (2 * P, (1,), "u1", (1 << 40,)),
        (2 * P, (), "u4", ()),
    ],
)
def test_strides(offset, shape, dtype, strides, filled):
    """Byte strides of any sign and size work as numpy's, as long as all of it is inside."""
    buffer, data = filled
    window = buffer.window(offset, shape, dtype, strides=strides)
    expected = np.ndarray(shape, dtype, data, offset, strides)
    assert type(window) is np.ndarray
    assert window.strides == strides
    assert np.array_equal(window, expected)


@pytest.mark.parametrize(
    ("offset", "shape", "strides", "error"),
    [
        (P, (8, 2), (P, P), AccessError),
        (P, (3,), (-1,), AccessError),
        (P, (3,), (8 * P,), OutOfBoundsError),
        (P, (3,), (-P,), ValueError),
        (P, (3,), (1 << 62,), OutOfBoundsError),
        (P, (3,), (-(1 << 62),), ValueError),
        (P, (1 << 40, 1 << 40), (1 << 40, 1 << 40), (OutOfBoundsError, ValueError)),
        (P, (1 << 62,), (1,), OutOfBoundsError),
        (P, (1 << 62, 2), (-1, -1), ValueError),
        (P, (2, 2), (1,), ValueError),
        (P, (2,), (1, 1), ValueError),
        (P, (), (1,), ValueError),
        (P, (2,), ("1",), TypeError),
        (P, (2,), (1.0,), TypeError),
    ],
)
def test_strides_that_lead_outside(offset, shape, strides, error, filled):
    """Strides that reach a hole, or outside of the buffer, or do not fit the shape are refused."""
    buffer, _ = filled
    with pytest.raises(error):
        buffer.window(offset, shape, "u1", strides=strides)
    buffer.close()  # nothing is pinned


@pytest.mark.parametrize(
    ("start", "stop", "step"),
    [
        (None, None, None), (P, 9 * P, None), (P + 3, P + 10, 1), (P, 5 * P, 7), (5 * P, P, -1),
        (8 * P, P, -P), (-2 * P, -P - 5, None), (P, 100 * P, 2), (3 * P, P, None), (0, 0, None),
        (1 << 70, None, None), (-(1 << 70), 0, None), (None, None, -1), (2 * P, 2 * P + 1, -5),
    ],
)  # fmt: skip
def test_slices(start, stop, step, pattern):
    """buffer[a:b:c] is what the same slice of the bytes is, clipping included."""
    data = pattern(10 * P)
    with SparseBuffer(10 * P) as buffer:
        buffer.alloc(0, 10 * P)
        buffer.write_at(0, data)
        window = buffer[start:stop:step]
        assert type(window) is np.ndarray
        assert window.dtype == np.uint8
        assert window.tobytes() == data[start:stop:step]
        del window


@pytest.mark.parametrize(
    "key", [0, -1, "a", None, ..., (slice(0, 1),), 1.0, np.array([1]), [0]], ids=range(9)
)
def test_other_keys(key, filled):
    """Only slices index a buffer; the TypeError says what to use instead."""
    with pytest.raises(TypeError, match="read_plain"):
        filled[0][key]


@pytest.mark.parametrize("key", [slice(1.0, 2), slice("a"), slice(None, None, "x")], ids=range(3))
def test_slices_of_no_ints(key, filled):
    """Slices of anything but integers are TypeErrors, a step of zero is a ValueError."""
    with pytest.raises(TypeError):
        filled[0][key]
    with pytest.raises(ValueError, match="zero"):
        filled[0][::0]


def test_spans_regions(make_file):
    """A window spans regions of different kinds where they touch."""
    path, data = make_file(2 * P)
    with SparseBuffer(6 * P) as buffer:
        buffer.alloc(0, P)
        buffer.fill_at(0, 9, P)
        buffer.map_file(P, 2 * P, path)
        buffer.map_zero(3 * P, P)
        buffer.map_file(4 * P, P, path, P, copy_on_write=True)
        buffer.mmap_anonymous(5 * P, P, mmap.PROT_READ, mmap.MAP_PRIVATE)
        window = buffer[:]
        assert bytes(window) == b"\x09" * P + data + bytes(P) + data[P:] + bytes(P)
        assert not window.flags.writeable
        words = buffer.window(P - 4, 3, "<u8")
        assert words.tobytes() == b"\x09" * 4 + data[:20]
        del window, words


def test_writes_and_reads_are_the_same_bytes(filled):
    """What is written through a window is read by calls and other windows, and back."""
    buffer, _ = filled
    first, second = buffer.window(P, (8, P // 8), ">u8"), buffer[P : 9 * P]
    first[3, 5] = 0x0102030405060708
    at = (3 * (P // 8) + 5) * 8
    assert second[at : at + 8].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert buffer.read_at(P + at, 8) == bytes(range(1, 9))
    buffer.fill_at(P + at, 0, 8)
    assert first[3, 5] == 0
    assert np.shares_memory(first, second)


def test_bad_arguments(filled):
    """Negative, unfit and wrong arguments are refused, and nothing is pinned."""
    buffer, _ = filled
    for offset, shape, options in [
        (-1, 1, {}), (-P, 1, {}), (P, -1, {}), (P, (2, -3), {}), (-(1 << 70), 1, {}),
        (P, 1, {"order": "A"}), (P, 1, {"order": None}), (P, -(1 << 70), {}),
    ]:  # fmt: skip
        with pytest.raises(ValueError):
            buffer.window(offset, shape, **options)
    for offset, shape, options in [
        (1.0, 1, {}), ("0", 1, {}), (None, 1, {}), (P, 1.0, {}), (P, "1", {}), (P, None, {}),
        (P, (1.0,), {}), (P, 1, {"dtype": object}), (P, 1, {"dtype": [("a", "O")]}),
        (P, 0, {"dtype": object}), (P, 1, {"dtype": "nonsense"}),
    ]:  # fmt: skip
        with pytest.raises(TypeError):
            buffer.window(offset, shape, **options)
    buffer.close()


@pytest.mark.parametrize(
    ("offset", "shape", "dtype"),
    [
        (10 * P, 1, "u1"), (10 * P - 1, 2, "u1"), (P, 10 * P, "u1"), (P, 1 << 60, "u8"), (1 << 62, 1, "u1"),
        (1 << 63, 1, "u1"), (1 << 70, 0, "u1"), (P, 1 << 63, "u1"), (P, (1 << 32, 1 << 32), "u8"),
        (P, (1 << 70), "u1"), (10 * P + 1, 0, "u1"), (P, (1 << 40, 1 << 40, 0), "u1"),
    ],
)  # fmt: skip
def test_past_the_end(offset, shape, dtype, filled):
    """A window past the end is an OutOfBoundsError, whatever product its shape has."""
    buffer, _ = filled
    if shape == (1 << 40, 1 << 40, 0):  # no bytes: numpy's word on it
        with pytest.raises(ValueError, match="big|large"):
            np.empty(shape, dtype)
        with pytest.raises(ValueError):
            buffer.window(offset, shape, dtype)
        return
    with pytest.raises(OutOfBoundsError):
        buffer.window(offset, shape, dtype)


@pytest.mark.parametrize("shape", [1 << 63, (1 << 31,) * 3, (1,) * 65, (1,) * 100])
def test_shapes_numpy_cannot_have(shape, filled):
    """Shapes that numpy has no arrays of are errors, and pin nothing."""
    buffer, _ = filled
    with pytest.raises((ValueError, IndexError)):
        buffer.window(P, shape)
    gc.collect()
    buffer.close()


@pytest.mark.parametrize("offset", [0, P - 1, 9 * P, 10 * P - 1])
def test_holes_are_refused(offset, filled):
    """A window over a hole tells its first bad byte."""
    with pytest.raises(AccessError) as caught:
        filled[0].window(offset, 1)
    assert (caught.value.reason, caught.value.offset) == ("unmapped", offset)
    with pytest.raises(AccessError) as caught:
        filled[0].window(P + 5, 9 * P - 5)
    assert (caught.value.reason, caught.value.offset) == ("unmapped", 9 * P)


@pytest.mark.parametrize("shape", [0, (0,), (3, 0), (0, 5, 7)])
@pytest.mark.parametrize("offset", [0, 3, 10 * P])
def test_empty_windows(shape, offset, filled):
    """A window of no bytes can be anywhere in the buffer, and pins nothing."""
    buffer, _ = filled
    window = buffer.window(offset, shape, "f8")
    assert window.shape == ((shape,) if isinstance(shape, int) else shape)
    assert type(window) is np.ndarray
    assert buffer.window(offset, shape, writable=False).flags.writeable is False
    buffer.close()
    assert window.sum() == 0


def test_dtype_of_no_bytes(filled):
    """A window of items of no bytes pins nothing either."""
    window = filled[0].window(0, 3, "V0")
    assert window.shape == (3,)
    filled[0].close()


# ------------------------------------------------------------------------------ writability


def test_writable_as_the_pages_are(make_file):
    """Without being told, a window is writable if every page that it spans is."""
    path, _ = make_file(P)
    with SparseBuffer(8 * P) as buffer:
        buffer.alloc(0, 3 * P)
        buffer.set_writable(P, P, False)
        buffer.map_zero(3 * P, P)
        buffer.map_file(4 * P, P, path)
        buffer.map_file(5 * P, P, path, writable=True)
        buffer.map_file(6 * P, P, path, copy_on_write=True)
        found = [buffer.window(i * P, P).flags.writeable for i in range(7)]
        assert found == [True, False, True, False, False, True, True]
        assert buffer.window(5 * P, 2 * P).flags.writeable
        assert not buffer.window(P - 1, 2).flags.writeable
        assert buffer.window(P - 1, 1).flags.writeable
        assert not buffer.window(0, 3, strides=(P,)).flags.writeable


def test_writable_on_request(filled):
    """A writable window of read-only pages is refused; a read-only one of writable pages is not."""
    buffer, _ = filled
    buffer.set_writable(3 * P, P, False)
    with pytest.raises(AccessError) as caught:
        buffer.window(P, 8 * P, writable=True)
    assert (caught.value.reason, caught.value.operation) == ("read-only", "write")
    assert caught.value.offset == 3 * P
    window = buffer.window(P, P, writable=False)
    assert not window.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        window[0] = 1


def dlpack_writable(window):
    """Get a writable array through DLPack, if numpy gives one."""
    return np.from_dlpack(window)


# Ways that somebody might try to get a writable array of a read-only one.
FLIPS = {
    "flags": lambda w: w.flags.__setattr__("writeable", True) or w,
    "setflags": lambda w: w.setflags(write=True) or w,
    "view flags": lambda w: w.view().setflags(write=True) or w.view(),
    "view of itself": lambda w: setflags(w.view("u2")),
    "slice": lambda w: setflags(w[1:]),
    "frombuffer": lambda w: setflags(np.frombuffer(w, "u1")),
    "ndarray": lambda w: setflags(np.ndarray(w.shape, w.dtype, w)),
    "memoryview": lambda w: setflags(np.asarray(memoryview(w))),
    "as_strided": lambda w: write(np.lib.stride_tricks.as_strided(w, writeable=True)),
    "as_strided flags": lambda w: setflags(np.lib.stride_tricks.as_strided(w)),
    "sliding_window_view": lambda w: write(
        np.lib.stride_tricks.sliding_window_view(w, 2, writeable=True)
    ),
    "broadcast_to": lambda w: setflags(np.broadcast_to(w, (2, *w.shape))),
    "from_dlpack": lambda w: setflags(dlpack_writable(w)),
    "ctypes from_buffer": lambda w: (ctypes.c_ubyte * 4).from_buffer(w),
    "memoryview item": lambda w: memoryview(w).__setitem__(0, 1),
    "nditer": lambda w: next(np.nditer(w, op_flags=["readwrite"])),
    "flat": lambda w: w.flat.__setitem__(0, 1),
    "put": lambda w: np.put(w, 0, 1),
    "copyto": lambda w: np.copyto(w, 1),
    "out": lambda w: np.add(w, 1, out=w),
    "sort": lambda w: w.sort(),
    "byteswap": lambda w: w.byteswap(inplace=True),
    "resize": lambda w: w.resize(10, refcheck=False),
    "base": lambda w: setflags(np.asarray(w.base)),
    "recarray": lambda w: setflags(w.view(np.recarray)),
    "require": lambda w: check_shared(np.require(w, requirements="W"), w),
    "asarray of the interface": lambda w: setflags(np.asarray(Interface(w))),
    "readinto": lambda w: io.BytesIO(b"1234").readinto(w),
    "matrix": lambda w: setflags(w.view(np.matrix)),
    "real": lambda w: setflags(w.real),
    "masked": lambda w: np.ma.asarray(w).data.setflags(write=True) or w,
}


def setflags(array):
    """Make an array writable, and return it."""
    array.setflags(write=True)
    return array


def write(array):
    """Write to an array."""
    array[...] = 1


def check_shared(array, window):
    """Return an array if it shares the window's memory, and fail as refused if it is a copy."""
    if not np.shares_memory(array, window):
        raise ValueError("a copy")
    return array


class Interface:
    """What numpy's array interface of a window says, handed on."""

    def __init__(self, window) -> None:
        self.window = window
        self.__array_interface__ = window.__array_interface__


@pytest.mark.parametrize("name", FLIPS)
@pytest.mark.parametrize("kind", ["zero", "file", "private", "on request"])
def test_read_only_cannot_be_flipped(name, kind, make_file):
    """No way that numpy has makes a read-only window writable, and no byte changes."""
    buffer = SparseBuffer(2 * P)
    if kind == "zero":
        buffer.map_zero(0, P)
    elif kind == "file":
        buffer.map_file(0, P, make_file(P)[0])
    else:
        buffer.alloc(0, P)
        buffer.write_at(0, bytes(range(255, -1, -1)))
        if kind == "private":
            buffer.set_writable(0, P, False)
    before = buffer.read_at(0, P)
    window = buffer.window(0, 16, writable=False if kind == "on request" else None)
    with pytest.raises((ValueError, TypeError, BufferError, AttributeError, RuntimeError)):
        FLIPS[name](window)
    assert not window.flags.writeable
    assert buffer.read_at(0, P) == before


def test_legacy_dlpack_of_a_read_only_window(filled):
    """DLPack of old, which cannot say read-only, is refused for a read-only window."""
    window = filled[0].window(P, 16, writable=False)
    with pytest.raises(BufferError):
        window.__dlpack__()


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
def test_derivations_pin(name, filled):
    """As long as anything made from a window lives, its pages stay; and not longer."""
    buffer, data = filled
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
def test_copies_do_not_pin(name, filled):
    """Copies, scalars and facts of a window hold no pages."""
    buffer, _ = filled
    window = buffer.window(2 * P, 64)
    kept = FREE[name](window)
    del window
    gc.collect()
    buffer.close()
    del kept


@pytest.mark.parametrize("name", CHANGES)
def test_pinned_pages_cannot_be_changed(name, filled):
    """A change over pinned pages is a BufferError that tells how many windows, and where."""
    buffer, data = filled
    windows = [buffer.window(2 * P + 5, 1), buffer.window(2 * P + 100, P)]
    before = buffer.regions
    with pytest.raises(BufferError, match=r"[12] live windows? ") as caught:
        CHANGES[name](buffer)
    assert f"{2 * P:#x} ({2 * P})" in str(caught.value)
    assert f"{4 * P:#x} ({4 * P})" in str(caught.value) or "1 live" in str(caught.value)
    assert buffer.regions == before
    assert not buffer.closed
    assert buffer.read_at(P, 8 * P) == data[P:]
    del windows


def test_close_names_the_windows(filled):
    """close() tells how many windows live, and the range that they lie in."""
    buffer, _ = filled
    windows = [buffer.window(P, 1), buffer.window(3 * P, 1), buffer.window(7 * P + 9, 2)]
    with pytest.raises(BufferError) as caught:
        buffer.close()
    assert "3 live windows" in str(caught.value)
    assert f"between {P:#x} ({P}) and {8 * P:#x} ({8 * P})" in str(caught.value)
    del windows[1:]
    with pytest.raises(BufferError, match="1 live window is"):
        buffer.close()
    windows.clear()
    buffer.close()


def test_pins_are_whole_pages(filled):
    """A window pins the pages that it spans, and no others."""
    buffer, _ = filled
    window = buffer.window(4 * P - 1, 2)
    for page, pinned in [(2, False), (3, True), (4, True), (5, False)]:
        if pinned:
            with pytest.raises(BufferError):
                buffer.alloc(page * P, P)
        else:
            buffer.alloc(page * P, P)
    del window


def test_strided_window_pins_its_span(filled):
    """A strided window pins all that lies between its first and last byte, either way round."""
    buffer, _ = filled
    for offset, stride in [(2 * P, 2 * P), (6 * P, -2 * P)]:
        window = buffer.window(offset, 3, "u1", strides=(stride,))
        for page in (2, 3, 4, 5, 6):
            with pytest.raises(BufferError):
                buffer.unmap(page * P, P)
        buffer.alloc(P, P)
        buffer.alloc(7 * P, P)
        del window


def test_what_is_allowed_under_windows(filled, linux_core):
    """Calls that leave pages in place are allowed under live windows."""
    buffer, _ = filled
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


def test_read_only_windows_allow_write_protection(filled):
    """Pages can be made read-only under read-only windows, and writable again under any."""
    buffer, data = filled
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


def test_windows_in_cycles(filled):
    """A window in a reference cycle holds its pages until the cycle is collected."""
    buffer, _ = filled
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


def test_windows_die_in_other_threads(filled):
    """Windows made in one thread may die in others, at the same time."""
    buffer, _ = filled
    for _ in range(20):
        piles = [[buffer.window(P + i % 100, 50) for i in range(100)] for _ in range(4)]
        threads = [threading.Thread(target=pile.clear) for pile in piles]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        buffer.alloc(P, 8 * P)


def test_finalizers_may_use_the_buffer(filled):
    """A finalizer that runs while a window dies may use the buffer, and make windows."""
    buffer, data = filled
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


def test_failed_window_pins_nothing(filled):
    """A window that could not be made has left no pin."""
    buffer, _ = filled
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


def test_thousands_of_windows(filled):
    """Thousands of windows at once are counted, and go without a trace."""
    buffer, _ = filled
    windows = [buffer.window(P + i % P, 8) for i in range(20_000)]
    with pytest.raises(BufferError, match="20000 live windows"):
        buffer.close()
    random.Random(1).shuffle(windows)
    del windows[1:]
    with pytest.raises(BufferError, match="1 live window"):
        buffer.close()
    windows.clear()
    buffer.close()


def test_numpy_functions_work(filled):
    """Windows are arrays like any other to numpy's functions."""
    buffer, data = filled
    window = buffer.window(P, 8 * P)
    dense = np.frombuffer(data, "u1", 8 * P, P)
    assert window.sum() == dense.sum()
    assert np.array_equal(np.bincount(window), np.bincount(dense))
    assert np.array_equal(window[::3] * 2, dense[::3] * 2)
    window.view("<u8").sort()
    assert np.array_equal(buffer.read_plain(P, "<u8", P), np.sort(np.frombuffer(data, "<u8", P, P)))
    np.add(window, 1, out=window)
    assert np.array_equal(window, np.sort(dense.view("<u8")).view("u1") + np.uint8(1))
