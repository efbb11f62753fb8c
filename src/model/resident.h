// Weights copied out of a mapped file into huge pages: reading them then misses no addresses, which
// on some machines is a fifth of a decode step (docs/performance.md); the price is their memory,
// and the time of copying at load.
//
// Owns:    the copies, in pieces of up to 256 MiB.
// Threads: `reserve` by one; `copy` runs on threads of its own. Afterwards plain memory.
// Errors:  std::bad_alloc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "tensor/mat.h"

namespace cachalot::model {

class ResidentCopies {
 public:
  // Where `bytes` of `data` are going to lie, 64-byte aligned.
  const void* reserve(const void* data, std::size_t bytes);
  // Fills everything reserved since the last call.
  void copy(int threads);
  std::uint64_t bytes() const noexcept { return bytes_; }

 private:
  struct Job {
    const std::byte* from;
    std::byte* to;
    std::size_t bytes;
  };
  std::vector<std::unique_ptr<void, FreeDeleter>> slabs_;
  std::byte* next_ = nullptr;
  std::size_t left_ = 0;
  std::uint64_t bytes_ = 0;
  std::vector<Job> jobs_;
};

}  // namespace cachalot::model
