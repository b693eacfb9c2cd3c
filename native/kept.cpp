// What is asked of damage later, outside the signal handler: what windows kept for want of room, and whether it
// can move into its file by now.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#include "damage.h"
#include "guard.h"
#include "os.h"
#include "reservation.h"

namespace sparsearray {

namespace {

bool is_zero(const char *bytes, uint64_t n) {
    return n == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, n - 1) == 0);
}

}  // namespace

int find_kept_pages(const sa_reservation *r, const Damage &part, std::vector<Range> *ret) {
    std::vector<Range> data;
    uint64_t end, page = r->page_size;
    uint64_t first = part.spare < 0 ? part.start : part.spare_offset;
    if (part.spare < 0)
        data.push_back({part.start, part.stop});
    else if (int error = os_find_data(part.spare, Ask::BySeeking, first, first + part.nbytes(), SIZE_MAX, &data,
                                      &end))
        return error;
    for (const Range &run : data)
        for (uint64_t at = run.start - first + part.start; at < run.stop - first + part.start; at += page)
            if (!part.of_hole || !is_zero(r->base + at, page)) {
                if (!ret->empty() && ret->back().stop == at)
                    ret->back().stop += page;
                else
                    ret->push_back({at, at + page});
            }
    return 0;
}

namespace {

// Where the file has come to hold something since, zeros of ours leave it alone.
void merge_with_file(int fd, char *bytes, uint64_t n, uint64_t position) {
    std::vector<char> there(n);
    ssize_t got = pread(fd, there.data(), n, static_cast<off_t>(position));
    for (ssize_t i = 0; i < got; i++)
        if (!bytes[i])
            bytes[i] = there[static_cast<size_t>(i)];
}

// What other threads wrote to the spare between `kept` being read and the file being mapped again: no store
// reaches the spare any more. What the disk has no room for goes through the window, which keeps it anew.
int move_late_writes(sa_reservation *r, const Region &region, const Damage &damage, Range range,
                     Range run, const std::vector<char> &kept) {
    uint64_t page = r->page_size, end, size = region.file->size_now();
    uint64_t first = damage.spare_offset + (range.start - damage.start);
    std::vector<Range> data;
    std::vector<char> now(page), before(page);
    if (int error = os_find_data(damage.spare, Ask::BySeeking, first, first + range.nbytes(), SIZE_MAX,
                                 &data, &end))
        return error;
    for (const Range &part : data)
        for (uint64_t place = part.start / page * page; place < part.stop; place += page) {
            uint64_t at = range.start + (place - first), position = region.in_file(at);
            bool in_run = at >= run.start && at < run.stop;
            std::fill(before.begin(), before.end(), 0);
            if (in_run)
                std::copy_n(kept.begin() + static_cast<ptrdiff_t>(at - run.start), page, before.begin());
            if (pread(damage.spare, now.data(), page, static_cast<off_t>(place)) < 0)
                return errno;
            for (uint64_t i = 0; i < page && position + i < size; i++) {
                if (now[i] == before[i])
                    continue;
                if (!write_all(region.file->fd(), &now[i], 1, position + i))
                    continue;
                if (!region.writable())
                    return ENOSPC;
                *reinterpret_cast<volatile char *>(r->base + at + i) = now[i];
            }
        }
    return 0;
}

// Moves `run`, which is kept, into the file, and maps that again from `from` to the end of it.
int restore_run(sa_reservation *r, const Region &region, const Damage &damage, uint64_t from,
                Range run) {
    Borrowed fd = region.file->fd();
    uint64_t position = region.in_file(run.start), n = run.nbytes();
    std::vector<char> kept(r->base + run.start, r->base + run.stop), bytes(kept);
    if (n) {
        uint64_t size = region.file->size_now();
        if (size == kUnknownSize || size <= position)
            return EIO;  // it has just been cut
        uint64_t good = std::min(n, size - position);
        if (damage.of_hole)
            merge_with_file(fd, bytes.data(), good, position);
        if (int error = write_all(fd, bytes.data(), good, position))
            return error;
    }
    {
        // In one step for the handler, too: a page that has no room is new damage from then on.
        FaultHeld held(fault_lock);
        if (int error = os_place(r->base + from, run.stop - from, region.prot, MAP_SHARED, fd,
                                 static_cast<int64_t>(region.in_file(from))))
            return error;
        r->damage.cut(from, run.stop, false);
    }
    if (damage.spare < 0)
        return 0;
    guard_rearm();
    int error = move_late_writes(r, region, damage, {from, run.stop}, run, kept);
    // A forked process that shows the same must not find it there, and write it over what came later.
    os_punch_file(damage.spare, static_cast<int64_t>(damage.spare_offset + (from - damage.start)),
                  run.stop - from);
    return error;
}

// One piece of kept damage, within one region.
void restore_part(sa_reservation *r, const Region &region, const Damage &part, bool empty_only) {
    constexpr uint64_t kPiece = 1 << 20;
    uint64_t at = part.start;
    std::vector<Range> runs;
    if (find_kept_pages(r, part, &runs) || (empty_only && !runs.empty()))
        return;
    for (const Range &run : runs)
        for (uint64_t next = run.start; next < run.stop;) {
            Range piece{next, std::min(run.stop, next + kPiece)};
            if (restore_run(r, region, part, at, piece))
                return;
            at = next = piece.stop;
        }
    if (at < part.stop)
        restore_run(r, region, part, at, {part.stop, part.stop});
}

// How far a region's file reaches, in whole pages of the reservation.
uint64_t end_of_file(const sa_reservation *r, const Region &region) {
    uint64_t size = region.file_size == UINT64_MAX ? kUnknownSize : region.file->size_now();
    uint64_t first = region.in_file(region.start), page = r->page_size;
    if (size == kUnknownSize || size > kUnknownSize - page)
        return region.stop;
    uint64_t end = (size + page - 1) / page * page;
    return std::min(region.stop, region.start + (end > first ? end - first : 0));
}

}  // namespace

