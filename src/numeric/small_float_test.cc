#include "numeric/small_float.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace cachalot::numeric {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::uint32_t bits_of(float x) { return std::bit_cast<std::uint32_t>(x); }

// The definition of rounding, by search: the nearest value of the format; of two equally near, the
// one with the even code. `magnitudes` rise and their index is the code.
class Nearest {
 public:
  Nearest(std::vector<double> magnitudes, bool saturate, unsigned sign_bit, unsigned nan)
      : magnitudes_(std::move(magnitudes)), saturate_(saturate), sign_bit_(sign_bit), nan_(nan) {}

  unsigned operator()(float x) const {
    const unsigned sign = std::signbit(x) ? sign_bit_ : 0;
    if (std::isnan(x)) return sign | nan_;
    const double size = std::fabs(static_cast<double>(x));
    const std::size_t last = magnitudes_.size() - 1;
    const double past_last = magnitudes_[last] + (magnitudes_[last] - magnitudes_[last - 1]) / 2;
    if (size >= past_last && !saturate_) return sign | static_cast<unsigned>(last + 1);
    if (size >= magnitudes_[last]) return sign | static_cast<unsigned>(last);
    const auto above = std::upper_bound(magnitudes_.begin(), magnitudes_.end(), size);
    const auto hi = static_cast<unsigned>(above - magnitudes_.begin()), lo = hi - 1;
    const double down = size - magnitudes_[lo], up = magnitudes_[hi] - size;
    if (down != up) return sign | (down < up ? lo : hi);
    return sign | (lo % 2 == 0 ? lo : hi);
  }

 private:
  std::vector<double> magnitudes_;
  bool saturate_;
  unsigned sign_bit_, nan_;
};

// Magnitudes from the meaning of the fields, not from the codec under test.
std::vector<double> magnitudes(int fraction_bits, int bias, int count) {
  std::vector<double> values;
  for (int code = 0; code < count; ++code) {
    const int exponent = code >> fraction_bits, fraction = code & ((1 << fraction_bits) - 1);
    const int whole = exponent == 0 ? 0 : 1 << fraction_bits;
    values.push_back(std::ldexp(whole + fraction, std::max(exponent, 1) - bias - fraction_bits));
  }
  return values;
}

const Nearest& e4m3() {
  static const Nearest nearest(magnitudes(3, 7, 0x7F), true, 0x80, 0x7F);
  return nearest;
}
const Nearest& e5m2() {
  static const Nearest nearest(magnitudes(2, 15, 0x7C), false, 0x80, 0x7E);
  return nearest;
}
const Nearest& e5m6() {
  static const Nearest nearest(magnitudes(6, 15, 0x7FF), true, 0x800, 0x7FF);
  return nearest;
}
const Nearest& f16() {
  static const Nearest nearest(magnitudes(10, 15, 0x7C00), false, 0x8000, 0x7E00);
  return nearest;
}

void expect_same(float x) {
  ASSERT_EQ(e4m3()(x), encode_e4m3(x)) << "E4M3 of " << x << " bits " << bits_of(x);
  ASSERT_EQ(e5m2()(x), encode_e5m2(x)) << "E5M2 of " << x << " bits " << bits_of(x);
  ASSERT_EQ(e5m6()(x), encode_e5m6(x)) << "E5M6 of " << x << " bits " << bits_of(x);
  ASSERT_EQ(f16()(x), encode_f16(x)) << "F16 of " << x << " bits " << bits_of(x);
}

TEST(SmallFloat, EveryE4M3CodeDecodesAndComesBack) {
  const auto expected = magnitudes(3, 7, 0x7F);
  for (unsigned code = 0; code < 256; ++code) {
    const float value = decode_e4m3(static_cast<std::uint8_t>(code));
    EXPECT_EQ((code & 0x80) != 0, std::signbit(value)) << code;
    if ((code & 0x7F) == 0x7F) {
      EXPECT_TRUE(std::isnan(value)) << code;
    } else {
      EXPECT_EQ(expected[code & 0x7F], std::fabs(value)) << code;
    }
    EXPECT_EQ(code, encode_e4m3(value));
  }
  EXPECT_EQ(kE4M3Max, decode_e4m3(0x7E));
  EXPECT_EQ(0x1p-9f, decode_e4m3(0x01));
}

TEST(SmallFloat, EveryE5M2CodeDecodesAndComesBack) {
  const auto expected = magnitudes(2, 15, 0x7C);
  for (unsigned code = 0; code < 256; ++code) {
    const float value = decode_e5m2(static_cast<std::uint8_t>(code));
    EXPECT_EQ((code & 0x80) != 0, std::signbit(value)) << code;
    if ((code & 0x7F) > 0x7C) {
      EXPECT_TRUE(std::isnan(value)) << code;
      EXPECT_EQ((code & 0x80) | 0x7E, encode_e5m2(value)) << code;  // NaNs become one quiet NaN
      continue;
    }
    const double want = (code & 0x7F) == 0x7C ? HUGE_VAL : expected[code & 0x7F];
    EXPECT_EQ(want, std::fabs(value)) << code;
    EXPECT_EQ(code, encode_e5m2(value));
  }
}

