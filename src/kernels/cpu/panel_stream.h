// Weights that are read once, as one stream of panels, fetched into the second cache some distance
// ahead (into the first one, lines wait for each other: two thirds of the speed). What comes behind
// the stream's end is what the next task begins with.
//
// Threads: one per task. Addresses are only hints: nothing is read.
#pragma once

#include <algorithm>
#include <cstddef>

namespace cachalot::cpu {

struct PanelStream {
  static constexpr std::ptrdiff_t kAhead = 32768;
  const char* end = nullptr;
  std::ptrdiff_t distance = kAhead;  // a stream shorter than that fetches the next one's beginning
  std::ptrdiff_t jump = 0;           // from the end to the next stream

  // Bytes [first, last), then `next`; null: nothing is to come, and what is there already is asked
  // for.
  PanelStream(const void* first, const void* last, const void* next)
      : end(static_cast<const char*>(last)) {
    distance = std::min(kAhead, end - static_cast<const char*>(first));
    jump = next != nullptr ? static_cast<const char*>(next) - end : -distance;
  }
  // What to fetch while `at` is read.
  [[gnu::always_inline]] const char* ahead(const void* at) const {
    const char* there = static_cast<const char*>(at) + distance;
    return there < end ? there : there + jump;
  }
};

}  // namespace cachalot::cpu
