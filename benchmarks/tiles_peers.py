"""
The arrays that tiles.py measures: ours, and those of other libraries, each as fast as it goes.

All of them have the same methods. What a library needs to be fast is set here, for its good:
nothing is compressed; chunks are not compared with the fill value before they are written; the
disk is not waited for; what can be started together is; a sum reads, through the library, the
chunks that are stored and no others, which the library, its store or the folder lists.
Each library has several settings. tiles.py tries all of them, and takes the best in each row.
"""

import importlib
import itertools
import math
import mmap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

import sparsearray

GIB = 1 << 30
MAP_NORESERVE = 0x4000  # Linux; in the module mmap since Python 3.13
AT_ONCE = 16  # boxes, or stored chunks, that are asked for together

Box = tuple[slice, ...]
Place = tuple[int, ...]
Options = dict[str, Any]


class Form(NamedTuple):
    """What the arrays of a job have in common."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def cube(self, side: int) -> tuple[int, ...]:
        """Make the shape of a chunk with equal sides."""
        return (side,) * len(self.shape)


def add_up(part: np.ndarray) -> float:
    """Sum a stored chunk in the fastest of numpy's ways: twice as fast as sum() for bytes."""
    return float(part.sum(dtype="u4" if part.dtype == "u1" else None))


def chunk_boxes(keys: Iterable[str], side: int, shape: tuple[int, ...]) -> Iterator[Box]:
    """Find the boxes of stored chunks, whose keys are such as 3.0.12; of no other keys."""
    for key in keys:
        if key[:1].isdigit():
            starts = [int(number) * side for number in key.split(".")]
            yield tuple(slice(i, min(i + side, n)) for i, n in zip(starts, shape, strict=True))


def _batched(items: Iterable[Any], count: int) -> Iterator[list[Any]]:
    """Take so many items at a time: itertools.batched, since Python 3.12."""
    left = iter(items)
    while some := list(itertools.islice(left, count)):
        yield some


class Peer:
    """An array in memory, or in a file or folder if there is a path."""

    name: ClassVar[str]
    module: ClassVar[str] = "numpy"
    sums_once: ClassVar[bool] = False  # it takes too long

    def __init__(self, form: Form, options: Options, path: Path | None = None) -> None:
        self.form, self.options, self.path = form, options, path
        self.array: Any = None
        self.library = importlib.import_module(self.module)

    @classmethod
    def settings(cls, form: Form, *, in_file: bool) -> dict[str, Options]:  # noqa: ARG003 - theirs
        """List what is to be tried, with a short name each."""
        return {"": {}}

    def create(self) -> None:
        """Make a new array."""
        raise NotImplementedError

    def open(self) -> None:
        """Open the file again, to read it."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the array, with all that was written in the file."""
        self.array = None

    def write(self, boxes: Sequence[Box], blocks: Iterable[np.ndarray]) -> None:
        """Write all boxes."""
        array = self.array
        for box, block in zip(boxes, blocks, strict=True):
            array[box] = block

    def read(self, boxes: Iterable[Box]) -> Iterator[np.ndarray]:
        """Read all boxes, each as an array of its own."""
        array = self.array
        for box in boxes:
            yield array[box]

    def total(self) -> float:
        """Sum the array."""
        return float(self.array.sum())

    def get(self, places: Sequence[Place]) -> Any:
        """Read single elements, one by one; the last one is given back."""
        array = self.array
        for place in places:
            value = array[place]
        return value

    def put(self, places: Sequence[Place], value: int) -> None:
        """Set single elements, one by one."""
        array = self.array
        for place in places:
            array[place] = value


class Rows(Peer):
    """A SparseArray, which stores rows."""

    name = "SparseArray"
    module = "sparsearray"
    extra: ClassVar[Options] = {}

    def create(self) -> None:
        """Make a new array."""
        if self.path is None:
            self.array = sparsearray.zeros(self.form.shape, self.form.dtype, **self.extra)
        else:
            shape, dtype = self.form
            self.array = sparsearray.open(self.path, "w+", shape=shape, dtype=dtype, **self.extra)

    def open(self) -> None:
        """Open the file again, to read it."""
        self.array = sparsearray.open(self.path)

    def close(self) -> None:
        """Close it."""
        self.array.close()
        self.array = None

    def read(self, boxes: Iterable[Box]) -> Iterator[np.ndarray]:
        """Read all boxes, each as an array of its own: boxes of a SparseArray are views."""
        array = self.array
        for box in boxes:
            yield np.array(array[box])


