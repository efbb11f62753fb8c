// For tests only: block-scaled operands of random codes, and comparisons in which any NaN is NaN.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "base/rng.h"
#include "numeric/small_float.h"
#include "tensor/fp8.h"

namespace cachalot::testing {

// Codes of all sizes, subnormals too, without NaN; scales in (0.5, 1.5), or powers of two.
struct Fp8Operand {
  std::vector<std::uint8_t> codes;
  std::vector<float> scales;
  Fp8Out out;

  Fp8Operand(int rows, int cols, ScaleTile tile, std::uint64_t seed, int pad = 0,
             bool pow2 = false) {
    const Rng rng(11, seed);
    const int scale_pitch = scale_cols(tile, cols) + pad;
    // What lies between the rows must never be read: NaN.
    codes.assign(static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols + pad), 0x7F);
    scales.assign(
        static_cast<std::size_t>(scale_rows(tile, rows)) * static_cast<std::size_t>(scale_pitch),
        std::numeric_limits<float>::quiet_NaN());
    out = {codes.data(), rows, cols, cols + pad, scales.data(), scale_pitch, tile};
    std::uint64_t n = 0;
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < cols; ++j) {
        const auto code = static_cast<std::uint8_t>(rng.below(++n, 256));
        out.row(i)[j] = (code & 0x7F) == 0x7F ? std::uint8_t{0x81} : code;
      }
    }
    for (int i = 0; i < scale_rows(tile, rows); ++i) {
      for (int j = 0; j < scale_cols(tile, cols); ++j) {
        const double u = rng.uniform(++n);
        out.scale_row(i)[j] =
            pow2 ? std::ldexp(1.0f, static_cast<int>(20 * u) - 10) : static_cast<float>(0.5 + u);
      }
    }
  }
  Fp8Operand(const Fp8Operand&) = delete;
  Fp8Operand& operator=(const Fp8Operand&) = delete;
  Fp8View view() const { return out; }
};

inline bool same_float(float x, float y) {
  return std::bit_cast<std::uint32_t>(x) == std::bit_cast<std::uint32_t>(y) ||
         (std::isnan(x) && std::isnan(y));
}
// The index of the first difference, or -1.
inline std::ptrdiff_t first_difference(std::span<const float> x, std::span<const float> y) {
  if (x.size() != y.size()) return 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (!same_float(x[i], y[i])) return static_cast<std::ptrdiff_t>(i);
  }
  return -1;
}
inline std::ptrdiff_t first_difference(std::span<const std::uint8_t> x,
                                       std::span<const std::uint8_t> y) {
  if (x.size() != y.size()) return 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (x[i] != y[i]) return static_cast<std::ptrdiff_t>(i);
  }
  return -1;
}

inline std::string name(ScaleTile tile) {
  constexpr const char* kNames[] = {"row", "column", "block", "tensor"};
  return kNames[static_cast<int>(tile)];
}

}  // namespace cachalot::testing
