"""What `stitch` refuses: by name, before anything is mapped, and with nothing left behind."""

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sparsearray
from sparsearray import ClosedError, SparseBuffer, stitch

from .array_files import GOOD, make_npy
from .stitched_files import P

Caller = Callable[..., str]


@contextmanager
def nothing_left(descriptors: Callable[[], int], folder: Path) -> Iterator[None]:
    """Check that descriptors, mappings and files are as before, while the error is still at hand."""
    sparsearray.zeros(5).sum()  # opens /proc/self/pagemap once and for all
    before = descriptors(), mappings_of(folder), sorted(folder.iterdir())
    yield
    assert (descriptors(), mappings_of(folder), sorted(folder.iterdir())) == before


def mappings_of(folder: Path) -> int:
    """Count the mappings of files in a folder."""
    return Path("/proc/self/maps").read_text(errors="replace").count(f"{folder}/")


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """Make a .npy file of two pages that fits others."""
    path = tmp_path / "good.npy"
    sparsearray.save(path, np.arange(2 * P // 8, dtype="f8").reshape(-1, 8))
    return path


def write(path: Path, data: bytes) -> Path:
    """Make a file of some bytes."""
    path.write_bytes(data)
    return path


def saved(path: Path, array: Any) -> Path:
    """Make a .npy file of numpy's, whatever its name."""
    with path.open("wb") as file:
        np.save(file, array)
    return path


def tiled(path: Path) -> Path:
    """Make one of tiles."""
    sparsearray.save(path, sparsearray.zeros((64, 64), tiles=(8, 8)))
    return path


def directory(path: Path) -> Path:
    """Make a folder."""
    path.mkdir()
    return path


def pipe(path: Path) -> Path:
    """Make a pipe."""
    os.mkfifo(path)
    return path


def cut(path: Path) -> Path:
    """Make a .npy file that ends a byte early."""
    saved(path, np.zeros((100, 8)))
    os.truncate(path, path.stat().st_size - 1)
    return path


def closed_array(_path: Path) -> Any:
    """Make an array, and close it."""
    array = sparsearray.zeros((4, 8))
    array.close()
    return array


def fortran_array(path: Path) -> Any:
    """Make an array in Fortran order."""
    saved(path, np.asfortranarray(np.zeros((4, 8))))
    return sparsearray.open(path)


# What makes the part, the error, its errno, and what it says besides the number of the part.
BAD: dict[str, tuple[Callable[[Path], Any], type[Exception], int | None, str]] = {
    "missing": (lambda path: path, OSError, errno.ENOENT, "No such file"),
    "below a file": (lambda path: write(path, b"") / "x", OSError, errno.ENOTDIR, "Not a directory"),
    "directory": (directory, OSError, errno.EISDIR, "Is a directory"),
    "pipe": (pipe, OSError, errno.EINVAL, "not a regular file"),
    "device": (lambda _: Path("/dev/null"), OSError, errno.EINVAL, "not a regular file"),
    "loop": (lambda path: path.symlink_to(path) or path, OSError, errno.ELOOP, "symbolic"),
    "long name": (lambda path: path.parent / ("x" * 300), OSError, errno.ENAMETOOLONG, "too long"),
    "empty": (lambda path: write(path, b""), ValueError, None, "needs? dtype="),
    "no header": (lambda path: write(path, b"x" * 512), ValueError, None, "raw files need dtype="),
    "cut in the header": (lambda path: write(path, b"\x93NUMPY\x01\0\x76\0{"), ValueError, None, "cut short"),
    "damaged header": (lambda path: write(path, make_npy("{'descr'")), ValueError, None, "header"),
    "cut short": (cut, ValueError, None, "cut short.*6528.*6527"),
    "other dtype": (lambda path: saved(path, np.zeros((4, 8), "f4")), ValueError, None, "float32.*float64"),
    "other byte order": (lambda path: saved(path, np.zeros((4, 8), ">f8")), ValueError, None, ">f8"),
    "other row": (lambda path: saved(path, np.zeros((4, 9))), ValueError, None, r"\(4, 9\).*\(8,\)"),
    "fewer axes": (lambda path: saved(path, np.zeros(8)), ValueError, None, r"\(8,\)"),
    "Fortran order": (lambda path: saved(path, np.asfortranarray(np.zeros((4, 8)))), ValueError, None, "Fortran"),
    "items of no bytes": (lambda path: saved(path, np.zeros((4, 8), "V0")), ValueError, None, "no bytes"),
    "objects": (lambda path: saved(path, np.array([[None] * 8])), TypeError, None, "objects"),
    "single item": (lambda path: saved(path, np.array(1.5)), ValueError, None, "single item"),
    "tiles": (tiled, ValueError, None, "tile by tile"),
    "array of tiles": (lambda _: sparsearray.zeros((8, 8), tiles=4), TypeError, None, "TiledArray"),
    "closed array": (closed_array, ClosedError, None, "closed"),
    "array in Fortran order": (fortran_array, ValueError, None, "Fortran"),
    "array of a single item": (lambda _: sparsearray.zeros(()), ValueError, None, "single item"),
    "array of another dtype": (lambda _: sparsearray.zeros((4, 8), "i8"), ValueError, None, "int64"),
    "array of other rows": (lambda _: sparsearray.zeros((4, 7)), ValueError, None, r"\(4, 7\)"),
    "ndarray": (lambda _: np.zeros((4, 8)), TypeError, None, "ndarray is neither"),
    "number": (lambda _: 5, TypeError, None, "int is neither"),
    "none": (lambda _: None, TypeError, None, "NoneType is neither"),
    "list": (lambda path: [path], TypeError, None, "list is neither"),
    "pair": (lambda path: (path, 0), ValueError, None, "tuple of 2"),
    "triple of a number": (lambda _: (7, 0, 5), TypeError, None, "int is neither"),
    "null byte": (lambda path: f"{path}\0x", ValueError, None, "null byte"),
    "null byte as bytes": (lambda path: os.fsencode(path) + b"\0", ValueError, None, "null byte"),
    "negative offset": (lambda path: (write(path, b"x" * 512), -8, 64), ValueError, None, "negative"),
    "negative length": (lambda path: (write(path, b"x" * 512), 0, -64), ValueError, None, "negative"),
    "no length": (lambda path: (write(path, b"x" * 512), 0, 0), ValueError, None, "empty"),
    "past the end": (lambda path: (write(path, b"x" * 512), 8, 512), ValueError, None, "520.*512"),
    "far past it": (lambda path: (write(path, b"x" * 512), 1 << 70, 512), ValueError, None, "the file has 512"),
    "no whole rows": (lambda path: (write(path, b"x" * 512), 0, 65), ValueError, None, "65 bytes.*of 64 bytes"),
    "fraction": (lambda path: (write(path, b"x" * 512), 0.5, 64), TypeError, None, "float"),
}  # fmt: skip


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("what", BAD)
def test_bad_parts(
    what: str, place: int, good: Path, tmp_path: Path, descriptors: Callable[[], int]
) -> None:
    """The error names the part, by number and path, wherever it stands; nothing is left of the rest."""
    make, error, number, text = BAD[what]
    part = make(tmp_path / "bad")
    parts: list[Any] = [good, good]
    parts.insert(place, part)
    # The first part with rows says what rows are: another one then does not fit it.
    named = (
        1
        if place == 0 and what.startswith(("other", "fewer", "array of another", "array of oth"))
        else place
    )
    with nothing_left(descriptors, tmp_path):
        with pytest.raises(error) as caught:
            stitch(parts)
        message = str(caught.value)
        assert f"part {named}" in message, message
        if named == place:
            assert re.search(text, message), message
        path = part[0] if isinstance(part, tuple) else part
        if isinstance(path, Path) and what != "pair":
            assert str(path if named == place else good) in message
        if number is not None:
            assert isinstance(caught.value, OSError)
            assert (caught.value.errno, caught.value.filename) == (number, str(part))
    assert stitch([good, good]).shape == (4 * P // 64, 8)


@pytest.mark.parametrize(
    "parts", ["a.npy", b"a.npy", Path("a.npy"), np.zeros(5), sparsearray.zeros(5)], ids=type
)
def test_no_list(parts: Any) -> None:
    """A single part is no list of parts: its letters, or rows, are none."""
    with pytest.raises(TypeError, match="takes a list of parts"):
        stitch(parts)


def test_other_arguments(good: Path, tmp_path: Path, descriptors: Callable[[], int]) -> None:
    """Arguments that make no sense with any parts."""
    raw = write(tmp_path / "raw", b"x" * 512)
    cases: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: stitch([]), ValueError, "no parts"),
        (lambda: stitch([], "f8", (-1, 5)), ValueError, "no parts"),
        (lambda: stitch(5), TypeError, "not iterable"),  # type: ignore[arg-type]
        (lambda: stitch([good], mode="w+"), ValueError, "mode must be one of"),  # type: ignore[arg-type]
        (lambda: stitch([good], "f4"), ValueError, r"float64.*float32"),
        (lambda: stitch([good], object), TypeError, "object"),
        (lambda: stitch([raw], "V0"), ValueError, "no bytes"),
        (lambda: stitch([good], shape=(5, 8)), ValueError, r"make shape \(128, 8\), not \(5, 8\)"),
        (lambda: stitch([good], shape=(-1, 4)), ValueError, r"part 0.*\(128, 8\)"),
        (lambda: stitch([good], shape=(-1, 0)), ValueError, "shape"),
        (lambda: stitch([good], shape=(-2, 8)), ValueError, "shape"),
        (lambda: stitch([good], shape=(16, -1)), ValueError, "shape"),
        (lambda: stitch([good], shape=()), ValueError, "shape"),
        (lambda: stitch([raw], "f8", (-1, 3)), ValueError, "512 bytes are no whole rows"),
        (lambda: stitch([raw], "V3"), ValueError, "512 bytes are no whole items"),
        (lambda: stitch([(raw, 0, 64)]), ValueError, "part 0.*need dtype="),
    ]
    for call, error, text in cases:
        with nothing_left(descriptors, tmp_path), pytest.raises(error, match=text):
            call()


def test_empty_raw_file(tmp_path: Path) -> None:
    """A raw file without bytes is an error: no part of a measurement is missed."""
    paths = [write(tmp_path / "0", b"x" * 64), write(tmp_path / "1", b"")]
    with pytest.raises(ValueError, match=rf"part 1, '{paths[1]}': empty"):
        stitch(paths, "u1")


def test_a_part_that_was_cut(good: Path) -> None:
    """The file of an array became shorter since: it is refused, and not full of zeros."""
    array = sparsearray.open(good)
    stitched = stitch([good, good])
    os.truncate(good, 4096 + 2 * P - 8)
    for part in (array, stitched):
        with pytest.raises(ValueError, match=rf"part 0, '{good}': cut short: .*the file has"):
            stitch([part])


def test_dtype_is_checked_before_all_is_read(tmp_path: Path) -> None:
    """.npy files that are not named so are known for what they are, also where dtype is given."""
    saved(tmp_path / "a", np.arange(4096, dtype="u1"))
    write(tmp_path / "b", b"\5" * 4096)
    array = stitch([tmp_path / "a", tmp_path / "b"], "u1")
    assert array.shape == (8192,)
    assert array[:3].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="part 0.*uint8.*float32"):
        stitch([tmp_path / "a", tmp_path / "b"], "f4")
    saved(tmp_path / "c", np.arange(3, dtype="u1"))  # smaller than a page, so that it is copied
    assert stitch([tmp_path / "b", tmp_path / "c", tmp_path / "b"], "u1").shape == (8195,)


