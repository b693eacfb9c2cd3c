"""Boxes of items moved between a buffer and arrays of the caller's, by one native call each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._binding import ffi, lib, pointer
from ._memory import check_copy

if TYPE_CHECKING:
    from .buffer import SparseBuffer

__all__ = ["Mover", "Sides"]

_PIECE = 64 << 20  # bytes moved in one native call, between two chances for a Ctrl-C
_MANY = 1 << 20  # items along one axis of a call: there each may cost some 40 bytes
_READ, _WRITE = lib.SA_BOX_READ, lib.SA_BOX_WRITE
_WORDS = ffi.sizeof("sa_axis") // 8
_STRIDE = ffi.offsetof("sa_axis", "stride") // 8  # from here on what differs from call to call

Sides = Sequence[range | NDArray[np.int64]]
"""What is selected along each axis: a range, or the number of each item."""


class Mover:
    """
    Moves boxes of items that lie in a buffer tile by tile.

    Parameters
    ----------
    buffer : SparseBuffer
        Where they lie.
    offset : int
        Of the first one, in bytes.
    dtype : dtype
        Of an item.
    axes : sequence of (tile, tile_step, item_step)
        For each axis: items along a tile; bytes from one tile to the next, and from one item to the
        next inside a tile.
    """

    __slots__ = ("_axes", "_buffer", "_idle", "_offset", "dtype")

    def __init__(
        self,
        buffer: SparseBuffer,
        offset: int,
        dtype: np.dtype,
        axes: Sequence[tuple[int, int, int]],
    ) -> None:
        self._buffer = buffer
        self._offset = offset
        self._axes = axes
        self._idle: list[tuple[Any, Any]] = []  # structures for native calls, one each
        self.dtype = dtype

    def _make_cell(self) -> tuple[Any, Any]:
        """Make a structure for a native call, and a view of its words."""
        made = ffi.new("sa_axis[]", max(len(self._axes), 1))
        words = ffi.cast("int64_t *", made)
        for k, axis in enumerate(self._axes):
            words[_WORDS * k : _WORDS * k + 3] = axis
        return made, words

    def write(
        self, sides: Sides, items: NDArray[Any], strides: Sequence[int], *, filled: bool = False
    ) -> None:
        """
        Write items.

        Parameters
        ----------
        sides : sequence of ranges and arrays
            What is selected along each axis, inside the array.
        items : ndarray
            Of the dtype.
        strides : sequence of int
            Of its axes as they go with the sides, in bytes; 0 repeats it.
        filled : bool
            Leave out what is all zeros in a tile: that is zero already.
        """
        if items.flags.c_contiguous:
            data = pointer(items, writable=False)
        else:
            data = ffi.cast("char *", items.__array_interface__["data"][0])
        self._move(lib.SA_BOX_WRITE_FILLED if filled else _WRITE, sides, data, strides)

    def clear(self, sides: Sides) -> None:
        """Set a selection to zero, on pages that hold something: no other is touched."""
        self._move(lib.SA_BOX_CLEAR, sides, ffi.NULL, [0] * len(sides))

    def read(self, sides: Sides) -> NDArray[Any]:
        """Copy a selection: with an axis for each side."""
        shape = check_copy([len(side) for side in sides], self.dtype)
        out: NDArray[Any] = np.empty(shape, self.dtype)
        self._move(_READ, sides, pointer(out, writable=True), out.strides)
        return out

    def _move(self, how: int, sides: Sides, data: Any, strides: Sequence[int]) -> None:
        nbytes = self.dtype.itemsize
        for side in sides:
            nbytes *= len(side)
        if not nbytes:
            return
        if nbytes > _MANY:
            longest = max(map(len, sides), default=1)
            if longest > _MANY or (nbytes > _PIECE and longest > 1):
                self._move_parts(how, sides, data, strides, nbytes)
                return
        idle = self._idle
        try:
            cell = idle.pop()
        except IndexError:
            cell = self._make_cell()
        axes, words = cell
        at = _STRIDE
        kept: list[Any] = []
        for side, stride in zip(sides, strides, strict=False):
            if type(side) is range:
                # Of one item the step is no matter, and may be any number.
                step = side.step if len(side) > 1 else 1
                words[at : at + 5] = stride, len(side), side.start, step, 0
            else:
                places = ffi.from_buffer("int64_t[]", side)
                kept.append(places)
                words[at : at + 5] = stride, len(side), 0, 1, int(ffi.cast("intptr_t", places))
            at += _WORDS
        ndim, itemsize = len(sides), self.dtype.itemsize
        self._buffer._move_box(how, self._offset, axes, ndim, itemsize, data, nbytes)
        idle.append(cell)

    def _move_parts(
        self, how: int, sides: Sides, data: Any, strides: Sequence[int], nbytes: int
    ) -> None:
        """Move a large selection in parts, whole tiles where they are not too large."""
        axis = next(
            (k for k, side in enumerate(sides) if len(side) > _MANY),
            next(k for k, side in enumerate(sides) if len(side) > 1),
        )
        count, tile = len(sides[axis]), self._axes[axis][0]
        step = min(max(_PIECE * count // nbytes, 1), _MANY)
        step = step // tile * tile or step
        for i in range(0, count, step):
            part = [*sides[:axis], sides[axis][i : i + step], *sides[axis + 1 :]]
            self._move(how, part, data + i * strides[axis], strides)
