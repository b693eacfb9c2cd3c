/* The system calls under a SparseBuffer, as a C program would make them and time them. */
#define _GNU_SOURCE
#include <stdint.h>
#include <sys/mman.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

#define RESERVED MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
#define WRITABLE PROT_READ | PROT_WRITE

/* Seconds for one, or -1. */
double reserve_and_alloc(uint64_t nbytes, int count, int with_munmap) {
    double sum = 0;
    for (int i = 0; i < count; i++) {
        double start = now();
        char *p = mmap(0, nbytes, PROT_NONE, RESERVED, -1, 0);
        if (p == MAP_FAILED || mmap(p, nbytes, WRITABLE, RESERVED | MAP_FIXED, -1, 0) != p)
            return -1;
        if (!with_munmap) sum += now() - start;
        if (munmap(p, nbytes)) return -1;
        if (with_munmap) sum += now() - start;
    }
    return sum / count;
}

/* Seconds for each thousand; returns where the pages are, or 0. */
uint64_t single_pages(const int64_t *offsets, int count, uint64_t page, double *thousands) {
    char *p = mmap(0, count * page, PROT_NONE, RESERVED, -1, 0);
    if (p == MAP_FAILED) return 0;
    for (int first = 0; first < count; first += 1000) {
        double start = now();
        for (int i = first; i < first + 1000; i++)
            if (mmap(p + offsets[i], page, WRITABLE, RESERVED | MAP_FIXED, -1, 0) == MAP_FAILED)
                return 0;
        thousands[first / 1000] = now() - start;
    }
    return (uint64_t)p;
}
