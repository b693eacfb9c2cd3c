"""zarr arrays read into memory, where chunks cannot be mapped: against what zarr itself reads."""

import gc
import sys
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings

from sparsearray import TiledArray

zarr = pytest.importorskip("zarr", reason="the extra zarr is not installed")

from sparsearray.interop.zarr import from_zarr, to_zarr  # noqa: E402 - needs zarr

from .zarr_arrays import PAGE, QUIET, arrays, is_mapped, make, some  # noqa: E402 - needs zarr

pytestmark = QUIET


@pytest.mark.parametrize(
    "options",
    [
        {"compressors": "auto"},
        {"compressors": zarr.codecs.GzipCodec(level=1)},
        {"compressors": None, "filters": [zarr.codecs.TransposeCodec(order=(1, 0))]},
        {"compressors": None, "shards": (32, 64)},
        {"compressors": "auto", "shards": (16, 64)},
        {"zarr_format": 2, "compressors": "auto"},
        {"zarr_format": 2, "compressors": None, "order": "F"},
        {"chunks": (7, 11)},
    ],
)
def test_chunks_are_read(tmp_path, options):
    """What cannot be mapped is read, chunk by chunk, where something is stored."""
    options = {"chunks": (16, 32), **options}
    z = make(tmp_path / "a", (100, 130), options.pop("chunks"), **options)
    z[20:50, 30:31] = some((30, 1))
    a = from_zarr(z)
    assert np.array_equal(a[...], z[...])
    assert (a.tiles, a.path, a.mode) == (z.chunks, None, None)
    assert a.nbytes_stored < a.nbytes / 2
    with pytest.raises(ValueError, match="must be read into memory"):
        from_zarr(z, copy=False)
    with pytest.raises(ValueError, match="mode 'r\\+': its chunks must be read into memory"):
        from_zarr(z, mode="r+")


@pytest.mark.parametrize("kind", ["memory", "zip", "fsspec"])
def test_other_stores(tmp_path, kind):
    """Arrays in memory, in a zip file and in a file system of fsspec's are read."""
    if kind == "memory":
        store = zarr.storage.MemoryStore()
    elif kind == "zip":
        store = zarr.storage.ZipStore(tmp_path / "a.zip", mode="w")
    else:
        pytest.importorskip("fsspec", reason="fsspec is not installed")
        store = "memory://of-a-test"
    z = zarr.create_array(store, name="g/x", shape=(100, 50), chunks=(16, 16), dtype="i4")
    z[30, 40] = 5
    a = from_zarr(z)
    assert (a[30, 40], a.sum(), a.tiles) == (5, 5, (16, 16))
    assert a.nbytes_stored <= PAGE
    with pytest.raises(ValueError, match="they are in no local folder"):
        from_zarr(z, copy=False)


def test_missing_chunks_are_not_asked_for():
    """Where a store can be listed, only chunks that are there are read."""
    asked = []

    class Counting(zarr.storage.MemoryStore):
        async def get(self, key, *args, **kwargs):
            asked.append(key)
            return await super().get(key, *args, **kwargs)

    z = zarr.create_array(Counting(), shape=(1000, 1000), chunks=(10, 10), dtype="i4")
    z[500, 500] = 1
    asked.clear()
    assert from_zarr(z).sum() == 1
    assert [key for key in asked if key.startswith("c/")] == ["c/50/50"]


def test_store_without_a_listing():
    """Where it cannot be listed, all of it is read."""

    class Blind(zarr.storage.MemoryStore):
        supports_listing = False

    z = zarr.create_array(Blind(), shape=(100, 90), chunks=(10, 10), dtype="i4", fill_value=3)
    z[50, 50] = 1
    assert np.array_equal(from_zarr(z)[...], z[...])


def test_chunks_are_not_listed_in_memory(monkeypatch):
    """Where nobody knows which of 2^40 chunks there are, they are not counted one by one."""

    class Blind(zarr.storage.MemoryStore):
        supports_listing = False

    module = sys.modules["sparsearray.interop.zarr"]
    z = make(Blind(), (1 << 40,), (1,), "u1")
    monkeypatch.setattr(module, "by_threads", lambda *_: [])
    with from_zarr(z) as a:
        assert a.shape == z.shape


def test_zeros_that_are_stored(tmp_path):
    """A chunk that is there and holds zeros takes nothing where it is read."""
    z = make(
        tmp_path / "a", (64, 64), (32, 32), config={"write_empty_chunks": True}, compressors="auto"
    )
    z[...] = 0
    assert from_zarr(z).nbytes_stored == 0


def test_negative_zero_is_data(tmp_path):
    """-0.0 and NaN are items like others, mapped or read."""
    for compressors in (None, "auto"):
        z = make(tmp_path / str(compressors), (PAGE,), (PAGE,), compressors=compressors)
        z[7], z[9] = -0.0, np.nan
        a = from_zarr(z)
        assert np.signbit(a[7])
        assert np.isnan(a[9])


