// One transformer block for training: x' = x + attention(norm(x)); x'' = x' + ffn(norm(x')).
//
// Symbols: T = B sequences of equal length, D hidden.
// Threads: one caller; the ops inside use the context's threads.
#pragma once

#include <vector>

#include "nn/mla.h"
#include "nn/mlp.h"

namespace cachalot::nn {

struct BlockActs {
  Mat<float> x;                // [T, D] the block's input
  std::vector<float> in_rstd;  // [T]
  Mat<float> h_attn;           // [T, D] normed input of attention
  MlaActs mla;
  Mat<float> x_mid;              // [T, D] after attention
  std::vector<float> post_rstd;  // [T]
  Mat<float> h_ffn;              // [T, D] normed input of the feed-forward part
  MlpActs mlp;
  MoeActs moe;
};

struct BlockScratch {
  Mat<float> dh;
  MlaScratch mla;
  MlpScratch mlp;
  MoeScratch moe;
};

// acts.x holds the input; y [T, D] is overwritten.
void block_forward(const Context& ctx, Precision precision, const BlockDims& dims,
                   const BlockWeights& w, const RopeRows& rope,
                   std::span<const AttentionSpan> spans, MatView<float> y, BlockActs& acts);

// dx holds the gradient of y and becomes that of acts.x. Returns the balance loss before alpha (0
// in a dense block).
double block_backward(const Context& ctx, Precision precision, const BlockDims& dims,
                      const BlockWeights& w, const BlockGradients& g, const RopeRows& rope,
                      std::span<const AttentionSpan> spans, const BalanceTerm& balance,
                      MatView<float> dx, BlockActs& acts, BlockScratch& scratch);

}  // namespace cachalot::nn
