// Memory that a kernel keeps for its next call, and the rounding mode it runs in.
//
// A step allocates nothing once its sizes are known, so what a call needs must not depend on how an
// expert's load happens to fall, and what a thread needs not on which tasks it happens to get.
// Owns:    its memory. Threads: one user at a time; kept thread_local or by the caller.
#pragma once

#include "kernels/cpu/simd.h"

#ifdef CACHALOT_X86
#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

#include "tensor/mat.h"

namespace cachalot::cpu {

// Grows, never shrinks. In huge pages where there are any.
class HugeScratch {
 public:
  static constexpr std::size_t kHugePage = std::size_t{2} << 20;

  template <class T>
  T* get(std::size_t count) {
    const std::size_t bytes = count * sizeof(T);
    if (bytes > bytes_) {
      memory_.reset();
      bytes_ = 0;
      const std::size_t rounded = (bytes + kHugePage - 1) / kHugePage * kHugePage;
      memory_.reset(std::aligned_alloc(kHugePage, rounded));
      if (!memory_) throw std::bad_alloc();
      madvise(memory_.get(), rounded, MADV_HUGEPAGE);  // only advice
      bytes_ = rounded;
    }
    return static_cast<T*>(memory_.get());
  }

 private:
  std::unique_ptr<void, FreeDeleter> memory_;
  std::size_t bytes_ = 0;
};

// Flush-to-zero and denormals-are-zero while it lives.
class FlushDenormalsScope {
 public:
  explicit FlushDenormalsScope(bool on) : on_(on), old_(on ? _mm_getcsr() : 0) {
    if (on_) _mm_setcsr(old_ | 0x8040u);
  }
  ~FlushDenormalsScope() {
    if (on_) _mm_setcsr(old_);
  }
  FlushDenormalsScope(const FlushDenormalsScope&) = delete;
  FlushDenormalsScope& operator=(const FlushDenormalsScope&) = delete;

 private:
  bool on_;
  unsigned old_;
};

}  // namespace cachalot::cpu
#endif
