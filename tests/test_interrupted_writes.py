"""Writing arrays to files, cut off by a disk or by the end of the process: old or new, but whole."""

import errno
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

import sparsearray
from sparsearray import AccessError

from .array_files import DISK_PAGE, MODES, assert_same, killed_after, names, open_files
from .failing_writes import FAULT_IDS, FAULTS, Faults

P = mmap.PAGESIZE


# Failing disks


def sources() -> dict[str, Any]:
    """Make arrays that take several writes."""
    dense = np.zeros(5 * DISK_PAGE, "u1")
    dense[::DISK_PAGE] = 1
    dense[DISK_PAGE : 2 * DISK_PAGE] = 0
    sparse = sparsearray.zeros(len(dense), "u1")
    sparse[::DISK_PAGE] = dense[::DISK_PAGE]
    return {"ndarray": dense, "sparse": sparse, "fortran": np.ones((3, 4), order="F")}


@pytest.mark.parametrize(("error", "after"), FAULTS, ids=FAULT_IDS)
@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("kind", ["ndarray", "sparse", "fortran", "w+"])
def test_save_fails_at_any_call(
    kind: str,
    old: bool,
    error: BaseException,
    after: bool,
    quick_folder: Path,
) -> None:
    """Whichever call fails: the file is the old one or the new, whole, and nothing else is there."""
    path, source = quick_folder / "a.npy", sources().get(kind)

    def work() -> None:
        if kind == "w+":
            sparsearray.open(path, "w+", shape=(3, 4)).close()
        else:
            sparsearray.save(path, source)

    work()
    new = path.read_bytes()
    count, at = open_files(), 0
    while True:
        at += 1
        path.unlink(missing_ok=True)
        if old:
            path.write_bytes(b"old")
        with Faults(at, error, after=after) as faults:
            try:
                work()
            except BaseException as caught:  # noqa: BLE001 - KeyboardInterrupt among them
                assert caught is error  # noqa: PT017
                if isinstance(error, OSError) and "replace" not in faults.calls[: at - 1]:
                    assert error.filename == str(path)
                    error.filename = None
            else:
                assert not faults.hit
        replaced = "replace" in faults.calls[: at if after else at - 1]
        found = {file.name: file.read_bytes() for file in quick_folder.iterdir()}
        assert found == ({"a.npy": new if replaced else b"old"} if old or replaced else {})
        assert open_files() == count
        if not faults.hit:
            break
    assert at > 5


@pytest.mark.parametrize(("error", "after"), FAULTS, ids=FAULT_IDS)
@pytest.mark.parametrize("made", ["ours", "foreign"])
@pytest.mark.parametrize(("old", "new"), [(600, 1700), (600, 601), (1700, 600), (600, 0), (0, 600)])
def test_resize_fails_at_any_call(
    old: int,
    new: int,
    made: str,
    error: BaseException,
    after: bool,
    quick_folder: Path,
) -> None:
    """Whichever call fails: array and file agree, and are as before, or cut off to the end."""
    path, expected = quick_folder / "a.npy", np.arange(1.0, old + 1.0)
    shorter = expected[:new]
    at = 0
    while True:
        at += 1
        (np.save if made == "foreign" else sparsearray.save)(path, expected)
        array = sparsearray.open(path, "r+", maxshape=(None,))
        before, count = path.read_bytes(), open_files()
        with Faults(at, error, after=after) as faults:
            try:
                array.resize(new)
            except BaseException as caught:  # noqa: BLE001 - KeyboardInterrupt among them
                assert caught is error  # noqa: PT017
                if isinstance(error, OSError):
                    assert error.filename == str(path)
                    error.filename = None
        if not faults.hit:
            assert array.shape == (new,)
            array.close()  # the errors, which stay, have frames that have it
            break
        assert_same(array, np.load(path))
        if path.read_bytes() != before:
            assert after
            assert_same(array, shorter)
        assert path.stat().st_size == len(before) - expected.nbytes + array.nbytes
        assert open_files() <= count
        # It goes on as if nothing had happened.
        array.resize(old)
        array[:] = 7
        array.resize(new)
        array.append([5])
        assert_same(np.load(path), np.array([7] * min(old, new) + [0] * max(new - old, 0) + [5.0]))
        array.close()
    assert at == 4


