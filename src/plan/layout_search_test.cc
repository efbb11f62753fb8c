// The search beside all layouts simulated one by one, and what it says where there is none.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "cost/decoder.h"
#include "plan/train_plan.h"

namespace cachalot::plan {
namespace {

using ::testing::HasSubstr;

cost::Layout base(int nodes, int batch, int sequence = 4096) {
  cost::Layout l;
  l.devices_per_node = 8;
  l.devices = 8 * nodes;
  l.batch = batch;
  l.sequence = sequence;
  return l;
}

// Step times of all layouts without tensor groups that fit, rising.
std::vector<double> all_seconds(const model::Config& c, const HardwareProfile& h, cost::Layout l) {
  using cost::Recompute;
  std::vector<double> out;
  for (const int pipeline : {1, 2, 4, 8}) {
    for (const int expert : {1, 2, 4, 8}) {
      for (const int micro_batch : {1, 2, 4, 8, 16, 32, 64}) {
        for (const auto recompute : {Recompute::kNone, Recompute::kSelective, Recompute::kFull}) {
          for (const auto kind : cost::kScheduleKinds) {
            l.pipeline = pipeline;
            l.expert = expert;
            l.micro_batch = micro_batch;
            l.recompute = recompute;
            l.schedule = kind;
            if (pipeline == 1 && kind != cost::ScheduleKind::k1F1B) continue;
            if (!cost::why_impossible(c, l).empty()) continue;
            const TrainPlan plan = plan_training(c, h, l);
            if (why_too_large(plan, h).empty()) out.push_back(plan.seconds);
          }
        }
      }
    }
  }
  std::sort(out.begin(), out.end());
  return out;
}

TEST(LayoutSearchTest, NothingFasterIsLeftOut) {
  const model::Config c = cost::load_latent_config("deepseek-v2-lite");
  const HardwareProfile h = load_hardware("h800");
  const cost::Layout l = base(1, 64, 512);
  LayoutChoice choice;
  choice.tensor = 1;
  const LayoutSearch found = search_layouts(c, h, l, choice, 8);
  const std::vector<double> want = all_seconds(c, h, l);
  ASSERT_EQ(found.best.size(), 8U);
  for (std::size_t i = 0; i < 8; ++i) EXPECT_DOUBLE_EQ(found.best[i].seconds, want[i]) << i;
}

// Larger micro-batches and activations that are kept are among the choices.
TEST(LayoutSearchTest, NoFixedValueIsFasterThanTheSearch) {
  const model::Config c = cost::load_latent_config("deepseek-v2-lite");
  const HardwareProfile h = load_hardware("h800");
  const cost::Layout l = base(1, 64, 512);
  const double best = search_layouts(c, h, l, {}, 1).best.front().seconds;
  std::vector<LayoutChoice> fixed;
  for (const int micro_batch : {1, 2, 4, 8, 16, 32, 64}) {
    fixed.emplace_back().micro_batch = micro_batch;
  }
  for (const auto recompute :
       {cost::Recompute::kNone, cost::Recompute::kSelective, cost::Recompute::kFull}) {
    fixed.emplace_back().recompute = recompute;
  }
  for (const LayoutChoice& choice : fixed) {
    for (const TrainPlan& plan : search_layouts(c, h, l, choice, 1).best) {
      EXPECT_LE(best, plan.seconds) << "micro-batch " << plan.layout.micro_batch << " recompute "
                                    << name(plan.layout.recompute);
    }
  }
}

TEST(LayoutSearchTest, ABoundLeavesOnlyWhatIsBelowIt) {
  const model::Config c = cost::load_latent_config("deepseek-v2-lite");
  const HardwareProfile h = load_hardware("h800");
  const cost::Layout l = base(1, 64, 512);
  const double best = search_layouts(c, h, l, {}, 1).best.front().seconds;
  EXPECT_TRUE(search_layouts(c, h, l, {}, 1, best).best.empty());
  const LayoutSearch above = search_layouts(c, h, l, {}, 1, 1.001 * best);
  ASSERT_FALSE(above.best.empty());
  EXPECT_EQ(above.best.front().seconds, best);
}

std::string why(const std::string& model, const cost::Layout& l, const LayoutChoice& choice) {
  const model::Config c = cost::load_latent_config(model);
  const HardwareProfile h = load_hardware("h800");
  const LayoutSearch search = search_layouts(c, h, l, choice);
  EXPECT_TRUE(search.best.empty());
  EXPECT_EQ(search.too_large, 0);
  return why_no_layout(c, h, l, choice);
}

TEST(LayoutSearchTest, TheCauseIsNamed) {
  LayoutChoice experts;
  experts.expert = 48;
  const char* const dealt =
      "256 experts cannot be dealt out evenly to 48 devices: 16 are left over; take ep = 32 or";
  EXPECT_THAT(why("deepseek-v3", base(2, 64), experts), HasSubstr(dealt));
  EXPECT_THAT(why("deepseek-v3", base(256, 15360), experts), HasSubstr(dealt));
  LayoutChoice one;
  one.pipeline = one.tensor = 1;
  EXPECT_THAT(why("deepseek-v2-lite", base(1, 7), one),
              HasSubstr("a batch of 7 sequences is no multiple of 8 data-parallel copies"));
  LayoutChoice three;
  three.pipeline = 3;
  EXPECT_THAT(why("deepseek-v2-lite", base(1, 64), three),
              HasSubstr("8 devices do not divide into pipeline 3 x tensor 1 = 3"));
  LayoutChoice large;
  large.micro_batch = 1 << 29;
  EXPECT_THAT(why("deepseek-v3", base(1, 64), large), HasSubstr("or a smaller micro-batch"));
}

// One rank has no two lanes in any case: what more ranks lack says more.
TEST(LayoutSearchTest, AScheduleOfTwoLanesSaysWhatItNeeds) {
  LayoutChoice dual;
  dual.tensor = 1;
  dual.schedule = cost::ScheduleKind::kDualPipe;
  EXPECT_THAT(why("deepseek-v2-lite", base(1, 8), dual), HasSubstr("at least two per stage"));
  dual.pipeline = 1;
  EXPECT_THAT(why("deepseek-v2-lite", base(1, 8), dual), HasSubstr("1 stages; dualpipe needs"));
}

TEST(LayoutSearchTest, WhereMemoryIsInTheWayTheSmallestSaysByHowMuch) {
  const model::Config c = cost::load_latent_config("deepseek-v3");
  const HardwareProfile h = load_hardware("h800");
  const LayoutSearch search = search_layouts(c, h, base(1, 128), {});
  EXPECT_TRUE(search.best.empty());
  EXPECT_EQ(search.too_large, search.tried - search.impossible);
  const std::string text = why_no_layout(c, h, base(1, 128), {});
  EXPECT_THAT(text, HasSubstr("too much"));
  EXPECT_THAT(text, HasSubstr("74 GB free"));
}

}  // namespace
}  // namespace cachalot::plan
