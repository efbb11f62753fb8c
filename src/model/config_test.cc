#include "model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "model/config_case_test.h"
#include "testing/fixtures.h"

namespace cachalot::model {
namespace {

using ::testing::HasSubstr;

// Without the order of fields, which equality of ordered_json looks at.
nlohmann::json sorted(const Json& json) { return nlohmann::json::parse(json.dump()); }

TEST(Config, V2Lite) {
  const Config c = parse(v2_lite());
  EXPECT_EQ(c.family, Family::kDeepseekV2);
  EXPECT_EQ(c.vocab_size, 102400);
  EXPECT_EQ(c.hidden_size, 2048);
  EXPECT_EQ(c.intermediate_size, 10944);
  EXPECT_EQ(c.moe_intermediate_size, 1408);
  EXPECT_EQ(c.num_hidden_layers, 27);
  EXPECT_EQ(c.num_attention_heads, 16);
  EXPECT_EQ(c.q_lora_rank, 0);
  EXPECT_EQ(c.route.experts, 64);
  EXPECT_EQ(c.n_shared_experts, 2);
  EXPECT_EQ(c.route.topk, 6);
  EXPECT_EQ(c.route.scoring, Scoring::kSoftmax);
  EXPECT_EQ(c.route.method, TopkMethod::kGreedy);
  EXPECT_FALSE(c.route.norm_topk_prob);
  EXPECT_EQ(c.route.routed_scaling, 1.0);
  EXPECT_EQ(c.num_nextn_predict_layers, 0);
  EXPECT_EQ(c.bos_token_id, 100000);
  EXPECT_EQ(c.eos_token_ids, std::vector<int>{100001});
  EXPECT_FALSE(c.fp8.enabled);
  EXPECT_TRUE(c.rope.yarn);
  EXPECT_EQ(c.rope.scaling.mscale_all_dim, 0.707);
  EXPECT_EQ(c.cache_row_width(), 576);
  EXPECT_EQ(c.qk_head_dim(), 192);
  EXPECT_NEAR(c.softmax_scale(), 1.5896 / std::sqrt(192.0), 1e-5);
  EXPECT_FALSE(c.is_moe_layer(0));
  EXPECT_TRUE(c.is_moe_layer(1));
}

TEST(Config, V2) {
  const Config c = parse(v2());
  EXPECT_EQ(c.route.method, TopkMethod::kGroupLimitedGreedy);
  EXPECT_EQ(c.route.groups, 8);
  EXPECT_EQ(c.route.topk_groups, 3);
  EXPECT_EQ(c.route.routed_scaling, 16.0);
  EXPECT_EQ(c.q_lora_rank, 1536);
}

TEST(Config, V3) {
  const Config c = parse(v3());
  EXPECT_EQ(c.family, Family::kDeepseekV3);
  EXPECT_EQ(c.route.scoring, Scoring::kSigmoid);
  EXPECT_EQ(c.route.method, TopkMethod::kNoauxTc);
  EXPECT_TRUE(c.route.norm_topk_prob);
  EXPECT_EQ(c.route.groups, 8);
  EXPECT_EQ(c.num_nextn_predict_layers, 1);
  EXPECT_TRUE(c.fp8.enabled);
  EXPECT_FALSE(c.fp8.ue8m0_scales);
  EXPECT_NEAR(c.softmax_scale(), 0.135234, 1e-6);
  EXPECT_FALSE(c.is_moe_layer(2));
  EXPECT_TRUE(c.is_moe_layer(3));
  EXPECT_TRUE(c.is_moe_layer(61));  // the MTP layer
}

TEST(Config, Moonlight) {
  const Config c = parse(moonlight());
  EXPECT_FALSE(c.rope.yarn);
  EXPECT_EQ(c.rope.theta, 50000.0);
  EXPECT_EQ(c.rms_norm_eps, 1e-5);
  EXPECT_EQ(c.q_lora_rank, 0);
  EXPECT_EQ(c.route.routed_scaling, 2.446);
  EXPECT_FALSE(c.fp8.enabled);
  EXPECT_DOUBLE_EQ(c.softmax_scale(), 1 / std::sqrt(192.0));
}

TEST(Config, KimiK2) {
  const Config c = parse(kimi_k2());
  EXPECT_EQ(c.family, Family::kKimiK2);
  EXPECT_EQ(c.route.experts, 384);
  EXPECT_EQ(c.rope.scaling.beta_fast, 1.0);
  EXPECT_EQ(c.rope.scaling.factor, 32.0);
  EXPECT_NEAR(c.softmax_scale(), 1.813260 / std::sqrt(192.0), 1e-6);
  EXPECT_THAT(to_json(c), HasSubstr("\"kimi_k2\""));
}

TEST(Config, RoundTrips) {
  Json odd = v3();  // values without a short decimal form
  odd["rms_norm_eps"] = 1.0000000000000002e-6;
  odd["routed_scaling_factor"] = 0.1 + 0.2;
  odd["rope_theta"] = 10000.000000000002;
  odd["rope_scaling"]["mscale"] = 1.0 / 3;
  odd["eos_token_id"] = {1, 7};
  odd["bos_token_id"] = nullptr;
  odd["tie_word_embeddings"] = true;
  odd["quantization_config"]["scale_fmt"] = "ue8m0";
  Json dense = moonlight();
  dense["n_routed_experts"] = nullptr;
  dense["eos_token_id"] = nullptr;
  for (const Json& json : {v2_lite(), v2(), v3(), moonlight(), kimi_k2(), odd, dense}) {
    const Config c = parse(json);
    const Config again = parse_config(to_json(c), "again");
    EXPECT_EQ(c, again) << to_json(c);
    EXPECT_EQ(again.rms_norm_eps, c.rms_norm_eps);
    EXPECT_EQ(again.rope.theta, c.rope.theta);
    EXPECT_EQ(again.rope.scaling.mscale, c.rope.scaling.mscale);
    EXPECT_EQ(again.route.routed_scaling, c.route.routed_scaling);
    EXPECT_EQ(again.eos_token_ids, c.eos_token_ids);
    // Every field that was written comes back, save what no result depends on.
    const Json written = Json::parse(to_json(c));
    for (const auto& [key, value] : json.items()) {
      if (key == "auto_map" || key == "aux_loss_alpha" || key == "seq_aux" || value.is_null() ||
          json["n_routed_experts"].is_null()) {
        continue;
      }
      EXPECT_EQ(sorted(written.value(key, Json())), sorted(value)) << key;
    }
  }
  EXPECT_FALSE(parse(v3()) == parse(kimi_k2()));
}

TEST(Config, WholeNumbersMayComeAsFloats) {
  Json json = v3();
  for (auto& [key, value] : json.items()) {
    if (value.is_number_integer()) value = value.get<double>();
  }
  json["rope_scaling"]["factor"] = 40.0;
  json["rope_scaling"]["original_max_position_embeddings"] = 4096.0;
  json["quantization_config"]["weight_block_size"] = {128.0, 128.0};
  EXPECT_EQ(parse(json), parse(v3()));
}

TEST(Config, QLoraRankZeroIsNone) {
  EXPECT_EQ(parse(with(v2_lite(), R"({"q_lora_rank": 0})")), parse(v2_lite()));
}

TEST(Config, RopeTypeAndRopeParameters) {
  Json json = v3();
  json["rope_scaling"]["rope_type"] = json["rope_scaling"]["type"];
  EXPECT_EQ(parse(json), parse(v3()));
  json["rope_scaling"].erase("type");
  EXPECT_EQ(parse(json), parse(v3()));

  json["rope_parameters"] = json["rope_scaling"];
  json["rope_parameters"]["rope_theta"] = json["rope_theta"];
  EXPECT_EQ(parse(json), parse(v3()));  // both forms, in agreement
  json.erase("rope_scaling");
  json.erase("rope_theta");
  EXPECT_EQ(parse(json), parse(v3()));
  json["rope_parameters"]["rope_theta"] = 5e4;
  EXPECT_EQ(parse(json).rope.theta, 5e4);

  Json plain = moonlight();
  plain.erase("rope_scaling");
  plain.erase("rope_theta");
  plain["rope_parameters"] = Json::parse(R"({"rope_type": "default", "rope_theta": 50000.0})");
  EXPECT_EQ(parse(plain), parse(moonlight()));
}

TEST(Config, NestedTextConfig) {
  Json outer = Json::parse(R"({"architectures": ["SomeVisionModel"], "model_type": "kimi_k25",
    "vision_config": {"x": 1}, "torch_dtype": "float16"})");
  outer["text_config"] = kimi_k2();
  EXPECT_EQ(parse(outer), parse(kimi_k2()));
  outer["text_config"].erase("torch_dtype");
  outer["quantization_config"] = outer["text_config"]["quantization_config"];
  outer["text_config"].erase("quantization_config");
  EXPECT_EQ(parse(outer).torch_dtype, "float16");
  EXPECT_TRUE(parse(outer).fp8.enabled);
  outer["text_config"]["hidden_size"] = -1;
  EXPECT_THAT(error_of(Code::kConfig, outer.dump()), HasSubstr("hidden_size is -1"));
}

TEST(Config, AbsentFieldsTakeTheFamilysDefaults) {
  Json json = v3();
  for (const char* key :
       {"moe_layer_freq", "scoring_func", "topk_method", "norm_topk_prob", "routed_scaling_factor",
        "n_group", "topk_group", "hidden_act", "attention_bias", "tie_word_embeddings",
        "rms_norm_eps", "rope_theta", "num_key_value_heads", "bos_token_id", "eos_token_id",
        "architectures", "first_k_dense_replace", "initializer_range"}) {
    json.erase(key);
  }
  EXPECT_EQ(parse(json), parse(v3()));
  json = v2_lite();
  for (const char* key : {"moe_layer_freq", "scoring_func", "topk_method", "norm_topk_prob",
                          "routed_scaling_factor", "n_group", "topk_group", "model_type"}) {
    json.erase(key);
  }
  EXPECT_EQ(parse(json), parse(v2_lite()));
}

TEST(Config, MissingSizesAreErrors) {
  for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "moe_intermediate_size",
                          "num_hidden_layers", "num_attention_heads", "q_lora_rank", "kv_lora_rank",
                          "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "n_routed_experts",
                          "num_experts_per_tok", "n_shared_experts"}) {
    Json json = v3();
    json.erase(key);
    EXPECT_THAT(error_of(Code::kConfig, json.dump()), HasSubstr(cat(key, " is missing")));
  }
  Json json = v3();
  json.erase("hidden_size");
  json["hiden_size"] = 7168;
  EXPECT_THAT(error_of(Code::kConfig, json.dump()), HasSubstr("nearest field there is hiden_size"));
}

