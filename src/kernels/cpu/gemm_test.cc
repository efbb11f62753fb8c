// Every level's product against the contract, bit for bit: one accumulator per element, k in order.
#include "kernels/gemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <ostream>
#include <vector>

#include "base/rng.h"
#include "kernels/cpu/gemm_avx512.h"
#include "kernels/cpu/levels.h"
#include "kernels/table.h"
#include "testing/random_mat.h"

namespace cachalot {
namespace {

enum class Fill { kNormal, kTiny };

struct Case {
  int m, n, k;
  bool trans_a = false, trans_b = false, accumulate = false;
  bool a_bf16 = false, b_bf16 = false;
  int pad = 0;  // elements between rows
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.m << "x" << c.n << "x" << c.k << (c.trans_a ? " T" : " N")
             << (c.trans_b ? "T" : "N") << (c.accumulate ? " +=" : "")
             << (c.a_bf16 ? " a:bf16" : " a:f32") << (c.b_bf16 ? " b:bf16" : " b:f32") << " pad "
             << c.pad;
}

// A matrix whose rows are `pad` elements apart, in both element types; the gaps hold NaN.
struct Operand {
  int rows, cols, stride;
  bool bf16;
  std::vector<float> f;
  std::vector<Bf16> h;

  Operand(int r, int c, int pad, bool is_bf16, std::uint64_t seed, Fill fill)
      : rows(r), cols(c), stride(c + pad), bf16(is_bf16) {
    const Rng rng(7, seed);
    const auto n = static_cast<std::size_t>(r) * static_cast<std::size_t>(stride);
    f.assign(n, std::numeric_limits<float>::quiet_NaN());
    h.assign(n, to_bf16(std::numeric_limits<float>::quiet_NaN()));
    for (int i = 0; i < r; ++i) {
      for (int j = 0; j < c; ++j) {
        const auto at = static_cast<std::size_t>(i) * static_cast<std::size_t>(stride) +
                        static_cast<std::size_t>(j);
        float x = static_cast<float>(rng.normal(at));
        // Products and sums that fall below the smallest normal number.
        if (fill == Fill::kTiny) x = std::ldexp(x, -62 - static_cast<int>(rng.below(at + n, 12)));
        f[at] = x;
        h[at] = to_bf16(x);
      }
    }
  }
  MatRef ref() const {
    return bf16 ? MatRef(h.data(), DType::kBF16, rows, cols, stride)
                : MatRef(f.data(), DType::kF32, rows, cols, stride);
  }
  // As the product sees it.
  float at(int i, int j, Precision p) const {
    const auto x = static_cast<std::size_t>(i) * static_cast<std::size_t>(stride) +
                   static_cast<std::size_t>(j);
    if (bf16) return to_float(h[x]);
    return p == Precision::kBF16 ? to_float(to_bf16(f[x])) : f[x];
  }
};

struct Data {
  Case c;
  Operand a, b;
  std::vector<float> start;
  int c_stride;

