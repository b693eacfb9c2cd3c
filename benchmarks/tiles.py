"""
What boxes of large tiled arrays cost, beside other libraries with chunks, and np.memmap.

    python benchmarks/tiles.py [-k SUBSTRING] [--dir FOLDER] [--rounds COUNT] [--markdown]

Run it with the package and the dependency group ``bench`` installed, and 6 GiB free in FOLDER, a
disk with holes. It takes ten minutes, and up to 8 GiB of memory beside the page cache. Libraries
that are not installed are named and left out.

* A job writes 500 boxes of random numbers, none of which touch, reads 250 of them and 250 others,
  and sums the array. In a file, each of the three opens it anew, and closes it: the data is in the
  system's cache then, and nobody waits for the disk. In memory, one array does all three.
* All settings of a library (tiles_peers.py) are tried in a first round, and checked: what was read
  beside a dense array of the boxes, and the sum. The best in each row goes on to more rounds, with
  ours before each library; after some seconds a slow one goes on no more. A ratio is the median of
  theirs / ours of these pairs, and a row's best library is the one with the smallest.
* Before each job some memory is taken and given back: a virtual machine that fetches it from its
  host when it is first touched needs longer for that than any library for its work.
* Rows of single elements and of one large box are pairs as in core.py. The np.memmap has no part
  in the limit of the former.
"""

import argparse
import functools
import gc
import importlib.metadata
import itertools
import math
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from side_by_side import Figures, Timed, side_by_side, timed
from tiles_peers import OURS, PEERS, Box, Form, Peer, Place

MIB = 1 << 20
BOXES = 500
SECONDS = 3.0  # of one setting of a library; the round in which they end is its last
WARM = 2048 * MIB  # bytes that are touched before each job
ELEMENTS = 5000  # as many as side_by_side asks for at most
PHASES = ("write", "read", "sum")
LIMITS = {"memory": (3.0, 2.0, 8.0), "file": (2.0, 1.5, 5.0)}
DISTRIBUTIONS = {  # where it is not the name
    "SparseArray": "sparsearray-numpy",
    "TiledArray": "sparsearray-numpy",
    "np.memmap": "numpy",
}

Pairs = list[tuple[float, float]]  # seconds of ours and theirs
Rows = list[tuple[tuple[str, str], Figures]]  # of libraries and settings
Found = dict[tuple[str, str, str], Pairs]  # by phase, library and setting


class Line(NamedTuple):
    """One line of the summary."""

    work: str
    ours: str
    against: str
    theirs: str
    ratio: float
    limit: str

    @property
    def verdict(self) -> str:
        """Whether the ratio is within its limit."""
        sign, number = self.limit.split()
        met = self.ratio >= float(number) if sign == ">=" else self.ratio <= float(number)
        return "ok" if met else "MISSED"


