"""Arrays handed to other libraries: over DLPack, and by Python's buffer protocol."""

import gc
import hashlib

import numpy as np
import pytest

import sparsearray
from sparsearray import ClosedError

HAS_FLAGS = np.lib.NumpyVersion(np.__version__) >= "2.1.0"
needs_flags = pytest.mark.skipif(
    not HAS_FLAGS,
    reason="this numpy cannot tell over DLPack that an array is read-only, or to be copied",
)
TERABYTE = (1 << 20, 1 << 17)


def is_held(array) -> bool:
    """Tell whether something keeps the array's memory where it is; if not, it is closed then."""
    gc.collect()
    try:
        array.close()
    except BufferError:
        return True
    return False


@pytest.mark.usefixtures("told_pages")
def test_a_terabyte_is_a_window():
    """What the other library has is the array's own memory, to write where it knows that it may."""
    a = sparsearray.zeros(TERABYTE)
    a[5, 7] = 1
    other = np.from_dlpack(a)
    assert (other.shape, other.dtype, other[5, 7]) == (a.shape, a.dtype, 1)
    a[6, 8] = 2
    assert other[6, 8] == 2
    if HAS_FLAGS:
        other[6, 8] = 3
        assert a[6, 8] == 3
    assert a.nbytes_stored == 2 * a.buffer.page_size


def test_the_other_library_holds_the_memory():
    """While it has the array, or a part of it, there is no closing it."""
    a = sparsearray.zeros((100, 100), "i4")
    part = np.from_dlpack(a)[3:4, ::2]
    assert is_held(a)
    del part
    assert not is_held(a)


def test_a_capsule_that_nobody_took_holds_the_memory():
    """From the moment it is made, and no longer than it lives."""
    a = sparsearray.zeros((100, 100), "i4")
    capsule = a.__dlpack__(max_version=(1, 0), dl_device=a.__dlpack_device__())
    assert is_held(a)
    del capsule
    assert not is_held(a)


@pytest.mark.parametrize("dtype", ["u1", "i2", "i8", "f4", "f8", "c8", "c16", "?"])
@pytest.mark.parametrize("shape", [(3, 4), (7,), (), (0, 3), (2, 3, 4)])
def test_dtypes_and_shapes(shape, dtype):
    """Numbers of each kind are the same on both sides."""
    a = sparsearray.zeros(shape, dtype)
    dense = (np.random.default_rng(1).random(shape) * 100).astype(dtype)
    a[...] = dense
    other = np.from_dlpack(a)
    assert other.dtype == dense.dtype
    np.testing.assert_array_equal(other, dense)


def test_fortran_order(tmp_path):
    """Strides are those of the array."""
    dense = np.asfortranarray(np.arange(12.0).reshape(3, 4))
    np.save(tmp_path / "f.npy", dense)
    with sparsearray.open(tmp_path / "f.npy", "r+") as a:
        other = np.from_dlpack(a)
        assert other.strides == dense.strides
        np.testing.assert_array_equal(other, dense)
        del other


@pytest.mark.parametrize("dtype", ["M8[s]", "S3", ">f8", [("x", "i4")]])
@pytest.mark.parametrize("tiles", [None, "auto"])
def test_what_dlpack_does_not_know(dtype, tiles):
    """Is refused, and nothing is held."""
    a = sparsearray.zeros((8, 8), dtype, tiles=tiles)
    with pytest.raises(BufferError, match="DLPack only supports"):
        np.from_dlpack(a)
    assert not is_held(a)


@needs_flags
def test_read_only(tmp_path):
    """What cannot be written to here cannot be there, whatever is tried."""
    np.save(tmp_path / "a.npy", np.arange(1000.0))
    with sparsearray.open(tmp_path / "a.npy") as a:
        other = np.from_dlpack(a)
        with pytest.raises(ValueError, match="read-only"):
            other[0] = 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            other.flags.writeable = True
        del other


