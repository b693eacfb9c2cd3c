"""
Every fault of a file, met by every way to its bytes, from every kind of thread.

Each cell is a process of its own: it ends well, with the exception or the damage that is due, and
with the bytes that are due.
"""

import mmap
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from .script_places import CODE, WHERE

P = mmap.PAGESIZE

# A file of 8 pages, each byte of page i being i + 1, at page 2 of a buffer. `strike()` is what somebody
# else does to it; from byte `BAD` of the file on it is gone, and `REASON` is why.
PRELUDE = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of fork with threads
DATA = b"".join(bytes([i + 1]) * P for i in range(8))
START = 2 * P

def make(path=None, writable=True):
    buffer = SparseBuffer(16 * P)
    buffer.map_file(START, 8 * P, path or PATH, writable=writable)
    return buffer
"""

FAULTS = {
    "truncated": """
        BAD, REASON = 3 * P, "file-truncated"
        strike = lambda: os.truncate(PATH, BAD)
    """,
    "truncated inside a page": """
        BAD, REASON = 3 * P + 100, "file-truncated"
        strike = lambda: os.truncate(PATH, BAD)
    """,
    "truncated to nothing": """
        BAD, REASON = 0, "file-truncated"
        strike = lambda: os.truncate(PATH, BAD)
    """,
}


def script(fault: str, where: str, path: object, body: str) -> str:
    """Put a script together."""
    head = f"{CODE}\nPATH, WHERE = {str(path)!r}, RUN[{where!r}]\n{PRELUDE}\n{dedent(fault)}"
    return head + dedent(body)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Make the file."""
    made = tmp_path / "data"
    made.write_bytes(b"".join(bytes([i + 1]) * P for i in range(8)))
    return made


# Guarded calls

GUARDED = """
def expect(call, operation, first, done):
    try:
        call()
    except AccessError as error:
        found = error.reason, error.operation, error.offset, error.transferred, error.filename
        assert found == (REASON, operation, START + first, done, PATH), (found, first, done)
    else:
        raise AssertionError("no error")

def check(buffer):
    last = 8 * P - 8
    first = max(BAD, last)
    expect(lambda: buffer.read_at(START, 8 * P), "read", BAD, BAD)
    out = bytearray(8 * P)
    expect(lambda: buffer.read_into(START, out), "read", BAD, BAD)
    assert out[:BAD] == DATA[:BAD]
    expect(lambda: buffer.read_plain(START + last, "u8"), "read", last, 0)
    expect(lambda: buffer.read_plain(START, "u1", 8 * P), "read", BAD, BAD)
    expect(lambda: buffer.gather([START + last], "u8"), "read", last, 0)
    expect(lambda: buffer.atomic_slice(START, P, "u8").load(last // 8), "read", last, 0)
    expect(lambda: buffer.write_at(START, DATA), "write", BAD, BAD)
    expect(lambda: buffer.write_at(START + last, b"12345678"), "write", last, 0)
    expect(lambda: buffer.fill_at(START + last, 1, 8), "write", last, 0)
    expect(lambda: buffer.write_plain(START + last, np.uint64(1)), "write", last, 0)
    expect(lambda: buffer.scatter([START + last], np.uint64(1)), "write", last, 0)
    expect(lambda: buffer.atomic_slice(START, P, "u8").store(last // 8, 1), "write", last, 0)
    assert buffer.read_at(START, BAD) == DATA[:BAD]
    page = -(-BAD // P) * P
    expect(lambda: buffer.commit(START, 8 * P), "write", page, page)
"""


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("after", ["nothing", "a window saw it"])
def test_guarded_calls(
    fault: str, where: str, after: str, path: Path, run_ok: Callable[..., str]
) -> None:
    """Each says which byte is the first bad one, and what was done before it; a window changes nothing."""
    run_ok(
        script(
            FAULTS[fault],
            where,
            path,
            GUARDED
            + f"""
buffer = make()
strike()
if {after != "nothing"}:
    assert int(buffer[START : START + 8 * P].sum()) == sum(DATA[:BAD])
WHERE(lambda: check(buffer))
with open(PATH, "rb") as file:
    assert file.read() == DATA[:BAD]
""",
        )
    )


