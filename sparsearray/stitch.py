"""
Many files as one array.

Windows of the files lie side by side in one range of addresses, in whole pages. Where one part ends
in the middle of a page and the next begins, that page is a copy of what both have there::

    part 0 |################|####
    part 1                       |############|################|####
                            ^ a copy          ^ the next one
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ._binding import FILE_COPY_ON_WRITE, FILE_READ, FILE_WRITE, count_mappings
from ._descriptor import opened
from ._layout import reserve
from ._memory import available_memory
from ._new_file import PIECE
from ._parts import Part, describe_part, find_parts, has_header, naming
from ._storage import Storage
from ._text import count
from ._text import size as written
from .array import SparseArray
from .buffer import SparseBuffer
from .errors import ClosedError
from .npy import MAGIC
from .stored import StoredArray

__all__ = ["StitchedArray", "stitch"]

_MANY = 4096  # mappings that are made without looking whether there are as many
_SPARE = 512  # of them that are left to others
_MODES = {"r": FILE_READ, "r+": FILE_WRITE, "c": FILE_COPY_ON_WRITE}


class StitchedArray(SparseArray):
    """
    An array of parts of files, one after another along the first axis, made by `stitch`.

    It is a `SparseArray` in every way, but cannot change its length.
    """

    __slots__ = ("_nbytes_copied",)

    _nbytes_copied: int
    _storage: Stitched

    @classmethod
    def _made(cls, buffer: SparseBuffer, plan: Plan, storage: Stitched) -> Self:
        made = cls._of(
            buffer,
            plan.shape,
            plan.dtype,
            offset=plan.offset,
            maxshape=plan.shape,
            storage=storage,
        )
        made._nbytes_copied = plan.nbytes_copied
        return made

    @property
    def parts(self) -> tuple[tuple[str | None, int, int], ...]:
        """What it is made of: path, offset and length in bytes; no path for arrays in memory."""
        return tuple((part.path, part.offset, part.nbytes) for part in self._storage.parts)

    @property
    def nbytes_copied(self) -> int:
        """Bytes that had to be copied into memory, because of where pages begin."""
        return self._nbytes_copied


def stitch(
    parts: Iterable[Any],
    dtype: DTypeLike | None = None,
    shape: Any = None,
    *,
    mode: Literal["r", "r+", "c"] = "r",
) -> StitchedArray:
    """
    Join files to one array along the first axis, without reading them.

    Parameters
    ----------
    parts : iterable
        Paths of .npy files; of raw files, if `dtype` is given; ``(path, offset, nbytes)`` for bytes
        of any file; or SparseArrays, of which those in private memory are copied. Each holds whole
        rows.
    dtype : dtype, optional
        Of raw parts. Others are checked.
    shape : int or tuple of ints, optional
        Of the result; the first number may be -1. By default the rows are those of the parts that
        have some, and raw parts alone are items along one axis.
    mode : {'r', 'r+', 'c'}
        As of `open`: read only; writes reach the files; or copy on write.

    Returns
    -------
    StitchedArray
        In C order. Its `nbytes_copied` says what is not in the files' own pages.

    Raises
    ------
    ValueError
        A part is empty, cut short, of another dtype or other rows, or in Fortran order; or, in mode
        ``'r+'``, cannot be written through: it does not lie in whole pages.
    TypeError
        A part is no such thing, or holds objects.
    OSError
        A part cannot be opened; or there are more of them than a process may have mappings
        (ENOMEM), which ``vm.max_map_count`` sets.
    MemoryError
        There are not enough addresses, or not enough memory for what must be copied.

    Notes
    -----
    A part takes no memory where it consists of whole pages (of 4 KiB on most machines) of its file,
    and begins where a page of the result does: raw files and .npy files of ours of whole pages do,
    as ``save(..., parts=n)`` writes them. Where parts meet within a page, that page is copied: .npy
    files of numpy's begin within one, and so cost a page each. A part whose pages lie otherwise
    than those of most others is copied whole. What is copied does not change when the file does.

    No descriptor is kept. A file that is renamed or replaced stays part of the array; but nobody
    then knows where it has holes, and that it was cut short is seen page by page: not within the
    last page that is left.

    If somebody else makes a file shorter, it is as with any array in a file: guarded calls, and all
    of numpy's functions on the array, raise AccessError, and windows go on over zeros.

    References
    ----------
    mmap(2), with ``MAP_FIXED``; Linux, Documentation/admin-guide/sysctl/vm.rst

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import sparsearray
    >>> folder = tempfile.mkdtemp()
    >>> for day in range(3):
    ...     np.full((1024, 8), day, "f8").tofile(f"{folder}/{day}.raw")
    >>> days = [f"{folder}/{day}.raw" for day in range(3)]
    >>> a = sparsearray.stitch(days, "f8", (-1, 8))
    >>> a.shape, a[:, 0].sum(), a.nbytes_copied
    ((3072, 8), np.float64(3072.0), 0)
    """
    if mode not in _MODES:
        msg = f"mode must be one of {', '.join(map(repr, _MODES))}, not {mode!r}"
        raise ValueError(msg)
    if isinstance(parts, str | bytes | os.PathLike | np.ndarray | SparseArray):
        msg = f"stitch takes a list of parts, not {type(parts).__name__}"
        raise TypeError(msg)
    sources = list(parts)
    made = None
    if dtype is not None:
        # Most often they are what they seem to be: then no file is opened twice.
        with suppress(ValueError, TypeError):
            made = _stitch(sources, dtype, shape, mode, guess=True)
    return _stitch(sources, dtype, shape, mode, guess=False) if made is None else made


def _stitch(
    sources: list[Any], dtype: DTypeLike | None, shape: Any, mode: str, *, guess: bool
) -> StitchedArray:
    """Do it; ValueError where it was a wrong guess what files are."""
    plan = Plan(*find_parts(sources, dtype, shape, guess=guess), writes=mode == "r+")
    buffer = reserve(plan.offset + prod(plan.shape) * plan.dtype.itemsize, _name(plan.parts))
    try:
        files = _place(buffer, plan, mode)
    except BaseException as error:
        # Now, and not when nobody looks at the error any more; the core may have closed it itself.
        with suppress(ClosedError):
            buffer.close()
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            plan.check_mappings()
        raise
    return StitchedArray._made(buffer, plan, Stitched(plan.parts, mode, files))


def _name(parts: list[Part]) -> str | None:
    """Make a label of the first and the last file."""
    ends = [part.path for part in parts[:1] + parts[1:][-1:] if part.path is not None]
    return " ... ".join(Path(path).name for path in ends) or None


# Where everything lies


class Piece(NamedTuple):
    """A run of pages of the result that are mapped from one file, or copied from some parts."""

    start: int
    stop: int
    parts: list[tuple[Part, int]]
    """Those that it shows something of, and where each begins, in bytes of the buffer."""
    copied: bool


class Plan:
    """What is mapped where. It is made before anything is, and says what cannot be."""

    def __init__(
        self, parts: list[Part], dtype: np.dtype, shape: tuple[int, ...], *, writes: bool
    ) -> None:
        self.parts = parts
        self.dtype = dtype
        self.shape = shape
        self._page = os.sysconf("SC_PAGESIZE")
        self.offset = self._choose_offset()
        self.pieces = list(_joined(self._cut()))
        self.nbytes_copied = 0
        for piece in self.pieces:
            if piece.copied:
                self._count_copy(piece, writes=writes)
        self._check_memory()
        # To count them takes a while, and where there are too many the system says so as well.
        if len(self.pieces) > _MANY:
            self.check_mappings()

    def _choose_offset(self) -> int:
        """Find where the first byte lies in its page, so that most parts need no copy."""
        shifts: Counter[int] = Counter()
        at = 0
        for part in self.parts:
            if part.can_be_mapped:
                shifts[(part.offset - at) % self._page] += part.nbytes
            at += part.nbytes
        return max(shifts, key=lambda shift: (shifts[shift], -shift), default=0)

    def _cut(self) -> Iterator[Piece]:
        page, at, done = self._page, self.offset, 0
        end = at + sum(part.nbytes for part in self.parts)
        waiting: list[tuple[Part, int]] = []  # what the next copy shows
        for part in self.parts:
            stop = at + part.nbytes
            # Beside the first part, and the last, a page has nothing else of the array.
            first = -(-at // page) * page if at > self.offset else at // page * page
            last = stop // page * page if stop < end else -(-stop // page) * page
            if not part.can_be_mapped or (part.offset - at) % page or first >= last:
                waiting.append((part, at))
            else:
                if at < first:
                    waiting.append((part, at))
                if done < first:
                    yield Piece(done, first, waiting, copied=True)
                yield Piece(first, last, [(part, at)], copied=False)
                done, waiting = last, [(part, at)] if last < stop else []
            at = stop
        last = -(-end // page) * page
        if done < last and waiting:
            yield Piece(done, last, waiting, copied=True)

    def _count_copy(self, piece: Piece, *, writes: bool) -> None:
        for part, at in piece.parts:
            nbytes = min(piece.stop, at + part.nbytes) - max(piece.start, at)
            if nbytes and writes:
                where = "not in whole pages there" if part.can_be_mapped else "an array in memory"
                msg = (
                    f"{describe_part(part)}: {nbytes} of its bytes would have to be copied "
                    f"({where}), and writes not reach them: modes 'r' and 'c' make such copies"
                )
                raise ValueError(msg)
            self.nbytes_copied += nbytes

    def _check_memory(self) -> None:
        free = available_memory()
        if free is not None and self.nbytes_copied > free:
            msg = (
                f"stitch: {written(self.nbytes_copied)} of the parts lie so that they must be "
                f"copied, and {written(free)} of memory are free"
            )
            raise MemoryError(msg)

    def check_mappings(self) -> None:
        """Raise OSError where the process cannot have as many mappings as this takes."""
        mappings = count_mappings()
        if mappings is None:
            return
        used, limit = mappings
        room = max(limit - used - _SPARE, 0)
        if len(self.pieces) > room:
            fits = self.pieces[room - 1].parts[-1][0].number + 1 if room else 0
            msg = (
                f"stitch: {len(self.parts)} parts take {len(self.pieces)} mappings, and of the "
                f"{limit} that vm.max_map_count allows {room} are left: {fits} parts fit (raise it "
                "with sysctl)"
            )
            raise OSError(errno.ENOMEM, msg)


def _joined(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Make one of neighbours that go on in the same file."""
    last: Piece | None = None
    for piece in pieces:
        if last is not None and _goes_on(last, piece):
            last = last._replace(stop=piece.stop)
            continue
        if last is not None:
            yield last
        last = piece
    if last is not None:
        yield last


