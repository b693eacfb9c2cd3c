"""Products and comparisons of two arrays, of which one has holes, or both."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsearray
from sparsearray import reductions

from .boxed_arrays import Boxes, arrays, cut, outcome, same, seeded, sparse

# Comparisons


@st.composite
def pairs(draw):
    """Draw an array with holes and one that is the same, nearly the same, or another."""
    a = draw(arrays(min_dims=0))
    kind = draw(st.integers(0, 3))
    if kind == 0 or not a.size:
        return a, draw(arrays())
    b = a.dense.copy()
    if kind > 1:
        place = tuple(draw(st.integers(0, n - 1)) for n in a.shape)
        b[place] = (1, 2) if a.dtype.names else 1
    if draw(st.booleans()):
        return a, b
    other = Boxes(b, cut(b.shape, lambda low, high: draw(st.integers(low, high))))
    filled = np.zeros(b.shape, bool)
    for box in other.indices:
        filled[box] = True
    b[~filled] = np.zeros((), b.dtype)
    return a, other


def _dense(x):
    return x.dense if isinstance(x, Boxes) else x


@pytest.mark.parametrize("name", ["array_equal", "allclose", "array_equiv"])
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_comparisons(name, data):
    """Sparse with sparse, sparse with dense and dense with sparse compare as dense ones do."""
    a, b = data.draw(pairs())
    if data.draw(st.booleans()):
        a, b = b, a
    kwargs = {} if name == "array_equiv" else {"equal_nan": data.draw(st.booleans())}
    ours, _ = outcome(lambda: getattr(reductions, name)(a, b, **kwargs))
    if isinstance(ours, TypeError) and "repeated" in str(ours):
        return
    theirs, _ = outcome(lambda: getattr(np, name)(_dense(a), _dense(b), **kwargs))
    if isinstance(theirs, Exception) and isinstance(ours, TypeError | ValueError):
        return  # shapes and dtypes may both be wrong, and numpy's order is its own
    same(ours, theirs)


def test_what_would_be_repeated_is_refused():
    """An array with holes is not broadcast."""
    a = seeded(np.ones((1, 3)), 1)
    for function in (reductions.allclose, reductions.array_equiv):
        with pytest.raises(TypeError, match="repeated"):
            function(a, np.ones((4, 3)))


# Products


def _matrix(draw, shape, special):
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    dtype = draw(st.sampled_from(["f8", "f4", "i4", "c16", "?", "u1", "f2"]))
    made = np.asarray(rng.integers(-4, 5, shape)).astype(dtype)
    if made.dtype.kind == "c":
        made = made + 1j * rng.integers(-4, 5, shape)
    if special and made.size and made.dtype.kind in "fc":
        made.flat[rng.integers(0, made.size)] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    return made


def _products(draw):
    """Draw a product, shapes that mostly fit, and arguments."""
    side = lambda: draw(st.integers(1, 4))  # noqa: E731
    m, k, n, s, t = side(), side(), side(), side(), side()
    other = k if draw(st.integers(0, 9)) else k + 1
    return draw(
        st.sampled_from(
            [
                ("dot", (k,), (other,), ()),
                ("dot", (m, k), (other,), ()),
                ("dot", (m, k), (other, n), ()),
                ("dot", (k,), (other, n), ()),
                ("dot", (s, m, k), (t, other, n), ()),
                ("inner", (m, k), (n, other), ()),
                ("inner", (k,), (other,), ()),
                ("inner", (s, m, k), (other,), ()),
                ("vdot", (m, k), (m, other), ()),
                ("vdot", (m, k), (other * m,), ()),
                ("matmul", (m, k), (other, n), ()),
                ("matmul", (k,), (other,), ()),
                ("matmul", (m, k), (other,), ()),
                ("matmul", (k,), (s, other, n), ()),
                ("matmul", (s, m, k), (other,), ()),
                ("matmul", (s, m, k), (other, n), ()),
                ("matmul", (m, k), (s, other, n), ()),
                ("matmul", (s, m, k), (s, other, n), ()),
                ("matmul", (s, m, k), (1, other, n), ()),
                ("matmul", (1, m, k), (s, other, n), ()),
                ("matmul", (t, 1, m, k), (s, other, n), ()),
                ("tensordot", (m, k, s), (other, s, n), ()),
                ("tensordot", (m, k), (other, n), (1,)),
                ("tensordot", (m,), (n,), (0,)),
                ("tensordot", (k, m), (n, other), ((0, 1),)),
                ("tensordot", (k, m, s), (s, n, other), (([0, 2], [2, 0]),)),
                ("tensordot", (k, m, s), (s, n, other), (([-3, -1], [-1, 0]),)),
                ("tensordot", (k, m), (n, other), ((5, 1),)),
            ]
        )
    )


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_products(data):
    """Products with a dense operand on either side: infinities and NaN meet the zeros of holes."""
    name, one, two, args = _products(data.draw)
    left, right = (
        _matrix(data.draw, shape, data.draw(st.integers(0, 3)) == 0) for shape in (one, two)
    )
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    which = data.draw(st.integers(0, 2))
    a = sparse(left, draw) if which != 1 else left
    b = sparse(right, draw) if which != 0 else right
    ours, _ = outcome(lambda: getattr(reductions, name)(a, b, *args))
    if isinstance(ours, TypeError) and "two sparse" in str(ours):
        return
    theirs, _ = outcome(lambda: getattr(np, name)(_dense(a), _dense(b), *args))
    if not isinstance(theirs, Exception) and theirs.dtype.kind in "fc":
        # BLAS skips some zeros, and some not; numpy's own loops, of long double, multiply them all.
        long = {"f": "g", "c": "G"}[theirs.dtype.kind]
        with np.errstate(invalid="ignore"):
            theirs = getattr(np, name)(
                _dense(a).astype(long), _dense(b).astype(long), *args
            ).astype(theirs.dtype)
    if isinstance(theirs, np.ndarray) and theirs.dtype.kind == "c":
        # Which part of a complex number becomes NaN of inf * 0 is up to BLAS.
        assert ours.dtype == theirs.dtype
        bad = ~np.isfinite(theirs)
        assert np.array_equal(bad, ~np.isfinite(ours))
        ours, theirs = np.where(bad, 0, ours), np.where(bad, 0, theirs)
    elif isinstance(theirs, np.complexfloating) and not np.isfinite(theirs):
        assert not np.isfinite(ours)
        return
    same(ours, theirs, 100.0)


@pytest.mark.parametrize("name", ["dot", "matmul"])
def test_products_into_out(name):
    """np.dot and matmul take out, and say where it does not fit."""
    a = seeded(np.arange(12.0).reshape(3, 4), 3)
    out = np.ones((3, 2))
    b = np.arange(8.0).reshape(4, 2)
    assert getattr(reductions, name)(a, b, out) is out
    np.testing.assert_array_equal(out, getattr(np, name)(a.dense, b))
    with pytest.raises(ValueError, match="shape"):
        getattr(reductions, name)(a, b, np.ones((2, 3)))


@pytest.mark.parametrize("which", [(0,), (1,), (0, 1)])
def test_vdot_conjugates_the_first(which):
    """The first operand is conjugated, whichever of them has holes."""
    rng = np.random.default_rng(7)
    pair = [rng.integers(-9, 9, (3, 4)) + 1j * rng.integers(-9, 9, (3, 4)) for _ in range(2)]
    pair = [seeded(one, 3) if k in which else one for k, one in enumerate(pair)]
    assert reductions.vdot(*pair) == np.vdot(*map(_dense, pair))


def test_products_that_are_refused():
    """Two large sparse operands, a scalar, and matmul's rarer arguments."""
    a = seeded(np.ones((4, 4)), 3)
    for call in (
        lambda: reductions.dot(a, a),
        lambda: reductions.dot(a, 2),
        lambda: reductions.inner(3, a),
        lambda: reductions.matmul(a, a.dense, axes=[(0, 1)] * 3),
    ):
        with pytest.raises(TypeError):
            call()


