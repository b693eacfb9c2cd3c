// Windows that survive the loss of their file.
//
// Use case: numpy works on a window of a file that somebody cuts short, that the disk cannot read, or
// that a full disk has no room for. Nothing can raise from inside numpy, so the signal handler puts
// other pages in the place of those that cannot be had, notes that as damage, and numpy goes on. Who
// asks later is told.
//
// How it works:
// 1. on_fault finds the reservation and the region of the address. Tables of all reservations change
//    under fault_lock only, so that it can look things up; no other lock is held by a thread whose
//    window faults that the handler might need.
// 2. What the file lost at its end is replaced in one step, however large: pages of zeros. So is what
//    the disk cannot read, page by page at first, then in steps that double.
// 3. What has no room is replaced by pages of a file in memory, the spare, as far as the hole in the
//    window's file reaches. What is written there stays, and restore_kept moves it into the file.
// 4. Damage is told until the pages are mapped anew.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <sched.h>
#include <vector>

#include "os.h"

struct sa_reservation;

namespace sparsearray {

struct Region;

// A spin lock, as a signal handler needs it: held for a few lines, never while a window is touched.
class FaultLock {
  public:
    void lock() {
        while (flag_.test_and_set(std::memory_order_acquire))
            sched_yield();
    }
    void unlock() { flag_.clear(std::memory_order_release); }

  private:
    std::atomic_flag flag_ = ATOMIC_FLAG_INIT;
};

extern FaultLock fault_lock;
using FaultHeld = std::lock_guard<FaultLock>;

// Pages of a reservation that lost their file.
struct Damage {
    uint64_t start;
    uint64_t stop;
    int reason;      // sa_reason
    bool told;       // somebody has been told
    bool kept;       // for want of room: what is written there can still go to the file
    bool of_hole;    // the file had nothing there
    int spare;       // the file in memory that it lies in, or -1
    uint64_t spare_offset;
    uint64_t nbytes() const { return stop - start; }
};

// The rest of `damage` from `start` on.
inline Damage from(const Damage &damage, uint64_t start) {
    Damage rest = damage;
    rest.spare_offset += start - damage.start;
    rest.start = start;
    return rest;
}

// What of it comes before `stop`.
inline Damage until(const Damage &damage, uint64_t stop) {
    Damage part = damage;
    part.stop = stop;
    return part;
}

// Sorted and disjoint. Nodes come from a pool that a signal handler can take from.
class DamageList {
  public:
    DamageList() = default;
    ~DamageList() { forget(0, UINT64_MAX); }
    DamageList(const DamageList &) = delete;
    DamageList &operator=(const DamageList &) = delete;

    // Whether there is any. Without a lock.
    bool any() const { return any_.load(std::memory_order_acquire); }
    // Leaves out what lies in a range, which is mapped anew.
    void forget(uint64_t start, uint64_t stop);
    void tell(uint64_t start, uint64_t stop);
    // What overlaps a range.
    std::vector<Damage> copy(uint64_t start, uint64_t stop);

    // With fault_lock held:
    // `damage` overlaps no other. False: no memory.
    bool add(const Damage &damage);
    // The first that ends after `at`, or null.
    Damage *at_or_after(uint64_t at);
    // As `forget`; but what is kept stays there where `drop` is false.
    void cut(uint64_t start, uint64_t stop, bool drop = true);
    // Its file ends before what is kept in a range by now: that is lost.
    void lose(uint64_t start, uint64_t stop);

  private:
    struct Node {
        Damage damage;
        Node *next;
    };
    friend struct NodePool;

    Node *first_ = nullptr;
    std::atomic<bool> any_{false};
};

// Whether what cannot be had at an address was part of a window, which has other pages now. For the signal
// handler.
bool divert_fault(const char *address);

// What is damaged first in a range, and is told now; false if nothing is. Room that is missing is no matter
// to who reads zeros.
bool find_damage(sa_reservation *r, Range range, bool write, Damage *ret);

// The pages of kept damage that hold something, added as runs in the reservation. 0 or an errno.
int find_kept_pages(const sa_reservation *r, const Damage &damage, std::vector<Range> *ret);

// With the lock held exclusively: moves what is kept in a range into its files, as far as there is room,
// and maps those again; what cannot be moved stays damage. `empty_only`: only where nothing is kept.
void restore_kept(sa_reservation *r, Range range, bool empty_only);

// In both processes: what they keep from now on is not shared.
void damage_after_fork();

}  // namespace sparsearray
