"""The plot of an array, drawn by matplotlib."""

import sys

import numpy as np
import pytest

from sparsearray import ClosedError
from sparsearray.array_plot import plot_array

from .shown_arrays import NOISE, SHADES, Closed, Facts, cases, shares_of


@pytest.fixture
def pyplot():
    """Give matplotlib without a screen."""
    matplotlib = pytest.importorskip("matplotlib", reason="plots are drawn by matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    yield plt
    plt.close("all")


@cases
@pytest.mark.usefixtures("pyplot")
def test_plot_has_the_same_cells(array):
    """The plot marks the cells that the picture marks, in coordinates of items."""
    ax = plot_array(array)
    [mesh] = ax.collections
    xs, ys = mesh.get_coordinates()[0, :, 0], mesh.get_coordinates()[:, 0, 1]
    levels = mesh.get_array()
    *_, rows, columns = (1, *array.shape[:2])
    assert (xs[0], xs[-1], ys[0], ys[-1]) == (0, columns, 0, rows)
    assert min(np.diff(xs)) > 0 < min(np.diff(ys))
    if array is NOISE:
        assert levels.shape == (64, 64)  # there is room in a plot
        return
    shares = [share for _index, share in shares_of(array)]
    expected = [np.searchsorted(SHADES, share, "right") if share else 0 for share in shares]
    np.testing.assert_array_equal(levels.filled(0).ravel(), expected)


@pytest.mark.usefixtures("pyplot")
def test_plot_is_oriented_like_an_image():
    """Axis 0 goes down and axis 1 to the right, both in items, with names and a title."""
    ax = plot_array(Facts((300, 200), [((0, 1), (0, 1))], path="name.npy"))
    assert ax.get_xlim() == (0, 200)
    assert ax.get_ylim() == (300, 0)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("axis 1", "axis 0")
    assert ax.get_title() == "Facts (300, 200) float64\n8 bytes stored of 468.8 KiB (0.00167%)"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["1 to 99%"]
    assert ax.get_box_aspect() == 1.5


def test_plot_into_axes(pyplot):
    """The plot goes into the axes that are given, and no figure is made."""
    _figure, (left, right) = pyplot.subplots(1, 2)
    assert plot_array(Facts((10,), [((3, 4),)]), right) is right
    assert pyplot.get_fignums() == [1]
    assert not left.collections
    assert list(right.get_yticks()) == []


@pytest.mark.usefixtures("pyplot")
def test_plot_of_a_slender_shape():
    """A plot that is not to scale says so."""
    assert plot_array(Facts((10**9, 3))).get_xlabel() == "axis 1 (not to scale)"


@pytest.mark.parametrize(
    ("array", "text"),
    [(Facts((0, 3)), "no items: nothing to draw"), (Facts((), [()], value=2.5), "value: 2.5")],
)
@pytest.mark.usefixtures("pyplot")
def test_plot_of_nothing(array, text):
    """An array without items or without axes has a plot that says so."""
    assert [found.get_text() for found in plot_array(array).texts] == [text]


@pytest.mark.parametrize(
    "array",
    [
        Facts((1 << 20, 1 << 17), path="$x_$.npy"),
        Facts((10**9, 3), [((0, 1), (0, 1))], dtype=[("$\\bad{$", "f8")]),
        Facts((5,), [((0, 1),)]),
        Facts(()),
    ],
    ids=["terabyte", "slender", "bar", "value"],
)
def test_plot_can_be_drawn(pyplot, array):
    """Drawing raises no warning, and fields with dollars in their names are no formulas."""
    ax = plot_array(array)
    ax.figure.canvas.draw()
    assert pyplot.get_fignums() == [1]


@pytest.mark.usefixtures("pyplot")
def test_long_title():
    """A title that is longer than the figure is wide goes on in another line."""
    array = Facts((10**9, 10**9), dtype=[(f"field_{i}", "f8") for i in range(20)])
    array.tiles = (1000, 1000)
    ax = plot_array(array)
    ax.figure.canvas.draw()
    extent, figure = ax.title.get_window_extent(), ax.figure.bbox
    assert figure.x0 <= extent.x0 < extent.x1 <= figure.x1


@pytest.mark.usefixtures("pyplot")
def test_plot_of_one_axis():
    """A bar has a figure that is long and low, as those of buffers and images are."""
    width, height = plot_array(Facts((1000,))).figure.get_size_inches()
    assert width / height == 4


def test_plot_of_closed(pyplot):
    """A closed array is refused, and no empty figure is left behind."""
    with pytest.raises(ClosedError):
        plot_array(Closed((2, 3)))
    assert pyplot.get_fignums() == []


def test_plot_without_matplotlib(monkeypatch):
    """Without matplotlib it is said what to install."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match="^plot needs matplotlib: pip install "):
        plot_array(Facts((2, 3)))
