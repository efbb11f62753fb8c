// y = x W^T for few rows of x: weights stream through registers once, at the speed of memory.
//
// A warp has tiles of 16 rows of W. The four lanes of a row take turns along it in vectors of
// 16 bytes; what a lane holds of two rows, decoded to bf16, is the left operand of mma.sync as it
// stands, if the lanes of x hold the same columns: which columns a slot of k stands for is free.
// So nothing is moved between lanes. The warps of a block split K and add up in a fixed order.
// Precision: products are exact, sums float; groups of quantised weights are summed unscaled, then
// scaled into the sum, as kernels/quant_linear.h says.
#pragma once

#include "kernels/cuda/gemm_parts.cuh"

namespace cachalot::cuda {

struct RowsJob {
  const void* x;
  const std::uint8_t* w;
  const void* scales;      // of W, [rows or blocks of 128 rows, groups]
  const float* x_scales;   // [M, ceil(K / 128)] of int8 activations, or null
  float* y;
  __nv_bfloat16* y_bf16;   // written instead of y, or null
  std::int64_t x_stride;   // elements
  std::int64_t w_stride;   // bytes
  std::int64_t scale_stride, x_scale_stride, y_stride;
  int m, n, k;
  int group;               // columns of a scale
  int first_row;           // of W in its block of 128 rows
  int first, token_tiles;  // blocks
  bool w_vectors, x_vectors, accumulate;
};

// Past the first level of cache, which x needs.
template <class Vector>
__device__ inline Vector read_once(const void* p);
template <>
__device__ inline uint4 read_once<uint4>(const void* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}
template <>
__device__ inline uint2 read_once<uint2>(const void* p) {
  uint2 v;
  asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0,%1}, [%2];"
               : "=r"(v.x), "=r"(v.y)
               : "l"(p));
  return v;
}
template <>
__device__ inline unsigned read_once<unsigned>(const void* p) {
  return __ldg(static_cast<const unsigned*>(p));
}

// How weights lie. kCols columns of a lane per vector; a group of columns that share a scale is
// `kGroupCols` columns, or as the job says (0), or there are no scales (kScaled).
struct Bf16Rows {
  using Vector = uint4;
  static constexpr int kCols = 8, kBits = 16;
  static constexpr bool kScaled = false, kBlockScales = false, kNaNs = false;
  __device__ static void decode(const uint4& v, std::uint32_t (&out)[4]) {
    out[0] = v.x;
    out[1] = v.y;
    out[2] = v.z;
    out[3] = v.w;
  }
};

struct FloatRows {
  using Vector = uint4;
  static constexpr int kCols = 4, kBits = 32;
  static constexpr bool kScaled = false, kBlockScales = false, kNaNs = false;
  __device__ static void decode(const uint4& v, std::uint32_t (&out)[2]) {
    out[0] = pack_bf16(__uint_as_float(v.x), __uint_as_float(v.y));
    out[1] = pack_bf16(__uint_as_float(v.z), __uint_as_float(v.w));
  }
};

