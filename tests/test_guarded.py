"""Guarded copies: what they move, what they refuse, and what they say about it."""

import mmap
import os
import random
from pathlib import Path

import numpy as np
import pytest

from sparsearray import AccessError, OutOfBoundsError, Region, SparseBuffer

P = mmap.PAGESIZE
MIB, GIB = 1 << 20, 1 << 30


@pytest.fixture
def mixed(make_file):
    """Make a buffer whose 16 pages are of all kinds, with the bytes that must be there."""
    path, data = make_file(8 * P)
    with SparseBuffer(18 * P) as buffer:
        buffer.alloc(P, 4 * P)
        buffer.write_at(P, data[: 4 * P])
        buffer.map_zero(5 * P, 2 * P)
        buffer.map_file(7 * P, 3 * P, path)
        buffer.map_file(10 * P, 3 * P, path, 4 * P, copy_on_write=True)
        buffer.map_file(13 * P, P, path, 7 * P, writable=True)
        buffer.mmap_anonymous(14 * P, 3 * P, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE)
        buffer.write_at(14 * P, data[P : 4 * P])
        whole = bytearray(bytes(P) + data[: 4 * P] + bytes(2 * P) + data[: 3 * P])
        whole += data[4 * P : 7 * P] + data[7 * P :] + data[P : 4 * P]
        yield buffer, whole


def test_reads_at_any_offset(mixed):
    """Reads of any length at any byte, across regions of all kinds, give the bytes there."""
    buffer, whole = mixed
    rng = random.Random(0)
    for _ in range(2000):
        start = rng.randint(P, 17 * P)
        stop = rng.randint(start, min(17 * P, start + rng.choice([1, 9, 100, P, 5 * P, 16 * P])))
        assert buffer.read_at(start, stop - start) == whole[start:stop]


def test_writes_at_any_offset(mixed):
    """Writes of any length at any byte, across writable regions, change those bytes only."""
    buffer, whole = mixed
    rng = random.Random(1)
    for _ in range(1000):
        low, high = rng.choice([(P, 5 * P), (10 * P, 17 * P)])
        start = rng.randint(low, high)
        stop = rng.randint(start, min(high, start + rng.choice([1, 9, 100, P, 7 * P])))
        if rng.random() < 0.5:
            data = rng.randbytes(stop - start)
            buffer.write_at(start, data)
        else:
            value = rng.randrange(256)
            data = bytes([value]) * (stop - start)
            buffer.fill_at(start, value, stop - start)
        whole[start:stop] = data
    assert buffer.read_at(P, 16 * P) == whole[P:]


LENGTHS = sorted(
    {0, 1, 2, 3, 7, 8, 9, 63, 64, 65, P - 1, P, P + 1}
    | {n + step for n in (MIB, 2 * MIB, 64 * MIB) for step in (-P - 1, -P, -1, 0, 1, P, P + 1)}
)


