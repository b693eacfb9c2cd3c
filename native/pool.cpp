#include "pool.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <mutex>
#include <new>
#include <shared_mutex>

#include "mapping.h"
#include "moves.h"
#include "os.h"
#include "reservation.h"

using namespace sparsearray;

namespace sparsearray {

namespace {

constexpr uint64_t kFewest = 64;  // cells
constexpr int64_t kMostPlace = INT64_MAX / 2;
// From so many bytes on a pool has huge pages. The last of them is empty in part: no more than a quarter of it all.
constexpr uint64_t kSmall = uint64_t{8} << 20;
constexpr uint64_t kHuge = uint64_t{2} << 20;

// Lets the huge page have one that begins in a slot just taken.
void use_huge_page(sa_reservation *r, uint64_t at, uint64_t stop) {
    uint64_t huge = (at + kHuge - 1) / kHuge * kHuge;
    if (huge < stop && huge >= r->pool->start() + kSmall && huge + kHuge <= r->nbytes)
        os_advise(r->base + huge, kHuge, SA_ADVISE_HUGEPAGE);  // it is as well without
}

// Whether a window shows a tile, and is one to write to: who reads slots, whatever they hold, has others.
int check_shown(sa_reservation *r, uint64_t at, sa_report *ret) {
    return check_pins(r, {at, at + r->pool->tile_nbytes()}, true, ret);
}

// Tiles that follow each other, which nobody holds on to: zero.
void give_back(sa_reservation *r, Range run) {
    if (os_discard(r->base + run.start, run.nbytes()))
        memset(r->base + run.start, 0, run.nbytes());
    uint64_t rest = (run.stop + kHuge - 1) / kHuge * kHuge;  // of its huge page
    if (run.stop == r->pool->stop() && run.stop < rest && rest <= r->nbytes)
        os_discard(r->base + run.stop, rest - run.stop);  // zeros, which can as well stay
}

// Gives tiles back, which are then not stored any more.
void drop(sa_reservation *r, const std::vector<TilePool::Tile> &tiles) {
    std::vector<Range> runs;
    runs.reserve(tiles.size());
    r->pool->prepare_erase(tiles.size());
    for (const TilePool::Tile &tile : tiles)
        runs.push_back({tile.at, tile.at + r->pool->tile_nbytes()});
    std::sort(runs.begin(), runs.end(), [](const Range &a, const Range &b) { return a.start < b.start; });
    for (size_t i = 0; i < runs.size();) {
        Range run = runs[i++];
        for (; i < runs.size() && runs[i].start == run.stop; i++)
            run.stop = runs[i].stop;
        give_back(r, run);
    }
    for (const TilePool::Tile &tile : tiles)
        r->pool->erase(tile.number);
}

// The first place that no item of so many bytes has is SA_BOUNDS, and `value` its index.
int check_places(const sa_reservation *r, const int64_t *places, uint64_t count, uint64_t nbytes, sa_report *ret) {
    for (uint64_t i = 0; i < count; i++) {
        int64_t place = __atomic_load_n(places + i, __ATOMIC_RELAXED);
        if (place >= 0 && r->pool->has(static_cast<uint64_t>(place), nbytes))
            continue;
        ret->value = i;
        ret->offset = r->pool->tiles() * r->pool->tile_nbytes();
        return place < 0 ? SA_NEGATIVE : SA_BOUNDS;
    }
    return SA_OK;
}

// Calls `work` with the place of each item, and with where it is stored, or null: mostly in the tile of the last one.
template <class Work>
void each_item(sa_reservation *r, const int64_t *places, uint64_t count, uint64_t nbytes, Work &&work) {
    const TilePool &pool = *r->pool;
    uint64_t last = TilePool::kNone, at = TilePool::kNone, inside = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t place = static_cast<uint64_t>(__atomic_load_n(places + i, __ATOMIC_RELAXED));
        if (!pool.has(place, nbytes))
            continue;  // changed after it was checked
        uint64_t number = pool.number_of(place, &inside);
        if (number != last) {
            last = number;
            at = pool.find(number);
        }
        work(i, number, at == TilePool::kNone ? nullptr : r->base + at + inside);
    }
}

}  // namespace

TilePool::TilePool(uint64_t start, uint64_t tile_nbytes, uint64_t slots)
    : start_(start), tile_nbytes_(tile_nbytes), limit_(std::min<uint64_t>(slots, UINT32_MAX - 1)),
      tile_bits_(tile_nbytes & (tile_nbytes - 1) ? 0 : __builtin_ctzll(tile_nbytes)) {
    resize(kFewest);
}

