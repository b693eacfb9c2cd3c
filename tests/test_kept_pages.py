"""What windows write to a full disk: kept in memory, moved into the file, and never mixed up."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import sparsearray
from sparsearray import AccessError, SparseBuffer, SparseDamageWarning

P = os.sysconf("SC_PAGESIZE")
pytestmark = pytest.mark.usefixtures("told_room")

# A file of 64 pages on a disk that something else fills up, and gives back.
HEAD = """
    folder = {folder!r}
    path = folder + "/data"
    with open(path, "wb") as file:
        file.truncate({pages} * P)
    buffer = SparseBuffer({pages} * P)
    buffer.map_file(0, {pages} * P, path, writable=True)
    window = buffer[:]

    def fill():
        with open(folder + "/filler", "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(P))
            except OSError as error:
                assert error.errno == errno.ENOSPC

    def free():
        os.unlink(folder + "/filler")
"""


@pytest.fixture
def run_full(small_disk: Path, run_ok: Callable[..., str]) -> Callable[..., str]:
    """Call it with a script: run with a file on a disk that can be filled up."""

    def run(script: str, pages: int = 64) -> str:
        size = f"remount,size={(pages + 16) * P}"
        subprocess.run(["mount", "-o", size, small_disk], check=True)  # noqa: S607
        return run_ok(HEAD.format(folder=str(small_disk), pages=pages) + script)

    return run


@pytest.mark.parametrize("call", ["buffer.flush()", "buffer.damage"])
def test_writes_while_pages_move(call: str, run_full: Callable[..., str]) -> None:
    """Another thread writes to other pages of what moves: all of it is in the file afterwards."""
    run_full(
        f"""
    for attempt in range(12):
        fill()
        window[:: 64 * P] = 1
        if attempt % 2:
            window[:]
            int(window.sum())
        free()
        started = threading.Event()
        def write():
            started.set()
            for page in range(1, 1024, 2):
                window[page * P] = 1 + attempt
        thread = threading.Thread(target=write)
        thread.start()
        started.wait()
        try:
            {call}
        except AccessError:
            pass
        thread.join()
        buffer.flush()
        assert buffer.damage == ()
        expected = np.arange(1, 1024, 2) * P
        assert (window[expected] == 1 + attempt).all(), attempt
        assert (np.fromfile(path, "u1")[expected] == 1 + attempt).all(), attempt
        window[:] = 0
        buffer.decommit(0, 1024 * P)
        os.truncate(path, 1024 * P)
        buffer._clear(0, 1024 * P)
    """,
        1024,
    )


@pytest.mark.parametrize("told", ["flush", "damage", "read_at"])
def test_the_end_of_the_block_writes_what_has_room(told: str, run_full: Callable[..., str]) -> None:
    """Whoever was told of it before."""
    run_full(f"""
    del window
    with buffer:
        window = buffer[:]
        fill()
        window[10 * P : 20 * P] = 7
        if {told == "flush"}:
            failure(buffer.flush)
        elif {told == "damage"}:
            assert buffer.damage
        else:
            failure(buffer.read_at, 10 * P, P)
        free()
        del window
    assert (np.fromfile(path, "u1")[10 * P : 20 * P] == 7).all()
    """)


def test_each_full_disk_is_refused_anew(run_full: Callable[..., str]) -> None:
    """That a close was refused once says nothing of what is kept after a flush that went well."""
    run_full("""
    del window
    for value in (1, 2, 3):
        fill()
        buffer[: 8 * P][:] = value
        buffer[20 * P * value : 20 * P * value + P][:] = value
        error = failure(buffer.close)
        assert error.reason == "no-space" and not buffer.closed, error
        free()
        buffer.flush()
        assert (np.fromfile(path, "u1")[: 8 * P] == value).all()
    """)


def test_an_exception_in_the_block(small_disk: Path) -> None:
    """It is raised; what has no room stays in memory, and there is a warning."""
    path = small_disk / "a.npy"
    array = sparsearray.open(path, "w+", shape=(64, P), dtype="u1")
    array[...][:] = 7

    def work() -> None:
        with array:
            raise ZeroDivisionError

    with (
        pytest.warns(SparseDamageWarning, match="kept in memory"),
        pytest.raises(ZeroDivisionError),
    ):
        work()
    assert not array.closed
    subprocess.run(["mount", "-o", f"remount,size={200 * P}", small_disk], check=True)  # noqa: S607
    array.close()
    assert (np.load(path) == 7).all()


def test_what_has_room_by_the_time_the_buffer_goes(run_full: Callable[..., str]) -> None:
    """It is written, and nothing is told."""
    run_full("""
    fill()
    window[: 4 * P] = 1
    free()
    del window, buffer
    assert (np.fromfile(path, "u1")[: 4 * P] == 1).all()
    """)


def test_a_forked_process_that_keeps_the_same(run_full: Callable[..., str]) -> None:
    """What one has moved, the other does not write again over what came later."""
    run_full("""
    fill()
    window[: 8 * P] = 1
    go, done = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(go[0], 1)
        buffer.flush()
        os._exit(0 if (window[: 8 * P] == 2).all() else 1)
    free()
    buffer.flush()
    window[: 8 * P] = 2
    os.write(go[1], b"x")
    assert os.waitpid(pid, 0)[1] == 0
    assert (window[: 8 * P] == 2).all()
    assert (np.fromfile(path, "u1")[: 8 * P] == 2).all()
    """)


def test_a_file_that_is_cut_inside_what_is_kept(run_full: Callable[..., str]) -> None:
    """What still fits is written; the rest is lost, and named."""
    run_full("""
    fill()
    window[: 32 * P] = 7
    os.truncate(path, 16 * P + 10)
    free()
    error = failure(buffer.flush)
    assert (error.reason, error.offset) == ("file-truncated", 16 * P + 10), error
    assert (np.fromfile(path, "u1") == 7).all()
    assert os.stat(path).st_size == 16 * P + 10
    assert (window[17 * P : 32 * P] == 7).all()  # memory still holds it
    """)


def test_lengths_and_what_is_kept(small_disk: Path) -> None:
    """An array does not change its length over it: old items would come back in new rows."""
    path = small_disk / "a.npy"
    shape = (4 * P,)
    with sparsearray.open(path, "w+", shape=shape, dtype="u1", maxshape=(None,)) as array:
        (small_disk / "filler").write_bytes(bytes(P))
        with pytest.raises(OSError, match="No space"), (small_disk / "more").open("wb") as file:
            while True:
                file.write(bytes(P))
                file.flush()
        array[...][:] = 7
        with pytest.raises(AccessError, match="no room on the disk"):
            array.resize(P // 2)
        assert array.shape == shape
        (small_disk / "more").unlink(missing_ok=True)
        array.resize(P // 2)
        array.resize(4 * P)
        assert array[...].tolist() == [7] * (P // 2) + [0] * (4 * P - P // 2)


def test_reading_holes_beside_what_is_kept(run_full: Callable[..., str]) -> None:
    """What another buffer writes there meanwhile is not taken for zeros."""
    run_full("""
    other = SparseBuffer(64 * P)
    other.map_file(0, 64 * P, path, writable=True)
    fill()
    window[0] = 1
    assert buffer.read_at(10 * P, 4) == bytes(4)
    free()
    other.write_at(10 * P, b"here")
    error = failure(buffer.read_at, 10 * P, 4)
    assert error.reason == "no-space"
    buffer.flush()
    assert buffer.read_at(10 * P, 4) == b"here"
    assert other.read_at(0, 1) == b"\\x01"
    """)


def test_a_read_only_window_of_holes(run_full: Callable[..., str]) -> None:
    """It shows zeros as long as there is no room to look, and the file again afterwards."""
    run_full("""
    reader = SparseBuffer(64 * P)
    reader.map_file(0, 64 * P, path)
    shown = reader[:]
    fill()
    assert shown.sum() == 0
    free()
    reader.flush()
    assert reader.damage == ()
    buffer.write_at(5 * P, b"here")
    assert shown[5 * P : 5 * P + 4].tobytes() == b"here"
    """)


def test_save_to_says_what_is_lost_first(tmp_path: Path) -> None:
    """Zeros for lost bytes are saved only for who knows."""
    path, saved = tmp_path / "data", tmp_path / "saved"
    path.write_bytes(b"\7" * 8 * P)
    buffer = SparseBuffer(8 * P)
    buffer.map_file(0, 8 * P, path)
    window = buffer[:]
    os.truncate(path, 2 * P)
    for _ in range(2):  # met by the window, and not
        with pytest.raises(AccessError, match="past the end of its file"):
            buffer.save_to(saved)
        assert not saved.exists()
        assert window.sum() == 7 * 2 * P
        buffer.save_to(saved)
        assert saved.read_bytes() == b"\7" * 2 * P + bytes(6 * P)
        saved.unlink()
        del window
        path.write_bytes(b"\7" * 8 * P)
        buffer.map_file(0, 8 * P, path)
        window = buffer[:]
        os.truncate(path, 2 * P)
        window.sum()
    assert buffer.damage
