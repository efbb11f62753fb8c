// Training windows out of a token file: packed documents, cut into windows, shuffled by seed.
//
// Window w holds tokens [phase + w*T, phase + w*T + T + ahead): T inputs, and the `ahead` tokens
// that follow give each input its targets t+1 .. t+ahead (1, or 2 where MTP trains). Documents are
// packed without a mask between them, as DeepSeek-V3 was trained.
//
// A position is one number: sample `index` is window permutation(index % windows) of epoch
// index / windows, a pure function of (file, options, index). Resuming is starting from that
// number.
//
// Owns:    the mapping of its file.
// Threads: every const method from any thread.
// Errors:  kConfig for a file with less than one window; kFormat as TokenFile.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>

#include "text/token_file.h"

namespace cachalot::text {

struct DatasetOptions {
  std::int64_t seq_len = 0;  // T
  int ahead = 1;
  std::uint64_t seed = 0;
  bool shuffle = true;  // false: windows in the order of the text, the same in each epoch
  // Each epoch cuts its windows from another first token, so that a small corpus gives other
  // windows every time; costs the last window of an epoch. Only where there are 16 windows or more.
  bool random_phase = true;
};

class Dataset {
 public:
  Dataset(const std::filesystem::path& token_file, std::int64_t seq_len, std::uint64_t seed);
  Dataset(const std::filesystem::path& token_file, const DatasetOptions& options);

  std::int64_t windows() const noexcept { return windows_; }  // per epoch
  std::int64_t sample_tokens() const noexcept { return options_.seq_len + options_.ahead; }
  // Fills `out` (sample_tokens() ids) with sample `index` >= 0, counted over all epochs.
  void sample(std::int64_t index, std::span<std::int32_t> out) const;
  // The first token of that sample in the file.
  std::uint64_t position(std::int64_t index) const;

  const TokenFileInfo& info() const noexcept { return file_.info(); }
  const TokenFile& file() const noexcept { return file_; }

 private:
  TokenFile file_;
  DatasetOptions options_;
  std::int64_t windows_ = 0;
  std::uint64_t phases_ = 1;  // an epoch's phase lies in [0, phases_)
};

// A pseudo-random permutation of [0, n) by (seed, stream): a Feistel network over the next power of
// four, walked until it lands below n. `index` < n.
std::uint64_t permute_index(std::uint64_t index, std::uint64_t n, std::uint64_t seed,
                            std::uint64_t stream);

}  // namespace cachalot::text
