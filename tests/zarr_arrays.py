"""zarr arrays for tests: made, filled and drawn."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st

zarr = pytest.importorskip("zarr", reason="the extra zarr is not installed")

PAGE = os.sysconf("SC_PAGESIZE")
QUIET = pytest.mark.filterwarnings(
    # What zarr says of dtypes that have no specification in version 3 yet.
    "ignore::zarr.errors.UnstableSpecificationWarning",
    "ignore:The data type .* does not have a Zarr V3 specification",
)


def make(path, shape, chunks, dtype="f8", **options):
    """Make a zarr array whose fill value is zero, uncompressed."""
    options = {"compressors": None, "fill_value": np.zeros((), dtype)[()], **options}
    return zarr.create_array(path, shape=shape, chunks=chunks, dtype=dtype, **options)


def some(shape, dtype="f8", seed=0):
    """Make items without zeros."""
    numbers = np.random.default_rng(seed).integers(1, 100, shape)
    if np.dtype(dtype).names:
        found = np.zeros(shape, dtype)
        found["a"], found["b"] = numbers, -numbers
        return found
    return numbers.astype(dtype)


def is_mapped(array):
    """Tell whether some of an array is mapped from files."""
    return any(region.kind == "file" for region in array.buffer.regions)


def names_in(folder):
    """List a folder."""
    return sorted(path.name for path in Path(folder).iterdir())


@st.composite
def arrays(draw):
    """Draw a dense array of which some boxes hold something, and how zarr is to have it."""
    ndim = draw(st.integers(0, 3))
    shape = tuple(draw(st.lists(st.integers(0, 40), min_size=ndim, max_size=ndim)))
    chunks = tuple(draw(st.lists(st.integers(1, 17), min_size=ndim, max_size=ndim)))
    dtype = draw(st.sampled_from(["u1", "<i4", ">f8", "c8", "?", "M8[s]", "S3"]))
    dense = np.zeros(shape, dtype)
    for seed in range(draw(st.integers(0, 3))):
        box = tuple(
            slice(*sorted(draw(st.lists(st.integers(0, n), min_size=2, max_size=2)))) for n in shape
        )
        dense[box] = some(dense[box].shape, dtype, seed)
    version = draw(st.sampled_from([2, 3]))
    return dense, chunks, version, draw(st.sampled_from([None, "auto"])), draw(st.booleans())
