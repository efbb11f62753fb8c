#include "kernels/route.h"

#include "kernels/cuda/memory_case_test.h"

namespace cachalot::cuda::testing {
namespace {

using CudaRouteTest = MemoryTest;
using CudaRouteBench = MemoryTest;

struct Case {
  const char* name;
  RouteConfig config;
  bool bias;
};
constexpr Scoring kSig = Scoring::kSigmoid, kSoft = Scoring::kSoftmax;
constexpr TopkMethod kNoaux = TopkMethod::kNoauxTc, kGreedy = TopkMethod::kGreedy,
                     kLimited = TopkMethod::kGroupLimitedGreedy;
const Case kCases[] = {
    {"V3", {256, 8, 8, 4, kSig, kNoaux, true, 2.5}, true},
    {"V2", {160, 6, 8, 3, kSoft, kLimited, false, 16}, false},
    {"V2 lite", {64, 6, 1, 1, kSoft, kGreedy, false, 1}, false},
    {"64 of 8", {64, 8, 1, 1, kSig, kNoaux, true, 2.5}, true},
    {"groups of one", {12, 3, 12, 4, kSig, kNoaux, true, 1}, true},
    {"normalised softmax", {33, 4, 3, 2, kSoft, kLimited, true, 3}, false},
    {"one", {1, 1, 1, 1, kSoft, kGreedy, true, 1}, false},
    {"all", {5, 5, 1, 1, kSig, kNoaux, true, 1}, true},
    {"many groups", {320, 9, 40, 7, kSig, kNoaux, false, 1.5}, true},
    {"thousands", {5000, 70, 1, 1, kSig, kNoaux, true, 1}, true},
};

// Rows 0 mod 3 are random, 1 mod 3 have many exact ties, 2 mod 3 are all equal.
Mat<float> logits_of(int rows, int experts) {
  Mat<float> m = random_mat(rows, experts, 1, 2);
  for (int t = 0; t < rows; ++t) {
    for (int e = 0; e < experts && t % 3 != 0; ++e) {
      m.at(t, e) = t % 3 == 1 ? std::round(m.at(t, e)) : 0.25F;
    }
  }
  return m;
}

TEST_F(CudaRouteTest, ChoiceAndWeightsAreTheReferences) {
  for (const Case& c : kCases) {
    for (const Layout l : kLayouts) {
      const int rows = c.config.experts > 1000 ? 9 : 303;
      const std::string what = cat("route ", c.name, ", ", text(l));
      auto logits = twin(logits_of(rows, c.config.experts), l);
      Mat<float> b = random_mat(1, c.config.experts, 2);
      for (std::size_t e = 0; e < b.size(); ++e) b.data()[e] = std::round(b.data()[e] * 2) / 8;
      auto bias = twin(b, l);
      auto scores = twin<float>(rows, c.config.experts, l);
      auto index = twin<std::int32_t>(rows, c.config.topk, l);
      auto weight = twin<float>(rows, c.config.topk, l);
      Route<float> want{c.config, logits.h(), {}, scores.h(), index.h(), weight.h()};
      Route<float> got{c.config, logits.d(), {}, scores.d(), index.d(), weight.d()};
      if (c.bias) want.bias = bias.hs(), got.bias = bias.ds();
      route_ref(host, want);
      cuda::route(ctx, got);
      expect_same(what + " scores", scores, 0x1p-23, 1e-45);
      expect_same(what + " index", index);
      expect_same(what + " weight", weight, 4e-7);
    }
  }
}

TEST_F(CudaRouteTest, NotANumberChoosesSomething) {
  const RouteConfig c{64, 8, 8, 4, kSig, kNoaux, true, 1};
  Mat<float> bad(2, 64);
  std::fill_n(bad.data(), 64, NAN);
  bad.at(1, 5) = NAN;
  const auto logits = up(bad);
  auto scores = room<float>(2, 64), weight = room<float>(2, 8);
  auto index = room<std::int32_t>(2, 8);
  cuda::route(ctx, {c, logits.view(), {}, scores.view(), index.view(), weight.view()});
  const auto got = down(index);
  for (int t = 0; t < 2; ++t) {
    std::uint64_t seen = 0;
    for (int j = 0; j < 8; ++j) {
      ASSERT_GE(got.at(t, j), 0) << t << " " << j;
      ASSERT_LT(got.at(t, j), 64) << t << " " << j;
      EXPECT_EQ(seen >> got.at(t, j) & 1, 0U) << t << " " << j;
      seen |= std::uint64_t{1} << got.at(t, j);
    }
  }
}

TEST_F(CudaRouteTest, BackwardIsTheReference) {
  for (const Case& c : kCases) {
    for (const Layout l : kLayouts) {
      for (const bool further : {false, true}) {
        const int rows = c.config.experts > 1000 ? 9 : 101;
        auto logits = twin(random_mat(rows, c.config.experts, 1, 2));
        auto scores = twin<float>(rows, c.config.experts, l);
        auto index = twin<std::int32_t>(rows, c.config.topk, l);
        auto weight = twin<float>(rows, c.config.topk);
        route_ref(host, Route<float>{c.config, logits.h(), {}, scores.h(), index.h(), weight.h()});
        scores.device = up(scores.host);
        index.device = up(index.host);
        auto dweight = twin(random_mat(rows, c.config.topk, 3), l);
        auto dscores = twin(random_mat(rows, c.config.experts, 4), l);
        auto dlogits = twin<float>(rows, c.config.experts, l);
        RouteBackward<float> want{c.config, scores.h(), index.h(), dweight.h(), {}, dlogits.h()};
        RouteBackward<float> got{c.config, scores.d(), index.d(), dweight.d(), {}, dlogits.d()};
        if (further) want.dscores = dscores.h(), got.dscores = dscores.d();
        route_backward_ref(host, want);
        cuda::route_backward(ctx, got);
        expect_same(cat("route_backward ", c.name, ", ", text(l)), dlogits, 1e-6, 1e-12);
      }
    }
  }
}

TEST_F(CudaRouteTest, BalanceLossIsTheReference) {
  struct Shape {
    int sequences, rows, experts, topk;
  };
  for (const Shape s : {Shape{1, 1, 1, 1}, Shape{3, 65, 64, 6}, Shape{1, 1000, 256, 8},
                        Shape{7, 64, 33, 4}, Shape{2, 10, 3000, 5}}) {
    for (const Layout l : kLayouts) {
      Mat<float> positive = random_mat(s.sequences * s.rows, s.experts, 1);
      for (std::size_t i = 0; i < positive.size(); ++i) {
        positive.data()[i] = std::abs(std::round(positive.data()[i] * 64) / 64) + 0.01F;
      }
      auto scores = twin(positive, l);
      auto dscores = twin<float>(s.sequences * s.rows, s.experts, l);
      const double want = balance_loss_ref(
          host, BalanceLoss<float>{scores.h(), s.sequences, s.topk, 0.3F, dscores.h()});
      const double got =
          cuda::balance_loss(ctx, {scores.d(), s.sequences, s.topk, 0.3F, dscores.d()});
      const std::string what = cat("balance_loss of ", s.experts, ", ", text(l));
      EXPECT_NEAR(got, want, 1e-12 * want) << what;
      expect_same(what, dscores, 1e-6, 1e-15);
      EXPECT_EQ(got, cuda::balance_loss(ctx, {scores.d(), s.sequences, s.topk, 0.3F, {}})) << what;
    }
  }
}

TEST_F(CudaRouteBench, TrainingShapes) {
  for (const int c : {0, 3}) {
    const RouteConfig& config = kCases[c].config;
    const int rows = 32768, experts = config.experts;
    const auto logits = device_random(rows, experts), bias = device_random(1, experts, 0.1F);
    auto scores = device_room<float>(rows, experts), dlogits = device_room<float>(rows, experts);
    auto weight = device_random(rows, config.topk);
    auto index = device_room<std::int32_t>(rows, config.topk);
    const double row = 4.0 * rows * experts, choices = 8.0 * rows * config.topk;
    const std::string shape = cat(" [", rows, ", ", experts, "] top ", config.topk);
    bench("route" + shape, 2 * row + choices, [&] {
      cuda::route(ctx,
                  {config, logits.view(), bias.span(), scores.view(), index.view(), weight.view()});
    });
    bench("route_backward" + shape, 2 * row + choices, [&] {
      cuda::route_backward(
          ctx, {config, scores.view(), index.view(), weight.view(), {}, dlogits.view()});
    });
    bench("balance_loss" + shape, 3 * row, [&] {
      cuda::balance_loss(ctx, {scores.view(), 8, config.topk, 1e-4F, dlogits.view()});
    });
  }
}

}  // namespace
}  // namespace cachalot::cuda::testing
