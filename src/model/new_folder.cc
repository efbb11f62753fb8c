#include "model/new_folder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "base/atomic_file.h"
#include "base/error.h"

namespace cachalot::model {

namespace fs = std::filesystem;

namespace {

[[noreturn]] void fail(const char* what, const fs::path& path, const std::error_code& error) {
  throw Error(Code::kIo, cat("cannot ", what, " ", path.string(), ": ", error.message(), "."));
}

// A disk that is full is found before hours of work, not after.
void require_room(const fs::path& folder, std::uint64_t bytes) {
  std::error_code error;
  const fs::space_info space = fs::space(folder, error);
  if (error || space.available >= bytes) return;
  throw Error(Code::kIo,
              cat(folder.string(), ": the new folder needs ", bytes, " bytes, but the disk has ",
                  space.available, " left. Free some, or write to another disk."));
}

}  // namespace

fs::path NewFolder::checked(const fs::path& target) {
  std::error_code error;
  fs::path clean = fs::absolute(target, error).lexically_normal();
  if (!clean.has_filename()) clean = clean.parent_path();
  if (!fs::exists(clean, error)) {
    // Found now, for a folder cannot be renamed onto a link when all is written.
    if (!fs::is_symlink(clean, error)) return clean;
    throw Error(Code::kUsage,
                cat(clean.string(), " is a link to ", fs::read_symlink(clean, error).string(),
                    ", where there is nothing. Make that folder, or name another target."));
  }
  // A link is followed: the folder is made beside what it names, and replaces that.
  if (const fs::path real = fs::canonical(clean, error); !error) clean = real;
  struct stat own = {}, above = {};
  if (::stat(clean.c_str(), &own) == 0 && ::stat(clean.parent_path().c_str(), &above) == 0 &&
      own.st_dev != above.st_dev) {
    throw Error(Code::kUsage, cat(clean.string(),
                                  " is where a disk is mounted, which a finished folder cannot "
                                  "replace. Name a folder inside it."));
  }
  const bool empty = fs::is_directory(clean, error) && fs::is_empty(clean, error);
  if (!empty || error) {
    throw Error(Code::kUsage, cat(clean.string(),
                                  " is there already and not an empty folder; "
                                  "nothing is written over. Name another target."));
  }
  return clean;
}

NewFolder::NewFolder(const fs::path& target, std::uint64_t bytes)
    : target_(checked(target)),
      path_(target_.parent_path() / cat(".", target_.filename().string(), ".tmp-", ::getpid())) {
  std::error_code error;
  fs::remove_all(path_, error);
  if (!fs::create_directories(path_, error) || error) fail("create the folder", path_, error);
  try {
    require_room(path_, bytes);
  } catch (...) {
    fs::remove_all(path_, error);
    throw;
  }
}

NewFolder::~NewFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

void NewFolder::commit(std::string_view config_json) {
  write_file_atomically(path_ / "config.json", config_json);
  sync_folder(path_);
  // Replaces an empty folder, and fails on one that has been filled meanwhile.
  std::error_code error;
  fs::rename(path_, target_, error);
  if (error) fail("rename to", target_, error);
  sync_folder(target_.parent_path());
}

void copy_whole_file(const fs::path& from, const fs::path& to) {
  std::error_code error;
  if (!fs::copy_file(from, to, error)) fail("copy a file to", to, error);
  const int fd = ::open(to.c_str(), O_RDONLY | O_CLOEXEC);
  const bool synced = fd >= 0 && ::fsync(fd) == 0;
  if (!synced) error = {errno, std::generic_category()};
  if (fd >= 0) ::close(fd);
  if (!synced) fail("write", to, error);
}

}  // namespace cachalot::model
