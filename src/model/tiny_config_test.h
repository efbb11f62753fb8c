// Models of a few thousand parameters whose sizes are no multiples of anything.
#pragma once

#include "model/config.h"

namespace cachalot::model {

inline Config tiny(bool v3) {
  Config c;
  c.family = v3 ? Family::kDeepseekV3 : Family::kDeepseekV2;
  c.vocab_size = 53;
  c.hidden_size = 24;
  c.intermediate_size = 20;
  c.moe_intermediate_size = 9;
  c.num_hidden_layers = 2;
  c.first_k_dense_replace = 1;
  c.num_attention_heads = 3;
  c.q_lora_rank = v3 ? 10 : 0;
  c.kv_lora_rank = 12;
  c.qk_nope_head_dim = 7;
  c.qk_rope_head_dim = 4;
  c.v_head_dim = 5;
  c.n_shared_experts = v3 ? 1 : 2;
  c.num_nextn_predict_layers = v3 ? 1 : 0;
  c.max_position_embeddings = 64;
  c.rope.dim = 4;
  c.route.experts = 6;
  c.route.topk = 2;
  c.route.groups = v3 ? 3 : 1;
  c.route.topk_groups = v3 ? 2 : 1;
  c.route.scoring = v3 ? Scoring::kSigmoid : Scoring::kSoftmax;
  c.route.method = v3 ? TopkMethod::kNoauxTc : TopkMethod::kGreedy;
  c.route.norm_topk_prob = v3;
  c.route.routed_scaling = v3 ? 2.5 : 1.0;
  return c;
}

}  // namespace cachalot::model
