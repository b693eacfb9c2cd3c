"""What notebooks show, as a browser paints it: in light and in dark, wide and narrow."""

import re
import shutil
import subprocess
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest

from sparsearray._svg import COLOURS

pytest.importorskip("nbconvert", reason="notebooks are rendered by nbconvert")
Image = pytest.importorskip("PIL.Image", reason="screenshots are read by Pillow")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium to paint with"),
    # What the kernel's client does when it is done with its event loop.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning:zmq"),
]

CELLS = {
    "buffer": """
import mmap, sys
import sparsearray
from sparsearray.images import open_elf
buffer = sparsearray.SparseBuffer(1 << 40, name="<b>&catalogue")
buffer.alloc(0, 1 << 28)
buffer.map_zero(1 << 39, 1 << 30)
buffer.map_file(3 << 38, mmap.PAGESIZE, sys.executable)
buffer.mmap_anonymous((1 << 40) - (1 << 20), 1 << 20, mmap.PROT_READ, mmap.MAP_PRIVATE)
buffer""",
    "region": "buffer.regions[1]",
    "array": """
a = sparsearray.zeros((1 << 20, 1 << 20))
for i in range(0, 1 << 20, 1 << 16):
    a[i : i + (1 << 12) : 512, i] = 1
a""",
    "tiled": """
b = sparsearray.zeros((4096, 4096), "u1", tiles="auto")
b[1024:2048, 1024:3072] = 1
b""",
    "ring": """
c = sparsearray.ring(1 << 20)
c.push(range(100_000))
c""",
    "image": "open_elf(sys.executable)",
}


class Page(NamedTuple):
    """A page to be painted."""

    html: str
    prefers_dark: bool
    is_dark: bool


class Painted(NamedTuple):
    """The colours of a screenshot, and how often each of them is there."""

    colours: np.ndarray
    counts: np.ndarray

    @property
    def background(self) -> np.ndarray:
        """The colour that there is most of."""
        return self.colours[self.counts.argmax()]

    def near(self, colour) -> int:
        """Count pixels that have a colour, to rounding."""
        return int(self.counts[(abs(self.colours - np.asarray(colour)) <= 3).all(axis=1)].sum())


def blend(over, under, share: float) -> np.ndarray:
    """Mix two colours."""
    return share * np.array([*over]) + (1 - share) * np.array([*under])


def luminance(colour) -> float:
    """Return the relative luminance as WCAG 2 defines it."""
    parts = np.asarray(colour, float) / 255
    parts = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(parts @ [0.2126, 0.7152, 0.0722])


