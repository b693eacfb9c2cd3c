"""The documentation: its examples run, and the reference has every public name."""

import contextlib
import doctest
import importlib
import inspect
import io
import re
from pathlib import Path

import numpy as np
import pytest

import sparsearray
import sparsearray.images
import sparsearray.testing

ROOT = Path(__file__).parent.parent
PAGES = ("docs/index.md", "docs/guide.md", "docs/api.md", "docs/howto/dask.md")
NEEDED = {"docs/howto/dask.md": "dask.array"}  # by pages about other libraries
API = (ROOT / "docs/api.md").read_text()


def read_blocks(page: str, language: str) -> str:
    """Return the code blocks of a page, each at its lines; what lies between is blank."""
    lines, inside = [], False
    for line in (ROOT / page).read_text().splitlines():
        fence = line.startswith("```")
        lines.append(line if inside and not fence else "")
        if fence:
            inside = line == f"```{language}"
    return "\n".join(lines) + "\n"


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


@pytest.mark.parametrize("page", PAGES)
def test_examples_run(page, linux_core):
    """The examples of a page give what they say, from top to bottom."""
    if not linux_core:
        pytest.skip("the examples show what the core knows on Linux")
    if page in NEEDED:
        pytest.importorskip(
            NEEDED[page], reason="the page is about a package that is not installed"
        )
    test = doctest.DocTestParser().get_doctest(
        read_blocks(page, "pycon"), {}, page, str(ROOT / page), 0
    )
    said = io.StringIO()
    doctest.DocTestRunner(verbose=False).run(test, out=said.write)
    assert not said.getvalue(), said.getvalue()


@pytest.mark.parametrize("page", PAGES)
def test_no_other_python(page):
    """Every example of a page is one that runs."""
    text = (ROOT / page).read_text()
    assert text.count(">>> ") == read_blocks(page, "pycon").count(">>> ")
    assert "```python" not in text


@pytest.mark.usefixtures("told_pages")
def test_readme_runs(tmp_path, monkeypatch):
    """The README's example prints what its comments say."""
    monkeypatch.chdir(tmp_path)
    source = read_blocks("README.md", "python")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(source, str(ROOT / "README.md"), "exec"), {})  # noqa: S102 - our own
    expected = re.findall(r"^ *print\(.*\)  # (.*)$", source, re.MULTILINE)
    assert expected
    assert printed.getvalue().splitlines() == expected


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


def test_every_name_of_dask_is_in_the_reference():
    """And every name of `sparsearray.interop.dask`."""
    from sparsearray.interop import dask

    _before, _module, after = API.partition(".. currentmodule:: sparsearray.interop.dask\n")
    for name in dask.__all__:
        assert re.search(rf"^\.\. autofunction:: {name}\b", after, re.MULTILINE)


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


def test_links_between_pages():
    """Links to other pages and their headings lead somewhere."""
    for page in PAGES:
        for target, anchor in re.findall(
            r"\]\((\w+\.md)(?:#([\w-]+))?\)", (ROOT / page).read_text()
        ):
            text = (ROOT / "docs" / target).read_text()
            headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
            assert not anchor or anchor in [one.lower().replace(" ", "-") for one in headings]


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
