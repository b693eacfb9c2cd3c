"""`save(..., parts=n)`: files that `stitch` joins without a copy, all of them or none."""

import errno
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsearray
from sparsearray import AccessError, ClosedError, SparseArray, stitch

from .array_files import DISK_PAGE, assert_same, names, open_files, stored
from .failing_writes import FAULT_IDS, FAULTS, Faults
from .stitched_files import new_folder

P = os.sysconf("SC_PAGESIZE")
pytestmark = pytest.mark.skipif(P != DISK_PAGE, reason="data of our files begins at byte 4096")


def most_parts(rows: int, row_nbytes: int) -> int:
    """Count, page by page, where a row and a page end together."""
    ends = [row for row in range(1, rows) if row * row_nbytes % P == 0]
    return 1 + len(ends)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Draw an array with rows of any length, some of which fill pages together."""
    dtype = np.dtype(draw(st.sampled_from(["u1", ">i2", "<f8", [("a", "u1"), ("b", "<f4", (3,))]])))
    tail = draw(st.sampled_from([(), (3,), (512,), (1024, 2), (4096,)]))
    row = dtype.itemsize * math.prod(tail)
    count = draw(st.integers(1, max(6 * P // row, 6)))
    nbytes = count * row
    data = bytearray(np.random.default_rng(count).integers(1, 255, nbytes, "u1").tobytes())
    return np.ndarray((count, *tail), dtype, data)


@settings(deadline=None, max_examples=60)
@given(array=arrays(), wanted=st.integers(1, 8), kind=st.sampled_from(["dense", "sparse", "file"]))
def test_round_trip(array: np.ndarray, wanted: int, kind: str, memory_folder: Path) -> None:
    """The parts are .npy files, even, in order, of whole pages but for the last, and stitch without a copy."""
    with new_folder(memory_folder) as folder:
        source: Any = array
        if kind != "dense":
            source = sparsearray.zeros(array.shape, array.dtype)
            source[...] = array
        if kind == "file":
            source.save(folder / "source")
            source = sparsearray.open(folder / "source")
        row = array[:1].nbytes
        most = most_parts(len(array), row)
        if wanted > most:
            before = names(folder)
            with pytest.raises(ValueError, match=rf"{wanted} parts of whole pages: {most} fit"):
                sparsearray.save(folder / "a.npy", source, parts=wanted)
            assert names(folder) == before
            wanted = most
        paths = sparsearray.save(folder / "a.npy", source, parts=wanted)
        assert paths == [str(folder / f"a.{n}.npy") for n in range(wanted)]
        found = [np.load(path) for path in paths]
        assert b"".join(part.tobytes() for part in found) == array.tobytes()
        assert {part.dtype for part in found} == {array.dtype}
        assert all(part.nbytes % P == 0 for part in found[:-1])
        # As even as can be: in steps of rows that end with a page; the last may be a step short.
        step = next(n for n in range(1, P + 1) if n * row % P == 0)
        steps = [-(-len(part) // step) for part in found]
        assert max(steps) - min(steps) <= 1
        with stitch(paths, mode="r+") as joined:
            assert joined.nbytes_copied == 0
            assert_same(joined, array)
            joined[-1] = joined[0]
        assert np.load(paths[-1])[-1].tobytes() == array[0].tobytes()


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sorted by name they are in order; str, bytes and PathLike, with .npy at the end and without."""
    monkeypatch.chdir(tmp_path)
    array = np.arange(12 * P, dtype="u1")
    made = sparsearray.save("a.npy", array, parts=12)
    assert made[:2] == ["a.00.npy", "a.01.npy"]
    assert made[-1] == "a.11.npy"
    assert sorted(made) == made == names(tmp_path)
    assert sparsearray.save(b"b", array, parts=2) == ["b.0", "b.1"]
    assert sparsearray.save(Path("c.x"), array, parts=1) == ["c.x.0"]
    assert sparsearray.save(".npy", array, parts=2) == [".0.npy", ".1.npy"]
    odd = os.fsdecode(b"\xff.npy")
    assert sparsearray.save(odd, array, parts=2) == [
        os.fsdecode(b"\xff.0.npy"),
        os.fsdecode(b"\xff.1.npy"),
    ]
    assert sparsearray.zeros(P, "u1").save("d.npy", parts=1) == ["d.0.npy"]
    assert sparsearray.save("e.npy", array) is None  # type: ignore[func-returns-value]
    assert np.array_equal(stitch(sorted(Path().glob("a.*.npy")))[...], array)


