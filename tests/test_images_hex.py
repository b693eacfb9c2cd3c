"""open_ihex and open_srec against objdump, bincopy and intelhex on the same files."""

import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsearray import AccessError
from sparsearray.images import open_ihex, open_srec

from .elf_files import CLEAN, need, objdump_bytes

bincopy = pytest.importorskip("bincopy")
intelhex = pytest.importorskip("intelhex")

RUNS = {0: b"start", 0xFFF0: bytes(range(64)), 0x12345: b"odd", 0x80000: bytes(5000)}
HIGH = {
    0x0800_0000: bytes(range(256)) * 5,
    0x0800_0600: b"vectors",
    0xFFFF_FFF0: b"last 16 bytes of",
}


def checked(line: str) -> str:
    """Add the checksum of an Intel HEX record, without its colon."""
    return f":{line}{-sum(bytes.fromhex(line)) & 0xFF:02X}"


def checked_s(kind: str, body: str) -> str:
    """Make an S-record of its address and data: count and checksum are added."""
    line = f"{len(body) // 2 + 1:02X}{body}"
    return f"S{kind}{line}{~sum(bytes.fromhex(line)) & 0xFF:02X}"


def model(runs: dict[int, bytes]) -> dict[int, int]:
    """Return bytes by address."""
    return {address + i: byte for address, data in runs.items() for i, byte in enumerate(data)}


def image_bytes(image) -> dict[int, int]:
    """Read all that is there, with read_at and with gather."""
    found = {}
    for segment in image.segments:
        data = image.read_at(segment.address, segment.nbytes)
        places = np.arange(segment.address, segment.address + segment.nbytes, dtype=np.uint64)
        assert image.gather(places, "u1").tobytes() == data
        found |= {segment.address + i: byte for i, byte in enumerate(data)}
    return found


def written_by_bincopy(runs, kind: str, path) -> None:
    """Write a file with bincopy."""
    made = bincopy.BinFile()
    for address, data in runs.items():
        made.add_binary(data, address)
    path.write_text(made.as_ihex() if kind == "ihex" else made.as_srec())


def written_by_intelhex(runs, path) -> None:
    """Write a file with intelhex."""
    made = intelhex.IntelHex()
    for address, data in runs.items():
        made.puts(address, data)
    made.write_hex_file(str(path))


@pytest.mark.parametrize("runs", [RUNS, HIGH, RUNS | HIGH], ids=["low", "high", "both"])
@pytest.mark.parametrize("kind", ["ihex", "srec"])
def test_against_bincopy_and_objdump(kind, runs, tmp_path):
    """Files that bincopy writes are read as bincopy and objdump read them, in as many segments."""
    path = tmp_path / "file"
    written_by_bincopy(runs, kind, path)
    with (open_ihex if kind == "ihex" else open_srec)(path) as image:
        found = image_bytes(image)
        assert found == model(runs)
        assert found == objdump_bytes(path, "-b", kind)
        theirs = bincopy.BinFile()
        (theirs.add_ihex_file if kind == "ihex" else theirs.add_srec_file)(str(path))
        segments = [(one.address, len(one.data)) for one in theirs.segments]
        assert [(one.address, one.nbytes) for one in image.segments] == segments
        for address, nbytes in segments:
            assert address - 1 not in image
            with pytest.raises(AccessError) as caught:
                image.read_at(address, nbytes + 1)
            assert caught.value.offset == address + nbytes


@pytest.mark.parametrize("runs", [RUNS, HIGH], ids=["low", "high"])
def test_against_intelhex(runs, tmp_path):
    """Files that intelhex writes are read as it reads them."""
    path = tmp_path / "file"
    written_by_intelhex(runs, path)
    theirs = intelhex.IntelHex(str(path))
    with open_ihex(path) as image:
        found = image_bytes(image)
    assert found == {address: theirs[address] for address in theirs.addresses()}
    assert found == model(runs)


