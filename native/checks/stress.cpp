// Many threads on a few reservations, for some seconds: stress [seconds [seed]].
//
// How it works:
// 1. Each of a few threads has pages of its own and knows what every call on them must answer (Owner).
// 2. All of them share two zones. In zone A words are written, with atomics and through windows, and say
//    where they lie; zone R shows a file with a pattern, and is only read. Both are mapped anew all the
//    time, the files cut short and grown again.
// 3. One thread forks; the child does the same things for a moment, without threads.
//
// No two threads touch a byte at the same time, unless by atomics: so what ThreadSanitizer reports is
// the core's own bookkeeping.
#include "stress.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <string>
#include <sys/mman.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

uint64_t page;

namespace {

Stage stage;
const uint64_t zone_a = kSlots * kOwned, zone_r = zone_a + kShared;  // in pages

constexpr unsigned allow(int code) { return 1u << -code; }
constexpr unsigned kMapping = allow(SA_OK) | allow(SA_PINNED) | allow(SA_FILE_END);
constexpr unsigned kAccess = allow(SA_OK) | allow(SA_ACCESS);

// Whether the call succeeded; it ends the program if it failed in a way that cannot be.
bool judge(int code, unsigned allowed, const sa_report &report, const char *what) {
    CHECK(code <= 0 && (allowed & allow(code)), "%s: code %d, errno %d", what, code, report.sys_errno);
    if (code == SA_SYSTEM)
        CHECK(report.sys_errno == EACCES, "%s: errno %d", what, report.sys_errno);
    if (code == SA_ACCESS)
        CHECK(report.reason == SA_UNMAPPED || report.reason == SA_READ_ONLY ||
                  report.reason == SA_FILE_TRUNCATED,
              "%s: reason %d at %#zx", what, report.reason, report.offset);
    return code == SA_OK;
}

int64_t bytes(uint64_t pages) { return static_cast<int64_t>(pages * page); }

// What a word of a zone holds: zero, or what says where it lies.
void check_atomic(uint64_t word, uint64_t offset) {
    uint64_t place = (offset - zone_a * page) / 8 + 1;
    CHECK((word & 0xffffffff) == place || !(word & 0xffffffff), "%#zx at %#zx in zone A", word, offset);
}

void check_pattern(uint64_t word, uint64_t offset) {
    uint64_t inverse = 1;
    for (int i = 0; i < 6; i++)
        inverse *= 2 - 0x9e3779b97f4a7c15u * inverse;
    uint64_t place = word * inverse - 1;
    CHECK(!word || (place < kShared * page / 8 && place % (page / 8) == offset / 8 % (page / 8)),
          "%#zx at %#zx in zone R", word, offset);
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
    uint64_t steps = 0, done = 0;

  protected:
    sa_reservation *any() { return stage.r[random_.below(kReservations)]; }
    Random random_;
    sa_report report_ = {};
};

struct OwnPages : Worker {
    OwnPages(uint64_t seed, int slot) : Worker("owner", seed), owner(stage, slot) {}
    void step() override {
        owner.step(random_);
        done++;
    }
    Owner owner;
};

// Words of zone A, by calls.
struct Atomics : Worker {
    explicit Atomics(uint64_t seed) : Worker("atomics", seed) {}
    void step() override {
        uint64_t word = random_.below(kShared * page / 8), offset = zone_a * page + word * 8;
        uint64_t high = random_.next() << 32;
        static const int ops[] = {SA_ATOMIC_LOAD,     SA_ATOMIC_LOAD, SA_ATOMIC_STORE,
                                  SA_ATOMIC_EXCHANGE, SA_ATOMIC_ADD,  SA_ATOMIC_SUB,
                                  SA_ATOMIC_XOR,      SA_ATOMIC_OR,   SA_ATOMIC_COMPARE_EXCHANGE};
        int op = ops[random_.below(9)];
        bool whole = op == SA_ATOMIC_STORE || op == SA_ATOMIC_EXCHANGE ||
                     op == SA_ATOMIC_COMPARE_EXCHANGE;
        int code = sa_atomic(any(), static_cast<int64_t>(offset), 8, op,
                             whole ? high | (word + 1) : high, 0, &report_);
        if (!judge(code, kAccess, report_, "atomic"))
            return;
        done++;
        if (op != SA_ATOMIC_STORE)
            check_atomic(report_.value, offset);
    }
};

// Both zones, through windows.
struct Windows : Worker {
    explicit Windows(uint64_t seed) : Worker("windows", seed) {}
    void step() override {
        sa_reservation *r = any();
        sa_geometry geometry;
        sa_describe(r, &geometry);
        bool atomics = random_.below(2);
        uint64_t start = (atomics ? zone_a : zone_r) * page + random_.below(kShared * page);
        uint64_t n = random_.below(3 * page);
        n = std::min(n, (atomics ? zone_r : kPages) * page - start);
        int wanted = static_cast<int>(random_.below(3)) - 1;
        sa_pin *pin = nullptr;
        int code = sa_pin_range(r, static_cast<int64_t>(start), static_cast<int64_t>(n), wanted, &pin,
                                &report_);
        if (!judge(code, kAccess, report_, "pin_range") || !pin)
            return;
        done++;
        bool write = atomics && report_.writable;
        uint64_t stride = 8 * (1 + random_.below(64));
        for (uint64_t at = (start + 7) / 8 * 8; at + 8 <= start + n; at += stride) {
            auto *word = reinterpret_cast<uint64_t *>(geometry.address + at);
            uint64_t found = __atomic_load_n(word, __ATOMIC_RELAXED);
            if (atomics)
                check_atomic(found, at);
            else
                check_pattern(found, at);
            if (write)
                __atomic_store_n(word, random_.next() << 32 | ((at - zone_a * page) / 8 + 1),
                                 __ATOMIC_RELAXED);
        }
        if (random_.below(4) == 0)
            judge(sa_check_damage(r, 0, bytes(kPages), 1, 0, &report_), kAccess, report_, "check_damage");
        sa_unpin(&pin);
    }
};

// Zone R, by calls; now and then with the signal blocked.
struct Reader : Worker {
    Reader(uint64_t seed, bool blocks) : Worker("reader", seed), blocks(blocks), out(kShared * page) {}
    void step() override {
        if (blocks && steps % 64 == 0)
            block(random_.below(3) == 0);
        sa_reservation *r = any();
        uint64_t start = zone_r * page + random_.below(kShared * page / 8) * 8;
        uint64_t n = std::min(random_.below(3 * page) / 8 * 8, kPages * page - start);
        int64_t at = static_cast<int64_t>(start), nbytes = static_cast<int64_t>(n);
        int64_t first = bytes(start / page), whole = bytes(1);
        switch (random_.below(10)) {
        case 0: return gather(r);
        case 1: return extents(r);
        case 2: return regions(r);
        case 3:
            if (judge(sa_salvage(r, at, nbytes, out.data(), &report_), kAccess, report_, "salvage"))
                look(start, n);
            return;
        case 4: return (void)judge(sa_fetch(r, at, nbytes, &report_), kAccess, report_, "fetch");
        case 5: return (void)judge(sa_forget(r, at, nbytes, &report_), kAccess, report_, "forget");
        case 6: return (void)judge(sa_commit(r, first, whole, &report_), kAccess, report_, "commit");
        case 7: {
            int code = sa_read_record(r, at, 8, &report_);
            if (judge(code, kAccess, report_, "read_record")) {
                memcpy(out.data(), report_.record, 8);
                look(start, 8);
            }
            return;
        }
        default:
            int code = sa_read(r, at, nbytes, out.data(), &report_);
            judge(code, kAccess, report_, "read");
            CHECK(report_.transferred <= n && (code || report_.transferred == n), "%zu of %zu",
                  report_.transferred, n);
            look(start, report_.transferred / 8 * 8);
        }
    }

