"""Limits of the system, of a disk and of the caller: a clear error each, and nothing is changed."""

import errno
import mmap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sparsearray
from sparsearray import SparseArray
from sparsearray._quota import spans_of_items

from .array_files import names

P = mmap.PAGESIZE

# Memory at both ends of a buffer, which whatever fails between must leave alone.
FRAME = """
import resource
buffer = SparseBuffer(1 << 30)
buffer.alloc(0, P)
buffer.write_at(0, b"first")
buffer.alloc(8 * P, P)
buffer.write_at(8 * P, b"last")
before = buffer.regions

def unharmed():
    assert buffer.regions == before, buffer.regions
    assert buffer.read_at(0, 5) == b"first"
    assert buffer.read_at(8 * P, 4) == b"last"

def usable():
    buffer.alloc(4 * P, P)
    buffer.write_at(4 * P, b"more")
    assert buffer.read_at(4 * P, 4) == b"more"
"""


def test_limit_of_addresses(run_ok: Callable[..., str]) -> None:
    """RLIMIT_AS: what is larger is refused with ENOMEM, by buffers and by arrays."""
    run_ok(f"""
        {FRAME.replace(chr(10), chr(10) + " " * 8)}
        import sparsearray
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * P
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
        error = failure(SparseBuffer, 1 << 30)
        assert error.errno == errno.ENOMEM, error
        error = failure(sparsearray.zeros, 1 << 30)
        assert isinstance(error, MemoryError) and "finds no such range of addresses" in str(error), error
        with open("data", "wb") as file:
            file.truncate(1 << 28)
        error = failure(buffer.map_file, 0, 1 << 28, "data")  # it is mapped elsewhere first
        assert error.errno == errno.ENOMEM and error.filename.endswith("data"), error
        unharmed()
        usable()
        assert SparseBuffer(1 << 20).nbytes == 1 << 20
    """)


@pytest.fixture
def strict_overcommit() -> Iterator[None]:
    """Have the system promise no more than it has."""
    mode = Path("/proc/sys/vm/overcommit_memory")
    try:
        before = mode.read_text()
        mode.write_text("2")
    except OSError as error:
        pytest.skip(f"cannot set vm.overcommit_memory: {error.strerror}")
    yield
    mode.write_text(before)


@pytest.mark.slow  # a sanitizer cannot start like this
@pytest.mark.usefixtures("strict_overcommit")
def test_strict_overcommit(run_ok: Callable[..., str]) -> None:
    """vm.overcommit_memory = 2: addresses are free, memory is refused where it is populated."""
    run_ok(f"""
        import sparsearray
        large = SparseBuffer(1 << 40)
        error = failure(large.alloc, 0, 1 << 40)
        assert error.errno == errno.ENOMEM, error
        assert large.regions == ()
        large.map_zero(0, P)
        assert large.read_at(0, P) == bytes(P)
        error = failure(sparsearray.zeros, 1 << 40)
        assert isinstance(error, (MemoryError, OSError)), error
        {FRAME.replace(chr(10), chr(10) + " " * 8)}
        unharmed()
        usable()
    """)


@pytest.mark.parametrize("device", ["/dev/null", "/dev/tty", "/proc/self/status", "/dev/full"])
def test_files_that_cannot_be_mapped(device: str, run_ok: Callable[..., str]) -> None:
    """A device is an OSError that names it."""
    if not Path(device).exists():
        pytest.skip(f"no {device} here")
    run_ok(f"""
        {FRAME.replace(chr(10), chr(10) + " " * 8)}
        count = len(os.listdir("/proc/self/fd"))
        error = failure(buffer.map_file, 0, 16 * P, {device!r})
        assert isinstance(error, (OSError, ValueError)) and {device!r} in str(error), error
        unharmed()
        assert len(os.listdir("/proc/self/fd")) == count
        usable()
    """)


# Limits of the caller


@pytest.mark.usefixtures("told_pages")
def test_max_nbytes_refuses() -> None:
    """What would store more is refused, with what is stored, and nothing is written."""
    array = sparsearray.zeros(1 << 30, max_nbytes=1 << 20)
    array[: 1 << 16] = 1
    assert array.nbytes_stored == 1 << 19
    calls: list[Callable[[], Any]] = [
        lambda: array.__setitem__(slice(None), 2),
        lambda: array.__setitem__(slice(0, 1 << 18), 2),
        lambda: array.__setitem__(slice(None, None, 1 << 19), 2),
        lambda: array.__setitem__(np.arange(0, 1 << 27, 1 << 12), 2),
    ]
    for call in calls:
        with pytest.raises(
            MemoryError, match=r"than the 512 KiB that are, and max_nbytes is 1 MiB"
        ):
            call()
    assert array.nbytes_stored == 1 << 19
    assert array.sum() == 1 << 16


@pytest.mark.usefixtures("told_pages")
def test_max_nbytes_counts_pages_once() -> None:
    """Setting again what is stored costs nothing; what is given back can be used again."""
    array = sparsearray.zeros((1 << 20, 512), max_nbytes=8 * P)
    for _ in range(50):
        array[:8] = 1
        array[3, 5:7] = 2
        array[[1, 2], 3] = 4
    with pytest.raises(MemoryError):
        array[8, 0] = 1
    array.discard(2)
    array[8, 0] = 1
    assert array.nbytes_stored == 8 * P
    array.discard(...)
    array[100:108] = 1
    assert array.nbytes_stored == 8 * P


