// The two tiled kernels of attention's backward: one owns keys and sums over queries, one owns
// queries and sums over keys. Both recompute scores and their gradients, so that neither adds to
// memory another writes: seven products instead of five, and results without atomics.
#pragma once

#include "kernels/cuda/attention_queue.cuh"
#include "kernels/cuda/attention_work.cuh"

namespace cachalot::cuda::attn {

constexpr int kGradQueries = kPaddedRows;  // queries that the first kernel goes by

struct BackwardArgs {
  TileQueue queue;
  int heads;
  std::int64_t padded_rows;
  // [H, padded rows / 64, 2, 64]: of 64 rows log2 of the sum of exponentials (infinity behind a
  // span's end), then the sum of dout * out.
  const float* stats;
  float scale, scale_log2;
  AttentionDims dims;
  float* dq;
  std::ptrdiff_t dq_stride;
  bool dq_pairs;
  float* dkv;
  std::ptrdiff_t dkv_stride;
  bool dkv_pairs;
  float* rope_parts;  // [S, H, kRope]
};

// Of a row's first number; the second lies kPaddedRows behind it.
__device__ inline std::int64_t stats_index(std::int64_t padded_rows, int head, std::int64_t row) {
  return (head * padded_rows + row) / kPaddedRows * (2 * kPaddedRows) + row % kPaddedRows;
}

// Operands in the order q, kv, k_rope, dout.
struct BackwardMaps {
  CUtensorMap q, kv, k_rope, dout;
};

template <class W>
void launch_key_gradients(const Context& ctx, const BackwardMaps& maps, const BackwardArgs& a);
template <class W>
void launch_query_gradients(const Context& ctx, const BackwardMaps& maps, const BackwardArgs& a);

constexpr int kGradKeyTile = 128;    // keys of one tile of the first
constexpr int kGradQueryTile = 128;  // queries of one tile of the second
constexpr int kGradKeys = 64;        // keys that one goes by

}  // namespace cachalot::cuda::attn
