"""`save`: what is written where, which holes stay holes, and how progress is shown."""

import errno
import mmap
import os
import stat
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import sparsearray
from sparsearray import ClosedError, SparseArray, SparseBuffer

from .array_files import (
    DISK_PAGE,
    MODES,
    TOO_LONG,
    assert_file_is,
    assert_same,
    counting,
    names,
    stored,
)

P = mmap.PAGESIZE
LONG = np.dtype([(f"field_{i:06}", "<f8") for i in range(300)])


# Round trips


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Draw an array of any dtype, shape and layout; its bits are random, with runs of zeros."""
    dtype = draw(st.one_of(npst.scalar_dtypes(), npst.nested_dtypes(max_itemsize=400)))
    shape = draw(npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    count, size = int(np.prod(shape)), dtype.itemsize
    raw = np.frombuffer(draw(st.binary(min_size=1, max_size=64)) * (count * size), "u1")
    array: np.ndarray = np.ndarray(shape, dtype, raw[: count * size].copy())
    layout = draw(st.sampled_from(["C", "F", "transposed", "reversed", "strided", "read-only"]))
    if layout == "F":
        return np.asfortranarray(array) if array.ndim else array
    if layout == "transposed":
        return array.T
    if layout == "reversed" and array.ndim:
        return array[::-1]
    if layout == "strided" and array.ndim:
        wide = np.repeat(array, 2, axis=-1)
        return wide[..., ::2]
    if layout == "read-only":
        array.flags.writeable = False
    return array


@settings(deadline=None)
@given(array=arrays())
def test_round_trip(array: np.ndarray, memory_folder: Path) -> None:
    """Whatever the dtype, shape and layout: numpy reads what was saved, and so does `open`."""
    path = memory_folder / "round-trip.npy"
    sparsearray.save(path, array)
    assert_file_is(path, array)
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
    assert path.stat().st_size == DISK_PAGE + array.nbytes


@pytest.mark.parametrize(
    "dtype",
    [
        np.dtype([("a", "u1"), ("b", "<f8")], align=True),
        np.dtype([("p", [("x", ">i2"), ("y", "f4", (2, 3))]), ("s", ">U3", 4)]),
        np.dtype({"names": ["a"], "formats": ["i4"], "offsets": [12], "itemsize": 40}),
        np.dtype([("漢字", "i4"), (("title ж", "n"), "f4"), ("\xad\u200b", "u1")]),
        np.dtype([]),
        LONG,
        np.dtype("V0"),
        np.dtype("V5"),
        np.dtype(">M8[3s]"),
    ],
    ids=lambda dtype: str(dtype)[:20],
)
def test_dtypes(dtype: np.dtype, tmp_path: Path) -> None:
    """Padding, nesting, sub-arrays, names in UTF-8, no bytes at all; long dtypes take two pages."""
    nbytes = 6 * dtype.itemsize
    array: np.ndarray = np.ndarray((2, 3), dtype, bytearray(counting(nbytes)))
    if dtype.names and "p" in dtype.names:
        array["s"] = "漢字"
    path = tmp_path / "a.npy"
    sparsearray.save(path, array)
    assert_file_is(path, array)
    start = 2 * DISK_PAGE if dtype is LONG else DISK_PAGE
    assert path.stat().st_size == start + nbytes
    assert path.read_bytes()[start:] == array.tobytes()
    if dtype.itemsize:
        with sparsearray.open(path, "w+", dtype=dtype, shape=(2, 3)) as made:
            made[...] = array
        assert_file_is(path, array)


def test_header_that_does_not_fit(tmp_path: Path, unchanged_files: Any) -> None:
    """A dtype that no header of ours holds is refused, and the old file stays."""
    (tmp_path / "a.npy").write_bytes(b"old")
    with unchanged_files():
        with pytest.raises(ValueError, match="does not fit into 8192"):
            sparsearray.save(tmp_path / "a.npy", np.zeros(3, TOO_LONG))
        with pytest.raises(ValueError, match="does not fit into 8192"):
            sparsearray.open(tmp_path / "a.npy", "w+", dtype=TOO_LONG, shape=3)


def test_broadcast_larger_than_any_file(tmp_path: Path) -> None:
    """An array whose bytes no file can count is refused as too large."""
    array = np.broadcast_to(np.uint8(0), ((1 << 63) - 1,))
    with pytest.raises(OSError) as caught:
        sparsearray.save(tmp_path / "a.npy", array)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(tmp_path / "a.npy"))
    assert names(tmp_path) == []


@pytest.mark.parametrize("value", [[[1, 2], [3, 4]], 7, 2.5, True, "text", b"bytes", [], (1, 2.5)])
def test_array_likes(value: Any, tmp_path: Path) -> None:
    """What `numpy.asarray` takes is saved as it takes it."""
    sparsearray.save(tmp_path / "a.npy", value)
    np.save(tmp_path / "b.npy", value)
    assert_file_is(tmp_path / "a.npy", np.load(tmp_path / "b.npy"))


def test_bits_are_kept(tmp_path: Path) -> None:
    """Minus zero is not a page of zeros, and a NaN keeps its payload."""
    array = np.zeros(4 * DISK_PAGE // 8)
    array[:512] = -0.0
    array[1024:1100] = np.frombuffer(bytes.fromhex("0100000000f0ff7f") * 76, "f8")
    sparsearray.save(tmp_path / "a.npy", array)
    assert np.load(tmp_path / "a.npy").tobytes() == array.tobytes()
    source = sparsearray.zeros(array.shape)
    source[...] = array
    source.save(tmp_path / "b.npy")
    assert (tmp_path / "b.npy").read_bytes() == (tmp_path / "a.npy").read_bytes()


@pytest.mark.parametrize("order", ["C", "F"])
def test_long_arrays_go_in_pieces(order: Any, tmp_path: Path) -> None:
    """More than is written at once, in both orders, strided and not."""
    array = np.arange(3 * 700 * 701, dtype="u4").reshape((3, 700, 701), order=order)
    for i, source in enumerate([array, array[::-1], array[:, ::2, 1:], array[:1, 5:]]):
        path = tmp_path / f"{i}.npy"
        sparsearray.save(path, source)
        assert_same(np.load(path), source)


def test_order_is_kept(tmp_path: Path) -> None:
    """A Fortran array is saved in Fortran order, and opened in it."""
    array = np.asfortranarray(np.arange(12.0).reshape(3, 4))
    sparsearray.save(tmp_path / "a.npy", array)
    found = sparsearray.open(tmp_path / "a.npy")
    assert found.order == "F"
    assert np.isfortran(np.load(tmp_path / "a.npy"))
    found.save(tmp_path / "b.npy")
    assert (tmp_path / "b.npy").read_bytes() == (tmp_path / "a.npy").read_bytes()
    assert (tmp_path / "a.npy").read_bytes()[DISK_PAGE:] == array.tobytes("A")


# Holes


@pytest.mark.parametrize("kind", ["ndarray", "fortran", "strided", "memory", "file", "r", "c"])
def test_zero_pages_take_no_room(kind: str, tmp_path: Path) -> None:
    """Only pages that hold something are stored, whatever is saved."""
    path, page = tmp_path / "a.npy", DISK_PAGE // 8
    dense = np.zeros((64, 16 * page))
    dense[3, 5 * page : 6 * page] = 1
    dense[40, 15 * page + 7] = dense[41, 0] = -0.0
    dense[63, -1] = 5
    source: Any = dense
    if kind == "fortran":
        source = np.asfortranarray(dense.T)
    elif kind == "strided":
        source = np.repeat(dense, 2, axis=1)[:, ::2]
    elif kind != "ndarray":
        source = sparsearray.zeros(dense.shape)
        if kind != "memory":
            source = sparsearray.open(tmp_path / "b.npy", "w+", shape=dense.shape)
        source[...] = dense  # every page is written
        if kind in ("r", "c"):
            source.close()
            source = sparsearray.open(tmp_path / "b.npy", kind)  # type: ignore[arg-type]
    sparsearray.save(path, source)
    assert_same(np.load(path), dense.T if kind == "fortran" else dense)
    assert stored(path) == 5 * DISK_PAGE  # header and 4 pages


@pytest.mark.usefixtures("told_pages")
@pytest.mark.parametrize("shape", [1 << 40, (1 << 20, 1 << 20)])
def test_terabyte(shape: Any, tmp_path: Path) -> None:
    """A terabyte is saved and opened in the time and room of what was written."""
    source = sparsearray.zeros(shape, "u1")
    flat = source.buffer.window(0, 1 << 40)
    flat[[5, 1 << 39, (1 << 40) - 1]] = 1, 2, 3
    path = tmp_path / "a.npy"
    try:
        source.save(path)
    except OSError as error:
        if error.errno == errno.EFBIG:
            pytest.skip("this file system has no files of a terabyte")
        raise
    assert stored(path) == 4 * DISK_PAGE
    assert path.stat().st_size == DISK_PAGE + (1 << 40)
    for mode in MODES:
        with sparsearray.open(path, mode) as found:  # type: ignore[arg-type]
            assert found.shape == source.shape
            assert found.nbytes_stored == 3 * DISK_PAGE
    assert np.load(path, mmap_mode="r").reshape(-1)[1 << 39] == 2


def test_any_place_in_a_buffer(tmp_path: Path) -> None:
    """An array that begins anywhere in a buffer, over memory, zero pages and files, is saved."""
    (tmp_path / "data").write_bytes(counting(2 * P))
    buffer = SparseBuffer(16 * P)
    buffer.alloc(0, 4 * P)
    buffer.map_zero(4 * P, 4 * P)
    buffer.map_file(8 * P, 2 * P, tmp_path / "data")
    buffer.alloc(10 * P, 6 * P)
    buffer.write_at(P - 5, counting(11))
    buffer.write_at(15 * P, counting(P))
    for offset in (0, 1, 8, P - 1):
        array = SparseArray(buffer, (5, 3 * P - 7), "u1", offset=offset)
        array.save(tmp_path / "a.npy")
        data = buffer.read_at(offset, array.nbytes)
        assert np.load(tmp_path / "a.npy").tobytes() == data
    buffer.close()
    with pytest.raises(ClosedError):
        array.save(tmp_path / "b.npy")
    assert names(tmp_path) == ["a.npy", "data"]


# Paths


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """str, bytes, PathLike; relative, long, and not UTF-8: `path` is absolute and stays so."""
    monkeypatch.chdir(tmp_path)
    names: list[Any] = [
        "a.npy",
        b"b.npy",
        Path("c.npy"),
        os.fsdecode(b"\xff\xfe.npy"),
        b"\xff'\"\\.npy",
        "漢" * 83 + ".npy",
        "d",
        ".npy",
        "./e\n.npy",
    ]
    for name in names:
        sparsearray.save(name, np.arange(5))
        assert np.load(name).tolist() == list(range(5))
        with sparsearray.open(name, "w+", dtype="u1", shape=3, maxshape=9) as made:
            made.append([7])
            assert os.fsencode(os.fsdecode(name)) in repr(made).encode() or made.path
        array = sparsearray.open(name)
        assert np.asarray(array).tolist() == [0, 0, 0, 7]
        assert array.path == os.path.abspath(os.fsdecode(name))
    assert len(list(tmp_path.iterdir())) == len(names)
    other = tmp_path / "elsewhere"
    other.mkdir()
    array = sparsearray.open("a.npy", "r+", maxshape=20)
    monkeypatch.chdir(other)
    array.append([8])
    assert array.path == str(tmp_path / "a.npy")
    assert np.load(tmp_path / "a.npy").tolist() == [0, 0, 0, 7, 8]
    array.save("f.npy")
    assert np.load("f.npy").tolist() == [0, 0, 0, 7, 8]


def test_symlink(tmp_path: Path) -> None:
    """What a link points to is replaced, and the link stays; a dangling one gets its file."""
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "target.npy", tmp_path / "link.npy"
    link.symlink_to("there/target.npy")
    for array in (np.arange(3), np.arange(4)):
        sparsearray.save(link, array)
        assert link.is_symlink()
        assert not target.is_symlink()
        assert np.load(target).tolist() == array.tolist()
    sparsearray.open(link, "w+", shape=5).close()
    assert np.load(target).tolist() == [0] * 5
    assert link.is_symlink()
    assert names(tmp_path / "there") == ["target.npy"]


@pytest.mark.parametrize("mode", ["r", "c"])
def test_save_onto_itself(mode: Any, tmp_path: Path) -> None:
    """An array saved under the name of its own file loses nothing."""
    path, expected = tmp_path / "a.npy", np.arange(3000.0)
    sparsearray.save(path, expected)
    array = sparsearray.open(path, mode)
    array.save(path)
    assert_same(np.load(path), expected)
    assert_same(array, expected)
    sparsearray.save(path, array[::2])  # a window of it
    assert_same(np.load(path), expected[::2])
    assert names(tmp_path) == ["a.npy"]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664, 0o750])
def test_permissions_are_kept(mode: int, tmp_path: Path) -> None:
    """A file that is replaced keeps its mode bits; a new one gets those of the umask."""
    path = tmp_path / "a.npy"
    path.write_bytes(b"old")
    path.chmod(mode)
    sparsearray.save(path, np.arange(3))
    assert stat.S_IMODE(path.stat().st_mode) == mode
    (tmp_path / "b").write_bytes(b"")
    sparsearray.save(tmp_path / "b.npy", np.arange(3))
    assert (tmp_path / "b.npy").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_nobody_reads_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What replaces a secret file is as secret from the start."""
    path, seen = tmp_path / "a.npy", []
    path.write_bytes(b"old")
    path.chmod(0o600)
    opened = os.open

    def look(*arguments: Any, **more: Any) -> int:
        fd = opened(*arguments, **more)
        seen.append(stat.S_IMODE(os.fstat(fd).st_mode))
        return fd

    monkeypatch.setattr(os, "open", look)
    sparsearray.save(path, np.arange(3))
    assert seen[0] == 0o600


