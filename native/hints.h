// What is known to be stored, so that the system need not be asked again and again.
//
// A hint can be out of date: a page was given back, or its file has a hole there by now. Who believes it then
// touches a page of zeros that it need not have touched, and reads what is there. So nothing depends on
// `forget` being called everywhere, and two threads may note at the same time.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>

namespace sparsearray {

class StoredHints {
  public:
    StoredHints() = default;
    ~StoredHints() { free(groups_.load()); }
    StoredHints(const StoredHints &) = delete;
    StoredHints &operator=(const StoredHints &) = delete;

    // Pages by number, `first` to `last`.
    bool has(uint64_t first, uint64_t last) const {
        const Group *groups = groups_.load(std::memory_order_acquire);
        if (!groups)
            return false;
        for (uint64_t group = first / kPages; group <= last / kPages; group++) {
            uint64_t found = groups[place(group)].load(std::memory_order_relaxed);
            uint64_t wanted = bits(group, first, last);
            if (found >> kPages != group + 1 || (found & wanted) != wanted)
                return false;
        }
        return true;
    }

    // At most as many as there is room for.
    void note(uint64_t first, uint64_t last) {
        Group *groups = table();
        for (uint64_t group = first / kPages; groups && group <= last / kPages; group++) {
            Group &cell = groups[place(group)];
            uint64_t found = cell.load(std::memory_order_relaxed), wanted = bits(group, first, last);
            if (found >> kPages == group + 1)
                wanted |= found & kMask;
            cell.store((group + 1) << kPages | wanted, std::memory_order_relaxed);
        }
    }

    void forget(uint64_t first, uint64_t last) {
        Group *groups = groups_.load(std::memory_order_acquire);
        if (!groups)
            return;
        bool all = last / kPages - first / kPages >= kGroups;
        for (uint64_t i = 0; all && i < kGroups; i++)
            groups[i].store(0, std::memory_order_relaxed);
        for (uint64_t group = first / kPages; !all && group <= last / kPages; group++) {
            Group &cell = groups[place(group)];
            if (cell.load(std::memory_order_relaxed) >> kPages == group + 1)
                cell.store(0, std::memory_order_relaxed);
        }
    }

  private:
    // Neighbouring pages share a word: the number of their group, and a bit for each.
    using Group = std::atomic<uint64_t>;
    static constexpr uint64_t kPages = 16, kMask = (1 << kPages) - 1;
    static constexpr int kGroupBits = 15;
    static constexpr uint64_t kGroups = 1 << kGroupBits;

    // Groups at equal distances, as rows of tiles are, fall on different places.
    static uint64_t place(uint64_t group) { return (group * 0x9E3779B97F4A7C15) >> (64 - kGroupBits); }

    static uint64_t bits(uint64_t group, uint64_t first, uint64_t last) {
        uint64_t from = first > group * kPages ? first - group * kPages : 0;
        uint64_t to = last < group * kPages + kPages - 1 ? last - group * kPages : kPages - 1;
        return ((uint64_t{2} << to) - 1) & ~((uint64_t{1} << from) - 1);
    }

    // Null where there is no memory for it.
    Group *table() {
        Group *groups = groups_.load(std::memory_order_acquire);
        if (groups)
            return groups;
        // Zeros, of which only those take memory that are written to.
        Group *made = static_cast<Group *>(calloc(kGroups, sizeof(Group)));
        if (!made || groups_.compare_exchange_strong(groups, made))
            return made;
        free(made);
        return groups;
    }

    std::atomic<Group *> groups_{nullptr};
};

}  // namespace sparsearray
