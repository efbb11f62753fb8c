// A piece of memory that is spoken of (placed, fetched into caches), never owned or read through
// this.
#pragma once

#include <cstddef>

namespace cachalot {

struct MemoryPiece {
  const void* at = nullptr;
  std::ptrdiff_t bytes = 0;
};

}  // namespace cachalot
