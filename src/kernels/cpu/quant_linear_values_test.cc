// Products with weights in 8 or 4 bits at the ends of what codes and activations can be.
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/cpu/level_test.h"
#include "kernels/cpu/quant_problem_test.h"

namespace cachalot {
namespace {

using namespace testing;  // problems, and their reference
using enum QuantActivations;

class QuantLinearValuesTest : public testing::LevelTest {};
CACHALOT_EVERY_LEVEL(QuantLinearValuesTest);

TEST_P(QuantLinearValuesTest, EveryCode) {
  for (const QuantCase& kind : kinds()) {
    for (const int m : {1, 9}) {
      QuantData d(sized(kind, m, 16, 64));
      const int rows = d.w.view.rows;
      for (int i = 0; i < rows; ++i) {
        for (std::ptrdiff_t j = 0; j < d.w.view.row_bytes(); ++j) {
          d.w.codes[static_cast<std::size_t>(i * d.w.view.stride + j)] =
              static_cast<std::uint8_t>((i * d.w.view.row_bytes() + j) % 256);
        }
      }
      std::vector<float> want;
      const QuantLinear problem = d.problem(want);
      quant_linear_ref(Context{}, kind.activations, std::span<const QuantLinear>(&problem, 1));
      EXPECT_EQ(-1, first_difference(run(context(), d), want)) << kind;
      if (kind.code == QuantCode::kE4m3) {
        EXPECT_TRUE(std::isnan(want[1])) << "64 .. 127: the last one is a NaN";
        EXPECT_FALSE(std::isnan(want[0]));
      }
    }
  }
}

TEST_P(QuantLinearValuesTest, WhatIsNotFiniteReachesItsRowAndColumnOnly) {
  for (const QuantCase& kind : kinds()) {
    for (const int m : {4, 20}) {
      QuantData d(sized(kind, m, 40, 300));
      d.x[static_cast<std::size_t>(2 * d.x_stride + 7)] = std::numeric_limits<float>::infinity();
      d.x[static_cast<std::size_t>(3 * d.x_stride + 299)] = std::numeric_limits<float>::quiet_NaN();
      int bad = -1;
      if (kind.code != QuantCode::kE4m3) {
        bad = 5;
        d.w.halves[static_cast<std::size_t>(5 * d.w.view.scale_stride + 1)] =
            to_bf16(std::numeric_limits<float>::quiet_NaN());
      }
      const std::vector<float> y = run(context(), d);
      for (int i = 0; i < m; ++i) {
        for (int j = 0; j < 40; ++j) {
          const bool finite = std::isfinite(y[static_cast<std::size_t>(i * d.y_stride + j)]);
          EXPECT_EQ(finite, i != 2 && i != 3 && j != bad) << kind << " " << i << " " << j;
        }
      }
    }
  }
}

// Tiles of zeros, tiny, huge; sums that need the largest integers.
TEST_P(QuantLinearValuesTest, Int8ActivationsOfEverySize) {
  for (const QuantCase& kind : kinds()) {
    if (kind.activations != kInt8) continue;
    QuantData d(sized(kind, 10, 33, 512));
    const float sizes[] = {0, 1e-38f, 1e-30f, 1e30f, 1, 127, 0x1p-101f, 0x1p-99f};
    for (int i = 0; i < 10; ++i) {
      for (int j = 0; j < 512; ++j) {
        float& x = d.x[static_cast<std::size_t>(i * d.x_stride + j)];
        x = i < 8 ? x * sizes[i] : i == 8 ? 1.0f : -1.0f;
      }
    }
    std::vector<float> want;
    const QuantLinear problem = d.problem(want);
    quant_linear_ref(Context{}, kInt8, std::span<const QuantLinear>(&problem, 1));
    EXPECT_EQ(-1, first_difference(run(context(), d), want)) << kind;
  }
}

// NaN among the codes, in every place of a group, of few rows and of many.
TEST_P(QuantLinearValuesTest, ACodeThatIsNanReachesItsOutputOnly) {
  for (const int m : {1, 2, 3, 4, 5, 8, 13}) {
    for (int at = 0; at < 150; ++at) {
      QuantData d(sized({QuantCode::kE4m3, 128}, m, 40, 150, at % 2));
      const int output = at * 7 % 40;
      d.w.codes[static_cast<std::size_t>(output * d.w.view.stride + at)] = at % 2 ? 0x7F : 0xFF;
      std::vector<float> want;
      const QuantLinear problem = d.problem(want);
      quant_linear_ref(Context{}, kBf16, std::span<const QuantLinear>(&problem, 1));
      const QuantPanels panels(context(), d.w.view);
      for (const bool packed : {false, true}) {
        std::vector<float> got;
        QuantLinear q = d.problem(got);
        if (packed) q.w = panels.view;
        quant_linear(context(), kBf16, q);
        for (int i = 0; i < m; ++i) {
          for (int j = 0; j < 40; ++j) {
            const auto y = static_cast<std::size_t>(i * d.y_stride + j);
            if (j == output) {
              ASSERT_TRUE(std::isnan(got[y])) << m << " rows, code " << at << " packed " << packed;
            } else {
              ASSERT_EQ(std::bit_cast<std::uint32_t>(got[y]), std::bit_cast<std::uint32_t>(want[y]))
                  << m << " rows, code " << at << " of output " << output << ", output " << j;
            }
          }
        }
      }
    }
  }
}

// Rows of one size each, and one element of another size among them: a level may scale small ones.
TEST_P(QuantLinearValuesTest, ActivationsOfEverySize) {
  const float sizes[] = {0,     1e-30f, 1e-10f, 1,    300,   6e4f, 65279,
                         65280, 65535,  65536,  1e6f, 1e20f, 1e30f};
  for (const QuantCase& kind : kinds()) {
    if (kind.activations != kBf16) continue;
    for (const float size : sizes) {
      for (const float other : {size, 1.0f, 65279.5f, 1e30f}) {
        for (const int m : {1, 3, 4, 6}) {
          QuantData d(sized(kind, m, 33, 300));
          for (int i = 0; i < m; ++i) {
            for (int j = 0; j < 300; ++j) {
              float& x = d.x[static_cast<std::size_t>(i * d.x_stride + j)];
              x = std::copysign(i == m - 1 && j == 299 ? other : size, x);
            }
          }
          expect_reference_of(context(), d);
        }
      }
    }
  }
}

}  // namespace
}  // namespace cachalot
