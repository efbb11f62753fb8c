#include "plan/design.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace cachalot::plan {
namespace {

constexpr const char* kTwoCores = R"(
name = "two cores"
[device]
name = "two cores"
f32_tflops = 0.23
bf16_tflops = 0.46
memory_gb = 8
memory_gbps = 36
source = "assumed: for this test"
[training]
half_size = 24
elementwise_bytes = 8
source = "assumed: for this test"
)";

HardwareProfile two_cores() { return parse_hardware(kTwoCores, "two.toml"); }

DesignRequest an_hour() {
  DesignRequest r;
  r.device_hours = 1;
  r.sequence = 512;
  r.vocabulary = 257;
  return r;
}

TEST(DesignTest, TheBudgetIsSpentAndMoreOfItHelps) {
  DesignRequest r = an_hour();
  const DesignResult one = search_designs(two_cores(), r);
  EXPECT_NEAR(one.best.seconds, 3600, 1e-6);
  EXPECT_GT(one.best.tokens, 1e6);
  EXPECT_EQ(one.best.batch % one.plan->layout.micro_batch, 0);
  r.device_hours = 8;
  const DesignResult eight = search_designs(two_cores(), r);
  EXPECT_LT(eight.best.loss, one.best.loss);
  EXPECT_GT(eight.best.total, one.best.total);
}

TEST(DesignTest, InitialWeightsAreV3sAtItsWidthAndLargerInNarrowerModels) {
  EXPECT_EQ(initial_deviation(7168), 0.006);
  EXPECT_EQ(initial_deviation(4 * 7168), 0.003);
  EXPECT_EQ(initial_deviation(256), 0.0317);
  for (const model::Config& c : design_shapes(an_hour(), false)) {
    EXPECT_EQ(c.initializer_range, initial_deviation(c.hidden_size)) << c.hidden_size;
  }
}

TEST(DesignTest, TheAnswerIsTheSameEveryTime) {
  const DesignResult a = search_designs(two_cores(), an_hour());
  const DesignResult b = search_designs(two_cores(), an_hour());
  EXPECT_TRUE(a.best.config == b.best.config);
  EXPECT_EQ(a.best.loss, b.best.loss);
  EXPECT_EQ(a.front.size(), b.front.size());
}

TEST(DesignTest, NothingOfTheFrontIsBeatenByAnother) {
  const DesignResult result = search_designs(two_cores(), an_hour());
  ASSERT_GT(result.front.size(), 3U);
  for (const Design& a : result.front) {
    for (const Design& b : result.front) {
      if (&a == &b) continue;
      EXPECT_FALSE(b.loss <= a.loss && b.device_hours <= a.device_hours && b.kv_bytes <= a.kv_bytes)
          << a.loss << " " << b.loss;
    }
  }
}

TEST(DesignTest, ConstraintsHold) {
  DesignRequest r = an_hour();
  r.kv_bytes = 400;
  const Design small = search_designs(two_cores(), r).best;
  EXPECT_LE(small.kv_bytes, 400);
  EXPECT_GE(small.loss, search_designs(two_cores(), an_hour()).best.loss);
  r = an_hour();
  r.tpot_ms = 0.05;
  EXPECT_LE(search_designs(two_cores(), r).best.tpot_ms, 0.05);
  r = an_hour();
  r.kv_bytes = 1;
  EXPECT_THROW(search_designs(two_cores(), r), Error);
}

TEST(DesignTest, AScarceTextAsksForNoSmallerModel) {
  DesignRequest r = an_hour();
  r.token_bytes = 1;
  const Design plenty = search_designs(two_cores(), r).best;
  r.unique_tokens = 1e6;
  const Design scarce = search_designs(two_cores(), r).best;
  EXPECT_GE(scarce.active, plenty.active);
  EXPECT_GT(scarce.loss, plenty.loss);
}

// A step is no larger than its speed asks for, and a larger step has a larger rate.
TEST(DesignTest, AStepIsAsSmallAsItsSpeedAllows) {
  DesignRequest r = an_hour();
  const Design own = search_designs(two_cores(), r).best;
  EXPECT_LT(own.batch * r.sequence, batch_tokens(own.tokens));
  r.batch = static_cast<int>(batch_tokens(own.tokens) / r.sequence);
  const Design law =
      evaluate_design(two_cores(), r, own.config, own.precision, r.device_hours).design;
  EXPECT_EQ(law.batch, r.batch);
  EXPECT_LT(own.tokens, law.tokens);
  EXPECT_GT(1.06 * own.tokens, law.tokens);
  const double n = 1e8, d = 1e9, full = batch_tokens(d);
  const double width = 768;
  EXPECT_NEAR(learning_rate(n, d, full / 4, width), learning_rate(n, d, full, width) / 2, 1e-12);
  EXPECT_EQ(learning_rate(n, d, 4 * full, width), learning_rate(n, d, full, width));
}

TEST(DesignTest, RatesOfSmallModelsGoByWidthAndStep) {
  EXPECT_DOUBLE_EQ(learning_rate(4e6, 2e7, 2048, 256), 1e-3);
  EXPECT_DOUBLE_EQ(learning_rate(4e6, 2e7, 2048, 512), 0.5e-3);
  EXPECT_DOUBLE_EQ(learning_rate(4e6, 2e7, 8192, 256), 2e-3);
  EXPECT_DOUBLE_EQ(learning_rate(1e5, 2e7, 8192, 64), 3e-3);
  // Where the law begins the two are not far apart.
  const double d = 1.2e9, full = batch_tokens(d);
  const double above = learning_rate(6.1e7, d, full, 512),
               below = learning_rate(5.9e7, d, full, 512);
  EXPECT_GT(above / below, 0.67);
  EXPECT_LT(above / below, 1.5);
}

TEST(DesignTest, AClusterGetsALayoutThatFits) {
  DesignRequest r;
  r.device_hours = 2e4;
  r.nodes = 16;
  r.active_parameters = 4e9;
  const HardwareProfile h = load_hardware("h800");
  const DesignResult result = search_designs(h, r);
  EXPECT_LE(result.best.active, 4e9);
  EXPECT_EQ(result.plan->layout.devices, 128);
  EXPECT_EQ(why_too_large(*result.plan, h), "");
  EXPECT_NEAR(result.best.money, 4e4, 1);
}

TEST(DesignTest, EveryShapeIsAModelTheProgramTakes) {
  DesignRequest r = an_hour();
  for (const bool large : {false, true}) {
    for (const model::Config& c : design_shapes(r, large)) {
      ASSERT_NO_THROW(model::validate(c, "shape")) << c.hidden_size << " " << c.num_hidden_layers;
    }
  }
}

}  // namespace
}  // namespace cachalot::plan
