"""The formats that arrays lie in: which one it is, and opened as an array."""

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from traceback import format_exception_only
from typing import Any, NamedTuple

import numpy as np

from sparsearray._binding import describe, plain_dtype
from sparsearray._optional import needed
from sparsearray._text import printable
from sparsearray.files import open as open_array
from sparsearray.npy import MAGIC
from sparsearray.stitch import stitch
from sparsearray.stored import StoredArray

from .regular import opened_regular

__all__ = [
    "FORMATS",
    "HDF5_MAGIC",
    "Raw",
    "format_of_source",
    "format_of_target",
    "is_zarr",
    "opened_source",
    "refuse_zarr",
]

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
FORMATS = ("npy", "zarr", "hdf5", "raw")
_ENDINGS = {".npy": "npy", ".zarr": "zarr", ".h5": "hdf5", ".hdf5": "hdf5", ".hdf": "hdf5"}
_ZARR_FILES = ("zarr.json", ".zarray", ".zgroup")  # of version 3 and of 2
_LISTED = 8  # datasets, in an error


class Raw(NamedTuple):
    """What is known of a file without a header."""

    dtype: str | None
    shape: tuple[int, ...] | None
    offset: int | None
    """Where it begins, in bytes."""


def format_of_target(path: str, asked: str | None) -> str:
    """
    Tell a format by its name.

    Raises
    ------
    LookupError
        It does not tell.

    Examples
    --------
    >>> format_of_target("a.H5", None), format_of_target("a.H5", "npy")
    ('hdf5', 'npy')
    """
    found = asked or _ENDINGS.get(_ending(path))
    if found is None:
        msg = f"{printable(path)} does not say what it is to be: --to npy, zarr or hdf5"
        raise LookupError(msg)
    return found


def format_of_source(path: str, asked: str | None, *, raw: bool) -> str:
    """
    Tell a format by its name, or else by how the file begins.

    Parameters
    ----------
    path : str
        A file, or a folder of zarr's.
    asked : str or None
        What the user says.
    raw : bool
        What nothing else is known of is raw.

    Raises
    ------
    LookupError
        Nothing tells.
    OSError
        It cannot be read.
    """
    found = asked or _ENDINGS.get(_ending(path))
    if found is not None:
        return found
    if os.path.isdir(path):  # noqa: PTH112 - paths stay strings
        if is_zarr(path):
            return "zarr"
        raise IsADirectoryError(errno.EISDIR, "Is a directory, and no zarr array", path)
    with opened_regular(path) as fd:
        head = os.pread(fd, len(HDF5_MAGIC), 0)
    if head.startswith(MAGIC):
        return "npy"
    if head == HDF5_MAGIC:
        return "hdf5"
    if raw:
        return "raw"
    msg = f"{printable(path)} does not say what it is: --from npy, zarr or hdf5; or --dtype, if raw"
    raise LookupError(msg)


def _ending(path: str) -> str:
    return Path(path).suffix.lower()


def is_zarr(folder: str) -> bool:
    """Tell whether a folder holds an array, or a group of them."""
    return any(Path(folder, name).exists() for name in _ZARR_FILES)


def refuse_zarr(path: str) -> None:
    """Raise an error that says what can be done, where a folder of zarr's is taken for a file."""
    if path and is_zarr(path):
        msg = "a folder of zarr's and no file; 'sparsearray convert' writes an array in it as .npy"
        raise IsADirectoryError(errno.EISDIR, msg, path)


