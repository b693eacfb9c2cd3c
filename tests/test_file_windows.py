"""Windows of files: what is taken as a file, what is seen through it, which descriptors stay open."""

import errno
import mmap
import os
import sys
from pathlib import Path

import pytest

from sparsearray import AccessError, Region, SparseBuffer

P = mmap.PAGESIZE
R = mmap.PROT_READ
TIB = 1 << 40


# ------------------------------------------------------------------------------ what is a file


class HasFileno:
    """An object of somebody else's with a descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def fileno(self) -> int:
        """Return the descriptor."""
        return self.fd


class HasPath:
    """An object of somebody else's with a path."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


@pytest.mark.parametrize("kind", [str, Path, os.fsencode, HasPath])
def test_paths(kind, make_file):
    """A path may be a str, bytes or anything that has one."""
    path, data = make_file(2 * P)
    with SparseBuffer(2 * P) as buffer:
        buffer.map_file(0, 2 * P, kind(path))
        assert buffer.read_at(0, 2 * P) == data
        assert buffer.regions == (Region(0, 2 * P, "file", False, str(path), 0),)


def test_relative_path_is_shown_whole(make_file, monkeypatch):
    """A relative path shows as the file it was, wherever the process goes afterwards."""
    path, data = make_file(P)
    monkeypatch.chdir(path.parent)
    with SparseBuffer(P) as buffer:
        buffer.map_file(0, P, path.name)
        monkeypatch.chdir("/")
        assert buffer.regions[0].file == str(path)
        assert buffer.read_at(0, P) == data


def test_descriptor_may_be_closed_at_once(make_file):
    """The window stays when the descriptor it came from is closed."""
    path, data = make_file(2 * P)
    with SparseBuffer(2 * P) as buffer:
        fd = os.open(path, os.O_RDONLY)
        buffer.map_file(0, P, fd)
        os.close(fd)
        fd = os.open(path, os.O_RDONLY)
        buffer.map_file(P, P, HasFileno(fd), P)
        os.close(fd)
        assert buffer.read_at(0, 2 * P) == data
        assert buffer.regions[0].file == str(path)


@pytest.mark.parametrize("mode", ["rb", "r+b", "r"])
def test_file_object_may_be_closed_at_once(mode, make_file):
    """The window stays when the file object it came from is closed."""
    path, data = make_file(2 * P)
    with SparseBuffer(2 * P) as buffer:
        with open(path, mode) as file:
            buffer.map_file(0, 2 * P, file)
        assert buffer.read_at(0, 2 * P) == data


def test_position_of_file_objects_stays(make_file):
    """Mapping, reading and flushing do not move the position of the caller's file."""
    path, data = make_file(2 * P)
    with SparseBuffer(2 * P) as buffer, open(path, "r+b", buffering=0) as file:
        file.seek(100)
        buffer.map_file(0, 2 * P, file, writable=True)
        assert buffer.read_at(0, 2 * P) == data
        buffer.write_at(0, data)
        buffer.gather([0, P], "u8")
        buffer.flush()
        assert file.tell() == 100
        assert file.read(5) == data[100:105]


def test_deleted_file_lives_on(make_file):
    """A window of a file that has been deleted keeps showing it."""
    path, data = make_file(P)
    with SparseBuffer(P) as buffer:
        buffer.map_file(0, P, path)
        path.unlink()
        assert buffer.read_at(0, P) == data


@pytest.mark.parametrize("file", [None, 1.5, True, [], object(), P * 1j])
def test_not_a_file(file):
    """What is no path, descriptor or file is a TypeError."""
    with SparseBuffer(P) as buffer, pytest.raises(TypeError):
        buffer.map_file(0, P, file)


def test_closed_file_object(make_file):
    """A closed file object is refused, as everywhere in Python."""
    file = open(make_file(P)[0], "rb")  # noqa: SIM115 - closed before it is used
    file.close()
    with SparseBuffer(P) as buffer, pytest.raises(ValueError, match="closed file"):
        buffer.map_file(0, P, file)


@pytest.mark.parametrize("fd", [-1, -5, 1 << 20])
def test_no_such_descriptor(fd):
    """A number that is no open descriptor is EBADF."""
    with SparseBuffer(P) as buffer, pytest.raises(OSError) as caught:
        buffer.map_file(0, P, fd)
    assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize("fd", [1 << 31, -(1 << 31) - 1, 1 << 64])
def test_descriptor_beyond_an_int(fd):
    """A number that no descriptor can have is refused too."""
    with SparseBuffer(P) as buffer, pytest.raises((OSError, OverflowError)):
        buffer.map_file(0, P, fd)


