// Bytes counted from sizes against sums tensor by tensor. What an engine really holds is beside
// them in infer/held_weights_test.cc.
#include "cost/weight_bytes.h"

#include <gtest/gtest.h>

#include "cost/cost_case_test.h"

namespace cachalot::cost {
namespace {

using model::WeightFormat;

constexpr double kFp8 = 1 + 4.0 / (128 * 128), kInt8 = 1 + 2.0 / 128, kInt4 = 0.5 + 2.0 / 32;

// DeepSeek-V3, parameters of each kind.
constexpr double kExpert = 3.0 * 7168 * 2048, kDenseMlp = 3.0 * 7168 * 18432;
constexpr double kLatents = 7168.0 * (1536 + 576), kUp = 512.0 * 128 * 256;
constexpr double kAttention = kLatents + 1536.0 * 128 * 192 + kUp + 16384.0 * 7168;
constexpr double kRouter = 256.0 * 7168, kTable = 129280.0 * 7168, kProjection = 2.0 * 7168 * 7168;
constexpr double kNorms = 2.0 * 7168 + 512 + 1536;
// Of norms and router biases, the MTP layer's too.
constexpr double kVectors = 62 * kNorms + 7168 + 3 * 7168 + 59 * 256;

TEST(WeightBytesTest, SizesAloneGiveTheBytesOfAFolder) {
  const Decoder d = load_decoder("deepseek-v3");
  const WeightBytes w = weight_bytes(d, WeightFormat::kBf16);
  EXPECT_DOUBLE_EQ(w.expert, 2.0 * 44040192);
  EXPECT_EQ(w.moe_layers, 58);
  EXPECT_DOUBLE_EQ(w.head, 2.0 * 129280 * 7168);
  // All but embedding and norms, once.
  const double norms = 61.0 * (2 * 7168 + 512 + 1536) + 7168;
  EXPECT_NEAR(w.dense + w.head + 58 * 256 * w.expert,
              2 * (static_cast<double>(d.parameters.total) - 129280.0 * 7168 - norms), 1.0);
  EXPECT_DOUBLE_EQ(weight_bytes(d, WeightFormat::kFp8).expert, kFp8 * 44040192);
}

// The head has 8 bits beside int8 and int4, the projections to the latents 16 beside int4.
TEST(WeightBytesTest, IntegersAreReadAsConvertWritesThem) {
  const Decoder d = load_decoder("deepseek-v3");
  const double rest = 61 * (kAttention - kLatents - kUp) + 3 * kDenseMlp + 58 * kExpert;
  const double plain = 61 * kUp + 58 * (kRouter + 256);
  const WeightBytes eight = weight_bytes(d, WeightFormat::kInt8);
  EXPECT_NEAR(eight.dense, kInt8 * (rest + 61 * kLatents) + 2 * plain, 1.0);
  EXPECT_NEAR(eight.head, kInt8 * kTable, 1.0);
  EXPECT_NEAR(eight.mtp_head, kInt8 * kTable, 1.0);
  const WeightBytes four = weight_bytes(d, WeightFormat::kInt4);
  EXPECT_NEAR(four.dense, kInt4 * rest + 2 * (plain + 61 * kLatents), 1.0);
  EXPECT_NEAR(four.head, kInt8 * kTable, 1.0);
  EXPECT_NEAR(four.mtp_dense,
              kInt4 * (kAttention - kLatents - kUp + kExpert) + 2 * (kUp + kLatents + kProjection),
              1.0);
}

// Every second layer has experts, and the MTP layer is not one of them.
TEST(WeightBytesTest, ADenseMtpLayerHasNoRoutedExperts) {
  model::Config c = small_config(3);
  c.num_nextn_predict_layers = 1;
  c.moe_layer_freq = 2;  // layers 2 and 4, the MTP layer is number 3
  const Decoder d = decoder_of(c, "half");
  const WeightBytes w = weight_bytes(d, WeightFormat::kBf16);
  const double attention = static_cast<double>(parameters(c).parts[1].matmul) / 3;
  EXPECT_DOUBLE_EQ(w.mtp_dense, 2 * (attention + 3 * 64 * 128 + 2 * 64 * 64));
  // In f32 everything has 4 bytes; the MTP layer's two tables are the main ones.
  EXPECT_NEAR(held_bytes(d, WeightFormat::kF32),
              4.0 * static_cast<double>(d.parameters.total + d.parameters.mtp.total), 1e-6);
}

TEST(WeightBytesTest, WhatIsMultipliedOutIsHeldSo) {
  const Decoder d = load_decoder("deepseek-v3");
  const double experts = 59 * 256 * kExpert;
  const double coded = 62 * (kAttention - kLatents - kUp) + 3 * kDenseMlp + 59 * kExpert + experts;
  // Up-projections of the latent, routers, eh_proj and the embedding, which the MTP layer shares
  // as it does the head.
  const double plain = 62 * kUp + 59 * kRouter + kProjection + kTable;
  const auto held = [&](WeightFormat format) { return held_bytes(d, format); };
  EXPECT_NEAR(held(WeightFormat::kBf16),
              2 * (coded + 62 * kLatents + plain + kTable) + 4 * kVectors, 1e3);
  EXPECT_NEAR(held(WeightFormat::kFp8),
              kFp8 * (coded + 62 * kLatents) + 2 * (plain + kTable) + 4 * kVectors, 1e3);
  EXPECT_NEAR(held(WeightFormat::kInt8),
              kInt8 * (coded + 62 * kLatents + kTable) + 2 * plain + 4 * kVectors, 1e3);
  EXPECT_NEAR(held(WeightFormat::kInt4),
              kInt4 * coded + kInt8 * kTable + 2 * (plain + 62 * kLatents) + 4 * kVectors, 1e3);
}

TEST(WeightBytesTest, AHostThatPacksHasTheUpProjectionTwice) {
  const Decoder d = load_decoder("deepseek-v3");
  for (const auto format :
       {WeightFormat::kBf16, WeightFormat::kFp8, WeightFormat::kInt8, WeightFormat::kInt4}) {
    EXPECT_NEAR(held_bytes(d, format, true) - held_bytes(d, format), 2 * 62 * kUp, 1e3)
        << model::name(format);
  }
  EXPECT_DOUBLE_EQ(held_bytes(d, WeightFormat::kF32, true), held_bytes(d, WeightFormat::kF32));
}

}  // namespace
}  // namespace cachalot::cost
