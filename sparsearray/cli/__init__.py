"""The command line: ``sparsearray`` and ``python -m sparsearray``."""

import argparse
import os
import sys
from collections.abc import Sequence

import sparsearray
from sparsearray._text import printable
from sparsearray.errors import SparseError

from .info import print_info
from .tour import print_tour

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sparsearray",
        description="Large, mostly-empty arrays and address spaces as numpy memory.",
    )
    parser.add_argument(
        "--version", action="version", version=f"%(prog)s {sparsearray.__version__}"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser(
        "tour",
        help="show what the library does, on files of this machine",
        description="Reserve a terabyte, map real ELF files into it, and read them.",
    )
    info = commands.add_parser(
        "info",
        help="show how a file would map",
        description="Show a file's data and holes and, for .npy and ELF files, what is inside.",
    )
    info.add_argument("file", metavar="FILE")
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
        The exit status: 0, or 1 after an error, which is said in one line. Wrong usage exits
        with 2.
    """
    options = _parser().parse_args(arguments)
    try:
        if options.command == "tour":
            print_tour()
        else:
            print_info(options.file)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough: keep Python from complaining at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, ValueError, SparseError) as error:
        print(f"sparsearray: error: {_one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _one_line(error: Exception) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{printable(os.fsdecode(error.filename))}: {error.strerror}"
    return " ".join(text.split())
