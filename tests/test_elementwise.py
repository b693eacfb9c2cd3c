"""Functions that work item by item, against numpy on the dense array."""

import operator
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import sparsearray
from sparsearray import SparseArray

SHAPE = (40, 500)


def make(
    dtype: str, seed: int = 0, shape: tuple[int, ...] = SHAPE
) -> tuple[SparseArray, np.ndarray]:
    """Make an array with a few patches of numbers in it, and the same as an ndarray."""
    random = np.random.default_rng(seed)
    array, dense = sparsearray.zeros(shape, dtype), np.zeros(shape, dtype)
    for _ in range(4):
        row, column = random.integers(0, shape[0]), random.integers(0, shape[1] - 60)
        patch = (random.random(60) * 20 - 10).astype(dtype)
        array[row, column : column + 60] = patch
        dense[row, column : column + 60] = patch
    return array, dense


def same(found: Any, expected: np.ndarray) -> None:
    """Compare a sparse result with a dense one; -0.0 counts as 0.0, since holes are 0.0."""
    assert isinstance(found, SparseArray)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found[...], expected)


KEEP = [
    np.negative, np.absolute, np.sqrt, np.sin, np.tan, np.sign, np.square, np.expm1, np.floor, np.rint,
    np.isnan, np.isinf, np.signbit, np.arctan, np.log1p, np.conjugate, np.positive, np.cbrt, np.trunc,
]  # fmt: skip
FILL = [np.cos, np.exp, np.log, np.isfinite, np.logical_not, np.reciprocal, np.cosh]