  private:
    void block(bool on) {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGBUS);
        pthread_sigmask(on ? SIG_BLOCK : SIG_UNBLOCK, &set, nullptr);
    }

    void look(uint64_t start, uint64_t n) {
        done++;
        for (uint64_t i = 0; i + 8 <= n; i += 8) {
            uint64_t word;
            memcpy(&word, &out[i], 8);
            check_pattern(word, start + i);
        }
    }

    void gather(sa_reservation *r) {
        int64_t offsets[20];
        for (int64_t &offset : offsets)
            offset = bytes(zone_r) + static_cast<int64_t>(random_.below(kShared * page / 8) * 8);
        if (!judge(sa_gather(r, offsets, 20, 8, out.data(), &report_), kAccess, report_, "gather"))
            return;
        done++;
        for (int i = 0; i < 20; i++) {
            uint64_t word;
            memcpy(&word, &out[static_cast<size_t>(8 * i)], 8);
            check_pattern(word, static_cast<uint64_t>(offsets[i]));
        }
    }

    void extents(sa_reservation *r) {
        int64_t pairs[2 * kPages], stop = 0;
        int method = random_.below(2) ? SA_EXTENTS_BEST : SA_EXTENTS_HELD;
        if (!judge(sa_extents(r, 0, bytes(kPages), method, pairs, kPages, &report_), kAccess, report_,
                   "extents"))
            return;
        done++;
        for (uint64_t i = 0; i < report_.count; i++) {
            CHECK(pairs[2 * i] >= stop && pairs[2 * i] < pairs[2 * i + 1], "extent %zu", i);
            stop = pairs[2 * i + 1];
        }
        CHECK(stop <= bytes(kPages), "extents to %#zx", static_cast<size_t>(stop));
    }