# Windows

READS = {
    "whole": "window.sum()",
    "backwards": "window[::-1].sum()",
    "strided": "window[:: P // 2].sum() * (P // 2)",
    "copied": "window.copy().sum()",
    "in another type": "int(window.view('u8').view('u1').sum())",
    "by index": "window[np.random.default_rng(1).permutation(8 * P)].sum()",
    "as bytes": "sum(memoryview(window).tobytes())",
    "by two": "np.add(window, window[::-1], dtype='i8').sum() // 2",
}


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("fault", FAULTS)
def test_numpy_reads_on(fault: str, where: str, path: Path, run_ok: Callable[..., str]) -> None:
    """What is lost reads as zeros; the buffer tells what it was, and mapping anew clears it."""
    run_ok(
        script(
            FAULTS[fault],
            where,
            path,
            f"""
            def work(read):
                with open(PATH, "wb") as file:
                    file.write(DATA)
                buffer = make(writable=False)
                window = buffer[START : START + 8 * P]
                strike()
                found = eval(read, dict(window=window, np=np, P=P))
                kept = bytes(DATA[:BAD]) + bytes(8 * P - BAD)
                expected = int(np.frombuffer(kept, "u1").sum())
                if "//" not in read or BAD % P == 0:
                    assert found == expected, (read, found, expected)
                damage = Damage(START + BAD, 8 * P - BAD, REASON, PATH, False)
                assert buffer.damage == (damage,), (buffer.damage, damage)
                for call in (buffer.flush, lambda: buffer.read_at(START, 8 * P)):
                    error = failure(call)
                    assert (error.reason, error.offset) == (REASON, START + BAD), error
                assert buffer.damage == (damage,)
                del window
                buffer.alloc(START, 8 * P)
                assert buffer.damage == ()
                buffer.flush()
                assert buffer.read_at(START, 8 * P) == bytes(8 * P)
                buffer.close()

            for read in {list(READS.values())!r}:
                WHERE(lambda: work(read))
            """,
        )
    )


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("fault", FAULTS)
def test_numpy_writes_on(fault: str, where: str, path: Path, run_ok: Callable[..., str]) -> None:
    """What is written to what is lost stays in memory; the file is as short as somebody made it."""
    run_ok(
        script(
            FAULTS[fault],
            where,
            path,
            """
            def work(index, other):
                with open(PATH, "wb") as file:
                    file.write(DATA)
                buffer = make()
                window = buffer[START : START + 8 * P]
                strike()
                window[index] += 1
                window[index] -= 1
                window[index] = other
                expected = np.frombuffer(DATA[:BAD] + bytes(8 * P - BAD), "u1").copy()
                expected[index] = other
                page = -(-BAD // P) * P
                assert (window[:BAD] == expected[:BAD]).all()
                assert (window[page:] == expected[page:]).all()
                assert buffer.damage[-1].reason == REASON
                with open(PATH, "rb") as file:
                    assert file.read() == expected[:BAD].tobytes()
                buffer.save_to(PATH + ".saved")
                saved = np.fromfile(PATH + ".saved", "u1")
                assert len(saved) == buffer.nbytes
                assert (saved[START : START + BAD] == expected[:BAD]).all()
                assert (saved[START + page : START + 8 * P] == expected[page:]).all()

            for index in (slice(None), slice(None, None, -1), slice(None, None, P - 1)):
                for other in (9, 0):
                    WHERE(lambda: work(index, other))
            """,
        )
    )


@pytest.mark.parametrize("where", WHERE)
def test_a_copy_on_write_window_reads_on(
    where: str, path: Path, run_ok: Callable[..., str]
) -> None:
    """The kernel takes its own pages past the new end away, too; that is damage as any other."""
    run_ok(
        script(
            FAULTS["truncated"],
            where,
            path,
            """
            def work():
                buffer = SparseBuffer(16 * P)
                buffer.map_file(START, 8 * P, PATH, copy_on_write=True)
                window = buffer[START : START + 8 * P]
                window[::P] = 200
                strike()
                assert window[::P].tolist() == [200] * 3 + [0] * 5
                window[-1] = 7
                assert window[-1] == 7
                assert [(one.offset, one.reason) for one in buffer.damage] == [(START + BAD, REASON)]

            WHERE(work)
            """,
        )
    )


