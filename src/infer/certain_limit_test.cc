#include "infer/certain_limit.h"

#include <gtest/gtest.h>

namespace cachalot::infer {
namespace {

TEST(CertainLimit, FollowsWhatWasRight) {
  CertainLimit limit;
  EXPECT_EQ(limit.most(), 16);
  limit.observe(16, 5);
  EXPECT_EQ(limit.most(), 5);
  limit.observe(0, 0);  // nothing was drafted
  EXPECT_EQ(limit.most(), 5);
  limit.observe(5, 5);
  EXPECT_EQ(limit.most(), 10);
  limit.observe(3, 3);  // there was no more of it
  EXPECT_EQ(limit.most(), 10);
  limit.observe(10, 10);
  EXPECT_EQ(limit.most(), CertainLimit::kMost);
}

TEST(CertainLimit, TriesAgainAfterAPause) {
  CertainLimit limit;
  for (int round = 0; round < 3; ++round) {
    limit.observe(1, 0);
    for (int i = 0; i < 15; ++i) EXPECT_EQ(limit.most(), 0);
    EXPECT_EQ(limit.most(), 1);
  }
  limit.observe(1, 1);
  EXPECT_EQ(limit.most(), 2);
}

}  // namespace
}  // namespace cachalot::infer
