#include "plan/usual_batch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cachalot::plan {
namespace {

using ::testing::HasSubstr;

// 2^22 tokens are 1024 sequences of 4096.
TEST(UsualBatchTest, AsManyOnEachDeviceAsMakeFourMillionTokens) {
  const UsualBatch even = usual_batch(8, 4096);
  EXPECT_EQ(even.sequences, 1024);
  EXPECT_THAT(even.why, HasSubstr("128 for each of 8 devices are 4,194,304 tokens"));
  // 1024 / 48 = 21 and a third: 1008 sequences are 4,128,768 tokens.
  const UsualBatch odd = usual_batch(48, 4096);
  EXPECT_EQ(odd.sequences, 48 * 21);
  EXPECT_THAT(odd.why, HasSubstr("21 for each of 48 devices are 4,128,768 tokens"));
  EXPECT_EQ(usual_batch(1024, 4096).sequences, 1024);
  EXPECT_THAT(usual_batch(1, 512).why, HasSubstr("8192 for each of 1 device are"));
}

TEST(UsualBatchTest, AtLeastOneOnEachDevice) {
  const UsualBatch wide = usual_batch(2048, 4096);
  EXPECT_EQ(wide.sequences, 2048);
  EXPECT_THAT(wide.why, HasSubstr("one for each of 2,048 devices is the least"));
  EXPECT_THAT(wide.why, HasSubstr("8,388,608 tokens, more than the usual 4,194,304"));
  // A sequence that is longer than all of it.
  EXPECT_EQ(usual_batch(8, 1 << 23).sequences, 8);
  // Products of the largest counts.
  EXPECT_THAT(usual_batch(2'147'483'647, 1 << 24).why, HasSubstr("36,028,797,002,186,752 tokens"));
}

}  // namespace
}  // namespace cachalot::plan
