#include "numeric/e5m6.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "base/error.h"
#include "base/rng.h"
#include "numeric/small_float.h"

namespace cachalot::numeric {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

struct Row {
  std::vector<std::uint8_t> packed, scales;
  std::vector<float> back;
};

Row round_trip(const std::vector<float>& x) {
  const int cols = static_cast<int>(x.size());
  Row r{std::vector<std::uint8_t>(static_cast<std::size_t>(e5m6_row_bytes(cols))),
        std::vector<std::uint8_t>(static_cast<std::size_t>(e5m6_tiles(cols))),
        std::vector<float>(x.size())};
  encode_e5m6_row(x, r.packed, r.scales);
  decode_e5m6_row(r.packed, r.scales, r.back);
  return r;
}

std::vector<float> random_row(std::size_t n, std::uint64_t seed, double spread) {
  const Rng rng(seed);
  std::vector<float> x(n);
  for (std::size_t i = 0; i < n; ++i) {
    x[i] = static_cast<float>(rng.normal(2 * i) * std::exp2(spread * rng.normal(2 * i + 1)));
  }
  return x;
}

// By search over the powers, not by bits.
TEST(E5m6, ScaleIsTheSmallestPowerThatFits) {
  const auto smallest = [](float amax) {
    for (int e = -126; e <= 127; ++e) {
      if (static_cast<double>(amax) <= std::ldexp(static_cast<double>(kE5M6Max), e)) return e;
    }
    return 128;
  };
  for (int e = -149; e < 128; ++e) {
    for (const double m : {1.0, 1.5, 1.96875, 1.9687501, 1.9999999}) {
      const auto power = static_cast<float>(std::ldexp(m, e));
      for (const float amax : {power, std::nextafter(power, 0.0f), std::nextafter(power, kInf)}) {
        if (amax == 0 || std::isinf(amax)) continue;
        ASSERT_EQ(smallest(amax), e5m6_scale(amax) - 127) << amax;
        ASSERT_EQ(std::ldexp(1.0f, e5m6_scale(amax) - 127), e5m6_scale_value(e5m6_scale(amax)));
      }
    }
  }
  EXPECT_EQ(127, e5m6_scale(0.0f));
  EXPECT_EQ(255, e5m6_scale(kInf));
  EXPECT_EQ(255, e5m6_scale(std::nanf("")));
  EXPECT_TRUE(std::isnan(e5m6_scale_value(255)));
}

TEST(E5m6, TwoCodesFillThreeBytes) {
  std::uint8_t bytes[3];
  for (unsigned low = 0; low < 4096; ++low) {
    const auto high = static_cast<std::uint16_t>((low * 2731u + 77u) & 0xFFFu);
    pack_e5m6(static_cast<std::uint16_t>(low), high, bytes);
    ASSERT_EQ(low, unpack_e5m6(bytes, 0));
    ASSERT_EQ(high, unpack_e5m6(bytes, 1));
  }
  pack_e5m6(0xABC, 0x123, bytes);
  EXPECT_EQ(0x123ABC, bytes[0] | bytes[1] << 8 | bytes[2] << 16);
  EXPECT_EQ(11008, e5m6_row_bytes(7168) + 4 * e5m6_tiles(7168) + 32);  // 10752 and 56 scales
  EXPECT_EQ(3, e5m6_row_bytes(1));
  EXPECT_EQ(0, e5m6_row_bytes(0));
}

// Every code at every scale: value = code * 2^e exactly, so a second pass finds the same bits.
TEST(E5m6, EveryCodeSurvivesEveryScale) {
  for (const int e : {-126, -125, -60, 0, 1, 60, 110}) {
    for (unsigned code = 0; code < 0x7FF; ++code) {
      const auto value = static_cast<float>(
          std::ldexp(static_cast<double>(decode_e5m6(static_cast<std::uint16_t>(code))), e));
      // The largest code beside it fixes the scale.
      const Row r = round_trip({-value, std::ldexp(kE5M6Max, e)});
      ASSERT_EQ(e + 127, r.scales[0]);
      ASSERT_EQ(-value, r.back[0]) << code << " at 2^" << e;
      ASSERT_EQ(code | 0x800, unpack_e5m6(r.packed.data(), 0));
    }
  }
}

TEST(E5m6, NearestAtEveryRowLength) {
  for (const std::size_t n : {1u, 2u, 3u, 127u, 128u, 129u, 255u, 256u, 300u}) {
    for (const double spread : {0.0, 3.0, 12.0}) {
      const auto x = random_row(n, n, spread);
      const Row r = round_trip(x);
      for (std::size_t i = 0; i < n; ++i) {
        const float scale = e5m6_scale_value(r.scales[i / 128]);
        // 7 significant bits above the subnormals, half a step of 2^-20 among them.
        const float bound = std::max(std::fabs(x[i]) * 0x1p-7f, scale * 0x1p-21f);
        ASSERT_LE(std::fabs(x[i] - r.back[i]), bound) << n << " " << i;
        ASSERT_EQ(std::signbit(x[i]), std::signbit(r.back[i]));
      }
      ASSERT_EQ(r.back, round_trip(r.back).back);
      ASSERT_EQ(r.packed, round_trip(r.back).packed);
    }
  }
}

TEST(E5m6, DegenerateTiles) {
  for (const float bad : {std::nanf(""), kInf, -kInf}) {
    auto x = random_row(260, 9, 1.0);
    x[130] = bad;
    const Row r = round_trip(x);
    for (std::size_t i = 0; i < x.size(); ++i) {
      EXPECT_EQ(i >= 128 && i < 256, std::isnan(r.back[i])) << i;
    }
  }
  const Row zeros = round_trip({0.0f, -0.0f, 0.0f});
  EXPECT_EQ(127, zeros.scales[0]);
  EXPECT_EQ(std::vector<float>({0.0f, -0.0f, 0.0f}), zeros.back);
  EXPECT_TRUE(std::signbit(zeros.back[1]));
  EXPECT_EQ(0, zeros.packed[5] | (zeros.packed[4] >> 4));  // the code beside an odd last column
  const Row tiny = round_trip({0x1p-149f, -0x1p-148f});
  EXPECT_EQ(std::vector<float>({0.0f, -0.0f}), tiny.back);  // below half of 2^-146
  // Codes reach past what a float holds, so the last 2^-7 of its range rounds up to infinity.
  EXPECT_EQ(kInf, round_trip({std::numeric_limits<float>::max()}).back[0]);
  EXPECT_EQ(0x1.fcp127f, round_trip({0x1.fcp127f}).back[0]);
}

TEST(E5m6, WrongSizesAreErrors) {
  std::vector<float> x(130);
  std::vector<std::uint8_t> packed(195), scales(1);
  try {
    encode_e5m6_row(x, packed, scales);
    FAIL() << "one scale for two tiles was accepted";
  } catch (const Error& e) {
    EXPECT_EQ(Code::kShape, e.code());
    EXPECT_NE(std::string::npos, std::string(e.what()).find("needs 195 bytes and 2 scales"))
        << e.what();
  }
}

}  // namespace
}  // namespace cachalot::numeric