@pytest.mark.parametrize("function", KEEP)
def test_what_keeps_zero(function: np.ufunc) -> None:
    """Gives an array that is as sparse."""
    array, dense = make("f8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = function(array)
        same(found, function(dense))
    assert found.nbytes_stored <= array.nbytes_stored


@pytest.mark.parametrize("function", FILL)
def test_what_would_fill_is_refused(function: np.ufunc) -> None:
    """With an error that shows the way."""
    array, _ = make("f8")
    stored = array.nbytes_stored
    with pytest.raises(
        TypeError, match=rf"np.{function.__name__} would fill the holes.*a\[index\]"
    ):
        function(array)
    assert array.nbytes_stored == stored


KEPT: dict[str, Callable[[Any], Any]] = {
    "a * 2": lambda a: a * 2,
    "3 * a": lambda a: 3 * a,
    "a / 4": lambda a: a / 4,
    "a // 3": lambda a: a // 3,
    "a % 3": lambda a: a % 3,
    "a**2": lambda a: a**2,
    "a != 0": lambda a: a != 0,
    "a > 1": lambda a: a > 1,
    "abs(a)": lambda a: abs(a),
    "a * np.float32(1.5)": lambda a: a * np.float32(1.5),
    "a * np.arange(500)": lambda a: a * np.arange(500),
    "np.arange(40)[:, None] * a": lambda a: np.arange(40)[:, None] * a,
    "np.logical_and(a, True)": lambda a: np.logical_and(a, True),
    "np.maximum(a, 0)": lambda a: np.maximum(a, 0),
}


@pytest.mark.parametrize("dtype", ["f8", "f4", "i8", "u1", "c8", "?"])
@pytest.mark.parametrize("operation", KEPT)
def test_with_scalars_and_dense_arrays(dtype: str, operation: str) -> None:
    """Values, dtypes and errors are numpy's."""
    array, dense = make(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            expected = KEPT[operation](dense)
        except TypeError:
            with pytest.raises(TypeError):
                KEPT[operation](array)
            return
        same(KEPT[operation](array), expected)


REFUSED: dict[str, Callable[[Any], Any]] = {
    "a + 1": lambda a: a + 1,
    "a - 0.5": lambda a: a - 0.5,
    "a == 0": lambda a: a == 0,
    "a >= 0": lambda a: a >= 0,
    "a**0": lambda a: a**0,
    "1 / a": lambda a: 1 / a,
    "a / 0": lambda a: a / 0,
    "a * np.nan": lambda a: a * np.nan,
    "a * np.inf": lambda a: a * np.inf,
    "a * np.array([np.inf] * 500)": lambda a: a * np.array([np.inf] * 500),
    "np.maximum(a, 1)": lambda a: np.maximum(a, 1),
    '~a.astype("i4")': lambda a: ~a.astype("i4"),
    "a * np.ones((2, *SHAPE))": lambda a: a * np.ones((2, *SHAPE)),
    "np.add.accumulate(a)": lambda a: np.add.accumulate(a),
    "np.multiply.outer(a, [1])": lambda a: np.multiply.outer(a, [1]),
    "np.add(a, 1, where=np.ones(SHAPE, bool))": lambda a: np.add(a, 1, where=np.ones(SHAPE, bool)),
}


@pytest.mark.parametrize("operation", REFUSED)
def test_refused(operation: str) -> None:
    """What fills holes, or is not made."""
    with pytest.raises(TypeError):
        REFUSED[operation](make("f8")[0])


@pytest.mark.parametrize(
    "operation",
    [
        operator.add,
        operator.sub,
        operator.mul,
        np.maximum,
        np.hypot,
        np.arctan2,
        operator.ne,
        operator.lt,
    ],
)
def test_two_sparse_arrays(operation: Callable[[Any, Any], Any]) -> None:
    """The union of what is populated, here and there."""
    (a, x), (b, y) = make("f8", 1), make("i4", 2)
    same(operation(a, b), operation(x, y))
    same(operation(a, a), operation(x, x))


def test_in_place() -> None:
    """Into the array itself, also when it comes twice; windows see it."""
    (a, x), (b, y) = make("f8", 1), make("f8", 2)
    window = a[...]
    a *= 3
    x *= 3
    assert np.array_equal(window, x)
    a += b
    x += y
    assert np.array_equal(window, x)
    a += a
    x += x
    assert np.array_equal(window, x)
    a -= a
    assert not window.any()
    with pytest.raises(TypeError):
        a += 1


def test_out() -> None:
    """Given as an array of ours or as a dense one; what was there goes."""
    a, x = make("f8", 1)
    out, _ = make("f8", 5)
    assert np.multiply(a, 2, out=out) is out
    same(out, x * 2)
    dense = np.full(SHAPE, 7.0)
    assert np.multiply(a, 2, out=dense) is dense
    assert np.array_equal(dense, x * 2)
    with pytest.raises(ValueError, match="shape"):
        np.multiply(a, 2, out=sparsearray.zeros(3))
    integers = sparsearray.zeros(SHAPE, "i4")
    with pytest.raises(TypeError, match="cast"):
        np.multiply(a, 2.5, out=integers)


def test_two_results() -> None:
    """`divmod` and its kin."""
    a, x = make("i8")
    for found, expected in zip(divmod(a, 7), divmod(x, 7), strict=True):
        same(found, expected)
    b, y = make("f8")
    for found, expected in zip(np.modf(b), np.modf(y), strict=True):
        same(found, expected)


@pytest.mark.parametrize("dtype", ["f4", "i2", "c16", "?", ">f8"])
def test_astype(dtype: str) -> None:
    """Holes are kept."""
    a, x = make("f8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same(a.astype(dtype), x.astype(dtype))
    with pytest.raises(TypeError, match="safe"):
        a.astype("i4", casting="safe")
    with pytest.raises(TypeError, match="becomes"):
        a.astype("S4")
    with pytest.raises(TypeError, match="objects"):
        a.astype(object)


def test_functions_that_are_no_ufuncs() -> None:
    """round, clip, real, imag, nan_to_num, zeros_like, copy, copyto."""
    a, x = make("c16")
    b, y = make("f8")
    same(np.round(b, 1), np.round(y, 1))
    same(np.clip(b, -3, 3), np.clip(y, -3, 3))
    same(np.real(a), np.real(x))
    same(np.imag(a), np.imag(x))
    with pytest.raises(TypeError, match="fill"):
        np.clip(b, 1, 2)
    b[0, :2] = y[0, :2] = np.nan, np.inf
    same(np.nan_to_num(b), np.nan_to_num(y))
    like = np.zeros_like(b, dtype="i4", shape=(3, 4))
    assert (like.shape, like.dtype, like.any()) == ((3, 4), np.dtype("i4"), False)
    assert np.zeros_like(b).shape == SHAPE
    same(np.copy(b), y)
    np.copyto(like, np.ones((3, 4), "i4"))
    assert like[...].all()
    with pytest.raises(TypeError, match="ast"):
        np.copyto(like, 1.5 * np.ones((3, 4)))
    np.copyto(like, 7)
    assert (like[...] == 7).all()
    for value in (1.5, 1 << 40):
        with pytest.raises((TypeError, OverflowError)):
            np.copyto(like, value)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda a: a + 1, r"^np\.add would fill the holes"),
        (lambda a: np.clip(a, 1, 3), r"^np\.clip would fill the holes"),
        (
            lambda a: np.save("a.npy", a),
            r"^np\.save is not made .* a\.save\(path\) keeps the holes$",
        ),
        (lambda a: np.linalg.svd(a), r"^np\.linalg\.svd is not made"),
        (lambda a: np.transpose(a), r"a\[\.\.\.\]\.T is a window"),
        (
            lambda a: np.where(a, a, np.nan),
            r"^np\.where would fill the holes, with nan for a zero; on a part",
        ),
        (
            lambda a: np.full_like(a, 2),
            r"^np\.full_like would fill the holes, with 2\.0 for a zero; on a part",
        ),
    ],
)
def test_refusals_show_the_way(call: Any, text: str) -> None:
    """What was called, and what to do instead."""
    with pytest.raises(TypeError, match=text):
        call(sparsearray.zeros((3, 4)))


