"""What is zero, byte by byte."""

from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["filled_runs", "is_zero", "is_zero_bytes"]


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


def filled_runs(piece: NDArray[np.uint8], unit: int) -> list[tuple[int, int]]:
    """
    Find the runs of units, of so many bytes, that do not hold zeros only.

    Examples
    --------
    >>> filled_runs(np.array([0, 0, 0, 1, 2, 0, 0, 0, 3], "u1"), 2)
    [(2, 6), (8, 9)]
    """
    whole = len(piece) // unit * unit
    filled = piece[:whole].reshape(-1, unit).view(f"u{gcd(unit, 8)}").any(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], filled, [piece[whole:].any()], [0]])))
    starts, stops = (edges.reshape(-1, 2).T * unit).tolist()
    return list(zip(starts, np.minimum(stops, len(piece)).tolist(), strict=True))
