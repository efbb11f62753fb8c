// One transformer block for training: x' = x + attention(norm(x)); x'' = x' + ffn(norm(x')).
//
// The forward computes in buffers that all layers share and keeps, per layer, what the numerics
// say; the backward loads that, computes the rest again, and goes on from there.
//
// With dropout the two sums are of what is left of attention's and ffn's results.
//
// Symbols: T = B sequences of equal length, D hidden.
// Threads: one caller; the ops inside use the context's threads.
#pragma once

#include <array>
#include <cstddef>
#include <string_view>
#include <vector>

#include "nn/dropout.h"
#include "nn/mla.h"
#include "nn/moe.h"

namespace cachalot::nn {

// What one layer keeps.
struct BlockSaved {
  Saved x;             // [T, D] the block's input
  Saved h_attn;        // [T, D] normed, unless norms are computed again
  Mat<float> in_rstd;  // [1, T]
  MlaSaved mla;
  Saved x_mid;           // [T, D] after attention
  Saved h_ffn;           // [T, D] normed, unless norms are computed again
  Mat<float> post_rstd;  // [1, T]
  FfnSaved mlp;          // dense layers
  MoeSaved moe;          // the others
};

// Bytes kept for the backward, by what they are.
struct KeptBytes {
  static constexpr std::array<std::string_view, 6> kNames = {
      "residual stream", "norms and latents", "queries, keys, values", "attention output", "SwiGLU",
      "routing"};
  std::array<std::size_t, kNames.size()> bytes{};

  std::size_t total() const noexcept;
  KeptBytes& operator+=(const KeptBytes& other) noexcept;
};
KeptBytes kept_bytes(const BlockSaved& saved);

// Shared by all layers.
struct BlockScratch {
  Mat<float> x, h, dh;
  Mat<float> dropped;  // with dropout: a sublayer's result before it, or its gradient after it
  Operand h_operand, dy;
  MlaActs mla;
  MlaScratch mla_back;
  MoeActs moe;
  MoeScratch moe_back;
  Products products;
};

// x [T, D] is the residual stream: the block's input, then its result.
void block_forward(const Context& ctx, const Numerics& num, const BlockDims& dims,
                   const BlockWeights& w, const RopeRows& rope,
                   std::span<const AttentionSpan> spans, const LayerDropout& dropout,
                   MatView<float> x, BlockSaved& saved, BlockScratch& scratch);

// dx holds the gradient of the block's result and becomes that of its input. Returns the balance
// loss before alpha (0 in a dense block).
double block_backward(const Context& ctx, const Numerics& num, const BlockDims& dims,
                      const BlockWeights& w, const BlockGradients& g, const RopeRows& rope,
                      std::span<const AttentionSpan> spans, const BalanceTerm& balance,
                      const LayerDropout& dropout, MatView<float> dx, BlockSaved& saved,
                      BlockScratch& scratch);

}  // namespace cachalot::nn
