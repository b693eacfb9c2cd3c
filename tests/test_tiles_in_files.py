"""Tiles in files that are cut short, cannot be read, or have no room: an error that says where, or the items."""

import errno
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sparsearray
from sparsearray import AccessError, ClosedError

from .array_files import DISK_PAGE, stored
from .script_places import WHERE
from .tiled_files import SHAPE, TILES, WIDTH, cut, expected, make, script

P = mmap.PAGESIZE

CUTS = {"between tiles": 5 * P, "inside a tile": 5 * P + 100, "all": 0}
KEYS: dict[str, Any] = {
    "all": ...,
    "a column": (slice(None), 5),
    "a row": 35,
    "backwards": (slice(None, None, -1), slice(None, None, -3)),
    "steps": (slice(3, 60), slice(10, None, 7)),
    "rows": ([1, 40, 63],),
    "an item": (63, 4 * WIDTH - 1),
}

# Files that somebody else cuts short

CUT = """
def expect(call, operation, bad, places):
    places = np.sort(np.ravel(places))
    error = failure(call)
    found = type(error), error.reason, error.operation, error.offset, error.transferred
    lost = places[places >= bad]
    due = AccessError, "file-truncated", operation, array.offset + lost[0], len(places) - len(lost)
    assert found == due, (found, due)
    assert error.filename == os.path.abspath("a.npy")

def check(key, bad):
    expect(lambda: array[key], "read", bad, PLACES[key])
    expect(lambda: array.__setitem__(key, np.full(PLACES[key].shape, 99, "u1")[()]), "write", bad, PLACES[key])
    changed = EXPECTED.copy()
    changed[key] = 99
    raw = np.empty(EXPECTED.size, "u1")
    raw[PLACES] = changed
    with open("a.npy", "rb") as file:
        assert file.read()[DISK_PAGE:] == raw[:bad].tobytes()
"""


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("bad", CUTS.values(), ids=CUTS)
def test_cut_before(bad: int, key: Any, run_ok: Callable[..., str]) -> None:
    """A box says which byte of it is the first that is lost, and what was moved before; nothing is returned."""
    run_ok(script(f"{CUT}\narray = make()\ncut({bad})\ncheck({key!r}, {bad})"))


@pytest.mark.parametrize("bad", CUTS.values(), ids=CUTS)
def test_pairs_cut_before(bad: int, tmp_path: Path) -> None:
    """Items here and there: the first one that is lost is named."""
    array = make(tmp_path / "a.npy")
    pairs = [1, 40, 63], [2, 3, 4 * WIDTH - 1]
    cut(tmp_path / "a.npy", bad)
    places = [WIDTH + 2, 8 * P + 8 * WIDTH + 3, 16 * P - 1]
    for call in (lambda: array[pairs], lambda: array.__setitem__(pairs, [7, 8, 9])):
        with pytest.raises(AccessError) as caught:
            call()
        assert caught.value.reason == "file-truncated"
        assert caught.value.offset == array.offset + min(at for at in places if at >= bad)


HANDLERS = {
    "faulthandler": "faulthandler.enable()",
    "of Python": "signal.signal(signal.SIGBUS, lambda *_: os._exit(7))",
    "ignored": "signal.signal(signal.SIGBUS, signal.SIG_IGN)",
    "default": "signal.signal(signal.SIGBUS, signal.SIG_DFL)",
    "blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGBUS])",
    "not installed": "sparsearray.install_fault_handler(False)",
}


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("handler", HANDLERS.values(), ids=HANDLERS)
def test_whoever_has_the_handler(where: str, handler: str, run_ok: Callable[..., str]) -> None:
    """The error is the same whoever has SIGBUS, in each kind of thread."""
    run_ok(
        script(CUT)
        + f"""
array = make()
{handler}

def work():
    assert (array[...] == EXPECTED).all()
    cut({5 * P + 100})
    check(..., {5 * P + 100})
    assert (array[:16] == 99).all()

RUN[{where!r}](work)
"""
    )


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
@pytest.mark.parametrize("side", [1, 100, WIDTH])
def test_cut_behind_the_box(mode: str, side: int, tmp_path: Path) -> None:
    """What is lost right behind the last byte of a box is not its concern; that byte is."""
    path = tmp_path / "a.npy"
    array = make(path, mode)
    box = slice(0, 20), slice(WIDTH, WIDTH + side)
    last = 5 * P + 3 * WIDTH + side
    cut(path, last)
    assert (array[box] == expected()[box]).all()
    if mode == "r+":
        array[box] = 77
        assert (array[box] == 77).all()
    cut(path, last - 1)
    with pytest.raises(AccessError) as caught:
        array[box]
    assert caught.value.offset == array.offset + last - 1
    assert caught.value.transferred == 20 * side - 1


