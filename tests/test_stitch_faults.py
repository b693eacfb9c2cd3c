"""Stitched files that are cut short, and those with holes: what is told, and what is left alone."""

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sparsearray
from sparsearray import AccessError, stitch

from .sparse_files import cached_pages
from .stitched_files import P, make_raw

Caller = Callable[..., str]

# Ten files of eight pages, page n of them all filled with n + 1; the fifth is cut to three pages.
MAKE = """
import resource

DESCRIPTORS = resource.getrlimit(resource.RLIMIT_NOFILE)

def make():
    for n in range(10):
        with open(f"{n}", "wb") as file:
            for page in range(8):
                file.write(bytes([8 * n + page + 1]) * P)
    return [f"{n}" for n in range(10)]

CUT = 5
FIRST, LAST = (8 * CUT + 3) * P, (8 * CUT + 8) * P
PATH = os.path.abspath(str(CUT))
EXPECTED = np.repeat(np.arange(1, 81, dtype="u1"), P)
EXPECTED[FIRST:LAST] = 0

def lose(how):
    fd = os.open(PATH, os.O_RDWR)
    if how == "renamed":
        os.rename(PATH, "elsewhere")
    elif how == "deleted":
        os.unlink(PATH)
    elif how == "replaced":
        with open("other", "wb") as file:
            file.write(b"\\xff" * 20 * P)
        os.replace("other", PATH)
    elif how == "no descriptors":
        resource.setrlimit(resource.RLIMIT_NOFILE, (fd + 1, DESCRIPTORS[1]))
        taken = []
        try:
            while True:
                taken.append(os.dup(fd))
        except OSError:
            pass
        os.ftruncate(fd, 3 * P)
        return taken
    os.ftruncate(fd, 3 * P)
    os.close(fd)
    return []

def ranges(damage):
    # Joined; what is lost in several steps is told of in several.
    found = []
    for one in damage:
        assert one.file == PATH, one
        if found and found[-1][1] == one.offset:
            found[-1][1] += one.nbytes
        else:
            found.append([one.offset, one.offset + one.nbytes])
    return found
"""
HOW = ["there", "renamed", "deleted", "replaced", "no descriptors"]
KNOWN = ["there", "no descriptors"]  # its name says how long it is


@pytest.mark.parametrize("how", HOW)
def test_windows_go_on(how: str, run_ok: Caller) -> None:
    """A window shows zeros where its file was cut, and all else; `damage`, flush and functions tell."""
    reason = "file-truncated" if how in KNOWN else "io-error"
    run_ok(f"""
        {MAKE.replace(chr(10), chr(10) + " " * 8)}
        for mode in ("r", "r+", "c"):
            os.mkdir(mode)
            os.chdir(mode)
            PATH = os.path.abspath(str(CUT))
            array = stitch(make(), "u1", mode=mode)
            window = array[...]
            taken = lose({how!r})
            assert window[LAST - 1] == 0
            assert np.array_equal(window, EXPECTED)
            assert ranges(array.buffer.damage) == [[FIRST, LAST]]
            assert {{one.reason for one in array.buffer.damage}} == {{{reason!r}}}
            if mode != "c":
                error = failure(array.flush)
                assert isinstance(error, AccessError) and error.filename == PATH, repr(error)
            assert isinstance(failure(array.sum), AccessError)
            if mode != "r":
                window[FIRST] = 7
                window[FIRST - 1] = 9
                assert (window[FIRST], window[FIRST - 1]) == (7, 9)
            assert np.array_equal(window[LAST:], EXPECTED[LAST:])
            for fd in taken:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, DESCRIPTORS)
            os.chdir("..")
    """)


