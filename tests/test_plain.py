"""read_plain and write_plain: known answers for every kind of dtype, at any byte."""

import mmap
import struct

import numpy as np
import pytest

from sparsearray import AccessError, OutOfBoundsError, SparseBuffer

P = mmap.PAGESIZE

NESTED = np.dtype(
    [
        ("magic", "S4"),
        ("version", ">u2"),
        ("box", [("low", "<i4", (2, 3)), ("high", "<i4", (2, 3))]),
        ("when", "<M8[ms]"),
        ("took", ">m8[us]"),
        ("name", "<U5"),
        ("flags", "?", 3),
        ("z", ">c16"),
        ("rest", "V7"),
    ]
)
SHORT = np.dtype([("a", "u1"), ("b", "<u4"), ("c", ">i2"), ("d", "<f8")])  # 15 bytes, unaligned
ALIGNED = np.dtype([("a", "u1"), ("b", "<u8"), ("c", "<u2")], align=True)  # with padding
OVERLAID = np.dtype(
    {"names": ["word", "byte"], "formats": ["<u4", "u1"], "offsets": [0, 2], "itemsize": 12}
)
DTYPES = [
    "?", "i1", "u1", "<i2", ">i2", "<u2", ">u2", "<i4", ">i4", "<u4", ">u4", "<i8", ">i8", "<u8",
    ">u8", "<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "g", "<c8", ">c8", "<c16", ">c16", "G",
    "<M8[s]", ">M8[ns]", "<M8[D]", "<m8[us]", ">m8[D]", "<M8[25s]", "S1", "S3", "S8", "S100", "<U1",
    ">U1", "<U7", "V1", "V3", "V8", "V64", "V65", "V1000", SHORT, ALIGNED, OVERLAID, NESTED,
    [("x", "u1")], [("x", "<f4"), ("y", "<f4")], [], "S0", "U0", "V0",
]  # fmt: skip
IDS = [f"{i}-{dtype if isinstance(dtype, str) else 'record'}" for i, dtype in enumerate(DTYPES)]


def same(found, expected) -> bool:
    """Whether two values have the same dtype and, padding of floats aside, the same bytes."""
    found, expected = np.asarray(found), np.asarray(expected)
    return (
        found.dtype == expected.dtype
        and found.shape == expected.shape
        and without_padding(found) == without_padding(expected)
    )


def without_padding(array: np.ndarray) -> bytes:
    """Return the bytes of an array, but for those that an 80-bit float leaves unused."""
    raw = array.tobytes()
    if array.dtype.char not in "gG" or np.finfo(np.longdouble).nmant != 63:
        return raw
    return np.frombuffer(raw, "u1").reshape(-1, np.dtype("g").itemsize)[:, :10].tobytes()


@pytest.fixture
def noise(pattern):
    """Make a buffer of 4 pages with bytes that repeat nowhere, and tell them."""
    data = pattern(4 * P, 42)
    with SparseBuffer(4 * P) as buffer:
        buffer.alloc(0, 4 * P)
        buffer.write_at(0, data)
        yield buffer, data


