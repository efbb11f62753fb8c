// A model of few small layers for the tests of costs: one dense, the others with experts.
#pragma once

#include "model/config.h"

namespace cachalot::cost {

inline model::Config small_config(int layers) {
  model::Config c;
  c.vocab_size = 1000;
  c.hidden_size = 64;
  c.intermediate_size = 128;
  c.moe_intermediate_size = 32;
  c.num_hidden_layers = layers;
  c.first_k_dense_replace = 1;
  c.num_attention_heads = 4;
  c.kv_lora_rank = 48;
  c.qk_nope_head_dim = 16;
  c.qk_rope_head_dim = 8;
  c.v_head_dim = 16;
  c.n_shared_experts = 1;
  c.route.experts = 16;
  c.route.topk = 4;
  return c;
}

}  // namespace cachalot::cost