TEST(Config, OutOfRange) {
  struct Case {
    const char* change;
    const char* says;
  };
  for (const Case& c : std::vector<Case>{
           {R"({"hidden_size": -5})", "hidden_size is -5; a whole number from 1 to 1048576"},
           {R"({"hidden_size": 0})", "hidden_size is 0;"},
           {R"({"hidden_size": 1099511627776})", "hidden_size is 1099511627776;"},
           {R"({"hidden_size": 1048577})", "hidden_size is 1048577;"},
           {R"({"hidden_size": 7168.5})", "hidden_size is 7168.5; a whole number"},
           {R"({"hidden_size": 1e300})", "hidden_size is 1e"},
           {R"({"hidden_size": "7168"})", "hidden_size is \"7168\"; a whole number"},
           {R"({"hidden_size": true})", "hidden_size is true;"},
           {R"({"hidden_size": [7168]})", "hidden_size is [7168];"},
           {R"({"hidden_size": null})", "hidden_size is missing"},
           {R"({"vocab_size": 0})", "vocab_size is 0"},
           {R"({"vocab_size": 18446744073709551615})", "vocab_size is 18446744073709551615"},
           {R"({"num_hidden_layers": 0})", "num_hidden_layers is 0"},
           {R"({"num_hidden_layers": 1})",
            "first_k_dense_replace is 3, but there are only 1 layers"},
           {R"({"first_k_dense_replace": -1})", "first_k_dense_replace is -1"},
           {R"({"moe_layer_freq": 0})", "moe_layer_freq is 0"},
           {R"({"moe_layer_freq": [0, 1]})", "moe_layer_freq is [0,1]"},
           {R"({"q_lora_rank": -1})", "q_lora_rank is -1"},
           {R"({"kv_lora_rank": 0})", "kv_lora_rank is 0"},
           {R"({"qk_nope_head_dim": 0})", "qk_nope_head_dim is 0"},
           {R"({"qk_rope_head_dim": 63})", "qk_rope_head_dim is 63"},
           {R"({"qk_rope_head_dim": 2147483646})", "qk_rope_head_dim is 2147483646"},
           {R"({"qk_rope_head_dim": 0})", "qk_rope_head_dim is 0"},
           {R"({"v_head_dim": -128})", "v_head_dim is -128"},
           {R"({"n_routed_experts": -256})", "n_routed_experts is -256"},
           {R"({"n_routed_experts": 250})", "n_routed_experts is 250, which n_group = 8"},
           {R"({"n_routed_experts": 8})", "a group needs two"},
           {R"({"num_experts_per_tok": 257})", "num_experts_per_tok is 257"},
           {R"({"num_experts_per_tok": 0})", "num_experts_per_tok is 0"},
           {R"({"num_experts_per_tok": 129})", "hold only 128"},
           {R"({"n_shared_experts": -1})", "n_shared_experts is -1"},
           {R"({"n_group": 0})", "n_group is 0"},
           {R"({"n_group": 512})", "n_group is 512"},
           {R"({"topk_group": 9})", "topk_group is 9; a whole number from 1 to 8"},
           {R"({"topk_group": 0})", "topk_group is 0"},
           {R"({"moe_intermediate_size": 0})", "moe_intermediate_size is 0"},
           {R"({"routed_scaling_factor": 0})", "routed_scaling_factor is 0"},
           {R"({"routed_scaling_factor": -2.5})", "routed_scaling_factor is -2.5"},
           {R"({"rms_norm_eps": 0})", "rms_norm_eps is 0"},
           {R"({"rms_norm_eps": "1e-6"})", "rms_norm_eps is \"1e-6\"; a number"},
           {R"({"rope_theta": 1})", "rope_theta is 1"},
           {R"({"rope_theta": -10000})", "rope_theta is -10000"},
           {R"({"max_position_embeddings": 0})", "max_position_embeddings is 0"},
           {R"({"num_nextn_predict_layers": -1})", "num_nextn_predict_layers is -1"},
           {R"({"num_nextn_predict_layers": 65})", "num_nextn_predict_layers is 65"},
           {R"({"bos_token_id": 129280})", "bos_token_id is 129280"},
           {R"({"bos_token_id": -2})", "bos_token_id is -2"},
           {R"({"eos_token_id": -1})", "eos_token_id is -1"},
           {R"({"eos_token_id": [1, 129280]})", "eos_token_id is 129280"},
           {R"({"eos_token_id": [1, "2"]})", "eos_token_id is [1,\"2\"]; a token id or a list"},
           {R"({"torch_dtype": 3})", "torch_dtype is 3; a string"},
           {R"({"torch_dtype": "b f"})", "torch_dtype is \"b f\""},
           {R"({"norm_topk_prob": 1})", "norm_topk_prob is 1; true or false"},
           {R"({"rope_scaling": "yarn"})", "rope_scaling is \"yarn\"; an object"},
           {R"({"rope_scaling": {"type": "yarn", "factor": 40}})",
            "rope_scaling.original_max_position_embeddings is missing"},
           {R"({"rope_scaling": {"factor": 40}})", "rope_scaling.type is missing"},
           {R"({"rope_scaling": {"type": "yarn", "factor": 0.5,
               "original_max_position_embeddings": 4096}})",
            "rope_scaling.factor is 0.5"},
           {R"({"rope_scaling": {"type": "yarn", "factor": 40, "beta_fast": 1, "beta_slow": 2,
               "original_max_position_embeddings": 4096}})",
            "rope_scaling.beta_fast is 1"},
           {R"({"rope_scaling": {"type": "yarn", "rope_type": "default"}})",
            "rope_type is default"},
           {R"({"rope_parameters": {"rope_type": "default"}})", "rope_parameters says something"},
           {R"({"rope_parameters": {"rope_theta": 5}})", "rope_parameters.rope_theta is 5"},
           {R"({"model_type": "deepseek_v2"})", "architectures names another generation"},
           // In range one by one, too large together.
           {R"({"num_attention_heads": 16384, "num_key_value_heads": 16384,
               "qk_nope_head_dim": 65536, "v_head_dim": 65536})",
            "num_attention_heads x (qk_nope_head_dim + v_head_dim) is 16384 x 131072"},
           {R"({"n_shared_experts": 1024, "moe_intermediate_size": 4194304})",
            "n_shared_experts x moe_intermediate_size"},
           {R"({"n_routed_experts": 65536, "moe_intermediate_size": 4194304,
               "hidden_size": 1048576})",
            "the sizes together"},
       }) {
    SCOPED_TRACE(c.change);
    EXPECT_THAT(error_of(Code::kConfig, with(v3(), c.change).dump()), HasSubstr(c.says));
  }
  Json ungrouped = v2();
  ungrouped.erase("n_group");
  EXPECT_THAT(error_of(Code::kConfig, ungrouped.dump()), HasSubstr("n_group is missing"));
}

