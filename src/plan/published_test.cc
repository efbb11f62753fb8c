#include "plan/published.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace cachalot::plan {
namespace {

// Every printed digit follows from the formulas, but for these, which cannot be right (or are cut
// off); each of them says the computation.
TEST(PublishedTest, TheFormulasGiveThePrintedDigits) {
  const std::set<std::string> wrong{"LLaMA-3.1 405B over V3",
                                    "Qwen-2.5 72B",
                                    "LLaMA-3.1 405B",
                                    "tokens per second",
                                    "MPFT, bubble, s",
                                    "MRFT, bubble, s",
                                    "V3, activated with embedding and head, 1e9",
                                    "V3, MTP layer, 1e9",
                                    "V3, MTP layer, activated, 1e9"};
  std::set<std::string> found;
  for (const Claim& c : published_claims()) {
    if (c.agrees()) continue;
    found.insert(c.what);
    EXPECT_FALSE(c.note.empty()) << c.what;
  }
  EXPECT_EQ(found, wrong);
  EXPECT_GE(published_claims().size(), 30U);
}

// What a reader sees beside a printed figure is that figure, or comes with a reason.
TEST(PublishedTest, EveryOtherDigitIsExplained) {
  int explained = 0;
  for (const Claim& c : published_claims()) {
    if (std::llround(c.computed / c.unit) == std::llround(c.printed / c.unit)) continue;
    EXPECT_FALSE(c.note.empty()) << c.what << ": " << c.computed;
    if (c.what != "MRFT, 1e9 tokens per day") continue;
    ++explained;
    EXPECT_TRUE(c.agrees());
    // 15360 sequences of 4096 in 19.9465 s.
    EXPECT_NEAR(15360.0 * 4096 * 86400 / 19.9465 * 1e-9, 272.52, 0.001);
    EXPECT_THAT(c.note, ::testing::HasSubstr("19.946 s; one of 19.9465 s"));
    EXPECT_THAT(c.note, ::testing::HasSubstr("gives 272.52"));
  }
  EXPECT_EQ(explained, 1);
}

TEST(PublishedTest, InconsistentFiguresComeWithTheirComputation) {
  for (const Claim& c : published_claims()) {
    if (c.what == "LLaMA-3.1 405B over V3") {
      EXPECT_THAT(c.note, ::testing::HasSubstr("516096 / 70272 = 7.344"));
    }
    if (c.what == "Qwen-2.5 72B") {
      EXPECT_NEAR(c.computed, 444.9, 0.05);
      EXPECT_THAT(c.note, ::testing::HasSubstr("421.3 already"));
    }
    if (c.what == "LLaMA-3.1 405B") {
      EXPECT_NEAR(c.computed, 2473.2, 0.05);
      EXPECT_THAT(c.note, ::testing::HasSubstr("2447.85"));
    }
    if (c.what == "MPFT, bubble, s") {
      // By hand: F&B 13.95 / 97, W 0.48 / 15, b (1.99 - 8 W) / 23.
      const double pair = 13.95 / 97, w = 0.48 / 15, b = (1.99 - 8 * w) / 23;
      EXPECT_NEAR(c.computed, 7 * (pair + b + w - 3 * w), 1e-12);
      EXPECT_NEAR(c.computed, 1.09, 0.005);
      EXPECT_THAT(c.note, ::testing::HasSubstr("F&B = 143.8, B = 107.4 and W = 32.0 ms"));
    }
  }
}

TEST(PublishedTest, AgreeingIsRounding) {
  EXPECT_TRUE((Claim{"", "", 43.73, 0.01, 43.7349, ""}).agrees());
  EXPECT_FALSE((Claim{"", "", 43.73, 0.01, 43.7351, ""}).agrees());
  EXPECT_TRUE((Claim{"", "", 1200, 100, 1219.8, ""}).agrees());
  EXPECT_FALSE((Claim{"", "", 272.52, 0.01, 272.528, "", 0.002}).agrees());
  EXPECT_TRUE((Claim{"", "", 272.52, 0.01, 272.528, "", 0.007}).agrees());
}

}  // namespace
}  // namespace cachalot::plan
