"""`SparseArray`: indexing as numpy's, and memory that follows what is written."""

import copy
import gc
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import sparsearray
from sparsearray import ClosedError, SparseArray, SparseBuffer

P = mmap.PAGESIZE
DTYPES = ["u1", "<i4", ">f8", "c8", "?", "S3", "U2", "M8[s]", [("a", "i2"), ("b", ">f4", (2,))]]


def fresh(shape: Any, dtype: Any, seed: int = 0) -> tuple[SparseArray, np.ndarray]:
    """Make an array with all items written, and the same as an ndarray."""
    dtype = np.dtype(dtype)
    dense = np.zeros(shape, dtype)
    raw = np.random.default_rng(seed).integers(0, 100, dense.nbytes, "u1")
    if dtype.kind in "fcU?":
        dense[...] = (np.arange(dense.size).reshape(dense.shape) % 7).astype(dtype)
    elif dense.nbytes:
        dense = (
            raw.view(dtype).reshape(dense.shape).copy() if dense.ndim else raw.view(dtype)[0].copy()
        )
        dense = np.asarray(dense)
    array = sparsearray.zeros(shape, dtype)
    array[...] = dense
    return array, dense


def outcome(call: Any) -> Any:
    """What a call returns, or the type of what it raises."""
    try:
        return call()
    except (IndexError, ValueError, TypeError, OverflowError) as error:
        return type(error)


def agree(found: Any, expected: Any) -> None:
    """Compare results of indexing."""
    if isinstance(expected, type) and issubclass(expected, Exception):
        assert isinstance(found, type), (found, expected)
        assert issubclass(found, expected) or issubclass(expected, found)
        return
    assert type(found) is type(expected), (found, expected)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
dtypes = st.sampled_from(DTYPES)


def keys(shape: tuple[int, ...], data: st.DataObject) -> Any:
    """Draw an index of any kind, right or wrong."""
    kind = data.draw(st.sampled_from(["basic", "advanced", "mask", "mixed", "wrong", "field"]))
    if kind == "basic":
        return data.draw(hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))
    if kind == "advanced" and shape and all(shape):
        return data.draw(hnp.integer_array_indices(shape))
    if kind == "mask":
        return data.draw(hnp.arrays(bool, shape))
    if kind == "mixed" and shape and all(shape):
        first = data.draw(st.lists(st.integers(0, shape[0] - 1), min_size=1, max_size=3))
        return (first, ...)
    if kind == "field":
        return data.draw(st.sampled_from(["a", "b", ["a"], ["b", "a"], "no"]))
    return data.draw(
        st.sampled_from(
            [99, (0,) * 6, 1.5, None, True, np.int8(0), np.array(0), (..., ...), slice(9, 2, -2)]
        )
    )


@given(shapes, dtypes, st.data())
@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
def test_getitem(shape: tuple[int, ...], dtype: Any, data: st.DataObject) -> None:
    """Any index gives what it gives in numpy: type, shape, dtype and items."""
    array, dense = fresh(shape, dtype)
    key = keys(shape, data)
    agree(outcome(lambda: array[key]), outcome(lambda: dense[key]))


@given(shapes, dtypes, st.data())
@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
def test_setitem(shape: tuple[int, ...], dtype: Any, data: st.DataObject) -> None:
    """Any assignment does what it does in numpy, errors included."""
    array, dense = fresh(shape, dtype)
    key = keys(shape, data)
    selected = outcome(lambda: np.array(dense[key]))
    values = [0, 1, -1, 0.0, 2.5, b"x", "y", None, (1, (2, 3)), [1], [[1, 2]], np.int64(0)]
    if isinstance(selected, np.ndarray):
        values += [selected[::-1].copy() if selected.ndim else selected, np.zeros_like(selected)]
    value = data.draw(st.sampled_from(range(len(values))).map(values.__getitem__))
    with np.errstate(all="ignore"):
        one = outcome(lambda: dense.__setitem__(key, value))
        two = outcome(lambda: array.__setitem__(key, value))
    assert (one is None) == (two is None), (one, two)
    assert np.asarray(array).tobytes() == dense.tobytes()


