// A file mapped read-only.
//
// Owns:    the mapping; what it hands out lives as long as it.
// Threads: reading is safe from any thread.
// Errors:  kIo (missing, unreadable, a folder).
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace cachalot::io {

class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const noexcept {
    return {static_cast<const std::byte*>(data_), size_};
  }
  // Takes the pages that have been read out of this process; the system keeps them while it has
  // room, and what is read again comes back.
  void forget_pages() const noexcept;

 private:
  void* data_ = nullptr;  // nullptr for an empty file
  std::size_t size_ = 0;
};

}  // namespace cachalot::io
