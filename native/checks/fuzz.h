// One input of fuzz, and the calls it is made of.
#pragma once

#include <cstddef>

#include "model.h"

constexpr uint64_t kPages = 24, kFilePages = 10;

// Numbers as the input says, most of them valid.
class Input {
  public:
    Input(const uint8_t *data, size_t size) : data_(data), left_(size) {}
    bool more() const { return left_ > 0; }
    uint8_t byte() {
        if (!left_)
            return 0;
        left_--;
        return *data_++;
    }
    uint64_t below(uint64_t n) {
        uint64_t value = byte();
        if (n > 256)
            value = value << 8 | byte();
        if (n > 65536)
            value = value << 8 | byte();
        return value % n;
    }
    bool one_in(uint64_t n) { return below(n) == 0; }

    int64_t strange(uint64_t nbytes) {
        const int64_t end = static_cast<int64_t>(nbytes);
        const int64_t values[] = {-1,  -4096,   INT64_MIN,  INT64_MAX,        INT64_MAX - 4095,
                                  end, end + 1, end + 4096, INT64_C(1) << 62, INT64_MIN + 4096};
        return values[below(10)];
    }
    int64_t page_offset(uint64_t page, uint64_t pages) {
        uint64_t kind = below(32);
        if (kind == 0)
            return strange(page * pages);
        return static_cast<int64_t>(below(pages) * page + (kind == 1 ? 8 : 0));
    }
    int64_t page_length(uint64_t page) {
        uint64_t kind = below(32);
        if (kind == 0)
            return strange(kPages * page);
        return static_cast<int64_t>(kind == 1 ? below(3 * page) : (1 + below(kind < 8 ? 20 : 5)) * page);
    }
    int64_t offset(uint64_t page) {
        uint64_t kind = below(32);
        if (kind == 0)
            return strange(kPages * page);
        if (kind < 12)  // around an edge
            return static_cast<int64_t>(below(kPages + 1) * page) + static_cast<int64_t>(below(17)) - 8;
        return static_cast<int64_t>(below(kPages * page));
    }
    int64_t length(uint64_t page) {
        uint64_t kind = below(32);
        if (kind == 0)
            return strange(kPages * page);
        return static_cast<int64_t>(kind < 20   ? below(70)
                                    : kind < 24 ? below(6) * page
                                                : below(4 * page));
    }

  private:
    const uint8_t *data_;
    size_t left_;
};

class Run {
  public:
    Run(const uint8_t *data, size_t size);
    ~Run();
    void run();

  private:
    using Call = void (Run::*)();

    void alloc();
    void map_file();
    void unmap();
    void set_writable();
    void decommit();
    void punch();
    void refresh();
    void write();
    void read();
    void records();
    void atomic();
    void pin();
    void use_window();
    void unpin();
    void extents();
    void flush();
    void damage();
    void populate();
    void change_file();

    // `call` names it in what is printed.
    void judge(const char *call, int code, const Verdict &verdict);
    void transferred(const char *call, int code, int64_t offset, int64_t n, bool write,
                     uint64_t before = 0);
    void compare_regions(const std::vector<bool> &unsure);
    void compare_regions() { compare_regions(std::vector<bool>(kPages)); }
    void compare_bytes();
    uint64_t pages_of(int64_t n) const { return static_cast<uint64_t>(n) / page_; }

    Input in_;
    const uint64_t page_;
    Model model_;
    sa_reservation *r_ = nullptr;
    char *base_ = nullptr;
    int fds_[2], outside_[2];
    sa_report report_ = {};
    std::vector<char> buffer_;
    int step_ = 0;
};

// In a member of Run: as CHECK, with what it takes to run the input again.
#define EXPECT(condition, ...)                                                                 \
    CHECK(condition, "step %d (input from seed %s): %s", step_, getenv("FUZZ_SEED") ?: "none", \
          text(__VA_ARGS__))

const char *text(const char *form, ...) __attribute__((format(printf, 1, 2)));
