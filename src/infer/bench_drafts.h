// What drafts bring to one text: the same request answered without, with and with as many drafts as
// pay, in turns, and beside it the gain that acceptance and the cost of passes promise.
//
// Threads: those of the Context; one caller.
// Errors:  kUsage (lengths, a model without an MTP layer, those of Engine::submit); kInternal where
//          two ways give different answers.
// Paper:   V3 report 5.4.3 (1.8 times the tokens/s at an acceptance of 85 to 90 %).
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "infer/engine.h"

namespace cachalot::infer {

struct DraftBenchOptions {
  EngineConfig engine;             // its mtp and draft_length are set case by case
  Request request;                 // prompt, max_tokens, sampling; it is answered to its length
  std::vector<int> lengths{1, 2};  // of drafts
  int turns = 7;                   // of all cases; one more comes before, which does not count
};

struct DraftBenchCase {
  MtpMode mode = MtpMode::kOff;
  int drafts = 0;           // of kOn
  double tokens_per_s = 0;  // after the first token; median over the turns, as all below
  double cpu_seconds = 0;   // processor time of the program, per token
  double gain = 1;          // tokens/s over those without drafts in the same turn
  double cpu_gain = 1;      // likewise by processor time, which other programs disturb less
  double tokens_per_pass = 1;
  double pass_seconds = 0;    // mean of all passes, with those of the prompt: the main model's
  double draft_seconds = 0;   // and what the MTP layer took behind it
  std::vector<double> right;  // how often the first, the second ... draft was, where the one before
                              // it was
  double experts = 0;         // of a layer that a pass read, mean; 0 without experts
  // Of kOn: what these shares of right drafts would bring, if passes took what passes of such sizes
  // take by themselves (bench_decode), longer or shorter as the bytes of the text's experts are.
  double predicted_gain = 0;
};

struct DraftBenchResult {
  std::vector<DraftBenchCase> cases;  // off, on for each length, auto
  std::vector<std::int32_t> tokens;   // the answer
  // Auto beside the better of the others, in the same turns: tokens/s, and by processor time.
  double auto_of_best = 1, auto_of_best_cpu = 1;
};

DraftBenchResult bench_drafts(const Context& ctx, const model::Model& model,
                              const DraftBenchOptions& options,
                              const std::function<void(const std::string&)>& progress);

// Tokens of a pass whose drafts are right that often, each where the one before it was.
double tokens_of_pass(std::span<const double> right);

}  // namespace cachalot::infer
