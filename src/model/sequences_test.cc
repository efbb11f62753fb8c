#include "model/sequences.h"

#include <gmock/gmock.h>

#include <string>
#include <vector>

#include "base/error.h"

namespace cachalot::model {
namespace {

using ::testing::HasSubstr;

std::string refusal(const std::vector<std::int32_t>& tokens,
                    const std::vector<std::int32_t>& lengths,
                    const std::vector<std::uint8_t>& learnt = {}, int score_from = 0) {
  try {
    check({tokens, lengths, learnt}, /*vocab_size=*/10, score_from);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kUsage);
    return e.what();
  }
  return "";
}

TEST(Sequences, AreRefusedWhereTheyAreNone) {
  EXPECT_EQ(refusal({1, 2, 3, 4, 5}, {3, 2}), "");
  EXPECT_EQ(refusal({1, 2, 3, 4, 5}, {3, 2}, {0, 0, 0, 0, 0}), "");
  EXPECT_THAT(refusal({}, {}), HasSubstr("no sequences"));
  EXPECT_THAT(refusal({1, 2, 3}, {2, 1}), HasSubstr("sequence 1 of a training pass has 1 tokens"));
  EXPECT_THAT(refusal({1, 2, 3}, {3, 0}), HasSubstr("has 0 tokens"));
  EXPECT_THAT(refusal({1, 2}, {4, -2}), HasSubstr("has -2 tokens"));
  EXPECT_THAT(refusal({1, 2, 3, 4}, {3, 2}), HasSubstr("5 tokens together, but 4 were given"));
  const std::int32_t most = 2147483647;
  EXPECT_THAT(refusal({1, 2}, {most, most, most}), HasSubstr("6442450941 tokens together"));
  EXPECT_THAT(refusal({1, 2, 3}, {3}, {1, 1}), HasSubstr("2 of 3 tokens"));
  EXPECT_THAT(refusal({1, 10, 3}, {3}), HasSubstr("token id 10 is outside the vocabulary of 10"));
  EXPECT_THAT(refusal({1, 2, -1}, {3}), HasSubstr("token id -1"));
}

TEST(Sequences, ScoreFromLeavesEachARowAndIsNotBothSaid) {
  EXPECT_EQ(refusal({1, 2, 3, 4, 5, 6, 7}, {4, 3}, {}, 1), "");
  EXPECT_THAT(refusal({1, 2, 3, 4, 5, 6, 7}, {4, 3}, {}, 2), HasSubstr("rows 0 to 1"));
  EXPECT_THAT(refusal({1, 2, 3}, {3}, {}, -1), HasSubstr("row -1"));
  EXPECT_THAT(refusal({1, 2, 3}, {3}, {1, 1, 1}, 1), HasSubstr("give one of the two"));
}

// Sequences of 3, 2 and 4 tokens: 2 + 1 + 3 rows, and 1 + 0 + 2 of the MTP layer.
TEST(LossRows, AreTheTokensThatArePredictedAndLearnt) {
  const std::vector<std::int32_t> tokens(9, 1), lengths = {3, 2, 4};
  const LossRows all = loss_rows({tokens, lengths}, true);
  EXPECT_EQ(all.main, 6);
  EXPECT_EQ(all.mtp, 3);
  EXPECT_EQ(all.all, 6);
  EXPECT_EQ(loss_rows({tokens, lengths}, false).mtp, 0);
  // Learnt: a first token, which nothing predicts; a second, which the MTP layer does not; a last.
  const std::vector<std::uint8_t> learnt = {1, 0, 0, 0, 1, 0, 0, 0, 1};
  const LossRows some = loss_rows({tokens, lengths, learnt}, true);
  EXPECT_EQ(some.main, 2);
  EXPECT_EQ(some.mtp, 1);
  EXPECT_EQ(some.all, 6);
  LossRows sum = all;
  sum += some;
  EXPECT_EQ(sum.main, 8);
  EXPECT_EQ(sum.mtp, 4);
  EXPECT_EQ(sum.all, 12);
}

TEST(LossShare, IsThatOfTheRowsOfEachLoss) {
  const LossShare share = LossShare::of({2, 0, 6}, {8, 0, 24});
  EXPECT_EQ(share.main, 0.25F);
  EXPECT_EQ(share.mtp, 0);  // of nothing
  EXPECT_EQ(share.balance, 0.25F);
  const LossShare whole = LossShare::of({8, 3, 24}, {8, 3, 24});
  EXPECT_EQ(whole.main, 1);
  EXPECT_EQ(whole.mtp, 1);
  EXPECT_EQ(whole.balance, 1);
}

}  // namespace
}  // namespace cachalot::model
