"""HDF5: what is written of an array, and what is left when that fails, compared with what h5py reads."""

import os
import sys

import numpy as np
import pytest

import sparsearray

from .array_files import names

h5py = pytest.importorskip("h5py", reason="the extra hdf5")

from sparsearray.interop.hdf5 import from_hdf5  # noqa: E402 - after h5py

from .hdf5_files import in_file  # noqa: E402 - after h5py


def test_into_a_group(tmp_path):
    """A dataset is put into a file that is open; one that is there stays."""
    a = sparsearray.zeros((100, 100), "u1")
    a[3:50, 3] = 1
    with h5py.File(tmp_path / "a.h5", "w") as file:
        a.to_hdf5(file, "deep/er", compression="gzip")
        assert file["deep/er"].compression == "gzip"
        assert np.array_equal(file["deep/er"][...], a[...])
        with pytest.raises(ValueError, match="has a 'er' already"):
            a.to_hdf5(file["deep"], "er")
        assert np.array_equal(file["deep/er"][...], a[...])


def test_old_files_stay(tmp_path):
    """A file that is there is replaced only when that is asked for."""
    a = sparsearray.zeros(5)
    path = in_file(tmp_path / "a.h5", np.ones(3))
    with pytest.raises(FileExistsError, match="overwrite=True"):
        a.to_hdf5(path)
    a.to_hdf5(path, overwrite=True)
    with h5py.File(path) as file:
        assert list(file) == ["data"]


def test_failure_leaves_nothing(tmp_path):
    """When reading fails on the way, there is no new file and no new dataset, and the old one stays."""
    np.save(tmp_path / "a.npy", np.ones((1000, 1000)))
    source = tmp_path / "source.npy"
    for number in range(2):
        np.save(source, np.ones((1000, 1000)))
        a = sparsearray.open(source)
        path = in_file(tmp_path / "a.h5", np.arange(3))
        os.truncate(source, 4_000_000)
        with h5py.File(path, "a") as file, pytest.raises(sparsearray.AccessError):
            a.to_hdf5(*((file,) if number else (path,)), chunks=(100, 100), overwrite=True)
        with h5py.File(path) as file:
            assert list(file) == ["a"]
    assert names(tmp_path) == ["a.h5", "a.npy", "source.npy"]


@pytest.mark.parametrize("where", ["path", "file"])
@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}], ids=["plain", "gzip"])
def test_full_disk_leaves_nothing(run_ok, small_disk, where, options):
    """A full disk is an error, which the process outlives: HDF5 keeps no chunk it cannot write."""
    run_ok(
        f"""
        import gc
        import h5py
        import numpy as np
        a = zeros((512, 512), tiles="auto")
        a[:] = np.random.default_rng(0).random((512, 512))
        os.chdir({str(small_disk)!r})
        def write(target):
            try:
                a.to_hdf5(target, "deep/er", chunks=(64, 64), **{options!r})
            except OSError:
                return
            raise SystemExit("there was room")
        if {where!r} == "path":
            write("a.h5")
            assert os.listdir() == []
        else:
            with h5py.File("a.h5", "w") as file:
                file["kept"] = 5
                file.flush()
                write(file)
                assert list(file) == ["kept"]
            with h5py.File("a.h5") as file:
                assert list(file) == ["kept"]
        gc.collect()
        """
    )


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}], ids=["plain", "gzip"])
def test_ctrl_c_while_h5py_writes(run_ok, options):
    """A Ctrl-C that comes inside of h5py, where it would be swallowed, is heeded after the chunk."""
    run_ok(
        f"""
        import io
        import h5py
        import numpy as np
        a = zeros((256, 256), "u1", tiles=64)
        a[:] = np.arange(256) % 251
        class Keyboard(io.BytesIO):
            is_used = True
            def write(self, data):
                if self.is_used and self.tell() > 4096:
                    os.kill(os.getpid(), signal.SIGINT)
                return super().write(data)
        keyboard = Keyboard()
        with h5py.File(keyboard, "w") as file:
            try:
                a.to_hdf5(file, chunks=64, **{options!r})
            except KeyboardInterrupt:
                keyboard.is_used = False
            else:
                raise SystemExit("not interrupted")
            assert list(file) == []
        """
    )


def test_two_ctrl_cs(run_ok, tmp_path):
    """Nothing is left of a file, also if a second Ctrl-C comes while the first one ends it."""
    run_ok(
        """
        import h5py
        a = zeros((256, 256), "u1", tiles=64)
        a[:] = 1
        def press(function, times):
            def pressed(*args):
                for _ in range(times):
                    os.kill(os.getpid(), signal.SIGINT)
                return function(*args)
            return pressed
        h5py.Dataset.__setitem__ = press(h5py.Dataset.__setitem__, 1)
        h5py.Group.__delitem__ = press(h5py.Group.__delitem__, 1)
        h5py.File.close = press(h5py.File.close, 1)
        os.mkdir("x")
        try:
            a.to_hdf5("x/a.h5", chunks=64, compression="gzip")
        except KeyboardInterrupt:
            pass
        else:
            raise SystemExit("not interrupted")
        """
    )
    assert names(tmp_path / "x") == []


