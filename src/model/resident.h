// Weights copied out of a mapped file into huge pages, and codes in the order in which products
// read them (docs/performance.md has what it gains); the price is their memory, and the time of
// copying at load.
//
// Owns:    the copies, in pieces of up to 256 MiB.
// Threads: `reserve` and `reserve_panels` by one; `copy` uses the context's. Afterwards plain
// memory. Errors:  std::bad_alloc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/quant_linear.h"
#include "tensor/mat.h"

namespace cachalot::model {

class ResidentCopies {
 public:
  // Where `bytes` of `data` are going to lie, 64-byte aligned.
  const void* reserve(const void* data, std::size_t bytes);
  // The panels that `from` is going to lie in; of E4M3 the scales stay where they are.
  QuantView reserve_panels(const QuantView& from);
  // Fills everything reserved since the last call.
  void copy(const Context& ctx);
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
  std::byte* room(std::size_t bytes);

  std::vector<Job> jobs_;
  std::vector<PackQuant> packs_;
};

}  // namespace cachalot::model
