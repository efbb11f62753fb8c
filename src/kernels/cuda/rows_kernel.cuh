// y = x W^T for few rows of x: weights stream past once, at the speed of memory.
//
// A warp has tiles of 16 rows of W and, of their K, every 8th piece of 128 bytes; pieces arrive in
// a ring of its own in shared memory (cp.async), across tiles and problems, so that the next are on
// their way whatever the warp does. The four lanes of a row take turns along it in vectors of
// 16 bytes; what a lane holds of two rows, decoded to bf16, is the left operand of mma.sync as it
// stands, if the lanes of x hold the same columns: which columns a slot of k stands for is free.
// The warps of a block add up in a fixed order.
// Precision: products are exact, sums float; groups of quantised weights are summed unscaled, then
// scaled into the sum, as kernels/quant_linear.h says.
#pragma once

#include <algorithm>
#include <type_traits>

#include "kernels/cuda/gemm_parts.cuh"
#include "kernels/cuda/launch_early.cuh"

namespace cachalot::cuda {

struct RowsJob {
  const void* x;
  const std::uint8_t* w;
  const void* scales;     // of W, [rows or blocks of 128 rows, groups]
  const float* x_scales;  // [M, ceil(K / 128)] of int8 activations, or null
  float* y;
  __nv_bfloat16* y_bf16;  // written instead of y, or null
  std::int64_t x_stride;  // elements
  std::int64_t w_stride;  // bytes
  std::int64_t scale_stride, x_scale_stride, y_stride;
  int m, n, k;
  int group;      // columns of a scale
  int first_row;  // of W in its block of 128 rows
  int first, units, token_tiles;
  bool w_vectors, x_vectors, accumulate;
};

// Of rows that are chosen on the device (routed_rows.cu). A pair of matrices: a tile of 32 rows is
// 16 of each, first those of w.
struct RoutedRowsJob : RowsJob {
  const std::int32_t* x_rows;  // which of x; null: the first m
  const std::uint8_t* w_up;
  const void* scales_up;
};

// How weights lie: kCols columns of kBits bits to a lane's vector. The four vectors of a row belong
// to one group of columns that share a scale (kScaled), of one row or of 128 (kBlockScales).
struct Bf16Rows {
  using Vector = uint4;
  static constexpr int kCols = 8, kStep = 8, kBits = 16;
  static constexpr bool kScaled = false, kBlockScales = false, kNaNs = false;
  __device__ static void decode(const uint4& v, int, std::uint32_t (&out)[4]) {
    out[0] = v.x;
    out[1] = v.y;
    out[2] = v.z;
    out[3] = v.w;
  }
};

struct FloatRows {
  using Vector = uint4;
  static constexpr int kCols = 4, kStep = 4, kBits = 32;
  static constexpr bool kScaled = false, kBlockScales = false, kNaNs = false;
  __device__ static void decode(const uint4& v, int, std::uint32_t (&out)[2]) {
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
    // Each code with its sign in all bits above it.
    std::uint32_t t;
    asm("prmt.b32 %0, %1, 0, %2;" : "=r"(t) : "r"(w), "r"(i == 0 ? 0x9180u : 0xB3A2u));
    const std::uint32_t small = (t << 4) & 0x87F087F0u;
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

// Word i of a vector; i is known when compiling.
__device__ inline std::uint32_t word(const uint4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}
__device__ inline std::uint32_t word(const uint2& v, int i) { return i == 0 ? v.x : v.y; }
__device__ inline std::uint32_t word(const unsigned& v, int) { return v; }

struct E4m3Rows {
  using Vector = uint4;
  static constexpr int kCols = 16, kStep = 8, kBits = 8;
  static constexpr bool kScaled = true, kBlockScales = true, kNaNs = true;
  __device__ static void decode(const uint4& v, int step, std::uint32_t (&out)[4]) {
    decode_e4m3(word(v, 2 * step), out);
    decode_e4m3(word(v, 2 * step + 1), out + 2);
  }
  // The top bit of a byte is set where the code is NaN.
  __device__ static std::uint32_t nans(const uint4& v) {
    constexpr std::uint32_t kMagnitude = 0x7F7F7F7Fu, kOne = 0x01010101u;
    return ((v.x & kMagnitude) + kOne) | ((v.y & kMagnitude) + kOne) | ((v.z & kMagnitude) + kOne) |
           ((v.w & kMagnitude) + kOne);
  }
};

template <class V>
struct Int8RowsOf {
  using Vector = V;
  static constexpr int kCols = sizeof(V), kStep = 8, kBits = 8;
  static constexpr bool kScaled = true, kBlockScales = false, kNaNs = false;
  __device__ static void decode(const V& v, int step, std::uint32_t (&out)[4]) {
    decode_int8(word(v, 2 * step), out);
    decode_int8(word(v, 2 * step + 1), out + 2);
  }
};
using Int8Rows = Int8RowsOf<uint4>;       // groups of 64 columns and more
using Int8ShortRows = Int8RowsOf<uint2>;  // of 32

template <class V>
struct Int4RowsOf {  // four lanes hold one group
  using Vector = V;
  static constexpr int kCols = 2 * sizeof(V), kStep = 8, kBits = 4;
  static constexpr bool kScaled = true, kBlockScales = false, kNaNs = false;
  __device__ static void decode(const V& v, int step, std::uint32_t (&out)[4]) {
    decode_int4(word(v, step), out);
  }
};
using Int4Rows128 = Int4RowsOf<uint4>;
using Int4Rows64 = Int4RowsOf<uint2>;
using Int4Rows32 = Int4RowsOf<unsigned>;

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

// Sizes of a kernel for 16 kTiles rows of W and up to 8 kTokens rows of x.
template <int kTiles, int kTokens>
struct RowsSizes {
  static constexpr int kRows = 16 * kTiles;
  static constexpr int kPieceBytes = 128;  // of a row
  static constexpr int kStageBytes = kRows * kPieceBytes;
  static constexpr int kBlocks = kTokens <= 2 ? 2 : 1;  // of a multiprocessor
  // 96 KB on their way for each of two blocks, or 192 for the one.
  static constexpr int kStages = (kTokens <= 2 ? 6 : 12) / kTiles;
  static constexpr int kSumStride = kRows + 1;
  static constexpr int kSumBytes = kRowsWarps * 8 * kTokens * kSumStride * 4;
  static constexpr int kBytes = kRowsWarps * kStages * kStageBytes + kSumBytes;
};

// Which 16 bytes of a piece lie where in row `row`: so that the rows that are read at once, of
// vectors of 16, 8 or 4 bytes, lie in different banks.
__device__ inline int swizzled(int row, int chunk) {
  return chunk ^ (((row & 1) << 2) | (row & 2) | ((row & 4) >> 2));
}

// What of a unit is this warp's: a tile of rows, and every `splits`-th piece from `piece` on.
struct RowsPlace {
  int row0, token0, piece, pieces;
};
using RowsJobs = JobList<RowsJob, 16>;

template <int kRows, int kTokens>
__device__ inline RowsPlace place_of(const RowsJob& job, int unit, int pieces, int log_splits) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int local = unit - job.first;
  const int tile = ((local / job.token_tiles) << (3 - log_splits)) + (warp >> log_splits);
  RowsPlace p;
  p.row0 = tile * kRows;
  p.token0 = local % job.token_tiles * 8 * kTokens;
  p.piece = warp & ((1 << log_splits) - 1);
  p.pieces = p.row0 < job.n ? pieces : 0;
  return p;
}

// The job of a unit, out of a list.
struct ListedRows {
  const RowsJobs& jobs;
  __device__ const RowsJob& operator()(int unit) const {
    return jobs_of(jobs)[job_of_block(jobs, unit)];
  }
};

// The pieces of all units of a warp in their order, asked for ahead of their use. `jobs(unit)` is
// a unit's job.
template <class W, int kTiles, int kTokens, class Jobs, bool kPair = false>
class RowsStream {
  using Sizes = RowsSizes<kTiles, kTokens>;
  static constexpr int kJobRows = kPair ? Sizes::kRows / 2 : Sizes::kRows;  // of each matrix