// Four codes of 8 bits each.
__device__ inline void decode_e4m3(std::uint32_t w, std::uint32_t* out) {
  // Exponent and fraction put where bf16 has them are the value over 2^120, subnormals too.
  constexpr std::uint32_t kUp = 0x7B807B80u;  // 2^120, twice
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const std::uint32_t t = __byte_perm(w, 0, i == 0 ? 0x1404 : 0x3424);  // codes in high bytes
    const std::uint32_t small = (t >> 4 & 0x07F007F0u) | (t & 0x80008000u);
    asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(out[i]) : "r"(small), "r"(kUp));
  }
}
__device__ inline void decode_int8(std::uint32_t w, std::uint32_t* out) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const std::uint32_t t = __byte_perm(w, 0, i == 0 ? 0x4140 : 0x4342);  // codes in low bytes
    const std::uint32_t low = (t & 0x007F007Fu) | 0x43004300u;            // 128 + seven bits
    const std::uint32_t less = (t & 0x00800080u) ^ 0xC380C380u;           // -256, or -128
    asm("add.rn.bf16x2 %0, %1, %2;" : "=r"(out[i]) : "r"(low), "r"(less));
  }
}
// Eight codes of 4 bits.
__device__ inline void decode_int4(std::uint32_t w, std::uint32_t* out) {
  constexpr std::uint32_t kLess = 0xC308C308u;  // -136, twice
  const std::uint32_t odd = w >> 4;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const std::uint32_t t = __byte_perm(w, odd, 0x0400u + 0x1101u * static_cast<unsigned>(i));
    const std::uint32_t up = (t & 0x000F000Fu) | 0x43004300u;  // 128 + code
    asm("add.rn.bf16x2 %0, %1, %2;" : "=r"(out[i]) : "r"(up), "r"(kLess));
  }
}

struct E4m3Rows {
  using Vector = uint4;
  static constexpr int kCols = 16, kBits = 8;
  static constexpr bool kScaled = true, kBlockScales = true, kNaNs = true;
  __device__ static void decode(const uint4& v, std::uint32_t (&out)[8]) {
    decode_e4m3(v.x, out);
    decode_e4m3(v.y, out + 2);
    decode_e4m3(v.z, out + 4);
    decode_e4m3(v.w, out + 6);
  }
  // The top bit of a byte is set where the code is NaN.
  __device__ static std::uint32_t nans(const uint4& v) {
    constexpr std::uint32_t kMagnitude = 0x7F7F7F7Fu, kOne = 0x01010101u;
    return ((v.x & kMagnitude) + kOne) | ((v.y & kMagnitude) + kOne) |
           ((v.z & kMagnitude) + kOne) | ((v.w & kMagnitude) + kOne);
  }
};

struct Int8Rows {  // groups of 64 columns and more
  using Vector = uint4;
  static constexpr int kCols = 16, kBits = 8;
  static constexpr bool kScaled = true, kBlockScales = false, kNaNs = false;
  __device__ static void decode(const uint4& v, std::uint32_t (&out)[8]) {
    decode_int8(v.x, out);
    decode_int8(v.y, out + 2);
    decode_int8(v.z, out + 4);
    decode_int8(v.w, out + 6);
  }
};
struct Int8ShortRows {  // groups of 32
  using Vector = uint2;
  static constexpr int kCols = 8, kBits = 8;
  static constexpr bool kScaled = true, kBlockScales = false, kNaNs = false;
  __device__ static void decode(const uint2& v, std::uint32_t (&out)[4]) {
    decode_int8(v.x, out);
    decode_int8(v.y, out + 2);
  }
};

// Four lanes hold one group.
struct Int4Rows128 {
  using Vector = uint4;
  static constexpr int kCols = 32, kBits = 4;
  static constexpr bool kScaled = true, kBlockScales = false, kNaNs = false;
  __device__ static void decode(const uint4& v, std::uint32_t (&out)[16]) {
    decode_int4(v.x, out);
    decode_int4(v.y, out + 4);
    decode_int4(v.z, out + 8);
    decode_int4(v.w, out + 12);
  }
};
struct Int4Rows64 {
  using Vector = uint2;
  static constexpr int kCols = 16, kBits = 4;
  static constexpr bool kScaled = true, kBlockScales = false, kNaNs = false;
  __device__ static void decode(const uint2& v, std::uint32_t (&out)[8]) {
    decode_int4(v.x, out);
    decode_int4(v.y, out + 4);
  }
};
struct Int4Rows32 {
  using Vector = unsigned;
  static constexpr int kCols = 8, kBits = 4;
  static constexpr bool kScaled = true, kBlockScales = false, kNaNs = false;
  __device__ static void decode(const unsigned& v, std::uint32_t (&out)[4]) { decode_int4(v, out); }
};

