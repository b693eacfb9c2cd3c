"""Faults on mapped files: each is an exception, whoever has the signal handlers, and only ours is."""

import mmap
import signal

import pytest

P = mmap.PAGESIZE

# Maps a file of 4 pages twice, read-only after a hole and shared with what follows, and cuts it short.
MAP = """
DATA = bytes(range(1, 251)) * (4 * P // 250 + 1)
DATA = DATA[:4 * P]
CUT = P + 100

def make():
    with open("data", "wb") as file:
        file.write(DATA)
    buffer = SparseBuffer(16 * P)
    buffer.map_file(P, 4 * P, "data", writable=True)
    buffer.map_file(8 * P, 4 * P, "data")
    return buffer
"""

# Runs every guarded call over the cut: each tells the first bad byte and the bytes before it.
CHECK = """
def expect(call, operation, offset, transferred):
    try:
        call()
    except AccessError as error:
        found = error.reason, error.operation, error.offset, error.transferred, error.filename
        path = os.path.abspath("data")
        assert found == ("file-truncated", operation, offset, transferred, path), (call, found)
    else:
        raise AssertionError("no error")

def check(buffer):
    os.truncate("data", CUT)
    for base in (P, 8 * P):
        end = base + CUT
        for start, nbytes in [(base, 4 * P), (base + P, P), (base + 2 * P, 8), (base + P + 96, 8)]:
            good = max(end - start, 0)
            bad = start + good
            out = bytearray(nbytes)
            expect(lambda: buffer.read_at(start, nbytes), "read", bad, good)
            expect(lambda: buffer.read_into(start, out), "read", bad, good)
            assert out[:good] == DATA[start - base:][:good]
            expect(lambda: buffer.read_plain(start, f"V{nbytes}"), "read", bad, good)
            expect(lambda: buffer.read_plain(start, "u1", nbytes), "read", bad, good)
            expect(lambda: buffer.gather([base, start], f"V{nbytes}"), "read", bad, 0)             if start > base else None
            expect(lambda: buffer.gather([start], f"V{nbytes}"), "read", bad, 0)
        assert buffer.read_at(base, CUT) == DATA[:CUT]
        assert buffer.gather([base, base + CUT - 8], "V8").tobytes() == DATA[:8] + DATA[CUT - 8 : CUT]
    end = P + CUT
    for start, nbytes in [(P, 4 * P), (2 * P, P), (3 * P, 8), (2 * P + 96, 8)]:
        good = max(end - start, 0)
        bad = start + good
        same = DATA[start - P :][:nbytes]
        expect(lambda: buffer.write_at(start, same), "write", bad, good)
        expect(lambda: buffer.write_plain(start, np.void(same)), "write", bad, good)
        expect(lambda: buffer.scatter([start], np.void(same)), "write", bad, good)
    expect(lambda: buffer.fill_at(3 * P, 0, 2 * P), "write", 3 * P, 0)
    items = buffer.atomic_slice(0, 2 * P, "u8")
    index = 3 * P // 8
    expect(lambda: items.load(index), "read", 3 * P, 0)
    expect(lambda: items.store(index, 1), "write", 3 * P, 0)
    expect(lambda: items.fetch_add(index, 1), "write", 3 * P, 0)
    expect(lambda: items.exchange(index, 1), "write", 3 * P, 0)
    expect(lambda: items.compare_exchange(index, 0, 1), "write", 3 * P, 0)
    assert items.load(P // 8) == int.from_bytes(DATA[:8], sys.byteorder)
    with open("data", "rb") as file:
        assert file.read() == DATA[:CUT]

def dispositions():
    with open("/proc/self/status") as file:
        return [line for line in file if line.startswith(("SigBlk", "SigIgn", "SigCgt"))]
"""

