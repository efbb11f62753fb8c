// One text on its way through the engine: its tokens, what the model has read of them, and how it
// ends. A request is one such text per choice.
//
// A text is read from its first unread token to its end; whether those tokens came with the request
// or were generated makes no difference, so a text that lost its pages is simply read again.
//
// Owns:    its share of the cache's pages.
// Threads: the engine's.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "grammar/matcher.h"
#include "infer/certain_limit.h"
#include "infer/draft_policy.h"
#include "infer/request.h"
#include "infer/text_stream.h"
#include "model/latent_cache.h"
#include "tensor/mat.h"

namespace cachalot::infer {

using Clock = std::chrono::steady_clock;
inline double seconds_between(Clock::time_point a, Clock::time_point b) {
  return std::chrono::duration<double>(b - a).count();
}

// Normed rows of the main model that the MTP layer has not read yet, in order: it is run when a
// draft is wanted, for all of them at once, so that a text that does not draft pays nothing. They
// lie where the model runs.
class LagRows {
 public:
  int rows() const noexcept { return rows_; }
  void append(const Context& ctx, MatView<const float> rows);
  MatView<const float> view() const noexcept { return data_.cview().sub_rows(begin_, rows_); }
  LagRows first(int rows) const;
  void keep_first(int rows) noexcept { rows_ = rows; }
  void drop_first(int rows) noexcept {
    begin_ += rows;
    rows_ -= rows;
  }
  void clear() noexcept { begin_ = rows_ = 0; }

 private:
  Mat<float> data_;  // rows [begin_, begin_ + rows_) count
  int begin_ = 0, rows_ = 0;
};

// What the model has read of a text: kept by a stream, and after its end for texts that begin
// alike. Row i of the MTP layer has read token i + 1.
struct ReadText {
  explicit ReadText(model::CachePool& pool) : cache(pool) {}
  std::vector<std::int32_t> tokens;  // at least the cache's length
  model::LatentCache cache;
  LagRows lag;  // of positions [cache.mtp_length(), cache.length()), where there is an MTP layer

  int length() const noexcept { return cache.length(); }
  // Pages of its own for `rows` rows more and, with `mtp`, for those that the MTP layer is behind.
  [[nodiscard]] bool reserve(int rows, bool mtp);
  // Forgets all but the first `length` rows. Rows of the MTP layer stay with those they belong to.
  void truncate(int length);
  // How much of this serves a text that begins with `wanted`: rows, and of them the MTP layer's.
  struct Shared {
    int rows = 0;
    int mtp_rows = 0;
  };
  Shared shared_with(std::span<const std::int32_t> wanted, bool mtp) const;
  // That much of it, on the same pages.
  ReadText fork(const Shared& shared) const;

 private:
  explicit ReadText(model::LatentCache c) : cache(std::move(c)) {}
};

// A request and what is known of its answer; its choices share it.
struct Job {
  RequestId id = 0;
  Request request;
  Clock::time_point submitted{};
  std::optional<Clock::time_point> started, first_token;
  Clock::time_point last_token{};
  Result result;
  int unfinished = 0;  // choices
};

class Stream {
 public:
  Stream(std::shared_ptr<Job> job, int choice, model::CachePool& pool,
         const text::Tokenizer* tokenizer);

  Job& job() const noexcept { return *job_; }
  const std::shared_ptr<Job>& shared_job() const noexcept { return job_; }
  Choice& choice() const noexcept {
    return job_->result.choices[static_cast<std::size_t>(choice_)];
  }
  const Request& request() const noexcept { return job_->request; }
  bool done() const noexcept { return done_; }

  int size() const noexcept { return static_cast<int>(read.tokens.size()); }
  int unread() const noexcept { return size() - read.length(); }
  bool decodes() const noexcept { return unread() == 1 && !choice().tokens.empty(); }
  int wanted() const noexcept {
    return request().max_tokens - static_cast<int>(choice().tokens.size());
  }
  // Drafts that can be of use: one token of those still wanted needs none, and all must fit.
  // `most` bounds them besides.
  int useful_drafts(int most = kMaxDrafts) const noexcept;
  // Before others where resources are short: higher priority, then earlier.
  bool is_senior_to(const Stream& other) const noexcept;

  // The token for the end of the text, from the main model's logits there.
  std::int32_t sample(std::span<const float> logits);
  // A guess at the token `ahead` places after the one sample() gives next: the same draw, from
  // other logits, so that two models that agree draw the same token. After the guess `ahead` - 1;
  // nullopt where that one would end the text.
  std::optional<std::int32_t> guess(std::span<const float> logits, int ahead);
  // Drafts what the constraint leaves no choice about.
  void draft_certain();
  // Takes a sampled token into the text and the answer. False when it ended the text, or when the
  // text slid: rows read with it are then of another text.
  bool take(std::int32_t token, std::span<const float> logits);
  void end(Finish finish);

  ReadText read;
  std::vector<std::int32_t> drafts;  // guesses at the tokens after the text's end
  bool drafts_are_certain = false;   // the constraint's, not the MTP layer's
  DraftState draft_state;
  CertainLimit certain_limit;
  int forks = 0;  // further choices that begin where its prompt ends
  // Of what is read of this text, blocks from its beginning that the prefix store was given.
  int stored_blocks = 0;
  // Whole blocks that were read when the store was last offered some: while a text generates, it is
  // asked once for each, whether or not it had room.
  int offered_blocks = 0;
  bool fills_block() const noexcept { return read.length() / kLatentBlock > offered_blocks; }
  bool running = false;

 private:
  void slide();
  bool ends_text(std::int32_t token) const noexcept;
  std::int32_t sample(std::span<const float> logits, int ahead, grammar::Matcher* matcher);

  std::shared_ptr<Job> job_;
  int choice_;
  Sampler sampler_;
  std::optional<grammar::Matcher> matcher_;  // where the request has a constraint
  std::optional<grammar::Matcher> ahead_;    // behind the last guess
  std::optional<TextStream> text_;
  Clock::time_point last_{};
  bool done_ = false;
};

}  // namespace cachalot::infer
