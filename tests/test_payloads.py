"""What guarded copies take as a source and a target."""

import array
import mmap

import numpy as np
import pytest

from sparsearray import SparseBuffer

P = mmap.PAGESIZE


@pytest.fixture
def page():
    """Make a buffer of one page that counts up."""
    with SparseBuffer(P) as buffer:
        buffer.alloc(0, P)
        buffer.write_at(0, bytes(range(256)) * (P // 256))
        yield buffer


TARGETS = {
    "bytearray": lambda: bytearray(24),
    "memoryview": lambda: memoryview(bytearray(24)),
    "memoryview of words": lambda: memoryview(bytearray(24)).cast("Q"),
    "array": lambda: array.array("H", [0] * 12),
    "mmap": lambda: mmap.mmap(-1, 24),
    "bytes": lambda: np.zeros(24, "u1"),
    "two dimensions": lambda: np.zeros((2, 3), "f4"),
    "no dimensions": lambda: np.zeros((), "V24"),
    "datetime64": lambda: np.zeros(3, "M8[s]"),
    "timedelta64": lambda: np.zeros(3, "m8[ns]"),
    "big-endian complex": lambda: np.zeros(3, ">c8"),
    "text": lambda: np.zeros(6, "U1"),
    "records": lambda: np.zeros(2, [("a", "u4"), ("b", "f8")]),
    "bool": lambda: np.zeros(24, "?"),
    "view": lambda: np.zeros((5, 6), "u1")[1:],
    "half floats": lambda: np.zeros(12, "f2"),
}


@pytest.mark.parametrize("name", TARGETS)
def test_read_into_any_writable_buffer(name, page):
    """Any writable C-contiguous buffer or array is filled with as many bytes as it has."""
    out = TARGETS[name]()
    assert page.read_into(3, out) is None
    found = out.tobytes() if hasattr(out, "tobytes") else bytes(out)
    assert found == bytes(range(3, 27))


NO_TARGETS = {
    "bytes": (lambda: bytes(8), (ValueError, TypeError, BufferError)),
    "memoryview of bytes": (lambda: memoryview(b"12345678"), (ValueError, TypeError, BufferError)),
    "str": (lambda: "text", TypeError),
    "None": (lambda: None, TypeError),
    "int": (lambda: 8, TypeError),
    "list": (lambda: [0] * 8, TypeError),
    "transposed and strided": (lambda: np.zeros((4, 4)).T[:, ::2], ValueError),
    "transposed": (lambda: np.zeros((2, 3)).T, ValueError),
    "transposed datetime64": (lambda: np.asfortranarray(np.zeros((2, 3), "M8[s]")), ValueError),
    "strided": (lambda: np.zeros(8)[::2], ValueError),
    "reversed": (lambda: np.zeros(8)[::-1], ValueError),
    "broadcast": (lambda: np.broadcast_to(np.zeros(1), 8), ValueError),
    "strided memoryview": (lambda: memoryview(bytearray(8))[::2], (ValueError, BufferError)),
    "read-only": (lambda: np.frombuffer(bytes(8)), ValueError),
    "read-only datetime64": (lambda: np.frombuffer(bytes(8), "M8[s]"), ValueError),
    "scalar": (lambda: np.float64(3), (ValueError, TypeError)),
}


@pytest.mark.parametrize("name", NO_TARGETS)
def test_read_into_refuses(name, page):
    """What is read-only, not C-contiguous or no buffer is refused."""
    make, error = NO_TARGETS[name]
    out = make()
    with pytest.raises(error):
        page.read_into(0, out)


@pytest.mark.parametrize(
    "data",
    [
        b"01234567", bytearray(b"01234567"), memoryview(b"01234567"), array.array("I", [1, 2]),
        np.arange(8, dtype="u1"), np.arange(4, dtype=">i2").reshape(2, 2), np.array("2020-01-01", "M8[s]"),
        np.array([(1, 2.0)], [("a", "u1"), ("b", "f4")]), np.float64(2.5), np.datetime64(3, "s"),
        np.array(["ab"], "U2"), np.array(b"abc", "S5"), np.frombuffer(b"0123", "u1"),
        np.zeros((0, 4)), b"", np.void(b"abcd"),
    ],
)  # fmt: skip
def test_write_at_any_buffer(data, page):
    """Any C-contiguous buffer, array or scalar is written as its bytes."""
    expected = data.tobytes() if hasattr(data, "tobytes") else bytes(data)
    page.write_at(5, data)
    assert page.read_at(5, len(expected)) == expected
    assert page.read_at(5 + len(expected), 1) == bytes([5 + len(expected)])


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ("text", TypeError),
        (5, TypeError),
        (None, TypeError),
        ([1, 2], TypeError),
        (np.arange(9)[::2], ValueError),
        (np.zeros((2, 3)).T, ValueError),
        (memoryview(b"12345678")[::2], (ValueError, BufferError)),
    ],
)
def test_write_at_refuses(data, error, page):
    """What is not C-contiguous or no buffer is refused, and nothing written."""
    before = page.read_at(0, P)
    with pytest.raises(error):
        page.write_at(0, data)
    assert page.read_at(0, P) == before


