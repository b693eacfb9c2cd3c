"""Arrays are pickled: as a path, as a descriptor, or as what is stored of them."""

import copy
import mmap
import multiprocessing
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sparsearray
from sparsearray import (
    AccessError,
    ClosedError,
    SparseArray,
    SparseBuffer,
    TiledArray,
    shared_memory,
)

P = mmap.PAGESIZE
RECORD = np.dtype([("time", "<i8"), ("level", ">f4"), ("name", "S3")])
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


def filled(array, seed: int = 1):
    """Set some items of an array, here and there; return it."""
    random = np.random.default_rng(seed)
    for _ in range(5 if array.size else 0):
        place = tuple(int(random.integers(n)) for n in array.shape)
        if array.dtype.names:
            array[place] = (int(random.integers(99)), 2.5, b"abc")
        else:
            array[place] = random.integers(1, 99)
    return array


def same(a, b) -> bool:
    """Tell whether two arrays are alike in all that users see of them."""
    return (
        type(a) is type(b)
        and (a.shape, a.dtype, a.maxshape) == (b.shape, b.dtype, b.maxshape)
        and getattr(a, "tiles", None) == getattr(b, "tiles", None)
        and getattr(a, "order", None) == getattr(b, "order", None)
        and np.asarray(a).tobytes() == np.asarray(b).tobytes()
    )


def write_raw(folder: Path) -> Path:
    """Make a file without a header."""
    path = folder / "raw"
    path.write_bytes(np.arange(1000, dtype="f4").tobytes())
    return path


def write_fortran(folder: Path) -> Path:
    """Make a file of numpy's, in Fortran order."""
    path = folder / "fortran.npy"
    np.save(path, np.asfortranarray(np.arange(600).reshape(20, 30)))
    return path


def write_twice_the_axes(folder: Path) -> Path:
    """Make a file of numpy's that holds tiles."""
    path = folder / "tiles.npy"
    np.save(path, np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5))
    return path


KINDS = {
    "rows": lambda _: filled(sparsearray.zeros((300, 70))),
    "grown": lambda _: filled(sparsearray.zeros((300, 70), "i2", maxshape=(None, 70))),
    "tiles of a page": lambda _: filled(sparsearray.zeros((300, 700), "u1", tiles="auto")),
    "small tiles": lambda _: filled(sparsearray.zeros((90, 90), "c16", tiles=3, maxshape=(400, 90))),
    "large tiles": lambda _: filled(sparsearray.zeros((900, 90), tiles=(100, 70))),
    "records": lambda _: filled(sparsearray.zeros((40, 50), RECORD)),
    "records in tiles": lambda _: filled(sparsearray.zeros((40, 50), RECORD, tiles=(8, 9))),
    "no rows": lambda _: sparsearray.zeros((0, 3), maxshape=(None, 3)),
    "no axes": lambda _: filled(sparsearray.zeros((), "f4")),
    "no axes in tiles": lambda _: filled(sparsearray.zeros((), "f4", tiles=())),
    "text": lambda _: sparsearray.zeros(5, "U3"),
    "a file": lambda folder: filled(sparsearray.open(folder / "a.npy", "w+", shape=(300, 70))),
    "a file of tiles": lambda folder: filled(
        sparsearray.open(folder / "b.npy", "w+", shape=(300, 70), tiles=16, maxshape=(None, 70))
    ),
    "a file of records": lambda folder: filled(
        sparsearray.open(folder / "c.npy", "w+", shape=(30, 7), dtype=RECORD)
    ),
    "a raw file": lambda folder: sparsearray.open(write_raw(folder), "r", dtype="f4", shape=(9, 100)),
    "a raw file of tiles": lambda folder: sparsearray.open(
        write_raw(folder), "r+", dtype="f4", shape=(20, 30), tiles=(7, 8)
    ),
    "Fortran order": lambda folder: sparsearray.open(write_fortran(folder)),
    "twice the axes": lambda folder: sparsearray.open(write_twice_the_axes(folder), tiles=(4, 5)),
    "copy on write": lambda folder: filled(sparsearray.open(write_fortran(folder), "c")),
    "shared memory": lambda _: filled(
        sparsearray.open(shared_memory(1 << 20), "r+", dtype="f8", shape=(300, 70))
    ),
    "shared tiles": lambda _: filled(
        sparsearray.open(shared_memory(1 << 20), "r+", dtype="f8", shape=(300, 70), tiles=(30, 7))
    ),
    "shared, copy on write": lambda _: filled(
        sparsearray.open(shared_memory(1 << 20), "c", dtype="f8", shape=(300, 70))
    ),
}  # fmt: skip


