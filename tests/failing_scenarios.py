"""What is done while system calls fail: sequences of the library's calls, and what must hold after each."""

from __future__ import annotations

import errno
import mmap
import os
import random
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import sparsearray
from sparsearray import AccessError, SparseBuffer
from sparsearray.testing import ModelBuffer, ModelFile

P = mmap.PAGESIZE


def open_files() -> int:
    """Count the descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- quick


def pattern(nbytes: int, seed: int) -> bytes:
    """Bytes, none of them zero."""
    return random.Random(seed).randbytes(nbytes).replace(b"\0", b"\1")


class Trial:
    """
    One run of a scenario.

    Parameters
    ----------
    folder, elsewhere : path
        Empty folders for its files, and for those that are in the way there.
    syscall : str
        The kind of the one call that fails.
    number : int
        Its errno.
    """

    def __init__(self, folder: Path, elsewhere: Path, syscall: str, number: int) -> None:
        self.folder = folder
        self.elsewhere = elsewhere
        self.syscall = syscall
        self.number = number
        self.failed: list[str] = []
        self.check: Callable[[], None] = lambda: None

    def step(
        self,
        name: str,
        call: Callable[[], Any],
        then: Callable[[], object] = lambda: None,
        *,
        in_part: bool = False,
        either: bool = False,
    ) -> Any:
        """
        Make a call; if it fails, all must be as before it, and then it must succeed.

        Parameters
        ----------
        name : str
            To count failures by.
        call : callable
            Calls the library.
        then : callable
            Tells the model.
        in_part : bool
            A failed call may have done a part.
        either : bool
            A failed call may have done everything.
        """
        files, has_failed = open_files(), False
        try:
            result = call()
        except (OSError, MemoryError) as error:
            self.note(name, error)
            has_failed = True
        if has_failed:  # and what it made is gone with the exception
            assert open_files() == files, f"{name} leaves {open_files() - files} descriptors"
            if either:
                try:
                    self.checked(name)
                except AssertionError:
                    then()
            if not in_part:
                self.checked(f"{name}, which failed")
            try:
                result = call()
            except Exception as again:
                msg = f"{name} fails again: {again!r}"
                raise AssertionError(msg) from again
        then()
        self.checked(name)
        return result

    def note(self, name: str, error: Exception) -> None:
        """See that an exception is the one that was injected, and says so."""
        self.failed.append(name)
        if isinstance(error, MemoryError):
            assert self.number == errno.ENOMEM, (name, error)
            return
        assert isinstance(error, OSError)
        assert error.errno == self.number, (name, error)
        assert os.strerror(self.number) in str(error) or isinstance(error, AccessError), (
            name,
            error,
        )

    def checked(self, name: str) -> None:
        """Check that all is as it must be."""
        try:
            try:
                self.check()
            except (OSError, MemoryError) as error:  # the failure comes here: there is one only
                self.note("looking", error)
                self.check()
        except AssertionError as error:
            msg = f"after {name}: {error}"
            raise AssertionError(msg) from error

    def synced(self, name: str, thing: Any) -> None:
        """Flush; what the disk says once is said until all is saved elsewhere, and then forgiven."""
        try:
            thing.flush()
        except (OSError, MemoryError) as error:
            self.note(name, error)
            if isinstance(error, AccessError) or self.number == errno.ENOMEM:
                with suppress(OSError):
                    thing.flush()
            else:
                self.checked(f"{name}, which failed")
                assert outcome(thing.flush) == self.number, "the buffer forgets that a flush failed"
            thing.save_to(self.elsewhere / "saved")
            (self.elsewhere / "saved").unlink()
            thing.flush()
        self.checked(name)


def outcome(call: Callable[[], object]) -> int:
    """Make a call; its errno, or 0."""
    try:
        call()
    except OSError as error:
        return error.errno or -1
    return 0


def compare(buffer: SparseBuffer, model: ModelBuffer) -> None:
    """Raise AssertionError where buffer, model and kernel do not agree."""
    regions = buffer.regions
    assert regions == model.regions, f"regions: {regions} instead of {model.regions}"
    for offset, nbytes in model.readable_runs():
        found, expected = buffer.read_at(offset, nbytes), model.read_at(offset, nbytes)
        if found != expected:
            bad = np.flatnonzero(np.frombuffer(found, "u1") != np.frombuffer(expected, "u1"))
            msg = f"{len(bad)} bytes from {offset + int(bad[0]):#x} on differ"
            raise AssertionError(msg)
    # All of the reservation is mapped, each page with the protection that its region has.
    expected_perms = {}
    for region in regions:
        writes = "w" if region.writable else "-"
        for page in range(region.offset // P, (region.offset + region.nbytes) // P):
            expected_perms[page] = f"r{writes}"
    end = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, perms = line.split(maxsplit=2)[:2]
        first, last = (int(number, 16) - buffer.address for number in span.split("-"))
        first, last = max(first, 0), min(last, buffer.nbytes)
        if first >= last:
            continue
        assert first == end, f"no mapping from {end:#x} to {first:#x}"
        end = last
        for page in range(first // P, last // P):
            want = expected_perms.get(page, "--")
            assert perms[:2] == want, f"page {page} is {perms}, and should be {want}"
    assert end == buffer.nbytes, f"no mapping from {end:#x} on"
    assert buffer.damage == ()


class Pair:
    """A buffer and its model, over the same files."""

    def __init__(self, trial: Trial, nbytes: int) -> None:
        self.buffer: SparseBuffer = trial.step("SparseBuffer", lambda: SparseBuffer(nbytes))
        self.model = ModelBuffer(nbytes, P)
        self.trial = trial
        trial.check = self.check

    def check(self) -> None:
        """Compare the two."""
        compare(self.buffer, self.model)

    def both(self, name: str, *arguments: Any, in_part: bool = False, **options: Any) -> Any:
        """Make a call on both; files are models of files."""
        real = [Path(a.name) if isinstance(a, ModelFile) else a for a in arguments]
        call, tell = getattr(self.buffer, name), getattr(self.model, name)
        return self.trial.step(
            name,
            lambda: call(*real, **options),
            lambda: tell(*arguments, **options),
            in_part=in_part,
        )

    def close(self) -> None:
        """Close the buffer."""
        self.trial.check = lambda: None
        self.trial.step("close", self.buffer.close)

    def lay_over_holes(self, offset: int, file: ModelFile, holes: list[tuple[int, int]]) -> None:
        """Put zero pages over holes, in pages, where the buffer has done so: it need not."""
        for first, count in holes:
            start = offset + first * P
            if any(one.kind == "zero" and one.offset == start for one in self.buffer.regions):
                self.model.map_zero(start, count * P)
            else:
                self.model.map_file(start, count * P, file, first * P)


def make_file(trial: Trial, name: str, data: bytes, nbytes: int = 0) -> ModelFile:
    """Make a file of a trial's own, and the model of it."""
    path = trial.folder / name
    path.write_bytes(data)
    if nbytes:
        os.truncate(path, nbytes)
    return ModelFile(str(path), bytearray(data.ljust(nbytes, b"\0")))


