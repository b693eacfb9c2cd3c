"""
Faults on mapped files, in processes of their own: how they ended is what is asserted.

Each script maps four pages of a file, has it cut to one and a half, and makes guarded calls, after
something was done to the signal that a fault raises.
"""

import signal

import pytest

SCENE = """
path = os.path.abspath("file")
data = bytes(range(256)) * 64
with open(path, "wb") as file:
    file.write(data)
buffer = SparseBuffer(8 * P)
buffer.map_file(2 * P, 4 * P, path, writable=True)
CUT = P + P // 2

def check():
    with open(path, "wb") as file:
        file.write(data)
    assert buffer.read_at(2 * P, 4 * P) == data
    os.truncate(path, CUT)
    slots = buffer.atomic_slice(2 * P, 4 * P // 8, "u8")
    calls = {
        "read_at": lambda: buffer.read_at(2 * P, 4 * P),
        "read_into": lambda: buffer.read_into(2 * P, bytearray(4 * P)),
        "read_plain": lambda: buffer.read_plain(2 * P + CUT, "u8"),
        "read_plain of an array": lambda: buffer.read_plain(2 * P, "u1", 4 * P),
        "gather": lambda: buffer.gather([2 * P, 2 * P + CUT, 5 * P], "u8"),
        "load": lambda: slots.load(CUT // 8),
        "write_at": lambda: buffer.write_at(2 * P, data),
        "fill_at": lambda: buffer.fill_at(2 * P, 7, 4 * P),
        "write_plain": lambda: buffer.write_plain(4 * P, 1, "u8"),
        "scatter": lambda: buffer.scatter([2 * P, 5 * P], np.ones(2)),
        "fetch_add": lambda: slots.fetch_add(3 * P // 8, 1),
    }
    for name, call in calls.items():
        error = failure(call)
        assert isinstance(error, AccessError), (name, error)
        assert error.reason == "file-truncated", (name, error)
        assert error.filename == path, (name, error.filename)
        assert error.offset >= 2 * P + CUT, (name, error)
        if name in ("read_at", "read_into", "fill_at", "write_at"):
            assert (error.offset, error.transferred) == (2 * P + CUT, CUT), (name, error)
    assert len(buffer.read_at(2 * P, CUT)) == CUT
"""

