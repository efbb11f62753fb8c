// Files that are whole or not there: written beside, synced, renamed; and a lock that says who
// holds it.
//
// Owns:    AtomicFile its temporary file until commit; FileLock its open file.
// Threads: each object belongs to one thread.
// Errors:  kIo with the path and what the system said (missing, full disk, permission); kBusy from
//          FileLock. Whatever fails, the target keeps its old bytes and the temporary is removed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace cachalot {

// Bytes go to a temporary file in the target's folder; `commit` makes them the target. A link is
// followed: what it names is replaced, or made. A target that is neither a file nor absent (a
// device, a pipe) gets the bytes at once and stays what it is.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path target);
  ~AtomicFile();  // without a commit: removes the temporary
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, std::size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void commit();  // fsync, rename over the target, fsync of the folder

 private:
  void open_directly();

  std::filesystem::path target_;
  std::filesystem::path temporary_;
  bool direct_ = false;  // no temporary
  int fd_ = -1;
};

void write_file_atomically(const std::filesystem::path& path, std::string_view bytes);

// Removes what processes that were killed while they wrote `target` have left beside it. The caller
// sees to it that nobody writes it now.
void remove_leftovers(const std::filesystem::path& target);

// Makes renames, creations and removals in `folder` survive a power loss.
void sync_folder(const std::filesystem::path& folder);

// The whole file; kFormat where it is longer than `max_bytes`.
std::string read_file(const std::filesystem::path& path, std::uint64_t max_bytes);

// Held by at most one process (or one object of a process) at a time; the system releases it when
// its holder dies, however it dies. The file itself stays.
class FileLock {
 public:
  explicit FileLock(const std::filesystem::path& path);  // kBusy names the holder's process id
  ~FileLock();
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&& other) noexcept;

 private:
  int fd_ = -1;
};

}  // namespace cachalot
