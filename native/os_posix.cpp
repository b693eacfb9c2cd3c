// Any POSIX system, with what POSIX has: no move of a mapping, no prefaulting, no advice on huge pages,
// no copies without signals.
#include "os.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core.h"

#ifndef MAP_NORESERVE
#define MAP_NORESERVE 0
#endif
#ifndef MAP_ANONYMOUS
#define MAP_ANONYMOUS MAP_ANON
#endif

namespace sparsearray {

namespace {

constexpr int kPrivate = MAP_PRIVATE | MAP_ANONYMOUS;
constexpr int kTypeMask = MAP_SHARED | MAP_PRIVATE;
// Flags that many systems have and that change nothing about where a mapping lies.
constexpr int kKnown = MAP_NORESERVE
#ifdef MAP_STACK
                       | MAP_STACK
#endif
#ifdef MAP_POPULATE
                       | MAP_POPULATE
#endif
#ifdef MAP_NONBLOCK
                       | MAP_NONBLOCK
#endif
    ;

int errno_of(int result) { return result < 0 ? errno : 0; }

// As the module is loaded: see os_linux.cpp.
const uint64_t page_size = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));

}  // namespace

uint64_t os_page_size() { return page_size; }

uint64_t os_available_memory() { return UINT64_MAX; }

uint64_t os_alignment(uint64_t) { return os_page_size(); }

int os_reserve(uint64_t nbytes, uint64_t alignment, char **ret) {
    if (nbytes > UINT64_MAX - alignment)
        return ENOMEM;
    uint64_t taken = nbytes + alignment - os_page_size();
    void *at = mmap(nullptr, taken, PROT_NONE, kPrivate | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return errno;
    char *start = static_cast<char *>(at);
    uint64_t head = (alignment - reinterpret_cast<uint64_t>(start) % alignment) % alignment;
    uint64_t tail = taken - nbytes - head;
    // SAFETY: both ends are part of what was taken above: head <= alignment - page.
    int error = head ? errno_of(munmap(start, head)) : 0;
    if (!error && tail)
        error = errno_of(munmap(start + head + nbytes, tail));
    if (error) {
        munmap(start, taken);
        return error;
    }
    *ret = start + head;
    return 0;
}

int os_make_joinable(char *) { return 0; }

int os_release(char *address, uint64_t nbytes) { return errno_of(munmap(address, nbytes)); }

int os_flags_private(bool reserve) { return reserve ? kPrivate : kPrivate | MAP_NORESERVE; }

bool os_refuses_flags(int prot, int flags, char *ret, uint64_t nbytes) {
    struct Named {
        int flag;
        const char *name;
    };
    static const Named refused[] = {
        {MAP_FIXED, "MAP_FIXED"},
        {MAP_ANONYMOUS, "MAP_ANONYMOUS"},
    };
    for (const Named &one : refused) {
        if (flags & one.flag) {
            snprintf(ret, nbytes, "%s", one.name);
            return true;
        }
    }
    int type = flags & kTypeMask;
    if (type != MAP_SHARED && type != MAP_PRIVATE)
        snprintf(ret, nbytes, "neither MAP_SHARED nor MAP_PRIVATE");
    else if (flags & ~(kKnown | kTypeMask))
        snprintf(ret, nbytes, "flags %#x", static_cast<unsigned>(flags & ~(kKnown | kTypeMask)));
    else if (prot & ~(PROT_READ | PROT_WRITE | PROT_EXEC))
        snprintf(ret, nbytes, "prot %#x",
                 static_cast<unsigned>(prot & ~(PROT_READ | PROT_WRITE | PROT_EXEC)));
    else
        return false;
    return true;
}

int os_place(char *address, uint64_t nbytes, int prot, int flags, int fd, int64_t file_offset) {
    // A trial elsewhere finds most of what can fail before the old mapping is gone.
    void *trial = mmap(nullptr, nbytes, prot, flags, fd, file_offset);
    if (trial == MAP_FAILED)
        return errno;
    munmap(trial, nbytes);
    // SAFETY: the caller has checked that address and nbytes lie in the reservation.
    void *at = mmap(address, nbytes, prot, flags | MAP_FIXED, fd, file_offset);
    return at == MAP_FAILED ? errno : 0;
}

int os_make_own(char *base, Range range, int prot, const std::vector<Range> &runs,
                const std::function<bool(char *, uint64_t, uint64_t)> &copy) {
    std::vector<std::vector<char>> kept;
    for (const Range &run : runs) {
        kept.emplace_back(run.nbytes());
        if (!copy(kept.back().data(), run.start, run.nbytes()))
            return EIO;
    }
    int both = PROT_READ | PROT_WRITE;
    if (int error = os_place(base + range.start, range.nbytes(), both, os_flags_private(false), -1, 0))
        return error;
    for (size_t i = 0; i < runs.size(); i++)
        memcpy(base + runs[i].start, kept[i].data(), kept[i].size());
    return os_protect(base + range.start, range.nbytes(), prot);
}

int os_place_at_once(char *address, uint64_t nbytes, int prot, int flags, int fd, int64_t file_offset) {
    return os_place(address, nbytes, prot, flags, fd, file_offset);
}

int os_place_on_hole(char *address, uint64_t nbytes, int prot) {
    return os_place(address, nbytes, prot, os_flags_private(false), -1, 0);
}

int os_make_hole(char *address, uint64_t nbytes) {
    // SAFETY: the caller has checked that address and nbytes lie in the reservation.
    void *at = mmap(address, nbytes, PROT_NONE, kPrivate | MAP_NORESERVE | MAP_FIXED, -1, 0);
    return at == MAP_FAILED ? errno : 0;
}

int os_protect(char *address, uint64_t nbytes, int prot) {
    // SAFETY: the caller has checked that address and nbytes lie in the reservation.
    return errno_of(mprotect(address, nbytes, prot));
}

// madvise(MADV_DONTNEED) may leave the bytes where they are on systems other than Linux.
int os_discard(char *, uint64_t) { return ENOTSUP; }

int os_populate(char *, uint64_t, bool) { return ENOTSUP; }

int os_advise(char *address, uint64_t nbytes, int advice) {
    switch (advice) {
    case SA_ADVISE_NORMAL: return posix_madvise(address, nbytes, POSIX_MADV_NORMAL);
    case SA_ADVISE_SEQUENTIAL: return posix_madvise(address, nbytes, POSIX_MADV_SEQUENTIAL);
    case SA_ADVISE_RANDOM: return posix_madvise(address, nbytes, POSIX_MADV_RANDOM);
    case SA_ADVISE_WILLNEED: return posix_madvise(address, nbytes, POSIX_MADV_WILLNEED);
    default: return ENOTSUP;
    }
}

void os_prefer_huge_zero(char *, uint64_t) {}

int os_bind_numa(char *, uint64_t, int) { return ENOTSUP; }

int os_set_name(char *, uint64_t, const char *) { return ENOTSUP; }

int os_describe_file(int fd, OsFile *ret, const OsFile *) {
    struct stat st;
    if (fstat(fd, &st) < 0)
        return errno;
    if (S_ISDIR(st.st_mode))
        return EISDIR;
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode) && !S_ISCHR(st.st_mode))
        return ENODEV;
    *ret = {};
    ret->device = st.st_dev;
    ret->inode = st.st_ino;
    ret->can_fault = true;
    ret->may_have_holes = true;
    if (S_ISREG(st.st_mode)) {
        ret->is_regular = true;
        ret->has_size = true;
        ret->size = static_cast<uint64_t>(st.st_size);
        ret->size_can_change = true;
    }
    return 0;
}

