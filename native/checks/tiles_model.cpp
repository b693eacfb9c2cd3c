// One pool and one thread: every call has one right answer.
#include "tiles.h"

#include <algorithm>
#include <cstring>

namespace {

constexpr int64_t kMostPlace = INT64_MAX / 2;    // of a pool
constexpr int64_t kMostAlong = INT64_MAX / 128;  // of an axis
constexpr char kAround = 0x5a, kUntouched = 0x33;

bool is_zero(const char *bytes, uint64_t n) {
    return std::all_of(bytes, bytes + n, [](char byte) { return !byte; });
}

}  // namespace

PoolModel::PoolModel(uint64_t seed) : random_(seed) {
    static const uint64_t slots[] = {3, 20, 150, 1000, 3000};
    slots_ = slots[random_.below(5)];
    tile_ = (1 + random_.below(3)) * page;
    start_ = random_.below(3) * page;
    most_ = kMostPlace / tile_;
    uint64_t stop = start_ + slots_ * tile_;
    CHECK(sa_reserve(stop + page, 0, &r_, &report_) == SA_OK, "reserve");
    sa_geometry geometry;
    sa_describe(r_, &geometry);
    base_ = reinterpret_cast<char *>(geometry.address);
    int64_t place;
    CHECK(sa_find_tile(r_, 0, 0, &place, &report_) == SA_UNSUPPORTED, "find_tile without a pool");
    CHECK(sa_alloc(r_, 0, static_cast<int64_t>(stop + page), 0, &report_) == SA_OK, "alloc");
    memset(base_, kAround, start_);
    memset(base_ + stop, kAround, page);
    CHECK(sa_make_pool(r_, static_cast<int64_t>(start_), static_cast<int64_t>(tile_),
                       static_cast<int64_t>(slots_), &report_) == SA_OK,
          "make_pool");
    CHECK(sa_make_pool(r_, 0, static_cast<int64_t>(page), 1, &report_) == SA_UNSUPPORTED, "make_pool again");
    CHECK(sa_resize_pool(r_, static_cast<int64_t>(most_), &report_) == SA_OK, "resize_pool");
    tiles_ = most_;
    choose_numbers();
}

PoolModel::~PoolModel() {
    check_bytes();
    while (!windows_.empty())
        close_window();
    sa_unpin(&reader_);
    CHECK(sa_close(r_, &report_) == SA_OK, "close");
    CHECK(sa_resize_pool(r_, 0, &report_) == SA_CLOSED, "resize_pool");
    sa_release(&r_);
}

void PoolModel::choose_numbers() {
    // Groups with one home in the table, as often as not its last cell.
    std::vector<uint64_t> alike;
    uint64_t home = random_.below(2) ? 1023 : random_.below(1024);
    for (uint64_t group = random_.below(most_ / 16); alike.size() < 24; group++)
        if (group * 0x9E3779B97F4A7C15 >> 54 == home)
            alike.push_back(group * 8);
    uint64_t wanted = 10 + std::min<uint64_t>(2 * slots_, 2000);
    while (numbers_.size() < wanted) {
        uint64_t kind = random_.below(4);
        uint64_t first = kind == 0   ? random_.below(slots_)
                         : kind == 1 ? most_ - 1 - random_.below(64)
                         : kind == 2 ? alike[random_.below(alike.size())]
                                     : random_.below(most_);
        for (uint64_t n = 1 + random_.below(8); n > 0 && first < most_; n--)
            numbers_.push_back(first++);
    }
}

void PoolModel::step() {
    switch (random_.below(16)) {
    case 0:
    case 1: read_box(); break;
    case 2: write_box(SA_BOX_WRITE); break;
    case 3:
    case 4: write_box(SA_BOX_WRITE_FILLED); break;
    case 5: clear_box(); break;
    case 6:
    case 7:
    case 8: items(); break;
    case 9: one_item(); break;
    case 10: find_tile(); break;
    case 11:
    case 12: drop(); break;
    case 13: window(); break;
    case 14: close_window(); break;
    default:
        if (random_.below(8) == 0)
            resize();
    }
    if (stored_.size() < 40 || random_.below(16) == 0) {
        check_list();
        check_slots();
    }
}

