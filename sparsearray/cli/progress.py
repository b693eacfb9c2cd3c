"""Whether a command shows how far it is."""

import argparse
import sys
from importlib.util import find_spec

__all__ = ["add_progress", "wants_progress"]


def add_progress(parser: argparse.ArgumentParser, quiet: str = "no progress bar") -> None:
    """Add the options to a command; `quiet` says what it then leaves out."""
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="show a progress bar: by default on a terminal, if tqdm is installed",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help=quiet)


def wants_progress(options: argparse.Namespace) -> bool:
    """Tell whether to show a bar: as asked for, or where somebody looks and there is one."""
    if sys.stderr is None:  # closed: there is nowhere to show it
        return False
    if options.progress is not None:
        return bool(options.progress)
    if options.quiet or not sys.stderr.isatty():
        return False
    return find_spec("tqdm") is not None
