"""Arrays in files: .npy files whose holes take no room, in memory or on disk."""

from __future__ import annotations

import builtins
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ._binding import plain_dtype
from ._descriptor import Descriptor
from ._layout import as_maxshape, layout
from ._layout import reserve as reserve_addresses
from ._new_file import Replacements, find_old, name_file, replacing, take_room
from ._npy_file import NpyFile, place_of
from ._pool import Pool
from ._records import Records
from ._splitting import name_parts, split_rows
from ._storage import Shared, Storage
from ._tiling import Tiling, as_tiles
from ._writing import write_pool, write_start, writer
from .array import SparseArray
from .npy import MAGIC, Header, data_pages, read_header
from .shared import SharedMemory
from .tiled import TiledArray
from .window import as_shape

if TYPE_CHECKING:
    from io import FileIO

    from .buffer import SparseBuffer

__all__ = ["open", "open_again", "save", "save_held"]

_MODES = ("r", "r+", "w+", "c")
_WRITING = ("r+", "w+")

FilePath = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def open(  # noqa: A001 - as np.memmap and h5py call it
    path: FilePath | SharedMemory,
    mode: Literal["r", "r+", "w+", "c"] = "r",
    *,
    dtype: DTypeLike | None = None,
    shape: Any = None,
    tiles: Any = None,
    maxshape: Any = None,
    reserve: bool = False,
) -> SparseArray | TiledArray:
    """
    Open a file, or shared memory, as an array, without reading it.

    Parameters
    ----------
    path : path or SharedMemory
        A .npy file, of ours or any other, in C or Fortran order; or a raw file, if it has no such
        header and `dtype` is given. Shared memory is like a raw file; it may be closed at once.
    mode : {'r', 'r+', 'w+', 'c'}
        As of `numpy.memmap`: read only (holes take neither memory nor page cache); read and write;
        make a new file, in place of an old one, which arrays that are open already keep; or copy on
        write, where nothing reaches the file.
    dtype, shape
        Of a new file (float64 by default) or a raw one (all of it by default; of shared memory, as
        many items as fit). Of a .npy file they are checked.
    tiles : int, tuple of ints or 'auto', optional
        How a new file lies, as of `zeros`: by default in C order. A file of tiles says so itself;
        given for one, they are checked. A raw file, or a .npy file of twice as many axes (how many
        tiles, and how many items of each), is opened as tiles of this shape.
    maxshape : tuple, optional
        As of `zeros`: how large it can be made with ``resize`` and ``append``, in modes ``'r+'``
        and ``'w+'``. Where they change the length, what lies behind the data in the file is cut
        off.
    reserve : bool
        Take the disk space for all of it now, and for rows when they are added, in modes ``'r+'``
        and ``'w+'``: a full disk is an error here, and not where items are set. The file then has
        no holes, and none are made.

    Returns
    -------
    SparseArray
        Or `TiledArray`, where it lies tile by tile.

    Raises
    ------
    ValueError
        The file has no header, a damaged one or one of an unknown version, is cut short, or is of
        another dtype or shape; an argument makes no sense.
    TypeError
        The dtype holds objects.
    OSError
        The file cannot be opened or made, or is a directory, a pipe or a device; or the disk has no
        room for what is to be reserved (ENOSPC). Then a file that was there is as it was.

    Examples
    --------
    >>> import tempfile
    >>> import sparsearray
    >>> path = tempfile.mkdtemp() + "/a.npy"
    >>> with sparsearray.open(path, "w+", shape=(1 << 20, 1 << 17)) as a:
    ...     a[1000, 2000] = 1
    >>> with sparsearray.open(path) as a:
    ...     a.sum()
    np.float64(1.0)

    Notes
    -----
    Plain ``np.load(path)`` and ``np.load(path, mmap_mode="r")`` read our files. Their data begins
    at byte 4096, so that it lies in whole pages, and holes in it can be skipped. A file of tiles is
    an array of records to numpy, one for each tile: ``np.load(path)["tile"][i, j]``.

    In modes ``'r'`` and ``'c'`` what others write into holes is seen after
    `SparseArray.refresh`. In ``'r+'`` and ``'w+'`` it is seen at once; there, reading holes
    through a window fills the page cache with zeros. Of shared memory that holds for ``'r'`` as
    well; its ``path`` is None.

    ``cp`` keeps holes; ``tar`` and ``rsync`` do so with ``-S``.

    References
    ----------
    numpy.lib.format; lseek(2) on ``SEEK_DATA``; posix_fallocate(3)
    """
    if mode not in _MODES:
        msg = f"mode must be one of {', '.join(map(repr, _MODES))}, not {mode!r}"
        raise ValueError(msg)
    if reserve and mode not in _WRITING:
        msg = f"reserve=True is for modes 'r+' and 'w+', not {mode!r}"
        raise ValueError(msg)
    if isinstance(path, SharedMemory):
        if reserve:
            msg = "reserve=True is for files, not for shared memory"
            raise ValueError(msg)
        return _open_shared(path, mode, dtype, shape, tiles, maxshape)
    name = os.fsdecode(path)
    if mode == "w+":
        _make_file(name, shape, dtype, tiles, maxshape, reserve=reserve)
        shape = dtype = tiles = None  # as in the header
    with _open_regular(name, "r+b" if mode in _WRITING else "rb") as file:
        found = _find_layout(file.fileno(), name, dtype, shape, tiles)
        return _open_file(file.fileno(), name, mode, found, maxshape, reserve=reserve)


