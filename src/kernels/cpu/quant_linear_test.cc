// Products with weights in 8 or 4 bits at every level against the reference, bit for bit.
#include <cmath>
#include <ostream>

#include "kernels/cpu/avx512bf16.h"
#include "kernels/cpu/fp8_case_test.h"
#include "kernels/cpu/level_test.h"
#include "kernels/cpu/quant_avx512.h"
#include "kernels/cpu/quant_case_test.h"
#include "kernels/quant_linear.h"
#include "numeric/group_quant.h"

namespace cachalot {
namespace {

using testing::first_difference;
using testing::QuantOperand;
using enum QuantActivations;

class QuantLinearTest : public testing::LevelTest {};
CACHALOT_EVERY_LEVEL(QuantLinearTest);

struct Case {
  QuantCode code;
  int group;
  QuantActivations activations = kBf16;
  int m = 1, n = 16, k = 128;
  bool accumulate = false, half = false;  // half: x in bf16
  int pad = 0;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << testing::name(c.code) << " group " << c.group
             << (c.activations == kInt8 ? " int8 x " : " bf16 x ") << c.m << "x" << c.n << "x"
             << c.k << (c.accumulate ? " +=" : "") << (c.half ? " half" : "") << " pad " << c.pad;
}

struct Data {
  Case c;
  QuantOperand w;
  int x_stride, y_stride;
  std::vector<float> x, start;
  std::vector<Bf16> half;

  explicit Data(const Case& given, std::uint64_t seed = 1)
      : c(given),
        w(given.code, given.n, given.k, given.group, seed, given.pad),
        x_stride(given.k + given.pad),
        y_stride(given.n + given.pad) {
    const Rng rng(5, seed);
    std::uint64_t n = 0;
    x.assign(static_cast<std::size_t>(c.m * x_stride), std::numeric_limits<float>::quiet_NaN());
    half.resize(x.size());
    for (int i = 0; i < c.m; ++i) {
      for (int j = 0; j < c.k; ++j) {
        x[static_cast<std::size_t>(i * x_stride + j)] = static_cast<float>(rng.normal(++n));
      }
    }
    for (std::size_t i = 0; i < x.size(); ++i) half[i] = to_bf16(x[i]);
    start.resize(static_cast<std::size_t>(c.m * y_stride));
    for (float& s : start) s = static_cast<float>(rng.normal(++n));
  }
  QuantLinear problem(std::vector<float>& y) const {
    y = start;
    const MatRef operand = c.half ? MatRef(half.data(), DType::kBF16, c.m, c.k, x_stride)
                                  : MatRef(x.data(), DType::kF32, c.m, c.k, x_stride);
    return {operand, w.view, {y.data(), c.m, c.n, y_stride}, c.accumulate};
  }
};

// The same weights in panels; what lies behind them is never to be used.
struct Panels {
  std::vector<std::uint8_t> codes;
  std::vector<Bf16> scales;
  QuantView view;

