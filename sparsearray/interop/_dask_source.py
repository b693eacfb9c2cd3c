"""How the tasks of a dask graph get at an array: in this process, or in another one."""

from __future__ import annotations

import os
import secrets
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from hashlib import sha256
from math import prod
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from sparsearray.array import SparseArray
from sparsearray.shared import SharedMemory
from sparsearray.stored import StoredArray

from ._dask_boxes import Box, blocks_in, copy_of
from ._dask_constant import constant
from ._dask_part import Part, part_of, register

__all__ = ["Piece", "Source", "Target", "folder_state", "identity_of", "load"]

_OPEN = 32  # arrays that a process keeps open
_SMALL = 1 << 20  # bytes of a box of tiles that are read at once, holes and all

Identity = tuple[tuple[Any, ...], ...]


class Opening(NamedTuple):
    """How another process opens an array."""

    function: Callable[..., StoredArray]
    arguments: tuple[Any, ...]
    mode: str | None
    state: str | None
    """As of `folder_state`, when the graph was made."""


def is_shared(array: StoredArray) -> bool:
    """Tell whether other processes can open what the array shows, and see what is written."""
    return array.mode != "c" and array._store._storage.reference(array) is not None


def identity_of(first: Any, *, times: bool) -> Identity | None:
    """
    Tell which files a reference leads to now, and what they hold.

    Parameters
    ----------
    first : SharedMemory, str or list of (str, int, int)
        The first argument of ``__reduce__``: one file or folder, or parts of several.
    times : bool
        Whether their lengths and times count, as for what is only read.

    Returns
    -------
    tuple or None
        None where one of them is gone.
    """
    found = []
    try:
        if isinstance(first, SharedMemory):
            facts = os.fstat(first.fileno())
            return ((facts.st_dev, facts.st_ino),)
        for path in [first] if isinstance(first, str) else sorted({part[0] for part in first}):
            facts = os.stat(path)  # noqa: PTH116 - thousands of them
            one: tuple[Any, ...] = (path, facts.st_dev, facts.st_ino)
            found.append((*one, facts.st_size, facts.st_mtime_ns) if times else one)
    except OSError:
        return None
    return tuple(found)


def folder_state(path: str | None) -> str | None:
    """
    Sum up which files a folder of chunks has, and when they were written: one stat of each.

    Whoever has mapped them does not see those that are made or replaced later.

    Returns
    -------
    str or None
        None where the path leads to no folder.
    """
    if path is None or not Path(path).is_dir():
        return None
    found = []
    for folder, _, names in os.walk(path):
        for name in names:
            file = f"{folder}/{name}"
            with suppress(OSError):  # just removed
                facts = os.stat(file)  # noqa: PTH116 - thousands of them
                found.append((file, facts.st_ino, facts.st_size, facts.st_mtime_ns))
    return sha256(repr(sorted(found)).encode()).hexdigest()


# What is open in this process, by what it was asked for and which files those were.
_opened: OrderedDict[Any, tuple[Opening, Identity | None, StoredArray]] = OrderedDict()
_lock = Lock()


def _open_once(opening: Opening) -> StoredArray:
    """Open what a reference leads to, unless it is open already and still the same."""
    identity = _identity(opening)
    key = (opening.function.__name__, *map(_hashable, opening.arguments))
    with _lock:
        known = _opened.get(key)
        if (
            known is not None
            and (known[0].state, known[1]) == (opening.state, identity)
            and not known[2].closed
        ):
            _opened.move_to_end(key)
            return known[2]
        made = opening.function(*opening.arguments)
        # Tasks that use one just now keep it, and it goes with the last of them.
        for other, (once, before, _) in list(_opened.items()):
            if _identity(once) != before:  # what is deleted shall take no room on disk
                del _opened[other]
        _opened[key] = opening, identity, made
        while len(_opened) > _OPEN:
            _opened.popitem(last=False)
        return made


def _identity(opening: Opening) -> Identity | None:
    return identity_of(opening.arguments[0], times=opening.mode == "r")


def _hashable(argument: Any) -> Any:
    if isinstance(argument, SharedMemory):
        return identity_of(argument, times=False)
    return tuple(argument) if isinstance(argument, list) else argument


class Source:
    """
    An array that tasks read.

    In this process it is the array itself. To another one it goes as a reference, or if there is
    none as what is stored.

    Parameters
    ----------
    array : SparseArray or TiledArray
        Which one.
    """

    __slots__ = ("_array", "_opening", "_state")

    def __init__(self, array: StoredArray | None, opening: Opening | None = None) -> None:
        self._array = array
        self._opening = opening
        self._state = None if array is None else folder_state(array.path)

    def __reduce__(self) -> tuple[Any, ...]:
        array = self._array
        if array is None:
            return Source, (None, self._opening)
        if not is_shared(array):
            return Source, (array,)
        found: Any = array._store._storage.reference(array)
        return Source, (None, Opening(found[0], found[1], array.mode, self._state))

    @property
    def is_shared(self) -> bool:
        """Whether it goes as a reference."""
        return self._array is None or is_shared(self._array)

    def get(self) -> StoredArray:
        """Return the array; opened, if this process has not done so yet."""
        if self._array is not None:
            return self._array
        assert self._opening is not None  # noqa: S101 - for mypy
        return _open_once(self._opening)


