// Arrays of tiles in a pool, for some seconds: tiles [seconds [seed]].
//
// How it works:
// 1. For half of the time one thread uses one small pool after the other, and a model says what every call on
//    it must answer (PoolModel).
// 2. Then many threads use one pool. Each has tiles of its own, neighbours in the table of other threads'
//    tiles, and columns of tiles that all threads share, make and drop. Every word says where it lies in the
//    array: so a tile in the slot of another one is noticed.
// 3. One thread forks; the child does the same things for a moment, without threads.
//
// No two threads touch a byte at the same time: so what ThreadSanitizer reports is the core's own
// bookkeeping.
#include "tiles.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <memory>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

uint64_t page;

namespace {

constexpr uint64_t kTenants = 4;
constexpr uint64_t kTiles = 128;   // of tenants
constexpr uint64_t kGrowth = 40;   // more that come and go
constexpr uint64_t kColumns = 32;  // words; the tenants take turns
constexpr uint64_t kGroup = 8;     // of tiles that share a cell of the table

struct Stage {
    sa_reservation *r = nullptr;
    char *base = nullptr;
    uint64_t tile = 0;  // bytes
    std::atomic<bool> stop{false};
};
Stage stage;

// Of the tile with an index: groups that follow each other, and such that are far apart.
uint64_t number_of(uint64_t i) {
    uint64_t group = i / kGroup;
    return (group < 8 ? group : group * 1000003) * kGroup + i % kGroup;
}
const uint64_t growth_start = number_of(kTiles - 1) + 1;

// Whose it is; all tenants share those of the one after the last.
uint64_t tenant_of(uint64_t i) { return (i + i / kGroup) % (kTenants + 1); }

uint64_t words() { return stage.tile / 8; }

// What is written to a word.
uint64_t say(uint64_t i, uint64_t word, uint64_t version) {
    return (i + 1) << 48 | word << 32 | (version & 0xffffffff);
}

void check_word(uint64_t found, uint64_t i, uint64_t word) {
    CHECK(!found || found >> 32 == say(i, word, 0) >> 32, "%#zx in word %zu of tile %zu", found, word, i);
}

class Worker {
  public:
    Worker(const char *name, uint64_t seed) : name(name), random_(seed) {}
    virtual ~Worker() = default;
    virtual void step() = 0;
    void run() {
        for (; !stage.stop.load(std::memory_order_relaxed); steps++)
            step();
    }

    const char *name;
    uint64_t steps = 0;

  protected:
    Random random_;
    sa_report report_ = {};
};

// Tiles of its own, and its columns of those that are shared: what it wrote there may be gone, tile by tile.
struct Tenant : Worker {
    Tenant(uint64_t seed, uint64_t tenant) : Worker("tenant", seed), tenant_(tenant), words_(kTiles) {
        for (uint64_t i = 0; i < kTiles; i++)
            if (tenant_of(i) == tenant || tenant_of(i) == kTenants) {
                mine_.push_back(i);
                words_[i].resize(words());
            }
    }

    void step() override {
        switch (random_.below(10)) {
        case 0:
        case 1: return box(SA_BOX_READ);
        case 2: return box(SA_BOX_WRITE);
        case 3: return box(SA_BOX_WRITE_FILLED);
        case 4: return box(SA_BOX_CLEAR);
        case 5:
        case 6: return items();
        case 7: return one_item();
        case 8: return drop();
        default: return window();
        }
    }

  private:
    struct Cell {
        uint64_t i, word;
    };

    uint64_t any_tile() { return mine_[random_.below(mine_.size())]; }
    static bool is_shared(uint64_t i) { return tenant_of(i) == kTenants; }

    Cell any_cell() {
        uint64_t i = any_tile(), word = random_.below(words());
        return {i, is_shared(i) ? word / kTenants * kTenants + tenant_ : word};
    }
    static int64_t place(const Cell &cell) {
        return static_cast<int64_t>(number_of(cell.i) * stage.tile + cell.word * 8);
    }

    uint64_t next(const Cell &cell) { return say(cell.i, cell.word, ++version_); }
    void wrote(const Cell &cell, uint64_t word) { words_[cell.i][cell.word] = word; }
    void saw(const Cell &cell, uint64_t found) {
        uint64_t &word = words_[cell.i][cell.word];
        check_word(found, cell.i, cell.word);
        CHECK(found == word || (is_shared(cell.i) && !found), "%#zx, not %#zx, in word %zu of tile %zu",
              found, word, cell.word, cell.i);
        word = found;
    }

