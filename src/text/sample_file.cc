#include "text/sample_file.h"

#include <xxhash.h>

#include <array>
#include <bit>
#include <cstddef>
#include <cstring>
#include <limits>
#include <new>
#include <string>

#include "base/atomic_file.h"
#include "base/error.h"
#include "io/mapped_file.h"

namespace cachalot::text {

static_assert(std::endian::native == std::endian::little, "sample files are written as they lie");
static_assert(sizeof(SampleRun) == 8, "runs are written as they lie");

namespace {

constexpr std::array<char, 8> kMagic = {'C', 'A', 'C', 'H', 'S', 'M', 'P', '\n'};
constexpr std::uint32_t kVersion = 1;
constexpr std::uint64_t kMaxRuns = std::numeric_limits<std::uint32_t>::max();  // of one sample

struct Head {
  std::array<char, 8> magic = kMagic;
  std::uint32_t version = kVersion;
  std::uint32_t zero = 0;
  std::uint64_t samples = 0;
  std::uint64_t pieces = 0;
  std::uint64_t tokens = 0;
  std::uint64_t learnt_bytes = 0;
  std::uint64_t ids_hash = 0;
  std::uint64_t hash = 0;
};
static_assert(sizeof(Head) == 64);

std::uint64_t hash_of(const Head& head, std::uint64_t body_hash) {
  return XXH64(&head, offsetof(Head, hash), body_hash);
}

std::uint64_t tokens_of(const SampleRun& run) { return std::uint64_t{run.read} + run.learnt; }

// The bytes of a sample file, and what is wrong with them.
class Reader {
 public:
  Reader(std::span<const std::byte> bytes, const std::string& name) : bytes_(bytes), name_(name) {
    if (bytes.size() < sizeof head_) bad("is too short to be one");
    std::memcpy(&head_, bytes.data(), sizeof head_);
    if (head_.magic != kMagic) bad("is none (its first bytes are others)");
    if (head_.version != kVersion) {
      bad(cat("has version ", head_.version, ", this build reads ", kVersion));
    }
    check_size();
    const auto body = bytes.subspan(sizeof head_);
    if (head_.hash != hash_of(head_, XXH64(body.data(), body.size(), 0)) || head_.zero != 0) {
      bad("is damaged (it does not have the checksum that it was written with)");
    }
  }

  [[noreturn]] void bad(const std::string& what) const {
    throw Error(Code::kFormat, cat("sample file ", name_, " ", what,
                                   ". Delete it: it is made again from the conversations."));
  }

  const Head& head() const { return head_; }

  std::uint64_t runs_of(std::uint64_t sample) const {
    std::uint32_t runs;
    std::memcpy(&runs, bytes_.data() + sizeof head_ + sample * sizeof runs, sizeof runs);
    return runs;
  }
  void copy_runs(std::uint64_t begin, std::span<SampleRun> out) const {
    if (out.empty()) return;
    const auto runs = bytes_.last(head_.pieces * sizeof(SampleRun));
    std::memcpy(out.data(), runs.data() + begin * sizeof(SampleRun), out.size_bytes());
  }

 private:
  // From here on the head's numbers of samples and pieces are those of the bytes that are there.
  void check_size() const {
    const std::uint64_t room = bytes_.size() - sizeof head_;
    const std::uint64_t for_samples = room / sizeof(std::uint32_t);
    // In this order nothing overflows: both products are at most `room`.
    if (head_.samples > for_samples || head_.pieces > room / sizeof(SampleRun) ||
        room - head_.samples * sizeof(std::uint32_t) != head_.pieces * sizeof(SampleRun)) {
      bad(cat("promises ", head_.samples, " samples of ", head_.pieces, " pieces, but has ", room,
              " bytes for them"));
    }
  }

