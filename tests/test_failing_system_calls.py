"""System calls that fail, each in turn: an error is raised, nothing changes, and all goes on.

strace makes them fail: see failing_calls.py, and failing_scenarios.py for what is done meanwhile.
"""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

# strace takes its time, and a sanitizer needs system calls of its own.
pytestmark = pytest.mark.slow

MEMORY = ["map everything", "change pages", "skip holes", "arrays", "cut short"]
FILES = ["change pages", "arrays"]


@pytest.fixture(scope="module")
def strace(linux_core) -> str:
    """Find strace, if this process may use it."""
    if not linux_core:
        pytest.skip("which calls are made is known of Linux's core only")
    found = shutil.which("strace")
    if found is None:
        pytest.skip("strace is not installed")
    command = [found, "-qq", "-e", "inject=fsync:error=EIO:when=1", "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"strace cannot trace here: {done.stderr.strip()}")
    return found


def run(folder: Path, disk: Path, syscall: str, error: str, scenarios: list[str]) -> Counter[str]:
    """Have each call of a kind fail in each scenario; the calls of the library that failed then."""
    script = Path(__file__).with_name("failing_calls.py")
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", script, folder, disk, syscall, error, *scenarios],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    if "skip" in report:
        pytest.skip(f"strace cannot attach here: {report['skip'].strip()}")
    assert list(report) == scenarios
    failed: Counter[str] = Counter()
    for scenario, found in report.items():
        wrong = "\n".join(found["wrong"])
        assert not wrong, f"{scenario}, {found['trials']} trials: {wrong}"
        assert found["trials"], f"{scenario} makes no call of {syscall}"
        failed.update(found["failed"])
    return failed


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize(
    ("syscall", "error", "scenarios", "must_fail"),
    [
        ("mmap", "ENOMEM", MEMORY, {"alloc", "map_zero", "map_file", "mmap", "unmap", "refresh"}),
        ("mmap", "EAGAIN", ["map everything"], {"alloc", "map_zero", "map_file", "mmap", "unmap"}),
        ("mremap", "ENOMEM", MEMORY, {"alloc", "map_zero", "map_file", "mmap", "refresh"}),
        ("munmap", "ENOMEM", MEMORY, set()),
        ("mprotect", "ENOMEM", MEMORY, {"alloc", "zeros", "set_writable"}),
        ("mprotect", "EACCES", ["change pages"], {"set_writable"}),
        ("madvise", "ENOMEM", MEMORY, {"advise", "commit", "decommit"}),
        ("msync", "EIO", FILES, {"flush"}),
        ("ftruncate", "ENOSPC", FILES, {"append", "open", "resize", "save", "save_to"}),
        ("ftruncate", "EIO", FILES, {"append", "open", "resize", "save", "save_to"}),
        ("fsync", "EIO", FILES, {"flush", "open", "save", "save_to"}),
        ("fsync", "ENOSPC", FILES, {"flush", "open", "save", "save_to"}),
        ("fdatasync", "EIO", ["arrays"], {"append", "resize"}),
        ("pwrite64", "ENOSPC", FILES, {"append", "open", "resize", "save", "save_to"}),
    ],
)
def test_calls_fail(syscall, error, scenarios, must_fail, quick_folder):
    """A call that fails raises its error, changes nothing, leaves no descriptor, and succeeds again."""
    failed = run(quick_folder, quick_folder, syscall, error, scenarios)
    assert must_fail <= failed.keys(), "not all of these calls have been made to fail"


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize(
    ("syscall", "error"),
    [
        ("mmap", "ENOMEM"),
        ("mremap", "ENOMEM"),
        ("msync", "EIO"),
        ("fallocate", "ENOSPC"),
        ("fsync", "EIO"),
        ("ftruncate", "ENOSPC"),
        ("pwrite64", "EIO"),
        ("memfd_create", "EMFILE"),
    ],
)
def test_calls_fail_on_a_full_disk(syscall, error, quick_folder, small_disk):
    """What windows keep for a full disk is in the file in the end, whatever call failed meanwhile."""
    run(quick_folder, small_disk, syscall, error, ["full disk"])
