"""Buffers laid out in all the ways there are, looked at in all the places that matter."""

import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsearray import SharedMemory, SparseBuffer, shared_memory
from sparsearray.testing import LAYOUTS, Layout, ModelBuffer, ModelFile, agree, layouts, outcome

PAGE = mmap.PAGESIZE
MAX_PAGES = 12


def _int64(offsets: list[int]) -> Any:
    """As numpy takes them: what no int64 holds is as far out of bounds as can be."""
    return np.array([min(offset, 2**63 - 1) for offset in offsets])


# Each takes a buffer, or its model, and the offset to look at.
CALLS: dict[str, Callable[[Any, int], Any]] = {
    "read nothing": lambda buffer, at: buffer.read_at(at, 0),
    "read a byte": lambda buffer, at: buffer.read_at(at, 1),
    "read a few bytes": lambda buffer, at: buffer.read_at(at, 9),
    "read more than a page": lambda buffer, at: buffer.read_at(at, PAGE + 1),
    "read all the rest": lambda buffer, at: buffer.read_at(at, buffer.nbytes - at),
    "read a number": lambda buffer, at: buffer.read_plain(at, ">u4"),
    "read records": lambda buffer, at: buffer.read_plain(at, [("a", "u1"), ("b", "<f8")], (2,)),
    "gather": lambda buffer, at: buffer.gather(_int64([at, 0, at]), "u2"),
    "load": lambda buffer, at: buffer.atomic_slice(at, 1).load(0),
    "write nothing": lambda buffer, at: buffer.write_at(at, b""),
    "write a few bytes": lambda buffer, at: buffer.write_at(at, b"spam"),
    "write a number": lambda buffer, at: buffer.write_plain(at, at % 97, "<u8"),
    "fill a few bytes": lambda buffer, at: buffer.fill_at(at, 0xA5, 3),
    "fill a page": lambda buffer, at: buffer.fill_at(at, 0x5A, PAGE),
    "scatter": lambda buffer, at: buffer.scatter(_int64([at, at + 1]), np.array([258, 772], "u2")),
    "fetch_add": lambda buffer, at: buffer.atomic_slice(at, 1).fetch_add(0, 3),
    "unmap": lambda buffer, at: buffer.unmap(at, PAGE),
    "set_writable": lambda buffer, at: buffer.set_writable(at, PAGE, False),
    "decommit": lambda buffer, at: buffer.decommit(at, PAGE),
}


class Pair(NamedTuple):
    """A buffer and its model, and what both may map."""

    real: SparseBuffer
    model: ModelBuffer
    memory: SharedMemory
    file: ModelFile

    def both(self, what: str, call: Callable[[Any, Any], Any]) -> None:
        """Call it with a buffer and a file, on both sides."""
        actual = outcome(lambda: call(self.real, self.memory))
        agree(what, actual, outcome(lambda: call(self.model, self.file)))

    def populate(self, how: str, offset: int, nbytes: int) -> None:
        """Map a block on both sides; what one refuses, the other must refuse."""
        match how:
            case "private":
                self.both("alloc", lambda buffer, _: buffer.alloc(offset, nbytes))
            case "zero":
                self.both("map_zero", lambda buffer, _: buffer.map_zero(offset, nbytes))
            case _:
                write = how == "shared"
                self.both(
                    "map_file",
                    lambda buffer, file: buffer.map_file(offset, nbytes, file, writable=write),
                )

    def look(self, name: str, at: int) -> None:
        """Make one of the calls at one place."""
        call = CALLS[name]
        self.both(f"{name} at {at:#x}", lambda buffer, _: call(buffer, at))


@contextmanager
def laid_out(layout: Layout, contents: list[str]) -> Iterator[Pair]:
    """Make a buffer and its model, and map the blocks of the layout."""
    with shared_memory(MAX_PAGES * PAGE) as memory, SparseBuffer(layout.nbytes) as real:
        name = str(Path(f"/proc/self/fd/{memory.fileno()}").readlink())
        file = ModelFile(name, bytearray(memory.nbytes))
        pair = Pair(real, ModelBuffer(layout.nbytes, PAGE), memory, file)
        for number, (offset, nbytes) in enumerate(layout.blocks):
            pair.populate(contents[number % len(contents)], offset, nbytes)
        yield pair


CONTENTS = st.lists(st.sampled_from(["private", "zero", "file", "shared"]), min_size=1, max_size=4)
FEW = settings(max_examples=20, deadline=None)


@pytest.mark.parametrize("kind", LAYOUTS)
@FEW
@given(st.data(), CONTENTS)
def test_layout(kind: str, data: st.DataObject, contents: list[str]) -> None:
    """A layout is accepted or refused, and listed, as the model says."""
    layout = data.draw(layouts(st.just(kind), max_pages=MAX_PAGES, page_size=PAGE))
    with laid_out(layout, contents) as pair:
        assert pair.real.regions == pair.model.regions


@pytest.mark.parametrize("kind", LAYOUTS)
@FEW
@given(st.data(), CONTENTS)
def test_calls_at_each_probe(kind: str, data: st.DataObject, contents: list[str]) -> None:
    """At edges, middles, gaps and past the end, calls return, raise and change what they must."""
    layout = data.draw(layouts(st.just(kind), max_pages=MAX_PAGES, page_size=PAGE))
    names = data.draw(st.permutations(list(CALLS)))
    with laid_out(layout, contents) as pair:
        for at in layout.probes():
            for name in names:
                pair.look(name, at)
        assert pair.real.regions == pair.model.regions
        for offset, nbytes in pair.model.readable_runs():
            assert pair.real.read_at(offset, nbytes) == pair.model.read_at(offset, nbytes)


@pytest.mark.parametrize("kind", LAYOUTS)
@FEW
@given(st.data(), CONTENTS)
def test_windows_at_each_probe(kind: str, data: st.DataObject, contents: list[str]) -> None:
    """A window opens where all it spans is mapped, shows those bytes, and takes writes."""
    layout = data.draw(layouts(st.just(kind), max_pages=MAX_PAGES, page_size=PAGE))
    with laid_out(layout, contents) as pair:
        for at in layout.probes():
            expected = outcome(lambda: pair.model.window(at, 5, "<u2").read())  # noqa: B023
            agree(f"window at {at:#x}", outcome(lambda: pair.real.window(at, 5, "<u2")), expected)  # noqa: B023
            if expected.error is None and pair.model.windows[-1].writable:
                pair.real.window(at, 5, "<u2")[:] = at
                pair.model.write_at(at, np.full(5, at, "<u2"))
            for window in list(pair.model.windows):
                window.release()
        for offset, nbytes in pair.model.readable_runs():
            assert pair.real.read_at(offset, nbytes) == pair.model.read_at(offset, nbytes)
