#include "tensor/mat.h"

#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace cachalot {

std::unique_ptr<void, FreeDeleter> aligned_bytes(std::size_t bytes) {
  if (Device* device = MemoryScope::current(); device != nullptr) {
    return {device->allocate(std::max<std::size_t>(bytes, 1)), FreeDeleter{device}};
  }
  constexpr std::size_t kAlign = 64, kHugePage = std::size_t{2} << 20;
  const std::size_t align = bytes >= kHugePage ? kHugePage : kAlign;
  const std::size_t rounded = (std::max<std::size_t>(bytes, 1) + kAlign - 1) / kAlign * kAlign;
  void* memory = nullptr;
  if (posix_memalign(&memory, align, rounded) != 0) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
  if (align == kHugePage) madvise(memory, rounded / 4096 * 4096, MADV_HUGEPAGE);  // only advice
#endif
  return std::unique_ptr<void, FreeDeleter>(memory);
}

}  // namespace cachalot
