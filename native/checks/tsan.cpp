// What is no race, to ThreadSanitizer. Without it, nothing.
#include "common.h"
#include "os.h"

#ifdef SA_TSAN

extern "C" {
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);

const char *__tsan_default_suppressions() {
    // Without PAGEMAP_SCAN (Linux before 6.7), extents look for zeros in memory that others write to.
    return "race:find_by_pagemap\n";
}
}

namespace sparsearray {

int seen_substitute(char *address, uint64_t nbytes, int prot, int spare, uint64_t spare_offset);

// mmap counts as a write, and the signal handler puts pages under windows that others are reading, as it
// is meant to.
int os_substitute(char *address, uint64_t nbytes, int prot, int spare, uint64_t spare_offset) {
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
    int error = seen_substitute(address, nbytes, prot, spare, spare_offset);
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    return error;
}

}  // namespace sparsearray

#endif
