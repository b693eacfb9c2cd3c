// Rings: the newest items of a row without end, in memory that processes may share.
//
// The items are mapped twice side by side, so that any `count` of them in a row are one range of addresses:
//
//     items                    items + size               items + 2 size
//     | 6 | 7 | 8 | 9 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 2 | 3 | 4 | 5 |
//                       |<--- 2 to 9, one range --->|
//
// Two counters tell readers what they may trust, as in a sequence lock (Boehm, "Can seqlocks get along with
// programming language memory models?", MSPC 2012). The writer raises `claimed` before it touches an item, and
// `published` when all are there. A reader takes what is published, copies, and then looks whether a claim has
// come so far that it is for places that were copied. Nobody waits for anybody.
//
// One process writes, and in it one thread at a time.
//
// There are no checks against the region table here: the caller holds pins on all of it, and shared memory that is
// sealed against shrinking cannot fault.
#include <algorithm>
#include <mutex>
#include <new>
#include <vector>

#include "copy.h"
#include "reservation.h"

using namespace sparsearray;

namespace {

uint64_t load(const uint64_t *counter) { return __atomic_load_n(counter, __ATOMIC_RELAXED); }

uint64_t load_first(const uint64_t *counter) { return __atomic_load_n(counter, __ATOMIC_ACQUIRE); }

// GCC's thread sanitizer refuses fences; it sees a race here anyhow, which the second look makes harmless.
#ifdef __SANITIZE_THREAD__
void fence_after_claim() { __sync_synchronize(); }
void fence_before_look() { __sync_synchronize(); }
#else
void fence_after_claim() { __atomic_thread_fence(__ATOMIC_RELEASE); }
void fence_before_look() { __atomic_thread_fence(__ATOMIC_ACQUIRE); }
#endif

// The first item that no claim is for.
uint64_t oldest(const sa_ring *ring) {
    uint64_t claimed = load(ring->claimed);
    return claimed > ring->count ? claimed - ring->count : 0;
}

// Where an item lies. SAFETY: whatever the counters say, that is in the first view, and `count` items from there on
// end in the second.
char *place_of(const sa_ring *ring, uint64_t number) {
    return ring->items + number % ring->count * ring->itemsize;
}

bool lies_inside(const sa_ring *ring, const char *data, uint64_t nbytes) {
    uint64_t start = reinterpret_cast<uint64_t>(ring->items), at = reinterpret_cast<uint64_t>(data);
    return at < start + 2 * ring->count * ring->itemsize && start < at + nbytes;
}

}  // namespace

int sa_push_to_ring(sa_reservation *r, const sa_ring *ring, const char *data, uint64_t count) try {
    uint64_t kept = std::min(count, ring->count), nbytes = kept * ring->itemsize;
    data += (count - kept) * ring->itemsize;
    std::vector<char> copy;
    if (lies_inside(ring, data, nbytes)) {
        // Through the other view of the same pages, memmove cannot see what overlaps.
        copy.assign(data, data + nbytes);
        data = copy.data();
    }
    std::lock_guard<RwLock> alone(r->pushing);
    uint64_t end = load(ring->published) + count;
    // It is ahead where a writer has died: what that one began to write is no item, and stays claimed.
    if (load(ring->claimed) < end)
        __atomic_store_n(ring->claimed, end, __ATOMIC_RELAXED);
    // The claim is seen before any of the bytes.
    fence_after_claim();
    // Of more than there is room for, the rest is skipped at once: whoever dies from here on leaves a claim that is no
    // further ahead than the ring is long.
    if (count > kept)
        __atomic_store_n(ring->published, end - kept, __ATOMIC_RELEASE);
    copy_bytes(place_of(ring, end - kept), data, nbytes);
    __atomic_store_n(ring->published, end, __ATOMIC_RELEASE);
    return SA_OK;
} catch (const std::bad_alloc &) {
    return SA_SYSTEM;
}

uint64_t sa_read_ring(const sa_ring *ring, uint64_t start, uint64_t count, char *out) {
    // With what its writer released, all bytes of what is published are seen.
    load_first(ring->published);
    copy_bytes(out, place_of(ring, start), std::min(count, ring->count) * ring->itemsize);
    // All bytes are read before the claim is.
    fence_before_look();
    return oldest(ring);
}

int64_t sa_find_last(const sa_ring *ring, int64_t count) {
    uint64_t end = load_first(ring->published), n = static_cast<uint64_t>(count);
    if (count < 0 || n > end || (n && end - n < oldest(ring)))
        return -1;
    return static_cast<int64_t>((end - n) % ring->count);
}

uint64_t sa_count_pushed(const sa_ring *ring) { return load_first(ring->published); }

uint64_t sa_find_oldest(const sa_ring *ring) {
    // What the caller has read through windows is read before the claim.
    fence_before_look();
    return oldest(ring);
}
