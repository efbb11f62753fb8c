// Sizes of the data caches, for blocking and for `cachalot info`.
//
// Threads: read once, then constant.
#pragma once

#include <cstddef>

namespace cachalot::cpu {

struct Caches {
  std::size_t l1d = 32u << 10;
  std::size_t l2 = 512u << 10;  // per core
  std::size_t l3 = 0;           // shared; 0: none or unknown
};

// What the system reports for core 0; the defaults above where it reports nothing.
const Caches& caches();

}  // namespace cachalot::cpu
