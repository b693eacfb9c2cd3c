"""Holes of files, skipped when they are mapped: what is there instead, and what it costs."""

import mmap
import os
from contextlib import suppress
from itertools import groupby

import numpy as np
import pytest

from sparsearray import ClosedError, OutOfBoundsError, Region, SparseBuffer

from .sparse_files import DATA, PAGES, by_page, cached_pages, data_pages

P = mmap.PAGESIZE


# ------------------------------------------------------------------------------ what is mapped


@pytest.mark.parametrize("first", [0, 1, 4, 31, 63])
@pytest.mark.parametrize("mode", ["read", "cow"])
def test_regions(mode, first, storage):
    """Data is mapped from the file at its place, and the rest is zero pages, or memory."""
    count, cow = PAGES - first, mode == "cow"
    with SparseBuffer((count + 4) * P) as buffer:
        buffer.map_file(
            2 * P, count * P, storage.path, first * P, copy_on_write=cow, skip_holes=True
        )
        data = data_pages(storage.fd)
        expected = []
        for is_data, group in groupby(range(first, PAGES), lambda page: page in data):
            pages = list(group)
            at, nbytes = (pages[0] - first + 2) * P, len(pages) * P
            if is_data:
                expected.append(Region(at, nbytes, "file", cow, str(storage.path), pages[0] * P))
            else:
                expected.append(Region(at, nbytes, "private" if cow else "zero", cow, None, None))
        assert list(buffer.regions) == expected
        assert buffer.read_at(2 * P, count * P) == storage.content()[first * P :]
        assert buffer[2 * P : (count + 2) * P].tobytes() == storage.content()[first * P :]


