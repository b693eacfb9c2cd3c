"""What several test files need: scripts in processes of their own, and the kernel's view."""

import gc
import mmap
import os
import random
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent
from typing import Any, NamedTuple

import pytest

from sparsearray import Region, SparseBuffer, UnsupportedError
from sparsearray.testing import ModelBuffer

from .example_needs import missing_for
from .sparse_files import DATA, PAGES, Storage, data_pages

# An assert that fails in one of these says what it compared, as one in a test does.
pytest.register_assert_rewrite(
    *(f"{__package__}.{name}" for name in ("array_files", "boxed_arrays", "shown_arrays"))
)

PAGE = mmap.PAGESIZE

PRELUDE = """
import ctypes, errno, mmap, os, signal, sys, threading
import numpy as np
from sparsearray import *
from builtins import open
P = mmap.PAGESIZE

def failure(call, *arguments):
    try:
        call(*arguments)
    except Exception as error:
        return error
    raise SystemExit(f"{call} raised nothing")
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip examples of docstrings that need what is not installed."""
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            # The name tells the module, so that its examples need not import its library.
            missing = missing_for(
                item.dtest.name + "\n" + "".join(one.source for one in item.dtest.examples)
            )
            if missing:
                item.add_marker(pytest.mark.skip(reason=f"needs {', '.join(missing)}"))


class Mapping(NamedTuple):
    """One line of /proc/self/maps, clipped to a buffer; `start` is relative to it."""

    start: int
    stop: int
    perms: str
    file_offset: int
    inode: int
    path: str
    rss: int


def read_mappings(address: int, nbytes: int, source: str = "smaps") -> list[Mapping]:
    """Read what the kernel has mapped in a range of addresses."""
    found: list[Mapping] = []
    inside = False
    for line in Path(f"/proc/self/{source}").read_text(errors="replace").splitlines():
        fields = line.split(maxsplit=5)
        if fields[0].endswith(":"):
            if inside and fields[0] == "Rss:":
                found[-1] = found[-1]._replace(rss=int(fields[1]) << 10)
            continue
        first, last = (int(number, 16) for number in fields[0].split("-"))
        start, stop = max(first, address), min(last, address + nbytes)
        inside = start < stop
        if inside:
            offset = int(fields[2], 16) + start - first
            path = fields[5] if len(fields) > 5 else ""
            found.append(
                Mapping(start - address, stop - address, fields[1], offset, int(fields[4]), path, 0)
            )
    return found


@pytest.fixture
def mappings() -> Callable[..., list[Mapping]]:
    """Call it with a buffer: the kernel's mappings in its range."""

    def read(buffer: SparseBuffer, source: str = "smaps") -> list[Mapping]:
        return read_mappings(buffer.address, buffer.nbytes, source)

    return read


@pytest.fixture
def resident() -> Callable[[SparseBuffer], int]:
    """Call it with a buffer: the bytes of it that are in memory. Its first and last page are holes."""

    def read(buffer: SparseBuffer) -> int:
        return sum(one.rss for one in read_mappings(buffer.address, buffer.nbytes))

    return read


@pytest.fixture
def pattern() -> Callable[..., bytes]:
    """Call it with a length and a seed: bytes, none of them zero."""

    def make(nbytes: int, seed: int = 0) -> bytes:
        return random.Random(seed).randbytes(nbytes).replace(b"\0", b"\x01")

    return make


@pytest.fixture
def make_file(tmp_path: Path, pattern: Callable[..., bytes]) -> Callable[..., tuple[Path, bytes]]:
    """Call it with a length, a name and a seed: a file, and what is in it."""

    def make(nbytes: int, name: str = "data", seed: int = 1) -> tuple[Path, bytes]:
        path, data = tmp_path / name, pattern(nbytes, seed)
        path.write_bytes(data)
        return path, data

    return make


@pytest.fixture
def run_python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Call it with a script: run in a process of its own, in a folder of the test's own."""

    def run(script: str, *options: str) -> subprocess.CompletedProcess[str]:
        # -P: the folder of the tests' source tree is not where packages are.
        command = [sys.executable, "-P", "-W", "error", *options, "-c", PRELUDE + dedent(script)]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )

    return run


