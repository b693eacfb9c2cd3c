"""zarr arrays opened, whose chunk files are mapped: against what zarr itself reads."""

import os
import pickle
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsearray
from sparsearray import AccessError, TiledArray

zarr = pytest.importorskip("zarr", reason="the extra zarr is not installed")

from sparsearray.interop.zarr import from_zarr  # noqa: E402 - needs zarr

from .zarr_arrays import PAGE, QUIET, is_mapped, make, some  # noqa: E402 - needs zarr

pytestmark = QUIET
KEYS = [
    (3, {"name": "default", "separator": "/"}),
    (3, {"name": "default", "separator": "."}),
    (3, {"name": "v2", "separator": "/"}),
    (3, {"name": "v2", "separator": "."}),
    (2, {"name": "v2", "separator": "."}),
    (2, {"name": "v2", "separator": "/"}),
]


def count_descriptors():
    """Count what the process has open."""
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("no /proc to count descriptors in")
    return len(list(folder.iterdir()))


@pytest.fixture
def paged(tmp_path):
    """Make an array of 6 x 5 chunks of a page, of which some are there; and what zarr reads."""
    side = PAGE // 64
    z = make(tmp_path / "a.zarr", (6 * 8, 5 * side - 3), (8, side))
    z[3:14, side - 2 : side + 5] = some((11, 7))
    z[40:48, 4 * side :] = some((8, side - 3), seed=1)
    return str(tmp_path / "a.zarr"), z[...]


# Chunks that are mapped


@pytest.mark.parametrize(("version", "keys"), KEYS)
def test_chunks_are_mapped(tmp_path, version, keys):
    """Chunk files of whole pages are tiles, whatever their names are; the others are zero."""
    shape, chunks = (40, 3 * PAGE), (16, PAGE // 4)
    z = make(tmp_path / "a", shape, chunks, "i4", zarr_format=version, chunk_key_encoding=keys)
    z[17:20, 5:9] = 7
    z[39, -1] = 8
    with from_zarr(tmp_path / "a") as a:
        assert isinstance(a, TiledArray)
        assert (a.shape, a.dtype, a.tiles, a.mode) == (shape, np.dtype("i4"), chunks, "r")
        assert a.path == str(tmp_path / "a")
        files = [region for region in a.buffer.regions if region.kind == "file"]
        assert len(files) == 2
        assert a.nbytes_stored == 2 * 16 * PAGE
        assert np.array_equal(a[...], z[...])
        assert a.sum() == z[...].sum()


def test_nothing_is_read(tmp_path):
    """64 TiB open at once, and holes of them read as zero."""
    z = make(tmp_path / "a", (1 << 22, 1 << 21), (1 << 10, 1 << 10))
    z[-1, -1] = 3
    with from_zarr(tmp_path / "a") as a:
        assert a.nbytes == 1 << 46
        assert (a[-1, -1], a[5, 5], a.sum()) == (3, 0, 3)
        assert a.nbytes_stored == 8 << 20


def test_array_of_zarr_and_group(tmp_path):
    """A zarr.Array, a group with a path, a store and the folder of the array are all the same."""
    group = zarr.open_group(tmp_path / "g", mode="w")
    z = group.create_array("x/y", shape=(PAGE,), chunks=(PAGE,), dtype="i8", compressors=None)
    z[5] = 6
    for a in (
        from_zarr(z),
        from_zarr(group, path="x/y"),
        from_zarr(tmp_path / "g", path="x/y"),
        from_zarr(str(tmp_path / "g" / "x" / "y")),
        from_zarr(zarr.storage.LocalStore(tmp_path / "g"), path="x/y"),
    ):
        assert is_mapped(a)
        assert (a[5], a.sum()) == (6, 6)


def test_group_is_named_with_its_arrays(tmp_path):
    """A group is no array: the error says which are in it."""
    group = zarr.open_group(tmp_path / "g", mode="w")
    make(tmp_path / "g" / "x", (4,), (4,))
    for store in (group, tmp_path / "g"):
        with pytest.raises(TypeError, match=r"a group, not an array; arrays in it: 'x'"):
            from_zarr(store)


def test_missing_array(tmp_path):
    """Where there is nothing, the path is named."""
    with pytest.raises(FileNotFoundError, match="nothing is there") as caught:
        from_zarr(tmp_path / "nothing")
    assert caught.value.filename == str(tmp_path / "nothing")


def test_path_of_a_file(tmp_path):
    """A file is said to be one, and what opens it if it is zip."""
    (tmp_path / "a.npy").write_bytes(b"123456")
    with pytest.raises(NotADirectoryError, match="no folder of a zarr array") as caught:
        from_zarr(tmp_path / "a.npy")
    assert caught.value.filename == str(tmp_path / "a.npy")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotADirectoryError, match="no folder of a zarr array: .*pipe"):
        from_zarr(tmp_path / "pipe")
    with zarr.storage.ZipStore(tmp_path / "a.zip", mode="w") as store:
        make(store, (4,), (2,))
    with pytest.raises(NotADirectoryError, match="zip file.*ZipStore"):
        from_zarr(str(tmp_path / "a.zip"))


