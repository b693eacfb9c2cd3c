#include "extents.h"

#include <algorithm>
#include <cerrno>
#include <new>
#include <shared_mutex>

#include "os.h"
#include "reservation.h"

using namespace sparsearray;

namespace {

// Puts a run behind those there are, to which it may be joined.
void append(std::vector<Range> *runs, Range run) {
    if (!runs->empty() && run.start <= runs->back().stop)
        runs->back().stop = std::max(runs->back().stop, run.stop);
    else
        runs->push_back(run);
}

// Part of a region to look through.
struct Search {
    sa_reservation *r;
    const Region &region;
    Range part;  // in whole pages of the reservation
    int method;
    size_t limit;
};

// Adds memory that was touched. `*end` is how far it looked, which is less than asked for only where
// the limit is reached.
int find_touched(const Search &search, Touched which, std::vector<Range> *found, uint64_t *end) {
    std::vector<Range> runs;
    const char *at = search.r->base + search.part.start;
    bool is_how = search.method == SA_EXTENTS_SCAN || search.method == SA_EXTENTS_PAGEMAP;
    int method = is_how ? search.method : int{SA_EXTENTS_BEST};
    int error = os_find_touched(at, search.part.nbytes(), which, method, search.limit, &runs, end);
    *end += search.part.start;
    for (Range run : runs)
        found->push_back({run.start + search.part.start, run.stop + search.part.start});
    return error;
}

// Adds the data of the file behind a window, in whole pages.
int find_data(const Search &search, std::vector<Range> *found, uint64_t *end) {
    const Region &region = search.region;
    uint64_t page = search.r->page_size, from = region.in_file(search.part.start);
    std::vector<Range> runs;
    Ask how = search.method == SA_EXTENTS_HELD || region.flush_errno ? Ask::Gently : region.file->ask();
    int error = find_file_data(*region.file, how, {from, region.in_file(search.part.stop)}, search.limit, &runs,
                               end);
    // An end in the middle of a page is the end of a run, which may go on.
    *end = std::min(search.part.stop, search.part.start + (*end - from + page - 1) / page * page);
    for (Range run : runs) {
        uint64_t start = (run.start - from) / page * page, stop = run.stop - from;
        stop = (stop + page - 1) / page * page;
        append(found, {search.part.start + start,
                       std::min(search.part.start + stop, search.part.stop)});
    }
    return error;
}

// Adds what is in any of two sorted lists, up to `end`.
void merge(const std::vector<Range> &a, const std::vector<Range> &b, uint64_t end,
           std::vector<Range> *ret) {
    std::vector<Range> both(a.size() + b.size());
    std::merge(a.begin(), a.end(), b.begin(), b.end(), both.begin(),
               [](const Range &x, const Range &y) { return x.start < y.start; });
    for (const Range &run : both)
        if (run.start < end)
            append(ret, {run.start, std::min(run.stop, end)});
}

// Adds what windows keep for want of room: it need not be in memory just now.
int find_kept(const Search &search, std::vector<Range> *found) {
    std::vector<Range> kept;
    for (Damage damage : search.r->damage.copy(search.part.start, search.part.stop))
        if (damage.kept && damage.spare >= 0)
            if (int error = find_kept_pages(search.r, damage, &kept))
                return error;
    std::vector<Range> both;
    merge(*found, kept, search.part.stop, &both);
    found->clear();
    for (Range run : both)
        if (run.stop > search.part.start)
            append(found, {std::max(run.start, search.part.start), run.stop});
    return 0;
}

int find_extents(const Search &search, std::vector<Range> *found, uint64_t *end) {
    const Region &region = search.region;
    *end = search.part.stop;
    if (region.kind == SA_ZERO)
        return 0;
    bool only_own = search.method == SA_EXTENTS_OWN;
    if (only_own && region.shared)
        return 0;
    if (region.shared && !region.file) {
        // Other processes may have written to it, which nobody tells.
        append(found, search.part);
        return 0;
    }
    std::vector<Range> own, data;
    uint64_t own_end = *end, data_end = *end;
    // The kernel forgets what it failed to write, and a file does not know what came after it was lost:
    // there, what is in memory counts.
    bool damaged = region.file && !only_own && search.r->damage.any();
    bool any_present = region.file && (damaged || search.method == SA_EXTENTS_HELD);
    Touched which = any_present                          ? Touched::Present
                    : region.file || !region.readable() ? Touched::OwnCopies
                                                         : Touched::OwnMemory;
    if (!region.shared || any_present)
        if (int error = find_touched(search, which, &own, &own_end))
            return error;
    if (damaged)
        if (int error = find_kept(search, &own))
            return error;
    if (region.file && !only_own)
        if (int error = find_data(search, &data, &data_end))
            return error;
    *end = std::min(own_end, data_end);
    merge(own, data, *end, found);
    return 0;
}

}  // namespace

