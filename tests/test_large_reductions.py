"""Reductions of many boxes, and of a terabyte: precise, in C order, and from the boxes alone."""

import mmap
from math import prod

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsearray
from sparsearray import reductions
from sparsearray._boxes import Boxes as Reader
from sparsearray._boxes import first_hole
from sparsearray._lanes import Lanes

from .boxed_arrays import UFUNC_LIKE, Boxes, agree, arrays, cut, seeded


class Huge:
    """An array of any size with a few boxes, and nothing behind the rest."""

    def __init__(self, shape, dtype, boxes):
        self.shape, self.dtype, self.ndim = shape, np.dtype(dtype), len(shape)
        self.size = prod(shape)
        self.nbytes = self.size * self.dtype.itemsize
        self.boxes = [
            (
                tuple(slice(at, at + n) for at, n in zip(place, np.shape(items), strict=True)),
                np.array(items, dtype),
            )
            for place, items in boxes
        ]

    def blocks(self, *, max_nbytes=None):
        """Go through the boxes."""
        del max_nbytes
        yield from self.boxes


# Precision


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "c8"])
def test_sums_of_many_boxes_do_not_drift(dtype):
    """A hundred thousand tenths in small boxes come to what the exact sum rounds to."""
    dense = np.full((20_000, 8), 0.1).astype(dtype)
    dense[::2] = 0
    if dtype == "f2":
        dense = dense[:4000]
    a = Boxes(dense, [(slice(k, k + 1), slice(0, 8)) for k in range(1, len(dense), 2)])
    exact = dense.astype("c16").sum()
    eps = np.finfo(dtype).eps
    assert abs(complex(reductions.sum(a)) - exact) <= 2 * eps * abs(exact)
    assert abs(complex(reductions.mean(a)) - exact / dense.size) <= 2 * eps * abs(
        exact / dense.size
    )
    # Row after row, as numpy adds up columns.
    worst = 2000 if dtype == "f8" else 2
    assert (
        np.abs(reductions.sum(a, axis=0).astype("c16") - exact / 8).max()
        <= worst * eps * abs(exact) / 8
    )


def test_half_precision_adds_up_in_one_box():
    """A column of hundredths in half precision, where numpy's own sum stops growing."""
    dense = np.full((30_000, 2), 0.01, "f2")
    a = Boxes(dense, [(slice(0, 30_000), slice(0, 2))])
    exact = dense.astype(float).sum(axis=0)
    assert reductions.sum(a, axis=0).dtype == np.float16
    np.testing.assert_allclose(reductions.sum(a, axis=0), exact, rtol=1e-3)
    np.testing.assert_allclose(reductions.mean(a, axis=0), exact / 30_000, rtol=1e-3)


@pytest.mark.parametrize(
    "name", [name for name in UFUNC_LIKE if "nan" in name] + ["nanargmin", "nanargmax"]
)
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("dtype", ["f4", "f8", "c16"])
def test_nan_among_numbers(name, seed, dtype):
    """NaN is left out, holes are not."""
    rng = np.random.default_rng(seed)
    dense = rng.integers(-9, 10, (4, 3, 5)).astype(dtype)
    dense[rng.random(dense.shape) < 0.3] = np.nan
    a = seeded(dense, seed)
    for axis in (None, 0, 1, -1):
        agree(getattr(reductions, name), getattr(np, name), a, axis, scale=1e3)


def test_variance_far_from_zero_keeps_its_digits():
    """The mean is taken away before squaring."""
    values = 1e9 + np.arange(1000) % 7
    a = Boxes(values, [(slice(k, k + 10),) for k in range(0, 1000, 10)])
    assert reductions.var(a) == pytest.approx(np.var(values), rel=1e-12)


# Places of boxes


def test_boxes_in_any_order_give_c_order():
    """Boxes of columns interleave in C order: places come out sorted, extremes first."""
    dense = np.arange(1, 13).reshape(3, 4) % 5
    a = Boxes(dense, [(slice(0, 3), slice(k, k + 1)) for k in (2, 0, 3, 1)])
    for name in ("nonzero", "flatnonzero", "argwhere", "argmax", "argmin"):
        agree(getattr(reductions, name), getattr(np, name), a)
    agree(reductions.unique, np.unique, a, return_index=True, return_counts=True)


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_first_hole(data):
    """The first item in no box, found without a mask."""
    shape = data.draw(hnp.array_shapes(max_dims=4, max_side=5))
    boxes = cut(shape, lambda low, high: data.draw(st.integers(low, high)))
    mask = np.zeros(shape, bool)
    for box in boxes:
        mask[box] = True
    starts = np.array([[s.start for s in box] for box in boxes], int).reshape(-1, len(shape))
    stops = np.array([[s.stop for s in box] for box in boxes], int).reshape(-1, len(shape))
    assert first_hole(starts, stops, shape) == (None if mask.all() else int(np.argmin(mask)))


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_items_of_any_box(data):
    """Any box of an array can be put together from those that it has."""
    a = data.draw(arrays(min_dims=1))
    if not a.size:
        return
    read = Reader(a)
    start = [data.draw(st.integers(0, n - 1)) for n in a.shape]
    index = tuple(
        slice(k, data.draw(st.integers(k + 1, n))) for k, n in zip(start, a.shape, strict=True)
    )
    assert read(index).tobytes() == a.dense[index].tobytes()


def test_lanes_place_boxes():
    """A box's part lies where the box does, on the axes that are kept."""
    lanes = Lanes((4, 5, 6), (0, -1))
    index = (slice(1, 2), slice(2, 4), slice(0, 6))
    assert lanes.place(index) == (slice(0, 1), slice(2, 4), slice(0, 1))
    assert lanes.place_dropped(index) == (slice(2, 4),)