@pytest.mark.usefixtures("told_pages")
@given(st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_zero_and_discard(data: st.DataObject) -> None:
    """Setting to zero by a basic index leaves the rest, and gives whole pages back."""
    shape = data.draw(st.sampled_from([(20_000,), (40, 3000), (5, 6, 7000), (3000, 40)]))
    dense = np.arange(1, np.prod(shape) + 1, dtype="i4").reshape(shape)
    array = sparsearray.zeros(shape, "i4")
    array[...] = dense
    window = array[...]
    for _ in range(data.draw(st.integers(1, 3))):
        key = data.draw(hnp.basic_indices(shape, allow_ellipsis=True))
        if data.draw(st.booleans()):
            array.discard(key)
        else:
            array[key] = 0
        dense[key] = 0
    np.testing.assert_array_equal(window, dense)
    array.trim()
    np.testing.assert_array_equal(window, dense)
    pages = np.zeros(-(-dense.nbytes // P) * P, "u1")
    pages[: dense.nbytes] = dense.reshape(-1).view("u1")
    assert array.buffer.nbytes_stored == P * int(pages.reshape(-1, P).any(axis=1).sum())


def test_windows_are_windows() -> None:
    """Basic indices share memory; scalars and copies do not."""
    array = sparsearray.zeros((100, 100))
    row = array[3]
    assert type(row) is np.ndarray
    row[5] = 7
    assert array[3, 5] == 7
    assert type(array[3, 5]) is np.float64
    copied = array[[3], [5]]
    copied[0] = 0
    assert array[3, 5] == 7
    record = sparsearray.zeros(3, [("a", "i4")])
    record[1]["a"] = 5
    assert record["a"].tolist() == [0, 5, 0]


def test_windows_pin_what_they_show() -> None:
    """And nothing else: the rest can go."""
    array = sparsearray.zeros(8 * P, "u1", maxshape=(16 * P,))
    window = array[:10]
    array.resize(P)
    with pytest.raises(BufferError, match="1 live window"):
        array.resize(0)
    assert array.shape == (P,)
    window[0] = 9
    assert array[0] == 9


@pytest.mark.parametrize("dtype", [object, [("a", "O")], "O"])
def test_objects_are_refused(dtype: Any) -> None:
    """They cannot live in mapped memory."""
    with pytest.raises(TypeError, match="objects"):
        sparsearray.zeros(3, dtype)


@pytest.mark.parametrize("shape", [-1, (2, -3), (1 << 62, 4), (1 << 40, 1 << 40), (0, -1)])
def test_bad_shapes(shape: Any) -> None:
    """Negative, or larger than any address space."""
    with pytest.raises(ValueError, match=r"negative|address space"):
        sparsearray.zeros(shape)


def test_more_than_there_are_addresses_for() -> None:
    """Is a MemoryError, as of numpy."""
    with pytest.raises(MemoryError):
        sparsearray.zeros(1 << 60, "u1")


@pytest.mark.usefixtures("told_pages")
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), 5, [2, 3], np.int64(4)])
def test_shapes(shape: Any) -> None:
    """As numpy takes them."""
    array, dense = sparsearray.zeros(shape, "i4"), np.zeros(shape, "i4")
    for name in ("shape", "dtype", "ndim", "size", "itemsize", "nbytes"):
        assert getattr(array, name) == getattr(dense, name)
    assert array.nbytes_stored == 0
    np.testing.assert_array_equal(np.asarray(array), dense)


def test_growth() -> None:
    """In place: live windows stay valid, and never move; what is new is zero."""
    array = sparsearray.zeros((0, 1000), "f4", maxshape=(None, 1000))
    expected = np.zeros((0, 1000), "f4")
    address = array.buffer.address
    windows = []
    for i in range(1, 30):
        rows = np.full((i % 5, 1000), i, "f4")
        array.append(rows)
        expected = np.concatenate([expected, rows])
        windows.append((array[...], expected))
    assert array.buffer.address == address
    for window, content in windows:
        np.testing.assert_array_equal(window, content)
    del window, windows
    gc.collect()
    array.resize((3, 1000))
    array.resize((9, 1000))
    expected = np.concatenate([expected[:3], np.zeros((6, 1000), "f4")])
    np.testing.assert_array_equal(array[...], expected)


