"""What an array's `plot` draws with matplotlib: the map that notebooks show."""

from typing import Any

import numpy as np

from ._grid import SHADES, Grid
from ._optional import needed
from ._plotting import BAR_SIZE, draw_legend, draw_title, new_axes
from .array_display import colour_of, has_picture, headline, no_picture, summary

__all__ = ["plot_array"]

_DIGIT = 6.2  # width of a digit beside an axis, rather too wide


def plot_array(array: Any, ax: Any = None) -> Any:
    """Draw what the arrays' `plot` says, of anything that has blocks."""
    needed("matplotlib", "plot", "plot")
    grid = Grid.of(array) if has_picture(array) else None
    stored = summary(array.nbytes_stored, array.nbytes)
    ax = new_axes(ax, BAR_SIZE if grid is None or grid.ndim == 1 else None)
    draw_title(ax, headline(array, type(array).__name__), stored)
    if grid is None:
        ax.text(0.5, 0.5, no_picture(array), transform=ax.transAxes, ha="center", va="center")
        ax.set_axis_off()
    else:
        _plot_cells(ax, grid, colour_of(array))
        _plot_axes(ax, grid)
    return ax


def _plot_cells(ax: Any, grid: Grid, colour: str) -> None:
    colors = needed("matplotlib.colors", "plot", "plot")
    ax.pcolormesh(
        grid.columns.drawn(),
        grid.rows.drawn(),
        np.ma.masked_equal(grid.levels(), 0),
        cmap=colors.ListedColormap([colors.to_rgba(colour, alpha) for _, alpha, _ in SHADES]),
        vmin=0.5,
        vmax=len(SHADES) + 0.5,
    )
    shades = {name: colors.to_rgba(colour, alpha) for alpha, name in grid.legend()}
    draw_legend(ax, shades, "stored of a cell")


def _plot_axes(ax: Any, grid: Grid) -> None:
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
