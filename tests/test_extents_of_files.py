"""Extents of file windows: against what lseek(2) says of the file, asked by the test itself."""

import mmap
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from sparsearray import AccessError, SparseBuffer, shared_memory
from sparsearray import extents as extents_module

from .sparse_files import DATA, PAGES, data_pages, runs

P = mmap.PAGESIZE
R, W = mmap.PROT_READ, mmap.PROT_WRITE


def window(buffer: SparseBuffer, mode: str, file: object, at: int = 0, first: int = 0) -> None:
    """Map the file to its end; `at` and `first` in pages."""
    options = {"writable": mode == "shared", "copy_on_write": mode == "cow"}
    buffer.map_file(at * P, (PAGES - first) * P, file, first * P, **options)


MODES = ["read", "shared", "cow"]


# ------------------------------------------------------------------------------ data of the file


@pytest.mark.parametrize("mode", MODES)
def test_data_of_the_file(mode, storage, linux_core):
    """A window counts where the file has data."""
    with SparseBuffer(PAGES * P) as buffer:
        window(buffer, mode, storage.path)
        found = buffer.extents().tolist()
        if mode == "cow" and not linux_core:
            assert found == [[0, PAGES * P]]
        else:
            assert found == runs(data_pages(storage.fd))
            assert set(DATA) <= data_pages(storage.fd)
            assert buffer.nbytes_stored == P * len(data_pages(storage.fd))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("first", [1, 4, 31, 63])
def test_part_of_the_file(mode, first, storage, linux_core):
    """A window of a part of the file counts where that part has data, at its place in the buffer."""
    if mode == "cow" and not linux_core:
        pytest.skip("on POSIX alone nobody tells of own copies")
    with SparseBuffer((PAGES + 8) * P) as buffer:
        window(buffer, mode, storage.path, 5, first)
        pages = {page - first + 5 for page in data_pages(storage.fd) if page >= first}
        assert buffer.extents().tolist() == runs(pages)


def test_range_within_pages(storage):
    """A range that begins or ends within a page has that part of it."""
    with SparseBuffer(PAGES * P) as buffer:
        window(buffer, "read", storage.path)
        assert buffer.extents(3 * P + 7, P).tolist() == [[3 * P + 7, 4 * P + 7]]
        assert buffer.extents(4 * P + 7, 5 * P + 3).tolist() == [
            [4 * P + 7, 5 * P],
            [9 * P, 9 * P + 10],
        ]
        assert buffer.extents(10 * P + 1, 20 * P - 2).tolist() == []
        assert buffer.extents(3 * P + 7, 0).tolist() == []


def test_what_was_just_written_through_the_window(storage):
    """Data that is not on disk yet counts, written by whomever."""
    with SparseBuffer(3 * PAGES * P) as buffer:
        window(buffer, "shared", storage.path)
        window(buffer, "shared", storage.path, PAGES)
        window(buffer, "read", storage.path, 2 * PAGES)
        buffer.write_at(20 * P + 5, b"window")
        buffer.window((PAGES + 40) * P, 1)[:] = 1
        os.pwrite(storage.fd, b"pwrite", 50 * P)
        expected = data_pages(storage.fd)
        assert expected >= {20, 40, 50}
        found = runs(page + i * PAGES for page in expected for i in range(3))
        assert buffer.extents().tolist() == found
        buffer.flush()
        assert buffer.extents().tolist() == found


def test_own_copies(storage, linux_core):
    """A copy-on-write window counts where the file has data and where it has copies of its own."""
    with SparseBuffer(PAGES * P) as buffer:
        window(buffer, "cow", storage.path)
        for page in (own := {4, 9, 10, 20, 63}):
            buffer.write_at(page * P + 11, b"own")
        before = data_pages(
            storage.fd
        )  # tmpfs takes a page of its own for each hole that is copied
        if not linux_core:
            assert buffer.extents().tolist() == [[0, PAGES * P]]
            return
        assert buffer.extents().tolist() == runs(before | own)
        buffer.decommit(8 * P, 4 * P)
        assert buffer.extents().tolist() == runs(before | own - {10})
        assert os.pread(storage.fd, 3, 9 * P + 11) == bytes(3)