def map_everything(trial: Trial) -> None:
    """Map all kinds of pages, and map them anew."""
    before = open_files()
    data = make_file(trial, "data", pattern(8 * P, 1))
    pair = Pair(trial, 40 * P)
    both, buffer = pair.both, pair.buffer
    both("alloc", 2 * P, 6 * P)
    both("write_at", 2 * P, pattern(6 * P, 2))
    both("map_file", 10 * P, 6 * P, data, writable=True)
    both("map_file", 16 * P, 4 * P, data, 4 * P, copy_on_write=True)
    both("write_at", 16 * P + 100, pattern(2 * P, 3))
    both("map_zero", 28 * P, 2 * P)
    both("alloc", 32 * P, 4 * P, reserve=True)
    both("mmap_anonymous", 36 * P, 2 * P, mmap.PROT_READ, mmap.MAP_SHARED)
    both("mmap", 38 * P, 2 * P, mmap.PROT_READ, mmap.MAP_PRIVATE, data, 2 * P)
    window = trial.step("window", lambda: buffer.window(10 * P, (6, P)))
    assert window.tobytes() == bytes(data.data[: 6 * P])
    window[3] = 9
    data.data[3 * P : 4 * P] = b"\x09" * P
    del window
    # Over what is there, in part.
    both("alloc", 3 * P, P)
    both("map_zero", 13 * P, 2 * P)
    both("map_file", 17 * P, P, data)
    both("map_file", 4 * P, 3 * P, data, P, writable=True)
    both("unmap", 5 * P, P)
    both("unmap", 11 * P, 20 * P)
    both("unmap", 0, 40 * P)
    pair.close()
    assert open_files() == before, "descriptors are left"
    assert Path(data.name).read_bytes() == bytes(data.data)