// ---------------------------------------------------------------------------------- the model

PoolModel::Bytes *PoolModel::find(uint64_t number) {
    auto it = stored_.find(number);
    return it == stored_.end() ? nullptr : &it->second;
}

PoolModel::Bytes &PoolModel::make(uint64_t number) {
    Bytes &bytes = stored_[number];
    bytes.resize(tile_);
    return bytes;
}

bool PoolModel::is_pinned(uint64_t number) const {
    return std::any_of(windows_.begin(), windows_.end(), [&](const Window &w) { return w.number == number; });
}

// Whether there are such tiles, and slots for those that are not stored.
bool PoolModel::fits(const std::vector<uint64_t> &made) const {
    std::map<uint64_t, int> fresh;
    for (uint64_t number : made) {
        if (number >= tiles_)
            return false;
        if (!stored_.count(number))
            fresh[number] = 1;
    }
    return stored_.size() + fresh.size() <= slots_;
}

char *PoolModel::address(uint64_t number) {
    int64_t offset = -1;
    CHECK(sa_find_tile(r_, static_cast<int64_t>(number), 0, &offset, &report_) == SA_OK && offset >= 0,
          "tile %#zx is at %#zx", number, static_cast<size_t>(offset));
    return base_ + offset;
}

// ---------------------------------------------------------------------------------- boxes

void PoolModel::select_tiles(Selection *ret) {
    static const uint64_t sizes[] = {1, 2, 3, 4, 8, 12, 16};
    ret->itemsize = sizes[random_.below(7)];
    ret->ndim = 1 + random_.below(3);
    uint64_t room = tile_ / ret->itemsize;
    for (uint64_t k = 0; k < ret->ndim; k++) {
        uint64_t most = k + 1 < ret->ndim ? std::min<uint64_t>(room, 12) : room;
        uint64_t along = random_.below(2) ? most : 1 + random_.below(most);
        ret->axes[k].tile = static_cast<int64_t>(along);
        room /= along;
    }
    uint64_t order[] = {0, 1, 2};
    if (random_.below(3) == 0)
        std::swap(order[0], order[random_.below(ret->ndim)]);
    int64_t step = static_cast<int64_t>(ret->itemsize);
    for (uint64_t k = ret->ndim; k-- > 0;) {
        sa_axis &axis = ret->axes[order[k]];
        axis.item_step = step;
        step *= axis.tile;
    }
}

// What is selected along an axis of so many tiles, from a tile on.
void PoolModel::select_items(Selection *ret, uint64_t k, uint64_t middle, uint64_t tiles) {
    sa_axis &axis = ret->axes[k];
    static const uint64_t most[] = {300, 30, 10};
    uint64_t along = static_cast<uint64_t>(axis.tile), count = 1 + random_.below(most[ret->ndim - 1]);
    bool wild = random_.below(40) == 0;
    auto any = [&] { return static_cast<int64_t>(middle * along + random_.below(along)); };
    std::vector<int64_t> &numbers = ret->numbers[k];
    axis.start = any();
    if (random_.below(3) == 0) {
        while (numbers.size() < count) {
            if (k == 0 && random_.below(3) == 0)
                middle = any_number() / (static_cast<uint64_t>(axis.tile_step) / tile_);
            else if (k > 0)
                middle = random_.below(tiles);
            int64_t first = any(), last = first + random_.upto(6);
            last = std::min(last, static_cast<int64_t>(along * tiles) - 1);
            for (; first <= last && numbers.size() < count; first++)
                numbers.push_back(first);
        }
        if (wild && k == 0)
            numbers[random_.below(count)] = -1 - random_.upto(3);
        axis.places = numbers.data();
        axis.step = 1;
    } else {
        axis.step = 1 + static_cast<int64_t>(random_.below(random_.below(2) ? 3 : 2 * along));
        if (random_.below(2))
            axis.step = -axis.step;
        int64_t number = axis.start;
        do {
            numbers.push_back(number);
            number += axis.step;
        } while (numbers.size() < count &&
                 ((number >= 0 && number < static_cast<int64_t>(along * tiles)) || (wild && k == 0)));
    }
    axis.count = static_cast<int64_t>(numbers.size());
    // A segment stays in one tile; of places it ends where they do not follow each other.
    uint64_t segment = 0;
    for (size_t i = 0; i < numbers.size(); i++) {
        bool cut = i && (axis.places ? numbers[i] != numbers[i - 1] + 1 || numbers[i] % axis.tile == 0
                                     : numbers[i] / axis.tile != numbers[i - 1] / axis.tile);
        segment += cut;
        ret->segments[k].push_back(segment);
    }
}

