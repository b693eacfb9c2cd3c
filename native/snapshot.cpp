#include "snapshot.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <shared_mutex>
#include <sys/mman.h>

#include "extents.h"
#include "guard.h"
#include "mapping.h"

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

// Gives the snapshot pages of its own for a range. What the file has lost, nobody can keep.
int copy_pages(sa_reservation *snapshot, Range range) {
    uint64_t page = snapshot->page_size;
    range = {range.start / page * page, (range.stop + page - 1) / page * page};
    for (uint64_t at = range.start; at < range.stop;) {
        const Region *region = snapshot->table.at_or_after(at);
        if (!region || region->start >= range.stop)
            break;
        Range part{std::max(at, region->start), std::min(range.stop, region->stop)};
        at = part.stop;
        if (!region->file || region->shared || !region->writable())
            continue;
        uint64_t bad;
        int error = populate(snapshot, *region, part, true, &bad);
        for (uint64_t start = part.start; error == EFAULT && start < part.stop; start += page)
            if (populate(snapshot, *region, {start, start + page}, true, &bad) == ENOMEM)
                error = ENOMEM;
        if (error && error != EFAULT)
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
// take away copied pages, too.
int take_over(sa_reservation *snapshot, Range range, sa_report *ret) {
    uint64_t page = snapshot->page_size;
    range = {range.start / page * page, (range.stop + page - 1) / page * page};
    std::vector<Region> parts;
    each_region(snapshot, range, [&](const Region &region, Range part) {
        if (region.file && !region.shared && region.readable()) {
            Region made;
            made.start = part.start;
            made.stop = part.stop;
            made.kind = SA_PRIVATE;
            made.prot = region.prot;
            parts.push_back(made);
        }
        return int{SA_OK};
    });
    for (Region &made : parts) {
        Range part{made.start, made.stop};
        std::vector<Range> runs;
        int error = find_stored(snapshot, part, &runs);
        snapshot->table.prepare();
        Placing placing(snapshot, part);
        if (!error)
            error = os_make_own(snapshot->base, part, made.prot, runs);
        if (error)
            return system_error(error, "", ret);
        snapshot->forget_pages(part.start, part.stop);
        snapshot->table.replace(std::move(made));
    }
    return SA_OK;
}

}  // namespace

int keep_old(sa_reservation *r, const Region &region, uint64_t start, uint64_t stop) try {
    if (!region.file || !region.shared || !r->followers || !r->followers->any())
        return 0;
    uint64_t from = region.in_file(start), to = region.in_file(stop);
    Held held{r->followers->hold_all()};
    for (sa_reservation *snapshot : held.all) {
        // It was made after its original: this order of locks is that of before_fork, too.
        std::shared_lock<RwLock> lock(snapshot->lock);
        if (snapshot->closed)
            continue;
        const File &file = *region.file;
        int error = snapshot->shared_bytes.each(file.device(), file.inode(), from, to,
                                                [&](Range pages) { return copy_pages(snapshot, pages); });
        if (error)
            return error;
    }
    return 0;
} catch (const std::bad_alloc &) {
    return ENOMEM;
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
    const std::shared_ptr<File> &file = region.file ? region.file : region.hole_of;
    if (!region.readable())
        return SA_OK;
    if (!file)
        return place_memory(snapshot, region, region.kind == SA_ZERO ? SA_ZERO : SA_PRIVATE, ret);
    Damage damage;
    if (r->damage.any() && find_damage(r, {region.start, region.stop}, true, &damage))
        return access_error(damage.reason, false, damage.start, 0, region.file_name(), ret);
    if (region.file) {
        uint64_t good = still_in_file(r, region, region.start, region.nbytes(), false);
        if (good < region.nbytes()) {
            file->tell_size();
            return access_error(SA_FILE_TRUNCATED, false, region.start + good, 0, region.file_name(), ret);
        }
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
