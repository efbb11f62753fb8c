#include "numeric/hopper.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "base/rng.h"
#include "numeric/small_float.h"

namespace cachalot::numeric {
namespace {

using Codes = std::vector<std::uint8_t>;

// The rule once more, in doubles and from values: every term cut to a multiple of the largest
// exponent's 2^-13, the sum cut to 14 bits.
double step_in_double(double held, const Codes& a, const Codes& b) {
  const auto exponent = [](double x) {
    return static_cast<int>(std::floor(std::log2(std::fabs(x))));
  };
  int largest = held != 0 ? exponent(held) : -1000;
  std::vector<double> products;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double x = decode_e4m3(a[i]), y = decode_e4m3(b[i]);
    products.push_back(x * y);
    if (x * y == 0) continue;
    largest = std::max(largest, std::max(exponent(x), -6) + std::max(exponent(y), -6));
  }
  if (largest == -1000) return 0;
  const double unit = std::ldexp(1.0, largest - 13);
  double sum = std::trunc(held / unit);
  for (const double p : products) sum += std::trunc(p / unit);
  if (sum == 0) return 0;
  const double last = std::ldexp(1.0, exponent(sum) - 13);
  return std::trunc(sum / last) * last * unit;
}

Codes codes(std::initializer_list<float> values) {
  Codes c;
  for (const float v : values) c.push_back(encode_e4m3(v));
  return c;
}

float step(float held, std::initializer_list<float> a, std::initializer_list<float> b) {
  return hopper_step(held, codes(a), codes(b));
}

TEST(Hopper, ProductsAreCutAtTheThirteenthBitBelowTheLargest) {
  EXPECT_EQ(256.0f, step(0, {256, 0x1p-5f}, {1, 1}) - 0x1p-5f);  // 2^-5 = 2^(8 - 13): kept
  EXPECT_EQ(256.0f, step(0, {256, 0x1p-6f}, {1, 1}));            // lost
  EXPECT_EQ(256.0f + 0x1p-5f, step(0, {256, 0x1.cp-5f}, {1, 1}));
  EXPECT_EQ(256.0f - 0x1p-5f, step(0, {256, -0x1.cp-5f}, {1, 1}));  // towards zero, not down
  EXPECT_EQ(-256.0f, step(0, {-256, 0x1p-6f, -0x1p-6f}, {1, 1, 1}));
  // 31 of them would be half of the leading bit: none is seen.
  Codes a(32, encode_e4m3(0x1p-6f)), b(32, encode_e4m3(1));
  a[0] = encode_e4m3(256);
  EXPECT_EQ(256.0f, hopper_step(0, a, b));
}

TEST(Hopper, TheRegisterTakesPartInTheAlignment) {
  EXPECT_EQ(0x1p14f, step(0x1p14f, {1}, {1}));
  EXPECT_EQ(0x1p14f + 2, step(0x1p14f, {3}, {1}));
  EXPECT_EQ(0x1p13f + 1, step(0x1p13f, {1}, {1}));
  // A large product pushes the register's low bits out.
  EXPECT_EQ(256.0f * 448.0f, step(7.0f, {256}, {448}));  // exponent 16: units of 8
  EXPECT_EQ(256.0f * 448.0f + 8, step(15.0f, {256}, {448}));
}

// 1.5 * 1.5 = 2.25 has exponent 0, not 1: 2^-13 beside it is kept where the sum ends below 2.
TEST(Hopper, ExponentsOfProductsAreNotNormalised) {
  EXPECT_EQ(1.25f + 0x1p-13f, step(-1.0f, {1.5f, 0x1p-6f}, {1.5f, 0x1p-7f}));
  EXPECT_EQ(1.25f, step(-1.0f, {1.5f, 0x1p-6f}, {1.5f, 0x1p-8f}));
}

TEST(Hopper, SumsAreCutToTheRegister) {
  // 3.0625 + 2^-13 was added, but the register holds 2^1 and 13 bits more.
  EXPECT_EQ(1.75f * 1.75f, step(0, {1.75f, 0x1p-6f}, {1.75f, 0x1p-7f}));
  const Codes a(32, encode_e4m3(1)), b(32, encode_e4m3(1));
  float held = 0;
  for (int i = 0; i < 256; ++i) held = hopper_step(held, a, b);
  EXPECT_EQ(8192.0f, held);
  EXPECT_EQ(8224.0f, hopper_step(held, a, b));
  Codes odd = a;
  odd[5] = encode_e4m3(1.125f);
  EXPECT_EQ(8224.0f, hopper_step(held, odd, b));
}

TEST(Hopper, ZerosAndNan) {
  EXPECT_EQ(0.0f, step(0, {0, -0.0f}, {448, 1}));
  EXPECT_EQ(0x1p-12f, step(0x1p-12f, {0}, {448}));  // a zero factor has no exponent
  EXPECT_EQ(0.0f, hopper_step(0x1p-101f, {}, {}));
  EXPECT_TRUE(std::isnan(hopper_step(0, Codes{0x7F}, Codes{0})));
  EXPECT_TRUE(std::isnan(hopper_step(std::nanf(""), Codes{0}, Codes{0})));
  EXPECT_EQ(0.0f, hopper_dot({}, {}, 0));
}

TEST(Hopper, EqualsTheRuleInDoubles) {
  const Rng rng(3);
  std::uint64_t at = 0;
  for (int trial = 0; trial < 4000; ++trial) {
    const std::size_t n = 1 + rng.below(at++, 32);
    Codes a(n), b(n);
    const bool any = trial % 2 == 0;  // all codes alike, subnormals too; or normal values
    for (std::size_t i = 0; i < n; ++i) {
      const auto draw = [&] {
        if (!any) return encode_e4m3(static_cast<float>(rng.normal(at++) * 30));
        const auto code = static_cast<std::uint8_t>(rng.bits(at++));
        return (code & 0x7F) == 0x7F ? std::uint8_t{0} : code;
      };
      a[i] = draw();
      b[i] = draw();
    }
    float held = 0;
    for (int steps = 0; steps < 3; ++steps) {
      const double want = step_in_double(held, a, b);
      held = hopper_step(held, a, b);
      ASSERT_EQ(want, held) << trial;
    }
  }
}

// What promotion is for: without it, small positive products vanish beside a large sum.
TEST(Hopper, PromotionBoundsTheError) {
  const Rng rng(7);
  constexpr std::size_t kK = 4096;
  Codes a(kK), b(kK);
  double exact = 0;
  for (std::size_t i = 0; i < kK; ++i) {
    a[i] = encode_e4m3(static_cast<float>(rng.uniform(2 * i)));
    b[i] = encode_e4m3(static_cast<float>(rng.uniform(2 * i + 1)));
    exact += double{decode_e4m3(a[i])} * decode_e4m3(b[i]);
  }
  double before = 0;
  for (const int interval : {32, 64, 128, 256, 512, 0}) {
    const double got = hopper_dot(a, b, interval);
    EXPECT_LT(got, exact);  // cut, never rounded up
    const double error = (exact - got) / exact;
    EXPECT_GT(error, before) << interval;
    before = error;
    // 32 products of a group lose less than one unit each, and so does the register, once or twice;
    // the unit is at most 2^-13 of twice the sum's own exponent: interval / 32 groups of 34 units.
    const double longest = interval == 0 ? kK : interval;
    EXPECT_LT(error, 34 * longest / 32 * 0x1p-13) << interval;
  }
  EXPECT_GT(before, 0.02);
}

}  // namespace
}  // namespace cachalot::numeric
