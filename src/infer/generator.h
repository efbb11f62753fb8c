// Prompt to tokens: prefill in chunks, then one decode pass per step for all sequences together,
// with MTP drafts verified in the same pass.
//
// Owns:    the pool of the latent caches, nothing of the model; a Sequence holds its pages and may
// be
//          used again (the next turn of a chat): what the new prompt shares with it is not computed
//          twice. A Sequence does not outlive the Generator of its pool.
// Threads: one caller per Generator; the callbacks run on the caller's thread.
// Errors:  kUsage (an empty prompt, a token past the vocabulary, a prompt past the context, MTP
//          asked for where the model has none), kNumeric (a row of logits with NaN). A full pool is
//          no error: the request ends with Finish::kCacheFull.
// Paper:   V3 report 2.2 and 5.4.3 (multi-token prediction as a draft).
//
// A draft is kept only where the sampler, asked at that position with the main model's logits,
// gives the same token: the output is what it would be without drafts, greedy or sampled. With
// absorbed attention (the default) a token's bits depend on the tokens before it alone: not on the
// batch, the chunks of the prompt, what was found in the Sequence, drafts, or threads.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "infer/sampler.h"
#include "model/cache_pool.h"
#include "model/forward.h"

namespace cachalot::infer {

enum class MtpMode : std::uint8_t { kAuto, kOn, kOff };  // kAuto: where the model has an MTP layer
enum class Finish : std::uint8_t { kLength, kContext, kEos, kStopped, kCacheFull };
std::string_view name(Finish finish) noexcept;  // "length", "context", "eos", ...

struct GeneratorConfig {
  MtpMode mtp = MtpMode::kAuto;
  // kAuto reads long prompts faster, but then bits depend on how a prompt is cut and on whether a
  // token was read as prompt or generated.
  model::AttentionMode attention = model::AttentionMode::kAbsorbed;
  int prefill_chunk = 512;                 // tokens per prefill pass
  std::optional<LatentFormat> cache = {};  // none: what the model's precision asks for
  std::size_t cache_bytes = 0;             // of the pool; 0: default_cache_bytes
};

// Half of the memory there is, but no more than 64 sequences as long as the model's context need.
std::size_t default_cache_bytes(const model::Config& config, LatentFormat format);

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
  explicit Sequence(model::CachePool& pool) : cache_(pool) {}
  // Another text that begins with the first `length` tokens of this one, on the same pages.
  Sequence fork(int length) const;
  std::span<const std::int32_t> tokens() const noexcept { return tokens_; }
  std::size_t cache_bytes() const noexcept { return cache_.bytes(); }

 private:
  friend class Generator;
  Sequence(model::LatentCache cache, std::span<const std::int32_t> tokens)
      : cache_(std::move(cache)), tokens_(tokens.begin(), tokens.end()) {}
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
  model::CachePool& pool() noexcept { return pool_; }

 private:
  struct Slot;
  bool reserve(Sequence& sequence, int tokens) const;
  void check(const Request& request) const;
  void prefill(Slot& slot);
  void draft(std::span<Slot*> slots, MatView<const float> hidden);
  void decode(std::span<Slot*> live);
  std::span<const float> logits_row(int row) const;

  const Context& ctx_;
  const model::Model& model_;
  GeneratorConfig config_;
  model::CachePool pool_;
  model::Forward forward_;
  bool mtp_ = false;
  Mat<float> logits_, hidden_, picked_;
};

}  // namespace cachalot::infer
