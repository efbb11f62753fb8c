// Which NUMA node memory lies on: a hint that lets a thread take the work whose operands are near.
//
// Owns:    a list of address ranges, not the memory.
// Threads: filled once, then read by any.
// Errors:  none; an address that is in no range has no home.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace cachalot {

class MemoryHomes {
 public:
  explicit MemoryHomes(int homes) : homes_(homes) {}
  int homes() const noexcept { return homes_; }

  void add(const void* begin, std::size_t bytes, int home);
  void finish();                               // after the last `add`, before the first `home_of`
  int home_of(const void* at) const noexcept;  // -1: none

 private:
  struct Range {
    std::uintptr_t begin, end;
    int home;
  };
  int homes_;
  std::vector<Range> ranges_;  // sorted by `finish`
};

}  // namespace cachalot