# Size

TIB = 1 << 40


def _two_boxes():
    return Huge((TIB,), "u1", [((5,), [0, 3, 7]), ((TIB - 2,), [200, 1])])


AT_ONCE = {
    "sum": (211, {}),
    "prod": (0, {}),
    "min": (0, {}),
    "max": (200, {}),
    "amin": (0, {}),
    "amax": (200, {}),
    "any": (True, {}),
    "all": (False, {}),
    "ptp": (200, {}),
    "count_nonzero": (4, {}),
    "argmin": (0, {}),
    "argmax": (TIB - 2, {}),
    "nansum": (211, {}),
    "nanprod": (0, {}),
    "nanmin": (0, {}),
    "nanmax": (200, {}),
    "nanargmin": (0, {}),
    "nanargmax": (TIB - 2, {}),
    "mean": (211 / TIB, {}),
    "nanmean": (211 / TIB, {}),
    "average": (211 / TIB, {}),
    "var": ((9 + 49 + 40000 + 1) / TIB - (211 / TIB) ** 2, {}),
    "std": (np.sqrt((9 + 49 + 40000 + 1) / TIB - (211 / TIB) ** 2), {}),
    "nanvar": ((9 + 49 + 40000 + 1) / TIB - (211 / TIB) ** 2, {}),
    "nanstd": (np.sqrt((9 + 49 + 40000 + 1) / TIB - (211 / TIB) ** 2), {}),
    "norm": (np.sqrt(9 + 49 + 40000 + 1), {}),
    "nonzero": (([6, 7, TIB - 2, TIB - 1],), {}),
    "flatnonzero": ([6, 7, TIB - 2, TIB - 1], {}),
    "argwhere": ([[6], [7], [TIB - 2], [TIB - 1]], {}),
    "unique": (
        ([0, 1, 3, 7, 200], [0, TIB - 1, 6, 7, TIB - 2], [TIB - 4, 1, 1, 1, 1]),
        {"return_counts": True, "return_index": True},
    ),
    "bincount": (
        np.bincount([0] * 0 + [3, 7, 200, 1]) + np.eye(1, 201, dtype=int)[0] * (TIB - 4),
        {},
    ),
    "histogram": (([TIB - 1, 1], [0, 100, 200]), {"bins": 2}),
    "shape": ((TIB,), {}),
    "ndim": (1, {}),
    "size": (TIB, {}),
    "iscomplexobj": (False, {}),
    "isrealobj": (True, {}),
    "array_equal": (True, {"a2": _two_boxes()}),
    "array_equiv": (False, {"a2": 0}),
    "allclose": (True, {"b": _two_boxes()}),
    "vdot": ((9 + 49 + 40000 + 1) % 256, {}),
    "dot": ((9 + 49 + 40000 + 1) % 256, {}),
    "inner": ((9 + 49 + 40000 + 1) % 256, {}),
    "matmul": ((9 + 49 + 40000 + 1) % 256, {}),
    "tensordot": ((9 + 49 + 40000 + 1) % 256, {"axes": 1}),
    "trace": (None, {}),
    "reduce_ufunc": (211, {}),
}


def test_the_table_of_a_terabyte_is_complete():
    """Every public function is in the table below."""
    assert set(AT_ONCE) == set(reductions.__all__) - {"FUNCTIONS"}


@pytest.mark.parametrize("name", AT_ONCE)
def test_a_terabyte_at_once(name):
    """Each function of a TiB with two boxes answers from the boxes alone."""
    expected, kwargs = AT_ONCE[name]
    a = _two_boxes()
    if name == "reduce_ufunc":
        found = reductions.reduce_ufunc(np.add, a)
    elif name == "trace":
        a = Huge((1 << 20, 1 << 20), "u1", [((5, 5), [[2, 9], [9, 3]])])
        found, expected = reductions.trace(a), 5
    elif name in {"vdot", "dot", "inner", "matmul", "tensordot"}:
        found = getattr(reductions, name)(a, _two_boxes(), **kwargs)
    else:
        found = getattr(reductions, name)(a, **kwargs)
    if isinstance(expected, tuple) and name != "shape":
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_result_larger_than_memory_is_refused_at_once():
    """MemoryError names the shape and the way out, before memory is taken."""
    a = Huge((3, TIB), "f8", [((0, 5), [[1.0]])])
    for call in (
        lambda: reductions.sum(a, axis=0),
        lambda: reductions.max(a, axis=()),
        lambda: reductions.var(a, axis=0),
        lambda: reductions.argmax(a, axis=0),
        lambda: reductions.count_nonzero(a, axis=0),
        lambda: reductions.dot(np.ones(3), a),
    ):
        with pytest.raises(MemoryError, match=r"1099511627776.*out="):
            call()


@pytest.mark.usefixtures("told_pages")
def test_a_sparse_out_stays_empty_where_nothing_is():
    """Only what boxes give is written into an `out` with holes; what was there goes."""
    a = sparsearray.zeros((1 << 30, 4), "i4")
    a[5], a[1 << 29] = (1, 2, 3, 4), 5
    out = sparsearray.zeros(1 << 30, "i8")
    out[1 << 20 : 1 << 21] = 1
    assert reductions.sum(a, axis=1, out=out) is out
    assert (out[5], out[1 << 29], out.sum()) == (10, 20, 30)
    assert out.nbytes_stored <= 4 * mmap.PAGESIZE
