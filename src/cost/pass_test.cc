#include "cost/pass.h"

#include <gtest/gtest.h>

#include "cost/cost.h"

namespace cachalot::cost {
namespace {

model::Config config() {
  model::Config c;
  c.vocab_size = 1000;
  c.hidden_size = 64;
  c.intermediate_size = 128;
  c.moe_intermediate_size = 32;
  c.num_hidden_layers = 3;
  c.first_k_dense_replace = 1;
  c.num_attention_heads = 4;
  c.kv_lora_rank = 48;
  c.qk_nope_head_dim = 16;
  c.qk_rope_head_dim = 8;
  c.v_head_dim = 16;
  c.n_shared_experts = 1;
  c.route.experts = 16;
  c.route.topk = 4;
  return c;
}

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

}  // namespace
}  // namespace cachalot::cost
