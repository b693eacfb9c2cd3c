// Linux.
#include "os.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/mempolicy.h>
#include <new>
#include <string>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <vector>

#include "core.h"

// Newer than the headers of some systems that the built library runs on.
#ifndef MADV_COLD
#define MADV_COLD 20
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

namespace sparsearray {

namespace {

constexpr int kPrivate = MAP_PRIVATE | MAP_ANONYMOUS;
constexpr int kTypeMask = 0xf;  // MAP_TYPE
constexpr uint64_t kReadAhead = 128 << 10;  // by default
constexpr uint64_t kFuseMagic = 0x65735546;  // FUSE_SUPER_MAGIC

int errno_of(int result) { return result < 0 ? errno : 0; }

uint64_t read_number(const char *path) {
    unsigned long long number = 0;
    if (FILE *file = fopen(path, "re")) {
        if (fscanf(file, "%llu", &number) != 1)
            number = 0;
        fclose(file);
    }
    return number;
}

// What is asked for once is asked for when the module is loaded: a child that is forked while another thread
// makes a static variable of a function would wait for that thread, which it does not have.
const uint64_t page_size = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));

// The base page, the huge pages of hugetlb, and the one of transparent huge pages.
std::vector<uint64_t> find_page_sizes() {
    std::vector<uint64_t> sizes = {page_size};
    if (DIR *folder = opendir("/sys/kernel/mm/hugepages")) {
        while (dirent *entry = readdir(folder)) {
            unsigned long long kib;
            if (sscanf(entry->d_name, "hugepages-%llukB", &kib) == 1)
                sizes.push_back(uint64_t{kib} << 10);
        }
        closedir(folder);
    }
    if (uint64_t size = read_number("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size"))
        sizes.push_back(size);
    return sizes;
}

// Never destroyed: threads may outlive exit().
const std::vector<uint64_t> &page_sizes = *new std::vector<uint64_t>(find_page_sizes());

// Without the shared huge zero page, reading would fill real huge pages with zeros.
const bool has_huge_zero = read_number("/sys/kernel/mm/transparent_hugepage/use_zero_page") == 1;

}  // namespace

uint64_t os_page_size() { return page_size; }

uint64_t os_available_memory() {
    uint64_t found = 0;
    if (FILE *file = fopen("/proc/meminfo", "re")) {
        char line[128];
        unsigned long long kib;
        while (fgets(line, sizeof line, file))
            if (sscanf(line, "MemAvailable: %llu", &kib) == 1 || sscanf(line, "SwapFree: %llu", &kib) == 1)
                found += uint64_t{kib} << 10;
        fclose(file);
    }
    return found ? found : UINT64_MAX;
}

uint64_t os_alignment(uint64_t nbytes) {
    uint64_t best = page_size;
    for (uint64_t size : page_sizes)
        if (size <= nbytes)
            best = std::max(best, size);
    return best;
}

int os_make_joinable(char *address) {
    // Gives the range the bookkeeping (anon_vma) of memory that has been touched. Pieces that are split
    // off it share that, whatever the order in which they are populated; pieces that were each touched
    // alone stay apart, and count against vm.max_map_count.
    uint64_t page = os_page_size();
    // SAFETY: the page is the first of a reservation in which nothing is mapped yet.
    if (mprotect(address, page, PROT_READ | PROT_WRITE) < 0)
        return errno;
    *static_cast<volatile char *>(address) = 0;
    int error = errno_of(madvise(address, page, MADV_DONTNEED));
    if (mprotect(address, page, PROT_NONE) < 0) {
        error = errno;
        os_make_hole(address, page);  // once more, another way: nobody may get at a hole
    }
    return error;
}

// Below which the next reservation may find its place at the first try. From above, as the kernel does
// it: a small one in the middle of what a large one left would keep the next large one out.
static std::atomic<uint64_t> likely_end{0};

