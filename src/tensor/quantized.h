// Weights in 8 or 4 bits as published files have them: value = code * scale of its group.
//
// A view only, passed by value: codes and scales lie in a mapped file. Columns are the summed
// dimension of a Linear (K), so a group is a run of columns of one row, or a block of 128 x 128.
// Threads: plain memory, only read.
// Format:  kE4m3: DeepSeek-V3's FP8 folders (`weight`, `weight_scale_inv`). kInt8, kInt4: the
//          `pack-quantized` form of compressed-tensors (`weight_packed`, `weight_scale`): a row is
//          a run of 32-bit words, element j in bits [bits * (j mod per word)] of its word,
//          little-endian, as value + 2^(bits - 1). docs/file-formats.md.
//          Panels (made by kernels/quant_linear.h, never in a file): 16 rows by 128 columns lie
//          together, so that a product of few rows reads one long stream and transposes nothing.
//          Panels of the same 16 rows follow each other along K, padded with zero codes. A panel is
//          vectors of 16 words of 32 bits, a word of each row; vector v holds columns 4v .. 4v + 3
//          (kInt4: 8v .. 8v + 7). Inside a vector: kInt8 as in a row. kE4m3: in each quarter (4
//          rows) first the low halves of the four words, then the high ones. kInt4: even columns in
//          the low half of a word, odd ones in the high half. Scales of kInt8 and kInt4: of 16 rows
//          together, [groups of the padded K][16].
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
  static constexpr int kPanelRows = 16, kPanelCols = 128;

  QuantCode code = QuantCode::kE4m3;
  int rows = 0;
  int cols = 0;
  const std::uint8_t* codes = nullptr;
  std::ptrdiff_t stride = 0;        // bytes from one row (panels: 16 rows) to the next
  const void* scales = nullptr;     // [rows or blocks of rows, groups()]: float or Bf16
  std::ptrdiff_t scale_stride = 0;  // scales from one row to the next (panels of integers: 16 rows)
  int group = 128;                  // columns that share a scale: 32, 64 or 128
  int first_row = 0;                // of its block of rows, where `sub_rows` cut one
  bool panels = false;

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
  std::ptrdiff_t panel_bytes() const noexcept { return kPanelRows * kPanelCols * bits() / 8; }
  // Panels side by side along K.
  int panel_tiles() const noexcept { return (cols + kPanelCols - 1) / kPanelCols; }
  // Memory from the first code to the last, and of the scales likewise.
  std::size_t code_span() const noexcept {
    const int lines = panels ? (rows + kPanelRows - 1) / kPanelRows : rows;
    return static_cast<std::size_t>(lines) * static_cast<std::size_t>(stride);
  }
  std::size_t scale_span() const noexcept {
    if (code == QuantCode::kE4m3) {
      return static_cast<std::size_t>(scale_rows()) * static_cast<std::size_t>(scale_stride) *
             sizeof(float);
    }
    const int lines = panels ? (rows + kPanelRows - 1) / kPanelRows : rows;
    return static_cast<std::size_t>(lines) * static_cast<std::size_t>(scale_stride) * sizeof(Bf16);
  }
  std::size_t bytes() const noexcept {
    const std::size_t width = code == QuantCode::kE4m3 ? sizeof(float) : sizeof(Bf16);
    return static_cast<std::size_t>(rows) * static_cast<std::size_t>(row_bytes()) +
           static_cast<std::size_t>(scale_rows()) * static_cast<std::size_t>(groups()) * width;
  }
  // Of panels: where the 16 rows begin that row i is one of.
  const std::uint8_t* row(std::ptrdiff_t i) const noexcept {
    return codes + (panels ? i / kPanelRows : i) * stride;
  }
  // Element `index` of the run of codes at `at` is the one of (row, col).
  struct Place {
    const std::uint8_t* at;
    int index;
  };
  Place place_of(int i, int col) const noexcept {
    if (!panels) return {row(i), col};
    const int in_row = i % kPanelRows, in_tile = col % kPanelCols;
    const int per_word = 32 / bits(), word = in_tile / per_word, part = in_tile % per_word;
    const std::uint8_t* vector = row(i) + col / kPanelCols * panel_bytes() + word * kPanelRows * 4;
    switch (code) {
      case QuantCode::kE4m3:
        return {vector + in_row / 4 * 16 + part / 2 * 8 + in_row % 4 * 2, part % 2};
      case QuantCode::kInt8:
        return {vector + in_row * 4, part};
      case QuantCode::kInt4:
        break;
    }
    return {vector + in_row * 4, part % 2 * 4 + part / 2};
  }
  float scale_at(int i, int col) const noexcept {
    const std::ptrdiff_t g = col / group;
    if (code != QuantCode::kE4m3) {
      const auto* half = static_cast<const Bf16*>(scales);
      return to_float(panels ? half[i / kPanelRows * scale_stride + g * kPanelRows + i % kPanelRows]
                             : half[i * scale_stride + g]);
    }
    const std::ptrdiff_t block = (first_row + i) / kBlockRows;
    return static_cast<const float*>(scales)[block * scale_stride + g];
  }
  // Of panels, `begin` is a multiple of 16.
  QuantView sub_rows(int begin, int count) const noexcept {
    QuantView v = *this;
    v.codes = row(begin);
    v.rows = count;
    if (code == QuantCode::kE4m3) {
      const int first = first_row + begin;
      v.first_row = first % kBlockRows;
      v.scales = static_cast<const float*>(scales) + first / kBlockRows * scale_stride;
    } else {
      v.scales =
          static_cast<const Bf16*>(scales) + (panels ? begin / kPanelRows : begin) * scale_stride;
    }
    return v;
  }
};

}  // namespace cachalot
