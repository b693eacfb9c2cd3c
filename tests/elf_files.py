"""ELF files made by hand, with struct alone, and cores of processes."""

import os
import resource
import struct
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

# For programs that are not ours: a sanitizer that is loaded before this one is not for them.
CLEAN = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
EXEC, CORE = 2, 4
LOAD, NOTE = 1, 4
FORMATS = {32: ("HHIIIIIHHHHHH", "IIIIIIII"), 64: ("HHIQQQIHHHHHH", "IIQQQQQQ")}
SECTION = {32: "IIIIIIIIII", 64: "IIQQQQIIQQ"}


class Part(NamedTuple):
    """A segment: what is in the file, and how long it is in memory."""

    address: int
    data: bytes
    memsz: int | None = None
    flags: int = 6
    kind: int = LOAD
    align: int = 1  # of its place in the file
    filesz: int | None = None  # where the header lies
    offset: int | None = None  # likewise


def make_elf(
    parts: list[Part],
    *,
    bits: int = 64,
    order: str = "<",
    kind: int = EXEC,
    xnum: bool = False,
    stride: int = 0,
) -> bytes:
    """Make a file of these segments; with `xnum` their number stands in section header 0."""
    ehdr, phdr = (order + code for code in FORMATS[bits])
    start = 16 + struct.calcsize(ehdr)
    size = struct.calcsize(phdr) + stride
    table, body = bytearray(), bytearray()
    first = at = start + size * len(parts) + (64 if xnum else 0)
    for part in parts:
        pad = -at % part.align
        body += bytes([0xEE]) * pad + part.data
        at += pad
        offset = at if part.offset is None else part.offset
        filesz = len(part.data) if part.filesz is None else part.filesz
        memsz = len(part.data) if part.memsz is None else part.memsz
        where = offset, part.address, part.address, filesz, memsz
        if bits == 64:
            entry = struct.pack(phdr, part.kind, part.flags, *where, part.align)
        else:
            entry = struct.pack(phdr, part.kind, *where, part.flags, part.align)
        table += entry + bytes(stride)
        at += len(part.data)
    ident = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2, 1]) + bytes(9)
    section, number = 0, len(parts)
    extra = b""
    if xnum:
        section, number = first - 64, 0xFFFF
        fields = [0] * 10
        fields[7] = len(parts)
        extra = struct.pack(order + SECTION[bits], *fields).ljust(64, b"\0")
    head = struct.pack(
        ehdr, kind, 62 if bits == 64 else 3, 1, 0, start, section, 0, start, size, number, 0, 0, 0
    )
    return ident + head + table + extra + body


def kernel_core(command: list[str], folder: Path) -> Path:
    """Run a program that aborts, and return the core that the kernel wrote."""
    pattern = Path("/proc/sys/kernel/core_pattern")
    if not pattern.exists():
        pytest.skip("this system does not say where cores go")
    if pattern.read_text().startswith("|"):
        pytest.skip("cores go into a pipe here")
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    if hard == 0:
        pytest.skip("cores are not allowed here: ulimit -Hc")

    def allow() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))

    done = subprocess.run(
        command,
        cwd=folder,
        env=CLEAN,
        preexec_fn=allow,
        check=False,
        capture_output=True,
        timeout=60,
    )
    found = sorted(folder.glob("core*"))
    if not found:
        pytest.skip(f"no core appeared after {command[0]} ended with {done.returncode}")
    return found[0]


def compile_c(source: str, target: Path, *options: str) -> Path:
    """Compile a C program."""
    compiler = next((one for one in ("gcc", "cc") if _is_there(one)), None)
    if compiler is None:
        pytest.skip("no C compiler")
    target.with_suffix(".c").write_text(source)
    subprocess.run(
        [compiler, "-g", "-O0", *options, "-o", target, target.with_suffix(".c")],
        env=CLEAN,
        check=True,
    )
    return target


def need(tool: str) -> str:
    """Skip where a program is not installed."""
    if not _is_there(tool):
        pytest.skip(f"{tool} is not installed")
    return tool


def _is_there(tool: str) -> bool:
    return any(os.access(Path(one) / tool, os.X_OK) for one in os.get_exec_path())


def objdump_bytes(path: Path, *options: str) -> dict[int, int]:
    """Read the bytes of all sections that are loaded, by address, with ``objdump -s``."""
    command = [need("objdump"), "-s", *options, str(path)]
    text = subprocess.run(command, env=CLEAN, capture_output=True, text=True, check=True).stdout
    found: dict[int, int] = {}
    for line in text.splitlines():
        # " 401000 f30f1efa 4883ec08 488b05d9 2f000048  ....H...H../..H"
        if not line.startswith(" "):
            continue
        address, rest = line[1:].split(" ", 1)
        digits = rest[:35].replace(" ", "")
        for i, byte in enumerate(bytes.fromhex(digits)):
            found[int(address, 16) + i] = byte
    return found
