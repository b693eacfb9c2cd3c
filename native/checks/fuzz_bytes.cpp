// Calls on bytes, and windows.
#include "fuzz.h"

#include <algorithm>

void Run::write() {
    int64_t offset = in_.offset(page_), n = in_.length(page_);
    uint64_t how = in_.below(3);
    uint8_t value = in_.byte();
    for (size_t i = 0; i < buffer_.size(); i++)
        buffer_[i] = static_cast<char>(how ? value + i * 13 + i / 256 : value);
    Verdict verdict = model_.access(offset, n, true);
    int code = how == 0 ? sa_fill(r_, offset, n, value, &report_)
               : how == 1
                   ? sa_write(r_, offset, n, buffer_.data(), &report_)
                   : sa_write_record(r_, offset, static_cast<uint64_t>(n), buffer_.data(), &report_);
    if (verdict.code)
        return judge("write", code, verdict);
    transferred("write", code, offset, n, true);
    EXPECT(code || report_.transferred == static_cast<uint64_t>(n), "write: %zu done",
           static_cast<size_t>(report_.transferred));
    for (uint64_t i = 0; i < report_.transferred; i++)
        model_.put(static_cast<uint64_t>(offset) + i, static_cast<uint8_t>(buffer_[i]));
}

void Run::read() {
    int64_t offset = in_.offset(page_), n = in_.length(page_);
    uint64_t how = in_.below(3), start = static_cast<uint64_t>(offset);
    Verdict verdict = model_.access(offset, n, false);
    if (how == 1 && static_cast<uint64_t>(n) > sizeof report_.record)
        verdict = {SA_MISALIGNED, 0, false, 0};
    int code = how == 0   ? sa_read(r_, offset, n, buffer_.data(), &report_)
               : how == 1 ? sa_read_record(r_, offset, static_cast<uint64_t>(n), &report_)
                          : sa_salvage(r_, offset, n, buffer_.data(), &report_);
    if (verdict.code)
        return judge("read", code, verdict);
    if (how < 2)
        transferred("read", code, offset, n, false);
    else if (code)
        EXPECT(code == SA_ACCESS && report_.reason == SA_FILE_TRUNCATED &&
                   model_.any_lost(start, start + static_cast<uint64_t>(n), false),
               "salvage: code %d", code);
    EXPECT(code || report_.transferred == static_cast<uint64_t>(n), "read: %zu done",
           static_cast<size_t>(report_.transferred));
    const char *out = how == 1 ? report_.record : buffer_.data();
    for (uint64_t i = 0; i < (code && how == 2 ? 0 : report_.transferred); i++)
        EXPECT(static_cast<uint8_t>(out[i]) == model_.get(start + i), "read: %#x at %#zx, not %#x",
               static_cast<uint8_t>(out[i]), static_cast<size_t>(start + i), model_.get(start + i));
}

void Run::records() {
    static const uint64_t sizes[] = {1, 2, 3, 4, 8, 16, 24, 0, 600, UINT64_MAX, INT64_MAX};
    bool writes = in_.below(2);
    uint64_t count = in_.below(7), size = sizes[in_.below(11)];
    int64_t n = static_cast<int64_t>(size), offsets[7];
    for (uint64_t i = 0; i < count; i++)
        offsets[i] = i && offsets[i - 1] < INT64_MAX / 2 && in_.below(3)
                         ? offsets[i - 1] + static_cast<int64_t>(in_.below(200))
                         : in_.offset(page_);
    uint8_t value = in_.byte();
    for (size_t i = 0; i < 7 * 600; i++)
        buffer_[i] = static_cast<char>(value + i * 7);
    int code = writes ? sa_scatter(r_, offsets, count, size, buffer_.data(), &report_)
                      : sa_gather(r_, offsets, count, size, buffer_.data(), &report_);
    const char *call = writes ? "scatter" : "gather";
    for (uint64_t i = 0; i < count; i++) {  // scatter checks all of them first
        Verdict verdict = model_.access(offsets[i], n, writes);
        if (!verdict.code && !writes && code == SA_ACCESS && report_.value == i) {
            report_.transferred = report_.offset - static_cast<uint64_t>(offsets[i]);  // says nothing
            return transferred(call, code, offsets[i], n, false);
        }
        if (!verdict.code)
            continue;
        judge(call, code, verdict);
        EXPECT(report_.value == i, "%s: record %zu, not %zu", call, static_cast<size_t>(report_.value),
               static_cast<size_t>(i));
        return;
    }
    for (uint64_t i = 0; i < count; i++) {
        bool failed = code && report_.value == i;
        if (failed || writes || code == SA_OK)
            transferred(call, failed ? code : int{SA_OK}, offsets[i], n, writes, i * size);
        uint64_t start = static_cast<uint64_t>(offsets[i]);
        for (uint64_t k = 0; k < (failed ? report_.offset - start : size); k++)
            if (writes)
                model_.put(start + k, static_cast<uint8_t>(buffer_[i * size + k]));
            else
                EXPECT(static_cast<uint8_t>(buffer_[i * size + k]) == model_.get(start + k),
                       "gather: at %#zx", static_cast<size_t>(start + k));
        if (failed)
            return;
    }
    EXPECT(code == SA_OK, "%s: code %d", call, code);
}

