// Search for bytes, in place.
//
// How it works: a chunk of places is looked through by memmem where it lies, under the guard if a file is behind it. If
// that faults, or cannot be guarded, the chunk is copied as sa_read does it, which says what is wrong, and the copy is
// looked through.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <vector>

#include "moves.h"

using namespace sparsearray;

namespace {

constexpr uint64_t kPiece = uint64_t{64} << 20;  // bytes of one call, between which Python can take a Ctrl-C
constexpr uint64_t kChunk = uint64_t{1} << 20;   // places looked through at a time

class Search {
  public:
    Search(sa_reservation *r, const char *pattern, uint64_t nbytes, uint64_t period, int64_t *found,
           uint64_t capacity, sa_report *ret)
        : r_(r), pattern_(pattern), nbytes_(nbytes), period_(period), found_(found), capacity_(capacity),
          ret_(ret) {}

    int run(const int64_t *ranges, uint64_t count) {
        SharedLock lock(r_->lock);
        uint64_t left = kPiece;
        ret_->count = 0;
        for (uint64_t i = 0; i < count; i++) {
            int64_t first = ranges[2 * i], last = ranges[2 * i + 1];
            if (first >= last)
                continue;
            Region *region = nullptr;
            // SAFETY: all bytes that a pattern which begins here can have are checked.
            if (int code = check_bounds(r_, first, last - first, ret_))
                return code;
            if (nbytes_ - 1 > static_cast<uint64_t>(INT64_MAX - last))
                return SA_BOUNDS;
            int64_t whole = last - first + static_cast<int64_t>(nbytes_ - 1);
            if (int code = check_range(r_, first, whole, false, &region, ret_))
                return code;
            uint64_t at = static_cast<uint64_t>(first), stop = static_cast<uint64_t>(last);
            while (at < stop) {
                if (left == 0 || ret_->count == capacity_) {
                    ret_->value = i;
                    ret_->start = at;
                    return SA_MORE;
                }
                uint64_t n = std::min({stop - at, kChunk, left});
                uint64_t done = n;
                if (int code = look_through(at, n, &done))
                    return code;
                at += done;
                left -= done;
            }
        }
        return SA_OK;
    }

  private:
    // `*done`: how many of the `n` places, all unless there is no room for more of what is found.
    int look_through(uint64_t at, uint64_t n, uint64_t *done) {
        uint64_t nbytes = n + nbytes_ - 1, before = ret_->count;
        const char *ours = r_->base + at;
        bool can_fault = false, has_file = false;
        for (const Region *region = r_->table.find(at);; region = r_->table.find(region->stop)) {
            can_fault |= region->can_fault;
            has_file |= region->file != nullptr;
            if (region->stop >= at + nbytes)
                break;
        }
        if (!can_fault) {
            *done = find(ours, at, n);
        } else if (!r_->damage.any() && guard_ready() &&
                   run_guarded(r_->base, r_->base + r_->nbytes, [&] { *done = find(ours, at, n); })) {
            // The files are looked at below.
        } else {
            return look_through_copy(at, n, done);
        }
        if (!has_file || is_whole(at, nbytes))
            return SA_OK;
        ret_->count = before;
        return look_through_copy(at, n, done);
    }

    bool is_whole(uint64_t at, uint64_t nbytes) {
        for (uint64_t stop = at + nbytes; at < stop;) {
            const Region *region = r_->table.find(at);
            uint64_t n = std::min(region->stop, stop) - at;
            if (region->file && still_in_file(r_, *region, at, n, false) < n)
                return false;
            at += n;
        }
        return true;
    }

    int look_through_copy(uint64_t at, uint64_t n, uint64_t *done) {
        uint64_t nbytes = n + nbytes_ - 1;
        copy_.resize(nbytes);
        CopyOut move{copy_.data()};
        for (uint64_t moved = 0; moved < nbytes;) {
            const Region *region = r_->table.find(at + moved);
            uint64_t step = std::min(region->stop - (at + moved), nbytes - moved);
            if (int code = move_in_region(r_, *region, at + moved, moved, step, move, ret_))
                return code;
            moved += step;
        }
        *done = find(copy_.data(), at, n);
        return SA_OK;
    }

    // Looks through `n` places; how many it did. A fault may come at any instruction.
    uint64_t find(const char *ours, uint64_t at, uint64_t n) {
        uint64_t count = ret_->count, i = 0;
        while (i < n) {
            const void *hit = memmem(ours + i, n - i + nbytes_ - 1, pattern_, nbytes_);
            if (!hit) {
                i = n;
                break;
            }
            i = static_cast<uint64_t>(static_cast<const char *>(hit) - ours);
            // The next one lies one period on, where its last bytes are those of the pattern; or anywhere behind.
            bool again;
            do {
                if (count == capacity_) {
                    ret_->count = count;
                    return i;
                }
                found_[count++] = static_cast<int64_t>(at + i);
                again = n - i > period_ && memcmp(ours + i + nbytes_, pattern_ + nbytes_ - period_, period_) == 0;
                i += again ? period_ : 1;
            } while (again);
        }
        ret_->count = count;
        return i;
    }

    sa_reservation *r_;
    const char *pattern_;
    uint64_t nbytes_;
    uint64_t period_;
    int64_t *found_;
    uint64_t capacity_;
    sa_report *ret_;
    std::vector<char> copy_;
};

}  // namespace

int sa_search(sa_reservation *r, const int64_t *ranges, uint64_t range_count, const char *pattern, uint64_t nbytes,
              uint64_t period, int64_t *found, uint64_t capacity, sa_report *ret) try {
    if (!nbytes || nbytes > INT64_MAX || !period || period > nbytes || !capacity)
        return SA_MISALIGNED;
    return Search(r, pattern, nbytes, period, found, capacity, ret).run(ranges, range_count);
} catch (const std::bad_alloc &) {
    return system_error(ENOMEM, "", ret);
}
