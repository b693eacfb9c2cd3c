"""Image.search, against bytes.find and re on the dense bytes of each run."""

import mmap
import os
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsearray import AccessError
from sparsearray.images import open_raw

P = mmap.PAGESIZE
TOP = 0xFFFF_FFFF_0000_0000


def find_all(data: bytes, pattern: bytes) -> list[int]:
    """Find all places with bytes.find, overlapping ones included."""
    found = [data.find(pattern)]
    while found[-1] >= 0:
        found.append(data.find(pattern, found[-1] + 1))
    return found[:-1]


def make_runs(parts, data: bytes) -> dict[int, bytes]:
    """Return the dense bytes of each run of parts, by address."""
    runs: dict[int, bytes] = {}
    last = None
    for address, _, offset, nbytes in sorted(parts, key=lambda part: part[0]):
        if last is not None and last + len(runs[last]) == address:
            runs[last] += data[offset : offset + nbytes]
        else:
            runs[address] = data[offset : offset + nbytes]
            last = address
    return runs


@pytest.fixture
def sparse(tmp_path):
    """Make an image of a sparse file of 64 pages, mapped and copied, and its runs."""
    path = tmp_path / "sparse"
    data = bytearray(64 * P)
    with path.open("wb") as file:
        file.truncate(64 * P)
        for at, piece in (
            (0, b"first"), (3 * P - 2, b"edge"), (5 * P, b"\0\0data\0\0"), (6 * P - 3, b"end"),
            (20 * P + 17, b"ab" * 3 * P), (40 * P - 1, b"x"), (41 * P - 1, b"x" * 2), (64 * P - 3, b"end"),
        ):  # fmt: skip
            file.seek(at)
            file.write(piece)
            data[at : at + len(piece)] = piece
    parts = [
        (TOP, path, 0, 64 * P),
        (0x1001, path, 0, 30 * P),
        (0x1001 + 30 * P, path, 30 * P, 34 * P),
    ]
    with open_raw(parts, pointer="<u4") as image:
        yield image, make_runs(parts, bytes(data))


PATTERNS = [
    b"first", b"first\0", b"\0edge", b"edge\0", b"e" * 2, b"data", b"\0\0data\0\0", b"\0data\0\0\0",
    bytes(100) + b"data" + bytes(100), b"end", b"end\0", b"end" + bytes(P), bytes(2 * P) + b"x",
    b"ab", b"aba", b"ba" * 100, b"ab" * 3 * P, b"x", b"xx", b"x" + bytes(P - 1) + b"x", b"x" + bytes(P - 1) + b"xx",
    b"nowhere", b"\0", bytes(7), bytes(23 * P - 20), bytes(23 * P - 4), bytes(23 * P), b"first" + bytes(3 * P - 7) + b"edge",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda p: f"{p[:8]!r}-{len(p)}")
def test_bytes_on_edges_of_holes(pattern, sparse):
    """Bytes are found where bytes.find finds them, also where they reach into holes and over them."""
    image, runs = sparse
    expected = [base + at for base, data in sorted(runs.items()) for at in find_all(data, pattern)]
    if len(expected) < 10_000:
        assert list(image.search(pattern)) == expected
    else:
        found = np.fromiter(image.search(pattern), np.uint64, len(expected))
        assert np.array_equal(found, np.array(expected, np.uint64))
    first = next(iter(image.search(pattern)), None)
    assert first == (expected[0] if expected else None)


def test_what_holds_nothing_is_skipped(tmp_path):
    """A sparse file of a tebibyte is searched at once, holes between data included."""
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(1 << 40)
        for at in (5, 1 << 39, (1 << 40) - 6):
            file.seek(at)
            file.write(b"needle")
    with open_raw([(0x1000_0000, path, 0, 1 << 40)]) as image:
        assert [a - 0x1000_0000 for a in image.search(b"\0needle")] == [
            4,
            (1 << 39) - 1,
            (1 << 40) - 7,
        ]
        assert next(image.search(b"needle", 0x1000_0006)) - 0x1000_0000 == 1 << 39


