"""The methods of arrays that lead to other libraries."""

from __future__ import annotations

__all__ = ["Conversions"]


class Conversions:
    """What an array can become elsewhere. `sparsearray.interop` does it, and is imported then."""

    __slots__ = ()

    # dask

    # zarr

    # HDF5

    # scipy.sparse, and pydata's sparse
