"""
From and to zarr arrays.

Examples
--------
>>> import tempfile
>>> import sparsearray
>>> a = sparsearray.zeros((1 << 15, 1 << 15), "u1", tiles=256)
>>> a[5000:5010, 7000] = 1
>>> path = tempfile.mkdtemp() + "/a.zarr"
>>> z = to_zarr(a, path, compressors=None)
>>> int(z[5005, 7000])
1
>>> from_zarr(path).sum()
np.uint64(10)
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sparsearray._chunk_files import ChunkKeys, map_chunks
from sparsearray._progress import progress_bar
from sparsearray._text import size as written
from sparsearray._tiling import LARGEST_TILE, Tiling, as_tiles
from sparsearray.blocks import boxes, join
from sparsearray.stored import StoredArray
from sparsearray.tiled import TiledArray

from ._default_chunks import choose_chunks
from ._room import Room
from ._threads import by_threads
from ._zarr_format import (
    Format,
    as_node_path,
    describe_missing,
    find_format,
    find_stored,
    library,
    open_array,
)
from ._zarr_writing import write_existing, write_new

__all__ = ["from_zarr", "to_zarr"]

_MODES = ("r", "r+", "c")
_PIECE = 16 << 20  # bytes read at a time
_AHEAD = 8  # pieces read before their turn, or less where they are large
_MOST_AHEAD = 512 << 20  # bytes
_CHUNK = 1 << 20  # bytes of a chunk, about, where much is stored

Index = tuple[slice, ...]


def from_zarr(
    store: Any,
    *,
    path: str = "",
    mode: Literal["r", "r+", "c"] = "r",
    copy: bool | None = None,
    fill_missing: bool = False,
    progress: bool = False,
) -> TiledArray:
    """
    Open a zarr array, without reading it where its chunks are plain files.

    Parameters
    ----------
    store : path, zarr.Array, zarr.Group or zarr store
        The array, of version 2 or 3 of the format; or what holds it.
    path : str
        Of the array in the store or group.
    mode : {'r', 'r+', 'c'}
        As of `open`: read only; writes reach the chunks, and make those that are not there; or copy
        on write. For what is copied it makes no difference, but for ``'r+'``, which is refused.
    copy : bool, optional
        Whether to read the chunks into memory: by default where they cannot be mapped. False: an
        error there.
    fill_missing : bool
        Where chunks are missing and hold something other than zero, store that for all of them,
        in memory.
    progress : bool
        Show a progress bar while chunks are read (needs tqdm).

    Returns
    -------
    TiledArray
        Its tiles are the chunks. Those that are missing, and those that hold zeros only where
        chunks are read, take nothing.

    Raises
    ------
    ValueError
        Chunks are missing, and the array's fill value is not zero; a chunk file is not as long as a
        chunk; or chunks would have to be read, and `copy` or `mode` forbid it.
    TypeError
        It is a group; or items are Python objects, or of no fixed length.
    KeyError
        A group has no such array.
    OSError
        A file cannot be opened, or is not there; or there are more chunks than a process may have
        mappings (ENOMEM), which ``vm.max_map_count`` sets: ``copy=True`` reads them.
    MemoryError
        What is read does not fit into memory.
    ImportError
        zarr, or for `progress` tqdm, is not installed.

    Notes
    -----
    Chunk files are mapped as they are if the array is in a local folder, without compression,
    filters, shards or another order than C, and a chunk has whole pages (of 4 KiB on most
    machines) and less than 2 GiB. No descriptor is kept. Each chunk takes a mapping, and each gap
    between them another. What others write to such chunks in place is seen; but zarr replaces them,
    and those that it replaces or makes later are not: open the array once more.

    If somebody else makes a chunk file shorter, it is as with any array in a file: guarded calls,
    and all of numpy's functions on the array, raise AccessError. Pickled, such an array is a path.

    All other arrays are read, by several threads: only chunks that are there are asked for, if the
    store can be listed. Their dtype has the byte order that they are stored in.

    Where nothing says otherwise (a fill value of None), missing chunks hold what zarr reads there.

    References
    ----------
    Zarr v3 core specification; Zarr v2 specification; mmap(2)

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import zarr
    >>> path = tempfile.mkdtemp() + "/a.zarr"
    >>> z = zarr.create_array(
    ...     path, shape=(1 << 20, 1 << 20), chunks=(64, 128), dtype="f8", compressors=None
    ... )
    >>> z[1000:1010, 2000] = np.arange(10)
    >>> a = from_zarr(path)
    >>> a.tiles, a.sum(), a.nbytes_stored
    ((64, 128), np.float64(45.0), 65536)
    """
    if mode not in _MODES:
        msg = f"mode must be one of {', '.join(map(repr, _MODES))}, not {mode!r}"
        raise ValueError(msg)
    array = open_array(store, path, "r", "from_zarr")
    form = find_format(array)
    found = find_stored(array, form)
    missing = 0 if found is None else prod(form.grid) - len(found)
    fills = False
    if missing and not form.has_zero_fill:
        if not fill_missing:
            msg = (
                f"{array.store_path}: {describe_missing(form, missing)}: fill_missing=True stores "
                "that"
            )
            raise ValueError(msg)
        fills = True
    reason = _why_copied(form, fills=fills)
    if reason is not None and (copy is False or mode == "r+"):
        asked = "copy=False" if copy is False else f"mode {mode!r}"
        msg = f"{array.store_path}: {asked}: its chunks must be read into memory: {reason}"
        raise ValueError(msg)
    if copy and mode == "r+":
        msg = "copy=True: writes to what was read into memory reach no chunk; mode 'r+' wants that"
        raise ValueError(msg)
    if reason is None and not copy and form.root is not None and form.keys is not None:
        return _map(form, form.root, form.keys, mode, found or {})
    everything = found is None or fills
    if fills:
        Room(str(array.store_path), "zarr").check(missing * form.chunk_nbytes)
    return _read(array, form, {} if found is None else found, everything=everything, shown=progress)


def _why_copied(form: Format, *, fills: bool) -> str | None:
    """Say why chunks cannot be mapped; None where they can."""
    page = os.sysconf("SC_PAGESIZE")
    if form.root is None:
        return "they are in no local folder"
    if form.keys is None:
        return "how their keys are encoded is not known"
    if form.reason is not None:
        return form.reason
    if form.chunk_nbytes > LARGEST_TILE:
        return f"a chunk has {written(form.chunk_nbytes)}, and a tile less than 2 GiB"
    if form.chunk_nbytes % page:
        return f"the {form.chunk_nbytes} bytes of a chunk are no whole pages of {page}"
    return "those that are missing are to be filled" if fills else None


def _map(form: Format, root: str, keys: ChunkKeys, mode: str, found: dict[int, str]) -> TiledArray:
    """Map chunk files as tiles."""
    tiling = Tiling(form.shape, form.chunks, form.dtype, form.chunk_nbytes)
    reference = open_again, (root, mode, form.shape, form.chunks, form.dtype)
    records = map_chunks(root, keys, tiling, mode, found, reference)
    return TiledArray._of(records, form.shape)


def open_again(
    root: str,
    mode: Literal["r", "r+", "c"],
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: np.dtype,
) -> TiledArray:
    """
    Open what an array was pickled of.

    Raises
    ------
    ValueError
        It is another array by now, or its chunks cannot be mapped any more.
    OSError
        It cannot be opened.
    """
    made = from_zarr(root, mode=mode, copy=False)
    if (made.shape, made.tiles, made.dtype) != (shape, chunks, dtype):
        found = f"{made.shape} {made.dtype} in chunks of {made.tiles}"
        made.close()
        msg = (
            f"{root!r} is {found}, and not {shape} {dtype} in chunks of {chunks}: it was changed "
            "after the array was pickled"
        )
        raise ValueError(msg)
    return made


# Chunks that are read


def _read(
    array: Any, form: Format, found: dict[int, str], *, everything: bool, shown: bool
) -> TiledArray:
    """Read chunks into memory; `everything`: also what is missing, or may be."""
    tiles: Any = form.chunks if form.chunk_nbytes <= LARGEST_TILE else "auto"
    made = TiledArray._zeros(form.shape, form.dtype, tiles)
    count = prod(form.grid)
    if everything and count:
        ranges = np.array([[0, count]])
    else:
        numbers = np.fromiter(found, np.int64, len(found))
        ranges = join(np.stack([numbers, numbers + 1], axis=1))
    nbytes = prod(form.stored) * form.dtype.itemsize
    is_plain = form.root is not None and form.reason is None and not everything
    most = 1 if is_plain else max(_PIECE // nbytes, 1)
    places = _item_boxes(form, ranges, most)
    reader = _PlainReader(form, found) if is_plain else array.__getitem__
    ahead = max(min(_AHEAD, _MOST_AHEAD // nbytes), 1)
    total = int((ranges[:, 1] - ranges[:, 0]).sum()) * nbytes
    room = Room(str(array.store_path), "zarr")
    try:
        room.check(min(ahead * nbytes, total))
        with progress_bar("from_zarr", total, shown=shown) as done:
            for box, block in by_threads(reader, places, ahead):
                items = np.asarray(block, form.dtype)
                room.take(items.nbytes)
                made._write_filled(box, items)
                done(items.nbytes)
    except BaseException:
        made.close()  # the error may keep it for long
        raise
    return made


def _item_boxes(form: Format, ranges: NDArray[np.int64], most: int) -> Iterator[Index]:
    """Cut ranges of chunks, or shards, into boxes of items: of so many of them, at most."""
    for box in boxes(form.grid, ranges, most):
        sides = zip(box, form.stored, form.shape, strict=True)
        yield tuple(slice(s.start * side, min(s.stop * side, n)) for s, side, n in sides)


class _PlainReader:
    """Reads chunk files whose bytes are those of items."""

    def __init__(self, form: Format, found: dict[int, str]) -> None:
        self._form = form
        self._found = found

    def __call__(self, box: Index) -> NDArray[Any]:
        form = self._form
        number = 0
        for side, n, chunk in zip(box, form.grid, form.stored, strict=True):
            number = number * n + side.start // chunk
        path = self._found[number]
        with os.fdopen(_open_regular(path), "rb") as file:
            data = file.read()
        if len(data) != form.chunk_nbytes:
            msg = f"{path!r}: {len(data)} bytes, and a chunk has {form.chunk_nbytes}"
            raise ValueError(msg)
        items = np.frombuffer(data, form.dtype).reshape(form.chunks)
        inside = tuple(slice(0, side.stop - side.start) for side in box)
        return items[inside] if inside else items


def _open_regular(path: str) -> int:
    """Open a file; OSError for what would keep one waiting, as a pipe does."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "a chunk that is no regular file", path)
    return fd