static char *reserve_below(uint64_t end, uint64_t nbytes, uint64_t alignment) {
    if (end <= nbytes)
        return nullptr;
    uint64_t place = (end - nbytes) / alignment * alignment;
    if (place == 0)
        return nullptr;
    // Without MAP_FIXED the address is a wish.
    void *at = mmap(reinterpret_cast<void *>(place), nbytes, PROT_NONE, kPrivate | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return nullptr;
    if (reinterpret_cast<uint64_t>(at) % alignment == 0)
        return static_cast<char *>(at);
    munmap(at, nbytes);
    return nullptr;
}

int os_reserve(uint64_t nbytes, uint64_t alignment, char **ret) {
    uint64_t page = os_page_size();
    if (nbytes > UINT64_MAX - alignment)
        return ENOMEM;
    if (char *start = reserve_below(likely_end, nbytes, alignment)) {
        likely_end = reinterpret_cast<uint64_t>(start);
        *ret = start;
        return 0;
    }
    //   taken:  |<- head ->|<-------- nbytes -------->|<- tail ->|
    //                      ^ multiple of alignment
    uint64_t taken = nbytes + alignment - page;
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

int os_release(char *address, uint64_t nbytes) {
    int error = errno_of(munmap(address, nbytes));
    likely_end = reinterpret_cast<uint64_t>(address) + nbytes;
    return error;
}

int os_flags_private(bool reserve) { return reserve ? kPrivate : kPrivate | MAP_NORESERVE; }

bool os_refuses_flags(int prot, int flags, char *ret, uint64_t nbytes) {
    struct Named {
        int flag;
        const char *name;
    };
    static const Named refused[] = {
        {MAP_FIXED, "MAP_FIXED"},
        {MAP_FIXED_NOREPLACE, "MAP_FIXED_NOREPLACE"},
        {MAP_GROWSDOWN, "MAP_GROWSDOWN"},
        {MAP_HUGETLB, "MAP_HUGETLB"},
        {MAP_LOCKED, "MAP_LOCKED"},
        {MAP_ANONYMOUS, "MAP_ANONYMOUS"},
#ifdef MAP_32BIT
        {MAP_32BIT, "MAP_32BIT"},
#endif
    };
    constexpr int known = MAP_NORESERVE | MAP_POPULATE | MAP_NONBLOCK | MAP_STACK | MAP_DENYWRITE |
                          MAP_EXECUTABLE | MAP_SYNC;
    for (const Named &one : refused) {
        if (flags & one.flag) {
            snprintf(ret, nbytes, "%s", one.name);
            return true;
        }
    }
    int type = flags & kTypeMask;
    if (type != MAP_SHARED && type != MAP_PRIVATE)
        snprintf(ret, nbytes, "neither MAP_SHARED nor MAP_PRIVATE");
    else if (flags & ~(known | kTypeMask))
        snprintf(ret, nbytes, "flags %#x", static_cast<unsigned>(flags & ~(known | kTypeMask)));
    else if (prot & ~(PROT_READ | PROT_WRITE | PROT_EXEC))
        snprintf(ret, nbytes, "prot %#x",
                 static_cast<unsigned>(prot & ~(PROT_READ | PROT_WRITE | PROT_EXEC)));
    else
        return false;
    return true;
}

int os_place(char *address, uint64_t nbytes, int prot, int flags, int fd, int64_t file_offset) {
    // mmap(MAP_FIXED) may take the old mapping away and then fail, and leave a gap that a stranger's
    // mapping can land in. So map elsewhere and move it in, which checks before it takes.
    void *made = mmap(nullptr, nbytes, prot, flags, fd, file_offset);
    if (made == MAP_FAILED)
        return errno;
    // SAFETY: the caller has checked that address and nbytes lie in the reservation.
    void *moved = mremap(made, nbytes, nbytes, MREMAP_MAYMOVE | MREMAP_FIXED, address);
    if (moved == MAP_FAILED) {
        int error = errno;
        munmap(made, nbytes);
        return error;
    }
    return 0;
}

int os_place_at_once(char *address, uint64_t nbytes, int prot, int flags, int fd, int64_t file_offset) {
    // SAFETY: the caller has checked that address and nbytes lie in the reservation.
    return mmap(address, nbytes, prot, flags | MAP_FIXED, fd, file_offset) == MAP_FAILED ? errno : 0;
}

int os_place_on_hole(char *address, uint64_t nbytes, int prot) {
    // Holes are mapped MAP_NORESERVE without access, and hold nothing: giving access is enough.
    int error = os_protect(address, nbytes, prot);
    if (error)
        // SAFETY: the caller has checked the range. It may be several mappings, of which the first
        // have changed.
        mprotect(address, nbytes, PROT_NONE);
    return error;
}

int os_make_own(char *base, Range range, int prot, const std::vector<Range> &runs,
                const std::function<bool(char *, uint64_t, uint64_t)> &copy) {
    void *made = mmap(nullptr, range.nbytes(), PROT_READ | PROT_WRITE, os_flags_private(false), -1, 0);
    if (made == MAP_FAILED)
        return errno;
    char *own = static_cast<char *>(made);
    for (const Range &run : runs)
        if (!copy(own + (run.start - range.start), run.start, run.nbytes())) {
            munmap(made, range.nbytes());
            return EIO;
        }
    // SAFETY: the caller has checked that the range lies in the reservation.
    if (mprotect(made, range.nbytes(), prot) < 0 ||
        mremap(made, range.nbytes(), range.nbytes(), MREMAP_MAYMOVE | MREMAP_FIXED, base + range.start) == MAP_FAILED) {
        int error = errno;
        munmap(made, range.nbytes());
        return error;
    }
    return 0;
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

int os_discard(char *address, uint64_t nbytes) {
    return errno_of(madvise(address, nbytes, MADV_DONTNEED));
}

int os_populate(char *address, uint64_t nbytes, bool write) {
    int error = errno_of(madvise(address, nbytes, write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ));
    return error == EINVAL ? ENOTSUP : error;  // Linux before 5.14
}

int os_advise(char *address, uint64_t nbytes, int advice) {
    static const int values[] = {MADV_NORMAL,   MADV_SEQUENTIAL, MADV_RANDOM, MADV_WILLNEED,
                                 MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_COLD,   MADV_PAGEOUT};
    return errno_of(madvise(address, nbytes, values[advice]));
}

void os_prefer_huge_zero(char *address, uint64_t nbytes) {
    if (has_huge_zero)
        madvise(address, nbytes, MADV_HUGEPAGE);
}

int os_bind_numa(char *address, uint64_t nbytes, int node) {
    if (node < 0 || node > 0xffff)
        return EINVAL;
    constexpr size_t bits = 8 * sizeof(unsigned long);
    size_t bit = static_cast<size_t>(node);
    std::vector<unsigned long> mask(bit / bits + 1);
    mask[bit / bits] = 1ul << bit % bits;
    // The kernel counts one bit less than it is told: mbind(2), BUGS of get_nodes.
    long result = syscall(SYS_mbind, address, nbytes, MPOL_BIND, mask.data(), bit + 2, 0);
    return result < 0 ? (errno == ENOSYS ? ENOTSUP : errno) : 0;
}

int os_set_name(char *address, uint64_t nbytes, const char *name) {
    // The caller has vetted the name, so EINVAL says that the kernel has no CONFIG_ANON_VMA_NAME.
    int error = errno_of(prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, address, nbytes, name));
    return error == EINVAL ? ENOTSUP : error;
}

int os_describe_file(int fd, OsFile *ret, const OsFile *like) {
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
    ret->is_served = !like || like->device != st.st_dev || like->is_served ? os_is_served(fd) : false;
    ret->may_have_holes = ret->is_served || st.st_blocks < st.st_size / 512;
    if (S_ISBLK(st.st_mode)) {
        // Seeks are per description: a second one leaves the caller's position alone.
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        int own = open(path, O_RDONLY | O_CLOEXEC);
        off_t end = own < 0 ? -1 : lseek(own, 0, SEEK_END);
        int error = errno;
        if (own >= 0)
            close(own);
        if (end < 0)
            return error;
        ret->has_size = true;
        ret->size = static_cast<uint64_t>(end);
    } else if (S_ISREG(st.st_mode)) {
        bool alike = like && like->device == st.st_dev && like->is_regular;
        int seals = alike && !like->can_be_sealed ? -1 : fcntl(fd, F_GET_SEALS);
        bool sealed = seals >= 0 && (seals & F_SEAL_SHRINK);
        ret->can_be_sealed = seals >= 0;
        ret->is_regular = true;
        ret->has_size = true;
        ret->size = static_cast<uint64_t>(st.st_size);
        ret->size_can_change = !sealed;
        struct statfs fs;
        if (alike)
            ret->huge_page = like->huge_page;
        else if (fstatfs(fd, &fs) == 0 && static_cast<uint64_t>(fs.f_type) == HUGETLBFS_MAGIC)
            ret->huge_page = static_cast<uint64_t>(fs.f_bsize);
        // A pool of huge pages can be empty, whatever the seals.
        ret->can_fault = !sealed || ret->huge_page;
    }
    return 0;
}

int os_allocate(int fd, int64_t offset, uint64_t nbytes) {
    int error = errno_of(fallocate(fd, FALLOC_FL_KEEP_SIZE, offset, static_cast<off_t>(nbytes)));
    return error == EOPNOTSUPP ? ENOTSUP : error;
}

// ---------------------------------------------------------------------------------- what holds something

namespace {

// PAGEMAP_SCAN of <linux/fs.h>, Linux 6.7: Documentation/admin-guide/mm/pagemap.rst.
struct ScanRange {
    uint64_t start, stop, categories;
};
struct ScanRequest {
    uint64_t size, flags, start, stop, walk_end, ranges, capacity, most_pages;
    uint64_t inverted, required, any_of, returned;
};
constexpr unsigned long kScan = _IOWR('f', 16, ScanRequest);
constexpr uint64_t kScanFile = 1 << 2, kScanPresent = 1 << 3, kScanSwapped = 1 << 4,
                   kScanZero = 1 << 5;
// With more the kernel has been seen to return ranges twice: where it says that it stopped can lie
// before the last range. So we go on from the end of that range.
constexpr size_t kScanRanges = 512;

// An entry of /proc/self/pagemap.
constexpr uint64_t kPagePresent = uint64_t{1} << 63, kPageSwapped = uint64_t{1} << 62;
constexpr uint64_t kPageFileOrShared = uint64_t{1} << 61;
constexpr size_t kPageEntries = 1 << 16;

class Descriptor {
  public:
    // None, for a path that is null.
    explicit Descriptor(const char *path) : fd_(path ? open(path, O_RDONLY | O_CLOEXEC) : -1) {}
    ~Descriptor() {
        if (fd_ >= 0)
            close(fd_);
    }
    Descriptor(const Descriptor &) = delete;
    Descriptor &operator=(const Descriptor &) = delete;
    int get() const { return fd_; }

  private:
    int fd_;
};

// /proc/self/pagemap, kept open: to open it takes longer than to look at a few pages. It is that of the process
// which opened it, so a child opens its own; and who closes all descriptors, whose ever they are, may have
// given the number to another file, so each use looks whether it is still ours.
struct Pagemap {
    int fd;
    pid_t pid;
    dev_t device;
    ino_t inode;
};
std::atomic<const Pagemap *> kept_pagemap{nullptr};

bool is_open(const Pagemap *pagemap) {
    struct stat facts;
    return pagemap && fstat(pagemap->fd, &facts) == 0 && facts.st_dev == pagemap->device &&
           facts.st_ino == pagemap->inode;
}

// -1 where there is none.
int open_pagemap() {
    const Pagemap *found = kept_pagemap.load(std::memory_order_acquire);
    bool open_still = is_open(found);
    if (open_still && found->pid == getpid())
        return found->fd;
    struct stat facts;
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    const Pagemap *made = nullptr;
    if (fd >= 0 && fstat(fd, &facts) == 0)
        made = new (std::nothrow) Pagemap{fd, getpid(), facts.st_dev, facts.st_ino};
    if (made && kept_pagemap.compare_exchange_strong(found, made)) {
        if (open_still)
            close(found->fd);  // of the parent; the structure stays, for another thread may look at it
        return fd;
    }
    if (fd >= 0)
        close(fd);
    delete made;
    // Another thread was first.
    found = kept_pagemap.load(std::memory_order_acquire);
    return is_open(found) && found->pid == getpid() ? found->fd : -1;
}

void append(std::vector<Range> *runs, Range run) {
    if (!runs->empty() && runs->back().stop == run.start)
        runs->back().stop = run.stop;
    else
        runs->push_back(run);
}

bool is_zero(const char *page) {
    // Each byte is the one before it, and the first is zero.
    return *page == 0 && memcmp(page, page + 1, os_page_size() - 1) == 0;
}

// ENOTTY: no such call.
int find_by_scan(int pagemap, uint64_t address, uint64_t nbytes, Touched which, size_t limit,
                 std::vector<Range> *found, uint64_t *end) {
    ScanRange ranges[kScanRanges];
    ScanRequest request = {};
    request.size = sizeof request;
    request.stop = address + nbytes;
    request.ranges = reinterpret_cast<uint64_t>(ranges);
    request.inverted = request.required = kScanZero | (which == Touched::OwnCopies ? kScanFile : 0);
    request.any_of = request.returned = kScanPresent | kScanSwapped;
    for (*end = 0; *end < nbytes && found->size() < limit;) {
        request.start = address + *end;
        request.capacity = std::min(kScanRanges, limit - found->size());
        int count = ioctl(pagemap, kScan, &request);
        if (count < 0)
            return errno;
        for (int i = 0; i < count; i++)
            append(found, {ranges[i].start - address, ranges[i].stop - address});
        bool full = static_cast<uint64_t>(count) == request.capacity;
        *end = full ? ranges[count - 1].stop - address : nbytes;
    }
    return 0;
}

int find_by_pagemap(int pagemap, const char *address, uint64_t nbytes, Touched which, size_t limit,
                    std::vector<Range> *found, uint64_t *end) {
    uint64_t page = os_page_size();
    std::vector<uint64_t> entries(static_cast<size_t>(std::min<uint64_t>(nbytes / page, kPageEntries)));
    for (*end = 0; *end < nbytes;) {
        uint64_t index = (reinterpret_cast<uint64_t>(address) + *end) / page;
        uint64_t wanted = std::min<uint64_t>((nbytes - *end) / page, entries.size());
        ssize_t got = pread(pagemap, entries.data(), wanted * sizeof(uint64_t),
                            static_cast<off_t>(index * sizeof(uint64_t)));
        if (got <= 0)
            return got < 0 ? errno : EIO;
        size_t count = static_cast<size_t>(got) / sizeof(uint64_t);
        for (size_t i = 0; i < count; i++, *end += page) {
            uint64_t entry = entries[i];
            if (!(entry & (kPagePresent | kPageSwapped)) ||
                (which == Touched::OwnCopies && (entry & kPageFileOrShared)))
                continue;
            // The zero page looks like any other here. Pages of files can be gone by now.
            // SAFETY: the caller keeps the range mapped and readable, and *end < nbytes.
            if (which == Touched::OwnMemory && (entry & kPagePresent) && is_zero(address + *end))
                continue;
            if (found->size() == limit && found->back().stop != *end)
                return 0;
            append(found, {*end, *end + page});
        }
    }
    return 0;
}

// A descriptor whose position is nobody else's.
std::string own_path(int fd) { return "/proc/self/fd/" + std::to_string(fd); }

}  // namespace

int os_find_touched(const char *address, uint64_t nbytes, Touched which, int method, size_t limit,
                    std::vector<Range> *found, uint64_t *end) {
    int pagemap = open_pagemap();
    if (pagemap < 0) {  // no /proc: anything may be there
        found->push_back({0, nbytes});
        *end = nbytes;
        return 0;
    }
    if (method != SA_EXTENTS_PAGEMAP) {
        int error = find_by_scan(pagemap, reinterpret_cast<uint64_t>(address), nbytes, which,
                                 limit, found, end);
        if (error != ENOTTY || method == SA_EXTENTS_SCAN)
            return error == ENOTTY ? ENOTSUP : error;
    }
    return find_by_pagemap(pagemap, address, nbytes, which, limit, found, end);
}

bool os_is_served(int fd) {
    struct statfs fs;
    return fstatfs(fd, &fs) < 0 || static_cast<uint64_t>(fs.f_type) == kFuseMagic;
}

int os_find_data(int fd, Ask how, uint64_t start, uint64_t stop, size_t limit, std::vector<Range> *found,
                 uint64_t *end) {
    bool served = how != Ask::AtOnce && os_is_served(fd);
    bool seeks = how == Ask::AtOnce || (how == Ask::BySeeking && !served);
    Descriptor own(seeks || (served && how == Ask::Gently) ? nullptr : own_path(fd).c_str());
    int seekable = seeks ? fd : own.get();
    // Only the server knows the holes of a file in FUSE, and not what waits to be written to it. If that
    // fails, the error is told once for each opening of the file: this one is not that of flush.
    if (served && seekable >= 0)
        sync_file_range(seekable, static_cast<off_t>(start), static_cast<off_t>(stop - start),
                        SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                            SYNC_FILE_RANGE_WAIT_AFTER);
    for (*end = start; *end < stop && found->size() < limit;) {
        off_t data = seekable < 0 ? -1 : lseek(seekable, static_cast<off_t>(*end), SEEK_DATA);
        if (data < 0 && seekable >= 0 && errno == ENXIO)
            break;
        off_t hole = data < 0 ? -1 : lseek(seekable, data, SEEK_HOLE);
        if (data < 0 || hole <= data) {  // nobody tells, or it changes under our hands
            append(found, {*end, stop});
            *end = stop;
            break;
        }
        if (static_cast<uint64_t>(data) >= stop)
            break;
        *end = std::min(static_cast<uint64_t>(hole), stop);
        append(found, {static_cast<uint64_t>(data), *end});
    }
    if (found->size() < limit)
        *end = stop;
    return 0;
}

int os_will_need(int fd, uint64_t start, uint64_t nbytes) {
    return posix_fadvise(fd, static_cast<off_t>(start), static_cast<off_t>(nbytes), POSIX_FADV_WILLNEED);
}

void os_read_alone(int fd) { posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM); }

uint64_t os_read_ahead(int fd) {
    struct stat facts;
    if (fstat(fd, &facts) < 0)
        return 0;
    std::string device = std::to_string(major(facts.st_dev)) + ":" + std::to_string(minor(facts.st_dev));
    uint64_t kib = read_number(("/sys/class/bdi/" + device + "/read_ahead_kb").c_str());
    if (!kib)  // part of a disk
        kib = read_number(("/sys/dev/block/" + device + "/../queue/read_ahead_kb").c_str());
    return kib ? kib << 10 : kReadAhead;
}

uint64_t os_mappings_to_spare() {
    uint64_t limit = read_number("/proc/sys/vm/max_map_count"), used = 0;
    Descriptor maps("/proc/self/maps");
    if (!limit || maps.get() < 0)
        return limit ? 0 : UINT64_MAX / 2;
    std::vector<char> text(1 << 16);
    for (ssize_t got; (got = read(maps.get(), text.data(), text.size())) > 0;)
        used += static_cast<uint64_t>(std::count(text.data(), text.data() + got, '\n'));
    return limit / 2 > used ? limit / 2 - used : 0;
}

void os_begin_writing(int fd, uint64_t start, uint64_t nbytes) {
    sync_file_range(fd, static_cast<off_t>(start), static_cast<off_t>(nbytes), SYNC_FILE_RANGE_WRITE);
}

int os_punch_file(int fd, int64_t offset, uint64_t nbytes) {
    int error = errno_of(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset,
                                   static_cast<off_t>(nbytes)));
    // EPERM: sealed, or for appending only; what is mapped can be written all the same.
    return error == EOPNOTSUPP || error == ENOSYS || error == EPERM ? ENOTSUP : error;
}

