"""zarr arrays written: against what zarr itself reads."""

import tempfile
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsearray

zarr = pytest.importorskip("zarr", reason="the extra zarr is not installed")

from sparsearray.interop.zarr import from_zarr, to_zarr  # noqa: E402 - needs zarr

from .zarr_arrays import PAGE, QUIET, arrays, make, names_in, some  # noqa: E402 - needs zarr

pytestmark = QUIET
RECORD = np.dtype([("a", "<i4"), ("b", "<f8")])
DTYPES = ["f8", ">f4", "i2", ">u8", "?", "c16", ">c8", "M8[ns]", "m8[s]", "S4", "U4", "f2", RECORD]


# New arrays


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("compressors", [None, "auto"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes_come_back(tmp_path, version, compressors, dtype):
    """Bytes and dtype of every kind of item are the same, after the way to zarr and back."""
    a = sparsearray.zeros((20, 30), dtype, tiles=(8, 16))
    a[3:9, 14:20] = some((6, 6), dtype)
    z = a.to_zarr(tmp_path / "a", zarr_format=version, compressors=compressors)
    assert z[...].tobytes() == np.asarray(a).astype(z.dtype).tobytes()
    assert z.chunks == (8, 16)
    assert z.nchunks_initialized == 4
    again = from_zarr(z)
    assert again.dtype == a.dtype
    assert again[...].tobytes() == np.asarray(a).tobytes()


def test_scattered_pages_take_little(tmp_path):
    """Chunks that nobody asked for are small where single pages are stored, and large elsewhere."""
    a = sparsearray.zeros((1 << 20, 1 << 20), "u1")
    numbers = np.random.default_rng(0).integers(0, 1 << 20, (2, 256))
    a[numbers[0], numbers[1]] = 1
    z = a.to_zarr(tmp_path / "a", compressors=None)
    sizes = [path.stat().st_size for path in (tmp_path / "a" / "c").rglob("*") if path.is_file()]
    assert sum(sizes) <= 2 * a.nbytes_stored + (1 << 20)
    assert from_zarr(z, mode="r").sum() == a.sum()
    b = sparsearray.zeros((2048, 2048), "u1")
    b[...] = 1
    assert b.to_zarr(tmp_path / "b", compressors=None).chunks == (1024, 1024)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("shape", [(), (0,), (0, 5), (5, 0), (1,), (3, 1, 4, 1)])
def test_shapes_come_back(tmp_path, version, shape):
    """A single item, and arrays without any, too."""
    for name, tiles in (("tiles", tuple(max(n // 2, 1) for n in shape)), ("rows", None)):
        a = sparsearray.zeros(shape, "i4", tiles=tiles)
        a[...] = 5
        z = to_zarr(a, tmp_path / name, zarr_format=version)
        assert np.array_equal(z[...], np.full(shape, 5, "i4"))
        assert np.array_equal(from_zarr(z)[...], z[...])


@pytest.mark.parametrize("kind", ["f4", "f8", "c8", "c16"])
@pytest.mark.parametrize("options", [{"compressors": None}, {}, {"shards": (8, 8)}])
def test_negative_zeros_come_back(tmp_path, kind, options):
    """A chunk of nothing but -0.0 is written, which zarr itself leaves out in complex numbers."""
    a = sparsearray.zeros((8, 8), kind, tiles=(4, 4))
    a[:4, :4] = -np.zeros((), kind)
    a[4, 4] = np.nan
    z = to_zarr(a, tmp_path / "a", **options)
    assert from_zarr(z)[...].tobytes() == np.asarray(a).tobytes()


def test_only_populated_chunks(tmp_path):
    """Chunks of zeros are not written, be they holes or zeros that are stored."""
    a = sparsearray.zeros((1 << 20, 1 << 20), "u2", tiles=64)
    a[100, 200] = 1
    a.tile(5, 5)[...] = 0
    a[64:128, 640:704] = np.zeros((64, 64))
    for name, options in (("plain", {"compressors": None}), ("packed", {})):
        z = a.to_zarr(tmp_path / name, **options)
        files = [p for p in Path(tmp_path, name).rglob("*") if p.is_file()]
        assert [str(p.relative_to(tmp_path / name)) for p in files if p.name != "zarr.json"] == [
            "c/1/3"
        ]
        assert z.fill_value == 0


@pytest.mark.parametrize(
    "make_array",
    [
        lambda x, _: rows(x),
        lambda x, _: rows(x).retile((3, 5)),
        lambda x, tmp: fortran(x, tmp / "f.npy"),
        lambda x, tmp: sparsearray.stitch(split(x, tmp), "f8", (-1, x.shape[1])),
    ],
    ids=["rows", "tiles", "fortran", "stitched"],
)
def test_every_kind_of_array(tmp_path, make_array):
    """Arrays in C and Fortran order, in tiles and in files; with chunks that do not fit theirs."""
    x = np.zeros((40, 33))
    x[3:17, 4:9] = some((14, 5))
    a = make_array(x, tmp_path)
    for chunks in (None, (7, 4), (100, 100)):
        for compressors in (None, "auto"):
            z = to_zarr(
                a, tmp_path / f"{chunks}{compressors}", chunks=chunks, compressors=compressors
            )
            assert np.array_equal(z[...], x)


def rows(x):
    """Make a SparseArray."""
    made = sparsearray.zeros(x.shape)
    made[...] = x
    return made


def fortran(x, path):
    """Open a file in Fortran order."""
    np.save(path, np.asfortranarray(x))
    return sparsearray.open(path)


def split(x, folder):
    """Write halves of rows to raw files."""
    paths = [str(folder / name) for name in ("one", "two")]
    for part, path in zip((x[:20], x[20:]), paths, strict=True):
        part.tofile(path)
    return paths


def test_options_reach_zarr(tmp_path):
    """What `zarr.create_array` knows can be said."""
    a = sparsearray.zeros((64, 64), tiles=32)
    a[1, 1] = 1
    z = a.to_zarr(
        tmp_path / "a",
        chunks=(16, 16),
        shards=(32, 32),
        compressors=zarr.codecs.GzipCodec(level=3),
        attributes={"unit": "m"},
        dimension_names=("y", "x"),
        chunk_key_encoding={"name": "default", "separator": "."},
    )
    assert (z.chunks, z.shards, dict(z.attrs)) == ((16, 16), (32, 32), {"unit": "m"})
    assert z.metadata.dimension_names == ("y", "x")
    assert (tmp_path / "a" / "c.0.0").exists()
    with pytest.raises(TypeError, match="to_zarr: fill_value come"):
        a.to_zarr(tmp_path / "b", fill_value=1)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"filters": [zarr.codecs.TransposeCodec(order=(1, 0))]},
        {"serializer": zarr.codecs.ShardingCodec(chunk_shape=(4, 8)), "compressors": None},
    ],
    ids=["transposed", "sharding"],
)
def test_codecs_that_know_the_shape(tmp_path, options):
    """Codecs for arrays of so many axes, or of chunks of that size, are tried with these."""
    x = np.zeros((20, 30))
    x[3:9, 14:20] = some((6, 6))
    z = rows(x).to_zarr(tmp_path / "a", chunks=(8, 16), **options)
    assert np.array_equal(z[...], x)


def test_path_in_a_group(tmp_path):
    """The groups that an array is in are made with it, as by zarr."""
    a = sparsearray.zeros(10)
    a[3] = 1
    for version in (2, 3):
        for store in (tmp_path / f"g{version}", zarr.storage.MemoryStore()):
            a.to_zarr(store, path="x/y", zarr_format=version)
            group = zarr.open_group(store, mode="r")
            assert group["x/y"][3] == 1
            assert group.metadata.zarr_format == version
    group = zarr.open_group(tmp_path / "g3", mode="a")
    a.to_zarr(group, path="z")
    assert sorted(dict(group.members())) == ["x", "z"]


def test_paths_stay_in_the_store(tmp_path):
    """Slashes at the ends of a path do not count, and it cannot lead elsewhere."""
    a = sparsearray.zeros(10)
    a.to_zarr(tmp_path / "g", path="/x//y/")
    assert names_in(tmp_path / "g" / "x") == ["y", "zarr.json"]
    with pytest.raises(ValueError, match=r"no part of it may be '\.' or '\.\.'"):
        a.to_zarr(tmp_path / "g", path="../z")
    assert names_in(tmp_path) == ["g"]


def test_bad_options(tmp_path):
    """Chunks that do not fit, and versions that are none, are refused before anything is made."""
    a = sparsearray.zeros((10, 10))
    assert a.to_zarr(tmp_path / "a", chunks=4).chunks == (4, 4)
    for options, said in (
        ({"chunks": (4,)}, "do not fit shape"),
        ({"chunks": 0}, "each must be at least 1"),
        ({"zarr_format": 4}, "zarr_format must be 2 or 3, not 4"),
    ):
        with pytest.raises(ValueError, match=said):
            a.to_zarr(tmp_path / "b", **options)
    with pytest.raises(TypeError, match="compressor"):
        a.to_zarr(tmp_path / "b", compressor="zstd")
    assert names_in(tmp_path) == ["a"]


@pytest.mark.parametrize(
    "dtype",
    [
        np.dtype([("a", "u1"), ("b", "<f8")], align=True),
        np.dtype([("a", "<i4", (2,))]),
        np.dtype([("a", ">i4"), ("b", "<f8")]),
    ],
    ids=["padded", "subarray", "mixed orders"],
)
def test_dtypes_that_zarr_changes(tmp_path, dtype):
    """What would come back as something else is refused, and nothing written."""
    a = sparsearray.zeros(4, dtype)
    with pytest.raises(TypeError, match="does not come back from zarr"):
        a.to_zarr(tmp_path / "a")
    assert names_in(tmp_path) == []


def test_only_our_arrays(tmp_path):
    """An ndarray is zarr's own to write."""
    with pytest.raises(TypeError, match="takes a SparseArray or a TiledArray, not ndarray"):
        to_zarr(np.zeros(3), tmp_path / "a")


# Stores that are no folders, and groups


def test_zip_store(tmp_path):
    """A store that cannot remove what it has: new arrays, and such as are there."""
    a = sparsearray.zeros((64, 64), tiles=8)
    a[3, 3] = 1
    record = np.dtype({"names": ["a"], "formats": ["u1"], "offsets": [3], "itemsize": 8})
    with zarr.storage.ZipStore(tmp_path / "a.zip", mode="w") as store:
        assert a.to_zarr(store, path="a")[3, 3] == 1
        before = store._zf.namelist()
        with pytest.raises(TypeError, match="does not come back"):
            sparsearray.zeros((64, 64), record, tiles=8).to_zarr(store, path="b")
        assert store._zf.namelist() == before
    with zarr.storage.ZipStore(tmp_path / "a.zip", mode="r") as store:
        assert from_zarr(store, path="a").sum() == 1


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_existing_array_in_a_zip_store(tmp_path):
    """Only chunks that are there are looked at, of 2^34, where none can be removed."""
    a = sparsearray.zeros((1 << 22, 1 << 22), "u1", tiles=64)
    a[3, 3] = 1
    with zarr.storage.ZipStore(tmp_path / "a.zip", mode="w") as store:
        z = make(store, a.shape, (32, 32), "u1")
        z[100, 100] = 5
        to_zarr(a, z)
        assert z[100, 100] == 0
        assert z[3, 3] == 1


def test_store_without_deletes_and_listing():
    """Where nobody knows which chunks there are, all others are set to zero."""

    class Plain(zarr.storage.MemoryStore):
        supports_listing = False
        supports_deletes = False

    z = make(Plain(), (40, 40), (8, 8))
    z[...] = 3
    x = np.zeros((40, 40))
    x[9, 9] = 5
    assert np.array_equal(to_zarr(rows(x), z)[...], x)


def test_group_of_another_version(tmp_path):
    """A new array is of the version of its group, whose arrays would be hidden by another."""
    a = sparsearray.zeros((8, 8), tiles=4)
    for path in (tmp_path / "a", zarr.storage.MemoryStore()):
        group = zarr.create_group(path, zarr_format=2)
        group.create_array("old", shape=(3,), dtype="i4")
        assert to_zarr(a, path, path="deep/new").metadata.zarr_format == 2
        assert to_zarr(a, group, path="other").metadata.zarr_format == 2
        assert sorted(zarr.open_group(path, mode="r")) == ["deep", "old", "other"]
        with pytest.raises(ValueError, match=r"group of version 2.* zarr_format=3"):
            to_zarr(a, path, path="third", zarr_format=3)
        assert sorted(zarr.open_group(path, mode="r")) == ["deep", "old", "other"]


# Arrays that are there


@pytest.mark.parametrize("options", [{"compressors": None}, {}, {"shards": (16, 16)}])
def test_into_an_array_that_is_there(tmp_path, options):
    """It then holds the same items; chunks that are holes are removed."""
    x = np.zeros((40, 40))
    x[9, 9], x[39, 39] = 5, -0.0
    a = rows(x)
    for store in (tmp_path / "a", zarr.storage.MemoryStore()):
        z = make(store, (40, 40), (8, 8), **options)
        z[...] = 3
        assert to_zarr(a, z) is z
        assert z[...].tobytes() == x.tobytes()
        shown = from_zarr(z)
        assert shown.sum() == 5
        assert zarr.open_array(store).nchunks_initialized <= 8


def test_into_an_array_of_another_fill_value(tmp_path):
    """Where chunks would be missing, a fill value that is not zero is refused; else it is fine."""
    side = PAGE // 8
    z = make(tmp_path / "a", (4, 2 * side), (2, side), fill_value=1)
    z[...] = 3
    a = sparsearray.zeros(z.shape, tiles=(2, side))
    a[:2] = 2
    with pytest.raises(ValueError, match="2 chunks of 4 missing, and hold .*1.0"):
        to_zarr(a, z)
    assert (z[...] == 3).all()
    a[...] = 2
    assert (to_zarr(a, z)[...] == 2).all()


def test_stored_zeros_into_another_fill_value(tmp_path):
    """Zeros that are stored are written, where missing chunks would be read as something else."""
    z = make(tmp_path / "a", (16, 16), (8, 8), fill_value=1)
    a = sparsearray.zeros((16, 16), tiles=8)
    for i, j in product(range(2), range(2)):
        a.tile(i, j)[...] = 0
    assert (to_zarr(a, z)[...] == 0).all()


def test_array_that_does_not_fit(tmp_path):
    """Another shape or dtype, options, and an array that is read-only are refused."""
    z = make(tmp_path / "a", (16, 16), (8, 8))
    a = sparsearray.zeros((16, 16), tiles=8)
    with pytest.raises(ValueError, match=r"shape \(16, 17\) does not fit .* of \(16, 16\)"):
        to_zarr(sparsearray.zeros((16, 17)), z)
    with pytest.raises(ValueError, match="dtype float32 is not that of .*, float64"):
        to_zarr(a.astype("f4"), z)
    with pytest.raises(TypeError, match="an array already"):
        to_zarr(a, z, chunks=(4, 4))
    with pytest.raises(ValueError, match="read-only"):
        to_zarr(a, zarr.open_array(tmp_path / "a", mode="r"))


# Any array


@settings(max_examples=25, deadline=None)
@given(arrays(), st.data())
def test_any_array_to_zarr(case, data):
    """Whatever an array of ours holds, zarr reads the same."""
    dense, chunks, version, compressors, tiled = case
    tiles = data.draw(st.sampled_from([chunks, "auto"])) if tiled else None
    a = sparsearray.zeros(dense.shape, dense.dtype, tiles=tiles)
    a[...] = dense
    with tempfile.TemporaryDirectory() as folder:
        z = to_zarr(a, folder + "/a", chunks=chunks, zarr_format=version, compressors=compressors)
        assert np.array_equal(z[...], dense)
        assert names_in(folder) == ["a"]
