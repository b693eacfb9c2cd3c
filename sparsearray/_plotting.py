"""What all plots share: axes, titles, legends and bars of marks, drawn by matplotlib."""

from collections.abc import Callable, Iterable, Mapping
from textwrap import wrap
from typing import Any

from ._bars import Mark
from ._optional import needed
from ._svg import used
from ._text import size

__all__ = ["BAR_SIZE", "draw_bar", "draw_legend", "draw_title", "frame_bars", "new_axes"]

BAR_SIZE = (8, 2)  # inches: of a figure that is long and low
_LINE = 80  # characters of a title
_LETTER = 6.5  # width of a letter of a label, in units of a map, rather too wide


def new_axes(ax: Any, figsize: tuple[float, float] | None = None) -> Any:
    """Return axes, in a figure of their own if there are none."""
    pyplot = needed("matplotlib.pyplot", "plot", "plot")
    if ax is None:
        _figure, ax = pyplot.subplots(figsize=figsize, layout="constrained")
    return ax


def draw_bar(
    ax: Any,
    marks: Iterable[Mark[Any]],
    palette: Mapping[str, str],
    kind: Callable[[Any], str],
    *,
    bottom: float = 0,
    scale: float = 1,
) -> None:
    """
    Draw a bar that is 1 high, of marks in a band for each kind that is in them.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Where.
    marks : iterable of Mark
        In units of a map.
    palette : mapping
        The colour of each kind.
    kind : callable
        Gives the kind of a region or segment.
    bottom : float, optional
        Of the bar, in data coordinates.
    scale : float, optional
        Data coordinates along x for a unit of the map.
    """
    rectangle = needed("matplotlib.patches", "plot", "plot").Rectangle
    for mark in marks:
        colours = used(palette, map(kind, mark.items)).values()
        band = 1 / len(colours)
        for i, colour in enumerate(colours, 1):
            place = mark.x * scale, bottom + 1 - i * band
            ax.add_patch(rectangle(place, mark.width * scale, band, color=colour, linewidth=0))
        label = size(sum(item.nbytes for item in mark.items))
        if len(label) * _LETTER <= mark.width:
            ax.text(
                (mark.x + mark.width / 2) * scale,
                bottom + 0.5,
                label,
                ha="center",
                va="center",
                color="white",
                fontsize="small",
                clip_on=True,
            )


def frame_bars(ax: Any) -> None:
    """Take away what bars have no use for: the vertical axis, and three sides of the frame."""
    ax.set_yticks([])
    ax.spines[["left", "right", "top"]].set_visible(False)


def draw_title(ax: Any, what: str, inside: str) -> None:
    """Write lines above a plot, none longer than its figure."""
    # Of matplotlib's own wrapping, dollars are formulas.
    lines = [*wrap(what, _LINE), inside]
    ax.set_title("\n".join(lines), fontsize="medium", parse_math=False)


def draw_legend(ax: Any, colours: Mapping[str, Any], title: str | None = None) -> None:
    """Say beside a plot what its colours mean, if there are any."""
    patch = needed("matplotlib.patches", "plot", "plot").Patch
    handles = [patch(color=colour, linewidth=0, label=name) for name, colour in colours.items()]
    if handles:
        place = {"loc": "upper left", "bbox_to_anchor": (1.02, 1), "frameon": False}
        ax.legend(handles=handles, title=title, **place)