def shown(seconds: float) -> str:
    """Show a time."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.2f} us"
    return f"{seconds * 1e3:.1f} ms" if seconds < 10 else f"{seconds:.1f} s"


class Job:
    """The boxes that are written into an array, and those that are read."""

    def __init__(self, name: str, form: Form, side: int) -> None:
        self.name, self.form, self.side = name, form, side
        random = np.random.default_rng(len(form.shape))
        self.starts = self._apart(random)
        shape = (BOXES, *form.cube(side))
        if form.dtype.kind == "f":
            self.blocks = random.random(shape, form.dtype) + form.dtype.type(0.5)
        else:
            self.blocks = random.integers(1, 256, shape, form.dtype)
        last = np.array(form.shape) - side
        elsewhere = random.integers(0, last, (BOXES // 2, len(last)), endpoint=True)
        places = [*self.starts[random.permutation(BOXES)[: BOXES // 2]], *elsewhere]
        self.written = [self.box(start) for start in self.starts]
        self.to_read = [self.box(places[i]) for i in random.permutation(BOXES)]

    def _apart(self, random: np.random.Generator) -> np.ndarray:
        """Choose where boxes begin, so that no two of them touch."""
        starts = np.empty((0, len(self.form.shape)), int)
        while len(starts) < BOXES:
            start = random.integers(0, np.array(self.form.shape) - self.side + 1)
            if (abs(starts - start) > self.side).any(axis=1).all():
                starts = np.vstack([starts, start])
        return starts

    def box(self, start: Sequence[int]) -> Box:
        """Make the box that begins somewhere."""
        return tuple(slice(int(first), int(first) + self.side) for first in start)

    def expected(self, box: Box) -> np.ndarray:
        """Assemble what a box has to hold."""
        made = np.zeros(self.form.cube(self.side), self.form.dtype)
        shifts = self.starts - [part.start for part in box]
        for i in np.flatnonzero((abs(shifts) < self.side).all(axis=1)):
            to = tuple(slice(max(0, shift), self.side + min(0, shift)) for shift in shifts[i])
            of = tuple(slice(max(0, -shift), self.side - max(0, shift)) for shift in shifts[i])
            made[to] = self.blocks[i][of]
        return made

    @functools.cached_property
    def total(self) -> float:
        """What all boxes add up to."""
        return float(self.blocks.sum(dtype="f8"))

    def check_read(self, peer: Peer) -> None:
        """Compare what is read with what was written."""
        for box, block in zip(self.to_read, peer.read(self.to_read), strict=True):
            assert np.array_equal(block, self.expected(box)), f"{peer.name}: {box} is wrong"

    def check_total(self, peer: Peer, total: float) -> None:
        """Compare a sum; one of float32 may have been added up in float32."""
        exact = self.form.dtype.kind != "f"
        right = total == self.total if exact else math.isclose(total, self.total, rel_tol=1e-5)
        assert right, f"{peer.name}: {total} is not {self.total}"


def read_all(peer: Peer, boxes: Sequence[Box]) -> None:
    """Read all boxes, and keep none."""
    for _ in peer.read(boxes):
        pass


def run_in_memory(peer: Peer, job: Job, phases: Sequence[str], *, check: bool) -> dict[str, float]:
    """Do a job in memory; give the seconds of each phase."""
    took = {}
    peer.create()
    start = time.perf_counter()
    peer.write(job.written, job.blocks)
    took["write"] = time.perf_counter() - start
    if "read" in phases:
        start = time.perf_counter()
        read_all(peer, job.to_read)
        took["read"] = time.perf_counter() - start
    if "sum" in phases:
        start = time.perf_counter()
        total = peer.total()
        took["sum"] = time.perf_counter() - start
        job.check_total(peer, total)
    if check:
        job.check_read(peer)
        if isinstance(peer, OURS):
            took["stored"] = peer.array.nbytes_stored
    peer.close()
    return took


def run_in_file(peer: Peer, job: Job, phases: Sequence[str], *, check: bool) -> dict[str, float]:
    """Do a job in a file; give the seconds of each phase."""
    assert peer.path is not None
    took = {}
    start = time.perf_counter()
    peer.create()
    peer.write(job.written, job.blocks)
    peer.close()
    took["write"] = time.perf_counter() - start
    if "read" in phases:
        start = time.perf_counter()
        peer.open()
        read_all(peer, job.to_read)
        peer.close()
        took["read"] = time.perf_counter() - start
    if "sum" in phases:
        start = time.perf_counter()
        peer.open()
        total = peer.total()
        peer.close()
        took["sum"] = time.perf_counter() - start
        job.check_total(peer, total)
    if check:
        peer.open()
        job.check_read(peer)
        peer.close()
        files = [peer.path, *peer.path.rglob("*")]
        took["stored"] = sum(file.stat().st_blocks * 512 for file in files)
    remove(peer.path)
    return took


def warm_up() -> None:
    """Touch memory, so that what is taken next is at hand."""
    gc.collect()
    np.empty(WARM, "u1")[:: 4 << 10] = 1


def remove(path: Path) -> None:
    """Remove a file or a folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


