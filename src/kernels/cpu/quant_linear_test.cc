// Products with weights in 8 or 4 bits at every level against the reference, bit for bit.
#include <cmath>
#include <ostream>

#include "kernels/cpu/avx512bf16.h"
#include "kernels/cpu/level_test.h"
#include "kernels/cpu/quant_avx512.h"
#include "kernels/cpu/quant_problem_test.h"
#include "kernels/quant_linear.h"
#include "numeric/group_quant.h"

namespace cachalot {
namespace {

using namespace testing;  // problems, and their reference
using enum QuantActivations;

class QuantLinearTest : public testing::LevelTest {};
CACHALOT_EVERY_LEVEL(QuantLinearTest);

TEST_P(QuantLinearTest, EveryNumberOfRows) {
  for (const QuantCase& c : kinds()) {
    for (const int m : {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15, 24, 28, 29, 33}) {
      expect_reference(context(), sized(c, m, 35, 260, m % 3, m % 2 == 1, m % 4 == 0));
    }
  }
}

TEST_P(QuantLinearTest, EveryNumberOfOutputs) {
  for (const QuantCase& c : kinds()) {
    for (const int n : {1, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 127, 128, 129, 260, 300}) {
      expect_reference(context(), sized(c, 2, n, 130, n % 2));
      expect_reference(context(), sized(c, 15, n, 130, n % 2, n % 3 == 0));
    }
  }
}

TEST_P(QuantLinearTest, EveryLengthOfTheSum) {
  for (const QuantCase& c : kinds()) {
    std::vector<int> lengths{0, 255, 256, 257, 384, 511, 513, 640, 1025, 2049};
    for (int k = 1; k <= 20; ++k) lengths.push_back(k);
    for (const int middle : {32, 64, 96, 128, 160}) {
      for (int k = middle - 3; k <= middle + 3; ++k) lengths.push_back(k);
    }
    for (const int k : lengths) {
      expect_reference(context(), sized(c, 3, 20, k, k % 3));
      expect_reference(context(), sized(c, 16, 33, k, 0, true));
    }
  }
}

// Every code and scale lies where the definition of panels says.
TEST_P(QuantLinearTest, PanelsHoldTheWeights) {
  for (const QuantCase& kind : kinds()) {
    for (const auto& [n, k] : {std::pair{1, 1}, {16, 128}, {17, 129}, {33, 260}, {130, 200}}) {
      const QuantData d(sized(kind, 1, n, k, 3));
      const QuantPanels panels(context(), d.w.view);
      for (int i = 0; i < n; ++i) {
        for (int j = 0; j < k; ++j) {
          const QuantView::Place place = panels.view.place_of(i, j);
          ASSERT_EQ(numeric::decode_code(kind.code, place.at, place.index),
                    numeric::decode_code(kind.code, d.w.view.row(i), j))
              << kind << " " << n << "x" << k << " [" << i << ", " << j << "]";
          ASSERT_EQ(panels.view.scale_at(i, j), d.w.view.scale_at(i, j)) << kind;
        }
      }
    }
  }
}

TEST_P(QuantLinearTest, RowsOfPanels) {
  for (const QuantCase& kind : kinds()) {
    for (const int m : {1, 3, 17}) {
      const QuantData d(sized(kind, m, 300, 200));
      const std::vector<float> all = run(context(), d);
      const QuantPanels panels(context(), d.w.view);
      for (const auto& [begin, count] : {std::pair{16, 40}, {112, 20}, {128, 130}, {288, 1}}) {
        std::vector<float> y;
        QuantLinear part = d.problem(y);
        part.w = panels.view.sub_rows(begin, count);
        part.y = part.y.sub_cols(begin, count);
        quant_linear(context(), kind.activations, part);
        for (int i = 0; i < m; ++i) {
          const auto at = static_cast<std::size_t>(i * d.y_stride + begin);
          const auto length = static_cast<std::size_t>(count);
          ASSERT_EQ(-1, first_difference(std::span<const float>{y.data() + at, length},
                                         std::span<const float>{all.data() + at, length}))
              << kind << " from " << begin;
        }
      }
    }
  }
}

TEST_P(QuantLinearTest, ARowHasTheSameBitsAloneAndInABatch) {
  for (const QuantCase& kind : kinds()) {
    const QuantData d(sized(kind, 37, 70, 777, 3));
    const std::vector<float> all = run(context(), d);
    for (const int begin : {0, 1, 8, 14, 36}) {
      for (const int rows : {1, 5, 8, 9}) {
        if (begin + rows > d.c.m) continue;
        std::vector<float> y;
        QuantLinear part = d.problem(y);
        part.x = part.x.sub_rows(begin, rows);
        part.y = part.y.sub_rows(begin, rows);
        quant_linear(context(), kind.activations, part);
        for (int i = begin; i < begin + rows; ++i) {
          const auto at = static_cast<std::size_t>(i * d.y_stride);
          const std::span<const float> got{y.data() + at, 70}, want{all.data() + at, 70};
          ASSERT_EQ(-1, first_difference(got, want)) << kind << " row " << i << " of " << rows;
        }
      }
    }
  }
}

// Experts: many problems, some without rows, of both ways, with 1 to 3 threads.
TEST_P(QuantLinearTest, BatchesAndThreads) {
  for (const QuantCase& kind : kinds()) {
    std::vector<std::unique_ptr<QuantData>> data;
    const int rows[] = {1, 0, 9, 30, 3, 200, 8};
    for (std::size_t i = 0; i < std::size(rows); ++i) {
      data.push_back(std::make_unique<QuantData>(
          sized(kind, rows[i], i % 2 == 0 ? 300 : 64, i % 3 == 0 ? 512 : 140), i));
    }
    std::vector<std::vector<float>> want(data.size());
    for (std::size_t i = 0; i < data.size(); ++i)
      want[i] = run(Context{&kReferenceTable, nullptr}, *data[i]);
    with_threads([&](const Context& ctx, int threads) {
      std::vector<std::vector<float>> got(data.size());
      std::vector<std::unique_ptr<QuantPanels>> panels;
      for (const bool packed : {false, true}) {  // then every other one in panels
        std::vector<QuantLinear> problems;
        for (std::size_t i = 0; i < data.size(); ++i) {
          problems.push_back(data[i]->problem(got[i]));
          if (!packed || i % 2 == 1) continue;
          panels.push_back(std::make_unique<QuantPanels>(ctx, data[i]->w.view));
          problems.back().w = panels.back()->view;
        }
        quant_linear(ctx, kind.activations, problems);
        for (std::size_t i = 0; i < data.size(); ++i) {
          ASSERT_EQ(-1, first_difference(got[i], want[i]))
              << kind << " problem " << i << " threads " << threads << " packed " << packed;
        }
      }
    });
    quant_linear(context(), kind.activations, std::span<const QuantLinear>{});
  }
}

// Weights on two or five nodes, some on none, and threads at home on some of them: the same bits.
TEST_P(QuantLinearTest, NodesAreNoPartOfTheResult) {
  for (const QuantCase& kind : kinds()) {
    std::vector<std::unique_ptr<QuantData>> data;
    for (const int rows : {1, 3, 40, 1, 2, 0, 1}) {
      data.push_back(std::make_unique<QuantData>(sized(kind, rows, 150, 260), data.size()));
    }
    std::vector<std::vector<float>> want(data.size());
    for (std::size_t i = 0; i < data.size(); ++i) want[i] = run(context(), *data[i]);
    for (const int nodes : {1, 2, 5}) {
      MemoryHomes homes(nodes);
      for (std::size_t i = 0; i < data.size(); ++i) {
        const int node = static_cast<int>(i * 7 % 6) - 1;
        if (node >= 0 && node < nodes) {
          homes.add(data[i]->w.codes.data(), data[i]->w.codes.size(), node);
        }
      }
      homes.finish();
      for (const int threads : {1, 2, 3}) {
        ThreadPool pool(threads);
        for (int t = 0; t < threads; ++t) pool.set_home(t, nodes - 1 - t % nodes);
        Context ctx{&ops(), &pool};
        ctx.homes = &homes;
        std::vector<std::vector<float>> got(data.size());
        std::vector<QuantLinear> problems;
        for (std::size_t i = 0; i < data.size(); ++i) problems.push_back(data[i]->problem(got[i]));
        quant_linear(ctx, kind.activations, problems);
        for (std::size_t i = 0; i < data.size(); ++i) {
          ASSERT_EQ(-1, first_difference(got[i], want[i]))
              << kind << " problem " << i << " nodes " << nodes << " threads " << threads;
        }
      }
    }
  }
}

// A part of the rows of W, begun where no block of scales begins.
TEST_P(QuantLinearTest, RowsOfTheWeights) {
  for (const QuantCase& kind : kinds()) {
    for (const int m : {1, 5, 17}) {
      const QuantData d(sized(kind, m, 300, 200));
      const std::vector<float> all = run(context(), d);
      for (const auto& [begin, count] : {std::pair{5, 40}, {120, 20}, {128, 130}, {299, 1}}) {
        std::vector<float> y;
        QuantLinear part = d.problem(y);
        part.w = part.w.sub_rows(begin, count).sub_rows(0, count);
        part.y = part.y.sub_cols(begin, count);
        quant_linear(context(), kind.activations, part);
        for (int i = 0; i < m; ++i) {
          const auto at = static_cast<std::size_t>(i * d.y_stride + begin);
          const auto length = static_cast<std::size_t>(count);
          ASSERT_EQ(-1, first_difference(std::span<const float>{y.data() + at, length},
                                         std::span<const float>{all.data() + at, length}))
              << kind << " from " << begin;
        }
      }
    }
  }
}

// The exact sum, in double, and what rounding in the order of the contract may add to it.
TEST_P(QuantLinearTest, CloseToTheExactSum) {
  for (const QuantCase& kind : kinds()) {
    if (kind.activations == kInt8) continue;
    const QuantCase c = sized(kind, 3, 20, 1000, 0, false, true);
    const QuantData d(c);
    const std::vector<float> y = run(context(), d);
    const int groups = d.w.view.groups();
    const double u = (kind.group + groups) * testing::kUnit;
    for (int i = 0; i < c.m; ++i) {
      for (int j = 0; j < c.n; ++j) {
        double sum = 0, size = 0;
        for (int k = 0; k < c.k; ++k) {
          const double p =
              static_cast<double>(to_float(d.half[static_cast<std::size_t>(i * d.x_stride + k)])) *
              static_cast<double>(numeric::decode_code(kind.code, d.w.view.row(j), k)) *
              static_cast<double>(d.w.view.scale_at(j, k));
          sum += p;
          size += std::abs(p);
        }
        ASSERT_NEAR(y[static_cast<std::size_t>(i * d.y_stride + j)], sum, u / (1 - u) * size)
            << kind;
      }
    }
  }
}

#if defined(__x86_64__)
// The level may use vdpbf16ps or float multiply-adds: the same bits.
TEST(QuantLinearPairs, BothWaysAgree) {
  if (cpu::supported_levels().back() != cpu::Level::kAvx512Bf16) GTEST_SKIP() << "no vdpbf16ps";
  const Context ctx{&cpu::table(cpu::Level::kAvx512Bf16), nullptr};
  for (const QuantCase& kind : kinds()) {
    if (kind.activations != kBf16) continue;
    for (const int m : {1, 4, 5, 8, 14, 15, 40}) {
      for (const int k : {1, 31, 128, 401, 900}) {
        const QuantData d(sized(kind, m, 41, k), 3);
        std::vector<float> x, y;
        const QuantLinear px = d.problem(x);
        if (!cpu::avx512bf16::quant_linear_pairs(ctx, std::span<const QuantLinear>(&px, 1))) {
          GTEST_SKIP() << "no VBMI or no VNNI";
        }
        const QuantLinear py = d.problem(y);
        cpu::avx512::quant_linear_floats(ctx, std::span<const QuantLinear>(&py, 1), true);
        ASSERT_EQ(-1, first_difference(x, y)) << d.c;
      }
    }
  }
}
#endif

void expect_refused(QuantActivations activations, const QuantLinear& a, const std::string& text) {
  try {
    quant_linear(Context{&kReferenceTable, nullptr}, activations, a);
    FAIL() << text;
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kShape);
    EXPECT_STREQ(e.what(), text.c_str());
  }
}

TEST(QuantLinearShapes, ErrorsNameTheShapes) {
  const QuantData d({QuantCode::kInt4, 32, kBf16, 2, 8, 64});
  std::vector<float> y;
  QuantLinear a = d.problem(y);
  a.w.cols = 60;
  expect_refused(kBf16, a, "quant_linear: x [2, 64] times w [8, 60]^T does not give y [2, 8]");
  a = d.problem(y);
  a.w.group = 48;
  expect_refused(kBf16, a,
                 "quant_linear: w has groups of 48 columns but 32, 64 or 128 are needed, of E4M3 "
                 "128; quantise it again");
  a = d.problem(y);
  a.w.stride = 31;
  expect_refused(kBf16, a,
                 "quant_linear: rows of w lie 31 bytes apart but hold 32; the stride has to be at "
                 "least that");
  a = d.problem(y);
  a.w = panels_of(a.w);
  a.w.rows = 17;
  a.y = {y.data(), 2, 17, 17};
  a.w.codes = d.w.codes.data();
  a.w.scales = d.w.halves.data();
  a.w.stride = 1023;
  expect_refused(kBf16, a,
                 "quant_linear: panels of w lie 1023 bytes apart but hold 1024; the stride has to "
                 "be at least that");
  a = d.problem(y);
  a.w.scales = nullptr;
  expect_refused(kBf16, a, "quant_linear: w [8, 64] has no memory for its scales");
  const QuantData e4m3({QuantCode::kE4m3, 128, kBf16, 2, 8, 64});
  expect_refused(kInt8, e4m3.problem(y),
                 "quant_linear: int8 activations need int8 or int4 weights, but w is E4M3; "
                 "quantise x to E4M3 and use gemm_fp8");
}

}  // namespace
}  // namespace cachalot
