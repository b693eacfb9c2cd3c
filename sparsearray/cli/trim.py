"""``sparsearray trim FILE``: make holes of the pages of zeros in a file, in place."""

import argparse
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from sparsearray._digging import dig_holes
from sparsearray._progress import progress_bar
from sparsearray._text import printable, size
from sparsearray.errors import UnsupportedError

from .lease import held_alone
from .progress import add_progress, wants_progress
from .regular import nbytes_of_data, opened_regular

__all__ = ["add_trim", "trim_file"]

_DESCRIPTION = """
Give back the disk space of pages of zeros in a file, in place. What it reads as, its length and its
times stay the same. Space that was reserved for a file and never written stays, too.
"""
_EXAMPLES = """
examples:
  sparsearray trim --dry-run disk.img
  sparsearray trim volume.npy

What somebody writes to a page of zeros between the look at it and the hole would be lost. So FILE
is refused while anybody has it open, or mapped, and who wants to open it meanwhile waits for a
moment; trim then stops, and says so. --force goes without: only where you know that nobody writes.
"""


def add_trim(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "trim",
        help="give back the disk space of zeros in a file",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="a regular file")
    parser.add_argument("--dry-run", action="store_true", help="only say how much it would be")
    parser.add_argument(
        "-f", "--force", action="store_true", help="even if others may write to it meanwhile"
    )
    add_progress(parser, "no progress bar, and say nothing")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    freed = trim_file(
        options.file,
        dry_run=options.dry_run,
        force=options.force,
        progress=wants_progress(options),
    )
    if not options.quiet:
        what = "in pages of zeros" if options.dry_run else "given back"
        exact = "" if freed < 1024 else f" ({freed:#x} ({freed:,}) bytes)"
        print(f"{printable(options.file)}: {size(freed)} {what}{exact}")


def trim_file(
    path: str, *, dry_run: bool = False, force: bool = False, progress: bool = False
) -> int:
    """
    Make holes of the pages of zeros in a file.

    Parameters
    ----------
    path : str
        A regular file.
    dry_run : bool
        Only look.
    force : bool
        Do not keep others from opening it. What they write meanwhile may be lost, and its times do
        not tell of it.
    progress : bool
        Show a progress bar (needs tqdm).

    Returns
    -------
    int
        Bytes of pages that were given back, or could be.

    Raises
    ------
    OSError
        It cannot be written, is no regular file, or somebody else has it open, or wants to open it.
        What was given back by then stays so.
    UnsupportedError
        The system, or the file system, cannot make holes in a file.
    """
    with opened_regular(path, os.O_RDONLY if dry_run else os.O_RDWR) as fd:
        if dry_run:
            return _dig(fd, path, lambda: True, dry_run=True, progress=progress)
        if force:
            with _times_kept(fd):
                return _dig(fd, path, lambda: True, dry_run=False, progress=progress)
        with held_alone(fd, path) as is_alone, _times_kept(fd):
            return _dig(fd, path, is_alone, dry_run=False, progress=progress)


@contextmanager
def _times_kept(fd: int) -> Iterator[None]:
    """Nothing that can be read changes: so backups need not see a new file."""
    facts = os.fstat(fd)
    try:
        yield
    finally:
        with suppress(PermissionError):  # of a file of somebody else's, by force
            os.utime(fd, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def _dig(fd: int, path: str, is_alone: Callable[[], bool], *, dry_run: bool, progress: bool) -> int:
    nbytes = os.fstat(fd).st_size
    total = nbytes_of_data(fd, nbytes) if progress else 0
    with progress_bar("trim", total, shown=progress) as shown:
        is_wanted = False

        def done(read: int) -> None:
            nonlocal is_wanted
            shown(read)
            if is_wanted:  # since the piece before: there is more than that
                msg = "somebody wants to open it: trimmed in part, run it again for the rest"
                raise OSError(errno.EBUSY, msg, path)
            is_wanted = not is_alone()

        try:
            return dig_holes(fd, nbytes, done, look_only=dry_run)
        except UnsupportedError as error:
            msg = f"{printable(path)}: {error}"
            raise UnsupportedError(msg) from error
        except OSError as error:
            if error.filename == fd:
                error.filename = path
            raise
