// down(silu(gate(x)) * up(x)) for one MLP or many experts at once: the products of all parts of a
// layer run together, so that small experts fill each other's tails.
//
// Symbols: R rows, D hidden, F width.
// Threads: one caller; the ops inside use the context's threads.
// Paper:   V3 report 2.1.2; what is kept and computed again: 3.3.3.
#pragma once

#include <span>
#include <vector>

#include "kernels/fp8_fused.h"
#include "nn/operand.h"
#include "nn/params.h"
#include "nn/saved.h"

namespace cachalot::nn {

// Buffers of one part, reused from layer to layer. Each gradient takes the place of what it is the
// gradient of; hidden's, of which down's weight gradient needs hidden again, gives it back.
struct FfnActs {
  Mat<float> gate, up, hidden;  // [R, F]
  Operand hidden_operand, dgate_operand, dup_operand;
  std::vector<SwigluBackwardFp8> jobs;  // where in_fp8: one per group, hidden's gradient in `gate`
  // In bf16 instead. The gradients of gate and up lie where these were kept, and dgate_operand has
  // both.
  Mat<Bf16> hidden_bf16;   // [R, F]
  Mat<Bf16> gate_up_bf16;  // [R, 2 F] where FP8 is kept of them
};

struct FfnSaved {
  Saved gate, up;  // [R, F]; in bf16 between products, `gate` has both: [R, 2 F], gate's first
  Saved hidden;    // unless SwiGLU is computed again
};

// MLPs that take turns over the rows of one matrix: group g of x goes through w[g].
struct FfnPart {
  const Operand* x = nullptr;  // [R, D]; backward: with tiles along its columns
  std::span<const MlpWeights> w;
  MatView<float> y;      // [R, D] forward
  MatView<Bf16> y_bf16;  // instead of y, where in_bf16(..) with FP8 products
  bool add_y = false;
  FfnActs* acts = nullptr;
  FfnSaved* saved = nullptr;  // null: nothing is kept

  // Backward.
  std::span<const MlpGradients> g;
  const Operand* dy = nullptr;        // [R, D], tiles both ways
  std::span<const float> row_weight;  // [R] y counted times this; empty: ones
  std::span<float> drow_weight;       // [R] gets its gradient; empty: not wanted
  MatView<float> dx;                  // [R, D] overwritten
  MatView<Bf16> dx_bf16;              // instead of dx, where in_bf16(..)
};

// Whether these parts compute in bf16 between their products (ffn_bf16.cc): where the numerics have
// bf16 operands, or in_fp8 and bf16 results; and gate and up lie in one piece, as do their
// gradients.
bool in_bf16(const Numerics& num, std::span<const FfnPart> parts);

// Whether SwiGLU reads and writes the codes of these parts itself (ffn_fp8.cc): where gate and up
// are kept in FP8 and nobody reads it or its gradients as floats.
bool in_fp8(const Numerics& num, std::span<const FfnPart> parts);

void ffn_forward(const Context& ctx, const Numerics& num, std::span<const FfnPart> parts,
                 Products& products);
void ffn_backward(const Context& ctx, const Numerics& num, std::span<const FfnPart> parts,
                  Products& products);

}  // namespace cachalot::nn
