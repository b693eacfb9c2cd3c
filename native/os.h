// What the core asks of the operating system: the same functions in os_linux.cpp and os_posix.cpp.
//
// Functions return 0 or an errno value, ENOTSUP where the system has no such thing. Addresses and
// lengths are in whole pages.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <sys/types.h>
#include <unistd.h>
#include <vector>

namespace sparsearray {

struct Range {
    uint64_t start;
    uint64_t stop;
    uint64_t nbytes() const { return stop - start; }
};

struct OsFile {
    dev_t device;
    ino_t inode;
    bool is_regular;
    bool has_size;       // a regular file or a block device
    bool size_can_change;  // a regular file that is not sealed against shrinking
    bool can_fault;
    bool can_be_sealed;
    bool is_served;  // by another process, FUSE, or it may be
    bool may_have_holes;
    uint64_t size;
    uint64_t huge_page;  // its page size where it lives in hugetlbfs, else 0
};

uint64_t os_page_size();
// The largest page size of the system that is not larger than `nbytes`.
uint64_t os_alignment(uint64_t nbytes);

// Takes an inaccessible range whose start is a multiple of `alignment`.
int os_reserve(uint64_t nbytes, uint64_t alignment, char **ret);
int os_release(char *address, uint64_t nbytes);
// Lets the system join what will be mapped in a reservation into few mappings. Called while it is one
// hole, before a part of it is mapped.
int os_make_joinable(char *address);

// Replaces what is mapped at `address`, inside a reservation. On failure the old mapping stands.
int os_place(char *address, uint64_t nbytes, int prot, int flags, int fd, int64_t file_offset);
// The same on pages that are all holes, in half the time; but what is there after a failure is unknown.
int os_place_at_once(char *address, uint64_t nbytes, int prot, int flags, int fd, int64_t file_offset);
// The same as os_place with memory of the process's own, on pages that are all holes.
int os_place_on_hole(char *address, uint64_t nbytes, int prot);
// Replaces pages by memory of the process's own, with the same bytes in some runs of them, and zeros elsewhere. Runs
// are, as the range, in bytes from `base`. `copy`(to, from, nbytes) copies from there; false if it cannot: EIO.
int os_make_own(char *base, Range range, int prot, const std::vector<Range> &runs,
                const std::function<bool(char *, uint64_t, uint64_t)> &copy);
// How many bytes can be filled before memory runs out; UINT64_MAX where nobody tells.
uint64_t os_available_memory();
// Gives the pages back and makes the range inaccessible, but keeps it taken.
int os_make_hole(char *address, uint64_t nbytes);
int os_flags_private(bool reserve);
// The first of the mmap arguments that a reservation cannot take, by name into `ret`; false if none.
bool os_refuses_flags(int prot, int flags, char *ret, uint64_t nbytes);

int os_protect(char *address, uint64_t nbytes, int prot);
// Gives pages back: they read as zero, or from their file. ENOTSUP: map them anew instead.
int os_discard(char *address, uint64_t nbytes);
// Faults pages in, also in a signal handler. EFAULT: some page cannot be had; ENOTSUP: touch them instead.
int os_populate(char *address, uint64_t nbytes, bool write);
int os_advise(char *address, uint64_t nbytes, int advice);
// Lets a read-only range of zeros use huge zero pages; it is no error if it cannot.
void os_prefer_huge_zero(char *address, uint64_t nbytes);
int os_bind_numa(char *address, uint64_t nbytes, int node);
int os_set_name(char *address, uint64_t nbytes, const char *name);

// `like`: what is known of a file that was looked at just now, and may be on the same device; or null.
int os_describe_file(int fd, OsFile *ret, const OsFile *like = nullptr);
// Takes the disk space of a range that lies within the file.
int os_allocate(int fd, int64_t offset, uint64_t nbytes);

enum class Touched {
    OwnMemory,
    OwnCopies,  // of a file's window, those copied on write; none is read
    Present     // whatever is in memory and seen by the process; none is read
};
// Which pages may hold something, at most `limit` runs, added to `found` as offsets from `address`. `*end`
// is how far it looked. `method` is one of sa_extent_method.
int os_find_touched(const char *address, uint64_t nbytes, Touched which, int method, size_t limit,
                    std::vector<Range> *found, uint64_t *end);
// Whether the file lives in a file system of another process, FUSE, or may do so.
bool os_is_served(int fd);
// How a file can be asked: at once, by its own descriptor, which moves the position, where it is not served; so,
// unless it is; by opening it anew; or, as that has FUSE forget what it could not write, so only elsewhere.
enum class Ask { AtOnce, BySeeking, ByOpening, Gently };
// Which bytes of a file may hold something, at most `limit` runs, in bytes of the file. Where nobody can
// tell it is the whole range.
int os_find_data(int fd, Ask how, uint64_t start, uint64_t stop, size_t limit, std::vector<Range> *found,
                 uint64_t *end);
// Has the system begin to read a range of a file.
int os_will_need(int fd, uint64_t start, uint64_t nbytes);
// Has the system read nothing around what is read by a descriptor.
void os_read_alone(int fd);
// How many bytes the system reads around a page of a file that is looked at.
uint64_t os_read_ahead(int fd);
// How many mappings are left of the half of them that may serve to skip holes.
uint64_t os_mappings_to_spare();
// Has the disk begin to write what was written to a range of a file; it is no error if it cannot.
void os_begin_writing(int fd, uint64_t start, uint64_t nbytes);
// Makes a hole in a file. ENOTSUP where it cannot have holes.
int os_punch_file(int fd, int64_t offset, uint64_t nbytes);

// For signal handlers:
// Replaces pages inside a reservation, with those of a file in memory, or where `spare` is -1 with zeros.
int os_substitute(char *address, uint64_t nbytes, int prot, int spare, uint64_t spare_offset);
// A file in memory, as large as can be and empty; -1 where there is none.
int os_make_spare();
// How many bytes of a file from `start` on are a hole, up to `stop`; 0 where nobody can tell.
uint64_t os_hole_after(int fd, uint64_t start, uint64_t stop);

// Whether the page is memory of the process's own, copied on write from its file; false where nobody
// can tell.
bool os_is_own_copy(const char *page);

// Copies within the process without ever raising a signal. Bytes moved, or a negative errno.
int64_t os_copy_quietly(void *to, const void *from, uint64_t nbytes, bool guarded_is_source);

// Writes all bytes at a place of a file.
inline int write_all(int fd, const char *bytes, uint64_t n, uint64_t position) {
    while (n) {
        ssize_t done = pwrite(fd, bytes, n, static_cast<off_t>(position));
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return done < 0 ? errno : ENOSPC;
        bytes += done;
        position += static_cast<uint64_t>(done);
        n -= static_cast<uint64_t>(done);
    }
    return 0;
}

}  // namespace sparsearray
