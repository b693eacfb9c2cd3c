// The C interface of native/api.h, used alone, without Python: what each function does and refuses.
//
// Ends with 0, or with the line of the first check that failed.
#include <cerrno>
#include <cinttypes>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#include "core.h"

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "line %d: %s (errno %d)\n", __LINE__, #condition, errno);              \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static int64_t page;
static sa_report report;

static sa_reservation *reserve(int64_t pages) {
    sa_reservation *r = nullptr;
    CHECK(sa_reserve(static_cast<uint64_t>(pages * page), 0, &r, &report) == SA_OK);
    return r;
}

static char *base(const sa_reservation *r) {
    sa_geometry geometry;
    sa_describe(r, &geometry);
    return reinterpret_cast<char *>(geometry.address);
}

// A file of so many pages, each filled with its number plus one.
static int make_file(int64_t pages) {
    char name[] = "file-XXXXXX";
    int fd = mkstemp(name);
    CHECK(fd >= 0 && unlink(name) == 0);
    std::vector<char> bytes(static_cast<size_t>(page));
    for (int64_t i = 0; i < pages; i++) {
        memset(bytes.data(), static_cast<int>(i + 1), bytes.size());
        CHECK(write(fd, bytes.data(), bytes.size()) == page);
    }
    return fd;
}

static bool all_are(const char *bytes, int64_t nbytes, int value) {
    for (int64_t i = 0; i < nbytes; i++)
        if (bytes[i] != static_cast<char>(value))
            return false;
    return true;
}

static void test_reserve() {
    sa_reservation *r = nullptr;
    CHECK(sa_reserve(0, 0, &r, &report) < 0);
    CHECK(sa_reserve(UINT64_MAX, 0, &r, &report) < 0);
    CHECK(sa_reserve(INT64_MAX, 0, &r, &report) < 0);
    CHECK(sa_reserve(1, 3, &r, &report) == SA_MISALIGNED);
    CHECK(sa_reserve(1, UINT64_C(1) << 63, &r, &report) < 0);
    CHECK(r == nullptr);
    for (uint64_t alignment = static_cast<uint64_t>(page); alignment <= UINT64_C(1) << 34; alignment *= 4) {
        CHECK(sa_reserve(1, alignment, &r, &report) == SA_OK);
        sa_geometry geometry;
        sa_describe(r, &geometry);
        CHECK(geometry.address % alignment == 0 && geometry.nbytes == sa_page_size());
        sa_release(&r);
    }
    sa_pin *none = nullptr;
    sa_release(&r);  // emptied by the one before
    sa_unpin(&none);
}

static void test_ranges() {
    sa_reservation *r = reserve(4);
    const int64_t ends[] = {INT64_MIN, INT64_MIN + 1, -page, -1, 0, 1, page - 1, page, 3 * page,
                            4 * page, 4 * page + 1, 5 * page, INT64_MAX - page, INT64_MAX};
    char byte = 0;
    for (int64_t offset : ends) {
        for (int64_t nbytes : ends) {
            bool inside = offset >= 0 && nbytes >= 0 && offset <= 4 * page && nbytes <= 4 * page - offset;
            bool pages = inside && nbytes && offset % page == 0 && nbytes % page == 0;
            CHECK((sa_alloc(r, offset, nbytes, 0, &report) == SA_OK) == pages);
            CHECK((sa_map_zero(r, offset, nbytes, &report) == SA_OK) == pages);
            CHECK((sa_unmap(r, offset, nbytes, &report) == SA_OK) == pages);
            int code = sa_read(r, offset, nbytes, &byte, &report);
            CHECK(code == (inside ? (nbytes ? SA_ACCESS : SA_OK)
                                  : (offset < 0 || nbytes < 0 ? SA_NEGATIVE : SA_BOUNDS)));
            code = sa_fill(r, offset, nbytes, 0, &report);
            CHECK(code == SA_OK ? inside && !nbytes : code < 0);
            CHECK(sa_set_writable(r, offset, nbytes, 1, &report) < 0);
            CHECK(sa_decommit(r, offset, nbytes, &report) < 0);
            CHECK(sa_commit(r, offset, nbytes, &report) < 0);
        }
    }
    sa_release(&r);
}