# What somebody else does to the signals, before the buffer maps its first file, or after.
HOSTILE = {
    "nothing": "",
    "faulthandler.enable": "import faulthandler; faulthandler.enable()",
    "faulthandler.disable": "import faulthandler; faulthandler.enable(); faulthandler.disable()",
    "a Python handler": "signal.signal(signal.SIGBUS, lambda *_: calls.append(1))",
    "SIG_IGN": "signal.signal(signal.SIGBUS, signal.SIG_IGN)",
    "SIG_DFL": "signal.signal(signal.SIGBUS, signal.SIG_DFL)",
    "all signals blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
    "SIGBUS blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGBUS])",
    "a C handler": "ctypes.CDLL(None).signal(7, ctypes.cast(ctypes.CDLL(None).abort, ctypes.c_void_p))",
    "ignored and blocked": (
        "signal.signal(signal.SIGBUS, signal.SIG_IGN); "
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGBUS])"
    ),
}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", HOSTILE)
def test_whoever_has_the_handlers(what, when, run_python):
    """Guarded calls report the cut whoever has the signal, and leave handlers and mask as they are."""
    done = run_python(f"""
        {MAP.replace(chr(10), chr(10) + " " * 8)}
        {CHECK.replace(chr(10), chr(10) + " " * 8)}
        calls = []
        if {when == "before"}:
            {HOSTILE[what] or "pass"}
        buffer = make()
        if {when == "after"}:
            {HOSTILE[what] or "pass"}
        before = dispositions()
        check(buffer)
        assert dispositions() == before
        assert not calls
        print("checked")
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "checked\n", "")


@pytest.mark.parametrize("where", ["thread", "child", "thread of a child", "child of a thread"])
@pytest.mark.parametrize(
    "what", ["nothing", "faulthandler.enable", "SIG_IGN", "all signals blocked"]
)
def test_in_threads_and_children(where, what, run_python):
    """The same in other threads, in forked children, and in combinations of them."""
    done = run_python(f"""
        import traceback, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork with threads
        {MAP.replace(chr(10), chr(10) + " " * 8)}
        {CHECK.replace(chr(10), chr(10) + " " * 8)}
        buffer = make()
        {HOSTILE[what] or "pass"}
        failed = []

        def work():
            try:
                check(buffer)
            except BaseException:
                failed.append(traceback.format_exc())

        def in_thread(work):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()

        def in_child(work):
            pid = os.fork()
            if pid == 0:
                work()
                os.write(2, "".join(failed).encode())
                os._exit(len(failed))
            if os.waitpid(pid, 0)[1]:
                failed.append("child")

        {{
            "thread": lambda: in_thread(work),
            "child": lambda: in_child(work),
            "thread of a child": lambda: in_child(lambda: in_thread(work)),
            "child of a thread": lambda: in_thread(lambda: in_child(work)),
        }}[{where!r}]()
        assert not failed, "".join(failed)
        print("checked")
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "checked\n", "")


@pytest.mark.parametrize("option", ["-Xfaulthandler", "-Xdev"])
def test_under_interpreter_options(option, run_python):
    """The same under the interpreter's own fault handling."""
    done = run_python(
        f"""
        {MAP.replace(chr(10), chr(10) + " " * 8)}
        {CHECK.replace(chr(10), chr(10) + " " * 8)}
        check(make())
        print("checked")
        """,
        option,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "checked\n", "")


