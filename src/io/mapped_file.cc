#include "io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "base/error.h"

namespace cachalot::io {

[[noreturn]] static void fail(const std::filesystem::path& path, int error) {
  throw Error(Code::kIo, cat("cannot open ", path.string(), ": ",
                             std::generic_category().message(error), "."));
}

MappedFile::MappedFile(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail(path, errno);
  struct stat info {};
  int error = ::fstat(fd, &info) != 0 ? errno : 0;
  // Only a plain file keeps the size it has shown.
  if (error == 0 && !S_ISREG(info.st_mode)) error = S_ISDIR(info.st_mode) ? EISDIR : EINVAL;
  if (error == 0 && info.st_size > 0) {
    size_ = static_cast<std::size_t>(info.st_size);
    // Pages come when they are touched, shared with the page cache. No MADV_WILLNEED: it would
    // queue the reading of all of a large model before `open` returns; default read-ahead is enough
    // for weights, which are read in long runs. No MADV_POPULATE_READ: it takes at once the time
    // that the first pass saves; no MADV_HUGEPAGE: file systems do not give any (both measured,
    // docs/performance.md).
    void* p = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) {
      error = errno;
    } else {
      data_ = p;
      ::madvise(p, size_, MADV_DONTDUMP);  // a core dump need not hold the model
    }
  }
  ::close(fd);
  if (error != 0) fail(path, error);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

void MappedFile::forget_pages() const noexcept {
  if (data_ != nullptr) ::madvise(data_, size_, MADV_DONTNEED);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

}  // namespace cachalot::io