def test_headers_are_read_once_each(tmp_path: Path) -> None:
    """Headers of the same text say the same, and those of another text something else."""
    for n, dtype in enumerate(("<f4", ">f4", "<i4", "<f4")):
        write(
            tmp_path / f"{n}.npy",
            make_npy(GOOD.replace("<f8", dtype), bytes(range(8 * n, 8 * n + 8))),
        )
        assert stitch([tmp_path / f"{n}.npy"]).dtype == np.dtype(dtype)
    with pytest.raises(ValueError, match="part 1"):
        stitch([tmp_path / "0.npy", tmp_path / "1.npy"])
    both = stitch([tmp_path / "0.npy", tmp_path / "3.npy"])
    assert np.asarray(both).tobytes() == bytes([*range(8), *range(24, 32)])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable(good: Path) -> None:
    """A file that one may not read is named."""
    good.chmod(0)
    with pytest.raises(PermissionError, match="part 0"):
        stitch([good])


def test_unwritable(run_ok: Caller) -> None:
    """In mode r+ a file that one may not write to is named; nothing of the others is mapped."""
    run_ok("""
        import tempfile
        if os.geteuid() == 0:
            os.setegid(65534)
            os.seteuid(65534)
        with tempfile.TemporaryDirectory() as folder:
            paths = [f"{folder}/{n}" for n in range(3)]
            for path in paths:
                with open(path, "wb") as file:
                    file.write(b"x" * P)
            os.chmod(paths[1], 0o444)
            error = failure(lambda: stitch(paths, "u1", mode="r+"))
            assert isinstance(error, PermissionError), error
            assert "part 1: " in str(error) and error.filename == paths[1], error
            with open("/proc/self/maps", "rb") as file:
                assert folder.encode() not in file.read()
            assert stitch(paths, "u1").sum() == 3 * P * ord("x")
    """)