def _open_shared(
    memory: SharedMemory, mode: str, dtype: DTypeLike | None, shape: Any, tiles: Any, maxshape: Any
) -> SparseArray | TiledArray:
    """Open shared memory as a raw file."""
    name = memory.name
    if mode == "w+" or dtype is None:
        wrong = "mode 'w+' is for new files" if mode == "w+" else "it needs dtype="
        msg = f"shared memory {name!r}: {wrong}"
        raise ValueError(msg)
    if shape is None and tiles is None:
        shape = memory.nbytes // max(plain_dtype(dtype).itemsize, 1)
    found = _find_layout(memory.fileno(), name, dtype, shape, tiles, is_raw=True)
    return _open_file(memory.fileno(), name, mode, found, maxshape, reserve=False, memory=memory)


def open_again(
    path: FilePath | SharedMemory,
    mode: Literal["r", "r+", "c"],
    shape: tuple[int, ...],
    dtype: np.dtype,
    tiles: tuple[int, ...] | None,
    maxshape: tuple[int, ...] | None,
    reserve: bool,
    start: int,
) -> SparseArray | TiledArray:
    """
    Open what an array was pickled of: `_storage.where_of`.

    Raises
    ------
    ValueError
        It has another shape or dtype by now: which; or it lies elsewhere in the file.
    OSError
        It cannot be opened.
    """
    try:
        made = open(
            path, mode, dtype=dtype, shape=shape, tiles=tiles, maxshape=maxshape, reserve=reserve
        )
        found = made._store._storage.start
        if found != start:
            made.close()
            msg = f"{path!r} has its first item at byte {found} by now, not at {start}"
            raise ValueError(msg)  # noqa: TRY301 - as what open finds
    except ValueError as error:
        msg = f"{error}: it was changed after the array was pickled"
        raise ValueError(msg) from error
    return made


@contextmanager
def _open_regular(name: str, how: Literal["rb", "r+b"]) -> Iterator[FileIO]:
    """Open a regular file, without waiting for the other end of a pipe."""

    def opener(path: str, flags: int) -> int:
        return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)

    with builtins.open(name, how, buffering=0, opener=opener) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", name)
        yield file


class Layout(NamedTuple):
    """How the array in a file lies."""

    header: Header
    """Of the array of tiles, where it lies in those."""
    tiling: Tiling | None
    can_resize: bool


