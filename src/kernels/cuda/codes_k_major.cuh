// Codes laid out as the tensor cores read them: K contiguous, rows at multiples of 16 bytes.
//
// A product that sums over the rows of an operand (weight gradients, and gradients of activations
// through a weight) needs the operand transposed: codes of 8 bits are only multiplied with K
// contiguous.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "kernels/cuda/stream.cuh"

namespace cachalot::cuda::fp8_product {

// What a kernel does in one launch, a job for each blockIdx.y: some travel as its argument.
template <class Job>
struct Jobs {
  static constexpr int kNear = 8;
  const Job* list = nullptr;  // null: `near`
  Job near[kNear];

  Jobs(const Context& ctx, std::span<const Job> jobs) {
    if (jobs.size() <= kNear) {
      std::copy(jobs.begin(), jobs.end(), near);
    } else {
      list = stage(ctx, jobs);
    }
  }
  __device__ const Job& operator[](unsigned int i) const {
    return list != nullptr ? list[i] : near[i];
  }
};

// to [cols, rows] = from [rows, cols]^T, or to = from where !transpose.
struct CopyCodes {
  const std::uint8_t* from = nullptr;
  std::uint8_t* to = nullptr;
  std::int64_t from_stride = 0;
  std::int64_t to_stride =
      0;                   // a multiple of 16; what lies between two rows of `to` may be written
  int rows = 0, cols = 0;  // of `from`
  bool transpose = false;

  int tiles_right() const { return ceil_div(cols, 128); }
  int tiles() const { return ceil_div(rows, 128) * tiles_right(); }
};

// Columns c .. c + 3 of one row.
template <bool kAligned>
__device__ __forceinline__ std::uint32_t four_codes(const CopyCodes& job, int row, int col) {
  if (row >= job.rows || col >= job.cols) return 0;
  const std::uint8_t* from = job.from + row * job.from_stride + col;
  if (kAligned && col + 3 < job.cols) return __ldcs(reinterpret_cast<const std::uint32_t*>(from));
  std::uint32_t word = 0;
  for (int i = 0; i < 4 && col + i < job.cols; ++i) word |= std::uint32_t{from[i]} << (8 * i);
  return word;
}

// Words of 4 rows -> words of 4 columns.
__device__ __forceinline__ void transpose_4x4(std::uint32_t (&w)[4]) {
  const std::uint32_t low01 = __byte_perm(w[0], w[1], 0x5140);
  const std::uint32_t high01 = __byte_perm(w[0], w[1], 0x7362);
  const std::uint32_t low23 = __byte_perm(w[2], w[3], 0x5140);
  const std::uint32_t high23 = __byte_perm(w[2], w[3], 0x7362);
  w[0] = __byte_perm(low01, low23, 0x5410);
  w[1] = __byte_perm(low01, low23, 0x7632);
  w[2] = __byte_perm(high01, high23, 0x5410);
  w[3] = __byte_perm(high01, high23, 0x7632);
}

// A thread transposes 16 rows by 4 columns in registers; shared memory turns its 16-byte pieces of
// columns into whole columns of 128 bytes. Piece p of column c lies at piece p ^ (c / 4 % 8), so
// that neither side meets a bank twice.
template <bool kAligned>
__device__ void transpose_tile(const CopyCodes& job, int row, int col, uint4* shared) {
  const int across = static_cast<int>(threadIdx.x) % 32;  // column 4 across
  const int down = static_cast<int>(threadIdx.x) / 32;    // row 16 down
  std::uint32_t word[4][4];                               // [4 rows][row, then column]
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    word[i / 4][i % 4] = four_codes<kAligned>(job, row + 16 * down + i, col + 4 * across);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) transpose_4x4(word[i]);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    shared[(4 * across + i) * 8 + (down ^ (across % 8))] =
        make_uint4(word[0][i], word[1][i], word[2][i], word[3][i]);
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int piece = i * 256 + static_cast<int>(threadIdx.x);
    const int c = piece / 8, p = piece % 8;
    if (col + c >= job.cols || row + 16 * p >= job.rows) continue;
    *reinterpret_cast<uint4*>(job.to + (col + c) * job.to_stride + row + 16 * p) =
        shared[c * 8 + (p ^ (c / 4 % 8))];
  }
}

