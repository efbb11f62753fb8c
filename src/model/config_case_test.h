// For the tests of config.json: those of the released models, and how a bad one is refused.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/error.h"
#include "model/config.h"

namespace cachalot::model {

using Json = nlohmann::ordered_json;

// Fields that all released models share.
inline Json common() {
  return Json::parse(R"({
    "hidden_act": "silu", "attention_bias": false, "attention_dropout": 0.0, "kv_lora_rank": 512,
    "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "moe_layer_freq": 1,
    "tie_word_embeddings": false, "torch_dtype": "bfloat16", "use_cache": true,
    "initializer_range": 0.02, "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV3Config"}
  })");
}

inline Json with(Json base, const char* more) {
  base.update(Json::parse(more));
  return base;
}

inline Json v2_lite() {
  return with(common(), R"({
    "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "vocab_size": 102400,
    "hidden_size": 2048, "intermediate_size": 10944, "moe_intermediate_size": 1408,
    "num_hidden_layers": 27, "first_k_dense_replace": 1, "num_attention_heads": 16,
    "num_key_value_heads": 16, "q_lora_rank": null, "n_routed_experts": 64, "n_shared_experts": 2,
    "num_experts_per_tok": 6, "n_group": 1, "topk_group": 1, "scoring_func": "softmax",
    "topk_method": "greedy", "norm_topk_prob": false, "routed_scaling_factor": 1.0,
    "rms_norm_eps": 1e-06, "rope_theta": 10000, "max_position_embeddings": 163840,
    "rope_scaling": {"type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1,
      "mscale": 0.707, "mscale_all_dim": 0.707, "original_max_position_embeddings": 4096},
    "aux_loss_alpha": 0.001, "seq_aux": true, "bos_token_id": 100000, "eos_token_id": 100001})");
}

inline Json v2() {
  return with(v2_lite(), R"({
    "hidden_size": 5120, "intermediate_size": 12288, "moe_intermediate_size": 1536,
    "num_hidden_layers": 60, "num_attention_heads": 128, "num_key_value_heads": 128,
    "q_lora_rank": 1536, "n_routed_experts": 160, "n_group": 8, "topk_group": 3,
    "topk_method": "group_limited_greedy", "routed_scaling_factor": 16.0})");
}

inline Json v3() {
  return with(common(), R"({
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "vocab_size": 129280,
    "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048,
    "num_hidden_layers": 61, "first_k_dense_replace": 3, "num_attention_heads": 128,
    "num_key_value_heads": 128, "q_lora_rank": 1536, "n_routed_experts": 256,
    "n_shared_experts": 1, "num_experts_per_tok": 8, "n_group": 8, "topk_group": 4,
    "scoring_func": "sigmoid", "topk_method": "noaux_tc", "norm_topk_prob": true,
    "routed_scaling_factor": 2.5, "rms_norm_eps": 1e-06, "rope_theta": 10000,
    "max_position_embeddings": 163840, "num_nextn_predict_layers": 1,
    "rope_scaling": {"type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0,
      "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096},
    "bos_token_id": 0, "eos_token_id": 1,
    "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
      "weight_block_size": [128, 128]}})");
}

inline Json moonlight() {
  return with(v3(), R"({
    "vocab_size": 163840, "hidden_size": 2048, "intermediate_size": 11264,
    "moe_intermediate_size": 1408, "num_hidden_layers": 27, "first_k_dense_replace": 1,
    "num_attention_heads": 16, "num_key_value_heads": 16, "q_lora_rank": null,
    "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6, "n_group": 1,
    "topk_group": 1, "routed_scaling_factor": 2.446, "rms_norm_eps": 1e-05, "rope_theta": 50000.0,
    "rope_scaling": null, "max_position_embeddings": 8192, "num_nextn_predict_layers": 0,
    "bos_token_id": 163584, "eos_token_id": 163586, "quantization_config": null})");
}

inline Json kimi_k2() {
  return with(v3(), R"({
    "model_type": "kimi_k2", "vocab_size": 163840, "first_k_dense_replace": 1,
    "num_attention_heads": 64, "num_key_value_heads": 64, "n_routed_experts": 384, "n_group": 1,
    "topk_group": 1, "routed_scaling_factor": 2.827, "rope_theta": 50000.0,
    "max_position_embeddings": 131072, "num_nextn_predict_layers": 0,
    "rope_scaling": {"type": "yarn", "factor": 32.0, "beta_fast": 1.0, "beta_slow": 1.0,
      "mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096},
    "bos_token_id": 163584, "eos_token_id": 163585})");
}

inline Config parse(const Json& json) { return parse_config(json.dump(), "m/config.json"); }

inline std::string error_of(Code code, std::string_view text) {
  try {
    parse_config(text, "m/config.json");
  } catch (const Error& e) {
    EXPECT_EQ(name(e.code()), name(code)) << e.what();
    EXPECT_THAT(e.what(), ::testing::HasSubstr("m/config.json"));
    return e.what();
  }
  ADD_FAILURE() << "no error for " << text;
  return {};
}

}  // namespace cachalot::model
