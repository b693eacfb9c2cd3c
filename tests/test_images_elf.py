"""open_elf: executables and libraries, made by hand and by a compiler."""

import mmap
import os
import re
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from sparsearray import AccessError, ClosedError
from sparsearray.images import Image, Segment, open_elf

from .elf_files import CLEAN, CORE, EXEC, NOTE, Part, compile_c, make_elf, need, objdump_bytes

pytest.importorskip("elftools")

P = mmap.PAGESIZE
CLASSES = [(32, "<"), (32, ">"), (64, "<"), (64, ">")]
IDS = ["32-little", "32-big", "64-little", "64-big"]


@pytest.fixture
def opened(tmp_path):
    """Call it with the bytes of a file: its image."""
    images = []

    def make(data: bytes, **options) -> Image:
        path = tmp_path / "file"
        path.write_bytes(data)
        images.append(open_elf(path, **options))
        return images[-1]

    yield make
    for image in images:
        image.close()


@pytest.fixture
def refused(tmp_path, descriptors, leaves_no_mapping):
    """Check that a file is a ValueError that names it, and that nothing stays open."""

    def check(data: bytes, match: str, **options) -> None:
        path = tmp_path / "bad"
        path.write_bytes(data)

        def fail() -> None:
            with pytest.raises(ValueError, match=match) as caught:
                open_elf(path, **options)
            assert str(path) in str(caught.value)

        before = descriptors()
        leaves_no_mapping(fail)
        assert descriptors() == before

    return check


