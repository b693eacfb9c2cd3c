// Records by address: of a core dump, say, whose segments lie one behind another in the reservation.
//
// How it works: a record is looked up among the spans, by halving, and copied, with no look at the region table:
// 1. all spans are checked against the table, once a call;
// 2. a block of records is looked up and its memory prefetched, then copied, so that cache misses overlap;
// 3. after each batch the files behind the reservation are looked at: if one became shorter, or a page could not be
//    had, the batch is done again by sa_gather, which says what is wrong.
#include <algorithm>
#include <cstring>

#include "moves.h"

using namespace sparsearray;

namespace {

constexpr uint64_t kBatch = 1 << 17;  // records between two looks at the files
constexpr uint64_t kBlock = 64;       // records looked up before they are copied

class Spans {
  public:
    Spans(const sa_span *spans, uint64_t count) : spans_(spans), count_(count), last_(spans) {}

    // The offset of a record; false where a byte of it is in no span, of which `*bad` is the address. The end of a
    // span may be 2^64.
    bool find(uint64_t address, uint64_t nbytes, uint64_t *offset, uint64_t *bad) {
        uint64_t inside = address - last_->address;
        if (inside >= last_->nbytes) {
            last_ = before(address);
            inside = address - last_->address;
        }
        *offset = last_->offset + inside;
        if (inside < last_->nbytes && nbytes <= last_->nbytes - inside)
            return true;
        *bad = inside < last_->nbytes ? last_->address + last_->nbytes : address;
        return false;
    }

  private:
    // The last span that begins at or before the address, or the first. Without a branch that depends on it.
    const sa_span *before(uint64_t address) const {
        const sa_span *at = spans_;
        for (uint64_t n = count_; n > 1; n -= n / 2)
            at = at[n / 2].address <= address ? at + n / 2 : at;
        return at;
    }

    const sa_span *spans_;
    uint64_t count_;
    const sa_span *last_;
};

class Gather {
  public:
    Gather(sa_reservation *r, const sa_span *spans, uint64_t span_count, uint64_t nbytes, sa_report *ret)
        : r_(r), spans_(spans), span_count_(span_count), nbytes_(nbytes), ret_(ret) {}

    int run(const uint64_t *addresses, uint64_t count, char *out) {
        // Not worth a look at all spans.
        bool few = count < span_count_;
        for (uint64_t i = 0; i < count;) {
            uint64_t n = std::min(count - i, kBatch), done = 0;
            const uint64_t *from = addresses + i;
            char *to = out + i * nbytes_;
            int code = few ? int{SA_MORE} : run_fast(from, n, to, &done);
            if (code == SA_MORE)
                code = run_checked(from, n, to, &done);
            if (code) {
                ret_->value = i + done;
                return code;
            }
            i += n;
        }
        return SA_OK;
    }

  private:
    // Once for each use: another thread may write to the caller's array meanwhile.
    static uint64_t load(const uint64_t *address) { return __atomic_load_n(address, __ATOMIC_RELAXED); }

    int absent(uint64_t bad) {
        ret_->reason = 0;
        ret_->offset = bad;
        return SA_ACCESS;
    }

    // SA_MORE where sa_gather is to have a look.
    int run_fast(const uint64_t *addresses, uint64_t count, char *out, uint64_t *done) {
        SharedLock lock(r_->lock);
        if (r_->closed)
            return SA_CLOSED;
        bool can_fault = false;
        if (!check_spans(&can_fault))
            return SA_MORE;
        uint64_t bad = 0;
        bool found = false;
        auto work = [&] { found = copy(addresses, count, out, done, &bad); };
        if (!can_fault)
            work();
        else if (r_->damage.any() || !guard_ready() || !run_guarded(r_->base, r_->base + r_->nbytes, work))
            return SA_MORE;
        if (!files_are_whole())
            return SA_MORE;
        return found ? int{SA_OK} : absent(bad);
    }

    // Whether every byte of every span may be read.
    bool check_spans(bool *can_fault) {
        for (const sa_span *span = spans_; span < spans_ + span_count_; span++) {
            if (span->offset > r_->nbytes || span->nbytes > r_->nbytes - span->offset)
                return false;
            uint64_t at = span->offset, stop = at + span->nbytes;
            while (at < stop) {
                const Region *region = r_->table.find(at);
                if (!region || !region->readable())
                    return false;
                *can_fault |= region->can_fault;
                at = region->stop;
            }
        }
        return true;
    }

