"""`open`: files of numpy, of others and new ones, in every mode."""

import ctypes
import mmap
import stat
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

import sparsearray

from .array_files import (
    DISK_PAGE,
    MODES,
    TOO_LONG,
    assert_file_is,
    assert_same,
    counting,
    make_npy,
    names,
    stored,
)

P = mmap.PAGESIZE


# Files of others


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f8", ">i4", "S3", [("a", "u1"), ("b", "<f8")]])
def test_files_of_numpy(dtype: Any, order: Any, mode: Any, tmp_path: Path) -> None:
    """What `numpy.save` wrote is opened, the data where it is."""
    raw = bytearray(counting(3000 * np.dtype(dtype).itemsize))
    array: np.ndarray = np.ndarray((10, 300), dtype, raw, order=order)
    np.save(tmp_path / "a.npy", array)
    found = sparsearray.open(tmp_path / "a.npy", mode)
    assert_same(found, array)
    assert (found.order, found.mode, found.path) == (order, mode, str(tmp_path / "a.npy"))
    assert_same(found[3:7, ::5], array[3:7, ::5])
    found.save(tmp_path / "b.npy")
    assert_same(np.load(tmp_path / "b.npy"), array)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("padding", [0, 1, 2, 3, 9000])
def test_unaligned_files(version: Any, padding: int, tmp_path: Path) -> None:
    """The data may begin at any byte, in all versions of the format; writes reach it there."""
    array = np.arange(1, 2001, dtype="<f8").reshape(4, 500)
    text = "{'descr': '<f8', 'fortran_order': False, 'shape': (4, 500), }" + " " * padding
    path = tmp_path / "a.npy"
    path.write_bytes(make_npy(text, array.tobytes(), version))
    assert_file_is(path, array)
    with sparsearray.open(path, "r+") as found:
        found[1, 2] = array[1, 2] = -1
    assert_file_is(path, array)


@pytest.mark.parametrize("shape", [(), (0,), (0, 5), (5, 0, 2), (1,)])
@pytest.mark.parametrize("by", ["numpy", "us"])
def test_small_files(by: str, shape: Any, tmp_path: Path) -> None:
    """No dimension, no items, one item: as large as can be told from a header alone."""
    array = np.ones(shape, ">i4")
    (np.save if by == "numpy" else sparsearray.save)(tmp_path / "a.npy", array)
    assert_file_is(tmp_path / "a.npy", array)


@pytest.mark.parametrize("mode", MODES)
def test_raw_files(mode: Any, tmp_path: Path) -> None:
    """A file without a header is read as the dtype says."""
    data = counting(4 * P + 32)  # whole items of all these dtypes
    path = tmp_path / "raw"
    path.write_bytes(data)
    with sparsearray.open(path, mode, dtype="<u4") as found:
        assert_same(found, np.frombuffer(data, "<u4"))
    with sparsearray.open(path, mode, dtype=">f8", shape=(3, 5)) as found:
        assert_same(found, np.frombuffer(data, ">f8", 15).reshape(3, 5))
    with sparsearray.open(path, mode, dtype=("<u2", (2, 3))) as found:
        assert_same(found, np.frombuffer(data, ("<u2", (2, 3))))
    with sparsearray.open(path, mode, dtype=("<u2", (2, 3)), shape=4) as found:
        assert_same(found, np.frombuffer(data, ("<u2", (2, 3)))[:4])
    with sparsearray.open(path, mode, dtype="u1", shape=()) as found:
        assert found[()] == data[0]
    path.write_bytes(b"")
    with sparsearray.open(path, mode, dtype="u2") as found:
        assert found.shape == (0,)


# Modes


def test_read_only(tmp_path: Path) -> None:
    """Mode 'r' refuses every change, and other programs' changes are seen."""
    path = tmp_path / "a.npy"
    np.save(path, np.arange(1000))
    array = sparsearray.open(path, maxshape=(None,))
    window = array[...]
    assert not window.flags.writeable
    for change in (
        lambda: array.__setitem__(3, 1),
        lambda: array.__setitem__(..., 0),
        lambda: window.__setitem__(3, 1),
        lambda: array.resize(5),
        lambda: array.append([1]),
        lambda: array.discard(...),
        array.trim,
    ):
        with pytest.raises(ValueError, match="read-only"):
            change()
    array.flush()
    assert_same(np.load(path), np.arange(1000))


