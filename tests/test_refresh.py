"""`refresh`: data found in holes that were skipped, and nothing else changed."""

import mmap
import os
import random
from itertools import groupby

import pytest

from sparsearray import AccessError, SparseBuffer

from .sparse_files import PAGES, by_page, data_pages

P = mmap.PAGESIZE


@pytest.mark.parametrize("live", [False, True])
def test_refresh_finds_data(live, storage):
    """Data that somebody wrote into holes is seen after refresh, through live windows too."""
    with SparseBuffer(PAGES * P) as buffer:
        buffer.map_file(0, PAGES * P, storage.path, skip_holes=True)
        window = buffer[:] if live else None
        assert buffer.refresh() == 0
        rng = random.Random(3)
        for _ in range(4):
            before = data_pages(storage.fd)
            for page in rng.sample(range(PAGES), 7):
                os.pwrite(storage.fd, b"new", page * P + rng.randrange(P - 3))
            after = data_pages(storage.fd)
            assert buffer.refresh() == len(after - before) * P
            assert buffer.refresh() == 0
            assert buffer.read_at(0, PAGES * P) == storage.content()
            assert by_page(buffer) == {
                page: "file" if page in after else "zero" for page in range(PAGES)
            }
            if window is not None:
                assert window.tobytes() == storage.content()
        assert buffer.extents().tolist() == [
            [min(pages) * P, max(pages) * P + P]
            for is_data, group in groupby(range(PAGES), lambda page: page in after)
            if is_data
            for pages in [list(group)]
        ]
        del window


def test_refresh_of_a_part(storage):
    """Only the pages of the range are looked at."""
    with SparseBuffer(PAGES * P) as buffer:
        buffer.map_file(0, PAGES * P, storage.path, skip_holes=True)
        for page in (12, 13, 20, 40):
            os.pwrite(storage.fd, b"new", page * P)
        assert buffer.refresh(14 * P, 6 * P) == 0
        assert by_page(buffer)[20] == "zero"
        assert buffer.refresh(13 * P + 5, 1) == P
        assert [by_page(buffer)[page] for page in (12, 13, 20, 40)] == [
            "zero",
            "file",
            "zero",
            "zero",
        ]
        assert buffer.refresh(20 * P + 5) == 2 * P
        assert buffer.refresh(0, 13 * P) == P
        assert buffer.read_at(0, PAGES * P) == storage.content()


@pytest.mark.parametrize("offset", [0, 1, 20 * P, 20 * P + 5, 21 * P - 1, PAGES * P])
def test_refresh_of_no_bytes(offset, storage):
    """A range of no bytes finds nothing and changes nothing."""
    with SparseBuffer(PAGES * P) as buffer:
        buffer.map_file(0, PAGES * P, storage.path, skip_holes=True)
        before = buffer.regions
        os.pwrite(storage.fd, b"new", 20 * P)
        assert buffer.refresh(offset, 0) == 0
        assert buffer.regions == before


def test_refresh_finds_what_another_process_wrote(storage, run_ok):
    """Another process may have written it."""
    if "/proc" in str(storage.path):
        pytest.skip("a memfd has no path that others can open")
    with SparseBuffer(PAGES * P) as buffer:
        buffer.map_file(0, PAGES * P, storage.path, skip_holes=True)
        run_ok(f"""
            other = SparseBuffer({PAGES} * P)
            other.map_file(0, {PAGES} * P, {str(storage.path)!r}, writable=True)
            other.write_at(20 * P, b"from afar")
        """)
        assert buffer.refresh() == P
        assert buffer.read_at(20 * P, 9) == b"from afar"


def test_refresh_finds_what_was_written_through_another_window(storage):
    """So may a shared window of the same buffer; a file that became writable makes no difference."""
    with SparseBuffer(2 * PAGES * P) as buffer:
        buffer.map_file(0, PAGES * P, storage.path, skip_holes=True)
        buffer.map_file(PAGES * P, PAGES * P, storage.path, writable=True)
        buffer.write_at((PAGES + 20) * P, b"new")
        buffer.write_at((PAGES + 5) * P, b"new")
        assert buffer.refresh() == 2 * P
        assert buffer.read_at(0, PAGES * P) == storage.content()
        with pytest.raises(AccessError):
            buffer.write_at(20 * P, b"x")


