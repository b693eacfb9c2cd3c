"""HDF5: fill values, kinds of datasets and of items, and what is refused, compared with what h5py reads."""

import sys
from io import BytesIO

import numpy as np
import pytest

import sparsearray

from .array_files import assert_same, names

h5py = pytest.importorskip("h5py", reason="the extra hdf5")

from sparsearray.interop.hdf5 import from_hdf5, to_hdf5  # noqa: E402 - after h5py

from .hdf5_files import in_file, some_items  # noqa: E402 - after h5py

# Fill values


def test_fill_value(tmp_path):
    """Chunks that were never written are refused where they are not zero, or stored if asked for."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        a = file.create_dataset("a", (100, 90), "f4", chunks=(16, 16), fillvalue=-1.5)
        a[20:40, 5:7] = 0
        dense = a[...]
        with pytest.raises(ValueError, match=r"'/a' in .*: 40 chunks .* -1\.5.* fill_missing"):
            from_hdf5(a)
        assert_same(from_hdf5(a, fill_missing=True)[...], dense)
        a[...] = dense  # all are there
        assert_same(from_hdf5(a)[...], dense)
        late = file.create_dataset("late", (50,), "i2", fillvalue=3)
        with pytest.raises(ValueError, match="50 items were never written"):
            from_hdf5(late)
        assert_same(from_hdf5(late, fill_missing=True)[...], np.full(50, 3, "i2"))


def test_negative_zero_is_a_fill_value(tmp_path):
    """A fill value of -0.0 has a bit that a hole has not."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        a = file.create_dataset("a", (10,), "f8", chunks=(5,), fillvalue=-0.0)
        with pytest.raises(ValueError, match="never written"):
            from_hdf5(a)
        assert_same(from_hdf5(a, fill_missing=True)[...], np.full(10, -0.0))


def test_fill_value_that_does_not_fit(tmp_path, monkeypatch):
    """A terabyte of fill values is refused before memory is full."""
    module = sys.modules["sparsearray.interop._room"]
    monkeypatch.setattr(module, "available_memory", lambda: 1 << 20)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        a = file.create_dataset("a", (1 << 20, 1 << 17), "f8", chunks=(1024, 1024), fillvalue=1)
        with pytest.raises(MemoryError, match="'/a' in"):
            from_hdf5(a, fill_missing=True)


# Other kinds of datasets


def test_contiguous_fill_value_that_does_not_fit(tmp_path):
    """A terabyte that was never written is not filled until memory is full."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        a = file.create_dataset("a", (1 << 20, 1 << 20), "u1", fillvalue=3)
        with pytest.raises(MemoryError, match=r"1 TiB more"):
            from_hdf5(a, fill_missing=True)


def test_compact(tmp_path):
    """A dataset in its own header is read."""
    dense = some_items("i4", (5, 6))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple(dense.shape)
        h5py.h5d.create(file.id, b"a", h5py.h5t.py_create(dense.dtype), space, plist)
        file["a"][...] = dense
    assert_same(from_hdf5(tmp_path / "a.h5", "a")[...], dense)


def test_external(tmp_path):
    """A dataset whose bytes lie in other files is read."""
    dense = some_items("f8", (50, 60))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", data=dense, external=[(tmp_path / "raw", 0, h5py.h5f.UNLIMITED)])
    a = from_hdf5(tmp_path / "a.h5", "a")
    assert a.path is None
    assert_same(a[...], dense)


def test_virtual(tmp_path):
    """A virtual dataset is read, with its fill value where nothing is mapped."""
    dense = some_items("f8", (50,))
    in_file(tmp_path / "a.h5", dense)
    layout = h5py.VirtualLayout((3, 50), "f8")
    layout[1] = h5py.VirtualSource(tmp_path / "a.h5", "a", (50,))
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file.create_virtual_dataset("v", layout, fillvalue=2)
    expected = np.full((3, 50), 2.0)
    expected[1] = dense
    assert_same(from_hdf5(tmp_path / "v.h5", "v")[...], expected)


def test_other_drivers(tmp_path):
    """Files that are no files of the system are read through h5py."""
    dense = some_items("f8", (50, 60))
    with h5py.File(BytesIO(), "w") as file:
        for name, options in {"a": {}, "b": {"chunks": (8, 8)}}.items():
            a = from_hdf5(file.create_dataset(name, data=dense, **options))
            assert a.path is None
            assert_same(a[...], dense)
    with h5py.File(in_file(tmp_path / "a.h5", dense), driver="core") as file:
        assert from_hdf5(file["a"]).path is None
    with h5py.File(tmp_path / "split", "w", driver="split") as file:
        for name, options in {"a": {}, "b": {"chunks": (8, 8)}}.items():
            assert_same(from_hdf5(file.create_dataset(name, data=dense, **options))[...], dense)


def test_replaced_file(tmp_path):
    """A file that is no longer at its path is read through the one that is open."""
    dense = some_items("f8", (50, 60))
    path = in_file(tmp_path / "a.h5", dense)
    with h5py.File(path) as file:
        path.rename(tmp_path / "old.h5")
        in_file(path, dense + 1)
        a = from_hdf5(file["a"])
        assert a.path is None
        assert_same(a[...], dense)


def test_open_for_writing(tmp_path):
    """What h5py has not written yet is flushed before."""
    dense = some_items("f8", (64, 64))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, options in {"a": {}, "b": {"chunks": (64, 64)}}.items():
            dataset = file.create_dataset(name, (64, 64), "f8", **options)
            dataset[...] = dense
            assert_same(from_hdf5(dataset)[...], dense)


def test_other_types_of_strings(tmp_path):
    """Strings that end with a zero byte, or are filled with blanks, are read as h5py reads them."""
    words = np.array([b"one", b"", b"three"], "S6")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for padding in (h5py.h5t.STR_NULLTERM, h5py.h5t.STR_SPACEPAD):
            kind = h5py.h5t.C_S1.copy()
            kind.set_size(6)
            kind.set_strpad(padding)
            name = b"%d" % padding
            h5py.h5d.create(file.id, name, kind, h5py.h5s.create_simple((3,)))
            dataset = file[name.decode()]
            dataset[...] = words
            assert_same(from_hdf5(dataset)[...], dataset[...])


def test_enumerations(tmp_path):
    """An enumeration becomes the integers that it is, and notes of h5py's do not get into files."""
    kind = h5py.enum_dtype({"no": 0, "yes": 1, "perhaps": 5}, "i2")
    record = np.dtype([("a", kind), ("b", h5py.string_dtype("utf-8", 5))])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", data=np.array([0, 1, 5], "i2"), dtype=kind)
        file.create_dataset("b", data=np.array([(5, b"five")], record))
        for name, expected in (("a", np.array([0, 1, 5], "i2")), ("b", file["b"][...])):
            a = from_hdf5(file, name)
            assert_same(a[...], expected)
            a.save(tmp_path / "a.npy")
            assert_same(np.load(tmp_path / "a.npy"), expected)