@pytest.mark.parametrize("mode", ["read", "cow"])
def test_kernel_agrees(mode, storage, mappings):
    """The kernel has the file mapped where there is data, and nothing of it elsewhere."""
    with SparseBuffer(PAGES * P) as buffer:
        buffer.map_file(0, PAGES * P, storage.path, copy_on_write=mode == "cow", skip_holes=True)
        inode = os.fstat(storage.fd).st_ino
        pages = {
            page: one.file_offset // P + page - one.start // P
            for one in mappings(buffer, "maps")
            if one.inode == inode
            for page in range(one.start // P, one.stop // P)
        }
        assert pages == {page: page for page in DATA}


@pytest.mark.parametrize("by", ["descriptor", "file object"])
def test_by_descriptor(by, storage, linux_core):
    """A descriptor of the user's is asked without moving its position, and may be closed at once."""
    own = os.dup(storage.fd)
    os.lseek(storage.fd, 4321, os.SEEK_SET)
    with SparseBuffer(PAGES * P) as buffer:
        if by == "descriptor":
            buffer.map_file(0, PAGES * P, own, skip_holes=True)
            os.close(own)
        else:
            with open(own, "r+b", buffering=0) as file:
                buffer.map_file(0, PAGES * P, file, skip_holes=True)
        assert os.lseek(storage.fd, 0, os.SEEK_CUR) == 4321
        assert buffer.read_at(0, PAGES * P) == storage.content()
        os.lseek(storage.fd, 4321, os.SEEK_SET)
        os.pwrite(storage.fd, b"x", 20 * P)
        assert buffer.refresh() == (P if linux_core else 0)
        assert os.lseek(storage.fd, 0, os.SEEK_CUR) == 4321
        assert buffer.read_at(0, PAGES * P) == storage.content()


def test_one_descriptor(storage, descriptors):
    """One descriptor is kept, also where there are only holes, and goes with the last of them."""
    before = descriptors()
    with SparseBuffer(PAGES * P) as buffer:
        buffer.map_file(0, PAGES * P, storage.path, skip_holes=True)
        assert descriptors() == before + 1
        buffer.map_file(0, 10 * P, storage.path, 10 * P, skip_holes=True)
        buffer.refresh()
        buffer.unmap(10 * P, (PAGES - 10) * P)
        assert {region.kind for region in buffer.regions} == {"zero"}
        assert descriptors() == before + 1
        buffer.map_zero(0, 10 * P)
        assert descriptors() == before


@pytest.mark.parametrize("extra", [1, 100, P - 1])
@pytest.mark.parametrize("last", ["data", "hole"])
def test_no_whole_number_of_pages(last, extra, storage):
    """The last page is whole, be it data or hole."""
    os.ftruncate(storage.fd, (62 if last == "data" else 40) * P + extra)
    count = 63 if last == "data" else 41
    with SparseBuffer(PAGES * P) as buffer:
        buffer.map_file(0, count * P, storage.path, skip_holes=True)
        assert by_page(buffer) == {
            page: "file" if page in data_pages(storage.fd) else "zero" for page in range(count)
        }
        assert buffer.read_at(0, count * P) == storage.content()
        os.pwrite(storage.fd, b"end", count * P - 3)
        buffer.refresh()
        assert buffer.read_at(0, count * P) == storage.content()


def test_all_hole_and_no_hole(storage):
    """A file that is one hole is zero pages only, and one without any is mapped as it is."""
    with SparseBuffer(PAGES * P) as buffer:
        os.pwrite(storage.fd, b"x" * PAGES * P, 0)
        buffer.map_file(0, PAGES * P, storage.path, skip_holes=True)
        assert buffer.regions == (Region(0, PAGES * P, "file", False, str(storage.path), 0),)
        os.ftruncate(storage.fd, 0)
        os.ftruncate(storage.fd, PAGES * P)
        buffer.map_file(0, PAGES * P, storage.path, skip_holes=True)
        assert buffer.regions == (Region(0, PAGES * P, "zero", False, None, None),)
        assert buffer.extents().tolist() == []


@pytest.mark.parametrize("copy_on_write", [False, True])
def test_extents_are_the_data(copy_on_write, storage, linux_core):
    """Holes that are skipped are no extents, data is; and so is what a copy of one's own holds."""
    if copy_on_write and not linux_core:
        pytest.skip("on POSIX alone nobody tells of own copies")
    with SparseBuffer(PAGES * P) as buffer:
        buffer.map_file(0, PAGES * P, storage.path, copy_on_write=copy_on_write, skip_holes=True)
        expected = set(DATA)
        assert buffer.read_at(0, PAGES * P) == storage.content()
        if copy_on_write:
            buffer.write_at(20 * P, b"own")
            buffer.write_at(3 * P, b"own")
            expected |= {20}
        found = {page for a, b in buffer.extents().tolist() for page in range(a // P, b // P)}
        assert found == expected
        assert buffer.nbytes_stored == len(expected) * P
        assert data_pages(storage.fd) == set(DATA)


def test_copies_stay_ones_own(storage):
    """What is written over holes and data of a copy-on-write window does not reach the file."""
    before = storage.content()
    with SparseBuffer(PAGES * P) as buffer:
        buffer.map_file(0, PAGES * P, storage.path, copy_on_write=True, skip_holes=True)
        buffer.write_at(0, b"own" * PAGES * (P // 3))
        assert storage.content() == before
        assert data_pages(storage.fd) == set(DATA)
        buffer.decommit(0, PAGES * P)
        assert buffer.read_at(0, PAGES * P) == before


def test_terabyte_of_holes(tmp_path, resident):
    """A terabyte with data at both ends is mapped, read where one likes, and costs nothing."""
    size = 1 << 40
    path = tmp_path / "large"
    try:
        with open(path, "wb") as file:
            file.truncate(size)
            os.pwrite(file.fileno(), b"first", 0)
            os.pwrite(file.fileno(), b"last", size - 4)
    except OSError:
        pytest.skip("the file system of the temporary folder has no files of a terabyte")
    with SparseBuffer(size + 2 * P) as buffer:
        buffer.map_file(P, size, path, skip_holes=True)
        assert not buffer[1 << 30 : 1 << 31 : P].any()
        assert buffer.read_at(P, 6) == b"first\0"
        assert buffer.read_at(P + size - 5, 5) == b"\0last"
        assert resident(buffer) <= 64 * P
        buffer.map_file(P, size, path, copy_on_write=True, skip_holes=True)
        buffer.write_at(1 << 35, b"own")
        assert buffer.read_at(P + size - 5, 5) == b"\0last"


# ------------------------------------------------------------------------------ what it costs


COUNT, COLD = 1 << 15, [5, 9000, 20_000]


@pytest.fixture
def cold_file(tmp_path):
    """Make a file of three pages of data, of which nothing is in the page cache."""
    with open(tmp_path / "file", "w+b") as file:
        file.truncate(COUNT * P)
        for page in COLD:
            os.pwrite(file.fileno(), b"x", page * P)
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if data_pages(file.fileno()) != set(COLD) or cached_pages(file.fileno(), COUNT):
            pytest.skip("this file system has no such holes, or keeps them cached")
        yield file


@pytest.mark.parametrize("mode", ["read", "cow"])
def test_reading_holes_costs_nothing(mode, cold_file, resident, linux_core):
    """Reading the holes of a file puts nothing of them into the page cache, nor into memory."""
    with SparseBuffer((COUNT + 2) * P) as buffer:
        buffer.map_file(P, COUNT * P, cold_file.name, copy_on_write=mode == "cow", skip_holes=True)
        holes = [one for one in buffer.regions if one.kind != "file"]
        assert sum(hole.nbytes for hole in holes) == (COUNT - len(COLD)) * P
        for hole in holes:
            assert not buffer[hole.offset : hole.offset + hole.nbytes].any()
        assert cached_pages(cold_file.fileno(), COUNT) == set()
        if linux_core:
            assert resident(buffer) == 0


def test_reading_all_of_it_costs_the_data(cold_file, linux_core):
    """Reading a file from a cold cache puts its data into the page cache, and no hole."""
    if not linux_core:
        pytest.skip("only Linux tells how far it reads ahead")
    with SparseBuffer(COUNT * P) as buffer:
        buffer.map_file(0, COUNT * P, cold_file.name, skip_holes=True)
        assert np.flatnonzero(buffer[:]).tolist() == [page * P for page in COLD]
    assert cached_pages(cold_file.fileno(), COUNT) <= set(COLD)


# ------------------------------------------------------------------------------ what is refused


def test_writable_is_refused(storage):
    """A writable window cannot skip holes; what was there stays."""
    with SparseBuffer(PAGES * P) as buffer:
        buffer.alloc(0, 2 * P)
        buffer.write_at(0, b"old")
        before = buffer.regions
        with pytest.raises(ValueError, match="skip_holes"):
            buffer.map_file(0, PAGES * P, storage.path, writable=True, skip_holes=True)
        assert buffer.regions == before
        assert buffer.read_at(0, 3) == b"old"
        # copy_on_write leaves `writable` no part to play
        buffer.map_file(
            0, PAGES * P, storage.path, writable=True, copy_on_write=True, skip_holes=True
        )
        assert buffer.read_at(0, PAGES * P) == storage.content()


def test_other_refusals(storage, tmp_path, descriptors):
    """A bad call fails as without skip_holes, and changes nothing."""
    before = descriptors()
    with SparseBuffer(PAGES * P) as buffer:
        buffer.map_zero(0, PAGES * P)
        cases = [
            ((0, PAGES * P, storage.path, P), ValueError),
            ((P // 2, P, storage.path), ValueError),
            ((0, P, storage.path, 5), ValueError),
            ((PAGES * P, P, storage.path), OutOfBoundsError),
            ((0, P, tmp_path), OSError),
            ((0, P, tmp_path / "none"), FileNotFoundError),
        ]
        for arguments, error in cases:
            with pytest.raises(error):
                buffer.map_file(*arguments, skip_holes=True)
            assert buffer.regions == (Region(0, PAGES * P, "zero", False, None, None),)
        held = buffer[P : 2 * P]
        with pytest.raises(BufferError):
            buffer.map_file(0, 2 * P, storage.path, skip_holes=True)
        assert buffer.regions == (Region(0, PAGES * P, "zero", False, None, None),)
        del held
        assert descriptors() == before
    with pytest.raises(ClosedError):
        buffer.map_file(0, P, storage.path, skip_holes=True)


@pytest.mark.parametrize("content", ["all hole", "holes and data"])
def test_made_writable(content, storage):
    """What is written after set_writable reaches the file, or set_writable refuses."""
    if content == "all hole":
        os.ftruncate(storage.fd, 0)
        os.ftruncate(storage.fd, PAGES * P)
    with SparseBuffer(2 * PAGES * P) as buffer:
        buffer.map_file(PAGES * P, PAGES * P, storage.path, writable=True)
        buffer.map_file(0, PAGES * P, storage.path, skip_holes=True)
        with suppress(OSError, ValueError, BufferError):
            buffer.set_writable(0, PAGES * P, True)
            buffer.write_at(0, b"1")
            buffer.write_at(20 * P, b"2")
            assert os.pread(storage.fd, 1, 0) == b"1"
            assert os.pread(storage.fd, 1, 20 * P) == b"2"