def test_another_file_between(tmp_path: Path) -> None:
    """A file that was cut and lies between what is selected, in no part of it, changes nothing."""
    for name, value in (("first", 1), ("second", 2)):
        (tmp_path / name).write_bytes(bytes([value]) * 16 * P)
    buffer = sparsearray.SparseBuffer(16 * P)
    for at in range(0, 16, 4):
        buffer.map_file(at * P, P, tmp_path / "first", writable=True)
        buffer.map_file((at + 1) * P, 3 * P, tmp_path / "second", P)
    array = sparsearray.TiledArray(buffer, SHAPE, "u1", tiles=TILES)
    os.truncate(tmp_path / "second", 0)
    assert (array[:, :WIDTH] == 1).all()
    array[:, 3:WIDTH] = 5
    assert (tmp_path / "first").read_bytes()[:WIDTH] == bytes([1] * 3 + [5] * (WIDTH - 3))
    with pytest.raises(AccessError, match="past the end of its file"):
        array[:, : WIDTH + 1]


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_cut_while_others_read_and_write(mode: str, run_ok: Callable[..., str]) -> None:
    """A box is what was there, or zeros of the file made longer again, or an error; never the end."""
    run_ok(
        script(f"""
        import time
        array = make({mode!r})
        stop = threading.Event()

        def shorten():
            rng = np.random.default_rng(3)
            while not stop.is_set():
                cut(int(rng.integers(0, 16 * P)))
                time.sleep(0.0005)
                cut(16 * P)
                time.sleep(0.0005)

        thread = threading.Thread(target=shorten)
        thread.start()
        errors = results = 0
        end = time.monotonic() + 0.6
        try:
            while time.monotonic() < end or not (errors and results):
                try:
                    found = array[3:60, 5:-5]
                    assert ((found == 0) | (found == EXPECTED[3:60, 5:-5])).all()
                    results += 1
                    if array.mode != "r":
                        array[3:60, 5:-5] = EXPECTED[3:60, 5:-5]
                except AccessError as error:
                    assert error.reason == "file-truncated"
                    errors += 1
                assert time.monotonic() < end + 20
        finally:
            stop.set()
            thread.join()
        """)
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda array: array.resize((40, SHAPE[1])),
        lambda array: array.__setitem__(..., 0),
        lambda array: array.__setitem__((slice(30, 60), slice(3, None)), 0),
        lambda array: array.discard(...),
        lambda array: array.trim(),
        lambda array: array.copy(),
        lambda array: array.retile(None),
        lambda array: array.sum(),
        lambda array: list(array.blocks()),
        lambda array: array.save(array.path + ".2"),
        lambda array: np.asarray(array),
    ],
    ids=[
        "resize",
        "zeros",
        "some",
        "discard",
        "trim",
        "copy",
        "retile",
        "sum",
        "blocks",
        "save",
        "asarray",
    ],
)
def test_what_was_cut_off_is_not_taken_for_zeros(change: Any, tmp_path: Path) -> None:
    """Functions of the whole array say that it is gone, and leave the file alone."""
    path = tmp_path / "a.npy"
    array = make(path)
    cut(path, 5 * P)
    with pytest.raises(AccessError, match="past the end of its file"):
        change(array)
    assert path.stat().st_size == DISK_PAGE + 5 * P
    assert [one.name for one in tmp_path.iterdir()] == ["a.npy"]


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_damage(mode: str, tmp_path: Path) -> None:
    """After a window met the cut, boxes beside it are read, and those of it say why not."""
    path = tmp_path / "a.npy"
    array = make(path, mode)
    window = array.tile(1, 1)
    cut(path, 5 * P)
    assert not window.any()
    (damage,) = array.buffer.damage
    assert (damage.reason, damage.offset) == ("file-truncated", array.offset + 5 * P)
    assert (array[:16] == expected()[:16]).all()
    assert (array[16:32, :WIDTH] == 5).all()
    for box in ((slice(16, 32), slice(0, WIDTH + 1)), ...):
        with pytest.raises(AccessError) as caught:
            array[box]
        assert caught.value.reason == "file-truncated"
        assert caught.value.offset == array.offset + 5 * P
    if mode != "r":
        array[:16, :] = 9
        with pytest.raises(AccessError, match="file"):
            array[20, WIDTH : 2 * WIDTH] = 9
    del window


