"""`RingReader`: a place in a ring from which one thread reads on."""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

if TYPE_CHECKING:
    from .ring import Ring

__all__ = ["RingReader"]


class RingReader:
    """
    A place in a `Ring` from which one thread reads on, made by `Ring.reader`.

    What it did not come to read in time it skips, and counts: it never waits, and nobody for it.

    Attributes
    ----------
    ring : Ring
        What it reads.
    position : int
        Number of the item that it will read next.
    lost : int
        How many items were gone before it came to read them.

    Examples
    --------
    >>> import sparsearray
    >>> ring = sparsearray.ring(512, "f8")
    >>> reader = ring.reader()
    >>> ring.push([1.0, 2.0, 3.0])
    >>> reader.read(2), reader.read(), reader.read()
    (array([1., 2.]), array([3.]), array([], dtype=float64))
    >>> ring.push(range(600))
    >>> reader.read(2), reader.lost
    (array([88., 89.]), 88)
    """

    __slots__ = ("lost", "position", "ring")

    def __init__(self, ring: Ring, position: int) -> None:
        if position < 0:
            msg = f"a reader from item {position} on: negative"
            raise ValueError(msg)
        self.ring = ring
        self.position = position
        self.lost = 0

    def read(self, n: int | None = None) -> NDArray[Any]:
        """
        Copy the next items.

        Parameters
        ----------
        n : int, optional
            How many at most; all by default.

        Returns
        -------
        ndarray
            Owned, and whole: no push came in between. Empty where nothing new is there; when to ask
            again is up to you.

        Raises
        ------
        ValueError
            `n` is negative.
        ClosedError
            The ring is closed.
        """
        most = None if n is None else index(n)
        if most is not None and most < 0:
            msg = f"read of {most} items: negative"
            raise ValueError(msg)
        pushed = self.ring.pushed
        start = max(self.position, min(self.ring.oldest, pushed))
        wanted = max(pushed - start, 0)
        if most is not None:
            wanted = min(wanted, most)
        made, oldest = self.ring._copy(start, wanted)
        # What was written over meanwhile is lost as well.
        late = min(max(oldest - start, 0), wanted)
        self.lost += start + late - self.position
        self.position = start + wanted
        return made[late:] if late else made

    def __repr__(self) -> str:
        return f"<RingReader at item {self.position} of {self.ring!r}, {self.lost} lost>"
