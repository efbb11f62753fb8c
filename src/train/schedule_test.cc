#include "train/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

namespace cachalot::train {
namespace {

Recipe with(std::int64_t steps, std::int64_t warmup, std::int64_t constant,
            ScheduleRecipe::Decay decay) {
  Recipe recipe;
  recipe.optimizer.lr = 2.0;
  recipe.schedule.steps = steps;
  recipe.schedule.warmup_steps = warmup;
  recipe.schedule.constant_steps = constant;
  recipe.schedule.decay = decay;
  recipe.schedule.min_lr_ratio = 0.25;
  return recipe;
}

TEST(Schedule, LearningRateAtEveryEdge) {
  const Recipe r = with(20, 4, 6, ScheduleRecipe::Decay::kCosine);
  EXPECT_EQ(0.5, learning_rate(r, 0));
  EXPECT_EQ(1.5, learning_rate(r, 2));
  EXPECT_EQ(2.0, learning_rate(r, 3));  // the last step of the warm-up is at the peak
  for (int step = 4; step < 10; ++step) EXPECT_EQ(2.0, learning_rate(r, step)) << step;
  EXPECT_LT(learning_rate(r, 10), 2.0);
  EXPECT_NEAR(2.0 * (0.25 + 0.75 * 0.5), learning_rate(r, 14), 1e-15);  // half way
  EXPECT_DOUBLE_EQ(0.5, learning_rate(r, 19));
  EXPECT_DOUBLE_EQ(0.5, learning_rate(r, 20));  // past the end
  EXPECT_DOUBLE_EQ(0.5, learning_rate(r, 1'000'000));
  for (int step = 10; step < 19; ++step) {
    EXPECT_GT(learning_rate(r, step), learning_rate(r, step + 1)) << step;
  }
}

TEST(Schedule, LinearAndNoDecay) {
  const Recipe linear = with(10, 0, 0, ScheduleRecipe::Decay::kLinear);
  for (int step = 0; step < 10; ++step) {
    EXPECT_NEAR(2.0 * (0.25 + 0.75 * (1.0 - (step + 1) / 10.0)), learning_rate(linear, step),
                1e-15);
  }
  const Recipe none = with(10, 2, 0, ScheduleRecipe::Decay::kNone);
  EXPECT_EQ(1.0, learning_rate(none, 0));
  EXPECT_EQ(2.0, learning_rate(none, 1));
  EXPECT_EQ(2.0, learning_rate(none, 1000));
}

TEST(Schedule, WarmUpMayTakeAllSteps) {
  const Recipe r = with(5, 5, 0, ScheduleRecipe::Decay::kCosine);
  EXPECT_EQ(2.0, learning_rate(r, 4));
  EXPECT_TRUE(std::isfinite(learning_rate(r, 5)));
  EXPECT_DOUBLE_EQ(0.5, learning_rate(with(1, 0, 0, ScheduleRecipe::Decay::kCosine), 0));
}

TEST(Schedule, BatchRampIsMonotoneAndCountsSequences) {
  Recipe r;
  r.schedule.batch = 48;
  r.schedule.batch_start = 5;
  r.schedule.ramp_steps = 10;
  r.schedule.micro_batch = 4;
  EXPECT_EQ(8, batch_size(r, 0));  // 5 rounded up to whole micro-batches
  EXPECT_EQ(48, batch_size(r, 10));
  EXPECT_EQ(48, batch_size(r, 1000));
  std::int64_t sum = 0;
  for (int step = 0; step < 30; ++step) {
    EXPECT_EQ(sum, sequences_before(r, step)) << step;
    EXPECT_EQ(0, batch_size(r, step) % 4);
    EXPECT_LE(batch_size(r, step), batch_size(r, step + 1));
    EXPECT_EQ(4, micro_batch_size(r, step));
    sum += batch_size(r, step);
  }
  Recipe plain;
  plain.schedule.batch = 7;
  EXPECT_EQ(7, batch_size(plain, 0));
  EXPECT_EQ(7, micro_batch_size(plain, 0));
  EXPECT_EQ(21, sequences_before(plain, 3));
}

TEST(Schedule, LambdaAndGammaSwitchAtTheirStep) {
  Recipe r;
  EXPECT_EQ(0.3, mtp_lambda(r, 0));
  EXPECT_EQ(0.3, mtp_lambda(r, 1'000'000));
  EXPECT_EQ(1e-3, bias_gamma(r, 1'000'000));
  r.loss.mtp_lambda_switch_step = 10;
  r.loss.bias_gamma_stop_step = 12;
  EXPECT_EQ(0.3, mtp_lambda(r, 9));
  EXPECT_EQ(0.1, mtp_lambda(r, 10));
  EXPECT_EQ(1e-3, bias_gamma(r, 11));
  EXPECT_EQ(0.0, bias_gamma(r, 12));
  r.loss.mtp_lambda_switch_step = 0;
  EXPECT_EQ(0.1, mtp_lambda(r, 0));
}

}  // namespace
}  // namespace cachalot::train
