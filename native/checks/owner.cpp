// A thread's own pages: every call has one right answer.
#include "stress.h"

#include <algorithm>
#include <cstring>

Owner::Owner(const Stage &stage, int slot)
    : stage_(stage), first_(static_cast<uint64_t>(slot) * kOwned * page), constant_(kOwned * page) {
    for (auto &bytes : bytes_)
        bytes.resize(kOwned * page);
    for (uint64_t at = 0; at < constant_.size(); at += 8) {
        uint64_t word = pattern(at);
        memcpy(&constant_[at], &word, 8);
    }
}

void Owner::step(Random &random) {
    which_ = static_cast<int>(random.below(kReservations));
    r_ = stage_.r[which_];
    switch (random.below(8)) {
    case 0: return map(random);
    case 1:
    case 2: return write(random);
    case 3: return records(random);
    case 4: return window(random);
    default: return read(random);
    }
}

Owner::Span Owner::any_span(Random &random, bool write) const {
    Span span{random.below(kOwned * page), 0, 0, SA_OK, 0};
    span.n = random.below(random.below(4) ? 200 : 3 * page);
    span.n = std::min(span.n, kOwned * page - span.start);
    for (uint64_t at = span.start; at < span.start + span.n; at = (at / page + 1) * page) {
        const Page &there = pages_[which_][at / page];
        if (there.kind != kHole && (!write || there.writable))
            continue;
        span.code = SA_ACCESS;
        span.reason = there.kind == kHole ? SA_UNMAPPED : SA_READ_ONLY;
        span.bad = at;
        break;
    }
    return span;
}

void Owner::judge(const Span &span, int code, const sa_report &report, bool whole,
                  const char *what) const {
    CHECK(code == span.code, "%s: %d, not %d; %#zx + %#zx, reason %d at %#zx, bad is %#zx", what, code,
          span.code, span.start, span.n, report.reason, report.offset, span.bad);
    if (code == SA_OK)
        CHECK(!whole || report.transferred == span.n, "%s: %zu of %zu", what, report.transferred,
              span.n);
    else
        CHECK(report.reason == span.reason && report.transferred == 0 &&
                  report.offset == first_ + span.bad,
              "%s: reason %d at %#zx", what, report.reason, report.offset);
}

void Owner::map(Random &random) {
    sa_report report;
    uint64_t start = random.below(kOwned), count = 1 + random.below(std::min<uint64_t>(4, kOwned - start));
    int64_t at = offset(start * page), n = static_cast<int64_t>(count * page);
    Page *pages = pages_[which_] + start;
    char *bytes = &bytes_[which_][start * page];
    auto any = [&](auto test) { return std::any_of(pages, pages + count, test); };
    bool holes = any([](const Page &p) { return p.kind == kHole; });
    auto become = [&](Kind kind, bool writable) {
        std::fill(pages, pages + count, Page{kind, writable});
        if (kind == kCopy)
            memcpy(bytes, &constant_[start * page], count * page);
        else
            memset(bytes, 0, count * page);
    };
    int code;
    switch (random.below(7)) {
    case 0:
    case 1:
        code = sa_alloc(r_, at, n, random.below(8) == 0, &report);
        CHECK(code == SA_OK, "alloc: %d", code);
        return become(kPrivate, true);
    case 2:
        code = sa_map_zero(r_, at, n, &report);
        CHECK(code == SA_OK, "map_zero: %d", code);
        return become(kZero, false);
    case 3:
        code = sa_map_file(r_, at, n, stage_.constant.read_only, "constant", 0,
                           static_cast<int64_t>(start * page), SA_FILE_COPY_ON_WRITE, 0, &report);
        CHECK(code == SA_OK, "map_file: %d", code);
        return become(kCopy, true);
    case 4:
        code = sa_unmap(r_, at, n, &report);
        CHECK(code == SA_OK, "unmap: %d", code);
        return become(kHole, false);
    case 5: {
        bool writable = random.below(3) > 0;
        code = sa_set_writable(r_, at, n, writable, &report);
        CHECK(code == (holes ? SA_ACCESS : SA_OK), "set_writable: %d", code);
        for (uint64_t i = 0; i < count && !holes; i++) {
            if (pages[i].kind == kZero && writable)
                pages[i].kind = kPrivate;
            pages[i].writable = writable;
        }
        return;
    }
    default:
        bool refused = any([](const Page &p) { return p.kind != kZero && !p.writable; });
        code = sa_decommit(r_, at, n, &report);
        CHECK(code == (holes || refused ? SA_ACCESS : SA_OK), "decommit: %d", code);
        for (uint64_t i = 0; i < count && !code; i++) {
            if (pages[i].kind == kCopy)
                memcpy(bytes + i * page, &constant_[(start + i) * page], page);
            else
                memset(bytes + i * page, 0, page);
        }
    }
}

