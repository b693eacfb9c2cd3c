"""Shared memory goes to other processes: inherited, pickled, through multiprocessing and sockets."""

import copy
import fcntl
import mmap
import multiprocessing
import os
import pickle
import socket
import struct
import tempfile
import threading
import time
from contextlib import closing

import numpy as np
import pytest

import sparsearray
from sparsearray import ClosedError, SharedMemory, SparseBuffer, shared_memory

P = mmap.PAGESIZE
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


def identity(memory: SharedMemory) -> tuple[int, int]:
    """Return what the kernel knows the memory by."""
    facts = os.fstat(memory.fileno())
    return facts.st_dev, facts.st_ino


@pytest.fixture
def pair():
    """Make two Unix sockets that are connected."""
    one, two = socket.socketpair()
    with one, two:
        yield one, two


# ------------------------------------------------------------------------------------- by pickle


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_pickle(protocol, descriptors):
    """Loaded in the same process, as often as one likes, it is the same memory by another descriptor."""
    before = descriptors()
    with shared_memory(3 * P, "travels") as memory:
        data = pickle.dumps(memory, protocol)
        assert len(data) < 300
        for _ in range(2):
            with pickle.loads(data) as again:
                assert (again.name, again.nbytes) == ("travels", 3 * P)
                assert identity(again) == identity(memory)
                assert again.fileno() != memory.fileno()
                assert not os.get_inheritable(again.fileno())
    assert descriptors() == before


def test_plain_pickle_to_another_process(run_ok):
    """Another process loads the reference, writes, and its bytes are here."""
    run_ok("""
        import pickle, subprocess
        with shared_memory(P) as memory:
            script = "import sys, pickle, os; m = pickle.load(sys.stdin.buffer); os.pwrite(m.fileno(), b'there', 7)"
            for _ in range(2):
                subprocess.run([sys.executable, "-P", "-c", script], input=pickle.dumps(memory), check=True)
            assert os.pread(memory.fileno(), 5, 7) == b"there"
    """)


def test_the_sender_is_gone(run_ok, descriptors):
    """A reference to a closed one, or to a process that ended, is an error that says so."""
    with shared_memory(P, "closed early") as memory:
        data = pickle.dumps(memory)
    before = descriptors()
    with pytest.raises(
        FileNotFoundError, match=f"'closed early': process {os.getpid()}.*closed it"
    ):
        pickle.loads(data)
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(10)]  # one of them has its number
    with pytest.raises(FileNotFoundError, match="closed early"):
        pickle.loads(data)
    with shared_memory(P), pytest.raises(FileNotFoundError):  # and so has this one
        pickle.loads(data)
    for fd in taken:
        os.close(fd)
    assert descriptors() == before
    gone = run_ok("""
        import pickle
        memory = shared_memory(P, "left")
        print(pickle.dumps(memory).hex())
    """)
    with pytest.raises(FileNotFoundError, match="left.*is gone"):
        pickle.loads(bytes.fromhex(gone))


def test_a_reference_that_lies(descriptors):
    """What is loaded is looked at: its length, and that it cannot shrink."""
    with shared_memory(2 * P, "short") as memory, tempfile.TemporaryFile() as file:
        load, (pid, fd, device, inode, nbytes, name) = memory.__reduce__()
        before = descriptors()
        with pytest.raises(ValueError, match=r"short.*0x4000 \(16384\).*0x2000 \(8192\)"):
            load(pid, fd, device, inode, 4 * P, name)
        file.truncate(2 * P)
        facts = os.fstat(file.fileno())
        with pytest.raises(ValueError, match="not sealed"):
            load(pid, file.fileno(), facts.st_dev, facts.st_ino, nbytes, name)
        with pytest.raises(FileNotFoundError):
            load(pid, fd, device, inode + 1, nbytes, name)
        assert descriptors() == before


def test_closed_memory_does_not_travel(pair):
    """A closed one cannot be pickled or sent; none can be copied."""
    memory = shared_memory(P)
    for call in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="copied"):
            call(memory)
    memory.close()
    for call in (pickle.dumps, lambda one: one.send(pair[0])):
        with pytest.raises(ClosedError):
            call(memory)


