// How much memory a program may still take, and in which pages it lies.
//
// Threads: any.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>

namespace cachalot {
class Device;
}

namespace cachalot::runtime {

// Bytes that can be taken without pushing anything out: what the system counts as available, or
// what the control group of this process leaves, whichever is less; 0 where neither is known.
std::size_t available_memory();
// Likewise of a device's memory; null: the host's.
std::size_t available_memory(const Device* device);
// All that this process could ever have, in use or not: the machine's, or its control group's limit
// where that is less; 0 where neither is known.
std::size_t total_memory();

// This process in memory, in bytes; 0 where the system does not say.
struct MemoryUse {
  std::size_t resident = 0;
  std::size_t anonymous = 0;  // of it, what is its own: not the pages of mapped files
  std::size_t heap = 0;       // what malloc has given out and not got back (glibc's counts)
  std::size_t heap_free = 0;  // what it got back and keeps, between what it has given out
};
MemoryUse memory_use();

// Transparent huge pages: what large buffers (tensor/mat.h) ask for with madvise.
struct HugePages {
  std::string transparent;  // "always", "madvise", "never"; empty: this system has none
  std::size_t page_bytes = 0;
  std::size_t in_use = 0;  // bytes of this process that lie in them
  bool allowed() const noexcept { return transparent == "always" || transparent == "madvise"; }
};
// Below `root` lie /sys/kernel/mm and /proc/self.
HugePages huge_pages(const std::filesystem::path& root = "/");

}  // namespace cachalot::runtime
