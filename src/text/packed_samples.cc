#include "text/packed_samples.h"

#include <algorithm>
#include <limits>
#include <span>
#include <string>

#include "base/error.h"
#include "text/dataset.h"

namespace cachalot::text {

namespace {

// Streams of the generator: the order in which samples are packed. Windows have their epoch's.
constexpr std::uint64_t kOrderStream = ~std::uint64_t{0} - 1;
// More fill windows better and cost each sample a longer search: where samples are short beside a
// window there is nothing left to gain, and the search stays below what reading the tokens takes.
constexpr std::size_t kOpenWindows = 64;
constexpr std::int64_t kMaxSeqLen = std::int64_t{1} << 30;

// Best fit, over a bounded number of windows: says in which window each sample lies.
class Packer {
 public:
  explicit Packer(std::int64_t seq_len) : seq_len_(seq_len) {}

  // The window of a sample of `rows` <= seq_len rows. Windows are numbered as they are opened.
  std::uint32_t place(std::int64_t rows) {
    auto best = open_.end();
    for (auto at = open_.begin(); at != open_.end(); ++at) {
      if (at->room >= rows && (best == open_.end() || at->room < best->room)) best = at;
    }
    if (best == open_.end()) {
      open_.push_back({seq_len_, windows_++});
      best = open_.end() - 1;
    }
    const std::uint32_t window = best->number;
    best->room -= rows;
    if (best->room == 0) {
      open_.erase(best);
    } else if (open_.size() > kOpenWindows) {
      open_.erase(std::min_element(open_.begin(), open_.end(),
                                   [](const Open& a, const Open& b) { return a.room < b.room; }));
    }
    return window;
  }
  std::uint32_t windows() const { return windows_; }

 private:
  struct Open {
    std::int64_t room = 0;  // rows
    std::uint32_t number = 0;
  };
  std::int64_t seq_len_;
  std::vector<Open> open_;  // the longest open one first
  std::uint32_t windows_ = 0;
};

// Whether any of tokens [1, tokens) is learnt: nothing predicts the first.
bool learns(std::span<const SampleRun> runs, std::int64_t tokens) {
  std::int64_t at = 0;
  for (const SampleRun& run : runs) {
    const std::int64_t begin = std::max<std::int64_t>(at + run.read, 1);
    at += std::int64_t{run.read} + run.learnt;
    if (begin < std::min(at, tokens)) return true;
    if (at >= tokens) break;
  }
  return false;
}

// Which of the first learnt.size() tokens are learnt.
void mark(std::span<const SampleRun> runs, std::span<std::uint8_t> learnt) {
  for (const SampleRun& run : runs) {
    learnt = learnt.subspan(std::min<std::size_t>(run.read, learnt.size()));
    const std::size_t now = std::min<std::size_t>(run.learnt, learnt.size());
    std::ranges::fill(learnt.first(now), std::uint8_t{1});
    learnt = learnt.subspan(now);
  }
}

void check(const PackedOptions& options, const SampleTable& table, const std::string& name) {
  if (options.seq_len < 1 || options.seq_len > kMaxSeqLen) {
    throw Error(Code::kConfig, cat("a window of ", options.seq_len, " rows is not possible: 1 to ",
                                   kMaxSeqLen, " are"));
  }
  if (table.samples() > std::numeric_limits<std::uint32_t>::max()) {
    throw Error(Code::kUnsupported, cat("sample file ", name, " has ", table.samples(),
                                        " samples; at most 2^32 - 1 can be packed. Train on fewer "
                                        "conversations at a time."));
  }
}

}  // namespace

void SampleTokens::clear() {
  tokens.clear();
  learnt.clear();
  lengths.clear();
}

PackedSamples::PackedSamples(const std::filesystem::path& token_file,
                             const std::filesystem::path& samples, const PackedOptions& options)
    : file_(token_file),
      table_(SampleTable::read(samples, file_.info().tokens, file_.ids_hash())),
      options_(options) {
  check(options, table_, samples.string());
  pack();
  if (order_.empty()) {
    throw Error(Code::kConfig,
                cat("sample file ", samples.string(), " has ", table_.samples(),
                    " samples, but none has anything to learn in its first ", options.seq_len,
                    " + 1 tokens. Give conversations with answers, or make the sequences longer."));
  }
}

std::int64_t PackedSamples::tokens_of(std::int64_t sample) const {
  const auto most = static_cast<std::uint64_t>(options_.seq_len) + 1;
  return static_cast<std::int64_t>(std::min(table_.tokens(sample), most));
}

void PackedSamples::pack() {
  struct Placed {
    std::uint32_t sample, window;
  };
  const std::int64_t all = table_.samples();
  Packer packer(options_.seq_len);
  std::vector<Placed> placed;
  placed.reserve(static_cast<std::size_t>(all));
  for (std::int64_t i = 0; i < all; ++i) {
    const auto at = static_cast<std::uint64_t>(i);
    const std::uint64_t drawn =
        options_.shuffle
            ? permute_index(at, static_cast<std::uint64_t>(all), options_.seed, kOrderStream)
            : at;
    const auto sample = static_cast<std::int64_t>(drawn);
    const std::int64_t tokens = tokens_of(sample);
    if (!learns(table_.runs(sample), tokens)) {
      left_out_ += 1;
      continue;
    }
    if (static_cast<std::uint64_t>(tokens) < table_.tokens(sample)) cut_ += 1;
    rows_ += tokens - 1;
    placed.push_back({static_cast<std::uint32_t>(drawn), packer.place(tokens - 1)});
  }

  // Sorted by window, each window's samples in the order in which they came.
  window_begin_.assign(std::size_t{packer.windows()} + 1, 0);
  for (const Placed& one : placed) window_begin_[one.window + std::size_t{1}] += 1;
  for (std::size_t i = 1; i < window_begin_.size(); ++i) window_begin_[i] += window_begin_[i - 1];
  std::vector<std::uint64_t> next(window_begin_.begin(), window_begin_.end() - 1);
  order_.resize(placed.size());
  for (const Placed& one : placed) order_[next[one.window]++] = one.sample;
}

std::int64_t PackedSamples::windows() const noexcept {
  return static_cast<std::int64_t>(window_begin_.size()) - 1;
}
std::int64_t PackedSamples::samples() const noexcept {
  return static_cast<std::int64_t>(order_.size());
}

void PackedSamples::append(std::int64_t index, SampleTokens& out) const {
  if (index < 0) throw Error(Code::kUsage, cat("window ", index, " does not exist"));
  auto window = static_cast<std::uint64_t>(index % windows());
  if (options_.shuffle) {
    const auto epoch = static_cast<std::uint64_t>(index / windows());
    window = permute_index(window, static_cast<std::uint64_t>(windows()), options_.seed, epoch);
  }
  for (std::uint64_t i = window_begin_[window]; i < window_begin_[window + 1]; ++i) {
    const std::int64_t sample = order_[i];
    const std::size_t tokens = static_cast<std::size_t>(tokens_of(sample));
    const std::size_t begin = out.tokens.size();
    out.tokens.resize(begin + tokens);
    out.learnt.resize(begin + tokens, 0);
    file_.read(table_.begin(sample), std::span(out.tokens).subspan(begin));
    mark(table_.runs(sample), std::span(out.learnt).subspan(begin));
    out.lengths.push_back(static_cast<std::int32_t>(tokens));
  }
}

}  // namespace cachalot::text
