// Rows of the latent cache, [L + R] numbers per token and layer, in blocks of 64 tokens that may
// lie anywhere: what attention reads and what a pass appends to.
//
// Formats of a row (row_bytes apart inside a block):
//   F32   L floats, R floats
//   BF16  L bf16, R bf16
//   FP8   L codes of E4M3, one float scale per 128 of them (the last tile may be short, the scales
//         begin at a multiple of 4 bytes), R bf16: 656 bytes for L = 512, R = 64.
//
// In FP8 a value is code * scale. A scale is a power of two from 2^-100 to 2^119 (floats keep their
// relative precision under it, and the value is exact in bf16) or NaN where the tile had a NaN, an
// infinity or values up to the end of float. Codes have no subnormals, which would be below 2^-14
// of their tile's largest value: those round to 0 or to the least normal code. So a code becomes
// bf16 by shifting, masking and an integer addition.
//
// Threads: rows are independent; writers and readers of one row are kept apart by the caller.
// Errors:  kShape where operands do not fit each other.
// Paper:   V3 report 2.1.1; the layout of FP8 rows as in FlashMLA.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/context.h"
#include "tensor/mat.h"

namespace cachalot {

enum class LatentFormat : std::uint8_t { kF32, kBF16, kFp8 };
std::string_view name(LatentFormat format) noexcept;  // "f32", "bf16", "fp8"

inline constexpr int kLatentBlock = 64;  // tokens of a block
inline constexpr int kLatentTile = 128;  // codes that share a scale
inline constexpr float kLatentMinScale = 0x1p-100f;
inline constexpr float kLatentMaxScale = 0x1p119f;

struct LatentLayout {
  LatentFormat format = LatentFormat::kBF16;
  int latent = 0;  // L
  int rope = 0;    // R

  int width() const noexcept { return latent + rope; }
  int tiles() const noexcept { return (latent + kLatentTile - 1) / kLatentTile; }
  // FP8: where the scales and the rope part of a row begin.
  std::ptrdiff_t scales_at() const noexcept { return (latent + 3) / 4 * 4; }
  std::ptrdiff_t rope_at() const noexcept { return scales_at() + 4 * tiles(); }
  std::ptrdiff_t row_bytes() const noexcept;
  std::ptrdiff_t block_bytes() const noexcept { return kLatentBlock * row_bytes(); }
  bool operator==(const LatentLayout&) const = default;
};

// The first `rows` rows of one layer of one sequence.
struct LatentRows {
  LatentLayout layout;
  std::span<const std::byte* const> blocks;  // [ceil(rows / 64)]
  std::ptrdiff_t offset = 0;                 // of this layer in each block
  int rows = 0;

  const std::byte* row(int i) const noexcept {
    return blocks[static_cast<std::size_t>(i / kLatentBlock)] + offset +
           i % kLatentBlock * layout.row_bytes();
  }
  LatentRows first(int n) const noexcept { return {layout, blocks, offset, n}; }
};

// The numbers a row stands for, [L + R]: the definition of the formats.
void read_latent_row(const LatentLayout& layout, const std::byte* row, std::span<float> out);

// Columns [begin, begin + out.cols) of the first out.rows rows.
void load_latent_ref(const Context& ctx, const LatentRows& rows, int begin, MatView<float> out);
void load_latent(const Context& ctx, const LatentRows& rows, int begin, MatView<float> out);

// c_kv [n, L] and k_rope [n, R] become the rows from `row` on of a block, all of them in it.
struct StoreLatent {
  LatentLayout layout;
  MatView<const float> c_kv;
  MatView<const float> k_rope;
  std::byte* row = nullptr;
};
void check_shapes(const StoreLatent& a);
void store_latent_ref(const Context& ctx, std::span<const StoreLatent> jobs);
void store_latent(const Context& ctx, std::span<const StoreLatent> jobs);

}  // namespace cachalot
