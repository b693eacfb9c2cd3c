// Files copied and trimmed so that pages of zeros in them become holes.
//
// How it works: runs of data are read through a buffer of the caller's, small enough to stay in the cache of the
// processor, and what is not all zeros is written from there, as long as neighbouring pages are not; or what is, is
// punched out. Holes are never read. Nothing else may seek in the files meanwhile.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <unistd.h>
#include <vector>

#include "os.h"
#include "reservation.h"

using namespace sparsearray;

namespace {

constexpr uint64_t kPage = 4096;                 // what holes are made of; also where memory has larger pages
constexpr uint64_t kPiece = uint64_t{16} << 20;  // bytes of one call, between which Python can take a Ctrl-C
alignas(64) const char kZeros[kPage] = {};

// A run of whole pages of a file (but at its ends) that are all zeros, or all not.
struct Pages {
    uint64_t nbytes;
    bool zero;
};

// Where the page of a file ends, or the run of bytes if that is earlier.
uint64_t page_end(uint64_t at, uint64_t stop) { return std::min(stop, at / kPage * kPage + kPage); }

Pages pages_from(const char *bytes, uint64_t at, uint64_t stop) {
    uint64_t start = at;
    bool zero = false;
    while (at < stop) {
        uint64_t end = page_end(at, stop);
        bool here = memcmp(bytes + (at - start), kZeros, end - at) == 0;
        if (at == start)
            zero = here;
        else if (here != zero)
            break;
        at = end;
    }
    return {at - start, zero};
}

// -1 and errno, or how much it was; less only at the end of the file.
ssize_t read_all(int fd, char *to, uint64_t n, uint64_t position) {
    uint64_t done = 0;
    while (done < n) {
        ssize_t got = pread(fd, to + done, n - done, static_cast<off_t>(position + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        done += static_cast<uint64_t>(got);
    }
    return static_cast<ssize_t>(done);
}

// Calls `look(bytes, start, stop)` for the data of a file, a buffer of it at a time, until a piece is done.
template <class Look>
int go_through(int fd, uint64_t start, uint64_t stop, char *scratch, uint64_t capacity, const Look &look, sa_report *ret) {
    if (start > stop || stop > INT64_MAX || capacity < kPage)
        return SA_MISALIGNED;
    Ask how = os_is_served(fd) ? Ask::BySeeking : Ask::AtOnce;
    std::vector<Range> runs;
    uint64_t at = start, done = 0, end;
    ret->write = 0;
    ret->stop = stop;
    while (at < stop && done < kPiece) {
        runs.clear();
        if (int error = os_find_data(fd, how, at, stop, 1, &runs, &end))
            return system_error(error, "", ret);
        if (runs.empty()) {
            at = stop;
            break;
        }
        for (at = runs[0].start; at < runs[0].stop && done < kPiece;) {
            uint64_t n = std::min(runs[0].stop, at / capacity * capacity + capacity) - at;
            ssize_t got = read_all(fd, scratch, n, at);
            if (got < 0)
                return system_error(errno, "", ret);
            if (got == 0) {
                ret->stop = at;
                at = stop;
                break;
            }
            n = static_cast<uint64_t>(got);
            if (int code = look(scratch, at, at + n))
                return code;
            at += n;
            done += n;
        }
    }
    ret->start = at;
    ret->transferred = done;
    return at < stop ? SA_MORE : SA_OK;
}

}  // namespace

int sa_copy_file(int from, int to, uint64_t start, uint64_t stop, int write_soon, char *scratch, uint64_t capacity,
                 sa_report *ret) try {
    auto copy = [&](const char *bytes, uint64_t at, uint64_t end) {
        while (at < end) {
            Pages pages = pages_from(bytes, at, end);
            if (!pages.zero)
                if (int error = write_all(to, bytes, pages.nbytes, at)) {
                    ret->write = 1;
                    return system_error(error, "", ret);
                }
            bytes += pages.nbytes;
            at += pages.nbytes;
        }
        return static_cast<int>(SA_OK);
    };
    int code = go_through(from, start, stop, scratch, capacity, copy, ret);
    if (code >= 0 && write_soon)
        os_begin_writing(to, start, ret->start - start);
    return code;
} catch (const std::bad_alloc &) {
    return system_error(ENOMEM, "", ret);
}

int sa_trim_file(int fd, uint64_t start, uint64_t stop, int look_only, char *scratch, uint64_t capacity,
                 sa_report *ret) try {
    uint64_t found = 0;
    Range hole{0, 0};  // still to be made: neighbours are joined
    auto punch = [&] {
        found += hole.nbytes();
        int error = look_only || !hole.nbytes()
                        ? 0
                        : os_punch_file(fd, static_cast<int64_t>(hole.start), hole.nbytes());
        ret->write = error != 0;
        return error ? system_error(error, "", ret) : static_cast<int>(SA_OK);
    };
    auto note = [&](const char *bytes, uint64_t at, uint64_t end) {
        while (at < end) {
            Pages pages = pages_from(bytes, at, end);
            // Whole pages; the last one is, too, where the file ends in it.
            uint64_t first = (at + kPage - 1) / kPage * kPage, last = at + pages.nbytes;
            last = last == stop ? (last + kPage - 1) / kPage * kPage : last / kPage * kPage;
            if (pages.zero && first < last) {
                if (hole.stop != first) {
                    if (int code = punch())
                        return code;
                    hole.start = first;
                }
                hole.stop = last;
            }
            bytes += pages.nbytes;
            at += pages.nbytes;
        }
        return static_cast<int>(SA_OK);
    };
    int code = go_through(fd, start, stop, scratch, capacity, note, ret);
    if (code >= 0)
        if (int failed = punch())
            code = failed;
    ret->count = found;
    return code;
} catch (const std::bad_alloc &) {
    return system_error(ENOMEM, "", ret);
}