 public:
  __device__ RowsStream(const Jobs& jobs, int units, int log_splits, std::uint8_t* ring)
      : jobs_(jobs), units_(units), log_splits_(log_splits), ring_(ring) {
    unit_ = static_cast<int>(blockIdx.x) - static_cast<int>(gridDim.x);
    const int chunk = static_cast<int>(threadIdx.x) % 8;
    lane_row_ = static_cast<int>(threadIdx.x) % 32 / 8;
    lane_byte_ = chunk * 16;
    even_at_ = lane_row_ * Sizes::kPieceBytes + swizzled(lane_row_, chunk) * 16;
    odd_at_ = (lane_row_ + 4) * Sizes::kPieceBytes + swizzled(lane_row_ + 4, chunk) * 16;
  }

  // Asks for the next piece, if there is one.
  __device__ void ask() {
    while (piece_ >= pieces_ && unit_ < units_) next_unit();
    if (unit_ < units_) {
      const int at = piece_ * Sizes::kPieceBytes + lane_byte_;
      std::uint8_t* to = ring_ + slot_ * Sizes::kStageBytes;
      const int bytes = max(0, min(16, row_bytes_ - at));
      const std::uint8_t* from = bytes > 0 ? lane_rows_ + at : lane_rows_;
      if (vectors_ && whole_) {
#pragma unroll
        for (int i = 0; i < Sizes::kRows / 4; ++i) {
          copy_vector(to + lane_at(i), from, bytes);
          from += four_rows_;
          if constexpr (kPair) {
            if (i == kJobRows / 4 - 1) from += to_up_ - kJobRows / 4 * four_rows_;
          }
        }
      } else if (vectors_) {
        for (int i = 0; i < Sizes::kRows / 4; ++i) {
          copy_vector(to + lane_at(i), from + clamped(i), bytes);
        }
      } else {
        for (int i = 0; i < Sizes::kRows / 4; ++i) {
          *reinterpret_cast<uint4*>(to + lane_at(i)) =
              read_carefully<uint4>(lane_rows_ + clamped(i), at, row_bytes_);
        }
      }
      piece_ += 1 << log_splits_;
    }
    asm volatile("cp.async.commit_group;");
    slot_ = slot_ + 1 == Sizes::kStages ? 0 : slot_ + 1;
  }

