"""`sparsearray trim`: pages of zeros become holes, in place, and nothing that is read changes."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

import sparsearray
from sparsearray._digging import dig_holes
from sparsearray.cli import main
from sparsearray.cli.trim import trim_file

from .array_files import stored
from .command_line import PAGE, Layout, filled_pages, layouts, pages_of, run, run_interrupted
from .stitched_files import new_folder


@pytest.fixture(autouse=True)
def _holes_in_files(linux_core: bool) -> None:
    if not linux_core:
        pytest.skip("only Linux's core makes holes in files")


@settings(deadline=None, max_examples=60)
@given(layout=layouts())
def test_pages_of_zeros_become_holes(layout: Layout, memory_folder: Path) -> None:
    """Just the pages that hold something stay, and bytes, length and times are the same."""
    with new_folder(memory_folder) as folder:
        path = folder / "a"
        content = layout.write(path)
        before, pages = path.stat(), pages_of(path)
        freed = trim_file(str(path))
        assert path.read_bytes() == content
        assert pages_of(path) == filled_pages(content)
        assert freed == len(pages - filled_pages(content)) * PAGE
        after = path.stat()
        assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)


@pytest.mark.parametrize("nbytes", [0, 1, PAGE - 1, PAGE, PAGE + 1])
@pytest.mark.parametrize("kind", ["data", "zeros", "hole"])
def test_small_files(kind: str, nbytes: int, tmp_path: Path) -> None:
    """Nothing, a byte, and about a page, of each kind: the last page too is one."""
    path = tmp_path / "a"
    content = Layout([(kind, nbytes)]).write(path)
    pages = -(-nbytes // PAGE)
    assert trim_file(str(path)) == (pages * PAGE if kind == "zeros" else 0)
    assert path.read_bytes() == content
    assert stored(path) == (pages * PAGE if kind == "data" else 0)


def test_it_says_what_was_given_back(tmp_path: Path) -> None:
    """On a line, in words and in bytes; a dry run changes nothing, and --quiet says nothing."""
    path = tmp_path / "a"
    Layout([("zeros", 100 * PAGE), ("data", PAGE)]).write(path)
    before = stored(path)
    done = run("trim", "--dry-run", path)
    assert done.stdout == f"{path}: 400 KiB in pages of zeros (0x64000 (409,600) bytes)\n"
    assert stored(path) == before
    done = run("trim", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{path}: 400 KiB given back (0x64000 (409,600) bytes)\n"
    assert stored(path) == before - 100 * PAGE
    assert run("trim", path).stdout == f"{path}: 0 bytes given back\n"
    assert run("trim", "-q", path).stdout == ""


def test_a_dry_run_needs_no_right_to_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It opens the file to read it, and nobody is kept out of it."""
    path, real = tmp_path / "a", os.open
    Layout([("zeros", PAGE)]).write(path)

    def refuse(name: str, flags: int, *more: int, **options: int) -> int:
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
        return real(name, flags, *more, **options)

    monkeypatch.setattr(os, "open", refuse)
    with path.open("rb"):
        assert main(["trim", "--dry-run", str(path)]) == 0
    assert main(["trim", str(path)]) == 1
    assert capsys.readouterr().err == f"sparsearray: error: {path}: Permission denied\n"


def test_arrays_are_files_too(tmp_path: Path) -> None:
    """Zeros that plain numpy wrote go, and the array is the same."""
    path, array = tmp_path / "a.npy", np.zeros((512, 1024))
    array[17, 5] = -0.0
    np.save(path, array)
    before = stored(path)
    assert main(["trim", str(path)]) == 0
    assert stored(path) <= before - (array.nbytes - 3 * PAGE)
    assert np.load(path).tobytes() == array.tobytes()
    with sparsearray.open(path) as found:
        assert found.nbytes_stored <= 3 * PAGE


def test_reserved_room_stays(tmp_path: Path) -> None:
    """What was never written is a hole already, for which there is room."""
    path = tmp_path / "a"
    Layout([("data", PAGE)]).write(path)
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, 100 * PAGE)
        os.fsync(file.fileno())
    if len(pages_of(path)) != 1:
        pytest.skip("reserved room counts as data here")
    before = stored(path)
    assert trim_file(str(path)) == 0
    assert stored(path) == before


# Nobody may write meanwhile


@pytest.mark.parametrize("mode", ["rb", "r+b"])
def test_a_file_that_somebody_has_open_is_refused(mode: str, tmp_path: Path) -> None:
    """To read or to write; with --force it is trimmed all the same."""
    path = tmp_path / "a"
    Layout([("zeros", 10 * PAGE)]).write(path)
    with path.open(mode):
        done = run("trim", path)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            f"sparsearray: error: {path}: somebody else has it open, "
            "so that it may be written meanwhile\n"
        )
        assert stored(path) == 10 * PAGE
        os.utime(path, ns=(10**9, 2 * 10**9))
        assert run("trim", "--force", path).returncode == 0
        assert stored(path) == 0
        assert path.stat().st_mtime_ns == 2 * 10**9