@pytest.mark.parametrize("order", ["<", ">"])
def test_byte_order_of_a_codec(tmp_path, order):
    """The bytes codec says the byte order, in which chunks are mapped and read."""
    serializer = zarr.codecs.BytesCodec(endian="big" if order == ">" else "little")
    for name, compressors in (("plain", None), ("packed", "auto")):
        z = make(
            tmp_path / name, (PAGE,), (PAGE,), "f4", serializer=serializer, compressors=compressors
        )
        z[...] = np.arange(PAGE)
        a = from_zarr(z)
        assert a.dtype == np.dtype(f"{order}f4")
        assert is_mapped(a) == (name == "plain")
        assert np.array_equal(a[...], np.arange(PAGE))


def test_other_files_are_no_chunks(paged):
    """Names that are no keys of the grid are left alone."""
    path, expected = paged
    for name in ("c/0/7", "c/00/1", "c/9/0", "c/x", "c/0/.tmp", "c/-1/0", "c/1/\u0661"):
        Path(path, name).parent.mkdir(exist_ok=True)
        Path(path, name).write_bytes(b"no chunk")
    with from_zarr(path) as a:
        assert np.array_equal(a[...], expected)


@pytest.mark.parametrize("change", [-PAGE, -1, 1, PAGE])
def test_chunk_of_a_wrong_size(paged, change):
    """A chunk file that is not as long as a chunk is named, with its place and both lengths."""
    path, _ = paged
    os.truncate(f"{path}/c/1/0", PAGE + change)
    before = count_descriptors()
    with pytest.raises(
        ValueError, match=rf"chunk \(1, 0\).*c/1/0': {PAGE + change} bytes.* {PAGE}"
    ):
        from_zarr(path)
    assert count_descriptors() == before


def test_chunk_that_is_a_folder(paged):
    """What is no file is named as well."""
    path, _ = paged
    Path(path, "c/1/0").unlink()
    Path(path, "c/1/0").mkdir()
    with pytest.raises(OSError, match=r"chunk \(1, 0\)") as caught:
        from_zarr(path)
    assert caught.value.filename == f"{path}/c/1/0"


def test_chunk_that_is_a_pipe(paged):
    """Nobody waits for one that never comes, be chunks mapped or read."""
    path, _ = paged
    Path(path, "c/1/0").unlink()
    os.mkfifo(f"{path}/c/1/0")
    for copy in (True, None):
        with pytest.raises(OSError, match="regular|chunk") as caught:
            from_zarr(path, copy=copy)
        assert caught.value.filename == f"{path}/c/1/0"


def test_no_descriptor_is_kept(paged):
    """An array of mapped chunks has no file open."""
    path, _ = paged
    from_zarr(path).close()  # zarr has started its own threads by now
    before = count_descriptors()
    with from_zarr(path):
        assert count_descriptors() == before


def test_too_many_mappings(paged, monkeypatch):
    """At the limit of mappings the error says so, and how to read the chunks instead."""
    import sparsearray._chunk_files as module

    path, expected = paged
    monkeypatch.setattr(module, "_MANY", 0)
    monkeypatch.setattr(module, "count_mappings", lambda: (900, 1415))
    with pytest.raises(OSError, match=r"take 7 mappings.* 1415 that vm.max_map_count allows 3 are"):
        from_zarr(path)
    assert np.array_equal(from_zarr(path, copy=True)[...], expected)


# Modes


def test_read_only(paged):
    """In mode 'r' nothing can be written."""
    with from_zarr(paged[0]) as a:
        with pytest.raises(ValueError, match="read-only"):
            a[0, 0] = 1
        assert not a.tile(0, 0).flags.writeable


def test_copy_on_write(paged):
    """In mode 'c' writes to chunks, and to those that are missing, reach no file."""
    path, expected = paged
    with from_zarr(path, mode="c") as a:
        a[5, 60], a[20, 100] = 77, 78
        changed = expected.copy()
        changed[5, 60], changed[20, 100] = 77, 78
        assert np.array_equal(a[...], changed)
        assert a.sum() == changed.sum()
    assert np.array_equal(zarr.open_array(path)[...], expected)
    assert len([p for p in Path(path, "c").rglob("*") if p.is_file()]) == 5