    // Some rows of a few tiles, as if these were one column of tiles.
    void box(int how) {
        int64_t rows[8];
        uint64_t count = 1 + random_.below(8), high = words() / kColumns, width = kColumns;
        bool shared = false;
        for (uint64_t row = random_.below(high), i = any_tile(), k = 0; k < count; k++) {
            shared |= is_shared(i);
            rows[k] = static_cast<int64_t>(number_of(i) * high + row);
            tiles_[k] = i;
            row = (row + 1) % high;
            if (!row || random_.below(4) == 0) {
                i = any_tile();
                row = random_.below(high);
            }
        }
        uint64_t step = (shared ? kTenants : 1) * (1 + random_.below(3));
        uint64_t first = shared ? tenant_ : random_.below(width),
                 n = 1 + random_.below((width - 1 - first) / step + 1);
        bool down = random_.below(2);
        uint64_t data[8][kColumns];
        uint64_t zeros = how == SA_BOX_WRITE_FILLED ? random_.below(3) : 3;  // tiles to be left out
        auto cell = [&](uint64_t k, uint64_t at) {
            uint64_t column = first + step * (down ? n - 1 - at : at);
            return Cell{tiles_[k], static_cast<uint64_t>(rows[k]) % high * kColumns + column};
        };
        for (uint64_t k = 0; k < count; k++)
            for (uint64_t at = 0; at < n; at++)
                data[k][at] = tiles_[k] % 3 == zeros ? 0 : next(cell(k, at));
        int64_t stride = how == SA_BOX_CLEAR ? 0 : 8, pace = static_cast<int64_t>(step);
        sa_axis axes[2] = {
            {static_cast<int64_t>(high), static_cast<int64_t>(stage.tile), kColumns * 8,
             stride * int64_t{kColumns}, static_cast<int64_t>(count), 0, 1, rows},
            {kColumns, 0, 8, stride, static_cast<int64_t>(n),
             static_cast<int64_t>(down ? first + (n - 1) * step : first), down ? -pace : pace, nullptr}};
        char *theirs = how == SA_BOX_CLEAR ? nullptr : reinterpret_cast<char *>(data);
        int code = sa_move_box(stage.r, SA_POOL, axes, 2, 8, theirs, how, &report_);
        CHECK(code == SA_OK, "move_box: %d", code);
        for (uint64_t k = 0; k < count; k++)
            for (uint64_t at = 0; at < n; at++) {
                if (how == SA_BOX_READ)
                    saw(cell(k, at), data[k][at]);
                else if (how == SA_BOX_CLEAR)
                    wrote(cell(k, at), 0);
                else if (data[k][at])
                    wrote(cell(k, at), data[k][at]);
            }
    }

    void items() {
        constexpr uint64_t kMost = 20;
        uint64_t count = 1 + random_.below(kMost), values[kMost];
        Cell cells[kMost];
        int64_t places[kMost];
        for (uint64_t k = 0; k < count; k++) {
            cells[k] = any_cell();
            places[k] = place(cells[k]);
            values[k] = next(cells[k]);
        }
        bool write = random_.below(2);
        char *data = reinterpret_cast<char *>(values);
        int code = write ? sa_scatter_items(stage.r, places, count, 8, data, &report_)
                         : sa_gather_items(stage.r, places, count, 8, data, &report_);
        CHECK(code == SA_OK, "%s: %d", write ? "scatter" : "gather", code);
        for (uint64_t k = 0; k < count; k++)
            if (write)
                wrote(cells[k], values[k]);
            else
                saw(cells[k], values[k]);
    }

    void one_item() {
        Cell cell = any_cell();
        uint64_t word = next(cell);
        if (random_.below(2)) {
            CHECK(sa_write_item(stage.r, place(cell), 8, reinterpret_cast<char *>(&word), &report_) == SA_OK,
                  "write_item");
            return wrote(cell, word);
        }
        CHECK(sa_read_item(stage.r, place(cell), 8, &report_) == SA_OK, "read_item");
        memcpy(&word, report_.record, 8);
        saw(cell, word);
    }

    void drop() {
        int64_t numbers[6];
        uint64_t count = 1 + random_.below(6);
        for (uint64_t k = 0; k < count; k++) {
            uint64_t i = any_tile();
            numbers[k] = static_cast<int64_t>(number_of(i));
            std::fill(words_[i].begin(), words_[i].end(), 0);
        }
        CHECK(sa_drop_tiles(stage.r, numbers, count, &report_) == SA_OK && report_.count <= count,
              "drop_tiles");
    }

    int64_t find(uint64_t i, int make) {
        int64_t offset = -2;
        CHECK(sa_find_tile(stage.r, static_cast<int64_t>(number_of(i)), make, &offset, &report_) == SA_OK,
              "find_tile");
        CHECK(offset >= 0 || (!make && offset == -1), "tile %zu is at %#zx", i, static_cast<size_t>(offset));
        return offset;
    }

