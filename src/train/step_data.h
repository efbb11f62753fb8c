// What the steps of a run read: windows of a packed text, or packed samples of conversations.
//
// A position is one number, that of a window: a pure function of files, recipe and number says what
// is in it, so that a run is resumed by starting from that number.
//
// Owns:    the mappings of its files, and what the last `read` gave.
// Threads: one caller.
// Errors:  those of text/dataset.h and text/packed_samples.h.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "model/train_graph.h"
#include "text/dataset.h"
#include "text/packed_samples.h"
#include "train/recipe.h"
#include "train/run_data.h"

namespace cachalot::train {

class StepData {
 public:
  // `mtp`: the model has an MTP layer, which has rows of its own.
  StepData(const Recipe& recipe, const RunData& data, bool mtp);

  // Windows [first, first + n), n >= 1; stands until the next call.
  model::Sequences read(std::int64_t first, int n);
  // Rows that the losses of those windows are of.
  model::LossRows rows(std::int64_t first, int n);

  std::int64_t windows() const noexcept;          // per epoch
  double rows_per_window() const noexcept;        // in the mean
  double rows_per_sequence() const noexcept;      // likewise: what attention looks back over
  std::int64_t rows_before(std::int64_t window);  // of windows [0, window)
  std::uint64_t hash() const;                     // of the tokens, and of what of them is learnt
  std::string remark() const;  // what of the conversations is trained on; empty of a text

 private:
  void gather(std::int64_t first, int n);

  std::int64_t seq_len_ = 0;
  bool mtp_ = false;
  std::unique_ptr<text::Dataset> text_;  // one of the two
  std::unique_ptr<text::PackedSamples> samples_;
  text::SampleTokens read_;
};

}  // namespace cachalot::train
