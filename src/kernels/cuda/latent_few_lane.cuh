// Latent attention for few heads: what a thread of a lane holds, softmax of a tile's scores, and
// what becomes of a chunk's sums.
//
// Scores are [tokens, rows], sums [columns, rows]: rows are the narrow side of the products. Two
// lanes, each of four warps, take every other tile of a chunk and have sums of their own, which
// only the merge brings together: they never wait for each other.
#pragma once

#include "kernels/cuda/latent_walk.cuh"
#include "kernels/cuda/latent_wgmma.cuh"

namespace cachalot::cuda {

// Barriers: of both lanes, of each.
enum FewHeadsBarrier : int { kBothLanes = 1, kOfLane };

template <int kN>
struct FewHeadsLane {
  static constexpr int kTokens = 64, kLanes = 2, kWorkers = 256;
  static constexpr int kMine = kN / 4;  // rows 8 n + 2 (thread % 4) + j, number k = 2 n + j
  static constexpr int kRowsBytes = kLanes * 2 * 4 * kN * 4;  // maxima and sums of 4 warps

  int lane;                   // of the two
  int thread;                 // of the lane
  int warp, eighth, quarter;  // of the lane; of the warp's threads: / 4, % 4
  int token;                  // and 8 further: of its scores
  std::uint32_t weights;      // in shared memory: [rows, tokens]
  std::uint32_t maxima, sums;

  float out[8][kN / 2];  // [4 n + 2 (one of two columns) + j]
  // The sum over chunks: of 16 rows in registers, of 32 in the partial.
  float folded[kN == 16 ? 8 : 1][kN / 2];
  float reference[kMine], sum[kMine], partial_reference[kMine], partial_sum[kMine];
  int seen[kMine];
  float scale_log2 = 0;
  int rows = 0, all_see = 0, cached = 0;

  // `rows_at`: kRowsBytes of shared memory.
  __device__ FewHeadsLane(std::uint32_t weights_at, int weights_apart, std::uint32_t rows_at)
      : lane(__shfl_sync(0xFFFFFFFFu, threadIdx.x / 128, 0)),
        thread(static_cast<int>(threadIdx.x) % 128),
        warp(thread / 32),
        eighth(thread % 32 / 4),
        quarter(thread % 4),
        token(warp * 16 + eighth),
        weights(weights_at + lane * weights_apart),
        maxima(rows_at + lane * (kRowsBytes / kLanes)),
        sums(maxima + 4 * kN * 4) {}

  __device__ int name() const { return kOfLane + lane; }
  __device__ int my(int k) const { return k / 2 * 8 + quarter * 2 + k % 2; }  // row

  template <class Load>
  __device__ void enter(const RowGroup& g, Load&& load) {
    sync_threads(kBothLanes, kWorkers);  // the last queries are of no more use
    load(lane * 128 + thread);
    fence_async();
    sync_threads(kBothLanes, kWorkers);
#pragma unroll
    for (int k = 0; k < kMine; ++k) seen[k] = my(k) < g.rows ? g.seen(my(k)) : 0;
    rows = g.rows;
    cached = g.cached;
    all_see = g.rows == kN ? g.seen(0) : 0;
    scale_log2 = g.scale_log2;
  }
  __device__ void begin_piece() {
#pragma unroll
    for (int k = 0; k < kMine; ++k) reference[k] = -INFINITY;
  }
  __device__ void begin_chunk() {
#pragma unroll
    for (int k = 0; k < kMine; ++k) sum[k] = 0;
#pragma unroll
    for (int c = 0; c < 8; ++c) {
#pragma unroll
      for (int i = 0; i < kN / 2; ++i) out[c][i] = 0;
    }
  }

  __device__ void hide(int pos, float (&s)[kN / 2]) const {
    if (pos + kTokens <= all_see) return;
#pragma unroll
    for (int k = 0; k < kMine; ++k) {
      if (pos + token >= seen[k]) s[k / 2 * 4 + k % 2] = -INFINITY;
      if (pos + token + 8 >= seen[k]) s[k / 2 * 4 + k % 2 + 2] = -INFINITY;
    }
  }

  // Where scores are far past the references: new ones.
  __device__ void raise_references(const float (&s)[kN / 2]) {
    bool past = false;
#pragma unroll
    for (int k = 0; k < kMine; ++k) {
      const float most = fmaxf(s[k / 2 * 4 + k % 2], s[k / 2 * 4 + k % 2 + 2]);
      past |= __fmul_rn(most, scale_log2) > reference[k] + kReferenceSlack;
    }
    if (!any_of_threads(name(), 128, past)) return;
#pragma unroll
    for (int k = 0; k < kMine; ++k) {
      float most = fmaxf(s[k / 2 * 4 + k % 2], s[k / 2 * 4 + k % 2 + 2]);
#pragma unroll
      for (int i = 4; i < 32; i *= 2) most = fmaxf(most, __shfl_xor_sync(0xFFFFFFFFu, most, i));
      if (eighth == 0) store_float(maxima + 4 * (warp * kN + my(k)), most);
    }
    sync_threads(name(), 128);
#pragma unroll
    for (int k = 0; k < kMine; ++k) {
      float most = -INFINITY;
#pragma unroll
      for (int w = 0; w < 4; ++w) most = fmaxf(most, load_float(maxima + 4 * (w * kN + my(k))));
      const float next = next_reference(reference[k], __fmul_rn(most, scale_log2));
      const float by = between(reference[k], next);
      reference[k] = next;
      sum[k] *= by;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        out[i][k / 2 * 4 + k % 2] *= by;
        out[i][k / 2 * 4 + k % 2 + 2] *= by;
      }
    }
  }

