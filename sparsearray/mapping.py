"""The part of `SparseBuffer` that maps pages, and tells what is mapped."""

import mmap
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._binding import (
    describe,
    failure,
    ffi,
    from_buffer,
    index,
    lib,
    place,
    put_back,
    take,
)
from ._descriptor import join_names, opened
from ._memory import available_memory, own_memory
from .access import GuardedAccess
from .errors import AccessError
from .region import Region

__all__ = ["PageMapping"]

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
_C_INTS = range(-(1 << 31), 1 << 31)
_FILE_OFFSETS = range(1 << 63)
# sa_found_file: a file that was opened by its name.
_FOUND = np.dtype([("device", "u8"), ("inode", "u8"), ("nbytes", "u8"), ("start", "S8")])
_FOUND_CELL = ffi.typeof("sa_found_file[]")
_MANY = 512  # files mapped in one call, which no interrupt can come into
_PIECE = 64 << 20  # bytes that `commit` faults in at a time


class PageMapping(GuardedAccess):
    """
    The part of `SparseBuffer` that maps pages.

    Each call replaces what was mapped in its range, in one step for all other threads. If it fails,
    what was there still is, with its bytes.
    """

    __slots__ = ()

    @property
    def regions(self) -> tuple[Region, ...]:
        """
        What is mapped, sorted by offset; what lies between is holes.

        Raises
        ------
        ClosedError
            The buffer is closed.
        """
        report = take()
        count = ffi.new("uint64_t *")
        capacity = 16
        while True:
            found = ffi.new("sa_region[]", capacity)
            code = lib.sa_regions(self._reservation, found, capacity, count)
            if code:
                raise failure(code, report, "regions", 0, self._nbytes, self._nbytes)
            if count[0] <= capacity:
                break
            capacity = count[0] + 16
        names: dict[int, str | None] = {0: None}
        regions = []
        for i in range(count[0]):
            one = found[i]
            if one.file not in names:
                lib.sa_file_name(self._reservation, one.file, report)
                names[one.file] = os.fsdecode(ffi.string(report.file))
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
        put_back(report)
        return tuple(regions)

    def _change(
        self, operation: str, function: Any, offset: int, nbytes: int, *arguments: object
    ) -> None:
        """Make a native call on a range of pages."""
        offset, nbytes = index(offset), index(nbytes)
        report = take()
        try:
            code = function(self._reservation, offset, nbytes, *arguments, report)
        except OverflowError:
            raise self._overflow(operation, offset, nbytes) from None
        if code:
            raise failure(code, report, operation, offset, nbytes, self._nbytes)
        put_back(report)

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

        References
        ----------
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
        skip_holes: bool = False,
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
        skip_holes : bool
            Map the data of the file only, and zero pages over its holes (private memory with
            `copy_on_write`): reading them then takes neither memory nor page cache. `refresh` finds
            what others write into such a hole later.

        Raises
        ------
        ValueError
            The window does not lie within the file rounded up to whole pages, an argument is not in
            whole pages, or `skip_holes` is asked for in a `writable` window, whose holes must take
            what is written.
        OSError
            The file cannot be opened, is a directory or a pipe, was opened without the right to
            write, or its file system cannot map it.
        BufferError, OutOfBoundsError, ClosedError
            As `alloc`.

        Notes
        -----
        Bytes of the last page past the end of the file read as zero. If somebody else makes the
        file shorter, guarded calls raise `AccessError` with reason ``'file-truncated'``, and
        windows show zeros: see `damage`. A copy-on-write window then loses what was written past
        the new end as well.

        A file of many extents has its smallest holes mapped with the data around them, so that the
        process keeps most of the mappings that ``vm.max_map_count`` allows.

        References
        ----------
        mmap(2); lseek(2) on ``SEEK_DATA`` and ``SEEK_HOLE``
        """
        mode = lib.SA_FILE_READ
        if copy_on_write:
            mode = lib.SA_FILE_COPY_ON_WRITE
        elif writable:
            mode = lib.SA_FILE_WRITE
            if skip_holes:
                msg = "skip_holes: the holes of a writable window must take what is written"
                raise ValueError(msg)
        with opened(file, writable=mode == lib.SA_FILE_WRITE) as found:
            self._change(
                "map_file",
                lib.sa_map_file,
                offset,
                nbytes,
                found.fd,
                found.name,
                found.kind,
                _number("file_offset", file_offset, _FILE_OFFSETS),
                mode,
                bool(skip_holes),
            )

    def _map_files(
        self,
        windows: list[tuple[str, int, int, int]],
        mode: int,
        *,
        skip_holes: bool,
        look: bool,
    ) -> tuple[NDArray[np.void], Exception | None]:
        """
        Put windows of many files in place, none of which is kept open.

        Parameters
        ----------
        windows : list of (path, offset, nbytes, file_offset)
            Absolute paths; the rest as of `map_file`.
        mode : int
            One of ``sa_file_mode``.
        skip_holes : bool
            As of `map_file`.
        look : bool
            Read how they begin.

        Returns
        -------
        (ndarray of records, Exception or None)
            Of each that is mapped ``"device"``, ``"inode"``, its length ``"nbytes"`` and, with
            `look`, its first bytes, ``"start"``; and why the next was not.
        """
        found: NDArray[np.void] = np.zeros(len(windows), _FOUND)
        for first in range(0, len(windows), _MANY):
            part = windows[first : first + _MANY]
            names = join_names([window[0] for window in part])
            places = np.array([window[1:] for window in part], np.int64)
            cell = ffi.from_buffer("int64_t[]", places)
            report = take()
            code = lib.sa_map_files(
                self._reservation,
                names,
                cell,
                len(part),
                mode,
                skip_holes,
                look,
                from_buffer(_FOUND_CELL, found[first:], True),
                report,
            )
            if code:
                number: int = report.value
                _, offset, nbytes, _ = part[number]
                error = failure(code, report, "map_file", offset, nbytes, self._nbytes)
                return found[: first + number], error
            put_back(report)
        return found, None

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
            ``MAP_FIXED``, ``MAP_GROWSDOWN``, ``MAP_HUGETLB``, ``MAP_LOCKED``, ``MAP_32BIT``, or
            unknown ones. Otherwise as `map_file`.
        BufferError, OutOfBoundsError, ClosedError, OSError
            As `map_file`.
        """
        prot, flags = _number("prot", prot, _C_INTS), _number("flags", flags, _C_INTS)
        writable = bool(prot & mmap.PROT_WRITE) and not flags & mmap.MAP_PRIVATE
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
                found.kind,
                _number("file_offset", file_offset, _FILE_OFFSETS),
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
            _number("prot", prot, _C_INTS),
            _number("flags", flags, _C_INTS),
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

        References
        ----------
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

        References
        ----------
        madvise(2) under ``MADV_DONTNEED``
        """
        self._change("decommit", lib.sa_decommit, offset, nbytes)

    def commit(self, offset: int, nbytes: int) -> None:
        """
        Fault pages in now, for writing where they are writable: no access waits or fails later.

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

        References
        ----------
        madvise(2) under ``MADV_POPULATE_WRITE``
        """
        offset, nbytes = index(offset), index(nbytes)
        done, code = 0, lib.SA_MORE
        report = take()
        try:
            if nbytes > _PIECE and self._is_too_much(offset, offset + nbytes):
                raise _no_memory(offset, nbytes, 0)
            while code == lib.SA_MORE:
                left = available_memory()
                if left is not None and left < min(nbytes - done, _PIECE) + _MARGIN:
                    raise _no_memory(offset, nbytes, done)
                code = lib.sa_commit(self._reservation, offset + done, nbytes - done, report)
                done += report.transferred
        except OverflowError:
            raise self._overflow("commit", offset, nbytes) from None
        if code:
            report.transferred = done
            raise failure(code, report, "commit", offset, nbytes, self._nbytes)
        put_back(report)

    def _is_too_much(self, start: int, stop: int) -> bool:
        """Whether private memory of a range cannot fit, even if what there is is part of it."""
        wanted = sum(
            min(stop, region.offset + region.nbytes) - max(start, region.offset)
            for region in self.regions
            if region.kind == "private" and region.writable
            if region.offset < stop and start < region.offset + region.nbytes
        )
        left = available_memory()
        return left is not None and wanted > left + own_memory()

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

        References
        ----------
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

        References
        ----------
        mbind(2), with ``MPOL_BIND``
        """
        number = index(node)
        if not -1 <= number <= 0xFFFF:
            number = -1  # no such node: EINVAL
        self._change("bind_numa", lib.sa_bind_numa, offset, nbytes, number)

    def set_name(self, offset: int, nbytes: int, name: str) -> None:
        r"""
        Name memory, for ``/proc/self/maps`` and ``smaps``, where it then shows as ``[anon:name]``.

        Parameters
        ----------
        offset, nbytes : int
            The range in bytes, in whole pages, without holes and file windows.
        name : str
            1 to 79 printable ASCII characters, but none of the five in ``[ ] \ ` $``.

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

        References
        ----------
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


def _number(name: str, value: int, allowed: range) -> int:
    number = index(value)
    if number not in allowed:
        msg = f"{name} {describe(number)}: " + (
            "negative" if number < 0 else "past the end of all there are"
        )
        raise ValueError(msg)
    return number


def _no_memory(offset: int, nbytes: int, done: int) -> AccessError:
    bad = offset + done
    message = f"{place('commit', offset, nbytes)}: byte {describe(bad)} has no memory"
    return AccessError(message, bad, "write", "no-memory", done)
