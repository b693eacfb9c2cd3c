#include "snapshot.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <sys/mman.h>

#include "extents.h"
#include "mapping.h"
#include "moves.h"

using namespace sparsearray;

namespace sparsearray {

namespace {

// Of all lists of followers. No other lock but holders is taken while it is held.
std::mutex followers_lock;

}  // namespace

void snapshots_before_fork() { followers_lock.lock(); }
void snapshots_after_fork() { followers_lock.unlock(); }

void Followers::add(sa_reservation *snapshot) {
    std::lock_guard<std::mutex> guard(followers_lock);
    all_.push_back(snapshot);
    any_.store(true, std::memory_order_release);
}

void Followers::remove(sa_reservation *snapshot) {
    std::lock_guard<std::mutex> guard(followers_lock);
    all_.erase(std::remove(all_.begin(), all_.end(), snapshot), all_.end());
    any_.store(!all_.empty(), std::memory_order_release);
}

std::vector<sa_reservation *> Followers::hold_all() {
    std::lock_guard<std::mutex> guard(followers_lock);
    for (sa_reservation *snapshot : all_)
        snapshot->hold();
    return all_;
}

void SharedBytes::add(dev_t device, ino_t inode, uint64_t in_file, Range pages) {
    all_.insert({{device, inode}, {in_file, pages}});
}

void stop_following(sa_reservation *snapshot) {
    for (const auto &followers : snapshot->followed)
        followers->remove(snapshot);
}

namespace {

// Has a region's pages be writable for the time of a scope, also where the snapshot was made read-only.
class Writable {
  public:
    Writable(sa_reservation *snapshot, const Region &region, Range part)
        : at_(snapshot->base + part.start), nbytes_(part.nbytes()), prot_(region.prot) {
        error_ = is_needed() ? os_protect(at_, nbytes_, prot_ | PROT_WRITE) : 0;
    }
    ~Writable() {
        if (is_needed() && !error_)
            os_protect(at_, nbytes_, prot_);
    }
    Writable(const Writable &) = delete;
    Writable &operator=(const Writable &) = delete;
    int error() const { return error_; }

