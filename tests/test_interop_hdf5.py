"""HDF5: datasets as arrays, and arrays as datasets, compared with what h5py reads."""

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsearray

from .array_files import P, assert_same, open_files

h5py = pytest.importorskip("h5py", reason="the extra hdf5")

from sparsearray.interop.hdf5 import from_hdf5, to_hdf5  # noqa: E402 - after h5py

from .hdf5_files import assert_items, in_file, is_mapped, some_items  # noqa: E402 - after h5py

DTYPES = [
    "?",
    "i1",
    "u2",
    ">i4",
    "u8",
    "f2",
    "f4",
    ">f8",
    "g",
    "c8",
    ">c16",
    "S5",
    "V7",
    "M8[ns]",
    "m8[D]",
    [("a", "i1"), ("b", ">f8"), ("c", "S3", (2,))],
    np.dtype({"names": ["x", "y"], "formats": ["u1", "f8"], "offsets": [1, 8], "itemsize": 24}),
]


# Round trips


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_round_trip(tmp_path_factory, data):
    """What is written is what h5py reads, and what is opened again, bit by bit."""
    folder = tmp_path_factory.mktemp("hdf5")
    dtype = np.dtype(data.draw(st.sampled_from(DTYPES)))
    shape = data.draw(st.lists(st.integers(1, 40), min_size=0, max_size=3).map(tuple))
    tiles = data.draw(st.sampled_from([None, "auto", 3]))
    chunks = data.draw(
        st.none() | st.tuples(*(st.integers(1, n) for n in shape)).filter(lambda sides: sides != ())
    )
    options = data.draw(st.sampled_from([{}, {"compression": "gzip"}, {"fletcher32": True}]))
    dense = some_items(dtype, shape)
    a = sparsearray.zeros(shape, dtype, tiles=tiles)
    a[...] = dense
    path = folder / "a.h5"
    to_hdf5(a, path, chunks=chunks, **(options if shape else {}))
    with h5py.File(path) as file:
        assert_items(file["data"][...], dense)
    for mode in ("r", "c"):
        b = from_hdf5(path, "data", mode=mode)
        assert_items(b[...], dense)
        assert_items(pickle.loads(pickle.dumps(b))[...], dense)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_dataset(tmp_path_factory, data):
    """Datasets that were written in parts, and became longer and shorter, are what h5py reads."""
    path = tmp_path_factory.mktemp("hdf5") / "a.h5"
    shape = data.draw(st.lists(st.integers(1, 70), min_size=1, max_size=2).map(tuple))
    dtype = np.dtype(data.draw(st.sampled_from(["u1", ">i4", "f8", "c16"])))
    options = {
        "chunks": data.draw(st.tuples(*(st.integers(1, n) for n in shape))),
        "maxshape": (None,) * len(shape),
        "fillvalue": data.draw(st.sampled_from([None, dtype.type(0), dtype.type(3)])),
        "shuffle": data.draw(st.booleans()),
        "compression": data.draw(st.sampled_from([None, "lzf"])),
        "dtype": dtype,
    }
    how = {
        "libver": data.draw(st.sampled_from(["earliest", "latest"])),
        "userblock_size": data.draw(st.sampled_from([0, 8192])),
    }
    if data.draw(st.booleans()):
        how |= {"alignment_threshold": 1, "alignment_interval": P}
    with h5py.File(path, "w", **how) as file:
        a = file.create_dataset("a", shape, **options)
        for seed in range(data.draw(st.integers(0, 4))):
            if data.draw(st.booleans()):
                a.resize(tuple(data.draw(st.integers(0, n + 20)) for n in shape))
            box = tuple(
                slice(*sorted(data.draw(st.tuples(*2 * [st.integers(0, n)])))) for n in a.shape
            )
            a[box] = some_items(dtype, a[box].shape, seed)
        expected = a[...]
        assert_same(from_hdf5(a, fill_missing=True)[...], expected)
    for mode in ("r", "c"):
        found = from_hdf5(path, "a", mode=mode, fill_missing=True)
        assert_same(found[...], expected)
        assert_same(found.retile(None)[...], expected)
        assert_same(pickle.loads(pickle.dumps(found))[...], expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("options", [{}, {"chunks": (7, 11)}, {"chunks": (7, 11), "lzf": True}])
def test_what_h5py_writes(tmp_path, dtype, options):
    """Datasets of all dtypes that h5py writes are opened, contiguous and in chunks."""
    dense = some_items(dtype, (30, 40))
    options = dict(options)
    if options.pop("lzf", False):
        options["compression"] = "lzf"
    stored = h5py.opaque_dtype(dense.dtype) if dense.dtype.kind in "mM" else dense.dtype
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", data=dense.view(stored), dtype=stored, **options)
    found = from_hdf5(tmp_path / "a.h5", "a")
    assert_items(found[...], dense)
    assert getattr(found, "tiles", None) == options.get("chunks")


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 5, 2)])
@pytest.mark.parametrize("tiles", [None, 2])
def test_no_items(tmp_path, shape, tiles):
    """Arrays without items keep their shape and dtype."""
    sparsearray.zeros(shape, "i2", tiles=tiles).to_hdf5(tmp_path / "a.h5")
    found = from_hdf5(tmp_path / "a.h5", "data")
    assert (found.shape, found.dtype) == (shape, np.dtype("i2"))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        chunked = file.create_dataset(
            "a", shape, "i2", chunks=(2,) * len(shape), maxshape=(None,) * len(shape)
        )
        assert from_hdf5(chunked).shape == shape