void TilePool::resize(uint64_t cells) {
    std::vector<uint64_t> keys(cells);
    std::vector<uint32_t> slots(cells * kGroup);
    keys.swap(keys_);
    slots.swap(slots_);
    mask_ = cells - 1;
    shift_ = 64 - __builtin_ctzll(cells);
    for (uint64_t i = 0; i < keys.size(); i++)
        if (keys[i]) {
            uint64_t to = cell_of(keys[i] - 1);
            keys_[to] = keys[i];
            std::copy_n(&slots[i * kGroup], kGroup, &slots_[to * kGroup]);
        }
}

bool TilePool::prepare(uint64_t tiles) {
    if (tiles > limit_ - taken_ + free_.size())
        return false;
    uint64_t cells = keys_.size();
    while (2 * (used_ + tiles) > cells)  // of groups there are no more than of tiles
        cells *= 2;
    if (cells > keys_.size())
        resize(cells);
    return true;
}

void TilePool::prepare_erase(uint64_t tiles) {
    if (free_.capacity() - free_.size() < tiles)
        free_.reserve(std::max<uint64_t>(2 * free_.capacity(), free_.size() + tiles));
}

uint64_t TilePool::insert(uint64_t number, bool *is_new) {
    *is_new = free_.empty();
    uint32_t slot = static_cast<uint32_t>(taken_);
    if (*is_new) {
        taken_++;
    } else {
        std::pop_heap(free_.begin(), free_.end(), std::greater<>());
        slot = free_.back();
        free_.pop_back();
    }
    uint64_t i = cell_of(number / kGroup);
    used_ += !keys_[i];
    keys_[i] = number / kGroup + 1;
    slots_[i * kGroup + number % kGroup] = slot + 1;
    count_++;
    return start_ + slot * tile_nbytes_;
}

void TilePool::erase(uint64_t number) {
    uint64_t i = cell_of(number / kGroup);
    uint32_t *cell = &slots_[i * kGroup], slot = cell[number % kGroup];
    if (!keys_[i] || !slot)
        return;
    free_.push_back(slot - 1);
    std::push_heap(free_.begin(), free_.end(), std::greater<>());
    count_--;
    cell[number % kGroup] = 0;
    if (std::all_of(cell, cell + kGroup, [](uint32_t other) { return !other; }))
        empty_cell(i);
    if (!count_) {  // from the start again
        taken_ = 0;
        free_.clear();
    }
}

void TilePool::empty_cell(uint64_t i) {
    used_--;
    for (uint64_t j = (i + 1) & mask_; keys_[j]; j = (j + 1) & mask_) {
        // Between its home and where it is there must be no gap.
        uint64_t away = (j - home(keys_[j] - 1)) & mask_;
        if (away >= ((j - i) & mask_)) {
            keys_[i] = keys_[j];
            std::copy_n(&slots_[j * kGroup], kGroup, &slots_[i * kGroup]);
            i = j;
        }
    }
    keys_[i] = 0;
    std::fill_n(&slots_[i * kGroup], kGroup, 0);
}

std::vector<TilePool::Tile> TilePool::list(uint64_t first, uint64_t last) const {
    std::vector<Tile> found;
    if (first >= last)
        return found;
    // By cells: all of them, or those of a few numbers.
    std::vector<uint64_t> cells;
    uint64_t from = first / kGroup, to = (last - 1) / kGroup + 1;
    if (to - from < keys_.size()) {
        for (uint64_t group = from; group < to; group++)
            if (uint64_t i = cell_of(group); keys_[i])
                cells.push_back(i);
    } else {
        for (uint64_t i = 0; i < keys_.size(); i++)
            if (keys_[i] > from && keys_[i] <= to)
                cells.push_back(i);
        std::sort(cells.begin(), cells.end(), [&](uint64_t a, uint64_t b) { return keys_[a] < keys_[b]; });
    }
    found.reserve(most(first, last));
    for (uint64_t i : cells)
        for (uint64_t k = 0; k < kGroup; k++) {
            uint64_t number = (keys_[i] - 1) * kGroup + k, at = this->at(slots_[i * kGroup + k]);
            if (at != kNone && number >= first && number < last)
                found.push_back({number, at});
        }
    return found;
}

std::vector<Range> TilePool::slots() const {
    std::vector<uint64_t> gaps(free_.begin(), free_.end());
    std::sort(gaps.begin(), gaps.end());
    gaps.push_back(taken_);
    std::vector<Range> found;
    uint64_t from = 0;
    for (uint64_t gap : gaps) {
        if (from < gap)
            found.push_back({start_ + from * tile_nbytes_, start_ + gap * tile_nbytes_});
        from = gap + 1;
    }
    return found;
}

int check_pool(sa_reservation *r, bool write, sa_report *ret) {
    if (r->closed)
        return SA_CLOSED;
    if (!r->pool)
        return SA_UNSUPPORTED;
    Region *region = nullptr;
    uint64_t start = r->pool->start();
    return check_range(r, static_cast<int64_t>(start), static_cast<int64_t>(r->pool->stop() - start), write,
                       &region, ret);
}