  private:
    bool is_needed() const { return !(prot_ & PROT_WRITE); }
    char *at_;
    uint64_t nbytes_;
    int prot_;
    int error_;
};

// Page by page, where some cannot be had. What the file has lost, nobody can keep.
int copy_each_page(sa_reservation *snapshot, const Region &region, Range part) {
    uint64_t step = region.huge_page ? region.huge_page : snapshot->page_size;
    for (uint64_t at = part.start; at < part.stop; at += step) {
        uint64_t bad;
        Range page{at, std::min(at + step, part.stop)};
        for (int tries = 0; int error = populate(snapshot, region, page, true, &bad); tries++) {
            int reason = reason_of_fault(region, at, false);
            if (reason == SA_FILE_TRUNCATED)
                break;
            if (reason || tries == 3)
                return error == EFAULT ? (reason == SA_NO_SPACE ? ENOSPC : reason == SA_IO_ERROR ? EIO : ENOMEM)
                                       : error;
        }
    }
    return 0;
}

// Gives the snapshot memory of its own instead of part of a window, with the bytes of some runs. 0 or an errno.
int make_own(sa_reservation *snapshot, const Region &region, Range part, const std::vector<Range> &runs) {
    Region made;  // the table's own goes when this comes
    made.start = part.start;
    made.stop = part.stop;
    made.kind = SA_PRIVATE;
    made.prot = region.prot;
    snapshot->table.prepare();
    Placing placing(snapshot, part);
    auto copy = [&](char *to, uint64_t at, uint64_t n) {
        return move_guarded(snapshot, region, at, 0, n, CopyOut{to}) == n;
    };
    if (int error = os_make_own(snapshot->base, part, made.prot, runs, copy))
        return error;
    snapshot->forget_pages(part.start, part.stop);
    snapshot->table.replace(std::move(made));
    return 0;
}

bool has_writable_window(sa_reservation *snapshot, Range range) {
    std::lock_guard<std::mutex> guard(snapshot->holders);
    return snapshot->pins.any_over(range.start, range.stop, true);
}

// Parts that are looked at before they are copied: for holes, which are many where mappings did not go round, and
// for memory, for the system would rather end the process than say that there is none.
constexpr uint64_t kLarge = uint64_t{1} << 20;

// Gives the snapshot pages of its own for part of a window of a file.
int copy_part(sa_reservation *snapshot, const Region &region, Range part) {
    if (part.nbytes() > kLarge) {
        std::vector<Range> runs;
        if (int error = find_stored(snapshot, part, &runs))
            return error;
        uint64_t nbytes = 0;
        for (const Range &run : runs)
            nbytes += run.nbytes();
        bool sparse = nbytes < part.nbytes() / 2 && !has_writable_window(snapshot, part);
        uint64_t wanted = sparse ? nbytes : part.nbytes();
        if (wanted > 64 * kLarge && wanted > os_available_memory())
            return ENOMEM;
        if (sparse)
            return make_own(snapshot, region, part, runs);
    }
    Writable writable(snapshot, region, part);
    if (int error = writable.error())
        return error;
    uint64_t bad;
    int error = populate(snapshot, region, part, true, &bad);
    return error == EFAULT ? copy_each_page(snapshot, region, part) : error;
}

// Gives the snapshot pages of its own for a range, with its lock held exclusively.
int copy_pages(sa_reservation *snapshot, Range range) {
    uint64_t page = snapshot->page_size;
    range = {range.start / page * page, (range.stop + page - 1) / page * page};
    for (uint64_t at = range.start; at < range.stop;) {
        const Region *region = snapshot->table.at_or_after(at);
        if (!region || region->start >= range.stop)
            break;
        Range part{std::max(at, region->start), std::min(range.stop, region->stop)};
        at = part.stop;
        if (region->file && !region->shared)
            if (int error = copy_part(snapshot, *region, part))
                return error;
    }
    return 0;
}

// The last hold may be one of these: what takes other locks is done later.
struct Held {
    std::vector<sa_reservation *> all;
    ~Held() {
        for (sa_reservation *snapshot : all)
            snapshot->drop_hold_under_lock();
    }
};

// Gives the snapshot memory of its own for a range, which its file is about to lose: with that, the system would
// take away copied pages, too. Not under a window that may write meanwhile.
int take_over(sa_reservation *snapshot, Range range, sa_report *ret) {
    uint64_t page = snapshot->page_size;
    range = {range.start / page * page, (range.stop + page - 1) / page * page};
    if (int code = check_pins(snapshot, range, true, ret))
        return code;
    for (uint64_t at = range.start; at < range.stop;) {
        const Region *region = snapshot->table.at_or_after(at);
        if (!region || region->start >= range.stop)
            break;
        Range part{std::max(at, region->start), std::min(range.stop, region->stop)};
        at = part.stop;
        if (!region->file || region->shared || !region->readable())
            continue;
        std::vector<Range> runs;
        int error = find_stored(snapshot, part, &runs);
        if (!error)
            error = make_own(snapshot, *region, part, runs);
        if (error)
            return system_error(error, "", ret);
    }
    return SA_OK;
}

}  // namespace

int keep_old_runs(sa_reservation *r, const Region &region, const std::vector<Range> &runs) try {
    if (!region.file || !region.shared || !r->followers || !r->followers->any())
        return 0;
    Held held{r->followers->hold_all()};
    for (sa_reservation *snapshot : held.all) {
        // It was made after its original: this order of locks is that of before_fork, too.
        Exclusive lock(snapshot->lock);
        if (snapshot->closed)
            continue;
        const File &file = *region.file;
        for (const Range &run : runs) {
            int error = snapshot->shared_bytes.each(file.device(), file.inode(), region.in_file(run.start),
                                                    region.in_file(run.stop),
                                                    [&](Range pages) { return copy_pages(snapshot, pages); });
            if (error)
                return error;
        }
    }
    return 0;
} catch (const std::bad_alloc &) {
    return ENOMEM;
}

int keep_old(sa_reservation *r, const Region &region, uint64_t start, uint64_t stop) {
    if (!region.file || !region.shared || !r->followers || !r->followers->any())
        return 0;
    return keep_old_runs(r, region, {{start, stop}});
}

int keep_old_range(sa_reservation *r, Range range) {
    if (!r->followers || !r->followers->any())
        return 0;
    return each_region(r, range, [&](const Region &region, Range part) {
        return keep_old(r, region, part.start, part.stop);
    });
}

}  // namespace sparsearray

