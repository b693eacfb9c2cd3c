"""
Large, mostly-empty arrays and address spaces as real numpy memory.

`zeros` makes a `SparseArray` of any size that costs what is written to it, or with ``tiles=`` a
`TiledArray`, of which small boxes cost what they hold; `save` and `open` keep them in .npy files
with holes. Functions of numpy skip what is not there.

`SparseBuffer` reserves a range of addresses and populates it piece by piece with private memory,
zero pages and windows of files. Reads and writes at bad places raise exceptions instead of ending
the process, and windows are plain numpy arrays that keep their memory alive.
"""

from importlib.metadata import version as _version

from .array import SparseArray
from .atomics import AtomicSlice
from .buffer import SparseBuffer
from .creation import zeros
from .errors import (
    AccessError,
    ClosedError,
    OutOfBoundsError,
    OverrunError,
    SparseDamageWarning,
    SparseError,
    UnsupportedError,
)
from .faults import Damage, install_fault_handler
from .files import open, save  # noqa: A004 - as np.memmap and h5py call it
from .interop.hdf5 import from_hdf5
from .interop.scipy import from_scipy
from .interop.sparse import from_sparse
from .interop.zarr import from_zarr
from .region import Region
from .ring import Ring, ring
from .ring_reader import RingReader
from .shared import SharedMemory, shared_memory
from .stitch import StitchedArray, stitch
from .tiled import TiledArray

__version__ = _version("sparsearray-numpy")

__all__ = [
    "AccessError",
    "AtomicSlice",
    "ClosedError",
    "Damage",
    "OutOfBoundsError",
    "OverrunError",
    "Region",
    "Ring",
    "RingReader",
    "SharedMemory",
    "SparseArray",
    "SparseBuffer",
    "SparseDamageWarning",
    "SparseError",
    "StitchedArray",
    "TiledArray",
    "UnsupportedError",
    "__version__",
    "from_hdf5",
    "from_scipy",
    "from_sparse",
    "from_zarr",
    "install_fault_handler",
    "open",
    "ring",
    "save",
    "shared_memory",
    "stitch",
    "zeros",
]
