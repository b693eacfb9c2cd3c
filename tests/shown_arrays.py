"""What tests of what is shown of an array share: arrays of boxes, and what is said of their cells."""

import re
from itertools import pairwise, product
from math import prod
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from sparsearray import ClosedError
from sparsearray.array_display import array_html

SVG = "{http://www.w3.org/2000/svg}"
SHADES = [0.0, 0.01, 1.0]  # shares of a cell from which on it is darker


class Facts:
    """What is asked of an array: its shape, and boxes given as one (start, stop) for each axis."""

    def __init__(self, shape, boxes=(), dtype=float, path=None, mode="r+", value=None) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.path = path
        self.mode = mode if path else None
        self.nbytes = prod(shape) * self.dtype.itemsize
        self.indices = [tuple(slice(*span) for span in box) for box in boxes]
        self.value = np.zeros((), self.dtype) if value is None else np.array(value, self.dtype)

    @property
    def nbytes_stored(self) -> int:
        """Bytes in boxes."""
        return sum(map(self.items, self.indices)) * self.dtype.itemsize

    @staticmethod
    def items(index) -> int:
        """Count the items of a box."""
        return prod(span.stop - span.start for span in index)

    def blocks(self, max_nbytes=None):
        """Go through the boxes."""
        assert max_nbytes is None
        for index in self.indices:
            shape = [span.stop - span.start for span in index]
            yield index, np.broadcast_to(self.value, shape)

    def dense(self):
        """Return which items are in a box."""
        stored = np.zeros(self.shape, bool)
        for index in self.indices:
            assert not stored[index].any(), "boxes are disjoint"
            stored[index] = True
        return stored


class Closed(Facts):
    """A closed array, which knows little more than its shape."""

    @property
    def nbytes_stored(self) -> int:
        """Refuse."""
        raise ClosedError("closed")

    def blocks(self, max_nbytes=None):  # noqa: ARG002
        """Refuse."""
        raise ClosedError("closed")


def parse(array):
    """Parse what is shown, which must be well-formed."""
    return ET.fromstring(array_html(array))  # noqa: S314 - our own


def text_of(array):
    """Return the text that is shown, outside of the picture too."""
    return re.sub(r"\s+", " ", " ".join(parse(array).itertext()))


def cell_of(array):
    """Return what is said to be the size of a cell, one number for each axis that is shown."""
    text = text_of(array)
    if "a cell is one item" in text:
        return (1,) * min(len(array.shape), 2)
    numbers = re.search(r"a cell is ([\d, x]+) items", text)[1]
    return tuple(int(number.replace(",", "")) for number in numbers.split(" x "))


def shares_of(array):
    """Return the index of each cell, and which share of it is stored, from the dense array."""
    stored = array.dense()
    spans = [
        [slice(start, min(start + step, length)) for start in range(0, length, step)]
        for length, step in zip(array.shape, cell_of(array), strict=False)
    ]
    return [(index, stored[index].mean()) for index in product(*spans)]


def scattered(shape, number, nbytes=4096, seed=0):
    """Scatter pages over the rows of an array of two axes."""
    random = np.random.default_rng(seed)
    items = nbytes // 8
    rows = random.permutation(shape[0])[:number].tolist()
    columns = random.integers(0, shape[1] // items, number).tolist()
    return Facts(
        shape,
        [
            ((row, row + 1), (items * column, items * (column + 1)))
            for row, column in zip(rows, columns, strict=True)
        ],
    )


def random_boxes(shape, number, seed):
    """Make disjoint boxes: some of the cells of an uneven grid."""
    random = np.random.default_rng(seed)
    cuts = [sorted({0, n, *random.integers(0, n + 1, 6).tolist()}) for n in shape]
    spans = [list(pairwise(cut)) for cut in cuts]
    places = [tuple(random.integers(0, len(span)) for span in spans) for _ in range(number)]
    return [tuple(span[i] for span, i in zip(spans, place, strict=True)) for place in set(places)]


SHAPES = [
    (7,),
    (179,),
    (180,),
    (4000,),
    (5, 7),
    (64, 64),
    (65, 64),
    (130, 300),
    (333, 40),
    (3, 900),
    (900, 3),
    (1, 500),
    (500, 1),
    (1, 1),
    (20, 30, 5),
    (100, 7, 2, 3),
    (70, 80, 1),
]
# Neighbours differ: this makes more marks than there is room for.
NOISE = Facts(
    (640, 640),
    [
        ((10 * i, 10 * i + side), (10 * j, 10 * j + side))
        for (i, j), side in np.ndenumerate(np.random.default_rng(5).choice([0, 1, 5, 10], (64, 64)))
        if side
    ],
)
cases = pytest.mark.parametrize(
    "array",
    [
        *(
            Facts(shape, random_boxes(shape, number, seed))
            for seed, shape in enumerate(SHAPES)
            for number in (1, 5)
        ),
        NOISE,
    ],
    ids=[*(f"{shape}-{number}" for shape in SHAPES for number in ("one", "several")), "noise"],
)
