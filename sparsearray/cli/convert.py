"""``sparsearray convert SRC DST``: write an array in another format, without filling its holes."""

import argparse
import os
from collections.abc import Callable

from .formats import FORMATS, Raw, format_of_source, format_of_target, opened_source
from .progress import add_progress, wants_progress
from .targets import KEEP, Choices, check_target, write_target

__all__ = ["add_convert"]

_DESCRIPTION = """
Write the array in SRC to DST, in another format or another layout: .npy, .npy in tiles, zarr, HDF5,
and raw files as a source. What is not stored is neither read nor written. DST is there when it is
complete, or not at all.
"""
_EXAMPLES = """
examples:
  sparsearray convert volume.npy volume.zarr --chunks 64,64,64
  sparsearray convert volume.zarr volume.npy --tiles auto
  sparsearray convert scan.h5 scan.npy --dataset entry/data
  sparsearray convert frames.bin frames.npy --dtype '<u2' --shape=-1,512,512 --offset 4096

Formats go by the names: .npy, .zarr, .h5 or .hdf5; SRC else by how it begins, or is raw, if --dtype
is given. zarr and HDF5 need their extras: pip install 'sparsearray-numpy[zarr,hdf5]'. A DST that is
there is refused, for it may hold more than one array; --force replaces it as a whole.
"""


def add_convert(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "convert",
        help="write an array as .npy, .npy in tiles, zarr or HDF5",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="SRC")
    parser.add_argument("target", metavar="DST")
    parser.add_argument("--from", dest="source_format", choices=FORMATS, help="what SRC is")
    targets = tuple(name for name in FORMATS if name != "raw")
    parser.add_argument("--to", dest="target_format", choices=targets, help="what DST becomes")
    layout = parser.add_argument_group("what DST is like")
    layout.add_argument(
        "--tiles",
        type=_tiles,
        default=KEEP,
        metavar="64,64",
        help="of .npy: items along a tile, auto, or none; by default as a .npy SRC, else none",
    )
    layout.add_argument(
        "--chunks", type=_sides, metavar="64,64", help="of zarr and HDF5: items along a chunk"
    )
    layout.add_argument(
        "-f", "--force", action="store_true", help="replace a DST that is there, as a whole"
    )
    parser.add_argument(
        "--dataset", metavar="NAME", help="in HDF5: of SRC the only one by default, of DST 'data'"
    )
    raw = parser.add_argument_group("what a raw SRC is")
    raw.add_argument("--dtype", help="of its items, as numpy says it: '<f4'")
    raw.add_argument("--shape", type=_lengths, metavar="-1,512", help="all of it by default")
    raw.add_argument("--offset", type=_offset, metavar="BYTES", help="where it begins: 0")
    add_progress(parser)
    parser.set_defaults(run=lambda options: _run(parser, options))


def _lengths(text: str) -> tuple[int, ...]:
    """Read numbers between commas, or x as in 64x64."""
    return tuple(int(part, 0) for part in text.replace("x", ",").split(","))


def _sides(text: str) -> tuple[int, ...]:
    """Read the lengths of a box."""
    sides = _lengths(text)
    if min(sides) < 1:
        msg = f"{text}: each is at least 1"
        raise argparse.ArgumentTypeError(msg)
    return sides


def _tiles(text: str) -> tuple[int, ...] | str | None:
    known = {"none": None, "auto": "auto", KEEP: KEEP}
    return known[text] if text in known else _sides(text)


def _offset(text: str) -> int:
    return int(text, 0)


_offset.__name__, _lengths.__name__, _tiles.__name__ = "number", "numbers", "tiles"
_sides.__name__ = "chunks"


def _run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    source, target = options.source, options.target
    try:
        known = format_of_source(source, options.source_format, raw=options.dtype is not None)
        wanted = format_of_target(target, options.target_format)
    except LookupError as error:
        parser.error(str(error.args[0]))
    _refuse_idle_options(parser.error, options, known, wanted)
    check_target(target, source, force=options.force)
    # Chunks are how zarr and HDF5 store an array, and not what .npy is like.
    is_same = known in ("npy", "raw")
    choices = Choices(
        tiles=None if options.tiles == KEEP and not is_same else options.tiles,
        chunks=options.chunks,
        dataset="data" if options.dataset is None else options.dataset,
        force=options.force,
        progress=wants_progress(options),
    )
    raw = Raw(options.dtype, options.shape, options.offset)
    progress = wants_progress(options)
    with opened_source(source, known, raw, options.dataset, progress=progress) as array:
        write_target(target, wanted, array, choices)


def _refuse_idle_options(
    refuse: Callable[[str], object], options: argparse.Namespace, known: str, wanted: str
) -> None:
    """Say what an option that was given has nothing to do with."""
    if known == "raw" and options.dtype is None:
        refuse(f"{options.source} is raw: --dtype says what its items are")
    for name in ("dtype", "shape", "offset"):
        if known != "raw" and getattr(options, name) is not None:
            refuse(f"--{name} is for a raw SRC, and {os.path.basename(options.source)} is {known}")  # noqa: PTH119
    if options.tiles != KEEP and wanted != "npy":
        refuse(f"--tiles is for a DST in .npy, and it is to be {wanted}; --chunks may be meant")
    if options.chunks is not None and wanted == "npy":
        refuse("--chunks is for a DST in zarr or HDF5; --tiles may be meant")
    if options.dataset is not None and "hdf5" not in (known, wanted):
        refuse("--dataset is for HDF5, and neither SRC nor DST is")
    if options.dataset is not None and not options.dataset.strip("/."):
        refuse(f"--dataset {options.dataset!r} is no name of a dataset")
