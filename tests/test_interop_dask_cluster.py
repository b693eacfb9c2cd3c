"""Arrays in dask on a real cluster of processes: what workers open, hold, lose and write."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

import sparsearray
from sparsearray import shared_memory

da = pytest.importorskip("dask.array", reason="the extra 'dask' is not installed")
distributed = pytest.importorskip("distributed", reason="the extra 'dask' is not installed")
from sparsearray.interop.dask import store  # noqa: E402 - after what it needs

pytestmark = pytest.mark.slow

MIB = 1 << 20


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Start two processes of one thread each."""
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=None,
            local_directory=str(tmp_path_factory.mktemp("dask")),
        ) as made,
        distributed.Client(made) as client,
    ):
        yield client


@pytest.fixture
def terabyte(tmp_path):
    """Make a file of a terabyte that holds 64 MiB, and tell its sum."""
    path = tmp_path / "terabyte.npy"
    rows = np.random.default_rng(3).choice(1 << 20, 64, replace=False)
    with sparsearray.open(path, "w+", shape=(1 << 20, 1 << 17)) as array:
        for row in rows:
            array[row] = row
    return sparsearray.open(path), float(rows.sum()) * (1 << 17)


# What workers run is defined inside functions: they know no module of tests.


def own_memory(client):
    """Tell how much memory each worker has that it shares with nobody."""

    def read():
        text = Path("/proc/self/status").read_text()
        return int(text.partition("RssAnon:")[2].split()[0]) << 10

    return client.run(read)


def open_files(client, folder):
    """Count what each worker has open in a folder."""

    def count(folder):
        links = list(Path("/proc/self/fd").iterdir())
        return sum(str(link.readlink()).startswith(folder) for link in links if link.is_symlink())

    return client.run(count, str(folder))


@pytest.mark.usefixtures("told_pages")
def test_terabyte(cluster, terabyte, tmp_path):
    """Its sum is right, and workers hold little more than before."""
    array, expected = terabyte
    with da.core.config.set({"array.chunk-size": "4MiB"}):
        x = array.to_dask("stored")
    assert x.npartitions >= 8
    cluster.run(lambda: __import__("dask.array") and __import__("sparsearray.interop._dask_part"))
    before = own_memory(cluster)
    assert x.sum().compute() == expected
    assert abs(x).max(axis=1).max().compute() == array.max()
    after = own_memory(cluster)
    for worker in before:
        assert after[worker] - before[worker] < 64 * MIB
    # One array each, however many tasks there were; an array has two descriptors.
    assert max(open_files(cluster, tmp_path).values()) <= 2


@pytest.mark.parametrize("layout", ["rows", "tiles", "file", "tiles in a file", "shared"])
@pytest.mark.parametrize("chunks", ["auto", "stored", (300, 200)])
@pytest.mark.usefixtures("cluster")
def test_right_results(layout, chunks, tmp_path):
    """All that is done elsewhere gives what numpy gives."""
    dense = np.zeros((1000, 700))
    dense[5:400, 600:640] = np.random.default_rng(1).normal(size=(395, 40))
    tiles = 32 if "tiles" in layout else None
    if layout == "shared":
        memory = shared_memory(dense.nbytes)
        array = sparsearray.open(memory, "r+", dtype="f8", shape=dense.shape)
    elif "file" in layout:
        array = sparsearray.open(tmp_path / "a.npy", "w+", shape=dense.shape, tiles=tiles)
    else:
        array = sparsearray.zeros(dense.shape, tiles=tiles)
    array[5:400, 600:640] = dense[5:400, 600:640]
    x = array.to_dask(chunks)
    np.testing.assert_array_equal(x.compute(), dense)
    np.testing.assert_allclose(x.sum(axis=0).compute(), dense.sum(axis=0))
    np.testing.assert_array_equal((x.rechunk((100, 700)) + 1)[::7].compute(), (dense + 1)[::7])
    held = x.persist()
    np.testing.assert_array_equal(held.T.compute(), dense.T)
    np.testing.assert_array_equal((abs(held) * 2).compute(), abs(dense) * 2)


