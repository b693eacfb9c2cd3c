"""Files whose headers tell of tiles: damaged ones are refused by name, and others are what they were."""

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sparsearray
from sparsearray import SparseArray, TiledArray

from .array_files import GOOD, make_npy

P = mmap.PAGESIZE
DATA = bytes(range(1, 25)) * 4  # 4 tiles of 24 bytes


def npy(title: str, grid: str = "(2, 2)", tile: str = "(4, 6)", more: str = "") -> bytes:
    """Make a file of tiles with a header of any text."""
    descr = f"[(({title!r}, 'tile'), '|u1', {tile}){more}]"
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {grid}}}"
    return make_npy(text, DATA, (2, 0) if len(text) > 60_000 else (1, 0))


def test_by_hand(tmp_path: Path) -> None:
    """A header as the documentation says is a file of tiles, wherever its data begins."""
    path = tmp_path / "a.npy"
    path.write_bytes(npy("array of shape (7, 9)"))
    with sparsearray.open(path) as array:
        assert isinstance(array, TiledArray)
        assert (array.shape, array.tiles, array.dtype) == ((7, 9), (4, 6), np.dtype("u1"))
        tile = np.arange(1, 25).reshape(4, 6)
        assert (array[...] == np.block([[tile, tile], [tile, tile]])[:7, :9]).all()


SHAPES = {
    "too large": "(9, 9)",
    "too small": "(4, 6)",
    "huge": "(9223372036854775807, 9)",
    "past any number": f"({10**30}, 9)",
    "negative": "(-7, 9)",
    "a number": "7",
    "a list of text": "['a', 'b']",
    "text": "'79'",
    "no tuple": "{7: 9}",
    "nothing": "",
    "None": "None",
    "fractions": "(7.0, 9)",
    "one axis": "(7,)",
    "three axes": "(7, 9, 1)",
    "no axes": "()",
    "a call": "(__import__('os').getpid(), 9)",
    "unfinished": "(7, 9",
    "many digits": f"({'9' * 5000}, 9)",
    "deep": "(" * 5000 + "7, 9" + ")" * 5000,
    "long": f"(7, 9{' ' * 100_000})x",
    "null": "(7, 9)\0",
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_titles_that_lie(mode: Any, shape: str, tmp_path: Path, unchanged_files: Any) -> None:
    """A title that says what the tiles cannot be is an error that names the file."""
    path = tmp_path / "bad.npy"
    path.write_bytes(npy(f"array of shape {shape}"))
    with unchanged_files(), pytest.raises(ValueError, match=r"bad\.npy"):
        sparsearray.open(path, mode)


@pytest.mark.parametrize(
    ("grid", "tile"),
    [
        ("(2,)", "(4, 6)"),
        ("(2, 2, 1)", "(4, 6)"),
        ("(4, 1)", "(4, 6)"),
        ("(2, 2)", "(24,)"),
        ("(2, 2)", "(6, 4)"),
        ("(2, 2)", "(4, 0)"),
        ("(2, 2)", "(4, -6)"),
    ],
)
def test_tiles_that_do_not_fit(grid: str, tile: str, tmp_path: Path, unchanged_files: Any) -> None:
    """Neither does a good title help tiles of another number or shape."""
    path = tmp_path / "bad.npy"
    path.write_bytes(npy("array of shape (7, 9)", grid, tile))
    with unchanged_files(), pytest.raises(ValueError, match=r"bad\.npy"):
        sparsearray.open(path)


@pytest.mark.parametrize(
    "descr",
    [
        "[('tile', '|u1', (4, 6))]",
        "[(('tiles of a bathroom', 'tile'), '|u1', (4, 6))]",
        "[(('array of shape (7, 9)', 'tiles'), '|u1', (4, 6))]",
        "[(('array of shape (7, 9)', 'tile'), '|u1', (4, 5)), ('rest', '|u1', (4,))]",
    ],
    ids=["no title", "another title", "another name", "two fields"],
)
def test_other_records(descr: str, tmp_path: Path) -> None:
    """Records that are no tiles of ours are records; they are not opened as tiles either."""
    path = tmp_path / "a.npy"
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': (2, 2)}}"
    path.write_bytes(make_npy(text, DATA))
    with sparsearray.open(path) as array:
        assert isinstance(array, SparseArray)
        assert (np.asarray(array) == np.load(path)).all()
    with pytest.raises(ValueError, match="tiles"):
        sparsearray.open(path, tiles=(4, 6))


def test_tiles_not_at_the_start_of_records(tmp_path: Path) -> None:
    """Padding before the tile is nothing that we write."""
    path = tmp_path / "bad.npy"
    text = "[('', '|V4'), (('array of shape (7, 9)', 'tile'), '|u1', (4, 5))]"
    path.write_bytes(
        make_npy(f"{{'descr': {text}, 'fortran_order': False, 'shape': (2, 2)}}", DATA)
    )
    try:
        with sparsearray.open(path) as array:
            assert isinstance(array, SparseArray)
    except ValueError as error:
        assert "bad.npy" in str(error)  # noqa: PT017


@pytest.mark.parametrize("tiles", [(6, 4), (4,), 5, (4, 6, 1), "auto"])
def test_other_tiles_than_wanted(tiles: Any, tmp_path: Path, unchanged_files: Any) -> None:
    """Tiles that are given must be those of the file."""
    path = tmp_path / "a.npy"
    path.write_bytes(npy("array of shape (7, 9)"))
    with unchanged_files(), pytest.raises(ValueError, match="tiles"):
        sparsearray.open(path, tiles=tiles)
    with sparsearray.open(path, tiles=(4, 6)) as array:
        assert array.shape == (7, 9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "i2"}, "holds uint8"),
        ({"shape": (8, 12)}, "shape"),
        ({"shape": (2, 2)}, "shape"),
        ({"maxshape": (3, 9)}, "smaller"),
        ({"maxshape": (99, 10)}, "first axis"),
    ],
)
def test_other_arguments_than_the_file(
    arguments: Any, message: str, tmp_path: Path, unchanged_files: Any
) -> None:
    """The dtype and the shape that are checked are those of the items."""
    path = tmp_path / "a.npy"
    path.write_bytes(npy("array of shape (7, 9)"))
    with unchanged_files(), pytest.raises(ValueError, match=message):
        sparsearray.open(path, "r+", **arguments)
    with sparsearray.open(path, dtype="u1", shape=(7, 9)) as array:
        assert array.shape == (7, 9)


