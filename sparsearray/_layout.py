"""Where an array lies: its shape, and the addresses and memory for it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ._binding import describe, plain_dtype
from ._memory import huge_page_nbytes
from .buffer import SparseBuffer
from .errors import UnsupportedError
from .window import as_shape

__all__ = ["allocate", "as_maxshape", "filling", "layout", "make_ghost", "reserve"]

_LARGEST = (1 << 63) - 1  # bytes
_MOST_FILLED = 1000  # ranges that have huge pages while they are filled
_UNLIMITED = 1 << 40  # bytes reserved for an axis that may grow without a limit, at least


def layout(shape: Any, dtype: DTypeLike) -> tuple[tuple[int, ...], np.dtype]:
    """Check shape and dtype as numpy does."""
    found, sizes = plain_dtype(dtype), as_shape(shape)
    if found.subdtype:
        found, inner = found.subdtype
        sizes += inner
    if found.itemsize == 0 and found.kind in "SUV" and found.names is None:
        # numpy makes room for one character in an array of flexible size.
        found = np.dtype(f"{found.kind}1")
    nonzero = [n for n in sizes if n]
    if prod(nonzero) * max(found.itemsize, 1) > _LARGEST or len(sizes) > 64:
        msg = f"shape {sizes} of {found} is larger than any address space"
        raise ValueError(msg)
    return sizes, found


def as_maxshape(shape: tuple[int, ...], maxshape: Any, itemsize: int) -> tuple[int, ...]:
    """Check a maxshape, and put a number where it says None."""
    if maxshape is None:
        return shape
    most = tuple(maxshape) if isinstance(maxshape, Iterable) else (maxshape,)
    if len(most) != len(shape) or not shape or tuple(most[1:]) != shape[1:]:
        msg = f"maxshape {most} does not fit shape {shape}: only the first axis can grow"
        raise ValueError(msg)
    row = prod(shape[1:]) * itemsize
    if most[0] is None:
        nbytes = max(_UNLIMITED, 2 * shape[0] * row)
        first = nbytes // row if row else max(_UNLIMITED, shape[0])
    else:
        first = as_shape(most[0])[0]
    if first < shape[0]:
        msg = f"maxshape {most} is smaller than shape {shape}"
        raise ValueError(msg)
    if first * row > _LARGEST:
        msg = f"maxshape {most} takes {first * row} bytes: more than any address space"
        raise ValueError(msg)
    return (first, *shape[1:])


def reserve(nbytes: int, name: str | None = None) -> SparseBuffer:
    """Reserve the addresses for an array; MemoryError where there are none."""
    try:
        return SparseBuffer(max(nbytes, 1), name=name)
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or "no memory"
        msg = f"an array of {describe(nbytes)} bytes finds no such range of addresses: {reason}"
        raise MemoryError(msg) from None


def allocate(buffer: SparseBuffer, offset: int, nbytes: int) -> None:
    """Put private memory in a range, in base pages: an item costs one of them, not 2 MiB."""
    first = buffer.page_size
    # Not all of a buffer at once: so the parts that `filling` splits off will join again.
    buffer.alloc(offset, first)
    if nbytes > first:
        buffer.alloc(offset + first, nbytes - first)
    _advise(buffer, offset, nbytes, "nohugepage")


def _advise(buffer: SparseBuffer, offset: int, nbytes: int, advice: str) -> None:
    # Where the system knows no huge pages, it gives none.
    with suppress(UnsupportedError):
        buffer.advise(offset, nbytes, advice)


@contextmanager
def filling(buffer: SparseBuffer, ranges: NDArray[np.int64]) -> Iterator[None]:
    """
    Let memory of `allocate` have huge pages where it is about to be written in full.

    Parameters
    ----------
    buffer : SparseBuffer
        Where the memory is.
    ranges : ndarray of int64, shape (n, 2)
        What will be written, in bytes, sorted.
    """
    huge = huge_page_nbytes()
    found = np.empty((0, 2), np.int64)
    if huge:
        found = np.stack([-(-ranges[:, 0] // huge), ranges[:, 1] // huge], axis=1) * huge
        found = found[found[:, 0] < found[:, 1]]
    if len(found) > _MOST_FILLED:
        # Each is a mapping of its own meanwhile.
        found = found[np.argsort(found[:, 0] - found[:, 1])[:_MOST_FILLED]]
    places = found.tolist()
    for start, stop in places:
        _advise(buffer, start, stop - start, "hugepage")
    try:
        yield
    finally:
        for start, stop in places:
            _advise(buffer, start, stop - start, "nohugepage")


class _Ghost:
    """Exports the place of an array to numpy."""

    __slots__ = ("__array_interface__",)

    __array_interface__: dict[str, Any]


def make_ghost(shape: tuple[int, ...], dtype: np.dtype, order: str, address: int) -> NDArray[Any]:
    """
    Make an ndarray that tells where the views of an array would lie.

    It keeps no memory alive: it is never read, and never given away.
    """
    if not dtype.itemsize or not prod(shape):
        return np.ndarray(shape, dtype)
    steps = []
    step = dtype.itemsize
    for n in shape[::-1] if order == "C" else shape:
        steps.append(step)
        step *= n
    ghost = _Ghost()
    ghost.__array_interface__ = {
        "version": 3,
        "shape": shape,
        "strides": tuple(steps[::-1] if order == "C" else steps),
        "typestr": f"|V{dtype.itemsize}",
        "data": (address, False),
    }
    return np.asarray(ghost).view(dtype)
