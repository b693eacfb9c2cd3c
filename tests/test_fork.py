"""Forked and spawned processes: a child has the buffer, and nothing hangs."""

import copy
import mmap
import multiprocessing
import pickle

import pytest

from sparsearray import SparseBuffer, shared_memory

P = mmap.PAGESIZE

# Every script: children that hang are killed by SIGALRM, which the exit status then tells.
CHILD = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of fork with threads

def in_child(work):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(20)
            work()
            code = 0
        except BaseException:
            import traceback
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)
    return pid

def check(pid):
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, status
"""


def test_private_memory_is_copied(run_ok):
    """Parent and child write to private memory each for themselves, windows included."""
    run_ok(f"""
        {CHILD.replace(chr(10), chr(10) + " " * 8)}
        buffer = SparseBuffer(4 * P)
        buffer.alloc(0, 2 * P)
        buffer.fill_at(0, 1, 2 * P)
        window = buffer[:P]

        def work():
            assert buffer.read_at(0, 2 * P) == b"\\1" * 2 * P
            window[:] = 2
            buffer.fill_at(P, 3, P)
            assert buffer.read_at(0, 2 * P) == b"\\2" * P + b"\\3" * P
            buffer.alloc(2 * P, P)

        check(in_child(work))
        assert buffer.read_at(0, 2 * P) == b"\\1" * 2 * P
        assert window.sum() == P
        assert len(buffer.regions) == 1 and buffer.regions[0].nbytes == 2 * P
    """)


def test_shared_windows_stay_shared(run_ok):
    """Writes through shared windows of files and shared memory reach the other process."""
    run_ok(f"""
        {CHILD.replace(chr(10), chr(10) + " " * 8)}
        with open("data", "wb") as file:
            file.write(bytes(P))
        buffer = SparseBuffer(4 * P)
        buffer.map_file(0, P, "data", writable=True)
        buffer.map_file(P, P, "data", copy_on_write=True)
        with shared_memory(P) as memory:
            buffer.map_file(2 * P, P, memory, writable=True)

        def work():
            buffer.write_at(0, b"file")
            buffer.write_at(P, b"own!")
            buffer.window(2 * P, 4)[:] = 7
            assert buffer.atomic_slice(2 * P, 8, "u4").fetch_add(4, 5) == 0
            buffer.flush()

        check(in_child(work))
        assert buffer.read_at(0, 4) == b"file" == buffer.read_at(P, 4)
        assert buffer.read_at(2 * P, 5) == b"\\7\\7\\7\\7\\0"
        assert buffer.atomic_slice(2 * P, 8, "u4").load(4) == 5
    """)


def test_closing_in_the_child(run_ok):
    """A child that closes, collects or remaps its buffer leaves the parent's alone."""
    run_ok(f"""
        {CHILD.replace(chr(10), chr(10) + " " * 8)}
        with open("data", "wb") as file:
            file.write(b"data" * P)
        def make():
            buffer = SparseBuffer(8 * P)
            buffer.alloc(0, P)
            buffer.write_at(0, b"mine")
            buffer.map_file(P, 4 * P, "data")
            return buffer

        buffer = make()
        window = buffer.window(P, P)

        def close():
            global window
            assert failure(buffer.close).__class__ is BufferError  # the window is there, too
            del window
            buffer.close()

        def collect():
            global buffer
            del buffer
            assert bytes(window[:4]) == b"data"

        def remap():
            buffer.unmap(0, P)
            buffer.map_zero(2 * P, 3 * P)
            assert failure(buffer.unmap, P, P).__class__ is BufferError

        for work in (close, collect, remap):
            check(in_child(work))
        assert buffer.read_at(0, 4) == b"mine"
        assert buffer.read_at(P, 4 * P) == b"data" * P
        assert bytes(window) == b"data" * (P // 4)
    """)


def test_windows_keep_their_pins(run_ok):
    """A window that lives at the fork pins its pages in both processes, in each for itself."""
    run_ok(f"""
        {CHILD.replace(chr(10), chr(10) + " " * 8)}
        buffer = SparseBuffer(4 * P)
        buffer.alloc(0, 4 * P)
        windows = [buffer.window(P, P)]

        def work():
            assert failure(buffer.unmap, P, P).__class__ is BufferError
            windows.clear()
            buffer.unmap(P, P)

        check(in_child(work))
        assert failure(buffer.unmap, P, P).__class__ is BufferError
        windows.clear()
        buffer.unmap(P, P)
    """)


