// The model of tiles: a pool that one thread alone uses, and what each call on it answers.
#pragma once

#include <map>
#include <vector>

#include "common.h"

extern uint64_t page;  // bytes

class PoolModel {
  public:
    explicit PoolModel(uint64_t seed);
    ~PoolModel();
    PoolModel(const PoolModel &) = delete;
    PoolModel &operator=(const PoolModel &) = delete;
    void step();
    // All that is stored, and what lies around the pool.
    void check_bytes();

  private:
    using Bytes = std::vector<char>;
    struct Window {
        uint64_t number, inside, nbytes;
        sa_pin *pin;
    };
    // One of those selected: where it lies in its tile, and in the caller's array.
    struct Item {
        uint64_t number, inside;
        int64_t theirs;
        uint64_t piece;  // those that the core moves together have the same
    };
    struct Selection {
        sa_axis axes[3] = {};
        uint64_t ndim = 0, itemsize = 0;
        std::vector<int64_t> numbers[3];
        std::vector<uint64_t> segments[3];
        int64_t start = 0;  // of the caller's array, in its buffer
        uint64_t nbytes = 0;
        bool outside = false;
        std::vector<Item> items;
    };

    void choose_numbers();
    uint64_t any_number() { return numbers_[random_.below(numbers_.size())]; }
    int64_t any_place(uint64_t nbytes);
    bool is_pinned(uint64_t number) const;
    bool fits(const std::vector<uint64_t> &made) const;
    Bytes *find(uint64_t number);
    Bytes &make(uint64_t number);
    char *address(uint64_t number);

    void select(Selection *ret, bool write);
    void select_tiles(Selection *ret);
    void select_items(Selection *ret, uint64_t k, uint64_t middle, uint64_t tiles);
    void lay_out(Selection *ret, bool write);
    void read_box();
    void write_box(int how);
    void clear_box();
    void items();
    void one_item();
    void find_tile();
    void drop();
    void resize();
    void window();
    void close_window();
    void check_list();
    void check_slots();

    Random random_;
    sa_report report_ = {};
    sa_reservation *r_ = nullptr;
    char *base_ = nullptr;
    uint64_t start_, tile_, slots_, most_, tiles_ = 0;
    std::vector<uint64_t> numbers_;  // that calls are about
    std::map<uint64_t, Bytes> stored_;
    std::map<uint64_t, int64_t> offsets_;  // where they were seen last
    std::vector<Window> windows_;
    sa_pin *reader_ = nullptr;
};
