#include "nn/mla.h"

#include <algorithm>

#include "kernels/bf16_ops.h"
#include "kernels/elementwise.h"
#include "kernels/fp8_fused.h"
#include "kernels/gemm.h"
#include "kernels/latent_attention.h"
#include "kernels/profile.h"
#include "kernels/rms_norm.h"

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

// What mla_absorbed multiplies by: of head h, W_uk as it lies, W_uv transposed.
void by_keys(const BlockDims& d, const MlaWeights& w, int head, Gemm& g) {
  if (w.kv_b.heads != nullptr) {
    g.packed = &w.kv_b.heads->keys[static_cast<std::size_t>(head)];
  } else {
    g.b = w_uk(d, w, head);
  }
}
void by_values(const BlockDims& d, const MlaWeights& w, int head, Gemm& g) {
  g.trans_b = true;
  if (w.kv_b.heads != nullptr) {
    g.packed = &w.kv_b.heads->values[static_cast<std::size_t>(head)];
  } else {
    g.b = w_uv(d, w, head);
  }
}

// The latents before their norms; the key's rope part is not rotated yet.
void down_products(const Context& ctx, const Numerics& num, const BlockDims& d, const MlaWeights& w,
                   const Operand& h, MlaActs& acts) {
  const int t = h.rows();
  acts.kv_a.resize(t, d.cache_width());
  acts.c_kv.resize(t, d.kv_lora);
  if (d.q_lora > 0) {
    acts.q_a.resize(t, d.q_lora);
    acts.products.forward(h, 0, w.q_a, acts.q_a.view());
  }
  acts.products.forward(h, 0, w.kv_a, acts.kv_a.view());
  acts.products.run(ctx, num);
}

// The latents before their norms; queries too where they have none. The key's rope part is rotated.
void down(const Context& ctx, const Numerics& num, const BlockDims& d, const MlaWeights& w,
          const Operand& h, const RopeRows& rows, MlaActs& acts) {
  const PartScope part(ctx, Part::kDense);
  down_products(ctx, num, d, w, h, acts);
  rotate_key(ctx, d, rows, acts.kv_a.view().sub_cols(d.kv_lora, d.heads.rope), false);
}

// One of them, floats and, where `codes` are wanted, its operand along rows.
void norm(const Context& ctx, const Numerics& num, const BlockDims& d, MatView<const float> x,
          VecRef weight, Mat<float>& rstd, MatView<float> y, bool codes, Operand& operand) {
  rstd.resize(1, x.rows);
  if (!codes) {
    const PartScope part(ctx, Part::kElementwise);
    rms_norm(ctx, {x, weight, d.eps, y, rstd.span()});
    return;
  }
  const PartScope part(ctx, Part::kQuantize);
  operand.begin_codes(ctx, x.rows, x.cols, Operand::Use::kRows, {}, y);
  rms_norm_fp8(ctx, {{x, weight, d.eps, y, rstd.span()}, num.scale, operand.rows_out(0)});
}

// The normed latents.
void norms(const Context& ctx, const Numerics& num, const BlockDims& d, const MlaWeights& w,
           MlaActs& acts) {
  const bool codes = acts.latents_coded = num.codes_in_passing();
  if (d.q_lora > 0) {
    acts.q_an.resize(acts.q_a.rows(), d.q_lora);
    norm(ctx, num, d, acts.q_a.cview(), w.q_norm, acts.q_rstd, acts.q_an.view(), codes,
         acts.q_an_operand);
  }
  acts.c_kv.resize(acts.kv_a.rows(), d.kv_lora);
  norm(ctx, num, d, acts.kv_a.cview().sub_cols(0, d.kv_lora), w.kv_norm, acts.kv_rstd,
       acts.c_kv.view(), codes, acts.latent_operand);
}

