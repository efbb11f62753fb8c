#include "nn/balance.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/rng.h"
#include "kernels/cpu/levels.h"
#include "runtime/runtime.h"

namespace cachalot::nn {
namespace {

constexpr int kExperts = 5, kTopk = 2;

Mat<float> some_scores(int rows) {
  Mat<float> scores(rows, kExperts);
  const Rng rng(4);
  for (std::size_t i = 0; i < scores.size(); ++i) {
    scores.data()[i] = static_cast<float>(1 + rng.below(i, 97)) / 98;
  }
  return scores;
}

// By the op's definition, in double, run by run.
TEST(BalanceTerm, WeighsRunsByTheirShares) {
  const std::vector<BalanceRun> runs = {{3, 0.25}, {0, 0.125}, {1, 0.125}, {6, 0.5}};
  const Mat<float> scores = some_scores(10);
  Mat<double> exact(10, kExperts), gradient(10, kExperts);
  for (std::size_t i = 0; i < scores.size(); ++i) exact.data()[i] = scores.data()[i];
  double want = 0;
  int begin = 0;
  for (const BalanceRun& r : runs) {
    if (r.rows > 0) {
      want += r.share * balance_loss_ref(
                            Context{}, BalanceLoss<double>{
                                           exact.cview().sub_rows(begin, r.rows), 1, kTopk,
                                           0.3 * r.share, gradient.view().sub_rows(begin, r.rows)});
    }
    begin += r.rows;
  }
  for (const cpu::Level level : cpu::supported_levels()) {
    const runtime::Runtime runtime({2, std::string(cpu::name(level))});
    const Context& ctx = runtime.context();
    Mat<float> dscores(10, kExperts);
    const BalanceTerm term{runs, 0.3F};
    EXPECT_NEAR(balance_loss(ctx, term, scores.cview(), kTopk, dscores.view()), want, 1e-5 * want);
    EXPECT_NEAR(balance_loss(ctx, term, scores.cview(), kTopk, {}), want, 1e-5 * want);
    for (std::size_t i = 0; i < dscores.size(); ++i) {
      EXPECT_NEAR(dscores.data()[i], gradient.data()[i], 1e-6) << i;
    }
  }
}

TEST(BalanceTerm, OfRunsOfOneLengthIsTheOp) {
  const runtime::Runtime runtime({1, ""});
  const Context& ctx = runtime.context();
  const Mat<float> scores = some_scores(12);
  for (const int n : {1, 2, 3, 12}) {
    const std::vector<BalanceRun> runs(static_cast<std::size_t>(n), {12 / n, 1.0 / n});
    Mat<float> got(12, kExperts), want(12, kExperts);
    EXPECT_EQ(balance_loss(ctx, {runs, 0.3F}, scores.cview(), kTopk, got.view()),
              cachalot::balance_loss(ctx, {scores.cview(), n, kTopk, 0.3F, want.view()}));
    for (std::size_t i = 0; i < got.size(); ++i) EXPECT_EQ(got.data()[i], want.data()[i]);
  }
}

}  // namespace
}  // namespace cachalot::nn
