// Extents: which pages may hold something other than zero.
#pragma once

#include <cstdint>
#include <vector>

#include "reservation.h"

namespace sparsearray {

// What may hold something other than zero in a range of whole pages, added to `ret` and sorted. Holes of a
// file that was cut short are holes here. 0 or an errno.
int find_stored(sa_reservation *r, Range part, std::vector<Range> *ret);

// The data of a file between two of its bytes, in whole pages, and sorted; none of it is left out.
int file_data(const File &file, uint64_t start, uint64_t stop, std::vector<Range> *ret);

// What lies between sorted `runs` in `whole`: the largest `most` of the gaps, sorted.
std::vector<Range> largest_gaps(const std::vector<Range> &runs, Range whole, uint64_t most);

}  // namespace sparsearray
