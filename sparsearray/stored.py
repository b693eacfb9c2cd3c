"""What every array of ours is, however its items lie: a container, a file, something to look at."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Any, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from ._boxes import stand_in
from ._closing import Closing
from .protocol import NumpyFunctions

if TYPE_CHECKING:
    from os import PathLike

__all__ = ["StoredArray"]


class StoredArray(NumpyFunctions, Closing):
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
    def path(self) -> str | None:
        """The file behind it, or None."""
        raise NotImplementedError

    @property
    def mode(self) -> str | None:
        """How the file was opened: ``'r'``, ``'r+'``, ``'w+'`` or ``'c'``; None for memory."""
        raise NotImplementedError

    @property
    def closed(self) -> bool:
        """Whether the buffer was closed."""
        raise NotImplementedError

    def extents(self) -> NDArray[np.int64]:
        """Find the parts that may hold something other than zero."""
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

    # What it is

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
    def nbytes_stored(self) -> int:
        """Bytes in all `extents`: what the array costs, in memory or on disk."""
        found = self.extents()
        return int((found[:, 1] - found[:, 0]).sum())

    def _check_writable(self) -> None:
        if self.mode == "r":
            msg = f"assignment destination is read-only: {self.path!r} was opened with mode 'r'"
            raise ValueError(msg)

    def _check_resize(self, shape: tuple[int, ...]) -> None:
        """Raise ValueError for what cannot become the shape."""
        self._check_writable()
        if not self._owner:
            msg = "resize: the array shows part of a buffer that is not its own"
            raise ValueError(msg)
        if len(shape) != self.ndim or not shape or shape[1:] != self.shape[1:]:
            msg = f"resize to {shape}: only the first axis of shape {self.shape} can change"
            raise ValueError(msg)
        if shape[0] > self.maxshape[0]:
            msg = f"resize to {shape}: maxshape is {self.maxshape}; zeros and open take one"
            raise ValueError(msg)

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
        return self.copy()

    # Elsewhere

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

    def save(self, path: str | PathLike[str], *, progress: bool = False) -> None:
        """Write it as a .npy file with holes: see `sparsearray.save`."""
        from .files import save

        save(path, self, progress=progress)

    def __reduce__(self) -> NoReturn:
        msg = (
            f"a {type(self).__name__} cannot be pickled: save it, and open the file in the other "
            "process"
        )
        raise TypeError(msg)

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
        Draw where the data lies, with matplotlib.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        ImportError
            matplotlib is not installed.
        """
        from .array_display import plot_array

        return plot_array(self, ax)