static void test_bytes() {
    sa_reservation *r = reserve(8);
    CHECK(sa_alloc(r, page, 3 * page, 0, &report) == SA_OK);
    CHECK(sa_map_zero(r, 4 * page, page, &report) == SA_OK);
    std::vector<char> data(static_cast<size_t>(2 * page), 7);
    CHECK(sa_write(r, page + 5, 2 * page, data.data(), &report) == SA_OK);
    CHECK(all_are(base(r) + page + 5, 2 * page, 7) && base(r)[page + 4] == 0);
    CHECK(sa_write(r, 3 * page, 2 * page, data.data(), &report) == SA_ACCESS);
    CHECK(report.reason == SA_READ_ONLY && report.write && report.transferred == 0);
    CHECK(report.offset == static_cast<uint64_t>(4 * page));
    CHECK(all_are(base(r) + 3 * page + 5, page - 5, 0));
    CHECK(sa_fill(r, 3 * page, page, 9, &report) == SA_OK);
    std::vector<char> found(static_cast<size_t>(2 * page), 1);
    CHECK(sa_read(r, 3 * page, 2 * page, found.data(), &report) == SA_OK);
    CHECK(all_are(found.data(), page, 9) && all_are(found.data() + page, page, 0));
    CHECK(sa_read(r, 4 * page + 1, 2 * page, found.data(), &report) == SA_ACCESS);
    CHECK(report.reason == SA_UNMAPPED && report.offset == static_cast<uint64_t>(5 * page));
    int64_t offsets[] = {page + 5, 3 * page - 1, 3 * page, 4 * page - 2};
    uint32_t records[4];
    CHECK(sa_gather(r, offsets, 4, 4, reinterpret_cast<char *>(records), &report) == SA_OK);
    for (int i = 0; i < 4; i++)
        CHECK(memcmp(&records[i], base(r) + offsets[i], 4) == 0);
    offsets[2] = 5 * page - 3;
    CHECK(sa_gather(r, offsets, 4, 4, reinterpret_cast<char *>(records), &report) == SA_ACCESS);
    CHECK(report.value == 2 && report.offset == static_cast<uint64_t>(5 * page));
    CHECK(sa_scatter(r, offsets, 4, 4, reinterpret_cast<char *>(records), &report) == SA_ACCESS);
    offsets[2] = INT64_MIN;
    CHECK(sa_gather(r, offsets, 4, 4, reinterpret_cast<char *>(records), &report) == SA_NEGATIVE);
    offsets[2] = INT64_MAX;
    CHECK(sa_gather(r, offsets, 4, 4, reinterpret_cast<char *>(records), &report) == SA_BOUNDS);
    CHECK(sa_atomic(r, page, 4, SA_ATOMIC_ADD, 3, 0, &report) == SA_OK && report.value == 0);
    CHECK(sa_atomic(r, page + 1, 8, SA_ATOMIC_ADD, 3, 0, &report) == SA_MISALIGNED);
    CHECK(sa_atomic(r, page, 3, SA_ATOMIC_ADD, 3, 0, &report) == SA_MISALIGNED);
    for (uint64_t nbytes : {1, 2, 3, 4, 7, 8, 16, 63, 64})
        CHECK(sa_read_record(r, page + 7, nbytes, &report) == SA_OK &&
              memcmp(report.record, base(r) + page + 7, nbytes) == 0);
    CHECK(sa_read_record(r, page, 65, &report) < 0);
    sa_release(&r);
}

static uint64_t count_regions(sa_reservation *r, std::vector<sa_region> *ret) {
    uint64_t count = 0;
    CHECK(sa_regions(r, nullptr, 0, &count) == SA_OK);
    ret->resize(count + 1);
    memset(ret->data(), 0x55, ret->size() * sizeof(sa_region));
    CHECK(sa_regions(r, ret->data(), count, &count) == SA_OK);
    CHECK(all_are(reinterpret_cast<char *>(&ret->back()), sizeof(sa_region), 0x55));
    return count;
}

static void test_regions_join() {
    sa_reservation *r = reserve(2000);
    std::vector<sa_region> regions;
    for (int64_t i = 0; i < 1000; i++)
        CHECK(sa_alloc(r, 2 * i * page, page, 0, &report) == SA_OK);
    CHECK(count_regions(r, &regions) == 1000);
    for (int64_t i = 999; i >= 0; i--)
        CHECK(sa_alloc(r, (2 * i + 1) * page, page, 0, &report) == SA_OK);
    CHECK(count_regions(r, &regions) == 1);
    CHECK(regions[0].nbytes == static_cast<uint64_t>(2000 * page) && regions[0].kind == SA_PRIVATE);
    CHECK(sa_set_writable(r, 5 * page, 3 * page, 0, &report) == SA_OK);
    CHECK(count_regions(r, &regions) == 3 && !regions[1].writable);
    CHECK(sa_set_writable(r, 0, 2000 * page, 1, &report) == SA_OK);
    CHECK(count_regions(r, &regions) == 1);
    sa_release(&r);
}