@pytest.mark.parametrize("how", ["there", "renamed"])
def test_the_end_of_the_block_tells(how: str, run_ok: Caller) -> None:
    """If nobody was told of what is lost, the end of the ``with`` block tells."""
    run_ok(f"""
        {MAKE.replace(chr(10), chr(10) + " " * 8)}
        try:
            with stitch(make(), "u1") as array:
                lose({how!r})
                window = array[...]
                assert np.array_equal(window, EXPECTED)
                del window
        except AccessError as error:
            assert error.filename == PATH
            assert FIRST <= error.offset < LAST
        else:
            raise SystemExit("not told")
    """)


@pytest.mark.parametrize(
    "how",  # a sanitizer needs descriptors of its own, when it looks at a jump out of a handler
    [pytest.param(how, marks=pytest.mark.slow if "no descriptors" in how else ()) for how in HOW],
)
def test_guarded_calls_tell(how: str, run_ok: Caller) -> None:
    """Guarded calls say which byte of which file is the first bad one, and what they did before it."""
    reason = "file-truncated" if how in KNOWN else "io-error"
    run_ok(f"""
        {MAKE.replace(chr(10), chr(10) + " " * 8)}
        array = stitch(make(), "u1", mode="r+")
        lose({how!r})
        buffer = array.buffer
        out = bytearray(len(EXPECTED))
        error = failure(buffer.read_into, 0, out)
        assert isinstance(error, AccessError), repr(error)
        assert (error.reason, error.offset, error.transferred, error.filename) == (
            {reason!r}, FIRST, FIRST, PATH), error
        assert out[:FIRST] == EXPECTED[:FIRST].tobytes()
        error = failure(buffer.write_at, FIRST - 10, b"x" * 20)
        assert (error.operation, error.offset, error.transferred) == ("write", FIRST, 10), error
        error = failure(buffer.gather, [5, FIRST + 3, 7], "u1")
        assert (error.reason, error.offset) == ({reason!r}, FIRST + 3)
        assert buffer.read_at(LAST, 5 * P) == EXPECTED[LAST:][: 5 * P].tobytes()
    """)


def test_functions_tell(run_ok: Caller) -> None:
    """So do functions of the whole array, indices and copies, of each array that shows the file."""
    run_ok(f"""
        {MAKE.replace(chr(10), chr(10) + " " * 8)}
        for call in ("sum()", "max()", "copy()", "any()", "save('copy.npy')", "__getitem__(FIRST)",
                     "__getitem__([5, FIRST])", "__array__('f4')", "count_nonzero()"):
            array = stitch(make(), "u1")
            lose("there")
            try:
                eval("array." + call)
            except AccessError as error:
                assert error.filename == PATH, (call, error)
            else:
                raise SystemExit(call)
        assert not os.path.exists("copy.npy")
    """)


def test_cut_within_a_page(run_ok: Caller) -> None:
    """The system itself gives zeros there: the buffer looks, and tells."""
    run_ok(f"""
        {MAKE.replace(chr(10), chr(10) + " " * 8)}
        array = stitch(make(), "u1", mode="r+")
        window = array[...]
        os.truncate(PATH, 8 * P - 5)
        assert window[LAST - 6 :].tolist()[:7] == [8 * CUT + 8] + [0] * 5 + [8 * CUT + 9]
        assert [(one.offset, one.nbytes) for one in array.buffer.damage] == [(LAST - 5, 5)]
        error = failure(array.buffer.read_at, LAST - P, 2 * P)
        assert (error.offset, error.transferred) == (LAST - 5, P - 5)
        assert isinstance(failure(array.flush), AccessError)
    """)


def test_many_are_cut(run_ok: Caller) -> None:
    """Whichever files are lost, each is told of by its name, and all that is left is right."""
    run_ok(f"""
        {MAKE.replace(chr(10), chr(10) + " " * 8)}
        array = stitch(make(), "u1")
        window = array[...]
        expected = window.copy()
        for n in (0, 3, 4, 9):
            os.truncate(f"{{n}}", n % 4 * P)
            expected[(8 * n + n % 4) * P : 8 * (n + 1) * P] = 0
        os.unlink("4")
        assert np.array_equal(window, expected)
        found = {{}}
        for one in array.buffer.damage:
            name = os.path.basename(one.file)
            found[name] = found.get(name, 0) + one.nbytes
        assert found == {{"0": 8 * P, "3": 5 * P, "4": 8 * P, "9": 7 * P}}, found
    """)


