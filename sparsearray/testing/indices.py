"""Indices of arrays of any shape, drawn for hypothesis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

__all__ = ["draw_arrays", "draw_basic", "draw_outer"]

_STEPS = [1, 1, None, 2, 3, 7, -1, -2, -70]
Draw = Callable[[Any], Any]


def draw_basic(draw: Draw, shape: tuple[int, ...]) -> Any:
    """Draw a basic index: numbers, slices with steps of both signs, and an ellipsis."""
    parts: list[Any] = []
    for n in shape:
        kind = draw(st.sampled_from(["slice", "slice", "slice", "number", "all"]))
        if kind == "number" and n:
            parts.append(draw(st.integers(-n, n - 1)))
        elif kind == "slice":
            ends = st.none() | st.integers(-n - 2, n + 2)
            parts.append(slice(draw(ends), draw(ends), draw(st.sampled_from(_STEPS))))
        else:
            parts.append(slice(None))
    if draw(st.integers(0, 3)) == 0:
        first = draw(st.integers(0, len(parts)))
        parts[first : draw(st.integers(first, len(parts)))] = [Ellipsis]
    return tuple(parts)


def draw_arrays(draw: Draw, shape: tuple[int, ...]) -> Any:
    """Draw an index with a mask, or with arrays of numbers beside slices."""
    if not shape or not all(shape) or draw(st.booleans()):
        seed = draw(st.integers(0, 255))
        mask = np.random.default_rng(seed).random(shape) < draw(st.sampled_from([0.01, 0.3, 1.0]))
        return np.asarray(mask)
    if draw(st.booleans()):
        return draw(hnp.integer_array_indices(shape))
    n = shape[0]
    return (draw(st.lists(st.integers(-n, n - 1), max_size=5)), *[slice(None, None, 2)] * 1)[
        : len(shape)
    ]


def draw_outer(draw: Draw, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Draw an index for `oindex`, of different numbers, and the same for numpy."""
    parts: list[Any] = []
    for n in shape:
        if n and draw(st.booleans()):
            parts.append(draw(st.lists(st.integers(0, n - 1), max_size=5, unique=True)))
        else:
            parts.append(slice(None, None, draw(st.sampled_from(_STEPS))))
    numbers = [np.arange(n)[part] for n, part in zip(shape, parts, strict=True)]
    return tuple(parts), np.ix_(*numbers)
