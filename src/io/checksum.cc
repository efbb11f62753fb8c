#include "io/checksum.h"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <cerrno>
#include <cstdio>
#include <memory>
#include <system_error>
#include <vector>

#include "base/error.h"

namespace cachalot::io {

namespace {

std::string hex(const XXH128_hash_t& hash) {
  char text[33];
  std::snprintf(text, sizeof text, "%016llx%016llx", static_cast<unsigned long long>(hash.high64),
                static_cast<unsigned long long>(hash.low64));
  return text;
}

struct FreeState {
  void operator()(XXH3_state_t* state) const noexcept { XXH3_freeState(state); }
};

struct ReadOnly {
  explicit ReadOnly(const std::filesystem::path& path)
      : fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
  ~ReadOnly() {
    if (fd >= 0) ::close(fd);
  }
  ReadOnly(const ReadOnly&) = delete;
  ReadOnly& operator=(const ReadOnly&) = delete;
  int fd;
};

[[noreturn]] void fail(const std::filesystem::path& path, int error) {
  throw Error(Code::kIo, cat("cannot read ", path.string(), ": ",
                             std::generic_category().message(error), "."));
}

}  // namespace

std::string xxh3_128(std::span<const std::byte> data) {
  return hex(XXH3_128bits(data.data(), data.size()));
}

// read(2), not a mapping: a file that shrinks under a mapping kills its reader.
FileChecksum file_checksum(const std::filesystem::path& path) {
  const ReadOnly file(path);
  if (file.fd < 0) fail(path, errno);
  const std::unique_ptr<XXH3_state_t, FreeState> state(XXH3_createState());
  if (!state) throw std::bad_alloc();
  XXH3_128bits_reset(state.get());
  FileChecksum sum;
  std::vector<char> buffer(1 << 20);
  for (;;) {
    const ssize_t got = ::read(file.fd, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(path, errno);
    if (got == 0) break;
    XXH3_128bits_update(state.get(), buffer.data(), static_cast<std::size_t>(got));
    sum.bytes += static_cast<std::uint64_t>(got);
  }
  sum.xxh3_128 = hex(XXH3_128bits_digest(state.get()));
  return sum;
}

}  // namespace cachalot::io