def test_growth_has_its_limits() -> None:
    """`maxshape`, the first axis, and rows that fit."""
    array = sparsearray.zeros((2, 3), maxshape=(4, 3))
    for shape, what in (
        ((5, 3), "maxshape"),
        ((2, 4), "first axis"),
        (2, "first axis"),
        ((-1, 3), "neg"),
    ):
        with pytest.raises(ValueError, match=what):
            array.resize(shape)
    with pytest.raises(ValueError, match="do not fit"):
        array.append([1, 2, 3])
    with pytest.raises(ValueError, match="maxshape"):
        array.append(np.ones((3, 3)))
    assert array.shape == (2, 3)
    with pytest.raises(ValueError, match="could not convert"):
        array.append([["a", "b", "c"]])
    assert array.shape == (2, 3)
    for bad in ((1, 3), (4, 4), (4,), (None, None)):
        with pytest.raises((ValueError, TypeError)):
            sparsearray.zeros((2, 3), maxshape=bad)
    with pytest.raises(ValueError, match="first axis"):
        sparsearray.zeros(()).resize(())


@pytest.mark.usefixtures("told_pages")
def test_copies() -> None:
    """Are in memory of their own, and as sparse."""
    array = sparsearray.zeros((1 << 20, 1 << 17))
    array[5, 7] = 3
    for made in (array.copy(), copy.copy(array), copy.deepcopy(array), np.copy(array)):
        assert made[5, 7] == 3
        assert made.nbytes_stored == P
        made[5, 7] = 4
        assert array[5, 7] == 3


@pytest.mark.usefixtures("told_pages")
def test_assigning_a_sparse_array() -> None:
    """Copies what it holds and leaves its holes."""
    source = sparsearray.zeros((1 << 20, 1 << 10))
    source[3, 4] = 5
    target = sparsearray.zeros((1 << 20, 1 << 12))
    target[3, 100] = target[1 << 19, 0] = target[0, 2000] = 1
    target[:, : 1 << 10] = source
    assert target[3, 4] == 5
    assert target[3, 100] == target[1 << 19, 0] == 0
    assert target[0, 2000] == 1
    assert target.nbytes_stored <= 3 * P
    target[1:, :] = target[:-1, :].copy() if False else sparsearray.zeros(((1 << 20) - 1, 1 << 12))
    assert target[0, 2000] == 1
    assert target[3, 4] == 0


def test_sparse_masks() -> None:
    """A comparison can be an index."""
    array, dense = fresh((30, 40), "i4")
    np.testing.assert_array_equal(array[array > 50], dense[dense > 50])
    array[array > 50] = 0
    dense[dense > 50] = 0
    np.testing.assert_array_equal(array[...], dense)


@pytest.mark.usefixtures("told_pages")
def test_dense_copies_have_to_fit() -> None:
    """`np.asarray` is a window; a copy of a terabyte is refused with a word about it."""
    array = sparsearray.zeros(1 << 37)
    assert np.shares_memory(np.asarray(array), array[...])
    with pytest.raises(MemoryError, match=r"dense copy.*1 TiB|Unable to allocate 1.00 TiB"):
        np.array(array)
    with pytest.raises(MemoryError):
        np.asarray(array, "f4")
    with pytest.raises(ValueError, match="copy"):
        np.asarray(array, "f4", copy=False)
    small, dense = fresh(10, "i4")
    np.testing.assert_array_equal(np.array(small, "f8"), dense.astype("f8"))


