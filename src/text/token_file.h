// A file of token ids, mapped when it is read.
//
// Layout (little-endian): a head of 64 bytes {magic "CACHTOK\n", u32 version 1, u32 bytes per token
// (2 or 4), zeros}; the ids, u16 where the vocabulary fits, else u32; a foot of 64 bytes {u64
// tokens, documents, vocab size, tokenizer fingerprint, bytes of text, xxh64 of the ids, xxh64 of
// the foot before this field seeded with the head's, magic "CACHEND\n"}. The counts stand at the
// end because the file is written in one pass; a file cut short has no foot.
//
// Owns:    TokenFileWriter its temporary file; TokenFile its mapping.
// Threads: a writer belongs to one thread; reading is safe from any.
// Errors:  kIo; kFormat for a file that is cut short, damaged or holds an id past its vocabulary.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

namespace cachalot::text {

struct TokenFileInfo {
  std::uint64_t tokens = 0;  // the end-of-sentence tokens included
  std::uint64_t documents = 0;
  std::uint64_t vocab_size = 0;
  std::uint64_t tokenizer = 0;   // Tokenizer::fingerprint()
  std::uint64_t text_bytes = 0;  // of the text the ids stand for: bits per byte need it
};

class TokenFileWriter {
 public:
  TokenFileWriter(const std::filesystem::path& path, int vocab_size,
                  std::uint64_t tokenizer_fingerprint);
  ~TokenFileWriter();  // without a commit: nothing is left behind

  void append(std::span<const std::int32_t> ids);  // kUsage for an id past the vocabulary
  void count_document(std::uint64_t text_bytes);
  TokenFileInfo commit();  // synced and renamed into place

 private:
  struct State;
  std::unique_ptr<State> state_;
};

class TokenFile {
 public:
  // Checks everything but the ids themselves, which `read` checks as it copies.
  explicit TokenFile(const std::filesystem::path& path);
  TokenFile(TokenFile&&) noexcept;
  TokenFile& operator=(TokenFile&&) noexcept;
  ~TokenFile();

  const TokenFileInfo& info() const noexcept;
  std::uint64_t ids_hash() const noexcept;  // as its foot has it: xxh64 of the ids
  // Copies ids [begin, begin + out.size()).
  void read(std::uint64_t begin, std::span<std::int32_t> out) const;
  // Reads all of it: checksum and every id.
  void verify() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace cachalot::text
