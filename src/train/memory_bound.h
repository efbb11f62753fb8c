// The least memory that a training run takes, known before any of it is taken: a run that cannot
// fit is refused with a reason, not killed by the system.
//
// Threads: any.
// Errors:  kUsage from `check_memory` and `check_memory_of_all`.
#pragma once

#include <span>

#include "kernels/context.h"
#include "model/config.h"
#include "train/recipe.h"

namespace cachalot::train {

// Bytes that are taken for certain where a pass has `sequences`: weights, gradients and moments,
// and of the activations the residual stream. Much more is taken in fact.
double least_memory(const Recipe& recipe, const model::Config& config, int sequences);

// kUsage where that is more than `memory` bytes; 0: not known, nothing is refused.
void check_memory(const Recipe& recipe, const model::Config& config, int sequences, double memory);
// Likewise where runs by all of these are held at once.
void check_memory_of_all(std::span<const Recipe> recipes, const model::Config& config,
                         int sequences, double memory);

// The `memory` to check with: all that the machine has where `ctx` computes on the host, 0 on a
// device, which says itself what it has not got.
double memory_to_check(const Context& ctx);

}  // namespace cachalot::train
