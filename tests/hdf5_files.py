"""Items of any kind, and files of h5py that hold them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .array_files import assert_same

h5py = pytest.importorskip("h5py", reason="the extra hdf5")


def some_items(dtype: Any, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Make items of any bits, half of which are zero."""
    made = np.zeros(shape, dtype)
    rng = np.random.default_rng(seed)
    if made.dtype.names:
        for name in made.dtype.names:
            made[name] = some_items(made[name].dtype, made[name].shape, seed + 1)
        return made
    kind = made.dtype.kind
    source = rng.integers(0, 100, shape)
    where = rng.random(shape) < 0.5
    if kind == "V":
        return np.where(where, 0, source).astype("u1").astype("S7").view("V7").reshape(shape)
    values = source.astype("i8").astype(made.dtype) if kind in "mM" else source.astype(made.dtype)
    made[where] = values[where]
    if kind in "fc" and made.size > 2:
        made.reshape(-1)[:3] = [-0.0, np.nan, np.inf]
    return made


def assert_items(found: Any, expected: np.ndarray) -> None:
    """Compare every bit, but for what a long double has between numbers."""
    if expected.dtype.char in "gG":
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        assert np.array_equal(found, expected, equal_nan=True)
        assert np.array_equal(np.signbit(found), np.signbit(expected))
    else:
        assert_same(found, expected)


def in_file(path: Path, dense: np.ndarray, name: str = "a", **options: Any) -> Path:
    """Write a file with h5py alone."""
    with h5py.File(path, "w") as file:
        file.create_dataset(name, data=dense, **options)
    return path


def is_mapped(array: Any) -> bool:
    """Whether all that is stored lies in the file."""
    return array.path is not None and all(
        region.kind in ("file", "zero") for region in array.buffer.regions
    )