def test_read_only_for_an_old_library(tmp_path):
    """One that cannot be told that it is read-only does not get it."""
    np.save(tmp_path / "a.npy", np.arange(1000.0))
    with sparsearray.open(tmp_path / "a.npy") as a, pytest.raises(BufferError, match="readonly"):
        a.__dlpack__()


@needs_flags
def test_copies():
    """A copy is one when it is asked for; of tiles there is nothing else."""
    for tiles in (None, "auto"):
        a = sparsearray.zeros((64, 64), tiles=tiles)
        a[3, 4] = 1
        other = np.from_dlpack(a, copy=True)
        other[0, 0] = 5
        assert (a[0, 0], other[3, 4]) == (0, 1)
        assert not is_held(a)
    tiled = sparsearray.zeros((64, 64), tiles="auto")
    with pytest.raises(BufferError, match=r"without a copy: a\.tile\(i, j\) is a window"):
        np.from_dlpack(tiled, copy=False)
    assert np.from_dlpack(tiled).shape == (64, 64)


@needs_flags
@pytest.mark.parametrize("tiles", [None, "auto"])
def test_copies_that_do_not_fit(tiles):
    """A terabyte is not copied, nor is any of it."""
    a = sparsearray.zeros(TERABYTE, tiles=tiles)
    with pytest.raises(MemoryError, match="a dense copy .* takes 1 TiB"):
        np.from_dlpack(a, copy=True)
    assert not is_held(a)


@needs_flags
def test_windows_of_parts():
    """Windows and tiles go the same way, and hold their own pages only."""
    a = sparsearray.zeros((8192, 512))
    other = np.from_dlpack(a[:100])
    with pytest.raises(BufferError, match="1 live window"):
        a.buffer.unmap(0, a.buffer.page_size)
    a.buffer.unmap(a.nbytes // 2, a.buffer.page_size)
    other[0] = 1
    assert a[0].sum() == 512
    tiled = sparsearray.zeros((64, 64), tiles="auto")
    np.from_dlpack(tiled.tile(0, 0))[:] = 3
    assert tiled[0, 0] == 3


def test_where_it_lies():
    """The device is the same as that of any array in main memory."""
    expected = tuple(np.zeros(3).__dlpack_device__())
    assert sparsearray.zeros(3).__dlpack_device__() == expected
    assert sparsearray.zeros(3, tiles="auto").__dlpack_device__() == expected
    with pytest.raises(BufferError, match="device"):
        sparsearray.zeros(3).__dlpack__(dl_device=(2, 0))


def test_closed():
    """A closed array goes nowhere."""
    a = sparsearray.zeros(3)
    a.close()
    with pytest.raises(ClosedError):
        np.from_dlpack(a)


def test_memoryviews_of_windows():
    """A memoryview of a window is its memory, and holds it until it is released."""
    a = sparsearray.zeros((4, 512))
    view = memoryview(a[1:3])
    assert (view.shape, view.format, view.readonly) == ((2, 512), "d", False)
    view[1, 7] = 2.5
    assert a[2, 7] == 2.5
    assert is_held(a)
    view.release()
    assert not is_held(a)


def test_arrays_are_no_buffers(tmp_path):
    """Files, sockets and hashes do not take a whole array by accident: its windows they do."""
    a = sparsearray.zeros(TERABYTE)
    with open(tmp_path / "file", "wb") as file:
        for take in (memoryview, file.write, hashlib.sha256):
            with pytest.raises(TypeError):
                take(a)
            take(a[3])


@pytest.mark.parametrize("tiles", [None, "auto"])
def test_no_array_api(tiles):
    """An array does not say that it is one of the array API, whose functions may fill holes."""
    a = sparsearray.zeros((3, 4), tiles=tiles)
    assert not hasattr(a, "__array_namespace__")
    with pytest.raises(AttributeError, match="on a part it works"):
        a.__array_namespace__()
    assert a[:2].__array_namespace__() is np
