"""gather and scatter: many records in one call, as numpy would on a dense copy."""

import mmap

import numpy as np
import pytest

from sparsearray import AccessError, OutOfBoundsError, SparseBuffer

P = mmap.PAGESIZE
PAGES = 12
DTYPES = [
    "u1", "<u2", ">u2", "<u4", "<f4", "<u8", ">f8", "<c16", "?", "<M8[s]", ">m8[ns]", "S3",
    "<U2", "V1", "V5", "V100", "V5000", "g",
    np.dtype([("a", "u1"), ("b", "<u4"), ("c", ">i2")]),
    np.dtype([("a", "<u4"), ("b", [("x", "<f8", (2, 2)), ("y", ">M8[ns]")])]),
    np.dtype([("a", "u1"), ("b", "<u8")], align=True),
]  # fmt: skip
IDS = [f"{i}-{dtype if isinstance(dtype, str) else 'record'}" for i, dtype in enumerate(DTYPES)]


@pytest.fixture
def dense(make_file, pattern):
    """Make a buffer of regions of every kind, and a dense copy of its bytes."""
    path, data = make_file(PAGES * P)
    with SparseBuffer(PAGES * P) as buffer:
        buffer.alloc(0, 3 * P)
        buffer.write_at(0, pattern(3 * P, 7))
        buffer.map_file(3 * P, 2 * P, path, 3 * P)
        buffer.map_zero(5 * P, P)
        buffer.map_file(6 * P, 2 * P, path, 6 * P, copy_on_write=True)
        buffer.alloc(8 * P, P)
        buffer.map_file(9 * P, 3 * P, path, 5 * P, writable=True)
        whole = pattern(3 * P, 7) + data[3 * P : 5 * P] + bytes(P) + data[6 * P : 8 * P]
        whole += bytes(P) + data[5 * P : 8 * P]
        yield buffer, np.frombuffer(whole, "u1").copy()


def numpy_gather(whole, offsets, dtype):
    """Read records from a dense array with numpy's own indexing."""
    dtype = np.dtype(dtype)
    offsets = np.asarray(offsets)
    index = offsets[..., None] + np.arange(dtype.itemsize)
    raw = whole[index].tobytes()
    return np.ndarray(offsets.shape, dtype, raw or b"\0")


def equal(found, expected) -> bool:
    """Whether two arrays have the same dtype, shape and bytes."""
    return (
        found.dtype == expected.dtype
        and found.shape == expected.shape
        and found.tobytes() == expected.tobytes()
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=IDS)
def test_gathers_as_numpy_does(dtype, dense):
    """Records at random bytes, many of them across regions, are those of the dense copy."""
    buffer, whole = dense
    rng = np.random.default_rng(3)
    last = len(whole) - np.dtype(dtype).itemsize
    offsets = rng.integers(0, last + 1, 3000)
    offsets[:PAGES] = np.minimum(np.arange(PAGES) * P - 1, last) % len(whole) % (last + 1)
    found = buffer.gather(offsets, dtype)
    assert type(found) is np.ndarray
    assert found.flags.owndata or found.base is None
    assert equal(found, numpy_gather(whole, offsets, dtype))


@pytest.mark.parametrize("dtype", ["S0", "U0"])
def test_text_of_no_length(dtype, dense):
    """Text of no length is empty, for records and arrays alike, not what memory happened to hold."""
    buffer, _ = dense
    marks = [np.full(3000, 255, "u1") for _ in range(20)]
    del marks
    assert set(buffer.gather(np.arange(3000), dtype).tolist()) <= {b"", ""}
    assert set(buffer.read_plain(0, dtype, 3000).tolist()) <= {b"", ""}


@pytest.mark.parametrize("dtype", ["u1", "<u2", "<u4", "<u8", "V16", "V24"])
@pytest.mark.parametrize("order", ["sorted", "backwards", "random", "same"])
def test_long_gathers(dtype, order, dense):
    """A hundred thousand records in any order are those of the dense copy."""
    buffer, whole = dense
    offsets = np.random.default_rng(4).integers(0, len(whole) - 24, 100_000)
    if order in {"sorted", "backwards"}:
        offsets = np.sort(offsets)[:: 1 if order == "sorted" else -1]
    if order == "same":
        offsets[:] = 4 * P - 3
    assert equal(buffer.gather(offsets, dtype), numpy_gather(whole, offsets, dtype))