# Disks that fail, and full ones


def test_a_disk_that_cannot_read(misbehaving: Any) -> None:
    """A box says which byte could not be read; others are read, and a window shows zeros."""
    shape = (32, SHAPE[1])
    path = misbehaving.folder / "broken"
    with sparsearray.open(path, dtype="u1", shape=shape, tiles=TILES) as array:
        assert (array[:16] == expected()[:16]).all()
        assert (array[16:, 2 * WIDTH :] == expected()[16:32, 2 * WIDTH :]).all()
        with pytest.raises(AccessError) as caught:
            array[...]
        found = caught.value
        assert (found.reason, found.errno) == ("io-error", errno.EIO)
        assert found.offset == array.offset + 5 * P
        assert found.transferred == 5 * P
        with pytest.raises(AccessError, match="broken"):
            array[16:32:5, WIDTH + 7]
        window = array.tile(1, 1)
        assert not window.any()
        assert array.buffer.damage[0].reason == "io-error"
        del window


@pytest.mark.usefixtures("told_room")
@pytest.mark.parametrize("where", WHERE)
def test_full_disk(where: str, small_disk: Path, run_ok: Callable[..., str]) -> None:
    """A box that has no room is an error; what was stored before stays, and what was moved is in the file."""
    path = str(small_disk / "a.npy")
    run_ok(
        script(f"""
        shape = (2 * SHAPE[0], SHAPE[1])

        def work():
            array = sparsearray.open({path!r}, "w+", dtype="u1", shape=shape, tiles=TILES)
            array[:20, WIDTH : WIDTH + 9] = 7
            before = array[:20, WIDTH : WIDTH + 9]
            error = failure(array.__setitem__, (slice(20, None), slice(None)), np.full(SHAPE[1], 9, "u1"))
            assert (error.reason, error.operation, error.errno) == ("no-space", "write", errno.ENOSPC)
            assert error.filename == {path!r}
            assert 0 < error.transferred < 108 * SHAPE[1]
            assert (array[:20, WIDTH : WIDTH + 9] == before).all()
            records = np.load({path!r})["tile"]
            assert (records == 9).sum() == error.transferred
            assert (records[0, 1][:, :9] == 7).all()
            array.discard((slice(20, None),))
            array[20:30] = 8
            assert array.sum() == 20 * 9 * 7 + 10 * SHAPE[1] * 8

        RUN[{where!r}](work)
        """)
    )


@pytest.mark.usefixtures("told_room")
@pytest.mark.parametrize(
    "call",
    [
        "array[...] = 1",
        "array[:, 5] = np.ones(640, 'u1')",
        "array.oindex[[*range(640)], ::-3] = 1",
        "array[np.arange(640), np.arange(640) % 256] = 1",
        "array[np.ones(array.shape, bool)] = 1",
        "for i in range(640): array[i, 3] = 1",
        "array[...] = memory",
        "np.multiply(memory, 2, out=array)",
        "np.copyto(array, memory)",
    ],
)
def test_anything_on_a_full_disk(call: str, small_disk: Path, run_ok: Callable[..., str]) -> None:
    """Each way to set items is an exception that names the file; given back, there is room again."""
    path = str(small_disk / "a.npy")
    run_ok(
        script(f"""
        shape = (640, 256)
        memory = sparsearray.zeros(shape, "u1")
        memory[...] = 1
        array = sparsearray.open({path!r}, "w+", dtype="u1", shape=shape, tiles=TILES)
        try:
            {call}
        except AccessError as error:
            assert (error.reason, error.filename) == ("no-space", {path!r}), error
        else:
            raise AssertionError("no error")
        assert array.sum() > 0
        array.discard(...)
        array[3] = 7
        assert array.sum() == 7 * 256
        """)
    )


