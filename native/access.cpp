// Guarded access: read, write, fill, gather, scatter and atomics, at any byte.
//
// Every call is one trip: lock, check the whole range against the region table, move bytes, look
// whether the file behind them is still that long, unlock. Only regions of files that can change
// behind our back pay for the guard.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <unistd.h>
#include <vector>

#include "moves.h"

using namespace sparsearray;

namespace {

// A copy is done in pieces of this size, between which Python can take a Ctrl-C. Large enough for
// memcpy to choose its stores for large copies.
constexpr uint64_t kPiece = uint64_t{64} << 20;
// Of a file that has to be fetched from a slow disk.
constexpr uint64_t kFilePiece = uint64_t{8} << 20;
// Bytes of a file that are read by one call.
constexpr uint64_t kReadAtOnce = uint64_t{1} << 20;
// Records between two looks at the size of the files they came from.
constexpr uint64_t kBatch = 1 << 17;

struct LoadRecord : CopyOut {
    void operator()(char *ours, uint64_t done, uint64_t n) const { load_record(to + done, ours, n); }
};

struct StoreRecord : CopyIn {
    void operator()(char *ours, uint64_t done, uint64_t n) const { store_record(ours, from + done, n); }
};

// The first piece of [offset, offset + nbytes), all of which is checked.
template <class Move>
int transfer(sa_reservation *r, int64_t offset, int64_t nbytes, const Move &move, sa_report *ret) {
    SharedLock lock(r->lock);
    Region *region = nullptr;
    if (int code = check_range(r, offset, nbytes, Move::write, &region, ret))
        return code;
    uint64_t start = static_cast<uint64_t>(offset), n = static_cast<uint64_t>(nbytes);
    uint64_t stop = std::min(n, kPiece);
    for (uint64_t done = 0; done < stop;) {
        // SAFETY: check_range found every byte of the range in a region that allows the access, and
        // the shared lock keeps the table as it is.
        if (done)
            region = r->table.find(start + done);
        if (region->can_fault)
            stop = std::min(stop, done + kFilePiece);
        uint64_t step = std::min(stop - done, region->stop - (start + done));
        if (int code = move_in_region(r, *region, start + done, done, step, move, ret))
            return code;
        done += step;
    }
    ret->transferred = stop;
    return stop < n ? SA_MORE : SA_OK;
}

// Records at many places. A run is a row of records that lie in one region.
template <class Move> class Records {
  public:
    Records(sa_reservation *r, const int64_t *offsets, uint64_t count, uint64_t nbytes, Move move,
            sa_report *ret)
        : r_(r), offsets_(offsets), count_(count), nbytes_(nbytes), move_(move), ret_(ret) {}

    // All of them against the table, without touching memory.
    int check() {
        Region *region = nullptr;
        for (uint64_t i = 0; i < count_; i++) {
            int64_t at = offset_of(i);
            if (in(region, at) && (Move::write ? region->writable() : region->readable()))
                continue;
            if (int code = check_range(r_, at, static_cast<int64_t>(nbytes_), Move::write, &region,
                                       ret_))
                return failed(code, i);
        }
        return SA_OK;
    }

    int run() {
        if (r_->closed)
            return SA_CLOSED;
        uint64_t i = 0;
        while (i < count_) {
            Region *region = nullptr;
            int64_t at = offset_of(i);
            if (int code = check_range(r_, at, static_cast<int64_t>(nbytes_), Move::write, &region,
                                       ret_))
                return failed(code, i);
            if (!region || !in(region, at)) {  // nothing to move, or across regions
                if (int code = one(i, at))
                    return code;
                i++;
                continue;
            }
            uint64_t stop = std::min(count_, i + kBatch);
            if (!region->can_fault && !region->file) {
                i = run_plain(*region, region->nbytes(), i, count_);
            } else if (int code = run_in_file(*region, &i, stop)) {
                return code;
            }
        }
        return SA_OK;
    }

  private:
    // Once for each use: another thread may write to the caller's array meanwhile, and what was checked
    // must be what is used.
    static int64_t load(const int64_t *offset) { return __atomic_load_n(offset, __ATOMIC_RELAXED); }
    int64_t offset_of(uint64_t i) const { return load(offsets_ + i); }

    bool in(const Region *region, int64_t at) const {
        if (!region || region->nbytes() < nbytes_)
            return false;
        // One comparison for both ends: below the start it wraps round.
        return static_cast<uint64_t>(at) - region->start <= region->nbytes() - nbytes_;
    }

    int failed(int code, uint64_t i) {
        ret_->value = i;
        if (!Move::write)
            ret_->transferred = 0;  // nothing half-read is given out
        return code;
    }

    // SAFETY: check_range or `in` allowed the record at this offset.
    int one(uint64_t i, int64_t offset) {
        Region *region;
        uint64_t at = static_cast<uint64_t>(offset), done = 0;
        while (done < nbytes_) {
            region = r_->table.find(at + done);
            uint64_t step = std::min(nbytes_ - done, region->stop - (at + done));
            if (int code = move_in_region(r_, *region, at + done, i * nbytes_ + done, step, move_,
                                          ret_))
                return failed(code, i);
            done += step;
        }
        return SA_OK;
    }

    template <uint64_t Size>
    uint64_t run_sized(const Region &region, uint64_t good, uint64_t i, uint64_t stop) {
        uint64_t size = Size ? Size : nbytes_;
        if (good < size)
            return i;
        uint64_t start = region.start, last = good - size;
        char *base = r_->base + region.start;
        const Move move = move_;  // in registers: what is written might be this object
        const int64_t *offsets = offsets_;
        for (; i < stop; i++) {
            uint64_t at = static_cast<uint64_t>(load(offsets + i)) - start;
            if (at > last)
                break;
            // Far ahead, so that the misses of neighbouring records overlap; a prefetch of a bad
            // address does nothing, but is no pointer.
            if (i + 16 < stop)
                __builtin_prefetch(reinterpret_cast<void *>(
                                       reinterpret_cast<uint64_t>(base) +
                                       static_cast<uint64_t>(load(offsets + i + 16)) - start),
                                   Move::write);
            move.template record<Size>(base + at, i, size);
        }
        return i;
    }

    // Moves records up to the first that does not lie in the first `good` bytes of the region.
    // SAFETY: those are bytes of a region that check_range allowed.
    uint64_t run_plain(const Region &region, uint64_t good, uint64_t i, uint64_t stop) {
        switch (nbytes_) {
        case 1: return run_sized<1>(region, good, i, stop);
        case 2: return run_sized<2>(region, good, i, stop);
        case 4: return run_sized<4>(region, good, i, stop);
        case 8: return run_sized<8>(region, good, i, stop);
        case 16: return run_sized<16>(region, good, i, stop);
        default: return run_sized<0>(region, good, i, stop);
        }
    }

    int run_in_file(const Region &region, uint64_t *i, uint64_t stop) {
        uint64_t from = *i, to = from, good = region.nbytes();
        if (Move::write)
            good = still_in_file(r_, region, region.start, good, true);
        if (Move::write && r_->followers && r_->followers->any())
            if (keep_old_runs(r_, region, pages_of(region, from, stop)))
                good = 0;  // the error comes of moving one by one
        bool whole = !region.can_fault, damaged = region.can_fault && r_->damage.any();
        if (!Move::write && !damaged && nbytes_ >= r_->page_size && can_be_read(region)) {
            *i = read_pages(region, from, stop);
            if (*i > from)
                return SA_OK;
        }
        if (whole)
            to = run_plain(region, good, from, stop);
        else if (!damaged && guard_ready())
            whole = run_guarded(r_->base + region.start, r_->base + region.stop,
                                [&] { to = run_plain(region, good, from, stop); });
        if (whole && to > from) {
            *i = to;
            return Move::write ? int{SA_OK} : check_read(region, from, to);
        }
        // A fault, damage, no guard, or a record that the file ends in: one by one.
        for (to = from; to < stop; to++) {
            int64_t at = offset_of(to);
            if (!in(&region, at))
                break;
            if (int code = one(to, at))
                return code;
        }
        *i = to;
        return SA_OK;
    }

    // The pages that records touch, up to the first that does not lie in the region.
    std::vector<Range> pages_of(const Region &region, uint64_t i, uint64_t stop) const {
        uint64_t page = r_->page_size;
        std::vector<Range> pages;
        for (int64_t at; i < stop && in(&region, at = offset_of(i)); i++) {
            uint64_t first = static_cast<uint64_t>(at) / page * page;
            uint64_t last = (static_cast<uint64_t>(at) + nbytes_ + page - 1) / page * page;
            if (pages.empty() || pages.back().start != first || pages.back().stop != last)
                pages.push_back({first, last});
        }
        std::sort(pages.begin(), pages.end(), [](const Range &a, const Range &b) { return a.start < b.start; });
        std::vector<Range> runs;
        for (const Range &one : pages)
            if (!runs.empty() && one.start <= runs.back().stop)
                runs.back().stop = std::max(runs.back().stop, one.stop);
            else
                runs.push_back({std::max(one.start, region.start), std::min(one.stop, region.stop)});
        return runs;
    }

    static bool can_be_read(const Region &region) {
        return region.shared && !region.huge_page && region.file->is_kept() && region.file->ask() == Ask::AtOnce;
    }

    // By calls, which take half the time of faults; up to the first record of which the file has not all.
    uint64_t read_pages(const Region &region, uint64_t i, uint64_t stop) {
        if constexpr (!Move::write)
            while (i < stop) {
                int64_t at = offset_of(i);
                uint64_t n = 1, most = std::min(stop - i, std::max(kReadAtOnce / nbytes_, uint64_t{1}));
                uint64_t start = static_cast<uint64_t>(at);
                while (n < most && static_cast<uint64_t>(offset_of(i + n)) - start == n * nbytes_)
                    n++;
                if (start < region.start || start >= region.stop || n * nbytes_ > region.stop - start)
                    return i;
                off_t place = static_cast<off_t>(region.in_file(start));
                ssize_t done = pread(region.file->fd(), move_.to + i * nbytes_, n * nbytes_, place);
                if (done < 0 || static_cast<uint64_t>(done) < n * nbytes_)
                    return i;
                i += n;
            }
        return i;
    }

    int check_read(const Region &region, uint64_t from, uint64_t to) {
        // One look at the file covers the run if it holds for the region's end.
        uint64_t n = region.nbytes();
        uint64_t good = still_in_file(r_, region, region.start, n, false);
        for (uint64_t i = from; good < n && i < to; i++) {
            uint64_t at = static_cast<uint64_t>(offset_of(i));
            if (at - region.start + nbytes_ <= good)
                continue;
            uint64_t bad = std::max(at, region.start + good);
            // In the zeros that were past the end from the start, reading is right.
            if (region.in_file(bad) >= region.file_size)
                continue;
            return failed(truncated(region, false, bad, 0, ret_), i);
        }
        return SA_OK;
    }

    sa_reservation *r_;
    const int64_t *offsets_;
    uint64_t count_;
    uint64_t nbytes_;
    Move move_;
    sa_report *ret_;
};

struct GatherMove : LoadRecord {
    template <uint64_t Size> void record(char *ours, uint64_t i, uint64_t size) const {
        if constexpr (Size != 0)
            memcpy(to + i * Size, ours, Size);
        else
            memcpy(to + i * size, ours, size);
    }
};

struct ScatterMove : StoreRecord {
    template <uint64_t Size> void record(char *ours, uint64_t i, uint64_t size) const {
        if constexpr (Size != 0)
            memcpy(ours, from + i * Size, Size);
        else
            memcpy(ours, from + i * size, size);
    }
};

template <class T> uint64_t run_atomic(char *ours, int op, uint64_t operand, uint64_t expected) {
    T *p = reinterpret_cast<T *>(ours);
    T value = static_cast<T>(operand), found = static_cast<T>(expected);
    switch (op) {
    case SA_ATOMIC_LOAD: return __atomic_load_n(p, __ATOMIC_SEQ_CST);
    case SA_ATOMIC_STORE: __atomic_store_n(p, value, __ATOMIC_SEQ_CST); return 0;
    case SA_ATOMIC_EXCHANGE: return __atomic_exchange_n(p, value, __ATOMIC_SEQ_CST);
    case SA_ATOMIC_COMPARE_EXCHANGE:
        __atomic_compare_exchange_n(p, &found, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
        return found;
    case SA_ATOMIC_ADD: return __atomic_fetch_add(p, value, __ATOMIC_SEQ_CST);
    case SA_ATOMIC_SUB: return __atomic_fetch_sub(p, value, __ATOMIC_SEQ_CST);
    case SA_ATOMIC_AND: return __atomic_fetch_and(p, value, __ATOMIC_SEQ_CST);
    case SA_ATOMIC_OR: return __atomic_fetch_or(p, value, __ATOMIC_SEQ_CST);
    default: return __atomic_fetch_xor(p, value, __ATOMIC_SEQ_CST);
    }
}

uint64_t run_atomic_sized(char *ours, uint64_t nbytes, int op, uint64_t operand,
                          uint64_t expected) {
    switch (nbytes) {
    case 1: return run_atomic<uint8_t>(ours, op, operand, expected);
    case 2: return run_atomic<uint16_t>(ours, op, operand, expected);
    case 4: return run_atomic<uint32_t>(ours, op, operand, expected);
    default: return run_atomic<uint64_t>(ours, op, operand, expected);
    }
}

}  // namespace

int sa_read(sa_reservation *r, int64_t offset, int64_t nbytes, char *out, sa_report *ret) {
    return transfer(r, offset, nbytes, CopyOut{out}, ret);
}

int sa_salvage(sa_reservation *r, int64_t offset, int64_t nbytes, char *out, sa_report *ret) try {
    SharedLock lock(r->lock);
    Region *region = nullptr;
    if (int code = check_range(r, offset, nbytes, false, &region, ret))
        return code;
    uint64_t start = static_cast<uint64_t>(offset), stop = start + static_cast<uint64_t>(nbytes);
    CopyOut move{out};
    for (uint64_t at = start; at < stop;) {
        region = r->table.find(at);
        Range part{at, std::min(stop, region->stop)};
        for (const Damage &damage : r->damage.copy(part.start, part.stop))
            if (damage.start <= at)
                part.stop = std::min(part.stop, damage.stop);  // pages of our own, which cannot fault
            else
                part.stop = std::min(part.stop, damage.start);
        std::vector<Damage> damage = r->damage.copy(part.start, part.stop);
        int code = SA_OK;
        bool told = region->file && region->file->is_told(region->file->size_now());
        if (damage.empty())
            code = move_undamaged(r, *region, at, at - start, part.nbytes(), move, ret);
        else
            move(r->base + at, at - start, part.nbytes());
        if (code && ret->reason == SA_FILE_TRUNCATED && told) {
            memset(out + (ret->offset - start), 0, part.stop - ret->offset);
        } else if (code) {
            if (ret->reason == SA_IO_ERROR)
                divert_fault(r->base + ret->offset);
            return code;
        }
        at = part.stop;
    }
    ret->transferred = static_cast<uint64_t>(nbytes);
    return SA_OK;
} catch (const std::bad_alloc &) {
    return system_error(ENOMEM, "", ret);
}

int sa_write(sa_reservation *r, int64_t offset, int64_t nbytes, const char *data, sa_report *ret) {
    return transfer(r, offset, nbytes, CopyIn{data}, ret);
}

int sa_fill(sa_reservation *r, int64_t offset, int64_t nbytes, int value, sa_report *ret) {
    return transfer(r, offset, nbytes, Fill{value}, ret);
}

int sa_read_record(sa_reservation *r, int64_t offset, uint64_t nbytes, sa_report *ret) {
    if (nbytes > sizeof ret->record)
        return SA_MISALIGNED;
    return transfer(r, offset, static_cast<int64_t>(nbytes), LoadRecord{{ret->record}}, ret);
}

int sa_write_record(sa_reservation *r, int64_t offset, uint64_t nbytes, const char *data,
                    sa_report *ret) {
    return transfer(r, offset, static_cast<int64_t>(nbytes), StoreRecord{{data}}, ret);
}

int sa_gather(sa_reservation *r, const int64_t *offsets, uint64_t count, uint64_t nbytes, char *out,
              sa_report *ret) {
    SharedLock lock(r->lock);
    GatherMove move{{{out}}};
    return Records<GatherMove>(r, offsets, count, nbytes, move, ret).run();
}

int sa_scatter(sa_reservation *r, const int64_t *offsets, uint64_t count, uint64_t nbytes,
               const char *values, sa_report *ret) try {
    SharedLock lock(r->lock);
    ScatterMove move{{{values}}};
    Records<ScatterMove> records(r, offsets, count, nbytes, move, ret);
    if (r->closed)
        return SA_CLOSED;
    int code = records.check();
    return code ? code : records.run();
} catch (const std::bad_alloc &) {
    return system_error(ENOMEM, "", ret);
}

int sa_atomic(sa_reservation *r, int64_t offset, uint64_t nbytes, int op, uint64_t operand,
              uint64_t expected, sa_report *ret) {
    SharedLock lock(r->lock);
    Region *region = nullptr;
    bool write = op != SA_ATOMIC_LOAD;
    if (int code = check_range(r, offset, static_cast<int64_t>(nbytes), write, &region, ret))
        return code;
    uint64_t at = static_cast<uint64_t>(offset);
    if (nbytes > 8 || (nbytes & (nbytes - 1)) || !nbytes || at % nbytes)
        return SA_MISALIGNED;
    // SAFETY: check_range allowed these bytes, and being aligned they lie in one page.
    char *ours = r->base + at;
    auto work = [&] { ret->value = run_atomic_sized(ours, nbytes, op, operand, expected); };
    uint64_t good = nbytes;
    if (write && region->file) {
        if (keep_old(r, *region, at, at + nbytes))
            return access_error(SA_NO_MEMORY, true, at, 0, region->file_name(), ret);
        good = still_in_file(r, *region, at, nbytes, true);
    }
    if (good < nbytes)
        return truncated(*region, write, at + good, 0, ret);
    Damage damage;
    if (region->can_fault && r->damage.any() && find_damage(r, {at, at + nbytes}, write, &damage))
        return access_error(damage.reason, write, at, 0, region->file_name(), ret);
    if (!region->can_fault) {
        work();
    } else {
        const char *start = r->base + region->start, *stop = r->base + region->stop;
        for (int tries = 0;; tries++) {
            bool done;
            if (guard_ready()) {
                done = run_guarded(start, stop, work);
            } else {
                ArmedGuard armed;
                done = run_guarded(start, stop, work);
            }
            if (done)
                break;
            int reason = reason_of_fault(*region, at, write);
            if (!reason && tries < 3)
                continue;
            if (!reason)
                reason = unknown_reason(*region, write);
            if (reason == SA_FILE_TRUNCATED)
                return truncated(*region, write, at, 0, ret);
            return access_error(reason, write, at, 0, region->file_name(), ret);
        }
    }
    if (!write && region->file)
        good = still_in_file(r, *region, at, nbytes, false);
    return good < nbytes ? truncated(*region, write, at + good, 0, ret) : int{SA_OK};
}
