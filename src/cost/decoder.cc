#include "cost/decoder.h"

#include <filesystem>
#include <vector>

#include "base/atomic_file.h"
#include "base/error.h"
#include "io/json_object.h"

namespace cachalot::cost {

namespace {

std::string_view model_type(std::string_view json, const std::string& file_name,
                            simdjson::dom::parser& parser) {
  std::string_view type;
  for (const auto& [key, value] : io::parse_json_object(parser, json, file_name)) {
    if (key == "model_type" && value.get(type) != simdjson::SUCCESS) type = {};
  }
  return type;
}

// A config.json that was found, and how messages call it.
struct ModelText {
  std::string name, file_name, json;
};

ModelText find_model(const std::string& name_or_path) {
  std::error_code ignored;
  std::filesystem::path path(name_or_path);
  // What looks like a path and is not there is a missing file, not an unknown name.
  const bool is_path = path.extension() == ".json" || path.has_parent_path();
  if (!is_path && !std::filesystem::exists(path, ignored)) {
    return {name_or_path, cat(name_or_path, ".json"), std::string(embedded_model(name_or_path))};
  }
  std::string name = path.stem().string();
  if (std::filesystem::is_directory(path, ignored)) {
    name = std::filesystem::absolute(path, ignored).lexically_normal().filename().string();
    if (name.empty()) name = path.string();
    path /= "config.json";
  } else if (path.filename() == "config.json" && path.has_parent_path()) {
    name = path.parent_path().filename().string();
  }
  if (path.extension() == ".toml" && std::filesystem::exists(path, ignored)) {
    throw Error(Code::kUsage,
                cat(path.string(),
                    " is TOML, as training recipes and hardware profiles are; a model is a "
                    "config.json, a folder that holds one, or a known name (deepseek-v3). "
                    "`cachalot plan design --out` and a training run write a config.json."));
  }
  constexpr std::uint64_t kMostBytes = 16 << 20;
  return {name, path.string(), read_file(path, kMostBytes)};
}

}  // namespace

std::string_view name(Attention attention) noexcept {
  switch (attention) {
    case Attention::kMultiHead:
      return "MHA";
    case Attention::kGroupedQuery:
      return "GQA";
    case Attention::kMultiQuery:
      return "MQA";
    case Attention::kLatent:
      return "MLA";
  }
  return "?";
}

RouteConfig ExpertLayers::route() const {
  RouteConfig r;
  r.experts = experts;
  r.topk = topk;
  r.groups = groups;
  r.topk_groups = topk_groups;
  r.method = method;
  return r;
}

Decoder decoder_of(const model::Config& c, std::string name) {
  Decoder d;
  d.name = std::move(name);
  d.attention = Attention::kLatent;
  d.layers = c.num_hidden_layers;
  d.hidden = c.hidden_size;
  d.vocab = c.vocab_size;
  d.heads = c.num_attention_heads;
  d.kv_heads = 1;
  d.parameters = parameters(c);
  d.cache_row = c.cache_row_width();
  d.cache_rope = c.qk_rope_head_dim;
  const double heads = c.num_attention_heads;
  d.pair_flops = 2 * heads * (c.qk_head_dim() + c.v_head_dim);
  d.cached_pair_flops = 2 * heads * (2.0 * c.kv_lora_rank + c.qk_rope_head_dim);
  d.absorbed =
      std::int64_t{c.kv_lora_rank} * c.num_attention_heads * (c.qk_nope_head_dim + c.v_head_dim);
  d.latent_inputs = std::int64_t{c.hidden_size} * (c.q_lora_rank + c.cache_row_width());
  for (int layer = 0; layer < c.num_hidden_layers; ++layer) {
    d.experts.layers += c.is_moe_layer(layer) ? 1 : 0;
  }
  d.mtp_layers = c.num_nextn_predict_layers;
  d.mtp_moe = d.mtp_layers > 0 && c.is_moe_layer(c.num_hidden_layers);
  if (d.expert_layers() > 0) {
    d.experts.experts = c.route.experts;
    d.experts.topk = c.route.topk;
    d.experts.shared = c.n_shared_experts;
    d.experts.parameters = 3 * std::int64_t{c.hidden_size} * c.moe_intermediate_size;
    d.experts.groups = c.route.groups;
    d.experts.topk_groups = c.route.topk_groups;
    d.experts.method = c.route.method;
  }
  return d;
}

Decoder decoder_of(const DenseConfig& c, std::string name) {
  Decoder d;
  d.name = std::move(name);
  d.attention = c.num_key_value_heads == c.num_attention_heads ? Attention::kMultiHead
                : c.num_key_value_heads == 1                   ? Attention::kMultiQuery
                                                               : Attention::kGroupedQuery;
  d.layers = c.num_hidden_layers;
  d.hidden = c.hidden_size;
  d.vocab = c.vocab_size;
  d.heads = c.num_attention_heads;
  d.kv_heads = c.num_key_value_heads;
  d.parameters = parameters(c);
  d.cache_row = 2 * std::int64_t{c.num_key_value_heads} * c.head_dim;
  d.pair_flops = 4.0 * c.num_attention_heads * c.head_dim;
  d.cached_pair_flops = d.pair_flops;
  return d;
}

Decoder parse_decoder(std::string_view json, const std::string& file_name, std::string name,
                      std::vector<std::string>* remarks) {
  simdjson::dom::parser parser;
  if (is_dense_type(model_type(json, file_name, parser))) {
    return decoder_of(parse_dense_config(json, file_name), std::move(name));
  }
  return decoder_of(model::parse_config(json, file_name, remarks), std::move(name));
}

std::string_view embedded_model(std::string_view name) {
  std::vector<std::string_view> names;
  for (const EmbeddedFile& file : embedded_models()) {
    if (file.name == name) return file.text;
    names.push_back(file.name);
  }
  std::string list;
  for (const std::string_view known : names) list += cat(list.empty() ? "" : ", ", known);
  const std::string near = nearest(name, names.data(), names.data() + names.size());
  throw Error(
      Code::kUsage,
      cat("'", io::printable(name),
          "' is neither a model folder, nor a config.json, nor a model that comes with the "
          "program",
          near.empty() ? ". " : "; did you mean '" + near + "'? ", "There are: ", list, "."));
}

Decoder load_decoder(const std::string& name_or_path, std::vector<std::string>* remarks) {
  const ModelText text = find_model(name_or_path);
  return parse_decoder(text.json, text.file_name, text.name, remarks);
}

model::Config load_latent_config(const std::string& name_or_path,
                                 std::vector<std::string>* remarks) {
  const ModelText text = find_model(name_or_path);
  simdjson::dom::parser parser;
  const std::string_view type = model_type(text.json, text.file_name, parser);
  if (is_dense_type(type)) {
    throw Error(Code::kUnsupported,
                cat(text.file_name, ": model_type '", type,
                    "' is a dense model with grouped-query attention, whose training cannot be "
                    "planned; plan infer, plan model and plan compare take it."));
  }
  return model::parse_config(text.json, text.file_name, remarks);
}

std::int64_t cache_bytes_per_token(const Decoder& d, CacheFormat format) {
  if (format == CacheFormat::kBf16) return 2 * d.layers * d.cache_row;
  const std::int64_t codes = d.cache_row - d.cache_rope;
  if (d.attention != Attention::kLatent) return d.layers * codes;
  constexpr std::int64_t kTile = 128, kScale = 4, kRope = 2;
  const std::int64_t tiles = (codes + kTile - 1) / kTile;
  const std::int64_t aligned = (codes + kScale - 1) / kScale * kScale;
  return d.layers * (aligned + kScale * tiles + kRope * d.cache_rope);
}

double forward_flops_per_token(const Decoder& d, std::int64_t sequence, bool causal) {
  const double seen = static_cast<double>(sequence) * (causal ? 0.5 : 1.0);
  return 2.0 * static_cast<double>(d.parameters.matmul) + d.layers * d.pair_flops * seen;
}

double training_flops_per_token(const Decoder& d, std::int64_t sequence, bool causal) {
  return 3.0 * forward_flops_per_token(d, sequence, causal);
}

double decode_flops_per_token(const Decoder& d, std::int64_t context) {
  return 2.0 * static_cast<double>(d.parameters.matmul) +
         d.layers * d.cached_pair_flops * static_cast<double>(context);
}

}  // namespace cachalot::cost
