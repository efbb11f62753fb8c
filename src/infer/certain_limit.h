// How many tokens of text that is certain to come are drafted at once.
//
// A constraint knows the text, not how the model cuts it into tokens. Where the model writes it as
// the tokenizer does, all of it is read in one pass; one that cuts otherwise would pay for rows
// that are thrown away. So after a miss no more are drafted than were right, and twice as many
// after each pass that was right to its end. Where none was right, one is tried after kPause
// tokens.
//
// Threads: one caller. Errors: none.
#pragma once

#include <algorithm>

namespace cachalot::infer {

class CertainLimit {
 public:
  static constexpr int kMost = 16;

  // For the next pass; counts it as one without where that is 0.
  int most() noexcept {
    if (most_ == 0 && ++paused_ >= kPause) most_ = 1;
    return most_;
  }
  void observe(int drafted, int right) noexcept {
    if (drafted == 0) return;
    most_ = right < drafted ? right : std::min(kMost, std::max(most_, 2 * right));
    if (most_ == 0) paused_ = 0;
  }

 private:
  static constexpr int kPause = 16;
  int most_ = kMost;
  int paused_ = 0;
};

}  // namespace cachalot::infer
