"""Arrays that dask arrays are stored in: from threads and other processes, and what is refused."""

import pickle
import re
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

import sparsearray
from sparsearray import shared_memory

from . import dask_arrays

da = pytest.importorskip("dask.array", reason="the extra 'dask' is not installed")
dask = pytest.importorskip("dask")
from sparsearray.interop.dask import store  # noqa: E402 - after what it needs


@pytest.fixture(autouse=True)
def _one_thread():
    """Tasks run one after another, unless a test asks for more."""
    with dask.config.set(scheduler="sync"):
        yield


@pytest.fixture
def holding(tmp_path):
    """Make arrays that hold some data, and the same dense: `dask_arrays.holding`."""
    return partial(dask_arrays.holding, tmp_path)


@pytest.fixture
def source():
    """Make a dask array that is zero for the most part, cut within pages and tiles; and it dense."""
    dense = np.zeros((300, 500), "f4")
    dense[17:40, 3:77] = np.random.default_rng(2).normal(size=(23, 74))
    dense[299] = -0.0
    return da.from_array(dense, (37, 123)), dense


def make_target(kind, shape, folder):
    """Make an array to store into."""
    if kind == "shared":
        memory = shared_memory(shape[0] * shape[1] * 8)
        return sparsearray.open(memory, "r+", dtype="f4", shape=shape)
    tiles = 10 if "tiles" in kind else None
    if "file" in kind:
        path = folder / "target.npy"
        return sparsearray.open(path, "w+", shape=shape, dtype="f4", tiles=tiles)
    return sparsearray.zeros(shape, "f4", tiles=tiles)


TARGETS = ["rows", "tiles", "file", "tiles in a file", "shared"]


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
@pytest.mark.parametrize("kind", TARGETS)
def test_store(source, kind, scheduler, tmp_path):
    """All of it, over what was there, from several threads at once."""
    x, dense = source
    target = make_target(kind, x.shape, tmp_path)
    target[250:260] = 7
    assert store(x, target, scheduler=scheduler) is None
    assert target[...].tobytes() == dense.tobytes()


@pytest.mark.parametrize("kind", TARGETS)
def test_dask_store(source, kind, tmp_path):
    """So does `dask.array.store`."""
    x, dense = source
    target = make_target(kind, x.shape, tmp_path)
    x.store(target, scheduler="threads")
    assert target[...].tobytes() == dense.tobytes()


@pytest.mark.parametrize("chunks", ["auto", "stored"])
def test_store_what_has_holes(holding, chunks, tmp_path):
    """Holes stay holes, of chunks that are large, too; regions say where it goes."""
    array, dense = holding("file")
    target = sparsearray.open(tmp_path / "big.npy", "w+", shape=(1 << 20, 1 << 17))
    target[7000:7010, 900] = 1
    region = np.s_[5000:8000, 500:1200]
    store(array.to_dask(chunks), target, regions=region)
    assert target[region].tobytes() == dense.tobytes()
    assert target.nbytes_stored < 3 * array.nbytes_stored
    x = sparsearray.open(tmp_path / "big.npy").to_dask("stored")
    other = sparsearray.zeros(target.shape)
    store(abs(x), other)
    assert np.nansum(other[region]) == np.nansum(abs(dense))


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("layout", ["rows", "tiles", "file", "tiles in a file"])
def test_store_parts(holding, layout, own, tmp_path):
    """Chunks with holes are stored with them, by dask's own function as well, and over themselves."""
    array, dense = holding(layout)
    if array.mode == "r":
        array = sparsearray.open(array.path, "r+")
    with dask.config.set({"array.chunk-size": "256KiB"}):
        x = array.to_dask("stored")
    assert x.npartitions > 1
    other = sparsearray.open(tmp_path / "other.npy", "w+", shape=x.shape)
    for target in other, array:
        if own:
            store(x, target)
        else:
            x.store(target)
        assert target[...].tobytes() == dense.tobytes()
    assert other.nbytes_stored < 2 << 20


