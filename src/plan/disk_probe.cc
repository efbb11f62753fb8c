#include "plan/disk_probe.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <vector>

#include "base/error.h"

namespace cachalot::plan {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kPiece = std::size_t{4} << 20;

[[noreturn]] void fail(const std::filesystem::path& folder, const char* what) {
  throw Error(Code::kIo, cat(folder.string(), ": cannot ", what, " a file to measure the disk: ",
                             std::strerror(errno), "; name another folder with --disk"));
}

class File {
 public:
  explicit File(const std::filesystem::path& folder) {
    std::string name = (folder / ".cachalot-probe-XXXXXX").string();
    fd_ = ::mkstemp(name.data());
    if (fd_ < 0) fail(folder, "create");
    ::unlink(name.c_str());
  }
  ~File() { ::close(fd_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int fd() const noexcept { return fd_; }

 private:
  int fd_ = -1;
};

double since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

}  // namespace

DiskSpeed measure_disk(const std::filesystem::path& folder, std::uint64_t bytes) {
  const File file(folder);
  std::vector<char> piece(kPiece);
  // Nothing that compresses.
  std::uint64_t state = 88172645463325252u;
  for (char& c : piece) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    c = static_cast<char>(state >> 56);
  }
  DiskSpeed speed;
  auto begin = Clock::now();
  for (std::uint64_t at = 0; at < bytes;) {
    const ssize_t n = ::write(file.fd(), piece.data(), piece.size());
    if (n <= 0) fail(folder, "write");
    at += static_cast<std::uint64_t>(n);
  }
  if (::fsync(file.fd()) != 0) fail(folder, "sync");
  speed.write_mbps = 1e-6 * static_cast<double>(bytes) / since(begin);
  ::posix_fadvise(file.fd(), 0, 0, POSIX_FADV_DONTNEED);
  begin = Clock::now();
  for (std::uint64_t at = 0; at < bytes;) {
    const ssize_t n = ::pread(file.fd(), piece.data(), piece.size(), static_cast<off_t>(at));
    if (n <= 0) fail(folder, "read");
    at += static_cast<std::uint64_t>(n);
  }
  speed.read_mbps = 1e-6 * static_cast<double>(bytes) / since(begin);
  return speed;
}

}  // namespace cachalot::plan
