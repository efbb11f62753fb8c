#include "cost/divisors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cachalot::cost {
namespace {

using ::testing::ElementsAre;

TEST(DivisorsTest, AllOfThemOnceAndRising) {
  EXPECT_THAT(divisors(1), ElementsAre(1));
  EXPECT_THAT(divisors(36), ElementsAre(1, 2, 3, 4, 6, 9, 12, 18, 36));
  EXPECT_THAT(divisors(72, 12), ElementsAre(1, 2, 3, 4, 6, 8, 9, 12));
  // At once, also of the largest: 2^31 - 1 is a prime.
  EXPECT_THAT(divisors(2147483647), ElementsAre(1, 2147483647));
}

TEST(DivisorsTest, TheNearestToEitherSide) {
  EXPECT_EQ(divisors_near(256, 48), "32 or 64");
  EXPECT_EQ(divisors_near(256, 64), "64");
  EXPECT_EQ(divisors_near(16, 64), "16");
  EXPECT_EQ(divisors_near(14, 8), "7 or 14");
}

}  // namespace
}  // namespace cachalot::cost
