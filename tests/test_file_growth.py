"""Arrays in files made longer and shorter: `resize` and `append`."""

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsearray
from sparsearray import SparseArray

from .array_files import DISK_PAGE, GOOD, assert_file_is, assert_same, counting, make_npy, stored

P = mmap.PAGESIZE


def check_length(array: SparseArray, path: Path, expected: np.ndarray, start: int) -> None:
    """Compare the array, its file and the file's length with what they must be."""
    assert_same(array, expected)
    assert_same(np.load(path), expected)
    assert path.stat().st_size == start + expected.nbytes


ROWS = {
    "bytes": ((), "u1", [0, 1, P - 1, P, P + 1, 2 * P, 3, 5 * P + 1, P, 1, 0, P + 1]),
    "numbers": ((), ">f8", [3, P // 8, P // 8 + 1, 1, 0, P, P - 1, 0, 1]),
    "odd rows": ((7, 3), "<u2", [1, 0, 97, 98, 195, 97, 196, 1, 3000, 0]),
    "records": ((2,), [("a", "u1"), ("b", "<f8")], [5, 228, 227, 229, 0, 455, 456, 457, 1]),
    "empty rows": ((0,), "f4", [5, 0, 1 << 40, 3]),
    "no bytes": ((), [], [5, 0, 1 << 20, 3]),
}


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("made", ["w+", "r+", "foreign", "unaligned"])
def test_resize(made: str, rows: str, tmp_path: Path) -> None:
    """After each step array, file and header agree; what is new is zero; nothing ever moves."""
    inner, dtype, counts = ROWS[rows]
    path, most = tmp_path / "a.npy", max(counts)
    expected = np.zeros((2, *inner), dtype)
    start = DISK_PAGE
    if made == "w+":
        array = sparsearray.open(
            path, "w+", dtype=dtype, shape=(2, *inner), maxshape=(most, *inner)
        )
    else:
        if made == "foreign":
            np.save(path, expected)
        elif made == "unaligned":
            text = repr(
                {"descr": expected.dtype.descr, "fortran_order": False, "shape": (2, *inner)}
            )
            if expected.dtype.names is None:
                text = text.replace(repr(expected.dtype.descr), repr(expected.dtype.str))
            path.write_bytes(make_npy(text + " " * 17, expected.tobytes()))
        else:
            sparsearray.save(path, expected)
        start = path.stat().st_size - expected.nbytes
        array = sparsearray.open(path, "r+", maxshape=(most, *inner))
    address = array.buffer.address + array.offset
    for step, count in enumerate(counts):
        grown = np.zeros((count, *inner), dtype)
        kept = min(count, len(expected))
        grown[:kept] = expected[:kept]
        array.resize((count, *inner))
        check_length(array, path, grown, start)
        if grown.nbytes:
            fill = np.ndarray(grown.shape, dtype, bytearray(counting(grown.nbytes + step)[step:]))
            array[...] = grown[...] = fill
            window = array[...]
            assert window.__array_interface__["data"][0] == address
            del window
        expected = grown
    array.close()
    assert_file_is(path, expected)


@settings(deadline=None, max_examples=50)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["resize", "append", "reopen"]), st.integers(0, 1500)),
        min_size=1,
        max_size=8,
    ),
    foreign=st.booleans(),
    width=st.sampled_from([1, 2, 7, 4096]),
)
def test_any_steps(
    steps: list[tuple[str, int]],
    foreign: bool,
    width: int,
    memory_folder: Path,
) -> None:
    """A file that is resized, appended to and opened anew holds what a numpy array would."""
    path = memory_folder / "steps.npy"
    expected = np.zeros((3, width), "u1")
    (np.save if foreign else sparsearray.save)(path, expected)
    start = path.stat().st_size - expected.nbytes
    array = sparsearray.open(path, "r+", maxshape=(None, width))
    for number, (step, count) in enumerate(steps, 1):
        if step == "reopen":
            array.close()
            array = sparsearray.open(path, "r+", maxshape=(None, width))
        elif step == "append":
            rows = np.full((count, width), number, "u1")
            expected = np.concatenate([expected, rows])
            array.append(rows)
        else:
            padding = np.zeros((max(count - len(expected), 0), width), "u1")
            expected = np.concatenate([expected[:count], padding])
            array.resize((count, width))
        check_length(array, path, expected, start)
    array.close()


def test_windows_stay(tmp_path: Path) -> None:
    """Live windows stay valid and see what is written, however long the file gets."""
    path = tmp_path / "a.npy"
    array = sparsearray.open(path, "w+", shape=(3, 100), dtype="i4", maxshape=(None, 100))
    first = array[...]
    first[...] = 1
    for count in (4, 1000, 100_000, 1_000_000):
        array.resize((count, 100))
        array[-1] = count
        assert (first == 1).all()
        first[0] = count
        assert (np.load(path, mmap_mode="r")[0] == count).all()
        first[0] = 1
    assert array[0].__array_interface__["data"][0] == first.__array_interface__["data"][0]


@pytest.mark.parametrize("made", ["w+", "foreign"])
def test_shrink_under_a_window(made: str, tmp_path: Path, unchanged_files: Any) -> None:
    """What a live window shows is not cut off: BufferError, and file, header and array stay."""
    path, expected = tmp_path / "a.npy", np.arange(4.0 * P).reshape(-1, 8)
    (np.save if made == "foreign" else sparsearray.save)(path, expected)
    array = sparsearray.open(path, "r+", maxshape=(P, 8))
    window = array[-3:]
    with unchanged_files():
        for count in (0, 1, 5):
            with pytest.raises(BufferError, match="1 live window"):
                array.resize((count, 8))
        assert_same(array, expected)
        assert array.shape == expected.shape
    array.resize((P, 8))
    assert_same(window, expected[-3:])
    del window
    array.resize((5, 8))
    assert_same(np.load(path), expected[:5])