def test_own_copies_outlive_the_data(storage, linux_core):
    """What was copied on write counts after the file lost its data there; pages read do not."""
    if not linux_core:
        pytest.skip("on POSIX alone nobody tells of own copies")
    with SparseBuffer(2 * PAGES * P) as buffer:
        window(buffer, "cow", storage.path)
        window(buffer, "shared", storage.path, PAGES)
        assert buffer.read_at(0, PAGES * P)
        buffer.write_at(4 * P, b"own")
        buffer._clear(PAGES * P, PAGES * P)
        if data_pages(storage.fd):
            pytest.skip("this file system cannot make holes")
        assert buffer.extents(0, PAGES * P).tolist() == runs([4])
        assert buffer.read_at(4 * P, 60) == b"own" + bytes(47) + bytes([5]) * 10


@pytest.mark.parametrize("capacity", [2, 3, 5, 8, 21])
@pytest.mark.parametrize("mode", MODES)
def test_calls_are_joined(mode, capacity, storage, linux_core, monkeypatch):
    """However little a native call holds, the data and the copies are found, and joined."""
    if mode == "cow" and not linux_core:
        pytest.skip("on POSIX alone nobody tells of own copies")
    monkeypatch.setattr(extents_module, "_CAPACITY", capacity)
    rng = random.Random(capacity)
    with SparseBuffer(2 * PAGES * P) as buffer:
        window(buffer, mode, storage.path)
        window(buffer, mode, storage.path, PAGES)
        own: list[int] = []
        if mode == "cow":
            own = rng.sample(range(2 * PAGES), 60)
            buffer.scatter(np.array(own) * P, np.ones(60, "u1"))
        data = data_pages(storage.fd)
        expected = data | {page + PAGES for page in data} | set(own)
        for _ in range(20):
            start, stop = sorted(rng.sample(range(2 * PAGES * P), 2))
            found = buffer.extents(start, stop - start).tolist()
            cut = [[max(a, start), min(b, stop)] for a, b in runs(expected)]
            assert found == [[a, b] for a, b in cut if a < b]


def test_more_extents_than_a_native_call_holds(linux_core):
    """40,000 extents of a file, and the copies between them that make them one."""
    count = 40_000
    assert count > extents_module._CAPACITY
    fd = os.memfd_create("many")
    try:
        os.ftruncate(fd, 2 * count * P)
        for page in range(0, 2 * count, 2):
            os.pwrite(fd, b"x", page * P)
        with SparseBuffer(2 * count * P) as buffer:
            buffer.map_file(0, 2 * count * P, f"/proc/self/fd/{fd}", copy_on_write=linux_core)
            expected = np.arange(count)[:, None] * 2 * P + [0, P]
            assert np.array_equal(buffer.extents(), expected)
            if linux_core:
                buffer.scatter(np.arange(20_000) * 2 * P + P, np.ones(20_000, "u1"))
                assert buffer.extents()[0].tolist() == [0, 40_001 * P]
                assert np.array_equal(buffer.extents()[1:], expected[20_001:])
    finally:
        os.close(fd)


# ------------------------------------------------------------------------------ files that change


def test_file_that_shrinks(storage, linux_core):
    """What a file lost is an error, not a hole; before that all is told, and after it grew again."""
    with SparseBuffer(2 * PAGES * P) as buffer:
        window(buffer, "read", storage.path)
        window(buffer, "cow", storage.path, PAGES)
        if linux_core:
            buffer.write_at((PAGES + 40) * P, b"own")
        end = 31 * P + 100
        os.ftruncate(storage.fd, end)
        kept = {page for page in DATA if page <= 31}
        for base in (0, PAGES * P):
            with pytest.raises(AccessError) as caught:
                buffer.extents(base, PAGES * P)
            assert (caught.value.reason, caught.value.offset) == ("file-truncated", base + end)
            assert caught.value.filename == str(storage.path)
            with pytest.raises(AccessError):
                buffer.extents(base + 40 * P, 1)  # not even a copy of one's own, which went with it
        with pytest.raises(AccessError, match="file"):
            buffer.nbytes_stored  # noqa: B018 - it raises
        found = buffer.extents(0, end).tolist()
        assert found == [[start, min(stop, end)] for start, stop in runs(kept)]
        os.ftruncate(storage.fd, 0)
        with pytest.raises(AccessError) as caught:
            buffer.extents(17, PAGES * P - 17)
        assert caught.value.offset == 17
        os.ftruncate(storage.fd, PAGES * P)
        os.pwrite(storage.fd, b"x", 7 * P)
        assert buffer.extents(0, PAGES * P).tolist() == runs([7])


