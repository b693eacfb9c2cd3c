"""Everything at once, as long as you like: ``python -m sparsearray.testing.soak --minutes 10``.

Threads, forks, files cut short, full disks, storms of signals and stolen signal handlers work on
the same buffers and arrays, through windows and guarded calls. Each byte of a file or of memory is
a function of its place, or zero where it may have been lost, so that all that is read is checked.
Each round is a process of its own: a crash is told with the seed that leads to it.

Run it on a machine or a file system that you want to trust. It takes two processors, some hundred
megabytes of memory, and less on the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from sparsearray.testing.soak_works import (
    BYTES,
    COUNTS,
    DISK_PAGES,
    GRACE,
    MISMATCHES,
    NBYTES,
    PAGE,
    SIGNALS,
    WORKS,
    Round,
    Worker,
    check_at_rest,
    fill_disk,
    replace_handlers,
)

__all__ = ["main"]

_ROUND = 5.0  # seconds


def _run_round(
    seed: int, seconds: float, folder: Path, disk: Path | None, planted: bool
) -> dict[str, Any]:
    """Have everything happen at once: what was counted, and what is wrong."""
    warnings.simplefilter("ignore", DeprecationWarning)  # of fork with threads
    sys.setswitchinterval(0.0005)
    this = Round(seed, folder, disk)
    works = [*WORKS, fill_disk] if disk else [*WORKS]
    main = Worker(this, 0)

    def count(*_: object) -> None:
        main.counts[SIGNALS] += 1

    signal.signal(signal.SIGALRM, count)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    workers = [Worker(this, 1 + i) for i in range(len(works))]
    threads = [
        threading.Thread(target=worker.loop, args=(work,), daemon=True)
        for worker, work in zip(workers, works, strict=True)
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds

    def storm(worker: Worker) -> None:
        replace_handlers(worker)
        if planted:
            with (folder / "stable").open("r+b") as file:
                file.seek(worker.rng.randrange(NBYTES))
                file.write(b"\0" * PAGE)
        if time.monotonic() > end:
            this.stop.set()

    main.loop(storm)
    for thread in threads:
        thread.join(GRACE)
        if thread.is_alive():
            this.failed.append(f"a thread hangs: {thread}")
    signal.setitimer(signal.ITIMER_REAL, 0)
    if not this.failed:
        this.stop.clear()

        def check(worker: Worker) -> None:
            check_at_rest(this, worker)
            this.stop.set()

        main.loop(check)
    return {"counts": sum(this.counts, Counter()), "failed": this.failed[:3]}


def _in_child(call: Callable[[], dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Run a round in a process of its own, and say how that ended."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read)
            os.setpgid(0, 0)
            os.write(write, json.dumps(call()).encode())
        except BaseException:  # noqa: BLE001 -- the parent sees that there is no answer
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(write)
    end = time.monotonic() + seconds + 2 * GRACE
    try:
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                break
            if time.monotonic() > end:
                return {"counts": {}, "failed": ["it hangs"]}
            time.sleep(0.01)
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            return {"counts": {}, "failed": [f"crashed: {signal.Signals(-code).name}"]}
        text = os.read(read, 1 << 16)
        return dict(json.loads(text)) if text else {"counts": {}, "failed": ["no answer"]}
    finally:
        os.close(read)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)  # and what it has left


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path | None]:
    """Mount a disk that is soon full, where this user may."""
    place = folder / "disk"
    place.mkdir()
    size = f"size={DISK_PAGES * PAGE}"
    command = ["mount", "-t", "tmpfs", "-o", size, "soak", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603
        mounted = done.returncode == 0
    except FileNotFoundError:
        mounted = False
    try:
        yield place if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(place)], check=False)  # noqa: S603, S607


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sparsearray.testing.soak",
        description="Do everything at once to buffers and arrays, and check all that can be known.",
    )
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (default: 1)")
    parser.add_argument("--seed", type=int, help="of the first round; by default another each time")
    parser.add_argument("--folder", help="where to put files (default: a temporary folder)")
    parser.add_argument("--plant", action="store_true", help=argparse.SUPPRESS)  # a mismatch
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run rounds until the time is over, and print what was survived.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the process.

    Returns
    -------
    int
        The exit status: 1 after a mismatch, a crash or a process that hangs.
    """
    options = _parse(arguments)
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    end = time.monotonic() + 60 * options.minutes
    counts: Counter[str] = Counter()
    failed: list[str] = []
    with (
        tempfile.TemporaryDirectory(prefix="sparsearray-soak-", dir=options.folder) as folder,
        _small_disk(Path(folder)) as disk,
    ):
        _say(f"seed {seed}, files in {folder}")
        if disk is None:
            _say("full disks are left out: this user cannot mount one")
        while not failed and (left := end - time.monotonic()) > 0:
            seconds = min(left, _ROUND)
            with tempfile.TemporaryDirectory(dir=folder) as own:
                call = partial(_run_round, seed, seconds, Path(own), disk, options.plant)
                found = _in_child(call, seconds)
            counts.update(found["counts"])
            counts["rounds"] += 1
            failed = [f"round {counts['rounds']}, seed {seed}: {text}" for text in found["failed"]]
            if disk is not None:
                for path in disk.iterdir():
                    path.unlink()
            _say(f"{max(end - time.monotonic(), 0):6.0f} s left, {counts[BYTES]:,} bytes checked")
            seed += 0 if failed else 1
    counts[MISMATCHES] = len(failed)
    width = max(map(len, COUNTS))
    for name in COUNTS:
        _say(f"{name:{width}}  {counts[name]:>16,}")
    for text in failed:
        _say(text)
    if failed:
        _say(f"again: python -m sparsearray.testing.soak --minutes 0.1 --seed {seed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