@pytest.mark.parametrize("length", [0, 5, 9, 60, 100, -50, -1])
def test_cut_files(length: int, tmp_path: Path, unchanged_files: Any) -> None:
    """A file that ends anywhere before its last tile does is refused."""
    path = tmp_path / "bad.npy"
    path.write_bytes(npy("array of shape (7, 9)")[:length])
    with unchanged_files(), pytest.raises(ValueError, match=r"bad\.npy"):
        sparsearray.open(path)


def test_objects(tmp_path: Path, unchanged_files: Any) -> None:
    """Tiles of objects are refused as all objects are."""
    path = tmp_path / "bad.npy"
    path.write_bytes(npy("array of shape (7, 9)").replace(b"'|u1'", b"'|O' "))
    with unchanged_files(), pytest.raises(TypeError, match="object"):
        sparsearray.open(path)


def test_plain_files_as_tiles(tmp_path: Path) -> None:
    """A .npy file of twice as many axes is opened as tiles of its last ones, and only so."""
    path = tmp_path / "a.npy"
    items = np.arange(2 * 3 * 4 * 5, dtype="i4").reshape(2, 3, 4, 5)
    np.save(path, items)
    with sparsearray.open(path, "r+", tiles=(4, 5)) as array:
        assert (array[...] == items.transpose(0, 2, 1, 3).reshape(8, 15)).all()
        array[7, 14] = -1
        with pytest.raises(ValueError, match="length"):
            array.resize((4, 15))
    assert np.load(path)[1, 2, 3, 4] == -1
    for tiles in ((5, 4), 4, (4,), (2, 3, 4, 5)):
        with pytest.raises(ValueError, match="tiles"):
            sparsearray.open(path, tiles=tiles)
    np.save(path, np.asfortranarray(items))
    with pytest.raises(ValueError, match="C order"):
        sparsearray.open(path, tiles=(4, 5))
    path.write_bytes(make_npy(GOOD, bytes(16)))
    with pytest.raises(ValueError, match="tiles"):
        sparsearray.open(path, tiles=2)


def test_raw_files_as_tiles(tmp_path: Path) -> None:
    """A raw file needs to be told the shape; tiles lie in it without a gap."""
    path = tmp_path / "raw"
    path.write_bytes(DATA)
    with sparsearray.open(path, dtype="u1", shape=(7, 9), tiles=(4, 6)) as array:
        assert array[4:, 6:].tolist() == [[1, 2, 3], [7, 8, 9], [13, 14, 15]]
    with pytest.raises(ValueError, match="needs shape"):
        sparsearray.open(path, dtype="u1", tiles=(4, 6))
    with pytest.raises(ValueError, match="cut short"):
        sparsearray.open(path, dtype="u1", shape=(9, 9), tiles=(4, 6))


@pytest.mark.parametrize("tiles", [0, (0, 1), -1, 1.5, "big", (1, 2, 3), (1 << 20, 1 << 20)])
def test_bad_tiles_make_no_file(tiles: Any, tmp_path: Path, unchanged_files: Any) -> None:
    """Tiles that cannot be leave an old file as it was."""
    path = tmp_path / "a.npy"
    path.write_bytes(b"old")
    with unchanged_files(), pytest.raises((ValueError, TypeError)):
        sparsearray.open(path, "w+", shape=(30, 40), tiles=tiles)
