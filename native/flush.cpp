// What reaches the files behind windows, and what does not.
#include <algorithm>
#include <cerrno>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <set>
#include <shared_mutex>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include "guard.h"
#include "mapping.h"

using namespace sparsearray;

namespace {

struct Dirty {
    Range range;
    std::shared_ptr<File> file;
    int error;
};

struct DropHold {
    void operator()(sa_reservation *r) const { r->drop_hold(); }
};

// The system notes a time when a page becomes dirty, but not when more is written to it. Others that ask whether
// the file was changed look at the time, and at nothing else: so it is that of the last flush, at least.
void set_time(int fd) {
    const struct timespec now[2] = {{0, UTIME_OMIT}, {0, UTIME_NOW}};
    // Only its owner may leave one time as it is. Who may not do either has failed at nothing that was asked for.
    if (futimens(fd, now) < 0 && errno == EPERM)
        futimens(fd, nullptr);
}

// msync writes the range, fsync what the file system keeps about the file.
int write_back(sa_reservation *r, std::vector<Dirty> &dirty) {
    int first = 0;
    std::set<File *> synced;
    for (Dirty &part : dirty) {
        if (msync(r->base + part.range.start, part.range.nbytes(), MS_SYNC) < 0)
            part.error = errno;
        Borrowed fd = part.file->fd();
        if (fd >= 0 && synced.insert(part.file.get()).second) {
            set_time(fd);
            if (fsync(fd) < 0)
                part.error = errno;
        }
        first = first ? first : part.error;
    }
    return first;
}

// The kernel reports a lost write once; we keep saying it until the pages are mapped anew.
void remember_errors(sa_reservation *r, const std::vector<Dirty> &dirty) {
    for (auto &[start, region] : r->table.map())
        for (const Dirty &part : dirty)
            if (part.error && region.file == part.file && region.shared && region.may_write)
                region.flush_errno = part.error;
}

// What is damaged in a range, with the table locked: what the handler has noted, and what files have lost
// under windows that read as zero without a signal.
std::vector<sa_damage> list_damage(sa_reservation *r, Range range) {
    std::vector<sa_damage> found;
    std::vector<Damage> noted = r->damage.copy(range.start, range.stop);
    auto add = [&](const Region &region, uint64_t start, uint64_t stop, int reason, bool kept, bool is_told) {
        start = std::max({start, region.start, range.start});
        stop = std::min({stop, region.stop, range.stop});
        if (start >= stop)
            return;
        sa_damage *last = found.empty() ? nullptr : &found.back();
        if (last && last->offset + last->nbytes == start && last->reason == reason &&
            last->file == region.file->id() && last->told == is_told) {
            last->nbytes += stop - start;
            return;
        }
        found.push_back({start, stop - start, region.file->id(), reason, kept, is_told});
    };
    std::map<const File *, uint64_t> sizes;  // one look at each
    auto size_of = [&](const File *file) {
        auto [it, is_new] = sizes.try_emplace(file, 0);
        if (is_new)
            it->second = file->size_now();
        return it->second;
    };
    each_region(r, range, [&](const Region &region, Range part) {
        if (!region.file)
            return int{SA_OK};
        bool told = false;
        uint64_t lost = region.stop, end = region.stop;  // none
        if (__atomic_load_n(&region.shown, __ATOMIC_RELAXED) && region.file_size != UINT64_MAX &&
            size_of(region.file.get()) < std::min(region.file_size, region.in_file(region.stop))) {
            uint64_t good = still_in_file(r, region, region.start, region.nbytes(), false);
            told = region.file->is_told(size_of(region.file.get()));
            if (good < region.nbytes()) {
                lost = region.start + good;
                end = std::min(end, region.start + (region.file_size - region.in_file(region.start)));
            }
        }
        for (const Damage &damage : noted) {
            if (damage.stop <= part.start || part.stop <= damage.start)
                continue;
            add(region, lost, std::min(damage.start, end), SA_FILE_TRUNCATED, false, told);
            lost = std::max(lost, damage.stop);
            if (damage.reason == SA_FILE_TRUNCATED)
                told = region.file->is_told(size_of(region.file.get()));
            add(region, damage.start, damage.stop, damage.reason, damage.kept,
                damage.told || (told && damage.reason == SA_FILE_TRUNCATED));
        }
        add(region, lost, end, SA_FILE_TRUNCATED, false, told);
        return int{SA_OK};
    });
    return found;
}

void tell(sa_reservation *r, Range range) {
    r->damage.tell(range.start, range.stop);
    each_region(r, range, [](const Region &region, Range) {
        if (region.file && region.file_size != UINT64_MAX &&
            region.file->size_now() < std::min(region.file_size, region.in_file(region.stop)))
            region.file->tell_size();
        return int{SA_OK};
    });
}

// SA_ACCESS, for one that a region has.
int report(sa_reservation *r, const sa_damage &damage, sa_report *ret) {
    Region *region = r->table.find(damage.offset);
    ret->count = damage.nbytes;
    return access_error(damage.reason, damage.kept, damage.offset, 0, region->file_name(), ret);
}

Range pages_around(const sa_reservation *r, int64_t offset, int64_t nbytes) {
    uint64_t page = r->page_size, start = static_cast<uint64_t>(offset) / page * page;
    uint64_t stop = static_cast<uint64_t>(offset + nbytes);
    return {start, nbytes ? (stop + page - 1) / page * page : start};
}

}  // namespace

