"""Arrays in dask: what is read, and what goes to other processes."""

import gc
import mmap
import os
import pickle
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsearray
from sparsearray import AccessError, ClosedError, shared_memory

from . import dask_arrays
from .dask_arrays import same

da = pytest.importorskip("dask.array", reason="the extra 'dask' is not installed")
dask = pytest.importorskip("dask")
from sparsearray.interop.dask import from_array  # noqa: E402 - after what it needs

P = mmap.PAGESIZE
RECORD = np.dtype([("time", "<i8"), ("level", ">f4"), ("name", "S3")])
DTYPES = ["u1", "<i4", ">i2", "f4", ">f8", "c8", "?", "M8[s]", "m8[ms]", "S3", "U2", RECORD]
LAYOUTS = [
    "rows",
    "tiles",
    "large tiles",
    "file",
    "tiles in a file",
    "Fortran order",
    "stitched",
    "shared",
]
NEVER_SLOW = {"deadline": None}


@pytest.fixture(autouse=True)
def _one_thread():
    """Tasks run one after another, unless a test asks for more."""
    with dask.config.set(scheduler="sync"):
        yield


def make(layout, dense, folder):
    """Lay a dense array out in one of the ways: only what is not zero is written."""
    shape, dtype = dense.shape, dense.dtype
    tiles = tuple(max(1, -(-n // 3)) for n in shape)
    path = Path(folder) / f"{layout}.npy"
    if layout == "Fortran order":
        np.save(path, np.asfortranarray(dense) if shape else dense)
        return sparsearray.open(path)
    if layout == "rows":
        array = sparsearray.zeros(shape, dtype)
    elif layout == "tiles":
        array = sparsearray.zeros(shape, dtype, tiles="auto")
    elif layout == "large tiles":
        array = sparsearray.zeros(shape, dtype, tiles=tiles)
    elif layout == "shared":
        array = sparsearray.open(
            shared_memory(max(dense.nbytes, 1)), "r+", dtype=dtype, shape=shape
        )
    else:
        kind = {"tiles": tiles} if layout == "tiles in a file" else {}
        array = sparsearray.open(path, "w+", shape=shape, dtype=dtype, **kind)
    held = np.frombuffer(dense.tobytes(), "u1").reshape(-1, dtype.itemsize).any(axis=1)  # -0.0, too
    for place in np.argwhere(held.reshape(shape)).tolist():
        array[tuple(place)] = dense[tuple(place)]
    if layout in ("file", "tiles in a file"):
        array.close()
        return sparsearray.open(path)
    if layout == "stitched" and dense.size:
        return sparsearray.stitch([path, path]) if shape else array
    return array


@st.composite
def dense_arrays(draw):
    """Make arrays that are zero for the most part; also of no axes, and of no items."""
    shape = tuple(draw(st.lists(st.integers(0, 40), max_size=3)))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    dense = np.zeros(shape, dtype)
    random = np.random.default_rng(draw(st.integers(0, 99)))
    if dense.size:
        for _ in range(draw(st.integers(0, 4))):
            low = [int(random.integers(n)) for n in shape]
            box = tuple(slice(at, at + int(random.integers(1, 9))) for at in low)
            if dtype.names:
                dense[box] = (7, 2.5, b"ab")
            elif dtype.kind in "SU":
                dense[box] = "xy"
            else:
                dense[box] = random.integers(0, 2, dense[box].shape).astype(bool).astype(dtype)
            if dtype.kind in "fc":
                dense[box] *= random.choice([-1, np.nan, 3])
    return dense


@settings(**NEVER_SLOW, max_examples=60)
@given(
    dense_arrays(), st.sampled_from(LAYOUTS), st.sampled_from(["auto", "stored", "some"]), st.data()
)
def test_computes_what_it_holds(dense, layout, chunks, data):
    """Any shape, dtype and layout, cut in any way, gives the dense array."""
    with tempfile.TemporaryDirectory() as folder:
        array = make(layout, dense, folder)
        if layout == "stitched" and dense.size and dense.ndim:
            dense = np.concatenate([dense, dense]).astype(dense.dtype)
        if chunks == "some":
            chunks = tuple(data.draw(st.integers(1, max(n, 1))) for n in dense.shape)
        with dask.config.set({"array.chunk-size": data.draw(st.sampled_from([100, 8192, "1MiB"]))}):
            x = array.to_dask(chunks)
        assert (x.shape, x.dtype) == (dense.shape, dense.dtype)
        same(x.compute(), dense)


@pytest.fixture
def holding(tmp_path):
    """Make arrays that hold some data, and the same dense: `dask_arrays.holding`."""
    return partial(dask_arrays.holding, tmp_path)


REDUCTIONS = {
    "sum": lambda x, m: m.nansum(x),
    "sum along an axis": lambda x, m: m.nansum(x, axis=0),
    "largest": lambda x, m: m.nanmax(x, axis=1),
    "least": lambda x, _m: x[:1000].min(),
    "mean": lambda x, _m: x[2000:].mean(),
    "argmax": lambda x, _m: x[:1000].argmax(),
    "argmin along an axis": lambda x, _m: x[:1000].argmin(axis=0),
    "any": lambda x, _m: (x > 0).any(axis=1),
    "all": lambda x, _m: (x > 0).all(axis=1),
    "how many": lambda x, _m: (x != 0).sum(),
    "of another dtype": lambda x, _m: x[:1000].astype("i2").sum(axis=1),
    "of what keeps zero": lambda x, _m: (abs(x[:1000]) * 2 - x[:1000]).sum(),
    "of what fills": lambda x, _m: (x[:1000] + 1).sum(),
    "variance": lambda x, _m: x[2000:].var(),
}  # fmt: skip


@pytest.mark.parametrize("chunks", ["auto", "stored", (900, 300)])
@pytest.mark.parametrize("layout", ["rows", "tiles", "file", "tiles in a file"])
def test_reductions(holding, layout, chunks):
    """Reductions give what numpy gives for the dense array."""
    array, dense = holding(layout)
    with dask.config.set({"array.chunk-size": "2MiB" if chunks == "auto" else "256KiB"}):
        x = array.to_dask(chunks)
    assert x.npartitions > 1
    for name, function in REDUCTIONS.items():
        found, expected = function(x, da).compute(), np.asarray(function(dense, np))
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype), name
        np.testing.assert_allclose(found, expected, rtol=1e-12, err_msg=name)
        assert type(found) is np.ndarray or np.isscalar(found), name


SELECTIONS = {
    "rows": np.s_[10:1700],
    "one row": np.s_[1500],
    "one item": np.s_[2910, -1],
    "steps": np.s_[::-7, 3:600:5],
    "a new axis": np.s_[None, 30:35, ..., None],
    "numbers": np.s_[[5, 2999, 5], 600:],
    "a mask": np.s_[np.arange(3000) % 3 == 0],
}  # fmt: skip


@pytest.mark.parametrize("chunks", ["auto", "stored", (900, 300)])
@pytest.mark.parametrize("layout", ["rows", "tiles", "file", "tiles in a file"])
def test_selections(holding, layout, chunks):
    """Selections give the same items, those of masks with holes too."""
    array, dense = holding(layout)
    with dask.config.set({"array.chunk-size": "2MiB" if chunks == "auto" else "256KiB"}):
        x = array.to_dask(chunks)
    for name, key in SELECTIONS.items():
        found = x[key].compute()
        assert np.asarray(found).tobytes() == np.ascontiguousarray(dense[key]).tobytes(), name
    same(x[x > 0.5].compute(), dense[dense > 0.5])


@pytest.mark.parametrize("chunks", ["auto", "stored", (900, 300)])
@pytest.mark.parametrize("layout", ["rows", "tiles in a file"])
def test_other_work(holding, layout, chunks):
    """Blocks, overlaps, chunks cut anew, and functions that fill the holes work as on any array."""
    array, dense = holding(layout)
    with dask.config.set({"array.chunk-size": "2MiB" if chunks == "auto" else "256KiB"}):
        x = array.to_dask(chunks)
    same(x.rechunk((700, 70)).compute(), dense)
    same((x + 1).compute(), dense + 1)
    same(da.exp(x).compute(), np.exp(dense))
    same(x.T.compute(), dense.T.copy())
    same(x.map_blocks(lambda block: np.asarray(block) * 2 + 1).compute(), dense * 2 + 1)
    found = x.map_overlap(lambda block: np.roll(block, 1, 0), depth=1, boundary="none").compute()
    assert found[1:].tobytes() == dense[:-1].tobytes()
    same(da.concatenate([x, x[:5]]).compute(), np.concatenate([dense, dense[:5]]))
    same(da.stack([x[:5], x[5:10]]).compute(), np.stack([dense[:5], dense[5:10]]))
    same(da.where(x > 0, x, 7).compute(), np.where(dense > 0, dense, 7))


def test_chunks_are_plain_and_safe(holding):
    """Functions of blocks get ndarrays that cannot change the array, and that `repr` knows."""
    array, _ = holding("rows")
    x = array.to_dask((100, 700))
    assert x.map_blocks(lambda block: np.array([[isinstance(block, np.ndarray)]])).compute().all()
    hole = x.blocks[5].persist()
    assert repr(hole.dask[hole.__dask_keys__()[0][0]])[:6] == "array("
    with pytest.raises(ValueError, match="read-only"):
        x.map_blocks(lambda block: block.sort()).compute()
    result = x[:100].compute()
    result[...] = 9
    assert array[0, 0] == 0


def test_result_outlives_the_array(holding):
    """What was computed has memory of its own: the array can be closed, and its file go."""
    array, dense = holding("file")
    found = array.to_dask(-1).compute()
    gc.collect()
    array.close()
    Path(array.path).write_bytes(b"")
    same(found, dense)


# What is not done for holes


@pytest.fixture
def terabyte(tmp_path):
    """Make a file of a terabyte that holds three pages."""
    path = tmp_path / "terabyte.npy"
    with sparsearray.open(path, "w+", shape=(1 << 20, 1 << 17)) as array:
        for row in 3, 500_000, 1_000_000:
            array[row, 7] = row
    with sparsearray.open(path) as array:
        yield array
        gc.collect()


@pytest.mark.usefixtures("told_pages")
def test_holes_make_no_task_that_reads(terabyte):
    """Of 8192 chunks three ask for the array; the others are one item in memory."""
    x = terabyte.to_dask()
    assert x.numblocks == (8192, 1)
    graph = x.__dask_graph__().to_dict()
    pieces = [task.args[0].value for task in graph.values()]
    asking = [piece for piece in pieces if getattr(piece, "source", None) is not None]
    assert len(pieces) == 8192
    assert [piece.box[0].start // 128 for piece in asking] == [0, 500_000 // 128, 1_000_000 // 128]
    hole = x.blocks[17].persist()
    (chunk,) = (hole.dask[key] for key in hole.__dask_keys__()[0])
    assert (chunk.strides, chunk.nbytes) == ((0, 0), 128 << 20)
    assert ((x[10_000:10_128] + 1) * 2).max().compute() == 2
    assert x[10_000:40_000].sum(axis=1).compute().tolist() == [0] * 30_000


@pytest.mark.usefixtures("told_pages")
def test_chunks_by_what_is_stored(terabyte):
    """The same has one chunk that holds all of it, or one for each so many bytes."""
    x = terabyte.to_dask("stored")
    assert x.numblocks == (1, 1)
    assert x.sum().compute() == 1_500_003
    assert abs(x).max(axis=1)[500_000].compute() == 500_000
    assert x[1_000_000, :8].compute().tolist() == [0] * 7 + [1_000_000]
    assert x[2:].any().compute()
    assert x[x > 5].compute().tolist() == [500_000, 1_000_000]
    with dask.config.set({"array.chunk-size": 2 * P}):
        two = terabyte.to_dask("stored")
    assert two.numblocks == (2, 1)
    assert two.sum().compute() == 1_500_003
    with dask.config.set({"array.chunk-size": P}):
        many = terabyte.to_dask("stored")
    assert many.npartitions >= 3  # the last of them may hold nothing
    assert abs(many * 2).max().compute() == 2_000_000


@pytest.mark.usefixtures("told_pages")
def test_filling_a_large_chunk_is_refused(terabyte):
    """It names what would be filled, how large it is, and what to do instead."""
    x = terabyte.to_dask("stored")
    with pytest.raises(
        TypeError, match=r"np\.add would fill the holes, with 1.0 .* 1 TiB .*rechunk\('auto'\)"
    ):
        (x + 1).sum().compute()
    with pytest.raises(TypeError, match=r"np\.cos would fill"):
        da.cos(x).sum().compute()
    with pytest.raises(MemoryError, match="1 TiB"):
        x.compute()


@pytest.mark.usefixtures("told_pages")
@pytest.mark.parametrize("chunks", ["auto", "stored"])
def test_graph_is_small(terabyte, chunks):
    """What is sent of an array in a file does not depend on how much it holds."""
    x = terabyte.to_dask(chunks)
    assert len(pickle.dumps(x.dask)) < (2000 if chunks == "stored" else 32768)
    graph = x.__dask_graph__().to_dict()
    assert max(len(pickle.dumps(task)) for task in graph.values()) < 1000


def test_memory_goes_with_its_tasks():
    """Of an array in memory each task has what is stored of its chunk, and nothing else."""
    array = sparsearray.zeros((1000, 1 << 17))
    array[100:102] = 1
    array[900, :512] = 2
    tasks = array.to_dask((100, 1 << 17)).__dask_graph__().to_dict()
    sizes = {key[1]: len(pickle.dumps(task)) for key, task in tasks.items()}
    assert sizes[1] == pytest.approx(2 << 20, rel=0.01)
    assert sizes[9] == pytest.approx(P, abs=1000)
    assert max(size for i, size in sizes.items() if i not in (1, 9)) < 400


@pytest.mark.parametrize("chunks", ["auto", "stored", (900, 300)])
@pytest.mark.parametrize("layout", ["rows", "tiles", "file", "tiles in a file"])
def test_graphs_travel(holding, layout, chunks):
    """A graph that was pickled gives the same; of a file each process opens it once."""
    array, dense = holding(layout)
    with dask.config.set({"array.chunk-size": "2MiB" if chunks == "auto" else "256KiB"}):
        x = array.to_dask(chunks)
    loaded = pickle.loads(pickle.dumps(x))
    before = len(list(Path("/proc/self/fd").iterdir()))
    same(loaded.compute(), dense)
    tasks = {key: pickle.loads(pickle.dumps(task)) for key, task in x.dask.to_dict().items()}
    parts = [task() for task in tasks.values()]
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= 2
    again = pickle.loads(pickle.dumps(parts))
    assert sum(np.nansum(part) for part in again) == pytest.approx(
        np.nansum(dense[np.isfinite(dense)]) + np.inf
    )


def test_what_blocks_become_can_be_written(holding):
    """Whatever comes of a block is an array of its own, also where that is a hole."""
    array, dense = holding("rows")

    def change(block):
        made = block * 2
        made[made == 0] = 1
        made += 1
        return made

    expected = dense * 2
    expected[expected == 0] = 1
    same(array.to_dask((100, 700)).map_blocks(change).compute(), expected + 1)


def test_chunks_of_zeros_as_other_items():
    """A chunk that is a hole can be viewed as items of another size, as any can."""
    array = sparsearray.zeros((20, P))
    array[:10] = 1
    x = array.to_dask((10, P))
    found = x.map_blocks(lambda block: block.view("i2"), chunks=(10, 4 * P), dtype="i2")
    same(found.compute(), array[...].view("i2"))


# Refused


def test_refusals():
    """What cannot become a dask array is named."""
    with pytest.raises(TypeError, match="takes a SparseArray or a TiledArray, not ndarray"):
        from_array(np.zeros(3))
    with pytest.raises(ValueError, match="chunks"):
        sparsearray.zeros((3, 4)).to_dask(((2, 2), (4,)))
    closed = sparsearray.zeros(3)
    closed[0] = 1
    x = closed.to_dask()
    closed.close()
    with pytest.raises(ClosedError):
        x.compute()
    with pytest.raises(ClosedError):
        closed.to_dask()


def test_an_array_that_became_shorter():
    """A chunk that is no longer there is an error, not a shorter one."""
    array = sparsearray.zeros((100, 3), maxshape=(None, 3))
    array[...] = 1
    x = array.to_dask(50)
    array.resize((70, 3))
    with pytest.raises(ValueError, match=r"shape \(70, 3\) .* by now"):
        x.compute()


@pytest.mark.parametrize("chunks", ["auto", "stored"])
@pytest.mark.parametrize("layout", ["file", "tiles in a file"])
def test_a_file_that_was_cut_short(holding, layout, chunks):
    """What a file has lost is an error."""
    array, _ = holding(layout)
    x = array.to_dask(chunks)
    os.truncate(array.path, 8192)
    with pytest.raises(AccessError, match="past the end of its file"):
        x.sum().compute()