@pytest.mark.parametrize(
    "shape", [(), (0,), (1,), (7,), (3, 4), (2, 0, 3), (2, 3, 4), (1, 1, 1, 1)]
)
@pytest.mark.parametrize("dtype", ["<u4", "V16", "V7"])
def test_result_has_the_shape_of_the_offsets(shape, dtype, dense):
    """Offsets may have any shape, none and empty ones included."""
    buffer, whole = dense
    offsets = np.random.default_rng(5).integers(0, len(whole) - 16, shape)
    assert equal(buffer.gather(offsets, dtype), numpy_gather(whole, offsets, dtype))


@pytest.mark.parametrize(
    "kind", ["i1", "u1", "i2", ">u2", "i4", ">i4", "u4", "i8", ">i8", "u8", ">u8"]
)
def test_offsets_of_any_integer_type(kind, dense):
    """Offsets may be of any integer type and byte order."""
    buffer, whole = dense
    offsets = np.array([0, 1, 99, 127, 5], kind)
    assert equal(buffer.gather(offsets, "<u4"), numpy_gather(whole, offsets.astype(int), "<u4"))


@pytest.mark.parametrize(
    "make",
    [
        "list(range(10))", "tuple(range(10))", "range(10)", "np.arange(20)[::2]", "np.arange(10)[::-1]",
        "np.arange(12).reshape(3, 4).T", "np.broadcast_to(5, (2, 3))", "[[1, 2], [3, 4]]", "7",
        "np.int32(7)", "np.array(7)", "np.asfortranarray(np.arange(6).reshape(2, 3))",
    ],
)  # fmt: skip
def test_offsets_of_any_layout(make, dense):
    """Offsets may be lists, ranges, single ints and arrays of any layout."""
    buffer, whole = dense
    offsets = eval(make)  # noqa: S307 - of the list above
    found = buffer.gather(offsets, "<u2")
    assert equal(np.asarray(found), numpy_gather(whole, np.asarray(offsets), "<u2"))


@pytest.mark.parametrize(
    "empty", ["[]", "()", "np.array([], int)", "np.zeros((0, 3), 'u4')", "[[], []]"]
)
def test_no_offsets(empty, dense):
    """No offsets give no records."""
    buffer, whole = dense
    offsets = eval(empty)  # noqa: S307 - of the list above
    assert buffer.gather(offsets, "<u4").shape == np.asarray(offsets).shape
    buffer.scatter(offsets, np.uint32(5))
    assert buffer.read_at(0, len(whole)) == whole.tobytes()


def test_subarray_dtype(dense):
    """A sub-array dtype adds its shape."""
    buffer, whole = dense
    found = buffer.gather([3, P], np.dtype(("<u2", (2, 2))))
    assert found.shape == (2, 2, 2)
    assert found.tobytes() == whole[3:11].tobytes() + whole[P : P + 8].tobytes()


@pytest.mark.parametrize(
    "offsets",
    [[1.0], np.array([1.5]), ["1"], [None], [b"1"], [1 + 0j], [True], np.array([], float), 2.0],
)
def test_offsets_are_integers(offsets, dense):
    """Offsets of any other type, floats and bools among them, are TypeErrors."""
    buffer, whole = dense
    with pytest.raises(TypeError):
        buffer.gather(offsets, "u1")
    with pytest.raises(TypeError):
        buffer.scatter(offsets, np.uint8(1))
    assert buffer.read_at(0, len(whole)) == whole.tobytes()


@pytest.mark.parametrize("bad", [-1, -P, -(1 << 63)])
def test_negative_offsets(bad, dense):
    """A negative offset is a ValueError, not the other end of the buffer, wherever it stands."""
    buffer, whole = dense
    for offsets in ([bad], [0, bad], [bad, 0], [*range(5000), bad]):
        with pytest.raises(ValueError, match="negative") as caught:
            buffer.gather(offsets, "<u4")
        assert str(bad) in str(caught.value)
        with pytest.raises(ValueError, match="negative"):
            buffer.scatter(offsets, np.uint32(9))
    assert buffer.read_at(0, len(whole)) == whole.tobytes()


