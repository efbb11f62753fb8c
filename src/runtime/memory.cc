#include "runtime/memory.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

namespace cachalot::runtime {

namespace {

constexpr std::size_t kUnknown = std::numeric_limits<std::size_t>::max();

std::size_t system_available() {
  std::ifstream in("/proc/meminfo");
  std::string key, unit;
  std::size_t kib = 0;
  while (in >> key >> kib) {
    if (key == "MemAvailable:") return kib << 10;
    std::getline(in, unit);
  }
  return kUnknown;
}

std::size_t number_in(const char* path) {
  std::ifstream in(path);
  std::size_t value = kUnknown;  // "max" is no number
  return in >> value ? value : kUnknown;
}

std::size_t group_available() {
  const std::size_t limit = number_in("/sys/fs/cgroup/memory.max");
  const std::size_t used = number_in("/sys/fs/cgroup/memory.current");
  if (limit == kUnknown || used == kUnknown) return kUnknown;
  return limit - std::min(limit, used);
}

}  // namespace

std::size_t available_memory() {
  const std::size_t bytes = std::min(system_available(), group_available());
  return bytes == kUnknown ? 0 : bytes;
}

std::size_t resident_memory() {
  std::ifstream file("/proc/self/statm");
  std::size_t pages = 0, resident = 0;
  if (!(file >> pages >> resident)) return 0;
  return resident * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace cachalot::runtime