def _find_layout(
    fd: int, name: str, dtype: DTypeLike | None, shape: Any, tiles: Any, *, is_raw: bool = False
) -> Layout:
    """Find what a file holds, and check it against what is wanted."""
    nbytes = os.fstat(fd).st_size
    is_npy = not is_raw and os.pread(fd, len(MAGIC), 0) == MAGIC
    if not is_npy and dtype is None:
        start = os.pread(fd, len(MAGIC), 0)
        msg = f"{name!r} is no .npy file: it begins with {start!r}; a raw file needs dtype="
        raise ValueError(msg)
    try:
        found = read_header(fd) if is_npy else _raw_header(nbytes, dtype, shape, tiles)
        tiling = Tiling.of_record(found.dtype, found.shape)
        if tiling is None and tiles is not None:
            tiling = _as_tiled(found, tiles)
            found = found._replace(shape=tiling.grid, dtype=tiling.record())
            is_npy = False
        sizes, plain = layout(found.shape, found.dtype)
    except (TypeError, ValueError) as error:
        msg = f"{name!r}: {error}"
        # A header that is no text is a ValueError, too, whose own kind takes more than a message.
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(msg) from error
    plain = plain if found.dtype.itemsize else found.dtype  # empty items stay empty
    found = found._replace(shape=sizes, dtype=plain)
    if tiling is None:
        _check(found.shape, found.dtype, name, dtype, shape)
    else:
        _check(tiling.shape, tiling.dtype, name, dtype, shape)
        if (
            tiles is not None
            and as_tiles(tiles, tiling.shape, tiling.dtype.itemsize) != tiling.tiles
        ):
            msg = f"{name!r} lies in tiles of {tiling.tiles}, not {tiles}"
            raise ValueError(msg)
    if found.stop > nbytes:
        msg = (
            f"{name!r} is cut short: shape {found.shape} of {found.dtype} ends at byte "
            f"{found.stop}, and the file has {nbytes}"
        )
        raise ValueError(msg)
    return Layout(found, tiling, is_npy)


def _as_tiled(header: Header, tiles: Any) -> Tiling:
    """Take an array of twice as many axes for one in tiles."""
    ndim, dtype = len(header.shape) // 2, header.dtype
    sizes = as_tiles(tiles, (1,) * ndim, dtype.itemsize)
    if header.order != "C" or header.shape[ndim:] != sizes:
        msg = (
            f"shape {header.shape} in {header.order} order is no array in tiles of {tiles}: those "
            "are C order, and twice as many axes (how many tiles, and how many items of each)"
        )
        raise ValueError(msg)
    shape = tuple(n * tile for n, tile in zip(header.shape, sizes, strict=False))
    return Tiling(shape, sizes, dtype, prod(sizes) * dtype.itemsize)


def _open_file(
    fd: int,
    name: str,
    mode: str,
    found: Layout,
    maxshape: Any,
    *,
    reserve: bool,
    memory: SharedMemory | None = None,
) -> SparseArray | TiledArray:
    header, tiling, can_resize = found
    shape = header.shape if tiling is None else tiling.shape
    dtype = header.dtype if tiling is None else tiling.dtype
    most = as_maxshape(shape, maxshape, dtype.itemsize)
    rows = most if tiling is None else tiling.resized(most).grid
    base, mapped = data_pages(header)
    place, largest = place_of(header), data_pages(header._replace(shape=rows))[1]
    label = Path(name).name if memory is None else memory.name
    buffer = reserve_addresses(place + largest, label)
    if reserve:
        _take_room(fd, name, header)
        buffer._keeps_room = True
    if header.stop > header.start:
        buffer.map_file(
            place,
            mapped,
            Descriptor.owned(fd),
            base,
            writable=mode in _WRITING,
            copy_on_write=mode == "c",
            # Tiles are looked up in the file itself, which needs no mapping for each. What others
            # write to shared memory is to be seen at once.
            skip_holes=tiling is None and mode in (("r", "c") if memory is None else ("c",)),
        )
        if mode in _WRITING or tiling is not None:
            _read_no_holes(fd, buffer, place, mapped)
    storage: Storage
    if memory is None:
        kept = header if can_resize else None
        storage = NpyFile(fd, os.path.abspath(name), mode, header.start, kept)
    else:
        storage = Shared(memory, mode)
    kind = SparseArray if tiling is None else Records
    made = kind._of(
        buffer,
        header.shape,
        header.dtype,
        offset=place + header.start - base,
        order=header.order,
        maxshape=rows,
        storage=storage,
    )
    return TiledArray._of(made, most) if isinstance(made, Records) else made


