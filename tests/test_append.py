"""Rows appended to arrays in memory and in files, whatever fails; and files saved while open."""

import errno
import mmap
import os
import signal
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

import sparsearray
from sparsearray import SparseArray, SparseBuffer

from .array_files import assert_same, killed_after, stored

P = mmap.PAGESIZE
DISK_PAGE = 4096  # of our headers, and of what holes on disk are made of
LARGE = 1 << 20  # items that are written in several pieces
RECORD = np.dtype([("a", "u1"), ("b", "<f8"), ("c", "<i2", (3,))], align=True)


def sparse(dense: np.ndarray, order: str = "C", folder: Path | None = None) -> SparseArray:
    """Make a sparse array: in Fortran order there are only those of files."""
    if order == "F":
        assert folder
        sparsearray.save(folder / "rows.npy", np.asfortranarray(dense))
        made = sparsearray.open(folder / "rows.npy")
        assert made.order == order
        return made
    made = sparsearray.zeros(dense.shape, dense.dtype)
    filled = np.nonzero(dense)
    made[filled] = dense[filled]
    return made


@pytest.fixture(params=["memory", "file"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., SparseArray]:
    """Call it with an ndarray: an array of these items that can grow."""

    def call(dense: np.ndarray) -> SparseArray:
        most = (None, *dense.shape[1:])
        if request.param == "memory":
            array = sparsearray.zeros(dense.shape, dense.dtype, maxshape=most)
            array[...] = dense
            return array
        sparsearray.save(tmp_path / "a.npy", dense)
        return sparsearray.open(tmp_path / "a.npy", "r+", maxshape=most)

    return call


# What is appended


def numbers(shape: Any, dtype: Any = float) -> np.ndarray:
    """Make items, none of them zero."""
    return (np.arange(np.prod(shape)) % 120 + 1).astype(dtype).reshape(shape)


def records(count: int) -> np.ndarray:
    """Make records."""
    made = np.zeros(count, RECORD)
    made["a"], made["b"], made["c"] = 5, np.arange(count), -7
    return made


HOLED = numbers((3000, 40))
HOLED[100:2900] = 0
HOLED[1500, 7] = 1
ROWS: dict[str, tuple[Any, Callable[[Path], Any], Any]] = {
    # what is there, what is appended, and the same as numpy takes it
    "plain": (numbers((5, 3)), lambda _: numbers((700, 3)), numbers((700, 3))),
    "large": (numbers((5,)), lambda _: numbers(LARGE + 77), numbers(LARGE + 77)),
    "a list": (numbers((5, 3)), lambda _: [[1, 2, 3], [4, 5, 6]], [[1, 2, 3], [4, 5, 6]]),
    "no rows": (numbers((5, 3)), lambda _: np.ones((0, 3)), np.ones((0, 3))),
    "empty rows": (np.ones((5, 0)), lambda _: np.ones((9, 0)), np.ones((9, 0))),
    "no bytes": (np.zeros(5, []), lambda _: np.zeros(9, []), np.zeros(9, [])),
    "long rows": (
        numbers((1, 2, LARGE), "u2"),
        lambda _: numbers((3, 2, LARGE), "u2"),
        numbers((3, 2, LARGE), "u2"),
    ),
    "strided": (
        numbers((5, 3)),
        lambda _: numbers((1400, 9))[::-2, ::3],
        numbers((1400, 9))[::-2, ::3],
    ),
    "Fortran": (
        numbers((5, 3)),
        lambda _: np.asfortranarray(numbers((LARGE, 3))),
        numbers((LARGE, 3)),
    ),
    "broadcast": (
        numbers((5, 3)),
        lambda _: np.broadcast_to(7.0, (LARGE, 3)),
        np.full((LARGE, 3), 7.0),
    ),
    "another dtype": (
        numbers((5, 3), "<i4"),
        lambda _: numbers((LARGE, 3), ">f8") + 0.5,
        numbers((LARGE, 3)),
    ),
    "another byte order": (numbers(5, ">u2"), lambda _: numbers(9, "<u2"), numbers(9)),
    "strings": (numbers(5), lambda _: ["1.5", "-2"], [1.5, -2]),
    "cut strings": (np.array(["ab"]), lambda _: ["xyz", ""], ["xy", ""]),
    "dates": (
        np.zeros(2, "M8[s]"),
        lambda _: np.array(["2001-01-01"], "M8[D]"),
        np.array(["2001-01-01"], "M8[s]"),
    ),
    "objects": (numbers(5), lambda _: np.array([2**70, 1], object), [2.0**70, 1]),
    "records": (records(3), lambda _: records(2000), records(2000)),
    "packed records": (
        records(3),
        lambda _: records(20).astype([(n, RECORD[n]) for n in "abc"]),
        records(20),
    ),
    "tuples": (
        records(3),
        lambda _: [(1, 2.0, [3, 4, 5])],
        np.array([(1, 2.0, [3, 4, 5])], RECORD),
    ),
    "sparse": (numbers((5, 40)), lambda _: sparse(HOLED), HOLED),
    "sparse, another dtype": (numbers((5, 40), "u1"), lambda _: sparse(HOLED), HOLED),
    "sparse, Fortran": (numbers((5, 40)), lambda folder: sparse(HOLED, "F", folder), HOLED),
    "sparse, Fortran, 3-d": (
        numbers((5, 10, 4), "i2"),
        lambda folder: sparse(HOLED.reshape(-1, 10, 4), "F", folder),
        HOLED.reshape(-1, 10, 4),
    ),
    "sparse, of no holes any more": (
        np.array(["ab"]),
        lambda _: sparsearray.zeros(2000, "u1"),
        ["0"] * 2000,
    ),
}


@pytest.mark.parametrize("kind", ROWS)
def test_rows(kind: str, make: Callable[..., SparseArray], tmp_path: Path) -> None:
    """They become what an assignment in numpy makes of them, twice, and so it is in the file."""
    before, rows, dense = ROWS[kind]
    count = len(dense)
    expected = np.zeros((len(before) + 2 * count, *before.shape[1:]), before.dtype)
    expected[: len(before)] = before
    expected[len(before) : len(before) + count] = dense
    expected[len(before) + count :] = dense
    array = make(before)
    array.append(rows(tmp_path))
    array.append(rows(tmp_path))
    assert_same(array, expected)
    if array.path is not None:
        assert_same(np.load(array.path), expected)
        assert Path(array.path).stat().st_size == DISK_PAGE + expected.nbytes


def test_between_fields(make: Callable[..., SparseArray]) -> None:
    """What lies between the fields of converted records is zeros."""
    array = make(np.zeros(0, RECORD))
    array.append(records(100).astype([(n, RECORD[n]) for n in "abc"]))
    assert not array.buffer.read_at(array.offset + 1, 7).strip(b"\0")
    assert array[:1].tobytes()[1:8] == bytes(7)


def test_itself(make: Callable[..., SparseArray]) -> None:
    """The rows that there are can be appended, as an array, a window, and a window turned round."""
    expected = numbers((300, 7))
    array = make(expected)
    for rows in (lambda a: a, lambda a: a[5:], lambda a: a[::-3]):
        array.append(rows(array))
        expected = np.concatenate([expected, rows(expected)])
        assert_same(array, expected)


@pytest.mark.usefixtures("told_pages")
def test_holes_stay(make: Callable[..., SparseArray]) -> None:
    """Rows of a sparse array, even converted ones, take room only where they hold something."""
    array = make(np.ones((1, 1 << 17), "f4"))
    before = array.nbytes_stored
    rows = sparsearray.zeros((1 << 16, 1 << 17), "i8")
    rows[500, 7] = 1
    array.append(rows)
    assert (array[501, 7], array.sum()) == (1, (1 << 17) + 1)
    assert array.nbytes_stored <= before + 2 * DISK_PAGE
    if array.path is not None:
        assert stored(Path(array.path)) <= before + 3 * DISK_PAGE


@pytest.mark.parametrize("kind", ["broadcast", "converted", "strided"])
def test_no_copy_of_all_rows(kind: str, make: Callable[..., SparseArray]) -> None:
    """Rows are converted in pieces."""
    array = make(np.zeros((0, 1 << 10)))
    rows = {
        "broadcast": lambda: np.broadcast_to(1.0, (1 << 13, 1 << 10)),
        "converted": lambda: np.ones((1 << 13, 1 << 10), "f4"),
        "strided": lambda: np.ones((1 << 13, 1 << 11))[:, ::2],
    }[kind]()
    tracemalloc.start()
    try:
        array.append(rows)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert array.nbytes == 64 << 20
    assert peak < 10 << 20


def test_no_broadcasting(make: Callable[..., SparseArray]) -> None:
    """Rows have all the axes of the array, and their lengths."""
    expected = numbers((5, 3))
    array = make(expected)
    for rows in (
        1.0,
        [1, 2, 3],
        np.ones((2, 1)),
        np.ones((1, 2, 3)),
        np.ones((0, 4)),
        sparsearray.zeros((2, 1)),
    ):
        with pytest.raises(ValueError, match=r"append: rows of shape .* do not fit"):
            array.append(rows)
    assert_same(array, expected)


def test_memory_in_fortran_order(tmp_path: Path) -> None:
    """Has no rows that could be cut off."""
    expected = np.asfortranarray(numbers((5, 3)))
    np.save(tmp_path / "f.npy", expected)
    copied = sparsearray.open(tmp_path / "f.npy").copy()
    with pytest.raises(ValueError, match="C order"):
        copied.resize((4, 3))
    assert_same(copied, expected)


# What fails


class NumberError(Exception):
    """Raised by a number."""


class Bad:
    """A number that is none."""

    def __float__(self) -> float:
        raise NumberError


def bad_rows() -> dict[str, tuple[Any, Any, type[BaseException]]]:
    """Make rows whose last item cannot be converted, of which many pieces can be."""
    late = np.full(2 * LARGE, 5.0)
    late[-1] = np.inf
    words = np.full(LARGE, "5")
    words[-1] = "x"
    holed = sparsearray.zeros(2 * LARGE)
    holed[5], holed[-1] = 5, np.nan
    return {
        "a warning": ("i4", late, RuntimeWarning),
        "a warning, sparse": ("i4", holed, RuntimeWarning),
        "a word": ("i4", words, ValueError),
        "an object": ("f8", np.array([1, Bad()], object), NumberError),
        "dates": ("f8", sparsearray.zeros(5, [("a", "f8"), ("b", "f8")]), TypeError),
    }


@pytest.mark.parametrize("rest", [0, 5, 3 * P])
@pytest.mark.parametrize("kind", bad_rows())
def test_refused_rows(kind: str, rest: int, make: Callable[..., SparseArray]) -> None:
    """Rows that cannot be converted change neither array nor file, and what follows them is zero."""
    dtype, rows, error = bad_rows()[kind]
    expected = numbers(700, dtype)
    array = make(expected)
    path = None if array.path is None else Path(array.path)
    if path is not None:
        with path.open("ab") as file:
            file.write(b"x" * rest)
        before = path.read_bytes()
    window = array[-2:]
    with pytest.raises(error):
        array.append(rows)
    assert_same(array, expected)
    assert_same(window, expected[-2:])
    if path is not None:
        found = path.read_bytes()
        assert len(found) == len(before)
        assert found[: len(before) - rest] == before[: len(before) - rest]
        assert set(found[len(before) - rest :]) <= {0, ord("x")}
    array.resize(1000)
    assert_same(array, np.concatenate([expected, np.zeros(300, dtype)]))


def test_rest_behind_the_data(tmp_path: Path) -> None:
    """What a stranger wrote behind the data does not show in the holes of new rows."""
    path = tmp_path / "a.npy"
    sparsearray.save(path, np.ones(700))
    with path.open("ab") as file:
        file.write(b"x" * 3 * P)
    rows = np.zeros(3 * P)
    rows[-1] = 3
    with sparsearray.open(path, "r+", maxshape=(None,)) as array:
        array.append(sparse(rows))
        assert_same(array, np.concatenate([np.ones(700), rows]))
    assert_same(np.load(path), np.concatenate([np.ones(700), rows]))


FULL = """
    import sparsearray
    path = {path!r}
    expected = np.arange(1.0, 701)
    dtype = {dtype!r}
    expected = expected.astype(dtype)
    sparsearray.save(path, expected)
    array = sparsearray.open(path, "r+", maxshape=(None,))
    before, window = open(path, "rb").read(), array[:]
    blocks = os.stat(path).st_blocks
    rows = np.arange(1, 20 * P + 1)
    {rows}
    for _ in range(3):
        error = failure(array.append, rows)
        assert type(error) is AccessError and isinstance(error, OSError), error
        assert (error.reason, error.errno, error.filename) == ("no-space", errno.ENOSPC, path), error
        assert path in str(error) and "undone" in str(error) and error.transferred == 0, error
        assert open(path, "rb").read() == before
        assert os.stat(path).st_blocks == blocks
        assert array.shape == expected.shape and (array[...] == expected).all()
        assert (window == expected).all()
    array.append(rows[: P])
    array.append(rows[: 5])
    more = rows[: P] if type(rows) is np.ndarray else np.asarray(rows)[: P]
    expected = np.concatenate([expected, more.astype(dtype), more[: 5].astype(dtype)])
    assert (np.load(path) == expected).all() and (array[...] == expected).all()
    array.flush()
"""


@pytest.mark.parametrize("dtype", ["<f8", ">i4", [("a", "<u2")]])
@pytest.mark.parametrize(
    "rows",
    ["", "rows = rows[::-1]", "made = sparsearray.zeros(len(rows)); made[...] = rows; rows = made"],
)
def test_full_disk(rows: str, dtype: Any, small_disk: Path, run_ok: Callable[..., str]) -> None:
    """Rows that the disk has no room for are an error that names the file, and change nothing."""
    run_ok(FULL.format(path=str(small_disk / "a.npy"), dtype=dtype, rows=rows))


def test_full_disk_in_fortran_order(
    small_disk: Path, tmp_path: Path, run_ok: Callable[..., str]
) -> None:
    """Neither do rows that have to be turned round."""
    np.save(tmp_path / "rows.npy", np.asfortranarray(numbers((2000, 300))))
    run_ok(f"""
        import sparsearray
        path = {str(small_disk / "a.npy")!r}
        array = sparsearray.open(path, "w+", shape=(0, 300), maxshape=(None, 300))
        before = open(path, "rb").read()
        error = failure(array.append, sparsearray.open("rows.npy"))
        assert (error.reason, error.errno, error.filename) == ("no-space", errno.ENOSPC, path), error
        assert open(path, "rb").read() == before
        assert array.shape == (0, 300)
    """)


class Steps:
    """Has a function called before and after each step of an append."""

    def __init__(self, call: Callable[[str, int, bool], None]) -> None:
        self.call = call
        self.names: list[str] = []

    def __enter__(self) -> Self:
        self.patch = pytest.MonkeyPatch()
        for name in ("ftruncate", "fdatasync", "pwrite"):
            self._wrap(os, name)
        for name in ("map_file", "write_at", "scatter"):
            self._wrap(SparseBuffer, name)
        return self

    def __exit__(self, *_: object) -> None:
        self.patch.undo()

    def _wrap(self, owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def wrapped(*arguments: Any, **more: Any) -> Any:
            self.names.append(name)
            step = len(self.names)
            self.call(name, step, False)
            result = real(*arguments, **more)
            self.call(name, step, True)
            return result

        self.patch.setattr(owner, name, wrapped)


OLD = np.arange(1.0, 601)
MORE = np.zeros(9000)
MORE[:10] = MORE[4000:4010] = MORE[-10:] = np.arange(1000, 1010)
KINDS: dict[str, Callable[[], Any]] = {
    "dense": lambda: MORE,
    "converted": lambda: MORE.astype(">i4"),
    "sparse": lambda: sparse(MORE),
}


def grown(path: Path, made: str) -> SparseArray:
    """Make a file of ours, or one of numpy's, and open it."""
    (np.save if made == "foreign" else sparsearray.save)(path, OLD)
    if made == "with a rest":
        with path.open("ab") as file:
            file.write(b"x" * 3 * P)
    return sparsearray.open(path, "r+", maxshape=(None,))


@pytest.mark.usefixtures("told_pages")
def test_header_comes_last(tmp_path: Path) -> None:
    """Rows are on disk before the header tells of them: not even a power cut comes between."""
    array = grown(tmp_path / "a.npy", "ours")

    def look(name: str, _: int, after: bool) -> None:
        if name != "pwrite" or not after:
            assert_same(np.load(tmp_path / "a.npy"), OLD)

    with Steps(look) as steps:
        array.append(sparse(MORE))
    assert steps.names == ["ftruncate", "map_file", *["write_at"] * 3, "fdatasync", "pwrite"]
    assert_same(np.load(tmp_path / "a.npy"), np.concatenate([OLD, MORE]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("made", ["ours", "foreign", "with a rest"])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "disk on fire"), KeyboardInterrupt()], ids=["EIO", "interrupt"]
)
def test_fails_at_any_step(
    error: BaseException, after: bool, made: str, kind: str, tmp_path: Path
) -> None:
    """Whichever step fails: array, file and header are as before, and it goes on from there."""
    path, rows = tmp_path / "a.npy", KINDS[kind]()
    at, hit = 0, True
    while hit:
        at, hit = at + 1, False
        array = grown(path, made)
        size = path.stat().st_size

        def fail(_: str, step: int, is_after: bool, at: int = at) -> None:
            if step == at and is_after is after:
                nonlocal hit
                hit = True
                raise error

        with Steps(fail):
            try:
                array.append(rows)
            except BaseException as caught:  # noqa: BLE001 - KeyboardInterrupt among them
                assert caught is error  # noqa: PT017
                if isinstance(error, OSError):
                    assert error.filename == str(path)
                    error.filename = None
        if hit:
            assert_same(array, OLD)
            assert_same(np.load(path), OLD)
            assert path.stat().st_size == size
            array.resize(len(OLD) + 1000)
            assert not array[len(OLD) :].any()
            array.resize(len(OLD))
            array.append(rows)
        assert_same(array, np.concatenate([OLD, MORE]))
        assert_same(np.load(path), np.concatenate([OLD, MORE]))
        array.close()
    assert at > 5


def dies(work: Callable[[], None]) -> bool:
    """Run it in a forked child; tell whether the child was killed."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or status == 0
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("made", ["ours", "foreign", "with a rest"])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # where other tests left threads
def test_killed_at_any_step(after: bool, made: str, kind: str, tmp_path: Path) -> None:
    """A process killed in an append leaves the old rows or all of the new ones, never a part."""
    path, rows = tmp_path / "a.npy", KINDS[kind]()
    both, at, killed, lengths = np.concatenate([OLD, MORE]), 0, True, []
    while killed:
        at += 1
        array = grown(path, made)

        def kill(_: str, step: int, is_after: bool, at: int = at) -> None:
            if step == at and is_after is after:
                os.kill(os.getpid(), signal.SIGKILL)

        def work(kill: Any = kill, array: SparseArray = array) -> None:
            with Steps(kill):
                array.append(rows)

        killed = dies(work)
        found = np.load(path)
        assert_same(found, both[: len(found)])
        assert len(found) in (len(OLD), len(both))
        lengths.append(len(found))
        # And it goes on from there: nothing of what was lost comes back.
        array.close()
        with sparsearray.open(path, "r+", maxshape=(None,)) as array:
            array.resize(len(found) + 2000)
            assert not array[len(found) :].any()
    assert lengths == sorted(lengths)
    assert lengths[-1] == len(both)
    assert at > 5


def test_killed_at_any_time(tmp_path: Path) -> None:
    """A writer killed at any moment leaves the rows of whole appends."""
    script = """
        import numpy as np, sparsearray
        array = sparsearray.open("a.npy", "w+", shape=0, maxshape=(None,))
        print("ready", flush=True)
        for i in range(1000):
            array.append(np.arange(i * 50_000, (i + 1) * 50_000) + 1)
    """
    for i in range(6):
        killed_after(0.03 + i * 0.0137, script, tmp_path)
        found = np.load(tmp_path / "a.npy")
        assert len(found) % 50_000 == 0
        assert_same(found, np.arange(1.0, len(found) + 1))


# Files that are saved over, or made anew, while they are open


@pytest.fixture(params=["its path", "a link", "a hard link"])
def name(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Make a file of five rows, and another name for it."""
    path = tmp_path / "a.npy"
    sparsearray.save(path, OLD)
    other = path if request.param == "its path" else tmp_path / "b.npy"
    if request.param == "a link":
        other.symlink_to(path)
    elif request.param == "a hard link":
        other.hardlink_to(path)
    return other


@pytest.mark.parametrize("mode", ["r+", "w+"])
def test_save_over_its_own_file(mode: Any, name: Path, tmp_path: Path) -> None:
    """A writable array would lose its file: it has `flush` for that."""
    path = tmp_path / "a.npy"
    if mode == "w+":
        path.unlink()
        array = sparsearray.open(path, "w+", shape=OLD.shape)
        array[...] = OLD
        name = path
    else:
        array = sparsearray.open(path, "r+")
    inode, files = path.stat().st_ino, sorted(tmp_path.iterdir())
    for save in (array.save, lambda name: sparsearray.save(name, array)):
        for found in (name, str(name), os.fsencode(name)):
            with pytest.raises(ValueError, match=rf"{name.name}.*{mode[0]}\+.*flush\(\)"):
                save(found)
    assert path.stat().st_ino == inode
    assert sorted(tmp_path.iterdir()) == files
    array[0] = 5
    assert np.load(path)[0] == 5


def test_save_over_a_raw_file(tmp_path: Path) -> None:
    """A raw file is its array's as well."""
    OLD.tofile(tmp_path / "raw")
    array = sparsearray.open(tmp_path / "raw", "r+", dtype=float)
    with pytest.raises(ValueError, match="flush"):
        array.save(tmp_path / "raw")
    assert (tmp_path / "raw").read_bytes() == OLD.tobytes()


@pytest.mark.parametrize("mode", ["r", "c"])
def test_save_over_a_file_that_is_read(mode: Any, name: Path, tmp_path: Path) -> None:
    """An array that writes nothing to its file keeps the old one."""
    array = sparsearray.open(tmp_path / "a.npy", mode)
    expected = OLD.copy()
    if mode == "c":
        array[0] = expected[0] = 7
    array.save(name)
    assert_same(np.load(name), expected)
    assert_same(array, expected)


def test_save_over_a_file_of_the_same_name(tmp_path: Path) -> None:
    """It is the file that counts: one that took the name of the array's is any other."""
    path = tmp_path / "a.npy"
    sparsearray.save(path, OLD)
    array = sparsearray.open(path, "r+")
    np.save(path.with_name("b.npy"), np.arange(3))
    path.with_name("b.npy").replace(path)
    array.save(path)
    assert_same(np.load(path), OLD)
    path.unlink()
    array.save(path)
    assert_same(np.load(path), OLD)


def test_made_anew_while_open(tmp_path: Path) -> None:
    """An open array keeps the file that it opened."""
    path = tmp_path / "a.npy"
    sparsearray.save(path, OLD)
    array = sparsearray.open(path, "r+", maxshape=(None,))
    with sparsearray.open(path, "w+", shape=3) as new:
        array[0] = 9
        array.append([5])
        assert_same(new, np.zeros(3))
    assert_same(array, np.concatenate([[9], OLD[1:], [5]]))
    assert_same(np.load(path), np.zeros(3))


@pytest.mark.parametrize("change", ["append", "shorten"])
def test_two_arrays_that_change_the_length(tmp_path: Path, change: str) -> None:
    """The second one finds another length in the header, and cuts nothing off."""
    path = tmp_path / "a.npy"
    sparsearray.open(path, "w+", shape=(10, 600), maxshape=(None, 600)).close()
    first = sparsearray.open(path, "r+", maxshape=(None, 600))
    second = sparsearray.open(path, "r+", maxshape=(None, 600))
    first.append(np.full((10, 600), 7.0))
    with pytest.raises(ValueError, match=r"has shape \(20, 600\) by now, and not \(10, 600\)"):
        second.append(np.ones((1, 600))) if change == "append" else second.resize((5, 600))
    assert second.shape == (10, 600)
    assert np.load(path).sum() == first.sum() == 42000
    first.append(np.ones((1, 600)))
    assert len(np.load(path)) == 21
