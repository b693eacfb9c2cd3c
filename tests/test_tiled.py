"""`TiledArray`: indexing as numpy's on the dense array, with copies, and tiles that follow what is written."""

import mmap
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import sparsearray
from sparsearray import TiledArray

P = mmap.PAGESIZE
DTYPES = [
    "u1",
    "<i4",
    ">f8",
    "c16",
    "?",
    "S3",
    "U2",
    "M8[s]",
    [("a", "i2"), ("b", ">f4", (2,))],
    "V5",
]
STEPS = [None, 1, 2, 3, -1, -2, 7]

shapes = st.lists(st.integers(0, 13), max_size=3).map(tuple)
dtypes = st.sampled_from(DTYPES).map(np.dtype)


def drawn_items(shape: tuple[int, ...], dtype: np.dtype, seed: int) -> np.ndarray:
    """Make items of any dtype from random bytes that every dtype can hold."""
    raw = np.random.default_rng(seed).integers(0, 3, (*shape, dtype.itemsize), "u1")
    if dtype.kind == "U":
        return np.where(raw[..., 0] > 1, "xy", "").astype(dtype)
    if dtype.kind == "b":
        raw %= 2
    return np.ascontiguousarray(raw).view(dtype).reshape(shape)


@st.composite
def arrays(draw: Any) -> tuple[TiledArray, np.ndarray]:
    """Draw an array of which some boxes are written, and the same as an ndarray."""
    shape, dtype = draw(shapes), draw(dtypes)
    tiles = draw(st.sampled_from(["auto", 1, 4, 16]) | st.tuples(*[st.integers(1, 9)] * len(shape)))
    array, dense = sparsearray.zeros(shape, dtype, tiles=tiles), np.zeros(shape, dtype)
    for seed in range(draw(st.integers(0, 3))):
        box = tuple(
            slice(*sorted((draw(st.integers(0, n)), draw(st.integers(0, n))))) for n in shape
        )
        items = drawn_items(dense[box].shape, dtype, seed)
        array[box] = items
        dense[box] = items
    return array, dense


@st.composite
def keys(draw: Any, shape: tuple[int, ...]) -> Any:
    """Draw an index of any kind, right or wrong."""
    kind = draw(st.sampled_from(["basic", "steps", "arrays", "mask", "mixed", "wrong"]))
    if kind == "basic":
        return draw(hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))
    if kind == "steps":
        ends = st.none() | st.integers(-15, 15)
        return tuple(slice(draw(ends), draw(ends), draw(st.sampled_from(STEPS))) for _ in shape)
    if kind == "arrays" and shape and all(shape):
        return draw(hnp.integer_array_indices(shape))
    if kind == "mask":
        return draw(hnp.arrays(bool, shape))
    if kind == "mixed" and all(shape):
        return draw(mixed_keys(shape))
    wrong = [
        99,
        (0,) * 6,
        1.5,
        None,
        True,
        False,
        np.int8(0),
        np.array(0),
        (..., ...),
        (slice(9, 2, -2),),
    ]
    return draw(
        st.sampled_from(
            [*wrong, [99], [], [0.5], [True], np.zeros((1, 1), bool), (True, None, ...)]
        )
    )