// The caller's array: rows or columns first, with gaps, turned round, or (to write) the same all along.
void PoolModel::lay_out(Selection *ret, bool write) {
    uint64_t order[] = {0, 1, 2};
    bool plain = random_.below(2);
    if (!plain)
        std::swap(order[0], order[random_.below(ret->ndim)]);
    uint64_t size = ret->itemsize;
    ret->start = 64;
    for (uint64_t k = ret->ndim; k-- > 0;) {
        sa_axis &axis = ret->axes[order[k]];
        if (!plain && random_.below(4) == 0)
            size += random_.below(20);
        axis.stride = static_cast<int64_t>(size);
        if (write && random_.below(10) == 0) {
            axis.stride = 0;
            continue;
        }
        size *= static_cast<uint64_t>(axis.count);
        if (!plain && random_.below(3) == 0) {
            ret->start += (axis.count - 1) * axis.stride;
            axis.stride = -axis.stride;
        }
    }
    ret->nbytes = size + 128;
}

void PoolModel::select(Selection *ret, bool write) {
    select_tiles(ret);
    uint64_t number = any_number(), tiles[] = {0, 0, 0}, row = 1;
    for (uint64_t k = ret->ndim; k-- > 0;) {
        tiles[k] = k ? 1 + random_.below(4) : most_;
        ret->axes[k].tile_step = static_cast<int64_t>(tile_ * row);
        row *= k ? tiles[k] : 1;
    }
    for (uint64_t k = 0; k < ret->ndim; k++) {
        uint64_t along = static_cast<uint64_t>(ret->axes[k].tile_step) / tile_;
        select_items(ret, k, k ? number / along % tiles[k] : number / along, tiles[k]);
    }
    lay_out(ret, write);
    uint64_t counts[] = {1, 1, 1};
    for (uint64_t k = 0; k < ret->ndim; k++)
        counts[k] = static_cast<uint64_t>(ret->axes[k].count);
    for (uint64_t i = 0; i < counts[0] * counts[1] * counts[2]; i++) {
        uint64_t at[] = {i / (counts[1] * counts[2]), i / counts[2] % counts[1], i % counts[2]};
        Item item{0, 0, ret->start, 0};
        __int128 place = 0;
        for (uint64_t k = 0; k < ret->ndim; k++) {
            const sa_axis &axis = ret->axes[k];
            int64_t along = ret->numbers[k][at[k]];
            __int128 here = static_cast<__int128>(along / axis.tile) * axis.tile_step +
                            along % axis.tile * axis.item_step;
            ret->outside |= along < 0 || here > kMostAlong;
            place += here;
            item.theirs += static_cast<int64_t>(at[k]) * axis.stride;
            item.piece = item.piece << 16 | ret->segments[k][at[k]];
        }
        item.number = static_cast<uint64_t>(place / tile_);
        item.inside = static_cast<uint64_t>(place % tile_);
        ret->outside |= item.number >= tiles_;
        ret->items.push_back(item);
    }
}

