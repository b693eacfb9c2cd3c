"""Arrays for tests of dask: made, and compared."""

import numpy as np

import sparsearray


def holding(folder, layout):
    """Make 3000 x 700 floats with some data, in one of the layouts, and the same dense."""
    dense = np.zeros((3000, 700))
    dense[5:40, 600:640] = np.random.default_rng(1).normal(size=(35, 40))
    dense[1500, :3] = -0.0, np.nan, np.inf
    dense[2900:2995] = 1
    array = sparsearray.zeros(dense.shape, tiles=64 if "tiles" in layout else None)
    for box in np.s_[5:40, 600:640], np.s_[1500, :3], np.s_[2900:2995]:
        array[box] = dense[box]
    if "file" not in layout:
        return array, dense
    array.save(folder / "a.npy")
    return sparsearray.open(folder / "a.npy"), dense


def same(found, expected):
    """Assert that a result is a plain ndarray of its own, of the same bytes."""
    assert type(found) is np.ndarray
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert found.tobytes() == expected.tobytes()
    assert found.flags.writeable