 private:
  // Zeros behind `bytes`.
  __device__ static void copy_vector(std::uint8_t* to, const std::uint8_t* from, int bytes) {
    const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from),
                 "r"(bytes));
  }
  __device__ int lane_at(int i) const {
    return (i % 2 == 0 ? even_at_ : odd_at_) + i / 2 * 8 * Sizes::kPieceBytes;
  }
  // From this lane's first row to its i-th, or to the last row of all.
  __device__ std::int64_t clamped(int i) const {
    if constexpr (kPair) {
      if (i >= kJobRows / 4) {
        return to_up_ + min(4 * i - kJobRows, last_row_) * (four_rows_ / 4);
      }
    }
    return min(4 * i, last_row_) * (four_rows_ / 4);
  }
  __device__ void next_unit() {
    unit_ += static_cast<int>(gridDim.x);
    if (unit_ >= units_) return;
    const auto& job = jobs_(unit_);
    row_bytes_ = static_cast<int>((static_cast<std::int64_t>(job.k) * W::kBits + 7) / 8);
    const RowsPlace p = place_of<kJobRows, kTokens>(
        job, unit_, (row_bytes_ + Sizes::kPieceBytes - 1) / Sizes::kPieceBytes, log_splits_);
    piece_ = p.piece;
    pieces_ = p.pieces;
    four_rows_ = 4 * job.w_stride;
    vectors_ = job.w_vectors;
    whole_ = p.row0 + kJobRows <= job.n;
    if constexpr (kPair) to_up_ = job.w_up - job.w;
    lane_rows_ = job.w + (p.row0 + lane_row_) * job.w_stride;
    last_row_ = job.n - 1 - p.row0 - lane_row_;  // may be before this lane's first
  }