def test_memory_that_runs_out(tmp_path, monkeypatch):
    """Before memory runs out, there is an error."""
    import sparsearray.interop._room as module

    z = make(tmp_path / "a", (1 << 10, 1 << 10), (1 << 9, 1 << 9), compressors="auto")
    z[...] = 1
    monkeypatch.setattr(module, "available_memory", lambda: 1 << 20)
    with pytest.raises(MemoryError, match="/a has to be read into memory: .* where 1 MiB are left"):
        from_zarr(z)


def test_failure_keeps_nothing(tmp_path):
    """A chunk that cannot be read is an error, and what was read before is given back at once."""
    z = make(tmp_path / "a", (1 << 22,), (1 << 19,), compressors="auto")
    z[...] = 1
    (tmp_path / "a" / "c" / "7").write_bytes(b"broken")
    with pytest.raises(RuntimeError) as caught:  # of the codec
        from_zarr(z)
    assert caught.value
    made = [one for one in gc.get_objects() if isinstance(one, TiledArray)]
    assert all(one.buffer.closed for one in made if one.shape == z.shape)


def test_progress(tmp_path, capsys):
    """A progress bar counts the bytes of what is read and written."""
    pytest.importorskip("tqdm", reason="tqdm is not installed")
    z = make(tmp_path / "a", (64, 64), (32, 32), compressors="auto")
    z[...] = 1
    to_zarr(from_zarr(z, progress=True), tmp_path / "b", progress=True)
    said = capsys.readouterr().err
    assert "from_zarr: 100%" in said
    assert "to_zarr: 100%" in said


def test_chunks_that_are_no_tiles(tmp_path):
    """Chunks of 2 GiB and more are read, and those that are not there take nothing."""
    z = make(tmp_path / "a", (1 << 33,), (1 << 32,), "u1")
    a = from_zarr(z)
    assert (a.shape, a.nbytes_stored, a[1 << 32]) == (z.shape, 0, 0)
    with pytest.raises(ValueError, match="a chunk has 4 GiB, and a tile less than 2 GiB"):
        from_zarr(z, copy=False)


# Fill values


@pytest.mark.parametrize("fill", [1.0, np.nan, -0.0])
@pytest.mark.parametrize("compressors", [None, "auto"])
def test_other_fill_values(tmp_path, fill, compressors):
    """Missing chunks of another fill value are refused, or filled when asked to; never zero."""
    z = make(tmp_path / "a", (40, PAGE), (8, PAGE // 8), fill_value=fill, compressors=compressors)
    z[:8, :5] = 0
    with pytest.raises(ValueError, match=rf"39 chunks of 40 missing, and hold .*{fill}") as caught:
        from_zarr(z)
    assert "fill_missing=True" in str(caught.value)
    a = from_zarr(z, fill_missing=True)
    assert a[...].tobytes() == z[...].tobytes()
    assert not is_mapped(a)
    z[...] = 5
    assert np.array_equal(from_zarr(z)[...], z[...])
    assert is_mapped(from_zarr(z)) == (compressors is None)


def test_fill_of_parts_of_shards(tmp_path):
    """Parts of a shard that are not in it hold the fill value, as zarr reads them."""
    z = make(tmp_path / "a", (8, 8), (2, 2), shards=(8, 8), fill_value=7)
    z[0, 0] = 1
    assert np.array_equal(from_zarr(z)[...], z[...])


def test_filling_what_cannot_fit(tmp_path):
    """Chunks of terabytes are not filled, and the error says how much that would take."""
    make(tmp_path / "a", (1 << 20, 1 << 20), (16, 16), "u1", fill_value=5)
    with pytest.raises(MemoryError, match=r"/a has to be read into memory: 1 TiB more"):
        from_zarr(tmp_path / "a", fill_missing=True)


@pytest.mark.parametrize(("dtype", "is_zero"), [("f8", True), ("M8[s]", False), ("U3", True)])
def test_fill_value_of_none(tmp_path, dtype, is_zero):
    """Where version 2 has no fill value, missing chunks hold what zarr reads: not a time for NaT."""
    z = make(tmp_path / "a", (8,), (2,), dtype, zarr_format=2, fill_value=None)
    z = zarr.open_array(tmp_path / "a")
    if is_zero:
        assert np.array_equal(from_zarr(z)[...], z[...])
    else:
        with pytest.raises(ValueError, match="4 chunks of 4 missing, and hold .*NaT"):
            from_zarr(z)


@pytest.mark.parametrize("version", [2, 3])
def test_items_without_a_length(tmp_path, version):
    """Strings of any length are refused."""
    z = zarr.create_array(tmp_path / "a", shape=(4,), dtype=str, zarr_format=version)
    with pytest.raises(TypeError, match="have no fixed number of bytes"):
        from_zarr(z)


# Any array


@settings(max_examples=25, deadline=None)
@given(arrays())
def test_any_array_from_zarr(case):
    """Whatever zarr has written, `from_zarr` reads the same."""
    dense, chunks, version, compressors, _ = case
    with tempfile.TemporaryDirectory() as folder:
        z = make(
            folder + "/a",
            dense.shape,
            chunks,
            dense.dtype,
            zarr_format=version,
            compressors=compressors,
        )
        z[...] = dense
        with from_zarr(folder + "/a") as a:
            assert a[...].tobytes() == dense.astype(a.dtype).tobytes()
            assert np.array_equal(dense, a[...])
