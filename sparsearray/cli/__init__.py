"""The command line: ``sparsearray`` and ``python -m sparsearray``."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TextIO

import sparsearray
from sparsearray._text import printable
from sparsearray.errors import AccessError, SparseError

from .convert import add_convert
from .copy import add_copy
from .ending import EndedError, cleaning_up
from .info import print_info
from .map import add_map
from .tour import print_tour
from .trim import add_trim

__all__ = ["main"]

_INTERRUPTED = 130  # as a shell says it of a process that a Ctrl-C ended
_BY_SIGNAL = 128  # and of others: this, and the signal's number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sparsearray",
        description="Large, mostly-empty arrays and address spaces as numpy memory.",
        epilog="sparsearray COMMAND --help says more of each.",
    )
    parser.add_argument(
        "--version", action="version", version=f"%(prog)s {sparsearray.__version__}"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    tour = commands.add_parser(
        "tour",
        help="show what the library does, on files of this machine",
        description="Reserve a terabyte, map real ELF files into it, and read them.",
    )
    tour.set_defaults(run=lambda _: print_tour())
    info = commands.add_parser(
        "info",
        help="show how a file would map",
        description="Show a file's data and holes and, for .npy and ELF files, what is inside.",
    )
    info.add_argument("file", metavar="FILE")
    info.set_defaults(run=lambda options: print_info(options.file))
    add_map(commands)
    add_copy(commands)
    add_trim(commands)
    add_convert(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run a command.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the process.

    Returns
    -------
    int
        The exit status: 0; 1 after an error, which is said in one line; 130 after a Ctrl-C, and
        128 and the signal's number after SIGTERM and SIGHUP: nothing half made is left then. Wrong
        usage exits with 2.
    """
    options = _parser().parse_args(arguments)
    try:
        with cleaning_up():
            options.run(options)
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough
        _silence(sys.stdout)
        return 1
    except (OSError, ValueError, TypeError, ImportError, MemoryError, SparseError) as error:
        _silence(sys.stdout)
        if sys.stderr is not None:
            print(f"sparsearray: error: {_one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    except EndedError as ended:
        return _BY_SIGNAL + ended.number
    return 0


def _silence(stream: TextIO | None) -> None:
    """Have Python write at exit what it can, and not complain of the rest."""
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _one_line(error: Exception) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{printable(os.fsdecode(error.filename))}: {error.strerror}"
    if isinstance(error, AccessError):  # has the name in what it says
        text = error.strerror or ""
    return " ".join(text.split()) or type(error).__name__
