"""The documentation: its examples run, and the reference has every public name."""

import contextlib
import doctest
import importlib
import inspect
import io
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest

import sparsearray
import sparsearray.images
import sparsearray.interop
import sparsearray.testing

from .example_needs import missing_for

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", *sorted(str(one.relative_to(ROOT)) for one in ROOT.glob("docs/**/*.md"))]
API = (ROOT / "docs/api.md").read_text()
# What a fence may be called: examples that run, commands and drawings, and what Sphinx reads.
RUN = ("pycon", "python")
FENCES = {*RUN, "bash", "text", "{eval-rst}", "{toctree}", "{raw} html"}


def read_blocks(page: str) -> list[tuple[int, str, str]]:
    """Return the fenced blocks of a page: their first lines' numbers, what they are called, texts."""
    text = (ROOT / page).read_text()
    found = re.finditer(r"^(`{3,})(.*)\n((?:.*\n)*?)\1$", text, re.MULTILINE)
    return [(text.count("\n", 0, one.start(3)), one[2], one[3]) for one in found]


def run_printing(source: str, page: str, names: dict[str, object]) -> None:
    """Run a program whose prints have beside them, as a comment, what they print."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(source, str(ROOT / page), "exec"), names)  # noqa: S102 - our own
    expected = re.findall(r"^ *print\(.*\)  # (.*)$", source, re.MULTILINE)
    assert printed.getvalue().splitlines() == expected


def run_session(source: str, page: str, line: int, names: dict[str, object]) -> dict[str, object]:
    """Run a session of the interpreter, and return the names there are after it."""
    test = doctest.DocTestParser().get_doctest(source, names, page, str(ROOT / page), line)
    said = io.StringIO()
    doctest.DocTestRunner(verbose=False).run(test, out=said.write, clear_globs=False)
    assert not said.getvalue(), said.getvalue()
    return test.globs


def public_names(thing: type) -> set[str]:
    """Return the public attributes of a class, those of its bases in this package included."""
    bases = [base for base in thing.__mro__ if base.__module__.startswith("sparsearray")]
    return {name for base in bases for name in vars(base) if not name.startswith("_")}


def documented(name: str) -> set[str]:
    """Return the attributes of a class that the reference has a directive for."""
    found = set(re.findall(rf"^\.\. auto(?:method|attribute):: {name}\.(\w+)", API, re.MULTILINE))
    whole = re.search(rf"^\.\. autoclass:: {name}\b.*\n(?: .*\n)*? +:members:$", API, re.MULTILINE)
    if whole:  # :members: takes what has a docstring
        thing = find(name)
        found |= {one for one in public_names(thing) if inspect.getdoc(getattr(thing, one))}
    return found


def in_attributes_section(thing: type) -> set[str]:
    """Return what the Attributes section of a class's docstring describes."""
    doc = inspect.getdoc(thing) or ""
    section = re.search(r"Attributes\n-+\n(.*?)(?:\n\n\w+\n-+\n|\Z)", doc, re.DOTALL)
    return set(re.findall(r"^(\w+) : ", section[1], re.MULTILINE)) if section else set()


@pytest.mark.usefixtures("told_pages")
@pytest.mark.parametrize("page", PAGES)
def test_examples_run(page, tmp_path, monkeypatch):
    """The examples of a page give what they say, from top to bottom."""
    monkeypatch.chdir(tmp_path)
    blocks = [block for block in read_blocks(page) if block[1] in RUN]
    missing = missing_for("".join(source for *_rest, source in blocks))
    if missing:
        pytest.skip(f"its examples need {', '.join(missing)}")
    names: dict[str, object] = {}
    for line, language, source in blocks:
        if language == "python":
            run_printing("\n" * line + source, page, names)
        else:
            names = run_session(source, page, line, names)


@pytest.mark.parametrize("page", PAGES)
def test_no_other_python(page):
    """Every example of a page is one that runs."""
    blocks = read_blocks(page)
    assert {language for _line, language, _source in blocks} <= FENCES
    in_sessions = "".join(source for _line, language, source in blocks if language == "pycon")
    assert (ROOT / page).read_text().count(">>> ") == in_sessions.count(">>> ")


def test_readme_has_examples():
    """The README shows what it prints."""
    programs = [
        source for _line, language, source in read_blocks("README.md") if language == "python"
    ]
    assert "print(" in "".join(programs)


