// The shape of a DeepSeek-family model, read from a Hugging Face config.json and written as one.
//
// Covers V2-Lite, V2, V3, R1, Moonlight and Kimi-K2: deepseek_v2, deepseek_v3, kimi_k2, also nested
// under `text_config`; `rope_scaling` ("type" or "rope_type") and the newer `rope_parameters`;
// integers that come as floats; null for absent.
//
// A size that is absent is an error, and so is q_lora_rank or n_routed_experts (null says: none);
// other absent fields take the default that the family's Hugging Face class has. Null means absent.
// Fields that do not change a result (dropout, auxiliary losses, use_cache, ...) are not looked at.
//
// Threads: values; nothing shared.
// Errors:  kConfig (a value that cannot be right or is missing), kUnsupported (valid, but not what
//          this program computes), kFormat (not JSON), kIo; the message names file, field, the
//          value met and what was needed. After `validate` no product of sizes overflows 63 bits.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/rope.h"
#include "kernels/route.h"

namespace cachalot::model {

enum class Family : std::uint8_t { kDeepseekV2, kDeepseekV3, kKimiK2 };

// `quantization_config`: which form the linear weights of the checkpoint have.
struct Fp8Config {
  bool enabled =
      false;  // F8_E4M3 with weight_scale_inv per block; false: the file has plain weights
  int block_rows = 128;
  int block_cols = 128;
  bool ue8m0_scales = false;  // scales are powers of two ("scale_fmt": "ue8m0")
  bool operator==(const Fp8Config&) const = default;
};

// Integers with a BF16 scale per group of columns, as compressed-tensors packs them
// (docs/file-formats.md). Which tensors are packed, their names say.
struct PackedConfig {
  struct Form {
    int bits = 8;     // 8 or 4
    int group = 128;  // 32, 64 or 128
    bool operator==(const Form&) const = default;
  };
  bool enabled = false;
  Form linear;               // of the projections, and of a head that has no form of its own
  std::optional<Form> head;  // of the output head and the MTP layer's copy of it
  bool operator==(const PackedConfig&) const = default;
};

struct Config {
  Family family = Family::kDeepseekV3;

  int vocab_size = 0;             // V
  int hidden_size = 0;            // D
  int intermediate_size = 0;      // of the dense layers
  int moe_intermediate_size = 0;  // of one expert
  int num_hidden_layers = 0;
  int first_k_dense_replace = 0;
  int moe_layer_freq = 1;
  int num_attention_heads = 0;  // H
  int q_lora_rank = 0;          // 0: one q_proj
  int kv_lora_rank = 0;         // L
  int qk_nope_head_dim = 0;
  int qk_rope_head_dim = 0;  // R
  int v_head_dim = 0;
  int n_shared_experts = 0;
  int num_nextn_predict_layers = 0;  // MTP layers
  int max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  bool tie_word_embeddings = false;  // lm_head is embed_tokens

  int bos_token_id = -1;           // -1: none
  std::vector<int> eos_token_ids;  // may be empty; config.json has one id or a list

  RouteConfig route;  // experts == 0: every layer is dense
  RopeConfig rope;    // rope.dim == qk_rope_head_dim
  Fp8Config fp8;      // at most one of the two
  PackedConfig packed;
  std::string torch_dtype = "bfloat16";  // what the published weights are in; a hint
  double initializer_range = 0.02;

  // Layers are 0 .. num_hidden_layers - 1, then the MTP layers, by one rule: experts from
  // first_k_dense_replace on where moe_layer_freq divides the index, else a dense MLP.
  bool is_moe_layer(int layer) const noexcept;
  // `wanted`, or the first MoE layer where it is -1. kUsage where that is none. With `mtp`,
  // `wanted` may be the MTP layer, num_hidden_layers.
  int moe_layer_or_first(int wanted, bool mtp = false) const;
  int qk_head_dim() const noexcept { return qk_nope_head_dim + qk_rope_head_dim; }
  int cache_row_width() const noexcept { return kv_lora_rank + qk_rope_head_dim; }
  double softmax_scale() const;  // attention_scale of kernels/rope.h
};

bool operator==(const Config& a, const Config& b);

// Throws unless every value is in range and fits the others. `file_name` is for messages.
void validate(const Config& config, const std::string& file_name);

// Keys that are not looked at are let pass, as Hugging Face's many need. Where `remarks` is given,
// it hears of those that look like a misspelt one, whose default is taken then.
Config parse_config(std::string_view json, const std::string& file_name,
                    std::vector<std::string>* remarks = nullptr);
// A folder, or the file itself.
Config load_config(const std::filesystem::path& folder,
                   std::vector<std::string>* remarks = nullptr);
// Hugging Face keys; parse_config gives the same Config back.
std::string to_json(const Config& config);

}  // namespace cachalot::model
