"""A hypothesis state machine: an array of either layout and numpy's take the same steps.

After every step they must have the same items, windows must show them, and what is stored must be
no more than the pages and tiles that were touched.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.typing import NDArray

import sparsearray
from sparsearray.testing.indices import draw_arrays, draw_basic, draw_outer
from sparsearray.testing.outcomes import agree, outcome, raw_bytes
from sparsearray.testing.places import (
    items_in,
    npy_items,
    pages_of,
    records_nbytes,
    tile_mates,
    tile_step,
)

__all__ = ["ArrayMachine"]

PAGE = mmap.PAGESIZE
_MOST_HELD = 6  # windows at a time
_SHAPES = [
    (),
    (0,),
    (7,),
    (5000,),
    (0, 7),
    (3, 0, 4),
    (70, 90),
    (130, 64),
    (3, 3000),
    (9, 10, 11),
    (2, 3, 4, 5),
]
_TILES: list[Any] = [None, None, "auto", "auto", 1, 3, 4, 16, 70]
_DTYPES = ["u1", "<i4", ">i2", "f8", ">f4", "S3", [("a", "i2"), ("b", ">f4")]]
_MODES: list[Literal["r", "r+", "c"]] = ["r", "r+", "r+", "c"]

SEEDS = st.integers(0, 255)
DRAWS = st.data()
TILES = st.sampled_from(_TILES)


def _numbers(shape: Any, dtype: np.dtype, seed: int) -> Any:
    """Make items, a third of them zero, or all where the seed is 0."""
    raw = np.random.default_rng(seed).integers(-4, 9, shape).clip(0) * bool(seed)
    if dtype.names is not None:
        made = np.zeros(shape, dtype)
        made["a"], made["b"] = raw, raw * 2
        return made
    if dtype.kind == "S":
        return np.where(raw, np.asarray(raw).astype("S1"), b"").astype(dtype)
    return np.asarray(raw).astype(dtype)


def _tiles_for(tiles: Any, shape: tuple[int, ...]) -> Any:
    """Make tiles of other sides for each axis of what is one number."""
    if not isinstance(tiles, int):
        return tiles
    return tuple(max(tiles - k, 1) for k in range(len(shape)))


class _Held:
    """A live window, and where the model has the same items."""

    def __init__(self, window: NDArray[Any], numbers: NDArray[np.int64]) -> None:
        self.window = window
        self.numbers = numbers  # of its items, in C order: those stay when rows come and go


class ArrayMachine(RuleBasedStateMachine):
    """
    Steps that an array of either layout and a dense numpy array take together.

    Use ``ArrayMachine.TestCase``, and override `make_array` to test something else that is used
    like such an array. Files are made in a folder of each example's own.

    Attributes
    ----------
    real : SparseArray or TiledArray
        In memory, or in a file of any mode; `restart`, `reopen` and others change which.
    model : ndarray
        The same items.
    counts_pages : bool
        Whether the system tells which pages of memory were touched.
    """

    real: Any
    model: NDArray[Any]
    counts_pages = True

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._count = 0  # of files
        self._held: list[_Held] = []
        self._disk: NDArray[Any] | None = None  # what the file holds, where it is not the model
        self._last_box: Any = ()  # that `_other` filled
        self._pages: set[int] = set()  # of the array, that may be stored

    def make_array(
        self, shape: tuple[int, ...], dtype: np.dtype, tiles: Any, maxshape: Any, path: Any
    ) -> Any:
        """Make the array to test: in memory, or in a new file where there is a path."""
        if path is None:
            return sparsearray.zeros(shape, dtype, tiles=tiles, maxshape=maxshape)
        return sparsearray.open(
            path, "w+", shape=shape, dtype=dtype, tiles=tiles, maxshape=maxshape
        )

    @initialize(
        shape=st.sampled_from(_SHAPES),
        dtype=st.sampled_from(_DTYPES),
        tiles=TILES,
        grows=st.booleans(),
        in_file=st.booleans(),
    )
    def start(
        self, *, shape: tuple[int, ...], dtype: Any, tiles: Any, grows: bool, in_file: bool
    ) -> None:
        """Make an array of zeros."""
        most = (shape[0] * 2 + 9, *shape[1:]) if shape and grows else None
        self.model = np.zeros(shape, dtype)
        path = self._new_path() if in_file else None
        self.real = self.make_array(shape, self.model.dtype, _tiles_for(tiles, shape), most, path)
        agree("maxshape", self.real.maxshape, most or shape)

    def teardown(self) -> None:
        """Leave nothing behind."""
        self._held.clear()
        if hasattr(self, "real") and not self.real.closed:
            with suppress(BufferError):  # a failure keeps windows alive
                self.real.close()
        self._folder.cleanup()

    # Items

    @rule(draws=DRAWS, seed=SEEDS, how=st.sampled_from(["full", "row", "number", "long", "wrong"]))
    def set_box(self, draws: st.DataObject, seed: int, how: str) -> None:
        """Set what a basic index selects, to values that are repeated, or do not fit."""
        key = draw_basic(draws.draw, self.model.shape)
        self._set(key, self._value(self.model[key].shape, seed, how))

    @rule(draws=DRAWS, seed=SEEDS, how=st.sampled_from(["full", "number"]))
    def set_by_arrays(self, draws: st.DataObject, seed: int, how: str) -> None:
        """Set what masks and arrays of numbers select."""
        key = draw_arrays(draws.draw, self.model.shape)
        self._set(key, self._value(self.model[key].shape, seed, how))

    @precondition(lambda self: self._tiles is not None and self.model.ndim)
    @rule(draws=DRAWS, seed=SEEDS)
    def set_outer(self, draws: st.DataObject, seed: int) -> None:
        """Set what each axis selects by itself."""
        key, same = draw_outer(draws.draw, self.model.shape)
        value = _numbers(self.model[same].shape, self.model.dtype, seed)
        self._touch(same)
        self._change("oindex", lambda: self.real.oindex.__setitem__(key, value), same, value)

    @rule(draws=DRAWS, which=st.sampled_from(["basic", "arrays", "outer"]))
    def read(self, draws: st.DataObject, which: str) -> None:
        """Read by an index of any kind."""
        if which == "outer" and self._tiles is not None and self.model.ndim:
            key, same = draw_outer(draws.draw, self.model.shape)
            actual = outcome(lambda: self.real.oindex[key])
            agree(f"oindex[{key}]", actual, outcome(lambda: self.model[same]))
            return
        draw = draw_arrays if which == "arrays" else draw_basic
        key = draw(draws.draw, self.model.shape)
        agree(f"[{key}]", outcome(lambda: self.real[key]), outcome(lambda: self.model[key]))

    @rule(draws=DRAWS, tiles=TILES, seed=SEEDS, is_self=st.booleans())
    def set_array(self, draws: st.DataObject, tiles: Any, seed: int, is_self: bool) -> None:
        """Set a box to an array with holes of either layout, which may be this one, backwards."""
        if is_self:
            key: Any = (slice(None, None, -1),) * self.model.ndim
            self._set(key, self.real, self.model.copy())
            return
        key = draw_basic(draws.draw, self.model.shape)
        shape = self.model[key].shape
        dense, other = self._other(draws, shape, tiles, seed)
        self._set(key, other, dense)
        other.close()

    @rule(draws=DRAWS)
    def discard(self, draws: st.DataObject) -> None:
        """Set to zero, and give back."""
        key = draw_basic(draws.draw, self.model.shape)
        zero = np.zeros((), self.model.dtype)
        self._change(f"discard({key})", lambda: self.real.discard(key), key, zero)

    @rule()
    def trim(self) -> None:
        """Give back zeros: stored is then what is not zero, a file's last page, and its data."""
        actual = outcome(self.real.trim)
        if self.real.mode == "r":
            agree("trim", actual.error, ValueError)
            return
        agree("trim", actual.error, None)
        if self.real.mode == "c":  # copies over data of the file stay
            return
        kept: set[int] = set() if self.real.mode is None else {self._nbytes // PAGE}
        if self._tiles is not None:
            for held in self._held:  # tiles that are shown
                kept |= self._pages_of(np.isin(self._item_numbers, held.numbers))
        self._pages &= self._pages_of(self._filled()) | kept

    @rule(
        how=st.sampled_from(["sum", "max", "min", "count_nonzero", "any", "all"]),
        axis=st.sampled_from([None, 0, -1, 1, (0, 1), (0, -1)]),
        keepdims=st.booleans(),
    )
    def reduce(self, how: str, axis: Any, keepdims: bool) -> None:
        """Reduce along axes, that may not be there."""
        if self.model.dtype.kind not in "iuf":
            return
        function = getattr(np, how)

        def run(array: Any) -> Any:
            return function(array, axis=axis, keepdims=keepdims)

        ours, theirs = outcome(lambda: run(self.real)), outcome(lambda: run(self.model))
        agree(f"{how} error", ours.error, theirs.error)
        if theirs.error is None:
            found, expected = run(self.real), run(self.model)
            # A count is an int before numpy 2.4.
            agree(
                f"{how} type", (type(found), np.shape(found)), (type(expected), np.shape(expected))
            )
            agree(f"{how} dtype", np.asarray(found).dtype, np.asarray(expected).dtype)
            agree(f"{how}({axis})", bool(np.allclose(found, expected, rtol=1e-3)), True)

    @rule(draws=DRAWS, tiles=TILES, seed=SEEDS, factor=st.booleans())
    def compute(self, draws: st.DataObject, tiles: Any, seed: int, factor: bool) -> None:
        """Multiply in place, or add another array of either layout."""
        if self.model.dtype.kind not in "iuf":
            return
        dense: Any = 3
        other: Any = 3
        if not factor:
            dense, other = self._other(draws, self.model.shape, tiles, seed)
        function = np.multiply if factor else np.add
        expected = function(self.model, dense)
        if not factor:
            # Whole pages and tiles of the other array, wherever they lie in this one.
            shape, itemsize, found = other.shape, other.itemsize, getattr(other, "tiles", None)
            pages = pages_of(shape, itemsize, found, self._last_box)
            self._touch(items_in(pages, shape, itemsize, found))
        self._touch(items_in(self._pages, *self._place))
        actual = outcome(lambda: function(self.real, other, out=self.real) is self.real)
        if self.real.mode == "r":
            agree("compute", actual.error, ValueError)
            return
        agree("compute", actual, outcome(lambda: True))
        self.model[...] = expected
        if not factor:
            other.close()

    # The array as a whole

    @rule(rows=st.integers(0, 20), seed=SEEDS, tiles=TILES, how=st.sampled_from(["dense", "holes"]))
    def append(self, rows: int, seed: int, tiles: Any, how: str) -> None:
        """Add rows, dense or with holes."""
        shape = (rows, *self.model.shape[1:])
        added = _numbers(shape, self.model.dtype, seed)
        given = added
        if how == "holes":
            given = sparsearray.zeros(shape, added.dtype, tiles=_tiles_for(tiles, shape))
            given[...] = added
        actual = outcome(lambda: self.real.append(given))
        if not self._can_resize(self.model.shape[:1] and (self.model.shape[0] + rows,)):
            agree("append", actual.error, ValueError)
            return
        agree("append", actual.error, None)
        self.model = np.concatenate([self.model, added], dtype=self.model.dtype)
        self._touch(slice(len(self.model) - rows, None))

    @rule(rows=st.integers(0, 300), few=st.booleans())
    def resize(self, rows: int, few: bool) -> None:
        """Change the length; refused where a window shows what would go."""
        old = self.model.shape[0] if self.model.ndim else 0
        rows = max(old + rows % 7 - 3, 0) if few else rows
        actual = outcome(lambda: self.real.resize((rows, *self.model.shape[1:])))
        if not self._can_resize((rows,) if self.model.ndim else ()):
            agree("resize", actual.error in (ValueError, BufferError), True)
            return
        kept = rows * prod(self.model.shape[1:])
        if rows < old and any(held.numbers.max() >= kept for held in self._held):
            agree("resize under a window", actual.error, BufferError)
            return
        agree("resize", actual.error, None)
        more = np.zeros((max(rows - old, 0), *self.model.shape[1:]), self.model.dtype)
        self.model = np.concatenate([self.model[:rows], more], dtype=self.model.dtype)
        nbytes = records_nbytes(*self._place)
        self._pages = {page for page in self._pages if page * PAGE < nbytes}

    @rule(go_on=st.booleans())
    def copy(self, go_on: bool) -> None:
        """Copy it."""
        self._follow(self.real.copy(), self.model.copy(), self._pages, go_on=go_on)

    @rule(tiles=TILES, go_on=st.booleans())
    def retile(self, tiles: Any, go_on: bool) -> None:
        """Copy it into another layout, where what is zero takes nothing."""
        wanted = _tiles_for(tiles, self.model.shape)
        made = self.real.retile(wanted)
        agree("is tiled", getattr(made, "tiles", None) is None, tiles is None)
        found = getattr(made, "tiles", None)
        filled = tile_mates(self._filled(), found)
        pages = pages_of(self.model.shape, self.model.itemsize, found, filled)
        if found is None:
            # A page's worth of items is written at a time, wherever pages begin.
            pages = {page + k for page in pages for k in (-1, 0, 1)}
        self._follow(made, self.model.copy(), pages, go_on=go_on)

    @rule(dtype=st.sampled_from(["<i4", "f8", ">f4", "S5"]), go_on=st.booleans())
    def astype(self, dtype: str, go_on: bool) -> None:
        """Convert it, to what holds any of its items."""
        source, target = self.model.dtype, np.dtype(dtype)
        if (
            source.names
            or (source.kind == "S") != (target.kind == "S")
            or source.kind > target.kind
        ):
            return
        if source.kind == "f" and target.kind == "i":
            return
        made = self.real.astype(target)
        agree("tiles", getattr(made, "tiles", None), self._tiles)
        mask = items_in(self._pages, *self._place)
        touched = pages_of(self.model.shape, target.itemsize, self._tiles, mask)
        self._follow(made, self.model.astype(target), touched, go_on=go_on)

    @rule(most=st.sampled_from([None, 64, 1000]))
    def blocks(self, most: int | None) -> None:
        """Boxes are disjoint, not too large, and outside of them all is zero."""
        limit = None if most is None else max(most, self.model.itemsize)
        found, count = np.zeros_like(self.model), np.zeros(self.model.shape, int)
        for index, block in self.real.blocks(max_nbytes=limit):
            agree("size of a box", limit is None or block.nbytes <= limit, True)
            found[index] = block
            count[index] += 1
        agree("boxes", int(count.max(initial=0)) <= 1, True)
        agree("items in boxes", raw_bytes(found), raw_bytes(self.model))

    # Windows

    @precondition(lambda self: len(self._held) < _MOST_HELD and self.model.size)
    @rule(draws=DRAWS)
    def hold(self, draws: st.DataObject) -> None:
        """Keep a window: of a tile, or of what a basic index selects in C order."""
        if self._tiles is None:
            drawn = draw_basic(draws.draw, self.model.shape)
            key = drawn if Ellipsis in drawn else (*drawn, Ellipsis)
            window = self.real[key]
        else:
            grid = [-(-n // tile) for n, tile in zip(self.model.shape, self._tiles, strict=True)]
            numbers = [draws.draw(st.integers(-count, count - 1)) for count in grid]
            window = self.real.tile(*numbers)
            key = tuple(
                slice(number % count * tile, min((number % count + 1) * tile, n))
                for number, count, tile, n in zip(
                    numbers, grid, self._tiles, self.model.shape, strict=True
                )
            )
        agree("type of a window", type(window), np.ndarray)
        if not window.size:
            return
        if self._tiles is not None:
            self._touch(key)  # in memory, where it lies is settled when it is shown
        self._held.append(_Held(window, np.asarray(self._item_numbers[key])))

    @precondition(lambda self: self._held)
    @rule(which=SEEDS, seed=SEEDS)
    def write_window(self, which: int, seed: int) -> None:
        """Write to a window: the array has it."""
        held = self._held[which % len(self._held)]
        agree("writeable", held.window.flags.writeable, self.real.mode != "r")
        if not held.window.flags.writeable:
            return
        values = _numbers(held.window.shape, self.model.dtype, seed)
        held.window[...] = values
        self.model.reshape(-1)[held.numbers] = values
        self._touch(np.isin(self._item_numbers, held.numbers))

    @precondition(lambda self: self._held)
    @rule(which=SEEDS)
    def drop(self, which: int) -> None:
        """Let go of a window."""
        self._held.pop(which % len(self._held))

    # Files

    @rule(mode=st.sampled_from(_MODES), go_on=st.booleans())
    def save(self, mode: Any, go_on: bool) -> None:
        """Save it: the file is as numpy reads it, has holes, and opens in any mode."""
        path = self._new_path()
        self.real.save(path)
        self._check_file(path, self.model)
        room = len(self._pages_of(self._filled())) + 1
        agree("holes", path.stat().st_blocks * 512 <= (room + 1) * PAGE, True)
        if go_on:
            self._open(path, mode)
        else:
            path.unlink()

    @rule()
    def flush(self) -> None:
        """Write it to the disk."""
        self.real.flush()
        if self.real.path is not None:
            self._check_file(Path(self.real.path), self._on_disk())

    @precondition(lambda self: self.real.path is not None)
    @rule(mode=st.sampled_from(_MODES))
    def reopen(self, mode: Any) -> None:
        """Close it, which windows refuse, and open the file again."""
        if self._held:
            agree("close under windows", outcome(self.real.close).error, BufferError)
            self._held.clear()
        path = Path(self.real.path)
        self.model = self._on_disk().copy()
        self.real.close()
        self._check_file(path, self.model)
        agree("closed", outcome(self.real.extents).error, sparsearray.ClosedError)
        self._open(path, mode)

    # What must hold after each step

    @invariant()
    def items_agree(self) -> None:
        """Both have the same items."""
        for name in ("shape", "dtype", "size", "nbytes"):
            agree(name, getattr(self.real, name), getattr(self.model, name))
        agree("items", raw_bytes(np.asarray(self.real)), raw_bytes(self.model))

    @invariant()
    def windows_agree(self) -> None:
        """Windows show them."""
        for held in self._held:
            shown = self.model.reshape(-1)[held.numbers.reshape(-1)]
            agree("window", raw_bytes(held.window), raw_bytes(shown))

    @invariant()
    def costs_what_was_touched(self) -> None:
        """What is stored of memory lies in pages that were written to."""
        if self.real.mode is None and self.counts_pages:
            stored = {
                page
                for start, stop in self.real.extents().tolist()
                for page in range(start // PAGE, -(-stop // PAGE))
            }
            if self._tiles is not None:
                # Of a large tile all may be written where some of it is.
                span = max(tile_step(self.model.itemsize, self._tiles) // PAGE, 1)
                touched = {page // span for page in self._pages}
                stored = {page for page in stored if page // span not in touched}
            agree("pages that nothing was written to", stored - self._pages, set())

    # Helpers

    @property
    def _tiles(self) -> tuple[int, ...] | None:
        return getattr(self.real, "tiles", None)

    @property
    def _item_numbers(self) -> NDArray[np.int64]:
        """Number the items, in C order."""
        return np.arange(self.model.size).reshape(self.model.shape)

    @property
    def _nbytes(self) -> int:
        if self._tiles is None:
            return self.model.nbytes
        sides = zip(self.model.shape, self._tiles, strict=True)
        tiles: int = prod(-(-n // one) for n, one in sides)
        return tile_step(self.model.itemsize, self._tiles) * tiles

    @property
    def _place(self) -> tuple[tuple[int, ...], int, tuple[int, ...] | None]:
        return self.model.shape, self.model.itemsize, self._tiles

    def _new_path(self) -> Path:
        self._count += 1
        return Path(self._folder.name) / f"{self._count}.npy"

    def _value(self, shape: tuple[int, ...], seed: int, how: str) -> Any:
        """Make values that broadcast to a shape, or do not."""
        sizes: dict[str, Any] = {
            "full": shape,
            "row": shape[-1:],
            "number": (),
            "long": (1, 1, *shape),
            "wrong": (*shape[:-1], (shape[-1] if shape else 0) + 2),
        }
        return _numbers(sizes[how], self.model.dtype, seed)

    def _other(
        self, draws: st.DataObject, shape: tuple[int, ...], tiles: Any, seed: int
    ) -> tuple[Any, Any]:
        """Make an array with holes, and the same dense."""
        dense = np.zeros(shape, self.model.dtype)
        other = sparsearray.zeros(shape, dense.dtype, tiles=_tiles_for(tiles, shape))
        self._last_box = box = draw_basic(draws.draw, shape)
        other[box] = dense[box] = _numbers(dense[box].shape, dense.dtype, seed)
        return dense, other

    def _set(self, key: Any, value: Any, dense: Any = None) -> None:
        """Set items on both sides."""
        self._touch(key)
        same = value if dense is None else dense
        self._change(f"[{key}] =", lambda: self.real.__setitem__(key, value), key, same)

    def _change(self, what: str, call: Callable[[], Any], key: Any, value: Any) -> None:
        """Change items on both sides, unless they are read-only."""
        actual = outcome(call)
        if self.real.mode == "r":
            agree(what, actual.error, ValueError)
            return
        agree(what, actual.error, outcome(lambda: self.model.__setitem__(key, value)).error)

    def _filled(self) -> NDArray[np.bool_]:
        """Tell which items have bytes that are not zero."""
        model = np.ascontiguousarray(self.model)
        raw = model.reshape((*self.model.shape, 1)).view("u1")
        return np.asarray(raw.any(axis=-1))

    def _pages_of(self, key: Any) -> set[int]:
        return pages_of(*self._place, key)

    def _touch(self, key: Any) -> None:
        """Note which pages may be stored from now on."""
        self._pages |= self._pages_of(key)

    def _can_resize(self, rows: tuple[int, ...]) -> bool:
        """Tell whether the length may become another one."""
        if not rows or self.real.mode == "r":
            return False
        if self.real.mode == "c":
            return rows[0] == len(self.model)
        return rows[0] <= int(self.real.maxshape[0])

    def _follow(self, made: Any, dense: NDArray[Any], pages: set[int], *, go_on: bool) -> None:
        """Check what was made of the array, and go on with it instead, or not."""
        agree("what was made", raw_bytes(np.asarray(made)), raw_bytes(dense))
        agree("its dtype and shape", (made.dtype, made.shape), (dense.dtype, dense.shape))
        if not go_on:
            made.close()
            return
        self._held.clear()
        self.real.close()
        self.real, self.model, self._pages, self._disk = made, dense, set(pages), None

    def _on_disk(self) -> NDArray[Any]:
        return self.model if self._disk is None else self._disk

    def _open(self, path: Path, mode: Any) -> None:
        """Go on with a file that holds what the model does."""
        self._held.clear()
        self.real.close()
        most = None
        if mode == "r+" and self.model.ndim:
            most = (self.model.shape[0] * 2 + 5, *self.model.shape[1:])
        tiles = self._tiles
        self.real = sparsearray.open(path, mode, maxshape=most)
        agree("mode and path", (self.real.mode, self.real.path), (mode, os.fspath(path)))
        agree("tiles", self._tiles, tiles)
        self._disk = None if mode == "r+" else self.model.copy()
        self._pages = self._pages_of(slice(None) if self.model.ndim else ())

    def _check_file(self, path: Path, expected: NDArray[Any]) -> None:
        """Read a file as numpy does."""
        found = npy_items(path, expected.shape, self._tiles)
        agree("dtype in the file", found.dtype, expected.dtype)
        agree("items in the file", raw_bytes(found), raw_bytes(expected))