@pytest.mark.slow
def test_forks_while_threads_hold_every_lock(run_ok):
    """Children forked while other threads copy, map, fault and make windows do all that, too."""
    run_ok(f"""
        import random
        from contextlib import suppress
        {CHILD.replace(chr(10), chr(10) + " " * 8)}
        with open("data", "wb") as file:
            file.write(bytes(16 * P))
        buffer = SparseBuffer(64 * P)
        buffer.map_file(0, 16 * P, "data", writable=True)
        os.truncate("data", 8 * P)
        buffer.alloc(16 * P, 16 * P)
        items = buffer.atomic_slice(0, 8 * P, "u8")
        stop, failed = threading.Event(), []
        refusals = SparseError, BufferError

        def everything(rng):
            page = rng.randrange(32, 60) * P
            calls = [
                lambda: buffer.read_at(rng.randrange(32) * P, 3 * P),
                lambda: buffer.write_at(rng.randrange(32) * P, bytes(2 * P)),
                lambda: buffer.alloc(page, 4 * P),
                lambda: buffer.unmap(page, P),
                lambda: buffer.map_file(page, 4 * P, "data"),
                lambda: buffer.window(page, 100).sum(),
                lambda: items.fetch_add(rng.randrange(16 * P // 8), 1),
                lambda: SparseBuffer(P).alloc(0, P),
                lambda: buffer.regions,
                lambda: buffer.flush(0, P),
                lambda: buffer.gather([0, 9 * P, 17 * P], "u8"),
            ]
            for call in rng.sample(calls, len(calls)):
                with suppress(*refusals):
                    call()

        def loop(seed):
            rng = random.Random(seed)
            try:
                while not stop.is_set():
                    everything(rng)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=loop, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()

        def child():
            rng = random.Random(os.getpid())
            for _ in range(3):
                everything(rng)
            assert failure(buffer.read_at, 7 * P, 2 * P).transferred == P
            pid = in_child(lambda: everything(rng))  # and a grandchild
            check(pid)

        try:
            for _ in range(120):
                check(in_child(child))
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert not failed, failed
    """)


def test_forks_from_several_threads(run_ok):
    """Threads that fork at the same time, with buffers coming and going, do not hang."""
    run_ok(f"""
        {CHILD.replace(chr(10), chr(10) + " " * 8)}
        failed = []

        def work():
            def child():
                with SparseBuffer(P) as mine:
                    mine.alloc(0, P)
                    mine.write_at(0, b"child")
            try:
                for _ in range(20):
                    with SparseBuffer(4 * P) as buffer:
                        buffer.alloc(0, P)
                        check(in_child(child))
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed, failed
    """)


def test_buffers_are_not_pickled():
    """A buffer cannot be pickled or copied, and the error says why."""
    with SparseBuffer(P) as buffer:
        for call in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="process"):
                call(buffer)
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(TypeError):
                pickle.dumps(buffer, protocol)


def test_atomics_are_not_pickled():
    """Neither are atomic slices."""
    with SparseBuffer(P) as buffer, pytest.raises(TypeError):
        pickle.dumps(buffer.atomic_slice(0, 4))


def test_windows_are_pickled_as_copies():
    """A pickled window is an array of its own."""
    with SparseBuffer(P) as buffer:
        buffer.alloc(0, P)
        loaded = pickle.loads(pickle.dumps(buffer[:8]))
        loaded[:] = 1
        assert buffer.read_at(0, 8) == bytes(8)


def test_spawned_process_maps_the_same_memory(run_ok):
    """A process that was started, not forked, maps shared memory by its descriptor."""
    run_ok("""
        import subprocess
        with shared_memory(P) as memory:
            buffer = SparseBuffer(P)
            buffer.map_file(0, P, memory, writable=True)
            script = '''
        import mmap, sys
        from sparsearray import SparseBuffer
        buffer = SparseBuffer(mmap.PAGESIZE)
        buffer.map_file(0, mmap.PAGESIZE, int(sys.argv[1]), writable=True)
        buffer.atomic_slice(0, 1, "u8").fetch_add(0, 41)
        '''
            script = "\\n".join(line.strip() for line in script.splitlines())
            buffer.atomic_slice(0, 1, "u8").store(0, 1)
            fd = memory.fileno()
            subprocess.run([sys.executable, "-P", "-c", script, str(fd)], pass_fds=[fd], check=True)
            assert buffer.atomic_slice(0, 1, "u8").load(0) == 42
    """)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_multiprocessing_over_a_fork():
    """Workers that multiprocessing forks write to shared memory that is mapped already."""
    with SparseBuffer(P) as buffer, shared_memory(P) as memory:
        buffer.map_file(0, P, memory, writable=True)
        context = multiprocessing.get_context("fork")
        workers = [
            context.Process(target=buffer.write_plain, args=(8 * i, i, "u8")) for i in range(4)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(30)
            assert worker.exitcode == 0
        assert buffer.read_plain(0, "u8", 4).tolist() == [0, 1, 2, 3]
