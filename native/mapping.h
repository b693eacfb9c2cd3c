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

}  // namespace sparsearray