def test_file_that_somebody_makes_meanwhile(tmp_path, monkeypatch):
    """What another has put in the place while chunks were written stays, without `overwrite`."""
    module, path = sys.modules["sparsearray.interop._hdf5_writing"], tmp_path / "a.h5"
    a = sparsearray.zeros((10, 10))
    a[3, 3] = 1
    monkeypatch.setattr(module, "is_zero_bytes", lambda _: in_file(path, np.arange(3)) is None)
    with pytest.raises(FileExistsError, match="by now") as caught:
        a.to_hdf5(path)
    assert caught.value.filename == str(path)
    with h5py.File(path) as file:
        assert list(file) == ["a"]
    a.to_hdf5(path, overwrite=True)
    assert names(tmp_path) == ["a.h5"]


def test_file_cut_short_at_the_end(tmp_path, monkeypatch):
    """What is lost between the last look at a file and its bytes is an error: no zeros are written."""
    module = sys.modules["sparsearray.interop._hdf5_writing"]
    np.save(tmp_path / "a.npy", np.ones((64, 512)))
    a = sparsearray.open(tmp_path / "a.npy")
    is_zero, calls = module.is_zero_bytes, []

    def look(block):
        found = is_zero(block)
        calls.append(found)
        if len(calls) == 4:
            os.truncate(tmp_path / "a.npy", 3 * 65536)
        return found

    monkeypatch.setattr(module, "is_zero_bytes", look)
    with pytest.raises(sparsearray.AccessError):
        a.to_hdf5(tmp_path / "a.h5", chunks=(16, 512), compression="gzip")
    assert names(tmp_path) == ["a.npy"]


def test_failure_leaves_no_groups(tmp_path):
    """Groups that were made on the way go with a dataset that cannot be made; others stay."""
    a = sparsearray.zeros((100, 100), "u1")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for _ in range(2):
            with pytest.raises(ValueError, match="nope"):
                a.to_hdf5(file, "x/y/z", compression="nope")
            assert list(file) == []
        file.create_group("x")
        file["broken"] = h5py.SoftLink("/nothing")
        with pytest.raises(ValueError, match="nope"):
            a.to_hdf5(file, "/x/y/z", compression="nope")
        with pytest.raises((ValueError, RuntimeError, OSError)):
            a.to_hdf5(file, "broken")
        assert sorted(file) == ["broken", "x"]
        assert list(file["x"]) == []


def test_chunks_are_whole_tiles(tmp_path):
    """By default chunks are some 256 KiB, made of whole tiles."""
    for shape, dtype, tiles in [((1000, 1000), "f8", (16, 32)), ((99, 99, 99), "u1", "auto")]:
        a = sparsearray.zeros(shape, dtype, tiles=tiles)
        a[...] = 1
        a.to_hdf5(tmp_path / "a.h5", overwrite=True)
        with h5py.File(tmp_path / "a.h5") as file:
            chunks = file["data"].chunks
        whole = [n % t == 0 or n == m for n, t, m in zip(chunks, a.tiles, shape, strict=True)]
        assert all(whole)
        assert 128 << 10 <= np.prod(chunks) * a.itemsize <= 1 << 20


def test_chunks_of_small_arrays(tmp_path):
    """The tiles of an array are chunks that do for it, larger than it too; True means the default."""
    a = sparsearray.zeros((10, 1000), tiles=64)
    a[3, 3] = 1
    a.to_hdf5(tmp_path / "default.h5")
    with h5py.File(tmp_path / "default.h5") as file:
        default = file["data"].chunks
    for chunks, expected in ((a.tiles, (10, 64)), (True, default)):
        a.to_hdf5(tmp_path / "a.h5", chunks=chunks, overwrite=True)
        with h5py.File(tmp_path / "a.h5") as file:
            assert file["data"].chunks == expected
            assert np.array_equal(file["data"][...], a[...])


@pytest.mark.parametrize("tiles", [None, "auto"])
@pytest.mark.parametrize("dtype", ["u1", "f8"])
def test_scattered_pages_take_little(tmp_path, tiles, dtype):
    """Default chunks are small where single pages of a terabyte are stored: not 256 KiB for each."""
    a = sparsearray.zeros((1 << 20, 1 << 17), dtype, tiles=tiles)
    numbers = np.random.default_rng(0).integers(0, 1 << 17, (2, 256))
    a[numbers[0], numbers[1]] = 1
    a.to_hdf5(tmp_path / "a.h5")
    assert (tmp_path / "a.h5").stat().st_size < 2.1 * a.nbytes_stored + (1 << 20)
    with from_hdf5(tmp_path / "a.h5", "data") as b:
        assert np.array_equal(b[numbers[0], numbers[1]], np.ones(256, dtype))
        assert b.sum() == a.sum()


def test_empty_with_options(tmp_path):
    """Chunks of an array without items are left out; with `maxshape`, they are its own."""
    for shape in [(0,), (3, 0)]:
        a = sparsearray.zeros(shape, "u1")
        a.to_hdf5(tmp_path / "a.h5", chunks=2, overwrite=True)
        assert from_hdf5(tmp_path / "a.h5", "data").shape == shape
        more = (None,) * len(shape)
        a.to_hdf5(tmp_path / "a.h5", chunks=2, maxshape=more, overwrite=True)
        assert from_hdf5(tmp_path / "a.h5", "data").tiles == (2,) * len(shape)


def test_progress(tmp_path, capsys):
    """A progress bar is shown for what is written, and for what is read."""
    pytest.importorskip("tqdm", reason="the extra progress")
    a = sparsearray.zeros((100, 100))
    a[3, 3] = 1
    a.to_hdf5(tmp_path / "a.h5", progress=True, compression="gzip")
    from_hdf5(tmp_path / "a.h5", "data", progress=True)
    shown = capsys.readouterr().err
    assert "to_hdf5: 100%" in shown
    assert "from_hdf5: 100%" in shown
