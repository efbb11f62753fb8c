// Matrices kept in E5M6 with one power-of-two scale per tile of 1 x 128: 12 bits per value, two in
// three bytes, and a byte per tile. What attention's output is saved in.
//
// Layout of a row: codes 2i and 2i + 1 are the low and the high half of the 24-bit little-endian
// number at byte 3i; an odd last column is followed by a zero code. A scale is the exponent field
// of a float: 1 to 254 stand for 2^(byte - 127), 255 for NaN.
// Owns:    its memory; `resize` reuses it.
// Threads: plain memory; the caller keeps writers apart.
// Paper:   DeepSeek-V3 report, section 3.3.3; numeric/e5m6.h has the rules of the codes.
#pragma once

#include <cstdint>

#include "tensor/mat.h"

namespace cachalot {

inline constexpr int kE5M6Tile = 128;

constexpr int e5m6_row_bytes(int cols) { return (cols + 1) / 2 * 3; }
constexpr int e5m6_tiles(int cols) { return (cols + kE5M6Tile - 1) / kE5M6Tile; }

class E5m6Mat {
 public:
  void resize(int rows, int cols) {
    packed_.resize(rows, e5m6_row_bytes(cols));
    scales_.resize(rows, e5m6_tiles(cols));
    cols_ = cols;
  }
  int rows() const noexcept { return packed_.rows(); }
  int cols() const noexcept { return cols_; }
  std::size_t bytes() const noexcept { return packed_.bytes() + scales_.bytes(); }

  std::uint8_t* row(std::ptrdiff_t i) noexcept { return packed_.row(i); }
  const std::uint8_t* row(std::ptrdiff_t i) const noexcept { return packed_.row(i); }
  std::uint8_t* scale_row(std::ptrdiff_t i) noexcept { return scales_.row(i); }
  const std::uint8_t* scale_row(std::ptrdiff_t i) const noexcept { return scales_.row(i); }

 private:
  Mat<std::uint8_t> packed_;  // [rows, e5m6_row_bytes(cols)]
  Mat<std::uint8_t> scales_;  // [rows, e5m6_tiles(cols)]
  int cols_ = 0;
};

}  // namespace cachalot
