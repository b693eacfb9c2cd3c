"""pydata's sparse: what arrays become, beside what it makes of the dense ones; and back."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsearray

from .array_files import assert_same

sparse = pytest.importorskip("sparse", reason="the extra sparse")

from sparsearray.interop.sparse import from_sparse, to_sparse  # noqa: E402 - after sparse


def some_items(dtype: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Make items of which a third are not zero."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < 1 / 3, rng.integers(0, 9, shape), 0).astype(dtype)


@settings(max_examples=50, deadline=None)
@given(
    dtype=st.sampled_from(["?", "i1", "i8", "u4", "f4", "f8", "c16"]),
    shape=st.lists(st.integers(1, 20), min_size=1, max_size=4).map(tuple),
    tiles=st.sampled_from([None, "auto", 3]),
    seed=st.integers(0, 1000),
)
def test_there_and_back(dtype, shape, tiles, seed):
    """A COO has the entries that sparse finds in the dense array, and becomes that again."""
    dense = some_items(dtype, shape, seed)
    a = sparsearray.zeros(shape, dtype, tiles=tiles)
    a[...] = dense
    found = a.to_sparse()
    expected = sparse.COO.from_numpy(dense)
    assert type(found) is sparse.COO
    assert (found.shape, found.dtype, found.fill_value) == (shape, np.dtype(dtype), 0)
    assert_same(found.data, expected.data)
    assert np.array_equal(found.coords, expected.coords)
    back = from_sparse(found, tiles=tiles)
    assert type(back) is type(a)
    assert_same(back[...], dense)


def test_one_item():
    """An item without axes is carried, zero or not."""
    a = sparsearray.zeros((), "i4")
    for value in (0, 7):
        a[()] = value
        assert a.to_sparse().todense() == value
        assert from_sparse(a.to_sparse())[()] == value


@pytest.mark.slow  # numba compiles what makes one
def test_gcxs():
    """A GCXS is made on request, and becomes an array again."""
    dense = some_items("f8", (20, 30), 0)
    a = sparsearray.zeros((20, 30), tiles=4)
    a[...] = dense
    found = to_sparse(a, "gcxs")
    assert type(found) is sparse.GCXS
    assert_same(found.todense(), dense)
    assert_same(from_sparse(found)[...], dense)


def test_dok():
    """A DOK becomes an array."""
    dok = sparse.DOK((20, 30), {(3, 4): 2.5})
    assert from_sparse(dok)[3, 4] == 2.5


def test_a_large_one():
    """Holes are skipped, however many there are."""
    a = sparsearray.zeros((1 << 6, 1 << 17, 1 << 17))
    a[7, 70_000, 5:9] = 1, 2, np.nan, -0.0
    found = a.to_sparse()
    assert found.nnz == 3
    back = from_sparse(found, tiles="auto")
    assert_same(back[7, 70_000, 4:9], np.array([0, 1, 2, np.nan, 0]))


def test_refusals():
    """What cannot be carried is refused by name."""
    with pytest.raises(ValueError, match=r"fill value is .*1\.5"):
        from_sparse(sparse.full((3, 3), 1.5))
    with pytest.raises(ValueError, match="fill value is"):
        from_sparse(sparse.full((3, 3), -0.0))
    with pytest.raises(TypeError, match="not ndarray"):
        from_sparse(np.zeros(3))
    with pytest.raises(ValueError, match="'dok'"):
        sparsearray.zeros(3).to_sparse("dok")
    for dtype in ("M8[s]", "S3", [("a", "i4")], ">f8"):
        with pytest.raises(TypeError, match="to_sparse: "):
            sparsearray.zeros(3, dtype).to_sparse()
    with pytest.raises(TypeError, match="GCXS has no float16"):
        sparsearray.zeros(3, "f2").to_sparse("gcxs")


def test_without_sparse(monkeypatch):
    """Where sparse is not installed, the error says how to get it."""
    monkeypatch.setitem(sys.modules, "sparse", None)
    for call in (sparsearray.zeros(3).to_sparse, lambda: from_sparse(None)):
        with pytest.raises(
            ImportError, match=r"needs sparse: pip install 'sparsearray-numpy\[sparse\]'"
        ):
            call()


@pytest.mark.parametrize("dtype", ["g", "G"])
def test_long_doubles_come_back(dtype):
    """What a long double has behind its number does not make a zero fill value something else."""
    a = sparsearray.zeros((50, 60), dtype)
    a[3, 4] = 5
    for _ in range(10):
        b = from_sparse(to_sparse(a))
        assert b.dtype == a.dtype
        assert np.array_equal(b, a)