@pytest.mark.parametrize("dtype", DTYPES, ids=IDS)
def test_scalars(dtype, noise):
    """A scalar at any byte is what numpy reads from the same bytes, and of the same type."""
    buffer, data = noise
    dtype = np.dtype(dtype)
    if dtype.kind == "U":
        buffer.fill_at(0, 0, 4 * P)  # noise is no text
        data = bytes(4 * P)
    for offset in (0, 1, 3, 7, 100, P - 1, P - dtype.itemsize, 2 * P - dtype.itemsize // 2):
        array = np.ndarray((), dtype, bytearray(data[offset : offset + dtype.itemsize] or b"\0"))
        found = buffer.read_plain(offset, dtype)
        assert type(found) is type(array[()])
        assert same(found, array[()])


@pytest.mark.parametrize("shape", [0, 1, 5, (), (1,), (2, 3), (3, 0, 2), (2, 1, 4), [2, 2]])
@pytest.mark.parametrize("dtype", DTYPES, ids=IDS)
def test_arrays(dtype, shape, noise):
    """An array at any byte is what numpy reads from the same bytes, in C order, and is owned."""
    buffer, data = noise
    dtype = np.dtype(dtype)
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    if not sizes or dtype.str[1:] in {"S0", "U0"}:
        sizes = shape = (1,)  # no dimensions: test_scalars; no bytes: numpy makes them one
        dtype = np.dtype("S1") if dtype.itemsize == 0 and dtype.kind in "SU" else dtype
    for offset in (0, 5, P - 3):
        nbytes = int(np.prod(sizes)) * dtype.itemsize
        expected = np.ndarray(sizes, dtype, bytearray(data[offset : offset + nbytes] or b"\0"))
        found = buffer.read_plain(offset, dtype, shape)
        assert same(found, expected)
        if sizes:
            assert type(found) is np.ndarray
            assert found.flags.writeable
            assert found.flags.c_contiguous


@pytest.mark.parametrize("dtype", DTYPES, ids=IDS)
def test_round_trip(dtype, noise):
    """What is written as a value of a dtype has its bytes there, and nothing else changes."""
    buffer, data = noise
    dtype = np.dtype(dtype)
    if dtype.itemsize == 0 and dtype.kind in "SU":
        dtype = np.dtype("S1")  # as numpy has it
    raw = data[2 * P : 2 * P + dtype.itemsize]
    if dtype.kind in "bU":  # of which noise is none
        raw = np.ones((), dtype).tobytes()
    value = np.ndarray((), dtype, bytearray(raw or b"\0"))
    if dtype.char in "gG":  # noise may be no number at all
        raw = np.full((), 1.5, dtype).tobytes()
        value = np.ndarray((), dtype, bytearray(raw))
    padded = dtype.char in "gG" or dtype in (ALIGNED, OVERLAID)  # which numpy does not copy
    for offset in (0, 1, P - 1, P - dtype.itemsize // 2, 2 * P - len(raw)):
        for written in (value, value[()]):
            buffer.write_at(0, data)
            buffer.write_plain(offset, written, dtype)
            found = buffer.read_at(offset, len(raw))
            if padded:
                with np.errstate(invalid="ignore"):
                    assert np.ndarray((), dtype, bytearray(found)) == value
            else:
                assert found == raw
            assert buffer.read_at(0, offset) == data[:offset]
            after = offset + len(raw)
            assert buffer.read_at(after, 4 * P - after) == data[after:]


KNOWN = [
    ("<u2", struct.pack("<H", 0x1234), 0x1234),
    (">u2", struct.pack(">H", 0x1234), 0x1234),
    ("<i4", struct.pack("<i", -5), -5),
    (">i8", struct.pack(">q", -(1 << 40)), -(1 << 40)),
    ("<u8", struct.pack("<Q", (1 << 64) - 1), (1 << 64) - 1),
    ("<f4", struct.pack("<f", 0.1), np.float32(0.1)),
    (">f8", struct.pack(">d", -1e300), -1e300),
    ("<f2", struct.pack("<e", 1.5), 1.5),
    ("<c8", struct.pack("<2f", 1, -2), 1 - 2j),
    (">c16", struct.pack(">2d", 1e9, 0.25), 1e9 + 0.25j),
    ("?", b"\1", True),
    ("S5", b"ab\0\0\0", b"ab"),
    ("<U3", "äbc".encode("utf-32-le"), "äbc"),
    (">U2", "hi".encode("utf-32-be"), "hi"),
    ("<M8[s]", struct.pack("<q", 86400), np.datetime64("1970-01-02T00:00:00")),
    (">M8[D]", struct.pack(">q", -1), np.datetime64("1969-12-31")),
    ("<m8[ms]", struct.pack("<q", 2500), np.timedelta64(2500, "ms")),
    ("<M8[ns]", struct.pack("<q", -(1 << 63)), np.datetime64("NaT")),
]


@pytest.mark.parametrize(("dtype", "raw", "value"), KNOWN, ids=[known[0] for known in KNOWN])
def test_known_values(dtype, raw, value):
    """Bytes made by `struct` are read as the value they stand for, and the other way round."""
    with SparseBuffer(P) as buffer:
        buffer.alloc(0, P)
        for offset in (0, 3, 64, P - len(raw)):
            buffer.fill_at(0, 0xAA, P)
            buffer.write_at(offset, raw)
            found = buffer.read_plain(offset, dtype)
            assert found == value or (np.isnat(found) and np.isnat(value))
            buffer.fill_at(0, 0xAA, P)
            buffer.write_plain(offset, value, dtype)
            assert buffer.read_at(offset, len(raw)) == raw
            assert buffer.read_at(0, offset) == b"\xaa" * offset
            assert buffer.read_at(offset + len(raw), P - offset - len(raw)).strip(b"\xaa") == b""


def test_record_by_struct():
    """An unaligned record of mixed byte orders has the values that `struct` has put in."""
    raw = struct.pack("<BI", 7, 1 << 31) + struct.pack(">h", -2) + struct.pack("<d", 0.5)
    with SparseBuffer(P) as buffer:
        buffer.alloc(0, P)
        buffer.write_at(11, raw)
        found = buffer.read_plain(11, SHORT)
        assert type(found) is np.void
        assert found.item() == (7, 1 << 31, -2, 0.5)
        assert found["b"] == 1 << 31


def test_nested_record():
    """A record with records, sub-arrays and times in it is read field by field."""
    box = struct.pack("<12i", *range(12))
    raw = b"MAGI" + struct.pack(">H", 513) + box + struct.pack("<q", 1000) + struct.pack(">q", 25)
    raw += "héllo".encode("utf-32-le") + bytes([1, 0, 1]) + struct.pack(">2d", 1, 2) + b"1234567"
    assert len(raw) == NESTED.itemsize
    with SparseBuffer(2 * P) as buffer:
        buffer.alloc(0, 2 * P)
        buffer.write_at(P - 50, raw)
        found = buffer.read_plain(P - 50, NESTED)
        assert (found["magic"], found["version"], found["name"]) == (b"MAGI", 513, "héllo")
        assert found["box"]["low"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert found["box"]["high"].tolist() == [[6, 7, 8], [9, 10, 11]]
        assert found["when"] == np.datetime64("1970-01-01T00:00:01.000")
        assert found["took"] == np.timedelta64(25, "us")
        assert found["flags"].tolist() == [True, False, True]
        assert found["z"] == 1 + 2j
        assert found["rest"].tobytes() == b"1234567"


def test_subarray_dtype(noise):
    """A sub-array dtype gives an array of its shape, after `shape` if there is one."""
    buffer, data = noise
    found = buffer.read_plain(3, np.dtype(("<u2", (2, 3))))
    assert np.array_equal(found, np.frombuffer(data, "<u2", 6, 3).reshape(2, 3))
    found = buffer.read_plain(3, np.dtype(("<u2", (2, 3))), 4)
    assert np.array_equal(found, np.frombuffer(data, "<u2", 24, 3).reshape(4, 2, 3))


@pytest.mark.parametrize("dtype", DTYPES, ids=IDS)
def test_results_are_owned(dtype, noise):
    """What was read changes neither with the buffer nor with later reads, nor the other way."""
    buffer, _ = noise
    if np.dtype(dtype).kind == "U":
        buffer.fill_at(0, 0, P)
        buffer.write_plain(5, "A", dtype)
    first, second = buffer.read_plain(5, dtype), buffer.read_plain(5, dtype)
    array = buffer.read_plain(5, dtype, 2)
    before = np.asarray(first).tobytes(), array.tobytes()
    buffer.fill_at(0, 0, 4 * P)
    buffer.read_plain(5, dtype)
    assert (np.asarray(first).tobytes(), array.tobytes()) == before
    if isinstance(first, np.void) and first.dtype.names:
        name = first.dtype.names[0]
        first[name] = np.zeros((), first.dtype[name])[()]
        assert np.asarray(second).tobytes() == before[0]
        assert buffer.read_at(0, P) == bytes(P)


def test_closing_does_not_wait_for_results(noise):
    """A buffer can be closed while records read from it live, and they live on."""
    buffer, data = noise
    kept = [
        buffer.read_plain(8, SHORT),
        buffer.read_plain(8, "V200"),
        buffer.read_plain(8, SHORT, 3),
    ]
    buffer.close()
    assert kept[0].tobytes() == kept[2][0].tobytes() == kept[1].tobytes()[:15] == data[8:23]


@pytest.mark.parametrize(
    "dtype",
    [
        object,
        "O",
        [("a", "u1"), ("b", object)],
        [("a", [("b", "O")])],
        (object, 3),
        [("a", "O", 2)],
    ],
    ids=range(6),
)
def test_objects_are_refused(dtype, noise):
    """Dtypes that hold Python objects are TypeErrors everywhere, and nothing is written."""
    buffer, data = noise
    for call in (
        lambda: buffer.read_plain(0, dtype),
        lambda: buffer.read_plain(0, dtype, 2),
        lambda: buffer.read_plain(0, dtype, 0),
        lambda: buffer.write_plain(0, np.zeros((), dtype)),
        lambda: buffer.gather([0], dtype),
        lambda: buffer.scatter([0], np.zeros(1, dtype)),
        lambda: buffer.window(0, 1, dtype),
        lambda: buffer.window(0, 0, dtype),
        lambda: buffer.atomic_slice(0, 1, dtype),
    ):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(TypeError):
        buffer.write_plain(0, 1, object)
    assert buffer.read_at(0, 4 * P) == data


@pytest.mark.parametrize("value", [None, {}, [1, None], 10**30])
def test_values_that_are_objects(value, noise):
    """Python values that numpy takes for objects are TypeErrors."""
    buffer, data = noise
    with pytest.raises(TypeError):
        buffer.write_plain(0, value)
    with pytest.raises(TypeError):
        buffer.scatter([0], value)
    assert buffer.read_at(0, 4 * P) == data


@pytest.mark.parametrize("dtype", ["nonsense", 5, "f3", "i16"])
def test_no_such_dtype(dtype, noise):
    """What is no dtype is numpy's TypeError."""
    for _ in range(2):
        with pytest.raises(TypeError):
            noise[0].read_plain(0, dtype)


@pytest.mark.parametrize("dtype", [np.uint16, "u2", np.dtype("u2"), int, float, bool, complex])
def test_ways_to_name_a_dtype(dtype, noise):
    """A dtype may be named in any of numpy's ways, again and again."""
    buffer, data = noise
    for _ in range(3):
        assert same(buffer.read_plain(8, dtype), np.frombuffer(data, dtype, 1, 8)[0])


def test_many_dtypes(noise):
    """Thousands of different dtypes are read right, whatever is remembered of them."""
    buffer, data = noise
    for i in range(1, 2000):
        dtype = np.dtype([("pad", f"V{i % 50 + 1}"), (f"x{i}", "<u4")])
        found = buffer.read_plain(7, dtype)
        assert found[f"x{i}"] == int.from_bytes(data[8 + i % 50 : 12 + i % 50], "little")


def test_equal_names_of_different_things(noise):
    """Dtypes that compare equal, or differ in byte order or unit only, do not get mixed up."""
    buffer, data = noise
    eight = data[16:24]
    for _ in range(3):
        assert buffer.read_plain(16, "<u8") == int.from_bytes(eight, "little")
        assert buffer.read_plain(16, ">u8") == int.from_bytes(eight, "big")
        assert buffer.read_plain(16, "<M8[s]").dtype == np.dtype("<M8[s]")
        assert buffer.read_plain(16, "<M8[ms]").dtype == np.dtype("<M8[ms]")
        plain = np.dtype([("a", "<u4"), ("b", "<u4")])
        titled = np.dtype([(("title", "a"), "<u4"), ("b", "<u4")])
        tagged = np.dtype([("a", "<u4"), ("b", "<u4")], metadata={"unit": "m"})
        for dtype in (plain, titled, tagged):
            assert buffer.read_plain(16, dtype)["b"] == int.from_bytes(eight[4:], "little")
        assert buffer.read_plain(16, titled)["title"] == int.from_bytes(eight[:4], "little")
        # numpy's own rule of which scalars come out of native and swapped dtypes
        assert type(buffer.read_plain(16, "u4")) is np.uint32


def test_python_values_take_numpys_dtypes(noise):
    """Without a dtype, Python numbers are written as numpy would store them."""
    buffer, _ = noise
    for value in (5, -1, 2.5, True, 1j, b"abc", "text", [1, 2, 3], (1.5, 2), [[1], [2]]):
        raw = np.asarray(value).tobytes()
        buffer.fill_at(0, 0xCC, P)
        buffer.write_plain(3, value)
        assert buffer.read_at(3, len(raw) + 1) == raw + b"\xcc"


def test_values_take_the_dtype_asked_for(noise):
    """With a dtype, values are converted as numpy does it."""
    buffer, _ = noise
    buffer.write_plain(1, [1, 2, 3], ">u2")
    assert buffer.read_at(1, 6) == b"\0\1\0\2\0\3"
    buffer.write_plain(1, (1, 2, 3, 4), SHORT)
    assert buffer.read_plain(1, SHORT).item() == (1, 2, 3, 4.0)
    buffer.write_plain(1, "2000-01-01", "<M8[D]")
    assert buffer.read_plain(1, "<M8[D]") == np.datetime64("2000-01-01")
    with pytest.raises(OverflowError):
        buffer.write_plain(0, 300, "u1")


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12).reshape(3, 4).T, np.arange(12)[::3], np.arange(12)[::-1],
        np.broadcast_to(np.float32(2), (2, 2)), np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.ma.array([1, 2, 3]), np.arange(6, dtype=">i2").reshape(2, 3)[:, 1],
        np.array(["2020-01-01", "2020-02-01"], "M8[s]")[::-1],
    ],
    ids=range(8),
)  # fmt: skip
def test_arrays_of_any_layout_are_written_in_c_order(array, noise):
    """Arrays that are not C-contiguous are written as their C-ordered bytes."""
    buffer, _ = noise
    buffer.write_plain(9, array)
    assert buffer.read_at(9, array.nbytes) == np.asarray(array).tobytes()


