"""The command line, run as users run it."""

import errno
import os
import shutil
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from sparsearray import SparseBuffer, __version__
from sparsearray.cli import main
from sparsearray.cli.elf import file_header, program_header, read_elf
from sparsearray.cli.regular import extents_of
from sparsearray.cli.tour import elf_files, map_elf, print_tour, resident_in

from .command_line import run

PAGE = os.sysconf("SC_PAGESIZE")


def write_elf(
    path: Path, order: str = "<", bits: int = 64, *, flags: int = 6, filesz: int = 100, **more: int
) -> None:
    """
    Write a file with one LOAD segment.

    5,000 bytes from byte 16 of the third page of memory; the first of them, 100 by default, from
    byte 16 of the second page of the file. `more` changes what its headers say.
    """
    ident = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2, 1]) + bytes(9)
    word = "I" if bits == 32 else "Q"
    form = f"{order}HHI{word * 3}IHHHHHH"
    size = len(ident) + struct.calcsize(form)
    step, number = more.get("phentsize", 60), more.get("phnum", 1)
    rest = struct.pack(
        form, 2, 62, 1, 2 * PAGE + 16, size, more.get("shoff", 0), 0, size, step, number, 0, 0, 0
    )
    places = (PAGE + 16, more.get("vaddr", 2 * PAGE + 16), 0, filesz, 5000)
    if bits == 64:
        table = struct.pack(f"{order}II6Q", more.get("type", 1), flags, *places, PAGE)
    else:
        table = struct.pack(f"{order}8I", more.get("type", 1), *places, flags, PAGE)
    body = (ident + rest + table).ljust(PAGE + 16, b"\0") + b"\xee" * 100 + b"\xdd" * 50
    path.write_bytes(body)


def test_info_reads_no_more_of_a_header_than_numpy_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """However long a damaged file, with a hole for most of it, says that its header is."""
    with (tmp_path / "a.npy").open("wb") as file:
        file.write(b"\x93NUMPY\x02\x00" + (256 << 20).to_bytes(4, "little"))
        file.truncate(257 << 20)
    tracemalloc.start()
    try:
        assert main(["info", str(tmp_path / "a.npy")]) == 0
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
    assert "damaged  a header of 268435456 bytes" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["info", "map"])
def test_a_folder_of_zarrs_is_no_file(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error says which command takes one."""
    (tmp_path / "zarr.json").write_text("{}")
    assert main([command, str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"sparsearray: error: {tmp_path}: a folder of zarr's")
    assert "'sparsearray convert'" in error


def test_info_of_hdf5_says_what_reads_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which is convert; h5py is not needed for that."""
    (tmp_path / "a").write_bytes(b"\x89HDF\r\n\x1a\n".ljust(800, b"\1"))
    assert main(["info", str(tmp_path / "a")]) == 0
    assert "HDF5: 'sparsearray convert'" in capsys.readouterr().out


def test_a_command_imports_no_other() -> None:
    """Copying a file needs neither pictures nor formats of arrays."""
    code = (
        "import sys; from sparsearray.cli import main; main(['copy', '/missing', 'x'])\n"
        "print(sorted(name for name in sys.modules if name.startswith('sparsearray.cli.')))\n"
        "print({'dask', 'h5py', 'scipy', 'tqdm', 'xml', 'zarr'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        f"{[f'sparsearray.cli.{name}' for name in ('copy', 'ending', 'progress', 'regular')]}",
        "set()",
    ]


def test_an_interrupt_while_a_command_is_imported_is_quiet() -> None:
    """As later: status 130, and no traceback."""
    code = (
        "import builtins, signal, sys; from sparsearray.cli import main\n"
        "real = builtins.__import__\n"
        "def slow(name, *rest):\n"
        "    if name.endswith('_digging'): signal.raise_signal(signal.SIGINT)\n"
        "    return real(name, *rest)\n"
        "builtins.__import__ = slow\n"
        "sys.exit(main(['copy', 'a', 'b']))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, "")


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


def test_tour_fits_a_terminal() -> None:
    """No line is longer than 100 columns, or ends in spaces."""
    for line in run("tour").stdout.splitlines():
        assert len(line) <= 100
        assert line == line.rstrip()


def test_tour_uses_little_memory() -> None:
    """What the tour maps is gigabytes; what it makes resident stays below 4 MiB."""
    with SparseBuffer(1 << 40) as buffer:
        for i, path in enumerate(elf_files()):
            map_elf(buffer, i << 32, path)
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
    assert "text: cannot be shown: not an ELF file" in output
    assert "Put memory of your own" in output


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("flags", [4, 5, 6])
def test_elf_segments_are_mapped_as_a_loader_does(
    tmp_path: Path, order: str, bits: int, flags: int
) -> None:
    """Bytes of the file at their address and zeros after them, with the segment's own rights."""
    path = tmp_path / "elf"
    write_elf(path, order, bits, flags=flags)
    with SparseBuffer(1 << 20) as buffer:
        elf = map_elf(buffer, 8 * PAGE, str(path))
        assert (elf.bits, elf.order, len(elf.loads)) == (bits, order, 1)
        assert buffer.read_at(10 * PAGE + 16, 100) == b"\xee" * 100
        assert buffer.read_at(10 * PAGE + 116, 4900) == bytes(4900)
        assert {region.writable for region in buffer.regions} == {flags == 6}
        assert sum(region.nbytes for region in buffer.regions) == -(-5016 // PAGE) * PAGE


def test_elf_segment_without_bytes_of_the_file_is_zeros(tmp_path: Path) -> None:
    """A segment that is all bss is private memory, from the page that it begins in."""
    path = tmp_path / "elf"
    write_elf(path, filesz=0)
    with SparseBuffer(1 << 20) as buffer:
        map_elf(buffer, 0, str(path))
        assert buffer.read_at(2 * PAGE + 16, 5000) == bytes(5000)
        assert [region.kind for region in buffer.regions] == ["private"]


def test_writes_to_a_mapped_segment_do_not_reach_the_file(tmp_path: Path) -> None:
    """The window of a writable segment is copied on write."""
    path = tmp_path / "elf"
    write_elf(path)
    before = path.read_bytes()
    with SparseBuffer(1 << 20) as buffer:
        map_elf(buffer, 0, str(path))
        buffer.write_at(2 * PAGE + 16, b"changed")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"type": 4}, "it has no segments to load"),
        ({"vaddr": (1 << 64) - 6 * PAGE + 16}, "does not lie in the first 4 GiB"),
        ({"vaddr": 2 * PAGE + 17}, "cannot be shown: map_file"),
        ({"phentsize": 8}, "entries of 8 bytes"),
        ({"phnum": 5000}, "cut short"),
        ({"phnum": 0}, "it has no segments to load"),
    ],
)
def test_tour_says_why_a_file_cannot_be_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: dict[str, int], text: str
) -> None:
    """In one sentence, and nothing of the file stays mapped."""
    path = tmp_path / "odd"
    write_elf(path, **more)
    print_tour([str(path)])
    output = " ".join(capsys.readouterr().out.split())
    assert text in output
    assert "1 GiB mapped in 1 region," in output


