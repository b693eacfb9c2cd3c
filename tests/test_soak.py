"""The soak: a short one passes, and it tells what is wrong."""

import re
import subprocess
import sys

import pytest

# Sanitizers and the POSIX core have tests of their own for each of these things.
pytestmark = pytest.mark.slow


@pytest.fixture
def soak(tmp_path, linux_core):
    """Call it with arguments: the soak, run in a process of its own, on files of the test's own."""
    if not linux_core:
        pytest.skip("guarded calls depend on the signal handler, which the soak takes away")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "sparsearray.testing.soak", "--folder", tmp_path]
        return subprocess.run(
            [*command, *arguments], capture_output=True, text=True, timeout=300, check=False
        )

    return run


def table(text: str) -> dict[str, int]:
    """Read what it has counted."""
    rows = re.findall(r"^(\S.*?)  +([\d,]+)$", text, re.MULTILINE)
    return {name: int(count.replace(",", "")) for name, count in rows}


def test_short_soak(soak, tmp_path):
    """Some seconds of everything at once: all of it happens, nothing is wrong, nothing is left."""
    done = soak("--minutes", "0.1", "--seed", "7")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    counts = table(done.stdout)
    assert counts.pop("mismatches") == 0
    if "full disks are left out" in done.stdout:
        assert counts.pop("full disks") == 0
    assert len(counts) >= 11
    assert all(counts.values()), counts
    assert not list(tmp_path.iterdir())


def test_mismatches_are_told(soak, tmp_path):
    """Bytes that nobody wrote end it with 1, and a message with the place and the seed."""
    done = soak("--minutes", "0.5", "--seed", "7", "--plant")
    assert done.returncode == 1, done.stdout
    assert re.search(r"round 1, seed 7: .*byte 0x\w+ is 0, not \d+", done.stdout), done.stdout
    assert "--seed 7" in done.stdout.splitlines()[-1]
    assert table(done.stdout)["mismatches"]
    assert not list(tmp_path.iterdir())


def test_crashes_are_told(run_ok):
    """A round that crashes or raises is told as that."""
    run_ok("""
        from sparsearray.testing import soak
        def crash():
            os.kill(os.getpid(), signal.SIGKILL)
        assert soak._in_child(crash, 1) == {"counts": {}, "failed": ["crashed: SIGKILL"]}
        assert soak._in_child(lambda: {"counts": {"a": 1}, "failed": []}, 1)["counts"] == {"a": 1}
    """)


@pytest.mark.parametrize("arguments", [["--minutes", "long"], ["--speed", "9"]])
def test_wrong_usage(arguments, soak):
    """What it does not understand ends it with 2."""
    assert soak(*arguments).returncode == 2
