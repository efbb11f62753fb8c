#include "text/packed_samples.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "text/dataset.h"

namespace cachalot::text {

// A stream of permutations apart from those of epochs (0, 1, ...): the order of the samples.
static constexpr std::uint64_t kOrderStream = ~std::uint64_t{1};
static constexpr std::size_t kOpenWindows = 64;

void SampleTokens::clear() {
  tokens.clear();
  learnt.clear();
  lengths.clear();
}

namespace {

// A window that takes samples yet.
struct Open {
  std::int64_t room = 0;  // rows
  std::vector<std::uint32_t> samples;
};

// Best fit among some open windows: close to full ones without looking at all samples at once,
// which would put the same long samples beside the same short ones whatever the seed.
class Packer {
 public:
  Packer(std::int64_t rows, std::vector<std::uint32_t>& order, std::vector<std::uint64_t>& begin)
      : rows_(rows), order_(order), begin_(begin) {
    begin_.push_back(0);
  }

  void add(std::uint32_t sample, std::int64_t rows) {
    auto best = open_.end();
    for (auto w = open_.begin(); w != open_.end(); ++w) {
      if (w->room >= rows && (best == open_.end() || w->room < best->room)) best = w;
    }
    if (best == open_.end()) {
      if (open_.size() == kOpenWindows) {
        close(std::min_element(open_.begin(), open_.end(),
                               [](const Open& a, const Open& b) { return a.room < b.room; }));
      }
      best = open_.insert(open_.end(), Open{rows_, {}});
    }
    best->samples.push_back(sample);
    best->room -= rows;
    if (best->room == 0) close(best);
  }
  void finish() {
    while (!open_.empty()) close(open_.begin());
  }

 private:
  void close(std::vector<Open>::iterator window) {
    order_.insert(order_.end(), window->samples.begin(), window->samples.end());
    begin_.push_back(order_.size());
    open_.erase(window);
  }

  std::int64_t rows_;
  std::vector<std::uint32_t>& order_;
  std::vector<std::uint64_t>& begin_;
  std::vector<Open> open_;
};

// Whether a token is learnt that another one predicts, among the first `kept`.
bool teaches(std::span<const SampleRun> runs, std::uint64_t kept) {
  std::uint64_t at = 0;
  for (const SampleRun& run : runs) {
    const std::uint64_t begin = std::max<std::uint64_t>(at + run.read, 1);
    at += std::uint64_t{run.read} + run.learnt;
    if (begin < std::min(at, kept)) return true;
  }
  return false;
}

}  // namespace

PackedSamples::PackedSamples(const std::filesystem::path& token_file,
                             const std::filesystem::path& samples, const PackedOptions& options)
    : file_(token_file),
      table_(SampleTable::read(samples, file_.info().tokens, file_.ids_hash())),
      options_(options) {
  constexpr std::int64_t kLongest = std::int64_t{1} << 30;
  if (options.seq_len < 1 || options.seq_len > kLongest) {
    throw Error(Code::kConfig,
                cat("a window of ", options.seq_len, " rows is not possible: 1 to 2^30 are"));
  }
  if (table_.samples() > std::numeric_limits<std::uint32_t>::max()) {
    throw Error(Code::kConfig, cat(samples.string(), " has ", table_.samples(),
                                   " samples, but a run takes at most 2^32 - 1"));
  }
  const auto count = static_cast<std::uint64_t>(table_.samples());
  Packer packer(options.seq_len, order_, window_begin_);
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t sample =
        options.shuffle ? permute_index(i, count, options.seed, kOrderStream) : i;
    const auto s = static_cast<std::int64_t>(sample);
    const std::uint64_t whole = table_.tokens(s);
    const auto kept = std::min(whole, static_cast<std::uint64_t>(options.seq_len) + 1);
    if (!teaches(table_.runs(s), kept)) {
      ++left_out_;
      continue;
    }
    cut_ += kept < whole ? 1 : 0;
    const auto rows = static_cast<std::int64_t>(kept) - 1;
    rows_ += rows;
    packer.add(static_cast<std::uint32_t>(sample), rows);
  }
  packer.finish();
  if (!order_.empty()) return;
  throw Error(
      Code::kConfig,
      cat(samples.string(), " has ", count, " samples, but none with an answer within ",
          options.seq_len, " tokens: make the sequences longer, or give other conversations"));
}

std::int64_t PackedSamples::windows() const noexcept { return std::ssize(window_begin_) - 1; }
std::int64_t PackedSamples::samples() const noexcept { return std::ssize(order_); }
std::int64_t PackedSamples::cut() const noexcept { return cut_; }
std::int64_t PackedSamples::left_out() const noexcept { return left_out_; }
std::int64_t PackedSamples::rows() const noexcept { return rows_; }

void PackedSamples::append(std::int64_t index, SampleTokens& out) const {
  if (index < 0) throw Error(Code::kUsage, cat("window ", index, " does not exist"));
  auto window = static_cast<std::uint64_t>(index % windows());
  if (options_.shuffle) {
    window = permute_index(window, static_cast<std::uint64_t>(windows()), options_.seed,
                           static_cast<std::uint64_t>(index / windows()));
  }
  const std::uint64_t most = static_cast<std::uint64_t>(options_.seq_len) + 1;
  for (std::uint64_t at = window_begin_[window]; at < window_begin_[window + 1]; ++at) {
    const auto sample = static_cast<std::int64_t>(order_[at]);
    const std::size_t kept = std::min(table_.tokens(sample), most);
    const std::size_t before = out.tokens.size();
    out.tokens.resize(before + kept);
    file_.read(table_.begin(sample), std::span(out.tokens).subspan(before));
    std::size_t left = kept;
    const auto mark = [&](std::uint32_t tokens, std::uint8_t learnt) {
      const std::size_t n = std::min<std::size_t>(tokens, left);
      out.learnt.insert(out.learnt.end(), n, learnt);
      left -= n;
    };
    for (const SampleRun& run : table_.runs(sample)) {
      mark(run.read, 0);
      mark(run.learnt, 1);
      if (left == 0) break;
    }
    out.lengths.push_back(static_cast<std::int32_t>(kept));
  }
}

}  // namespace cachalot::text
