// Config -> config.json with Hugging Face's keys.
#include <cmath>
#include <nlohmann/json.hpp>

#include "model/config.h"
#include "model/packed_weights.h"

namespace cachalot::model {

using Json = nlohmann::ordered_json;

namespace {

// Whole numbers without a fraction, as other tools write them; shortest exact text otherwise.
Json number(double x) {
  if (x == std::floor(x) && std::abs(x) < 0x1p53) return static_cast<std::int64_t>(x);
  return x;
}

Json scaling(const RopeConfig& rope) {
  if (!rope.yarn) return nullptr;
  const YarnConfig& y = rope.scaling;
  return {{"type", "yarn"},
          {"factor", number(y.factor)},
          {"original_max_position_embeddings", number(y.original_max_position)},
          {"beta_fast", number(y.beta_fast)},
          {"beta_slow", number(y.beta_slow)},
          {"mscale", y.mscale},
          {"mscale_all_dim", y.mscale_all_dim}};
}

Json eos(const std::vector<int>& ids) {
  if (ids.empty()) return nullptr;
  if (ids.size() == 1) return ids[0];
  return ids;
}

const char* method_name(TopkMethod method) {
  switch (method) {
    case TopkMethod::kNoauxTc:
      return "noaux_tc";
    case TopkMethod::kGreedy:
      return "greedy";
    case TopkMethod::kGroupLimitedGreedy:
      return "group_limited_greedy";
  }
  return "";
}

void put_experts(const Config& c, Json& j) {
  const RouteConfig& r = c.route;
  if (r.experts == 0) {
    j["n_routed_experts"] = nullptr;
    return;
  }
  j["n_routed_experts"] = r.experts;
  j["n_shared_experts"] = c.n_shared_experts == 0 ? Json(nullptr) : Json(c.n_shared_experts);
  j["num_experts_per_tok"] = r.topk;
  j["moe_intermediate_size"] = c.moe_intermediate_size;
  j["first_k_dense_replace"] = c.first_k_dense_replace;
  j["moe_layer_freq"] = c.moe_layer_freq;
  j["n_group"] = r.groups;
  j["topk_group"] = r.topk_groups;
  j["scoring_func"] = r.scoring == Scoring::kSigmoid ? "sigmoid" : "softmax";
  j["topk_method"] = method_name(r.method);
  j["norm_topk_prob"] = r.norm_topk_prob;
  j["routed_scaling_factor"] = r.routed_scaling;
}

}  // namespace

std::string to_json(const Config& c) {
  const bool v2 = c.family == Family::kDeepseekV2;
  Json j;
  j["architectures"] = Json::array({v2 ? "DeepseekV2ForCausalLM" : "DeepseekV3ForCausalLM"});
  j["model_type"] = v2 ? "deepseek_v2" : c.family == Family::kKimiK2 ? "kimi_k2" : "deepseek_v3";
  j["hidden_act"] = "silu";
  j["attention_bias"] = false;
  j["attention_dropout"] = 0.0;
  j["vocab_size"] = c.vocab_size;
  j["hidden_size"] = c.hidden_size;
  j["intermediate_size"] = c.intermediate_size;
  j["num_hidden_layers"] = c.num_hidden_layers;
  j["num_nextn_predict_layers"] = c.num_nextn_predict_layers;
  j["num_attention_heads"] = c.num_attention_heads;
  j["num_key_value_heads"] = c.num_attention_heads;
  j["q_lora_rank"] = c.q_lora_rank == 0 ? Json(nullptr) : Json(c.q_lora_rank);
  j["kv_lora_rank"] = c.kv_lora_rank;
  j["qk_nope_head_dim"] = c.qk_nope_head_dim;
  j["qk_rope_head_dim"] = c.qk_rope_head_dim;
  j["v_head_dim"] = c.v_head_dim;
  put_experts(c, j);
  j["max_position_embeddings"] = c.max_position_embeddings;
  j["rope_theta"] = number(c.rope.theta);
  j["rope_scaling"] = scaling(c.rope);
  j["rms_norm_eps"] = c.rms_norm_eps;
  j["initializer_range"] = c.initializer_range;
  j["tie_word_embeddings"] = c.tie_word_embeddings;
  j["bos_token_id"] = c.bos_token_id < 0 ? Json(nullptr) : Json(c.bos_token_id);
  j["eos_token_id"] = eos(c.eos_token_ids);
  if (c.fp8.enabled) {
    j["quantization_config"] = {{"activation_scheme", "dynamic"},
                                {"fmt", "e4m3"},
                                {"quant_method", "fp8"},
                                {"weight_block_size", {c.fp8.block_rows, c.fp8.block_cols}}};
    if (c.fp8.ue8m0_scales) j["quantization_config"]["scale_fmt"] = "ue8m0";
  }
  if (c.packed.enabled) j["quantization_config"] = quantization_json(c.packed);
  j["torch_dtype"] = c.torch_dtype;
  j["use_cache"] = true;
  return j.dump(2) + "\n";
}

}  // namespace cachalot::model
