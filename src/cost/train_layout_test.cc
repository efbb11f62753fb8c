// Counts that come from a command line: whatever they are, a layout is refused in words, not by an
// overflow.
#include "cost/train_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace cachalot::cost {
namespace {

using ::testing::HasSubstr;

constexpr int kMost = std::numeric_limits<int>::max();

model::Config config(int layers = 61) {
  model::Config c;
  c.num_hidden_layers = layers;
  c.num_attention_heads = 128;
  c.first_k_dense_replace = 3;
  c.route.experts = 256;
  c.route.topk = 8;
  c.num_nextn_predict_layers = 1;
  return c;
}

Layout node() {
  Layout l;
  l.devices = 8;
  l.devices_per_node = 8;
  l.batch = 64;
  return l;
}

TEST(TrainLayoutTest, ProductsOfLargeCountsDoNotWrap) {
  Layout l = node();
  l.micro_batch = 1 << 29;  // times eight copies: 2^32
  EXPECT_EQ(first_problem(config(), l), LayoutProblem::kBatch);
  EXPECT_THAT(why_impossible(config(), l),
              HasSubstr("8 data-parallel copies x 536870912 sequences = 4294967296"));
  l = node();
  l.devices = l.devices_per_node = l.tensor = 1 << 16;
  l.pipeline = 1 << 16;
  EXPECT_THAT(why_impossible(config(), l), HasSubstr("pipeline 65536 x tensor 65536 = 4294967296"));
  l = node();
  l.devices = l.pipeline = 1 << 30;
  l.schedule = ScheduleKind::kDualPipeV;  // two stages on each rank
  EXPECT_EQ(first_problem(config(), l), LayoutProblem::kStages);
  EXPECT_THAT(why_impossible(config(), l), HasSubstr("fewer than the 2147483648 stages"));
}

TEST(TrainLayoutTest, AnyCountsGetAnAnswer) {
  const int counts[] = {std::numeric_limits<int>::min(), -1, 0, 1, 3, 8, 1 << 16, 1 << 30, kMost};
  int possible = 0;
  for (const int devices : counts) {
    for (const int pipeline : counts) {
      for (const int expert : counts) {
        for (const int batch : counts) {
          for (const int micro_batch : counts) {
            for (const ScheduleKind kind : kScheduleKinds) {
              Layout l = node();
              l.devices = devices;
              l.pipeline = pipeline;
              l.expert = expert;
              l.batch = batch;
              l.micro_batch = micro_batch;
              l.schedule = kind;
              const bool good = first_problem(config(), l) == LayoutProblem::kNone;
              ASSERT_EQ(good, why_impossible(config(), l).empty());
              if (!good) continue;
              ++possible;
              ASSERT_GE(l.data(), 1);
              ASSERT_GE(l.micro_batches(), 1);
            }
          }
        }
      }
    }
  }
  EXPECT_GT(possible, 10);
}

TEST(TrainLayoutTest, TheFirstProblemIsTheCause) {
  Layout l = node();
  EXPECT_EQ(first_problem(config(), l), LayoutProblem::kNone);
  l.schedule = ScheduleKind::kDualPipe;
  EXPECT_EQ(first_problem(config(), l), LayoutProblem::kSchedule);
  l.batch = 7;
  EXPECT_EQ(first_problem(config(), l), LayoutProblem::kBatch);
  l.expert = 48;
  EXPECT_EQ(first_problem(config(), l), LayoutProblem::kExperts);
  l.tensor = 3;
  l.devices = 24;
  EXPECT_EQ(first_problem(config(), l), LayoutProblem::kTensor);
  EXPECT_EQ(first_problem(config(0), l), LayoutProblem::kStages);
  l.devices = 25;
  EXPECT_EQ(first_problem(config(0), l), LayoutProblem::kDevices);
  l.sequence = 0;
  EXPECT_EQ(first_problem(config(0), l), LayoutProblem::kCounts);
}

TEST(TrainLayoutTest, AnMtpLayerIsOfTheKindThatItsPlaceGivesIt) {
  Stage last;
  last.moe_layers = 4;
  last.mtp_layers = 1;
  model::Config c = config();
  EXPECT_EQ(layer_kinds(c, last).moe, 5);
  EXPECT_EQ(layer_kinds(c, last).dense, 0);
  c.moe_layer_freq = 2;  // layer 61 is dense
  EXPECT_EQ(layer_kinds(c, last).moe, 4);
  EXPECT_EQ(layer_kinds(c, last).dense, 1);
}

}  // namespace
}  // namespace cachalot::cost