def change_pages(trial: Trial) -> None:
    """Protect, give back, fill and advise pages."""
    data = make_file(trial, "data", pattern(8 * P, 1))
    pair = Pair(trial, 40 * P)
    both, buffer = pair.both, pair.buffer
    both("alloc", 2 * P, 6 * P)
    both("write_at", 2 * P, pattern(6 * P, 2))
    both("map_file", 8 * P, 6 * P, data, writable=True)
    both("map_file", 14 * P, 4 * P, data, 4 * P, copy_on_write=True)
    both("map_zero", 18 * P, 2 * P)
    both("alloc", 20 * P, 2 * P)
    both("write_at", 20 * P, pattern(2 * P, 4))
    # One region, several, and one whose part needs another call.
    both("set_writable", 3 * P, 2 * P, False)
    both("set_writable", 3 * P, 2 * P, True)
    both("set_writable", 6 * P, 10 * P, False)
    both("set_writable", 4 * P, 14 * P, True)
    both("set_writable", 20 * P, 2 * P, False)
    both("set_writable", 17 * P, 5 * P, True)
    both("map_zero", 18 * P, 2 * P)
    both("write_at", 15 * P, pattern(100, 5))
    both("commit", 2 * P, 18 * P)
    both("advise", 2 * P, 18 * P, "random")
    both("decommit", 3 * P, P)
    both("decommit", 6 * P, 14 * P, in_part=True)
    both("write_at", 7 * P, pattern(5 * P, 6))
    trial.step("extents", buffer.extents)
    trial.synced("flush", buffer)
    saved = trial.folder / "saved"
    trial.step("save_to", lambda: buffer.save_to(saved))
    for offset, nbytes in pair.model.readable_runs():
        with saved.open("rb") as file:
            file.seek(offset)
            assert file.read(nbytes) == pair.model.read_at(offset, nbytes), "save_to"
    pair.close()
    assert [path.name for path in sorted(trial.folder.iterdir())] == ["data", "saved"]


def skip_holes(trial: Trial) -> None:
    """Map a file without its holes, and look for new data in them."""
    before = open_files()
    sparse = make_file(trial, "sparse", b"", 8 * P)
    fd = os.open(sparse.name, os.O_RDWR)

    def write(page: int) -> None:
        sparse.data[page * P : page * P + P] = pattern(P, page)
        os.lseek(fd, page * P, os.SEEK_SET)
        os.write(fd, pattern(P, page))

    for page in (0, 1, 6):
        write(page)
    pair = Pair(trial, 16 * P)
    buffer, model = pair.buffer, pair.model

    def mapped() -> None:
        model.map_file(4 * P, 8 * P, sparse)
        pair.lay_over_holes(4 * P, sparse, [(2, 4), (7, 1)])

    call = lambda: buffer.map_file(4 * P, 8 * P, sparse.name, skip_holes=True)  # noqa: E731
    trial.step("map_file", call, mapped)
    window = buffer[4 * P : 12 * P]
    write(3)
    write(5)

    def refreshed() -> None:
        model.map_file(4 * P, 8 * P, sparse)
        pair.lay_over_holes(4 * P, sparse, [(2, 1), (4, 1), (7, 1)])

    trial.step("refresh", buffer.refresh, refreshed)
    assert window.tobytes() == bytes(sparse.data)
    del window
    pair.both("unmap", 8 * P, 2 * P)
    pair.close()
    os.close(fd)
    assert open_files() == before, "descriptors are left"