@pytest.mark.usefixtures("told_pages")
def test_max_nbytes_and_results() -> None:
    """Results, rows and sparse values are held to it, too."""
    source = sparsearray.zeros(1 << 20)
    source[: 1 << 16] = 1
    array = sparsearray.zeros(1 << 20, max_nbytes=1 << 18)
    for call in (
        lambda: np.multiply(source, 2, out=array),
        lambda: array.__setitem__(..., source),
        lambda: np.copyto(array, source),
        lambda: np.round(source, out=array),
    ):
        with pytest.raises(MemoryError, match="max_nbytes is 256 KiB"):
            call()
    rows = sparsearray.zeros((0, 512), maxshape=(None, 512), max_nbytes=4 * P)
    for _ in range(4):
        rows.append(np.ones((1, 512)))
    with pytest.raises(MemoryError, match="4 KiB more"):
        rows.append(np.ones((1, 512)))
    assert rows.shape == (4, 512)
    rows.append(sparsearray.zeros((1000, 512)))  # nothing is stored of it
    assert (rows.shape, rows.sum()) == ((1004, 512), 4 * 512)


@pytest.mark.usefixtures("told_pages")
def test_max_nbytes_arguments() -> None:
    """None is no limit, and 0 is one."""
    assert sparsearray.zeros(5, max_nbytes=None).shape == (5,)
    array = sparsearray.zeros(5, max_nbytes=0)
    with pytest.raises(MemoryError, match="the 0 bytes that are"):
        array[1] = 1
    with pytest.raises(ValueError, match="max_nbytes -1: negative"):
        sparsearray.zeros(5, max_nbytes=-1)
    with pytest.raises(TypeError):
        sparsearray.zeros(5, max_nbytes=2.5)


@given(st.data())
def test_spans_of_items(data: st.DataObject) -> None:
    """Whatever the index, they are the bytes that it sets."""
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    axes: list[Any] = [
        data.draw(
            st.one_of(
                st.integers(-n, n - 1),
                st.lists(st.integers(-n, n - 1), min_size=1, max_size=1),
                st.lists(st.booleans(), min_size=n, max_size=n).map(np.array),
                st.slices(n),
            )
        )
        for n in shape[: data.draw(st.integers(0, len(shape)))]
    ]
    index = tuple(axes)
    if data.draw(st.booleans()):
        index = (*index, Ellipsis)
    array = np.zeros(shape, "u2")
    try:
        array[index] = 0xFFFF
    except IndexError:  # masks of different lengths
        return
    raw = np.zeros(array.nbytes, "u1")
    for start, stop in spans_of_items(
        tuple(np.asarray(part) if isinstance(part, list) else part for part in index),
        shape,
        array.strides,
        2,
    ).tolist():
        raw[start:stop] = 0xFF
    assert (raw == array.reshape(-1).view("u1")).all()


# Reserved disk space


@pytest.mark.parametrize("mode", ["w+", "r+"])
def test_reserve_takes_the_disk(mode: str, small_disk: Path) -> None:
    """What was reserved can be written, whatever else the disk then takes."""
    path, other = small_disk / "a.npy", small_disk / "other"
    if mode == "r+":
        sparsearray.open(path, "w+", shape=(6, P), dtype="u1").close()
    with sparsearray.open(
        path, mode, shape=(6, P), dtype="u1", maxshape=(20, P), reserve=True
    ) as array:
        assert path.stat().st_blocks * 512 >= 6 * P
        with other.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(bytes(P))
        array[...] = 5
        array[2] = 0
        array.trim()
        array.discard(...)
        array[...] = 7
        with pytest.raises(OSError, match="No space left") as caught:
            array.append(np.ones((3, P), "u1"))
        assert caught.value.filename == str(path)
        assert array.shape == (6, P)
        other.unlink()
        array.append(np.ones((3, P), "u1"))
        array.flush()
    assert np.load(path).sum() == 6 * P * 7 + 3 * P


@pytest.mark.parametrize("old", [True, False])
def test_reserve_on_a_full_disk(old: bool, small_disk: Path) -> None:
    """An error at once that names the file, and no file, or the old one."""
    path = small_disk / "a.npy"
    if old:
        path.write_bytes(b"old")
    with pytest.raises(OSError, match="No space left") as caught:
        sparsearray.open(path, "w+", shape=(64, P), dtype="u1", reserve=True)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert names(small_disk) == (["a.npy"] if old else [])
    if old:
        assert path.read_bytes() == b"old"
    path.unlink(missing_ok=True)
    sparsearray.open(path, "w+", shape=(64, P), dtype="u1").close()
    before = path.read_bytes()[:P], path.stat().st_size
    with pytest.raises(OSError, match="No space left") as caught:
        sparsearray.open(path, "r+", reserve=True)
    assert caught.value.filename == str(path)
    assert (path.read_bytes()[:P], path.stat().st_size) == before


@pytest.mark.parametrize("mode", ["r", "c"])
def test_reserve_needs_a_file_to_write_to(mode: Any, tmp_path: Path) -> None:
    """Other modes have nothing to reserve."""
    sparsearray.save(tmp_path / "a.npy", np.ones(3))
    with pytest.raises(ValueError, match="reserve=True is for modes 'r\\+' and 'w\\+'"):
        sparsearray.open(tmp_path / "a.npy", mode, reserve=True)


def test_reserve_raw_and_empty(tmp_path: Path) -> None:
    """A raw file is reserved as it is; of nothing there is nothing to reserve."""
    path = tmp_path / "raw"
    with path.open("wb") as file:
        file.truncate(10 * P)
    with sparsearray.open(path, "r+", dtype="u1", reserve=True) as array:
        assert isinstance(array, SparseArray)
        assert path.stat().st_blocks * 512 >= 10 * P
    with sparsearray.open(tmp_path / "a.npy", "w+", shape=(0, 3), reserve=True) as array:
        assert array.size == 0
    assert path.stat().st_size == 10 * P
