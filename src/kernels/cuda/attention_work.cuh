// What the tiled attention kernels share on the host's side: operands as bf16 rows that TMA can
// fetch, the order of tiles, and room in scratch memory.
#pragma once

#include <cuda.h>

#include <vector>

#include "kernels/attention.h"
#include "kernels/cuda/stream.cuh"

namespace cachalot::cuda::attn {

// Widths that tiled kernels are built for; narrower heads are padded with zeros.
template <int nope, int rope, int value>
struct Widths {
  static constexpr int kNope = nope, kRope = rope, kValue = value;
  static constexpr int kKey = nope + rope;
  static constexpr int kKeyPanels = nope / 64 + 1, kValuePanels = value / 64;
  static_assert(nope % 64 == 0 && value % 64 == 0 && rope % 16 == 0 && rope <= 64);
};
using WideHeads = Widths<128, 64, 128>;
using NarrowHeads = Widths<64, 32, 64>;

enum class HeadKind { kWide, kNarrow, kOther };
HeadKind head_kind(const AttentionDims& d, Precision precision);

// Operands of forward and backward alike.
struct Inputs {
  MatView<const float> q, kv, k_rope;
  MatView<const Bf16> q_bf16, kv_bf16;
  std::span<const AttentionSpan> spans;
  AttentionDims dims;
  float scale;
  Precision precision;
};
template <class Op>
Inputs inputs_of(const Op& a) {
  return {a.q, a.kv, a.k_rope, a.q_bf16, a.kv_bf16, a.spans, a.dims, a.scale, a.precision};
}

// Sections of one scratch buffer: sizes first, then their addresses.
class Room {
 public:
  std::size_t take(std::size_t bytes) {
    const std::size_t at = bytes_;
    bytes_ += (bytes + 255) / 256 * 256;
    return at;
  }
  std::size_t bytes() const { return bytes_; }

 private:
  std::size_t bytes_ = 0;
};

// q, kv and k_rope as bf16 in rows of padded heads: where they lie if they lie so already, else
// packed into scratch. `room` first: it says what of the scratch is needed.
class PackedInputs {
 public:
  PackedInputs(const Inputs& a, int nope, int rope, int value, Room& room);
  void pack(const Context& ctx, std::byte* scratch);
  CUtensorMap q_map() const, kv_map() const, rope_map() const;

 private:
  struct Rows {
    const Bf16* data = nullptr;
    int rows = 0, cols = 0;
    std::ptrdiff_t stride = 0;
    std::size_t at = 0;
    bool in_place = false;
  };
  static CUtensorMap map_of(const Rows& r);
  const Inputs& a_;
  int nope_, rope_, value_;
  Rows q_, kv_, k_rope_;
};

// Boxes of 64 rows and 64 columns with the 128-byte swizzle.
CUtensorMap tile_map(const Bf16* data, std::int64_t rows, int cols, std::ptrdiff_t stride);

// Whether a kernel may write two floats at a time: at even columns.
bool takes_pairs(MatView<float> m);
__device__ inline void store_pair(float* row, int col, int cols, bool pairs, float x, float y) {
  if (pairs && col < cols) {  // cols is even
    *reinterpret_cast<float2*>(row + col) = make_float2(x, y);
  } else {
    if (col < cols) row[col] = x;
    if (col + 1 < cols) row[col + 1] = y;
  }
}

// a.dk_rope from every head's part [S, H, width], of which the first R columns count.
void sum_over_heads(const Context& ctx, const AttentionBackward<float>& a, const float* parts,
                    int width);

// One block's work: `block` counts blocks of queries or of keys inside the span.
struct Tile {
  int span, head, block, work;
};
// Every (span, head) falls into `blocks(span)` tiles of `work(span, block)`. Tiles whose operands
// fit the L2 cache together come together, the longest of them first: they share what they read,
// and the last to begin are short.
template <class Blocks, class Work>
void order_tiles(std::span<const AttentionSpan> spans, int heads, std::int64_t bytes_per_row,
                 Blocks&& blocks, Work&& work, std::vector<Tile>& tiles) {
  constexpr std::int64_t kTogether = std::int64_t{20} << 20;
  struct Unit {
    int span, head, left;
  };
  std::vector<Unit> units;
  const auto flush = [&] {
    // Blocks of a unit in order of work: it grows with the block (queries) or shrinks (keys).
    const auto next = [&](const Unit& u) {
      const int n = blocks(spans[u.span]);
      const bool grows = work(spans[u.span], 0) <= work(spans[u.span], n - 1);
      return grows ? u.left - 1 : n - u.left;
    };
    while (!units.empty()) {
      int most = 0;
      for (const Unit& u : units) most = std::max(most, work(spans[u.span], next(u)));
      for (Unit& u : units) {
        const int w = work(spans[u.span], next(u));
        if (w < most) continue;
        tiles.push_back({u.span, u.head, next(u), w});
        --u.left;
      }
      std::erase_if(units, [](const Unit& u) { return u.left == 0; });
    }
  };
  tiles.clear();
  std::int64_t together = 0;
  for (int s = 0; s < static_cast<int>(spans.size()); ++s) {
    const int n = blocks(spans[s]);
    if (n == 0) continue;
    for (int h = 0; h < heads; ++h) {
      const std::int64_t bytes = bytes_per_row * spans[s].kv_rows;
      if (together + bytes > kTogether) {
        flush();
        together = 0;
      }
      units.push_back({s, h, n});
      together += bytes;
    }
  }
  flush();
}

}  // namespace cachalot::cuda::attn