// Queries that are not rotated yet, from their normed latent or from h.
template <class T>
void plain_queries(const Context& ctx, const Numerics& num, const BlockDims& d, const MlaWeights& w,
                   const Operand& h, MlaActs& acts, MatView<T> q) {
  const PartScope part(ctx, Part::kDense);
  if (d.q_lora > 0) {
    if (!acts.latents_coded) {
      acts.q_an_operand.set(ctx, num, acts.q_an.cview(), num.activation_tile, Operand::Use::kRows);
    }
    acts.products.forward(acts.q_an_operand, 0, w.q_b, q);
  } else {
    acts.products.forward(h, 0, w.q_proj, q);
  }
  acts.products.run(ctx, num);
}

void queries(const Context& ctx, const Numerics& num, const BlockDims& d, const MlaWeights& w,
             const Operand& h, const RopeRows& rows, MlaActs& acts) {
  acts.q.resize(acts.kv_a.rows(), d.q_width());
  plain_queries(ctx, num, d, w, h, acts, acts.q.view());
  const PartScope part(ctx, Part::kDense);
  rotate_queries(ctx, d, rows, acts.q.view(), false);
}

void expand(const Context& ctx, const Numerics& num, const BlockDims& d, const MlaWeights& w,
            MatRef latent, MlaActs& acts) {
  const PartScope part(ctx, Part::kDense);
  acts.kv.resize(latent.rows, d.kv_width());
  // Latents out of a cache are others than those whose codes the norm made.
  if (!acts.latents_coded || latent.data != acts.c_kv.data()) {
    acts.latent_operand.set(ctx, num, latent, num.activation_tile, Operand::Use::kRows);
  }
  acts.products.forward(acts.latent_operand, 0, w.kv_b, acts.kv.view());
  acts.products.run(ctx, num);
}

// Whether attention reads queries, keys and values in bf16, as its products would round them: what
// is kept for the backward, or where FP8 computes them again, buffers.
bool attends_in_bf16(const Numerics& num) {
  return num.products == Precision::kBF16 &&
         (num.recompute_up_projections
              ? num.bf16_results
              : (num.bf16_operands || num.bf16_results) && num.attention_input == Keep::kBf16);
}

// Whether the output projection reads what is kept.
bool outputs_what_is_kept(const Numerics& num) {
  return num.bf16_operands && num.products == Precision::kBF16 &&
         num.attention_output == Keep::kBf16;
}

// What attention reads in bf16: rotated queries, and expanded keys and values.
struct Attended {
  MatView<Bf16> q, kv;
};
Attended room_for_attended(const BlockDims& d, int rows, MlaActs& acts) {
  acts.q_bf16.resize(rows, d.q_width());
  acts.kv_bf16.resize(rows, d.kv_width());
  return {acts.q_bf16.view(), acts.kv_bf16.view()};
}

// A matrix that is read elsewhere.
MatView<const float> shape_alone(int rows, int cols) { return {nullptr, rows, cols, cols}; }

void project_into(const Context& ctx, const Numerics& num, const BlockDims& d, const MlaWeights& w,
                  const Operand& h, const RopeRows& rows, MlaActs& acts, const Attended& to) {
  MatView<const float> from = shape_alone(h.rows(), d.q_width());
  if (num.fp8) {  // rotated in place
    plain_queries(ctx, num, d, w, h, acts, to.q);
  } else {
    acts.q.resize(from.rows, from.cols);
    plain_queries(ctx, num, d, w, h, acts, acts.q.view());
    from = acts.q.cview();
  }
  {
    const PartScope part(ctx, Part::kElementwise);
    rope_bf16(ctx, {from, d.heads.heads, d.heads.nope + d.heads.rope, d.heads.nope, rows.cos,
                    rows.sin, to.q});
  }
  {
    const PartScope part(ctx, Part::kDense);
    if (!acts.latents_coded) {
      acts.latent_operand.set(ctx, num, acts.c_kv.cview(), num.activation_tile,
                              Operand::Use::kRows);
    }
    acts.products.forward(acts.latent_operand, 0, w.kv_b, to.kv);
    acts.products.run(ctx, num);
  }
}

