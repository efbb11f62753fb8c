// Ops whose results go straight into block-scaled products, or whose operands were kept in FP8:
// what they would write as floats is quantised while it lies in a cache.
//
// Every one is defined as the ops it is made of, of the same table, one after the other: the same
// bits.
// Threads: as those ops.
// Errors:  check_shapes throws kShape; kernels assume checked shapes.
// Paper:   DeepSeek-V3 report, sections 3.3.3 (SwiGLU's inputs kept in FP8) and 3.5.2.
#pragma once

#include <span>

#include "kernels/context.h"
#include "kernels/elementwise.h"
#include "kernels/fp8.h"
#include "kernels/rms_norm.h"

namespace cachalot {

// The norm of x, quantised in tiles along its rows.
struct RmsNormFp8 {
  RmsNorm<float> norm;  // y without rows: not wanted as floats
  numeric::ScaleKind kind = numeric::ScaleKind::kPow2;
  Fp8Out out;  // [T, D] kRow
};
void rms_norm_fp8_ref(const Context& ctx, const RmsNormFp8& a);

// silu(gate) * up, quantised; gate and up are floats or what was kept of them.
struct SwigluFp8 {
  MatView<const float> gate, up;  // [T, F]; without rows: the kept ones
  Fp8View kept_gate = {}, kept_up = {};
  numeric::ScaleKind kind = numeric::ScaleKind::kPow2;
  Fp8Out out;        // [T, F]
  Fp8Out also = {};  // without rows: not wanted
  // gate and up themselves, from floats, in tiles along their rows: what the backward keeps of
  // them. Without rows: not wanted; with rows, `out` has tiles along its rows and `also` none.
  Fp8Out keep_gate = {}, keep_up = {};
  numeric::ScaleKind keep_kind = numeric::ScaleKind::kPow2;
  // [T, F] or no rows. Read instead of gate and up, which then give the shape alone. Only on a
  // device.
  MatView<const Bf16> gate_bf16 = {}, up_bf16 = {};
};
void swiglu_fp8_ref(const Context& ctx, std::span<const SwigluFp8> jobs);

// Gradients of SwiGLU from what was kept of gate and up, as the products after it read them: along
// their rows for dx, along their columns for the weights' gradients, as is the hidden row that the
// next Linear's weight gradient reads. All [T, F]; `weight` and `dweight` as in SwigluBackward.
struct SwigluBackwardFp8 {
  Fp8View gate, up;  // kRow
  MatView<const float> dout;
  std::span<const float> weight = {};  // [T] or empty
  std::span<float> dweight = {};       // [T] or empty
  numeric::ScaleKind kind = numeric::ScaleKind::kPow2;
  Fp8Out dgate, dup;                  // kRow
  Fp8Out dgate_columns, dup_columns;  // kColumn
  Fp8Out hidden_columns;              // kColumn: weight * silu(gate) * up
  // [T, F] or no rows. Read instead of dout, which then gives the shape alone. Only on a device,
  // where the codes of all three kColumn may be transposed as well.
  MatView<const Bf16> dout_bf16 = {};
};
void swiglu_backward_fp8_ref(const Context& ctx, std::span<const SwigluBackwardFp8> jobs);

void check_shapes(const RmsNormFp8& a);
void check_shapes(const SwigluFp8& a);
void check_shapes(const SwigluBackwardFp8& a);
void rms_norm_fp8(const Context& ctx, const RmsNormFp8& a);
void swiglu_fp8(const Context& ctx, std::span<const SwigluFp8> jobs);
void swiglu_backward_fp8(const Context& ctx, std::span<const SwigluBackwardFp8> jobs);
inline void swiglu_fp8(const Context& ctx, const SwigluFp8& a) {
  swiglu_fp8(ctx, std::span<const SwigluFp8>(&a, 1));
}
inline void swiglu_backward_fp8(const Context& ctx, const SwigluBackwardFp8& a) {
  swiglu_backward_fp8(ctx, std::span<const SwigluBackwardFp8>(&a, 1));
}

}  // namespace cachalot