@pytest.mark.parametrize("what", ["faulthandler.enable()", "signal.signal(signal.SIGBUS, signal.SIG_DFL)",
                                  "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGBUS])"])  # fmt: skip
@pytest.mark.parametrize("how", ["there", "deleted"])
def test_whoever_has_the_signal(how: str, what: str, run_ok: Caller) -> None:
    """Guarded calls need no signal, also where the file cannot be asked any more."""
    run_ok(f"""
        import faulthandler
        {MAKE.replace(chr(10), chr(10) + " " * 8)}
        array = stitch(make(), "u1")
        {what}
        lose({how!r})
        error = failure(array.buffer.read_at, 0, array.nbytes)
        assert (error.offset, error.transferred, error.filename) == (FIRST, FIRST, PATH), error
    """)


def test_threads_meet_the_same_loss(run_ok: Caller) -> None:
    """Many threads that read while files are cut and renamed see what is there, or zeros."""
    run_ok(f"""
        {MAKE.replace(chr(10), chr(10) + " " * 8)}
        for _ in range(20):
            array = stitch(make(), "u1")
            window = array[...]
            failed, start = [], threading.Barrier(4)
            full = np.repeat(np.arange(1, 81, dtype="u1"), P)
            def read(turn):
                start.wait()
                for part in np.split(np.arange(0, len(full), P), 8)[::turn]:
                    for at in part:
                        found = window[at : at + P].copy()
                        if not ((found == full[at]) | (found == 0)).all():
                            failed.append(at)
            threads = [threading.Thread(target=read, args=(turn,)) for turn in (1, -1, 1)]
            for thread in threads:
                thread.start()
            start.wait()
            os.truncate(PATH, 3 * P)
            os.rename(PATH, "elsewhere")
            os.truncate("7", P)
            for thread in threads:
                thread.join()
            assert not failed, failed
            EXPECTED[(8 * 7 + 1) * P : 8 * 8 * P] = 0
            assert np.array_equal(window, EXPECTED)
            del window
            array.buffer.damage
            array.close()
    """)


def test_a_child_meets_the_loss(run_ok: Caller) -> None:
    """A forked child survives it as well, and tells its own parent nothing."""
    run_ok(f"""
        {MAKE.replace(chr(10), chr(10) + " " * 8)}
        array = stitch(make(), "u1")
        window = array[...]
        lose("renamed")
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                assert np.array_equal(window, EXPECTED)
                assert ranges(array.buffer.damage) == [[FIRST, LAST]]
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        assert array.buffer.damage == ()
        assert np.array_equal(window, EXPECTED)
    """)


def test_loss_is_told_of_where_it_is(run_ok: Caller) -> None:
    """What is lost of one part, and not told of yet, is no matter to blocks of others."""
    run_ok(f"""
        {MAKE.replace(chr(10), chr(10) + " " * 8)}
        array = stitch(make(), "u1")
        window = array[...]
        seen = []
        try:
            for (box,), block in array.blocks(max_nbytes=4 * P):
                if not seen:
                    lose("there")
                    assert window[LAST - 1] == 0  # noticed, but not told of
                assert np.array_equal(block, EXPECTED[box])
                seen.append(box.stop)
        except AccessError as error:
            assert (error.filename, error.offset) == (PATH, FIRST)
        else:
            raise SystemExit("not told")
        assert seen == list(range(4 * P, FIRST, 4 * P))
    """)