void attend(const Context& ctx, const Numerics& num, const BlockDims& d,
            MatView<const float> k_rope, std::span<const AttentionSpan> spans, MatView<float> lse,
            MlaActs& acts) {
  const PartScope part(ctx, Part::kAttention);
  acts.out.resize(acts.q.rows(), d.out_width());
  attention(ctx, Attention<float>{acts.q.cview(), acts.kv.cview(), k_rope, spans, d.heads,
                                  d.softmax_scale, num.products, acts.out.view(), lse});
}

}  // namespace

void mla_project(const Context& ctx, const Numerics& num, const BlockDims& d, const MlaWeights& w,
                 const Operand& h, const RopeRows& rows, MlaActs& acts) {
  down(ctx, num, d, w, h, rows, acts);
  norms(ctx, num, d, w, acts);
  queries(ctx, num, d, w, h, rows, acts);
}

void mla_project_planned(const Context& ctx, const Numerics& num, const BlockDims& d,
                         const MlaWeights& w, const Operand& h, const RopeRows& rows,
                         const PlannedLatents& plan, std::ptrdiff_t bytes, MlaActs& acts) {
  {
    const PartScope part(ctx, Part::kDense);
    down_products(ctx, num, d, w, h, acts);
  }
  LatentNorms norms;
  if (d.q_lora > 0) {
    acts.q_an.resize(h.rows(), d.q_lora);
    norms.q_a = acts.q_a.cview();
    norms.q_weight = w.q_norm;
    norms.q_an = acts.q_an.view();
  }
  norms.kv_a = acts.kv_a.view();
  norms.kv_weight = w.kv_norm;
  norms.c_kv = acts.c_kv.view();
  norms.eps = d.eps;
  norms.cos = rows.cos;
  norms.sin = rows.sin;
  {
    const PartScope part(ctx, Part::kElementwise);
    norm_planned(ctx, plan, bytes, norms);
  }
  acts.latents_coded = false;
  acts.q.resize(acts.kv_a.rows(), d.q_width());
  plain_queries(ctx, num, d, w, h, acts, acts.q.view());
}

void mla_expanded(const Context& ctx, const Numerics& num, const BlockDims& d, const MlaWeights& w,
                  MatRef latent, MatView<const float> k_rope, std::span<const AttentionSpan> spans,
                  MatView<float> lse, MlaActs& acts) {
  expand(ctx, num, d, w, latent, acts);
  attend(ctx, num, d, k_rope, spans, lse, acts);
}

using Runs = std::vector<std::pair<int, int>>;  // (first row, rows)

// Spans that follow one another count as one.
static Runs runs_of(std::span<const LatentSpan> spans) {
  Runs runs;
  for (const LatentSpan& s : spans) {
    if (!runs.empty() && runs.back().first + runs.back().second == s.q_begin) {
      runs.back().second += s.q_rows;
    } else {
      runs.emplace_back(s.q_begin, s.q_rows);
    }
  }
  return runs;
}

void mla_into_latent(const Context& ctx, const Numerics& num, const BlockDims& d,
                     const MlaWeights& w, std::span<const LatentSpan> spans, MlaActs& acts,
                     const RopeRows* rotate) {
  const PartScope part(ctx, Part::kDense);
  const int t = acts.q.rows();
  const int heads = d.heads.heads;
  const int q_head = d.heads.nope + d.heads.rope;
  const int width = d.cache_width();
  acts.q_latent.resize(t, heads * width);
  const Runs runs = runs_of(spans);
  std::vector<Gemm> per_head;
  for (const auto& [begin, rows] : runs) {
    const MatView<const float> q = acts.q.cview().sub_rows(begin, rows);
    const MatView<float> to = acts.q_latent.view().sub_rows(begin, rows);
    for (int i = 0; i < heads; ++i) {  // q~ = q_nope W_uk
      Gemm& g = per_head.emplace_back();
      g.a = q.sub_cols(i * q_head, d.heads.nope);
      g.c = to.sub_cols(i * width, d.kv_lora);
      by_keys(d, w, i, g);
    }
  }
  ctx.fetch_while_waiting(w.kv_b.read_next);
  gemm(ctx, num.products, per_head);
  for (const auto& [begin, rows] : runs) {
    const CopyHeads copy{
        acts.q.cview().sub_rows(begin, rows),       heads, q_head,   d.heads.nope, d.heads.rope,
        acts.q_latent.view().sub_rows(begin, rows), width, d.kv_lora};
    if (rotate != nullptr) {
      rotate_heads(ctx,
                   {copy, rotate->cos.sub_rows(begin, rows), rotate->sin.sub_rows(begin, rows)});
    } else {
      copy_heads(ctx, copy);
    }
  }
}