# Disks that cannot read


@pytest.mark.parametrize("where", WHERE)
def test_windows_of_a_disk_that_cannot_read(
    where: str, misbehaving: Any, run_ok: Callable[..., str]
) -> None:
    """The page is zeros, those around it are read; guarded calls say what it was."""
    run_ok(
        script(
            "",
            where,
            misbehaving.folder / "broken",
            """
            DATA = b"".join(bytes([i + 1]) * P for i in range(8))

            def work(read):
                buffer = make(writable=False)
                window = buffer[START : START + 8 * P]
                found = eval(read, dict(window=window, np=np, P=P))
                assert found == sum(DATA) - 6 * P, (read, found)
                damage = Damage(START + 5 * P, P, "io-error", PATH, False)
                assert buffer.damage == (damage,), buffer.damage
                error = failure(buffer.read_at, START, 8 * P)
                assert (error.reason, error.offset, error.transferred) == (
                    "io-error", START + 5 * P, 5 * P
                ), error
                assert failure(buffer.flush).reason == "io-error"
                assert failure(buffer.gather, [START + 5 * P], "u4").reason == "io-error"
                assert failure(buffer.atomic_slice(START, 8 * P).load, 5 * P).reason == "io-error"
                assert buffer.read_at(START + 6 * P, 2 * P) == DATA[6 * P :]

            for read in ("window.sum()", "window[::-1].sum()", "sum(memoryview(window).tobytes())"):
                WHERE(lambda: work(read))
            """,
        )
    )


