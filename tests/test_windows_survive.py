"""Windows survive whoever has the handlers; what is not ours ends the process as ever."""

import mmap
import os
import signal
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sparsearray
from sparsearray import AccessError, SparseBuffer, SparseDamageWarning

P = mmap.PAGESIZE

LOSE = """
with open("data", "wb") as file:
    file.write(bytes([7]) * 8 * P)

def lose():
    # A window of a file that is cut short, read by numpy.
    os.truncate("data", 8 * P)
    with open("data", "r+b") as file:
        file.write(bytes([7]) * 8 * P)
    buffer = SparseBuffer(8 * P)
    buffer.map_file(0, 8 * P, "data", writable=True)
    window = buffer[:]
    os.truncate("data", 3 * P)
    assert window.sum() == 7 * 3 * P
    window[-1] = 9
    assert window[-1] == 9
    assert [(one.offset, one.nbytes) for one in buffer.damage] == [(3 * P, 5 * P)]
"""

# What somebody else does to the signal before the window is made.
HOSTILE = {
    "nothing": "",
    "faulthandler.enable": "import faulthandler; faulthandler.enable()",
    "faulthandler.disable": "import faulthandler; faulthandler.enable(); faulthandler.disable()",
    "a Python handler": "signal.signal(signal.SIGBUS, lambda *_: calls.append(1))",
    "SIG_IGN": "signal.signal(signal.SIGBUS, signal.SIG_IGN)",
    "SIG_DFL": "signal.signal(signal.SIGBUS, signal.SIG_DFL)",
}