void mla_out_of_latent(const Context& ctx, const Numerics& num, const BlockDims& d,
                       const MlaWeights& w, std::span<const LatentSpan> spans, MlaActs& acts) {
  const PartScope part(ctx, Part::kDense);
  const int heads = d.heads.heads;
  acts.out.resize(acts.q.rows(), d.out_width());
  std::vector<Gemm> per_head;
  for (const auto& [begin, rows] : runs_of(spans)) {
    const MatView<const float> from = acts.context.cview().sub_rows(begin, rows);
    const MatView<float> to = acts.out.view().sub_rows(begin, rows);
    for (int i = 0; i < heads; ++i) {  // out = context W_uv^T
      Gemm& g = per_head.emplace_back();
      g.a = from.sub_cols(i * d.kv_lora, d.kv_lora);
      g.c = to.sub_cols(i * d.heads.value, d.heads.value);
      by_values(d, w, i, g);
    }
  }
  gemm(ctx, num.products, per_head);
}

LatentAttention latent_problem(const Numerics& num, const BlockDims& d, const LatentSpan& s,
                               MlaActs& acts) {
  return {acts.q_latent.cview().sub_rows(s.q_begin, s.q_rows),
          s.cache,
          d.heads.heads,
          d.softmax_scale,
          acts.context.view().sub_rows(s.q_begin, s.q_rows),
          num.products};
}

void mla_absorbed(const Context& ctx, const Numerics& num, const BlockDims& d, const MlaWeights& w,
                  std::span<const LatentSpan> spans, MlaActs& acts) {
  mla_into_latent(ctx, num, d, w, spans, acts);
  acts.context.resize(acts.q.rows(), d.heads.heads * d.kv_lora);
  std::vector<LatentAttention> problems;
  problems.reserve(spans.size());
  for (const LatentSpan& s : spans) problems.push_back(latent_problem(num, d, s, acts));
  {
    const PartScope part(ctx, Part::kAttention);
    latent_attention(ctx, problems);
  }
  mla_out_of_latent(ctx, num, d, w, spans, acts);
}

// x (+)= out W_o^T
static void output(const Context& ctx, const Numerics& num, const MlaWeights& w, MatRef out,
                   MlaActs& acts, MatView<float> x, bool add) {
  const PartScope part(ctx, Part::kDense);
  acts.out_operand.set(ctx, num, out, num.activation_tile, Operand::Use::kRows);
  acts.products.forward(acts.out_operand, 0, w.o, x, add);
  acts.products.run(ctx, num);
}

void mla_output(const Context& ctx, const Numerics& num, const MlaWeights& w, MlaActs& acts,
                MatView<float> x, bool add) {
  output(ctx, num, w, acts.out.cview(), acts, x, add);
}