@pytest.mark.parametrize("length", [1, 50, 60, 62, 64, 100])
def test_header_half_written(length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header that the disk takes only in part is put back."""
    path, expected, real = tmp_path / "a.npy", np.arange(9.0), os.pwrite
    sparsearray.save(path, expected)
    array = sparsearray.open(path, "r+", maxshape=(None,))
    before, calls = path.read_bytes(), []

    def fail(fd: int, data: Any, at: int) -> int:
        calls.append(at)
        if len(calls) == 1:
            return real(fd, bytes(data)[:length], at)
        if len(calls) == 2:
            raise OSError(errno.EIO, "disk on fire")
        return real(fd, data, at)

    for count in (123_456, 3):
        calls.clear()
        monkeypatch.setattr(os, "pwrite", fail)
        with pytest.raises(OSError, match="disk on fire"):
            array.resize(count)
        monkeypatch.undo()
        assert path.read_bytes() == before
        assert_same(array, expected)


def test_short_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes a few bytes at a time gets all of them."""
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, bytes(data)[:777], at))
    array = np.arange(3000)
    sparsearray.save(tmp_path / "a.npy", array)
    with sparsearray.open(tmp_path / "a.npy", "r+", maxshape=5000) as found:
        found.append(array[:2000])
    assert_same(np.load(tmp_path / "a.npy"), np.concatenate([array, array[:2000]]))


@pytest.mark.parametrize("kind", ["ndarray", "sparse"])
@pytest.mark.parametrize("old", [True, False])
def test_full_disk(
    kind: str,
    old: bool,
    small_disk: Path,
    descriptors: Callable[[], int],
) -> None:
    """What does not fit on the disk leaves the old file and nothing else; what fits then fits."""
    path = small_disk / "a.npy"
    if old:
        sparsearray.save(path, np.arange(3))
    array: Any = np.ones(20 * P, "u1")
    if kind == "sparse":
        array = sparsearray.zeros(20 * P, "u1")
        array[...] = 1
    count = descriptors()
    with pytest.raises(OSError) as caught:
        sparsearray.save(path, array)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert descriptors() == count
    assert names(small_disk) == (["a.npy"] if old else [])
    if old:
        assert np.load(path).tolist() == [0, 1, 2]
    sparsearray.save(path, array[: 8 * P])
    assert np.load(path).sum() == 8 * P