@pytest.mark.usefixtures("told_room")
def test_full_disk(small_disk: Path, run_ok: Caller) -> None:
    """What windows write into holes of a full disk is kept, and goes to the files when there is room."""
    run_ok(f"""
        os.chdir({str(small_disk)!r})
        for n in range(4):
            with open(f"{{n}}", "wb") as file:
                file.truncate(2 * P)
        array = stitch([f"{{n}}" for n in range(4)], "u1", mode="r+")
        with open("fill", "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(P))
            except OSError:
                pass
        window = array[...]
        window[:] = 5
        assert (window == 5).all()
        error = failure(array.flush)
        assert (error.reason, error.operation) == ("no-space", "write"), error
        # What is in no file yet is not left out of what is made of the array.
        assert failure(stitch, [array]).reason == "no-space"
        os.unlink("fill")
        array.flush()
        for n in range(4):
            with open(f"{{n}}", "rb") as file:
                assert file.read() == b"\\5" * 2 * P
        assert array.buffer.damage == ()
    """)


# Holes


@pytest.fixture
def sparse_files(tmp_path: Path) -> list[Path]:
    """Make files of a megabyte with a page of data each, on disk and not in the cache."""
    paths = []
    for n in range(4):
        path = tmp_path / f"{n}.raw"
        with path.open("wb") as file:
            file.truncate(256 * P)
            os.pwrite(file.fileno(), bytes([n + 1]) * P, (10 * n + 3) * P)
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if path.stat().st_blocks * 512 > 16 * P:
            pytest.skip("this file system has no holes")
        paths.append(path)
    return paths


@pytest.mark.parametrize("mode", ["r", "c"])
def test_holes_are_skipped(mode: Any, sparse_files: list[Path], linux_core: bool) -> None:
    """Holes are no extents, sums skip them, and reading them fills neither cache nor disk."""
    blocks = [path.stat().st_blocks for path in sparse_files]
    array = stitch(sparse_files, "u1", mode=mode)
    if linux_core or mode == "r":
        assert array.extents().tolist() == [
            [(256 * n + 10 * n + 3) * P, (256 * n + 10 * n + 4) * P] for n in range(4)
        ]
        assert array.nbytes_stored == 4 * P
    assert array.sum() == (1 + 2 + 3 + 4) * P
    window = array[...]
    for n in range(4):
        assert not window[256 * n * P : (256 * n + 10 * n + 3) * P].any()
        assert not window[(256 * n + 10 * n + 4) * P : 256 * (n + 1) * P].any()
    for n, path in enumerate(sparse_files):
        with path.open("rb+") as file:
            # What lies around data is read ahead where only Linux's core could say not to.
            assert not linux_core or cached_pages(file.fileno(), 256) <= {10 * n + 3}
    assert [path.stat().st_blocks for path in sparse_files] == blocks


def test_writing_to_holes(sparse_files: list[Path], linux_core: bool) -> None:
    """In mode r+ what is written into a hole is in the file, and what is discarded a hole again."""
    array = stitch(sparse_files, "u1", mode="r+")
    array[(256 + 100) * P] = 7
    array.flush()
    with sparse_files[1].open("rb") as file:
        assert os.pread(file.fileno(), 1, 100 * P) == b"\7"
    assert array.nbytes_stored == 5 * P
    before = sparse_files[0].stat().st_blocks
    array.discard(slice(0, 256 * P))
    assert sparse_files[0].stat().st_blocks < before or not linux_core
    assert array.sum() == (2 + 3 + 4) * P + 7
    assert array.trim() == 0


def test_holes_made_later(tmp_path: Path, linux_core: bool) -> None:
    """Holes that are made through the array are no extents; a file that had none need not be asked."""
    parts = [make_raw(tmp_path, str(n), np.full(8 * P, n + 1, "u1")).given for n in range(3)]
    array = stitch(parts, "u1", mode="r+")
    assert array.extents().tolist() == [[0, 24 * P]]
    array.discard(slice(9 * P, 12 * P))
    assert array.sum() == (8 + 5 * 2 + 8 * 3) * P
    if linux_core:
        assert array.extents().tolist() == [[0, 9 * P], [12 * P, 24 * P]]
    again = stitch(parts, "u1")
    assert again.nbytes_stored == array.nbytes_stored
    array[10 * P] = 9
    assert (again.refresh() > 0) == linux_core  # a page, or what the file system has in one piece
    assert again.sum() == array.sum()