def test_refresh_leaves_the_rest_alone(storage):
    """Holes that were replaced, other memory and copy-on-write windows stay as they are."""
    with SparseBuffer(2 * PAGES * P) as buffer:
        buffer.map_file(0, PAGES * P, storage.path, skip_holes=True)
        buffer.map_file(PAGES * P, PAGES * P, storage.path, copy_on_write=True, skip_holes=True)
        buffer.map_zero(12 * P, P)
        buffer.alloc(14 * P, P)
        buffer.unmap(16 * P, P)
        buffer.write_at((PAGES + 20) * P, b"own")
        for page in (12, 14, 16, 20, 21):
            os.pwrite(storage.fd, b"new", page * P)
        expected = by_page(buffer) | {20: "file", 21: "file"}
        assert buffer.refresh() == 2 * P
        assert by_page(buffer) == expected
        assert buffer.read_at(12 * P, 3) == bytes(3)
        assert buffer.read_at(14 * P, 3) == bytes(3)
        assert buffer.read_at((PAGES + 20) * P, 3) == b"own"
        assert buffer.read_at((PAGES + 21) * P, 3) == bytes(3)


def test_refresh_with_file_offset(storage):
    """Data is found at its place, wherever the window begins, also after it was split."""
    with SparseBuffer(PAGES * P) as buffer:
        buffer.map_file(3 * P, 40 * P, storage.path, 10 * P, skip_holes=True)
        buffer.unmap(9 * P, P)
        for page in (12, 15, 16, 17, 18, 48, 49, 50):
            os.pwrite(storage.fd, b"%d" % page, page * P)
        assert buffer.refresh() == 6 * P
        content = storage.content()
        assert buffer.read_at(3 * P, 6 * P) == content[10 * P : 16 * P]
        assert buffer.read_at(10 * P, 33 * P) == content[17 * P : 50 * P]


@pytest.mark.parametrize("size", [0, 5, 10 * P, 20 * P + 7, 25 * P])
def test_refresh_of_a_shorter_file(size, storage):
    """A file that was cut has no data past its end; what it has before is found."""
    with SparseBuffer(PAGES * P) as buffer:
        buffer.map_file(0, PAGES * P, storage.path, skip_holes=True)
        os.ftruncate(storage.fd, size)
        for page in (5, 20):
            if size > page * P + 3:
                os.pwrite(storage.fd, b"new", page * P)
        written = {page for page in (5, 20) if size > page * P + 3}
        assert buffer.refresh() == len(written) * P
        for page in written:
            assert buffer.read_at(page * P, 4) == b"new\0"
        for page in range(33, 62):  # a hole from the start
            assert buffer.read_at(page * P, P) == bytes(P)


def test_truncated_after_it_was_mapped(storage):
    """Data that the file lost is an error; holes that are skipped stay zeros."""
    with SparseBuffer(PAGES * P) as buffer:
        buffer.map_file(0, PAGES * P, storage.path, skip_holes=True)
        os.ftruncate(storage.fd, 31 * P)
        assert buffer.read_at(0, 31 * P) == storage.content()
        with pytest.raises(AccessError) as caught:
            buffer.read_at(29 * P, 10 * P)
        assert (caught.value.reason, caught.value.offset) == ("file-truncated", 31 * P)
        assert caught.value.transferred == 2 * P
        with pytest.raises(AccessError, match="truncated|shorter|end"):
            buffer.gather([62 * P], "u8")
        assert buffer.read_at(33 * P, 29 * P) == bytes(29 * P)


def test_refreshed_data_is_guarded(storage):
    """Data found by refresh and lost again is an error, not a crash."""
    with SparseBuffer(PAGES * P) as buffer:
        buffer.map_file(0, PAGES * P, storage.path, skip_holes=True)
        os.pwrite(storage.fd, b"new", 40 * P)
        assert buffer.refresh() == P
        os.ftruncate(storage.fd, 10 * P)
        with pytest.raises(AccessError) as caught:
            buffer.read_at(38 * P, 4 * P)
        assert (caught.value.reason, caught.value.offset) == ("file-truncated", 40 * P)


def test_window_over_the_end_of_a_cut_file_lives_through_refresh(run_ok):
    """Refresh never takes the zeros away that a live window shows past the end of a cut file."""
    run_ok("""
        count, cut = 2048, 1536
        for _ in range(60):
            fd = os.memfd_create("cut")
            os.ftruncate(fd, count * P)
            buffer = SparseBuffer(count * P)
            buffer.map_file(0, count * P, f"/proc/self/fd/{fd}", skip_holes=True)
            window = buffer.window(cut * P, (count - cut) * P)
            os.ftruncate(fd, cut * P)
            for page in range(1, 401, 2):
                os.pwrite(fd, b"x", page * P)
            stop = threading.Event()

            def read():
                while not stop.is_set():
                    assert not window[:: P // 2].any()

            reader = threading.Thread(target=read)
            reader.start()
            found = buffer.refresh()
            stop.set()
            reader.join()
            assert found == 200 * P
            assert not window.any()
            os.close(fd)
    """)
