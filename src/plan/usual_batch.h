// The batch of a training plan where none is asked for, and why it is that one.
//
// Threads: pure functions.
// Errors:  none; the counts have been checked.
#pragma once

#include <string>

namespace cachalot::plan {

// Tokens of a step that are aimed at: 2^22, some four million.
inline constexpr int kUsualStepTokens = 1 << 22;

struct UsualBatch {
  int sequences = 0;
  std::string why;  // completes "chosen because"
};
// As many sequences on each device as make at most kUsualStepTokens in all, at least one.
UsualBatch usual_batch(int devices, int sequence);

}  // namespace cachalot::plan
