"""``sparsearray copy SRC DST``: copy a file so that holes stay holes, and zeros become some."""

import argparse
import errno
import fcntl
import os
import sys
from contextlib import suppress
from io import FileIO

from sparsearray._digging import copy_data, dig_holes
from sparsearray._new_file import PIECE, find_old, give, replacing
from sparsearray._progress import progress_bar
from sparsearray.errors import UnsupportedError

from .progress import add_progress, wants_progress
from .regular import nbytes_of_data, opened_regular, refuse_same

__all__ = ["add_copy", "copy_file"]

_FICLONE = 0x40049409  # linux/fs.h
# Of an ioctl that a file system, or a pair of them, has not got: ioctl_ficlone(2).
_NO_CLONE = {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.EPERM, errno.ETXTBSY}

_DESCRIPTION = """
Copy any file. Its holes stay holes, pages of zeros in its data become holes, and the copy reads the
same. DST is replaced when all of the copy is on disk, and if that fails stays as it was; a folder
gets a copy of the same name.
"""
_EXAMPLES = """
examples:
  sparsearray copy disk.img backup/
  sparsearray copy -p --no-sync volume.npy /mnt/fast/volume.npy

As with cp, links are followed, the copy of a new name gets the permissions of SRC as far as the
umask allows, and an old DST keeps its own. Where the file system can, the copy shares its disk
space with SRC until one of them is written.
"""


def add_copy(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "copy",
        help="copy a file: holes stay holes, zeros become some",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="SRC", help="a regular file")
    parser.add_argument("target", metavar="DST", help="a file, or a folder for it")
    parser.add_argument(
        "-n", "--no-clobber", action="store_true", help="do nothing where DST is there already"
    )
    parser.add_argument(
        "-p", "--preserve", action="store_true", help="keep permissions, owner and times of SRC"
    )
    parser.add_argument(
        "--reflink",
        choices=("auto", "never"),
        default="auto",
        help="share disk space with SRC where the file system can (auto)",
    )
    parser.add_argument(
        "--sync",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="wait until the copy is on disk; without, as cp, the system writes it when it will",
    )
    add_progress(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    copy_file(
        options.source,
        options.target,
        clobber=not options.no_clobber,
        preserve=options.preserve,
        reflink=options.reflink == "auto",
        sync=options.sync,
        progress=wants_progress(options),
    )


def copy_file(
    source: str,
    target: str,
    *,
    clobber: bool = True,
    preserve: bool = False,
    reflink: bool = True,
    sync: bool = True,
    progress: bool = False,
) -> None:
    """
    Copy a file.

    Parameters
    ----------
    source, target : str
        From which regular file to which; or into which folder.
    clobber : bool
        Replace a target that is there; or do nothing.
    preserve : bool
        Keep permissions, owner (as far as this process may) and times.
    reflink : bool
        Try to share disk space: ioctl_ficlone(2).
    sync : bool
        Wait until it is on disk.
    progress : bool
        Show a progress bar (needs tqdm).

    Raises
    ------
    OSError
        The source cannot be read, is the target, or is changed meanwhile; or the target cannot be
        written, or not be replaced. It is as it was then.
    """
    with opened_regular(source) as fd:
        facts = os.fstat(fd)
        if os.path.isdir(target):  # noqa: PTH112 - paths stay strings
            target = os.path.join(target, os.path.basename(source))  # noqa: PTH118, PTH119
        _path, old = find_old(target)
        refuse_same(source, target)
        if old is not None and not clobber:
            return
        try:
            with replacing(target, mode=facts.st_mode & 0o777, sync=sync, clobber=clobber) as file:
                _fill(fd, file, source, facts, reflink=reflink, write_soon=sync, progress=progress)
                if preserve:
                    give(file.fileno(), facts)
                    os.utime(file.fileno(), ns=(facts.st_atime_ns, facts.st_mtime_ns))
                now = os.fstat(fd)
                if (now.st_size, now.st_mtime_ns) != (facts.st_size, facts.st_mtime_ns):
                    raise OSError(errno.ESTALE, "changed while it was copied", source)
        except FileExistsError:
            if clobber:
                raise


def _fill(
    fd: int,
    file: FileIO,
    source: str,
    facts: os.stat_result,
    *,
    reflink: bool,
    write_soon: bool,
    progress: bool,
) -> None:
    nbytes, made = facts.st_size, file.fileno()
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    total = nbytes_of_data(fd, nbytes) if progress else 0
    try:
        with progress_bar("copy", total, shown=progress) as done:
            if reflink and nbytes and sys.platform == "linux" and _clone(fd, made):
                with suppress(UnsupportedError):  # of what it cannot make it has none to keep
                    dig_holes(made, nbytes, done)
                return
            os.ftruncate(made, nbytes)
            end = copy_data(fd, made, nbytes, done, write_soon=write_soon)
            if end < nbytes:  # as long as it says are not all files of /sys
                os.ftruncate(made, end)
            elif not nbytes:  # and those of /proc say nothing
                while piece := _read(fd):
                    file.write(piece)
    except OSError as error:
        if error.filename == fd:
            error.filename = source
        elif error.filename == made:
            error.filename = None  # whoever writes the file names it
        raise


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, PIECE)
    except OSError as error:
        error.filename = fd
        raise


def _clone(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in _NO_CLONE:
            return False
        raise
    return True
