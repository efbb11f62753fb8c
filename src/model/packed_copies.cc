#include "model/packed_copies.h"

namespace cachalot::model {

nn::WeightRef PackedCopies::matrix(const MatRef& from) {
  PackedB& out = matrices_.emplace_back();
  jobs_.push_back({from, true, &out});
  nn::WeightRef w(MatRef(nullptr, from.dtype, from.rows, from.cols, from.cols));
  w.packed = &out;
  return w;
}

const nn::PackedHeads* PackedCopies::heads(const MatRef& kv_b, const AttentionDims& dims) {
  nn::PackedHeads& out = heads_.emplace_back();
  const auto n = static_cast<std::size_t>(dims.heads);
  out.keys.resize(n);
  out.values.resize(n);
  for (std::size_t h = 0; h < n; ++h) {
    const int first = static_cast<int>(h) * (dims.nope + dims.value);
    jobs_.push_back({kv_b.sub_rows(first, dims.nope), false, &out.keys[h]});
    jobs_.push_back({kv_b.sub_rows(first + dims.nope, dims.value), true, &out.values[h]});
  }
  return &out;
}

void PackedCopies::pack(const Context& ctx, Precision precision) {
  pack_b(ctx, precision, jobs_);
  jobs_.clear();
}

std::uint64_t PackedCopies::bytes() const noexcept {
  std::uint64_t sum = 0;
  for (const PackedB& p : matrices_) sum += p.bytes();
  for (const nn::PackedHeads& h : heads_) {
    for (const PackedB& p : h.keys) sum += p.bytes();
    for (const PackedB& p : h.values) sum += p.bytes();
  }
  return sum;
}

}  // namespace cachalot::model