# Limits


def test_many_small_files(run_ok: Caller, quick_folder: Path) -> None:
    """10,000 files are open at once with room for 1,024 descriptors, none of which is kept."""
    printed = run_ok(f"""
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
        folder = {str(quick_folder)!r}
        paths = [f"{{folder}}/{{n}}" for n in range(10_000)]
        for n, path in enumerate(paths):
            fd = os.open(path, os.O_CREAT | os.O_WRONLY)
            os.write(fd, n.to_bytes(4, "little") * (P // 4))
            os.close(fd)
        before = len(os.listdir("/proc/self/fd"))
        array = stitch(paths, "<u4")
        assert array.shape == (10_000 * P // 4,)
        assert array.nbytes_copied == 0
        assert len(os.listdir("/proc/self/fd")) == before
        assert array.sum() == sum(range(10_000)) * (P // 4)
        assert np.array_equal(array[:: P // 4], np.arange(10_000))
        assert len(os.listdir("/proc/self/fd")) <= before + 1  # /proc/self/pagemap
        array.close()
        again = stitch(paths, "<u4", mode="r+")
        again[-1] = 7
        again.flush()
        assert len(os.listdir("/proc/self/fd")) <= before + 1
        with open(paths[-1], "rb") as file:
            assert file.read()[-4:] == b"\\7\\0\\0\\0"
        print("done")
    """)
    assert printed == "done\n"


