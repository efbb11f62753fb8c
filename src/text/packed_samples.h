// Samples of conversations as training reads them: packed into windows, shuffled by seed.
//
// A window is a list of samples that together have at most seq_len rows (a sample of n tokens has
// n - 1: the last token is only predicted). They do not see each other (DeepSeek-V3 report, section
// 5.1: samples are packed and masked from each other), so nothing is padded and windows are of
// different lengths. A sample that is longer than a window is cut at its end; one that then has
// nothing to learn is left out.
// Packing: samples in an order drawn by the seed, each into the fullest of some open windows that
// it fits. That happens once; an epoch is a permutation of the windows.
//
// A position is one number, as in text/dataset.h: window `index` is permutation(index % windows) of
// epoch index / windows, a pure function of (files, options, index).
//
// Owns:    the mapping of its token file.
// Threads: every const method from any thread.
// Errors:  kConfig for a file without anything to learn; kFormat as TokenFile and SampleTable.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "text/sample_file.h"
#include "text/token_file.h"

namespace cachalot::text {

struct PackedOptions {
  std::int64_t seq_len = 0;  // most rows of a window
  std::uint64_t seed = 0;
  // false: samples are packed as they come in the file, and each epoch has the same order
  bool shuffle = true;
};

// Sequences one behind the other, as model::Sequences has them.
struct SampleTokens {
  std::vector<std::int32_t> tokens;
  std::vector<std::uint8_t> learnt;   // of each token
  std::vector<std::int32_t> lengths;  // tokens of each sequence
  void clear();
};

class PackedSamples {
 public:
  // `samples` is the file beside `token_file`.
  PackedSamples(const std::filesystem::path& token_file, const std::filesystem::path& samples,
                const PackedOptions& options);

  std::int64_t windows() const noexcept;  // per epoch
  // Adds the samples of window `index` >= 0, counted over all epochs, to `out`.
  void append(std::int64_t index, SampleTokens& out) const;

  std::int64_t samples() const noexcept;   // in the windows
  std::int64_t cut() const noexcept;       // of those, longer than a window
  std::int64_t left_out() const noexcept;  // with nothing to learn
  std::int64_t rows() const noexcept;      // of an epoch, in all windows
  const TokenFile& file() const noexcept { return file_; }
  const SampleTable& table() const noexcept { return table_; }

 private:
  TokenFile file_;
  SampleTable table_;
  PackedOptions options_;
  std::vector<std::uint32_t> order_;         // samples, window by window
  std::vector<std::uint64_t> window_begin_;  // in order_, and the end
  std::int64_t cut_ = 0, left_out_ = 0, rows_ = 0;
};

}  // namespace cachalot::text
