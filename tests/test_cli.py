"""The command line, run as users run it."""

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sparsearray import SparseBuffer, __version__
from sparsearray.cli import main
from sparsearray.cli.elf import file_header, program_header, read_elf
from sparsearray.cli.info import extents_of
from sparsearray.cli.tour import elf_files, map_elf, print_tour, resident_in

PAGE = os.sysconf("SC_PAGESIZE")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "sparsearray", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def write_elf(path: Path, order: str, bits: int) -> None:
    """Write a file with one LOAD segment: 100 bytes at 0x2010 of memory, 5,000 bytes long there."""
    ident = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2, 1]) + bytes(9)
    word = "I" if bits == 32 else "Q"
    size = struct.calcsize(f"{order}HHI{word * 3}IHHHHHH") + 16
    rest = struct.pack(
        f"{order}HHI{word * 3}IHHHHHH", 2, 62, 1, 0x2010, size, 0, 0, size, 56, 1, 0, 0, 0
    )
    fields = {"offset": 0x1010, "vaddr": 0x2010, "paddr": 0, "filesz": 100, "memsz": 5000}
    if bits == 64:
        table = struct.pack(f"{order}II6Q", 1, 6, *fields.values(), PAGE)
    else:
        table = struct.pack(f"{order}8I", 1, *fields.values(), 6, PAGE).ljust(56, b"\0")
    body = (ident + rest + table).ljust(0x1010, b"\0") + b"\xee" * 100
    path.write_bytes(body)


def test_tour_maps_the_running_interpreter_and_its_c_library() -> None:
    """The tour ends well, and names the two files that the process itself has mapped."""
    done = run("tour")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    files = elf_files()
    assert len(files) == 2
    for path in files:
        assert Path(path).name in done.stdout
    assert "is not mapped" in done.stdout
    assert "is read-only" in done.stdout
    assert "1 TiB reserved" in done.stdout


def test_tour_uses_little_memory() -> None:
    """What the tour maps is gigabytes; what it makes resident stays below 4 MiB."""
    with SparseBuffer(1 << 40) as buffer:
        for i, path in enumerate(elf_files()):
            map_elf(buffer, i << 32, path, PAGE)
        costs = resident_in(buffer, buffer.regions)
        assert costs is not None
        assert 0 <= sum(costs) < 4 << 20


def test_tour_goes_on_without_elf_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """No file, or one that is no ELF file, is said in one line."""
    print_tour([])
    assert "No ELF file was found" in capsys.readouterr().out
    other = tmp_path / "text"
    other.write_text("no program")
    print_tour([str(other)])
    output = capsys.readouterr().out
    assert f"{other}: cannot be shown: no ELF header" in output
    assert "Memory of your own" in output


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [32, 64])
def test_elf_segments_are_mapped_as_a_loader_does(tmp_path: Path, order: str, bits: int) -> None:
    """Bytes of the file at their address, zeros after them, for both classes and byte orders."""
    path = tmp_path / "elf"
    write_elf(path, order, bits)
    with SparseBuffer(1 << 20) as buffer:
        elf = map_elf(buffer, 0x10000, str(path), PAGE)
        assert (elf.bits, elf.order, len(elf.loads)) == (bits, order, 1)
        assert buffer.read_at(0x12010, 100) == b"\xee" * 100
        assert buffer.read_at(0x12010 + 100, 4900) == bytes(4900)
        assert elf.loads[0].permissions == "rw-"


def test_elf_dtypes_have_the_sizes_of_elf_h() -> None:
    """52 and 64 bytes for the header, 32 and 56 for a segment's entry."""
    sizes = [file_header("<", bits).itemsize for bits in (32, 64)]
    assert sizes == [52, 64]
    assert [program_header("<", bits).itemsize for bits in (32, 64)] == [32, 56]


@pytest.mark.skipif(shutil.which("readelf") is None, reason="needs readelf, of binutils")
def test_headers_are_those_that_readelf_shows() -> None:
    """Segment by segment of the C library: offset, address and lengths."""
    path = elf_files()[1]
    shown = subprocess.run(
        [str(shutil.which("readelf")), "-lW", path], capture_output=True, text=True, check=True
    ).stdout
    loads = [line.split() for line in shown.splitlines() if line.split()[:1] == ["LOAD"]]
    nbytes = Path(path).stat().st_size
    with SparseBuffer(nbytes) as buffer:
        buffer.map_file(0, buffer.nbytes, path)
        found = read_elf(buffer, 0, nbytes).loads
    assert [[s.offset, s.vaddr, s.filesz, s.memsz] for s in found] == [
        [int(line[i], 16) for i in (1, 2, 4, 5)] for line in loads
    ]


def test_info_shows_data_and_holes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A page of data in a gigabyte is one extent between two holes."""
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 30)
        file.seek(1 << 29)
        file.write(b"x")
        file.flush()
        extents = list(extents_of(file.fileno(), 1 << 30))
    assert extents == [(1 << 29, (1 << 29) + PAGE)]
    assert main(["info", str(path)]) == 0
    output = capsys.readouterr().out
    assert "1 extent, 4 KiB" in output
    assert "2 holes, 1 GiB" in output
    assert "0x20000000" in output


def test_info_shows_what_npy_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Shape, dtype, order and where the data begins."""
    path = tmp_path / "a.npy"
    np.save(path, np.asfortranarray(np.zeros((3, 5), ">i4")))
    assert main(["info", str(path)]) == 0
    output = capsys.readouterr().out
    assert "shape    (3, 5), dtype >i4, Fortran order" in output
    assert "from 0x80 (128), not on a page" in output
    path.write_bytes(path.read_bytes()[:-7])
    assert main(["info", str(path)]) == 0
    assert "cut short: 7 bytes are missing" in capsys.readouterr().out
    path.write_bytes(b"\x93NUMPY\x01\x00\x76\x00{'descr'")
    assert main(["info", str(path)]) == 0
    assert "damaged" in capsys.readouterr().out


def test_info_says_when_an_elf_file_is_cut_short(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both where its headers are gone and where its segments are."""
    whole, path = Path(elf_files()[1]).read_bytes(), tmp_path / "cut"
    for nbytes in (30, 100, len(whole) // 2):
        path.write_bytes(whole[:nbytes])
        assert main(["info", str(path)]) == 0
        assert "damaged  cut short" in capsys.readouterr().out


def test_info_of_an_empty_file_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No bytes, no pages, no error."""
    path = tmp_path / "empty"
    path.touch()
    assert main(["info", str(path)]) == 0
    assert "empty: there is nothing to map" in capsys.readouterr().out


def test_errors_are_one_line_and_status_1(tmp_path: Path) -> None:
    """A missing file, a directory and a FIFO, which must not be waited for."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    cases = {
        str(tmp_path / "missing"): "No such file or directory",
        str(tmp_path): "Is a directory",
        str(fifo): "Not a regular file",
    }
    for path, text in cases.items():
        done = run("info", path)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"sparsearray: error: {path}: {text}\n"


def test_usage_errors_end_with_status_2() -> None:
    """No command, an unknown one, or one argument too few."""
    for arguments in ((), ("dance",), ("info",)):
        done = run(*arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("usage: sparsearray")


def test_version_and_help() -> None:
    """Both go to standard output and end with 0."""
    assert run("--version").stdout.strip() == __version__
    done = run("--help")
    assert done.returncode == 0
    assert "tour" in done.stdout
    assert "info" in done.stdout


def test_a_closed_pipe_ends_the_command_quietly() -> None:
    """As with `sparsearray tour | head -n 1`."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "sparsearray", "tour"],
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
        timeout=60,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")