@pytest.mark.parametrize(
    "bad",
    [
        PAGES * P,
        PAGES * P - 3,
        1 << 40,
        (1 << 63) - 1,
        (1 << 63) - 4,
        1 << 63,
        (1 << 64) - 1,
        1 << 64,
    ],
)
def test_offsets_past_the_end(bad, dense):
    """An offset past the end is an OutOfBoundsError that tells it, and nothing is written."""
    buffer, whole = dense
    for offsets in ([bad], [0, bad, 5]):
        with pytest.raises(OutOfBoundsError) as caught:
            buffer.gather(offsets, "<u4")
        assert f"{bad:#x} ({bad})" in str(caught.value)
        with pytest.raises(OutOfBoundsError):
            buffer.scatter(offsets, np.uint32(9))
    assert buffer.read_at(0, len(whole)) == whole.tobytes()


@pytest.mark.parametrize("at", [0, 1, 5, 4999, 9999])
def test_first_bad_record_is_told(at, dense):
    """Of several offsets into a hole the first in the order asked for is told."""
    buffer, whole = dense
    buffer.unmap(P, P)
    offsets = np.random.default_rng(6).integers(2 * P, len(whole) - 8, 10_000)
    offsets[at] = P - 2
    offsets[at + 1 :: 7] = P + 100
    with pytest.raises(AccessError) as caught:
        buffer.gather(offsets, "<u8")
    assert (caught.value.reason, caught.value.operation) == ("unmapped", "read")
    assert (caught.value.offset, caught.value.transferred) == (P, 0)
    assert f"{P - 2:#x} ({P - 2})" in str(caught.value)


def test_unaligned_hole_within_a_record(dense):
    """A record that begins or ends in a hole is refused at its first bad byte."""
    buffer, _ = dense
    buffer.unmap(P, P)
    for offset, bad in [(P - 1, P), (2 * P - 1, 2 * P - 1), (P + 9, P + 9)]:
        with pytest.raises(AccessError) as caught:
            buffer.gather([0, offset], "V30")
        assert caught.value.offset == bad


# ------------------------------------------------------------------------------ scatter


@pytest.fixture
def writable(make_file):
    """Make a buffer of writable regions of several kinds, and a dense copy of its bytes."""
    path, data = make_file(4 * P)
    with SparseBuffer(PAGES * P) as buffer:
        buffer.alloc(0, 4 * P)
        buffer.map_file(4 * P, 4 * P, path, writable=True)
        buffer.map_file(8 * P, 2 * P, path, copy_on_write=True)
        buffer.alloc(10 * P, 2 * P)
        whole = bytes(4 * P) + data + data[: 2 * P] + bytes(2 * P)
        yield buffer, np.frombuffer(whole, "u1").copy()


@pytest.mark.parametrize("dtype", DTYPES, ids=IDS)
def test_scatters_as_numpy_does(dtype, writable, pattern):
    """Records at random bytes, across regions and over each other, lie as a loop would put them."""
    buffer, whole = writable
    dtype = np.dtype(dtype)
    count = 1500
    rng = np.random.default_rng(8)
    offsets = rng.integers(0, len(whole) - dtype.itemsize + 1, count)
    values = np.ndarray(count, dtype, bytearray(pattern(count * dtype.itemsize, 9) or b"\0"))
    padded = dtype.names is not None and dtype.itemsize != sum(
        dtype[name].itemsize for name in dtype.names
    )
    if padded:
        values = np.zeros(count, dtype)  # numpy promises nothing of padding
    raw = values.tobytes()
    buffer.scatter(offsets, values)
    for i, at in enumerate(offsets):
        record = raw[i * dtype.itemsize : (i + 1) * dtype.itemsize]
        whole[at : at + dtype.itemsize] = np.frombuffer(record, "u1")
    assert buffer.read_at(0, len(whole)) == whole.tobytes()