void restore_kept(sa_reservation *r, Range range, bool empty_only) {
    for (const Damage &damage : r->damage.copy(range.start, range.stop)) {
        // Neighbours of two regions may be one.
        for (uint64_t start = damage.start; damage.kept && start < damage.stop;) {
            Region *region = r->table.find(start);
            if (!region || !region->file)
                break;
            uint64_t stop = std::min(damage.stop, region->stop);
            uint64_t end = std::min(stop, std::max(start, end_of_file(r, *region)));
            if (start < end)
                restore_part(r, *region, until(from(damage, start), end), empty_only);
            if (end < stop)
                r->damage.lose(end, stop);
            start = stop;
        }
    }
}

// Whether the files still have nothing in a range of regions.
static bool is_hole(sa_reservation *r, Range range) {
    for (uint64_t at = range.start; at < range.stop;) {
        Region *region = r->table.find(at);
        if (!region || !region->file)
            return false;
        uint64_t stop = std::min(range.stop, region->stop), position = region->in_file(at);
        if (os_hole_after(region->file->fd(), position, position + (stop - at)) < stop - at)
            return false;
        at = stop;
    }
    return true;
}

bool find_damage(sa_reservation *r, Range range, bool write, Damage *ret) {
    for (uint64_t at = range.start; at < range.stop; at = ret->stop) {
        {
            FaultHeld held(fault_lock);
            Damage *damage = r->damage.at_or_after(at);
            if (!damage || damage->start >= range.stop)
                return false;
            *ret = *damage;
        }
        Damage part = from(until(*ret, std::min(ret->stop, range.stop)),
                           std::max(ret->start, range.start));
        if (ret->kept && !write) {
            // Where nothing is kept, the zeros are those of the file.
            std::vector<Range> runs;
            uint64_t page = r->page_size;
            part = from(*ret, std::max(ret->start, part.start / page * page));
            part.stop = std::min(ret->stop, (range.stop + page - 1) / page * page);
            if (find_kept_pages(r, part, &runs) == 0 && runs.empty() && is_hole(r, {part.start, part.stop}))
                continue;
            if (!runs.empty())
                part.start = std::max(range.start, runs[0].start);
        }
        r->damage.tell(ret->start, ret->stop);
        uint64_t stop = ret->stop;
        *ret = from(*ret, std::max(part.start, ret->start));
        ret->stop = stop;
        return true;
    }
    return false;
}

}  // namespace sparsearray
