// Absorbed MLA attention: queries already carried into the latent space attend over the latent
// cache itself; K and V are never rebuilt. Every head reads the same row: MQA with width L + R.
//
// Symbols: T query rows, S cached rows, H heads, L kv_lora_rank, R rope dim.
// Threads: (problem, group of heads and queries, part of the context) independent; the cache is
//          visited in blocks at absolute positions and its parts are merged in their order, so that
//          a row's result depends on its own sequence only: not on the threads, on other problems,
//          on the other queries of its own, or on where the blocks lie.
// Paper:   V2 report 2.1.2 and appendix C; V3 released inference/model.py ("absorb").
#pragma once

#include <span>

#include "kernels/context.h"
#include "kernels/latent_rows.h"
#include "tensor/mat.h"

namespace cachalot {

struct LatentAttention {
  MatView<const float> q;  // [T, H * (L + R)]  per head [q_nope W_uk, q_rope rotated]
  LatentRows cache;        // [S, L + R]  normed latent, then the rotated rope key
  int heads = 0;
  float scale = 0;     // 1 / sqrt(N + R): the un-absorbed width, times YaRN's factor
  MatView<float> out;  // [T, H * L]  sum over the cache of p * c_kv, still in the latent space
  // bf16: q, the cache and the probabilities are rounded to bf16 before products.
  Precision precision = Precision::kF32;
  // Query i sees the first S - T + 1 + i rows.

  int latent() const noexcept { return cache.layout.latent; }
  int rope() const noexcept { return cache.layout.rope; }
  int width() const noexcept { return cache.layout.width(); }
};

void check_shapes(const LatentAttention& a);
// Scores, softmax and sums in double: the definition.
void latent_attention_ref(const Context& ctx, std::span<const LatentAttention> problems);
void latent_attention(const Context& ctx, std::span<const LatentAttention> problems);

}  // namespace cachalot
