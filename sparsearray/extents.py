"""Extents: the pages of a buffer that may hold something other than zero."""

import numpy as np
from numpy.typing import NDArray

from ._binding import failure, ffi, lib, put_back, take

__all__ = ["METHODS", "find_extents"]

METHODS = {
    "best": lib.SA_EXTENTS_BEST,
    "scan": lib.SA_EXTENTS_SCAN,
    "pagemap": lib.SA_EXTENTS_PAGEMAP,
    "held": lib.SA_EXTENTS_HELD,
}
_CODES = {**METHODS, "own": lib.SA_EXTENTS_OWN}
_CAPACITY = 1 << 15  # extents of one native call, at most


def find_extents(
    reservation: object, total: int, offset: int, nbytes: int, method: str = "best"
) -> NDArray[np.int64]:
    """
    Find the extents of a range.

    Parameters
    ----------
    reservation : cdata
        The native reservation.
    total : int
        Its length in bytes.
    offset, nbytes : int
        The range in bytes.
    method : {'best', 'scan', 'pagemap', 'held', 'own'}
        How memory is asked for; tests force it. ``'held'``: what memory may hold although the file
        has lost it, too. ``'own'``: what was written to private and copy-on-write pages alone.
    """
    pieces: list[NDArray[np.int64]] = []
    report = take()
    done = 0
    while True:
        pairs = np.empty((_CAPACITY, 2), np.int64)
        cell = ffi.from_buffer("int64_t[]", pairs, require_writable=True)
        code = lib.sa_extents(
            reservation, offset + done, nbytes - done, _CODES[method], cell, _CAPACITY, report
        )
        if code < 0:
            raise failure(code, report, "extents", offset, nbytes, total)
        found = pairs[: report.count]
        if pieces and len(found) and found[0, 0] == pieces[-1][-1, 1]:
            pieces[-1][-1, 1] = found[0, 1]
            found = found[1:]
        if len(found):
            pieces.append(found)
        done += report.transferred
        if code == lib.SA_OK:
            break
    put_back(report)
    if len(pieces) == 1:
        return pieces[0].copy()
    return np.concatenate(pieces) if pieces else np.empty((0, 2), np.int64)
