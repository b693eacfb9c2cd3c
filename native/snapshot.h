// Snapshots: what a reservation holds now, for whoever changes it later.
//
// Use case: an array in a file, or in shared memory, is kept as it is while work on it goes on. Nothing is
// copied before it must be.
//
// How it works: where the original has a window of a file, its snapshot has a private one, whose pages are the
// file's until they are written, to either side. What is written to the snapshot is its own matter, by the
// system. Before a page is written through the original, keep_old gives the snapshot a copy of it: before a
// guarded write, and for all of a window that may write when that is made, for what happens in it nobody sees.
// Holes of the file are memory in the snapshot, as far as mappings go round. Other ways to the same file, of
// other processes or other reservations, are not seen: what they write shows until the page was copied.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <vector>

#include "os.h"

struct sa_reservation;

namespace sparsearray {

struct Region;

// The snapshots of a reservation, which it shares with them: each may go first.
class Followers {
  public:
    bool any() const { return any_.load(std::memory_order_acquire); }
    void add(sa_reservation *snapshot);
    void remove(sa_reservation *snapshot);
    // All there are, each with a hold.
    std::vector<sa_reservation *> hold_all();

  private:
    std::vector<sa_reservation *> all_;
    std::atomic<bool> any_{false};
};

// Which pages of a snapshot show bytes of files that its original can write to.
class SharedBytes {
  public:
    void add(dev_t device, ino_t inode, uint64_t in_file, Range pages);
    // Calls visit(range of pages) for what shows some of [start, stop) of a file.
    template <class Visit> int each(dev_t device, ino_t inode, uint64_t start, uint64_t stop, Visit visit) const {
        auto [first, last] = all_.equal_range({device, inode});
        for (auto it = first; it != last; ++it) {
            const Part &part = it->second;
            uint64_t from = start > part.in_file ? start : part.in_file;
            uint64_t to = part.in_file + part.pages.nbytes();
            to = stop < to ? stop : to;
            if (from < to)
                if (int error = visit(Range{part.pages.start + (from - part.in_file),
                                            part.pages.start + (to - part.in_file)}))
                    return error;
        }
        return 0;
    }

  private:
    struct Part {
        uint64_t in_file;
        Range pages;
    };
    std::multimap<std::pair<dev_t, ino_t>, Part> all_;
};

// Before [start, stop) of a region of the reservation is written, with its lock held: has its snapshots keep
// what is there. 0 or an errno; then some may have done so.
int keep_old(sa_reservation *r, const Region &region, uint64_t start, uint64_t stop);
// The same for many ranges of the region.
int keep_old_runs(sa_reservation *r, const Region &region, const std::vector<Range> &runs);
// The same for a range of any regions.
int keep_old_range(sa_reservation *r, Range range);

// A snapshot that is closed follows no more. Not with a lock of its own held.
void stop_following(sa_reservation *snapshot);

void snapshots_before_fork();
void snapshots_after_fork();

}  // namespace sparsearray