def test_segments_beyond_what_the_header_can_count(tmp_path: Path) -> None:
    """With 0xffff segments in the header the number is in the first section: elf(5), PN_XNUM."""
    path = tmp_path / "core"
    write_elf(path, phnum=0xFFFF, shoff=PAGE)
    whole = bytearray(path.read_bytes())
    whole[PAGE + 44 : PAGE + 48] = struct.pack("<I", 2)
    path.write_bytes(whole)
    with SparseBuffer(len(whole)) as buffer:
        buffer.map_file(0, buffer.nbytes, path)
        assert len(read_elf(buffer, 0, len(whole)).segments) == 2


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


def test_info_says_when_holes_are_not_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system without SEEK_DATA answers EINVAL, as lseek(2) says."""

    def refuse(*_: int) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    path = tmp_path / "file"
    path.write_bytes(b"x")
    monkeypatch.setattr(os, "lseek", refuse)
    assert main(["info", str(path)]) == 0
    assert "the file system does not say" in capsys.readouterr().out


def test_info_shows_what_npy_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Shape, dtype, order and where the data begins."""
    path = tmp_path / "a.npy"
    np.save(path, np.asfortranarray(np.zeros((3, 5), ">i4")))
    assert main(["info", str(path)]) == 0
    output = capsys.readouterr().out
    assert "shape    (3, 5), Fortran order" in output
    assert "dtype    >i4" in output
    assert "from 0x80 (128), not on a page" in output
    path.write_bytes(path.read_bytes()[:-7])
    assert main(["info", str(path)]) == 0
    assert "cut short: 7 bytes missing" in capsys.readouterr().out
    path.write_bytes(b"\x93NUMPY\x01\x00\x76\x00{'descr'")
    assert main(["info", str(path)]) == 0
    assert "damaged" in capsys.readouterr().out


def test_info_says_when_an_elf_file_is_cut_short(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both where its headers are gone and where its segments are."""
    whole, path = Path(elf_files()[1]).read_bytes(), tmp_path / "cut"
    for nbytes in (4, 30, 100, len(whole) // 2):
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
    """Nothing there, a directory, a FIFO, which must not be waited for, and what is below it."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    cases = {
        str(tmp_path / "missing"): "No such file or directory",
        str(tmp_path): "Is a directory",
        str(fifo): "Not a regular file",
        f"{fifo}/x": "Not a directory",
    }
    for path, text in cases.items():
        done = run("info", path)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"sparsearray: error: {path}: {text}\n"


@pytest.mark.parametrize("name", ["", "two\nlines", "\x1b[31m", os.fsdecode(b"\xff")])
def test_odd_names_are_quoted(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that does not print as it is cannot break the line, nor colour the terminal."""
    assert main(["info", name]) == 1
    assert capsys.readouterr().err == f"sparsearray: error: {name!r}: No such file or directory\n"


def test_unreadable_file_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """EACCES, which root never meets, is said with the file's name."""

    def refuse(path: str, *_: int) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    path = tmp_path / "secret"
    path.touch()
    monkeypatch.setattr(os, "open", refuse)
    assert main(["info", str(path)]) == 1
    assert capsys.readouterr().err == f"sparsearray: error: {path}: Permission denied\n"


def test_usage_errors_end_with_status_2() -> None:
    """No command, an unknown one, or one argument too few."""
    for arguments in ((), ("dance",), ("info",)):
        done = run(*arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("usage: sparsearray")


def test_version_and_help() -> None:
    """Both go to standard output and end with 0."""
    assert run("--version").stdout == f"sparsearray {__version__}\n"
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
