// What a tokenizer is made of, apart from any file: the reader fills it, the BPE trainer fills it,
// Tokenizer is built from it, the writer writes it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace cachalot::text {

struct AddedToken {
  std::int32_t id = 0;
  std::string content;
  bool special = false;
  bool single_word = false;  // matches only where no word character touches it
  bool lstrip = false;       // swallows the white space before it
  bool rstrip = false;       // and behind it
  bool normalized = false;   // looked for after the others, in what they left
};

struct TokenizerSpec {
  // Tokens in the byte alphabet (byte_level.h), with their ids.
  std::vector<std::pair<std::string, std::int32_t>> vocab;
  // In falling priority.
  std::vector<std::pair<std::string, std::string>> merges;
  std::vector<AddedToken> added;
  std::vector<std::string> patterns;  // Split / Isolated regexes, one after the other
  bool ignore_merges = false;         // a piece that is a token is taken whole
};

// The part of tokenizer_config.json that is used here.
struct TokenizerConfig {
  std::optional<std::string> bos_token, eos_token, pad_token, unk_token;
  bool add_bos_token = false;
  bool add_eos_token = false;
  std::string chat_template;  // "" where the file has none
};

// Ids past this are refused: a lying file must not make tables of any size.
inline constexpr std::int64_t kMaxTokenId = (1 << 22) - 1;

}  // namespace cachalot::text