void mla_forward(const Context& ctx, const Numerics& num, const BlockDims& d, const MlaWeights& w,
                 const Operand& h, const RopeRows& rows, std::span<const AttentionSpan> spans,
                 MatView<float> x, bool add, MlaActs& acts, MlaSaved& saved) {
  down(ctx, num, d, w, h, rows, acts);
  if (d.q_lora > 0) saved.q_a.store_rounded(ctx, num.stream, acts.q_a.view());
  saved.kv_a.store_rounded(ctx, num.stream, acts.kv_a.view());
  norms(ctx, num, d, w, acts);
  saved.lse.resize(h.rows(), d.heads.heads);
  if (attends_in_bf16(num)) {
    const int t = h.rows();
    const Attended to = num.recompute_up_projections ? room_for_attended(d, t, acts)
                                                     : Attended{saved.q.bf16(t, d.q_width()),
                                                                saved.kv.bf16(t, d.kv_width())};
    project_into(ctx, num, d, w, h, rows, acts, to);
    const PartScope part(ctx, Part::kAttention);
    acts.out.resize(h.rows(), d.out_width());
    attention(ctx, {shape_alone(t, d.q_width()), shape_alone(t, d.kv_width()), acts.k_rope(), spans,
                    d.heads, d.softmax_scale, num.products, acts.out.view(), saved.lse.view(), to.q,
                    to.kv});
  } else {
    queries(ctx, num, d, w, h, rows, acts);
    expand(ctx, num, d, w, acts.c_kv.cview(), acts);
    attend(ctx, num, d, acts.k_rope(), spans, saved.lse.view(), acts);
    if (!num.recompute_up_projections) {
      saved.q.store(ctx, num.attention_input, acts.q.cview());
      saved.kv.store(ctx, num.attention_input, acts.kv.cview());
    }
  }
  if (outputs_what_is_kept(num)) {
    saved.out.store(ctx, Keep::kBf16, acts.out.cview());
    output(ctx, num, w, saved.out.bf16(), acts, x, add);
  } else {
    saved.out.store_rounded(ctx, num.attention_output, acts.out.view());
    mla_output(ctx, num, w, acts, x, add);
  }
}

