// The balance loss of one layer over runs of rows.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/rng.h"
#include "kernels/cpu/levels.h"
#include "nn/moe.h"
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
TEST(BalanceOverRuns, IsTheMeanByTheirRows) {
  const std::vector<int> runs = {3, 1, 6};
  const Mat<float> scores = some_scores(10);
  Mat<double> exact(10, kExperts), gradient(10, kExperts);
  for (std::size_t i = 0; i < scores.size(); ++i) exact.data()[i] = scores.data()[i];
  double want = 0;
  int begin = 0;
  for (const int rows : runs) {
    const double share = rows / 10.0;
    const BalanceLoss<double> run{exact.cview().sub_rows(begin, rows), 1, kTopk, 0.3 * share,
                                  gradient.view().sub_rows(begin, rows)};
    want += share * balance_loss_ref(Context{}, run);
    begin += rows;
  }
  for (const cpu::Level level : cpu::supported_levels()) {
    const runtime::Runtime runtime({2, std::string(cpu::name(level))});
    const Context& ctx = runtime.context();
    Mat<float> dscores(10, kExperts);
    const BalanceTerm term{runs, 0.3F};
    EXPECT_NEAR(balance_over(ctx, scores.cview(), term, kTopk, dscores.view()), want, 1e-5 * want);
    EXPECT_NEAR(balance_over(ctx, scores.cview(), term, kTopk, {}), want, 1e-5 * want);
    for (std::size_t i = 0; i < dscores.size(); ++i) {
      EXPECT_NEAR(dscores.data()[i], gradient.data()[i], 1e-6) << i;
    }
  }
}

TEST(BalanceOverRuns, OfOneLengthIsTheOp) {
  const runtime::Runtime runtime({1, ""});
  const Context& ctx = runtime.context();
  const Mat<float> scores = some_scores(12);
  for (const int n : {1, 2, 3, 12}) {
    const std::vector<int> runs(static_cast<std::size_t>(n), 12 / n);
    Mat<float> got(12, kExperts), want(12, kExperts);
    EXPECT_EQ(balance_over(ctx, scores.cview(), {runs, 0.3F}, kTopk, got.view()),
              balance_loss(ctx, {scores.cview(), n, kTopk, 0.3F, want.view()}));
    for (std::size_t i = 0; i < got.size(); ++i) EXPECT_EQ(got.data()[i], want.data()[i]);
  }
}

}  // namespace
}  // namespace cachalot::nn
