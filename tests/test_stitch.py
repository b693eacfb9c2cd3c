"""`stitch`: what is there, what is copied for it, and what writes reach."""

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsearray
from sparsearray import SparseArray, StitchedArray, shared_memory, stitch

from .array_files import counting
from .stitched_files import (
    KINDS,
    Run,
    Source,
    copied,
    make_numpys,
    make_ours,
    make_raw,
    make_triple,
    new_folder,
    snapshot,
)

P = os.sysconf("SC_PAGESIZE")
TYPES = [
    ("u1", ()),
    ("<f8", (3,)),
    (">i4", ()),
    (">u2", (2, 512)),
    ([("a", "u1"), ("b", ">f4"), ("c", "S3")], ()),
    ([("x", "<f8", (2,)), ("y", "i8", (62,))], (4,)),
]


@st.composite
def plans(draw: st.DrawFn) -> tuple[np.dtype, tuple[int, ...], list[tuple[str, int]]]:
    """Draw a dtype, the shape of a row, and kinds of parts with their rows: about whole pages."""
    made, tail = draw(st.sampled_from(TYPES))
    dtype = np.dtype(made)
    row = dtype.itemsize * int(np.prod(tail))
    lengths = st.builds(
        lambda pages, more: max((pages * P + more * row) // row, 1),
        st.integers(0, 3),
        st.sampled_from([-1, 0, 0, 0, 1]),
    )
    parts = draw(
        st.lists(st.tuples(st.sampled_from(sorted(KINDS)), lengths), min_size=1, max_size=7)
    )
    return dtype, tail, parts


def make_rows(number: int, count: int, dtype: np.dtype, tail: tuple[int, ...]) -> np.ndarray:
    """Make rows whose bytes are all different from those of other parts, and none zero."""
    nbytes = count * int(np.prod(tail)) * dtype.itemsize
    return np.ndarray(
        (count, *tail), dtype, bytearray(counting(nbytes + 37 * number)[37 * number :])
    )


def joined(sources: list[Source]) -> bytes:
    """Join what all parts hold."""
    return b"".join(source.rows.tobytes() for source in sources)


@settings(deadline=None)
@given(plan=plans(), mode=st.sampled_from(["r", "c", "r+"]))
def test_parts_of_every_kind(plan: Any, mode: Any, memory_folder: Path) -> None:
    """The bytes are those of the parts; what is copied is what the model says; writes go where they should."""
    dtype, tail, parts = plan
    with new_folder(memory_folder) as folder:
        sources = [
            KINDS[kind](folder, str(n), make_rows(n, count, dtype, tail))
            for n, (kind, count) in enumerate(parts)
        ]
        runs = [run for source in sources for run in source.runs]
        before = snapshot(folder)
        array = stitch([source.given for source in sources], dtype, (-1, *tail))
        count = copied(runs, array.offset)
        assert (array.nbytes_copied, array.mode, array.dtype) == (count, "r", dtype)
        assert array.shape == (sum(n for _, n in parts), *tail)
        assert np.asarray(array).tobytes() == joined(sources)
        assert not np.asarray(array).flags.writeable
        if mode == "r+" and count:
            with pytest.raises(ValueError, match="part .* would have to be copied"):
                stitch([source.given for source in sources], dtype, (-1, *tail), mode="r+")
            return
        array = stitch([source.given for source in sources], dtype, (-1, *tail), mode=mode)
        assert array.nbytes_copied == count
        if mode == "r":
            with pytest.raises(ValueError, match="read-only"):
                array[0] = array[0]
            return
        new = np.ndarray(array.shape, dtype, bytearray(counting(array.nbytes)[::-1]))
        array[...] = new
        array.flush()
        assert np.asarray(array).tobytes() == new.tobytes()
        if mode == "r+":
            written = new.tobytes()
            for run in runs:
                assert run.path
                data = bytearray(before[run.path.name])
                data[run.offset : run.offset + run.nbytes] = written[: run.nbytes]
                before[run.path.name], written = bytes(data), written[run.nbytes :]
        assert snapshot(folder) == before


@settings(deadline=None)
@given(
    kind=st.sampled_from(["raw", "npy", "triple", "r", "r+"]),
    pages=st.lists(st.integers(1, 3), min_size=1, max_size=6),
    rest=st.integers(0, 4095),
)
def test_whole_pages_need_no_copy(
    kind: str, pages: list[int], rest: int, memory_folder: Path
) -> None:
    """Parts of one kind and of whole pages are not copied, and the last one may end anywhere."""
    lengths = [n * P for n in pages]
    lengths[-1] += rest
    with new_folder(memory_folder) as folder:
        sources = [
            KINDS[kind](folder, str(n), make_rows(n, nbytes, np.dtype("u1"), ()))
            for n, nbytes in enumerate(lengths)
        ]
        array = stitch([source.given for source in sources], "u1", mode="r+")
        assert array.nbytes_copied == 0
        assert {region.kind for region in array.buffer.regions} == {"file"}
        assert np.asarray(array).tobytes() == joined(sources)


@pytest.mark.parametrize("first", [1, P - 1, P, P + 1])
@pytest.mark.parametrize("second", [1, P - 1, P, P + 1])
def test_seams(first: int, second: int, tmp_path: Path) -> None:
    """Around a page, only the page in which two parts meet is a copy, and it is in memory."""
    sources = [
        make_raw(tmp_path, str(n), make_rows(n, nbytes, np.dtype("u1"), ()))
        for n, nbytes in enumerate((first, 3 * P - first, second, 2 * P))
    ]
    array = stitch([source.given for source in sources], "u1")
    runs = [run for source in sources for run in source.runs]
    assert array.nbytes_copied == copied(runs, array.offset)
    assert np.asarray(array).tobytes() == joined(sources)
    held = sum(one.nbytes for one in array.buffer.regions if one.kind == "private")
    assert array.nbytes_copied <= held < array.nbytes_copied + 2 * P
    assert not any(region.writable for region in array.buffer.regions)


def test_the_common_place_wins(tmp_path: Path) -> None:
    """Files of numpy's, whose data begins within a page, are mapped; the odd one out is copied."""
    sources = [
        make_numpys(tmp_path, str(n), make_rows(n, 4 * P, np.dtype("u1"), ())) for n in range(4)
    ]
    sources.insert(2, make_ours(tmp_path, "ours", make_rows(9, 4 * P, np.dtype("u1"), ())))
    array = stitch([source.given for source in sources])
    assert array.offset == sources[0].runs[0].offset
    assert array.nbytes_copied == copied([s.runs[0] for s in sources], array.offset)
    assert array.nbytes_copied == 7 * P  # it, the page it begins in, and two more where others meet
    assert np.asarray(array).tobytes() == joined(sources)


def test_shapes(tmp_path: Path) -> None:
    """Rows are those of the parts that have some, or as the caller says."""
    for n in range(3):
        np.save(tmp_path / f"{n}.npy", np.full((n + 1, 4), n, "i8"))
    paths = [tmp_path / f"{n}.npy" for n in range(3)]
    assert stitch(paths).shape == (6, 4)
    assert stitch(paths, shape=(6, 4)).shape == (6, 4)
    assert stitch(iter(paths), "i8", (-1, 4))[:, 0].tolist() == [0, 1, 1, 2, 2, 2]
    raw = make_raw(tmp_path, "raw", np.arange(24, dtype="i8")).given
    assert stitch([raw], "i8").shape == (24,)
    assert stitch([raw], "i8", -1).shape == (24,)
    assert stitch([raw], "i8", (-1, 2, 3)).shape == (4, 2, 3)
    assert stitch([raw], ("i8", (2, 3))).shape == (4, 2, 3)
    assert stitch([*paths, (str(raw), 64, 128)], shape=(-1, 4)).shape == (10, 4)
    found = stitch([paths[0], raw], "i8")
    assert found.shape == (7, 4)
    assert found[1:].ravel().tolist() == list(range(24))


def test_parts_without_rows(tmp_path: Path) -> None:
    """An array of no rows adds none, and all of them together make an array of none."""
    for n, count in enumerate((0, 5, 0)):
        np.save(tmp_path / f"{n}.npy", np.full((count, 3), 7.0))
    paths = [tmp_path / f"{n}.npy" for n in range(3)]
    array = stitch([*paths, sparsearray.zeros((0, 3))])
    assert array.shape == (5, 3)
    assert [path for path, _, _ in array.parts] == [str(paths[1])]
    empty = stitch([paths[0], paths[2]])
    assert (empty.shape, empty.sum(), empty.parts, empty.nbytes_copied) == ((0, 3), 0, (), 0)


def test_it_is_an_array(tmp_path: Path) -> None:
    """It is a SparseArray: functions, indices, blocks, copies and files as of any."""
    dense = np.arange(6 * P, dtype="i4").reshape(-1, 8)
    sources = [make_raw(tmp_path, str(n), part) for n, part in enumerate(np.split(dense, 3))]
    array = stitch([source.given for source in sources], "i4", (-1, 8))
    assert isinstance(array, SparseArray)
    assert isinstance(array, StitchedArray)
    assert array.parts == tuple((str(source.given), 0, 8 * P) for source in sources)
    assert (array.path, array.mode, array.maxshape) == (None, "r", array.shape)
    assert array.sum() == dense.sum()
    assert array.max(axis=0).tolist() == dense.max(axis=0).tolist()
    assert np.array_equal(array[[5, -1, 1000], 3], dense[[5, -1, 1000], 3])
    assert np.array_equal(array[P // 8 - 1 : P // 4 + 1], dense[P // 8 - 1 : P // 4 + 1])
    assert sum(block.size for _, block in array.blocks()) == dense.size
    assert "StitchedArray (3072, 8) int32" in repr(array) or P != 4096
    assert type(array.copy()) is SparseArray
    assert np.array_equal(array.copy()[...], dense)
    array.save(tmp_path / "all.npy")
    assert np.array_equal(np.load(tmp_path / "all.npy"), dense)
    array.close()
    assert array.closed


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_its_length_stays(mode: Any, tmp_path: Path) -> None:
    """`resize` and `append` are refused, and change nothing."""
    sources = [make_raw(tmp_path, str(n), np.full(P, n + 1, "u1")) for n in range(2)]
    array = stitch([source.given for source in sources], "u1", mode=mode)
    for call in (
        lambda: array.resize(P),
        lambda: array.resize(3 * P),
        lambda: array.append(np.ones(3, "u1")),
    ):
        with pytest.raises(ValueError):
            call()
    assert array.shape == (2 * P,)
    assert np.asarray(array).tobytes() == b"\1" * P + b"\2" * P
    assert [source.given.stat().st_size for source in sources] == [P, P]


# Writing


def test_the_same_file_twice(tmp_path: Path) -> None:
    """A file that is there twice shows what is written to it in both places."""
    source = make_raw(tmp_path, "a", np.ones(2 * P, "u1"))
    array = stitch([source.given, source.given, (source.given, P, P)], "u1", mode="r+")
    array[P + 5] = 9
    assert np.flatnonzero(np.asarray(array) == 9).tolist() == [P + 5, 3 * P + 5, 4 * P + 5]
    assert source.given.read_bytes()[P + 5] == 9


@pytest.mark.parametrize("how", ["numpy", "guarded"])
def test_another_process_sees_writes(how: str, tmp_path: Path) -> None:
    """What is written is in the file at once, for who reads it, and what others write is seen."""
    sources = [make_raw(tmp_path, str(n), np.ones(P, "u1")) for n in range(3)]
    array = stitch([source.given for source in sources], "u1", mode="r+")
    if how == "numpy":
        array[P - 1 : P + 1] = 7
    else:
        array.buffer.write_at(array.offset + P - 1, b"\7\7")
    assert sources[0].given.read_bytes()[-2:] == b"\1\7"
    assert sources[1].given.read_bytes()[:2] == b"\7\1"
    with sources[2].given.open("r+b") as file:
        file.write(b"\5")
    assert array[2 * P] == 5


def test_writing_within_the_last_page(tmp_path: Path) -> None:
    """The rest of the last page is nobody's: the file keeps its length."""
    source = make_raw(tmp_path, "a", np.ones(P + 10, "u1"))
    with stitch([source.given], "u1", mode="r+") as array:
        array[...] = 2
    assert source.given.read_bytes() == b"\2" * (P + 10)


def test_saving_over_a_part(tmp_path: Path, unchanged_files: Any) -> None:
    """An array that writes to its files is not saved over one of them, by whatever name; others are."""
    sources = [make_ours(tmp_path, str(n), np.full(P, n + 1, "u1")) for n in range(2)]
    (tmp_path / "link.npy").symlink_to(sources[1].given)
    array = stitch([source.given for source in sources], mode="r+")
    for name in ("0.npy", "1.npy", "link.npy"):
        with unchanged_files(), pytest.raises(ValueError, match="own file"):
            array.save(tmp_path / name)
    array = stitch([source.given for source in sources])
    array.save(tmp_path / "0.npy")
    assert (
        np.load(tmp_path / "0.npy").tobytes()
        == b"\1" * P + b"\2" * P
        == np.asarray(array).tobytes()
    )


def test_assigning_from_its_own_files(tmp_path: Path) -> None:
    """What overlaps, by way of a file, is read before it is written."""
    dense = np.arange(4 * P, dtype="u4")
    sources = [make_ours(tmp_path, str(n), part) for n, part in enumerate(np.split(dense, 2))]
    array = stitch([source.given for source in sources], mode="r+")
    with sparsearray.open(sources[0].given, "r+") as first:
        array[P : 3 * P] = first
    dense[P : 3 * P] = dense[: 2 * P].copy()
    assert np.array_equal(array[...], dense)
    turned = stitch([source.given for source in reversed(sources)])
    array[...] = turned
    assert np.array_equal(array[...], np.concatenate([dense[2 * P :], dense[: 2 * P]]))


# Descriptors, names and mappings


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_no_descriptor_is_kept(mode: Any, tmp_path: Path, descriptors: Callable[[], int]) -> None:
    """However it is used, no file stays open."""
    sources = [make_raw(tmp_path, str(n), np.ones(P, "u1")) for n in range(20)]
    before = descriptors()
    array = stitch([source.given for source in sources], "u1", mode=mode)
    array.sum()  # may open /proc/self/pagemap once and for all
    kept = descriptors()
    assert kept - before <= 1
    array.extents()
    array.buffer.read_at(0, array.nbytes)
    array.refresh()
    array.flush()
    if mode != "r":
        array[...] = 3
    array.copy()
    assert descriptors() == kept
    assert not [
        link for link in Path("/proc/self/fd").iterdir() if str(tmp_path) in os.path.realpath(link)
    ]


def test_by_name_and_by_descriptor(tmp_path: Path, descriptors: Callable[[], int]) -> None:
    """A file mapped by descriptor in a buffer that has it by name keeps one descriptor, while it is there."""
    sources = [make_raw(tmp_path, str(n), np.full(4 * P, n + 1, "u1")) for n in range(2)]
    before = descriptors()
    array = stitch([source.given for source in sources], "u1")
    buffer = array.buffer
    buffer.map_file(0, P, sources[1].given, 2 * P, writable=True)
    assert descriptors() == before + 1
    buffer.write_at(0, b"\7" * P)
    assert sources[1].given.read_bytes()[2 * P : 3 * P] == b"\7" * P
    assert np.asarray(array)[6 * P : 7 * P].tobytes() == b"\7" * P
    with pytest.raises(PermissionError):
        buffer.set_writable(4 * P, P, writable=True)
    names = [(one.offset // P, one.file) for one in buffer.regions]
    assert names == [
        (0, str(sources[1].given)), (1, str(sources[0].given)), (4, str(sources[1].given))
    ]  # fmt: skip
    buffer.unmap(0, P)
    assert descriptors() == before


@pytest.mark.parametrize("how", ["str", "bytes", "PathLike"])
def test_changing_the_folder(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are those of the folder that was current; what is asked of files later is asked there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    names: list[Any] = []
    for n in range(2):
        make_raw(tmp_path, str(n), np.full(P, n + 1, "u1"))
        name = f"{n}.raw"
        names.append({"str": name, "bytes": name.encode(), "PathLike": Path(name)}[how])
    array = stitch(names, "u1", mode="r+")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert [path for path, _, _ in array.parts] == [
        str(tmp_path / "0.raw"),
        str(tmp_path / "1.raw"),
    ]
    assert array.sum() == 3 * P
    array[0] = 9
    array.flush()
    with pytest.raises(ValueError, match="own file"):
        array.save(tmp_path / "1.raw")


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """A path may be any bytes but zero."""
    path = os.fsencode(tmp_path) + b"/\xff\n'.raw"
    with open(path, "wb") as file:
        file.write(b"\1" * P)
    array = stitch([path, path], "u1")
    assert array.sum() == 2 * P
    assert os.fsencode(str(array.parts[0][0])) == path


def test_renamed_and_replaced(tmp_path: Path) -> None:
    """A file stays part of the array under another name, and when another takes its name."""
    sources = [make_raw(tmp_path, str(n), np.full(2 * P, n + 1, "u1")) for n in range(3)]
    array = stitch([source.given for source in sources], "u1", mode="r+")
    sources[0].given.rename(tmp_path / "other")
    sources[1].given.unlink()
    make_raw(tmp_path, "0", np.full(10, 77, "u1"))
    assert np.asarray(array).tobytes() == joined(sources)
    assert array.sum() == 12 * P
    assert array.extents().tolist() == [[0, 6 * P]]
    array[5] = 9
    array.flush()
    assert (tmp_path / "other").read_bytes()[5] == 9
    assert (tmp_path / "0.raw").read_bytes() == b"M" * 10
    assert not array.buffer.damage
    # The array that goes by that name is another one: its bytes are copied, not looked for there.
    again = stitch([array, tmp_path / "0.raw"], "u1")
    assert again.parts[0] == (None, 0, array.nbytes)
    assert np.asarray(again).tobytes() == np.asarray(array).tobytes() + b"M" * 10
    with pytest.raises(ValueError, match="own file"):
        array.save(tmp_path / "other")


def test_an_array_whose_file_was_replaced(tmp_path: Path) -> None:
    """What an open array shows is stitched, and not what lies at its path by now."""
    source = make_ours(tmp_path, "a", np.full(P, 1, "u1"))
    array = sparsearray.open(source.given)
    sparsearray.save(source.given, np.full(P, 2, "u1"))
    for one in (stitch([array]), stitch([stitch([array]), stitch([array])])):
        assert set(np.asarray(one).tolist()) == {1}
        assert one.nbytes_copied == one.nbytes


def test_a_child_reads_and_writes(tmp_path: Path) -> None:
    """A forked child has the array; what it writes reaches the files, and the parent."""
    sources = [make_raw(tmp_path, str(n), np.full(P, n + 1, "u1")) for n in range(3)]
    array = stitch([source.given for source in sources], "u1", mode="r+")
    window = array[...]
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            array[P] = 9
            array.flush()
            status = int(array.sum() != 6 * P + 7 or window[-1] != 3)
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert window[P] == 9 == sources[1].given.read_bytes()[0]


def test_parts_may_go(tmp_path: Path, linux_core: bool) -> None:
    """Arrays that were parts may go: the result stands on the files alone, or on its copies."""
    source = make_ours(tmp_path, "a", np.arange(P, dtype="u1"))
    memory = sparsearray.zeros(3 * P, "u1")
    memory[P : P + 3] = 5
    parts = [sparsearray.open(source.given), memory]
    array = stitch(parts)
    parts[0].close()
    memory.close()
    del parts, memory
    gc.collect()
    assert np.asarray(array)[:P].tobytes() == source.rows.tobytes()
    assert np.flatnonzero(np.asarray(array)[P:]).tolist() == [P, P + 1, P + 2]
    assert array.nbytes_stored <= 3 * P or not linux_core  # holes of memory stay holes


def test_model_of_copies() -> None:
    """The model that the tests measure by: a seam, a crooked part and memory, counted by hand."""
    a, b = Path("a"), Path("b")
    assert copied([Run(a, 0, P), Run(b, 0, P)], 0) == 0
    assert copied([Run(a, 0, P + 1), Run(b, 0, P)], 0) == 1 + P
    assert copied([Run(a, 0, P + 1), Run(b, 1, 2 * P - 1)], 0) == P
    assert copied([Run(a, 128, P), Run(b, 128, P)], 128) == P
    assert copied([Run(None, 0, P), Run(b, 0, 7)], 0) == P
    assert make_triple.__doc__


@pytest.mark.parametrize("count", [1, 3, 600])
def test_long_lists(count: int, quick_folder: Path) -> None:
    """Many files, in several calls of the core."""
    expected = bytearray()
    for n in range(count):
        data = n.to_bytes(2, "little") * (P // 2)
        (quick_folder / f"{n}").write_bytes(data)
        expected += data
    array = stitch([quick_folder / f"{n}" for n in range(count)], "<u2")
    assert np.asarray(array).tobytes() == bytes(expected)
    assert array.nbytes_copied == 0


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_arrays_in_shared_memory(mode: Any, tmp_path: Path) -> None:
    """They are mapped, beside files: what is written on either side is seen on the other, but for 'c'."""
    np.full(P, 1, "u1").tofile(tmp_path / "data")
    with shared_memory(3 * P) as memory:
        shared = sparsearray.open(memory, "r+", dtype="u1")
        shared[:] = 2
        array = sparsearray.stitch([tmp_path / "data", shared, tmp_path / "data"], "u1", mode=mode)
        assert array.nbytes_copied == 0
        assert [path for path, _offset, _nbytes in array.parts][1] is None
        shared[5] = 7
        assert array[P + 5] == 7
        if mode != "r":
            array[2 * P] = 9
            assert shared[P] == (9 if mode == "r+" else 2)
        shared.close()
        assert array[: 6 * P].sum() == 2 * P + 6 * P + 5 + (7 if mode != "r" else 0)
