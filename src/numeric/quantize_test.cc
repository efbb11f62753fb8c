#include "numeric/quantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/rng.h"
#include "numeric/small_float.h"

namespace cachalot::numeric {
namespace {

Mat<float> random_mat(int rows, int cols, std::uint64_t seed) {
  Mat<float> m(rows, cols);
  const Rng rng(seed);
  for (std::size_t i = 0; i < m.size(); ++i) {
    m.data()[i] = static_cast<float>(rng.normal(2 * i) * std::exp2(rng.normal(2 * i + 1)));
  }
  return m;
}

TEST(Quantize, PowerOfTwoRoundsUp) {
  EXPECT_EQ(1.0f, round_up_to_power_of_two(1.0f));
  EXPECT_EQ(2.0f, round_up_to_power_of_two(std::nextafter(1.0f, 2.0f)));
  EXPECT_EQ(1.0f, round_up_to_power_of_two(std::nextafter(1.0f, 0.0f)));
  EXPECT_EQ(0x1p-126f, round_up_to_power_of_two(0x1.8p-127f));
  EXPECT_EQ(0x1p-127f, round_up_to_power_of_two(0x1p-127f));
  EXPECT_EQ(0x1p-149f, round_up_to_power_of_two(0x1p-149f));
  for (int e = -149; e < 127; ++e) {
    const float power = std::ldexp(1.0f, e);
    EXPECT_EQ(power, round_up_to_power_of_two(power)) << e;
    EXPECT_EQ(2 * power, round_up_to_power_of_two(std::nextafter(power, HUGE_VALF))) << e;
  }
}

TEST(Quantize, ScalesByKind) {
  EXPECT_EQ(1.0f, block_scale(ScaleKind::kPlain, 0.0f));
  EXPECT_EQ(1.0f, block_scale(ScaleKind::kPow2, 0.0f));
  EXPECT_EQ(1e-4f / 448.0f, block_scale(ScaleKind::kOfficial, 0.0f));
  EXPECT_EQ(0x1p-22f, block_scale(ScaleKind::kOfficialUe8m0, 0.0f));  // 2.2e-7 rounded up
  EXPECT_EQ(1.0f, block_scale(ScaleKind::kPlain, 448.0f));
  EXPECT_EQ(2.0f, block_scale(ScaleKind::kPow2, 449.0f));
  for (const ScaleKind kind : kScaleKinds) {
    EXPECT_GT(block_scale(kind, std::numeric_limits<float>::denorm_min()), 0.0f) << name(kind);
    EXPECT_TRUE(std::isfinite(block_scale(kind, std::numeric_limits<float>::max()))) << name(kind);
    EXPECT_TRUE(std::isnan(block_scale(kind, std::nanf("")))) << name(kind);
  }
}

// E4M3 keeps 4 significant bits: |error| <= 2^-4 |x| for normals, half a step of 2^-9 below them,
// plus the roundings of x / scale and code * scale.
TEST(Quantize, ErrorBoundAtEveryEdgeSize) {
  for (const int rows : {1, 127, 128, 129}) {
    for (const int cols : {1, 127, 128, 129, 300}) {
      const auto x = random_mat(rows, cols, 7);
      Mat<std::uint8_t> codes(rows, cols);
      Mat<float> scales(blocks_of(rows, kScaleBlock), blocks_of(cols, kScaleBlock));
      Mat<float> back(rows, cols);
      for (const ScaleKind kind : kScaleKinds) {
        quantize_blocks(x.view(), kind, codes.view(), scales.view());
        dequantize_blocks(codes.cview(), scales.cview(), back.view());
        for (int i = 0; i < rows; ++i) {
          for (int j = 0; j < cols; ++j) {
            const float scale = scales.at(i / 128, j / 128);
            const float bound =
                std::max(std::fabs(x.at(i, j)) * 0x1.0001p-4f, scale * 0x1.0001p-10f);
            ASSERT_LE(std::fabs(x.at(i, j) - back.at(i, j)), bound)
                << name(kind) << " [" << rows << ", " << cols << "] at " << i << ", " << j;
          }
        }
      }
    }
  }
}

TEST(Quantize, TheLargestValueOfEachBlockIsKept) {
  auto x = random_mat(130, 257, 3);
  Mat<std::uint8_t> codes(130, 257);
  Mat<float> scales(2, 3), back(130, 257);
  quantize_blocks(x.view(), ScaleKind::kPlain, codes.view(), scales.view());
  for (int r = 0; r < 2; ++r) {
    for (int c = 0; c < 3; ++c) {
      int largest = 0;
      for (int i = r * 128; i < std::min(130, r * 128 + 128); ++i) {
        for (int j = c * 128; j < std::min(257, c * 128 + 128); ++j) {
          largest = std::max(largest, codes.at(i, j) & 0x7F);
        }
      }
      EXPECT_EQ(0x7E, largest) << r << ", " << c;
    }
  }
}

TEST(Quantize, PowerOfTwoScalesMakeASecondQuantisationExact) {
  const auto x = random_mat(5, 300, 11);
  Mat<std::uint8_t> codes(5, 300), again(5, 300);
  Mat<float> scales(5, 3), back(5, 300);
  quantize_tiles(x.view(), ScaleKind::kPow2, codes.view(), scales.view());
  dequantize_tiles(codes.cview(), scales.cview(), back.view());
  quantize_tiles(back.view(), ScaleKind::kPow2, again.view(), scales.view());
  Mat<float> twice(5, 300);
  dequantize_tiles(again.cview(), scales.cview(), twice.view());
  for (std::size_t i = 0; i < back.size(); ++i) {
    ASSERT_EQ(back.data()[i], twice.data()[i]) << i;
  }
}

TEST(Quantize, NonFiniteValuesPoisonTheirTileOnly) {
  for (const float bad : {std::nanf(""), HUGE_VALF, -HUGE_VALF}) {
    auto x = random_mat(2, 256, 5);
    x.at(0, 3) = bad;
    Mat<std::uint8_t> codes(2, 256);
    Mat<float> scales(2, 2), back(2, 256);
    for (const ScaleKind kind : kScaleKinds) {
      quantize_tiles(x.view(), kind, codes.view(), scales.view());
      dequantize_tiles(codes.cview(), scales.cview(), back.view());
      for (int j = 0; j < 256; ++j) {
        EXPECT_EQ(j < 128, std::isnan(back.at(0, j))) << name(kind) << " " << bad << " " << j;
        EXPECT_FALSE(std::isnan(back.at(1, j)));
      }
    }
  }
}

TEST(Quantize, EmptyAndWrongShapes) {
  quantize_blocks(MatView<const float>{}, ScaleKind::kPlain, {}, {});
  Mat<float> x(3, 200), scales(1, 1);
  Mat<std::uint8_t> codes(3, 200);
  try {
    quantize_blocks(x.view(), ScaleKind::kPlain, codes.view(), scales.view());
    FAIL() << "one scale for two blocks was accepted";
  } catch (const Error& e) {
    EXPECT_EQ(Code::kShape, e.code());
    EXPECT_NE(std::string::npos, std::string(e.what()).find("needs [1, 2]")) << e.what();
  }
}

TEST(Quantize, GemmEqualsTheProductOfDequantisedMatrices) {
  const int t = 3, n = 130, k = 300;
  const auto a = random_mat(t, k, 1), w = random_mat(n, k, 2);
  Mat<std::uint8_t> a_codes(t, k), w_codes(n, k);
  Mat<float> a_scales(t, 3), w_scales(2, 3);
  quantize_tiles(a.view(), ScaleKind::kOfficial, a_codes.view(), a_scales.view());
  quantize_blocks(w.view(), ScaleKind::kPlain, w_codes.view(), w_scales.view());
  Mat<double> y(t, n);
  block_scaled_gemm(a_codes.cview(), a_scales.cview(), w_codes.cview(), w_scales.cview(), y.view());
  for (int i = 0; i < t; ++i) {
    for (int j = 0; j < n; ++j) {
      double want = 0.0, size = 0.0;
      for (int p = 0; p < k; ++p) {
        const double left = static_cast<double>(decode_e4m3(a_codes.at(i, p))) *
                            static_cast<double>(a_scales.at(i, p / 128));
        const double right = static_cast<double>(decode_e4m3(w_codes.at(j, p))) *
                             static_cast<double>(w_scales.at(j / 128, p / 128));
        want += left * right;
        size += std::fabs(left * right);
      }
      EXPECT_NEAR(want, y.at(i, j), (k + 4) * 0x1p-53 * size);
    }
  }
}

}  // namespace
}  // namespace cachalot::numeric
