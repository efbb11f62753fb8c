// Against the published sizes: V3 report 4.2, V2 report 3.1.2 and appendix B, "Insights" tables 1
// and 2. The expected numbers come from those papers and from counting tensor by tensor, not from
// this code.
#include "cost/cost.h"

#include <gtest/gtest.h>

#include <cmath>

namespace cachalot::cost {
namespace {

// Shared by the five: 128 + 64 wide queries, 128 wide values, latent 512.
model::Config family_shape(int hidden, int heads, int q_rank, int layers, int dense_layers,
                           int vocab) {
  model::Config c;
  c.hidden_size = hidden;
  c.num_attention_heads = heads;
  c.q_lora_rank = q_rank;
  c.num_hidden_layers = layers;
  c.first_k_dense_replace = dense_layers;
  c.vocab_size = vocab;
  c.kv_lora_rank = 512;
  c.qk_nope_head_dim = 128;
  c.qk_rope_head_dim = 64;
  c.v_head_dim = 128;
  return c;
}

void set_experts(model::Config& c, int dense_width, int width, int experts, int topk, int shared,
                 TopkMethod method) {
  c.intermediate_size = dense_width;
  c.moe_intermediate_size = width;
  c.route.experts = experts;
  c.route.topk = topk;
  c.n_shared_experts = shared;
  c.route.method = method;
}

model::Config v3() {
  auto c = family_shape(7168, 128, 1536, 61, 3, 129280);
  set_experts(c, 18432, 2048, 256, 8, 1, TopkMethod::kNoauxTc);
  c.num_nextn_predict_layers = 1;
  return c;
}
model::Config v2() {
  auto c = family_shape(5120, 128, 1536, 60, 1, 102400);
  set_experts(c, 12288, 1536, 160, 6, 2, TopkMethod::kGroupLimitedGreedy);
  return c;
}
model::Config v2_lite() {
  auto c = family_shape(2048, 16, 0, 27, 1, 102400);
  set_experts(c, 10944, 1408, 64, 6, 2, TopkMethod::kGreedy);
  return c;
}
model::Config moonlight() {
  auto c = family_shape(2048, 16, 0, 27, 1, 163840);
  set_experts(c, 11264, 1408, 64, 6, 2, TopkMethod::kNoauxTc);
  return c;
}
model::Config kimi_k2() {
  auto c = family_shape(7168, 64, 1536, 61, 1, 163840);
  set_experts(c, 18432, 2048, 384, 8, 1, TopkMethod::kNoauxTc);
  return c;
}

double thousandths_of_billion(double n) { return std::round(n / 1e6); }

TEST(CostTest, CountsThePublishedModels) {
  struct Case {
    const char* name;
    model::Config config;
    double total, active;  // millions
  };
  const Case cases[] = {{"V3", v3(), 671026, 37552},
                        {"V2", v2(), 235741, 21376},
                        {"V2-Lite", v2_lite(), 15706, 2661},
                        {"Moonlight", moonlight(), 15960, 2915},
                        {"Kimi-K2", kimi_k2(), 1026408, 32862}};
  for (const Case& c : cases) {
    const Parameters p = parameters(c.config);
    EXPECT_EQ(thousandths_of_billion(static_cast<double>(p.total)), c.total) << c.name;
    EXPECT_EQ(thousandths_of_billion(static_cast<double>(p.active)), c.active) << c.name;
  }
}

TEST(CostTest, CountsV3TensorByTensor) {
  const Parameters p = parameters(v3());
  EXPECT_EQ(p.total, 671026419200);
  std::int64_t total = 0;
  for (const Part& part : p.parts) {
    total += part.total;
    EXPECT_LE(part.active, part.total) << part.name;
    EXPECT_LE(part.matmul, part.active) << part.name;
    if (part.name == "attention") {
      EXPECT_EQ(part.total / part.layers,
                7168 * 1536 + 1536 * 24576 + 7168 * 576 + 512 * 32768 + 16384 * 7168);
    }
    if (part.name == "dense_ffn") {
      EXPECT_EQ(part.layers, 3);
    }
    if (part.name == "routed_experts") {
      EXPECT_EQ(part.layers, 58);
      EXPECT_EQ(part.total / 58 / 256, 44040192);
      EXPECT_EQ(part.active / 58, 8 * 44040192);
    }
  }
  EXPECT_EQ(total, p.total);
}

TEST(CostTest, KeepsTheMtpLayerApart) {
  const Parameters p = parameters(v3());
  EXPECT_EQ(thousandths_of_billion(static_cast<double>(p.mtp.total)), 11610);
  EXPECT_EQ(thousandths_of_billion(static_cast<double>(p.mtp.active)), 2541);
  EXPECT_EQ(parameters(v2()).mtp.total, 0);
}

TEST(CostTest, CacheBytesPerToken) {
  EXPECT_EQ(kv_bytes_per_token(v3()), 70272);
  EXPECT_EQ(kv_bytes_per_token(v2()), 69120);
  EXPECT_EQ(kv_bytes_per_token(v2_lite()), 31104);
  EXPECT_EQ(kv_bytes_per_token(v3(), 4), 140544);
  EXPECT_EQ(mha_kv_bytes_per_token(v3()), 61LL * 128 * (192 + 128) * 2);
}

TEST(CostTest, TrainingWorkPerToken) {
  EXPECT_NEAR(training_flops_per_token(v3()) / 1e9, 249.81, 0.005);
  EXPECT_NEAR(training_flops_per_token(v3(), 4096, false) / 1e9, 280.51, 0.005);
  EXPECT_NEAR(training_flops_per_token(v2()) / 1e9, 155.01, 0.005);
  // The published step: 15360 sequences of 4096 in 19.926 s on 2048 devices of 989 TFLOP/s.
  const double tokens_per_s = 15360.0 * 4096 / 19.926;
  const double peak = 2048 * 989e12;
  EXPECT_NEAR(tokens_per_s * training_flops_per_token(v3()) / peak, 0.3894, 0.00005);
  EXPECT_NEAR(tokens_per_s * training_flops_per_token(v3(), 4096, false) / peak, 0.4373, 0.00005);
}

TEST(CostTest, DecodeGrowsWithTheContextByTheAbsorbedWidth) {
  const auto c = v3();
  const double zero = decode_flops_per_token(c, 0);
  EXPECT_DOUBLE_EQ(zero, 2.0 * static_cast<double>(parameters(c).matmul));
  EXPECT_DOUBLE_EQ(decode_flops_per_token(c, 100) - zero, 61.0 * 128 * 2176 * 100);
}

TEST(CostTest, TiedHeadIsStoredOnceButComputed) {
  auto c = v2_lite();
  const Parameters apart = parameters(c);
  c.tie_word_embeddings = true;
  const Parameters tied = parameters(c);
  EXPECT_EQ(apart.total - tied.total, 102400LL * 2048);
  EXPECT_EQ(apart.matmul, tied.matmul);
}

TEST(CostTest, DenseModelsHaveNoExperts) {
  auto c = v2_lite();
  c.route.experts = 0;
  c.route.topk = 0;
  c.n_shared_experts = 0;
  c.first_k_dense_replace = c.num_hidden_layers;
  const Parameters p = parameters(c);
  EXPECT_EQ(p.total, p.active);
  for (const Part& part : p.parts) EXPECT_NE(part.name, "routed_experts");
}

}  // namespace
}  // namespace cachalot::cost
