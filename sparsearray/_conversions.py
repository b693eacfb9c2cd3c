"""The methods of arrays that lead to other libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

from ._optional import needed

if TYPE_CHECKING:
    from .stored import StoredArray

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

        needed("dask.array", "to_dask", "dask")  # or it says that from_array needs it
        return from_array(self, chunks, name=name)

    def __dask_tokenize__(self) -> Any:
        from .interop.dask import make_token

        return make_token(cast("StoredArray", self))

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
            Of a new array: by default the tiles, or of other arrays what suits what they hold.
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

    def to_coo(self) -> Any:
        """
        Make a ``scipy.sparse.coo_array`` of what is not zero, in C order; holes are skipped.

        Raises
        ------
        ImportError
            scipy is not installed.
        TypeError, ValueError, MemoryError, ClosedError, AccessError, OSError
            As of `sparsearray.interop.scipy.to_coo`.
        """
        from .interop.scipy import to_coo

        return to_coo(self)

    def to_csr(self) -> Any:
        """
        Make a ``scipy.sparse.csr_array`` of what is not zero; holes are skipped.

        Raises
        ------
        ImportError
            scipy is not installed.
        TypeError, ValueError, MemoryError, ClosedError, AccessError, OSError
            As of `sparsearray.interop.scipy.to_csr`.
        """
        from .interop.scipy import to_csr

        return to_csr(self)

    def to_bsr(self, blocksize: tuple[int, int] | None = None) -> Any:
        """
        Make a ``scipy.sparse.bsr_array`` of the blocks that are not zero; holes are skipped.

        Parameters
        ----------
        blocksize : (int, int), optional
            Rows and columns of a block, which must divide the shape. By default the tiles.

        Raises
        ------
        ImportError
            scipy is not installed.
        TypeError, ValueError, MemoryError, ClosedError, AccessError, OSError
            As of `sparsearray.interop.scipy.to_bsr`.
        """
        from .interop.scipy import to_bsr

        return to_bsr(self, blocksize)

    def to_sparse(self, format: Literal["coo", "gcxs"] = "coo") -> Any:  # noqa: A002 - theirs
        """
        Make a ``sparse.COO``, of pydata's package, of what is not zero; holes are skipped.

        Parameters
        ----------
        format : {'coo', 'gcxs'}
            The second gives a ``sparse.GCXS``.

        Raises
        ------
        ImportError
            sparse is not installed.
        TypeError, ValueError, MemoryError, ClosedError, AccessError, OSError
            As of `sparsearray.interop.sparse.to_sparse`.
        """
        from .interop.sparse import to_sparse

        return to_sparse(self, format)
