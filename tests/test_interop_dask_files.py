"""Files behind dask arrays: what the arrays are named by, and what workers open again."""

import os
import pickle
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import sparsearray

from . import dask_arrays
from .dask_arrays import same

da = pytest.importorskip("dask.array", reason="the extra 'dask' is not installed")
dask = pytest.importorskip("dask")


@pytest.fixture(autouse=True)
def _one_thread():
    """Tasks run one after another."""
    with dask.config.set(scheduler="sync"):
        yield


@pytest.fixture
def holding(tmp_path):
    """Make arrays that hold some data, and the same dense: `dask_arrays.holding`."""
    return partial(dask_arrays.holding, tmp_path)


def test_names_of_files(holding):
    """A file that is only read has the same name each time, and another when it was written."""
    array, _ = holding("file")
    name = array.to_dask().name
    assert sparsearray.open(array.path).to_dask().name == name
    assert array.to_dask((100, 100)).name != name
    assert array.to_dask(name="mine").name == "mine"
    with sparsearray.open(array.path, "r+") as other:
        other[0, 0] = 5
        other.flush()
    assert sparsearray.open(array.path).to_dask().name != name
    with dask.config.set({"tokenize.ensure-deterministic": True}):
        array.to_dask()


@pytest.mark.parametrize("mode", ["r+", "c", None])
def test_names_of_what_can_change(holding, mode):
    """What can be written to has a new name each time, or none at all where dask insists."""
    array, _ = holding("rows" if mode is None else "file")
    if mode is not None:
        array = sparsearray.open(array.path, mode)
    assert array.to_dask().name != array.to_dask().name
    assert dask.tokenize.tokenize(array) != dask.tokenize.tokenize(array)
    with (
        dask.config.set({"tokenize.ensure-deterministic": True}),
        pytest.raises(dask.tokenize.TokenizationError),
    ):
        array.to_dask()


def test_a_replaced_file_has_another_name(holding, tmp_path):
    """A new file in the place of an old one, as long and as old, is another one."""
    array, dense = holding("file")
    name, facts = array.to_dask().name, Path(array.path).stat()
    sparsearray.save(tmp_path / "b.npy", sparsearray.open(array.path))
    os.utime(tmp_path / "b.npy", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    (tmp_path / "b.npy").replace(array.path)
    again = sparsearray.open(array.path)
    assert again.to_dask().name != name
    same(again.to_dask().compute(), dense)
    same(array.to_dask().compute(), dense)  # the old one still, here


def test_a_replaced_file_is_opened_again(holding, tmp_path):
    """A process that has a file open for its tasks sees that another one is in its place."""
    array, dense = holding("file")
    task = pickle.dumps(array.to_dask(-1))
    same(pickle.loads(task).compute(), dense)
    np.save(tmp_path / "b.npy", dense * 2)
    other = sparsearray.open(tmp_path / "b.npy")
    sparsearray.save(tmp_path / "c.npy", other)
    (tmp_path / "c.npy").replace(array.path)
    same(pickle.loads(task).compute(), dense * 2)


def test_flushed_writes_give_another_name(tmp_path):
    """What a window writes to a page that was written before is a change after `flush`."""
    path = tmp_path / "a.npy"
    array = sparsearray.open(path, "w+", shape=(1000, 1000))
    window = array[:]
    window[5] = 1
    time.sleep(0.05)  # ticks of a file system's clock
    first = sparsearray.open(path)
    name = first.to_dask().name
    assert first.to_dask().name == name
    time.sleep(0.05)
    window[5] = 2
    array.flush()
    assert sparsearray.open(path).to_dask().name != name
    for other in sparsearray.open(path), sparsearray.open(path, "c"):
        time.sleep(0.05)
        before = path.stat()
        other.flush()  # of what is not mapped for writing
        assert path.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("stitched", [False, True], ids=["one", "many"])
def test_flush_sets_the_time(tmp_path, stitched):
    """So it is of all files in the range that can be written, however they are held open."""
    paths = [tmp_path / f"{n}.npy" for n in range(3)]
    for path in paths:
        with sparsearray.open(path, "w+", shape=(512, 8)) as made:  # its items start at a page
            made[...] = 1
    if stitched:
        array = sparsearray.stitch(paths, mode="r+")
    else:
        array = sparsearray.open(paths[0], "r+")
        del paths[1:]
    array[:][:] = 2
    array.flush()
    for path in paths:
        os.utime(path, ns=(0, 0))
    array[:][:] = 3
    array.flush()
    for path in paths:
        assert path.stat().st_mtime_ns > 0
        assert path.stat().st_atime_ns == 0


@pytest.mark.parametrize("replaced", [False, True], ids=["gone", "replaced"])
@pytest.mark.parametrize("chunks", ["stored", "auto"])
@pytest.mark.parametrize("tiles", [None, "auto"], ids=["rows", "tiles"])
def test_a_file_that_is_gone(tmp_path, tiles, chunks, replaced):
    """In the process that has it open it is computed as before; it cannot travel, and says so."""
    path = tmp_path / "a.npy"
    with sparsearray.open(path, "w+", shape=(300, 70), tiles=tiles) as array:
        array[5] = 2
    x = sparsearray.open(path).to_dask(chunks)
    path.unlink()
    if replaced:
        path.write_bytes(b"another one")
    assert x.sum().compute() == 140
    assert x[5].compute().tolist() == [2] * 70
    (block,) = x.persist().to_delayed().flat
    assert np.asarray(block.compute()).sum() == 140
    if chunks == "stored":
        (part,) = dask.compute(*x.map_blocks(lambda one: [one], meta=x._meta).to_delayed().flat)
        with pytest.raises(FileNotFoundError, match="cannot travel by its path"):
            pickle.dumps(part)


def write_hdf5(path, value):
    """Write a dataset, each time at another place of the same file."""
    h5py = pytest.importorskip("h5py", reason="the extra 'hdf5' is not installed")
    with h5py.File(path, "w") as file:
        file["before"] = np.full(5000 * value, 7.0)
        file["data"] = np.full((300, 70), float(value))
    return lambda: sparsearray.from_hdf5(path, "data")


def write_zarr(path, value):
    """Fill one more chunk, each time with files that replace the former."""
    zarr = pytest.importorskip("zarr", reason="the extra 'zarr' is not installed")
    options = {"shape": (64, 1024), "chunks": (8, 1024), "dtype": "f8", "compressors": None}
    array = zarr.open_array(path) if path.exists() else zarr.create_array(path, **options)
    array[: 8 * value] = value
    return lambda: sparsearray.from_zarr(path)


@pytest.mark.parametrize("write", [write_hdf5, write_zarr])
def test_what_another_library_has_written(write, tmp_path):
    """It has another name in dask, and is opened again where tasks had it open."""
    path = tmp_path / "data"
    for value in 1, 2, 3:
        reopen = write(path, value)
        array, expected = reopen(), float(reopen().sum())
        x = array.to_dask()
        assert pickle.loads(pickle.dumps(x)).sum().compute() == expected
        assert reopen().to_dask().name == x.name
        time.sleep(0.05)  # ticks of a file system's clock
        write(path, value + 1)
        assert reopen().to_dask().name != x.name
