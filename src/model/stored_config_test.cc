// What a converted folder's config.json says of its weights.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "model/config_case_test.h"
#include "model/packed_weights.h"
#include "model/weight_format.h"

namespace cachalot::model {
namespace {

// `quantization_config` of the folder that one with `json` becomes.
Json quantization_after(const Json& json, WeightFormat format, const Fp8Form& fp8 = {}) {
  const PackedConfig packed = packed_config(format);
  const auto stored = Json::parse(stored_config(json.dump(), "m/config.json", format, packed, fp8));
  parse_config(stored.dump(), "stored");
  return stored.value("quantization_config", Json());
}

Json with_quantization_key(Json json, const char* key, const Json& value) {
  json["quantization_config"][key] = value;
  return json;
}

TEST(StoredConfig, KeysOfTheSameSchemeStay) {
  const Json list = {"model.embed_tokens", "lm_head"};
  const Json fp8 = with_quantization_key(v3(), "modules_to_not_convert", list);
  const Json kept = quantization_after(fp8, WeightFormat::kFp8);
  EXPECT_EQ(kept["modules_to_not_convert"], list);
  EXPECT_EQ(kept["quant_method"], "fp8");
  EXPECT_EQ(kept["weight_block_size"], (Json{128, 128}));
  // Also where it lies in a nested config; the new one lies outside.
  Json nested;
  nested["text_config"] = fp8;
  EXPECT_EQ(quantization_after(nested, WeightFormat::kFp8)["modules_to_not_convert"], list);

  for (const WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4}) {
    Json json = v3();
    json["quantization_config"] = quantization_json(packed_config(format));
    json["quantization_config"]["version"] = "0.9";
    EXPECT_EQ(quantization_after(json, format)["version"], "0.9") << name(format);
  }
}

TEST(StoredConfig, KeysOfAnotherSchemeGo) {
  const Json fp8 = with_quantization_key(v3(), "modules_to_not_convert", {"lm_head"});
  for (const WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4}) {
    EXPECT_FALSE(quantization_after(fp8, format).contains("modules_to_not_convert"));
  }
  for (const WeightFormat format : {WeightFormat::kF32, WeightFormat::kBf16}) {
    EXPECT_TRUE(quantization_after(fp8, format).is_null());
  }
  // With a head in FP8 such a list may be wrong.
  const Json head = quantization_after(fp8, WeightFormat::kFp8, {.head = true});
  EXPECT_FALSE(head.contains("modules_to_not_convert"));

  Json int8 = v3();
  int8["quantization_config"] = quantization_json(packed_config(WeightFormat::kInt8));
  int8["quantization_config"]["global_compression_ratio"] = 1.9;
  const Json int4 = quantization_after(int8, WeightFormat::kInt4);
  EXPECT_FALSE(int4.contains("global_compression_ratio"));
  EXPECT_FALSE(quantization_after(int8, WeightFormat::kFp8).contains("config_groups"));
}

// What the scales of a source are goes along, and is not lost with it.
TEST(StoredConfig, PowersOfTwoAreSaid) {
  const Json json = with_quantization_key(v3(), "scale_fmt", "ue8m0");
  EXPECT_EQ(quantization_after(json, WeightFormat::kFp8, {.ue8m0_scales = true})["scale_fmt"],
            "ue8m0");
  EXPECT_FALSE(quantization_after(v3(), WeightFormat::kFp8).contains("scale_fmt"));
}

}  // namespace
}  // namespace cachalot::model
