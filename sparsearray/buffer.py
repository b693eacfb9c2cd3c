"""`SparseBuffer`: a reserved range of addresses, populated piece by piece."""

import errno
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ._binding import describe, failure, ffi, index, lib, put_back, take
from ._closing import Closing, warn_of
from ._memory import available_memory
from .backing import FileBacking
from .errors import UnsupportedError
from .extents import find_extents
from .window import LONG, make_window

__all__ = ["SparseBuffer"]


class SparseBuffer(FileBacking, Closing):
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

    References
    ----------
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
    >>> buffer.unmap(1 << 30, 1 << 20)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    BufferError: unmap of 0x100000 (1048576) bytes at 0x40000000 (1073741824): 1 live window is ...
    >>> del window
    >>> buffer.close()
    """

    __slots__ = ("__weakref__", "_address", "_cell", "_closed", "_keeps_room", "_reserved", "name")

    def __init__(
        self, nbytes: int, *, alignment: int | None = None, name: str | None = None
    ) -> None:
        self._closed = True
        cell = _new_cell()
        size, unit = index(nbytes), 0 if alignment is None else index(alignment)
        if size <= 0:
            msg = f"a buffer of {size} bytes: must be positive"
            raise ValueError(msg)
        page = lib.sa_page_size()
        if alignment is not None and (unit < page or unit & (unit - 1)):
            msg = f"alignment {describe(unit)}: not a power of two of at least a page, {page}"
            raise ValueError(msg)
        report = take()
        try:
            code = lib.sa_reserve(size, unit, cell, report)
        except OverflowError:
            msg = f"a buffer of {describe(size)} bytes, aligned to {describe(unit)}: no room"
            raise OSError(errno.ENOMEM, msg) from None
        if code:
            raise failure(code, report, "reservation", 0, size, 0)
        put_back(report)
        self._start(cell, name)

    def _start(self, cell: Any, name: str | None) -> None:
        """Own a reservation."""
        self._cell = cell
        self._reservation = cell[0]
        geometry = ffi.new("sa_geometry *")
        lib.sa_describe(self._reservation, geometry)
        self._nbytes: int = geometry.nbytes
        self._reserved: int = geometry.reserved
        self._address: int = geometry.address
        self._closed = False
        self._keeps_room = False  # what files have of the disk stays theirs
        self._gives_up = False  # what has no room on the disk
        self.name = name

    # What it is

    @property
    def nbytes(self) -> int:
        """Length in bytes, whole pages."""
        return self._nbytes

    @property
    def reserved(self) -> int:
        """Bytes of addresses taken: `nbytes`, in pages of the largest size that fits in it."""
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

    # What it holds

    def extents(self, offset: int = 0, nbytes: int | None = None) -> NDArray[np.int64]:
        """
        Find the pages that may hold something other than zero.

        Private memory counts where it was touched, a file where it has data; a copy-on-write window
        where either is so. What lies in no extent reads as zero, or is a hole.

        Parameters
        ----------
        offset, nbytes : int
            The range to look at, in bytes; to the end of the buffer by default.

        Returns
        -------
        ndarray of int64, shape (n, 2)
            Start and stop in bytes from the start of the buffer, sorted and disjoint; whole pages
            but for the ends of the range.

        Raises
        ------
        ClosedError, OutOfBoundsError, ValueError
            As `read_at`.
        AccessError
            A file became shorter: what it lost is not taken for a hole.
        OSError
            The system fails to say.

        Examples
        --------
        >>> from sparsearray import SparseBuffer
        >>> buffer = SparseBuffer(1 << 40)
        >>> buffer.alloc(0, 1 << 40)
        >>> buffer.write_at(1 << 39, b"here")
        >>> buffer.extents() - (1 << 39)
        array([[   0, 4096]])
        >>> buffer.nbytes_stored
        4096

        Notes
        -----
        Two extents never touch. Memory is asked for with ``PAGEMAP_SCAN`` (Linux 6.7), before that
        page by page in ``/proc/self/pagemap``; swapped pages count, the page of zeros that
        untouched memory is read through does not. On other systems all private memory is one
        extent.

        References
        ----------
        Linux, Documentation/admin-guide/mm/pagemap.rst; lseek(2) on ``SEEK_DATA``
        """
        start = index(offset)
        count = max(self._nbytes - start, 0) if nbytes is None else index(nbytes)
        try:
            return find_extents(self._reservation, self._nbytes, start, count)
        except OverflowError:
            raise self._overflow("extents", start, count) from None

    def _own_extents(self, offset: int, nbytes: int) -> NDArray[np.int64]:
        """Find the pages that were written to and are in no file: private, or copied on write."""
        return find_extents(self._reservation, self._nbytes, offset, nbytes, "own")

    @property
    def nbytes_stored(self) -> int:
        """
        Bytes in all `extents`: about what the buffer costs, in memory or on disk.

        Raises
        ------
        ClosedError, AccessError, OSError
            As `extents`.
        """
        found = self.extents()
        return int((found[:, 1] - found[:, 0]).sum())

    def refresh(self, offset: int = 0, nbytes: int | None = None) -> int:
        """
        Look again for data in the holes that ``map_file(..., skip_holes=True)`` skipped.

        Live windows stay valid and show what is found.

        Parameters
        ----------
        offset, nbytes : int
            The range to look at, in bytes; to the end of the buffer by default.

        Returns
        -------
        int
            Bytes of new data, in whole pages.

        Raises
        ------
        ClosedError, OutOfBoundsError, ValueError
            As `read_at`.
        OSError
            The file cannot be looked at or mapped. What was found before it stays found.
        """
        start = index(offset)
        count = max(self._nbytes - start, 0) if nbytes is None else index(nbytes)
        report = take()
        try:
            code = lib.sa_refresh(self._reservation, start, count, report)
        except OverflowError:
            raise self._overflow("refresh", start, count) from None
        if code:
            raise failure(code, report, "refresh", start, count, self._nbytes)
        found: int = report.count
        put_back(report)
        return found

    def snapshot(self, name: str | None = None) -> "SparseBuffer":
        r"""
        Make a buffer of what this one holds now, whatever becomes of it later.

        Windows of files are shared until they are written, by either side; nothing written to the
        snapshot reaches a file. Memory is copied.

        Parameters
        ----------
        name : str, optional
            A label of the new buffer.

        Returns
        -------
        SparseBuffer
            With the same at the same offsets. Windows of files, the holes that they skip, and
            memory that is writable here can be written there; what cannot be read here is a hole.

        Raises
        ------
        ClosedError
            The buffer is closed.
        AccessError
            A file has lost some of what is to be kept, or the disk has no room for what was
            written.
        MemoryError
            Private memory does not fit a second time.
        OSError
            The system refuses; or a file of many is not at its path any more (ENOENT).

        Notes
        -----
        What it costs: a mapping for each window and for the larger holes of files, and a descriptor
        for each file, at once; and then a page for each page that is written through the original
        or in the snapshot; of private memory the pages that were touched. While a window of the
        original that may write is alive, or when one is made, all of its pages that lie in files
        are copied, for what numpy does in it nobody sees; read-only windows
        (``window(..., writable=False)``) cost nothing.

        What other processes, and other buffers, write to a file can be seen in pages that nobody
        has written since. What they cut off is lost.

        References
        ----------
        mmap(2), with ``MAP_PRIVATE``

        Examples
        --------
        >>> from sparsearray import SparseBuffer, shared_memory
        >>> buffer = SparseBuffer(4096)
        >>> buffer.map_file(0, 4096, shared_memory(4096), writable=True)
        >>> buffer.write_at(0, b"before")
        >>> kept = buffer.snapshot()
        >>> buffer.write_at(0, b"after!")
        >>> kept.read_at(0, 6), buffer.read_at(0, 6)
        (b'before', b'after!')
        """
        cell = _new_cell()
        report = take()
        code = lib.sa_snapshot(self._reservation, cell, report)
        if code:
            raise failure(code, report, "snapshot", 0, self._nbytes, self._nbytes)
        put_back(report)
        made = SparseBuffer.__new__(SparseBuffer)
        made._start(cell, name)
        self._copy_memory(made)
        return made

    def _copy_memory(self, other: "SparseBuffer") -> None:
        """Copy to a snapshot what lies in no file."""
        own = self._own_extents(0, self._nbytes).tolist()
        for region in self.regions:
            if region.kind == "raw" and region.file is None:  # what others wrote nobody tells
                own += self.extents(region.offset, region.nbytes).tolist()
        wanted, left = sum(stop - start for start, stop in own), available_memory()
        if left is not None and wanted > left:
            msg = f"snapshot: {describe(wanted)} bytes of memory to copy, and {describe(left)} free"
            raise MemoryError(msg)
        for start, stop in own:
            for at in range(start, stop, LONG):
                end = min(at + LONG, stop)
                self.read_into(at, other[at:end])
        for region in self.regions:
            if region.kind == "private" and not region.writable:
                other.set_writable(region.offset, region.nbytes, writable=False)

    def _keep_pages(self, offset: int, nbytes: int) -> None:
        """
        Have snapshots keep pages of a long range that is about to be written.

        The native call that writes does the same; but no Ctrl-C could come into it.
        """
        if self._has_snapshots():
            stop = min(offset + nbytes, self._nbytes)
            for at in range(offset, stop, LONG):
                self._change("snapshot", lib.sa_keep_pages, at, min(LONG, stop - at))

    def _has_snapshots(self) -> bool:
        """Tell whether a writable window of a file has its pages copied."""
        return bool(lib.sa_has_snapshots(self._reservation))

    def _keep_old(self, offset: int, nbytes: int) -> None:
        """Have snapshots keep what the caller is about to cut off files."""
        self._change("resize", lib.sa_keep_old, offset, nbytes)

    def _prefetch(self, ranges: NDArray[np.int64]) -> None:
        """Have the system start to read what lies in files; shape (n, 2), in bytes."""
        self._each_range("read", lib.sa_prefetch, ranges)

    def _make_room(self, ranges: NDArray[np.int64]) -> None:
        """Have the disk give room for ranges that are about to be written; AccessError if not."""
        self._each_range("write", lib.sa_make_room, ranges)

    def _each_range(self, operation: str, function: Any, ranges: NDArray[np.int64]) -> None:
        pairs = np.ascontiguousarray(ranges, np.int64)
        cell = ffi.from_buffer("int64_t[]", pairs)
        report = take()
        code = function(self._reservation, cell, len(pairs), report)
        if code:
            start, stop = int(pairs[0, 0]), int(pairs[-1, 1])
            raise failure(code, report, operation, start, stop - start, self._nbytes)
        put_back(report)

    def _fetch(self, offset: int, nbytes: int) -> None:
        """Have in memory what lies in files; AccessError for what they do not give."""
        self._change("read", lib.sa_fetch, offset, nbytes)

    def _forget(self, offset: int, nbytes: int) -> None:
        """Leave to the system's cache what lies in files, as long as it is not used again."""
        self._change("read", lib.sa_forget, offset, nbytes)

    def _check_unpinned(self, offset: int, nbytes: int) -> None:
        """Raise BufferError if a live window shows any of these bytes."""
        self._change("resize", lib.sa_check_unpinned, offset, nbytes)

    def _accept_ends(self) -> None:
        """Take it as meant that files became shorter: the caller did that."""
        self._change("resize", _accept_ends, 0, 0)

    def _clear(self, offset: int, nbytes: int) -> None:
        """Set bytes to zero and give back what whole pages of them took, in memory or on disk."""
        if nbytes > LONG:
            self._keep_pages(offset, nbytes)
        if not self._give_back(offset, nbytes):
            self._fill_stored(offset, nbytes)
            return
        page = self.page_size
        start, stop = -(-offset // page) * page, (offset + nbytes) // page * page
        if start >= stop:
            self._fill_stored(offset, nbytes)
            return
        self._fill_stored(offset, start - offset)
        self._fill_stored(stop, offset + nbytes - stop)

    def _give_back(self, offset: int, nbytes: int) -> bool:
        """Turn pages into zeros that take no room; False where that cannot or must not be."""
        if self._keeps_room:
            return False
        try:
            self._change("clear", lib.sa_punch, offset, nbytes)
        except UnsupportedError:
            return False
        return True

    def _fill_stored(self, offset: int, nbytes: int) -> None:
        """Fill with zeros what is not zero anyway."""
        if nbytes:
            for start, stop in self.extents(offset, nbytes).tolist():
                self.fill_at(start, 0, stop - start)

    # Windows

    def window(
        self,
        offset: int,
        shape: Any,
        dtype: DTypeLike = "u1",
        *,
        writable: bool | None = None,
        strides: Any = None,
        order: Literal["C", "F"] = "C",
    ) -> NDArray[Any]:
        r"""
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
            Plain. While it or anything made from it (views, memoryviews, DLPack consumers) is
            alive, the pages under it stay: calls that would take them away raise BufferError.

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
        b'\x00\x00\x00\x07'
        """
        return make_window(
            self,
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
        try:
            start, stop, step = key.indices(self._nbytes)
        except AttributeError:
            msg = (
                f"buffer indices must be slices, not {type(key).__name__}: "
                "read_plain(offset, dtype) reads one value"
            )
            raise TypeError(msg) from None
        count = len(range(start, stop, step))
        return self.window(
            start if count else 0, count, "u1", strides=(step,) if step != 1 else None
        )

    # Life

    def close(self) -> None:
        """
        Give the addresses and all private memory back. More than once is fine.

        Raises
        ------
        BufferError
            Windows are alive: how many, and where.
        AccessError
            The disk is full, and memory keeps what windows wrote to a file. The buffer stays open;
            a second call gives that up.

        Warns
        -----
        SparseDamageWarning
            Windows have lost something else, and nobody was told. See `damage`.
        """
        error = self._settle()
        try:
            self._change("close", _close, 0, self._nbytes)
        except BufferError as windows:
            raise windows from error
        self._closed = True
        if error is not None:
            warn_of(error, 2)

    def __del__(self) -> None:
        # Never initialised; or in a cycle, of which the collector took what owns the reservation
        # first.
        if not getattr(self, "_closed", True) and self._cell[0] != ffi.NULL:
            error = self._find_untold(tell=True)
            if error is not None:
                warn_of(error, 2)

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

    def _repr_html_(self) -> str:
        from .display import buffer_html

        return buffer_html(self)

    def plot(self, ax: Any = None) -> Any:
        """
        Draw with matplotlib the map that notebooks show: what is mapped where.

        The upper bar is to scale; the lower one shows each region, and holes as small gaps.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default in a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            The x axis is in bytes from the start of the buffer.

        Raises
        ------
        ImportError
            matplotlib is not installed.
        ClosedError
            The buffer is closed.
        """
        from .buffer_plot import plot_buffer

        return plot_buffer(self, ax)


def _new_cell() -> Any:
    """
    Make what a native call writes a reservation into.

    Native code gives that back: no interrupt can come between.
    """
    return ffi.gc(ffi.new("sa_reservation **"), lib.sa_release)


def _accept_ends(reservation: object, _offset: int, _nbytes: int, report: object) -> int:
    code: int = lib.sa_accept_ends(reservation, report)
    return code


def _close(reservation: object, _offset: int, _nbytes: int, report: object) -> int:
    code: int = lib.sa_close(reservation, report)
    return code