def test_at_exit(run_python):
    """The same when the interpreter ends, after faulthandler has put the old handlers back."""
    done = run_python(f"""
        import atexit, faulthandler
        faulthandler.enable()
        {MAP.replace(chr(10), chr(10) + " " * 8)}
        {CHECK.replace(chr(10), chr(10) + " " * 8)}
        buffer = make()
        atexit.register(check, buffer)
        faulthandler.disable()
        print("checked")
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "checked\n", "")


@pytest.mark.slow
def test_after_pytest_has_ended(run_python, tmp_path):
    """The same after pytest, which takes faulthandler off when it ends."""
    test = tmp_path / "test_inner.py"
    test.write_text(
        f"""import atexit, mmap, os, sys
import numpy as np
from sparsearray import *
from builtins import open
P = mmap.PAGESIZE
{MAP}{CHECK}
def test_it():
    atexit.register(check, make())
    check(make())
"""
    )
    done = run_python(f"""
        import pytest
        raise SystemExit(pytest.main(["-q", "-p", "no:cacheprovider", {str(test)!r}]))
    """)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_many_faults(run_ok):
    """Thousands of faults in a row are thousands of errors."""
    run_ok(f"""
        {MAP.replace(chr(10), chr(10) + " " * 8)}
        buffer = make()
        os.truncate("data", 0)
        for _ in range(5000):
            assert failure(buffer.read_at, P + 8, 4).reason == "file-truncated"
        signal.signal(signal.SIGBUS, signal.SIG_IGN)
        for _ in range(5000):
            assert failure(buffer.read_at, P + 8, 4).reason == "file-truncated"
    """)


@pytest.mark.parametrize(
    "what", ["nothing", "a Python handler", "SIG_IGN", "SIG_DFL", "SIGBUS blocked"]
)
def test_faults_in_many_threads(what, run_python):
    """Faults of several threads at once, atomics among them, are all caught, whoever has the signal."""
    done = run_python(f"""
        import time
        {MAP.replace(chr(10), chr(10) + " " * 8)}
        calls = []
        buffer = make()
        os.truncate("data", P)
        items = buffer.atomic_slice(0, 2 * P, "u8")
        {HOSTILE[what] or "pass"}
        failed = []

        def work(number):
            try:
                for _ in range(1000):
                    if number % 2:
                        assert failure(items.fetch_add, 3 * P // 8, 1).offset == 3 * P
                    else:
                        assert failure(buffer.read_at, 2 * P - 4, 8).transferred == 4
                        assert failure(buffer.write_at, 2 * P, b"x").offset == 2 * P
                        assert failure(buffer.gather, [P, 2 * P], "u8").offset == 2 * P
                        assert buffer.read_at(P, P) == DATA[:P]
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(4)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 20
        for thread in threads:
            thread.join(max(end - time.monotonic(), 0))
            if thread.is_alive():
                os._exit(98)  # it faults for ever
        assert not failed and not calls, (failed, len(calls))
    """)
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------------------ no signal at all


def test_what_the_table_knows_raises_no_signal(run_ok):
    """Holes and read-only pages are refused without a signal: SIGSEGV would end this process."""
    run_ok("""
        def caught():
            with open("/proc/self/status") as file:
                return int(next(line for line in file if line.startswith("SigCgt")).split()[1], 16)

        before = caught()
        assert not before & (1 << (signal.SIGSEGV - 1) | 1 << (signal.SIGBUS - 1))
        buffer = SparseBuffer(8 * P)
        buffer.alloc(P, P)
        buffer.map_zero(2 * P, P)
        buffer.alloc(3 * P, P)
        buffer.set_writable(3 * P, P, False)
        buffer.mmap_anonymous(4 * P, P, 0, mmap.MAP_PRIVATE)
        holes = [0, 2 * P - 4, 4 * P, 5 * P, 7 * P]
        items = buffer.atomic_slice(0, P, "u8")
        for _ in range(200):
            for at in (0, P - 1, 4 * P, 4 * P - 1, 6 * P):
                reads = [
                    failure(buffer.read_at, at, 2), failure(buffer.read_into, at, bytearray(9)),
                    failure(buffer.read_plain, at, "u2"), failure(buffer.read_plain, at, "u1", 7),
                    failure(buffer.gather, [P, at], "u2"), failure(buffer.window, at, 3),
                ]
                assert [error.reason for error in reads] == ["unmapped"] * 6
            for at in (0, 2 * P - 1, 3 * P - 1, 3 * P, 5 * P, 8 * P - 2):
                writes = [
                    failure(buffer.write_at, at, b"xy"), failure(buffer.fill_at, at, 1, 2),
                    failure(buffer.write_plain, at, np.uint16(1)),
                    failure(buffer.scatter, [P, at], np.uint16(1)),
                ]
                assert all(error.reason in ("unmapped", "read-only") for error in writes)
            for at, reason in [(0, "unmapped"), (2 * P, "read-only"), (5 * P, "unmapped")]:
                assert failure(items.fetch_add, at // 8, 1).reason == reason
                assert failure(items.store, at // 8, 1).reason == reason
            assert failure(items.load, 0).reason == "unmapped"
        assert caught() == before  # no handler that could have hidden a signal
        assert buffer.read_at(P, P) == bytes(P)
    """)


def test_only_sigbus_is_handled(run_ok):
    """Once a file is mapped SIGBUS has a handler; no other signal ever gets one."""
    run_ok(f"""
        {MAP.replace(chr(10), chr(10) + " " * 8)}
        def caught():
            with open("/proc/self/status") as file:
                return int(next(line for line in file if line.startswith("SigCgt")).split()[1], 16)
        before = caught()
        buffer = make()
        assert caught() == before | 1 << (signal.SIGBUS - 1)
        assert signal.getsignal(signal.SIGSEGV) == signal.SIG_DFL
    """)


# ------------------------------------------------------------------------------ others' crashes

SOMEBODY_ELSES = {
    "SIGBUS": """
        array = np.memmap("other", "u1", "w+", shape=4 * P)
        os.truncate("other", 0)
        crash = lambda: array[2 * P]
    """,
    "SIGBUS of a system call in numpy": """
        array = np.memmap("other", "u1", "w+", shape=4 * P)
        os.truncate("other", 0)
        crash = lambda: array.sum()
    """,
    "SIGSEGV": "crash = lambda: ctypes.string_at(0)",
    "SIGSEGV in a buffer": "crash = lambda: ctypes.string_at(SparseBuffer(P).address)",
    # In a thread, to that: faulthandler reads the frames of others while they run, and can crash.
    "SIGBUS sent": """
        def crash():
            if threading.current_thread() is threading.main_thread():
                os.kill(os.getpid(), signal.SIGBUS)
            signal.pthread_kill(threading.get_ident(), signal.SIGBUS)
    """,
    "SIGBUS raised": "crash = lambda: signal.raise_signal(signal.SIGBUS)",
    "SIGFPE raised": "crash = lambda: signal.raise_signal(signal.SIGFPE)",
    "SIGABRT": "crash = os.abort",
}
HANDLERS = ["none", "faulthandler before", "faulthandler after", "faulthandler before and disabled"]


@pytest.mark.parametrize("handlers", HANDLERS)
@pytest.mark.parametrize("what", SOMEBODY_ELSES)
@pytest.mark.parametrize("where", ["main", "thread"])
def test_somebody_elses_crash_stays_one(what, handlers, where, run_python):
    """A crash that is not ours ends the process with its own signal, and one traceback at most."""
    done = run_python(f"""
        import faulthandler
        {MAP.replace(chr(10), chr(10) + " " * 8)}
        if {handlers.startswith("faulthandler before")}:
            faulthandler.enable()
        buffer = make()
        if {handlers == "faulthandler before and disabled"}:
            faulthandler.disable()
        elif {handlers == "faulthandler after"}:
            faulthandler.enable()
        os.truncate("data", 0)
        assert failure(buffer.read_at, P, 1).reason == "file-truncated"
        {SOMEBODY_ELSES[what].replace("        ", " " * 8).strip()}
        print("crashing", flush=True)
        if {where == "thread"}:
            thread = threading.Thread(target=crash)
            thread.start()
            thread.join()
        else:
            crash()
        print("alive", flush=True)
    """)
    number = getattr(signal, what.split()[0])
    assert done.returncode == -number, done.stderr
    assert done.stdout == "crashing\n"
    enabled = handlers in {"faulthandler before", "faulthandler after"}
    assert done.stderr.count("Fatal Python error") == enabled
    assert done.stderr.count("most recent call first") == done.stderr.count("hread 0x")


def test_python_handlers_still_get_what_is_sent(run_ok):
    """A SIGBUS that somebody sends goes to the handler that was there before ours."""
    run_ok(f"""
        {MAP.replace(chr(10), chr(10) + " " * 8)}
        calls = []
        signal.signal(signal.SIGBUS, lambda *_: calls.append(1))
        buffer = make()
        os.kill(os.getpid(), signal.SIGBUS)
        os.truncate("data", 0)
        assert failure(buffer.read_at, P, 1).reason == "file-truncated"
        os.kill(os.getpid(), signal.SIGBUS)
        assert len(calls) == 2
        signal.signal(signal.SIGBUS, signal.SIG_IGN)
        os.kill(os.getpid(), signal.SIGBUS)
        assert len(calls) == 2
    """)


def test_ignored_signals_stay_ignored(run_ok):
    """A SIGBUS that is sent is ignored where it was ignored before ours came."""
    run_ok(f"""
        {MAP.replace(chr(10), chr(10) + " " * 8)}
        signal.signal(signal.SIGBUS, signal.SIG_IGN)
        buffer = make()
        os.kill(os.getpid(), signal.SIGBUS)
        signal.raise_signal(signal.SIGBUS)
        assert buffer.read_at(P, 4) == DATA[:4]
    """)


# ------------------------------------------------------------------------------ Ctrl-C


@pytest.mark.slow
def test_interrupted_copy(run_ok):
    """A Ctrl-C in a long copy arrives before its end, and leaves the buffer as good as before."""
    run_ok("""
        buffer = SparseBuffer(1 << 30)
        buffer.map_zero(0, 1 << 30)
        out = np.ones(700 << 20, "u1")
        class Interrupt(Exception):
            pass
        def interrupt(*_):
            raise Interrupt
        signal.signal(signal.SIGALRM, interrupt)
        interrupted = 0
        for attempt in range(100):
            out[:] = 1
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.001 * (attempt % 20 + 1))
                buffer.read_into(0, out)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Interrupt:
                done = int(np.argmax(out))  # zeros, then ones: whole pieces
                if 0 < done < len(out):
                    assert not out[:done].any() and out[done:].all()
                    interrupted += 1
            if interrupted == 3:
                break
        assert interrupted, "never between two pieces"
        buffer.alloc(0, P)
        buffer.write_at(0, b"fine")
        assert buffer.read_at(0, 5) == b"fine\\0"
        window = buffer[:P]
        assert failure(buffer.close).__class__ is BufferError
        del window
        buffer.close()
    """)


@pytest.mark.slow
def test_storm_of_interrupts(run_ok):
    """Interrupts at any moment of any call leave no pin, descriptor, mapping or lock behind."""
    run_ok("""
        import gc, random
        with open("data", "wb") as file:
            file.write(b"x" * 64 * P)
        class Interrupt(Exception):
            pass
        def interrupt(*_):
            raise Interrupt
        def drain():
            pass
        signal.signal(signal.SIGALRM, interrupt)
        rng = random.Random(1)
        buffer = SparseBuffer(64 * P)
        buffer.alloc(0, 64 * P)
        small = np.zeros(3 * P, "u1")
        offsets = np.arange(3000) * 8
        kept = []
        def make():
            other = SparseBuffer(16 * P)
            other.map_file(0, 8 * P, "data", writable=True)
            other.write_at(0, b"yy")
            kept[:] = [other.window(8, 100), other]
            kept.clear()
        calls = [
            make, make,
            lambda: [buffer.window(i * P, P).sum() for i in range(20)],  # calls[2]
            lambda: [buffer.alloc(i * P, P) for i in range(60)],
            lambda: buffer.map_file(0, 32 * P, "data"),
            lambda: [buffer.read_plain(40 * P, [("a", "u4"), ("b", "u8")]) for _ in range(30)],
            lambda: [buffer.read_into(40 * P, small) for _ in range(30)],
            lambda: buffer.gather(offsets + 33 * P, "u8"),
            lambda: [failure(buffer.read_at, 64 * P - 4, 8) for _ in range(20)],
            lambda: [buffer.unmap(0, P), buffer.alloc(0, 64 * P)],
            lambda: [buffer.regions for _ in range(10)],
            lambda: [buffer.atomic_slice(40 * P, 8).fetch_add(1, 1) for _ in range(20)],
        ]
        def count(path):
            with open(path) as file:
                return sum(1 for _ in file)
        make()
        before = len(os.listdir("/proc/self/fd")), count("/proc/self/maps")
        hits = 0
        for _ in range(6000):
            call = rng.choice(calls)
            try:
                try:
                    signal.setitimer(signal.ITIMER_REAL, rng.uniform(2e-6, 2e-4))
                    call()
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                    drain()
            except Interrupt:
                hits += 1
            except AccessError:
                assert call == calls[2]  # after an unmap that an alloc should have followed
            kept.clear()
        assert hits > 100, hits
        print("ended")
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) <= before[0] + 1, os.listdir("/proc/self/fd")
        assert count("/proc/self/maps") < before[1] + 100
        buffer.alloc(0, 64 * P)
        assert buffer.read_at(0, 64 * P) == bytes(64 * P)
        buffer.close()  # no pin is left
    """)
