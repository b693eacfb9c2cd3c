// Calls at random, as an input says, and a model that says what each must answer.
//
// The input is read byte by byte: which call, and its arguments, valid and not. After each call that
// maps something, the table of regions is compared with the model; at the end all bytes are.
#include "fuzz.h"

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

const char *text(const char *form, ...) {
    static char said[400];
    va_list args;
    va_start(args, form);
    vsnprintf(said, sizeof said, form, args);
    va_end(args);
    return said;
}

Run::Run(const uint8_t *data, size_t size)
    : in_(data, size), page_(sa_page_size()), model_(page_, kPages, kFilePages) {
    CHECK(sa_reserve(kPages * page_ - in_.below(page_), 0, &r_, &report_) == SA_OK, "reserve");
    sa_geometry geometry;
    sa_describe(r_, &geometry);
    CHECK(geometry.nbytes == kPages * page_, "%zu bytes", static_cast<size_t>(geometry.nbytes));
    base_ = reinterpret_cast<char *>(geometry.address);
    buffer_.resize(kPages * page_);
    for (int i = 0; i < 2; i++) {
        outside_[i] = memfd_create("fuzz", MFD_CLOEXEC);
        CHECK(outside_[i] >= 0 && ftruncate(outside_[i], static_cast<off_t>(kFilePages * page_)) == 0,
              "errno %d", errno);
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", outside_[i]);
        fds_[i] = open(path,
                       (i ? O_RDONLY : O_RDWR) | O_CLOEXEC);  // one that may write, one that may not
        CHECK(fds_[i] >= 0, "errno %d", errno);
        model_.files[i].writable = i == 0;
    }
}

Run::~Run() {
    for (int i = 0; i < 2; i++) {
        close(fds_[i]);
        close(outside_[i]);
    }
}

void Run::judge(const char *call, int code, const Verdict &verdict) {
    EXPECT(code == verdict.code, "%s: code %d, not %d (reason %d, offset %#zx)", call, code,
           verdict.code, report_.reason, static_cast<size_t>(report_.offset));
    if (verdict.reason)
        EXPECT(report_.reason == verdict.reason, "%s: reason %d, not %d", call, report_.reason,
               verdict.reason);
    if (verdict.has_offset)
        EXPECT(report_.offset == verdict.offset, "%s: offset %#zx, not %#zx", call,
               static_cast<size_t>(report_.offset), static_cast<size_t>(verdict.offset));
}

// The end of a call on bytes which the table allowed: what is lost, and how far it came.
void Run::transferred(const char *call, int code, int64_t offset, int64_t n, bool write,
                      uint64_t before) {
    uint64_t start = static_cast<uint64_t>(offset), stop = start + static_cast<uint64_t>(n);
    uint64_t bad = model_.first_lost(start, stop, write);
    if (code == SA_OK) {
        EXPECT(bad == stop, "%s: %#zx is lost, and nobody says so", call, static_cast<size_t>(bad));
        return;
    }
    uint64_t at = report_.offset;
    EXPECT(code == SA_ACCESS && report_.reason == SA_FILE_TRUNCATED, "%s: code %d, reason %d", call,
           code, report_.reason);
    EXPECT(at >= start && at < stop &&
               (at == bad || (at < bad && model_.lost(at, write) == Lost::Maybe)),
           "%s: lost at %#zx, not %#zx", call, static_cast<size_t>(at), static_cast<size_t>(bad));
    EXPECT(report_.transferred == before + at - start, "%s: %zu transferred", call,
           static_cast<size_t>(report_.transferred));
}

// Where the model cannot know which holes a file has, it takes over what the table says.
void Run::compare_regions(const std::vector<bool> &unsure) {
    sa_region regions[kPages];
    uint64_t count;
    CHECK(sa_regions(r_, regions, kPages, &count) == SA_OK && count <= kPages, "regions");
    std::vector<ModelPage> there(kPages);
    for (uint64_t i = 0; i < count; i++)
        for (uint64_t at = 0; at < regions[i].nbytes; at += page_) {
            ModelPage &p = there[(regions[i].offset + at) / page_];
            p.kind = regions[i].kind;
            p.writable = regions[i].writable;
            p.file = regions[i].file_offset >= 0 ? 0 : -1;
            p.file_offset = p.file >= 0 ? static_cast<uint64_t>(regions[i].file_offset) + at : 0;
        }
    for (uint64_t i = 0; i < kPages; i++) {
        ModelPage &p = model_.pages[i];
        int file = p.hole_of >= 0 ? p.hole_of : p.file;
        if (unsure[i] && there[i].kind != p.kind) {
            const std::vector<uint8_t> &bytes = model_.files[file].bytes;
            bool becomes_file = there[i].kind == SA_FILE;
            EXPECT(becomes_file || !model_.has_data(file, p.file_offset), "page %zu was data",
                   static_cast<size_t>(i));
            if (!becomes_file && !p.shared) {
                model_.make_private(i);
            } else {
                p.kind = becomes_file ? SA_FILE : SA_ZERO;
                p.hole_of = becomes_file ? -1 : file;
                p.file = becomes_file ? file : -1;
                p.own = !becomes_file;
                p.shared = becomes_file;
                p.bytes.assign(becomes_file ? 0 : page_, 0);
                p.may_write = becomes_file && model_.files[file].writable;
                p.size = bytes.size();
            }
        }
        EXPECT(there[i].kind == p.kind && (!p.kind || there[i].writable == p.writable),
               "page %zu is of kind %d, not %d; writable %d", static_cast<size_t>(i), there[i].kind,
               p.kind, there[i].writable);
        EXPECT((p.kind == SA_FILE) == (there[i].file >= 0) &&
                   (there[i].file < 0 || there[i].file_offset == p.file_offset),
               "page %zu shows %#zx of a file, not %#zx", static_cast<size_t>(i),
               static_cast<size_t>(there[i].file_offset), static_cast<size_t>(p.file_offset));
    }
}