int sa_flush(sa_reservation *r, int64_t offset, int64_t nbytes, sa_report *ret) try {
    std::vector<Dirty> dirty;
    Range range;
    int sticky = 0;
    if (r->damage.any()) {
        Exclusive lock(r->lock);
        if (int code = check_bounds(r, offset, nbytes, ret))
            return code;
        restore_kept(r, pages_around(r, offset, nbytes), false);
    }
    {
        Shared lock(r->lock);
        if (int code = check_bounds(r, offset, nbytes, ret))
            return code;
        range = pages_around(r, offset, nbytes);
        each_region(r, range, [&](const Region &region, Range part) {
            if (region.file && region.shared && region.may_write) {
                dirty.push_back({part, region.file, 0});
                if (region.flush_errno && !sticky) {
                    sticky = region.flush_errno;
                    ret->offset = part.start;
                    system_error(sticky, region.file_name(), ret);
                }
            }
            return int{SA_OK};
        });
        r->hold();
    }
    // The disk may be slow: it keeps the memory, but no mapping change waits for it.
    std::unique_ptr<sa_reservation, DropHold> held(r);
    int error = write_back(r, dirty);
    if (error) {
        Exclusive lock(r->lock);
        remember_errors(r, dirty);
    }
    if (sticky)
        return SA_SYSTEM;
    for (const Dirty &part : dirty) {
        if (part.error) {
            ret->offset = part.range.start;
            return system_error(part.error, part.file->name().c_str(), ret);
        }
    }
    Exclusive lock(r->lock);
    std::vector<sa_damage> damage = list_damage(r, range);
    if (damage.empty())
        return SA_OK;
    tell(r, range);
    return report(r, damage[0], ret);
} catch (const std::bad_alloc &) {
    return system_error(ENOMEM, "", ret);
}

int sa_list_damage(sa_reservation *r, int to_tell, sa_damage *damage, uint64_t capacity,
                   uint64_t *count, sa_report *ret) try {
    Exclusive lock(r->lock);
    if (r->closed)
        return SA_CLOSED;
    Range range{0, r->nbytes};
    restore_kept(r, range, true);
    std::vector<sa_damage> found = list_damage(r, range);
    *count = found.size();
    if (*count <= capacity) {
        std::copy(found.begin(), found.end(), damage);
        if (to_tell)
            tell(r, range);
    }
    return SA_OK;
} catch (const std::bad_alloc &) {
    return system_error(ENOMEM, "", ret);
}

int sa_check_damage(sa_reservation *r, int64_t offset, int64_t nbytes, int to_tell, int lost_only,
                    sa_report *ret) try {
    ret->value = r->damage.any();
    if (!ret->value) {
        // The usual case, in which nobody waits for anybody.
        Shared lock(r->lock);
        if (r->closed)
            return SA_OK;
        if (int code = check_bounds(r, offset, nbytes, ret))
            return code;
        if (list_damage(r, pages_around(r, offset, nbytes)).empty())
            return SA_OK;
    }
    Exclusive lock(r->lock);
    if (r->closed)
        return SA_OK;
    if (int code = check_bounds(r, offset, nbytes, ret))
        return code;
    Range range = pages_around(r, offset, nbytes);
    restore_kept(r, range, false);
    const sa_damage *found = nullptr;
    std::vector<sa_damage> all = list_damage(r, range);
    for (const sa_damage &damage : all)
        if (!damage.told && !(lost_only && damage.kept) && (!found || damage.kept > found->kept))
            found = &damage;
    if (!found)
        return SA_OK;
    int code = report(r, *found, ret);
    if (to_tell)
        tell(r, range);
    return code;
} catch (const std::bad_alloc &) {
    return system_error(ENOMEM, "", ret);
}

int sa_forgive(sa_reservation *r, sa_report *) {
    Exclusive lock(r->lock);
    for (auto &[start, region] : r->table.map())
        region.flush_errno = 0;
    tell(r, {0, r->nbytes});
    return r->closed ? SA_CLOSED : SA_OK;
}

int sa_protect_windows(int on, sa_report *ret) {
    int error = guard_protect_windows(on != 0);
    return error ? system_error(error, "", ret) : SA_OK;
}

int sa_windows_are_protected(void) { return guard_protects_windows(); }