TEST(SmallFloat, EveryE5M6CodeDecodesAndComesBack) {
  const auto expected = magnitudes(6, 15, 0x7FF);
  for (unsigned code = 0; code < 4096; ++code) {
    const float value = decode_e5m6(static_cast<std::uint16_t>(code));
    ASSERT_EQ((code & 0x800) != 0, std::signbit(value)) << code;
    if ((code & 0x7FF) == 0x7FF) {
      ASSERT_TRUE(std::isnan(value)) << code;
    } else {
      ASSERT_EQ(expected[code & 0x7FF], std::fabs(value)) << code;
    }
    ASSERT_EQ(code, encode_e5m6(value));
  }
  EXPECT_EQ(kE5M6Max, decode_e5m6(0x7FE));
  EXPECT_EQ(0x1p-20f, decode_e5m6(0x001));
  EXPECT_EQ(0x1p-14f, decode_e5m6(0x040));
}

TEST(SmallFloat, EveryF16CodeDecodesAndComesBack) {
  const auto expected = magnitudes(10, 15, 0x7C00);
  for (unsigned code = 0; code < 65536; ++code) {
    const float value = decode_f16(static_cast<std::uint16_t>(code));
    ASSERT_EQ((code & 0x8000) != 0, std::signbit(value)) << code;
    if ((code & 0x7FFF) > 0x7C00) {
      ASSERT_TRUE(std::isnan(value)) << code;
      continue;
    }
    const double want = (code & 0x7FFF) == 0x7C00 ? HUGE_VAL : expected[code & 0x7FFF];
    ASSERT_EQ(want, std::fabs(value)) << code;
    ASSERT_EQ(code, encode_f16(value));
  }
}

TEST(SmallFloat, SpecialValues) {
  EXPECT_EQ(0x7E, encode_e4m3(kInf));  // saturates
  EXPECT_EQ(0xFE, encode_e4m3(-kInf));
  EXPECT_EQ(0x7E, encode_e4m3(1e30f));
  EXPECT_EQ(0x7F, encode_e4m3(kNan));
  EXPECT_EQ(0xFF, encode_e4m3(-kNan));
  EXPECT_EQ(0x80, encode_e4m3(-0.0f));
  EXPECT_EQ(0x80, encode_e4m3(-1e-40f));
  EXPECT_EQ(0x7FE, encode_e5m6(kInf));
  EXPECT_EQ(0xFFE, encode_e5m6(-1e30f));
  EXPECT_EQ(0x7FF, encode_e5m6(kNan));
  EXPECT_EQ(0xFFF, encode_e5m6(-kNan));
  EXPECT_EQ(0x800, encode_e5m6(-0.0f));
  EXPECT_EQ(kE5M2Max, decode_e5m2(0x7B));
  EXPECT_EQ(0x7C, encode_e5m2(kInf));
  EXPECT_EQ(0xFC, encode_e5m2(-1e30f));  // IEEE: overflow is infinity
  EXPECT_EQ(0x7BFF, encode_f16(65519.996f));
  EXPECT_EQ(0x7C00, encode_f16(65520.0f));
  EXPECT_EQ(0x0000, encode_f16(0x1p-25f));  // the tie with zero goes to the even code
  EXPECT_EQ(0x0001, encode_f16(0x1.000002p-25f));
}

// The floats around every midpoint and every value of each format: where rounding can go wrong.
TEST(SmallFloat, RoundsToNearestEvenAroundEveryMidpoint) {
  for (const auto& grid : {magnitudes(3, 7, 0x80), magnitudes(2, 15, 0x7D),
                           magnitudes(6, 15, 0x800), magnitudes(10, 15, 0x7C01)}) {
    for (std::size_t i = 0; i + 1 < grid.size(); ++i) {
      for (const double point : {grid[i], (grid[i] + grid[i + 1]) / 2}) {
        const auto middle = static_cast<float>(point);
        for (const float x :
             {middle, std::nextafter(middle, kInf), std::nextafter(middle, -kInf)}) {
          expect_same(x);
          expect_same(-x);
        }
      }
    }
  }
}

// All float32 patterns, in strides of a prime: 2^32 / 257 of them, each exponent 33 thousand times.
TEST(SmallFloatSlow, DenseSweepOfFloatPatterns) {
  for (std::uint64_t u = 0; u < (1ull << 32); u += 257) {
    expect_same(std::bit_cast<float>(static_cast<std::uint32_t>(u)));
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace cachalot::numeric
