#include "kernels/latent_attention.h"

#include <gmock/gmock.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "kernels/attention.h"
#include "kernels/cpu/level_test.h"
#include "kernels/latent_blocks.h"
#include "testing/random_mat.h"

namespace cachalot {
namespace {

using testing::random_mat;

struct Shape {
  int queries, rows, heads, latent, rope;
};

struct Case {
  Shape shape;
  Mat<float> q, cache, out;
  Precision precision;
  LatentBlocks blocks;
  float scale;

  Case(Shape s, LatentFormat format, Precision p, std::uint64_t seed = 1, double size = 1)
      : shape(s),
        q(random_mat<float>(s.queries, s.heads * (s.latent + s.rope), seed, size)),
        cache(random_mat<float>(s.rows, s.latent + s.rope, seed + 1)),
        out(s.queries, s.heads * s.latent),
        precision(p),
        blocks(Context{&kReferenceTable}, {format, s.latent, s.rope}, cache.cview()),
        scale(static_cast<float>(1 / std::sqrt(s.latent / 4.0 + s.rope + 1))) {
    load_latent_ref({}, blocks.rows(), 0, cache.view());  // what the format made of it
  }
  LatentAttention problem() {
    return {q.cview(), blocks.rows(), shape.heads, scale, out.view(), precision};
  }
  double operand(float x) const { return precision == Precision::kBF16 ? to_float(to_bf16(x)) : x; }
  double row(int j, int c) const { return operand(cache.at(j, c)); }
};

// Naive softmax in double; bounds as in attention_case_test.h.
void expect_right(const Case& b) {
  constexpr double kU = 0x1p-24;
  const Shape& s = b.shape;
  const int width = s.latent + s.rope;
  int wrong = 0;
  for (int i = 0; i < s.queries; ++i) {
    for (int h = 0; h < s.heads; ++h) {
      const int seen = s.rows - s.queries + 1 + i;
      std::vector<double> p(static_cast<std::size_t>(seen));
      double max = -std::numeric_limits<double>::infinity(), error = 0, total = 0;
      for (int j = 0; j < seen; ++j) {
        double sum = 0, size = 0;
        for (int c = 0; c < width; ++c) {
          const double product = b.operand(b.q.at(i, h * width + c)) * b.row(j, c);
          sum += product;
          size += std::abs(product);
        }
        p[static_cast<std::size_t>(j)] = double{b.scale} * sum;
        max = std::max(max, double{b.scale} * sum);
        error = std::max(error, (width + 6) * kU * double{b.scale} * size);
      }
      for (double& x : p) total += x = std::exp(x - max);
      const double relative = 2 * error + (seen + 16 + 3.0 * (std::floor(seen / 64.0) + 1)) * kU;
      const double step = b.precision == Precision::kBF16 ? 0x1p-8 : 0;
      for (int c = 0; c < s.latent; ++c) {
        double sum = 0, size = 0;
        for (int j = 0; j < seen; ++j) {
          sum += p[static_cast<std::size_t>(j)] / total * b.row(j, c);
          size += p[static_cast<std::size_t>(j)] / total * std::abs(b.row(j, c));
        }
        const double bound =
            (2 * relative + step) * size + seen * 0x1p-125 + 0x1p-23 * std::abs(sum);
        const float got = b.out.at(i, h * s.latent + c);
        if (std::abs(got - sum) <= bound || ++wrong > 3) continue;
        ADD_FAILURE() << "query " << i << " head " << h << " column " << c << " is " << got
                      << " but has to be " << sum << " +- " << bound;
      }
    }
  }
  EXPECT_EQ(wrong, 0);
}

bool same_bits(const Mat<float>& a, const Mat<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

template <class Body>
void for_each_kind(Body&& body) {
  for (const Precision precision : {Precision::kF32, Precision::kBF16}) {
    for (const LatentFormat format :
         {LatentFormat::kF32, LatentFormat::kBF16, LatentFormat::kFp8}) {
      SCOPED_TRACE(
          cat(precision == Precision::kBF16 ? "bf16" : "f32", " products, cache ", name(format)));
      body(precision, format);
    }
  }
}

class LatentAttentionTest : public testing::LevelTest {};
CACHALOT_EVERY_LEVEL(LatentAttentionTest);

// Tails of every block: rows of the cache around 64 and the context chunk, one head and more than a
// group of rows, latent and rope widths that fill no vector.
TEST_P(LatentAttentionTest, AgreesWithNaiveSoftmax) {
  for_each_kind([&](Precision precision, LatentFormat format) {
    for (const Shape& s : std::vector<Shape>{{1, 1, 1, 1, 0},
                                             {1, 2, 1, 3, 2},
                                             {2, 63, 3, 16, 8},
                                             {3, 64, 2, 31, 5},
                                             {1, 65, 16, 32, 16},
                                             {5, 130, 29, 48, 7},
                                             {70, 70, 2, 16, 4},
                                             {2, 1025, 2, 32, 8},
                                             {1, 2100, 1, 512, 64}}) {
      SCOPED_TRACE(
          cat("T=", s.queries, " S=", s.rows, " H=", s.heads, " L=", s.latent, " R=", s.rope));
      Case b(s, format, precision);
      const LatentAttention problem = b.problem();
      latent_attention(context(), {&problem, 1});
      expect_right(b);
    }
  });
}

TEST_P(LatentAttentionTest, LargeScoresStayFinite) {
  Case b({2, 100, 3, 32, 8}, LatentFormat::kF32, Precision::kF32, 3, /*size=*/1000);
  const LatentAttention problem = b.problem();
  latent_attention(context(), {&problem, 1});
  expect_right(b);
}

TEST_P(LatentAttentionTest, NeitherThreadsNorOtherProblemsChangeBits) {
  for_each_kind([&](Precision precision, LatentFormat format) {
    const std::vector<Shape> shapes{{1, 3000, 3, 40, 8}, {2, 50, 3, 40, 8}, {4, 1500, 3, 40, 8}};
    std::vector<Mat<float>> alone;
    for (const Shape& s : shapes) {
      Case b(s, format, precision);
      const LatentAttention problem = b.problem();
      latent_attention(context(), {&problem, 1});
      alone.push_back(std::move(b.out));
    }
    with_threads([&](const Context& ctx, int threads) {
      std::vector<Case> batch;
      for (const Shape& s : shapes) batch.emplace_back(s, format, precision);
      std::vector<LatentAttention> problems;
      for (Case& b : batch) problems.push_back(b.problem());
      latent_attention(ctx, problems);
      for (std::size_t i = 0; i < batch.size(); ++i) {
        EXPECT_TRUE(same_bits(batch[i].out, alone[i])) << threads << " threads, problem " << i;
      }
    });
  });
}

// A drafted token is verified in a batch of several queries: each has to get the bits it would get
// alone, with the rows after it not there.
TEST_P(LatentAttentionTest, SeveralQueriesGiveTheBitsOfOneAtATime) {
  for_each_kind([&](Precision precision, LatentFormat format) {
    Case together({5, 1027, 30, 40, 8}, format, precision);
    const LatentAttention problem = together.problem();
    latent_attention(context(), {&problem, 1});
    Case single({5, 1027, 30, 40, 8}, format, precision);
    for (int i = 0; i < 5; ++i) {
      LatentAttention one = single.problem();
      one.q = one.q.sub_rows(i, 1);
      one.out = one.out.sub_rows(i, 1);
      one.cache = one.cache.first(1027 - 5 + 1 + i);
      latent_attention(context(), {&one, 1});
    }
    EXPECT_TRUE(same_bits(single.out, together.out));
  });
}

// q_nope carried through W_uk into the latent space, and the result through W_uv, is what expanded
// keys and values give.
TEST_P(LatentAttentionTest, AbsorbedEqualsExpanded) {
  constexpr int kRows = 90, kQueries = 4, kHeads = 3, kNope = 10, kRope = 6, kValue = 12,
                kLatent = 40;
  const auto c = random_mat<float>(kRows, kLatent, 1), k_rope = random_mat<float>(kRows, kRope, 2);
  const auto w = random_mat<float>(kHeads * (kNope + kValue), kLatent, 3, 1 / std::sqrt(40.0));
  const auto q = random_mat<float>(kQueries, kHeads * (kNope + kRope), 4);
  Mat<float> kv(kRows, kHeads * (kNope + kValue)), expanded(kQueries, kHeads * kValue);
  const auto dot = [](const float* a, const float* b, int n) {
    double sum = 0;
    for (int i = 0; i < n; ++i) sum += double{a[i]} * double{b[i]};
    return static_cast<float>(sum);
  };
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kv.cols(); ++j) kv.at(i, j) = dot(c.row(i), w.row(j), kLatent);
  }
  const AttentionSpan span{0, kQueries, 0, kRows};
  attention(context(), {q.cview(),
                        kv.cview(),
                        k_rope.cview(),
                        {&span, 1},
                        {kHeads, kNope, kRope, kValue},
                        0.25f,
                        Precision::kF32,
                        expanded.view(),
                        {}});

