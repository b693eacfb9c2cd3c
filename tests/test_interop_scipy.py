"""scipy.sparse: what arrays become, beside what scipy makes of the dense ones; and back."""

import sys
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsearray

from .array_files import assert_same

pytest.importorskip("scipy", reason="the extra scipy")

import scipy.sparse

from sparsearray.interop.scipy import from_scipy, to_bsr, to_coo, to_csr

DTYPES = ["?", "i1", "u2", "i4", "i8", "u8", "f4", "f8", "c8", "c16"]
FORMATS = ["coo", "csr", "csc", "bsr", "dok", "lil", "dia"]


def some_items(dtype: Any, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Make items of which most are zero, in a box and alone; with NaN and infinity."""
    rng = np.random.default_rng(seed)
    made = np.zeros(shape, dtype)
    box = tuple(
        slice(int(i), int(i) + 1 + n // 3)
        for i, n in zip(rng.integers(0, shape), shape, strict=True)
    )
    made[box] = rng.integers(0, 100, made[box].shape).astype(dtype)
    for _ in range(3):
        made[tuple(rng.integers(0, shape))] = 1
    if made.dtype.kind in "fc":
        made[tuple(rng.integers(0, shape))] = np.nan
        made[tuple(rng.integers(0, shape))] = -np.inf
    return made


@st.composite
def matrices(draw, min_dims=2, max_dims=2):
    """Draw a dense array, and one of ours that holds the same."""
    shape = draw(st.lists(st.integers(1, 90), min_size=min_dims, max_size=max_dims).map(tuple))
    dense = some_items(draw(st.sampled_from(DTYPES)), shape, draw(st.integers(0, 1 << 20)))
    tiles = draw(st.sampled_from([None, "auto", 3, 16]))
    a = sparsearray.zeros(shape, dense.dtype, tiles=tiles)
    a[...] = dense
    return dense, a


def blocks_for(draw: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Draw sides of blocks that divide a shape."""
    return tuple(draw(st.sampled_from([k for k in range(1, n + 1) if n % k == 0])) for n in shape)


# There


@settings(max_examples=100, deadline=None)
@given(pair=matrices(min_dims=1, max_dims=3))
def test_coo(pair):
    """A coo_array is the one that scipy makes of the dense array, entry by entry."""
    dense, a = pair
    found, expected = a.to_coo(), scipy.sparse.coo_array(dense)
    assert type(found) is type(expected)
    assert found.shape == expected.shape
    assert_same(found.data, expected.data)
    for ours, theirs in zip(found.coords, expected.coords, strict=True):
        assert np.array_equal(ours, theirs)
        assert dense.ndim > 2 or ours.dtype == theirs.dtype
    assert found.has_canonical_format


@settings(max_examples=60, deadline=None)
@given(pair=matrices())
def test_csr(pair):
    """So is a csr_array."""
    dense, a = pair
    found, expected = a.to_csr(), scipy.sparse.csr_array(dense)
    for name in ("data", "indices", "indptr"):
        assert_same(getattr(found, name), getattr(expected, name))
    found.check_format(full_check=True)
    assert found.has_canonical_format


@settings(max_examples=100, deadline=None)
@given(pair=matrices(), data=st.data())
def test_bsr(pair, data):
    """And a bsr_array, for blocks of any size, but for the order of blocks, which is sorted here."""
    dense, a = pair
    sides = blocks_for(data.draw, dense.shape)
    found, expected = a.to_bsr(sides), scipy.sparse.bsr_array(dense, blocksize=sides)
    expected.sort_indices()
    for name in ("data", "indices", "indptr"):
        assert_same(getattr(found, name), getattr(expected, name))
    found.check_format(full_check=True)


def test_tiles_are_blocks():
    """By default the blocks of a bsr_array are the tiles, of which those of zeros are left out."""
    a = sparsearray.zeros((96, 128), tiles=(16, 32))
    a[20:40, 30:70] = 1
    a[0, 0] = 0
    found = a.to_bsr()
    assert found.blocksize == (16, 32)
    assert len(found.data) == 2 * 3
    assert np.array_equal(found.toarray(), a[...])


def test_tiles_that_are_padded():
    """Tiles that are no whole pages are taken without what fills them up."""
    a = sparsearray.zeros((90, 110), "i2", tiles=(30, 55))
    a[...] = dense = some_items("i2", (90, 110), 3)
    assert np.array_equal(a.to_bsr().toarray(), dense)


def test_a_matrix_of_eight_terabytes():
    """Holes are skipped, however many there are."""
    for tiles in (None, "auto"):
        a = sparsearray.zeros((1 << 20, 1 << 20), tiles=tiles)
        a[70_000:70_003, 5:7] = 1
        a[-1, -1] = np.nan
        assert a.to_coo().nnz == a.to_csr().nnz == 7
        assert a.to_bsr((16, 32)).data.shape == (2, 16, 32)
        assert a.to_csr()[70_001, 6] == 1


def test_indices_are_wide_enough():
    """Coordinates past 2**31 have 64 bits."""
    a = sparsearray.zeros((2, 1 << 33), "u1")
    a[1, -1] = 7
    for found in (a.to_coo(), a.to_csr(), a.to_bsr((2, 1 << 12))):
        assert found.nnz in (1, 2 << 12)
        assert found.tocoo().coords[1].max() == (1 << 33) - 1
    assert a.to_coo().col.dtype == np.int64


def test_negative_zero_is_dropped():
    """As scipy drops it from dense arrays; within a block it stays."""
    a = sparsearray.zeros((4, 4))
    a[0, 0], a[1, 1] = -0.0, 3
    assert a.to_coo().nnz == a.to_csr().nnz == scipy.sparse.coo_array(a[...]).nnz == 1
    assert np.signbit(a.to_bsr((2, 2)).data[0, 0, 0])


def test_files(tmp_path):
    """Arrays in files, in either order, become the same."""
    dense = some_items("f8", (100, 120), 5)
    np.save(tmp_path / "c.npy", dense)
    np.save(tmp_path / "f.npy", np.asfortranarray(dense))
    expected = scipy.sparse.csr_array(dense)
    for name in ("c.npy", "f.npy"):
        a = sparsearray.open(tmp_path / name)
        for found in (to_csr(a), to_coo(a).tocsr(), to_bsr(a, (10, 12)).tocsr()):
            found.eliminate_zeros()
            assert_same(found.toarray(), expected.toarray())


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)])
@pytest.mark.parametrize("tiles", [None, (1, 5)])
def test_no_items(shape, tiles):
    """Without items there are no entries."""
    a = sparsearray.zeros(shape, "f4", tiles=tiles)
    for found in (a.to_coo(), a.to_csr(), a.to_bsr((1, 5))):
        assert (found.shape, found.dtype, found.nnz) == (shape, np.dtype("f4"), 0)


