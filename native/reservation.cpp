#include "reservation.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <new>
#include <set>
#include <shared_mutex>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "guard.h"
#include "os.h"

using namespace sparsearray;

// ---------------------------------------------------------------------------------- fork

namespace {

// Every live reservation, so that a forked child finds their locks free and their tables whole.
struct Registry {
    struct Earlier {
        bool operator()(const sa_reservation *a, const sa_reservation *b) const { return a->number < b->number; }
    };
    std::mutex lock;
    std::set<sa_reservation *, Earlier> all;
    uint64_t last = 0;
};

// Made when the module is loaded (see os_linux.cpp), and never destroyed: threads may outlive exit().
Registry &registry = *new Registry;

void before_fork() {
    registry.lock.lock();
    // Originals before their snapshots, as keep_old does. Shared is enough to keep mapping changes out, and does not
    // wait for a long copy.
    for (sa_reservation *r : registry.all)
        r->lock.lock_shared();
    snapshots_before_fork();
    for (sa_reservation *r : registry.all)
        r->holders.lock();
    guard_before_fork();
    fault_lock.lock();
}

void after_fork_in_parent() {
    damage_after_fork();
    fault_lock.unlock();
    guard_after_fork();
    snapshots_after_fork();
    for (sa_reservation *r : registry.all) {
        r->holders.unlock();
        r->lock.unlock_shared();
    }
    registry.lock.unlock();
}

void after_fork_in_child() {
    damage_after_fork();
    fault_lock.unlock();
    guard_after_fork();
    snapshots_after_fork();
    for (sa_reservation *r : registry.all) {
        r->holders.unlock();
        r->lock.init();
        r->pushing.init();
        r->placing = {0, 0};  // by a thread that the child does not have
    }
    registry.lock.unlock();
}

const int watch_error = pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);

// Where they lie, as long as they have their range: for signal handlers, under fault_lock.
using Places = std::map<const char *, sa_reservation *>;

Places &places = *new Places;

void remember(sa_reservation *r) {
    Places made = {{r->base, r}};
    std::lock_guard<std::mutex> lock(registry.lock);
    r->number = ++registry.last;
    registry.all.insert(r);
    std::lock_guard<FaultLock> held(fault_lock);
    places.insert(made.extract(made.begin()));
}

void forget(sa_reservation *r) {
    std::lock_guard<std::mutex> lock(registry.lock);
    registry.all.erase(r);
}

void forget_place(sa_reservation *r) {
    Places::node_type gone;
    std::lock_guard<FaultLock> held(fault_lock);
    gone = places.extract(r->base);
}

}  // namespace

sa_reservation *sparsearray::reservation_at(const char *address) {
    auto it = places.upper_bound(address);
    if (it == places.begin())
        return nullptr;
    sa_reservation *r = std::prev(it)->second;
    return address < r->base + r->nbytes ? r : nullptr;
}

void RwLock::init() {
    pthread_rwlockattr_t attributes;
    pthread_rwlockattr_init(&attributes);
#ifdef __GLIBC__
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
#endif
    pthread_rwlock_init(&lock_, &attributes);
    pthread_rwlockattr_destroy(&attributes);
}

// ---------------------------------------------------------------------------------- life

void sa_reservation::release_if_idle() {
    if (holds == 0 && taken && (closed || !owned)) {
        forget_place(this);
        if (lost.start)
            os_release(base, lost.start);
        if (lost.stop < reserved)
            os_release(base + lost.stop, reserved - lost.stop);
        taken = false;
    }
}

void sa_reservation::give_up(Range range) {
    std::lock_guard<std::mutex> guard(holders);
    lost = range;
    closed = true;
    table.clear();
    release_if_idle();
}

void sa_reservation::hold() {
    std::lock_guard<std::mutex> guard(holders);
    holds++;
}

void sa_reservation::drop_hold() {
    if (drop_one()) {
        forget(this);
        delete this;
    }
}

bool sa_reservation::drop_one() {
    std::lock_guard<std::mutex> guard(holders);
    holds--;
    release_if_idle();
    return holds == 0 && !owned;
}

// Structures that nobody needs any more, and that are taken out of the registry when no lock is held.
static std::atomic<sa_reservation *> dead{nullptr};

void sa_reservation::drop_hold_under_lock() {
    if (drop_one()) {
        next_dead = dead.load();
        while (!dead.compare_exchange_weak(next_dead, this)) {
        }
    }
}

static void bury_dead() {
    for (sa_reservation *r = dead.exchange(nullptr), *next; r; r = next) {
        next = r->next_dead;
        forget(r);
        delete r;
    }
}

uint64_t sa_page_size(void) { return os_page_size(); }

