#include "infer/request.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"

namespace cachalot::infer {

namespace {

double rate(double count, double seconds) { return seconds > 0 ? count / seconds : 0; }

}  // namespace

std::string_view name(Finish finish) noexcept {
  switch (finish) {
    case Finish::kLength:
      return "length";
    case Finish::kContext:
      return "context";
    case Finish::kEos:
      return "eos";
    case Finish::kStopped:
      return "stop";
    case Finish::kCacheFull:
      return "cache_full";
    case Finish::kCancelled:
      return "cancelled";
    case Finish::kError:
      return "error";
  }
  return "length";
}

double Timings::prefill_tokens_per_s() const noexcept {
  return rate(prompt_tokens - reused_tokens, prefill_seconds);
}
double Timings::decode_tokens_per_s() const noexcept {
  return new_tokens > first_tokens ? rate(new_tokens - first_tokens, decode_seconds) : 0;
}

double MtpStats::acceptance() const noexcept {
  return drafted > 0 ? static_cast<double>(accepted) / static_cast<double>(drafted) : 0;
}

void MtpStats::add(const MtpStats& other) noexcept {
  enabled = enabled || other.enabled;
  drafted += other.drafted;
  accepted += other.accepted;
  passes += other.passes;
  for (std::size_t i = 0; i < drafted_at.size(); ++i) {
    drafted_at[i] += other.drafted_at[i];
    accepted_at[i] += other.accepted_at[i];
  }
}

MtpStats Result::mtp() const noexcept {
  MtpStats all;
  for (const Choice& choice : choices) all.add(choice.mtp);
  return all;
}

CertainStats Result::certain() const noexcept {
  CertainStats all;
  for (const Choice& choice : choices) {
    all.drafted += choice.certain.drafted;
    all.accepted += choice.certain.accepted;
  }
  return all;
}

void validate(const Request& r, const RequestLimits& limits) {
  if (r.prompt.empty()) {
    throw Error(Code::kUsage,
                "the prompt has no tokens: give at least one (a BOS token counts) to begin from");
  }
  for (std::size_t i = 0; i < r.prompt.size(); ++i) {
    const std::int32_t id = r.prompt[i];
    if (id < 0 || id >= limits.vocab_size) {
      throw Error(
          Code::kUsage,
          cat("token ", i, " of the prompt is ", id, ", but the model's vocabulary has ids 0 to ",
              limits.vocab_size - 1, ": the tokens come from another tokenizer"));
    }
  }
  if (r.prompt.size() > static_cast<std::size_t>(limits.context)) {
    throw Error(Code::kUsage,
                cat("the prompt has ", r.prompt.size(), " tokens, but the model's context holds ",
                    limits.context, " (max_position_embeddings): shorten the prompt"));
  }
  if (r.max_tokens < 0) {
    throw Error(Code::kUsage, cat("max-tokens is ", r.max_tokens, ", but it must be 0 or more"));
  }
  if (r.constraint && r.constraint->vocabulary().size() != limits.vocab_size) {
    throw Error(Code::kUsage,
                cat("the constraint is for a vocabulary of ", r.constraint->vocabulary().size(),
                    " tokens, but the model has ", limits.vocab_size, ": make it for this model"));
  }
  if (r.n < 1 || r.n > kMaxChoices) {
    throw Error(Code::kUsage, cat("n is ", r.n, ", but it must be 1 to ", kMaxChoices));
  }
  if (r.logprobs < -1 || r.logprobs > kMaxLogprobs) {
    throw Error(Code::kUsage,
                cat("logprobs is ", r.logprobs, ", but it must be -1 (off) to ", kMaxLogprobs));
  }
  if (!r.stop.empty() && !limits.has_tokenizer) {
    throw Error(Code::kUsage,
                "stop strings need a tokenizer, which this model has not: stop by token ids (eos)");
  }
  for (const std::string& stop : r.stop) {
    if (stop.empty()) {
      throw Error(Code::kUsage, "a stop string is empty, but it must have at least one character");
    }
  }
  validate(r.sampling);
}

TokenLogprobs logprobs_of(std::span<const float> logits, std::int32_t token, int top) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - largest);
  const double log_sum = static_cast<double>(largest) + std::log(sum);
  const auto logprob = [&](std::int32_t id) {
    return static_cast<float>(static_cast<double>(logits[static_cast<std::size_t>(id)]) - log_sum);
  };
  TokenLogprobs result{logprob(token), {}};
  const auto count = std::min(static_cast<std::size_t>(std::max(top, 0)), logits.size());
  std::vector<std::int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::partial_sort(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(count), ids.end(),
                    [&](std::int32_t a, std::int32_t b) {
                      const float x = logits[static_cast<std::size_t>(a)];
                      const float y = logits[static_cast<std::size_t>(b)];
                      return x > y || (x == y && a < b);
                    });
  for (std::size_t i = 0; i < count; ++i) result.top.push_back({ids[i], logprob(ids[i])});
  return result;
}

}  // namespace cachalot::infer
