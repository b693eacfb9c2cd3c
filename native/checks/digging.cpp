// Files at random, copied and trimmed, and compared with a model byte by byte and hole by hole:
// digging [seconds [seed]].
#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <ctime>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#include "common.h"

namespace {

constexpr uint64_t kPage = 4096;                     // what holes are made of
constexpr uint64_t kManyPages = (40 << 20) / kPage;  // more than one call takes
unsigned long long seed;                             // of the files that are looked at now

// As CHECK, with what it takes to run them again.
#define EXPECT(condition, what) CHECK(condition, "%s: digging 1 %llu", what, seed)

class File {
  public:
    File() : fd(memfd_create("digging", MFD_CLOEXEC)) { CHECK(fd >= 0, "%s", strerror(errno)); }
    ~File() { close(fd); }
    File(const File &) = delete;
    File &operator=(const File &) = delete;

    void resize(uint64_t nbytes) { CHECK(ftruncate(fd, static_cast<off_t>(nbytes)) == 0, "%s", strerror(errno)); }
    void write(const char *bytes, uint64_t n, uint64_t at) {
        CHECK(pwrite(fd, bytes, n, static_cast<off_t>(at)) == static_cast<ssize_t>(n), "%s", strerror(errno));
    }
    std::vector<char> bytes() const {
        std::vector<char> found(static_cast<size_t>(lseek(fd, 0, SEEK_END)));
        CHECK(pread(fd, found.data(), found.size(), 0) == static_cast<ssize_t>(found.size()), "%s", strerror(errno));
        return found;
    }
    // Which of the pages are no hole.
    std::vector<bool> stored() const {
        off_t nbytes = lseek(fd, 0, SEEK_END), page = kPage;
        std::vector<bool> found(static_cast<size_t>((nbytes + page - 1) / page));
        for (off_t data = 0; (data = lseek(fd, data, SEEK_DATA)) >= 0;) {
            off_t hole = lseek(fd, data, SEEK_HOLE);
            std::fill(found.begin() + data / page, found.begin() + (hole + page - 1) / page, true);
            data = hole;
        }
        return found;
    }

    int fd;
};

struct Content {
    std::vector<char> bytes;
    std::vector<bool> written;  // page by page

