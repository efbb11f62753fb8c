// The two tiled kernels of attention's backward: one owns keys and sums over queries, one owns
// queries and sums over keys. Both recompute scores and their gradients, so that neither adds to
// memory another writes: seven products instead of five, and results without atomics.
#pragma once

#include "kernels/cuda/attention_work.cuh"

namespace cachalot::cuda::attn {

constexpr int kGradQueries = 64;  // rows that padded rows of a span are a multiple of

struct BackwardArgs {
  const Tile* tiles;
  const AttentionSpan* spans;
  const int* padded_begin;  // per span: its first row in lse2, delta and the map of dout
  int heads;
  std::int64_t padded_rows;
  const float* lse2;   // [H, padded rows] log2 of the sum of exponentials; infinity behind a span
  const float* delta;  // [H, padded rows] sum of dout * out
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

// Operands in the order q, kv, k_rope, dout.
struct BackwardMaps {
  CUtensorMap q, kv, k_rope, dout;
};

template <class W>
void launch_key_gradients(const Context& ctx, const BackwardMaps& maps, const BackwardArgs& a,
                          int tiles);
template <class W>
void launch_query_gradients(const Context& ctx, const BackwardMaps& maps, const BackwardArgs& a,
                            int tiles);

constexpr int kGradKeyTile = 128;    // keys of one tile of the first
constexpr int kGradQueryTile = 128;  // queries of one tile of the second
constexpr int kGradKeys = 64;        // keys it goes by

}  // namespace cachalot::cuda::attn