@pytest.fixture(params=KINDS)
def array(request, tmp_path):
    """Make an array of each kind."""
    return KINDS[request.param](tmp_path)


@pytest.fixture(scope="module", params=["fork", "spawn", "forkserver"])
def pool(request):
    """Start one process, in each way."""
    with multiprocessing.get_context(request.param).Pool(1) as one:
        yield one


# -------------------------------------------------------------------------------------- what arrives


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_all_of_it_arrives(array, protocol):
    """In any protocol, an array of any kind is the same again."""
    again = pickle.loads(pickle.dumps(array, protocol))
    assert same(again, array)
    assert (again.path, again.mode) == (array.path, "r+" if array.mode == "w+" else array.mode)


def test_other_processes(array, pool):
    """So it is in another process, however that was started, and on the way back."""
    expected = np.asarray(array)
    found = pool.apply(np.asarray, (array,))
    assert found.tobytes() == expected.tobytes()
    if array.path is not None or array.mode is None:  # memory goes with its last process
        assert same(pool.apply(copy.copy, (array,)), array.copy())


@pytest.mark.parametrize("kind", ["a file", "a file of tiles", "shared memory", "shared tiles"])
def test_other_processes_write(kind, pool, tmp_path):
    """What another process writes to a file or shared memory is in this one's array."""
    array = KINDS[kind](tmp_path)
    pool.apply(array.__setitem__, ((7, slice(3)), [1, 2, 3]))
    assert array[7, :3].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "kind", ["rows", "copy on write", "tiles of a page", "shared, copy on write"]
)
def test_what_is_private_stays_so(kind, tmp_path):
    """Of private memory, and pages copied on write, the other one has a copy."""
    array = KINDS[kind](tmp_path)
    before = np.asarray(array).copy()
    again = pickle.loads(pickle.dumps(array))
    again[3, 3] = again[3, 3] + 1
    assert np.array_equal(array, before)
    assert not np.array_equal(again, before)


@pytest.mark.usefixtures("told_pages")
def test_private_pages_over_a_file(tmp_path):
    """Zeros that hide what the file has travel too; what others write to the file shows elsewhere."""
    path = tmp_path / "a.npy"
    np.save(path, np.arange(4 * P, dtype="u1") + 1)
    with sparsearray.open(path, "c") as array, sparsearray.open(path, "r+") as file:
        array[10] = 0
        array[P - 120 : P] = 0
        array[2 * P] = 99
        data = pickle.dumps(array)
        assert len(data) < 3 * P + 500
        file[3 * P] = 77
        with pickle.loads(data) as again:
            assert again.mode == "c"
            assert (again[10], again[P - 1], again[2 * P], again[3 * P]) == (0, 0, 99, 77)
            expected = np.array(file)
            expected[[10, 2 * P]] = 0, 99
            expected[P - 120 : P] = 0
            assert np.array_equal(again, expected)


@pytest.mark.usefixtures("told_pages")
def test_private_pages_over_holes(tmp_path):
    """In mode 'c' a terabyte file with a page written travels as that page."""
    path = tmp_path / "a.npy"
    sparsearray.open(path, "w+", shape=(1 << 18, 1 << 19)).close()
    for tiles in (None, (64, 64)):
        if tiles:
            path = tmp_path / "b.npy"
            sparsearray.open(path, "w+", shape=(1 << 18, 1 << 19), tiles=tiles).close()
        with sparsearray.open(path, "c") as array:
            array[-1, -1] = 3
            data = pickle.dumps(array)
            assert P <= len(data) < 2 * P
            with pickle.loads(data) as again:
                assert again.sum() == 3
                assert again.nbytes_stored <= 8 * P
    assert path.stat().st_blocks * 512 < 8 * P


def test_arrays_of_somebody_elses_buffer():
    """An array that shows part of a buffer travels as what is stored there, and is its own then."""
    with SparseBuffer(16 * P) as buffer:
        buffer.alloc(0, 16 * P)
        array = filled(SparseArray(buffer, (50, 20), "f4", offset=1000))
        tiled = filled(TiledArray(buffer, (50, 20), "f4", tiles=(10, 20), offset=8 * P))
        fortran = filled(SparseArray(buffer, (7, 9), "i8", offset=6 * P, order="F"))
        for one in (array, tiled, fortran):
            again = pickle.loads(pickle.dumps(one))
            assert same(again, one)
            again[0, 0] = 55
            assert one[0, 0] != 55
        del array, tiled, fortran, one


