"""Tiles packed in memory: where they lie, what goes when they go, and windows that hold on to them."""

import mmap
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sparsearray
from sparsearray import TiledArray, _pool, _records, _storage
from sparsearray._sums import is_narrow, sum_narrow

from .test_array_memory import huge

P = mmap.PAGESIZE
MIB = 1 << 20
THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")
PAGES = [1, 2, 17]  # of a tile: those of one are packed


def made(pages: int, shape: tuple[int, int] = (640, 640), **how: Any) -> TiledArray:
    """Make an array of bytes in tiles of 64 rows."""
    return sparsearray.zeros(shape, "u1", tiles=(64, pages * P // 64), **how)


@pytest.mark.parametrize("pages", PAGES)
def test_tiles_are_packed(pages: int) -> None:
    """Tiles follow each other as they are first written, and a slot given back is taken again."""
    array = made(pages, (64 * 40, pages * P // 64))
    for i in (30, 7, 21):
        array[64 * i, 0] = i
    places = [array.tile(i, 0).ctypes.data for i in (30, 7, 21)]
    if pages == 1:
        assert np.diff(places).tolist() == [pages * P] * 2
    else:
        assert sorted(places) == [places[1], places[2], places[0]]
    array.discard(slice(64 * 7, 64 * 8))
    array[64 * 39] = 5
    assert array.tile(39, 0).ctypes.data == places[1] or pages > 1
    assert array[:, 0].nonzero()[0].tolist() == [21 * 64, 30 * 64, 39 * 64]
    assert array.sum() == 30 + 21 + 5 * array.shape[1]


@pytest.mark.parametrize("pages", PAGES)
def test_windows_hold_on_to_tiles(pages: int) -> None:
    """A tile that is shown is set to zero, and stays where it is, also for what is written later."""
    array = made(pages)
    array[...] = np.full(array.shape, 3, "u1")
    window = array.tile(2, 0)
    array.discard(...)
    assert not window.any()
    others = made(pages)
    array[...] = others  # holes
    window[5, 6] = 9
    array[64 * 5, 0] = 1
    assert array[64 * 2 + 5, 6] == 9
    assert array.sum() == 10
    array.trim()
    assert array.sum() == 10
    with pytest.raises(BufferError):
        array.resize((64 * 2, 640))
    assert array.shape == (640, 640)
    assert array.sum() == 10
    with pytest.raises(BufferError):
        array.resize((64 * 2 + 5, 640))
    array.resize((64 * 3, 640))
    assert array.sum() == 9
    del window
    array.resize((64, 640))
    array.resize((640, 640))
    assert array.sum() == 0


@pytest.mark.parametrize("pages", PAGES)
def test_what_is_cut_off_is_gone(pages: int) -> None:
    """Rows behind a new end are not there again when it becomes longer."""
    array = made(pages, (0, 640), maxshape=(None, 640))
    rows = np.random.default_rng(pages).integers(1, 255, (200, 640), "u1")
    for _ in range(4):
        array.append(rows)
        array.resize((70, 640))
        array.resize((500, 640))
        assert (array[:70] == rows[:70]).all()
        assert not array[70:].any()
        array.resize((0, 640))
        assert array.nbytes_stored == 0


def test_an_array_on_itself() -> None:
    """What is set to its own window is copied first, wherever tiles lie by then."""
    array = made(1, (64 * 100, 64), maxshape=(64 * 100, 64))
    array[...] = np.arange(array.size, dtype="u4").reshape(array.shape) % 251
    array.discard(slice(64, None))
    array[64 * 3 :] = np.arange(97 * P, dtype="u4").reshape(-1, 64) % 241
    array.discard(slice(0, 64 * 90))
    array[:64] = np.arange(P, dtype="u2").reshape(64, 64) % 239
    array.resize((64 * 92, 64))  # those of the last tiles lie far behind
    window = array.tile(91, 0)
    expected = window.copy()
    array[64 * 91 + 1 : 64 * 92] = window[:-1]
    assert (array[64 * 91 + 1 : 64 * 92] == expected[:-1]).all()


@pytest.mark.parametrize("one", PAGES)
@pytest.mark.parametrize("path", [False, True])
def test_copies_of_all_kinds(one: int, path: bool, tmp_path: Path) -> None:
    """Memory to files, files to memory, and back, with holes: all that is stored, and no more."""
    array = made(one)
    array[3, 5] = array[100:300:7, 200:500:3] = 4
    dense = array[...]
    other: Any = array
    if path:
        array.save(tmp_path / "a.npy")
        other = sparsearray.open(tmp_path / "a.npy", "r+")
    for copy in (other.copy(), other.retile("auto"), other.retile(None), other * 1):
        assert (copy[...] == dense).all()
    target = made(one)
    target[500:600, 500:600] = 8
    target[...] = other
    assert (target[...] == dense).all()
    assert target.nbytes_stored == array.nbytes_stored
    other[...] = made(one)
    assert other.sum() == 0


@pytest.mark.parametrize("items", [0, 1, 600, 3000, P, 5 * P])
def test_items_and_arrays_of_them(items: int) -> None:
    """Items of any size, by number, pairs and masks, where there are tiles and where there are none."""
    dtype = np.dtype([("a", "<i4"), ("b", "S3"), ("c", f"V{items + 1}")])
    tiles = 1, max(P // dtype.itemsize, 1)
    array, dense = sparsearray.zeros((9, 7), dtype, tiles=tiles), np.zeros((9, 7), dtype)
    pairs = [8, 0, 3, 8], [6, 0, 3, 6]
    dense[3, 4] = array[3, 4] = (-5, b"xyz", b"q" * items)
    dense["a"][pairs] = [1, 2, 3, 4]
    array[pairs] = dense[pairs]
    assert array[...].tobytes() == dense.tobytes()
    assert array[pairs].tobytes() == dense[pairs].tobytes()
    assert array[dense["a"] < 0].tobytes() == dense[dense["a"] < 0].tobytes()
    for i, j in np.ndindex(dense.shape):
        assert array[i, j].tobytes() == dense[i, j].tobytes()


@pytest.mark.usefixtures("told_pages")
@pytest.mark.skipif(
    not THP.exists() or "[never]" in THP.read_text(), reason="the system has no huge pages"
)
def test_many_tiles_lie_in_huge_pages(resident: Any) -> None:
    """From 8 MiB on; what is taken is at most 2 MiB more than what is told of."""
    array = sparsearray.zeros((1 << 20, 1 << 20), "u1", tiles=64)
    places = np.random.default_rng(1).permutation(1 << 20)[:3000] * 64 % (1 << 20)
    for n, at in enumerate(places.tolist()):
        array[at, (n * 64 * 7) % (1 << 20)] = 1
        if n == 2 * MIB // P:
            assert huge(array._records) == 0
            assert resident(array.buffer) == (n + 1) * P
    stored = array.nbytes_stored
    assert stored == len(places) * P
    assert huge(array._records) > 0
    assert stored <= resident(array.buffer) <= stored + 2 * MIB
    array.discard(...)
    assert array.nbytes_stored == resident(array.buffer) == 0


def test_threads_that_write_and_drop() -> None:
    """Neighbouring tiles of four threads, each written, read, dropped and shown all the time."""
    array = made(1, (64 * 4, 64 * 64))
    wrong: list[str] = []

    def work(own: int) -> None:
        random = np.random.default_rng(own)
        for step in range(150):
            n = int(random.integers(0, 64)) // 4 * 4 + own % 4
            i = int(random.integers(0, 4))
            tile = slice(64 * i, 64 * i + 64), slice(64 * n, 64 * n + 64)
            value = 1 + own + 4 * (step % 60)
            array[tile] = np.full((64, 64), value, "u1")
            array[64 * i + 3, [64 * n + 1, 64 * n + 2]] = value
            window = array.tile(i, n) if step % 3 == 0 else None
            if (array[tile] != value).any() or array[64 * i, 64 * n] != value:
                wrong.append(f"tile {i}, {n} of {own}")
            array.discard(tile)
            if array[tile].any() or (window is not None and window.any()):
                wrong.append(f"tile {i}, {n} of {own} after discard")

    threads = [threading.Thread(target=work, args=(own,)) for own in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    array.trim()
    assert array.nbytes_stored == 0


@pytest.mark.usefixtures("told_pages")
def test_slots_are_taken_again_side_by_side(resident: Any) -> None:
    """What was written in any order, and given back, does not spread over empty huge pages."""
    array = sparsearray.zeros((1 << 20, 1 << 12), "u1", tiles=64)
    random = np.random.default_rng(0)

    def write(count: int) -> None:
        for n in random.permutation(1 << 20)[:count].tolist():
            array[n // 64 * 64, n % 64 * 64] = 1

    write(20_000)
    array.tile(0, 0)[0, 0] = 1
    array.resize((64, 1 << 12))
    array.resize((1 << 20, 1 << 12))
    write(300)
    assert array.nbytes_stored <= resident(array.buffer) <= array.nbytes_stored + 4 * MIB


@pytest.mark.parametrize("pages", PAGES)
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("step", range(4))
def test_a_length_that_could_not_be_changed(
    pages: int, error: type[BaseException], step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error at any step of a change finds the array as it was, or as it was to become."""
    array = made(pages, maxshape=(10_000, 640))
    array[...] = np.full(array.shape, 2, "u1")
    steps = iter(range(0))

    def fail(function: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            if next(steps) == step:
                raise error
            return function(*args, **kwargs)

        return run

    for length in (100, 900):
        steps = iter(range(100))
        with monkeypatch.context() as patch:
            patch.setattr(_records, "Mover", fail(_records.Mover))
            patch.setattr(_storage.Memory, "_cut", fail(_storage.Memory._cut))
            patch.setattr(_pool.PoolMemory, "_cut", fail(_pool.PoolMemory._cut))
            with suppress(error):
                array.resize((length, 640))
        assert next(steps) > 0  # there were some
        assert array.shape in ((640, 640), (100, 640), (900, 640))
        kept = min(len(array), 640 if length == 100 or len(array) == 640 else 100)
        assert array.sum() == array[...].sum(dtype="i8")
        assert (array[: min(kept, 100)] == 2).all()
        array.resize((640, 640))
        array[...] = np.full(array.shape, 2, "u1")


def test_discard_while_others_sum() -> None:
    """Who adds up slots does not keep tiles from being given back."""
    array = made(1, (64 * 1000, 64))
    stop = threading.Event()

    def add_up() -> None:
        while not stop.is_set():
            array.sum()

    thread = threading.Thread(target=add_up)
    thread.start()
    try:
        for _ in range(20):
            array[...] = np.ones((1, 64), "u1")
            array.discard(...)
            assert array.nbytes_stored == 0
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("pages", PAGES)
def test_limit_of_many_rows(dtype: str, pages: int) -> None:
    """Rows that are written piece by piece are refused as a whole."""
    array = made(pages, (0, 640), maxshape=(1 << 20, 640), max_nbytes=8 * MIB)
    with pytest.raises(MemoryError, match="max_nbytes"):
        array.append(np.ones((1 << 15, 640), dtype))
    assert array.shape == (0, 640)
    assert array.nbytes_stored == 0


def test_another_array_over_packed_tiles() -> None:
    """Tiles that lie as they were written are not shown as if they lay in their order."""
    array = made(1)
    with pytest.raises(ValueError, match="packs the tiles"):
        TiledArray(array.buffer, array.shape, "u1", tiles=64)
    array.close()


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4"])
@pytest.mark.parametrize("count", [0, 1, 7, (1 << 15) - 1, 1 << 15, (1 << 15) + 1, 200_003])
def test_sums_of_small_integers(dtype: str, count: int) -> None:
    """As numpy's: of the largest items, the smallest, any, and at any byte."""
    facts = np.iinfo(dtype)
    wide = np.dtype("i8" if facts.min else "u8")
    raw = np.zeros(count * facts.bits // 8 + 1, "u1")
    items = raw[1:].view(dtype)
    random = np.random.default_rng(count)
    for values in (facts.max, facts.min, random.integers(facts.min, facts.max, count, dtype, True)):
        items[...] = values
        found = sum_narrow(items, None, wide)
        assert found == sum(items.tolist())
        assert found.dtype == wide
    assert is_narrow(items.dtype)
    assert not is_narrow(np.dtype(dtype).newbyteorder()) or facts.bits == 8
