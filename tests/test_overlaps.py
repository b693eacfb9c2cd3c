"""Arrays that share memory, or a file, with what is put into them; and zeros set where others write."""

import mmap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sparsearray
from sparsearray import SparseArray

P = mmap.PAGESIZE
SHAPE = (300, 1000)


def filled() -> tuple[SparseArray, np.ndarray]:
    """Make an array with something here and there, and the same dense."""
    array, dense = sparsearray.zeros(SHAPE), np.zeros(SHAPE)
    for row, value in ((0, 3.25), (7, -2.5), (150, 1.75), (299, 8.0)):
        dense[row, 5:700] = value
        array[row, 5:700] = value
    return array, dense


IN_PLACE: dict[str, Callable[[Any], Any]] = {
    "round into itself": lambda a: np.round(a, out=a),
    "round into its window": lambda a: np.round(a, out=a[...]),
    "clip into its window": lambda a: np.clip(a, -1, 2, out=a[...]),
    "sum of no axes": lambda a: np.sum(a, axis=(), out=a),
    "sum of one row": lambda a: np.sum(a[:1], axis=0, keepdims=True, out=a[:1]),
    "times a row": lambda a: np.multiply(a, a[0], out=a),
    "times itself backwards": lambda a: np.multiply(a, a[::-1], out=a),
    "times its window": lambda a: np.multiply(a, a[...], out=a),
    "itself": lambda a: a.__setitem__(Ellipsis, a),
    "itself backwards": lambda a: a.__setitem__(slice(None, None, -1), a),
    "its negative": lambda a: np.negative(a, out=a[...]),
    "its negative backwards": lambda a: np.negative(a, out=a[::-1]),
}


@pytest.mark.parametrize("call", IN_PLACE.values(), ids=IN_PLACE)
def test_results_into_operands(call: Callable[[Any], Any]) -> None:
    """What shares memory with a result is read before it is written, as numpy does it."""
    array, dense = filled()
    call(array)
    call(dense)
    np.testing.assert_array_equal(array[...], dense)


@pytest.mark.parametrize("which", ["same", "link"])
def test_two_arrays_of_one_file(tmp_path: Path, which: str) -> None:
    """What one array takes from the other, in the same file, is not lost on the way."""
    path = tmp_path / "a.npy"
    array, dense = filled()
    array.save(path)
    other = tmp_path / "b.npy"
    other.hardlink_to(path)
    a = sparsearray.open(path, "r+")
    b = sparsearray.open(other if which == "link" else path, "r+")
    a[...] = b
    np.testing.assert_array_equal(b[...], dense)
    a[1:] = SparseArray(b.buffer, (299, 1000), offset=b.offset)
    dense[1:] = dense[:-1].copy()
    np.testing.assert_array_equal(b[...], dense)
    np.round(b, out=a)
    np.testing.assert_array_equal(b[...], dense.round())
    np.sum(b, axis=(), out=a)
    np.testing.assert_array_equal(b[...], dense.round())


KEYS: dict[str, Any] = {
    "all": ...,
    "rows": slice(10, 200),
    "columns": (slice(None), slice(100, 300)),
    "backwards": (slice(None, None, -1), slice(None, None, -3)),
    "every second": slice(None, None, 2),
    "one row": 150,
    "a new axis": (None, slice(3, 160), None, slice(0, 999)),
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("order", ["C", "F"])
def test_sparse_values(key: Any, order: str, tmp_path: Path) -> None:
    """The holes of a value become zeros, whatever part it is put into, and its items arrive."""
    array, dense = filled()
    shape = dense[key].shape
    value = np.zeros(shape)
    flat = value.reshape(-1)
    flat[len(flat) // 3 : len(flat) // 3 + 700] = 9.5
    flat[-1] = 4
    np.save(tmp_path / "value.npy", np.asarray(value, order=order))
    source = sparsearray.open(tmp_path / "value.npy").copy()
    source.trim()
    array[key] = source
    dense[key] = value
    np.testing.assert_array_equal(array[...], dense)


@pytest.mark.usefixtures("told_pages")
def test_sparse_values_come_before_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    """If an assignment is interrupted, each item is the old one or the new one."""
    array, dense = sparsearray.zeros(1 << 21), np.ones(1 << 21)
    array[...] = 1
    value = sparsearray.zeros(1 << 21)
    value[: 1 << 19] = 2
    value[1 << 20 :] = 2
    seen = 0
    original = SparseArray._fill

    def fill(self: SparseArray, window: Any, part: Any) -> None:
        nonlocal seen
        original(self, window, part)
        seen += 1
        assert set(np.unique(dense)) == {1}
        if seen == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(SparseArray, "_fill", fill)
    with pytest.raises(KeyboardInterrupt):
        array[...] = value
    assert set(np.unique(array[...])) <= {1.0, 2.0}
    monkeypatch.undo()
    array[...] = value
    assert array.sum() == 2 * value[...].astype(bool).sum()


@pytest.mark.usefixtures("told_pages")
def test_sparse_values_leave_holes() -> None:
    """Where a value has holes, pages go back."""
    array = sparsearray.zeros(1 << 20)
    array[...] = 1
    value = sparsearray.zeros(1 << 20)
    value[5] = 1
    array[...] = value
    assert array.nbytes_stored == P


@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "i8"])
def test_indices_of_any_integer(kind: str) -> None:
    """The largest number of a small dtype is an index as any other."""
    top = np.dtype(kind).type(min(np.iinfo(kind).max, 299))
    array, dense = sparsearray.zeros((300, 1000)), np.ones((300, 1000))
    array[...] = 1
    array[top, :5] = 0
    dense[top, :5] = 0
    array.discard((top, slice(500, None, 3)))
    dense[top, 500::3] = 0
    np.testing.assert_array_equal(array[...], dense)


