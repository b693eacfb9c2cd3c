"""
From and to dask arrays.

Arrays in files, and in shared memory, go to the workers of a cluster as references, which each
opens for itself; those in private memory as what is stored of each chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import accumulate, pairwise, product
from math import isnan, prod
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sparsearray._optional import needed
from sparsearray._zero import is_zero_bytes
from sparsearray.array import SparseArray
from sparsearray.stored import StoredArray

from ._dask_boxes import Box, slow_axis, stored_corners
from ._dask_part import Part, register
from ._dask_source import Piece, Source, Target, folder_state, identity_of, load

if TYPE_CHECKING:
    import dask.array

__all__ = ["from_array", "store"]

Chunks = tuple[tuple[int, ...], ...]


def from_array(array: Any, chunks: Any = "auto", *, name: str | None = None) -> dask.array.Array:
    """
    Make a dask array of an array, without reading it.

    Parameters
    ----------
    array : SparseArray or TiledArray
        It must stay open, and as it is, as long as the result is used: what chunks hold nothing is
        found out now.
    chunks : 'auto', 'stored', or as of `dask.array.from_array`
        ``'auto'`` are chunks of dask's ``array.chunk-size``, 128 MiB by default; of a SparseArray
        whole rows (or, in Fortran order, columns), and of a TiledArray whole tiles where that can
        be. ``'stored'`` are ranges of rows that *hold* so much, however long they are: see below.
    name : str, optional
        Of the result, which must be unique for what the array holds. By default it is found from
        the file, if the array was opened with mode ``'r'``, and else is a new one each time.

    Returns
    -------
    dask.array.Array
        Its chunks are plain ndarrays, read-only: windows of a SparseArray, copies from tiles. Those
        that hold nothing are zeros of one item in memory, and no task looks at the array for them.

    Raises
    ------
    ImportError
        dask is not installed.
    TypeError
        It is no such array, or its items have no bytes.
    ValueError
        The chunks do not fit.
    ClosedError, AccessError, OSError
        As `SparseArray.extents`.

    Notes
    -----
    With ``chunks='stored'`` a terabyte that holds a gigabyte has eight chunks, not 8192. They are
    arrays with holes: reductions but for variances, slices, and functions that keep zero at zero
    (``abs(x)``, ``x * 2``, ``x > 1``) skip what holds nothing. What would fill the holes (``x +
    1``, ``x.T``) is a TypeError where a chunk is larger than 256 MiB; ``x.rechunk('auto')`` has
    plain chunks. A function given to `dask.array.map_blocks` gets such an array, read-only, of
    which ``block.copy()`` makes a plain one where it fits into memory.

    Examples
    --------
    >>> import sparsearray
    >>> from sparsearray.interop.dask import from_array
    >>> a = sparsearray.zeros((1 << 20, 1 << 17))
    >>> a[5:7, :3] = 1, 2, 3
    >>> x = from_array(a, chunks="stored")
    >>> x.numblocks, x.sum().compute(), x[6, :4].compute()
    ((1, 1), np.float64(12.0), array([1., 2., 3., 0.]))
    >>> y = from_array(a)
    >>> y.numblocks, (y[:1000] + 1).min().compute()
    ((8192, 1), np.float64(1.0))
    """
    library = _library("from_array")
    if not isinstance(array, StoredArray) or isinstance(array, Part):
        msg = f"from_array takes a SparseArray or a TiledArray, not {type(array).__name__}"
        raise TypeError(msg)
    if not array.itemsize:
        msg = f"from_array: items of {array.dtype} have no bytes"
        raise TypeError(msg)
    corners = stored_corners(array)
    by_data = isinstance(chunks, str) and chunks == "stored" and array.ndim > 0
    if by_data or not array.ndim or (not array.size and isinstance(chunks, str)):
        sizes = _stored_chunks(library, array)
    else:
        sizes = _plain_chunks(library, array, chunks)
    if name is None:
        name = f"sparsearray-{library.tokenize.tokenize(array, sizes, by_data)}"
    if by_data:
        register()  # here, too: graphs take dask's tables along to the workers
    pieces = Pieces(Source(array), sizes, array.dtype, corners, by_data=by_data)
    axes = tuple(range(array.ndim))
    given = library.blockwise.BlockwiseDepDict(pieces, tuple(map(len, sizes)))
    layer = library.blockwise.blockwise(load, name, axes, given, axes, numblocks={})
    return _array_of(library, name, layer, sizes, array.dtype)


def _library(what: str) -> Any:
    """Import dask with its arrays, which import all that is used of it here."""
    needed("dask.array", what, "dask")
    return needed("dask", what, "dask")


def _array_of(
    library: Any, name: str, layer: Any, chunks: Chunks, dtype: DTypeLike, *sources: Any
) -> dask.array.Array:
    """Make the dask array of a layer that is made of others."""
    graph = library.highlevelgraph.HighLevelGraph.from_collections(name, layer, sources)
    made: dask.array.Array = library.array.Array(
        graph, name, chunks, meta=np.empty((0,) * len(chunks), dtype)
    )
    return made


def _plain_chunks(library: Any, array: StoredArray, chunks: Any) -> Chunks:
    """Find the chunks as dask does, along what lies together."""
    previous = getattr(array, "tiles", None)
    if isinstance(chunks, str) and chunks == "auto" and previous is None and array.size:
        axis = slow_axis(array)
        row = array.nbytes // max(array.shape[axis], 1)
        if row <= _chunk_nbytes(library):
            chunks = {k: "auto" if k == axis else -1 for k in range(array.ndim)}
    found: Chunks = library.array.core.normalize_chunks(
        chunks, array.shape, dtype=array.dtype, previous_chunks=previous
    )
    return found


def _chunk_nbytes(library: Any) -> int:
    nbytes: int = library.utils.parse_bytes(library.config.get("array.chunk-size"))
    return nbytes


def _stored_chunks(library: Any, array: StoredArray) -> Chunks:
    """Cut an array into ranges of rows that hold about as much as a chunk may have bytes."""
    whole = tuple((n,) for n in array.shape)
    if not array.nbytes or not array.ndim:
        return whole
    axis, unit = slow_axis(array), getattr(array, "tiles", (1,))[0]
    rows = -(-array.shape[axis] // unit)
    extents = array.extents()
    if isinstance(array, SparseArray):
        step = array.nbytes // rows
    else:
        store: Any = array._store
        step = store.tiling.tile_steps[0]
    held = extents[:, 1] - extents[:, 0]
    total = np.cumsum(held)
    most = _chunk_nbytes(library)
    count = int(total[-1]) // most if len(total) else 0
    # Where so much lies before: within an extent, or at its start.
    wanted = np.arange(1, count + 1) * most
    at = np.searchsorted(total, wanted)
    at, wanted = at[at < len(total)], wanted[at < len(total)]
    places = extents[at, 1] - (total[at] - wanted)
    cuts = np.unique(places // step) * unit
    inner = cuts[(cuts > 0) & (cuts < array.shape[axis])].tolist()
    sides = [high - low for low, high in pairwise([0, *inner, array.shape[axis]])]
    return (*whole[:axis], tuple(sides), *whole[axis + 1 :])


class Axis(NamedTuple):
    """Where chunks lie along one axis, in few bytes where they are all as long."""

    total: int
    step: int
    starts: tuple[int, ...] | None
    """Only where they are not."""

    @classmethod
    def of(cls, sizes: tuple[int, ...]) -> Axis:
        """Make it of the lengths of chunks."""
        total, step = sum(sizes), max(sizes[0], 1)
        if all(size == step for size in sizes[:-1]) and sizes[-1] <= step:
            return cls(total, step, None)
        return cls(total, step, tuple(accumulate(sizes[:-1], initial=0)))

    def side(self, number: int) -> slice:
        """Tell where a chunk lies."""
        if self.starts is None:
            return slice(number * self.step, min((number + 1) * self.step, self.total))
        return slice(self.starts[number], (*self.starts[number + 1 : number + 2], self.total)[0])

    def edges(self) -> NDArray[np.int64]:
        """Tell where all of them begin, and the last one ends."""
        starts = range(0, self.total, self.step) if self.starts is None else self.starts
        return np.array([*starts, self.total], np.int64)


class Pieces:
    """
    What each task gets: a mapping of chunks, by their numbers along each axis.

    Of an array in a file it is as small as its chunks are few, whatever they hold.
    """

    def __init__(
        self,
        source: Source,
        chunks: Chunks,
        dtype: np.dtype,
        corners: tuple[NDArray[np.int64], NDArray[np.int64]],
        *,
        by_data: bool,
    ) -> None:
        self._source = source
        self._dtype = dtype
        self._axes = list(map(Axis.of, chunks))
        self._shape = tuple(map(len, chunks))
        self._by_data = by_data
        self._filled = np.packbits(self._find_filled(*corners))

    def _find_filled(
        self, starts: NDArray[np.int64], stops: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Tell which chunks any of some boxes reaches into."""
        filled = np.zeros(self._shape, bool)
        if not filled.ndim:
            return filled | True
        edges = [axis.edges() for axis in self._axes]
        lows = np.stack(
            [np.searchsorted(one, starts[:, k], "right") - 1 for k, one in enumerate(edges)], axis=1
        )
        highs = np.stack(
            [np.searchsorted(one, stops[:, k], "left") for k, one in enumerate(edges)], axis=1
        )
        for low, high in np.unique(np.stack([lows, highs], axis=1), axis=0).tolist():
            filled[tuple(map(slice, low, high))] = True
        return filled

    def __getitem__(self, numbers: tuple[int, ...]) -> Piece:
        # dask asks for some by numbers of numpy's.
        box = tuple(axis.side(int(i)) for axis, i in zip(self._axes, numbers, strict=True))
        place = int(np.ravel_multi_index(numbers, self._shape)) if numbers else 0
        if not self._filled[place >> 3] >> (7 - place % 8) & 1:
            return Piece(None, box, "empty" if self._by_data else "zeros", self._dtype)
        return Piece(self._source, box, "part" if self._by_data else "dense", self._dtype)

    def __len__(self) -> int:
        return prod(self._shape)

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        return product(*map(range, self._shape))

    def __reduce__(self) -> Any:
        if self._source.is_shared:
            return _made_again, (vars(self),)
        return dict, ({numbers: self[numbers] for numbers in self},)


