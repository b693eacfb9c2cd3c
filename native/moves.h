// What every guarded access stands on: the check against the region table, and the copy of bytes from or to
// one region, which recovers where the file behind it is lost.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <shared_mutex>

#include "copy.h"
#include "guard.h"
#include "os.h"
#include "reservation.h"

namespace sparsearray {

using SharedLock = std::shared_lock<RwLock>;

inline int check_range(sa_reservation *r, int64_t offset, int64_t nbytes, bool write, Region **first,
                sa_report *ret) {
    if (int code = check_bounds(r, offset, nbytes, ret))
        return code;
    uint64_t at = static_cast<uint64_t>(offset), stop = at + static_cast<uint64_t>(nbytes);
    *first = at < stop ? r->table.find(at) : nullptr;
    for (Region *region = *first; at < stop; region = r->table.find(at)) {
        if (!region)
            return access_error(SA_UNMAPPED, write, at, 0, "", ret);
        if (write ? !region->writable() : !region->readable())
            return access_error(write ? SA_READ_ONLY : SA_UNMAPPED, write, at, 0, region->file_name(),
                                ret);
        at = region->stop;
    }
    return SA_OK;
}

struct CopyOut {
    char *to;
    static constexpr bool write = false;
    void operator()(char *ours, uint64_t done, uint64_t n) const { copy_bytes(to + done, ours, n); }
    int64_t quietly(char *ours, uint64_t done, uint64_t n) const {
        return os_copy_quietly(to + done, ours, n, true);
    }
};

struct CopyIn {
    const char *from;
    static constexpr bool write = true;
    void operator()(char *ours, uint64_t done, uint64_t n) const {
        copy_bytes(ours, from + done, n);
    }
    int64_t quietly(char *ours, uint64_t done, uint64_t n) const {
        return os_copy_quietly(ours, from + done, n, false);
    }
};

struct Fill {
    int value;
    static constexpr bool write = true;
    void operator()(char *ours, uint64_t, uint64_t n) const { memset(ours, value, n); }
    int64_t quietly(char *ours, uint64_t, uint64_t n) const {
        char block[4096];
        memset(block, value, sizeof block);
        uint64_t done = 0;
        while (done < n) {
            uint64_t step = std::min(n - done, uint64_t{sizeof block});
            int64_t moved = os_copy_quietly(ours + done, block, step, false);
            if (moved < 0)
                return done ? static_cast<int64_t>(done) : moved;
            done += static_cast<uint64_t>(moved);
            if (static_cast<uint64_t>(moved) < step)
                break;
        }
        return static_cast<int64_t>(done);
    }
};

// In the order of addresses where it matters: a disk that fills up then holds what came first.
template <class Move>
void move_in_order(const Move &move, char *ours, uint64_t done, uint64_t n) {
    move(ours, done, n);
}

inline void move_in_order(const CopyIn &move, char *ours, uint64_t done, uint64_t n) {
    copy_in_order(ours, move.from + done, n);
}

// With the handler in place: how many bytes it moved before the first bad page.
template <class Move>
uint64_t move_under_guard(sa_reservation *r, const Region &region, uint64_t at, uint64_t done,
                          uint64_t n, const Move &move) {
    char *ours = r->base + at;
    // In whole pages; the other side of the copy may be a window of the same region.
    uint64_t unit = region.huge_page ? region.huge_page : r->page_size;
    uint64_t first = (at - region.start) / unit * unit, last = (at + n - region.start + unit - 1) / unit * unit;
    const char *start = r->base + region.start + first, *stop = r->base + region.start + last;
    if (run_guarded(start, stop, [&] { move_in_order(move, ours, done, n); }))
        return n;
    // memmove may touch the last page first: once more, page by page, to the first bad one.
    uint64_t moved = 0;
    while (moved < n) {
        uint64_t step = r->page_size - (at + moved) % r->page_size;
        step = std::min(step, n - moved);
        if (!run_guarded(start, stop, [&] { move(ours + moved, done + moved, step); }))
            break;
        moved += step;
    }
    return moved;
}

// The same, whoever has the handler.
template <class Move>
uint64_t move_guarded(sa_reservation *r, const Region &region, uint64_t at, uint64_t done,
                      uint64_t n, const Move &move) {
    if (!guard_ready()) {
        int64_t moved = move.quietly(r->base + at, done, n);
        if (moved >= 0 || moved == -EFAULT)
            return moved < 0 ? 0 : static_cast<uint64_t>(moved);
        // Not to be had here (no Linux, or an old seccomp profile): fall back on the handler.
        ArmedGuard armed;
        return move_under_guard(r, region, at, done, n, move);
    }
    return move_under_guard(r, region, at, done, n, move);
}

// SA_ACCESS where a file became shorter.
inline int truncated(const Region &region, bool write, uint64_t at, uint64_t done, sa_report *ret) {
    region.file->tell_size();
    return access_error(SA_FILE_TRUNCATED, write, at, done, region.file_name(), ret);
}

template <class Move>
int move_undamaged(sa_reservation *r, const Region &region, uint64_t at, uint64_t done, uint64_t n,
                   const Move &move, sa_report *ret) {
    uint64_t moved = 0, good = n;
    if (Move::write && region.file) {
        if (keep_old(r, region, at, at + n))
            return access_error(SA_NO_MEMORY, true, at, done, region.file_name(), ret);
        good = still_in_file(r, region, at, n, true);
    }
    for (int tries = 0; region.can_fault && moved < good; tries++) {
        moved += move_guarded(r, region, at + moved, done + moved, good - moved, move);
        if (moved == good)
            break;
        int reason = reason_of_fault(region, at + moved, Move::write);
        if (!reason && tries < 3)
            continue;  // there is room again, or the file has grown back
        // The end may lie in a page before the one that faulted.
        if (reason == SA_FILE_TRUNCATED)
            moved = still_in_file(r, region, at, moved, Move::write);
        if (!reason)
            reason = unknown_reason(region, Move::write);
        if (reason == SA_FILE_TRUNCATED)
            return truncated(region, Move::write, at + moved, done + moved, ret);
        return access_error(reason, Move::write, at + moved, done + moved, region.file_name(), ret);
    }
    if (!region.can_fault)
        move(r->base + at, done, good);
    if (!Move::write && region.file)
        good = still_in_file(r, region, at, n, false);
    return good < n ? truncated(region, Move::write, at + good, done + good, ret) : int{SA_OK};
}

// One region's part of a transfer. SA_OK, or SA_ACCESS with the bytes done before the bad one.
template <class Move>
int move_in_region(sa_reservation *r, const Region &region, uint64_t at, uint64_t done, uint64_t n,
                   const Move &move, sa_report *ret) {
    Damage damage;
    if (!region.file || !r->damage.any() || !find_damage(r, {at, at + n}, Move::write, &damage))
        return move_undamaged(r, region, at, done, n, move, ret);
    uint64_t good = std::max(damage.start, at) - at;
    if (good)
        if (int code = move_undamaged(r, region, at, done, good, move, ret))
            return code;
    return access_error(damage.reason, Move::write, at + good, done + good, region.file_name(), ret);
}

}  // namespace sparsearray
