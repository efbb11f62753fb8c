#include "infer/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

#include "base/error.h"

namespace cachalot::infer {

namespace {

void require(bool ok, std::string_view field, double met, std::string_view needed) {
  if (!ok) {
    throw Error(Code::kUsage, cat("sampling: ", field, " is ", met, ", but it must be ", needed));
  }
}

// Falling weight, ties to the lower id: one order for every library's sort.
bool before(const Candidate& a, const Candidate& b) {
  return a.weight > b.weight || (a.weight == b.weight && a.token < b.token);
}

}  // namespace

void validate(const SamplerConfig& c) {
  const auto finite = [](double x) { return std::isfinite(x); };
  require(finite(c.temperature) && c.temperature >= 0, "temperature", c.temperature,
          "0 (greedy) or more");
  require(c.top_k >= 0, "top-k", c.top_k, "0 (off) or more");
  require(c.top_p > 0 && c.top_p <= 1, "top-p", c.top_p, "above 0 and at most 1 (off)");
  require(c.min_p >= 0 && c.min_p <= 1, "min-p", c.min_p, "between 0 (off) and 1");
  require(finite(c.repetition_penalty) && c.repetition_penalty > 0, "repetition-penalty",
          c.repetition_penalty, "above 0 (1 is off)");
  require(c.presence_penalty >= -2 && c.presence_penalty <= 2, "presence-penalty",
          c.presence_penalty, "between -2 and 2");
  require(c.frequency_penalty >= -2 && c.frequency_penalty <= 2, "frequency-penalty",
          c.frequency_penalty, "between -2 and 2");
}

bool AllowedTokens::has(std::int32_t token) const noexcept {
  if (std::find(ends.begin(), ends.end(), token) != ends.end()) return may_end;
  return tokens == nullptr || tokens->has(token);
}

Sampler::Sampler(const SamplerConfig& config, std::uint64_t stream)
    : config_(config), rng_(config.seed, stream) {
  validate(config);
}

void Sampler::observe_prompt(std::span<const int> tokens) {
  for (const int token : tokens) counts_[token].seen = true;
}

void Sampler::accept(int token) {
  Count& count = counts_[token];
  count.seen = true;
  ++count.output;
}

// kept_ becomes every allowed token in the order of ids, `weight` its penalised logit.
void Sampler::load(std::span<const float> logits, const AllowedTokens& allowed) {
  kept_.resize(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i])) {
      throw Error(Code::kNumeric, cat("the logit of token ", i,
                                      " is NaN: the weights or the computation are broken"));
    }
    kept_[i] = {static_cast<int>(i), static_cast<double>(logits[i])};
  }
  const bool penalise = config_.repetition_penalty != 1 || config_.presence_penalty != 0 ||
                        config_.frequency_penalty != 0;
  if (penalise) this->penalise();
  if (allowed.is_all()) return;
  std::erase_if(kept_, [&](const Candidate& c) { return !allowed.has(c.token); });
  if (kept_.empty()) {
    throw Error(Code::kUnsupported,
                "no token of this model's vocabulary can continue a text of the form that was "
                "asked for: ask for another form");
  }
}

void Sampler::penalise() {
  for (const auto& [token, count] : counts_) {
    if (token < 0 || static_cast<std::size_t>(token) >= kept_.size()) continue;
    double& logit = kept_[static_cast<std::size_t>(token)].weight;
    if (count.seen) {
      logit = logit > 0 ? logit / config_.repetition_penalty : logit * config_.repetition_penalty;
    }
    if (count.output > 0) {
      logit -= config_.presence_penalty + config_.frequency_penalty * count.output;
    }
  }
}

void Sampler::keep_top_k() {
  const auto k = static_cast<std::size_t>(config_.top_k);
  if (k == 0 || k >= kept_.size()) return;
  std::nth_element(kept_.begin(), kept_.begin() + static_cast<std::ptrdiff_t>(k) - 1, kept_.end(),
                   before);
  kept_.resize(k);
}

// The smallest set of most likely tokens whose probabilities reach top_p. Sorts only as far as that
// takes: with 129280 tokens a full sort would cost more than the draw is worth.
void Sampler::keep_top_p() {
  if (config_.top_p >= 1) return;
  double total = 0;
  for (const Candidate& c : kept_) total += c.weight;
  const double wanted = config_.top_p * total;
  double sum = 0;
  std::size_t sorted = 0;
  for (std::size_t i = 0; i < kept_.size(); ++i) {
    if (i == sorted) {
      sorted = std::min(kept_.size(), std::max<std::size_t>(64, 4 * sorted));
      std::partial_sort(kept_.begin() + static_cast<std::ptrdiff_t>(i),
                        kept_.begin() + static_cast<std::ptrdiff_t>(sorted), kept_.end(), before);
    }
    sum += kept_[i].weight;
    if (sum >= wanted) {
      kept_.resize(i + 1);
      return;
    }
  }
}

std::span<const Candidate> Sampler::candidates(std::span<const float> logits,
                                               const AllowedTokens& allowed) {
  load(logits, allowed);
  double largest = -std::numeric_limits<double>::infinity();
  for (const Candidate& c : kept_) largest = std::max(largest, c.weight);
  if (!std::isfinite(largest)) {
    throw Error(Code::kNumeric, cat("none of the ", logits.size(),
                                    " logits is a finite number: nothing can be sampled"));
  }
  if (config_.temperature == 0) {
    const auto best = std::min_element(kept_.begin(), kept_.end(), before);
    kept_ = {{best->token, 1.0}};
    return kept_;
  }
  for (Candidate& c : kept_) c.weight = std::exp((c.weight - largest) / config_.temperature);
  keep_top_k();
  // In the order of ids before sums, so that they do not depend on how top-k partitioned.
  const auto by_id = [](const Candidate& a, const Candidate& b) { return a.token < b.token; };
  std::sort(kept_.begin(), kept_.end(), by_id);
  keep_top_p();
  // The largest weight is exactly 1.
  if (config_.min_p > 0) std::erase_if(kept_, [&](auto& c) { return c.weight < config_.min_p; });
  std::sort(kept_.begin(), kept_.end(), by_id);
  return kept_;
}

int Sampler::sample(std::span<const float> logits, std::uint64_t position,
                    const AllowedTokens& allowed) {
  const std::span<const Candidate> from = candidates(logits, allowed);
  if (from.size() == 1) return from.front().token;
  double total = 0;
  for (const Candidate& c : from) total += c.weight;
  const double target = rng_.uniform(position) * total;
  double sum = 0;
  for (const Candidate& c : from) {
    sum += c.weight;
    if (sum > target) return c.token;
  }
  // Rounding left the last sum at the target: the last token that can be drawn at all.
  for (std::size_t i = from.size(); i-- > 0;) {
    if (from[i].weight > 0) return from[i].token;
  }
  return from.front().token;
}

}  // namespace cachalot::infer