void PoolModel::read_box() {
    Selection box;
    select(&box, false);
    Bytes expected(box.nbytes, kUntouched), out = expected;
    for (const Item &item : box.items)
        if (!box.outside) {
            const Bytes *bytes = find(item.number);
            char *to = &expected[static_cast<uint64_t>(item.theirs)];
            if (bytes)
                std::copy_n(&(*bytes)[item.inside], box.itemsize, to);
            else
                memset(to, 0, box.itemsize);
        }
    int code = sa_move_box(r_, SA_POOL, box.axes, box.ndim, static_cast<int64_t>(box.itemsize),
                           out.data() + box.start, SA_BOX_READ, &report_);
    CHECK(code == (box.outside ? SA_BOUNDS : SA_OK), "read: %d", code);
    CHECK(out == expected, "a box of %zu axes, %zu items of %zu", box.ndim, box.items.size(), box.itemsize);
}

void PoolModel::write_box(int how) {
    Selection box;
    select(&box, true);
    Bytes data(box.nbytes);
    for (char &byte : data)
        byte = static_cast<char>(random_.next() >> 8);
    uint64_t zeros = random_.below(5);  // none, all, or those of some tiles
    for (const Item &item : box.items)
        if (zeros == 1 || (zeros > 1 && item.number * zeros % 3 == 0))
            memset(&data[static_cast<uint64_t>(item.theirs)], 0, box.itemsize);
    std::map<uint64_t, bool> filled;  // by piece
    for (const Item &item : box.items)
        filled[item.piece] |=
            how == SA_BOX_WRITE || !is_zero(&data[static_cast<uint64_t>(item.theirs)], box.itemsize);
    std::vector<uint64_t> made;
    for (const Item &item : box.items)
        if (filled[item.piece])
            made.push_back(item.number);
    bool good = !box.outside && fits(made);
    int code = sa_move_box(r_, SA_POOL, box.axes, box.ndim, static_cast<int64_t>(box.itemsize),
                           data.data() + box.start, how, &report_);
    CHECK(code == (good ? SA_OK : SA_BOUNDS), "write: %d", code);
    for (const Item &item : box.items)
        if (good && filled[item.piece])
            std::copy_n(&data[static_cast<uint64_t>(item.theirs)], box.itemsize,
                        &make(item.number)[item.inside]);
    if (!good)
        check_list();
}

void PoolModel::clear_box() {
    Selection box;
    select(&box, false);
    for (sa_axis &axis : box.axes)
        axis.stride = 0;
    int code = sa_move_box(r_, SA_POOL, box.axes, box.ndim, static_cast<int64_t>(box.itemsize), nullptr,
                           SA_BOX_CLEAR, &report_);
    CHECK(code == (box.outside ? SA_BOUNDS : SA_OK), "clear: %d", code);
    for (const Item &item : box.items)
        if (Bytes *bytes = box.outside ? nullptr : find(item.number))
            memset(&(*bytes)[item.inside], 0, box.itemsize);
}

// ---------------------------------------------------------------------------------- items

int64_t PoolModel::any_place(uint64_t nbytes) {
    uint64_t kind = random_.below(300), inside = random_.below(tile_ - nbytes + 1);
    if (kind == 0)
        return -1 - random_.upto(1 << 20);
    if (kind == 1)
        return INT64_MAX - random_.upto(2 * page);
    if (kind == 2 && nbytes)  // reaches into the next tile
        inside = tile_ - 1 - random_.below(nbytes - (nbytes > 1));
    else if (random_.below(2))
        inside = std::min(inside / 8 * 8, tile_ - nbytes);
    return static_cast<int64_t>(any_number() * tile_ + inside);
}