class Race:
    """A job, in memory or in a file, for ours and all libraries."""

    def __init__(self, bench: "Bench", job: Job, where: str, phases: Sequence[str]) -> None:
        self.bench, self.job, self.phases = bench, job, phases
        self.where = where
        self.found: Found = defaultdict(list)
        self.chosen: set[tuple[str, str]] = set()  # that went on to more rounds
        self.spent: dict[tuple[str, str], float] = defaultdict(float)
        self.stored: dict[str, list[float]] = defaultdict(list)

    def run(self, kind: type[Peer], setting: str, *, first: bool) -> dict[str, float]:
        """Do the job once."""
        form, in_file = self.job.form, self.where == "file"
        options = kind.settings(form, in_file=in_file)[setting]
        phases = self.phases
        if kind.sums_once and not first:
            phases = [phase for phase in phases if phase != "sum"]
        work = run_in_file if in_file else run_in_memory
        path = self.bench.folder / kind.name if in_file else None
        warm_up()
        took = work(kind(form, options, path), self.job, phases, check=first)
        if first and "stored" in took:
            self.stored[kind.name].append(took["stored"])
        self.spent[kind.name, setting] += sum(took.get(phase, 0) for phase in PHASES)
        return took

    def settings(self, kind: type[Peer], *, first: bool) -> list[str]:
        """List the settings for a round: all of them, or the best ones that are not too slow."""
        tried = list(kind.settings(self.job.form, in_file=self.where == "file"))
        if first:
            return tried
        best = {
            min(tried, key=lambda setting: figures(self.found[phase, kind.name, setting]).theirs)
            for phase in self.phases
        }
        return [name for name in tried if name in best and self.spent[kind.name, name] < SECONDS]

    def round(self, kinds: Sequence[type[Peer]], count: int) -> None:
        """Have all do the job once, with ours before each library."""
        first = count == 0
        for kind in kinds:
            chosen = self.settings(kind, first=first)
            ours = self.run(OURS, "", first=first) if chosen else {}
            for setting in chosen:
                theirs = self.run(kind, setting, first=first)
                for phase in PHASES:
                    if phase in theirs:
                        if count:
                            self.chosen.add((kind.name, setting))
                        pairs = self.found[phase, kind.name, setting]
                        if count == 1:  # the first round was to choose, and to warm up
                            pairs.clear()
                        pairs.append((ours[phase], theirs[phase]))

    def lines(self, limits: Sequence[float]) -> Iterator[Line]:
        """Print the table of a phase, and sum it up."""
        for phase, limit in zip(PHASES, limits, strict=True):
            name = f"{self.job.name}, {self.where}: {phase}"
            if phase not in self.phases or not self.bench.wants(name):
                continue
            rows = [
                (key[1:], figures(pairs))
                for key, pairs in self.found.items()
                if key[0] == phase and key[1:] in self.chosen
            ]
            yield self.bench.compare(name, rows, f">= {limit:g}")
        name = f"{self.job.name}, {self.where}: bytes stored"
        if self.bench.wants(name):
            own = self.job.blocks.nbytes
            ours = self.stored[OURS.name][0]
            for peer, stored in self.stored.items():
                print(f"    stored / boxes: {peer:12} {min(stored) / own:8.2f}")
            texts = f"{ours / MIB:.0f} MiB", "the boxes", f"{own / MIB:.0f} MiB"
            yield Line(name, *texts, ours / own, "<= 1.6")


def figures(pairs: Pairs) -> Figures:
    """Sum up pairs, as ratios theirs / ours."""
    return upside_down(Figures.of(pairs))


def upside_down(found: Figures) -> Figures:
    """Make ratios ours / theirs into theirs / ours."""
    return found._replace(ratios=[1 / ratio for ratio in found.ratios])


class Bench:
    """What is to be measured, with whom and where."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.kinds, self.missing = [], []
        for kind in PEERS:
            try:
                importlib.import_module(kind.module)
            except ImportError:
                self.missing.append(kind.name)
            else:
                self.kinds.append(kind)

    def wants(self, work: str) -> bool:
        """Whether a row was asked for."""
        return self.options.k in work

    def versions(self) -> str:
        """Name the versions of all that is measured."""
        names = dict.fromkeys(
            DISTRIBUTIONS.get(kind.name, kind.name) for kind in (OURS, *self.kinds)
        )
        found = [f"{name} {importlib.metadata.version(name)}" for name in names]
        return ", ".join([f"Python {platform.python_version()}", *found, platform.platform()])

    def compare(self, work: str, rows: Rows, limit: str, beside: str = "") -> Line:
        """Print a row's table; sum it up with the best library but the one `beside`."""
        print(f"\n{work}")
        rows = sorted(rows, key=lambda row: statistics.median(row[1].ratios))
        for (name, setting), found in rows:
            ratios = sorted(found.ratios)
            print(
                f"    {name:12} {setting:16} ours {shown(found.ours):>10}"
                f" theirs {shown(found.theirs):>10} ratio {statistics.median(ratios):9.2f}"
                f" ({ratios[0]:.2f}..{ratios[-1]:.2f}, pairs: {len(ratios)})"
            )
        (name, setting), found = next(row for row in rows if row[0][0] != beside)
        against = f"{name} ({setting})" if setting else name
        ratio = statistics.median(found.ratios)
        return Line(work, shown(found.ours), against, shown(found.theirs), ratio, limit)


