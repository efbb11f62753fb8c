// Operands, results and a plain kernel for tests and benchmarks of gemm_fp8.
#pragma once

#include <cuda_fp8.h>

#include <cstring>
#include <string>
#include <vector>

#include "kernels/cuda/cuda_case_test.h"
#include "kernels/cuda/gemm_fp8.h"
#include "kernels/cuda/stream.cuh"
#include "kernels/fp8.h"

namespace cachalot::cuda::testing {

__device__ inline float uniform(std::uint64_t i, std::uint64_t seed) {  // (0, 1)
  std::uint64_t x = (i + 1) * 0x9E3779B97F4A7C15ull + seed * 0xD1B54A32D192ED03ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  x ^= x >> 31;
  return (static_cast<float>(x >> 40) + 0.5f) * 0x1p-24f;
}
// Normal numbers, 100 wide, as codes; or scales between 0.005 and 0.015.
static __global__ void fill_codes(std::uint8_t* codes, int rows, int cols, std::int64_t stride,
                                  std::uint64_t seed) {
  const std::int64_t n = std::int64_t{rows} * cols;
  for (std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; i < n;
       i += std::int64_t{gridDim.x} * blockDim.x) {
    const float r = sqrtf(-2 * __logf(uniform(i, seed)));
    const float x = 100 * r * __cosf(6.2831853f * uniform(i, seed + 77));
    codes[i / cols * stride + i % cols] = __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
  }
}
static __global__ void fill_scales(float* scales, int rows, int cols, std::int64_t stride,
                                   std::uint64_t seed) {
  const std::int64_t n = std::int64_t{rows} * cols;
  for (std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; i < n;
       i += std::int64_t{gridDim.x} * blockDim.x) {
    scales[i / cols * stride + i % cols] = 0.01f * (0.5f + uniform(i, seed));
  }
}

struct Tiled {
  const std::uint8_t* codes;
  std::int64_t row, col;  // strides
  const float* scales;
  std::int64_t scale_row, scale_col;
  int row_shift, col_shift;
};
inline Tiled tiled(const Fp8View& v, bool transpose) {
  const bool by_row = v.tile == ScaleTile::kRow, by_col = v.tile == ScaleTile::kColumn;
  const bool one = v.tile == ScaleTile::kTensor;
  Tiled t{v.codes,        v.stride,      1, v.scales, one ? 0 : v.scale_stride, one ? 0 : 1,
          by_row ? 0 : 7, by_col ? 0 : 7};
  if (v.transposed) std::swap(t.row, t.col);
  if (transpose) {
    std::swap(t.row, t.col);
    std::swap(t.scale_row, t.scale_col);
    std::swap(t.row_shift, t.col_shift);
  }
  return t;
}
__device__ inline float decode(std::uint8_t code) {
  const __half_raw h = __nv_cvt_fp8_to_halfraw(code, __NV_E4M3);
  return __half2float(*reinterpret_cast<const __half*>(&h));
}
// want = A B in plain loops, size = the sum of the magnitudes; a is [M, K], b [K, N].
static __global__ void plain_product(Tiled a, Tiled b, int m, int n, int k, float* want,
                                     float* size) {
  const int j = blockIdx.x * blockDim.x + threadIdx.x, i = blockIdx.y;
  if (i >= m || j >= n) return;
  float sum = 0, magnitude = 0;
  for (int k0 = 0; k0 < k; k0 += 128) {
    float part = 0, part_size = 0;
    for (int kk = k0; kk < min(k, k0 + 128); ++kk) {
      const float x = decode(a.codes[i * a.row + kk * a.col]);
      const float y = decode(b.codes[kk * b.row + j * b.col]);
      part = fmaf(x, y, part);
      part_size = fmaf(fabsf(x), fabsf(y), part_size);
    }
    const float scale =
        a.scales[(i >> a.row_shift) * a.scale_row + (k0 >> a.col_shift) * a.scale_col] *
        b.scales[(k0 >> b.row_shift) * b.scale_row + (j >> b.col_shift) * b.scale_col];
    sum = fmaf(part, scale, sum);
    magnitude = fmaf(part_size, scale, magnitude);
  }
  want[std::int64_t{i} * n + j] = sum;
  size[std::int64_t{i} * n + j] = magnitude;
}

// Codes and scales on the device, NaN all around them.
struct Operand {
  Mat<std::uint8_t> codes;
  Mat<float> scales;
  int rows = 0, cols = 0, first = 0;  // where the matrix begins in its memory, in bytes
  ScaleTile tile = ScaleTile::kRow;
  bool transposed = false;

  Fp8View view() const {
    return {codes.data() + first, rows,          cols, codes.cols(),
            scales.data(),        scales.cols(), tile, transposed};
  }
};

class Fp8ProductTest : public CudaTest {
 protected:
  cudaStream_t stream() { return static_cast<CudaDevice*>(device_.get())->stream(); }

  // Rows lie `pad` bytes further apart than they are long, the first begins `first` bytes in; with
  // transposed codes, columns.
  Operand operand(int rows, int cols, ScaleTile tile, std::uint64_t seed, int pad = 0,
                  int first = 0, bool transposed = false) {
    const MemoryScope scope(device_.get());
    Operand o;
    o.rows = rows;
    o.cols = cols;
    o.first = first;
    o.tile = tile;
    o.transposed = transposed;
    const int lines = transposed ? cols : rows, length = transposed ? rows : cols;
    o.codes.resize(lines + 1 + first, length + pad);
    check(cudaMemsetAsync(o.codes.data(), 0x7F, o.codes.size(), stream()), "poison");
    const int scale_r = scale_rows(tile, rows), scale_c = scale_cols(tile, cols);
    o.scales.resize(scale_r + 1, scale_c + (pad > 0 ? 1 : 0));
    check(cudaMemsetAsync(o.scales.data(), 0xFF, o.scales.size() * sizeof(float), stream()),
          "poison");
    fill_codes<<<1024, 256, 0, stream()>>>(o.codes.data() + first, lines, length, o.codes.cols(),
                                           seed);
    fill_scales<<<256, 256, 0, stream()>>>(o.scales.data(), scale_r, scale_c, o.scales.cols(),
                                           seed + 1);
    check_launch("fill");
    return o;
  }

  // want and size of a product, on the host.
  struct Want {
    Mat<float> sum, size;
  };
  Want plain(const Fp8Gemm& g) {
    Mat<float> want = room<float>(g.m(), g.n()), size = room<float>(g.m(), g.n());
    if (!want.view().empty()) {
      const dim3 grid(static_cast<unsigned>(ceil_div(g.n(), 128)), static_cast<unsigned>(g.m()));
      plain_product<<<grid, 128, 0, stream()>>>(tiled(g.a, g.trans_a), tiled(g.b, g.trans_b), g.m(),
                                                g.n(), g.k(), want.data(), size.data());
      check_launch("plain_product");
    }
    return {down(want), down(size)};
  }
};

}  // namespace cachalot::cuda::testing
