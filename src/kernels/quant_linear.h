// y = x W^T with W in 8 or 4 bits, read where it lies; as a batch of independent problems
// (experts).
//
// Symbols: M rows, N outputs, K the summed dimension.
// Threads: split over elements of y only; results do not depend on the threads.
// Errors:  check_shapes throws kShape; kernels assume checked shapes.
//
// The order of summation is part of the contract, so that a row of y has the same bits whatever
// else is in the batch. For each group of K (w.group columns, the last one shorter):
//   kBf16: x rounded to bf16 (nearest, ties to even); part = sum of x * code in float from zero, k
//          in the order of Precision::kBF16 (kernels/gemm.h: pairs ascending, the odd one first;
//          codes and products are exact); sum = fma(part, scale, sum).
//   kInt8: x quantised in tiles of 1 x 128 (numeric/group_quant.h); part = sum of x code * code, an
//          integer; sum = fma(float(part), x scale * scale, sum). For kInt8 and kInt4 weights.
// The sum starts from zero; `accumulate` adds it to y at the end. Levels differ in denormals only.
// Paper:   DeepSeek-V3 report, section 3.3.2 (tiles, blocks, promotion per 128).
#pragma once

#include <cstdint>
#include <span>

#include "kernels/context.h"
#include "tensor/mat.h"
#include "tensor/quantized.h"

namespace cachalot {

enum class QuantActivations : std::uint8_t { kBf16, kInt8 };

struct QuantLinear {
  MatRef x;          // [M, K] F32 or BF16
  QuantView w;       // [N, K]
  MatView<float> y;  // [M, N]
  bool accumulate = false;

  int m() const noexcept { return y.rows; }
  int n() const noexcept { return y.cols; }
  int k() const noexcept { return w.cols; }
};

void check_shapes(QuantActivations activations, const QuantLinear& a);

// The definition: plain loops in the order above.
void quant_linear_ref(const Context& ctx, QuantActivations activations,
                      std::span<const QuantLinear> problems);

// Whether the table has more than the definition, which is too slow to run a model with.
bool quant_linear_is_fast(const Context& ctx) noexcept;

// Checks shapes, then runs the table's kernel.
void quant_linear(const Context& ctx, QuantActivations activations,
                  std::span<const QuantLinear> problems);
inline void quant_linear(const Context& ctx, QuantActivations activations, const QuantLinear& a) {
  quant_linear(ctx, activations, std::span<const QuantLinear>(&a, 1));
}

// Weights laid out anew, once, in panels (QuantView). `codes` and, of integers, `scales` have
// memory for code_span() and scale_span() of `to`, which panels_of gave; E4M3 keeps its scales.
struct PackQuant {
  QuantView from;  // in rows
  QuantView to;
};
// The view of panels that `from` becomes; its codes, and the scales of integers, are still null.
// `from` begins where a block of 128 rows begins.
QuantView panels_of(const QuantView& from);
void pack_quant_ref(const Context& ctx, std::span<const PackQuant> jobs);
void pack_quant(const Context& ctx, std::span<const PackQuant> jobs);
// Whether the table multiplies panels, and not only by the definition: a level that packs them
// does.
bool quant_panels_are_fast(const Context& ctx) noexcept;

}  // namespace cachalot
