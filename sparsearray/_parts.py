"""What the parts of a stitched array are: found in files and arrays, and checked."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from ._binding import index, plain_dtype
from ._descriptor import look_at_files, opened
from ._layout import layout
from ._storage import Shared
from ._tiling import Tiling
from .array import SparseArray
from .errors import ClosedError
from .npy import MAGIC, Header, read_header
from .shared import SharedMemory

__all__ = ["Part", "describe_part", "find_parts", "has_header", "naming"]


class Part(NamedTuple):
    """What of a file, or of an array in memory, becomes part of another array."""

    number: int
    path: str | None
    """Absolute; None of an array that is not in a file with a path."""
    offset: int
    """In the file, in bytes."""
    nbytes: int
    dtype: np.dtype | None
    """None of a raw file, whose bytes are what the caller says."""
    shape: tuple[int, ...]
    """Along its axes; in bytes of a raw file."""
    array: SparseArray | None = None
    """What has no path."""
    is_guess: bool = False
    """Whether nobody has looked for a header in it yet."""

    @property
    def memory(self) -> SharedMemory | None:
        """The shared memory that it is mapped from."""
        found = None if self.array is None else self.array._storage
        return found.memory if isinstance(found, Shared) and found.mode != "c" else None

    @property
    def can_be_mapped(self) -> bool:
        """Whether it is somewhere where others can map it from."""
        return self.path is not None or self.memory is not None


def describe_part(part: Part) -> str:
    """Name it in a message."""
    return _name(part.number, part.array if part.path is None else part.path)


@contextmanager
def naming(part: Part) -> Iterator[None]:
    """Have errors of the system name the part, and its file."""
    try:
        yield
    except OSError as error:
        if type(error).__module__ != "builtins" or part.path is None:
            raise
        message = f"part {part.number}: {error.strerror}"
        raise OSError(error.errno, message, part.path) from error


def _name(number: int, source: object) -> str:
    """Name a part in a message: a path, or an array."""
    return f"part {number}, {source!r}"


def find_parts(
    sources: list[Any], dtype: DTypeLike | None, shape: Any, *, guess: bool
) -> tuple[list[Part], np.dtype, tuple[int, ...]]:
    """
    Look at what is to be stitched.

    Parameters
    ----------
    sources : list
        As of `stitch`.
    dtype, shape
        Of the result, as far as the caller says.
    guess : bool
        Take files that are not named so for no .npy files, without opening them.

    Returns
    -------
    (list of Part, dtype, shape)
        The parts that hold something, and what they make together.

    Raises
    ------
    ValueError, TypeError, OSError
        As `stitch`, naming the part.
    """
    wanted = None if dtype is None else plain_dtype(dtype)
    if wanted is not None and not wanted.itemsize:
        msg = f"items of {wanted} have no bytes"
        raise ValueError(msg)
    sizes = None if shape is None else _as_sizes(shape)
    found = _look_at(sources, _Taking(may_be_raw=wanted is not None, guess=guess))
    if not found:
        msg = "stitch: no parts"
        raise ValueError(msg)
    return _fit(found, wanted, sizes)


def _as_sizes(shape: Any) -> tuple[int, ...]:
    """Check a shape in which the first number may be -1: as many as there are."""
    sizes = tuple(map(index, shape)) if np.iterable(shape) else (index(shape),)
    if not sizes or sizes[0] < -1 or any(n < 0 for n in sizes[1:]) or not prod(sizes[1:]):
        msg = f"stitch: shape {shape} is none that parts along axis 0 can have"
        raise ValueError(msg)
    return sizes


# Each of them


class _Taking(NamedTuple):
    """What a file is taken for."""

    may_be_raw: bool
    guess: bool


def _look_at(sources: list[Any], taking: _Taking) -> list[Part]:
    """Find what sources are; several parts where one is stitched itself."""
    arrays = {n: source for n, source in enumerate(sources) if isinstance(source, SparseArray)}
    files = {n: _as_file(n, source) for n, source in enumerate(sources) if n not in arrays}
    sizes = look_at_files([file[0] for file in files.values()])
    found = {
        n: [_as_part(n, file, size, taking)]
        for (n, file), size in zip(files.items(), sizes, strict=True)
    }
    found.update((n, _parts_of(n, array)) for n, array in arrays.items())
    _check_sizes([part for n in arrays for part in found[n] if part.path is not None])
    return [part for n in range(len(sources)) for part in found[n]]


def _check_sizes(parts: list[Part]) -> None:
    """Raise ValueError for a part of an array whose file was cut short since it was opened."""
    sizes = look_at_files([str(part.path) for part in parts])
    for part, size in zip(parts, sizes, strict=True):
        if part.offset + part.nbytes > size:
            msg = (
                f"{describe_part(part)}: cut short: its {part.nbytes} bytes at {part.offset} end "
                f"at byte {part.offset + part.nbytes}, and the file has {max(size, 0)}"
            )
            raise ValueError(msg)


def _as_file(number: int, source: Any) -> tuple[str, int, int]:
    """Take a source for a file: its path, and which bytes of it; -1 for all."""
    path, offset, nbytes = source, 0, -1
    if isinstance(source, tuple):
        if len(source) != 3:
            msg = f"part {number}: a tuple of {len(source)}, not (path, offset, nbytes)"
            raise ValueError(msg)
        path = source[0]
        try:
            offset, nbytes = index(source[1]), index(source[2])
        except TypeError as error:
            msg = f"{_name(number, path)}: {error}"
            raise TypeError(msg) from None
        if offset < 0 or nbytes < 0:
            msg = f"{_name(number, path)}: {nbytes} bytes at {offset}: negative"
            raise ValueError(msg)
    try:
        name = _as_absolute(path if isinstance(path, str) else os.fsdecode(path))
    except TypeError:
        msg = (
            f"part {number}: {type(path).__name__} is neither a path, nor (path, offset, nbytes), "
            "nor a SparseArray"
        )
        raise TypeError(msg) from None
    if "\0" in name:
        msg = f"{_name(number, name)}: a null byte in the path"
        raise ValueError(msg)
    return name, offset, nbytes


def _as_absolute(name: str) -> str:
    """Make a path absolute, as `os.path.abspath`, which takes much longer for most."""
    if name.startswith("/") and "/." not in name and "//" not in name:
        return name
    return os.path.abspath(name)


def _as_part(number: int, file: tuple[str, int, int], size: int, taking: _Taking) -> Part:
    name, offset, nbytes = file
    if size < 0:
        reason = "not a regular file" if size == -errno.EINVAL else os.strerror(-size)
        raise OSError(-size, f"part {number}: {reason}", name)
    is_guess = False
    if nbytes < 0:
        is_guess = taking.guess and taking.may_be_raw and not name.endswith(".npy")
        if not is_guess:
            part = _as_npy(number, name, may_be_raw=taking.may_be_raw)
            if part is not None:
                return part
        nbytes = size
    if offset + nbytes > size:
        msg = (
            f"{_name(number, name)}: {nbytes} bytes at {offset} end at byte {offset + nbytes}, and "
            f"the file has {size}"
        )
        raise ValueError(msg)
    if not nbytes:
        msg = f"{_name(number, name)}: empty"
        raise ValueError(msg)
    return Part(number, name, offset, nbytes, None, (nbytes,), None, is_guess)


def has_header(path: str) -> bool:
    """Tell whether a file begins as a .npy file does."""
    with opened(path, writable=False) as file:
        return os.pread(file.fd, len(MAGIC), 0) == MAGIC


def _as_npy(number: int, name: str, *, may_be_raw: bool) -> Part | None:
    """Take it for a .npy file; None where it is a raw one, which may be."""
    what = _name(number, name)
    try:
        if not has_header(name):
            if may_be_raw:
                return None
            msg = "no .npy file; raw files need dtype="
            raise ValueError(msg)  # noqa: TRY301 - named below, as what numpy finds is
        with opened(name, writable=False) as file:
            header, size = read_header(file.fd), os.fstat(file.fd).st_size
        _check_header(header, size)
    except TypeError as error:
        msg = f"{what}: {error}"
        raise TypeError(msg) from error
    except ValueError as error:
        msg = f"{what}: {error}"
        raise ValueError(msg) from error
    except OSError as error:
        raise OSError(error.errno, f"part {number}: {error.strerror}", name) from None
    nbytes = header.stop - header.start
    sizes, dtype = layout(header.shape, header.dtype)
    return Part(number, name, header.start, nbytes, dtype, sizes)


def _check_header(header: Header, size: int) -> None:
    """Raise an error for a .npy file of `size` bytes that cannot be part of another array."""
    if header.dtype.hasobject:
        msg = f"dtype {header.dtype} holds Python objects"
        raise TypeError(msg)
    if not header.dtype.itemsize:
        msg = f"items of {header.dtype} have no bytes"
        raise ValueError(msg)
    _check_order(header.shape, header.order)
    if Tiling.of_record(header.dtype, header.shape) is not None:
        msg = "stored tile by tile; open(path).retile(None) makes an array in C order of it"
        raise ValueError(msg)
    if header.stop > size:
        msg = (
            f"cut short: shape {header.shape} of {header.dtype} ends at byte {header.stop}, and "
            f"the file has {size}"
        )
        raise ValueError(msg)


def _check_order(shape: tuple[int, ...], order: str) -> None:
    """Raise ValueError for an array whose rows do not lie one after another."""
    if not shape:
        msg = "a single item, without an axis 0"
        raise ValueError(msg)
    if order == "F" and len(shape) > 1:
        msg = "in Fortran order, in which axis 0 cannot be joined"
        raise ValueError(msg)


def _parts_of(number: int, array: SparseArray) -> list[Part]:
    what = _name(number, array)
    if array.closed:
        msg = f"{what}: closed"
        raise ClosedError(msg)
    try:
        _check_order(array.shape, array.order)
    except ValueError as error:
        msg = f"{what}: {error}"
        raise ValueError(msg) from None
    tail, dtype = array.shape[1:], array.dtype
    # What is kept for a full disk is in no file yet.
    places = None if array.buffer.damage else array._storage.places(array)
    if not places or not array.nbytes:
        offset = array.offset if isinstance(array._storage, Shared) else 0
        return [Part(number, None, offset, array.nbytes, dtype, array.shape, array)]
    row = prod(tail) * dtype.itemsize
    return [
        Part(number, path, offset, nbytes, dtype, (nbytes // row, *tail))
        for path, offset, nbytes in places
    ]


# All of them


def _fit(
    parts: list[Part], dtype: DTypeLike | None, sizes: tuple[int, ...] | None
) -> tuple[list[Part], np.dtype, tuple[int, ...]]:
    """Check that parts fit each other, and what the caller says; leave out those without bytes."""
    typed = next((part for part in parts if part.dtype is not None), None)
    if dtype is not None:
        inner, found = layout((), dtype)
        by = f"dtype={np.dtype(dtype)}"
    elif typed is not None and typed.dtype is not None:
        inner, found = (), typed.dtype
        by = f"part {typed.number}"
    else:
        msg = f"{describe_part(parts[0])}: bytes of a file need dtype="
        raise ValueError(msg)
    tail = inner
    if sizes is not None:
        tail = (*sizes[1:], *inner)
    elif typed is not None:
        tail = typed.shape[1:]
    rows = sum(_count_rows(part, found, tail, by) for part in parts)
    if sizes is not None and sizes[0] not in (-1, rows):
        msg = f"stitch: the parts make shape {(rows, *tail)}, not {sizes}"
        raise ValueError(msg)
    shape, found = layout((rows, *tail), found)
    return [part for part in parts if part.nbytes], found, shape


def _count_rows(part: Part, dtype: np.dtype, tail: tuple[int, ...], by: str) -> int:
    """Tell how many rows of `tail` a part has; ValueError where it has others."""
    row = prod(tail) * dtype.itemsize
    if part.dtype is None:
        if not row or part.nbytes % row:
            unit = f"rows of {tail} {dtype}" if tail else f"items of {dtype}"
            msg = f"{describe_part(part)}: {part.nbytes} bytes are no whole {unit}, of {row} bytes"
            raise ValueError(msg)
        return part.nbytes // row
    if part.dtype != dtype:
        msg = f"{describe_part(part)}: dtype {part.dtype}, and not {dtype} as {by}"
        raise ValueError(msg)
    if part.shape[1:] != tail:
        msg = f"{describe_part(part)}: shape {part.shape}, which does not end in {tail}"
        raise ValueError(msg)
    return part.shape[0]
