"""Populated chunks of an array written to a zarr array, new or there already."""

from __future__ import annotations

import errno
import os
import secrets
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsearray._chunk_files import ChunkKeys
from sparsearray._progress import progress_bar
from sparsearray._signals import held_off
from sparsearray._zero import is_zero_bytes
from sparsearray.array import SparseArray
from sparsearray.stored import StoredArray

from ._cells import boxes_of_cells, touched_cells
from ._threads import by_threads
from ._zarr_folder import replaced_folder
from ._zarr_format import Format, describe_missing, find_format, find_stored, library

__all__ = ["write_existing", "write_new"]

_AHEAD = 256  # chunks that threads write before their turn
_OURS = frozenset({"shape", "dtype", "data", "fill_value", "config", "write_data", "name", "store"})

Index = tuple[slice, ...]


def write_new(
    array: StoredArray,
    store: Any,
    path: str,
    options: dict[str, Any],
    *,
    overwrite: bool,
    shown: bool,
) -> Any:
    """Write a new array: see `sparsearray.interop.zarr.to_zarr`."""
    _check_options(options)
    target = _find_target(store, path)
    if target is not None:
        _check_target(array, target, overwrite=overwrite)
        if isinstance(store, str):
            store = os.path.abspath(store)  # the working folder may be what is replaced
    options = _with_byte_order(array.dtype, _with_version(store, path, options))
    _check_carried(array, options)
    zarr = library("to_zarr")
    with held_off() as handle_signals:
        if target is None:
            options = {**options, "overwrite": overwrite}
            return _write_elsewhere(array, store, path, options, handle_signals, shown=shown)
        with replaced_folder(target, overwrite=overwrite) as beside:
            _fill_new(array, _create(array, str(beside), "", options), handle_signals, shown=shown)
            # The groups that it is in come last: before, nothing of it is there.
            for parent in _parents(path):
                zarr.open_group(store, path=parent, mode="a", zarr_format=_version(options))
    return zarr.open_array(store, path=path, mode="r+")


def _check_options(options: dict[str, Any]) -> None:
    if _version(options) not in (2, 3):
        msg = f"to_zarr: zarr_format must be 2 or 3, not {options['zarr_format']!r}"
        raise ValueError(msg)
    given = sorted(_OURS.intersection(options))
    if given:
        msg = f"to_zarr: {', '.join(given)} come from the array"
        raise TypeError(msg)


def _with_version(store: Any, path: str, options: dict[str, Any]) -> dict[str, Any]:
    """Have an array of the format that the group has which it is put into: others are hidden."""
    zarr = library("to_zarr")
    for parent in reversed(_parents(path)):
        try:
            group = zarr.open_group(
                store, path=parent, mode="r" if isinstance(store, str) else "r+"
            )
        except FileNotFoundError:
            continue
        version = group.metadata.zarr_format
        if options.get("zarr_format") not in (None, version):
            msg = (
                f"to_zarr: {group.store_path} is a group of version {version}, in which nobody "
                f"would find an array of zarr_format={options['zarr_format']}"
            )
            raise ValueError(msg)
        return {**options, "zarr_format": version}
    return options


def _parents(path: str) -> list[str]:
    """List the groups that an array is in, from the outermost on."""
    parts = path.split("/") if path else []
    return ["/".join(parts[:k]) for k in range(len(parts))]


# Where it goes


def _find_target(store: Any, path: str) -> Path | None:
    """Find the folder of an array; None where it is in no local store."""
    from zarr.storage import LocalStore

    if type(store) is LocalStore:
        root = store.root
    elif isinstance(store, str) and "://" not in store:
        root = Path(store)
    else:
        return None
    return Path(os.path.realpath(root / path))


def _check_target(array: StoredArray, target: Path, *, overwrite: bool) -> None:
    """Raise an error for what cannot be replaced, or must not be."""
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "to_zarr: no folder", str(target))
    if not any(target.iterdir()):
        return
    if not overwrite:
        message = "to_zarr: there is something already, which overwrite=True would replace"
        raise FileExistsError(errno.EEXIST, message, str(target))
    if not any((target / name).exists() for name in ("zarr.json", ".zarray", ".zgroup")):
        message = "to_zarr: no zarr array or group, which alone overwrite=True replaces"
        raise FileExistsError(errno.EEXIST, message, str(target))
    _check_own(array, target)