def pieces_of(random, shape, sides):
    """Make a dask array that is zero but for some of its chunks, which meet within pages."""
    dense = np.zeros(shape, "i4")
    for _ in range(20):
        low = [int(random.integers(n)) for n in shape]
        dense[low[0] : low[0] + 60, low[1] : low[1] + 60] = random.integers(1, 1000)
    return da.from_array(dense, sides), dense


@pytest.mark.parametrize("kind", ["rows", "tiles", "shared"])
@pytest.mark.parametrize("own", [True, False])
def test_store_from_both_workers(cluster, kind, own, tmp_path):
    """Two processes write to one array, at chunks that meet within a page or a tile."""
    x, dense = pieces_of(np.random.default_rng(5), (700, 811), (37, 101))
    if kind == "shared":
        target = sparsearray.open(shared_memory(dense.nbytes), "r+", dtype="i4", shape=dense.shape)
    else:
        tiles = 20 if kind == "tiles" else None
        path = tmp_path / "target.npy"
        target = sparsearray.open(path, "w+", dtype="i4", shape=dense.shape, tiles=tiles)
    target[600:] = 9  # is replaced
    pids = set(cluster.run(os.getpid).values())
    if own:
        assert store(x, target) is None
    else:
        x.store(target)
    assert len(pids) == 2
    np.testing.assert_array_equal(target[...], dense)
    target.flush()
    if target.path:
        np.testing.assert_array_equal(sparsearray.open(target.path)[...], dense)


@pytest.mark.usefixtures("cluster")
def test_store_what_has_holes(terabyte, tmp_path):
    """A terabyte goes to another file without its holes."""
    array, expected = terabyte
    target = sparsearray.open(tmp_path / "other.npy", "w+", shape=array.shape)
    with da.core.config.set({"array.chunk-size": "8MiB"}):
        x = array.to_dask("stored")
    store(x * 2, target)
    assert target.sum() == 2 * expected
    assert target.nbytes_stored <= array.nbytes_stored


@pytest.mark.usefixtures("cluster")
def test_memory_is_no_target():
    """An array in memory, of which workers have copies alone, is refused."""
    target = sparsearray.zeros((100, 100))
    with pytest.raises(TypeError, match="lies in memory of another process"):
        store(da.ones((100, 100), chunks=50), target)
    assert not target.nbytes_stored


def test_a_worker_is_killed(cluster, terabyte, tmp_path):
    """In the middle of the work: what it did is done again, and the results are right."""
    array, expected = terabyte
    with da.core.config.set({"array.chunk-size": "4MiB"}):
        x = array.to_dask("stored")
    target = sparsearray.open(tmp_path / "sums.npy", "w+", shape=x.numblocks)

    def slow_sum(block):
        time.sleep(0.2)
        return np.asarray(block.sum()).reshape(1, 1)

    parts = x.map_blocks(slow_sum, chunks=((1,) * x.numblocks[0], (1,)), dtype="f8")
    future = cluster.compute(store(parts, target, compute=False))
    total = cluster.compute(x.sum())
    time.sleep(0.5)
    victim = next(iter(cluster.run(os.getpid).values()))
    os.kill(victim, signal.SIGKILL)
    future.result(timeout=60)
    assert total.result(timeout=60) == expected
    assert target.sum() == expected
    cluster.wait_for_workers(2, timeout=60)
    assert victim not in cluster.run(os.getpid).values()


@pytest.mark.usefixtures("cluster")
def test_workers_do_not_write_to_what_they_read(tmp_path):
    """What a task does in place is refused there, too; and workers know what dask asks tables for."""
    path = tmp_path / "a.npy"
    with sparsearray.open(path, "w+", shape=(40_000,)) as array:
        array[:30_000] = 5
        array.flush()
        x = array.to_dask("stored")

        def change(block):
            block *= 3
            return block

        with pytest.raises(ValueError, match="output array is read-only"):
            x.map_blocks(change, meta=x._meta).compute()
        assert x.sum().compute() == array.sum() == 150_000
        assert da.percentile(x, [50]).compute().tolist() == [5]
        doubled = (x * 2).persist()
        assert da.percentile(doubled, [50]).compute().tolist() == [10]