    explicit Content(Random &random) {
        uint64_t runs = random.below(12);
        bool large = random.below(200) == 0;
        for (uint64_t i = 0; i < runs; i++) {
            uint64_t n = random.below(3) ? random.below(9) * kPage : random.below(3 * kPage);
            if (large && i == runs / 2)
                n = random.below(kManyPages) * kPage;
            uint64_t kind = random.below(3), at = bytes.size();  // a hole, zeros, data
            bytes.resize(at + n);
            written.resize((bytes.size() + kPage - 1) / kPage);
            if (kind && n)
                std::fill(written.begin() + static_cast<std::ptrdiff_t>(at / kPage), written.end(), true);
            // One byte in a page is enough: the first, the last, or any.
            for (uint64_t page = at; kind == 2 && page < at + n; page += kPage) {
                uint64_t last = std::min(kPage, at + n - page) - 1, which = random.below(3);
                bytes[page + (which == 0 ? 0 : which == 1 ? last : random.below(last + 1))] = 1;
            }
        }
    }
    std::vector<bool> filled() const {
        std::vector<bool> found;
        for (uint64_t at = 0; at < bytes.size(); at += kPage) {
            auto begin = bytes.begin() + static_cast<std::ptrdiff_t>(at);
            auto end = begin + static_cast<std::ptrdiff_t>(std::min(kPage, bytes.size() - at));
            found.push_back(std::any_of(begin, end, [](char byte) { return byte != 0; }));
        }
        return found;
    }
    void write(File *file) const {
        file->resize(bytes.size());
        for (uint64_t at = 0; at < bytes.size(); at += kPage)
            if (written[at / kPage])
                file->write(&bytes[at], std::min(kPage, bytes.size() - at), at);
    }
};

// Calls it with where to begin until it is through; the last code. `add` is called after each piece.
template <class Call, class Add> int in_pieces(const Call &call, const sa_report &report, const Add &add) {
    int code = SA_MORE;
    for (uint64_t start = 0; code == SA_MORE; start = report.start) {
        code = call(start);
        EXPECT(code != SA_MORE || report.start > start, "no way on");
        if (code >= 0)
            add();
    }
    return code;
}

void run(bool tells) {
    Random random(seed);
    Content content(random);
    uint64_t nbytes = content.bytes.size(), capacity = kPage * (1 + random.below(40)), done = 0;
    std::vector<bool> filled = content.filled();
    std::vector<char> scratch(capacity);  // no more, so that the sanitizer sees a step beyond it
    sa_report report;
    File source, target;
    content.write(&source);
    auto compare = [&](const File &file, const std::vector<bool> &pages, const char *what) {
        EXPECT(file.bytes() == content.bytes, what);
        EXPECT(!tells || file.stored() == pages, what);
    };

    bool soon = random.below(2);
    auto copy = [&](int from, int to, uint64_t stop) {
        auto call = [&](uint64_t start) {
            return sa_copy_file(from, to, start, stop, soon, scratch.data(), capacity, &report);
        };
        done = 0;
        return in_pieces(call, report, [&] { done += report.transferred; });
    };
    target.resize(nbytes);
    EXPECT(copy(source.fd, target.fd, nbytes) == SA_OK && report.stop == nbytes && done <= nbytes, "copy");
    compare(target, filled, "copy");
    compare(source, content.written, "source of a copy");
    File other;
    EXPECT(copy(source.fd, other.fd, nbytes + 1 + random.below(3 * kPage)) == SA_OK, "copy beyond the end");
    other.resize(nbytes);
    compare(other, filled, "copy beyond the end");
    if (std::find(filled.begin(), filled.end(), true) != filled.end()) {
        EXPECT(copy(source.fd, -1, nbytes) == SA_SYSTEM && report.write, "copy to nowhere");
        EXPECT(report.sys_errno == EBADF, "copy to nowhere");
        EXPECT(copy(-1, target.fd, nbytes) == SA_SYSTEM && !report.write, "copy from nowhere");
        EXPECT(report.sys_errno == EBADF, "copy from nowhere");
    }
    EXPECT(sa_copy_file(source.fd, target.fd, 0, nbytes, soon, scratch.data(), kPage - 1, &report) == SA_MISALIGNED,
           "less than a page of room");

    uint64_t zeros = 0;
    for (size_t i = 0; i < filled.size(); i++)
        zeros += content.written[i] && !filled[i] ? kPage : 0;
    for (bool look_only : {true, false}) {
        auto call = [&](uint64_t start) {
            return sa_trim_file(source.fd, start, nbytes, look_only, scratch.data(), capacity, &report);
        };
        done = 0;
        int code = in_pieces(call, report, [&] { done += report.count; });
        if (code == SA_UNSUPPORTED)  // not on this file system
            return;
        EXPECT(code == SA_OK && (done == zeros || !tells), "trim");
        compare(source, look_only ? content.written : filled, look_only ? "look" : "trim");
    }
}

// Whether holes here are of such pages; of larger ones, or none, only bytes are compared.
bool tells_pages() {
    File file;
    file.resize(3 * kPage);
    file.write("x", 1, kPage);
    return file.stored() == std::vector<bool>{false, true, false};
}

}  // namespace

int main(int argc, char **argv) {
    time_t seconds = argc > 1 ? atoi(argv[1]) : 10, stop = time(nullptr) + seconds;
    seed = argc > 2 ? strtoull(argv[2], nullptr, 0) : static_cast<unsigned long long>(getpid());
    bool tells = tells_pages();
    printf("digging for %ld s, from seed %llu%s\n", static_cast<long>(seconds), seed,
           tells ? "" : "; holes are not of pages here");
    fflush(stdout);
    unsigned long long first = seed;
    for (; time(nullptr) < stop; seed++)
        run(tells);
    printf("  %llu files\n", seed - first);
    return 0;
}