@pytest.mark.parametrize("tiles", [None, "auto"])
@pytest.mark.usefixtures("told_pages")
def test_names_and_limits(tiles):
    """The name, the longest length and the limit of what is stored travel too."""
    array = sparsearray.zeros(
        (10, 512), maxshape=(None, 512), max_nbytes=3 * P, name="mine", tiles=tiles
    )
    array[0, :9] = 1
    again = pickle.loads(pickle.dumps(array))
    assert (again.buffer.name, again.maxshape) == ("mine", array.maxshape)
    again.resize((20, 512))
    with pytest.raises(MemoryError, match="max_nbytes"):
        again[:] = 1
    with pytest.raises(MemoryError, match="max_nbytes"):
        array[:] = 1
    again.discard(Ellipsis)
    again[0, :9] = 1
    assert again.nbytes_stored == array.nbytes_stored == P


@pytest.mark.usefixtures("told_pages")
def test_more_than_the_limit_travels():
    """What windows wrote past the limit is no reason to lose it."""
    array = sparsearray.zeros((10, 512), max_nbytes=2 * P)
    array[...][:] = 1
    again = pickle.loads(pickle.dumps(array))
    assert again.sum() == 5120
    with pytest.raises(MemoryError):
        again[0, 0] = 2
        again.resize((11, 512))


@given(st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_pages(data):
    """Whichever pages are written, with zeros too, the array is the same again, and no more stored."""
    n = data.draw(st.integers(1, 40 * P))
    tiles = data.draw(st.sampled_from([None, "auto", 100, 3 * P]))
    array = sparsearray.zeros(n, "u1", tiles=tiles)
    model = np.zeros(n, "u1")
    for _ in range(data.draw(st.integers(0, 6))):
        start = data.draw(st.integers(0, n - 1))
        stop = data.draw(st.integers(start, min(n, start + 3 * P)))
        value = data.draw(st.sampled_from([0, 1, 7]))
        array[start:stop] = model[start:stop] = np.full(stop - start, value, "u1")
    again = pickle.loads(pickle.dumps(array))
    assert np.array_equal(np.asarray(again), model)
    assert again.nbytes_stored <= array.nbytes_stored


# ------------------------------------------------------------------------------------- what it weighs


@pytest.mark.usefixtures("told_pages")
def test_a_terabyte_in_a_file(tmp_path):
    """A file of a terabyte is less than a kilobyte, in either layout."""
    for tiles in (None, "auto"):
        with sparsearray.open(
            tmp_path / f"{tiles}.npy", "w+", shape=(1 << 18, 1 << 19), tiles=tiles
        ) as a:
            a[1000, 2000] = 1
            data = pickle.dumps(a)
            assert len(data) < 1000
            with pickle.loads(data) as again:
                assert again.sum() == 1


def test_a_terabyte_in_shared_memory():
    """So is one in shared memory."""
    with shared_memory(1 << 40) as memory:
        a = sparsearray.open(memory, "r+", dtype="f8", shape=(1 << 18, 1 << 19))
        a[1000, 2000] = 1
        data = pickle.dumps(a)
        assert len(data) < 1000
        with pickle.loads(data) as again:
            assert again.sum() == 1


@pytest.mark.parametrize("tiles", [None, "auto", (3, 3)])
@pytest.mark.usefixtures("told_pages")
def test_a_terabyte_in_memory(tiles):
    """One in memory is the pages that hold something, and a few bytes for each run of them."""
    a = sparsearray.zeros((1 << 18, 1 << 19), tiles=tiles)
    for i in range(100):
        a[i * 2000, i * 3000] = 1
    for i in range(50):
        a[i * 2000, i * 3000] = 0.0
    data = pickle.dumps(a)
    assert 50 * P <= len(data) <= 50 * (P + 16) + 1000
    again = pickle.loads(data)
    assert again.sum() == 50
    assert again.nbytes_stored == 50 * P


@pytest.mark.usefixtures("told_pages")
def test_large_pieces_go_out_of_band():
    """With protocol 5 the bytes are buffers of their own, which nobody copies into the pickle."""
    a = sparsearray.zeros(1 << 24, "u1")
    a[1 << 20 : 10 << 20] = 7
    buffers = []
    data = pickle.dumps(a, protocol=5, buffer_callback=buffers.append)
    assert len(data) < 2000
    assert sum(one.raw().nbytes for one in buffers) < (9 << 20) + 1000
    assert np.array_equal(np.asarray(pickle.loads(data, buffers=buffers)), np.asarray(a))


# ---------------------------------------------------------------------------------------- what fails


@pytest.mark.parametrize(
    "kind", ["rows", "tiles of a page", "a file", "shared memory", "a file of tiles"]
)
def test_closed_arrays(kind, tmp_path):
    """A closed array says so, in any protocol; copies go on as they did."""
    array = KINDS[kind](tmp_path)
    assert same(copy.deepcopy(array), array.copy())
    array.close()
    for protocol in PROTOCOLS:
        with pytest.raises(ClosedError, match="closed"):
            pickle.dumps(array, protocol)


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_the_file_was_changed(mode, tmp_path):
    """Another shape, another dtype, a file that is cut or gone: the error says which, by name."""
    path = tmp_path / "a.npy"
    np.save(path, np.arange(600).reshape(20, 30))
    with sparsearray.open(path, mode) as array:
        data = pickle.dumps(array)
    for other, match in [
        (np.zeros((20, 31), int), r"a.npy.*\(20, 31\), not \(20, 30\)"),
        (np.zeros((20, 30), "f4"), "a.npy.*holds float32, not int64"),
    ]:
        np.save(path, other)
        with pytest.raises(ValueError, match=match + ".*after the array was pickled"):
            pickle.loads(data)
    np.save(path, np.zeros((20, 30), int))
    os.truncate(path, 1000)
    with pytest.raises(ValueError, match="a.npy.*cut short"):
        pickle.loads(data)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="a.npy"):
        pickle.loads(data)


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_the_path_leads_elsewhere(mode, tmp_path):
    """An array whose file was removed or replaced cannot travel by its path, and says so."""
    path = tmp_path / "a.npy"
    np.save(path, np.arange(600))
    with sparsearray.open(path, mode) as array:
        shutil.copy(path, tmp_path / "b.npy")
        (tmp_path / "b.npy").replace(path)
        with pytest.raises(FileNotFoundError, match="a.npy.*another file by now"):
            pickle.dumps(array)
        path.unlink()
        with pytest.raises(FileNotFoundError, match="a.npy"):
            pickle.dumps(array)
        assert array.sum() == 599 * 300


