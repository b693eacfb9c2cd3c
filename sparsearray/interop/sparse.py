"""From and to the arrays of pydata's ``sparse``."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from sparsearray._optional import needed
from sparsearray.array import SparseArray
from sparsearray.creation import zeros
from sparsearray.tiled import TiledArray

from ._coordinates import check_numbers, collect, fill_by_coordinates, is_zero

__all__ = ["from_sparse", "to_sparse"]


def to_sparse(array: Any, format: Literal["coo", "gcxs"] = "coo") -> Any:  # noqa: A002 - theirs
    """
    Make a ``sparse.COO`` of what is not zero.

    Parameters
    ----------
    array : SparseArray or TiledArray
        Which.
    format : {'coo', 'gcxs'}
        The second gives a ``sparse.GCXS``.

    Returns
    -------
    sparse.COO or sparse.GCXS
        Of fill value zero. A -0.0 is equal to that, and left out; NaN is stored.

    Raises
    ------
    TypeError
        It is no such array, or its items are no numbers, or of another byte order.
    ValueError
        There is no such format.
    MemoryError
        What is not zero does not fit.
    ClosedError, AccessError, OSError
        As `SparseArray.extents`.

    Examples
    --------
    >>> import sparsearray
    >>> a = sparsearray.zeros((100, 1 << 15, 1 << 15))
    >>> a[70, 5, 3], a[6, 1000, 3] = 1, 2
    >>> s = to_sparse(a)
    >>> s.shape, s.nnz, s.data
    ((100, 32768, 32768), 2, array([2., 1.]))
    """
    sparse = needed("sparse", "to_sparse", "sparse")
    if format not in ("coo", "gcxs"):
        msg = f"to_sparse: format must be 'coo' or 'gcxs', not {format!r}"
        raise ValueError(msg)
    check_numbers(array, "to_sparse", "sparse")
    if format == "gcxs" and array.dtype.char in "egG":
        msg = f"to_sparse: a GCXS has no {array.dtype}, which numba does not know"
        raise TypeError(msg)
    data, coords = collect(array, "to_sparse")
    places = np.stack(coords) if coords else np.empty((0, len(data)), np.int64)
    made = sparse.COO(
        places,
        data,
        shape=array.shape,
        has_duplicates=False,
        sorted=True,
        fill_value=np.zeros((), array.dtype)[()],
    )
    return made if format == "coo" else sparse.GCXS.from_coo(made)


def from_sparse(array: Any, *, tiles: Any = None) -> SparseArray | TiledArray:
    """
    Make an array of what an array of pydata's ``sparse`` stores.

    Parameters
    ----------
    array : sparse.SparseArray
        COO, GCXS or DOK.
    tiles : int, tuple of ints or 'auto', optional
        As of `zeros`.

    Returns
    -------
    SparseArray
        Or `TiledArray`, with `tiles`; in memory.

    Raises
    ------
    ValueError
        Its fill value is not zero; or as `zeros`.
    TypeError
        It is no such array, or holds objects.
    MemoryError
        There are not enough addresses, or not enough memory for the pages that items lie on.

    Examples
    --------
    >>> import sparse
    >>> a = from_sparse(sparse.COO([[3], [4]], [5.0], shape=(1 << 20, 1 << 20)))
    >>> a[3, 3:6]
    array([0., 5., 0.])
    """
    sparse = needed("sparse", "from_sparse", "sparse")
    if not isinstance(array, sparse.SparseArray):
        msg = f"from_sparse takes an array of sparse, not {type(array).__name__}"
        raise TypeError(msg)
    if not is_zero(np.asarray(array.fill_value, array.dtype)):
        msg = f"from_sparse: the fill value is {array.fill_value!r}, and holes are zero"
        raise ValueError(msg)
    made: SparseArray | TiledArray = zeros(array.shape, array.dtype, tiles=tiles)
    found = array.asformat("coo")
    fill_by_coordinates(made, list(found.coords), found.data)
    return made
