// Which form the linear weights of a checkpoint have.
#include "model/config.h"
#include "model/config_fields.h"

namespace cachalot::model {

namespace {

Fp8Config parse_fp8(const Fields& q) {
  Fp8Config fp8;
  if (q.text("fmt").value_or("e4m3") != "e4m3") q.unsupported("fmt", "\"e4m3\"");
  if (q.text("activation_scheme").value_or("dynamic") != "dynamic") {
    q.unsupported("activation_scheme", "\"dynamic\"");
  }
  if (q.has("weight_block_size")) {
    const auto size = q.list("weight_block_size");
    if (!size || size->size() != 2 || q.whole_of(size->at(0).value()) != fp8.block_rows ||
        q.whole_of(size->at(1).value()) != fp8.block_cols) {
      q.unsupported("weight_block_size", "blocks of [128, 128]");
    }
  }
  if (const auto scale = q.text("scale_fmt")) {
    if (*scale != "ue8m0" && *scale != "float") {
      q.unsupported("scale_fmt", "\"ue8m0\" or \"float\"");
    }
    fp8.ue8m0_scales = *scale == "ue8m0";
  }
  fp8.enabled = true;
  return fp8;
}

// Anything but absent or null.
void refuse(const Fields& f, const char* key, const char* needed) {
  if (f.has(key)) f.unsupported(key, needed);
}

// One group of `config_groups`.
PackedConfig::Form parse_form(const Fields& group) {
  refuse(group, "input_activations", "weights alone in integers (null)");
  refuse(group, "output_activations", "weights alone in integers (null)");
  const auto w = group.object("weights");
  if (!w) group.fail("weights", "is missing; an object is needed.");
  PackedConfig::Form form;
  form.bits = w->required_whole("num_bits");
  if (form.bits != 8 && form.bits != 4) w->unsupported("num_bits", "8 or 4");
  if (w->text("type").value_or("int") != "int") w->unsupported("type", "\"int\"");
  if (!w->boolean("symmetric").value_or(true)) w->unsupported("symmetric", "true");
  if (w->boolean("dynamic").value_or(false)) w->unsupported("dynamic", "false");
  if (w->text("strategy").value_or("group") != "group") w->unsupported("strategy", "\"group\"");
  refuse(*w, "actorder", "columns in their own order (null)");
  form.group = w->required_whole("group_size");
  if (form.group != 32 && form.group != 64 && form.group != 128) {
    w->unsupported("group_size", "32, 64 or 128");
  }
  return form;
}

// Whether a group's targets are output heads and nothing else.
bool is_of_heads(const Fields& group) {
  const auto targets = group.list("targets");
  if (!targets || targets->size() == 0) return false;
  return std::ranges::all_of(*targets, [](const simdjson::dom::element& target) {
    std::string_view text;
    if (target.get(text) != simdjson::SUCCESS) return false;
    if (text.ends_with("$")) text.remove_suffix(1);
    return text.ends_with("lm_head") || text.ends_with("shared_head\\.head") ||
           text.ends_with("shared_head.head");
  });
}

PackedConfig parse_packed(const Fields& q) {
  if (q.text("format").value_or("") != "pack-quantized") {
    q.unsupported("format", "\"pack-quantized\"");
  }
  refuse(q, "kv_cache_scheme", "caches that are not quantised (null)");
  if (const auto sparsity = q.object("sparsity_config")) {
    if (sparsity->text("format").value_or("dense") != "dense") {
      sparsity->unsupported("format", "\"dense\"");
    }
  }
  if (const auto transform = q.object("transform_config")) {
    if (!transform->names().empty()) q.unsupported("transform_config", "weights as they are ({})");
  }
  const auto groups = q.object("config_groups");
  if (!groups) q.fail("config_groups", "is missing; a group of weights is needed.");
  constexpr const char* kGroups = "one group of weights, and one more of the heads alone";
  PackedConfig packed;
  for (const std::string& name : groups->names()) {
    const auto group = groups->object(name);
    if (!group) q.unsupported("config_groups", kGroups);
    const bool heads = is_of_heads(*group);
    if (heads ? packed.head.has_value() : packed.enabled) q.unsupported("config_groups", kGroups);
    if (heads) {
      packed.head = parse_form(*group);
    } else {
      packed.linear = parse_form(*group);
      packed.enabled = true;
    }
  }
  if (!packed.enabled) q.unsupported("config_groups", kGroups);
  return packed;
}

}  // namespace

void parse_quantization(const Fields& f, Config& config) {
  const auto q = f.object("quantization_config");
  if (!q) return;
  const std::string method = q->text("quant_method").value_or("");
  if (method == "fp8") {
    config.fp8 = parse_fp8(*q);
  } else if (method == "compressed-tensors") {
    config.packed = parse_packed(*q);
  } else {
    q->unsupported("quant_method", "\"fp8\" or \"compressed-tensors\"");
  }
}

}  // namespace cachalot::model