def test_read_and_write(tmp_path: Path) -> None:
    """In mode 'r+' others see what was written."""
    path, expected = tmp_path / "a.npy", np.arange(3000.0).reshape(3, 1000)
    np.save(path, expected)
    with sparsearray.open(path, "r+") as array:
        array[1, 5:900] = expected[1, 5:900] = -1
        array[2] = expected[2] = 0
        array.flush()
        assert_file_is(path, expected)
    assert_file_is(path, expected)


def test_copy_on_write(tmp_path: Path, unchanged_files: Any) -> None:
    """In mode 'c' the file stays as it is, and what was changed can be saved elsewhere."""
    path, expected = tmp_path / "a.npy", np.arange(3000.0).reshape(3, 1000)
    np.save(path, expected)
    with unchanged_files():
        array = sparsearray.open(path, "c", maxshape=(9, 1000))
        array[1, 5:900] = expected[1, 5:900] = -1
        array[2] = expected[2] = 0
        array.flush()
        assert_same(array, expected)
        for shape in ((4, 1000), (2, 1000)):
            with pytest.raises(ValueError, match=r"a.npy.*mode 'c'"):
                array.resize(shape)
        with pytest.raises(ValueError, match=r"a.npy.*mode 'c'"):
            array.append(expected[:1])
        assert_same(array, expected)
        array.close()
        del array
    with sparsearray.open(path, "c") as array:
        array[...] = expected
        array.save(tmp_path / "b.npy")
    assert_file_is(tmp_path / "b.npy", expected)


def test_new_file(tmp_path: Path) -> None:
    """Mode 'w+' makes a file of zeros that takes a page, in place of an old one."""
    path = tmp_path / "a.npy"
    path.write_bytes(counting(100_000))
    path.chmod(0o640)
    with sparsearray.open(path, "w+", shape=(1 << 20, 30), dtype=">i2") as array:
        assert stored(path) == DISK_PAGE
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert path.stat().st_size == DISK_PAGE + 60 * (1 << 20)
        array[5] = 1
        assert np.load(path, mmap_mode="r")[5].tolist() == [1] * 30
    for shape in ((), 0, (0, 5), (3, 0), 7):
        with sparsearray.open(path, "w+", shape=shape) as array:
            assert_same(np.load(path), np.zeros(shape))
            assert_same(array, np.zeros(shape))
    with sparsearray.open(path, "w+", shape=3, dtype="S") as array:
        assert_same(array, np.zeros(3, "S"))
    with sparsearray.open(path, "w+", shape=3, dtype=("u2", (2,))) as array:
        assert_same(array, np.zeros(3, ("u2", (2,))))


@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        (ValueError, {}),
        (ValueError, {"shape": -1}),
        (ValueError, {"shape": (3, -1)}),
        (ValueError, {"shape": 1 << 63}),
        (ValueError, {"shape": (1 << 40, 1 << 40)}),
        (MemoryError, {"shape": 1 << 55, "dtype": "u1"}),
        (MemoryError, {"shape": (1 << 63) - 1, "dtype": "u1"}),
        (MemoryError, {"shape": 1, "maxshape": 1 << 55}),
        (ValueError, {"shape": 3, "maxshape": 2}),
        (ValueError, {"shape": 3, "maxshape": (3, 3)}),
        (ValueError, {"shape": (), "maxshape": None, "dtype": TOO_LONG}),
        (TypeError, {"shape": "abc"}),
        (TypeError, {"shape": 2.5}),
        (TypeError, {"shape": 3, "dtype": "O"}),
        (TypeError, {"shape": 3, "dtype": "no such"}),
        (TypeError, {"shape": 3, "dtype": [("a", "O")]}),
    ],
)
@pytest.mark.parametrize("folder", [None, "/dev/shm"])  # noqa: S108 - where files can be larger than memory
def test_refused_new_file(
    error: type[Exception], arguments: Any, folder: str | None, tmp_path: Path
) -> None:
    """If mode 'w+' is refused, the old file stays as it is."""
    if folder and not Path(folder).is_dir():
        pytest.skip(f"no {folder} here")
    with TemporaryDirectory(prefix="sparsearray-test-", dir=folder or tmp_path) as made:
        path = Path(made) / "a.npy"
        path.write_bytes(b"old")
        with pytest.raises(error):
            sparsearray.open(path, "w+", **arguments)
        assert path.read_bytes() == b"old"
        assert names(path.parent) == ["a.npy"]


