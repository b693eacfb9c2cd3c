// Calls that change what is mapped, and those that fetch and look at it.
#include "fuzz.h"

#include <algorithm>
#include <cerrno>

void Run::alloc() {
    bool zero = in_.one_in(3);
    int64_t offset = in_.page_offset(page_, kPages), n = in_.page_length(page_);
    Verdict verdict = model_.change(offset, n, true, true);
    judge("alloc or map_zero",
          zero ? sa_map_zero(r_, offset, n, &report_) : sa_alloc(r_, offset, n, in_.one_in(4), &report_),
          verdict);
    for (uint64_t i = 0; !verdict.code && i < pages_of(n); i++) {
        uint64_t index = pages_of(offset) + i;
        model_.make_private(index);
        if (zero) {
            model_.pages[index].kind = SA_ZERO;
            model_.pages[index].writable = false;
        }
    }
    compare_regions();
}

void Run::map_file() {
    int which = static_cast<int>(in_.below(2)), mode = static_cast<int>(in_.below(3));
    int64_t offset = in_.page_offset(page_, kPages), n = in_.page_length(page_);
    int64_t from = in_.page_offset(page_, kFilePages);
    bool skip_holes = mode != SA_FILE_WRITE && in_.one_in(3);
    ModelFile &file = model_.files[which];
    Verdict verdict = model_.change(offset, n, true, true);
    if (!verdict.code) {
        uint64_t end = (file.bytes.size() + page_ - 1) / page_ * page_;
        if (from < 0)
            verdict.code = SA_NEGATIVE;
        else if (from % static_cast<int64_t>(page_))
            verdict.code = SA_MISALIGNED;
        else if (static_cast<uint64_t>(from) > end ||
                 static_cast<uint64_t>(n) > end - static_cast<uint64_t>(from))
            verdict.code = SA_FILE_END;
        else if (mode == SA_FILE_WRITE && !file.writable)
            verdict.code = SA_SYSTEM;
    }
    judge("map_file",
          sa_map_file(r_, offset, n, fds_[which], "f", in_.one_in(2), from, mode, skip_holes, &report_),
          verdict);
    if (verdict.code == SA_SYSTEM)
        EXPECT(report_.sys_errno == EACCES, "map_file: errno %d", report_.sys_errno);
    std::vector<bool> unsure(kPages);
    if (!verdict.code) {
        file.longest = std::max(file.longest, file.bytes.size());
        for (uint64_t i = 0; i < pages_of(n); i++) {
            ModelPage p;
            p.kind = SA_FILE;
            p.writable = mode != SA_FILE_READ;
            p.shared = mode != SA_FILE_COPY_ON_WRITE;
            p.may_write = !p.shared || file.writable;
            p.file = which;
            p.file_offset = static_cast<uint64_t>(from) + i * page_;
            p.size = file.bytes.size();
            model_.pages[pages_of(offset) + i] = p;
            unsure[pages_of(offset) + i] = skip_holes;
        }
    }
    compare_regions(unsure);
}

void Run::unmap() {
    int64_t offset = in_.page_offset(page_, kPages), n = in_.page_length(page_);
    Verdict verdict = model_.change(offset, n, true, true);
    judge("unmap", sa_unmap(r_, offset, n, &report_), verdict);
    for (uint64_t i = 0; !verdict.code && i < pages_of(n); i++)
        model_.pages[pages_of(offset) + i] = ModelPage{};
    compare_regions();
}

void Run::set_writable() {
    bool writable = in_.below(2);
    int64_t offset = in_.page_offset(page_, kPages), n = in_.page_length(page_);
    Verdict verdict = model_.change(offset, n, false, !writable);
    if (!verdict.code)
        verdict = model_.mapped(offset, n);
    for (uint64_t i = 0; !verdict.code && i < pages_of(n); i++)
        if (writable && !model_.pages[pages_of(offset) + i].may_write)
            verdict.code = SA_SYSTEM;
    judge("set_writable", sa_set_writable(r_, offset, n, writable, &report_), verdict);
    for (uint64_t i = 0; !verdict.code && i < pages_of(n); i++) {
        ModelPage &p = model_.pages[pages_of(offset) + i];
        if (p.kind == SA_ZERO && writable)
            p.kind = SA_PRIVATE;
        p.writable = writable;
    }
    compare_regions();
}

