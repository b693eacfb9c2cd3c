"""`sparsearray convert`: an array in another format, the same to the bit, and no holes filled."""

import errno
import os
import resource
import signal
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsearray
from sparsearray.cli import main

from .array_files import assert_same, names, stored
from .command_line import run, run_interrupted
from .stitched_files import new_folder

P = os.sysconf("SC_PAGESIZE")


def convert(*arguments: object) -> int:
    """Run it here."""
    return main(["convert", *map(str, arguments)])


def some_array() -> np.ndarray:
    """Make an array that is mostly zeros, and has those that equal them and are not."""
    array = np.zeros((300, 200))
    array[20:40, 50:60] = np.arange(200.0).reshape(20, 10)
    array[250, 199], array[299, 0] = -0.0, np.nan
    return array


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Draw arrays of few dtypes and shapes, most of them zero."""
    kinds = ["u1", ">i2", "<f4", "c16", "?", "S3", "M8[s]", [("a", "u1"), ("b", ">f8", (2,))]]
    dtype = np.dtype(draw(st.sampled_from(kinds)))
    shape = draw(st.sampled_from([(1,), (7,), (5000,), (70, 65), (3, 100, 5), (1, 1, 1, 9)]))
    array = np.zeros(shape, dtype)
    raw = array.reshape(-1).view(f"V{dtype.itemsize}")
    for place in draw(st.lists(st.integers(0, array.size - 1), max_size=4)):
        raw[place] = np.void(b"\1" * dtype.itemsize)
    return np.asfortranarray(array) if draw(st.booleans()) else array


@settings(deadline=None, max_examples=40)
@given(array=arrays(), tiles=st.sampled_from(["auto", "none", "each"]))
def test_tiles_and_back(array: np.ndarray, tiles: str, memory_folder: Path) -> None:
    """Whatever the layout between, the array is the same, and plain numpy reads it in the end."""
    wanted = ",".join(["3"] * array.ndim) if tiles == "each" else tiles
    with new_folder(memory_folder) as folder:
        np.save(folder / "a.npy", array)
        assert convert(folder / "a.npy", folder / "b.npy", "--tiles", wanted) == 0
        with sparsearray.open(folder / "b.npy") as found:
            assert_same(found, array)
            assert hasattr(found, "tiles") is (tiles != "none")
            assert getattr(found, "tiles", None) == (3,) * array.ndim or tiles != "each"
        assert convert(folder / "b.npy", folder / "c.npy", "--tiles=none") == 0
        found = np.load(folder / "c.npy")
        assert_same(found, array)
        assert found.flags.c_contiguous
        assert names(folder) == ["a.npy", "b.npy", "c.npy"]


def test_the_layout_stays_by_default(tmp_path: Path) -> None:
    """Tiles stay tiles, and Fortran order that, if nothing else is asked for."""
    array = sparsearray.zeros((100, 100), "u2", tiles=(10, 20))
    array[3:5, 7] = 9
    array.save(tmp_path / "tiles.npy")
    np.save(tmp_path / "f.npy", np.asfortranarray(array[...]))
    for name in ("tiles.npy", "f.npy"):
        assert convert(tmp_path / name, tmp_path / f"2{name}") == 0
        with sparsearray.open(tmp_path / f"2{name}") as found:
            assert_same(found, array[...])
            assert getattr(found, "tiles", (10, 20)) == (10, 20)
            assert getattr(found, "order", "F") == "F"


@pytest.mark.usefixtures("told_pages")
def test_holes_are_neither_read_nor_filled(tmp_path: Path) -> None:
    """A terabyte with a few items becomes another one, in tiles and back, within a few pages."""
    with sparsearray.open(tmp_path / "a.npy", "w+", shape=(1 << 20, 1 << 17)) as array:
        array[1000, 2000:2004] = 1, 2, 3, 4
        array[1 << 19, 1 << 16] = 5
    assert convert(tmp_path / "a.npy", tmp_path / "b.npy", "--tiles", "16,32") == 0
    assert convert(tmp_path / "b.npy", tmp_path / "c.npy", "--tiles", "none") == 0
    for name in ("b.npy", "c.npy"):
        assert stored(tmp_path / name) <= 6 * max(P, 4096)
        with sparsearray.open(tmp_path / name) as found:
            assert found.shape == (1 << 20, 1 << 17)
            assert found.sum() == 15
            assert found[1000, 2003] == 4


# Raw files


def test_raw_files(tmp_path: Path) -> None:
    """A dtype says that it is one; where it begins, and a shape with one length left open."""
    items = np.arange(1, 1001, dtype=">u2")
    (tmp_path / "a.bin").write_bytes(b"head!" + items.tobytes())
    assert convert(tmp_path / "a.bin", tmp_path / "b.npy", "--dtype", ">u2", "--offset=5") == 0
    assert_same(np.load(tmp_path / "b.npy"), items)
    options = ["--dtype=>u2", "--offset=0x5", "--shape=-1,10", "--tiles=5x5"]
    assert convert(tmp_path / "a.bin", tmp_path / "c.npy", *options) == 0
    with sparsearray.open(tmp_path / "c.npy") as found:
        assert_same(found, items.reshape(-1, 10))
    options = ["--dtype=>u2", "--offset=5", "--shape=4,-1,5"]
    assert convert(tmp_path / "a.bin", tmp_path / "e.npy", *options) == 0
    assert_same(np.load(tmp_path / "e.npy"), items.reshape(4, -1, 5))
    options = ["--dtype=>u2", "--offset=5", "--shape=3,4", "--from=raw"]
    assert convert(tmp_path / "a.bin", tmp_path / "d.npy", *options) == 0
    assert_same(np.load(tmp_path / "d.npy"), items[:12].reshape(3, 4))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--dtype=f8"], "a: 0x32 (50) bytes are no whole items of float64"),
        (["--dtype=u1", "--offset=100"], "has 0x32 (50) bytes, and none at 0x64 (100)"),
        (["--dtype=u1", "--offset=-1"], "none at -1"),
        (["--dtype=u1", "--shape=7,8"], "a: 50 items of uint8 make no --shape 7,8"),
        (["--dtype=u1", "--shape=-1,7"], "a: 50 items of uint8 make no --shape -1,7"),
        (["--dtype=u1", "--shape=-1,-1"], "make no --shape -1,-1"),
        (["--dtype=V50", "--shape=-1,-1"], "a: 1 items of |V50 make no --shape -1,-1"),
        (["--dtype=u1", "--shape=-2"], "make no --shape -2"),
        (["--dtype=u1", "--shape=0"], "make no --shape 0"),
        (["--dtype=u1", "--shape=99999999999999999999"], "no --shape 99999999999999999999"),
        (["--dtype=u4", "--shape=-1,2"], "a: 0x32 (50) bytes are no whole items of uint32"),
        (["--dtype=u1", "--offset=50"], "a: 0 items of uint8 make no --shape -1"),
        (["--dtype=O"], "holds Python objects"),
        (["--dtype=nonsense"], "--dtype: data type 'nonsense' not understood"),
        (["--dtype=,"], "--dtype: ',' not understood"),
        (["--dtype=V0"], "no bytes"),
    ],
)
def test_raw_files_that_are_not_so(
    options: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, and nothing is made."""
    (tmp_path / "a").write_bytes(bytes(50))
    assert convert(tmp_path / "a", tmp_path / "b.npy", *options) == 1
    error = capsys.readouterr().err
    assert error.startswith("sparsearray: error: ")
    assert error.count("\n") == 1
    assert text in error
    assert names(tmp_path) == ["a"]


