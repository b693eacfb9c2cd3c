"""Forks at any moment, ways to start processes, exit, interpreters within the process, Ctrl-C."""

import mmap
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import sparsearray

P = mmap.PAGESIZE
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_multiprocessing(method: str, tmp_path: Path) -> None:
    """Children of every kind read and write a file that the parent shows, and survive its loss."""
    script = tmp_path / "main.py"
    script.write_text(f"""
import multiprocessing, os, warnings
import numpy as np
import sparsearray
from sparsearray import AccessError, SparseBuffer

def work(path, number, queue):
    with sparsearray.open(path, "r+") as array:
        array[number] = number + 1
        queue.put(float(array[number].sum()))
    buffer = SparseBuffer({4 * P})
    buffer.map_file(0, {4 * P}, path + f".raw{{number}}")
    window = buffer[:]
    if number == 0:
        os.truncate(path + ".raw0", {P})
    window.sum()
    buffer.damage
    del window
    buffer.close()

if __name__ == "__main__":
    warnings.simplefilter("error")
    context = multiprocessing.get_context({method!r})
    path = {str(tmp_path / "a.npy")!r}
    for i in range(3):
        with open(path + f".raw{{i}}", "wb") as file:
            file.write(bytes([7]) * {4 * P})
    with sparsearray.open(path, "w+", shape=(4, 1000)) as array:
        queue = context.Queue()
        processes = [context.Process(target=work, args=(path, i, queue)) for i in range(3)]
        for process in processes:
            process.start()
        found = sorted(queue.get(timeout=60) for _ in processes)
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0, 0, 0]
        assert found == [1000.0, 2000.0, 3000.0], found
        assert array.sum() == 6000
    print("ended")
""")
    done = subprocess.run(
        [sys.executable, "-P", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr


def test_fork_while_a_length_changes(run_ok: Callable[..., str]) -> None:
    """A child finds the lock of an array free that a thread of its parent holds just then."""
    run_ok("""
        import warnings
        import sparsearray
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork with threads
        array = sparsearray.zeros((0, 100), maxshape=(None, 100))
        entered, go = threading.Event(), threading.Event()
        def slow():
            with array._length():
                entered.set()
                go.wait()
        thread = threading.Thread(target=slow)
        thread.start()
        entered.wait()
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            array.append(np.ones((3, 100)))
            os._exit(0 if array.sum() == 300 else 1)
        assert os.waitpid(pid, 0)[1] == 0
        go.set()
        thread.join()
        array.append(np.ones((1, 100)))
        assert array.sum() == 100
    """)


def test_forks_while_windows_fault(run_ok: Callable[..., str]) -> None:
    """Children that are made while threads meet faults meet theirs, and end."""
    run_ok("""
        import time, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork with threads
        warnings.simplefilter("ignore", SparseDamageWarning)
        stop = False
        failed = []
        def once(name):
            with open(name, "wb") as file:
                file.write(bytes([7]) * 16 * P)
            buffer = SparseBuffer(16 * P)
            buffer.map_file(0, 16 * P, name, writable=True)
            window = buffer[:]
            os.truncate(name, 2 * P)
            assert window.sum() == 7 * 2 * P
            window[-1] = 1
            assert failure(buffer.read_at, 0, 16 * P).transferred == 2 * P
        def work(name):
            try:
                while not stop:
                    once(name)
            except BaseException as error:
                failed.append(error)
        threads = [threading.Thread(target=work, args=(f"data{i}",)) for i in range(3)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 4
        children = 0
        while time.monotonic() < end:
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    signal.alarm(30)
                    once("child")
                    status = 0
                finally:
                    os._exit(status)
            status = os.waitpid(pid, 0)[1]
            if status:
                break
            children += 1
        stop = True
        for thread in threads:
            thread.join()
        assert not failed, failed
        assert status == 0, (status, children)
        assert children > 20, children
    """)


def test_nothing_is_made_at_the_first_call() -> None:
    """A child that is forked while another thread makes what is made once would wait for it for ever."""
    module = Path(sparsearray._native.__file__).read_bytes()
    assert b"sa_reserve" in module
    assert b"__cxa_guard_acquire" not in module, "a function has a static variable that is computed"


@pytest.mark.parametrize("kept", ["window", "thread", "damage", "all"])
def test_exit_with_what_is_alive(kept: str, run_python: Run) -> None:
    """The interpreter ends with windows alive, threads running, damage untold: and without a crash."""
    done = run_python(f"""
        import sparsearray
        with open("data", "wb") as file:
            file.write(bytes([7]) * 16 * P)
        buffer = SparseBuffer(16 * P)
        buffer.map_file(0, 16 * P, "data", writable=True)
        window = buffer[:]
        array = sparsearray.zeros(1 << 30)
        view = array[5:]
        if {kept in ("thread", "all")}:
            def work():
                while True:
                    window.sum(), buffer.read_at(0, 100), view[:1000].sum(), array.append
            for _ in range(3):
                threading.Thread(target=work, daemon=True).start()
        if {kept in ("damage", "all")}:
            os.truncate("data", P)
            window.sum()
        print("ending")
    """)
    assert (done.returncode, done.stdout) == (0, "ending\n"), done.stderr
    assert done.stderr == "" or "SparseDamageWarning" in done.stderr
    assert "Traceback" not in done.stderr or "SparseDamageWarning" in done.stderr


@pytest.mark.parametrize("kind", ["isolated", "legacy"])
def test_interpreters_within_the_process(kind: str, run_python: Run) -> None:
    """Another interpreter imports it or is refused, and neither crashes."""
    if sys.version_info < (3, 12) or sys.version_info < (3, 13):
        new, run = f"create(isolated={kind == 'isolated'})", "run_string"
        module = "_xxsubinterpreters"
    else:
        new, run, module = f"create({kind!r})", "run_string", "_interpreters"
    done = run_python(f"""
        import {module} as interpreters
        buffer = SparseBuffer(P)
        buffer.alloc(0, P)
        one = interpreters.{new}
        script = '''
        import warnings
        warnings.simplefilter("ignore")  # numpy's, of interpreters within the process
        try:
            import sparsearray
            buffer = sparsearray.SparseBuffer(4096)
            buffer.alloc(0, 4096)
            buffer.write_at(0, b"here")
            assert buffer.read_at(0, 4) == b"here"
            print("works", flush=True)
        except ImportError as error:
            print("refused", flush=True)
        '''
        import textwrap
        interpreters.{run}(one, textwrap.dedent(script))
        interpreters.destroy(one)
        buffer.write_at(0, b"fine")
        assert buffer.read_at(0, 4) == b"fine"
        print("ended")
    """)
    assert done.returncode == 0, done.stderr
    assert done.stdout in ("works\nended\n", "refused\nended\n")


def test_ctrl_c_in_a_long_copy(run_python: Run) -> None:
    """It ends the copy in a tenth of a second, and the error says how far it came."""
    done = run_python("""
        import time
        size = 1 << 30
        buffer = SparseBuffer(size)
        with open("data", "wb") as file:
            file.truncate(size)
        buffer.map_file(0, size, "data")
        out = np.empty(size, "u1")
        out.fill(1)
        waits = []
        for i in range(5):
            started = time.monotonic()
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            try:
                while True:
                    buffer.read_into(0, out)
            except KeyboardInterrupt as error:
                waits.append(time.monotonic() - started - 0.02)
                (note,) = error.__notes__
                done = int(note.split("at most ")[1].split()[0])
                assert 0 < done <= size and not out[:done].any(), note
                assert done == size or out[done:].all(), note
            out.fill(1)
        print(sorted(waits)[2] < 0.1, waits)
    """)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("True"), done.stdout