static void test_files() {
    sa_reservation *r = reserve(16);
    int fd = make_file(4);
    CHECK(sa_map_file(r, 0, 4 * page, fd, "the file", 0, 0, SA_FILE_READ, 0, &report) == SA_OK);
    CHECK(sa_map_file(r, 8 * page, 4 * page, fd, "the file", 0, 0, SA_FILE_WRITE, 0, &report) == SA_OK);
    CHECK(sa_map_file(r, 12 * page, 5 * page, fd, "the file", 0, 0, SA_FILE_READ, 0, &report) ==
          SA_BOUNDS);
    CHECK(sa_map_file(r, 0, 5 * page, fd, "the file", 0, 0, SA_FILE_READ, 0, &report) == SA_FILE_END);
    CHECK(report.count == static_cast<uint64_t>(4 * page) && !strcmp(report.file, "the file"));
    CHECK(sa_map_file(r, 0, page, -1, "", 0, 0, SA_FILE_READ, 0, &report) == SA_SYSTEM);
    CHECK(sa_map_raw(r, 0, page, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, "", 0, 0, &report) ==
          SA_BAD_FLAG);
    CHECK(!strcmp(report.file, "MAP_FIXED"));
    CHECK(ftruncate(fd, page + 100) == 0);
    std::vector<char> found(static_cast<size_t>(4 * page), 1);
    CHECK(sa_read(r, 0, 4 * page, found.data(), &report) == SA_ACCESS);
    CHECK(report.reason == SA_FILE_TRUNCATED && report.transferred == static_cast<uint64_t>(page + 100));
    CHECK(all_are(found.data(), page, 1) && all_are(found.data() + page, 100, 2));
    CHECK(sa_fill(r, 8 * page, 4 * page, 0, &report) == SA_ACCESS);
    CHECK(report.offset == static_cast<uint64_t>(9 * page + 100) && report.write);
    CHECK(sa_atomic(r, 11 * page, 8, SA_ATOMIC_ADD, 1, 0, &report) == SA_ACCESS);
    CHECK(sa_flush(r, 0, 16 * page, &report) == SA_OK);
    close(fd);
    sa_release(&r);
}

static void test_pins_and_life() {
    sa_reservation *r = reserve(8);
    CHECK(sa_alloc(r, 0, 8 * page, 0, &report) == SA_OK);
    sa_pin *one = nullptr, *two = nullptr;
    CHECK(sa_pin_range(r, page + 1, 1, -1, &one, &report) == SA_OK && report.writable);
    CHECK(sa_pin_range(r, 3 * page, 2 * page, 0, &two, &report) == SA_OK && !report.writable);
    CHECK(sa_unmap(r, 0, 8 * page, &report) == SA_PINNED && report.count == 2);
    CHECK(report.start == static_cast<uint64_t>(page + 1) && report.stop == static_cast<uint64_t>(5 * page));
    CHECK(sa_close(r, &report) == SA_PINNED);
    CHECK(sa_set_writable(r, 3 * page, page, 0, &report) == SA_OK);
    CHECK(sa_set_writable(r, page, page, 0, &report) == SA_PINNED);
    sa_unpin(&one);
    CHECK(sa_unmap(r, 0, 3 * page, &report) == SA_OK);
    char *memory = base(r);
    sa_release(&r);  // the owner goes first: the pin keeps the memory
    CHECK(memory[4 * page] == 0);
    sa_unpin(&two);
    r = reserve(8);
    CHECK(sa_close(r, &report) == SA_OK && sa_close(r, &report) == SA_OK);
    CHECK(sa_alloc(r, 0, page, 0, &report) == SA_CLOSED);
    CHECK(sa_read(r, 0, 0, nullptr, &report) == SA_CLOSED);
    sa_release(&r);
}

int main() {
    page = static_cast<int64_t>(sa_page_size());
    test_reserve();
    test_ranges();
    test_bytes();
    test_regions_join();
    test_files();
    test_pins_and_life();
    return 0;
}