class Tiles(Rows):
    """Ours: a TiledArray."""

    name = "TiledArray"
    extra: ClassVar[Options] = {"tiles": "auto"}
    read = Peer.read  # copies


class Memmap(Peer):
    """An np.memmap; in memory, one of no file, which like a file takes what is written alone."""

    name = "np.memmap"
    sums_once = True

    def create(self) -> None:
        """Make a new array."""
        shape, dtype = self.form
        if self.path is None:
            nbytes = math.prod(shape) * dtype.itemsize
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
            self.array = np.frombuffer(mmap.mmap(-1, nbytes, flags), dtype).reshape(shape)
        else:
            self._map("w+")

    def open(self) -> None:
        """Open the file again, to read it."""
        self._map("r")

    def _map(self, mode: Any) -> None:
        """Map the file, page by page: else some kernels store 50 times what is written."""
        shape, dtype = self.form
        self.array = np.memmap(self.path, dtype, mode, shape=shape)
        self.array.base.madvise(mmap.MADV_RANDOM)

    def read(self, boxes: Iterable[Box]) -> Iterator[np.ndarray]:
        """Read all boxes, each as an array of its own: boxes of an np.memmap are views."""
        array = self.array
        for box in boxes:
            yield np.array(array[box])

    def total(self) -> float:
        """Sum all of it, for there is no telling what was written."""
        if self.path is not None:
            self.array.base.madvise(mmap.MADV_SEQUENTIAL)
        return float(self.array.sum())


class H5py(Peer):
    """A chunked dataset of HDF5; in memory, of a file that exists there only."""

    name = "h5py"
    module = "h5py"

    @classmethod
    def settings(cls, form: Form, *, in_file: bool) -> dict[str, Options]:
        """Sides of chunks; a cache for all chunks, or none, so that parts of chunks are moved."""
        sides = (64, 256, 1024) if len(form.shape) == 2 else (16, 32, 64)
        caches = {"cache": 2 * GIB, "no cache": 0}
        if in_file and len(form.shape) == 3:
            del caches["no cache"]  # a system call for each row of a part of a chunk
        return {
            f"{side}, {label}": {"side": side, "cache": cache}
            for side in sides
            for label, cache in caches.items()
        }

    def _file(self, mode: str) -> Any:
        core = {"driver": "core", "backing_store": False} if self.path is None else {}
        return self.library.File(
            self.path or "memory",
            mode,
            libver="latest",
            rdcc_nbytes=self.options["cache"],
            rdcc_nslots=100_003,
            **core,
        )

    def create(self) -> None:
        """Make a new array."""
        shape, dtype = self.form
        self.array = self._file("w").create_dataset(
            "a",
            shape,
            dtype,
            chunks=self.form.cube(self.options["side"]),
            maxshape=(None,) * len(shape),  # with this, chunks are found by a B-tree: faster
        )

    def open(self) -> None:
        """Open the file again, to read it."""
        self.array = self._file("r")["a"]

    def close(self) -> None:
        """Close the file."""
        self.array.file.close()
        self.array = None

    def total(self) -> float:
        """Sum the chunks that are allocated, as they lie in the file."""
        dataset, chunks = self.array.id, []
        if self.path is None:
            self.array.file.flush()
        dataset.chunk_iter(lambda info: chunks.append((info.byte_offset, info.chunk_offset)))
        part = np.empty(self.array.chunks, self.form.dtype)
        out = part.data.cast("B")
        parts = (dataset.read_direct_chunk(chunk, out=out) for _, chunk in sorted(chunks))
        return math.fsum(add_up(part) for _ in parts)