def arrays(trial: Trial) -> None:  # noqa: PLR0915 -- one call after the other
    """Make, save, open, lengthen and shorten arrays."""
    before = open_files()
    path, other = trial.folder / "a.npy", trial.folder / "b.npy"
    expected = np.zeros((3000, 4), "i4")
    expected[10:20] = np.arange(40).reshape(10, 4)
    expected[2999] = 7
    array: Any = trial.step("zeros", lambda: sparsearray.zeros((3000, 4), "i4", maxshape=(None, 4)))
    array[10:20] = expected[10:20]
    array[2999] = 7

    def check() -> None:
        assert array.shape == expected.shape
        assert np.array_equal(array[...], expected), "the array is another"
        if path.exists():
            assert np.array_equal(np.load(path), saved), "the file is another"
        left = {one.name for one in trial.folder.iterdir()} - {"a.npy", "b.npy"}
        assert not left, f"left behind: {left}"

    trial.check = check
    saved = expected
    trial.step("save", lambda: array.save(path))
    longer = np.vstack([expected, [[1, 2, 3, 4]] * 2000]).astype("i4")

    def became(value: np.ndarray, *, on_disk: bool) -> Callable[[], None]:
        def then() -> None:
            nonlocal expected, saved
            expected = value
            saved = value if on_disk else saved

        return then

    trial.step("append", lambda: array.append(longer[3000:]), became(longer, on_disk=False))
    trial.step("resize", lambda: array.resize((3000, 4)), became(longer[:3000], on_disk=False), either=True)  # fmt: skip
    trial.step("save", lambda: array.save(path))
    trial.step("copy", lambda: array.copy().close())
    trial.check = lambda: None
    trial.step("close", array.close)

    def opened(mode: str, **options: Any) -> None:
        nonlocal array
        trial.check = lambda: None
        array = trial.step("open", lambda: sparsearray.open(path, mode, **options))
        trial.check = check

    def closed() -> None:
        trial.check = lambda: None
        trial.step("close", array.close)

    for mode in "rc":
        opened(mode)
        trial.step("sum", lambda: array.sum(), lambda: None)
        closed()
    opened("r+", maxshape=(None, 4))
    changed = expected.copy()
    changed[100] = 5
    trial.step("array[...] =", lambda: array.__setitem__(100, 5), became(changed, on_disk=True))
    trial.synced("flush", array)
    longer[100] = 5
    trial.step("append", lambda: array.append(longer[3000:]), became(longer, on_disk=True))
    trial.step("resize", lambda: array.resize((9000, 4)), became(np.vstack([longer, np.zeros((4000, 4), "i4")]), on_disk=True))  # fmt: skip
    trial.step("resize", lambda: array.resize((2000, 4)), became(longer[:2000], on_disk=True))
    trial.synced("flush", array)
    closed()
    path = other
    opened("w+", shape=(3000, 4), dtype="i4")
    expected = saved = np.zeros((3000, 4), "i4")
    trial.checked("open")
    closed()
    assert open_files() == before, "descriptors are left"


