"""The methods of arrays that lead to other libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from .stored import StoredArray

__all__ = ["Conversions"]


class Conversions:
    """What an array can become elsewhere. `sparsearray.interop` does it, and is imported then."""

    __slots__ = ()

    # dask

    # zarr

    # HDF5

    def to_hdf5(
        self,
        target: Any,
        name: str = "data",
        *,
        chunks: int | tuple[int, ...] | None = None,
        overwrite: bool = False,
        progress: bool = False,
        **options: Any,
    ) -> None:
        """
        Write it as an HDF5 dataset of which only the chunks that hold something are stored.

        Parameters
        ----------
        target : path or h5py.Group
            A new file, which is there whole or not at all; or where to put the dataset.
        name : str
            Of the dataset.
        chunks, overwrite, progress, **options
            As of `sparsearray.interop.hdf5.to_hdf5`.

        Raises
        ------
        ImportError
            h5py is not installed.
        TypeError, ValueError, OSError, ClosedError, AccessError
            As of `sparsearray.interop.hdf5.to_hdf5`.
        """
        from .interop.hdf5 import to_hdf5

        to_hdf5(
            cast("StoredArray", self),
            target,
            name,
            chunks=chunks,
            overwrite=overwrite,
            progress=progress,
            **options,
        )

    # scipy.sparse, and pydata's sparse
