"""`sparsearray copy`: any file, with more holes than before and the same bytes, or nothing at all."""

import errno
import fcntl
import os
import pty
import re
import shutil
import signal
import stat
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from hypothesis import given, settings

from sparsearray._digging import copy_data
from sparsearray.cli import main
from sparsearray.cli.copy import copy_file

from .array_files import names, stored
from .command_line import (
    COMMAND,
    PAGE,
    Layout,
    filled_pages,
    layouts,
    pages_of,
    run,
    run_interrupted,
)
from .stitched_files import new_folder

HOLES = pytest.mark.usefixtures("_holes_of_pages")


@pytest.fixture
def _holes_of_pages(tmp_path: Path) -> None:
    """Skip where the file system has larger holes, or none."""
    path = tmp_path / "asked"
    Layout([("hole", 8 * PAGE), ("data", PAGE), ("hole", 8 * PAGE)]).write(path)
    if os.sysconf("SC_PAGESIZE") != PAGE or stored(path) != PAGE:
        pytest.skip("holes are not of single pages here")
    path.unlink()


@settings(deadline=None, max_examples=60)
@given(layout=layouts())
def test_any_file_is_copied_with_holes_for_all_zeros(layout: Layout, memory_folder: Path) -> None:
    """The bytes are the same, and just the pages that hold something are stored."""
    with new_folder(memory_folder) as folder:
        content = layout.write(folder / "source")
        copy_file(str(folder / "source"), str(folder / "copy"))
        assert (folder / "copy").read_bytes() == content
        assert pages_of(folder / "copy") == filled_pages(content)
        assert names(folder) == ["copy", "source"]


@pytest.mark.parametrize("nbytes", [0, 1, PAGE - 1, PAGE, PAGE + 1])
@pytest.mark.parametrize("kind", ["data", "zeros", "hole"])
def test_small_files(kind: str, nbytes: int, tmp_path: Path) -> None:
    """Nothing, a byte, and about a page, of each kind."""
    content = Layout([(kind, nbytes)]).write(tmp_path / "a")
    done = run("copy", tmp_path / "a", tmp_path / "b")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "b").read_bytes() == content
    assert names(tmp_path) == ["a", "b"]


@HOLES
def test_a_terabyte_of_holes(tmp_path: Path) -> None:
    """What is not there is not read: a terabyte with two pages of data takes two pages, and no time."""
    path, copy = tmp_path / "a", tmp_path / "b"
    with path.open("wb") as file:
        file.truncate(1 << 40)
        os.pwrite(file.fileno(), b"x", 1 << 39)
        os.pwrite(file.fileno(), b"y", (1 << 40) - 1)
    copy_file(str(path), str(copy))
    assert copy.stat().st_size == 1 << 40
    assert pages_of(copy) == {(1 << 39) // PAGE, (1 << 40) // PAGE - 1}
    with copy.open("rb") as file:
        assert os.pread(file.fileno(), 2, (1 << 39) - 1) == b"\0x"
        assert os.pread(file.fileno(), 2, (1 << 40) - 2) == b"\0y"


def test_progress_is_in_bytes_of_data(tmp_path: Path) -> None:
    """Holes are no work, and pieces add up to what is data."""
    layout = Layout([("data", 5 << 20), ("hole", 64 << 20), ("zeros", 20 << 20)])
    layout.write(tmp_path / "a")
    done: list[int] = []
    with (tmp_path / "a").open("rb") as source, (tmp_path / "b").open("w+b") as target:
        target.truncate(89 << 20)
        copy_data(source.fileno(), target.fileno(), 89 << 20, done.append, write_soon=False)
    assert sum(done) == 25 << 20
    assert len(done) == 2
    assert max(done) <= 17 << 20


def test_a_progress_bar_where_asked_for(tmp_path: Path) -> None:
    """On a pipe only with --progress; --quiet is quiet."""
    pytest.importorskip("tqdm", reason="of the extra progress")
    Layout([("data", 100 * PAGE)]).write(tmp_path / "a")
    assert run("copy", tmp_path / "a", tmp_path / "b").stderr == ""
    assert run("copy", "-q", tmp_path / "a", tmp_path / "b").stderr == ""
    shown = run("copy", "--progress", tmp_path / "a", tmp_path / "b").stderr
    assert "copy: " in shown
    assert "400k/400k" in shown


def test_a_progress_bar_on_a_terminal(tmp_path: Path) -> None:
    """There it is shown by itself, unless --no-progress or --quiet."""
    pytest.importorskip("tqdm", reason="of the extra progress")
    Layout([("data", 100 * PAGE)]).write(tmp_path / "a")
    for option, shows in ([], True), (["--no-progress"], False), (["--quiet"], False):
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 80))
        done = run(
            "copy", *option, tmp_path / "a", tmp_path / "b", capture_output=False, stderr=theirs
        )
        os.write(theirs, b"end")
        shown = b""
        while not shown.endswith(b"end"):
            shown += os.read(ours, 4096)
        os.close(ours)
        os.close(theirs)
        assert done.returncode == 0
        assert (b"copy:" in shown) is shows