void PoolModel::items() {
    static const uint64_t sizes[] = {1, 2, 3, 4, 8, 16, 100};
    uint64_t size = random_.below(8)   ? sizes[random_.below(7)]
                    : random_.below(2) ? tile_
                                       : 1 + random_.below(tile_);
    uint64_t count = random_.below(random_.below(3) ? 12 : 60);
    bool write = random_.below(2);
    std::vector<int64_t> places(count);
    Bytes values(count * size + 1, kUntouched);
    uint64_t bad = count;
    std::vector<uint64_t> made;
    for (uint64_t i = 0; i < count; i++) {
        places[i] = i && random_.below(4) == 0 ? places[i - 1] : any_place(size);
        uint64_t place = static_cast<uint64_t>(places[i]);
        bool good = places[i] >= 0 && place / tile_ < tiles_ && place % tile_ + size <= tile_;
        if (!good && bad == count)
            bad = i;
        made.push_back(place / tile_);
        for (uint64_t k = 0; k < size && write; k++)
            values[i * size + k] = static_cast<char>(random_.next() >> 8);
    }
    int expected = SA_OK;
    if (bad < count)
        expected = places[bad] < 0 ? SA_NEGATIVE : SA_BOUNDS;
    else if (write && !fits(made))
        expected = SA_BOUNDS;
    int code = write ? sa_scatter_items(r_, places.data(), count, size, values.data(), &report_)
                     : sa_gather_items(r_, places.data(), count, size, values.data(), &report_);
    CHECK(code == expected, "%s: %d, not %d", write ? "scatter" : "gather", code, expected);
    CHECK(bad == count || report_.value == bad, "item %zu, not %zu", report_.value, bad);
    CHECK(values[count * size] == kUntouched, "more than %zu items of %zu", count, size);
    for (uint64_t i = 0; i < count && !code; i++) {
        uint64_t number = made[i], inside = static_cast<uint64_t>(places[i]) % tile_;
        const Bytes *bytes = write ? &make(number) : find(number);
        if (write)
            std::copy_n(&values[i * size], size, &make(number)[inside]);
        else
            CHECK(bytes ? !memcmp(&(*bytes)[inside], &values[i * size], size)
                        : is_zero(&values[i * size], size),
                  "item %zu of %zu bytes at %#zx", i, size, static_cast<size_t>(places[i]));
    }
}

void PoolModel::one_item() {
    uint64_t size = random_.below(2) ? uint64_t{1} << random_.below(4) : 1 + random_.below(80);
    int64_t place = any_place(size);
    uint64_t number = static_cast<uint64_t>(place) / tile_, inside = static_cast<uint64_t>(place) % tile_;
    bool good = place >= 0 && number < tiles_ && inside + size <= tile_;
    if (random_.below(2)) {
        int expected = good ? SA_OK : place < 0 ? SA_NEGATIVE : SA_BOUNDS;
        if (size > sizeof report_.record)
            expected = SA_MISALIGNED;
        int code = sa_read_item(r_, place, size, &report_);
        CHECK(code == expected, "read_item: %d, not %d", code, expected);
        const Bytes *bytes = code ? nullptr : find(number);
        CHECK(code ||
                  (bytes ? !memcmp(&(*bytes)[inside], report_.record, size) : is_zero(report_.record, size)),
              "item of %zu bytes at %#zx", size, static_cast<size_t>(place));
        return;
    }
    Bytes data(size, static_cast<char>(random_.next() >> 8));
    int expected = good && fits({number}) ? SA_OK : place < 0 ? SA_NEGATIVE : SA_BOUNDS;
    int code = sa_write_item(r_, place, size, data.data(), &report_);
    CHECK(code == expected, "write_item: %d, not %d", code, expected);
    if (code == SA_OK)
        std::copy_n(data.data(), size, &make(number)[inside]);
}

// ---------------------------------------------------------------------------------- tiles

void PoolModel::find_tile() {
    bool make_it = random_.below(2);
    int64_t number = random_.below(30) ? static_cast<int64_t>(any_number()) : -1 - random_.upto(9),
            offset = -2;
    if (random_.below(50) == 0)
        number = INT64_MAX - random_.upto(20);
    int expected = number < 0                                          ? SA_NEGATIVE
                   : make_it && !fits({static_cast<uint64_t>(number)}) ? SA_BOUNDS
                                                                       : SA_OK;
    int code = sa_find_tile(r_, number, make_it, &offset, &report_);
    CHECK(code == expected, "find_tile: %d, not %d", code, expected);
    if (code)
        return;
    if (make_it)
        make(static_cast<uint64_t>(number));
    bool there = find(static_cast<uint64_t>(number));
    CHECK(there == (offset >= 0) && (there || offset == -1), "tile at %#zx", static_cast<size_t>(offset));
}