int make_tiles(sa_reservation *r, std::vector<uint64_t> *numbers, sa_report *ret) {
    std::sort(numbers->begin(), numbers->end());
    numbers->erase(std::unique(numbers->begin(), numbers->end()), numbers->end());
    Exclusive lock(r->lock);
    if (int code = check_pool(r, true, ret))
        return code;
    TilePool &pool = *r->pool;
    bool inside = numbers->empty() || numbers->back() < pool.tiles();
    auto stored = [&](uint64_t number) { return pool.find(number) != TilePool::kNone; };
    numbers->erase(std::remove_if(numbers->begin(), numbers->end(), stored), numbers->end());
    if (!inside || !pool.prepare(numbers->size())) {
        ret->offset = pool.tiles() * pool.tile_nbytes();
        return SA_BOUNDS;
    }
    for (uint64_t number : *numbers) {
        bool is_new = false;
        uint64_t at = pool.insert(number, &is_new);
        if (is_new)
            use_huge_page(r, at, at + pool.tile_nbytes());
    }
    return SA_OK;
}

}  // namespace sparsearray

int sa_make_pool(sa_reservation *r, int64_t offset, int64_t tile_nbytes, int64_t slots, sa_report *ret) try {
    Exclusive lock(r->lock);
    int64_t nbytes = 0;
    if (tile_nbytes <= 0 || slots < 0 || __builtin_mul_overflow(tile_nbytes, slots, &nbytes))
        return SA_NEGATIVE;
    if (int code = check_bounds(r, offset, nbytes, ret))
        return code;
    if (static_cast<uint64_t>(offset) % r->page_size || static_cast<uint64_t>(tile_nbytes) % r->page_size)
        return SA_MISALIGNED;
    if (r->pool)  // a box that waits for the lock goes on with it
        return SA_UNSUPPORTED;
    r->pool = std::make_unique<TilePool>(static_cast<uint64_t>(offset), static_cast<uint64_t>(tile_nbytes),
                                         static_cast<uint64_t>(slots));
    return SA_OK;
} catch (const std::bad_alloc &) {
    return system_error(ENOMEM, "", ret);
}

int sa_resize_pool(sa_reservation *r, int64_t tiles, sa_report *ret) try {
    Exclusive lock(r->lock);
    if (int code = check_pool(r, false, ret))
        return code;
    TilePool &pool = *r->pool;
    if (tiles < 0 || tiles > kMostPlace / static_cast<int64_t>(pool.tile_nbytes()))
        return SA_NEGATIVE;
    uint64_t left = static_cast<uint64_t>(tiles);
    if (left < pool.tiles()) {
        std::vector<TilePool::Tile> gone = pool.list(left, pool.tiles());
        for (const TilePool::Tile &tile : gone)
            if (int code = check_shown(r, tile.at, ret))
                return code;
        drop(r, gone);
    }
    pool.set_tiles(left);
    return SA_OK;
} catch (const std::bad_alloc &) {
    return system_error(ENOMEM, "", ret);
}

int sa_find_tile(sa_reservation *r, int64_t number, int make, int64_t *offset, sa_report *ret) try {
    if (number < 0)
        return SA_NEGATIVE;
    // Another thread can drop a tile that was just made before the lock is shared: then once more.
    for (;;) {
        std::vector<uint64_t> wanted(1, static_cast<uint64_t>(number));
        if (make)
            if (int code = make_tiles(r, &wanted, ret))
                return code;
        SharedLock lock(r->lock);
        if (int code = check_pool(r, false, ret))
            return code;
        uint64_t at = r->pool->find(static_cast<uint64_t>(number));
        if (make && at == TilePool::kNone)
            continue;
        *offset = at == TilePool::kNone ? -1 : static_cast<int64_t>(at);
        return SA_OK;
    }
} catch (const std::bad_alloc &) {
    return system_error(ENOMEM, "", ret);
}

int sa_list_tiles(sa_reservation *r, int64_t first, int64_t last, int64_t *numbers, int64_t *offsets,
                  uint64_t capacity, sa_report *ret) try {
    if (first < 0 || last < first)
        return SA_NEGATIVE;
    SharedLock lock(r->lock);
    if (int code = check_pool(r, false, ret))
        return code;
    uint64_t from = static_cast<uint64_t>(first), to = static_cast<uint64_t>(last);
    ret->count = r->pool->most(from, to);
    if (ret->count > capacity)
        return SA_OK;
    std::vector<TilePool::Tile> found = r->pool->list(from, to);
    ret->count = found.size();
    for (const TilePool::Tile &tile : found) {
        *numbers++ = static_cast<int64_t>(tile.number);
        *offsets++ = static_cast<int64_t>(tile.at);
    }
    return SA_OK;
} catch (const std::bad_alloc &) {
    return system_error(ENOMEM, "", ret);
}