@pytest.mark.parametrize("kind", ["ihex", "srec"])
def test_against_objcopy(kind, tmp_path):
    """Files that objcopy writes, to any record length, are what went in."""
    raw = np.random.default_rng(1).bytes(100_000)
    (tmp_path / "raw").write_bytes(raw)
    path = tmp_path / "out"
    command = [
        need("objcopy"),
        "-I",
        "binary",
        "-O",
        kind,
        "--change-addresses",
        "0x8003",
        "raw",
        "out",
    ]
    subprocess.run(command, cwd=tmp_path, env=CLEAN, check=True)
    with (open_ihex if kind == "ihex" else open_srec)(path, pointer=">u4") as image:
        assert image.read_at(0x8003, len(raw)) == raw
        assert image.nbytes == len(raw)
        assert (image.byteorder, image.pointer) == ("big", np.dtype(">u4"))
        assert list(image.search(raw[500:520])) == [0x8003 + 500]
        value = int.from_bytes(raw[900:904], "big")
        assert 0x8003 + 900 in list(image.search(value))


def test_segment_addresses_and_line_ends(tmp_path):
    """Addresses in paragraphs, lower case, blank lines and any line end are understood."""
    lines = [
        checked("020000021000"), checked("0400100001020304").lower(), "",
        checked("020000020000"), checked("02FFFF000506"), checked("0400000300001234"),
        checked("0400000500001234"), checked("00000000"), checked("00000001"), "",
    ]  # fmt: skip
    for end in ("\n", "\r\n", "\r"):
        path = tmp_path / "file"
        path.write_bytes(end.join(lines).encode())
        with open_ihex(path) as image:
            assert image_bytes(image) == model({0x10010: b"\1\2\3\4", 0xFFFF: b"\5\6"})


def test_records_in_any_order(tmp_path):
    """Records need not be sorted: what touches is one segment."""
    path = tmp_path / "file"
    lines = [checked_s("1", f"{a:04X}{a:02X}") for a in (7, 5, 6, 2, 3, 9)]
    lines += [checked_s("0", "0000484452"), checked_s("5", "0006"), checked_s("9", "0000")]
    path.write_text("\n".join(lines))
    with open_srec(path) as image:
        assert [(one.address, one.nbytes) for one in image.segments] == [(2, 2), (5, 3), (9, 1)]
        assert image_bytes(image) == {a: a for a in (2, 3, 5, 6, 7, 9)}


EOF_RECORD = ":00000001FF"
GOOD = checked("0400100001020304")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "end-of-file record is missing"),
        (GOOD, "end-of-file record is missing"),
        (EOF_RECORD, "no data"),
        (f"{GOOD}\n{EOF_RECORD}\n{GOOD}", "line 3: more after"),
        (f"{GOOD[:-1]}0\n{EOF_RECORD}", "line 1: .*crc|line 1: "),
        (f"\n{GOOD[:-2]}\n{EOF_RECORD}", "line 2: "),
        (f"{GOOD}\n{GOOD[:9]}", "line 2: .*short"),
        (f"{GOOD}\nspam and eggs\n", "line 2: .*':'"),
        (f"{GOOD}\n:spam and eggs\n", "line 2: "),
        (f"{GOOD}\n:\x80\xff\n", "line 2: "),
        (f"{GOOD}\n{checked('00000007')}\n{EOF_RECORD}", "line 2: unknown type 7"),
        (f"{GOOD}\n{checked('0100000405')}\n{EOF_RECORD}", "line 2: an address of 1 bytes"),
        (f"{GOOD}\n{GOOD}\n{EOF_RECORD}", "line 2 at address 0x10 .*overlaps line 1 at address 0x10"),
        (f"{GOOD}\n{checked('01001300FF')}\n{EOF_RECORD}", "line 2 at address 0x13 .*overlaps line 1"),
        (f"{checked('02000004FFFF')}\n{checked('02FFFF000102')}\n{EOF_RECORD}", "line 2 .*wraps around"),
    ],
)  # fmt: skip
def test_damaged_ihex(text, match, tmp_path, descriptors):
    """A damaged line is a ValueError that names it and the file."""
    check_damaged(open_ihex, text, match, tmp_path, descriptors)


