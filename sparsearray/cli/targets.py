"""What a converted array is written to: there when it is complete, or not at all."""

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path
from typing import NamedTuple

from sparsearray._binding import describe
from sparsearray._new_file import beside, find_old, give_owner, name_file, replacing
from sparsearray._optional import needed
from sparsearray._progress import progress_bar
from sparsearray._signals import held_off
from sparsearray._text import printable
from sparsearray.array import SparseArray
from sparsearray.errors import AccessError, SparseError
from sparsearray.files import open as open_array
from sparsearray.files import save
from sparsearray.stored import StoredArray

from .formats import is_zarr
from .regular import refuse_same

__all__ = ["KEEP", "Choices", "check_target", "write_target"]

KEEP = "keep"  # of tiles: as the source has them
# Bytes of a chunk: what zstd takes, and what HDF5 counts in 32 bits.
_LARGEST = {"zarr": 0x7E000000, "hdf5": 0xFFFFFFFF}


class Choices(NamedTuple):
    """How it is to be written."""

    tiles: tuple[int, ...] | str | None
    """Of .npy: items along a tile, ``'auto'``, None for C order, or `KEEP`: as the array lies."""
    chunks: tuple[int, ...] | None
    """Of zarr and HDF5."""
    dataset: str
    """Its name in an HDF5 file."""
    force: bool
    """Whether one that is there is replaced."""
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
    refuse_same(source, target)
    if not force:
        raise FileExistsError(errno.EEXIST, "is there already; --force replaces it", target)
    if os.path.isdir(target) and not is_zarr(target):  # noqa: PTH112 - paths stay strings
        msg = f"{printable(target)} is a folder, and not of zarr's: it is not replaced"
        raise ValueError(msg)


def write_target(path: str, wanted: str, array: StoredArray, choices: Choices) -> None:
    """
    Write an array.

    Parameters
    ----------
    path : str
        The file, or the folder.
    wanted : {'npy', 'zarr', 'hdf5'}
        The format.
    array : SparseArray or TiledArray
        What to write.
    choices : Choices
        How.

    Raises
    ------
    FileExistsError
        There is one by now, and it is not to be replaced.
    OSError, ValueError, TypeError
        It cannot be written, or not in that format. Nothing of it is left.
    ImportError
        A package is not installed.
    """
    if choices.chunks is not None:
        _check_chunks(choices.chunks, array, wanted)
    if wanted == "zarr":
        needed("zarr", "convert", "zarr")
        from sparsearray.interop.zarr import to_zarr

        with _replacing_folder(path, clobber=choices.force) as beside:
            to_zarr(array, beside, chunks=choices.chunks, progress=choices.progress)
    elif wanted == "hdf5":
        h5py = needed("h5py", "convert", "hdf5")
        from sparsearray.interop.hdf5 import to_hdf5

        with (
            replacing(path, clobber=choices.force) as file,
            _plain_errors(path),
            h5py.File(file.name, "w") as made,
        ):
            to_hdf5(array, made, choices.dataset, chunks=choices.chunks, progress=choices.progress)
    else:
        _write_npy(path, array, choices)


def _check_chunks(chunks: tuple[int, ...], array: StoredArray, wanted: str) -> None:
    """Refuse chunks that the library cannot make, in words that name the option."""
    name = f"--chunks {','.join(map(str, chunks))}"
    if len(chunks) != len(array.shape):
        msg = f"{name} does not fit shape {array.shape}: one number for each axis"
        raise ValueError(msg)
    if wanted == "hdf5" and any(a > b > 0 for a, b in zip(chunks, array.shape, strict=True)):
        msg = f"{name}: in HDF5 a chunk is no longer than the array of {array.shape}"
        raise ValueError(msg)
    nbytes, most = prod(chunks) * array.itemsize, _LARGEST[wanted]
    if nbytes > most:
        msg = f"{name}: a chunk has {describe(nbytes)} bytes, and {wanted} takes {describe(most)}"
        raise ValueError(msg)


@contextmanager
def _plain_errors(path: str) -> Iterator[None]:
    """Say of a failed system call in HDF5 what it was; the library's own words fill a page."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or not error.errno or isinstance(error, AccessError):
            raise
        raise OSError(error.errno, os.strerror(error.errno), path) from error
    except RuntimeError as error:
        if isinstance(error, SparseError):
            raise
        # What h5py says where a file cannot be closed: the number is in the text.
        found = re.search(r"errno = (\d+)", str(error))
        number = int(found[1]) if found else errno.EIO
        raise OSError(number, os.strerror(number), path) from error


def _write_npy(path: str, array: StoredArray, choices: Choices) -> None:
    tiles = choices.tiles
    in_c_order = isinstance(array, SparseArray) and array.order == "C"
    with replacing(path, clobber=choices.force) as file:
        # A file anew under the name of the temporary one, which it replaces.
        try:
            if tiles == KEEP or (tiles is None and in_c_order):
                save(file.name, array, progress=choices.progress)
                return
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
def _replacing_folder(name: str, *, clobber: bool) -> Iterator[str]:
    """Have a folder written beside the one of that name, and put in its place."""
    target, old = _find_old_folder(name)
    if old is not None and not clobber:
        raise _is_there(name)
    room = beside(target)  # nobody else looks into it meanwhile, whatever is in it
    made, aside = room / "new", room / "old"
    try:
        room.mkdir(0o700)
        yield str(made)
        with held_off():
            if old is not None and stat.S_ISDIR(old.st_mode):
                _give_all(made, old)
            if clobber:
                _exchange(made, target, aside)
            else:
                _put_new(made, target)
            _remove(room, target, aside)
    except BaseException as error:
        with held_off():
            _remove(room, target, aside)
        if isinstance(error, OSError):
            is_ours = _is_within(error.filename, room)
            name_file(error, name, error.filename if is_ours else None)
        raise


def _find_old_folder(name: str) -> tuple[Path, os.stat_result | None]:
    target = Path(os.path.realpath(name))
    if not name or not target.is_dir():
        return find_old(name)
    if not os.access(target, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
    return target, target.stat()


def _is_within(name: object, folder: Path) -> bool:
    return isinstance(name, str) and Path(name).is_relative_to(folder)


def _give_all(made: Path, old: os.stat_result) -> None:
    """Give a folder the owner and the permissions of the old one, and what is in it the owner."""
    facts = made.stat()
    if (facts.st_uid, facts.st_gid) != (old.st_uid, old.st_gid):
        for path in (made, *made.rglob("*")):
            give_owner(path, old)
    made.chmod(stat.S_IMODE(old.st_mode))


def _exchange(made: Path, target: Path, aside: Path) -> None:
    """Put a folder in the place of another, or leave that one there."""
    try:
        with suppress(FileNotFoundError):
            target.rename(aside)
        made.rename(target)
    finally:
        if not os.path.lexists(target):
            with suppress(FileNotFoundError):
                aside.rename(target)


def _put_new(made: Path, target: Path) -> None:
    """Give a folder its name, unless there is something of that name by now."""
    try:
        target.mkdir()
    except FileExistsError:
        raise _is_there(str(made)) from None
    try:
        made.rename(target)  # fails where that has got anything in it: rename(2)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise _is_there(str(made)) from None
        target.rmdir()
        raise


def _is_there(name: str) -> FileExistsError:
    return FileExistsError(errno.EEXIST, "is there by now; --force replaces it", name)


def _remove(room: Path, target: Path, aside: Path) -> None:
    """Remove what is not needed, and the old folder only where the new one is in its place."""
    if os.path.lexists(target) or not os.path.lexists(aside):
        shutil.rmtree(room, ignore_errors=True)
