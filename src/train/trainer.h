// Trains a model by a recipe in a run folder.
//
// RUN/recipe.toml       the recipe as resolved when the run began
// RUN/metrics.jsonl     one line per step
// RUN/checkpoints/      step-N, each a Hugging Face folder plus what a resume needs
// RUN/model             a link to the newest checkpoint
//
// A step whose loss or gradient is not finite changes nothing and is counted; after run.max_skips
// of them in a row the run ends with kNumeric, and its newest checkpoint is that of a good step.
// (A run that ends or is stopped before that saves the weights of the last step that was taken.)
//
// Owns:    parameters, optimiser state and activations for the time of the call.
// Threads: one call at a time per run folder (a lock says so); `stop` may be set from a signal
// handler. Errors:  kBusy (another trainer holds the folder), kUsage (the folder has a run already,
// or a resume with a
//          recipe that computes something else), kNumeric (too many steps in a row without a finite
//          gradient), and those of recipe, data and files.
// Results: for one build and CPU level the weights after step N do not depend on the number of
// threads or on how
//          often the run was stopped and resumed.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "comm/collectives.h"
#include "model/config.h"
#include "runtime/runtime.h"
#include "tensor/mat.h"
#include "train/recipe.h"

namespace cachalot::train {

struct StepReport {
  std::int64_t step = 0;  // steps done, this one included
  std::int64_t steps = 0;
  double loss = 0;  // main, mean over the step's tokens
  double mtp_loss = 0;
  double balance_loss = 0;
  double total_loss = 0;
  double grad_norm = 0;
  double lr = 0;
  int batch = 0;  // sequences
  bool skipped = false;
  double seconds = 0;  // of this step
  double tokens_per_s = 0;
  double mfu = 0;  // of the measured peak
  double elapsed_s = 0;
  double left_s = 0;
  std::vector<double> imbalance;  // per MoE layer: largest expert load / mean load
};

struct EvalReport {
  std::int64_t step = 0;
  double loss = 0;           // nats per token of the held-out text
  double bits_per_byte = 0;  // the same, by the bytes its tokens stand for
  double mtp_loss = 0;
  double mtp_acceptance = 0;  // drafts that equal the main model's own choice
  double first_choice = 0;    // tokens that the model would have chosen: a share
  std::int64_t tokens = 0;
  bool of_average = false;  // of the running mean of the weights
};

struct TrainHooks {
  std::function<void(const model::Config&)> on_model;  // once, before the first step
  std::function<void(const std::string& what, std::uint64_t done, std::uint64_t total)> on_prepare;
  std::function<void(const StepReport&)> on_step;
  std::function<void(const EvalReport&)> on_eval;
  std::function<void(const std::string&)> on_message;  // resumed, saved, skipped a checkpoint, ...
  std::function<void(double seconds)> on_save;         // after each checkpoint
  // Where set, after each forward and backward of a step (0 for its first tokens, then how many
  // came before): the experts that layer `routing_layer` chose for its tokens, [n, k]; -1 is the
  // first MoE layer. kUsage before the first step where that layer is none.
  std::function<void(std::int64_t before, MatView<const std::int32_t> chosen)> on_routing;
  int routing_layer = -1;
  const std::atomic<bool>* stop = nullptr;  // set: save and return
};

enum class Ended : std::uint8_t { kDone, kStopped, kTimeUp };

struct TrainResult {
  Ended ended = Ended::kDone;
  std::int64_t step = 0;
  std::int64_t tokens = 0;  // seen in all
  std::int64_t skipped_steps = 0;
  double seconds = 0;                                      // training, over all resumes
  double tokens_per_s = 0;                                 // median of this call's steps
  double mfu = 0;                                          // likewise
  double loss = std::numeric_limits<double>::quiet_NaN();  // of the last step; NaN: none was left
  std::int64_t parameters = 0;
  // FP32 master weights and both moments; gradients and the mean of the weights are not in it.
  double optimizer_bytes_per_parameter = 0;
  EvalReport validation;  // at the end; tokens 0 where nothing is held out
  EvalReport average;     // of the mean of the weights; tokens 0 where none is kept
  std::filesystem::path checkpoint;
};

struct TrainOptions {
  std::filesystem::path run_dir;
  bool resume = false;  // continue the newest whole checkpoint (from the start if there is none)
  // Ranks that train the model together (train/ranks.h), each with a call of its own, its operands
  // where `runtime` computes; null: this process alone. Hooks but `stop` are heard on rank 0.
  comm::Collectives* ranks = nullptr;
};

TrainResult train(const Recipe& recipe, const TrainOptions& options,
                  const runtime::Runtime& runtime, const TrainHooks& hooks);

}  // namespace cachalot::train