@pytest.mark.usefixtures("told_pages")
def test_python_numbers() -> None:
    """Of one item, as numpy."""
    one = sparsearray.zeros((1, 1), "i8")
    one[...] = 3
    scalar = sparsearray.zeros((), "i8")
    scalar[...] = 4
    assert (bool(one), int(scalar), float(scalar), complex(scalar)) == (True, 4, 4.0, 4 + 0j)
    assert range(10)[scalar] == 4
    assert (one.item(), one.item(0)) == (3, 3)
    with pytest.raises(ValueError, match="ambiguous"):
        bool(sparsearray.zeros(2))
    assert len(one) == 1
    for call in (len, iter):
        with pytest.raises(TypeError):
            call(scalar)
    assert [row.tolist() for row in one] == [[3]]
    assert 3 in one
    assert 0 not in one
    assert 0 in sparsearray.zeros(1 << 40)
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)


@pytest.mark.usefixtures("told_pages")
def test_over_a_buffer_of_the_users() -> None:
    """An array can show what is mapped, at any byte, and does not own it."""
    with SparseBuffer(4 * P) as buffer:
        buffer.alloc(0, 4 * P)
        array = SparseArray(buffer, (10, 10), ">i2", offset=P - 101)
        array[3, 4] = 77
        assert buffer.read_plain(P - 101 + 2 * 34, ">i2") == 77
        assert array.extents().tolist() == [[0, 101]]
        with pytest.raises(ValueError, match="not its own"):
            array.resize((5, 10))
        array.close()
        assert not array.closed
        with pytest.raises(IndexError):
            SparseArray(buffer, 4 * P + 1, "u1")
        fortran = SparseArray(buffer, (3, 4), "i4", order="F")
        fortran[1, 2] = 5
        assert buffer.read_plain((2 * 3 + 1) * 4, "i4") == 5
        del array, fortran


def test_life() -> None:
    """`with`, closed, not resurrected."""
    with sparsearray.zeros(10) as array:
        assert not array.closed
        window = array[:3]
        with pytest.raises(BufferError):
            array.close()
        del window
    assert array.closed
    for call in (lambda: array[0], lambda: array[...], lambda: array.extents(), array.copy):
        with pytest.raises(ClosedError):
            call()
    assert "closed" in repr(array)
    with pytest.raises(ValueError, match="boom"), sparsearray.zeros(10) as array:
        window = array[...]
        raise ValueError("boom")
    assert window.sum() == 0


def test_functions_that_are_not_made() -> None:
    """Say what to do instead."""
    array = sparsearray.zeros(10)
    for call in (lambda: np.cumsum(array), lambda: np.sort(array), lambda: np.fft.fft(array)):
        with pytest.raises(TypeError, match=r"np\.[\w.]+ is not made for a SparseArray; on a part"):
            call()


@pytest.mark.usefixtures("told_pages")
def test_trim_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """Needs tqdm, and says so."""
    array = sparsearray.zeros(1 << 20)
    array[...] = 1
    array[...][1000:] = 0
    monkeypatch.setitem(__import__("sys").modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match="pip install"):
        array.trim(progress=True)
    assert array.trim() == (8 << 20) - 2 * P
    assert array.nbytes_stored == 2 * P


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_shrinking_under_a_window(kind: str, tmp_path: Path) -> None:
    """Rows that a window shows do not go, even where no whole page would; others do."""
    if kind == "memory":
        array = sparsearray.zeros((2000, 4), maxshape=(None, 4))
    else:
        array = sparsearray.open(tmp_path / "a.npy", "w+", shape=(2000, 4), maxshape=(None, 4))
    array[...] = 1
    window, kept = array[1990:], array[1988]
    with pytest.raises(BufferError, match="1 live window"):
        array.resize((1991, 4))
    assert array.shape == (2000, 4)
    assert window.all()
    del window
    array.resize((1989, 4))
    array.resize((2000, 4))
    assert kept.all()
    assert array.sum() == 1989 * 4


def test_refresh(tmp_path: Path, linux_core: bool) -> None:
    """What others write into holes is seen after it."""
    path = tmp_path / "a.npy"
    with sparsearray.open(path, "w+", shape=1 << 20) as writer, sparsearray.open(path) as reader:
        assert reader.sum() == 0
        writer[9999] = 5
        found = reader.refresh()
        assert (reader[9999], reader.sum()) == (5, 5)
        assert found > 0 or not linux_core