@pytest.mark.parametrize("where", ["main", "thread", "child"])
@pytest.mark.parametrize("what", HOSTILE)
def test_whoever_has_the_handlers(
    what: str, where: str, run_python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """Before the import's first file or after it: the next window brings our handler back."""
    done = run_python(f"""
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork with threads
        calls = []
        {LOSE.replace(chr(10), chr(10) + " " * 8)}
        def work():
            {HOSTILE[what] or "pass"}
            lose()
            {HOSTILE[what] or "pass"}
            lose()
            lose()

        failed = []
        def guarded():
            try:
                work()
            except BaseException as error:
                failed.append(repr(error))
        if {where == "main"}:
            guarded()
        elif {where == "thread"}:
            {HOSTILE[what] or "pass"}
            lose()
            thread = threading.Thread(target=lambda: [lose() for _ in range(3)])
            thread.start()
            thread.join()
        else:
            pid = os.fork()
            if pid == 0:
                guarded()
                os._exit(len(failed))
            failed += [1] * os.waitpid(pid, 0)[1]
        assert not failed, failed
        assert not calls
        print("survived")
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "survived\n", "")


def test_faulthandler_enabled_while_a_window_lives(
    run_python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """It prints its traceback, puts our handler back, and the window survives."""
    done = run_python("""
        import faulthandler
        with open("data", "wb") as file:
            file.write(bytes([7]) * 8 * P)
        buffer = SparseBuffer(8 * P)
        buffer.map_file(0, 8 * P, "data")
        window = buffer[:]
        faulthandler.enable()
        os.truncate("data", P)
        assert window.sum() == 7 * P
        assert buffer.damage[0].offset == P
        print("survived")
    """)
    assert (done.returncode, done.stdout) == (0, "survived\n"), done.stderr
    assert done.stderr.count("Fatal Python error: Bus error") == 1


def test_faulthandler_disabled_after_a_window(
    run_python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """A crash that is not ours ends the process; it does not go round between two handlers."""
    done = run_python("""
        import faulthandler
        with open("data", "wb") as file:
            file.write(bytes([7]) * 8 * P)
        buffer = SparseBuffer(8 * P)
        buffer.map_file(0, 8 * P, "data")
        faulthandler.enable()
        window = buffer[:]
        faulthandler.disable()
        other = np.memmap("data", "u1", "r")
        os.truncate("data", P)
        assert window.sum() == 7 * P
        print("ours survived", flush=True)
        other.sum()
    """)
    assert (done.returncode, done.stdout) == (-signal.SIGBUS, "ours survived\n")


@pytest.mark.parametrize("call", ["read_into", "write_at"])
def test_copies_from_and_to_a_lost_window(call: str, tmp_path: Path) -> None:
    """The other side of a copy may be a window that lost its file: it goes on over zeros."""
    path = tmp_path / "data"
    path.write_bytes(b"\7" * 8 * P)
    buffer = SparseBuffer(8 * P)
    buffer.map_file(0, 8 * P, path, writable=True)
    lost = buffer[4 * P :]
    os.truncate(path, 4 * P)
    if call == "read_into":
        buffer.read_into(0, lost)
        assert (lost == 7).all()
    else:
        buffer.write_at(0, lost)
        assert buffer.read_at(0, 4 * P) == bytes(4 * P)
    assert [(one.offset, one.nbytes) for one in buffer.damage] == [(4 * P, 4 * P)]


def test_opting_out(run_python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Without the handler a window ends the process, guarded calls do not; with it again it lives."""
    script = """
        with open("data", "wb") as file:
            file.write(bytes([7]) * 8 * P)
        def handler():
            with open("/proc/self/status") as file:
                caught = next(line for line in file if line.startswith("SigCgt")).split()[1]
            return int(caught, 16) >> signal.SIGBUS - 1 & 1
        buffer = SparseBuffer(8 * P)
        buffer.map_file(0, 8 * P, "data")
        assert handler()
        assert install_fault_handler(False) is True
        assert not handler()
        window = buffer[:]
        assert not handler()
        os.truncate("data", P)
        assert failure(buffer.read_at, 0, 8 * P).transferred == P
        assert failure(buffer.gather, [2 * P], "u4").offset == 2 * P
        if again:
            assert install_fault_handler() is False
            buffer[:P]
            assert handler()
        print("touching", flush=True)
        print(window.sum() // 7 == P)
    """
    done = run_python("again = False\n" + script.replace("\n        ", "\n"))
    assert done.returncode == -signal.SIGBUS
    assert done.stdout == "touching\n"
    done = run_python("again = True\n" + script.replace("\n        ", "\n"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "touching\nTrue\n", "")


def test_a_handler_of_c(run_python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """A fault that is not ours goes to the handler that was there, with the address."""
    done = run_python("""
        library = ctypes.CDLL(None)
        with open("data", "wb") as file:
            file.write(bytes([7]) * 8 * P)
        library.signal(int(signal.SIGBUS), ctypes.cast(library.abort, ctypes.c_void_p))
        buffer = SparseBuffer(8 * P)
        buffer.map_file(0, 8 * P, "data")
        window = buffer[:]
        other = np.memmap("data", "u1", "r")
        os.truncate("data", P)
        assert window.sum() == 7 * P
        print("ours survived", flush=True)
        other.sum()
    """)
    assert (done.returncode, done.stdout) == (-signal.SIGABRT, "ours survived\n")


@pytest.mark.parametrize("size", [1 << 21, 1 << 30, 1 << 40])
@pytest.mark.parametrize("index", ["slice(None, None, 1 << 16)", "slice(None, None, -(1 << 16))"])
def test_one_fault_for_all_that_is_lost(
    size: int, index: str, run_ok: Callable[..., str], linux_core: bool
) -> None:
    """However much a file lost: one mapping takes its place, not one a page."""
    if not linux_core and size > 1 << 30:
        pytest.skip("only Linux's core maps a terabyte here")
    run_ok(f"""
        with open("data", "wb") as file:
            file.truncate({size})
        buffer = SparseBuffer({size})
        buffer.map_file(0, {size}, "data")
        buffer.advise(0, {size}, "random")
        window = buffer[:]
        def mappings():
            with open("/proc/self/maps") as file:
                return sum(1 for _ in file)
        before = mappings()
        os.truncate("data", P)
        part = window[-(1 << 27):] if {size} > 1 << 30 else window
        assert part[{index}].sum() == 0
        assert mappings() <= before + 2
        assert [(one.offset, one.nbytes) for one in buffer.damage] == [(P, {size} - P)]
    """)


def test_a_lost_disk_takes_few_mappings(run_ok: Callable[..., str], misbehaving: Any) -> None:
    """Pages that cannot be read, one beside the other, are one damage."""
    run_ok(f"""
        buffer = SparseBuffer(64 * 8 * P)
        for i in range(64):
            buffer.map_file(i * 8 * P, 8 * P, {str(misbehaving.folder / "broken")!r})
        window = buffer[:]
        assert window.sum() == 64 * (36 - 6) * P
        assert len(buffer.damage) == 64
        assert {{one.nbytes for one in buffer.damage}} == {{P}}
    """)


@pytest.mark.slow  # a sanitizer needs mappings of its own
def test_at_the_mapping_limit(run_ok: Callable[..., str], linux_core: bool) -> None:
    """Where there is no mapping to spare for a part, all of the region is replaced, and told."""
    if not linux_core:
        pytest.skip("this limit is one of Linux")
    run_ok("""
        with open("data", "wb") as file:
            file.write(bytes([7]) * 8 * P)
        with open("/proc/sys/vm/max_map_count") as file:
            limit = int(file.read())
        buffer = SparseBuffer(8 * P)
        buffer.map_file(0, 8 * P, "data")
        window = buffer[:]
        int(window.sum())
        os.truncate("data", P)
        other = SparseBuffer(4 * limit * P)
        with open("/proc/self/maps") as file:
            used = sum(1 for _ in file)
        error = None
        for i in range(limit):
            try:
                other.alloc(2 * i * P, P)
            except OSError as found:
                error = found
                break
        assert error is not None and error.errno == errno.ENOMEM, error
        assert "vm.max_map_count" in str(error)
        total = int(window.sum())
        assert total in (0, 7 * P), total
        damage = buffer.damage
        assert len(damage) == 1 and damage[0].offset in (0, P), damage
        other.write_at(0, b"fine")
        assert other.read_at(0, 4) == b"fine"
    """)


# Who is told


def lose(folder: Path, keep: int = P) -> SparseBuffer:
    """Make a buffer of which a window has met a file that was cut short."""
    path = folder / "data"
    path.write_bytes(b"\7" * 4 * P)
    buffer = SparseBuffer(4 * P)
    buffer.map_file(0, 4 * P, path, writable=True)
    window = buffer[:]
    os.truncate(path, keep)
    assert window.sum() == 7 * keep
    return buffer


def test_the_end_of_a_with_block_tells(tmp_path: Path) -> None:
    """If nobody was told before."""
    with (
        pytest.raises(AccessError, match="lies past the end of its file") as caught,
        lose(tmp_path),
    ):
        pass
    assert caught.value.reason == "file-truncated"
    assert (caught.value.offset, caught.value.filename) == (P, str(tmp_path / "data"))
    with lose(tmp_path) as buffer:
        assert buffer.damage
    with lose(tmp_path) as buffer, pytest.raises(AccessError):
        buffer.flush()
    with lose(tmp_path) as buffer, pytest.raises(AccessError):
        buffer.read_at(0, 4 * P)
    assert buffer.closed


def test_an_exception_in_the_block_says_more(tmp_path: Path) -> None:
    """It is raised; of the damage there is a warning."""
    with (
        pytest.warns(SparseDamageWarning, match="past the end"),
        pytest.raises(ZeroDivisionError),
        lose(tmp_path),
    ):
        raise ZeroDivisionError


@pytest.mark.parametrize("end", ["close", "del"])
def test_nobody_asks(end: str, tmp_path: Path) -> None:
    """Then there is a warning, once."""
    buffer = lose(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if end == "close":
            buffer.close()
        del buffer
    (one,) = caught
    assert one.category is SparseDamageWarning
    assert "lies past the end of its file" in str(one.message)
    assert one.filename == __file__


def test_a_window_that_outlives_its_buffer(tmp_path: Path) -> None:
    """The warning comes when the last window goes."""
    path = tmp_path / "data"
    path.write_bytes(b"\7" * 4 * P)
    buffer = SparseBuffer(4 * P)
    buffer.map_file(0, 4 * P, path)
    window = buffer[:]
    del buffer
    os.truncate(path, P)
    assert window.sum() == 7 * P
    with pytest.warns(SparseDamageWarning):
        del window


def test_mapped_anew_is_told_anew(tmp_path: Path) -> None:
    """What was told of an older window says nothing of the new one."""
    path = tmp_path / "data"
    with pytest.raises(AccessError) as caught, lose(tmp_path, P) as buffer:
        assert buffer.damage[0].offset == P
        path.write_bytes(b"\7" * 4 * P)
        buffer.map_file(0, 4 * P, path)
        window = buffer[:]
        os.truncate(path, 2 * P)
        assert window.sum() == 7 * 2 * P
        del window
    assert caught.value.offset == 2 * P


def test_cut_again_is_told_again(tmp_path: Path) -> None:
    """What is lost later is news."""
    path = tmp_path / "data"
    with pytest.raises(AccessError) as caught, lose(tmp_path, 3 * P) as buffer:
        assert buffer.damage[0].offset == 3 * P
        os.truncate(path, P)
        assert buffer[: 3 * P].sum() == 7 * P
    assert caught.value.offset == P


def test_the_end_of_the_last_page(tmp_path: Path) -> None:
    """No signal comes for it; the buffer looks, and tells what a window showed."""
    path = tmp_path / "data"
    path.write_bytes(b"\7" * 2 * P)
    buffer = SparseBuffer(2 * P)
    buffer.map_file(0, 2 * P, path, writable=True)
    os.truncate(path, 2 * P - 10)
    assert buffer.damage == ()  # nobody has seen it
    window = buffer[:]
    assert window.sum() == 7 * (2 * P - 10)
    assert [(one.offset, one.nbytes) for one in buffer.damage] == [(2 * P - 10, 10)]
    with pytest.raises(AccessError):
        buffer.flush()
    del window


def test_arrays_tell(tmp_path: Path) -> None:
    """The end of the block of an array, flush, and calls that numpy does."""
    path = tmp_path / "a.npy"
    sparsearray.save(path, np.ones((4096, 64)))
    for mode in ("r", "r+", "c"):
        with (
            pytest.raises(AccessError, match="past the end"),
            sparsearray.open(path, mode) as array,
        ):
            window = array[...]
            os.truncate(path, 8192)
            assert window.sum() == 512
            del window
        sparsearray.save(path, np.ones((4096, 64)))
    mask = np.zeros((4096, 64), bool)
    mask[4000] = True
    sparse = sparsearray.zeros((4096, 64), bool)
    sparse[4000] = True
    other = sparsearray.zeros((2, 4096, 64))
    calls: dict[str, Callable[[Any], object]] = {
        "rows": lambda a: a[[0, 4000]],
        "mask": lambda a: a[mask],
        "sparse mask": lambda a: a[sparse],
        "copy": lambda a: a.__array__(copy=True),
        "cast": lambda a: np.asarray(a, "f4"),
        "copyto": lambda a: np.copyto(np.zeros((4096, 64)), a),
        "repeated": lambda a: other.__setitem__(..., a),
        "by index": lambda a: other.__setitem__((0, np.arange(4096)), a),
    }
    writes: dict[str, Callable[[Any], object]] = {
        "rows": lambda a: a.__setitem__([0, 4000], 1),
        "mask": lambda a: a.__setitem__(mask, 1),
        "sparse mask": lambda a: a.__setitem__(sparse, 1),
        "item": lambda a: a.__setitem__((4000, 3), 1),
        "row": lambda a: a.__setitem__(4000, 1),
        "list": lambda a: a.__setitem__(4000, [1] * 64),
    }
    for mode in ("r", "r+", "c"):
        for call in [*calls.values(), *(writes.values() if mode != "r" else [])]:
            sparsearray.save(path, np.ones((4096, 64)))
            array = sparsearray.open(path, mode)
            os.truncate(path, 8192)
            with pytest.raises(AccessError, match="past the end"):
                call(array)


@pytest.mark.usefixtures("told_room")
def test_arrays_on_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    """Where items are set by arrays of indices, memory keeps them until there is room."""
    path = small_disk / "a.npy"
    array = sparsearray.open(path, "w+", shape=(64, P), dtype="u1")
    with pytest.raises(AccessError, match="no room on the disk"):
        array[np.arange(64)] = 5
    assert (array[...] == 5).all()
    array.save_to(tmp_path / "saved.npy")
    assert (np.load(tmp_path / "saved.npy") == 5).all()
    with pytest.raises(AccessError, match=r"no room on the disk.*"):
        array.flush()
    subprocess.run(["mount", "-o", f"remount,size={200 * P}", small_disk], check=True)  # noqa: S607
    array.flush()
    array.close()
    assert (np.load(path) == 5).all()


@pytest.mark.usefixtures("told_room")
def test_closing_with_what_has_no_room(small_disk: Path) -> None:
    """It is refused once, so that nothing is lost; a second call gives it up."""
    path = small_disk / "a.npy"
    array = sparsearray.open(path, "w+", shape=(64, P), dtype="u1")
    array[...][:] = 5
    with pytest.raises(AccessError, match=r"kept in memory: flush\(\) once there is room"), array:
        pass
    assert not array.closed
    assert (array[...] == 5).all()
    array.close()
    assert array.closed
