"""The plots of buffers and of images, drawn by matplotlib."""

import sys
from itertools import pairwise

import pytest

from sparsearray import ClosedError, Region, SparseBuffer
from sparsearray.buffer_plot import plot_buffer
from sparsearray.images import open_elf, open_raw

P = 4096
TIB = 1 << 40
COLOURS = {"private": "#3d7bd0", "zero": "#7e868f", "file": "#2b9164", "raw": "#bd7a12"}


class Facts:
    """What is asked of a buffer, with regions that no system would have to map."""

    def __init__(self, nbytes, regions=(), name=None) -> None:
        self.nbytes, self.regions, self.name = nbytes, tuple(regions), name


def region(offset, nbytes, kind="private"):
    """Make a region of memory."""
    return Region(offset, nbytes, kind, True, None, None)


@pytest.fixture
def pyplot():
    """Give matplotlib without a screen."""
    matplotlib = pytest.importorskip("matplotlib", reason="plots are drawn by matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    yield plt
    plt.close("all")


def bars(ax):
    """Return (left, right, colour) of what is drawn in each bar, the upper one first."""
    from matplotlib.colors import to_hex

    found = {}
    for patch in ax.patches:
        if patch.get_fill() and hasattr(patch, "get_x"):  # no outline and no shadow
            left, right = patch.get_x(), patch.get_x() + patch.get_width()
            found.setdefault(patch.get_y(), []).append((left, right, to_hex(patch.get_facecolor())))
    return [found[y] for y in sorted(found, reverse=True)]


def legend(ax):
    """Return what the legend says."""
    return [text.get_text() for text in ax.get_legend().get_texts()] if ax.get_legend() else []


@pytest.mark.usefixtures("pyplot")
def test_regions_are_where_they_lie():
    """In the upper bar a region covers its offsets, to within what can be seen, in its colour."""
    regions = [
        region(0, TIB // 8),
        region(TIB // 4, P, "zero"),
        region(TIB // 2, TIB // 4, "file"),
        region(TIB - P, P, "raw"),
    ]
    ax = plot_buffer(Facts(TIB, regions))
    upper, lower = bars(ax)
    assert ax.get_xlim() == (0, TIB)
    visible = TIB / 150
    for one, (left, right, colour) in zip(regions, upper, strict=True):
        assert left == pytest.approx(one.offset, abs=visible)
        assert right == pytest.approx(one.offset + one.nbytes, abs=visible)
        assert right - left >= visible / 2
        assert colour == COLOURS[one.kind]
    assert [colour for *_, colour in lower] == [COLOURS[one.kind] for one in regions]
    assert legend(ax) == ["private", "zero", "file", "raw"]


@pytest.mark.usefixtures("pyplot")
def test_lower_bar_shows_each():
    """In the lower bar larger regions are wider, none overlap, and sizes are written on them."""
    regions = [region(i * (TIB >> 2), P << (8 * i)) for i in range(3)]
    ax = plot_buffer(Facts(TIB, regions))
    lower = bars(ax)[1]
    widths = [right - left for left, right, _ in lower]
    assert widths == sorted(widths)
    assert all(a[1] < b[0] for a, b in pairwise(lower))
    assert lower[-1][1] == pytest.approx(TIB)
    assert [text.get_text() for text in ax.texts] == [
        "4 KiB",
        "1 MiB",
        "256 MiB",
        "regions only, holes squeezed",
    ]


def test_title_and_offsets(pyplot):
    """The title says what is mapped, no dollar makes a formula, and offsets are in hexadecimal."""
    ax = plot_buffer(Facts(TIB, [region(P, 3 * P)], name="$x_$"))
    ax.figure.canvas.draw()
    assert ax.get_title() == "SparseBuffer '$x_$'\n12 KiB mapped of 1 TiB in 1 region"
    found = [text.get_text() for text in ax.get_xticklabels()]
    assert found == [f"{i * TIB // 4:#x}" for i in range(5)]
    assert pyplot.get_fignums() == [1]


@pytest.mark.usefixtures("pyplot")
def test_empty_buffer():
    """Where nothing is mapped there is an empty frame."""
    ax = plot_buffer(Facts(TIB))
    ax.figure.canvas.draw()
    assert bars(ax) == []
    assert legend(ax) == []


@pytest.mark.usefixtures("pyplot")
def test_many_regions():
    """However many there are, so many marks are drawn as can be seen."""
    ax = plot_buffer(Facts(TIB, [region(2 * i * P, P) for i in range(20_000)]))
    ax.figure.canvas.draw()
    assert len(ax.patches) < 250


def test_plot_of_a_buffer(pyplot):
    """The method draws the buffer's own regions, into the axes that are given."""
    _figure, (left, right) = pyplot.subplots(1, 2)
    with SparseBuffer(16 * P) as buffer:
        buffer.alloc(0, 4 * P)
        buffer.map_zero(8 * P, 8 * P)
        assert buffer.plot(right) is right
        assert [colour for *_, colour in bars(right)[0]] == [COLOURS["private"], COLOURS["zero"]]
    assert not left.patches
    with pytest.raises(ClosedError):
        buffer.plot()
    assert pyplot.get_fignums() == [1]


def test_plot_of_an_image(pyplot, make_file):
    """Segments stand side by side in the order of addresses, between the first and the last."""
    path, _data = make_file(100)
    with open_raw([(0x9000, path, 0, 64), (0x1000, path, 64, 8)]) as image:
        ax = image.plot()
        ax.figure.canvas.draw()
        [bar] = bars(ax)
        (first, middle, _), (after, last, _) = bar
        assert 0 == first < middle < after < last
        assert last == pytest.approx(ax.get_xlim()[1])
        assert last - after > middle - first  # 64 bytes, and 8
        assert [text.get_text() for text in ax.get_xticklabels()] == ["0x1000", "0x9040"]
        assert "72 bytes in 2 segments" in ax.get_title()
        assert [text.get_text() for text in ax.texts] == ["8 bytes", "64 bytes"]
    with pytest.raises(ClosedError):
        image.plot()
    assert pyplot.get_fignums() == [1]


@pytest.mark.usefixtures("pyplot")
def test_image_colours():
    """What may be run, written and read has a colour of its own each."""
    pytest.importorskip("elftools", reason="reads the executable")
    with open_elf(sys.executable) as image:
        said = legend(image.plot())
        expected = {"code" for one in image.segments if "x" in one.permissions}
        expected |= {"writable" for one in image.segments if "w" in one.permissions}
        assert expected <= set(said)


def test_without_matplotlib(monkeypatch):
    """Without matplotlib it is said what to install."""
    for name in ("matplotlib", "matplotlib.pyplot", "matplotlib.ticker"):
        monkeypatch.setitem(sys.modules, name, None)
    with (
        SparseBuffer(P) as buffer,
        pytest.raises(ImportError, match="^plot needs matplotlib: pip install "),
    ):
        buffer.plot()
