"""open_elf on cores of real processes, from the kernel and from gcore, against gdb."""

import mmap
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from sparsearray import AccessError
from sparsearray.images import open_elf

from .elf_files import CLEAN, compile_c, kernel_core, need

pytest.importorskip("elftools")

P = mmap.PAGESIZE
MAGIC = 0x1122_3344_5566_7788
NODE = np.dtype([("magic", "u8"), ("next", "u8"), ("value", "i4"), ("name", "S20")])
PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
struct node { unsigned long magic; struct node *next; int value; char name[20]; };
struct node *head;
char zeros[200000];
unsigned char *alone, *hidden;
int main(int argc, char **argv) {
  for (int i = 0; i < 500; i++) {
    struct node *node = malloc(sizeof *node + i % 50);
    node->magic = 0x1122334455667788; node->next = head; node->value = i * i;
    snprintf(node->name, sizeof node->name, "node %d", i);
    head = node;
  }
  alone = mmap((void *)0x100000000000, 4 * sysconf(_SC_PAGESIZE), PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memset(alone, 'x', 3 * sysconf(_SC_PAGESIZE));
  hidden = mmap(0, sysconf(_SC_PAGESIZE), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memset(hidden, 'h', 100);
  madvise(hidden, sysconf(_SC_PAGESIZE), MADV_DONTDUMP);
  if (argc > 1) abort();
  puts("ready"); fflush(stdout);
  return getchar();
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """Compile the program that dumps core."""
    return compile_c(PROGRAM, tmp_path_factory.mktemp("program") / "lists")


@pytest.fixture(scope="module", params=["kernel", "gcore"])
def core(request, program, tmp_path_factory):
    """Make a core of the program, as the kernel does and as gdb does."""
    folder = tmp_path_factory.mktemp("core")
    if request.param == "kernel":
        return kernel_core([str(program), "abort"], folder)
    gdb = need("gdb")
    process = subprocess.Popen(
        [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder, env=CLEAN
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        command = [gdb, "-nx", "-p", str(process.pid), "-batch", "-ex", f"gcore {folder}/made"]
        done = subprocess.run(
            command, env=CLEAN, capture_output=True, text=True, check=False, timeout=60
        )
    finally:
        process.communicate("\n")
    if not (folder / "made").exists():
        pytest.skip(f"gdb cannot make a core here: {done.stderr.strip()[-200:]}")
    return folder / "made"


@pytest.fixture(scope="module")
def ask_gdb(program, core):
    """Call it with commands: what gdb says of the core."""
    gdb = need("gdb")

    def ask(*commands: str) -> str:
        options = [part for command in commands for part in ("-ex", command)]
        done = subprocess.run(
            [gdb, "-nx", "-batch", program, core, *options],
            env=CLEAN,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        return done.stdout

    return ask


@pytest.fixture
def image(core):
    """Open the core."""
    with open_elf(core) as made:
        yield made


def core_sections(said: str) -> list[tuple[int, int]]:
    """Read (start, stop) of the memory a core has from gdb's ``maintenance info sections``."""
    return [
        (int(match[1], 16), int(match[2], 16))
        for match in re.finditer(
            r"^ *\[\d+\] +0x([0-9a-f]+)->0x([0-9a-f]+) at .*: load\d+a? .*HAS_CONTENTS",
            said,
            re.MULTILINE,
        )
    ]


def test_ranges_are_those_of_gdb(image, ask_gdb):
    """What is there is what gdb finds in the core, to the byte."""
    expected = core_sections(ask_gdb("maintenance info sections"))
    assert len(expected) > 4
    joined: list[list[int]] = []
    for start, stop in sorted(expected):
        if joined and joined[-1][1] == start:
            joined[-1][1] = stop
        elif start < stop:
            joined.append([start, stop])
    spans = image._table.spans
    assert [[span.address, span.address + span.nbytes] for span in spans] == joined


def test_bytes_are_those_of_gdb(image, ask_gdb, tmp_path):
    """So are all the bytes."""
    spans = image._table.spans
    commands = [
        f"dump binary memory {tmp_path}/{span.address:x} {span.address:#x} {span.address + span.nbytes:#x}"
        for span in spans
        if span.address + span.nbytes < 1 << 63  # gdb takes addresses for signed here
    ]
    ask_gdb(*commands)
    assert len(commands) > 4
    compared = 0
    for span in spans:
        path = tmp_path / f"{span.address:x}"
        if path.exists():
            assert image.read_at(span.address, span.nbytes) == path.read_bytes()
            compared += span.nbytes
    assert compared > 300_000


def test_values_are_those_of_gdb(image, ask_gdb):
    """Values that gdb examines with x/ are those that read_plain and gather give."""
    spans = image._table.spans
    places = [
        address
        for span in spans
        for address in (
            span.address,
            span.address + span.nbytes // 2,
            span.address + span.nbytes - 8,
        )
        if address < 1 << 63
    ]
    said = ask_gdb(*(f"x/1xg {address:#x}" for address in places))
    values = [
        int(text, 16)
        for text in re.findall(r"^0x[0-9a-f]+[^:]*:\t0x([0-9a-f]+)$", said, re.MULTILINE)
    ]
    assert len(values) == len(places)
    assert image.gather(places, image.pointer).tolist() == values
    assert [int(image.read_plain(place, "<u8")) for place in places] == values


def test_structs_are_found_and_followed(image, ask_gdb):
    """The nodes of the list are found by their first field, and followed through memory."""
    found = list(image.search(MAGIC))
    nodes = image.gather(found, NODE)
    nodes = nodes[np.char.startswith(nodes["name"], b"node ")]
    assert sorted(nodes["value"].tolist()) == [i * i for i in range(500)]
    head, size = re.findall(
        r"^\$\d+ = (?:.*\) )?(\w+)", ask_gdb("p head", "p sizeof *head"), re.MULTILINE
    )
    assert int(size) == 40
    address, values = int(head, 16), []
    while address:
        node = image.read_plain(address, NODE)
        values.append(int(node["value"]))
        address = int(node["next"])
    assert values == [i * i for i in reversed(range(500))]


def test_text_is_found_by_a_regular_expression(image):
    """Names are found, and read back at their addresses."""
    matches = list(image.search(re.compile(rb"node (\d+)\0")))
    assert {found for _, found in matches} >= {b"node %d\0" % i for i in range(500)}
    for address, found in matches[:50]:
        assert image.read_at(address, len(found)) == found


def test_memory_alone_and_memory_left_out(image, ask_gdb):
    """A mapping far from others is there, to its last byte; what was not dumped is not."""
    base = 0x1000_0000_0000
    assert image.read_at(base, 4 * P) == b"x" * (3 * P) + bytes(P)
    assert base - 1 not in image
    assert base + 4 * P not in image
    window = image.window(base, (4, P))
    assert (window[:3] == ord("x")).all()
    (hidden,) = re.findall(r"^\$\d+ = .*?(0x\w+)", ask_gdb("p hidden"), re.MULTILINE)
    del window
    with pytest.raises(AccessError) as caught:
        image.read_at(int(hidden, 16), 4)
    assert caught.value.offset == int(hidden, 16)


def test_vsyscall(image):
    """The page at the far end of the address space is read, where the core has it."""
    vsyscall = 0xFFFFFFFFFF600000
    if not any(one.address == vsyscall for one in image.segments):
        pytest.skip("this kernel shows no vsyscall page")
    assert image.read_at(vsyscall, 4)
    assert vsyscall + P not in image


def test_names_of_mapped_files(image, program):
    """Segments of mapped files carry their names."""
    names = {segment.name for segment in image.segments}
    assert str(program) in names
    assert any("libc" in name for name in names if name)
    assert None in names


def test_pages_of_kernels_cores_are_mapped(core, image):
    """A core of the kernel's costs next to no memory, one of gcore's is a copy."""
    kinds = {region.kind: region.nbytes for region in image._buffer.regions}
    if core.name == "made":
        assert "private" in kinds
    else:
        assert kinds.keys() == {"file"} or kinds.keys() == {"file", "zero"}


def test_a_core_cut_short(core, tmp_path, descriptors):
    """A core that the disk or a limit cut short names the segment, and opens on demand."""
    path = tmp_path / "cut"
    shutil.copy(core, path)
    size = path.stat().st_size * 2 // 3
    os.truncate(path, size)
    before = descriptors()
    with pytest.raises(ValueError, match=r"segment \d+ at address 0x.*cut short") as caught:
        open_elf(path)
    assert f"{size:#x} ({size})" in str(caught.value)
    assert descriptors() == before
    with open_elf(core) as whole, open_elf(path, allow_truncated=True) as cut:
        assert 0 < cut.nbytes < whole.nbytes
        for span in cut._table.spans:
            assert cut.read_at(span.address, span.nbytes) == whole.read_at(
                span.address, span.nbytes
            )
        lost = whole.nbytes - cut.nbytes
        in_file = sum(
            max(one.file_offset + one.nbytes_in_file - max(size, one.file_offset), 0)
            for one in whole.segments
        )
        assert lost == in_file


@pytest.mark.slow
def test_a_core_of_python(tmp_path):
    """A dictionary of a Python process is found in its core."""
    script = "import os; kept = [b'needle %07d' % i for i in range(1000)]; os.abort()"
    path = kernel_core([sys.executable, "-c", script], tmp_path)
    with open_elf(path) as image:
        found = {text for _, text in image.search(re.compile(rb"needle \d{7}\0"))}
        assert found >= {b"needle %07d\0" % i for i in range(1000)}