int sa_reserve(uint64_t nbytes, uint64_t alignment, sa_reservation **reservation, sa_report *ret) try {
    bury_dead();
    uint64_t page = os_page_size();
    if (nbytes == 0 || nbytes > INT64_MAX - page)
        return nbytes ? system_error(ENOMEM, "", ret) : SA_MISALIGNED;
    nbytes = (nbytes + page - 1) / page * page;
    uint64_t usual = os_alignment(nbytes);
    if (alignment && (alignment < page || (alignment & (alignment - 1))))
        return SA_MISALIGNED;
    uint64_t reserved = (nbytes + usual - 1) / usual * usual;
    if (watch_error)
        return system_error(watch_error, "", ret);
    auto r = std::make_unique<sa_reservation>();
    r->nbytes = nbytes;
    r->reserved = reserved;
    r->page_size = page;
    if (int error = os_reserve(reserved, std::max(alignment, usual), &r->base))
        return system_error(error, "", ret);
    try {
        remember(r.get());
    } catch (...) {
        os_release(r->base, reserved);
        throw;
    }
    *reservation = r.release();
    return SA_OK;
} catch (const std::bad_alloc &) {
    return system_error(ENOMEM, "", ret);
}

void sa_describe(const sa_reservation *r, sa_geometry *ret) {
    ret->address = reinterpret_cast<uint64_t>(r->base);
    ret->nbytes = r->nbytes;
    ret->reserved = r->reserved;
    ret->page_size = r->page_size;
}

static int close_unless_pinned(sa_reservation *r, sa_report *ret) {
    std::lock_guard<RwLock> lock(r->lock);
    std::lock_guard<std::mutex> guard(r->holders);
    if (r->closed)
        return SA_OK;
    PinSummary pins = r->pins.over(0, r->nbytes, false);
    if (pins.count) {
        ret->count = pins.count;
        ret->start = pins.start;
        ret->stop = pins.stop;
        return SA_PINNED;
    }
    r->closed = true;
    r->table.clear();
    r->release_if_idle();
    return SA_OK;
}

int sa_close(sa_reservation *r, sa_report *ret) {
    int code = close_unless_pinned(r, ret);
    if (!code)
        stop_following(r);
    return code;
}

void sa_release(sa_reservation **reservation) {
    sa_reservation *r = *reservation;
    *reservation = nullptr;
    bury_dead();
    if (!r)
        return;
    stop_following(r);
    {
        std::lock_guard<std::mutex> guard(r->holders);
        r->holds++;
        r->owned = false;
    }
    r->drop_hold();
}

// ---------------------------------------------------------------------------------- reports

namespace sparsearray {

static bool is_on_full_disk(const Region &region) {
    struct statvfs disk;
    return region.file && fstatvfs(region.file->fd(), &disk) == 0 && !disk.f_bavail;
}

int unknown_reason(const Region &region, bool write) {
    return write && is_on_full_disk(region) ? SA_NO_SPACE : SA_IO_ERROR;
}

int reason_of_fault(const Region &region, uint64_t at, bool write) {
    if (!region.file)
        return SA_IO_ERROR;
    uint64_t position = region.in_file(at), size = kUnknownSize;
    if (region.file_size != UINT64_MAX) {
        size = region.file->size_now();
        if (size == kUnknownSize)
            return SA_IO_ERROR;
        if (position >= size)
            return SA_FILE_TRUNCATED;
    }
    if (region.huge_page)
        return SA_NO_MEMORY;
    char byte;
    if (pread(region.file->fd(), &byte, 1, static_cast<off_t>(position)) < 0)
        return errno == ENOMEM ? SA_NO_MEMORY : SA_IO_ERROR;
    // A write takes space on the disk, and on a tmpfs so does looking at a hole.
    if (region.shared || !write) {
        uint64_t page = os_page_size(), start = position / page * page;
        int error = os_allocate(region.file->fd(), static_cast<int64_t>(start),
                                std::min(page, size - start));
        if (error == ENOSPC || error == EDQUOT || (error == EBADF && is_on_full_disk(region)))
            return SA_NO_SPACE;
        if (write && error && error != ENOTSUP)
            return SA_IO_ERROR;
    }
    return 0;
}

uint64_t still_in_file(const sa_reservation *r, const Region &region, uint64_t at, uint64_t n,
                       bool write) {
    uint64_t from = region.in_file(at), to = from + n;
    if (region.file_size == UINT64_MAX || (write && !region.shared))
        return n;
    if (!region.file->size_can_change() && to <= region.file_size)
        return n;
    // What was past the end when it was mapped reads as the zeros it was then.
    uint64_t wanted = write ? to : std::min(to, region.file_size);
    if (wanted <= from)
        return n;
    uint64_t size = region.file->size_now();
    if (size >= wanted)
        return n;
    // The page with the new end survives where it was copied on write, with all that is in it.
    uint64_t beyond = size % r->page_size;
    if (!region.shared && beyond && size >= region.in_file(region.start)) {
        uint64_t page = size - beyond - region.in_file(region.start) + region.start;
        if (page < region.stop && os_is_own_copy(r->base + page))
            size += r->page_size - beyond;
    }
    return size >= wanted ? n : size <= from ? 0 : size - from;
}

void copy_name(const char *name, sa_report *ret) {
    size_t n = std::min(strlen(name), sizeof ret->file - 1);
    memcpy(ret->file, name, n);
    ret->file[n] = 0;
}

int system_error(int error, const char *file, sa_report *ret) {
    if (error == ENOTSUP)
        return SA_UNSUPPORTED;
    ret->sys_errno = error;
    copy_name(file, ret);
    return SA_SYSTEM;
}

int access_error(int reason, bool write, uint64_t offset, uint64_t transferred, const char *file,
                 sa_report *ret) {
    ret->reason = reason;
    ret->write = write;
    ret->offset = offset;
    ret->transferred = transferred;
    copy_name(file, ret);
    return SA_ACCESS;
}

int check_pages(const sa_reservation *r, int64_t offset, int64_t nbytes, sa_report *ret) {
    if (int code = check_bounds(r, offset, 0, ret); code == SA_CLOSED || code == SA_NEGATIVE)
        return code;
    if (nbytes < 0)
        return SA_NEGATIVE;
    int64_t page = static_cast<int64_t>(r->page_size);
    if (nbytes == 0 || offset % page || nbytes % page)
        return SA_MISALIGNED;
    return check_bounds(r, offset, nbytes, ret);
}

}  // namespace sparsearray