@pytest.mark.parametrize("mode", ["", "w", "a", "rb", "r+b", "x", None, 3, ["r"]])
def test_bad_mode(mode: Any, tmp_path: Path, unchanged_files: Any) -> None:
    """An unknown mode is refused, and the modes there are are named."""
    np.save(tmp_path / "a.npy", np.arange(3))
    with unchanged_files(), pytest.raises(ValueError, match=r"'r', 'r\+', 'w\+', 'c'"):
        sparsearray.open(tmp_path / "a.npy", mode, shape=3)


def test_dtype_and_shape_are_checked(tmp_path: Path) -> None:
    """Of a .npy file the dtype and shape can be said, and must be right."""
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((3, 4), "<i4"))
    for arguments in ({"dtype": "i4"}, {"shape": (3, 4)}, {"dtype": np.int32, "shape": [3, 4]}):
        assert sparsearray.open(path, **arguments).shape == (3, 4)
    for arguments in (
        {"dtype": ">i4"},
        {"dtype": "u4"},
        {"shape": 12},
        {"shape": (4, 3)},
        {"dtype": float, "shape": (3, 4)},
    ):
        with pytest.raises(ValueError, match=r"a\.npy' (holds int32|has shape \(3, 4\)), not "):
            sparsearray.open(path, **arguments)


# Holes


def cached(path: Path) -> int:
    """Bytes of a file in the page cache."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as window:
        view = np.frombuffer(window, "u1")
        pages = np.zeros(-(-len(view) // P), "u1")
        libc = ctypes.CDLL(None, use_errno=True)
        assert not libc.mincore(
            ctypes.c_void_p(view.ctypes.data),
            ctypes.c_size_t(len(view)),
            ctypes.c_void_p(pages.ctypes.data),
        )
        del view
    return int((pages & 1).sum()) * P


@pytest.mark.parametrize("mode", ["r", "c"])
def test_reading_holes_costs_nothing(mode: Any, tmp_path: Path, linux_core: bool) -> None:
    """Reading all of a file through a window brings its holes neither into memory nor the cache."""
    if not linux_core:
        pytest.skip("only Linux tells how far it reads ahead")
    path = tmp_path / "a.npy"
    with sparsearray.open(path, "w+", shape=1 << 22) as made:
        made[100] = 1
    before = cached(path)
    array = sparsearray.open(path, mode)
    assert array[...].sum() == 1
    assert cached(path) <= before + (2 << 20)  # of 32 MiB; the system reads ahead
    assert array.nbytes_stored == DISK_PAGE


# Open arrays


def test_replaced_under_an_array(tmp_path: Path) -> None:
    """An open array keeps the file that it opened, when another takes its name."""
    path = tmp_path / "a.npy"
    sparsearray.save(path, np.arange(3000.0))
    array = sparsearray.open(path, "r+", maxshape=(None,))
    sparsearray.save(path, np.arange(5.0))
    sparsearray.open(path, "w+", shape=7).close()
    assert_same(array, np.arange(3000.0))
    array.append([1])
    assert_same(np.load(path), np.zeros(7))


def test_close(tmp_path: Path, descriptors: Callable[[], int]) -> None:
    """A closed array gives file and memory back; with a live window it stays open."""
    path, count = tmp_path / "a.npy", descriptors()
    array = sparsearray.open(path, "w+", shape=3000, maxshape=(None,))
    window = array[5:]
    with pytest.raises(BufferError):
        array.close()
    array.append([7])
    del window
    array.close()
    array.close()
    assert array.closed
    assert descriptors() == count
    for call in (lambda: array[...], lambda: array.resize(5), array.flush):
        with pytest.raises(ValueError):
            call()
    assert np.load(path).shape == (3001,)
    for mode in MODES:
        sparsearray.open(path, mode)  # type: ignore[arg-type]
    assert descriptors() == count
