#include "nn/block.h"

#include <numeric>

#include "kernels/fp8_fused.h"
#include "kernels/profile.h"
#include "kernels/rms_norm.h"

namespace cachalot::nn {

namespace {

// Whether anyone reads the normed input of a sublayer as floats, where its products read codes.
bool reads_floats(const Numerics& num, const MlaWeights& w) {
  const WeightRef& q = w.q_a.rows > 0 ? w.q_a : w.q_proj;
  return !num.recompute_norms || w.kv_a.fp8.rows == 0 || q.fp8.rows == 0;
}
bool reads_floats(const Numerics& num, const BlockWeights& w) {
  return !num.recompute_norms || w.is_moe /* the router */ || w.mlp.gate.fp8.rows == 0 ||
         w.mlp.up.fp8.rows == 0;
}

// The normed input of attention or of the feed-forward part: codes in s.h_operand, floats in s.h
// unless they are not wanted.
void norm(const Context& ctx, const Numerics& num, const BlockDims& dims, MatView<const float> x,
          VecRef weight, Mat<float>& rstd, bool floats, BlockScratch& s) {
  rstd.resize(1, x.rows);
  if (num.codes_in_passing()) {
    const PartScope part(ctx, Part::kQuantize);
    s.h.resize(x.rows, x.cols);
    const MatView<float> h = floats ? s.h.view() : MatView<float>{};
    s.h_operand.begin_codes(ctx, x.rows, x.cols, Operand::Use::kRows, {},
                            floats ? MatRef(h) : MatRef());
    rms_norm_fp8(ctx, {{x, weight, dims.eps, h, rstd.span()}, num.scale, s.h_operand.rows_out(0)});
    return;
  }
  {
    const PartScope part(ctx, Part::kElementwise);
    s.h.resize(x.rows, x.cols);
    rms_norm(ctx, {x, weight, dims.eps, s.h.view(), rstd.span()});
  }
  s.h_operand.set(ctx, num, s.h.cview(), num.activation_tile, Operand::Use::kRows);
}

// The same for the backward: computed again from the kept x, or what was kept of it. Its gradient
// products need tiles along the columns.
void norm_again(const Context& ctx, const Numerics& num, const BlockDims& dims,
                MatView<const float> x, VecRef weight, Mat<float>& rstd, bool floats,
                const Saved& kept_h, BlockScratch& s) {
  if (num.recompute_norms) {
    norm(ctx, num, dims, x, weight, rstd, floats, s);
  } else {
    kept_h.load_into(ctx, s.h);
    s.h_operand.set(ctx, num, s.h.cview(), num.activation_tile, Operand::Use::kRows);
  }
  s.h_operand.add_columns(ctx, num);
}

// What a sublayer writes its result to: the residual stream, which it adds to, or with dropout a
// buffer of its own, which `finish` adds what is left of.
MatView<float> begin_result(const LayerDropout& drop, MatView<float> x, BlockScratch& s) {
  if (!drop.on()) return x;
  s.dropped.resize(x.rows, x.cols);
  return s.dropped.view();
}
void finish_result(const Context& ctx, const LayerDropout& drop, DropoutPlace place,
                   MatView<float> x, const BlockScratch& s) {
  if (!drop.on()) return;
  const PartScope part(ctx, Part::kElementwise);
  dropout(ctx, {drop.mask(place), s.dropped.cview(), x, /*accumulate=*/true});
}
// The gradient of a sublayer's result from that of the residual stream.
MatView<const float> gradient_of_result(const Context& ctx, const LayerDropout& drop,
                                        DropoutPlace place, MatView<const float> dx,
                                        BlockScratch& s) {
  if (!drop.on()) return dx;
  const PartScope part(ctx, Part::kElementwise);
  s.dropped.resize(dx.rows, dx.cols);
  dropout(ctx, {drop.mask(place), dx, s.dropped.view()});
  return s.dropped.cview();
}

}  // namespace

std::size_t KeptBytes::total() const noexcept {
  return std::accumulate(bytes.begin(), bytes.end(), std::size_t{0});
}
KeptBytes& KeptBytes::operator+=(const KeptBytes& other) noexcept {
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] += other.bytes[i];
  return *this;
}

