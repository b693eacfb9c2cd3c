"""
What is shown of an array: one line, or a table and a picture of where its data lies.

The picture is a grid of cells over the first two axes, oriented like an image. Each cell is shaded
by how much of it is stored, in steps, so that one page in a terabyte can still be seen::

      axis 1: 131,072 ->
    a +-----------------+
    x |   ##            |
    i |    #      ...   |
    s |                #|
    0 +-----------------+
"""

import math
from collections.abc import Iterable, Iterator
from html import escape
from itertools import chain, groupby, islice
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ._optional import needed
from ._svg import (
    BAR,
    COLOURS,
    EDGE,
    FAINT,
    beside,
    drawing,
    facts,
    named,
    outline,
    shorten,
    swatch,
    tint,
    units,
)
from ._text import count, size
from .errors import AccessError, ClosedError

__all__ = ["array_html", "array_repr", "plot_array"]

_SIDE = 384  # the longer side of a map
_LENGTH = 716  # of the bar that is drawn of an array of one axis
_SLENDER = 4  # a map is at most so many times longer than wide, or wider than long
_FINEST = {"map": 6, "bar": 4}  # sides of a cell
_COARSEST = 24
_TOP, _LEFT = 16, EDGE + 16  # of the frame: room for the names of axes
_DIGIT = 6.2  # width of a character, rather too wide
_BATCH = 1 << 13  # boxes taken at a time
_ROOM = 92_000  # characters of a picture; one that needs more gets larger cells
_VALUE = 4096  # bytes of an item, before it is too long to show

# From which share of a cell on, how opaque, and what that is called.
_STEPS = (
    (0.0, 0.65, "under 1%"),
    (0.01, 0.82, "1 to 99%"),
    (1.0, 1.0, "all"),
)

_T = TypeVar("_T")


