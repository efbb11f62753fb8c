// The block-scaled product at every level against its contract, bit for bit.
#include <gmock/gmock.h>

#include <cstring>
#include <ostream>

#include "kernels/cpu/fp8_case_test.h"
#include "kernels/cpu/gemm_avx512.h"
#include "kernels/cpu/level_test.h"
#include "kernels/fp8.h"

namespace cachalot {
namespace {

using testing::first_difference;
using testing::Fp8Operand;

class Fp8GemmTest : public testing::LevelTest {};
CACHALOT_EVERY_LEVEL(Fp8GemmTest);

struct Case {
  int m, n, k;
  bool trans_a = false, trans_b = true, accumulate = false;
  ScaleTile a = ScaleTile::kRow, b = ScaleTile::kBlock;
  int pad = 0;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.m << "x" << c.n << "x" << c.k << (c.trans_a ? " T" : " N")
             << (c.trans_b ? "T" : "N") << (c.accumulate ? " +=" : "") << " a "
             << testing::name(c.a) << " b " << testing::name(c.b) << " pad " << c.pad;
}

struct Data {
  Case c;
  Fp8Operand a, b;
  int c_stride;
  std::vector<float> start;

  explicit Data(const Case& x, std::uint64_t seed = 1)
      : c(x),
        a(x.trans_a ? x.k : x.m, x.trans_a ? x.m : x.k, x.a, seed, x.pad),
        b(x.trans_b ? x.n : x.k, x.trans_b ? x.k : x.n, x.b, seed + 1, x.pad),
        c_stride(x.n + x.pad) {
    const Rng rng(7, seed + 2);
    start.resize(static_cast<std::size_t>(x.m) * static_cast<std::size_t>(c_stride));
    for (std::size_t i = 0; i < start.size(); ++i) start[i] = static_cast<float>(rng.normal(i));
  }
  Fp8Gemm gemm(std::vector<float>& out) const {
    out = start;
    return {a.view(),  b.view(),  {out.data(), c.m, c.n, c_stride},
            c.trans_a, c.trans_b, c.accumulate};
  }
  // One element, by the contract.
  float element(int i, int j) const {
    float sum = 0;
    for (int k0 = 0; k0 < c.k; k0 += 128) {
      const int end = std::min(c.k, k0 + 128);
      float part = 0;
      for (int pair = k0; pair < end; pair += 2) {
        for (const int kk : {pair + 1, pair}) {
          if (kk >= end) continue;
          const std::uint8_t x = c.trans_a ? a.out.row(kk)[i] : a.out.row(i)[kk];
          const std::uint8_t y = c.trans_b ? b.out.row(j)[kk] : b.out.row(kk)[j];
          part = std::fma(numeric::decode_e4m3(x), numeric::decode_e4m3(y), part);
        }
      }
      const float scale_a = c.trans_a ? a.out.scale_at(k0, i) : a.out.scale_at(i, k0);
      const float scale_b = c.trans_b ? b.out.scale_at(j, k0) : b.out.scale_at(k0, j);
      sum = std::fma(part, scale_a * scale_b, sum);
    }
    return sum;
  }
  std::vector<float> expected() const {
    std::vector<float> out = start;
    for (int i = 0; i < c.m; ++i) {
      for (int j = 0; j < c.n; ++j) {
        float& o = out[static_cast<std::size_t>(i) * static_cast<std::size_t>(c_stride) +
                       static_cast<std::size_t>(j)];
        o = c.accumulate ? o + element(i, j) : element(i, j);
      }
    }
    return out;
  }
};

std::vector<float> run(const Context& ctx, const Data& d) {
  std::vector<float> out;
  gemm_fp8(ctx, d.gemm(out));
  return out;
}

void expect_contract(const Context& ctx, const Case& c) {
  const Data d(c);
  EXPECT_EQ(-1, first_difference(run(ctx, d), d.expected())) << ctx.ops().name << " " << c;
}

// Every combination of directions and tilings that a product may have.
std::vector<Case> layouts(int m, int n, int k) {
  using enum ScaleTile;
  std::vector<Case> cases;
  for (int bits = 0; bits < 8; ++bits) {
    const bool ta = (bits & 1) != 0, tb = (bits & 2) != 0, add = (bits & 4) != 0;
    for (const ScaleTile a : {ta ? kColumn : kRow, kBlock, kTensor}) {
      for (const ScaleTile b : {tb ? kRow : kColumn, kBlock, kTensor}) {
        cases.push_back({m, n, k, ta, tb, add, a, b, bits % 3});
      }
    }
  }
  return cases;
}

TEST_P(Fp8GemmTest, EveryLayoutAndTilingAtSmallSizes) {
  for (const int m : {1, 3, 17}) {
    for (const int n : {1, 17, 33}) {
      for (const int k : {0, 1, 2, 127, 128, 129, 257}) {
        for (const Case& c : layouts(m, n, k)) expect_contract(context(), c);
      }
    }
  }
}

// More rows and columns than one block of scales has.
TEST_P(Fp8GemmTest, BlocksOfScalesInBothDirections) {
  for (const Case& c : layouts(131, 141, 130)) expect_contract(context(), c);
}

TEST_P(Fp8GemmTest, EveryNumberOfRowsAndColumns) {
  for (int m = 1; m <= 44; ++m) {
    expect_contract(context(), {m, 35, 140});
    expect_contract(context(),
                    {m, 48, 129, true, false, true, ScaleTile::kColumn, ScaleTile::kColumn, 1});
  }
  for (int n = 1; n <= 70; ++n) {
    expect_contract(context(), {15, n, 130, false, true, true, ScaleTile::kRow, ScaleTile::kRow});
    expect_contract(context(),
                    {2, n, 258, true, false, false, ScaleTile::kColumn, ScaleTile::kBlock, 3});
  }
}

TEST_P(Fp8GemmTest, EveryLengthOfTheSum) {
  for (int k = 0; k <= 20; ++k) expect_contract(context(), {15, 33, k});
  for (int k = 120; k <= 140; ++k) {
    expect_contract(context(), {15, 33, k});
    expect_contract(context(),
                    {3, 20, k, true, false, true, ScaleTile::kColumn, ScaleTile::kColumn, 1});
  }
  for (const int k : {255, 256, 383, 384, 385, 511, 512, 513, 769, 1537, 2049}) {
    expect_contract(context(), {15, 34, k});
    expect_contract(context(),
                    {16, 17, k, true, false, true, ScaleTile::kColumn, ScaleTile::kColumn});
  }
}

TEST_P(Fp8GemmTest, ManyRows) {
  for (const int m : {191, 450, 1100}) {
    expect_contract(context(), {m, 140, 140});
    expect_contract(context(),
                    {m, 20, 1030, true, false, true, ScaleTile::kColumn, ScaleTile::kColumn, 1});
  }
}

TEST_P(Fp8GemmTest, ThreadsDoNotChangeABit) {
  const Case cases[] = {
      {300, 260, 300},
      {257, 129, 401, true, false, true, ScaleTile::kColumn, ScaleTile::kColumn, 1},
      {3, 500, 301}};
  for (const Case& c : cases) {
    const Data d(c);
    const std::vector<float> one = run(context(), d);
    with_threads([&](const Context& ctx, int threads) {
      EXPECT_EQ(-1, first_difference(run(ctx, d), one)) << c << " threads " << threads;
    });
  }
}

// Experts: each problem its own size, some without rows.
TEST_P(Fp8GemmTest, BatchesOfProblems) {
  const int rows[] = {0, 1, 33, 5, 0, 14, 190, 2, 0};
  std::vector<std::unique_ptr<Data>> data;
  for (std::size_t i = 0; i < std::size(rows); ++i) {
    data.push_back(std::make_unique<Data>(
        Case{rows[i], 40 + static_cast<int>(i), 200, false, true, i % 2 == 0}, 10 * i));
  }
  with_threads([&](const Context& ctx, int) {
    std::vector<std::vector<float>> out(data.size());
    std::vector<Fp8Gemm> problems;
    for (std::size_t i = 0; i < data.size(); ++i) problems.push_back(data[i]->gemm(out[i]));
    gemm_fp8(ctx, problems);
    for (std::size_t i = 0; i < data.size(); ++i) {
      EXPECT_EQ(-1, first_difference(out[i], data[i]->expected())) << data[i]->c;
    }
  });
  gemm_fp8(context(), std::span<const Fp8Gemm>());
}

// More problems than are planned at a time: rows by themselves are those of the whole.
TEST_P(Fp8GemmTest, ThousandsOfProblems) {
  const int rows = 2500, n = 21, k = 140;
  const Fp8Operand a(rows, k, ScaleTile::kRow, 1), b(n, k, ScaleTile::kBlock, 2);
  Mat<float> whole(rows, n);
  gemm_fp8(context(), Fp8Gemm{a.view(), b.view(), whole.view(), false, true, false});
  with_threads([&](const Context& ctx, int) {
    Mat<float> got(rows, n);
    std::vector<Fp8Gemm> problems;
    for (int i = 0; i < rows; ++i) {
      problems.push_back(
          {a.view().sub_rows(i, 1), b.view(), got.view().sub_rows(i, 1), false, true, false});
    }
    gemm_fp8(ctx, problems);
    EXPECT_EQ(-1, first_difference(got.span(), whole.span()));
  });
}

// Groups of rows of one matrix whose tiles begin anew with each group, as the rows of experts lie.
TEST_P(Fp8GemmTest, RaggedGroupsOfRows) {
  const std::int32_t begin[] = {0, 130, 130, 131, 300};
  const int cols = 150, width = 40;
  const Fp8Operand random(300, cols, ScaleTile::kRow, 5);
  Mat<float> x(300, cols);
  dequantize_fp8(context(), {random.view(), x.view(), {}});
  Fp8Mat a, b;
  a.resize(begin, cols, ScaleTile::kColumn);
  b.resize(begin, width, ScaleTile::kColumn);
  std::vector<QuantizeFp8> jobs;
  for (std::size_t g = 0; g < a.groups(); ++g) {
    const int count = begin[g + 1] - begin[g];
    const auto rows = x.cview().sub_rows(begin[g], count);
    jobs.push_back({rows, numeric::ScaleKind::kPlain, a.out(g), {}});
    jobs.push_back({rows.sub_cols(3, width), numeric::ScaleKind::kPow2, b.out(g), {}});
  }
  quantize_fp8(context(), jobs);
  for (std::size_t g = 0; g < a.groups(); ++g) {  // dW = dy^T x of each expert
    Mat<float> together(cols, width), want(cols, width);
    const auto of = [&](Mat<float>& c) {
      return Fp8Gemm{a.view(g), b.view(g), c.view(), true, false, false};
    };
    gemm_fp8(context(), of(together));
    gemm_fp8_ref(Context{}, std::vector{of(want)});
    EXPECT_EQ(-1, first_difference(together.span(), want.span())) << "group " << g;
    if (begin[g] == begin[g + 1]) {
      EXPECT_THAT(together.span(), ::testing::Each(0.0f));
    }
  }
}

TEST_P(Fp8GemmTest, WithinTheErrorBoundOfTheExactProduct) {
  const int m = 33, n = 200, k = 1000;
  const Fp8Operand a(m, k, ScaleTile::kRow, 1), b(n, k, ScaleTile::kBlock, 2);
  Mat<float> got(m, n);
  gemm_fp8(context(), {a.view(), b.view(), got.view(), false, true, false});
  Mat<std::uint8_t> a_codes(m, k), b_codes(n, k);
  std::memcpy(a_codes.data(), a.codes.data(), a.codes.size());
  std::memcpy(b_codes.data(), b.codes.data(), b.codes.size());
  const MatView<const float> a_scales{a.scales.data(), m, 8, 8}, b_scales{b.scales.data(), 2, 8, 8};
  Mat<double> exact(m, n), size(m, n);
  numeric::block_scaled_gemm(a_codes.cview(), a_scales, b_codes.cview(), b_scales, exact.view());
  for (std::uint8_t& c : a_codes.span()) c &= 0x7F;
  for (std::uint8_t& c : b_codes.span()) c &= 0x7F;
  numeric::block_scaled_gemm(a_codes.cview(), a_scales, b_codes.cview(), b_scales, size.view());
  // A product meets 128 additions of its block, the product of the scales and 8 additions of
  // blocks; each rounds by u = 2^-24 at most.
  const double nu = (128 + 1 + 8) * testing::kUnit;
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_LE(std::abs(static_cast<double>(got.data()[i]) - exact.data()[i]),
              nu / (1 - nu) * size.data()[i]);
  }
}

TEST_P(Fp8GemmTest, WhatIsNotFiniteReachesItsRowAndColumnOnly) {
  for (const int m : {4, 20}) {
    Fp8Operand a(m, 300, ScaleTile::kRow, 1), b(40, 300, ScaleTile::kRow, 2);
    a.out.row(2)[7] = 0xFF;  // a NaN among the codes
    b.out.scale_at(5, 140) = std::numeric_limits<float>::quiet_NaN();
    // An infinite scale: its codes are zeros but for the NaN that was the infinity.
    for (int k = 128; k < 256; ++k) a.out.row(3)[k] = k == 200 ? 0x7F : 0;
    a.out.scale_at(3, 128) = std::numeric_limits<float>::infinity();
    Mat<float> got(m, 40);
    gemm_fp8(context(), {a.view(), b.view(), got.view(), false, true, false});
    for (int i = 0; i < m; ++i) {
      for (int j = 0; j < 40; ++j) {
        EXPECT_EQ(std::isnan(got.at(i, j)), i == 2 || i == 3 || j == 5) << i << " " << j;
      }
    }
  }
}

TEST_P(Fp8GemmTest, NanCodesWhereLinesLieSideBySide) {
  Fp8Operand a(300, 20, ScaleTile::kColumn, 1), b(300, 40, ScaleTile::kColumn, 2);
  a.out.row(7)[2] = 0x7F;
  b.out.row(250)[35] = 0xFF;
  Mat<float> got(20, 40);
  gemm_fp8(context(), {a.view(), b.view(), got.view(), true, false, false});
  for (int i = 0; i < 20; ++i) {
    for (int j = 0; j < 40; ++j) EXPECT_EQ(std::isnan(got.at(i, j)), i == 2 || j == 35);
  }
}

// In a block of 128 x 128 one infinity has to spoil every row of the block.
TEST_P(Fp8GemmTest, AnInfinityInABlockIsNotHidden) {
  Mat<float> w(40, 200);
  for (float& x : w.span()) x = 1.0f;
  w.at(3, 150) = std::numeric_limits<float>::infinity();
  Fp8Mat q;
  q.resize(40, 200, ScaleTile::kBlock);
  quantize_fp8(context(), {w.cview(), numeric::ScaleKind::kPow2, q.out(), {}});
  const Fp8Operand a(16, 200, ScaleTile::kRow, 1);
  Mat<float> got(16, 40);
  gemm_fp8(context(), {a.view(), q.view(), got.view(), false, true, false});
  for (const float x : got.span()) EXPECT_TRUE(std::isnan(x)) << x;
}

TEST_P(Fp8GemmTest, TinyAndHugeScales) {
  for (const int exponent : {-74, -60, 60}) {
    Fp8Operand a(17, 260, ScaleTile::kRow, 1), b(40, 260, ScaleTile::kRow, 2);
    for (float& s : a.scales) s = std::ldexp(s, exponent);
    for (float& s : b.scales) s = std::ldexp(s, exponent);
    Mat<float> got(17, 40), want(17, 40);
    gemm_fp8(context(), {a.view(), b.view(), got.view(), false, true, false});
    gemm_fp8_ref(Context{}, std::vector{Fp8Gemm{a.view(), b.view(), want.view(), false, true}});
    EXPECT_EQ(-1, first_difference(got.span(), want.span())) << exponent;
  }
}

#if defined(__x86_64__)
// The level may use vdpbf16ps or float multiply-adds: the same bits.
TEST(Fp8GemmPairs, BothWaysAgree) {
  if (cpu::supported_levels().back() != cpu::Level::kAvx512Bf16) GTEST_SKIP() << "no vdpbf16ps";
  const Context ctx{&cpu::table(cpu::Level::kAvx512Bf16), nullptr};
  for (const int m : {1, 14, 15, 60}) {
    for (const int k : {1, 2, 31, 128, 129, 401, 900}) {
      for (const Case& c : layouts(m, 41, k)) {
        const Data d(c, 3);
        std::vector<float> x, y;
        const Fp8Gemm gx = d.gemm(x);
        cpu::avx512bf16::gemm_fp8_pairs(ctx, std::span<const Fp8Gemm>(&gx, 1));
        const Fp8Gemm gy = d.gemm(y);
        cpu::avx512bf16::gemm_fp8_floats(ctx, std::span<const Fp8Gemm>(&gy, 1));
        ASSERT_EQ(-1, first_difference(x, y)) << c;
      }
    }
  }
}
#endif

TEST(Fp8GemmShapes, ErrorsNameTheShapes) {
  const Context ctx{&kReferenceTable, nullptr};
  const Fp8Operand row(4, 8, ScaleTile::kRow, 1), column(4, 8, ScaleTile::kColumn, 2);
  Mat<float> c(4, 4), wrong(4, 5);
  EXPECT_NO_THROW(gemm_fp8(ctx, {row.view(), row.view(), c.view(), false, true, false}));
  try {
    gemm_fp8(ctx, {row.view(), row.view(), wrong.view(), false, true, false});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kShape);
    EXPECT_STREQ(e.what(), "gemm_fp8: a [4, 8] times b [4, 8]^T does not give c [4, 5]");
  }
  try {
    gemm_fp8(ctx, {row.view(), column.view(), c.view(), false, true, false});
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(),
                 "gemm_fp8: b [4, 8] is summed along its rows but has tiles of 128 x 1; quantise "
                 "it in tiles of 1 x 128 or 128 x 128");
  }
  Fp8View no_scales = row.view();
  no_scales.scales = nullptr;
  EXPECT_THROW(gemm_fp8(ctx, {no_scales, row.view(), c.view(), false, true, false}), Error);
  // What only devices do.
  Mat<Bf16> half(4, 4);
  EXPECT_THROW(gemm_fp8(ctx, {row.view(), row.view(), c.view(), false, true, false, half.view()}),
               Error);
  Fp8View down = column.view();
  down.transposed = true;
  down.stride = 4;
  Mat<float> square(8, 8);
  EXPECT_THROW(gemm_fp8(ctx, {down, column.view(), square.view(), true, false, false}), Error);
}

}  // namespace
}  // namespace cachalot