def test_a_terabyte(tmp_path):
    """Holes take no room on the way there, and none on the way back."""
    a = sparsearray.zeros((1 << 20, 1 << 17), tiles="auto")
    a[70_000, 5:9] = 1, 2, 3, 4
    a[-1, -1] = 5
    path = tmp_path / "a.h5"
    a.to_hdf5(path)
    assert path.stat().st_size < 2 << 20
    b = from_hdf5(path, "data")
    assert (b.shape, b.sum(), b[70_000, 6]) == (a.shape, 15.0, 2.0)
    assert b.nbytes_stored <= 1 << 20


def test_fortran_order(tmp_path):
    """A Fortran-ordered array is written as what it holds."""
    dense = np.asfortranarray(some_items("f8", (33, 50)))
    np.save(tmp_path / "a.npy", dense)
    sparsearray.open(tmp_path / "a.npy").to_hdf5(tmp_path / "a.h5", chunks=(8, 9))
    with h5py.File(tmp_path / "a.h5") as file:
        assert_same(file["data"][...], dense)


# Contiguous


@pytest.mark.parametrize("userblock", [0, 512, 8192])
def test_contiguous_is_a_window(tmp_path, userblock):
    """A contiguous dataset is mapped where the file has it."""
    dense = some_items("f8", (300, 40))
    with h5py.File(tmp_path / "a.h5", "w", userblock_size=userblock) as file:
        file["first"] = np.arange(7)
        file["a"] = dense
    a = from_hdf5(tmp_path / "a.h5", "a")
    assert is_mapped(a)
    assert type(a) is sparsearray.SparseArray
    assert_same(a[...], dense)
    with pytest.raises(ValueError, match="read-only"):
        a[0, 0] = 1


def test_copy_on_write(tmp_path):
    """In mode 'c' what is written stays in memory."""
    dense = some_items("f8", (300, 40))
    for options in ({}, {"chunks": (32, 16)}):
        path = in_file(tmp_path / "a.h5", dense, **options)
        a = from_hdf5(path, "a", mode="c")
        a[5, 5] = 77
        assert a[5, 5] == 77
        assert pickle.loads(pickle.dumps(a))[5, 5] == 77
        with h5py.File(path) as file:
            assert_same(file["a"][...], dense)


