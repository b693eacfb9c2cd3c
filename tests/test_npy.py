"""The header of .npy files: what numpy writes is read, and what is written numpy reads."""

import ast
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from sparsearray.npy import HEADER_NBYTES, Header, data_pages, make_header, read_header

MAGIC = b"\x93NUMPY"
# Headers of 4,097 to 8,192 bytes, and of more.
LONG = np.dtype([(f"field_{i:06}", "<f8") for i in range(300)])
TOO_LONG = np.dtype([(f"field_{i:06}", "<f8") for i in range(400)])

DTYPES = [
    "?",
    "i1",
    ">u2",
    "<i8",
    ">f2",
    "f8",
    "c16",
    "S5",
    ">U3",
    "V7",
    "M8[ns]",
    ">m8[3D]",
    np.dtype([("a", "u1"), ("b", "<f8")]),
    np.dtype([("a", "u1"), ("b", "<f8")], align=True),
    np.dtype([("p", [("x", ">i2"), ("y", "f4", (2, 3))]), ("s", "S3", 4)]),
    np.dtype({"names": ["a"], "formats": ["i4"], "offsets": [12], "itemsize": 40}),
    np.dtype([("é", "i4"), ("\xad", "u1")]),  # Latin-1
    np.dtype([("漢字", "i4"), (("the title, ж", "n"), "f4"), ("inner", [("ё", "u1", 2)])]),
    np.dtype([("漢", "u1"), ("no\u200bspace", "u1"), ("\xad", "u1"), ("back\\slash'\"", "u1")]),
    np.dtype([]),
    LONG,
]


def _numpy_reads(text: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Have numpy's own reader say what is in a header."""
    with_nothing = io.BytesIO(text)
    version = np.lib.format.read_magic(with_nothing)
    reader = {(1, 0): np.lib.format.read_array_header_1_0}.get(version)
    if reader is not None:
        found: tuple[tuple[int, ...], bool, np.dtype] = reader(with_nothing)
        return found
    assert version == (3, 0)
    array = np.load(io.BytesIO(text))  # of no items
    return array.shape, ast.literal_eval(text[12:].decode())["fortran_order"], array.dtype


def _read(data: bytes, path: Path) -> Header:
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    try:
        return read_header(fd)
    finally:
        os.close(fd)


def _text(header: str, version: tuple[int, int] = (1, 0), *, encoding: str = "latin1") -> bytes:
    body = header.encode(encoding) + b"\n"
    length = len(body).to_bytes(2 if version == (1, 0) else 4, "little")
    return MAGIC + bytes(version) + length + body


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype)[:30])
def test_numpy_reads_what_was_written(dtype: Any) -> None:
    """A header is as numpy's own, padded to a page or two."""
    found = np.dtype(dtype)
    text = make_header((0, 7), "F", found)
    assert _numpy_reads(text) == ((0, 7), True, found)
    assert len(text) == (2 if found is LONG else 1) * HEADER_NBYTES
    assert text[-1:] == b"\n"
    own = io.BytesIO()
    if all(ord(char) < 256 for char in repr(found)):
        np.lib.format.write_array_header_1_0(
            own,
            {"descr": np.lib.format.dtype_to_descr(found), "fortran_order": True, "shape": (0, 7)},
        )
        assert own.getvalue()[:8] == text[:8]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype)[:30])
@pytest.mark.filterwarnings("ignore:Stored array in format")  # numpy says which version it took
def test_reads_what_numpy_wrote(dtype: Any, order: Any, tmp_path: Path) -> None:
    """Shape, order, dtype and the place of the data of a file by `numpy.save`."""
    array = np.zeros((3, 2), dtype, order=order)
    np.save(tmp_path / "a.npy", array)
    data = (tmp_path / "a.npy").read_bytes()
    assert _read(data, tmp_path / "b") == ((3, 2), order, array.dtype, len(data) - array.nbytes)


