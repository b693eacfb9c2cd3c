"""What tiles cost: those that were written, exactly; and what no memory can hold is refused by name."""

import ctypes
import mmap
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sparsearray
from sparsearray import ClosedError, SparseBuffer, TiledArray
from sparsearray.testing.places import pages_of

from .array_files import DISK_PAGE, stored

P = mmap.PAGESIZE
TIB = 1 << 40
SIDE = 1 << 20

on_linux = pytest.mark.skipif(
    not Path("/proc/self/smaps").exists(), reason="memory is told of by Linux"
)


def page_tables() -> int:
    """Bytes of page tables of this process."""
    found = re.search(r"VmPTE:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) << 10


def cached(path: Path) -> int:
    """Bytes of a file that the system has in its cache."""
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        found = np.empty(-(-len(mapped) // P), "u1")
        place = np.frombuffer(mapped, "u1")
        address = ctypes.c_void_p(place.ctypes.data)
        del place
        assert (
            libc.mincore(address, ctypes.c_size_t(len(mapped)), ctypes.c_void_p(found.ctypes.data))
            == 0
        )
    return int((found & 1).sum()) * P


READS: dict[str, Callable[[Any], Any]] = {
    "a box": lambda a: a[5 : 5 + 2048, 9 : 9 + 2048],
    "rows": lambda a: a[7:15, : 1 << 17],
    "a column": lambda a: a[: 1 << 15, 77],
    "steps": lambda a: a[:: 1 << 10, 3 :: 1 << 9],
    "backwards": lambda a: a[2000::-1, 1000::-3],
    "outer": lambda a: a.oindex[[*range(0, 1 << 15, 1 << 8)], [*range(0, 1 << 14, 7)]],
    "blocks": lambda a: sum(block.size for _, block in a.blocks()),
}


@on_linux
@pytest.mark.usefixtures("told_pages")
@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_reading_holes_of_memory(read: Any, resident: Callable[[SparseBuffer], int]) -> None:
    """A box of holes comes without looking at a page: no memory, no page tables."""
    array = sparsearray.zeros((SIDE, 1 << 17), tiles="auto")
    assert array.nbytes == TIB
    read(array)  # what Python itself needs
    before = page_tables()
    assert not np.any(read(array))
    assert resident(array.buffer) == 0
    assert page_tables() - before <= 256 << 10
    assert array.nbytes_stored == 0


@on_linux
@pytest.mark.usefixtures("told_pages")
def test_reading_holes_beside_what_is_stored(resident: Callable[[SparseBuffer], int]) -> None:
    """Of a box with one stored tile, that one alone is in memory."""
    array = sparsearray.zeros((SIDE, 1 << 17), tiles="auto")
    array[1000, 1000] = 5
    found = array[: 1 << 12, : 1 << 11]
    assert found[1000, 1000] == found.sum() == 5
    assert resident(array.buffer) == P


@on_linux
@pytest.mark.parametrize("mode", ["r", "r+", "c"])
@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.usefixtures("told_pages")
def test_reading_holes_of_files(read: Any, mode: Any, tmp_path: Path) -> None:
    """Neither are holes of files read: not into the cache, and they take no room on disk."""
    path = tmp_path / "a.npy"
    with sparsearray.open(path, "w+", shape=(1 << 15, 1 << 14), tiles="auto") as array:
        array[3, 4] = 5
    room = stored(path)
    with sparsearray.open(path, mode) as array:
        before = cached(path)
        read(array)
        assert cached(path) - before <= 16 * P
    assert stored(path) == room == DISK_PAGE + P


TILES: list[Any] = ["auto", (16, P // 16), (16, 16), (5, 7), (100, 3000), 200]
BOXES: list[Any] = [
    (slice(0, 1), slice(0, 1)),
    (slice(3, 40), slice(100, 300)),
    (slice(7, 8), slice(0, 1300)),
    (slice(0, 1300), slice(9, 10)),
    (slice(100, 1200, 500), slice(5, 1300, 300)),
    (slice(1250, 100, -300), 17),
    (63, 65),
]


@pytest.mark.usefixtures("told_pages")
@pytest.mark.parametrize("box", BOXES, ids=str)
@pytest.mark.parametrize("tiles", TILES, ids=str)
@pytest.mark.parametrize("dtype", ["u1", "f8", "S3"])
def test_a_box_costs_the_tiles_it_touches(dtype: str, tiles: Any, box: Any) -> None:
    """Exactly the pages in which its items lie, where each is said to be."""
    shape = (1300, 1300)
    array = sparsearray.zeros(shape, dtype, tiles=tiles)
    array[box] = np.ones((), dtype)
    places = pages_of(shape, array.itemsize, array.tiles, box)
    assert array.nbytes_stored == len(places) * P
    assert array.extents()[0, 0] == min(places) * P


# Limits

REFUSED: dict[str, Callable[[Any], Any]] = {
    "a box": lambda a: a.__setitem__((slice(0, 64), slice(0, 64 * 9)), 1),
    "steps": lambda a: a.__setitem__((slice(0, 640, 64), 3), 1),
    "outer": lambda a: a.oindex.__setitem__(([*range(0, 640, 64)], [5, 9]), 1),
    "pairs": lambda a: a.__setitem__(([*range(0, 640, 64)], [*range(10)]), 1),
    "a mask": lambda a: a.__setitem__(np.ones(a.shape, bool), 1),
    "rows": lambda a: a.append(np.ones((5, a.shape[1]), "u1")),
    "rows with holes": lambda a: a.append(a.copy().retile(None)),
    "an array": lambda a: a.__setitem__(..., np.ones(a.shape, "u1")),
    "an array with holes": lambda a: a.__setitem__(slice(64, 128), filled(64, a.shape[1])),
}


def filled(*shape: int) -> TiledArray:
    """Make an array of ones."""
    made = sparsearray.zeros(shape, "u1", tiles=64)
    made[...] = np.ones(shape, "u1")
    return made


@pytest.mark.usefixtures("told_pages")
@pytest.mark.parametrize("change", REFUSED.values(), ids=REFUSED)
def test_limit(change: Any) -> None:
    """What would store more than the limit is refused, and nothing is changed."""
    array = sparsearray.zeros(
        (640, 640), "u1", tiles=(64, P // 64), maxshape=(None, 640), max_nbytes=8 * P
    )
    array[:64, : 3 * P // 64] = 7
    assert array.nbytes_stored == 3 * P
    before = array[...]
    with pytest.raises(MemoryError, match="max_nbytes"):
        change(array)
    assert array.shape == (640, 640)
    assert (array[...] == before).all()
    assert array.nbytes_stored == 3 * P


@pytest.mark.usefixtures("told_pages")
def test_limit_of_results() -> None:
    """A result that has no room is refused where the room ends."""
    array = sparsearray.zeros((640, 640), "u1", tiles=64, max_nbytes=8 * P)
    with pytest.raises(MemoryError, match="max_nbytes"):
        np.add(array, filled(*array.shape), out=array)
    assert array.nbytes_stored <= 8 * P


@pytest.mark.usefixtures("told_pages")
def test_limit_of_single_items() -> None:
    """Items can be set as long as there is room for their tiles; the next one is refused."""
    array = sparsearray.zeros((640, 640), "u1", tiles=(64, P // 64), max_nbytes=4 * P)
    for i in range(4):
        array[64 * i, 0] = array[64 * i, 1] = i + 1
    with pytest.raises(MemoryError, match="max_nbytes"):
        array[500, 0] = 1
    array[70, 5] = 9
    assert array.nbytes_stored == 4 * P
    array.discard(slice(0, 64))
    array[500, 0] = 1
    assert array.sum() == 2 * (2 + 3 + 4) + 9 + 1
    assert array.nbytes_stored == 4 * P
    with pytest.raises(MemoryError, match="max_nbytes"):
        array.tile(9, 9)
    assert array.tile(1, 0)[6, 5] == 9


@pytest.mark.parametrize(
    "call",
    [
        np.asarray,
        np.array,
        lambda a: a[...],
        lambda a: a[: 1 << 19],
        lambda a: a[[*range(1 << 10)] * 64],
        lambda a: a.oindex[[*range(1 << 16)], :],
        lambda a: a[::-1, ::2],
    ],
    ids=["asarray", "array", "all", "half", "rows", "outer", "steps"],
)
def test_what_no_memory_holds(call: Any) -> None:
    """A dense copy that is too large is refused before it begins, with what else there is."""
    array = sparsearray.zeros((SIDE, 1 << 17), tiles="auto")
    array[5, 5] = 1
    with pytest.raises(MemoryError) as caught:
        call(array)
    for way in ("a[...]", "a.astype", "a.blocks()"):
        assert way in str(caught.value)


# Extremes


@pytest.mark.slow  # not for the sanitizers, which leave no room for it
@pytest.mark.usefixtures("told_pages")
def test_the_largest_arrays(run_ok: Callable[[str], str]) -> None:
    """64 TiB, in a process whose addresses are all free: corners, boxes over them, and sums."""
    run_ok("""
        import sparsearray
        side = 1 << 23
        array = sparsearray.zeros((side, side), "u1", tiles="auto")
        assert array.nbytes == 1 << 46
        for i in (0, side - 1):
            for j in (0, side - 1):
                array[i, j] = 1 + (i > 0) + 2 * (j > 0)
        assert array[[0, -1], [-1, 0]].tolist() == [3, 2]
        assert array[:: side - 1, :: side - 1].tolist() == [[1, 3], [2, 4]]
        assert array.oindex[[side - 1, 0], [-1, 5]].tolist() == [[4, 0], [3, 0]]
        array[side // 2 : side // 2 + 100, -100:] = 1
        assert array[side // 2 - 5 : side // 2 + 5, -7:].sum() == 35
        assert sum(int(block.sum()) for _, block in array.blocks()) == 1 + 2 + 3 + 4 + 100 * 100
        array.discard((slice(1, None), slice(None)))
        assert array[0, :: side - 1].tolist() == [1, 3]
        assert array[-1, -1] == 0
    """)


@pytest.mark.usefixtures("told_pages")
def test_functions_of_the_largest_arrays() -> None:
    """Functions of the whole array look at what is stored."""
    array = sparsearray.zeros((1 << 22, 1 << 22), "u1", tiles="auto")
    array[77, 1 << 21] = array[1 << 21, 77] = 3
    assert array.sum() == 6
    assert array.max() == 3
    assert np.transpose(array.nonzero()).tolist() == [[77, 1 << 21], [1 << 21, 77]]
    assert array.copy().nbytes_stored == array.nbytes_stored == 2 * P
    doubled = array * 2
    assert doubled[77, 1 << 21] == 6
    assert array.trim() == 0


@pytest.mark.parametrize(
    "shape",
    [(), (0,), (0, 5), (5, 0), (3, 0, 4), (1,) * 9, (2,) * 11, (1, 3, 1, 2, 1, 2, 1, 2, 1, 2)],
    ids=str,
)
@pytest.mark.parametrize("tiles", ["auto", 1, 2, 1000])
@pytest.mark.parametrize("dtype", ["u1", "S3", "V12", [("a", "<i4"), ("b", ">f8")], "c16"])
def test_shapes_and_dtypes(shape: tuple[int, ...], tiles: Any, dtype: Any) -> None:
    """Any shape, with tiles larger than it, of items of any size."""
    if tiles == 1000 and len(shape) > 2:
        tiles = 3
    array, dense = sparsearray.zeros(shape, dtype, tiles=tiles), np.zeros(shape, dtype)
    raw = np.arange(dense.nbytes, dtype="u1") % 7
    items = raw.view(dense.dtype).reshape(shape) if dense.nbytes else dense.copy()
    array[...] = dense[...] = items
    assert (array.shape, array.dtype, array.ndim) == (dense.shape, dense.dtype, dense.ndim)
    assert array[...].tobytes() == np.asarray(array).tobytes() == dense.tobytes()
    assert (
        array.copy()[...].tobytes() == array.retile(None).copy()[...].tobytes() == dense.tobytes()
    )
    if shape and shape[0]:
        assert array[-1].tobytes() == dense[-1].tobytes()
        assert array[::-1].tobytes() == dense[::-1].tobytes()
    array.discard(...)
    assert not array[...].tobytes().strip(b"\0")


@pytest.mark.parametrize("itemsize", [P - 1, P, P + 1, 3 * P + 5])
@pytest.mark.parametrize("tiles", ["auto", 1, (2, 3)])
@pytest.mark.usefixtures("told_pages")
def test_items_larger_than_a_page(itemsize: int, tiles: Any) -> None:
    """An item can take several pages: then so does a tile."""
    array = sparsearray.zeros((5, 7), f"V{itemsize}", tiles=tiles)
    value = np.frombuffer(bytes(range(1, 252)) * (itemsize // 251 + 1), "u1")[:itemsize]
    array[3, 4] = value.view(f"V{itemsize}")[0]
    assert array[3, 4].tobytes() == array[2:4, 3:5][1, 1].tobytes() == value.tobytes()
    assert not array[2, 4].tobytes().strip(b"\0")
    assert itemsize <= array.nbytes_stored <= itemsize + 2 * P
    array[:, 4] = array[3, 4]
    assert array.tile(0, 0).dtype == np.dtype(f"V{itemsize}")
    assert [one.tobytes() for one in array[:, 4]] == [value.tobytes()] * 5


@pytest.mark.parametrize("dtype", [object, [("a", "O")], [("a", "i4"), ("b", [("c", "O")])]])
def test_objects(dtype: Any) -> None:
    """Objects are refused in tiles, too."""
    with pytest.raises(TypeError, match="object"):
        sparsearray.zeros((3, 4), dtype, tiles=2)
    with SparseBuffer(P) as buffer, pytest.raises(TypeError, match="object"):
        TiledArray(buffer, (3, 4), dtype, tiles=2)


def test_in_a_buffer() -> None:
    """Made directly it shows what is mapped already, from any byte on; a closed buffer is refused."""
    buffer = SparseBuffer(4 * P)
    buffer.alloc(0, 4 * P)
    array = TiledArray(buffer, (10, 10), "<u2", tiles=(4, 4), offset=100)
    array[...] = np.arange(100).reshape(10, 10)
    tile = np.arange(100).reshape(10, 10)[4:8, 8:]
    assert (buffer.read_plain(100 + 5 * 32, "<u2", (4, 4))[:, :2] == tile).all()
    assert (array.offset, array.buffer) == (100, buffer)
    with pytest.raises(ValueError, match="not its own"):
        array.resize((5, 10))
    array.close()  # the buffer is not its own
    assert array[9, 9] == 99
    with pytest.raises(IndexError):
        TiledArray(buffer, (1 << 10, 1 << 10), "<u2", tiles=(4, 4))
    buffer.close()
    with pytest.raises(ClosedError):
        array[3:5, 3:5]
    with pytest.raises(ClosedError):
        TiledArray(buffer, (10, 10), "<u2", tiles=(4, 4))
