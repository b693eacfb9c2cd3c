"""`SparseBuffer`: a reserved range of addresses, populated piece by piece."""

import os
from types import TracebackType
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ._binding import describe, failure, ffi, frames, index, lib, place, take
from ._descriptor import opened
from ._memory import available_memory
from .access import GuardedAccess
from .errors import AccessError
from .region import Region
from .window import make_window

__all__ = ["SparseBuffer"]

_KINDS = {
    lib.SA_PRIVATE: "private",
    lib.SA_ZERO: "zero",
    lib.SA_FILE: "file",
    lib.SA_RAW: "raw",
}
_ADVICE = {
    "normal": lib.SA_ADVISE_NORMAL,
    "sequential": lib.SA_ADVISE_SEQUENTIAL,
    "random": lib.SA_ADVISE_RANDOM,
    "willneed": lib.SA_ADVISE_WILLNEED,
    "hugepage": lib.SA_ADVISE_HUGEPAGE,
    "nohugepage": lib.SA_ADVISE_NOHUGEPAGE,
    "cold": lib.SA_ADVISE_COLD,
    "pageout": lib.SA_ADVISE_PAGEOUT,
}
_NAME_LIMIT = 79  # bytes: ANON_VMA_NAME_MAX_LEN with its closing zero
_NAME_REFUSED = set("[]\\`$")
_MARGIN = 64 << 20  # bytes of memory that `commit` leaves to others
_PIECE = 64 << 20  # bytes that `commit` faults in at a time