  const Jobs& jobs_;
  int units_, log_splits_;
  std::uint8_t* ring_;
  int unit_, piece_ = 0, pieces_ = 0, slot_ = 0;
  int lane_row_, lane_byte_, even_at_, odd_at_, row_bytes_ = 0, last_row_ = 0;
  const std::uint8_t* lane_rows_ = nullptr;
  std::int64_t four_rows_ = 0, to_up_ = 0;
  bool vectors_ = false, whole_ = false;
};

// The columns [col, col + kCount) of a row of x, as bf16 pairs; zeros from k on. kWhole: all of
// them are before k, and rows are of whole vectors.
template <int kCount, bool kFloat, bool kWhole>
__device__ inline void read_x(const void* row, int col, int k, std::uint32_t (&out)[kCount / 2]) {
  if constexpr (!kWhole) {
    const uint4 v = eight_bf16(row, col, min(kCount, k - col), kFloat, false);
    out[0] = v.x;
    out[1] = v.y;
    if constexpr (kCount == 8) {
      out[2] = v.z;
      out[3] = v.w;
    }
  } else if constexpr (kFloat) {
    const auto* from = reinterpret_cast<const float4*>(static_cast<const float*>(row) + col);
#pragma unroll
    for (int i = 0; i < kCount / 4; ++i) {
      const float4 v = __ldg(from + i);
      out[2 * i] = pack_bf16(v.x, v.y);
      out[2 * i + 1] = pack_bf16(v.z, v.w);
    }
  } else if constexpr (kCount == 4) {
    const uint2 v =
        __ldg(reinterpret_cast<const uint2*>(static_cast<const std::uint16_t*>(row) + col));
    out[0] = v.x;
    out[1] = v.y;
  } else {
    const uint4 v =
        __ldg(reinterpret_cast<const uint4*>(static_cast<const std::uint16_t*>(row) + col));
    out[0] = v.x;
    out[1] = v.y;
    out[2] = v.z;
    out[3] = v.w;
  }
}

// Sums of a warp over its pieces of one tile: kTokens blocks of 8 rows of x.
template <class W, int kTiles, int kTokens, bool kFloat, class Job = RowsJob, bool kPair = false>
class RowsSums {
  static constexpr bool kRouted = std::is_same_v<Job, RoutedRowsJob>;

 public:
  float sum[kTiles][kTokens][4] = {};

