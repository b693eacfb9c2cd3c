"""From and to HDF5 files, through h5py: chunks that nobody wrote are holes, and stay holes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sparsearray._binding import describe
from sparsearray._boxes import Index
from sparsearray._descriptor import Descriptor
from sparsearray._layout import allocate, reserve
from sparsearray._new_file import replacing
from sparsearray._npy_file import place_of
from sparsearray._optional import needed
from sparsearray._progress import progress_bar
from sparsearray._records import Records
from sparsearray._signals import held_off
from sparsearray._storage import Storage
from sparsearray._tiling import LARGEST_TILE, Tiling
from sparsearray._zero import is_zero_bytes
from sparsearray.array import SparseArray
from sparsearray.blocks import boxes, items_in
from sparsearray.npy import Header, data_pages
from sparsearray.stored import StoredArray
from sparsearray.tiled import TiledArray

from ._cells import boxes_of_cells
from ._coordinates import is_zero
from ._hdf5_places import Plan, put, read_chunk
from ._hdf5_source import Chunks, Source
from ._hdf5_writing import write
from ._room import Room

__all__ = ["from_hdf5", "to_hdf5"]

_READ = 4 << 20  # bytes read through h5py at a time, where there are no chunks


def from_hdf5(
    dataset: Any,
    name: str | None = None,
    *,
    mode: Literal["r", "c"] = "r",
    fill_missing: bool = False,
    progress: bool = False,
) -> SparseArray | TiledArray:
    """
    Open an HDF5 dataset as an array; what was never written is a hole.

    Parameters
    ----------
    dataset : h5py.Dataset, h5py.Group or path
        Which; the file may be closed afterwards. One that is open for writing is flushed.
    name : str, optional
        Of the dataset, in a group or a file.
    mode : {'r', 'c'}
        What is mapped from the file is read only, or copied on write: as of `open`.
    fill_missing : bool
        Store the dataset's fill value where it is not zero, and was never written.
    progress : bool
        Show a progress bar for what has to be read (needs tqdm).

    Returns
    -------
    SparseArray
        Or `TiledArray`, whose tiles are the chunks, of a dataset in chunks. Its `path` is the file,
        where that is mapped, and None where all was read into memory, to be written to as any.

    Raises
    ------
    TypeError
        Items are strings or sequences of any length, references or other objects; or it is no
        dataset.
    ValueError
        Items that were never written are not zero, and `fill_missing` is not set; or it has no
        dataspace.
    KeyError
        The file has no such dataset.
    OSError
        The file cannot be opened or read.
    MemoryError
        What has to be read does not fit.

    Notes
    -----
    Without a copy there is a dataset that is contiguous; and one in chunks, as far as these are
    not compressed and begin at the same byte of a page, if that is half of them: as `to_hdf5`
    writes them. All others are read, those that hold something.

    While it is mapped, what others write to the file may be seen, or not, until it is opened anew.

    References
    ----------
    H5Dget_offset, H5Dchunk_iter

    Examples
    --------
    >>> import tempfile
    >>> import h5py
    >>> path = tempfile.mkdtemp() + "/a.h5"
    >>> with h5py.File(path, "w") as file:
    ...     a = file.create_dataset("a", (1 << 20, 1 << 17), "f8", chunks=(128, 256))
    ...     a[1000, 2000] = 1
    >>> b = from_hdf5(path, "a")
    >>> b.shape, b.tiles, b.sum(), b.nbytes_stored <= 2 * 128 * 256 * 8
    ((1048576, 131072), (128, 256), np.float64(1.0), True)
    """
    h5py = needed("h5py", "from_hdf5", "hdf5")
    if mode not in ("r", "c"):
        msg = f"mode must be 'r' or 'c', not {mode!r}"
        raise ValueError(msg)
    if isinstance(dataset, str | bytes | os.PathLike):
        with h5py.File(dataset, "r") as file:
            return from_hdf5(file, name, mode=mode, fill_missing=fill_missing, progress=progress)
    if isinstance(dataset, h5py.Group):
        if name is None:
            msg = f"{dataset!r}: which dataset? from_hdf5 needs its name"
            raise TypeError(msg)
        dataset = dataset[name]
    elif name is not None and isinstance(dataset, h5py.Dataset):
        msg = f"{dataset!r} is a dataset already: name={name!r} is for files and groups"
        raise TypeError(msg)
    if not isinstance(dataset, h5py.Dataset):
        msg = f"from_hdf5 takes a dataset of h5py, not {type(dataset).__name__}"
        raise TypeError(msg)
    source = Source(dataset)
    if dataset.file.mode != "r":
        dataset.file.flush()
    with source.file() as found:
        return _Opening(source, found, mode, fill_missing=fill_missing, progress=progress).make()


class _Opening:
    """One call of `from_hdf5`: which way is taken."""

    def __init__(
        self,
        source: Source,
        file: Descriptor | None,
        mode: Literal["r", "c"],
        *,
        fill_missing: bool,
        progress: bool,
    ) -> None:
        self.source = source
        self.file = file
        self.mode = mode
        self.fill_missing = fill_missing
        self.progress = progress
        self._room = Room(source.name, "h5py")

    def make(self) -> SparseArray | TiledArray:
        source, shape, dtype = self.source, self.source.shape, self.source.dtype
        chunk = prod(source.chunks or ()) * dtype.itemsize
        if source.kind == "chunked" and source.chunks is not None and 0 < chunk <= LARGEST_TILE:
            if not prod(shape):
                return TiledArray._zeros(shape, dtype, source.chunks)
            return self._open_chunks(
                source.list_chunks(are_placed=self.file is not None), source.chunks
            )
        if not source.nbytes:
            return SparseArray._zeros(shape, dtype)
        if source.kind == "contiguous":
            if not source.is_stored and not self.fill_missing:
                source.check_fill(prod(shape))
                return SparseArray._zeros(shape, dtype)
            if source.is_stored and source.is_plain and self.file is not None:
                start = source.dataset.id.get_offset()
                return _map(self.file, self._storage(start), source, start)
        return self._read_all()

    def _storage(self, start: int) -> _Hdf5File:
        assert self.file is not None  # noqa: S101 - where this is called
        return _Hdf5File(self.file.fd, self.source, self.mode, start)

    # Through h5py

    def _read_all(self) -> SparseArray:
        """Read it in pieces, of which pages of zeros are left out."""
        source = self.source
        if source.kind == "contiguous" and not source.is_stored and not is_zero(source.fill()):
            self._room.check(source.nbytes)  # all of it is stored, and nothing like zero
        made = SparseArray._zeros(source.shape, source.dtype)
        whole = np.array([[0, prod(source.shape)]])
        found = boxes(source.shape, whole, items_in(_READ, source.dtype.itemsize))
        with progress_bar("from_hdf5", source.nbytes, shown=self.progress) as done:
            for box in found:
                done(self._store(made, box, source.read(box)))
        return made

    def _store(self, made: SparseArray | TiledArray, box: Index, block: NDArray[Any]) -> int:
        if not is_zero_bytes(block):
            self._room.take(block.nbytes)
            made._write_filled(box, block)
        return block.nbytes

    # Chunk by chunk

    def _open_chunks(self, chunks: Chunks, sides: tuple[int, ...]) -> TiledArray:
        source = self.source
        tiling = Tiling(source.shape, sides, source.dtype)
        missing = prod(tiling.grid) - len(chunks.numbers)
        if not self.fill_missing:
            source.check_fill(missing)
        fills = missing > 0 and not is_zero(source.fill())
        if self.file is not None and not fills:
            plan = Plan(tiling, chunks)
            if plan.is_worth_it:
                return self._map_chunks(plan)
        return self._read_chunks(chunks, tiling, fills=fills)

    def _read_chunks(self, chunks: Chunks, tiling: Tiling, *, fills: bool) -> TiledArray:
        """Read the chunks that there are, and store the fill value where there are none."""
        source = self.source
        made = TiledArray._zeros(source.shape, source.dtype, tiling.tiles)
        nbytes = prod(tiling.tiles) * source.dtype.itemsize
        with progress_bar("from_hdf5", len(chunks.numbers) * nbytes, shown=self.progress) as done:
            for box, block in self._blocks(chunks, tiling):
                done(self._store(made, box, block))
        if fills:
            missing = prod(tiling.grid) - len(chunks.numbers)
            self._room.check(missing * nbytes)
            absent = np.setdiff1d(np.arange(prod(tiling.grid)), chunks.numbers, assume_unique=True)
            for box in boxes_of_cells(absent, source.shape, tiling.tiles):
                shape = [side.stop - side.start for side in box]
                self._store(made, box, np.broadcast_to(source.fill(), shape))
        return made

    def _blocks(self, chunks: Chunks, tiling: Tiling) -> Iterator[tuple[Index, NDArray[Any]]]:
        """Go through chunks, as far as they lie in the array."""
        source, file = self.source, self.file
        places = zip(chunks.offsets.tolist(), chunks.is_plain.tolist(), strict=True)
        found = boxes_of_cells(chunks.numbers, source.shape, tiling.tiles)
        for box, (offset, is_plain) in zip(found, places, strict=True):
            if file is None or not is_plain:
                yield box, source.read(box)
                continue
            block = read_chunk(file.fd, offset, tiling, source.name)
            yield box, block[tuple(slice(0, side.stop - side.start) for side in box)]

    def _map_chunks(self, plan: Plan) -> TiledArray:
        source, tiling, file = self.source, plan.tiling, self.file
        assert file is not None  # noqa: S101 - where this is called
        buffer = reserve(plan.nbytes, Path(source.dataset.file.filename).name)
        try:
            if self.mode == "r":
                buffer.map_zero(0, buffer.nbytes)
            else:
                allocate(buffer, 0, buffer.nbytes)
            for start, nbytes, place in plan.windows:
                buffer.map_file(
                    start, nbytes, file, place, copy_on_write=self.mode == "c", skip_holes=False
                )
            self._copy_chunks(plan, buffer)
        except BaseException:
            buffer.close()
            raise
        records = Records._of(
            buffer,
            tiling.grid,
            tiling.record(),
            offset=plan.shift,
            maxshape=tiling.grid,
            storage=self._storage(0),
        )
        return TiledArray._of(records, source.shape)

    def _copy_chunks(self, plan: Plan, buffer: Any) -> None:
        """Put those in memory that cannot be mapped, or not with the others."""
        tiling, chunks = plan.tiling, plan.copied
        step = tiling.tile_nbytes
        nbytes = prod(tiling.tiles) * tiling.dtype.itemsize
        tile = np.zeros(tiling.tiles, tiling.dtype)
        with progress_bar("from_hdf5", len(chunks.numbers) * nbytes, shown=self.progress) as done:
            found = zip(chunks.numbers.tolist(), self._blocks(chunks, tiling), strict=True)
            for number, (_, block) in found:
                if not is_zero_bytes(block):
                    self._room.take(step)
                    put(tile, block)
                    start = number * step
                    if self.mode == "r":
                        buffer.alloc(start, step)
                    buffer.write_at(start + plan.shift, tile)
                    if self.mode == "r":
                        buffer.set_writable(start, step, writable=False)
                done(nbytes)


def _map(file: Descriptor, storage: _Hdf5File, source: Source, start: int) -> SparseArray:
    """Map a contiguous dataset."""
    header = Header(source.shape, "C", source.dtype, start)
    if header.stop > os.fstat(file.fd).st_size:
        msg = f"{source.name} is cut short: it ends at byte {describe(header.stop)}"
        raise ValueError(msg)
    base, mapped = data_pages(header)
    place = place_of(header)
    buffer = reserve(place + mapped, Path(source.dataset.file.filename).name)
    try:
        buffer.map_file(
            place, mapped, file, base, copy_on_write=storage.mode == "c", skip_holes=True
        )
    except BaseException:
        buffer.close()
        raise
    return SparseArray._of(
        buffer,
        source.shape,
        source.dtype,
        offset=place + start - base,
        maxshape=source.shape,
        storage=storage,
    )


class _Hdf5File(Storage):
    """The file that a dataset is mapped from."""

    what = "an HDF5 file"

    def __init__(self, fd: int, source: Source, mode: Literal["r", "c"], start: int) -> None:
        self.path: str = os.path.abspath(os.fsdecode(source.dataset.file.filename))
        self.mode: Literal["r", "c"] = mode
        self.start = start
        facts = os.fstat(fd)
        self.identity = (facts.st_dev, facts.st_ino)
        self._name = source.dataset.name

    def is_at(self, name: str) -> bool:
        """Tell whether a path leads to the file."""
        with suppress(OSError):
            facts = Path(name).stat()
            return (facts.st_dev, facts.st_ino) == self.identity
        return False

    def places(self, array: SparseArray) -> list[tuple[str, int, int]] | None:
        """Tell of the bytes of a contiguous dataset."""
        if isinstance(array, Records) or self.mode == "c" or not self.is_at(self.path):
            return None
        return [(self.path, self.start, array.nbytes)]

    def reference(self, array: StoredArray) -> tuple[Any, ...] | None:
        """Send the path, and the name of the dataset."""
        if self._name is None:  # of a dataset without a name
            return None
        if not self.is_at(self.path):
            msg = f"{self.path!r} is gone, or another file by now: the array cannot travel by it"
            raise FileNotFoundError(errno.ENOENT, msg, self.path)
        if array.buffer.damage:
            array.buffer.flush()  # AccessError: what is lost is not in the file
        return _open_again, (self.path, self._name, self.mode, array.shape, array.dtype)


def _open_again(
    path: str, name: str, mode: Literal["r", "c"], shape: tuple[int, ...], dtype: np.dtype
) -> SparseArray | TiledArray:
    """Load what was pickled by its path."""
    made = from_hdf5(path, name, mode=mode)
    if (made.shape, made.dtype) != (shape, dtype):
        found = made.shape, made.dtype
        made.close()
        msg = f"{name!r} in {path!r} is {found} by now: it was changed after the array was pickled"
        raise ValueError(msg)
    return made


# To


def to_hdf5(
    array: Any,
    target: Any,
    name: str = "data",
    *,
    chunks: int | tuple[int, ...] | None = None,
    overwrite: bool = False,
    progress: bool = False,
    **options: Any,
) -> None:
    """
    Write an array as an HDF5 dataset in chunks; those that hold only zeros are left out.

    Parameters
    ----------
    array : SparseArray or TiledArray
        Which.
    target : path or h5py.Group
        A new file, which is there whole or not at all; or where to put the dataset in an open one.
    name : str
        Of the dataset.
    chunks : int or tuple of ints, optional
        Items along each axis of a chunk; no more than the array has, without ``maxshape``. By
        default (or True, as h5py has it) about 256 KiB: some whole tiles, or as near a
        cube as the dtype allows. Less, down to a tile or a page, where little is stored here and
        there: so that all take no more than twice what the best take, or 1 MiB more.
    overwrite : bool
        Replace the file, with all that is in it.
    progress : bool
        Show a progress bar (needs tqdm).
    **options
        As of h5py's ``create_dataset``: ``compression``, ``shuffle``, ``maxshape`` ...

    Raises
    ------
    TypeError
        HDF5 has no type for the items; or an option, as h5py has it.
    ValueError
        There is a dataset of that name; a fill value that is not zero; or chunks that do not fit.
    FileExistsError
        The file is there.
    OSError
        The disk is full or fails. Nothing is left behind.
    ClosedError, AccessError
        As `SparseArray.extents`.

    Notes
    -----
    What is not compressed can be mapped again by `from_hdf5`: chunks of a page or more begin at
    pages in a new file. In an open one they do if it was opened so:
    ``h5py.File(path, "w", alignment_threshold=4096, alignment_interval=4096)``.

    A Ctrl-C is heeded between chunks; a second waits until what the first has stopped is removed.

    HDF5 looks each chunk up in a tree, and tells of it with some 50 bytes: chunks of one page,
    ``chunks=a.tiles``, store the least, but are slow to read through h5py.

    Items of datetime64 and timedelta64 are written as h5py does, as bytes with a tag that only
    h5py reads.

    References
    ----------
    H5Pset_alignment, H5Dwrite_chunk

    Examples
    --------
    >>> import os, tempfile
    >>> import h5py
    >>> import sparsearray
    >>> a = sparsearray.zeros((1 << 20, 1 << 17))
    >>> a[1000:1010, 2000] = 1
    >>> path = tempfile.mkdtemp() + "/a.h5"
    >>> a.to_hdf5(path)
    >>> os.stat(path).st_size < 1 << 20
    True
    >>> with h5py.File(path) as file:
    ...     file["data"].chunks, file["data"][1000:1012, 2000].sum()
    ((128, 256), np.float64(10.0))
    """
    h5py = needed("h5py", "to_hdf5", "hdf5")
    if not isinstance(array, StoredArray):
        msg = f"to_hdf5 takes an array with holes, not {type(array).__name__}; h5py writes those"
        raise TypeError(msg)
    _check_options(array, options)
    if isinstance(target, h5py.Group):
        if name in target:
            msg = f"{target.name!r} in {target.file.filename!r} has a {name!r} already"
            raise ValueError(msg)
        with held_off() as handle_signals:
            write(array, target, name, chunks, options, handle_signals, shown=progress)
        return
    path = os.fsdecode(target)
    if not overwrite and os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, "overwrite=True replaces it", path)
    page = os.sysconf("SC_PAGESIZE")
    with (
        held_off() as handle_signals,
        replacing(path, clobber=overwrite) as beside,
        h5py.File(beside.name, "w", alignment_threshold=page, alignment_interval=page) as file,
    ):
        write(array, file, name, chunks, options, handle_signals, shown=progress)


def _check_options(array: StoredArray, options: dict[str, Any]) -> None:
    for key in {"data", "shape", "dtype"} & set(options):
        msg = f"to_hdf5: {key}= is the array's own"
        raise TypeError(msg)
    fill = options.get("fillvalue")
    if fill is not None and not is_zero(np.array(fill, array.dtype)):
        msg = f"to_hdf5: holes are zero, and fillvalue={fill!r} is not"
        raise ValueError(msg)
