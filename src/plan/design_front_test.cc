// That the design is the best one and the front whole: beside shapes evaluated one by one, and
// beside searches of less.
#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "plan/design.h"

namespace cachalot::plan {
namespace {

// Four devices whose fp8 products want many rows: what a shape is worth depends on its layout.
constexpr const char* kBoards = R"(
name = "four boards"
[device]
name = "board"
per_node = 4
bf16_tflops = 1
fp8_tflops = 4
memory_gb = 4
memory_gbps = 100
source = "assumed: for this test"
[rates]
rows = [64, 128, 4096]
fp8_gflops = [100, 200, 3800]
source = "assumed: for this test"
[link]
gbps = 20
source = "assumed: for this test"
[training]
half_size = 24
source = "assumed: for this test"
)";

HardwareProfile boards() { return parse_hardware(kBoards, "boards.toml"); }

HardwareProfile one_board() {
  HardwareProfile h = boards();
  h.device.per_node = 1;
  return h;
}

DesignRequest twenty_hours() {
  DesignRequest r;
  r.device_hours = 20;
  r.sequence = 512;
  r.vocabulary = 512;
  r.law = ScalingLaw::kBesiroglu;
  return r;
}

double lowest_loss(const DesignRequest& r) { return search_designs(boards(), r).best.loss; }

TEST(DesignFrontTest, ASearchOfLessFindsNothingBetter) {
  const double all = lowest_loss(twenty_hours());
  for (const auto precision : {cost::TrainPrecision::kFp8, cost::TrainPrecision::kBf16}) {
    DesignRequest r = twenty_hours();
    r.precision = precision;
    const double of_precision = lowest_loss(r);
    EXPECT_LE(all, of_precision) << name(precision);
    for (const double active : {6e6, 1.2e7}) {
      r.active_parameters = active;
      EXPECT_LE(of_precision, lowest_loss(r)) << name(precision) << " active " << active;
    }
    r.active_parameters = 0;
    for (const double total : {2.5e7, 5e7}) {
      r.total_parameters = total;
      EXPECT_LE(of_precision, lowest_loss(r)) << name(precision) << " parameters " << total;
    }
    r.total_parameters = 0;
    r.tpot_ms = 0.2;
    EXPECT_LE(of_precision, lowest_loss(r)) << name(precision);
  }
}

// A constraint that holds anyway changes nothing: only one that does not asks for narrower latents.
TEST(DesignFrontTest, ABoundThatHoldsAnywayChangesNothing) {
  DesignRequest r = twenty_hours();
  const DesignResult without = search_designs(boards(), r);
  r.kv_bytes = r.active_parameters = r.total_parameters = r.tpot_ms = 1e15;
  const DesignResult with = search_designs(boards(), r);
  EXPECT_TRUE(without.best.config == with.best.config);
  EXPECT_EQ(without.best.loss, with.best.loss);
  EXPECT_EQ(without.front.size(), with.front.size());
}

void expect_own_layouts(const HardwareProfile& h) {
  const DesignRequest r = twenty_hours();
  const DesignResult result = search_designs(h, r);
  ASSERT_GT(result.front.size(), 5U);
  bool less = false;
  for (const Design& d : result.front) {
    less = less || d.device_hours < r.device_hours;
    const Design own = evaluate_design(h, r, d.config, d.precision, d.device_hours).design;
    EXPECT_DOUBLE_EQ(d.loss, own.loss) << d.device_hours;
    EXPECT_EQ(d.batch, own.batch);
    EXPECT_DOUBLE_EQ(d.tokens, own.tokens);
  }
  EXPECT_TRUE(less);
  EXPECT_EQ(result.front.front().loss, result.best.loss);
}

TEST(DesignFrontTest, EveryDesignHasTheLayoutOfItsOwnBudget) {
  expect_own_layouts(boards());
  expect_own_layouts(one_board());
}

// Some of all shapes, each evaluated by itself.
void expect_whole(const HardwareProfile& h) {
  constexpr std::size_t kEvery = 23;
  const DesignRequest r = twenty_hours();
  const std::vector<Design> front = search_designs(h, r).front;
  const std::vector<model::Config> shapes = design_shapes(r, is_large(h));
  const double room = usable_memory(h) * devices_of(h, r.nodes) / 14;  // parameters that may fit
  int compared = 0;
  for (std::size_t i = 0; i < shapes.size(); i += kEvery) {
    for (const auto precision : {cost::TrainPrecision::kFp8, cost::TrainPrecision::kBf16}) {
      for (const double share : {0.25, 1.0}) {
        std::optional<Design> one;
        try {
          one = evaluate_design(h, r, shapes[i], precision, share * r.device_hours).design;
        } catch (const Error&) {
          continue;  // it does not fit
        }
        if (one->total > room) continue;
        ++compared;
        EXPECT_TRUE(std::any_of(front.begin(), front.end(),
                                [&](const Design& d) {
                                  return d.loss <= one->loss &&
                                         d.device_hours <= one->device_hours &&
                                         d.kv_bytes <= one->kv_bytes;
                                }))
            << shapes[i].num_hidden_layers << " x " << shapes[i].hidden_size << ", "
            << shapes[i].route.experts << " experts, " << name(precision) << ", loss " << one->loss
            << " with " << one->device_hours;
      }
    }
  }
  EXPECT_GT(compared, 100);
}

TEST(DesignFrontTest, NoShapeIsBetterThanAllOfTheFront) {
  expect_whole(boards());
  expect_whole(one_board());
}

// The design of the study in docs/experiments, which runs go on from: this machine, an hour, four
// million bytes.
TEST(DesignFrontTest, OneMachinesDesignStaysWhatItWas) {
  HardwareProfile h;
  h.name = h.device.name = "two threads";
  h.device.f32_tflops = 0.2335;
  h.device.bf16_tflops = 0.468;
  h.device.memory_gb = 25.28;
  h.device.memory_gbps = 31.72;
  h.achieved.f32 = 0.8175;
  h.achieved.bf16 = 0.7746;
  h.achieved.attention = 0.6767;
  h.rates.rows = {1, 4, 16, 64, 512};
  h.rates.bf16_gflops = {33.8, 128.9, 264.8, 342.4, 411.5};
  h.training.half_size = 26.01;
  DesignRequest r;
  r.device_hours = 1;
  r.sequence = 512;
  r.vocabulary = 257;
  r.unique_tokens = 3963970.8;
  r.token_bytes = 1;
  r.precision = cost::TrainPrecision::kBf16;
  r.law = ScalingLaw::kBesiroglu;
  const Design best = search_designs(h, r).best;
  EXPECT_EQ(best.config.num_hidden_layers, 4);
  EXPECT_EQ(best.config.hidden_size, 256);
  EXPECT_EQ(best.config.route.experts, 16);
  EXPECT_EQ(best.config.route.topk, 4);
  EXPECT_EQ(best.config.moe_intermediate_size, 128);
  EXPECT_EQ(best.batch, 4);
  EXPECT_NEAR(best.loss, 11.941914198020585, 1e-9);
  EXPECT_NEAR(best.tokens, 35096326.03, 1);
}

}  // namespace
}  // namespace cachalot::plan
