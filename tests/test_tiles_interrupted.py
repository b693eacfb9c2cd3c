"""Files of tiles, and the end of the process at any moment: the old array or the new one, but whole."""

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from .array_files import killed_after, names
from .test_interrupted_writes import CRASH

# Tiles of several sizes: small ones, pages, and more than a page.
SETUP = """
import sparsearray
from sparsearray.testing.places import npy_items

TILES = [(3, 5), (64, 64), (100, 100)]

def items(path, tiles):
    records = np.load(path)
    title = records.dtype.fields["tile"][2]
    shape = eval(title.removeprefix("array of shape "))
    return npy_items(path, shape, tiles)

def dense(rows):
    made = np.arange(1, rows * 70 + 1, dtype="u2").reshape(rows, 70)
    made[5:20] = 0
    return made

def save(rows, tiles):
    array = sparsearray.zeros((rows, 70), "u2", tiles=tiles)
    array[...] = dense(rows)
    array.save("a.npy")
"""


def script(body: str) -> str:
    """Put a script together."""
    return dedent(CRASH) + SETUP + dedent(body)


@pytest.mark.usefixtures("told_pages")
def test_crash_in_save(run_ok: Callable[..., str]) -> None:
    """A process killed at any system call of a save leaves the old file or the new, whole."""
    run_ok(
        script("""
        for tiles in TILES:
            array = sparsearray.zeros((300, 70), "u2", tiles=tiles)
            array[...] = dense(300)
            seen = set()
            for at, killed in crashes(lambda: save(40, tiles), lambda: array.save("a.npy")):
                found = items("a.npy", tiles)
                assert (found == dense(len(found))).all()
                seen.add(len(found))
            assert seen == {40, 300}
        """)
    )


def test_crash_in_resize(run_ok: Callable[..., str]) -> None:
    """A process killed at any system call of a change of length leaves a file that opens and goes on."""
    run_ok(
        script("""
        for tiles in TILES:
            for old, new in ((40, 300), (40, 41), (300, 40), (40, 0), (0, 40), (65, 64)):
                seen = set()
                def work():
                    sparsearray.open("a.npy", "r+", maxshape=(None, 70)).resize((new, 70))
                for at, killed in crashes(lambda: save(old, tiles), work):
                    found = items("a.npy", tiles)
                    seen.add(len(found))
                    kept = min(len(found), old)
                    assert (found[:kept] == dense(old)[:kept]).all()
                    assert not found[kept:].any()
                    assert os.listdir() == ["a.npy"]
                    # And goes on from there: nothing of what was cut off comes back.
                    with sparsearray.open("a.npy", "r+", maxshape=(None, 70)) as array:
                        array.resize((len(found) + 200, 70))
                        assert not array[len(found):].any()
                        assert (array[:kept] == dense(old)[:kept]).all()
                assert seen == {old, new}, (tiles, old, new, seen)
        """)
    )


@pytest.mark.parametrize("rows", ["dense", "holes"])
def test_crash_in_append(rows: str, run_ok: Callable[..., str]) -> None:
    """A process killed in an append leaves the old rows, or all of them; what follows is right."""
    run_ok(
        script(f"""
        for tiles in TILES:
            for old in (40, 64):
                rows = dense(300)[old:]
                given = rows
                if {rows == "holes"}:
                    given = sparsearray.zeros(rows.shape, "u2", tiles=(7, 70))
                    given[...] = rows
                seen = set()
                def work():
                    sparsearray.open("a.npy", "r+", maxshape=(None, 70)).append(given)
                for at, killed in crashes(lambda: save(old, tiles), work):
                    found = items("a.npy", tiles)
                    assert (found == dense(len(found))).all()
                    assert killed or len(found) == 300
                    seen.add(len(found))
                    with sparsearray.open("a.npy", "r+", maxshape=(None, 70)) as array:
                        array.resize((400, 70))
                        assert not array[len(found):].any()
                assert seen == {{old, 300}}, (tiles, old, seen)
        """)
    )


def test_kill_at_any_time(tmp_path: Path) -> None:
    """A writer killed at any moment leaves a file that numpy reads, with whole rows."""
    body = """
        import numpy as np, sparsearray
        array = sparsearray.open("a.npy", "w+", shape=(0, 70), dtype="u2", tiles=(30, 64), maxshape=(None, 70))
        rows = np.full((37, 70), 7, "u2")
        print("ready", flush=True)
        while True:
            while len(array) < 37 * 40:
                array.append(rows)
            array.resize((37 * 3, 70))
    """
    for i in range(4):
        killed_after(0.03 + i * 0.017, body, tmp_path)
        found = np.load(tmp_path / "a.npy")
        shape = found.dtype.fields["tile"][2].removeprefix("array of shape ")
        count = int(shape.strip("()").split(",")[0])
        assert count % 37 == 0
        joined = found["tile"].transpose(0, 2, 1, 3).reshape(len(found) * 30, 128)
        assert (joined[:count, :70] == 7).all()
        assert names(tmp_path) == ["a.npy"]


@pytest.mark.parametrize("tiles", [None, (3, 5), (64, 64)])
def test_interrupts_of_append(tiles: tuple[int, int] | None, run_ok: Callable[..., str]) -> None:
    """Ctrl-C at any moment of appends leaves an array of whole appends, which no lock keeps from going on."""
    run_ok(
        script(f"""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
        rng = np.random.default_rng(1)
        rows = np.full((370, 70), 7, "u2")
        array = sparsearray.zeros((0, 70), "u2", tiles={tiles}, maxshape=(None, 70))
        for _ in range(200):
            try:
                signal.setitimer(signal.ITIMER_REAL, float(rng.uniform(1e-5, 1e-3)))
                while True:
                    array.append(rows)
            except KeyboardInterrupt:
                pass
            assert len(array) % 370 == 0
            assert (np.asarray(array[...]) == 7).all()
            array.resize((0, 70))
        """)
    )
