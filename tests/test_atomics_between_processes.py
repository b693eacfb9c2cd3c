"""Atomic slices over shared memory, hammered by two processes at once."""

import mmap

import pytest

P = mmap.PAGESIZE

# Each script runs in two processes: `number` is 0 in one and 1 in the other, and `buffer` is over the same memory.
START = """
    import time
    number, fd = int(sys.argv[1]), int(sys.argv[2])
    buffer = SparseBuffer(4 * P)
    buffer.map_file(0, 4 * P, fd, writable=True)
    here = buffer.atomic_slice(3 * P, 2, "u8")
    here.store(number, 1)
    while not here.load(1 - number):  # so that both are at work at once
        time.sleep(0)
"""


@pytest.fixture
def both(run_ok, tmp_path):
    """Call it with a script for both processes, and one for the parent, when they have ended."""

    def run(script: str, check: str) -> None:
        lines = [line[4:] for line in START.splitlines()]
        inner = "\n".join(lines + [line[8:] for line in script.splitlines()])
        (tmp_path / "worker.py").write_text("import sys, mmap\nP = mmap.PAGESIZE\n" + inner)
        outer = """
        import subprocess
        with shared_memory(4 * P) as memory, SparseBuffer(4 * P) as buffer:
            buffer.map_file(0, 4 * P, memory, writable=True)
            fd = memory.fileno()
            command = [sys.executable, "-P", "-W", "error", "-c"]
            source = "from sparsearray import SparseBuffer\\n" + open("worker.py").read()
            children = [
                subprocess.Popen([*command, source, str(i), str(fd)], pass_fds=[fd]) for i in range(2)
            ]
            assert [child.wait(60) for child in children] == [0, 0]
            CHECK
        """.replace("CHECK", check)
        run_ok(outer)

    return run


@pytest.mark.parametrize("dtype", ["u1", "i4", "u8"])
def test_counters(both, dtype):
    """No addition is lost: the sum is that of both, modulo what the type holds."""
    both(
        f"""
        counter = buffer.atomic_slice(64, 1, "{dtype}")
        for _ in range(30_000):
            counter.fetch_add(0, 1)
        """,
        f'assert buffer.atomic_slice(64, 1, "{dtype}").load(0) == 60_000 % (1 << 8 * np.dtype("{dtype}").itemsize)',
    )


def test_each_number_is_drawn_once(both):
    """What fetch_add returns is a ticket: each is given to one process alone."""
    both(
        """
        tickets = buffer.atomic_slice(0, 1, "u4")
        while (mine := tickets.fetch_add(0, 1)) < 8000:
            assert buffer.read_plain(4096 + mine, "u1") == 0
            buffer.write_plain(4096 + mine, number + 1, "u1")
        """,
        "drawn = buffer.window(4096, 8000)[:8000]; assert drawn.all(); assert len(set(drawn.tolist())) == 2",
    )


def test_a_lock(both):
    """With compare_exchange as a lock, plain reads and writes inside it are not mixed."""
    both(
        """
        lock = buffer.atomic_slice(0, 1, "u4")
        total = 0
        for i in range(4000):
            while not lock.compare_exchange(0, 0, number + 1)[0]:
                time.sleep(0)
            one, two = buffer.read_plain(P, "i8"), buffer.read_plain(2 * P - 4, "i8")
            assert one == two, (one, two)
            buffer.write_plain(P, one + 1, "i8")
            buffer.write_plain(2 * P - 4, two + 1, "i8")
            assert lock.exchange(0, 0) == number + 1
        """,
        'assert buffer.read_plain(P, "i8") == buffer.read_plain(2 * P - 4, "i8") == 8000',
    )


def test_flags(both):
    """Each sets bits of its own in one word, and clears them: neither undoes the other's."""
    both(
        """
        flags = buffer.atomic_slice(8, 1, "u8")
        mine = 0x5555_5555_5555_5555 << number
        for i in range(15_000):
            bit = 1 << (2 * (i % 32) + number)
            assert not flags.fetch_or(0, bit) & bit
            assert flags.fetch_and(0, ~bit & (1 << 64) - 1) & bit
            if i % 3 == 0:
                flags.fetch_xor(0, bit)
                assert flags.fetch_xor(0, bit) & mine == bit
        flags.fetch_or(0, mine)
        """,
        'assert buffer.atomic_slice(8, 1, "u8").load(0) == (1 << 64) - 1',
    )


def test_a_handshake(both):
    """Two that wait for each other's turn see all that the other wrote before it."""
    both(
        """
        turn = buffer.atomic_slice(0, 1, "u4")
        for i in range(3000):
            while turn.load(0) != 2 * i + number:
                time.sleep(0)
            assert buffer.read_plain(P, "u4") == 2 * i + number
            buffer.write_plain(P, 2 * i + number + 1, "u4")
            turn.store(0, 2 * i + number + 1)
        """,
        'assert buffer.read_plain(P, "u4") == 6000',
    )


def test_a_queue(both):
    """One counter for what was put and one for what was taken make a queue without locks."""
    both(
        """
        ends = buffer.atomic_slice(0, 32, "u8")  # put: item 0; taken: item 16, in another cache line
        SLOTS, WIDTH, TOTAL = 16, 96, 6000
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
        """,
        'assert buffer.atomic_slice(0, 17, "u8").load(16) == 6000',
    )