class Zarr(Peer):
    """An array of Zarr 3."""

    name = "zarr"
    module = "zarr"

    @classmethod
    def settings(cls, form: Form, *, in_file: bool) -> dict[str, Options]:  # noqa: ARG003
        """Sides of chunks."""
        sides = (256, 512, 1024) if len(form.shape) == 2 else (48, 64)
        return {str(side): {"side": side} for side in sides}

    def create(self) -> None:
        """Make a new array, with all chunks in one folder."""
        shape, dtype = self.form
        self.stored: dict[str, Any] = {}
        if self.path is None:
            store = self.library.storage.MemoryStore(self.stored)
        else:
            store = self.library.storage.LocalStore(self.path)
        self.array = self.library.create_array(
            store,
            shape=shape,
            dtype=dtype,
            chunks=self.form.cube(self.options["side"]),
            compressors=None,
            filters=None,
            fill_value=0,
            chunk_key_encoding={"name": "v2", "separator": "."},
            config={"write_empty_chunks": True},
        )

    def open(self) -> None:
        """Open the folder again, to read it."""
        store = self.library.storage.LocalStore(self.path, read_only=True)
        self.array = self.library.open_array(store, mode="r")

    def total(self) -> float:
        """Sum the chunks in the store."""
        stored = self.stored if self.path is None else [p.name for p in self.path.iterdir()]
        boxes = chunk_boxes(list(stored), self.options["side"], self.form.shape)
        return math.fsum(add_up(self.array[box]) for box in boxes)


class TensorStore(Peer):
    """An array of TensorStore, in its Zarr driver."""

    name = "tensorstore"
    module = "tensorstore"

    @classmethod
    def settings(cls, form: Form, *, in_file: bool) -> dict[str, Options]:
        """Sides of chunks; with and without a cache of its own for them."""
        sides = (128, 256, 1024) if len(form.shape) == 2 else (32, 48, 64)
        caches = {"cache": GIB, "no cache": 0}
        if in_file:
            del caches["cache"]  # the system has one
        return {
            f"{side}, {label}": {"side": side, "cache": cache}
            for side in sides
            for label, cache in caches.items()
        }

    def _open(self, **options: Any) -> None:
        store = "memory://" if self.path is None else {"driver": "file", "path": f"{self.path}/"}
        context = {
            "cache_pool": {"total_bytes_limit": self.options["cache"]},
            "file_io_sync": False,
            "file_io_locking": {"mode": "none"},
        }
        spec = {
            "driver": "zarr",
            "kvstore": store,
            "context": context,
            "store_data_equal_to_fill_value": True,
            "recheck_cached_data": False,
            **options,
        }
        self.array = self.library.open(spec).result()

    def create(self) -> None:
        """Make a new array."""
        metadata = {
            "shape": self.form.shape,
            "dtype": self.form.dtype.str,
            "chunks": self.form.cube(self.options["side"]),
            "compressor": None,
            "fill_value": 0,
        }
        self._open(metadata=metadata, create=True)

    def open(self) -> None:
        """Open the folder again, to read it."""
        self._open()

    def write(self, boxes: Sequence[Box], blocks: Iterable[np.ndarray]) -> None:
        """Write all boxes, many of them at once."""
        array = self.array
        writes = (array[box].write(block) for box, block in zip(boxes, blocks, strict=True))
        for some in _batched(writes, AT_ONCE):
            for write in some:
                write.result()

    def read(self, boxes: Iterable[Box]) -> Iterator[np.ndarray]:
        """Read all boxes, many of them at once."""
        array = self.array
        for some in _batched((array[box].read() for box in boxes), AT_ONCE):
            for read in some:
                yield read.result()

    def total(self) -> float:
        """Sum the chunks in the store, many of them read at once."""
        keys = (key.decode() for key in self.array.kvstore.list().result())
        boxes = chunk_boxes(keys, self.options["side"], self.form.shape)
        return math.fsum(map(add_up, self.read(boxes)))

    def get(self, places: Sequence[Place]) -> Any:
        """Read single elements."""
        array = self.array
        for place in places:
            value = array[place].read().result()
        return value


