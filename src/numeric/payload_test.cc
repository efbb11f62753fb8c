#include "numeric/payload.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "base/rng.h"
#include "numeric/quantize.h"
#include "numeric/small_float.h"

namespace cachalot::numeric {
namespace {

Mat<float> random_mat(int rows, int cols, std::uint64_t seed) {
  Mat<float> m(rows, cols);
  const Rng rng(seed);
  for (std::size_t i = 0; i < m.size(); ++i) m.data()[i] = static_cast<float>(rng.normal(i));
  return m;
}

double relative_error(const Mat<float>& x, const Mat<float>& back) {
  double error = 0, size = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double d = double{x.data()[i]} - back.data()[i];
    error += d * d;
    size += double{x.data()[i]} * x.data()[i];
  }
  return std::sqrt(error / size);
}

TEST(Payload, BytesPerToken) {
  EXPECT_EQ(14336u, payload_bytes(Payload::kBf16, 7168));
  EXPECT_EQ(7392u, payload_bytes(Payload::kE4m3, 7168));  // 7,408 with DeepEP's 16 of a header
  EXPECT_EQ(7392u, payload_bytes(Payload::kE5m2, 7168));
  EXPECT_EQ(7392u, payload_bytes(Payload::kLogFmt8, 7168));
  EXPECT_EQ(9184u, payload_bytes(Payload::kLogFmt10, 7168));
  EXPECT_EQ(2u + 4u, payload_bytes(Payload::kLogFmt10, 1));
  EXPECT_EQ(0u, payload_bytes(Payload::kLogFmt10, 0));
}

TEST(Payload, NamesComeBack) {
  for (const Payload payload : kPayloads) {
    Payload parsed{};
    EXPECT_TRUE(parse_payload(name(payload), parsed));
    EXPECT_EQ(payload, parsed);
  }
  Payload parsed{};
  EXPECT_FALSE(parse_payload("e4m4", parsed));
}

TEST(Payload, E4m3IsTheTileQuantisation) {
  const Mat<float> x = random_mat(3, 300, 1);
  Mat<float> got = x.clone(), want(3, 300), scales(3, 3);
  Mat<std::uint8_t> codes(3, 300);
  quantize_tiles(x.cview(), ScaleKind::kPow2, codes.view(), scales.view());
  dequantize_tiles(codes.cview(), scales.cview(), want.view());
  round_trip(Payload::kE4m3, got.view());
  EXPECT_EQ(0, std::memcmp(got.data(), want.data(), got.size() * sizeof(float)));
}

TEST(Payload, E5m2ScaleIsTheSmallestPowerThatFits) {
  for (int e = -126; e < 112; ++e) {
    const float power = std::ldexp(1.0f, e), edge = power * kE5M2Max;
    EXPECT_EQ(power, e5m2_scale(edge)) << e;
    EXPECT_EQ(2 * power, e5m2_scale(std::nextafter(edge, HUGE_VALF))) << e;
  }
  EXPECT_EQ(1.0f, e5m2_scale(0.0f));
  EXPECT_EQ(0x1p-126f, e5m2_scale(0x1p-149f));
  // The least tiles do not overflow their codes.
  Mat<float> tiny(1, 1);
  tiny.at(0, 0) = 0x1.7p-134f;
  round_trip(Payload::kE5m2, tiny.view());
  EXPECT_NEAR(0x1.7p-134f, tiny.at(0, 0), 0x1p-137f);
}

// A second trip finds the values of the first one: on each grid, every point is nearest to itself.
TEST(Payload, RoundTripsAreStable) {
  for (const Payload payload : kPayloads) {
    for (const int cols : {1, 127, 128, 129, 300}) {
      Mat<float> once = random_mat(2, cols, 3);
      round_trip(payload, once.view());
      Mat<float> twice = once.clone();
      round_trip(payload, twice.view());
      for (std::size_t i = 0; i < once.size(); ++i) {
        ASSERT_EQ(once.data()[i], twice.data()[i]) << name(payload) << " " << cols << " " << i;
      }
    }
  }
}

// The order that the paper found: LogFMT-8 nearer than both FP8 formats, LogFMT-10 nearly BF16.
TEST(Payload, ErrorsAreOrderedAsThePaperFound) {
  const Mat<float> x = random_mat(64, 1024, 7);
  double error[5];
  for (const Payload payload : kPayloads) {
    Mat<float> back = x.clone();
    round_trip(payload, back.view());
    error[static_cast<int>(payload)] = relative_error(x, back);
  }
  EXPECT_LT(error[3], error[1]) << "logfmt8 against e4m3";
  EXPECT_LT(error[1], error[2]) << "e4m3 against e5m2";
  EXPECT_LT(error[4], 0.3 * error[3]) << "two bits more: a quarter of the step";
  EXPECT_LT(error[4], 4 * error[0]) << "logfmt10 against bf16";
}

TEST(Payload, NonFiniteValuesPoisonTheirTile) {
  for (const float bad : {std::nanf(""), HUGE_VALF, -HUGE_VALF}) {
    for (const Payload payload : kPayloads) {
      Mat<float> x = random_mat(2, 256, 5);
      x.at(0, 3) = bad;
      round_trip(payload, x.view());
      for (int j = 0; j < 256; ++j) {
        const bool poisoned = payload == Payload::kBf16 ? j == 3 : j < 128;
        EXPECT_EQ(poisoned, !std::isfinite(x.at(0, j))) << name(payload) << " " << j;
        EXPECT_TRUE(std::isfinite(x.at(1, j)));
      }
    }
  }
}

TEST(Payload, ViewsWithAStrideAndEmptyOnes) {
  for (const Payload payload : kPayloads) {
    Mat<float> wide = random_mat(3, 400, 9), narrow(3, 200);
    for (int i = 0; i < 3; ++i) std::memcpy(narrow.row(i), wide.row(i) + 100, 200 * sizeof(float));
    const Mat<float> before = wide.clone();
    round_trip(payload, wide.view().sub_cols(100, 200));
    round_trip(payload, narrow.view());
    for (int i = 0; i < 3; ++i) {
      for (int j = 0; j < 400; ++j) {
        const bool inside = j >= 100 && j < 300;
        ASSERT_EQ(inside ? narrow.at(i, j - 100) : before.at(i, j), wide.at(i, j)) << name(payload);
      }
    }
    round_trip(payload, MatView<float>{});
  }
}

}  // namespace
}  // namespace cachalot::numeric