def test_file_that_grows(storage):
    """Data past the window is not the window's; a last page that fills up is."""
    os.ftruncate(storage.fd, 20 * P + 5)
    with SparseBuffer(32 * P) as buffer:
        buffer.map_file(0, 21 * P, storage.path)
        os.pwrite(storage.fd, b"x" * 3 * P, 20 * P + 50)
        found = buffer.extents().tolist()
        assert found == runs(page for page in data_pages(storage.fd) if page <= 20)
        assert found[-1][1] == 21 * P


def test_no_whole_number_of_pages(storage):
    """The last page counts whole, however few bytes of it are in the file."""
    os.ftruncate(storage.fd, 32 * P + 51)
    with SparseBuffer(33 * P) as buffer:
        buffer.map_file(0, 33 * P, storage.path)
        assert buffer.extents().tolist() == runs(page for page in DATA if page <= 32)
        os.ftruncate(storage.fd, 32 * P + 50)
        with pytest.raises(AccessError) as caught:
            buffer.extents()
        assert caught.value.offset == 32 * P + 50


def test_file_without_data(tmp_path):
    """A file that is one hole has no extents, and one without a hole is one."""
    path = tmp_path / "file"
    path.touch()
    os.truncate(path, 1 << 40)
    with SparseBuffer(1 << 40) as buffer:
        buffer.map_file(0, 1 << 40, path)
        with open(path, "rb") as file:
            if data_pages(file.fileno()):
                pytest.skip("this file system keeps no holes")
        assert buffer.extents().tolist() == []
    path.write_bytes(b"x" * 10 * P)
    with SparseBuffer(10 * P) as buffer:
        buffer.map_file(0, 10 * P, path)
        assert buffer.extents().tolist() == [[0, 10 * P]]


# ------------------------------------------------------------------------------ descriptors


@pytest.mark.parametrize("mode", MODES)
def test_position_of_the_users_file_stays(mode, storage, linux_core, descriptors):
    """Asking does not move the position of the user's own descriptor, and leaves none open."""
    os.lseek(storage.fd, 12345, os.SEEK_SET)
    before = descriptors()
    with SparseBuffer(PAGES * P) as buffer:
        window(buffer, mode, storage.fd)
        for _ in range(5):
            found = buffer.extents().tolist()
        assert os.lseek(storage.fd, 0, os.SEEK_CUR) == 12345
        assert descriptors() == before + 1
    assert descriptors() == before
    assert found == (runs(data_pages(storage.fd)) if linux_core else [[0, PAGES * P]])


def test_position_after_an_upgrade(storage, linux_core):
    """A user's descriptor that replaces the buffer's own is not moved either."""
    with SparseBuffer(2 * PAGES * P) as buffer:
        window(buffer, "read", storage.path)
        os.lseek(storage.fd, 777, os.SEEK_SET)
        window(buffer, "shared", storage.fd, PAGES)
        found = buffer.extents(0, PAGES * P).tolist()
        assert os.lseek(storage.fd, 0, os.SEEK_CUR) == 777
        assert found == (runs(data_pages(storage.fd)) if linux_core else [[0, PAGES * P]])


