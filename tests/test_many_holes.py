"""Files of more extents than there are mappings for: read right, with mappings left for others."""

from collections.abc import Callable
from pathlib import Path

import pytest

MANY = """
from pathlib import Path
NORESERVE = 0x4000
limit = int(Path("/proc/sys/vm/max_map_count").read_text())

def mappings():
    return Path("/proc/self/maps").read_bytes().count(b"\\n")

def sparse(count, step=2, shift=0):
    fd = os.memfd_create("sparse")
    os.ftruncate(fd, count * step * P)
    for page in range(0, count * step, step):
        os.pwrite(fd, (page + 1).to_bytes(4, "little"), page * P)
    return fd

def mapped(fd):
    size = os.fstat(fd).st_size
    buffer = SparseBuffer(size)
    buffer.map_file(0, size, f"/proc/self/fd/{fd}", skip_holes=True)
    return buffer

def check(buffer, step=2, every=1):
    pages = np.arange(0, buffer.nbytes // P, every)
    found = buffer.gather(pages * P, "u4")
    assert np.array_equal(found, np.where(pages % step, 0, pages + 1))

def leave(count):
    '''Use up all mappings but some.'''
    libc = ctypes.CDLL(None)
    view = mmap.mmap(-1, 2 * limit * P, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NORESERVE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(view))
    for i in range((limit - mappings() - count) // 2):
        if libc.mprotect(ctypes.c_void_p(start + (2 * i + 1) * P), ctypes.c_size_t(P), 1):
            break
    return view
"""


@pytest.fixture
def run_many(
    run_ok: Callable[..., str],
) -> Callable[[str], str]:
    """Call it with a script that counts mappings."""
    if not Path("/proc/sys/vm/max_map_count").exists():
        pytest.skip("this system does not limit the mappings of a process")
    return lambda script: run_ok(f"exec({MANY!r})\n" + script)


def test_two_hundred_thousand_extents(run_many):
    """A file of 200,000 extents is mapped with less than half of the mappings there are."""
    run_many("""
fd = sparse(200_000)
before = mappings()
buffer = mapped(fd)
taken = mappings() - before
assert len(buffer.regions) > 1000
assert mappings() < limit / 2 + 300, (before, taken, limit)
assert len(buffer.extents()) == 200_000
second = mapped(fd)
third = SparseBuffer(1 << 20)
third.alloc(0, 1 << 20)
for one in (buffer, second):
    check(one, every=23)  # not all: reading what is no hole here takes a page of tmpfs
os.pwrite(fd, b"new!", P)
second.refresh()
buffer.refresh()
assert buffer.read_at(P, 4) == second.read_at(P, 4) == b"new!"
""")


def test_many_buffers_of_many_extents(run_many):
    """However many such files are mapped, there are mappings left for others."""
    run_many("""
fd = sparse(20_000)
buffers = [mapped(fd) for _ in range(25)]
for buffer in buffers[:2] + buffers[-2:]:
    check(buffer, every=23)
assert mappings() < 0.9 * limit, mappings()
""")


def test_many_buffers_of_some_extents(run_many):
    """The same holds of files that have few extents each."""
    run_many("""
fd = sparse(255)
buffers = [mapped(fd) for _ in range(140)]
for buffer in buffers[::10]:
    check(buffer)
assert mappings() < 0.9 * limit, mappings()
""")


def test_refresh_finds_many_extents(run_many):
    """Refresh leaves mappings to others as well, wherever the new data lies."""
    run_many("""
holes, each, length = 140, 250, 520
fd = sparse(holes, length)
buffer = mapped(fd)
expected = np.zeros(holes * length, "u4")
expected[::length] = np.arange(0, holes * length, length) + 1
for start in range(0, holes * length, length):
    for page in range(start + 2, start + 2 + 2 * each, 2):
        os.pwrite(fd, (page + 1).to_bytes(4, "little"), page * P)
        expected[page] = page + 1
assert buffer.refresh() == holes * each * P
found = buffer.gather(np.arange(holes * length) * P, "u4")
assert np.array_equal(found, expected)
assert mappings() < 0.9 * limit, mappings()
""")


@pytest.mark.parametrize("left", [20, 200, 5000])
def test_few_mappings_left(left, run_many):
    """With most mappings used up a file is mapped as far as they go, and its bytes are right."""
    run_many(f"""
fd = sparse(2000, 4)
taken = leave({left})
buffer = mapped(fd)
check(buffer, 4)
fresh = SparseBuffer(P)
fresh.alloc(0, P)
""")


@pytest.mark.parametrize("left", [8, 14, 40])
def test_refresh_with_few_mappings_left(left, run_many):
    """With most mappings used up refresh finds data, or fails and leaves all as it was."""
    run_many(f"""
fd = sparse(20, 40)
buffer = mapped(fd)
window = buffer[:]
os.ftruncate(fd, 700 * P)
seen, wanted = bytearray(680 * P), bytearray(680 * P)
taken = leave({left})
for page in range(5, 600, 7):
    os.pwrite(fd, b"new!", page * P)
try:
    buffer.refresh()
except OSError as error:
    assert error.errno == errno.ENOMEM
else:
    buffer.read_into(0, seen)
    os.preadv(fd, [wanted], 0)
    assert seen == wanted
for page in (701, 719, 721, 790):  # holes from the start, past the end now
    assert window[page * P] == 0
""")