@pytest.fixture
def run_ok(run_python: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., str]:
    """Call it with a script that must end well: what it printed."""

    def run(script: str, *options: str) -> str:
        done = run_python(script, *options)
        assert done.returncode == 0, f"ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


@pytest.fixture(scope="session")
def linux_core() -> bool:
    """Whether the core is built on Linux's system calls, not on those that every system has."""
    with SparseBuffer(PAGE) as buffer:
        buffer.alloc(0, PAGE)
        try:
            buffer.advise(0, PAGE, "cold")
        except UnsupportedError:
            return False
        return True


@pytest.fixture(scope="session")
def told_pages(linux_core: bool) -> None:
    """Skip where all memory counts as touched: there, functions of large arrays would fill it."""
    if not linux_core:
        pytest.skip("only Linux tells which pages were touched")


@pytest.fixture(scope="session")
def told_room(linux_core: bool) -> None:
    """Skip where a full disk looks like any other failure of it."""
    if not linux_core:
        pytest.skip("only Linux's core can ask which write the disk has no room for")


@pytest.fixture(scope="session", autouse=True)
def _model_of_this_core(linux_core: bool) -> None:
    ModelBuffer.tells_own_copies = linux_core


@pytest.fixture
def data_file(make_file: Callable[[int], tuple[Path, bytes]]) -> tuple[Path, bytes]:
    """Make a file of 16 pages, and tell what is in it."""
    return make_file(16 * PAGE)


@pytest.fixture
def filled() -> Iterator[SparseBuffer]:
    """Make a buffer of 8 pages, all private and written to."""
    with SparseBuffer(8 * PAGE) as buffer:
        buffer.alloc(0, 8 * PAGE)
        buffer.fill_at(0, 0xAB, 8 * PAGE)
        yield buffer
        assert buffer.regions == (Region(0, 8 * PAGE, "private", True, None, None),)
        assert buffer.read_at(0, 8 * PAGE) == b"\xab" * (8 * PAGE)


@pytest.fixture
def between_holes(pattern: Callable[[int], bytes]) -> tuple[SparseBuffer, bytes]:
    """Make a buffer of 8 pages of memory between two holes, and tell its bytes."""
    data = pattern(8 * PAGE)
    buffer = SparseBuffer(10 * PAGE)
    buffer.alloc(PAGE, 8 * PAGE)
    buffer.write_at(PAGE, data)
    return buffer, bytes(PAGE) + data


@pytest.fixture
def descriptors() -> Callable[[], int]:
    """Call it: how many descriptors this process has open."""

    def count() -> int:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    return count


@pytest.fixture
def leaves_no_mapping() -> Callable[[Callable[[], object]], None]:
    """Call it with a call: what that maps is gone after it, though allocators may map now and then."""

    def mapped() -> tuple[int, int]:
        """Count mappings, and their pages: what lies side by side may be one mapping."""
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        if "asan" in os.environ.get("LD_PRELOAD", ""):
            pages = 0  # it keeps memory that is freed
        return len(Path("/proc/self/maps").read_text().splitlines()), pages

    def check(call: Callable[[], object]) -> None:
        found = [mapped()]
        for _ in range(8):
            call()
            found.append(mapped())
            if all(after <= before for before, after in zip(*found[-2:], strict=True)):
                return
        pytest.fail(f"each call left mappings or pages: {found}")

    return check


@pytest.fixture(scope="module", autouse=True)
def _quick_collection() -> None:
    """Have what is there before the tests of a file take no time in each of many collections."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def unchanged_files(
    tmp_path: Path, descriptors: Callable[[], int]
) -> Callable[[], Any]:  # as a context manager
    """Use it as ``with unchanged_files():``: no file is made or changed, no descriptor stays open."""

    def look() -> dict[str, Any]:
        return {
            path.name: (path.read_bytes(), path.stat().st_mode, path.stat().st_mtime_ns)
            for path in tmp_path.iterdir()
            if path.is_file()
        } | {path.name: None for path in tmp_path.iterdir() if not path.is_file()}

    @contextmanager
    def check() -> Iterator[None]:
        before, count = look(), descriptors()
        yield
        assert look() == before
        assert descriptors() == count

    return check


@pytest.fixture(scope="session")
def memory_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make a folder where syncing takes no time, if there is such a place."""
    shared = Path("/dev/shm")  # noqa: S108
    if not os.access(shared, os.W_OK):
        yield tmp_path_factory.mktemp("memory")
        return
    with TemporaryDirectory(prefix="sparsearray-test-", dir=shared) as folder:
        yield Path(folder)


