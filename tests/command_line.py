"""What tests of the command line share: the command, run as users do, and files for it."""

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import strategies as st

from .sparse_files import data_pages

PAGE = 4096  # what holes on disk are made of
COMMAND = (sys.executable, "-P", "-m", "sparsearray")


def run(*arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    options = {"capture_output": True, "text": True, "timeout": 60} | more
    return subprocess.run([*COMMAND, *map(str, arguments)], check=False, **options)


def run_interrupted(
    number: int, command: str, *arguments: object
) -> subprocess.CompletedProcess[str]:
    """Run a command that, after some of its work, is sent a signal."""
    module = {"convert": "targets"}.get(command, command)
    script = f"""
import contextlib, os, sys
import sparsearray.cli.{module} as module
from sparsearray.cli import main
show = module.progress_bar

@contextlib.contextmanager
def interrupting(*arguments, **more):
    with show(*arguments, **more) as done:
        calls = []
        def send(nbytes):
            done(nbytes)
            calls.append(nbytes)
            if len(calls) == 3:
                os.kill(os.getpid(), {int(number)})
        yield send
    os._exit(99)  # it went on to its end

module.progress_bar = interrupting
sys.exit(main())
"""
    line = [sys.executable, "-P", "-c", script, command, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


class Layout(NamedTuple):
    """What a file is made of: (kind, bytes), one after the other."""

    pieces: list[tuple[str, int]]

    def content(self) -> bytes:
        """Tell what it reads as."""
        made = random.Random(7)
        return b"".join(
            made.randbytes(nbytes).replace(b"\0", b"\1") if kind == "data" else bytes(nbytes)
            for kind, nbytes in self.pieces
        )

    def write(self, path: Path) -> bytes:
        """Make the file, with holes where there are some; its content."""
        content, at = self.content(), 0
        with path.open("wb") as file:
            file.truncate(len(content))
            for kind, nbytes in self.pieces:
                if kind != "hole":
                    os.pwrite(file.fileno(), content[at : at + nbytes], at)
                at += nbytes
        return content


def layouts() -> st.SearchStrategy[Layout]:
    """Draw runs of data, zeros and holes, of whole pages and others."""
    nbytes = st.sampled_from([1, 100, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 5 * PAGE, 70 * PAGE])
    kinds = st.sampled_from(["data", "zeros", "hole"])
    return st.lists(st.tuples(kinds, nbytes), max_size=8).map(Layout)


def pages_of(path: Path) -> set[int]:
    """Ask the file system where its data is."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return data_pages(fd)
    finally:
        os.close(fd)


def filled_pages(content: bytes) -> set[int]:
    """Tell which pages of a file have to be stored."""
    pages = range(-(-len(content) // PAGE))
    return {n for n in pages if content[n * PAGE : (n + 1) * PAGE].strip(b"\0")}
