"""
What the pictures of buffers and of arrays share.

They take the colour of text from their surroundings and have no background of their own, so that
they can be read in light and in dark notebooks, whichever way these have become so. What is drawn
faintly gets some of that colour (`tint`), and so stands out from either background. There are no
rules of style that reach further, no ids and nothing from elsewhere.
"""

from collections.abc import Iterable
from html import escape

__all__ = [
    "BAR",
    "COLOURS",
    "EDGE",
    "FAINT",
    "beside",
    "drawing",
    "facts",
    "label",
    "named",
    "outline",
    "shorten",
    "swatch",
    "tint",
    "units",
]

# Mid-tones: white text is readable on them, and they are on white and on black.
COLOURS = {"private": "#3d7bd0", "zero": "#7e868f", "file": "#2b9164", "raw": "#bd7a12"}
FAINT = "fill='currentColor' fill-opacity='.75'"  # of text beside what is drawn
EDGE = 1.5  # left and right of what is drawn
BAR = 22  # height of a bar
_DIGIT = 6.2  # width of a character in a label, rather too wide
_LENGTH = 60  # characters of a name, before it is shortened


def shorten(text: str) -> str:
    """
    Leave out the middle of a long text.

    Examples
    --------
    >>> shorten("a" * 100 + "b" * 100)
    'aaaaaaaaaaaaaaa…bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb'
    """
    if len(text) <= _LENGTH:
        return text
    return f"{text[: _LENGTH // 4]}…{text[-3 * _LENGTH // 4 :]}"


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


def facts(rows: Iterable[tuple[str, str, str]]) -> str:
    """Make a table without lines, of cells that are HTML."""
    cell = "<td style='text-align:left;padding:.1em .6em .1em 0{}'>{}</td>"
    styles = (";white-space:nowrap", "", "")
    lines = "".join(f"<tr>{''.join(map(cell.format, styles, row))}</tr>" for row in rows)
    return f"<table style='margin:.3em 0 .6em'>{lines}</table>"


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


def label(x: float, y: float, width: float, text: str) -> str:
    """Write on a mark at (x, y), where there is room."""
    if len(text) * _DIGIT > width:
        return ""
    return (
        f"<text x='{units(x + width / 2)}' y='{units(y + 15)}' text-anchor='middle' "
        f"fill='#fff' pointer-events='none'>{text}</text>"
    )