  Mat<float> absorbed(kQueries, kHeads * (kLatent + kRope)), cache(kRows, kLatent + kRope);
  for (int i = 0; i < kRows; ++i) {
    std::copy_n(c.row(i), kLatent, cache.row(i));
    std::copy_n(k_rope.row(i), kRope, cache.row(i) + kLatent);
  }
  for (int i = 0; i < kQueries; ++i) {
    for (int h = 0; h < kHeads; ++h) {
      const float* head = q.row(i) + h * (kNope + kRope);
      float* to = absorbed.row(i) + h * (kLatent + kRope);
      for (int l = 0; l < kLatent; ++l) {
        double sum = 0;
        for (int n = 0; n < kNope; ++n)
          sum += double{head[n]} * double{w.at(h * (kNope + kValue) + n, l)};
        to[l] = static_cast<float>(sum);
      }
      std::copy_n(head + kNope, kRope, to + kLatent);
    }
  }
  Mat<float> latent(kQueries, kHeads * kLatent);
  const LatentBlocks blocks(context(), {LatentFormat::kF32, kLatent, kRope}, cache.cview());
  const LatentAttention problem{absorbed.cview(), blocks.rows(), kHeads, 0.25f, latent.view()};
  latent_attention(context(), {&problem, 1});
  for (int i = 0; i < kQueries; ++i) {
    for (int h = 0; h < kHeads; ++h) {
      for (int v = 0; v < kValue; ++v) {
        const float got =
            dot(latent.row(i) + h * kLatent, w.row(h * (kNope + kValue) + kNope + v), kLatent);
        EXPECT_NEAR(got, expanded.at(i, h * kValue + v), 1e-5);
      }
    }
  }
}

TEST_P(LatentAttentionTest, NothingIsNoWork) {
  latent_attention(context(), {});
  Case b({0, 5, 2, 8, 4}, LatentFormat::kF32, Precision::kF32);
  const LatentAttention problem = b.problem();
  latent_attention(context(), {&problem, 1});
}

TEST_P(LatentAttentionTest, WrongShapesAreNamed) {
  Case b({2, 5, 2, 8, 4}, LatentFormat::kF32, Precision::kF32);
  const auto error = [&](auto&& change) -> std::string {
    LatentAttention a = b.problem();
    change(a);
    try {
      latent_attention(context(), {&a, 1});
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kShape);
      return e.what();
    }
    return "";
  };
  using ::testing::HasSubstr;
  EXPECT_THAT(error([](auto& a) { a.cache.layout.latent = 7; }),
              HasSubstr("2 heads over cache rows of 7 latent + 4 rope values need 22"));
  EXPECT_THAT(error([](auto& a) { a.cache.rows = 1; }), HasSubstr("append it first"));
  EXPECT_THAT(error([](auto& a) { a.cache.rows = 65; }), HasSubstr("need 2 blocks of 64"));
  EXPECT_THAT(error([](auto& a) { a.scale = -1; }), HasSubstr("scale is -1"));
  EXPECT_THAT(error([](auto& a) { a.heads = 3; }), HasSubstr("a query has 24 values"));
}

}  // namespace
}  // namespace cachalot
