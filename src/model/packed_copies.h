// Copies of a model's bf16 weights in the layout in which products read them (kernels/gemm.h).
//
// Owns:    the copies; a reference to one stays valid.
// Threads: one caller; pack uses the context's threads.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "kernels/attention.h"
#include "nn/mla.h"

namespace cachalot::model {

class PackedCopies {
 public:
  // A matrix that only products x W^T read: the copy takes its place.
  nn::WeightRef matrix(const MatRef& from);
  // kv_b_proj, which absorbed attention reads head by head in two directions: beside itself.
  const nn::PackedHeads* heads(const MatRef& kv_b, const AttentionDims& dims);
  // Fills what was asked for; `from` has to be there until then.
  void pack(const Context& ctx, Precision precision);
  std::uint64_t bytes() const noexcept;

 private:
  std::deque<PackedB> matrices_;
  std::deque<nn::PackedHeads> heads_;
  std::vector<PackB> jobs_;
};

}  // namespace cachalot::model