@pytest.mark.parametrize("nbytes", LENGTHS)
def test_lengths(nbytes):
    """What is written in one call is read in one call, for lengths around every size of page."""
    data = np.random.default_rng(nbytes).integers(0, 256, nbytes, "u1")
    with SparseBuffer(nbytes + 4 * P) as buffer:
        buffer.alloc(P, (nbytes + 2 * P) // P * P)
        buffer.write_at(P + 5, data)
        found = np.full(nbytes, 99, "u1")
        buffer.read_into(P + 5, found)
        assert np.array_equal(found, data)
        assert buffer.read_at(P, 5) == bytes(5)
        assert buffer.read_at(P + 5 + nbytes, 3) == bytes(3)
        if nbytes <= 2 * MIB + 2 * P:
            assert buffer.read_at(P + 5, nbytes) == data.tobytes()


@pytest.mark.parametrize("shift", range(0, 130, 13))
@pytest.mark.parametrize("nbytes", [2047, 2048, 5000, 70_001, 600_000])
def test_copies_at_any_distance(shift, nbytes):
    """However source and target lie to each other within a page, every byte arrives."""
    room = np.zeros(nbytes + 2 * P, "u1")
    data = np.random.default_rng(shift).integers(0, 256, nbytes, "u1")
    with SparseBuffer(nbytes + 2 * P) as buffer:
        buffer.alloc(0, len(buffer))
        offset = (room.ctypes.data + shift - buffer.address) % P
        buffer.write_at(offset, data)
        for start in (shift, shift + 64):
            room[:] = 7
            target = room[start : start + nbytes]
            buffer.read_into(offset, target)
            assert np.array_equal(target, data)
            assert room[start + nbytes] == 7
            buffer.write_at(offset, target)
            assert buffer.read_at(offset, nbytes) == data.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("nbytes", [GIB - P, GIB + P])
def test_fills_around_a_gibibyte(nbytes):
    """A fill of about a gibibyte ends where it should."""
    with SparseBuffer(nbytes + 2 * P) as buffer:
        buffer.alloc(0, nbytes + 2 * P)
        buffer.fill_at(P - 1, 0xEE, nbytes)
        assert buffer.read_at(P - 2, 2) == b"\0\xee"
        assert buffer.read_at(P - 1 + nbytes - 1, 2) == b"\xee\0"
        words = buffer.window(P, nbytes // 8 - 1, "u8")
        assert words.min() == words.max() == 0xEEEEEEEEEEEEEEEE
        del words


# ------------------------------------------------------------------------------ refusals

READS = {
    "read_at": lambda b, offset, n: b.read_at(offset, n),
    "read_into": lambda b, offset, n: b.read_into(offset, bytearray(n)),
    "read_plain": lambda b, offset, n: b.read_plain(offset, f"S{n}"),
    "read_plain of an array": lambda b, offset, n: b.read_plain(offset, "u1", n),
    "gather": lambda b, offset, n: b.gather([offset], f"S{n}"),
}
WRITES = {
    "write_at": lambda b, offset, n: b.write_at(offset, bytes(n)),
    "fill_at": lambda b, offset, n: b.fill_at(offset, 0, n),
    "write_plain": lambda b, offset, n: b.write_plain(offset, np.zeros((), f"S{n}")),
    "write_plain of an array": lambda b, offset, n: b.write_plain(offset, np.zeros(n, "u1")),
    "scatter": lambda b, offset, n: b.scatter([offset], np.zeros(1, f"S{n}")),
}
COPIES = READS | WRITES


def operation(name: str) -> str:
    """Return the direction of a call."""
    return "read" if name in READS else "write"


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize(
    ("offset", "nbytes", "bad"),
    [
        (0, 1, 0),
        (17, 4, 17),
        (P - 1, 1, P - 1),
        (P - 1, 2, P - 1),
        (2 * P - 4, 4, None),
        (2 * P - 3, 4, 2 * P),
        (P, 7 * P, 2 * P),
        (2 * P, 1, 2 * P),
        (6 * P - 1, 2, 6 * P),
        (6 * P + 5, 3, 6 * P + 5),
    ],
)
def test_holes_are_refused(name, offset, nbytes, bad, pattern):
    """An access to a hole tells the first bad byte, and has done nothing."""
    data = pattern(3 * P)
    with SparseBuffer(8 * P) as buffer:
        buffer.alloc(P, P)
        buffer.alloc(4 * P, 2 * P)
        buffer.write_at(P, data[:P])
        buffer.write_at(4 * P, data[P:])
        if bad is None:
            COPIES[name](buffer, offset, nbytes)
            return
        with pytest.raises(AccessError) as caught:
            COPIES[name](buffer, offset, nbytes)
        error = caught.value
        assert (error.reason, error.operation) == ("unmapped", operation(name))
        assert (error.offset, error.transferred, error.filename) == (bad, 0, None)
        assert f"{bad:#x} ({bad})" in str(error)
        assert f"{offset:#x} ({offset})" in str(error)
        assert buffer.read_at(P, P) + buffer.read_at(4 * P, 2 * P) == data


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("kind", ["zero", "private", "file"])
def test_read_only_is_refused(name, kind, make_file):
    """A write that reaches a read-only region tells the first bad byte, and wrote nothing."""
    path, data = make_file(2 * P)
    with SparseBuffer(8 * P) as buffer:
        buffer.alloc(0, 8 * P)
        buffer.fill_at(0, 0x11, 8 * P)
        if kind == "zero":
            buffer.map_zero(2 * P, 2 * P)
        elif kind == "file":
            buffer.map_file(2 * P, 2 * P, path)
        else:
            buffer.set_writable(2 * P, 2 * P, False)
        before = buffer.read_at(0, 8 * P)
        for offset, nbytes, bad in [
            (0, 3 * P, 2 * P),
            (2 * P - 1, 2, 2 * P),
            (3 * P, 8, 3 * P),
            (4 * P - 1, 9, 4 * P - 1),
        ]:
            with pytest.raises(AccessError) as caught:
                WRITES[name](buffer, offset, nbytes)
            error = caught.value
            assert (error.reason, error.operation) == ("read-only", "write")
            assert (error.offset, error.transferred) == (bad, 0)
            assert error.filename == (str(path) if kind == "file" else None)
            assert buffer.read_at(0, 8 * P) == before
        assert path.read_bytes() == data


@pytest.mark.parametrize("name", ["fill_at", "write_at"])
def test_refused_write_touches_nothing(name, resident):
    """The whole range is checked before the first byte: a long refused write takes no memory."""
    with SparseBuffer(GIB) as buffer:
        buffer.alloc(2 * MIB, 200 * MIB)
        before = resident(buffer)
        with pytest.raises(AccessError) as caught:
            if name == "fill_at":
                buffer.fill_at(2 * MIB, 1, 200 * MIB + 1)
            else:
                buffer.write_at(2 * MIB, np.zeros(200 * MIB + 1, "u1"))
        assert (caught.value.offset, caught.value.transferred) == (202 * MIB, 0)
        assert resident(buffer) == before


def test_refused_read_leaves_the_target():
    """A refused read has not touched the caller's memory."""
    with SparseBuffer(4 * P) as buffer:
        buffer.alloc(0, P)
        out = bytearray(b"x" * 2 * P)
        with pytest.raises(AccessError):
            buffer.read_into(0, out)
        assert out == b"x" * 2 * P


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize(
    ("offset", "nbytes"),
    [
        (4 * P, 1), (4 * P - 1, 2), (0, 4 * P + 1), (5 * P, 1), (1 << 40, 8), ((1 << 63) - 1, 8),
        (1 << 63, 8), ((1 << 64) - 4, 8), (1 << 64, 1), (1 << 100, 1),
    ],
)  # fmt: skip
def test_past_the_end(name, offset, nbytes):
    """A range past the end is an OutOfBoundsError, and an IndexError, with the length in it."""
    with SparseBuffer(4 * P) as buffer:
        buffer.alloc(0, 4 * P)
        with pytest.raises(OutOfBoundsError, match=rf"{4 * P:#x} \({4 * P}\)") as caught:
            COPIES[name](buffer, offset, nbytes)
        assert isinstance(caught.value, IndexError)
        assert f"{offset:#x} ({offset})" in str(caught.value)


@pytest.mark.parametrize("offset", [4 * P + 1, 5 * P, 1 << 63, 1 << 64])
def test_no_bytes_past_the_end(offset):
    """Past the end not even nothing can be moved."""
    with SparseBuffer(4 * P) as buffer:
        for name in ("read_at", "read_into", "write_at", "fill_at", "write_plain of an array"):
            with pytest.raises(OutOfBoundsError):
                COPIES[name](buffer, offset, 0)


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("offset", [-1, -P, -8, -(1 << 63), -(1 << 63) - 1, -(1 << 100)])
def test_negative_offsets(name, offset):
    """A negative offset is a ValueError, not the other end of the buffer."""
    with SparseBuffer(4 * P) as buffer:
        buffer.alloc(0, 4 * P)
        with pytest.raises(ValueError, match="negative|-") as caught:
            COPIES[name](buffer, offset, 8)
        assert not isinstance(caught.value, IndexError)


@pytest.mark.parametrize("nbytes", [-1, -(1 << 63), -(1 << 70)])
def test_negative_lengths(nbytes):
    """A negative length is a ValueError."""
    with SparseBuffer(4 * P) as buffer:
        buffer.alloc(0, 4 * P)
        with pytest.raises(ValueError, match="negative"):
            buffer.read_at(0, nbytes)
        with pytest.raises(ValueError, match="negative"):
            buffer.fill_at(0, 0, nbytes)
        with pytest.raises(ValueError, match="negative"):
            buffer.read_plain(0, "u1", nbytes)


@pytest.mark.parametrize("nbytes", [1 << 50, 1 << 62, 1 << 63, 1 << 64, 1 << 90])
def test_lengths_beyond_memory(nbytes):
    """A slip in the length is an error at once, and takes no memory."""
    with SparseBuffer(4 * P) as buffer:
        buffer.alloc(0, 4 * P)
        with pytest.raises(OutOfBoundsError):
            buffer.read_at(0, nbytes)
        with pytest.raises(OutOfBoundsError):
            buffer.fill_at(0, 0, nbytes)
        with pytest.raises(OutOfBoundsError):
            buffer.read_plain(0, "u1", nbytes)


@pytest.mark.parametrize("offset", [0, 1, P, 4 * P - 1, 4 * P])
def test_no_bytes_at_any_place(offset):
    """Moving no bytes is fine anywhere in the buffer, over holes and at the end too."""
    with SparseBuffer(4 * P) as buffer:
        buffer.map_zero(P, P)
        assert buffer.read_at(offset, 0) == b""
        buffer.read_into(offset, bytearray())
        buffer.write_at(offset, b"")
        buffer.fill_at(offset, 1, 0)
        assert buffer.read_plain(offset, "u4", 0).shape == (0,)
        assert buffer.read_plain(offset, "u4", (3, 0)).shape == (3, 0)
        buffer.write_plain(offset, np.zeros((0, 2)))


@pytest.mark.parametrize("bad", [1.0, "0", None, b"bytes", [0]])
def test_offsets_are_ints(bad):
    """Offsets and lengths that are no integers are TypeErrors."""
    with SparseBuffer(P) as buffer:
        buffer.alloc(0, P)
        for name in ("read_at", "read_into", "write_at", "fill_at", "read_plain", "write_plain"):
            with pytest.raises(TypeError):
                COPIES[name](buffer, bad, 8)
        with pytest.raises(TypeError):
            buffer.read_at(0, bad)
        with pytest.raises(TypeError):
            buffer.fill_at(0, 0, bad)


# ------------------------------------------------------------------------------ truncated files

SIZE = 4 * P
CUTS = [0, 1, 100, P - 1, P, P + 1, 2 * P, 2 * P + 77, 3 * P, 3 * P + 5, SIZE - 1]
RANGES = [
    (0, SIZE),
    (0, 1),
    (P, P),
    (P - 3, 6),
    (2 * P + 50, 60),
    (3 * P, P),
    (SIZE - 1, 1),
    (10, 3 * P),
]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("mode", ["read", "cow", "shared"])
def test_reads_of_a_file_cut_short(cut, mode, make_file):
    """A read of what a file has lost tells the first bad byte, and how many were read before it."""
    path, data = make_file(SIZE)
    with SparseBuffer(8 * P) as buffer:
        buffer.alloc(0, 2 * P)
        buffer.fill_at(0, 0x55, 2 * P)
        options = {"copy_on_write": mode == "cow", "writable": mode == "shared"}
        buffer.map_file(2 * P, SIZE, path, **options)
        whole = b"\x55" * 2 * P + data
        os.truncate(path, cut)
        end = 2 * P + cut
        for start, nbytes in [(2 * P + a, n) for a, n in RANGES] + [(P, 3 * P), (5, 2 * P)]:
            good = min(max(end - start, 0), nbytes)
            out = bytearray(b"?" * nbytes)
            if good == nbytes:
                assert buffer.read_at(start, nbytes) == whole[start : start + nbytes]
                buffer.read_into(start, out)
                assert out == whole[start : start + nbytes]
                continue
            with pytest.raises(AccessError) as caught:
                buffer.read_into(start, out)
            error = caught.value
            assert (error.reason, error.operation) == ("file-truncated", "read")
            assert (error.offset, error.transferred) == (start + good, good)
            assert error.filename == str(path)
            assert f"{start + good:#x} ({start + good})" in str(error)
            assert out[:good] == whole[start : start + good]
            for name, read in READS.items():
                with pytest.raises(AccessError) as caught:
                    read(buffer, start, nbytes)
                error = caught.value
                assert (error.reason, error.operation) == ("file-truncated", "read"), name
                assert (error.offset, error.filename) == (start + good, str(path)), name
                assert error.transferred == (0 if name == "gather" else good), name


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", WRITES)
def test_writes_to_a_file_cut_short(cut, name, make_file):
    """A write to what a file has lost tells the first bad byte; what came before it is written."""
    path, data = make_file(SIZE)
    with SparseBuffer(8 * P) as buffer:
        buffer.alloc(0, 2 * P)
        buffer.map_file(2 * P, SIZE, path, writable=True)
        end = 2 * P + cut
        for start, nbytes in [(2 * P + a, n) for a, n in RANGES] + [(P, 3 * P)]:
            path.write_bytes(b"")  # the same inode
            path.write_bytes(data)
            buffer.fill_at(0, 0x55, 2 * P)
            os.truncate(path, cut)
            good = min(max(end - start, 0), nbytes)
            expected = bytearray(b"\x55" * 2 * P + data[:cut])
            expected[start : start + good] = bytes(good)
            if good == nbytes:
                WRITES[name](buffer, start, nbytes)
            else:
                with pytest.raises(AccessError) as caught:
                    WRITES[name](buffer, start, nbytes)
                error = caught.value
                assert (error.reason, error.operation) == ("file-truncated", "write")
                assert (error.offset, error.transferred) == (start + good, good)
                assert error.filename == str(path)
            assert buffer.read_at(0, 2 * P) + path.read_bytes() == expected


@pytest.mark.parametrize("cut", [0, 1, P, P + 1, 3 * P, SIZE - 1])
def test_atomics_on_a_file_cut_short(cut, make_file):
    """An atomic operation on what a file has lost tells its byte; others work."""
    path, data = make_file(SIZE)
    with SparseBuffer(SIZE + P) as buffer:
        buffer.map_file(P, SIZE, path, writable=True)
        items = buffer.atomic_slice(P, SIZE // 4, "u4")
        os.truncate(path, cut)
        for i in {0, P // 4 - 1, P // 4, P // 4 + 1, 3 * P // 4, SIZE // 4 - 1}:
            if 4 * i + 4 <= cut:
                old = int.from_bytes(data[4 * i : 4 * i + 4], "little")
                assert items.load(i) == old
                assert items.fetch_add(i, 1) == old
                continue
            calls = {
                "load": lambda i=i: items.load(i),
                "store": lambda i=i: items.store(i, 1),
                "exchange": lambda i=i: items.exchange(i, 1),
                "compare_exchange": lambda i=i: items.compare_exchange(i, 0, 1),
                "fetch_add": lambda i=i: items.fetch_add(i, 1),
                "fetch_sub": lambda i=i: items.fetch_sub(i, 1),
                "fetch_and": lambda i=i: items.fetch_and(i, 1),
                "fetch_or": lambda i=i: items.fetch_or(i, 1),
                "fetch_xor": lambda i=i: items.fetch_xor(i, 1),
            }
            for name, call in calls.items():
                with pytest.raises(AccessError) as caught:
                    call()
                error = caught.value
                assert error.reason == "file-truncated", name
                assert error.operation == ("read" if name == "load" else "write"), name
                bad = P + 4 * i
                assert error.offset in {bad, max(bad, P + cut)}, name
                assert (error.transferred, error.filename) == (0, str(path)), name


def test_gather_names_the_first_bad_record(make_file):
    """A gather over a file cut short tells the first record that is lost, in the order asked for."""
    path, data = make_file(SIZE)
    with SparseBuffer(SIZE) as buffer:
        buffer.map_file(0, SIZE, path)
        os.truncate(path, 2 * P + 10)
        good = [0, P - 4, 2 * P, 2 * P + 2]
        expected = [int.from_bytes(data[at : at + 8], "little") for at in good]
        assert buffer.gather(good, "<u8").tolist() == expected
        with pytest.raises(AccessError) as caught:
            buffer.gather([*good, 3 * P + 8, 2 * P + 6, 3 * P], "<u8")
        assert caught.value.offset == 3 * P + 8
        with pytest.raises(AccessError) as caught:
            buffer.gather([*good, 2 * P + 6, 3 * P], "<u8")
        assert caught.value.offset == 2 * P + 10


def test_scatter_tells_how_far_it_came(make_file):
    """A scatter to a file cut short has written the records before the first that is lost."""
    path, data = make_file(SIZE)
    with SparseBuffer(SIZE) as buffer:
        buffer.map_file(0, SIZE, path, writable=True)
        os.truncate(path, 2 * P)
        with pytest.raises(AccessError) as caught:
            buffer.scatter([8, P, 16, 3 * P, 24], np.arange(1, 6, dtype="<u8"))
        assert caught.value.offset == 3 * P
        assert caught.value.transferred == 24
        expected = bytearray(data[: 2 * P])
        for at, value in [(8, 1), (P, 2), (16, 3)]:
            expected[at : at + 8] = value.to_bytes(8, "little")
        assert path.read_bytes() == expected


def test_long_copies_tell_how_far_they_came(tmp_path):
    """A copy of several pieces that meets the end of a file tells all the bytes done."""
    path, size, cut = tmp_path / "long", 160 * MIB, 150 * MIB + 5
    path.touch()
    os.truncate(path, size)
    with SparseBuffer(size + P) as buffer:
        buffer.map_file(P, size, path, writable=True)
        os.truncate(path, cut)
        out = np.ones(size, "u1")
        with pytest.raises(AccessError) as caught:
            buffer.read_into(P, out)
        assert (caught.value.offset, caught.value.transferred) == (P + cut, cut)
        assert not out[:cut].any()
        del out
        with pytest.raises(AccessError) as caught:
            buffer.fill_at(P, 0, size)
        assert (caught.value.offset, caught.value.transferred) == (P + cut, cut)


def test_file_that_grows_back(make_file):
    """After a file has got its length back, reads work again and see its new bytes."""
    path, data = make_file(SIZE)
    with SparseBuffer(SIZE) as buffer:
        buffer.map_file(0, SIZE, path)
        os.truncate(path, P)
        with pytest.raises(AccessError):
            buffer.read_at(2 * P, 1)
        path.write_bytes(data)
        assert buffer.read_at(0, SIZE) == data


def test_sealed_memory_cannot_be_cut():
    """Shared memory that is sealed against shrinking is read without a look at its size."""
    from sparsearray import shared_memory

    with shared_memory(4 * P) as memory, SparseBuffer(4 * P) as buffer:
        buffer.map_file(0, 4 * P, memory, writable=True)
        with pytest.raises(PermissionError):
            os.truncate(memory.fileno(), P)
        os.truncate(memory.fileno(), 8 * P)
        buffer.write_at(4 * P - 4, b"last")
        assert buffer.read_at(4 * P - 4, 4) == b"last"


def test_remapping_ends_the_trouble(make_file):
    """A range whose file is lost works again once something else is mapped there."""
    path, _ = make_file(SIZE)
    with SparseBuffer(SIZE) as buffer:
        buffer.map_file(0, SIZE, path)
        os.truncate(path, 0)
        buffer.alloc(P, P)
        assert buffer.read_at(P, P) == bytes(P)
        assert buffer.regions == (
            Region(0, P, "file", False, str(path), 0),
            Region(P, P, "private", True, None, None),
            Region(2 * P, 2 * P, "file", False, str(path), 2 * P),
        )


def test_procfs_files_have_no_pages():
    """A file of /proc that says it is empty has no page to map."""
    with SparseBuffer(P) as buffer, pytest.raises(ValueError, match="past the end"):
        buffer.map_file(0, P, Path("/proc/self/status"))