int os_substitute(char *address, uint64_t nbytes, int prot, int spare, uint64_t spare_offset) {
    int flags = spare < 0 ? kPrivate | MAP_NORESERVE | MAP_FIXED : MAP_SHARED | MAP_FIXED;
    // SAFETY: the caller has found the pages in a region.
    void *at = mmap(address, nbytes, prot, flags, spare, static_cast<off_t>(spare_offset));
    return at == MAP_FAILED ? errno : 0;
}

int os_make_spare() {
    int fd = static_cast<int>(syscall(SYS_memfd_create, "sparsearray", 1u /* MFD_CLOEXEC */));
    if (fd >= 0 && ftruncate(fd, off_t{1} << 62) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

uint64_t os_hole_after(int fd, uint64_t start, uint64_t stop) {
    if (os_is_served(fd))
        return 0;
    // By hand: a signal handler must not call snprintf.
    char path[32] = "/proc/self/fd/";
    char digits[12], *digit = digits;
    for (int rest = fd; digit == digits || rest; rest /= 10)
        *digit++ = static_cast<char>('0' + rest % 10);
    for (char *to = path + strlen(path); digit > digits;)
        *to++ = *--digit;
    int own = open(path, O_RDONLY | O_CLOEXEC);
    if (own < 0)
        return 0;
    off_t data = lseek(own, static_cast<off_t>(start), SEEK_DATA);
    uint64_t end = data >= 0 ? std::min(static_cast<uint64_t>(data), stop) : errno == ENXIO ? stop : start;
    close(own);
    return end - start;
}

bool os_is_own_copy(const char *page) {
    int pagemap = open_pagemap();
    uint64_t entry = 0, index = reinterpret_cast<uint64_t>(page) / os_page_size();
    ssize_t got = pread(pagemap, &entry, sizeof entry, static_cast<off_t>(index * sizeof entry));
    return got == sizeof entry && (entry & (kPagePresent | kPageSwapped)) &&
           !(entry & kPageFileOrShared);
}

int64_t os_copy_quietly(void *to, const void *from, uint64_t nbytes, bool guarded_is_source) {
    // The side called remote is the one whose bad pages give EFAULT or a short count; the protection
    // that the pages have holds for this call as it does for an instruction.
    struct iovec local = {guarded_is_source ? to : const_cast<void *>(from), nbytes};
    struct iovec remote = {guarded_is_source ? const_cast<void *>(from) : to, nbytes};
    pid_t self = getpid();
    ssize_t moved = guarded_is_source ? process_vm_readv(self, &local, 1, &remote, 1, 0)
                                      : process_vm_writev(self, &local, 1, &remote, 1, 0);
    return moved < 0 ? -errno : moved;
}

}  // namespace sparsearray