def _take_room(fd: int, name: str, header: Header) -> None:
    """Have the disk give room for all items of a file."""
    try:
        take_room(fd, header.start, header.stop - header.start)
    except OSError as error:
        name_file(error, name)
        raise


def _read_no_holes(fd: int, buffer: SparseBuffer, offset: int, nbytes: int) -> None:
    """Where most of a file is holes, have only those pages in the cache that are looked at."""
    if 2 * 512 * os.fstat(fd).st_blocks < nbytes:
        buffer.advise(offset, nbytes, "random")


def _raw_header(nbytes: int, dtype: DTypeLike | None, shape: Any, tiles: Any) -> Header:
    """Describe a file without a header."""
    found = plain_dtype(dtype)
    if not found.itemsize:
        msg = f"items of {found} have no bytes"
        raise ValueError(msg)
    if tiles is not None:
        if shape is None:
            msg = "a raw file of tiles needs shape="
            raise ValueError(msg)
        sizes, found = layout(shape, found)
        sides = as_tiles(tiles, sizes, found.itemsize)
        tiling = Tiling(sizes, sides, found, prod(sides) * found.itemsize)
        return Header(tiling.grid, "C", tiling.record(), 0)
    if shape is None:
        if nbytes % found.itemsize:
            msg = f"{nbytes} bytes are no whole items of {found}"
            raise ValueError(msg)
        shape = (nbytes // found.itemsize,)
    return Header(as_shape(shape), "C", found, 0)


def _check(
    sizes: tuple[int, ...], found: np.dtype, name: str, dtype: DTypeLike | None, shape: Any
) -> None:
    """Raise ValueError for an array in a file that is not what the caller says."""
    if dtype is not None and np.dtype(dtype) != found != layout((), dtype)[1]:
        msg = f"{name!r} holds {found}, not {np.dtype(dtype)}"
        raise ValueError(msg)
    if shape is not None and layout(shape, dtype or found)[0] != sizes:
        msg = f"{name!r} has shape {sizes}, not {shape}"
        raise ValueError(msg)


def _make_file(
    name: str, shape: Any, dtype: DTypeLike | None, tiles: Any, maxshape: Any, *, reserve: bool
) -> None:
    """Make a .npy file of zeros, none of which is stored; or for which there is room."""
    if shape is None:
        msg = "mode 'w+' needs a shape"
        raise ValueError(msg)
    sizes, found = layout(shape, float if dtype is None else dtype)
    most = as_maxshape(sizes, maxshape, found.itemsize)
    if tiles is not None:
        tiling = Tiling(sizes, as_tiles(tiles, most, found.itemsize), found)
        sizes, most, found = tiling.grid, tiling.resized(most).grid, tiling.record()
    reserve_addresses(
        prod(most) * found.itemsize
    ).close()  # fails now, not when the old file is gone
    with replacing(name, os.R_OK | os.W_OK) as file:
        start = write_start(file.fileno(), sizes, "C", found)
        if reserve:
            take_room(file.fileno(), start, prod(sizes) * found.itemsize)


@overload
def save(path: FilePath, array: Any, *, parts: None = None, progress: bool = False) -> None: ...


@overload
def save(path: FilePath, array: Any, *, parts: int, progress: bool = False) -> list[str]: ...


def save(
    path: FilePath, array: Any, *, parts: int | None = None, progress: bool = False
) -> list[str] | None:
    """
    Write an array as a .npy file in which holes, and pages of zeros, take no room.

    Parameters
    ----------
    path : path
        The file; an old one is replaced when all of the new one is on disk, and stays as it is if
        that fails.
    array : SparseArray, TiledArray or array_like
        What to write; tiles stay tiles. One that was opened with mode ``'r'`` or ``'c'`` may be
        saved over its own file, and keeps showing the old one.
    parts : int, optional
        Write so many files instead, along the first axis, which `stitch` joins without a copy: as
        even as can be, where all but the last are whole pages. With ``parts=12``, ``a.npy`` becomes
        ``a.00.npy`` to ``a.11.npy``; the number comes last where the path does not end in ``.npy``.
        They are put in their places when all of them are on disk. Others of such names stay.
    progress : bool
        Show a progress bar (needs tqdm).

    Returns
    -------
    None, or list of str
        The paths of the parts.

    Raises
    ------
    ValueError
        The path is the array's own file, opened with mode ``'r+'`` or ``'w+'``:
        `SparseArray.flush` writes what was changed. Or it is to be in parts, and has too few rows,
        no axis, tiles, or Fortran order.
    TypeError
        The dtype holds objects.
    OSError
        The disk is full or fails, or the path is a directory or no regular file. Nothing is left
        behind.
    AccessError
        The array's own file became shorter meanwhile.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import sparsearray
    >>> a = sparsearray.zeros(1 << 30)
    >>> a[1 << 29] = 1
    >>> path = tempfile.mkdtemp() + "/a.npy"
    >>> sparsearray.save(path, a)
    >>> os.stat(path).st_size >> 30, os.stat(path).st_blocks * 512
    (8, 8192)
    >>> np.load(path, mmap_mode="r")[1 << 29]
    np.float64(1.0)
    >>> paths = sparsearray.save(path, a, parts=4)
    >>> [os.path.basename(path) for path in paths]
    ['a.0.npy', 'a.1.npy', 'a.2.npy', 'a.3.npy']
    >>> b = sparsearray.stitch(paths)
    >>> b.shape, b.nbytes_copied
    ((1073741824,), 0)
    """
    name = os.fsdecode(path)
    if isinstance(array, TiledArray):
        if parts is not None:
            msg = f"save: {array.shape} in tiles of {array.tiles} has no parts; retile(None) first"
            raise ValueError(msg)
        array = array._records
    source = array if isinstance(array, SparseArray) else np.asarray(array)
    dtype = plain_dtype(source.dtype)
    if isinstance(source, SparseArray):
        order: str = source.order
    else:
        order = "F" if source.flags.f_contiguous and not source.flags.c_contiguous else "C"
    if parts is None:
        names, rows = [name], [(0, source.shape[0] if source.ndim else 1)]
    else:
        if not name or name.endswith(os.sep):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
        names, rows = _split(name, source, order, parts)
    for one in names:
        if isinstance(source, SparseArray):
            _refuse_own_file(one, source)
        find_old(one)  # says what cannot be before anything is written
    with Replacements() as files, writer(source, order, progress=progress) as write:
        for one, (first, stop) in zip(names, rows, strict=True):
            shape = (stop - first, *source.shape[1:]) if source.ndim else ()
            with files.writing(one) as file:
                start = write_start(file.fileno(), shape, order, dtype)
                write(file.fileno(), start, first, stop)
    return None if parts is None else names


def _split(
    name: str, source: SparseArray | NDArray[Any], order: str, parts: int
) -> tuple[list[str], list[tuple[int, int]]]:
    """Name the parts of an array, and tell their rows; ValueError where it has none."""
    if not source.ndim:
        msg = "save: a single item has no parts"
        raise ValueError(msg)
    if order == "F" and source.ndim > 1:
        msg = f"save: {source.shape} in Fortran order has no parts along the first axis"
        raise ValueError(msg)
    rows = split_rows(source.shape[0], prod(source.shape[1:]) * source.itemsize, parts)
    return name_parts(name, len(rows)), rows


def save_held(path: FilePath, array: SparseArray) -> None:
    """Write what memory holds of an array, as `SparseArray.save_to` says."""
    buffer = array.buffer
    buffer._tell_before_saving()
    with replacing(os.fsdecode(path)) as file:
        start = write_start(file.fileno(), array.shape, array.order, array.dtype)
        if isinstance(array, Pool):
            write_pool(file.fileno(), start, array, progress=False)
        else:
            buffer._write_held(file.fileno(), start, array.offset, array.nbytes)
    buffer._forgive()


def _refuse_own_file(name: str, array: SparseArray) -> None:
    """Raise ValueError where what is written to the array later would be lost with the old file."""
    storage = array._storage
    if storage.mode in _WRITING and storage.is_at(name):
        msg = (
            f"save: {name!r} is the array's own file, opened with mode {storage.mode!r}; "
            "flush() writes what was changed"
        )
        raise ValueError(msg)
