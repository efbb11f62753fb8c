// Values worked out by hand from the papers' equations.
#include "plan/scaling_law.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "base/error.h"

namespace cachalot::plan {
namespace {

constexpr auto kDense = ScalingLaw::kBesiroglu;

TEST(ScalingLawTest, ChinchillaByTheRefittedLaw) {
  // 70 B parameters, 1.4 T tokens: 1.8172 + 482.01/70e9^.3478 + 2085.43/1.4e12^.3658.
  const double want = 1.8172 + 482.01 * std::exp(-0.3478 * std::log(70e9)) +
                      2085.43 * std::exp(-0.3658 * std::log(1.4e12));
  EXPECT_NEAR(predicted_loss(kDense, {.active = 70e9, .tokens = 1.4e12}), want, 1e-9);
  EXPECT_NEAR(want, 1.974, 0.001);
}

// At 6 N D fixed the best ratio of tokens to parameters is some 20 where Chinchilla was trained.
TEST(ScalingLawTest, TwentyTokensPerParameter) {
  const double flops = 6 * 70e9 * 1.4e12;
  double best = 1e9, best_n = 0;
  for (double n = 1e9; n < 1e12; n *= 1.02) {
    const double loss = predicted_loss(kDense, {.active = n, .tokens = flops / 6 / n});
    if (loss < best) {
      best = loss;
      best_n = n;
    }
  }
  const double ratio = flops / 6 / best_n / best_n;
  EXPECT_GT(ratio, 15);
  EXPECT_LT(ratio, 30);
}

TEST(ScalingLawTest, ExpertsHelpAndSaturate) {
  EXPECT_EQ(dense_equivalent(1e9, 1), 1e9);
  double last = 1e9;
  for (const double experts : {2.0, 4.0, 8.0, 32.0, 128.0}) {
    const double now = dense_equivalent(1e9, experts);
    EXPECT_GT(now, last);
    last = now;
  }
  EXPECT_LT(dense_equivalent(1e9, 4096) / dense_equivalent(1e9, 512), 1.3);
  // Clark's finding: the gain falls with the size of the model.
  EXPECT_GT(dense_equivalent(1e8, 64) / 1e8, dense_equivalent(1e10, 64) / 1e10);
  for (const auto law : {ScalingLaw::kBesiroglu, ScalingLaw::kJointMoe}) {
    EXPECT_LT(predicted_loss(law, {.active = 1e9, .experts = 8, .tokens = 1e11}),
              predicted_loss(law, {.active = 1e9, .experts = 1, .tokens = 1e11}))
        << name(law);
  }
}

TEST(ScalingLawTest, RepeatedTokensCountLess) {
  EXPECT_EQ(effective_tokens(5, 10), 5);
  for (const auto& [unique, worth] : {std::pair(1e6, 5.0), std::pair(1e9, 15.387756)}) {
    EXPECT_NEAR(effective_tokens(4 * unique, unique) / unique,
                1 + worth * (1 - std::exp(-3 / worth)), 1e-9);
    EXPECT_LE(effective_tokens(1e9 * unique, unique), unique * (1 + worth) * (1 + 1e-9));
  }
  for (const auto law : {ScalingLaw::kBesiroglu, ScalingLaw::kJointMoe}) {
    const LearningCase fresh{.active = 1e8, .experts = 4, .tokens = 1e10};
    LearningCase again = fresh;
    again.unique_tokens = 1e8;
    EXPECT_GT(predicted_loss(law, again), predicted_loss(law, fresh));
    again.unique_tokens = 1e10;
    EXPECT_GE(predicted_loss(law, again), predicted_loss(law, fresh));
  }
}

// What counts is the text that was read, however it was cut.
TEST(ScalingLawTest, TokensCountByTheirBytes) {
  for (const auto law : {ScalingLaw::kBesiroglu, ScalingLaw::kJointMoe}) {
    const LearningCase own{.active = 4e6, .tokens = 5e6, .unique_tokens = 1e6};
    LearningCase bytes = own;
    bytes.tokens *= kLawTokenBytes;
    bytes.unique_tokens *= kLawTokenBytes;
    bytes.token_bytes = 1;
    EXPECT_NEAR(predicted_loss(law, bytes), predicted_loss(law, own), 1e-12);
  }
  EXPECT_NEAR(bits_per_byte(kLawTokenBytes * std::log(2.0)), 1, 1e-12);
}

// A text read again pays ever less, so more of the work goes into the model.
TEST(ScalingLawTest, AScarceTextAsksForALargerModel) {
  const auto best = [](double unique) {
    double least = 1e9, best_n = 0;
    for (double n = 1e5; n < 1e9; n *= 1.02) {
      const double loss = predicted_loss(
          ScalingLaw::kJointMoe, {.active = n, .tokens = 1e14 / n, .unique_tokens = unique});
      if (loss < least) {
        least = loss;
        best_n = n;
      }
    }
    return best_n;
  };
  EXPECT_GT(best(1e6), 1.1 * best(0));
}

// Runs of equal time on tinyshakespeare, bits per byte of its last tenth
// (docs/planning-training.md, "What small runs say of the laws"): the law's favourite of each group
// is the one that came out best.
TEST(ScalingLawTest, TheBestOfSmallRunsIsTheLawsFavourite) {
  struct Run {
    double active, experts, bytes, measured;
  };
  struct Group {
    double unique;
    std::vector<Run> runs;
  };
  const Group groups[] = {
      {0.279e6,
       {{0.38e6, 3, 10.2e6, 2.0431},
        {1.02e6, 3.4, 4.9e6, 1.9880},
        {2.2e6, 3, 2.8e6, 2.1049},
        {4.03e6, 3, 1.8e6, 2.2394}}},
      {1.004e6,
       {{1.02e6, 3.4, 18.5e6, 2.1404},
        {2.2e6, 3, 10.4e6, 2.0773},
        {4.03e6, 3, 6.3e6, 2.0902},
        {9.98e6, 3, 3.2e6, 2.2044}}},
  };
  for (const Group& group : groups) {
    const auto law = [&](const Run& run) {
      return predicted_loss(ScalingLaw::kBesiroglu, {.active = run.active,
                                                     .experts = run.experts,
                                                     .tokens = run.bytes,
                                                     .unique_tokens = group.unique,
                                                     .token_bytes = 1});
    };
    const auto favourite =
        std::min_element(group.runs.begin(), group.runs.end(),
                         [&](const Run& a, const Run& b) { return law(a) < law(b); });
    for (const Run& run : group.runs) EXPECT_LE(favourite->measured, run.measured) << group.unique;
  }
}

TEST(ScalingLawTest, NamesAreRead) {
  EXPECT_EQ(parse_scaling_law("ludziejewski2025"), ScalingLaw::kJointMoe);
  EXPECT_THROW(parse_scaling_law("kaplan"), Error);
}

}  // namespace
}  // namespace cachalot::plan