@given(
    shape=npst.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=10**12),
    dtype=st.one_of(npst.scalar_dtypes(), npst.nested_dtypes(max_itemsize=400)),
    order=st.sampled_from("CF"),
)
def test_written_and_read(
    shape: tuple[int, ...], dtype: np.dtype, order: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What was written is what is read, whatever numpy knows."""
    text = make_header(shape, order, dtype)
    path = tmp_path_factory.getbasetemp() / "header"
    assert _read(text + b"data", path) == (shape, order, dtype, len(text))


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_versions(version: Any, tmp_path: Path) -> None:
    """All versions of the format are read, whatever the length of the header."""
    for padding in (0, 1, 77, 9000):
        text = "{'descr': '<u2', 'fortran_order': False, 'shape': (4,)}" + " " * padding
        data = _text(text, version)
        assert _read(data, tmp_path / "a") == ((4,), "C", np.dtype("<u2"), len(data))


def test_header_of_python_2(tmp_path: Path) -> None:
    """Long integers of Python 2 are read, without a warning."""
    data = _text("{'descr': '<u2', 'fortran_order': False, 'shape': (4L, 2L)}")
    assert _read(data, tmp_path / "a").shape == (4, 2)


def test_characters_count_not_bytes(tmp_path: Path) -> None:
    """Names in UTF-8 may take more bytes than numpy reads characters."""
    dtype = np.dtype([(f"{'漢' * 400}{i}", "u1") for i in range(20)])
    with pytest.warns(UserWarning, match="format 3.0"):
        np.save(tmp_path / "a.npy", np.zeros(1, dtype))
    data = (tmp_path / "a.npy").read_bytes()
    assert len(data) > 20_000
    assert _read(data, tmp_path / "b").dtype == np.load(tmp_path / "a.npy").dtype == dtype


GOOD = "{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "magic"),
        (MAGIC[:3], "magic"),
        (MAGIC + b"\x01", "magic"),
        (b"\x93NUMPZ\x01\x00" + bytes(99), "magic"),
        (MAGIC + b"\x01\x00", "cut short"),
        (MAGIC + b"\x01\x00\x10", "cut short"),
        (MAGIC + b"\x02\x00\x10\x00", "cut short"),
        (_text(GOOD)[:40], "cut short"),
        (_text(GOOD)[:-1], "cut short"),
        (MAGIC + b"\x09\x09" + bytes(99), "version 9.9"),
        (MAGIC + b"\x00\x00" + bytes(99), "version 0.0"),
        (MAGIC + b"\x02\x00" + (100 << 20).to_bytes(4, "little") + bytes(99), "104857600 bytes"),
        (MAGIC + b"\x02\x00\xff\xff\xff\xff" + bytes(99), "4294967295 bytes"),
        (_text(GOOD + " " * 10_000), "10000"),
        (_text("[1, 2]"), "dictionary"),
        (_text(""), "header"),
        (_text("{'descr': '<f8'"), "header"),
        (_text("{'descr': '<f8', 'shape': (2,)}"), "keys"),
        (_text(GOOD[:-1] + ", 'more': 1}"), "keys"),
        (_text(GOOD.replace("(2,)", "2")), "shape"),
        (_text(GOOD.replace("(2,)", "(2.0,)")), "shape"),
        (_text(GOOD.replace("(2,)", "(3, -1)")), "negative"),
        (_text(GOOD.replace("(2,)", f"({'9' * 5000},)")), "header"),
        (_text(GOOD.replace("False", "0")), "fortran_order"),
        (_text(GOOD.replace("'<f8'", "'zz'")), "descr"),
        (_text(GOOD.replace("'<f8'", "[('a', '<f8'), ('a', '<f8')]")), "name"),
        (_text(GOOD.replace("'<f8'", "7")), "descr"),
        (_text(GOOD.replace("2", "os.getpid()")), "header"),
        (_text("(" * 9000), "header"),
        (_text("-" * 9000 + "1"), "header"),
        (_text(GOOD.replace("'<f8'", "[('\xff', 'u1')]"), (3, 0)), "utf-8"),
        (_text(GOOD.replace("'<f8'", "'\\"), (3, 0)), "header"),
    ],
)
def test_bad_header(data: bytes, message: str, tmp_path: Path) -> None:
    """What is no header is a ValueError that says what is wrong, and never anything else."""
    with pytest.raises(ValueError, match=message):
        _read(data, tmp_path / "a")


@given(draw=st.data())
def test_any_damage(draw: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Bytes changed anywhere give a header or a ValueError."""
    text = bytearray(make_header((3, 4), "C", np.dtype([("a", "<i4"), ("漢", "f8")]))[:200])
    text[8:12] = (len(text) - 12).to_bytes(4, "little")
    for _ in range(draw.draw(st.integers(1, 4))):
        text[draw.draw(st.integers(0, len(text) - 1))] = draw.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged"
    try:
        found = _read(bytes(text), path)
    except ValueError:
        return
    assert all(type(n) is int and n >= 0 for n in found.shape)


def test_position_does_not_matter(tmp_path: Path) -> None:
    """The header is read from the start, wherever the descriptor's position is."""
    np.save(tmp_path / "a.npy", np.arange(3))
    with (tmp_path / "a.npy").open("rb") as file:
        file.seek(50)
        assert read_header(file.fileno()).shape == (3,)


def test_too_long() -> None:
    """A header that does not fit is refused with the number of its bytes."""
    with pytest.raises(ValueError, match="does not fit into 8192"):
        make_header((1,), "C", TOO_LONG)
    short = make_header((9,), "C", np.dtype("f8"), 66)
    assert len(short) == 66
    assert _numpy_reads(short) == ((9,), False, np.dtype("f8"))
    with pytest.raises(ValueError, match="67 bytes does not fit into 66"):
        make_header((10,), "C", np.dtype("f8"), 66)


@pytest.mark.parametrize("start", [0, 80, 128, 4096, 8192, 4100])
@pytest.mark.parametrize("nbytes", [1, 4000, 4096, 4097, 10_000])
def test_data_pages(start: int, nbytes: int) -> None:
    """The pages that data lies in are those that its first and last byte lie in."""
    page = os.sysconf("SC_PAGESIZE")
    base, length = data_pages(Header((nbytes,), "C", np.dtype("u1"), start))
    assert base == start - start % page
    last = start + nbytes - 1
    assert base + length == last - last % page + page