@pytest.mark.usefixtures("told_room")
def test_append_on_a_full_disk(small_disk: Path) -> None:
    """Rows that have no room are undone: the array and the file are as before."""
    path = small_disk / "a.npy"
    array = sparsearray.open(
        path, "w+", dtype="u1", shape=(9, 256), tiles=TILES, maxshape=(None, 256)
    )
    array[...] = 5
    before = path.read_bytes()
    with pytest.raises(AccessError, match="append undone") as caught:
        array.append(np.full((640, 256), 6, "u1"))
    assert caught.value.transferred == 0
    assert array.shape == (9, 256)
    assert (array[...] == 5).all()
    assert path.stat().st_size == len(before)
    assert (np.load(path)["tile"][0, 0][:9] == 5).all()
    array.append(np.full((20, 256), 6, "u1"))
    assert array.sum() == (9 * 5 + 20 * 6) * 256


# Modes


@pytest.mark.parametrize(
    "change",
    [
        lambda array: array.__setitem__((3, 4), 1),
        lambda array: array.__setitem__(..., 1),
        lambda array: array.__setitem__(([1, 2], [3, 4]), 1),
        lambda array: array.oindex.__setitem__(([1, 2], [3, 4]), 1),
        lambda array: array.__setitem__(..., array.copy()),
        lambda array: array.discard(...),
        lambda array: array.trim(),
        lambda array: array.resize((3, SHAPE[1])),
        lambda array: array.append(np.ones((3, SHAPE[1]), "u1")),
        lambda array: np.multiply(array, 2, out=array),
        lambda array: array.tile(0, 0).__setitem__(..., 1),
    ],
    ids=[
        "item",
        "box",
        "pairs",
        "outer",
        "array",
        "discard",
        "trim",
        "resize",
        "append",
        "out",
        "tile",
    ],
)
def test_read_only(change: Any, tmp_path: Path) -> None:
    """Mode 'r' refuses every change with ValueError, as numpy does."""
    path = tmp_path / "a.npy"
    array = make(path, "r")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"read-only|not writeable"):
        change(array)
    assert (array[...] == expected()).all()
    assert path.read_bytes() == before


def test_copy_on_write(tmp_path: Path) -> None:
    """Mode 'c' takes changes of all kinds, and none of them reaches the file."""
    path = tmp_path / "a.npy"
    array, dense = make(path, "c"), expected()
    before = path.read_bytes()
    array[3:40, 5:-5] = dense[3:40, 5:-5] = 88
    array[50:, :3] = dense[50:, :3] = 0
    array.oindex[[1, 2], ::3] = 9
    dense[1:3, ::3] = 9
    array.tile(3, 3)[...] = dense[48:, 3 * WIDTH :] = 4
    array.discard((slice(0, 32), slice(0, WIDTH)))
    dense[:32, :WIDTH] = 0
    array.trim()
    assert (array[...] == dense).all()
    array.flush()
    assert path.read_bytes() == before
    array.close()
    assert path.read_bytes() == before


def test_closed(tmp_path: Path) -> None:
    """After the end everything that needs the tiles says that they are gone."""
    path = tmp_path / "a.npy"
    calls: list[Callable[[Any], Any]] = [
        lambda array: array[3, 4],
        lambda array: array[...],
        lambda array: array[[1], [2]],
        lambda array: array.oindex[[1], [2]],
        lambda array: array.__setitem__((3, 4), 1),
        lambda array: array.__setitem__(..., 1),
        lambda array: array.__setitem__(..., 0),
        lambda array: array.tile(0, 0),
        lambda array: array.extents(),
        lambda array: list(array.blocks()),
        lambda array: array.sum(),
        lambda array: array.discard(...),
        lambda array: array.trim(),
        lambda array: array.copy(),
        lambda array: array.resize((3, SHAPE[1])),
        lambda array: array.append(np.ones((3, SHAPE[1]), "u1")),
        lambda array: array.save(tmp_path / "b.npy"),
        lambda array: array.flush(),
    ]
    for array in (make(path), sparsearray.zeros(SHAPE, "u1", tiles=TILES, maxshape=(99, SHAPE[1]))):
        array.close()
        array.close()
        assert array.closed
        assert "closed" in repr(array)
        for call in calls:
            with pytest.raises(ClosedError):
                call(array)
    assert (np.load(path)["tile"][3, 3] == 16).all()
    assert not (tmp_path / "b.npy").exists()