def _made_again(state: dict[str, Any]) -> Pieces:
    """Load what was pickled."""
    made = Pieces.__new__(Pieces)
    vars(made).update(state)
    return made


def make_token(array: StoredArray) -> Any:
    """
    Make what dask names an array by, as ``__dask_tokenize__``.

    Of what is only read from files it is which those are, and when they were last written. What is
    written through a mapping, by whomever, may not be seen before it is flushed, and neither are
    two writes within one tick of the file system's clock. All else can change without a sign of
    it, and gets a new name each time.
    """
    found = None
    if array.mode == "r":
        with suppress(OSError):  # another file is at its path by now
            found = array._store._storage.reference(array)
    files = None if found is None else identity_of(found[1][0], times=True)
    if found is not None and files is not None and len(files[0]) > 2:
        state = folder_state(array.path)
        return type(array).__name__, found[0].__name__, str(found[1]), files, state
    # Raises where dask is told to take no name that is new each time.
    needed("dask.tokenize", "tokenize", "dask").normalize_token(object())
    return uuid4().hex


# Storing


def store(
    sources: Any, targets: Any, *, regions: Any = None, compute: bool = True, **kwargs: Any
) -> Any:
    """
    Store dask arrays in arrays, from all workers at once; zeros stay holes.

    Parameters
    ----------
    sources : dask.array.Array, or sequence of them
        What to store.
    targets : SparseArray or TiledArray, or sequence of them
        One for each. On a cluster of processes, in a file, opened with mode ``'r+'`` or ``'w+'``,
        or in shared memory: each worker opens it once, and writes to it directly.
    regions : tuple of slices, or sequence of them, optional
        Where in each target; all of it by default.
    compute : bool
        Do it now; or else return what does it.
    **kwargs
        As of `dask.compute`.

    Returns
    -------
    None, or dask.delayed.Delayed
        With ``compute=False``.

    Raises
    ------
    ImportError
        dask is not installed.
    TypeError
        A source is no dask array, or a target none of our arrays; or a target lies in memory that
        workers cannot reach.
    ValueError
        A shape does not fit, or is not known, or is not that of the chunk that a function made; or
        a target is read-only.
    AccessError
        The disk is full or fails.

    Notes
    -----
    No lock is taken: chunks are apart, and so are the bytes that are written for each, also where
    two of them meet within a page or a tile. What was in the target is replaced, and pages (or
    tiles) of a chunk that hold zeros only take no room. If a worker is lost its tasks are done
    again. What was written reaches the disk with ``target.flush()``.

    Examples
    --------
    >>> import dask.array as da
    >>> import sparsearray
    >>> from sparsearray.interop.dask import store
    >>> a = sparsearray.zeros((1 << 20, 1 << 17))
    >>> store(da.eye(1000, chunks=100), a, regions=(slice(1000), slice(1000)))
    >>> a.sum(), a.nbytes_stored < 1000 * 4096 * 3
    (np.float64(1000.0), True)
    """
    library = _library("store")
    if not isinstance(sources, list | tuple):
        sources, targets, regions = [sources], [targets], [regions]
    if regions is None or _is_region(regions):
        regions = [regions] * len(sources)
    if not len(sources) == len(targets) == len(regions):
        msg = f"store: {len(sources)} sources, {len(targets)} targets and {len(regions)} regions"
        raise ValueError(msg)
    plans = zip(sources, targets, regions, strict=True)
    layers = [_storing(library, *plan) for plan in plans]
    if compute:
        library.compute(layers, **kwargs)
        return None
    return library.delayed(_done)(list(library.optimize(*layers)))


