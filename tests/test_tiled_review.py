"""`TiledArray` where numpy's corners meet tiles: values that lap over themselves, matrices, fields, long axes."""

import mmap
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

import sparsearray
from sparsearray._binding import ffi, lib

RECORD = np.dtype([("x", "u1"), ("y", "f4")])


@pytest.mark.parametrize(("tiles", "step"), [((8, 8), 8), ((8, 1), 1), ((4, 3), 3)])
def test_set_to_windows_that_lap_over_each_other(tiles: tuple[int, int], step: int) -> None:
    """A value whose rows lie as far apart as a tile's part of them is set right."""
    value = sliding_window_view(np.arange(100.0), 16)[::step][:8]
    a = sparsearray.zeros((8, 16), tiles=tiles)
    a[...] = value
    assert np.array_equal(a[...], value)


@pytest.mark.parametrize("dtype", [">f8", "S40", "U7", "f2"])
def test_set_no_axes_to_an_array_of_one_item(dtype: str) -> None:
    """An array of one item, for a place of no axes, is taken in the array's own dtype."""
    a = sparsearray.zeros((3,), dtype, tiles=2)
    a[1, ...] = np.array([[7]], dtype)
    assert a[1:2].tobytes() == np.array([7], dtype).tobytes()


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("key", [slice(None), [0, 1, 2]])
def test_set_an_axis_to_a_matrix(key: object) -> None:
    """A matrix of one row, whose rows are matrices again, fills an axis."""
    a = sparsearray.zeros(3, tiles=2)
    a[key] = np.asmatrix([[1.0, 2.0, 3.0]])
    assert a[...].tolist() == [1, 2, 3]


@pytest.mark.parametrize("value", [300, -1, [300, 1, 2], float("nan"), 1j])
@pytest.mark.usefixtures("told_pages")
def test_set_a_field_to_what_it_cannot_hold(value: object) -> None:
    """A number that a field cannot hold raises what numpy raises, and changes nothing."""
    a, dense = sparsearray.zeros(3, RECORD, tiles=2), np.zeros(3, RECORD)
    with pytest.raises((OverflowError, ValueError, TypeError)) as expected:
        dense["x"] = value
    with pytest.raises(expected.type):
        a["x"] = value
    assert not a.nbytes_stored


def test_set_a_mask_to_a_list_of_records() -> None:
    """A tuple is a record, no axis, where a mask selects."""
    a = sparsearray.zeros(2, RECORD, tiles=2)
    a[[False, True]] = [(15, 55)]
    assert a[...].tolist() == [(0, 0), (15, 55)]


@pytest.mark.parametrize("name", ["discard", "assign"])
@pytest.mark.usefixtures("told_pages")
def test_clear_a_long_axis(name: str) -> None:
    """The first and the last of a range are known without going through it."""
    a = sparsearray.zeros(1 << 40, "u1", tiles=4096)
    a[5] = 1
    before = time.perf_counter()
    if name == "discard":
        a.discard(slice(None, None, -1))
    else:
        a[...] = 0
    assert time.perf_counter() - before < 5
    assert not a.nbytes_stored


BAD_AXES = [
    {"step": 0},
    {"step": -(1 << 63)},
    {"count": 1 << 62},
    {"count": 2, "step": 1 << 62},
    {"start": (1 << 63) - 1},
    {"start": -1},
    {"tile": 5, "item_step": 1 << 62, "count": 5},
    {"tile": 1 << 62, "item_step": 1 << 40, "step": 1 << 24, "count": 3},
    {"tile_step": (1 << 63) - 1, "count": 20},
    {"tile": 1, "tile_step": 0, "item_step": 0, "count": 1 << 50},
]


@pytest.mark.parametrize("bad", BAD_AXES)
@pytest.mark.parametrize("how", [lib.SA_BOX_READ, lib.SA_BOX_CLEAR, 99])
def test_native_box_of_numbers_without_sense(bad: dict[str, int], how: int) -> None:
    """A selection beyond any address is refused before anything of it is touched."""
    a = sparsearray.zeros(64, "u1", tiles=8)
    axis = {
        "tile": 8,
        "tile_step": 8,
        "item_step": 1,
        "stride": 1,
        "count": 4,
        "start": 0,
        "step": 1,
    }
    out, report = ffi.new("char[]", 4096), ffi.new("sa_report *")
    axes = ffi.new("sa_axis[1]", [axis | bad])
    code = lib.sa_move_box(a.buffer._reservation, 0, axes, 1, 1, out, how, report)
    assert code in {lib.SA_BOUNDS, lib.SA_NEGATIVE}


@pytest.mark.parametrize("value", [np.int64(300), np.timedelta64(7, "h"), np.float64("nan")])
@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("key", [slice(None), (0, ...), 1])
def test_set_to_a_scalar_that_does_not_fit(value: object, key: object) -> None:
    """A numpy scalar that an item cannot hold raises what numpy raises."""
    a, dense = sparsearray.zeros(3, "i1", tiles=2), np.zeros(3, "i1")
    with pytest.raises((OverflowError, TypeError, ValueError)) as expected:
        dense[key] = value
    with pytest.raises(expected.type):
        a[key] = value