# What it is


def test_what_begins_like_npy_is_npy(tmp_path: Path) -> None:
    """Without a name that tells, the file itself does."""
    np.save(tmp_path / "a.npy", some_array())
    (tmp_path / "a.npy").rename(tmp_path / "data")
    assert convert(tmp_path / "data", tmp_path / "b.npy") == 0
    assert_same(np.load(tmp_path / "b.npy"), some_array())
    assert convert(tmp_path / "data", tmp_path / "c", "--to=npy", "--from=npy") == 0
    assert (tmp_path / "c").read_bytes() == (tmp_path / "b.npy").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["a.npy", "b"], "b does not say what it is to be: --to npy, zarr or hdf5"),
        (["raw", "b.npy"], "raw does not say what it is: --from npy, zarr or hdf5; or --dtype"),
        (["raw", "b.npy", "--from=raw"], "raw is raw: --dtype says what its items are"),
        (["a.npy", "b.npy", "--dtype=u1"], "--dtype is for a raw SRC, and a.npy is npy"),
        (["a.npy", "b.npy", "--offset=1"], "--offset is for a raw SRC"),
        (["a.npy", "b.npy", "--chunks=3"], "--chunks is for a DST in zarr or HDF5"),
        (["a.npy", "b.h5", "--tiles=3"], "--tiles is for a DST in .npy, and it is to be hdf5"),
        (["a.npy", "b.npy", "--dataset=a"], "--dataset is for HDF5, and neither SRC nor DST is"),
        (["a.npy", "b.npy", "--tiles=x"], "invalid tiles value: 'x'"),
        (["a.npy", "b.npy", "--to=raw"], "invalid choice: 'raw'"),
        (["a.npy", "b.zarr", "--chunks=0,1"], "argument --chunks: 0,1: each is at least 1"),
        (["a.npy", "b.npy", "--tiles=-1,1"], "argument --tiles: -1,1: each is at least 1"),
        (["a.npy", "b.h5", "--dataset="], "--dataset '' is no name of a dataset"),
        (["a.npy", "b.h5", "--dataset=/"], "--dataset '/' is no name of a dataset"),
    ],
)
def test_wrong_usage(
    arguments: list[str],
    text: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Status 2, how it is used, and what is wrong."""
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", some_array())
    (tmp_path / "raw").write_bytes(b"x")
    with pytest.raises(SystemExit) as caught:
        main(["convert", *arguments])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("usage: sparsearray convert")
    assert text in error
    assert names(tmp_path) == ["a.npy", "raw"]


@pytest.mark.parametrize(
    ("name", "chunks", "text"),
    [
        ("b.zarr", "9,9,9", "does not fit shape (300, 200): one number for each axis"),
        ("b.zarr", "99999999999999999999,1", "bytes, and zarr takes 0x7e000000 (2113929216)"),
        ("b.h5", "301,1", "in HDF5 a chunk is no longer than the array of (300, 200)"),
    ],
)
def test_chunks_that_cannot_be(
    name: str, chunks: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line that names the option."""
    np.save(tmp_path / "a.npy", some_array())
    assert convert(tmp_path / "a.npy", tmp_path / name, "--chunks", chunks) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"sparsearray: error: --chunks {chunks}")
    assert error.endswith(f"{text}\n")
    assert names(tmp_path) == ["a.npy"]


