"""Runs scenarios again and again, with one more system call failing each time; see its test.

    failing_calls.py FOLDER SMALL_DISK SYSCALL ERRNO SCENARIO...

A process that has imported everything is attached to by strace, which makes call number `LAST` of a
kind fail in each process that it traces. For each trial the process forks a child, which makes as many
calls of that kind as it takes, all of them useless, for call number N of the scenario to be that one.
Prints what became of all trials as JSON.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sparsearray import SparseDamageWarning, zeros

LAST = 150  # more than any scenario makes of one kind
SECONDS = 30  # that a trial may take

libc = ctypes.CDLL(None, use_errno=True)
# Refused by the kernel before it looks at anything: EINVAL or EBADF, which no trial injects.
USELESS: dict[str, tuple[Any, ...]] = {
    "mmap": (0, 0, 0, 0, -1, 0),
    "mremap": (1, 1, 1, 0),
    "munmap": (1, 1),
    "mprotect": (1, 1, 0),
    "madvise": (1, 1, 0),
    "msync": (1, 1, 0),
    "ftruncate": (-1, 0),
    "fallocate": (-1, 0, 0, 1),
    "fsync": (-1,),
    "fdatasync": (-1,),
    "pwrite64": (-1, 0, 0, 0),
    "memfd_create": (0, 0x100000),
}
NAMES = {"pwrite64": "pwrite"}  # what the C library calls them


def useless(syscall: str) -> int:
    """Make a call that fails anyway; its errno."""
    if syscall == "memfd_create":
        libc.memfd_create(None, ctypes.c_uint(0x100000))
    else:
        function = getattr(libc, NAMES.get(syscall, syscall))
        function(*(ctypes.c_long(argument) for argument in USELESS[syscall]))
    return ctypes.get_errno()


def attach(syscall: str, error: str) -> subprocess.Popen[bytes]:
    """Have strace make call number `LAST` of this kind fail, in each child of this process."""
    libc.prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)  # PR_SET_PTRACER: anybody, under Yama
    traced = ["-e", f"trace={syscall}", "-e", f"inject={syscall}:error={error}:when={LAST}"]
    strace = subprocess.Popen(
        ["strace", "-f", "-qq", "-o", "/dev/null", *traced, "-p", str(os.getpid())],  # noqa: S607
        stderr=subprocess.PIPE,
    )
    while "TracerPid:\t0\n" in Path("/proc/self/status").read_text():
        if strace.poll() is not None:
            sys.stdout.write(json.dumps({"skip": strace.communicate()[1].decode()}))
            raise SystemExit
        time.sleep(0.002)
    return strace


def run(scenario: Callable[[Any], None], trial: Any, n: int) -> dict[str, Any]:
    """Run a scenario whose call `n` fails: what failed, and whether there was such a call."""
    for _ in range(LAST - n):
        useless(trial.syscall)
    try:
        scenario(trial)
    except BaseException as error:  # noqa: BLE001 -- whatever it is, the test tells it
        text = f"{type(error).__name__}: {error}\n{traceback.format_exc(limit=-6)}"
        return {"wrong": text, "failed": trial.failed}
    reached = all(useless(trial.syscall) != trial.number for _ in range(n))
    return {"reached": reached, "failed": trial.failed}


def in_child(call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run `call` in a child; what it returned, or how the child ended."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(SECONDS)
            os.close(read)
            os.write(write, json.dumps(call()).encode())
        finally:
            os._exit(0)
    os.close(write)
    text = b""
    while piece := os.read(read, 1 << 16):
        text += piece
    os.close(read)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status or not text:
        return {"wrong": f"ended with {status}", "failed": []}
    return dict(json.loads(text))


def try_all(
    scenario: Callable[[Any], None],
    make_trial: Callable[[Path, Path], Any],
    place: Path,
    elsewhere: Path,
) -> dict[str, Any]:
    """Make each call of a kind that a scenario makes fail, one after the other."""
    failed: Counter[str] = Counter()
    wrong: list[str] = []
    n = 0
    while len(wrong) < 3:
        n += 1
        with TemporaryDirectory(dir=place) as folder, TemporaryDirectory(dir=elsewhere) as other:
            trial = make_trial(Path(folder), Path(other))
            found = in_child(partial(run, scenario, trial, n))
        failed.update(found["failed"])
        if "wrong" in found:
            wrong.append(f"call {n} of {trial.syscall} fails: {found['wrong']}")
        elif not found["reached"]:
            n -= 1
            break
        elif n == LAST:
            wrong.append(f"more than {LAST} calls of {trial.syscall}")
            break
    return {"trials": n, "failed": failed, "wrong": wrong}


def main(folder: str, small_disk: str, syscall: str, error: str, *names: str) -> None:
    """Do so in each scenario."""
    sys.path.insert(0, str(Path(__file__).parent))
    from failing_scenarios import SCENARIOS, Trial

    warnings.simplefilter("error", SparseDamageWarning)
    zeros(1).extents()  # opens /proc/self/pagemap, which stays open
    places = {name: Path(small_disk if name == "full disk" else folder) for name in names}
    for name, place in places.items():  # all modules are in memory from now on
        with TemporaryDirectory(dir=place) as own, TemporaryDirectory(dir=folder) as other:
            SCENARIOS[name](Trial(Path(own), Path(other), syscall, 0))
    strace = attach(syscall, error)
    make_trial = partial(Trial, syscall=syscall, number=getattr(errno, error))
    report = {
        name: try_all(SCENARIOS[name], make_trial, place, Path(folder))
        for name, place in places.items()
    }
    sys.stdout.write(json.dumps(report))
    sys.stdout.flush()
    strace.send_signal(signal.SIGINT)  # detaches
    strace.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
