"""The public API, frozen: a change here is a change that users notice."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import sparsearray
import sparsearray.images
from sparsearray import (
    AtomicSlice,
    Ring,
    RingReader,
    SharedMemory,
    SparseArray,
    SparseBuffer,
    TiledArray,
)
from sparsearray.images import Image

NAMES = [
    "AccessError",
    "AtomicSlice",
    "ClosedError",
    "Damage",
    "OutOfBoundsError",
    "OverrunError",
    "Region",
    "Ring",
    "RingReader",
    "SharedMemory",
    "SparseArray",
    "SparseBuffer",
    "SparseDamageWarning",
    "SparseError",
    "StitchedArray",
    "TiledArray",
    "UnsupportedError",
    "__version__",
    "from_hdf5",
    "from_scipy",
    "from_sparse",
    "from_zarr",
    "install_fault_handler",
    "open",
    "ring",
    "save",
    "shared_memory",
    "stitch",
    "zeros",
]
# By class: what can be called, with the names, kinds and defaults of parameters.
SIGNATURES = {
    SparseBuffer: {
        "__init__": "(self, nbytes, *, alignment=None, name=None)",
        "advise": "(self, offset, nbytes, advice)",
        "alloc": "(self, offset, nbytes, *, reserve=False)",
        "atomic_slice": "(self, offset, count, dtype='u1')",
        "bind_numa": "(self, offset, nbytes, node)",
        "close": "(self)",
        "commit": "(self, offset, nbytes)",
        "decommit": "(self, offset, nbytes)",
        "extents": "(self, offset=0, nbytes=None)",
        "fill_at": "(self, offset, value, nbytes)",
        "flush": "(self, offset=0, nbytes=None)",
        "gather": "(self, offsets, dtype)",
        "map_file": (
            "(self, offset, nbytes, file, file_offset=0, *, writable=False, copy_on_write=False, "
            "skip_holes=False)"
        ),
        "map_zero": "(self, offset, nbytes)",
        "mmap": "(self, offset, nbytes, prot, flags, file, file_offset=0)",
        "mmap_anonymous": "(self, offset, nbytes, prot, flags)",
        "plot": "(self, ax=None)",
        "read_at": "(self, offset, nbytes)",
        "read_into": "(self, offset, out)",
        "read_plain": "(self, offset, dtype, shape=())",
        "refresh": "(self, offset=0, nbytes=None)",
        "save_to": "(self, path)",
        "scatter": "(self, offsets, values)",
        "set_name": "(self, offset, nbytes, name)",
        "set_writable": "(self, offset, nbytes, writable)",
        "snapshot": "(self, name=None)",
        "unmap": "(self, offset, nbytes)",
        "window": "(self, offset, shape, dtype='u1', *, writable=None, strides=None, order='C')",
        "write_at": "(self, offset, data)",
        "write_plain": "(self, offset, value, dtype=None)",
    },
    SparseArray: {
        "__init__": "(self, buffer, shape, dtype=<class 'float'>, *, offset=0, order='C')",
        "all": "(self, axis=None, out=None, **kwargs)",
        "any": "(self, axis=None, out=None, **kwargs)",
        "append": "(self, rows)",
        "argmax": "(self, axis=None, out=None, **kwargs)",
        "argmin": "(self, axis=None, out=None, **kwargs)",
        "astype": "(self, dtype, *, casting='unsafe', copy=True)",
        "blocks": "(self, *, max_nbytes=None)",
        "clip": "(self, min=None, max=None, out=None)",
        "close": "(self)",
        "copy": "(self)",
        "count_nonzero": "(self, axis=None, **kwargs)",
        "discard": "(self, index)",
        "dot": "(self, other, out=None)",
        "extents": "(self)",
        "flush": "(self)",
        "item": "(self, *args)",
        "max": "(self, axis=None, out=None, **kwargs)",
        "mean": "(self, axis=None, dtype=None, out=None, **kwargs)",
        "min": "(self, axis=None, out=None, **kwargs)",
        "nonzero": "(self)",
        "plot": "(self, ax=None)",
        "prod": "(self, axis=None, dtype=None, out=None, **kwargs)",
        "refresh": "(self)",
        "resize": "(self, shape)",
        "retile": "(self, tiles, *, progress=False)",
        "round": "(self, decimals=0, out=None)",
        "save": "(self, path, *, parts=None, progress=False)",
        "save_to": "(self, path)",
        "snapshot": "(self)",
        "std": "(self, axis=None, dtype=None, out=None, **kwargs)",
        "sum": "(self, axis=None, dtype=None, out=None, **kwargs)",
        "to_bsr": "(self, blocksize=None)",
        "to_coo": "(self)",
        "to_csr": "(self)",
        "to_dask": "(self, chunks='auto', *, name=None)",
        "to_hdf5": (
            "(self, target, name='data', *, chunks=None, overwrite=False, progress=False, **options)"
        ),
        "to_sparse": "(self, format='coo')",
        "to_zarr": (
            "(self, store, *, path='', chunks=None, overwrite=False, progress=False, **options)"
        ),
        "trim": "(self, *, progress=False)",
        "var": "(self, axis=None, dtype=None, out=None, **kwargs)",
    },
    TiledArray: {
        "__init__": "(self, buffer, shape, dtype=<class 'float'>, *, tiles='auto', offset=0)",
        "all": "(self, axis=None, out=None, **kwargs)",
        "any": "(self, axis=None, out=None, **kwargs)",
        "append": "(self, rows)",
        "argmax": "(self, axis=None, out=None, **kwargs)",
        "argmin": "(self, axis=None, out=None, **kwargs)",
        "astype": "(self, dtype, *, casting='unsafe', copy=True)",
        "blocks": "(self, *, max_nbytes=None)",
        "clip": "(self, min=None, max=None, out=None)",
        "close": "(self)",
        "copy": "(self)",
        "count_nonzero": "(self, axis=None, **kwargs)",
        "discard": "(self, index)",
        "dot": "(self, other, out=None)",
        "extents": "(self)",
        "flush": "(self)",
        "item": "(self, *args)",
        "max": "(self, axis=None, out=None, **kwargs)",
        "mean": "(self, axis=None, dtype=None, out=None, **kwargs)",
        "min": "(self, axis=None, out=None, **kwargs)",
        "nonzero": "(self)",
        "plot": "(self, ax=None)",
        "prod": "(self, axis=None, dtype=None, out=None, **kwargs)",
        "refresh": "(self)",
        "resize": "(self, shape)",
        "retile": "(self, tiles, *, progress=False)",
        "round": "(self, decimals=0, out=None)",
        "save": "(self, path, *, parts=None, progress=False)",
        "save_to": "(self, path)",
        "snapshot": "(self)",
        "std": "(self, axis=None, dtype=None, out=None, **kwargs)",
        "sum": "(self, axis=None, dtype=None, out=None, **kwargs)",
        "tile": "(self, *numbers)",
        "to_bsr": "(self, blocksize=None)",
        "to_coo": "(self)",
        "to_csr": "(self)",
        "to_dask": "(self, chunks='auto', *, name=None)",
        "to_hdf5": (
            "(self, target, name='data', *, chunks=None, overwrite=False, progress=False, **options)"
        ),
        "to_sparse": "(self, format='coo')",
        "to_zarr": (
            "(self, store, *, path='', chunks=None, overwrite=False, progress=False, **options)"
        ),
        "trim": "(self, *, progress=False)",
        "var": "(self, axis=None, dtype=None, out=None, **kwargs)",
    },
    AtomicSlice: {
        "compare_exchange": "(self, item, expected, desired)",
        "exchange": "(self, item, value)",
        "fetch_add": "(self, item, value)",
        "fetch_and": "(self, item, value)",
        "fetch_or": "(self, item, value)",
        "fetch_sub": "(self, item, value)",
        "fetch_xor": "(self, item, value)",
        "load": "(self, item)",
        "store": "(self, item, value)",
    },
    SharedMemory: {
        "close": "(self)",
        "fileno": "(self)",
        "receive": "(sock)",
        "send": "(self, sock)",
    },
    Ring: {
        "close": "(self)",
        "last": "(self, n=None)",
        "push": "(self, items)",
        "read": "(self, start, n)",
        "reader": "(self, start=None)",
        "window": "(self, start, n)",
    },
    RingReader: {"read": "(self, n=None)"},
    Image: {
        "__init__": "(self, name, segments, buffer, table, pointer=None)",
        "close": "(self)",
        "gather": "(self, addresses, dtype)",
        "hexdump": "(self, address, nbytes=256)",
        "plot": "(self, ax=None)",
        "read_at": "(self, address, nbytes, pad=None)",
        "read_plain": "(self, address, dtype, shape=())",
        "search": "(self, pattern, start=0, stop=None, *, dtype=None)",
        "window": "(self, address, shape, dtype='u1')",
    },
}
PROPERTIES = [
    "address",
    "closed",
    "damage",
    "nbytes",
    "nbytes_stored",
    "page_size",
    "regions",
    "reserved",
]
# DESIGN section 3: what a module may import of the package, besides what is listed before it.
ORDER = [
    "_native",
    "errors",
    "_text",
    "_closing",
    "_refusals",
    "_memory",
    "_optional",
    "region",
    "_binding",
    "_descriptor",
    "_process_lock",
    "_signals",
    "_digging",
    "_new_file",
    "faults",
    "extents",
    "window",
    "shared",
    "atomics",
    "access",
    "mapping",
    "backing",
    "buffer",
    "_spans",
    "npy",
    "_progress",
    "_splitting",
    "_mover",
    "_selection",
    "_zero",
    "_quota",
    "_layout",
    "_storage",
    "blocks",
    "_boxes",
    "_coordinates",
    "_rows",
    "_npy_file",
    "_sums",
    "_lanes",
    "functions",
    "moments",
    "products",
    "reductions",
    "elementwise",
    "protocol",
    "_conversions",
    "stored",
    "items",
    "array",
    "_tiling",
    "_records",
    "_pool",
    "_tile_blocks",
    "_tile_clearing",
    "tile_items",
    "tiled",
    "_chunk_files",
    "parcel",
    "retile",
    "creation",
    "_writing",
    "files",
    "_parts",
    "stitch",
    "_ring_memory",
    "ring_reader",
    "ring",
    "_svg",
    "_bars",
    "_plotting",
    "display",
    "buffer_plot",
    "_grid",
    "array_display",
    "array_plot",
    "ring_display",
    "images",
    "interop",
    "cli",
]


def without_annotations(function: object) -> str:
    """Write a signature with names and defaults only."""
    signature = inspect.signature(function)
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))


def test_names() -> None:
    """`__all__` holds just these, sorted, and each is there."""
    assert sparsearray.__all__ == NAMES
    assert sorted(NAMES) == NAMES
    for name in NAMES:
        assert hasattr(sparsearray, name)


@pytest.mark.parametrize("kind", SIGNATURES)
def test_signatures(kind: type) -> None:
    """The methods of a class, and what they take."""
    public = [
        name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")
    ]
    expected = SIGNATURES[kind]
    assert public == sorted(set(expected) - {"__init__"})
    for name, signature in expected.items():
        assert without_annotations(getattr(kind, name)) == signature, name


def test_properties() -> None:
    """The properties of a buffer cannot be set."""
    found = [n for n, v in inspect.getmembers(SparseBuffer) if isinstance(v, property)]
    assert found == PROPERTIES
    assert all(getattr(SparseBuffer, name).fset is None for name in found)


def test_everything_public_is_documented() -> None:
    """Every name, method and property says what it is; what can fail says how."""
    for name in set(NAMES) - {"__version__"}:
        assert inspect.getdoc(getattr(sparsearray, name)), name
    for kind, methods in SIGNATURES.items():
        for name in methods:
            assert inspect.getdoc(getattr(kind, name)), (kind, name)
    for name in PROPERTIES:
        assert inspect.getdoc(getattr(SparseBuffer, name)), name
    for name in set(SIGNATURES[SparseBuffer]) - {"__init__"}:
        assert "Raises\n------" in inspect.getdoc(getattr(SparseBuffer, name)), name


FUNCTIONS = {
    "install_fault_handler": "(enabled=True)",
    "open": (
        "(path, mode='r', *, dtype=None, shape=None, tiles=None, maxshape=None, reserve=False)"
    ),
    "ring": "(count, dtype=<class 'float'>, *, memory=None, name=None)",
    "save": "(path, array, *, parts=None, progress=False)",
    "shared_memory": "(nbytes, name=None, *, hugepage_size=None)",
    "stitch": "(parts, dtype=None, shape=None, *, mode='r')",
    "zeros": (
        "(shape, dtype=<class 'float'>, *, tiles=None, maxshape=None, max_nbytes=None, name=None)"
    ),
}


IMAGES = {
    "open_elf": "(file, *, zero_fill=None, allow_truncated=False)",
    "open_ihex": "(file, *, pointer=None)",
    "open_raw": "(parts, *, pointer=None, name=None)",
    "open_srec": "(file, *, pointer=None)",
}


INTEROP = {
    "dask": {
        "from_array": "(array, chunks='auto', *, name=None)",
        "store": "(sources, targets, *, regions=None, compute=True, **kwargs)",
    },
    "hdf5": {
        "from_hdf5": "(dataset, name=None, *, mode='r', fill_missing=False, progress=False)",
        "to_hdf5": (
            "(array, target, name='data', *, chunks=None, overwrite=False, progress=False, **options)"
        ),
    },
    "scipy": {
        "from_scipy": "(matrix, *, tiles=None)",
        "to_bsr": "(array, blocksize=None)",
        "to_coo": "(array)",
        "to_csr": "(array)",
    },
    "sparse": {
        "from_sparse": "(array, *, tiles=None)",
        "to_sparse": "(array, format='coo')",
    },
    "zarr": {
        "from_zarr": (
            "(store, *, path='', mode='r', copy=None, fill_missing=False, progress=False)"
        ),
        "to_zarr": (
            "(array, store, *, path='', chunks=None, overwrite=False, progress=False, **options)"
        ),
    },
}


@pytest.mark.parametrize("module", INTEROP)
def test_interop(module: str) -> None:
    """The functions of `sparsearray.interop`, and what they take."""
    found = importlib.import_module(f"sparsearray.interop.{module}")
    assert found.__all__ == sorted(INTEROP[module])
    for name, signature in INTEROP[module].items():
        function = getattr(found, name)
        assert without_annotations(function) == signature
        assert "Raises\n------" in inspect.getdoc(function), name


def test_interop_imports_no_library() -> None:
    """Importing what leads to other libraries imports none of them."""
    names = [f"sparsearray.interop.{module}" for module in INTEROP]
    code = f"import sys, {', '.join(names)}; print({{'dask', 'h5py', 'scipy', 'sparse', 'zarr'}} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_images() -> None:
    """The names of `sparsearray.images`, and what its functions take."""
    assert sparsearray.images.__all__ == ["Image", "Segment", *IMAGES]
    for name, signature in IMAGES.items():
        function = getattr(sparsearray.images, name)
        assert without_annotations(function) == signature
        assert "Raises\n------" in inspect.getdoc(function), name


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    """The functions, and what they take."""
    assert without_annotations(getattr(sparsearray, name)) == FUNCTIONS[name]


def test_imports_run_one_way() -> None:
    """A module imports, when it is loaded, only what stands before it in the order of the rooms."""
    folder = Path(sparsearray.__file__).parent
    for position, name in enumerate(ORDER):
        files = [folder / f"{name}.py"]
        if (folder / name).is_dir():
            files = list((folder / name).glob("*.py"))
        for file in files:
            if not file.exists():  # the native module
                continue
            for node in ast.parse(file.read_text()).body:
                if isinstance(node, ast.ImportFrom) and node.level == 1 and file.parent == folder:
                    modules = [node.module] if node.module else [part.name for part in node.names]
                    assert set(modules) <= set(ORDER[:position]), (name, modules)


def test_hypothesis_and_pytest_are_not_imported() -> None:
    """Importing the package imports nothing but numpy, cffi and the standard library."""
    code = (
        "import sys, sparsearray, sparsearray.images; "
        "print([m for m in ('hypothesis', 'pytest', 'matplotlib', 'IPython', 'elftools', 'bincopy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