def races(bench: Bench) -> Iterator[Line]:
    """Both jobs, in memory and in a file."""
    forms = {
        "2-D": (Form((131072, 131072), np.dtype("u1")), 256),
        "3-D": (Form((2048, 2048, 2048), np.dtype("f4")), 48),
    }
    for (name, (form, side)), where in itertools.product(forms.items(), LIMITS):
        wanted = [
            what for what in (*PHASES, "bytes stored") if bench.wants(f"{name}, {where}: {what}")
        ]
        if not wanted:
            continue
        phases = ["write", *(phase for phase in PHASES[1:] if phase in wanted)]
        race = Race(bench, Job(name, form, side), where, phases)
        rounds = 1 if wanted == ["bytes stored"] else 1 + bench.options.rounds
        for count in range(rounds):
            race.round(bench.kinds, count)
        yield from race.lines(LIMITS[where])


class Elements:
    """Single elements of an array in memory with 100 of the boxes, one by one."""

    def __init__(self) -> None:
        self.job = Job("2-D", Form((131072, 131072), np.dtype("u1")), 256)
        random = np.random.default_rng(3)
        which = random.integers(0, 100, ELEMENTS)
        within = random.integers(0, self.job.side, (ELEMENTS, 2))
        self.places: list[Place] = list(map(tuple, (self.job.starts[which] + within).tolist()))
        self.values = self.job.blocks[which, *within.T].tolist()

    def fill(self, kind: type[Peer], setting: str) -> Peer:
        """Make an array."""
        peer = kind(self.job.form, kind.settings(self.job.form, in_file=False)[setting])
        peer.create()
        peer.write(self.job.written[:100], self.job.blocks[:100])
        for place, value in zip(self.places[::250], self.values[::250], strict=True):
            assert peer.get([place]) == value, f"{peer.name}: {place} is wrong"
        return peer

    def timed(self, peer: Peer, *, put: bool) -> Timed:
        """Time reading or setting them, others each time."""
        start = 0

        def run(count: int) -> float:
            nonlocal start
            start = start + count if start + 2 * count <= ELEMENTS else 0
            places = self.places[start : start + count]
            begin = time.perf_counter()
            if put:
                peer.put(places, 7)
            else:
                peer.get(places)
            return (time.perf_counter() - begin) / len(places)

        return run

    def side_by_side(self, ours: Peer, theirs: Peer, *, put: bool) -> Figures:
        """Time ours and theirs, and see what was set."""
        sides = [self.timed(peer, put=put) for peer in (ours, theirs)]
        found = upside_down(side_by_side(*sides, seconds=0.3))
        for peer in (ours, theirs):
            place = self.places[:1]
            peer.put(place, 9)
            assert peer.get(place) == 9, f"{peer.name}: {place} is wrong"
            peer.put(place, self.values[0])
        return found


def elements(bench: Bench) -> Iterator[Line]:
    """Single elements."""
    names = {"single elements: a[i, j]": False, "single elements: a[i, j] = x": True}
    names = {name: put for name, put in names.items() if bench.wants(name)}
    if not names:
        return
    work = Elements()
    rows: dict[str, Rows] = {name: [] for name in names}
    ours = work.fill(OURS, "")
    for kind in bench.kinds:
        for setting in kind.settings(work.job.form, in_file=False):
            theirs = work.fill(kind, setting)
            for name, put in names.items():
                found = work.side_by_side(ours, theirs, put=put)
                rows[name].append(((kind.name, setting), found))
            theirs.close()
    ours.close()
    for name, found in rows.items():
        yield bench.compare(name, found, ">= 1", beside="np.memmap")


