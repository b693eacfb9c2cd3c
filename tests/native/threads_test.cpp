// Many threads on one reservation, without Python: readers, writers, mappers and pins at once.
//
// Files hold their own number in every byte, private memory and zero pages hold zeros, writers write
// zeros only: so a read over one mapping call's range shows one number everywhere, the one from before
// the call or the one from after, or is refused. Ends with 0, or with the line that saw something else.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "core.h"

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "line %d: %s\n", __LINE__, #condition);                                \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

constexpr int kFiles = 3;
constexpr int64_t kPages = 8;
constexpr int kSlots = 4;  // ranges of kPages pages that are mapped as one

static int64_t nbytes;
static sa_reservation *r;
static int files[kFiles];
static std::atomic<bool> done{false};

static unsigned next_random(unsigned *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static bool refused(int code) { return code == SA_ACCESS || code == SA_PINNED; }

static void check_uniform(const char *bytes) {
    for (int64_t i = 1; i < nbytes; i++)
        CHECK(bytes[i] == bytes[0]);
    CHECK(bytes[0] >= 0 && bytes[0] <= kFiles);
}

static void map_things(unsigned seed) {
    sa_report report;
    for (int i = 0; i < 3000; i++) {
        int64_t at = next_random(&seed) % kSlots * nbytes;
        int what = static_cast<int>(next_random(&seed) % 7), code;
        if (what < kFiles)
            code = sa_map_file(r, at, nbytes, files[what], "file", 0, 0,
                               static_cast<int>(next_random(&seed) % 3) & ~SA_FILE_WRITE,
                               static_cast<int>(next_random(&seed) % 2), &report);
        else if (what == 3)
            code = sa_alloc(r, at, nbytes, 0, &report);
        else if (what == 4)
            code = sa_map_zero(r, at, nbytes, &report);
        else if (what == 5)
            code = sa_unmap(r, at, nbytes, &report);
        else
            code = sa_set_writable(r, at, nbytes, 0, &report);
        CHECK(code == SA_OK || refused(code));
    }
}

static void read_things(unsigned seed) {
    sa_report report;
    std::vector<char> found(static_cast<size_t>(nbytes));
    std::vector<int64_t> offsets(static_cast<size_t>(nbytes));
    while (!done) {
        int64_t at = next_random(&seed) % kSlots * nbytes;
        int code = sa_read(r, at, nbytes, found.data(), &report);
        CHECK(code == SA_OK || code == SA_ACCESS);
        if (code == SA_OK)
            check_uniform(found.data());
        for (int64_t i = 0; i < nbytes; i++)
            offsets[static_cast<size_t>(i)] = at + i;
        code = sa_gather(r, offsets.data(), offsets.size(), 1, found.data(), &report);
        CHECK(code == SA_OK || code == SA_ACCESS);
        if (code == SA_OK)
            check_uniform(found.data());
        uint64_t count;
        sa_region regions[64];
        CHECK(sa_regions(r, regions, 64, &count) == SA_OK && count <= kSlots + 2);
        CHECK(sa_read_record(r, at + nbytes - 8, 8, &report) <= SA_OK);
    }
}

// What a pin holds stays as it is, whatever the others do.
static void pin_things(unsigned seed) {
    sa_report report;
    sa_geometry geometry;
    sa_describe(r, &geometry);
    while (!done) {
        int64_t at = next_random(&seed) % kSlots * nbytes;
        sa_pin *pin = nullptr;
        int code = sa_pin_range(r, at, nbytes, 0, &pin, &report);
        CHECK(code == SA_OK || code == SA_ACCESS);
        if (code != SA_OK)
            continue;
        const volatile char *memory = reinterpret_cast<char *>(geometry.address) + at;
        char first = memory[0];
        for (int64_t i = 0; i < nbytes; i += 512)
            CHECK(memory[i] == first);
        CHECK(first >= 0 && first <= kFiles);
        sa_unpin(&pin);
    }
}

// Atomics in a range of their own.
static void count_things() {
    sa_report report;
    for (int i = 0; i < 2000; i++)
        CHECK(sa_atomic(r, kSlots * nbytes, 8, SA_ATOMIC_ADD, 1, 0, &report) == SA_OK);
}

// A file in a range of its own is cut short and grows back. Not under ThreadSanitizer, whose own signal
// handler blocks all signals: a jump out of it leaves them blocked, and the next fault is the last.
[[maybe_unused]] static void cut_things(int fd) {
    sa_report report;
    int64_t at = (kSlots + 1) * nbytes;
    std::vector<char> found(static_cast<size_t>(nbytes));
    for (int i = 0; i < 1000; i++) {
        CHECK(ftruncate(fd, i % 2 ? nbytes : nbytes / 2 + 100) == 0);
        int code = sa_read(r, at, nbytes, found.data(), &report);
        CHECK(code == SA_OK || (code == SA_ACCESS && report.reason == SA_FILE_TRUNCATED));
        code = sa_fill(r, at, nbytes, 0, &report);
        CHECK(code == SA_OK || (code == SA_ACCESS && report.reason == SA_FILE_TRUNCATED));
    }
}

static int make_file(int value) {
    char name[] = "file-XXXXXX";
    int fd = mkstemp(name);
    CHECK(fd >= 0 && unlink(name) == 0);
    std::vector<char> bytes(static_cast<size_t>(nbytes), static_cast<char>(value));
    CHECK(write(fd, bytes.data(), bytes.size()) == nbytes);
    return fd;
}

int main() {
    sa_report report;
    nbytes = kPages * static_cast<int64_t>(sa_page_size());
    CHECK(sa_reserve(static_cast<uint64_t>((kSlots + 2) * nbytes), 0, &r, &report) == SA_OK);
    for (int i = 0; i < kFiles; i++)
        files[i] = make_file(i + 1);
    int own[] = {make_file(0), make_file(0)};
    for (int i = 0; i < 2; i++)
        CHECK(sa_map_file(r, (kSlots + i) * nbytes, nbytes, own[i], "own", 0, 0, SA_FILE_WRITE,
                          0, &report) == SA_OK);
    std::vector<std::thread> busy, waiting;
    for (unsigned i = 0; i < 2; i++) {
        busy.emplace_back(map_things, i + 1);
        busy.emplace_back(count_things);
#ifndef __SANITIZE_THREAD__
        busy.emplace_back(cut_things, own[1]);
#endif
        waiting.emplace_back(read_things, i + 10);
        waiting.emplace_back(pin_things, i + 20);
    }
    for (std::thread &thread : busy)
        thread.join();
    done = true;
    for (std::thread &thread : waiting)
        thread.join();
    CHECK(sa_atomic(r, kSlots * nbytes, 8, SA_ATOMIC_LOAD, 0, 0, &report) == SA_OK);
    CHECK(report.value == 4000);
    CHECK(sa_close(r, &report) == SA_OK);
    sa_release(&r);
    return 0;
}
