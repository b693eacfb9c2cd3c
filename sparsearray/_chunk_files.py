"""
Arrays whose tiles are files: each chunk of a folder mapped where its tile lies.

Files are found by listing folders, and lie side by side in one range of addresses, in the order of
their numbers. Between them are zero pages::

    c/0/0 |################|   c/0/1 is not there   |################| c/1/0 ...
    tile 0                     tile 1: zeros         tile 2
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._binding import FILE_COPY_ON_WRITE, FILE_READ, FILE_WRITE, count_mappings
from ._layout import allocate, reserve
from ._mover import Mover, Sides
from ._new_file import replacing
from ._process_lock import ProcessLock
from ._records import Records
from ._storage import Storage
from ._tile_clearing import tiles_of
from ._tiling import Tiling
from .blocks import Blocks, join
from .buffer import SparseBuffer
from .errors import ClosedError
from .stored import StoredArray

__all__ = ["ChunkKeys", "map_chunks"]

_MANY = 4096  # mappings that are made without looking whether there are as many
_SPARE = 512  # of them that are left to others
_DIGITS = 19  # of the largest number along an axis
_MODES = {"r": FILE_READ, "r+": FILE_WRITE, "c": FILE_COPY_ON_WRITE}


class ChunkKeys(NamedTuple):
    """
    How chunks are named: by their numbers along each axis.

    Examples
    --------
    >>> keys = ChunkKeys("c", "/", (10, 20))
    >>> keys.name(23), keys.number("c/1/3"), keys.number("c/1/20")
    ('c/1/3', 23, None)
    """

    prefix: str
    """What each name begins with; may be empty."""
    separator: str
    """Between the numbers, and behind the prefix."""
    grid: tuple[int, ...]
    """Chunks along each axis."""

    def place(self, number: int) -> tuple[int, ...]:
        """Tell where along each axis a chunk is."""
        found = []
        for n in reversed(self.grid):
            number, at = divmod(number, n)
            found.append(at)
        return tuple(reversed(found))

    def name(self, number: int) -> str:
        """Name a chunk."""
        parts = [self.prefix] if self.prefix else []
        return self.separator.join(parts + [str(at) for at in self.place(number)]) or "0"

    def number(self, name: str) -> int | None:
        """Tell which chunk has a name; None for what is no chunk of this grid."""
        if not self.grid:
            return 0 if name == self.name(0) else None
        parts = name.split(self.separator)
        if self.prefix:
            if parts[0] != self.prefix:
                return None
            del parts[0]
        if len(parts) != len(self.grid):
            return None
        number = 0
        for part, n in zip(parts, self.grid, strict=True):
            at = _as_number(part, n)
            if at is None:
                return None
            number = number * n + at
        return number

    def find(self, root: str) -> dict[int, str]:
        """
        List a folder, and those in it.

        Returns
        -------
        dict
            Paths of chunks that are there, by number, sorted.
        """
        if not self.grid or self.separator != "/":
            found = {self.number(name): f"{root}/{name}" for name in _names(root)}
            found.pop(None, None)
            return dict(sorted(found.items()))  # type: ignore[arg-type]
        level = [(0, f"{root}/{self.prefix}" if self.prefix else root)]
        for n in self.grid:
            level = [
                (number * n + at, f"{folder}/{name}")
                for number, folder in level
                for name in _names(folder)
                if (at := _as_number(name, n)) is not None
            ]
        return dict(sorted(level))


def _names(folder: str) -> list[str]:
    """List a folder; nothing where there is none."""
    try:
        return os.listdir(folder)  # noqa: PTH208 - Path takes a multiple of the time
    except (FileNotFoundError, NotADirectoryError):
        return []


@lru_cache(maxsize=4096)
def _as_number(text: str, limit: int) -> int | None:
    """Read a number as it is written in a key; None for anything else."""
    if not (text.isascii() and text.isdigit()) or (text[0] == "0" and text != "0"):
        return None
    if len(text) > _DIGITS:
        return None
    number = int(text)
    return number if number < limit else None


def map_chunks(
    root: str,
    keys: ChunkKeys,
    tiling: Tiling,
    mode: str,
    found: dict[int, str],
    reference: tuple[Any, ...],
) -> ChunkRecords:
    """
    Map chunks that are files as the tiles of an array.

    Parameters
    ----------
    root : str
        The folder of the array, as an absolute path.
    keys : ChunkKeys
        How they are named there.
    tiling : Tiling
        How they lie: tiles of whole pages.
    mode : {'r', 'r+', 'c'}
        As of `open`. In ``'r+'`` a chunk that is written to is made if it is not there.
    found : dict
        Those that are there: `ChunkKeys.find`.
    reference : tuple
        How another process opens the same: as of ``__reduce__``.

    Raises
    ------
    ValueError
        A file is not as long as a tile.
    OSError
        A file cannot be opened; or there are more than a process may have mappings (ENOMEM).
    MemoryError
        There are not enough addresses.
    """
    numbers = np.fromiter(found, np.int64, len(found))
    gaps = _gaps(numbers, prod(keys.grid))
    if len(found) + len(gaps) > _MANY:
        _check_mappings(root, len(found), len(gaps))
    nbytes = tiling.tile_nbytes
    buffer = reserve(prod(keys.grid) * nbytes, Path(root).name)
    try:
        _map(buffer, keys, nbytes, mode, found)
        for start, stop in (gaps * nbytes).tolist():
            if mode == "c":
                allocate(buffer, start, stop - start)
            else:
                buffer.map_zero(start, stop - start)
        storage = ChunkFiles(root, keys, mode, found, reference)
        return ChunkRecords._of(
            buffer, tiling.grid, tiling.record(), maxshape=tiling.grid, storage=storage
        )
    except BaseException as error:
        with suppress(ClosedError):
            buffer.close()
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            _check_mappings(root, len(found), len(gaps))
        raise


def _gaps(numbers: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Find the runs of tiles that have no file."""
    edges = np.concatenate([[-1], numbers, [count]])
    missing = np.flatnonzero(np.diff(edges) > 1)
    return np.stack([edges[missing] + 1, edges[missing + 1]], axis=1)