def test_a_window_keeps_it_open(tmp_path: Path) -> None:
    """Close is refused while a window of a tile lives, and says so; boxes are copies and do not matter."""
    array = make(tmp_path / "a.npy")
    box, window = array[:40, :40], array.tile(1, 2)
    with pytest.raises(BufferError, match="window"):
        array.close()
    window[0, 0] = 50
    assert array[16, 2 * WIDTH] == 50
    del window
    array.close()
    assert (box == expected()[:40, :40]).all()


# Others, and the disk


def test_another_process(tmp_path: Path, run_ok: Callable[..., str]) -> None:
    """Two processes that write in one file see what the other wrote, at once."""
    array = make(tmp_path / "a.npy")
    run_ok(
        script("""
        with sparsearray.open("a.npy", "r+") as array:
            assert (array[...] == EXPECTED).all()
            array[10:20, 250:260] = 99
            array.discard((slice(48, 64), slice(None)))
        """)
    )
    dense = expected()
    dense[10:20, 250:260] = 99
    dense[48:] = 0
    assert (array[...] == dense).all()
    reader = sparsearray.open(tmp_path / "a.npy", "r")
    array[1, 1] = 55
    assert reader[1, 1] == 55


def test_numpy_reads_the_tiles(tmp_path: Path) -> None:
    """To numpy it is an array of records, one for each tile."""
    make(tmp_path / "a.npy").close()
    for how in (None, "r"):
        found = np.load(tmp_path / "a.npy", mmap_mode=how)
        assert found.shape == (4, 4)
        assert (found["tile"][2, 3] == 12).all()
        assert found["tile"].shape == (4, 4, *TILES)


def test_holes_stay_holes(tmp_path: Path) -> None:
    """On disk a box costs the tiles that it lies in, and saved zeros cost nothing."""
    path, saved = tmp_path / "a.npy", tmp_path / "b.npy"
    array = sparsearray.open(path, "w+", dtype="u1", shape=(1 << 12, 1 << 20), tiles=TILES)
    array[100:110, 1000:1020] = 3
    array.flush()
    assert path.stat().st_size > 1 << 32
    header = DISK_PAGE
    assert stored(path) <= header + 2 * P
    assert array.sum() == 600
    assert not array[1000:2000, 5000:6000].any()
    assert stored(path) <= header + 2 * P
    array[0:16, 0:WIDTH] = np.zeros(TILES, "u1")
    array.save(saved)
    assert stored(saved) <= header + 2 * P
    with sparsearray.open(saved) as found:
        assert found.sum() == 600


@pytest.mark.parametrize("tiles", [None, 3, TILES])
@pytest.mark.parametrize("count", [5, P - 1, P + 700])
@pytest.mark.usefixtures("told_pages")
def test_trim_of_the_last_page(tiles: Any, count: int, tmp_path: Path) -> None:
    """Zeros are given back of a file that ends inside a page, but for that page."""
    path = tmp_path / "a.npy"
    array = sparsearray.open(path, "w+", dtype="u1", shape=(count, 1), tiles=tiles)
    array[...] = np.zeros((count, 1), "u1")
    array.flush()
    size = path.stat().st_size
    assert array.trim() >= 0
    array.flush()
    assert path.stat().st_size == size
    assert stored(path) <= 2 * DISK_PAGE
    array[...] = 1
    assert array.sum() == count


@pytest.mark.parametrize("how", ["trim", "discard"])
@pytest.mark.parametrize("tiles", [None, 70, P])
@pytest.mark.usefixtures("told_pages")
def test_zeros_of_a_copy_on_write_array(how: str, tiles: Any, tmp_path: Path) -> None:
    """Copies of zeros are given back over holes of the file; over its data they stay, as zeros."""
    path = tmp_path / "a.npy"
    with sparsearray.open(path, "w+", dtype="u1", shape=64 * P, tiles=tiles) as array:
        array[: 2 * P] = 1
    before = path.read_bytes()
    array = sparsearray.open(path, "c")
    stored_before = array.nbytes_stored
    array[32 * P :] = 2
    array[32 * P :] = np.zeros(32 * P, "u1")
    array[:P] = np.zeros(P, "u1")
    assert array.nbytes_stored >= stored_before + 30 * P
    if how == "trim":
        assert array.trim() >= 30 * P
    else:
        array.discard(slice(32 * P, None))
        array.discard(slice(0, P))
    assert array.nbytes_stored <= stored_before + 2 * P
    assert array.sum() == P
    assert not array[:P].any()
    assert path.read_bytes() == before
    array.close()
