// Memory of one task: one block per thread, which grows and stays.
//
// Threads: each thread has its own; a task may not hold it while it starts another one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "tensor/mat.h"

namespace cachalot::cpu {

// Lays arrays one behind the other: once without memory to learn the size, once for real.
class Scratch {
 public:
  std::size_t bytes() const noexcept { return used_; }

  // layout(scratch) takes all arrays; it runs twice.
  template <class Layout>
  explicit Scratch(Layout&& layout) {
    layout(*this);
    base_ = thread_memory(used_);
    used_ = 0;
    layout(*this);
  }
  template <class T>
  void take(T*& array, std::ptrdiff_t rows, std::ptrdiff_t cols = 1) {
    array = reinterpret_cast<T*>(base_ == nullptr ? nullptr : base_ + used_);
    const auto bytes = static_cast<std::size_t>(rows * cols) * sizeof(T);
    used_ += (bytes + 63) / 64 * 64;
  }

 private:
  static std::byte* thread_memory(std::size_t bytes) {
    thread_local std::unique_ptr<void, FreeDeleter> memory;
    thread_local std::size_t capacity = 0;
    if (bytes > capacity) {
      memory.reset();
      capacity = 0;
      memory = aligned_bytes(bytes);
      capacity = bytes;
    }
    return static_cast<std::byte*>(memory.get());
  }
  std::byte* base_ = nullptr;
  std::size_t used_ = 0;
};

}  // namespace cachalot::cpu
