"""
How a ring lies in shared memory.

In its first page are facts, the counters and the dtype as text; from the next page on, the items.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass
from math import gcd
from struct import Struct

import numpy as np

from ._new_file import PIECE
from ._process_lock import ProcessLock
from .buffer import SparseBuffer
from .shared import SharedMemory

__all__ = ["CLAIMED", "PUBLISHED", "RingMemory"]

CLAIMED, PUBLISHED = 128, 256  # the counters, each in a cache line of its own
_MAGIC = b"SA-ring\1"
_FACTS = Struct("<8sQQQI")  # magic; where the items begin; their number and size; bytes of text
_TEXT = 512  # where the dtype is written down, behind the counters
_settling = ProcessLock()  # lockf knows processes only


@dataclass(frozen=True)
class RingMemory:
    """What a ring is, and where that is written down."""

    count: int
    dtype: np.dtype
    start: int
    """Where the items begin, in bytes."""

    @classmethod
    def of(cls, count: int, dtype: np.dtype, page: int) -> RingMemory:
        """Round a ring up to whole pages of items."""
        unit = page // gcd(page, dtype.itemsize)
        text = len(repr(dtype).encode())
        return cls(-(-count // unit) * unit, dtype, -(-(_TEXT + text) // page) * page)

    @property
    def nbytes(self) -> int:
        """Bytes of all items."""
        return self.count * self.dtype.itemsize

    @property
    def stop(self) -> int:
        """Where they end."""
        return self.start + self.nbytes

    def settle(self, memory: SharedMemory) -> None:
        """
        Write it down in fresh memory, or find out whether it is the ring that is there.

        Raises
        ------
        ValueError
            It is another one, or something else.
        """
        with SparseBuffer(self.start) as buffer, _settling():
            buffer.map_file(0, self.start, memory, writable=True)
            # A process that dies meanwhile gives the lock back.
            fcntl.lockf(memory, fcntl.LOCK_EX)
            try:
                if any(buffer.read_at(0, self.start)):
                    self._check(buffer, memory)
                elif _holds_something(memory, self.start):
                    msg = f"shared memory {memory.name!r} holds something else than a ring"
                    raise ValueError(msg)
                else:
                    self._write(buffer)
            finally:
                fcntl.lockf(memory, fcntl.LOCK_UN)

    def _write(self, buffer: SparseBuffer) -> None:
        """Write it down; the magic last, so that what has one is whole."""
        text = repr(self.dtype).encode()
        facts = _FACTS.pack(_MAGIC, self.start, self.count, self.dtype.itemsize, len(text))
        buffer.write_at(_TEXT, text)
        buffer.write_at(len(_MAGIC), facts[len(_MAGIC) :])
        buffer.write_at(0, _MAGIC)

    def _check(self, buffer: SparseBuffer, memory: SharedMemory) -> None:
        """Raise ValueError where another one is written down."""
        magic, start, count, itemsize, length = _FACTS.unpack(buffer.read_at(0, _FACTS.size))
        what = f"shared memory {memory.name!r}"
        if magic != _MAGIC:
            msg = f"{what} holds something else than a ring: it begins with {magic!r}"
            raise ValueError(msg)
        room = min(length, len(buffer) - _TEXT)
        text = buffer.read_at(_TEXT, room).decode(errors="replace")
        if (itemsize, text) != (self.dtype.itemsize, repr(self.dtype)):
            msg = f"{what} has a ring of {text}, {itemsize} bytes each, and not of {self.dtype!r}"
            raise ValueError(msg)
        if count != self.count:
            msg = f"{what} has a ring of {count} items, and not of {self.count}"
            raise ValueError(msg)
        if start != self.start:
            msg = f"{what} has a ring in pages of another size: items begin at byte {start}"
            raise ValueError(msg)


def _holds_something(memory: SharedMemory, start: int) -> bool:
    """Tell whether anything but zeros is behind the header's place."""
    fd, at = memory.fileno(), start
    with suppress(OSError):  # ENXIO: no data from there on
        while True:
            at = os.lseek(fd, at, os.SEEK_DATA)
            stop = os.lseek(fd, at, os.SEEK_HOLE)
            while at < stop:
                piece = os.pread(fd, min(PIECE, stop - at), at)
                if piece.count(0) < len(piece):
                    return True
                at += len(piece)
    return False