@pytest.mark.parametrize("shape", [-1, (2, -3), 1.0, "3", None, (1, None), (2.0,)])
def test_bad_shapes(shape, noise):
    """Shapes that are negative or no integers are refused."""
    with pytest.raises((TypeError, ValueError)):
        noise[0].read_plain(0, "u1", shape)


@pytest.mark.parametrize("nbytes", [1, 2, 4, 8])
def test_one_load_one_store(nbytes, noise):
    """Aligned values of 1, 2, 4 and 8 bytes are never seen half-written by another thread."""
    import threading

    buffer, _ = noise
    dtype = f"u{nbytes}"
    values = [0, (1 << 8 * nbytes) - 1]
    buffer.write_plain(64, values[0], dtype)
    stop = threading.Event()

    def write() -> None:
        scalars = [np.array(value, dtype)[()] for value in values]
        while not stop.is_set():
            for scalar in scalars:
                buffer.write_plain(64, scalar)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        seen = {int(buffer.read_plain(64, dtype)) for _ in range(20_000)}
    finally:
        stop.set()
        thread.join()
    assert seen <= set(values)


def test_errors_carry_the_offset(noise):
    """Scalars and arrays past the end, or into a hole, are the errors of any read."""
    buffer, _ = noise
    with pytest.raises(OutOfBoundsError):
        buffer.read_plain(4 * P - 7, "u8")
    with pytest.raises(OutOfBoundsError):
        buffer.write_plain(4 * P - 7, np.uint64(0))
    buffer.unmap(P, P)
    for dtype in ("u8", SHORT, "V300"):
        with pytest.raises(AccessError) as caught:
            buffer.read_plain(P - 1, dtype)
        assert caught.value.offset == P
        with pytest.raises(AccessError) as caught:
            buffer.write_plain(P - 1, np.zeros((), dtype))
        assert caught.value.offset == P
