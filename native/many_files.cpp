// Many files at once: what there is at their paths, and windows of them side by side.
#include <cerrno>
#include <cstring>
#include <new>
#include <sys/stat.h>
#include <unistd.h>

#include "mapping.h"

using namespace sparsearray;

namespace {

// Closes it at the end of a scope.
struct Descriptor {
    int fd;
    ~Descriptor() {
        if (fd >= 0)
            close(fd);
    }
};

int64_t size_at(const char *name) {
    struct stat st;
    if (stat(name, &st) < 0)
        return -errno;
    return S_ISREG(st.st_mode) ? st.st_size : S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
}

// The first bytes of a file, which stay zero where they are in a hole: to read one would fill the cache.
ssize_t read_start(int fd, const OsFile &facts, char (&start)[8]) {
    if (facts.may_have_holes) {
        if (os_hole_after(fd, 0, sizeof start))
            return 0;
        os_read_alone(fd);
    }
    return pread(fd, start, sizeof start, 0);
}

}  // namespace

void sa_look_at_files(const char *names, uint64_t count, int64_t *sizes) {
    for (uint64_t i = 0; i < count; i++, names += strlen(names) + 1)
        sizes[i] = size_at(names);
}

int sa_map_files(sa_reservation *r, const char *names, const int64_t *places, uint64_t count, int mode,
                 int skip_holes, int look, sa_found_file *found, sa_report *ret) try {
    OsFile facts = {};
    for (uint64_t i = 0; i < count; i++, places += 3, found++, names += strlen(names) + 1) {
        ret->value = i;
        Descriptor file{open_file(names, mode == SA_FILE_WRITE)};
        if (file.fd < 0)
            return system_error(errno, names, ret);
        Exclusive lock(r->lock);
        Range range;
        if (int code = check_change(r, places[0], places[1], Pins::Any, &range, ret))
            return code;
        MapRequest request =
            file_request(range, file.fd, names, SA_DESCRIPTOR_BY_NAME, places[2], mode, skip_holes);
        request.facts = facts;
        if (int code = map_as_asked(r, request, ret))
            return code;
        facts = request.facts;
        found->device = facts.device;
        found->inode = facts.inode;
        found->nbytes = facts.size;
        if (look && read_start(file.fd, facts, found->start) < 0)
            return system_error(errno, names, ret);
    }
    return SA_OK;
} catch (const std::bad_alloc &) {
    return system_error(ENOMEM, "", ret);
}
