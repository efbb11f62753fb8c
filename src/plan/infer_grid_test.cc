#include "plan/infer_grid.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

namespace cachalot::plan {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;

TEST(GridPositionsTest, RoundOnesFillWhatIsNotAskedFor) {
  EXPECT_THAT(grid_positions<int>({30, 2, 30}, {1, 2, 64}), ElementsAre(1, 2, 30, 64));
}

TEST(GridPositionsTest, OfTooManyTheEndsStay) {
  std::vector<int> many(1000);
  std::iota(many.begin(), many.end(), 1);
  const std::vector<int> some = grid_positions(many, {5000});
  EXPECT_EQ(kMostGridPositions, some.size());
  EXPECT_EQ(1, some.front());
  EXPECT_EQ(1000, some.back());
  EXPECT_TRUE(std::is_sorted(some.begin(), some.end()));
}

TEST(InferGridTest, HoldsWhatThePlanSays) {
  const cost::Decoder d = cost::load_decoder("deepseek-v3");
  const HardwareProfile h = load_hardware("h800");
  InferOptions o;
  o.nodes = 18;
  o.batches = {88, 128};
  o.contexts = {4989};
  o.drafts = 1;
  o.acceptance = 0.83;
  const InferPlan plan = plan_infer(d, h, o);
  const InferGrid grid = infer_grid(d, h, o, plan.layout);
  ASSERT_EQ(grid.cases.size(),
            grid.batches.size() * grid.contexts.size() * grid.acceptances.size());
  const auto at = [](const auto& list, auto x) {
    return static_cast<std::size_t>(std::ranges::find(list, x) - list.begin());
  };
  ASSERT_THAT(grid.batches, Contains(88));
  const DecodeCase& c =
      grid.at(at(grid.batches, 88), at(grid.contexts, 4989), at(grid.acceptances, 0.83));
  EXPECT_EQ(88, c.batch);
  EXPECT_EQ(4989, c.context);
  EXPECT_EQ(plan.decode[0].tpot, c.tpot);
  EXPECT_EQ(plan.decode[0].limit, c.limit);
  // Position 0 is without drafts.
  EXPECT_EQ(0, grid.acceptances[0]);
  EXPECT_EQ(1, grid.at(0, 0, 0).tokens_per_step);
  // A layer that drafts keeps rows too.
  EXPECT_DOUBLE_EQ(plan.decode[0].cache, 88.0 * 4990 * 70272 * 62 / 61);
  EXPECT_EQ(plan.decode[0].cache, c.cache);
  EXPECT_DOUBLE_EQ(c.cache / grid.at(at(grid.batches, 88), at(grid.contexts, 4989), 0).cache,
                   62.0 / 61);
}

TEST(InferGridTest, WithoutAnMtpLayerNothingDrafts) {
  const cost::Decoder d = cost::load_decoder("deepseek-v2-lite");
  const HardwareProfile h = load_hardware("h100");
  const InferOptions o;
  const InferGrid grid = infer_grid(d, h, o, plan_infer(d, h, o).layout);
  EXPECT_THAT(grid.acceptances, ElementsAre(0));
}

}  // namespace
}  // namespace cachalot::plan
