"""Many threads at once, and forked children: old data, new data or an error; never anything else."""

import mmap
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from sparsearray import AccessError, ClosedError, SparseBuffer, SparseError

P = os.sysconf("SC_PAGESIZE")
PAGES = 48
MARK = 0xAB  # what writers write; everything else is zero
REFUSALS = (SparseError, BufferError, ValueError)  # ValueError: past the end of the cut file


def ranges(rng: random.Random) -> tuple[int, int]:
    """Draw whole pages."""
    first = rng.randrange(PAGES)
    return first * P, rng.randint(1, min(8, PAGES - first)) * P


def run_for(seconds: float, works: list[Callable[[random.Random], None]]) -> None:
    """Run each work on a thread of its own, again and again; refusals are as good as results."""
    stop = time.monotonic() + seconds
    failures: list[BaseException] = []

    def loop(work: Callable[[random.Random], None], seed: int) -> None:
        rng = random.Random(seed)
        try:
            while time.monotonic() < stop and not failures:
                with suppress(*REFUSALS):
                    work(rng)
        except BaseException as error:  # noqa: BLE001 -- for the main thread to see
            failures.append(error)

    threads = [threading.Thread(target=loop, args=(work, i)) for i, work in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


@pytest.fixture
def crowd(  # noqa: C901 -- a small function for each thing that a thread does
    tmp_path: Path,
) -> dict[str, Callable[[random.Random], None]]:
    """What threads do to one buffer."""
    path = tmp_path / "file"
    path.write_bytes(bytes(PAGES * P))
    buffer = SparseBuffer(PAGES * P)

    def check(data: bytes) -> None:
        assert set(data) <= {0, MARK}

    def map_something(rng: random.Random) -> None:
        offset, nbytes = ranges(rng)
        rng.choice(
            [
                lambda: buffer.alloc(offset, nbytes),
                lambda: buffer.map_zero(offset, nbytes),
                lambda: buffer.map_file(offset, nbytes, path, offset, writable=True),
                lambda: buffer.map_file(offset, nbytes, path, offset, copy_on_write=True),
                lambda: buffer.unmap(offset, nbytes),
                lambda: buffer.set_writable(offset, nbytes, rng.random() < 0.5),
                lambda: buffer.decommit(offset, nbytes),
                lambda: buffer.commit(offset, nbytes),
                lambda: buffer.flush(offset, nbytes),
            ]
        )()

    def read(rng: random.Random) -> None:
        offset = rng.randrange(PAGES * P)
        check(buffer.read_at(offset, rng.randint(0, min(5 * P, PAGES * P - offset))))

    def write(rng: random.Random) -> None:
        offset = rng.randrange(PAGES * P)
        buffer.fill_at(offset, MARK, rng.randint(0, min(5 * P, PAGES * P - offset)))

    def gather(rng: random.Random) -> None:
        offset, nbytes = ranges(rng)
        check(buffer.gather(np.arange(offset, offset + nbytes - 8, 100), "u8").tobytes())

    def window(rng: random.Random) -> None:
        offset, nbytes = ranges(rng)
        array = buffer.window(offset, nbytes)
        check(array.tobytes())
        if array.flags.writeable:
            array[::7] = MARK

    def cut(rng: random.Random) -> None:
        os.truncate(path, rng.randrange(PAGES * P))
        time.sleep(0.0005)
        os.truncate(path, PAGES * P)

    def fork(rng: random.Random) -> None:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for work in [read, write, gather, map_something] * 3:
                    with suppress(*REFUSALS):
                        work(rng)
                code = 0
            finally:
                os._exit(code)
        assert wait_for(child) == 0
        time.sleep(0.01)

    return {
        "map": map_something,
        "read": read,
        "write": write,
        "gather": gather,
        "window": window,
        "cut": cut,
        "fork": fork,
    }


def wait_for(child: int, seconds: float = 30) -> int:
    """Wait for a child to end, or kill it and fail."""
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail("the child hangs")


# Python 3.12 and later warn of forks in a process with threads: that is the point here.
forks = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


@pytest.mark.slow
@forks
@pytest.mark.parametrize(
    "names",
    [
        ["map", "map", "read", "write", "gather", "window", "window"],
        ["map", "map", "read", "write", "gather", "cut"],
        ["map", "read", "write", "window", "fork"],
        ["map", "read", "write", "gather", "cut", "fork"],
    ],
    ids=lambda names: "+".join(dict.fromkeys(names)),
)
def test_all_at_once(crowd: dict, names: list[str]) -> None:
    """Readers, writers, mappers, windows, truncations and forks: zeros, marks or a refusal."""
    run_for(4, [crowd[name] for name in names])


def test_calls_do_not_wait_for_each_other() -> None:
    """Reads end while a long fill of the same buffer is under way: begun, and not ended."""
    buffer = SparseBuffer(1 << 30)
    buffer.alloc(0, 1 << 30)
    entered, overlaps = threading.Event(), []

    def long() -> None:
        entered.set()
        buffer.fill_at(0, MARK, 512 << 20)

    thread = threading.Thread(target=long)
    thread.start()
    entered.wait()
    while thread.is_alive() and len(overlaps) < 50:
        first, last = buffer.read_at(0, 1), buffer.read_at((512 << 20) - 1, 1)
        if first != last:
            overlaps.append(1)
    thread.join()
    assert overlaps, "no read ended while the fill was under way"


def test_two_readers_are_inside_at_once(misbehaving) -> None:
    """While one thread waits for a slow disk within a read, another's read begins and ends."""
    with SparseBuffer(16 * P) as buffer:
        buffer.map_file(0, 8 * P, misbehaving.folder / "slow")
        buffer.alloc(8 * P, P)
        buffer.write_at(8 * P, b"fast")
        found: list[bytes] = []
        thread = threading.Thread(target=lambda: found.append(buffer.read_at(5 * P, P)))
        thread.start()
        try:
            assert misbehaving.wait() == "waiting"  # it is inside
            assert buffer.read_at(8 * P, 4) == b"fast"
            assert buffer.gather([8 * P], "S4")[0] == b"fast"
            assert buffer.atomic_slice(8 * P, 1).load(0) == ord("f")
            buffer.write_at(8 * P, b"more")
            assert bytes(buffer[8 * P : 8 * P + 4]) == b"more"
            assert not found
        finally:
            misbehaving.release()
            thread.join()
        assert found == [b"\x06" * P]


def in_background(works: list[Callable[[], object]], foreground: Callable[[], None]) -> None:
    """Run each work again and again on a thread of its own, while `foreground` runs once."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def loop(work: Callable[[], object]) -> None:
        try:
            while not stop.is_set():
                with suppress(AccessError):
                    work()
        except BaseException as error:  # noqa: BLE001 -- for the main thread to see
            failures.append(error)

    threads = [threading.Thread(target=loop, args=(work,)) for work in works]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # or the foreground waits for the GIL most of the time
    for thread in threads:
        thread.start()
    try:
        foreground()
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]


def test_reads_see_a_mapping_call_before_or_after(make_file: Callable) -> None:
    """A read of many pages sees all of what a mapping call put there, or nothing of it."""
    nbytes = 16 * P
    files = []
    for number in range(1, 5):
        path, _ = make_file(nbytes, f"file{number}")
        path.write_bytes(bytes([number]) * nbytes)
        files.append(path)
    offsets = np.arange(0, nbytes, 64)
    with SparseBuffer(nbytes) as buffer:
        buffer.map_file(0, nbytes, files[0])

        def read() -> None:
            assert len(set(buffer.read_at(0, nbytes))) == 1

        def gather() -> None:
            assert len(set(buffer.gather(offsets, "u1").tolist())) == 1

        def window() -> None:
            array = buffer.window(0, nbytes)
            first = array.tobytes()
            assert len(set(first)) == 1
            assert array.tobytes() == first

        def change() -> None:
            rng = random.Random(7)
            for _ in range(500):
                with suppress(BufferError):
                    if rng.random() < 0.1:
                        buffer.unmap(0, nbytes)
                    else:
                        writable = rng.random() < 0.5
                        buffer.map_file(0, nbytes, rng.choice(files), writable=writable)

        in_background([read, gather, window], change)


def test_foreign_memory_is_never_seen() -> None:
    """While others map and unmap memory of their own, no read of the buffer ever shows it."""
    foreign = 0xEE
    with SparseBuffer(64 * P) as buffer:

        def others() -> None:
            pieces = [mmap.mmap(-1, P * (1 + i % 3)) for i in range(50)]
            for piece in pieces:
                piece[:] = bytes([foreign]) * len(piece)
            for piece in pieces:
                piece.close()

        def read() -> None:
            assert foreign not in buffer.read_at(random.randrange(63) * P, 2 * P)

        def change() -> None:
            rng = random.Random(2)
            for _ in range(4000):
                start = rng.randrange(60) * P
                call = rng.choice([buffer.alloc, buffer.unmap, buffer.map_zero])
                call(start, rng.randint(1, 4) * P)
                with suppress(AccessError):
                    buffer.fill_at(start, 1, P)

        in_background([others, others, read], change)


def test_close_while_others_are_inside() -> None:
    """Closing while others read, write and make windows gives them ClosedError, and no crash."""
    for _ in range(60):
        buffer = SparseBuffer(64 * P)
        buffer.alloc(0, 64 * P)
        failures: list[BaseException] = []
        started = threading.Barrier(4)

        def work(
            buffer: SparseBuffer = buffer,
            failures: list[BaseException] = failures,
            started: threading.Barrier = started,
        ) -> None:
            started.wait()
            try:
                while True:
                    buffer.read_at(0, 32 * P)
                    buffer.fill_at(32 * P, 0, 32 * P)
                    buffer.window(P, P).sum()
                    buffer.gather([0, P], "u8")
            except ClosedError:
                pass
            except BaseException as error:  # noqa: BLE001 -- for the main thread to see
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        started.wait()
        while not buffer.closed:
            with suppress(BufferError):  # a window lives
                buffer.close()
        for thread in threads:
            thread.join()
        assert not failures


def test_many_threads_share_a_dtype() -> None:
    """Records of one dtype that many threads read at once do not get mixed up."""
    record = np.dtype([("a", "u4"), ("b", "S20")])
    failures: list[object] = []
    with SparseBuffer(8 * P) as buffer:
        buffer.alloc(0, 8 * P)
        for i in range(8):
            buffer.write_plain(i * P, np.array((i, bytes([65 + i]) * 20), record))

        def work(i: int) -> None:
            for _ in range(3000):
                found = buffer.read_plain(i * P, record)
                if found.item() != (i, bytes([65 + i]) * 20):
                    failures.append(found)
                if buffer.read_plain(i * P, "u4") != i:
                    failures.append(i)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures


def test_windows_and_buffers_die_in_any_order() -> None:
    """Windows dropped by other threads, after their buffer is gone: their bytes stay right."""
    buffer = SparseBuffer(64 * P)
    buffer.alloc(0, 64 * P)
    windows = []
    for page in range(64):
        window = buffer.window(page * P, P)
        window[:] = page
        windows.append(window[10:20])
    del window, buffer

    def drop(mine: list) -> None:
        while mine:
            page, window = mine.pop()
            assert (window == page).all()
            del window

    shares = [list(enumerate(windows))[i::4] for i in range(4)]
    windows.clear()
    threads = [threading.Thread(target=drop, args=(share,)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not any(shares)


@forks
def test_a_child_has_a_copy_of_private_memory_and_shares_files(tmp_path: Path) -> None:
    """What a forked child writes: its own in private memory, everybody's in a shared window."""
    path = tmp_path / "file"
    path.write_bytes(bytes(P))
    buffer = SparseBuffer(4 * P)
    buffer.alloc(0, P)
    buffer.map_file(P, P, path, writable=True)
    buffer.map_file(2 * P, P, path, copy_on_write=True)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            buffer.fill_at(0, 1, P)
            buffer.fill_at(P, 2, P)
            buffer.fill_at(2 * P, 3, P)
            buffer.alloc(3 * P, P)
            buffer.unmap(0, P)
            buffer.close()
            code = 0
        finally:
            os._exit(code)
    assert wait_for(child) == 0
    assert buffer.read_at(0, P) == bytes(P)
    assert buffer.read_at(P, P) == b"\2" * P
    assert buffer.read_at(2 * P, P) == b"\2" * P
    with pytest.raises(AccessError):
        buffer.read_at(3 * P, 1)


def test_interrupt_of_a_long_copy(run_python: Callable) -> None:
    """Ctrl-C in the middle of a long fill raises KeyboardInterrupt, and the buffer goes on working."""
    done = run_python("""
        memory = SparseBuffer(16 << 30)
        # The same 64 MiB again and again, as one range.
        with shared_memory(64 << 20) as pages:
            for i in range(256):
                memory.map_file(i * (64 << 20), 64 << 20, pages, writable=True)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        try:
            memory.fill_at(0, 7, 256 * (64 << 20))
        except KeyboardInterrupt:
            print("interrupted")
        assert memory.read_at(0, 3) == b"\\7\\7\\7"
        memory.unmap(0, 64 << 20)
        memory.close()
    """)
    assert (done.returncode, done.stdout.strip()) == (0, "interrupted"), done.stderr


def test_exit_with_live_windows_and_running_threads(run_python: Callable) -> None:
    """The interpreter ends well while windows live and daemon threads are inside calls."""
    done = run_python("""
        buffer = SparseBuffer(1 << 30)
        buffer.alloc(0, 1 << 26)
        window = buffer.window(0, 1 << 20)
        sys.modules["kept"] = window

        def work():
            while True:
                buffer.fill_at(0, 1, 1 << 22)
                buffer.window(0, 100).sum()

        for _ in range(4):
            threading.Thread(target=work, daemon=True).start()
        import time
        time.sleep(0.2)
        print("end")
    """)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "end", "")
