#include "text/sample_file.h"

#include <xxhash.h>

#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <string>

#include "base/atomic_file.h"
#include "base/error.h"
#include "io/mapped_file.h"

namespace cachalot::text {

static_assert(std::endian::native == std::endian::little, "sample files are written as they lie");

namespace {

constexpr std::array<char, 8> kMagic = {'C', 'A', 'C', 'H', 'S', 'M', 'P', '\n'};
constexpr std::uint32_t kVersion = 1;

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
static_assert(sizeof(Head) == 64 && sizeof(SampleRun) == 8);

// Of the head before its own field, and of all that follows.
std::uint64_t hash_of(const Head& head, const void* body, std::size_t bytes) {
  return XXH64(&head, offsetof(Head, hash), XXH64(body, bytes, 0));
}

[[noreturn]] void bad(const std::string& name, const std::string& what) {
  throw Error(Code::kFormat, cat("sample file ", name, " ", what,
                                 ". Delete it: it is made again from the conversations."));
}

}  // namespace

void SampleTable::add(std::span<const SampleRun> runs) {
  std::uint64_t tokens = 0, learnt = 0;
  for (const SampleRun& run : runs) {
    if (run.read == 0 && run.learnt == 0) throw Error(Code::kUsage, "a piece has no tokens");
    tokens += std::uint64_t{run.read} + run.learnt;
    learnt += run.learnt;
  }
  if (tokens < 2 || tokens > std::numeric_limits<std::int32_t>::max()) {
    throw Error(Code::kUsage, cat("a sample has ", tokens, " tokens, but 2 to ",
                                  std::numeric_limits<std::int32_t>::max(), " are possible"));
  }
  runs_.insert(runs_.end(), runs.begin(), runs.end());
  run_begin_.push_back(runs_.size());
  token_begin_.push_back(token_begin_.back() + tokens);
  learnt_ += learnt;
}

std::int64_t SampleTable::samples() const noexcept { return std::ssize(token_begin_) - 1; }
std::uint64_t SampleTable::tokens() const noexcept { return token_begin_.back(); }
std::uint64_t SampleTable::begin(std::int64_t sample) const {
  return token_begin_.at(static_cast<std::size_t>(sample));
}
std::uint64_t SampleTable::tokens(std::int64_t sample) const {
  return begin(sample + 1) - begin(sample);
}
std::span<const SampleRun> SampleTable::runs(std::int64_t sample) const {
  const auto at = static_cast<std::size_t>(sample);
  const std::uint64_t from = run_begin_.at(at);
  return std::span(runs_).subspan(from, run_begin_.at(at + 1) - from);
}
std::uint64_t SampleTable::learnt_tokens() const noexcept { return learnt_; }

void SampleTable::write(const std::filesystem::path& path, std::uint64_t ids_hash) const {
  const auto samples = static_cast<std::size_t>(this->samples());
  std::vector<std::byte> body(samples * sizeof(std::uint32_t) + runs_.size() * sizeof(SampleRun));
  std::vector<std::uint32_t> pieces;
  for (std::size_t s = 0; s < samples; ++s) {
    pieces.push_back(static_cast<std::uint32_t>(run_begin_[s + 1] - run_begin_[s]));
  }
  const std::size_t first = pieces.size() * sizeof(std::uint32_t);
  if (!pieces.empty()) std::memcpy(body.data(), pieces.data(), first);
  if (!runs_.empty()) std::memcpy(body.data() + first, runs_.data(), body.size() - first);
  Head head;
  head.samples = samples;
  head.pieces = runs_.size();
  head.tokens = tokens();
  head.learnt_bytes = learnt_bytes_;
  head.ids_hash = ids_hash;
  head.hash = hash_of(head, body.data(), body.size());
  AtomicFile file(path);
  file.write(&head, sizeof head);
  file.write(body.data(), body.size());
  file.commit();
}

SampleTable SampleTable::read(const std::filesystem::path& path, std::uint64_t tokens,
                              std::uint64_t ids_hash) {
  const io::MappedFile file(path);
  return parse(file.bytes(), path.string(), tokens, ids_hash);
}

SampleTable SampleTable::parse(std::span<const std::byte> bytes, const std::string& name,
                               std::uint64_t tokens, std::uint64_t ids_hash) {
  Head head;
  if (bytes.size() < sizeof head) bad(name, "is too short to be a sample file");
  std::memcpy(&head, bytes.data(), sizeof head);
  if (head.magic != kMagic) bad(name, "is no sample file (its first bytes are others)");
  if (head.version != kVersion) {
    bad(name, cat("has version ", head.version, ", this build reads ", kVersion));
  }
  const std::span<const std::byte> body = bytes.subspan(sizeof head);
  // Neither product can overflow once both counts lie below what the file has bytes for.
  const bool fits =
      head.samples <= body.size() && head.pieces <= body.size() &&
      head.samples * sizeof(std::uint32_t) + head.pieces * sizeof(SampleRun) == body.size();
  if (!fits) {
    bad(name, cat("promises ", head.samples, " samples of ", head.pieces, " pieces, but has ",
                  body.size(), " bytes for them"));
  }
  if (head.zero != 0 || head.hash != hash_of(head, body.data(), body.size())) {
    bad(name, "is damaged (it does not have the checksum it was written with)");
  }
  if (head.tokens != tokens || (ids_hash != 0 && head.ids_hash != ids_hash)) {
    bad(name, "belongs to another token file than the one beside it");
  }
  SampleTable table;
  table.token_begin_.reserve(head.samples + 1);
  table.run_begin_.reserve(head.samples + 1);
  table.runs_.reserve(head.pieces);
  const std::byte* next = body.data() + head.samples * sizeof(std::uint32_t);
  std::uint64_t left = head.pieces;
  std::vector<SampleRun> runs;
  for (std::uint64_t s = 0; s < head.samples; ++s) {
    std::uint32_t pieces = 0;
    std::memcpy(&pieces, body.data() + s * sizeof pieces, sizeof pieces);
    if (pieces > left) bad(name, cat("has more pieces in its samples than ", head.pieces));
    runs.resize(pieces);
    std::memcpy(runs.data(), next, pieces * sizeof(SampleRun));
    next += pieces * sizeof(SampleRun);
    left -= pieces;
    try {
      table.add(runs);
    } catch (const Error& e) {
      bad(name, cat("has a sample ", s, " that cannot be: ", e.what()));
    }
  }
  if (left > 0 || table.tokens() != head.tokens) {
    bad(name, cat("has samples of ", table.tokens(), " tokens, but promises ", head.tokens));
  }
  table.learnt_bytes_ = head.learnt_bytes;
  return table;
}

}  // namespace cachalot::text
