"""What plots of buffers and of images share: bars of marks, drawn by matplotlib."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ._optional import needed

__all__ = ["Piece", "draw_pieces", "draw_title", "new_axes"]

_LETTER = 6.5  # width of a letter of a label, in units of a map, rather too wide


class Piece(NamedTuple):
    """A mark to be drawn, in one band for each of its colours."""

    x: float
    width: float
    colours: Sequence[str]
    label: str
    """Written on it where there is room."""


def new_axes(ax: Any) -> Any:
    """Return axes, in a figure that suits a bar if there are none."""
    pyplot = needed("matplotlib.pyplot", "plot", "plot")
    if ax is None:
        _figure, ax = pyplot.subplots(figsize=(8, 2), layout="constrained")
    return ax


def draw_pieces(
    ax: Any, pieces: Iterable[Piece], bottom: float, height: float, scale: float
) -> None:
    """
    Draw a bar.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Where.
    pieces : iterable of Piece
        In units of a map.
    bottom, height : float
        Of the bar, in data coordinates.
    scale : float
        Data coordinates along x for a unit of the map.
    """
    rectangle = needed("matplotlib.patches", "plot", "plot").Rectangle
    for piece in pieces:
        band = height / len(piece.colours)
        for i, colour in enumerate(piece.colours):
            place = piece.x * scale, bottom + height - (i + 1) * band
            ax.add_patch(rectangle(place, piece.width * scale, band, color=colour, linewidth=0))
        if len(piece.label) * _LETTER <= piece.width:
            ax.text(
                (piece.x + piece.width / 2) * scale,
                bottom + height / 2,
                piece.label,
                ha="center",
                va="center",
                color="white",
                fontsize="small",
                clip_on=True,
            )


def draw_title(ax: Any, title: str, legend: Mapping[str, str]) -> None:
    """Write what is drawn above it, and what the colours mean beside it."""
    patch = needed("matplotlib.patches", "plot", "plot").Patch
    ax.set_title(title, fontsize="medium", parse_math=False)
    ax.set_yticks([])
    ax.spines[["left", "right", "top"]].set_visible(False)
    handles = [patch(color=colour, linewidth=0, label=name) for name, colour in legend.items()]
    if handles:
        ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False)
