#include "nn/block.h"

#include <cstring>

#include "kernels/rms_norm.h"

namespace cachalot::nn {

static void copy_rows(const Context& ctx, MatView<const float> from, MatView<float> to) {
  ctx.for_each(from.rows, 64, [&](std::int64_t i) {
    std::memcpy(to.row(i), from.row(i), static_cast<std::size_t>(from.cols) * sizeof(float));
  });
}

void block_forward(const Context& ctx, Precision precision, const BlockDims& dims,
                   const BlockWeights& w, const RopeRows& rope,
                   std::span<const AttentionSpan> spans, MatView<float> y, BlockActs& acts) {
  const int t = acts.x.rows();
  const int d = dims.hidden;
  acts.in_rstd.resize(static_cast<std::size_t>(t));
  acts.post_rstd.resize(static_cast<std::size_t>(t));
  acts.h_attn.resize(t, d);
  acts.x_mid.resize(t, d);
  acts.h_ffn.resize(t, d);

  rms_norm(ctx, {acts.x.cview(), w.input_norm, dims.eps, acts.h_attn.view(), acts.in_rstd});
  mla_project(ctx, precision, dims, w.mla, acts.h_attn.cview(), rope, acts.mla);
  mla_expanded(ctx, precision, dims, w.mla, acts.mla.c_kv.cview(), acts.mla.k_rope(), spans, true,
               acts.mla);
  copy_rows(ctx, acts.x.cview(), acts.x_mid.view());
  mla_output(ctx, precision, w.mla, acts.mla, acts.x_mid.view());

  rms_norm(ctx, {acts.x_mid.cview(), w.post_norm, dims.eps, acts.h_ffn.view(), acts.post_rstd});
  copy_rows(ctx, acts.x_mid.cview(), y);
  if (w.is_moe) {
    moe_forward(ctx, precision, dims, w.moe, acts.h_ffn.cview(), y, acts.moe);
  } else {
    mlp_forward(ctx, precision, w.mlp, acts.h_ffn.cview(), y, acts.mlp);
  }
}

double block_backward(const Context& ctx, Precision precision, const BlockDims& dims,
                      const BlockWeights& w, const BlockGradients& g, const RopeRows& rope,
                      std::span<const AttentionSpan> spans, const BalanceTerm& balance,
                      MatView<float> dx, BlockActs& acts, BlockScratch& s) {
  s.dh.resize(dx.rows, dx.cols);
  double loss = 0;
  if (w.is_moe) {
    loss = moe_backward(ctx, precision, dims, w.moe, g.moe, acts.h_ffn.cview(), balance, dx,
                        s.dh.view(), acts.moe, s.moe);
  } else {
    mlp_backward(ctx, precision, w.mlp, g.mlp, acts.h_ffn.cview(), dx, s.dh.view(), false, acts.mlp,
                 s.mlp);
  }
  rms_norm_backward(
      ctx, {acts.x_mid.cview(), w.post_norm, acts.post_rstd, s.dh.cview(), dx, true, g.post_norm});
  mla_backward(ctx, precision, dims, w.mla, g.mla, acts.h_attn.cview(), rope, spans, acts.mla, dx,
               s.dh.view(), s.mla);
  rms_norm_backward(
      ctx, {acts.x.cview(), w.input_norm, acts.in_rstd, s.dh.cview(), dx, true, g.input_norm});
  return loss;
}

}  // namespace cachalot::nn
