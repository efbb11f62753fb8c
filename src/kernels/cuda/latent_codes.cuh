// Rows of FP8 as operands of products from registers: each code is expanded where it is multiplied.
//
// Products do not mind in which order columns are summed and tokens and columns stand, so a thread
// takes codes that follow each other; queries, weights and partials lie in the order that follows
// from that.
#pragma once

#include "kernels/cuda/latent_walk.cuh"
#include "kernels/cuda/latent_wgmma.cuh"

namespace cachalot::cuda {

// Where the eight rows of a product's eights lie: so that the threads that read at once, two rows
// of four pieces of 16 bytes, meet in no bank (rows are 4 words past a multiple of 32).
__device__ inline int spread_eight(int i) { return i / 2 + i % 2 * 4; }

// The rows of a tile as operands: a thread has, of each 64 columns, 16 that follow each other, of
// two tokens.
struct KeyCodes {
  uint4 of[2];
  __device__ void read(std::uint32_t row, int next_row, int column_block, int quarter) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      of[i] = load_piece(row + i * next_row + column_block * 64 + quarter * 16);
    }
  }
};
template <bool kLarge>
__device__ inline void expand_keys(const KeyCodes& codes, const CodeScale (&scale)[2],
                                   std::uint32_t (&a)[16]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const std::uint32_t words[4] = {codes.of[i].x, codes.of[i].y, codes.of[i].z, codes.of[i].w};
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      a[4 * k + i] = two_of_codes<kLarge>(two_bytes<kLowCodes>(words[k], 0), scale[i]);
      a[4 * k + 2 + i] = two_of_codes<kLarge>(two_bytes<kHighCodes>(words[k], 0), scale[i]);
    }
  }
}
// The rope keys, which are bf16 already, in the same order.
__device__ inline void read_rope_keys(std::uint32_t row, int next_row, int quarter,
                                      std::uint32_t (&a)[16]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint4 x = load_piece(row + i * next_row + kFp8RopeAt + quarter * 32 + half * 16);
      a[8 * half + i] = x.x;
      a[8 * half + 2 + i] = x.y;
      a[8 * half + 4 + i] = x.z;
      a[8 * half + 6 + i] = x.w;
    }
  }
}
// Eight columns of four tokens, two and two that are summed next to each other.
template <bool kLarge>
__device__ inline void expand_values(const uint2 (&codes)[4], const CodeScale (&scale)[2],
                                     std::uint32_t (&a)[16]) {
#pragma unroll
  for (int pair = 0; pair < 2; ++pair) {
    const std::uint32_t low[2] = {codes[2 * pair].x, codes[2 * pair].y};
    const std::uint32_t high[2] = {codes[2 * pair + 1].x, codes[2 * pair + 1].y};
#pragma unroll
    for (int w = 0; w < 2; ++w) {
      const auto two = [&](std::uint32_t bytes) {
        return two_of_codes<kLarge>(bytes, scale[pair]);
      };
      std::uint32_t* to = a + 8 * w + 2 * pair;
      to[0] = two(two_bytes<codes_across(0)>(low[w], high[w]));
      to[1] = two(two_bytes<codes_across(1)>(low[w], high[w]));
      to[4] = two(two_bytes<codes_across(2)>(low[w], high[w]));
      to[5] = two(two_bytes<codes_across(3)>(low[w], high[w]));
    }
  }
}
// Scales of four tokens, for one tile of columns.
struct ValueScales {
  CodeScale of[2];
  bool large;
  // `row`: of the first; the others are 4, 8 and 12 further.
  __device__ ValueScales(std::uint32_t row, int scale) {
    float x[4];
    large = false;
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      x[t] = load_float(row + 4 * t * kFp8RowBytes + kFp8ScalesAt + 4 * scale);
      large |= is_large_scale(x[t]);
    }
    large = __any_sync(0xFFFFFFFFu, large);
    of[0] = CodeScale(x[0], x[1], large);
    of[1] = CodeScale(x[2], x[3], large);
  }
  __device__ void expand(const uint2 (&codes)[4], std::uint32_t (&a)[16]) const {
    if (large) {
      expand_values<true>(codes, of, a);
    } else {
      expand_values<false>(codes, of, a);
    }
  }
};

// Queries in the order of KeyCodes: positions 16 k + 8 i + 2 j of 64 columns hold columns
// 16 j + 4 k + 2 i and the next.
template <int kRows, int kThreads>
__device__ inline void load_spread_queries(const RowGroup& g, std::uint32_t query, int thread) {
  constexpr int kPieces = kQueryWidth / 8, kAtOnce = 5;
#pragma unroll 1
  for (int i0 = thread; i0 < kRows * kPieces; i0 += kAtOnce * kThreads) {
    float2 x[kAtOnce][4];
#pragma unroll
    for (int n = 0; n < kAtOnce; ++n) {
      const int i = i0 + n * kThreads, r = i / kPieces, piece = i % kPieces, flat = g.first_row + r;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        x[n][j] = {0, 0};
        if (r >= g.rows) continue;
        x[n][j] = *reinterpret_cast<const float2*>(g.q + flat / g.heads * g.q_stride +
                                                   flat % g.heads * kQueryWidth + piece / 8 * 64 +
                                                   16 * j + piece % 8 * 2);
      }
    }
#pragma unroll
    for (int n = 0; n < kAtOnce; ++n) {
      const int i = i0 + n * kThreads, r = i / kPieces, piece = i % kPieces;
      if (r >= kRows) break;
      store_piece(query + piece_at<kRows>(r, piece / 8, piece % 8),
                  {pack_bf16(x[n][0].x, x[n][0].y), pack_bf16(x[n][1].x, x[n][1].y),
                   pack_bf16(x[n][2].x, x[n][2].y), pack_bf16(x[n][3].x, x[n][3].y)});
    }
  }
}

// Products that were queued read registers until they were waited for: not given away before.
__device__ inline void keep_registers(const std::uint32_t (&a)[16]) {
#pragma unroll
  for (int i = 0; i < 16; ++i) asm volatile("" ::"r"(a[i]) : "memory");
}

// Scales of rows that are not there may be anything: they become 0. By four warps.
__device__ inline void clear_scales(std::uint32_t tile, int valid, int tokens, int thread) {
  if (thread >= valid && thread < tokens) {
    store_piece(tile + static_cast<std::uint32_t>(thread * kFp8RowBytes + kFp8ScalesAt),
                {0, 0, 0, 0});
  }
}

}  // namespace cachalot::cuda