def test_a_number_of_tensordot_is_an_array():
    """Where nothing is left numpy gives an array without axes, not a scalar."""
    a = sparsearray.zeros((3, 4))
    a[1, 2] = 5
    for axes in (2, ([0, 1], [0, 1])):
        found, expected = (
            np.tensordot(a, np.ones((3, 4)), axes),
            np.tensordot(a[...], np.ones((3, 4)), axes),
        )
        assert (type(found), found.shape, found) == (type(expected), expected.shape, expected)


def test_orders_of_norms_that_there_are_not():
    """The error is numpy's."""
    with pytest.raises(ValueError, match="norm order"):
        np.linalg.norm(sparsearray.zeros((3, 4)), 3)
    with pytest.raises(TypeError, match="not made"):
        np.linalg.norm(sparsearray.zeros((3, 4)), 2)


def test_products_of_nothing_into_an_array() -> None:
    """Where nothing is multiplied, a sparse `out` is filled with zeros as a dense one is."""
    out = sparsearray.zeros((3, 2))
    out[...] = 5
    found = np.dot(sparsearray.zeros((3, 0)), np.zeros((0, 2)), out)
    assert found is out
    assert not out.any()


@pytest.mark.parametrize("tiles", [None, 3])
@pytest.mark.parametrize("dtype", ["O", "m8[s]", "?"])
@pytest.mark.parametrize(
    ("shape", "other"),
    [((5,), (5,)), ((4, 5), (5,)), ((4, 5), (5, 3)), ((4, 1), (1, 2)), ((1,), (1,))],
)
@pytest.mark.parametrize("name", ["matmul", "dot", "inner", "vdot"])
def test_products_with_what_is_no_number(name, shape, other, dtype, tiles) -> None:
    """Objects, times and truths are multiplied as numpy does it, or refused where it refuses."""
    a = sparsearray.zeros(shape, "i4", tiles=tiles)
    dense = (np.arange(a.size, dtype="i4") % 3).reshape(shape)
    a[...] = dense
    x = np.arange(1, 1 + int(np.prod(other))).reshape(other).astype(dtype)
    function = getattr(np, name)
    try:
        expected = function(dense, x)
    except (TypeError, ValueError) as error:
        with pytest.raises(type(error)):
            function(a, x)
        return
    found = function(a, x)
    assert type(found) is type(expected)
    assert getattr(found, "dtype", None) == getattr(expected, "dtype", None)
    assert np.array_equal(found, expected)


def test_products_with_sparse_matrices_of_others() -> None:
    """What is sparse in another way is no ndarray, and the error says where such products are."""
    csr = pytest.importorskip("scipy.sparse").csr_array(np.eye(5))
    a = sparsearray.zeros((4, 5))
    for call in (lambda: a @ csr, lambda: np.dot(a, csr)):
        with pytest.raises(TypeError, match=r"products with a csr_array .* a.to_csr\(\)"):
            call()
