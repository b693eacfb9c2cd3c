"""What tests of reductions share: arrays with holes, the same dense, and how results are compared."""

import warnings
from math import prod

import hypothesis.extra.numpy as hnp
import numpy as np
from hypothesis import strategies as st


class Boxes:
    """The smallest array with holes: disjoint boxes of a dense array, which is zero elsewhere."""

    def __init__(self, dense, indices):
        self.dense = dense
        self.shape, self.dtype, self.ndim = dense.shape, dense.dtype, dense.ndim
        self.size, self.nbytes = dense.size, dense.nbytes
        self.indices = list(indices)

    def blocks(self, *, max_nbytes=None):
        """Go through the boxes, cut where they are larger than asked for."""
        most = max((max_nbytes or (1 << 24)) // max(self.dtype.itemsize, 1), 1)
        for index in self.indices:
            for part in _split(index, most):
                yield part, self.dense[part]

    def __setitem__(self, key, value):
        self.dense[key] = value.dense if isinstance(value, Boxes) else value

    def __array_function__(self, function, types, args, kwargs):
        assert (function, types, kwargs) == (np.zeros_like, (Boxes,), {})
        return Boxes(np.zeros_like(self.dense), self.indices)

    def __getitem__(self, key):
        return self.dense[key]


def _split(index, most):
    sizes = [s.stop - s.start for s in index]
    if prod(sizes) <= most:
        yield index
        return
    k = int(np.argmax(sizes))
    middle = index[k].start + sizes[k] // 2
    for part in (slice(index[k].start, middle), slice(middle, index[k].stop)):
        yield from _split((*index[:k], part, *index[k + 1 :]), most)


def cut(shape, draw):
    """Cut a shape into disjoint boxes at random places; `draw(low, high)` gives the chance."""
    if 0 in shape:
        return []
    todo = [tuple(slice(0, n) for n in shape)]
    for _ in range(draw(0, 6)):
        box = todo.pop(draw(0, len(todo) - 1))
        wide = [k for k, s in enumerate(box) if s.stop - s.start > 1]
        if not wide:
            todo.append(box)
            break
        k = wide[draw(0, len(wide) - 1)]
        middle = draw(box[k].start + 1, box[k].stop - 1)
        todo += [
            (*box[:k], slice(box[k].start, middle), *box[k + 1 :]),
            (*box[:k], slice(middle, box[k].stop), *box[k + 1 :]),
        ]
    return [box for box in todo if draw(0, 3)]


def sparse(dense, draw):
    """Make holes in a dense array, and the array of boxes that has them."""
    dense = dense.copy()
    boxes = cut(dense.shape, draw)
    filled = np.zeros(dense.shape, bool)
    for box in boxes:
        filled[box] = True
    dense[~filled] = np.zeros((), dense.dtype)
    return Boxes(dense, boxes)


def seeded(dense, seed):
    """Make holes at places that a seed gives."""
    rng = np.random.default_rng(seed)
    return sparse(dense, lambda low, high: int(rng.integers(low, high + 1)))


def outcome(function):
    """Return what a call gives or raises, and what numpy's functions themselves warn of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = function()
        except Exception as error:  # noqa: BLE001 - whatever numpy raises, we do
            found = error
    # Invalid values and overflows are the processor's to report, and depend on the order.
    said = {str(one.message).rstrip(".") for one in caught}
    return found, {text for text in said if "slice" in text}


_TOLERANCE = {"f2": 5e-3, "f4": 2e-5, "c8": 2e-5}


def same(ours, theirs, scale=1.0, least=0.0):
    """Assert the same kind of result: type, dtype, shape and value, floats to rounding."""
    if isinstance(theirs, Exception):
        assert type(ours) is type(theirs) or (
            isinstance(ours, type(theirs)) or isinstance(theirs, type(ours))
        ), f"{ours!r} for {theirs!r}"
        return
    assert not isinstance(ours, Exception), f"{ours!r} for {theirs!r}"
    if isinstance(theirs, tuple):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            same(one, other, scale, least)
        return
    assert type(ours) is type(theirs)
    if isinstance(theirs, bool | int):
        assert ours == theirs
        return
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    if theirs.dtype.kind in "fc":
        rtol = max(least, _TOLERANCE.get(theirs.dtype.str[1:], 1e-9))
        with np.errstate(all="ignore"):
            assert np.allclose(ours, theirs, rtol=rtol, atol=rtol * scale, equal_nan=True), (
                f"{ours} for {theirs}"
            )
    elif theirs.dtype.kind in "mM":
        assert np.array_equal(ours, theirs, equal_nan=True)
    else:
        assert np.array_equal(ours, theirs)


def agree(ours, theirs, a, *args, scale=1.0, warn=True, **kwargs):
    """Assert that our function of an array with holes does what numpy's does with the dense one."""
    dense_kwargs = {
        name: value.dense.copy() if isinstance(value, Boxes) else value
        for name, value in kwargs.items()
    }
    if isinstance(kwargs.get("out"), np.ndarray):
        dense_kwargs["out"] = kwargs["out"].copy()
    expected, expected_warnings = outcome(lambda: theirs(a.dense, *args, **dense_kwargs))
    found, found_warnings = outcome(lambda: ours(a, *args, **kwargs))
    if "out" in kwargs and not isinstance(expected, Exception):
        assert found is kwargs["out"]
        found = found.dense if isinstance(found, Boxes) else found
    same(found, expected, scale, _TOLERANCE.get(a.dtype.str[1:], 0))
    if warn and not isinstance(expected, Exception):
        assert found_warnings == expected_warnings


SPECIAL = {
    "f": [0.0, -0.0, np.nan, np.inf, -np.inf, 1.5, -2.25, 1e3],
    "c": [0j, complex(np.nan, 1), complex(1, np.inf), 1 + 2j, -3j, complex(-0.0, -0.0)],
}
DTYPES = [
    "?",
    "i1",
    "u1",
    "i2",
    ">i4",
    "i8",
    "u8",
    "f2",
    "f4",
    "f8",
    ">f8",
    "c8",
    "c16",
    "m8[s]",
    "M8[D]",
    "S2",
    "U1",
    "i2,f4",
]
NUMBERS = [d for d in DTYPES if np.dtype(d).kind in "biufc"]


@st.composite
def arrays(draw, dtypes=DTYPES, min_dims=0, max_dims=4, special=True, max_side=4):
    """Draw an array with holes, of any dtype, with the values that go wrong."""
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    shape = (
        draw(
            hnp.array_shapes(
                min_dims=min_dims,
                max_dims=max_dims,
                min_side=0 if draw(st.integers(0, 9)) == 0 else 1,
                max_side=max_side,
            )
        )
        if max_dims and (min_dims or draw(st.integers(0, 9)))
        else ()
    )
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    if dtype.kind in "fc":
        made = rng.integers(-8, 9, shape) / 4
        if dtype.kind == "c":
            made = made + 1j * rng.integers(-8, 9, shape) / 4
        made = np.asarray(made).astype(dtype)
        if special and draw(st.booleans()):
            pick = rng.random(shape) < draw(st.sampled_from([0.1, 0.5, 1.0]))
            values = (
                SPECIAL[dtype.kind]
                if draw(st.booleans())
                else [draw(st.sampled_from(SPECIAL[dtype.kind]))]
            )
            made[pick] = rng.choice(np.array(values, dtype.newbyteorder("=")), int(pick.sum()))
    elif dtype.names or dtype.kind in "SU":
        made = np.zeros(shape, dtype)
        for place in np.ndindex(shape):
            if rng.random() < 0.6:
                made[place] = (
                    (int(rng.integers(-9, 9)), 1.5) if dtype.names else str(rng.integers(0, 9))
                )
    else:
        made = np.asarray(rng.integers(-128, 128, shape)).astype(dtype.newbyteorder("="))
        if special and dtype.kind in "iu" and draw(st.booleans()):
            ends = np.array([np.iinfo(dtype).min, np.iinfo(dtype).max], dtype)
            made = np.where(rng.random(shape) < 0.5, rng.choice(ends, shape), made)
        if dtype.kind == "b":
            made = np.asarray(rng.random(shape) < draw(st.sampled_from([0.1, 0.9, 1.0])))
        if dtype.kind in "mM" and special and draw(st.booleans()):
            made = np.where(rng.random(shape) < 0.3, np.array("NaT", dtype), made)
        made = np.asarray(made).astype(dtype)
    return sparse(made, lambda low, high: draw(st.integers(low, high)))


@st.composite
def axes_of(draw, ndim):
    """Draw an axis argument, mostly one that fits."""
    wild = st.one_of(st.integers(-5, 5), st.lists(st.integers(-4, 4), max_size=3).map(tuple))
    if ndim == 0 or draw(st.integers(0, 9)) == 0:
        return draw(st.one_of(st.none(), wild))
    some = st.lists(st.integers(-ndim, ndim - 1), max_size=ndim, unique_by=lambda k: k % ndim)
    return draw(st.one_of(st.none(), st.integers(-ndim, ndim - 1), some.map(tuple)))


def masks(draw, a):
    """Draw a where that broadcasts, is sparse, or does not fit."""
    kind = draw(st.integers(0, 6))
    if kind == 0 and a.size:
        flags = np.zeros(a.shape, bool)
        flags[...] = np.random.default_rng(draw(st.integers(0, 99))).random(a.shape) < 0.5
        return sparse(flags, lambda low, high: draw(st.integers(low, high)))
    if kind == 1 and a.dtype.kind in "biufc":
        return draw(st.sampled_from([True, False, np.True_, np.ones((7, 7, 7), bool), [True], 1]))
    shape = [n if draw(st.booleans()) else 1 for n in a.shape][
        draw(st.integers(0, 1)) * a.ndim // 2 :
    ]
    return np.random.default_rng(draw(st.integers(0, 99))).random(shape) < draw(
        st.sampled_from([0.0, 0.5, 1.0])
    )


UFUNC_LIKE = [
    "sum",
    "prod",
    "min",
    "max",
    "amin",
    "amax",
    "any",
    "all",
    "nansum",
    "nanprod",
    "nanmin",
    "nanmax",
    "mean",
    "nanmean",
    "var",
    "std",
    "nanvar",
    "nanstd",
]


def magnitude(a):
    """How large rounding errors may be, from the largest finite item."""
    if a.dtype.kind not in "iufc" or not a.size:
        return 1e3
    with np.errstate(all="ignore"):
        items = np.abs(a.dense.astype("c16"))
        items = items[np.isfinite(items)]
        return 1.0 + float(items.max(initial=0.0)) ** 2 * max(a.size, 1)