WAYS = {
    "item": lambda a: a.__setitem__((20, 100), 9),
    "box": lambda a: a.__setitem__((slice(15, 26), slice(60, 140)), np.full((11, 80), 9.0)),
    "places": lambda a: a.__setitem__(([1, 20, 47], [100, 100, 2]), 9),
    "outer": lambda a: a.oindex.__setitem__(([1, 20, 47], [100, 7]), 9),
    "window": lambda a: a.tile(2, 1).__setitem__((3, 3), 9),
    "mask": lambda a: a.__setitem__(np.arange(a.size).reshape(a.shape) % 1000 == 999, 9),
    "zero": lambda a: a.__setitem__((slice(4, 12), slice(None)), 0),
    "discard": lambda a: a.discard((slice(None), slice(50, 70))),
    "sparse": lambda a: a.__setitem__(..., one_item(a.shape)),
    "tiles": lambda a: a.__setitem__(..., one_item(a.shape).retile(a.tiles)),
    "clip": lambda a: a.clip(0, 5, out=a),
}


def one_item(shape):
    """Make an array of one item."""
    made = sparsearray.zeros(shape)
    made[21, 101] = 9
    return made


@pytest.mark.parametrize("way", WAYS)
def test_writes_reach_chunks(paged, way):
    """In mode 'r+' zarr reads what was written, to chunks that were there and to new ones."""
    path, expected = paged
    model = sparsearray.zeros(expected.shape, tiles=(8, PAGE // 64))
    model[...] = expected
    WAYS[way](model)
    with from_zarr(path, mode="r+") as a:
        WAYS[way](a)
        assert np.array_equal(a[...], model[...])
        assert a.sum() == model.sum()
        a.flush()
    assert np.array_equal(zarr.open_array(path)[...], model[...])
    with from_zarr(path) as again:
        assert np.array_equal(again[...], model[...])
    sizes = {p.stat().st_size for p in Path(path, "c").rglob("*") if p.is_file()}
    assert sizes == {PAGE}


def test_zeros_make_no_chunk(paged):
    """Setting zeros makes no chunk file that was not there."""
    path, _ = paged
    names = sorted(map(str, Path(path).rglob("*")))
    with from_zarr(path, mode="r+") as a:
        a[...] = 0
        a.discard(slice(None))
    assert sorted(map(str, Path(path).rglob("*"))) == names
    assert not zarr.open_array(path)[...].any()


def test_chunk_that_somebody_else_made(paged):
    """A chunk that was made meanwhile is shown, and not replaced, when it is written to."""
    path, _ = paged
    with from_zarr(path, mode="r+") as a:
        zarr.open_array(path)[24, 0] = 5
        assert a[24, 0] == 0
        a[24, 1] = 6
        assert (a[24, 0], a[24, 1]) == (5, 6)
    assert zarr.open_array(path)[24, :2].tolist() == [5, 6]


def test_chunks_without_hard_links(paged, monkeypatch):
    """Chunks are made where the file system has no hard links, too."""
    path, expected = paged

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with from_zarr(path, mode="r+") as a:
        a[20, 100] = expected[20, 100] = 9
    assert np.array_equal(zarr.open_array(path)[...], expected)


def test_failed_chunk_leaves_nothing(paged):
    """Where a chunk cannot be made, those of the same write are gone again, and the array works."""
    path, expected = paged
    Path(path, "c", "3").write_bytes(b"in the way")
    with from_zarr(path, mode="r+") as a:
        with pytest.raises(OSError, match="3"):
            a[16:32, :] = 1
        assert np.array_equal(a[...], expected)
        assert not Path(path, "c", "2", "0").exists()
        Path(path, "c", "3").unlink()
        a[16:32, :] = 1
        expected[16:32, :] = 1
        assert np.array_equal(a[...], expected)
    assert np.array_equal(zarr.open_array(path)[...], expected)


def test_chunks_made_by_threads(tmp_path):
    """Threads that write to the same missing chunks lose nothing."""
    make(tmp_path / "a", (64, PAGE), (8, PAGE // 64))
    with from_zarr(tmp_path / "a", mode="r+") as a:
        threads = [
            threading.Thread(
                target=lambda k=k: a.__setitem__((slice(k, None, 4), slice(0, 640)), k + 1)
            )
            for k in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = zarr.open_array(tmp_path / "a")[:, :640]
    assert np.array_equal(found, np.repeat(np.arange(64)[:, np.newaxis] % 4 + 1, 640, axis=1))


def test_like_any_tiled_array(paged, tmp_path):
    """Copies, snapshots, files and other tiles of it hold the same; its length cannot change."""
    path, expected = paged
    with from_zarr(path, mode="r+") as a:
        before = a.snapshot()
        a[20, 100] = 5
        changed = expected.copy()
        changed[20, 100] = 5
        assert np.array_equal(before[...], expected)
        sparsearray.save(tmp_path / "a.npy", a)
        for made in (
            a.copy(),
            a.retile((5, 7)),
            a.retile(None),
            sparsearray.open(tmp_path / "a.npy"),
        ):
            assert np.array_equal(made[...], changed)
        assert np.array_equal((a * 2)[...], changed * 2)
        with pytest.raises(ValueError, match="in chunk files cannot change its length"):
            a._records._storage.resize(a._records, (1,))
        assert "a.zarr' (r+)" in repr(a)


def test_modes_are_checked(paged):
    """Another mode is refused, and so is mode 'r+' of a copy."""
    with pytest.raises(ValueError, match="mode must be one of 'r', 'r\\+', 'c', not 'w'"):
        from_zarr(paged[0], mode="w")
    with pytest.raises(ValueError, match="copy=True: writes to what was read into memory"):
        from_zarr(paged[0], mode="r+", copy=True)


# Pickles, and files that change


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_pickled_as_a_reference(paged, mode):
    """The path travels, and what was copied on write."""
    path, expected = paged
    with from_zarr(path, mode=mode) as a:
        if mode != "r":
            a[5, 60] = expected[5, 60] = 77
        data = pickle.dumps(a)
        assert len(data) < (400 if mode != "c" else PAGE + 1000)
        with pickle.loads(data) as again:
            assert again.mode == mode
            assert np.array_equal(again[...], expected)


def test_pickled_array_that_changed(paged):
    """A reference to what is another array by now is an error."""
    path, _ = paged
    data = pickle.dumps(from_zarr(path))
    make(path, (PAGE,), (PAGE,), overwrite=True)
    with pytest.raises(ValueError, match="changed after the array was pickled"):
        pickle.loads(data)


@pytest.mark.usefixtures("linux_core")
@pytest.mark.parametrize("left", [0, 100, PAGE - 1])
def test_chunk_cut_short(paged, left):
    """A chunk that becomes shorter is an error of boxes and sums, which names the file."""
    path, _ = paged
    with from_zarr(path) as a:
        assert a[0, 0] == 0
        os.truncate(f"{path}/c/1/0", left)
        for use in (lambda: a[8:16, 0 : PAGE // 64], a.sum, lambda: a[15, PAGE // 64 - 1]):
            with pytest.raises(AccessError) as caught:
                use()
            assert caught.value.filename == f"{path}/c/1/0"
        assert a[41, -1] != 0  # of another file


def test_box_beside_a_cut_chunk(tmp_path):
    """Boxes that do not touch the chunk that was cut are read as before."""
    z = make(tmp_path / "a", (8, 2 * PAGE), (1, PAGE // 8))
    z[...] = expected = some(z.shape)
    with from_zarr(z) as a:
        os.truncate(tmp_path / "a" / "c" / "3" / "2", 0)
        assert np.array_equal(a[:, : PAGE // 4], expected[:, : PAGE // 4])
        with pytest.raises(AccessError):
            a[:, : PAGE // 2]


def test_deleted_chunks_stay(paged):
    """Chunks that are deleted or replaced stay part of an array that is open."""
    path, expected = paged
    with from_zarr(path) as a:
        zarr.open_array(path)[...] = 0
        assert np.array_equal(a[...], expected)


# Any array


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_mapped_array(data):
    """Boxes of mapped chunks, written and read in mode 'r+', agree with zarr's."""
    side = PAGE // 32
    shape = data.draw(st.tuples(st.integers(1, 20), st.integers(1, 3 * side)))
    with tempfile.TemporaryDirectory() as folder:
        z = make(folder + "/a", shape, (4, side), "f8")
        model = np.zeros(shape)
        with from_zarr(folder + "/a", mode="r+") as a:
            for k in range(data.draw(st.integers(0, 4))):
                box = tuple(
                    slice(*sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2))))
                    for n in shape
                )
                a[box] = model[box] = k + 1
                assert a.sum() == model.sum()
            assert np.array_equal(a[...], model)
        assert np.array_equal(zarr.open_array(folder + "/a")[...], model)
        del z