@pytest.mark.parametrize("start", [0, TOP, TOP + 1, TOP + 5 * P + 2, TOP + 5 * P + 3, TOP + 6 * P])
@pytest.mark.parametrize("stop", [None, 1 << 64, TOP + 5 * P + 6, TOP + 5 * P + 5, TOP + 64 * P, 0])
def test_between_two_addresses(start, stop, sparse):
    """All of what is found lies between start and stop."""
    image, runs = sparse
    end = (1 << 64) if stop is None else stop
    for pattern in (b"data", b"end", b"\0\0\0\0data"):
        expected = [
            base + at
            for base, data in sorted(runs.items())
            for at in find_all(data, pattern)
            if start <= base + at and base + at + len(pattern) <= end
        ]
        assert list(image.search(pattern, start, stop)) == expected
        found = list(image.search(re.compile(re.escape(pattern)), start, stop))
        assert found == [(address, pattern) for address in expected]


def test_ints(sparse):
    """Ints are looked for as the image's pointers, or as any integer type."""
    image, runs = sparse
    for value, dtype, pattern in (
        (0x61746164, None, b"data"),
        (0x64617461, ">u4", b"data"),
        (0x6164, "<u2", b"da"),
        (ord("f"), "u1", b"f"),
        (ord("f"), "i8", b"f\0\0\0\0\0\0\0"),
        (-1, "i2", b"\xff\xff"),
        (np.uint64(0x61746164), None, b"data"),
    ):
        expected = [
            base + at for base, data in sorted(runs.items()) for at in find_all(data, pattern)
        ]
        assert list(image.search(value, dtype=dtype)) == expected


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((b"",), ValueError, "empty"),
        ((1 << 32,), ValueError, "uint32 holds 0 to 4294967295"),
        ((-1,), ValueError, "holds 0 to"),
        ((1.5,), TypeError, "not float"),
        (("text",), TypeError, "not str"),
        ((None,), TypeError, "not NoneType"),
        ((re.compile("text"),), TypeError, "for str"),
        ((b"x", -1), ValueError, "negative"),
        ((b"x", 1.5), TypeError, "float"),
    ],
)
def test_bad_patterns(arguments, error, match, sparse):
    """A wrong pattern is an error at once, not at the first step."""
    with pytest.raises(error, match=match):
        sparse[0].search(*arguments)


def test_ints_need_a_dtype(make_file):
    """Where the file does not say how large pointers are, the call has to."""
    path, data = make_file(100)
    with open_raw([(7, path, 0, 100)]) as image:
        with pytest.raises(TypeError, match="give a dtype"):
            image.search(5)
        with pytest.raises(TypeError, match="no integer type"):
            image.search(5, dtype="f8")
        assert 7 in list(image.search(data[0], dtype="u1"))


EXPRESSIONS = [
    rb"ab", rb"(ab)+", rb"e\w*", rb"\0end\0", rb"^first", rb"end\Z", rb"end$", rb"d\w+(?=\0)", rb"x\0*x",
    rb"(?s)data.*?end", rb"(?<=\0)ab", rb"[^\0]+", rb"[^\0]*", rb"\0{100}data", rb"nowhere",
]  # fmt: skip


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=repr)
def test_regular_expressions(expression, sparse):
    """Expressions match as re.finditer does on the bytes of each run."""
    image, runs = sparse
    pattern = re.compile(expression)
    expected = [
        (base + match.start(), match.group())
        for base, data in sorted(runs.items())
        for match in pattern.finditer(data)
    ]
    assert list(image.search(pattern)) == expected


def test_a_search_that_is_left(sparse):
    """An iterator that is not used up holds nothing that closes cannot give back."""
    image, _ = sparse
    steps = image.search(b"ab")
    next(steps)
    matches = image.search(re.compile(b"ab"))
    next(matches)
    with pytest.raises(BufferError):
        image.close()
    del matches
    image.close()


def test_more_than_one_call_finds(tmp_path):
    """More places, and more bytes, than one native call takes are all there."""
    path = tmp_path / "long"
    data = np.zeros(80 << 20, "u1")
    data[12345::9999] = 7
    data[-1] = 8
    path.write_bytes(data.tobytes())
    with open_raw([(3, path, 0, len(data))]) as image:
        expected = np.flatnonzero(data == 7) + 3
        assert list(image.search(7, dtype="u1")) == expected.tolist()
        assert list(image.search(b"\0\x08")) == [3 + len(data) - 2]
        assert len(expected) > 8000