  __device__ RowsSums(const Job& job, const RowsPlace& place) : job_(job) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    in_eight_ = lane / 4;
    quarter_ = lane % 4;
    const int byte = quarter_ * static_cast<int>(sizeof(Vector));
    lane_at_ = in_eight_ * 128 + swizzled(in_eight_, byte / 16) * 16 + byte % 16;
    token0_ = place.token0;
    k_ = job.k;
    x_vectors_ = job.x_vectors;
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      // Past the last row of x: that one again, for a result that nobody stores.
      int token = min(place.token0 + t * 8 + in_eight_, job.m - 1);
      if constexpr (kRouted) {
        if (job.x_rows != nullptr) token = job.x_rows[token];
      }
      x_[t] = static_cast<const char*>(job.x) + token * job.x_stride * (kFloat ? 4 : 2);
    }
    if constexpr (W::kScaled) {
      scales_ = job.scales;
      if constexpr (kPair) scales_up_ = job.scales_up;
      groups_ = (k_ + job.group - 1) / job.group;
      log_group_spans_ = job.group / kSpan == 2 ? 1 : 0;
      x_scales_ = !kFloat && job.x_scales != nullptr;
#pragma unroll
      for (int r = 0; r < kTiles; ++r) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int tile = kPair ? 0 : r * 16;  // the second of a pair has the rows of the first
          const int row = min(place.row0 + tile + h * 8 + in_eight_, job.n - 1);
          scale_rows_[r][h] = static_cast<int>(
              (W::kBlockScales ? (job.first_row + row) / 128 : row) * job.scale_stride);
        }
      }
    }
  }

  // One piece of 128 bytes of each row, in shared memory.
  __device__ void add(const std::uint8_t* stage, int piece) {
    if (x_vectors_ && (piece + 1) * kPieceCols <= k_) {
      add_spans<true>(stage, piece * kPieceCols);
    } else {
      add_spans<false>(stage, piece * kPieceCols);
    }
  }

  // Rows with a NaN code have no other result.
  __device__ void finish() {
    if constexpr (W::kNaNs) {
#pragma unroll
      for (int r = 0; r < kTiles; ++r) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          std::uint32_t any = nans_[r][h];
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
  }

 private:
  using Vector = typename W::Vector;
  static constexpr int kSpan = 4 * W::kCols;             // columns of four lanes' vectors
  static constexpr int kPieceCols = 128 * 8 / W::kBits;  // a whole number of groups
  static constexpr int kSpans = kPieceCols / kSpan;

  template <bool kWhole>
  __device__ void add_spans(const std::uint8_t* stage, int col0) {
    constexpr int kUnroll = kWhole ? 2 : 1;
#pragma unroll kUnroll
    for (int s = 0; s < kSpans; ++s) {
      add_span<kWhole>(stage, s, col0 + s * kSpan);
      if constexpr (W::kScaled) {
        const int span = col0 / kSpan + s;
        if (log_group_spans_ == 0) {
          scale(span);
        } else if (s % 2 == 1) {
          scale(span / 2);
        }
      }
    }
  }

  template <bool kWhole>
  __device__ void add_span(const std::uint8_t* stage, int s, int col0) {
    Vector v[kTiles][2];
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        // The bits of a span are above those of a quarter: swizzling keeps them apart.
        const int at = lane_at_ ^ s * 4 * static_cast<int>(sizeof(Vector));
        v[r][h] = *reinterpret_cast<const Vector*>(stage + at + (r * 2 + h) * 8 * 128);
        if constexpr (W::kNaNs) nans_[r][h] |= W::nans(v[r][h]);
      }
    }
#pragma unroll
    for (int step = 0; step < W::kCols / W::kStep; ++step) {
      std::uint32_t w[kTiles][2][W::kStep / 2];
#pragma unroll
      for (int r = 0; r < kTiles; ++r) {
#pragma unroll
        for (int h = 0; h < 2; ++h) W::decode(v[r][h], step, w[r][h]);
      }
      const int col = col0 + quarter_ * W::kCols + step * W::kStep;
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
        std::uint32_t x[W::kStep / 2];
        read_x<W::kStep, kFloat, kWhole>(x_[t], col, k_, x);
#pragma unroll
        for (int r = 0; r < kTiles; ++r) {
#pragma unroll
          for (int i = 0; i < W::kStep / 4; ++i) {
            const std::uint32_t a[4] = {w[r][0][2 * i], w[r][1][2 * i], w[r][0][2 * i + 1],
                                        w[r][1][2 * i + 1]};
            if constexpr (W::kScaled) {
              mma_bf16(part_[r][t], a, x[2 * i], x[2 * i + 1]);
            } else {
              mma_bf16(sum[r][t], a, x[2 * i], x[2 * i + 1]);
            }
          }
        }
      }
    }
  }

  __device__ float scale_of(int r, int h, int group) const {
    const int at = scale_rows_[r][h] + group;
    const void* scales = kPair && r == 1 ? scales_up_ : scales_;
    if constexpr (W::kBlockScales) {
      return __ldg(static_cast<const float*>(scales) + at);
    } else {
      const auto bits = __ldg(static_cast<const unsigned short*>(scales) + at);
      return __uint_as_float(static_cast<std::uint32_t>(bits) << 16);
    }
  }

  // The parts of a group into the sums.
  __device__ void scale(int group) {
    if (group >= groups_) return;  // beyond the last: zeros
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
      const float scales[2] = {scale_of(r, 0, group), scale_of(r, 1, group)};
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          float s = scales[e / 2];
          if (x_scales_) {
            const int token = min(token0_ + t * 8 + quarter_ * 2 + e % 2, job_.m - 1);
            s *= job_.x_scales[token * job_.x_scale_stride + group * job_.group / 128];
          }
          sum[r][t][e] = fmaf(part_[r][t][e], s, sum[r][t][e]);
          part_[r][t][e] = 0;
        }
      }
    }
  }

  const Job& job_;
  const void *scales_ = nullptr, *scales_up_ = nullptr;
  const char* x_[kTokens];
  int in_eight_, quarter_, lane_at_, token0_, k_, groups_ = 0, log_group_spans_ = 0;
  bool x_vectors_, x_scales_ = false;
  int scale_rows_[kTiles][2];
  float part_[W::kScaled ? kTiles : 1][W::kScaled ? kTokens : 1][4] = {};
  std::uint32_t nans_[kTiles][2] = {};
};