@pytest.mark.parametrize("dtype", ["f2", ">f8", "M8[s]", "S3", [("a", "i4")]])
def test_other_items(dtype):
    """Items that scipy does not know are refused by name, as scipy does."""
    with pytest.raises(ValueError, match="does not support"):
        scipy.sparse.coo_array(np.zeros((2, 2), dtype))
    a = sparsearray.zeros((4, 4), dtype)
    for call in (a.to_coo, a.to_csr, lambda: a.to_bsr((2, 2))):
        with pytest.raises(
            TypeError, match=r"to_(coo|csr|bsr): .*(float16|>f8|M8|datetime|S3|'a')"
        ):
            call()


def test_shapes_that_do_not_fit():
    """So are shapes: the message names them, and blocks that would fit."""
    with pytest.raises(ValueError, match=r"to_coo: an array of shape \(\)"):
        sparsearray.zeros(()).to_coo()
    for call in (to_csr, to_bsr):
        with pytest.raises(ValueError, match=r"shape \(5,\): it must have 2 axes"):
            call(sparsearray.zeros(5))
    with pytest.raises(ValueError, match="no tiles; blocksize="):
        sparsearray.zeros((4, 4)).to_bsr()
    with pytest.raises(ValueError, match=r"\(64, 64\) do not divide .*\(100, 70\).*\(4, 2\)"):
        sparsearray.zeros((100, 70), tiles=64).to_bsr()
    with pytest.raises(ValueError, match="at least 1"):
        sparsearray.zeros((4, 4)).to_bsr((0, 1))


@pytest.mark.parametrize("sides", [2, "ab", (2, 2, 2), (2.5, 2)], ids=repr)
def test_blocks_that_are_none(sides):
    """Blocks have two sides, which are integers: nothing is cut off."""
    with pytest.raises(TypeError, match=r"blocksize is \(rows, columns\), two integers, not"):
        sparsearray.zeros((4, 4)).to_bsr(sides)


def test_no_array_of_ours():
    """What has no holes to skip is scipy's own matter."""
    for call in (to_coo, to_csr, lambda dense: to_bsr(dense, (1, 1))):
        with pytest.raises(TypeError, match="takes a SparseArray or a TiledArray, not ndarray"):
            call(np.zeros((3, 3)))


def test_no_memory(monkeypatch):
    """What does not fit is refused before memory is full."""
    a = sparsearray.zeros((1 << 13, 1 << 14), "u1", tiles=(1 << 10, 1 << 10))
    a[...] = 1
    for name in ("sparsearray.interop._coordinates", "sparsearray.interop.scipy"):
        monkeypatch.setattr(sys.modules[name], "available_memory", lambda: 1 << 20)
    for call in (a.to_coo, a.to_csr, lambda: a.to_bsr((8, 8)), a.to_bsr):
        with pytest.raises(MemoryError, match="to_(coo|csr|bsr): .* 1 MiB .*left"):
            call()


