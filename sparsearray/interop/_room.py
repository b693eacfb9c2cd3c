"""Whether there is memory for what is read."""

from __future__ import annotations

from sparsearray._memory import UNCHECKED, available_memory
from sparsearray._text import size as written

__all__ = ["Room"]


class Room:
    """
    Raises MemoryError when what is read does not fit any more.

    Parameters
    ----------
    name : str
        What is read, as messages have it.
    library : str
        What reads parts of it.
    """

    def __init__(self, name: str, library: str) -> None:
        self._name = name
        self._library = library
        self._since = 0

    def take(self, nbytes: int) -> None:
        """Note what is about to be stored; the system is asked now and then."""
        self._since += nbytes
        if self._since >= UNCHECKED:
            self.check(self._since)
            self._since = 0

    def check(self, nbytes: int) -> None:
        """Ask the system whether so many bytes fit."""
        available = available_memory()
        if available is not None and available < nbytes:
            msg = (
                f"{self._name} has to be read into memory: {written(nbytes)} more, where "
                f"{written(available)} are left; {self._library} reads parts of it"
            )
            raise MemoryError(msg)
