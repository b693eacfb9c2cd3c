"""Work that several threads do, a few pieces ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

__all__ = ["by_threads"]

_THREADS = 4

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def by_threads(
    call: Callable[[Piece], Result], work: Iterable[Piece], ahead: int
) -> Iterator[tuple[Piece, Result]]:
    """
    Call a function with each piece of work, by several threads.

    Parameters
    ----------
    call : callable
        Takes a piece.
    work : iterable
        The pieces.
    ahead : int
        How many are worked on, or done, before their turn.

    Yields
    ------
    tuple
        Each piece with its result, in order.

    Examples
    --------
    >>> list(by_threads(abs, [-1, 2, -3], 2))
    [(-1, 1), (2, 2), (-3, 3)]
    """
    pieces = iter(work)
    pool = ThreadPoolExecutor(_THREADS, "sparsearray")
    waiting: deque[tuple[Piece, Future[Result]]] = deque()
    try:
        waiting.extend((piece, pool.submit(call, piece)) for piece in islice(pieces, ahead))
        while waiting:
            result = waiting[0][1].result()
            piece = waiting.popleft()[0]
            waiting.extend((other, pool.submit(call, other)) for other in islice(pieces, 1))
            yield piece, result
    finally:
        pool.shutdown(cancel_futures=True)
        waiting.clear()  # an error, and all that was read, would keep each other alive