def check_damaged(call, text: str, match: str, tmp_path, descriptors) -> None:
    """Check that a file is refused."""
    path = tmp_path / "bad"
    path.write_bytes(text.encode("latin-1"))
    before = descriptors()
    with pytest.raises(ValueError, match=match) as caught:
        call(path)
    assert str(path) in str(caught.value)
    del caught
    assert descriptors() == before


GOOD_S = checked_s("1", "0010010203")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "no data"),
        (checked_s("9", "0000"), "no data"),
        (f"{GOOD_S[:-1]}Z", "line 1: "),
        (f"{GOOD_S}\n{GOOD_S[:-2]}00", "line 2: .*crc"),
        (f"{GOOD_S}\nS1", "line 2: .*short"),
        (f"{GOOD_S}\n:0000", "line 2: "),
        (f"{GOOD_S}\n{checked_s('4', '0000')}", "line 2: .*type"),
        (f"{GOOD_S}\n{checked_s('5', '0002')}", "line 2: 2 records are counted, and there are 1"),
        (f"{GOOD_S}\n{checked_s('2', '000012FF')}", "line 2 at address 0x12 .*overlaps line 1"),
        (f"{GOOD_S}\n{checked_s('3', 'FFFFFFFF0102')}", "line 2 .*wraps around"),
    ],
)
def test_damaged_srec(text, match, tmp_path, descriptors):
    """So is one of an S-record."""
    check_damaged(open_srec, text, match, tmp_path, descriptors)


@pytest.mark.parametrize("call", ["open_ihex", "open_srec"])
def test_bincopy_is_named_when_it_is_missing(call, run_ok):
    """Without bincopy the error names it and the extra that brings it."""
    script = f"""
    sys.modules["bincopy"] = None
    from sparsearray import images
    error = failure(images.{call}, sys.executable)
    print(type(error).__name__, error.name, error)
    """
    said = run_ok(script)
    assert said.startswith(f"ImportError bincopy {call} needs bincopy: ")
    assert "sparsearray-numpy[images]" in said


def test_files_that_cannot_be_opened(tmp_path, descriptors):
    """What is no file is an OSError that names it."""
    before = descriptors()
    for call in (open_ihex, open_srec):
        with pytest.raises(OSError, match="nowhere"):
            call(tmp_path / "nowhere")
        with pytest.raises(OSError, match=tmp_path.name):
            call(tmp_path)
        with pytest.raises(OSError, match="not a regular file: '/dev/zero'"):
            call("/dev/zero")
    assert descriptors() == before


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_runs(data, tmp_path_factory):
    """Any runs of bytes, written by bincopy or intelhex, are read back."""
    path = tmp_path_factory.mktemp("runs") / "file"
    at, runs = data.draw(st.sampled_from([0, 5, 0xFFFE, 0x10000, 0xFFFF_0000])), {}
    for _ in range(data.draw(st.integers(1, 5))):
        runs[at] = data.draw(st.binary(min_size=1, max_size=100))
        at += len(runs[at]) + data.draw(st.sampled_from([0, 1, 100, 4096, 5000]))
    shuffled = dict(data.draw(st.permutations(list(runs.items()))))
    writer = data.draw(st.sampled_from(["ihex", "srec", "intelhex"]))
    if writer == "intelhex":
        written_by_intelhex(shuffled, path)
    else:
        written_by_bincopy(shuffled, writer, path)
    with (open_srec if writer == "srec" else open_ihex)(path) as image:
        assert image_bytes(image) == model(runs)
