"""What an image's `plot` draws with matplotlib: its segments side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sparsearray._bar_plot import Piece, draw_pieces, draw_title, new_axes
from sparsearray._svg import shorten
from sparsearray._text import count, size

from ._html import KINDS, LENGTH, kind_of, marks

if TYPE_CHECKING:
    from .image import Image

__all__ = ["plot_image"]


def plot_image(image: Image, ax: Any = None) -> Any:
    """
    Draw with matplotlib which segments an image has.

    Parameters
    ----------
    image : Image
        An open one.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default in a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        Gaps are squeezed, so the x axis has the first and the last address only.

    Raises
    ------
    ImportError
        If there is no matplotlib.
    ClosedError
        The image is closed.
    """
    image._check_open("plot")
    segments = sorted(image.segments)
    ax = new_axes(ax)
    pieces = [
        Piece(
            mark.x,
            mark.width,
            [KINDS[kind] for kind in mark.kinds],
            size(sum(segment.nbytes for segment in mark.segments)),
        )
        for mark in marks(segments)
    ]
    draw_pieces(ax, pieces, 0, 1, 1)
    ax.set_xlim(0, LENGTH)
    ax.set_ylim(-0.1, 1.1)
    ends = segments[0].address, segments[-1].address + segments[-1].nbytes
    ax.set_xticks([0, LENGTH], [f"{end:#x}" for end in ends])
    ax.set_xlabel("address, gaps squeezed")
    kinds = {kind_of(segment) for segment in segments}
    inside = f"{size(image.nbytes)} in {count(len(segments), 'segment')}"
    legend = {kind: colour for kind, colour in KINDS.items() if kind in kinds}
    draw_title(ax, f"Image {shorten(repr(image.name))}\n{inside}", legend)
    return ax