@pytest.mark.parametrize(
    ("method", "argument", "message"),
    [
        ("resize", (11, 4), "maxshape"),
        ("append", np.zeros((8, 4)), "maxshape"),
        ("resize", (5, 5), "first axis"),
        ("resize", 5, "first axis"),
        ("resize", (-1, 4), "negative"),
        ("append", [1, 2, 3, 4], "do not fit"),
        ("append", np.zeros((2, 5)), "do not fit"),
        ("append", [["x", "y", "z", "w"]], "could not convert"),
        ("append", [[1, 2], [3]], "inhomogeneous"),
    ],
)
def test_refused_lengths(method: str, argument: Any, message: str, tmp_path: Path) -> None:
    """A shape or rows that do not fit are refused, and the array and its file stay."""
    path, expected = tmp_path / "a.npy", np.arange(12.0).reshape(3, 4)
    sparsearray.save(path, expected)
    array = sparsearray.open(path, "r+", maxshape=(10, 4))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        getattr(array, method)(argument)
    assert path.read_bytes() == before
    check_length(array, path, expected, DISK_PAGE)


def test_no_length_to_change(tmp_path: Path, unchanged_files: Any) -> None:
    """Raw files, Fortran order and 0-d arrays have no length that can change; 1-d ones have."""
    (tmp_path / "raw").write_bytes(counting(80))
    np.save(tmp_path / "f.npy", np.asfortranarray(np.ones((3, 4))))
    np.save(tmp_path / "0.npy", np.ones(()))
    with unchanged_files():
        with pytest.raises(ValueError, match="raw.*C order"):
            sparsearray.open(tmp_path / "raw", "r+", dtype="u1", maxshape=100).resize(81)
        with pytest.raises(ValueError, match=r"f\.npy.*C order"):
            sparsearray.open(tmp_path / "f.npy", "r+", maxshape=(9, 4)).resize((5, 4))
        with pytest.raises(ValueError, match="first axis"):
            sparsearray.open(tmp_path / "0.npy", "r+").resize(())
    (tmp_path / "1.npy").write_bytes(make_npy(GOOD.replace("False", "True ") + " " * 9, bytes(16)))
    sparsearray.open(tmp_path / "1.npy", "r+", maxshape=9).resize(5)
    assert_same(np.load(tmp_path / "1.npy"), np.zeros(5))


def test_header_without_room(tmp_path: Path, unchanged_files: Any) -> None:
    """Where the header of others has no room for more digits, nothing is changed."""
    path = tmp_path / "tight.npy"
    expected = np.arange(1.0, 10.0)
    path.write_bytes(
        make_npy("{'descr': '<f8', 'fortran_order': False, 'shape': (9,)}", expected.tobytes())
    )
    array = sparsearray.open(path, "r+", maxshape=(None,))
    with unchanged_files():
        for count in (10, 1_000_000):
            with pytest.raises(ValueError, match=r"tight\.npy.*does not fit"):
                array.resize(count)
        with pytest.raises(ValueError, match=r"tight\.npy.*does not fit"):
            array.append([1, 2])
        assert_same(array, expected)
    array.resize(4)
    array.append([5, 6])
    assert_same(np.load(path), np.array([1.0, 2, 3, 4, 5, 6]))


@pytest.mark.parametrize("by", ["crash", "stranger"])
def test_rest_behind_the_data(by: str, tmp_path: Path) -> None:
    """What lies behind the data, after a crash or by a stranger, never shows in new rows."""
    path = tmp_path / "a.npy"
    sparsearray.save(path, np.arange(2000.0))
    if by == "crash":
        data = path.read_bytes()
        sparsearray.save(path, np.arange(10.0))
        path.write_bytes(path.read_bytes()[:DISK_PAGE] + data[DISK_PAGE:])
    else:
        with path.open("ab") as file:
            file.write(counting(5000))
    expected = np.load(path)
    with sparsearray.open(path, "r+", maxshape=(None,)) as array:
        assert_same(array, expected)
        array.resize(len(expected) + 300)
        expected = np.concatenate([expected, np.zeros(300)])
        check_length(array, path, expected, DISK_PAGE)


@pytest.mark.usefixtures("told_pages")
def test_append_sparse(tmp_path: Path) -> None:
    """Rows of a sparse array keep their holes."""
    path = tmp_path / "a.npy"
    array = sparsearray.open(path, "w+", shape=(0, 1 << 17), maxshape=(None, 1 << 17))
    rows = sparsearray.zeros((1000, 1 << 17))
    rows[500, 7] = 1
    array.append(rows)
    assert (array[500, 7], stored(path)) == (1, 2 * DISK_PAGE)


def test_append_to_itself(tmp_path: Path) -> None:
    """The rows that there are can be appended once more."""
    path, expected = tmp_path / "a.npy", np.arange(12.0).reshape(3, 4)
    sparsearray.save(path, expected)
    array = sparsearray.open(path, "r+", maxshape=(None, 4))
    array.append(array[1:])
    expected = np.concatenate([expected, expected[1:]])
    assert_same(np.load(path), expected)
    array.append(array)
    assert_same(np.load(path), np.concatenate([expected, expected]))