# ------------------------------------------------------------------------------ multiprocessing


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method):
    """As an argument of a process and of a pool, and through a queue and a pipe."""
    context = multiprocessing.get_context(method)
    with shared_memory(P, "of all") as memory, SparseBuffer(P) as buffer:
        buffer.map_file(0, P, memory, writable=True)
        a = sparsearray.open(memory, "r+", dtype="i8")
        child = context.Process(target=a.__setitem__, args=(3, 7))
        child.start()
        child.join(30)
        assert child.exitcode == 0
        assert buffer.read_plain(24, "i8") == 7
        with context.Pool(1) as pool:
            assert pool.apply(np.sum, (a,)) == 7
            back = (
                pool.apply(copy_of, (memory,))
                if method == "fork"
                else pool.apply(memory._duplicate)
            )
            with back:
                assert identity(back) == identity(memory)
        queue = context.SimpleQueue()
        queue.put(memory)
        with queue.get() as again:
            assert identity(again) == identity(memory)
        queue.close()
        a.close()


def copy_of(memory: SharedMemory) -> SharedMemory:
    """Return what came."""
    return memory


def test_every_way_keeps_no_descriptor(descriptors):
    """What was sent through a pipe leaves no descriptor with the sender."""
    with shared_memory(P) as memory:
        one, two = multiprocessing.Pipe()
        with one, two:
            one.send(memory)  # starts multiprocessing's own thread
            two.recv().close()
            before = descriptors()
            for _ in range(20):
                one.send(memory)
                with two.recv() as again:
                    assert identity(again) == identity(memory)
            end = time.monotonic() + 10
            while descriptors() > before and time.monotonic() < end:
                time.sleep(0.01)  # that thread may not have come so far
            assert descriptors() <= before


def test_multiprocessing_is_imported_when_needed(run_ok):
    """Importing the package imports no multiprocessing; the first memory does."""
    run_ok("""
        assert "multiprocessing.reduction" not in sys.modules
        shared_memory(P).close()
        assert "multiprocessing.reduction" in sys.modules
    """)


# ---------------------------------------------------------------------------------------- sockets


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
@pytest.mark.parametrize("name", ["", "ümläut", "a" * 249])
def test_sockets(kind, name, descriptors):
    """Sent over a Unix socket of any kind it is the same memory, with its name."""
    before = descriptors()
    one, two = socket.socketpair(type=kind)
    with one, two, shared_memory(5 * P, name) as memory:
        memory.send(one)
        with SharedMemory.receive(two) as again:
            assert (again.name, again.nbytes) == (name, 5 * P)
            assert identity(again) == identity(memory)
            assert not os.get_inheritable(again.fileno())
    assert descriptors() == before


def test_other_messages_stay_in_the_socket(pair):
    """What is sent before and behind is not read; several come one by one."""
    one, two = pair
    with shared_memory(P, "first") as first, shared_memory(P, "second") as second:
        one.sendall(b"before")
        first.send(one)
        second.send(one)
        one.sendall(b"behind")
        assert two.recv(6) == b"before"
        with SharedMemory.receive(two) as a, SharedMemory.receive(two) as b:
            assert (identity(a), identity(b)) == (identity(first), identity(second))
        assert two.recv(100) == b"behind"


def test_to_another_process_by_socket(run_ok):
    """A process that was started on its own gets it by the path of a socket."""
    run_ok("""
        import socket, subprocess
        server = socket.socket(socket.AF_UNIX)
        server.bind("here")
        server.listen()
        script = '''if 1:
            import socket
            from sparsearray import SharedMemory, open
            sock = socket.socket(socket.AF_UNIX)
            sock.connect("here")
            with SharedMemory.receive(sock) as memory, open(memory, "r+", dtype="f8") as a:
                a[1000] = 2.5
        '''
        child = subprocess.Popen([sys.executable, "-P", "-c", script])
        sock, _ = server.accept()
        with shared_memory(1 << 40) as memory, sock, server:
            memory.send(sock)
            assert child.wait(60) == 0
            assert SparseArray is not None
            import sparsearray
            with sparsearray.open(memory, dtype="f8") as a:
                assert a.sum() == 2.5
    """)