# Progress


@pytest.mark.usefixtures("told_pages")
def test_progress(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With tqdm a bar is shown, without it an ImportError says what to install."""
    if find_spec("tqdm") is None:
        pytest.skip("tqdm is not installed")
    sparsearray.save(tmp_path / "a.npy", np.arange(5000), progress=True)
    assert "save" in capsys.readouterr().err
    sparsearray.save(tmp_path / "a.npy", np.arange(5000))
    assert capsys.readouterr().err == ""
    array = sparsearray.zeros(1 << 30)
    array[5] = 1
    array.save(tmp_path / "a.npy", progress=True)
    assert "100%" in capsys.readouterr().err


def test_progress_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar goes on while a long array is written, up to its bytes."""
    told: list[int] = []

    class Bar:
        def __init__(self, total: int, **_: Any) -> None:
            told[:] = [total]

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, nbytes: int) -> None:
            told.append(nbytes)

    module: Any = type(sys)("tqdm.auto")
    module.tqdm = Bar
    monkeypatch.setitem(sys.modules, "tqdm", type(sys)("tqdm"))
    monkeypatch.setitem(sys.modules, "tqdm.auto", module)
    sparse = sparsearray.zeros(3 << 20)
    sparse[...] = 1
    dense = np.ones(3 << 20)
    for array in (dense, sparse, np.ones((3, 1 << 20))[::-1]):
        sparsearray.save(tmp_path / "a.npy", array, progress=True)
        total, *parts = told
        assert total == sum(parts) == 24 << 20
        assert len(parts) > 2


def test_progress_without_tqdm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unchanged_files: Any
) -> None:
    """Without tqdm an ImportError says what to install, and nothing is written."""
    (tmp_path / "a.npy").write_bytes(b"old")
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    for array in (np.arange(3), sparsearray.zeros(3)):
        with unchanged_files(), pytest.raises(ImportError, match="pip install"):
            sparsearray.save(tmp_path / "a.npy", array, progress=True)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give away"
)
def test_owner_stays(tmp_path: Path) -> None:
    """A file that is saved over stays its owner's."""
    path = tmp_path / "a.npy"
    np.save(path, [1])
    os.chown(path, 12345, 54321)
    path.chmod(0o640)
    sparsearray.save(path, np.zeros(3))
    found = path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (12345, 54321, 0o640)
