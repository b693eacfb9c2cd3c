"""What a buffer's `plot` draws with matplotlib: the map that notebooks show."""

from operator import attrgetter
from typing import Any, Protocol

from ._bars import Mark, marks_squeezed, marks_to_scale
from ._optional import needed
from ._plotting import BAR_SIZE, draw_bar, draw_legend, draw_title, frame_bars, new_axes
from ._svg import COLOURS, LENGTH, shorten, used
from ._text import count, size
from .region import Region

__all__ = ["plot_buffer"]

_UPPER, _LOWER, _HEIGHT = 2.0, 0.0, 1.0  # bottoms of the bars, and how high they are
_kind = attrgetter("kind")


class _Buffer(Protocol):
    name: str | None

    @property
    def nbytes(self) -> int: ...
    @property
    def regions(self) -> tuple[Region, ...]: ...


def plot_buffer(buffer: _Buffer, ax: Any = None) -> Any:
    """Draw what `SparseBuffer.plot` says, of anything that has regions."""
    ticker = needed("matplotlib.ticker", "plot", "plot")
    regions, nbytes = buffer.regions, buffer.nbytes
    ax, scale = new_axes(ax, BAR_SIZE), nbytes / LENGTH
    outline = needed("matplotlib.patches", "plot", "plot").Rectangle(
        (0, _UPPER), nbytes, _HEIGHT, fill=False, edgecolor="grey", linewidth=0.8, zorder=2
    )
    draw_bar(ax, marks_to_scale(regions, nbytes), COLOURS, _kind, bottom=_UPPER, scale=scale)
    ax.add_patch(outline)
    if regions:
        squeezed = list(marks_squeezed(regions, attrgetter("offset")))
        for mark in squeezed:
            _draw_link(ax, mark, scale)
        draw_bar(ax, squeezed, COLOURS, _kind, bottom=_LOWER, scale=scale)
        ax.text(0, _LOWER - 0.1, "regions only, holes squeezed", va="top", fontsize="x-small")
    ax.set_xlim(0, nbytes)
    ax.set_ylim(_LOWER - 0.5, _UPPER + _HEIGHT + 0.1)
    ax.xaxis.set_major_locator(ticker.FixedLocator([nbytes * i // 4 for i in range(5)]))
    ax.xaxis.set_major_formatter(ticker.FuncFormatter(lambda at, _: f"{int(at):#x}"))
    ax.set_xlabel("offset, upper bar")
    frame_bars(ax)
    name = "" if buffer.name is None else f" {shorten(repr(buffer.name))}"
    mapped = f"{size(sum(region.nbytes for region in regions))} mapped of {size(nbytes)}"
    draw_title(ax, f"SparseBuffer{name}", f"{mapped} in {count(len(regions), 'region')}")
    draw_legend(ax, used(COLOURS, map(_kind, regions)))
    return ax


def _draw_link(ax: Any, mark: Mark[Region], scale: float) -> None:
    """Draw the shadow of a mark of the lower bar, from where it lies in the upper one."""
    last = mark.items[-1]
    left = mark.items[0].offset
    right = max(last.offset + last.nbytes, left + scale)
    xs = left, right, (mark.x + mark.width) * scale, mark.x * scale
    upper, lower = _UPPER, _LOWER + _HEIGHT
    ax.fill(xs, (upper, upper, lower, lower), color="grey", alpha=0.2, linewidth=0)