def test_no_room_for_a_header(small_disk: Path) -> None:
    """On a disk without a page left no file is made or lost."""
    (small_disk / "a.npy").write_bytes(b"old")
    (small_disk / "fill").write_bytes(b"")
    with (small_disk / "fill").open("wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(P))
    for name in ("a.npy", "b.npy"):
        with pytest.raises(OSError) as caught:
            sparsearray.open(small_disk / name, "w+", shape=3)
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.filename == str(small_disk / name)
    assert (small_disk / "a.npy").read_bytes() == b"old"
    assert names(small_disk) == ["a.npy", "fill"]


def test_growth_on_a_full_disk(small_disk: Path, run_ok: Callable[..., str]) -> None:
    """Rows that the disk has no room for are an error, and the rows before them stay."""
    run_ok(f"""
        import sparsearray
        array = sparsearray.open({str(small_disk / "a.npy")!r}, "w+", shape=0, maxshape=(None,))
        array.append(np.ones(P))
        array.flush()
        assert failure(array.append, np.ones(20 * P)).errno == errno.ENOSPC
        assert np.load(array.path).tolist() == [1] * P
    """)


def test_file_size_limit(run_ok: Callable[..., str]) -> None:
    """A file larger than may be is refused: nothing is made, nothing is changed."""
    run_ok("""
        import resource, sparsearray
        array = sparsearray.open("a.npy", "w+", shape=100, maxshape=(None,))
        array[...] = 5
        before = os.stat("a.npy").st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        calls = {
            "grow": lambda: array.resize(1 << 20),
            "append": lambda: array.append(np.ones(1 << 20)),
            "save": lambda: sparsearray.save("a.npy", np.ones(1 << 20)),
            "new": lambda: sparsearray.open("b.npy", "w+", shape=1 << 20),
        }
        for name, call in calls.items():
            error = failure(call)
            assert error.errno == errno.EFBIG, (name, error)
            assert error.filename.endswith(".npy"), error.filename
            assert os.listdir() == ["a.npy"]
            assert os.stat("a.npy").st_size == before
            assert np.load("a.npy").tolist() == np.asarray(array).tolist() == [5] * 100
        array.append([6])
        assert np.load("a.npy").tolist() == [5] * 100 + [6]
    """)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("keep", [0, DISK_PAGE, DISK_PAGE + 100, 10 * P])
def test_source_cut_short(mode: Any, keep: int, tmp_path: Path) -> None:
    """If the source's file became shorter, saving says so, and no half of a file is left."""
    path = tmp_path / "a.npy"
    sparsearray.save(path, np.ones(20 * P, "u1"))
    array = sparsearray.open(path, mode)
    os.truncate(path, keep)
    with pytest.raises(AccessError) as caught:
        array.save(tmp_path / "b.npy")
    assert caught.value.reason == "file-truncated"
    assert caught.value.filename == str(path)
    assert names(tmp_path) == ["a.npy"]


# Crashes

CRASH = """
    import sparsearray
    OPERATIONS = ("ftruncate", "pwrite", "fdatasync", "fsync", "replace", "open", "fchmod")

    def crash_at(number, after):
        calls = []
        def wrap(name):
            real = getattr(os, name)
            def call(*arguments, **more):
                calls.append(name)
                hit = len(calls) == number
                if hit and not after:
                    os.kill(os.getpid(), signal.SIGKILL)
                result = real(*arguments, **more)
                if hit:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result
            setattr(os, name, call)
        for name in OPERATIONS:
            wrap(name)

    def crashes(prepare, work):
        # Kill a child at each of its system calls; yield after each.
        for after in (False, True):
            number, killed = 0, True
            while killed:
                number += 1
                for name in os.listdir():
                    os.unlink(name)
                prepare()
                child = os.fork()
                if child == 0:
                    status = 1
                    try:
                        crash_at(number, after)
                        work()
                        status = 0
                    finally:
                        os._exit(status)
                status = os.waitpid(child, 0)[1]
                killed = os.WIFSIGNALED(status)
                assert killed or status == 0
                yield number, killed
            assert number > 3, number
"""


@pytest.mark.usefixtures("told_pages")
def test_crash_in_save(run_ok: Callable[..., str]) -> None:
    """A process killed at any system call of a save leaves the old file or the new, whole."""
    run_ok(
        dedent(CRASH)
        + dedent("""
        sparse = sparsearray.zeros(1 << 30)
        sparse[[5, 1 << 20, 1 << 29]] = 1
        dense = np.arange(3000.0)
        old = np.arange(7)
        seen = set()
        for new in (dense, sparse):
            for at, killed in crashes(lambda: np.save("a.npy", old), lambda: sparsearray.save("a.npy", new)):
                found = np.load("a.npy", mmap_mode="r")
                assert found.shape in (old.shape, new.shape)
                if found.shape == old.shape:
                    assert found.tolist() == old.tolist() and killed
                else:
                    assert (found[[5, 2999]] == np.asarray(new)[[5, 2999]]).all()
                    assert new is dense or found[1 << 29] == 1
                seen.add(found.shape)
        assert len(seen) == 3
        shapes = set()
        for at, killed in crashes(
            lambda: np.save("a.npy", old), lambda: sparsearray.open("a.npy", "w+", shape=(9, 9))
        ):
            shapes.add(np.load("a.npy").shape)
        assert shapes == {(7,), (9, 9)}
    """)
    )


def test_crash_in_resize(run_ok: Callable[..., str]) -> None:
    """A process killed at any system call of a change of length leaves a file that numpy reads."""
    run_ok(
        dedent(CRASH)
        + dedent("""
        for save in (np.save, sparsearray.save):
            for old, new in ((600, 1700), (600, 601), (1700, 600), (600, 0), (0, 600), (9, 1 << 20)):
                expected = np.arange(1.0, old + 1)
                seen = set()
                def work():
                    sparsearray.open("a.npy", "r+", maxshape=(None,)).resize(new)
                for at, killed in crashes(lambda: save("a.npy", expected), work):
                    found = np.load("a.npy")
                    seen.add(len(found))
                    kept = min(len(found), old)
                    assert found[:kept].tolist() == expected[:kept].tolist()
                    assert not found[kept:].any()
                    assert os.listdir() == ["a.npy"]
                    # And goes on from there: nothing of what was cut off comes back.
                    with sparsearray.open("a.npy", "r+", maxshape=(None,)) as array:
                        array.resize(len(found) + 2000)
                        assert not array[len(found):].any()
                    assert len(np.load("a.npy")) == len(found) + 2000
                assert seen == {old, new}
    """)
    )


def test_crash_in_append(run_ok: Callable[..., str]) -> None:
    """A process killed in an append leaves the old rows, or all of them: `test_append` looks closer."""
    run_ok(
        dedent(CRASH)
        + dedent("""
        old, rows = np.arange(1.0, 601), np.arange(1000.0, 3000)
        def work():
            sparsearray.open("a.npy", "r+", maxshape=(None,)).append(rows)
        for at, killed in crashes(lambda: sparsearray.save("a.npy", old), work):
            found = np.load("a.npy").tolist()
            assert found in ([*old, *rows], old.tolist())
            assert killed or len(found) == 2600
    """)
    )


def test_kill_at_any_time(tmp_path: Path) -> None:
    """A writer killed at any moment leaves a file that numpy reads."""
    script = """
        import sys
        import numpy as np, sparsearray
        array = sparsearray.open("a.npy", "w+", shape=0, dtype="u4", maxshape=(None,))
        print("ready", flush=True)
        while True:
            for count in (5, 3000, 1, 100_000, 999, 1024, 1025, 0):
                array.resize(count)
    """
    for i in range(4):
        killed_after(0.03 + i * 0.017, script, tmp_path)
        assert len(np.load(tmp_path / "a.npy")) in (5, 3000, 1, 100_000, 999, 1024, 1025, 0)
        assert names(tmp_path) == ["a.npy"]


INTO_FILE = {
    "a number": "a[...] = 1",
    "rows": "a[2:30] = np.ones(P)",
    "a column": "a[:, 5] = 1",
    "items": "for i in range(64): a[i, 3] = 1",
    "a sparse array": "a[...] = m",
    "a product": "np.multiply(m, 2, out=a)",
    "a sum of itself": "a += m",
    "rounded": "np.round(m, out=a)",
    "copied": "np.copyto(a, m)",
    "reduced": "np.sum(m, axis=(), dtype='u1', out=a)",
    "backwards": "a[::-1, ::-3] = 1",
}


@pytest.mark.parametrize("call", INTO_FILE.values(), ids=INTO_FILE)
def test_assignment_on_a_full_disk(
    call: str, small_disk: Path, run_ok: Callable[..., str], linux_core: bool
) -> None:
    """What is set in a file on a full disk is an exception that names the file, and not the end."""
    path = str(small_disk / "a.npy")
    found = run_ok(f"""
        import sparsearray
        m = sparsearray.zeros((64, P), "u1")
        m[...] = 1
        a = sparsearray.open({path!r}, "w+", dtype="u1", shape=(64, P))
        try:
            {call}
        except AccessError as error:
            print(error.reason, {path!r} in str(error), error.transferred)
        if {linux_core}:  # there alone, room is given back
            a.discard(...)
            a[3] = 7
            assert a.sum() == 7 * P
    """)
    reasons = ["no-space"] if linux_core else ["no-space", "io-error"]
    assert found.rstrip() in [f"{reason} True 0" for reason in reasons]