@pytest.mark.parametrize(
    "make",
    [
        "np.zeros(8, object)",
        "np.zeros((2, 2), object)",
        "np.zeros(2, [('a', 'u4'), ('b', object)])",
        "np.zeros(2, [('a', [('b', 'u1'), ('c', 'O', 2)])])",
        "memoryview(np.zeros(8, object))",
        "(ctypes.py_object * 8)()",
    ],
)
def test_objects_are_refused(make, run_ok):
    """Memory that holds Python objects is a TypeError, both ways, and stays as it is."""
    run_ok(f"""
        import gc
        buffer = SparseBuffer(P)
        buffer.alloc(0, P)
        objects = {make}
        buffer.fill_at(0, 0xFF, P)
        errors = [failure(buffer.read_into, 0, objects), failure(buffer.write_at, 0, objects)]
        assert [type(error) for error in errors] == [TypeError, TypeError], errors
        assert buffer.read_at(0, P) == b"\\xff" * P
        gc.collect()
        del objects
    """)


def test_from_one_place_to_another_of_itself(page):
    """A window of the buffer itself can be the source and the target, overlapping or not."""
    model = bytearray(page.read_at(0, P))
    page.write_at(100, page[50:250])
    model[100:300] = bytes(model[50:250])
    assert page.read_at(0, P) == model
    page.read_into(500, page[520:720])
    model[520:720] = bytes(model[500:700])
    assert page.read_at(0, P) == model


@pytest.mark.parametrize("value", [-1, 256, 1 << 40, -(1 << 70)])
def test_fill_value_is_a_byte(value, page):
    """A fill value outside a byte is a ValueError that shows it."""
    with pytest.raises(ValueError, match=str(value)):
        page.fill_at(0, value, 8)
    assert page.read_at(0, 8) == bytes(range(8))


@pytest.mark.parametrize("value", [1.0, "a", b"b", None])
def test_fill_value_is_an_int(value, page):
    """A fill value that is no integer is a TypeError."""
    with pytest.raises(TypeError):
        page.fill_at(0, value, 8)


@pytest.mark.parametrize("value", [0, 1, 127, 128, 255])
def test_fill_values(value, page):
    """Every value of a byte fills."""
    page.fill_at(1, value, 10)
    assert page.read_at(0, 12) == b"\0" + bytes([value]) * 10 + b"\x0b"


def test_read_at_gives_bytes_of_their_own(page):
    """What was read does not change when the buffer does."""
    for nbytes in (0, 1, 2, 100):
        found = page.read_at(5, nbytes)
        expected = bytes(range(5, 5 + nbytes))
        assert type(found) is bytes
        page.fill_at(0, 0xFF, P)
        assert found == expected
        page.write_at(0, bytes(range(256)))
    assert [bytes([i]) for i in range(256)] == [page.read_at(i, 1) for i in range(256)]
