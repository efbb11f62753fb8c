#include "kernels/route.h"

#include <gmock/gmock.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/cpu/level_test.h"
#include "testing/finite_difference.h"
#include "testing/random_mat.h"

namespace cachalot {
namespace {

using ::testing::ElementsAre;
using testing::random_mat;

RouteConfig v3(int experts, int topk, int groups = 1, int topk_groups = 1) {
  return {experts, topk, groups, topk_groups, Scoring::kSigmoid, TopkMethod::kNoauxTc, true, 2.5};
}
RouteConfig v2(int experts, int topk, int groups = 1, int topk_groups = 1) {
  const auto method = groups > 1 ? TopkMethod::kGroupLimitedGreedy : TopkMethod::kGreedy;
  return {experts, topk, groups, topk_groups, Scoring::kSoftmax, method, false, 16};
}

template <class T>
struct Routed {
  Mat<T> scores, weight;
  Mat<std::int32_t> index;
  explicit Routed(const RouteConfig& c, int rows)
      : scores(rows, c.experts), weight(rows, c.topk), index(rows, c.topk) {}
  Route<T> args(const RouteConfig& c, MatView<const T> logits, std::span<const float> bias = {}) {
    return {c, logits, bias, scores.view(), index.view(), weight.view()};
  }
};

class RouteTest : public testing::LevelTest {
 protected:
  Routed<float> run(const RouteConfig& c, const std::vector<float>& logits,
                    std::span<const float> bias = {}) const {
    const int rows = static_cast<int>(logits.size()) / c.experts;
    Routed<float> out(c, rows);
    route(context(), out.args(c, {logits.data(), rows, c.experts, c.experts}, bias));
    return out;
  }
};
CACHALOT_EVERY_LEVEL(RouteTest);

float logit(double p) { return static_cast<float>(std::log(p / (1 - p))); }

TEST_P(RouteTest, SigmoidWeightsAreNormalisedThenScaled) {
  const auto out = run(v3(4, 2), {logit(0.2), logit(0.6), logit(0.1), logit(0.3)});
  EXPECT_THAT(out.index.span(), ElementsAre(1, 3));
  EXPECT_NEAR(out.scores.at(0, 2), 0.1, 1e-6);
  EXPECT_NEAR(out.weight.at(0, 0), 2.5 * 0.6 / 0.9, 1e-5);
  EXPECT_NEAR(out.weight.at(0, 1), 2.5 * 0.3 / 0.9, 1e-5);
  RouteConfig plain = v3(4, 2);
  plain.norm_topk_prob = false;
  const auto raw = run(plain, {logit(0.2), logit(0.6), logit(0.1), logit(0.3)});
  EXPECT_NEAR(raw.weight.at(0, 0), 2.5 * 0.6, 1e-5);
}

TEST_P(RouteTest, TheBiasChoosesButDoesNotWeigh) {
  const std::vector<float> bias{0, 0, 0.8f, -0.5f};
  const auto out = run(v3(4, 2), {logit(0.2), logit(0.6), logit(0.1), logit(0.7)}, bias);
  EXPECT_THAT(out.index.span(), ElementsAre(2, 1));  // 0.9, 0.6, not 0.7 - 0.5
  EXPECT_NEAR(out.weight.at(0, 0), 2.5 * 0.1 / 0.7, 1e-5);
}

TEST_P(RouteTest, AGroupIsWorthItsTwoBest) {
  // Best single expert in group 0, best pair in group 1.
  const std::vector<float> logits{logit(0.9), logit(0.1), logit(0.05),
                                  logit(0.6), logit(0.7), logit(0.02)};
  EXPECT_THAT(run(v3(6, 2, 2, 1), logits).index.span(), ElementsAre(4, 3));
  // V2 takes the best single one.
  EXPECT_THAT(run(v2(6, 2, 2, 1), logits).index.span(), ElementsAre(0, 1));
  // A group of one expert is worth that expert.
  EXPECT_THAT(run(v3(3, 1, 3, 1), {0.0f, 2.0f, 1.0f}).index.span(), ElementsAre(1));
}

TEST_P(RouteTest, MaskedGroupsAreMinusInfinitySoNegativeScoresSurvive) {
  // Every selection score is negative; with 0 for masked experts the masked ones would win.
  const std::vector<float> bias{-5, -5, -5, -5, -2, -2.5f, -3, -4};
  const std::vector<float> logits(8, 0.0f);
  const auto out = run(v3(8, 3, 2, 1), logits, bias);
  EXPECT_THAT(out.index.span(), ElementsAre(4, 5, 6));
  const std::vector<float> other{-2, -2.5f, -3, -4, -5, -5, -5, -5};
  EXPECT_THAT(run(v3(8, 3, 2, 1), logits, other).index.span(), ElementsAre(0, 1, 2));
}

TEST_P(RouteTest, TiesTakeTheLowerIndex) {
  for (const int experts : {4, 16, 20, 64}) {
    std::vector<std::int32_t> first(static_cast<std::size_t>(4));
    std::iota(first.begin(), first.end(), 0);
    const std::vector<float> equal(static_cast<std::size_t>(experts), 0.25f);
    EXPECT_THAT(run(v3(experts, 4), equal).index.span(), ::testing::ElementsAreArray(first));
    EXPECT_THAT(run(v3(experts, 4, 4, 4), equal).index.span(), ::testing::ElementsAreArray(first));
    EXPECT_THAT(run(v2(experts, 4), equal).index.span(), ::testing::ElementsAreArray(first));
    // Among equal groups the lower ones are kept.
    EXPECT_EQ(run(v3(experts, 1, 4, 2), equal).index.at(0, 0), 0);
  }
}

TEST_P(RouteTest, SoftmaxWeightsAreScaledOrNormalisedNotBoth) {
  const std::vector<float> logits{std::log(0.1f), std::log(0.2f), std::log(0.3f), std::log(0.4f)};
  const auto scaled = run(v2(4, 2), logits);
  EXPECT_THAT(scaled.index.span(), ElementsAre(3, 2));
  EXPECT_NEAR(scaled.weight.at(0, 0), 16 * 0.4, 1e-5);
  RouteConfig c = v2(4, 2);
  c.norm_topk_prob = true;
  EXPECT_NEAR(run(c, logits).weight.at(0, 0), 0.4 / 0.7, 1e-6);
  c.topk = 1;  // one expert is never normalised: its weight would always be 1
  EXPECT_NEAR(run(c, logits).weight.at(0, 0), 16 * 0.4, 1e-5);
}

TEST_P(RouteTest, GreedyIgnoresGroups) {
  RouteConfig c = v2(6, 2);
  c.groups = 2, c.topk_groups = 1;
  EXPECT_THAT(run(c, {5, 0, 0, 4, 0, 0}).index.span(), ElementsAre(0, 3));
}

TEST_P(RouteTest, ExtremeLogitsStayFinite) {
  const auto sigmoid = run(v3(3, 2), {-200, 200, -80});
  EXPECT_THAT(sigmoid.index.span(), ElementsAre(1, 2));
  EXPECT_EQ(sigmoid.scores.at(0, 1), 1.0f);
  EXPECT_NEAR(sigmoid.weight.at(0, 0), 2.5, 1e-6);
  const auto softmax = run(v2(3, 1), {-1e30f, 1e30f, 0});
  EXPECT_EQ(softmax.scores.at(0, 1), 1.0f);
  EXPECT_EQ(softmax.scores.at(0, 0), 0.0f);
}

TEST_P(RouteTest, NanLogitsStillGiveDistinctExperts) {
  const std::vector<float> logits(21, std::numeric_limits<float>::quiet_NaN());
  for (const auto& c : {v3(21, 5, 3, 2), v2(21, 5)}) {
    const auto out = run(c, logits);
    std::vector<std::int32_t> chosen(out.index.span().begin(), out.index.span().end());
    std::sort(chosen.begin(), chosen.end());
    EXPECT_EQ(std::unique(chosen.begin(), chosen.end()), chosen.end());
    EXPECT_GE(chosen.front(), 0);
    EXPECT_LT(chosen.back(), 21);
  }
}

TEST_P(RouteTest, ImpossibleConfigsAreRefused) {
  const std::vector<float> row(8);
  EXPECT_THROW(run(v3(8, 9), row), Error);
  EXPECT_THROW(run(v3(8, 0), row), Error);
  EXPECT_THROW(run(v3(8, 2, 3, 1), row), Error);
  EXPECT_THROW(run(v3(8, 2, 4, 5), row), Error);
  EXPECT_THROW(run(v3(8, 3, 4, 1), row), Error) << "one group of two experts cannot give three";
}

TEST_P(RouteTest, NoTokensIsNoWork) {
  Routed<float> out(v3(8, 2), 0);
  Mat<float> none(0, 8), dw(0, 2);
  route(context(), out.args(v3(8, 2), none.cview()));
  route_backward(
      context(),
      RouteBackward<float>{v3(8, 2), none.cview(), out.index.cview(), dw.cview(), {}, none.view()});
  EXPECT_EQ(balance_loss(context(), BalanceLoss<float>{none.cview(), 1, 2, 1, {}}), 0.0);
}

TEST(RouteGradientTest, FiniteDifferences) {
  const Context ctx;
  for (int variant = 0; variant < 4; ++variant) {
    RouteConfig c = variant < 2 ? v3(9, 3, 3, 2) : v2(9, 3, 3, 2);
    c.norm_topk_prob = variant % 2 == 0;
    constexpr int kRows = 3;
    Mat<double> logits = random_mat<double>(kRows, 9, 11);
    const Mat<double> dweight = random_mat<double>(kRows, 3, 12);
    const Mat<double> dscores = random_mat<double>(kRows, 9, 13);
    Routed<double> out(c, kRows);
    const auto loss = [&] {
      route_ref(ctx, out.args(c, logits.cview()));
      return testing::dot<double>(out.weight.span(), dweight.span()) +
             testing::dot<double>(out.scores.span(), dscores.span());
    };
    loss();
    Mat<double> dlogits(kRows, 9);
    route_backward_ref(
        ctx, RouteBackward<double>{c, out.scores.cview(), out.index.cview(), dweight.cview(),
                                   dscores.cview(), dlogits.view()});
    testing::expect_gradient("dlogits " + std::to_string(variant), loss, logits.span(),
                             dlogits.span());
    // Without further gradient on the scores: the same as with zeros.
    Mat<double> zero(kRows, 9), a(kRows, 9), b(kRows, 9);
    route_backward_ref(ctx, RouteBackward<double>{c, out.scores.cview(), out.index.cview(),
                                                  dweight.cview(), zero.cview(), a.view()});
    route_backward_ref(
        ctx, RouteBackward<double>{
                 c, out.scores.cview(), out.index.cview(), dweight.cview(), {}, b.view()});
    EXPECT_THAT(b.span(), ::testing::ElementsAreArray(a.span()));
  }
}

TEST_P(RouteTest, PerfectBalanceCostsOneAndOneExpertCostsMost) {
  Mat<float> scores(4, 4);  // token t likes expert t only
  for (int t = 0; t < 4; ++t) {
    for (int e = 0; e < 4; ++e) scores.at(t, e) = t == e ? 0.6f : 0.2f;
  }
  EXPECT_NEAR(balance_loss(context(), BalanceLoss<float>{scores.cview(), 1, 1, 0, {}}), 1.0, 1e-6);
  for (int t = 0; t < 4; ++t) {
    for (int e = 0; e < 4; ++e) scores.at(t, e) = e == 0 ? 0.6f : 0.2f;
  }
  // f = [4, 0, 0, 0], P_0 = 0.6 / 1.2.
  EXPECT_NEAR(balance_loss(context(), BalanceLoss<float>{scores.cview(), 1, 1, 0, {}}), 2.0, 1e-6);
}

TEST_P(RouteTest, BalanceIsPerSequenceAndAveraged) {
  Mat<float> scores = random_mat<float>(6, 5, 3);
  for (float& s : scores.span()) s = 0.1f + std::abs(s);
  const auto loss = [&](int begin, int rows, int sequences) {
    return balance_loss(
        context(), BalanceLoss<float>{scores.cview().sub_rows(begin, rows), sequences, 2, 0, {}});
  };
  EXPECT_NEAR(loss(0, 6, 2), (loss(0, 3, 1) + loss(3, 3, 1)) / 2, 1e-12);
  EXPECT_NE(loss(0, 6, 2), loss(0, 6, 1));
  EXPECT_THROW(loss(0, 6, 4), Error);
}

TEST(RouteGradientTest, BalanceLoss) {
  const Context ctx;
  Mat<double> scores = random_mat<double>(6, 5, 7);
  for (double& s : scores.span()) s = 1 / (1 + std::exp(-s));
  for (const int sequences : {2, 1}) {  // sequence-wise, and the batch as one
    const auto loss = [&] {
      return 0.3 * balance_loss_ref(ctx, BalanceLoss<double>{scores.cview(), sequences, 2, 0, {}});
    };
    Mat<double> dscores = random_mat<double>(6, 5, 8);  // overwritten
    balance_loss_ref(ctx, BalanceLoss<double>{scores.cview(), sequences, 2, 0.3, dscores.view()});
    testing::expect_gradient("dscores", loss, scores.span(), dscores.span());
  }
}

TEST(RouterBiasTest, MovesTowardsTheMeanLoad) {
  std::vector<float> bias{1, 1, 1, 1};
  update_router_bias(std::vector<std::int64_t>{0, 4, 2, 2}, 0.5, bias);
  EXPECT_THAT(bias, ElementsAre(1.5f, 0.5f, 1.0f, 1.0f));  // the mean is 2, sign(0) is 0
  std::vector<float> three{0, 0, 0};
  update_router_bias(std::vector<std::int64_t>{1, 1, 2}, 0.5, three);  // a mean of 4/3
  EXPECT_THAT(three, ElementsAre(0.5f, 0.5f, -0.5f));
}

TEST(RouterBiasTest, LoadCountsChoices) {
  Mat<std::int32_t> index(2, 2);
  index.at(0, 0) = 2, index.at(0, 1) = 0, index.at(1, 0) = 2, index.at(1, 1) = 1;
  std::vector<std::int64_t> load(4, 9);
  count_load(index.cview(), load);
  EXPECT_THAT(load, ElementsAre(1, 1, 2, 0));
  EXPECT_THROW(count_load(index.cview(), std::span(load).first(2)), Error);
}

}  // namespace
}  // namespace cachalot
