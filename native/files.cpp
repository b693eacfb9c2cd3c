#include "files.h"

#include <cerrno>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "reservation.h"

namespace sparsearray {

int open_file(const char *path, bool writable) {
    // NONBLOCK: opening a FIFO must not wait for its other end; a regular file does not care.
    int fd, flags = (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    do
        fd = open(path, flags);
    while (fd < 0 && errno == EINTR);
    return fd;
}

Borrowed::~Borrowed() {
    if (is_own_ && fd_ >= 0)
        close(fd_);
}

File::File(int fd, const OsFile &facts, bool own_position, bool writable, const char *name, uint64_t id)
    : fd_(fd), device_(facts.device), inode_(facts.inode), own_position_(own_position), writable_(writable),
      size_can_change_(facts.size_can_change), served_(facts.is_served), may_have_holes_(facts.may_have_holes),
      name_(name), id_(id) {}

File::~File() {
    if (fd_ >= 0)
        close(fd_);
}

Borrowed File::fd() const {
    if (fd_ >= 0)
        return Borrowed(fd_, false);
    struct stat st;
    int fd = open_file(name_.c_str(), writable_);
    if (fd >= 0 && (fstat(fd, &st) < 0 || st.st_dev != device_ || st.st_ino != inode_)) {
        close(fd);
        fd = -1;
        errno = ESTALE;
    }
    return Borrowed(fd, true);
}

uint64_t File::size_now() const {
    // By its name while that leads to it, which is half the work of opening it.
    struct stat st;
    if (fd_ < 0)
        return stat(name_.c_str(), &st) < 0 || st.st_dev != device_ || st.st_ino != inode_
                   ? kUnknownSize
                   : static_cast<uint64_t>(st.st_size);
    // lseek takes a third of the time of fstat, but would move the position of a descriptor that
    // shares its description with one of the user's.
    if (own_position_) {
        off_t end = lseek(fd_, 0, SEEK_END);
        return end < 0 ? kUnknownSize : static_cast<uint64_t>(end);
    }
    return fstat(fd_, &st) < 0 ? kUnknownSize : static_cast<uint64_t>(st.st_size);
}

int File::make_writable(int fd, bool own_position) {
    if (fd_ < 0) {
        writable_ = true;
        return 0;
    }
    bool before = own_position_.exchange(false);  // true for neither, while it is not clear which it is
    if (dup3(fd, fd_, O_CLOEXEC) < 0) {
        own_position_ = before;
        return errno;
    }
    own_position_ = own_position;
    writable_ = true;
    return 0;
}

void FileSet::drop_expired() {
    if (files_.size() < most_)
        return;
    for (auto it = files_.begin(); it != files_.end();)
        it = it->second.expired() ? files_.erase(it) : std::next(it);
    most_ = 2 * files_.size() + 16;
}

int FileSet::acquire(int fd, const char *name, int descriptor, bool write, const OsFile &facts,
                     std::shared_ptr<File> *ret) {
    bool can_write = write, by_name = descriptor == SA_DESCRIPTOR_BY_NAME;
    if (!by_name) {
        int mode = fcntl(fd, F_GETFL);
        if (mode < 0)
            return errno;
        can_write = (mode & O_ACCMODE) == O_RDWR;
        if ((mode & O_ACCMODE) == O_WRONLY || (write && !can_write))
            return EACCES;
    }
    drop_expired();
    bool own_position = descriptor != SA_DESCRIPTOR_SHARED;
    auto &slot = files_[{facts.device, facts.inode}];
    auto known = slot.lock();
    if (known && (by_name || known->is_kept())) {
        *ret = known;
        if (facts.may_have_holes)
            known->note_holes();
        return can_write && !known->writable() ? known->make_writable(fd, own_position) : 0;
    }
    int kept = by_name ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (kept < 0 && !by_name)
        return errno;
    try {
        slot = *ret = std::make_shared<File>(kept, facts, own_position, can_write, name, ++last_id_);
    } catch (...) {
        if (kept >= 0)
            close(kept);
        throw;
    }
    return 0;
}

}  // namespace sparsearray

int sa_open_file(const char *path, int writable, int *fd, sa_report *ret) {
    *fd = sparsearray::open_file(path, writable);
    return *fd < 0 ? sparsearray::system_error(errno, path, ret) : SA_OK;
}

void sa_close_file(int *fd) {
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}
