"""The picture of an array: which cells are marked, where and how dark, and what it may cost."""

import re
import time
import tracemalloc
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest

from sparsearray.array_display import array_html

from .shown_arrays import (
    NOISE,
    SHADES,
    SVG,
    Facts,
    cases,
    cell_of,
    parse,
    scattered,
    shares_of,
    text_of,
)


class Mark(NamedTuple):
    """A run of cells: where it is drawn, and what it says."""

    x: float
    y: float
    right: float
    bottom: float
    opacity: float
    index: tuple[slice, ...]
    text: str


def frame_of(array):
    """Return (x, y, right, bottom) of the frame."""
    [rect] = parse(array).iter(f"{SVG}rect")
    x, y, width, height = (float(rect.get(key)) for key in ("x", "y", "width", "height"))
    return x, y, x + width, y + height


def marks_of(array):
    """Return what is drawn, in the coordinates of the picture."""
    groups = [group for group in parse(array).iter(f"{SVG}g") if group.get("transform")]
    marks = []
    for group in groups:
        numbers = re.fullmatch(
            r"translate\((\S+) (\S+)\) scale\((\S+) (\S+)\)", group.get("transform")
        )
        left, top, wide, tall = map(float, numbers.groups())
        for shade in group:
            for path in shade:
                found = re.fullmatch(r"M(\S+) (\S+)h(\S+)v(\S+)H(\S+)z", path.get("d"))
                x, y, width, height, back = map(float, found.groups())
                assert back == x
                place, text = path.find(f"{SVG}title").text.split("\n")
                index = tuple(
                    slice(*map(int, span.split(":"))) for span in place.strip("[]").split(", ")
                )
                marks.append(
                    Mark(
                        left + x * wide,
                        top + y * tall,
                        left + (x + width) * wide,
                        top + (y + height) * tall,
                        float(shade.get("fill-opacity")),
                        index,
                        text,
                    )
                )
    return marks


def nbytes(text):
    """Read a number of bytes."""
    number, unit = text.split()
    return float(number) * 1024 ** ["bytes", "KiB", "MiB", "GiB", "TiB"].index(unit)


# The picture


@cases
def test_cells_that_are_marked(array):
    """Marks cover each cell that anything is stored in once, and no other."""
    covered = np.zeros(array.shape[:2], int)
    for mark in marks_of(array):
        covered[mark.index] += 1
    expected = np.zeros(array.shape[:2], int)
    for index, share in shares_of(array):
        expected[index] = share > 0
    np.testing.assert_array_equal(covered, expected)


@cases
def test_shades(array):
    """The more of a cell is stored, the darker it is, in steps."""
    shares = shares_of(array)
    opacities = {}
    for mark in marks_of(array):
        found = {
            int(np.searchsorted(SHADES, share, "right"))
            for index, share in shares
            if all(
                m.start <= i.start and i.stop <= m.stop
                for m, i in zip(mark.index, index, strict=True)
            )
        }
        assert len(found) == 1
        opacities.setdefault(found.pop(), set()).add(mark.opacity)
    assert all(len(found) == 1 for found in opacities.values())
    ordered = [opacities[level].copy().pop() for level in sorted(opacities)]
    assert ordered == sorted(set(ordered))


@pytest.mark.parametrize(
    ("items", "name"),
    [
        (1, "under 1%"),
        (99, "under 1%"),
        (100, "1 to 99%"),
        (9999, "1 to 99%"),
        (10_000, "all"),
    ],
)
def test_names_of_shades(items, name):
    """A shade is named after the share of which it is below, and only the last is everything."""
    array = Facts((1, 1, 10_000), [((0, 1), (0, 1), (0, items))])
    assert text_of(array).endswith(f"stored of a cell: ■ {name}")


@cases
def test_bytes_of_a_mark(array):
    """Hover text says how many bytes are stored, and of how many."""
    stored = array.dense()
    for mark in marks_of(array):
        inside = stored[mark.index]
        said = re.fullmatch(r"(\S+ \S+) of (\S+ \S+)", mark.text)
        assert [nbytes(text) for text in said.groups()] == [
            pytest.approx(8 * inside.sum(), rel=1e-3),
            pytest.approx(8 * inside.size, rel=1e-3),
        ]


