"""Advanced indices: the coordinates that arrays in an index select, as numpy has it."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._selection import Selected
from .blocks import boxes

__all__ = ["Coordinates", "one_array", "orthogonal"]

_NOTHING = np.dtype([])  # an array of these is checked and shaped by numpy, and takes no memory


class Coordinates:
    """
    What an index with arrays in it selects of an array.

    Parameters
    ----------
    key : tuple
        The index, with ndarrays or lists among its parts.
    shape : tuple of int
        Of the array.

    Attributes
    ----------
    shape : tuple of int
        Of what is selected.
    is_item : bool
        Whether that is an item, and no array.
    axes : list of ndarray of int64
        The number of each item along each axis of the array. They broadcast to `shape`.

    Raises
    ------
    IndexError
        As numpy.

    Examples
    --------
    >>> found = Coordinates(([3, -1], slice(0, 2)), (5, 6))
    >>> found.shape, [axis.tolist() for axis in found.axes]
    ((2, 2), [[[3], [4]], [0, 1]])
    """

    def __init__(self, key: tuple[Any, ...], shape: tuple[int, ...]) -> None:
        found: Any = np.broadcast_to(np.zeros((), _NOTHING), shape)[key]
        self.shape: tuple[int, ...] = found.shape
        self.is_item = isinstance(found, np.generic)
        parts, before = _expand(key, len(shape))
        arrays = [part for part in parts if isinstance(part, np.ndarray)]
        together = np.broadcast_shapes(
            *((int(array),) if array.dtype == bool else array.shape for array in arrays)
        )
        ndim = len(self.shape)
        self.axes: list[NDArray[np.int64]] = []
        at, axis = 0, 0
        for part in parts:
            if isinstance(part, np.ndarray):
                if part.dtype == bool:  # True or False, which stands for no axis
                    continue
                numbers = _from_start(part, shape[axis])
                after = ndim - before - len(together)
                self.axes.append(numbers.reshape(numbers.shape + (1,) * after))
                axis += 1
                continue
            place = at if at < before else at + len(together)
            at += 1
            if part is None:
                continue
            numbers = np.arange(*part.indices(shape[axis]), dtype=np.int64)
            self.axes.append(numbers.reshape((-1,) + (1,) * (ndim - place - 1)))
            axis += 1

    def pieces(self, most: int) -> Iterator[tuple[tuple[slice, ...], list[NDArray[np.int64]]]]:
        """Cut what is selected into boxes of so many items at most, in C order."""
        size = prod(self.shape)
        if not size:
            return
        for box in boxes(self.shape, np.array([[0, size]]), most):
            yield box, [_part(axis, box) for axis in self.axes]


def _part(axis: NDArray[np.int64], box: tuple[slice, ...]) -> NDArray[np.int64]:
    """Take the part of an array that broadcasts which belongs to a box of the whole."""
    sides = box[len(box) - axis.ndim :]
    return axis[tuple(slice(None) if n == 1 else s for n, s in zip(axis.shape, sides, strict=True))]


def _expand(key: tuple[Any, ...], ndim: int) -> tuple[list[Any], int]:
    """
    Make one part for each axis of an index that numpy has accepted, and None for new ones.

    Returns
    -------
    parts : list
        Slices, None, and arrays; those of booleans have no axes, and stand for none.
    before : int
        How many axes of the result come before those of the arrays.
    """
    parts: list[Any] = []
    for part in key:
        if part is None or part is Ellipsis or isinstance(part, slice):
            parts.append(part)
            continue
        found = np.asarray(part)
        if not isinstance(part, np.ndarray) and not found.size:
            found = found.astype(np.intp)
        parts += found.nonzero() if found.dtype == bool and found.ndim else [found]
    taken = sum(part is not None and part is not Ellipsis and not _is_bool(part) for part in parts)
    if not any(part is Ellipsis for part in parts):
        parts.append(Ellipsis)
    at = next(i for i, part in enumerate(parts) if part is Ellipsis)
    places = [i for i, part in enumerate(parts) if isinstance(part, np.ndarray)]
    apart = places[-1] - places[0] >= len(places)  # by an ellipsis too, even one for no axis
    rest = [slice(None)] * (ndim - taken)
    before = 0
    if not apart:
        before = places[0] + (len(rest) - 1 if at < places[0] else 0)
    parts[at : at + 1] = rest
    return parts, before


def _is_bool(part: Any) -> bool:
    return isinstance(part, np.ndarray) and part.dtype == bool


def orthogonal(key: Any, shape: tuple[int, ...]) -> Selected:
    """
    Find what an index selects along each axis by itself, as zarr's ``oindex`` does.

    Parameters
    ----------
    key : index
        Integers, slices, an ellipsis, and arrays of integers or booleans of one axis.
    shape : tuple of int
        Of the array.

    Returns
    -------
    Selected
        Integers leave no axis.

    Raises
    ------
    IndexError
        As numpy; or an array has another number of axes than one.

    Examples
    --------
    >>> found = orthogonal(([4, -1], slice(None, None, 2), 0), (5, 3, 7))
    >>> found.sides, found.shape
    ([array([4, 4]), range(0, 3, 2), range(0, 1)], (2, 2))
    """
    parts = list(key) if isinstance(key, tuple) else [key]
    if any(part is None for part in parts):
        msg = "oindex takes no newaxis"
        raise IndexError(msg)
    ellipses = sum(part is Ellipsis for part in parts)
    if ellipses > 1 or len(parts) - ellipses > len(shape):
        np.broadcast_to(np.zeros((), _NOTHING), shape)[(*parts,)]  # raises numpy's error
    if not ellipses:
        parts.append(Ellipsis)
    at = next(i for i, part in enumerate(parts) if part is Ellipsis)
    parts[at : at + 1] = [slice(None)] * (len(shape) - len(parts) + 1)
    sides: list[range | NDArray[np.int64]] = []
    kept: list[int] = []
    axes: list[int | None] = []
    for axis, (part, n) in enumerate(zip(parts, shape, strict=True)):
        side, is_kept = _side(part, n, axis)
        sides.append(side)
        axes.append(len(kept) if is_kept else None)
        if is_kept:
            kept.append(len(side))
    return Selected(sides, tuple(kept), axes)


def one_array(parts: tuple[Any, ...], sizes: tuple[int, ...]) -> Selected | None:
    """Find the sides of an index in which one array of one axis stands beside slices only."""
    arrays = [part for part in parts if not (isinstance(part, slice) or part is Ellipsis)]
    if len(arrays) != 1 or np.ndim(arrays[0]) != 1:
        return None
    return orthogonal(parts, sizes)


def _side(part: Any, n: int, axis: int) -> tuple[range | NDArray[np.int64], bool]:
    """Find what one part selects of an axis, and whether the axis stays."""
    if isinstance(part, slice):
        return range(n)[part], True
    found = np.asarray(part)
    if not isinstance(part, np.ndarray) and not found.size:
        found = found.astype(np.intp)
    if found.ndim > 1 or (found.dtype == bool and not found.ndim):
        msg = f"oindex takes integers, slices and arrays of one axis, not {part!r} for axis {axis}"
        raise IndexError(msg)
    number = np.broadcast_to(np.arange(1), (n,))[found]  # raises numpy's errors
    if not number.ndim:
        at = int(found)
        return range(at % n, at % n + 1), False
    if found.dtype == bool:
        return np.flatnonzero(found), True
    return _from_start(found, n), True


def _from_start(numbers: NDArray[Any], n: int) -> NDArray[np.int64]:
    """Count places from the start of an axis of length n, those below zero too."""
    wide = numbers.astype(np.int64)  # n may be more than their dtype has
    return np.where(wide < 0, wide + n, wide)
