#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plan/infer_case_test.h"

namespace cachalot::plan {
namespace {

using ::testing::HasSubstr;

DecodeCase decoding(int batch, int context, double tpot, bool fits = true) {
  DecodeCase c;
  c.batch = batch;
  c.context = context;
  c.tpot = tpot;
  c.tokens_per_s = batch / tpot;
  c.fits = fits;
  return c;
}

// 100, 400, 1600 and (too large) 3200 tokens/s of 10, 20, 40 and 80 ms per token.
const std::vector<DecodeCase> kCases = {decoding(1, 4096, 0.010), decoding(8, 4096, 0.020),
                                        decoding(64, 4096, 0.040),
                                        decoding(256, 4096, 0.080, false)};

TEST(TpotLimitTest, TheMostTokensOfThoseWithinTheLimit) {
  for (const auto& [limit, batch] : {std::pair(0.012, 1), {0.025, 8}, {0.020, 8}, {0.1, 64}}) {
    const auto choices = choose_by_tpot(kCases, limit);
    ASSERT_EQ(choices.size(), 1U);
    EXPECT_TRUE(choices[0].within) << limit;
    ASSERT_TRUE(choices[0].decode.has_value());
    EXPECT_EQ(choices[0].decode->batch, batch) << limit;
  }
}

TEST(TpotLimitTest, WhereNoneIsWithinTheLeastThereIs) {
  // Also where it is not the first one looked at.
  std::vector<DecodeCase> turned(kCases.rbegin(), kCases.rend());
  for (const auto& cases : {kCases, turned}) {
    const TpotChoice choice = choose_by_tpot(cases, 0.005).at(0);
    EXPECT_FALSE(choice.within);
    EXPECT_EQ(choice.decode.value().batch, 1);
    EXPECT_EQ(choice.decode.value().tpot, 0.010);
  }
}

TEST(TpotLimitTest, EachContextHasAnAnswerOfItsOwn) {
  const auto choices = choose_by_tpot(
      {kCases[1], decoding(1, 32768, 0.030), decoding(1, 131072, 0.020, false)}, 0.025);
  ASSERT_EQ(choices.size(), 3U);
  EXPECT_EQ(choices[0].context, 4096);
  EXPECT_TRUE(choices[0].within);
  EXPECT_EQ(choices[1].context, 32768);
  EXPECT_FALSE(choices[1].within);
  EXPECT_EQ(choices[1].decode.value().batch, 1);
  EXPECT_FALSE(choices[2].within);
  EXPECT_FALSE(choices[2].decode.has_value());
}

TEST(TpotLimitTest, OfEqualThroughputTheQuicker) {
  const auto choices =
      choose_by_tpot({decoding(4, 4096, 0.020), decoding(2, 4096, 0.010)}, 0.025);  // 200 tokens/s
  EXPECT_EQ(choices.at(0).decode.value().batch, 2);
}

TEST(TpotLimitTest, APlanKeepsToItAndSoDoesItsSplit) {
  const cost::Decoder d = cost::load_decoder("deepseek-v2-lite");
  InferOptions o;
  o.weights = model::WeightFormat::kBf16;
  o.batches = {1, 64};
  o.contexts = {4096};
  const InferPlan free = plan_infer(d, server(), o);
  EXPECT_TRUE(free.tpot_choices.empty());
  ASSERT_TRUE(free.split.has_value());
  EXPECT_EQ(free.split->decode.batch, 64);
  // 64 sequences read what one reads and more, so they take longer.
  ASSERT_LT(free.decode[0].tpot, free.decode[1].tpot);
  o.tpot = (free.decode[0].tpot + free.decode[1].tpot) / 2;
  const InferPlan limited = plan_infer(d, server(), o);
  ASSERT_EQ(limited.tpot_choices.size(), 1U);
  EXPECT_TRUE(limited.tpot_choices[0].within);
  EXPECT_EQ(limited.tpot_choices[0].decode.value().batch, 1);
  ASSERT_TRUE(limited.split.has_value());
  EXPECT_EQ(limited.split->decode.batch, 1);
  // What nothing can keep to is said, not taken for a lack of memory.
  o.tpot = 1e-9;
  const InferPlan none = plan_infer(d, server(), o);
  EXPECT_FALSE(none.tpot_choices.at(0).within);
  EXPECT_FALSE(none.split.has_value());
  ASSERT_FALSE(none.notes.empty());
  EXPECT_THAT(none.notes[0], HasSubstr("no batch fits within the limit on the time per token"));
}

}  // namespace
}  // namespace cachalot::plan
