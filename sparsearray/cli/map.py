"""``sparsearray map FILE``: a picture of where a file, or the array or image in it, holds data."""

import argparse
import os
import sys
from dataclasses import dataclass
from typing import NamedTuple
from xml.etree import ElementTree as ET

import numpy as np

from sparsearray._new_file import replacing, write_all
from sparsearray._svg import EDGE, shorten
from sparsearray._text import count, printable, size
from sparsearray.array_display import array_html
from sparsearray.display import buffer_html
from sparsearray.files import open as open_array
from sparsearray.npy import MAGIC as NPY_MAGIC
from sparsearray.region import Region

from .elf import MAGIC as ELF_MAGIC
from .formats import refuse_zarr
from .regular import extents_of, opened_regular, refuse_same

__all__ = ["add_map", "draw_file", "picture_of"]

_COLUMNS, _ROWS = 64, 16  # of the map in text
_SHADES = ".-+#"  # of a cell: nothing, less than half, more, and all of it is data
_SVG = "http://www.w3.org/2000/svg"
_LINE = 22  # height of the lines above and below a picture
_MARGIN = 8
_NARROWEST = 560  # room for those lines
_SWATCH = "\N{BLACK SQUARE}"
# A file of its own has no text around it whose colour it could take.
_COLOURS = (
    "svg{color:#1c1e21;background:#fff}"
    "@media (prefers-color-scheme:dark){svg{color:#e3e5e8;background:#1c1e21}}"
    "svg svg{background:none;color:inherit}"
)

_DESCRIPTION = """
Show where a file holds data: as text, or with --svg as a picture to open in a browser, with what is
where to hover over. Of a .npy file it is the array, of an ELF file its segments.
"""
_EXAMPLES = """
examples:
  sparsearray map disk.img
  sparsearray map volume.npy --svg volume.svg
  sparsearray map core --as file --svg - > core.svg
"""


def add_map(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "map",
        help="draw where a file holds data",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="a regular file")
    parser.add_argument("--svg", metavar="OUT", help="write a picture; - is standard output")
    parser.add_argument(
        "--as",
        dest="kind",
        choices=("file", "array", "image"),
        help="what to draw: by default as the file begins, of .npy the array, of ELF the image",
    )
    parser.set_defaults(run=lambda options: _run(parser, options))


def _run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.svg is None:
        if options.kind not in (None, "file"):
            parser.error(f"--as {options.kind} is for --svg")
        print(draw_file(options.file))
        return
    if options.svg != "-":
        refuse_same(options.file, options.svg)
    picture = picture_of(options.file, options.kind)
    if options.svg == "-":
        if sys.stdout is not None:  # as bytes: the picture says in which encoding it is
            sys.stdout.flush()
            sys.stdout.buffer.write(picture.encode())
        return
    with replacing(options.svg) as file:
        write_all(file.fileno(), picture.encode(), 0)


@dataclass
class _FileMap:
    """A file as if all of its data were mapped: what `buffer_html` draws."""

    name: str | None
    nbytes: int
    regions: tuple[Region, ...]
    address: int = 0


def _find_extents(path: str) -> tuple[int, list[tuple[int, int]], bytes]:
    """Return the length of a file, where its data is, and how it begins."""
    refuse_zarr(path)
    with opened_regular(path) as fd:
        nbytes = os.fstat(fd).st_size
        if not nbytes:
            msg = f"{printable(path)} is empty: there is nothing to draw"
            raise ValueError(msg)
        extents = extents_of(fd, nbytes)
        head = os.pread(fd, len(NPY_MAGIC), 0)
    # Where nobody tells, all of it may be data.
    return nbytes, [(0, nbytes)] if extents is None else extents, head


def _summary(nbytes: int, extents: list[tuple[int, int]]) -> str:
    data = sum(stop - start for start, stop in extents)
    return f"{size(nbytes)}, {size(data)} of data in {count(len(extents), 'extent')}"


