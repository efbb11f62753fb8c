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
};
void swiglu_fp8_ref(const Context& ctx, std::span<const SwigluFp8> jobs);

// Gradients of SwiGLU from what was kept of gate and up.
struct SwigluBackwardFp8 {
  Fp8View gate, up;           // [T, F]
  MatView<const float> dout;  // [T, F]
  MatView<float> dgate, dup;  // [T, F]
};
void swiglu_backward_fp8_ref(const Context& ctx, const SwigluBackwardFp8& a);

void check_shapes(const RmsNormFp8& a);
void check_shapes(const SwigluFp8& a);
void check_shapes(const SwigluBackwardFp8& a);
void rms_norm_fp8(const Context& ctx, const RmsNormFp8& a);
void swiglu_fp8(const Context& ctx, std::span<const SwigluFp8> jobs);
void swiglu_backward_fp8(const Context& ctx, const SwigluBackwardFp8& a);
inline void swiglu_fp8(const Context& ctx, const SwigluFp8& a) {
  swiglu_fp8(ctx, std::span<const SwigluFp8>(&a, 1));
}

}  // namespace cachalot
