// The gate at every level against the reference, at every number of experts, with any threads.
#include <gmock/gmock.h>

#include "kernels/cpu/level_test.h"
#include "kernels/route.h"
#include "testing/random_mat.h"

namespace cachalot {
namespace {

using testing::convert;
using testing::kUnit;
using testing::random_mat;
class RouteLevels : public testing::LevelTest {};
CACHALOT_EVERY_LEVEL(RouteLevels);

std::vector<RouteConfig> configs() {
  std::vector<RouteConfig> all;
  const auto both = [&](int experts, int topk, int groups, int kept) {
    all.push_back(
        {experts, topk, groups, kept, Scoring::kSigmoid, TopkMethod::kNoauxTc, true, 2.5});
    all.push_back({experts, topk, groups, kept, Scoring::kSoftmax, TopkMethod::kGroupLimitedGreedy,
                   false, 16});
  };
  for (int experts = 1; experts <= 34; ++experts) both(experts, 1 + experts / 3, 1, 1);
  for (const int size : {1, 2, 3, 7, 8, 15, 16, 17, 33}) both(4 * size, 1 + size, 4, 2);
  both(256, 8, 8, 4);
  both(384, 8, 1, 1);
  return all;
}

TEST_P(RouteLevels, EveryNumberOfExperts) {
  for (const RouteConfig& c : configs()) {
    SCOPED_TRACE(std::to_string(c.experts) + " experts in " + std::to_string(c.groups));
    const int rows = 9;
    Mat<float> logits = random_mat<float>(rows, c.experts, 1, 3);
    // Coarse values tie often: the choice among equals has to be the reference's.
    for (int e = 0; e < c.experts; ++e) logits.at(0, e) = std::round(logits.at(0, e));
    std::fill_n(logits.row(1), c.experts, 0.5f);
    auto bias = testing::random_vec<float>(static_cast<std::size_t>(c.experts), 2, 0.3);
    for (const bool biased : {false, true}) {
      const std::span<const float> b =
          biased ? std::span<const float>(bias) : std::span<const float>();
      Mat<float> scores(rows, c.experts), weight(rows, c.topk);
      Mat<std::int32_t> index(rows, c.topk);
      ops().route(context(),
                  Route<float>{c, logits.cview(), b, scores.view(), index.view(), weight.view()});

      Mat<double> want(rows, c.experts), want_weight(rows, c.topk);
      Mat<std::int32_t> ignored(rows, c.topk);
      const Mat<double> wide = convert<double>(logits);
      route_ref(Context{},
                Route<double>{c, wide.cview(), b, want.view(), ignored.view(), want_weight.view()});
      // Softmax: x - top rounds (|d| < 64 here), exp, a sum, a factor; the sigmoid is better.
      testing::expect_within(scores.span(), want.span(), want.span(),
                             2 * testing::kExpError + (64 + 4) * kUnit, "scores");
      // The choice and the weights follow exactly from the scores as they were stored.
      const RouteWeightRule rule = route_weight_rule(c);
      for (int t = 0; t < rows; ++t) {
        std::vector<float> selection(scores.row(t), scores.row(t) + c.experts);
        for (std::size_t e = 0; biased && e < selection.size(); ++e) selection[e] += bias[e];
        std::vector<std::int32_t> chosen(static_cast<std::size_t>(c.topk));
        select_experts_ref<float>(c, selection, chosen.data());
        double sum = kRouteWeightEps;
        for (int j = 0; j < c.topk; ++j) {
          ASSERT_EQ(index.at(t, j), chosen[static_cast<std::size_t>(j)]) << t << ", " << j;
          sum += double{scores.at(t, index.at(t, j))};
        }
        for (int j = 0; j < c.topk; ++j) {
          const double s = double{scores.at(t, index.at(t, j))} * rule.scale;
          EXPECT_NEAR(weight.at(t, j), rule.normalise ? s / sum : s, 2 * kUnit * rule.scale);
        }
      }
    }
  }
}

TEST_P(RouteLevels, InfiniteAndEqualSelectionsAreTheReferences) {
  const RouteConfig c{12, 4, 3, 2, Scoring::kSigmoid, TopkMethod::kNoauxTc, true, 1};
  const float inf = std::numeric_limits<float>::infinity();
  Mat<float> logits(1, 12);
  for (const std::vector<float>& bias :
       {std::vector<float>(12, -inf),
        std::vector<float>{-inf, -inf, -inf, 0, 0, 0, -inf, -inf, 1, -inf, -inf, -inf}}) {
    Mat<float> scores(1, 12), weight(1, 4);
    Mat<std::int32_t> index(1, 4), want(1, 4);
    ops().route(context(),
                Route<float>{c, logits.cview(), bias, scores.view(), index.view(), weight.view()});
    route_ref(Context{},
              Route<float>{c, logits.cview(), bias, scores.view(), want.view(), weight.view()});
    EXPECT_THAT(index.span(), ::testing::ElementsAreArray(want.span()));
  }
}

TEST_P(RouteLevels, Backward) {
  for (RouteConfig c : configs()) {
    for (const bool normalise : {false, true}) {
      c.norm_topk_prob = normalise;
      const int rows = 5;
      const Mat<float> logits = random_mat<float>(rows, c.experts, 1);
      Mat<float> scores(rows, c.experts), weight(rows, c.topk), got(rows, c.experts);
      Mat<std::int32_t> index(rows, c.topk);
      route_ref(Context{},
                Route<float>{c, logits.cview(), {}, scores.view(), index.view(), weight.view()});
      const Mat<float> dweight = random_mat<float>(rows, c.topk, 2),
                       dscores = random_mat<float>(rows, c.experts, 3);
      for (const bool more : {false, true}) {
        ops().route_backward(
            context(),
            RouteBackward<float>{c, scores.cview(), index.cview(), dweight.cview(),
                                 more ? dscores.cview() : MatView<const float>{}, got.view()});
        const Mat<double> s = convert<double>(scores), dw = convert<double>(dweight),
                          ds = convert<double>(dscores);
        Mat<double> want(rows, c.experts);
        route_backward_ref(
            Context{},
            RouteBackward<double>{c, s.cview(), index.cview(), dw.cview(),
                                  more ? ds.cview() : MatView<const double>{}, want.view()});
        // Largest |dscore| of the row bounds every term; a sum of E terms under the softmax.
        Mat<double> size(rows, c.experts);
        for (int t = 0; t < rows; ++t) {
          double sum = 0, largest = 0;
          for (int j = 0; j < c.topk; ++j) {
            sum += s.at(t, index.at(t, j));
            largest = std::max(largest, std::abs(dw.at(t, j)));
          }
          double bound =
              2 * largest * route_weight_rule(c).scale / (route_weight_rule(c).normalise ? sum : 1);
          for (int e = 0; more && e < c.experts; ++e)
            bound = std::max(bound, std::abs(ds.at(t, e)) + bound);
          for (int e = 0; e < c.experts; ++e) size.at(t, e) = 2 * bound * s.at(t, e);
        }
        testing::expect_within(got.span(), want.span(), size.span(), (c.experts + 6) * kUnit,
                               std::to_string(c.experts) + " experts");
      }
    }
  }
}

TEST_P(RouteLevels, BalanceLossAtEveryTail) {
  for (const int experts : {1, 2, 7, 8, 15, 16, 17, 33, 64, 257}) {
    const int rows = 6, sequences = 2, topk = std::min(experts, 3);
    Mat<float> scores = random_mat<float>(rows, experts, 1);
    for (float& x : scores.span()) x = 1 / (1 + std::exp(-x));
    const Mat<double> wide = convert<double>(scores);
    Mat<float> got(rows, experts);
    Mat<double> want(rows, experts), size(rows, experts);
    const double loss = ops().balance_loss(
        context(), BalanceLoss<float>{scores.cview(), sequences, topk, 0.7f, got.view()});
    const double right = balance_loss_ref(
        Context{}, BalanceLoss<double>{wide.cview(), sequences, topk, double{0.7f}, want.view()});
    EXPECT_NEAR(loss, right, 2 * (rows + experts + 8) * 0x1p-53 * right) << experts;
    // (f_e - sum f s / sum s) / sum s: both terms at most the largest f = E / k.
    for (int t = 0; t < rows; ++t) {
      double sum = 0;
      for (int e = 0; e < experts; ++e) sum += wide.at(t, e);
      for (int e = 0; e < experts; ++e) {
        size.at(t, e) = 0.7 * 2 * experts / topk / sum / rows;  // per sequence: / rows * sequences
      }
    }
    testing::expect_within(got.span(), want.span(), size.span(), 6 * kUnit,
                           std::to_string(experts) + " experts");
    EXPECT_EQ(loss, ops().balance_loss(context(),
                                       BalanceLoss<float>{scores.cview(), sequences, topk, 0, {}}));
  }
}

TEST_P(RouteLevels, ThreadsDoNotMatter) {
  const RouteConfig c{64, 6, 8, 3, Scoring::kSigmoid, TopkMethod::kNoauxTc, true, 2.5};
  const Mat<float> logits = random_mat<float>(100, 64, 1), dweight = random_mat<float>(100, 6, 2);
  Mat<float> first;
  double loss1 = 0;
  with_threads([&](const Context& ctx, int threads) {
    Mat<float> scores(100, 64), weight(100, 6), dscores(100, 64), dlogits(100, 64);
    Mat<std::int32_t> index(100, 6);
    route(ctx, Route<float>{c, logits.cview(), {}, scores.view(), index.view(), weight.view()});
    const double loss =
        balance_loss(ctx, BalanceLoss<float>{scores.cview(), 4, 6, 0.5f, dscores.view()});
    route_backward(ctx, RouteBackward<float>{c, scores.cview(), index.cview(), dweight.cview(),
                                             dscores.cview(), dlogits.view()});
    if (threads == 1) first = dlogits.clone(), loss1 = loss;
    EXPECT_TRUE(std::equal(dlogits.span().begin(), dlogits.span().end(), first.data())) << threads;
    EXPECT_EQ(loss, loss1) << threads;
  });
}

}  // namespace
}  // namespace cachalot
