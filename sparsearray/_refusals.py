"""What is said of functions that would fill holes, or are not made for arrays that have any."""

from typing import Any

import numpy as np

__all__ = ["WAY", "missing_method", "name_of", "refusal"]

WAY = "on a part it works: a[index] is an ndarray"

_INSTEAD = {
    np.save: "a.save(path) keeps the holes",
    np.savez: "a.save(path) keeps the holes",
    np.savez_compressed: "a.save(path) keeps the holes",
    np.transpose: "a[...].T",
    np.reshape: "a[...].reshape(shape)",
    np.ravel: "a[...].reshape(-1)",
}
_IN_PLACE = ("byteswap", "fill", "itemset", "partition", "put", "resize", "setfield", "sort")


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
    if way.startswith("a[...]"):
        is_window = kind != "TiledArray"
        way += f" is a {'window' if is_window else 'copy'} of all of it"
        way += ", without a copy" if is_window else ", if that fits"
    return TypeError(f"{name_of(function)} is not made for a {kind}; {way}")


def missing_method(name: str, kind: str) -> str:
    """Say why an array of this kind has no such attribute, though those of numpy do."""
    if name in _IN_PLACE and kind == "TiledArray":
        # a[index] is a copy: what is done to it is lost.
        return f"a {kind} has no {name!r}; assign what a part becomes: a[index] = ..."
    return f"a {kind} has no {name!r}; {WAY}, as in a[index].{name}"
