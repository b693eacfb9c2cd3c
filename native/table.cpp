#include "table.h"

#include <algorithm>
#include <mutex>
#include <sys/mman.h>

#include "core.h"
#include "damage.h"

namespace sparsearray {

bool Region::readable() const { return prot & PROT_READ; }
bool Region::writable() const { return prot & PROT_WRITE; }

bool Region::looks_joined_to(const Region &next) const {
    return kind == next.kind && kind != SA_RAW && stop == next.start && prot == next.prot &&
           shared == next.shared && file == next.file &&
           (!file || file_offset + static_cast<int64_t>(nbytes()) == next.file_offset);
}

bool Region::is_joined_to(const Region &next) const {
    bool same_holes = hole_of == next.hole_of &&
                      (!hole_of || file_offset + static_cast<int64_t>(nbytes()) == next.file_offset);
    return looks_joined_to(next) && same_holes && may_write == next.may_write && reserve == next.reserve &&
           can_fault == next.can_fault && huge_page == next.huge_page &&
           flush_errno == next.flush_errno;
}

void RegionTable::prepare() {
    // One region put into the middle of another makes two more.
    Map maker;
    while (spare_.size() < 3) {
        spare_.reserve(3);
        maker.try_emplace(0);
        spare_.push_back(maker.extract(maker.begin()));
    }
}

void RegionTable::insert(Region &&region) {
    auto node = std::move(spare_.back());
    spare_.pop_back();
    node.key() = region.start;
    node.mapped() = std::move(region);
    map_.insert(std::move(node));
}

void RegionTable::split(uint64_t at) {
    Region *region = find(at);
    if (!region || region->start == at)
        return;
    Region tail = *region;
    tail.file_offset += static_cast<int64_t>(at - region->start);
    tail.start = at;
    region->stop = at;
    insert(std::move(tail));
}

void RegionTable::cut(uint64_t start, uint64_t stop) {
    split(start);
    split(stop);
    for (auto it = map_.lower_bound(start); it != map_.end() && it->first < stop;)
        gone_.insert(map_.extract(it++));
}

void RegionTable::erase(uint64_t start, uint64_t stop) {
    {
        std::lock_guard<FaultLock> held(fault_lock);
        cut(start, stop);
    }
    gone_.clear();
}

void RegionTable::clear() { erase(0, UINT64_MAX); }

void RegionTable::replace(Region region) {
    {
        std::lock_guard<FaultLock> held(fault_lock);
        cut(region.start, region.stop);
        join(std::move(region));
    }
    gone_.clear();
}

void RegionTable::join(Region &&region) {
    auto next = map_.lower_bound(region.stop);
    if (next != map_.end() && region.is_joined_to(next->second)) {
        region.stop = next->second.stop;
        // The later look at the file is the better one.
        region.file_size = std::max(region.file_size, next->second.file_size);
        region.shown |= next->second.shown;
        gone_.insert(map_.extract(next++));
    }
    if (next != map_.begin()) {
        Region &previous = std::prev(next)->second;
        if (previous.is_joined_to(region)) {
            previous.stop = region.stop;
            previous.file_size = std::max(previous.file_size, region.file_size);
            previous.shown |= region.shown;
            return;
        }
    }
    insert(std::move(region));
}

Region *RegionTable::find(uint64_t offset) {
    auto it = map_.upper_bound(offset);
    if (it == map_.begin())
        return nullptr;
    Region &region = std::prev(it)->second;
    return offset < region.stop ? &region : nullptr;
}

Region *RegionTable::at_or_after(uint64_t offset) {
    if (Region *region = find(offset))
        return region;
    auto it = map_.lower_bound(offset);
    return it == map_.end() ? nullptr : &it->second;
}

bool RegionTable::empty(uint64_t start, uint64_t stop) {
    Region *region = at_or_after(start);
    return !region || region->start >= stop;
}

uint64_t RegionTable::first_hole(uint64_t start, uint64_t stop) {
    while (start < stop) {
        Region *region = find(start);
        if (!region)
            return start;
        start = region->stop;
    }
    return stop;
}

uint64_t RegionTable::cut_huge_page(uint64_t start, uint64_t stop, uint64_t *at) {
    for (uint64_t edge : {start, stop}) {
        Region *region = find(edge);
        if (region && region->huge_page && (edge - region->start) % region->huge_page) {
            *at = edge;
            return region->huge_page;
        }
    }
    return 0;
}

}  // namespace sparsearray
