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

    def to_zarr(
        self,
        store: Any,
        *,
        path: str = "",
        chunks: Any = None,
        overwrite: bool = False,
        progress: bool = False,
        **options: Any,
    ) -> Any:
        """
        Write what is stored to a zarr array, new or there already.

        Parameters
        ----------
        store : path, zarr store or zarr.Array
            Where it goes.
        path : str
            Of a new array in the store.
        chunks : int, tuple of ints or 'auto', optional
            Of a new array: by default the tiles, or what zarr chooses for arrays in C order.
        overwrite : bool
            Replace what is there.
        progress : bool
            Show a progress bar (needs tqdm).
        **options
            Of a new array, as of ``zarr.create_array``.

        Returns
        -------
        zarr.Array

        Raises
        ------
        TypeError, ValueError, OSError, ImportError
            As `sparsearray.interop.zarr.to_zarr`, which says more.

        Examples
        --------
        >>> import tempfile
        >>> import sparsearray
        >>> a = sparsearray.zeros((1 << 20, 1 << 17), tiles=64)
        >>> a[1000:1010, 2000] = 1
        >>> z = a.to_zarr(tempfile.mkdtemp() + "/a.zarr")
        >>> z.nchunks_initialized, float(z[1005, 2000])
        (1, 1.0)
        """
        from .interop.zarr import to_zarr

        return to_zarr(
            cast("StoredArray", self),
            store,
            path=path,
            chunks=chunks,
            overwrite=overwrite,
            progress=progress,
            **options,
        )

    # HDF5

    # scipy.sparse, and pydata's sparse