@contextmanager
def opened_source(
    path: str, known: str, raw: Raw, dataset: str | None, *, progress: bool
) -> Iterator[StoredArray]:
    """
    Open what is to be converted as an array.

    Parameters
    ----------
    path : str
        A file, or a folder of zarr's.
    known : str
        Its format.
    raw : Raw
        What is known of a raw file.
    dataset : str or None
        Which of an HDF5 file; by default the only one.
    progress : bool
        Show a progress bar where something is read already (needs tqdm).

    Raises
    ------
    OSError, ValueError, TypeError
        It cannot be opened as such an array.
    ImportError
        A package is not installed.
    """
    array: StoredArray
    if known == "zarr":
        needed("zarr", "convert", "zarr")
        from sparsearray.interop.zarr import from_zarr

        # Of tasks that zarr leaves behind when a chunk cannot be read: the error says so.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        with _naming(path):
            array = from_zarr(path, progress=progress)
        with array:
            yield array
        return
    if known == "hdf5":
        h5py = needed("h5py", "convert", "hdf5")
        from sparsearray.interop.hdf5 import from_hdf5

        with opened_regular(path), _naming(path):  # what is no file is said in words of the system
            file = h5py.File(path, "r")
        with file:
            with _naming(path):
                found = _find_dataset(h5py, file, dataset)
                array = from_hdf5(found, progress=progress)
            with array:
                yield array
        return
    with _open_raw(path, raw) if known == "raw" else _open_npy(path) as array:
        yield array


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """
    Have errors of other libraries say which file they are about.

    A damaged one has them raise all kinds: KeyError, AttributeError, zlib.error.
    """
    try:
        yield
    except (ImportError, MemoryError):
        raise
    except Exception as error:
        text = str(error)
        if not isinstance(error, OSError | ValueError | TypeError | RuntimeError):
            text = format_exception_only(error)[-1]
        elif path in text:
            raise
        msg = f"{printable(path)}: {text}"
        raise ValueError(msg) from error


def _open_npy(path: str) -> StoredArray:
    with opened_regular(path):
        return open_array(path)


def _open_raw(path: str, raw: Raw) -> StoredArray:
    dtype, offset = _find_dtype(raw.dtype), raw.offset or 0
    with opened_regular(path) as fd:
        nbytes = os.fstat(fd).st_size - offset
    if nbytes < 0 or offset < 0:
        length = describe(nbytes + offset)
        msg = f"{printable(path)} has {length} bytes, and none at {describe(offset)}"
        raise ValueError(msg)
    if not dtype.itemsize:
        msg = f"items of {dtype} have no bytes"
        raise ValueError(msg)
    wanted = raw.shape or (-1,)
    items, rest = divmod(nbytes, dtype.itemsize)
    if rest and -1 in wanted:
        msg = f"{printable(path)}: {describe(nbytes)} bytes are no whole items of {dtype}"
        raise ValueError(msg)
    shape = _fill_in(wanted, items)
    if shape is None:
        asked = ",".join(map(str, wanted))
        msg = f"{printable(path)}: {items:,} items of {dtype} make no --shape {asked}"
        raise ValueError(msg)
    return stitch([(path, offset, prod(shape) * dtype.itemsize)], dtype, shape)


def _fill_in(shape: tuple[int, ...], items: int) -> tuple[int, ...] | None:
    """
    Return a shape with the length that is left open; None where the items do not make it.

    Items behind a shape that leaves none open are none of it.

    Examples
    --------
    >>> _fill_in((-1, 3), 12), _fill_in((-1, 5), 12), _fill_in((2, 5), 12), _fill_in((2, 7), 12)
    ((4, 3), None, (2, 5), None)
    """
    known = prod(n for n in shape if n != -1)
    filled = tuple(items // max(known, 1) if n == -1 else n for n in shape)
    fits = prod(filled) == items if -1 in shape else prod(filled) <= items
    return filled if fits and min(filled) > 0 and shape.count(-1) < 2 else None


def _find_dtype(text: str | None) -> np.dtype:
    try:
        return plain_dtype(text)
    except SyntaxError as error:  # of what numpy reads as Python
        msg = f"--dtype: {text!r} not understood"
        raise TypeError(msg) from error
    except (TypeError, ValueError) as error:
        msg = f"--dtype: {error}"
        raise TypeError(msg) from error


def _find_dataset(h5py: Any, file: Any, name: str | None) -> Any:
    """Return the dataset of that name, or the only one there is."""
    if name is not None:
        found = file.get(name)
        if not isinstance(found, h5py.Dataset):
            msg = f"there is no dataset {name!r}"
            raise ValueError(msg)
        return found
    names: list[str] = []
    file.visititems(
        lambda one, thing: names.append(one) if isinstance(thing, h5py.Dataset) else None
    )
    if len(names) != 1:
        some = ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
        msg = f"it has {some}: --dataset says which" if names else "it has no dataset"
        raise ValueError(msg)
    return file[names[0]]
