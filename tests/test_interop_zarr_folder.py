"""zarr arrays written to folders: whole or not at all, and what is there stays unless asked for."""

from pathlib import Path

import numpy as np
import pytest

import sparsearray
from sparsearray import TiledArray

zarr = pytest.importorskip("zarr", reason="the extra zarr is not installed")

from sparsearray.interop.zarr import from_zarr  # noqa: E402 - needs zarr

from .zarr_arrays import PAGE, QUIET, make, names_in  # noqa: E402 - needs zarr

pytestmark = QUIET


def test_nothing_is_replaced_unasked(tmp_path):
    """What is there stays, unless it is to be overwritten; and a folder that is no array always."""
    a = sparsearray.zeros(10)
    a[1] = 1
    a.to_zarr(tmp_path / "a")
    with pytest.raises(FileExistsError, match="overwrite"):
        a.to_zarr(tmp_path / "a")
    a[2] = 2
    assert a.to_zarr(tmp_path / "a", overwrite=True)[2] == 2
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear").write_text("friend")
    with pytest.raises(FileExistsError, match="no zarr array or group"):
        a.to_zarr(tmp_path / "letters", overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        a.to_zarr(tmp_path / "file", overwrite=True)
    assert names_in(tmp_path) == ["a", "file", "letters"]


@pytest.mark.parametrize("compressors", [None, "auto"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_failure_leaves_nothing(tmp_path, monkeypatch, error, compressors):
    """A write that fails leaves the old array, and nothing of the new one."""
    a = sparsearray.zeros((64, 64), tiles=8)
    a[...] = 1
    a.to_zarr(tmp_path / "a")
    before = sorted(map(str, tmp_path.rglob("*")))
    calls = iter(range(100))
    reader = a._box_reader()

    def read(box):
        if next(calls) == 20:
            raise error
        return reader(box)

    monkeypatch.setattr(TiledArray, "_box_reader", lambda _: read)
    for name in ("a", "new"):
        with pytest.raises(type(error)):
            a.to_zarr(tmp_path / name, overwrite=True, compressors=compressors)
        calls = iter(range(100))
    assert sorted(map(str, tmp_path.rglob("*"))) == before
    store = zarr.storage.MemoryStore()
    with pytest.raises(type(error)):
        a.to_zarr(store, path="x")
    assert "x/zarr.json" not in store._store_dict
    monkeypatch.undo()
    assert np.array_equal(zarr.open_array(tmp_path / "a")[...], np.ones((64, 64)))


@pytest.mark.parametrize(
    ("where", "compressors"), [("new", None), ("new", "auto"), ("empty", None), ("memory", None)]
)
def test_ctrl_c_leaves_nothing(run_ok, tmp_path, where, compressors):
    """Two quick Ctrl-Cs while chunks are written leave nothing behind."""
    run_ok(
        f"""
        import time, zarr
        from sparsearray.tiled import TiledArray
        a = zeros((512, 512), "u1", tiles=16)
        a[...] = 1
        reader, began, over, raised = a._box_reader(), threading.Event(), threading.Event(), []
        def read(box):
            began.set()
            time.sleep(0.001)
            return reader(box)
        TiledArray._box_reader = lambda _: read
        def interrupt():
            began.wait()
            while not over.is_set():
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.0005)
        def stop(*_):
            if len(raised) < 2:
                raised.append(1)
                raise KeyboardInterrupt
        signal.signal(signal.SIGINT, stop)
        os.mkdir("x")
        store = zarr.storage.MemoryStore() if {where!r} == "memory" else "x"
        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            try:
                a.to_zarr(store if {where!r} != "new" else "x/a", compressors={compressors!r})
            finally:
                over.set()
                thread.join()
        except KeyboardInterrupt:
            over.set()
            thread.join()
        assert raised
        assert {where!r} != "memory" or not store._store_dict
        """
    )
    assert names_in(tmp_path / "x") == []


def test_handler_that_goes_on(run_ok):
    """A handler that raises nothing is called while chunks are written, and all of them are."""
    run_ok(
        """
        from sparsearray.tiled import TiledArray
        import zarr
        a = zeros((512, 512), "u1", tiles=16)
        a[...] = 1
        reader, came = a._box_reader(), []
        def read(box):
            if not came and box[0].start == 256:
                os.kill(os.getpid(), signal.SIGINT)
            return reader(box)
        TiledArray._box_reader = lambda _: read
        signal.signal(signal.SIGINT, lambda *_: came.append(os.listdir("x")))
        os.mkdir("x")
        assert (a.to_zarr("x/a")[...] == 1).all()
        assert came and "a" not in came[0]
        """
    )


def test_folder_that_somebody_makes_meanwhile(tmp_path, monkeypatch):
    """What another has put in the place while chunks were written stays."""
    a = sparsearray.zeros((64, 64), tiles=8)
    a[...] = 1
    reader = a._box_reader()
    for name in ("new", "empty"):
        target = tmp_path / name
        if name == "empty":
            target.mkdir()

        def read(box, target=target):
            if box[0].start == box[1].start == 0:
                make(target, (3,), (3,))[...] = 7
            return reader(box)

        monkeypatch.setattr(TiledArray, "_box_reader", lambda _, read=read: read)
        with pytest.raises(FileExistsError, match="by now") as caught:
            a.to_zarr(target)
        assert caught.value.filename == str(target)
        assert (zarr.open_array(target)[...] == 7).all()
        assert names_in(target) == ["c", "zarr.json"]
    assert names_in(tmp_path) == ["empty", "new"]


def test_folder_behind_a_link(tmp_path):
    """A link to the folder of an array stays, and leads to the new one."""
    a = sparsearray.zeros(10)
    a.to_zarr(tmp_path / "there")
    (tmp_path / "link").symlink_to("there")
    a[3] = 5
    a.to_zarr(tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert zarr.open_array(tmp_path / "there")[3] == 5
    assert names_in(tmp_path) == ["link", "there"]


def test_own_store_is_replaced(tmp_path):
    """An array may be written over its own chunks, and shows the old ones; but not in mode 'r+'."""
    a = sparsearray.zeros((64, PAGE), tiles=(8, PAGE // 64))
    a[3, 3] = 1
    a.to_zarr(tmp_path / "a", compressors=None)
    with from_zarr(tmp_path / "a") as b:
        b.to_zarr(tmp_path / "a", overwrite=True)
        assert b.sum() == 1
    a.to_zarr(tmp_path / "a", overwrite=True, compressors=None)
    with from_zarr(tmp_path / "a", mode="r+") as b:
        with pytest.raises(ValueError, match="is the array's own"):
            b.to_zarr(tmp_path / "a", overwrite=True)
        with pytest.raises(ValueError, match="is the array's own"):
            b.to_zarr(zarr.open_array(tmp_path / "a"))
    a.to_zarr(tmp_path / "g", path="x", compressors=None)
    with from_zarr(tmp_path / "g", path="x", mode="r+") as b:
        with pytest.raises(ValueError, match="or holds it"):
            b.to_zarr(tmp_path / "g", overwrite=True)
        b[3, 3] = 2
    assert zarr.open_group(tmp_path / "g")["x"][3, 3] == 2


# Folders that are there


def test_empty_folder_stays(tmp_path, monkeypatch):
    """An empty folder is filled, the working one too, and keeps its place and permissions."""
    a = sparsearray.zeros((64, 64), tiles=8)
    a[3, 3] = 1
    for version in (2, 3):
        folder = tmp_path / f"v{version}"
        folder.mkdir(0o750)
        before = folder.stat()
        monkeypatch.chdir(folder)
        z = a.to_zarr(".", zarr_format=version)
        after = folder.stat()
        assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
        assert z[3, 3] == 1
        assert not [name for name in names_in(folder) if name.endswith(".tmp")]
        assert zarr.open_array(folder)[3, 3] == 1


@pytest.mark.parametrize("when", ["writing", "moving"])
def test_empty_folder_after_a_failure(tmp_path, monkeypatch, when):
    """It is empty again, whether chunks cannot be written or not be moved into it."""
    a = sparsearray.zeros((64, 64), tiles=8)
    a[...] = 1
    (tmp_path / "a").mkdir()
    rename = Path.rename

    def fail(path, target):
        if path.name == "zarr.json":
            raise OSError(5, "Input/output error")
        return rename(path, target)

    if when == "moving":
        monkeypatch.setattr(Path, "rename", fail)
    else:
        monkeypatch.setattr(TiledArray, "_box_reader", lambda _: fail(Path("zarr.json"), ""))
    with pytest.raises(OSError, match="Input/output"):
        a.to_zarr(tmp_path / "a")
    assert names_in(tmp_path) == ["a"]
    assert names_in(tmp_path / "a") == []


def test_permissions_of_the_old_array(tmp_path, monkeypatch):
    """What replaces an array has its mode, and nobody else looks into it before."""
    a = sparsearray.zeros((64, 64), tiles=8)
    a[...] = 1
    new = tmp_path / "new"
    new.mkdir()
    a.to_zarr(tmp_path / "a")
    assert (tmp_path / "a").stat().st_mode == new.stat().st_mode
    (tmp_path / "a").chmod(0o710)
    seen = set()
    reader = a._box_reader()

    def read(box):
        seen.update(oct(p.stat().st_mode & 0o777) for p in tmp_path.iterdir() if "tmp" in p.name)
        return reader(box)

    monkeypatch.setattr(TiledArray, "_box_reader", lambda _: read)
    a.to_zarr(tmp_path / "a", overwrite=True)
    assert seen == {"0o700"}
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o710