def test_zeros_leave_other_items_to_other_threads() -> None:
    """Zeros in one column lose nothing that is written into another at the same time."""
    array = sparsearray.zeros((1024, 1024))
    array[...] = 1
    window, lost = array[...], []
    stop = threading.Event()

    def write() -> None:
        random = np.random.default_rng(1)
        while not stop.is_set():
            for row in random.integers(0, 1024, 200).tolist():
                window[row] = 0
                window[row, 700] = row + 1
                if window[row, 700] != row + 1:
                    lost.append(row)

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(60):
        array[:, 0] = 0
        array.discard((slice(None), 1))
    stop.set()
    writer.join()
    assert not lost


def test_arrays_without_axes() -> None:
    """0-d arrays work as any other."""
    array, other = sparsearray.zeros(()), sparsearray.zeros(())
    array[()] = 4
    other[()] = 3
    for made, expected in (
        (np.sqrt(array), 2),
        (array * 2, 8),
        (array + other, 7),
        (-array, -4),
        (array > 2, True),
        (array.astype("i4"), 4),
        (np.round(array), 4),
        (np.clip(array, 0, 2), 2),
        (np.real(array), 4),
    ):
        assert made.shape == ()
        assert made[()] == expected
    array[...] = other
    assert array[()] == 3
    array *= 2
    assert array[()] == 6
    line = sparsearray.zeros(1000)
    line[3] = 9
    line[..., 3] = other
    assert line[3] == 3
    dense = np.zeros(3)
    np.copyto(dense, other)
    assert dense.tolist() == [3, 3, 3]
    np.copyto(array, other)
    assert array[()] == 3
    record = sparsearray.zeros((), "i4,f8")
    record[()] = (1, 2.5)
    records = sparsearray.zeros(3, "i4,f8")
    records[1] = record
    assert records[1].item() == (1, 2.5)
    assert (6 in array, 3 in array, b"a" in sparsearray.zeros((), "S1")) == (False, True, False)


def test_fields_of_values_with_holes_in_any_layout() -> None:
    """A field with items of its own, and values in Fortran order: zeros come where the holes are."""
    array, value = (
        sparsearray.zeros(4096, [("f", "f8", (2,)), ("g", "i4")]),
        sparsearray.zeros((4096, 2)),
    )
    array["f"], array["g"] = 3, 4
    value[100], value[2048:] = 5, 5
    array["f"] = value
    assert np.array_equal(array["f"], value[...])
    assert (array["g"] == 4).all()

    buffer = sparsearray.SparseBuffer(1 << 20)
    buffer.alloc(0, 1 << 20)
    value = sparsearray.SparseArray(buffer, (128, 64), order="F")
    value[:, 3] = 5
    array = sparsearray.zeros((128, 64), [("f", "f8"), ("g", "i4")])
    array["f"] = 3
    array["f"] = value
    assert np.array_equal(array["f"], value[...])


def test_a_single_item_in_fortran_order() -> None:
    """An array without axes takes it as any other."""
    buffer = sparsearray.SparseBuffer(P)
    buffer.alloc(0, P)
    value = sparsearray.SparseArray(buffer, (), order="F")
    array = sparsearray.zeros(())
    array[...] = 1
    value[...] = 7
    array[...] = value
    assert array[()] == 7
    array[None] = sparsearray.SparseArray(buffer, (1,), order="F")
    assert array[()] == 7


@pytest.mark.parametrize(
    "key", [(slice(None), slice(None, None, -1)), [5, 1], (3,)], ids=["reversed", "rows", "row"]
)
def test_values_from_another_place_of_the_file(tmp_path: Path, key: Any) -> None:
    """A value that is repeated does not change while it is written."""
    path = tmp_path / "raw"
    np.arange(20000.0).tofile(path)
    rows = sparsearray.open(path, "r+", dtype="f8", shape=(10000, 2))
    first = sparsearray.open(path, "r+", dtype="f8", shape=(2,))
    expected = rows[...].copy()
    expected[key] = [0, 1]
    rows[key] = first
    assert np.array_equal(rows[...], expected)