@pytest.fixture
def quick_folder(memory_folder: Path) -> Iterator[Path]:
    """Make a folder of the test's own there."""
    with TemporaryDirectory(dir=memory_folder) as folder:
        yield Path(folder)


@pytest.fixture(params=["memfd", "shm", "disk"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    """Make a file with holes in each kind of place."""
    folder = Path("/dev/shm") if request.param == "shm" else tmp_path  # noqa: S108 -- shared memory is meant
    path = folder / f"sparsearray-{uuid.uuid4()}"
    if request.param == "memfd":
        if not hasattr(os, "memfd_create"):
            pytest.skip("this system has no memfd")
        fd = os.memfd_create("storage")
        path = Path(f"/proc/self/fd/{fd}")
    else:
        if not folder.is_dir():
            pytest.skip(f"there is no {folder}")
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        os.ftruncate(fd, PAGES * PAGE)
        for page in DATA:
            os.pwrite(fd, bytes([page + 1]) * 100, page * PAGE + 50)
        if data_pages(fd) != set(DATA):
            pytest.skip("the holes of this file system are not of single pages")
        yield Storage(path, fd)
    finally:
        os.close(fd)
        if request.param != "memfd":
            path.unlink(missing_ok=True)


class Misbehaving:
    """A running fuse_server.py."""

    def __init__(self, folder: Path) -> None:
        script = Path(__file__).with_name("fuse_server.py")
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-P", script, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait(self) -> str:
        """Return the next line that the server prints, "" if it has ended."""
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def release(self) -> None:
        """Let a read of the slow file go on."""
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def stop(self) -> str:
        """Unmount, and end the server; what it complained about."""
        subprocess.run(["umount", "-l", self.folder], check=False, capture_output=True)  # noqa: S607
        self.process.kill()
        return self.process.communicate()[1]


@pytest.fixture
def misbehaving(tmp_path: Path) -> Iterator[Misbehaving]:
    """Mount the file system of fuse_server.py."""
    folder = tmp_path / "misbehaving"
    folder.mkdir()
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse is not there, or not for this user")
    server = Misbehaving(folder)
    try:
        if server.wait() != "ready":
            pytest.skip(f"cannot mount here: {server.stop().splitlines()[-1]}")
        yield server
    finally:
        server.stop()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 16 pages."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={16 * PAGE}", "small", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=False)  # noqa: S607


def _huge_pool(size: int) -> Path:
    return Path(f"/sys/kernel/mm/hugepages/hugepages-{size >> 10}kB")


@pytest.fixture
def huge_pages(linux_core: bool) -> Iterator[int]:
    """Have at least four free huge pages of the smallest size: that size in bytes."""
    if not linux_core:
        pytest.skip("the core knows of files in huge pages on Linux only")
    pools = sorted(
        int(pool.name[len("hugepages-") : -len("kB")]) << 10
        for pool in Path("/sys/kernel/mm/hugepages").glob("hugepages-*")
    )
    if not pools:
        pytest.skip("this kernel has no huge pages")
    size = pools[0]
    number, free = _huge_pool(size) / "nr_hugepages", _huge_pool(size) / "free_hugepages"
    before = int(number.read_text())
    if int(free.read_text()) < 4:
        try:
            number.write_text(str(before + 4))
        except OSError:
            pytest.skip("the pool of huge pages is empty, and only root may fill it")
    try:
        if int(free.read_text()) < 4:
            pytest.skip("memory is too fragmented for four huge pages")
        yield size
    finally:
        gc.collect()
        if int(number.read_text()) != before:
            number.write_text(str(before))
