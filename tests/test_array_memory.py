"""What arrays cost: huge pages where they are filled, and no more of a file than is looked at."""

import mmap
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sparsearray
from sparsearray import AccessError, SparseArray

P = mmap.PAGESIZE
MIB = 1 << 20
THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")

pytestmark = pytest.mark.skipif(not THP.exists(), reason="memory is told of by Linux")


def huge(array: SparseArray) -> int:
    """Add up the huge pages of an array, in bytes."""
    start, total, inside = array.buffer.address, 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            low = int(found[1], 16)
            inside = start <= low < start + array.buffer.reserved
        elif inside and line.startswith("AnonHugePages:"):
            total += int(line.split()[1]) << 10
    return total


def mappings(array: SparseArray) -> int:
    """Count the mappings of an array."""
    start, stop = array.buffer.address, array.buffer.address + array.buffer.reserved
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sum(start <= int(line.split("-")[0], 16) < stop for line in lines)


def resident_files() -> int:
    """Bytes of files that this process has in memory."""
    found = re.search(r"RssFile:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) << 10


@pytest.mark.usefixtures("told_pages")
@pytest.mark.skipif("[never]" in (THP.read_text() if THP.exists() else ""), reason="none to be had")
@pytest.mark.parametrize(
    "make",
    [
        lambda array: array * 2,
        lambda array: array.copy(),
        lambda array: array.astype("f4"),
        np.round,
    ],
    ids=["multiply", "copy", "astype", "round"],
)
def test_runs_are_filled_with_huge_pages(make) -> None:
    """Where 2 MiB and more are written whole; the mappings are as before, and so is what is told."""
    array = sparsearray.zeros((1 << 20, 1 << 10))
    part = np.arange(1 << 20, dtype=float).reshape(1 << 10, 1 << 10)
    array[5000:6024] = part
    assert huge(array) >= 4 * MIB
    assert mappings(array) == 1
    array[9, 3] = 1
    made = make(array)
    assert huge(made) >= made.itemsize * MIB // 2
    assert mappings(made) == 1
    assert np.array_equal(made[5000:6024] / made[5000, 1], part)
    assert made.nbytes_stored == made.itemsize * MIB + P


@pytest.mark.usefixtures("told_pages")
def test_scattered_items_take_base_pages() -> None:
    """Even where the system puts huge pages wherever it can: 20,000 items are 80 MB, not 40 GB."""
    array = sparsearray.zeros(1 << 37)
    places = np.random.default_rng(3).choice(1 << 26, 20_000, replace=False) * 2048
    for place in places.tolist():
        array[place] = 1
    made = array * 3
    assert huge(array) == huge(made) == 0
    assert made.nbytes_stored == array.nbytes_stored <= 20_000 * P
    assert made.sum() == 60_000


def test_little_of_a_file_is_in_memory_at_once(tmp_path, linux_core) -> None:
    """A walk through a file leaves it to the system's cache."""
    if not linux_core:
        pytest.skip("pages are left to the system on Linux only")
    path = tmp_path / "a.npy"
    np.save(path, np.ones(8 * MIB))
    with sparsearray.open(path) as array:
        before = resident_files()
        seen = [resident_files() - before for _ in array.blocks(max_nbytes=2 * MIB)]
        assert len(seen) >= 32
        assert max(seen) <= 8 * MIB
        assert array.sum() == 8 * MIB
        assert array.copy()[-1] == 1
        assert resident_files() - before <= 8 * MIB


FUNCTIONS = {
    "sum": np.sum,
    "max of columns": lambda array: np.max(array, axis=0),
    "nonzero": np.nonzero,
    "multiply": lambda array: array * 2,
    "copy": lambda array: array.copy(),
    "astype": lambda array: array.astype("f4"),
    "equal": lambda array: np.array_equal(array, array),
    "in": lambda array: 7 in array,
    "trim": lambda array: array.trim(),
}


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_file_that_was_cut_is_an_error(tmp_path, mode, function) -> None:
    """No result is made up of the part that is left."""
    if mode == "r" and function is FUNCTIONS["trim"]:
        pytest.skip("refused for another reason")
    path = tmp_path / "a.npy"
    sparsearray.save(path, np.ones((1000, 1000)))
    array = sparsearray.open(path, mode)
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(AccessError) as caught:
        function(array)
    assert caught.value.reason == "file-truncated"
    assert str(path) in str(caught.value)
    assert "file-truncated" in repr(array)
    assert str(path) in array._repr_html_()


def test_a_file_that_is_cut_between_two_blocks(tmp_path) -> None:
    """The walk ends with an error, not the process."""
    path = tmp_path / "a.npy"
    sparsearray.save(path, np.ones((1 << 20, 4)))
    with sparsearray.open(path) as array:
        walk = array.blocks(max_nbytes=MIB)
        assert next(walk)[1].sum() == MIB // 8
        os.truncate(path, 8 * MIB)
        with pytest.raises(AccessError, match="past the end of its file"):
            assert all(block.all() for _, block in walk)


def test_own_shrinking_is_no_loss(tmp_path) -> None:
    """After a resize the rest of the last page is nobody's, and no error."""
    path = tmp_path / "a.npy"
    with sparsearray.open(path, "w+", shape=(1000, 3)) as array:
        array[:] = 1
        array.resize((10, 3))
        assert array.sum() == 30
        assert len(array.buffer.extents()) == 1
        assert "file-truncated" not in array._repr_html_()


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
@pytest.mark.parametrize(
    "function",
    [
        lambda memory, file: memory + file,
        lambda memory, file: np.logical_and(memory, file),
        lambda memory, file: np.multiply(memory, file, out=memory),
        lambda memory, file: np.array_equal(memory, file),
        lambda memory, file: memory.__setitem__(..., file),
        lambda memory, file: np.vdot(memory, file),
    ],
    ids=["add", "and", "into", "equal", "assign", "vdot"],
)
def test_a_second_operand_that_was_cut_is_an_error(tmp_path, mode, function) -> None:
    """Whichever operand it is that lost its file."""
    path = tmp_path / "a.npy"
    sparsearray.save(path, np.ones((1000, 1000)))
    memory = sparsearray.zeros((1000, 1000))
    memory[...] = 1
    file = sparsearray.open(path, mode)
    os.truncate(path, 1 << 20)
    with pytest.raises(AccessError, match="past the end of its file"):
        function(memory, file)


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_a_file_that_is_cut_between_two_small_blocks(tmp_path, mode) -> None:
    """Each is asked for before it is given out."""
    path = tmp_path / "a.npy"
    with sparsearray.open(path, "w+", shape=1 << 22, dtype="u1") as array:
        for i in range(0, 1 << 22, 1 << 17):
            array[i : i + (1 << 16)] = 1
    found = sparsearray.open(path, mode)
    walk = found.blocks(max_nbytes=1 << 14)
    assert next(walk)[1].all()
    os.truncate(path, 1 << 21)
    with pytest.raises(AccessError, match="past the end of its file"):
        for _ in walk:
            pass


@pytest.mark.parametrize(
    "change",
    [
        lambda array: array.resize((10, 64)),
        lambda array: array.__setitem__(slice(30, 60), 0),
        lambda array: array.__setitem__(..., 0),
        lambda array: array.discard(...),
    ],
    ids=["resize", "rows", "all", "discard"],
)
def test_what_was_cut_off_is_not_taken_for_zeros(tmp_path, change) -> None:
    """Calls that would make zeros of it say that it is gone."""
    path = tmp_path / "a.npy"
    sparsearray.save(path, np.ones((1000, 64)))
    array = sparsearray.open(path, "r+")
    os.truncate(path, 8192)
    with pytest.raises(AccessError, match="past the end of its file"):
        change(array)
    assert path.stat().st_size == 8192


def test_failed_functions_leave_nothing_behind(
    tmp_path: Path, leaves_no_mapping: Callable[[Callable[[], object]], None]
) -> None:
    """Results that were begun go, and so do windows."""
    path = tmp_path / "a.npy"
    sparsearray.save(path, np.ones((3000, 70)))
    memory, file = sparsearray.zeros((3000, 70)), sparsearray.open(path)
    memory[...] = 1
    os.truncate(path, 8000)

    def fail() -> None:
        with pytest.raises(AccessError):
            np.multiply(memory, file)
        with pytest.raises(AccessError):
            np.multiply(memory, file, out=memory)

    fail()
    leaves_no_mapping(fail)
    memory.close()


@pytest.mark.parametrize("key", [np.s_[:, ::2], np.s_[::3], np.s_[:, 5:11]])
def test_zeros_of_an_item_on_two_pages(key: Any) -> None:
    """Where half of an item lies in a hole, setting it to zero leaves the hole."""
    array = sparsearray.zeros((70, 90), "S5")
    expected = np.zeros(array.shape, array.dtype)
    # Up to byte 28,350; the item that begins before 28,672 ends behind it.
    array[:-7] = expected[:-7] = b"abcde"
    before = array.nbytes_stored
    expected[key] = b""
    array.discard(key)
    assert array.nbytes_stored <= before
    np.testing.assert_array_equal(array[...], expected)