def _check_own(array: StoredArray, target: Path) -> None:
    """Raise ValueError where the array writes into the folder that would be written."""
    storage = array._store._storage
    if storage.path is None or storage.mode not in ("r+", "w+"):
        return
    if storage.is_at(str(target)) or target in Path(storage.path).resolve().parents:
        msg = (
            f"to_zarr: {str(target)!r} is the array's own, or holds it, and the array is opened "
            f"with mode {storage.mode!r}"
        )
        raise ValueError(msg)


def _write_elsewhere(
    array: StoredArray,
    store: Any,
    path: str,
    options: dict[str, Any],
    handle_signals: Callable[[], None],
    *,
    shown: bool,
) -> Any:
    """Write to a store that is no folder; what was written is removed on an error."""
    from zarr.core.sync import sync

    made = _create(array, store, path, options)
    try:
        _fill_new(array, made, handle_signals, shown=shown)
    except BaseException:
        # That error is the one to tell, and some stores cannot take back what they have.
        with suppress(Exception):
            sync(made.store.delete_dir(made.path))
        raise
    return made


# What is made there


def _create(array: StoredArray, store: Any, path: str, options: dict[str, Any]) -> Any:
    return library("to_zarr").create_array(
        store,
        name=path or None,
        shape=array.shape,
        dtype=array.dtype,
        fill_value=np.zeros((), array.dtype)[()],
        **options,
    )


def _version(options: dict[str, Any]) -> int:
    found: int = options.get("zarr_format") or 3
    return found


def _is_big_endian(dtype: np.dtype) -> bool:
    return dtype.names is None and dtype.newbyteorder("=") != dtype


def _with_byte_order(dtype: np.dtype, options: dict[str, Any]) -> dict[str, Any]:
    """Add the codec that keeps the byte order in version 3."""
    if _version(options) == 3 and _is_big_endian(dtype) and "serializer" not in options:
        zarr = library("to_zarr")
        return {**options, "serializer": zarr.codecs.BytesCodec(endian="big")}
    return options


def _check_carried(array: StoredArray, options: dict[str, Any]) -> None:
    """
    Raise TypeError where zarr reads another dtype than it was given, or another zero.

    It is tried in memory: not all stores can take back what they have.
    """
    zarr, dtype = library("to_zarr"), array.dtype
    store = zarr.storage.MemoryStore()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is made in earnest warns again
        try:
            _create(array, zarr.storage.MemoryStore(), "", {"zarr_format": _version(options)})
        except (TypeError, ValueError) as error:
            msg = f"dtype {dtype} does not come back from zarr, which refuses it: {error}"
            raise TypeError(msg) from error
        _create(array, store, "", options)
    try:
        found = find_format(zarr.open_array(store, mode="r"))
    except (TypeError, ValueError) as error:
        msg = f"zarr cannot read back dtype {dtype}: {error}"
        raise TypeError(msg) from error
    if found.dtype != dtype or not found.has_zero_fill:
        msg = f"dtype {dtype} does not come back from zarr: {found.dtype} does"
        raise TypeError(msg)


def write_existing(array: StoredArray, target: Any, *, shown: bool) -> Any:
    """Write into an array that is there: chunks that are holes are removed from it."""
    form = find_format(target)
    if form.shape != array.shape:
        msg = f"to_zarr: shape {array.shape} does not fit {target.store_path} of {form.shape}"
        raise ValueError(msg)
    if form.dtype.newbyteorder("=") != array.dtype.newbyteorder("="):
        msg = f"to_zarr: dtype {array.dtype} is not that of {target.store_path}, {form.dtype}"
        raise ValueError(msg)
    if form.root is not None:
        _check_own(array, Path(form.root).resolve())
    numbers = _touched(array, form)
    holes = prod(form.grid) - len(numbers)
    if holes and not form.has_zero_fill:
        msg = (
            f"to_zarr: {target.store_path}: {describe_missing(form, holes)}: not the array's zeros"
        )
        raise ValueError(msg)
    if target.read_only:
        msg = f"to_zarr: {target.store_path} is read-only"
        raise ValueError(msg)
    with held_off() as handle_signals:
        written = _fill(array, target, form, numbers, handle_signals, shown=shown)
        _remove(target, form, written)
    return target


def _remove(target: Any, form: Format, written: set[int]) -> None:
    """Remove all chunks but those that were written."""
    from zarr.core.sync import sync

    found = find_stored(target, form)
    if found is None or not target.store.supports_deletes:
        others = range(prod(form.grid)) if found is None else found
        _clear(target, form, (number for number in others if number not in written))
        return
    for number in found.keys() - written:
        if form.root is not None:
            Path(found[number]).unlink(missing_ok=True)
        else:
            sync(target.store.delete(found[number]))


