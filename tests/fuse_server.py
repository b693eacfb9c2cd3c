"""
A file system whose files misbehave, for tests: ``python fuse_server.py FOLDER``.

Speaks the kernel's FUSE protocol over /dev/fuse, see fuse(4) and linux/fuse.h; needs root. Prints a
line when FOLDER is ready, and ends when its standard input does. The files, of 8 pages each:

direct
    Cannot be mapped shared (``FOPEN_DIRECT_IO``).
broken
    Reading the page at ``BAD_PAGE`` is an I/O error.
slow
    Reading the page at ``BAD_PAGE`` prints "waiting" and waits for a line of input.
full
    Takes no writes (``ENOSPC``), which only a flush finds out.
"""

import ctypes
import errno
import mmap
import os
import stat
import struct
import sys

PAGE = mmap.PAGESIZE
SIZE = 8 * PAGE
BAD_PAGE = 5
NAMES = ["direct", "broken", "slow", "full"]

LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE = 1, 2, 3, 4, 14, 15, 16
RELEASE, FSYNC, FLUSH, INIT, OPENDIR, RELEASEDIR = 18, 20, 25, 26, 27, 29
INTERRUPT, DESTROY, BATCH_FORGET = 36, 38, 42
SILENT = {FORGET, INTERRUPT, BATCH_FORGET}
FOPEN_DIRECT_IO = 1
FATTR_SIZE = 1 << 3


def content(offset: int, nbytes: int) -> bytes:
    """Return what all files hold: each page is filled with its number plus one."""
    return b"".join(bytes([i // PAGE + 1]) for i in range(offset, min(offset + nbytes, SIZE)))


def attributes(node: int) -> bytes:
    """Pack a fuse_attr: node 1 is the folder, the files follow."""
    folder = node == 1
    mode = stat.S_IFDIR | 0o755 if folder else stat.S_IFREG | 0o666
    size = 0 if folder else SIZE
    blocks = -(-size // 512)
    return struct.pack("<6Q10I", node, size, blocks, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, PAGE, 0)


def answer(code: int, node: int, body: bytes) -> bytes | int:  # noqa: PLR0911 -- a request each
    """Answer a request: with data, or with an errno."""
    name = NAMES[node - 2] if node > 1 else ""
    if code == INIT:
        _, minor, readahead, _ = struct.unpack_from("<4I", body)
        return struct.pack("<4I2H2I28x", 7, min(minor, 31), readahead, 0, 8, 6, 1 << 17, 1)
    if code == LOOKUP:
        wanted = body.rstrip(b"\0").decode()
        if wanted not in NAMES:
            return errno.ENOENT
        found = NAMES.index(wanted) + 2
        return struct.pack("<4Q2I", found, 0, 3600, 3600, 0, 0) + attributes(found)
    if code in {GETATTR, SETATTR}:
        return struct.pack("<Q2I", 3600, 0, 0) + attributes(node)
    if code in {OPEN, OPENDIR}:
        return struct.pack("<Q2I", node, FOPEN_DIRECT_IO if name == "direct" else 0, 0)
    if code == READ:
        return read(name, *struct.unpack_from("<8xQI", body))
    if code == WRITE:
        return errno.ENOSPC if name == "full" else struct.pack("<2I", len(body) - 40, 0)
    return b"" if code in {RELEASE, FSYNC, FLUSH, RELEASEDIR, DESTROY} else errno.ENOSYS


def read(name: str, offset: int, nbytes: int) -> bytes | int:
    """Answer a read."""
    bad = offset <= BAD_PAGE * PAGE < offset + nbytes
    if bad and name == "broken":
        return errno.EIO
    if bad and name == "slow":
        sys.stdout.write("waiting\n")
        sys.stdout.flush()
        sys.stdin.readline()
    return content(offset, nbytes)


def mount(fd: int, folder: str) -> None:
    """Mount the file system that is served through `fd`."""
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={fd},rootmode=40000,user_id=0,group_id=0,max_read=4096".encode()
    if libc.mount(b"misbehaving", os.fsencode(folder), b"fuse", 0, options) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), folder)


def serve(folder: str) -> None:
    """Mount, and answer until the file system is unmounted."""
    fd = os.open("/dev/fuse", os.O_RDWR)
    mount(fd, folder)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        try:
            request = os.read(fd, 1 << 18)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return
            raise
        length, code, unique, node = struct.unpack_from("<2I2Q", request)
        if code in SILENT:
            continue
        found = answer(code, node, request[40:length])
        failed = isinstance(found, int)
        data = b"" if failed else found
        os.write(fd, struct.pack("<IiQ", 16 + len(data), -found if failed else 0, unique) + data)


if __name__ == "__main__":
    serve(sys.argv[1])
