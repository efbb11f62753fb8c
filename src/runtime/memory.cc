#include "runtime/memory.h"

#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
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

HugePages huge_pages(const std::filesystem::path& root) {
  HugePages pages;
  const std::filesystem::path folder = root / "sys/kernel/mm/transparent_hugepage";
  std::ifstream enabled(folder / "enabled");
  for (std::string word; enabled >> word;) {  // "always [madvise] never"
    if (word.size() > 2 && word.front() == '[') pages.transparent = word.substr(1, word.size() - 2);
  }
  std::ifstream(folder / "hpage_pmd_size") >> pages.page_bytes;
  std::ifstream usage(root / "proc/self/smaps_rollup");
  for (std::string line; std::getline(usage, line);) {
    if (line.starts_with("AnonHugePages:")) {
      pages.in_use = std::strtoull(line.c_str() + sizeof("AnonHugePages:"), nullptr, 10) << 10;
    }
  }
  return pages;
}

std::size_t available_memory() {
  const std::size_t bytes = std::min(system_available(), group_available());
  return bytes == kUnknown ? 0 : bytes;
}

std::size_t total_memory() {
  const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  const bool known = pages > 0 && page > 0;
  const std::size_t machine =
      known ? static_cast<std::size_t>(pages) * static_cast<std::size_t>(page) : kUnknown;
  const std::size_t bytes = std::min(machine, number_in("/sys/fs/cgroup/memory.max"));
  return bytes == kUnknown ? 0 : bytes;
}

MemoryUse memory_use() {
  MemoryUse use;
  std::ifstream file("/proc/self/statm");
  std::size_t pages = 0, resident = 0, shared = 0;
  if (file >> pages >> resident >> shared) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    use.resident = resident * page;
    use.anonymous = (resident - std::min(resident, shared)) * page;
  }
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
  const struct mallinfo2 info = mallinfo2();  // arenas, and blocks with a mapping of their own
  use.heap = info.uordblks + info.hblkhd;
  use.heap_free = info.fordblks;
#endif
  return use;
}

}  // namespace cachalot::runtime
