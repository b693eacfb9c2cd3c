// A reservation: a range of addresses, what is mapped in it, and who holds on to it.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <pthread.h>
#include <vector>

#include "core.h"
#include "damage.h"
#include "files.h"
#include "hints.h"
#include "pins.h"
#include "pool.h"
#include "snapshot.h"
#include "table.h"

namespace sparsearray {

// Shared for accesses, exclusive for mapping changes. Writers go first, or a stream of readers would
// keep them out for ever.
class RwLock {
  public:
    RwLock() { init(); }
    ~RwLock() { pthread_rwlock_destroy(&lock_); }
    RwLock(const RwLock &) = delete;
    RwLock &operator=(const RwLock &) = delete;
    void lock() { pthread_rwlock_wrlock(&lock_); }
    void unlock() { pthread_rwlock_unlock(&lock_); }
    void lock_shared() { pthread_rwlock_rdlock(&lock_); }
    void unlock_shared() { pthread_rwlock_unlock(&lock_); }
    // In a forked child, where the threads that held it are gone.
    void init();

  private:
    pthread_rwlock_t lock_;
};

}  // namespace sparsearray

struct sa_reservation {
    char *base = nullptr;
    uint64_t nbytes = 0;
    uint64_t reserved = 0;
    uint64_t page_size = 0;

    // Order: `lock` before `holders`.
    sparsearray::RwLock lock;
    sparsearray::RwLock pushing;  // to a ring, with `lock` held for reading
    bool closed = false;
    sparsearray::RegionTable table;
    sparsearray::DamageList damage;
    sparsearray::Range placing{0, 0};  // with fault_lock held: see Placing
    sparsearray::StoredHints hints;
    std::unique_ptr<sparsearray::TilePool> pool;  // of an array of tiles in memory
    sparsearray::FileSet files;
    std::shared_ptr<sparsearray::Followers> followers;  // its snapshots
    // Of a snapshot: the lists it is in, those of its original, and of what that is a snapshot of.
    std::vector<std::shared_ptr<sparsearray::Followers>> followed;
    sparsearray::SharedBytes shared_bytes;              // which its original can write to
    uint64_t number = 0;                                // in the order in which all were made
    sa_reservation *next_dead = nullptr;

    // Who keeps the memory: the owner, pins, and calls that work on it without `lock`.
    std::mutex holders;
    sparsearray::PinTable pins;
    uint64_t holds = 0;
    bool owned = true;
    bool taken = true;  // the range is not yet given back
    bool joinable = false;  // os_make_joinable was called
    sparsearray::Range lost{0, 0};  // somebody else's mapping may be there, after a failure

    // Adds a hold; drop_hold may free the reservation.
    void hold();
    void drop_hold();
    // The same while the lock of another one is held.
    void drop_hold_under_lock();
    // What was known of a range of pages, which are mapped anew, or no more.
    void forget_pages(uint64_t start, uint64_t stop) {
        damage.forget(start, stop);
        hints.forget(start / page_size, (stop - 1) / page_size);
    }
    // Takes one hold away; true if that was the last, and the owner is gone.
    bool drop_one();
    // With `lock` held exclusively: closes it, and never touches a range of it again.
    void give_up(sparsearray::Range range);
    // With `holders` held: gives the range back if nothing keeps it.
    void release_if_idle();
};

namespace sparsearray {

// While other pages are put in a range, and the table does not say so yet: a fault beside it, which may find that
// all behind it is lost, puts nothing over them.
class Placing {
  public:
    Placing(sa_reservation *r, Range range) : r_(r) { set(range); }
    ~Placing() { set({0, 0}); }
    Placing(const Placing &) = delete;
    Placing &operator=(const Placing &) = delete;

  private:
    void set(Range range) {
        std::lock_guard<FaultLock> held(fault_lock);
        r_->placing = range;
    }
    sa_reservation *r_;
};

// The reservation that holds an address, or null. With fault_lock held.
sa_reservation *reservation_at(const char *address);

// What all calls on bytes check first: no overflow, whatever the arguments.
inline int check_bounds(const sa_reservation *r, int64_t offset, int64_t nbytes, sa_report *ret) {
    if (r->closed)
        return SA_CLOSED;
    if (offset < 0 || nbytes < 0)
        return SA_NEGATIVE;
    uint64_t start = static_cast<uint64_t>(offset), n = static_cast<uint64_t>(nbytes);
    if (start > r->nbytes || n > r->nbytes - start) {
        ret->offset = start > r->nbytes ? start : r->nbytes;
        return SA_BOUNDS;
    }
    return SA_OK;
}

// The same for calls on whole pages.
int check_pages(const sa_reservation *r, int64_t offset, int64_t nbytes, sa_report *ret);

// For reports.
int system_error(int error, const char *file, sa_report *ret);
int access_error(int reason, bool write, uint64_t offset, uint64_t transferred, const char *file,
                 sa_report *ret);
void copy_name(const char *name, sa_report *ret);

// How many of the bytes at `at` of the region the file still stands behind. Bytes past the end in the
// file's last page read as zero without a signal, and what is written there is lost: so a write asks
// before it moves anything, and a read after.
uint64_t still_in_file(const sa_reservation *r, const Region &region, uint64_t at, uint64_t n,
                       bool write);
// Why the byte at `at` cannot be had, asked outside the signal handler; 0 if by now it can.
int reason_of_fault(const Region &region, uint64_t at, bool write);
// For a byte that cannot be had again and again, and nothing says why. ext4 has been seen to find room
// for a page, and none for the larger piece that it wanted.
int unknown_reason(const Region &region, bool write);

}  // namespace sparsearray