    // As the library makes one.
    void window() {
        uint64_t i = any_tile();
        sa_pin *pin = nullptr;
        int64_t offset;
        for (;;) {
            offset = find(i, 1);
            CHECK(sa_pin_range(stage.r, offset, static_cast<int64_t>(stage.tile), 1, &pin, &report_) == SA_OK,
                  "pin_range");
            if (find(i, 0) == offset)
                break;
            CHECK(is_shared(i), "tile %zu has moved", i);
            sa_unpin(&pin);
        }
        auto *there = reinterpret_cast<volatile uint64_t *>(stage.base + offset);
        uint64_t step = is_shared(i) ? kTenants : 1;
        for (uint64_t turn = 0; turn < 2; turn++) {
            for (uint64_t word = is_shared(i) ? tenant_ : 0; word < words();
                 word += step * (1 + random_.below(40))) {
                saw({i, word}, there[word]);
                if (random_.below(2))
                    wrote({i, word}, there[word] = next({i, word}));
            }
            if (turn == 0 && random_.below(3) == 0) {
                int64_t number = static_cast<int64_t>(number_of(i));
                CHECK(sa_drop_tiles(stage.r, &number, 1, &report_) == SA_OK && !report_.count,
                      "drop under a window");
                std::fill(words_[i].begin(), words_[i].end(), 0);
            }
        }
        CHECK(find(i, 0) == offset, "tile %zu has moved", i);
        sa_unpin(&pin);
    }

    const uint64_t tenant_;
    std::vector<uint64_t> mine_;
    std::vector<std::vector<uint64_t>> words_;  // what was written
    uint64_t version_ = 0, tiles_[8] = {};
};

// All that is stored, while it changes.
struct Lister : Worker {
    explicit Lister(uint64_t seed) : Worker("lister", seed) {}
    void step() override {
        constexpr uint64_t kMost = kTiles + kGrowth;
        int64_t numbers[kMost], offsets[kMost], pairs[2 * kMost], stop = -1;
        int code = sa_list_tiles(stage.r, 0, INT64_MAX, numbers, offsets, kMost, &report_);
        CHECK(code == SA_OK && report_.count <= kMost, "list_tiles: %d, %zu", code, report_.count);
        uint64_t count = report_.count;
        for (uint64_t k = 0; k < count; k++) {
            CHECK(k == 0 || numbers[k] > numbers[k - 1], "tile %#zx", static_cast<size_t>(numbers[k]));
            CHECK(offsets[k] % static_cast<int64_t>(stage.tile) == 0, "at %#zx",
                  static_cast<size_t>(offsets[k]));
        }
        std::sort(offsets, offsets + count);
        CHECK(std::adjacent_find(offsets, offsets + count) == offsets + count, "two tiles in a slot");
        code = sa_list_slots(stage.r, pairs, kMost, &report_);
        CHECK(code == SA_OK && report_.count <= kMost, "list_slots: %d, %zu", code, report_.count);
        for (uint64_t k = 0; k < report_.count; k++) {
            CHECK(pairs[2 * k] > stop && pairs[2 * k] < pairs[2 * k + 1], "slots %zu", k);
            stop = pairs[2 * k + 1];
        }
        CHECK(stop <= static_cast<int64_t>(kMost * stage.tile), "slots to %#zx", static_cast<size_t>(stop));
#ifndef SA_TSAN
        look();  // at words that others write, which are not torn
#endif
    }

  private:
    void look() {
        for (int k = 0; k < 20; k++) {
            uint64_t i = random_.below(kTiles), word = random_.below(words()), found;
            int64_t place = static_cast<int64_t>(number_of(i) * stage.tile + word * 8);
            CHECK(sa_read_item(stage.r, place, 8, &report_) == SA_OK, "read_item");
            memcpy(&found, report_.record, 8);
            check_word(found, i, word);
        }
    }
};

// Lets the pool grow and shrink, and has those tiles that come and go.
struct Growth : Worker {
    explicit Growth(uint64_t seed) : Worker("growth", seed), tiles_(kGrowth), words_(kGrowth * words()) {}
    void step() override {
        if (random_.below(6) == 0)
            return resize();
        uint64_t k = random_.below(kGrowth), word = random_.below(words());
        uint64_t &known = words_[k * words() + word], written = say(kTiles + k, word, ++version_), found;
        int64_t place = static_cast<int64_t>((growth_start + k) * stage.tile + word * 8);
        bool write = random_.below(2);
        int code = write ? sa_write_item(stage.r, place, 8, reinterpret_cast<char *>(&written), &report_)
                         : sa_read_item(stage.r, place, 8, &report_);
        CHECK(code == (k < tiles_ ? SA_OK : SA_BOUNDS), "%s: %d", write ? "write_item" : "read_item", code);
        if (code == SA_OK && !write) {
            memcpy(&found, report_.record, 8);
            CHECK(found == known, "%#zx, not %#zx, in word %zu of tile %zu more", found, known, word, k);
        }
        if (code == SA_OK && write)
            known = written;
    }

