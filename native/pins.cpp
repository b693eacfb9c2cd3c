#include "pins.h"

#include <algorithm>

namespace sparsearray {

static int size_class(const sa_pin *pin) {
    uint64_t nbytes = pin->stop - pin->start;
    return nbytes <= 1 ? 0 : 64 - __builtin_clzll(nbytes - 1);
}

void PinTable::add(sa_pin *pin) {
    int k = size_class(pin);
    pin->place = classes_[pin->writable][k].emplace(pin->start, pin);
    used_[pin->writable] |= uint64_t{1} << k;
}

void PinTable::remove(sa_pin *pin) {
    int k = size_class(pin);
    auto &pins = classes_[pin->writable][k];
    pins.erase(pin->place);
    if (pins.empty())
        used_[pin->writable] &= ~(uint64_t{1} << k);
}

template <class Visit>
void PinTable::each_over(uint64_t start, uint64_t stop, bool writable_only, Visit visit) const {
    for (int writable = writable_only ? 1 : 0; writable < 2; writable++) {
        for (uint64_t left = used_[writable]; left; left &= left - 1) {
            int k = __builtin_ctzll(left);
            uint64_t reach = uint64_t{1} << k;
            const auto &pins = classes_[writable][k];
            auto it = pins.upper_bound(start > reach ? start - reach : 0);
            if (start <= reach)
                it = pins.begin();
            for (; it != pins.end() && it->first < stop; ++it)
                if (it->second->stop > start && !visit(*it->second))
                    return;
        }
    }
}

bool PinTable::any_over(uint64_t start, uint64_t stop, bool writable_only) const {
    bool found = false;
    each_over(start, stop, writable_only, [&](const sa_pin &) { return !(found = true); });
    return found;
}

PinSummary PinTable::over(uint64_t start, uint64_t stop, bool writable_only) const {
    PinSummary sum;
    each_over(start, stop, writable_only, [&](const sa_pin &pin) {
        sum.count++;
        sum.start = std::min(sum.start, pin.start);
        sum.stop = std::max(sum.stop, pin.stop);
        return true;
    });
    return sum;
}

std::vector<Range> PinTable::ranges(uint64_t start, uint64_t stop, bool writable_only) const {
    std::vector<Range> found;
    each_over(start, stop, writable_only, [&](const sa_pin &pin) {
        found.push_back({pin.start, pin.stop});
        return true;
    });
    return found;
}

}  // namespace sparsearray