@pytest.mark.parametrize("by", ["path", "descriptor"])
def test_unlinked_file(by, tmp_path, linux_core):
    """A file that has no name any more is asked as before."""
    path = tmp_path / "gone"
    with open(path, "w+b", buffering=0) as file, SparseBuffer(8 * P) as buffer:
        file.truncate(8 * P)
        os.pwrite(file.fileno(), b"x", 3 * P)
        if by == "path":
            buffer.map_file(0, 8 * P, path)
            path.unlink()
        else:
            path.unlink()
            buffer.map_file(0, 8 * P, file)
        told = linux_core or by == "path"
        assert buffer.extents().tolist() == (runs([3]) if told else [[0, 8 * P]])


def test_file_that_may_not_be_opened_again(run_ok, tmp_path):
    """A descriptor that was handed over stays enough, whoever may open the file."""
    if os.geteuid():
        pytest.skip("only root can become somebody else")
    path = tmp_path / "secret"
    path.write_bytes(bytes(P) + b"x" * P)
    path.chmod(0o600)
    run_ok(f"""
        fd = os.open({str(path)!r}, os.O_RDONLY)
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        buffer = SparseBuffer(4 * P)
        buffer.map_file(0, 2 * P, fd)
        buffer.alloc(2 * P, 2 * P)
        buffer.write_at(3 * P, b"x")
        found = buffer.extents().tolist()
        for offset in (P, 3 * P):
            assert any(start <= offset < stop for start, stop in found), found
    """)


# ------------------------------------------------------------------------------ raw windows, huge pages


def test_raw_windows(storage, linux_core):
    """Raw windows of a file count as the others do, whatever their protection."""
    with SparseBuffer(4 * PAGES * P) as buffer:
        buffer.mmap(0, PAGES * P, R, mmap.MAP_SHARED, storage.path)
        buffer.mmap(PAGES * P, PAGES * P, 0, mmap.MAP_SHARED, storage.path)
        if linux_core:
            buffer.mmap(2 * PAGES * P, PAGES * P, R | W, mmap.MAP_PRIVATE, storage.path)
            buffer.mmap(3 * PAGES * P, PAGES * P, 0, mmap.MAP_PRIVATE, storage.path)
            buffer.write_at((2 * PAGES + 20) * P, b"own")
        data = data_pages(storage.fd)
        pages = {page + i * PAGES for page in data for i in range(4 if linux_core else 2)}
        pages |= {2 * PAGES + 20} if linux_core else set()
        assert buffer.extents().tolist() == runs(pages)


@pytest.mark.parametrize("mode", MODES)
def test_huge_pages(mode, huge_pages):
    """A file in huge pages counts in huge pages, own copies included."""
    size = huge_pages
    with shared_memory(2 * size, hugepage_size=size) as memory, SparseBuffer(2 * size) as buffer:
        options = {"writable": mode == "shared", "copy_on_write": mode == "cow"}
        buffer.map_file(0, 2 * size, memory, **options)
        if mode == "read":
            with SparseBuffer(2 * size) as other:
                other.map_file(0, 2 * size, memory, writable=True)
                other.write_at(size + 5, b"x")
        else:
            buffer.write_at(size + 5, b"x")
        found = buffer.extents().tolist()
        assert found[-1][0] <= size
        assert found[-1][1] == 2 * size
        assert all(a % size == b % size == 0 for a, b in found)


# ------------------------------------------------------------------------------ other file systems