  explicit Data(const Case& x, std::uint64_t seed = 1, Fill fill = Fill::kNormal)
      : c(x),
        a(x.trans_a ? x.k : x.m, x.trans_a ? x.m : x.k, x.pad, x.a_bf16, seed, fill),
        b(x.trans_b ? x.n : x.k, x.trans_b ? x.k : x.n, x.pad, x.b_bf16, seed + 1, fill),
        c_stride(x.n + x.pad) {
    start.resize(static_cast<std::size_t>(x.m) * static_cast<std::size_t>(c_stride));
    const Rng rng(7, seed + 2);
    for (std::size_t i = 0; i < start.size(); ++i) start[i] = static_cast<float>(rng.normal(i));
  }
  Gemm gemm(std::vector<float>& out) const {
    out = start;
    return {a.ref(), b.ref(), {out.data(), c.m, c.n, c_stride}, c.trans_a, c.trans_b, c.accumulate};
  }
  // The contract, one scalar FMA after the other; `fused` false: the reference level's rounding.
  std::vector<float> expected(Precision p, bool fused) const {
    std::vector<float> out = start;
    const int steps = p == Precision::kBF16 ? (c.k + 1) / 2 * 2 : c.k;
    for (int i = 0; i < c.m; ++i) {
      for (int j = 0; j < c.n; ++j) {
        float acc = 0;
        for (int s = 0; s < steps; ++s) {
          const int k = p == Precision::kBF16 ? s ^ 1 : s;
          const float x = k >= c.k ? 0.0f : c.trans_a ? a.at(k, i, p) : a.at(i, k, p);
          const float y = k >= c.k ? 0.0f : c.trans_b ? b.at(j, k, p) : b.at(k, j, p);
          acc = fused ? std::fma(x, y, acc) : acc + x * y;
        }
        float& o = out[static_cast<std::size_t>(i) * static_cast<std::size_t>(c_stride) +
                       static_cast<std::size_t>(j)];
        o = c.accumulate ? o + acc : acc;
      }
    }
    return out;
  }
};

bool same_bits(const std::vector<float>& x, const std::vector<float>& y) {
  return x.size() == y.size() &&
         (x.empty() || std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0);
}

std::vector<float> run(const Context& ctx, Precision p, const Data& d) {
  std::vector<float> out;
  gemm(ctx, p, d.gemm(out));
  return out;
}

// The same product with its B packed before.
std::vector<float> run_packed(const Context& ctx, Precision p, const Data& d) {
  PackedB b;
  const PackB job{d.b.ref(), d.c.trans_b, &b};
  pack_b(ctx, p, std::span<const PackB>(&job, 1));
  std::vector<float> out;
  Gemm g = d.gemm(out);
  g.b = {};
  g.packed = &b;
  gemm(ctx, p, g);
  return out;
}

// The same product, its result rounded; what lies between rows is not touched.
std::vector<Bf16> run_to_bf16(const Context& ctx, Precision p, const Data& d) {
  std::vector<float> out;
  Gemm g = d.gemm(out);
  std::vector<Bf16> half(out.size());
  std::transform(out.begin(), out.end(), half.begin(), to_bf16);
  g.c.data = nullptr;
  g.c_bf16 = {half.data(), d.c.m, d.c.n, d.c_stride};
  gemm(ctx, p, g);
  return half;
}

class EveryLevel : public ::testing::TestWithParam<const KernelTable*> {
 protected:
  bool fused() const { return GetParam()->gemm != gemm_ref; }
  Context context(ThreadPool* pool = nullptr) const { return {GetParam(), pool}; }
};

std::vector<Case> layouts(int m, int n, int k) {
  std::vector<Case> cases;
  for (int bits = 0; bits < 32; ++bits) {
    cases.push_back({m, n, k, (bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0, (bits & 8) != 0,
                     (bits & 16) != 0, (bits & 3) * 3});
  }
  return cases;
}

void expect_contract(const Context& ctx, const Case& c, bool fused, Fill fill = Fill::kNormal) {
  const Data d(c, 1, fill);
  for (const Precision p : {Precision::kF32, Precision::kBF16}) {
    const char* in = p == Precision::kBF16 ? " in bf16" : " in f32";
    const std::vector<float> want = d.expected(p, fused);
    EXPECT_TRUE(same_bits(run(ctx, p, d), want)) << ctx.ops().name << " " << c << in;
    EXPECT_TRUE(same_bits(run_packed(ctx, p, d), want))
        << ctx.ops().name << " " << c << in << ", b packed";
    if (c.accumulate) continue;
    const std::vector<Bf16> half = run_to_bf16(ctx, p, d);
    EXPECT_TRUE(std::equal(half.begin(), half.end(), want.begin(),
                           [](Bf16 x, float y) { return x.bits == to_bf16(y).bits; }))
        << ctx.ops().name << " " << c << in << ", into bf16";
  }
}

TEST_P(EveryLevel, EveryLayoutAndTypeAtSmallSizes) {
  for (const int m : {1, 3, 9, 17}) {
    for (const int n : {1, 17, 33}) {
      for (const int k : {0, 1, 2, 15, 33}) {
        for (const Case& c : layouts(m, n, k)) expect_contract(context(), c, fused());
      }
    }
  }
}

TEST_P(EveryLevel, EveryNumberOfRows) {
  for (int m = 1; m <= 44; ++m) {
    expect_contract(context(), {m, 35, 21, false, true, false, false, true, 1}, fused());
    expect_contract(context(), {m, 48, 40, false, false, true, true, false, 0}, fused());
    expect_contract(context(), {m, 19, 37, true, true, true, false, false, 5}, fused());
  }
}

TEST_P(EveryLevel, EveryNumberOfColumns) {
  for (int n = 1; n <= 70; ++n) {
    expect_contract(context(), {15, n, 18, false, true, true, false, false, 2}, fused());
    expect_contract(context(), {2, n, 66, false, true, false, false, true, 0}, fused());
    expect_contract(context(), {4, n, 19, false, false, true, false, true, 3}, fused());
  }
  for (const int n : {127, 128, 129, 255, 256, 257, 300}) {
    expect_contract(context(), {29, n, 9, false, true, false, true, true, 0}, fused());
    expect_contract(context(), {1, n, 9, false, true, false, true, true, 0}, fused());
  }
}

TEST_P(EveryLevel, EveryLengthOfTheSum) {
  for (int k = 0; k <= 70; ++k) {
    expect_contract(context(), {15, 33, k, false, true, false, true, true, 1}, fused());
    expect_contract(context(), {3, 20, k, false, true, true, false, false, 1}, fused());
    expect_contract(context(), {3, 20, k, true, false, true, false, true, 1}, fused());
  }
}

// Longer than one block of k: partial sums must not be rounded or added in another order.
TEST_P(EveryLevel, LongSums) {
  for (const int k : {383, 512, 1023, 1024, 1025, 1537, 2047, 2048, 2049, 4099}) {
    expect_contract(context(), {15, 34, k, false, true, false, false, true, 0}, fused());
    expect_contract(context(), {16, 17, k, true, false, true, true, false, 1}, fused());
    expect_contract(context(), {2, 17, k, false, true, true, true, false, 1}, fused());
  }
}

TEST_P(EveryLevel, ManyRows) {
  for (const int m : {191, 450, 1100}) {
    expect_contract(context(), {m, 40, 24, false, true, false, false, true, 0}, fused());
    expect_contract(context(), {m, 300, 10, true, false, true, false, false, 0}, fused());
  }
}

TEST_P(EveryLevel, ThreadsDoNotChangeABit) {
  const Case cases[] = {{300, 260, 70, false, true, false, false, true, 0},
                        {257, 129, 401, true, false, true, false, false, 1},
                        {3, 500, 301, false, true, false, true, true, 0}};
  for (const Case& c : cases) {
    const Data d(c);
    for (const Precision p : {Precision::kF32, Precision::kBF16}) {
      const std::vector<float> one = run(context(), p, d);
      for (const int threads : {1, 2, 3}) {
        ThreadPool pool(threads);
        EXPECT_TRUE(same_bits(run(context(&pool), p, d), one)) << c << " threads " << threads;
        EXPECT_TRUE(same_bits(run_packed(context(&pool), p, d), one))
            << c << " threads " << threads << ", b packed";
      }
    }
  }
}

// Row i of a product is the product of row i, whatever kernel runs the few or the many.
TEST_P(EveryLevel, RowsDoNotDependOnTheirCompany) {
  for (const bool trans_b : {false, true}) {
    for (const bool b_bf16 : {false, true}) {
      const Case c{40, 70, 777, false, trans_b, false, false, b_bf16, 0};
      const Data d(c);
      for (const Precision p : {Precision::kF32, Precision::kBF16}) {
        const std::vector<float> all = run(context(), p, d);
        for (const int rows : {1, 2, 5, 8, 9, 13, 14, 20}) {
          std::vector<float> part(d.start.size());
          gemm(context(), p,
               Gemm{d.a.ref().sub_rows(3, rows),
                    d.b.ref(),
                    {part.data(), rows, c.n, d.c_stride},
                    false,
                    trans_b,
                    false});
          EXPECT_EQ(0, std::memcmp(part.data(), all.data() + 3 * d.c_stride,
                                   sizeof(float) * static_cast<std::size_t>(rows) *
                                       static_cast<std::size_t>(d.c_stride)))
              << rows << " rows";
        }
      }
    }
  }
}

// Experts: each problem its own size, some without rows; heads: strided pieces of one matrix.
TEST_P(EveryLevel, BatchesOfProblems) {
  const int rows[] = {0, 1, 33, 5, 0, 14, 90, 2, 0};
  std::vector<Data> data;
  std::vector<std::vector<float>> out(std::size(rows));
  std::vector<Gemm> problems;
  for (std::size_t i = 0; i < std::size(rows); ++i) {
    data.emplace_back(
        Case{rows[i], 40 + static_cast<int>(i), 50, false, true, i % 2 == 0, false, i % 3 == 0, 0},
        10 * i);
  }
  ThreadPool pool(2);
  for (const Precision p : {Precision::kF32, Precision::kBF16}) {
    problems.clear();
    for (std::size_t i = 0; i < data.size(); ++i) problems.push_back(data[i].gemm(out[i]));
    gemm(context(&pool), p, problems);
    for (std::size_t i = 0; i < data.size(); ++i) {
      EXPECT_TRUE(same_bits(out[i], data[i].expected(p, fused()))) << data[i].c;
    }
  }
  gemm(context(&pool), Precision::kF32, std::span<const Gemm>());
}

// More problems than are planned at a time: rows by themselves, and by threes, are those of the
// whole.
TEST_P(EveryLevel, ThousandsOfProblems) {
  const int rows = 7500, n = 21, k = 9;
  const Mat<float> a = testing::random_mat<float>(rows, k, 1),
                   b = testing::random_mat<float>(n, k, 2);
  ThreadPool pool(2);
  for (const Precision p : {Precision::kF32, Precision::kBF16}) {
    Mat<float> whole(rows, n);
    gemm(context(&pool), p, linear(a.cview(), b.cview(), whole.view()));
    for (const int piece : {1, 3}) {
      Mat<float> got(rows, n);
      std::vector<Gemm> problems;
      for (int i = 0; i < rows; i += piece) {
        problems.push_back(
            linear(a.cview().sub_rows(i, piece), b.cview(), got.view().sub_rows(i, piece)));
      }
      gemm(context(&pool), p, problems);
      EXPECT_TRUE(std::equal(got.span().begin(), got.span().end(), whole.span().begin())) << piece;
    }
  }
}

// Packed and plain ones side by side, packed in one call into memory that was used before.
TEST_P(EveryLevel, BatchesOfPackedProblems) {
  const int rows[] = {3, 0, 33, 200};
  ThreadPool pool(2);
  std::vector<PackedB> packed(std::size(rows));
  for (const Precision p : {Precision::kBF16, Precision::kF32}) {
    std::vector<Data> data;
    for (std::size_t i = 0; i < std::size(rows); ++i) {
      const int n = 33 + 40 * static_cast<int>(i);
      data.emplace_back(Case{rows[i], n, 77, false, i % 2 == 0, i == 3, false, i == 2, 1}, 10 * i);
    }
    std::vector<PackB> jobs;
    for (std::size_t i = 0; i < data.size(); ++i) {
      jobs.push_back({data[i].b.ref(), data[i].c.trans_b, &packed[i]});
    }
    pack_b(context(&pool), p, jobs);
    std::vector<std::vector<float>> out(2 * data.size());
    std::vector<Gemm> problems;
    for (std::size_t i = 0; i < data.size(); ++i) {
      problems.push_back(data[i].gemm(out[2 * i]));
      problems.push_back(data[i].gemm(out[2 * i + 1]));
      problems.back().b = {};
      problems.back().packed = &packed[i];
    }
    gemm(context(&pool), p, problems);
    for (std::size_t i = 0; i < out.size(); ++i) {
      EXPECT_TRUE(same_bits(out[i], data[i / 2].expected(p, fused()))) << data[i / 2].c;
    }
  }
}

// Whole tiles of every level, so that nothing is padded.
TEST_P(EveryLevel, PackedBytesAreThoseThatTheLevelSays) {
  const Mat<float> b(448, 256);
  PackedB packed;
  const PackB job{b.cview(), true, &packed};
  pack_b(context(), Precision::kBF16, std::span<const PackB>(&job, 1));
  EXPECT_EQ(packed.bytes(), b.size() * (packs_bf16_in_pairs(context()) ? 2 : 4));
}

TEST_P(EveryLevel, WithinTheErrorBoundOfTheExactProduct) {
  const Case c{33, 65, 1000, false, true, false, false, false, 0};
  const Data d(c);
  Mat<double> a(c.m, c.k), b(c.n, c.k), exact(c.m, c.n), size(c.m, c.n);
  for (const Precision p : {Precision::kF32, Precision::kBF16}) {
    for (int i = 0; i < c.m; ++i) {
      for (int k = 0; k < c.k; ++k) a.at(i, k) = d.a.at(i, k, p);
    }
    for (int i = 0; i < c.n; ++i) {
      for (int k = 0; k < c.k; ++k) b.at(i, k) = d.b.at(i, k, p);
    }
    gemm_f64(a.cview(), b.cview(), exact.view(), false, true);
    for (double& x : a.span()) x = std::abs(x);
    for (double& x : b.span()) x = std::abs(x);
    gemm_f64(a.cview(), b.cview(), size.view(), false, true);
    const std::vector<float> got = run(context(), p, d);
    // |error| <= k u / (1 - k u) sum |a b|, u = 2^-24 (Higham); with unfused products k + 1.
    const double ku = (c.k + 1) * 0x1p-24;
    for (int i = 0; i < c.m; ++i) {
      for (int j = 0; j < c.n; ++j) {
        const double error =
            std::abs(static_cast<double>(got[static_cast<std::size_t>(i * d.c_stride + j)]) -
                     exact.at(i, j));
        ASSERT_LE(error, ku / (1 - ku) * size.at(i, j));
      }
    }
  }
}

TEST_P(EveryLevel, InfinityAndNanReachTheirRowAndColumnOnly) {
  const float inf = std::numeric_limits<float>::infinity();
  for (const int m : {4, 20}) {
    Data d(Case{m, 40, 30, false, true, false, false, false, 0});
    d.a.f[static_cast<std::size_t>(2 * d.a.stride + 7)] = inf;
    d.b.f[static_cast<std::size_t>(5 * d.b.stride + 9)] = std::nanf("");
    for (const Precision p : {Precision::kF32, Precision::kBF16}) {
      const std::vector<float> got = run(context(), p, d);
      for (int i = 0; i < m; ++i) {
        for (int j = 0; j < 40; ++j) {
          const float x = got[static_cast<std::size_t>(i * d.c_stride + j)];
          EXPECT_EQ(std::isnan(x), j == 5) << i << " " << j;
          EXPECT_EQ(std::isinf(x), j != 5 && i == 2) << i << " " << j;
        }
      }
    }
  }
}

// Float keeps denormals at every level; bf16 may lose them (vdpbf16ps does), but nothing more.
TEST_P(EveryLevel, TinyNumbers) {
  for (const int m : {3, 17}) {
    const Data d(Case{m, 40, 50, false, true, false, false, false, 0}, 1, Fill::kTiny);
    EXPECT_TRUE(
        same_bits(run(context(), Precision::kF32, d), d.expected(Precision::kF32, fused())));
    const auto got = run(context(), Precision::kBF16, d);
    EXPECT_TRUE(same_bits(run_packed(context(), Precision::kBF16, d), got));
    const auto want = d.expected(Precision::kBF16, fused());
    for (std::size_t i = 0; i < got.size(); ++i) {
      EXPECT_LE(std::abs(got[i] - want[i]), 100 * std::numeric_limits<float>::min());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Gemm, EveryLevel, ::testing::ValuesIn(cpu::tables_on_this_host()),
                         [](const auto& info) { return std::string(info.param->name); });

#if defined(__x86_64__)
// vdpbf16ps and two float FMAs per pair give the same bits, denormals included, so the level may
// use whichever is faster on the machine it meets.
TEST(GemmBf16, BothWaysAgree) {
  const auto levels = cpu::supported_levels();
  if (levels.back() != cpu::Level::kAvx512Bf16) GTEST_SKIP() << "no vdpbf16ps here";
  const Context ctx{&cpu::table(cpu::Level::kAvx512Bf16), nullptr};
  for (const Fill fill : {Fill::kNormal, Fill::kTiny}) {
    for (const int m : {1, 8, 9, 14, 15, 60}) {
      for (const int k : {1, 2, 31, 64, 401, 900}) {
        for (const Case& c : layouts(m, 41, k)) {
          const Data d(c, 3, fill);
          std::vector<float> x;
          std::vector<float> y;
          const Gemm gx = d.gemm(x);
          cpu::avx512bf16::gemm_pairs(ctx, std::span<const Gemm>(&gx, 1));
          const Gemm gy = d.gemm(y);
          cpu::avx512bf16::gemm_floats(ctx, Precision::kBF16, std::span<const Gemm>(&gy, 1));
          ASSERT_TRUE(same_bits(x, y)) << c << (fill == Fill::kTiny ? " tiny" : "");
        }
      }
    }
  }
}
#endif

TEST(GemmShapes, ErrorsNameTheShapes) {
  Mat<float> a(2, 3), b(4, 5), c(2, 4);
  const Context ctx{&kReferenceTable, nullptr};
  try {
    gemm(ctx, Precision::kF32, linear(a.cview(), b.cview(), c.view()));
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kShape);
    EXPECT_STREQ(e.what(), "gemm: a [2, 3] times b [4, 5]^T does not give c [2, 4]");
  }
  Mat<double> wide(4, 3);
  EXPECT_THROW(gemm(ctx, Precision::kF32, linear(a.cview(), wide.cview(), c.view())), Error);
  Gemm g = linear(a.cview(), MatRef(nullptr, DType::kF32, 4, 3, 3), c.view());
  EXPECT_THROW(gemm(ctx, Precision::kF32, g), Error);
}

TEST(GemmShapes, ABf16ResultIsWritten) {
  Mat<float> a(2, 3), b(4, 3), c(2, 4);
  Mat<Bf16> half(2, 4), narrow(2, 3);
  const Context ctx{&kReferenceTable, nullptr};
  Gemm g = linear(a.cview(), b.cview(), c.view());
  g.c_bf16 = half.view();
  gemm(ctx, Precision::kBF16, g);
  g.accumulate = true;
  EXPECT_THROW(gemm(ctx, Precision::kBF16, g), Error);
  g.accumulate = false;
  g.c_bf16 = narrow.view();
  EXPECT_THROW(gemm(ctx, Precision::kBF16, g), Error);
}

TEST(GemmShapes, PackedForAnotherProduct) {
  Mat<float> a(2, 3), b(4, 3), c(2, 4), narrow(2, 5);
  const Context ctx{&kReferenceTable, nullptr};
  PackedB packed;
  const auto message = [&](Precision p, const Gemm& g) {
    try {
      gemm(ctx, p, g);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_EQ(message(Precision::kF32, linear(a.cview(), packed, c.view())),
            "gemm: a [2, 3] times packed b [0, 0] does not give c [2, 4]");
  const PackB job{b.cview(), true, &packed};
  pack_b(ctx, Precision::kF32, std::span<const PackB>(&job, 1));
  EXPECT_EQ(message(Precision::kF32, linear(a.cview(), packed, c.view())), "");
  EXPECT_EQ(message(Precision::kF32, linear(a.cview(), packed, narrow.view())),
            "gemm: a [2, 3] times packed b [3, 4] does not give c [2, 5]");
  EXPECT_EQ(
      message(Precision::kBF16, linear(a.cview(), packed, c.view())),
      "gemm: b was packed by ref for f32 products, but this one is ref's in bf16; pack it with "
      "the same context and precision");
  const PackB nowhere{b.cview(), true, nullptr};
  EXPECT_THROW(pack_b(ctx, Precision::kF32, std::span<const PackB>(&nowhere, 1)), Error);
}

}  // namespace
}  // namespace cachalot
