// Matrices of E4M3 codes with their scales: value = code * scale of its tile.
//
// Fp8View is passed by value, Fp8Mat owns. A tile never crosses the beginning of a group of rows
// (the rows of one expert), so that each group can be quantised and multiplied by itself. On a
// device the codes of a matrix that products sum over the rows of may lie transposed.
// Threads: plain memory; the caller keeps writers apart.
// Paper:   DeepSeek-V3 report, section 3.3.2.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tensor/mat.h"

namespace cachalot {

// What shares one scale; shorter at the edges of a matrix or group.
enum class ScaleTile : std::uint8_t {
  kRow,     // 1 x 128: activations and gradients as products along a row need them
  kColumn,  // 128 x 1: the same for products along the rows (weight gradients)
  kBlock,   // 128 x 128: weights
  kTensor,  // the whole matrix: what the report compares with
};
inline constexpr int kScaleTileSize = 128;

constexpr int scale_rows(ScaleTile tile, int rows) {
  if (tile == ScaleTile::kRow) return rows;
  return tile == ScaleTile::kTensor ? 1 : (rows + kScaleTileSize - 1) / kScaleTileSize;
}
constexpr int scale_cols(ScaleTile tile, int cols) {
  if (tile == ScaleTile::kColumn) return cols;
  return tile == ScaleTile::kTensor ? 1 : (cols + kScaleTileSize - 1) / kScaleTileSize;
}

// Code: std::uint8_t and float to be written, const of both to be read.
template <class Code, class Scale>
struct BasicFp8View {
  Code* codes = nullptr;
  int rows = 0;
  int cols = 0;
  std::ptrdiff_t stride = 0;
  Scale* scales = nullptr;  // [scale_rows, scale_cols]
  std::ptrdiff_t scale_stride = 0;
  ScaleTile tile = ScaleTile::kRow;
  // The code of (i, j) lies at codes[j * stride + i], its scale where it always does: what products
  // that sum over rows read in place. For devices alone; there is no row(i) then.
  bool transposed = false;

