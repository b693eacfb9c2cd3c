// The region table: which pages of a reservation are mapped, and how. Its word is law: an access
// that it does not allow is refused before memory is touched.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "files.h"

namespace sparsearray {

// Offsets are within the reservation. What lies in no region is a hole.
struct Region {
    uint64_t start = 0;
    uint64_t stop = 0;
    int kind = 0;  // sa_kind
    int prot = 0;  // PROT_*
    bool shared = false;    // writes reach the file, or other processes
    bool may_write = true;  // the kernel would allow PROT_WRITE
    bool reserve = false;   // charged against the overcommit limit
    bool can_fault = false; // by what others do to the file
    std::shared_ptr<File> file;
    std::shared_ptr<File> hole_of;  // of zero pages: the file that has a hole here, or had
    int64_t file_offset = 0;        // in `file` or `hole_of`
    uint64_t file_size = UINT64_MAX;  // when it was mapped; UINT64_MAX where files have none
    uint64_t huge_page = 0;           // it can be cut in multiples of this only
    int flush_errno = 0;              // what a flush failed with
    bool shown = false;  // a window was made of a part of it; set with the table shared, by __atomic_store

    uint64_t nbytes() const { return stop - start; }
    bool readable() const;
    bool writable() const;
    const char *file_name() const { return file ? file->name().c_str() : ""; }
    // Where in the file the byte at `offset` of the reservation lies.
    uint64_t in_file(uint64_t offset) const {
        return static_cast<uint64_t>(file_offset) + (offset - start);
    }
    // Whether `next`, which begins where this ends, shows the same thing in the same way.
    bool looks_joined_to(const Region &next) const;
    bool is_joined_to(const Region &next) const;
};

// It changes under fault_lock, so that a signal handler can look a region up.
class RegionTable {
  public:
    using Map = std::map<uint64_t, Region>;  // by start

    // Makes sure that the next `replace` cannot run out of memory half-way.
    void prepare();
    // Puts `region` where it says, over whatever was there, and joins it to its neighbours.
    void replace(Region region);
    void erase(uint64_t start, uint64_t stop);
    void clear();

    // The region that holds `offset`, or null.
    Region *find(uint64_t offset);
    // The first region that ends after `offset`, or null.
    Region *at_or_after(uint64_t offset);
    const Map &all() const { return map_; }
    bool empty(uint64_t start, uint64_t stop);
    // The first byte of `start` to `stop` that is in no region, or `stop`.
    uint64_t first_hole(uint64_t start, uint64_t stop);
    // The huge page that an edge of `start` to `stop` would cut, as its size; 0 if none. `*at` is
    // the edge.
    uint64_t cut_huge_page(uint64_t start, uint64_t stop, uint64_t *at);
    Map &map() { return map_; }

  private:
    void split(uint64_t at);
    void insert(Region &&region);
    void cut(uint64_t start, uint64_t stop);
    void join(Region &&region);

    Map map_;
    std::vector<Map::node_type> spare_;
    // Taken out, to be freed without the lock: closing a file can take long.
    std::multimap<uint64_t, Region> gone_;
};

}  // namespace sparsearray
