"""What becomes of windows whose file fails under them, and who has SIGBUS."""

import os
from typing import Any, NamedTuple

from ._binding import REASONS, failure, ffi, lib, put_back, take

__all__ = ["Damage", "install_fault_handler", "list_damage"]


class Damage(NamedTuple):
    """
    Part of a buffer's windows that lost its file.

    Attributes
    ----------
    offset, nbytes : int
        Where, in bytes from the start of the buffer.
    reason : str
        ``'file-truncated'``, ``'io-error'``, ``'no-space'`` or ``'no-memory'``: see `AccessError`.
    file : str
        The file.
    kept : bool
        Whether memory keeps what is written there until there is room on the disk. Otherwise
        windows show zeros, and what is written to them reaches no file.
    """

    offset: int
    nbytes: int
    reason: str
    file: str
    kept: bool


def list_damage(reservation: Any, total: int, *, tell: bool = True) -> tuple[Damage, ...]:
    """
    List what windows have lost.

    Parameters
    ----------
    reservation : cdata
        The native reservation.
    total : int
        Its length in bytes.
    tell : bool
        Whether somebody is told by it.
    """
    report, count, capacity = take(), ffi.new("uint64_t *"), 16
    while True:
        found = ffi.new("sa_damage[]", capacity)
        code = lib.sa_list_damage(reservation, tell, found, capacity, count, report)
        if code:
            raise failure(code, report, "damage", 0, total, total)
        if count[0] <= capacity:
            break
        capacity = count[0] + 16
    listed = []
    for i in range(count[0]):
        one = found[i]
        lib.sa_file_name(reservation, one.file, report)
        name = os.fsdecode(ffi.string(report.file))
        listed.append(Damage(one.offset, one.nbytes, REASONS[one.reason], name, bool(one.kept)))
    put_back(report)
    return tuple(listed)


def install_fault_handler(enabled: bool = True) -> bool:
    """
    Say whether windows of files survive what happens to the files. They do, unless told otherwise.

    A file that somebody else cuts short, a page that the disk cannot read, a full disk: each is
    SIGBUS for who touches the window. The handler of that signal gives the window other pages, and
    `SparseBuffer.damage` tells. It is put in place when the first file is mapped, and again when a
    window of a file is made and somebody else has taken the signal. Faults that have nothing to do
    with windows go to whoever had the signal before.

    Parameters
    ----------
    enabled : bool
        False, for those who own SIGBUS themselves: it goes back to who had it before, and is not
        taken again. Then only guarded calls (`SparseBuffer.read_at` and its kin) survive such
        faults. True undoes that.

    Returns
    -------
    bool
        What held before.

    Raises
    ------
    OSError
        The system does not give the signal back.

    Examples
    --------
    >>> import sparsearray
    >>> sparsearray.install_fault_handler(False)
    True
    >>> sparsearray.install_fault_handler()
    False

    References
    ----------
    sigaction(2)
    """
    before = bool(lib.sa_windows_are_protected())
    report = take()
    code = lib.sa_protect_windows(bool(enabled), report)
    if code:
        raise failure(code, report, "install_fault_handler", 0, 0, 0)
    put_back(report)
    return before
