// The files that a reservation has windows of: one descriptor each, however many windows.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "os.h"

namespace sparsearray {

class File {
  public:
    File(int fd, const OsFile &facts, bool own_position, bool writable, const char *name,
         uint64_t id);
    ~File();
    File(const File &) = delete;
    File &operator=(const File &) = delete;

    int fd() const { return fd_; }
    bool writable() const { return writable_; }
    bool size_can_change() const { return size_can_change_; }
    const std::string &name() const { return name_; }
    uint64_t id() const { return id_; }
    bool own_position() const { return own_position_; }
    // As the file system has it now.
    uint64_t size_now() const;
    // Goes over to a descriptor that may write, under the number it had.
    int make_writable(int fd, bool own_position);

  private:
    int fd_;
    bool own_position_;
    bool writable_;
    bool size_can_change_;
    std::string name_;
    uint64_t id_;
};

class FileSet {
  public:
    // The File for the inode behind `fd`, made if it is new. `facts` are about `fd`. 0 or an errno.
    int acquire(int fd, const char *name, bool own_position, bool write, const OsFile &facts,
                std::shared_ptr<File> *ret);

  private:
    std::map<std::pair<dev_t, ino_t>, std::weak_ptr<File>> files_;
    uint64_t last_id_ = 0;
};

}  // namespace sparsearray
