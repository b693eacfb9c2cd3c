// What a reservation should do, in the simplest way: a page is a struct, a file is a vector of bytes.
#pragma once

#include <cstdint>
#include <vector>

#include "common.h"

struct ModelFile {
    std::vector<uint8_t> bytes;  // as long as the file is
    uint64_t longest = 0;        // it was when something was mapped
    bool writable = false;
};

struct ModelPage {
    int kind = 0;  // sa_kind, or 0: a hole
    bool writable = false;
    bool may_write = true;
    bool shared = false;
    int file = -1;
    int hole_of = -1;          // of zero pages: the file whose hole was skipped
    uint64_t file_offset = 0;  // of the page, in either
    uint64_t size = 0;         // of the file when this was mapped
    bool own = false;          // `bytes` is what it holds: memory, a copy, or what a fault put there
    bool damaged = false;      // a fault did
    std::vector<uint8_t> bytes;
};

struct ModelPin {
    uint64_t start, stop;
    bool writable;
    sa_pin *pin;
};

// What a call should answer. Fields that say nothing are not looked at.
struct Verdict {
    int code = SA_OK;
    int reason = 0;
    bool has_offset = false;
    uint64_t offset = 0;
};

enum class Lost { No, Maybe, Yes };

class Model {
  public:
    Model(uint64_t page, uint64_t pages, uint64_t file_pages);

    uint64_t nbytes() const { return pages.size() * page; }
    bool in_range(int64_t offset, int64_t n, Verdict *ret) const;

    // Calls on bytes: what the table says of the whole range.
    Verdict access(int64_t offset, int64_t n, bool write) const;
    // Calls on whole pages, and what pins say.
    Verdict whole_pages(int64_t offset, int64_t n) const;
    Verdict change(int64_t offset, int64_t n, bool any_pin, bool writable_pins) const;
    Verdict mapped(int64_t offset, int64_t n) const;

    // Of a byte that the table allows: whether its file has lost it. Maybe: where regions are joined, it
    // is the larger size that counts.
    Lost lost(uint64_t at, bool write) const;
    // The first byte that is lost for sure, or the end.
    uint64_t first_lost(uint64_t start, uint64_t stop, bool write) const;
    bool any_lost(uint64_t start, uint64_t stop, bool write) const;

    uint8_t get(uint64_t at) const;
    void put(uint64_t at, uint8_t value);
    // A window is about to touch a page: what the handler of the signal does.
    void fault(uint64_t at);

    // Whether the page of a file there has a byte that is not zero.
    bool has_data(int file, uint64_t position) const;

    ModelPage &at(uint64_t offset) { return pages[offset / page]; }
    const ModelPage &at(uint64_t offset) const { return pages[offset / page]; }
    void make_private(uint64_t index);
    void truncate(int file, uint64_t size);

    const uint64_t page;
    std::vector<ModelPage> pages;
    ModelFile files[2];
    std::vector<ModelPin> pins;

  private:
    uint64_t first_of(uint64_t start, uint64_t stop, bool write, Lost least) const;
    bool past_end(const ModelPage &p) const { return p.file_offset >= files[p.file].bytes.size(); }
    bool joined(uint64_t a) const;  // page a and the next one are one region
};