namespace {

Region region_like(const Region &region, int kind) {
    Region made;
    made.start = region.start;
    made.stop = region.stop;
    made.kind = kind;
    made.prot = kind == SA_ZERO ? PROT_READ : PROT_READ | PROT_WRITE;
    return made;
}

int place_memory(sa_reservation *snapshot, const Region &region, int kind, sa_report *ret) {
    Region made = region_like(region, kind);
    snapshot->table.prepare();
    char *at = snapshot->base + region.start;
    if (int error = os_place(at, region.nbytes(), made.prot, os_flags_private(false), -1, 0))
        return system_error(error, "", ret);
    if (kind == SA_ZERO)
        os_prefer_huge_zero(at, region.nbytes());
    snapshot->table.replace(std::move(made));
    return SA_OK;
}

// Puts what a region of the original shows into the same place of its snapshot.
int place_like(sa_reservation *r, sa_reservation *snapshot, const Region &region, sa_report *ret) {
    const std::shared_ptr<File> &file = region.file;
    if (!region.readable())
        return SA_OK;
    if (region.hole_of)  // zeros, as the original shows them, and writable as what is around them
        return place_memory(snapshot, region, SA_PRIVATE, ret);
    if (!file)
        return place_memory(snapshot, region, region.kind == SA_ZERO ? SA_ZERO : SA_PRIVATE, ret);
    Damage damage;
    if (r->damage.any() && find_damage(r, {region.start, region.stop}, true, &damage))
        return access_error(damage.reason, false, damage.start, 0, region.file_name(), ret);
    uint64_t good = still_in_file(r, region, region.start, region.nbytes(), false);
    if (good < region.nbytes()) {
        file->tell_size();
        return access_error(SA_FILE_TRUNCATED, false, region.start + good, 0, region.file_name(), ret);
    }
    Borrowed fd = file->fd();
    if (fd < 0)
        return system_error(ENOENT, file->name().c_str(), ret);
    MapRequest request = file_request({region.start, region.stop}, fd, file->name().c_str(), file->descriptor(),
                                      region.file_offset, SA_FILE_COPY_ON_WRITE, true);
    if (int code = map_as_asked(snapshot, request, ret))
        return code;
    snapshot->shared_bytes.add(file->device(), file->inode(), static_cast<uint64_t>(region.file_offset),
                               {region.start, region.stop});
    return SA_OK;
}

}  // namespace

int sa_snapshot(sa_reservation *r, sa_reservation **snapshot, sa_report *ret) try {
    if (int code = sa_reserve(r->nbytes, 0, snapshot, ret))
        return code;
    sa_reservation *made = *snapshot;
    Exclusive lock(r->lock);
    Exclusive other(made->lock);
    if (r->closed)
        return SA_CLOSED;
    for (const auto &[start, region] : r->table.all())
        if (int code = place_like(r, made, region, ret))
            return code;
    if (!r->followers)
        r->followers = std::make_shared<Followers>();
    std::vector<Range> shown;
    {
        std::lock_guard<std::mutex> guard(r->holders);
        shown = r->pins.ranges(0, r->nbytes, true);
    }
    // What live windows may write to at any moment is copied now.
    for (Range range : shown)
        for (const auto &[start, region] : r->table.all()) {
            Range part{std::max(range.start, region.start), std::min(range.stop, region.stop)};
            if (part.start >= part.stop || !region.file || !region.shared)
                continue;
            int error = made->shared_bytes.each(region.file->device(), region.file->inode(), region.in_file(part.start),
                                                region.in_file(part.stop),
                                                [&](Range pages) { return copy_pages(made, pages); });
            if (error)
                return system_error(error, region.file_name(), ret);
        }
    made->followed = r->followed;
    made->followed.push_back(r->followers);
    for (const auto &followers : made->followed)
        followers->add(made);
    return SA_OK;
} catch (const std::bad_alloc &) {
    return system_error(ENOMEM, "", ret);
}

int sa_has_snapshots(sa_reservation *r) {
    Shared lock(r->lock);
    return r->followers && r->followers->any();
}

int sa_keep_pages(sa_reservation *r, int64_t offset, int64_t nbytes, sa_report *ret) {
    Shared lock(r->lock);
    if (int code = check_bounds(r, offset, nbytes, ret))
        return code;
    uint64_t start = static_cast<uint64_t>(offset);
    int error = keep_old_range(r, {start, start + static_cast<uint64_t>(nbytes)});
    return error ? system_error(error, "", ret) : int{SA_OK};
}

int sa_keep_old(sa_reservation *r, int64_t offset, int64_t nbytes, sa_report *ret) try {
    Exclusive lock(r->lock);
    if (int code = check_bounds(r, offset, nbytes, ret))
        return code;
    if (!r->followers || !r->followers->any() || !nbytes)
        return SA_OK;
    uint64_t start = static_cast<uint64_t>(offset), stop = start + static_cast<uint64_t>(nbytes);
    Held held{r->followers->hold_all()};
    for (sa_reservation *snapshot : held.all) {
        Exclusive other(snapshot->lock);
        if (snapshot->closed)
            continue;
        int code = each_region(r, {start, stop}, [&](const Region &region, Range part) {
            if (!region.file || !region.shared)
                return int{SA_OK};
            return snapshot->shared_bytes.each(
                region.file->device(), region.file->inode(), region.in_file(part.start), region.in_file(part.stop),
                [&](Range pages) { return take_over(snapshot, pages, ret); });
        });
        if (code)
            return code;
    }
    return SA_OK;
} catch (const std::bad_alloc &) {
    return system_error(ENOMEM, "", ret);
}
