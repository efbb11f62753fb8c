#include "model/weight_format.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "model/packed_weights.h"
#include "numeric/quantize.h"

namespace cachalot::model {

namespace {
constexpr int kInt8Group = 128;
constexpr int kInt4Group = 32;  // docs/performance.md: what each group costs in loss and bytes
}  // namespace

std::string_view name(WeightFormat format) noexcept {
  switch (format) {
    case WeightFormat::kF32:
      return "f32";
    case WeightFormat::kBf16:
      return "bf16";
    case WeightFormat::kFp8:
      return "fp8";
    case WeightFormat::kInt8:
      return "int8";
    case WeightFormat::kInt4:
      return "int4";
  }
  return "bf16";
}

WeightFormat parse_weight_format(std::string_view text) {
  for (const auto format : {WeightFormat::kF32, WeightFormat::kBf16, WeightFormat::kFp8,
                            WeightFormat::kInt8, WeightFormat::kInt4}) {
    if (name(format) == text) return format;
  }
  throw Error(Code::kUsage,
              cat("'", text, "' is no weight format; use f32, bf16, fp8, int8 or int4."));
}

bool is_fp8_weight(std::string_view name, const Shape& shape) {
  static constexpr std::array<std::string_view, 9> kProjections{
      "q_proj", "q_a_proj",  "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj",
      "o_proj", "gate_proj", "up_proj",  "down_proj"};
  constexpr std::string_view kWeight = ".weight";
  if (shape.size() != 2 || !name.ends_with(kWeight)) return false;
  name.remove_suffix(kWeight.size());
  const auto dot = name.rfind('.');
  if (dot == std::string_view::npos || name.find("model.layers.") == std::string_view::npos) {
    return false;
  }
  return std::find(kProjections.begin(), kProjections.end(), name.substr(dot + 1)) !=
         kProjections.end();
}

bool is_router_bias(std::string_view name) { return name.ends_with(".e_score_correction_bias"); }

PackedConfig packed_config(WeightFormat format, int group, bool pack_head) {
  PackedConfig packed;
  packed.enabled = format == WeightFormat::kInt8 || format == WeightFormat::kInt4;
  if (!packed.enabled) return packed;
  packed.linear.bits = format == WeightFormat::kInt4 ? 4 : 8;
  packed.linear.group = group != 0 ? group : packed.linear.bits == 4 ? kInt4Group : kInt8Group;
  if (pack_head) packed.head = {.bits = 8, .group = kInt8Group};
  return packed;
}

PackedConfig packed_for(const Config& config, PackedConfig packed) {
  if (config.tie_word_embeddings) packed.head.reset();
  return packed;
}

namespace {

using Json = nlohmann::ordered_json;

// `quantization_config` of a folder; null where its weights need none.
Json quantization(WeightFormat format, const PackedConfig& packed, const Fp8Form& fp8) {
  if (packed.enabled) return quantization_json(packed);
  if (format != WeightFormat::kFp8) return nullptr;
  Json json = {{"activation_scheme", "dynamic"},
               {"fmt", "e4m3"},
               {"quant_method", "fp8"},
               {"weight_block_size", {numeric::kScaleBlock, numeric::kScaleBlock}}};
  if (fp8.ue8m0_scales) json["scale_fmt"] = "ue8m0";
  return json;
}

// What `json` says of the source's weights that holds for the target's too, and that this program
// does not write itself: all other keys where both have FP8 blocks, or integers of the same form. A
// head in FP8 makes it another form, since such keys may list what is not in FP8.
Json kept_quantization(const Json& json, const Config& source, WeightFormat format,
                       const PackedConfig& packed, const Fp8Form& fp8) {
  const bool same = packed.enabled
                        ? source.packed == packed
                        : format == WeightFormat::kFp8 && source.fp8.enabled && !fp8.head;
  if (!same) return Json::object();
  const Json* nested = json.contains("text_config") ? &json["text_config"] : &json;
  for (const Json* level : {nested, &json}) {
    const auto found = level->find("quantization_config");
    if (found == level->end() || !found->is_object()) continue;
    return *found;
  }
  return Json::object();
}

}  // namespace

std::string stored_config(std::string_view text, const std::string& file_name, WeightFormat format,
                          const PackedConfig& packed, const Fp8Form& fp8) {
  Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) throw Error(Code::kFormat, cat(file_name, ": not a JSON object."));
  const char* dtype = format == WeightFormat::kF32 ? "float32" : "bfloat16";
  const auto adapt = [&](Json& level) {
    level.erase("quantization_config");
    for (const char* key : {"torch_dtype", "dtype"}) {
      if (level.contains(key)) level[key] = dtype;
    }
  };
  Json quantized = quantization(format, packed, fp8);
  if (!quantized.is_null()) {
    Json kept = kept_quantization(json, parse_config(text, file_name), format, packed, fp8);
    kept.update(quantized);
    quantized = std::move(kept);
  }
  adapt(json);
  if (json.contains("text_config") && json["text_config"].is_object()) adapt(json["text_config"]);
  if (!json.contains("dtype")) json["torch_dtype"] = dtype;
  if (!quantized.is_null()) json["quantization_config"] = std::move(quantized);
  return json.dump(2) + "\n";
}

}  // namespace cachalot::model