class _Array(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def nbytes_stored(self) -> int: ...
    @property
    def path(self) -> str | None: ...
    @property
    def mode(self) -> str | None: ...
    @property
    def _lies_in(self) -> str: ...
    def blocks(self) -> Iterable[tuple[tuple[slice, ...], NDArray[Any]]]: ...


def array_repr(array: _Array, kind: str) -> str:
    """
    Describe an array in one line.

    Parameters
    ----------
    array : SparseArray
        Open or closed.
    kind : str
        The name of its class.

    Returns
    -------
    str
        Such as ``<SparseArray (1048576, 131072) float64, 1.25 GiB stored of 1 TiB>``.
    """
    what = _kind(array, kind)
    source = ""
    if array.mode is not None:
        place = array._lies_in if array.path is None else shorten(repr(array.path))
        source = f" in {place} ({array.mode})"
    try:
        return f"<{what}, {size(array.nbytes_stored)} stored of {size(array.nbytes)}{source}>"
    except ClosedError:
        return f"<{what}, closed>"
    except AccessError as error:
        return f"<{what}, {error.reason}{source}>"


def array_html(array: _Array) -> str:
    """
    Describe an array as HTML.

    Parameters
    ----------
    array : SparseArray
        Open or closed.

    Returns
    -------
    str
        A fragment that needs nothing else and is well-formed XML, of at most some 100 KiB however
        many boxes there are.
    """
    title = f"<b>{escape(type(array).__name__)}</b> {_tuple(array.shape)} {_dtype(array)}"
    title += _tiles(array)
    if array.mode is not None:
        place = array._lies_in if array.path is None else named(array.path)
        title += f" in {place} ({escape(array.mode)})"
    try:
        return f"<div><div>{title}</div>{_contents(array)}</div>"
    except ClosedError:
        return f"<div>{title}, closed</div>"
    except AccessError as error:
        return f"<div><div>{title}</div><div>{escape(str(error))}</div></div>"


def plot_array(array: _Array, ax: Any = None) -> Any:
    """
    Draw with matplotlib where the data of an array lies.

    Parameters
    ----------
    array : SparseArray
        An open array. Of more than two axes the first two are drawn, and a cell is marked if
        anything behind it is stored.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default in a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        With the axes in items. An array without axes or without items has no picture.

    Raises
    ------
    ImportError
        If there is no matplotlib.
    """
    pyplot = needed("matplotlib.pyplot", "plot", "plot")
    grid = _Grid.of(array) if _has_picture(array) else None
    title = _kind(array, type(array).__name__)
    stored = _summary(array.nbytes_stored, array.nbytes)
    if ax is None:
        _figure, ax = pyplot.subplots(layout="constrained")
    ax.set_title(f"{title}\n{stored}", fontsize="medium", parse_math=False)
    if grid is None:
        ax.text(0.5, 0.5, _no_picture(array), transform=ax.transAxes, ha="center", va="center")
        ax.set_axis_off()
    else:
        _plot_cells(ax, grid, _colour(array))
        _plot_axes(ax, grid)
    return ax


# Words


def _kind(array: _Array, kind: str) -> str:
    return f"{kind} {_tuple(array.shape)} {shorten(str(array.dtype))}{_tiles(array)}"


def _tiles(array: _Array) -> str:
    """Say how an array lies, if not in C order."""
    tiles = getattr(array, "tiles", None)
    return "" if tiles is None else f" in tiles of {_tuple(tiles)}"


def _tuple(shape: tuple[int, ...]) -> str:
    return str(tuple(map(int, shape)))


def _times(lengths: Iterable[int]) -> str:
    return " x ".join(f"{length:,}" for length in lengths)


def _dtype(array: _Array) -> str:
    return escape(shorten(str(array.dtype)))


def _colour(array: _Array) -> str:
    return COLOURS["private" if array.mode is None else "file"]


def _percent(part: int, whole: int) -> str:
    """
    Write a share in percent: 0% and 100% only where that is exact.

    Examples
    --------
    >>> _percent(0, 9), _percent(1, 3), _percent(1, 1 << 40), _percent((1 << 40) - 1, 1 << 40)
    ('0%', '33.3%', 'under 0.001%', 'over 99.9%')
    """
    percent = 100 * part / whole
    if part and percent < 0.001:
        return "under 0.001%"
    if part < whole and percent > 99.9:
        return "over 99.9%"
    return f"{percent:.3g}%"


def _share(stored: int, nbytes: int) -> str:
    """Write what is stored in percent, unless whole pages are more than there is."""
    return f" ({_percent(stored, nbytes)})" if 0 < nbytes >= stored else ""


def _summary(stored: int, nbytes: int) -> str:
    return f"{size(stored)} stored of {size(nbytes)}{_share(stored, nbytes)}"


def _has_picture(array: _Array) -> bool:
    return bool(array.shape) and 0 not in array.shape


def _no_picture(array: _Array) -> str:
    """Say what there is of an array instead of a picture."""
    if 0 in array.shape:
        return "no items: nothing to draw"
    if array.dtype.itemsize > _VALUE:
        return f"one item of {size(array.dtype.itemsize)}"
    value = np.zeros((), array.dtype)
    for _index, block in array.blocks():
        value = block
    return f"value: {shorten(np.array2string(value))}"


# HTML


def _contents(array: _Array) -> str:
    """Describe what is in an array."""
    stored = array.nbytes_stored
    if not _has_picture(array):
        return f"{_facts(array, stored)}<div>{escape(_no_picture(array))}</div>"
    grid = _Grid.of(array)
    table = _facts(array, stored, grid)
    while len(cells := _cells(grid, array.dtype.itemsize)) > _ROOM:
        grid = grid.coarser()
    label = f"Map: {_summary(stored, array.nbytes)}"
    picture = _svg(grid, cells, _colour(array), label) + _caption(grid, _colour(array))
    return table + picture if grid.ndim == 1 else beside(table, picture)


def _facts(array: _Array, stored: int, grid: "_Grid | None" = None) -> str:
    nbytes = array.nbytes
    rows = [
        ("shape", _times(array.shape) or "()", count(math.prod(array.shape), "item")),
        ("dtype", _dtype(array), f"{count(array.dtype.itemsize, 'byte')} an item"),
        ("nbytes", size(nbytes), f"{nbytes:,}"),
        ("stored", size(stored), f"{stored:,}{_share(stored, nbytes)}"),
    ]
    if grid is not None:
        rows.append(("boxes", f"{grid.boxes:,}", count(round(grid.stored.sum()), "item")))
    return facts(rows)


def _caption(grid: "_Grid", colour: str) -> str:
    """Say what a cell is, and what its shade means."""
    steps = [side.step for side in grid.sides()]
    text = "a cell is one item" if set(steps) == {1} else f"a cell is {_times(steps)} items"
    if grid.ndim > 2:
        text = f"axes 0 and 1 of {grid.ndim}; {text}, marked if anything behind it is stored"
    if not grid.frame().to_scale:
        text += "; not to scale"
    legend = ", ".join(
        f"{swatch(colour, opacity, tinted=True)} {name}" for opacity, name in grid.legend()
    )
    legend = f"stored of a cell: {legend}" if legend else "nothing stored: all reads as zero"
    scale = f"<span style='opacity:.75'>{text}</span>"
    return f"<div style='font-size:.9em'>{scale}<br/>{legend}</div>"


def _svg(grid: "_Grid", cells: str, colour: str, label: str) -> str:
    """Draw the frame and the names of its sides around the cells."""
    frame = grid.frame()
    left, down = EDGE, ""
    names = []
    if grid.ndim > 1:
        left, down = _LEFT, f"axis 0: {grid.rows.length:,} →"
        place = f"translate({units(left - 12)} {_TOP}) rotate(90)"
        names.append(f"<text transform='{place}' {FAINT}>{down}</text>")
    across = f"axis {min(grid.ndim, 2) - 1}: {grid.columns.length:,} →"
    names.append(f"<text x='{units(left)}' y='{_TOP - 5}' {FAINT}>{across}</text>")
    scale = (
        f"{frame.width * grid.columns.step / grid.columns.length:.6g} "
        f"{frame.height * grid.rows.step / grid.rows.length:.6g}"
    )
    marks = (
        f"<g transform='translate({units(left)} {_TOP}) scale({scale})' fill='{colour}' "
        f"style='fill:{tint(colour)}' shape-rendering='crispEdges'>{cells}</g>"
    )
    return drawing(
        left + max(frame.width, _DIGIT * len(across)) + EDGE,
        _TOP + max(frame.height, _DIGIT * len(down)) + EDGE,
        label,
        [*names, marks, outline(left, _TOP, frame.width, frame.height)],
    )


def _cells(grid: "_Grid", itemsize: int) -> str:
    """Draw runs of cells, in units of cells, with what is in them to hover over."""
    x, y = ([edge / side.step for edge in side.drawn()] for side in (grid.columns, grid.rows))
    shades: list[list[str]] = [[] for _ in _STEPS]
    for run in grid.runs():
        row, start, stop = run.row, run.start, run.stop
        path = (
            f"M{units(x[start])} {units(y[row])}h{units(x[stop] - x[start])}"
            f"v{units(y[row + 1] - y[row])}H{units(x[start])}z"
        )
        inside = f"{size(run.stored * itemsize)} of {size(run.items * itemsize)}"
        shades[run.level - 1].append(
            f"<path d='{path}'><title>[{run.place}]\n{inside}</title></path>"
        )
    return "".join(
        f"<g fill-opacity='{opacity:g}'>{''.join(paths)}</g>"
        for (_start, opacity, _name), paths in zip(_STEPS, shades, strict=True)
        if paths
    )


# matplotlib


def _plot_cells(ax: Any, grid: "_Grid", colour: str) -> None:
    colors = needed("matplotlib.colors", "plot", "plot")
    patches = needed("matplotlib.patches", "plot", "plot")
    ax.pcolormesh(
        grid.columns.drawn(),
        grid.rows.drawn(),
        np.ma.masked_equal(grid.levels(), 0),
        cmap=colors.ListedColormap([colors.to_rgba(colour, alpha) for _, alpha, _ in _STEPS]),
        vmin=0.5,
        vmax=len(_STEPS) + 0.5,
    )
    handles = [
        patches.Patch(facecolor=colour, alpha=alpha, linewidth=0, label=name)
        for alpha, name in grid.legend()
    ]
    if handles:
        place = {"loc": "upper left", "bbox_to_anchor": (1.02, 1), "frameon": False}
        ax.legend(handles=handles, title="stored of a cell", **place)


def _plot_axes(ax: Any, grid: "_Grid") -> None:
    frame = grid.frame()
    ax.set_box_aspect(frame.height / frame.width)
    ax.set_xlim(0, grid.columns.length)
    ax.set_ylim(grid.rows.length, 0)
    room = int(frame.width / (_DIGIT * len(f"{grid.columns.length:,}")))
    for axis, bins in ((ax.xaxis, min(max(room - 1, 1), 4)), (ax.yaxis, 4)):
        axis.get_major_locator().set_params(integer=True, nbins=bins)
        axis.set_major_formatter(lambda at, _: f"{int(at):,}")
    scale = "" if frame.to_scale else " (not to scale)"
    ax.set_xlabel(f"axis {min(grid.ndim, 2) - 1}{scale}")
    if grid.ndim == 1:
        ax.set_yticks([])
    else:
        ax.set_ylabel("axis 0")


# The grid


class _Frame(NamedTuple):
    """How large a picture is."""

    width: float
    height: float
    to_scale: bool

    @classmethod
    def of(cls, rows: int, columns: int, ndim: int) -> "_Frame":
        """Choose it from the lengths of the two axes."""
        if ndim == 1:
            return cls(min(_LENGTH, _COARSEST * columns), BAR, to_scale=True)
        ratio = columns / rows
        clamped = min(max(ratio, 1 / _SLENDER), _SLENDER)
        width = min(_SIDE * min(clamped, 1), _COARSEST * columns)
        height = min(_SIDE / max(clamped, 1), _COARSEST * rows)
        return cls(width, height, to_scale=clamped == ratio)


class _Side(NamedTuple):
    """One side of a grid: `length` items in cells of `step`, of which the last may be smaller."""

    length: int
    step: int

    @classmethod
    def of(cls, length: int, step: int) -> "_Side":
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


class _Run(NamedTuple):
    """Neighbouring cells of one shade."""

    row: int
    start: int
    stop: int
    level: int
    place: str  # an index: what is between the brackets
    items: int
    stored: int  # of the items


class _Grid(NamedTuple):
    """How many items are stored in each cell."""

    ndim: int
    rows: _Side  # of one item, where there is one axis
    columns: _Side
    depth: int  # items that lie behind each item of the plane: the product of the other axes
    stored: NDArray[np.float64]  # (rows, columns): whole numbers, exact below 2**53
    boxes: int

    @classmethod
    def of(cls, array: _Array) -> "_Grid":
        """Count what is stored in each of the smallest cells that can be seen well."""
        shape = array.shape
        lengths = _plane(shape, 1)
        rows, columns = map(_Side.of, lengths, _steps(lengths, len(shape)))
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

    def frame(self) -> _Frame:
        """Return how large the picture is."""
        return _Frame.of(self.rows.length, self.columns.length, self.ndim)

    def sides(self) -> tuple[_Side, ...]:
        """Return the sides that are axes of the array."""
        return (self.rows, self.columns)[-self.ndim :]

    def coarser(self) -> "_Grid":
        """Return the grid whose cells are twice as long and twice as wide."""
        stored = self.stored
        for axis, cells in enumerate(stored.shape):
            stored = np.add.reduceat(stored, np.arange(0, cells, 2), axis)
        rows, columns = (_Side.of(side.length, 2 * side.step) for side in (self.rows, self.columns))
        return self._replace(rows=rows, columns=columns, stored=stored)

    def levels(self) -> NDArray[np.intp]:
        """Return which step of shade each cell has, counted from 1: 0 is nothing."""
        tall, wide = (np.diff(np.array(side.edges(), float)) for side in (self.rows, self.columns))
        share = self.stored / (np.outer(tall, wide) * self.depth)
        return np.where(share > 0, np.digitize(share, [start for start, _, _ in _STEPS]), 0)

    def legend(self) -> list[tuple[float, str]]:
        """Return how opaque the shades of this grid are, and what they are called."""
        found = set(np.unique(self.levels()).tolist())
        return [step[1:] for level, step in enumerate(_STEPS, 1) if level in found]

    def runs(self) -> Iterator[_Run]:
        """Join neighbours of a row that have one shade, and leave out what holds nothing."""
        rows, columns = self.rows.edges(), self.columns.edges()
        for row, levels in enumerate(self.levels().tolist()):
            stop = 0
            for level, cells in groupby(levels):
                start, stop = stop, stop + len(list(cells))
                if not level:
                    continue
                spans = [(rows[row], rows[row + 1]), (columns[start], columns[stop])][-self.ndim :]
                yield _Run(
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
    frame = _Frame.of(*lengths, ndim)
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


def _overlap(spans: NDArray[np.int64], side: _Side) -> NDArray[np.float64]:
    """Return how many items of each cell (column) each span (row) covers."""
    edges = np.array(side.edges(), np.int64)
    common = np.minimum(spans[:, 1:], edges[1:]) - np.maximum(spans[:, :1], edges[:-1])
    return common.clip(0).astype(np.float64)
