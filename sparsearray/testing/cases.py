"""What `SparseBufferMachine` draws from: calls that must fail, and ways to derive arrays."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["DERIVATIONS", "NONSENSE", "ON_CLOSED"]

_PAGE = mmap.PAGESIZE

DERIVATIONS: dict[str, Callable[[Any], Any]] = {
    "slice": lambda array: array[1:],
    "step": lambda array: array[..., ::2],
    "reverse": lambda array: array[::-1],
    "transpose": lambda array: array.T,
    "reshape": lambda array: array.reshape(-1),
    "bytes": lambda array: array.view("u1"),
    "field": lambda array: array["a"],
    "subclass": lambda array: array.view(np.recarray),
    "broadcast": lambda array: np.broadcast_to(array, (2, *array.shape)),
    "strided": np.lib.stride_tricks.as_strided,
    "memoryview": memoryview,
    "cast": lambda array: memoryview(array).cast("B"),
    "sliced memoryview": lambda array: memoryview(array)[1:],
    "frombuffer": lambda array: np.frombuffer(array, "u1"),
    "dlpack": np.from_dlpack,
}
"""Ways to make something of an array that shares its memory, for arrays that allow it."""

NONSENSE: tuple[tuple[str, tuple[Any, ...], dict[str, Any]], ...] = (
    ("alloc", (0.0, _PAGE), {}),
    ("alloc", ("0", _PAGE), {}),
    ("unmap", (0, None), {}),
    ("advise", (0, _PAGE, "never"), {}),
    ("read_at", (0, 1.5), {}),
    ("read_at", (None, 1), {}),
    ("read_into", (0, b"constant"), {}),
    ("read_into", (0, np.zeros((4, 4))[:, 1]), {}),
    ("read_into", (0, np.zeros(2, object)), {}),
    ("read_into", (0, np.zeros(2, object).data), {}),
    ("read_into", (0, 7), {}),
    ("write_at", (0, "text"), {}),
    ("write_at", (0, [1, 2]), {}),
    ("write_at", (0, np.arange(9)[::2]), {}),
    ("write_at", (0, np.zeros(2, object)), {}),
    ("write_at", (0, np.zeros(2, object).data), {}),
    ("write_at", (0, memoryview(b"abcdef")[::2]), {}),
    ("fill_at", (0, 256, 1), {}),
    ("fill_at", (0, -1, 1), {}),
    ("fill_at", (0, b"x", 1), {}),
    ("fill_at", (0, 0, -1), {}),
    ("read_plain", (0, "O"), {}),
    ("read_plain", (0, [("a", "u1"), ("b", "O")]), {}),
    ("read_plain", (0, "nonsense"), {}),
    ("read_plain", (0, "u1", -1), {}),
    ("write_plain", (0, object()), {}),
    ("write_plain", (0, 2**80), {}),
    ("gather", ([0.5], "u1"), {}),
    ("gather", (["a"], "u1"), {}),
    ("gather", ([0], object), {}),
    ("scatter", ([0], [None]), {}),
    ("scatter", ([0, 1, 2], [1, 2]), {}),
    ("scatter", ([[0, 1]], [[1], [2], [3]]), {}),
    ("atomic_slice", (0, 1, "M8[s]"), {}),
    ("atomic_slice", (1, 1, "u2"), {}),
    ("atomic_slice", (0, 1.0, "u2"), {}),
    ("window", (0, 1, "O"), {}),
    ("window", (0, -1), {}),
    ("window", (0, 1.0), {}),
    ("window", (-1, 0), {}),
    ("window", (0, (1, 2)), {"strides": (1,)}),
    ("window", (0, 1), {"order": "X"}),
    ("__getitem__", (3,), {}),
    ("__getitem__", ((slice(1), slice(1)),), {}),
    ("__getitem__", (slice(0, 1, 0),), {}),
)  # fmt: skip
"""Method, arguments and options of calls that no buffer takes, whatever is in it."""

ON_CLOSED: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("alloc", (0, _PAGE)),
    ("map_zero", (0, _PAGE)),
    ("mmap_anonymous", (0, _PAGE, mmap.PROT_READ, mmap.MAP_PRIVATE)),
    ("unmap", (0, _PAGE)),
    ("set_writable", (0, _PAGE, True)),
    ("decommit", (0, _PAGE)),
    ("commit", (0, _PAGE)),
    ("advise", (0, _PAGE, "normal")),
    ("flush", ()),
    ("read_at", (0, 1)),
    ("read_at", (0, 0)),
    ("read_into", (0, bytearray(1))),
    ("write_at", (0, b"x")),
    ("fill_at", (0, 0, 1)),
    ("read_plain", (0, "u1")),
    ("read_plain", (0, "u1", 9)),
    ("write_plain", (0, 1)),
    ("gather", ([0], "u1")),
    ("scatter", ([0], [1])),
    ("window", (0, 1)),
    ("__getitem__", (slice(1),)),
)
"""Method and arguments of calls that raise ClosedError once the buffer is closed."""
