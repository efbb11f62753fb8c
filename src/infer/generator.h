// Prompt to tokens: prefill in chunks, then one decode pass per step for all sequences together,
// with MTP drafts verified in the same pass.
//
// Owns:    nothing of the model; a Sequence owns its cache and may be used again (the next turn of
//          a chat): what the new prompt shares with it is not computed twice.
// Threads: one caller per Generator; the callbacks run on the caller's thread.
// Errors:  kUsage (an empty prompt, a token past the vocabulary, a prompt past the context, MTP
//          asked for where the model has none), kNumeric (a row of logits with NaN).
// Paper:   V3 report 2.2 and 5.4.3 (multi-token prediction as a draft).
//
// A draft is kept only where the sampler, asked at that position with the main model's logits,
// gives the same token: the output is what it would be without drafts, greedy or sampled.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "infer/sampler.h"
#include "model/forward.h"

namespace cachalot::infer {

enum class MtpMode : std::uint8_t { kAuto, kOn, kOff };  // kAuto: where the model has an MTP layer
enum class Finish : std::uint8_t { kLength, kContext, kEos, kStopped };
std::string_view name(Finish finish) noexcept;  // "length", "context", "eos", "stop"

struct GeneratorConfig {
  MtpMode mtp = MtpMode::kAuto;
  model::AttentionMode attention = model::AttentionMode::kAuto;
  int prefill_chunk = 512;  // tokens per prefill pass
};

struct Request {
  std::vector<std::int32_t> prompt;
  SamplerConfig sampling;
  std::uint64_t stream = 0;  // keeps sequences with one seed apart
  int max_tokens = 256;
  std::vector<std::int32_t> eos;  // tokens that end the text; empty: only max_tokens does
  std::function<bool(std::int32_t)> on_token = nullptr;  // each new token as it comes; false stops
};

struct Timings {
  int prompt_tokens = 0;
  int reused_tokens = 0;  // of the prompt, found in the Sequence
  int new_tokens = 0;
  double prefill_seconds = 0;
  double first_token_seconds = 0;  // from the start of run()
  double decode_seconds = 0;       // after the first token
  double prefill_tokens_per_s() const noexcept;
  double decode_tokens_per_s() const noexcept;  // without the first token; 0 where there is none
};

struct MtpStats {
  bool enabled = false;
  std::int64_t drafted = 0;
  std::int64_t accepted = 0;
  std::int64_t passes = 0;  // decode passes
  double acceptance() const noexcept;
};

struct Result {
  std::vector<std::int32_t> tokens;  // the new ones, with the EOS that ended them
  Finish finish = Finish::kLength;
  Timings timings;
  MtpStats mtp;
};

// What the model has read of one text: its tokens and their latent rows.
class Sequence {
 public:
  explicit Sequence(const model::Model& model);
  std::span<const std::int32_t> tokens() const noexcept { return tokens_; }
  std::size_t cache_bytes() const noexcept { return cache_.bytes(); }

 private:
  friend class Generator;
  // Forgets all but the first `length` tokens.
  void truncate(int length);
  model::LatentCache cache_;
  std::vector<std::int32_t> tokens_;  // of the cache's main rows
};

class Generator {
 public:
  Generator(const Context& ctx, const model::Model& model, const GeneratorConfig& config = {});

  // All requests decode together, each on the Sequence of the same index.
  std::vector<Result> run(std::span<const Request> requests, std::span<Sequence*> sequences);
  std::vector<Result> run(std::span<const Request> requests);  // on fresh sequences
  Result run(const Request& request, Sequence& sequence);
  bool mtp() const noexcept { return mtp_; }

 private:
  struct Slot;
  void check(const Request& request) const;
  void prefill(Slot& slot);
  void draft(std::span<Slot*> slots, MatView<const float> hidden);
  void decode(std::span<Slot*> live);
  std::span<const float> logits_row(int row) const;

  const Context& ctx_;
  const model::Model& model_;
  GeneratorConfig config_;
  model::Forward forward_;
  bool mtp_ = false;
  Mat<float> logits_, hidden_, picked_;
};

}  // namespace cachalot::infer
