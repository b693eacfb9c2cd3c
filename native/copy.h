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

}  // namespace sparsearray