template <class W, int kTiles, int kTokens, bool kFloat>
__global__ void __launch_bounds__(kRowsThreads, RowsSizes<kTiles, kTokens>::kBlocks)
    rows_kernel(const __grid_constant__ RowsJobs jobs, int units, int log_splits) {
  // Quantised weights are never written: those of a list that came along are asked for at once.
  const bool early = W::kScaled && jobs.staged == nullptr;
  if (!early) after_those_before();
  using Sizes = RowsSizes<kTiles, kTokens>;
  extern __shared__ __align__(128) std::uint8_t shared[];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  std::uint8_t* ring = shared + warp * Sizes::kStages * Sizes::kStageBytes;
  auto* sums = reinterpret_cast<float*>(shared + kRowsWarps * Sizes::kStages * Sizes::kStageBytes);

  const ListedRows listed{jobs};
  RowsStream<W, kTiles, kTokens, ListedRows> stream(listed, units, log_splits, ring);
#pragma unroll 1
  for (int i = 0; i < Sizes::kStages - 1; ++i) stream.ask();
  if (early) after_those_before();
  int slot = 0;
  for (int unit = static_cast<int>(blockIdx.x); unit < units; unit += static_cast<int>(gridDim.x)) {
    const RowsJob& job = listed(unit);
    const auto row_bytes = static_cast<int>((static_cast<std::int64_t>(job.k) * W::kBits + 7) / 8);
    const RowsPlace place =
        place_of<Sizes::kRows, kTokens>(job, unit, (row_bytes + 127) / 128, log_splits);
    RowsSums<W, kTiles, kTokens, kFloat> mine(job, place);
    for (int piece = place.piece; piece < place.pieces; piece += 1 << log_splits) {
      asm volatile("cp.async.wait_group %0;" ::"n"(Sizes::kStages - 2) : "memory");
      __syncwarp();  // every lane's part has arrived, and nobody reads the slot that is asked next
      stream.ask();
      mine.add(ring + slot * Sizes::kStageBytes, piece);
      slot = slot + 1 == Sizes::kStages ? 0 : slot + 1;
    }
    mine.finish();
    // [warp][token][row], then the warps' sums in their order.
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int token = t * 8 + lane % 4 * 2 + e % 2, row = r * 16 + lane / 4 + e / 2 * 8;
          sums[(warp * 8 * kTokens + token) * Sizes::kSumStride + row] = mine.sum[r][t][e];
        }
      }
    }
    __syncthreads();
    const int tokens = min(job.m - place.token0, 8 * kTokens);
    const int tiles = kRowsWarps >> log_splits;
    const int block_row0 = place.row0 - (warp >> log_splits) * Sizes::kRows;
    for (int i = static_cast<int>(threadIdx.x); i < tiles * tokens * Sizes::kRows;
         i += kRowsThreads) {
      const int in_tile = i % Sizes::kRows, token = i / Sizes::kRows % tokens;
      const int tile = i / Sizes::kRows / tokens, row = block_row0 + tile * Sizes::kRows + in_tile;
      if (row >= job.n) continue;
      float total = 0;
      for (int w = tile << log_splits; w < (tile + 1) << log_splits; ++w) {
        total += sums[(w * 8 * kTokens + token) * Sizes::kSumStride + in_tile];
      }
      const std::int64_t at = (place.token0 + token) * job.y_stride + row;
      if (job.y_bf16 != nullptr) {
        job.y_bf16[at] = __float2bfloat16_rn(total);
      } else {
        job.y[at] = job.accumulate ? job.y[at] + total : total;
      }
    }
    __syncthreads();
  }
}