void Owner::write(Random &random) {
    sa_report report;
    Span span = any_span(random, true);
    char *bytes = &bytes_[which_][0] + span.start;
    int value = static_cast<int>(random.below(256));
    if (random.below(3) == 0) {
        judge(span, sa_fill(r_, offset(span.start), static_cast<int64_t>(span.n), value, &report),
              report, true, "fill");
        if (span.code == SA_OK)
            memset(bytes, value, span.n);
        return;
    }
    std::vector<char> data(span.n + 1);
    for (uint64_t i = 0; i < span.n; i++)
        data[i] = static_cast<char>(value + i * 7);
    int code = random.below(2)
                   ? sa_write(r_, offset(span.start), static_cast<int64_t>(span.n), data.data(), &report)
                   : sa_write_record(r_, offset(span.start), span.n, data.data(), &report);
    judge(span, code, report, true, "write");
    if (code == SA_OK)
        std::copy_n(data.data(), span.n, bytes);
}

void Owner::read(Random &random) {
    sa_report report;
    Span span = any_span(random, false);
    const char *bytes = &bytes_[which_][0] + span.start;
    std::vector<char> out(span.n + 1, 'x');
    bool as_record = span.n <= sizeof report.record && random.below(2);
    int code = as_record
                   ? sa_read_record(r_, offset(span.start), span.n, &report)
                   : sa_read(r_, offset(span.start), static_cast<int64_t>(span.n), out.data(), &report);
    judge(span, code, report, true, "read");
    if (code == SA_OK)
        CHECK(memcmp(as_record ? report.record : out.data(), bytes, span.n) == 0, "read of %zu at %#zx",
              span.n, span.start);
}

void Owner::records(Random &random) {
    sa_report report;
    constexpr uint64_t kMost = 12;
    uint64_t size = uint64_t{1} << random.below(5), count = 1 + random.below(kMost);
    bool write = random.below(2);
    int64_t offsets[kMost];
    std::vector<char> values(count * size);
    Span bad{0, count * size, 0, SA_OK, 0};
    uint64_t bad_index = count;
    for (uint64_t i = 0; i < count; i++) {
        Span span{};
        do
            span = any_span(random, write);
        while (span.n < size);
        // A bad byte past the record is no matter to it.
        if (span.code != SA_OK && span.bad < span.start + size && bad.code == SA_OK) {
            bad = span;
            bad_index = i;
        }
        offsets[i] = offset(span.start);
        for (uint64_t k = 0; k < size; k++)
            values[i * size + k] = static_cast<char>(random.next());
    }
    int code = write ? sa_scatter(r_, offsets, count, size, values.data(), &report)
                     : sa_gather(r_, offsets, count, size, values.data(), &report);
    judge(bad, code, report, false, write ? "scatter" : "gather");
    if (code != SA_OK) {
        CHECK(report.value == bad_index, "record %zu, not %zu", report.value, bad_index);
        return;
    }
    for (uint64_t i = 0; i < count; i++) {
        char *there = &bytes_[which_][static_cast<uint64_t>(offsets[i]) - first_];
        if (write)
            std::copy_n(&values[i * size], size, there);
        else
            CHECK(memcmp(&values[i * size], there, size) == 0, "gathered record %zu", i);
    }
}

void Owner::window(Random &random) {
    sa_report report;
    sa_geometry geometry;
    bool write = random.below(2);
    Span span = any_span(random, write);
    sa_pin *pin = nullptr;
    int code = sa_pin_range(r_, offset(span.start), static_cast<int64_t>(span.n), write, &pin, &report);
    CHECK(code == span.code, "pin_range: %d, not %d", code, span.code);
    CHECK((pin != nullptr) == (code == SA_OK && span.n), "a pin");
    if (!pin)
        return;
    sa_describe(r_, &geometry);
    char *there = reinterpret_cast<char *>(geometry.address) + first_ + span.start;
    char *bytes = &bytes_[which_][span.start];
    CHECK(memcmp(there, bytes, span.n) == 0, "a window of %zu at %#zx", span.n, span.start);
    if (write)
        for (uint64_t i = 0; i < span.n; i++)
            there[i] = bytes[i] = static_cast<char>(random.next());
    uint64_t first = span.start / page, last = (span.start + span.n - 1) / page;
    code = sa_unmap(r_, offset(first * page), static_cast<int64_t>((last - first + 1) * page), &report);
    CHECK(code == SA_PINNED && report.count == 1, "unmap under a window: %d", code);
    sa_unpin(&pin);
    CHECK(!pin, "the pin is left");
}