def test_broadcasting_a_sparse_array_is_refused() -> None:
    """It would be repeated into holes of the other."""
    with pytest.raises(TypeError, match="repeated"):
        np.add(sparsearray.zeros((3, 1)), sparsearray.zeros((3, 4)))


@pytest.mark.usefixtures("told_pages")
def test_terabytes() -> None:
    """Cost what is stored."""
    a = sparsearray.zeros((1 << 20, 1 << 17))
    a[5, 7] = 3
    b = (a * 2 + a) / 3
    assert b[5, 7] == 3
    assert b.nbytes_stored == 4096


@pytest.mark.parametrize("dtype", ["?", "i1", "u2", "i8", "f4", "f8", "c8"])
@pytest.mark.parametrize(
    "power", [2, 2.0, 3, True, np.int64(2), np.float64(2), np.int8(2), 0.5], ids=repr
)
def test_powers(dtype: str, power: Any) -> None:
    """Of the dtype that numpy gives, and so without overflow where it has none."""
    array, dense = sparsearray.zeros(3, dtype), np.array([0, 1, 100], dtype)
    array[...] = dense
    same(array**power, dense**power)


@pytest.mark.parametrize(
    ("dtype", "other"),
    [("f8", "x"), ("U3", 3), ("M8[s]", 0.5), ("f8", np.array(["a", "b", "c"])), ("S1", 1.5)],
)
def test_things_of_another_kind_are_not_equal(dtype: str, other: Any) -> None:
    """As numpy says of any two items, and so holes stay holes; what is unequal fills them."""
    array, dense = sparsearray.zeros(3, dtype), np.zeros(3, dtype)
    found = array == other
    assert (found.dtype, found.any()) == (bool, np.any(dense == other))
    with pytest.raises(TypeError, match="np.not_equal would fill the holes"):
        array != other  # noqa: B015 - it raises


@pytest.mark.parametrize("dtype", ["S5", "U2", ">f8", ">i2", "f4", "?", "c8"])
@pytest.mark.parametrize("function", [np.nan_to_num, np.round, np.real, np.copy])
def test_dtypes_of_results(dtype: str, function: Any) -> None:
    """The same as of the dense array, byte order and length of text included."""
    array, dense = sparsearray.zeros(3, dtype), np.zeros(3, dtype)
    array[1] = dense[1] = b"hello" if dtype == "S5" else "ab" if dtype == "U2" else 1
    try:
        expected = function(dense)
    except TypeError:
        with pytest.raises(TypeError):
            function(array)
        return
    same(function(array), expected)