// Log2 of the warps that share a tile: the fewest rounds of pieces, where each tile costs the time
// of a few pieces beside its own.
template <class W, int kTiles, int kTokens>
int rows_splits(const std::vector<RowsJob>& jobs, int most_blocks) {
  constexpr std::int64_t kTileCost = 3;
  int best = 0;
  std::int64_t least = 0;
  for (int log = 0; log <= 3; ++log) {
    std::int64_t units = 0, pieces = 0;
    for (const RowsJob& j : jobs) {
      units += std::int64_t{ceil_div(ceil_div(j.n, 16 * kTiles), kRowsWarps >> log)} *
               ceil_div(j.m, 8 * kTokens);
      pieces = std::max<std::int64_t>(pieces, ceil_div(std::int64_t{j.k} * W::kBits, 128 * 8));
    }
    const std::int64_t rounds =
        ceil_div(units, most_blocks) * (ceil_div(pieces, std::int64_t{1} << log) + kTileCost);
    if (log == 0 || rounds < least) {
      best = log;
      least = rounds;
    }
  }
  return best;
}

template <class W, int kTiles, int kTokens, bool kFloat>
void launch_rows_kernel(const Context& ctx, std::vector<RowsJob>& jobs) {
  using Sizes = RowsSizes<kTiles, kTokens>;
  const int most_blocks = Sizes::kBlocks * device_of(ctx).processors();
  const int log_splits = rows_splits<W, kTiles, kTokens>(jobs, most_blocks);
  int units = 0;
  for (RowsJob& j : jobs) {
    j.first = units;
    j.token_tiles = ceil_div(j.m, 8 * kTokens);
    j.units = ceil_div(ceil_div(j.n, Sizes::kRows), kRowsWarps >> log_splits) * j.token_tiles;
    units += j.units;
  }
  const auto kernel = rows_kernel<W, kTiles, kTokens, kFloat>;
  static const cudaError_t room = [&] {
    cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                         cudaSharedmemCarveoutMaxShared);
    return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Sizes::kBytes);
  }();
  check(room, "asking for shared memory");
  launch_early(ctx, "rows_kernel", kernel,
               dim3(static_cast<unsigned>(std::min(units, most_blocks))), dim3(kRowsThreads),
               Sizes::kBytes, job_list<16>(ctx, jobs, units), units, log_splits);
}

// One launch for a list; which kernel, by the most rows of x that a problem has. More than 8 have
// to be bf16.
template <class W>
void launch_rows(const Context& ctx, std::vector<RowsJob>& jobs, bool x_float) {
  if (jobs.empty()) return;
  constexpr int kTiles = W::kScaled ? 2 : 1;
  int most = 0;
  for (const RowsJob& j : jobs) most = std::max(most, j.m);
  if (x_float) {
    launch_rows_kernel<W, kTiles, 1, true>(ctx, jobs);
  } else if (most <= 8) {
    launch_rows_kernel<W, kTiles, 1, false>(ctx, jobs);
  } else if (most <= 16) {
    launch_rows_kernel<W, 2, 2, false>(ctx, jobs);
  } else {
    launch_rows_kernel<W, 2, 4, false>(ctx, jobs);
  }
}

}  // namespace cachalot::cuda