class Blosc2(Peer):
    """An NDArray of Blosc2."""

    name = "blosc2"
    module = "blosc2"

    @classmethod
    def settings(cls, form: Form, *, in_file: bool) -> dict[str, Options]:
        """Sides of chunks and blocks; zeros that are compressed, or not."""
        if len(form.shape) == 2:  # an index of many chunks takes long to write into a file
            sides = [(512, 128), (1024, 128)] if in_file else [(256, 64), (512, 128), (1024, 128)]
        else:
            sides = [(64, 16), (64, 32)] if in_file else [(32, 16), (64, 16), (64, 32)]
        levels = {"": 0, ", LZ4": 1}
        return {
            f"{chunk}/{block}{label}": {"side": chunk, "block": block, "level": level}
            for chunk, block in sides
            for label, level in levels.items()
        }

    def create(self) -> None:
        """Make a new array."""
        blosc2 = self.library
        place = {} if self.path is None else {"urlpath": str(self.path), "mode": "w"}
        self.array = blosc2.zeros(
            self.form.shape,
            self.form.dtype,
            chunks=self.form.cube(self.options["side"]),
            blocks=self.form.cube(self.options["block"]),
            cparams={
                "codec": blosc2.Codec.LZ4,
                "clevel": self.options["level"],
                "filters": [blosc2.Filter.NOFILTER],
                "nthreads": self.options.get("threads", 1),
            },
            dparams={"nthreads": self.options.get("threads", 1)},
            contiguous=self.path is not None,
            **place,
        )

    def open(self) -> None:
        """Open the file again, to read it."""
        threads = self.options.get("threads", 1)
        self.array = self.library.open(str(self.path), "r", dparams={"nthreads": threads})

    def total(self) -> float:
        """Sum the chunks that are more than zeros; its own sum() looks at all chunks."""
        chunks = self.array.schunk
        part = np.empty(math.prod(self.form.cube(self.options["side"])), self.form.dtype)
        total = 0.0
        for info in chunks.iterchunks_info():
            if info.special == self.library.SpecialValue.NOT_SPECIAL:
                chunks.decompress_chunk(info.nchunk, part)
                total += add_up(part)
        return total


class TileDB(Peer):
    """A dense array of TileDB."""

    name = "tiledb"
    module = "tiledb"
    _count = itertools.count()

    @classmethod
    def settings(cls, form: Form, *, in_file: bool) -> dict[str, Options]:  # noqa: ARG003
        """Sides of tiles."""
        sides = (64, 256, 1024) if len(form.shape) == 2 else (16, 48)
        return {str(side): {"side": side} for side in sides}

    def create(self) -> None:
        """Make a new array."""
        tiledb = self.library
        # One thread: faster, as the boxes are small.
        threads = {"sm.compute_concurrency_level": "1", "sm.io_concurrency_level": "1"}
        self.context = tiledb.Ctx(threads)
        self.uri = f"mem://{next(self._count)}" if self.path is None else str(self.path)
        side = self.options["side"]
        dims = [
            tiledb.Dim(f"d{i}", domain=(0, size - 1), tile=side, dtype="u8", ctx=self.context)
            for i, size in enumerate(self.form.shape)
        ]
        schema = tiledb.ArraySchema(
            domain=tiledb.Domain(*dims, ctx=self.context),
            attrs=[tiledb.Attr(dtype=self.form.dtype, fill=0, ctx=self.context)],
            ctx=self.context,
        )
        tiledb.Array.create(self.uri, schema, ctx=self.context)

    def open(self) -> None:
        """Open the folder again, to read it; what it is known by is known."""
        self._mode("r")

    def close(self) -> None:
        """Close it."""
        if self.array is not None:
            self.array.close()
            self.array = None

    def _mode(self, mode: str) -> Any:
        """Open the array in a mode: one for all it does, there is none."""
        if self.array is None or self.array.mode != mode:
            self.close()
            self.array = self.library.open(self.uri, mode, ctx=self.context)
        return self.array

    def write(self, boxes: Sequence[Box], blocks: Iterable[np.ndarray]) -> None:
        """Write all boxes, which makes as many fragments."""
        self._mode("w")
        super().write(boxes, blocks)

    def read(self, boxes: Iterable[Box]) -> Iterator[np.ndarray]:
        """Read all boxes."""
        self._mode("r")
        return super().read(boxes)

    def total(self) -> float:
        """Sum what the fragments cover: boxes, none of which touch."""
        array = self._mode("r")
        fragments = self.library.array_fragments(self.uri, ctx=self.context)
        boxes = (
            tuple(slice(int(low), int(high) + 1) for low, high in domain)
            for domain in fragments.nonempty_domain
        )
        return math.fsum(add_up(array[box]) for box in boxes)

    def get(self, places: Sequence[Place]) -> Any:
        """Read single elements."""
        self._mode("r")
        return super().get(places)

    def put(self, places: Sequence[Place], value: int) -> None:
        """Set single elements."""
        self._mode("w")
        super().put(places, value)


OURS = Tiles
PEERS = [Rows, Memmap, H5py, Zarr, TensorStore, Blosc2, TileDB]
