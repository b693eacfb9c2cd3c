"""Chunks with holes: what tasks can do to them, and what dask's own functions make of them."""

import copy
import sys
from pathlib import Path

import numpy as np
import pytest

import sparsearray

da = pytest.importorskip("dask.array", reason="the extra 'dask' is not installed")
dask = pytest.importorskip("dask")


@pytest.fixture(autouse=True)
def _one_thread():
    """Tasks run one after another."""
    with dask.config.set(scheduler="sync"):
        yield


@pytest.fixture(params=[None, "auto"], ids=["rows", "tiles"])
def tiles(request):
    """How an array lies."""
    return request.param


def some(tiles=None, shape=(300, 70), dtype=float):
    """Make an array that is zero for the most part, and the same dense."""
    dense = np.zeros(shape, dtype)
    dense[50:60] = np.arange(1, shape[-1] + 1)
    dense[-1] = 3
    array = sparsearray.zeros(shape, dtype, tiles=tiles)
    array[50:60] = dense[50:60]
    array[-1] = 3
    return array, dense


def stored(array, nbytes="3KiB"):
    """Cut it into several chunks with holes."""
    with dask.config.set({"array.chunk-size": nbytes}):
        made = array.to_dask("stored")
    assert made.npartitions > 1
    return made


def own_memory():
    """Tell how much memory this process has that is not a file's."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition("RssAnon:")[2].split()[0]) << 10


# They are read-only


def _multiply(block):
    block *= 3


def _add(block):
    block += 1  # fills it


def _blocks(block):
    for _, shown in block.blocks():
        np.add(shown, 1, out=shown)


CHANGES = {
    "in place": _multiply,
    "in place, filling": _add,
    "out of a ufunc": lambda block: np.multiply(block, 3, out=block),
    "out of a ufunc of others": lambda block: np.sin(np.ones(block.shape), out=block),
    "at": lambda block: np.add.at(block, (0, 0), 1),
    "setting": lambda block: block.__setitem__(0, 5),
    "out of a reduction": lambda block: np.sum(block[None], axis=0, out=block),
    "out of clip, by place": lambda block: np.clip(block, 0, 1, block),
    "out of a method, by place": lambda block: block.clip(0, 1, block),
    "out of cumsum": lambda block: np.cumsum(block, axis=0, out=block),
    "out of cumsum, by place": lambda block: np.cumsum(block, 0, None, block),
    "out of concatenate": lambda block: np.concatenate([np.ones(block.shape)], 0, block),
    "nan_to_num": lambda block: np.nan_to_num(block, copy=False),
    "copyto": lambda block: np.copyto(block, 5),
    "copyto, by name": lambda block: np.copyto(dst=block, src=np.ones(block.shape)),
    "put": lambda block: np.put(block, [0], [1]),
    "putmask": lambda block: np.putmask(block, np.ones(block.shape, bool), 1),
    "place": lambda block: np.place(block, np.ones(block.shape, bool), [1]),
    "put_along_axis": lambda block: np.put_along_axis(
        block, np.zeros((1, block.shape[1]), int), 1, 0
    ),
    "fill_diagonal": lambda block: np.fill_diagonal(block, 1),
    "sort": lambda block: block.sort(),
    "fill": lambda block: block.fill(1),
    "put, the method": lambda block: block.put([0], 1),
    "flat": lambda block: block.flat.__setitem__(0, 1),
    "what blocks show": _blocks,
}


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("kept", [False, True], ids=["array", "persisted"])
def test_parts_are_read_only(how, kept, tiles):
    """What a task does in place is refused as of plain chunks, and nothing is changed."""
    array, dense = some(tiles)
    x = stored(array)
    x = x.persist() if kept else x

    def change(block):
        CHANGES[how](block)
        return block

    with pytest.raises(ValueError, match="read-only"):
        x.map_blocks(change, dtype=x.dtype, meta=x._meta).compute()
    np.testing.assert_array_equal(array[...], dense, strict=True)
    np.testing.assert_array_equal(x.compute(), dense, strict=True)


def test_files_are_not_written(tmp_path):
    """A file that was opened for writing keeps what it holds, and the message says what to do."""
    array = sparsearray.open(tmp_path / "a.npy", "w+", shape=(1000, 100))
    array[5] = 1

    def change(block):
        block *= 3
        return block

    x = array.to_dask("stored")
    with pytest.raises(ValueError, match=r"output array is read-only: .*block\.copy\(\)"):
        x.map_blocks(change, meta=x._meta).compute()
    assert array.sum() == 100


def test_what_was_worked_out_can_be_changed(tiles):
    """What a task made is its own: also where that becomes plain on the way."""
    array, dense = some(tiles)

    def change(block):
        made = block * 2
        made *= 3
        made[0, 0] = 7
        np.clip(made, 0, 300, made)
        np.add(made, 1, out=made)  # where all of it is filled
        return made

    x = stored(array)
    expected = np.clip(dense * 6, 0, 300) + 1
    expected[np.cumsum([0, *x.chunks[0][:-1]]), 0] = 8
    np.testing.assert_array_equal(x.map_blocks(change, meta=x._meta).compute(), expected)
    np.testing.assert_array_equal(array[...], dense)


# What dask asks of arrays


def test_products(tiles):
    """Products of chunks are those of the dense array."""
    array, dense = some(tiles)
    x, w = stored(array), np.arange(70.0)
    same = np.testing.assert_allclose
    same(da.dot(x, w).compute(), dense @ w)
    same(da.tensordot(x, x, axes=([0], [0])).compute(), dense.T @ dense)
    same(da.vdot(x, x).compute(), np.vdot(dense, dense))
    same(da.cov(x.T).compute(), np.cov(dense.T))
    same(da.einsum("ij,ij->j", x, x).compute(), (dense * dense).sum(axis=0))
    same((w @ x.T).compute(), w @ dense.T)


def test_points(tiles):
    """Points are asked for of chunks by numbers of numpy's, also where all chunks are as long."""
    dense = np.arange(1.0, 4097).reshape(1024, 4)
    array = sparsearray.zeros(dense.shape, tiles=tiles)
    array[...] = dense
    x = stored(array, "8KiB")
    assert len(set(x.chunks[0])) == 1
    points = [1, 500, 1000], [3, 0, 1]
    np.testing.assert_array_equal(x.vindex[points].compute(), dense[points], strict=True)