  private:
    void resize() {
        uint64_t tiles = random_.below(kGrowth + 1);
        int code = sa_resize_pool(stage.r, static_cast<int64_t>(growth_start + tiles), &report_);
        // Others hold on to a slot for a moment, and then find that their tile is there no more.
        CHECK(code == SA_OK || (code == SA_PINNED && tiles < tiles_), "resize_pool: %d", code);
        if (code)
            return;
        tiles_ = tiles;
        std::fill(words_.begin() + static_cast<ptrdiff_t>(tiles * words()), words_.end(), 0);
    }

    uint64_t tiles_, version_ = 0;
    std::vector<uint64_t> words_;
};

struct Forker : Worker {
    explicit Forker(uint64_t seed)
        : Worker("forker", seed), tenant(seed + 1, kTenants - 1), lister(seed + 2) {}
    void step() override {
        for (int i = 0; i < 100; i++)
            tenant.step();
#if defined(SA_ASAN) || defined(SA_TSAN)
        return;  // their allocators do not know of fork
#endif
        pid_t child = fork();
        CHECK(child >= 0, "errno %d", errno);
        if (!child) {
            alarm(60);  // ends a child that hangs
            for (int i = 0; i < 50; i++) {
                tenant.step();
                lister.step();
            }
            _exit(0);
        }
        int status = 0;
        CHECK(waitpid(child, &status, 0) == child, "errno %d", errno);
        CHECK(status == 0, "a child's status is %#x", static_cast<unsigned>(status));
    }

    Tenant tenant;
    Lister lister;
};

void set_stage(uint64_t seed) {
    stage.tile = (1 + seed % 3) * page;
    uint64_t nbytes = (kTiles + kGrowth) * stage.tile;
    sa_report report;
    sa_geometry geometry;
    CHECK(sa_reserve(nbytes, 0, &stage.r, &report) == SA_OK, "reserve");
    sa_describe(stage.r, &geometry);
    stage.base = reinterpret_cast<char *>(geometry.address);
    CHECK(sa_alloc(stage.r, 0, static_cast<int64_t>(nbytes), 0, &report) == SA_OK, "alloc");
    CHECK(sa_make_pool(stage.r, 0, static_cast<int64_t>(stage.tile), kTiles + kGrowth, &report) == SA_OK,
          "make_pool");
    CHECK(sa_resize_pool(stage.r, static_cast<int64_t>(growth_start + kGrowth), &report) == SA_OK,
          "resize_pool");
}

void run_models(unsigned seconds, uint64_t seed) {
    uint64_t pools = 0, steps = 0;
    for (time_t stop = time(nullptr) + seconds; time(nullptr) < stop; pools++) {
        PoolModel model(seed + pools);
        for (int i = 0; i < 1000; i++, steps++)
            model.step();
    }
    printf("  %-9s %9llu steps, %llu pools\n", "model", static_cast<unsigned long long>(steps),
           static_cast<unsigned long long>(pools));
    fflush(stdout);
}

void run_threads(unsigned seconds, uint64_t seed) {
    set_stage(seed);
    std::vector<std::unique_ptr<Worker>> workers;
    for (uint64_t tenant = 0; tenant < kTenants - 1; tenant++)
        workers.push_back(std::make_unique<Tenant>(seed + 11 + tenant, tenant));
    workers.push_back(std::make_unique<Lister>(seed + 21));
    workers.push_back(std::make_unique<Growth>(seed + 31));
    workers.push_back(std::make_unique<Forker>(seed + 41));
    std::vector<std::thread> threads;
    for (auto &worker : workers)
        threads.emplace_back(&Worker::run, worker.get());
    sleep(seconds);
    stage.stop = true;
    for (std::thread &thread : threads)
        thread.join();
    for (auto &worker : workers)
        printf("  %-9s %9llu steps\n", worker->name, static_cast<unsigned long long>(worker->steps));
    sa_report report;
    CHECK(sa_close(stage.r, &report) == SA_OK, "close");
    sa_release(&stage.r);
}

}  // namespace

int main(int argc, char **argv) {
    unsigned seconds = argc > 1 ? static_cast<unsigned>(atoi(argv[1])) : 10;
    uint64_t seed = argc > 2 ? strtoull(argv[2], nullptr, 0) : static_cast<uint64_t>(getpid());
    printf("tiles for %u s, seed %llu\n", seconds, static_cast<unsigned long long>(seed));
    fflush(stdout);
    alarm(seconds + 120);  // ends threads that wait for each other
    page = sa_page_size();
    run_models(seconds / 2, seed);
    run_threads(seconds - seconds / 2, seed);
    return 0;
}
