// Memory for one matrix at a time, of whatever type: buffers that are never needed together share
// it, and whoever takes it overwrites what was there.
//
// Owns:    the memory; grows, never shrinks.
// Threads: plain memory; one user at a time.
#pragma once

#include <cstddef>

#include "tensor/mat.h"

namespace cachalot {

class Room {
 public:
  // Contents unspecified.
  template <class T>
  MatView<T> as(int rows, int cols) {
    static_assert(alignof(T) <= 64);
    memory_.resize(rows, cols * static_cast<int>(sizeof(T)));
    return {reinterpret_cast<T*>(memory_.data()), rows, cols, cols};
  }
  std::size_t bytes() const noexcept { return memory_.bytes(); }

 private:
  Mat<std::byte> memory_;
};

}  // namespace cachalot
