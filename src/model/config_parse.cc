// config.json as Hugging Face and DeepSeek write it -> Config.
#include <algorithm>
#include <cmath>
#include <utility>

#include "io/json_object.h"
#include "model/config.h"
#include "model/config_fields.h"

namespace cachalot::model {

namespace {

constexpr const char* kFamilies =
    "the DeepSeek family: model_type deepseek_v2, deepseek_v3 or kimi_k2, architectures "
    "DeepseekV2ForCausalLM or DeepseekV3ForCausalLM";

// From model_type and architectures; what they say must be known and must agree.
Family parse_family(const Fields& f) {
  bool v2 = false, known = false;
  if (f.has("architectures")) {
    const auto list = f.list("architectures");
    std::string_view name;
    if (!list || list->size() != 1 || list->at(0).get(name) != simdjson::SUCCESS ||
        (name != "DeepseekV2ForCausalLM" && name != "DeepseekV3ForCausalLM")) {
      f.unsupported("architectures", kFamilies);
    }
    v2 = name == "DeepseekV2ForCausalLM";
    known = true;
  }
  if (const auto type = f.text("model_type")) {
    const bool type_v2 = *type == "deepseek_v2";
    if (!type_v2 && *type != "deepseek_v3" && *type != "kimi_k2") {
      f.unsupported("model_type", kFamilies);
    }
    if (known && type_v2 != v2) {
      f.fail("model_type", cat("is ", *type, ", but architectures names another generation."));
    }
    if (*type == "kimi_k2") return Family::kKimiK2;
    v2 = type_v2;
    known = true;
  }
  if (!known) f.unsupported("model_type", kFamilies);
  return v2 ? Family::kDeepseekV2 : Family::kDeepseekV3;
}

// Values that other models of the family's classes may have, and that nothing here computes.
void refuse_unsupported(const Fields& f) {
  if (f.text("hidden_act").value_or("silu") != "silu") f.unsupported("hidden_act", "\"silu\"");
  for (const char* key : {"attention_bias", "mlp_bias"}) {
    if (f.boolean(key).value_or(false)) f.unsupported(key, "false");
  }
  for (const char* key : {"rope_interleave"}) {
    if (!f.boolean(key).value_or(true)) f.unsupported(key, "true");
  }
  for (const char* key : {"sliding_window", "index_topk", "index_n_heads", "vision_config"}) {
    if (f.has(key)) f.unsupported(key, "null (or no such field)");
  }
  const int heads = f.required_whole("num_attention_heads");
  if (f.whole("num_key_value_heads").value_or(heads) != heads) {
    f.unsupported("num_key_value_heads", cat("num_attention_heads = ", heads));
  }
}

RouteConfig parse_route(const Fields& f, bool v2) {
  RouteConfig r;
  r.experts = f.whole_or_null("n_routed_experts");
  if (r.experts == 0) return r;
  r.topk = f.required_whole("num_experts_per_tok");
  const std::string scoring = f.text("scoring_func").value_or(v2 ? "softmax" : "sigmoid");
  if (scoring != "softmax" && scoring != "sigmoid") {
    f.unsupported("scoring_func", "\"softmax\" or \"sigmoid\"");
  }
  r.scoring = scoring == "softmax" ? Scoring::kSoftmax : Scoring::kSigmoid;
  const std::string method = f.text("topk_method").value_or(v2 ? "greedy" : "noaux_tc");
  if (method == "noaux_tc") {
    r.method = TopkMethod::kNoauxTc;
  } else if (method == "greedy") {
    r.method = TopkMethod::kGreedy;
  } else if (method == "group_limited_greedy") {
    r.method = TopkMethod::kGroupLimitedGreedy;
  } else {
    f.unsupported("topk_method", "\"noaux_tc\", \"greedy\" or \"group_limited_greedy\"");
  }
  if ((r.scoring == Scoring::kSigmoid) != (r.method == TopkMethod::kNoauxTc)) {
    f.unsupported(f.has("topk_method") ? "topk_method" : "scoring_func",
                  "sigmoid with noaux_tc, and softmax with greedy or group_limited_greedy");
  }
  // The class of V2 has no default number of groups; `greedy` does not look at them.
  const bool grouped = r.method != TopkMethod::kGreedy;
  if (v2 && grouped) {
    r.groups = f.required_whole("n_group");
    r.topk_groups = f.required_whole("topk_group");
  } else {
    r.groups = f.whole("n_group").value_or(grouped ? 8 : 1);
    r.topk_groups = f.whole("topk_group").value_or(grouped ? 4 : 1);
  }
  r.norm_topk_prob = f.boolean("norm_topk_prob").value_or(!v2);
  r.routed_scaling = f.real("routed_scaling_factor").value_or(v2 ? 1.0 : 2.5);
  return r;
}

// `rope_scaling` or `rope_parameters`: what is in it, theta excepted.
void parse_scaling(const Fields& s, RopeConfig& rope) {
  s.only({"type", "rope_type", "rope_theta", "factor", "original_max_position_embeddings",
          "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "attention_factor", "truncate",
          "partial_rotary_factor"});
  const auto type = s.text("rope_type"), old_type = s.text("type");
  if (type && old_type && *type != *old_type) {
    s.fail("rope_type", cat("is ", *type, ", but type is ", *old_type, "."));
  }
  const char* key = type ? "rope_type" : "type";
  const std::string kind = type ? *type : old_type.value_or("default");
  if (kind != "default" && kind != "yarn") s.unsupported(key, "\"yarn\" or \"default\"");
  if (s.real("partial_rotary_factor").value_or(1) != 1) {
    s.unsupported("partial_rotary_factor", "1");
  }
  rope.yarn = kind == "yarn";
  if (!rope.yarn) {
    // Without a type, a factor would be dropped silently.
    if (s.has("factor")) s.fail(key, "is missing or default, but factor is given.");
    return;
  }
  YarnConfig& y = rope.scaling;
  for (const auto& [name, target] :
       {std::pair{"factor", &y.factor},
        std::pair{"original_max_position_embeddings", &y.original_max_position}}) {
    const auto value = s.real(name);
    if (!value) s.fail(name, "is missing; yarn needs it.");
    *target = *value;
  }
  y.beta_fast = s.real("beta_fast").value_or(y.beta_fast);
  y.beta_slow = s.real("beta_slow").value_or(y.beta_slow);
  y.mscale = s.real("mscale").value_or(y.mscale);
  y.mscale_all_dim = s.real("mscale_all_dim").value_or(y.mscale_all_dim);
  if (s.has("attention_factor")) {
    s.unsupported("attention_factor", "the factor from mscale and mscale_all_dim (null)");
  }
  if (!s.boolean("truncate").value_or(true)) s.unsupported("truncate", "true");
}

bool same(const YarnConfig& a, const YarnConfig& b) {
  return a.factor == b.factor && a.original_max_position == b.original_max_position &&
         a.beta_fast == b.beta_fast && a.beta_slow == b.beta_slow && a.mscale == b.mscale &&
         a.mscale_all_dim == b.mscale_all_dim;
}

RopeConfig parse_rope(const Fields& f) {
  RopeConfig rope;
  rope.dim = f.required_whole("qk_rope_head_dim");
  const auto theta = f.real("rope_theta");
  rope.theta = theta.value_or(rope.theta);
  const auto old_form = f.object("rope_scaling"), new_form = f.object("rope_parameters");
  if (old_form) parse_scaling(*old_form, rope);
  for (const auto* form : {&old_form, &new_form}) {
    if (!*form) continue;
    const auto inner = (*form)->real("rope_theta");
    if (inner && theta && *inner != *theta) {
      (*form)->fail("rope_theta", cat("is ", *inner, ", but rope_theta outside is ", *theta, "."));
    }
    rope.theta = inner.value_or(rope.theta);
  }
  if (!new_form) return rope;
  RopeConfig again = rope;
  again.yarn = false;
  again.scaling = {};
  parse_scaling(*new_form, again);
  if (old_form && (rope.yarn != again.yarn || !same(rope.scaling, again.scaling))) {
    f.fail("rope_parameters", "says something else than rope_scaling; one of the two must go.");
  }
  return again;
}

std::vector<int> parse_eos(const Fields& f, bool v2) {
  constexpr const char* kNeeded = "a token id or a list of them";
  if (!f.is_written("eos_token_id") && !v2) return {1};
  if (!f.has("eos_token_id")) return {};
  const auto list = f.list("eos_token_id");
  if (!list) return {f.required_whole("eos_token_id")};
  std::vector<int> ids;
  for (const simdjson::dom::element entry : *list) {
    const auto id = f.whole_of(entry);
    if (!id) f.wrong("eos_token_id", kNeeded);
    ids.push_back(*id);
  }
  return ids;
}

std::string parse_dtype(const Fields& f, const Fields& outer) {
  for (const Fields* level : {&f, &outer}) {
    for (const char* key : {"torch_dtype", "dtype"}) {  // newer writers say dtype
      const auto text = level->text(key);
      if (!text) continue;
      if (text->size() > 32 ||
          text->find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_.") != std::string::npos) {
        level->wrong(key, "the name of a type, such as \"bfloat16\",");
      }
      return *text;
    }
  }
  return "bfloat16";
}

Config parse_fields(const Fields& f, const Fields& outer) {
  Config c;
  c.family = parse_family(f);
  const bool v2 = c.family == Family::kDeepseekV2;
  refuse_unsupported(f);
  c.vocab_size = f.required_whole("vocab_size");
  c.hidden_size = f.required_whole("hidden_size");
  c.intermediate_size = f.required_whole("intermediate_size");
  c.num_hidden_layers = f.required_whole("num_hidden_layers");
  c.num_attention_heads = f.required_whole("num_attention_heads");
  c.q_lora_rank = f.whole_or_null("q_lora_rank");
  c.kv_lora_rank = f.required_whole("kv_lora_rank");
  c.qk_nope_head_dim = f.required_whole("qk_nope_head_dim");
  c.qk_rope_head_dim = f.required_whole("qk_rope_head_dim");
  c.v_head_dim = f.required_whole("v_head_dim");
  c.num_nextn_predict_layers = f.whole("num_nextn_predict_layers").value_or(0);
  c.route = parse_route(f, v2);
  if (c.route.experts != 0) {
    c.moe_intermediate_size = f.required_whole("moe_intermediate_size");
    c.n_shared_experts = f.whole_or_null("n_shared_experts");
    // A model of fewer layers than the class's default is dense throughout, MTP layers included:
    // their indices follow those of the others.
    const int layers = c.num_hidden_layers + c.num_nextn_predict_layers;
    const int dense = v2 ? 0 : std::min(3, layers);
    c.first_k_dense_replace = f.whole("first_k_dense_replace").value_or(dense);
    c.moe_layer_freq = f.whole("moe_layer_freq").value_or(1);
  }
  c.max_position_embeddings = f.whole("max_position_embeddings").value_or(v2 ? 2048 : 4096);
  c.rms_norm_eps = f.real("rms_norm_eps").value_or(c.rms_norm_eps);
  c.initializer_range = f.real("initializer_range").value_or(c.initializer_range);
  c.tie_word_embeddings = f.boolean("tie_word_embeddings").value_or(false);
  c.bos_token_id = f.whole("bos_token_id").value_or(!v2 && !f.is_written("bos_token_id") ? 0 : -1);
  c.eos_token_ids = parse_eos(f, v2);
  c.rope = parse_rope(f);
  parse_quantization(f.has("quantization_config") ? f : outer, c);
  c.torch_dtype = parse_dtype(f, outer);
  return c;
}

}  // namespace

Config parse_config(std::string_view json, const std::string& file_name,
                    std::vector<std::string>* remarks) {
  simdjson::dom::parser parser;
  const Fields outer(io::parse_json_object(parser, json, file_name), file_name, "");
  const auto nested = outer.object("text_config");
  const Config config = parse_fields(nested ? *nested : outer, outer);
  validate(config, file_name);
  if (remarks != nullptr) {
    outer.remark_misspelt(*remarks);
    if (nested) nested->remark_misspelt(*remarks);
  }
  return config;
}

}  // namespace cachalot::model