def test_store_several(source):
    """Of several sources each goes to its own target, though they look alike."""
    x, dense = source
    targets = [sparsearray.zeros(x.shape, dtype) for dtype in ("f4", "f4", "f8")]
    store([x, x * 2, x], targets)
    assert targets[0][...].tobytes() == dense.tobytes()
    assert (targets[1][...] == dense * 2).all()
    assert (targets[2][...] == dense).all()
    alike = [sparsearray.zeros(x.shape, "f4") for _ in range(2)]
    da.store([x, x], alike)
    assert all(one[...].tobytes() == dense.tobytes() for one in alike)


def test_store_later(source):
    """With ``compute=False`` nothing is written before it is asked for."""
    x, dense = source
    target = sparsearray.zeros(x.shape, "f4")
    later = store(x, target, compute=False)
    assert not target.nbytes_stored
    later.compute()
    assert target[...].tobytes() == dense.tobytes()


def test_store_refusals(source, tmp_path):
    """What does not fit, or cannot be written, is said before anything is."""
    x, _ = source
    target = sparsearray.zeros(x.shape, "f4")
    with pytest.raises(ValueError, match=r"shape \(300, 500\) does not fit a target of \(3, 4\)"):
        store(x, sparsearray.zeros((3, 4)))
    with pytest.raises(ValueError, match="does not fit region"):
        store(x, target, regions=np.s_[:5])
    with pytest.raises(TypeError, match="not ndarray"):
        store(np.zeros(3), target)
    with pytest.raises(TypeError, match="not to ndarray"):
        store(x, np.zeros(x.shape))
    with pytest.raises(ValueError, match="2 sources, 1 targets"):
        store([x, x], [target])
    with pytest.raises(ValueError, match="not known"):
        store(x[x[:, 0] > 0], target)
    sparsearray.save(tmp_path / "a.npy", target)
    with pytest.raises(ValueError, match="read-only: .* opened with mode 'r'"):
        store(x, sparsearray.open(tmp_path / "a.npy"))
    assert not target.nbytes_stored


@pytest.mark.parametrize(
    "kind",
    [
        "rows",
        pytest.param("tiles", marks=pytest.mark.slow),
        pytest.param("c", marks=pytest.mark.slow),
    ],
)
def test_memory_is_no_target_for_other_processes(source, kind, tmp_path):
    """Where it would be lost in a copy, a target in memory is refused."""
    x, _ = source
    target = make_target("file" if kind == "c" else kind, x.shape, tmp_path)
    if kind == "c":
        target.close()
        target = sparsearray.open(target.path, "c")
    later = pickle.dumps(store(x, target, compute=False))
    pickle.loads(later).compute()  # here it arrives
    assert np.count_nonzero(target) > 0
    script = tmp_path / "later"
    script.write_bytes(later)
    code = f"import pickle; pickle.load(open({str(script)!r}, 'rb')).compute(scheduler='sync')"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False
    )
    assert "lies in memory of another process" in done.stderr


@pytest.mark.parametrize("made", [(1, 1), (50, 1), (60, 60), ()], ids=str)
@pytest.mark.parametrize("kind", ["rows", "tiles"])
def test_chunks_that_are_not_what_was_said(kind, made, tmp_path):
    """A function that returns a chunk of another shape is found out, and nothing is read past it."""
    x = da.zeros((100, 100), "f4", chunks=50)
    wrong = x.map_blocks(lambda _: np.ones(made, "f4"), chunks=x.chunks, meta=x._meta)
    target = make_target(kind, x.shape, tmp_path)
    with pytest.raises(ValueError, match=rf"has shape {re.escape(str(made))}, .* \(50, 50\)"):
        store(wrong, target)
    assert not target.nbytes_stored


def test_a_region_for_all():
    """A slice is one region for all sources, as a tuple of slices is."""
    targets = [sparsearray.zeros((10, 4)) for _ in range(2)]
    store([da.ones((3, 4)), da.ones((3, 4)) * 2], targets, regions=np.s_[5:8])
    assert [target[5:8].sum() for target in targets] == [12, 24]
    assert [target.sum() for target in targets] == [12, 24]
