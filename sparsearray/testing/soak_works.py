"""What the threads of `sparsearray.testing.soak` do, and how they see that all is well."""

from __future__ import annotations

import faulthandler
import os
import random
import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sparsearray
from sparsearray import AccessError, SparseBuffer, install_fault_handler, shared_memory

__all__ = [
    "BYTES",
    "COUNTS",
    "DISK_PAGES",
    "GRACE",
    "MISMATCHES",
    "NBYTES",
    "PAGE",
    "SIGNALS",
    "WORKS",
    "MismatchError",
    "Round",
    "Worker",
    "check_at_rest",
    "fill_disk",
    "replace_handlers",
]

PAGE = os.sysconf("SC_PAGESIZE")
PAGES = 48  # of each region
NBYTES = PAGES * PAGE
DISK_PAGES = 64
GRACE = 60.0  # seconds after which a round hangs
# What `main` prints, in this order.
COUNTS = (
    "rounds",
    "faults survived (damage seen)",
    "access errors raised",
    "forks",
    "truncations",
    "full disks",
    "signals",
    "handlers replaced",
    "arrays",
    "guarded calls checked",
    "windows checked",
    "bytes checked",
    "mismatches",
)
FAULTS, ERRORS, FORKS, CUTS, DISKS, SIGNALS, HANDLERS, ARRAYS = COUNTS[1:9]
CALLS, WINDOWS, BYTES, MISMATCHES = COUNTS[9:]

