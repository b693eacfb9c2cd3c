"""How much memory there is to be had."""

import os
from collections.abc import Sequence
from math import prod
from typing import Any

from ._text import size as written

__all__ = ["UNCHECKED", "available_memory", "check_copy", "huge_page_nbytes", "own_memory"]

UNCHECKED = 64 << 20  # bytes that are not worth asking the system for


def available_memory() -> int | None:
    """
    Estimate the bytes that can still be filled before the system runs out.

    Returns
    -------
    int or None
        In bytes; None where the system does not say. See ``MemAvailable`` in proc(5).
    """
    found = 0
    try:
        with open("/proc/meminfo", "rb") as file:
            for line in file:
                key, _, rest = line.partition(b":")
                if key in (b"MemAvailable", b"SwapFree"):
                    found += int(rest.split()[0]) << 10
    except OSError:
        return None
    return found or None


def own_memory() -> int:
    """
    Say how much this process has in memory already.

    Returns
    -------
    int
        In bytes; 0 where the system does not say. See ``/proc/self/statm`` in proc(5).
    """
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return 0


def huge_page_nbytes() -> int:
    """
    Say how large the huge pages are that memory gets where it asks for them.

    Returns
    -------
    int
        In bytes; 0 where it never gets any.
    """
    folder = "/sys/kernel/mm/transparent_hugepage/"
    try:
        with open(folder + "enabled", "rb") as mode, open(folder + "hpage_pmd_size", "rb") as size:
            return 0 if b"[never]" in mode.read() else int(size.read())
    except OSError:
        return 0


def check_copy(shape: Sequence[int], dtype: Any) -> Sequence[int]:
    """
    Raise MemoryError for a dense copy that memory cannot hold; else return its shape.

    It comes before numpy's own, which on Linux is often none at all until the process is killed.
    """
    nbytes = prod(shape) * dtype.itemsize
    if nbytes <= UNCHECKED:
        return shape
    available = available_memory()
    if nbytes >= 1 << 62 or (available is not None and nbytes > available):
        free = "" if available is None else f", and {written(available)} are free"
        msg = (
            f"a dense copy of shape {tuple(shape)} and dtype {dtype} takes "
            f"{written(nbytes)}{free}; a[...] with an index copies a part, a.astype(dtype) and "
            "a.copy() keep the holes, and a.blocks() goes through what is stored"
        )
        raise MemoryError(msg)
    return shape
