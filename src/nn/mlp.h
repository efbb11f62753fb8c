// The feed-forward parts: one SwiGLU MLP (dense layers, shared experts), and DeepSeekMoE with
// bias-balanced routing.
//
// Symbols: T rows, D hidden, F width of an MLP, E experts, k experts per token, P = T * k.
// Threads: one caller; the ops inside use the context's threads.
// Paper:   V3 report 2.1.2, eq. 12-20.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/permute.h"
#include "nn/dims.h"
#include "nn/params.h"

namespace cachalot::nn {

struct MlpActs {
  Mat<float> gate, up, hidden;  // [T, F] each; hidden = silu(gate) * up
};
struct MlpScratch {
  Mat<float> dhidden;
};

// y += down(silu(gate(h)) * up(h))
void mlp_forward(const Context& ctx, Precision precision, const MlpWeights& w,
                 MatView<const float> h, MatView<float> y, MlpActs& acts);
// From dy [T, D] to dh [T, D] (overwritten, or added to); acts.gate and acts.up become gradients.
void mlp_backward(const Context& ctx, Precision precision, const MlpWeights& w,
                  const MlpGradients& g, MatView<const float> h, MatView<const float> dy,
                  MatView<float> dh, bool add_dh, MlpActs& acts, MlpScratch& scratch);

struct MoeActs {
  Mat<float> logits, scores;  // [T, E]
  Mat<std::int32_t> index;    // [T, k]
  Mat<float> weight;          // [T, k]
  ExpertOrder order;
  Mat<float> x;                 // [P, D] rows in expert order
  Mat<float> gate, up, hidden;  // [P, F]
  Mat<float> y;                 // [P, D]
  MlpActs shared;
};

// y += shared(h) + sum of the chosen experts; the gate's product is always float.
void moe_forward(const Context& ctx, Precision precision, const BlockDims& dims,
                 const MoeWeights& w, MatView<const float> h, MatView<float> y, MoeActs& acts);

struct MoeScratch {
  Mat<float> dweight, dscores, dlogits, dhidden;
  MlpScratch shared;
};

// The sequence balance loss this layer adds to the total: grad_scale is alpha / number of
// micro-batches; `sequences` equal runs of rows.
struct BalanceTerm {
  int sequences = 1;
  float grad_scale = 0;
};

// From dy [T, D] to dh [T, D] (overwritten). Returns the balance loss before alpha.
// acts.gate, acts.up, acts.y become gradients, acts.x the gradient of the expert rows.
double moe_backward(const Context& ctx, Precision precision, const BlockDims& dims,
                    const MoeWeights& w, const MoeGradients& g, MatView<const float> h,
                    const BalanceTerm& balance, MatView<const float> dy, MatView<float> dh,
                    MoeActs& acts, MoeScratch& scratch);

}  // namespace cachalot::nn
