// Weights in 8 or 4 bits as published files have them: value = code * scale of its group.
//
// A view only, passed by value: codes and scales lie in a mapped file. Columns are the summed
// dimension of a Linear (K), so a group is a run of columns of one row, or a block of 128 x 128.
// Threads: plain memory, only read.
// Format:  kE4m3: DeepSeek-V3's FP8 folders (`weight`, `weight_scale_inv`). kInt8, kInt4: the
//          `pack-quantized` form of compressed-tensors (`weight_packed`, `weight_scale`): a row is
//          a run of 32-bit words, element j in bits [bits * (j mod per word)] of its word,
//          little-endian, as value + 2^(bits - 1). docs/file-formats.md.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace cachalot {

enum class QuantCode : std::uint8_t {
  kE4m3,  // a byte each; F32 scales of 128 x 128
  kInt8,  // a byte each, value + 128; BF16 scales of 1 x group
  kInt4,  // two to a byte, the even column in the low half, value + 8; BF16 scales of 1 x group
};

struct QuantView {
  static constexpr int kBlockRows = 128;  // of kE4m3

  QuantCode code = QuantCode::kE4m3;
  int rows = 0;
  int cols = 0;
  const std::uint8_t* codes = nullptr;
  std::ptrdiff_t stride = 0;        // bytes from one row to the next
  const void* scales = nullptr;     // [rows or blocks of rows, groups()]: float or Bf16
  std::ptrdiff_t scale_stride = 0;  // scales from one row to the next
  int group = 128;                  // columns that share a scale: 32, 64 or 128
  int first_row = 0;                // of its block of rows, where `sub_rows` cut one

  bool empty() const noexcept { return rows == 0 || cols == 0; }
  int bits() const noexcept { return code == QuantCode::kInt4 ? 4 : 8; }
  int groups() const noexcept { return (cols + group - 1) / group; }
  // Bytes that a row's codes fill; what a word holds beyond them is never used.
  std::ptrdiff_t row_bytes() const noexcept {
    return (static_cast<std::ptrdiff_t>(cols) * bits() + 7) / 8;
  }
  // Rows of `scales`.
  int scale_rows() const noexcept {
    return code == QuantCode::kE4m3 ? (first_row + rows + kBlockRows - 1) / kBlockRows : rows;
  }
  std::size_t bytes() const noexcept {
    const std::size_t width = code == QuantCode::kE4m3 ? sizeof(float) : sizeof(Bf16);
    return static_cast<std::size_t>(rows) * static_cast<std::size_t>(row_bytes()) +
           static_cast<std::size_t>(scale_rows()) * static_cast<std::size_t>(groups()) * width;
  }
  const std::uint8_t* row(std::ptrdiff_t i) const noexcept { return codes + i * stride; }
  float scale_at(int i, int col) const noexcept {
    const std::ptrdiff_t g = col / group;
    if (code != QuantCode::kE4m3) {
      return to_float(static_cast<const Bf16*>(scales)[i * scale_stride + g]);
    }
    const std::ptrdiff_t block = (first_row + i) / kBlockRows;
    return static_cast<const float*>(scales)[block * scale_stride + g];
  }
  QuantView sub_rows(int begin, int count) const noexcept {
    QuantView v = *this;
    v.codes = row(begin);
    v.rows = count;
    if (code == QuantCode::kE4m3) {
      const int first = first_row + begin;
      v.first_row = first % kBlockRows;
      v.scales = static_cast<const float*>(scales) + first / kBlockRows * scale_stride;
    } else {
      v.scales = static_cast<const Bf16*>(scales) + begin * scale_stride;
    }
    return v;
  }
};

}  // namespace cachalot
