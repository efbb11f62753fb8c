// Dropout in a training pass: of what enters the residual stream, as GPT models have it (the
// embedding, and the result of each attention and each feed-forward part).
//
// Rows are numbered over the whole run, so the mask of a sequence depends on the sequence's number
// alone: neither on threads nor on how a step is cut into micro-batches or a run into resumes.
// Threads: a plain value.
#pragma once

#include <cstdint>

#include "kernels/dropout.h"

namespace cachalot::nn {

enum class DropoutPlace : std::uint8_t { kEmbedding, kAttention, kFeedForward };

// Of one layer in one pass.
struct LayerDropout {
  double rate = 0;  // 0: nothing is dropped, and nothing computed for it
  std::uint64_t seed = 0;
  std::int64_t first_row = 0;  // the number of the pass's first row in the run
  int layer = 0;               // the MTP layer comes after the others

  bool on() const noexcept { return rate > 0; }
  LayerDropout of_layer(int l) const noexcept { return {rate, seed, first_row, l}; }
  DropoutMask mask(DropoutPlace place) const noexcept {
    // Other users of the run's seed have streams of their own: epochs from 0 on, hashes of names.
    constexpr std::uint64_t kStreams = std::uint64_t{0xD20F0475} << 32;
    return {rate, seed,
            kStreams + 4 * static_cast<std::uint64_t>(layer) + static_cast<std::uint64_t>(place),
            first_row};
  }
};

}  // namespace cachalot::nn
