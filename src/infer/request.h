// What is asked of the engine, and what comes back.
//
// Owns:    plain values; the callbacks run on the engine's thread and must not call the engine's
//          step(), run() or serve() (submit and cancel are fine).
// Errors:  validate: kUsage, naming what was met and what is needed. What a callback throws harms
//          no other request (engine.h).
#pragma once

#include <array>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/constraint.h"
#include "infer/sampler.h"

namespace cachalot::infer {

using RequestId = std::uint64_t;

enum class Finish : std::uint8_t {
  kLength,     // max_tokens
  kContext,    // the model's context is full and the request does not slide
  kEos,        // a token of `eos`, or all that the constraint lets a text be
  kStopped,    // a stop string, or on_token said so
  kCacheFull,  // the pool of cache pages cannot hold this text even alone
  kCancelled,
  kError,  // Result::error says which
};
std::string_view name(Finish finish) noexcept;  // "length", "context", "eos", "stop", ...

// When a text reaches the model's context (max_position_embeddings).
enum class ContextEnd : std::uint8_t {
  kStop,   // Finish::kContext
  kSlide,  // the older half is forgotten and the rest read again, from position 0 on
};

struct TokenLogprob {
  std::int32_t token = 0;
  float logprob = 0;  // natural logarithm, of the model's distribution before penalties and filters
};
struct TokenLogprobs {
  float logprob = 0;              // of the token that was chosen
  std::vector<TokenLogprob> top;  // the most likely ones, falling; ties to the lower id
};

struct NewToken {
  int choice = 0;
  std::int32_t token = 0;
  std::string_view text;  // what became certain with it; empty without a tokenizer
  const TokenLogprobs* logprobs = nullptr;  // where asked for
};

struct Timings {
  int prompt_tokens = 0;
  int reused_tokens = 0;           // of the prompt, found in pages or in the store: not computed
  int new_tokens = 0;              // of all choices
  int first_tokens = 0;            // choices that have a token
  double queue_seconds = 0;        // until it was first given pages
  double prefill_seconds = 0;      // from then to the first token
  double first_token_seconds = 0;  // from submit to the first token
  double decode_seconds = 0;       // after the first token, to the last of any choice
  double longest_gap_seconds = 0;  // between two tokens of one choice
  // What DeepSeek's API reports: whole blocks of 64 tokens.
  int hit_tokens() const noexcept { return reused_blocks * 64; }
  int miss_tokens() const noexcept { return prompt_tokens - hit_tokens(); }
  int reused_blocks = 0;
  double prefill_tokens_per_s() const noexcept;
  double decode_tokens_per_s() const noexcept;  // without the first tokens; 0 where none is left
};

inline constexpr int kMaxDrafts = 4;

struct MtpStats {
  bool enabled = false;
  std::int64_t drafted = 0;
  std::int64_t accepted = 0;
  std::int64_t passes = 0;                            // decode passes
  std::array<std::int64_t, kMaxDrafts> drafted_at{};  // by how far ahead
  std::array<std::int64_t, kMaxDrafts> accepted_at{};
  double acceptance() const noexcept;  // 0 without drafts
  void add(const MtpStats& other) noexcept;
};

// Drafts of text that the constraint leaves no choice about: only its cut into tokens is a guess.
struct CertainStats {
  std::int64_t drafted = 0;
  std::int64_t accepted = 0;
};

struct Choice {
  std::vector<std::int32_t> tokens;  // the new ones, with the EOS that ended them
  std::string text;                  // without what was held back for a stop string that came
  // Bytes of `text` that on_token was told. The rest was held back (a stop string or a character
  // that might have gone on) when the text ended without another token.
  std::size_t told = 0;
  std::string_view untold() const { return std::string_view(text).substr(told); }
  std::vector<TokenLogprobs> logprobs;  // one per token where asked for
  Finish finish = Finish::kLength;
  MtpStats mtp;
  CertainStats certain;
  int slides = 0;              // times the older half of the text was forgotten
  std::int64_t forgotten = 0;  // tokens
};

struct Result {
  RequestId id = 0;
  std::vector<Choice> choices;
  Timings timings;
  int preemptions = 0;       // times its pages were given to others and read again
  std::exception_ptr error;  // of Finish::kError
  const std::vector<std::int32_t>& tokens() const { return choices.front().tokens; }
  Finish finish() const { return choices.front().finish; }
  MtpStats mtp() const noexcept;  // of all choices
  CertainStats certain() const noexcept;
};

struct Request {
  std::vector<std::int32_t> prompt;
  SamplerConfig sampling;
  std::uint64_t stream = 0;  // keeps requests with one seed apart; choice i draws from stream + i
  int max_tokens = 256;
  std::vector<std::int32_t> eos;  // tokens that end the text; empty: only max_tokens does
  std::vector<std::string> stop;  // texts that end it; need a tokenizer
  // What the text is held to; where it is complete and nothing can follow, that ends it (kEos).
  std::shared_ptr<const grammar::Constraint> constraint = nullptr;
  int n = 1;          // choices; they share the prompt's pages
  int logprobs = -1;  // -1: none; else how many of the most likely tokens come along
  int priority = 0;   // larger goes first
  ContextEnd context_end = ContextEnd::kStop;
  std::function<bool(const NewToken&)> on_token = nullptr;  // each as it comes; false stops it
  std::function<void(const Result&)> on_done = nullptr;
};

inline constexpr int kMaxChoices = 128;
inline constexpr int kMaxLogprobs = 20;

struct RequestLimits {
  int vocab_size = 0;
  int context = 0;
  bool has_tokenizer = false;
};
void validate(const Request& request, const RequestLimits& limits);  // kUsage

// The log-probability of `token` and of the `top` most likely ones in a row of logits.
TokenLogprobs logprobs_of(std::span<const float> logits, std::int32_t token, int top);

}  // namespace cachalot::infer