def _check_mappings(root: str, files: int, gaps: int) -> None:
    """Raise OSError where the process cannot have as many mappings as this takes."""
    mappings = count_mappings()
    if mappings is None:
        return
    used, limit = mappings
    room = max(limit - used - _SPARE, 0)
    if files + gaps > room:
        msg = (
            f"{root!r}: {files} chunks and {gaps} gaps between them take {files + gaps} mappings, "
            f"and of the {limit} that vm.max_map_count allows {room} are left (raise it with "
            "sysctl, or copy=True reads the chunks into memory)"
        )
        raise OSError(errno.ENOMEM, msg)


def _map(
    buffer: SparseBuffer, keys: ChunkKeys, nbytes: int, mode: str, found: dict[int, str]
) -> None:
    """Put files in their places; an error names the first that cannot be."""
    windows = [(path, number * nbytes, nbytes, 0) for number, path in found.items()]
    facts, error = buffer._map_files(windows, _MODES[mode], skip_holes=mode != "r+", look=False)
    wrong = np.flatnonzero(facts["nbytes"] != nbytes).tolist()
    if wrong:
        path = windows[wrong[0]][0]
        raise _wrong_size(keys, windows[wrong[0]], int(facts["nbytes"][wrong[0]]))
    if error is None:
        return
    path, offset, _, _ = window = windows[len(facts)]
    if isinstance(error, OSError):
        message = f"chunk {keys.place(offset // nbytes)}: {error.strerror}"
        raise OSError(error.errno, message, path) from error
    if isinstance(error, ValueError):  # it ends before the window does
        raise _wrong_size(keys, window, Path(path).stat().st_size) from error
    raise error


def _wrong_size(keys: ChunkKeys, window: tuple[str, int, int, int], size: int) -> ValueError:
    path, offset, nbytes, _ = window
    return ValueError(
        f"chunk {keys.place(offset // nbytes)}, {path!r}: {size} bytes, and a chunk has {nbytes}"
    )