def test_a_file_that_somebody_has_mapped_is_refused(tmp_path: Path) -> None:
    """Without a descriptor of it: an array is one whose writes nobody would see coming."""
    path = tmp_path / "a.npy"
    np.save(path, np.zeros(10 * PAGE))
    mapped = np.load(path, mmap_mode="r+")
    with pytest.raises(OSError) as caught:
        trim_file(str(path))
    assert caught.value.errno == errno.EAGAIN
    del mapped
    assert trim_file(str(path)) > 0


def wait_until(true: Callable[[], bool], seconds: float = 30) -> None:
    """Ask again and again."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.001)


def test_who_wants_to_open_it_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until trim, which stops where it is, says so; and what is written then is not lost."""
    path = tmp_path / "a"
    content = Layout([("zeros", 80 << 20)]).write(path)
    opened: list[float] = []

    def open_it() -> None:
        code = f"import os; fd = os.open({str(path)!r}, os.O_RDWR); os.pwrite(fd, b'x', 5000)"
        opened.append(subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode)

    other = threading.Thread(target=open_it)
    seen: list[str] = []

    def dig(fd: int, nbytes: int, done, **more: bool) -> int:
        def later(read: int) -> None:
            if not seen:
                other.start()
                wait_until(lambda: fcntl.fcntl(fd, fcntl.F_GETLEASE) != fcntl.F_WRLCK)
                seen.append("waiting")
                assert not opened
            done(read)

        return dig_holes(fd, nbytes, later, **more)

    monkeypatch.setattr("sparsearray.cli.trim.dig_holes", dig)
    with pytest.raises(OSError, match="somebody wants to open it") as caught:
        trim_file(str(path))
    other.join(30)
    assert (caught.value.errno, caught.value.filename) == (errno.EBUSY, str(path))
    assert (seen, opened) == (["waiting"], [0])
    assert 0 < stored(path) < 80 << 20
    assert path.read_bytes() == content[:5000] + b"x" + content[5001:]


def test_who_only_wants_it_at_the_end_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all is done there is nothing to run again for."""
    path = tmp_path / "a"
    Layout([("zeros", 10 * PAGE)]).write(path)
    held = sys.modules["sparsearray.cli.trim"].held_alone

    class Wanted:
        def __init__(self, fd: int, name: str) -> None:
            self.real = held(fd, name)

        def __enter__(self):
            self.real.__enter__()
            return lambda: False

        def __exit__(self, *error: object) -> None:
            self.real.__exit__(*error)

    monkeypatch.setattr("sparsearray.cli.trim.held_alone", Wanted)
    assert trim_file(str(path)) == 10 * PAGE


def test_a_file_system_that_keeps_nobody_out_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Network file systems have no leases: an error, and not a risk."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    path = tmp_path / "a"
    Layout([("zeros", PAGE)]).write(path)
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    assert main(["trim", str(path)]) == 1
    assert capsys.readouterr().err == (
        f"sparsearray: error: {path}: its file system cannot keep others from opening it, "
        "so that it may be written meanwhile\n"
    )
    assert stored(path) == PAGE


# What goes wrong


def test_a_file_system_without_holes_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the call is not there, as on ramfs: one line, and the file as it was."""
    folder = tmp_path / "plain"
    folder.mkdir()
    command = ["mount", "-t", "ramfs", "plain", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        content = Layout([("zeros", 10 * PAGE), ("data", PAGE)]).write(folder / "a")
        assert main(["trim", str(folder / "a")]) == 1
        assert (folder / "a").read_bytes() == content
    finally:
        subprocess.run(["umount", "-l", folder], check=False)  # noqa: S607
    text = "the file system, or the system, cannot make holes in a file"
    assert capsys.readouterr().err == f"sparsearray: error: {folder / 'a'}: {text}\n"


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """Nothing there, a folder, and a pipe that is not waited for."""
    os.mkfifo(tmp_path / "fifo")
    for name, text in [
        ("missing", "No such file or directory"),
        ("", "Is a directory"),
        ("fifo", "Not a regular file"),
    ]:
        done = run("trim", f"{tmp_path}/{name}")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"sparsearray: error: {tmp_path}/{name}: {text}\n"


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_an_interrupted_trim_leaves_the_file_whole(
    number: signal.Signals, status: int, tmp_path: Path
) -> None:
    """Some holes are made, and nothing else has changed."""
    path = tmp_path / "a"
    content = Layout([("zeros", 1 << 20), ("data", 1 << 20)] * 128).write(path)
    before = stored(path)
    done = run_interrupted(number, "trim", path)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")
    assert stored(path) < before
    assert path.read_bytes() == content


def test_a_progress_bar_where_asked_for(tmp_path: Path) -> None:
    """In bytes of what is read, holes not counted."""
    pytest.importorskip("tqdm", reason="of the extra progress")
    path = tmp_path / "a"
    Layout([("zeros", 10 * PAGE), ("hole", 100 * PAGE), ("data", 90 * PAGE)]).write(path)
    shown = run("trim", "--progress", path)
    assert "trim: 100%" in shown.stderr
    assert "400k/400k" in shown.stderr


def test_no_descriptor_stays_open(tmp_path: Path, descriptors) -> None:
    """After a trim, and after one that was refused."""
    path = tmp_path / "a"
    Layout([("zeros", PAGE)]).write(path)
    before = descriptors()
    trim_file(str(path))
    with path.open(), pytest.raises(OSError):
        trim_file(str(path))
    assert descriptors() == before
