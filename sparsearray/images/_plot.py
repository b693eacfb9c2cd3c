"""What an image's `plot` draws with matplotlib: its segments side by side."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

from sparsearray._bars import marks_squeezed
from sparsearray._plotting import (
    BAR_SIZE,
    draw_bar,
    draw_legend,
    draw_title,
    frame_bars,
    new_axes,
)
from sparsearray._svg import LENGTH, shorten, used
from sparsearray._text import count, size

from ._html import KINDS, kind_of

if TYPE_CHECKING:
    from .image import Image

__all__ = ["plot_image"]


def plot_image(image: Image, ax: Any = None) -> Any:
    """Draw what `Image.plot` says."""
    image._check_open("plot")
    segments = sorted(image.segments)
    ax = new_axes(ax, BAR_SIZE)
    draw_bar(ax, marks_squeezed(segments, attrgetter("address")), KINDS, kind_of)
    ax.set_xlim(0, LENGTH)
    ax.set_ylim(-0.1, 1.1)
    ends = segments[0].address, segments[-1].address + segments[-1].nbytes
    ax.set_xticks([0, LENGTH], [f"{end:#x}" for end in ends])
    ax.set_xlabel("address, gaps squeezed")
    inside = f"{size(image.nbytes)} in {count(len(segments), 'segment')}"
    frame_bars(ax)
    draw_title(ax, f"Image {shorten(repr(image.name))}", inside)
    draw_legend(ax, used(KINDS, map(kind_of, segments)))
    return ax