void Run::atomic() {
    static const uint64_t sizes[] = {1, 2, 4, 8, 3, 0, 16, UINT64_MAX};
    uint64_t kind = in_.below(16), size = sizes[kind < 12 ? kind % 4 : 4 + kind % 4];
    int64_t offset = in_.offset(page_);
    if (kind < 10)
        offset = static_cast<int64_t>(static_cast<uint64_t>(offset) / size * size);
    int op = static_cast<int>(in_.below(9));
    uint64_t operand = in_.byte() * 0x0101010101010101u, expected = in_.byte() * 0x0101010101010101u;
    bool writes = op != SA_ATOMIC_LOAD;
    Verdict verdict = model_.access(offset, static_cast<int64_t>(size), writes);
    if (!verdict.code &&
        (size > 8 || !size || (size & (size - 1)) || static_cast<uint64_t>(offset) % size))
        verdict.code = SA_MISALIGNED;
    int code = sa_atomic(r_, offset, size, op, operand, expected, &report_);
    if (verdict.code)
        return judge("atomic", code, verdict);
    uint64_t start = static_cast<uint64_t>(offset), stop = start + size, found = 0,
             mask = UINT64_MAX >> (64 - 8 * size);
    if (model_.first_lost(start, stop, writes) < stop ||
        (code && model_.any_lost(start, stop, writes))) {
        EXPECT(code == SA_ACCESS && report_.reason == SA_FILE_TRUNCATED && report_.offset >= start &&
                   report_.offset < stop,
               "atomic: code %d", code);
        return;
    }
    EXPECT(code == SA_OK, "atomic: code %d", code);
    for (uint64_t i = size; i-- > 0;)  // little-endian
        found = found << 8 | model_.get(start + i);
    if (op != SA_ATOMIC_STORE)
        EXPECT(report_.value == found, "atomic %d: found %#zx, not %#zx", op,
               static_cast<size_t>(report_.value), static_cast<size_t>(found));
    uint64_t results[] = {
        found,           operand,         operand,         found == (expected & mask) ? operand : found,
        found + operand, found - operand, found & operand, found | operand,
        found ^ operand};
    for (uint64_t i = 0; writes && i < size; i++)
        model_.put(start + i, static_cast<uint8_t>(results[op] >> (8 * i)));
}

void Run::pin() {
    int64_t offset = in_.offset(page_), n = in_.length(page_);
    int wanted = static_cast<int>(in_.below(3)) - 1;
    if (model_.pins.size() >= 4)
        return;
    Verdict verdict = model_.access(offset, n, false);
    uint64_t start = static_cast<uint64_t>(offset), stop = start + static_cast<uint64_t>(n);
    bool writable = true;
    for (uint64_t at = start; !verdict.code && at < stop; at = (at / page_ + 1) * page_)
        writable &= model_.at(at).writable;
    // The first of what is wrong is told, whichever it is.
    if (wanted == 1 && (verdict.code == SA_OK || verdict.code == SA_ACCESS))
        verdict = model_.access(offset, n, true);
    sa_pin *made = nullptr;
    judge("pin_range", sa_pin_range(r_, offset, n, wanted, &made, &report_), verdict);
    EXPECT((made != nullptr) == (!verdict.code && n), "pin_range: %s", made ? "a pin" : "no pin");
    if (!made)
        return;
    writable &= wanted != 0;
    EXPECT(report_.writable == writable, "pin_range: writable %d", report_.writable);
    model_.pins.push_back({start, stop, writable, made});
}

void Run::use_window() {
    if (model_.pins.empty())
        return;
    const ModelPin &pin = model_.pins[in_.below(model_.pins.size())];
    uint64_t n = std::min(1 + in_.below(300), pin.stop - pin.start);
    uint64_t start = pin.start + in_.below(pin.stop - pin.start - n + 1);
    bool writes = in_.below(2) && pin.writable;
    uint8_t value = in_.byte();
    for (uint64_t at = start; at < start + n; at++) {
        model_.fault(at);
        volatile char *there = base_ + at;
        EXPECT(static_cast<uint8_t>(*there) == model_.get(at), "window: %#x at %#zx, not %#x",
               static_cast<uint8_t>(*there), static_cast<size_t>(at), model_.get(at));
        const ModelPage &p = model_.at(at);
        bool past = p.shared && !p.own &&
                    p.file_offset + at % page_ >= model_.files[p.file].bytes.size();
        if (!writes || past)  // what is written past the end, in its page, nobody promises
            continue;
        *there = static_cast<char>(value + at);
        model_.put(at, static_cast<uint8_t>(value + at));
    }
}

void Run::unpin() {
    if (model_.pins.empty())
        return;
    size_t i = in_.below(model_.pins.size());
    sa_unpin(&model_.pins[i].pin);
    model_.pins.erase(model_.pins.begin() + static_cast<std::ptrdiff_t>(i));
}
