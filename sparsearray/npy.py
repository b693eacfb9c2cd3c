"""The header of .npy files, read and written so that the data begins on a page."""

import math
import os
import warnings
from functools import lru_cache
from io import BytesIO
from typing import Literal, NamedTuple

import numpy as np

__all__ = ["HEADER_NBYTES", "MAGIC", "Header", "data_pages", "make_header", "read_header"]

MAGIC = b"\x93NUMPY"
_VERSIONS = ((1, 0), (2, 0), (3, 0))
_MOST_READ = 10_000  # characters of a header that numpy reads: more may crash Python's parser
# The data of our files begins on a 4 KiB page, or on the next where a structured dtype is long.
HEADER_NBYTES = 4096
_GROWTH = 40  # bytes: digits of a length, and of that of an array in tiles, which may grow
_LONGEST = 2 * HEADER_NBYTES


class Header(NamedTuple):
    """What a .npy file says about its data."""

    shape: tuple[int, ...]
    order: Literal["C", "F"]
    dtype: np.dtype
    start: int
    """Where the data begins, in bytes."""

    @property
    def stop(self) -> int:
        """Where it ends, in bytes."""
        return self.start + math.prod(self.shape) * self.dtype.itemsize


def read_header(fd: int) -> Header:
    """
    Read the header of a .npy file.

    Parameters
    ----------
    fd : int
        Its descriptor. Its position stays.

    Raises
    ------
    ValueError
        It is none, is of an unknown version, or is damaged. Objects in the dtype are not refused.
    """
    file = BytesIO(os.pread(fd, len(MAGIC) + 6 + 4 * _MOST_READ, 0))
    version = np.lib.format.read_magic(file)
    if version not in _VERSIONS:
        msg = f"version {version[0]}.{version[1]} of the format is unknown"
        raise ValueError(msg)
    field = 2 if version == (1, 0) else 4
    nbytes = int.from_bytes(file.read(field), "little")
    start = len(MAGIC) + 2 + field + nbytes
    if nbytes > 4 * _MOST_READ:
        raise _too_long(nbytes, "bytes")
    raw = file.read(nbytes)
    if len(raw) < nbytes or start > os.fstat(fd).st_size:
        msg = f"cut short in the header, which ends at byte {start}"
        raise ValueError(msg)
    text = raw.decode("utf8" if version == (3, 0) else "latin1")
    if len(text) > _MOST_READ:
        raise _too_long(len(text), "characters")
    shape, fortran, dtype = _parse(text)
    return Header(shape, "F" if fortran else "C", dtype, start)


def _too_long(length: int, unit: str) -> ValueError:
    return ValueError(f"a header of {length} {unit}: numpy reads up to {_MOST_READ} characters")


@lru_cache(64)
def _parse(text: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Have numpy read the text of a header of any version: once, where many files say the same."""
    # What is not ASCII stands between quotes: escaped there, it means the same in version 2.
    ascii_text = text.encode("ascii", "backslashreplace")
    file = BytesIO(len(ascii_text).to_bytes(4, "little") + ascii_text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # written by Python 2: read all the same
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file, len(ascii_text))
    except Exception as error:  # whatever numpy's parser meets in the header
        msg = f"damaged header: {error}"
        raise ValueError(msg) from error
    if any(n < 0 for n in shape):
        msg = f"negative shape {shape}"
        raise ValueError(msg)
    return tuple(map(int, shape)), fortran, dtype  # a bool is an int to numpy's parser


def make_header(
    shape: tuple[int, ...], order: str, dtype: np.dtype, nbytes: int | None = None
) -> bytes:
    """
    Write a header.

    Parameters
    ----------
    shape, order, dtype
        Of the array.
    nbytes : int, optional
        How long it is to be; a page, or two, by default.

    Raises
    ------
    ValueError
        It does not fit.
    """
    entries = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": order == "F",
        "shape": shape,
    }
    text = repr(entries)
    try:
        encoded, version = text.encode("latin1"), (1, 0)
    except UnicodeEncodeError:
        encoded, version = text.encode(), (3, 0)
    prefix = len(MAGIC) + 2 + (2 if version == (1, 0) else 4)
    wanted = prefix + len(encoded) + 1
    total = nbytes or (HEADER_NBYTES if wanted + _GROWTH <= HEADER_NBYTES else _LONGEST)
    if wanted > total:
        msg = f"a .npy header of {wanted} bytes does not fit into {total}"
        raise ValueError(msg)
    body = encoded.ljust(total - prefix - 1) + b"\n"
    length = len(body).to_bytes(prefix - len(MAGIC) - 2, "little")
    return MAGIC + bytes(version) + length + body


def data_pages(header: Header) -> tuple[int, int]:
    """Find the pages that the data lies in: where they begin in the file, and their length."""
    page = os.sysconf("SC_PAGESIZE")
    base = header.start // page * page
    return base, -(-(header.stop - base) // page) * page