def _goes_on(piece: Piece, following: Piece) -> bool:
    if piece.copied or following.copied or piece.stop != following.start:
        return False
    (part, at), (other, other_at) = piece.parts[0], following.parts[0]
    is_same = part.path == other.path and part.path is not None
    return is_same and part.offset - at == other.offset - other_at


# What is put there


def _place(buffer: SparseBuffer, plan: Plan, mode: str) -> Files:
    """Put all in place. Returns which files those are."""
    mapped = [piece for piece in plan.pieces if not piece.copied]
    for piece in mapped:
        if piece.parts[0][0].path is None:
            _show_memory(buffer, piece, mode)
    mapped = [piece for piece in mapped if piece.parts[0][0].path is not None]
    windows = []
    for piece in mapped:
        part, at = piece.parts[0]
        place = part.offset + piece.start - at
        windows.append((str(part.path), piece.start, piece.stop - piece.start, place))
    found, error = buffer._map_files(
        windows,
        _MODES[mode],
        skip_holes=mode != "r+",
        look=any(part.is_guess for part in plan.parts),
    )
    if error is not None:
        part, _ = mapped[len(found)].parts[0]
        if isinstance(error, OSError):
            message = f"part {part.number}: {error.strerror}"
            raise OSError(error.errno, message, part.path) from error
        msg = f"{describe_part(part)}: {error}"
        raise ValueError(msg) from error
    shown = [piece.parts[0][0] for piece in mapped]
    _check_guesses(plan.parts, shown, found["start"].tolist())
    files = Files(shown, found)
    for piece in plan.pieces:
        if piece.copied:
            _fill(buffer, piece, files)
            if mode == "r":
                buffer.set_writable(piece.start, piece.stop - piece.start, writable=False)
    return files