@pytest.fixture
def small_blocks(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system whose blocks are a quarter of a page."""
    image, folder = tmp_path / "image", tmp_path / "mounted"
    folder.mkdir()
    image.touch()
    os.truncate(image, 16 << 20)
    for command in (
        ["mkfs.ext4", "-q", "-F", "-b", "1024", image],
        ["mount", "-o", "loop", image, folder],
    ):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip(f"there is no {command[0]}")
        if done.returncode:
            pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=False)  # noqa: S607


@pytest.mark.parametrize("mode", ["read", "shared"])
def test_blocks_smaller_than_pages(mode, small_blocks):
    """Blocks that are smaller than pages make extents of whole pages."""
    if P <= 1024:
        pytest.skip("blocks of 1024 bytes are no smaller than pages here")
    fd = os.open(small_blocks / "file", os.O_RDWR | os.O_CREAT)
    try:
        os.ftruncate(fd, 64 * P)
        for offset in (P - 1, 3 * P + 1024, 9 * P - 1024, 9 * P + 2048, 20 * P, 63 * P + P - 1):
            os.pwrite(fd, b"x", offset)
        os.fsync(fd)
        with SparseBuffer(64 * P) as buffer:
            options = {"writable": mode == "shared"}
            buffer.map_file(0, 64 * P, small_blocks / "file", **options)
            assert buffer.extents().tolist() == runs([0, 3, 8, 9, 20, 63])
            buffer.map_file(0, 63 * P, small_blocks / "file", P, **options)
            buffer.unmap(63 * P, P)
            assert buffer.extents().tolist() == runs([2, 7, 8, 19, 62])
    finally:
        os.close(fd)


@pytest.mark.parametrize("mode", MODES)
def test_server_that_knows_no_holes(mode, misbehaving, linux_core):
    """Files of a server that cannot tell are one extent, what was just written included."""
    with SparseBuffer(8 * P) as buffer:
        options = {"writable": mode == "shared", "copy_on_write": mode == "cow"}
        buffer.map_file(0, 8 * P, misbehaving.folder / "broken", **options)
        assert buffer.extents().tolist() == [[0, 8 * P]]
        if mode == "shared" and linux_core:
            buffer.write_at(P, b"x")
            assert buffer.extents().tolist() == [[0, 8 * P]]


@pytest.mark.parametrize("by", ["path", "descriptor"])
def test_looking_hides_no_write_error(by, misbehaving):
    """A write that the server refused is an error of flush, also after extents were asked for."""
    with SparseBuffer(8 * P) as buffer:
        with open(misbehaving.folder / "full", "r+b", buffering=0) as file:
            buffer.map_file(0, 8 * P, file if by == "descriptor" else file.name, writable=True)
        buffer.write_at(0, b"lost")
        for _ in range(2):
            buffer.extents()
        with pytest.raises(OSError, match="No space"):
            buffer.flush()


SERVER = """
import importlib.util, struct, sys
spec = importlib.util.spec_from_file_location("fuse_server", sys.argv[2])
server = importlib.util.module_from_spec(spec)
spec.loader.exec_module(server)
STATFS, LSEEK, SEEK_DATA = 17, 46, 3
stored = {}  # page -> bytes, of the file "full"; all others are holes, and the last stays one
plain = server.answer

def answer(code, node, body):
    if code == STATFS and sys.argv[3] == "True":
        return struct.pack("<5Q10I", 9, 9, 9, 9, 9, server.PAGE, 255, server.PAGE, *[0] * 7)
    if node < 2 or server.NAMES[node - 2] != "full":
        return plain(code, node, body)
    if code == LSEEK:
        _, offset, whence = struct.unpack_from("<2QI", body)
        while offset < server.SIZE and (offset // server.PAGE in stored) != (whence == SEEK_DATA):
            offset = (offset // server.PAGE + 1) * server.PAGE
        return server.errno.ENXIO if offset >= server.SIZE and whence == SEEK_DATA else struct.pack("<Q", offset)
    if code == server.READ:
        offset, nbytes = struct.unpack_from("<8xQI", body)
        whole = b"".join(stored.get(i, bytes(server.PAGE)) for i in range(8))
        return whole[offset : offset + nbytes]
    if code == server.WRITE:
        offset, nbytes = struct.unpack_from("<8xQI", body)
        if offset // server.PAGE == 7:
            return server.errno.ENOSPC
        for at in range(0, nbytes, server.PAGE):
            stored[(offset + at) // server.PAGE] = body[40 + at : 40 + at + server.PAGE].ljust(server.PAGE, b"\\0")
        return struct.pack("<2I", nbytes, 0)
    return plain(code, node, body)

server.answer = answer
server.serve(sys.argv[1])
"""


@pytest.fixture(params=[True, False], ids=["statfs", "no-statfs"])
def sparse_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Mount a file system whose server knows the holes of its file; the path of the file."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse is not there, or not for this user")
    folder = tmp_path / "served"
    folder.mkdir()
    command = [sys.executable, "-P", "-c", dedent(SERVER), folder]
    with subprocess.Popen(
        [*command, Path(__file__).with_name("fuse_server.py"), str(request.param)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout
            assert process.stderr
            if process.stdout.readline() != "ready\n":
                pytest.skip(f"cannot mount here: {process.stderr.read()}")
            yield folder / "full"
        finally:
            subprocess.run(["umount", "-l", folder], check=False, capture_output=True)  # noqa: S607
            process.kill()


def test_server_that_knows_holes(sparse_server, linux_core):
    """What was written through a window counts before the server has heard of it."""
    if not linux_core:
        pytest.skip("on POSIX alone a file of a server looks like any other")
    with SparseBuffer(16 * P) as buffer:
        buffer.map_file(0, 8 * P, sparse_server, writable=True)
        assert buffer.extents().tolist() == []
        buffer.map_file(8 * P, 8 * P, sparse_server)
        buffer.write_at(3 * P, b"x")
        buffer.write_at(5 * P + 7, b"y")
        assert buffer.extents().tolist() == runs([3, 5, 11, 13])
        buffer.flush()
        assert buffer.extents().tolist() == runs([3, 5, 11, 13])


def test_holes_of_a_server(sparse_server, linux_core):
    """Holes are skipped only where nobody has written, told to the server or not."""
    if not linux_core:
        pytest.skip("on POSIX alone a file of a server looks like any other")
    with SparseBuffer(16 * P) as buffer:
        buffer.map_file(0, 8 * P, sparse_server, writable=True)
        buffer.write_at(3 * P, b"x")
        buffer.map_file(8 * P, 8 * P, sparse_server, skip_holes=True)
        assert buffer.read_at(11 * P, 1) == b"x"
        buffer.write_at(6 * P, b"y")
        assert buffer.refresh() == P
        assert buffer.read_at(14 * P, 1) == b"y"


@pytest.mark.parametrize("by", ["path", "descriptor"])
@pytest.mark.parametrize("look", ["extents", "refresh", "map_file"])
def test_looking_for_holes_hides_no_write_error(look, by, sparse_server):
    """What the server refuses to take while it is asked for holes is still an error of flush."""
    with SparseBuffer(24 * P) as buffer:
        with open(sparse_server, "r+b", buffering=0) as file:
            buffer.map_file(0, 8 * P, file if by == "descriptor" else file.name, writable=True)
        buffer.map_file(8 * P, 8 * P, sparse_server, skip_holes=True)
        buffer.write_at(7 * P, b"lost")
        if look == "map_file":
            buffer.map_file(16 * P, 8 * P, sparse_server, skip_holes=True)
        else:
            getattr(buffer, look)()
        with pytest.raises(OSError, match="No space"):
            buffer.flush()


@pytest.mark.usefixtures("told_pages")
def test_own_pages_alone(data_file):
    """Asked for what is the buffer's own, files and shared memory count where they were copied only."""
    path, _ = data_file
    with SparseBuffer(64 * P) as buffer, shared_memory(4 * P) as memory:
        buffer.map_file(0, 16 * P, path, copy_on_write=True)
        buffer.map_file(16 * P, 16 * P, path)
        buffer.map_file(32 * P, 4 * P, memory, writable=True)
        buffer.alloc(40 * P, 8 * P)
        buffer.read_at(0, 36 * P)
        buffer.write_at(3 * P - 1, b"\0\0")
        buffer.write_at(33 * P, b"shared")
        buffer.write_at(45 * P, b"private")
        expected = [[2 * P, 4 * P], [45 * P, 46 * P]]
        assert buffer._own_extents(0, 64 * P).tolist() == expected
        assert buffer._own_extents(3 * P + 5, 42 * P).tolist() == [
            [3 * P + 5, 4 * P],
            [45 * P, 45 * P + 5],
        ]
