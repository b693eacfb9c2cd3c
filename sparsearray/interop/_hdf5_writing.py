"""Arrays written as HDF5 datasets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from sparsearray._optional import needed
from sparsearray._progress import progress_bar
from sparsearray._tiling import as_tiles
from sparsearray._zero import is_zero_bytes
from sparsearray.array import SparseArray
from sparsearray.stored import StoredArray

from ._cells import boxes_of_cells, touched_cells
from ._default_chunks import choose_chunks
from ._hdf5_places import put
from ._hdf5_source import is_as_in_memory

__all__ = ["write"]

_CHUNK = 256 << 10  # bytes of a chunk, about, where much is stored


def write(
    array: StoredArray,
    group: Any,
    name: str,
    chunks: Any,
    options: dict[str, Any],
    handle_signals: Callable[[], None],
    *,
    shown: bool,
) -> None:
    """Write a dataset, or nothing: see `sparsearray.interop.hdf5.to_hdf5`."""
    h5py = needed("h5py", "to_hdf5", "hdf5")
    dtype = h5py.opaque_dtype(array.dtype) if array.dtype.kind in "mM" else array.dtype
    sides = None
    if chunks is not None and chunks is not True:
        sides = as_tiles(chunks, array.shape, array.itemsize)
        if array.nbytes and not options.get("maxshape"):  # HDF5 has no larger ones
            sides = tuple(map(min, sides, array.shape))
    if not array.shape or not (array.nbytes or options.get("maxshape")):
        sides = None  # as there is nothing to put into one
    elif sides is None and array.nbytes:
        sides = choose_chunks(array, _CHUNK)
    with _undone(group, name):
        try:
            dataset = group.create_dataset(name, array.shape, dtype, chunks=sides, **options)
        except TypeError as error:
            msg = f"to_hdf5: an array of {array.dtype} in shape {array.shape}: {error}"
            raise TypeError(msg) from error
        if not array.shape:
            dataset[...] = np.asarray(array[()], array.dtype).view(dtype)
        elif array.nbytes:
            del dataset  # which is opened anew only when nobody has it open
            _write_chunks(_open_uncached(group, name), array, dtype, handle_signals, shown=shown)
        group.file.flush()


@contextmanager
def _undone(group: Any, name: str) -> Iterator[None]:
    """Delete a dataset that was not written whole, and the groups that were made for it."""
    first = _find_first_missing(group, name)
    try:
        yield
    except BaseException:
        with suppress(KeyError, OSError, RuntimeError):  # the error that comes first is told
            if first is not None:
                del group[first]
        raise


def _find_first_missing(group: Any, name: str) -> str | None:
    """Find the first part of a path that is not there; None where all of it is."""
    parts = [part for part in name.split("/") if part]
    root = "/" if name.startswith("/") else ""
    for k in range(len(parts)):
        path = root + "/".join(parts[: k + 1])
        if group.get(path, getlink=True) is None:
            return path
    return None


def _open_uncached(group: Any, name: str) -> Any:
    """
    Open a dataset without a cache of chunks.

    What HDF5 cannot write of a cache, as the disk is full, it keeps, and writes once more when it
    is gone: the process crashes.
    """
    h5py = needed("h5py", "to_hdf5", "hdf5")
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    access.set_chunk_cache(0, 0, 1.0)
    return h5py.Dataset(h5py.h5d.open(group.id, name.encode(), access))


def _write_chunks(
    dataset: Any,
    array: StoredArray,
    dtype: np.dtype,
    handle_signals: Callable[[], None],
    *,
    shown: bool,
) -> None:
    """Write the chunks that hold something."""
    shape, sides = array.shape, dataset.chunks
    numbers = touched_cells(array._stored_boxes(), shape, sides)
    read = array._box_reader()
    filters = dataset.id.get_create_plist().get_nfilters()
    is_direct = not filters and dataset.dtype == array.dtype and is_as_in_memory(dataset)
    tile = np.zeros(sides, array.dtype)
    with progress_bar("to_hdf5", len(numbers) * tile.nbytes, shown=shown) as done:
        for box in boxes_of_cells(numbers, shape, sides):
            # Not in between: Python code that HDF5 calls through h5py may swallow a Ctrl-C.
            handle_signals()
            block = read(box)
            if not is_zero_bytes(block):
                if is_direct:
                    if block.shape != sides or not block.flags.c_contiguous:
                        block = put(tile, block)
                    start = [side.start for side in box]
                    dataset.id.write_direct_chunk(start, block.reshape(-1).view("u1"))
                else:
                    dataset[box] = block.view(dtype)
            done(tile.nbytes)
    if isinstance(array, SparseArray):
        array._tell_loss()
