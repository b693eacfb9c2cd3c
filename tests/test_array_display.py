"""What is said of an array: its line, and the table above its picture."""

import numpy as np
import pytest

from sparsearray.array_display import array_html, array_repr

from .shown_arrays import SVG, Closed, Facts, parse, scattered, text_of

# The line


def test_repr():
    """The line says what it is, and what of it is stored."""
    array = Facts((1 << 20, 1 << 17), [((0, 1280), (0, 1 << 17))])
    said = "<SparseArray (1048576, 131072) float64, 1.25 GiB stored of 1 TiB>"
    assert array_repr(array, "SparseArray") == said


def test_repr_of_a_file():
    """Of a file, the line says which and how it was opened."""
    line = array_repr(Facts((3,), dtype="i2", path="name.npy", mode="c"), "TiledArray")
    assert line == "<TiledArray (3,) int16, 0 bytes stored of 6 bytes in 'name.npy' (c)>"


def test_repr_is_one_short_line():
    """Line breaks in a file's name are escaped, long names and dtypes shortened."""
    fields = [(f"field{i}", float) for i in range(1000)]
    line = array_repr(Facts((2, 3), dtype=fields, path="a\nb" * 1000), "SparseArray")
    assert "\n" not in line
    assert len(line) < 250


def test_repr_of_closed():
    """A closed array says so."""
    assert array_repr(Closed((2, 3)), "SparseArray") == "<SparseArray (2, 3) float64, closed>"


def test_numbers_of_numpy_in_a_shape():
    """A shape is shown in plain numbers, whatever integers it has."""
    assert "(2, 3)" in array_repr(Facts((np.int64(2), np.int64(3))), "SparseArray")


# The text


def test_facts():
    """The table has the shape, the sizes, what is stored in percent, and in how many boxes."""
    array = Facts((1 << 20, 1 << 17), [((0, 1), (0, 512)), ((7, 9), (0, 1 << 17))])
    text = text_of(array)
    assert "Facts (1048576, 131072) float64" in text
    assert "shape 1,048,576 x 131,072 137,438,953,472 items" in text
    assert "nbytes 1 TiB 1,099,511,627,776" in text
    assert "stored 2.004 MiB 2,101,248 (under 0.001%)" in text
    assert "boxes 2 262,656 items" in text


@pytest.mark.parametrize(
    ("stop", "percent"),
    [
        (0, "0%"),
        (1, "under 0.001%"),
        (1 << 10, "0.0977%"),
        ((1 << 20) - 1, "over 99.9%"),
        (1 << 20, "100%"),
    ],
)
def test_percent(stop, percent):
    """Nothing and everything are told from nearly so."""
    array = Facts((1 << 20,), [((0, stop),)] if stop else [], "u1")
    assert f"({percent})" in text_of(array)


@pytest.mark.parametrize(
    "name",
    ["<script>", "a & b", "it's", '"', "\x00\x1b\n", "\udcff", "naïve", ""],
    ids=["tag", "ampersand", "apostrophe", "quote", "control", "surrogate", "letters", "empty"],
)
def test_names_are_escaped(name):
    """Names of files and of fields are shown as Python writes them, whatever they hold."""
    array = Facts((2, 2), dtype=[(f"f{name}", "i4")], path=f"/{name}")
    text = " ".join(parse(array).itertext())
    assert f"in {f'/{name}'!r} (r+)" in text
    assert text.count(str(array.dtype)) == 2  # above the table and in it
    array_html(array).encode()


def test_long_dtypes_are_shortened():
    """Of a long dtype the beginning and the end are kept."""
    text = text_of(Facts((2, 2), dtype=[(f"field{i}", "f8") for i in range(500)]))
    assert "[('field0', '<f" in text
    assert "'field499'" in text
    assert "'field250'" not in text


def test_nothing_reaches_further():
    """No rules of style, ids, classes, scripts or addresses: a page can have many of these."""
    array = Facts((5, 7), [((1, 2), (3, 4))])
    tags = {element.tag.removeprefix(SVG) for element in parse(array).iter()}
    assert not tags & {"style", "script", "link", "image", "img", "use"}
    names = {name for element in parse(array).iter() for name in element.attrib}
    assert not {one for one in names if one in ("id", "class", "href") or one.startswith("on")}
    assert "url(" not in array_html(array)


def test_no_colours_of_the_page():
    """Text is in the colour of its surroundings, and nothing has a background."""
    array = Facts((5, 7), [((1, 2), (3, 4))])
    assert "background" not in array_html(array)
    assert {text.get("fill") for text in parse(array).iter(f"{SVG}text")} == {"currentColor"}


def test_files_have_their_colour():
    """Data of a file is drawn in another colour than data in memory, as in the map of a buffer."""

    def colour(array):
        [group] = [group for group in parse(array).iter(f"{SVG}g") if group.get("fill")]
        return group.get("fill")

    assert colour(Facts((5, 7))) == "#3d7bd0"
    assert colour(Facts((5, 7), path="a.npy")) == "#2b9164"


def test_picture_is_described():
    """The picture has a role and a label for those who do not see it."""
    [svg] = parse(Facts((5, 7), [((0, 5), (0, 7))])).iter(f"{SVG}svg")
    assert svg.get("role") == "img"
    assert svg.get("aria-label") == "Map: 280 bytes stored of 280 bytes (100%)"


def test_same_text_twice():
    """The same array is shown the same way."""
    assert array_html(scattered((5000, 5120), 900)) == array_html(scattered((5000, 5120), 900))


# No picture


@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0), (3, 4, 0)])
def test_empty(shape):
    """An array without items has no picture, and says why."""
    assert "no items: nothing to draw" in text_of(Facts(shape))
    assert not list(parse(Facts(shape)).iter(f"{SVG}svg"))


@pytest.mark.parametrize(
    ("dtype", "value", "shown"),
    [
        ("f8", 1.5, "1.5"),
        ("i4", 0, "0"),
        ("U5", "<&>", "'<&>'"),
        ([("a", "i4"), ("b", "?")], (3, True), "(3, True)"),
    ],
)
@pytest.mark.parametrize("boxes", [[()], []], ids=["stored", "hole"])
def test_without_axes(dtype, value, shown, boxes):
    """Of an array without axes the value is shown instead."""
    array = Facts((), boxes, dtype, value=value)
    hole = np.array2string(np.zeros((), dtype))
    assert f"value: {shown if boxes else hole}" in text_of(array)
    assert not list(parse(array).iter(f"{SVG}svg"))


def test_large_item_without_axes():
    """An item of many bytes is not turned into text."""
    assert "one item of 64 KiB" in text_of(Facts((), [], "V65536"))


def test_closed():
    """Of a closed array it is shown what it was, and that it is closed."""
    assert text_of(Closed((2, 3))).strip() == "Closed (2, 3) float64, closed"