def test_a_file_cut_short_under_pages_of_its_own(tmp_path):
    """What a copy-on-write array has lost is an error, and not left out."""
    path = tmp_path / "a.npy"
    np.save(path, np.ones(4 * P, "u1"))
    with sparsearray.open(path, "c") as array:
        array[3 * P] = 2
        os.truncate(path, P)
        with pytest.raises(AccessError):
            pickle.dumps(array)


def test_a_path_from_elsewhere(tmp_path, monkeypatch):
    """The path is absolute: the folder of the process that loads it does not matter."""
    monkeypatch.chdir(tmp_path)
    array = sparsearray.open("a.npy", "w+", shape=10)
    array[3] = 3
    data = pickle.dumps(array)
    monkeypatch.chdir("/")
    with pickle.loads(data) as again:
        assert again[3] == 3
        again[4] = 4
    assert array[4] == 4


def test_a_resized_file_travels_as_it_is(tmp_path):
    """The shape is that of now, and both may grow on."""
    with sparsearray.open(tmp_path / "a.npy", "w+", shape=(3, 4), maxshape=(None, 4)) as array:
        array.append(np.ones((2, 4)))
        again = pickle.loads(pickle.dumps(array))
        assert again.shape == (5, 4)
        assert again.maxshape == array.maxshape
        array.close()
        again.append(np.ones((2, 4)))
        assert again.sum() == 16
        again.close()


def test_room_stays_reserved(tmp_path):
    """A file for which the disk has given room keeps it."""
    path = tmp_path / "a.npy"
    with sparsearray.open(path, "w+", shape=100_000, reserve=True) as array:
        array[:50_000] = 1
        with pickle.loads(pickle.dumps(array)) as again:
            again[:] = 0
        assert path.stat().st_blocks * 512 >= 800_000


def test_no_descriptor_stays(array, descriptors):
    """Pickled, loaded and closed, an array of any kind leaves no descriptor."""
    pickle.loads(pickle.dumps(array)).close()
    before = descriptors()
    for _ in range(3):
        pickle.loads(pickle.dumps(array)).close()
    assert descriptors() == before


def test_a_file_that_is_raw_by_now(tmp_path):
    """The same bytes elsewhere in the file are not the array's."""
    path = tmp_path / "a.npy"
    with sparsearray.open(path, "w+", shape=(300,), dtype="f8") as a:
        pickled = pickle.dumps(a)
    np.full(300, 7.0).tofile(path)
    with pytest.raises(ValueError, match="first item at byte 0 by now"):
        pickle.loads(pickled)


def test_a_damaged_pickle_has_no_objects():
    """Bytes are never taken for references to objects."""
    a = sparsearray.zeros(1 << 20)
    a[5] = 1
    with pytest.raises(TypeError, match="Python objects"):
        pickle.loads(pickle.dumps(a).replace(b"f8", b"O8"))