    void regions(sa_reservation *r) {
        sa_region regions[kPages];
        uint64_t count, stop = 0;
        CHECK(sa_regions(r, regions, kPages, &count) == SA_OK && count <= kPages, "regions");
        for (uint64_t i = 0; i < count; i++) {
            CHECK(regions[i].offset >= stop && regions[i].nbytes, "region %zu", i);
            stop = regions[i].offset + regions[i].nbytes;
            sa_file_name(r, regions[i].file, &report_);
            const char *names[] = {"", "atomics", "pattern", "constant"};
            CHECK(std::any_of(names, names + 4, [&](auto name) { return !strcmp(name, report_.file); }),
                  "%s", report_.file);
        }
        done++;
    }

    const bool blocks;  // the whole thread, and so its windows could not survive
    std::vector<char> out;
};

// Maps both zones anew.
struct Mapper : Worker {
    explicit Mapper(uint64_t seed) : Worker("mapper", seed) {}
    void step() override {
        sa_reservation *r = any();
        bool atomics = random_.below(2);
        uint64_t first = random_.below(kShared),
                 count = 1 + random_.below(std::min<uint64_t>(3, kShared - first));
        if (random_.below(8) == 0) {  // a whole zone: its file is then closed
            first = 0;
            count = kShared;
        }
        int64_t at = bytes((atomics ? zone_a : zone_r) + first), n = bytes(count);
        switch (random_.below(14)) {
        case 0: return end(sa_alloc(r, at, n, 0, &report_), kMapping, "alloc");
        case 1: return end(sa_map_zero(r, at, n, &report_), kMapping, "map_zero");
        case 2: return end(sa_unmap(r, at, n, &report_), kMapping, "unmap");
        case 3:
        case 4: {
            int code = sa_set_writable(r, at, n, static_cast<int>(random_.below(2)), &report_);
            return end(code, kMapping | kAccess | allow(SA_SYSTEM), "set_writable");
        }
        case 5: return end(sa_decommit(r, at, n, &report_), kAccess, "decommit");
        case 6: return end(sa_punch(r, at, n, &report_), kAccess | allow(SA_UNSUPPORTED), "punch");
        case 7: return end(sa_refresh(r, at, n, &report_), allow(SA_OK), "refresh");
        case 8: return end(sa_flush(r, at, n, &report_), kAccess, "flush");
        default:
            uint64_t from = atomics ? first : random_.below(kShared - count + 1);
            int mode = static_cast<int>(random_.below(3));
            const OpenFile &file = atomics ? stage.atomics : stage.pattern;
            int fd = mode == SA_FILE_WRITE || random_.below(2) ? file.writable : file.read_only;
            end(sa_map_file(r, at, n, fd, atomics ? "atomics" : "pattern", 0, bytes(from), mode,
                            mode != SA_FILE_WRITE && random_.below(2), &report_),
                kMapping, "map_file");
        }
    }

  private:
    void end(int code, unsigned allowed, const char *what) {
        done += judge(code, allowed, report_, what);
    }
};

void fill_pattern(int fd) {
    std::unique_ptr<char, decltype(&free)> words(
        static_cast<char *>(aligned_alloc(page, kShared * page)), free);
    for (uint64_t at = 0; at < kShared * page; at += 8) {
        uint64_t word = pattern(at);
        memcpy(words.get() + at, &word, 8);
    }
    CHECK(pwrite(fd, words.get(), kShared * page, 0) == bytes(kShared), "errno %d", errno);
}

