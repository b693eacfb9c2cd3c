"""Damaged files of any kind: a ValueError that names the file, or an image that works."""

import gc
import mmap
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparsearray import SparseBuffer
from sparsearray.images import open_elf, open_ihex, open_srec

from .elf_files import CORE, EXEC, NOTE, Part, make_elf

pytest.importorskip("elftools")
bincopy = pytest.importorskip("bincopy")

P = mmap.PAGESIZE
NUMBERS = [
    0,
    1,
    2,
    0x7F,
    0xFF,
    0xFFFE,
    0xFFFF,
    P - 1,
    P,
    P + 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 40,
    1 << 46,
]
NUMBERS += [1 << 63, (1 << 63) - 1, (1 << 64) - P, (1 << 64) - 1]

HOW = ["byte", "number", "cut", "delete", "insert", "repeat"]
HOW_IN_TEXT = [*["byte"] * 5, "cut", "delete", "insert", "repeat"]


def valid_elf(bits: int, order: str, kind: int, xnum: bool) -> bytes:
    """Make an ELF file with a bit of everything."""
    names = (
        struct.pack(order + ("QQQQQ" if bits == 64 else "IIIII"), 1, P, P, 2 * P, 0)
        + b"/file\0\0\0"
    )
    note = struct.pack(order + "III", 5, len(names), 0x46494C45) + b"CORE\0\0\0\0" + names
    parts = [
        Part(0, note, kind=NOTE),
        Part(P, b"\x90" * 300, flags=5, align=P),
        Part(3 * P + 7, b"data" * (P // 2), memsz=4 * P),
        Part(1 << 30, b"", memsz=P),
        Part((1 << bits) - P, b"end" * 9, align=P),
    ]
    return make_elf(parts, bits=bits, order=order, kind=kind, xnum=xnum)


def valid_text(kind: str) -> bytes:
    """Make a file of records."""
    made = bincopy.BinFile()
    for address in (0, 0xFFF8, 0x12345678):
        made.add_binary(bytes(range(50)), address)
    return (made.as_ihex(16) if kind == "ihex" else made.as_srec(16)).encode()


@st.composite
def mutations(draw, base: bytes, head: int, *, text: bool = False) -> bytes:
    """Damage bytes: most of it in the first `head` of them."""
    data = bytearray(base)
    for _ in range(draw(st.integers(0, 6))):
        if not data:
            break
        limit = len(data) - 1
        at = draw(st.one_of(st.integers(0, min(head, limit)), st.integers(0, limit)))
        how = draw(st.sampled_from(HOW_IN_TEXT if text else HOW))
        if how == "byte":
            data[at] = (
                draw(st.sampled_from(b"0123456789ABCDEFGS: \n"))
                if text
                else draw(st.integers(0, 255))
            )
        elif how == "number":
            size = draw(st.sampled_from([2, 4, 8]))
            order = draw(st.sampled_from(["little", "big"]))
            number = draw(st.sampled_from(NUMBERS)) % (1 << 8 * size)
            at = at // size * size
            data[at : at + size] = number.to_bytes(size, order)
        elif how == "cut":
            del data[at:]
        elif how == "delete":
            del data[at : at + draw(st.integers(1, 20))]
        elif how == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=20))
        else:
            data[at:at] = data[at : at + draw(st.integers(1, 200))]
    return bytes(data)


def check(path: Path, call, **options) -> bool:
    """Open a file; if that succeeds, use what is there at both ends of each run. Whether it did."""
    try:
        image = call(path, **options)
    except ValueError as error:
        if str(path) not in str(error):
            raise
        return False
    with image:
        for span in image._table.spans:
            end = span.address + span.nbytes
            few = min(span.nbytes, 100)
            first, last = image.read_at(span.address, few), image.read_at(end - few, few)
            assert image.window(span.address, few).tobytes() == first
            assert image.gather([span.address, end - 1], "u1").tolist() == [first[0], last[-1]]
            assert image.read_at(end - few, few + 3, pad=1)[:few] == last
            assert span.address in image
            assert image.hexdump(end - 1, 1).count("\n") == 1
            assert next(image.search(first, span.address, span.address + few)) == span.address
        assert image.nbytes == sum(span.nbytes for span in image._table.spans)
        assert image._repr_html_()
    return True


def count_resources() -> tuple[int, int]:
    """Count descriptors of this process, and ranges of addresses that are only reserved."""
    gc.collect()
    reserved = Path("/proc/self/maps").read_text().count(" ---p ")
    return len(list(Path("/proc/self/fd").iterdir())), reserved


SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture
def leak_free():
    """Check that a test leaves no descriptor and no reservation behind."""
    with SparseBuffer(P) as buffer:  # what the library opens once, and keeps
        buffer.alloc(0, P)
        buffer.extents()
    before = count_resources()
    yield
    after = count_resources()
    assert after[0] == before[0]
    assert after[1] <= before[1] + 3  # of the C library's, for threads


@pytest.mark.usefixtures("leak_free")
@pytest.mark.parametrize(("bits", "order"), [(32, ">"), (64, "<")], ids=["32-big", "64-little"])
@pytest.mark.parametrize("kind", [EXEC, CORE], ids=["exec", "core"])
def test_elf(kind, bits, order, tmp_path):
    """ELF files with damage anywhere, most of it in their headers."""
    path = tmp_path / "file"
    opened = []

    @SETTINGS
    @given(data=st.data())
    def run(data):
        base = valid_elf(bits, order, kind, data.draw(st.booleans()))
        raw = data.draw(mutations(base, 400))
        path.write_bytes(raw)
        options = {
            "allow_truncated": data.draw(st.booleans()),
            "zero_fill": data.draw(st.sampled_from([None, True, False])),
        }
        opened.append(check(path, open_elf, **options))

    run()
    assert any(opened)
    assert not all(opened)


@pytest.mark.usefixtures("leak_free")
@pytest.mark.parametrize("kind", ["ihex", "srec"])
def test_records(kind, tmp_path):
    """Files of records with damage anywhere. Checksums find most of it."""
    path = tmp_path / "file"
    base, opened = valid_text(kind), []

    @SETTINGS
    @given(data=st.data())
    def run(data):
        lines = data.draw(mutations(base, len(base), text=True)).split(b"\n")
        if data.draw(st.booleans()):  # past the checksums
            lines = [repair(line, kind) for line in lines]
        path.write_bytes(b"\n".join(lines))
        opened.append(check(path, open_ihex if kind == "ihex" else open_srec))

    run()
    assert any(opened)
    assert not all(opened)


def repair(line: bytes, kind: str) -> bytes:
    """Make the checksum of a record right, if it is one."""
    head = 1 if kind == "ihex" else 2
    try:
        body = bytes.fromhex(line[head:-2].decode("ascii"))
    except ValueError:
        return line
    total = sum(body) if kind == "ihex" else ~sum(body)
    return line[:-2] + b"%02X" % ((-total if kind == "ihex" else total) & 0xFF)
