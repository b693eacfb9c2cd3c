"""Hypothesis strategies: how a buffer is laid out, where to look and what to find there."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

__all__ = ["LAYOUTS", "Layout", "dtypes", "layouts", "lengths", "mostly", "offsets", "page_ranges"]

LAYOUTS = (
    "empty",
    "single",
    "single-full",
    "single-exceeds",
    "multi-full",
    "middle",
    "ends",
    "out-of-bounds",
    "random-pages",
    "random-everything",
)
"""The kinds of layout that `layouts` draws."""

T = TypeVar("T")

_HUGE = (2**31, 2**32, 2**63 - 1, 2**63, 2**64, 2**70)


@dataclass(frozen=True)
class Layout:
    """Where the blocks of a buffer go.

    Parameters
    ----------
    kind : str
        One of `LAYOUTS`.
    nbytes : int
        Length of the buffer in bytes.
    page_size : int
        Bytes in a page.
    blocks : tuple of (int, int)
        Offset and length of each block in bytes, in the order of mapping. They may overlap, and
        some kinds have blocks that no buffer accepts.
    """

    kind: str
    nbytes: int
    page_size: int
    blocks: tuple[tuple[int, int], ...]

    def probes(self) -> tuple[int, ...]:
        """Offsets worth a look.

        The start, middle and end of each block and of each gap between them, the bytes right
        before and behind, and places past the end.

        Returns
        -------
        tuple of int
            Offsets in bytes, sorted, without duplicates. Some are negative or out of bounds.

        Examples
        --------
        >>> Layout("single", 16384, 4096, ((4096, 4096),)).probes()[:9]
        (-1, 0, 1, 2048, 4094, 4095, 4096, 4097, 6144)
        """
        edges = sorted(
            {0, self.nbytes}.union(*({start, start + size} for start, size in self.blocks))
        )
        probes = {edge + shift for edge in edges for shift in (-2, -1, 0, 1)}
        probes.update((a + b) // 2 for a, b in pairwise(edges))
        probes.update(start + size // 2 for start, size in self.blocks)
        probes.update(self.nbytes + far for far in (self.page_size, *_HUGE))
        return tuple(sorted(probes - {-2}))


@st.composite
def layouts(
    draw: st.DrawFn,
    kinds: SearchStrategy[str] | None = None,
    *,
    max_pages: int = 24,
    page_size: int = 4096,
) -> Layout:
    """Layouts of a buffer, as the fuzzer of the Rust crate `sparse_mmap` draws them.

    Parameters
    ----------
    kinds : SearchStrategy of str, optional
        Which of `LAYOUTS` to draw; all by default.
    max_pages : int
        The most pages that the buffer has.
    page_size : int
        Bytes in a page.

    Returns
    -------
    SearchStrategy of Layout
    """
    kind = draw(st.sampled_from(LAYOUTS) if kinds is None else kinds)
    npages = draw(st.integers(1, max_pages))
    if kind == "random-everything":
        nbytes = npages * page_size
        place = st.tuples(st.integers(0, nbytes), st.integers(0, nbytes))
        spans = draw(st.lists(place, min_size=1, max_size=npages))
        return Layout(kind, nbytes, page_size, tuple((min(s), abs(s[0] - s[1])) for s in spans))
    blocks = [(start * page_size, size * page_size) for start, size in _blocks(draw, kind, npages)]
    return Layout(kind, npages * page_size, page_size, tuple(blocks))


def _blocks(  # noqa: PLR0911 -- one for each kind
    draw: st.DrawFn, kind: str, npages: int
) -> list[tuple[int, int]]:
    """First page and number of pages of each block."""
    some = st.integers(1, npages)
    match kind:
        case "empty":
            return []
        case "single":
            return [draw(_page_spans(npages))]
        case "single-full":
            return [(0, npages)]
        case "single-exceeds":
            return [(0, npages + draw(st.integers(1, 999)))]
        case "multi-full":
            size = draw(some)
            return [(at, min(size, npages - at)) for at in range(0, npages, size)]
        case "middle":
            size = draw(some)
            return [((npages - size) // 2, size)]
        case "ends":
            size = draw(st.integers(1, (npages + 1) // 2))
            return [(0, size), (npages - size, size)]
        case "out-of-bounds":
            return [(npages + draw(st.integers(0, 999)), draw(some))]
        case "random-pages":
            return draw(st.lists(_page_spans(npages), min_size=1, max_size=npages))
        case _:
            raise ValueError(f"no layout is called {kind!r}")


def mostly(usual: SearchStrategy[T], other: SearchStrategy[T]) -> SearchStrategy[T]:
    """Draw from `usual`, and one time in eight from `other`.

    Returns
    -------
    SearchStrategy
    """
    return st.integers(1, 8).flatmap(lambda die: other if die == 8 else usual)


@st.composite
def _page_spans(draw: st.DrawFn, npages: int) -> tuple[int, int]:
    start = draw(st.integers(0, npages - 1))
    return start, draw(st.integers(1, npages - start))


def page_ranges(
    npages: int, *, page_size: int = 4096, wild: bool = False
) -> SearchStrategy[tuple[int, int]]:
    """Ranges for mapping calls.

    Parameters
    ----------
    npages : int
        Pages of the buffer.
    page_size : int
        Bytes in a page.
    wild : bool
        Draw also, now and then, what a mapping call must refuse: misaligned, empty, negative
        and out of bounds.

    Returns
    -------
    SearchStrategy of (offset, nbytes)
        In bytes.
    """
    good = _page_spans(npages).map(lambda span: (span[0] * page_size, span[1] * page_size))
    if not wild:
        return good
    nbytes = npages * page_size
    edges = [-page_size, -1, 0, 1, page_size - 1, page_size, nbytes, nbytes + page_size]
    odd = st.sampled_from([*edges, *_HUGE, *(-number for number in _HUGE)])
    bad = st.tuples(odd, odd) | st.tuples(good, odd).map(lambda pair: (pair[0][0], pair[1]))
    return mostly(good, bad)


def offsets(nbytes: int, *, page_size: int = 4096, wild: bool = False) -> SearchStrategy[int]:
    """Offsets of bytes, more of them near the edges of pages than in their middle.

    Parameters
    ----------
    nbytes : int
        Length of the buffer in bytes.
    page_size : int
        Bytes in a page.
    wild : bool
        Draw also, now and then, offsets that are negative or out of bounds.

    Returns
    -------
    SearchStrategy of int
    """
    edge = st.integers(0, nbytes // page_size).map(lambda page: page * page_size)
    near = st.tuples(edge, st.integers(-9, 9)).map(lambda pair: min(max(sum(pair), 0), nbytes))
    good = near | st.integers(0, nbytes)
    if not wild:
        return good
    bad = st.sampled_from([-(2**63), -page_size, -1, nbytes + 1, nbytes + page_size, *_HUGE])
    return mostly(good, bad)


def lengths(nbytes: int, *, page_size: int = 4096, wild: bool = False) -> SearchStrategy[int]:
    """Lengths of accesses: none, a few bytes, about some pages.

    Parameters are those of `offsets`.

    Returns
    -------
    SearchStrategy of int
    """
    return st.integers(0, 17) | offsets(nbytes, page_size=page_size, wild=wild)


def dtypes(*, structured: bool = True) -> SearchStrategy[np.dtype[Any]]:
    """Dtypes that can stand for raw memory: fixed in size, without objects, of any byte order.

    Every pattern of bytes is a value of each, so `str` is not among them, and no dtype is empty.

    Parameters
    ----------
    structured : bool
        Draw also structures, with nested, subarray, padded, unaligned and overlapping fields.

    Returns
    -------
    SearchStrategy of numpy.dtype
    """
    numbers = st.sampled_from(
        ["b1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16"]
    )
    times = st.sampled_from(["M8[ns]", "M8[D]", "m8[us]"])
    ordered = st.builds("{}{}".format, st.sampled_from("<>"), numbers | times).map(np.dtype)
    plain = ordered | st.sampled_from(["S1", "S5", "V3", "V16"]).map(np.dtype)
    if not structured:
        return plain
    return st.recursive(plain, _structures, max_leaves=5)


@st.composite
def _structures(draw: st.DrawFn, members: SearchStrategy[np.dtype[Any]]) -> np.dtype[Any]:
    names = draw(st.sampled_from(["a", "ab", "abc"]))
    shapes = st.sampled_from([(), (), (1,), (3,), (2, 2)])
    formats = [np.dtype((draw(members), draw(shapes))) for _ in names]
    match draw(st.sampled_from(["packed", "padded", "placed"])):
        case "placed":
            places = [draw(st.integers(0, 40)) for _ in names]
            end = max(at + part.itemsize for at, part in zip(places, formats, strict=True))
            size = end + draw(st.integers(0, 5))
            return np.dtype(
                {"names": list(names), "formats": formats, "offsets": places, "itemsize": size}
            )
        case how:
            return np.dtype(list(zip(names, formats, strict=True)), align=how == "padded")