// Cuts the files short, in the middle of a page or not, and lets them grow again.
struct Truncator : Worker {
    explicit Truncator(uint64_t seed) : Worker("truncator", seed) {}
    void step() override {
        bool atomics = random_.below(2);
#ifdef SA_TSAN
        // There a fault in an atomic operation comes while the sanitizer holds a lock of its own, for
        // ever.
        atomics = false;
#endif
        int fd = atomics ? stage.atomics.writable : stage.pattern.writable;
        uint64_t size = random_.below(kShared * page / 8) * 8;
        if (random_.below(3) == 0)
            size = size / page * page;
        CHECK(ftruncate(fd, static_cast<off_t>(size)) == 0, "errno %d", errno);
        usleep(static_cast<useconds_t>(random_.below(3000)));
        if (random_.below(8) == 0)
            sa_accept_ends(any(), &report_);
        if (random_.below(8) == 0)
            sa_forgive(any(), &report_);
        sa_damage damage[2 * kPages];
        uint64_t count;
        CHECK(sa_list_damage(any(), 1, damage, 2 * kPages, &count, &report_) == SA_OK, "list_damage");
        for (uint64_t i = 0; i < std::min(count, 2 * kPages); i++)
            CHECK(damage[i].reason == SA_FILE_TRUNCATED && !damage[i].kept,
                  "damage for reason %d at %#zx", damage[i].reason, damage[i].offset);
        CHECK(ftruncate(fd, bytes(kShared)) == 0, "errno %d", errno);
        if (!atomics)
            fill_pattern(fd);
        done++;
        usleep(static_cast<useconds_t>(random_.below(3000)));
    }
};

// Forks, and makes reservations that do not live long.
struct Forker : Worker {
    explicit Forker(uint64_t seed)
        : Worker("forker", seed), own(seed + 1, kSlots - 1), windows(seed + 2), reader(seed + 3, false),
          mapper(seed + 4), atomics(seed + 5) {}
    void step() override {
        for (int i = 0; i < 20; i++)
            own.step();
        short_life();
#ifdef SA_ASAN
        // Its allocator does not know of fork: a child finds locks that its parent's other threads held.
        done++;
        return;
#endif
        pid_t child = fork();
        CHECK(child >= 0, "errno %d", errno);
        if (!child) {
            alarm(60);  // ends a child that hangs
            for (int i = 0; i < 20; i++)
                for (Worker *worker : {static_cast<Worker *>(&own), static_cast<Worker *>(&windows),
                                       static_cast<Worker *>(&reader), static_cast<Worker *>(&mapper),
                                       static_cast<Worker *>(&atomics)})
                    worker->step();
            short_life();
            _exit(0);
        }
        int status = 0;
        CHECK(waitpid(child, &status, 0) == child, "errno %d", errno);
        CHECK(status == 0, "a child's status is %#x", static_cast<unsigned>(status));
        done++;
    }

  private:
    void short_life() {
        sa_reservation *r = nullptr;
        sa_pin *pin = nullptr;
        sa_geometry geometry;
        CHECK(sa_reserve(4 * page, 0, &r, &report_) == SA_OK, "reserve");
        sa_describe(r, &geometry);
        CHECK(sa_alloc(r, bytes(1), bytes(2), 0, &report_) == SA_OK, "alloc");
        CHECK(sa_pin_range(r, bytes(1), bytes(2), 1, &pin, &report_) == SA_OK, "pin_range");
        CHECK(sa_close(r, &report_) == SA_PINNED && report_.count == 1, "close under a window");
        bool unpinned = random_.below(2);
        if (unpinned)
            sa_unpin(&pin);
        CHECK(!unpinned || sa_close(r, &report_) == SA_OK, "close");
        CHECK(sa_fill(r, bytes(1), bytes(1), 7, &report_) == (unpinned ? SA_CLOSED : SA_OK), "fill");
        sa_release(&r);
        if (!unpinned)  // the window keeps the memory
            CHECK(reinterpret_cast<const char *>(geometry.address)[2 * page - 1] == 7,
                  "what was filled in");
        sa_unpin(&pin);
    }

    OwnPages own;
    Windows windows;
    Reader reader;
    Mapper mapper;
    Atomics atomics;
};