def test_new_data_in_holes(sparse_files: list[Path]) -> None:
    """`refresh` finds what others wrote into holes that were skipped; not where a name leads elsewhere."""
    array = stitch(sparse_files, "u1")
    with sparse_files[2].open("r+b") as file:
        os.pwrite(file.fileno(), b"\5" * P, 200 * P)
    assert array.sum() == 10 * P
    assert array.refresh() == P
    assert array.sum() == 15 * P
    sparse_files[3].rename(sparse_files[3].with_name("elsewhere"))
    with pytest.raises(OSError) as caught:
        array.refresh()
    assert caught.value.filename == str(sparse_files[3])
    assert array.sum() == 15 * P


def test_a_renamed_file_with_holes(sparse_files: list[Path]) -> None:
    """Where nobody knows the holes of a file any more, all that is mapped of it counts as data."""
    array = stitch(sparse_files, "u1", mode="r+")
    sparse_files[1].rename(sparse_files[1].with_name("elsewhere"))
    assert array.sum() == 10 * P
    assert array.nbytes_stored == (3 + 256) * P


@pytest.mark.usefixtures("told_pages")
def test_copied_parts_keep_their_holes(tmp_path: Path, sparse_files: list[Path]) -> None:
    """A part that must be copied takes memory for its data only."""
    first = make_raw(tmp_path, "first", np.ones(100, "u1")).given
    array = stitch([sparse_files[0], first, sparse_files[1], sparse_files[2]], "u1")
    assert array.nbytes_copied > 256 * P
    assert array.sum() == 6 * P + 100
    assert array.nbytes_stored <= 10 * P


def test_page_cache_is_shared(tmp_path: Path) -> None:
    """What several arrays show of a file, and who reads it otherwise, is the same memory."""
    source = make_raw(tmp_path, "a", np.ones(64 * P, "u1"))
    one, two = (stitch([source.given] * 2, "u1", mode="r+") for _ in range(2))
    one[5] = 9
    assert two[5] == two[64 * P + 5] == 9
    with sparsearray.open(source.given, dtype="u1") as three:
        assert three[5] == 9


def test_guarded_reads_of_what_was_copied(tmp_path: Path) -> None:
    """A copy in memory does not mind what becomes of its file."""
    parts = [make_raw(tmp_path, str(n), np.full(100, n + 1, "u1")).given for n in range(3)]
    array = stitch(parts, "u1")
    assert array.nbytes_copied == 300
    for path in parts:
        os.truncate(path, 0)
    assert array.sum() == 600
    assert array.buffer.damage == ()
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    with pytest.raises(AccessError, match="read-only"):
        array.buffer.write_at(0, b"x")


def test_a_file_that_is_replaced_between_its_pages_and_its_seam(tmp_path, monkeypatch):
    """What is copied is of the file that is mapped: from the start, or nothing is made."""
    path = tmp_path / "data"
    np.full(2 * P + 100, 2, "u1").tofile(path)
    other = tmp_path / "other"
    np.full(2 * P + 100, 99, "u1").tofile(other)
    module = importlib.import_module("sparsearray.stitch")
    fill = module._fill

    def replaced(*arguments):
        other.replace(path) if other.exists() else None
        fill(*arguments)

    monkeypatch.setattr(module, "_fill", replaced)
    array = sparsearray.stitch([path, (path, 0, 100)], "u1")  # which looks again
    assert np.unique(array[...]).tolist() == [99]
    np.full(2 * P + 100, 2, "u1").tofile(other)
    np.save(path.with_suffix(".npy"), np.zeros(2 * P))
    path = path.with_suffix(".npy")
    with pytest.raises(ValueError, match="part 0, .*replaced by another file"):
        sparsearray.stitch([path, path])