def _clear(target: Any, form: Format, numbers: Iterator[int]) -> None:
    """Set chunks to zero, which cannot be removed, or nobody knows of."""
    if not target.store.supports_deletes:
        target = target.with_config({"write_empty_chunks": True})
    while some := list(islice(numbers, _AHEAD)):
        for box in boxes_of_cells(np.array(some, np.int64), form.shape, form.stored):
            target[box] = np.zeros((), form.dtype)[()]


# Chunks


def _touched(array: StoredArray, form: Format) -> NDArray[np.int64]:
    """Find the numbers of the chunks, or shards, in which something is stored."""
    return touched_cells(array._stored_boxes(), form.shape, form.stored)


def _fill_new(
    array: StoredArray, target: Any, handle_signals: Callable[[], None], *, shown: bool
) -> None:
    form = find_format(target)
    _fill(array, target, form, _touched(array, form), handle_signals, shown=shown)


def _fill(
    array: StoredArray,
    target: Any,
    form: Format,
    numbers: NDArray[np.int64],
    handle_signals: Callable[[], None],
    *,
    shown: bool,
) -> set[int]:
    """Write those chunks, or shards, that do not hold zeros only. Returns their numbers."""
    nbytes = prod(form.stored) * form.dtype.itemsize
    writer: _PlainWriter | _CodecWriter = _CodecWriter(array, form, target)
    if form.root is not None and form.keys is not None and form.reason is None:
        writer = _PlainWriter(array, form, form.root, form.keys)
    written: set[int] = set()
    work = zip(numbers.tolist(), boxes_of_cells(numbers, form.shape, form.stored), strict=True)
    with progress_bar("to_zarr", len(numbers) * nbytes, shown=shown) as done:
        for (number, _), is_written in by_threads(writer, work, _AHEAD):
            handle_signals()
            if is_written:
                written.add(number)
            done(nbytes)
    if isinstance(array, SparseArray):
        array._tell_loss()
    return written


class _CodecWriter:
    """Writes chunks through zarr's codecs."""

    def __init__(self, array: StoredArray, form: Format, target: Any) -> None:
        self._read = array._box_reader()
        self._has_zero_fill = form.has_zero_fill
        # zarr takes some zeros for the fill value that are not, as -0.0 in complex numbers.
        self._target = target.with_config({"write_empty_chunks": True})
        self._lean = target.with_config({"write_empty_chunks": False})
        self._has_parts = target.shards is not None

    def __call__(self, work: tuple[int, Index]) -> bool:
        """Write a chunk, or shard; False for one of zeros, which is left out."""
        _, box = work
        block = self._read(box)
        if self._has_zero_fill and is_zero_bytes(block):
            return False
        target = self._target
        if self._has_parts and self._has_zero_fill and not _has_other_zeros(block):
            target = self._lean  # chunks of zeros take no room in a shard
        target[box] = block
        return True


def _has_other_zeros(block: NDArray[Any]) -> bool:
    """Tell whether some items are equal to zero, and not zero byte by byte."""
    if block.dtype.kind in "biumMSU":
        return False
    if block.dtype.kind not in "fc":
        return True
    plain = np.ascontiguousarray(block)
    parts = plain.view(f"f{plain.itemsize // 2}") if plain.dtype.kind == "c" else plain
    return bool(((parts == 0) & np.signbit(parts)).any())


class _PlainWriter:
    """Writes chunks whose bytes are those of their items as files."""

    def __init__(self, array: StoredArray, form: Format, root: str, keys: ChunkKeys) -> None:
        self._read = array._box_reader()
        self._form = form
        self._root = root
        self._keys = keys

    def __call__(self, work: tuple[int, Index]) -> bool:
        """Write a chunk; False for one of zeros, which is left out."""
        number, box = work
        form = self._form
        block = self._read(box)
        if form.has_zero_fill and is_zero_bytes(block):
            return False
        if block.shape != form.chunks or block.dtype != form.dtype:
            whole = np.zeros(form.chunks, form.dtype)
            whole[tuple(slice(0, n) for n in block.shape)] = block
            block = whole
        _write_file(f"{self._root}/{self._keys.name(number)}", np.ascontiguousarray(block))
        return True


def _write_file(path: str, items: NDArray[Any]) -> None:
    """Write a file: whole, or not at all."""
    target = Path(path)
    beside = target.with_name(f".{secrets.token_hex(6)}.tmp")
    raw = items.reshape(-1).view("u1")
    try:
        try:
            beside.write_bytes(raw.data)
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(raw.data)
        beside.replace(target)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise
