"""Exceptions: what they also are, what they carry, what they say."""

import copy
import errno
import mmap
import pickle

import pytest

from sparsearray import (
    AccessError,
    ClosedError,
    OutOfBoundsError,
    SparseBuffer,
    SparseError,
    UnsupportedError,
)

P = mmap.PAGESIZE


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (AccessError, OSError),
        (OutOfBoundsError, IndexError),
        (ClosedError, ValueError),
        (UnsupportedError, NotImplementedError),
    ],
)
def test_are_builtins_too(kind, builtin):
    """Each is what users of numpy and files already catch, and a SparseError."""
    assert issubclass(kind, builtin)
    assert issubclass(kind, SparseError)
    assert issubclass(SparseError, Exception)


def hole() -> AccessError:
    """Get the error of a read of a hole."""
    buffer = SparseBuffer(4 * P)
    buffer.alloc(0, P)
    with pytest.raises(AccessError) as caught:
        buffer.read_at(P - 8, 16)
    return caught.value


def cut_short(make_file) -> AccessError:
    """Get the error of a read of a file that was cut short."""
    path, _ = make_file(2 * P)
    buffer = SparseBuffer(4 * P)
    buffer.map_file(P, 2 * P, path)
    path.write_bytes(b"x" * 10)
    with pytest.raises(AccessError) as caught:
        buffer.read_at(P, P)
    return caught.value


def test_access_error_of_a_hole():
    """It has offset, operation, reason, transferred, and what every OSError has."""
    error = hole()
    assert (error.offset, error.operation, error.reason, error.transferred) == (
        P,
        "read",
        "unmapped",
        0,
    )
    assert (error.errno, error.filename) == (errno.EFAULT, None)
    assert str(error) == error.strerror


def test_access_error_of_a_file(make_file):
    """It names the file, and how far the call came."""
    error = cut_short(make_file)
    assert (error.offset, error.transferred) == (P + 10, 10)
    assert error.filename.endswith("data")
    assert "10 bytes" in str(error)
    assert error.filename in str(error)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_access_errors_are_pickled(protocol, make_file):
    """They arrive whole from another process."""
    for error in (hole(), cut_short(make_file)):
        for found in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error)):
            assert type(found) is AccessError
            for name in (
                "offset",
                "operation",
                "reason",
                "transferred",
                "errno",
                "strerror",
                "filename",
            ):
                assert getattr(found, name) == getattr(error, name), name
            assert str(found) == str(error)
            assert found.args == error.args


@pytest.mark.parametrize("kind", [OutOfBoundsError, ClosedError, UnsupportedError, SparseError])
def test_others_are_pickled(kind):
    """So do all others."""
    found = pickle.loads(pickle.dumps(kind("message")))
    assert type(found) is kind
    assert str(found) == "message"


def test_notes_survive():
    """What was added to an error with add_note is still there after pickling."""
    error = hole()
    error.add_note("while reading the header")
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["while reading the header"]


@pytest.mark.parametrize(
    ("reason", "number"),
    [
        ("unmapped", errno.EFAULT),
        ("read-only", errno.EACCES),
        ("file-truncated", errno.ENXIO),
        ("no-space", errno.ENOSPC),
        ("io-error", errno.EIO),
        ("no-memory", errno.ENOMEM),
    ],
)
def test_errno_of_each_reason(reason, number):
    """Each reason has its errno."""
    error = AccessError("message", 5, "read", reason)
    assert (error.errno, error.reason, error.offset) == (number, reason, 5)


def test_messages_say_offsets_twice():
    """Messages give offsets in hex and in decimal: the call's, and the first bad byte's."""
    buffer = SparseBuffer(1 << 40)
    buffer.alloc(0, P)
    cases = [
        (lambda: buffer.read_at(P - 4, 8), [P - 4, P]),
        (lambda: buffer.write_at(0x123456789, b"x"), [0x123456789]),
        (lambda: buffer.read_at((1 << 40) - 1, 2), [(1 << 40) - 1, 1 << 40]),
        (lambda: buffer.set_writable(0, 1 << 40, True), [P, 1 << 40]),
        (lambda: buffer.window(5 * P, 10), [5 * P]),
        (lambda: buffer.alloc(1 << 40, P), [1 << 40]),
        (lambda: buffer.read_at(1 << 70, 1), [1 << 70]),
        (lambda: buffer.gather([0, 0xABCDE000], "u1"), [0xABCDE000]),
        (lambda: buffer.scatter([0xABCDE001], b"x"), [0xABCDE001]),
        (lambda: buffer.atomic_slice(0xABCDE000, 4).load(1), [0xABCDE001]),
    ]
    for call, numbers in cases:
        with pytest.raises(SparseError) as caught:
            call()
        for number in numbers:
            assert f"{number:#x} ({number})" in str(caught.value)


@pytest.mark.parametrize(
    ("call", "verb"),
    [
        (lambda b: b.read_at(0, 1), "read"),
        (lambda b: b.write_at(0, b"x"), "write"),
        (lambda b: b.fill_at(0, 1, 1), "fill"),
        (lambda b: b.gather([0], "u1"), "gather"),
        (lambda b: b.scatter([0], 1), "scatter"),
        (lambda b: b.decommit(0, P), "decommit"),
        (lambda b: b.commit(0, P), "commit"),
        (lambda b: b.advise(0, P, "random"), "advise"),
        (lambda b: b.set_writable(0, P, True), "set_writable"),
        (lambda b: b.window(0, 1), "window"),
        (lambda b: b.atomic_slice(0, 1).load(0), "atomic"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_messages_say_which_call(call, verb):
    """Messages begin with what was asked for."""
    with pytest.raises(AccessError) as caught:
        call(SparseBuffer(P))
    assert str(caught.value).startswith(verb)


def test_a_name_is_not_needed():
    """An error of a hole has no file, and its message no quotes for one."""
    assert "'" not in str(hole())
