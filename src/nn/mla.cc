#include "nn/mla.h"

#include <algorithm>

#include "kernels/gemm.h"
#include "kernels/latent_attention.h"
#include "kernels/rms_norm.h"
#include "nn/linear.h"

namespace cachalot::nn {

namespace {

// The rope columns of every query head, in place.
void rotate_queries(const Context& ctx, const BlockDims& d, const RopeRows& rows, MatView<float> q,
                    bool inverse) {
  rope(ctx, Rope<float>{q, d.heads.heads, d.heads.nope + d.heads.rope, d.heads.nope, rows.cos,
                        rows.sin, inverse});
}

void rotate_key(const Context& ctx, const BlockDims& d, const RopeRows& rows, MatView<float> k_rope,
                bool inverse) {
  rope(ctx, Rope<float>{k_rope, 1, d.heads.rope, 0, rows.cos, rows.sin, inverse});
}

// Rows of kv_b_proj that make head h's keys (W_uk) or values (W_uv).
MatRef w_uk(const BlockDims& d, const MlaWeights& w, int head) {
  return w.kv_b.sub_rows(head * (d.heads.nope + d.heads.value), d.heads.nope);
}
MatRef w_uv(const BlockDims& d, const MlaWeights& w, int head) {
  return w.kv_b.sub_rows(head * (d.heads.nope + d.heads.value) + d.heads.nope, d.heads.value);
}

}  // namespace

void mla_project(const Context& ctx, Precision precision, const BlockDims& d, const MlaWeights& w,
                 MatView<const float> h, const RopeRows& rows, MlaActs& acts) {
  const int t = h.rows;
  acts.q.resize(t, d.q_width());
  acts.kv_a.resize(t, d.cache_width());
  acts.c_kv.resize(t, d.kv_lora);
  acts.kv_rstd.resize(static_cast<std::size_t>(t));
  if (d.q_lora > 0) {
    acts.q_a.resize(t, d.q_lora);
    acts.q_an.resize(t, d.q_lora);
    acts.q_rstd.resize(static_cast<std::size_t>(t));
    const Gemm down[] = {linear(h, w.q_a, acts.q_a.view()), linear(h, w.kv_a, acts.kv_a.view())};
    gemm(ctx, precision, down);
    rms_norm(ctx, {acts.q_a.cview(), w.q_norm, d.eps, acts.q_an.view(), acts.q_rstd});
    gemm(ctx, precision, linear(acts.q_an.cview(), w.q_b, acts.q.view()));
  } else {
    const Gemm both[] = {linear(h, w.q_proj, acts.q.view()), linear(h, w.kv_a, acts.kv_a.view())};
    gemm(ctx, precision, both);
  }
  rms_norm(ctx, {acts.kv_a.cview().sub_cols(0, d.kv_lora), w.kv_norm, d.eps, acts.c_kv.view(),
                 acts.kv_rstd});
  rotate_queries(ctx, d, rows, acts.q.view(), false);
  rotate_key(ctx, d, rows, acts.kv_a.view().sub_cols(d.kv_lora, d.heads.rope), false);
}

void mla_expanded(const Context& ctx, Precision precision, const BlockDims& d, const MlaWeights& w,
                  MatRef latent, MatView<const float> k_rope, std::span<const AttentionSpan> spans,
                  bool want_lse, MlaActs& acts) {
  const int t = acts.q.rows();
  acts.kv.resize(latent.rows, d.kv_width());
  acts.out.resize(t, d.out_width());
  gemm(ctx, precision, linear(latent, w.kv_b, acts.kv.view()));
  MatView<float> lse;
  if (want_lse) {
    acts.lse.resize(t, d.heads.heads);
    lse = acts.lse.view();
  }
  attention(ctx, Attention<float>{acts.q.cview(), acts.kv.cview(), k_rope, spans, d.heads,
                                  d.softmax_scale, precision, acts.out.view(), lse});
}

void mla_absorbed(const Context& ctx, Precision precision, const BlockDims& d, const MlaWeights& w,
                  std::span<const LatentSpan> spans, MlaActs& acts) {
  const int t = acts.q.rows();
  const int heads = d.heads.heads;
  const int q_head = d.heads.nope + d.heads.rope;
  const int width = d.cache_width();
  acts.q_latent.resize(t, heads * width);
  acts.context.resize(t, heads * d.kv_lora);
  acts.out.resize(t, d.out_width());

  std::vector<Gemm> per_head(static_cast<std::size_t>(heads));
  for (int i = 0; i < heads; ++i) {  // q~ = q_nope W_uk
    per_head[static_cast<std::size_t>(i)] = {acts.q.cview().sub_cols(i * q_head, d.heads.nope),
                                             w_uk(d, w, i),
                                             acts.q_latent.view().sub_cols(i * width, d.kv_lora),
                                             false,
                                             false,
                                             false};
  }
  gemm(ctx, precision, per_head);
  ctx.for_each(t, 16, [&](std::int64_t row) {
    for (int i = 0; i < heads; ++i) {
      const float* from = acts.q.row(row) + i * q_head + d.heads.nope;
      std::copy(from, from + d.heads.rope, acts.q_latent.row(row) + i * width + d.kv_lora);
    }
  });

  std::vector<LatentAttention> problems;
  problems.reserve(spans.size());
  for (const LatentSpan& s : spans) {
    problems.push_back({acts.q_latent.cview().sub_rows(s.q_begin, s.q_rows), s.cache, heads,
                        d.kv_lora, d.heads.rope, d.softmax_scale,
                        acts.context.view().sub_rows(s.q_begin, s.q_rows)});
  }
  latent_attention(ctx, problems);

  for (int i = 0; i < heads; ++i) {  // out = context W_uv^T
    per_head[static_cast<std::size_t>(i)] =
        linear(acts.context.cview().sub_cols(i * d.kv_lora, d.kv_lora), w_uv(d, w, i),
               acts.out.view().sub_cols(i * d.heads.value, d.heads.value));
  }
  gemm(ctx, precision, per_head);
}

void mla_output(const Context& ctx, Precision precision, const MlaWeights& w, const MlaActs& acts,
                MatView<float> x) {
  gemm(ctx, precision, linear(acts.out.cview(), w.o, x, /*accumulate=*/true));
}

void mla_backward(const Context& ctx, Precision precision, const BlockDims& d, const MlaWeights& w,
                  const MlaGradients& g, MatView<const float> h, const RopeRows& rows,
                  std::span<const AttentionSpan> spans, const MlaActs& acts,
                  MatView<const float> dy, MatView<float> dh, MlaScratch& s) {
  const int t = h.rows;
  s.dout.resize(t, d.out_width());
  s.dq.resize(t, d.q_width());
  s.dkv.resize(t, d.kv_width());
  s.dkv_a.resize(t, d.cache_width());
  s.dc_kv.resize(t, d.kv_lora);

  linear_backward(ctx, precision, {{dy, acts.out.cview(), w.o, g.o, s.dout.view(), false}});
  const MatView<float> dk_rope = s.dkv_a.view().sub_cols(d.kv_lora, d.heads.rope);
  attention_backward(ctx, {acts.q.cview(), acts.kv.cview(), acts.k_rope(), spans, d.heads,
                           d.softmax_scale, precision, acts.out.cview(), acts.lse.cview(),
                           s.dout.cview(), s.dq.view(), s.dkv.view(), dk_rope});
  rotate_queries(ctx, d, rows, s.dq.view(), true);
  rotate_key(ctx, d, rows, dk_rope, true);

  linear_backward(ctx, precision,
                  {{s.dkv.cview(), acts.c_kv.cview(), w.kv_b, g.kv_b, s.dc_kv.view(), false}});
  rms_norm_backward(
      ctx, {acts.kv_a.cview().sub_cols(0, d.kv_lora), w.kv_norm, acts.kv_rstd, s.dc_kv.cview(),
            s.dkv_a.view().sub_cols(0, d.kv_lora), false, g.kv_norm});
  if (d.q_lora > 0) {
    s.dq_an.resize(t, d.q_lora);
    linear_backward(ctx, precision,
                    {{s.dq.cview(), acts.q_an.cview(), w.q_b, g.q_b, s.dq_an.view(), false}});
    rms_norm_backward(ctx, {acts.q_a.cview(), w.q_norm, acts.q_rstd, s.dq_an.cview(),
                            s.dq_an.view(), false, g.q_norm});
    linear_backward(ctx, precision, {{s.dq_an.cview(), h, w.q_a, g.q_a, dh, false}});
  } else {
    linear_backward(ctx, precision, {{s.dq.cview(), h, w.q_proj, g.q_proj, dh, false}});
  }
  linear_backward(ctx, precision, {{s.dkv_a.cview(), h, w.kv_a, g.kv_a, dh, true}});
}

}  // namespace cachalot::nn