def test_tqdm_is_named_where_it_is_missing(tmp_path: Path) -> None:
    """--progress without tqdm is one line, with the extra that brings it."""
    (tmp_path / "a").write_bytes(b"x")
    code = (
        "import sys; sys.modules['tqdm'] = None; from sparsearray.cli import main; sys.exit(main())"
    )
    command = ["-c", code, "copy", "--progress", str(tmp_path / "a"), str(tmp_path / "b")]
    done = subprocess.run(
        [sys.executable, "-P", *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("sparsearray: error: progress=True needs tqdm: pip install")
    assert "[progress]" in done.stderr
    assert done.stderr.count("\n") == 1
    assert names(tmp_path) == ["a"]


# As cp does


def test_into_a_folder(tmp_path: Path) -> None:
    """A folder gets a file of the same name."""
    (tmp_path / "a").write_bytes(b"text")
    (tmp_path / "folder").mkdir()
    assert main(["copy", str(tmp_path / "a"), str(tmp_path / "folder")]) == 0
    assert (tmp_path / "folder" / "a").read_bytes() == b"text"


def test_permissions_of_a_new_file_are_those_of_the_source_and_the_umask(tmp_path: Path) -> None:
    """And nobody reads it before; set-user-ID is not copied."""
    (tmp_path / "a").write_bytes(b"text")
    (tmp_path / "a").chmod(0o4777)
    before = os.umask(0o027)
    try:
        copy_file(str(tmp_path / "a"), str(tmp_path / "b"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o750


def test_an_old_file_keeps_its_permissions(tmp_path: Path) -> None:
    """It is replaced, and not opened to others."""
    (tmp_path / "a").write_bytes(b"text")
    (tmp_path / "b").write_bytes(b"a longer text")
    (tmp_path / "b").chmod(0o600)
    copy_file(str(tmp_path / "a"), str(tmp_path / "b"))
    assert (tmp_path / "b").read_bytes() == b"text"
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o600


def test_preserve_keeps_permissions_and_times(tmp_path: Path) -> None:
    """As cp -p does, to the nanosecond."""
    (tmp_path / "a").write_bytes(b"text")
    (tmp_path / "a").chmod(0o4751)
    os.utime(tmp_path / "a", ns=(123_456_789_012_345_678, 234_567_890_123_456_789))
    copy_file(str(tmp_path / "a"), str(tmp_path / "b"), preserve=True)
    facts = (tmp_path / "b").stat()
    assert stat.S_IMODE(facts.st_mode) == 0o4751
    assert facts.st_mtime_ns == 234_567_890_123_456_789
    assert facts.st_atime_ns == 123_456_789_012_345_678


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.EINVAL])
@pytest.mark.parametrize("preserve", [True, False])
def test_somebody_elses_file(
    preserve: bool, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Where the owner cannot be kept, set-user-ID would mean another user: it goes, as with cp -p.

    chown(2) says EINVAL of an owner who has no number in the user namespace. The group stays.
    """
    chown, group = os.chown, 5678 if os.geteuid() == 0 else os.getegid()

    def refuse(file: int, user: int, group: int) -> None:
        if user != -1:
            raise OSError(number, os.strerror(number))
        chown(file, user, group)

    (tmp_path / "a").write_bytes(b"new")
    (tmp_path / "b").write_bytes(b"old")
    old = tmp_path / ("a" if preserve else "b")
    os.chown(old, -1, group)
    old.chmod(0o6755)
    monkeypatch.setattr(os, "chown", refuse)
    copy_file(str(tmp_path / "a"), str(tmp_path / "b"), preserve=preserve)
    facts = (tmp_path / "b").stat()
    assert (stat.S_IMODE(facts.st_mode), facts.st_gid) == (0o755, group)
    assert (tmp_path / "b").read_bytes() == b"new"


def test_no_clobber_leaves_what_is_there(tmp_path: Path) -> None:
    """As cp -n does: silently."""
    (tmp_path / "a").write_bytes(b"new")
    (tmp_path / "b").write_bytes(b"old")
    assert main(["copy", "-n", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert (tmp_path / "b").read_bytes() == b"old"
    assert main(["copy", "-n", str(tmp_path / "a"), str(tmp_path / "c")]) == 0
    assert (tmp_path / "c").read_bytes() == b"new"


@pytest.mark.parametrize("has_links", [True, False])
def test_no_clobber_leaves_what_comes_meanwhile(
    has_links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silently as well, on file systems without hard links too; and what was new is put there."""
    if not has_links:
        monkeypatch.setattr(os, "link", refuse_link)
    (tmp_path / "a").write_bytes(b"new")
    arguments = ["copy", "-n", str(tmp_path / "a"), str(tmp_path / "b")]
    assert main(arguments) == 0
    assert (tmp_path / "b").read_bytes() == b"new"
    assert (tmp_path / "b").stat().st_nlink == 1
    (tmp_path / "b").unlink()
    fsync = os.fsync

    def appear(fd: int) -> None:
        if not (tmp_path / "b").exists():  # once: a folder is synced as well
            (tmp_path / "b").write_bytes(b"precious")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", appear)
    assert main(arguments) == 0
    assert (tmp_path / "b").read_bytes() == b"precious"
    assert names(tmp_path) == ["a", "b"]


def refuse_link(*_arguments: object) -> None:
    """Do as file systems without hard links: link(2)."""
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def test_no_bar_without_a_standard_error(tmp_path: Path) -> None:
    """Where it is closed, as of some services: also if one is asked for."""
    (tmp_path / "a").write_bytes(b"text")
    command = [*COMMAND, "copy", "--progress", str(tmp_path / "a"), str(tmp_path / "b")]
    done = subprocess.run(["/bin/sh", "-c", 'exec "$@" 2>&-', "sh", *command], check=False)
    assert done.returncode == 0
    assert (tmp_path / "b").read_bytes() == b"text"


def test_what_cannot_be_read_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """And not what was to be written; an empty name is none of a folder."""
    source = "/proc/self/mem"
    if not os.path.exists(source):  # noqa: PTH110 - a string
        pytest.skip("no /proc")
    assert main(["copy", source, str(tmp_path / "b")]) == 1
    assert capsys.readouterr().err == f"sparsearray: error: {source}: {os.strerror(errno.EIO)}\n"
    assert main(["map", source]) == 1
    assert capsys.readouterr().err.startswith(f"sparsearray: error: {source} is empty")
    (tmp_path / "a").touch()
    assert main(["copy", str(tmp_path / "a"), ""]) == 1
    assert capsys.readouterr().err == f"sparsearray: error: '': {os.strerror(errno.ENOENT)}\n"
    assert names(tmp_path) == ["a"]


def test_links_are_followed(tmp_path: Path) -> None:
    """Both of the source and of an old target, which stays a link."""
    (tmp_path / "a").write_bytes(b"new")
    (tmp_path / "b").write_bytes(b"old")
    (tmp_path / "to_a").symlink_to("a")
    (tmp_path / "to_b").symlink_to("b")
    assert main(["copy", str(tmp_path / "to_a"), str(tmp_path / "to_b")]) == 0
    assert (tmp_path / "b").read_bytes() == b"new"
    assert (tmp_path / "to_b").is_symlink()


@pytest.mark.parametrize("link", ["hardlink_to", "symlink_to", None])
def test_a_file_is_not_copied_onto_itself(link: str | None, tmp_path: Path) -> None:
    """Under whatever name: it is said in one line, and stays as it was."""
    (tmp_path / "a").write_bytes(b"text")
    other = tmp_path / "a"
    if link:
        other = tmp_path / "b"
        getattr(other, link)(tmp_path / "a")
    done = run("copy", tmp_path / "a", other)
    assert done.returncode == 1
    assert done.stderr == (f"sparsearray: error: {tmp_path / 'a'} and {other} are the same file\n")
    assert (tmp_path / "a").read_bytes() == b"text"


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """Nothing there, folders and pipes, as source and as target; nobody waits for a pipe."""
    (tmp_path / "a").write_bytes(b"text")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    cases = [
        ("missing", "b", "missing: No such file or directory"),
        ("folder", "b", "folder: Is a directory"),
        ("fifo", "b", "fifo: Not a regular file"),
        ("a", "fifo", "fifo: not a regular file"),
        ("a", "new/", "new/: Is a directory"),
        ("a", "a/.", "a/.: Is a directory"),
        ("a", "new/.", "new/.: Is a directory"),
        ("a", "loop", "loop: Too many levels of symbolic links"),
        ("a", "missing/b", "missing/b: No such file or directory"),
        ("a", "a/b", "a/b: Not a directory"),
    ]
    for source, target, text in cases:
        done = run("copy", tmp_path / source, f"{tmp_path}/{target}")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"sparsearray: error: {tmp_path}/{text}\n"
    done = run("copy", "a", "a/b", cwd=tmp_path)
    assert done.stderr == "sparsearray: error: a/b: Not a directory\n"
    assert names(tmp_path) == ["a", "fifo", "folder", "loop"]


def test_permission_denied_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an old target that may not be written, root or not; it stays."""
    (tmp_path / "a").write_bytes(b"new")
    (tmp_path / "b").write_bytes(b"old")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert main(["copy", str(tmp_path / "a"), str(tmp_path / "b")]) == 1
    assert capsys.readouterr().err == f"sparsearray: error: {tmp_path / 'b'}: Permission denied\n"
    assert (tmp_path / "b").read_bytes() == b"old"


@pytest.mark.parametrize("path", ["/proc/cpuinfo", "/sys/kernel/mm/transparent_hugepage/enabled"])
def test_files_that_do_not_know_their_length(path: str, tmp_path: Path) -> None:
    """Those of /proc say 0, those of /sys a page: what is there is copied, as with cp."""
    if not Path(path).exists():
        pytest.skip(f"there is no {path}")
    assert main(["copy", path, str(tmp_path / "b")]) == 0
    subprocess.run(["cp", path, tmp_path / "c"], check=True)  # noqa: S607
    ours, theirs = (
        re.sub(rb"(?m)^cpu MHz.*$", b"", (tmp_path / name).read_bytes()) for name in "bc"
    )
    assert ours == theirs != b""


# What goes wrong


def test_a_full_disk_is_one_line_and_leaves_nothing(small_disk: Path, tmp_path: Path) -> None:
    """The old target is as it was."""
    Layout([("data", 100 * PAGE)]).write(tmp_path / "a")
    (small_disk / "b").write_bytes(b"old")
    done = run("copy", tmp_path / "a", small_disk / "b")
    assert done.returncode == 1
    assert done.stderr == f"sparsearray: error: {small_disk / 'b'}: No space left on device\n"
    assert (small_disk / "b").read_bytes() == b"old"
    assert names(small_disk) == ["b"]


def test_zeros_fit_on_a_small_disk(small_disk: Path, tmp_path: Path) -> None:
    """A file of 400 KiB, of which 8 hold something, goes onto a disk of 64."""
    content = Layout([("zeros", 60 * PAGE), ("data", 2 * PAGE), ("zeros", 38 * PAGE)]).write(
        tmp_path / "a"
    )
    copy_file(str(tmp_path / "a"), str(small_disk / "b"))
    assert (small_disk / "b").read_bytes() == content


def test_an_error_of_the_source_names_it(misbehaving, tmp_path: Path) -> None:
    """A file that cannot be read in the middle is no error of the target's."""
    broken = misbehaving.folder / "broken"
    done = run("copy", broken, tmp_path / "b")
    assert done.returncode == 1
    assert done.stderr == f"sparsearray: error: {broken}: Input/output error\n"
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("change", ["cut", "grow", "write"])
def test_a_source_that_changes_meanwhile_is_an_error(
    change: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would be half of the one and half of the other is not put in place."""
    source = tmp_path / "a"
    Layout([("data", 8 << 20)]).write(source)
    os.utime(source, ns=(0, 0))

    def disturb(*arguments: object, **more: object) -> int:
        if change == "write":
            with source.open("r+b") as file:
                file.write(b"x")
        else:
            os.truncate(source, 1 << 20 if change == "cut" else 9 << 20)
        return copy_data(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("sparsearray.cli.copy.copy_data", disturb)
    assert main(["copy", "--reflink", "never", str(source), str(tmp_path / "b")]) == 1
    error = capsys.readouterr().err
    assert error == f"sparsearray: error: {source}: changed while it was copied\n"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=["SIGINT", "SIGTERM", "SIGHUP"],
)
def test_an_interrupted_copy_leaves_nothing(
    number: signal.Signals, status: int, tmp_path: Path
) -> None:
    """In the middle, on any signal: the old target is there, no temporary file is, and no traceback."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "b").write_bytes(b"old")
    (tmp_path / "a").write_bytes(b"x" * (96 << 20))
    done = run_interrupted(number, "copy", "--reflink", "never", tmp_path / "a", folder / "b")
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")
    assert names(folder) == ["b"]
    assert (folder / "b").read_bytes() == b"old"


def test_ignored_signals_stay_so(tmp_path: Path) -> None:
    """Under nohup a lost terminal ends nothing."""
    (tmp_path / "a").write_bytes(b"x")
    code = (
        "import os, signal, sys; from sparsearray.cli import main\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "import sparsearray.cli.copy as copy; fill = copy._fill\n"
        "copy._fill = lambda *a, **k: (os.kill(os.getpid(), signal.SIGHUP), fill(*a, **k))\n"
        "sys.exit(main())"
    )
    command = [sys.executable, "-P", "-c", code, "copy", tmp_path / "a", tmp_path / "b"]
    assert subprocess.run(command, check=False).returncode == 0
    assert (tmp_path / "b").read_bytes() == b"x"


def test_closed_standard_streams(tmp_path: Path) -> None:
    """Without any the copy is made, and nothing is written into it by chance; errors are quiet."""
    Layout([("data", PAGE)]).write(tmp_path / "a")
    command = "exec {} copy {} {} <&- >&- 2>&-"
    for source, status in ("a", 0), ("missing", 1):
        line = command.format(f"{sys.executable} -P -m sparsearray", source, "b")
        done = subprocess.run(["/bin/sh", "-c", line], cwd=tmp_path, check=False, timeout=60)
        assert done.returncode == status
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()


def test_no_descriptor_stays_open(tmp_path: Path, descriptors) -> None:
    """After a copy, and after one that failed."""
    Layout([("data", PAGE)]).write(tmp_path / "a")
    before = descriptors()
    copy_file(str(tmp_path / "a"), str(tmp_path / "b"))
    with pytest.raises(OSError):
        copy_file(str(tmp_path / "a"), str(tmp_path / "missing/b"))
    assert descriptors() == before


def test_without_sync_nothing_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--no-sync leaves fsync out; otherwise the file is on disk before it is in its place."""
    (tmp_path / "a").write_bytes(b"x")
    calls: list[str] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), real(fd)))
    assert main(["copy", "--no-sync", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert calls == []
    assert main(["copy", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert calls == ["fsync", "fsync"]  # of the file, and of its folder


# File systems that share


@pytest.fixture(scope="module")
def sharing_disk(tmp_path_factory: pytest.TempPathFactory):
    """Mount a file system whose files can share what they hold."""
    make = shutil.which("mkfs.xfs")
    if make is None:
        pytest.skip("needs mkfs.xfs, of xfsprogs")
    image, folder = tmp_path_factory.mktemp("image") / "disk", tmp_path_factory.mktemp("shares")
    with image.open("wb") as file:
        file.truncate(320 << 20)
    subprocess.run([make, "-q", image], check=True)
    command = ["mount", "-o", "loop", image, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=False)  # noqa: S607


def is_shared(path: Path) -> bool:
    """Ask filefrag(8), of e2fsprogs, whether an extent is another file's too."""
    command = ["filefrag", "-v", path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return "shared" in done.stdout


@pytest.mark.parametrize("reflink", [True, False])
def test_copies_that_share_have_holes_for_zeros_too(
    sharing_disk: Path, reflink: bool, linux_core: bool
) -> None:
    """A clone takes no room, and its zeros even less; the source keeps its own."""
    if reflink and not linux_core:
        pytest.skip("only Linux's core makes holes in what was cloned")
    source, copy = sharing_disk / "a", sharing_disk / f"b{reflink}"
    content = Layout([("data", 64 * PAGE), ("zeros", 64 * PAGE), ("data", 10)]).write(source)
    before = pages_of(source)
    copy_file(str(source), str(copy), reflink=reflink)
    assert copy.read_bytes() == source.read_bytes() == content
    assert pages_of(copy) == filled_pages(content)
    assert pages_of(source) == before
    assert is_shared(copy) is reflink


def test_a_clone_that_cannot_be_made_is_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Across file systems and where there is no such call; but a disk that fails has failed."""
    content = Layout([("data", PAGE)]).write(tmp_path / "a")
    for number in (errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTTY, errno.EIO):

        def refuse(*_: object, number: int = number) -> int:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "ioctl", refuse)
        (tmp_path / "b").unlink(missing_ok=True)
        if number == errno.EIO:
            with pytest.raises(OSError) as caught:
                copy_file(str(tmp_path / "a"), str(tmp_path / "b"))
            assert (caught.value.errno, caught.value.filename) == (number, str(tmp_path / "b"))
        else:
            copy_file(str(tmp_path / "a"), str(tmp_path / "b"))
            assert (tmp_path / "b").read_bytes() == content