# All or nothing


@pytest.mark.parametrize("tiles", ["none", "auto"])
def test_what_is_there_is_refused(
    tiles: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unless --force replaces it, as a whole."""
    source, target = tmp_path / "a.npy", tmp_path / "b.npy"
    np.save(source, some_array())
    target.write_bytes(b"old")
    assert convert(source, target, "--tiles", tiles) == 1
    error = capsys.readouterr().err
    assert error == f"sparsearray: error: {target}: is there already; --force replaces it\n"
    assert target.read_bytes() == b"old"
    assert convert(source, target, "--tiles", tiles, "--force") == 0
    with sparsearray.open(target) as found:
        assert_same(found, some_array())


@pytest.mark.parametrize("options", [["--tiles=none"], ["--tiles=50,50"], ["--to=hdf5"]])
def test_a_file_that_comes_meanwhile_stays(
    options: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Somebody writes one of that name just before the new one is put there."""
    if "hdf5" in options[0]:
        pytest.importorskip("h5py", reason="of the extra hdf5")
    source, target = tmp_path / "a.npy", tmp_path / "b.npy"
    np.save(source, some_array())
    fsync = os.fsync

    def appear(fd: int) -> None:
        if not target.exists():  # once: a folder is synced as well
            target.write_bytes(b"precious")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", appear)
    assert convert(source, target, *options) == 1
    assert capsys.readouterr().err == (
        f"sparsearray: error: {target}: is there by now, and is not replaced\n"
    )
    assert target.read_bytes() == b"precious"
    assert names(tmp_path) == ["a.npy", "b.npy"]
    monkeypatch.undo()
    assert convert(source, target, *options, "--force") == 0
    assert target.read_bytes() != b"precious"


def test_a_source_is_not_its_own_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not even by force, nor by another name."""
    np.save(tmp_path / "a.npy", some_array())
    (tmp_path / "b.npy").symlink_to("a.npy")
    for name in ("a.npy", "b.npy"):
        assert convert(tmp_path / "a.npy", tmp_path / name, "--force", "--tiles=auto") == 1
        assert "are the same" in capsys.readouterr().err
    assert_same(np.load(tmp_path / "a.npy"), some_array())


def test_a_folder_of_anything_is_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """However much force: only zarr's own folders are known to hold nothing else."""
    np.save(tmp_path / "a.npy", some_array())
    (tmp_path / "home.zarr").mkdir()
    (tmp_path / "home.zarr" / "letter").write_text("dear")
    for to in ("npy", "zarr", "hdf5"):
        assert convert(tmp_path / "a.npy", tmp_path / "home.zarr", "--force", "--to", to) == 1
        assert "is a folder, and not of zarr's" in capsys.readouterr().err
    assert (tmp_path / "home.zarr" / "letter").read_text() == "dear"


@pytest.mark.usefixtures("told_room")
@pytest.mark.parametrize("tiles", ["none", "7,7"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_full_disk_is_one_line_and_leaves_nothing(
    tiles: str,
    order: Any,
    small_disk: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whether it is copied as it lies or box by box; the old file stays."""
    np.save(tmp_path / "a.npy", np.ones((200, 100 * P // 8 // 200), order=order))
    (small_disk / "b.npy").write_bytes(b"old")
    arguments = (tmp_path / "a.npy", small_disk / "b.npy", "--force", "--tiles", tiles)
    assert convert(*arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("sparsearray: error: ")
    assert str(small_disk / "b.npy") in error
    assert os.strerror(errno.ENOSPC) in error
    assert error.count("\n") == 1
    assert names(small_disk) == ["b.npy"]
    assert (small_disk / "b.npy").read_bytes() == b"old"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_conversion_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    """In the middle of it: no temporary file, and no traceback."""
    folder = tmp_path / "folder"
    folder.mkdir()
    np.save(tmp_path / "a.npy", np.ones((6000, 6000)))
    done = run_interrupted(number, "convert", "--tiles=30,30", tmp_path / "a.npy", folder / "b.npy")
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", "")
    assert names(folder) == []


def test_damaged_and_missing_sources(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line that names the file."""
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00")
    (tmp_path / "empty.npy").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo.npy")
    for name in ("a.npy", "empty.npy", "folder", "missing.npy", "fifo.npy", "missing"):
        assert convert(tmp_path / name, tmp_path / "b.npy") == 1
        error = capsys.readouterr().err
        assert error.startswith("sparsearray: error: ")
        assert name in error
        assert error.count("\n") == 1
    assert not (tmp_path / "b.npy").exists()


def test_a_progress_bar_where_asked_for(tmp_path: Path) -> None:
    """Of what is stored."""
    pytest.importorskip("tqdm", reason="of the extra progress")
    np.save(tmp_path / "a.npy", np.ones(100 * P // 8))
    assert "100%" in run("convert", "--progress", tmp_path / "a.npy", tmp_path / "b.npy").stderr
    options = ["--progress", "--tiles=300"]
    assert "100%" in run("convert", *options, tmp_path / "a.npy", tmp_path / "c.npy").stderr


# zarr and HDF5


def test_zarr_and_back(tmp_path: Path) -> None:
    """Zarr itself reads what is written, in the chunks that were asked for, and so do we."""
    zarr = pytest.importorskip("zarr", reason="of the extra zarr")
    pytest.importorskip("sparsearray.interop.zarr")
    np.save(tmp_path / "a.npy", some_array())
    assert convert(tmp_path / "a.npy", tmp_path / "b.zarr", "--chunks", "32,50") == 0
    made = zarr.open_array(tmp_path / "b.zarr", mode="r")
    assert made.chunks == (32, 50)
    assert_same(made[...], some_array())
    assert convert(tmp_path / "b.zarr", tmp_path / "c.npy") == 0
    assert_same(np.load(tmp_path / "c.npy"), some_array())
    assert convert(tmp_path / "b.zarr", tmp_path / "d.npy", "--tiles=auto") == 0
    with sparsearray.open(tmp_path / "d.npy") as found:
        assert_same(found, some_array())
        assert found.tiles != (32, 50)
    assert names(tmp_path) == ["a.npy", "b.zarr", "c.npy", "d.npy"]


def test_zarr_is_replaced_as_a_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By force; chunks of the old array are not found in the new one."""
    zarr = pytest.importorskip("zarr", reason="of the extra zarr")
    pytest.importorskip("sparsearray.interop.zarr")
    np.save(tmp_path / "a.npy", some_array())
    np.save(tmp_path / "zeros.npy", np.zeros((300, 200)))
    assert convert(tmp_path / "a.npy", tmp_path / "b.zarr") == 0
    assert convert(tmp_path / "zeros.npy", tmp_path / "b.zarr") == 1
    assert "is there already" in capsys.readouterr().err
    assert_same(zarr.open_array(tmp_path / "b.zarr", mode="r")[...], some_array())
    assert convert(tmp_path / "zeros.npy", tmp_path / "b.zarr", "-f") == 0
    assert not zarr.open_array(tmp_path / "b.zarr", mode="r")[...].any()
    assert names(tmp_path) == ["a.npy", "b.zarr", "zeros.npy"]


@pytest.mark.parametrize("is_empty", [True, False])
def test_a_folder_that_comes_meanwhile_stays(
    is_empty: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Somebody makes one of that name before the new one is put there."""
    pytest.importorskip("zarr", reason="of the extra zarr")
    module = pytest.importorskip("sparsearray.interop.zarr")
    source, target = tmp_path / "a.npy", tmp_path / "b.zarr"
    np.save(source, some_array())
    to_zarr = module.to_zarr

    def write(*arguments: Any, **options: Any) -> None:
        to_zarr(*arguments, **options)
        target.mkdir()
        if not is_empty:
            (target / "letter").write_text("dear")

    monkeypatch.setattr(module, "to_zarr", write)
    assert convert(source, target) == 1
    assert capsys.readouterr().err == (
        f"sparsearray: error: {target}: is there by now; --force replaces it\n"
    )
    assert names(target) == ([] if is_empty else ["letter"])
    assert names(tmp_path) == ["a.npy", "b.zarr"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_old_folder_is_removed_however_it_ends(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal that comes just then ends the command when nothing of the old one is left."""
    zarr = pytest.importorskip("zarr", reason="of the extra zarr")
    pytest.importorskip("sparsearray.interop.zarr")
    np.save(tmp_path / "a.npy", some_array())
    np.save(tmp_path / "zeros.npy", np.zeros((300, 200)))
    assert convert(tmp_path / "a.npy", tmp_path / "b.zarr") == 0
    unlink, removed = os.unlink, 0

    def unlink_and_signal(*arguments: Any, **options: Any) -> None:
        nonlocal removed
        removed += 1
        if removed == 1:
            signal.raise_signal(number)
        unlink(*arguments, **options)

    monkeypatch.setattr(os, "unlink", unlink_and_signal)
    assert convert(tmp_path / "zeros.npy", tmp_path / "b.zarr", "-f") == 128 + number
    assert removed > 1
    assert names(tmp_path) == ["a.npy", "b.zarr", "zeros.npy"]
    assert not zarr.open_array(tmp_path / "b.zarr", mode="r")[...].any()


def test_a_folder_keeps_its_permissions(tmp_path: Path) -> None:
    """Those of the old one, which nobody else looks into before either; a new one the umask's."""
    pytest.importorskip("zarr", reason="of the extra zarr")
    pytest.importorskip("sparsearray.interop.zarr")
    np.save(tmp_path / "a.npy", some_array())
    old = os.umask(0o027)
    try:
        assert convert(tmp_path / "a.npy", tmp_path / "b.zarr") == 0
        assert stat.S_IMODE((tmp_path / "b.zarr").stat().st_mode) == 0o750
        (tmp_path / "b.zarr").chmod(0o700)
        assert convert(tmp_path / "a.npy", tmp_path / "b.zarr", "-f") == 0
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "b.zarr").stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_folder_keeps_its_owner(tmp_path: Path) -> None:
    """And so do the files in it, as a .npy file does."""
    pytest.importorskip("zarr", reason="of the extra zarr")
    pytest.importorskip("sparsearray.interop.zarr")
    np.save(tmp_path / "a.npy", some_array())
    assert convert(tmp_path / "a.npy", tmp_path / "b.zarr") == 0
    os.chown(tmp_path / "b.zarr", 1234, 5678)
    assert convert(tmp_path / "a.npy", tmp_path / "b.zarr", "-f") == 0
    for path in (tmp_path / "b.zarr", *(tmp_path / "b.zarr").rglob("*")):
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 5678)


def test_folders_above_are_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a .zarr as little as of a .npy or .h5: the name may be mistyped."""
    pytest.importorskip("zarr", reason="of the extra zarr")
    pytest.importorskip("h5py", reason="of the extra hdf5")
    np.save(tmp_path / "a.npy", some_array())
    for name in ("b.zarr", "b.npy", "b.h5"):
        target = tmp_path / "missing" / name
        assert convert(tmp_path / "a.npy", target) == 1
        text = os.strerror(errno.ENOENT)
        assert capsys.readouterr().err == f"sparsearray: error: {target}: {text}\n"
    assert names(tmp_path) == ["a.npy"]


@pytest.mark.parametrize("name", ["b.npy", "b.h5", "b.zarr"])
def test_a_limit_on_files_is_one_line(name: str, tmp_path: Path) -> None:
    """That names what was asked for: setrlimit(2); nothing is left."""
    package = {"b.h5": "h5py", "b.zarr": "zarr"}.get(name, "numpy")
    pytest.importorskip(package, reason="of an extra")
    np.save(tmp_path / "a.npy", np.random.default_rng(1).random((4000, 100)))
    options = ["--chunks=4000,100"] if name == "b.zarr" else []
    done = run(
        "convert",
        tmp_path / "a.npy",
        tmp_path / name,
        *options,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
    )
    assert done.returncode == 1
    text = os.strerror(errno.EFBIG)
    assert done.stderr == f"sparsearray: error: {tmp_path / name}: {text}\n"
    assert names(tmp_path) == ["a.npy"]


def test_warnings_are_one_line(tmp_path: Path) -> None:
    """Of a dtype that zarr's specification does not know yet, zarr warns; it is written."""
    pytest.importorskip("zarr", reason="of the extra zarr")
    pytest.importorskip("sparsearray.interop.zarr")
    np.save(tmp_path / "a.npy", np.array([b"one", b"two"]))
    done = run("convert", tmp_path / "a.npy", tmp_path / "b.zarr")
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    assert lines
    assert all(line.startswith("sparsearray: warning: The data type ") for line in lines)


@pytest.mark.parametrize("damage", ["data", "metadata"])
def test_damaged_zarr(damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line that names the folder, whatever the library raises: zlib.error, KeyError."""
    zarr = pytest.importorskip("zarr", reason="of the extra zarr")
    pytest.importorskip("sparsearray.interop.zarr")
    folder = tmp_path / "a.zarr"
    made = zarr.create_array(
        folder, shape=20, chunks=20, dtype="f8", compressors=zarr.codecs.GzipCodec()
    )
    made[:] = 1
    if damage == "data":
        (folder / "c/0").write_bytes((folder / "c/0").read_bytes()[:10] + b"\xff" * 20)
    else:
        (folder / "zarr.json").write_text('{"zarr_format": 3, "node_type": "array"}')
    assert convert(folder, tmp_path / "b.npy") == 1
    error = capsys.readouterr().err
    assert error.startswith(f"sparsearray: error: {folder}: ")
    assert error.count("\n") == 1
    assert names(tmp_path) == ["a.zarr"]


def test_hdf5_and_back(tmp_path: Path) -> None:
    """h5py itself reads what is written, under its name, and so do we."""
    h5py = pytest.importorskip("h5py", reason="of the extra hdf5")
    pytest.importorskip("sparsearray.interop.hdf5")
    np.save(tmp_path / "a.npy", some_array())
    assert convert(tmp_path / "a.npy", tmp_path / "b.h5", "--chunks=32x50") == 0
    with h5py.File(tmp_path / "b.h5") as file:
        assert list(file) == ["data"]
        assert file["data"].chunks == (32, 50)
        assert_same(file["data"][...], some_array())
    assert convert(tmp_path / "b.h5", tmp_path / "c.npy") == 0
    assert_same(np.load(tmp_path / "c.npy"), some_array())
    options = ["--dataset", "deep/inside"]
    assert convert(tmp_path / "c.npy", tmp_path / "d.hdf5", *options) == 0
    assert convert(tmp_path / "d.hdf5", tmp_path / "e.npy", *options) == 0
    assert_same(np.load(tmp_path / "e.npy"), some_array())


def test_hdf5_of_several_datasets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Which one has to be said; and it has to be there."""
    h5py = pytest.importorskip("h5py", reason="of the extra hdf5")
    pytest.importorskip("sparsearray.interop.hdf5")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["one"], file["group/two"] = some_array(), [1, 2]
    cases = {
        (): "it has group/two, one: --dataset says which",
        ("--dataset=three",): "there is no dataset 'three'",
        ("--dataset=group",): "there is no dataset 'group'",
    }
    for options, text in cases.items():
        assert convert(path, tmp_path / "b.npy", *options) == 1
        assert capsys.readouterr().err == f"sparsearray: error: {path}: {text}\n"
    (tmp_path / "bad.h5").write_bytes(b"text")
    assert convert(tmp_path / "bad.h5", tmp_path / "b.npy") == 1
    assert capsys.readouterr().err.startswith(f"sparsearray: error: {tmp_path / 'bad.h5'}: ")
    assert convert(path, tmp_path / "b.npy", "--dataset=group/two") == 0
    assert_same(np.load(tmp_path / "b.npy"), np.array([1, 2]))


@pytest.mark.parametrize(("name", "package"), [("b.zarr", "zarr"), ("b.h5", "hdf5")])
def test_a_full_disk_of_other_formats(
    name: str, package: str, small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line that names what was asked for, and nothing is left."""
    pytest.importorskip({"hdf5": "h5py"}.get(package, package), reason="of an extra")
    pytest.importorskip(f"sparsearray.interop.{package}")
    np.save(tmp_path / "a.npy", np.random.default_rng(1).random((100, P)))
    assert convert(tmp_path / "a.npy", small_disk / name) == 1
    text = os.strerror(errno.ENOSPC)
    assert capsys.readouterr().err == f"sparsearray: error: {small_disk / name}: {text}\n"
    assert names(small_disk) == []


@pytest.mark.parametrize(
    ("name", "package"), [("b.zarr", "zarr"), ("b.h5", "h5py")], ids=["zarr", "hdf5"]
)
def test_a_missing_package_is_named(
    name: str,
    package: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In one line, with the extra that brings it; nothing is made."""
    np.save(tmp_path / "a.npy", some_array())
    monkeypatch.setitem(sys.modules, package, None)
    assert convert(tmp_path / "a.npy", tmp_path / name) == 1
    error = capsys.readouterr().err
    extra = {"zarr": "zarr", "h5py": "hdf5"}[package]
    assert error == (
        f"sparsearray: error: convert needs {package}: pip install 'sparsearray-numpy[{extra}]'\n"
    )
    assert names(tmp_path) == ["a.npy"]
