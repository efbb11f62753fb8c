// The shape of a product with weights in 8 or 4 bits (kernels/quant_linear.h), the same for every
// level: what is packed when, tasks, threads.
//
// x is packed once, as a panel of words per register tile. Many rows: a task decodes a block of W
// into its core's L2 cache and multiplies every panel of x with it. Few rows: bound by reading W,
// which a task reads once, 16 of its rows at a time, while it fetches the next 16 in the order of
// memory (it gives more to one long stream than to 16 short ones), a line with each line it uses.
// Weights in panels (tensor/quantized.h) are one stream as they are.
//
// A word is what one instruction takes of an output, 32 bits: a float, a pair of bf16 or of 16
// bits, or four bytes. K is padded with zeros to tiles of 128.
//
// Threads: tasks own disjoint parts of y; each element has one order of summation, so neither the
//          split nor the number of rows changes a bit.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/gemm_driver.h"
#include "kernels/quant_linear.h"

namespace cachalot::cpu {

inline constexpr int kQuantTile = 128;  // elements of K
inline constexpr int kQuantLanes = 16;  // outputs of a vector
inline constexpr int kQuantVecs = 2;    // vectors of a register tile, at most

// Rows of x as words, and what int8 activations need besides.
struct QuantPanel {
  int rows = 0;
  std::uint32_t* words = nullptr;  // [tiles * words per tile, rows]
  float* scales = nullptr;         // [tiles, rows]   of int8 activations, or null
  std::int32_t* starts = nullptr;  // [groups, rows]  what their sums start from, likewise
  // Of other activations, few rows: whether the level's pack multiplied words by a power of two.
  std::uint32_t* scaled = nullptr;
};

struct QuantPackJob {
  MatRef x;
  int row = 0;                        // first row of the panel
  QuantCode code = QuantCode::kE4m3;  // of the weights that will be multiplied
  int group = 0;                      // of theirs
  int tiles = 0;                      // that the panel has; zeros behind K
  QuantPanel out;
};

// Tiles [tile, tile + tiles) of rows [line, line + lines) of W.
struct QuantUnpackJob {
  const QuantView* w = nullptr;
  int line = 0;
  int lines = 0;  // at least 1
  int width = 0;  // of the panel: 16, or the level's
  int tile = 0;
  int tiles = 0;
  std::uint32_t* words = nullptr;  // [tiles * words per tile, width]; null: scales only
  float* scales = nullptr;         // [tiles * groups per tile, width]
};

struct QuantTileJob {
  int vecs = 0;
  int tiles = 0;
  int group = 0;
  bool load = false;  // sums go on from c
  QuantPanel a;       // where its first tile lies
  const std::uint32_t* b = nullptr;
  const float* b_scales = nullptr;
  float* c = nullptr;
  std::ptrdiff_t c_stride = 0;
  Touch* touch = nullptr;
  // Where W lies (in panels, as many outputs as the level's width): this panel is the first to read
  // the block, and expands it into `b` on its way.
  const QuantUnpackJob* fresh = nullptr;
};

struct QuantDirectJob {
  QuantPanel a;
  const QuantView* w = nullptr;
  int line = 0;
  int lines = 0;  // at least 1; kQuantLanes of them at a time
  bool accumulate = false;
  float* scales = nullptr;  // room for [groups of quant_direct_tiles, kQuantLanes]
  float* c = nullptr;       // of the first row and line
  std::ptrdiff_t c_stride = 0;
  const Touch* touch = nullptr;
};

struct QuantIsa {
  int tile_words = 0;            // per tile of K: 128 floats, 64 pairs or 32 times four bytes
  int rows = 0;                  // of a panel of x, at most
  int width = 0;                 // outputs that an expanded block of W has side by side
  int fresh_rows = 0;            // of a panel that can expand W on its way
  bool flush_denormals = false;  // as vdpbf16ps does
  bool integers = false;         // int8 activations
  void (*pack)(const QuantPackJob&) = nullptr;
  void (*unpack)(const QuantUnpackJob&) = nullptr;
  void (*tile)(const QuantTileJob&) = nullptr;
  void (*direct)(const QuantDirectJob&) = nullptr;
  void (*store)(const float* tile, std::ptrdiff_t stride, int rows, int cols, bool accumulate,
                float* c, std::ptrdiff_t c_stride) = nullptr;
};

inline constexpr int kQuantDirectRows = 8;

// Tiles that the product of few rows takes at a time.
inline constexpr int kQuantDirectTiles = 2;

// The code of an integer that stands for 0.
constexpr int quant_zero(QuantCode code) { return code == QuantCode::kInt4 ? 8 : 128; }

constexpr int quant_tiles(int k) { return (k + kQuantTile - 1) / kQuantTile; }
constexpr int quant_direct_tiles(int k) {
  return (quant_tiles(k) + kQuantDirectTiles - 1) / kQuantDirectTiles * kQuantDirectTiles;
}

// Rows [line, line + lines) of W, as the product of few rows reads them.
inline Touch quant_direct_touch(const QuantView& w, int line, int lines) {
  if (w.panels) return Touch::of(w.row(line), 0, 1, w.stride);
  if (w.stride == w.row_bytes()) return Touch::of(w.row(line), 0, 1, w.stride * lines);
  return Touch::of(w.row(line), w.stride, lines, w.row_bytes());
}

void run_quant_linear(const QuantIsa& isa, const Context& ctx,
                      std::span<const QuantLinear> problems);

// Panels from rows: `codes` fills those of a block of 16 rows; scales are the same for every level.
void run_pack_quant(const Context& ctx, std::span<const PackQuant> jobs,
                    void (*codes)(const PackQuant& job, int block));

}  // namespace cachalot::cpu