@pytest.mark.parametrize("left", [2000, 100])
def test_more_than_the_limit_of_mappings(left: int, run_ok: Caller, quick_folder: Path) -> None:
    """ENOMEM before anything is mapped: the limit, and how many parts fit, which then do."""
    limit = int(Path("/proc/sys/vm/max_map_count").read_text())
    if limit > 200_000:
        pytest.skip("this system allows so many mappings that it takes long to fill them")
    printed = run_ok(f"""
        import re
        folder, left, limit = {str(quick_folder)!r}, {left}, {limit}
        def count():
            with open("/proc/self/maps", "rb") as file:
                return file.read().count(b"\\n")
        count()
        paths = []
        for n in range(8):
            paths.append(f"{{folder}}/{{n}}")
            with open(paths[-1], "wb") as file:
                file.write(b"x" * P)
        parts = paths * 1000
        # Every other page of a buffer, so that nothing joins.
        spare = SparseBuffer(2 * limit * P)
        for n in range((limit - count() - 5000 - left) // 2):
            spare.alloc(2 * n * P, P)
        while limit - count() > 5000 + left:
            n += 1
            spare.alloc(2 * n * P, P)
        before = count()
        error = failure(stitch, parts, "u1")
        assert isinstance(error, OSError) and error.errno == errno.ENOMEM, repr(error)
        found = re.search(r"8000 parts take 8000 mappings, and of the (\\d+) that vm.max_map_count "
                          r"allows (\\d+) are left: (\\d+) parts fit", str(error))
        assert found, error
        assert int(found[1]) == limit
        fits = int(found[3])
        assert 4000 < fits <= 5000 + left
        assert abs(count() - before) < 5, (count(), before)
        array = stitch(parts[:fits], "u1")
        assert array.sum() == fits * P * ord("x")
        array.close()
        print("done")
    """)
    assert printed == "done\n"