void PoolModel::drop() {
    std::vector<int64_t> numbers(random_.below(random_.below(3) ? 6 : 40));
    for (int64_t &number : numbers)
        number = random_.below(40) ? static_cast<int64_t>(any_number()) : -random_.upto(3);
    if (random_.below(60) == 0)
        for (auto &[number, bytes] : stored_)
            numbers.push_back(static_cast<int64_t>(number));
    if (numbers.size() > 1)
        numbers.push_back(numbers[random_.below(numbers.size())]);
    CHECK(sa_drop_tiles(r_, numbers.data(), numbers.size(), &report_) == SA_OK, "drop_tiles");
    uint64_t count = 0;
    for (int64_t number : numbers) {
        Bytes *bytes = number < 0 ? nullptr : find(static_cast<uint64_t>(number));
        if (!bytes)
            continue;
        if (is_pinned(static_cast<uint64_t>(number))) {
            std::fill(bytes->begin(), bytes->end(), char{0});
            continue;
        }
        stored_.erase(static_cast<uint64_t>(number));
        offsets_.erase(static_cast<uint64_t>(number));
        count++;
    }
    CHECK(report_.count == count, "%zu dropped, not %zu", report_.count, count);
}

void PoolModel::resize() {
    int64_t tiles = static_cast<int64_t>(random_.below(3) ? most_ : any_number() + random_.below(2));
    uint64_t kind = random_.below(10);
    if (kind < 2)
        tiles = kind ? -1 - random_.upto(3) : static_cast<int64_t>(most_) + 1 + random_.upto(INT64_MAX / 2);
    bool good = kind >= 2;
    uint64_t left = static_cast<uint64_t>(tiles);
    bool pinned =
        std::any_of(windows_.begin(), windows_.end(), [&](const Window &w) { return w.number >= left; });
    int code = sa_resize_pool(r_, tiles, &report_), expected = !good    ? SA_NEGATIVE
                                                               : pinned ? SA_PINNED
                                                                        : SA_OK;
    CHECK(code == expected, "resize_pool: %d, not %d", code, expected);
    if (code)
        return check_list();
    tiles_ = left;
    stored_.erase(stored_.lower_bound(left), stored_.end());
    offsets_.erase(offsets_.lower_bound(left), offsets_.end());
}

void PoolModel::window() {
    int64_t offset = -1;
    uint64_t number = any_number();
    if (windows_.size() > 5 || !fits({number}))
        return;
    CHECK(sa_find_tile(r_, static_cast<int64_t>(number), 1, &offset, &report_) == SA_OK, "find_tile");
    Bytes &bytes = make(number);
    uint64_t inside = random_.below(3) ? 0 : random_.below(tile_);
    Window made{number, inside, random_.below(3) ? tile_ - inside : 1 + random_.below(tile_ - inside),
                nullptr};
    bool write = random_.below(2);
    CHECK(sa_pin_range(r_, offset + static_cast<int64_t>(inside), static_cast<int64_t>(made.nbytes), 1,
                       &made.pin, &report_) == SA_OK,
          "pin_range");
    // One that only reads holds on to nothing.
    sa_unpin(&reader_);
    CHECK(sa_pin_range(r_, offset, static_cast<int64_t>(tile_), 0, &reader_, &report_) == SA_OK, "pin_range");
    windows_.push_back(made);
    char *there = base_ + offset + inside;
    CHECK(!memcmp(there, &bytes[inside], made.nbytes), "a window of tile %#zx", number);
    if (write)
        for (uint64_t i = 0; i < made.nbytes; i += 1 + random_.below(64))
            there[i] = bytes[inside + i] = static_cast<char>(random_.next() >> 8);
}

