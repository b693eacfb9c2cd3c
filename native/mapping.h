// What calls on whole pages check before they change anything.
#pragma once

#include <algorithm>
#include <mutex>
#include <shared_mutex>

#include "reservation.h"

namespace sparsearray {

using Exclusive = std::lock_guard<RwLock>;
using Shared = std::shared_lock<RwLock>;

enum class Pins { Any, Writable, None };

int check_pins(sa_reservation *r, Range range, bool writable_only, sa_report *ret);

// What every change of pages checks, under the exclusive lock: the range, huge pages that it would
// cut, and the pins that forbid it.
int check_change(sa_reservation *r, int64_t offset, int64_t nbytes, Pins forbidding, Range *range,
                 sa_report *ret);

// The same for calls that need every page of the range to be mapped already.
int check_mapped(sa_reservation *r, int64_t offset, int64_t nbytes, Pins forbidding, bool write,
                 Range *range, sa_report *ret);

// Calls visit(region, range) for the part of each region in the range.
template <class Visit> int each_region(sa_reservation *r, Range range, Visit visit) {
    for (uint64_t at = range.start; at < range.stop;) {
        Region *region = r->table.at_or_after(at);
        if (!region || region->start >= range.stop)
            break;
        Range part{std::max(at, region->start), std::min(range.stop, region->stop)};
        if (int code = visit(*region, part))
            return code;
        at = part.stop;
    }
    return SA_OK;
}

// Faults pages of one region in. EFAULT: `*bad` is the first that cannot be had.
int populate(sa_reservation *r, const Region &region, Range part, bool write, uint64_t *bad);

// A call that maps a file or anonymous memory as asked.
struct MapRequest {
    Range range;
    Region region;
    int flags;
    int fd;
    const char *name;
    int descriptor;  // one of sa_descriptor
    bool skip_holes;
    bool is_alike = false;  // to the file before
    OsFile facts = {};  // about `fd`, when it is mapped; before that, about a file that was mapped just now
};

// A window of a file, in a way that is one of sa_file_mode.
MapRequest file_request(Range range, int fd, const char *name, int descriptor, int64_t file_offset, int mode,
                        bool skip_holes);

// With the lock held exclusively, and the range checked.
int map_as_asked(sa_reservation *r, MapRequest &request, sa_report *ret);

}  // namespace sparsearray
