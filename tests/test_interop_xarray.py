"""Arrays inside of xarray: they stay what they are, and work there as they do alone."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import sparsearray
from sparsearray import SparseArray, TiledArray

xr = pytest.importorskip("xarray", reason="these tests are of arrays inside of xarray")

TERABYTE = (1 << 20, 1 << 17)
LAYOUTS = {"rows": None, "tiles": "auto"}
layouts = pytest.mark.parametrize("tiles", LAYOUTS.values(), ids=LAYOUTS)


def both(dense, tiles, **kwargs):
    """Make a DataArray of an array of ours, and the same of a dense one."""
    made = sparsearray.zeros(dense.shape, dense.dtype, tiles=tiles)
    made[...] = dense
    dims = "xyz"[: dense.ndim]
    return xr.DataArray(made, dims=list(dims), **kwargs), xr.DataArray(
        dense, dims=list(dims), **kwargs
    )


def terabyte(tiles):
    """Make a DataArray of a terabyte, with two pages of it stored."""
    a = sparsearray.zeros(TERABYTE, tiles=tiles)
    a[1000, 2000:2004] = 1, 2, np.nan, 4
    a[5, 7] = -1
    return a, xr.DataArray(a, dims=("y", "x"), coords={"y": np.arange(TERABYTE[0]) / 2})


def same(found, expected):
    """Compare what xarray made of ours with what it made of the dense array."""
    assert (found.dims, found.shape, found.dtype) == (
        expected.dims,
        expected.shape,
        expected.dtype,
    )
    np.testing.assert_allclose(np.asarray(found.data), expected.data, rtol=1e-6, atol=1e-9)
    assert list(found.coords) == list(expected.coords)


# It stays what it is


@layouts
def test_it_stays_ours(tiles):
    """In xarray it is the array itself that is kept, alone and in a Dataset."""
    a, d = terabyte(tiles)
    assert d.data is a
    assert xr.Dataset({"a": d})["a"].data is a
    assert d.rename(x="column").assign_attrs(unit="m").data is a
    assert d.copy(deep=False).data is a


@layouts
@pytest.mark.usefixtures("told_pages")
def test_looking_at_it_fills_nothing(tiles):
    """What is shown of it is its one line, and the size is that of all of it."""
    a, d = terabyte(tiles)
    before = a.nbytes_stored
    assert f"<{type(a).__name__} {TERABYTE} float64" in repr(d)
    assert type(a).__name__ in d._repr_html_()
    assert d.nbytes == xr.Dataset({"a": d})["a"].nbytes == a.nbytes
    assert a.nbytes_stored == before


# Parts of it


@layouts
@pytest.mark.usefixtures("told_pages")
def test_parts(tiles):
    """Positions and labels select windows (of tiles: copies) of a terabyte."""
    a, d = terabyte(tiles)
    before = a.nbytes_stored
    expected = [1, 2, np.nan, 4]
    np.testing.assert_array_equal(d.isel(y=1000, x=slice(2000, 2004)), expected)
    np.testing.assert_array_equal(d.sel(y=500.0, x=slice(2000, 2004)), expected)
    np.testing.assert_array_equal(d.sel(y=2.6, method="nearest")[6:9], [0, -1, 0])
    np.testing.assert_array_equal(d[1000, [2001, 2000]], [2, 1])
    pairs = d.isel(y=xr.DataArray([5, 1000], dims="p"), x=xr.DataArray([7, 2003], dims="p"))
    np.testing.assert_array_equal(pairs, [-1, 4])
    np.testing.assert_array_equal(d.isel(y=[1000, 5], x=[7, 2000]), [[0, 1], [-1, 0]])
    assert d.isel(y=slice(None, None, 1 << 18), x=slice(0, 3)).shape == (4, 3)
    assert a.nbytes_stored == before


def test_parts_are_windows():
    """What is selected of a SparseArray is its memory, no copy."""
    a, d = terabyte(None)
    part = d.isel(y=slice(0, 10), x=slice(0, 10))
    part[3, 4] = 7
    assert a[3, 4] == 7


@layouts
def test_setting_parts(tiles):
    """Assignments go into the array."""
    a, d = terabyte(tiles)
    d[3, 4] = 7
    d.loc[{"y": slice(0.0, 1.0), "x": 5}] = 2
    assert a[3, 4] == 7
    np.testing.assert_array_equal(a[:4, 5], [2, 2, 2, 0])


@given(data=st.data(), tiles=st.sampled_from([None, 2]))
def test_any_part(data, tiles):
    """Any basic or orthogonal index gives what xarray gives of the dense array."""
    dense = data.draw(hnp.arrays("i2", hnp.array_shapes(max_dims=3, max_side=6)))
    ours, theirs = both(dense, tiles)
    key = {}
    for name, n in zip(theirs.dims, dense.shape, strict=True):
        kind = data.draw(st.sampled_from(["all", "slice", "int", "list"]))
        if kind == "slice":
            key[name] = data.draw(st.slices(n))
        elif kind == "int":
            key[name] = data.draw(st.integers(-n, n - 1))
        elif kind == "list":
            key[name] = data.draw(st.lists(st.integers(-n, n - 1), max_size=4))
    found, expected = ours.isel(key), theirs.isel(key)
    assert found.dims == expected.dims
    np.testing.assert_array_equal(np.asarray(found.data), expected.data)


# The whole of it

REDUCTIONS = ["sum", "prod", "mean", "min", "max", "std", "var", "any", "all"]


@settings(max_examples=300)
@given(name=st.sampled_from(REDUCTIONS), data=st.data())
def test_reductions(name, data):
    """Reductions along any axes, NaN skipped or not, give what they give of the dense array."""
    dtype = data.draw(st.sampled_from(["f8", "f4", "i4", "?"]))
    items = (
        st.sampled_from([0, 0, 0, 1.5, -2.25, 3, np.nan]) if dtype[0] == "f" else st.integers(0, 1)
    )
    dense = data.draw(hnp.arrays(dtype, hnp.array_shapes(max_dims=3, max_side=5), elements=items))
    ours, theirs = both(dense, data.draw(st.sampled_from([None, 2])))
    dims = data.draw(st.none() | st.lists(st.sampled_from(theirs.dims), min_size=1, unique=True))
    kwargs = {}
    if name not in ("any", "all"):
        kwargs["skipna"] = data.draw(st.sampled_from([None, True, False]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of lanes without a number
        same(getattr(ours, name)(dims, **kwargs), getattr(theirs, name)(dims, **kwargs))


@layouts
@pytest.mark.usefixtures("told_pages")
def test_reductions_of_a_terabyte(tiles):
    """They cost what is stored."""
    a, d = terabyte(tiles)
    before = a.nbytes_stored
    assert (d.sum(), d.max(), d.min()) == (6, 4, -1)
    assert d.mean().item() == pytest.approx(6 / (a.size - 1))
    assert np.isnan(d.sum(skipna=False))
    rows, columns = d.sum("x"), d.max("y")
    assert (rows.sizes, columns.sizes) == ({"y": TERABYTE[0]}, {"x": TERABYTE[1]})
    assert rows.sel(y=500.0) == 7
    assert [columns[2003], columns[7], columns[0]] == [4, 0, 0]
    assert d.mean("x")[5].item() == pytest.approx(-1 / TERABYTE[1])
    assert xr.Dataset({"a": d, "twice": d * 2}).sum()["twice"] == 12
    assert a.nbytes_stored == before


@layouts
def test_places(tiles):
    """What argmax gives are positions, what idxmax does labels."""
    _a, d = terabyte(tiles)
    assert d.argmax("x")[1000] == 2003
    assert d.idxmax("y")[2003] == 500.0


@pytest.mark.slow
@layouts
def test_memory_is_that_of_what_is_stored(tiles, run_ok):
    """A process that goes through a terabyte with xarray needs less than 1/1000 of it."""
    printed = run_ok(f"""
        import sparsearray, xarray
        a = sparsearray.zeros({TERABYTE}, tiles={tiles!r})
        a[1000, 2000] = 1
        d = xarray.DataArray(a, dims=("y", "x"))
        repr(d), d._repr_html_(), d.sum(), d.mean("x"), (d * 2).max("y"), d.where(d > 0, 0).std()
        # Not ru_maxrss, which begins with that of the process that started this one.
        print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
    """)
    assert int(printed) < 800 << 10  # KiB


# Item by item

ELEMENTWISE = {
    "d * 2": lambda d: d * 2,
    "-d": lambda d: -d,
    "abs": abs,
    "d > 0": lambda d: d > 0,
    "d - d": lambda d: d - d,
    "times a row": lambda d: d * xr.DataArray(np.arange(40.0), dims="y"),
    "sqrt": lambda d: xr.apply_ufunc(np.sqrt, abs(d)),
    "clip": lambda d: d.clip(-1, 1),
    "round": lambda d: d.round(1),
    "astype": lambda d: d.astype("f4"),
    "where": lambda d: d.where(d > 0, 0),
    "xr.where": lambda d: xr.where(d > 0, d, 0),
    "isnull": lambda d: d.isnull(),
    "zeros_like": xr.zeros_like,
    "copy": lambda d: d.copy(),
}


@layouts
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_item_by_item(name, tiles):
    """What keeps zero at zero gives an array that is as sparse, inside of xarray too."""
    dense = np.zeros((30, 40))
    dense[3, 5:9] = 1, -2.25, np.nan, 40
    ours, theirs = both(dense, tiles, coords={"y": np.arange(40) / 4})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = ELEMENTWISE[name](ours)
        same(found, ELEMENTWISE[name](theirs))
    assert isinstance(found.data, SparseArray if tiles is None else TiledArray)
    assert found.data is not ours.data


def test_files(tmp_path):
    """An array in a file is read from there, and written to it."""
    path = tmp_path / "a.npy"
    with sparsearray.open(path, "w+", shape=(1000, 1000)) as a:
        d = xr.DataArray(a, dims=("y", "x"))
        d[7, 8] = 3
        assert d.sum() == 3
        del d
    assert np.load(path)[7, 8] == 3


# What is refused


@layouts
def test_setting_a_read_only_array(tmp_path, tiles):
    """The error is that of the array, which says why."""
    path = tmp_path / "a.npy"
    sparsearray.save(path, sparsearray.zeros((64, 64), tiles=tiles))
    with sparsearray.open(path) as a:
        assert not a.flags.writeable
        with pytest.raises(ValueError, match=r"read-only: .*a\.npy' was opened with mode 'r'"):
            xr.DataArray(a, dims=("y", "x"))[3, 4] = 1


@layouts
def test_setting_what_does_not_fit(tiles):
    """So is that of a value of another shape."""
    a, d = terabyte(tiles)
    assert a.flags.writeable
    with pytest.raises(ValueError, match="sequence|broadcast|inhomogeneous"):
        d[3, :3] = (1, 2)


REFUSED = {
    "d + 1": (lambda d: d + 1, "np.add would fill the holes"),
    "where": (lambda d: d.where(d > 0), "np.where would fill the holes, with nan"),
    "count": (lambda d: d.count(), "np.logical_not would fill the holes"),
    "fillna": (lambda d: d.fillna(0), "np.invert would fill the holes"),
    "full_like": (lambda d: xr.full_like(d, 1), "np.full_like would fill the holes"),
    "median": (lambda d: d.median(), "np.nanmedian is not made for"),
    "stack": (
        lambda d: d.drop_vars("y").stack(z=("y", "x"), create_index=False),
        "np.reshape is not made for",
    ),
}


@layouts
@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.usefixtures("told_pages")
def test_what_would_fill_is_refused(name, tiles):
    """With the error that the array itself gives, and nothing is filled."""
    a, d = terabyte(tiles)
    before = a.nbytes_stored
    call, text = REFUSED[name]
    with pytest.raises(TypeError, match=text):
        call(d)
    assert a.nbytes_stored == before


def test_values_of_tiles():
    """A dense copy of a terabyte is refused."""
    _a, d = terabyte("auto")
    with pytest.raises(MemoryError, match="takes 1 TiB"):
        _ = d.values