void Run::decommit() {
    int64_t offset = in_.page_offset(page_, kPages), n = in_.page_length(page_);
    Verdict verdict = model_.whole_pages(offset, n);
    if (!verdict.code)
        verdict = model_.mapped(offset, n);
    for (uint64_t i = 0; !verdict.code && i < pages_of(n); i++) {
        const ModelPage &p = model_.pages[pages_of(offset) + i];
        uint64_t at = static_cast<uint64_t>(offset) + i * page_;
        if (!p.shared && p.kind != SA_ZERO && !p.writable)
            verdict = {SA_ACCESS, SA_READ_ONLY, true, at};
        else if (p.damaged)
            verdict = {SA_ACCESS, SA_FILE_TRUNCATED, true, at};
    }
    judge("decommit", sa_decommit(r_, offset, n, &report_), verdict);
    for (uint64_t i = 0; !verdict.code && i < pages_of(n); i++) {
        ModelPage &p = model_.pages[pages_of(offset) + i];
        if (p.file >= 0)
            p.own = false;
        else
            p.bytes.assign(page_, 0);
    }
}

void Run::punch() {
    int64_t offset = in_.offset(page_), n = in_.length(page_);
    Verdict verdict;
    bool copies = false, of_data = false, maybe = false;
    uint64_t first = 0, last = 0;
    if (model_.in_range(offset, n, &verdict) && n) {
        first = static_cast<uint64_t>(offset), last = first + static_cast<uint64_t>(n);
        verdict = model_.access(offset, n, false);
        for (uint64_t i = first / page_; !verdict.code && i * page_ < last; i++) {
            const ModelPage &p = model_.pages[i];
            uint64_t at = std::max(first, i * page_), stop = std::min(last, (i + 1) * page_);
            bool copy = stop - at == page_ && p.file >= 0 && !p.shared;
            copies |= copy;
            of_data |= copy && model_.has_data(p.file, p.file_offset);
            maybe |= model_.any_lost(at, stop, p.shared);
            if (p.kind != SA_ZERO && !p.writable)
                verdict = {SA_ACCESS, SA_READ_ONLY, true, at};
            else if (model_.first_lost(at, stop, p.shared) < stop &&
                     (p.shared || p.damaged ||
                      p.file_offset + at % page_ < p.size))  // else writing it finds out
                verdict = {SA_ACCESS, SA_FILE_TRUNCATED, false, 0};
        }
    }
    uint64_t whole = (first + page_ - 1) / page_;
    if (!verdict.code && of_data)
        verdict.code = SA_UNSUPPORTED;
    int code = sa_punch(r_, offset, n, &report_);
    if (!verdict.code && copies && code == SA_UNSUPPORTED)
        return;  // zeros of the file are data, too
    if (maybe && verdict.code != SA_ACCESS && code == SA_ACCESS)
        return;
    judge("punch", code, verdict);
    for (uint64_t at = whole * page_; !code && at < last / page_ * page_; at++)
        if (model_.at(at).kind != SA_ZERO && !model_.at(at).damaged)
            model_.put(at, 0);
}

void Run::refresh() {
    int64_t offset = in_.offset(page_), n = in_.length(page_);
    Verdict verdict;
    model_.in_range(offset, n, &verdict);
    judge("refresh", sa_refresh(r_, offset, n, &report_), verdict);
    std::vector<bool> unsure(kPages);
    if (!verdict.code && n) {
        for (uint64_t i = pages_of(offset); i * page_ < static_cast<uint64_t>(offset + n); i++)
            unsure[i] = model_.pages[i].hole_of >= 0;
        for (ModelFile &file : model_.files)
            file.longest = std::max(file.longest, file.bytes.size());
    }
    compare_regions(unsure);
    for (uint64_t i = 0; i < kPages; i++)
        if (unsure[i] && model_.pages[i].hole_of >= 0) {
            const ModelPage &p = model_.pages[i];
            EXPECT(!model_.has_data(p.hole_of, p.file_offset), "refresh: page %zu has data",
                   static_cast<size_t>(i));
        }
}