TEST(Config, GreedyLooksAtNoGroups) {
  for (const char* groups :
       {R"({"n_group": 7, "topk_group": 9})", R"({"n_group": 512})",
        R"({"n_group": 1, "topk_group": 2})", R"({"n_group": 0, "topk_group": 0})"}) {
    SCOPED_TRACE(groups);
    const Config c = parse(with(v2_lite(), groups));
    EXPECT_EQ(c, parse_config(to_json(c), "again"));
    EXPECT_THAT(
        error_of(Code::kConfig, with(v2(), groups).dump()),  // a method that does look at them
        ::testing::AnyOf(HasSubstr("n_group"), HasSubstr("topk_group")));
  }
  // The rest is checked as ever.
  EXPECT_THAT(error_of(Code::kConfig, with(v2_lite(), R"({"num_experts_per_tok": 65})").dump()),
              HasSubstr("num_experts_per_tok is 65"));
}

// The class's default of three dense layers is no demand for three layers. The MTP layer's index
// follows those of the others, so among the first three it is dense as they are.
TEST(Config, AFewLayersMayLeaveOutHowManyAreDense) {
  for (const int mtp : {0, 1}) {
    for (const int layers : {1, 2, 3, 4}) {
      SCOPED_TRACE(cat(layers, " layers, ", mtp, " of MTP"));
      Json json = with(v3(), R"({"first_k_dense_replace": null})");
      json["num_hidden_layers"] = layers;
      json["num_nextn_predict_layers"] = mtp;
      const Config c = parse(json);
      EXPECT_EQ(c.first_k_dense_replace, std::min(layers + mtp, 3));
      for (int layer = 0; layer < layers + mtp; ++layer) {
        EXPECT_EQ(c.is_moe_layer(layer), layer >= 3) << layer;
      }
      EXPECT_EQ(c, parse_config(to_json(c), "again"));
      json.erase("first_k_dense_replace");
      EXPECT_EQ(parse(json), c);
      json["first_k_dense_replace"] = layers + mtp + 1;
      EXPECT_THAT(error_of(Code::kConfig, json.dump()), HasSubstr("first_k_dense_replace is"));
    }
  }
}

