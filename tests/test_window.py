"""Windows: what they show, and who may write through them."""

import ctypes
import gc
import io
import mmap

import numpy as np
import pytest

from sparsearray import AccessError, OutOfBoundsError, SparseBuffer

P = mmap.PAGESIZE


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
def test_shows_memory_as_numpy_would(dtype, shape, order, between_holes):
    """A window of any dtype, shape and order shows the bytes as an ndarray over them would."""
    buffer, data = between_holes
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
def test_strides(offset, shape, dtype, strides, between_holes):
    """Byte strides of any sign and size work as numpy's, as long as all of it is inside."""
    buffer, data = between_holes
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
def test_strides_that_lead_outside(offset, shape, strides, error, between_holes):
    """Strides that reach a hole, or outside of the buffer, or do not fit the shape are refused."""
    buffer, _ = between_holes
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
def test_other_keys(key, between_holes):
    """Only slices index a buffer; the TypeError says what to use instead."""
    with pytest.raises(TypeError, match="read_plain"):
        between_holes[0][key]


@pytest.mark.parametrize("key", [slice(1.0, 2), slice("a"), slice(None, None, "x")], ids=range(3))
def test_slices_of_no_ints(key, between_holes):
    """Slices of anything but integers are TypeErrors, a step of zero is a ValueError."""
    with pytest.raises(TypeError):
        between_holes[0][key]
    with pytest.raises(ValueError, match="zero"):
        between_holes[0][::0]


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


def test_writes_and_reads_are_the_same_bytes(between_holes):
    """What is written through a window is read by calls and other windows, and back."""
    buffer, _ = between_holes
    first, second = buffer.window(P, (8, P // 8), ">u8"), buffer[P : 9 * P]
    first[3, 5] = 0x0102030405060708
    at = (3 * (P // 8) + 5) * 8
    assert second[at : at + 8].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert buffer.read_at(P + at, 8) == bytes(range(1, 9))
    buffer.fill_at(P + at, 0, 8)
    assert first[3, 5] == 0
    assert np.shares_memory(first, second)


def test_bad_arguments(between_holes):
    """Negative, unfit and wrong arguments are refused, and nothing is pinned."""
    buffer, _ = between_holes
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
def test_past_the_end(offset, shape, dtype, between_holes):
    """A window past the end is an OutOfBoundsError, whatever product its shape has."""
    buffer, _ = between_holes
    if shape == (1 << 40, 1 << 40, 0):  # no bytes: numpy's word on it
        with pytest.raises(ValueError, match="big|large"):
            np.empty(shape, dtype)
        with pytest.raises(ValueError):
            buffer.window(offset, shape, dtype)
        return
    with pytest.raises(OutOfBoundsError):
        buffer.window(offset, shape, dtype)


@pytest.mark.parametrize("shape", [1 << 63, (1 << 31,) * 3, (1,) * 65, (1,) * 100])
def test_shapes_numpy_cannot_have(shape, between_holes):
    """Shapes that numpy has no arrays of are errors, and pin nothing."""
    buffer, _ = between_holes
    with pytest.raises((ValueError, IndexError)):
        buffer.window(P, shape)
    gc.collect()
    buffer.close()


@pytest.mark.parametrize("offset", [0, P - 1, 9 * P, 10 * P - 1])
def test_holes_are_refused(offset, between_holes):
    """A window over a hole tells its first bad byte."""
    with pytest.raises(AccessError) as caught:
        between_holes[0].window(offset, 1)
    assert (caught.value.reason, caught.value.offset) == ("unmapped", offset)
    with pytest.raises(AccessError) as caught:
        between_holes[0].window(P + 5, 9 * P - 5)
    assert (caught.value.reason, caught.value.offset) == ("unmapped", 9 * P)


@pytest.mark.parametrize("shape", [0, (0,), (3, 0), (0, 5, 7)])
@pytest.mark.parametrize("offset", [0, 3, 10 * P])
def test_empty_windows(shape, offset, between_holes):
    """A window of no bytes can be anywhere in the buffer, and pins nothing."""
    buffer, _ = between_holes
    window = buffer.window(offset, shape, "f8")
    assert window.shape == ((shape,) if isinstance(shape, int) else shape)
    assert type(window) is np.ndarray
    assert buffer.window(offset, shape, writable=False).flags.writeable is False
    buffer.close()
    assert window.sum() == 0


def test_dtype_of_no_bytes(between_holes):
    """A window of items of no bytes pins nothing either."""
    window = between_holes[0].window(0, 3, "V0")
    assert window.shape == (3,)
    between_holes[0].close()


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


def test_writable_on_request(between_holes):
    """A writable window of read-only pages is refused; a read-only one of writable pages is not."""
    buffer, _ = between_holes
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


def test_legacy_dlpack_of_a_read_only_window(between_holes):
    """DLPack of old, which cannot say read-only, is refused for a read-only window."""
    window = between_holes[0].window(P, 16, writable=False)
    with pytest.raises(BufferError):
        window.__dlpack__()
