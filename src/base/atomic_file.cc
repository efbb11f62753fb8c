#include "base/atomic_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <system_error>
#include <utility>

#include "base/error.h"

namespace cachalot {

namespace fs = std::filesystem;

namespace {

[[noreturn]] void fail(const std::string& what, const fs::path& path, int error) {
  std::string advice;
  if (error == ENOSPC || error == EDQUOT) advice = " Free some space and run again.";
  if (error == EFBIG) advice = " Raise the file size limit (ulimit -f) and run again.";
  throw Error(Code::kIo, cat(what, " ", path.string(), ": ", std::generic_category().message(error),
                             ".", advice));
}

fs::path folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

// What the names of its temporary files begin with.
std::string temporary_prefix(const fs::path& target) {
  return cat(".", target.filename().string(), ".tmp-");
}

// Closes on every way out.
struct Descriptor {
  int fd;
  explicit Descriptor(int f) : fd(f) {}
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
};

// What `path` names in the end: links are followed one by one, since the last may name nothing yet.
fs::path follow_links(const fs::path& path) {
  constexpr int kMostLinks = 40;  // as the system
  fs::path at = path;
  for (int i = 0; i < kMostLinks; ++i) {
    std::error_code error;
    const fs::path next = fs::read_symlink(at, error);
    if (error) return at;  // no link; whatever else is wrong shows where it is opened
    at = folder_of(at) / next;
  }
  fail("cannot write", path, ELOOP);
}

// A device or a pipe is written as it is: renamed over, it would be gone.
bool is_written_directly(const fs::path& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode);
}

}  // namespace

AtomicFile::AtomicFile(fs::path target)
    : target_(std::move(target)), direct_(is_written_directly(target_)) {
  if (direct_) {
    if (::access(target_.c_str(), W_OK) != 0) fail("cannot write", target_, errno);
    return;
  }
  target_ = follow_links(target_);
  static std::atomic<std::uint64_t> serial{0};
  // A name left behind by a killed process with the same id is stepped over, never reused.
  for (int attempt = 0; attempt < 1000; ++attempt) {
    temporary_ =
        folder_of(target_) / cat(temporary_prefix(target_), ::getpid(), "-", serial.fetch_add(1));
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ >= 0 || errno != EEXIST) break;
  }
  if (fd_ < 0) fail("cannot create a file beside", target_, errno);
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  if (!direct_) ::unlink(temporary_.c_str());
}

// As late as the first byte: a pipe's reader takes the end of a mere trial for the end of the data.
void AtomicFile::open_directly() {
  if (fd_ >= 0) return;
  fd_ = ::open(target_.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd_ < 0) fail("cannot write", target_, errno);
}

void AtomicFile::write(const void* data, std::size_t bytes) {
  if (direct_) open_directly();
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t done = ::write(fd_, next, bytes);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail("cannot write", target_, errno);
    next += done;
    bytes -= static_cast<std::size_t>(done);
  }
}

void AtomicFile::commit() {
  if (direct_) {
    open_directly();
    if (::close(std::exchange(fd_, -1)) != 0) fail("cannot write", target_, errno);
    return;
  }
  if (::fsync(fd_) != 0) fail("cannot write", target_, errno);
  const int fd = std::exchange(fd_, -1);
  // close may report a delayed write error of a network file system.
  if (::close(fd) != 0 || ::rename(temporary_.c_str(), target_.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary_.c_str());
    fail("cannot write", target_, error);
  }
  sync_folder(folder_of(target_));
}

void write_file_atomically(const fs::path& path, std::string_view bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}

void remove_leftovers(const fs::path& link) {
  const fs::path target = follow_links(link);
  const std::string prefix = temporary_prefix(target);
  std::error_code ignored;  // what cannot be removed does no harm but takes its room
  for (fs::directory_iterator it(folder_of(target), ignored), end; !ignored && it != end;
       it.increment(ignored)) {
    if (it->path().filename().string().starts_with(prefix)) ::unlink(it->path().c_str());
  }
}

void sync_folder(const fs::path& folder) {
  const Descriptor d(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (d.fd < 0) fail("cannot open the folder", folder, errno);
  // Some file systems cannot sync a folder and say EINVAL; nothing is left to do there.
  if (::fsync(d.fd) != 0 && errno != EINVAL) fail("cannot sync the folder", folder, errno);
}

std::string read_file(const fs::path& path, std::uint64_t max_bytes) {
  const Descriptor d(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (d.fd < 0) fail("cannot open", path, errno);
  struct stat info {};
  if (::fstat(d.fd, &info) != 0) fail("cannot read", path, errno);
  if (S_ISDIR(info.st_mode)) fail("cannot read", path, EISDIR);
  std::string bytes;
  // The size is a hint only: a pipe has none, and a file may grow while it is read.
  if (info.st_size > 0 && static_cast<std::uint64_t>(info.st_size) <= max_bytes) {
    bytes.reserve(static_cast<std::size_t>(info.st_size));
  }
  char buffer[1 << 16];
  for (;;) {
    const ssize_t got = ::read(d.fd, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("cannot read", path, errno);
    if (got == 0) return bytes;
    if (bytes.size() + static_cast<std::size_t>(got) > max_bytes) {
      throw Error(Code::kFormat, cat(path.string(), " is longer than the ", max_bytes,
                                     " bytes such a file may have"));
    }
    bytes.append(buffer, static_cast<std::size_t>(got));
  }
}

FileLock::FileLock(const fs::path& path) {
  Descriptor d(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
  if (d.fd < 0) fail("cannot open the lock", path, errno);
  while (::flock(d.fd, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    if (error == EINTR) continue;
    if (error != EWOULDBLOCK) fail("cannot lock", path, error);
    char text[32] = {};
    const ssize_t got = ::pread(d.fd, text, sizeof text - 1, 0);
    std::string holder(text, got > 0 ? static_cast<std::size_t>(got) : 0);
    holder.erase(holder.find_last_not_of(" \n") + 1);
    throw Error(Code::kBusy,
                cat(path.string(), " is held by ",
                    holder.empty() ? std::string("another process") : "process " + holder,
                    ". Wait until it ends, or stop it."));
  }
  const std::string pid = cat(::getpid(), "\n");
  if (::ftruncate(d.fd, 0) != 0 ||
      ::pwrite(d.fd, pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
    fail("cannot write the lock", path, errno);
  }
  fd_ = std::exchange(d.fd, -1);
}

FileLock::~FileLock() {
  if (fd_ < 0) return;
  // Best effort: an empty file says that nobody holds it; the lock itself goes with the descriptor.
  [[maybe_unused]] const int ignored = ::ftruncate(fd_, 0);
  ::close(fd_);
}

FileLock::FileLock(FileLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

FileLock& FileLock::operator=(FileLock&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

}  // namespace cachalot
