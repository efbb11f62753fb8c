#include "base/grouped.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>

namespace cachalot {
namespace {

TEST(Grouped, PutsThousandsApart) {
  EXPECT_EQ("0", grouped(0));
  EXPECT_EQ("999", grouped(999));
  EXPECT_EQ("1,000", grouped(1000));
  EXPECT_EQ("123,456", grouped(123456));
  EXPECT_EQ("4,194,304", grouped(4194304));
  EXPECT_EQ("-123,456", grouped(-123456));
  EXPECT_EQ("-1,000", grouped(-1000));
  EXPECT_EQ("9,223,372,036,854,775,807", grouped(std::numeric_limits<std::int64_t>::max()));
}

}  // namespace
}  // namespace cachalot