@cases
def test_marks_stay_inside(array):
    """No mark leaves the frame, each can be seen, and they do not overlap."""
    left, top, right, bottom = frame_of(array)
    marks = marks_of(array)
    for mark in marks:
        assert left - 0.05 <= mark.x
        assert top - 0.05 <= mark.y
        assert mark.right <= right + 0.05
        assert mark.bottom <= bottom + 0.05
        assert mark.right - mark.x >= 1.9
        assert mark.bottom - mark.y >= 1.9
    for mark, other in pairwise(sorted(marks, key=lambda mark: (mark.y, mark.x))):
        assert other.y >= mark.bottom - 0.05 or (other.x >= mark.right - 0.05)


@cases
def test_marks_lie_where_their_index_is(array):
    """A mark is drawn where its items are in the frame, to half a cell."""
    left, top, right, bottom = frame_of(array)
    *_, rows, columns = (1, *array.shape[:2])
    tall, wide = (1, *cell_of(array))[-2:]
    for mark in marks_of(array):
        row, column = (slice(0, 1), *mark.index)[-2:]
        for drawn, index in ((mark.x, column.start), (mark.right, column.stop)):
            where = (drawn - left) / (right - left) * columns
            assert where == pytest.approx(index, abs=0.51 * wide)
        for drawn, index in ((mark.y, row.start), (mark.bottom, row.stop)):
            where = (drawn - top) / (bottom - top) * rows
            assert where == pytest.approx(index, abs=0.51 * tall)


@cases
def test_everything_is_in_the_view_box(array):
    """Frame and names of the axes fit into the picture."""
    [svg] = parse(array).iter(f"{SVG}svg")
    _x, _y, width, height = map(float, svg.get("viewBox").split())
    _left, _top, right, bottom = frame_of(array)
    assert right < width
    assert bottom < height
    for text in svg.iter(f"{SVG}text"):
        length = 6 * len(text.text)
        if text.get("transform"):
            assert (
                float(re.search(r" ([\d.]+)\) rotate\(90\)", text.get("transform"))[1]) + length
                <= height
            )
        else:
            assert float(text.get("x")) + length <= width


def test_axes_are_named():
    """Axis 1 goes to the right and axis 0 downwards, with their sizes."""
    texts = {text.text: text for text in parse(Facts((3000, 5, 2))).iter(f"{SVG}text")}
    assert list(texts) == ["axis 0: 3,000 →", "axis 1: 5 →"]
    assert "rotate(90)" in texts["axis 0: 3,000 →"].get("transform")