  Panels(const Context& ctx, const QuantView& from) : view(panels_of(from)) {
    codes.assign(view.code_span(), 0x7F);
    view.codes = codes.data();
    if (view.scales == nullptr) {
      scales.resize(view.scale_span() / sizeof(Bf16));
      view.scales = scales.data();
    }
    const PackQuant job{from, view};
    pack_quant(ctx, std::span<const PackQuant>(&job, 1));
  }
};

std::vector<float> run(const Context& ctx, const Data& d) {
  std::vector<float> y;
  quant_linear(ctx, d.c.activations, d.problem(y));
  return y;
}

void expect_reference(const Context& ctx, const Case& c) {
  const Data d(c);
  std::vector<float> want;
  const QuantLinear problem = d.problem(want);
  quant_linear_ref(Context{}, c.activations, std::span<const QuantLinear>(&problem, 1));
  EXPECT_EQ(-1, first_difference(run(ctx, d), want)) << ctx.ops().name << " " << c;

  const Panels panels(ctx, d.w.view);
  std::vector<float> got;
  QuantLinear packed = d.problem(got);
  packed.w = panels.view;
  quant_linear(ctx, c.activations, packed);
  EXPECT_EQ(-1, first_difference(got, want)) << ctx.ops().name << " in panels " << c;
}

// Every code, group and kind of activations that belong together.
std::vector<Case> kinds() {
  std::vector<Case> all{{QuantCode::kE4m3, 128}};
  for (const QuantActivations a : {kBf16, kInt8}) {
    for (const QuantCode code : {QuantCode::kInt8, QuantCode::kInt4}) {
      for (const int group : {32, 64, 128}) all.push_back({code, group, a});
    }
  }
  return all;
}

Case sized(Case c, int m, int n, int k, int pad = 0, bool accumulate = false, bool half = false) {
  c.m = m;
  c.n = n;
  c.k = k;
  c.pad = pad;
  c.accumulate = accumulate;
  c.half = half;
  return c;
}

TEST_P(QuantLinearTest, EveryNumberOfRows) {
  for (const Case& c : kinds()) {
    for (const int m : {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15, 24, 28, 29, 33}) {
      expect_reference(context(), sized(c, m, 35, 260, m % 3, m % 2 == 1, m % 4 == 0));
    }
  }
}

TEST_P(QuantLinearTest, EveryNumberOfOutputs) {
  for (const Case& c : kinds()) {
    for (const int n : {1, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 127, 128, 129, 260, 300}) {
      expect_reference(context(), sized(c, 2, n, 130, n % 2));
      expect_reference(context(), sized(c, 15, n, 130, n % 2, n % 3 == 0));
    }
  }
}

TEST_P(QuantLinearTest, EveryLengthOfTheSum) {
  for (const Case& c : kinds()) {
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
  for (const Case& kind : kinds()) {
    for (const auto& [n, k] : {std::pair{1, 1}, {16, 128}, {17, 129}, {33, 260}, {130, 200}}) {
      const Data d(sized(kind, 1, n, k, 3));
      const Panels panels(context(), d.w.view);
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
  for (const Case& kind : kinds()) {
    for (const int m : {1, 3, 17}) {
      const Data d(sized(kind, m, 300, 200));
      const std::vector<float> all = run(context(), d);
      const Panels panels(context(), d.w.view);
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
  for (const Case& kind : kinds()) {
    const Data d(sized(kind, 37, 70, 777, 3));
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
  for (const Case& kind : kinds()) {
    std::vector<std::unique_ptr<Data>> data;
    const int rows[] = {1, 0, 9, 30, 3, 200, 8};
    for (std::size_t i = 0; i < std::size(rows); ++i) {
      data.push_back(std::make_unique<Data>(
          sized(kind, rows[i], i % 2 == 0 ? 300 : 64, i % 3 == 0 ? 512 : 140), i));
    }
    std::vector<std::vector<float>> want(data.size());
    for (std::size_t i = 0; i < data.size(); ++i)
      want[i] = run(Context{&kReferenceTable, nullptr}, *data[i]);
    with_threads([&](const Context& ctx, int threads) {
      std::vector<std::vector<float>> got(data.size());
      std::vector<std::unique_ptr<Panels>> panels;
      for (const bool packed : {false, true}) {  // then every other one in panels
        std::vector<QuantLinear> problems;
        for (std::size_t i = 0; i < data.size(); ++i) {
          problems.push_back(data[i]->problem(got[i]));
          if (!packed || i % 2 == 1) continue;
          panels.push_back(std::make_unique<Panels>(ctx, data[i]->w.view));
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
  for (const Case& kind : kinds()) {
    std::vector<std::unique_ptr<Data>> data;
    for (const int rows : {1, 3, 40, 1, 2, 0, 1}) {
      data.push_back(std::make_unique<Data>(sized(kind, rows, 150, 260), data.size()));
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
  for (const Case& kind : kinds()) {
    for (const int m : {1, 5, 17}) {
      const Data d(sized(kind, m, 300, 200));
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

TEST_P(QuantLinearTest, EveryCode) {
  for (const Case& kind : kinds()) {
    for (const int m : {1, 9}) {
      Data d(sized(kind, m, 16, 64));
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

TEST_P(QuantLinearTest, WhatIsNotFiniteReachesItsRowAndColumnOnly) {
  for (const Case& kind : kinds()) {
    for (const int m : {4, 20}) {
      Data d(sized(kind, m, 40, 300));
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
TEST_P(QuantLinearTest, Int8ActivationsOfEverySize) {
  for (const Case& kind : kinds()) {
    if (kind.activations != kInt8) continue;
    Data d(sized(kind, 10, 33, 512));
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

// The exact sum, in double, and what rounding in the order of the contract may add to it.
TEST_P(QuantLinearTest, CloseToTheExactSum) {
  for (const Case& kind : kinds()) {
    if (kind.activations == kInt8) continue;
    const Case c = sized(kind, 3, 20, 1000, 0, false, true);
    const Data d(c);
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
  for (const Case& kind : kinds()) {
    if (kind.activations != kBf16) continue;
    for (const int m : {1, 4, 5, 8, 14, 15, 40}) {
      for (const int k : {1, 31, 128, 401, 900}) {
        const Data d(sized(kind, m, 41, k), 3);
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
  const Data d({QuantCode::kInt4, 32, kBf16, 2, 8, 64});
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
  const Data e4m3({QuantCode::kE4m3, 128, kBf16, 2, 8, 64});
  expect_refused(kInt8, e4m3.problem(y),
                 "quant_linear: int8 activations need int8 or int4 weights, but w is E4M3; "
                 "quantise x to E4M3 and use gemm_fp8");
}

}  // namespace
}  // namespace cachalot
