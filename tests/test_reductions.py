"""Reductions and their kin agree with numpy on the dense array, wherever its holes are."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sparsearray import reductions

from .boxed_arrays import (
    DTYPES,
    NUMBERS,
    UFUNC_LIKE,
    Boxes,
    agree,
    arrays,
    axes_of,
    magnitude,
    masks,
    outcome,
    same,
    seeded,
    sparse,
)


@pytest.mark.parametrize("name", UFUNC_LIKE)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_reductions_with_all_arguments(name, data):
    """Every argument that numpy knows gives numpy's result, exception and warning."""
    # There numpy overflows in half precision where we do not.
    dtypes = [d for d in DTYPES if d != "f2"] if "var" in name or "std" in name else DTYPES
    a = data.draw(arrays(dtypes))
    if name in {"prod", "nanprod"} and a.dtype.kind == "c":
        # Which parts of a product become NaN with an infinity, the order decides.
        assume(np.isfinite(a.dense).all())
    kwargs = {"axis": data.draw(axes_of(a.ndim))}
    if data.draw(st.booleans()):
        kwargs["keepdims"] = data.draw(st.sampled_from([True, False, np._NoValue]))
    if name in {
        "sum",
        "prod",
        "mean",
        "nansum",
        "nanprod",
        "nanmean",
        "var",
        "std",
        "nanvar",
    } and data.draw(st.booleans()):
        kwargs["dtype"] = data.draw(
            st.sampled_from(
                [None, "f4", "f8", "c16", "i8", "u1"]
                if "var" not in name and "std" not in name
                else [None, "f4", "f8"]
            )
        )
    if name in {"sum", "prod", "min", "max", "nansum", "nanprod", "nanmin", "nanmax"} and data.draw(
        st.booleans()
    ):
        kwargs["initial"] = data.draw(st.sampled_from([0, 1, 3, np._NoValue]))
    if data.draw(st.integers(0, 2)) == 0:
        kwargs["where"] = masks(data.draw, a)
    if "var" in name or "std" in name:
        kwargs["ddof"] = data.draw(st.sampled_from([0, 1, 2.5, 7]))
    if (
        a.dtype.kind in "biu"
        and name in {"prod", "nanprod"}
        and str(kwargs.get("dtype")) in {"f4", "f8", "c16"}
    ):
        del kwargs["dtype"]
    if a.dtype.kind in "SUmM" or (a.dtype.itemsize >= 4 and kwargs.get("dtype") == "f4"):
        kwargs.pop("dtype", None)
    # Of products that overflow on the way the order decides.
    agree(
        getattr(reductions, name),
        getattr(np, name),
        a,
        scale=magnitude(a),
        **kwargs,
    )


