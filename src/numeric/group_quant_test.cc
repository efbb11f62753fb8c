#include "numeric/group_quant.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/rng.h"
#include "numeric/small_float.h"

namespace cachalot::numeric {
namespace {

std::vector<float> decoded(const std::vector<std::uint8_t>& codes, int bits, Bf16 scale) {
  std::vector<float> x;
  for (const std::uint8_t c : codes) {
    x.push_back(static_cast<float>(c - (1 << (bits - 1))) * to_float(scale));
  }
  return x;
}

double error_of(const std::vector<float>& x, const std::vector<float>& y) {
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double d = static_cast<double>(x[i]) - static_cast<double>(y[i]);
    sum += d * d;
  }
  return sum;
}

TEST(GroupQuant, CodesOfEveryKind) {
  for (int c = 0; c < 256; ++c) {
    const auto byte = static_cast<std::uint8_t>(c);
    EXPECT_EQ(c - 128, decode_code(QuantCode::kInt8, &byte, 0));
    EXPECT_EQ(c % 16 - 8, decode_code(QuantCode::kInt4, &byte, 0));
    EXPECT_EQ(c / 16 - 8, decode_code(QuantCode::kInt4, &byte, 1));
    const float want = decode_e4m3(byte), got = decode_code(QuantCode::kE4m3, &byte, 0);
    EXPECT_TRUE(want == got || (std::isnan(want) && std::isnan(got)));
  }
}

TEST(GroupQuant, MultiplesOfAScaleAreExact) {
  for (const int bits : {4, 8}) {
    const int half = 1 << (bits - 1);
    std::vector<float> x;
    for (int v = -half; v < half; ++v) x.push_back(static_cast<float>(v) * 0.375f);
    std::vector<std::uint8_t> codes(x.size());
    Bf16 scale;
    ASSERT_TRUE(quantize_group(x, bits, codes.data(), scale));
    EXPECT_EQ(x, decoded(codes, bits, scale));
    // The largest magnitude is negative here; turned round, the scale is.
    for (float& v : x) v = -v;
    ASSERT_TRUE(quantize_group(x, bits, codes.data(), scale));
    EXPECT_EQ(x, decoded(codes, bits, scale));
    EXPECT_LT(to_float(scale), 0);
  }
}

// No scale that puts the largest magnitude on the largest code does better.
TEST(GroupQuant, NotWorseThanThePlainScale) {
  const Rng rng(3);
  for (const int bits : {4, 8}) {
    const auto high = static_cast<float>((1 << (bits - 1)) - 1);
    for (std::uint64_t n = 0; n < 200; ++n) {
      std::vector<float> x(n % 3 == 0 ? 32 : 128);
      float amax = 0;
      for (std::size_t i = 0; i < x.size(); ++i) {
        x[i] = static_cast<float>(rng.normal(n * 128 + i));
        amax = std::max(amax, std::abs(x[i]));
      }
      const float plain = to_float(to_bf16(amax / high));
      std::vector<float> simple;
      for (const float v : x) {
        simple.push_back(std::clamp(std::nearbyint(v / plain), -high - 1, high) * plain);
      }
      std::vector<std::uint8_t> codes(x.size());
      Bf16 scale;
      ASSERT_TRUE(quantize_group(x, bits, codes.data(), scale));
      EXPECT_LE(error_of(x, decoded(codes, bits, scale)), error_of(x, simple) * (1 + 1e-6)) << n;
    }
  }
}

TEST(GroupQuant, ZerosTinyAndWhatIsNotFinite) {
  std::uint8_t codes[4];
  Bf16 scale;
  for (const int bits : {4, 8}) {
    const float zeros[4] = {0, -0.0f, 0, 0};
    ASSERT_TRUE(quantize_group(zeros, bits, codes, scale));
    EXPECT_EQ(1, to_float(scale));
    for (const std::uint8_t c : codes) EXPECT_EQ(1 << (bits - 1), c);
    const float tiny[4] = {1e-45f, 0, 0, -1e-44f};
    ASSERT_TRUE(quantize_group(tiny, bits, codes, scale));
    for (const float v : decoded({codes, codes + 4}, bits, scale)) EXPECT_NEAR(0, v, 1e-40);
    for (const float bad : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
      const float x[4] = {1, bad, 2, 3};
      EXPECT_FALSE(quantize_group(x, bits, codes, scale));
    }
    const float huge[4] = {3e38f, -3e38f, 1e38f, 0};
    ASSERT_TRUE(quantize_group(huge, bits, codes, scale));
    const auto got = decoded({codes, codes + 4}, bits, scale);
    for (int i = 0; i < 4; ++i) EXPECT_NEAR(huge[i], got[static_cast<std::size_t>(i)], 3e37f);
  }
}

TEST(GroupQuant, Int8Tiles) {
  std::int8_t codes[5];
  const float x[5] = {-2, 1, 0.5f, 0.0078f, -0.0f};
  EXPECT_EQ(2.0f / 127, quantize_int8_tile(x, codes));
  EXPECT_EQ(-127, codes[0]);
  EXPECT_EQ(64, codes[1]);  // 63.5: to the even one
  EXPECT_EQ(32, codes[2]);
  EXPECT_EQ(0, codes[3]);
  const float small[2] = {0x1p-101f, 0};
  EXPECT_EQ(0, quantize_int8_tile(small, codes));
  EXPECT_EQ(0, codes[0]);
  const float bad[2] = {1, std::numeric_limits<float>::infinity()};
  EXPECT_TRUE(std::isnan(quantize_int8_tile(bad, codes)));
  EXPECT_EQ(0, codes[0]);
  EXPECT_EQ(0, quantize_int8_tile({}, codes));
}

}  // namespace
}  // namespace cachalot::numeric
