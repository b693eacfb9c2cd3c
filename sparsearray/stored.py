"""What every array of ours is, however its items lie: a container, a file, something to look at."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ._boxes import reader, stand_in
from ._closing import Closing
from ._conversions import Conversions
from ._selection import Selected, Selection, has_field, is_basic, positions, with_ellipsis
from ._zero import is_zero_bytes
from .protocol import NumpyFunctions

if TYPE_CHECKING:
    from os import PathLike

    from .array import SparseArray
    from .buffer import SparseBuffer
    from .errors import AccessError

__all__ = ["StoredArray"]


class Flags(NamedTuple):
    """The two of numpy's flags that an array with holes has; they cannot be set."""

    writeable: bool
    owndata: bool


class StoredArray(NumpyFunctions, Conversions, Closing):
    """
    What every array of ours is, however its items lie.

    A layout adds how its items are found and set, its `extents` and its ``blocks()``. Functions of
    whole arrays know nothing else.
    """

    __slots__ = ("__weakref__",)

    @property
    def shape(self) -> tuple[int, ...]:
        """Items along each axis."""
        raise NotImplementedError

    @property
    def dtype(self) -> np.dtype:
        """The type of an item."""
        raise NotImplementedError

    @property
    def maxshape(self) -> tuple[int, ...]:
        """How large `resize` can make it."""
        raise NotImplementedError

    @property
    def _store(self) -> SparseArray:
        """What all of it lies in: itself, or the array of its tiles."""
        raise NotImplementedError

    def blocks(
        self, *, max_nbytes: int | None = None
    ) -> Iterator[tuple[tuple[slice, ...], NDArray[Any]]]:
        """Go through what is populated, box by box."""
        raise NotImplementedError

    def copy(self) -> Self:
        """Copy what is stored into an array of its own, in memory."""
        raise NotImplementedError

    def __getitem__(self, key: Any) -> Any:
        """Take part of the array by numpy's rules."""
        raise NotImplementedError

    def _overlaps(self, other: Any) -> bool:
        """Tell whether it may hold some of the bytes of another array, in memory or in a file."""
        raise NotImplementedError

    def _stored_boxes(self) -> Iterator[tuple[slice, ...]]:
        """Go through the boxes of `blocks` without reading them."""
        raise NotImplementedError

    def _write_sides(
        self, sides: Any, items: NDArray[Any], strides: list[int], *, filled: bool = False
    ) -> None:
        """Write items where each axis selects by itself; `filled`: what is zero is zero already."""
        raise NotImplementedError

    def _clear_sides(self, sides: Any) -> None:
        """Set to zero what each axis selects by itself, and give back what that took."""
        raise NotImplementedError

    # What it is

    @property
    def buffer(self) -> SparseBuffer:
        """The buffer that it lies in."""
        return self._store._buffer

    @property
    def offset(self) -> int:
        """Of its first item, or tile, in bytes from the start of the buffer."""
        return self._store._offset

    @property
    def path(self) -> str | None:
        """The file behind it, or None."""
        return self._store._storage.path

    @property
    def mode(self) -> str | None:
        """How the file was opened: ``'r'``, ``'r+'``, ``'w+'`` or ``'c'``; None for memory."""
        return self._store._storage.mode

    @property
    def _lies_in(self) -> str:
        """What it lies in, in words, where that has no path."""
        return self._store._storage.what

    @property
    def closed(self) -> bool:
        """Whether the buffer was closed."""
        return self._store._buffer.closed

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of items."""
        return prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of an item."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all items, stored or not."""
        return self.size * self.itemsize

    @property
    def flags(self) -> Flags:
        """
        What other libraries ask of `numpy.ndarray.flags`: whether it can be set, and is no view.

        Examples
        --------
        >>> import sparsearray
        >>> sparsearray.zeros(3).flags
        Flags(writeable=True, owndata=True)
        """
        return Flags(self.mode != "r", owndata=True)

    def extents(self) -> NDArray[np.int64]:
        """
        Find the parts that may hold something other than zero.

        Returns
        -------
        ndarray of int64, shape (n, 2)
            Start and stop in bytes from the first item, or tile, sorted and disjoint; whole pages
            but for the ends of the array. Tiles in memory are packed there, and told of by where
            they would be if all were stored.

        Raises
        ------
        ClosedError, AccessError, OSError
            As `SparseBuffer.extents`.
        """
        return self._store._held()

    @property
    def nbytes_stored(self) -> int:
        """Bytes in all `extents`: what the array costs, in memory or on disk."""
        found = self.extents()
        return int((found[:, 1] - found[:, 0]).sum())

    def _check_writable(self) -> None:
        if self.mode == "r":
            what = self._lies_in if self.path is None else repr(self.path)
            msg = f"assignment destination is read-only: {what} was opened with mode 'r'"
            raise ValueError(msg)

    def _check_resize(self, shape: tuple[int, ...]) -> None:
        """Raise ValueError for what cannot become the shape."""
        self._check_writable()
        if not self._store._owner:
            msg = "resize: the array shows part of a buffer that is not its own"
            raise ValueError(msg)
        if len(shape) != self.ndim or not shape or shape[1:] != self.shape[1:]:
            msg = f"resize to {shape}: only the first axis of shape {self.shape} can change"
            raise ValueError(msg)
        if shape[0] > self.maxshape[0]:
            msg = f"resize to {shape}: maxshape is {self.maxshape}; zeros and open take one"
            raise ValueError(msg)

    # Setting it

    def _take_over(self, wanted: Selected, value: StoredArray) -> None:
        """Set a box to what another array holds, and to zero where that has holes."""
        if self._overlaps(value):
            value = value.__copy__()  # with its holes, whatever its `copy` gives
        other = reader(value, wanted.shape)
        # First where this array holds something, for what was there must not stay.
        for box in self._stored_boxes():
            met = [positions(side, along) for side, along in zip(wanted.sides, box, strict=True)]
            if any(one.start >= one.stop for one in met):
                continue
            inside = [slice(0, n) for n in wanted.shape]
            for one, k in zip(met, wanted.axes, strict=True):
                if k is not None:
                    inside[k] = one
            found, part = other(tuple(inside)), wanted.part(tuple(inside))
            if is_zero_bytes(found):
                self._clear_sides(part)
            else:
                self._write_block(part, wanted, found)
        for box, block in value.blocks():
            self._write_block(wanted.part(box), wanted, block, filled=True)

    def _write_block(
        self, sides: Any, wanted: Selected, block: NDArray[Any], *, filled: bool = False
    ) -> None:
        items = block.astype(self.dtype, copy=False)
        self._write_sides(sides, items, wanted.strides(items), filled=filled)

    def _write_filled(self, box: tuple[slice, ...], block: NDArray[Any]) -> None:
        """Write what is not zero of a box into an array of zeros."""
        sides = [range(side.start, side.stop) for side in box]
        wanted = Selected(sides, block.shape, list(range(block.ndim)))
        self._write_block(sides, wanted, block, filled=True)

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
        view = stand_in(self)[with_ellipsis(index)]  # raises numpy's errors
        del view
        self._clear_sides(Selection(index, self.shape).sides)

    # A container

    def __len__(self) -> int:
        if not self.shape:
            msg = "len() of unsized object"
            raise TypeError(msg)
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        if not self.shape:
            msg = "iteration over a 0-d array"
            raise TypeError(msg)
        return (self[i] for i in range(self.shape[0]))

    def __contains__(self, item: object) -> bool:
        if self.dtype.names is None and np.ndim(item):  # type: ignore[arg-type]
            return bool(np.any(self == item))
        if any(np.any(block == item) for _, block in self.blocks()):
            return True
        holes = sum(block.size for _, block in self.blocks()) < self.size
        return holes and bool(np.zeros((), self.dtype) == item)

    def _single(self) -> NDArray[Any]:
        """Return the one item, or an array of as many as there are: numpy has its say on both."""
        return np.asarray(self[...]) if self.size == 1 else stand_in(self)

    def __bool__(self) -> bool:
        return bool(self._single())

    def __int__(self) -> int:
        return int(self._single())

    def __float__(self) -> float:
        return float(self._single())

    def __complex__(self) -> complex:
        return complex(self._single())

    def __index__(self) -> int:
        return self._single().__index__()

    def item(self, *args: Any) -> Any:
        """
        Take one item as a Python object, as `numpy.ndarray.item`.

        Raises
        ------
        ValueError, IndexError
            There is more than one, or none there.
        """
        if not args:
            return self._single().item()
        stand_in(self).item(*args)  # raises numpy's errors
        key = args[0] if len(args) == 1 else args
        if not isinstance(key, tuple):
            number = int(key)
            key = np.unravel_index(number + self.size if number < 0 else number, self.shape)
        return self[tuple(map(int, key))].item()

    def __copy__(self) -> Self:
        return self.copy()

    def __deepcopy__(self, _memo: object) -> Self:
        return self.__copy__()

    # Elsewhere

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """
        Hand all of it to another library: as a window, of a TiledArray as a copy.

        `numpy.from_dlpack`, `torch.from_dlpack` and their like call it. What they make of a window
        is a window: it holds the memory where it is.

        Parameters
        ----------
        stream, max_version : optional
            As of `numpy.ndarray`, which knows what to say to them.
        dl_device : (int, int), optional
            Where the other library wants it: in main memory.
        copy : bool, optional
            Always, never, or where it has to be.

        Raises
        ------
        BufferError
            It would have to be copied, and `copy` is False; DLPack knows no such items (records,
            text, dates, those of another byte order); or it cannot be written to, and the other
            library knows no such arrays; or it is wanted on another device.
        MemoryError
            The copy would not fit.
        ClosedError, AccessError
            As `SparseBuffer.window`.

        References
        ----------
        https://data-apis.org/array-api/latest/API_specification/generated/array_api.array.__dlpack__.html
        """
        if dl_device not in (None, self.__dlpack_device__()):
            msg = f"an array in main memory is not on DLPack's device {dl_device}"
            raise BufferError(msg)
        try:
            dense = np.asarray(self, copy=copy)
        except ValueError as error:
            if copy is not False:
                raise
            raise BufferError(str(error)) from None
        asked = {"stream": stream, "max_version": max_version}
        if np.lib.NumpyVersion(np.__version__) < "2.1.0":
            del asked["max_version"]  # of DLPack it knows none but the first
        return dense.__dlpack__(**{k: v for k, v in asked.items() if v is not None})

    def __dlpack_device__(self) -> tuple[int, int]:
        """Tell where it lies, in DLPack's numbers: in main memory."""
        kind, number = np.empty(0).__dlpack_device__()
        return int(kind), int(number)

    def retile(self, tiles: Any, *, progress: bool = False) -> Any:
        """
        Copy what is stored into an array of another layout, in memory; holes stay holes.

        Parameters
        ----------
        tiles : int, tuple of ints, 'auto' or None
            As of `zeros`. None is C order.
        progress : bool
            Show a progress bar (needs tqdm).

        Returns
        -------
        TiledArray or SparseArray

        Raises
        ------
        ValueError
            `tiles` do not fit.
        ClosedError, AccessError, OSError
            As `extents`.

        Examples
        --------
        >>> import sparsearray
        >>> a = sparsearray.zeros((1 << 20, 1 << 17))
        >>> a[5:15, 7] = 1
        >>> a, a.retile("auto")  # doctest: +NORMALIZE_WHITESPACE
        (<SparseArray (1048576, 131072) float64, 40 KiB stored of 1 TiB>,
         <TiledArray (1048576, 131072) float64 in tiles of (16, 32), 4 KiB stored of 1 TiB>)
        """
        from .retile import retile

        return retile(self, tiles, progress=progress)

    def save(
        self, path: str | PathLike[str], *, parts: int | None = None, progress: bool = False
    ) -> list[str] | None:
        """Write it as a .npy file with holes, or several: see `sparsearray.save`."""
        from .files import save

        if parts is None:
            return save(path, self, progress=progress)
        return save(path, self, parts=parts, progress=progress)

    def refresh(self) -> int:
        """
        Look again for data in holes of the file that were skipped when it was opened.

        In modes ``'r'`` and ``'c'`` what others write into holes of a SparseArray is not seen
        before that; of tiles it is seen at once.

        Returns
        -------
        int
            Bytes of new data, in whole pages.

        Raises
        ------
        ClosedError, OSError
            As `SparseBuffer.refresh`.
        """
        return self._store._buffer.refresh()

    def flush(self) -> None:
        """
        Write what was changed to the file, and wait for the disk.

        Raises
        ------
        OSError
            The disk says that it failed, or is full; `SparseBuffer.flush`.
        """
        self._store._buffer.flush()

    def save_to(self, path: str | PathLike[str]) -> None:
        """
        Write what memory holds as a .npy file, even where the array's own file is lost.

        For a full disk, and for a flush that failed: `SparseBuffer.save_to`.

        Parameters
        ----------
        path : path
            An old file is replaced when all of the new one is on disk.

        Raises
        ------
        AccessError, OSError, ClosedError
            As `SparseBuffer.save_to`.
        """
        from .files import save_held

        save_held(path, self._store)

    def close(self) -> None:
        """
        Give memory and file back. More than once is fine.

        Raises
        ------
        BufferError
            Windows are alive: how many, and where. Of a SparseArray ``a[...]`` and ``a[0]`` are
            windows, of a TiledArray those of `tile`: copy what is to stay (``a[0].copy()``). A
            notebook's ``Out`` keeps those that it has shown.
        AccessError
            The disk is full: `SparseBuffer.close`.
        """
        store = self._store
        if store._owner:
            store._buffer.close()
            store._storage.close()

    def _settle(self) -> AccessError | None:
        store = self._store
        return store._buffer._settle() if store._owner else None

    def __reduce__(self) -> tuple[Any, ...]:
        from .parcel import pack

        return pack(self)

    def __repr__(self) -> str:
        from .array_display import array_repr

        if self.closed:
            return f"<{type(self).__name__} {self.shape} {self.dtype}, closed>"
        return array_repr(self, type(self).__name__)

    def _repr_html_(self) -> str:
        from .array_display import array_html

        return array_html(self)

    def plot(self, ax: Any = None) -> Any:
        """
        Draw with matplotlib the map that notebooks show: where something is stored.

        Of more than two axes the first two are drawn, and a cell is marked if anything behind it is
        stored. An array without axes or items has no map, but a line of text.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default in a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            The x and y axes are in items.

        Raises
        ------
        ImportError
            matplotlib is not installed.
        ClosedError
            The array is closed.
        AccessError
            Its file was cut short.
        """
        from .array_plot import plot_array

        return plot_array(self, ax)