def large_box(bench: Bench) -> Iterator[Line]:
    """One box of 1 MiB, beside numpy.copyto of as much."""
    names = ("a 1024 x 1024 box: a[box] = x", "a 1024 x 1024 box: a[box]")
    if not any(map(bench.wants, names)):
        return
    form = Form((131072, 131072), np.dtype("u1"))
    side, start = 1024, (50_001, 70_003)
    box = tuple(slice(first, first + side) for first in start)
    data = np.random.default_rng(4).integers(1, 256, form.cube(side), "u1")
    target = np.zeros_like(data)
    peer = OURS(form, {})
    peer.create()
    around = tuple(slice(first - 300, first + side + 300) for first in start)
    peer.array[around] = 1
    array = peer.array

    def write() -> None:
        array[box] = data

    works: tuple[Callable[[], Any], ...] = (write, lambda: next(peer.read([box])))
    for name, work in zip(names, works, strict=True):
        if bench.wants(name):
            theirs = timed(lambda: np.copyto(target, data))
            found = upside_down(side_by_side(timed(work), theirs, seconds=1.0))
            yield bench.compare(name, [(("np.copyto", ""), found)], ">= 0.7")
    write()
    assert np.array_equal(next(peer.read([box])), data)
    assert np.array_equal(target, data)
    peer.close()


def sizes(bench: Bench) -> Iterator[Line]:
    """A box written and read, in small and in huge arrays."""
    name = "a box in arrays of 2^20 to 2^46 bytes: max / min"
    if not bench.wants(name):
        return
    random = np.random.default_rng(5)
    block = random.integers(1, 256, (256, 256), "u1")
    works = {}
    for bits in (20, 26, 32, 40, 46):
        peer = OURS(Form((1 << bits // 2,) * 2, np.dtype("u1")), {})
        peer.create()
        cell = (1 << bits // 2) // 3  # nine boxes, each somewhere in a cell of its own
        starts = cell * np.indices((3, 3)).reshape(2, 9).T
        starts += random.integers(0, cell - 256, (9, 2))
        boxes = [tuple(slice(first, first + 256) for first in start) for start in starts.tolist()]
        works[bits] = (peer, boxes)
    took = defaultdict(list)
    for _ in range(301):
        for bits, (peer, boxes) in works.items():
            start = time.perf_counter()
            peer.write(boxes, [block] * len(boxes))
            read_all(peer, boxes)
            took[bits].append((time.perf_counter() - start) / len(boxes))
    print(f"\n{name}")
    medians = {bits: statistics.median(times[1:]) for bits, times in took.items()}
    for bits, (peer, boxes) in works.items():
        assert all(np.array_equal(read, block) for read in peer.read(boxes))
        peer.close()
        print(f"    2^{bits} bytes: {shown(medians[bits])} for a box of 256 x 256")
    low, high = min(medians.values()), max(medians.values())
    yield Line(name, shown(high), "the fastest size", shown(low), high / low, "<= 1.3")


def print_lines(lines: list[Line], versions: str, *, markdown: bool) -> None:
    """Print the summary."""
    titles = ("work", "ours", "best other", "theirs", "ratio", "limit", "")
    rows = [titles]
    rows += [(*line[:4], f"{line.ratio:.2f}", line.limit, line.verdict) for line in lines]
    if markdown:
        rows.insert(1, ("---",) * len(titles))
        for row in rows:
            print("|", " | ".join(row), "|")
    else:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print("  ".join(map(str.ljust, row, widths)))
    print(f"\n{versions}")


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description="Measure boxes of large tiled arrays.")
    parser.add_argument("-k", default="", help="rows that have this in their name only")
    parser.add_argument("--dir", default=None, help="where files are made")
    parser.add_argument("--rounds", type=int, default=5, help="after the first, for fast ones")
    parser.add_argument("--markdown", action="store_true", help="print the summary as Markdown")
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)
    lines = []
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        bench = Bench(options, Path(folder))
        for name in bench.missing:
            print(f"{name} is not installed, and left out")
        for part in (races, elements, large_box, sizes):
            lines += part(bench)
    print()
    print_lines(lines, bench.versions(), markdown=options.markdown)


if __name__ == "__main__":
    main()
