// Matrix products, plain and as a batch of independent problems (experts, heads).
//
// Symbols: M rows of the result, N its columns, K the summed dimension.
// Threads: split over result tiles only; K is never split, so results do not depend on the threads.
// Errors:  check_shapes throws kShape; kernels assume checked shapes.
//
// The order of summation is part of the contract, so that a row of C has the same bits whatever
// else is in the batch (1 row or 1000, this kernel or the one for single rows):
//   f32:  one float accumulator per element, k ascending, fused multiply-add (plain multiply-add on
//   a
//         level without FMA).
//   bf16: operands rounded to bf16 (nearest, ties to even), k ascending in pairs as vdpbf16ps does:
//         acc = (acc + a[2j+1] b[2j+1]) + a[2j] b[2j]; an odd K is padded with a zero.
//         A level without the instruction does the same with two float FMAs (products of two bf16
//         are exact in float), which differs from it only in denormals.
// With `accumulate` the sum starts from 0 and is added to C at the end.
#pragma once

#include <span>

#include "kernels/context.h"
#include "tensor/mat.h"

namespace cachalot {

struct Gemm {
  MatRef a;          // [M, K], or [K, M] with trans_a;  F32 or BF16
  MatRef b;          // [K, N], or [N, K] with trans_b;  F32 or BF16
  MatView<float> c;  // [M, N]
  bool trans_a = false;
  bool trans_b = false;
  bool accumulate = false;  // C += A B instead of C = A B

  int m() const noexcept { return c.rows; }
  int n() const noexcept { return c.cols; }
  int k() const noexcept { return trans_a ? a.rows : a.cols; }
};

void check_shapes(const Gemm& g);

// The definition: plain loops in the order above.
void gemm_ref(const Context& ctx, Precision precision, std::span<const Gemm> problems);

// The same product in double, for tests of gradients and of error bounds: C = op(A) op(B).
void gemm_f64(MatView<const double> a, MatView<const double> b, MatView<double> c, bool trans_a,
              bool trans_b);

// Checks shapes, then runs the table's kernel.
void gemm(const Context& ctx, Precision precision, std::span<const Gemm> problems);
inline void gemm(const Context& ctx, Precision precision, const Gemm& problem) {
  gemm(ctx, precision, std::span<const Gemm>(&problem, 1));
}

// y = x W^T: the Linear of every checkpoint (W is [out, in]).
inline Gemm linear(MatRef x, MatRef w, MatView<float> y, bool accumulate = false) {
  return {x, w, y, false, true, accumulate};
}

}  // namespace cachalot