    bool files_are_whole() {
        const File *last = nullptr;
        uint64_t size = 0;
        for (const auto &[start, region] : r_->table.all()) {
            const File *file = region.file.get();
            if (!file || region.file_size == UINT64_MAX || !file->size_can_change())
                continue;
            if (file != last)
                size = file->size_now();
            last = file;
            if (size < std::min(region.file_size, region.in_file(region.stop)))
                return false;
        }
        return true;
    }

    bool copy(const uint64_t *addresses, uint64_t count, char *out, uint64_t *done, uint64_t *bad) {
        switch (nbytes_) {
        case 1: return copy_sized<1>(addresses, count, out, done, bad);
        case 2: return copy_sized<2>(addresses, count, out, done, bad);
        case 4: return copy_sized<4>(addresses, count, out, done, bad);
        case 8: return copy_sized<8>(addresses, count, out, done, bad);
        case 16: return copy_sized<16>(addresses, count, out, done, bad);
        case 24: return copy_sized<24>(addresses, count, out, done, bad);
        case 32: return copy_sized<32>(addresses, count, out, done, bad);
        default: return copy_sized<0>(addresses, count, out, done, bad);
        }
    }

    // `*done` is how many, all of them unless one is not there. A fault may come at any instruction: nothing here has
    // a destructor.
    template <uint64_t Size>
    bool copy_sized(const uint64_t *addresses, uint64_t count, char *out, uint64_t *done, uint64_t *bad) {
        uint64_t size = Size ? Size : nbytes_;
        Spans spans(spans_, span_count_);
        const char *places[kBlock];
        const char *base = r_->base;
        for (uint64_t i = 0; i < count; i += kBlock) {
            uint64_t n = std::min(count - i, kBlock), good = 0;
            for (; good < n; good++) {
                uint64_t offset;
                if (!spans.find(load(addresses + i + good), size, &offset, bad))
                    break;
                // SAFETY: check_spans: these bytes of the span may be read, and the shared lock keeps it so.
                places[good] = base + offset;
                __builtin_prefetch(places[good]);
            }
            for (uint64_t k = 0; k < good; k++)
                if constexpr (Size != 0)
                    memcpy(out + (i + k) * Size, places[k], Size);
                else
                    memcpy(out + (i + k) * size, places[k], size);
            *done = i + good;
            if (good < n)
                return false;
        }
        return true;
    }

    // A block at a time by sa_gather, which checks each record, and knows what to say.
    int run_checked(const uint64_t *addresses, uint64_t count, char *out, uint64_t *done) {
        Spans spans(spans_, span_count_);
        int64_t offsets[kBlock];
        for (uint64_t i = 0; i < count; i += kBlock) {
            uint64_t n = std::min(count - i, kBlock), good = 0, bad = 0;
            for (; good < n; good++) {
                uint64_t offset;
                if (!spans.find(load(addresses + i + good), nbytes_, &offset, &bad))
                    break;
                offsets[good] = static_cast<int64_t>(offset);
            }
            *done = i;
            if (int code = sa_gather(r_, offsets, good, nbytes_, out + i * nbytes_, ret_)) {
                *done += code == SA_CLOSED ? 0 : ret_->value;
                return code;
            }
            *done = i + good;
            if (good < n)
                return absent(bad);
        }
        return SA_OK;
    }

    sa_reservation *r_;
    const sa_span *spans_;
    uint64_t span_count_;
    uint64_t nbytes_;
    sa_report *ret_;
};

}  // namespace

int sa_gather_spans(sa_reservation *r, const sa_span *spans, uint64_t span_count, const uint64_t *addresses,
                    uint64_t count, uint64_t nbytes, char *out, sa_report *ret) {
    static const sa_span kNone = {0, 0, 0};
    if (!span_count)
        return Gather(r, &kNone, 1, nbytes, ret).run(addresses, count, out);
    return Gather(r, spans, span_count, nbytes, ret).run(addresses, count, out);
}
