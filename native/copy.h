// How bytes are copied: by libc, except where that is slow or begins at the wrong end.
#pragma once

#include <cstdint>
#include <cstring>

namespace sparsearray {

// glibc copies 2 KiB to 512 KiB with `rep movsb`, which some x86 processors run at a tenth of its speed
// when the target begins 1 to 63 bytes after the source, modulo a page: just as an array from malloc
// (a page and 16 bytes) lies to a mapping (a page). A plain loop does not care.
inline bool is_slow_for_memmove(const char *to, const char *from, uint64_t n) {
#ifdef __x86_64__
    uint64_t ahead = reinterpret_cast<uint64_t>(to) - reinterpret_cast<uint64_t>(from);
    return ahead % 4096 - 1 < 63 && n >= 2048 && n < (1 << 20);
#else
    (void)to, (void)from, (void)n;
    return false;
#endif
}

// Whether memmove may begin at the end, as glibc does where source and target lie much alike in their
// pages: on a disk that fills up, the last bytes would then be there and the first ones not.
inline bool is_backward_in_memmove(const char *to, const char *from, uint64_t n) {
    uint64_t ahead = reinterpret_cast<uint64_t>(to) - reinterpret_cast<uint64_t>(from);
    return ahead % 4096 < 512 && n >= 512;
}

inline bool overlap(const char *to, const char *from, uint64_t n) {
    uint64_t ahead = reinterpret_cast<uint64_t>(to) - reinterpret_cast<uint64_t>(from);
    return ahead < n || 0 - ahead < n;
}

inline void copy_forward(char *to, const char *from, uint64_t n) {
    for (; n >= 64; to += 64, from += 64, n -= 64) {
        memcpy(to, from, 64);             // some moves through registers,
        asm volatile("" : : : "memory");  // which must not become one memcpy again
    }
    memcpy(to, from, n);
}

inline void copy_bytes(char *to, const char *from, uint64_t n) {
    if (overlap(to, from, n))
        memmove(to, from, n);
    else if (__builtin_expect(is_slow_for_memmove(to, from, n), 0))
        copy_forward(to, from, n);
    else
        memcpy(to, from, n);
}

// For writes that a full disk can stop.
inline void copy_in_order(char *to, const char *from, uint64_t n) {
    if (is_backward_in_memmove(to, from, n) && !overlap(to, from, n))
        copy_forward(to, from, n);
    else
        copy_bytes(to, from, n);
}

// One record of 1, 2, 4 or 8 bytes by a single instruction, others by memcpy. Where it lies in the reservation need
// not be aligned; where it is, the access is not torn.
template <class T> void load_one(void *to, const char *ours) {
    struct __attribute__((packed)) Unaligned {
        T value;
    };
    T value = reinterpret_cast<const volatile Unaligned *>(ours)->value;
    memcpy(to, &value, sizeof value);
}

template <class T> void store_one(char *ours, const void *from) {
    struct __attribute__((packed)) Unaligned {
        T value;
    };
    T value;
    memcpy(&value, from, sizeof value);
    reinterpret_cast<volatile Unaligned *>(ours)->value = value;
}

inline void load_record(char *to, const char *ours, uint64_t n) {
    switch (n) {
    case 1: return load_one<uint8_t>(to, ours);
    case 2: return load_one<uint16_t>(to, ours);
    case 4: return load_one<uint32_t>(to, ours);
    case 8: return load_one<uint64_t>(to, ours);
    default: memcpy(to, ours, n);
    }
}

inline void store_record(char *ours, const char *from, uint64_t n) {
    switch (n) {
    case 1: return store_one<uint8_t>(ours, from);
    case 2: return store_one<uint16_t>(ours, from);
    case 4: return store_one<uint32_t>(ours, from);
    case 8: return store_one<uint64_t>(ours, from);
    default: memcpy(ours, from, n);
    }
}

}  // namespace sparsearray