int os_allocate(int, int64_t, uint64_t) { return ENOTSUP; }

// Nobody tells: anything may be there.
int os_find_touched(const char *, uint64_t nbytes, Touched, int method, size_t, std::vector<Range> *found,
                    uint64_t *end) {
    if (method != SA_EXTENTS_BEST)
        return ENOTSUP;
    found->push_back({0, nbytes});
    *end = nbytes;
    return 0;
}

bool os_is_served(int) { return false; }

int os_find_data(int fd, Ask how, uint64_t start, uint64_t stop, size_t limit, std::vector<Range> *found,
                 uint64_t *end) {
    *end = stop;
#ifdef SEEK_DATA
    // A seek would move the position of the user's own descriptor.
    for (uint64_t at = start; (how == Ask::BySeeking || how == Ask::AtOnce) && at < stop;) {
        off_t data = lseek(fd, static_cast<off_t>(at), SEEK_DATA);
        if (data < 0 && errno == ENXIO)
            return 0;
        off_t hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
        if (data < 0 || hole <= data) {
            start = at;
            break;
        }
        if (static_cast<uint64_t>(data) >= stop)
            return 0;
        at = static_cast<uint64_t>(hole) < stop ? static_cast<uint64_t>(hole) : stop;
        found->push_back({static_cast<uint64_t>(data), at});
        if (found->size() == limit)
            *end = at;
        if (at == *end)
            return 0;
    }
#endif
    (void)fd, (void)how, (void)limit;
    found->push_back({start, stop});
    return 0;
}

int os_will_need(int, uint64_t, uint64_t) { return ENOTSUP; }

void os_read_alone(int) {}

uint64_t os_read_ahead(int) { return 0; }

int os_substitute(char *address, uint64_t nbytes, int prot, int, uint64_t) {
    // SAFETY: the caller has found the pages in a region.
    void *at = mmap(address, nbytes, prot, kPrivate | MAP_NORESERVE | MAP_FIXED, -1, 0);
    return at == MAP_FAILED ? errno : 0;
}

int os_make_spare() { return -1; }

uint64_t os_hole_after(int, uint64_t, uint64_t) { return 0; }

uint64_t os_mappings_to_spare() {
    // Linux again: other systems have no such limit.
    unsigned long long limit = 0, used = 0;
    if (FILE *file = fopen("/proc/sys/vm/max_map_count", "re")) {
        if (fscanf(file, "%llu", &limit) != 1)
            limit = 0;
        fclose(file);
    }
    FILE *maps = limit ? fopen("/proc/self/maps", "re") : nullptr;
    if (!maps)
        return limit ? 0 : UINT64_MAX / 2;
    for (int c; (c = getc(maps)) != EOF;)
        used += c == '\n';
    fclose(maps);
    return limit / 2 > used ? limit / 2 - used : 0;
}

void os_begin_writing(int, uint64_t, uint64_t) {}

int os_punch_file(int, int64_t, uint64_t) { return ENOTSUP; }

bool os_is_own_copy(const char *) { return false; }

int64_t os_copy_quietly(void *, const void *, uint64_t, bool) { return -ENOTSUP; }

}  // namespace sparsearray
