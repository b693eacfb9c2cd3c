"""A `SparseBuffer` in plain Python: slow, obvious, and made to be compared with.

`ModelBuffer` has the methods of `SparseBuffer` and says what each must return, raise and leave
behind. Memory is a dictionary of pages; a file is a `ModelFile`, a name and its bytes, shared by
all windows of it. Nothing here touches memory that is not Python's own.

The order in which a call finds fault is part of the model: what is wrong with a number itself
(`TypeError`, `ValueError`), then its place (`OutOfBoundsError`), then live windows
(`BufferError`), then the file, then the pages, from the first one on.
"""

from __future__ import annotations

import errno
import itertools
import math
import mmap
import operator
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsearray.errors import AccessError, ClosedError, OutOfBoundsError
from sparsearray.region import Region
from sparsearray.testing.model_pages import ModelFile, ModelPage
from sparsearray.testing.model_views import ModelAtomicSlice, ModelWindow, refused

__all__ = ["ModelBuffer"]

Bytes = bytes | bytearray | memoryview | npt.NDArray[Any]

_ADVICE = frozenset(
    ("normal", "sequential", "random", "willneed", "hugepage", "nohugepage", "cold", "pageout")
)


class ModelBuffer:
    r"""What a `SparseBuffer` must do.

    The methods are those of `SparseBuffer` and documented there, with a few more that only a model
    can have. Files are given as `ModelFile`, and windows come back as `ModelWindow`.

    Parameters
    ----------
    nbytes : int
        Length in bytes, a multiple of `page_size`.
    page_size : int
        Bytes in a page: the `page_size` of the buffer to compare with.

    Attributes
    ----------
    pages : dict of int to ModelPage
        The pages that are mapped, by their number.
    windows : list of ModelWindow
        The windows that are alive and not empty.

    Examples
    --------
    >>> model = ModelBuffer(16384, page_size=4096)
    >>> model.alloc(4096, 8192)
    >>> model.write_at(5000, b"spam")
    >>> model.read_at(4998, 8)
    b'\x00\x00spam\x00\x00'
    >>> model.set_writable(8192, 4096, False)
    >>> [(region.offset, region.nbytes, region.writable) for region in model.regions]
    [(4096, 4096, True), (8192, 4096, False)]
    >>> try:
    ...     model.write_at(8190, b"spam")
    ... except AccessError as error:
    ...     error.reason, error.offset
    ('read-only', 8192)
    """

    tells_own_copies = True
    """Whether the system tells a page copied on write from one of its file, as Linux does. If not,
    the whole page that a file cut short ends in reads as the file has it."""

    def __init__(self, nbytes: int, page_size: int) -> None:
        self.nbytes = nbytes
        self.page_size = page_size
        self.closed = False
        self.pages: dict[int, ModelPage] = {}
        self.windows: list[ModelWindow] = []
        self._pieces_so_far = itertools.count(1)
        self._can_write: dict[ModelFile, bool] = {}

    def __len__(self) -> int:
        return self.nbytes

    @property
    def regions(self) -> tuple[Region, ...]:
        """What is mapped: neighbours of a kind are one region."""
        regions: list[Region] = []
        for index, page in sorted(self.pages.items()):
            before = self.pages.get(index - 1)
            if before is not None and page.continues(before, self.page_size):
                regions[-1] = regions[-1]._replace(nbytes=regions[-1].nbytes + self.page_size)
                continue
            name, start = (page.file.name, page.file_offset) if page.file else (None, None)
            offset = index * self.page_size
            regions.append(Region(offset, self.page_size, page.kind, page.writable, name, start))
        return tuple(regions)

    # Mapping

    def alloc(self, offset: int, nbytes: int, *, reserve: bool = False) -> None:
        """Fresh zeros, writable; `reserve` makes no difference that the model could see."""
        del reserve
        for index in self._free_pages(offset, nbytes):
            self.pages[index] = ModelPage("private", writable=True)

    def map_zero(self, offset: int, nbytes: int) -> None:
        """Zeros to read."""
        for index in self._free_pages(offset, nbytes):
            self.pages[index] = ModelPage("zero", writable=False)

    def map_file(
        self,
        offset: int,
        nbytes: int,
        file: ModelFile,
        file_offset: int = 0,
        *,
        writable: bool = False,
        copy_on_write: bool = False,
        can_write: bool | None = None,
    ) -> None:
        """Pages of a file.

        `can_write` says whether the descriptor is open for writing; a path is opened as needed.
        """
        _check_file_offset(file_offset)
        shared, write = not copy_on_write, writable and not copy_on_write
        pages = self._free_pages(offset, nbytes)
        may_write = self._open(file, file_offset, nbytes, write, can_write) or not shared
        for at, index in enumerate(pages):
            self.pages[index] = ModelPage(
                "file",
                writable=writable or copy_on_write,
                shared=shared,
                file=file,
                file_offset=file_offset + at * self.page_size,
                file_size=len(file.data),
                may_write=may_write,
            )

    def mmap(
        self,
        offset: int,
        nbytes: int,
        prot: int,
        flags: int,
        file: ModelFile | None,
        file_offset: int = 0,
        *,
        can_write: bool | None = None,
    ) -> None:
        """A raw mapping of a file; `can_write` as in `map_file`."""
        _check_file_offset(file_offset)
        shared, may_write = _is_shared(flags), True
        if file is not None and flags & mmap.MAP_ANONYMOUS:
            raise ValueError("MAP_ANONYMOUS takes no file")
        pages = self._free_pages(offset, nbytes)
        if file is not None:
            write = shared and bool(prot & mmap.PROT_WRITE)
            may_write = self._open(file, file_offset, nbytes, write, can_write) or not shared
        piece = next(self._pieces_so_far)
        for at, index in enumerate(pages):
            self.pages[index] = ModelPage(
                "raw",
                writable=bool(prot & mmap.PROT_WRITE),
                readable=bool(prot & mmap.PROT_READ),
                shared=shared,
                file=file,
                file_offset=file_offset + at * self.page_size,
                file_size=len(file.data) if file else 0,
                may_write=may_write,
                piece=piece,
            )

    def mmap_anonymous(self, offset: int, nbytes: int, prot: int, flags: int) -> None:
        """A raw mapping of zeros."""
        self.mmap(offset, nbytes, prot, flags, None)

    def unmap(self, offset: int, nbytes: int) -> None:
        """Holes, whatever was there."""
        for index in self._free_pages(offset, nbytes):
            self.pages.pop(index, None)

    def set_writable(self, offset: int, nbytes: int, writable: bool) -> None:
        """Allow or forbid writing; zero pages become memory of their own."""
        pages = self._whole_pages(offset, nbytes)
        if not writable:
            self._check_pins(pages, writable_only=True)
        self._check_mapped(pages, "write")
        if writable and not all(self.pages[index].may_write for index in pages):
            raise PermissionError(errno.EACCES, "the file is not open for writing")
        pieces: dict[int, int] = {0: 0}
        for index in pages:
            page = self.pages[index]
            page.writable = writable
            page.kind = "private" if writable and page.kind == "zero" else page.kind
            if page.piece not in pieces:  # what is cut off a raw mapping stays apart
                pieces[page.piece] = next(self._pieces_so_far)
            page.piece = pieces[page.piece]

    def decommit(self, offset: int, nbytes: int) -> None:
        """Forget what was written to private and copy-on-write pages."""
        pages = self._whole_pages(offset, nbytes)
        self._check_mapped(pages, "write")
        own = [i for i in pages if not self.pages[i].shared and self.pages[i].kind != "zero"]
        for index in pages:
            page = self.pages[index]
            if index in own and not page.writable:
                raise refused("read-only", "write", index * self.page_size)
            if page.damaged:
                raise refused("file-truncated", "write", index * self.page_size, 0, page.file)
        for index in own:
            self.pages[index].memory = None

    def commit(self, offset: int, nbytes: int) -> None:
        """Populate pages: those that copy on write are copied."""
        pages = self._whole_pages(offset, nbytes)
        self._check_mapped(pages, "write")
        self._check_access(offset, nbytes, "read")
        for index in pages:
            page, at = self.pages[index], index * self.page_size
            if self._is_lost(page):
                operation = "write" if page.writable else "read"
                raise refused("file-truncated", operation, at, at - offset, page.file)
            if page.writable and not page.shared:
                page.memory = self._contents(page)

    def advise(self, offset: int, nbytes: int, advice: str) -> None:
        """Change nothing."""
        if advice not in _ADVICE:
            raise ValueError(f"unknown advice {advice!r}")
        self._check_mapped(self._whole_pages(offset, nbytes), "read")

    def flush(self, offset: int = 0, nbytes: int | None = None) -> None:
        """Change nothing. The model does not say whether it tells of damage."""
        self._check_numbers(offset, self.nbytes - offset if nbytes is None else nbytes)

    # Guarded access

    def read_at(self, offset: int, nbytes: int) -> bytes:
        """The bytes of a range."""
        self._check_numbers(offset, nbytes)
        data = bytearray(nbytes)
        self.read_into(offset, data)
        return bytes(data)

    def read_into(self, offset: int, out: Bytes) -> None:
        """The bytes of a range, and those before a lost page if there is one."""
        view = _byte_view(out)
        if view.readonly:
            raise ValueError("out is read-only")
        self._check_access(offset, len(view), "read")
        self._read(offset, view)

    def write_at(self, offset: int, data: Bytes) -> None:
        """Write all, or those before a lost page if there is one."""
        view = _byte_view(data)
        self._check_access(offset, len(view), "write")
        self._write(offset, view)

    def fill_at(self, offset: int, value: int, nbytes: int) -> None:
        """Write one byte over and over."""
        if not 0 <= operator.index(value) <= 255:
            raise ValueError("value is not a byte")
        self._check_access(offset, nbytes, "write")
        self._write(offset, memoryview(bytes([value]) * nbytes))

    def read_plain(self, offset: int, dtype: npt.DTypeLike, shape: Any = ()) -> Any:
        """A scalar, a record or an array."""
        out = np.zeros(shape, _plain_dtype(dtype))
        self.read_into(offset, out)
        return out[()]

    def write_plain(self, offset: int, value: Any, dtype: npt.DTypeLike | None = None) -> None:
        """Write a scalar, a record or an array."""
        self.write_at(offset, _plain_array(value, dtype).tobytes())

    def gather(self, offsets: npt.ArrayLike, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Records from many places."""
        places, dtype = _places(offsets), _plain_dtype(dtype)
        records = bytearray()
        for start in places.ravel().tolist():
            try:
                records += self.read_at(start, dtype.itemsize)
            except AccessError as error:
                error.transferred = 0  # nobody gets to see the records before it
                raise
        return np.ndarray(places.shape, dtype, records)

    def scatter(self, offsets: npt.ArrayLike, values: npt.ArrayLike) -> None:
        """Records to many places, in order; nowhere if the table forbids one."""
        places = _places(offsets)
        records = np.broadcast_to(_plain_array(values, None), places.shape)
        starts = places.ravel().tolist()
        for start in starts:
            self._check_access(start, records.itemsize, "write")
        for done, (start, record) in enumerate(zip(starts, records.ravel(), strict=True)):
            self._write(start, memoryview(record.tobytes()), done * records.itemsize)

    def atomic_slice(
        self, offset: int, count: int, dtype: npt.DTypeLike = "u1"
    ) -> ModelAtomicSlice:
        """Integers with atomic operations."""
        dtype = np.dtype(dtype)
        if dtype.kind not in "iu" or not dtype.isnative:
            raise TypeError(f"no atomic operations on {dtype}")
        if operator.index(count) < 0 or operator.index(offset) % dtype.itemsize:
            raise ValueError("a negative count, or an offset that is not aligned")
        self._check_numbers(offset, count * dtype.itemsize)
        return ModelAtomicSlice(self, offset, count, dtype)

    # Windows

    def window(
        self,
        offset: int,
        shape: Any,
        dtype: npt.DTypeLike = "u1",
        *,
        writable: bool | None = None,
        strides: tuple[int, ...] | None = None,
        order: str = "C",
    ) -> ModelWindow:
        """Pin pages, and look at them."""
        dtype = _plain_dtype(dtype)
        shape = tuple(shape) if isinstance(shape, tuple) else (operator.index(shape),)
        if offset < 0 or any(length < 0 for length in shape) or order not in ("C", "F"):
            raise ValueError("offset or shape is negative, or no such order")
        if strides is None:
            strides = _strides(shape, dtype.itemsize, order)
        if len(strides) != len(shape):
            raise ValueError("not as many strides as dimensions")
        start = stop = offset
        if 0 not in shape:
            steps = [(length - 1) * step for length, step in zip(shape, strides, strict=True)]
            start += sum(min(0, step) for step in steps)
            stop += sum(max(0, step) for step in steps) + dtype.itemsize
        if start < 0:
            raise ValueError("strides lead out of the buffer")
        pages = self._pages_over(start, stop - start)
        self._check_access(start, stop - start, "write" if writable else "read", window=True)
        allowed = writable is not False and all(self.pages[index].writable for index in pages)
        window = ModelWindow(self, offset, shape, strides, dtype, allowed, start, stop)
        if pages:
            self.windows.append(window)
        return window

    def __getitem__(self, key: slice) -> ModelWindow:
        if not isinstance(key, slice):
            raise TypeError("only slices")
        start, stop, step = key.indices(self.nbytes)
        count = len(range(start, stop, step))
        return self.window(start if count else 0, count, strides=(step,))

    # Life

    def close(self) -> None:
        """Unmap everything, unless there are windows."""
        if self.windows:
            raise BufferError(f"{len(self.windows)} live windows")
        self.closed = True
        self.pages.clear()

    # What only a model can do

    def truncate(self, file: ModelFile, nbytes: int) -> None:
        """Change the size of a file under its windows, as `os.truncate` does.

        Private pages of a copy-on-write window that lie past the new end are lost with it.
        """
        del file.data[nbytes:]
        file.data.extend(bytes(nbytes - len(file.data)))
        for page in self.pages.values():
            if page.file is file and self._is_lost(page) and not page.damaged:
                page.memory = None

    def damage(self, index: int) -> None:
        """Have a lost page show zeros, which windows can write to, until it is mapped anew."""
        page = self.pages[index]
        if not page.damaged:
            page.damaged, page.memory = True, bytearray(self.page_size)

    def mapped_runs(self) -> list[tuple[int, int]]:
        """Offset and length in bytes of the runs of pages that are mapped."""
        return self._runs(sorted(self.pages))

    def readable_runs(self) -> list[tuple[int, int]]:
        """Offset and length in bytes of the runs of pages that can be read to the last byte."""
        return self._runs(
            index
            for index, page in sorted(self.pages.items())
            if page.readable and self._readable(page, 0, self.page_size) == self.page_size
        )

    def files(self, offset: int, nbytes: int) -> set[ModelFile]:
        """The files with windows over a range."""
        pages = (self.pages.get(index) for index in self._pages_over(offset, nbytes))
        return {page.file for page in pages if page is not None and page.file is not None}

    def is_lost(self, offset: int, nbytes: int) -> bool:
        """Whether a page of the range is lost: its file does not reach it, or once did not."""
        pages = (self.pages.get(index) for index in self._pages_over(offset, nbytes))
        return any(page is not None and self._is_lost(page) for page in pages)

    def is_past_file(self, offset: int, nbytes: int) -> bool:
        """Whether a range that is mapped has bytes that are lost when a window writes to them."""
        return any(
            self._storable(page, at, size) < size and not page.damaged
            for page, at, size, _ in self._pieces(offset, nbytes)
        )

    # Checks

    def _check_place(self, offset: int, nbytes: int) -> None:
        if self.closed:
            raise ClosedError("the buffer is closed")
        if offset < 0 or offset + nbytes > self.nbytes:
            raise OutOfBoundsError(f"{nbytes} bytes at {offset} of {self.nbytes}")

    def _check_numbers(self, offset: int, nbytes: int) -> None:
        if operator.index(offset) < 0 or operator.index(nbytes) < 0:
            raise ValueError("offset or nbytes is negative")
        self._check_place(offset, nbytes)

    def _check_access(
        self, offset: int, nbytes: int, operation: str, *, window: bool = False
    ) -> None:
        self._check_numbers(offset, nbytes)
        for index in self._pages_over(offset, nbytes):
            page, bad = self.pages.get(index), max(offset, index * self.page_size)
            reads = window or operation == "read"
            if page is None or (reads and not page.readable):
                raise refused("unmapped", operation, bad)
            if operation == "write" and not page.writable:
                raise refused("read-only", operation, bad)

    def _whole_pages(self, offset: int, nbytes: int) -> range:
        offset, nbytes = operator.index(offset), operator.index(nbytes)
        if min(offset, nbytes) >= 0 and max(offset, nbytes) >= 2**63:
            raise OutOfBoundsError("more than 64 bits")  # whatever else is wrong
        if offset < 0 or nbytes <= 0 or offset % self.page_size or nbytes % self.page_size:
            raise ValueError(f"{nbytes} bytes at {offset} are not whole pages")
        self._check_place(offset, nbytes)
        return self._pages_over(offset, nbytes)

    def _free_pages(self, offset: int, nbytes: int) -> range:
        pages = self._whole_pages(offset, nbytes)
        self._check_pins(pages)
        return pages

    def _check_pins(self, pages: range, *, writable_only: bool = False) -> None:
        for window in self.windows:
            pinned = self._pages_over(*window.span)
            overlap = max(pages.start, pinned.start) < min(pages.stop, pinned.stop)
            if overlap and (window.writable or not writable_only):
                raise BufferError(f"a live window over {window.start} to {window.stop}")

    def _check_mapped(self, pages: range, operation: str) -> None:
        for index in pages:
            if index not in self.pages:
                raise refused("unmapped", operation, index * self.page_size)

    def _open(
        self, file: ModelFile, file_offset: int, nbytes: int, write: bool, can_write: bool | None
    ) -> bool:
        """Check a window of a file. Whether the buffer's descriptor of the file can write.

        There is one for all windows: the first, until one that can write is needed.
        """
        if file_offset < 0 or file_offset % self.page_size:
            raise ValueError("file_offset is not in whole pages")
        if file_offset + nbytes > -(-len(file.data) // self.page_size) * self.page_size:
            raise ValueError(f"past the end of {file.name}")
        can_write = write if can_write is None else can_write
        if write and not can_write:
            raise PermissionError(errno.EACCES, "not open for writing", file.name)
        known = any(page.file is file for page in self.pages.values())
        if write or not known:
            self._can_write[file] = can_write
        return self._can_write[file]

    # Pages

    def _pages_over(self, offset: int, nbytes: int) -> range:
        if not nbytes:
            return range(0)
        return range(offset // self.page_size, (offset + nbytes - 1) // self.page_size + 1)

    def _runs(self, indexes: Iterable[int]) -> list[tuple[int, int]]:
        runs: list[tuple[int, int]] = []
        for index in indexes:
            offset, nbytes = index * self.page_size, self.page_size
            if runs and sum(runs[-1]) == offset:
                offset, before = runs.pop()
                nbytes += before
            runs.append((offset, nbytes))
        return runs

    def _pieces(self, offset: int, nbytes: int) -> Iterator[tuple[ModelPage, int, int, int]]:
        """For each page: the page, where in it, how many bytes, and how many came before."""
        done = 0
        while done < nbytes:
            index, at = divmod(offset + done, self.page_size)
            size = min(nbytes - done, self.page_size - at)
            yield self.pages[index], at, size, done
            done += size

    def _is_lost(self, page: ModelPage) -> bool:
        past = page.file is not None and page.file_offset >= len(page.file.data)
        return page.damaged or past

    def _readable(self, page: ModelPage, at: int, size: int) -> int:
        """How many bytes at `at` of the page can be read.

        A file cut short takes with it what it had when the page was mapped. What was past its end
        from the start reads as zero as long as the page is there.
        """
        if self._is_lost(page):
            return 0
        if page.file is None or (page.memory is not None and self.tells_own_copies):
            return size
        start, end = page.file_offset + at, len(page.file.data)
        if start >= page.file_size or min(start + size, page.file_size) <= end:
            return size
        return max(end - start, 0)

    def _storable(self, page: ModelPage, at: int, size: int) -> int:
        """How many bytes at `at` of the page keep what is written to them."""
        if self._is_lost(page):
            return 0
        if page.file is None or not page.shared:
            return size
        return min(max(len(page.file.data) - page.file_offset - at, 0), size)

    def _contents(self, page: ModelPage) -> bytearray:
        if page.memory is not None:
            return page.memory
        start = page.file_offset
        data = page.file.data[start : start + self.page_size] if page.file else bytearray()
        return data.ljust(self.page_size, b"\0")

    def _read(self, offset: int, out: memoryview) -> None:
        for page, at, size, done in self._pieces(offset, len(out)):
            good = self._readable(page, at, size)
            out[done : done + good] = self._contents(page)[at : at + good]
            if good < size:
                total = done + good
                raise refused("file-truncated", "read", offset + total, total, page.file)

    def _write(self, offset: int, data: memoryview, before: int = 0) -> None:
        for page, at, size, done in self._pieces(offset, len(data)):
            good = self._storable(page, at, size)
            if page.file is not None and page.shared:
                start = page.file_offset + at
                page.file.data[start : start + good] = data[done : done + good]
            elif good:
                page.memory = self._contents(page)
                page.memory[at : at + good] = data[done : done + good]
            if good < size:
                total = done + good
                raise refused("file-truncated", "write", offset + total, before + total, page.file)


def _check_file_offset(file_offset: int) -> None:
    if not 0 <= operator.index(file_offset) < 2**63:
        raise ValueError("file_offset is negative, or takes more than 63 bits")


def _is_shared(flags: int) -> bool:
    """Whether a raw mapping is shared, if its flags are among those that are let through."""
    kinds = mmap.MAP_SHARED, mmap.MAP_PRIVATE
    allowed = mmap.MAP_ANONYMOUS | mmap.MAP_STACK
    if flags & ~allowed not in kinds:
        raise ValueError(f"flags {flags:#x}")
    return bool(flags & mmap.MAP_SHARED)


def _strides(shape: tuple[int, ...], itemsize: int, order: str) -> tuple[int, ...]:
    lengths = shape if order == "F" else shape[::-1]
    strides = [itemsize * max(math.prod(lengths[:axis]), 1) for axis in range(len(shape))]
    return tuple(strides if order == "F" else strides[::-1])


def _plain_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    dtype = np.dtype(dtype)
    if dtype.hasobject:
        raise TypeError(f"{dtype} holds objects")
    return dtype


def _plain_array(value: Any, dtype: npt.DTypeLike | None) -> npt.NDArray[Any]:
    """`value` as an array of void: copies of it keep the padding of records, too."""
    array = np.asarray(value, dtype)
    _plain_dtype(array.dtype)
    return array.view(f"V{array.dtype.itemsize}")


def _places(offsets: npt.ArrayLike) -> npt.NDArray[Any]:
    places = np.asarray(offsets)
    if places.size and places.dtype.kind not in "iu":
        raise TypeError("offsets are integers")
    return places


def _byte_view(buffer: Bytes) -> memoryview:
    """The bytes of a C-contiguous buffer; of a datetime64, numpy exports no memoryview."""
    array = buffer if isinstance(buffer, np.ndarray) else np.asarray(memoryview(buffer))
    _plain_dtype(array.dtype)
    if not array.flags.c_contiguous:
        raise ValueError("not contiguous")
    return array.reshape(-1).view("u1").data
