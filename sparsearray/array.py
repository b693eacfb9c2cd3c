"""`SparseArray`: an array of any size that costs what was written to it."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ._layout import allocate, filling, layout, reserve
from ._memory import available_memory
from ._process_lock import ProcessLock
from ._quota import Quota
from ._rows import as_rows, write_rows
from ._storage import Memory, Snapshot, Storage
from ._text import size as written
from .blocks import DEFAULT_NBYTES, item_ranges
from .buffer import SparseBuffer
from .errors import AccessError
from .items import Items
from .stored import StoredArray
from .window import as_shape

if TYPE_CHECKING:
    pass

__all__ = ["SparseArray"]


_Array = TypeVar("_Array", bound="SparseArray")


class SparseArray(Items):
    """
    An array that lies in a `SparseBuffer`, in C order, and costs what was written to it.

    It is indexed as a numpy array is: a basic index (integers, slices) gives a *window*, a plain
    ndarray without a copy, on which all of numpy works. Functions of the whole array skip what
    holds nothing; those that would fill it are refused. It is no subclass of ndarray.

    `zeros` and `open` make one. Made directly, it shows what is mapped in a buffer already.

    Parameters
    ----------
    buffer : SparseBuffer
        Where the items lie. Every page of the array must be mapped.
    shape : int or tuple of ints
        As of any array.
    dtype : dtype
        Any without objects.
    offset : int
        Of the first item, in bytes from the start of the buffer.
    order : {'C', 'F'}
        Fortran order is for files that have it.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsearray
    >>> a = sparsearray.zeros((1 << 20, 1 << 17))  # a terabyte
    >>> a[1000, 2000:2004] = 1, 2, 3, 4
    >>> np.sum(a), a.max(), np.nonzero(a)[1]
    (np.float64(10.0), np.float64(4.0), array([2000, 2001, 2002, 2003]))
    >>> a
    <SparseArray (1048576, 131072) float64, 4 KiB stored of 1 TiB>

    Notes
    -----
    Memory is taken in pages of 4 KiB (on most machines), even where the system would like to use
    huge ones; those serve where megabytes are written at once. An exact zero that was written takes
    its page until `trim`.
    """

    __slots__ = ("_length", "_maxshape")

    def __init__(
        self,
        buffer: SparseBuffer,
        shape: Any,
        dtype: DTypeLike = float,
        *,
        offset: int = 0,
        order: Literal["C", "F"] = "C",
    ) -> None:
        sizes, found = layout(shape, dtype)
        buffer.window(offset, sizes, found, order=order)  # says what is wrong
        self._put(buffer, sizes, found, offset, order, sizes, Memory(), owner=False)

    @classmethod
    def _of(
        cls,
        buffer: SparseBuffer,
        shape: tuple[int, ...],
        dtype: np.dtype,
        *,
        offset: int = 0,
        order: Literal["C", "F"] = "C",
        maxshape: tuple[int, ...],
        storage: Storage,
    ) -> Self:
        """Make an array that owns its buffer."""
        made = cls.__new__(cls)
        made._put(buffer, shape, dtype, offset, order, maxshape, storage, owner=True)
        return made

    @classmethod
    def _zeros(
        cls,
        shape: tuple[int, ...],
        dtype: np.dtype,
        *,
        maxshape: tuple[int, ...] | None = None,
        quota: int | None = None,
        name: str | None = None,
    ) -> Self:
        """Make an array in memory of its own; its arguments are checked already."""
        most = shape if maxshape is None else maxshape
        buffer = reserve(max(prod(most), prod(shape)) * dtype.itemsize, name)
        made = cls._of(buffer, shape, dtype, maxshape=most, storage=Memory())
        if quota is not None:
            made._quota = Quota(quota, buffer.page_size)
        if made.nbytes:
            page = buffer.page_size
            allocate(buffer, 0, -(-made.nbytes // page) * page)
        return made

    def _put(
        self,
        buffer: SparseBuffer,
        shape: tuple[int, ...],
        dtype: np.dtype,
        offset: int,
        order: Literal["C", "F"],
        maxshape: tuple[int, ...],
        storage: Storage,
        *,
        owner: bool,
    ) -> None:
        self._buffer = buffer
        self._quota = None
        self._dtype = dtype
        self._offset = offset
        self._order = order
        self._maxshape = maxshape
        self._length = ProcessLock()  # held while it changes
        self._storage = storage
        self._owner = owner
        self._set_shape(shape)

    # What it is

    @property
    def maxshape(self) -> tuple[int, ...]:
        """How large `resize` can make it."""
        return self._maxshape

    # numpy

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        window = self._window()
        wanted = self._dtype if dtype is None else np.dtype(dtype)
        if wanted == self._dtype and not copy:
            return window
        if copy is False:
            msg = f"an array of {wanted} cannot be made from {self._dtype} without a copy"
            raise ValueError(msg)
        nbytes, available = self.size * wanted.itemsize, available_memory()
        if available is not None and nbytes > available:
            msg = (
                f"a dense copy of shape {self._shape} and dtype {wanted} takes {written(nbytes)}; "
                "a[...] is a window without a copy, a.copy() and a.astype(dtype) keep the holes"
            )
            raise MemoryError(msg)
        made = window.astype(wanted)
        self._tell_loss()
        return made

    def _like(self, dtype: DTypeLike, shape: tuple[int, ...] | None = None) -> SparseArray:
        """Make an array of zeros with the same layout."""
        made = SparseArray._zeros(*layout(self._shape if shape is None else shape, dtype))
        if self._order == "F":
            made._order = "F"
            made._set_shape(made._shape)
        return made

    # Changes

    def copy(self) -> SparseArray:
        """
        Copy what is stored into an array of its own, in memory.

        Raises
        ------
        ClosedError, AccessError, OSError
            As `extents`.
        """
        made = self._like(self._dtype)
        self._copy_into(made)
        return made

    def snapshot(self) -> SparseArray:
        """
        Make an array of what this one holds now, whatever becomes of it later.

        Returns
        -------
        SparseArray
            Nothing written to it reaches a file. Its length cannot change.

        Raises
        ------
        ClosedError, AccessError, MemoryError, OSError
            As `SparseBuffer.snapshot`.

        Notes
        -----
        Of an array in a file, or in shared memory, it is made at once, and costs a page for each
        page that is written later, to either of the two; but all that a window shows is copied
        while one is alive that may write, as ``a[...]`` is. See `SparseBuffer.snapshot` for what
        others write. In memory of its own it is a `copy`.

        Examples
        --------
        >>> import tempfile
        >>> import sparsearray
        >>> path = tempfile.mkdtemp() + "/a.npy"
        >>> a = sparsearray.open(path, "w+", shape=(1 << 20, 1 << 17))
        >>> a[1000, 2000] = 1
        >>> before = a.snapshot()
        >>> a[1000, 2000] = 2
        >>> before[1000, 2000], before.sum(), a.sum()
        (np.float64(1.0), np.float64(1.0), np.float64(2.0))
        """
        return self._snapshot(SparseArray) if self._lies_in_files() else self.copy()

    def _lies_in_files(self) -> bool:
        """Tell whether some of what it shows is mapped from a file."""
        if self._is_own_memory():
            return False
        return any(region.kind not in ("private", "zero") for region in self._buffer.regions)

    def _snapshot(self, kind: type[_Array]) -> _Array:
        """Make an array of a snapshot of the buffer."""
        return kind._of(
            self._buffer.snapshot(self._buffer.name),
            self._shape,
            self._dtype,
            offset=self._offset,
            order=self._order,
            maxshape=self._shape,
            storage=Snapshot(),
        )

    def _copy_into(self, other: SparseArray) -> None:
        """Copy what is stored into an array of zeros in memory that lies alike."""
        extents = self.extents()
        with filling(other._buffer, extents):
            target = other.buffer[: self.nbytes]
            for start, stop in extents.tolist():
                for at in range(start, stop, DEFAULT_NBYTES):
                    piece = target[at : min(at + DEFAULT_NBYTES, stop)]
                    self._buffer.read_into(self._offset + at, piece)
                    self._buffer._forget(self._offset + at, len(piece))

    def resize(self, shape: Any) -> None:
        """
        Make it longer or shorter along the first axis. It never moves: live windows stay valid.

        What lies behind the data in its file is cut off.

        Parameters
        ----------
        shape : int or tuple of ints
            The new shape; all axes but the first as they are.

        Raises
        ------
        ValueError
            The shape does not fit, or is larger than `maxshape`; or the array is read-only.
        BufferError
            A live window shows what would go. Nothing is changed.
        OSError
            The file cannot be made longer. Nothing is changed.

        Examples
        --------
        >>> import sparsearray
        >>> a = sparsearray.zeros((0, 3), maxshape=(None, 3))
        >>> a.append([[1, 2, 3], [4, 5, 6]])
        >>> first = a[0]
        >>> a.resize((1_000_000_000, 3))
        >>> first, a.sum()
        (array([1., 2., 3.]), np.float64(21.0))
        """
        with self._length():
            self._resize(as_shape(shape), None)

    def _resize(self, sizes: tuple[int, ...], rows: NDArray[Any] | SparseArray | None) -> None:
        """Resize, with `rows` in what is new before it counts. The caller holds the lock."""
        self._check_resize(sizes)
        if sizes == self._shape:
            return
        fill = None if rows is None else partial(self._write_rows, self._offset + self.nbytes, rows)
        self._storage.resize(self, sizes, fill)

    def _write_rows(self, offset: int, rows: NDArray[Any] | SparseArray) -> None:
        if self._quota is not None:
            spans = _spans_of_rows(rows, self.itemsize) + offset - self._offset
            self._quota.take(self, [spans] if len(spans) else [])
        is_filled = self._is_own_memory() and isinstance(rows, np.ndarray)
        stop = offset + (rows.size * self.itemsize if is_filled else 0)
        with filling(self._buffer, np.array([[offset, stop]])):
            write_rows(self._buffer, offset, self._dtype, rows)

    def append(self, rows: ArrayLike) -> None:
        """
        Add rows at the end of the first axis.

        Parameters
        ----------
        rows : array_like or SparseArray, shape ``(n, *a.shape[1:])``
            Converted to the array's dtype. Holes of a SparseArray stay holes.

        Raises
        ------
        ValueError, TypeError
            Their shape does not fit, `maxshape` is too small, they cannot be converted, or the
            array is read-only. Nothing is changed.
        AccessError
            The disk is full or fails. Nothing is changed.
        OSError
            The file cannot be made longer. Nothing is changed.

        Examples
        --------
        >>> import sparsearray
        >>> a = sparsearray.zeros((0, 3), maxshape=(None, 3))
        >>> a.append([[1, 2, 3], [4, 5, 6]])
        >>> a.shape, a.sum()
        ((2, 3), np.float64(21.0))

        Notes
        -----
        If the process or the system crashes meanwhile, the file has the rows from before, or all.
        """
        if isinstance(rows, StoredArray) and not isinstance(rows, SparseArray):
            rows = rows.retile(None)
        found = rows if isinstance(rows, SparseArray) else as_rows(rows, self._dtype)
        if not self._shape or found.ndim != self.ndim or found.shape[1:] != self._shape[1:]:
            msg = f"append: rows of shape {found.shape} do not fit an array of {self._shape}"
            raise ValueError(msg)
        try:
            with self._length():
                self._resize((self._shape[0] + found.shape[0], *self._shape[1:]), found)
        except AccessError as error:
            error.strerror, error.transferred = f"append undone: {error.strerror}", 0
            raise

    # Life


def _spans_of_rows(rows: NDArray[Any] | SparseArray, itemsize: int) -> NDArray[np.int64]:
    """Find the bytes that rows take, from the first of them on."""
    if isinstance(rows, np.ndarray):
        nbytes = rows.size * itemsize
        return np.array([[0, nbytes]] if nbytes else np.empty((0, 2)), np.int64)
    return item_ranges(rows.extents(), rows.itemsize) * itemsize
