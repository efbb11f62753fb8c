// From a row of logits to a token: penalties, temperature, top-k, top-p, min-p, then one draw.
//
// Order: tokens that are not allowed are left out, repetition penalty, presence and frequency
// penalties, temperature, top-k, top-p (over what top-k left), min-p (relative to the largest
// probability), draw.
//
// Owns:    how often each token occurred.
// Threads: one caller. The draw for position n is a pure function of (seed, stream, n), so a
//          sequence repeats whatever else is in the batch and whether a token was drafted or not.
// Errors:  kUsage (settings out of range), kNumeric (NaN or no finite logit), kUnsupported (nothing
//          is allowed).
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/rng.h"
#include "grammar/token_mask.h"

namespace cachalot::infer {

struct SamplerConfig {
  double temperature = 0;         // 0: greedy, the largest logit, ties to the lowest id
  int top_k = 0;                  // 0: off
  double top_p = 1;               // 1: off
  double min_p = 0;               // 0: off
  double repetition_penalty = 1;  // over prompt and output; > 1 discourages
  double presence_penalty = 0;    // over the output
  double frequency_penalty = 0;   // over the output, times the count
  std::uint64_t seed = 0;
};

void validate(const SamplerConfig& config);  // kUsage

// Which tokens may be drawn at all; they share the probability of the others. Borrows what it
// names.
struct AllowedTokens {
  const grammar::TokenMask* tokens = nullptr;  // none: all
  std::span<const std::int32_t> ends = {};     // tokens that end a text: by may_end alone
  bool may_end = true;

  bool is_all() const noexcept { return tokens == nullptr && may_end; }
  bool has(std::int32_t token) const noexcept;
};

struct Candidate {
  int token = 0;
  double weight = 0;  // unnormalised probability, 1 for the most likely token
};

class Sampler {
 public:
  explicit Sampler(const SamplerConfig& config, std::uint64_t stream = 0);

  // Tokens of the prompt, for the repetition penalty.
  void observe_prompt(std::span<const int> tokens);
  // The token for output position `position`; accept() it before sampling the next.
  int sample(std::span<const float> logits, std::uint64_t position,
             const AllowedTokens& allowed = {});
  void accept(int token);

  // What the draw is made from: tokens with their weights, and in which order they are drawn.
  std::span<const Candidate> candidates(std::span<const float> logits,
                                        const AllowedTokens& allowed = {});

 private:
  struct Count {
    bool seen = false;  // in prompt or output
    int output = 0;
  };
  void load(std::span<const float> logits, const AllowedTokens& allowed);
  void penalise();
  void keep_top_k();
  void keep_top_p();

  SamplerConfig config_;
  Rng rng_;
  std::unordered_map<int, Count> counts_;
  std::vector<Candidate> kept_;
};

}  // namespace cachalot::infer