static __global__ void __launch_bounds__(256)
    copy_codes_kernel(const __grid_constant__ Jobs<CopyCodes> jobs) {
  __shared__ uint4 shared[128 * 8];
  const CopyCodes& job = jobs[blockIdx.y];
  const int right = (job.cols + 127) / 128;
  const int row = static_cast<int>(blockIdx.x) / right * 128;
  const int col = static_cast<int>(blockIdx.x) % right * 128;
  if (row >= job.rows) return;
  const bool aligned =
      reinterpret_cast<std::uintptr_t>(job.from) % 4 == 0 && job.from_stride % 4 == 0;
  if (job.transpose) {
    if (aligned) {
      transpose_tile<true>(job, row, col, shared);
    } else {
      transpose_tile<false>(job, row, col, shared);
    }
    return;
  }
  for (int i = static_cast<int>(threadIdx.x); i < 128 * 32; i += 256) {
    const int r = row + i / 32, c = col + i % 32 * 4;
    if (r >= job.rows || c >= job.cols) continue;
    *reinterpret_cast<std::uint32_t*>(job.to + r * job.to_stride + c) =
        aligned ? four_codes<true>(job, r, c) : four_codes<false>(job, r, c);
  }
}

inline void copy_codes(const Context& ctx, std::span<const CopyCodes> jobs) {
  int tiles = 0;
  for (const CopyCodes& job : jobs) tiles = std::max(tiles, job.tiles());
  if (tiles == 0) return;
  const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(jobs.size()));
  copy_codes_kernel<<<grid, 256, 0, stream_of(ctx)>>>(Jobs<CopyCodes>(ctx, jobs));
  check_launch("copy_codes");
}

// to [cols, rows] = from [rows, cols]^T: scales of rows along K, to be read for many rows at a
// time.
struct TransposeScales {
  const float* from = nullptr;
  float* to = nullptr;
  std::int64_t from_stride = 0;
  std::int64_t to_stride = 0;
  int rows = 0, cols = 0;

  int tiles() const { return ceil_div(rows, 32) * ceil_div(cols, 32); }
};

static __global__ void __launch_bounds__(256)
    transpose_scales_kernel(const __grid_constant__ Jobs<TransposeScales> jobs) {
  __shared__ float tile[32][33];
  const TransposeScales& job = jobs[blockIdx.y];
  const int right = (job.cols + 31) / 32;
  const int row = static_cast<int>(blockIdx.x) / right * 32;
  const int col = static_cast<int>(blockIdx.x) % right * 32;
  const int x = static_cast<int>(threadIdx.x) % 32;
  for (int y = static_cast<int>(threadIdx.x) / 32; y < 32; y += 8) {
    if (row + y < job.rows && col + x < job.cols) {
      tile[y][x] = job.from[(row + y) * job.from_stride + col + x];
    }
  }
  __syncthreads();
  for (int y = static_cast<int>(threadIdx.x) / 32; y < 32; y += 8) {
    if (row + x < job.rows && col + y < job.cols) {
      job.to[(col + y) * job.to_stride + row + x] = tile[x][y];
    }
  }
}

inline void transpose_scales(const Context& ctx, std::span<const TransposeScales> jobs) {
  int tiles = 0;
  for (const TransposeScales& job : jobs) tiles = std::max(tiles, job.tiles());
  if (tiles == 0) return;
  const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(jobs.size()));
  transpose_scales_kernel<<<grid, 256, 0, stream_of(ctx)>>>(Jobs<TransposeScales>(ctx, jobs));
  check_launch("transpose_scales");
}

}  // namespace cachalot::cuda::fp8_product
