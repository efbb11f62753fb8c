// What a training pass reads: sequences of tokens, and which of their tokens count.
//
// Row i of a sequence reads token i; the main model predicts token i + 1 from it, the MTP layer
// token i + 2. So a sequence of n tokens has n - 1 rows, and n - 2 of the MTP layer.
// Threads: plain values.
// Errors:  kUsage for lengths that are not those of the tokens.
#pragma once

#include <cstdint>
#include <span>

namespace cachalot::model {

// Sequences of a micro-batch, one behind the other; none sees another. All of one length: windows
// of a packed text. Of several: samples of conversations.
struct Sequences {
  std::span<const std::int32_t> tokens;   // of all
  std::span<const std::int32_t> lengths;  // tokens of each, 2 at least; together all of them
  // [tokens] or empty: 0 where a token is read only. Losses, counts and the gradients of heads are
  // of the others; a sequence's first token is predicted by nothing.
  std::span<const std::uint8_t> learnt = {};
};

// Throws where lengths or `learnt` do not fit the tokens.
void check(const Sequences& sequences);
// And where a token is none of `vocab_size`, or `score_from` (LossOptions) leaves a sequence
// nothing.
void check(const Sequences& sequences, int vocab_size, int score_from);

// Rows that each loss is a mean of.
struct LossRows {
  std::int64_t main = 0, mtp = 0;
  std::int64_t all = 0;  // of the balance loss: every row of the main model

  LossRows& operator+=(const LossRows& other) noexcept;
};
// `mtp`: there is an MTP layer.
LossRows loss_rows(const Sequences& sequences, bool mtp);

// What a micro-batch weighs in its step: its share of the rows of each loss. Losses are not scaled
// by it, gradients are.
struct LossShare {
  float main = 1, mtp = 1, balance = 1;
  static LossShare equal(float share) noexcept { return {share, share, share}; }
  static LossShare of(const LossRows& part, const LossRows& step) noexcept;  // none of none: 0
};

}  // namespace cachalot::model