def to_zarr(
    array: Any,
    store: Any,
    *,
    path: str = "",
    chunks: Any = None,
    overwrite: bool = False,
    progress: bool = False,
    **options: Any,
) -> Any:
    """
    Write what is stored of an array to a zarr array: chunks that hold something, and no others.

    Parameters
    ----------
    array : SparseArray or TiledArray
        What to write.
    store : path, zarr store or zarr.Array
        Where a new array goes; or one that is there, and is given the same items.
    path : str
        Of a new array in the store. The groups that it is in are made.
    chunks : int, tuple of ints or 'auto', optional
        Of a new array: by default the tiles of a TiledArray; of others about 1 MiB, as near a cube
        as the dtype allows, or less, a page of a row at least, where little is stored here and
        there: as in `to_hdf5`. With ``shards`` what zarr chooses.
    overwrite : bool
        Replace an array, or a group, that is there.
    progress : bool
        Show a progress bar (needs tqdm).
    **options
        Of a new array, as of ``zarr.create_array``: ``zarr_format``, ``compressors``, ``filters``,
        ``serializer``, ``shards``, ``chunk_key_encoding``, ``attributes``, ``dimension_names``.
        What is compressed cannot be mapped by `from_zarr`: ``compressors=None``.

    Returns
    -------
    zarr.Array
        Open for reading and writing. The fill value of a new one is zero.

    Raises
    ------
    TypeError
        It is no such array; zarr has no such dtype, or gives another one back; or an option comes
        from the array.
    ValueError
        An array that is there has another shape or dtype, or a fill value that is not zero, and
        some chunks of it would be missing. Or it is the array's own, opened with mode ``'r+'``; or
        `zarr_format` is not that of the group.
    FileExistsError
        There is something in the folder, and no `overwrite`.
    AccessError
        The array's own file became shorter meanwhile.
    OSError
        The disk is full or fails.
    ImportError
        zarr, or for `progress` tqdm, is not installed.

    Notes
    -----
    Several threads write, to chunk files themselves where these are the bytes of items, and by
    zarr's codecs elsewhere. In a local folder a new array is put in its place when all of it is
    written, and nothing is left of it if that fails; in other stores what was written is removed
    then, if they can remove anything: a zip file cannot. Into one that is there chunks are written
    one by one, and those of zeros removed last. A Ctrl-C is heeded between chunks; a second
    waits until what the first has stopped is removed. As with zarr nobody waits for the disk.

    Examples
    --------
    >>> import tempfile
    >>> import sparsearray
    >>> a = sparsearray.zeros((1 << 20, 1 << 17), "f4", tiles=(64, 128))
    >>> a[1000:1010, 2000] = 1
    >>> z = to_zarr(a, tempfile.mkdtemp() + "/a.zarr", attributes={"unit": "m"})
    >>> z.chunks, float(z[900:1100, 1900:2100].sum()), z.nchunks_initialized
    ((64, 128), 10.0, 1)
    """
    zarr = library("to_zarr")
    if not isinstance(array, StoredArray):
        msg = (
            f"to_zarr takes a SparseArray or a TiledArray, not {type(array).__name__}: "
            "zarr.create_array(store, data=...)"
        )
        raise TypeError(msg)
    if isinstance(store, zarr.Array):
        if path or chunks is not None or overwrite or options:
            msg = f"to_zarr: {store!r} is an array already, of its own path, chunks and options"
            raise TypeError(msg)
        return write_existing(array, store, shown=progress)
    if isinstance(store, zarr.Group):
        store, path = store.store, f"{store.path}/{path}"
    if isinstance(store, os.PathLike):
        store = os.fspath(store)
    if chunks is None:
        chunks = _default_chunks(array, options)
    elif chunks != "auto":
        chunks = as_tiles(chunks, array.shape, array.itemsize)
    options = {**options, "chunks": chunks}
    return write_new(array, store, as_node_path(path), options, overwrite=overwrite, shown=progress)


def _default_chunks(array: StoredArray, options: dict[str, Any]) -> Any:
    """Take the tiles, or what suits what is stored; shards are made of what zarr chooses."""
    if isinstance(array, TiledArray):
        return array.tiles
    if not array.nbytes or options.get("shards") is not None:
        return "auto"
    return choose_chunks(array, _CHUNK)