  std::span<const std::byte> bytes_;
  const std::string& name_;
  Head head_;
};

}  // namespace

void SampleTable::add(std::span<const SampleRun> runs) {
  std::uint64_t tokens = 0, learnt = 0;
  for (const SampleRun& run : runs) {
    if (run == SampleRun{}) throw Error(Code::kUsage, "a piece of a sample has no token");
    tokens += tokens_of(run);
    learnt += run.learnt;
  }
  if (tokens < 2 || runs.size() > kMaxRuns) {
    throw Error(Code::kUsage, cat("a sample of ", tokens, " tokens in ", runs.size(),
                                  " pieces is not possible: it needs two tokens, in at most ",
                                  kMaxRuns, " pieces"));
  }
  runs_.insert(runs_.end(), runs.begin(), runs.end());
  run_begin_.push_back(runs_.size());
  token_begin_.push_back(token_begin_.back() + tokens);
  learnt_ += learnt;
}

std::int64_t SampleTable::samples() const noexcept {
  return static_cast<std::int64_t>(run_begin_.size()) - 1;
}
std::uint64_t SampleTable::tokens() const noexcept { return token_begin_.back(); }
std::uint64_t SampleTable::learnt_tokens() const noexcept { return learnt_; }

std::uint64_t SampleTable::begin(std::int64_t sample) const {
  return token_begin_[static_cast<std::size_t>(sample)];
}
std::uint64_t SampleTable::tokens(std::int64_t sample) const {
  const auto at = static_cast<std::size_t>(sample);
  return token_begin_[at + 1] - token_begin_[at];
}
std::span<const SampleRun> SampleTable::runs(std::int64_t sample) const {
  const auto at = static_cast<std::size_t>(sample);
  return std::span(runs_).subspan(run_begin_[at], run_begin_[at + 1] - run_begin_[at]);
}

void SampleTable::write(const std::filesystem::path& path, std::uint64_t ids_hash) const {
  std::vector<std::uint32_t> counts;
  counts.reserve(run_begin_.size() - 1);
  for (std::size_t i = 1; i < run_begin_.size(); ++i) {
    counts.push_back(static_cast<std::uint32_t>(run_begin_[i] - run_begin_[i - 1]));
  }
  const std::span<const std::byte> parts[] = {std::as_bytes(std::span(counts)),
                                              std::as_bytes(std::span(runs_))};
  XXH64_state_t* state = XXH64_createState();
  if (state == nullptr) throw std::bad_alloc();
  XXH64_reset(state, 0);
  for (const auto part : parts) {
    if (!part.empty()) XXH64_update(state, part.data(), part.size());
  }
  Head head{.samples = counts.size(),
            .pieces = runs_.size(),
            .tokens = tokens(),
            .learnt_bytes = learnt_bytes_,
            .ids_hash = ids_hash};
  head.hash = hash_of(head, XXH64_digest(state));
  XXH64_freeState(state);

  AtomicFile file(path);
  file.write(&head, sizeof head);
  for (const auto part : parts) file.write(part.data(), part.size());
  file.commit();
}

SampleTable SampleTable::read(const std::filesystem::path& path, std::uint64_t tokens,
                              std::uint64_t ids_hash) {
  return parse(io::MappedFile(path).bytes(), path.string(), tokens, ids_hash);
}

SampleTable SampleTable::parse(std::span<const std::byte> bytes, const std::string& name,
                               std::uint64_t tokens, std::uint64_t ids_hash) {
  const Reader reader(bytes, name);
  const Head& head = reader.head();
  if (ids_hash != 0 && (head.ids_hash != ids_hash || head.tokens != tokens)) {
    reader.bad(cat("is of another token file: of ", head.tokens, " tokens with hash ",
                   head.ids_hash, ", the one beside it has ", tokens, " with hash ", ids_hash));
  }
  SampleTable table;
  table.token_begin_.reserve(head.samples + 1);
  table.run_begin_.reserve(head.samples + 1);
  table.runs_.reserve(head.pieces);
  table.learnt_bytes_ = head.learnt_bytes;
  std::vector<SampleRun> runs;
  std::uint64_t begin = 0;
  for (std::uint64_t i = 0; i < head.samples; ++i) {
    const std::uint64_t count = reader.runs_of(i);
    if (count > head.pieces - begin) {
      reader.bad(cat("has ", count, " pieces in sample ", i, ", past its ", head.pieces));
    }
    runs.resize(count);
    reader.copy_runs(begin, runs);
    try {
      table.add(runs);
    } catch (const Error& e) {
      reader.bad(cat("has a sample ", i, " that cannot be: ", e.what()));
    }
    begin += count;
    if (table.tokens() > head.tokens) {
      reader.bad(cat("has samples of more than its ", head.tokens, " tokens"));
    }
  }
  if (begin != head.pieces || table.tokens() != head.tokens) {
    reader.bad(cat("has samples of ", begin, " pieces and ", table.tokens(),
                   " tokens, but promises ", head.pieces, " and ", head.tokens));
  }
  return table;
}

}  // namespace cachalot::text