def test_what_an_array_has_not() -> None:
    """Attributes of ndarrays say what to do; others are missing as anywhere."""
    array = sparsearray.zeros((3, 4))
    with pytest.raises(AttributeError, match=r"a\[index\]\.ravel"):
        array.ravel()
    with pytest.raises(AttributeError, match="object has no attribute 'rvael'"):
        array.rvael()
    assert not hasattr(array, "__array_interface__")
    array[1, 2] = 2.25
    np.testing.assert_array_equal(array.round()[...], array[...].round())
    np.testing.assert_array_equal(array.clip(-1, 2)[...], array[...].clip(-1, 2))
    assert array.real.sum() == 2.25
    assert array.imag.sum() == 0


def test_sparse_masks_have_to_fit() -> None:
    """As dense ones."""
    array, dense = sparsearray.zeros((10, 20, 5)), np.zeros((10, 20, 5))
    for shape in (
        (10,),
        (20,),
        (10, 20),
        (20, 5),
        (5,),
        (11,),
        (10, 21),
        (10, 20, 5),
        (3, 3, 3, 3),
    ):
        mask, plain = sparsearray.zeros(shape, bool), np.zeros(shape, bool)
        mask[(2,) * len(shape)] = plain[(2,) * len(shape)] = True
        for before in ((), (slice(3),), (Ellipsis,), (None,), (0, slice(2))):
            try:
                expected = dense[(*before, plain)].shape
            except IndexError:
                with pytest.raises(IndexError):
                    array[(*before, mask)]
                with pytest.raises(IndexError):
                    array[(*before, mask)] = 9
            else:
                assert array[(*before, mask)].shape == expected
    assert array.sum() == 0


def test_lengths_of_numpy_integers() -> None:
    """They are lengths as any other."""
    array = sparsearray.zeros(np.int64(3), maxshape=np.int64(5))
    array.resize(np.int32(5))
    assert np.zeros_like(array, shape=np.int64(7)).shape == (7,)


@pytest.mark.parametrize("kind", ["memory", "file"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("rows", [3, 5000])
def test_interrupts_when_the_shape_is_set(
    kind: str, when: str, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt leaves the old array or the new one, and nothing of an undone append."""
    path = tmp_path / "a.npy"
    if kind == "memory":
        array = sparsearray.zeros((5, 10), maxshape=(None, 10))
    else:
        array = sparsearray.open(path, "w+", shape=(5, 10), maxshape=(None, 10))
    array[...] = 1
    original, calls = SparseArray._set_shape, []

    def set_shape(self: SparseArray, shape: tuple[int, ...], dtype: Any = None) -> None:
        calls.append(shape)
        if when == "after":
            original(self, shape, dtype)
        if len(calls) == 1:
            raise KeyboardInterrupt
        if when == "before":
            original(self, shape, dtype)

    monkeypatch.setattr(SparseArray, "_set_shape", set_shape)
    with pytest.raises(KeyboardInterrupt):
        array.append(np.full((rows, 10), 7))
    monkeypatch.undo()
    done = when == "after"
    assert array.shape == (5 + rows * done, 10)
    array.append(sparsearray.zeros((rows, 10)))
    assert array.sum() == 50 + 70 * rows * done
    calls.clear()
    monkeypatch.setattr(SparseArray, "_set_shape", set_shape)
    length = array.shape[0]
    with pytest.raises(KeyboardInterrupt):
        array.resize((2, 10))
    monkeypatch.undo()
    assert array.shape[0] in (2, length)
    array.resize((2, 10))
    array.resize((length, 10))
    assert array.sum() == 20
    if kind == "file":
        np.testing.assert_array_equal(np.load(path), array[...])


def test_items_that_are_arrays() -> None:
    """`in` compares as numpy does, as far as holes stay holes."""
    array, dense = sparsearray.zeros((3, 2)), np.zeros((3, 2))
    array[1] = dense[1] = 4, 5
    for item in ([4, 9], [9, 9], [[4], [4], [9]], 5, 0, 7):
        assert (item in array) == (item in dense)
    with pytest.raises(TypeError, match="would fill the holes"):
        [4, 0] in array  # noqa: B015 - it raises
