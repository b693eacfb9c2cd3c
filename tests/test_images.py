"""Image: reading by address, against a bytearray of what open_raw was given."""

import mmap
import os
import pickle
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsearray import AccessError, ClosedError
from sparsearray._memory import available_memory
from sparsearray.images import Segment, open_raw

from .elf_files import CLEAN, need

P = mmap.PAGESIZE
TOP = 0xFFFF_FFFF_0000_0000
ABSENT = -1


class Model:
    """Bytes by address, with gaps."""

    def __init__(self, data: bytes, parts) -> None:
        self.bytes = {}
        for address, _, offset, nbytes in parts:
            for i in range(nbytes):
                self.bytes[address + i] = data[offset + i]

    def read(self, address: int, nbytes: int, pad: int = ABSENT) -> list[int]:
        """Read bytes, `pad` where there are none."""
        return [self.bytes.get(address + i, pad) for i in range(nbytes)]

    def first_absent(self, address: int, nbytes: int) -> int | None:
        """Find the first address that is not there."""
        return next((a for a in range(address, address + nbytes) if a not in self.bytes), None)


@pytest.fixture
def image(make_file):
    """Make an image of some parts that are mapped, copied and both; and its model."""
    path, data = make_file(9 * P)
    parts = [
        (TOP + 10 * P, path, P, 2 * P),  # mapped
        (TOP + 12 * P, path, 4 * P, P + 7),  # mapped behind it, with a copy of 7 bytes
        (TOP + 13 * P + 20, path, 11, 100),  # on the same page
        (0x1234, path, 0, 3 * P),  # copied
        (0x1234 + 3 * P, path, 4, 1),  # behind it
        (1 << 47, path, 5, 2 * P - 5),  # a copy, then mapped? its offset is off by five
        ((1 << 47) + 5 * P + 9, path, P + 9, 3 * P),  # a copy, a window, a copy
        ((1 << 64) - 3, path, 8, 3),  # the last bytes there are
    ]
    with open_raw(parts) as made:
        yield made, Model(data, parts)


def edges(model: Model) -> list[int]:
    """Return addresses where something begins or ends."""
    found = []
    for address in model.bytes:
        if address - 1 not in model.bytes:
            found.append(address)
        if address + 1 not in model.bytes:
            found.append(address + 1)
    return found


def test_reads_what_is_there(image):
    """Around each edge, bytes that are there are read, and the first that is not is told."""
    made, model = image
    for edge in edges(model):
        for address in (edge - 5, edge - 1, edge, edge + 1):
            for nbytes in (0, 1, 4, 6, 300):
                bad = model.first_absent(address, nbytes)
                if bad is None:
                    expected = bytes(model.read(address, nbytes))
                    assert made.read_at(address, nbytes) == expected
                    assert made.window(address, nbytes).tobytes() == expected
                    assert made.read_plain(address, f"V{nbytes}").tobytes() == expected
                    continue
                for call in (made.read_at, made.window):
                    with pytest.raises(AccessError) as caught:
                        call(address, nbytes)
                    assert caught.value.offset == bad
                    assert (caught.value.reason, caught.value.operation) == ("unmapped", "read")
                    assert f"at address {address:#x} ({address})" in str(caught.value)
                    assert f"{bad:#x} ({bad})" in str(caught.value)
                with pytest.raises(AccessError) as caught:
                    made.read_plain(address, f"V{nbytes}")
                assert caught.value.offset == bad
                padded = bytes(model.read(address, nbytes, 0xAA))
                assert made.read_at(address, nbytes, pad=0xAA) == padded