def _is_region(regions: Any) -> bool:
    """Tell one region, for all sources, from a sequence of them."""
    sides = regions if isinstance(regions, tuple) else (regions,)
    return bool(sides) and all(isinstance(side, slice | int) for side in sides)


def _done(_: Any) -> None:
    """End what stores."""


def _storing(library: Any, source: Any, target: Any, region: Any) -> Any:
    """Make the dask array whose chunks are stored when it is computed."""
    if not isinstance(source, library.array.Array):
        msg = f"store takes dask arrays, not {type(source).__name__}"
        raise TypeError(msg)
    if not isinstance(target, StoredArray) or isinstance(target, Part):
        msg = f"store writes to a SparseArray or a TiledArray, not to {type(target).__name__}"
        raise TypeError(msg)
    if any(isnan(n) for n in source.shape):
        msg = f"store: the shape of the source is not known: {source.shape}"
        raise ValueError(msg)
    target._check_writable()
    corner = _corner(source.shape, target, region)
    np.zeros(1, target.dtype)[...] = np.zeros(1, source.dtype)  # numpy's error of what cannot be
    name = f"store-{uuid4().hex}"
    axes = tuple(range(source.ndim))
    layer = library.blockwise.blockwise(
        _write,
        name,
        axes,
        source.name,
        axes,
        Target(target),
        None,
        library.layers.ArraySliceDep(source.chunks),
        axes,
        corner,
        None,
        numblocks={source.name: source.numblocks},
    )
    chunks = tuple((1,) * n for n in source.numblocks)
    return _array_of(library, name, layer, chunks, bool, source)


