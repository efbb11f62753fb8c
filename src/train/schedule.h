// What changes with the step: learning rate, batch size, MTP weight, bias speed. Steps count from
// 0; each is a pure function of recipe and step, so a resumed run needs no state for them.
//
// Threads: pure functions.
// Errors:  steps_of_epochs alone.
// Paper:   DeepSeek-V3 report, section 4.2.
#pragma once

#include <cstdint>

#include "train/recipe.h"

namespace cachalot::train {

// Linear warm-up that reaches `lr` in its last step, then constant, then a decay that reaches
// min_lr_ratio * lr in step `steps - 1` and stays there.
double learning_rate(const Recipe& recipe, std::int64_t step);

// Sequences in this step: batch_start growing linearly to `batch`, which step `ramp_steps` is the
// first to have; always a multiple of micro_batch.
int batch_size(const Recipe& recipe, std::int64_t step);
// Sequences per forward and backward pass: micro_batch, or the whole batch.
int micro_batch_size(const Recipe& recipe, std::int64_t step);
// Sequences of the steps before `step`: where in the data a step begins.
std::int64_t sequences_before(const Recipe& recipe, std::int64_t step);

// The fewest steps whose sequences are schedule.epochs times `windows` of an epoch. kConfig where
// they are too few for the warm-up, or too many.
std::int64_t steps_of_epochs(const Recipe& recipe, std::int64_t windows);

double mtp_lambda(const Recipe& recipe, std::int64_t step);
double bias_gamma(const Recipe& recipe, std::int64_t step);

}  // namespace cachalot::train
