// How a pass computes and what training keeps for its backward: every choice of the FP8 recipe.
//
// Embedding, output head, router, norms, the MTP projection and the attention core never use FP8.
// Threads: a plain value.
// Paper:   DeepSeek-V3 report, sections 3.2.3 (recomputation), 3.3.1 to 3.3.3 (precisions, tiles).
#pragma once

#include <cstdint>

#include "kernels/context.h"
#include "kernels/hopper.h"
#include "kernels/quant_linear.h"
#include "numeric/payload.h"
#include "numeric/quantize.h"
#include "tensor/fp8.h"

namespace cachalot::nn {

// What an activation is kept as between forward and backward.
enum class Keep : std::uint8_t {
  kF32,
  kBf16,
  kE5m6,  // 12 bits, power-of-two scales of 1 x 128 tiles
  kFp8,   // E4M3, 1 x 128 tiles
};

struct Numerics {
  Precision products = Precision::kF32;  // of everything that is not FP8

  bool fp8 = false;  // products of every Linear where the weights have codes
  numeric::ScaleKind scale = numeric::ScaleKind::kPow2;
  ScaleTile activation_tile = ScaleTile::kRow;  // kRow, kBlock or kTensor
  ScaleTile gradient_tile = ScaleTile::kRow;    // likewise
  ScaleTile weight_tile = ScaleTile::kBlock;    // kBlock or kTensor
  Accumulation accumulation;                    // of FP8 products: floats, or as Hopper sums

  // What weights in integers are multiplied with (nn::WeightRef::quant).
  QuantActivations quant_activations = QuantActivations::kBf16;

  // What the experts' results travel in to their tokens; not sent: floats as they are.
  bool send_results = false;
  numeric::Payload combine = numeric::Payload::kBf16;

  // What stands between bf16 products of training lies in bf16: the experts' rows and the gradients
  // of those, gate, up, hidden and their gradients, what attention reads, the gradient of the
  // logits. What joins the residual stream is float: with rounded results of experts a router's
  // gradient lay 3.8 degrees from the float one (cosine 0.9978), without at most 2.6.
  bool bf16_operands = false;

  // The same of FP8 products where a device makes them, which moves half the bytes then: results
  // that are quantised or rounded in any case (gate, up and hidden's gradient; queries, keys and
  // values; what experts send in bf16), and the gradients of the experts' rows. A graph of the host
  // turns it off: there they stay floats.
  bool bf16_results = false;

  // Weight gradients are written instead of added to: the first micro-batch of a step.
  bool fresh_gradients = false;

  Keep stream = Keep::kF32;            // inputs of norms: the residual, the latents before theirs
  Keep linear_input = Keep::kF32;      // normed inputs of Linears, where they are kept at all
  Keep attention_input = Keep::kF32;   // queries, keys and values, where they are kept at all
  Keep attention_output = Keep::kF32;  // input of the output projection and of the backward
  Keep swiglu_input = Keep::kF32;      // gate and up
  bool recompute_norms = false;
  bool recompute_up_projections = false;
  bool recompute_swiglu = false;

  // Whether ops that produce a product's operand may write its codes themselves (fp8_fused.h).
  bool codes_in_passing() const noexcept {
    return fp8 && activation_tile == ScaleTile::kRow && gradient_tile == ScaleTile::kRow;
  }

  // The latents before their norms are rounded to what is kept, so that what is computed again is
  // what was computed.
  bool rounds_latents() const noexcept { return stream != Keep::kF32; }

  // The oracle's path: floats, everything kept.
  static Numerics f32() { return {}; }
  // bf16 products; kept in bf16, the cheap parts computed again.
  static Numerics bf16();
  // The report's choices.
  static Numerics report_fp8();
  // A pass without a backward.
  static Numerics inference(Precision products) {
    Numerics n;
    n.products = products;
    return n;
  }
};

inline Numerics Numerics::bf16() {
  Numerics n;
  n.products = Precision::kBF16;
  n.stream = n.linear_input = n.attention_input = n.attention_output = n.swiglu_input = Keep::kBf16;
  n.recompute_norms = n.recompute_swiglu = n.bf16_operands = true;
  return n;
}

inline Numerics Numerics::report_fp8() {
  Numerics n = bf16();
  n.fp8 = true;
  n.bf16_operands = false;
  n.send_results = n.bf16_results = true;
  n.linear_input = n.swiglu_input = Keep::kFp8;
  n.attention_output = Keep::kE5m6;
  n.recompute_up_projections = true;
  return n;
}

}  // namespace cachalot::nn