_PLACES = np.arange(NBYTES)
PATTERN = (1 + (_PLACES * 7 + _PLACES // PAGE * 13) % 255).astype("u1")  # nowhere zero


class MismatchError(AssertionError):
    """A byte that nobody wrote, or that was lost and nobody was told."""


class Gate:
    """Whoever touches a window comes in with others; whoever takes the signal away, alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._waiting = 0

    @contextmanager
    def together(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._inside >= 0 and not self._waiting)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: self._inside == 0)
            self._waiting -= 1
            self._inside = -1
        try:
            yield
        finally:
            with self._changed:
                self._inside = 0
                self._changed.notify_all()


class Part:
    """A region of the buffer: where it is, and whether its bytes can be lost."""

    def __init__(self, number: int, source: str, **options: bool) -> None:
        self.offset = number * NBYTES
        self.source = source  # 'memory', 'stable' or 'cut', a file
        self.options = options
        self.can_be_lost = source == "cut"
        self.can_write = source == "memory" or any(
            options.get(name) for name in ("writable", "copy_on_write")
        )


PARTS = [
    Part(0, "memory"),
    Part(1, "stable"),
    Part(2, "stable", writable=True),
    Part(3, "stable", copy_on_write=True),
    Part(4, "cut"),
    Part(5, "cut", writable=True),
    Part(6, "cut", copy_on_write=True),
    Part(7, "cut", skip_holes=True),
]


class Round:
    """What the threads of one round share."""

    def __init__(self, seed: int, folder: Path, disk: Path | None) -> None:
        self.seed = seed
        self.folder = folder
        self.disk = disk
        self.gate = Gate()  # of windows: alone where the handler is somebody else's
        self.moment = Gate()  # of guarded calls: alone where it changes hands
        self.stop = threading.Event()
        self.failed: list[str] = []
        self.counts: list[Counter[str]] = []
        self.cutting = threading.Lock()
        for name in ("stable", "cut"):
            (folder / name).write_bytes(PATTERN.tobytes())
        self.buffer = SparseBuffer(len(PARTS) * NBYTES, name="soak")
        for part in PARTS:
            self.map(part)
        self.memory = shared_memory(PAGE)
        self.counters = SparseBuffer(PAGE)
        self.counters.map_file(0, PAGE, self.memory, writable=True)
        self.counter = self.counters.atomic_slice(0, 1, "u8")

    def map(self, part: Part) -> None:
        """Map a part anew. What is lost so far comes back."""
        if part.source == "memory":
            self.buffer.alloc(part.offset, NBYTES)
            self.buffer.write_at(part.offset, PATTERN)
        else:
            file = self.folder / part.source
            self.buffer.map_file(part.offset, NBYTES, file, **part.options)


class Worker:
    """What one thread does again and again, and counts."""

    def __init__(self, this: Round, number: int) -> None:
        self.round = this
        self.buffer = this.buffer
        self.rng = random.Random(this.seed * 100 + number)  # noqa: S311 -- to be repeated
        self.counts: Counter[str] = Counter()
        this.counts.append(self.counts)

    def loop(self, work: Callable[[Worker], None]) -> None:
        """Work until the round ends, or something is wrong."""
        try:
            while not self.round.stop.is_set():
                work(self)
        except BaseException as error:  # noqa: BLE001 -- whatever it is, the round has failed
            kind = "" if isinstance(error, MismatchError) else f"{traceback.format_exc()}\n"
            self.round.failed.append(f"{kind}{work.__name__.strip('_')}: {error}")
            self.round.stop.set()

    def compare(self, what: str, found: NDArray[np.uint8], at: int, *, can_be_lost: bool) -> None:
        """Check bytes that begin at a place of the pattern."""
        expected = PATTERN[at : at + len(found)]
        good = found == expected
        if can_be_lost:
            good |= found == 0
        self.counts[BYTES] += len(found)
        if not good.all():
            bad = int(np.argmin(good))
            msg = (
                f"{what}: byte {at + bad:#x} is {found[bad]}, not {expected[bad]}; "
                f"{len(good) - int(good.sum())} of {len(found)} bytes from {at:#x} on are wrong"
            )
            raise MismatchError(msg)

    def check_error(self, what: str, error: AccessError, part: Part, at: int, nbytes: int) -> None:
        """Check that an access may fail, and how it says so."""
        self.counts[ERRORS] += 1
        start = part.offset + at
        is_inside = start <= error.offset < start + nbytes
        if part.can_be_lost and is_inside and error.reason == "file-truncated":
            return
        msg = f"{what} of {nbytes} bytes at {start:#x}, {part.source}: {error}"
        raise MismatchError(msg)

    def span(self) -> tuple[Part, int, int]:
        """Draw a part of the buffer, and some bytes of it."""
        nbytes = int(2 ** self.rng.uniform(0, 17))
        return self.rng.choice(PARTS), self.rng.randrange(NBYTES - nbytes), nbytes


def call_guarded(worker: Worker) -> None:
    """Make a guarded call, and check what it gives."""
    part, at, nbytes = worker.span()
    what = worker.rng.choice(
        ("read_at", "read_into", "read_plain", "gather", "write_at", "scatter")
    )
    out = np.zeros(nbytes, "u1")
    try:
        with worker.round.moment.together():
            done = _call(worker.buffer, what, part, at, out)
    except AccessError as error:
        worker.check_error(what, error, part, at, nbytes)
        done = error.transferred if what == "read_into" else 0
    worker.counts[CALLS] += 1
    worker.compare(what, out[:done], at, can_be_lost=part.can_be_lost)


def _call(buffer: SparseBuffer, what: str, part: Part, at: int, out: NDArray[np.uint8]) -> int:
    """Make a guarded call; how many bytes were read."""
    offset, nbytes, count = part.offset + at, len(out), min(len(out), 1000)
    if what == "read_at":
        out[:] = np.frombuffer(buffer.read_at(offset, nbytes), "u1")
    elif what == "read_into":
        buffer.read_into(offset, out)
    elif what == "read_plain":
        out[:] = buffer.read_plain(offset, "u1", nbytes)
    elif what == "gather":
        out[:count] = buffer.gather(offset + np.arange(count), "u1")
        return count
    else:
        data = PATTERN[at : at + nbytes]
        if part.can_write and what == "write_at":
            buffer.write_at(offset, data)
        elif part.can_write:
            buffer.scatter(offset + np.arange(count), data[:count])
        return 0
    return nbytes


def look_through_window(worker: Worker) -> None:
    """Read and write through a window."""
    part, at, nbytes = worker.span()
    with worker.round.gate.together():
        window = worker.buffer.window(part.offset + at, nbytes)
        if part.can_write and worker.rng.random() < 0.5:
            window[:] = PATTERN[at : at + nbytes]
        for _ in range(3):
            found = window.copy()
            what = f"window of {part.source} with {part.options}"
            worker.compare(what, found, at, can_be_lost=part.can_be_lost)
        worker.counts[WINDOWS] += 1
        del window


def cut_short(worker: Worker) -> None:
    """Cut the file short, and make it whole again."""
    path = worker.round.folder / "cut"
    with worker.round.cutting:
        os.truncate(path, worker.rng.choice((0, worker.rng.randrange(NBYTES))))
        worker.counts[CUTS] += 1
        time.sleep(worker.rng.uniform(0, 0.004))
        _mend(path)
    time.sleep(worker.rng.uniform(0, 0.002))


def _mend(path: Path) -> None:
    os.truncate(path, NBYTES)
    with path.open("r+b", buffering=0) as file:
        file.write(PATTERN.data)


def map_anew(worker: Worker) -> None:
    """Map what has been lost anew; live windows of others may stand in the way."""
    time.sleep(worker.rng.uniform(0, 0.02))
    damage = worker.buffer.damage
    part = worker.rng.choice([part for part in PARTS if part.can_be_lost])
    with suppress(BufferError, ValueError):  # ValueError: the file is short just now
        worker.round.map(part)
        worker.counts[FAULTS] += sum(
            part.offset <= one.offset < part.offset + NBYTES for one in damage
        )
    with suppress(AccessError):
        worker.buffer.flush(part.offset, NBYTES)


def fork(worker: Worker) -> None:
    """Do much of this in a child, which has the buffer, too."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(int(GRACE))
            _be_child(worker)
            code = 0
        except BaseException:  # noqa: BLE001 -- the parent sees that it failed
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    worker.counts[FORKS] += 1
    if status:
        msg = f"a child ended with {status}"
        raise MismatchError(msg)
    worker.counts["added"] += 1
    time.sleep(worker.rng.uniform(0, 0.05))


def _be_child(worker: Worker) -> None:
    worker.round.gate, worker.round.moment = Gate(), Gate()
    # Whoever had the signal in the parent at this moment.
    install_fault_handler(True)
    worker.rng.seed(os.getpid())
    for _ in range(10):
        look_through_window(worker)
        call_guarded(worker)
    worker.buffer.fill_at(PARTS[0].offset, 0, NBYTES)  # its own copy
    worker.round.counter.fetch_add(0, 1)
    with SparseBuffer(PAGE) as own:
        own.alloc(0, PAGE)
        own.write_at(0, b"child")


def use_arrays(worker: Worker) -> None:
    """Make, save, open, lengthen and lose an array."""
    path = worker.round.folder / f"{threading.get_ident()}.npy"
    rows = worker.rng.randrange(2, NBYTES // 64 // 2)
    expected = PATTERN[: rows * 128].reshape(-1, 64)
    with worker.round.gate.together(), suppress(AccessError):
        with sparsearray.zeros((rows, 64), "u1", maxshape=(None, 64)) as array:
            array[...] = expected[:rows]
            array.append(expected[rows:])
            worker.compare("array", np.array(array).reshape(-1), 0, can_be_lost=False)
            array.resize((rows, 64))
            array.save(path)
        with sparsearray.open(path, "r+", maxshape=(None, 64)) as array:
            array.append(expected[rows:])
            array.flush()
        loaded = np.load(path).reshape(-1)
        worker.compare("np.load", loaded, 0, can_be_lost=False)
        worker.counts[ARRAYS] += 1
        mode: Any = worker.rng.choice(("r", "r+", "c"))
        with sparsearray.open(path, mode) as array:
            if int(array.sum()) != int(expected.sum(dtype="u8")):
                msg = f"sum of an array of {expected.shape}: {array.sum()}"
                raise MismatchError(msg)
            os.truncate(path, 4096 + worker.rng.randrange(expected.nbytes))
            found = array[...].copy().reshape(-1)
            worker.compare("window of an array", found, 0, can_be_lost=True)
            if found[-1]:
                msg = "an array shows bytes that its file has lost"
                raise MismatchError(msg)
            if not array.buffer.damage:
                msg = "an array has lost its file, and damage does not say so"
                raise MismatchError(msg)
            worker.counts[FAULTS] += 1
            worker.counts[ERRORS] += 1
            array.sum()
            msg = "sum of an array that has lost its file raises nothing"
            raise MismatchError(msg)


def fill_disk(worker: Worker) -> None:
    """Write through a window of a file on a full disk, and make room."""
    disk = worker.round.disk
    assert disk is not None  # noqa: S101 -- this works where there is one
    path, filler = disk / "data", disk / "filler"
    pages = DISK_PAGES // 2
    path.touch()
    os.truncate(path, pages * PAGE)
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(PAGE)):
            pass
    expected = np.zeros(pages * PAGE, "u1")
    with worker.round.gate.together(), SparseBuffer(pages * PAGE) as buffer:
        buffer.map_file(0, pages * PAGE, path, writable=True)
        window = buffer[:]
        for _ in range(4):
            at = worker.rng.randrange(len(window))
            stop = min(at + worker.rng.randrange(8 * PAGE), len(window))
            window[at:stop] = expected[at:stop] = PATTERN[at:stop]
        _agree(worker, "window of a full disk", window.copy(), expected)
        lost = buffer.damage
        worker.counts[FAULTS] += len(lost)
        try:
            buffer.flush()
        except AccessError as error:
            worker.counts[ERRORS] += 1
            if error.reason != "no-space":
                raise
        _agree(worker, "window after flush", window.copy(), expected)
        os.truncate(filler, 0)  # a child can have it open
        filler.unlink()
        buffer.flush()
        if buffer.damage:
            msg = f"after flush with room enough: {buffer.damage}"
            raise MismatchError(msg)
        _agree(worker, "window after flush", window.copy(), expected)
        _agree(worker, "file after flush", np.fromfile(path, "u1"), expected)
        del window
    path.unlink()
    worker.counts[DISKS] += 1


def _agree(
    worker: Worker, what: str, found: NDArray[np.uint8], expected: NDArray[np.uint8]
) -> None:
    worker.counts[BYTES] += len(expected)
    if not np.array_equal(found, expected):
        differ = np.flatnonzero(found != expected)
        msg = f"{what}: {len(differ)} bytes are wrong, the first at {int(differ[0]):#x}"
        raise MismatchError(msg)


def replace_handlers(worker: Worker) -> None:
    """Take SIGBUS away, as others do; guarded calls go on, and the next window brings it back."""

    def ignore(*_: object) -> None:
        pass

    replacements: list[Callable[[], object]] = [
        faulthandler.enable,
        faulthandler.disable,
        lambda: signal.signal(signal.SIGBUS, signal.SIG_DFL),
        lambda: signal.signal(signal.SIGBUS, signal.SIG_IGN),
        lambda: signal.signal(signal.SIGBUS, ignore),
        lambda: install_fault_handler(False),
    ]
    with worker.round.gate.alone():
        with worker.round.moment.alone():
            worker.rng.choice(replacements)()
        worker.counts[HANDLERS] += 1
        for _ in range(20):
            call_guarded(worker)
        install_fault_handler(True)
        worker.buffer.window(PARTS[4].offset, 1)
    for _ in range(20):
        call_guarded(worker)
        look_through_window(worker)


def check_at_rest(this: Round, worker: Worker) -> None:
    """Check that what windows do not show of their files is told, when nothing changes any more."""
    _mend(this.folder / "cut")
    buffer = this.buffer
    buffer.refresh()
    told = np.zeros(buffer.nbytes, bool)
    for one in buffer.damage:
        told[one.offset : one.offset + one.nbytes] = True
        worker.counts[FAULTS] += 1
    for part in PARTS:
        window = buffer.window(part.offset, NBYTES).copy()
        lost = window != PATTERN
        # A page copied on write keeps what the file had then.
        if not part.options.get("copy_on_write"):
            lost &= ~told[part.offset : part.offset + NBYTES]
        worker.compare("at rest", window, 0, can_be_lost=part.can_be_lost)
        if lost.any() and not (part.can_be_lost and part.options.get("copy_on_write")):
            msg = f"{int(lost.sum())} bytes of {part.options} are lost, and damage does not say so"
            raise MismatchError(msg)
    for part in PARTS[1:]:
        this.map(part)
        found = np.frombuffer(buffer.read_at(part.offset, NBYTES), "u1")
        worker.compare("mapped anew", found, 0, can_be_lost=False)
    if buffer.damage:
        msg = f"after mapping anew: {buffer.damage}"
        raise MismatchError(msg)
    added = sum(counts.pop("added", 0) for counts in this.counts)
    if this.counter.load(0) != added:
        msg = f"{added} children added 1 each, which makes {this.counter.load(0)}"
        raise MismatchError(msg)
    buffer.close()
    this.counters.close()


WORKS = (
    call_guarded,
    call_guarded,
    look_through_window,
    look_through_window,
    cut_short,
    map_anew,
    fork,
    use_arrays,
)