class Piece:
    """
    One chunk of a dask array, to be made when its task runs.

    Parameters
    ----------
    source : Source
        Of which array.
    box : tuple of slices
        Where.
    kind : {'dense', 'part', 'zeros', 'empty'}
        An ndarray or an array with holes; or these two without a look at the array: it has nothing
        there.
    dtype : dtype
        Of the items.
    """

    __slots__ = ("box", "dtype", "kind", "source")

    def __init__(self, source: Source | None, box: Box, kind: str, dtype: np.dtype) -> None:
        self.source = source
        self.box = box
        self.kind = kind
        self.dtype = dtype

    def __reduce__(self) -> tuple[Any, ...]:
        source, box = self.source, self.box
        if source is not None and not source.is_shared:
            array = source.get()
            shape = tuple(side.stop - side.start for side in box)
            if shape != array.shape:  # only what this task needs
                source = Source(copy_of(array, box))
                box = tuple(slice(0, n) for n in shape)
        return Piece, (source, box, self.kind, self.dtype)

    def array(self) -> StoredArray:
        """Return the array, if it still has what the graph was made for."""
        assert self.source is not None  # noqa: S101 - for mypy
        found = self.source.get()
        bounds = [side.stop for side in self.box]
        fits = len(bounds) == found.ndim and all(
            stop <= n for stop, n in zip(bounds, found.shape, strict=True)
        )
        if not fits or found.dtype != self.dtype:
            msg = (
                f"an array of shape {found.shape} and dtype {found.dtype} by now: it was changed "
                f"after a dask array was made of it, whose chunk ends at {tuple(bounds)}"
            )
            raise ValueError(msg)
        return found


def load(piece: Piece) -> Any:
    """Make a chunk: the function of the tasks."""
    shape = tuple(side.stop - side.start for side in piece.box)
    if piece.kind == "zeros":
        return constant(shape, piece.dtype)
    if piece.kind in ("empty", "part"):
        register()
    if piece.kind == "empty":
        return Part(SparseArray._zeros(shape, piece.dtype))
    array = piece.array()
    if piece.kind == "part":
        return part_of(array, piece.box, partial(_reference, piece))
    found = _dense(array, piece.box, shape)
    found.flags.writeable = False  # whatever it is: what is written to it would be lost
    return found


def _reference(piece: Piece) -> tuple[Any, ...] | None:
    """Say how another process makes a chunk with holes, if it can open what that shows."""
    return (load, (piece,)) if piece.source is not None and piece.source.is_shared else None


def _dense(array: StoredArray, box: Box, shape: tuple[int, ...]) -> NDArray[Any]:
    """Make an ndarray of a box: a window, or of tiles a copy of what is stored."""
    if isinstance(array, SparseArray):
        return array._box_reader()(box)
    if prod(shape) * array.itemsize <= _SMALL:
        tiled: Any = array
        found: NDArray[Any] = tiled._box_reader()(box)
        return found
    made = np.zeros(shape, array.dtype)
    for index, block in blocks_in(array, box):
        made[index] = block
    return made


# Where tasks write

_here = secrets.token_hex(8)
_targets: WeakValueDictionary[str, StoredArray] = WeakValueDictionary()


class Target:
    """
    An array that tasks write to.

    It goes to another process as a reference, or not at all: what is written to a copy is lost.

    Parameters
    ----------
    array : SparseArray or TiledArray
        Which one.
    """

    __slots__ = ("_name", "source")

    def __init__(self, array: StoredArray, name: str | None = None) -> None:
        self.source = Source(array)
        self._name = secrets.token_hex(8) if name is None else name
        _targets[self._name] = array

    def __reduce__(self) -> tuple[Any, ...]:
        if self.source.is_shared:
            return _Shared, (self.source,)
        return _find, (self._name, _here, os.getpid(), repr(self.source.get()))

    def get(self) -> StoredArray:
        """Return the array."""
        return self.source.get()


class _Shared(Target):
    """One that arrived as a reference."""

    __slots__ = ()

    def __init__(self, source: Source) -> None:
        self.source = source


class _Elsewhere(Target):
    """One that lies in memory of another process. Its task fails, as that is heard of by all."""

    __slots__ = ("_arguments",)

    def __init__(self, *arguments: Any) -> None:
        self._arguments = arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return _find, self._arguments

    def get(self) -> StoredArray:
        """Raise TypeError."""
        msg = (
            f"{self._arguments[-1]} lies in memory of another process, where nothing written here "
            "arrives; processes can store into an array in a file, opened with mode 'r+' or 'w+', "
            "or in shared memory, and threads, scheduler='threads', into any"
        )
        raise TypeError(msg)


def _find(name: str, here: str, pid: int, shown: str) -> Target:
    """Find an array of this process."""
    found = _targets.get(name) if (here, pid) == (_here, os.getpid()) else None
    return _Elsewhere(name, here, pid, shown) if found is None else Target(found, name)