TEST(Config, Unsupported) {
  struct Case {
    const char* change;
    const char* says;
  };
  for (const Case& c : std::vector<Case>{
           {R"({"architectures": ["LlamaForCausalLM"]})",
            "architectures is [\"LlamaForCausalLM\"]"},
           {R"({"architectures": []})", "architectures is []"},
           {R"({"architectures": "DeepseekV3ForCausalLM"})", "architectures is"},
           {R"({"model_type": "llama"})", "model_type is \"llama\"; this program computes the"},
           {R"({"model_type": "deepseek_v32"})", "model_type is \"deepseek_v32\""},
           {R"({"model_type": null, "architectures": null})", "model_type is null"},
           {R"({"hidden_act": "gelu"})", "hidden_act is \"gelu\"; this program computes \"silu\""},
           {R"({"attention_bias": true})", "attention_bias is true; this program computes false"},
           {R"({"mlp_bias": true})", "mlp_bias is true"},
           {R"({"rope_interleave": false})", "rope_interleave is false"},
           {R"({"num_key_value_heads": 8})", "num_key_value_heads is 8"},
           {R"({"sliding_window": 4096})", "sliding_window is 4096"},
           {R"({"index_topk": 2048})", "index_topk is 2048"},
           {R"({"scoring_func": "tanh"})", "scoring_func is \"tanh\""},
           {R"({"scoring_func": "softmax"})", "topk_method is \"noaux_tc\""},
           {R"({"topk_method": "greedy"})", "topk_method is \"greedy\""},
           {R"({"topk_method": "best"})", "topk_method is \"best\""},
           {R"({"rope_scaling": {"type": "linear", "factor": 2}})",
            "rope_scaling.type is \"linear\""},
           {R"({"rope_scaling": {"type": "yarn", "facter": 2}})",
            "rope_scaling.facter is not a field this program knows, and it might change results; "
            "the nearest known one is factor"},
           {R"({"rope_scaling": {"type": "yarn", "factor": 40, "attention_factor": 1.5,
               "original_max_position_embeddings": 4096}})",
            "attention_factor is 1.5"},
           {R"({"rope_scaling": {"type": "yarn", "factor": 40, "truncate": false,
               "original_max_position_embeddings": 4096}})",
            "truncate is false"},
           {R"({"rope_parameters": {"partial_rotary_factor": 0.5}})",
            "partial_rotary_factor is 0.5"},
           {R"({"quantization_config": {"quant_method": "gptq"}})",
            "quantization_config.quant_method is \"gptq\""},
           {R"({"quantization_config": {}})", "quantization_config.quant_method is missing"},
           {R"({"quantization_config": {"quant_method": "fp8", "fmt": "e5m2"}})",
            "fmt is \"e5m2\""},
           {R"({"quantization_config": {"quant_method": "fp8", "activation_scheme": "static"}})",
            "activation_scheme is \"static\""},
           {R"({"quantization_config": {"quant_method": "fp8", "weight_block_size": [64, 128]}})",
            "weight_block_size is [64,128]"},
           {R"({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128]}})",
            "weight_block_size is [128]"},
           {R"({"quantization_config": {"quant_method": "fp8", "scale_fmt": "e3"}})",
            "scale_fmt is \"e3\""},
       }) {
    SCOPED_TRACE(c.change);
    EXPECT_THAT(error_of(Code::kUnsupported, with(v3(), c.change).dump()), HasSubstr(c.says));
  }
}

