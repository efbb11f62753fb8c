// What lies between the products of a bf16 step: operands and results in bf16, half the bytes.
//
// Every one is defined as the float op of the same table on its operands as floats, the results
// then rounded (nearest, ties to even): the same bits, but that a level with an instruction for it
// loses denormals, as its products do.
//
// Threads: as those ops.
// Errors:  check_shapes throws kShape; kernels assume checked shapes.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/context.h"
#include "tensor/mat.h"

namespace cachalot {

// out = silu(gate) * up. All [T, F].
struct SwigluBf16 {
  MatView<const Bf16> gate, up;
  MatView<Bf16> out;
};
void swiglu_bf16_ref(const Context& ctx, const SwigluBf16& a);

// As SwigluBackward<float>.
struct SwigluBackwardBf16 {
  MatView<const Bf16> gate, up, dout;  // [T, F]
  MatView<Bf16> dgate, dup;            // [T, F]
  MatView<Bf16> hidden;                // [T, F] weight * silu(gate) * up
  std::span<const float> weight = {};  // [T] dout counts times this; empty: ones
  std::span<float> dweight = {};       // [T] or empty: sum over the row of dout * silu(gate) * up
};
void swiglu_backward_bf16_ref(const Context& ctx, const SwigluBackwardBf16& a);

// out[r] = x[rows[r]]
struct GatherRowsBf16 {
  MatView<const float> x;
  std::span<const std::int32_t> rows;
  MatView<Bf16> out;
};
void gather_rows_bf16_ref(const Context& ctx, const GatherRowsBf16& a);

// out[t] (+)= sum_j weight(t, j) * y[slot(t, j)]; as Combine<float>. The result is float.
struct CombineBf16 {
  MatView<const Bf16> y;             // [T * k, D]
  MatView<const std::int32_t> slot;  // [T, k]
  MatView<const float> weight;       // [T, k] or empty
  MatView<float> out;                // [T, D]
  bool accumulate = false;
};
void combine_bf16_ref(const Context& ctx, const CombineBf16& a);

// out = x with its rope columns rotated, as Rope<float> would in place.
struct RopeBf16 {
  // [T, heads * head_stride]; the shape alone (no memory): out's own, in place. That only on a
  // device.
  MatView<const float> x;
  int heads = 0, head_stride = 0;  // head h begins at column h * head_stride
  int offset = 0;                  // of the rope columns in a head; cos.cols pairs
  MatView<const float> cos, sin;   // [T, R / 2]
  MatView<Bf16> out;               // as x
  bool inverse = false;            // rotate back: the gradient
};
void rope_bf16_ref(const Context& ctx, const RopeBf16& a);

void check_shapes(const RopeBf16& a);
void check_shapes(const CombineBf16& a);
void check_shapes(const SwigluBf16& a);
void check_shapes(const SwigluBackwardBf16& a);
void check_shapes(const GatherRowsBf16& a);
void swiglu_bf16(const Context& ctx, const SwigluBf16& a);
void swiglu_backward_bf16(const Context& ctx, const SwigluBackwardBf16& a);
void gather_rows_bf16(const Context& ctx, const GatherRowsBf16& a);
void combine_bf16(const Context& ctx, const CombineBf16& a);
void rope_bf16(const Context& ctx, const RopeBf16& a);

}  // namespace cachalot