def cut_short(trial: Trial) -> None:
    """Lose the end of a file under its windows: what they do not show is told."""
    data = make_file(trial, "data", pattern(8 * P, 1))
    buffer: SparseBuffer = trial.step("SparseBuffer", lambda: SparseBuffer(16 * P))
    for at, how in ((0, {"writable": True}), (8 * P, {"copy_on_write": True})):
        call = partial(buffer.map_file, at, 8 * P, data.name, **how)
        trial.step("map_file", call)
    window = buffer[:]
    window[8 * P : 8 * P + 100] = 1
    expected = np.tile(np.frombuffer(data.data, "u1"), 2)
    expected[8 * P : 8 * P + 100] = 1
    os.truncate(data.name, 3 * P)
    lost = np.zeros(16 * P, bool)
    lost[3 * P : 8 * P] = lost[11 * P :] = True
    assert np.array_equal(np.where(lost, 0, expected)[: 3 * P], window[: 3 * P])
    window.sum()
    told = np.zeros(16 * P, bool)
    for one in trial.step("damage", lambda: buffer.damage):
        assert one.reason == "file-truncated"
        told[one.offset : one.offset + one.nbytes] = True
    assert told[lost].all(), "not all that is lost is told"
    # At the limit of mappings there is none for a part of a region: then all of it is given up.
    assert trial.syscall == "mmap" or np.array_equal(told, lost), "damage: what is not lost"
    assert np.array_equal(np.where(told, 0, expected), window), "the window shows something else"
    del window
    trial.step("map_file", lambda: buffer.map_file(0, 3 * P, data.name, writable=True))
    trial.step("unmap", lambda: buffer.unmap(3 * P, 13 * P))
    assert buffer.damage == ()
    assert buffer.read_at(0, 3 * P) == bytes(data.data[: 3 * P])
    trial.step("close", buffer.close)


def full_disk(trial: Trial) -> None:
    """Fill the disk under a window, which keeps what is written until there is room."""
    path, filler = trial.folder / "data", trial.folder / "filler"
    expected = bytearray(pattern(2 * P, 1)) + bytes(8 * P)
    path.write_bytes(expected[: 2 * P])
    os.truncate(path, 10 * P)
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * P)
    buffer: SparseBuffer = trial.step("SparseBuffer", lambda: SparseBuffer(16 * P))
    trial.step("map_file", lambda: buffer.map_file(4 * P, 10 * P, path, writable=True))
    window: Any = buffer[4 * P : 14 * P]

    def check() -> None:
        assert window.tobytes() == bytes(expected), "the window shows something else"

    trial.check = check
    for at, nbytes in ((3 * P + 5, 2 * P), (7 * P, 100)):
        new = pattern(nbytes, at)
        window[at : at + nbytes] = np.frombuffer(new, "u1")
        expected[at : at + nbytes] = new
    trial.checked("writes on a full disk")
    damage = buffer.damage
    assert damage
    assert all(one.kept and one.reason == "no-space" for one in damage), damage
    assert outcome(buffer.flush) in (errno.ENOSPC, trial.number), "flush on a full disk"
    trial.checked("flush on a full disk")
    filler.unlink()
    try:
        buffer.flush()
    except (OSError, MemoryError) as error:
        # An AccessError for what could not be moved: there is no room for another reason.
        if not isinstance(error, AccessError):
            trial.note("flush", error)
        trial.failed.append("flush")
    trial.checked("flush, if it failed")
    if outcome(buffer.flush):  # what the disk said, which is kept
        elsewhere = trial.elsewhere / "saved"
        buffer.save_to(elsewhere)
        elsewhere.unlink()
        buffer.flush()
    trial.checked("flush")
    assert path.read_bytes() == bytes(expected), "the file has something else"
    assert buffer.damage == ()
    window[9 * P] = expected[9 * P] = 1
    assert path.read_bytes() == bytes(expected), "the window does not show the file"
    trial.check = lambda: None
    window = None
    trial.step("close", buffer.close)


SCENARIOS = {
    "map everything": map_everything,
    "change pages": change_pages,
    "skip holes": skip_holes,
    "arrays": arrays,
    "cut short": cut_short,
    "full disk": full_disk,
}