# And back


def test_pages_that_do_not_fit(monkeypatch):
    """Entries far apart take a page each: they are refused before memory is full, others are not."""
    module = sys.modules["sparsearray.interop._coordinates"]
    monkeypatch.setattr(module, "available_memory", lambda: 16 << 20)
    count = 20_000
    apart = scipy.sparse.coo_array(
        (np.ones(count), (np.arange(count), np.arange(count))), shape=(1 << 20, 1 << 20)
    )
    for tiles in (None, (1, 512), (1, 1024)):
        with pytest.raises(MemoryError, match=r"pages of .* MiB more, and 16 MiB of memory"):
            from_scipy(apart, tiles=tiles)
    for tiles in ((16, 32), (64, 64)):
        assert from_scipy(apart, tiles=tiles).sum() == count
    together = scipy.sparse.csr_array(np.ones((100, 1000)))
    assert from_scipy(together).sum() == 100_000


@settings(max_examples=100, deadline=None)
@given(
    pair=matrices(),
    kind=st.sampled_from(FORMATS),
    tiles=st.sampled_from([None, "auto", 5]),
    old=st.booleans(),
)
def test_from_scipy(pair, kind, tiles, old):
    """Any format becomes what its dense array is."""
    dense, _ = pair
    make = getattr(scipy.sparse, f"{kind}_{'matrix' if old else 'array'}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.sparse.SparseEfficiencyWarning)
        matrix = make(dense)
    found = from_scipy(matrix, tiles=tiles)
    assert (found.shape, found.dtype) == (dense.shape, matrix.dtype)
    assert np.array_equal(found[...], dense, equal_nan=dense.dtype.kind in "fc")


def test_entries_are_added_up():
    """Entries for one place are added up, and the matrix is as it was."""
    for dtype in ("i1", "f4", "?"):
        data = np.array([100, 100, 1, 0], dtype)
        matrix = scipy.sparse.coo_array((data, ([1, 1, 0, 2], [2, 2, 0, 1])), shape=(3, 4))
        assert_same(from_scipy(matrix)[...], matrix.toarray())
        assert matrix.nnz == 4
        assert np.array_equal(matrix.data, data)
    unsorted = scipy.sparse.csr_array(([1, 2, 3], [2, 0, 2], [0, 3, 3]), shape=(2, 3))
    assert_same(from_scipy(unsorted)[...], unsorted.toarray())
    assert unsorted.indices.tolist() == [2, 0, 2]


def test_entries_of_zero():
    """Entries of zero take nothing; -0.0 and NaN stay what they are."""
    data = np.array([0.0, -0.0, np.nan, 0.0])
    places = [0, 1 << 20, 2 << 20, 3 << 20]
    matrix = scipy.sparse.coo_array((data, (places, [0] * 4)), shape=(4 << 20, 1 << 10))
    a = from_scipy(matrix)
    assert a.nbytes_stored == 2 * sparsearray.zeros(1).buffer.page_size
    assert np.signbit(a[1 << 20, 0])
    assert np.isnan(a[2 << 20, 0])
    assert not np.signbit(a[0, 0])
    whole = scipy.sparse.coo_array((np.array([complex(0, -0.0)]), ([1], [1])), shape=(2, 2))
    assert np.signbit(from_scipy(whole)[1, 1].imag)


def test_other_axes():
    """One axis, or three, as scipy has them."""
    dense = some_items("f8", (5, 6, 7), 1)
    assert_same(from_scipy(scipy.sparse.coo_array(dense))[...], dense)
    assert_same(from_scipy(scipy.sparse.coo_array(dense[0, 0]))[...], dense[0, 0])
    assert from_scipy(scipy.sparse.coo_array((3, 0))).shape == (3, 0)


def test_no_sparse_array():
    """What is none is refused by name."""
    with pytest.raises(TypeError, match="not ndarray"):
        from_scipy(np.zeros((3, 3)))


# Products


@settings(max_examples=80, deadline=None)
@given(
    pair=matrices(),
    columns=st.sampled_from([None, 1, 3, 8, 9]),
    other=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
)
def test_products(pair, columns, other, seed):
    """``a @ x`` is numpy's, in value and dtype, for whatever goes through scipy."""
    dense, a = pair
    dense = np.nan_to_num(dense, nan=3, posinf=5, neginf=-5)
    a[...] = dense
    shape = (dense.shape[1],) if columns is None else (dense.shape[1], columns)
    x = np.random.default_rng(seed).integers(0, 9, shape).astype(other)
    found, expected = a @ x, dense @ x
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert np.array_equal(found, expected)  # all of these are exact in float32


def alone(shape: tuple[int, int], dtype: str, count: int) -> Any:
    """Make a matrix of whole pages in which few tiles lie side by side."""
    rng = np.random.default_rng(0)
    a = sparsearray.zeros(shape, dtype, tiles="auto")
    a[rng.integers(0, shape[0], count), rng.integers(0, shape[1], count)] = rng.integers(
        1, 9, count
    )
    return a


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i8", "c8"])
def test_products_of_tiles_alone(dtype):
    """Where few tiles lie side by side a product is made of scipy's blocks, those at the edge too."""
    a = alone((2000, 2003), dtype, 300)
    x = np.random.default_rng(1).integers(0, 9, (2003, 3)).astype(dtype)
    wide = np.result_type(dtype, {"f": "f8", "i": "i8", "c": "c16"}[dtype[0]])
    assert a._times(x, wide) is not None
    assert_same(a @ x, a[...] @ x)
    assert_same(a.dot(x[:, 0]), a[...] @ x[:, 0])


def test_which_operand_comes_first():
    """Products whose result lies the other way round are as numpy's, too."""
    a = alone((500, 400), "f8", 20)
    x = np.random.default_rng(1).integers(0, 9, (400, 3)).astype(float)
    y = np.random.default_rng(2).integers(0, 9, (500, 3)).astype(float)
    dense = a[...]
    assert_same(np.tensordot(a, x, ([1], [0])), np.tensordot(dense, x, ([1], [0])))
    assert_same(np.tensordot(x, a, ([0], [1])), np.tensordot(x, dense, ([0], [1])))
    assert_same(np.tensordot(y, a, ([0], [0])), np.tensordot(y, dense, ([0], [0])))
    assert_same(y.T @ a, y.T @ dense)
    assert_same(np.inner(a, x.T), np.inner(dense, x.T))
    assert_same(a @ x[:, :1], dense @ x[:, :1])
    assert_same(a @ np.ones((2, 400, 3)), dense @ np.ones((2, 400, 3)))


def test_rows_that_do_not_fit():
    """Where each row begins takes 8 bytes, however few hold something."""
    for tiles in (None, (1 << 10, 4)):
        a = sparsearray.zeros((1 << 42, 4), "u1", tiles=tiles)
        assert a.to_coo().nnz == 0
        with pytest.raises(MemoryError, match=r"to_csr: the index of 4398046511104 rows: 32 TiB"):
            a.to_csr()


def test_sums_are_exact():
    """Sums of float32 are rounded once."""
    a = sparsearray.zeros((32, 1 << 20), "f4", tiles="auto")
    a[:, :: 1 << 12] = 0.1
    x = np.full(1 << 20, 0.1, "f4")
    assert a._times(x, np.dtype("f8")) is not None
    exact = np.float64(np.float32(0.1)) ** 2 * 256
    assert (a @ x).tolist() == [np.float32(exact)] * 32


def test_infinities_meet_zeros():
    """A zero times an infinity is NaN, in a tile and in a hole."""
    a = alone((500, 500), "f8", 10)
    for at in (0, 100, 499):
        x = np.ones(500)
        x[at] = np.inf
        assert a._times(x, np.dtype("f8")) is not None
        with np.errstate(invalid="ignore"):
            assert np.array_equal(a @ x, a[...] @ x, equal_nan=True)


def test_what_scipy_is_slower_at(monkeypatch):
    """Large boxes and many columns are numpy's; and so is what does not fit twice."""
    a = alone((2000, 2000), "f8", 300)
    assert a._times(np.ones((2000, 9)), np.dtype("f8")) is None
    monkeypatch.setattr(sys.modules["sparsearray.interop.scipy"], "available_memory", lambda: 1)
    monkeypatch.setattr(sys.modules["sparsearray.interop.scipy"], "UNCHECKED", 0)
    assert a._times(np.ones(2000), np.dtype("f8")) is None
    a[:1000, :1000] = 1
    monkeypatch.undo()
    assert a._times(np.ones(2000), np.dtype("f8")) is None


def test_without_scipy(monkeypatch):
    """Where scipy is not installed, products work, and the error says how to get the rest."""
    for name in ("scipy", "scipy.sparse"):
        monkeypatch.setitem(sys.modules, name, None)
    a = sparsearray.zeros((64, 64), tiles=(4, 4))
    a[3, 3] = 1
    assert (a @ np.ones(64)).sum() == 1
    for call in (a.to_coo, a.to_csr, a.to_bsr, lambda: from_scipy(None)):
        with pytest.raises(
            ImportError, match=r"needs scipy: pip install 'sparsearray-numpy\[scipy\]'"
        ):
            call()
