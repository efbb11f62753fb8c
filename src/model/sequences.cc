#include "model/sequences.h"

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace cachalot::model {

void check(const Sequences& s) {
  if (s.lengths.empty()) {
    throw Error(Code::kUsage, "a training pass has no sequences; it needs one at least");
  }
  if (s.tokens.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
    throw Error(Code::kUsage, cat("a training pass has ", s.tokens.size(),
                                  " tokens, more than 2^31 - 1: use a smaller micro-batch"));
  }
  std::int64_t sum = 0;
  for (std::size_t i = 0; i < s.lengths.size(); ++i) {
    if (s.lengths[i] < 2) {
      throw Error(Code::kUsage, cat("sequence ", i, " of a training pass has ", s.lengths[i],
                                    " tokens; it needs 2 at least, one to predict the other from"));
    }
    sum += s.lengths[i];
  }
  if (sum != static_cast<std::int64_t>(s.tokens.size())) {
    throw Error(Code::kUsage,
                cat("the sequences of a training pass have ", sum, " tokens together, but ",
                    s.tokens.size(), " were given: lengths have to be those of the tokens"));
  }
  if (!s.learnt.empty() && s.learnt.size() != s.tokens.size()) {
    throw Error(Code::kUsage,
                cat("which tokens are learnt is said of ", s.learnt.size(), " of ", s.tokens.size(),
                    " tokens: it needs one mark per token, or none"));
  }
}

void check(const Sequences& s, int vocab_size, int score_from) {
  check(s);
  const int shortest = *std::min_element(s.lengths.begin(), s.lengths.end()) - 1;
  if (score_from < 0 || score_from >= shortest) {
    throw Error(Code::kUsage, cat("losses begin at row ", score_from,
                                  ", but a sequence has rows 0 to ", shortest - 1));
  }
  if (score_from > 0 && !s.learnt.empty()) {
    throw Error(Code::kUsage, cat("losses begin at row ", score_from,
                                  " of sequences whose tokens say themselves which are learnt: "
                                  "give one of the two"));
  }
  for (const std::int32_t id : s.tokens) {
    if (id >= 0 && id < vocab_size) continue;
    throw Error(Code::kUsage, cat("token id ", id, " is outside the vocabulary of ", vocab_size,
                                  ": the token file belongs to another tokenizer"));
  }
}

LossRows& LossRows::operator+=(const LossRows& other) noexcept {
  main += other.main;
  mtp += other.mtp;
  all += other.all;
  return *this;
}

// Of a sequence, the main model predicts each token but the first, the MTP layer each from the
// third on.
LossRows loss_rows(const Sequences& s, bool mtp) {
  check(s);
  LossRows rows;
  std::size_t first = 0;
  for (const std::int32_t length : s.lengths) {
    rows.all += length - 1;
    for (std::size_t i = 1; i < static_cast<std::size_t>(length); ++i) {
      if (!s.learnt.empty() && s.learnt[first + i] == 0) continue;
      ++rows.main;
      if (mtp && i >= 2) ++rows.mtp;
    }
    first += static_cast<std::size_t>(length);
  }
  return rows;
}

static float part_of(std::int64_t part, std::int64_t whole) noexcept {
  if (whole == 0) return 0;
  return static_cast<float>(static_cast<double>(part) / static_cast<double>(whole));
}

LossShare LossShare::of(const LossRows& part, const LossRows& step) noexcept {
  return {part_of(part.main, step.main), part_of(part.mtp, step.mtp), part_of(part.all, step.all)};
}

}  // namespace cachalot::model