def test_whether_an_address_is_there(image):
    """`in` tells of single bytes."""
    made, model = image
    for edge in edges(model):
        for address in range(max(edge - 2, 0), edge + 3):
            assert (address in made) == (address in model.bytes)
    assert -1 not in made
    assert 1 << 64 not in made
    with pytest.raises(TypeError):
        "a" in made  # noqa: B015 - the error is what counts


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u4", "<f8", "V3", "V16", "V24", "V32", "V100"])
@pytest.mark.parametrize("count", [1, 5, 3000])
def test_gathers_records(dtype, count, image):
    """Records at any addresses in any order are those of the model, few of them or many."""
    made, model = image
    size = np.dtype(dtype).itemsize
    there = [a for a in model.bytes if all(a + i in model.bytes for i in (size - 1, size // 2))]
    there = [a for a in there if model.first_absent(a, size) is None]
    addresses = np.random.default_rng(1).choice(np.array(there, np.uint64), count)
    found = made.gather(addresses, dtype)
    expected = b"".join(bytes(model.read(int(a), size)) for a in addresses)
    assert found.dtype == np.dtype(dtype)
    assert found.tobytes() == expected


@pytest.mark.parametrize("at", [0, 7, 63, 64, 199, 1999])
def test_first_bad_record_is_told(at, image):
    """Of several addresses that are not there the first in the order asked for is told."""
    made, model = image
    addresses = np.full(2000, 0x1234, np.uint64)
    addresses[at] = TOP + 13 * P + 4
    addresses[at + 1 :: 3] = 5
    bad = model.first_absent(TOP + 13 * P + 4, 8)
    with pytest.raises(AccessError) as caught:
        made.gather(addresses, "<u8")
    assert caught.value.offset == bad
    assert f"at address {TOP + 13 * P + 4:#x}" in str(caught.value)
    few = addresses[at : at + 2]
    with pytest.raises(AccessError) as caught:
        made.gather(few, "<u8")
    assert caught.value.offset == bad


def test_end_of_the_address_space(image):
    """The byte behind the last address is 2**64, for every call."""
    made, _ = image
    last = (1 << 64) - 3
    assert made.gather([last, last + 2], "u1").tolist() == list(made.read_at(last, 3)[::2])
    for call in (
        lambda: made.gather([last], "<u4"),
        lambda: made.read_plain(last, "<u4"),
        lambda: made.read_at(last, 4),
        lambda: made.window(last, 1, "<u4"),
        lambda: made.gather([1 << 64], "u1"),
        lambda: made.read_at(1 << 64, 1),
    ):
        with pytest.raises(AccessError) as caught:
            call()
        assert caught.value.offset == 1 << 64
    assert made.read_at(last, 5, pad=0)[3:] == b"\0\0"


@pytest.mark.parametrize("kind", ["i1", "u1", "<i4", ">u4", "<i8", ">i8", "<u8", ">u8"])
def test_addresses_of_any_integer_type(kind, make_file):
    """Addresses may be of any integer type, byte order and shape."""
    path, data = make_file(200)
    with open_raw([(5, path, 0, 150)]) as made:
        addresses = np.array([[5, 100], [127, 6]], kind)
        expected = [[data[int(a) - 5] for a in row] for row in addresses]
        assert made.gather(addresses, "u1").tolist() == expected
        assert made.gather(addresses[::-1, :1], "u1").tolist() == [[r[0]] for r in expected[::-1]]
        assert made.gather(addresses.tolist(), "u1").tolist() == expected
        assert made.gather([], "<u4").shape == (0,)
        assert made.gather(np.zeros((3, 0), kind), "<u4").shape == (3, 0)
        assert made.gather(7, "<u2").shape == ()
        assert made.gather([7, 8], "S0").tolist() == [b"", b""]


def test_mixed_python_ints(image):
    """Lists of ints on both sides of 2**63 are addresses as any others."""
    made, model = image
    addresses = [0x1234, TOP + 10 * P, 0x1235]
    assert made.gather(addresses, "u1").tolist() == [model.bytes[a] for a in addresses]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("i.read_at(-1, 1)", ValueError),
        ("i.read_at(1, -1)", ValueError),
        ("i.read_at(0x1234, 1, pad=256)", ValueError),
        ("i.read_at(0x1234, 1, pad=-1)", ValueError),
        ('i.read_at(0x1234, 1, pad="x")', TypeError),
        ("i.read_at(1.5, 1)", TypeError),
        ('i.read_at("1", 1)', TypeError),
        ('i.read_plain(-5, "u1")', ValueError),
        ('i.read_plain(0x1234, "O")', TypeError),
        ('i.read_plain(0x1234, "u1", -1)', ValueError),
        ("i.window(-5, 1)", ValueError),
        ("i.window(0x1234, 1, object)", TypeError),
        ('i.gather([-1], "u1")', ValueError),
        ('i.gather(np.array([5, -1]), "u1")', ValueError),
        ('i.gather([1 << 63, -1], "u1")', ValueError),
        ('i.gather([1.5], "u1")', TypeError),
        ('i.gather([True], "u1")', TypeError),
        ('i.gather([True, 0x1234], "u1")', TypeError),
        ('i.gather([[0x1234], (np.True_,)], "u1")', TypeError),
        ('i.gather([TOP, True], "u1")', TypeError),
        ('i.gather(np.array([0x1234, True], object), "u1")', TypeError),
        ('i.gather(["1"], "u1")', TypeError),
        ("i.gather([0x1234], object)", TypeError),
        ("i.hexdump(-1, 5)", ValueError),
        ("i.hexdump(1, -5)", ValueError),
        ("i.hexdump(0, 1 << 70)", ValueError),
        ("i.hexdump(1 << 70, 5)", ValueError),
        ("i.read_at(0, 1 << 60, pad=0)", MemoryError),
    ],
)
def test_bad_arguments(call, error, image):
    """A wrong argument is a clear error."""
    with pytest.raises(error):
        eval(call, {"i": image[0], "np": np, "TOP": TOP})  # noqa: S307 - of the list above


def test_windows_are_read_only_and_keep_the_image(image):
    """A window shares memory, cannot be written or made writable, and keeps the image open."""
    made, model = image
    window = made.window(TOP + 10 * P + 5, (3, 4), ">u2")
    assert window.tobytes() == bytes(model.read(TOP + 10 * P + 5, 24))
    assert not window.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        window[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        window.flags.writeable = True
    with pytest.raises(BufferError):
        made.close()
    assert not made.closed
    del window
    made.close()
    made.close()
    with pytest.raises(ClosedError):
        made.read_at(0x1234, 1)
    for call in (made.window, made.search):
        with pytest.raises(ClosedError):
            call(0x1234, 1)
    with pytest.raises(ClosedError):
        made.gather([0x1234], "u1")
    assert repr(made).endswith(", closed>")


@pytest.mark.parametrize(
    "call",
    [
        "i.read_at(0x1234, 1)",
        "i.read_at(0, 1)",
        "i.read_at(0, 1, pad=0)",
        "i.read_at(0x1234, 1, pad=0)",
        "i.read_at(0x1234, 0)",
        'i.read_plain(0x1234, "u8")',
        'i.gather([0x1234], "u1")',
        'i.gather([], "u1")',
        "i.window(0x1234, 1)",
        "i.hexdump(0x1234)",
        "i.hexdump(0)",
        'i.search(b"x", 0x1234)',
        "0x1234 in i",
        "0 in i",
    ],
)
def test_closed(call, image):
    """Of a closed image each call says that, with its name and the address, not another place."""
    made, _ = image
    made.close()
    with pytest.raises(ClosedError) as caught:
        eval(call, {"i": made})  # noqa: S307 - of the list above
    assert made.name in str(caught.value)
    if "0x1234" in call and "gather" not in call:
        assert "address 0x1234 " in str(caught.value)


def test_facts(image):
    """What an image says of itself."""
    made, model = image
    path = made.segments[0].file
    assert made.nbytes == len(model.bytes)
    assert len(made.segments) == 8
    assert made.segments[1] == (TOP + 12 * P, P + 7, P + 7, "", path, 4 * P, None)
    assert (made.pointer, made.byteorder, made.name) == (None, None, path)
    assert repr(made) == f"<Image {path}, {model_size(made.nbytes)} in 8 segments>"
    with open_raw([(0, path, 0, 1)], pointer=">u4", name="board") as named:
        assert (named.pointer, named.byteorder, named.name) == (np.dtype(">u4"), "big", "board")
        assert repr(named) == "<Image board, 32-bit big, 1 bytes in 1 segment>"
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(made)


def model_size(nbytes: int) -> str:
    """Write bytes in KiB."""
    return f"{nbytes / 1024:.4g} KiB"


def test_mapped_where_congruent(image):
    """Whole pages at their places are windows of the file, and only the rest is a copy."""
    made, _ = image
    mapped = sum(r.nbytes for r in made._buffer.regions if r.kind == "file")
    # Two pages, one, none of the copies, and the middle of the seventh part.
    assert mapped == (2 + 1 + 2) * P


@pytest.mark.parametrize(
    ("parts", "match"),
    [
        ([], "no parts"),
        ([(0, None, 0, 0)], "part 0.*empty"),
        ([(0, None, 0, 5), (-1, None, 0, 5)], "part 1.*negative"),
        ([(0, None, -1, 5)], "part 0.*negative"),
        ([(0, None, 0, 101)], r"part 0.*0x65 \(101\).*0x64 \(100\) bytes"),
        ([(0, None, 1 << 70, 1)], "part 0.*100"),
        ([(0, None, 0, 5), (4, None, 0, 5)], "part 1 at address 0x4 .*overlaps part 0"),
        ([((1 << 64) - 4, None, 0, 5)], "part 0 .*wraps around"),
        ([(1 << 64, None, 0, 5)], "part 0 .*wraps around"),
    ],
)
def test_bad_parts(parts, match, make_file, descriptors):
    """A part that cannot be is named."""
    path, _ = make_file(100)
    before = descriptors()
    with pytest.raises(ValueError, match=match):
        open_raw([(a, path, o, n) for a, _, o, n in parts])
    assert descriptors() == before


def test_missing_file_of_a_part(make_file, tmp_path, descriptors):
    """A part whose file is missing is an OSError with its name, and the others are closed."""
    path, _ = make_file(100)
    before = descriptors()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_raw([(0, path, 0, 9), (99, tmp_path / "nowhere", 0, 9)])
    assert descriptors() == before
    with pytest.raises(TypeError, match="unsigned"):
        open_raw([(0, path, 0, 9)], pointer="i4")


@pytest.mark.parametrize(
    ("part", "error"),
    [
        ((0, "file", 0), ValueError),
        ((0, "file", 0, 1, 2), ValueError),
        (5, TypeError),
        ((0.5, "file", 0, 1), TypeError),
        ((0, "file", 0, "1"), TypeError),
    ],
)
def test_what_is_no_part(part, error, make_file):
    """What is no part at all is named by its number, too."""
    path, _ = make_file(100)
    with pytest.raises(error, match="part 1: .*is not .address, file, offset, nbytes."):
        open_raw([(0, path, 0, 9), part])


def test_more_parts_than_descriptors(make_file, run_ok):
    """Parts of one file take one descriptor, however many they are."""
    path, data = make_file(9 * P)
    said = run_ok(f"""
    import resource
    from sparsearray.images import open_raw

    resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
    parts = [(i << 20, {str(path)!r}, i, P + 1) for i in range(500)]
    with open_raw(parts) as image:
        print(image.read_at(7 << 20, P + 1).hex())
    """)
    assert said.strip() == data[7 : P + 8].hex()


@pytest.mark.slow
def test_more_mappings_than_there_can_be(make_file, run_ok):
    """Too many windows are an OSError with the file and the limit; some are left to others."""
    limit = Path("/proc/sys/vm/max_map_count")
    if not limit.exists():
        pytest.skip("this system does not say how many mappings there may be")
    most = int(limit.read_text())
    if most > 1 << 17:
        pytest.skip(f"{most} mappings may be")
    path, _ = make_file(2 * P)
    said = run_ok(f"""
    import errno
    from sparsearray.images import open_raw

    def count():
        with open("/proc/self/maps") as file:
            return len(file.readlines())

    name, before = {str(path)!r}, count()
    for skip, shift in ((0, 0), (before + 100, 0), ({most} // 2, 9)):
        # The last ones: a copy beside each window, which nobody counts beforehand.
        parts = [(2 * i * P, name, 0, P + shift) for i in range({most} - skip)]
        try:
            open_raw(parts).close()
        except OSError as error:
            assert error.errno == errno.ENOMEM, error
            assert name in str(error) and "vm.max_map_count" in str(error), error
        else:
            raise AssertionError(len(parts))
        assert count() < before + 50
    parts = [(2 * i * P, name, 0, P) for i in range({most} - before - 1000)]
    with open_raw(parts) as image:
        print(image.nbytes // P - len(parts), count() > len(parts))
    """)
    assert said == "0 True\n"


@pytest.mark.usefixtures("told_pages")
def test_copies_that_do_not_fit(tmp_path):
    """More copies than memory has room for are a MemoryError; holes of a file are none."""
    path = tmp_path / "file"
    nbytes = 32 << 20
    free = available_memory()
    if free is None:
        pytest.skip("this system does not say how much memory is free")
    for stored in (True, False):
        with path.open("wb") as file:
            file.write(bytes([7]) * (nbytes if stored else P))
            file.truncate(nbytes)
        parts = [(i << 32 | 1, path, 0, nbytes) for i in range(2 * free // nbytes)]
        if stored:
            with pytest.raises(MemoryError, match=rf"{path}: .* copied, and .* are free"):
                open_raw(parts)
        else:
            with open_raw(parts) as made:
                assert made.read_at(parts[-1][0] + P - 1, 2) == b"\7\0"


def test_reads_that_do_not_fit(tmp_path):
    """A read of more than there is memory is a MemoryError with the address, at once."""
    path = tmp_path / "file"
    free = available_memory()
    if free is None:
        pytest.skip("this system does not say how much memory is free")
    nbytes = 2 * free
    with path.open("wb") as file:
        file.truncate(nbytes)
    with open_raw([(TOP - nbytes, path, 0, nbytes)]) as made:
        where = TOP - nbytes
        for call in (
            lambda: made.read_at(where, nbytes),
            lambda: made.read_at(where, nbytes, pad=0),
            lambda: made.read_plain(where, "u1", nbytes),
            lambda: made.gather(np.full(2 + nbytes // (1 << 28), where, np.uint64), "V268435456"),
        ):
            with pytest.raises(MemoryError, match=f"address {where:#x} .* are free"):
                call()


@pytest.mark.usefixtures("told_pages")
def test_sparse_files_stay_sparse(tmp_path):
    """Holes of a file cost nothing, whether it is mapped or copied."""
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 30)
        file.seek(1 << 29)
        file.write(b"data")
    for address in (0x1000_0000, 0x1000_0001):
        with open_raw([(address, path, 0, 1 << 30)]) as made:
            assert made._buffer.nbytes_stored <= 2 * P
            assert made.read_at(address + (1 << 29) - 2, 8) == b"\0\0data\0\0"
            assert list(made.search(b"data")) == [address + (1 << 29)]


def test_a_file_cut_short_later(make_file):
    """What the file loses after it was opened is an AccessError with the address, nothing else."""
    path, data = make_file(8 * P)
    base = 0x7000_0000_0000
    calls = [
        lambda i: i.read_at(base, 8 * P),
        lambda i: i.read_at(base, 8 * P, pad=0),
        lambda i: i.read_plain(base + 4 * P, "u8"),
        lambda i: i.gather(np.full(1000, base + 4 * P), "u8"),
        lambda i: list(i.search(b"nothing like it")),
        lambda i: list(i.search(__import__("re").compile(b"nothing like it"))),
        lambda i: i.hexdump(base, 8 * P),
    ]
    for call in calls:
        path.write_bytes(data)
        made = open_raw([(base, path, 0, 8 * P)])
        os.truncate(path, 4 * P)
        with pytest.raises(AccessError) as caught:
            call(made)
        assert caught.value.reason == "file-truncated"
        assert caught.value.offset == base + 4 * P
        assert f"address {base + 4 * P:#x}" in str(caught.value)
        assert made.read_at(base, 4 * P) == data[: 4 * P]
        assert made.gather([base + 5], "u1") == data[5]
        del caught
        made.close()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_layout(data, tmp_path_factory):
    """Reads and gathers of any layout of parts agree with the model."""
    path = tmp_path_factory.mktemp("layout") / "file"
    raw = np.random.default_rng(data.draw(st.integers(0, 9))).bytes(4 * P)
    path.write_bytes(raw)
    at, parts = data.draw(st.sampled_from([0, 1, P - 1, P, TOP])), []
    for _ in range(data.draw(st.integers(1, 5))):
        offset = data.draw(st.sampled_from([0, 1, P - 1, P, P + 5, 2 * P]))
        nbytes = data.draw(st.sampled_from([1, 7, P - 1, P, P + 1, 2 * P]))
        if data.draw(st.booleans()):  # congruent
            at += (offset - at) % P
        parts.append((at, path, offset, nbytes))
        at += nbytes + data.draw(st.sampled_from([0, 0, 1, P - 1, P, 5 * P]))
    shuffled = data.draw(st.permutations(parts))
    model = Model(raw, parts)
    with open_raw(shuffled) as made:
        assert made.nbytes == len(model.bytes)
        start = data.draw(st.sampled_from([p[0] for p in parts])) - data.draw(st.integers(0, 1)) * 3
        start, nbytes = max(start, 0), data.draw(st.integers(0, 5 * P))
        assert list(made.read_at(start, nbytes, pad=0xEE)) == model.read(start, nbytes, 0xEE)
        bad = model.first_absent(start, nbytes)
        if bad is None:
            assert list(made.read_at(start, nbytes)) == model.read(start, nbytes)
        else:
            with pytest.raises(AccessError) as caught:
                made.read_at(start, nbytes)
            assert caught.value.offset == bad


# ------------------------------------------------------------------------------ hexdump, HTML


@pytest.mark.parametrize(("skip", "nbytes"), [(0, 0), (0, 1), (0, 16), (3, 5), (5, 700), (0, 3000)])
def test_hexdump_as_the_command(skip, nbytes, tmp_path):
    """Where all bytes are there it is what ``hexdump -C`` prints."""
    path = tmp_path / "file"
    raw = bytes(range(256)) + bytes(300) + b"spam" * 100 + np.random.default_rng(1).bytes(3000)
    path.write_bytes(raw)
    command = [need("hexdump"), "-C", "-s", str(skip), "-n", str(nbytes), path]
    expected = subprocess.run(command, env=CLEAN, capture_output=True, text=True, check=True).stdout
    with open_raw([(0, path, 0, len(raw))]) as made:
        found = made.hexdump(skip, nbytes)
    if nbytes:
        # The command puts a space less behind a short line's last byte, now and then.
        assert found.split() == expected.split()
    assert found.splitlines()[-1] == f"{skip + nbytes:08x}"


def test_hexdump_of_gaps(make_file):
    """Bytes that are not there show as --, rows of them once, in any address space."""
    path, data = make_file(100)
    with open_raw([(TOP + 0x14, path, 0, 20), (TOP + 0x1000, path, 5, 3)]) as made:
        lines = made.hexdump(TOP, 0x2000).splitlines()
    row = f"{TOP:x}  " + " ".join(["--"] * 8) + "  " + " ".join(["--"] * 8) + f"  |{' ' * 16}|"
    assert lines[0] == row
    assert lines[1].startswith(f"{TOP + 0x10:x}  -- -- -- -- {data[0]:02x} {data[1]:02x} ")
    assert lines[2].split("  |")[0].endswith(f"{data[19]:02x}  -- -- -- -- -- -- -- --")
    assert lines[3] == row.replace(f"{TOP:x}", f"{TOP + 0x30:x}")
    assert lines[4] == "*"
    assert lines[5].startswith(f"{TOP + 0x1000:x}  {data[5]:02x} {data[6]:02x} {data[7]:02x} --")
    assert lines[6].startswith(f"{TOP + 0x1010:x}  --")
    assert lines[7:] == ["*", f"{TOP + 0x2000:x}"]


def test_hexdump_of_everything(make_file):
    """All 2**64 addresses are a few lines."""
    path, _ = make_file(3)
    with open_raw([(1 << 63, path, 0, 3)]) as made:
        assert len(made.hexdump(0, 1 << 64).splitlines()) == 6


def test_html(image):
    """Notebooks show a map and a table of the segments, as well-formed XML."""
    made, _ = image
    root = ET.fromstring(made._repr_html_())  # noqa: S314 - our own
    text = " ".join(root.itertext())
    assert "8 segments" in text
    for segment in made.segments:
        assert f"{segment.address:#x}" in text
    assert len(list(root.iter("{http://www.w3.org/2000/svg}rect"))) == 8
    made.close()
    assert "closed" in made._repr_html_()


def test_html_of_a_segment(make_file):
    """Of a segment notebooks show where it lies, in memory and in the file, and what it may do."""
    path, _ = make_file(100)
    segment = Segment(0x1000, 0x80, 0x40, "r-x", str(path), 0x20, "<lib&>")
    root = ET.fromstring(segment._repr_html_())  # noqa: S314 - our own
    text = " ".join(" ".join(root.itertext()).split())
    assert "address 0x1000 to 0x1080" in text
    assert "nbytes 128 bytes 0x80 (128)" in text
    assert "in the file 64 bytes" in text
    assert "from 0x20 kind ■ code r-x name '<lib&>'" in text
    text = "".join(ET.fromstring(segment._replace(nbytes_in_file=0)._repr_html_()).itertext())  # noqa: S314
    assert "■ not in the file" in text
