// Text to token ids and back, exactly as the Hugging Face `tokenizers` library does for byte-level
// BPE.
//
// Owns:    all tables; immutable after construction.
// Threads: every const method from any thread; encoders (word cache, regex scratch) are kept in a
//          pool and lent to one call at a time.
// Errors:  kIo, kFormat, kUnsupported for files; kUsage for a token id that does not exist.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/spec.h"

namespace cachalot::text {

class Tokenizer {
 public:
  // tokenizer.json and, where there is one, tokenizer_config.json (also: chat_template.jinja).
  static Tokenizer load(const std::filesystem::path& folder);
  // The text of a tokenizer.json; `file_name` is for messages.
  static Tokenizer parse(std::string_view json, const std::string& file_name);
  explicit Tokenizer(const TokenizerSpec& spec, TokenizerConfig config = {},
                     const std::string& file_name = "tokenizer");
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // Added tokens found in the text become their ids; nothing is added. Invalid UTF-8 is read as
  // U+FFFD, one per maximal subpart.
  std::vector<std::int32_t> encode(std::string_view text) const;
  void encode(std::string_view text, std::vector<std::int32_t>& out) const;  // appends
  // Added tokens in the text are plain text: for what a user typed.
  std::vector<std::int32_t> encode_plain(std::string_view text) const;

  // `skip_special` leaves out the added tokens marked special. Bytes that are no UTF-8 become
  // U+FFFD.
  std::string decode(std::span<const std::int32_t> ids, bool skip_special = false) const;
  std::string decode_bytes(std::span<const std::int32_t> ids, bool skip_special = false) const;

  int vocab_size() const noexcept;  // the largest id + 1
  bool has(std::int32_t id) const noexcept;
  bool is_special(std::int32_t id) const;
  bool is_added(std::int32_t id) const;                 // found in text as a whole, special or not
  std::string_view id_to_bytes(std::int32_t id) const;  // kUsage if there is no such id
  // The id of a token as tokenizer.json writes it ("Ġthe", "<｜User｜>").
  std::optional<std::int32_t> token_to_id(std::string_view token) const;

  const TokenizerConfig& config() const noexcept;
  std::optional<std::int32_t> bos_id() const noexcept;
  std::optional<std::int32_t> eos_id() const noexcept;
  std::optional<std::int32_t> pad_id() const noexcept;

  // Cuts a long VALID text so that encoding the parts one by one gives the same ids; one part where
  // no cut is known to be safe. The cuts depend on the text and on `part_bytes` only.
  std::vector<std::string_view> parts(std::string_view text, std::size_t part_bytes) const;
  // Pieces before merging: what BPE training counts. `text` is VALID UTF-8 without added tokens.
  void pre_tokenize(std::string_view text, std::vector<std::string_view>& out) const;

  // xxh64 over tokens, ids, merges, patterns and flags: equal for equal behaviour, however the file
  // is laid out.
  std::uint64_t fingerprint() const noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Turns ids into text as they come, and never emits half a character.
// Threads: one thread; borrows the tokenizer.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = false)
      : tokenizer_(&tokenizer), skip_special_(skip_special) {}
  // The text that is certain now; bytes that may still become a character are held back.
  std::string push(std::int32_t id);
  // The end: what is held back can no longer become a character and is one U+FFFD.
  std::string flush();

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_;
  std::string held_;
};

}  // namespace cachalot::text
