"""
Memory that a file tells of, read at its own addresses: core dumps, executables, firmware.

`open_elf`, `open_ihex`, `open_srec` and `open_raw` make an `Image`. It reads values and arrays of
any dtype at any address, searches what is there, and tells what is not.

pyelftools and bincopy read the formats: ``pip install 'sparsearray-numpy[images]'``.
"""

from .elf import open_elf
from .hex_files import open_ihex, open_srec
from .image import Image
from .raw import open_raw
from .segment import Segment

__all__ = ["Image", "Segment", "open_elf", "open_ihex", "open_raw", "open_srec"]
