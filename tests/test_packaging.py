"""What is installed."""

import re
import shutil
import subprocess
import sys
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


def test_a_source_tree_says_what_it_lacks(tmp_path: Path) -> None:
    """Python finds it before what is installed, in its folder: the error says what to do."""
    without = shutil.ignore_patterns("_native*", "__pycache__")
    shutil.copytree(Path(sparsearray.__file__).parent, tmp_path / "sparsearray", ignore=without)
    command = [sys.executable, "-c", "import sparsearray"]

    def last_line() -> str:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.stderr.splitlines()[-1]

    assert "No module named 'sparsearray._native'" in last_line()
    (tmp_path / "pyproject.toml").touch()
    last = last_line()
    assert last.startswith(f"ImportError: {tmp_path} is the source tree of sparsearray")
    assert "start Python in another folder, or with -P" in last


def test_type_information_is_installed() -> None:
    """`py.typed` (PEP 561) and the stub of the native module lie beside it."""
    folder = Path(sparsearray.__file__).parent
    assert (folder / "py.typed").exists()
    assert (folder / "_native.pyi").exists()


def test_the_command_is_installed() -> None:
    """`sparsearray` runs the command line."""
    (entry,) = metadata.entry_points(group="console_scripts", name="sparsearray")
    assert entry.value == "sparsearray.cli:main"
