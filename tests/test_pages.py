"""Calls on pages that are mapped already."""

import errno
import mmap
import os
from pathlib import Path

import pytest

from sparsearray import (
    AccessError,
    OutOfBoundsError,
    Region,
    SparseBuffer,
    UnsupportedError,
)

P = mmap.PAGESIZE
MIB = 1 << 20


# ------------------------------------------------------------------------------ set_writable


def test_set_writable_keeps_bytes(pattern, mappings):
    """Forbidding writes refuses them, and allowing them again finds the bytes as they were."""
    data = pattern(4 * P)
    with SparseBuffer(4 * P) as buffer:
        buffer.alloc(0, 4 * P)
        buffer.write_at(0, data)
        buffer.set_writable(P, 2 * P, False)
        assert [region[:4] for region in buffer.regions] == [
            (0, P, "private", True),
            (P, 2 * P, "private", False),
            (3 * P, P, "private", True),
        ]
        assert [one.perms for one in mappings(buffer)] == ["rw-p", "r--p", "rw-p"]
        with pytest.raises(AccessError, match="read-only"):
            buffer.write_at(P, b"x")
        assert buffer.read_at(0, 4 * P) == data
        buffer.set_writable(P, 2 * P, True)
        buffer.write_at(P, b"x")
        assert buffer.read_at(0, 4 * P) == data[:P] + b"x" + data[P + 1 :]
        assert buffer.regions == (Region(0, 4 * P, "private", True, None, None),)


def test_writable_zero_pages_become_memory():
    """Zero pages that are made writable are private memory from then on."""
    with SparseBuffer(4 * P) as buffer:
        buffer.map_zero(0, 4 * P)
        buffer.set_writable(P, P, True)
        buffer.fill_at(P, 3, P)
        assert [(r.kind, r.writable) for r in buffer.regions] == [
            ("zero", False),
            ("private", True),
            ("zero", False),
        ]
        assert buffer.read_at(0, 3 * P) == bytes(P) + b"\3" * P + bytes(P)


def test_zero_pages_stay_read_only():
    """Forbidding writes to zero pages changes nothing."""
    with SparseBuffer(P) as buffer:
        buffer.map_zero(0, P)
        buffer.set_writable(0, P, False)
        assert buffer.regions == (Region(0, P, "zero", False, None, None),)


def test_file_window_made_writable(data_file):
    """A window of a file that was opened for writing can be made writable, and writes arrive."""
    path, data = data_file
    with SparseBuffer(4 * P) as buffer:
        with open(path, "r+b") as file:
            buffer.map_file(0, 4 * P, file)
        buffer.set_writable(0, 4 * P, True)
        buffer.write_at(5, b"hello")
        assert path.read_bytes() == data[:5] + b"hello" + data[10:]


def test_read_only_file_stays_read_only(data_file):
    """A window of a file that was opened for reading cannot be made writable."""
    path, data = data_file
    with SparseBuffer(8 * P) as buffer:
        buffer.map_file(0, 4 * P, path)
        buffer.alloc(4 * P, P)
        buffer.set_writable(4 * P, P, False)
        before = buffer.regions
        with pytest.raises(PermissionError) as caught:
            buffer.set_writable(0, 5 * P, True)
        assert caught.value.filename == str(path)
        with pytest.raises(PermissionError):
            buffer.set_writable(0, 4 * P, True)
        assert buffer.regions == before
        assert buffer.read_at(0, P) == data[:P]


def test_copy_on_write_made_read_only_and_back(data_file):
    """A copy-on-write window keeps its own bytes while it is read-only."""
    path, data = data_file
    with SparseBuffer(4 * P) as buffer:
        buffer.map_file(0, 4 * P, path, copy_on_write=True)
        buffer.write_at(0, b"mine")
        buffer.set_writable(0, 4 * P, False)
        with pytest.raises(AccessError):
            buffer.write_at(8, b"x")
        buffer.set_writable(0, 4 * P, True)
        buffer.write_at(4, b"!")
        assert buffer.read_at(0, P) == b"mine!" + data[5:P]
        assert path.read_bytes() == data


# ------------------------------------------------------------------------------ decommit