KeptBytes kept_bytes(const BlockSaved& s) {
  const auto ffn = [](const FfnSaved& f) {
    return f.gate.bytes() + f.up.bytes() + f.hidden.bytes();
  };
  const auto& order = s.moe.route.order;
  KeptBytes k;
  k.bytes = {s.x.bytes() + s.x_mid.bytes(),
             s.h_attn.bytes() + s.h_ffn.bytes() + s.mla.q_a.bytes() + s.mla.kv_a.bytes() +
                 s.in_rstd.bytes() + s.post_rstd.bytes(),
             s.mla.q.bytes() + s.mla.kv.bytes(),
             s.mla.out.bytes() + s.mla.lse.bytes(),
             ffn(s.mlp) + ffn(s.moe.experts) + ffn(s.moe.shared),
             s.moe.route.scores.bytes() + s.moe.route.index.bytes() + s.moe.route.weight.bytes() +
                 order.slot.bytes() + order.token.bytes() +
                 order.begin.size() * sizeof(std::int32_t)};
  return k;
}

void block_forward(const Context& ctx, const Numerics& num, const BlockDims& dims,
                   const BlockWeights& w, const RopeRows& rope,
                   std::span<const AttentionSpan> spans, const LayerDropout& drop, MatView<float> x,
                   BlockSaved& saved, BlockScratch& s) {
  const bool add = !drop.on();  // to the residual stream itself
  saved.x.store(ctx, num.stream, x);
  norm(ctx, num, dims, x, w.input_norm, saved.in_rstd, reads_floats(num, w.mla), s);
  if (!num.recompute_norms) saved.h_attn.store(ctx, num.linear_input, s.h.cview(), num.scale);
  mla_forward(ctx, num, dims, w.mla, s.h_operand, rope, spans, begin_result(drop, x, s), add, s.mla,
              saved.mla);
  finish_result(ctx, drop, DropoutPlace::kAttention, x, s);

  saved.x_mid.store(ctx, num.stream, x);
  norm(ctx, num, dims, x, w.post_norm, saved.post_rstd, reads_floats(num, w), s);
  if (!num.recompute_norms) saved.h_ffn.store(ctx, num.linear_input, s.h.cview(), num.scale);
  const MatView<float> y = begin_result(drop, x, s);
  if (w.is_moe) {
    moe_forward(ctx, num, dims, w.moe, s.h_operand, s.h.cview(), y, s.moe, saved.moe.route,
                &saved.moe, add);
  } else {
    mlp_forward(ctx, num, w.mlp, s.h_operand, y, s.moe.experts, &saved.mlp, s.products, add);
  }
  finish_result(ctx, drop, DropoutPlace::kFeedForward, x, s);
}

double block_backward(const Context& ctx, const Numerics& num, const BlockDims& dims,
                      const BlockWeights& w, const BlockGradients& g, const RopeRows& rope,
                      std::span<const AttentionSpan> spans, const BalanceTerm& balance,
                      const LayerDropout& drop, MatView<float> dx, BlockSaved& saved,
                      BlockScratch& s) {
  s.dh.resize(dx.rows, dx.cols);
  double loss = 0;
  {
    const auto x = saved.x_mid.load(ctx, s.x);
    norm_again(ctx, num, dims, x, w.post_norm, saved.post_rstd, reads_floats(num, w), saved.h_ffn,
               s);
    const auto dy = gradient_of_result(ctx, drop, DropoutPlace::kFeedForward, dx, s);
    s.dy.set(ctx, num, dy, num.gradient_tile, Operand::Use::kBoth);
    if (w.is_moe) {
      loss = moe_backward(ctx, num, dims, w.moe, g.moe, s.h_operand, s.h.cview(), balance, s.dy,
                          s.dh.view(), s.moe, saved.moe, s.moe_back);
    } else {
      mlp_backward(ctx, num, w.mlp, g.mlp, s.h_operand, s.dy, s.dh.view(), s.moe.experts, saved.mlp,
                   s.products);
    }
    const PartScope part(ctx, Part::kElementwise);
    rms_norm_backward(
        ctx, {x, w.post_norm, saved.post_rstd.span(), s.dh.cview(), dx, true, g.post_norm});
  }
  const auto x = saved.x.load(ctx, s.x);
  norm_again(ctx, num, dims, x, w.input_norm, saved.in_rstd, reads_floats(num, w.mla), saved.h_attn,
             s);
  const auto dy = gradient_of_result(ctx, drop, DropoutPlace::kAttention, dx, s);
  mla_backward(ctx, num, dims, w.mla, g.mla, s.h_operand, rope, spans, saved.mla, s.mla, dy,
               s.dh.view(), s.mla_back);
  const PartScope part(ctx, Part::kElementwise);
  rms_norm_backward(ctx,
                    {x, w.input_norm, saved.in_rstd.span(), s.dh.cview(), dx, true, g.input_norm});
  return loss;
}

}  // namespace cachalot::nn