@pytest.mark.parametrize("name", [*UFUNC_LIKE, "ptp", "argmin", "argmax", "nanargmin", "nanargmax"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_reductions_into_out(name, data):
    """The result goes into `out`, converted as numpy converts it, and `out` is returned."""
    a = data.draw(arrays(special=False))
    axis = data.draw(axes_of(a.ndim))
    keepdims = data.draw(st.booleans())
    try:
        shape = np.sum(np.zeros(a.shape, "?"), axis=axis, keepdims=keepdims).shape
    except ValueError:
        shape = ()
    if data.draw(st.integers(0, 9)) == 0:
        shape = (*shape, 2)
    dtype = data.draw(st.sampled_from(["?", "i1", "i8", "f4", "f8", "c16"]))
    result, _ = outcome(lambda: getattr(np, name)(np.zeros((1,) * a.ndim, a.dtype)))
    if not isinstance(result, Exception) and not (
        a.dtype.kind in "biufc" and np.can_cast(np.promote_types(a.dtype, result.dtype), dtype)
    ):
        # Items that do not fit are cut off in an order of numpy's own.
        dtype = result.dtype
    out = np.full(shape, 0, dtype)
    if data.draw(st.booleans()):
        out = Boxes(out, [tuple(slice(0, n) for n in shape)])
    agree(
        getattr(reductions, name),
        getattr(np, name),
        a,
        axis=axis,
        out=out,
        keepdims=keepdims,
        scale=magnitude(a),
        warn=False,
    )


@pytest.mark.parametrize("name", ["argmin", "argmax", "nanargmin", "nanargmax"])
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_places_of_extremes(name, data):
    """The first extreme in C order is found, in a hole as well."""
    a = data.draw(arrays())
    axis = data.draw(axes_of(a.ndim))
    if isinstance(axis, tuple) and "nan" in name:
        axis = None  # which of two errors comes first
    kwargs = {"keepdims": data.draw(st.booleans())} if data.draw(st.booleans()) else {}
    agree(getattr(reductions, name), getattr(np, name), a, axis, **kwargs)


@pytest.mark.parametrize("name", ["count_nonzero", "ptp"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_counts_and_ranges(name, data):
    """count_nonzero and ptp take axis and keepdims."""
    a = data.draw(arrays())
    kwargs = {"keepdims": data.draw(st.booleans())} if data.draw(st.booleans()) else {}
    agree(
        getattr(reductions, name),
        getattr(np, name),
        a,
        data.draw(axes_of(a.ndim)),
        warn=False,
        scale=magnitude(a),
        **kwargs,
    )


WHOLE = [
    "nonzero",
    "flatnonzero",
    "argwhere",
    "unique",
    "shape",
    "ndim",
    "size",
    "iscomplexobj",
    "isrealobj",
    "bincount",
]


@pytest.mark.parametrize("name", WHOLE)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_functions_of_the_whole(name, data):
    """Functions without further arguments agree."""
    a = data.draw(
        arrays(dtypes=["u1", "?", "u2", "i4"], max_dims=1, min_dims=1)
        if name == "bincount"
        else arrays()
    )
    agree(getattr(reductions, name), getattr(np, name), a)


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_unique_with_counts_and_places(data):
    """np.unique counts holes as zeros, and says where each value comes first."""
    a = data.draw(arrays(max_side=6))
    kwargs = {
        name: data.draw(st.booleans()) for name in ("return_index", "return_counts", "equal_nan")
    }
    if a.dtype.kind in "mM":
        kwargs["equal_nan"] = True  # numpy 2.4 joins NaT or not as other arguments have it
    agree(reductions.unique, np.unique, a, **kwargs)


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_reduce_of_ufuncs(data):
    """np.add.reduce and its kin, along axis 0 by default."""
    a = data.draw(arrays())
    ufunc = data.draw(
        st.sampled_from(
            [
                np.add,
                np.multiply,
                np.maximum,
                np.minimum,
                np.fmax,
                np.fmin,
                np.logical_or,
                np.logical_and,
                np.bitwise_or,
                np.bitwise_and,
                np.bitwise_xor,
            ]
        )
    )
    kwargs = {}
    if data.draw(st.booleans()):
        kwargs["axis"] = data.draw(axes_of(a.ndim))
    if data.draw(st.booleans()):
        kwargs["keepdims"] = data.draw(st.booleans())
    if data.draw(st.integers(0, 3)) == 0:
        kwargs["where"] = masks(data.draw, a)
    agree(
        lambda *args, **kw: reductions.reduce_ufunc(ufunc, *args, **kw),
        ufunc.reduce,
        a,
        scale=magnitude(a),
        warn=False,
        **kwargs,
    )


def test_reduce_of_other_ufuncs_is_left_to_others():
    """A ufunc of which holes are not zeros is NotImplemented."""
    assert reductions.reduce_ufunc(np.subtract, seeded(np.ones(4), 0)) is NotImplemented


# Others with arguments of their own


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_norms(data):
    """Norms that need no decomposition, of the whole, of vectors and of matrices."""
    a = data.draw(arrays(dtypes=NUMBERS, special=False))
    order = data.draw(
        st.sampled_from([None, 1, 2, np.inf, -np.inf, 0, 3, 0.5, -1, "fro", "nuc", "x"])
    )
    axis = data.draw(
        st.one_of(st.none(), st.integers(-2, 2), st.tuples(st.integers(-2, 1), st.integers(-2, 1)))
    )
    args = (order, axis, data.draw(st.booleans()))
    ours, _ = outcome(lambda: reductions.norm(a, *args))
    if isinstance(ours, TypeError) and ("a sparse array" in str(ours) or "holes make" in str(ours)):
        return
    theirs, _ = outcome(lambda: np.linalg.norm(a.dense, *args))
    same(ours, theirs, 1e3)


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_average_with_weights(data):
    """Weights have the array's shape or that of an axis, dense or sparse."""
    a = data.draw(arrays(dtypes=[*NUMBERS, "S2", "i2,f4"], special=False))
    axis = data.draw(axes_of(a.ndim))
    weights = None
    if data.draw(st.booleans()):
        shape = a.shape
        if data.draw(st.booleans()) and axis is not None:
            shape = tuple(
                a.shape[k] if -a.ndim <= k < a.ndim else 1
                for k in np.atleast_1d(axis).astype(int).tolist()
            )
        weights = (
            np.random.default_rng(5)
            .integers(0, 4, shape)
            .astype(data.draw(st.sampled_from(["f8", "i4"])))
        )
        if shape == a.shape and a.ndim and data.draw(st.booleans()):
            weights = sparse(weights, lambda low, high: data.draw(st.integers(low, high)))
    kwargs = {
        "axis": axis,
        "weights": weights,
        "returned": data.draw(st.booleans()),
        "keepdims": data.draw(st.booleans()),
    }
    agree(reductions.average, np.average, a, scale=1e2, warn=False, **kwargs)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_traces(data):
    """Diagonals run through boxes, off the main one as well."""
    a = data.draw(arrays(min_dims=1, max_side=6))
    kwargs = {"offset": data.draw(st.integers(-6, 6))}
    if a.ndim != 2:
        kwargs |= {"axis1": data.draw(st.integers(-3, 3)), "axis2": data.draw(st.integers(-3, 3))}
    if data.draw(st.booleans()):
        kwargs["dtype"] = data.draw(st.sampled_from(["f8", "i1"]))
    agree(reductions.trace, np.trace, a, scale=1e3, warn=False, **kwargs)


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_histograms(data):
    """Holes fall into the bin of zero, if there is one."""
    a = data.draw(arrays(dtypes=NUMBERS))
    bins = data.draw(st.sampled_from([1, 7, 0, [-3, 0, 2, 9], [0, 0, 1], [3, 1]]))
    kwargs = {
        "range": data.draw(st.sampled_from([None, (-5, 5), (0, 0), (3, 1)])),
        "density": data.draw(st.booleans()),
    }
    agree(reductions.histogram, np.histogram, a, bins, warn=False, **kwargs)


def test_what_is_not_made_is_refused():
    """Arguments whose result would be dense, or for which all data is needed, name the way out."""
    a = seeded(np.arange(6), 1)
    for call in (
        lambda: reductions.unique(a, return_inverse=True),
        lambda: reductions.unique(a, axis=0),
        lambda: reductions.histogram(a, "auto"),
        lambda: reductions.histogram(a, 3, weights=np.ones(6)),
        lambda: reductions.bincount(a, np.ones(6)),
    ):
        with pytest.raises(TypeError, match="on a part it works"):
            call()


def test_bincount_minlength():
    """np.bincount has at least minlength bins, and refuses what numpy refuses."""
    for values in (
        np.array([0, 3, 3, 0]),
        np.array([1, -1]),
        np.ones(3),
        np.ones((2, 2), int),
        np.ones(2, "u8"),
    ):
        a = seeded(values, 2)
        a = Boxes(values, [tuple(slice(0, n) for n in values.shape)])
        for minlength in (0, 2, 9, -1):
            agree(reductions.bincount, np.bincount, a, None, minlength)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_var_with_mean_and_correction(data):
    """A mean that is known already, and correction in the place of ddof."""
    a = data.draw(arrays(dtypes=NUMBERS, min_dims=1, special=False))
    name = data.draw(st.sampled_from(["var", "std", "nanvar", "nanstd"]))
    axis = data.draw(st.sampled_from([None, *range(-a.ndim, a.ndim)]))
    kwargs = {"axis": axis}
    if data.draw(st.booleans()) and a.size:
        kwargs["mean"] = np.mean(a.dense, axis=axis, keepdims=True)
    if data.draw(st.booleans()):
        kwargs["correction"] = 1
        if data.draw(st.integers(0, 3)) == 0:
            kwargs["ddof"] = 1
    agree(getattr(reductions, name), getattr(np, name), a, scale=1e3, **kwargs)


# How they are called


@pytest.mark.parametrize("name", sorted(set(reductions.__all__) - {"FUNCTIONS", "reduce_ufunc"}))
def test_numpy_finds_each_function(name):
    """The table behind __array_function__ has every one under numpy's own."""
    theirs = np.linalg.norm if name == "norm" else getattr(np, name)
    ours = reductions.FUNCTIONS[theirs]
    assert ours.__name__ == {"amax": "max", "amin": "min"}.get(name, name)
    assert ours is getattr(reductions, name)


def test_unaligned_items_are_read():
    """Fields of packed records lie at odd addresses."""
    packed = np.zeros(50, [("a", "u1"), ("b", "<f8"), ("c", ">i4")])
    packed["b"], packed["c"] = np.arange(50) - 20, np.arange(50) * 3
    for field, name in itertools.product(
        "bc", ["sum", "max", "argmin", "var", "nonzero", "unique", "any"]
    ):
        values = packed[field]
        a = Boxes(values, [(slice(0, 20),), (slice(20, 50),)])
        agree(getattr(reductions, name), getattr(np, name), a)


def test_dense_arrays_with_a_sparse_out_or_where():
    """Numpy asks us also when only `out` or `where` has holes."""
    dense = np.arange(12.0).reshape(3, 4)
    out = Boxes(np.zeros(4), [(slice(0, 4),)])
    assert reductions.sum(dense, axis=0, out=out) is out
    np.testing.assert_array_equal(out.dense, dense.sum(axis=0))
    where = seeded(dense % 2 == 0, 2)
    assert reductions.sum(dense, where=where) == dense.sum(where=where.dense)


@pytest.mark.parametrize("dtype", ["f4", "f8", "c16"])
@pytest.mark.parametrize("name", ["prod", "nanprod"])
def test_products_with_holes(dtype, name):
    """A hole makes a product zero, however large it was before; an infinity beside one makes NaN."""
    function = getattr(reductions, name)
    values = np.zeros((4, 3000), dtype)
    values[0, 1000:2024] = 10
    values[1] = 1e10
    values[2, 2000:2101] = -3
    values[3, 7] = np.inf
    boxes = [(0, 1000, 2024), (1, 0, 3000), (2, 2000, 2101), (3, 0, 10)]
    found = [(slice(row, row + 1), slice(start, stop)) for row, start, stop in boxes]
    with np.errstate(all="ignore"):
        products = function(Boxes(values, found), axis=1)
    assert products[0] == products[2] == 0
    assert np.signbit(products[2].real)  # of an odd number of negative items
    assert not np.isfinite(products[1])
    assert np.isnan(products[3])
    # All of it has a hole: nothing overflows, and nothing is warned of.
    assert function(Boxes(values[:1], found[:1])) == 0
    assert function(Boxes(values[:3], found[:3])) == 0
