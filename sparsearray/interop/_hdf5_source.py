"""What an HDF5 dataset is: what its items are, where they lie in the file, and what is missing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparsearray._boxes import Index, strides_of
from sparsearray._descriptor import Descriptor, opened
from sparsearray._layout import layout
from sparsearray._optional import needed

from ._cells import grid_of
from ._coordinates import is_zero

__all__ = ["Chunks", "Source", "is_as_in_memory"]


class Chunks(NamedTuple):
    """The chunks that are in the file."""

    numbers: NDArray[np.int64]
    """In C order of the grid that they make; sorted."""
    offsets: NDArray[np.int64]
    """Where they lie in the file, in bytes."""
    is_plain: NDArray[np.bool_]
    """Whether there are the bytes of its items, and all of them: no filter changed them."""


class Source:
    """
    What an h5py dataset is.

    Parameters
    ----------
    dataset : h5py.Dataset
        Which.

    Attributes
    ----------
    name : str
        Of file and dataset, as messages have it.
    shape, dtype
        Of the array that it becomes.
    chunks : tuple of int or None
        Items along each axis of a chunk.
    is_plain : bool
        Whether items lie in the file as they do in memory.
    kind : str
        ``'contiguous'``, ``'chunked'``, or ``'other'``: what only h5py can read.

    Raises
    ------
    TypeError
        Its items are Python objects to h5py.
    ValueError
        It has no dataspace.
    """

    def __init__(self, dataset: Any) -> None:
        h5py = needed("h5py", "from_hdf5", "hdf5")
        self.dataset = dataset
        self.name = f"{dataset.name!r} in {dataset.file.filename!r}"
        if dataset.shape is None:
            msg = f"{self.name} has a null dataspace: it is no array"
            raise ValueError(msg)
        if dataset.dtype.hasobject:
            msg = (
                f"{self.name}: items of {_describe(h5py, dataset.dtype)} are Python objects to "
                "h5py, and have no place in an array of bytes"
            )
            raise TypeError(msg)
        self.shape, self.dtype = layout(dataset.shape, _without_metadata(dataset.dtype))
        self.inner = self.shape[len(dataset.shape) :]  # of items that are arrays themselves
        self.chunks = None if dataset.chunks is None else (*dataset.chunks, *self.inner)
        self._plist = dataset.id.get_create_plist()
        self.is_plain = is_as_in_memory(dataset)
        kinds = {h5py.h5d.CONTIGUOUS: "contiguous", h5py.h5d.CHUNKED: "chunked"}
        self.kind = kinds.get(self._plist.get_layout(), "other")
        if self._plist.get_external_count():
            self.kind = "other"

    @property
    def nbytes(self) -> int:
        """Bytes of all items."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def is_stored(self) -> bool:
        """Whether a contiguous dataset has a place in the file."""
        return self.dataset.id.get_offset() is not None

    def fill(self) -> NDArray[Any]:
        """Return what items are that were never written."""
        made = np.zeros(self.inner, self.dtype)
        made[...] = self.dataset.fillvalue
        return made

    def check_fill(self, missing: int) -> None:
        """Raise ValueError where missing items would not be zero."""
        fill = self.fill()
        if missing and not is_zero(fill):
            what = "chunks" if self.chunks else "items"
            msg = (
                f"{self.name}: {missing} {what} were never written, and hold the fill value "
                f"{fill.tolist()!r}, where a hole holds zero; fill_missing=True stores it"
            )
            raise ValueError(msg)

    def list_chunks(self, *, are_placed: bool) -> Chunks:
        """
        Find the chunks that are in the file; h5py's ``chunk_iter``.

        Unless `are_placed`, nobody asks where they lie: in files of some drivers, past 2^63.
        """
        h5d = self.dataset.id
        found: list[tuple[tuple[int, ...], int, int, int]] = []

        def note(one: Any) -> None:
            if one.byte_offset is not None:
                place = one.byte_offset if are_placed else 0
                found.append((one.chunk_offset, place, one.size, one.filter_mask))

        if hasattr(h5d, "chunk_iter"):
            h5d.chunk_iter(note)
        else:  # HDF5 before 1.12.3
            for number in range(h5d.get_num_chunks()):
                note(h5d.get_chunk_info(number))
        chunks = self.dataset.chunks
        steps = strides_of(grid_of(self.dataset.shape, chunks))
        places = np.array([one[0] for one in found], np.int64).reshape(len(found), len(chunks))
        numbers = (places // np.array(chunks, np.int64)) @ steps
        offsets, sizes, masks = np.array([one[1:] for one in found], np.int64).reshape(-1, 3).T
        skipped = (1 << self._plist.get_nfilters()) - 1
        nbytes = prod(self.chunks or ()) * self.dtype.itemsize
        is_plain = ((masks & skipped) == skipped) & (sizes == nbytes) & self.is_plain
        order = np.argsort(numbers)
        return Chunks(numbers[order], offsets[order], is_plain[order])

    def read(self, box: Index) -> NDArray[Any]:
        """Read a box through h5py."""
        ndim = len(self.dataset.shape)
        inner: Any = (..., *box[ndim:])
        found: NDArray[Any] = np.asarray(self.dataset[box[:ndim]])[inner]
        return found if found.dtype == self.dtype else found.astype(self.dtype)

    @contextmanager
    def file(self) -> Iterator[Descriptor | None]:
        """Open the file beside HDF5; None where it is no file by itself, or another one by now."""
        h5py = needed("h5py", "from_hdf5", "hdf5")
        file = self.dataset.file
        # Before, HDF5 says where chunks are as if there were no user block.
        is_told = not file.userblock_size or h5py.version.hdf5_version_tuple >= (1, 14, 4)
        with ExitStack() as stack:
            found = None
            if file.driver == "sec2" and is_told:
                try:
                    found = stack.enter_context(opened(file.filename, writable=False))
                    theirs, ours = os.fstat(file.id.get_vfd_handle()), os.fstat(found.fd)
                    if not os.path.samestat(theirs, ours):
                        found = None
                except OSError:  # it has another name by now
                    found = None
            yield found


def _without_metadata(dtype: np.dtype) -> np.dtype:
    """Leave out what h5py notes in a dtype: names of an enumeration, an encoding."""
    if dtype.names is not None and dtype.fields is not None:
        fields = [dtype.fields[name] for name in dtype.names]
        facts = {
            "names": list(dtype.names),
            "formats": [_without_metadata(field[0]) for field in fields],
            "offsets": [field[1] for field in fields],
            "itemsize": dtype.itemsize,
        }
        return np.dtype(facts)  # type: ignore[call-overload,no-any-return]
    if dtype.subdtype is not None:
        return np.dtype((_without_metadata(dtype.base), dtype.shape))
    return np.dtype(dtype.str)


def is_as_in_memory(dataset: Any) -> bool:
    """Tell whether the items of a dataset lie in the file as those of its dtype in memory."""
    h5py = needed("h5py", "hdf5", "hdf5")
    try:
        expected = h5py.h5t.py_create(dataset.dtype, logical=True)
    except TypeError:  # h5py reads what it has no type for
        return False
    return bool(dataset.id.get_type() == expected)


def _describe(h5py: Any, dtype: np.dtype) -> str:
    """Name a dtype of objects."""
    text = h5py.check_string_dtype(dtype)
    if text is not None:
        return "strings of any length"
    if h5py.check_vlen_dtype(dtype) is not None:
        return "sequences of any length"
    if h5py.check_ref_dtype(dtype) is not None:
        return "references"
    return str(dtype)
