"""The folder of a zarr array, put in its place when all of it is written."""

from __future__ import annotations

import errno
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sparsearray._new_file import beside, give_owner

__all__ = ["replaced_folder"]

_METADATA = (".zattrs", ".zarray", "zarr.json")  # of which the last is what makes it an array
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}  # of rename(2)


@contextmanager
def replaced_folder(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """
    Have a folder made beside another, and put in its place at the end; or nothing left of it.

    Nobody else looks into it meanwhile. It then has the permissions of the one before; an empty one
    stays, and is filled. Without `overwrite` that raises FileExistsError where somebody else was
    faster. No signal may come between: see `held_off`.
    """
    if target.is_dir() and not any(target.iterdir()):
        with _made(target / "new") as made:
            yield made
            _move_into(made, target)
        return
    near = target.parent
    while not near.is_dir():
        near = near.parent
    with _made(near / target.name) as made:
        mode = stat.S_IMODE(made.stat().st_mode)
        made.chmod(0o700)
        yield made
        target.parent.mkdir(parents=True, exist_ok=True)
        if overwrite and target.exists():
            _replace(target, made)
            return
        made.chmod(mode)
        try:
            made.rename(target)
        except OSError as error:
            if error.errno in _TAKEN:
                raise _is_there(target) from None
            raise


@contextmanager
def _made(target: Path) -> Iterator[Path]:
    """Make a folder beside one, which is removed at the end if it is still there."""
    made = beside(target)
    try:
        made.mkdir()
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _replace(target: Path, made: Path) -> None:
    """Put a folder in the place of another, with its owner and mode."""
    facts = target.stat()
    give_owner(made, facts)
    made.chmod(stat.S_IMODE(facts.st_mode))
    old = made.with_suffix(".old")
    target.rename(old)
    try:
        made.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _move_into(source: Path, target: Path) -> None:
    """Move all that is in a folder into an empty one; the metadata last."""
    if any(path != source for path in target.iterdir()):
        raise _is_there(target)
    listed = {path.name for path in source.iterdir()}
    names = sorted(listed.difference(_METADATA)) + [name for name in _METADATA if name in listed]
    moved: list[Path] = []
    try:
        for name in names:
            moved.append((source / name).rename(target / name))  # noqa: PERF401 - an error must find them
    except BaseException:
        for path in moved:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()
        raise


def _is_there(target: Path) -> FileExistsError:
    return FileExistsError(errno.EEXIST, "to_zarr: there is something by now", str(target))
