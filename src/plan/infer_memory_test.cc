// What fits where, by which layout, and what is said where nothing does.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/latent_rows.h"
#include "plan/infer_case_test.h"

namespace cachalot::plan {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// A dense model of 24 heads that needs the memory of three devices.
cost::Decoder of_24_heads() {
  return cost::decoder_of(cost::DenseConfig{.vocab_size = 1000,
                                            .hidden_size = 24 * 512,
                                            .intermediate_size = 4 * 24 * 512,
                                            .num_hidden_layers = 80,
                                            .num_attention_heads = 24,
                                            .num_key_value_heads = 12,
                                            .head_dim = 512},
                          "wide");
}

TEST(InferMemoryTest, AnyDivisorOfTheNodeAndItsHeadsMayShareWeights) {
  const cost::Decoder d = of_24_heads();
  InferOptions o;
  o.batches = {1};
  o.contexts = {1000};
  EXPECT_EQ(plan_infer(d, box(6), o).layout.tensor, 3);
  for (const int tensor : {3, 6}) {
    o.tensor = tensor;
    const InferPlan p = plan_infer(d, box(6), o);
    EXPECT_EQ(p.layout.tensor, tensor);
    EXPECT_GT(p.memory.free(), 0);
  }
  o.tensor = 9;  // of 72 devices, but 24 heads
  EXPECT_THAT(error_of(d, box(72), o, Code::kUsage),
              HasSubstr("--tensor 9 does not divide the 24 attention heads of wide; take 8 or 12"));
  o.tensor = 4;
  EXPECT_THAT(error_of(d, box(6), o, Code::kUsage),
              HasSubstr("--tensor 4 does not divide the 6 devices of a node of box; take 3 or 6"));
}

TEST(InferMemoryTest, HeadsAreNotCut) {
  const cost::Decoder d = cost::decoder_of(cost::DenseConfig{.vocab_size = 1000,
                                                             .hidden_size = 896,
                                                             .intermediate_size = 4864,
                                                             .num_hidden_layers = 24,
                                                             .num_attention_heads = 14,
                                                             .num_key_value_heads = 2,
                                                             .head_dim = 64},
                                           "qwen2.5-0.5b");
  InferOptions o;
  o.tensor = 8;
  EXPECT_THAT(
      error_of(d, box(), o, Code::kUsage),
      HasSubstr("--tensor 8 does not divide the 14 attention heads of qwen2.5-0.5b; take 2"));
}

TEST(InferMemoryTest, ACacheThatIsTooLargeAsksForLessOfIt) {
  const cost::Decoder d = cost::load_decoder("deepseek-v2-lite");
  InferOptions o;
  o.nodes = 1;
  o.batches = {100000};
  o.contexts = {4096, 32768};
  const std::string text = error_of(d, box(1), o, Code::kUnsupported);
  EXPECT_THAT(text, HasSubstr("lower --batch or --context"));
  EXPECT_THAT(text, HasSubstr("the smallest case has 409700000"));
  EXPECT_THAT(text, Not(HasSubstr("more memory")));
  // Exactly as many tokens as it says fit, and not one more.
  const std::string before = "there is room for ";
  const int room = std::stoi(text.substr(text.find(before) + before.size()));
  o.batches = {1};
  o.contexts = {room - 1};  // and the new one
  EXPECT_TRUE(plan_infer(d, box(1), o).decode[0].fits);
  o.contexts = {room};
  EXPECT_THAT(error_of(d, box(1), o, Code::kUnsupported), HasSubstr(cat(before, room)));
}

TEST(InferMemoryTest, AnFp8CacheIsTheEnginesOwn) {
  const cost::Decoder d = cost::load_decoder("deepseek-v3");
  const LatentLayout row{LatentFormat::kFp8, 512, 64};
  InferOptions o;
  o.nodes = 18;
  const double bf16 = plan_infer(d, box(), o).memory.cache_per_token;
  o.cache = cost::CacheFormat::kFp8;
  const InferPlan p = plan_infer(d, box(), o);
  EXPECT_EQ(bf16, 70272);
  EXPECT_EQ(p.memory.cache_per_token, 61.0 * static_cast<double>(row.row_bytes()));
  EXPECT_EQ(p.memory.cache_per_token, 40016);
}

TEST(InferMemoryTest, AnMtpLayerThatDraftsKeepsRows) {
  InferOptions o;
  o.nodes = 18;
  o.drafts = 1;
  o.acceptance = 0.85;
  const InferPlan p = plan_infer(cost::load_decoder("deepseek-v3"), box(), o);
  EXPECT_DOUBLE_EQ(p.memory.cache_per_token, 70272.0 * 62 / 61);
}

// V3 with experts in every second layer: 29 of them, and the MTP layer is dense.
TEST(InferMemoryTest, ADenseMtpLayerHoldsNoExperts) {
  std::string json(cost::embedded_model("deepseek-v3"));
  const std::string every = "\"moe_layer_freq\": 1", second = "\"moe_layer_freq\": 2";
  json.replace(json.find(every), every.size(), second);
  const cost::Decoder d = cost::parse_decoder(json, "c.json", "half");
  InferOptions o;
  o.nodes = 4;  // 32 devices with 8 experts of each such layer
  o.drafts = 1;
  o.acceptance = 0.5;
  const InferPlan p = plan_infer(d, box(), o);
  const double expert = cost::bytes_per_weight(o.weights) * 44040192;
  EXPECT_NEAR(p.memory.experts, 29 * 8 * expert, 1);
  EXPECT_NEAR(p.memory.dense, cost::held_bytes(d, o.weights) - 29 * 256 * expert, 1e3);
  EXPECT_GT(p.decode[0].mtp_gain, 0);
}

// 61 and one layers of 512 x 32768, which absorbed attention reads along both directions.
TEST(InferMemoryTest, WhatIsMultipliedOutIsCountedSo) {
  const cost::Decoder d = cost::load_decoder("deepseek-v3");
  InferOptions o;
  o.nodes = 18;
  const auto dense = [&](const HardwareProfile& h) { return plan_infer(d, h, o).memory.dense; };
  const double up = 62.0 * 512 * 32768;
  const double experts = 59 * 256 * cost::bytes_per_weight(o.weights) * 44040192;
  EXPECT_NEAR(dense(box()), cost::held_bytes(d, o.weights) - experts, 1e3);
  // A host with room lays weights out anew, and has these twice then.
  HardwareProfile host = server();
  host.host.name = host.device.name;
  o.nodes = 1;
  o.weights = model::WeightFormat::kInt4;
  host.device.memory_gb = 500;
  const double mapped = dense(host);
  host.device.memory_gb = 800;
  EXPECT_NEAR(dense(host) - mapped, 2 * up, 1e3);
  host.device.f32_tflops = host.device.bf16_tflops;
  host.device.bf16_tflops = 0;  // what it has in bf16 it reads as it lies
  EXPECT_DOUBLE_EQ(dense(host), mapped);
}

TEST(InferMemoryTest, DevicesOfManyNodesAreCountedOrRefused) {
  const cost::Decoder d = cost::load_decoder("deepseek-v3");
  InferOptions o;
  o.nodes = 1 << 14;
  EXPECT_EQ(plan_infer(d, box(1 << 16), o).layout.devices, 1 << 30);
  o.nodes = 1 << 16;
  EXPECT_THAT(error_of(d, box(1 << 16), o, Code::kUsage), HasSubstr("are 4294967296 devices"));
}

}  // namespace
}  // namespace cachalot::plan
