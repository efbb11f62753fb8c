// What a file promises about ids, checked: each id one token, every byte a token, every merge of
// and to tokens of the vocabulary.
//
// Errors: kFormat, naming the file and the token.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/error.h"
#include "text/bpe.h"
#include "text/spec.h"

namespace cachalot::text {

using TokenIds = std::unordered_map<std::string, std::int32_t>;

class TokenTables {
 public:
  TokenTables(const TokenizerSpec& spec, const std::string& file);

  std::vector<std::string> bytes;  // by id; "" for an id without a token
  std::vector<char> special;
  std::vector<char> added;          // by id: found in text as a whole, before any splitting
  std::vector<char> in_vocabulary;  // by id: of model.vocab, whether an added token too or not
  TokenIds ids;
  std::array<std::int32_t, 256> byte_tokens{};
  std::vector<Merge> merges;

 private:
  void add_vocab(const TokenizerSpec& spec);
  void add_added(const TokenizerSpec& spec);
  void add_merges(const TokenizerSpec& spec);
  std::int32_t id_of(const std::string& token, std::size_t merge) const;
  [[noreturn]] void bad(const std::string& what) const {
    throw Error(Code::kFormat, cat(file_, ": ", what));
  }
  std::string file_;
};

// xxh64 over all that decides how text is encoded: equal for equal behaviour.
std::uint64_t hash_spec(const TokenizerSpec& spec);

}  // namespace cachalot::text