// What somebody else does to a file.
void Run::change_file() {
    int which = static_cast<int>(in_.below(2));
    std::vector<uint8_t> &bytes = model_.files[which].bytes;
    uint64_t start = in_.below(kFilePages * page_), how = in_.below(4);
    if (how < 2) {
        uint64_t size = in_.one_in(3) ? start / page_ * page_ : start;
        size = in_.one_in(2) ? kFilePages * page_ : size;
        CHECK(ftruncate(outside_[which], static_cast<off_t>(size)) == 0, "errno %d", errno);
        model_.truncate(which, size);
        return;
    }
    uint64_t n = std::min(in_.below(3 * page_), std::max(bytes.size(), start) - start);
    if (how == 2 && n) {
        uint8_t value = in_.byte();
        std::vector<uint8_t> data(n, value);
        CHECK(pwrite(outside_[which], data.data(), n, static_cast<off_t>(start)) ==
                  static_cast<ssize_t>(n),
              "errno %d", errno);
        std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(start), n, value);
    } else if (n) {
        CHECK(fallocate(outside_[which], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        static_cast<off_t>(start), static_cast<off_t>(n)) == 0,
              "errno %d", errno);
        std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(start), n, uint8_t{0});
    }
}

void Run::compare_bytes() {
    for (uint64_t i = 0; i < kPages; i++) {
        int64_t offset = static_cast<int64_t>(i * page_), n = static_cast<int64_t>(page_);
        Verdict verdict = model_.access(offset, n, false);
        int code = sa_read(r_, offset, n, buffer_.data(), &report_);
        if (verdict.code) {
            judge("read", code, verdict);
            continue;
        }
        transferred("read", code, offset, n, false);
        for (uint64_t k = 0; k < report_.transferred; k++)
            EXPECT(static_cast<uint8_t>(buffer_[k]) == model_.get(i * page_ + k),
                   "at the end: %#x at %#zx, not %#x", static_cast<uint8_t>(buffer_[k]),
                   static_cast<size_t>(i * page_ + k), model_.get(i * page_ + k));
    }
    for (int i = 0; i < 2; i++) {
        const std::vector<uint8_t> &bytes = model_.files[i].bytes;
        std::vector<uint8_t> there(bytes.size() + 1);
        CHECK(pread(outside_[i], there.data(), there.size(), 0) == static_cast<ssize_t>(bytes.size()),
              "file %d", i);
        there.pop_back();
        EXPECT(there == bytes, "file %d is not what it should be", i);
    }
}

void Run::run() {
    static const Call calls[] = {
        &Run::alloc,      &Run::alloc,    &Run::map_file,    &Run::map_file,    &Run::map_file,
        &Run::unmap,      &Run::decommit, &Run::punch,       &Run::refresh,     &Run::write,
        &Run::write,      &Run::write,    &Run::read,        &Run::read,        &Run::records,
        &Run::records,    &Run::atomic,   &Run::pin,         &Run::pin,         &Run::use_window,
        &Run::use_window, &Run::unpin,    &Run::unpin,       &Run::extents,     &Run::flush,
        &Run::damage,     &Run::populate, &Run::change_file, &Run::change_file, &Run::set_writable};
    for (; in_.more() && step_ < 200; step_++)
        (this->*calls[in_.below(std::size(calls))])();
    compare_bytes();
    if (!model_.pins.empty())
        EXPECT(sa_close(r_, &report_) == SA_PINNED && report_.count == model_.pins.size(), "close");
    while (!model_.pins.empty())
        unpin();
    EXPECT(sa_close(r_, &report_) == SA_OK && sa_close(r_, &report_) == SA_OK, "close");
    EXPECT(sa_read(r_, 0, 1, buffer_.data(), &report_) == SA_CLOSED, "read after close");
    EXPECT(sa_alloc(r_, 0, static_cast<int64_t>(page_), 0, &report_) == SA_CLOSED, "alloc after close");
    sa_release(&r_);
    EXPECT(!r_, "release");
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Run(data, size).run();
    return 0;
}
