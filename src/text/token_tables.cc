#include "text/token_tables.h"

#include <xxhash.h>

#include <algorithm>
#include <new>

#include "base/error.h"
#include "text/byte_level.h"
#include "text/utf8.h"

namespace cachalot::text {

TokenTables::TokenTables(const TokenizerSpec& spec, const std::string& file) : file_(file) {
  std::int64_t size = 0;
  const auto count = [&](std::int32_t id) {
    if (id < 0 || id > kMaxTokenId) bad(cat("token id ", id, " is not in 0 to ", kMaxTokenId));
    size = std::max<std::int64_t>(size, id + 1);
  };
  for (const auto& [token, id] : spec.vocab) count(id);
  for (const AddedToken& token : spec.added) count(token.id);
  bytes.resize(size);
  special.assign(size, 0);
  added.assign(size, 0);
  in_vocabulary.assign(size, 0);
  ids.reserve(spec.vocab.size() + spec.added.size());
  add_vocab(spec);
  add_merges(spec);  // before the added tokens: only the vocabulary can be merged
  add_added(spec);
}

void TokenTables::add_vocab(const TokenizerSpec& spec) {
  for (const auto& [token, id] : spec.vocab) {
    if (token.empty()) bad("model.vocab has an empty token");
    if (!ids.emplace(token, id).second) bad(cat("model.vocab has '", token, "' twice"));
    if (!bytes[id].empty()) {
      bad(cat("model.vocab gives id ", id, " to two tokens, one is '", token, "'"));
    }
    // A token outside the byte alphabet can only be an added one: it stands for its own text.
    bytes[id] = from_byte_level(token).value_or(token);
    in_vocabulary[id] = 1;
  }
  const auto& alphabet = byte_alphabet();
  for (int b = 0; b < 256; ++b) {
    std::string token;
    append_utf8(token, alphabet[b]);
    const auto found = ids.find(token);
    if (found == ids.end()) {
      bad(cat("model.vocab lacks '", token, "', the token of byte ", b,
              "; a byte-level vocabulary has all 256"));
    }
    byte_tokens[b] = found->second;
  }
}

void TokenTables::add_added(const TokenizerSpec& spec) {
  for (const AddedToken& token : spec.added) {
    const auto [found, is_new] = ids.emplace(token.content, token.id);
    if (found->second != token.id) {
      bad(cat("added token '", token.content, "' has id ", token.id, " here and ", found->second,
              " elsewhere"));
    }
    if (is_new && !bytes[token.id].empty()) {
      bad(cat("added token '", token.content, "' takes id ", token.id, ", which is taken"));
    }
    if (is_new) bytes[token.id] = token.content;
    special[token.id] = token.special ? 1 : 0;
    added[token.id] = 1;
  }
}

std::int32_t TokenTables::id_of(const std::string& token, std::size_t merge) const {
  const auto found = ids.find(token);
  if (found == ids.end()) {
    bad(cat("model.merges[", merge, "] names '", token, "', which is not in model.vocab"));
  }
  return found->second;
}

void TokenTables::add_merges(const TokenizerSpec& spec) {
  merges.reserve(spec.merges.size());
  for (std::size_t i = 0; i < spec.merges.size(); ++i) {
    const auto& [left, right] = spec.merges[i];
    merges.push_back({id_of(left, i), id_of(right, i), id_of(left + right, i)});
  }
}

std::uint64_t hash_spec(const TokenizerSpec& spec) {
  // Order in the vocab object says nothing, so tokens are summed, each hashed with its id.
  std::uint64_t tokens = 0;
  for (const auto& [token, id] : spec.vocab) tokens += XXH64(token.data(), token.size(), id);
  XXH64_state_t* state = XXH64_createState();
  if (state == nullptr) throw std::bad_alloc();
  XXH64_reset(state, tokens);
  const auto add = [&](const std::string& text) {
    const std::uint64_t size = text.size();
    XXH64_update(state, &size, sizeof size);
    XXH64_update(state, text.data(), text.size());
  };
  for (const auto& [left, right] : spec.merges) add(left), add(right);
  for (const AddedToken& a : spec.added) {
    add(cat(a.id, ' ', a.special, a.single_word, a.lstrip, a.rstrip, a.normalized, ' ', a.content));
  }
  for (const std::string& pattern : spec.patterns) add(pattern);
  add(spec.ignore_merges ? "ignore_merges" : "");
  const std::uint64_t hash = XXH64_digest(state);
  XXH64_freeState(state);
  return hash;
}

}  // namespace cachalot::text