// A vector that may reach past the end of its row, or lie on no boundary: zero bytes there.
template <class Vector>
__device__ inline Vector read_carefully(const std::uint8_t* row, std::int64_t at,
                                        std::int64_t row_bytes) {
  std::uint32_t words[sizeof(Vector) / 4];
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(Vector) / 4); ++i) {
    std::uint32_t word = 0;
#pragma unroll
    for (int byte = 0; byte < 4; ++byte) {
      const std::int64_t j = at + i * 4 + byte;
      if (j < row_bytes) word |= static_cast<std::uint32_t>(row[j]) << (8 * byte);
    }
    words[i] = word;
  }
  return *reinterpret_cast<const Vector*>(words);
}

constexpr int kRowsThreads = 256, kRowsWarps = kRowsThreads / 32;

// The columns [col, col + kCols) of a row of x, as bf16 pairs, zeros from k on.
template <int kCols, bool kFloat>
__device__ inline void read_x(const RowsJob& job, const void* row, int col,
                              std::uint32_t (&out)[kCols / 2]) {
  if constexpr (kCols == 4) {  // of float weights
    if (job.x_vectors && col + 4 <= job.k) {
      if constexpr (kFloat) {
        const float4 v = *reinterpret_cast<const float4*>(static_cast<const float*>(row) + col);
        out[0] = pack_bf16(v.x, v.y);
        out[1] = pack_bf16(v.z, v.w);
      } else {
        const uint2 v =
            *reinterpret_cast<const uint2*>(static_cast<const std::uint16_t*>(row) + col);
        out[0] = v.x;
        out[1] = v.y;
      }
      return;
    }
    const uint4 v = eight_bf16(row, col, min(4, job.k - col), kFloat, false);
    out[0] = v.x;
    out[1] = v.y;
  } else {
#pragma unroll
    for (int i = 0; i < kCols / 8; ++i) {
      const uint4 v =
          eight_bf16(row, col + i * 8, job.k - col - i * 8, kFloat, job.x_vectors);
      out[4 * i] = v.x;
      out[4 * i + 1] = v.y;
      out[4 * i + 2] = v.z;
      out[4 * i + 3] = v.w;
    }
  }
}

template <class W>
__device__ inline float scale_of(const RowsJob& job, int row, int group) {
  if constexpr (W::kBlockScales) {
    return static_cast<const float*>(
        job.scales)[(job.first_row + row) / 128 * job.scale_stride + group];
  } else {
    return __bfloat162float(
        static_cast<const __nv_bfloat16*>(job.scales)[row * job.scale_stride + group]);
  }
}