def draw_file(path: str) -> str:
    r"""
    Draw where a file holds data, in text.

    Parameters
    ----------
    path : str
        A regular file.

    Raises
    ------
    OSError
        It cannot be opened, or is no regular file.
    ValueError
        It is empty.

    Examples
    --------
    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/data"
    >>> with open(path, "wb") as file:
    ...     _ = file.truncate(1 << 19)
    ...     _ = file.seek(20480)
    ...     _ = file.write(bytes(10000))
    >>> print(draw_file(path).partition("\n")[2])  # doctest: +NORMALIZE_WHITESPACE
      512 KiB, 12 KiB of data in 1 extent
    <BLANKLINE>
             0x0 |.....###........................................................|
         0x40000 |................................................................|
    <BLANKLINE>
      a character is 4 KiB: . hole, - under half data, + over, # all
    """
    nbytes, extents, _head = _find_extents(path)
    page = os.sysconf("SC_PAGESIZE")
    cell = -(-nbytes // (_COLUMNS * _ROWS) // page) * page
    edges = np.arange(0, nbytes + cell, cell).clip(max=nbytes)
    # Data up to each edge; the differences are what lies between.
    starts, stops = np.array(extents or [(0, 0)], np.int64).T
    ends = np.cumsum(stops - starts)
    index = np.searchsorted(starts, edges, "right") - 1
    last = stops[index]
    before = np.where(index < 0, 0, ends[index] - (last - np.minimum(edges, last)))
    share = np.diff(before) / np.diff(edges)
    levels = np.digitize(share, [1e-300, 0.5, 1.0])
    cells = "".join(_SHADES[level] for level in levels)
    width = len(f"{nbytes:#x}")
    rows = [
        f"  {at * cell:#{width}x} |{cells[at : at + _COLUMNS]}|"
        for at in range(0, len(cells), _COLUMNS)
    ]
    legend = f"  a character is {size(cell)}: . hole, - under half data, + over, # all"
    return "\n".join([printable(path), f"  {_summary(nbytes, extents)}", "", *rows, "", legend])


def picture_of(path: str, kind: str | None = None) -> str:
    """
    Draw where a file, or what is in it, holds data, as SVG.

    Parameters
    ----------
    path : str
        A regular file.
    kind : {'file', 'array', 'image'}, optional
        What to draw; by default as the file begins.

    Returns
    -------
    str
        A document of its own, for light and dark windows.

    Raises
    ------
    OSError
        It cannot be opened, or is no regular file.
    ValueError
        It is empty, or no such array or image.
    ImportError
        An image, and pyelftools is not installed.
    """
    nbytes, extents, head = _find_extents(path)
    name = shorten(printable(os.path.basename(path)))  # noqa: PTH119 - paths stay strings
    if kind is None:
        kind = "array" if head == NPY_MAGIC else "image" if head.startswith(ELF_MAGIC) else "file"
    if kind == "array":
        with open_array(path) as array:
            title = f"{name}: {array.shape} {array.dtype}"
            drawn = _drawing_in(array_html(array))
            stored = f"{size(array.nbytes_stored)} stored of {size(array.nbytes)}"
        if drawn is not None:
            return _document(f"{title}, {stored}", drawn)
    if kind == "image":
        from sparsearray.images import open_elf

        with open_elf(path) as image:
            drawn = _drawing_in(image._repr_html_())
            title = f"{name}: {count(len(image.segments), 'segment')}"
        if drawn is not None:
            return _document(title, drawn)
    regions = tuple(Region(a, b - a, "file", False, path, a) for a, b in extents)
    drawn = _drawing_in(buffer_html(_FileMap(path, nbytes, regions)))
    assert drawn is not None  # noqa: S101 - a buffer always has a map
    return _document(f"{name}: {_summary(nbytes, extents)}", drawn)


class _Drawing(NamedTuple):
    """A picture, and what its colours mean: colour, opacity, name."""

    svg: ET.Element
    legend: list[tuple[str, str, str]]


def _drawing_in(html: str) -> _Drawing | None:
    """Take the picture out of what a notebook would show; None where there is none."""
    shown = ET.fromstring(html)  # noqa: S314 - our own
    svg = shown.find(f".//{{{_SVG}}}svg")
    if svg is None:
        return None
    legend = []
    for span in shown.iter("span"):
        if span.text == _SWATCH and span.tail:
            style = dict(part.split(":") for part in span.attrib["style"].split(";"))
            entry = style["color"], style.get("opacity", "1"), span.tail.strip(" ,")
            legend.append(entry)
    return _Drawing(svg, legend)


def _document(title: str, drawn: _Drawing) -> str:
    """Make a file of its own of a picture: with a size, a title, a legend, and colours."""
    svg = drawn.svg
    _left, _top, width, height = map(float, svg.attrib["viewBox"].split())
    svg.attrib.pop("style", None)
    svg.attrib |= {"x": f"{_MARGIN}", "y": f"{_MARGIN + _LINE}"}
    svg.attrib |= {"width": f"{width:g}", "height": f"{height:g}"}
    whole_width = max(width, _NARROWEST) + 2 * _MARGIN
    whole_height = height + 2 * _MARGIN + _LINE + (_LINE if drawn.legend else 0)
    box = {"width": f"{whole_width:g}", "height": f"{whole_height:g}"}
    box["viewBox"] = f"0 0 {whole_width:g} {whole_height:g}"
    document = ET.Element(f"{{{_SVG}}}svg", box | {"font-family": "sans-serif", "font-size": "13"})
    ET.SubElement(document, f"{{{_SVG}}}title").text = title
    ET.SubElement(document, f"{{{_SVG}}}style").text = _COLOURS
    document.append(_line(_MARGIN + 12))
    document[-1].text = title
    document.append(svg)
    if drawn.legend:
        line = _line(whole_height - _MARGIN - 4)
        for colour, opacity, name in drawn.legend:
            swatch = {"fill": colour, "fill-opacity": opacity}
            ET.SubElement(line, f"{{{_SVG}}}tspan", swatch).text = _SWATCH
            line[-1].tail = f" {name}\N{EM SPACE}"
        document.append(line)
    ET.register_namespace("", _SVG)
    encoded: bytes = ET.tostring(document, "utf-8", xml_declaration=True)
    return encoded.decode() + "\n"


def _line(y: float) -> ET.Element:
    place = {"x": f"{_MARGIN + EDGE:g}", "y": f"{y:g}", "fill": "currentColor"}
    return ET.Element(f"{{{_SVG}}}text", place)
