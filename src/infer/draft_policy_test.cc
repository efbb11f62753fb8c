#include "infer/draft_policy.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/rng.h"

namespace cachalot::infer {
namespace {

// A machine whose passes cost `row` more for each further row, in units of a pass with one row.
struct Machine {
  double row = 0.1;
  double draft = 0.05;
  double rate = 0.8;  // of drafts that are right
  double cold = 1;    // the first passes take that many times as long

  // Tokens per unit of time, of one text over `passes` passes.
  double run(DraftPolicy& policy, int passes, std::uint64_t seed = 1) const {
    DraftState text;
    const Rng rng(seed);
    double time = 0, tokens = 0;
    int k = 0;
    for (int i = 0; i < passes; ++i) {
      int right = 0;
      while (right < k && rng.uniform(static_cast<std::uint64_t>(10 * i + right)) < rate) ++right;
      const double pass = (1 + row * k) * (i < 4 ? cold : 1);
      policy.decode_pass(1 + k, pass);
      policy.observe(text, k, right);
      if (i >= 4) time += pass;
      if (i >= 4) tokens += 1 + right;
      k = policy.choose(text, 1);
      if (k > 0) policy.first_draft(1, draft);
      if (k > 1) policy.further_draft(1, draft);
      if (i >= 4) time += k * draft;
    }
    return tokens / time;
  }
  double plain() const { return 1; }
  // The best fixed length, from the formula.
  double best() const {
    double most = 1;
    for (int k = 1; k <= kMaxDrafts; ++k) {
      double tokens = 1;
      for (int j = 1; j <= k; ++j) tokens += std::pow(rate, j);
      most = std::max(most, tokens / (1 + (row + draft) * k));
    }
    return most;
  }
};

TEST(DraftPolicyTest, NeverLosesMoreThanTwoPercentToNoDrafts) {
  for (const double row : {0.05, 0.3, 0.9}) {
    for (const double rate : {0.0, 0.05, 0.2}) {
      const Machine machine{.row = row, .draft = 0.05, .rate = rate};
      DraftPolicy policy;
      EXPECT_GE(machine.run(policy, 500), 0.98) << row << " " << rate;
    }
  }
}

// The first passes are the only ones without drafts, as long as these seem to pay: what they took
// must not be believed for ever.
TEST(DraftPolicyTest, ColdPassesAreForgotten) {
  for (const double rate : {0.2, 0.5}) {
    const Machine machine{.row = 0.6, .draft = 0.1, .rate = rate, .cold = 4};
    DraftPolicy policy;
    EXPECT_GE(machine.run(policy, 2000), 0.98) << rate;
  }
}

TEST(DraftPolicyTest, ComesCloseToTheBestLength) {
  for (const double row : {0.05, 0.2, 0.5}) {
    for (const double rate : {0.5, 0.7, 0.9}) {
      const Machine machine{.row = row, .draft = 0.05, .rate = rate};
      DraftPolicy policy;
      // The chance of 2000 passes: a standard deviation of the mean is below 2 %.
      EXPECT_GE(machine.run(policy, 2000), 0.92 * machine.best()) << row << " " << rate;
    }
  }
}

TEST(DraftPolicyTest, AFixedLengthIsKept) {
  DraftPolicy policy(3);
  DraftState text;
  EXPECT_EQ(policy.choose(text, 1), 3);
  for (int i = 0; i < 50; ++i) policy.observe(text, 3, 0);
  EXPECT_EQ(policy.choose(text, 1), 3);
  DraftPolicy none(0);
  EXPECT_EQ(none.choose(text, 1), 0);
}

TEST(DraftPolicyTest, ATextThatIsHardToGuessDoesNotStopTheOthers) {
  DraftPolicy policy;
  DraftState easy, hard;
  for (int i = 0; i < 200; ++i) {
    policy.decode_pass(2, 1.0);
    policy.decode_pass(4, 1.3);
    policy.first_draft(2, 0.05);
    policy.observe(easy, 1, 1);
    policy.observe(hard, 1, 0);
  }
  EXPECT_GT(policy.choose(easy, 2), 0);
  EXPECT_EQ(policy.choose(hard, 2), 0);
}

TEST(CostCurveTest, LinesBetweenWhatWasMeasured) {
  CostCurve curve;
  EXPECT_TRUE(curve.empty());
  curve.add(1, 2.0);
  EXPECT_DOUBLE_EQ(curve.at(1, 0.5), 2.0);
  EXPECT_DOUBLE_EQ(curve.at(3, 0.5), 4.0);  // nothing but the slope is known
  curve.add(5, 4.0);
  EXPECT_DOUBLE_EQ(curve.at(3, 0.5), 3.0);
  EXPECT_DOUBLE_EQ(curve.at(9, 0.5), 6.0);
  curve.add(9, 1.0);  // a fluke
  EXPECT_DOUBLE_EQ(curve.at(7, 0.5), 4.0);
  for (int i = 0; i < 100; ++i) curve.add(1, 3.0);
  EXPECT_NEAR(curve.at(1, 0), 3.0, 1e-6);
}

TEST(AcceptanceTest, CountsWhatWasCompared) {
  Acceptance a;
  a.observe(3, 1);  // the second was wrong, the third never looked at
  EXPECT_DOUBLE_EQ(a.rate(0, 0.5, 0), 1.0);
  EXPECT_DOUBLE_EQ(a.rate(1, 0.5, 0), 0.0);
  EXPECT_DOUBLE_EQ(a.trials(2), 0.0);
  EXPECT_DOUBLE_EQ(a.rate(2, 0.5, 2), 0.5);
}

}  // namespace
}  // namespace cachalot::infer
