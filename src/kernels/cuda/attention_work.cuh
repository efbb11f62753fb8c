// What the tiled attention kernels share on the host's side: operands as bf16 rows that TMA can
// fetch, and room in scratch memory.
#pragma once

#include <cuda.h>

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

}  // namespace cachalot::cuda::attn
