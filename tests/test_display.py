"""What notebooks show of a buffer."""

import mmap
import random
import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from sparsearray import Region, SparseBuffer
from sparsearray.display import buffer_html

P = mmap.PAGESIZE
GIB, TIB = 1 << 30, 1 << 40
SVG = "{http://www.w3.org/2000/svg}"


class Facts:
    """What `buffer_html` asks of a buffer, with regions that no system would have to map."""

    def __init__(self, nbytes: int, regions=(), name=None) -> None:
        self.nbytes = nbytes
        self.address = 0x7F00_0000_0000
        self.regions = tuple(regions)
        self.name = name


def memory(offset, nbytes, kind="private"):
    """Make a region of memory."""
    return Region(offset, nbytes, kind, kind == "private", None, None)


def parse(buffer):
    """Parse what is shown, which must be well-formed."""
    return ET.fromstring(buffer_html(buffer))  # noqa: S314 - our own


def text_of(buffer):
    """Return the text that is shown."""
    return " ".join(parse(buffer).itertext())


def marks(buffer):
    """Return (hover text, rectangles) of each mark, as (x, y, width, height)."""
    return [
        (
            group.find(f"{SVG}title").text,
            [
                tuple(float(rect.get(key)) for key in ("x", "y", "width", "height"))
                for rect in group.iter(f"{SVG}rect")
            ],
        )
        for group in parse(buffer).iter(f"{SVG}g")
    ]


def bars(buffer):
    """Return the marks of the upper and of the lower bar, without what they say."""
    found: dict[float, list[tuple[float, ...]]] = {}
    for _title, rects in marks(buffer):
        found.setdefault(rects[0][1], []).append(rects[0])
    return [found[y] for y in sorted(found)]


def checkered(count, stride=4):
    """Make many small regions of several kinds."""
    kinds = random.Random(3).choices(["private", "zero", "file", "raw"], k=count)
    return [
        Region(i * stride * P, P, kind, True, "/data/a" if kind == "file" else None, 0)
        for i, kind in enumerate(kinds)
    ]


def test_repr_html_is_buffer_html():
    """`_repr_html_`, which notebooks call, is `buffer_html`."""
    with SparseBuffer(P) as buffer:
        assert buffer._repr_html_() == buffer_html(buffer)


def test_sizes_are_exact():
    """The length is given in a readable unit, in hexadecimal and in decimal."""
    text = text_of(Facts(3 * GIB))
    assert "3 GiB" in text
    assert "0xc0000000 (3,221,225,472)" in text


def test_address_is_shown():
    """The address is that of the buffer."""
    with SparseBuffer(P) as buffer:
        assert f"{buffer.address:#x}" in text_of(buffer)


def test_bytes_by_kind():
    """For each kind that is mapped its bytes are summed up, and no other kind is named."""
    text = text_of(Facts(TIB, [memory(0, P), memory(2 * P, 2 * P), memory(8 * P, P, "zero")]))
    assert re.search(rf"private .*{3 * P:#x} \({3 * P:,}\) in 2 regions", text)
    assert re.search(rf"zero .*{P:#x} \({P:,}\) in 1 region", text)
    assert "raw" not in text


def test_holes_are_what_is_left():
    """Holes are the bytes that no region covers."""
    assert f"{TIB - P:#x} ({TIB - P:,})" in text_of(Facts(TIB, [memory(P, P)]))


def test_no_holes():
    """Where there are no holes, none are spoken of."""
    assert "□" not in text_of(Facts(P, [memory(0, P)]))