def test_others_stay(tmp_path: Path) -> None:
    """Old parts are replaced, with their permissions; those that have no successor stay."""
    array = np.arange(5 * P, dtype="u1")
    for path in sparsearray.save(tmp_path / "a.npy", array, parts=5):
        Path(path).chmod(0o640)
    old = (tmp_path / "a.4.npy").read_bytes()
    made = sparsearray.save(tmp_path / "a.npy", array[::-1], parts=3)
    assert names(tmp_path) == [f"a.{n}.npy" for n in range(5)]
    assert [Path(path).stat().st_mode & 0o777 for path in made] == [0o640] * 3
    assert np.array_equal(stitch(made)[...], array[::-1])
    assert (tmp_path / "a.4.npy").read_bytes() == old


@pytest.mark.parametrize("kind", ["dense", "memory", "file", "stitched"])
def test_holes_are_kept(kind: str, tmp_path: Path) -> None:
    """Pages of zeros take no room in any part."""
    rows = 64 * P // 64
    dense = np.zeros((rows, 8))
    for place in (0, 17, rows // 2 + 3, rows - 1):
        dense[place, 5] = place + 1
    source: Any = dense
    if kind != "dense":
        source = sparsearray.zeros(dense.shape)
        source[...] = dense
    if kind == "file":
        source.save(tmp_path / "b.npy")
        source = sparsearray.open(tmp_path / "b.npy")
    elif kind == "stitched":
        source = stitch(source.save(tmp_path / "b.npy", parts=5))
    made = [Path(path) for path in sparsearray.save(tmp_path / "a.npy", source, parts=4)]
    assert [stored(path) // DISK_PAGE for path in made] == [
        2,
        1,
        2,
        2,
    ]  # headers, and a page or none
    joined = stitch(made)
    assert_same(joined, dense)
    assert joined.nbytes_stored == 3 * P


@pytest.mark.usefixtures("told_pages")
def test_terabyte(tmp_path: Path) -> None:
    """A terabyte goes into parts, and comes back, in the time and room of what is in it."""
    array = sparsearray.zeros((1 << 20, 1 << 20), "u1")
    array[5, 6] = 1
    array[-1, -1] = 2
    try:
        paths = array.save(tmp_path / "a.npy", parts=100)
    except OSError as error:
        if error.errno == errno.EFBIG:
            pytest.skip("this file system has no files as large")
        raise
    assert paths is not None
    joined = stitch(paths)
    assert (joined.shape, joined.nbytes_copied, joined.nbytes_stored) == (array.shape, 0, 2 * P)
    assert joined.sum() == 3
    assert joined[5, 6] == 1


def test_rows_of_no_bytes(tmp_path: Path) -> None:
    """Rows without items are cut anywhere; an array without rows is one part."""
    made = sparsearray.save(tmp_path / "a.npy", np.zeros((5, 0)), parts=3)
    assert [np.load(path).shape for path in made] == [(2, 0), (2, 0), (1, 0)]
    assert stitch(made).shape == (5, 0)
    made = sparsearray.save(tmp_path / "b.npy", np.zeros((0, 3)), parts=1)
    assert stitch(made).shape == (0, 3)
    with pytest.raises(ValueError, match="1 fit"):
        sparsearray.save(tmp_path / "b.npy", np.zeros((0, 3)), parts=2)


def test_memory_orders(tmp_path: Path) -> None:
    """Views in any order in memory are cut by rows; one axis in Fortran order is in both."""
    array = np.arange(16 * P, dtype="u4").reshape(-1, 4, 2)
    for view in (array[::-1], array[:, ::-1], array.transpose(0, 2, 1), array[::2]):
        made = sparsearray.save(tmp_path / "a.npy", view, parts=4)
        assert_same(stitch(made), view)
    with (tmp_path / "f.npy").open("wb") as file:
        np.save(file, np.arange(P, dtype="u4"))
    data = (
        (tmp_path / "f.npy")
        .read_bytes()
        .replace(b"'fortran_order': False,", b"'fortran_order': True, ")
    )
    (tmp_path / "f.npy").write_bytes(data)
    with sparsearray.open(tmp_path / "f.npy") as found:
        assert found.order == "F"
        assert_same(stitch(found.save(tmp_path / "g.npy", parts=4) or []), np.arange(P, dtype="u4"))


# What is refused


@pytest.mark.parametrize(
    ("array", "parts", "error", "text"),
    [
        (np.zeros(5 * P), 0, ValueError, "parts=0: at least one"),
        (np.zeros(5 * P), -3, ValueError, "parts=-3: at least one"),
        (np.zeros(5 * P), 2.0, TypeError, "float"),
        (np.zeros(5 * P), "2", TypeError, "str"),
        (np.zeros(5 * P, "u1"), 6, ValueError, "20480 rows of 1 bytes.* 5 fit"),
        (np.zeros((5, 3)), 2, ValueError, "1 fit"),
        (np.zeros(()), 1, ValueError, "single item"),
        (7, 1, ValueError, "single item"),
        (sparsearray.zeros(()), 1, ValueError, "single item"),
        (np.zeros((P, 4), order="F"), 2, ValueError, "Fortran order"),
        (sparsearray.zeros((64, 64), tiles=8), 2, ValueError, "tiles of .*retile"),
        (np.array([None] * P), 2, TypeError, "objects"),
    ],
)
def test_what_has_no_such_parts(
    array: Any, parts: Any, error: type[Exception], text: str, tmp_path: Path
) -> None:
    """The error says why, and nothing is written."""
    with pytest.raises(error, match=text):
        sparsearray.save(tmp_path / "a.npy", array, parts=parts)
    assert names(tmp_path) == []


def test_closed(tmp_path: Path) -> None:
    """A closed array has nothing to save."""
    array = sparsearray.zeros(5 * P)
    array.close()
    with pytest.raises(ClosedError):
        array.save(tmp_path / "a.npy", parts=3)
    assert names(tmp_path) == []


def test_own_files(tmp_path: Path, unchanged_files: Any) -> None:
    """Parts do not go over files that the array writes to; over those that it only reads they do."""
    made = sparsearray.save(tmp_path / "a.npy", np.arange(6 * P, dtype="u1"), parts=3)
    array = stitch(made, mode="r+")
    with unchanged_files(), pytest.raises(ValueError, match="a.0.npy.*own file.*'r\\+'"):
        array.save(tmp_path / "a.npy", parts=2)
    last = sparsearray.open(made[1], "r+")
    with unchanged_files(), pytest.raises(ValueError, match="a.1.npy.*own file"):
        last.save(tmp_path / "a.npy", parts=2)
    array = stitch(made)
    array.save(tmp_path / "a.npy", parts=2)
    assert array.sum() == np.arange(6 * P, dtype="u1").sum()
    assert len(np.load(made[0])) == 3 * P


@pytest.mark.parametrize("place", [0, 2])
def test_a_part_that_cannot_be(place: int, tmp_path: Path) -> None:
    """A folder in the place of one part is named before anything is written."""
    (tmp_path / f"a.{place}.npy").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        sparsearray.save(tmp_path / "a.npy", np.zeros(6 * P, "u1"), parts=3)
    assert caught.value.filename == str(tmp_path / f"a.{place}.npy")
    assert names(tmp_path) == [f"a.{place}.npy"]


# All or nothing


@pytest.mark.parametrize("kind", ["ndarray", "sparse"])
@pytest.mark.parametrize("old", [True, False])
def test_full_disk(kind: str, old: bool, small_disk: Path, descriptors: Callable[[], int]) -> None:
    """Where the last part has no room, none is replaced, none is new, and nothing is left."""
    path = small_disk / "a.npy"
    if old:
        sparsearray.save(path, np.full(3 * P, 9, "u1"), parts=3)
    before = {name: (small_disk / name).read_bytes() for name in names(small_disk)}
    array: Any = np.ones(20 * P, "u1")
    if kind == "sparse":
        array = sparsearray.zeros(20 * P, "u1")
        array[...] = 1
    count = descriptors()
    with pytest.raises(OSError) as caught:
        sparsearray.save(path, array, parts=4)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename in [str(small_disk / f"a.{n}.npy") for n in range(4)]
    assert descriptors() == count
    assert {name: (small_disk / name).read_bytes() for name in names(small_disk)} == before
    assert stitch(sparsearray.save(path, array[: 5 * P], parts=3)).sum() == 5 * P


@pytest.mark.parametrize(("error", "after"), FAULTS, ids=FAULT_IDS)
@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("kind", ["ndarray", "sparse"])
def test_fails_at_any_call(
    kind: str, old: bool, error: BaseException, after: bool, quick_folder: Path
) -> None:
    """Before the first part is in its place, all is as it was; whatever fails, each file is whole."""
    path, source = quick_folder / "a.npy", np.ones(3 * P, "u1")
    if kind == "sparse":
        sparse = sparsearray.zeros(3 * P, "u1")
        sparse[...] = source
    made = [Path(name) for name in sparsearray.save(path, source, parts=3)]
    new = [file.read_bytes() for file in made]
    count, at = open_files(), 0
    while True:
        at += 1
        for file in made:
            file.unlink(missing_ok=True)
            if old:
                file.write_bytes(b"old")
        with Faults(at, error, after=after) as faults:
            try:
                sparsearray.save(path, sparse if kind == "sparse" else source, parts=3)
            except BaseException as caught:  # noqa: BLE001 - KeyboardInterrupt among them
                assert caught is error  # noqa: PT017
                if isinstance(error, OSError) and "replace" not in faults.calls[: at - 1]:
                    assert error.filename in [str(file) for file in made]
                    error.filename = None
            else:
                assert not faults.hit
        replaced = faults.calls[: at if after else at - 1].count("replace")
        expected = {
            file.name: new[n] if n < replaced else b"old"
            for n, file in enumerate(made)
            if old or n < replaced
        }
        assert {file.name: file.read_bytes() for file in quick_folder.iterdir()} == expected
        assert open_files() == count
        if isinstance(error, OSError):
            error.filename = None
        if not faults.hit:
            break
    assert at > 15


def test_source_cut_short(tmp_path: Path) -> None:
    """If a file of the source became shorter, none of the parts is left."""
    made = sparsearray.save(tmp_path / "a.npy", np.ones(8 * P, "u1"), parts=2)
    array = stitch(made)
    os.truncate(made[1], DISK_PAGE + P)
    with pytest.raises(AccessError) as caught:
        array.save(tmp_path / "b.npy", parts=4)
    assert (caught.value.reason, caught.value.filename) == ("file-truncated", made[1])
    assert names(tmp_path) == ["a.0.npy", "a.1.npy"]


def test_few_descriptors(run_ok: Callable[..., str]) -> None:
    """As many parts as one likes need no more descriptors than one."""
    run_ok("""
        import resource, sparsearray
        array = sparsearray.zeros((300, P), "u1")
        array[:, 0] = 1
        array.sum()  # opens /proc/self/pagemap
        resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
        paths = array.save("a.npy", parts=300)
        assert stitch(paths).sum() == 300
    """)


# Progress


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_one_bar_for_all(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar goes on over all parts, up to the bytes of all of them."""
    told: list[int] = []

    class Bar:
        def __init__(self, total: int, **_: Any) -> None:
            told.append(total)

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, nbytes: int) -> None:
            told.append(-nbytes)

    module: Any = type(sys)("tqdm.auto")
    module.tqdm = Bar
    monkeypatch.setitem(sys.modules, "tqdm", type(sys)("tqdm"))
    monkeypatch.setitem(sys.modules, "tqdm.auto", module)
    array: np.ndarray | SparseArray = np.ones(10 * P, "u1")
    if kind == "sparse":
        array = sparsearray.zeros(10 * P, "u1")
        array[...] = 1
    sparsearray.save(tmp_path / "a.npy", array, parts=5, progress=True)
    assert told == [10 * P, *[-2 * P] * 5]


def test_no_bar_without_tqdm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without tqdm an ImportError says what to install, and nothing is written."""
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match="pip install"):
        sparsearray.save(tmp_path / "a.npy", np.ones(10 * P), parts=5, progress=True)
    assert names(tmp_path) == []
