// The pins of live windows, and the question that every mapping change asks of them: does any lie
// over these pages?
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "core.h"
#include "os.h"

struct sa_pin {
    sa_reservation *reservation;
    uint64_t start;
    uint64_t stop;
    bool writable;
    std::multimap<uint64_t, sa_pin *>::iterator place;
};

namespace sparsearray {

struct PinSummary {
    uint64_t count = 0;
    uint64_t start = UINT64_MAX;
    uint64_t stop = 0;
};

// Intervals by size class: class k holds those of 2^(k-1) < length <= 2^k, sorted by start. What
// overlaps [start, stop) then begins less than 2^k before it, so one ordered search a class finds it.
class PinTable {
  public:
    void add(sa_pin *pin);
    void remove(sa_pin *pin);
    bool any_over(uint64_t start, uint64_t stop, bool writable_only) const;
    PinSummary over(uint64_t start, uint64_t stop, bool writable_only) const;
    // What each of them spans.
    std::vector<Range> ranges(uint64_t start, uint64_t stop, bool writable_only) const;

  private:
    // Calls visit(pin) for each over the range until it returns false.
    template <class Visit>
    void each_over(uint64_t start, uint64_t stop, bool writable_only, Visit visit) const;

    std::multimap<uint64_t, sa_pin *> classes_[2][64];
    uint64_t used_[2] = {0, 0};  // bit k: class k is not empty
};

}  // namespace sparsearray