def test_percentiles(tiles):
    """Dask asks a table for percentiles, and for plain arrays."""
    dense = np.zeros(40_000)
    dense[:30_000], dense[-9:] = 5, 7
    array = sparsearray.zeros(dense.shape, tiles=tiles)
    array[:30_000], array[-9:] = 5, 7
    x = stored(array, "100KiB")
    assert da.percentile(x, [50, 60]).compute().tolist() == [5, 5]
    one = array.to_dask("stored")
    found = da.percentile(one, [10, 90, 99.9]).compute()
    np.testing.assert_allclose(found, np.percentile(dense, [10, 90, 99.9]))
    assert type(one.to_backend("numpy").blocks[0].persist().compute()) is np.ndarray


def test_tables_that_travel_know_parts(run_ok):
    """Graphs take dask's tables along: they know chunks with holes before any task has run."""
    run_ok(
        """
        import pickle
        import sparsearray
        from dask.array.dispatch import percentile_lookup
        sparsearray.zeros(9).to_dask("stored")
        from sparsearray.interop._dask_part import Part
        pickle.loads(pickle.dumps(percentile_lookup)).dispatch(Part)
        """
    )


@pytest.mark.parametrize("dtype", [">i4", ">f8", "<M8[s]", ">M8[s]"])
def test_order_of_bytes(tiles, dtype):
    """Whatever the number of chunks, the dtype is the one that was said."""
    dense = np.zeros((300, 70), dtype)
    dense[50:60] = np.ones(70, "i4").astype(dtype)
    array = sparsearray.zeros(dense.shape, dtype, tiles=tiles)
    array[50:60] = dense[50:60]
    x = stored(array, "2KiB")
    assert array.to_dask("stored").npartitions == 1
    for made in x, x[::-1], x[None], x.rechunk((90, 20)):
        assert made.compute().dtype == made.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(made.compute(), made.map_blocks(np.copy).compute())
    same = np.testing.assert_array_equal
    same(x.compute(), dense)
    same(da.topk(x, 3, axis=0).compute(), np.sort(dense, axis=0)[:-4:-1])


def test_order_of_bytes_in_fortran_order(tmp_path):
    """So it is where chunks lie along the last axis."""
    dense = np.zeros((70, 30_000), ">i4")
    dense[:, 500:20_000] = 7
    np.save(tmp_path / "a.npy", np.asfortranarray(dense))
    x = stored(sparsearray.open(tmp_path / "a.npy"), "1MiB")
    assert x.numblocks[0] == 1
    np.testing.assert_array_equal(x.compute(), dense, strict=True)
    assert x.compute().dtype == dense.dtype


# What is large


@pytest.fixture(params=[None, (64, 64)], ids=["rows", "tiles"])
def large(request):
    """Make a dask array of one chunk of a terabyte with three items, and say which."""
    array = sparsearray.zeros((1 << 20, 1 << 17), tiles=request.param)
    array[5, 3], array[1000, 7], array[1 << 19, 7] = 1, 2, 3
    return array.to_dask("stored")


