#include "cost/pass.h"

#include <gtest/gtest.h>

#include <cmath>

#include "cost/cost.h"
#include "cost/cost_case_test.h"

namespace cachalot::cost {
namespace {

model::Config config() { return small_config(3); }

TEST(PassCostTest, OneTokenIsDecodeOfTheOlderFormula) {
  const model::Config c = config();
  const WeightBytes w{.dense = 1000, .expert = 10, .moe_layers = 2, .head = 500};
  const PassCost one =
      pass_cost(c, w, {.rows = 1, .sequences = 1, .context = 99, .cache_bytes_per_token = 7});
  EXPECT_DOUBLE_EQ(one.flops(), decode_flops_per_token(c, 100));
  EXPECT_DOUBLE_EQ(one.experts, 4);
  EXPECT_DOUBLE_EQ(one.weight_bytes, 1000 + 2 * 4 * 10 + 500);
  EXPECT_DOUBLE_EQ(one.cache_bytes, 100 * 7);
}

TEST(PassCostTest, BatchesTouchMoreExpertsButNeverMoreThanThereAre) {
  const model::Config c = config();
  const WeightBytes w{.expert = 1, .moe_layers = 1};
  double last = 0;
  for (const int rows : {1, 2, 4, 8, 32, 1000}) {
    const double experts = pass_cost(c, w, {.rows = rows, .sequences = rows}).experts;
    EXPECT_GT(experts, last);
    EXPECT_LE(experts, 16);
    EXPECT_LE(experts, 4 * rows + 1e-9);
    last = experts;
  }
  EXPECT_NEAR(last, 16, 1e-9);
}

// A prompt in one chunk: pairs of the causal triangle, logits of one row.
TEST(PassCostTest, APromptCountsItsTriangle) {
  const model::Config c = config();
  const PassCost cost = pass_cost(c, {}, {.rows = 10, .sequences = 1, .absorbed = false});
  EXPECT_DOUBLE_EQ(cost.attention_flops, 2.0 * 3 * 4 * 55 * (24 + 16));
  EXPECT_DOUBLE_EQ(cost.flops(), cost.useful_flops);
  const PassCost two = pass_cost(c, {}, {.rows = 20, .sequences = 2, .logits = 2});
  EXPECT_DOUBLE_EQ(two.product_flops, 2 * cost.product_flops);
  EXPECT_GT(two.attention_flops, 2 * cost.attention_flops);  // absorbed
}

TEST(PassCostTest, TheSlowerOfMemoryAndArithmeticCounts) {
  const PassCost cost{
      .weight_bytes = 2e9, .cache_bytes = 1e9, .product_flops = 4e9, .attention_flops = 30e9};
  EXPECT_DOUBLE_EQ(predicted_seconds(cost, {.read_gbps = 10, .product_gflops = 100}), 0.2 + 0.3);
}

TEST(PassCostTest, OneLayersExpertsAreTheirShareOfAPass) {
  const Decoder d = load_decoder("deepseek-v3");
  const WeightBytes w = weight_bytes(d, model::WeightFormat::kFp8);
  const PassShape shape{.rows = 32, .sequences = 32, .expert_devices = 8, .expert_tokens = 256};
  const PassCost all = pass_cost(d, w, shape);
  const ExpertLayerCost one = expert_layer_cost(d, w, shape);
  EXPECT_DOUBLE_EQ(one.experts, all.experts);
  EXPECT_DOUBLE_EQ(one.products.rows, all.expert.rows);
  EXPECT_DOUBLE_EQ(58 * one.products.bytes, all.expert.bytes);
  EXPECT_DOUBLE_EQ(58 * one.products.flops, all.expert.flops);
}

TEST(PassCostTest, DevicesShareExpertsAndTheirTokens) {
  const Decoder d = load_decoder("deepseek-v3");
  const WeightBytes w = weight_bytes(d, model::WeightFormat::kFp8);
  const PassCost alone = pass_cost(d, w, {.rows = 256, .sequences = 256, .logits = 256});
  // Eight devices with 32 of those rows each, and all of their tokens for an eighth of the experts.
  const PassCost shared = pass_cost(
      d, w, {.rows = 32, .sequences = 32, .logits = 32, .expert_devices = 8, .expert_tokens = 256});
  EXPECT_NEAR(shared.experts, alone.experts / 8, 1e-9);
  EXPECT_NEAR(shared.expert.flops, alone.expert.flops / 8, 1.0);
  EXPECT_NEAR(shared.expert.rows, alone.expert.rows, 1e-9);
  EXPECT_NEAR(shared.dense.flops, alone.dense.flops / 8, 1.0);
  EXPECT_DOUBLE_EQ(shared.dense.bytes, alone.dense.bytes);
}

TEST(PassCostTest, KeysAndValuesAreSharedOutButALatentIsNot) {
  const WeightBytes none;
  const auto cache = [&](const char* name) {
    return pass_cost(load_decoder(name), none,
                     {.context = 99, .cache_bytes_per_token = 1, .tensor_devices = 4})
        .cache_bytes;
  };
  EXPECT_DOUBLE_EQ(cache("qwen2.5-72b"), 25);
  EXPECT_DOUBLE_EQ(cache("deepseek-v3"), 100);
}

// Rows that share a cached one: heads of a key's group where heads and keys are shared out alike.
TEST(PassCostTest, SharedOutHeadsHaveTheirKeysToThemselves) {
  const auto rows = [](const char* name, double devices) {
    return pass_cost(load_decoder(name), {}, {.context = 99, .tensor_devices = devices})
        .attention_rows;
  };
  EXPECT_DOUBLE_EQ(rows("qwen2.5-72b", 1), 8);  // 64 heads, 8 keys
  EXPECT_DOUBLE_EQ(rows("qwen2.5-72b", 8), 8);
  EXPECT_DOUBLE_EQ(rows("qwen2.5-72b", 16), 4);
  EXPECT_DOUBLE_EQ(rows("deepseek-v3", 1), 128);
  EXPECT_DOUBLE_EQ(rows("deepseek-v3", 8), 16);
}

TEST(RateCurveTest, PointsAreMetAndEndsAreHeld) {
  const RateCurve c{{1, 8, 64}, {10, 80, 100}};
  EXPECT_DOUBLE_EQ(c.at(0.5), 5);  // the weights are read all the same
  for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(c.at(c.rows[i]), c.flops[i], 1e-9);
  EXPECT_NEAR(c.at(std::sqrt(8.0 * 64)), std::sqrt(80.0 * 100), 1e-9);
  EXPECT_DOUBLE_EQ(c.at(1000), 100);
}

TEST(PassTimeTest, EachKindWaitsForWhatItWaitsFor) {
  PassCost cost;
  cost.dense = {2e9, 4e9, 1};    // 0.2 s of reading
  cost.expert = {1e9, 30e9, 1};  // 0.3 s of arithmetic
  cost.cache_bytes = 1e9;        // 0.1 s
  cost.attention_flops = 1e9;
  const PassTime t = pass_time(cost, 10,
                               {.read = 10e9,
                                .products = 100e9,
                                .attention = 100e9,
                                .curve = {},
                                .attention_curve = {},
                                .pass_seconds = 0.01,
                                .layer_seconds = 0.001});
  EXPECT_DOUBLE_EQ(t.dense, 0.2);
  EXPECT_DOUBLE_EQ(t.experts, 0.3);
  EXPECT_DOUBLE_EQ(t.attention, 0.1);
  EXPECT_DOUBLE_EQ(t.overhead, 0.02);
  EXPECT_DOUBLE_EQ(t.memory, 0.2 + 0.1);
  EXPECT_DOUBLE_EQ(t.compute, 0.3);
  EXPECT_DOUBLE_EQ(t.total(), 0.62);
}

// Few queries share a cached row, and attention computes at what was measured for so many.
TEST(PassTimeTest, AttentionFollowsItsOwnCurve) {
  const Decoder d = load_decoder("deepseek-v2-lite");
  const PassCost cost = pass_cost(d, {}, {.rows = 4, .sequences = 2, .context = 1000});
  EXPECT_DOUBLE_EQ(cost.attention_rows, 2 * 16);
  DeviceRates rates;
  rates.read = 1e30;
  rates.products = 1e30;
  rates.attention = 1;
  rates.attention_curve = {{8, 128}, {1e9, 16e9}};
  EXPECT_NEAR(pass_time(cost, 27, rates).attention, cost.attention_flops / 4e9, 1e-9);
}

}  // namespace
}  // namespace cachalot::cost
