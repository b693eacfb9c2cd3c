"""What notebooks show of a ring."""

from xml.etree import ElementTree as ET

import pytest

import sparsearray
from sparsearray.ring_display import ring_html

SVG = "{http://www.w3.org/2000/svg}"


class Facts:
    """What `ring_html` asks of a ring."""

    def __init__(self, count, pushed, name=None) -> None:
        self.count, self.pushed, self.name = count, pushed, name
        self.oldest = max(pushed - count, 0)
        self.dtype = sparsearray.zeros(0).dtype


def marks(ring):
    """Return (text, left, right, opacity) of each mark, in shares of the bar."""
    root = ET.fromstring(ring_html(ring))  # noqa: S314 - our own
    [frame] = [one for one in root.iter(f"{SVG}rect") if one.get("fill") == "none"]
    start, length = float(frame.get("x")), float(frame.get("width"))
    found = []
    for group in root.iter(f"{SVG}g"):
        [rect] = group.iter(f"{SVG}rect")
        left = (float(rect.get("x")) - start) / length
        right = left + float(rect.get("width")) / length
        text = group.find(f"{SVG}title").text
        found.append((text, left, right, float(rect.get("fill-opacity"))))
    return found


def text_of(ring):
    """Return the text that is shown."""
    root = ET.fromstring(ring_html(ring))  # noqa: S314 - our own
    return " ".join(" ".join(root.itertext()).split())


def test_facts():
    """The table has how many items there are, and which."""
    text = text_of(Facts(1024, 5000, name="<frames>"))
    assert "Ring of 1,024 float64 '<frames>'" in text
    assert "nbytes 8 KiB 8,192" in text
    assert "pushed 5,000" in text
    assert "there 1,024 3,976 to 5,000" in text


@pytest.mark.parametrize(
    ("pushed", "expected"),
    [
        (0, []),
        (256, [("newer: items 0 to 256", 0, 0.25, 1)]),
        (1024, [("newer: items 0 to 1,024", 0, 1, 1)]),
        (
            1280,
            [
                ("older: items 256 to 1,024", 0.25, 1, 0.65),
                ("newer: items 1,024 to 1,280", 0, 0.25, 1),
            ],
        ),
        (2048, [("newer: items 1,024 to 2,048", 0, 1, 1)]),
    ],
    ids=["none", "some", "all", "round", "twice"],
)
def test_marks(pushed, expected):
    """An item lies at its number, modulo the length; the last round is darker."""
    for mark, (text, left, right, opacity) in zip(
        marks(Facts(1024, pushed)), expected, strict=True
    ):
        assert mark[0] == text
        assert mark[1:3] == pytest.approx((left, right), abs=0.01)
        assert mark[3] == opacity


@pytest.mark.parametrize(("pushed", "said"), [(256, False), (1280, True)])
def test_legend(pushed, said):
    """Where there are two shades, they are named."""
    assert text_of(Facts(1024, pushed)).endswith("newer, ■ older") == said


def test_repr_html_of_a_ring():
    """`_repr_html_`, which notebooks call, tells of this ring, and of a closed one."""
    ring = sparsearray.ring(1000, "i2", name="x")
    ring.push(range(10))
    assert ring._repr_html_() == ring_html(ring)
    assert "there 10 0 to 10" in text_of(ring)
    ring.close()
    assert text_of(ring) == "Ring of 2,048 int16 'x', closed"
