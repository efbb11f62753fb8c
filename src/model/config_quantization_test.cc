// quantization_config: FP8 blocks and packed integers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "model/config_case_test.h"

namespace cachalot::model {
namespace {

using ::testing::HasSubstr;

TEST(Config, V31HasPowerOfTwoScales) {
  Json json = v3();
  json["quantization_config"]["scale_fmt"] = "ue8m0";
  EXPECT_TRUE(parse(json).fp8.ue8m0_scales);
}

Json packed_config() {
  Json json = v3();
  json["quantization_config"] = Json::parse(R"({
    "quant_method": "compressed-tensors", "format": "pack-quantized",
    "quantization_status": "compressed", "kv_cache_scheme": null, "ignore": ["lm_head"],
    "config_groups": {"group_0": {"targets": ["Linear"], "input_activations": null,
      "output_activations": null, "weights": {"num_bits": 4, "type": "int", "symmetric": true,
        "strategy": "group", "group_size": 32, "dynamic": false, "actorder": null,
        "block_structure": null, "observer": "minmax", "observer_kwargs": {}}}}})");
  return json;
}

// As Kimi-K2-Thinking's config.json has it.
TEST(Config, PackedIntegers) {
  const Config c = parse(packed_config());
  EXPECT_FALSE(c.fp8.enabled);
  EXPECT_EQ((PackedConfig{true, {4, 32}, std::nullopt}), c.packed);
  EXPECT_EQ(c, parse_config(to_json(c), "again"));
}

// The head in a form of its own: a second group whose targets are heads and nothing else.
TEST(Config, PackedHead) {
  Json json = packed_config();
  Json& groups = json["quantization_config"]["config_groups"];
  groups["another"] = groups["group_0"];
  groups["another"]["targets"] = {"re:.*lm_head$", "re:.*shared_head\\.head$"};
  groups["another"]["weights"]["num_bits"] = 8;
  groups["another"]["weights"]["group_size"] = 128;
  const Config c = parse(json);
  EXPECT_EQ((PackedConfig{true, {4, 32}, PackedConfig::Form{8, 128}}), c.packed);
  EXPECT_EQ(c, parse_config(to_json(c), "again"));

  groups["another"]["targets"].push_back("re:.*gate_proj$");
  EXPECT_THAT(error_of(Code::kUnsupported, json.dump()), HasSubstr("one more of the heads alone"));
  groups["another"]["targets"] = {"lm_head"};
  groups["group_0"]["targets"] = {"lm_head"};
  EXPECT_THAT(error_of(Code::kUnsupported, json.dump()), HasSubstr("one more of the heads alone"));
}

TEST(Config, PackedIntegersOfAnotherKind) {
  // `field` of the quantization_config, a dot between an object and its member.
  const auto changed = [](std::string field, const char* value) {
    std::replace(field.begin(), field.end(), '.', '/');
    Json json = packed_config();
    json["quantization_config"][Json::json_pointer("/" + field)] = Json::parse(value);
    return json.dump();
  };
  const struct {
    const char *field, *value, *says;
  } cases[] = {
      {"format", "\"int-quantized\"", "format is \"int-quantized\""},
      {"kv_cache_scheme", R"({"num_bits": 8})", "kv_cache_scheme is {"},
      {"config_groups.group_1", "{}", "config_groups is {"},
      {"config_groups.group_0.input_activations", R"({"num_bits": 8})",
       "config_groups.group_0.input_activations is {"},
      {"config_groups.group_0.weights.num_bits", "3", "weights.num_bits is 3"},
      {"config_groups.group_0.weights.type", "\"float\"", "weights.type is \"float\""},
      {"config_groups.group_0.weights.symmetric", "false", "weights.symmetric is false"},
      {"config_groups.group_0.weights.strategy", "\"channel\"", "strategy is \"channel\""},
      {"config_groups.group_0.weights.actorder", "\"group\"", "actorder is \"group\""},
      {"config_groups.group_0.weights.group_size", "48", "weights.group_size is 48"},
      {"transform_config", R"({"a": 1})", "transform_config is {"},
      {"sparsity_config", R"({"format": "sparse-24-bitmask"})", "sparsity_config.format is"},
  };
  for (const auto& c : cases) {
    EXPECT_THAT(error_of(Code::kUnsupported, changed(c.field, c.value)), HasSubstr(c.says));
  }
  const struct {
    const char *field, *value, *says;
  } broken[] = {
      {"config_groups", "null", "config_groups is missing"},
      {"config_groups.group_0.weights", "null", "config_groups.group_0.weights is missing"},
      {"config_groups.group_0.weights.num_bits", "null", "weights.num_bits is missing"},
      {"config_groups.group_0.weights.group_size", "\"x\"", "group_size is \"x\""},
  };
  for (const auto& c : broken) {
    EXPECT_THAT(error_of(Code::kConfig, changed(c.field, c.value)), HasSubstr(c.says));
  }
}

}  // namespace
}  // namespace cachalot::model
