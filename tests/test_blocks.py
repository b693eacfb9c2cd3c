"""Blocks: boxes that cover what is populated, and nothing twice."""

import gc
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsearray
from sparsearray import AccessError
from sparsearray.blocks import boxes, item_ranges, items_in, join

shapes = st.lists(st.integers(1, 6), min_size=0, max_size=4).map(tuple)


@given(shapes, st.integers(1, 40), st.data())
def test_boxes_are_the_ranges(shape: tuple[int, ...], most: int, data: st.DataObject) -> None:
    """The items in all boxes are those of the ranges, each once, and no box is too large."""
    size = int(np.prod(shape, dtype=int))
    edges = data.draw(st.lists(st.integers(0, size), unique=True, max_size=10).map(sorted))
    ranges = np.array(edges[: len(edges) // 2 * 2], np.int64).reshape(-1, 2)
    flat = np.zeros(size, int)
    for start, stop in ranges:
        flat[start:stop] = 1
    seen = np.zeros(shape, int)
    for box in boxes(shape, ranges, most):
        assert len(box) == len(shape)
        assert all(0 <= side.start < side.stop and side.step is None for side in box)
        assert seen[box].size <= most
        seen[box] += 1
    assert np.array_equal(seen, flat.reshape(shape))


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=12))
def test_join(pairs: list[tuple[int, int]]) -> None:
    """Joined ranges cover the same numbers, and are apart."""
    ranges = np.array(sorted((a, a + n) for a, n in pairs), np.int64).reshape(-1, 2)
    joined = join(ranges).tolist()
    assert {i for a, b in joined for i in range(a, b)} == {
        i for a, b in ranges.tolist() for i in range(a, b)
    }
    assert all(first[1] < second[0] for first, second in pairwise(joined))


