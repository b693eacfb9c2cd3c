"""
The headers of ELF files as structured dtypes: elf(5).

Enough for `tour` and `info` to show what dtypes are good for; it is no parser of ELF files.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparsearray.buffer import SparseBuffer

__all__ = ["MAGIC", "ElfFile", "Segment", "file_header", "program_header", "read_elf"]

MAGIC = b"\x7fELF"
PT_LOAD = 1
PN_XNUM = 0xFFFF  # more segments than the header can say
TYPES = {1: "relocatable", 2: "executable", 3: "shared object or PIE", 4: "core dump"}
MACHINES = {3: "x86", 8: "MIPS", 20: "PowerPC", 21: "PowerPC64", 22: "S390", 40: "ARM"} | {
    62: "x86-64",
    183: "AArch64",
    243: "RISC-V",
    258: "LoongArch",
}
SEGMENT_TYPES = {1: "LOAD", 2: "DYNAMIC", 3: "INTERP", 4: "NOTE", 6: "PHDR", 7: "TLS"} | {
    0x6474E550: "EH_FRAME",
    0x6474E551: "STACK",
    0x6474E552: "RELRO",
    0x6474E553: "PROPERTY",
}


def file_header(order: str, bits: int) -> np.dtype:
    """Return the dtype of the header at the start: `order` is '<' or '>', `bits` 32 or 64."""
    word, half = f"{order}u{bits // 8}", f"{order}u2"
    return np.dtype(
        [
            ("ident", "S16"),
            ("type", half),
            ("machine", half),
            ("version", f"{order}u4"),
            ("entry", word),
            ("phoff", word),
            ("shoff", word),
            ("flags", f"{order}u4"),
            ("ehsize", half),
            ("phentsize", half),
            ("phnum", half),
            ("shentsize", half),
            ("shnum", half),
            ("shstrndx", half),
        ]
    )


def program_header(order: str, bits: int) -> np.dtype:
    """Return the dtype of an entry of the segment table."""
    word, four = f"{order}u{bits // 8}", f"{order}u4"
    places = ["offset", "vaddr", "paddr", "filesz", "memsz"]
    names = ["type", *places, "flags", "align"]
    formats = [four, *[word] * 5, four, word]
    if bits == 64:
        names.insert(1, names.pop(6))
        formats.insert(1, formats.pop(6))
    return np.dtype(list(zip(names, formats, strict=True)))


class Segment(NamedTuple):
    """What an entry of the segment table says, in bytes."""

    type: int
    flags: int
    offset: int
    vaddr: int
    filesz: int
    memsz: int

    @property
    def permissions(self) -> str:
        """As ``ls`` writes them."""
        return "".join(
            letter if self.flags & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1))
        )

    @property
    def name(self) -> str:
        """The type by name."""
        return SEGMENT_TYPES.get(self.type, f"{self.type:#x}")


class ElfFile(NamedTuple):
    """The headers of a file."""

    order: str
    bits: int
    header: Any
    segments: list[Segment]

    @property
    def loads(self) -> list[Segment]:
        """The segments that a loader maps."""
        return [segment for segment in self.segments if segment.type == PT_LOAD]

    @property
    def kind(self) -> str:
        """What it is, in words."""
        endian = "little-endian" if self.order == "<" else "big-endian"
        machine = int(self.header["machine"])
        kind = TYPES.get(int(self.header["type"]), f"type {int(self.header['type'])}")
        return (
            f"ELF {self.bits}-bit {endian}, {MACHINES.get(machine, f'machine {machine}')}, {kind}"
        )


def read_elf(buffer: SparseBuffer, offset: int, nbytes: int) -> ElfFile:
    """
    Read the headers of a file that is mapped in a buffer from its start.

    Parameters
    ----------
    buffer : SparseBuffer
        Where it is mapped.
    offset : int
        Of its first byte, in bytes.
    nbytes : int
        How much of the file there is, in bytes.

    Raises
    ------
    ValueError
        It is not ELF, of an unknown class or byte order, cut short, or damaged.
    AccessError, OutOfBoundsError
        The headers lie outside what is mapped.
    """
    ident = buffer.read_at(offset, 16)
    if ident[:4] != MAGIC:
        msg = f"not an ELF file: it begins with {ident[:4]!r}"
        raise ValueError(msg)
    if nbytes < 16:
        raise _cut_short(nbytes)
    if ident[4] not in (1, 2) or ident[5] not in (1, 2):
        msg = f"unknown class {ident[4]} or byte order {ident[5]}"
        raise ValueError(msg)
    bits, order = 32 * ident[4], "<>"[ident[5] - 1]
    form = file_header(order, bits)
    if nbytes < form.itemsize:
        raise _cut_short(nbytes)
    header = buffer.read_plain(offset, form)
    entries = _segment_table(buffer, offset, nbytes, header, order, bits)
    fields = ["type", "flags", "offset", "vaddr", "filesz", "memsz"]
    segments = [Segment(*entry) for entry in entries[fields].tolist()]
    return ElfFile(order, bits, header, segments)


def _segment_table(
    buffer: SparseBuffer, offset: int, nbytes: int, header: Any, order: str, bits: int
) -> NDArray[Any]:
    """Gather the entries of the segment table, which lie a step apart: often their own size."""
    start, number, step = (int(header[field]) for field in ("phoff", "phnum", "phentsize"))
    form = program_header(order, bits)
    if number == PN_XNUM:
        at = int(header["shoff"]) + (28 if bits == 32 else 44)  # sh_info of the first section
        if at + 4 > nbytes:
            raise _cut_short(nbytes)
        number = int(buffer.read_plain(offset + at, f"{order}u4"))
    if number and step < form.itemsize:
        msg = f"entries of {step} bytes in the segment table: too small"
        raise ValueError(msg)
    if start + number * step > nbytes:
        raise _cut_short(nbytes)
    return buffer.gather(offset + start + np.arange(number) * step, form)


def _cut_short(nbytes: int) -> ValueError:
    return ValueError(f"cut short: {nbytes} bytes do not hold the headers")