@pytest.mark.parametrize(("bits", "order"), CLASSES, ids=IDS)
@pytest.mark.parametrize("align", [1, P], ids=["copied", "mapped"])
def test_every_class_and_byte_order(bits, order, align, opened, pattern):
    """Segments of every class and byte order lie at their addresses, with zeros behind them."""
    text, data = pattern(3 * P + 123, 1), pattern(2 * P + 7, 2)
    parts = [
        Part(0x10000, text, flags=5, align=align),
        Part(0x20000, data, memsz=5 * P, align=align),
    ]
    image = opened(make_elf(parts, bits=bits, order=order))
    assert image.byteorder == {"<": "little", ">": "big"}[order]
    assert image.pointer == np.dtype(f"{order}u{bits // 8}")
    assert [one[:4] for one in image.segments] == [
        (0x10000, len(text), len(text), "r-x"),
        (0x20000, 5 * P, len(data), "rw-"),
    ]
    assert image.read_at(0x10000, len(text)) == text
    assert image.read_at(0x20000, 5 * P) == data + bytes(5 * P - len(data))
    assert image.nbytes == len(text) + 5 * P
    kinds = {region.kind for region in image._buffer.regions}
    assert ("file" in kinds) == (align == P)
    assert not any(region.writable for region in image._buffer.regions)
    code = {"<": "little", ">": "big"}[order]
    value = int.from_bytes(data[11 : 11 + bits // 8], code)
    assert image.read_plain(0x20000 + 11, image.pointer) == value
    assert 0x20000 + 11 in list(image.search(value))


def test_neighbours_in_the_file_are_not_there(opened, pattern):
    """Of the last page of a window only the segment's own bytes are there, and zeros behind them."""
    data = pattern(P + 100)
    parts = [
        Part(0x10000, data, align=P),
        Part(0x20000, data, memsz=P + 300, align=P),
        Part(0x30000 + 50, data[: 2 * P], align=1),
    ]
    raw = make_elf(parts) + b"\xff" * (2 * P)
    image = opened(raw)
    assert image.read_at(0x10000, P + 110, pad=0xAA) == data + b"\xaa" * 10
    assert image.read_at(0x20000, P + 310, pad=0xAA) == data + bytes(200) + b"\xaa" * 10
    assert image.read_at(0x30000, 60, pad=0xAA) == b"\xaa" * 50 + data[:10]
    with pytest.raises(AccessError) as caught:
        image.read_at(0x10000 + P, 101)
    assert caught.value.offset == 0x10000 + P + 100


@pytest.mark.parametrize("address", [0, P, 1 << 40, (1 << 63) - P, 1 << 63, (1 << 64) - 2 * P])
def test_far_apart(address, opened, pattern):
    """Segments lie anywhere below 2**64, together with others, up to the last byte."""
    data = pattern(2 * P)
    image = opened(make_elf([Part(0x40000, data), Part(address, data)]))
    assert image.read_at(address, 2 * P) == data == image.read_at(0x40000, 2 * P)
    assert image.window(address + 5, 10).tobytes() == data[5:15]
    assert image.gather([address + 2 * P - 8, 0x40000], "<u8").tobytes() == data[-8:] + data[:8]
    assert list(image.search(data)) == sorted([address, 0x40000])
    end = address + 2 * P
    assert end not in image
    for call in (image.read_at, image.window):
        with pytest.raises(AccessError) as caught:
            call(end - 1, 2)
        assert caught.value.offset == end
    if end == 1 << 64:
        with pytest.raises(AccessError) as caught:
            image.gather([end - 3], "<u4")
        assert caught.value.offset == end


def test_vsyscall(opened, pattern):
    """The page of vsyscall, which is at the far end of every x86-64 process, is read as any other."""
    data = pattern(P)
    image = opened(make_elf([Part(0x400000, data), Part(0xFFFFFFFFFF600000, data)], kind=CORE))
    assert image.read_at(0xFFFFFFFFFF600000, P) == data


def test_segments_that_touch_are_one(opened, pattern):
    """Reads, windows and searches go from one segment to the next where no byte is missing."""
    data = pattern(300)
    parts = [Part(0x1000, data[:100]), Part(0x1064, data[100:150]), Part(0x1096, data[150:])]
    image = opened(make_elf(parts))
    assert image.read_at(0x1000, 300) == data
    assert image.window(0x1000, 300).tobytes() == data
    assert list(image.search(data)) == [0x1000]
    assert image.gather([0x1000 + 60], "V200").tobytes() == data[60:260]


def test_memory_beyond_the_file_in_cores(opened, pattern):
    """What a core dump left out is not there, and zero only for who asks for that."""
    data = pattern(P + 10)
    parts = [Part(0x10000, data, memsz=3 * P), Part(0x20000, b"", memsz=P)]
    raw = make_elf(parts, kind=CORE)
    image = opened(raw)
    assert image.read_at(0x10000, len(data)) == data
    assert 0x10000 + len(data) not in image
    assert 0x20000 not in image
    assert image.segments[1].nbytes == P
    zero = opened(raw, zero_fill=True)
    assert zero.read_at(0x10000, 3 * P) == data + bytes(3 * P - len(data))
    assert zero.read_at(0x20000, P) == bytes(P)
    bare = opened(make_elf(parts, kind=EXEC), zero_fill=False)
    assert 0x10000 + len(data) not in bare


def test_huge_bss(opened):
    """A terabyte of zeros costs nothing, and search goes over it at once."""
    image = opened(make_elf([Part(0x10000, b"start", memsz=1 << 40), Part(1 << 50, b"end")]))
    assert list(image.search(b"start\0\0\0")) == [0x10000]
    assert list(image.search(b"end")) == [1 << 50]
    assert image.read_plain((1 << 40) - 8, "u8") == 0
    assert image._buffer.nbytes_stored < 64 * P


def test_many_segments(opened):
    """More segments than the header can count, as in cores of large processes, and wider entries."""
    parts = [Part(0x10000 + i * 0x100, struct.pack("<I", i)) for i in range(300)]
    for bits in (32, 64):
        image = opened(make_elf(parts, xnum=True, bits=bits, stride=8))
        assert len(image.segments) == 300
        found = image.gather([part.address for part in parts], "<u4")
        assert found.tolist() == list(range(300))


def test_pages_in_the_order_of_the_file_are_one_mapping(opened):
    """A core as kernels write it takes one mapping, of which a process may have some 65,000."""
    parts = [
        Part(0x10000 + i * 3 * P, i.to_bytes(4, "little") * (P // 4), align=P) for i in range(5000)
    ]
    image = opened(make_elf(parts, kind=CORE, xnum=True))
    assert [region.kind for region in image._buffer.regions] == ["file"]
    addresses = np.array([part.address for part in parts], np.uint64)
    assert image.gather(addresses[::-1], "<u4").tolist() == list(range(4999, -1, -1))
    with pytest.raises(AccessError) as caught:
        image.read_at(parts[7].address, P + 1)
    assert caught.value.offset == parts[7].address + P
    wanted = parts[7].data[-4:] + parts[8].data[:4]  # neighbours in memory here, not there
    assert not list(image.search(wanted))
    assert list(image.search(b"\x07\0\0\0\x07", stop=parts[8].address))[:2] == [
        parts[7].address,
        parts[7].address + 4,
    ]


def test_other_entries_are_left_alone(opened):
    """Only PT_LOAD is memory; sections are not looked at, even where their table is nonsense."""
    raw = bytearray(make_elf([Part(0, b"note", kind=NOTE), Part(0x1000, b"load")]))
    struct.pack_into("<Q", raw, 40, 1 << 63)  # e_shoff
    struct.pack_into("<HHH", raw, 58, 7, 0xFFF0, 0xFFF0)
    image = opened(bytes(raw))
    assert image.segments == (Segment(0x1000, 4, 4, "rw-", image.name, len(raw) - 4, None),)


def test_kinds_of_files(tmp_path):
    """Paths, descriptors and open files, all of which may be closed at once."""
    path = tmp_path / "file"
    path.write_bytes(make_elf([Part(0x1000, b"load" * P, align=P)]))
    with open(path, "rb") as file:
        file.seek(3)
        images = [open_elf(path), open_elf(str(path)), open_elf(file), open_elf(file.fileno())]
        assert file.tell() == 3
    for image in images:
        assert image.read_at(0x1000, 8) == b"loadload"
        assert image.name == str(path)
        image.close()
        image.close()
        assert image.closed
        with pytest.raises(ClosedError):
            image.read_at(0x1000, 1)


@pytest.mark.parametrize("what", ["missing", "folder", "pipe"])
def test_files_that_cannot_be_opened(what, tmp_path, descriptors):
    """What is no file is an OSError, as anywhere."""
    path = tmp_path / what
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    before = descriptors()
    with pytest.raises(OSError, match=what):
        open_elf(path)
    assert descriptors() == before


# ------------------------------------------------------------------------------ damaged


def test_truncated_at_every_boundary(tmp_path, refused):
    """A file cut at any byte of its headers or segments is a ValueError that says what is missing."""
    for bits, order in CLASSES[1:3]:
        raw = make_elf([Part(0x1000, b"x" * 40), Part(0x2000, b"y" * 30)], bits=bits, order=order)
        for stop in range(len(raw)):
            path = tmp_path / "cut"
            path.write_bytes(raw[:stop])
            with pytest.raises(ValueError, match="cut short|past the end|no ELF file") as caught:
                open_elf(path)
            assert str(path) in str(caught.value)
    refused(raw[:-31], r"segment 0 at address 0x1000.*cut short")
    refused(raw[:-1], r"segment 1 at address 0x2000.*0x1e \(30\) bytes")


@pytest.mark.parametrize("align", [1, P])
def test_truncated_on_demand(align, opened, pattern):
    """What a file that was cut short still has is there for who asks for it; the rest is not."""
    data = pattern(4 * P)
    parts = [Part(0x10000, data, align=align), Part(0x20000, data, memsz=5 * P, align=align)]
    raw = make_elf(parts, kind=CORE)
    image = opened(raw[: -P - 100], allow_truncated=True)
    assert image.read_at(0x10000, 4 * P) == data
    assert image.read_at(0x20000, 3 * P - 100) == data[: 3 * P - 100]
    assert 0x20000 + 3 * P - 100 not in image
    gone = opened(raw[: -4 * P], allow_truncated=True)
    assert gone.read_at(0x10000, 4 * P) == data
    assert 0x20000 not in gone


def test_a_file_that_is_no_elf(refused):
    """What begins with something else, or is of an unknown kind, is told with what is there."""
    refused(b"", "no ELF file")
    refused(b"\x93NUMPY", "no ELF file.*NUM")
    raw = bytearray(make_elf([Part(0x1000, b"x")]))
    raw[4] = 3
    refused(bytes(raw), "class 3")
    raw[4:6] = 2, 0
    refused(bytes(raw), "byte order 0")
    refused(make_elf([]), "no segments")
    refused(make_elf([Part(0, b"n", kind=NOTE)]), "no segments")


@pytest.mark.parametrize(
    ("parts", "match"),
    [
        ([Part(0x1000, b"x" * 9), Part(0x1008, b"y" * 9)], "segment 1 at address 0x1008 .*overlaps segment 0"),
        ([Part(0x1008, b"y"), Part(0x1000, b"x" * 9)], "segment 0 at address 0x1008 .*overlaps segment 1"),
        ([Part(0x1000, b"x" * 9)] * 2, "segment 1 at address 0x1000 .*overlaps segment 0"),
        ([Part(0x1000, b"x", memsz=0x3000), Part(0x3FFF, b"y")], "segment 1 .*overlaps segment 0"),
        ([Part(0x1000, b"x" * 9, memsz=8)], "segment 0 at address 0x1000 .*more than its 0x8"),
        ([Part(0x1000, b"x"), Part((1 << 64) - 4, b"12345")], "segment 1 .*wraps around"),
        ([Part((1 << 64) - 4, b"1234", memsz=5)], "segment 0 .*wraps around"),
        ([Part(1, b"", memsz=(1 << 64) - 1)], "more than a process .*segment 0 at address 0x[12] "),
        ([Part(1, b"a", memsz=(1 << 46) + 1)], "more than a process .*segment 0 at address 0x[12] "),
        ([Part(1, b"a", memsz=1 << 60, filesz=1 << 60)], "segment 0 at address 0x1 .*cut short"),
        ([Part(1, b"a", offset=(1 << 64) - 1)], "segment 0 at address 0x1 .*cut short"),
        ([Part(1, b"a", offset=1 << 63)], "segment 0 at address 0x1 .*cut short"),
    ],
)  # fmt: skip
def test_lies(parts, match, refused):
    """Segments that overlap, wrap around or lie about their sizes are named, with their address."""
    refused(make_elf(parts), match)


def test_wraps_around_in_32_bits(refused):
    """An address space of 32 bits ends at 2**32."""
    raw = make_elf([Part((1 << 32) - 4, b"1234", memsz=5)], bits=32)
    refused(raw, "segment 0 .*wraps around.*0x100000000")


def test_lies_of_the_header(refused):
    """So are tables that reach past the end of the file, and entries too small to be any."""
    raw = make_elf([Part(0x1000, b"x")])

    def patched(place: int, code: str, value: int) -> bytes:
        data = bytearray(raw)
        struct.pack_into(code, data, place, value)
        return bytes(data)

    for place in (1 << 20, 1 << 63, (1 << 64) - 1):
        refused(patched(32, "<Q", place), "program headers")  # e_phoff
    refused(patched(56, "<H", 0xFFFE), "65534 program headers")
    refused(patched(54, "<H", 55), "55 bytes, and 56")
    refused(patched(54, "<H", 0), "0 bytes, and 56")
    refused(patched(56, "<H", 0xFFFF), "no segments|section header 0|needed")


def test_notes_that_are_damaged(opened):
    """Names of mapped files are left out where their note is damaged; the memory is there."""
    note = struct.pack("<III", 5, 400, 0x46494C45) + b"CORE\0\0\0\0"
    lists = struct.pack("<QQQQQ", 1, P, 0x1000, 0x2000, 0)
    good = struct.pack("<III", 5, len(lists) + 6, 0x46494C45) + b"CORE\0\0\0\0" + lists + b"/file\0"
    many = note + struct.pack("<QQ", 1 << 60, P)
    for data, name in ((good, "/file"), (good[:-7], None), (note, None), (many, None)):
        parts = [Part(0, data, kind=NOTE), Part(0x1000, b"x")]
        image = opened(make_elf(parts, kind=CORE))
        assert [one.name for one in image.segments] == [name]
        assert image.read_at(0x1000, 1) == b"x"


def peak_of(run_ok, path: Path) -> tuple[str, int]:
    """Open a file in another process: what came of it, and how much its memory grew, in bytes."""
    script = f"""
    import resource
    import elftools.elf.structs
    import numpy as np
    from sparsearray.images import open_elf

    def peak():  # KiB; ru_maxrss begins with that of the process that started this one
        return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])

    before, start = resource.getrusage(resource.RUSAGE_SELF), peak()
    try:
        print(len(open_elf({str(path)!r}).segments), "segments")
    except ValueError as error:
        print(error)
    after = resource.getrusage(resource.RUSAGE_SELF)
    print(peak() - start)
    print(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    """
    said, grown, seconds = run_ok(script).splitlines()
    assert float(seconds) < 5  # minutes, once
    return said, int(grown) << 10


@pytest.mark.parametrize(
    ("number", "stride", "match"),
    [
        (1_000_000, 56, "no segments to load"),
        (10_000_000, 56, "table of 10000000 program headers"),
        (100_000, 60_000, "table of 100000 program headers of 60000 bytes"),
        ((1 << 32) - 1, 56, "4294967295 program headers"),
    ],
)
def test_huge_tables(number, stride, match, tmp_path, run_ok):
    """A hole for a table of segments takes neither minutes nor gigabytes, whatever its length."""
    raw = bytearray(make_elf([Part(0x1000, b"x")], kind=CORE, xnum=True))
    section = struct.unpack_from("<Q", raw, 40)[0]
    struct.pack_into("<I", raw, section + 44, number)
    struct.pack_into("<Q", raw, 32, len(raw))
    struct.pack_into("<H", raw, 54, stride)
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.write(raw)
        file.truncate(len(raw) + number * stride)
    said, grown = peak_of(run_ok, path)
    assert match in said
    assert str(path) in said
    assert grown < 200 << 20


def test_huge_notes(tmp_path, run_ok):
    """Nor do holes for notes, though a thousand segments show the same one or others."""
    size = 1 << 32
    for step in (0, 4):
        parts = [Part(0, b"", kind=NOTE, filesz=size, offset=step * i) for i in range(1000)]
        path = tmp_path / f"sparse{step}"
        with path.open("wb") as file:
            file.write(make_elf([*parts, Part(0x1000, b"x")], kind=CORE))
            file.truncate(size)
        said, grown = peak_of(run_ok, path)
        assert said == "1 segments"
        assert grown < 100 << 20


def test_many_notes(opened):
    """Names are found behind the notes of thousands of threads, in any class and byte order."""
    for bits, order in CLASSES:
        word = order + ("Q" if bits == 64 else "I")
        listed = b"".join(
            struct.pack(word, n) for n in (2, P, 0x1000, 0x2000, 0, 0x5000, 0x6000, 1)
        )
        listed += b"/a\0/b\0"
        data = b"".join(
            struct.pack(order + "III", 5, len(what), kind) + b"CORE\0\0\0\0" + what.ljust(-(-len(what) // 4) * 4, b"\0")
            for kind, what in [(1, bytes(335))] * 5000 + [(0x46494C45, listed)]
        )  # fmt: skip
        parts = [Part(0, data, kind=NOTE), *(Part(a, b"x") for a in (0x5FFF, 0x1000, 0x2000))]
        image = opened(make_elf(parts, kind=CORE, bits=bits, order=order))
        assert [one.name for one in image.segments] == ["/b", "/a", None]


def test_pyelftools_is_named_when_it_is_missing(run_ok):
    """Without pyelftools the error names it and the extra that brings it."""
    script = """
    sys.modules["elftools"] = None
    from sparsearray.images import open_elf
    error = failure(open_elf, sys.executable)
    print(type(error).__name__, error.name, error)
    """
    said = run_ok(script)
    assert said.startswith("ImportError elftools open_elf needs pyelftools: ")
    assert "sparsearray-numpy[images]" in said


# ------------------------------------------------------------------------------ objdump, readelf


PROGRAM = """
#include <stdio.h>
char zeros[100000];
int numbers[5000] = {1, 2, 3};
const char *text = "text in the program";
int main(void) { puts(text); return numbers[1]; }
"""


@pytest.mark.parametrize("options", [(), ("-static",), ("-no-pie",), ("-shared", "-fPIC")], ids=str)
def test_against_objdump(options, tmp_path):
    """Every byte of every section that objdump shows is in the image at its address."""
    path = compile_c(PROGRAM, tmp_path / "program", *options)
    headers = subprocess.run(
        [need("objdump"), "-h", path], env=CLEAN, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    sections = []
    for i, line in enumerate(headers):
        fields = line.split()
        if fields and fields[0].isdigit() and "ALLOC" in headers[i + 1]:
            loaded = "LOAD" in headers[i + 1].replace("ALLOC,", "")
            nbytes, address = int(fields[2], 16), int(fields[3], 16)
            sections.append((fields[1], address, nbytes, loaded, "THREAD_LOCAL" in headers[i + 1]))
    with open_elf(path) as image:
        checked = 0
        for name, address, nbytes, loaded, thread_local in sections:
            if loaded:
                shown = objdump_bytes(path, "-j", name)
                found = image.read_at(address, nbytes)
                assert {address + k: byte for k, byte in enumerate(found)} == shown
                checked += nbytes
            elif not thread_local:  # .bss
                assert image.read_at(address, nbytes) == bytes(nbytes)
        assert checked > 20_000


def test_against_readelf(tmp_path):
    """Segments are those that readelf lists."""
    path = compile_c(PROGRAM, tmp_path / "program")
    lines = subprocess.run(
        [need("readelf"), "-lW", path], env=CLEAN, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    expected = []
    for line in lines:
        # "  LOAD  0x002db8 0x0000000000003db8 0x0000000000003db8 0x01f658 0x038718 RW  0x1000"
        match = re.match(r"\s+LOAD((?: +0x[0-9a-f]+){5}) ([R ][W ][E ])", line)
        if match:
            offset, address, _, filesz, memsz = (int(text, 16) for text in match[1].split())
            flags = match[2].lower().replace("e", "x").replace(" ", "-")
            expected.append((address, memsz, filesz, flags, str(path), offset, None))
    assert len(expected) >= 2
    with open_elf(path) as image:
        assert list(image.segments) == expected
