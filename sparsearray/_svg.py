"""
What the pictures of buffers, arrays, rings and images share.

They take the colour of text from their surroundings and have no background of their own, so that
they can be read in light and in dark notebooks, whichever way these have become so. What is drawn
faintly gets some of that colour (`tint`), and so stands out from either background. There are no
rules of style that reach further, no ids and nothing from elsewhere.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import TypeVar

from ._text import count

__all__ = [
    "BAR",
    "COLOURS",
    "EDGE",
    "FAINT",
    "LENGTH",
    "TOP",
    "beside",
    "draw_mark",
    "drawing",
    "facts",
    "framed",
    "label",
    "listing",
    "named",
    "outline",
    "shorten",
    "swatch",
    "tint",
    "units",
    "used",
]

# Mid-tones: white text is readable on them, and they are on white and on black.
COLOURS = {"private": "#3d7bd0", "zero": "#7e868f", "file": "#2b9164", "raw": "#bd7a12"}
FAINT = "fill='currentColor' fill-opacity='.75'"  # of text beside what is drawn
EDGE = 1.5  # left and right of what is drawn
LENGTH, BAR = 716, 22  # length and height of a bar
TOP = 16  # room for a line above what is drawn
_DIGIT = 6.2  # width of a character in a label, rather too wide
_NAME = 60  # characters of a name, before it is shortened
_ROWS = 40  # of a listing

_T = TypeVar("_T")


def shorten(text: str) -> str:
    """
    Leave out the middle of a long text.

    Examples
    --------
    >>> shorten("a" * 100 + "b" * 100)
    'aaaaaaaaaaaaaaa…bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb'
    """
    if len(text) <= _NAME:
        return text
    return f"{text[: _NAME // 4]}…{text[-3 * _NAME // 4 :]}"


def named(name: str) -> str:
    """Escape a name, for people and for HTML, and shorten it in the middle."""
    return escape(shorten(repr(name)))


def units(number: float) -> str:
    """
    Write a coordinate.

    Examples
    --------
    >>> units(2.0), units(1 / 3)
    ('2', '0.33')
    """
    return f"{round(number, 2):g}"


def used(palette: Mapping[str, str], kinds: Iterable[str]) -> dict[str, str]:
    """Return the colours of those kinds that there are, in the order of the palette."""
    found = set(kinds)
    return {kind: colour for kind, colour in palette.items() if kind in found}


def framed(title: str, *parts: str) -> str:
    """Put parts below a title; tables that are wider than there is room are scrolled."""
    return f"<div style='overflow-x:auto'><div>{title}</div>{''.join(parts)}</div>"


def facts(rows: Iterable[tuple[str, str, str]]) -> str:
    """Make a table without lines, of cells that are HTML."""
    cell = "<td style='text-align:left;padding:.1em .6em .1em 0{}'>{}</td>"
    styles = (";white-space:nowrap", "", ";overflow-wrap:anywhere")
    lines = "".join(f"<tr>{''.join(map(cell.format, styles, row))}</tr>" for row in rows)
    return f"<table style='margin:.3em 0 .6em'>{lines}</table>"


def listing(
    items: Sequence[_T],
    what: str,
    where: str,
    columns: Sequence[str],
    cells: Callable[[_T], Sequence[str]],
) -> str:
    """
    Make a table that is folded away, of some rows.

    Parameters
    ----------
    items : sequence
        One for each row.
    what, where : str
        What they are called, and where those are that the table leaves out.
    columns : sequence of str
        What the columns are called. The last is of names, and read from the left.
    cells : callable
        Gives the cells of an item, as HTML.
    """
    left = "style='text-align:left'"
    rows = [f"<tr>{''.join(f'<th>{name}</th>' for name in columns)}</tr>"]
    for item in items[:_ROWS]:
        *numbers, name = cells(item)
        row = "".join(f"<td>{number}</td>" for number in numbers)
        rows.append(f"<tr>{row}<td {left}>{name}</td></tr>")
    if len(items) > _ROWS:
        more = f"and {len(items) - _ROWS:,} more: see {where}"
        rows.append(f"<tr><td colspan='{len(columns)}' {left}>{more}</td></tr>")
    summary = f"<summary>{count(len(items), what)}</summary>"
    return f"<details>{summary}<table>{''.join(rows)}</table></details>"


def tint(colour: str) -> str:
    """Mix the colour of text into another: darker where it is light, lighter where it is dark."""
    return f"color-mix(in srgb,currentColor 15%,{colour})"


def swatch(colour: str, opacity: float = 1, *, tinted: bool = False) -> str:
    """Make a small square of a colour, for a legend."""
    # What does not know of mixed colours keeps the first.
    mixed = f";color:{tint(colour)}" if tinted else ""
    faded = f";opacity:{opacity:g}" if opacity != 1 else ""
    return f"<span style='color:{colour}{mixed}{faded}'>&#9632;</span>"


def beside(left: str, right: str) -> str:
    """Put two things side by side, or below each other where there is no room."""
    return (
        "<div style='display:flex;flex-wrap:wrap;column-gap:2.5em;align-items:flex-start'>"
        f"<div>{left}</div><div style='flex:1 1 20em'>{right}</div></div>"
    )


def drawing(width: float, height: float, label: str, drawn: Iterable[str]) -> str:
    """Make a picture of what is drawn; `label` is what is read out instead."""
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {units(width)} {units(height)}' "
        f"style='display:block;width:100%;max-width:{units(width)}px;color:inherit' role='img' "
        f"aria-label='{escape(label)}' font-family='sans-serif' font-size='11'>"
        f"{''.join(drawn)}</svg>"
    )


def outline(x: float, y: float, width: float, height: float) -> str:
    """Draw what bounds a picture."""
    return (
        f"<rect x='{units(x)}' y='{units(y)}' width='{units(width)}' height='{units(height)}' "
        f"fill='none' stroke='currentColor' stroke-opacity='.45' pointer-events='none'/>"
    )


def draw_mark(x: float, y: float, width: float, colours: Sequence[str], text: str) -> str:
    """Draw a piece of a bar, in one band for each of its colours, with text to hover over."""
    height = BAR / len(colours)
    bands = "".join(
        f"<rect x='{units(x)}' y='{units(y + i * height)}' width='{units(width)}' "
        f"height='{units(height)}' fill='{colour}'/>"
        for i, colour in enumerate(colours)
    )
    return f"<g><title>{text}</title>{bands}</g>"


def label(x: float, y: float, width: float, text: str) -> str:
    """Write on a mark at (x, y), where there is room."""
    if len(text) * _DIGIT > width:
        return ""
    return (
        f"<text x='{units(x + width / 2)}' y='{units(y + 15)}' text-anchor='middle' "
        f"fill='#fff' pointer-events='none'>{text}</text>"
    )
