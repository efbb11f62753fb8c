// How well a model predicts a text while it goes on learning from it: each piece is predicted
// first, by weights that have not seen it, and then trained on, once; what comes before it in its
// window is context. That is what an adaptive compressor does, and what makes the two comparable on
// a text that is unlike the training text.
//
// Owns:    a copy of the model's weights for the time of the call; the folder stays as it is.
// Threads: one caller.
// Errors:  kUsage (fewer than two tokens, one past the vocabulary, a window out of range), kNumeric
//          (a gradient that is not finite), those of the folder.
// Paper:   Krause et al., "Dynamic Evaluation of Neural Sequence Models" (ICML 2018), with AdamW in
//          the place of their update rule.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>

#include "kernels/context.h"
#include "model/config.h"
#include "nn/numerics.h"

namespace cachalot::train {

struct LearningOptions {
  int context = 512;  // tokens of a window
  int piece = 256;    // new tokens of it, predicted and then trained on; at most the context
  double lr = 1e-4;
  // No momentum: a step follows the piece just read. With 0.9 the King James Bible's held-out text
  // took 3 % more bits at the best rate, and stood little of any rate
  // (docs/experiments/king-james.md).
  double beta1 = 0, beta2 = 0.99;
  double clip_norm = 1;
  float mtp_lambda = 0.3F;  // where the model has the layer
  // Predicted so far, of all, and the sum of their nats.
  std::function<void(std::int64_t done, std::int64_t total, double nats)> progress = nullptr;
};

struct LearningEvaluation {
  std::int64_t tokens = 0;  // predicted: all but the first
  double nats = 0;          // their sum
  std::int64_t steps = 0;   // of the optimiser
};

LearningEvaluation evaluate_learning(const Context& ctx, const std::filesystem::path& folder,
                                     const nn::Numerics& numerics,
                                     std::span<const std::int32_t> tokens,
                                     const LearningOptions& options);

}  // namespace cachalot::train
