"""The methods of arrays that lead to other libraries."""

from __future__ import annotations

from typing import Any

__all__ = ["Conversions"]


class Conversions:
    """What an array can become elsewhere. `sparsearray.interop` does it, and is imported then."""

    __slots__ = ()

    # dask

    def to_dask(self, chunks: Any = "auto", *, name: str | None = None) -> Any:
        """
        Make a dask array of it, without reading it.

        Parameters
        ----------
        chunks : 'auto', 'stored', or as of `dask.array.from_array`
            ``'stored'``: few chunks that hold as much as others are large, and skip their holes.
        name : str, optional
            Of the result; must be unique.

        Returns
        -------
        dask.array.Array

        Raises
        ------
        ImportError
            dask is not installed.
        TypeError, ValueError, ClosedError, AccessError, OSError
            As `sparsearray.interop.dask.from_array`, which says more.

        Examples
        --------
        >>> import sparsearray
        >>> a = sparsearray.zeros((1 << 20, 1 << 17))  # a terabyte
        >>> a[5:7, :3] = 1, 2, 3
        >>> a.to_dask(chunks="stored").sum().compute()
        np.float64(12.0)
        """
        from .interop.dask import from_array

        return from_array(self, chunks, name=name)

    def __dask_tokenize__(self) -> Any:
        from .interop.dask import make_token

        return make_token(self)  # type: ignore[arg-type]  # all that has this is a StoredArray

    # zarr

    # HDF5

    # scipy.sparse, and pydata's sparse