def _corner(shape: tuple[int, ...], target: StoredArray, region: Any) -> tuple[int, ...]:
    """Find where a source goes; ValueError where it does not fit."""
    given = (slice(None),) * target.ndim if region is None else region
    parts = given if isinstance(given, tuple) else (given,)
    parts = (*parts, *(slice(None),) * (target.ndim - len(parts)))
    if len(parts) > target.ndim or not all(isinstance(part, slice) for part in parts):
        msg = f"store: a region is a slice for each axis, not {region!r}"
        raise ValueError(msg)
    sides = [range(n)[part] for n, part in zip(target.shape, parts, strict=True)]
    if any(side.step != 1 for side in sides) or tuple(map(len, sides)) != tuple(shape):
        what = f"region {region!r} of " if region is not None else ""
        msg = f"store: a source of shape {shape} does not fit {what}a target of {target.shape}"
        raise ValueError(msg)
    return tuple(side.start for side in sides)


def _write(chunk: Any, target: Target, box: Box, corner: tuple[int, ...]) -> NDArray[np.bool_]:
    """Store one chunk: the function of the tasks."""
    array: Any = target.get()
    done = np.ones((1,) * array.ndim, bool)
    key = tuple(
        slice(side.start + at, side.stop + at) for side, at in zip(box, corner, strict=True)
    )
    items = chunk if isinstance(chunk, StoredArray) else np.asarray(chunk)
    shape = tuple(side.stop - side.start for side in box)
    if items.shape != shape:
        msg = f"store: the chunk for {key} has shape {items.shape}, where dask was told of {shape}"
        raise ValueError(msg)
    if any(side.stop > n for side, n in zip(key, array.shape, strict=True)):
        msg = f"store: the target has shape {array.shape} by now; this chunk goes to {key}"
        raise ValueError(msg)
    if isinstance(items, StoredArray) or not items.nbytes or not array.ndim:
        array[key] = items
        return done
    items = items.astype(array.dtype, copy=False)
    sides = [range(side.start, side.stop) for side in key]
    array._clear_sides(sides)
    if any(items.strides) or not is_zero_bytes(items[(slice(0, 1),) * items.ndim]):
        array._write_sides(sides, items, list(items.strides), filled=True)
    return done