def test_never_written(tmp_path):
    """A contiguous dataset without storage is all holes, whatever its length."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        a = from_hdf5(file.create_dataset("a", (1 << 40,), "f8"))
    assert (a.shape, a.nbytes_stored, a[1 << 39]) == ((1 << 40,), 0, 0.0)


def test_parts_of_files(tmp_path):
    """Contiguous datasets can be stitched, without a copy where pages fit."""
    parts = [some_items("f8", (512, 8), seed) for seed in range(2)]
    for number, part in enumerate(parts):
        with h5py.File(
            tmp_path / f"{number}.h5", "w", alignment_threshold=P, alignment_interval=P
        ) as file:
            file["a"] = part
    opened = [from_hdf5(tmp_path / f"{number}.h5", "a") for number in range(2)]
    whole = sparsearray.stitch(opened)
    assert whole.nbytes_copied == 0
    assert_same(whole[...], np.concatenate(parts))


def test_cut_short(tmp_path):
    """A file that loses its end under a window is an error of what is read."""
    path = in_file(tmp_path / "a.h5", np.ones((1000, 100)))
    a = from_hdf5(path, "a")
    os.truncate(path, 300_000)
    with pytest.raises(sparsearray.AccessError, match="truncated|cut|shorter"):
        a.sum()


# Chunks


def chunked(path: Path, dense: np.ndarray, chunks: tuple[int, ...], **how: Any) -> Path:
    """Write a file in chunks of which those that hold only zeros are left out."""
    with h5py.File(path, "w", **how) as file:
        a = file.create_dataset("a", dense.shape, dense.dtype, chunks=chunks)
        for box in a.iter_chunks():
            if dense[box].any():
                a[box] = dense[box]
    return path


@pytest.mark.parametrize("chunks", [(32, 16), (64, 64), (50, 70), (3, 5)])
@pytest.mark.parametrize(
    "how", [{}, {"libver": "latest"}, {"alignment_threshold": P, "alignment_interval": P}]
)
@pytest.mark.parametrize("userblock", [0, 8192])
def test_chunks(tmp_path, chunks, how, userblock):
    """Chunks are found wherever the file has them."""
    dense = np.zeros((500, 600))
    dense[30:200, 100:300] = some_items("f8", (170, 200))
    path = chunked(tmp_path / "a.h5", dense, chunks, userblock_size=userblock, **how)
    a = from_hdf5(path, "a")
    assert a.tiles == chunks
    assert_same(a[...], dense)
    assert_same(a.copy()[...], dense)
    assert a.sum() == pytest.approx(dense.sum(), nan_ok=True)


def test_aligned_chunks_are_mapped(tmp_path):
    """What `to_hdf5` writes is opened without a copy; chunks that are not there are zero pages."""
    a = sparsearray.zeros((2000, 3000), tiles="auto")
    a[100:300, 100:900] = 1
    a.to_hdf5(tmp_path / "a.h5", chunks=(100, 100))
    b = from_hdf5(tmp_path / "a.h5", "data")
    assert is_mapped(b)
    assert b.nbytes_stored == 2 * 8 * -(-80000 // P) * P
    assert np.array_equal(b, a)


def test_chunks_at_one_byte_of_a_page(tmp_path):
    """Chunks are mapped, too, that all begin at the same byte of a page, but the odd ones out."""
    dense = np.arange(64 * 4096, dtype="f8").reshape(512, 512) + 1
    path = chunked(tmp_path / "a.h5", dense, (64, 64), libver="latest")
    a = from_hdf5(path, "a")
    kinds = [region.kind for region in a.buffer.regions]
    assert kinds.count("file") > len(kinds) // 2
    assert_same(a[...], dense)
    with pytest.raises(ValueError, match="read-only"):
        a[0, 0] = 1


def test_scattered_chunks_are_read(tmp_path):
    """Where fewer than half of the chunks begin alike, all are read into memory."""
    dense = np.arange(1000 * 100, dtype="f8").reshape(1000, 100) + 1
    a = from_hdf5(chunked(tmp_path / "a.h5", dense, (10, 10)), "a")
    assert a.path is None
    assert_same(a[...], dense)


def test_no_room_for_mappings(tmp_path, monkeypatch):
    """Where the process cannot have so many mappings, chunks are read."""
    module = sys.modules["sparsearray.interop._hdf5_places"]
    monkeypatch.setattr(module, "count_mappings", lambda: (65000, 65530))
    dense = np.ones((1024, 64 * 16))
    dense[64:128] = 0
    with h5py.File(tmp_path / "a.h5", "w", alignment_threshold=P, alignment_interval=P) as file:
        a = file.create_dataset("a", dense.shape, "f8", chunks=(16, 32))
        for i in range(0, 1024, 16):  # each other: none goes on in the file
            for j in (*range(0, 1024, 64), *range(32, 1024, 64)):
                a[i : i + 16, j : j + 32] = dense[i : i + 16, j : j + 32]
        a = from_hdf5(a)
    assert a.path is None
    assert_same(a[...], dense)


def test_edges_hold_nothing(tmp_path):
    """What a chunk has past the end of the array is no part of it."""
    with h5py.File(tmp_path / "a.h5", "w", alignment_threshold=P, alignment_interval=P) as file:
        a = file.create_dataset("a", (100, 100), "f8", chunks=(64, 64), fillvalue=7)
        a[...] = 1
    b = from_hdf5(tmp_path / "a.h5", "a")
    assert is_mapped(b)
    assert (b.sum(), b.copy().sum(), b.max()) == (10000, 10000, 1)


def test_filters_left_out(tmp_path):
    """A chunk that its filters have skipped is taken as it is, beside those that they changed."""
    dense = some_items("f8", (64, 64))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        a = file.create_dataset(
            "a", (64, 64), "f8", chunks=(32, 64), compression="gzip", shuffle=True
        )
        a[:32] = dense[:32]
        a.id.write_direct_chunk((32, 0), dense[32:].tobytes(), filter_mask=0b11)
    assert_same(from_hdf5(tmp_path / "a.h5", "a")[...], dense)


def test_chunks_of_zeros_take_nothing(tmp_path):
    """What is read and holds only zeros is not stored."""
    path = in_file(tmp_path / "a.h5", np.zeros((512, 512)), chunks=(64, 64), compression="gzip")
    assert from_hdf5(path, "a").nbytes_stored == 0


# Files, and names


def test_no_descriptors_are_left(tmp_path):
    """Neither success nor failure leaves a descriptor open."""
    a = sparsearray.zeros((100, 100))
    a[3, 3] = 1
    a.to_hdf5(tmp_path / "a.h5")
    before = open_files()
    for _ in range(3):
        with from_hdf5(tmp_path / "a.h5", "data") as b:
            b.sum()
        with pytest.raises(FileExistsError):
            a.to_hdf5(tmp_path / "a.h5")
        with pytest.raises(KeyError):
            from_hdf5(tmp_path / "a.h5", "none")
    assert open_files() == before


def test_gone_file(tmp_path):
    """An array whose file is gone does not travel by its path."""
    path = in_file(tmp_path / "a.h5", np.ones((1000, 10)))
    a = from_hdf5(path, "a")
    path.unlink()
    with pytest.raises(FileNotFoundError, match="a.h5"):
        pickle.dumps(a)


def test_a_dataset_without_a_name(tmp_path):
    """What has no name in its file travels itself."""
    dense = some_items("f8", (100, 100))
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        for options in ({}, {"chunks": (32, 16)}):
            a = from_hdf5(file.create_dataset(None, data=dense, **options))
            assert a.path is not None
            assert_same(pickle.loads(pickle.dumps(a))[...], dense)


def test_changed_file(tmp_path):
    """Nor by a dataset that is another one by now."""
    path = in_file(tmp_path / "a.h5", np.ones((1000, 10)))
    sent = pickle.dumps(from_hdf5(path, "a"))
    in_file(path, np.ones((1000, 11)))
    with pytest.raises(ValueError, match="changed after the array was pickled"):
        pickle.loads(sent)


def test_without_h5py(monkeypatch):
    """Where h5py is not installed, the error says how to get it."""
    monkeypatch.setitem(sys.modules, "h5py", None)
    for call in (lambda: from_hdf5("a.h5", "a"), lambda: sparsearray.zeros(3).to_hdf5("a.h5")):
        with pytest.raises(
            ImportError, match=r"needs h5py: pip install 'sparsearray-numpy\[hdf5\]'"
        ):
            call()
