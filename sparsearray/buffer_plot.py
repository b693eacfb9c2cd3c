"""What a buffer's `plot` draws with matplotlib: the map that notebooks show."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from ._bar_plot import Piece, draw_pieces, draw_title, new_axes
from ._bars import LENGTH, Mark, marks_squeezed, marks_to_scale
from ._optional import needed
from ._svg import COLOURS, shorten
from ._text import count, size
from .region import Region

__all__ = ["plot_buffer"]

_UPPER, _LOWER, _HEIGHT = 2.0, 0.0, 1.0  # bottoms of the bars, and how high they are


class _Buffer(Protocol):
    name: str | None

    @property
    def nbytes(self) -> int: ...
    @property
    def regions(self) -> tuple[Region, ...]: ...


def plot_buffer(buffer: _Buffer, ax: Any = None) -> Any:
    """
    Draw with matplotlib where a buffer has something mapped.

    Parameters
    ----------
    buffer : SparseBuffer
        An open one.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default in a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The x axis is in bytes from the start of the buffer.

    Raises
    ------
    ImportError
        If there is no matplotlib.
    ClosedError
        The buffer is closed.
    """
    ticker = needed("matplotlib.ticker", "plot", "plot")
    regions, nbytes = buffer.regions, buffer.nbytes
    ax, scale = new_axes(ax), nbytes / LENGTH
    outline = needed("matplotlib.patches", "plot", "plot").Rectangle(
        (0, _UPPER), nbytes, _HEIGHT, fill=False, edgecolor="grey", linewidth=0.8, zorder=2
    )
    draw_pieces(ax, _pieces(marks_to_scale(regions, nbytes)), _UPPER, _HEIGHT, scale)
    ax.add_patch(outline)
    if regions:
        squeezed = list(marks_squeezed(regions))
        for mark in squeezed:
            _draw_link(ax, mark, scale)
        draw_pieces(ax, _pieces(squeezed), _LOWER, _HEIGHT, scale)
        ax.text(0, _LOWER - 0.1, "regions only, holes squeezed", va="top", fontsize="x-small")
    ax.set_xlim(0, nbytes)
    ax.set_ylim(_LOWER - 0.5, _UPPER + _HEIGHT + 0.1)
    ax.xaxis.set_major_locator(ticker.FixedLocator([nbytes * i // 4 for i in range(5)]))
    ax.xaxis.set_major_formatter(ticker.FuncFormatter(lambda at, _: f"{int(at):#x}"))
    ax.set_xlabel("offset, upper bar")
    kinds = {region.kind for region in regions}
    legend = {kind: colour for kind, colour in COLOURS.items() if kind in kinds}
    draw_title(ax, _title(buffer, regions), legend)
    return ax


def _title(buffer: _Buffer, regions: Sequence[Region]) -> str:
    name = "" if buffer.name is None else f" {shorten(repr(buffer.name))}"
    mapped = sum(region.nbytes for region in regions)
    inside = f"{size(mapped)} mapped of {size(buffer.nbytes)}"
    return f"SparseBuffer{name}\n{inside} in {count(len(regions), 'region')}"


def _pieces(marks: Iterable[Mark]) -> Iterator[Piece]:
    for mark in marks:
        found = {region.kind for region in mark.regions}
        colours = [colour for kind, colour in COLOURS.items() if kind in found]
        yield Piece(mark.x, mark.width, colours, size(sum(one.nbytes for one in mark.regions)))


def _draw_link(ax: Any, mark: Mark, scale: float) -> None:
    """Draw the shadow of a mark of the lower bar, from where it lies in the upper one."""
    last = mark.regions[-1]
    left = mark.regions[0].offset
    right = max(last.offset + last.nbytes, left + scale)
    xs = left, right, (mark.x + mark.width) * scale, mark.x * scale
    upper, lower = _UPPER, _LOWER + _HEIGHT
    ax.fill(xs, (upper, upper, lower, lower), color="grey", alpha=0.2, linewidth=0)