// A file that is only read is then mapped to write, while a window of it faults.
struct Upgrade : Worker {
    explicit Upgrade(uint64_t seed) : Worker("upgrade", seed) {}
    void step() override {
        int fd = memfd_create("upgrade", MFD_CLOEXEC);
        int read_only = open(("/proc/self/fd/" + std::to_string(fd)).c_str(), O_RDONLY | O_CLOEXEC);
        CHECK(read_only >= 0 && ftruncate(fd, bytes(2)) == 0, "errno %d", errno);
        sa_reservation *r = nullptr;
        sa_pin *pin = nullptr;
        sa_geometry geometry;
        CHECK(sa_reserve(3 * page, 0, &r, &report_) == SA_OK, "reserve");
        sa_describe(r, &geometry);
        CHECK(map(r, 0, 2, read_only, SA_FILE_READ) == SA_OK, "map_file");
        CHECK(sa_pin_range(r, 0, bytes(2), 0, &pin, &report_) == SA_OK, "pin_range");
        CHECK(ftruncate(fd, bytes(1)) == 0, "errno %d", errno);
        std::thread window([&] {
            char found = *reinterpret_cast<volatile char *>(geometry.address + page);
            CHECK(!found, "%d past the end", found);
        });
        usleep(static_cast<useconds_t>(random_.below(200)));
        CHECK(map(r, 2, 1, fd, SA_FILE_WRITE) == SA_OK, "map_file");
        window.join();
        sa_unpin(&pin);
        sa_release(&r);
        close(fd);
        close(read_only);
        done++;
        usleep(20000);
    }

  private:
    int map(sa_reservation *r, uint64_t first, uint64_t count, int fd, int mode) {
        return sa_map_file(r, bytes(first), bytes(count), fd, "upgrade", 0, 0, mode, 0, &report_);
    }
};

OpenFile make_file(const std::string &folder, const char *name) {
    std::string path = folder + "/" + name;
    OpenFile file;
    file.writable = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    file.read_only = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    CHECK(file.writable >= 0 && file.read_only >= 0, "%s: errno %d", path.c_str(), errno);
    unlink(path.c_str());
    CHECK(ftruncate(file.writable, bytes(std::max(kShared, kSlots * kOwned))) == 0, "errno %d", errno);
    return file;
}

void set_stage() {
    page = sa_page_size();
    const char *place = getenv("TMPDIR");
    std::string folder = std::string(place ? place : "/tmp") + "/stress-XXXXXX";
    CHECK(mkdtemp(&folder[0]), "%s: errno %d", folder.c_str(), errno);
    stage.atomics = make_file(folder, "atomics");
    stage.pattern = make_file(folder, "pattern");
    stage.constant = make_file(folder, "constant");
    CHECK(rmdir(folder.c_str()) == 0, "errno %d", errno);
    fill_pattern(stage.pattern.writable);
    for (uint64_t at = 0; at < kOwned * page; at += 8) {
        uint64_t word = pattern(at);
        CHECK(pwrite(stage.constant.writable, &word, 8, static_cast<off_t>(at)) == 8, "errno %d", errno);
    }
    sa_report report;
    for (sa_reservation *&r : stage.r)
        CHECK(sa_reserve(kPages * page, 0, &r, &report) == SA_OK, "reserve");
}

}  // namespace

int main(int argc, char **argv) {
    unsigned seconds = argc > 1 ? static_cast<unsigned>(atoi(argv[1])) : 10;
    uint64_t seed = argc > 2 ? strtoull(argv[2], nullptr, 0) : static_cast<uint64_t>(getpid());
    printf("stress for %u s, seed %llu\n", seconds, static_cast<unsigned long long>(seed));
    fflush(stdout);
    alarm(seconds + 120);  // ends threads that wait for each other
    set_stage();
    std::vector<std::unique_ptr<Worker>> workers;
    for (int slot = 0; slot < kSlots - 1; slot++)
        workers.push_back(std::make_unique<OwnPages>(seed + 11 + static_cast<uint64_t>(slot), slot));
    workers.push_back(std::make_unique<Atomics>(seed + 21));
    workers.push_back(std::make_unique<Windows>(seed + 31));
    workers.push_back(std::make_unique<Windows>(seed + 32));
    workers.push_back(std::make_unique<Reader>(seed + 41, true));
    workers.push_back(std::make_unique<Mapper>(seed + 51));
    workers.push_back(std::make_unique<Truncator>(seed + 61));
    workers.push_back(std::make_unique<Forker>(seed + 71));
    workers.push_back(std::make_unique<Upgrade>(seed + 81));
    std::vector<std::thread> threads;
    for (auto &worker : workers)
        threads.emplace_back(&Worker::run, worker.get());
    sleep(seconds);
    stage.stop = true;
    for (std::thread &thread : threads)
        thread.join();
    for (auto &worker : workers)
        printf("  %-9s %9llu steps, %llu done\n", worker->name,
               static_cast<unsigned long long>(worker->steps),
               static_cast<unsigned long long>(worker->done));
    sa_report report;
    for (sa_reservation *&r : stage.r) {
        CHECK(sa_close(r, &report) == SA_OK, "close");
        sa_release(&r);
    }
    return 0;
}