  // Scores become weights, in shared memory: [rows, tokens], of each eight tokens in the order of
  // the scores' rows.
  __device__ void soften(const float (&s)[kN / 2]) {
    std::uint32_t pairs[kN / 4];  // [n][token, token + 8]
#pragma unroll
    for (int n = 0; n < kN / 8; ++n) {
      const float zero_at[2] = {reference[2 * n] == -INFINITY ? 0 : reference[2 * n],
                                reference[2 * n + 1] == -INFINITY ? 0 : reference[2 * n + 1]};
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float* x = s + 4 * n + 2 * i;
        const std::uint32_t pair = pack_bf16(exp2_of(__fmaf_rn(x[0], scale_log2, -zero_at[0])),
                                             exp2_of(__fmaf_rn(x[1], scale_log2, -zero_at[1])));
        pairs[2 * n + i] = pair;
        sum[2 * n] += __uint_as_float(pair << 16);
        sum[2 * n + 1] += __uint_as_float(pair & 0xFFFF0000u);
      }
    }
    const int lane_of_warp = thread % 32;
#pragma unroll
    for (int n = 0; n < kN / 8; n += 2) {  // 8 rows and tokens, the same rows and 8 later ones, ...
      const int row = (n + lane_of_warp / 16) * 8 + lane_of_warp % 8;
      store_transposed(weights + piece_at<kN>(row, 0, 2 * warp + lane_of_warp / 8 % 2),
                       pairs[2 * n], pairs[2 * n + 1], pairs[2 * n + 2], pairs[2 * n + 3]);
    }
    fence_async();
    sync_threads(name(), 128);
  }

  // `partial_index`: of the piece; `first` and `last` of its chunks.
  __device__ void end_chunk(int partial_index, bool first, bool last, float* partial_out,
                            float2* partial_rows) {
    // The chunk's sums of weights, over the lane's warps.
#pragma unroll
    for (int k = 0; k < kMine; ++k) {
#pragma unroll
      for (int i = 4; i < 32; i *= 2) sum[k] += __shfl_xor_sync(0xFFFFFFFFu, sum[k], i);
      if (eighth == 0) store_float(sums + 4 * (warp * kN + my(k)), sum[k]);
    }
    sync_threads(name(), 128);
    const std::int64_t partial = (static_cast<std::int64_t>(partial_index) * kLanes + lane) * kN;
    float carry[kMine];
    bool carried = false;
#pragma unroll
    for (int k = 0; k < kMine; ++k) {
      float total = load_float(sums + 4 * my(k));
#pragma unroll
      for (int w = 1; w < 4; ++w) total += load_float(sums + 4 * (w * kN + my(k)));
      carry[k] = first ? 0 : between(partial_reference[k], reference[k]);
      partial_reference[k] = reference[k];
      partial_sum[k] = first ? total : __fmaf_rn(partial_sum[k], carry[k], total);
      carried |= carry[k] != 1;
      if (last && my(k) < rows && warp == 0 && eighth == 0) {
        partial_rows[partial + my(k)] = {reference[k], partial_sum[k]};
      }
    }
    sync_threads(name(), 128);  // sums have been read
    carried = __any_sync(0xFFFFFFFFu, carried);
    // Partials lie as threads have them.
    float4* at = reinterpret_cast<float4*>(partial_out + partial * kLatentWidth) + thread;
#pragma unroll
    for (int c = 0; c < 8; ++c) {
#pragma unroll
      for (int n = 0; n < kN / 8; ++n, at += 128) {
        float* x = out[c] + 4 * n;
        const float by[2] = {carry[2 * n], carry[2 * n + 1]};
        if constexpr (kN == 16) {
          float* sums = folded[c] + 4 * n;
#pragma unroll
          for (int i = 0; i < 4; ++i) sums[i] = first ? x[i] : __fmaf_rn(sums[i], by[i % 2], x[i]);
          if (last) *at = {sums[0], sums[1], sums[2], sums[3]};
        } else {
          deposit(first ? Deposit::kStore : Deposit::kAdd, {x[0], x[1], x[2], x[3]}, at,
                  {by[0], by[1], by[0], by[1]}, carried);
        }
      }
    }
  }
};

}  // namespace cachalot::cuda