int sa_list_slots(sa_reservation *r, int64_t *pairs, uint64_t capacity, sa_report *ret) try {
    SharedLock lock(r->lock);
    if (int code = check_pool(r, false, ret))
        return code;
    std::vector<Range> found = r->pool->slots();
    ret->count = found.size();
    if (ret->count <= capacity)
        for (const Range &run : found) {
            *pairs++ = static_cast<int64_t>(run.start);
            *pairs++ = static_cast<int64_t>(run.stop);
        }
    return SA_OK;
} catch (const std::bad_alloc &) {
    return system_error(ENOMEM, "", ret);
}

int sa_drop_tiles(sa_reservation *r, const int64_t *numbers, uint64_t count, sa_report *ret) try {
    Exclusive lock(r->lock);
    if (int code = check_pool(r, true, ret))
        return code;
    std::vector<TilePool::Tile> gone, shown;
    gone.reserve(count);
    shown.reserve(count);
    uint64_t nbytes = r->pool->tile_nbytes();
    for (uint64_t i = 0; i < count; i++) {
        uint64_t number = static_cast<uint64_t>(numbers[i]);
        uint64_t at = numbers[i] < 0 ? TilePool::kNone : r->pool->find(number);
        if (at == TilePool::kNone)
            continue;
        (check_shown(r, at, ret) ? shown : gone).push_back({number, at});
    }
    // The same one twice would be given back twice.
    std::sort(gone.begin(), gone.end(),
              [](const TilePool::Tile &a, const TilePool::Tile &b) { return a.number < b.number; });
    gone.erase(std::unique(gone.begin(), gone.end(),
                           [](const TilePool::Tile &a, const TilePool::Tile &b) { return a.number == b.number; }),
               gone.end());
    ret->count = gone.size();
    drop(r, gone);
    for (const TilePool::Tile &tile : shown)
        give_back(r, {tile.at, tile.at + nbytes});  // and its slot not: a window goes on over it
    return SA_OK;
} catch (const std::bad_alloc &) {
    return system_error(ENOMEM, "", ret);
}

int sa_read_item(sa_reservation *r, int64_t place, uint64_t nbytes, sa_report *ret) {
    if (nbytes > sizeof ret->record)
        return SA_MISALIGNED;
    SharedLock lock(r->lock);
    if (int code = check_pool(r, false, ret))
        return code;
    if (int code = check_places(r, &place, 1, nbytes, ret))
        return code;
    each_item(r, &place, 1, nbytes, [&](uint64_t, uint64_t, const char *ours) {
        if (ours)
            load_record(ret->record, ours, nbytes);
        else
            memset(ret->record, 0, nbytes);
    });
    return SA_OK;
}

int sa_write_item(sa_reservation *r, int64_t place, uint64_t nbytes, const char *data, sa_report *ret) {
    return sa_scatter_items(r, &place, 1, nbytes, data, ret);
}

int sa_gather_items(sa_reservation *r, const int64_t *places, uint64_t count, uint64_t nbytes, char *out,
                    sa_report *ret) {
    SharedLock lock(r->lock);
    if (int code = check_pool(r, false, ret))
        return code;
    if (int code = check_places(r, places, count, nbytes, ret))
        return code;
    each_item(r, places, count, nbytes, [&](uint64_t i, uint64_t, const char *ours) {
        if (ours)
            load_record(out + i * nbytes, ours, nbytes);
        else
            memset(out + i * nbytes, 0, nbytes);
    });
    return SA_OK;
}

int sa_scatter_items(sa_reservation *r, const int64_t *places, uint64_t count, uint64_t nbytes,
                     const char *values, sa_report *ret) try {
    SharedLock lock(r->lock);
    // Another thread can drop tiles that were just made before the lock is shared again: then once more.
    for (;;) {
        if (int code = check_pool(r, true, ret))
            return code;
        if (int code = check_places(r, places, count, nbytes, ret))
            return code;
        std::vector<uint64_t> missing;
        each_item(r, places, count, nbytes, [&](uint64_t, uint64_t number, const char *ours) {
            if (!ours && (missing.empty() || missing.back() != number))
                missing.push_back(number);
        });
        if (missing.empty())
            break;
        lock.unlock();
        if (int code = make_tiles(r, &missing, ret))
            return code;
        lock.lock();
    }
    each_item(r, places, count, nbytes, [&](uint64_t i, uint64_t, char *ours) {
        if (ours)
            store_record(ours, values + i * nbytes, nbytes);
    });
    return SA_OK;
} catch (const std::bad_alloc &) {
    return system_error(ENOMEM, "", ret);
}
