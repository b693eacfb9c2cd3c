#include "files.h"

#include <cerrno>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "reservation.h"

namespace sparsearray {

File::File(int fd, const OsFile &facts, bool own_position, bool writable, const char *name,
           uint64_t id)
    : fd_(fd), own_position_(own_position), writable_(writable),
      size_can_change_(facts.size_can_change), served_(os_is_served(fd)), name_(name), id_(id) {}

File::~File() { close(fd_); }

uint64_t File::size_now() const {
    // lseek takes a third of the time of fstat, but would move the position of a descriptor that
    // shares its description with one of the user's.
    if (own_position_) {
        off_t end = lseek(fd_, 0, SEEK_END);
        return end < 0 ? kUnknownSize : static_cast<uint64_t>(end);
    }
    struct stat st;
    return fstat(fd_, &st) < 0 ? kUnknownSize : static_cast<uint64_t>(st.st_size);
}

int File::make_writable(int fd, bool own_position) {
    bool before = own_position_.exchange(false);  // true for neither, while it is not clear which it is
    if (dup3(fd, fd_, O_CLOEXEC) < 0) {
        own_position_ = before;
        return errno;
    }
    own_position_ = own_position;
    writable_ = true;
    return 0;
}

int FileSet::acquire(int fd, const char *name, bool own_position, bool write, const OsFile &facts,
                     std::shared_ptr<File> *ret) {
    int mode = fcntl(fd, F_GETFL);
    if (mode < 0)
        return errno;
    bool can_write = (mode & O_ACCMODE) == O_RDWR;
    if ((mode & O_ACCMODE) == O_WRONLY || (write && !can_write))
        return EACCES;
    for (auto it = files_.begin(); it != files_.end();)
        it = it->second.expired() ? files_.erase(it) : std::next(it);
    auto &slot = files_[{facts.device, facts.inode}];
    if (auto known = slot.lock()) {
        *ret = known;
        return can_write && !known->writable() ? known->make_writable(fd, own_position) : 0;
    }
    int kept = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (kept < 0)
        return errno;
    try {
        slot = *ret = std::make_shared<File>(kept, facts, own_position, can_write, name, ++last_id_);
    } catch (...) {
        close(kept);
        throw;
    }
    return 0;
}

}  // namespace sparsearray

int sa_open_file(const char *path, int writable, int *fd, sa_report *ret) {
    // NONBLOCK: opening a FIFO must not wait for its other end; a regular file does not care.
    int flags = (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    do
        *fd = open(path, flags);
    while (*fd < 0 && errno == EINTR);
    return *fd < 0 ? sparsearray::system_error(errno, path, ret) : SA_OK;
}

void sa_close_file(int *fd) {
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}