  Code* row(std::ptrdiff_t i) const noexcept { return codes + i * stride; }
  Scale* scale_row(std::ptrdiff_t i) const noexcept { return scales + i * scale_stride; }
  Scale& scale_at(int i, int j) const noexcept {
    const int r = tile == ScaleTile::kRow ? i : tile == ScaleTile::kTensor ? 0 : i / kScaleTileSize;
    const int c = tile == ScaleTile::kColumn   ? j
                  : tile == ScaleTile::kTensor ? 0
                                               : j / kScaleTileSize;
    return scales[r * scale_stride + c];
  }
  // kRow: any rows. kTensor: likewise. Otherwise `begin` has to be where a tile begins.
  BasicFp8View sub_rows(int begin, int count) const noexcept {
    BasicFp8View v = *this;
    v.codes = transposed ? codes + begin : row(begin);
    v.rows = count;
    if (tile == ScaleTile::kRow) v.scales = scale_row(begin);
    if (tile == ScaleTile::kColumn || tile == ScaleTile::kBlock) {
      v.scales = scale_row(begin / kScaleTileSize);
    }
    return v;
  }
  // kColumn: any columns. kTensor: likewise. Otherwise `begin` has to be where a tile begins.
  BasicFp8View sub_cols(int begin, int count) const noexcept {
    BasicFp8View v = *this;
    v.codes = transposed ? row(begin) : codes + begin;
    v.cols = count;
    if (tile == ScaleTile::kColumn) v.scales = scales + begin;
    if (tile == ScaleTile::kRow || tile == ScaleTile::kBlock) {
      v.scales = scales + begin / kScaleTileSize;
    }
    return v;
  }
  bool empty() const noexcept { return rows == 0 || cols == 0; }
  operator BasicFp8View<const Code, const Scale>() const noexcept requires(!std::is_const_v<Code>) {
    return {codes, rows, cols, stride, scales, scale_stride, tile, transposed};
  }
};
using Fp8View = BasicFp8View<const std::uint8_t, const float>;
using Fp8Out = BasicFp8View<std::uint8_t, float>;

// Memory for one matrix, or for groups of rows that lie one after the other. `resize` reuses it: it
// has room for the scales of as many rows however they fall on as many groups.
class Fp8Mat {
 public:
  void resize(int rows, int cols, ScaleTile tile) {
    const std::int32_t begin[] = {0, rows};
    resize(begin, cols, tile);
  }
  // begin [groups + 1]: first row of each group, then the number of rows. Transposed, each group
  // has columns of its own, which begin at multiples of 16 bytes; their number is one of 16 as
  // well.
  void resize(std::span<const std::int32_t> begin, int cols, ScaleTile tile,
              bool transposed = false) {
    tile_ = tile;
    rows_ = begin.back();
    cols_ = cols;
    transposed_ = transposed;
    groups_.clear();
    groups_.reserve(begin.size());
    const int lines = transposed ? (cols + 15) / 16 * 16 : cols;
    int scales = 0, places = 0;  // of codes, `lines` bytes each
    for (std::size_t g = 0; g + 1 < begin.size(); ++g) {
      const int rows = begin[g + 1] - begin[g];
      groups_.push_back({static_cast<std::ptrdiff_t>(places) * lines, rows,
                         transposed ? transposed_stride(rows) : cols, scales});
      scales += scale_rows(tile, rows);
      places += transposed ? transposed_stride(rows) : rows;
    }
    const auto all = static_cast<int>(groups_.size());
    if (transposed && all > 1) codes_.resize(rows_ + all * kMostPadding, lines);
    codes_.resize(places, lines);
    const bool shared = tile == ScaleTile::kColumn || tile == ScaleTile::kBlock;
    if (shared && all > 1) {
      scales_.resize((begin.back() + all * (kScaleTileSize - 1)) / kScaleTileSize,
                     scale_cols(tile, cols));
    }
    scales_.resize(scales, scale_cols(tile, cols));
  }
  std::size_t groups() const noexcept { return groups_.size(); }
  int rows() const noexcept { return rows_; }
  int cols() const noexcept { return cols_; }
  ScaleTile tile() const noexcept { return tile_; }
  std::size_t bytes() const noexcept { return codes_.bytes() + scales_.bytes(); }

  Fp8Out out(std::size_t group = 0) noexcept {
    const Group& g = groups_[group];
    return {codes_.data() + g.codes,  g.rows,         cols_, g.stride,
            scales_.row(g.scale_row), scales_.cols(), tile_, transposed_};
  }
  Fp8View view(std::size_t group = 0) const noexcept {
    const Group& g = groups_[group];
    return {codes_.data() + g.codes,  g.rows,         cols_, g.stride,
            scales_.row(g.scale_row), scales_.cols(), tile_, transposed_};
  }
  // kRow only, whose groups follow one another without a gap.
  Fp8Out out_of_all() noexcept {
    return {codes_.data(), rows_, cols_, cols_, scales_.data(), scales_.cols(), tile_};
  }
  // All groups in one view, where they are one matrix: plain codes, and a multiple of 128 rows in
  // each group but the last where tiles span rows.
  Fp8View view_of_all() const noexcept {
    return {codes_.data(), rows_, cols_, cols_, scales_.data(), scales_.cols(), tile_};
  }

 private:
  struct Group {
    std::ptrdiff_t codes;
    int rows, stride, scale_row;
  };
  // Bytes from one column to the next: an odd number of lines of 128, since the columns of large
  // powers of two would crowd in a few channels of a device's memory.
  static constexpr int transposed_stride(int rows) { return ((rows + 127) / 128 | 1) * 128; }
  static constexpr int kMostPadding = 255;
  Mat<std::uint8_t> codes_;
  Mat<float> scales_;
  std::vector<Group> groups_;
  ScaleTile tile_ = ScaleTile::kRow;
  int rows_ = 0, cols_ = 0;
  bool transposed_ = false;
};

}  // namespace cachalot
