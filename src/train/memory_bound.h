// The least memory that a training run takes, known before any of it is taken: a run that cannot
// fit is refused with a reason, not killed by the system.
//
// Threads: pure functions.
// Errors:  kUsage from `check_memory`.
#pragma once

#include "model/config.h"
#include "train/recipe.h"

namespace cachalot::train {

// Bytes that are taken for certain where a pass has `sequences`: weights, gradients and moments,
// and of the activations the residual stream. Much more is taken in fact.
double least_memory(const Recipe& recipe, const model::Config& config, int sequences);

// kUsage where that is more than `memory` bytes; 0: not known, nothing is refused.
void check_memory(const Recipe& recipe, const model::Config& config, int sequences, double memory);

}  // namespace cachalot::train
