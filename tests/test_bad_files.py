"""Files that cannot be opened or saved as arrays: refused by name, and left as they were."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

import sparsearray

from .array_files import GOOD, MAGIC, MODES, counting, make_npy

# Content


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "no .npy file"),
        ({"dtype": "f8"}, "whole items"),
        ({"dtype": "u1", "shape": 102}, "cut short"),
        ({"dtype": "u1", "shape": (2, 60)}, "cut short"),
        ({"dtype": "u1", "shape": 1 << 63}, "larger than any address space"),
        ({"dtype": "u1", "shape": -1}, "negative"),
        ({"dtype": []}, "no bytes"),
    ],
)
def test_bad_raw_files(arguments: Any, message: str, tmp_path: Path, unchanged_files: Any) -> None:
    """A raw file that is not as the arguments say is refused."""
    (tmp_path / "raw").write_bytes(counting(101))
    with unchanged_files(), pytest.raises(ValueError, match=message) as caught:
        sparsearray.open(tmp_path / "raw", **arguments)
    assert "raw" in str(caught.value) or "negative" in str(caught.value)
    with unchanged_files(), pytest.raises(TypeError, match="Python objects"):
        sparsearray.open(tmp_path / "raw", dtype="O")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no .npy file"),
        (MAGIC[:5], "no .npy file"),
        (MAGIC + b"\3\0\2\0\0\0\xff\n", "decode"),
        (b"PK\x03\x04 a zip", "no .npy file"),
        (MAGIC, "magic"),
        (MAGIC + b"\x09\x09" + bytes(200), "version 9.9"),
        (make_npy(GOOD)[:50], "cut short in the header"),
        (make_npy(GOOD), "cut short: shape"),
        (make_npy(GOOD, bytes(15)), "cut short: shape"),
        (MAGIC + b"\x02\x00" + (100 << 20).to_bytes(4, "little") + bytes(99), "104857600 bytes"),
        (make_npy("[]"), "damaged header"),
        (make_npy("{'descr': '<f8'}"), "damaged header"),
        (make_npy(GOOD.replace("(2,)", "(-2,)"), bytes(99)), "negative shape"),
        (make_npy(GOOD.replace("2,", "9223372036854775808,"), bytes(99)), "larger than any"),
        (make_npy(GOOD.replace("2,", "9223372036854775807,"), bytes(99)), "larger than any"),
        (make_npy(GOOD.replace("2,", "4294967296, 4294967296"), bytes(99)), "larger than any"),
        (make_npy(GOOD.replace("2,", "0, 9223372036854775808"), bytes(99)), "larger than any"),
        (make_npy(GOOD.replace("2,", "1152921504606846975,"), bytes(99)), "cut short: shape"),
        (make_npy(GOOD.replace("2,", "1, " * 65), bytes(99)), "larger than any"),
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_bad_npy(
    data: bytes,
    message: str,
    mode: Any,
    tmp_path: Path,
    unchanged_files: Any,
    leaves_no_mapping: Callable[[Callable[[], object]], None],
) -> None:
    """A file that is no .npy file, or a damaged one, is refused by name; nothing stays open."""
    path = tmp_path / "bad.npy"
    path.write_bytes(data)

    def refused() -> None:
        with unchanged_files(), pytest.raises(ValueError, match=message) as caught:
            sparsearray.open(path, mode)
        assert "bad.npy" in str(caught.value)

    leaves_no_mapping(refused)


@pytest.mark.parametrize("descr", ["'|O'", "[('a', '<i4'), ('b', [('c', '|O')])]", "'O'"])
def test_object_dtype(descr: str, tmp_path: Path, unchanged_files: Any) -> None:
    """Objects cannot be opened or saved, and the file is named."""
    (tmp_path / "o.npy").write_bytes(make_npy(GOOD.replace("'<f8'", descr), bytes(99)))
    with unchanged_files():
        with pytest.raises(TypeError, match=r"o\.npy.*Python objects"):
            sparsearray.open(tmp_path / "o.npy")
        with pytest.raises(TypeError, match="Python objects"):
            sparsearray.save(tmp_path / "o.npy", np.array([None, 1]))
        with pytest.raises(TypeError, match="Python objects"):
            sparsearray.save(tmp_path / "new.npy", np.zeros(2, [("a", "O")]))


# Places


@pytest.mark.parametrize("mode", [*MODES, "w+", "save"])
@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("folder", errno.EISDIR),
        ("fifo", errno.EINVAL),
        ("/dev/null", errno.EINVAL),
        ("/dev/zero", errno.EINVAL),
        ("loop", errno.ELOOP),
        ("no/such/folder", errno.ENOENT),
        ("file/inside", errno.ENOTDIR),
        ("x" * 300, errno.ENAMETOOLONG),
    ],
)
def test_no_regular_file(
    name: str, number: int, mode: Any, tmp_path: Path, unchanged_files: Any
) -> None:
    """Folders, pipes, devices and what is not there: an OSError at once, which names the file."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"content")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    path = tmp_path / name
    with unchanged_files(), pytest.raises(OSError) as caught:
        if mode == "save":
            sparsearray.save(path, np.arange(3))
        else:
            sparsearray.open(path, mode, shape=3, dtype="i8")
    assert caught.value.errno == number
    assert caught.value.filename == str(path)
    assert str(path) in str(caught.value)
    assert caught.value.filename2 is None


