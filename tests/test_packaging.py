"""What is installed."""

import re
from importlib import metadata
from pathlib import Path

import sparsearray
from sparsearray import _native

DISTRIBUTION = "sparsearray-numpy"


def test_version_is_the_distributions() -> None:
    """The version is kept in one place."""
    assert sparsearray.__version__ == metadata.version(DISTRIBUTION)


def test_run_time_needs_numpy_and_cffi_only() -> None:
    """Nothing else is installed with it."""
    needs = metadata.requires(DISTRIBUTION) or []
    names = {re.match(r"[\w-]+", need).group() for need in needs if "extra ==" not in need}
    assert names == {"numpy", "cffi"}


def test_the_native_module_serves_every_cpython() -> None:
    """It is built for the stable ABI."""
    assert Path(_native.__file__).name == "_native.abi3.so"


def test_type_information_is_installed() -> None:
    """`py.typed` (PEP 561) and the stub of the native module lie beside it."""
    folder = Path(sparsearray.__file__).parent
    assert (folder / "py.typed").exists()
    assert (folder / "_native.pyi").exists()


def test_the_command_is_installed() -> None:
    """`sparsearray` runs the command line."""
    (entry,) = metadata.entry_points(group="console_scripts", name="sparsearray")
    assert entry.value == "sparsearray.cli:main"
