"""How an array is cut into files that `stitch` joins without a copy."""

import os
from itertools import pairwise
from math import gcd

from ._binding import index

__all__ = ["name_parts", "split_rows"]


def split_rows(rows: int, row_nbytes: int, parts: int) -> list[tuple[int, int]]:
    """
    Cut an array along its first axis, where pages end.

    Parameters
    ----------
    rows, row_nbytes : int
        How many there are, and the bytes of each.
    parts : int
        How many parts to make.

    Returns
    -------
    list of (first, stop)
        The rows of each part; as even as can be, where all but the last are of whole pages.

    Raises
    ------
    ValueError
        There are too few rows for so many such parts, or no parts.

    Examples
    --------
    >>> split_rows(5000, 8, 3)  # 512 items of 8 bytes make a page
    [(0, 2048), (2048, 3584), (3584, 5000)]
    """
    count, page = index(parts), os.sysconf("SC_PAGESIZE")
    if count < 1:
        msg = f"save: parts={count}: at least one"
        raise ValueError(msg)
    unit = page // gcd(page, row_nbytes)
    units = -(-rows // unit)
    if count > max(units, 1):
        msg = (
            f"save: {rows} rows of {row_nbytes} bytes do not make {count} parts of whole pages: "
            f"{max(units, 1)} fit, for {unit} rows end where a page of {page} bytes does"
        )
        raise ValueError(msg)
    few, more = divmod(units, count)
    cuts = [min((few * n + min(n, more)) * unit, rows) for n in range(count + 1)]
    return list(pairwise(cuts))


def name_parts(name: str, count: int) -> list[str]:
    """
    Name the files of an array in parts; sorted by name they are in order.

    Examples
    --------
    >>> name_parts("a.npy", 3), name_parts("a", 11)[:2]
    (['a.0.npy', 'a.1.npy', 'a.2.npy'], ['a.00', 'a.01'])
    """
    root, ending = (name[:-4], ".npy") if name.endswith(".npy") else (name, "")
    digits = len(str(count - 1))
    return [f"{root}.{n:0{digits}}{ending}" for n in range(count)]
