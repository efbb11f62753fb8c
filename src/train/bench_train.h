// Measures training steps of a recipe's model in each precision, in turns: how fast, where the time
// goes, what memory it takes.
//
// Tokens are random: every step does the same work and nothing is learned.
// Threads: one caller; steps use the context's threads.
// Errors:  those of Parameters and TrainGraph; kUsage where memory cannot hold a step.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/profile.h"
#include "nn/block.h"
#include "perf/turns.h"
#include "runtime/runtime.h"
#include "train/recipe.h"

namespace cachalot::train {

struct TrainBenchOptions {
  std::vector<RecipePrecision> precisions{RecipePrecision::kF32, RecipePrecision::kBf16,
                                          RecipePrecision::kFp8};
  // A step lasts long enough to be interrupted now and then.
  perf::TurnOptions turns{5, 60, 0.0, 0.1, 100};
};

struct TrainBenchCase {
  RecipePrecision precision = RecipePrecision::kF32;
  perf::Measured gflops;  // model FLOPs; the fraction is the MFU
  double tokens_per_s = 0;
  double step_seconds = 0;
  std::vector<double> part_seconds;  // per step, in the order of kPartNames
  nn::KeptBytes kept;                // of one micro-batch
  std::int64_t kept_tokens = 0;
  std::int64_t parameters = 0;
  std::int64_t optimizer_bytes = 0;
  std::size_t code_bytes = 0;
  std::size_t peak_rss_bytes = 0;  // of this process so far
};

// `progress` hears what is being done.
std::vector<TrainBenchCase> bench_train(const runtime::Runtime& runtime, const Recipe& recipe,
                                        int vocab_size, const TrainBenchOptions& options,
                                        const std::function<void(const std::string&)>& progress);

std::string_view name(RecipePrecision precision) noexcept;

}  // namespace cachalot::train
