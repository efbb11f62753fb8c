// How well a model knows the answers of conversations: each sample is read once, from its
// beginning, and the answers' tokens are scored.
//
// Threads: one caller.
// Errors:  kUsage (a token past the vocabulary, a context out of range, nothing to score), kNumeric
//          (a loss that is not finite).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "model/forward.h"
#include "text/packed_samples.h"

namespace cachalot::infer {

struct AnswersOptions {
  int context = 4096;  // tokens read of a sample, cut to the model's
  bool mtp = true;     // where the model has the layer
  model::AttentionMode attention = model::AttentionMode::kAbsorbed;
  std::optional<LatentFormat> cache = {};  // none: what the model's precision asks for
  std::function<void(std::int64_t done, std::int64_t total)> progress = nullptr;  // rows
};

struct AnswersEvaluation {
  std::int64_t samples = 0;
  std::int64_t cut = 0;      // of those, longer than the context
  std::int64_t tokens = 0;   // scored, the ends of answers among them
  std::int64_t correct = 0;  // of those, the model's first choice
  double nats = 0;           // their sum
  std::int64_t answers = 0;
  // Answers all of whose tokens are the first choice: those that greedy decoding would write, word
  // for word. Of an answer that is cut, what is there.
  std::int64_t whole = 0;
  std::int64_t drafts = 0;  // as Evaluation has them
  std::int64_t accepted = 0;
};

AnswersEvaluation evaluate_answers(const Context& ctx, const model::Model& model,
                                   const text::SampleTokens& samples,
                                   const AnswersOptions& options);

}  // namespace cachalot::infer
