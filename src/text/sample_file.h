// What belongs together in a token file, and what of it is learnt: the samples of conversations.
//
// A sample is a run of tokens that sees nothing of its neighbours. It is made of pieces: so many
// tokens that are read, and then so many that are learnt (either may be none, not both).
//
// Layout (little-endian) of RUN/data/train.samples, which stands beside a token file
// (text/token_file.h): a head of 64 bytes {magic "CACHSMP\n", u32 version 1, u32 zero, u64 samples,
// u64 pieces, u64 tokens, u64 bytes of text that is learnt, xxh64 of the token file's ids, xxh64 of
// the head before this field, seeded with that of the body}; the body: u32 pieces of each sample,
// then {u32 read, u32 learnt} of each piece. Samples follow each other through all of the file's
// tokens.
//
// Threads: a writer belongs to one thread; reading is safe from any.
// Errors:  kIo; kFormat for a file that is cut short, damaged, or of another token file. Nothing is
//          allocated from a number that the file's size does not bear out; kUsage from `add`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

namespace cachalot::text {

struct SampleRun {
  std::uint32_t read = 0;    // tokens that are context
  std::uint32_t learnt = 0;  // and then tokens that are learnt

  bool operator==(const SampleRun&) const = default;
};

// All samples of a token file, in memory: 16 bytes a sample, 8 a piece.
class SampleTable {
 public:
  SampleTable() = default;

  // Runs of at least one token each, at least two together; kUsage otherwise.
  void add(std::span<const SampleRun> runs);
  void count_learnt_bytes(std::uint64_t bytes) noexcept { learnt_bytes_ += bytes; }

  std::int64_t samples() const noexcept;
  std::uint64_t tokens() const noexcept;           // of all samples
  std::uint64_t begin(std::int64_t sample) const;  // its first token in the file
  std::uint64_t tokens(std::int64_t sample) const;
  std::span<const SampleRun> runs(std::int64_t sample) const;
  std::uint64_t learnt_tokens() const noexcept;
  std::uint64_t learnt_bytes() const noexcept { return learnt_bytes_; }

  // Written beside, synced, renamed. `ids_hash` is TokenFile::ids_hash().
  void write(const std::filesystem::path& path, std::uint64_t ids_hash) const;
  // kFormat where the file is of other tokens than `tokens` with that hash.
  static SampleTable read(const std::filesystem::path& path, std::uint64_t tokens,
                          std::uint64_t ids_hash);
  // The same from memory; `name` is for messages. `ids_hash` 0: of any token file, `tokens` is not
  // looked at.
  static SampleTable parse(std::span<const std::byte> bytes, const std::string& name,
                           std::uint64_t tokens, std::uint64_t ids_hash);

 private:
  std::vector<std::uint64_t> token_begin_ = {0};  // of each sample, and the end
  std::vector<std::uint64_t> run_begin_ = {0};
  std::vector<SampleRun> runs_;
  std::uint64_t learnt_ = 0;
  std::uint64_t learnt_bytes_ = 0;
};

}  // namespace cachalot::text