// 16 kTiles rows of W by 8 kTokens rows of x.
template <class W, int kTiles, int kTokens, bool kFloat>
__global__ void __launch_bounds__(kRowsThreads, kTokens == 4 ? 1 : 2)
    rows_kernel(const RowsJob* jobs, int count) {
  using Vector = typename W::Vector;
  constexpr int kSpan = 4 * W::kCols;  // columns of a vector of each of four lanes
  constexpr int kBytes = sizeof(Vector);
  // Vectors of a row that are asked for at once: up to eight of a lane.
  constexpr int kAhead = (W::kCols == 32 ? 2 : 4) / kTiles;
  constexpr int kRows = 16 * kTiles;

  const RowsJob job = jobs[job_of_block(jobs, count, static_cast<int>(blockIdx.x))];
  const int block = static_cast<int>(blockIdx.x) - job.first;
  const int row0 = block / job.token_tiles * kRows;
  const int token0 = block % job.token_tiles * 8 * kTokens;
  const int tokens = min(job.m - token0, 8 * kTokens);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int in_eight = lane / 4, quarter = lane % 4;

  const std::uint8_t* rows[kTiles][2];  // past the last row: the last one again, never stored
  int row_of[kTiles][2];
#pragma unroll
  for (int r = 0; r < kTiles; ++r) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      row_of[r][h] = min(row0 + r * 16 + h * 8 + in_eight, job.n - 1);
      rows[r][h] = job.w + row_of[r][h] * job.w_stride;
    }
  }
  float sum[kTiles][kTokens][4] = {};
  float part[W::kScaled ? kTiles : 1][W::kScaled ? kTokens : 1][4] = {};
  std::uint32_t nans[kTiles][2] = {};

  const int spans = (job.k + kSpan - 1) / kSpan;
  const int group_spans = W::kScaled ? job.group / kSpan : 1;
  // Whole groups to a warp: their parts are scaled where they are summed.
  const int step = W::kScaled && group_spans > kAhead ? group_spans : kAhead;
  const std::int64_t row_bytes = (static_cast<std::int64_t>(job.k) * W::kBits + 7) / 8;

  for (int first = warp * step; first < spans; first += kRowsWarps * step) {
    for (int from = first; from < first + step; from += kAhead) {
      Vector v[kAhead][kTiles][2];
      if (job.w_vectors && (from + kAhead) * kSpan <= job.k) {
        const int at = from * 4 * kBytes + quarter * kBytes;
#pragma unroll
        for (int u = 0; u < kAhead; ++u) {
#pragma unroll
          for (int r = 0; r < kTiles; ++r) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
              v[u][r][h] = read_once<Vector>(rows[r][h] + at + u * 4 * kBytes);
            }
          }
        }
      } else {
        const std::int64_t at = std::int64_t{from} * 4 * kBytes + quarter * kBytes;
        for (int u = 0; u < kAhead; ++u) {
#pragma unroll
          for (int r = 0; r < kTiles; ++r) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
              const Vector careful = read_carefully<Vector>(rows[r][h], at + u * 4 * kBytes,
                                                            row_bytes);
#pragma unroll
              for (int w = 0; w < kAhead; ++w) {  // no index that the compiler does not know
                if (w == u) v[w][r][h] = careful;
              }
            }
          }
        }
      }
#pragma unroll
      for (int u = 0; u < kAhead; ++u) {
        const int span = from + u;
        if (span >= spans) break;
        const int col = span * kSpan + quarter * W::kCols;
        std::uint32_t w[kTiles][2][W::kCols / 2];
#pragma unroll
        for (int r = 0; r < kTiles; ++r) {
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            W::decode(v[u][r][h], w[r][h]);
            if constexpr (W::kNaNs) nans[r][h] |= W::nans(v[u][r][h]);
          }
        }
#pragma unroll
        for (int t = 0; t < kTokens; ++t) {
          if (t * 8 >= tokens) break;
          std::uint32_t x[W::kCols / 2] = {};
          const int token = t * 8 + in_eight;
          if (token < tokens) {
            const auto* row = static_cast<const char*>(job.x) +
                              (token0 + token) * job.x_stride * (kFloat ? 4 : 2);
            read_x<W::kCols, kFloat>(job, row, col, x);
          }
#pragma unroll
          for (int r = 0; r < kTiles; ++r) {
#pragma unroll
            for (int s = 0; s < W::kCols / 4; ++s) {
              const std::uint32_t a[4] = {w[r][0][2 * s], w[r][1][2 * s], w[r][0][2 * s + 1],
                                          w[r][1][2 * s + 1]};
              if constexpr (W::kScaled) {
                mma_bf16(part[r][t], a, x[2 * s], x[2 * s + 1]);
              } else {
                mma_bf16(sum[r][t], a, x[2 * s], x[2 * s + 1]);
              }
            }
          }
        }
        if constexpr (W::kScaled) {
          if ((span + 1) % group_spans != 0 && span + 1 != spans) continue;
          const int group = span / group_spans;
#pragma unroll
          for (int r = 0; r < kTiles; ++r) {
            const float scale[2] = {scale_of<W>(job, row_of[r][0], group),
                                    scale_of<W>(job, row_of[r][1], group)};
#pragma unroll
            for (int t = 0; t < kTokens; ++t) {
#pragma unroll
              for (int e = 0; e < 4; ++e) {
                float s = scale[e / 2];
                if (job.x_scales != nullptr) {
                  const int token = min(token0 + t * 8 + quarter * 2 + e % 2, job.m - 1);
                  s *= job.x_scales[token * job.x_scale_stride + group * job.group / 128];
                }
                sum[r][t][e] = fmaf(part[r][t][e], s, sum[r][t][e]);
                part[r][t][e] = 0;
              }
            }
          }
        }
      }
    }
  }
  if constexpr (W::kNaNs) {
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        std::uint32_t any = nans[r][h];
        any |= __shfl_xor_sync(0xFFFFFFFFu, any, 1);
        any |= __shfl_xor_sync(0xFFFFFFFFu, any, 2);
        if ((any & 0x80808080u) == 0) continue;
#pragma unroll
        for (int t = 0; t < kTokens; ++t) {
          sum[r][t][2 * h] = __uint_as_float(0x7FC00000u);
          sum[r][t][2 * h + 1] = __uint_as_float(0x7FC00000u);
        }
      }
    }
  }
  // [warp][token][row], and the warps' sums in their order.
  constexpr int kStride = kRows + 4;
  __shared__ float sums[kRowsWarps][8 * kTokens][kStride];
