"""Sums of small integers by the native core."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._binding import lib, pointer

__all__ = ["is_narrow", "sum_narrow"]


def is_narrow(dtype: np.dtype) -> bool:
    """Tell whether items are integers that numpy makes wider to add them up."""
    return dtype.kind in "iu" and dtype.itemsize < 8 and dtype.isnative


def sum_narrow(items: NDArray[Any], _axis: None, dtype: np.dtype) -> Any:
    """
    Add up small integers: numpy makes 64 bits of each first, which takes longer.

    Parameters
    ----------
    items : ndarray
        Of a dtype that `is_narrow`.
    dtype : dtype
        Of the sum: 64 bits.

    Examples
    --------
    >>> sum_narrow(np.array([[-3, 1], [7, 8]], "i2"), None, np.dtype("i8"))
    np.int64(13)
    """
    flat = np.ascontiguousarray(items).reshape(-1)
    found = 0
    if flat.size:
        data = pointer(flat, writable=False)
        found = lib.sa_sum(data, flat.size, flat.itemsize, flat.dtype.kind == "i")
    return np.uint64(found).view(dtype)
