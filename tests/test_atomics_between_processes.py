"""Atomic slices over shared memory, hammered by two processes at once."""

import mmap
import subprocess
import sys
from textwrap import dedent

import pytest

from sparsearray import SparseBuffer, shared_memory

P = mmap.PAGESIZE

# Each script runs in two processes: `number` is 0 in one and 1 in the other; `buffer` is over the same memory.
START = """
import mmap, sys, time
from sparsearray import SparseBuffer
P = mmap.PAGESIZE
number, fd = int(sys.argv[1]), int(sys.argv[2])
buffer = SparseBuffer(4 * P)
buffer.map_file(0, 4 * P, fd, writable=True)
here = buffer.atomic_slice(3 * P, 2, "u8")
here.store(number, 1)
while not here.load(1 - number):  # so that both are at work at once
    time.sleep(0)
"""


@pytest.fixture
def both():
    """Call it with a script: a buffer over the memory, after both processes ran it to its end."""
    buffer = SparseBuffer(4 * P)

    def run(script: str) -> SparseBuffer:
        with shared_memory(4 * P) as memory:
            buffer.map_file(0, 4 * P, memory, writable=True)
            fd = memory.fileno()
            command = [sys.executable, "-P", "-W", "error", "-c", START + dedent(script)]
            children = [
                subprocess.Popen([*command, str(i), str(fd)], pass_fds=[fd]) for i in range(2)
            ]
            assert [child.wait(60) for child in children] == [0, 0]
        return buffer

    yield run
    buffer.close()


def test_counters(both):
    """No addition is lost: the sum is that of both, modulo what the type holds."""
    buffer = both("""
        small, large = buffer.atomic_slice(9, 1, "u1"), buffer.atomic_slice(64, 1, "i8")
        for _ in range(10_000):
            small.fetch_add(0, 1)
            large.fetch_sub(0, 3)
    """)
    assert buffer.read_plain(9, "u1") == 20_000 % 256
    assert buffer.read_plain(64, "i8") == -60_000


def test_each_number_is_drawn_once(both):
    """What fetch_add returns is a ticket: each is given to one process alone."""
    buffer = both("""
        tickets = buffer.atomic_slice(0, 1, "u4")
        while (mine := tickets.fetch_add(0, 1)) < 6000:
            assert buffer.read_plain(P + mine, "u1") == 0
            buffer.write_plain(P + mine, number + 1, "u1")
    """)
    assert set(buffer.read_at(P, 6000)) == {1, 2}


def test_a_lock(both):
    """With compare_exchange as a lock, plain reads and writes inside it are not mixed."""
    buffer = both("""
        lock = buffer.atomic_slice(0, 1, "u4")
        total = 0
        for i in range(2000):
            while not lock.compare_exchange(0, 0, number + 1)[0]:
                time.sleep(0)
            one, two = buffer.read_plain(P, "i8"), buffer.read_plain(2 * P - 4, "i8")
            assert one == two, (one, two)
            buffer.write_plain(P, one + 1, "i8")
            buffer.write_plain(2 * P - 4, two + 1, "i8")
            assert lock.exchange(0, 0) == number + 1
    """)
    assert buffer.read_plain(P, "i8") == buffer.read_plain(2 * P - 4, "i8") == 4000


def test_flags(both):
    """Each sets bits of its own in one word, and clears them: neither undoes the other's."""
    buffer = both("""
        flags = buffer.atomic_slice(8, 1, "u8")
        mine = 0x5555_5555_5555_5555 << number
        for i in range(4000):
            bit = 1 << (2 * (i % 32) + number)
            assert not flags.fetch_or(0, bit) & bit
            assert flags.fetch_and(0, ~bit & (1 << 64) - 1) & bit
            if i % 3 == 0:
                flags.fetch_xor(0, bit)
                assert flags.fetch_xor(0, bit) & mine == bit
        flags.fetch_or(0, mine)
    """)
    assert buffer.atomic_slice(8, 1, "u8").load(0) == (1 << 64) - 1


def test_a_handshake(both):
    """Two that wait for each other's turn see all that the other wrote before it."""
    buffer = both("""
        turn = buffer.atomic_slice(0, 1, "u4")
        for i in range(1000):
            while turn.load(0) != 2 * i + number:
                time.sleep(0)
            assert buffer.read_plain(P, "u4") == 2 * i + number
            buffer.write_plain(P, 2 * i + number + 1, "u4")
            turn.store(0, 2 * i + number + 1)
    """)
    assert buffer.read_plain(P, "u4") == 2000


def test_a_queue(both):
    """One counter for what was put and one for what was taken make a queue without locks."""
    buffer = both("""
        ends = buffer.atomic_slice(0, 32, "u8")  # put: item 0; taken: item 16, in another cache line
        SLOTS, WIDTH, TOTAL = 16, 96, 3000
        window = buffer.window(P, (SLOTS, WIDTH // 8), "i8")
        done = 0
        while done < TOTAL:
            put, taken = ends.load(0), ends.load(16)
            if number == 0 and put - taken < SLOTS:  # the producer has room
                window[put % SLOTS] = done
                ends.store(0, put + 1)
            elif number == 1 and put > taken:  # the consumer has something to do
                assert (window[taken % SLOTS] == done).all(), done
                ends.store(16, taken + 1)
            else:
                time.sleep(0)
                continue
            done += 1
    """)
    assert buffer.atomic_slice(0, 17, "u8").load(16) == 3000