namespace sparsearray {

int find_stored(sa_reservation *r, Range part, std::vector<Range> *ret) {
    for (uint64_t at = part.start; at < part.stop;) {
        const Region *region = r->table.at_or_after(at);
        if (!region || region->start >= part.stop)
            break;
        Range inside{std::max(at, region->start), std::min(region->stop, part.stop)};
        if (int error = find_extents({r, *region, inside, SA_EXTENTS_BEST, SIZE_MAX}, ret, &at))
            return error;
    }
    return 0;
}

int find_file_data(const File &file, Ask how, Range whole, size_t limit, std::vector<Range> *found, uint64_t *end) {
    // To open it by its name takes longer than all the rest, and finds nothing where there was no hole.
    if (file.is_kept() || file.may_have_holes()) {
        Borrowed fd = file.fd();
        if (fd >= 0)
            return os_find_data(fd, how, whole.start, whole.stop, limit, found, end);
    }
    found->push_back(whole);
    *end = whole.stop;
    return 0;
}

int file_data(int fd, Ask how, Range whole, std::vector<Range> *ret) {
    uint64_t page = os_page_size(), end;
    std::vector<Range> runs;
    if (int error = os_find_data(fd, how, whole.start, whole.stop, SIZE_MAX, &runs, &end))
        return error;
    for (Range run : runs)
        append(ret, {run.start / page * page, std::min(whole.stop, (run.stop + page - 1) / page * page)});
    return 0;
}

std::vector<Range> largest_gaps(const std::vector<Range> &runs, Range whole, uint64_t most) {
    std::vector<Range> gaps;
    uint64_t at = whole.start;
    for (const Range &run : runs) {
        if (run.start > at)
            gaps.push_back({at, run.start});
        at = std::max(at, run.stop);
    }
    if (at < whole.stop)
        gaps.push_back({at, whole.stop});
    if (gaps.size() > most) {
        auto larger = [](const Range &a, const Range &b) { return a.nbytes() > b.nbytes(); };
        std::nth_element(gaps.begin(), gaps.begin() + static_cast<ptrdiff_t>(most), gaps.end(),
                         larger);
        gaps.resize(most);
        std::sort(gaps.begin(), gaps.end(),
                  [](const Range &a, const Range &b) { return a.start < b.start; });
    }
    return gaps;
}

}  // namespace sparsearray

int sa_extents(sa_reservation *r, int64_t offset, int64_t nbytes, int method, int64_t *pairs,
               uint64_t capacity, sa_report *ret) try {
    std::shared_lock<RwLock> lock(r->lock);
    if (int code = check_bounds(r, offset, nbytes, ret))
        return code;
    uint64_t first = static_cast<uint64_t>(offset), last = first + static_cast<uint64_t>(nbytes);
    ret->count = ret->transferred = 0;
    if (nbytes == 0)
        return SA_OK;
    uint64_t page = r->page_size, stop = (last + page - 1) / page * page;
    std::vector<Range> found;
    uint64_t at = first / page * page;
    while (at < stop && found.size() + 2 <= capacity) {
        const Region *region = r->table.at_or_after(at);
        if (!region || region->start >= stop) {
            at = stop;
            break;
        }
        Range part{std::max(at, region->start), std::min(region->stop, stop)};
        // What the file has lost is no hole.
        uint64_t wanted = std::min(part.stop, last) - part.start;
        uint64_t there = region->file ? still_in_file(r, *region, part.start, wanted, false) : wanted;
        if (there < wanted && method != SA_EXTENTS_HELD) {
            region->file->tell_size();
            return access_error(SA_FILE_TRUNCATED, false, std::max(first, part.start + there), 0,
                                region->file_name(), ret);
        }
        size_t limit = (capacity - found.size()) / 2;  // a region is searched in up to two ways
        if (int error = find_extents({r, *region, part, method, limit}, &found, &at))
            return system_error(error, region->file_name(), ret);
    }
    // Neighbours of two regions are one extent.
    std::vector<Range> joined;
    for (const Range &run : found)
        append(&joined, {std::max(run.start, first), std::min(run.stop, last)});
    ret->count = joined.size();
    for (size_t i = 0; i < joined.size(); i++) {
        pairs[2 * i] = static_cast<int64_t>(joined[i].start);
        pairs[2 * i + 1] = static_cast<int64_t>(joined[i].stop);
    }
    ret->transferred = std::min(at, last) - std::min(first, last);
    return at < stop ? SA_MORE : SA_OK;
} catch (const std::bad_alloc &) {
    return system_error(ENOMEM, "", ret);
}
