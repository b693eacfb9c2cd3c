"""What is shown of an array: one line, or a table and a picture of where its data lies."""

import math
from collections.abc import Iterable
from html import escape
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ._grid import SHADES, Grid
from ._svg import (
    COLOURS,
    EDGE,
    FAINT,
    TOP,
    beside,
    drawing,
    facts,
    framed,
    named,
    outline,
    shorten,
    swatch,
    tint,
    units,
)
from ._text import count, size
from .errors import AccessError, ClosedError

__all__ = [
    "array_html",
    "array_repr",
    "colour_of",
    "has_picture",
    "headline",
    "no_picture",
    "summary",
]

_LEFT = EDGE + 16  # of the frame: room for the name of axis 0
_DIGIT = 6.2  # width of a character, rather too wide
_ROOM = 92_000  # characters of a picture; one that needs more gets larger cells
_VALUE = 4096  # bytes of an item, before it is too long to show


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
    what = headline(array, kind)
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
        return framed(title, _contents(array))
    except ClosedError:
        return f"<div>{title}, closed</div>"
    except AccessError as error:
        return framed(title, f"<div>{escape(str(error))}</div>")


# Words


def headline(array: _Array, kind: str) -> str:
    """Name an array's class, shape, dtype and tiles."""
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


def colour_of(array: _Array) -> str:
    """Return the colour of what is stored of an array: of memory, or of a file."""
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


def summary(stored: int, nbytes: int) -> str:
    """Say how much is stored, and what share that is."""
    return f"{size(stored)} stored of {size(nbytes)}{_share(stored, nbytes)}"


def has_picture(array: _Array) -> bool:
    """Tell whether an array has axes, and items along each."""
    return bool(array.shape) and 0 not in array.shape


def no_picture(array: _Array) -> str:
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
    if not has_picture(array):
        return f"{_facts(array, stored)}<div>{escape(no_picture(array))}</div>"
    grid = Grid.of(array)
    table = _facts(array, stored, grid)
    while len(cells := _cells(grid, array.dtype.itemsize)) > _ROOM:
        grid = grid.coarser()
    label = f"Map: {summary(stored, array.nbytes)}"
    picture = _svg(grid, cells, colour_of(array), label) + _caption(grid, colour_of(array))
    return table + picture if grid.ndim == 1 else beside(table, picture)


def _facts(array: _Array, stored: int, grid: Grid | None = None) -> str:
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


def _caption(grid: Grid, colour: str) -> str:
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


def _svg(grid: Grid, cells: str, colour: str, label: str) -> str:
    """Draw the frame and the names of its sides around the cells."""
    frame = grid.frame()
    left, down = EDGE, ""
    names = []
    if grid.ndim > 1:
        left, down = _LEFT, f"axis 0: {grid.rows.length:,} →"
        place = f"translate({units(left - 12)} {TOP}) rotate(90)"
        names.append(f"<text transform='{place}' {FAINT}>{down}</text>")
    across = f"axis {min(grid.ndim, 2) - 1}: {grid.columns.length:,} →"
    names.append(f"<text x='{units(left)}' y='{TOP - 5}' {FAINT}>{across}</text>")
    scale = (
        f"{frame.width * grid.columns.step / grid.columns.length:.6g} "
        f"{frame.height * grid.rows.step / grid.rows.length:.6g}"
    )
    marks = (
        f"<g transform='translate({units(left)} {TOP}) scale({scale})' fill='{colour}' "
        f"style='fill:{tint(colour)}' shape-rendering='crispEdges'>{cells}</g>"
    )
    return drawing(
        left + max(frame.width, _DIGIT * len(across)) + EDGE,
        TOP + max(frame.height, _DIGIT * len(down)) + EDGE,
        label,
        [*names, marks, outline(left, TOP, frame.width, frame.height)],
    )


def _cells(grid: Grid, itemsize: int) -> str:
    """Draw runs of cells, in units of cells, with what is in them to hover over."""
    x, y = ([edge / side.step for edge in side.drawn()] for side in (grid.columns, grid.rows))
    shades: list[list[str]] = [[] for _ in SHADES]
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
        for (_start, opacity, _name), paths in zip(SHADES, shades, strict=True)
        if paths
    )