def test_set_an_array_index_to_a_scalar_that_does_not_fit() -> None:
    """Where arrays select, a numpy scalar is cast as an array is."""
    a, dense = sparsearray.zeros(3, "i1", tiles=2), np.zeros(3, "i1")
    a[[0, 2]] = dense[[0, 2]] = np.int64(300)
    assert a[...].tolist() == dense.tolist()


@pytest.mark.parametrize("tiles", [None, 4])
def test_trim_the_end_of_a_file(tmp_path: Path, tiles: int | None) -> None:
    """A last page of zeros, of which the file has a part only, is no error."""
    a = sparsearray.open(tmp_path / "a.npy", "w+", shape=93, dtype="S3", tiles=tiles)
    a[...] = b"x"
    if isinstance(a, sparsearray.TiledArray):
        for i in range(24):
            a.tile(i).fill(b"")
    else:
        a[:].fill(b"")
    assert a.trim() in range(mmap.PAGESIZE + 1)
    assert not (a[...] != b"").any()
    a.close()


def test_clear_rows_and_columns_of_many_tiles() -> None:
    """Rows and columns that are chosen apart, out of order and twice, are cleared in every tile."""
    a, dense = sparsearray.zeros((300, 300), "u1", tiles=(7, 8)), np.ones((300, 300), "u1")
    a[...] = dense
    rows, columns = np.arange(299, -1, -2), np.repeat(np.arange(0, 300, 3), 2)
    a.oindex[rows, columns] = 0
    dense[np.ix_(rows, columns)] = 0
    assert np.array_equal(a[...], dense)


@pytest.mark.parametrize("step", [1 << 70, 1 << 62, -(1 << 63)])
def test_steps_beyond_any_number(step: int) -> None:
    """A step that leaves the axis at once may be of any size, as in numpy."""
    a = sparsearray.zeros((5, 5), tiles=2)
    a[::step, 0] = 1
    assert a[::step].shape == (1, 5)
    assert a.sum() == 1


@pytest.mark.parametrize("key", [..., (slice(None), slice(3, None, 900)), (slice(1, 3), slice(9))])
@pytest.mark.usefixtures("told_pages")
def test_limit_of_what_a_selection_stores(key: tuple[slice, ...]) -> None:
    """A selection may store as many pages as the tiles it lies in, and no fewer."""
    for less in (0, 1):
        a = sparsearray.zeros((200, 2000), "u1", tiles=64)
        a[key] = 1
        most = a.nbytes_stored - less
        b = sparsearray.zeros(a.shape, "u1", tiles=64, max_nbytes=most)
        if less:
            with pytest.raises(MemoryError):
                b[key] = 1
        else:
            b[key] = 1
        assert b.nbytes_stored == (0 if less else most)


@pytest.mark.usefixtures("told_pages")
def test_limit_of_a_selection_of_all() -> None:
    """A selection of a terabyte is refused at once."""
    a = sparsearray.zeros((1 << 20, 1 << 20), "u1", tiles=64, max_nbytes=1 << 20)
    before = time.perf_counter()
    with pytest.raises(MemoryError, match="1 TiB more"):
        a[...] = 1
    assert time.perf_counter() - before < 5


def test_header_with_room_for_a_longer_array(tmp_path: Path) -> None:
    """A header that nearly fills its page has room for the digits of a longer array."""
    for pad in range(1, 45):
        fields = [(f"field_{i:020d}", "f4") for i in range(101)]
        dtype = np.dtype([*fields, ("z" * pad, "f4")])
        a = sparsearray.open(
            tmp_path / "a.npy", "w+", shape=(5, 6), dtype=dtype, tiles=2, maxshape=(None, 6)
        )
        a.resize((100_000, 6))
        a.close()


@pytest.mark.parametrize("tiles", [None, 2])
@pytest.mark.parametrize("dtype", [RECORD, np.dtype("V3")])
def test_records_are_not_said_to_differ(tiles: int | None, dtype: np.dtype) -> None:
    """Equality of records, for which numpy has no ufunc, is refused, and not False everywhere."""
    a = sparsearray.zeros(5, dtype, tiles=tiles)
    for other in (a, a.copy(), a[...], np.zeros((), dtype)[()]):
        with pytest.raises(TypeError, match="on a part it works"):
            a == other  # noqa: B015 - it raises


def test_advice_for_tiles() -> None:
    """Of an array in tiles a part is a copy: no error says that it is a window to write to."""
    a = sparsearray.zeros((30, 30), tiles=8)
    with pytest.raises(AttributeError, match=r"no 'fill'; assign what a part becomes"):
        a.fill(5)
    with pytest.raises(TypeError, match=r"a\[...\]\.T is a copy of all of it, if that fits"):
        np.transpose(a)
    with pytest.raises(TypeError, match=r"a\[...\]\.T is a window of all of it, without a copy"):
        np.transpose(sparsearray.zeros((3, 3)))
