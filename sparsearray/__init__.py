"""
Large, mostly-empty arrays and address spaces as real numpy memory.

`SparseBuffer` reserves a range of addresses and populates it piece by piece with private memory,
zero pages and windows of files. Reads and writes at bad places raise exceptions instead of ending
the process, and windows are plain numpy arrays that keep their memory alive.
"""

from importlib.metadata import version as _version

from .atomics import AtomicSlice
from .buffer import SparseBuffer
from .errors import AccessError, ClosedError, OutOfBoundsError, SparseError, UnsupportedError
from .region import Region
from .shared import SharedMemory, shared_memory

__version__ = _version("sparsearray-numpy")

__all__ = [
    "AccessError",
    "AtomicSlice",
    "ClosedError",
    "OutOfBoundsError",
    "Region",
    "SharedMemory",
    "SparseBuffer",
    "SparseError",
    "UnsupportedError",
    "__version__",
    "shared_memory",
]