@pytest.mark.slow  # a sanitizer needs mappings of its own
def test_at_the_limit_of_mappings(run_ok: Caller, quick_folder: Path) -> None:
    """Fewer parts than are counted beforehand are refused by the system itself: with the limit named."""
    limit = int(Path("/proc/sys/vm/max_map_count").read_text())
    if limit > 200_000:
        pytest.skip("this system allows so many mappings that it takes long to fill them")
    printed = run_ok(f"""
        folder, limit = {str(quick_folder)!r}, {limit}
        def count():
            with open("/proc/self/maps", "rb") as file:
                return file.read().count(b"\\n")
        count()
        paths = []
        for n in range(8):
            paths.append(f"{{folder}}/{{n}}")
            with open(paths[-1], "wb") as file:
                file.write(b"x" * P)
        spare = SparseBuffer(2 * limit * P)
        for n in range((limit - count() - 300) // 2):
            spare.alloc(2 * n * P, P)
        before = count()
        for _ in range(3):
            error = failure(stitch, paths * 100, "u1")
            assert isinstance(error, OSError) and error.errno == errno.ENOMEM, repr(error)
            assert "800 parts take 800 mappings" in str(error), error
            assert f"of the {limit} that vm.max_map_count allows 0 are left" in str(error), error
            del error
            assert count() - before < 8, (count(), before)
        spare.unmap(0, 1000 * P)
        assert stitch(paths * 50, "u1").sum() == 400 * P * ord("x")
        print("done")
    """)
    assert printed == "done\n"


def test_no_memory_for_copies(tmp_path: Path) -> None:
    """What must be copied and finds no memory is a MemoryError before anything is mapped or read."""
    free = int(re.search(r"MemTotal: *(\d+)", Path("/proc/meminfo").read_text())[1]) << 10  # type: ignore[index]
    swap = int(re.search(r"SwapTotal: *(\d+)", Path("/proc/meminfo").read_text())[1]) << 10  # type: ignore[index]
    path = tmp_path / "large"
    with path.open("wb") as file:
        try:
            file.truncate(2 * (free + swap))
        except OSError:
            pytest.skip("this file system has no files as large as memory")
    small = write(tmp_path / "small", b"x" * 10)
    with pytest.raises(MemoryError, match="must be copied"):
        stitch([(path, 5, free + swap), (path, 7, free + swap), small], "u1")


def test_more_than_there_are_addresses(tmp_path: Path) -> None:
    """A sum of lengths that no range of addresses holds is a MemoryError."""
    path = tmp_path / "large"
    with path.open("wb") as file:
        try:
            file.truncate(1 << 40)
        except OSError:
            pytest.skip("this file system has no files of a terabyte")
    with pytest.raises(MemoryError, match="addresses"):
        stitch([path] * 300, "u1")
    with stitch([path] * 3, "u1") as array:
        assert array.shape == (3 << 40,)


def test_buffers_are_not_parts() -> None:
    """A SparseBuffer has neither shape nor dtype; an array over it has."""
    buffer = SparseBuffer(P)
    buffer.alloc(0, P)
    with pytest.raises(TypeError, match="part 0: SparseBuffer is neither"):
        stitch([buffer], "u1")
