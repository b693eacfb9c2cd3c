"""`sparsearray map`: where a file holds data, in text and as a picture."""

import os
import re
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings

import sparsearray
from sparsearray.cli import main
from sparsearray.cli.map import draw_file, picture_of

from .array_files import names
from .command_line import PAGE, Layout, layouts, pages_of, run
from .stitched_files import new_folder

pytestmark = pytest.mark.skipif(os.sysconf("SC_PAGESIZE") != PAGE, reason="counts pages of 4 KiB")

SVG = "{http://www.w3.org/2000/svg}"


def cells_of(text: str) -> str:
    """Return the cells of a map, without what is around them."""
    return "".join(re.findall(r"^ +0x[0-9a-f]+ \|(.*)\|$", text, re.MULTILINE))


@settings(deadline=None, max_examples=40)
@given(layout=layouts())
def test_each_page_of_a_small_file_is_a_character(layout: Layout, memory_folder: Path) -> None:
    """Where the file system says data is, and where it says there is a hole."""
    with new_folder(memory_folder) as folder:
        content = layout.write(folder / "a")
        if not content:
            return
        pages = pages_of(folder / "a")
        text = draw_file(str(folder / "a"))
        expected = "".join(".#"[n in pages] for n in range(-(-len(content) // PAGE)))
        assert cells_of(text) == expected
        assert "a character is 4 KiB" in text


def test_shares_of_a_large_file(tmp_path: Path) -> None:
    """A character of about 1 MiB: nothing, less than half, half and more, all; and the last one is short."""
    mib = 256 * PAGE
    pieces = [("hole", mib), ("data", PAGE), ("hole", mib - PAGE), ("data", 200 * PAGE)]
    pieces += [("hole", 56 * PAGE), ("data", mib), ("hole", 1019 * mib), ("data", 3 * PAGE + 5)]
    path = tmp_path / "a"
    with path.open("wb") as file:  # a gigabyte, of which hardly anything is written
        file.truncate(sum(nbytes for _, nbytes in pieces))
        at = 0
        for kind, nbytes in pieces:
            if kind == "data":
                os.pwrite(file.fileno(), b"x" * nbytes, at)
            at += nbytes
    cells = cells_of(draw_file(str(path)))
    nbytes, pages = path.stat().st_size, pages_of(path)
    cell = -(-nbytes // 1024 // PAGE) * PAGE
    for n, found in enumerate(cells):
        inside = range(n * cell // PAGE, -(-min((n + 1) * cell, nbytes) // PAGE))
        share = len(pages & set(inside)) / len(inside)
        expected = "." if not share else "-" if share < 0.5 else "#" if share == 1 else "+"
        assert found == expected, n
    assert len(cells) == -(-nbytes // cell)
    assert set(cells) == set(".-+#")


def test_a_terabyte_takes_no_time(tmp_path: Path) -> None:
    """One page in it is still to be seen."""
    path = tmp_path / "a"
    with path.open("wb") as file:
        file.truncate(1 << 40)
        os.pwrite(file.fileno(), b"x", 1 << 39)
    done = run("map", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 TiB, 4 KiB of data in 1 extent" in done.stdout
    assert cells_of(done.stdout) == "." * 512 + "-" + "." * 511
    assert all(len(line) <= 100 for line in done.stdout.splitlines()[1:])


def read_svg(text: str) -> ET.Element:
    """Parse a picture, and check that it can be shown by itself."""
    root = ET.fromstring(text)  # noqa: S314 - our own
    assert root.tag == f"{SVG}svg"
    assert float(root.attrib["width"]) > 100
    assert float(root.attrib["height"]) > 20
    return root


def hovers(root: ET.Element) -> list[str]:
    """Return what is to be read over the marks."""
    return [
        title.text or "" for group in root.iter(f"{SVG}g") for title in group.iter(f"{SVG}title")
    ]


def texts(root: ET.Element) -> list[str]:
    """Return what is written in a picture."""
    return ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]


def test_the_picture_of_a_file(tmp_path: Path) -> None:
    """Its extents, with where they are to hover over, and how much there is of what."""
    path = tmp_path / "disk.img"
    Layout([("hole", 100 * PAGE), ("data", 3 * PAGE), ("hole", 9 * PAGE), ("data", PAGE)]).write(
        path
    )
    done = run("map", path, "--svg", tmp_path / "a.svg")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    root = read_svg((tmp_path / "a.svg").read_text())
    assert "disk.img: 452 KiB, 16 KiB of data in 2 extents" in texts(root)
    shown = "\n".join(hovers(root))
    assert "offset 0x64000 (409,600)" in shown
    assert "nbytes 0x3000 (12,288)" in shown
    assert "offset 0x70000 (458,752)" in shown
    assert run("map", path, "--svg", "-").stdout == (tmp_path / "a.svg").read_text()


def test_the_picture_of_an_array(tmp_path: Path) -> None:
    """Of .npy files it is where items are stored; in tiles, too; or the file, if asked for."""
    for tiles in (None, (64, 64)):
        array = sparsearray.zeros((4096, 4096), "u1", tiles=tiles)
        array[1024:1088, 2048:2112] = 1
        array.save(tmp_path / "a.npy")
        root = read_svg(picture_of(str(tmp_path / "a.npy")))
        assert any("(4096, 4096) uint8" in text for text in texts(root))
        assert "axis 0: 4,096 →" in texts(root)
        assert any("■" in text for text in texts(root))
        found = hovers(root)
        assert found
        assert all(one.startswith("[") for one in found)
        root = read_svg(picture_of(str(tmp_path / "a.npy"), "file"))
        assert any("of data in" in text for text in texts(root))


def test_an_array_without_a_picture_is_shown_as_a_file(tmp_path: Path) -> None:
    """A single item, and none at all."""
    for array in (np.array(3.0), np.zeros((0, 5))):
        np.save(tmp_path / "a.npy", array)
        assert any(
            "extent" in text for text in texts(read_svg(picture_of(str(tmp_path / "a.npy"))))
        )


def test_the_picture_of_an_image() -> None:
    """Of ELF files it is their segments, as readelf lists them, and what the colours are."""
    pytest.importorskip("elftools", reason="of the extra images")
    from elftools.elf.elffile import ELFFile

    path = os.path.realpath(sys.executable)
    with open(path, "rb") as file:
        loads = [one for one in ELFFile(file).iter_segments() if one["p_type"] == "PT_LOAD"]
        addresses = [one["p_vaddr"] for one in loads]
    root = read_svg(picture_of(path))
    shown = "\n".join(hovers(root))
    for address in addresses:
        assert f"{address:#x} to " in shown
    (legend,) = (text for text in texts(root) if "■" in text)
    assert "code" in legend


def test_a_missing_package_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For an image it is pyelftools; as a file it can be drawn without."""
    monkeypatch.setitem(sys.modules, "elftools", None)
    for name in [name for name in sys.modules if name.startswith("elftools.")]:
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["map", sys.executable, "--svg", str(tmp_path / "a.svg")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("sparsearray: error: open_elf needs ")
    assert "[images]" in error
    assert error.count("\n") == 1
    assert names(tmp_path) == []
    assert main(["map", sys.executable, "--as=file", "--svg", str(tmp_path / "a.svg")]) == 0


@pytest.mark.parametrize("svg", [True, False])
def test_errors_are_one_line(svg: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing there, an empty file, a folder, a pipe: and no picture is made, nor an old one lost."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "empty").touch()
    (tmp_path / "a.svg").write_text("old")
    cases = {
        "missing": "missing: No such file or directory",
        "empty": "empty is empty: there is nothing to draw",
        "fifo": "fifo: Not a regular file",
        "": ": Is a directory",
    }
    for name, text in cases.items():
        options = ["--svg", str(tmp_path / "a.svg")] if svg else []
        assert main(["map", f"{tmp_path}/{name}", *options]) == 1
        assert capsys.readouterr().err == f"sparsearray: error: {tmp_path}/{text}\n"
    assert (tmp_path / "a.svg").read_text() == "old"


def test_a_picture_does_not_replace_what_it_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under whatever name."""
    (tmp_path / "a").write_bytes(b"text")
    (tmp_path / "b").symlink_to("a")
    for target in (tmp_path / "a", tmp_path / "b"):
        assert main(["map", str(tmp_path / "a"), "--svg", str(target)]) == 1
        assert capsys.readouterr().err.endswith(f"{target} are the same file\n")
        assert (tmp_path / "a").read_bytes() == b"text"


def test_damaged_arrays_and_images_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names the file; as a file it can still be drawn."""
    pytest.importorskip("elftools", reason="of the extra images")
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00")
    (tmp_path / "core").write_bytes(b"\x7fELF\x02\x01\x01")
    for name in ("a.npy", "core"):
        assert main(["map", str(tmp_path / name), "--svg=-"]) == 1
        error = capsys.readouterr().err
        assert error.startswith("sparsearray: error: ")
        assert name in error
        assert error.count("\n") == 1
        assert main(["map", str(tmp_path / name), "--svg=-", "--as=file"]) == 0
        read_svg(capsys.readouterr().out)


def test_what_to_draw_is_for_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In text it is the file: anything else is wrong usage."""
    with pytest.raises(SystemExit) as caught:
        main(["map", str(tmp_path), "--as=array"])
    assert caught.value.code == 2
    assert "--as array is for --svg" in capsys.readouterr().err


def test_odd_names_in_pictures(tmp_path: Path) -> None:
    """What is markup in a name is text in the picture, and what does not print is quoted."""
    for name in ("<svg>&amp;\"'", "two\nlines", "\x1b[31m", os.fsdecode(b"\xff"), "long" * 60):
        path = tmp_path / name
        Layout([("data", PAGE)]).write(path)
        root = read_svg(picture_of(str(path)))
        assert texts(root)[0].isprintable()
        path.unlink()