void mla_backward(const Context& ctx, const Numerics& num, const BlockDims& d, const MlaWeights& w,
                  const MlaGradients& g, const Operand& h, const RopeRows& rows,
                  std::span<const AttentionSpan> spans, const MlaSaved& saved, MlaActs& acts,
                  MatView<const float> dy, MatView<float> dh, MlaScratch& s) {
  using Use = Operand::Use;
  const PartScope part(ctx, Part::kDense);
  const int t = h.rows();
  s.dout.resize(t, d.out_width());
  s.dkv.resize(t, d.kv_width());
  s.dkv_a.resize(t, d.cache_width());
  s.dc_kv.resize(t, d.kv_lora);

  // What the forward had.
  if (d.q_lora > 0) saved.q_a.load_into(ctx, acts.q_a);
  saved.kv_a.load_into(ctx, acts.kv_a);
  norms(ctx, num, d, w, acts);
  const bool in_bf16 = attends_in_bf16(num);
  MatView<const Bf16> q_bf16, kv_bf16;
  if (in_bf16 && num.recompute_up_projections) {
    const Attended to = room_for_attended(d, t, acts);
    project_into(ctx, num, d, w, h, rows, acts, to);
    q_bf16 = to.q;
    kv_bf16 = to.kv;
  } else if (in_bf16) {
    q_bf16 = saved.q.bf16();
    kv_bf16 = saved.kv.bf16();
  } else if (num.recompute_up_projections) {
    queries(ctx, num, d, w, h, rows, acts);
    expand(ctx, num, d, w, acts.c_kv.cview(), acts);
  }
  Mat<float>& dq = in_bf16 ? acts.q : s.dq;  // queries as floats have no other use here
  dq.resize(t, d.q_width());
  const auto q = in_bf16                        ? shape_alone(t, d.q_width())
                 : num.recompute_up_projections ? acts.q.cview()
                                                : saved.q.load(ctx, acts.q);
  const auto kv = in_bf16                        ? shape_alone(t, d.kv_width())
                  : num.recompute_up_projections ? acts.kv.cview()
                                                 : saved.kv.load(ctx, acts.kv);
  const auto out = saved.out.load(ctx, acts.out);

  s.dy.set(ctx, num, dy, num.gradient_tile, Use::kBoth);
  const MatRef out_in = outputs_what_is_kept(num) ? MatRef(saved.out.bf16()) : MatRef(out);
  acts.out_operand.set(ctx, num, out_in, num.activation_tile, Use::kColumns);
  s.products.input_gradient(s.dy, 0, w.o, s.dout.view());
  s.products.weight_gradient(num, s.dy, acts.out_operand, 0, g.o);
  s.products.run(ctx, num);
  const MatView<float> dk_rope = s.dkv_a.view().sub_cols(d.kv_lora, d.heads.rope);
  {
    const PartScope core(ctx, Part::kAttention);
    attention_backward(ctx, {q, kv, acts.k_rope(), spans, d.heads, d.softmax_scale, num.products,
                             out, saved.lse.cview(), s.dout.cview(), dq.view(), s.dkv.view(),
                             dk_rope, q_bf16, kv_bf16});
  }
  const bool rounds_dq = in_bf16 && !num.fp8;  // for products; quantising reads floats
  if (rounds_dq) {
    s.dq_bf16.resize(t, d.q_width());
    rope_bf16(ctx, {dq.cview(), d.heads.heads, d.heads.nope + d.heads.rope, d.heads.nope, rows.cos,
                    rows.sin, s.dq_bf16.view(), /*inverse=*/true});
  } else {
    rotate_queries(ctx, d, rows, dq.view(), true);
  }
  rotate_key(ctx, d, rows, dk_rope, true);

  s.dkv_operand.set(ctx, num, s.dkv.cview(), num.gradient_tile, Use::kBoth);
  acts.latent_operand.set(ctx, num, acts.c_kv.cview(), num.activation_tile, Use::kColumns);
  s.products.input_gradient(s.dkv_operand, 0, w.kv_b, s.dc_kv.view());
  s.products.weight_gradient(num, s.dkv_operand, acts.latent_operand, 0, g.kv_b);
  const MatRef dq_in = rounds_dq ? MatRef(s.dq_bf16.cview()) : MatRef(dq.cview());
  s.dq_operand.set(ctx, num, dq_in, num.gradient_tile, Use::kBoth);
  if (d.q_lora > 0) {
    s.dq_an.resize(t, d.q_lora);
    acts.q_an_operand.set(ctx, num, acts.q_an.cview(), num.activation_tile, Use::kColumns);
    s.products.input_gradient(s.dq_operand, 0, w.q_b, s.dq_an.view());
    s.products.weight_gradient(num, s.dq_operand, acts.q_an_operand, 0, g.q_b);
  }
  s.products.run(ctx, num);

  rms_norm_backward(ctx,
                    {acts.kv_a.cview().sub_cols(0, d.kv_lora), w.kv_norm, acts.kv_rstd.span(),
                     s.dc_kv.cview(), s.dkv_a.view().sub_cols(0, d.kv_lora), false, g.kv_norm});
  s.dkv_a_operand.set(ctx, num, s.dkv_a.cview(), num.gradient_tile, Use::kBoth);
  if (d.q_lora > 0) {
    rms_norm_backward(ctx, {acts.q_a.cview(), w.q_norm, acts.q_rstd.span(), s.dq_an.cview(),
                            s.dq_an.view(), false, g.q_norm});
    s.dq_an_operand.set(ctx, num, s.dq_an.cview(), num.gradient_tile, Use::kBoth);
    s.products.input_gradient(s.dq_an_operand, 0, w.q_a, dh);
    s.products.weight_gradient(num, s.dq_an_operand, h, 0, g.q_a);
  } else {
    s.products.input_gradient(s.dq_operand, 0, w.q_proj, dh);
    s.products.weight_gradient(num, s.dq_operand, h, 0, g.q_proj);
  }
  s.products.weight_gradient(num, s.dkv_a_operand, h, 0, g.kv_a);
  s.products.run(ctx, num);
  s.products.input_gradient(s.dkv_a_operand, 0, w.kv_a, dh, /*add=*/true);
  s.products.run(ctx, num);
}

}  // namespace cachalot::nn
