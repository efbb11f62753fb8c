#include "plan/infer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "plan/infer_case_test.h"

namespace cachalot::plan {
namespace {

using ::testing::HasSubstr;

TEST(InferPlanTest, OneDeviceReadsWhatAPassReads) {
  const cost::Decoder d = cost::load_decoder("deepseek-v2-lite");
  InferOptions o;
  o.weights = model::WeightFormat::kBf16;
  o.batches = {1};
  o.contexts = {0};
  const InferPlan p = plan_infer(d, server(), o);
  ASSERT_EQ(p.decode.size(), 1U);
  const cost::PassCost cost =
      cost::pass_cost(d, cost::weight_bytes(d, o.weights), cost::PassShape{});
  EXPECT_NEAR(p.decode[0].tpot, cost.weight_bytes / 200e9, 0.02 * p.decode[0].tpot);
  EXPECT_EQ(p.decode[0].limit, cost::Limit::kMemory);
  EXPECT_EQ(p.decode[0].communication, 0);
  EXPECT_FALSE(p.bound.has_value());
  EXPECT_NEAR(p.decode[0].per_million, 2 / 3600.0 * p.decode[0].tpot * 1e6, 1e-9);
  EXPECT_EQ(p.prefill.limit, cost::Limit::kCompute);
}

TEST(InferPlanTest, ThePublishedBoundStandsBesideThePlan) {
  const cost::Decoder d = cost::load_decoder("deepseek-v3");
  InferOptions o;
  o.nodes = 32;  // 256 devices, an expert on each
  const InferPlan p = plan_infer(d, box(), o);
  EXPECT_EQ(p.layout.experts_per_device, 1);
  ASSERT_TRUE(p.bound.has_value());
  EXPECT_EQ(p.bound->destinations, 9);
  EXPECT_NEAR(1e6 * p.bound->stage, 123.86, 0.005);  // 7168 where the paper says "7K"
  EXPECT_NEAR(1e3 * p.bound->tpot, 15.11, 0.005);
  // No plan is faster than its own communication.
  for (const DecodeCase& c : p.decode) EXPECT_GE(c.step, c.communication) << c.batch;
}

TEST(InferPlanTest, MoreSequencesCostTimeAndGiveTokens) {
  const cost::Decoder d = cost::load_decoder("deepseek-v3");
  InferOptions o;
  o.nodes = 18;
  o.batches = {1, 8, 32, 128};
  o.contexts = {4096};
  const InferPlan p = plan_infer(d, box(), o);
  for (std::size_t i = 1; i < p.decode.size(); ++i) {
    EXPECT_GE(p.decode[i].tpot, p.decode[i - 1].tpot);
    EXPECT_GT(p.decode[i].tokens_per_s, p.decode[i - 1].tokens_per_s);
    EXPECT_LT(p.decode[i].per_million, p.decode[i - 1].per_million);
  }
}

TEST(InferPlanTest, DraftsPayByTheirAcceptance) {
  const cost::Decoder d = cost::load_decoder("deepseek-v3");
  InferOptions o;
  o.nodes = 18;
  o.batches = {8};
  o.contexts = {4096};
  o.drafts = 1;
  double last = 0;
  for (const double acceptance : {0.0, 0.5, 0.85, 1.0}) {
    o.acceptance = acceptance;
    const DecodeCase c = plan_infer(d, box(), o).decode[0];
    EXPECT_DOUBLE_EQ(c.tokens_per_step, 1 + acceptance);
    EXPECT_GT(c.mtp_gain, last);
    last = c.mtp_gain;
  }
  EXPECT_LT(last, 2);
  o.drafts = 2;
  o.acceptance = 0.5;
  EXPECT_DOUBLE_EQ(plan_infer(d, box(), o).decode[0].tokens_per_step, 1.75);
  EXPECT_THAT(error_of(cost::load_decoder("kimi-k2"), box(), o, Code::kUsage),
              HasSubstr("has no MTP layer"));
}

// The MTP layer's attention shares cached rows like any other layer's, so it computes at what was
// measured for so many.
TEST(InferPlanTest, DraftsTakeTimeWhereAttentionWasMeasured) {
  HardwareProfile h = server();
  h.device.memory_gb = 1000;
  h.rates.rows = {1, 64, 4096};
  h.rates.attention_gflops = {10, 400, 800};
  InferOptions o;
  o.batches = {1, 8};
  o.contexts = {512};
  const cost::Decoder d = cost::load_decoder("deepseek-v3");
  const InferPlan plain = plan_infer(d, h, o);
  o.drafts = 1;
  o.acceptance = 0.8;
  const InferPlan drafted = plan_infer(d, h, o);
  for (std::size_t i = 0; i < plain.decode.size(); ++i) {
    EXPECT_TRUE(std::isfinite(drafted.decode[i].step));
    EXPECT_GT(drafted.decode[i].step, plain.decode[i].step);
    EXPECT_LT(drafted.decode[i].step, 2.5 * plain.decode[i].step);
  }
}

// Each layer's two sums over the devices that share it, and dispatch and combine, wait for the link
// twice: those of the layers that verify and those of the layer that drafts.
TEST(InferPlanTest, ALayerThatDraftsIsSharedLikeAnyOther) {
  HardwareProfile h = box();
  h.device.memory_gb = 200;
  InferOptions o;
  o.nodes = 1;
  o.tensor = 8;
  o.batches = {1};
  o.contexts = {4096};
  o.drafts = 1;
  o.acceptance = 0.5;
  const cost::Decoder d = cost::load_decoder("deepseek-v3");
  const double quick = plan_infer(d, h, o).decode[0].step;
  h.link.latency_us = 10;
  EXPECT_NEAR(plan_infer(d, h, o).decode[0].step - quick, (59 * 2 + 62 * 4) * 10e-6, 1e-9);
}

TEST(InferPlanTest, WhatDoesNotFitSaysByHowMuchAndWhatToChange) {
  const cost::Decoder d = cost::load_decoder("deepseek-v3");
  InferOptions o;
  o.nodes = 1;
  const std::string text = error_of(d, box(), o, Code::kUnsupported);
  EXPECT_THAT(text, HasSubstr("does not fit on 1 node of box"));
  EXPECT_THAT(text, HasSubstr("GB too much"));
  EXPECT_THAT(text, HasSubstr("use --nodes 2"));
  EXPECT_THAT(text, HasSubstr("int4"));
  // What it says helps.
  o.nodes = 2;
  EXPECT_EQ(plan_infer(d, box(), o).layout.nodes, 2);
  o.nodes = 1;
  o.weights = model::WeightFormat::kInt4;
  EXPECT_EQ(plan_infer(d, box(), o).layout.nodes, 1);
  o.nodes = 0;
  o.weights = model::WeightFormat::kFp8;
  EXPECT_EQ(plan_infer(d, box(), o).layout.nodes, 2);
}

TEST(InferPlanTest, ACaseThatDoesNotFitIsOneRow) {
  const cost::Decoder d = cost::load_decoder("deepseek-v3");
  InferOptions o;
  o.nodes = 18;
  o.batches = {1, 4096};
  o.contexts = {32768};
  const InferPlan p = plan_infer(d, box(), o);
  EXPECT_TRUE(p.decode[0].fits);
  EXPECT_FALSE(p.decode[1].fits);
  EXPECT_NEAR(p.decode[1].over, 4096 * 32769.0 * 70272 - p.memory.free(), 1e6);
}

TEST(InferPlanTest, DenseModelsShareTheirWeights) {
  const cost::Decoder d = cost::load_decoder("llama-3.1-405b");
  InferOptions o;
  o.weights = model::WeightFormat::kFp8;
  const InferPlan p = plan_infer(d, box(), o);
  EXPECT_EQ(p.layout.tensor, 8);
  EXPECT_NEAR(p.memory.dense, 409e9 / 8, 2e9);  // embedding and head in bf16
  EXPECT_DOUBLE_EQ(p.memory.cache_per_token, 516096 / 8.0);
  o.nodes = 2;
  EXPECT_THAT(error_of(d, box(), o, Code::kUsage), HasSubstr("--nodes 1"));
  o.nodes = 1;
  o.weights = model::WeightFormat::kBf16;
  EXPECT_THAT(error_of(d, box(), o, Code::kUnsupported), HasSubstr("store the weights in fp8"));
  // Where no format helps and no node does: 0.5 + 2/32 bytes of 405e9 weights are 28 GB of a
  // device.
  HardwareProfile small = box();
  small.device.memory_gb = 20;
  o.nodes = 0;
  o.weights = model::WeightFormat::kInt4;
  EXPECT_THAT(error_of(d, small, o, Code::kUnsupported),
              HasSubstr("take devices with more memory or nodes with more devices (--hardware)"));
}

TEST(InferPlanTest, AMissingFigureIsNamed) {
  const cost::Decoder d = cost::load_decoder("deepseek-v3");
  InferOptions o;
  o.nodes = 4;
  HardwareProfile h = box();
  h.network = {};
  EXPECT_THAT(error_of(d, h, o, Code::kConfig), HasSubstr("network.gbps"));
  h = box();
  h.link = {};
  EXPECT_THAT(error_of(d, h, o, Code::kConfig), HasSubstr("link.gbps"));
  h.device.per_node = 1;  // then there is nothing that a link would join
  h.device.memory_gb = 8 * box().device.memory_gb;
  EXPECT_GT(plan_infer(d, h, o).decode[0].tpot, 0);
  h = box();
  h.device.memory_gbps = 0;
  EXPECT_THAT(error_of(d, h, o, Code::kConfig), HasSubstr("device.memory_gbps"));
  h = box();
  h.device.memory_gb = 0;
  EXPECT_THAT(error_of(d, h, o, Code::kConfig), HasSubstr("device.memory_gb"));
  h = box();
  h.device.fp8_tflops = h.device.bf16_tflops = 0;
  EXPECT_THAT(error_of(d, h, o, Code::kConfig), HasSubstr("device.f32_tflops"));
}

TEST(InferPlanTest, PrefillAndDecodingAreSizedForTheirWork) {
  const cost::Decoder d = cost::load_decoder("deepseek-v3");
  InferOptions o;
  o.nodes = 4;
  o.requests_per_s = 100;
  const InferPlan all = plan_infer(d, box(), o);
  ASSERT_TRUE(all.split.has_value());
  const Split& s = *all.split;
  EXPECT_NEAR(s.prefill_per_decode,
              (o.prompt / s.prefill_per_node) / (o.output / s.decode_per_node), 1e-9);
  EXPECT_GE(s.decode_nodes * s.decode_per_node, 100.0 * o.output);
  EXPECT_GE(s.prefill_nodes * s.prefill_per_node, 100.0 * o.prompt);
  EXPECT_EQ(s.decode_nodes % 4, 0);
  // More than an int counts.
  o.requests_per_s = 1e12;
  const Split many = *plan_infer(d, box(), o).split;
  EXPECT_GT(many.prefill_nodes, std::int64_t{1} << 31);
  EXPECT_NEAR(static_cast<double>(many.prefill_nodes) / (1e12 * o.prompt / s.prefill_per_node), 1,
              1e-6);
  o.requests_per_s = 1e300;
  EXPECT_THAT(error_of(d, box(), o, Code::kUsage), HasSubstr("can be counted"));
  o.requests_per_s = 0;
  o.hit_rate = 0.5;
  EXPECT_NEAR(plan_infer(d, box(), o).split->prefill_per_decode, s.prefill_per_decode / 2, 1e-9);
}

// As it was served: 18 nodes of H800, the mean of a day 14.8 thousand tokens per second and node of
// decoding at 5 thousand cached tokens, some 88 requests on each GPU, 20 to 22 tokens/s each. A
// prediction without waiting and imbalance must lie above, but not by an order of magnitude.
TEST(InferPlanTest, TheProductionFiguresAreInReach) {
  InferOptions o;
  o.nodes = 18;
  o.batches = {88};
  o.contexts = {4989};
  const InferPlan p = plan_infer(cost::load_decoder("deepseek-v3"), load_hardware("h800"), o);
  const double per_node = p.decode[0].tokens_per_s / 18;
  EXPECT_TRUE(p.decode[0].fits);
  EXPECT_GT(per_node, 14800);
  EXPECT_LT(per_node, 3 * 14800);
}

}  // namespace
}  // namespace cachalot::plan
