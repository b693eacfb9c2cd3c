"""A hypothesis state machine: a real `SparseBuffer` and its model take the same steps.

After every step the two must agree on the outcome (a value, or an error and what it says), on the
regions, and on every byte that can be read, through the buffer, through all its windows and through
the files; and `/proc/self/maps`, where there is one, must show the same pages.
"""

from __future__ import annotations

import gc
import mmap
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sparsearray import AccessError, SharedMemory, SparseBuffer, shared_memory
from sparsearray.testing.arguments import (
    ACCESSES,
    ATOMIC_DTYPES,
    ATOMICS,
    BAD_FLAGS,
    CONTENTS,
    DATA,
    FILE_OFFSETS,
    FILE_RANGES,
    FILE_SIZES,
    FLAGS,
    HANDLES,
    MAPPED_RANGES,
    OFFSETS,
    OPERANDS,
    PAGE,
    PLACES,
    PLANS,
    PROTECTIONS,
    RANGES,
    SHAPES,
    SOME,
    STRIDES,
    WRITABLE,
)
from sparsearray.testing.cases import DERIVATIONS, NONSENSE, ON_CLOSED
from sparsearray.testing.model import ModelBuffer
from sparsearray.testing.model_pages import ModelFile
from sparsearray.testing.model_views import ModelWindow
from sparsearray.testing.outcomes import agree, kernel_mappings, outcome, raw_bytes
from sparsearray.testing.strategies import Layout, dtypes, mostly

__all__ = ["SparseBufferMachine"]

_MOST_HELD = 8  # windows at a time


@dataclass(eq=False)
class _Backing:
    """A file on both sides."""

    model: ModelFile
    descriptor: int
    path: Path | None = None
    sealed: SharedMemory | None = None

    @contextmanager
    def opened(self, how: str, write: bool) -> Iterator[tuple[Any, bool]]:
        """What to pass for the file, for as long as the call takes, and whether it can write."""
        if self.sealed is not None:
            yield self.sealed, True
        elif how == "path" and self.path is not None:
            yield self.path, write
        elif how == "read-only":
            fd = os.open(f"/proc/self/fd/{self.descriptor}", os.O_RDONLY)
            try:
                yield fd, False
            finally:
                os.close(fd)
        elif how == "object":
            with Path(f"/proc/self/fd/{self.descriptor}").open("r+b") as file:
                yield file, True
        else:
            yield self.descriptor, True


@dataclass
class _Held:
    """A live window, and what holds it: each object, with how it was made of the window."""

    model: ModelWindow
    holders: list[tuple[Any, Callable[[Any], Any]]] = field(default_factory=list)


