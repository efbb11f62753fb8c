#include "infer/prefix_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <new>

namespace cachalot::infer {

namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kSlabBytes = 16 * kHugePage;  // of addresses: pages come as they are touched

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSlots = false;  // so that a sanitizer sees each payload by itself
#else
constexpr bool kSlots = true;
#endif

std::size_t round_up(std::size_t bytes, std::size_t to) { return (bytes + to - 1) / to * to; }

}  // namespace

PayloadMemory::PayloadMemory(std::size_t slot_bytes)
    : slot_bytes_(round_up(slot_bytes, 64)),
      slots_per_slab_(std::max<std::size_t>(kSlabBytes / slot_bytes_, 4)) {}

PayloadMemory::~PayloadMemory() {
  for (std::byte* slab : slabs_) std::free(slab);
}

void* PayloadMemory::allocate(std::size_t bytes) {
  if (kSlots && bytes <= slot_bytes_ && bytes > slot_bytes_ / 2) {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) {
      const std::size_t slab_bytes = round_up(slots_per_slab_ * slot_bytes_, kHugePage);
      auto* slab = static_cast<std::byte*>(std::aligned_alloc(kHugePage, slab_bytes));
      if (slab == nullptr) throw std::bad_alloc();
      (void)::madvise(slab, slab_bytes, MADV_HUGEPAGE);  // a wish
      slabs_.insert(std::upper_bound(slabs_.begin(), slabs_.end(), slab), slab);
      free_.reserve(slabs_.size() * slots_per_slab_);  // so that `free` need not allocate
      for (std::size_t i = slots_per_slab_; i-- > 0;) free_.push_back(slab + i * slot_bytes_);
    }
    std::byte* slot = free_.back();
    free_.pop_back();
    return slot;
  }
  void* memory = std::malloc(bytes);
  if (memory == nullptr && bytes > 0) throw std::bad_alloc();
  return memory;
}

bool PayloadMemory::holds(const void* memory) const noexcept {
  const auto* at = static_cast<const std::byte*>(memory);
  const auto above = std::upper_bound(slabs_.begin(), slabs_.end(), at);
  return above != slabs_.begin() && at < *std::prev(above) + slots_per_slab_ * slot_bytes_;
}

void PayloadMemory::free(void* memory) noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (holds(memory)) {
      free_.push_back(static_cast<std::byte*>(memory));
      return;
    }
  }
  std::free(memory);
}

std::shared_ptr<std::byte> PayloadMemory::share(std::size_t bytes) {
  return {static_cast<std::byte*>(allocate(bytes)), [this](std::byte* memory) { free(memory); }};
}

}  // namespace cachalot::infer