def test_devices():
    """A device is mapped if its driver can, and refused with the system's error if not."""
    with SparseBuffer(2 * P) as buffer:
        buffer.map_file(0, P, "/dev/zero")
        assert buffer.read_at(0, P) == bytes(P)
        with pytest.raises(OSError) as caught:
            buffer.map_file(P, P, "/dev/null")
        assert caught.value.errno == errno.ENODEV
        assert caught.value.filename == "/dev/null"


def test_running_interpreter():
    """The file of the running interpreter shows byte for byte."""
    data = Path(sys.executable).read_bytes()
    whole = -(-len(data) // P) * P
    with SparseBuffer(whole) as buffer:
        buffer.map_file(0, whole, sys.executable)
        assert buffer.read_at(0, len(data)) == data
        assert buffer.read_plain(1, "S3") == b"ELF"
        assert buffer.read_at(len(data), whole - len(data)) == bytes(whole - len(data))


# ------------------------------------------------------------------------------ what is seen


def test_read_only_window_sees_changes(make_file):
    """What others write to the file is seen, and nothing can be written through the window."""
    path, data = make_file(2 * P)
    with SparseBuffer(2 * P) as buffer:
        buffer.map_file(0, 2 * P, path)
        with open(path, "r+b") as file:
            file.seek(P)
            file.write(b"changed")
        assert buffer.read_at(P - 1, 9) == data[P - 1 : P] + b"changed" + data[P + 7 : P + 8]
        with pytest.raises(AccessError) as caught:
            buffer.write_at(0, b"x")
        assert (caught.value.reason, caught.value.filename) == ("read-only", str(path))


def test_shared_window_writes_the_file(make_file):
    """What is written through a shared window is in the file for everybody."""
    path, data = make_file(2 * P)
    with SparseBuffer(4 * P) as buffer:
        buffer.map_file(0, 2 * P, path, writable=True)
        buffer.map_file(2 * P, 2 * P, path)
        buffer.write_at(P - 2, b"both")
        expected = data[: P - 2] + b"both" + data[P + 2 :]
        assert path.read_bytes() == expected
        assert buffer.read_at(2 * P, 2 * P) == expected


def test_copy_on_write_window_keeps_its_own(make_file):
    """What is written through a copy-on-write window stays in the buffer."""
    path, data = make_file(2 * P)
    for writable in (False, True):
        with SparseBuffer(2 * P) as buffer:
            buffer.map_file(0, 2 * P, path, copy_on_write=True, writable=writable)
            assert buffer.regions == (Region(0, 2 * P, "file", True, str(path), 0),)
            buffer.write_at(P - 2, b"mine")
            assert buffer.read_at(0, 2 * P) == data[: P - 2] + b"mine" + data[P + 2 :]
            assert path.read_bytes() == data


def test_copy_on_write_needs_no_right_to_write(make_file):
    """A copy-on-write window can be had of a descriptor that cannot write."""
    path, data = make_file(P)
    with SparseBuffer(P) as buffer, open(path, "rb") as file:
        buffer.map_file(0, P, file, copy_on_write=True)
        buffer.write_at(0, b"x")
        assert buffer.read_at(0, P) == b"x" + data[1:]


@pytest.mark.parametrize("file_page", [0, 1, 5, 7])
def test_file_offset(file_page, make_file):
    """The window begins where in the file it was asked to."""
    _, data = make_file(8 * P)
    with SparseBuffer(10 * P) as buffer:
        count = 8 - file_page
        buffer.map_file(P, count * P, make_file(8 * P)[0], file_page * P)
        assert buffer.read_at(P, count * P) == data[file_page * P :]
        assert buffer.regions[0].file_offset == file_page * P


def test_far_end_of_a_sparse_file(tmp_path):
    """A terabyte of holes in a file is mapped as it is, and read at its end."""
    path = tmp_path / "sparse"
    try:
        with open(path, "wb") as file:
            file.seek(TIB - 3)
            file.write(b"end")
    except OSError:
        pytest.skip("the file system of the temporary folder has no files of a terabyte")
    with SparseBuffer(TIB) as buffer:
        buffer.map_file(0, TIB, path)
        assert buffer.read_at(TIB - 5, 5) == b"\0\0end"


def test_many_files_as_one(make_file):
    """Windows of many files side by side are read as one run of bytes."""
    count = 100
    files = [make_file(P, f"part-{i}", i) for i in range(count)]
    with SparseBuffer(count * P) as buffer:
        for i, (path, _) in enumerate(files):
            buffer.map_file(i * P, P, path)
        whole = b"".join(data for _, data in files)
        assert buffer.read_at(0, count * P) == whole
        assert bytes(buffer[:]) == whole
        assert [region.file for region in buffer.regions] == [str(path) for path, _ in files]


# ------------------------------------------------------------------------------ the end of the file


@pytest.mark.parametrize("extra", [1, 100, P - 1])
def test_last_page_is_padded_with_zeros(extra, make_file):
    """Bytes of the last page past the end read as zero."""
    path, data = make_file(P + extra)
    with SparseBuffer(2 * P) as buffer:
        buffer.map_file(0, 2 * P, path)
        assert buffer.read_at(0, 2 * P) == data + bytes(P - extra)


def test_write_past_the_end_is_an_error(make_file):
    """A write past the end in the last page would be lost: it is an error, after what fits."""
    path, data = make_file(P + 100)
    with SparseBuffer(2 * P) as buffer:
        buffer.map_file(0, 2 * P, path, writable=True)
        with pytest.raises(AccessError) as caught:
            buffer.write_at(P + 90, bytes(20))
        assert (caught.value.reason, caught.value.operation) == ("file-truncated", "write")
        assert (caught.value.offset, caught.value.transferred) == (P + 100, 10)
        assert path.read_bytes() == data[: P + 90] + bytes(10)


def test_copy_on_write_past_the_end_is_memory(make_file):
    """Past the end of the file, the last page of a copy-on-write window is ordinary memory."""
    path, data = make_file(P + 100)
    with SparseBuffer(2 * P) as buffer:
        buffer.map_file(0, 2 * P, path, copy_on_write=True)
        buffer.write_at(P + 90, b"A" * 20)
        assert buffer.read_at(P, P) == data[P : P + 90] + b"A" * 20 + bytes(P - 110)


@pytest.mark.parametrize(
    ("size", "file_offset", "nbytes"),
    [
        (0, 0, P), (1, 0, 2 * P), (P, 0, 2 * P), (P, P, P), (P + 1, P, 2 * P), (4 * P, 5 * P, P),
        (4 * P, 3 * P, 2 * P), (4 * P, 1 << 40, P), (4 * P, (1 << 63) - P, P),
    ],
)  # fmt: skip
def test_window_past_the_end_is_refused(size, file_offset, nbytes, make_file):
    """A window that does not lie in the file's pages is a ValueError with its name and size."""
    path, _ = make_file(size)
    with SparseBuffer(4 * P) as buffer:
        for options in ({}, {"writable": True}, {"copy_on_write": True}):
            with pytest.raises(ValueError, match="past the end") as caught:
                buffer.map_file(0, nbytes, path, file_offset, **options)
            assert str(path) in str(caught.value)
            assert f"{size:#x} ({size})" in str(caught.value)
        with pytest.raises(ValueError, match="past the end"):
            buffer.mmap(0, nbytes, R, mmap.MAP_SHARED, path, file_offset)
        assert buffer.regions == ()


@pytest.mark.parametrize("file_offset", [1, P - 1, P + 1, -1, -P, -(1 << 63), -(1 << 70)])
def test_bad_file_offset(file_offset, make_file):
    """A file offset that is negative or not in whole pages is a ValueError."""
    path, _ = make_file(4 * P)
    with SparseBuffer(4 * P) as buffer:
        with pytest.raises(ValueError):
            buffer.map_file(0, P, path, file_offset)
        assert buffer.regions == ()


@pytest.mark.parametrize("file_offset", [1 << 63, 1 << 64, 1 << 90])
def test_file_offset_beyond_any_file(file_offset, make_file):
    """A file offset of more than 63 bits is past the end of any file."""
    path, _ = make_file(4 * P)
    with SparseBuffer(4 * P) as buffer:
        with pytest.raises(ValueError, match="past the end"):
            buffer.map_file(0, P, path, file_offset)
        assert buffer.regions == ()


@pytest.mark.parametrize("file_offset", [0.0, "0", None])
def test_file_offset_is_an_int(file_offset, make_file):
    """A file offset that is no integer is a TypeError."""
    path, _ = make_file(P)
    with SparseBuffer(P) as buffer, pytest.raises(TypeError):
        buffer.map_file(0, P, path, file_offset)


def test_grown_file(make_file):
    """A file that has grown since can be mapped to its new end."""
    path, data = make_file(P)
    with SparseBuffer(4 * P) as buffer:
        buffer.map_file(0, P, path)
        with open(path, "ab") as file:
            file.write(b"x" * P)
        buffer.map_file(P, P, path, P)
        assert buffer.read_at(0, 2 * P) == data + b"x" * P
        assert buffer.regions == (Region(0, 2 * P, "file", False, str(path), 0),)


def test_bytes_that_appear_in_the_last_page(make_file):
    """What others append within the last page of a window is read."""
    path, data = make_file(100)
    with SparseBuffer(P) as buffer:
        buffer.map_file(0, P, path, writable=True)
        with open(path, "ab") as file:
            file.write(b"more")
        assert buffer.read_at(0, 105) == data + b"more\0"
        buffer.write_at(100, b"MORE")
        assert path.read_bytes() == data + b"MORE"


# ------------------------------------------------------------------------------ descriptors


@pytest.mark.parametrize("mode", ["read", "shared", "cow"])
def test_one_descriptor_for_a_thousand_windows(mode, make_file, descriptors):
    """However many windows there are of a file, one descriptor is kept, till the last is gone."""
    count = 1000
    path, data = make_file(8 * P)
    options = {"writable": mode == "shared", "copy_on_write": mode == "cow"}
    before = descriptors()
    with SparseBuffer(2 * count * P) as buffer:
        for i in range(count):
            buffer.map_file(2 * i * P, P, path, i % 8 * P, **options)
        assert len(buffer.regions) == count
        assert descriptors() == before + 1
        buffer.unmap(0, (2 * count - 2) * P)
        assert descriptors() == before + 1
        assert buffer.read_at((2 * count - 2) * P, P) == data[7 * P :]
        buffer.unmap(0, 2 * count * P)
        assert descriptors() == before


def test_all_names_of_a_file_share_a_descriptor(make_file, descriptors):
    """Paths, links, descriptors and files that lead to one file take one descriptor."""
    path, data = make_file(4 * P)
    link, symlink = path.with_name("link"), path.with_name("symlink")
    os.link(path, link)
    symlink.symlink_to(path)
    before = descriptors()
    with SparseBuffer(8 * P) as buffer:
        buffer.map_file(0, P, path)
        buffer.map_file(P, P, link, P)
        buffer.map_file(2 * P, P, symlink, 2 * P)
        with open(path, "rb") as file:
            buffer.map_file(3 * P, P, file, 3 * P)
            buffer.map_file(4 * P, P, file.fileno(), 3 * P, copy_on_write=True)
        assert descriptors() == before + 1
        assert buffer.regions[0] == Region(0, 4 * P, "file", False, str(path), 0)
        assert buffer.read_at(0, 4 * P) == data


@pytest.mark.parametrize("writes", ["path", "descriptor"])
def test_upgrade_to_writable(writes, make_file, descriptors):
    """A writable window after read-only ones still makes one descriptor, and writes arrive."""
    path, data = make_file(4 * P)
    before = descriptors()
    with SparseBuffer(8 * P) as buffer:
        buffer.map_file(0, 4 * P, path)
        if writes == "path":
            buffer.map_file(4 * P, 4 * P, path, writable=True)
        else:
            with open(path, "r+b") as file:
                buffer.map_file(4 * P, 4 * P, file, writable=True)
        assert descriptors() == before + 1
        buffer.write_at(5 * P, b"upgraded")
        buffer.flush()
        assert buffer.read_at(P, 8) == b"upgraded"
        assert path.read_bytes() == data[:P] + b"upgraded" + data[P + 8 :]
        assert [(r.offset, r.writable) for r in buffer.regions] == [(0, False), (4 * P, True)]


def test_read_only_after_writable(make_file, descriptors):
    """A read-only window after a writable one uses its descriptor."""
    path, _ = make_file(4 * P)
    before = descriptors()
    with SparseBuffer(8 * P) as buffer:
        buffer.map_file(0, 4 * P, path, writable=True)
        buffer.map_file(4 * P, 4 * P, path)
        assert descriptors() == before + 1


def test_failed_call_keeps_no_descriptor(make_file, tmp_path, descriptors):
    """A call that fails leaves no descriptor open."""
    path, _ = make_file(P)
    before = descriptors()
    with SparseBuffer(4 * P) as buffer:
        for file, offset, file_offset in [
            (path, 0, P), (path, 1, 0), (path, 0, 1), (tmp_path, 0, 0), ("/dev/null", 0, 0),
            (path, 8 * P, 0),
        ]:  # fmt: skip
            with pytest.raises((ValueError, OSError, IndexError)):
                buffer.map_file(offset, P, file, file_offset)
            assert descriptors() == before


def test_descriptor_is_not_inherited(make_file):
    """Programs that are started do not get the buffer's descriptor."""
    path, _ = make_file(P)
    with SparseBuffer(P) as buffer:
        fd = os.open(path, os.O_RDONLY)
        os.set_inheritable(fd, True)
        buffer.map_file(0, P, fd)
        os.close(fd)
        ours = [
            int(entry.name)
            for entry in Path("/proc/self/fd").iterdir()
            if os.path.realpath(entry) == str(path)
        ]
        assert len(ours) == 1
        assert not os.get_inheritable(ours[0])


def test_two_buffers_of_one_file(make_file, descriptors):
    """Each buffer keeps its own descriptor, and sees what the other writes."""
    path, _ = make_file(P)
    before = descriptors()
    with SparseBuffer(P) as first, SparseBuffer(P) as second:
        first.map_file(0, P, path, writable=True)
        second.map_file(0, P, path)
        assert descriptors() == before + 2
        first.write_at(7, b"seen")
        first.close()
        assert descriptors() == before + 1
        assert second.read_at(7, 4) == b"seen"
