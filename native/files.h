// The files that a reservation has windows of: one descriptor each, however many windows, or none.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "core.h"
#include "os.h"

namespace sparsearray {

// Of a file that does not say: it has lost nothing that anybody knows of.
constexpr uint64_t kUnknownSize = UINT64_MAX;

// The descriptor of a file, for as long as a statement: that which is kept, or one that is opened by name.
class Borrowed {
  public:
    Borrowed(int fd, bool is_own) : fd_(fd), is_own_(is_own) {}
    ~Borrowed();
    Borrowed(const Borrowed &) = delete;
    Borrowed &operator=(const Borrowed &) = delete;
    operator int() const { return fd_; }

  private:
    int fd_;
    bool is_own_;
};

class File {
  public:
    // `fd` -1: it is opened by its name.
    File(int fd, const OsFile &facts, bool own_position, bool writable, const char *name, uint64_t id);
    ~File();
    File(const File &) = delete;
    File &operator=(const File &) = delete;

    // -1 and errno where the file is opened by its name, and that leads to another one by now (ESTALE), or to
    // none. For signal handlers, too.
    Borrowed fd() const;
    bool is_kept() const { return fd_ >= 0; }
    bool writable() const { return writable_; }
    bool size_can_change() const { return size_can_change_; }
    const std::string &name() const { return name_; }
    uint64_t id() const { return id_; }
    dev_t device() const { return device_; }
    ino_t inode() const { return inode_; }
    // One of sa_descriptor.
    int descriptor() const {
        return !is_kept() ? SA_DESCRIPTOR_BY_NAME : own_position_ ? SA_DESCRIPTOR_OWN : SA_DESCRIPTOR_SHARED;
    }
    Ask ask() const {
        return !own_position_ ? Ask::ByOpening : served_ ? Ask::BySeeking : Ask::AtOnce;
    }
    // As far as this process knows; others may have made some since.
    bool may_have_holes() const { return may_have_holes_; }
    void note_holes() { may_have_holes_ = true; }
    // As the file system has it now.
    uint64_t size_now() const;
    // Somebody is told that it became shorter, or was told, and it is as long as it was then.
    void tell_size() { told_size_ = size_now(); }
    void forget_told() { told_size_ = kUnknownSize; }  // for a window that is made anew
    bool is_told(uint64_t size) const { return size >= told_size_ && size != kUnknownSize; }
    // Goes over to a descriptor that may write, under the number it had, if one is kept.
    int make_writable(int fd, bool own_position);

  private:
    int fd_;
    dev_t device_;
    ino_t inode_;
    std::atomic<bool> own_position_;  // a signal handler may ask for the size
    bool writable_;
    bool size_can_change_;
    bool served_;  // by another process
    std::atomic<bool> may_have_holes_;
    std::string name_;
    uint64_t id_;
    std::atomic<uint64_t> told_size_{UINT64_MAX};
};

// For reading, or both. -1 and errno.
int open_file(const char *path, bool writable);

class FileSet {
  public:
    // The File for the inode behind `fd`, made if it is new. `descriptor` is one of sa_descriptor, and `facts`
    // are about `fd`. 0 or an errno.
    int acquire(int fd, const char *name, int descriptor, bool write, const OsFile &facts,
                std::shared_ptr<File> *ret);

  private:
    void drop_expired();

    std::map<std::pair<dev_t, ino_t>, std::weak_ptr<File>> files_;
    size_t most_ = 16;  // of them, before those that are gone are looked for
    uint64_t last_id_ = 0;
};

}  // namespace sparsearray
