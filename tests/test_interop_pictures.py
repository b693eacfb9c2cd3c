"""Arrays given to what makes pictures of them: matplotlib, and what napari asks of a layer's data."""

from itertools import pairwise

import numpy as np
import pytest

import sparsearray

TERABYTE = (1 << 20, 1 << 17)
VOLUME = (1 << 12, 1 << 13, 1 << 13)  # 256 GiB of bytes
LAYOUTS = {"rows": None, "tiles": "auto"}
layouts = pytest.mark.parametrize("tiles", LAYOUTS.values(), ids=LAYOUTS)

# matplotlib


@pytest.fixture
def pyplot():
    """Give matplotlib without a screen."""
    matplotlib = pytest.importorskip("matplotlib", reason="pictures are drawn by matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    yield plt
    plt.close("all")


def picture(tiles):
    """Make a terabyte with a small picture in it."""
    a = sparsearray.zeros(TERABYTE, tiles=tiles)
    dense = np.random.default_rng(0).random((20, 30))
    a[1000:1020, 2000:2030] = dense
    return a, dense


@layouts
@pytest.mark.usefixtures("told_pages")
def test_imshow_of_a_part(pyplot, tiles):
    """A part of a terabyte is drawn as the same items in an array of their own."""
    a, dense = picture(tiles)
    before = a.nbytes_stored
    _figure, ax = pyplot.subplots()
    image = ax.imshow(a[1000:1020, 2000:2030])
    np.testing.assert_array_equal(image.get_array(), dense)
    assert image.get_clim() == (dense.min(), dense.max())
    ax.figure.canvas.draw()
    assert a.nbytes_stored == before


@layouts
def test_imshow_of_every_nth_item(pyplot, tiles):
    """So is a terabyte, thinned out."""
    a, dense = picture(tiles)
    _figure, ax = pyplot.subplots()
    image = ax.imshow(a[1000 :: 1 << 14, 2000 :: 1 << 11])
    assert image.get_array().shape == (64, 64)
    assert image.get_array()[0, 0] == dense[0, 0]
    ax.figure.canvas.draw()


@layouts
@pytest.mark.usefixtures("told_pages")
@pytest.mark.parametrize("name", ["imshow", "matshow", "pcolormesh"])
def test_all_of_a_terabyte_is_refused(pyplot, tiles, name):
    """Where memory has no room for a dense picture there is an error, at once."""
    a, _dense = picture(tiles)
    before = a.nbytes_stored
    _figure, ax = pyplot.subplots()
    with pytest.raises(MemoryError, match="takes 1 TiB|allocate 1.00 TiB"):
        getattr(ax, name)(a)
    assert a.nbytes_stored == before


@layouts
def test_all_of_a_small_array(pyplot, tiles):
    """A whole array that fits is drawn like any other."""
    a = sparsearray.zeros((50, 40), tiles=tiles)
    a[3, 4] = 2
    _figure, ax = pyplot.subplots()
    np.testing.assert_array_equal(ax.imshow(a).get_array(), np.asarray(a))
    a.close()  # the picture is a copy


# napari: it asks for no more than `shape`, `dtype`, `ndim`, `size` and `data[index]`, and turns
# what it gets into ndarrays. What follows asks the same, in the same order.


class Layer:
    """What becomes of an image layer: its guesses, its range of values, and slices to look at."""

    def __init__(self, data) -> None:
        assert data.ndim > 1, "a sequence of arrays is a pyramid"
        self.data = data
        colours = data.ndim > 2 and data.shape[-1] in (3, 4)
        self.is_rgb = colours and min(data.shape[-3:-1]) > 30
        self.is_labels = data.dtype in (np.int32, np.uint32, np.int64, np.uint64)
        self.range = self._range()

    def _range(self):
        data = self.data
        if data.dtype == np.uint8:
            return 0, 255
        if data.size <= 1e7:
            return float(np.min(data)), float(np.max(data))
        outer = data.shape[:-2]
        planes = [(0,) * len(outer), tuple(n // 2 for n in outer), tuple(n - 1 for n in outer)]
        inner: tuple[slice, ...] = ()
        if np.prod(data.shape[-2:]) > 1e7:
            inner = tuple(slice(n // 2 - 31, n // 2 + 31) for n in data.shape[-2:])
        parts = [data[plane + inner] for plane in planes]
        return min(float(np.min(part)) for part in parts), max(
            float(np.max(part)) for part in parts
        )

    def slice(self, *point):
        """Give the plane at a point of the other axes."""
        index = tuple(int(np.round(at)) for at in point) + (slice(None),) * 2
        return np.transpose(np.asarray(self.data[index]), (0, 1))

    def thick_slice(self, low, high):
        """Give the mean of several planes."""
        index = (slice(low, high), slice(None), slice(None))
        return np.mean(np.asarray(self.data[index]), axis=0)


class Pyramid:
    """What becomes of several arrays, each half as large: the part on the screen is asked for."""

    def __init__(self, levels) -> None:
        sizes = [level.size for level in levels]
        assert all(a > b for a, b in pairwise(sizes))
        self.levels = levels

    def view(self, level, corners):
        """Give the part between two corners, which numpy computed."""
        data = self.levels[level]
        index = tuple(slice(low, high + 1, 1) for low, high in zip(*corners, strict=True))
        return np.asarray(data[index])


@layouts
@pytest.mark.usefixtures("told_pages")
def test_a_volume_as_a_layer(tiles):
    """A volume of 256 GiB gives planes, and only those are looked at."""
    a = sparsearray.zeros(VOLUME, "u2", tiles=tiles)
    plane = np.random.default_rng(1).integers(0, 99, (100, 200)).astype("u2")
    a[2048, 4000:4100, 4000:4200] = plane
    before = a.nbytes_stored
    layer = Layer(a)
    assert (layer.is_rgb, layer.is_labels) == (False, False)
    # A patch of 62 x 62 in the middle of the planes, of which the middle one has something there.
    assert layer.range == (0, plane[65:, 65:127].max())
    shown = layer.slice(2048.4)
    np.testing.assert_array_equal(shown[4000:4100, 4000:4200], plane)
    assert shown.sum(dtype=int) == plane.sum(dtype=int)
    assert not layer.slice(np.float64(7)).any()
    assert a.nbytes_stored == before


@layouts
def test_a_thick_slice(tiles):
    """Several planes at once are a mean."""
    a = sparsearray.zeros((16, 40, 50), "f4", tiles=tiles)
    a[3:5] = 2
    layer = Layer(a)
    assert layer.range == (0, 2)
    np.testing.assert_array_equal(layer.thick_slice(2, 6), np.full((40, 50), 1, "f4"))


@layouts
@pytest.mark.parametrize(("dtype", "expected"), [("i4", True), ("u8", True), ("f4", False)])
def test_labels_are_told_by_their_dtype(dtype, expected, tiles):
    """The dtype is numpy's, and compares with its types."""
    assert Layer(sparsearray.zeros((40, 50), dtype, tiles=tiles)).is_labels is expected


@layouts
def test_a_picture_in_colours(tiles):
    """The shape is a tuple of ints, by which an axis of colours is told from others."""
    colours = Layer(sparsearray.zeros((400, 300, 3), "u1", tiles=tiles))
    assert (colours.is_rgb, colours.range) == (True, (0, 255))
    assert not Layer(sparsearray.zeros((64, 64, 64), "u1", tiles=tiles)).is_rgb


@layouts
@pytest.mark.usefixtures("told_pages")
def test_a_pyramid(tiles):
    """A terabyte is looked at through the part on the screen, of which nothing is stored."""
    levels = [sparsearray.zeros((1 << 20 >> k, 1 << 17 >> k), tiles=tiles) for k in range(6)]
    levels[0][5000:5010, 6000:6010] = 3
    before = levels[0].nbytes_stored
    corners = np.array([[4990, 5990], [5019, 6029]])
    shown = Pyramid(levels).view(0, corners)
    expected = np.zeros((30, 40))
    expected[10:20, 10:20] = 3
    np.testing.assert_array_equal(shown, expected)
    assert levels[0].nbytes_stored == before


@pytest.fixture
def viewer(monkeypatch):
    """Give napari's viewer without a window."""
    reason = "napari brings a hundred packages along: what it asks is asked above, too"
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    components = pytest.importorskip("napari.components", reason=reason)
    return components.ViewerModel()


@layouts
@pytest.mark.slow
@pytest.mark.usefixtures("told_pages")
@pytest.mark.filterwarnings("ignore")  # of its hundred packages
def test_napari_itself(viewer, tiles):
    """It shows planes of a volume of 256 GiB, a pyramid, and labels that can be painted."""
    a = sparsearray.zeros(VOLUME, "u2", tiles=tiles)
    a[2048, 4000:4100, 4000:4200] = 7
    before = a.nbytes_stored
    layer = viewer.add_image(a)
    assert layer.data is a
    viewer.dims.set_point(0, 2048)
    assert layer._slice.image.view.sum(dtype=int) == 7 * 100 * 200
    viewer.dims.set_point(0, 7)
    assert not layer._slice.image.view.any()
    assert a.nbytes_stored == before

    levels = [sparsearray.zeros((1 << 17 >> k, 1 << 15 >> k), tiles=tiles) for k in range(8)]
    pyramid = viewer.add_image(levels, multiscale=True, contrast_limits=(0, 1))
    assert pyramid.multiscale
    assert sum(level.nbytes_stored for level in levels) == 0

    labels = sparsearray.zeros((8, 400, 300), "i4", tiles=tiles)
    viewer.add_labels(labels).paint((3, 100, 50), 4)
    assert labels[3, 100, 50] == 4
