"""The folder of a zarr array, put in its place when all of it is written."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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
        with _made(target, "") as beside:
            yield beside
            _move_into(beside, target)
        return
    near = target.parent
    while not near.is_dir():
        near = near.parent
    with _made(near, target.name) as beside:
        mode = stat.S_IMODE(beside.stat().st_mode)
        beside.chmod(0o700)
        yield beside
        target.parent.mkdir(parents=True, exist_ok=True)
        if overwrite and target.exists():
            _replace(target, beside)
            return
        beside.chmod(mode)
        try:
            beside.rename(target)
        except OSError as error:
            if error.errno in _TAKEN:
                raise _is_there(target) from None
            raise


@contextmanager
def _made(near: Path, name: str) -> Iterator[Path]:
    """Make a folder, which is removed at the end if it is still there."""
    # As bytes: a name has 255 of them at most, however many a character takes.
    label = os.fsdecode(os.fsencode(name)[:200])
    made = near / f".{label}.{secrets.token_hex(6)}.tmp"
    try:
        made.mkdir()
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _replace(target: Path, beside: Path) -> None:
    """Put a folder in the place of another, with its owner and mode."""
    facts = target.stat()
    with suppress(PermissionError):
        os.chown(beside, facts.st_uid, facts.st_gid)
    beside.chmod(stat.S_IMODE(facts.st_mode))
    old = beside.with_suffix(".old")
    target.rename(old)
    try:
        beside.rename(target)
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
