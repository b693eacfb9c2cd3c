"""The command line: ``sparsearray`` and ``python -m sparsearray``."""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any, TextIO

import sparsearray
from sparsearray._text import printable
from sparsearray.errors import AccessError, SparseError

from .ending import EndedError, cleaning_up

__all__ = ["main"]

_COMMANDS = ("tour", "info", "map", "copy", "trim", "convert")
# Runtime errors are how h5py says what HDF5 has no number for.
_ERRORS = (OSError, ValueError, TypeError, ImportError, MemoryError, RuntimeError, SparseError)
_INTERRUPTED = 130  # as a shell says it of a process that a Ctrl-C ended
_BY_SIGNAL = 128  # and of others: this, and the signal's number


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """Import the command that is asked for, or all, and have it say what its options are."""
    parser = argparse.ArgumentParser(
        prog="sparsearray",
        description="Large, mostly-empty arrays and address spaces as numpy memory.",
        epilog="sparsearray COMMAND --help says more of each.",
    )
    parser.add_argument(
        "--version", action="version", version=f"%(prog)s {sparsearray.__version__}"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    wanted = [name for name in _COMMANDS if name in arguments[:1]] or _COMMANDS
    for name in wanted:
        getattr(import_module(f".{name}", __name__), f"add_{name}")(commands)
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
    try:
        with cleaning_up(), warnings.catch_warnings():
            warnings.showwarning = _warn
            if arguments is None:
                arguments = sys.argv[1:]
            options = _parser(arguments).parse_args(arguments)
            options.run(options)
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough
        _silence(sys.stdout)
        return 1
    except _ERRORS as error:
        _silence(sys.stdout)
        if sys.stderr is not None:
            print(f"sparsearray: error: {_one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    except EndedError as ended:
        return _BY_SIGNAL + ended.number
    return 0


def _warn(message: Warning | str, *_where: Any, **_how: Any) -> None:
    """Say a warning, as of zarr, the way errors are said: not with the code that it comes from."""
    if sys.stderr is not None:
        print(f"sparsearray: warning: {' '.join(str(message).split())}", file=sys.stderr)


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