SLICES = {
    "reversed": np.s_[::-1],
    "columns reversed": np.s_[:, ::-1],
    "with a step": np.s_[::5],
    "with a step back": np.s_[1000::-5, 3:],
    "columns with a step": np.s_[2:, 1::3],
    "a new axis": np.s_[None],
    "new axes": np.s_[:, None, ::-1, None],
    "an ellipsis": np.s_[..., 2:],
}


@pytest.mark.parametrize("how", SLICES)
def test_slices_skip_holes(large, how):
    """Of a terabyte they hold what was selected, at the right places."""
    dense = np.zeros((2000, 10))
    dense[5, 3], dense[1000, 7] = 1, 2
    key = SLICES[how]
    ends = {"reversed": np.s_[-2000:, :10], "columns reversed": np.s_[:2000, -10:]}
    wanted = dense[key]
    found = large[key]
    assert found.sum().compute() == wanted.sum() + (
        3 if how not in ("with a step back", "with a step") else 0
    )
    corner = ends.get(how, tuple(slice(0, n) for n in wanted.shape))
    if how == "new axes":
        corner = np.s_[:2000, :, -10:, :]
    np.testing.assert_array_equal(found[corner].compute(), wanted, strict=True)


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy])
def test_copies_keep_holes(large, how):
    """Python's copies of a chunk have holes, and can be changed; the chunk stays as it is."""

    def change(block):
        made = how(block)
        made[0, 0] = 5
        return made

    assert large.map_blocks(change, meta=large._meta).sum().compute() == 11
    assert large.sum().compute() == 6


def test_rows_skip_holes():
    """So does one row, or column, that is large."""
    array = sparsearray.zeros((4, 1 << 30))
    array[2, 5] = 7
    x = array.to_dask("stored")
    assert x[2].sum().compute() == 7
    assert x[-2, ::-1].argmax().compute() == (1 << 30) - 6
    assert x[1].max().compute() == 0


def test_stacks_skip_holes(large):
    """Stacks, and what is turned over, too."""
    assert da.stack([large, large * 2]).sum().compute() == 18
    assert da.flip(large, 1).max().compute() == 3
    assert large.map_overlap(lambda block: block, depth=1, boundary="none").sum().compute() == 6


@pytest.mark.usefixtures("told_pages")
def test_results_take_memory_for_what_is_stored(tiles):
    """Chunks are put together over zeros that nobody has touched."""
    array = sparsearray.zeros((1 << 14, 1 << 13), tiles=tiles)
    array[::2000] = 1
    x = stored(array, "256KiB")
    before = own_memory()
    found = x.compute()
    assert own_memory() - before < found.nbytes // 4
    assert found.sum() == array.sum()


def test_results_that_do_not_fit(tiles, monkeypatch):
    """They are refused as a whole, also where each chunk would fit."""
    array = sparsearray.zeros((1 << 12, 1 << 12), tiles=tiles)
    array[::20] = 1
    x = stored(array, "256KiB")
    module = sys.modules["sparsearray._memory"]
    monkeypatch.setattr(module, "UNCHECKED", 0)
    monkeypatch.setattr(module, "available_memory", lambda: 100 << 20)
    with pytest.raises(MemoryError, match=r"shape \(4096, 4096\) .* 128 MiB, and 100 MiB are free"):
        x.compute()


FILLING = {
    "asarray": np.asarray,
    "copy": np.copy,
    "stack": lambda block: np.stack([block, block]),
    "masked": lambda block: np.ma.masked_equal(block, 0),
    "transposed": lambda block: block.T,
    "overlapping": lambda block: np.roll(block, 1, 0),
}


@pytest.mark.parametrize("how", FILLING)
def test_filling_is_refused(large, how):
    """What would fill a terabyte says so, with what to do instead."""
    x = large.map_blocks(FILLING[how], meta=large._meta)
    with pytest.raises((TypeError, AttributeError), match=r"of [12] TiB in a chunk; .*rechunk"):
        x.sum().compute()


def test_overlaps_that_fill_are_refused(large):
    """A map over overlaps that makes plain arrays is a TypeError, as its how-to says."""
    x = large.map_overlap(np.copy, depth=1, boundary="none")
    with pytest.raises(TypeError, match=r"np\.copy would fill the holes, of 1 TiB in a chunk"):
        x.sum().compute()


def test_without_dask(run_ok):
    """What was called is what says that dask is missing."""
    run_ok(
        """
        import sys
        sys.modules["dask"] = None
        import sparsearray
        try:
            sparsearray.zeros(3).to_dask()
        except ImportError as error:
            assert str(error).startswith("to_dask needs dask: pip install"), error
        else:
            raise AssertionError
        """
    )