@pytest.mark.parametrize("nbytes", [1, 2, 4, 8, 16, 24])
def test_last_of_equal_offsets_wins(nbytes, writable):
    """Of many records at one place the last is there afterwards."""
    buffer, _ = writable
    count = 20_000
    values = np.arange(count, dtype="<u4").view("u1").reshape(count, 4)
    wide = np.zeros((count, max(nbytes, 4)), "u1")
    wide[:, :4] = values
    records = np.ascontiguousarray(wide[:, :nbytes]).view(f"V{nbytes}").reshape(count)
    for at in (3, 4 * P - 1, 6 * P, 8 * P + 1):
        buffer.scatter(np.full(count, at), records)
        assert buffer.read_at(at, nbytes) == records[-1].tobytes()


@pytest.mark.parametrize(
    ("shape", "values"),
    [((4,), (1,)), ((4,), ()), ((2, 3), (3,)), ((2, 3), (2, 1)), ((1,), (1,)), ((), ())],
)
def test_values_are_broadcast(shape, values, writable):
    """Values are broadcast to the shape of the offsets, as numpy does."""
    buffer, whole = writable
    offsets = (np.arange(np.prod(shape, dtype=int)) * 100 + 7).reshape(shape)
    array = np.arange(np.prod(values, dtype=int), dtype="<u4").reshape(values) + 1000
    buffer.scatter(offsets, array)
    full = np.broadcast_to(array, shape)
    for at, value in zip(offsets.ravel(), full.ravel(), strict=True):
        whole[at : at + 4] = np.frombuffer(value.tobytes(), "u1")
    assert buffer.read_at(0, len(whole)) == whole.tobytes()


@pytest.mark.parametrize(
    ("shape", "values"), [((4,), (3,)), ((), (2,)), ((2, 3), (2,)), ((3,), (1, 3))]
)
def test_values_that_do_not_broadcast(shape, values, writable):
    """Values of a shape that does not broadcast to the offsets' are a ValueError."""
    buffer, whole = writable
    with pytest.raises(ValueError, match="broadcast|shape|dimensions"):
        buffer.scatter(np.zeros(shape, int), np.zeros(values, "u4"))
    assert buffer.read_at(0, len(whole)) == whole.tobytes()


@pytest.mark.parametrize(
    "values", [np.arange(10, dtype=">u2")[::-1], np.arange(20, dtype="<f4")[::2]]
)
def test_values_of_any_layout(values, writable):
    """Values may be strided and of any byte order; they are written as they are."""
    buffer, _ = writable
    offsets = np.arange(10) * 33
    buffer.scatter(offsets, values)
    assert equal(buffer.gather(offsets, values.dtype), np.ascontiguousarray(values))


@pytest.mark.parametrize("at", [0, 7, 8999])
def test_bad_offset_is_found_before_the_first_write(at, writable):
    """All offsets are checked before anything is written: holes, read-only pages, the end."""
    buffer, whole = writable
    buffer.unmap(11 * P, P)
    buffer.set_writable(10 * P, P, False)
    for bad, reason in [(11 * P + 5, "unmapped"), (10 * P, "read-only"), (10 * P - 2, "read-only")]:
        offsets = np.random.default_rng(2).integers(0, 10 * P - 8, 9000)
        offsets[at] = bad
        with pytest.raises(AccessError) as caught:
            buffer.scatter(offsets, np.uint32(0xFFFFFFFF))
        assert (caught.value.reason, caught.value.operation) == (reason, "write")
        assert caught.value.offset == max(bad, 10 * P)
        assert caught.value.transferred == 0
        assert buffer.read_at(0, 10 * P) == whole[: 10 * P].tobytes()


def test_gather_is_not_fooled_by_its_own_window(dense):
    """Offsets and values may lie in the buffer itself."""
    buffer, _ = dense
    places = buffer.window(8 * P, 100, "<i8")
    places[:] = np.arange(100)
    buffer.scatter(places, places)
    expected = buffer.read_at(0, 107)
    assert buffer.gather(places, "u1").tobytes() == expected[:100]
    del places


def test_million_records(dense):
    """More records than one native call takes are all there."""
    buffer, whole = dense
    offsets = np.random.default_rng(1).integers(0, len(whole) - 8, (1 << 20) + 5)
    assert np.array_equal(buffer.gather(offsets, "u1"), whole[offsets])
    offsets[-1] = len(whole)
    with pytest.raises(OutOfBoundsError):
        buffer.gather(offsets, "u1")
