#include "model/sequences.h"

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace cachalot::model {

void check(const Sequences& sequences, int vocab) {
  std::size_t sum = 0;
  for (const std::int32_t length : sequences.lengths) {
    if (length < 2) {
      throw Error(Code::kUsage, cat("a sequence has ", length,
                                    " token(s), but needs two: one to read and one to predict"));
    }
    sum += static_cast<std::size_t>(length);
  }
  if (sum == 0) throw Error(Code::kUsage, "a pass needs at least one sequence");
  if (sum != sequences.tokens.size()) {
    throw Error(Code::kUsage, cat("the lengths of the sequences add up to ", sum, ", but ",
                                  sequences.tokens.size(), " tokens were given"));
  }
  if (sum > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
    throw Error(Code::kUsage,
                cat("the sequences of a pass have ", sum,
                    " tokens, but it takes at most 2^31 - 1: use smaller ", "micro-batches"));
  }
  if (!sequences.learnt.empty() && sequences.learnt.size() != sum) {
    throw Error(Code::kUsage, cat(sequences.learnt.size(), " tokens are said to be learnt or not, ",
                                  "but there are ", sum));
  }
  for (const std::int32_t id : sequences.tokens) {
    if (id >= 0 && id < vocab) continue;
    throw Error(Code::kUsage, cat("token id ", id, " is outside the vocabulary of ", vocab,
                                  ": the token file belongs to another tokenizer"));
  }
}

bool of_one_length(const Sequences& sequences) noexcept {
  const auto& lengths = sequences.lengths;
  return std::all_of(lengths.begin(), lengths.end(),
                     [&](std::int32_t length) { return length == lengths.front(); });
}

LossRows& LossRows::operator+=(const LossRows& other) noexcept {
  main += other.main;
  mtp += other.mtp;
  all += other.all;
  mtp_all += other.mtp_all;
  return *this;
}

LossRows loss_rows(const Sequences& sequences, bool mtp) {
  LossRows rows;
  std::size_t begin = 0;
  for (const std::int32_t length : sequences.lengths) {
    const auto n = static_cast<std::size_t>(length);
    rows.all += length - 1;
    rows.mtp_all += mtp ? length - 2 : 0;
    for (std::size_t i = 1; i < n; ++i) {
      if (!sequences.learnt.empty() && sequences.learnt[begin + i] == 0) continue;
      rows.main += 1;
      rows.mtp += mtp && i > 1 ? 1 : 0;  // the MTP layer predicts from the third token on
    }
    begin += n;
  }
  return rows;
}

static float quotient(std::int64_t part, std::int64_t whole) noexcept {
  if (whole == 0) return 0;
  return static_cast<float>(static_cast<double>(part) / static_cast<double>(whole));
}

LossShare LossShare::of(const LossRows& part, const LossRows& step) noexcept {
  return {quotient(part.main, step.main), quotient(part.mtp, step.mtp),
          quotient(part.all, step.all), quotient(part.mtp_all, step.mtp_all)};
}

}  // namespace cachalot::model