#pragma unroll
  for (int r = 0; r < kTiles; ++r) {
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        sums[warp][t * 8 + quarter * 2 + e % 2][r * 16 + in_eight + e / 2 * 8] = sum[r][t][e];
      }
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < tokens * kRows; i += kRowsThreads) {
    const int token = i / kRows, row = i % kRows;
    if (row0 + row >= job.n) continue;
    float total = 0;
#pragma unroll
    for (int w = 0; w < kRowsWarps; ++w) total += sums[w][token][row];
    const std::int64_t at = (token0 + token) * job.y_stride + row0 + row;
    if (job.y_bf16 != nullptr) {
      job.y_bf16[at] = __float2bfloat16_rn(total);
    } else {
      job.y[at] = job.accumulate ? job.y[at] + total : total;
    }
  }
}

// Which kernel a list runs on: by the most rows of x that a problem has.
struct RowsShape {
  int tiles, tokens;
};
inline RowsShape rows_shape(int most_rows) {
  if (most_rows <= 8) return {1, 1};
  if (most_rows <= 16) return {1, 2};
  return {2, 4};
}

template <class W>
void launch_rows(const Context& ctx, std::vector<RowsJob>& jobs, bool x_float) {
  if (jobs.empty()) return;
  int most = 0;
  for (const RowsJob& j : jobs) most = std::max(most, j.m);
  const RowsShape shape = rows_shape(most);
  int blocks = 0;
  for (RowsJob& j : jobs) {
    j.first = blocks;
    j.token_tiles = ceil_div(j.m, 8 * shape.tokens);
    blocks += ceil_div(j.n, 16 * shape.tiles) * j.token_tiles;
  }
  const RowsJob* list = stage(ctx, std::span<const RowsJob>(jobs));
  void (*kernel)(const RowsJob*, int) = nullptr;
  if (shape.tokens == 1) {
    kernel = x_float ? rows_kernel<W, 1, 1, true> : rows_kernel<W, 1, 1, false>;
  } else if (shape.tokens == 2) {
    kernel = x_float ? rows_kernel<W, 1, 2, true> : rows_kernel<W, 1, 2, false>;
  } else {
    kernel = x_float ? rows_kernel<W, 2, 4, true> : rows_kernel<W, 2, 4, false>;
  }
  kernel<<<static_cast<unsigned>(blocks), kRowsThreads, 0, stream_of(ctx)>>>(
      list, static_cast<int>(jobs.size()));
  check_launch("rows_kernel");
}

}  // namespace cachalot::cuda