@pytest.mark.parametrize("path", [3, None, 2.5, b"\0", "a\0", []], ids=repr)
def test_no_path(path: Any) -> None:
    """What is no path is refused."""
    with pytest.raises((TypeError, ValueError)):
        sparsearray.open(path)
    with pytest.raises((TypeError, ValueError)):
        sparsearray.open(path, "w+", shape=3)
    with pytest.raises((TypeError, ValueError)):
        sparsearray.save(path, [1])


# Permissions


def run_as_nobody(run_ok: Callable[..., str], script: str) -> None:
    """Run a script, in a folder that it makes as root, as a user who may do little."""
    prelude = """
        import shutil, stat, tempfile, traceback
        import sparsearray
        folder = tempfile.mkdtemp()
        os.chmod(folder, 0o777)
        np.save(f"{folder}/old.npy", np.arange(3))
        def as_nobody(work):
            child = os.fork()
            if child == 0:
                try:
                    if os.getuid() == 0:
                        os.setuid(65534)
                    work()
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            assert os.listdir(folder) == ["old.npy"], os.listdir(folder)
            assert np.load(f"{folder}/old.npy").tolist() == [0, 1, 2]
        try:
    """
    body = dedent(script).replace("\n", "\n    ")
    run_ok(dedent(prelude) + "    " + body.strip() + "\nfinally:\n    shutil.rmtree(folder)\n")


def test_no_permission(run_ok: Callable[..., str]) -> None:
    """A file or folder that may not be read or written: PermissionError, naming the file."""
    run_as_nobody(
        run_ok,
        """
        old, new = f"{folder}/old.npy", f"{folder}/new.npy"
        def refused(call, path):
            error = failure(call)
            assert isinstance(error, PermissionError) and error.filename == path, repr(error)
        def writing():
            refused(lambda: sparsearray.open(old, "r+"), old)
            refused(lambda: sparsearray.open(old, "w+", shape=3), old)
            refused(lambda: sparsearray.save(old, np.zeros(5)), old)
            assert np.asarray(sparsearray.open(old)).tolist() == [0, 1, 2]
            assert np.asarray(sparsearray.open(old, "c")).tolist() == [0, 1, 2]
        def reading():
            for mode in ("r", "r+", "c"):
                refused(lambda: sparsearray.open(old, mode), old)
            refused(lambda: sparsearray.open(old, "w+", shape=3), old)
        def making():
            refused(lambda: sparsearray.open(new, "w+", shape=3), new)
            refused(lambda: sparsearray.save(new, np.zeros(5)), new)
            refused(lambda: sparsearray.save(old, np.zeros(5)), old)
        os.chmod(old, 0o444)
        as_nobody(writing)
        os.chmod(old, 0o000)
        as_nobody(reading)
        os.chmod(old, 0o666)
        os.chmod(folder, 0o555)
        as_nobody(making)
        os.chmod(folder, 0o444)
        as_nobody(making)
        """,
    )


def test_folder_that_cannot_be_listed(run_ok: Callable[..., str]) -> None:
    """A folder to write in, but not to look into, takes a file."""
    run_as_nobody(
        run_ok,
        """
        def work():
            sparsearray.save(f"{folder}/old.npy", np.arange(3))
            sparsearray.open(f"{folder}/new.npy", "w+", shape=3).close()
            os.unlink(f"{folder}/new.npy")
        os.chmod(f"{folder}/old.npy", 0o666)
        os.chmod(folder, 0o333)
        as_nobody(work)
        """,
    )


def test_write_only_file_survives(run_ok: Callable[..., str]) -> None:
    """A file that may be written but not read is not lost to a mode 'w+' that cannot open it."""
    run_as_nobody(
        run_ok,
        """
        def work():
            error = failure(lambda: sparsearray.open(f"{folder}/old.npy", "w+", shape=3))
            assert isinstance(error, PermissionError), error
        os.chmod(f"{folder}/old.npy", 0o222)
        as_nobody(work)
        """,
    )


def test_names_that_end_like_folders(tmp_path: Path) -> None:
    """A slash at the end is no part of a file's name; the file of that name stays."""
    path = tmp_path / "a.npy"
    np.save(path, [1, 2])
    for name in (f"{path}/", f"{tmp_path}/new.npy/", f"{tmp_path}/"):
        for call in (
            lambda name=name: sparsearray.open(name, "w+", shape=3),
            lambda name=name: sparsearray.save(name, np.zeros(3)),
        ):
            with pytest.raises(IsADirectoryError) as caught:
                call()
            assert caught.value.filename == name
    assert np.load(path).tolist() == [1, 2]
    assert [one.name for one in tmp_path.iterdir()] == ["a.npy"]
