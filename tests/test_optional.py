"""Optional packages: what is said where one is missing, and that it is true."""

import ast
import inspect
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import sparsearray
from sparsearray._conversions import Conversions
from sparsearray._optional import needed

ROOT = Path(__file__).parent.parent
EXTRAS: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
    "optional-dependencies"
]
# Modules that are called otherwise than what installs them.
DISTRIBUTIONS = {"elftools": "pyelftools"}


class Call(NamedTuple):
    """A call of `needed`: where it is, and its arguments; None for one that is no constant."""

    place: str
    module: str | None
    what: str | None
    extra: str | None


def find_calls() -> list[Call]:
    """Find all calls of `needed` in the sources."""
    found = []
    for path in sorted((ROOT / "sparsearray").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "needed":
                given = {"name": None, "what": None, "extra": None}
                values = dict(zip(given, node.args, strict=False))
                values |= {one.arg: one.value for one in node.keywords if one.arg}
                for name, value in values.items():
                    if isinstance(value, ast.Constant):
                        given[name] = value.value
                place = f"{path.relative_to(ROOT)}:{node.lineno}"
                found.append(Call(place, *given.values()))
    return found


CALLS = find_calls()


def installed_by(extra: str) -> set[str]:
    """Return the distributions of an extra."""
    return {re.match(r"[\w-]+", one).group() for one in EXTRAS[extra]}


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.place)
def test_extras_are_there(call: Call) -> None:
    """An extra that an error names is one that pyproject.toml has, and installs the package."""
    assert call.extra in EXTRAS
    if call.module:
        package = call.module.partition(".")[0]
        assert DISTRIBUTIONS.get(package, package) in installed_by(call.extra)


def test_modules_for_other_libraries_name_theirs() -> None:
    """Each public module of interop has the name of an extra, and errors that name it."""
    public = {path.stem for path in ROOT.glob("sparsearray/interop/[!_]*.py")}
    assert public <= {call.extra for call in CALLS}


def test_all_is_all_of_them() -> None:
    """The extra `all` has every other one."""
    (everything,) = EXTRAS["all"]
    listed = re.search(r"\[(.*)\]", everything).group(1)
    assert sorted(listed.split(",")) == sorted(set(EXTRAS) - {"all"})


def test_the_quick_start_lists_them() -> None:
    """The table of extras says of each what it installs."""
    text = (ROOT / "docs/quickstart.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", text, re.MULTILINE))
    assert rows.pop("all") == "all of these"
    assert {extra: set(what.split(", ")) for extra, what in rows.items()} == {
        extra: installed_by(extra) for extra in EXTRAS if extra != "all"
    }


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.place)
def test_the_error_names_what_installs_it(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package there is an ImportError with the command that installs it."""
    package = (call.module or "package").partition(".")[0]
    monkeypatch.delitem(sys.modules, call.module or package, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"needs {package}: pip install '.*\[{call.extra}\]'"):
        needed(call.module or "package", call.what or "it", call.extra or "all")


CONVERSIONS = sorted(name for name in vars(Conversions) if not name.startswith("_"))


@pytest.mark.parametrize("name", CONVERSIONS)
def test_conversions_say_what_they_need(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method that leads to another library names the extra, before it does anything."""
    for package in {call.module.partition(".")[0] for call in CALLS if call.module}:
        for module in [one for one in sys.modules if one.partition(".")[0] == package]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.chdir(tmp_path)
    array: Any = sparsearray.zeros((4, 4), tiles=(2, 2))
    method = getattr(array, name)
    parameters = inspect.signature(method).parameters.values()
    asked = [
        one for one in parameters if one.default is one.empty and one.kind < one.VAR_POSITIONAL
    ]
    with pytest.raises(ImportError, match=r"pip install 'sparsearray-numpy\[\w+\]'"):
        method(*["a"] * len(asked))
    assert not list(tmp_path.iterdir())


def test_importing_is_cheap() -> None:
    """The package and its modules for other libraries import none of them."""
    code = """
        import sys, pkgutil, importlib
        import sparsearray, sparsearray.images, sparsearray.interop
        for one in pkgutil.iter_modules(sparsearray.interop.__path__):
            importlib.import_module("sparsearray.interop." + one.name)
        print(sorted({name.partition(".")[0] for name in sys.modules}))
    """
    run = [sys.executable, "-P", "-c", inspect.cleandoc(code)]
    printed = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    packages = {call.module.partition(".")[0] for call in CALLS if call.module} | {
        "xarray",
        "pandas",
    }
    assert not packages & set(ast.literal_eval(printed))


@pytest.mark.skipif(find_spec("elftools") is not None, reason="pyelftools is installed")
def test_elf_files_without_pyelftools(data_file: tuple[Path, bytes]) -> None:
    """Where it is really missing, opening an ELF file says so."""
    from sparsearray.images import open_elf

    with pytest.raises(ImportError, match=r"pip install 'sparsearray-numpy\[images\]'"):
        open_elf(data_file[0])
