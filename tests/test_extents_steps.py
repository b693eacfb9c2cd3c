"""Extents after steps in any order: against a model in plain Python that knows every byte."""

import mmap
import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparsearray import SparseBuffer, UnsupportedError
from sparsearray.extents import find_extents

from .sparse_files import data_pages

P = mmap.PAGESIZE
PAGES = 20
DATA = (0, 3, 4, 9, 15)

Step = tuple[str, int, int, int]

KINDS = ["alloc", "zero", "shared", "read", "cow", "read-skip", "cow-skip", "raw"]
steps = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from([*KINDS, "unmap", "decommit"]),
            st.integers(0, PAGES - 1).map(lambda page: page * P),
            st.integers(1, 8).map(lambda count: count * P),
            st.just(0),
        ),
        st.tuples(
            st.sampled_from(["write", "write", "clear"]),
            st.integers(0, PAGES * P - 1),
            st.one_of(st.integers(0, 64), st.integers(0, 4 * P)),
            st.integers(0, 255),
        ),
    ),
    max_size=25,
)


class Model:
    """
    What is mapped, page by page, and what it holds.

    Window `shared` is of a file of its own at the same offsets; all others are of a file that nobody
    changes.
    """

    def __init__(self, constant: bytes, constant_data: set[int]) -> None:
        self.constant, self.constant_data = constant, constant_data
        self.file = bytearray(PAGES * P)
        self.kinds: list[str | None] = [None] * PAGES
        self.own = bytearray(PAGES * P)
        self.touched = [False] * PAGES

    def pages(self, offset: int, nbytes: int) -> range:
        """Say which pages a range touches."""
        return range(offset // P, -(-(offset + nbytes) // P)) if nbytes else range(0)

    def all_are(self, offset: int, nbytes: int, kinds: set[str | None]) -> bool:
        """Tell whether all of a range is mapped in one of some ways."""
        return all(self.kinds[page] in kinds for page in self.pages(offset, nbytes))

    def map(self, kind: str | None, offset: int, nbytes: int) -> None:
        """Replace what is mapped."""
        for page in self.pages(offset, nbytes):
            known = kind
            if kind in {"read-skip", "cow-skip"} and page not in self.constant_data:
                known = "zero" if kind == "read-skip" else "alloc"
            self.kinds[page] = known.removesuffix("-skip") if known else None
            self.forget(page)

    def forget(self, page: int) -> None:
        """Give back what a page holds of its own."""
        at = slice(page * P, page * P + P)
        self.touched[page] = False
        self.own[at] = self.constant[at] if self.kinds[page] in {"read", "cow"} else bytes(P)

    def write(self, offset: int, data: bytes) -> None:
        """Write through a mapping."""
        for i, byte in enumerate(data, offset):
            (self.file if self.kinds[i // P] == "shared" else self.own)[i] = byte
        for page in self.pages(offset, len(data)):
            self.touched[page] = True

    def content(self, page: int) -> bytes:
        """Return what a mapped page shows."""
        return bytes((self.file if self.kinds[page] == "shared" else self.own)[page * P :][:P])


WRITABLE = {"alloc", "shared", "cow", "raw"}


def map_pages(
    buffer: SparseBuffer, files: tuple[str, str], what: str, offset: int, nbytes: int
) -> None:
    """Map a range in one of the ways."""
    if what == "alloc":
        buffer.alloc(offset, nbytes)
        with suppress(OSError, UnsupportedError):
            buffer.advise(offset, nbytes, "nohugepage")
    elif what == "zero":
        buffer.map_zero(offset, nbytes)
    elif what == "raw":
        buffer.mmap_anonymous(offset, nbytes, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE)
    else:
        buffer.map_file(
            offset,
            nbytes,
            files[what == "shared"],
            offset,
            writable=what == "shared",
            copy_on_write=what.startswith("cow"),
            skip_holes=what.endswith("skip"),
        )


def take(buffer: SparseBuffer, model: Model, files: tuple[str, str], step: Step) -> None:
    """Take a step in both, where it is one that must succeed."""
    what, offset, nbytes, value = step
    nbytes = min(nbytes, PAGES * P - offset)
    if what in KINDS:
        map_pages(buffer, files, what, offset, nbytes)
        model.map(what, offset, nbytes)
    elif what == "unmap":
        buffer.unmap(offset, nbytes)
        model.map(None, offset, nbytes)
    elif what == "decommit" and model.all_are(offset, nbytes, {*WRITABLE, "zero", "read"}):
        buffer.decommit(offset, nbytes)
        for page in model.pages(offset, nbytes):
            model.forget(page)
    elif what == "write" and model.all_are(offset, nbytes, WRITABLE):
        buffer.fill_at(offset, value, nbytes)
        model.write(offset, bytes([value]) * nbytes)
    elif what == "clear" and model.all_are(offset, nbytes, WRITABLE):
        buffer._clear(offset, nbytes)
        model.write(offset, bytes(nbytes))


def check(buffer: SparseBuffer, model: Model, shared_fd: int, exact: bool) -> None:
    """Compare all that can be asked."""
    found = buffer.extents().tolist()
    ends = [end for pair in found for end in pair]
    assert all(first < second for first, second in pairwise(ends))  # sorted, apart, none empty
    assert all(end % P == 0 and 0 <= end <= PAGES * P for end in ends)
    assert buffer.nbytes_stored == sum(stop - start for start, stop in found)
    covered = {page for start, stop in found for page in range(start // P, stop // P)}
    needed = {page for page in range(PAGES) if model.kinds[page] and any(model.content(page))}
    assert needed <= covered
    assert all(model.kinds[page] not in {None, "zero"} for page in covered)
    for start, stop in [(0, PAGES * P), (5, 3 * P), (7 * P - 1, 11 * P + 1)]:
        cut = [[max(a, start), min(b, stop)] for a, b in found]
        assert buffer.extents(start, stop - start).tolist() == [[a, b] for a, b in cut if a < b]
    if exact:
        data = {
            "shared": data_pages(shared_fd),
            "read": model.constant_data,
            "cow": model.constant_data,
        }
        for page in covered:
            kind = model.kinds[page]
            assert page in data.get(kind or "", ()) or (kind != "read" and model.touched[page])
        for method in ("scan", "pagemap"):
            with suppress(UnsupportedError):
                asked = find_extents(buffer._reservation, PAGES * P, 0, PAGES * P, method).tolist()
                pages = {page for start, stop in asked for page in range(start // P, stop // P)}
                assert needed <= pages <= covered
    for page in range(PAGES):
        if model.kinds[page]:
            assert buffer.read_at(page * P, P) == model.content(page)


@pytest.fixture(scope="module")
def constant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Make a file with holes that nobody changes."""
    path = tmp_path_factory.mktemp("steps") / "constant"
    with open(path, "w+b", buffering=0) as file:
        file.truncate(PAGES * P)
        for page in DATA:
            os.pwrite(file.fileno(), bytes([page + 1]) * 30, page * P + 11)
        if data_pages(file.fileno()) != set(DATA):
            pytest.skip("the holes of this file system are not of single pages")
        yield str(path)


@settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps)
def test_steps(linux_core, constant, tmp_path, todo):
    """Whatever was done, extents cover every byte that is not zero, and nothing that is not there."""
    model = Model(Path(constant).read_bytes(), set(DATA))
    shared = str(tmp_path / "shared")
    fd = os.open(shared, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        os.ftruncate(fd, PAGES * P)
        with SparseBuffer(PAGES * P) as buffer:
            for step in todo:
                take(buffer, model, (constant, shared), step)
            check(buffer, model, fd, linux_core)
            assert os.pread(fd, PAGES * P, 0) == model.file
    finally:
        os.close(fd)