@pytest.fixture
def shortened_disk(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """Mount an ext4 in an image: its folder, and the image, which can be cut short."""
    image, folder = tmp_path / "image", tmp_path / "mounted"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    for command in (["mkfs.ext4", "-q", "-F", image], ["mount", "-o", "loop", image, folder]):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            pytest.skip(f"no {error.filename} here")
        if done.returncode:
            pytest.skip(f"no ext4 in a file here: {done.stderr.strip()}")
    yield folder, image
    subprocess.run(["umount", "-l", folder], check=False)  # noqa: S607


@pytest.mark.parametrize("where", WHERE)
def test_windows_of_a_disk_that_went_away(
    where: str, shortened_disk: tuple[Path, Path], run_ok: Callable[..., str]
) -> None:
    """ext4 on a device that lost its end: guarded calls raise, windows go on over zeros."""
    folder, image = shortened_disk
    size = 16 << 20
    data = folder / "data"
    data.write_bytes(b"\7" * size)
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")
    os.truncate(image, 1 << 20)
    run_ok(
        script(
            "",
            where,
            data,
            f"""
            def work():
                buffer = SparseBuffer({size})
                buffer.map_file(0, {size}, PATH)
                window = buffer[:]
                total = int(window.sum())
                lost = sum(one.nbytes for one in buffer.damage)
                assert lost > {size} // 2, lost
                assert total == 7 * ({size} - lost), (total, lost)
                assert {{one.reason for one in buffer.damage}} == {{"io-error"}}
                error = failure(buffer.read_at, 0, {size})
                assert (error.reason, error.offset) == ("io-error", buffer.damage[0].offset)

            error = failure(make(writable=False).read_at, START, 8 * P)
            assert error.reason == "io-error", error
            WHERE(work)
            """,
        )
    )


# Full disks

FULL = """
SIZE = 64 * P
with open(PATH, "wb") as file:
    file.truncate(SIZE)
PATTERN = np.arange(SIZE, dtype="u4").view("u1")[:SIZE] | 1

def more_room(pages):
    import subprocess
    folder = os.path.dirname(PATH)
    subprocess.run(["mount", "-o", f"remount,size={pages * P}", folder], check=True)
"""


@pytest.mark.usefixtures("told_room")
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize(
    "index", ["slice(None)", "slice(None, None, -1)", "slice(None, None, 999)"]
)
def test_windows_of_a_full_disk(
    where: str, index: str, small_disk: Path, run_ok: Callable[..., str]
) -> None:
    """What is written is kept, told, saved elsewhere, and moves into the file when there is room."""
    run_ok(
        script(
            FULL,
            where,
            small_disk / "data",
            f"""
            def work():
                buffer = SparseBuffer(SIZE)
                buffer.map_file(0, SIZE, PATH, writable=True)
                window = buffer[:]
                expected = np.zeros(SIZE, "u1")
                expected[{index}] = PATTERN[{index}]
                window[{index}] = PATTERN[{index}]
                assert (window == expected).all()
                damage = buffer.damage
                assert damage
                assert {{(one.reason, one.file, one.kept) for one in damage}} == {{("no-space", PATH, True)}}
                for _ in range(2):
                    error = failure(buffer.flush)
                    assert (error.reason, error.errno) == ("no-space", errno.ENOSPC), error
                first = damage[0].offset
                error = failure(buffer.read_at, 0, SIZE)
                assert (error.reason, error.operation, error.transferred) == ("no-space", "read", first)
                assert failure(buffer.write_at, first, b"x").operation == "write"
                buffer.save_to("saved")
                assert (np.fromfile("saved", "u1") == expected).all()
                assert (window == expected).all()
                window[first] = 77
                expected[first] = 77
                more_room(200)
                buffer.flush()
                assert buffer.damage == ()
                assert (np.fromfile(PATH, "u1") == expected).all()
                assert (window == expected).all()
                window[first + 1] = 78
                assert np.fromfile(PATH, "u1")[first + 1] == 78  # it is the file again
                del window
                buffer.close()

            WHERE(work)
            """,
        )
    )


@pytest.mark.usefixtures("told_room")
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("after", ["nothing", "a window saw it"])
def test_guarded_calls_on_a_full_disk(
    where: str, after: str, small_disk: Path, run_ok: Callable[..., str]
) -> None:
    """Each that writes says which byte has no room, and what was done before it."""
    run_ok(
        script(
            FULL,
            where,
            small_disk / "data",
            f"""
            def work():
                buffer = SparseBuffer(SIZE)
                buffer.map_file(0, SIZE, PATH, writable=True)
                error = failure(buffer.write_at, 0, PATTERN)
                first = error.offset
                assert error.transferred == first and first % P == 0 and 8 * P <= first <= 16 * P
                assert (np.fromfile(PATH, "u1")[:first] == PATTERN[:first]).all()
                bad = 40 * P
                if {after != "nothing"}:
                    buffer[bad : bad + 8][:] = 1
                for call, start, done in [
                    (lambda: buffer.write_at(bad, b"12345678"), bad, 0),
                    (lambda: buffer.fill_at(bad, 1, 8), bad, 0),
                    (lambda: buffer.write_plain(bad, np.uint64(1)), bad, 0),
                    (lambda: buffer.scatter([0, bad], np.array([1, 2], "u8")), bad, 8),
                    (lambda: buffer.atomic_slice(bad, 8, "u8").store(0, 1), bad, 0),
                    (lambda: buffer.atomic_slice(bad, 8, "u8").fetch_add(0, 1), bad, 0),
                    (lambda: buffer.commit(bad, P), bad, 0),
                ]:
                    error = failure(call)
                    found = error.reason, error.operation, error.offset, error.transferred
                    assert found == ("no-space", "write", start, done), found
                    assert error.filename == PATH
                assert (np.fromfile(PATH, "u1")[8:first] == PATTERN[8:first]).all()
                if {after != "nothing"}:
                    assert buffer.damage

            WHERE(work)
            """,
        )
    )


@pytest.mark.usefixtures("told_room")
def test_reading_on_a_full_disk_is_no_damage(small_disk: Path, run_ok: Callable[..., str]) -> None:
    """Tmpfs has no room for the zeros of a hole that is looked at: they are zeros all the same."""
    run_ok(
        script(
            FULL,
            "main",
            small_disk / "data",
            """
            buffer = SparseBuffer(SIZE)
            buffer.map_file(0, SIZE, PATH, writable=True)
            failure(buffer.fill_at, 0, 1, SIZE)
            window = buffer[:]
            assert window.sum() in range(8 * P, 16 * P + 1)
            assert buffer.damage == ()
            buffer.flush()
            """,
        )
    )


@pytest.mark.usefixtures("told_room")
def test_room_for_a_part(small_disk: Path, run_ok: Callable[..., str]) -> None:
    """What there is room for moves into the file; the rest stays, and the next flush goes on."""
    run_ok(
        script(
            FULL,
            "main",
            small_disk / "data",
            """
            buffer = SparseBuffer(SIZE)
            buffer.map_file(0, SIZE, PATH, writable=True)
            window = buffer[:]
            window[:] = PATTERN
            for pages in (24, 40, 60):
                before = sum(one.nbytes for one in buffer.damage)
                more_room(pages)
                assert failure(buffer.flush).reason == "no-space"
                assert sum(one.nbytes for one in buffer.damage) <= before
                assert (window == PATTERN).all()
            more_room(80)
            buffer.flush()
            assert (np.fromfile(PATH, "u1") == PATTERN).all()
            """,
        )
    )


@pytest.mark.usefixtures("told_room")
def test_two_files_side_by_side(small_disk: Path, run_ok: Callable[..., str]) -> None:
    """What is kept of neighbours goes to each one's file, also where one is read-only by then."""
    run_ok(
        script(
            FULL,
            "main",
            small_disk / "data",
            """
            with open(PATH + ".2", "wb") as file:
                file.truncate(SIZE)
            buffer = SparseBuffer(2 * SIZE)
            buffer.map_file(0, SIZE, PATH, writable=True)
            buffer.map_file(SIZE, SIZE, PATH + ".2", writable=True)
            window = buffer[:]
            expected = np.concatenate([PATTERN, PATTERN[::-1]])
            window[:] = expected
            assert {one.file for one in buffer.damage} == {PATH, PATH + ".2"}
            del window
            buffer.set_writable(SIZE + 8 * P, 4 * P, False)
            assert (buffer[:] == expected).all()
            more_room(300)
            buffer.flush()
            assert buffer.damage == ()
            assert (buffer[:] == expected).all()
            assert (np.fromfile(PATH, "u1") == expected[:SIZE]).all()
            assert (np.fromfile(PATH + ".2", "u1") == expected[SIZE:]).all()
            assert failure(buffer.write_at, SIZE + 9 * P, b"x").reason == "read-only"
            """,
        )
    )


# Disks that take what is written, and lose it


@pytest.mark.parametrize("where", WHERE)
def test_writeback_errors(where: str, misbehaving: Any, run_ok: Callable[..., str]) -> None:
    """`flush` keeps saying it, until what memory holds was saved elsewhere."""
    run_ok(
        script(
            "",
            where,
            misbehaving.folder / "full",
            """
            def work():
                buffer = make()
                window = buffer[START : START + 8 * P]
                window[3 * P] = 99
                for _ in range(3):
                    error = failure(buffer.flush)
                    assert (error.errno, error.filename) == (errno.ENOSPC, PATH), error
                assert window[3 * P] == 99
                buffer.save_to("saved")
                saved = np.fromfile("saved", "u1")
                assert saved[START + 3 * P] == 99
                assert (saved[START : START + 8 * P] == window).all()
                buffer.flush()

            WHERE(work)
            """,
        )
    )


def test_the_script_can_fail(path: Path, run_python: Callable[..., Any]) -> None:
    """A wrong expectation in a child is a failure of the whole."""
    done = run_python(
        script(FAULTS["truncated"], "child", path, 'WHERE(lambda: failure(len, "fine"))')
    )
    assert done.returncode == 1
    assert "raised nothing" in done.stderr
