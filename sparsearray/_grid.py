"""
Where the data of an array lies: a grid of cells over its first two axes, oriented like an image.

Each cell is shaded by how much of it is stored, in steps, so that one page in a terabyte can still
be seen::

      axis 1: 131,072 ->
    a +-----------------+
    x |   ##            |
    i |    #      ...   |
    s |                #|
    0 +-----------------+
"""

import math
from collections.abc import Iterable, Iterator
from itertools import chain, groupby, islice
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ._svg import BAR, LENGTH

__all__ = ["SHADES", "Grid"]

_SIDE = 384  # the longer side of a map
_SLENDER = 4  # a map is at most so many times longer than wide, or wider than long
_FINEST = {"map": 6, "bar": 4}  # sides of a cell
_COARSEST = 24
_BATCH = 1 << 13  # boxes taken at a time

# From which share of a cell on, how opaque, and what that is called.
SHADES = (
    (0.0, 0.65, "under 1%"),
    (0.01, 0.82, "1 to 99%"),
    (1.0, 1.0, "all"),
)

_T = TypeVar("_T")


class _Array(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...
    def blocks(self) -> Iterable[tuple[tuple[slice, ...], NDArray[Any]]]: ...


class Frame(NamedTuple):
    """How large a picture is."""

    width: float
    height: float
    to_scale: bool

    @classmethod
    def of(cls, rows: int, columns: int, ndim: int) -> "Frame":
        """Choose it from the lengths of the two axes."""
        if ndim == 1:
            return cls(min(LENGTH, _COARSEST * columns), BAR, to_scale=True)
        ratio = columns / rows
        clamped = min(max(ratio, 1 / _SLENDER), _SLENDER)
        width = min(_SIDE * min(clamped, 1), _COARSEST * columns)
        height = min(_SIDE / max(clamped, 1), _COARSEST * rows)
        return cls(width, height, to_scale=clamped == ratio)


class Side(NamedTuple):
    """One side of a grid: `length` items in cells of `step`, of which the last may be smaller."""

    length: int
    step: int

    @classmethod
    def of(cls, length: int, step: int) -> "Side":
        """Divide a side into cells, which are not longer than it is."""
        return cls(length, min(length, step))

    def edges(self) -> list[int]:
        """Return where the cells begin and end, in items."""
        return [*range(0, self.length, self.step), self.length]

    def drawn(self) -> list[float]:
        """Return where they are drawn: the last at least half as wide as the others."""
        edges: list[float] = [*self.edges()]
        if len(edges) > 2:
            edges[-2] = min(edges[-2], self.length - self.step / 2)
        return edges


class Run(NamedTuple):
    """Neighbouring cells of one shade."""

    row: int
    start: int
    stop: int
    level: int
    place: str  # an index: what is between the brackets
    items: int
    stored: int  # of the items


class Grid(NamedTuple):
    """How many items are stored in each cell."""

    ndim: int
    rows: Side  # of one item, where there is one axis
    columns: Side
    depth: int  # items that lie behind each item of the plane: the product of the other axes
    stored: NDArray[np.float64]  # (rows, columns): whole numbers, exact below 2**53
    boxes: int

    @classmethod
    def of(cls, array: _Array) -> "Grid":
        """Count what is stored in each of the smallest cells that can be seen well."""
        shape = array.shape
        lengths = _plane(shape, 1)
        rows, columns = map(Side.of, lengths, _steps(lengths, len(shape)))
        stored = np.zeros((len(rows.edges()) - 1, len(columns.edges()) - 1))
        boxes = 0
        corners = _corners(array)
        while batch := list(islice(corners, _BATCH)):
            numbers = np.fromiter(chain.from_iterable(batch), np.int64).reshape(-1, 5)
            height, width = numbers[:, 1] - numbers[:, 0], numbers[:, 3] - numbers[:, 2]
            # A box covers of each cell what it covers of its row, times what of its column.
            tall = _overlap(numbers[:, 0:2], rows) * (numbers[:, 4:] / (height * width)[:, None])
            stored += tall.T @ _overlap(numbers[:, 2:4], columns)
            boxes += len(numbers)
        return cls(len(shape), rows, columns, math.prod(shape[2:]), stored, boxes)

    def frame(self) -> Frame:
        """Return how large the picture is."""
        return Frame.of(self.rows.length, self.columns.length, self.ndim)

    def sides(self) -> tuple[Side, ...]:
        """Return the sides that are axes of the array."""
        return (self.rows, self.columns)[-self.ndim :]

    def coarser(self) -> "Grid":
        """Return the grid whose cells are twice as long and twice as wide."""
        stored = self.stored
        for axis, cells in enumerate(stored.shape):
            stored = np.add.reduceat(stored, np.arange(0, cells, 2), axis)
        rows, columns = (Side.of(side.length, 2 * side.step) for side in (self.rows, self.columns))
        return self._replace(rows=rows, columns=columns, stored=stored)

    def levels(self) -> NDArray[np.intp]:
        """Return which step of shade each cell has, counted from 1: 0 is nothing."""
        tall, wide = (np.diff(np.array(side.edges(), float)) for side in (self.rows, self.columns))
        share = self.stored / (np.outer(tall, wide) * self.depth)
        return np.where(share > 0, np.digitize(share, [start for start, _, _ in SHADES]), 0)

    def legend(self) -> list[tuple[float, str]]:
        """Return how opaque the shades of this grid are, and what they are called."""
        found = set(np.unique(self.levels()).tolist())
        return [step[1:] for level, step in enumerate(SHADES, 1) if level in found]

    def runs(self) -> Iterator[Run]:
        """Join neighbours of a row that have one shade, and leave out what holds nothing."""
        rows, columns = self.rows.edges(), self.columns.edges()
        for row, levels in enumerate(self.levels().tolist()):
            stop = 0
            for level, cells in groupby(levels):
                start, stop = stop, stop + len(list(cells))
                if not level:
                    continue
                spans = [(rows[row], rows[row + 1]), (columns[start], columns[stop])][-self.ndim :]
                yield Run(
                    row,
                    start,
                    stop,
                    level,
                    ", ".join(f"{first}:{last}" for first, last in spans),
                    math.prod(last - first for first, last in spans) * self.depth,
                    round(self.stored[row, start:stop].sum()),
                )


def _plane(items: tuple[_T, ...], one: _T) -> tuple[_T, _T]:
    """Return what belongs to the two axes of a picture; an array of one axis is one row."""
    return (one, items[0]) if len(items) == 1 else (items[0], items[1])


def _steps(lengths: tuple[int, int], ndim: int) -> tuple[int, int]:
    """Choose how many items the smallest cells that can be seen well are long and wide."""
    frame = Frame.of(*lengths, ndim)
    finest = _FINEST["bar" if ndim == 1 else "map"]
    rows, columns = (
        -(-length // max(int(room / finest), 1))
        for length, room in zip(lengths, frame[:2][::-1], strict=True)
    )
    if frame.to_scale:  # cells are square
        rows = columns = rows if lengths[0] > lengths[1] else columns
    return rows, columns


def _corners(array: _Array) -> Iterator[tuple[int, int, int, int, int]]:
    """Reduce each box to its place in the plane and its number of items."""
    blocks: Any = array.blocks()
    # Those of some layouts are copies, and need not be made.
    indices = blocks.indices() if hasattr(blocks, "indices") else (index for index, _ in blocks)
    for index in indices:
        items = math.prod(side.stop - side.start for side in index)
        if items:
            rows, columns = _plane(index, slice(0, 1))
            yield rows.start, rows.stop, columns.start, columns.stop, items


def _overlap(spans: NDArray[np.int64], side: Side) -> NDArray[np.float64]:
    """Return how many items of each cell (column) each span (row) covers."""
    edges = np.array(side.edges(), np.int64)
    common = np.minimum(spans[:, 1:], edges[1:]) - np.maximum(spans[:, :1], edges[:-1])
    return common.clip(0).astype(np.float64)
