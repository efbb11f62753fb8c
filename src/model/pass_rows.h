// The rows of a training pass as its ops read them: what they see of each other, their angles, how
// they are balanced, and the tokens that they read and predict.
//
// Owns:    tables and index lists, reused from pass to pass: passes of a size that was there
//          before allocate nothing.
// Threads: one caller.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/attention.h"
#include "model/sequences.h"
#include "nn/balance.h"
#include "nn/dims.h"
#include "tensor/mat.h"

namespace cachalot::model {

// cos and sin of every position that a pass has had, on the host: what layouts are put together
// from.
class PositionAngles {
 public:
  void reach(const RopeConfig& rope, int positions);
  MatView<const float> cos() const noexcept { return cos_.cview(); }  // [P, R / 2]
  MatView<const float> sin() const noexcept { return sin_.cview(); }

 private:
  Mat<float> cos_, sin_;
};

// What does not depend on the tokens. A sequence of n tokens has n - `fewer` rows here, 1 or 2;
// one without rows has no span.
class RowLayout {
 public:
  explicit RowLayout(int fewer) : fewer_(fewer) {}
  void lay_out(const RopeConfig& rope, PositionAngles& angles,
               std::span<const std::int32_t> lengths);

  int rows() const noexcept { return rows_; }
  nn::RopeRows rope() const noexcept {
    return {cos_.cview().sub_rows(0, rows_), sin_.cview().sub_rows(0, rows_)};
  }
  std::span<const AttentionSpan> spans() const noexcept { return spans_; }
  // Of each sequence, or of all rows as one. A sequence counts by its rows of the main model in
  // each layer, the MTP layer too, so that the losses of micro-batches add up to those of a step.
  std::span<const nn::BalanceRun> runs(bool over_batch) const noexcept {
    return over_batch ? std::span<const nn::BalanceRun>(&all_, 1) : runs_;
  }

 private:
  void fill_tables(const RopeConfig& rope, PositionAngles& angles);

  int fewer_;
  int rows_ = 0;
  std::vector<AttentionSpan> spans_;
  std::vector<nn::BalanceRun> runs_;
  nn::BalanceRun all_;
  std::vector<std::int32_t> lengths_;  // that the tables were made for
  Mat<float> cos_, sin_;               // [T, R / 2]
  Mat<float> staged_;                  // the host's
};

// Token ids and row numbers as the ops read and write them, and the host's.
struct Indices {
  std::vector<std::int32_t> host;
  Mat<std::int32_t> ops;  // [1, n]

  std::size_t size() const noexcept { return host.size(); }
  std::span<const std::int32_t> span() const noexcept { return ops.span(); }
  void to_ops();
  void from_ops(std::size_t n);
};

// Rows of the main model or of the MTP layer, which reads and predicts one token further on.
struct RowTokens {
  Indices inputs;
  Indices targets;          // kNoTarget where nothing is learnt
  Indices rows;             // of the MTP layer: the main model's row that each continues
  std::int64_t scored = 0;  // rows with a target

  // Row i of a sequence reads token i + ahead and predicts the next; 0, or 1 for the MTP layer.
  void set(const Sequences& sequences, int ahead, int score_from);
};

}  // namespace cachalot::model