def test_one_axis_is_a_bar():
    """An array of one axis is drawn as one bar, from left to right."""
    n = 1 << 40
    array = Facts((n,), [((0, 1),), ((n // 2, n // 2 + 1),), ((n - 1, n),)])
    first, middle, last = marks_of(array)
    left, top, right, bottom = frame_of(array)
    assert {mark.bottom - mark.y for mark in (first, middle, last)} == {bottom - top}
    assert first.x == pytest.approx(left, abs=0.05)
    assert middle.x == pytest.approx((left + right) / 2, abs=4)
    assert last.right == pytest.approx(right, abs=0.05)
    assert [text.text for text in parse(array).iter(f"{SVG}text")] == [f"axis 0: {n:,} →"]


@pytest.mark.parametrize("place", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize(
    "shape", [(3970, 3970), (1 << 20, 1 << 17), (3970, 3), (5, 7), (2, 10**12)]
)
def test_one_item_in_a_corner(shape, place):
    """The item in a corner is drawn in that corner, where the last cell is small too."""
    corner = [(0, 1) if side == 0 else (n - 1, n) for n, side in zip(shape, place, strict=True)]
    array = Facts(shape, [corner])
    [mark] = marks_of(array)
    left, top, right, bottom = frame_of(array)
    assert (mark.y, mark.bottom)[place[0]] == pytest.approx((top, bottom)[place[0]], abs=0.05)
    assert (mark.x, mark.right)[place[1]] == pytest.approx((left, right)[place[1]], abs=0.05)
    assert 2.9 < mark.right - mark.x < 30
    assert 2.9 < mark.bottom - mark.y < 30
    assert all(m.start <= c[0] < c[1] <= m.stop for m, c in zip(mark.index, corner, strict=True))


@pytest.mark.parametrize(
    ("shape", "ratio"),
    [
        ((300, 600), 2),
        ((5, 7), 7 / 5),
        ((400, 100), 1 / 4),
        ((127, 125), 125 / 127),
        ((10, 40), 4),
        ((1 << 30, 1 << 30), 1),
    ],
)
def test_to_scale(shape, ratio):
    """The frame has the proportions of the shape."""
    left, top, right, bottom = frame_of(Facts(shape))
    assert (right - left) / (bottom - top) == pytest.approx(ratio, rel=0.01)
    assert len(set(cell_of(Facts(shape)))) == 1, "cells are square"
    assert "not to scale" not in text_of(Facts(shape))


@pytest.mark.parametrize("shape", [(10**9, 3), (3, 10**9), (1, 1000), (1 << 20, 1 << 17)])
def test_not_to_scale(shape):
    """A slender shape is drawn less slender, and it is said so."""
    left, top, right, bottom = frame_of(Facts(shape))
    slender = max((right - left) / (bottom - top), (bottom - top) / (right - left))
    assert 4 <= slender <= 20
    assert min(right - left, bottom - top) >= 22
    assert "; not to scale" in text_of(Facts(shape))


def test_a_billion_rows_of_three():
    """Each of three columns has its own cells, a third of the frame wide."""
    n = 10**9
    array = Facts((n, 3), [((0, 1), (0, 1)), ((n // 2, n // 2 + 1), (1, 2)), ((n - 1, n), (2, 3))])
    left, top, right, bottom = frame_of(array)
    third = (right - left) / 3
    for i, mark in enumerate(marks_of(array)):
        assert mark.index[1] == slice(i, i + 1)
        assert mark.x == pytest.approx(left + i * third, abs=0.05)
        assert mark.right == pytest.approx(left + (i + 1) * third, abs=0.05)
        assert mark.y == pytest.approx(top + i * (bottom - top) / 2, abs=7)
    assert "a cell is 15,625,000 x 1 items; not to scale" in text_of(array)


def test_further_axes_are_collapsed():
    """A cell is marked if anything behind it is stored, and the caption says so."""
    array = Facts((20, 30, 50), [((3, 4), (5, 6), (49, 50)), ((3, 4), (6, 7), (0, 50))])
    assert [mark.index for mark in marks_of(array)] == [
        (slice(3, 4), slice(5, 6)),
        (slice(3, 4), slice(6, 7)),
    ]
    assert [mark.text for mark in marks_of(array)] == [
        "8 bytes of 400 bytes",
        "400 bytes of 400 bytes",
    ]
    assert "axes 0 and 1 of 3; a cell is one item, marked if anything" in text_of(array)


def test_full():
    """Where everything is stored there is one mark for each row, of one shade."""
    array = Facts((1000, 1000), [((0, 1000), (0, 1000))])
    marks = marks_of(array)
    assert {mark.opacity for mark in marks} == {1.0}
    assert all(mark.index[1] == slice(0, 1000) for mark in marks)
    assert len(marks) == len({mark.y for mark in marks}) == 63


def test_nothing_stored():
    """Where nothing is stored the frame is empty."""
    array = Facts((1 << 20, 1 << 17))
    assert marks_of(array) == []
    assert "nothing stored: all reads as zero" in text_of(array)


def test_legend_has_what_is_drawn():
    """Below the picture those shades are explained that are in it, as it shows them."""
    array = Facts((1 << 20, 1 << 20), [((0, 1), (0, 1)), ((1 << 19, 1 << 20), (0, 1 << 20))])
    assert "stored of a cell: ■ under 1%, ■ all" in text_of(array)
    swatches = [span.get("style") for span in parse(array).iter("span") if span.text == "■"]
    assert [float((re.search("opacity:(.*)", style) or [0, 1])[1]) for style in swatches] == sorted(
        {mark.opacity for mark in marks_of(array)}
    )


def test_a_page_in_a_terabyte_is_visible():
    """However little is stored, its cell is at least half opaque, and 6 units wide."""
    [mark] = marks_of(scattered((1 << 20, 1 << 17), 1))
    assert mark.opacity >= 0.5
    assert min(mark.right - mark.x, mark.bottom - mark.y) == pytest.approx(6, abs=0.1)


def test_boxes_beyond_the_shape_are_cut_off():
    """A box that a concurrent `resize` made too long stays in the frame."""
    array = Facts((100, 100), [((90, 200), (0, 300))])
    _left, _top, right, bottom = frame_of(array)
    assert max(mark.right for mark in marks_of(array)) <= right + 0.05
    assert max(mark.bottom for mark in marks_of(array)) <= bottom + 0.05


def test_boxes_of_nothing():
    """A box without items is no box."""
    array = Facts((100, 100), [((5, 5), (0, 10)), ((7, 8), (3, 3)), ((9, 10), (4, 5))])
    assert [mark.text for mark in marks_of(array)] == ["8 bytes of 32 bytes"]
    assert "boxes 1 1 item" in text_of(array)


def test_counts_are_exact():
    """What many boxes hold adds up without loss."""
    array = scattered((1 << 20, 1 << 17), 20_000)
    assert "boxes 20,000 10,240,000 items" in text_of(array)
    assert sum(nbytes(mark.text.split(" of ")[0]) for mark in marks_of(array)) == pytest.approx(
        array.nbytes_stored, rel=1e-3
    )


# Bounds


def checkered(cells, thin, full):
    """Make boxes in each of many cells, of two sizes in turn."""
    spans = [((thin, full)[(i + j) % 2], i, j) for i in range(cells) for j in range(cells)]
    side = 1 << 21
    return Facts(
        (cells * side, cells * side),
        [
            ((i * side, i * side + size), (j * side, j * side + size))
            for size, i, j in spans
            if size
        ],
    )


@pytest.mark.parametrize(
    "array",
    [
        scattered((1 << 20, 1 << 17), 20_000),
        scattered((1 << 23, 1 << 23), 5_000),
        scattered((1 << 23, 1 << 23), 2_000),
        checkered(64, 0, 1),
        checkered(64, 1, 1 << 20),
        checkered(32, 1, 1 << 20),
        checkered(32, 0, 1 << 21),
    ],
    ids=["dense", "scattered", "sparse", "64 x 64", "64 x 64 shades", "32 x 32", "32 x 32 full"],
)
def test_size_is_bounded(array):
    """However scattered the boxes are, the picture stays below 100 KiB, with all of them in it."""
    assert len(array_html(array).encode()) < 100 << 10
    assert sum(nbytes(mark.text.split(" of ")[0]) for mark in marks_of(array)) == pytest.approx(
        array.nbytes_stored, rel=1e-3
    )


def test_cells_are_enlarged_to_save_room():
    """Where there are too many marks, cells are twice as long and wide."""
    assert cell_of(Facts(NOISE.shape)) == (10, 10)
    assert cell_of(NOISE) == (20, 20)


def test_time_is_bounded():
    """20,000 boxes take no more than some passes over them in Python would."""
    array = scattered((1 << 20, 1 << 17), 20_000)
    found = list(array.blocks())
    array.blocks = lambda: iter(found)
    array_html(array)
    start = time.process_time()
    array_html(array)
    assert time.process_time() - start < 0.5  # 0.03 s where it was written


def test_memory_is_bounded():
    """Boxes are looked at in batches, so that many of them need little memory."""
    array = Facts((1 << 40,), [((i << 20, (i << 20) + 512),) for i in range(20_000)])
    tracemalloc.start()
    array_html(array)
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 << 20