class ChunkFiles(Storage):
    """What an array lives in whose tiles are files."""

    def __init__(
        self,
        root: str,
        keys: ChunkKeys,
        mode: str,
        found: Iterable[int],
        reference: tuple[Any, ...],
    ) -> None:
        self.path = root
        self.mode = mode
        self.there = set(found)
        self.what = "chunk files"
        self._keys = keys
        self._reference = reference
        self._lock = ProcessLock()

    def is_at(self, name: str) -> bool:
        """Tell whether a path leads to the folder, or into it."""
        return Path(str(self.path)).resolve() in (
            Path(name).resolve(),
            *Path(name).resolve().parents,
        )

    def reference(self, array: StoredArray) -> tuple[Any, ...] | None:
        """Send the path of the folder."""
        if array.buffer.damage:
            array.buffer.flush()  # AccessError: what is kept or lost is not in the files
        return self._reference

    def make(self, records: ChunkRecords, numbers: Iterable[int]) -> None:
        """Make chunks that are not there, of zeros, and show them."""
        if self.there.issuperset(numbers):
            return
        with self._lock():
            missing = sorted(set(numbers) - self.there)
            nbytes = records.tiling.tile_nbytes
            paths = {number: f"{self.path}/{self._keys.name(number)}" for number in missing}
            made: list[str] = []
            try:
                for path in paths.values():
                    if _make_file(path, nbytes):
                        made.append(path)  # noqa: PERF401 - an error must find those there are
                _map(records._buffer, self._keys, nbytes, "r+", paths)
            except BaseException:
                # Chunks that are shown already have nothing but zeros in them, and are gone with
                # the next write to them; those of others stay.
                for path in made:
                    with suppress(OSError):
                        Path(path).unlink()
                for number in missing:
                    with suppress(OSError, ClosedError, BufferError):
                        records._buffer.map_zero(number * nbytes, nbytes)
                raise
            self.there.update(missing)


def _make_file(path: str, nbytes: int) -> bool:
    """Make a file of zeros, which takes no room: all of it at once. False if it is there."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(path, sync=False, clobber=False) as file:
            file.truncate(nbytes)
    except FileExistsError:
        return False
    return True


class ChunkRecords(Records):
    """The tiles of an array, each a file; made where it is written to one that is not there."""

    __slots__ = ()

    _storage: ChunkFiles

    def _set_shape(self, shape: tuple[int, ...], dtype: np.dtype | None = None) -> None:
        super()._set_shape(shape, dtype)
        if self._storage.mode == "r+":
            tiling = self.tiling
            axes = [place[1:] for place in tiling.places]
            self._seen = tiling, _MakingMover(self, tiling.dtype, axes)

    def _make(self, numbers: Iterable[int]) -> None:
        if self._storage.mode == "r+":
            self._storage.make(self, numbers)

    def window_of(self, number: int, shape: tuple[int, ...]) -> NDArray[Any]:
        """Make a window of the first items of a tile along each axis."""
        self._make([number])
        return super().window_of(number, shape)

    def write_item(self, place: int, value: Any) -> None:
        """Write one item."""
        self._make([place // self.tiling.tile_nbytes])
        super().write_item(place, value)

    def scatter(self, places: NDArray[np.int64], items: NDArray[Any]) -> None:
        """Write items."""
        self._make(np.unique(places // self.tiling.tile_nbytes).tolist())
        super().scatter(places, items)

    def put(self, other: Records) -> None:
        """Copy all that is stored of an array that lies in tiles alike, and drop all else."""
        held = other.extents()
        nbytes = self.tiling.tile_nbytes
        for start, stop in zip(held[:, 0] // nbytes, -(-held[:, 1] // nbytes), strict=True):
            self._make(range(int(start), int(stop)))
        super().put(other)

    def chunks(self, most: int) -> Iterator[NDArray[Any]]:
        """Go through all that is stored of an array whose tiles hold nothing but its items."""
        if self._storage.mode == "c":
            return super().chunks(most)
        # Which there are is known: to ask for the length of each takes as long as to add it up.
        tiling = self.tiling
        numbers = np.array(sorted(self._storage.there), np.int64)
        extents = join(np.stack([numbers, numbers + 1], axis=1)) * tiling.tile_nbytes
        size = prod(tiling.grid) * prod(tiling.tiles)
        flat = Blocks(
            self._buffer,
            self._offset,
            (size,),
            tiling.dtype,
            "C",
            most,
            in_files=True,
            extents=extents,
        )
        return flat.chunks()


class _MakingMover(Mover):
    """Makes the files that it is about to write to."""

    __slots__ = ("_records",)

    def __init__(self, records: ChunkRecords, dtype: np.dtype, axes: Any) -> None:
        super().__init__(records._buffer, records._start, dtype, axes)
        self._records = records

    def write(
        self, sides: Sides, items: NDArray[Any], strides: Any, *, filled: bool = False
    ) -> None:
        """Write items."""
        if all(map(len, sides)):
            numbers = np.zeros(1, np.int64)
            places = zip(sides, self._records.tiling.grid, self._axes, strict=True)
            for side, count, (tile, _, _) in places:
                runs = tiles_of(side, tile).tolist()
                along = np.concatenate([np.arange(start, stop) for start, stop in runs])
                numbers = (numbers[:, np.newaxis] * count + along).reshape(-1)
            self._records._make(numbers.tolist())
        super().write(sides, items, strides, filled=filled)