namespace {
using Shared = std::shared_lock<RwLock>;
}  // namespace

// ---------------------------------------------------------------------------------- looking

int sa_regions(sa_reservation *r, sa_region *regions, uint64_t capacity, uint64_t *count) {
    Shared lock(r->lock);
    if (r->closed)
        return SA_CLOSED;
    *count = 0;
    const Region *previous = nullptr;
    for (const auto &[start, region] : r->table.all()) {
        bool joined = previous && previous->looks_joined_to(region);
        previous = &region;
        if (joined) {
            if (*count <= capacity)
                regions[*count - 1].nbytes += region.nbytes();
            continue;
        }
        if ((*count)++ >= capacity)
            continue;
        sa_region &out = regions[*count - 1];
        out.offset = region.start;
        out.nbytes = region.nbytes();
        out.file_offset = region.file ? region.file_offset : -1;
        out.file = region.file ? region.file->id() : 0;
        out.kind = region.kind;
        out.writable = region.writable();
    }
    return SA_OK;
}

void sa_file_name(sa_reservation *r, uint64_t file, sa_report *ret) {
    Shared lock(r->lock);
    ret->file[0] = 0;
    for (const auto &[start, region] : r->table.all())
        if (region.file && region.file->id() == file)
            return copy_name(region.file_name(), ret);
}

// ---------------------------------------------------------------------------------- windows

int sa_pin_range(sa_reservation *r, int64_t offset, int64_t nbytes, int writable, sa_pin **pin,
                 sa_report *ret) try {
    Shared lock(r->lock);
    if (int code = check_bounds(r, offset, nbytes, ret))
        return code;
    if (nbytes == 0)
        return SA_OK;
    uint64_t start = static_cast<uint64_t>(offset), stop = start + static_cast<uint64_t>(nbytes);
    bool can_write = true;
    for (uint64_t at = start; at < stop;) {
        Region *region = r->table.find(at);
        if (!region || !region->readable())
            return access_error(SA_UNMAPPED, writable == 1, at, 0, "", ret);
        if (!region->writable()) {
            can_write = false;
            if (writable == 1)
                return access_error(SA_READ_ONLY, true, at, 0, region->file_name(), ret);
        }
        at = region->stop;
    }
    bool can_fault = false;
    for (uint64_t at = start; at < stop;) {
        Region *region = r->table.find(at);
        if (region->file)
            __atomic_store_n(&region->shown, true, __ATOMIC_RELAXED);
        can_fault |= region->can_fault;
        at = region->stop;
    }
    if (can_fault)
        guard_rearm();
    ret->writable = writable == 0 ? 0 : can_write;
    if (ret->writable)
        if (int error = keep_old_range(r, {start, stop}))
            return system_error(error, "", ret);
    auto made = std::make_unique<sa_pin>();
    made->reservation = r;
    made->start = start;
    made->stop = stop;
    made->writable = ret->writable;
    std::lock_guard<std::mutex> guard(r->holders);
    r->pins.add(made.get());
    r->holds++;
    *pin = made.release();
    return SA_OK;
} catch (const std::bad_alloc &) {
    return system_error(ENOMEM, "", ret);
}

void sa_unpin(sa_pin **cell) {
    sa_pin *pin = *cell;
    *cell = nullptr;
    if (!pin)
        return;
    sa_reservation *r = pin->reservation;
    {
        std::lock_guard<std::mutex> guard(r->holders);
        r->pins.remove(pin);
    }
    delete pin;
    r->drop_hold();
}