@st.composite
def mixed_keys(draw: Any, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Draw an index with arrays, numbers, slices, new axes and an ellipsis side by side."""
    together = draw(hnp.array_shapes(min_dims=0, max_dims=2, max_side=3))
    parts: list[Any] = []
    for n in shape:
        kind = draw(st.sampled_from(["array", "array", "number", "slice", "mask", "stop"]))
        if kind == "array":
            parts.append(draw(hnp.arrays(np.int64, together, elements=st.integers(-n, n - 1))))
        elif kind == "number":
            parts.append(draw(st.integers(-n, n - 1)))
        elif kind == "mask":
            parts.append(draw(hnp.arrays(bool, n)))
        elif kind == "slice":
            parts.append(slice(None, None, draw(st.sampled_from(STEPS))))
        else:
            break
    for extra in draw(st.lists(st.sampled_from([None, ..., True]), max_size=2, unique_by=repr)):
        parts.insert(draw(st.integers(0, len(parts))), extra)
    return tuple(parts)


def outcome(call: Any) -> Any:
    """What a call returns, or what it raises."""
    try:
        return call()
    except (IndexError, ValueError, TypeError, OverflowError) as error:
        return error


def same(found: Any, expected: Any) -> None:
    """Compare results of indexing: type, dtype, shape and every byte."""
    if isinstance(expected, Exception):
        assert type(found) is type(expected), (found, expected)
        return
    assert type(found) is type(expected), (found, expected)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert np.asarray(found).tobytes() == np.asarray(expected).tobytes()


class TestReading:
    """Indexing."""

    @given(st.data())
    @settings(max_examples=400)
    def test_as_numpy(self, data: st.DataObject) -> None:
        """Any index gives what numpy gives, or fails as it fails."""
        array, dense = data.draw(arrays())
        key = data.draw(keys(dense.shape))
        same(outcome(lambda: array[key]), outcome(lambda: dense[key]))

    @given(st.data())
    @settings(max_examples=200)
    def test_outer(self, data: st.DataObject) -> None:
        """Oindex takes each axis by itself: numpy.ix_ of what each selects."""
        array, dense = data.draw(arrays())
        parts, numbers, dropped = data.draw(outer_keys(dense.shape))
        expected = dense[np.ix_(*numbers)] if numbers else dense.copy()
        same(array.oindex[parts], expected.squeeze(dropped)[()])

    @pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u8"])
    def test_numbers_of_any_dtype(self, dtype: str) -> None:
        """Arrays in an index may be of a dtype that has no room for the length of the axis."""
        dense = np.arange(300 * 40.0).reshape(300, 40)
        array = sparsearray.zeros(dense.shape, tiles=16)
        array[...] = dense
        last = -1 if dtype[0] == "i" else 39
        rows, columns = np.array([1, 100, 50], dtype), np.array([3, 4, last], dtype)
        same(array[rows], dense[rows])
        same(array[rows, columns], dense[rows, columns])
        same(array.oindex[rows, columns], dense[np.ix_(rows, columns)])

    @given(st.data())
    def test_copies(self, data: st.DataObject) -> None:
        """What was read does not follow the array, nor the array what was read."""
        array, dense = data.draw(arrays())
        found = array[...]
        if not dense.size:
            return
        before = dense.tobytes()
        found[...] = drawn_items(dense.shape, dense.dtype, 7)
        assert array[...].tobytes() == before


@st.composite
def outer_keys(draw: Any, shape: tuple[int, ...]) -> Any:
    """Draw an index for oindex, the numbers that each part selects, and the axes that go."""
    parts: list[Any] = []
    numbers: list[Any] = []
    dropped: list[int] = []
    for axis, n in enumerate(shape):
        kind = draw(st.sampled_from(["array", "slice", "mask", "number"]))
        if kind == "number" and n:
            parts.append(draw(st.integers(-n, n - 1)))
            numbers.append([parts[-1] % n])
            dropped.append(axis)
        elif kind == "array" and n:
            parts.append(draw(st.lists(st.integers(-n, n - 1), max_size=6)))
            numbers.append(np.array(parts[-1], int) % n)
        elif kind == "mask":
            parts.append(draw(hnp.arrays(bool, n)))
            numbers.append(np.flatnonzero(parts[-1]))
        else:
            parts.append(slice(None, None, draw(st.sampled_from(STEPS))))
            numbers.append(np.arange(n)[parts[-1]])
    return tuple(parts), numbers, tuple(dropped)


class TestSetting:
    """Assignment."""

    @given(st.data())
    @settings(max_examples=400)
    def test_as_numpy(self, data: st.DataObject) -> None:
        """Setting through any index changes what numpy changes, or fails as it fails and changes nothing."""
        array, dense = data.draw(arrays())
        key = data.draw(keys(dense.shape))
        chosen = outcome(lambda: dense[key])
        value: Any = 0
        if isinstance(chosen, np.ndarray | np.generic):
            shape = data.draw(
                st.sampled_from([chosen.shape, (1, *chosen.shape), chosen.shape[1:], (), (4,)])
            )
            value = drawn_items(shape, dense.dtype, 5)
        if isinstance(value, int) and dense.dtype.kind not in "iufc":
            value = np.zeros((), dense.dtype)
        expected = outcome(lambda: dense.__setitem__(key, value))
        found = outcome(lambda: array.__setitem__(key, value))
        assert type(found) is type(expected), (found, expected)
        assert array[...].tobytes() == dense.tobytes()

    @given(st.data())
    @settings(max_examples=200)
    def test_outer(self, data: st.DataObject) -> None:
        """Oindex sets what numpy.ix_ sets; of two at one place the last wins."""
        array, dense = data.draw(arrays())
        parts, numbers, dropped = data.draw(outer_keys(dense.shape))
        if not numbers:
            return
        full = dense[np.ix_(*numbers)].shape
        value = drawn_items(full, dense.dtype, 9)
        dense[np.ix_(*numbers)] = value
        array.oindex[parts] = value.squeeze(dropped)
        assert array[...].tobytes() == dense.tobytes()

    @given(st.data())
    @settings(max_examples=200)
    def test_arrays_with_holes(self, data: st.DataObject) -> None:
        """An array of either layout is set into a box as its dense copy would be."""
        array, dense = data.draw(arrays())
        key = data.draw(hnp.basic_indices(dense.shape, allow_newaxis=True, allow_ellipsis=True))
        target = dense[key] if not isinstance(dense[key], np.generic) else np.zeros((), dense.dtype)
        tiles = data.draw(st.sampled_from([None, "auto", 3]))
        other = sparsearray.zeros(target.shape, dense.dtype, tiles=tiles)
        other[...] = drawn_items(target.shape, dense.dtype, 3)
        other[data.draw(hnp.basic_indices(target.shape))] = np.zeros((), dense.dtype)
        dense[key] = other[...]
        array[key] = other
        assert array[...].tobytes() == dense.tobytes()
        flat = sparsearray.zeros(dense.shape, dense.dtype)
        flat[...] = drawn_items(dense.shape, dense.dtype, 4)
        flat[...] = array
        assert np.asarray(flat).tobytes() == dense.tobytes()

    @given(st.data())
    @settings(max_examples=200)
    def test_discard(self, linux_core: bool, data: st.DataObject) -> None:
        """Discard sets to zero, and whole tiles take nothing any more."""
        array, dense = data.draw(arrays())
        key = data.draw(hnp.basic_indices(dense.shape, allow_newaxis=True, allow_ellipsis=True))
        before = array.nbytes_stored
        array.discard(key)
        dense[key] = np.zeros((), dense.dtype)
        assert array[...].tobytes() == dense.tobytes()
        assert array.nbytes_stored <= before
        array.discard(...)
        if linux_core and array._records.itemsize % P == 0:
            assert array.nbytes_stored == 0


class TestWhole:
    """What concerns all of it."""

    @given(st.data())
    @settings(max_examples=150)
    def test_blocks(self, data: st.DataObject) -> None:
        """Boxes are disjoint, no larger than asked for, and hold all that is not zero."""
        array, dense = data.draw(arrays())
        most = data.draw(st.sampled_from([None, 1, 64, 1000]))
        limit = None if most is None else max(most, array.itemsize)
        found, count = np.zeros_like(dense), np.zeros(dense.shape, int)
        for index, block in array.blocks(max_nbytes=limit):
            assert limit is None or block.nbytes <= limit
            found[index] = block
            count[index] += 1
        assert count.max(initial=0) <= 1
        assert found.tobytes() == dense.tobytes()

    @given(st.data())
    @settings(max_examples=150)
    def test_other_tiles(self, data: st.DataObject) -> None:
        """Retile changes how it lies, and nothing else; what is zero takes no tile."""
        array, dense = data.draw(arrays())
        tiles = data.draw(st.sampled_from([None, "auto", 1, 5]))
        made = array.retile(tiles)
        assert np.asarray(made).tobytes() == dense.tobytes()
        assert (getattr(made, "tiles", None) is None) == (tiles is None)
        back = made.retile("auto")
        assert back[...].tobytes() == dense.tobytes()

    @given(st.data())
    @settings(max_examples=100)
    def test_files(self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
        """A saved array opens with the same shape, dtype, tiles and items; numpy reads its tiles."""
        array, dense = data.draw(arrays())
        path = tmp_path_factory.mktemp("tiles") / "a.npy"
        array.save(path)
        for mode in ("r", "r+", "c"):
            with sparsearray.open(path, mode) as found:
                assert isinstance(found, TiledArray)
                assert (found.shape, found.dtype, found.tiles) == (
                    dense.shape,
                    dense.dtype,
                    array.tiles,
                )
                assert found[...].tobytes() == dense.tobytes()
        records = np.load(path)
        for place in np.ndindex(*records.shape):
            box = tuple(slice(i * n, (i + 1) * n) for i, n in zip(place, array.tiles, strict=True))
            inside = tuple(map(slice, dense[box].shape))
            assert np.asarray(records["tile"][place])[inside].tobytes() == dense[box].tobytes()

    @given(st.data())
    @settings(max_examples=150)
    def test_length(self, data: st.DataObject) -> None:
        """Rows come and go as in numpy, and what was cut off never shows again."""
        shape = (data.draw(st.integers(0, 9)), *data.draw(shapes)[1:])
        tiles = data.draw(st.sampled_from(["auto", 2, 4]))
        array = sparsearray.zeros(shape, "i4", tiles=tiles, maxshape=(None, *shape[1:]))
        dense = np.zeros(shape, "i4")
        for seed in range(data.draw(st.integers(1, 5))):
            if data.draw(st.booleans()):
                rows = drawn_items((data.draw(st.integers(0, 9)), *shape[1:]), np.dtype("i4"), seed)
                array.append(rows)
                dense = np.concatenate([dense, rows])
            else:
                n = data.draw(st.integers(0, 20))
                array.resize((n, *shape[1:]))
                more = np.zeros((max(n - len(dense), 0), *shape[1:]), "i4")
                dense = np.concatenate([dense[:n], more])
            assert array.shape == dense.shape
            assert array[...].tobytes() == dense.tobytes()
