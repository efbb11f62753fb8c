// What a training pass reads: sequences one behind the other, and which of their tokens are learnt.
//
// Threads: plain values.
// Errors:  check: kUsage.
#pragma once

#include <cstdint>
#include <span>

namespace cachalot::model {

// Sequences of a micro-batch; none sees another. All of one length: windows of a packed text. Of
// several: samples of conversations.
struct Sequences {
  std::span<const std::int32_t> tokens;   // of all
  std::span<const std::int32_t> lengths;  // tokens of each, 2 at least; together all of them
  // [tokens] or empty: 0 where a token is read only. Losses, counts and the gradients of heads are
  // of the others; a sequence's first token is predicted by nothing.
  std::span<const std::uint8_t> learnt = {};
};

// Lengths and tokens are what they say; ids lie in [0, vocab).
void check(const Sequences& sequences, int vocab);
bool of_one_length(const Sequences& sequences) noexcept;

// Rows that each loss is a mean of.
struct LossRows {
  std::int64_t main = 0, mtp = 0;
  // Of the balance loss: every row, and every one of the MTP layer.
  std::int64_t all = 0, mtp_all = 0;

  LossRows& operator+=(const LossRows& other) noexcept;
};
// `mtp`: there is an MTP layer. Of checked sequences.
LossRows loss_rows(const Sequences& sequences, bool mtp);

// What a micro-batch weighs in its step: its share of the rows of each loss. Losses are not scaled
// by it, gradients are.
struct LossShare {
  float main = 1, mtp = 1, balance = 1, mtp_balance = 1;
  static LossShare equal(float share) noexcept { return {share, share, share, share}; }
  static LossShare of(const LossRows& part, const LossRows& step) noexcept;  // of no rows: 0
};

}  // namespace cachalot::model