def _show_memory(buffer: SparseBuffer, piece: Piece, mode: str) -> None:
    part, at = piece.parts[0]
    buffer.map_file(
        piece.start,
        piece.stop - piece.start,
        part.memory,
        part.offset + piece.start - at,
        writable=mode == "r+",
        copy_on_write=mode == "c",
    )


def _check_guesses(parts: list[Part], mapped: list[Part], starts: list[bytes]) -> None:
    """Raise ValueError where a file that was guessed to be raw is a .npy file."""
    guessed = {part.number: part for part in parts if part.is_guess}
    for part, start in zip(mapped, starts, strict=True):
        if guessed.pop(part.number, None) and start.startswith(MAGIC):
            msg = f"{describe_part(part)}: a .npy file"
            raise ValueError(msg)
    for part in guessed.values():
        with naming(part):
            is_npy = part.path is not None and has_header(part.path)
        if is_npy:
            msg = f"{describe_part(part)}: a .npy file"
            raise ValueError(msg)


def _fill(buffer: SparseBuffer, piece: Piece, files: Files) -> None:
    buffer.alloc(piece.start, piece.stop - piece.start)
    for part, at in piece.parts:
        first, last = max(piece.start, at), min(piece.stop, at + part.nbytes)
        with naming(part):
            _copy(buffer, first, part, first - at, last - first, files)


