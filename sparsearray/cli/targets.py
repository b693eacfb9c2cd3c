"""What a converted array is written to: there when it is complete, or not at all."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from sparsearray._new_file import name_file, replacing
from sparsearray._optional import needed
from sparsearray._progress import progress_bar
from sparsearray._text import printable
from sparsearray.array import SparseArray
from sparsearray.errors import AccessError
from sparsearray.files import open as open_array
from sparsearray.files import save
from sparsearray.stored import StoredArray

from .formats import is_zarr

__all__ = ["KEEP", "Choices", "check_target", "write_target"]

KEEP = "keep"  # of tiles: as the source has them


class Choices(NamedTuple):
    """How it is to be written."""

    tiles: tuple[int, ...] | str | None
    """Of .npy: items along a tile, ``'auto'``, None for C order, or `KEEP`: as the array lies."""
    chunks: tuple[int, ...] | None
    """Of zarr and HDF5."""
    dataset: str
    """Its name in an HDF5 file."""
    progress: bool


def check_target(target: str, source: str, *, force: bool) -> None:
    """
    Refuse a target that is not to be replaced.

    Raises
    ------
    FileExistsError
        It is there, and not to be replaced by `force`.
    ValueError
        It is the source; or a folder of something else than zarr arrays, which is nobody's to
        remove.
    """
    if not os.path.lexists(target):
        return
    with suppress(OSError):
        if os.path.samefile(source, target):  # noqa: PTH121 - paths stay strings
            msg = f"{printable(source)} and {printable(target)} are the same"
            raise ValueError(msg)
    if not force:
        raise FileExistsError(errno.EEXIST, "is there already; --force replaces it", target)
    if os.path.isdir(target) and not is_zarr(target):  # noqa: PTH112
        msg = f"{printable(target)} is a folder, and not of zarr's: it is not replaced"
        raise ValueError(msg)


def write_target(path: str, wanted: str, array: StoredArray, choices: Choices) -> None:
    """
    Write an array.

    Parameters
    ----------
    path : str
        The file, or the folder. One that is there is replaced.
    wanted : {'npy', 'zarr', 'hdf5'}
        The format.
    array : SparseArray or TiledArray
        What to write.
    choices : Choices
        How.

    Raises
    ------
    OSError, ValueError, TypeError
        It cannot be written, or not in that format. Nothing of it is left.
    ImportError
        A package is not installed.
    """
    if wanted == "zarr":
        needed("zarr", "convert", "zarr")
        from sparsearray.interop.zarr import to_zarr

        with _replacing_folder(path) as beside:
            to_zarr(array, beside, chunks=choices.chunks, progress=choices.progress)
    elif wanted == "hdf5":
        h5py = needed("h5py", "convert", "hdf5")
        from sparsearray.interop.hdf5 import to_hdf5

        with replacing(path) as file, _plain_errors(path), h5py.File(file.name, "w") as made:
            to_hdf5(array, made, choices.dataset, chunks=choices.chunks, progress=choices.progress)
    else:
        _write_npy(path, array, choices)


@contextmanager
def _plain_errors(path: str) -> Iterator[None]:
    """Say of a failed system call in HDF5 what it was; the library's own words fill a page."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or not error.errno or isinstance(error, AccessError):
            raise
        raise OSError(error.errno, os.strerror(error.errno), path) from error


def _write_npy(path: str, array: StoredArray, choices: Choices) -> None:
    tiles = choices.tiles
    in_c_order = isinstance(array, SparseArray) and array.order == "C"
    if tiles == KEEP or (tiles is None and in_c_order):
        save(path, array, progress=choices.progress)
        return
    with replacing(path) as file:
        try:
            # A file anew under the name of the temporary one, which it replaces.
            made = open_array(file.name, "w+", shape=array.shape, dtype=array.dtype, tiles=tiles)
            with made, progress_bar("convert", array.nbytes_stored, shown=choices.progress) as done:
                for box, block in array.blocks():
                    made._write_filled(box, block)
                    done(block.nbytes)
                made.flush()
        except AccessError as error:
            if error.filename != file.name:
                raise
            raise OSError(error.errno, os.strerror(error.errno or 0), path) from error


@contextmanager
def _replacing_folder(name: str) -> Iterator[str]:
    """Have a folder written beside the one of that name, and put in its place."""
    target = Path(os.path.realpath(name))
    label = os.fsdecode(os.fsencode(target.name)[:200])
    beside = target.with_name(f".{label}.{secrets.token_hex(6)}.tmp")
    aside = beside.with_suffix(".old")
    try:
        yield str(beside)
        try:
            with suppress(FileNotFoundError):
                target.rename(aside)
            beside.rename(target)
        finally:
            if not os.path.lexists(target):
                with suppress(FileNotFoundError):
                    aside.rename(target)
    except OSError as error:
        name_file(error, name, str(beside))
        raise
    finally:
        _remove(beside)
        if os.path.lexists(target):
            _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
