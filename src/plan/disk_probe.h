// How fast a disk takes and gives: a file written until it is safe, and read back past the page
// cache.
//
// Owns:    the file while it is measured; it has no name by then.
// Threads: one caller.
// Errors:  kIo, naming folder and reason; also where the disk has too little room.
#pragma once

#include <cstdint>
#include <filesystem>

namespace cachalot::plan {

struct DiskSpeed {
  double read_mbps = 0;  // 1e6 bytes per second
  double write_mbps = 0;
};
DiskSpeed measure_disk(const std::filesystem::path& folder, std::uint64_t bytes);

}  // namespace cachalot::plan