STATES = {
    "nothing": "",
    "faulthandler enabled": "import faulthandler; faulthandler.enable()",
    "faulthandler enabled and disabled": (
        "import faulthandler; faulthandler.enable(); faulthandler.disable()"
    ),
    "a handler": "signal.signal(signal.SIGBUS, lambda *_: os._exit(3))",
    "ignored": "signal.signal(signal.SIGBUS, signal.SIG_IGN)",
    "default": "signal.signal(signal.SIGBUS, signal.SIG_DFL)",
    "blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
}
PLACES = {
    "the main thread": "check()",
    "a thread": """
failures = []
threading.excepthook = lambda info: failures.append(info)
thread = threading.Thread(target=check)
thread.start()
thread.join()
assert not failures, failures
""",
    "a forked child": """
child = os.fork()
if child == 0:
    try:
        check()
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
""",
    "the end of the interpreter": "import atexit; atexit.register(check)",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("state", STATES)
def test_guarded_calls_whoever_has_the_signal(state, place, run_python):
    """A file cut short is an AccessError in every guarded call, after all that Python can do to SIGBUS."""
    script = f"{SCENE}\ncheck()\n{STATES[state]}\n{PLACES[place]}\n"
    done = run_python(script)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("state", ["faulthandler enabled", "a handler", "ignored"])
def test_guarded_calls_where_the_signal_was_taken_before(state, run_python):
    """The same where the handler was there before the library was imported."""
    script = f"import os, signal\n{STATES[state]}\n"
    done = run_python(f"{script}\n{SCENE}\ncheck()\n")
    assert done.returncode == 0, done.stderr


def test_refused_calls_raise_no_signal(run_python):
    """What the table of regions refuses touches no memory: both signals would end the process."""
    done = run_python(
        SCENE
        + """
signal.signal(signal.SIGSEGV, lambda *_: os._exit(4))
signal.signal(signal.SIGBUS, lambda *_: os._exit(5))
buffer.map_zero(0, P)
for call in (
    lambda: buffer.read_at(7 * P, 1),
    lambda: buffer.write_at(0, b"x"),
    lambda: buffer.fill_at(P - 1, 1, 2),
    lambda: buffer.gather([0, 7 * P], "u8"),
    lambda: buffer.scatter([0], [1]),
    lambda: buffer.atomic_slice(0, 1, "u8").fetch_add(0, 1),
    lambda: buffer.window(P, 1),
    lambda: buffer.window(0, 1, writable=True),
):
    assert failure(call).reason in ("unmapped", "read-only")
""",
    )
    assert done.returncode == 0, done.stderr


FOREIGN = {
    "a fault of another mapping": (
        """
other = open(path, "r+b")
other.truncate(4 * P)
memory = mmap.mmap(other.fileno(), 4 * P)
other.truncate(0)
memory[2 * P]
""",
        signal.SIGBUS,
    ),
    "a null pointer": ("ctypes.string_at(8)", signal.SIGSEGV),
    "SIGBUS by kill": ("os.kill(os.getpid(), signal.SIGBUS)", signal.SIGBUS),
    "SIGSEGV by kill": ("os.kill(os.getpid(), signal.SIGSEGV)", signal.SIGSEGV),
}


@pytest.mark.parametrize("traceback", ["no", "before", "after"])
@pytest.mark.parametrize("what", FOREIGN)
def test_a_crash_that_is_not_ours_stays_one(what, traceback, run_python):
    """It ends the process with its own signal, and with one traceback where faulthandler is on."""
    body, number = FOREIGN[what]
    enable = "import faulthandler; faulthandler.enable()\n"
    script = enable if traceback == "before" else ""
    script += SCENE + "check()\n"
    script += enable if traceback == "after" else ""
    done = run_python(script + body)
    assert done.returncode == -number, done.stderr
    assert done.stderr.count("Fatal Python error") == (0 if traceback == "no" else 1)


def test_an_ignored_signal_that_is_sent_stays_ignored(run_python):
    """SIG_IGN from before the import still holds for a SIGBUS that somebody sends."""
    script = "import signal\nsignal.signal(signal.SIGBUS, signal.SIG_IGN)\n" + SCENE
    done = run_python(
        script + "check()\nos.kill(os.getpid(), signal.SIGBUS)\nprint('alive')",
    )
    assert (done.returncode, done.stdout.strip()) == (0, "alive"), done.stderr


def test_a_python_handler_from_before_hears_what_is_sent(run_python):
    """A handler that was there before the import is called for a SIGBUS that somebody sends."""
    script = "import signal\nsignal.signal(signal.SIGBUS, lambda *_: print('heard'))\n" + SCENE
    done = run_python(
        script + "check()\nos.kill(os.getpid(), signal.SIGBUS)\nprint('alive')",
    )
    assert (done.returncode, done.stdout.split()) == (0, ["heard", "alive"]), done.stderr


def test_after_pytest_has_ended(run_python, tmp_path):
    """Pytest disables faulthandler when it ends, which puts an older handler back."""
    test = tmp_path / "test_inner.py"
    test.write_text(
        "import sys, os, signal, threading, mmap, ctypes\n"
        "import numpy as np\nfrom sparsearray import *\nP = mmap.PAGESIZE\n"
        "def failure(call):\n"
        "    try:\n        call()\n    except Exception as error:\n        return error\n"
        + SCENE
        + "import atexit\natexit.register(check)\ndef test_it():\n    check()\n"
    )
    done = run_python(
        f"import pytest; raise SystemExit(pytest.main(['-q', '-p', 'no:cacheprovider', {str(test)!r}]))"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
