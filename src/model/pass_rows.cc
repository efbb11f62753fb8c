#include "model/pass_rows.h"

#include <algorithm>
#include <numeric>

#include "kernels/cross_entropy.h"
#include "kernels/rope.h"

namespace cachalot::model {

void PositionAngles::reach(const RopeConfig& rope, int positions) {
  if (positions <= cos_.rows()) return;
  std::vector<int> all(static_cast<std::size_t>(positions));
  std::iota(all.begin(), all.end(), 0);
  const MemoryScope host(nullptr);
  cos_.resize(positions, rope.dim / 2);
  sin_.resize(positions, rope.dim / 2);
  rope_table<float>(rope, all, cos_.view(), sin_.view());
}

// Sequences that begin as those before read the beginning of the same tables: the last micro-batch
// of a step may be a short one.
void RowLayout::lay_out(const RopeConfig& rope, PositionAngles& angles,
                        std::span<const std::int32_t> lengths) {
  spans_.clear();
  runs_.clear();
  rows_ = 0;
  const std::int64_t counted = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0}) -
                               static_cast<std::int64_t>(lengths.size());
  for (const std::int32_t length : lengths) {
    const int n = length - fewer_;
    runs_.push_back({n, static_cast<double>(length - 1) / static_cast<double>(counted)});
    if (n > 0) spans_.push_back({rows_, n, rows_, n});
    rows_ += n;
  }
  all_ = {rows_, 1};
  const bool there = lengths.size() <= lengths_.size() &&
                     std::equal(lengths.begin(), lengths.end(), lengths_.begin());
  if (there) return;
  lengths_.assign(lengths.begin(), lengths.end());
  fill_tables(rope, angles);
}

void RowLayout::fill_tables(const RopeConfig& rope, PositionAngles& angles) {
  int longest = 0;
  for (const AttentionSpan& s : spans_) longest = std::max(longest, s.q_rows);
  angles.reach(rope, longest);
  const int width = rope.dim / 2;
  {
    const MemoryScope host(nullptr);
    staged_.resize(rows_, width);
  }
  const auto fill = [&](MatView<const float> from, Mat<float>& to) {
    for (const AttentionSpan& s : spans_) {
      std::copy_n(from.data, static_cast<std::size_t>(s.q_rows) * static_cast<std::size_t>(width),
                  staged_.row(s.q_begin));
    }
    to.resize(rows_, width);
    upload<float>(staged_.span(), to);
  };
  fill(angles.cos(), cos_);
  fill(angles.sin(), sin_);
}

void Indices::to_ops() {
  ops.resize(1, static_cast<int>(host.size()));
  upload<std::int32_t>(host, ops);
}
void Indices::from_ops(std::size_t n) {
  host.resize(n);
  download<std::int32_t>(ops, host);
}

void RowTokens::set(const Sequences& s, int ahead, int score_from) {
  for (Indices* i : {&inputs, &targets, &rows}) i->host.clear();
  scored = 0;
  // The MTP layer's row before predicts the same token.
  const int from = std::max(score_from - ahead, 0);
  std::size_t first = 0;      // token of the sequence
  std::int32_t main_row = 0;  // its first
  for (const std::int32_t length : s.lengths) {
    for (int i = 0; i + ahead + 1 < length; ++i) {
      const std::size_t read = first + static_cast<std::size_t>(i + ahead);
      const bool learnt = s.learnt.empty() || s.learnt[read + 1] != 0;
      const bool predicts = learnt && i >= from;
      inputs.host.push_back(s.tokens[read]);
      targets.host.push_back(predicts ? s.tokens[read + 1] : kNoTarget);
      if (ahead > 0) rows.host.push_back(main_row + i);
      scored += predicts ? 1 : 0;
    }
    first += static_cast<std::size_t>(length);
    main_row += length - 1;
  }
  inputs.to_ops();
  targets.to_ops();
  if (ahead > 0) rows.to_ops();
}

}  // namespace cachalot::model
