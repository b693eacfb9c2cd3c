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
int file_data(int fd, Ask how, Range whole, std::vector<Range> *ret);

// As os_find_data; all of a file that cannot be asked any more, or need not be.
int find_file_data(const File &file, Ask how, Range whole, size_t limit, std::vector<Range> *found, uint64_t *end);

// What lies between sorted `runs` in `whole`: the largest `most` of the gaps, sorted.
std::vector<Range> largest_gaps(const std::vector<Range> &runs, Range whole, uint64_t most);

}  // namespace sparsearray
