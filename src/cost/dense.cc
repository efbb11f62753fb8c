#include "cost/dense.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "io/json_object.h"
#include "model/config_fields.h"

namespace cachalot::cost {

namespace {

constexpr std::array<std::string_view, 4> kTypes{"llama", "mistral", "qwen2", "qwen3"};

void add(Parameters& p, const char* name, int layers, std::int64_t each, std::int64_t matmul) {
  if (each == 0) return;
  p.parts.push_back({name, layers, each * layers, each * layers, matmul * layers});
}

}  // namespace

bool is_dense_type(std::string_view type) noexcept {
  return std::find(kTypes.begin(), kTypes.end(), type) != kTypes.end();
}

DenseConfig parse_dense_config(std::string_view json, const std::string& file_name) {
  simdjson::dom::parser parser;
  const model::Fields f(io::parse_json_object(parser, json, file_name), file_name, "");
  const std::string type = f.text("model_type").value_or("");
  if (!is_dense_type(type)) {
    f.unsupported("model_type", "llama, mistral, qwen2 or qwen3");
  }
  DenseConfig c;
  c.vocab_size = f.required_whole("vocab_size");
  c.hidden_size = f.required_whole("hidden_size");
  c.intermediate_size = f.required_whole("intermediate_size");
  c.num_hidden_layers = f.required_whole("num_hidden_layers");
  c.num_attention_heads = f.required_whole("num_attention_heads");
  c.num_key_value_heads = f.whole("num_key_value_heads").value_or(c.num_attention_heads);
  const bool divides = c.num_attention_heads > 0 && c.hidden_size % c.num_attention_heads == 0;
  const auto head = f.whole("head_dim");
  if (!head && !divides) {
    f.fail("num_attention_heads", cat("is ", c.num_attention_heads, ", which does not divide ",
                                      "hidden_size = ", c.hidden_size, "; give head_dim."));
  }
  c.head_dim = head ? *head : c.hidden_size / c.num_attention_heads;
  c.qkv_bias = f.boolean("attention_bias").value_or(type == "qwen2");
  c.head_norms = type == "qwen3";
  c.tie_word_embeddings = f.boolean("tie_word_embeddings").value_or(false);
  validate(c, file_name);
  return c;
}

void validate(const DenseConfig& c, const std::string& file_name) {
  const auto whole = [&](const char* field, int met, int max) {
    if (met >= 1 && met <= max) return;
    throw Error(Code::kConfig, cat(file_name, ": ", field, " is ", met,
                                   "; a whole number from 1 to ", max, " is needed."));
  };
  whole("vocab_size", c.vocab_size, 1 << 24);
  whole("hidden_size", c.hidden_size, 1 << 20);
  whole("intermediate_size", c.intermediate_size, 1 << 22);
  whole("num_hidden_layers", c.num_hidden_layers, 1 << 14);
  whole("num_attention_heads", c.num_attention_heads, 1 << 14);
  whole("num_key_value_heads", c.num_key_value_heads, c.num_attention_heads);
  whole("head_dim", c.head_dim, 1 << 16);
  if (c.num_attention_heads % c.num_key_value_heads != 0) {
    throw Error(Code::kConfig,
                cat(file_name, ": num_key_value_heads is ", c.num_key_value_heads,
                    ", which does not divide num_attention_heads = ", c.num_attention_heads,
                    "; as many query heads share each of them."));
  }
  // As model::validate has it: no count of elements or bytes passes 63 bits.
  const double d = c.hidden_size, heads = c.num_attention_heads;
  const double all = 2.0 * c.vocab_size * d + c.num_hidden_layers * (4 * d * heads * c.head_dim +
                                                                     3 * d * c.intermediate_size);
  if (all > 0x1p53) {
    throw Error(Code::kConfig, cat(file_name, ": the sizes together mean ", all,
                                   " parameters or more; at most ", 0x1p53, " are possible."));
  }
}

Parameters parameters(const DenseConfig& c) {
  const std::int64_t d = c.hidden_size, query = std::int64_t{c.num_attention_heads} * c.head_dim;
  const std::int64_t keys = std::int64_t{c.num_key_value_heads} * c.head_dim;
  const std::int64_t table = c.vocab_size * d;
  const std::int64_t attention = 2 * d * query + 2 * d * keys;
  const std::int64_t mlp = 3 * d * c.intermediate_size;
  const int layers = c.num_hidden_layers;
  Parameters p;
  add(p, "embedding", 1, table, 0);
  add(p, "attention", layers, attention, attention);
  add(p, "attention_bias", layers, c.qkv_bias ? query + 2 * keys : 0, 0);
  add(p, "norms", layers, 2 * d + (c.head_norms ? 2 * c.head_dim : 0), 0);
  add(p, "dense_ffn", layers, mlp, mlp);
  add(p, "final_norm", 1, d, 0);
  if (c.tie_word_embeddings) {
    p.parts.push_back({"head", 1, 0, 0, table});
  } else {
    add(p, "head", 1, table, table);
  }
  for (const Part& part : p.parts) {
    p.total += part.total;
    p.active += part.active;
    p.matmul += part.matmul;
  }
  return p;
}

}  // namespace cachalot::cost
