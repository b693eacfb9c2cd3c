"""What is zero, byte by byte."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["is_zero", "is_zero_bytes"]


def is_zero(value: Any, dtype: np.dtype) -> bool:
    """Tell whether a single value becomes zero bytes in an array."""
    if not isinstance(value, bool | int | float | complex | bytes | str | np.generic | np.ndarray):
        return False
    item, made = np.asarray(value), np.zeros((), dtype)
    if item.ndim or (item.dtype.kind in "biufc" and item != 0):
        return False
    try:
        made[...] = value
    except (TypeError, ValueError, OverflowError):  # numpy will say it where the value is used
        return False
    return not made.tobytes().strip(b"\0")


def is_zero_bytes(array: NDArray[Any]) -> bool:
    """Tell whether all bytes of an array are zero."""
    return not np.ascontiguousarray(array).reshape(-1).view("u1").any()
