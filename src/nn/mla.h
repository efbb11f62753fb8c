// Multi-head latent attention: projections, expanded attention (training, prefill), absorbed
// attention (decode over the latent cache), backward.
//
// Symbols: T rows of this pass, D hidden, H heads, Q and L the latent ranks, N nope, R rope, V
//          value.
// Threads: one caller; the ops inside use the context's threads.
// Paper:   V3 report 2.1.1, eq. 1-11; absorption: V2 report appendix C; recomputation 3.2.3.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "kernels/gemm.h"
#include "kernels/latent_rows.h"
#include "kernels/planned_latents.h"
#include "nn/dims.h"
#include "nn/operand.h"
#include "nn/params.h"
#include "nn/saved.h"

namespace cachalot::nn {

// Activations of one pass, reused from layer to layer.
struct MlaActs {
  Mat<float> q_a;             // [T, Q]
  Mat<float> q_rstd;          // [1, T]
  Mat<float> q_an;            // [T, Q]     after q_a_layernorm
  Mat<float> q;               // [T, H (N + R)]  rope part rotated
  Mat<float> kv_a;            // [T, L + R]      rope part rotated, latent part before its norm
  Mat<float> kv_rstd;         // [1, T]
  Mat<float> c_kv;            // [T, L]          after kv_a_layernorm: what the cache keeps
  Mat<float> kv;              // [S, H (N + V)]  expanded keys and values
  Mat<Bf16> q_bf16, kv_bf16;  // instead, where attention reads them so and nothing is kept
  Mat<float> out;             // [T, H V]
  // Absorbed only.
  Mat<float> q_latent;  // [T, H (L + R)]
  Mat<float> context;   // [T, H L]
  Operand q_an_operand, latent_operand, out_operand;
  bool latents_coded = false;  // the norms wrote the codes of the first two along their rows
  Products products;

  MatView<const float> k_rope() const {
    const int latent = c_kv.cols();
    return kv_a.cview().sub_cols(latent, kv_a.cols() - latent);
  }
};

// q (rotated), c_kv, k_rope of the rows of h [T, D], which is already normed.
void mla_project(const Context& ctx, const Numerics& num, const BlockDims& dims,
                 const MlaWeights& w, const Operand& h, const RopeRows& rope, MlaActs& acts);

// The same where a plan says where the rows of the pass are stored (kernels/planned_latents.h),
// which they are; but the queries are not rotated: mla_into_latent does it. No codes are made.
void mla_project_planned(const Context& ctx, const Numerics& num, const BlockDims& dims,
                         const MlaWeights& w, const Operand& h, const RopeRows& rope,
                         const PlannedLatents& plan, std::ptrdiff_t bytes, MlaActs& acts);

// acts.out from keys and values expanded out of `latent` [S, L] and `k_rope` [S, R]: this pass's
// own rows in training, cache rows in prefill. `lse` [T, H]: what a backward needs, or no rows.
// Rows of this pass outside every span stay as they are.
void mla_expanded(const Context& ctx, const Numerics& num, const BlockDims& dims,
                  const MlaWeights& w, MatRef latent, MatView<const float> k_rope,
                  std::span<const AttentionSpan> spans, MatView<float> lse, MlaActs& acts);

// kv_b_proj packed head by head, as mla_absorbed multiplies by it: W_uk [N, L] for queries, W_uv^T
// [L, V] for results. Where a weight has these, they are read instead, each as one stream.
struct PackedHeads {
  std::vector<PackedB> keys, values;
};

// acts.out from the cache rows themselves. A span owns rows [q_begin, q_begin + q_rows) of this
// pass and sees its sequence's cache [S, L + R], whose last rows are its own. Rows of this pass
// outside every span stay as they are.
struct LatentSpan {
  int q_begin = 0;
  int q_rows = 0;
  LatentRows cache;
};
// What comes before and after attention over the latent rows: from acts.q to acts.q_latent, from
// acts.context to acts.out; of the spans' rows. `rotate`: queries that are not rotated yet.
void mla_into_latent(const Context& ctx, const Numerics& num, const BlockDims& dims,
                     const MlaWeights& w, std::span<const LatentSpan> spans, MlaActs& acts,
                     const RopeRows* rotate = nullptr);
void mla_out_of_latent(const Context& ctx, const Numerics& num, const BlockDims& dims,
                       const MlaWeights& w, std::span<const LatentSpan> spans, MlaActs& acts);
// One span's attention in between.
LatentAttention latent_problem(const Numerics& num, const BlockDims& dims, const LatentSpan& span,
                               MlaActs& acts);
void mla_absorbed(const Context& ctx, const Numerics& num, const BlockDims& dims,
                  const MlaWeights& w, std::span<const LatentSpan> spans, MlaActs& acts);

// x += out W_o^T, or x = it
void mla_output(const Context& ctx, const Numerics& num, const MlaWeights& w, MlaActs& acts,
                MatView<float> x, bool add = true);

// What one layer keeps for its backward.
struct MlaSaved {
  Saved q_a, kv_a;  // kv_a with its rope part rotated
  Saved q, kv;      // unless up-projections are computed again
  Saved out;        // [T, H V]
  Mat<float> lse;   // [T, H]
};

struct MlaScratch {
  Mat<float> dout, dq, dkv, dkv_a, dc_kv, dq_an;
  Mat<Bf16> dq_bf16;  // dq rotated back, where bf16 products read it
  Operand dy, dkv_operand, dkv_a_operand, dq_operand, dq_an_operand;
  Products products;
};

// x += attention(h) (without `add`, x = attention(h)), keeping what the backward needs.
void mla_forward(const Context& ctx, const Numerics& num, const BlockDims& dims,
                 const MlaWeights& w, const Operand& h, const RopeRows& rope,
                 std::span<const AttentionSpan> spans, MatView<float> x, bool add, MlaActs& acts,
                 MlaSaved& saved);

// From dy [T, D], the gradient of the output projection's result, to dh [T, D] (overwritten), the
// gradient of the normed input; weight gradients are added to. h has tiles along its columns.
void mla_backward(const Context& ctx, const Numerics& num, const BlockDims& dims,
                  const MlaWeights& w, const MlaGradients& g, const Operand& h,
                  const RopeRows& rope, std::span<const AttentionSpan> spans, const MlaSaved& saved,
                  MlaActs& acts, MatView<const float> dy, MatView<float> dh, MlaScratch& scratch);

}  // namespace cachalot::nn
