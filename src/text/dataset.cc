#include "text/dataset.h"

#include <bit>

#include "base/error.h"
#include "base/rng.h"

namespace cachalot::text {

std::uint64_t permute_index(std::uint64_t index, std::uint64_t n, std::uint64_t seed,
                            std::uint64_t stream) {
  if (n <= 1) return 0;
  const int half = (std::bit_width(n - 1) + 1) / 2;
  const std::uint64_t mask = (std::uint64_t{1} << half) - 1;
  const Rng rng(seed, stream);
  do {
    std::uint64_t left = index >> half, right = index & mask;
    for (std::uint64_t round = 0; round < 6; ++round) {
      const std::uint64_t next = left ^ (rng.bits(round << 32 | right) & mask);
      left = right;
      right = next;
    }
    index = left << half | right;
  } while (index >= n);
  return index;
}

// Streams of the generator: windows of an epoch, and the phases of all epochs.
static constexpr std::uint64_t kPhaseStream = ~std::uint64_t{0};

Dataset::Dataset(const std::filesystem::path& token_file, std::int64_t seq_len, std::uint64_t seed)
    : Dataset(token_file, DatasetOptions{.seq_len = seq_len, .seed = seed}) {}

Dataset::Dataset(const std::filesystem::path& token_file, const DatasetOptions& options)
    : file_(token_file), options_(options) {
  if (options.seq_len < 1 || options.seq_len > std::int64_t{1} << 30 || options.ahead < 1 ||
      options.ahead > 64) {
    throw Error(Code::kConfig, cat("a window of ", options.seq_len, " tokens and ", options.ahead,
                                   " ahead is not possible: 1 to 2^30 and 1 to 64 are"));
  }
  const auto tokens = static_cast<std::int64_t>(file_.info().tokens);
  windows_ = tokens < options.ahead ? 0 : (tokens - options.ahead) / options.seq_len;
  if (windows_ < 1) {
    throw Error(Code::kConfig,
                cat("token file ", token_file.string(), " has ", tokens,
                    " tokens, one window needs ", options.seq_len, " + ", options.ahead,
                    ". Give it more text, or make the sequences shorter."));
  }
  if (options.random_phase && options.shuffle && windows_ >= 16) {
    windows_ -= 1;
    phases_ = static_cast<std::uint64_t>(tokens - options.ahead - windows_ * options.seq_len) + 1;
  }
}

std::uint64_t Dataset::position(std::int64_t index) const {
  if (index < 0) throw Error(Code::kUsage, cat("sample ", index, " does not exist"));
  const auto epoch = static_cast<std::uint64_t>(index / windows_);
  auto window = static_cast<std::uint64_t>(index % windows_);
  if (options_.shuffle) {
    window = permute_index(window, static_cast<std::uint64_t>(windows_), options_.seed, epoch);
  }
  const std::uint64_t phase = Rng(options_.seed, kPhaseStream).below(epoch, phases_);
  return phase + window * static_cast<std::uint64_t>(options_.seq_len);
}

void Dataset::sample(std::int64_t index, std::span<std::int32_t> out) const {
  if (static_cast<std::int64_t>(out.size()) != sample_tokens()) {
    throw Error(Code::kUsage, cat("a sample has ", sample_tokens(), " tokens, room for ",
                                  out.size(), " was given"));
  }
  file_.read(position(index), out);
}

}  // namespace cachalot::text
