"""How much memory there is to be had."""

import os

__all__ = ["available_memory", "huge_page_nbytes", "own_memory"]


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