def contrast(one, other) -> float:
    """Return the contrast of two colours as WCAG 2 defines it: 1 to 21."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """Run a notebook that shows one thing of each kind."""
    import nbformat
    from nbclient import NotebookClient

    cells = [nbformat.v4.new_code_cell(source.strip()) for source in CELLS.values()]
    made = nbformat.v4.new_notebook(cells=cells)
    folder = tmp_path_factory.mktemp("notebook")
    NotebookClient(made, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    return made


@pytest.fixture(scope="module")
def fragments(notebook):
    """Return what is shown of each thing."""
    return {
        name: cell.outputs[-1].data["text/html"]
        for name, cell in zip(CELLS, notebook.cells, strict=True)
    }


@pytest.fixture(scope="module")
def pages(notebook, fragments):
    """Make pages: of JupyterLab's themes, of VS Code's, and of a system's own preference."""
    from nbconvert import HTMLExporter

    nowhere = {"mathjax_url": "", "require_js_url": "", "jquery_url": "", "mermaid_js_url": ""}
    body = "<hr>".join(fragments.values())
    plain = f"<!doctype html><meta charset=utf-8>{{}}{body}"
    found = {
        f"lab {theme}": Page(
            HTMLExporter(theme=theme, **nowhere).from_notebook_node(notebook)[0],
            prefers_dark=theme == "light",  # which is not asked
            is_dark=theme == "dark",
        )
        for theme in ("light", "dark")
    }
    code = "<body class=vscode-dark style='background:#1e1e1e;color:#ccc'>"
    system = "<style>:root{color-scheme:light dark}</style><body>"
    found["code dark"] = Page(plain.format(code), prefers_dark=False, is_dark=True)
    found["system light"] = Page(plain.format(system), prefers_dark=False, is_dark=False)
    found["system dark"] = Page(plain.format(system), prefers_dark=True, is_dark=True)
    return found


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    """Call it with HTML, options and a size: run Chromium on it, and return what it printed."""
    folder = tmp_path_factory.mktemp("browser")

    def run(html: str, *options: str, width: int = 1100, prefers_dark: bool = False) -> str:
        page = folder / "page.html"
        page.write_text(html)
        command = [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--host-resolver-rules=MAP * ~NOTFOUND",  # nothing comes from elsewhere
            "--force-color-profile=srgb",
            f"--user-data-dir={folder / 'profile'}",
            f"--window-size={width},2600",
            # As the system says: 0 is dark.
            f"--blink-settings=preferredColorScheme={0 if prefers_dark else 1}",
            *options,
            page.as_uri(),
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=False, cwd=folder
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def paint(pages, browse, tmp_path_factory):
    """Call it with the name of a page: the colours of its screenshot, which is taken once."""
    folder = tmp_path_factory.mktemp("shots")

    @cache
    def shoot(name: str) -> Painted:
        path, page = folder / f"{name}.png", pages[name]
        browse(page.html, f"--screenshot={path}", prefers_dark=page.prefers_dark)
        pixels = np.asarray(Image.open(path).convert("RGB"), int) @ [1 << 16, 1 << 8, 1]
        colours, counts = np.unique(pixels, return_counts=True)
        return Painted(colours[:, None] >> [16, 8, 0] & 255, counts)

    return shoot


NAMES = ["lab light", "lab dark", "code dark", "system light", "system dark"]


@pytest.mark.parametrize("name", NAMES)
def test_colours(name, pages, paint):
    """On the page's own background, marks of each kind are seen, and text is readable."""
    painted, is_dark = paint(name), pages[name].is_dark
    assert (luminance(painted.background) < 0.05) == is_dark
    assert (luminance(painted.background) > 0.9) != is_dark
    for kind, colour in COLOURS.items():
        own = tuple(bytes.fromhex(colour[1:]))
        assert painted.near(own) > 300, kind
        assert contrast(own, painted.background) > 3, kind  # WCAG 2.1, 1.4.11: of graphics
    # The furthest from the background that there is much of: what text is painted with.
    much = painted.colours[painted.counts > 100]
    assert max(contrast(one, painted.background) for one in much) > 7  # WCAG 2.1, 1.4.6: of text


@pytest.mark.parametrize("name", NAMES)
def test_faint_cells(name, pages, paint):
    """Cells of which little is stored have some of the colour of text, and so stand out."""
    painted = paint(name)
    # Which colour that is, is the page's affair: any grey between its extremes.
    greys = range(180, 256) if pages[name].is_dark else range(100)
    own = bytes.fromhex(COLOURS["private"][1:])
    faint = [blend(blend((grey,) * 3, own, 0.15), painted.background, 0.65) for grey in greys]
    seen = [colour for colour in faint if painted.near(colour) > 16 * 30]
    assert seen
    assert min(contrast(colour, painted.background) for colour in seen) > 2.3


@pytest.mark.parametrize("width", [500, 900, 1600])
def test_fits_the_width(width, fragments, browse):
    """No thing is wider than the page, and an array's picture is beside its table where it can be."""
    script = """<script>addEventListener("load", () => {
        const [left, right] = document.querySelectorAll("#array > div > div:last-child > div");
        const boxes = [left, right].map(one => one.getBoundingClientRect());
        document.body.innerHTML = [
            innerWidth, document.documentElement.scrollWidth, boxes[0].right <= boxes[1].left,
            boxes[0].bottom <= boxes[1].top].join(" ");
    })</script>"""
    body = "".join(f"<div id={name}>{html}</div>" for name, html in fragments.items())
    html = f"<!doctype html><meta charset=utf-8><body style='font:14px sans-serif'>{body}{script}"
    found = re.search(
        r"<body[^>]*>(\d+) (\d+) (\w+) (\w+)", browse(html, "--dump-dom", width=width)
    )
    inner, wide, beside, below = found.groups()
    assert int(inner) == width
    assert int(wide) <= width
    assert (beside, below) == (("false", "true") if width == 500 else ("true", "false"))


def test_fits_a_narrow_column(fragments, browse):
    """Tables that are wider than a column, unfolded too, are scrolled and reach out nowhere."""
    script = """<script>addEventListener("load", () => {
        for (const folded of document.querySelectorAll("details")) folded.open = true;
        const columns = [...document.querySelectorAll("body > div")];
        document.body.innerHTML = Math.max(...columns.map(one => one.scrollWidth));
    })</script>"""
    body = "".join(f"<div style='width:320px'>{html}</div>" for html in fragments.values())
    html = f"<!doctype html><meta charset=utf-8><body style='font:14px sans-serif'>{body}{script}"
    assert re.search(r"<body[^>]*>(\d+)", browse(html, "--dump-dom"))[1] == "320"


def test_scripts_of_names_do_not_run(browse):
    """A name that is HTML is shown, and not obeyed."""
    from sparsearray import SparseBuffer

    name = "<script>document.title='obeyed'</script><img src=x onerror=\"document.title='obeyed'\">"
    with SparseBuffer(1 << 20, name=name) as buffer:
        shown = browse(
            f"<!doctype html><title>kept</title><body>{buffer._repr_html_()}", "--dump-dom"
        )
    assert "<title>kept</title>" in shown
    assert "<img" not in shown