def _array(dtype: np.dtype[Any], data: bytes, shape: Any = ()) -> Any:
    """Make an array of `dtype` whose bytes repeat `data`."""
    size = int(np.prod(shape)) * dtype.itemsize
    return np.ndarray(shape, dtype, bytearray((data * (size // len(data) + 1))[:size]))


class SparseBufferMachine(RuleBasedStateMachine):
    """
    Steps that a `SparseBuffer` and a `ModelBuffer` take together.

    Use ``SparseBufferMachine.TestCase``, and override `make_buffer` to test something else that
    is used like a buffer.

    Attributes
    ----------
    real : SparseBuffer
    model : ModelBuffer
    """

    real: SparseBuffer
    model: ModelBuffer

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._files: list[_Backing] = []
        self._held: list[_Held] = []

    def make_buffer(self, nbytes: int) -> SparseBuffer:
        """Make the buffer to test."""
        return SparseBuffer(nbytes)

    @initialize(
        layout=PLANS,
        contents=CONTENTS,
        sizes=st.tuples(FILE_SIZES, FILE_SIZES),
    )
    def start(self, layout: Layout, contents: list[str], sizes: tuple[int, int]) -> None:
        """Make files, and buffers that show some of them."""
        path = Path(self._folder.name).resolve() / "file"
        self._add_file(os.open(path, os.O_RDWR | os.O_CREAT), sizes[0], path=path)
        if hasattr(os, "memfd_create"):
            self._add_file(os.memfd_create("testing"), sizes[1])
            sealed = shared_memory(3 * PAGE)
            self._add_file(os.dup(sealed.fileno()), sealed.nbytes, sealed=sealed)
        self._populated = layout, contents
        self._start()

    def teardown(self) -> None:
        """Leave nothing behind."""
        self._held.clear()
        failed = sys.exc_info()[0] is not None  # what it says may hold on to windows
        if hasattr(self, "real") and not failed:
            _ = self.real.damage  # told
            self.real.close()
        for file in self._files:
            os.close(file.descriptor)
            if file.sealed is not None:
                file.sealed.close()
        self._folder.cleanup()

    # Mapping

    @rule(span=RANGES, reserve=st.booleans())
    def alloc(self, span: tuple[int, int], reserve: bool) -> None:
        """Map private memory."""
        self._both("alloc", *span, reserve=reserve)

    @rule(span=RANGES)
    def map_zero(self, span: tuple[int, int]) -> None:
        """Map zero pages."""
        self._both("map_zero", *span)

    @rule(
        span=FILE_RANGES,
        which=SOME,
        how=HANDLES,
        file_offset=FILE_OFFSETS,
        writable=st.booleans(),
        copy_on_write=st.booleans(),
    )
    def map_file(
        self,
        *,
        span: tuple[int, int],
        which: int,
        how: str,
        file_offset: int,
        writable: bool,
        copy_on_write: bool,
    ) -> None:
        """Map pages of a file."""
        self._map_file(
            span, which, how, file_offset, writable=writable, copy_on_write=copy_on_write
        )

    @rule(
        span=FILE_RANGES,
        which=SOME,
        how=HANDLES,
        file_offset=FILE_OFFSETS,
        prot=st.sampled_from(PROTECTIONS),
        flags=mostly(st.sampled_from(FLAGS), st.sampled_from(BAD_FLAGS)),
    )
    def mmap(
        self,
        *,
        span: tuple[int, int],
        which: int,
        how: str,
        file_offset: int,
        prot: int,
        flags: int,
    ) -> None:
        """Map pages of a file, raw."""
        span = span if flags in FLAGS else (0, PAGE)
        backing = self._files[which % len(self._files)]
        write = bool(prot & mmap.PROT_WRITE) and flags == mmap.MAP_SHARED
        with backing.opened(how, write) as (file, can_write):
            expected = outcome(
                lambda: self.model.mmap(
                    *span, prot, flags, backing.model, file_offset, can_write=can_write
                )
            )
            actual = outcome(lambda: self.real.mmap(*span, prot, flags, file, file_offset))
        agree("mmap", actual, expected)

    @rule(
        span=RANGES,
        prot=st.sampled_from(PROTECTIONS),
        flags=mostly(st.sampled_from(FLAGS), st.sampled_from(BAD_FLAGS)),
    )
    def mmap_anonymous(self, span: tuple[int, int], prot: int, flags: int) -> None:
        """Map memory, raw."""
        span = span if flags in FLAGS else (0, PAGE)
        self._both("mmap_anonymous", *span, prot, flags)

    @rule(span=RANGES)
    def unmap(self, span: tuple[int, int]) -> None:
        """Make a hole."""
        self._both("unmap", *span)

    @rule(span=MAPPED_RANGES, writable=st.booleans())
    def set_writable(self, span: tuple[int, int], writable: bool) -> None:
        """Allow or forbid writing."""
        self._both("set_writable", *span, writable)

    @rule(span=MAPPED_RANGES)
    def decommit(self, span: tuple[int, int]) -> None:
        """Give pages back."""
        self._both("decommit", *span)

    @rule(span=MAPPED_RANGES)
    def commit(self, span: tuple[int, int]) -> None:
        """Populate pages."""
        self._both("commit", *span)

    @rule(
        span=MAPPED_RANGES, advice=st.sampled_from(["normal", "sequential", "random", "willneed"])
    )
    def advise(self, span: tuple[int, int], advice: str) -> None:
        """Tell the kernel something that changes nothing."""
        self._both("advise", *span, advice)

    @rule(access=ACCESSES, rest=st.booleans())
    def flush(self, access: tuple[int, int], rest: bool) -> None:
        """Write back what is written already, and say what was lost under windows."""
        arguments = access[: 1 if rest else 2]
        actual = outcome(lambda: self.real.flush(*arguments))
        expected = outcome(lambda: self.model.flush(*arguments))
        if actual.error is AccessError and expected.error is None:
            reason, _, offset, name = actual.details
            agree("reason of damage", reason, "file-truncated")
            page = self.model.pages[int(str(offset)) // PAGE]
            agree("file of damage", name, page.file and page.file.name)
            is_short = page.file is not None and len(page.file.data) < page.file_size
            agree("damage", page.damaged or is_short, True)
            return
        agree(f"flush{arguments}", actual, expected)

    # Guarded access

    @rule(access=ACCESSES)
    def read_at(self, access: tuple[int, int]) -> None:
        """Read bytes, and read them into something."""
        offset, nbytes = access
        self._both("read_at", offset, nbytes)
        if 0 <= nbytes <= self.model.nbytes:
            outs = bytearray(b"?" * nbytes), np.full(nbytes, ord("?"), "u1")
            expected = outcome(lambda: self.model.read_into(offset, outs[0]))
            agree("read_into", outcome(lambda: self.real.read_into(offset, outs[1])), expected)
            good = nbytes if expected.error is None else expected.transferred
            agree("what was read", outs[1][:good].tobytes(), bytes(outs[0][:good]))

    @rule(access=ACCESSES, data=DATA)
    def write_at(self, access: tuple[int, int], data: bytes) -> None:
        """Write bytes."""
        offset, nbytes = access[0], min(abs(access[1]), self.model.nbytes + 1)
        self._both("write_at", offset, (data * (nbytes // len(data) + 1))[:nbytes])

    @rule(access=ACCESSES, value=st.integers(0, 255))
    def fill_at(self, access: tuple[int, int], value: int) -> None:
        """Write one byte over and over."""
        self._both("fill_at", access[0], value, access[1])

    @rule(offset=OFFSETS, dtype=dtypes(), shape=st.sampled_from([(), (), 3, (2, 3), (0,), 2000]))
    def read_plain(self, offset: int, dtype: np.dtype[Any], shape: Any) -> None:
        """Read a record, or some."""
        self._both("read_plain", offset, dtype, shape)

    @rule(offset=OFFSETS, dtype=dtypes(), data=DATA, shape=st.sampled_from([(), 3, (2, 3), (0,)]))
    def write_plain(self, offset: int, dtype: np.dtype[Any], data: bytes, shape: Any) -> None:
        """Write a record, or some."""
        self._both("write_plain", offset, _array(dtype, data, shape))

    @rule(places=PLACES, dtype=dtypes())
    def gather(self, places: list[int], dtype: np.dtype[Any]) -> None:
        """Read records here and there."""
        self._both("gather", places, dtype)

    @rule(places=PLACES, dtype=dtypes(), data=DATA, single=st.booleans())
    def scatter(self, places: list[int], dtype: np.dtype[Any], data: bytes, single: bool) -> None:
        """Write records here and there."""
        self._both("scatter", places, _array(dtype, data, () if single else (len(places),)))

    @rule(
        offset=OFFSETS,
        aligned=st.integers(0, 5),
        count=mostly(st.integers(1, 9), st.sampled_from([-1, 0, 700, 2**62])),
        dtype=ATOMIC_DTYPES,
        index=mostly(st.integers(-1, 0), st.integers(-9, 9)),
        operation=st.sampled_from(list(ATOMICS)),
        operands=st.tuples(OPERANDS, OPERANDS),
    )
    def atomic(
        self,
        *,
        offset: int,
        aligned: int,
        count: int,
        dtype: str,
        index: int,
        operation: str,
        operands: tuple[int, int],
    ) -> None:
        """Do something at once."""
        start = offset - offset % np.dtype(dtype).itemsize if aligned else offset
        arguments = (index, *operands[: ATOMICS[operation]])

        def run(buffer: Any) -> Any:
            return getattr(buffer.atomic_slice(start, count, dtype), operation)(*arguments)

        agree(operation, outcome(lambda: run(self.real)), outcome(lambda: run(self.model)))

    @rule(number=st.integers(0, len(NONSENSE) - 1))
    def nonsense(self, number: int) -> None:
        """Pass what no call takes."""
        name, arguments, options = NONSENSE[number]
        self._both(name, *arguments, **options)

    # Files, changed by somebody else

    @rule(which=SOME, offset=FILE_SIZES, data=DATA)
    def write_file(self, which: int, offset: int, data: bytes) -> None:
        """Write into a file."""
        file = self._files[which % len(self._files)]
        data = data[: max(len(file.model.data) - offset, 0)]
        os.pwrite(file.descriptor, data, offset)
        file.model.data[offset : offset + len(data)] = data

    @rule(which=SOME, nbytes=FILE_SIZES, keep=st.booleans())
    def truncate(self, which: int, nbytes: int, keep: bool) -> None:
        """Change the size of a file. Windows that are kept meet what is lost, and survive."""
        file = self._files[which % len(self._files)]
        if file.sealed is not None:
            return
        keep = keep and Path("/proc/self/maps").exists()
        if keep and len(self._held) < _MOST_HELD:
            self._show(which, nbytes)
        for held in list(self._held):
            if file.model in self.model.files(*held.model.span) and not keep:
                self._drop(held)
        os.truncate(file.descriptor, nbytes)
        self.model.truncate(file.model, nbytes)
        if keep:
            self._meet_loss(file.model)

    def _show(self, which: int, seed: int) -> None:
        """Map as much of a file as there is room for, and open a window over that."""
        room = -(-len(self._files[which % len(self._files)].model.data) // PAGE)
        first = seed % (self.model.nbytes // PAGE)
        span = first * PAGE, min(room, self.model.nbytes // PAGE - first) * PAGE
        if room:
            self._map_file(span, which, writable=seed % 2 == 0, copy_on_write=seed % 3 == 0)
            self._hold(lambda buffer: buffer.window(*span))

    def _meet_loss(self, file: ModelFile) -> None:
        """Have windows look at what they show of a file, and take over what the kernel has then."""
        for held in self._held:
            raw_bytes(np.asarray(held.holders[0][0]))
        start = self.real.address
        mappings = kernel_mappings(start, start + self.real.reserved)
        for index, page in self.model.pages.items():
            if page.file is not file or not self.model.is_lost(index * PAGE, PAGE):
                continue
            at = start + index * PAGE
            found = next(one for one in mappings if one.start <= at < one.stop)
            if found.inode == 0:
                self.model.damage(index)
            told = any(
                one.offset <= index * PAGE and (index + 1) * PAGE <= one.offset + one.nbytes
                for one in self.real.damage
            )
            agree(f"damage of page {index}", told or not page.damaged, True)

    # Windows

    @precondition(lambda self: len(self._held) < _MOST_HELD)
    @rule(
        offset=OFFSETS,
        shape=SHAPES,
        dtype=dtypes(),
        writable=WRITABLE,
        strides=STRIDES,
        order=st.sampled_from("CF"),
    )
    def window(
        self,
        *,
        offset: int,
        shape: Any,
        dtype: np.dtype[Any],
        writable: bool | None,
        strides: tuple[int, ...] | None,
        order: str,
    ) -> None:
        """Open a window."""
        self._hold(
            lambda buffer: buffer.window(
                offset, shape, dtype, writable=writable, strides=strides, order=order
            )
        )

    @precondition(lambda self: len(self._held) < _MOST_HELD)
    @rule(
        start=OFFSETS | st.none(),
        stop=OFFSETS | st.none(),
        step=st.sampled_from([None, 1, 2, -1, -5, 5000]),
    )
    def getitem(self, start: int | None, stop: int | None, step: int | None) -> None:
        """Open a window by a slice."""
        self._hold(lambda buffer: buffer[start:stop:step])

    @precondition(lambda self: self._held)
    @rule(which=SOME, holder=SOME, how=st.sampled_from(list(DERIVATIONS)))
    def derive(self, which: int, holder: int, how: str) -> None:
        """Make something of a window that holds on to it."""
        held, (array, made), step = *self._pick(which, holder), DERIVATIONS[how]
        base = self._expected_array(held)
        try:
            shares = np.may_share_memory(np.asarray(step(made(base))), base)
        except Exception:  # noqa: BLE001 -- not of an array like this
            return
        if shares and len(held.holders) < 6:
            held.holders.append((step(array), lambda array: step(made(array))))

    @precondition(lambda self: self._held)
    @rule(which=SOME, holder=SOME, data=DATA)
    def write_through(self, which: int, holder: int, data: bytes) -> None:
        """Write into a window."""
        held, (array, made) = self._pick(which, holder)
        target = np.asarray(array)
        if not target.flags.writeable or self.model.is_past_file(*held.model.span):
            return

        def write(into: Any) -> None:
            into = np.asarray(into)
            into[...] = _array(into.dtype, data)

        write(target)
        held.model.write(lambda base: write(made(base)))

    @precondition(lambda self: self._held)
    @rule(which=SOME, holder=SOME, cycle=st.booleans())
    def drop(self, which: int, holder: int, cycle: bool) -> None:
        """Let go of a window, or of what was made of it."""
        held = self._held[which % len(self._held)]
        loop: list[Any] = [held.holders.pop(holder % len(held.holders))]
        if cycle:
            loop.append(loop)
            del loop
            gc.collect()
        if not held.holders:
            self._drop(held)

    # Life

    @rule(sure=mostly(st.just(False), st.just(True)))
    def close(self, sure: bool) -> None:
        """Close the buffers, and if they let us, start again."""
        if not (self.model.windows or sure):
            return
        real, model = self.real.atomic_slice(0, 1), self.model.atomic_slice(0, 1)
        _ = self.real.damage  # told: else there is a warning
        self._both("close")
        if not self.model.closed:
            return
        agree("load", outcome(lambda: real.load(0)), outcome(lambda: model.load(0)))
        agree("closed", self.real.closed, True)
        self._both("close")
        for name, arguments in ON_CLOSED:
            self._both(name, *arguments)
        self._held.clear()
        self._start()

    # What must hold after each step

    @invariant()
    def regions_agree(self) -> None:
        """Both have the same regions."""
        agree("regions", self.real.regions, self.model.regions)
        agree("length", (len(self.real), self.real.nbytes), (len(self.model), self.model.nbytes))

    @invariant()
    def bytes_agree(self) -> None:
        """Both hold the same bytes, where there are any, and the files have them."""
        for offset, nbytes in [*self.model.readable_runs(), (0, self.model.nbytes)]:
            self._both("read_at", offset, nbytes)
        for file in self._files:
            data = os.pread(file.descriptor, len(file.model.data) + 1, 0)
            agree("file", data, bytes(file.model.data))

    @invariant()
    def windows_agree(self) -> None:
        """Windows show those bytes."""
        for held in self._held:
            base = self._expected_array(held)
            for array, made in held.holders:
                expected, actual = np.asarray(made(base)), np.asarray(array)
                for part in ("dtype", "shape"):
                    agree(part, getattr(actual, part), getattr(expected, part))
                agree("writeable", actual.flags.writeable, expected.flags.writeable)
                agree("window", raw_bytes(actual), raw_bytes(expected))

    @invariant()
    def kernel_agrees(self) -> None:
        """The kernel has the same pages."""
        if not Path("/proc/self/maps").exists():
            return
        start = self.real.address
        inodes: dict[ModelFile | None, int] = {None: 0}
        for file in self._files:
            inodes[file.model] = os.fstat(file.descriptor).st_ino
        mappings = kernel_mappings(start, start + self.real.reserved)
        for index in range(self.real.reserved // PAGE):
            at = start + index * PAGE
            found = next(one for one in mappings if one.start <= at < one.stop)
            page = self.model.pages.get(index)
            if page is None:
                agree(f"hole {index}", found.permissions, "---p")
                continue
            shared, shown = page.shared and not page.damaged, None if page.damaged else page.file
            permissions = "-r"[page.readable] + "-w"[page.writable] + "-" + "ps"[shared]
            agree(f"page {index}", found.permissions, permissions)
            if shown is not None or not shared:
                agree(f"inode of page {index}", found.inode, inodes[shown])
            if shown is not None:
                in_file = found.file_offset + at - found.start
                agree(f"place in file of page {index}", in_file, page.file_offset)

    # Helpers

    def _start(self) -> None:
        layout, contents = self._populated
        self.real = self.make_buffer(layout.nbytes)
        self.model = ModelBuffer(layout.nbytes, PAGE)
        for number, (offset, nbytes) in enumerate(layout.blocks):
            match contents[number % len(contents)]:
                case "private":
                    self._both("alloc", offset, nbytes)
                case "zero":
                    self._both("map_zero", offset, nbytes)
                case how:
                    file = self._files[number % len(self._files)]
                    room = -(-len(file.model.data) // PAGE) * PAGE
                    self._map_file(
                        (offset, min(nbytes, room)),
                        number,
                        writable=how == "shared",
                        copy_on_write=how == "copy",
                    )

    def _map_file(
        self,
        span: tuple[int, int],
        which: int,
        how: str = "descriptor",
        file_offset: int = 0,
        *,
        writable: bool,
        copy_on_write: bool,
    ) -> None:
        backing = self._files[which % len(self._files)]
        shared: dict[str, Any] = {"writable": writable, "copy_on_write": copy_on_write}
        with backing.opened(how, writable and not copy_on_write) as (file, can_write):
            expected = outcome(
                lambda: self.model.map_file(
                    *span, backing.model, file_offset, **shared, can_write=can_write
                )
            )
            actual = outcome(lambda: self.real.map_file(*span, file, file_offset, **shared))
        agree(f"map_file{span}", actual, expected)

    def _add_file(self, descriptor: int, nbytes: int, **what: Any) -> None:
        name = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        data = bytearray(range(1, 252)) * (nbytes // 251 + 1)
        os.pwrite(descriptor, data[:nbytes], 0)
        self._files.append(_Backing(ModelFile(name, data[:nbytes]), descriptor, **what))

    def _both(self, name: str, *arguments: Any, **options: Any) -> None:
        expected = outcome(lambda: getattr(self.model, name)(*arguments, **options))
        actual = outcome(lambda: getattr(self.real, name)(*arguments, **options))
        agree(f"{name}{arguments}", actual, expected)

    def _hold(self, opened: Callable[[Any], Any]) -> None:
        """Open a window on both sides, unless it would meet what is lost."""
        windows: list[Any] = []
        expected = outcome(lambda: windows.append(opened(self.model)))
        if windows and self.model.is_lost(*windows[0].span):
            windows[0].release()
            return
        actual = outcome(lambda: windows.append(opened(self.real)))
        agree("window", actual, expected)
        if windows:
            window, array = windows
            agree("type of window", type(array), np.ndarray)
            if array.size:
                agree("strides of window", array.strides, window.strides)
            self._held.append(_Held(window, [(array, lambda array: array)]))

    def _expected_array(self, held: _Held) -> Any:
        base = held.model.read()
        base.flags.writeable = held.model.writable
        return base

    def _pick(self, which: int, holder: int) -> tuple[_Held, tuple[Any, Callable[[Any], Any]]]:
        held = self._held[which % len(self._held)]
        return held, held.holders[holder % len(held.holders)]

    def _drop(self, held: _Held) -> None:
        held.holders.clear()
        held.model.release()
        self._held.remove(held)