def test_the_other_end_is_closed(pair, descriptors):
    """Nothing, or half a message, before the end: EOFError, and nothing stays."""
    one, two = pair
    with shared_memory(P) as memory:
        before = descriptors()
        message = struct.pack("<8sQH249s", b"SA-mem\0\1", P, 3, b"abc")
        socket.send_fds(one, [message[:100]], [memory.fileno()])
        one.shutdown(socket.SHUT_WR)
        for done in (100, 0):
            with pytest.raises(EOFError, match=f"after {done} bytes"):
                SharedMemory.receive(two)
        assert descriptors() == before


def test_a_message_in_pieces(pair):
    """A message that comes in pieces is waited for."""
    one, two = pair
    message = struct.pack("<8sQH249s", b"SA-mem\0\1", P, 3, b"abc")
    with shared_memory(P, "abc") as memory:
        socket.send_fds(one, [message[:5]], [memory.fileno()])
        later = threading.Timer(0.05, one.sendall, [message[5:]])
        later.start()
        with SharedMemory.receive(two) as again:
            assert identity(again) == identity(memory)
        later.join()


@pytest.mark.parametrize("what", ["other message", "no descriptor", "ordinary file", "too short"])
def test_what_is_received_is_checked(what, pair, descriptors):
    """Other messages, a descriptor that did not come, and one that is no such memory are errors."""
    one, two = pair
    message = struct.pack("<8sQH249s", b"SA-mem\0\1", 4 * P, 3, b"abc")
    with shared_memory(P) as memory, tempfile.TemporaryFile() as file:
        file.truncate(4 * P)
        before = descriptors()
        if what == "other message":
            socket.send_fds(one, [b"hello, this is something else"], [memory.fileno()])
        elif what == "no descriptor":
            one.sendall(message)
        else:
            fd = memory.fileno() if what == "too short" else file.fileno()
            socket.send_fds(one, [message], [fd])
        one.shutdown(socket.SHUT_WR)
        kind = OSError if what == "no descriptor" else ValueError
        match = {
            "other message": "begins with b'hello, t'",
            "no descriptor": "descriptor",
            "ordinary file": "'abc'.*not sealed",
            "too short": "'abc'.*has 0x1000",
        }[what]
        with pytest.raises(kind, match=match):
            SharedMemory.receive(two)
        assert descriptors() == before


def test_no_room_for_a_descriptor(run_ok):
    """A process with as many descriptors as it may have is told so."""
    run_ok("""
        import resource, socket
        one, two = socket.socketpair()
        memory = shared_memory(P)
        memory.send(one)
        taken = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
        while True:
            try:
                taken.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                break
        error = failure(SharedMemory.receive, two)
        assert isinstance(error, OSError) and error.errno == errno.EMFILE, error
    """)


def test_unix_sockets_only():
    """Over the network there is no way: ValueError, and nothing is sent."""
    with closing(socket.socket()) as sock, shared_memory(P) as memory:
        for call in (lambda: memory.send(sock), lambda: SharedMemory.receive(sock)):
            with pytest.raises(ValueError, match="Unix"):
                call()


# ------------------------------------------------------------------------------------- as arrays


@pytest.mark.parametrize("tiles", [None, (64, 64)])
def test_a_terabyte_costs_what_is_written(tiles):
    """An array over shared memory, in either layout; sums skip its holes, and cost nothing."""
    with shared_memory(1 << 40, "cube") as memory:
        a = sparsearray.open(memory, "r+", dtype="f8", shape=(1 << 18, 1 << 19), tiles=tiles)
        a[1000, 2000:2010] = 1
        a[-1, -1] = 5
        b = sparsearray.open(memory, dtype="f8", shape=(1 << 18, 1 << 19), tiles=tiles)
        assert a.sum() == b.sum() == 15
        assert a.max() == np.max(b) == 5
        assert (a.path, a.mode, b.mode) == (None, "r+", "r")
        assert (
            a.nbytes_stored
            == os.fstat(memory.fileno()).st_blocks * 512
            <= (P if tiles is None else 32768) * 2
        )
        a[3, 3] = 7
        assert b[3, 3] == 7  # at once
        with pytest.raises(ValueError, match="read-only: shared memory"):
            b[0, 0] = 1
        a[1000] = 0
        assert b.sum() == 12
        assert "shared memory (r+)" in repr(a)
        assert "shared memory (r)" in b._repr_html_()


