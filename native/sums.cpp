// Sums of small integers. numpy makes 64 bits of each item before it adds it, which takes three times as long.
#include <algorithm>
#include <cstring>

#include "core.h"

namespace {

// Partial sums of 32 bits, of as many items as cannot overflow them, which is what vectors are good at.
constexpr uint64_t kAtOnce = 1 << 15;

template <class Item, class Part> inline uint64_t add_up(const char *data, uint64_t count) {
    uint64_t sum = 0;
    for (uint64_t at = 0; at < count; at += kAtOnce) {
        Part part = 0;
        uint64_t n = std::min(count - at, kAtOnce);
        for (uint64_t i = 0; i < n; i++) {
            Item item;
            memcpy(&item, data + (at + i) * sizeof item, sizeof item);
            part += item;
        }
        sum += static_cast<uint64_t>(static_cast<int64_t>(part));
    }
    return sum;
}

inline uint64_t add_up(const char *data, uint64_t count, int itemsize, bool is_signed) {
    switch (itemsize) {
    case 1: return is_signed ? add_up<int8_t, int32_t>(data, count) : add_up<uint8_t, uint32_t>(data, count);
    case 2: return is_signed ? add_up<int16_t, int32_t>(data, count) : add_up<uint16_t, uint32_t>(data, count);
    default: return is_signed ? add_up<int32_t, int64_t>(data, count) : add_up<uint32_t, uint64_t>(data, count);
    }
}

#ifdef __x86_64__
__attribute__((target("avx2"), flatten)) uint64_t add_up_wide(const char *data, uint64_t count, int itemsize,
                                                              bool is_signed) {
    return add_up(data, count, itemsize, is_signed);
}

const bool is_wide = __builtin_cpu_supports("avx2");
#endif

}  // namespace

uint64_t sa_sum(const char *data, uint64_t count, int itemsize, int is_signed) {
#ifdef __x86_64__
    if (is_wide)
        return add_up_wide(data, count, itemsize, is_signed);
#endif
    return add_up(data, count, itemsize, is_signed);
}
