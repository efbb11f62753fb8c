#include "numeric/quantize.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "numeric/small_float.h"

namespace cachalot::numeric {

std::string_view name(ScaleKind kind) noexcept {
  switch (kind) {
    case ScaleKind::kPlain:
      return "plain";
    case ScaleKind::kPow2:
      return "pow2";
    case ScaleKind::kOfficial:
      return "official";
    case ScaleKind::kOfficialUe8m0:
      return "official_ue8m0";
  }
  return "plain";
}

float round_up_to_power_of_two(float x) noexcept {
  if (!std::isfinite(x)) return x;
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if (bits < 0x00800000u) {  // below the normals a power of two is a single bit
    return std::bit_cast<float>(std::bit_ceil(std::max(bits, 1u)));
  }
  return std::bit_cast<float>((bits + 0x007FFFFFu) & 0x7F800000u);
}

float block_scale(ScaleKind kind, float amax) noexcept {
  constexpr float kOfficialFloor = 1e-4f;
  const bool official = kind == ScaleKind::kOfficial || kind == ScaleKind::kOfficialUe8m0;
  if (official && amax < kOfficialFloor) amax = kOfficialFloor;
  if (amax == 0.0f) return 1.0f;
  float scale = amax / kE4M3Max;
  // Magnitudes so small that the quotient vanishes still need a scale to divide by.
  if (scale == 0.0f) scale = std::numeric_limits<float>::denorm_min();
  const bool pow2 = kind == ScaleKind::kPow2 || kind == ScaleKind::kOfficialUe8m0;
  return pow2 ? round_up_to_power_of_two(scale) : scale;
}

static void check(const char* op, int rows, int cols, int scale_rows, int scale_cols,
                  int other_rows, int other_cols, int block_rows, int block_cols) {
  if (block_rows < 1 || block_cols < 1) {
    throw Error(Code::kShape, cat(op, ": a block of ", block_rows, " x ", block_cols,
                                  " values; both sizes must be at least 1."));
  }
  if (rows != other_rows || cols != other_cols) {
    throw Error(Code::kShape, cat(op, ": values are [", rows, ", ", cols, "] but codes are [",
                                  other_rows, ", ", other_cols, "]; they must be the same."));
  }
  const int want_rows = blocks_of(rows, block_rows), want_cols = blocks_of(cols, block_cols);
  if (scale_rows != want_rows || scale_cols != want_cols) {
    throw Error(Code::kShape, cat(op, ": scales are [", scale_rows, ", ", scale_cols, "] but [",
                                  rows, ", ", cols, "] in blocks of ", block_rows, " x ",
                                  block_cols, " needs [", want_rows, ", ", want_cols, "]."));
  }
}

// NaN if any value is; std::max alone would drop it.
static float largest_magnitude(MatView<const float> x) {
  float amax = 0.0f;
  for (int i = 0; i < x.rows; ++i) {
    for (int j = 0; j < x.cols; ++j) {
      const float magnitude = std::fabs(x.at(i, j));
      if (std::isnan(magnitude)) return magnitude;
      amax = std::max(amax, magnitude);
    }
  }
  return amax;
}

void quantize_blocks(MatView<const float> x, ScaleKind kind, MatView<std::uint8_t> codes,
                     MatView<float> scales, int block_rows, int block_cols) {
  check("quantize_blocks", x.rows, x.cols, scales.rows, scales.cols, codes.rows, codes.cols,
        block_rows, block_cols);
  for (int r = 0; r < scales.rows; ++r) {
    for (int c = 0; c < scales.cols; ++c) {
      const int row = r * block_rows, col = c * block_cols;
      const int rows = std::min(block_rows, x.rows - row);
      const int cols = std::min(block_cols, x.cols - col);
      const auto block = x.sub_rows(row, rows).sub_cols(col, cols);
      const float scale = block_scale(kind, largest_magnitude(block));
      scales.at(r, c) = scale;
      for (int i = 0; i < rows; ++i) {
        for (int j = 0; j < cols; ++j) {
          codes.at(row + i, col + j) = encode_e4m3(block.at(i, j) / scale);
        }
      }
    }
  }
}

void quantize_tiles(MatView<const float> x, ScaleKind kind, MatView<std::uint8_t> codes,
                    MatView<float> scales) {
  quantize_blocks(x, kind, codes, scales, 1, kScaleBlock);
}

void dequantize_blocks(MatView<const std::uint8_t> codes, MatView<const float> scales,
                       MatView<float> x, int block_rows, int block_cols) {
  check("dequantize_blocks", x.rows, x.cols, scales.rows, scales.cols, codes.rows, codes.cols,
        block_rows, block_cols);
  for (int i = 0; i < x.rows; ++i) {
    const float* scale = scales.row(i / block_rows);
    for (int j = 0; j < x.cols; ++j) {
      x.at(i, j) = decode_e4m3(codes.at(i, j)) * scale[j / block_cols];
    }
  }
}

void dequantize_tiles(MatView<const std::uint8_t> codes, MatView<const float> scales,
                      MatView<float> x) {
  dequantize_blocks(codes, scales, x, 1, kScaleBlock);
}

void block_scaled_gemm(MatView<const std::uint8_t> a_codes, MatView<const float> a_scales,
                       MatView<const std::uint8_t> w_codes, MatView<const float> w_scales,
                       MatView<double> y) {
  const int k = a_codes.cols;
  if (w_codes.cols != k || y.rows != a_codes.rows || y.cols != w_codes.rows) {
    throw Error(Code::kShape, cat("block_scaled_gemm: a is [", a_codes.rows, ", ", k, "], w [",
                                  w_codes.rows, ", ", w_codes.cols, "], y [", y.rows, ", ", y.cols,
                                  "]; needed are a [T, K], w [N, K], y [T, N]."));
  }
  check("block_scaled_gemm: a", a_codes.rows, k, a_scales.rows, a_scales.cols, a_codes.rows, k, 1,
        kScaleBlock);
  check("block_scaled_gemm: w", w_codes.rows, k, w_scales.rows, w_scales.cols, w_codes.rows, k,
        kScaleBlock, kScaleBlock);
  for (int t = 0; t < y.rows; ++t) {
    for (int n = 0; n < y.cols; ++n) {
      double sum = 0.0;
      for (int block = 0; block < a_scales.cols; ++block) {
        const int begin = block * kScaleBlock, end = std::min(k, begin + kScaleBlock);
        double part = 0.0;
        for (int i = begin; i < end; ++i) {
          part += static_cast<double>(decode_e4m3(a_codes.at(t, i))) *
                  static_cast<double>(decode_e4m3(w_codes.at(n, i)));
        }
        sum += part * static_cast<double>(a_scales.at(t, block)) *
               static_cast<double>(w_scales.at(n / kScaleBlock, block));
      }
      y.at(t, n) = sum;
    }
  }
}

}  // namespace cachalot::numeric
