// Tiles of an array in memory, packed one behind the other in the order in which they are first written.
//
// Use case: a tile that lies where its number says has a page of its own and, far from all others, a page table.
// The system makes them one by one, and has to be asked which there are. Packed, they fill huge pages, which it
// makes at a quarter of the cost, and the pool knows what is stored.
//
// How it works: numbers of tiles lead to slots, counted from the start of the pool, through a hash table. One cell
// of it has the slots of kGroup tiles in a row: neighbours are found together. A slot that is given back holds zeros,
// and is taken before new ones. Slots are taken and given back with the lock of the
// reservation held exclusively, and looked up with it shared; so who finds a tile may use it until it lets go.
//
// A *place* is in bytes from the start of tile 0 on, as if all tiles were stored.
#pragma once

#include <cstdint>
#include <vector>

#include "core.h"
#include "os.h"

namespace sparsearray {

class TilePool {
  public:
    static constexpr uint64_t kNone = UINT64_MAX;
    static constexpr uint64_t kGroup = 8;

    // May throw std::bad_alloc.
    TilePool(uint64_t start, uint64_t tile_nbytes, uint64_t slots);

    uint64_t start() const { return start_; }
    uint64_t tile_nbytes() const { return tile_nbytes_; }
    // Behind the last slot that was taken, since there were none.
    uint64_t stop() const { return start_ + taken_ * tile_nbytes_; }
    // Only those below can be stored.
    uint64_t tiles() const { return tiles_; }
    void set_tiles(uint64_t tiles) { tiles_ = tiles; }
    bool has(uint64_t place, uint64_t nbytes) const {
        uint64_t inside = 0;
        return number_of(place, &inside) < tiles_ && nbytes <= tile_nbytes_ - inside;
    }

    // Of the tile that has a place, and how far inside.
    uint64_t number_of(uint64_t place, uint64_t *inside) const {
        uint64_t number = tile_bits_ ? place >> tile_bits_ : place / tile_nbytes_;
        *inside = place - number * tile_nbytes_;
        return number;
    }

    // Where a tile lies in the reservation; kNone if it is not stored.
    uint64_t find(uint64_t number) const { return at(group_of(number)[number % kGroup]); }
    // The same in two steps: the slots of a tile and its neighbours, and where one of these lies.
    const uint32_t *group_of(uint64_t number) const {
        uint64_t i = cell_of(number / kGroup);
        return keys_[i] ? &slots_[i * kGroup] : none_;
    }
    uint64_t at(uint32_t slot) const { return slot ? start_ + (slot - 1) * tile_nbytes_ : kNone; }

    // Makes room for so many tiles more, so that `insert` cannot run out of memory half-way; may throw
    // std::bad_alloc. False: there are not so many slots.
    bool prepare(uint64_t tiles);
    // Takes a slot for a tile that is not stored. `*is_new`: no tile has been there before.
    uint64_t insert(uint64_t number, bool *is_new);
    // The same for `erase`.
    void prepare_erase(uint64_t tiles);
    // Gives the slot of a tile back, whose bytes are zero by now.
    void erase(uint64_t number);

    struct Tile {
        uint64_t number;
        uint64_t at;
    };
    // Those that are stored of `first` up to `last`, by number.
    std::vector<Tile> list(uint64_t first, uint64_t last) const;
    // How many these are at most.
    uint64_t most(uint64_t first, uint64_t last) const { return last - first < count_ ? last - first : count_; }
    // What all that are stored take.
    std::vector<Range> slots() const;

  private:
    // Open addressing, at most half full; what follows a cell that is emptied moves up.
    uint64_t home(uint64_t group) const { return (group * 0x9E3779B97F4A7C15) >> shift_; }
    // Of the group, or the empty one where it would be.
    uint64_t cell_of(uint64_t group) const {
        uint64_t i = home(group);
        while (keys_[i] && keys_[i] != group + 1)
            i = (i + 1) & mask_;
        return i;
    }
    void resize(uint64_t cells);
    void empty_cell(uint64_t i);

    static constexpr uint32_t none_[kGroup] = {};
    uint64_t start_, tile_nbytes_, limit_;
    int tile_bits_;  // 0 unless it is a power of two
    uint64_t tiles_ = 0, taken_ = 0, count_ = 0;
    uint64_t mask_ = 0, used_ = 0;  // of cells
    int shift_ = 64;
    std::vector<uint64_t> keys_;   // a group's number and one; 0 is none
    std::vector<uint32_t> slots_;  // a slot and one, kGroup to a cell; 0 is none
    std::vector<uint32_t> free_;  // a heap: the first ones are taken first, or each would fill a huge page
};

// What every call on a pool checks first: that there is one, and that what is stored may be read, or written.
int check_pool(sa_reservation *r, bool write, sa_report *ret);
// Takes slots for those tiles of the pool that are not stored, with the lock of the reservation held exclusively
// meanwhile; these are left in `numbers`. SA_BOUNDS where there are not so many; may throw std::bad_alloc. Nothing is
// changed then.
int make_tiles(sa_reservation *r, std::vector<uint64_t> *numbers, sa_report *ret);

}  // namespace sparsearray