TEST(Config, NotAConfig) {
  error_of(Code::kFormat, "");
  error_of(Code::kFormat, "{");
  error_of(Code::kFormat, "[]");
  error_of(Code::kFormat, "{\"a\": NaN}");
  error_of(Code::kFormat, "\xFF");
  error_of(Code::kUnsupported, "{}");
  std::string twice = v3().dump();
  twice.insert(1, "\"hidden_size\": 64,");
  EXPECT_THAT(error_of(Code::kFormat, twice), HasSubstr("hidden_size is there twice"));
  const ::cachalot::testing::TempDir temp;
  try {
    load_config(temp.path());
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kIo);
    EXPECT_THAT(e.what(), HasSubstr("config.json"));
  }
}

TEST(Config, LayerKinds) {
  Json json = v3();
  json["moe_layer_freq"] = 2;
  const Config c = parse(json);
  EXPECT_FALSE(c.is_moe_layer(3));
  EXPECT_TRUE(c.is_moe_layer(4));
  EXPECT_FALSE(c.is_moe_layer(61));
  json["n_routed_experts"] = nullptr;
  EXPECT_FALSE(parse(json).is_moe_layer(4));
}

TEST(ConfigFixture, EveryFolderLoadsAndRoundTrips) {
  using ::cachalot::testing::fixture_folders;
  using ::cachalot::testing::FixtureKind;
  auto folders = fixture_folders(FixtureKind::kModel);
  ASSERT_FALSE(folders.empty());
  for (const auto& more : fixture_folders(FixtureKind::kTrain)) folders.push_back(more);
  for (const auto& folder : folders) {
    SCOPED_TRACE(folder.string());
    const Config c = load_config(folder);
    EXPECT_EQ(c, load_config(folder / "config.json"));
    std::ifstream in(folder / "config.json");
    const auto json = nlohmann::json::parse(in);
    EXPECT_EQ(c.hidden_size, json.value("hidden_size", 0));
    EXPECT_EQ(c.route.experts, json.value("n_routed_experts", 0));
    EXPECT_EQ(c.rope.dim, json.value("qk_rope_head_dim", 0));
    EXPECT_EQ(c.fp8.enabled, json.contains("quantization_config"));
    EXPECT_EQ(c, parse_config(to_json(c), "again"));
    const auto written = nlohmann::json::parse(to_json(c));
    for (const auto& [key, value] : json.items()) {
      EXPECT_EQ(written.value(key, value), value) << key;
    }
  }
}

}  // namespace
}  // namespace cachalot::model