void PoolModel::close_window() {
    if (windows_.empty())
        return;
    std::swap(windows_[random_.below(windows_.size())], windows_.back());
    Window &last = windows_.back();
    CHECK(!memcmp(address(last.number) + last.inside, &stored_[last.number][last.inside], last.nbytes),
          "a window of tile %#zx", last.number);
    sa_unpin(&last.pin);
    windows_.pop_back();
}

// ---------------------------------------------------------------------------------- what is stored

void PoolModel::check_list() {
    uint64_t first = 0, last = INT64_MAX;
    if (random_.below(2)) {
        first = random_.below(8) ? any_number() : most_;
        last = first + random_.below(random_.below(2) ? 100 : most_);
    }
    auto from = stored_.lower_bound(first), to = stored_.lower_bound(last);
    uint64_t count = static_cast<uint64_t>(std::distance(from, to)), room = random_.below(count + 2);
    std::vector<int64_t> numbers, offsets;
    for (;;) {
        numbers.assign(room, 0);
        offsets.assign(room, 0);
        int code = sa_list_tiles(r_, static_cast<int64_t>(first), static_cast<int64_t>(last), numbers.data(),
                                 offsets.data(), room, &report_);
        CHECK(code == SA_OK && report_.count >= count && report_.count <= last - first, "list_tiles: %d, %zu",
              code, report_.count);
        if (report_.count <= room)
            break;
        room = report_.count;
    }
    CHECK(report_.count == count, "%zu tiles, not %zu", report_.count, count);
    for (uint64_t i = 0; i < count; i++, ++from) {
        CHECK(static_cast<uint64_t>(numbers[i]) == from->first, "tile %#zx, not %#zx",
              static_cast<size_t>(numbers[i]), from->first);
        int64_t &seen = offsets_.emplace(from->first, offsets[i]).first->second;
        CHECK(seen == offsets[i], "tile %#zx has moved", from->first);
    }
    CHECK(sa_list_tiles(r_, 5, 4, nullptr, nullptr, 0, &report_) == SA_NEGATIVE, "list_tiles");
}

void PoolModel::check_slots() {
    std::vector<int64_t> numbers(stored_.size()), offsets(stored_.size()), pairs(2 * stored_.size());
    CHECK(
        sa_list_tiles(r_, 0, INT64_MAX, numbers.data(), offsets.data(), numbers.size(), &report_) == SA_OK &&
            report_.count == stored_.size(),
        "%zu tiles, not %zu", report_.count, stored_.size());
    std::sort(offsets.begin(), offsets.end());
    CHECK(
        sa_list_slots(r_, pairs.data(), stored_.size(), &report_) == SA_OK && report_.count <= stored_.size(),
        "%zu slots", report_.count);
    size_t i = 0;
    int64_t stop = -1;
    for (uint64_t k = 0; k < report_.count; k++) {
        CHECK(pairs[2 * k] > stop, "slots at %#zx", static_cast<size_t>(pairs[2 * k]));
        stop = pairs[2 * k + 1];
        for (int64_t at = pairs[2 * k]; at < stop; at += static_cast<int64_t>(tile_), i++)
            CHECK(i < offsets.size() && offsets[i] == at, "a slot at %#zx", static_cast<size_t>(at));
    }
    CHECK(i == offsets.size() && stop <= static_cast<int64_t>(start_ + slots_ * tile_), "%zu slots", i);
    if (report_.count) {
        uint64_t count = report_.count;
        CHECK(sa_list_slots(r_, nullptr, count - 1, &report_) == SA_OK && report_.count == count,
              "list_slots");
    }
}

void PoolModel::check_bytes() {
    check_list();
    check_slots();
    for (const auto &[number, bytes] : stored_)
        CHECK(!memcmp(address(number), bytes.data(), tile_), "tile %#zx", number);
    auto around = [](char byte) { return byte == kAround; };
    char *stop = base_ + start_ + slots_ * tile_;
    CHECK(std::all_of(base_, base_ + start_, around) && std::all_of(stop, stop + page, around),
          "around the pool");
}
