// Passes of inference measured beside what bounds them: memory for decoding, products for prompts.
//
// Threads: runs on those of the Context; one caller.
// Errors:  kUsage where a case does not fit the model's context or the memory given.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "cost/pass.h"
#include "model/cache_pool.h"
#include "model/forward.h"
#include "perf/turns.h"

namespace cachalot::infer {

struct InferBenchOptions {
  perf::TurnOptions turns{.turns = 7, .limit_seconds = 10, .turn_seconds = 0.05};
  LatentFormat cache = LatentFormat::kBF16;
  model::AttentionMode attention = model::AttentionMode::kAbsorbed;
  std::vector<int> batches{1, 8, 32};  // of decode
  std::vector<int> contexts{0, 4096};  // tokens in the cache before the pass
  std::vector<int> drafts{0};          // verified with each token
  std::vector<int> prompts{128, 512};  // rows of a prompt's pass
};

struct InferBenchCase {
  std::string kind;  // "decode", "prefill", "draft"
  int batch = 1, context = 0, drafts = 0, prompt = 0;
  double seconds = 0;             // of a pass, median of the turns that count
  double tokens_per_s = 0;        // new tokens; of decode with drafts: if all of them are right
  double plain_tokens_per_s = 0;  // of decode: if none is
  double draft_seconds = 0;       // of the MTP layer, which makes the drafts of a pass
  // Acceptance (of each draft, all alike) from which drafting pays, the MTP layer's time included;
  // above 1: never. 0 without drafts.
  double pays_from = 0;
  cost::PassCost cost;
  double rate = 0;     // GB/s that must be read, or useful GFLOP/s
  double ceiling = 0;  // read or product peak of the same turns
  double fraction = 0;
  double predicted_seconds = 0;  // cost/pass.h, with the ceilings measured here
  double experts = 0;            // of a layer that a pass read, counted
  int valid = 0, turns = 0;
};

using BenchProgress = std::function<void(const std::string&)>;

// Decode passes of every batch, context and draft length. The cache's rows are random: what they
// say does not matter to the time, where they lie does, so each sequence has its own.
std::vector<InferBenchCase> bench_decode(const Context& ctx, const model::Model& model,
                                         const InferBenchOptions& options,
                                         const BenchProgress& progress);
// Prompt passes of every length and context.
std::vector<InferBenchCase> bench_prefill(const Context& ctx, const model::Model& model,
                                          const InferBenchOptions& options,
                                          const BenchProgress& progress);

}  // namespace cachalot::infer
