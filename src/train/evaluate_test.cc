#include "train/evaluate.h"

#include <gtest/gtest.h>

namespace cachalot::train {
namespace {

constexpr std::int64_t kAll = 1'000'000;

TEST(EvalWindows, EveryTokenButTheFirstIsPredictedOnce) {
  for (const std::int64_t tokens : {2, 3, 9, 10, 16, 17, 18, 24, 25, 33, 100, 1001}) {
    for (const auto& [seq_len, stride] :
         {std::pair{8, 8}, std::pair{8, 4}, std::pair{8, 1}, std::pair{7, 4}, std::pair{2, 1}}) {
      std::int64_t next = 0;
      for (const EvalWindow& w : eval_windows(tokens, seq_len, stride, kAll)) {
        EXPECT_EQ(w.scored, next) << tokens;
        EXPECT_LT(w.scored, w.end);
        EXPECT_LE(w.end - w.begin, seq_len);
        EXPECT_GE(w.scored - w.begin, w.begin == 0 ? 0 : seq_len - stride) << "context";
        next = w.end;
      }
      EXPECT_EQ(next, tokens - 1);
    }
  }
}

TEST(EvalWindows, FewOrNone) {
  EXPECT_TRUE(eval_windows(0, 8, 4, kAll).empty());
  EXPECT_TRUE(eval_windows(1, 8, 4, kAll).empty());
  EXPECT_EQ(eval_windows(1000, 8, 4, 3).size(), 3U);
}

}  // namespace
}  // namespace cachalot::train
