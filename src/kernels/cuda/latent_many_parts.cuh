// Latent attention for many heads: what a thread of its two groups holds, scores and sums of
// values, and where operands lie in shared memory.
#pragma once

#include "kernels/cuda/latent_walk.cuh"
#include "kernels/cuda/latent_wgmma.cuh"

namespace cachalot::cuda {

struct ManyHeads {
  static constexpr bool kCodes = false;  // rows of FP8
  static constexpr int kTokens = 64, kRows = 64, kLanes = 1;
  static constexpr int kWorkers = 256, kThreads = kWorkers + 128;
  static constexpr int kColumnBytes = kTokens * 128;  // of 64 columns of a tile
  static constexpr int kTileBytes = kColumnBlocks * kColumnBytes;
  static constexpr int kQueryAt = 0, kTilesAt = kTileBytes;
  // References of A, of B, factors between them; sums of A, of two chunks in turn, and of B; of
  // the partial.
  static constexpr int kRowsAt = kTilesAt + 2 * kTileBytes, kRowBytes = kRows * 4;
  static constexpr int kBarriersAt = kRowsAt + 7 * kRowBytes;
  static constexpr int kBytes = kBarriersAt + 8 * 8 + 1024;
  static_assert(kBytes <= 232448);

  // Half 0 of a tile is the one needed first: left columns for A, right ones for B. The rope is in
  // half 1.
  static __host__ __device__ constexpr int first_column(int tile, int half) {
    return tile == half ? 0 : 4;
  }
};

// Barriers among the workers: threads that arrive and threads that wait.
enum ManyHeadsBarrier : int {
  kReferencesOfA = 1,
  kWeightsOfA,
  kWeightsOfB,
  kAll,
  kOfA,
  kOfB,
  kSumsOfA,  // of two chunks in turn
};

__device__ inline void arrive_threads(int name, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(name), "r"(threads) : "memory");
}

// Scores of the workers' own tile: softmax state of a thread, which has rows r and r + 8 of its
// warp's 16, columns 8 n + 2 (lane % 4) and the next.
struct ScoreTile {
  float s[32];

  __device__ void multiply(std::uint32_t query, std::uint32_t tile, int first_column, int columns,
                           bool add) {
#pragma unroll
    for (int c = 0; c < columns; ++c) {
      const int at = (first_column + c) * ManyHeads::kColumnBytes;
      const std::uint64_t a = operand_along_rows(query + at), b = operand_along_rows(tile + at);
#pragma unroll
      for (int k = 0; k < 4; ++k) multiply_scores(s, a + 2 * k, b + 2 * k, add || c > 0 || k > 0);
    }
  }
  __device__ void hide(int row, int visible, int lane) {  // columns from `visible` on
#pragma unroll
    for (int n = 0; n < 8; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if (8 * n + lane % 4 * 2 + i >= visible) s[4 * n + 2 * row + i] = -INFINITY;
      }
    }
  }
  __device__ float largest(int row) const {
    float most = -INFINITY;
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      most = fmaxf(most, fmaxf(s[4 * n + 2 * row], s[4 * n + 2 * row + 1]));
    }
    most = fmaxf(most, __shfl_xor_sync(0xFFFFFFFFu, most, 1));
    return fmaxf(most, __shfl_xor_sync(0xFFFFFFFFu, most, 2));
  }
  // Scores become weights in bf16, as operands; their sum over this thread's columns.
  __device__ float soften(int row, float scale_log2, float reference,
                          std::uint32_t (&weights)[16]) const {
    const float zero_at = reference == -INFINITY ? 0 : reference;
    float sum = 0;
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const float* x = s + 4 * n + 2 * row;
      const std::uint32_t pair = pack_bf16(exp2_of(__fmaf_rn(x[0], scale_log2, -zero_at)),
                                           exp2_of(__fmaf_rn(x[1], scale_log2, -zero_at)));
      weights[4 * (n / 2) + n % 2 * 2 + row] = pair;
      sum += sum_of_pair(pair);
    }
    return sum;
  }
};

struct ValueSums {
  float o[128];
  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < 128; ++i) o[i] = 0;
  }
  __device__ void scale(const float (&by)[2]) {
    if (!__any_sync(0xFFFFFFFFu, by[0] != 1 || by[1] != 1)) return;
#pragma unroll
    for (int n = 0; n < 32; ++n) {
      o[4 * n] *= by[0];
      o[4 * n + 1] *= by[0];
      o[4 * n + 2] *= by[1];
      o[4 * n + 3] *= by[1];
    }
  }
  // `values`: the first of the four columns of 64 of a tile.
  __device__ void add(const std::uint32_t (&weights)[16], std::uint32_t values) {
    const std::uint64_t b = operand_down_rows(values, ManyHeads::kColumnBytes);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      multiply_values(o, weights[4 * k], weights[4 * k + 1], weights[4 * k + 2], weights[4 * k + 3],
                      b + 128 * k);
    }
  }
  __device__ void add(std::uint32_t weights, std::uint32_t values) {
    const std::uint64_t a = operand_along_rows(weights);
    const std::uint64_t b = operand_down_rows(values, ManyHeads::kColumnBytes);
#pragma unroll
    for (int k = 0; k < 4; ++k) multiply_values(o, a + 2 * k, b + 128 * k);
  }
};

// For the other group; by a warp, whose rows begin at `first_row`.
__device__ inline void share_weights(const std::uint32_t (&weights)[16], std::uint32_t to,
                                     int first_row, int lane) {
  const int row = first_row + lane % 8 + lane / 8 % 2 * 8;
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    store_matrices(to + piece_at<ManyHeads::kTokens>(row, 0, 2 * k + lane / 16), weights[4 * k],
                   weights[4 * k + 1], weights[4 * k + 2], weights[4 * k + 3]);
  }
}

}  // namespace cachalot::cuda
