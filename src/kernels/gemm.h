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

#include <cstdint>
#include <span>

#include "kernels/context.h"
#include "tensor/mat.h"

namespace cachalot {

// B laid out once as a level's products read it, for weights that many products share. Bits are
// those of the product with B as it lay.
//
// Owns: the words. Made by pack_b; read by the level that made it, in the precision it was made
// for.
struct PackedB {
  const char* level = nullptr;  // KernelTable::name
  Precision precision = Precision::kF32;
  int k = 0;
  int n = 0;
  Mat<std::uint32_t>
      words;  // the reference: [K, N], what a product sees of each element, as a float

  std::size_t bytes() const noexcept { return words.bytes(); }
};

struct PackB {
  MatRef b;  // [K, N], or [N, K] with trans_b;  F32 or BF16
  bool trans_b = false;
  PackedB* out = nullptr;

  int k() const noexcept { return trans_b ? b.cols : b.rows; }
  int n() const noexcept { return trans_b ? b.rows : b.cols; }
};

struct Gemm {
  MatRef a;          // [M, K], or [K, M] with trans_a;  F32 or BF16
  MatRef b;          // [K, N], or [N, K] with trans_b;  F32 or BF16
  MatView<float> c;  // [M, N]
  bool trans_a = false;
  bool trans_b = false;
  bool accumulate = false;  // C += A B instead of C = A B
  // Read instead of b, which then need not be there, and of trans_b.
  const PackedB* packed = nullptr;
  // [M, N] or no rows. Written instead of c, which then gives the shape alone: the result rounded
  // to bf16 (nearest, ties to even; a level may lose denormals of bf16 products). Not with
  // `accumulate`.
  MatView<Bf16> c_bf16 = {};

  int m() const noexcept { return c.rows; }
  int n() const noexcept { return c.cols; }
  int k() const noexcept { return trans_a ? a.rows : a.cols; }
};

void check_shapes(const Gemm& g);

// The definition: plain loops in the order above.
void gemm_ref(const Context& ctx, Precision precision, std::span<const Gemm> problems);

void check_shapes(const PackB& job);
void pack_b_ref(const Context& ctx, Precision precision, std::span<const PackB> jobs);
inline bool packs_floats_only() noexcept { return false; }
// Checks shapes, then lets the table's level pack; memory of `out` is used again where it is
// enough.
void pack_b(const Context& ctx, Precision precision, std::span<const PackB> jobs);
// Whether the level packs bf16 in two bytes per number. Others pack floats, and then products of
// few rows, which are bound by reading, are faster with B where it lies.
bool packs_bf16_in_pairs(const Context& ctx) noexcept;

// The same product in double, for tests of gradients and of error bounds: C = op(A) op(B).
void gemm_f64(MatView<const double> a, MatView<const double> b, MatView<double> c, bool trans_a,
              bool trans_b);

// Checks shapes, then runs the table's kernel. kInternal for a B packed for another level or
// precision.
void gemm(const Context& ctx, Precision precision, std::span<const Gemm> problems);
inline void gemm(const Context& ctx, Precision precision, const Gemm& problem) {
  gemm(ctx, precision, std::span<const Gemm>(&problem, 1));
}

// y = x W^T: the Linear of every checkpoint (W is [out, in]).
inline Gemm linear(MatRef x, MatRef w, MatView<float> y, bool accumulate = false) {
  return {x, w, y, false, true, accumulate};
}
// The same with weights packed before: pack_b of {w, true}.
inline Gemm linear(MatRef x, const PackedB& w, MatView<float> y, bool accumulate = false) {
  return {x, {}, y, false, true, accumulate, &w};
}

}  // namespace cachalot
