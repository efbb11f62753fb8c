#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace cachalot::train {

double learning_rate(const Recipe& recipe, std::int64_t step) {
  const ScheduleRecipe& s = recipe.schedule;
  const double peak = recipe.optimizer.lr;
  if (step < s.warmup_steps) {
    return peak * static_cast<double>(step + 1) / static_cast<double>(s.warmup_steps);
  }
  const std::int64_t decay_begin = s.warmup_steps + s.constant_steps;
  if (step < decay_begin || s.decay == ScheduleRecipe::Decay::kNone) return peak;
  const double decay_steps = static_cast<double>(std::max<std::int64_t>(s.steps - decay_begin, 1));
  const double done = std::min(1.0, static_cast<double>(step - decay_begin + 1) / decay_steps);
  const double left = s.decay == ScheduleRecipe::Decay::kLinear
                          ? 1.0 - done
                          : 0.5 * (1.0 + std::cos(std::numbers::pi * done));
  return peak * (s.min_lr_ratio + (1.0 - s.min_lr_ratio) * left);
}

int batch_size(const Recipe& recipe, std::int64_t step) {
  const ScheduleRecipe& s = recipe.schedule;
  if (s.ramp_steps == 0 || step >= s.ramp_steps) return s.batch;
  const std::int64_t grown = s.batch_start + (s.batch - s.batch_start) * step / s.ramp_steps;
  const std::int64_t unit = std::max(s.micro_batch, 1);
  return static_cast<int>((grown + unit - 1) / unit * unit);
}

int micro_batch_size(const Recipe& recipe, std::int64_t step) {
  const int micro = recipe.schedule.micro_batch;
  return micro > 0 ? micro : batch_size(recipe, step);
}

std::int64_t sequences_before(const Recipe& recipe, std::int64_t step) {
  const std::int64_t ramped = std::min(step, recipe.schedule.ramp_steps);
  std::int64_t sum = 0;
  for (std::int64_t i = 0; i < ramped; ++i) sum += batch_size(recipe, i);
  return sum + (step - ramped) * recipe.schedule.batch;
}

std::int64_t steps_of_epochs(const Recipe& recipe, std::int64_t windows) {
  const ScheduleRecipe& s = recipe.schedule;
  constexpr double kMost = 1e9;  // as schedule.steps has it
  const double sequences = std::ceil(s.epochs * static_cast<double>(windows));
  if (sequences / s.batch > kMost) {
    throw Error(Code::kConfig, cat("schedule.epochs = ", s.epochs, " of ", windows,
                                   " windows is more than 10^9 steps: lower it"));
  }
  const auto needed = static_cast<std::int64_t>(sequences);
  std::int64_t steps = 0, read = 0;
  for (; steps < s.ramp_steps && read < needed; ++steps) read += batch_size(recipe, steps);
  if (read < needed) steps += (needed - read + s.batch - 1) / s.batch;
  if (steps < s.warmup_steps + s.constant_steps) {
    throw Error(Code::kConfig,
                cat("schedule.epochs = ", s.epochs, " of ", windows, " windows is ", steps,
                    " steps of ", s.batch, ", but schedule.warmup_steps = ", s.warmup_steps,
                    " and constant_steps = ", s.constant_steps,
                    " need as many: shorten them, lower schedule.batch, or read more often"));
  }
  return steps;
}

double mtp_lambda(const Recipe& recipe, std::int64_t step) {
  const LossRecipe& l = recipe.loss;
  const bool late = l.mtp_lambda_switch_step >= 0 && step >= l.mtp_lambda_switch_step;
  return late ? l.mtp_lambda_late : l.mtp_lambda;
}

double bias_gamma(const Recipe& recipe, std::int64_t step) {
  const LossRecipe& l = recipe.loss;
  return l.bias_gamma_stop_step >= 0 && step >= l.bias_gamma_stop_step ? 0.0 : l.bias_gamma;
}

}  // namespace cachalot::train
