"""The items of an array in a buffer: indexing by numpy's rules, and giving back what is zero."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from ._layout import filling, make_ghost
from ._mover import Mover
from ._progress import progress_bar
from ._quota import Quota, spans_of_items
from ._rows import keeps_holes
from ._selection import (
    Selected,
    Selection,
    as_arrays,
    contiguous_run,
    has_field,
    is_basic,
    is_scalar,
    runs_of,
    spans_of,
    upwards,
    with_ellipsis,
)
from ._storage import Memory, Storage
from ._zero import is_zero
from .blocks import Blocks, item_ranges, items_in
from .buffer import SparseBuffer
from .stored import StoredArray

__all__ = ["Items"]

_HUGE = 4 << 20  # bytes that may lie in huge pages
_ROOM = 16 << 20  # bytes that the disk is asked for at once
_LONG_RUN = 16  # pages of a contiguous run that are cleared as one
_TRIM_NBYTES = 4 << 20  # looked at in one piece


class Items(StoredArray):
    """What a `SparseArray` is by its items: where they lie, how they are found and set."""

    __slots__ = (
        "_buffer",
        "_dtype",
        "_ghost",
        "_offset",
        "_order",
        "_owner",
        "_quota",
        "_shape",
        "_storage",
    )

    _buffer: SparseBuffer
    _dtype: np.dtype
    _ghost: NDArray[Any]
    _offset: int
    _order: Literal["C", "F"]
    _owner: bool
    _quota: Quota | None
    _shape: tuple[int, ...]
    _storage: Storage

    def _set_shape(self, shape: tuple[int, ...], dtype: np.dtype | None = None) -> None:
        address = self._buffer.address + self._offset
        found = self._dtype if dtype is None else dtype
        ghost = make_ghost(shape, found, self._order, address)
        # The shape last: an interrupt finds the old one, and all is undone.
        self._dtype = found
        self._ghost = ghost
        self._shape = shape

    @property
    def shape(self) -> tuple[int, ...]:
        """Items along each axis."""
        return self._shape

    @property
    def dtype(self) -> np.dtype:
        """The type of an item."""
        return self._dtype

    @property
    def _store(self) -> Any:
        return self

    @property
    def order(self) -> Literal["C", "F"]:
        """Which axis is contiguous: the last (``'C'``) or the first (``'F'``, of some files)."""
        return self._order

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
            zero. They may hold zeros too. While the array has a `snapshot`, which would have to
            keep all that they show, they are read-only.

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
        kept = not self._is_own_memory() and self._buffer._has_snapshots()
        return self._blocks(most, writable=False if kept else None)

    def _blocks(
        self, most: int | None = None, *, writable: bool | None = None
    ) -> Iterator[tuple[tuple[slice, ...], NDArray[Any]]]:
        """Go through what is populated, with windows that may write, as far as the array does."""
        if not self.nbytes:
            return iter(())
        return Blocks(
            self._buffer,
            self._offset,
            self._shape,
            self._dtype,
            self._order,
            items_in(None, self.itemsize) if most is None else most,
            in_files=not self._is_own_memory(),
            writable=writable,
        )

    def _held(self) -> NDArray[np.int64]:
        """Find the parts that may hold something, as `extents` does."""
        return self._buffer.extents(self._offset, self.nbytes) - self._offset

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
            window = self._window(writable=False)
            found = window[as_arrays(key, self._shape, StoredArray)]
            self._tell_loss()
            return found
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
        self._set(key, value)
        if self.mode == "c" or not is_basic(key):  # else its pages were made sure of
            self._tell_loss()
        if isinstance(value, Items):
            value._tell_loss()

    def _set(self, key: Any, value: Any) -> None:
        if not is_basic(key):
            window, parts = self._window(), as_arrays(key, self._shape, StoredArray)
            if self._quota is not None and self.nbytes:
                spans = spans_of_items(parts, self._shape, window.strides, self.itemsize)
                self._quota.take(self, [spans] if len(spans) else [])
            window[parts] = self._apart_from(value)
            return
        view = self._ghost[with_ellipsis(key)]
        if view.ndim == 0 and is_scalar(key):
            value = self._apart_from(value)
            # As one item of an array, which takes what a 0-d array does not: (1, 2) for a record.
            item = self._window_of(view[(*(np.newaxis,) * self.ndim, Ellipsis)])
            self._make_room(item)
            item[(0,) * self.ndim] = value
        elif (
            isinstance(value, Items)
            and value.shape == view.shape
            and keeps_holes(value.dtype, view.dtype)
        ):
            self._assign(key, view, value)
        elif (
            isinstance(value, StoredArray)
            and not has_field(key)
            and value.shape == view.shape
            and keeps_holes(value.dtype, view.dtype)
        ):
            selection = Selection(key, self._shape)
            self._take_over(Selected(selection.sides, value.shape, selection.axes), value)
        elif is_zero(value, view.dtype) and view.nbytes > self._buffer.page_size:
            self._clear_selection(key, view)
        else:
            self._fill(self._window_of(view), self._apart_from(value))

    def _assign(self, key: Any, view: NDArray[Any], value: Items) -> None:
        """Put in what another array holds, and then zeros where it has holes."""
        held = item_ranges(value.extents(), value.itemsize)
        blocks: Any = value.blocks()
        if self._overlaps(value):
            blocks = [(index, block.copy()) for index, block in blocks]
        window = self._window_of(view)
        for index, block in blocks:
            self._fill(window[(*index, Ellipsis)], block)
        if has_field(key):
            for index, block in self._blocks():
                part = block[key]
                part[~_in_ranges(value._numbers(index), held)] = np.zeros((), part.dtype)
        elif view.flags.c_contiguous and value._order == "C":
            place = self._place(view) if view.nbytes else 0
            self._clear_gaps(place, view.nbytes, held * view.itemsize + place)
        else:
            selection = Selection(key, self._shape)
            for index, block in self._blocks():
                chosen = selection.within(index)
                if chosen is not None:
                    numbers = selection.numbers(index, chosen, value._order)
                    part = block[cast("Any", (*chosen, Ellipsis))]
                    part[~_in_ranges(numbers, held)] = np.zeros((), self._dtype)

    def _stored_boxes(self) -> Iterator[tuple[slice, ...]]:
        return (index for index, _ in self.blocks())

    def _write_sides(
        self, sides: Any, items: NDArray[Any], strides: list[int], *, filled: bool = False
    ) -> None:
        if not items.nbytes:
            return
        if self._quota is not None:
            view = self._ghost[_slices_of(sides)]
            self._quota.take(self, spans_of(view, self._place(view) - self._offset, 1))
        self._mover().write(sides, items, strides, filled=filled)

    def _mover(self) -> Mover:
        """Make what moves boxes of items, in pieces of a page: what is zero can be left out."""
        many = max(self._buffer.page_size // self.itemsize, 1)
        axes = [(1, step, 0) for step in self._ghost.strides]
        if axes:
            axes[-1 if self._order == "C" else 0] = (many, many * self.itemsize, self.itemsize)
        return Mover(self._buffer, self._offset, self._dtype, axes)

    def _clear_sides(self, sides: Any) -> None:
        key = _slices_of(sides)
        self._clear_selection(key, self._ghost[cast("Any", (*key, Ellipsis))])

    def _clear_gaps(self, place: int, nbytes: int, held: NDArray[np.int64]) -> None:
        """Clear what is stored in a range of bytes outside of some ranges."""
        starts = np.concatenate([[place], held[:, 1]])
        stops = np.concatenate([held[:, 0], [place + nbytes]])
        stored = self._buffer.extents(place, nbytes)
        nearest = np.searchsorted(stored[:, 1], starts, "right")
        found = np.append(stored[:, 0], place + nbytes)[nearest] < stops
        for start, stop in np.stack([starts, stops], axis=1)[found].tolist():
            self._buffer._clear(start, stop - start)

    def _numbers(self, index: tuple[slice, ...]) -> NDArray[np.int64]:
        """Number the items of a box, in the order of memory; it may leave the last axes out."""
        box = (*index, *(slice(0, n) for n in self._shape[len(index) :]))
        inside = tuple(slice(0, side.stop - side.start) for side in box)
        return Selection(Ellipsis, self._shape).numbers(box, inside, self._order)

    def _apart_from(self, value: Any) -> Any:
        """Make an array of a value, one that does not change when this array does."""
        if not isinstance(value, Items):
            return value[...] if isinstance(value, StoredArray) else value
        window = value._window(writable=False)
        return window.copy() if self._overlaps(value) else window

    def _overlaps(self, other: Any) -> bool:
        """Tell whether it may hold some of the bytes of another array, in memory or in a file."""
        if isinstance(other, StoredArray) and not isinstance(other, Items):
            return other._overlaps(self)
        if not isinstance(other, Items):
            return isinstance(other, np.ndarray) and np.may_share_memory(self._ghost, other)
        if self._is_own_memory() or other._is_own_memory():
            return np.may_share_memory(self._ghost, other._ghost)
        files = self._storage.identity, other._storage.identity
        return None in files or files[0] == files[1]

    def _fill(self, window: NDArray[Any], value: Any) -> None:
        """Write into a window of this array."""
        if not self._is_own_memory():
            self._fill_file(window, value)
        elif window.nbytes < _HUGE or not window.flags.c_contiguous:
            self._make_room(window)
            window[...] = value
        else:
            self._make_room(window)
            place = self._place(window)
            with filling(self._buffer, np.array([[place, place + window.nbytes]])):
                window[...] = value

    def _fill_file(self, window: NDArray[Any], value: Any) -> None:
        """Write, as far as there is room for it: a full disk is an exception."""
        if window.nbytes <= _ROOM or not window.ndim:
            self._make_room(window)
            window[...] = value
            return
        source = (
            np.asarray(value) if isinstance(value, np.ndarray) else np.array(value, window.dtype)
        )
        while source.ndim > window.ndim and source.shape[0] == 1:
            source = source[0]
        if np.may_share_memory(window, source):
            source = source.copy()
        source = np.broadcast_to(source, window.shape)
        step = max(_ROOM * len(window) // window.nbytes, 1)
        for i in range(0, len(window), step):
            part = slice(i, i + step) if step > 1 or window.ndim == 1 else i
            self._fill_file(window[part], source[part])

    def _make_room(self, window: NDArray[Any]) -> None:
        """See to it that what is written to a window has room, on the disk or within the limit."""
        if not window.nbytes:
            return
        page = self._buffer.page_size
        if not self._is_own_memory():
            for spans in spans_of(window, self._place(window), page):
                self._buffer._make_room(spans)
        elif self._quota is not None:
            self._quota.take(self, spans_of(window, self._place(window) - self._offset, page))

    def _tell_loss(self) -> None:
        """Raise AccessError if a file was lost under a window: what numpy does is not guarded."""
        if not self._is_own_memory():
            self._buffer._raise_untold()

    def _box_writer(self) -> tuple[Callable[[Any], NDArray[Any]], Callable[[Any, Any], None]]:
        """Return what gives a writable window of a box, and what does nothing more to it."""
        self._check_writable()
        window = self._window()

        def make(index: Any) -> NDArray[Any]:
            block = window[(*index, Ellipsis)]
            self._make_room(block)
            return block

        return make, lambda _index, _block: None

    def _box_reader(self) -> Callable[[Any], NDArray[Any]]:
        """Return what gives the items of a box."""
        window = self._window(writable=False)
        if self._is_own_memory():
            return lambda index: window[(*index, Ellipsis)]

        def read(index: Any) -> NDArray[Any]:
            block = window[(*index, Ellipsis)]
            if block.nbytes:
                for place, nbytes in runs_of(block, self._place(block)):
                    self._buffer._fetch(place, nbytes)
            return block

        return read

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

    def _clear_selection(self, key: Any, view: NDArray[Any]) -> None:
        """Set what a basic index selects to zero, and give back the pages that lie in it whole."""
        if not view.nbytes:
            return
        if has_field(key):
            for _, block in self._blocks():
                block[key] = np.zeros((), block[key].dtype)
            return
        run, outer = contiguous_run(view)
        if not outer or run >= _LONG_RUN * self._buffer.page_size:
            self._clear_runs(view)
            return
        selection = Selection(key, self._shape)
        page, size = self._buffer.page_size, self.itemsize
        clear = self._mover().clear if page % size or self._offset % size else None
        for index, block in self._blocks():
            part = selection.within(index)
            if part is None:
                continue
            chosen = block[part]
            if contiguous_run(chosen)[0] >= page:
                self._clear_runs(chosen)
            elif clear is None:
                chosen[...] = np.zeros((), self._dtype)
            else:  # by its bytes: of an item on two pages one may be a hole
                sides = zip(index, part, strict=True)
                clear([range(side.start, side.stop)[inside] for side, inside in sides])

    def _clear_runs(self, view: NDArray[Any]) -> None:
        for place, nbytes in runs_of(view, self._place(view)):
            self._buffer._clear(place, nbytes)

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
        looked at can be lost. Of a copy-on-write array, zeros that hide data of the file stay.
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
        if not self._is_own_memory():  # a file's last page may reach past its end: that one stays
            found = np.minimum(found, end // page * page)
            found = found[found[:, 0] < found[:, 1]]
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


def _slices_of(sides: Any) -> tuple[slice, ...]:
    """Make slices that select the same as ranges do, going up."""
    up = map(upwards, sides)
    return tuple(slice(side.start, side.stop, side.step) for side in up)


def _in_ranges(numbers: NDArray[np.int64], ranges: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which numbers lie in sorted, disjoint ranges."""
    found = np.searchsorted(ranges[:, 0], numbers, "right")
    inside: NDArray[np.bool_] = numbers < np.append(0, ranges[:, 1])[found]
    return inside


def _zero_pages(piece: NDArray[np.uint8], page: int) -> list[list[int]]:
    """Find the runs of pages that hold zeros only."""
    filled = piece.view("u8").reshape(-1, page // 8).any(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate([[True], filled, [True]]).astype(np.int8)))
    found: list[list[int]] = (edges.reshape(-1, 2) * page).tolist()
    return found
