"""New files: written with holes for zeros, and put in their place when all of it is on disk."""

from __future__ import annotations

import builtins
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from io import FileIO

__all__ = [
    "PIECE",
    "Replacements",
    "beside",
    "cuts",
    "find_old",
    "give",
    "give_owner",
    "name_file",
    "replacing",
    "take_room",
    "write_all",
    "write_filled",
]

PIECE = 4 << 20  # bytes looked at for zeros, and written, at a time
_PAGE = 4096  # what a hole on disk is made of
# Of chown(2): a process may not give files away, or knows no such owner.
_NOT_OURS = {errno.EPERM, errno.EACCES, errno.EINVAL}
# Of link(2) on a file system without hard links, or that refuses some of them.
_NO_LINK = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}


def cuts(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Cut part of a file at multiples of a piece, which the system then keeps in one."""
    while start < stop:
        end = min(start // PIECE * PIECE + PIECE, stop)
        yield start, end
        start = end


def take_room(fd: int, offset: int, nbytes: int) -> None:
    """Have the disk give room for a range of a file, which may make the file longer."""
    if nbytes:
        os.posix_fallocate(fd, offset, nbytes)


def write_all(fd: int, data: bytes | memoryview, at: int) -> None:
    rest = memoryview(data)
    while rest:
        done = os.pwrite(fd, rest, at)
        rest = rest[done:]
        at += done


def write_filled(fd: int, piece: NDArray[np.uint8], at: int) -> None:
    """Write what lies in pages of the file that are not all zeros."""
    head = min(-at % _PAGE, len(piece))
    body = (len(piece) - head) // _PAGE * _PAGE
    for start, stop in ((0, head), (head + body, len(piece))):
        if start < stop and piece[start:stop].any():
            write_all(fd, piece[start:stop].data, at + start)
    if not body:
        return
    filled = piece[head : head + body].reshape(-1, _PAGE)
    kept = filled.view("u8").any(axis=1) if filled.ctypes.data % 8 == 0 else filled.any(axis=1)
    if kept.all():
        write_all(fd, piece[head : head + body].data, at + head)
        return
    edges = np.flatnonzero(np.diff(np.concatenate([[False], kept, [False]]).astype(np.int8)))
    for first, last in (edges.reshape(-1, 2) * _PAGE + head).tolist():
        write_all(fd, piece[first:last].data, at + first)


@contextmanager
def replacing(
    name: str,
    access: int = os.W_OK,
    *,
    mode: int = 0o666,
    sync: bool = True,
    clobber: bool = True,
) -> Iterator[FileIO]:
    """
    Write a file beside the one of that name, and put it in its place when all of it is on disk.

    If the block raises, nothing is left of it, and the old file is as it was. Where there is none,
    `mode` is what the process's umask takes permissions from. Without `sync` the system writes it
    to disk when it will, and a machine that stops may lose both. Without `clobber` a file that is
    there, if only at the end, stays, and that raises FileExistsError.
    """
    with (
        Replacements(sync=sync, clobber=clobber) as files,
        files.writing(name, access, mode=mode) as file,
    ):
        yield file


class Replacements:
    """
    Files that are written beside others, and put in their places when all of them are on disk.

    They are, at the end of its ``with`` block. If that raises, nothing is left of them, and the old
    files are as they were.
    """

    def __init__(self, *, sync: bool = True, clobber: bool = True) -> None:
        self._waiting: list[tuple[Path, Path, str]] = []  # beside, target, as the caller named it
        self._sync = sync
        self._put = os.replace if clobber else _put_new

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        try:
            folders = dict.fromkeys(target.parent for _, target, _ in self._waiting)
            while kind is None and self._waiting:
                beside, target, name = self._waiting[0]
                try:
                    self._put(beside, target)
                except OSError as error:
                    name_file(error, name, str(beside))
                    raise
                del self._waiting[0]
        finally:
            for beside, _, _ in self._waiting:
                with suppress(OSError):
                    beside.unlink()
        if kind is None and self._sync:
            for folder in folders:
                _sync_folder(folder)

    @contextmanager
    def writing(self, name: str, access: int = os.W_OK, *, mode: int = 0o666) -> Iterator[FileIO]:
        """Write one of them, beside the one of that name."""
        target, old = find_old(name, access)
        if old is not None and self._put is _put_new:
            raise _is_there(name)
        made = beside(target)

        def opener(path: str, flags: int) -> int:
            # Nobody else reads in it meanwhile what the old file keeps from them.
            return os.open(path, flags, mode if old is None else 0o600)

        self._waiting.append((made, target, name))
        try:
            with builtins.open(made, "x+b", buffering=0, opener=opener) as file:
                if old is not None:
                    give(file.fileno(), old)
                yield file
                if self._sync:
                    os.fsync(file.fileno())
        except BaseException as error:
            name_file(error, name, str(made))
            raise


def beside(target: Path) -> Path:
    """Return a name of nothing yet, in the same folder."""
    # As bytes: a name has 255 of them at most, however many a character takes.
    label = os.fsdecode(os.fsencode(target.name)[:200])
    return target.with_name(f".{label}.{secrets.token_hex(6)}.tmp")


def give(file: int, facts: os.stat_result) -> None:
    """
    Give a file the owner and the permissions that another one has, as far as this process may.

    Set-user-ID and set-group-ID go where the owner stays: of another one they mean something else.
    """
    mode = stat.S_IMODE(facts.st_mode)
    if not give_owner(file, facts):
        mode &= ~(stat.S_ISUID | stat.S_ISGID)
    os.fchmod(file, mode)


def give_owner(file: int | Path, facts: os.stat_result) -> bool:
    """
    Give a file the owner and the group that another one has; or the group alone, or neither.

    Returns whether it has both.

    References
    ----------
    chown(2); user_namespaces(7), in which some owners have no number
    """
    try:
        os.chown(file, facts.st_uid, facts.st_gid)
    except OSError as error:
        if error.errno not in _NOT_OURS:
            raise
        with suppress(OSError):
            os.chown(file, -1, facts.st_gid)
        return False
    return True


def find_old(name: str, access: int = os.W_OK) -> tuple[Path, os.stat_result | None]:
    """
    Look at what is to be replaced: where it is, and what it is, if it is there.

    Raises OSError for what cannot be: no regular file, or one without the right to `access` it.
    """
    if not name:  # to realpath, the current folder
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    if os.path.basename(name) in ("", os.curdir):  # noqa: PTH119 - realpath makes a file of it
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    target = Path(os.path.realpath(name))
    old = None
    with suppress(FileNotFoundError):
        try:
            old = target.stat()
        except OSError as error:
            name_file(error, name, str(target))
            raise
        if stat.S_ISDIR(old.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
        if not stat.S_ISREG(old.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", name)
        if not os.access(target, access):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
    return target, old


def _put_new(beside: Path, target: Path) -> None:
    """
    Give a file its name, unless there is one of that name by now: then raise FileExistsError.

    References
    ----------
    link(2), which replaces nothing
    """
    try:
        os.link(beside, target)
    except FileExistsError:
        raise _is_there(str(beside)) from None  # whoever writes the file names it
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
    else:
        beside.unlink()
        return
    # An empty file takes the name, which fails where there is one, and is then replaced.
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise _is_there(str(beside)) from None
    try:
        beside.replace(target)
    except BaseException:
        if os.path.lexists(beside):
            target.unlink()
        raise


def _is_there(name: str) -> FileExistsError:
    return FileExistsError(errno.EEXIST, "is there by now, and is not replaced", name)


def _sync_folder(folder: Path) -> None:
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # a folder to write in, but not to look into
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def name_file(error: BaseException, name: str, beside: str | None = None) -> None:
    """Have an error of a call that knew only a descriptor, or the file beside, name the file."""
    if not isinstance(error, OSError) or type(error).__module__ != "builtins":
        return
    if error.filename in (None, beside):
        error.filename = name
        if error.filename2 is not None:
            del error.filename2