def test_decommitted_memory_reads_as_zero(resident):
    """Decommitting gives the memory back, and zeros are read in its place."""
    with SparseBuffer(66 * MIB) as buffer:
        buffer.alloc(MIB, 64 * MIB)
        buffer.fill_at(MIB, 5, 64 * MIB)
        before = buffer.regions
        buffer.decommit(2 * MIB, 62 * MIB)
        assert resident(buffer) <= 3 * MIB
        assert buffer.regions == before
        assert buffer.read_at(MIB, 2 * MIB) == b"\5" * MIB + bytes(MIB)
        assert not any(buffer.window(2 * MIB, 62 * MIB // 8, "u8"))
        buffer.write_at(2 * MIB, b"again")
        assert buffer.read_at(2 * MIB, 6) == b"again\0"


def test_decommitted_copy_on_write_is_the_file_again(data_file):
    """Decommitting a copy-on-write window shows the file again."""
    path, data = data_file
    with SparseBuffer(4 * P) as buffer:
        buffer.map_file(0, 4 * P, path, P, copy_on_write=True)
        buffer.fill_at(0, 0, 4 * P)
        buffer.decommit(P, 2 * P)
        assert buffer.read_at(0, 4 * P) == bytes(P) + data[2 * P : 4 * P] + bytes(P)


@pytest.mark.parametrize("writable", [False, True])
def test_decommitted_shared_window_keeps_its_bytes(writable, make_file):
    """Decommitting a shared window of a file changes neither it nor the file."""
    path, data = make_file(4 * P)
    with SparseBuffer(4 * P) as buffer:
        buffer.map_file(0, 4 * P, path, writable=writable)
        if writable:
            buffer.write_at(0, b"kept")
            data = b"kept" + data[4:]
        buffer.decommit(0, 4 * P)
        assert buffer.read_at(0, 4 * P) == data == path.read_bytes()


def test_decommitted_zero_pages_stay_zero():
    """Decommitting zero pages does nothing."""
    with SparseBuffer(4 * P) as buffer:
        buffer.map_zero(0, 4 * P)
        buffer.decommit(0, 4 * P)
        assert buffer.read_at(0, 4 * P) == bytes(4 * P)


def test_decommit_refuses_read_only_memory(pattern):
    """Private memory that is read-only is not thrown away, nor is what lies before it."""
    data = pattern(4 * P)
    with SparseBuffer(4 * P) as buffer:
        buffer.alloc(0, 4 * P)
        buffer.write_at(0, data)
        buffer.set_writable(2 * P, P, False)
        with pytest.raises(AccessError) as caught:
            buffer.decommit(0, 4 * P)
        assert (caught.value.reason, caught.value.operation) == ("read-only", "write")
        assert caught.value.offset == 2 * P
        assert buffer.read_at(0, 4 * P) == data


def test_windows_see_decommit():
    """A live window over decommitted pages reads zeros."""
    with SparseBuffer(4 * P) as buffer:
        buffer.alloc(0, 4 * P)
        window = buffer[:]
        window[:] = 1
        buffer.decommit(P, P)
        assert window.sum() == 3 * P
        window[P] = 9
        assert buffer.read_at(P, 2) == b"\x09\0"
        del window


# ------------------------------------------------------------------------------ commit


def test_commit_takes_the_memory_now(resident):
    """Committed memory is there before it is touched, and keeps its bytes."""
    with SparseBuffer(18 * MIB) as buffer:
        buffer.alloc(MIB, 16 * MIB)
        buffer.write_at(MIB, b"kept")
        assert resident(buffer) <= 4 * MIB
        buffer.commit(MIB, 16 * MIB)
        assert resident(buffer) >= 16 * MIB
        assert buffer.read_at(MIB, 5) == b"kept\0"


def test_commit_of_every_kind(make_file):
    """Commit changes no bytes, whatever is mapped."""
    path, data = make_file(8 * P - 100)
    with SparseBuffer(32 * P) as buffer:
        buffer.alloc(0, 4 * P)
        buffer.map_zero(4 * P, 4 * P)
        buffer.map_file(8 * P, 8 * P, path)
        buffer.map_file(16 * P, 8 * P, path, copy_on_write=True)
        buffer.map_file(24 * P, 8 * P, path, writable=True)
        buffer.set_writable(P, P, False)
        before = buffer.regions
        buffer.commit(0, 32 * P)
        assert buffer.regions == before
        assert buffer.read_at(0, 32 * P) == bytes(8 * P) + (data + bytes(100)) * 3
        assert path.read_bytes() == data


def test_commit_of_a_file_cut_short(make_file):
    """Commit tells the page that a file has lost, and how far it came."""
    path, _ = make_file(8 * P)
    for mode in ("file-read", "file-shared", "file-cow"):
        os.truncate(path, 8 * P)
        with SparseBuffer(16 * P) as buffer:
            buffer.alloc(0, 4 * P)
            buffer.map_file(
                4 * P,
                8 * P,
                path,
                writable=mode == "file-shared",
                copy_on_write=mode == "file-cow",
            )
            os.truncate(path, 3 * P)
            with pytest.raises(AccessError) as caught:
                buffer.commit(P, 11 * P)
            assert caught.value.reason == "file-truncated"
            assert caught.value.offset == 7 * P
            assert caught.value.transferred == 6 * P
            assert caught.value.filename == str(path)


def test_commit_refuses_what_memory_cannot_hold(run_python):
    """Committing more than the system has is an error, before it has taken what there is."""
    done = run_python("""
        def watch():
            with open("/proc/self/statm") as file:
                while True:
                    file.seek(0)
                    if int(file.read().split()[1]) * P > 2 << 30:
                        os._exit(99)  # or it would take all memory there is

        buffer = SparseBuffer(1 << 42)
        buffer.alloc(0, 1 << 42)
        threading.Thread(target=watch, daemon=True).start()
        error = failure(buffer.commit, 0, 1 << 42)
        assert isinstance(error, AccessError), error
        assert (error.reason, error.operation) == ("no-memory", "write"), error
        assert error.offset == error.transferred
        buffer.write_at(5, b"alive")
    """)
    assert done.returncode != 99, "2 GiB are taken, and no error yet"
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------------------ advice, NUMA, names

ADVICE = ["normal", "sequential", "random", "willneed"]
LINUX_ADVICE = ["hugepage", "nohugepage", "cold", "pageout"]


@pytest.mark.parametrize("advice", ADVICE + LINUX_ADVICE)
def test_advice_changes_no_bytes(advice, make_file, linux_core):
    """Advice is taken for memory and files, and every byte stays as it was."""
    if "huge" in advice and not Path("/sys/kernel/mm/transparent_hugepage").exists():
        pytest.skip("this kernel has no transparent huge pages")
    path, data = make_file(4 * MIB)
    with SparseBuffer(12 * MIB) as buffer:
        buffer.alloc(0, 4 * MIB)
        buffer.write_at(0, data)
        buffer.map_file(4 * MIB, 4 * MIB, path, copy_on_write=True)
        buffer.map_zero(8 * MIB, 4 * MIB)
        buffer.write_at(4 * MIB, b"mine")
        if advice in LINUX_ADVICE and not linux_core:
            with pytest.raises(UnsupportedError):
                buffer.advise(0, 12 * MIB, advice)
            return
        before = buffer.regions
        buffer.advise(0, 12 * MIB, advice)
        buffer.advise(P, 2 * P, advice)
        assert buffer.regions == before
        expected = data + b"mine" + data[4:] + bytes(4 * MIB)
        assert buffer.read_at(0, 12 * MIB) == expected


@pytest.mark.parametrize("advice", ["", "HUGEPAGE", "dontneed", "free"])
def test_unknown_advice(advice, filled):
    """Other advice is a ValueError that lists what there is."""
    with pytest.raises(ValueError, match="'?willneed"):
        filled.advise(0, P, advice)


def test_huge_page_advice_reaches_the_kernel(linux_core):
    """The kernel notes the advice for huge pages."""
    if not linux_core or not Path("/sys/kernel/mm/transparent_hugepage").exists():
        pytest.skip("no transparent huge pages here")
    with SparseBuffer(8 * MIB) as buffer:
        buffer.alloc(2 * MIB, 4 * MIB)
        buffer.advise(2 * MIB, 4 * MIB, "hugepage")
        lines = Path("/proc/self/smaps").read_text().splitlines()
        start = next(
            i for i, line in enumerate(lines) if line.startswith(f"{buffer.address + 2 * MIB:x}-")
        )
        flags = next(line for line in lines[start:] if line.startswith("VmFlags:"))
        assert " hg" in flags


def test_bound_to_a_node(filled, linux_core):
    """Memory can be bound to a NUMA node, which the kernel then shows."""
    if not linux_core:
        with pytest.raises(UnsupportedError):
            filled.bind_numa(0, 8 * P, 0)
        return
    try:
        filled.bind_numa(0, 8 * P, 0)
    except UnsupportedError:
        assert not Path("/proc/self/numa_maps").exists()
        return
    lines = Path("/proc/self/numa_maps").read_text().splitlines()
    assert any(line.startswith(f"{filled.address:08x} bind:0") for line in lines)


@pytest.mark.parametrize("node", [-1, -(1 << 70), 4000, 1 << 15, 1 << 16, 1 << 31, 1 << 70])
def test_no_such_node(node, filled):
    """A node that is not there is EINVAL, or the system has no nodes at all."""
    with pytest.raises((OSError, UnsupportedError)) as caught:
        filled.bind_numa(0, P, node)
    assert isinstance(caught.value, UnsupportedError) or caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("name", ["x", "heap of things", "a" * 79, "!~ "])
def test_named_memory(name, filled, mappings):
    """A name shows in /proc/self/maps, where the kernel has names."""
    try:
        filled.set_name(P, 2 * P, name)
    except UnsupportedError as error:
        assert isinstance(error, NotImplementedError)  # noqa: PT017 - as the kernel was built
        return
    named = [one for one in mappings(filled) if one.path == f"[anon:{name}]"]
    assert [(one.start, one.stop) for one in named] == [(P, 3 * P)]


@pytest.mark.parametrize("name", ["", "a" * 80, "new\nline", "tab\t", "\x7f", "ä", *"[]\\`$", "\0"])
def test_bad_names(name, filled):
    """Names that the kernel would not take are ValueErrors that show them."""
    with pytest.raises(ValueError, match="printable") as caught:
        filled.set_name(0, P, name)
    assert repr(name) in str(caught.value)


def test_file_windows_have_names_already(data_file):
    """A range with a window of a file in it cannot be named."""
    path, _ = data_file
    with SparseBuffer(4 * P) as buffer:
        buffer.alloc(0, 2 * P)
        buffer.map_file(2 * P, 2 * P, path)
        with pytest.raises(ValueError, match="data") as caught:
            buffer.set_name(0, 4 * P, "mixed")
        assert str(path) in str(caught.value)
        assert f"{2 * P:#x}" in str(caught.value)


# ------------------------------------------------------------------------------ flush


def test_flush_of_everything(make_file):
    """Flushing covers any range, whatever is mapped, and what was written is in the file."""
    path, data = make_file(4 * P)
    with SparseBuffer(16 * P) as buffer:
        buffer.flush()
        buffer.alloc(0, P)
        buffer.map_zero(P, P)
        buffer.map_file(4 * P, 4 * P, path, writable=True)
        buffer.map_file(8 * P, 4 * P, path)
        buffer.map_file(12 * P, 4 * P, path, copy_on_write=True)
        buffer.write_at(4 * P + 3, b"written")
        buffer.write_at(12 * P, b"not")
        buffer.flush()
        buffer.flush(4 * P)
        buffer.flush(4 * P + 5, 1)
        buffer.flush(3, 16 * P - 3)
        buffer.flush(0, 0)
        buffer.flush(16 * P, 0)
        buffer.flush(16 * P)
        fd = os.open(path, os.O_RDONLY)
        try:
            assert os.pread(fd, 4 * P, 0) == data[:3] + b"written" + data[10:]
        finally:
            os.close(fd)


@pytest.mark.parametrize(
    ("offset", "nbytes", "error"),
    [
        (-1, 1, ValueError), (0, -1, ValueError), (-P, None, ValueError),
        (0, 8 * P + 1, OutOfBoundsError), (8 * P, 1, OutOfBoundsError), (1 << 63, 1, OutOfBoundsError),
        (9 * P, None, ValueError), (0, 1 << 64, OutOfBoundsError), (0.0, 1, TypeError),
        (0, "1", TypeError),
    ],
)  # fmt: skip
def test_flush_arguments(offset, nbytes, error, filled):
    """A range that is negative or past the end is refused."""
    expected = (error, OutOfBoundsError) if offset == 9 * P else error
    with pytest.raises(expected):
        filled.flush(offset, nbytes)
