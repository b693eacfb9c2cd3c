"""Chunks with holes: what tasks can do to them, and what dask's own functions make of them."""

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
    with pytest.raises(ValueError, match=r"output array is read-only: .*np\.asarray\(block\)"):
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
