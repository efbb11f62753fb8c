// Dense decoders with multi-head, grouped-query or multi-query attention: what plans compare
// DeepSeek's models with. Sizes only; nothing here can run them.
//
// Read from a Hugging Face config.json of the Llama form: model_type llama, mistral, qwen2, qwen3.
//
// Threads: values; pure functions.
// Errors:  kConfig, kUnsupported, kFormat, naming file, field, the value met and what was needed.
// Paper:   "Insights into DeepSeek-V3" table 1 (cache bytes of GQA) and 2.1.2.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "cost/cost.h"

namespace cachalot::cost {

struct DenseConfig {
  int vocab_size = 0;
  int hidden_size = 0;
  int intermediate_size = 0;
  int num_hidden_layers = 0;
  int num_attention_heads = 0;
  int num_key_value_heads = 0;  // = heads: multi-head; 1: multi-query
  int head_dim = 0;
  bool qkv_bias = false;    // Qwen2 has them
  bool head_norms = false;  // Qwen3 norms each head's query and key
  bool tie_word_embeddings = false;
};

// True for a model_type that parse_dense_config reads.
bool is_dense_type(std::string_view model_type) noexcept;
DenseConfig parse_dense_config(std::string_view json, const std::string& file_name);
void validate(const DenseConfig& config, const std::string& file_name);

Parameters parameters(const DenseConfig& config);

}  // namespace cachalot::cost