def test_results_that_do_not_fit_into_out() -> None:
    """Floats are not cut to integers without a word."""
    array = sparsearray.zeros(10)
    for call in (np.round, lambda a, out: np.clip(a, -1, 1, out=out)):
        with pytest.raises(TypeError, match="cast"):
            call(array, out=np.zeros(10, "i4"))
        with pytest.raises(TypeError, match="cast"):
            call(array, out=sparsearray.zeros(10, "i4"))
    with pytest.raises(TypeError, match="where"):
        np.clip(array, -1, 1, where=np.ones(10, bool))


def test_a_refusal_names_what_would_fill() -> None:
    """Not the first result, which may be zero."""
    dense = np.arange(3.0)
    with pytest.raises(TypeError, match="with 1.0 for a zero"):
        dense += sparsearray.zeros(3)


def test_astype_without_a_copy() -> None:
    """Gives the array itself where there is nothing to convert."""
    array, dense = make("f4")
    assert array.astype("f4", copy=False) is array
    assert array.astype("f4") is not array
    same(array.astype("f8", copy=False), dense.astype("f8"))


CHOICES: dict[str, Callable[[Any, Any], Any]] = {
    "mask, 0, a": lambda a, _: np.where(np.isnan(a), 0, a),
    "mask, a, other": lambda a, b: np.where(a > 1, a, b),
    "zero scalar of another dtype": lambda a, _: np.where(a > 1, a, np.float32(0)),
    "dense condition": lambda a, _: np.where(np.arange(500) % 3 == 0, a, 0),
    "dense column": lambda a, _: np.where(np.arange(40)[:, None] % 2 == 0, 0, a),
    "dense choice": lambda a, _: np.where(a != 0, np.arange(500.0), a),
}


@pytest.mark.parametrize("dtype", ["f8", "f4", "i2", "c16", ">f8"])
@pytest.mark.parametrize("name", CHOICES)
def test_where(name: str, dtype: str) -> None:
    """Gives what numpy gives, dtype and NaN included, with holes where all there is is zero."""
    (array, dense), (other, dense_other) = make(dtype), make(dtype, 1)
    if np.dtype(dtype).kind in "fc":
        array[3, 5] = dense[3, 5] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of NaN
        same(CHOICES[name](array, other), CHOICES[name](dense, dense_other))


def test_where_of_a_condition_alone() -> None:
    """Tells the places, as nonzero does."""
    array, dense = make("f8")
    for found, expected in zip(np.where(array), np.where(dense), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_full_like_of_zeros() -> None:
    """Gives an empty array; not -0.0, which holes are not."""
    array, _ = make("f4")
    same(np.full_like(array, 0), np.zeros(SHAPE, "f4"))
    same(np.full_like(array, False, dtype="i2", shape=(3, 4)), np.zeros((3, 4), "i2"))
    with pytest.raises(TypeError, match=r"with -0\.0 for a zero"):
        np.full_like(array, -0.0)


@pytest.mark.parametrize(
    "others", [(), (0,), (0.5,), (np.float64(1),), ("c8",), (np.ones(2, "i8"),)]
)
@pytest.mark.parametrize("dtype", ["f4", "i2", "?"])
def test_result_type(dtype: str, others: tuple[Any, ...]) -> None:
    """Goes by the dtype, wherever the array stands."""
    array, dense = make(dtype)
    assert np.result_type(array, *others) == np.result_type(dense, *others)
    assert np.result_type(*others, array) == np.result_type(*others, dense)


def test_can_cast() -> None:
    """Goes by the dtype of the array."""
    array, _ = make("i2")
    found = [np.can_cast(array.dtype, to) for to in ("i1", "i4", "f4")]
    asked: Any = np.can_cast  # its stub knows no arrays
    assert [asked(array, to) for to in ("i1", "i4", "f4")] == found == [False, True, True]
    assert asked(array, "i1", "same_kind")
