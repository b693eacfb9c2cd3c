"""What the metadata of a zarr array say of its chunks: names, bytes, and what is missing."""

from __future__ import annotations

import errno
import os
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparsearray._chunk_files import ChunkKeys
from sparsearray._optional import needed
from sparsearray._text import count as counted

from ._cells import grid_of
from ._coordinates import is_zero

__all__ = [
    "Format",
    "as_node_path",
    "describe_missing",
    "find_format",
    "find_stored",
    "library",
    "open_array",
]


def library(what: str) -> Any:
    """Import zarr; ImportError, which names what needs it, where it is not installed."""
    return needed("zarr", what, "zarr")


def as_node_path(path: str) -> str:
    """
    Write the path of an array in a store as zarr does.

    Raises
    ------
    ValueError
        It would lead out of the store.

    Examples
    --------
    >>> as_node_path("/a//b/")
    'a/b'
    """
    parts = [part for part in path.replace("\\", "/").split("/") if part]
    if {".", ".."}.intersection(parts):
        msg = f"path={path!r}: no part of it may be '.' or '..'"
        raise ValueError(msg)
    return "/".join(parts)


class Format(NamedTuple):
    """How a zarr array lies in its store."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    """What is compressed at a time."""
    stored: tuple[int, ...]
    """What is stored under one key: chunks, or shards of them."""
    dtype: np.dtype
    """In the byte order that it is stored in."""
    fill: NDArray[Any]
    """What a chunk that is missing holds, of shape ()."""
    keys: ChunkKeys | None
    """None for an encoding of keys that is not known here."""
    root: str | None
    """The folder of the array, as an absolute path; None in other stores."""
    reason: str | None
    """Why the bytes of chunks are not those of items in C order; None where they are."""

    @property
    def grid(self) -> tuple[int, ...]:
        """How many are stored along each axis, if none is missing."""
        return grid_of(self.shape, self.stored)

    @property
    def chunk_nbytes(self) -> int:
        """Bytes of a chunk."""
        return prod(self.chunks) * self.dtype.itemsize

    @property
    def has_zero_fill(self) -> bool:
        """Whether all bytes of what is missing are zero."""
        return is_zero(self.fill)


def open_array(store: Any, path: str, mode: str, what: str) -> Any:
    """
    Open an array of a store, unless it is one already.

    Raises
    ------
    TypeError
        It is a group: says which arrays are in it.
    FileNotFoundError, NotADirectoryError
        A path leads to nothing, or to a file.
    """
    zarr = library(what)
    if isinstance(store, zarr.Array):
        if path:
            msg = f"path={path!r}: {store!r} is an array, in which there is no other"
            raise ValueError(msg)
        return store
    if isinstance(store, zarr.Group):
        found: Any = store[path] if path else store
    else:
        if isinstance(store, os.PathLike):
            store = os.fspath(store)
        _check_folder(store, what)
        found = zarr.open(store, path=path, mode=mode)
    if isinstance(found, zarr.Group):
        names = ", ".join(map(repr, sorted(found.array_keys()))) or "none"
        msg = f"{found.store_path}: a group, not an array; arrays in it: {names}"
        raise TypeError(msg)
    return found


def _check_folder(store: Any, what: str) -> None:
    """Say what is there, where a path leads to no folder; zarr has groups that are not found."""
    if not isinstance(store, str) or "://" in store or Path(store).is_dir():
        return
    if not os.path.lexists(store):
        raise FileNotFoundError(errno.ENOENT, f"{what}: nothing is there", store)
    is_zip = False
    if Path(store).is_file():  # a FIFO would keep one waiting
        with Path(store).open("rb") as file:
            is_zip = file.read(4) == b"PK\x03\x04"
    how = ", but a zip file: zarr.storage.ZipStore opens it" if is_zip else ""
    raise NotADirectoryError(errno.ENOTDIR, f"{what}: no folder of a zarr array{how}", store)


def find_format(array: Any) -> Format:
    """
    Look at the metadata of an array.

    Raises
    ------
    TypeError
        Its items are Python objects, or of no fixed length.
    """
    dtype = np.dtype(array.dtype)
    if dtype.hasobject or not dtype.itemsize or dtype.kind == "T":
        msg = f"{array.store_path}: items of {dtype} have no fixed number of bytes"
        raise TypeError(msg)
    dtype = _stored_dtype(array)
    chunks = tuple(array.chunks)
    stored = tuple(array.shards or chunks)
    shape = tuple(array.shape)
    return Format(
        shape,
        chunks,
        stored,
        dtype,
        _find_fill(array, dtype),
        _find_keys(array, grid_of(shape, stored)),
        _find_root(array),
        _find_reason(array),
    )


def _is_old(array: Any) -> bool:
    return bool(array.metadata.zarr_format == 2)


def _codecs(array: Any) -> tuple[Any, ...]:
    return () if _is_old(array) else tuple(array.metadata.codecs)


def _stored_dtype(array: Any) -> np.dtype:
    """Find the dtype of the bytes: version 3 has their order in a codec, and not in the dtype."""
    dtype: np.dtype = np.dtype(array.dtype)
    if _is_old(array) or dtype.names is not None:
        return dtype
    for codec in _codecs(array):
        endian = getattr(codec, "endian", None)
        endian = getattr(endian, "value", endian)  # in zarr 3.1 an enumeration
        if type(codec).__name__ == "BytesCodec" and endian is not None:
            return np.dtype(dtype.newbyteorder("<" if endian == "little" else ">"))
    return np.dtype(dtype.newbyteorder("="))


def _find_fill(array: Any, dtype: np.dtype) -> NDArray[Any]:
    """Find what zarr reads where a chunk is missing."""
    value = array.metadata.fill_value
    if value is None:  # version 2 allows it; zarr then takes the default of the dtype
        value = np.array("NaT", dtype) if dtype.kind in "mM" else np.zeros((), dtype)
    found = np.zeros((), dtype)
    found[...] = value
    return found


def _find_keys(array: Any, grid: tuple[int, ...]) -> ChunkKeys | None:
    metadata: Any = array.metadata
    if _is_old(array):
        return ChunkKeys("", metadata.dimension_separator, grid)
    encoding = metadata.chunk_key_encoding
    prefix = {"default": "c", "v2": ""}.get(encoding.name)
    return None if prefix is None else ChunkKeys(prefix, encoding.separator, grid)


def _find_root(array: Any) -> str | None:
    from zarr.storage import LocalStore

    # Exactly: what is made of it may keep chunks elsewhere.
    if type(array.store) is not LocalStore:
        return None
    root: str = os.path.abspath(Path(array.store.root) / array.path)
    return root


def _find_reason(array: Any) -> str | None:
    metadata: Any = array.metadata
    if not _is_old(array):
        names = [type(codec).__name__ for codec in _codecs(array)]
        return None if names == ["BytesCodec"] else f"its codecs are {', '.join(names)}"
    if metadata.compressor is not None:
        return f"it is compressed: {metadata.compressor}"
    if metadata.filters:
        return f"it has filters: {metadata.filters}"
    return None if metadata.order == "C" else "its chunks are in Fortran order"


def find_stored(array: Any, form: Format) -> dict[int, str] | None:
    """
    List what is stored, chunks or shards, without asking for each.

    Returns
    -------
    dict or None
        Paths, or keys, by number, sorted. None where the store cannot be listed.
    """
    if form.keys is None:
        return None
    if form.root is not None:
        return form.keys.find(form.root)
    if not array.store.supports_listing:
        return None
    prefix = f"{array.path}/" if array.path else ""
    found = {}
    for name in _list(array.store, prefix):
        number = form.keys.number(name.removeprefix(prefix))
        if number is not None:
            found[number] = name
    return dict(sorted(found.items()))


def _list(store: Any, prefix: str) -> list[str]:
    from zarr.core.sync import sync

    async def names() -> list[str]:
        return [name async for name in store.list_prefix(prefix)]

    return sync(names())


def describe_missing(form: Format, missing: int) -> str:
    """Say how many chunks are missing, and what they hold."""
    return f"{counted(missing, 'chunk')} of {prod(form.grid)} missing, and hold {form.fill[()]!r}"
