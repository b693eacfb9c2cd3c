// The stage of stress: what its threads share.
#pragma once

#include <atomic>
#include <vector>

#include "common.h"

constexpr int kSlots = 3;        // threads with pages of their own
constexpr uint64_t kOwned = 12;    // pages of each
constexpr uint64_t kShared = 8;  // pages in each of the two zones that all threads use
constexpr uint64_t kPages = kSlots * kOwned + 2 * kShared;
constexpr int kReservations = 2;

extern uint64_t page;  // bytes

// Word `at` (in bytes) of the files that hold a pattern says where it lies.
inline uint64_t pattern(uint64_t at) { return (at / 8 + 1) * 0x9e3779b97f4a7c15u; }

struct OpenFile {
    int writable;
    int read_only;
};

struct Stage {
    sa_reservation *r[kReservations];
    OpenFile atomics;   // behind zone A, page for page; grows and shrinks
    OpenFile pattern;   // behind zone R; grows and shrinks
    OpenFile constant;  // a pattern that nobody touches
    std::atomic<bool> stop{false};
};

// Pages that one thread alone writes, maps and reads: what they hold is known to the byte.
class Owner {
  public:
    Owner(const Stage &stage, int slot);
    void step(Random &random);

  private:
    enum Kind : char { kHole, kPrivate, kZero, kCopy };
    struct Page {
        Kind kind = kHole;
        bool writable = false;
    };
    // A range within the pages, and what the core should say of an access to it.
    struct Span {
        uint64_t start, n, bad;
        int code, reason;
    };

    Span any_span(Random &random, bool write) const;
    void judge(const Span &span, int code, const sa_report &report, bool whole, const char *what) const;
    void map(Random &random);
    void write(Random &random);
    void read(Random &random);
    void records(Random &random);
    void window(Random &random);
    int64_t offset(uint64_t at) const { return static_cast<int64_t>(first_ + at); }

    const Stage &stage_;
    uint64_t first_;
    sa_reservation *r_ = nullptr;
    int which_ = 0;
    std::vector<char> bytes_[kReservations];
    Page pages_[kReservations][kOwned];
    std::vector<char> constant_;
};
