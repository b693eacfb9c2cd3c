"""The items of an array in a buffer: indexing by numpy's rules, and giving back what is zero."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ._layout import filling, make_ghost
from ._progress import progress_bar
from ._rows import keeps_holes
from ._selection import (
    contiguous_run,
    has_field,
    is_basic,
    is_scalar,
    select,
    with_ellipsis,
    within,
)
from ._storage import Memory, Storage
from .blocks import Blocks, item_ranges, items_in
from .buffer import SparseBuffer
from .protocol import NumpyFunctions

__all__ = ["Items"]

_HUGE = 4 << 20  # bytes that may lie in huge pages
_LONG_RUN = 16  # pages of a contiguous run that are cleared as one
_TRIM_NBYTES = 4 << 20  # looked at in one piece


class Items(NumpyFunctions):
    """What a `SparseArray` is by its items: where they lie, how they are found and set."""

    __slots__ = ("_buffer", "_dtype", "_ghost", "_offset", "_order", "_owner", "_shape", "_storage")

    _buffer: SparseBuffer
    _dtype: np.dtype
    _ghost: NDArray[Any]
    _offset: int
    _order: Literal["C", "F"]
    _owner: bool
    _shape: tuple[int, ...]
    _storage: Storage

    def _set_shape(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        address = self._buffer.address + self._offset
        self._ghost = make_ghost(shape, self._dtype, self._order, address)

    @property
    def shape(self) -> tuple[int, ...]:
        """Items along each axis."""
        return self._shape

    @property
    def dtype(self) -> np.dtype:
        """The type of an item."""
        return self._dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self._shape)

    @property
    def size(self) -> int:
        """Number of items."""
        return prod(self._shape)

    @property
    def itemsize(self) -> int:
        """Bytes of an item."""
        return self._dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all items, stored or not."""
        return self.size * self.itemsize

    @property
    def buffer(self) -> SparseBuffer:
        """The buffer that the items lie in."""
        return self._buffer

    @property
    def offset(self) -> int:
        """Of the first item, in bytes from the start of the buffer."""
        return self._offset

    @property
    def order(self) -> Literal["C", "F"]:
        """Which axis is contiguous: the last (``'C'``) or the first (``'F'``, of some files)."""
        return self._order

    @property
    def path(self) -> str | None:
        """The file behind it, or None."""
        return self._storage.path

    @property
    def mode(self) -> str | None:
        """How the file was opened: ``'r'``, ``'r+'``, ``'w+'`` or ``'c'``; None for memory."""
        return self._storage.mode

    def extents(self) -> NDArray[np.int64]:
        """
        Find the parts that may hold something other than zero.

        Returns
        -------
        ndarray of int64, shape (n, 2)
            Start and stop in bytes from the first item, sorted and disjoint; whole pages but for
            the ends of the array.

        Raises
        ------
        ClosedError, AccessError, OSError
            As `SparseBuffer.extents`.
        """
        return self._buffer.extents(self._offset, self.nbytes) - self._offset

    def blocks(
        self, *, max_nbytes: int | None = None
    ) -> Iterator[tuple[tuple[slice, ...], NDArray[Any]]]:
        """
        Go through what is populated, box by box.

        All functions that skip holes stand on this, and your own can as well.

        Parameters
        ----------
        max_nbytes : int, optional
            Of a box, at most, in bytes; 16 MiB by default.

        Returns
        -------
        iterator of (index, ndarray)
            ``index`` is a slice for each axis, and the array the window ``a[index]``. Boxes are
            disjoint, in the order of memory, and cover every extent: what is in none of them is
            zero. They may hold zeros too.

        Raises
        ------
        ClosedError, AccessError, OSError
            As `extents`; also from a step, for a file that fails or becomes shorter meanwhile.
        ValueError
            `max_nbytes` is less than an item.

        Examples
        --------
        >>> import sparsearray
        >>> a = sparsearray.zeros((1 << 20, 1 << 17))
        >>> a[1000, 2000] = 1
        >>> for index, block in a.blocks():
        ...     print(index, block.shape, block.sum())
        (slice(1000, 1001, None), slice(1536, 2048, None)) (1, 512) 1.0
        """
        most = items_in(max_nbytes, self.itemsize)
        if not self.nbytes:
            return iter(())
        return Blocks(
            self._buffer,
            self._offset,
            self._shape,
            self._dtype,
            self._order,
            most,
            in_files=not self._is_own_memory(),
        )

    # Windows and items

    def _window(self, *, writable: bool | None = None) -> NDArray[Any]:
        """Make a window of the whole array."""
        return self._buffer.window(
            self._offset, self._shape, self._dtype, writable=writable, order=self._order
        )

    def _window_of(self, view: NDArray[Any], *, writable: bool | None = None) -> NDArray[Any]:
        """Make the window where a view of the ghost says that it would lie."""
        if view.size == 0 or self.itemsize == 0:
            return self._buffer.window(0, view.shape, view.dtype, writable=writable)
        return self._buffer.window(
            self._place(view), view.shape, view.dtype, writable=writable, strides=view.strides
        )

    def _place(self, view: NDArray[Any]) -> int:
        address: int = view.__array_interface__["data"][0]
        return address - self._buffer.address

    def _bytes(self) -> NDArray[np.uint8]:
        return self._buffer.window(self._offset, self.nbytes)

    def __getitem__(self, key: Any) -> Any:
        """
        Take part of the array by numpy's rules.

        Returns
        -------
        ndarray or scalar
            A window for a basic index (integers, slices, newaxis, ellipsis, a field's name); a
            scalar for a single item; a copy for arrays of integers or booleans.
        """
        if not is_basic(key):
            return self._window()[_as_arrays(key)]
        view = self._ghost[with_ellipsis(key)]
        if view.ndim or not is_scalar(key):
            return self._window_of(view)
        if self._dtype.names is not None or not self.itemsize:
            return self._window_of(view)[()]
        return self._buffer.read_plain(self._place(view), self._dtype)

    def __setitem__(self, key: Any, value: Any) -> None:
        """
        Set part of the array by numpy's rules.

        Zero, and a SparseArray of the same shape, leave holes where they have them.
        """
        self._check_writable()
        if not is_basic(key):
            window = self._window()
            window[_as_arrays(key)] = value[...] if isinstance(value, Items) else value
            return
        view = self._ghost[with_ellipsis(key)]
        if view.ndim == 0 and is_scalar(key):
            # As one item of an array, which takes what a 0-d array does not: (1, 2) for a record.
            item = self._window_of(view[(*(np.newaxis,) * self.ndim, Ellipsis)])
            item[(0,) * self.ndim] = value
        elif (
            isinstance(value, Items)
            and value.shape == view.shape
            and keeps_holes(value.dtype, view.dtype)
        ):
            self._assign(key, view, value)
        elif _is_zero(value, view.dtype) and view.nbytes > self._buffer.page_size:
            self._clear_selection(key, view)
        else:
            self._fill(self._window_of(view), value)

    def _assign(self, key: Any, view: NDArray[Any], value: Items) -> None:
        blocks: Any = value.blocks()
        if np.may_share_memory(view, value._ghost):
            blocks = [(index, block.copy()) for index, block in blocks]
        self._clear_selection(key, view)
        window = self._window_of(view)
        for index, block in blocks:
            self._fill(window[index], block)

    def _fill(self, window: NDArray[Any], value: Any) -> None:
        """Write into a window of this array."""
        if window.nbytes < _HUGE or not window.flags.c_contiguous or not self._is_own_memory():
            window[...] = value
            return
        place = self._place(window)
        with filling(self._buffer, np.array([[place, place + window.nbytes]])):
            window[...] = value

    def _check_writable(self) -> None:
        if self.mode == "r":
            msg = f"assignment destination is read-only: {self.path!r} was opened with mode 'r'"
            raise ValueError(msg)

    def __len__(self) -> int:
        if not self._shape:
            msg = "len() of unsized object"
            raise TypeError(msg)
        return self._shape[0]

    def __iter__(self) -> Iterator[Any]:
        if not self._shape:
            msg = "iteration over a 0-d array"
            raise TypeError(msg)
        return (self[i] for i in range(self._shape[0]))

    def __contains__(self, item: object) -> bool:
        if any((block == item).any() for _, block in self.blocks()):
            return True
        holes = sum(block.size for _, block in self.blocks()) < self.size
        return holes and bool(np.zeros((), self._dtype) == item)

    def __bool__(self) -> bool:
        return bool(self._window())

    def __int__(self) -> int:
        return int(self._window())

    def __float__(self) -> float:
        return float(self._window())

    def __complex__(self) -> complex:
        return complex(self._window())

    def __index__(self) -> int:
        return self._window().__index__()

    def item(self, *args: Any) -> Any:
        """
        Take one item as a Python object, as `numpy.ndarray.item`.

        Raises
        ------
        ValueError, IndexError
            There is more than one, or none there.
        """
        return self._window().item(*args)

    def _box_writer(self) -> Callable[[Any], NDArray[Any]]:
        """Return what gives a writable view of a box."""
        self._check_writable()
        return self._window().__getitem__

    def _box_reader(self) -> Callable[[Any], NDArray[Any]]:
        """Return what gives the items of a box."""
        return self._window().__getitem__

    def _filling(self, source: Any) -> AbstractContextManager[None]:
        """Make ready to be written wherever another array of the same shape has something."""
        if not self._is_own_memory() or not self.nbytes:
            return nullcontext()
        if isinstance(source, Items) and source._order == self._order:
            ranges = item_ranges(source.extents(), source.itemsize) * self.itemsize
            return filling(self._buffer, ranges)
        return nullcontext()

    def _is_own_memory(self) -> bool:
        return self._owner and isinstance(self._storage, Memory)

    # Zeros

    def discard(self, index: Any) -> None:
        """
        Set a part to zero, and give the pages back that lie in it whole.

        Parameters
        ----------
        index : int, slice, Ellipsis, or a tuple of them
            As in ``a[index]``.

        Raises
        ------
        IndexError
            It is not a basic index, or out of bounds.
        ValueError
            The array is read-only.

        Examples
        --------
        >>> import sparsearray
        >>> a = sparsearray.zeros(1 << 37)
        >>> a[: 1 << 20] = 1
        >>> a.discard(slice(512, None))
        >>> a.sum(), a.nbytes_stored
        (np.float64(512.0), 4096)
        """
        self._check_writable()
        if not is_basic(index) or has_field(index):
            msg = f"discard takes integers, slices, an ellipsis or a tuple of them, not {index!r}"
            raise IndexError(msg)
        self._clear_selection(index, self._ghost[with_ellipsis(index)])

    def _clear_selection(self, key: Any, view: NDArray[Any]) -> None:
        """Set what a basic index selects to zero, and free pages."""
        if not view.nbytes:
            return
        if has_field(key):
            self._clear_fields(key)
            return
        run, outer = contiguous_run(view)
        page = self._buffer.page_size
        count = view.nbytes // run
        if count > 1 and run < _LONG_RUN * page:
            self._clear_selected(select(key, self._shape))
            return
        place = self._place(view)
        low = sum(min(0, (n - 1) * step) for n, step in zip(view.shape, view.strides, strict=True))
        for position in np.ndindex(*[n for n, _ in outer]):
            steps = (i * abs(step) for i, (_, step) in zip(position, outer, strict=True))
            self._buffer._clear(place + low + sum(steps), run)

    def _clear_fields(self, key: Any) -> None:
        for _, block in self.blocks():
            block[key] = np.zeros((), block[key].dtype)

    def _clear_selected(self, ranges: tuple[range, ...]) -> None:
        """Set items to zero where they are stored; then give back pages that hold zeros only."""
        for index, block in self.blocks():
            part = within(ranges, index)
            if part is not None:
                block[part] = np.zeros((), self._dtype)
        self.trim()

    def trim(self, *, progress: bool = False) -> int:
        """
        Give back pages that hold only zeros.

        Parameters
        ----------
        progress : bool
            Show a progress bar (needs tqdm).

        Returns
        -------
        int
            Bytes given back.

        Raises
        ------
        ValueError
            The array is read-only.
        AccessError
            A file became shorter, or cannot be read.
        ImportError
            `progress` without tqdm.

        Notes
        -----
        Live windows stay valid. What another thread writes into a page of zeros just while it is
        looked at can be lost.
        """
        self._check_writable()
        page = self._buffer.page_size
        end = self._offset + self.nbytes
        start = -(-self._offset // page) * page
        stop = (-(-end // page) if self._owner else end // page) * page
        if start >= stop:
            return 0
        freed = 0
        found = self._buffer.extents(start, stop - start)
        scratch = np.empty(_TRIM_NBYTES, "u1")
        total = int((found[:, 1] - found[:, 0]).sum())
        with progress_bar("trim", total, shown=progress) as done:
            for first, last in found.tolist():
                for at in range(first, last, _TRIM_NBYTES):
                    piece = scratch[: min(_TRIM_NBYTES, last - at)]
                    self._buffer.read_into(at, piece)
                    for low, high in _zero_pages(piece, page):
                        if self._buffer._give_back(at + low, high - low):
                            freed += high - low
                    done(len(piece))
        return freed


def _as_arrays(key: Any) -> Any:
    """Replace SparseArrays in an index by what numpy takes."""
    if isinstance(key, tuple):
        parts: list[Any] = []
        for part in key:
            found = _as_arrays(part)
            if isinstance(found, tuple) and isinstance(part, Items):
                parts += found
            else:
                parts.append(found)
        return tuple(parts)
    if isinstance(key, Items):
        return key.nonzero() if key.dtype == bool and key.ndim else key[...]
    return key


def _is_zero(value: Any, dtype: np.dtype) -> bool:
    """Tell whether a single value becomes zero bytes in an array."""
    if not isinstance(value, bool | int | float | complex | np.generic | np.ndarray):
        return False
    item, made = np.asarray(value), np.zeros((), dtype)
    if item.ndim or (item.dtype.kind in "biufc" and item != 0):
        return False
    try:
        made[...] = value
    except (TypeError, ValueError, OverflowError):  # numpy will say it of the window
        return False
    return not made.tobytes().strip(b"\0")


def _zero_pages(piece: NDArray[np.uint8], page: int) -> list[list[int]]:
    """Find the runs of pages that hold zeros only."""
    filled = piece.view("u8").reshape(-1, page // 8).any(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate([[True], filled, [True]]).astype(np.int8)))
    found: list[list[int]] = (edges.reshape(-1, 2) * page).tolist()
    return found
