"""What is said of functions that would fill holes, or are not made for arrays that have any."""

from typing import Any

import numpy as np

__all__ = ["WAY", "name_of", "refusal"]

WAY = "on a window it works: a[index] of the part that you mean"

_INSTEAD = {
    np.save: "a.save(path) keeps the holes",
    np.savez: "a.save(path) keeps the holes",
    np.savez_compressed: "a.save(path) keeps the holes",
    np.transpose: "a[...].T is a window of all of it, without a copy",
    np.reshape: "a[...].reshape(shape) is a window of all of it, without a copy",
    np.ravel: "a[...].reshape(-1) is a window of all of it, without a copy",
}


def name_of(function: Any) -> str:
    """
    Write the name that numpy's users know a function by.

    Examples
    --------
    >>> import numpy as np
    >>> name_of(np.cos), name_of(np.linalg.svd)
    ('np.cos', 'np.linalg.svd')
    """
    name = getattr(function, "__name__", str(function))
    module = getattr(function, "__module__", None) or "numpy"
    return f"{module.replace('numpy', 'np', 1)}.{name}"


def refusal(function: Any, kind: str) -> TypeError:
    """Return the error for a function that has not been made for an array of this kind."""
    way = _INSTEAD.get(function, f"{WAY}, and a.blocks() goes through what is stored")
    return TypeError(f"{name_of(function)} is not made for a {kind}; {way}")