def test_copy_on_write_over_shared_memory():
    """Mode 'c' sees what is there, and keeps what it writes to itself."""
    with shared_memory(4 * P) as memory:
        a = sparsearray.open(memory, "r+", dtype="u1")
        a[5] = 1
        c = sparsearray.open(memory, "c", dtype="u1")
        c[6] = 2
        assert (a.sum(), c.sum()) == (1, 3)


def test_the_array_keeps_the_memory(descriptors):
    """The descriptor may be closed at once, and the array leaves none."""
    before = descriptors()
    with shared_memory(P) as memory:
        a = sparsearray.open(memory, "r+", dtype="u1")
    a[0] = 1
    assert a.sum() == 1
    a.close()
    assert descriptors() == before


def test_as_many_items_as_fit():
    """Without a shape it has all the items for which there is room."""
    with shared_memory(P) as memory:
        assert sparsearray.open(memory, dtype="V24").shape == (P // 24,)
        assert sparsearray.open(memory, dtype="f8", shape=(3, 5)).shape == (3, 5)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({}, "'mine'.*dtype="),
        ({"mode": "w+", "dtype": "f8"}, "'mine'.*'w.'"),
        ({"mode": "r+", "dtype": "f8", "reserve": True}, "reserve"),
        ({"mode": "r+", "dtype": "f8", "shape": P}, "'mine' is cut short"),
        ({"mode": "r+", "dtype": "V0"}, "no bytes"),
        ({"mode": "x", "dtype": "f8"}, "mode"),
        ({"dtype": "f8", "tiles": 8}, "shape="),
    ],
)
def test_what_cannot_be_opened(arguments, match, descriptors):
    """An argument that makes no sense for it is a ValueError that names it."""
    with shared_memory(P, "mine") as memory:
        before = descriptors()
        with pytest.raises(ValueError, match=match):
            sparsearray.open(memory, **arguments)
        assert descriptors() == before
    with pytest.raises(ClosedError):
        sparsearray.open(memory, dtype="f8")


def test_its_length_stays():
    """Nobody tells the others: resize and append are refused, and change nothing."""
    with shared_memory(4 * P, "mine") as memory:
        a = sparsearray.open(memory, "r+", dtype="f8", shape=(10, 2), maxshape=(100, 2))
        for call in (
            lambda: a.resize((20, 2)),
            lambda: a.resize((5, 2)),
            lambda: a.append([[1, 2]]),
        ):
            with pytest.raises(ValueError, match="in shared memory cannot change"):
                call()
        assert a.shape == (10, 2)


def test_a_header_in_memory_is_data():
    """Shared memory is raw, whatever it begins with."""
    with shared_memory(P) as memory:
        os.pwrite(memory.fileno(), b"\x93NUMPY", 0)
        assert sparsearray.open(memory, dtype="u1")[:6].tobytes() == b"\x93NUMPY"


def test_an_overlap_is_found():
    """Two arrays over the same memory know of each other, as two over one file do."""
    with shared_memory(4 * P) as memory:
        a = sparsearray.open(memory, "r+", dtype="i8")
        b = sparsearray.open(memory, "r+", dtype="i8")
        a[:10] = np.arange(10)
        a[::-1] = b
        assert a[-11:].tolist() == [0, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
        assert a.sum() == 45


def test_it_may_grow():
    """Memory that somebody made longer is still what it was."""
    with shared_memory(P) as memory:
        os.ftruncate(memory.fileno(), 3 * P)
        with pickle.loads(pickle.dumps(memory)) as again:
            assert again.nbytes == P
            assert fcntl.fcntl(again.fileno(), fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
