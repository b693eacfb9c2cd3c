"""Which optional packages an example needs, so that it is skipped where they are not installed."""

import re
import sys
from importlib.util import find_spec
from pathlib import Path

import sparsearray

OURS = {"numpy", "cffi", "sparsearray"}
# Of our modules for other libraries, and of functions: what they import, if it is called otherwise.
PACKAGES = {"hdf5": "h5py", "open_elf": "elftools", "open_ihex": "bincopy", "open_srec": "bincopy"}
# By method of arrays: our module that it leads to.
_METHODS = dict(
    re.findall(
        r"\n    def (to_\w+)\((?:(?!\n    def ).)*?from \.interop\.(\w+) import",
        (Path(sparsearray.__file__).parent / "_conversions.py").read_text(),
        re.DOTALL,
    )
)


def missing_for(code: str) -> list[str]:
    """
    Return the packages that an example, a session or a program, needs and that are missing.

    They are seen by their imports, by those of our modules for them, and by methods such as
    `to_zarr`.
    """
    imported = re.findall(r"^(?:>>> |\.\.\. )? *(?:import|from) (\w+)", code, re.MULTILINE)
    ours = re.findall(r"\b(?:interop\.([a-z]\w*)|(open_(?:elf|ihex|srec))\()", code)
    methods = re.findall(r"\.(to_\w+)\(", code)
    names = set(imported) | {one or two for one, two in ours}
    names |= {_METHODS[method] for method in methods if method in _METHODS}
    packages = {PACKAGES.get(name, name) for name in names - OURS - sys.stdlib_module_names}
    return sorted(package for package in packages if find_spec(package) is None)
