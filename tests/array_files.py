"""What tests of arrays in files share: files made by hand, and what is in a file and a folder."""

import mmap
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

import sparsearray

P = mmap.PAGESIZE
DISK_PAGE = 4096  # of our headers, and of what holes on disk are made of
MAGIC = b"\x93NUMPY"
MODES = ["r", "r+", "c"]
TOO_LONG = np.dtype([(f"field_{i:06}", "<f8") for i in range(400)])
GOOD = "{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}"


def content(array: Any) -> Any:
    """Tell the bits of all items: of each field, for what lies between fields is nobody's."""
    found = np.asarray(array)
    if found.dtype.names is not None:
        return {name: content(found[name]) for name in found.dtype.names}
    return np.ascontiguousarray(found).tobytes()


def assert_same(found: Any, expected: Any) -> None:
    """Compare shape, dtype and every bit."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert content(found) == content(expected)


def assert_file_is(path: Path, expected: Any) -> None:
    """Read a file in all the ways there are."""
    assert_same(np.load(path), expected)
    expected = np.asarray(expected)
    if expected.nbytes:
        assert_same(np.load(path, mmap_mode="r"), expected)
    for mode in MODES:
        with sparsearray.open(path, mode) as found:  # type: ignore[arg-type]
            assert_same(found, expected)


def stored(path: Path) -> int:
    """Bytes that a file takes on disk."""
    return path.stat().st_blocks * 512


def names(folder: Path) -> list[str]:
    """Tell what is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def open_files() -> int:
    """Count descriptors at once, without collecting garbage: there must be none."""
    return len(list(Path("/proc/self/fd").iterdir()))


def make_npy(header: str, data: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    """Make a file with a header of any text."""
    body = header.encode("utf8" if version == (3, 0) else "latin1") + b"\n"
    length = len(body).to_bytes(2 if version == (1, 0) else 4, "little")
    return MAGIC + bytes(version) + length + body + data


def counting(nbytes: int) -> bytes:
    """Make bytes, none of them zero."""
    return (bytes(range(1, 252)) * (nbytes // 251 + 1))[:nbytes]


def killed_after(seconds: float, script: str, folder: Path) -> None:
    """Run a script that says "ready" and goes on for ever, and kill it."""
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", dedent(script)], cwd=folder, stdout=subprocess.PIPE
    )
    assert child.stdout
    assert child.stdout.readline() == b"ready\n"
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(seconds)
    child.kill()
    child.wait()
    child.stdout.close()
