// Checksums of files: XXH3, 128 bits, as 32 hexadecimal digits. Against damage, not against malice.
//
// Threads: plain functions.
// Errors:  kIo.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace cachalot::io {

struct FileChecksum {
  std::uint64_t bytes = 0;
  std::string xxh3_128;
  bool operator==(const FileChecksum&) const = default;
};

std::string xxh3_128(std::span<const std::byte> data);
FileChecksum file_checksum(const std::filesystem::path& path);

}  // namespace cachalot::io
