// The models that come with the program against what the papers print.
#include "cost/decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"

namespace cachalot::cost {
namespace {

using ::testing::HasSubstr;

double millions(std::int64_t n) { return std::round(static_cast<double>(n) / 1e6); }

TEST(DecoderTest, SizesOfThePublishedModels) {
  struct Case {
    const char* name;
    Attention attention;
    double total, active;  // millions
    std::int64_t cache;    // bytes per token, BF16
  };
  const Case cases[] = {
      {"deepseek-v3", Attention::kLatent, 671026, 37552, 70272},
      {"deepseek-v2", Attention::kLatent, 235741, 21376, 69120},
      {"deepseek-v2-lite", Attention::kLatent, 15706, 2661, 31104},
      {"moonlight-16b-a3b", Attention::kLatent, 15960, 2915, 31104},
      {"kimi-k2", Attention::kLatent, 1026408, 32862, 70272},
      {"qwen2.5-72b", Attention::kGroupedQuery, 72706, 72706, 327680},
      {"llama-3.1-405b", Attention::kGroupedQuery, 405853, 405853, 516096},
  };
  EXPECT_EQ(embedded_models().size(), std::size(cases));
  for (const Case& c : cases) {
    const Decoder d = load_decoder(c.name);
    EXPECT_EQ(d.attention, c.attention) << c.name;
    EXPECT_EQ(millions(d.parameters.total), c.total) << c.name;
    EXPECT_EQ(millions(d.parameters.active), c.active) << c.name;
    EXPECT_EQ(cache_bytes_per_token(d), c.cache) << c.name;
  }
}

// FlashMLA's rows: 512 codes, 4 scales, 64 numbers in bf16.
TEST(DecoderTest, AnFp8CacheKeepsScalesAndTheRotaryKey) {
  const auto fp8 = [](const Decoder& d) { return cache_bytes_per_token(d, CacheFormat::kFp8); };
  EXPECT_EQ(fp8(load_decoder("deepseek-v3")), 61 * 656);
  EXPECT_EQ(fp8(load_decoder("deepseek-v3")), 40016);
  Decoder odd;
  odd.layers = 2;
  odd.cache_row = 130 + 16;
  odd.cache_rope = 16;
  EXPECT_EQ(fp8(odd), 2 * (132 + 2 * 4 + 32));  // scales begin at a multiple of 4, two tiles
  const Decoder qwen = load_decoder("qwen2.5-72b");
  EXPECT_EQ(2 * fp8(qwen), cache_bytes_per_token(qwen));
}

std::string v3_with(const std::string& from, const std::string& to) {
  std::string json(embedded_model("deepseek-v3"));
  const auto at = json.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return json.replace(at, from.size(), to);
}

TEST(DecoderTest, AnMtpLayerHasExpertsWhereItsPlaceGivesItSome) {
  const Decoder v3 = load_decoder("deepseek-v3");
  EXPECT_TRUE(v3.mtp_moe);
  EXPECT_EQ(v3.expert_layers(), 59);
  const Decoder half =
      parse_decoder(v3_with("\"moe_layer_freq\": 1", "\"moe_layer_freq\": 2"), "c.json", "half");
  EXPECT_FALSE(half.mtp_moe);
  EXPECT_EQ(half.expert_layers(), half.experts.layers);
  EXPECT_EQ(half.experts.layers, 29);                 // 4, 6, ... 60
  EXPECT_FALSE(load_decoder("deepseek-v2").mtp_moe);  // it has none
}

TEST(DecoderTest, WhatCanBeTrainedIsFoundByNameToo) {
  EXPECT_EQ(load_latent_config("deepseek-v3").num_hidden_layers, 61);
  try {
    load_latent_config("llama-3.1-405b");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kUnsupported);
    EXPECT_THAT(e.what(), HasSubstr("model_type 'llama' is a dense model"));
  }
}

TEST(DecoderTest, TrainingWorkPerToken) {
  const auto gflop = [](const char* name) {
    return training_flops_per_token(load_decoder(name)) / 1e9;
  };
  EXPECT_NEAR(gflop("deepseek-v3"), 249.8, 0.05);
  EXPECT_NEAR(gflop("deepseek-v2"), 155.0, 0.05);
  EXPECT_NEAR(gflop("qwen2.5-72b"), 444.9, 0.05);
  EXPECT_NEAR(gflop("llama-3.1-405b"), 2473.2, 0.05);
  const Decoder d = load_decoder("deepseek-v3");
  EXPECT_DOUBLE_EQ(3 * forward_flops_per_token(d, 4096), training_flops_per_token(d));
}

TEST(DecoderTest, HeadsDecideTheKindOfAttention) {
  DenseConfig c{.vocab_size = 10,
                .hidden_size = 64,
                .intermediate_size = 128,
                .num_hidden_layers = 2,
                .num_attention_heads = 8,
                .num_key_value_heads = 8,
                .head_dim = 8};
  const auto bytes = [&] { return cache_bytes_per_token(decoder_of(c, "x")); };
  EXPECT_EQ(decoder_of(c, "x").attention, Attention::kMultiHead);
  EXPECT_EQ(bytes(), 2 * 2 * 64 * 2);
  c.num_key_value_heads = 2;
  EXPECT_EQ(decoder_of(c, "x").attention, Attention::kGroupedQuery);
  EXPECT_EQ(bytes(), 2 * 2 * 16 * 2);
  c.num_key_value_heads = 1;
  EXPECT_EQ(decoder_of(c, "x").attention, Attention::kMultiQuery);
  EXPECT_EQ(bytes(), 2 * 2 * 8 * 2);
}

// Tensor by tensor: q and o 64 x 64, k and v 16 x 64, biases, an MLP, two norms a layer.
TEST(DecoderTest, CountsADenseModelTensorByTensor) {
  const Parameters p = parameters(parse_dense_config(
      R"({"model_type": "qwen2", "vocab_size": 10, "hidden_size": 64, "intermediate_size": 128,
          "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2})",
      "c.json"));
  const std::int64_t layer = 2 * 64 * 64 + 2 * 16 * 64 + (64 + 16 + 16) + 3 * 64 * 128 + 2 * 64;
  EXPECT_EQ(p.total, 2 * layer + 2 * 10 * 64 + 64);
  EXPECT_EQ(p.matmul, 2 * (2 * 64 * 64 + 2 * 16 * 64 + 3 * 64 * 128) + 10 * 64);
}

std::string error_of(const std::string& json, Code code) {
  try {
    parse_decoder(json, "c.json", "c");
  } catch (const Error& e) {
    EXPECT_EQ(code, e.code()) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

TEST(DecoderTest, BadSizesAreRefused) {
  const std::string head = R"({"model_type": "llama", "vocab_size": 10, "hidden_size": 64, )";
  EXPECT_THAT(error_of(head + R"("intermediate_size": 128, "num_hidden_layers": 2,
                                 "num_attention_heads": 8, "num_key_value_heads": 3})",
                       Code::kConfig),
              HasSubstr("num_key_value_heads is 3, which does not divide"));
  EXPECT_THAT(error_of(head + R"("intermediate_size": 128, "num_hidden_layers": 2,
                                 "num_attention_heads": 7})",
                       Code::kConfig),
              HasSubstr("does not divide hidden_size = 64"));
  EXPECT_THAT(
      error_of(head + R"("num_hidden_layers": 2, "num_attention_heads": 8})", Code::kConfig),
      HasSubstr("intermediate_size"));
  EXPECT_THAT(error_of(R"({"model_type": "gpt2"})", Code::kUnsupported), HasSubstr("model_type"));
}

TEST(DecoderTest, AnUnknownNameListsTheKnownOnes) {
  try {
    load_decoder("deepseek-v4");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kUsage);
    EXPECT_THAT(e.what(), HasSubstr("did you mean 'deepseek-v"));
    EXPECT_THAT(e.what(), HasSubstr("llama-3.1-405b"));
  }
}

}  // namespace
}  // namespace cachalot::cost
