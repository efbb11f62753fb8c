// Hopper's products at every level against the scalar definition, bit for bit.
#include "kernels/hopper.h"

#include <memory>
#include <string>

#include "kernels/cpu/fp8_case_test.h"
#include "kernels/cpu/level_test.h"
#include "numeric/hopper.h"

namespace cachalot {
namespace {

using testing::first_difference;
using testing::Fp8Operand;

class HopperLevels : public testing::LevelTest {};
CACHALOT_EVERY_LEVEL(HopperLevels);

constexpr int kIntervals[] = {0, 32, 64, 96, 128, 256, 384};

struct Case {
  int m, n, k;
  bool trans_a = false, trans_b = true, accumulate = false, pow2 = true;
  ScaleTile a = ScaleTile::kRow, b = ScaleTile::kBlock;
  int pad = 0;
  std::string name() const {
    return cat(m, "x", n, "x", k, trans_a ? " T" : " N", trans_b ? "T" : "N",
               accumulate ? " += " : " ", testing::name(a), " ", testing::name(b));
  }
};

struct Data {
  Case c;
  Fp8Operand a, b;
  std::vector<float> start;

  explicit Data(const Case& x, std::uint64_t seed = 1)
      : c(x),
        a(x.trans_a ? x.k : x.m, x.trans_a ? x.m : x.k, x.a, seed, x.pad, x.pow2),
        b(x.trans_b ? x.n : x.k, x.trans_b ? x.k : x.n, x.b, seed + 1, x.pad, x.pow2) {
    const Rng rng(7, seed);
    start.resize(static_cast<std::size_t>(x.m) * static_cast<std::size_t>(x.n + x.pad));
    for (std::size_t i = 0; i < start.size(); ++i) start[i] = static_cast<float>(rng.normal(i));
  }
  std::vector<float> run(const Context& ctx, int interval) const {
    std::vector<float> out = start;
    const Fp8Gemm g{a.view(),  b.view(),  {out.data(), c.m, c.n, c.n + c.pad},
                    c.trans_a, c.trans_b, c.accumulate};
    gemm_fp8_hopper(ctx, {Accumulator::kHopper, interval}, {&g, 1});
    return out;
  }
  // By the contract, from single steps.
  float element(int interval, int i, int j) const {
    float sum = 0, held = 0, scale = 1;
    for (int k0 = 0; k0 < c.k; k0 += 32) {
      const float scale_a = c.trans_a ? a.out.scale_at(k0, i) : a.out.scale_at(i, k0);
      const float scale_b = c.trans_b ? b.out.scale_at(j, k0) : b.out.scale_at(k0, j);
      held *= scale / (scale_a * scale_b);
      scale = scale_a * scale_b;
      std::vector<std::uint8_t> x, y;
      for (int k = k0; k < std::min(c.k, k0 + 32); ++k) {
        x.push_back(c.trans_a ? a.out.row(k)[i] : a.out.row(i)[k]);
        y.push_back(c.trans_b ? b.out.row(j)[k] : b.out.row(k)[j]);
      }
      held = numeric::hopper_step(held, x, y);
      if (interval != 0 && (k0 + 32) % interval == 0) {
        sum = std::fma(held, scale, sum);
        held = 0;
      }
    }
    return std::fma(held, scale, sum);
  }
  std::vector<float> expected(int interval) const {
    std::vector<float> out = start;
    for (int i = 0; i < c.m; ++i) {
      for (int j = 0; j < c.n; ++j) {
        float& o = out[static_cast<std::size_t>(i) * static_cast<std::size_t>(c.n + c.pad) +
                       static_cast<std::size_t>(j)];
        const float sum = element(interval, i, j);
        o = c.accumulate ? o + sum : sum;
      }
    }
    return out;
  }
};

void expect_contract(const Context& ctx, const Case& c, int interval, std::uint64_t seed = 1) {
  const Data d(c, seed);
  EXPECT_EQ(-1, first_difference(d.run(ctx, interval), d.expected(interval)))
      << ctx.ops().name << " " << c.name() << " N_C " << interval;
}

TEST_P(HopperLevels, EveryIntervalAtEverySize) {
  for (const int interval : kIntervals) {
    for (const int m : {1, 3, 65}) {
      for (const int n : {1, 16, 17, 67}) {
        for (const int k : {1, 31, 32, 33, 127, 128, 129, 400}) {
          if (m * n * k > 65 * 17 * 400) continue;
          expect_contract(context(), {m, n, k}, interval);
        }
      }
    }
  }
}

TEST_P(HopperLevels, EveryLayoutAndTiling) {
  using enum ScaleTile;
  for (const int interval : {0, 64, 256}) {
    for (int bits = 0; bits < 8; ++bits) {
      const bool ta = (bits & 1) != 0, tb = (bits & 2) != 0;
      for (const ScaleTile a : {ta ? kColumn : kRow, kBlock, kTensor}) {
        for (const ScaleTile b : {tb ? kRow : kColumn, kBlock, kTensor}) {
          expect_contract(context(), {5, 19, 300, ta, tb, (bits & 4) != 0, true, a, b, bits % 3},
                          interval);
        }
      }
    }
  }
}

// Any scale will do where the register ends with its block.
TEST_P(HopperLevels, PlainScalesWithinABlock) {
  for (const int interval : {32, 64, 128}) {
    expect_contract(context(), {9, 20, 500, false, true, false, false}, interval);
  }
  expect_contract(context(),
                  {9, 20, 500, false, true, false, false, ScaleTile::kTensor, ScaleTile::kTensor},
                  0);
}

// Empty sums, and codes that are NaN: their row or column is NaN, nothing else.
TEST_P(HopperLevels, EmptyAndNan) {
  const Data empty({3, 4, 0});
  EXPECT_EQ(std::vector<float>(12, 0.0f), empty.run(context(), 128));
  Data d({20, 40, 200});
  d.a.out.row(3)[150] = 0x7F;
  d.b.out.row(21)[0] = 0xFF;
  d.a.out.row(3)[151] = 0;
  for (const int interval : {0, 128}) {
    const auto out = d.run(context(), interval);
    EXPECT_EQ(-1, first_difference(out, d.expected(interval)));
    for (int i = 0; i < 20; ++i) {
      for (int j = 0; j < 40; ++j) {
        EXPECT_EQ(i == 3 || j == 21, std::isnan(out[static_cast<std::size_t>(i * 40 + j)]));
      }
    }
  }
  d.a.out.scale_row(5)[1] = std::numeric_limits<float>::quiet_NaN();
  for (const int interval : {0, 128, 256}) {
    const auto out = d.run(context(), interval);
    EXPECT_EQ(-1, first_difference(out, d.expected(interval))) << interval;
    EXPECT_TRUE(std::isnan(out[5 * 40]));
  }
}

TEST_P(HopperLevels, ThreadsDoNotChangeABit) {
  const Data d({150, 140, 300});
  const auto one = d.run(context(), 0);
  with_threads([&](const Context& ctx, int threads) {
    EXPECT_EQ(-1, first_difference(d.run(ctx, 0), one)) << threads;
  });
}

TEST_P(HopperLevels, FloatIsGemmFp8) {
  const Data d({7, 18, 300, false, true, true, false});
  std::vector<float> got = d.start, want = d.start;
  const auto gemm = [&](std::vector<float>& out) {
    return Fp8Gemm{d.a.view(), d.b.view(), {out.data(), 7, 18, 18}, false, true, true};
  };
  const Fp8Gemm g = gemm(got), w = gemm(want);
  gemm_fp8_hopper(context(), {}, {&g, 1});
  gemm_fp8(context(), {&w, 1});
  EXPECT_EQ(-1, first_difference(got, want));
}

TEST_P(HopperLevels, WhatIsRefused) {
  const Data plain({2, 3, 300, false, true, false, false});
  const auto text = [&](int interval) -> std::string {
    try {
      plain.run(context(), interval);
    } catch (const Error& e) {
      return std::string(name(e.code())) + ": " + e.what();
    }
    return "";
  };
  EXPECT_NE(std::string::npos, text(40).find("multiple of that, or 0 for never")) << text(40);
  EXPECT_NE(std::string::npos, text(-32).find("promotion every -32")) << text(-32);
  EXPECT_NE(std::string::npos, text(0).find("scales have to be powers of two")) << text(0);
  EXPECT_NE(std::string::npos, text(256).find("promotion every 256")) << text(256);
  EXPECT_EQ("", text(128));
}

}  // namespace
}  // namespace cachalot