void Run::extents() {
    int64_t offset = in_.offset(page_), n = in_.length(page_);
    uint64_t capacity = 2 + in_.below(20);
    int method = in_.below(2) ? SA_EXTENTS_HELD : SA_EXTENTS_BEST;
    Verdict verdict;
    std::vector<int64_t> pairs(2 * capacity);
    if (!model_.in_range(offset, n, &verdict))
        return judge("extents", sa_extents(r_, offset, n, method, pairs.data(), capacity, &report_),
                     verdict);
    uint64_t start = static_cast<uint64_t>(offset), stop = start + static_cast<uint64_t>(n);
    std::vector<bool> in_extent(kPages * page_);
    int64_t last = offset;
    for (int code = SA_MORE; code == SA_MORE;) {
        code = sa_extents(r_, offset, n, method, pairs.data(), capacity, &report_);
        if (code == SA_ACCESS) {
            EXPECT(method == SA_EXTENTS_BEST && report_.reason == SA_FILE_TRUNCATED &&
                       model_.any_lost(start / page_ * page_, stop, false),
                   "extents: reason %d at %#zx", report_.reason, static_cast<size_t>(report_.offset));
            return;
        }
        EXPECT(code == SA_OK || (code == SA_MORE && report_.transferred), "extents: code %d", code);
        EXPECT(report_.count <= capacity, "extents: %zu", static_cast<size_t>(report_.count));
        for (uint64_t i = 0; i < report_.count; i++) {
            EXPECT(last <= pairs[2 * i] && pairs[2 * i] < pairs[2 * i + 1] &&
                       pairs[2 * i + 1] <= offset + n,
                   "extents: %#zx to %#zx", static_cast<size_t>(pairs[2 * i]),
                   static_cast<size_t>(pairs[2 * i + 1]));
            last = pairs[2 * i + 1];
            std::fill(in_extent.begin() + pairs[2 * i], in_extent.begin() + last, true);
        }
        EXPECT(code || report_.transferred == static_cast<uint64_t>(n), "extents: %zu bytes looked at",
               static_cast<size_t>(report_.transferred));
        offset += static_cast<int64_t>(report_.transferred);
        n -= static_cast<int64_t>(report_.transferred);
    }
    for (uint64_t at = start; at < stop; at++)
        EXPECT(in_extent[at] || !model_.at(at).kind || !model_.get(at), "extents: %#zx is in none",
               static_cast<size_t>(at));
}

void Run::flush() {
    int64_t offset = in_.offset(page_), n = in_.length(page_);
    Verdict verdict;
    int code = sa_flush(r_, offset, n, &report_);
    if (!model_.in_range(offset, n, &verdict))
        return judge("flush", code, verdict);
    bool damaged = false, shorter = false;
    for (uint64_t i = pages_of(offset); n && i * page_ < static_cast<uint64_t>(offset + n); i++) {
        const ModelPage &p = model_.pages[i];
        damaged |= p.damaged;
        shorter |= p.file >= 0 && model_.files[p.file].bytes.size() < model_.files[p.file].longest;
    }
    EXPECT(code == SA_ACCESS ? damaged || shorter : code == SA_OK && !damaged, "flush: code %d", code);
}

void Run::damage() {
    sa_damage found[kPages * 2];
    uint64_t count = 0;
    if (in_.one_in(4)) {
        CHECK(sa_accept_ends(r_, &report_) == SA_OK, "accept_ends");
        for (ModelPage &p : model_.pages)
            if (p.file >= 0)
                p.size = std::min<uint64_t>(p.size, model_.files[p.file].bytes.size());
    }
    EXPECT(sa_list_damage(r_, 1, found, kPages * 2, &count, &report_) == SA_OK && count <= kPages * 2,
           "list_damage");
    std::vector<bool> listed(kPages);
    for (uint64_t i = 0; i < count; i++)
        for (uint64_t at = found[i].offset; at < found[i].offset + found[i].nbytes; at++) {
            const ModelPage &p = model_.at(at);
            EXPECT(p.file >= 0 && (p.damaged || model_.lost(at, false) != Lost::No) && !found[i].kept,
                   "list_damage: %#zx is fine", static_cast<size_t>(at));
            listed[at / page_] = true;
        }
    for (uint64_t i = 0; i < kPages; i++)
        EXPECT(listed[i] || !model_.pages[i].damaged, "list_damage: page %zu is not told",
               static_cast<size_t>(i));
}

void Run::populate() {
    int64_t offset = in_.page_offset(page_, kPages), n = in_.page_length(page_);
    bool commit = in_.below(2);
    Verdict verdict = model_.whole_pages(offset, n);
    if (!verdict.code && commit)
        verdict = model_.mapped(offset, n);
    if (!commit && verdict.code == SA_MISALIGNED)
        return;
    bool copies = false;
    uint64_t first = pages_of(offset), last = verdict.code ? first : first + pages_of(n);
    for (uint64_t i = first; i < last && !verdict.code; i++) {
        const ModelPage &p = model_.pages[i];
        copies |= p.file >= 0 && !p.shared && p.writable;
        if (p.damaged || (p.file >= 0 && !p.own && p.file_offset >= model_.files[p.file].bytes.size()))
            verdict = {SA_ACCESS, SA_FILE_TRUNCATED, true, i * page_};
    }
    if (verdict.code == SA_ACCESS && copies)
        return;  // which pages it copied before that, nobody says
    judge(commit ? "commit" : "fetch",
          commit ? sa_commit(r_, offset, n, &report_) : sa_fetch(r_, offset, n, &report_), verdict);
    for (uint64_t i = first; commit && !verdict.code && i < last; i++)
        if (model_.pages[i].writable && !model_.pages[i].shared)
            model_.put(i * page_, model_.get(i * page_));
    if (!verdict.code)
        sa_forget(r_, offset, n, &report_);
}
