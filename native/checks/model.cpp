#include "model.h"

#include <algorithm>

Model::Model(uint64_t page, uint64_t count, uint64_t file_pages) : page(page), pages(count) {
    for (ModelFile &file : files)
        file.bytes.resize(file_pages * page);
}

bool Model::in_range(int64_t offset, int64_t n, Verdict *ret) const {
    if (offset < 0 || n < 0) {
        ret->code = SA_NEGATIVE;
        return false;
    }
    uint64_t start = static_cast<uint64_t>(offset), size = static_cast<uint64_t>(n);
    if (start <= nbytes() && size <= nbytes() - start)
        return true;
    *ret = {SA_BOUNDS, 0, true, std::max(start, nbytes())};
    return false;
}

Verdict Model::access(int64_t offset, int64_t n, bool write) const {
    Verdict verdict;
    if (!in_range(offset, n, &verdict))
        return verdict;
    uint64_t start = static_cast<uint64_t>(offset), stop = start + static_cast<uint64_t>(n);
    for (uint64_t a = start; a < stop; a = (a / page + 1) * page) {
        if (!at(a).kind)
            return {SA_ACCESS, SA_UNMAPPED, true, a};
        if (write && !at(a).writable)
            return {SA_ACCESS, SA_READ_ONLY, true, a};
    }
    return verdict;
}

Verdict Model::whole_pages(int64_t offset, int64_t n) const {
    int64_t size = static_cast<int64_t>(page);
    Verdict verdict;
    if (offset < 0 || n < 0)
        verdict.code = SA_NEGATIVE;
    else if (!n || offset % size || n % size)
        verdict.code = SA_MISALIGNED;
    else
        in_range(offset, n, &verdict);
    return verdict;
}

Verdict Model::change(int64_t offset, int64_t n, bool any_pin, bool writable_pins) const {
    Verdict verdict = whole_pages(offset, n);
    if (verdict.code)
        return verdict;
    uint64_t start = static_cast<uint64_t>(offset), stop = start + static_cast<uint64_t>(n);
    for (const ModelPin &pin : pins)
        if (pin.start < stop && start < pin.stop && (any_pin || (writable_pins && pin.writable)))
            verdict.code = SA_PINNED;
    return verdict;
}

Verdict Model::mapped(int64_t offset, int64_t n) const {
    uint64_t start = static_cast<uint64_t>(offset), stop = start + static_cast<uint64_t>(n);
    for (uint64_t a = start; a < stop; a += page)
        if (!at(a).kind)
            return {SA_ACCESS, SA_UNMAPPED, true, a};
    return {};
}

Lost Model::lost(uint64_t offset, bool write) const {
    const ModelPage &p = at(offset);
    if (p.damaged)
        return Lost::Yes;
    if (p.file < 0 || p.own)
        return Lost::No;
    const ModelFile &file = files[p.file];
    uint64_t position = p.file_offset + offset % page;
    if (past_end(p))
        return Lost::Yes;
    if (position < file.bytes.size() || (write && !p.shared))
        return Lost::No;
    if (write || position < p.size)
        return Lost::Yes;
    return position < file.longest ? Lost::Maybe : Lost::No;
}

uint64_t Model::first_of(uint64_t start, uint64_t stop, bool write, Lost least) const {
    while (start < stop) {
        const ModelPage &p = at(start);
        bool cannot = !p.damaged && (p.file < 0 || p.own);
        if (!cannot && lost(start, write) >= least)
            return start;
        start = cannot ? (start / page + 1) * page : start + 1;
    }
    return stop;
}

uint64_t Model::first_lost(uint64_t start, uint64_t stop, bool write) const {
    return first_of(start, stop, write, Lost::Yes);
}

bool Model::any_lost(uint64_t start, uint64_t stop, bool write) const {
    return first_of(start, stop, write, Lost::Maybe) < stop;
}

uint8_t Model::get(uint64_t offset) const {
    const ModelPage &p = at(offset);
    if (p.own)
        return p.bytes[offset % page];
    uint64_t position = p.file_offset + offset % page;
    return p.file >= 0 && position < files[p.file].bytes.size() ? files[p.file].bytes[position]
                                                                : uint8_t{0};
}

void Model::put(uint64_t offset, uint8_t value) {
    ModelPage &p = at(offset);
    if (!p.own && p.shared) {
        files[p.file].bytes[p.file_offset + offset % page] = value;
        return;
    }
    if (!p.own) {  // copied on write
        std::vector<uint8_t> bytes(page);
        for (uint64_t i = 0; i < page; i++)
            bytes[i] = get(offset / page * page + i);
        p.bytes = bytes;
        p.own = true;
    }
    p.bytes[offset % page] = value;
}

bool Model::joined(uint64_t a) const {
    const ModelPage &p = pages[a], &q = pages[a + 1];
    return p.kind == q.kind && p.file == q.file && p.writable == q.writable && p.shared == q.shared &&
           p.may_write == q.may_write && p.file_offset + page == q.file_offset;
}

void Model::fault(uint64_t offset) {
    const ModelPage &p = at(offset);
    if (p.file < 0 || p.own || !past_end(p))
        return;
    uint64_t first = offset / page, last = first;
    while (first > 0 && joined(first - 1) && past_end(pages[first - 1]))
        first--;
    while (last + 1 < pages.size() && joined(last))
        last++;
    for (uint64_t i = first; i <= last; i++) {
        if (pages[i].damaged)
            continue;
        pages[i].damaged = pages[i].own = true;
        pages[i].bytes.assign(page, 0);
    }
}

void Model::make_private(uint64_t index) {
    pages[index] = ModelPage{};
    pages[index].kind = SA_PRIVATE;
    pages[index].writable = pages[index].own = true;
    pages[index].bytes.assign(page, 0);
}

void Model::truncate(int file, uint64_t size) {
    files[file].bytes.resize(size);
    // Copies of pages that the file has no more are gone, too.
    for (ModelPage &p : pages)
        if (p.file == file && !p.damaged && past_end(p)) {
            p.own = false;
            p.bytes.clear();
        }
}

bool Model::has_data(int file, uint64_t position) const {
    const std::vector<uint8_t> &bytes = files[file].bytes;
    for (uint64_t i = position; i < std::min<uint64_t>(position + page, bytes.size()); i++)
        if (bytes[i])
            return true;
    return false;
}