class SparseBuffer(GuardedAccess):
    """
    A reserved range of virtual addresses, populated piece by piece.

    At first every page is a *hole*: it takes no memory, and no access to it succeeds. Mapping calls
    put private memory, zero pages or windows of files in its place, in whole pages; a page can be
    mapped anew as often as you like. Reads and writes take any byte offset, and a bad one is an
    exception, not a crash. `window` gives plain numpy arrays over what is mapped.

    Parameters
    ----------
    nbytes : int
        Length in bytes, rounded up to whole pages. Tens of terabytes are fine.
    alignment : int, optional
        Of the start address: a power of two, at least a page. The start is always aligned to the
        largest page size of the system that is not larger than the buffer (4 KiB, 2 MiB or 1 GiB on
        x86-64).
    name : str, optional
        A label for `repr` and messages.

    Attributes
    ----------
    name : str or None
        As given.

    Raises
    ------
    ValueError
        `nbytes` is not positive, or `alignment` is no such power of two.
    OSError
        The system has no such range of addresses left (ENOMEM): see ``ulimit -v``.

    Notes
    -----
    All methods may be called from any thread. A forked child has the buffer too: its private memory
    is copied on write, its shared file windows remain shared.

    See Also
    --------
    mmap(2), with ``PROT_NONE`` and ``MAP_NORESERVE``

    Examples
    --------
    >>> from sparsearray import SparseBuffer
    >>> buffer = SparseBuffer(1 << 40)
    >>> buffer.alloc(1 << 30, 1 << 20)
    >>> window = buffer.window(1 << 30, (16, 16), "f4")
    >>> window[:] = 1
    >>> buffer.read_plain(1 << 30, "f4")
    np.float32(1.0)
    >>> buffer.unmap(1 << 30, 1 << 20)
    Traceback (most recent call last):
        ...
    BufferError: unmap of 0x100000 (1048576) bytes at 0x40000000 (1073741824): 1 live window is over it, between 0x40000000 (1073741824) and 0x40001000 (1073745920); delete them and the arrays made from them first
    >>> del window
    >>> buffer.close()
    """

    __slots__ = ("__weakref__", "_address", "_cell", "_closed", "_reserved", "name")

    def __init__(
        self, nbytes: int, *, alignment: int | None = None, name: str | None = None
    ) -> None:
        self._closed = True
        # The native call writes the reservation in here, so that no interrupt can come between.
        self._cell = ffi.new("sa_reservation **")
        size, unit = index(nbytes), 0 if alignment is None else index(alignment)
        if size <= 0:
            msg = f"a buffer of {size} bytes: must be positive"
            raise ValueError(msg)
        page = lib.sa_page_size()
        if alignment is not None and (unit < page or unit & (unit - 1)):
            msg = f"alignment {describe(unit)}: not a power of two of at least a page, {page}"
            raise ValueError(msg)
        frame = take()
        try:
            code = lib.sa_reserve(size, unit, self._cell, frame.report)
        except OverflowError:
            msg = f"a buffer of {describe(size)} bytes, aligned to {describe(unit)}: no such addresses"
            raise OSError(12, msg) from None
        if code:
            raise failure(code, frame, "reservation", 0, size, 0)
        frames.append(frame)
        self._reservation = self._cell[0]
        geometry = ffi.new("sa_geometry *")
        lib.sa_describe(self._reservation, geometry)
        self._nbytes: int = geometry.nbytes
        self._reserved: int = geometry.reserved
        self._address: int = geometry.address
        self._closed = False
        self.name = name

    def __del__(self, release=lib.sa_release) -> None:  # type: ignore[no-untyped-def]
        release(self._cell[0])

    # What it is

    @property
    def nbytes(self) -> int:
        """Length in bytes, whole pages."""
        return self._nbytes

    @property
    def reserved(self) -> int:
        """Bytes of addresses taken: `nbytes` in whole pages of the size that the start is aligned to."""
        return self._reserved

    @property
    def page_size(self) -> int:
        """The unit of mapping calls, in bytes."""
        size: int = lib.sa_page_size()
        return size

    @property
    def address(self) -> int:
        """Address of the first byte. What is done through it is outside the buffer's promises."""
        return self._address

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def __len__(self) -> int:
        """Length in bytes: `nbytes`."""
        return self._nbytes

    @property
    def regions(self) -> tuple[Region, ...]:
        """
        What is mapped, sorted by offset; what lies between is holes.

        Raises
        ------
        ClosedError
            The buffer is closed.
        """
        frame = take()
        count = ffi.new("uint64_t *")
        capacity = 16
        while True:
            found = ffi.new("sa_region[]", capacity)
            code = lib.sa_regions(self._reservation, found, capacity, count)
            if code:
                raise failure(code, frame, "regions", 0, self._nbytes, self._nbytes)
            if count[0] <= capacity:
                break
            capacity = count[0] + 16
        names = {0: None}
        regions = []
        for i in range(count[0]):
            one = found[i]
            if one.file not in names:
                lib.sa_file_name(self._reservation, one.file, frame.report)
                names[one.file] = os.fsdecode(ffi.string(frame.report.file))
            regions.append(
                Region(
                    one.offset,
                    one.nbytes,
                    _KINDS[one.kind],
                    bool(one.writable),
                    names[one.file],
                    one.file_offset if one.file else None,
                )
            )
        frames.append(frame)
        return tuple(regions)

    # Mapping

    def _change(
        self, operation: str, function: Any, offset: int, nbytes: int, *arguments: object
    ) -> None:
        """Make a native call on a range of pages."""
        offset, nbytes = index(offset), index(nbytes)
        frame = take()
        try:
            code = function(self._reservation, offset, nbytes, *arguments, frame.report)
        except OverflowError:
            raise self._overflow(operation, offset, nbytes) from None
        if code:
            raise failure(code, frame, operation, offset, nbytes, self._nbytes)
        frames.append(frame)

    def alloc(self, offset: int, nbytes: int, *, reserve: bool = False) -> None:
        """
        Put private memory in a range: writable, all zeros, taken page by page as it is touched.

        Parameters
        ----------
        offset, nbytes : int
            The range in bytes, in whole pages. What was mapped there is replaced.
        reserve : bool
            Have the system promise the memory now (no ``MAP_NORESERVE``), and refuse now what it
            cannot promise. Without it a terabyte succeeds on any machine, and running out of memory
            while it is filled ends the process.

        Raises
        ------
        BufferError
            A window over the range is alive.
        OutOfBoundsError, ValueError, ClosedError
            The range reaches past the end, is not in whole pages, or the buffer is closed.
        OSError
            The system refuses (ENOMEM). As with all mapping calls, what was there still is.

        See Also
        --------
        mmap(2), with ``MAP_PRIVATE | MAP_ANONYMOUS``
        """
        self._change("alloc", lib.sa_alloc, offset, nbytes, bool(reserve))

    def map_zero(self, offset: int, nbytes: int) -> None:
        """
        Put zero pages in a range: read-only, and no memory however much is read.

        Parameters
        ----------
        offset, nbytes : int
            The range in bytes, in whole pages. What was mapped there is replaced.

        Raises
        ------
        BufferError, OutOfBoundsError, ValueError, ClosedError, OSError
            As `alloc`.

        Notes
        -----
        On Linux a large range is read through the shared huge zero page where there is one
        (``MADV_HUGEPAGE``).
        """
        self._change("map_zero", lib.sa_map_zero, offset, nbytes)

    def map_file(
        self,
        offset: int,
        nbytes: int,
        file: Any,
        file_offset: int = 0,
        *,
        writable: bool = False,
        copy_on_write: bool = False,
    ) -> None:
        """
        Put a window of a file in a range.

        Parameters
        ----------
        offset, nbytes : int
            The range in bytes, in whole pages. What was mapped there is replaced.
        file : path, int or object with ``fileno()``
            A path, a descriptor or an open file. It may be closed at once: the buffer keeps one
            descriptor per file while it has windows of it.
        file_offset : int
            Where in the file the window begins, in bytes, whole pages.
        writable : bool
            Writes reach the file, and every other mapping of it (``MAP_SHARED``).
        copy_on_write : bool
            Writes stay in this buffer (``MAP_PRIVATE``); `writable` then plays no part.

        Raises
        ------
        ValueError
            The window does not lie within the file rounded up to whole pages, or an argument is not
            in whole pages.
        OSError
            The file cannot be opened, is a directory or a pipe, was opened without the right to
            write, or its file system cannot map it.
        BufferError, OutOfBoundsError, ClosedError
            As `alloc`.

        Notes
        -----
        Bytes of the last page past the end of the file read as zero. If somebody else makes the file
        shorter, guarded calls raise `AccessError` with reason ``'file-truncated'``; a copy-on-write
        window then loses what was written past the new end as well.

        See Also
        --------
        mmap(2)
        """
        mode = lib.SA_FILE_READ
        if copy_on_write:
            mode = lib.SA_FILE_COPY_ON_WRITE
        elif writable:
            mode = lib.SA_FILE_WRITE
        with opened(file, writable=mode == lib.SA_FILE_WRITE) as found:
            self._change(
                "map_file",
                lib.sa_map_file,
                offset,
                nbytes,
                found.fd,
                found.name,
                found.own_position,
                index(file_offset),
                mode,
            )

    def mmap(
        self, offset: int, nbytes: int, prot: int, flags: int, file: Any, file_offset: int = 0
    ) -> None:
        """
        Map a file with protection and flags of your own.

        Parameters
        ----------
        offset, nbytes : int
            The range in bytes, in whole pages. What was mapped there is replaced.
        prot : int
            ``mmap.PROT_READ``, ``PROT_WRITE``, ``PROT_EXEC`` of the standard library, or 0.
        flags : int
            ``mmap.MAP_SHARED`` or ``MAP_PRIVATE``, with others such as ``MAP_POPULATE``.
        file, file_offset
            As `map_file`.

        Raises
        ------
        ValueError
            A flag would put the mapping elsewhere or keep it from being given back page by page:
            ``MAP_FIXED``, ``MAP_GROWSDOWN``, ``MAP_HUGETLB``, ``MAP_LOCKED``, ``MAP_32BIT``, unknown
            ones. Otherwise as `map_file`.
        BufferError, OutOfBoundsError, ClosedError, OSError
            As `map_file`.
        """
        prot, flags = index(prot), index(flags)
        shared = not flags & 2  # MAP_PRIVATE
        writable = shared and bool(prot & 2)  # PROT_WRITE
        with opened(file, writable=writable) as found:
            self._change(
                "mmap",
                lib.sa_map_raw,
                offset,
                nbytes,
                prot,
                flags,
                found.fd,
                found.name,
                found.own_position,
                index(file_offset),
            )

    def mmap_anonymous(self, offset: int, nbytes: int, prot: int, flags: int) -> None:
        """
        Map memory with protection and flags of your own.

        Parameters
        ----------
        offset, nbytes : int
            The range in bytes, in whole pages. What was mapped there is replaced.
        prot, flags : int
            As `mmap`; ``MAP_ANONYMOUS`` is implied. With ``MAP_SHARED`` forked children share it.

        Raises
        ------
        ValueError, BufferError, OutOfBoundsError, ClosedError, OSError
            As `mmap`.
        """
        self._change(
            "mmap_anonymous",
            lib.sa_map_raw,
            offset,
            nbytes,
            index(prot),
            index(flags),
            -1,
            b"",
            False,
            0,
        )

    def unmap(self, offset: int, nbytes: int) -> None:
        """
        Turn a range back into holes; holes in it stay holes.

        Parameters
        ----------
        offset, nbytes : int
            The range in bytes, in whole pages.

        Raises
        ------
        BufferError, OutOfBoundsError, ValueError, ClosedError, OSError
            As `alloc`.

        Notes
        -----
        The addresses stay reserved (``PROT_NONE``): no other mapping can ever land there.
        """
        self._change("unmap", lib.sa_unmap, offset, nbytes)

    def set_writable(self, offset: int, nbytes: int, writable: bool) -> None:
        """
        Allow or forbid writes. Bytes stay as they are; zero pages turn into private memory.

        Parameters
        ----------
        offset, nbytes : int
            The range in bytes, in whole pages, without holes.
        writable : bool
            Whether writes are allowed from now on.

        Raises
        ------
        AccessError
            A page of the range is not mapped.
        PermissionError
            A shared window of a file that was opened for reading only; map it anew.
        BufferError
            Writes would be forbidden under a live writable window.
        OutOfBoundsError, ValueError, ClosedError, OSError
            As `alloc`.

        See Also
        --------
        mprotect(2)
        """
        self._change("set_writable", lib.sa_set_writable, offset, nbytes, bool(writable))

    def decommit(self, offset: int, nbytes: int) -> None:
        """
        Give pages back to the system, and keep them mapped.

        Private memory then reads as zero, a copy-on-write window as its file; shared windows and
        zero pages read as before. Live windows see it.

        Parameters
        ----------
        offset, nbytes : int
            The range in bytes, in whole pages, without holes.

        Raises
        ------
        AccessError
            A page of the range is not mapped; or is private memory made read-only, which it would
            change.
        OutOfBoundsError, ValueError, ClosedError, OSError
            As `alloc`.
        UnsupportedError
            Outside Linux.

        See Also
        --------
        madvise(2) under ``MADV_DONTNEED``
        """
        self._change("decommit", lib.sa_decommit, offset, nbytes)

    def commit(self, offset: int, nbytes: int) -> None:
        """
        Fault pages in now, for writing where they are writable, so that no access waits or fails later.

        Parameters
        ----------
        offset, nbytes : int
            The range in bytes, in whole pages, without holes.

        Raises
        ------
        AccessError
            A page is not mapped, its file has lost it, the disk is full, or there is not enough
            memory (``'no-memory'``); ``transferred`` is the bytes before it.
        OutOfBoundsError, ValueError, ClosedError
            As `alloc`.

        See Also
        --------
        madvise(2) under ``MADV_POPULATE_WRITE``
        """
        offset, nbytes = index(offset), index(nbytes)
        frame = take()
        done = 0
        while True:
            # Checked piece by piece: what is there already needs no memory.
            left = available_memory()
            if done and left is not None and left < _PIECE + _MARGIN:
                frames.append(frame)
                what = place("commit", offset, nbytes)
                message = f"{what}: byte {describe(offset + done)} has no memory"
                raise AccessError(message, offset + done, "write", "no-memory", done)
            try:
                code = lib.sa_commit(self._reservation, offset, nbytes, done, frame.report)
            except OverflowError:
                raise self._overflow("commit", offset, nbytes) from None
            if code:
                raise failure(code, frame, "commit", offset, nbytes, self._nbytes)
            done = frame.report.transferred
            if done == nbytes:
                break
        frames.append(frame)

    def advise(self, offset: int, nbytes: int, advice: str) -> None:
        """
        Tell the system how a range will be used.

        Parameters
        ----------
        offset, nbytes : int
            The range in bytes, in whole pages, without holes.
        advice : str
            ``'normal'``, ``'sequential'``, ``'random'`` (no read-ahead), ``'willneed'`` (read ahead
            now), ``'hugepage'``, ``'nohugepage'``, ``'cold'`` (give back first), ``'pageout'``
            (give back now; bytes are kept).

        Raises
        ------
        AccessError
            A page of the range is not mapped.
        ValueError
            Some other advice, or not in whole pages.
        OutOfBoundsError, ClosedError, OSError
            As `alloc`; EINVAL where the kernel does not take this advice for such a region.
        UnsupportedError
            The system does not know this advice.

        See Also
        --------
        madvise(2)
        """
        if advice not in _ADVICE:
            msg = f"advise: {advice!r} is none of {', '.join(_ADVICE)}"
            raise ValueError(msg)
        self._change("advise", lib.sa_advise, offset, nbytes, _ADVICE[advice])

    def bind_numa(self, offset: int, nbytes: int, node: int) -> None:
        """
        Have pages that are touched from now on come from one NUMA node.

        Parameters
        ----------
        offset, nbytes : int
            The range in bytes, in whole pages, without holes.
        node : int
            Number of the node.

        Raises
        ------
        AccessError
            A page of the range is not mapped.
        OSError
            There is no such node (EINVAL).
        OutOfBoundsError, ValueError, ClosedError
            As `alloc`.
        UnsupportedError
            The system has no NUMA policies.

        See Also
        --------
        mbind(2), with ``MPOL_BIND``
        """
        number = index(node)
        if not -1 <= number <= 0xFFFF:
            number = -1  # no such node: EINVAL
        self._change("bind_numa", lib.sa_bind_numa, offset, nbytes, number)

    def set_name(self, offset: int, nbytes: int, name: str) -> None:
        """
        Name memory, for ``/proc/self/maps`` and ``smaps``, where it then shows as ``[anon:name]``.

        Parameters
        ----------
        offset, nbytes : int
            The range in bytes, in whole pages, without holes and file windows.
        name : str
            1 to 79 printable ASCII characters, without any of ``[]\\`$``.

        Raises
        ------
        AccessError
            A page of the range is not mapped.
        ValueError
            The name is not such a name, the range is not in whole pages or holds a file window.
        OutOfBoundsError, ClosedError, OSError
            As `alloc`.
        UnsupportedError
            The kernel was built without it (``CONFIG_ANON_VMA_NAME``).

        See Also
        --------
        prctl(2) under ``PR_SET_VMA``
        """
        good = name.isascii() and name.isprintable() and not _NAME_REFUSED.intersection(name)
        if not good or not 0 < len(name) <= _NAME_LIMIT:
            msg = (
                f"set_name: {name!r} is not 1 to {_NAME_LIMIT} printable ASCII characters "
                "without any of []\\`$"
            )
            raise ValueError(msg)
        self._change("set_name", lib.sa_set_name, offset, nbytes, name.encode())

    def flush(self, offset: int = 0, nbytes: int | None = None) -> None:
        """
        Write what was changed in shared file windows to disk, and wait for it.

        Parameters
        ----------
        offset, nbytes : int, optional
            The range in bytes, rounded outwards to whole pages; by default to the end of the buffer.

        Raises
        ------
        OSError
            A write failed. The system says so once and forgets; the buffer keeps saying it until
            the pages are mapped anew.
        OutOfBoundsError, ValueError, ClosedError
            The range reaches past the end, is negative, or the buffer is closed.

        See Also
        --------
        msync(2), fsync(2)
        """
        start = index(offset)
        length = self._nbytes - start if nbytes is None else index(nbytes)
        self._change("flush", lib.sa_flush, start, length)

    # Windows

    def window(
        self,
        offset: int,
        shape: Any,
        dtype: DTypeLike = "u1",
        *,
        writable: bool | None = None,
        strides: Any = None,
        order: str = "C",
    ) -> NDArray[Any]:
        """
        Make a numpy array over mapped memory, without a copy.

        Parameters
        ----------
        offset : int
            Of the array's first element, in bytes.
        shape : int or tuple of ints
            As of any array.
        dtype : dtype
            Any without objects.
        writable : bool, optional
            By default as the pages allow. A read-only window cannot be made writable.
        strides : tuple of ints, optional
            Bytes from one element to the next along each axis; they may be negative.
        order : {'C', 'F'}
            Layout where no strides are given.

        Returns
        -------
        numpy.ndarray
            Plain. While it or anything made from it (views, memoryviews, DLPack consumers) is alive,
            the pages under it stay: calls that would take them away raise BufferError.

        Raises
        ------
        AccessError
            A page that it spans is not mapped, or read-only where `writable` is true.
        OutOfBoundsError
            It reaches past the end.
        ValueError
            A negative argument, or strides that do not fit the shape.
        TypeError
            The dtype holds objects.

        Examples
        --------
        >>> from sparsearray import SparseBuffer
        >>> buffer = SparseBuffer(8192)
        >>> buffer.alloc(0, 8192)
        >>> window = buffer.window(4090, 3, ">u4")
        >>> window[1] = 7
        >>> buffer.read_at(4094, 4)
        b'\\x00\\x00\\x00\\x07'
        """
        return make_window(
            self._reservation,
            self._address,
            self._nbytes,
            offset,
            shape,
            dtype,
            writable,
            strides,
            order,
        )

    def __getitem__(self, key: slice) -> NDArray[np.uint8]:
        """Make a uint8 window of ``[start:stop]``, clipped to the buffer as slices are."""
        if not isinstance(key, slice):
            msg = (
                f"buffer indices must be slices, not {type(key).__name__}: "
                "read_plain(offset, dtype) reads one value"
            )
            raise TypeError(msg)
        start, stop, step = key.indices(self._nbytes)
        count = len(range(start, stop, step))
        return self.window(start if count else 0, count, "u1", strides=(step,) if step != 1 else None)

    # Life

    def close(self) -> None:
        """
        Give the addresses and all private memory back. More than once is fine.

        Raises
        ------
        BufferError
            Windows are alive: how many, and where.
        """
        self._change("close", _close, 0, self._nbytes)
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        msg = "a SparseBuffer cannot be pickled or copied: its memory belongs to this process"
        raise TypeError(msg)

    def __repr__(self) -> str:
        label = f" {self.name!r}" if self.name is not None else ""
        if self._closed:
            return f"<SparseBuffer{label}, closed>"
        regions = self.regions
        mapped = sum(region.nbytes for region in regions)
        count = "1 region" if len(regions) == 1 else f"{len(regions)} regions"
        return (
            f"<SparseBuffer{label} of {describe(self._nbytes)} bytes at {self._address:#x}, "
            f"{count} of {describe(mapped)} bytes>"
        )


def _close(reservation: object, _offset: int, _nbytes: int, report: object) -> int:
    code: int = lib.sa_close(reservation, report)
    return code