@given(
    st.lists(st.integers(0, 4000), unique=True, max_size=10).map(sorted),
    st.integers(1, 17),
)
def test_item_ranges(edges: list[int], itemsize: int) -> None:
    """Every item that a byte lies in is in a range, and no other."""
    extents = np.array(edges[: len(edges) // 2 * 2], np.int64).reshape(-1, 2)
    found = item_ranges(extents, itemsize)
    items = {byte // itemsize for a, b in extents.tolist() for byte in range(a, b)}
    assert {i for a, b in found.tolist() for i in range(a, b)} == items


def test_items_in() -> None:
    """A box holds one item at least, or it is an error."""
    assert items_in(100, 8) == 12
    assert items_in(None, 8) == (16 << 20) // 8
    with pytest.raises(ValueError, match="max_nbytes must be at least the item size of 8"):
        items_in(7, 8)


@settings(deadline=None)
@given(st.data())
def test_blocks_cover_what_was_written(data: st.DataObject) -> None:
    """What is in no box is zero; boxes are windows, disjoint, and of bounded size."""
    sizes = st.lists(st.sampled_from([1, 2, 3, 50, 700]), min_size=1, max_size=3).map(tuple)
    shape = data.draw(sizes.filter(lambda shape: prod(shape) < 1_000_000))
    dtype = np.dtype(data.draw(st.sampled_from(["u1", "<f8", ">i4", "S3", "c16"])))
    limit = data.draw(st.sampled_from([None, dtype.itemsize, 100, 5000]))
    array = sparsearray.zeros(shape, dtype)
    for _ in range(data.draw(st.integers(0, 4))):
        place = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
        array[place] = 1
    if limit is not None and limit < dtype.itemsize:
        limit = None
    left = np.array(array[...])
    for index, block in array.blocks(max_nbytes=limit):
        assert block.base is not None
        assert limit is None or block.nbytes <= limit
        assert np.shares_memory(block, array[index])
        assert block.shape == array[index].shape
        left[index] = np.zeros((), dtype)
    assert not left.tobytes().strip(b"\0")
    seen = np.zeros(shape, int)
    for index, _ in array.blocks(max_nbytes=limit):
        seen[index] += 1
    assert seen.max(initial=0) <= 1


@pytest.mark.usefixtures("told_pages")
def test_blocks_of_nothing() -> None:
    """Empty arrays and 0-d ones."""
    assert list(sparsearray.zeros((3, 0)).blocks()) == []
    scalar = sparsearray.zeros(())
    assert list(scalar.blocks()) == []
    scalar[()] = 3
    ((index, block),) = scalar.blocks()
    assert (index, block.shape, block[()]) == ((), (), 3)


@pytest.mark.usefixtures("told_pages")
def test_blocks_are_writable() -> None:
    """They are the array's own memory."""
    array = sparsearray.zeros((1 << 18, 1 << 18))
    array[7, 9] = 5
    for _, block in array.blocks():
        block[...] *= 2
    assert array[7, 9] == 10


@settings(deadline=None)
@given(st.data())
def test_chunks_hold_what_blocks_do(data: st.DataObject) -> None:
    """The same items, whatever the place in the buffer, and however small the pieces."""
    dtype = np.dtype(data.draw(st.sampled_from(["u1", "<f8", ">i4", "S3", "c16", "i2,u1"])))
    offset = data.draw(st.sampled_from([0, 1, 64, 4096]))
    count = data.draw(st.integers(1, 300_000 // dtype.itemsize))
    limit = data.draw(st.sampled_from([None, dtype.itemsize, 5000, 100_000]))
    with sparsearray.SparseBuffer(400_000) as buffer:
        buffer.alloc(0, buffer.nbytes)
        for _ in range(data.draw(st.integers(0, 9))):
            place = data.draw(st.integers(0, 300_000 - 1))
            buffer.write_at(place, b"\x01" * data.draw(st.integers(1, 100_000)))
        array = sparsearray.SparseArray(buffer, count, dtype, offset=offset)
        blocks = np.concatenate(
            [np.zeros(0, dtype), *(block for _, block in array.blocks(max_nbytes=limit))]
        )
        chunks = [np.zeros(0, dtype), *array.blocks(max_nbytes=limit).chunks()]
        assert all(chunk.dtype == dtype for chunk in chunks)
        assert limit is None or all(chunk.nbytes <= max(limit, 4096) for chunk in chunks)
        found = np.concatenate([chunk.reshape(-1) for chunk in chunks])
        assert sorted(map(repr, found.tolist())) == sorted(map(repr, blocks.tolist()))
        del array, blocks, chunks, found


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_a_file_cut_short_under_the_last_block(mode: Any, tmp_path: Path) -> None:
    """What was looked at with zeros in it is told when the next step is asked for."""
    path = tmp_path / "a.npy"
    np.save(path, np.ones(1 << 18))
    array = sparsearray.open(path, mode)
    walk = array.blocks()
    _, block = next(walk)
    os.truncate(path, 1 << 16)
    assert block.sum() < block.size
    with pytest.raises(AccessError):
        next(walk)
    del block, walk
    array.close()


@pytest.fixture
def many_blocks(tmp_path: Path) -> tuple[sparsearray.SparseArray, list[Path], np.ndarray]:
    """Stitch files of some pages each, and one of them with a hole."""
    paths = [tmp_path / f"{n}.raw" for n in range(6)]
    items = np.arange(6 * 8192, dtype="i4")
    items[8192:12288] = 0
    for n, path in enumerate(paths):
        items[n * 8192 : (n + 1) * 8192].tofile(path)
    array = sparsearray.stitch(paths, "i4")
    return array, paths, items


def test_blocks_that_are_fetched_ahead(many_blocks: Any) -> None:
    """Many blocks of files come in their order, each once, and are what the files hold."""
    array, _, items = many_blocks
    blocks = array.blocks(max_nbytes=4096).chunks()
    assert np.array_equal(np.concatenate(list(blocks)), items)


@pytest.mark.usefixtures("linux_core")
@pytest.mark.parametrize("left", [0, 4096 + 100, 32768 - 4])
def test_block_that_is_lost_meanwhile(many_blocks: Any, left: int) -> None:
    """A file cut short under blocks that are fetched ahead is an error, at the latest one later."""
    array, paths, items = many_blocks
    blocks = array.blocks(max_nbytes=4096).chunks()
    found = [next(blocks).copy() for _ in range(3)]
    os.truncate(paths[4], left)
    with pytest.raises(AccessError) as caught:
        found.extend(block.copy() for block in blocks)
    assert caught.value.filename == str(paths[4])
    whole = 4 * 8 + left // 4096
    assert whole <= len(found) <= whole + (left % 4096 > 0)
    assert np.array_equal(np.concatenate(found[:whole]), items[: 1024 * whole])


def test_blocks_that_are_not_wanted_any_more(many_blocks: Any) -> None:
    """Who stops in between leaves no thread behind, and no window."""
    array, _, _ = many_blocks
    threads = threading.active_count()
    blocks = array.blocks(max_nbytes=4096).chunks()
    next(blocks)
    blocks.close()
    del blocks
    assert threading.active_count() == threads
    array.close()


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Have Python give back only what nothing refers to."""
    gc.disable()
    yield
    gc.enable()


USES: dict[str, Callable[[Any], object]] = {
    **{
        name: lambda a, name=name: getattr(a, name)()
        for name in (
            *("sum", "prod", "mean", "var", "std", "min", "max", "argmin", "argmax", "any", "all"),
            *("count_nonzero", "nonzero", "extents", "trim", "copy", "_repr_html_", "__repr__"),
        )
    },
    "sum of an axis": lambda a: a.sum(0),
    "some of the blocks": lambda a: next(a.blocks()),
    "all of the blocks": lambda a: [index for index, _ in a.blocks()],
    "a loop that ends early": lambda a: next(block for _, block in a.blocks()).sum(),
    "unique": np.unique,
    "histogram": np.histogram,
    "arithmetic": lambda a: a * 2,
    "a product": lambda a: a @ np.ones(100),
    "equality": lambda a: np.array_equal(a, a),
}


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("tiles", [None, "auto", (7, 9)])
@pytest.mark.parametrize("in_file", [False, True])
def test_an_array_goes_with_the_last_reference(
    use: str, tiles: Any, in_file: bool, tmp_path: Path
) -> None:
    """What an array holds is given back at once: the collector does not know how much it is."""
    a: Any = sparsearray.zeros((100, 100), tiles=tiles)
    a[3:6, 4:90] = 2
    if in_file:
        a.save(tmp_path / "a.npy")
        a = sparsearray.open(tmp_path / "a.npy", "r+")
    USES[use](a)
    buffer = weakref.ref(a.buffer)
    del a
    assert buffer() is None