ALPHABETS = [b"\0a", b"\0\0\0ab", b"ab", b"\0"]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_layout(data, tmp_path_factory):
    """Over any layout of data, holes, segments and pages, bytes and expressions are found as in dense bytes."""
    path = tmp_path_factory.mktemp("search") / "file"
    alphabet = data.draw(st.sampled_from(ALPHABETS))
    text = st.lists(st.sampled_from(alphabet), min_size=1, max_size=12).map(bytes)
    raw = bytearray(8 * P)
    with path.open("wb") as file:
        file.truncate(8 * P)
        for _ in range(data.draw(st.integers(0, 6))):
            piece = data.draw(text) * data.draw(st.sampled_from([1, 1, 3, 500]))
            at = data.draw(st.integers(0, 7)) * P + data.draw(
                st.sampled_from([0, 1, P // 2, P - 3, P - 1])
            )
            piece = piece[: 8 * P - at]
            file.seek(at)
            file.write(piece)
            raw[at : at + len(piece)] = piece
    base, parts = data.draw(st.sampled_from([0, 1, P, TOP, TOP + 5])), []
    for _ in range(data.draw(st.integers(1, 4))):
        offset = data.draw(st.integers(0, 7)) * P + data.draw(st.sampled_from([0, 0, 1, P - 1]))
        nbytes = min(data.draw(st.sampled_from([1, 5, P, P + 1, 3 * P])), 8 * P - offset)
        if data.draw(st.booleans()):
            base += (offset - base) % P
        parts.append((base, path, offset, nbytes))
        base += nbytes + data.draw(st.sampled_from([0, 0, 1, P]))
    runs = make_runs(parts, bytes(raw))
    pattern = data.draw(text)
    if data.draw(st.booleans()):  # something that is there, most likely
        run = runs[data.draw(st.sampled_from(sorted(runs)))]
        at = data.draw(st.integers(0, len(run) - 1))
        pattern = run[at : at + data.draw(st.sampled_from([1, 2, 9, 200]))]
    with open_raw(parts) as image:
        expected = [b + at for b, dense in sorted(runs.items()) for at in find_all(dense, pattern)]
        assert list(image.search(pattern)) == expected
        expression = re.compile(re.escape(pattern) + b"+")
        assert list(image.search(expression)) == [
            (b + match.start(), match.group())
            for b, dense in sorted(runs.items())
            for match in expression.finditer(dense)
        ]


@pytest.mark.parametrize("left", [2 * P, 2 * P + 100, 4 * P - 1], ids=["page", "within", "last"])
@pytest.mark.parametrize("told", [False, True], ids=["untold", "told"])
def test_matches_are_not_made_of_what_is_lost(told, left, tmp_path):
    """After a cut each search for an expression raises, however often the loss was told."""
    path = tmp_path / "file"
    path.write_bytes(b"\xff" * 4 * P)
    with open_raw([(0x10000, path, 0, 4 * P)]) as image:
        os.truncate(path, left)
        if told:
            with pytest.raises(AccessError):
                image.read_at(0x10000, 4 * P)
        for _ in range(3):
            with pytest.raises(AccessError) as caught:
                list(image.search(re.compile(rb"\0+")))
            assert caught.value.offset == 0x10000 + left
        # Before it, all is as it was.
        assert len(list(image.search(re.compile(b"\xff{64}"), 0, 0x10000 + 2 * P))) == 2 * P // 64


@pytest.mark.parametrize("before", range(1, 9))
def test_a_cut_between_two_matches(before, tmp_path):
    """What is found before a cut is what the file had, and what is made of zeros is not found."""
    path = tmp_path / "file"
    path.write_bytes(b"\xff" * 4 * P)
    with open_raw([(0x10000, path, 0, 4 * P)]) as image:
        search = image.search(re.compile(b"\0|\xff{8}"))
        found = [next(search) for _ in range(before)]
        os.truncate(path, 9)
        with pytest.raises(AccessError):
            found.extend(search)
        expected = [(0x10000 + 8 * i, b"\xff" * 8) for i in range(len(found))]
        assert found == expected


def test_long_matches(tmp_path):
    """Matches of megabytes are found, however many there are."""
    path = tmp_path / "file"
    data = b"".join(bytes([i]) * (3 << 18) for i in range(1, 9))
    path.write_bytes(data)
    with open_raw([(0x10000, path, 0, len(data))]) as image:
        found = list(image.search(re.compile(rb"(.)\1*", re.DOTALL)))
    assert found == [(0x10000 + (i << 18) * 3, bytes([i + 1]) * (3 << 18)) for i in range(8)]
