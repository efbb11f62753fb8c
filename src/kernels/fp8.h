// Quantising to block-scaled E4M3, and products of such matrices.
//
// Threads: tiles and elements of a result are independent; results do not depend on the threads.
// Errors:  check_shapes throws kShape; kernels assume checked shapes.
// Paper:   DeepSeek-V3 report, sections 3.3.2 and 3.5.2; codes and scales exactly as
//          numeric/quantize.h defines them: scale = block_scale(kind, amax), code =
//          encode_e4m3(x / scale) with a float division.
// Layout:  on a device, results with tiles that span rows may be asked for with transposed codes
//          (Fp8View::transposed), and products read such. The host's tables refuse them.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/context.h"
#include "numeric/quantize.h"
#include "tensor/fp8.h"

namespace cachalot {

// x [R, C] -> codes and scales of one or two tilings, x being read once. A gradient needs both:
// tiles along its rows for dx = dy W, tiles along its columns for dW = dy^T x.
struct QuantizeFp8 {
  MatRef x;  // F32 or BF16
  numeric::ScaleKind kind = numeric::ScaleKind::kPow2;
  Fp8Out out;
  Fp8Out also = {};  // no rows: not wanted
};
void quantize_fp8_ref(const Context& ctx, std::span<const QuantizeFp8> jobs);

// Saved 1 x 128 tiles -> 128 x 1 tiles: multiplied out in float, quantised again. Lossless but for
// underflow where both scales are powers of two.
struct RequantizeFp8 {
  Fp8View x;
  numeric::ScaleKind kind = numeric::ScaleKind::kPow2;
  Fp8Out out;
};
void requantize_fp8_ref(const Context& ctx, std::span<const RequantizeFp8> jobs);

// x = code * scale, as floats, or rounded to bf16, or both.
struct DequantizeFp8 {
  Fp8View x;
  MatView<float> out;       // no rows: not wanted
  MatView<Bf16> half = {};  // likewise
};
void dequantize_fp8_ref(const Context& ctx, const DequantizeFp8& a);

// out[r] = x[rows[r]]: codes and scales of 1 x 128 tiles along rows.
struct GatherCodes {
  Fp8View x;
  std::span<const std::int32_t> rows;
  Fp8Out out;
};
void gather_codes_ref(const Context& ctx, const GatherCodes& a);
void gather_codes(const Context& ctx, const GatherCodes& a);

// C = op(A) op(B). Along the summed dimension each operand's tiles are 128 long (or kTensor):
// A [M, K] kRow, or [K, M] with trans_a kColumn; B [N, K] with trans_b kRow or kBlock, or [K, N]
// kColumn or kBlock; A may be kBlock too.
//
// Per block of 128 k: part = sum of code_a * code_b, in float, k in the order of Precision::kBF16
// (pairs, the odd one first; see kernels/gemm.h; codes are exact in bf16 and no product is a
// denormal); then sum = fma(part, scale_a * scale_b, sum). `accumulate` adds the sum to C at the
// end.
struct Fp8Gemm {
  Fp8View a;         // [M, K], or [K, M] with trans_a
  Fp8View b;         // [K, N], or [N, K] with trans_b
  MatView<float> c;  // [M, N]
  bool trans_a = false;
  bool trans_b = false;
  bool accumulate = false;
  // [M, N] or no rows. Written instead of c, which then gives the shape alone: the result rounded
  // to bf16. Not with `accumulate`. Only on a device.
  MatView<Bf16> c_bf16 = {};

  int m() const noexcept { return c.rows; }
  int n() const noexcept { return c.cols; }
  int k() const noexcept { return trans_a ? a.rows : a.cols; }
};
void gemm_fp8_ref(const Context& ctx, std::span<const Fp8Gemm> problems);

// Throws unless the operand is [rows, cols] and has memory for its codes and scales; and if its
// codes are transposed where they may not be.
void require_fp8(std::string_view op, std::string_view operand, const Fp8View& m, int rows,
                 int cols, bool may_be_transposed = false);
// Throws for what only a device does, if `ctx` has none.
void require_device(const Context& ctx, std::string_view op, bool asks_for_it);
void check_shapes(const QuantizeFp8& a);
void check_shapes(const RequantizeFp8& a);
void check_shapes(const DequantizeFp8& a);
void check_shapes(const Fp8Gemm& g);

void quantize_fp8(const Context& ctx, std::span<const QuantizeFp8> jobs);
void requantize_fp8(const Context& ctx, std::span<const RequantizeFp8> jobs);
void dequantize_fp8(const Context& ctx, const DequantizeFp8& a);
void gemm_fp8(const Context& ctx, std::span<const Fp8Gemm> problems);

// One of each.
inline void quantize_fp8(const Context& ctx, const QuantizeFp8& a) {
  quantize_fp8(ctx, std::span<const QuantizeFp8>(&a, 1));
}
inline void requantize_fp8(const Context& ctx, const RequantizeFp8& a) {
  requantize_fp8(ctx, std::span<const RequantizeFp8>(&a, 1));
}
inline void gemm_fp8(const Context& ctx, const Fp8Gemm& problem) {
  gemm_fp8(ctx, std::span<const Fp8Gemm>(&problem, 1));
}

}  // namespace cachalot
