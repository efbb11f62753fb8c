// Memory that will be read soon: never owned, never read through this, a hint to caches.
#pragma once

#include <cstddef>

namespace cachalot {

struct MemoryPiece {
  const void* at = nullptr;
  std::ptrdiff_t bytes = 0;
};

}  // namespace cachalot