def test_items_that_are_arrays(tmp_path):
    """Items that are arrays become axes, contiguous, in chunks and compressed."""
    kind = np.dtype(("<f8", (2, 3)))
    dense = some_items("f8", (20, 30, 2, 3))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for number, options in enumerate(
            [{}, {"chunks": (5, 7)}, {"chunks": (5, 7), "compression": "gzip"}]
        ):
            a = file.create_dataset(str(number), (20, 30), kind, **options)
            a[...] = dense
            assert_same(from_hdf5(a)[...], dense)


# Refusals


def test_objects(tmp_path):
    """What h5py gives as Python objects is refused, by name."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["text"] = ["one", "two"]
        file.create_dataset("vlen", (3,), h5py.vlen_dtype("i4"))
        file.create_dataset("ref", (3,), h5py.ref_dtype)
        file["empty"] = h5py.Empty("f8")
        for name, what in [("text", "strings"), ("vlen", "sequences"), ("ref", "references")]:
            with pytest.raises(TypeError, match=f"'/{name}' in .*a.h5': items of {what}"):
                from_hdf5(file, name)
        with pytest.raises(ValueError, match="'/empty' in .* null dataspace"):
            from_hdf5(file, "empty")
        with pytest.raises(KeyError, match="nothing"):
            from_hdf5(file, "nothing")
        with pytest.raises(TypeError, match="which dataset"):
            from_hdf5(file)
        with pytest.raises(TypeError, match="name='text' is for files and groups"):
            from_hdf5(file["text"], "text")
        with pytest.raises(ValueError, match="mode must be 'r' or 'c', not 'r\\+'"):
            from_hdf5(file, "text", mode="r+")
    with pytest.raises(TypeError, match="not ndarray"):
        from_hdf5(np.zeros(3))
    with pytest.raises(OSError):
        from_hdf5(tmp_path / "none.h5", "a")


def test_what_has_no_type(tmp_path):
    """Items that HDF5 has no type for are refused, and no file is left."""
    with pytest.raises(TypeError, match=r"to_hdf5: an array of <U3"):
        sparsearray.zeros(5, "U3").to_hdf5(tmp_path / "a.h5")
    with pytest.raises(TypeError, match="not ndarray"):
        to_hdf5(np.zeros(3), tmp_path / "a.h5")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"fillvalue": 1}, ValueError, "fillvalue=1"),
        ({"data": 1}, TypeError, "data="),
        ({"chunks": (3,)}, ValueError, "do not fit"),
        ({"nonsense": 1}, TypeError, "nonsense"),
        ({"compression": "nonsense"}, ValueError, "nonsense"),
    ],
)
def test_bad_options(tmp_path, options, error, text):
    """Options that cannot be are refused, and nothing is left behind."""
    a = sparsearray.zeros((100, 100))
    a[3, 3] = 1
    with pytest.raises(error, match=text):
        a.to_hdf5(tmp_path / "a.h5", **options)
    assert names(tmp_path) == []
    with h5py.File(tmp_path / "b.h5", "w") as file:
        with pytest.raises(error, match=text):
            a.to_hdf5(file, "a", **options)
        assert list(file) == []
