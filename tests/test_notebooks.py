"""The notebooks run from start to end."""

import resource
import shutil
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="notebooks are read by nbformat")
nbclient = pytest.importorskip("nbclient", reason="notebooks are run by nbclient")

FOLDER = Path(__file__).parent.parent / "notebooks"


def need_cores() -> None:
    """Skip where no program can be compiled, or none leaves a core."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler, cc")
    plain = not set("|/") & set(Path("/proc/sys/kernel/core_pattern").read_text())
    if shutil.which("gdb") is None and not (plain and resource.getrlimit(resource.RLIMIT_CORE)[1]):
        pytest.skip("the kernel leaves no core here, and there is no gdb")


@pytest.mark.slow
# What the kernel's client does when it is done with its event loop.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning:zmq")
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_runs_from_start_to_end(path: Path, tmp_path: Path) -> None:
    """Every cell runs, and shows as many outputs of the same kinds as were kept."""
    if path.stem == "04-core-dump":
        need_cores()
    kept = nbformat.read(path, as_version=4)
    run = nbformat.read(path, as_version=4)
    # In a folder of its own: the source tree holds no native module.
    # What a cell prints arrives in as many pieces as its timing makes: one of them.
    client = nbclient.NotebookClient(
        run,
        timeout=120,
        coalesce_streams=True,
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    for before, after in zip(kept.cells, run.cells, strict=True):
        if before.cell_type == "code":
            assert before.execution_count == after.execution_count
            kinds = [[output.output_type for output in cell.outputs] for cell in (before, after)]
            assert kinds[0] == kinds[1]


def test_there_are_notebooks() -> None:
    """The first one is where README says."""
    assert (FOLDER / "01-sparse-buffer.ipynb").exists()
