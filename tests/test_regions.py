"""`regions`: that it says what the kernel says, sorted and joined."""

import mmap
import os
import random
from itertools import pairwise
from pathlib import Path

import pytest

from sparsearray import Region, SparseBuffer

P = mmap.PAGESIZE
R, W = mmap.PROT_READ, mmap.PROT_WRITE
PAGES = 48


def by_page(pieces):
    """Spread (start, stop, perms, file offset, inode) over pages."""
    pages = {}
    for start, stop, perms, file_offset, inode in pieces:
        for offset in range(start, stop, P):
            pages[offset // P] = (perms, (file_offset + offset - start) if inode else 0, inode)
    return pages


def kernel_pages(buffer, mappings):
    """Tell what the kernel has mapped, page by page; holes left out."""
    return by_page(
        (one.start, one.stop, one.perms, one.file_offset, one.inode)
        for one in mappings(buffer, "maps")
        if one.perms != "---p"
    )


def table_pages(buffer, modes):
    """Tell what `regions` says, page by page, in the kernel's words."""
    pieces = []
    for region in buffer.regions:
        inode = Path(region.file).stat().st_ino if region.file else 0
        letter = "s" if modes[region.offset // P] else "p"
        perms = f"r{'w' if region.writable else '-'}-{letter}"
        stop = region.offset + region.nbytes
        pieces.append((region.offset, stop, perms, region.file_offset or 0, inode))
    return by_page(pieces)


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_the_kernel(seed, mappings, make_file):
    """After any sequence of calls, regions are what /proc/self/maps has, page by page."""
    rng = random.Random(seed)
    files = [make_file(PAGES * P, f"file{i}")[0] for i in range(2)]
    shared = [False] * PAGES
    with SparseBuffer(PAGES * P) as buffer:
        for _ in range(250):
            start = rng.randrange(PAGES)
            stop = rng.randint(start + 1, min(PAGES, start + 12))
            at, nbytes, path = start * P, (stop - start) * P, rng.choice(files)
            file_offset = rng.randint(0, PAGES - (stop - start)) * P
            if rng.random() < 0.3:  # one that may join
                file_offset = at % (PAGES * P - nbytes + P)
            kind = rng.choice(["alloc", "zero", "read", "shared", "cow", "unmap", "raw", "set"])
            if kind == "set":
                mapped = {
                    page for r in buffer.regions if r.kind in {"private", "zero"}
                    for page in range(r.offset // P, (r.offset + r.nbytes) // P)
                }  # fmt: skip
                if mapped >= set(range(start, stop)):
                    buffer.set_writable(at, nbytes, rng.random() < 0.5)
                continue
            if kind == "alloc":
                buffer.alloc(at, nbytes)
            elif kind == "zero":
                buffer.map_zero(at, nbytes)
            elif kind == "unmap":
                buffer.unmap(at, nbytes)
            elif kind == "raw":
                buffer.mmap_anonymous(at, nbytes, R, mmap.MAP_PRIVATE)
            else:
                options = {"writable": kind == "shared", "copy_on_write": kind == "cow"}
                buffer.map_file(at, nbytes, path, file_offset, **options)
            shared[start:stop] = [kind in {"read", "shared"}] * (stop - start)
            assert table_pages(buffer, shared) == kernel_pages(buffer, mappings)
        ends = [(r.offset, r.offset + r.nbytes) for r in buffer.regions]
        assert ends == sorted(ends)
        assert all(first[1] <= second[0] for first, second in pairwise(ends))


def test_fields():
    """A region has its fields by name, and is a tuple."""
    assert Region._fields == ("offset", "nbytes", "kind", "writable", "file", "file_offset")
    with SparseBuffer(4 * P) as buffer:
        buffer.alloc(P, P)
        (region,) = buffer.regions
    assert isinstance(region, Region)
    assert region == (P, P, "private", True, None, None)


def test_empty_buffer_has_none():
    """A buffer of holes has no regions."""
    with SparseBuffer(P) as buffer:
        assert buffer.regions == ()


def test_kinds(make_file):
    """Each kind has its name, and tells file and offset if there is one."""
    path, _ = make_file(4 * P)
    with SparseBuffer(16 * P) as buffer:
        buffer.alloc(0, P)
        buffer.map_zero(2 * P, P)
        buffer.map_file(4 * P, P, path, P)
        buffer.map_file(6 * P, P, path, writable=True)
        buffer.map_file(8 * P, P, path, copy_on_write=True)
        buffer.mmap(10 * P, P, R, mmap.MAP_SHARED, path, 3 * P)
        buffer.mmap_anonymous(12 * P, P, R | W, mmap.MAP_SHARED)
        assert buffer.regions == (
            (0, P, "private", True, None, None),
            (2 * P, P, "zero", False, None, None),
            (4 * P, P, "file", False, str(path), P),
            (6 * P, P, "file", True, str(path), 0),
            (8 * P, P, "file", True, str(path), 0),
            (10 * P, P, "raw", False, str(path), 3 * P),
            (12 * P, P, "raw", True, None, None),
        )


def test_split_window_keeps_its_file_offsets(make_file):
    """A window with a hole made in it becomes two, each with its own place in the file."""
    path, data = make_file(8 * P)
    with SparseBuffer(8 * P) as buffer:
        buffer.map_file(0, 6 * P, path, 2 * P)
        buffer.unmap(2 * P, P)
        assert buffer.regions == (
            (0, 2 * P, "file", False, str(path), 2 * P),
            (3 * P, 3 * P, "file", False, str(path), 5 * P),
        )
        assert buffer.read_at(3 * P, 3 * P) == data[5 * P :]


def test_filled_gap_joins_again(make_file):
    """A gap filled with what was there makes one region again."""
    path, data = make_file(8 * P)
    with SparseBuffer(8 * P) as buffer:
        buffer.map_file(0, 6 * P, path, 2 * P)
        buffer.unmap(2 * P, P)
        buffer.map_file(2 * P, P, path, 4 * P)
        assert buffer.regions == ((0, 6 * P, "file", False, str(path), 2 * P),)
        assert buffer.read_at(0, 6 * P) == data[2 * P :]


def test_what_does_not_join(make_file):
    """Neighbours that differ in file, place in it, writability or sharing stay apart."""
    path, _ = make_file(8 * P)
    other, _ = make_file(8 * P, "other")
    with SparseBuffer(16 * P) as buffer:
        buffer.map_file(0, P, path)
        buffer.map_file(P, P, other, P)  # another file
        buffer.map_file(2 * P, P, other, P)  # the same page again
        buffer.map_file(3 * P, P, other, 2 * P, writable=True)  # writable
        buffer.map_file(4 * P, P, other, 3 * P, copy_on_write=True)  # not shared
        buffer.alloc(5 * P, P)
        buffer.map_zero(6 * P, P)
        assert [region.offset for region in buffer.regions] == [i * P for i in range(7)]


def test_hundreds_of_regions():
    """However many regions there are, all are told."""
    count = 3000
    with SparseBuffer(2 * count * P) as buffer:
        for i in range(count):
            buffer.alloc(2 * i * P, P)
        expected = [(2 * i * P, P, "private", True, None, None) for i in range(count)]
        assert list(buffer.regions) == expected


def test_strange_file_names(tmp_path, pattern):
    """Names with spaces, newlines, quotes, and bytes that are no text show as they are."""
    names = ["with space", "new\nline", "quote'\"", "ümläut", os.fsdecode(b"\xff\xfe"), "(deleted)"]
    for name in names:
        path = tmp_path / name
        path.write_bytes(pattern(P))
        with SparseBuffer(2 * P) as buffer:
            buffer.map_file(0, P, path)
            with open(path, "rb") as file:
                buffer.map_file(P, P, file, copy_on_write=True)
            assert {region.file for region in buffer.regions} == {str(path)}