def test_every_region_is_in_both_bars(make_file):
    """Hover text gives the place, length, kind, access and file of each region, in both bars."""
    path, _data = make_file(2 * P)
    with SparseBuffer(TIB) as buffer:
        buffer.alloc(0, P)
        buffer.map_zero(TIB // 4, GIB)
        buffer.map_file(TIB // 2, 2 * P, path)
        buffer.mmap_anonymous(TIB - P, P, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE)
        titles = [title for title, _rects in marks(buffer)]
        assert len(buffer.regions) == 4
        for region in buffer.regions:
            said = [
                title
                for title in titles
                if title.startswith(f"{region.kind}, ")
                and ("writable" if region.writable else "read-only") in title
                and f"offset {region.offset:#x} ({region.offset:,})" in title
                and f"nbytes {region.nbytes:#x} ({region.nbytes:,})" in title
                and (region.file is None or f"{region.file[-20:]}' from 0x0" in title)
            ]
            assert len(said) == 2


def test_every_region_is_in_the_table():
    """The table below the map has a row for each region."""
    regions = checkered(40)
    rows = [
        [cell.text for cell in row.iter("td")]
        for row in parse(Facts(TIB, regions)).find("details").iter("tr")
    ]
    assert [row[:3] for row in rows[1:]] == [
        [f"{region.offset:#x}", f"{region.nbytes:#x}", region.kind] for region in regions
    ]


def test_long_tables_are_cut():
    """A table of more regions than fit says how many it leaves out."""
    assert "and 4,960 more" in text_of(Facts(TIB, checkered(5000)))


def test_each_kind_has_a_colour():
    """No two kinds look the same, and a kind looks the same everywhere."""
    kinds = ("private", "zero", "file", "raw")
    regions = [memory(i * TIB // 4, TIB // 4, kind) for i, kind in enumerate(kinds)]
    colours = {
        group.find(f"{SVG}title").text.split(",")[0]: group.find(f"{SVG}rect").get("fill")
        for group in parse(Facts(TIB, regions)).iter(f"{SVG}g")
    }
    assert len(set(colours.values())) == len(colours) == 4


def test_a_page_in_a_terabyte_is_visible():
    """A mark is never narrower than 4 units, of the 719 that the map has."""
    [upper, lower] = bars(Facts(1 << 46, [memory(1 << 45, P)]))
    assert upper == [(pytest.approx(360, abs=4), 16, 4, 22)]
    assert lower[0][2] >= 6


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 1), (1, 2), (3, 4), (0, 4)], ids=["first", "second", "last", "all"]
)
def test_the_upper_bar_is_to_scale(start, stop):
    """A region of a quarter lies where its quarter does."""
    [upper, _lower] = bars(Facts(TIB, [memory(start * TIB // 4, (stop - start) * TIB // 4)]))
    [(x, _y, width, _height)] = upper
    assert x == pytest.approx(1.5 + 716 * start / 4, abs=2)
    assert x + width == pytest.approx(1.5 + 716 * stop / 4, abs=2)


@pytest.mark.parametrize("offset", [0, P, TIB - 2 * P, TIB - P])
@pytest.mark.parametrize("others", [0, 1, 47, 48, 1000])
def test_marks_stay_inside(offset, others):
    """No mark begins before the left edge or ends behind the right one."""
    regions = [memory(GIB + 2 * i * P, P, "zero") for i in range(others)]
    regions = sorted([*regions, memory(offset, P)])
    found = [rect for _title, rects in marks(Facts(TIB, regions)) for rect in rects]
    assert min(x for x, _y, _width, _height in found) >= 1.5
    assert max(x + width for x, _y, width, _height in found) <= 717.52
    assert min(width for _x, _y, width, _height in found) >= 4


@pytest.mark.parametrize("count", [2, 30, 48, 49, 5000])
def test_marks_do_not_overlap(count):
    """In each bar every mark ends before the next begins, however many there are."""
    for bar in bars(Facts(TIB, checkered(count))):
        for (x, _y, width, _height), (following, *_rest) in pairwise(bar):
            assert x + width <= following + 0.02


def test_a_page_beside_a_large_region_keeps_its_own_mark():
    """A page that touches a large region of another kind takes none of its place or colour."""
    regions = [memory(0, P), memory(P, TIB // 2 - P, "zero")]
    upper = [title for title, rects in marks(Facts(TIB, regions)) if rects[0][1] == 16]
    assert any(title.startswith("zero") for title in upper)


def test_regions_of_one_slot_are_drawn_in_bands():
    """Where regions of several kinds fall on the same pixels, each kind has its share of them."""
    regions = [memory(0, P), memory(2 * P, P, "zero")]
    title, rects = marks(Facts(TIB, regions))[0]
    assert title.startswith("2 regions, 8 KiB" if P == 4096 else "2 regions")
    assert [height for _x, _y, _width, height in rects] == [11, 11]


def test_all_of_many_regions_are_counted():
    """Marks that stand for several regions add up to all of them, in each bar."""
    seen: dict[float, int] = {}
    for title, rects in marks(Facts(20_000 * P, checkered(5000))):
        found = re.match(r"([\d,]+) regions", title)
        number = int(found[1].replace(",", "")) if found else 1
        seen[rects[0][1]] = seen.get(rects[0][1], 0) + number
    assert list(seen.values()) == [5000, 5000]


@pytest.mark.parametrize("nbytes", [20_000 * P, TIB, 1 << 46])
def test_size_is_bounded(nbytes):
    """5,000 regions make no more than 100 KiB."""
    assert len(buffer_html(Facts(nbytes, checkered(5000))).encode()) < 100 << 10


def test_size_is_bounded_where_every_region_has_a_mark():
    """So do as many regions as can have a mark of their own, with long names of files."""
    name = "/" + "<" * 4000
    regions = [Region(i * P, P, "file", True, name, i * P) for i in range(179)]
    assert len(buffer_html(Facts(179 * P, regions)).encode()) < 128 << 10


def test_closed():
    """Of a closed buffer its name is shown, and that it is closed."""
    buffer = SparseBuffer(P, name="done")
    buffer.close()
    assert text_of(buffer).split() == ["SparseBuffer", "'done',", "closed"]


def test_empty():
    """Without regions there is one bar, with nothing in it."""
    facts = Facts(TIB)
    assert marks(facts) == []
    assert len(list(parse(facts).iter(f"{SVG}rect"))) == 1


@pytest.mark.parametrize(
    "name",
    ["<script>", "a & b", "it's", '"', "\x00\x1b\n", "\udcff", "naïve", ""],
    ids=["tag", "ampersand", "apostrophe", "quote", "control", "surrogate", "letters", "empty"],
)
def test_names_are_escaped(name):
    """Names are shown as Python writes them, whatever characters they have."""
    facts = Facts(P, [Region(0, P, "file", False, f"/{name}", 0)], name=name)
    text = text_of(facts)
    assert f"SparseBuffer {name!r}" in re.sub(r"\s+", " ", text)
    assert text.count(repr(f"/{name}")) == 3  # both bars and the table


def test_output_can_be_encoded():
    """The name of a file that is not UTF-8 leaves nothing that cannot be sent to a notebook."""
    buffer_html(Facts(P, [Region(0, P, "file", False, "/\udcff", 0)])).encode()


def test_long_names_are_shortened():
    """Of a long name the beginning and the end are kept."""
    text = text_of(Facts(P, name="begin" + "-" * 1000 + "end"))
    assert re.search("'begin-+…-+end'", text)
    assert "-" * 100 not in text


def test_no_colours_of_the_page():
    """Text is in the colour of its surroundings, and nothing has a background."""
    html = buffer_html(Facts(TIB, [memory(0, P)]))
    assert "background" not in html
    colours = {text.get("fill") for text in parse(Facts(TIB, [memory(0, P)])).iter(f"{SVG}text")}
    assert colours == {"currentColor", "#fff"}  # white only on a mark


# A region


def region_text(region):
    """Return the text that is shown of a region, which must be well-formed."""
    root = ET.fromstring(region._repr_html_())  # noqa: S314 - our own
    return " ".join(" ".join(root.itertext()).split())


def test_region_of_memory():
    """A region says where it is, how long, and what of."""
    text = region_text(Region(3 * P, 2 * P, "private", True, None, None))
    assert f"offset {3 * P:#x} {3 * P:,}" in text
    assert f"nbytes 8 KiB {2 * P:#x} ({2 * P:,})" in text
    assert "kind ■ private writable" in text
    assert "file" not in text


def test_region_of_a_file():
    """A region of a file says which, whatever it is called, and from where."""
    text = region_text(Region(0, P, "file", False, "/data/<b>&", 5 * P))
    assert "kind ■ file read-only" in text
    assert f"file '/data/<b>&' from {5 * P:#x} ({5 * P:,})" in text