def test_figures_are_written_once():
    """The README's figures are rows of the page that has them all, word by word."""
    _before, section = (ROOT / "README.md").read_text().split("## How fast\n")
    rows = re.findall(r"^\| .*[0-9].* \|$", section.partition("\n## ")[0], re.MULTILINE)
    assert rows
    assert set(rows) <= set((ROOT / "docs/performance.md").read_text().splitlines())


def test_notebooks_are_pages():
    """The site shows each notebook: its folder leads to where they are."""
    assert (ROOT / "docs/notebooks").resolve() == ROOT / "notebooks"


@pytest.mark.parametrize("name", sparsearray.__all__)
def test_every_name_is_in_the_reference(name):
    """Every name of the package has a directive."""
    assert re.search(rf"^\.\. (auto)?(class|exception|function|data):: {name}\b", API, re.MULTILINE)


@pytest.mark.parametrize("name", sparsearray.testing.__all__)
def test_every_name_of_testing_is_in_the_reference(name):
    """So has every name of `sparsearray.testing`, behind that module's."""
    module, text = "sparsearray.testing", API
    _before, _module, after = text.partition(f".. currentmodule:: {module}\n")
    assert re.search(rf"^\.\. auto(class|function|data):: {name}\b", after, re.MULTILINE)


@pytest.mark.parametrize("name", sparsearray.images.__all__)
def test_every_name_of_images_is_in_the_reference(name):
    """And every name of `sparsearray.images`."""
    _before, _module, after = API.partition(".. currentmodule:: sparsearray.images\n")
    assert re.search(rf"^\.\. auto(class|function):: {name}\b", after, re.MULTILINE)


INTEROP = [one.name for one in pkgutil.iter_modules(sparsearray.interop.__path__)]


@pytest.mark.parametrize("name", [one for one in INTEROP if not one.startswith("_")])
def test_every_name_of_interop_is_in_the_reference(name):
    """And every name of each module for another library, behind the module's."""
    module = importlib.import_module(f"sparsearray.interop.{name}")
    _before, _module, after = API.partition(f".. currentmodule:: {module.__name__}\n")
    section = after.partition("\n.. currentmodule::")[0]
    directives = re.findall(r"^\.\. auto(?:class|function):: (\w+)", section, re.MULTILINE)
    assert sorted(directives) == sorted(module.__all__)


def find(name: str) -> type:
    """Find a class of the package or of `sparsearray.images`."""
    found: type = getattr(sparsearray, name, None) or getattr(sparsearray.images, name)
    return found


@pytest.mark.parametrize(
    "name",
    [
        "SparseBuffer",
        "AtomicSlice",
        "SharedMemory",
        "Region",
        "Ring",
        "RingReader",
        "Image",
        "Segment",
    ],
)
def test_every_attribute_is_in_the_reference(name):
    """Every public method and property has a directive or stands in the class's Attributes."""
    thing = find(name)
    known = documented(name) | in_attributes_section(thing)
    assert public_names(thing) - known == set()


@pytest.mark.parametrize(
    "name", ["SparseBuffer", "AtomicSlice", "SharedMemory", "Ring", "RingReader", "Image"]
)
def test_every_attribute_has_a_docstring(name):
    """Whatever is public says what it is."""
    thing = find(name)
    silent = {one for one in public_names(thing) if not inspect.getdoc(getattr(thing, one))}
    assert silent - in_attributes_section(thing) == set()


def test_the_reference_has_nothing_else():
    """Directives are for names that exist."""
    module = sparsearray
    for line in API.splitlines():
        directive, _colons, target = line.removeprefix(".. ").partition(":: ")
        if directive == "currentmodule":
            module = importlib.import_module(target)
        elif line.startswith(".. auto") and directive != "automodule":
            thing: object = module
            for part in target.removesuffix("()").split("."):
                thing = getattr(thing, part)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    """Links to other files of the repository, and to headings of pages, are to what there is."""
    for target, anchor in re.findall(r"\]\(([\w./-]+)(?:#([\w-]+))?\)", (ROOT / page).read_text()):
        path = (ROOT / page).parent / target
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings]
            assert anchor in slugs, (target, anchor)


def test_all_functions_are_listed():
    """The table of numpy's functions has those that work, each once."""
    from sparsearray.protocol import FUNCTIONS

    table = API.split("### numpy's functions")[1].split("\n## ")[0]
    listed = re.findall(r"`([\w.]+)`", table[table.index("| --- |") :])
    if not hasattr(np, "astype"):  # numpy 2.0
        listed.remove("astype")
    assert sorted(listed) == sorted(
        f"{getattr(function, '__module__', 'numpy')}.{function.__name__}".removeprefix("numpy.")
        for function in FUNCTIONS
    )
