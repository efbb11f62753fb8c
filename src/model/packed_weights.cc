#include "model/packed_weights.h"

#include <nlohmann/json.hpp>

#include "model/weight_format.h"

namespace cachalot::model {

namespace {

constexpr std::string_view kWeight = ".weight";
constexpr std::string_view kCodes = "_packed", kScales = "_scale", kShape = "_shape";
constexpr std::string_view kScaleInverse = "_scale_inv";

std::int64_t blocks_of(std::int64_t size, std::int64_t block) { return (size + block - 1) / block; }

void require(bool condition, const io::TensorView& t, const std::string& name,
             const std::string& needed) {
  if (condition) return;
  throw Error(Code::kFormat, cat(t.file, ": tensor '", name, "' is ", cachalot::name(t.dtype), " ",
                                 to_string(t.shape), ", but ", needed,
                                 ". Convert the model again, or get its files again."));
}

const io::TensorView& part_of(const io::Safetensors& file, const std::string& part,
                              const io::TensorView& codes) {
  const io::TensorView* t = file.find(part);
  if (t == nullptr) {
    throw Error(Code::kFormat, cat(codes.file, ": packed weights need a tensor '", part,
                                   "', which is missing. Get the model's files again."));
  }
  return *t;
}

// The logical shape, from a tensor of two integers.
Shape read_shape(const io::TensorView& t, const std::string& name) {
  require((t.dtype == DType::kI64 || t.dtype == DType::kI32) && t.shape == Shape{2}, t, name,
          "two integers (I64 [2]) are needed");
  const std::vector<std::int64_t> sizes = t.to_ints();
  constexpr std::int64_t kMost = 1 << 30;
  if (sizes[0] < 0 || sizes[1] < 0 || sizes[0] > kMost || sizes[1] > kMost) {
    throw Error(Code::kFormat,
                cat(t.file, ": tensor '", name, "' says [", sizes[0], ", ", sizes[1],
                    "], which is no shape of a matrix. Get the model's files again."));
  }
  return {sizes[0], sizes[1]};
}

}  // namespace

PackedNames::PackedNames(const std::string& name)
    : codes(cat(name, kCodes)), scales(cat(name, kScales)), shape(cat(name, kShape)) {}

std::string packed_owner(std::string_view name) {
  if (!name.ends_with(kCodes)) return {};
  name.remove_suffix(kCodes.size());
  return name.ends_with(kWeight) ? std::string(name) : std::string();
}

bool is_part_of_weight(const io::Safetensors& file, std::string_view name) {
  if (name.ends_with(kScaleInverse)) {
    const auto* weight = file.find(name.substr(0, name.size() - kScaleInverse.size()));
    return weight != nullptr && weight->dtype == DType::kF8E4M3;
  }
  for (const std::string_view suffix : {kScales, kShape}) {
    if (!name.ends_with(suffix)) continue;
    const std::string owner(name.substr(0, name.size() - suffix.size()));
    return file.find(PackedNames(owner).codes) != nullptr;
  }
  return false;
}

std::optional<StoredPacked> find_packed(const Config& config, const io::Safetensors& file,
                                        const std::string& name) {
  const PackedNames names(name);
  const io::TensorView* codes = file.find(names.codes);
  if (codes == nullptr) return std::nullopt;
  if (!config.packed.enabled) {
    throw Error(Code::kFormat,
                cat(codes->file, ": tensor '", names.codes,
                    "' holds packed integers, but config.json has no quantization_config of "
                    "compressed-tensors that says how. The weights and the config.json belong to "
                    "different models."));
  }
  if (file.find(name) != nullptr) {
    throw Error(Code::kFormat, cat(codes->file, ": both '", name, "' and '", names.codes,
                                   "' are there, but a weight has one form. Take one away."));
  }
  StoredPacked p;
  p.codes = codes;
  p.scales = &part_of(file, names.scales, *codes);
  const io::TensorView& shape = part_of(file, names.shape, *codes);
  p.shape = read_shape(shape, names.shape);
  const std::int64_t rows = p.shape[0], cols = p.shape[1];
  const PackedConfig::Form form = stored_form(config.packed, name);
  const std::int64_t words = blocks_of(cols * form.bits, 32);
  const std::int64_t groups = blocks_of(cols, form.group);
  require(codes->dtype == DType::kI32 && codes->shape == Shape{rows, words}, *codes, names.codes,
          cat(form.bits, "-bit weights ", to_string(p.shape), " are I32 ",
              to_string(Shape{rows, words})));
  require(p.scales->dtype == DType::kBF16 && p.scales->shape == Shape{rows, groups}, *p.scales,
          names.scales,
          cat("weights ", to_string(p.shape), " in groups of ", form.group, " have BF16 ",
              to_string(Shape{rows, groups})));
  p.view.code = form.bits == 4 ? QuantCode::kInt4 : QuantCode::kInt8;
  p.view.rows = static_cast<int>(rows);
  p.view.cols = static_cast<int>(cols);
  p.view.codes = static_cast<const std::uint8_t*>(codes->data);
  p.view.stride = static_cast<std::ptrdiff_t>(words) * 4;
  p.view.scales = p.scales->data;
  p.view.scale_stride = static_cast<std::ptrdiff_t>(groups);
  p.view.group = form.group;
  return p;
}

StoredFp8 find_fp8(const Config& config, const io::Safetensors& file, const std::string& name) {
  StoredFp8 f;
  f.codes = &file.at(name);
  if (f.codes->shape.size() != 2) {
    throw Error(Code::kFormat, cat(f.codes->file, ": tensor '", name,
                                   "' is F8_E4M3 but no matrix; only matrices have block scales"));
  }
  const std::string scales = cat(name, kScaleInverse);
  f.scales = &file.at(scales);
  const Shape want{blocks_of(f.codes->shape[0], config.fp8.block_rows),
                   blocks_of(f.codes->shape[1], config.fp8.block_cols)};
  if (f.scales->shape != want) {
    throw Error(Code::kShape,
                cat(f.scales->file, ": tensor '", scales, "' has shape ",
                    to_string(f.scales->shape), ", but config.json asks for ", to_string(want),
                    ". The weights and the config.json belong to different models."));
  }
  return f;
}

Shape stored_shape(const Config& config, const io::Safetensors& file, const std::string& name) {
  const auto packed = find_packed(config, file, name);
  return packed ? packed->shape : file.at(name).shape;
}

bool is_head(std::string_view name) {
  return name == "lm_head.weight" || name.ends_with(".shared_head.head.weight");
}

std::optional<PackedConfig::Form> packed_form(const PackedConfig& packed, std::string_view name,
                                              const Shape& shape) {
  if (!packed.enabled) return std::nullopt;
  if (is_head(name)) return packed.head;
  if (!is_fp8_weight(name, shape) || name.ends_with("kv_b_proj.weight")) return std::nullopt;
  const bool small =
      name.ends_with("q_a_proj.weight") || name.ends_with("kv_a_proj_with_mqa.weight");
  if (small && packed.linear.bits == 4) return std::nullopt;
  return packed.linear;
}

PackedConfig::Form stored_form(const PackedConfig& packed, std::string_view name) {
  return is_head(name) ? packed.head.value_or(packed.linear) : packed.linear;
}

namespace {

nlohmann::ordered_json group_json(const nlohmann::ordered_json& targets,
                                  const PackedConfig::Form& form) {
  return {{"targets", targets},
          {"input_activations", nullptr},
          {"output_activations", nullptr},
          {"weights",
           {{"num_bits", form.bits},
            {"type", "int"},
            {"symmetric", true},
            {"strategy", "group"},
            {"group_size", form.group},
            {"dynamic", false},
            {"actorder", nullptr}}}};
}

}  // namespace

nlohmann::ordered_json quantization_json(const PackedConfig& packed) {
  using Json = nlohmann::ordered_json;
  Json ignore = {"re:.*mlp\\.gate$", "re:.*kv_b_proj$", "re:.*eh_proj$"};
  if (packed.linear.bits == 4) {
    ignore.push_back("re:.*q_a_proj$");
    ignore.push_back("re:.*kv_a_proj_with_mqa$");
  }
  Json groups = {{"group_0", group_json(Json::array({"Linear"}), packed.linear)}};
  const Json heads = {"lm_head", "re:.*shared_head\\.head$"};
  if (packed.head) {
    groups["group_1"] = group_json(heads, *packed.head);
  } else {
    ignore.insert(ignore.end(), heads.begin(), heads.end());
  }
  return {{"quant_method", "compressed-tensors"}, {"format", "pack-quantized"},
          {"quantization_status", "compressed"},  {"config_groups", groups},
          {"kv_cache_scheme", nullptr},           {"ignore", ignore}};
}

}  // namespace cachalot::model
