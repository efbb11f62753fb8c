#include "base/memory_homes.h"

#include <algorithm>

namespace cachalot {

void MemoryHomes::add(const void* begin, std::size_t bytes, int home) {
  const auto at = reinterpret_cast<std::uintptr_t>(begin);
  ranges_.push_back({at, at + bytes, home});
}

void MemoryHomes::finish() {
  std::sort(ranges_.begin(), ranges_.end(),
            [](const Range& a, const Range& b) { return a.begin < b.begin; });
}

int MemoryHomes::home_of(const void* at) const noexcept {
  const auto address = reinterpret_cast<std::uintptr_t>(at);
  const auto above =
      std::upper_bound(ranges_.begin(), ranges_.end(), address,
                       [](std::uintptr_t a, const Range& range) { return a < range.begin; });
  if (above == ranges_.begin()) return -1;
  const Range& range = *std::prev(above);
  return address < range.end ? range.home : -1;
}

}  // namespace cachalot