def _copy(
    buffer: SparseBuffer, place: int, part: Part, skip: int, nbytes: int, files: Files
) -> None:
    """Copy bytes of a part, from its byte `skip` on, to pages that are all zeros."""
    if part.array is not None:
        source = part.array
        for start, stop in source.buffer.extents(source.offset + skip, nbytes).tolist():
            for at in range(start, stop, PIECE):
                data = source.buffer.read_at(at, min(PIECE, stop - at))
                buffer.write_at(place + at - source.offset - skip, data)
        return
    with opened(part.path, writable=False) as found:
        files.add(part, found.fd)
        for start, stop in _data(found.fd, part.offset + skip, part.offset + skip + nbytes):
            for at in range(start, stop, PIECE):
                data = os.pread(found.fd, min(PIECE, stop - at), at)
                if len(data) < min(PIECE, stop - at):
                    msg = f"{describe_part(part)}: cut short at byte {at + len(data)} meanwhile"
                    raise ValueError(msg)
                buffer.write_at(place + at - part.offset - skip, data)


def _data(fd: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Go through the data of a range of a file; lseek(2) on ``SEEK_DATA``."""
    while start < stop:
        try:
            first = os.lseek(fd, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole to the end
                return
            yield start, stop
            return
        last = os.lseek(fd, first, os.SEEK_HOLE)
        if first < stop:
            yield first, min(last, stop)
        start = last


class Files:
    """Which files an array was made of, whatever lies at their paths by now."""

    def __init__(self, mapped: list[Part], found: NDArray[np.void]) -> None:
        self._mapped = mapped
        self._found = found
        self._known: dict[str, tuple[int, int]] | None = None

    def add(self, part: Part, fd: int) -> None:
        """Note one that is open; ValueError where its path led to another one before."""
        path, facts = str(part.path), os.fstat(fd)
        found = facts.st_dev, facts.st_ino
        if self.identities().setdefault(path, found) != found:
            msg = f"{describe_part(part)}: replaced by another file meanwhile"
            raise ValueError(msg)

    def identities(self) -> dict[str, tuple[int, int]]:
        """Tell the device and inode of each, by its path."""
        if self._known is None:  # most arrays are never asked
            names = [str(part.path) for part in self._mapped]
            facts = zip(self._found["device"].tolist(), self._found["inode"].tolist(), strict=True)
            self._known = dict(zip(names, facts, strict=True))
        return self._known


class Stitched(Storage):
    """What a stitched array lives in: parts of files."""

    def __init__(self, parts: list[Part], mode: str, files: Files) -> None:
        self.parts = parts
        self.mode = mode
        self.what = count(len(parts), "part")
        self._files = files

    def places(self, array: SparseArray) -> list[tuple[str, int, int]] | None:  # noqa: ARG002 - as of any
        """Tell of all parts, if they lie in files that have what the array shows."""
        found = [(part.path, part.offset, part.nbytes) for part in self.parts if part.path]
        if self.mode == "c" or len(found) < len(self.parts):
            return None
        known = self._files.identities().items()
        return found if all(_identity(path) == one for path, one in known) else None

    def is_at(self, name: str) -> bool:
        """Tell whether a path leads to one of the files."""
        return _identity(name) in self._files.identities().values()

    def reference(self, array: StoredArray) -> tuple[Any, ...] | None:
        """Send the paths, unless some of it lies in memory."""
        if any(part.path is None for part in self.parts):
            return None
        for path, identity in self._files.identities().items():
            if _identity(path) != identity:
                msg = f"{path!r} is gone, or another file by now: the array cannot travel by it"
                raise FileNotFoundError(errno.ENOENT, msg, path)
        if array.buffer.damage:
            array.buffer.flush()  # AccessError: what is kept or lost is not in the files
        places = [(part.path, part.offset, part.nbytes) for part in self.parts]
        return _stitch_again, (places, array.dtype, array.shape, self.mode)


def _stitch_again(
    places: list[tuple[str, int, int]], dtype: np.dtype, shape: tuple[int, ...], mode: str
) -> StitchedArray:
    """Load what was pickled by its paths."""
    return _stitch(places, dtype, shape, mode, guess=False)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        facts = Path(path).stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino
